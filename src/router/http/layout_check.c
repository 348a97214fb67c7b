/*
 * Layout check: arithmetic on where the pieces of a head lie.
 */
#include "router/http/layout_check.h"

#include <stdint.h>

static uintptr_t layout_check_at(const char *p)
{
	return (uintptr_t)p;
}

static uintptr_t end_of(struct span s)
{
	return layout_check_at(s.ptr) + s.len;
}

/* The library writes a NUL over the colon; only blanks may follow it. */
static bool colon_and_blanks(const struct http_field *f)
{
	if (!f->name.ptr || !f->value.ptr || layout_check_at(f->value.ptr) <= end_of(f->name))
		return false;
	for (const char *p = f->name.ptr + f->name.len + 1; p < f->value.ptr; p++)
		if (*p != ' ' && *p != '\t')
			return false;
	return true;
}

/* A library that drops blanks after a value writes a NUL over the first of them, and lets the CR stand. */
static size_t dropped_blanks(struct span value)
{
	const char *p = value.ptr + value.len;
	size_t n = 0;
	if (p[0] == 0 && (p[1] == ' ' || p[1] == '\t' || p[1] == '\r'))
		n = 1;
	while (p[n] == ' ' || p[n] == '\t')
		n++;
	return n;
}

const char *layout_check(const struct http_request *r, size_t head_size, bool trimmed)
{
	if (layout_check_at(r->target.ptr) != end_of(r->method) + 1 ||
	    layout_check_at(r->version.ptr) != end_of(r->target) + 1)
		return "stray blank or NUL in the request line";
	uintptr_t line_end = end_of(r->version) + 2; /* CR LF */
	for (size_t i = 0; i < r->n_fields; i++) {
		const struct http_field *f = &r->fields[i];
		if (layout_check_at(f->name.ptr) != line_end || !colon_and_blanks(f))
			return "folded line, bare LF or NUL in the head";
		line_end = end_of(f->value) + (trimmed ? dropped_blanks(f->value) : 0) + 2;
	}
	if (line_end + 2 - layout_check_at(r->method.ptr) != head_size)
		return "folded line, bare LF or NUL at the end of the head";
	return NULL;
}
