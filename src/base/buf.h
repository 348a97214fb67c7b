/*
 * Growing byte buffer with a limit.
 *
 * Why:       every allocation whose size a caller controls has a limit; here it is part of the type.
 * Ownership: the buffer owns its bytes. buf_steal hands them to the caller, who frees them.
 * Errors:    -ENOMEM, or -EFBIG when the limit would be passed; both leave the content as it was. Both are
 *            remembered in `error`, so that a run of appends can be checked once at its end.
 */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/span.h"

struct buf {
	char *ptr;	 /* always NUL-terminated after len if not NULL */
	size_t len;	 /* bytes in use */
	size_t capacity; /* bytes allocated, the NUL included */
	size_t max;	 /* limit for len */
	int error;	 /* first error since init/clear, or 0 */
};

#define BUF_INIT(limit) ((struct buf){.max = (limit)})

void buf_init(struct buf *b, size_t max);
void buf_release(struct buf *b); /* frees the bytes; the buffer is as after init */
void buf_clear(struct buf *b);	 /* len = 0, error = 0, memory kept */

int buf_append(struct buf *b, const void *bytes, size_t n);
int buf_append_span(struct buf *b, struct span s);
int buf_puts(struct buf *b, const char *s);
int buf_putc(struct buf *b, char c);
int buf_printf(struct buf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
int buf_vprintf(struct buf *b, const char *format, va_list ap);

/* As one segment of a URL's path, or one value of its query: all but RFC 3986's unreserved characters as %XX,
 * and the dots of "." and "..". */
int buf_put_segment(struct buf *b, struct span s);

/* Room for n more bytes at ptr + len; the caller writes there and adds to len (and keeps the NUL by
 * buf_terminate). */
int buf_reserve(struct buf *b, size_t n);
void buf_terminate(struct buf *b);

/* Drops n bytes from the front. */
void buf_consume(struct buf *b, size_t n);

/* The bytes, NUL-terminated ("" when empty); the caller frees. NULL if out of memory. The buffer is
 * empty after. */
char *buf_steal(struct buf *b);

static inline struct span buf_span(const struct buf *b)
{
	return (struct span){b->ptr ? b->ptr : "", b->len};
}

static inline void buf_releasep(struct buf *b)
{
	buf_release(b);
}

#endif
