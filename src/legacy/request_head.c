#include "legacy/request_head.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "legacy/dot_segments.h"

static bool has_blank(struct span s)
{
	return s.len == 0 || memchr(s.ptr, ' ', s.len) || memchr(s.ptr, '\t', s.len);
}

static bool request_head_is_framing(struct span name)
{
	switch (name.len) {
	case 10:
		return span_is_nocase(name, "Connection");
	case 14:
		return span_is_nocase(name, "Content-Length");
	case 17:
		return span_is_nocase(name, "Transfer-Encoding");
	default:
		return false;
	}
}

/* The path and query of an absolute-form target (RFC 9112 §3.2.2); others as they are. */
static struct span origin_form(struct span target)
{
	if (target.ptr[0] == '/')
		return target;
	const char *authority = memmem(target.ptr, target.len, "://", 3);
	if (!authority)
		return target;
	size_t at = (size_t)(authority - target.ptr) + 3;
	while (at < target.len && target.ptr[at] != '/' && target.ptr[at] != '?')
		at++;
	return (struct span){target.ptr + at, target.len - at};
}

bool request_target_climbs(struct span target)
{
	target = origin_form(target);
	const char *query = target.len ? memchr(target.ptr, '?', target.len) : NULL;
	return dot_segments_climb(
		(struct span){target.ptr, query ? (size_t)(query - target.ptr) : target.len});
}

static void append_target(struct buf *out, struct span target, const struct origin *o)
{
	if (o->prefix_length && !span_is(target, "*")) {
		buf_append(out, o->prefix, o->prefix_length);
		target = origin_form(target);
		if (target.len == 0 || target.ptr[0] != '/')
			buf_putc(out, '/');
	}
	buf_append_span(out, target);
}

static void append_field(struct buf *out, struct span name, struct span value)
{
	if (buf_reserve(out, name.len + value.len + 4) < 0)
		return;
	char *p = out->ptr + out->len;
	memcpy(p, name.ptr, name.len);
	p += name.len;
	*p++ = ':';
	*p++ = ' ';
	if (value.len)
		memcpy(p, value.ptr, value.len);
	p += value.len;
	*p++ = '\r';
	*p++ = '\n';
	out->len = (size_t)(p - out->ptr);
}

static size_t append_framing(struct buf *out, const struct legacy_request *r)
{
	if (r->has_body && r->content_length < 0) {
		append_field(out, SPAN_LIT("Transfer-Encoding"), SPAN_LIT("chunked"));
		return 1;
	}
	if (!r->has_body && !r->has_length)
		return 0;
	char digits[24];
	int n = snprintf(digits, sizeof(digits), "%lld", (long long)r->content_length);
	append_field(out, SPAN_LIT("Content-Length"), (struct span){digits, (size_t)n});
	return 1;
}

static size_t request_head_count(const char *p, size_t n, char c)
{
	size_t found = 0;
	for (const char *end = p + n; (p = memchr(p, c, (size_t)(end - p))); p++)
		found++;
	return found;
}

/* The listener has refused such requests already; this keeps a mistake elsewhere from splitting one into two.
 */
static bool request_head_is_whole(const char *head, size_t n, size_t lines)
{
	return request_head_count(head, n, '\n') == lines && request_head_count(head, n, '\r') == lines &&
	       !memchr(head, '\0', n);
}

int request_head_append(struct buf *out, const struct legacy_request *r, const struct origin *o)
{
	if (has_blank(r->method) || has_blank(r->target))
		return -EINVAL;
	size_t begin = out->len, lines = 2;
	bool host = false;
	buf_append_span(out, r->method);
	buf_putc(out, ' ');
	append_target(out, r->target, o);
	buf_puts(out, " HTTP/1.1\r\n");
	for (size_t i = 0; i < r->n_fields; i++) {
		struct span name = r->fields[i].name;
		if (request_head_is_framing(name))
			continue;
		host |= span_is_nocase(name, "Host");
		append_field(out, name, r->fields[i].value);
		lines++;
	}
	if (!host) {
		append_field(out, SPAN_LIT("Host"), span_of(o->authority));
		lines++;
	}
	lines += append_framing(out, r);
	buf_puts(out, "\r\n");
	if (out->error)
		return out->error;
	return request_head_is_whole(out->ptr + begin, out->len - begin, lines) ? 0 : -EINVAL;
}
