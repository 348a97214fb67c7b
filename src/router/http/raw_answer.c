/*
 * Raw answer.
 */
#include "router/http/raw_answer.h"

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

/* Up to where the framing would stand. */
static void raw_answer_head(struct buf *b, const char *reason, const char *connection,
			    const struct http_response *r)
{
	bool dated = false;
	buf_printf(b, "HTTP/1.1 %d %s\r\n", r->status, reason);
	if (connection)
		buf_printf(b, "Connection: %s\r\n", connection);
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
}

static int raw_answer_write(int fd, const struct buf *b)
{
	if (b->error)
		return -EAGAIN;
	ssize_t n = send(fd, b->ptr, b->len, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (n < 0)
		return errno == EINTR ? -EAGAIN : -errno;
	return (size_t)n < b->len ? -EPIPE : 0;
}

int raw_answer_send(int fd, const char *reason, const struct http_response *r, struct span body)
{
	CLEANUP(buf_releasep) struct buf b = BUF_INIT(RAW_ANSWER_MAX);
	raw_answer_head(&b, reason, "close", r);
	buf_printf(&b, "Content-Length: %zu\r\n\r\n", body.len);
	buf_append_span(&b, body);
	int e = raw_answer_write(fd, &b);
	if (e == 0)
		shutdown(fd, SHUT_WR);
	return e;
}

int raw_answer_send_unframed(int fd, const char *reason, bool http10, const struct http_response *r)
{
	CLEANUP(buf_releasep) struct buf b = BUF_INIT(RAW_ANSWER_MAX);
	raw_answer_head(&b, reason, http10 ? "Keep-Alive" : NULL, r);
	buf_puts(&b, "\r\n");
	return raw_answer_write(fd, &b);
}
