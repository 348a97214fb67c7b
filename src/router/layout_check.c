/*
 * Layout check: arithmetic on where the pieces of a head lie.
 */
#include "router/layout_check.h"

#include <stdint.h>

static uintptr_t at(const char *p)
{
	return (uintptr_t)p;
}

static uintptr_t end_of(struct span s)
{
	return at(s.ptr) + s.len;
}

/* The library writes a NUL over the colon; only blanks may follow it. */
static bool colon_and_blanks(const struct http_field *f)
{
	if (!f->name.ptr || !f->value.ptr || at(f->value.ptr) <= end_of(f->name))
		return false;
	for (const char *p = f->name.ptr + f->name.len + 1; p < f->value.ptr; p++)
		if (*p != ' ' && *p != '\t')
			return false;
	return true;
}

const char *layout_check(const struct http_request *r, size_t head_size)
{
	if (at(r->target.ptr) != end_of(r->method) + 1 || at(r->version.ptr) != end_of(r->target) + 1)
		return "stray blank or NUL in the request line";
	uintptr_t line_end = end_of(r->version) + 2; /* CR LF */
	for (size_t i = 0; i < r->n_fields; i++) {
		const struct http_field *f = &r->fields[i];
		if (at(f->name.ptr) != line_end || !colon_and_blanks(f))
			return "folded line, bare LF or NUL in the head";
		line_end = end_of(f->value) + 2;
	}
	if (line_end + 2 - at(r->method.ptr) != head_size)
		return "folded line, bare LF or NUL at the end of the head";
	return NULL;
}
