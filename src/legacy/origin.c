#include "legacy/origin.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int origin_refuse(struct err *e, const char *base_url, const char *why)
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

static int origin_check(const char *base_url, struct span authority, struct span path, struct err *e)
{
	if (memchr(authority.ptr, '@', authority.len))
		return err_set(e, -EINVAL, "a legacy base URL must not contain user info");
	if (authority.len == 0 || authority.ptr[0] == ':')
		return origin_refuse(e, base_url, "there is no host");
	if (!only_visible(authority) || !only_visible(path))
		return origin_refuse(e, base_url, "blanks and control characters are not allowed");
	if (memchr(authority.ptr, '?', authority.len) || memchr(authority.ptr, '#', authority.len) ||
	    (path.len && (memchr(path.ptr, '?', path.len) || memchr(path.ptr, '#', path.len))))
		return origin_refuse(e, base_url, "a query or fragment is not allowed");
	return 0;
}

/* host, [host], host:port, [host]:port */
static int origin_host(struct origin *o, struct span authority)
{
	struct span host = authority, port = SPAN_NONE;
	bool bracketed = authority.ptr[0] == '[';
	const char *end = bracketed ? memchr(authority.ptr, ']', authority.len) : NULL;
	const char *colon = memchr(end ? end : authority.ptr, ':',
				   authority.len - (end ? (size_t)(end - authority.ptr) : 0));
	if (colon) {
		host.len = (size_t)(colon - authority.ptr);
		port = (struct span){colon + 1, authority.len - host.len - 1};
	}
	if (bracketed) {
		if (!end || end + 1 != host.ptr + host.len)
			return -EINVAL;
		host = (struct span){host.ptr + 1, host.len - 2};
	}
	o->port = o->tls ? 443 : 80;
	if (port.len) {
		unsigned long n = strtoul(port.ptr, NULL, 10); /* ends at the path or the string's end */
		if (port.len > 5 || strspn(port.ptr, "0123456789") < port.len || n == 0 || n > 65535)
			return -EINVAL;
		o->port = (unsigned)n;
	}
	unsigned char address[16];
	o->host = span_dup(host);
	o->is_address = bracketed || (o->host && inet_pton(AF_INET, o->host, address) == 1);
	return 0;
}

int origin_parse(const char *base_url, struct origin *ret, struct err *e)
{
	struct origin o = {0};
	struct span rest = span_of(base_url);
	struct span plain = SPAN_LIT("http://"), tls = SPAN_LIT("https://");
	o.tls = span_starts(rest, tls);
	if (!o.tls && !span_starts(rest, plain))
		return origin_refuse(e, base_url, "it must begin with http:// or https://");
	size_t scheme = o.tls ? tls.len : plain.len;
	rest.ptr += scheme;
	rest.len -= scheme;
	const char *slash = memchr(rest.ptr, '/', rest.len);
	struct span authority = {rest.ptr, slash ? (size_t)(slash - rest.ptr) : rest.len};
	struct span path = {rest.ptr + authority.len, rest.len - authority.len};
	int r = origin_check(base_url, authority, path, e);
	if (r < 0)
		return r;
	if (origin_host(&o, authority) < 0)
		return origin_refuse(e, base_url, "the host or port is not valid");
	while (path.len && path.ptr[path.len - 1] == '/')
		path.len--;
	o.authority = span_dup(authority);
	o.prefix = span_dup(path);
	o.prefix_length = path.len;
	if (asprintf(&o.url, "%s%.*s/", o.tls ? "https://" : "http://", SPAN_ARG(authority)) < 0)
		o.url = NULL;
	if (!o.authority || !o.host || !o.prefix || !o.url) {
		origin_release(&o);
		return err_set(e, -ENOMEM, "out of memory");
	}
	*ret = o;
	return 0;
}

int origin_rename(struct origin *o, const char *server_name)
{
	char *url = NULL;
	size_t n = server_name[0] == '[' ? strcspn(server_name, "]") + 1 : strcspn(server_name, ":");
	if (asprintf(&url, "%s%.*s:%u/", o->tls ? "https://" : "http://", (int)n, server_name, o->port) < 0)
		return -ENOMEM;
	free(o->url);
	o->url = url;
	o->reroute = true;
	return 0;
}

void origin_release(struct origin *o)
{
	free(o->authority);
	free(o->host);
	free(o->prefix);
	free(o->url);
	*o = (struct origin){0};
}
