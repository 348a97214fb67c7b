/*
 * Raw answer.
 */
#include "router/raw_answer.h"

#include <errno.h>
#include <sys/socket.h>
#include <time.h>

#include "base/buf.h"

#define RAW_ANSWER_MAX (1 << 20)

static bool raw_answer_takes(const struct http_field *f)
{
	static const char *const framing[] = {"Content-Length", "Transfer-Encoding", "Connection"};
	for (size_t i = 0; i < sizeof(framing) / sizeof(framing[0]); i++)
		if (span_is_nocase(f->name, framing[i]))
			return false;
	for (size_t i = 0; i < f->name.len; i++)
		if ((unsigned char)f->name.ptr[i] <= ' ' || f->name.ptr[i] == ':')
			return false;
	for (size_t i = 0; i < f->value.len; i++)
		if (strchr("\r\n", f->value.ptr[i])) /* NUL, too */
			return false;
	return f->name.len > 0;
}

static void raw_answer_date(struct buf *b)
{
	char text[64];
	struct tm tm;
	time_t now = time(NULL);
	if (gmtime_r(&now, &tm) && strftime(text, sizeof(text), "Date: %a, %d %b %Y %H:%M:%S GMT\r\n", &tm))
		buf_puts(b, text);
}

static void raw_answer_head(struct buf *b, const char *reason, const struct http_response *r, size_t length)
{
	bool dated = false;
	buf_printf(b, "HTTP/1.1 %d %s\r\nConnection: close\r\n", r->status, reason);
	for (size_t i = 0; i < r->n_fields; i++) {
		const struct http_field *f = &r->fields[i];
		dated |= span_is_nocase(f->name, "Date");
		if (!raw_answer_takes(f))
			continue;
		buf_append_span(b, f->name);
		buf_puts(b, ": ");
		buf_append_span(b, f->value);
		buf_puts(b, "\r\n");
	}
	if (!dated)
		raw_answer_date(b);
	buf_printf(b, "Content-Length: %zu\r\n\r\n", length);
}

int raw_answer_send(int fd, const char *reason, const struct http_response *r, struct span body)
{
	CLEANUP(buf_releasep) struct buf b = BUF_INIT(RAW_ANSWER_MAX);
	raw_answer_head(&b, reason, r, body.len);
	buf_append_span(&b, body);
	if (b.error)
		return -EAGAIN;
	ssize_t n = send(fd, b.ptr, b.len, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (n < 0)
		return errno == EINTR ? -EAGAIN : -errno;
	if ((size_t)n < b.len)
		return -EPIPE;
	shutdown(fd, SHUT_WR);
	return 0;
}
