#include "base/plain_output.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/text.h"
#include "base/utf8.h"

#define PIECE 4096 /* bytes that are sanitized at a time; six become of one */

/* Bytes of a character whose rest comes with the next write. */
struct plain_stream {
	int fd;
	char begun[4];
	size_t n_begun;
};

static struct plain_stream output = {.fd = STDOUT_FILENO}, errors = {.fd = STDERR_FILENO};

static bool plain_output_write_all(int fd, const char *p, size_t n)
{
	while (n) {
		ssize_t written = write(fd, p, n);
		if (written < 0 && errno == EINTR)
			continue;
		if (written < 0)
			return false;
		p += written;
		n -= (size_t)written;
	}
	return true;
}

/* How much of the end is the beginning of a character, or of a line end, that may still become whole. */
static size_t unfinished(const char *p, size_t n)
{
	if (n && p[n - 1] == '\r')
		return 1; /* a line end, if LF follows */
	for (size_t back = 1; back <= 3 && back <= n; back++) {
		unsigned char c = (unsigned char)p[n - back];
		size_t whole = 1;
		if (c >= 0xF0)
			whole = 4;
		else if (c >= 0xE0)
			whole = 3;
		else if (c >= 0xC0)
			whole = 2;
		if (whole > 1)
			return whole > back ? back : 0;
		if (c < 0x80)
			return 0;
	}
	return 0;
}

static bool write_plain(struct plain_stream *s, struct span text)
{
	CLEANUP(buf_releasep) struct buf out = BUF_INIT(6 * (PIECE + sizeof(s->begun)));
	return text_put_lines(&out, text) == 0 &&
	       plain_output_write_all(s->fd, out.ptr ? out.ptr : "", out.len);
}

static ssize_t on_write(void *cookie, const char *bytes, size_t size)
{
	struct plain_stream *s = cookie;
	for (size_t at = 0; at < size;) {
		char piece[PIECE + sizeof(s->begun)];
		size_t n = size - at < PIECE ? size - at : PIECE;
		memcpy(piece, s->begun, s->n_begun);
		memcpy(piece + s->n_begun, bytes + at, n);
		at += n;
		n += s->n_begun;
		s->n_begun = unfinished(piece, n);
		n -= s->n_begun;
		memcpy(s->begun, piece + n, s->n_begun);
		if (!write_plain(s, (struct span){piece, n}))
			return 0; /* the stream's error */
	}
	return (ssize_t)size;
}

static FILE *plain(struct plain_stream *s, int mode)
{
	FILE *f = fopencookie(s, "w", (cookie_io_functions_t){.write = on_write});
	if (f)
		setvbuf(f, NULL, mode, 0);
	return f;
}

void plain_output_begin(void)
{
	FILE *out = plain(&output, isatty(STDOUT_FILENO) ? _IOLBF : _IOFBF), *err = plain(&errors, _IONBF);
	stdout = out ? out : stdout;
	stderr = err ? err : stderr;
}
