#include "base/buf.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void buf_init(struct buf *b, size_t max)
{
	*b = BUF_INIT(max);
}

void buf_release(struct buf *b)
{
	free(b->ptr);
	*b = BUF_INIT(b->max);
}

void buf_clear(struct buf *b)
{
	b->len = 0;
	b->error = 0;
	if (b->ptr)
		b->ptr[0] = '\0';
}

static int buf_fail(struct buf *b, int code)
{
	if (!b->error)
		b->error = code;
	return code;
}

int buf_reserve(struct buf *b, size_t n)
{
	if (n > b->max || b->len > b->max - n)
		return buf_fail(b, -EFBIG);
	size_t need = b->len + n + 1;
	if (need <= b->capacity)
		return 0;
	size_t capacity = b->capacity ? b->capacity : 64;
	while (capacity < need)
		capacity *= 2;
	if (capacity > b->max + 1)
		capacity = b->max + 1;
	char *p = realloc(b->ptr, capacity);
	if (!p)
		return buf_fail(b, -ENOMEM);
	b->ptr = p;
	b->capacity = capacity;
	return 0;
}

void buf_terminate(struct buf *b)
{
	if (b->ptr)
		b->ptr[b->len] = '\0';
}

int buf_append(struct buf *b, const void *bytes, size_t n)
{
	int r = buf_reserve(b, n);
	if (r < 0)
		return r;
	if (n)
		memcpy(b->ptr + b->len, bytes, n);
	b->len += n;
	b->ptr[b->len] = '\0';
	return 0;
}

int buf_append_span(struct buf *b, struct span s)
{
	return buf_append(b, s.ptr, s.len);
}

int buf_puts(struct buf *b, const char *s)
{
	return buf_append(b, s, strlen(s));
}

int buf_putc(struct buf *b, char c)
{
	return buf_append(b, &c, 1);
}

int buf_vprintf(struct buf *b, const char *format, va_list ap)
{
	va_list again;
	va_copy(again, ap);
	char small[256];
	int n = vsnprintf(small, sizeof(small), format, ap);
	int r;
	if (n < 0) {
		r = buf_fail(b, -EINVAL);
	} else if ((size_t)n < sizeof(small)) {
		r = buf_append(b, small, (size_t)n);
	} else {
		r = buf_reserve(b, (size_t)n);
		if (r == 0) {
			vsnprintf(b->ptr + b->len, (size_t)n + 1, format, again);
			b->len += (size_t)n;
		}
	}
	va_end(again);
	return r;
}

int buf_put_segment(struct buf *b, struct span s)
{
	bool dots = span_is(s, ".") || span_is(s, ".."); /* would lead to another path */
	for (size_t i = 0; i < s.len; i++) {
		unsigned char c = (unsigned char)s.ptr[i];
		bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
		if (letter || c == '-' || (c == '.' && !dots) || c == '_' || c == '~')
			buf_putc(b, (char)c);
		else
			buf_printf(b, "%%%02X", c);
	}
	return b->error;
}

int buf_printf(struct buf *b, const char *format, ...)
{
	va_list ap;
	va_start(ap, format);
	int r = buf_vprintf(b, format, ap);
	va_end(ap);
	return r;
}

void buf_consume(struct buf *b, size_t n)
{
	if (n > b->len)
		n = b->len;
	b->len -= n;
	if (b->ptr) {
		memmove(b->ptr, b->ptr + n, b->len);
		b->ptr[b->len] = '\0';
	}
}

char *buf_steal(struct buf *b)
{
	if (buf_reserve(b, 0) < 0)
		return NULL;
	b->ptr[b->len] = '\0';
	char *p = b->ptr;
	*b = BUF_INIT(b->max);
	return p;
}
