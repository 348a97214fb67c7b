/*
 * Spans: borrowed pieces of text, and comparisons over them.
 *
 * Why:       requests, headers and JSON values are checked in place; nothing is copied to be
 *            compared.
 * Ownership: a span never owns; who hands one out says until when it is good. Not NUL-terminated unless said.
 */
#ifndef BASE_SPAN_H
#define BASE_SPAN_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <strings.h>

struct span {
	const char *ptr; /* NULL means absent, which is not the same as empty */
	size_t len;	 /* bytes */
};

#define SPAN_NONE ((struct span){NULL, 0})
#define SPAN_LIT(s) ((struct span){(s), sizeof(s) - 1})
/* The same where an initializer must be a constant: static tables. */
/* clang-format off */
#define SPAN_INIT(s) {(s), sizeof(s) - 1}
/* clang-format on */
/* For printf: "%.*s", SPAN_ARG(s) */
#define SPAN_ARG(s) (int)(s).len, (s).ptr ? (s).ptr : ""

static inline struct span span_of(const char *s)
{
	return s ? (struct span){s, strlen(s)} : SPAN_NONE;
}

static inline bool span_eq(struct span a, struct span b)
{
	return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

static inline bool span_is(struct span a, const char *s)
{
	return span_eq(a, span_of(s));
}

/* ASCII case-insensitive, as HTTP field names are compared (RFC 9110 §5.1). */
static inline bool span_eq_nocase(struct span a, struct span b)
{
	return a.len == b.len && (a.len == 0 || strncasecmp(a.ptr, b.ptr, a.len) == 0);
}

static inline bool span_is_nocase(struct span a, const char *s)
{
	return span_eq_nocase(a, span_of(s));
}

static inline bool span_starts(struct span a, struct span prefix)
{
	return a.len >= prefix.len && (prefix.len == 0 || memcmp(a.ptr, prefix.ptr, prefix.len) == 0);
}

/* Without blanks (space and tab, RFC 9110 OWS) at both ends. */
static inline struct span span_trim(struct span a)
{
	while (a.len && (a.ptr[0] == ' ' || a.ptr[0] == '\t'))
		a.ptr++, a.len--;
	while (a.len && (a.ptr[a.len - 1] == ' ' || a.ptr[a.len - 1] == '\t'))
		a.len--;
	return a;
}

/* The same with line ends: white space as JSON has it. */
static inline struct span span_strip(struct span a)
{
	while (a.len && memchr(" \t\r\n", a.ptr[0], 4))
		a.ptr++, a.len--;
	while (a.len && memchr(" \t\r\n", a.ptr[a.len - 1], 4))
		a.len--;
	return a;
}

/* Of NUL-terminated texts; NULL is the same as NULL only. */
static inline bool text_eq(const char *a, const char *b)
{
	return a && b ? strcmp(a, b) == 0 : a == b;
}

/* Copies with truncation into a NUL-terminated array of `size` bytes, never cutting a UTF-8 sequence in
 * two. */
void span_copy(struct span a, char *dst, size_t size);

/* A NUL-terminated copy that the caller frees; NULL if out of memory. */
char *span_dup(struct span a);

#endif
