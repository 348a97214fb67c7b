#include "operation/plain_path.h"

#include <string.h>

#include "base/digits.h"
#include "operation/route.h"

#define LEVELS 3 /* of percent-encoding within each other */

/* Once, in place; whether there was anything. */
static bool decode_once(struct buf *path)
{
	size_t to = 0;
	bool any = false;
	for (size_t i = 0; i < path->len; i++, to++) {
		int byte = -1;
		if (path->ptr[i] == '%')
			byte = hex_byte(path->ptr + i + 1, path->ptr + path->len);
		path->ptr[to] = byte < 0 ? path->ptr[i] : (char)byte;
		i += byte < 0 ? 0 : 2;
		any |= byte >= 0;
	}
	path->len = to;
	return any;
}

static struct span without_authority(struct span target)
{
	const char *slashes = memmem(target.ptr, target.len, "://", 3);
	if (target.len && (target.ptr[0] == '/' || !slashes))
		return target;
	size_t at = slashes ? (size_t)(slashes + 3 - target.ptr) : 0;
	while (at < target.len && target.ptr[at] != '/')
		at++;
	return (struct span){target.ptr + at, target.len - at};
}

/* Drops the last segment. */
static void go_up(struct buf *out)
{
	while (out->len && out->ptr[out->len - 1] != '/')
		out->len--;
	out->len -= out->len > 0;
}

static void plain_put_segment(struct span segment, struct buf *out)
{
	const char *parameters = memchr(segment.ptr, ';', segment.len);
	if (parameters)
		segment.len = (size_t)(parameters - segment.ptr);
	if (segment.len == 0 || span_is(segment, "."))
		return;
	if (span_is(segment, "..")) {
		go_up(out);
		return;
	}
	buf_putc(out, '/');
	buf_append_span(out, segment);
}

/* Where a server of C stops, or one that takes a fragment for one. */
static size_t plain_end(const struct buf *path)
{
	size_t n = 0;
	while (n < path->len && path->ptr[n] != '\0' && path->ptr[n] != '#' && path->ptr[n] != '?')
		n++;
	return n;
}

bool plain_path(struct span target, struct buf *out)
{
	struct span stands = route_path(target);
	CLEANUP(buf_releasep) struct buf path = BUF_INIT(stands.len + 16);
	if (buf_append_span(&path, without_authority(stands)) < 0)
		return false;
	for (int level = 0; level < LEVELS && decode_once(&path); level++)
		;
	size_t end = plain_end(&path);
	for (size_t i = 0, begin = 0; i <= end; i++) {
		if (i < end && path.ptr[i] != '/' && path.ptr[i] != '\\')
			continue;
		plain_put_segment((struct span){path.ptr + begin, i - begin}, out);
		begin = i + 1;
	}
	if (out->len == 0)
		buf_putc(out, '/');
	return !out->error && !span_eq(buf_span(out), stands);
}
