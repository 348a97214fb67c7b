#include "legacy/origin.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

static int refuse(struct err *e, const char *base_url, const char *why)
{
	return err_set(e, -EINVAL, "legacy base URL '%s': %s", base_url, why);
}

static bool only_visible(struct span s)
{
	for (size_t i = 0; i < s.len; i++)
		if ((unsigned char)s.ptr[i] <= ' ' || s.ptr[i] == 0x7f)
			return false;
	return true;
}

static int check(const char *base_url, struct span authority, struct span path, struct err *e)
{
	if (memchr(authority.ptr, '@', authority.len))
		return err_set(e, -EINVAL, "a legacy base URL must not hold user info");
	if (authority.len == 0 || authority.ptr[0] == ':')
		return refuse(e, base_url, "there is no host");
	if (!only_visible(authority) || !only_visible(path))
		return refuse(e, base_url, "blanks and control characters are not allowed");
	if (memchr(authority.ptr, '?', authority.len) || memchr(authority.ptr, '#', authority.len) ||
	    (path.len && (memchr(path.ptr, '?', path.len) || memchr(path.ptr, '#', path.len))))
		return refuse(e, base_url, "a query or fragment is not allowed");
	return 0;
}

int origin_parse(const char *base_url, struct origin *ret, struct err *e)
{
	struct origin o = {0};
	struct span rest = span_of(base_url);
	struct span plain = SPAN_LIT("http://"), tls = SPAN_LIT("https://");
	o.tls = span_starts(rest, tls);
	if (!o.tls && !span_starts(rest, plain))
		return refuse(e, base_url, "it must begin with http:// or https://");
	size_t scheme = o.tls ? tls.len : plain.len;
	rest.ptr += scheme;
	rest.len -= scheme;
	const char *slash = memchr(rest.ptr, '/', rest.len);
	struct span authority = {rest.ptr, slash ? (size_t)(slash - rest.ptr) : rest.len};
	struct span path = {rest.ptr + authority.len, rest.len - authority.len};
	int r = check(base_url, authority, path, e);
	if (r < 0)
		return r;
	while (path.len && path.ptr[path.len - 1] == '/')
		path.len--;
	o.authority = span_dup(authority);
	o.prefix = span_dup(path);
	o.prefix_length = path.len;
	if (asprintf(&o.url, "%s%.*s/", o.tls ? "https://" : "http://", SPAN_ARG(authority)) < 0)
		o.url = NULL;
	if (!o.authority || !o.prefix || !o.url) {
		origin_release(&o);
		return err_set(e, -ENOMEM, "out of memory");
	}
	return (*ret = o, 0);
}

void origin_release(struct origin *o)
{
	free(o->authority);
	free(o->prefix);
	free(o->url);
	*o = (struct origin){0};
}
