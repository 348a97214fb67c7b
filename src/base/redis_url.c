#include "base/redis_url.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/digits.h"

#define URL_MAX 4096
#define MAX_DB 1000000

/* Replaces *to by the decoded text; an empty one is none. */
static int redis_url_decode(struct span s, const char *what, char **to, struct err *e)
{
	char *text = malloc(s.len + 1);
	size_t n = 0;
	if (!text)
		return err_set(e, -ENOMEM, "out of memory");
	for (size_t i = 0; i < s.len; i++) {
		char c = s.ptr[i];
		if (c == '%') {
			int byte = hex_byte(s.ptr + i + 1, s.ptr + s.len);
			if (byte < 0) {
				/* as Python's unquote, which Celery uses: it stays as it is */
				text[n++] = c;
				continue;
			}
			if (byte == 0) {
				free(text);
				return err_set(e, -EINVAL, "the URL's %s has an invalid percent-encoding",
					       what);
			}
			c = (char)byte;
			i += 2;
		}
		text[n++] = c;
	}
	text[n] = '\0';
	free(*to);
	*to = n ? text : NULL;
	if (!n)
		free(text);
	return 0;
}

static int redis_url_number(struct span s, unsigned least, unsigned most, const char *what, unsigned *ret,
			    struct err *e)
{
	uint64_t value;
	if (!digits_read(s, most, &value) || value < least)
		return err_set(e, -EINVAL, "the URL's %s must be a number from %u to %u", what, least, most);
	*ret = (unsigned)value;
	return 0;
}

/* Cuts `*rest` at the first `c`: returns what was before it, and leaves what follows it (SPAN_NONE
 * without one). */
static struct span redis_url_cut(struct span *rest, char c)
{
	const char *at = rest->len ? memchr(rest->ptr, c, rest->len) : NULL;
	struct span before = *rest;
	if (!at) {
		*rest = SPAN_NONE;
		return before;
	}
	before.len = (size_t)(at - before.ptr);
	*rest = (struct span){at + 1, rest->len - before.len - 1};
	return before;
}

static int read_db(struct span text, struct redis_url *u, struct err *e)
{
	while (text.len && text.ptr[0] == '/')
		text.ptr++, text.len--;
	while (text.len && text.ptr[text.len - 1] == '/')
		text.len--;
	return text.len ? redis_url_number(text, 0, MAX_DB, "database", &u->db, e) : 0;
}

static int read_query(struct span query, struct redis_url *u, struct err *e)
{
	int r = 0;
	while (query.ptr && r == 0) {
		struct span value = redis_url_cut(&query, '&'), key = redis_url_cut(&value, '=');
		if (span_is(key, "virtual_host") || span_is(key, "db"))
			r = read_db(value, u, e);
		else if (span_is(key, "password"))
			r = redis_url_decode(value, "password", &u->password, e);
		else if (span_is(key, "username"))
			r = redis_url_decode(value, "user", &u->user, e);
		else if (span_starts(key, SPAN_LIT("ssl_")))
			r = err_set(e, -EINVAL,
				    "the URL asks for TLS, which needs a TLS proxy in front of Redis here "
				    "(stunnel, HAProxy): name that proxy's plain address as redis://");
	}
	return r;
}

static int read_credentials(struct span text, struct redis_url *u, struct err *e)
{
	struct span password = text, user = redis_url_cut(&password, ':');
	int r = redis_url_decode(user, "user", &u->user, e);
	return r < 0 || !password.ptr ? r : redis_url_decode(password, "password", &u->password, e);
}

static int read_host(struct span text, struct redis_url *u, struct err *e)
{
	struct span host = text, port = SPAN_NONE;
	u->port = 6379;
	if (text.len && text.ptr[0] == '[') {
		const char *end = memchr(text.ptr, ']', text.len);
		if (!end)
			return err_set(e, -EINVAL, "the URL's host has no closing bracket");
		host = (struct span){text.ptr + 1, (size_t)(end - text.ptr) - 1};
		port = (struct span){end + 1, text.len - host.len - 2};
		if (port.len && port.ptr[0] != ':')
			return err_set(e, -EINVAL, "the URL has unexpected text after its host");
		port = port.len ? (struct span){port.ptr + 1, port.len - 1} : SPAN_NONE;
	} else {
		port = text;
		host = redis_url_cut(&port, ':');
	}
	int r = redis_url_decode(host.len ? host : SPAN_LIT("127.0.0.1"), "host", &u->host, e);
	return r < 0 || !port.len ? r : redis_url_number(port, 1, 65535, "port", &u->port, e);
}

static int read_scheme(struct span scheme, bool *ret_socket, struct err *e)
{
	*ret_socket = span_is(scheme, "redis+socket") || span_is(scheme, "unix") || span_is(scheme, "socket");
	if (*ret_socket || span_is(scheme, "redis") || span_is(scheme, "valkey"))
		return 0;
	if (span_is(scheme, "rediss") || span_is(scheme, "valkeys"))
		return err_set(e, -EINVAL,
			       "%.*s:// (TLS) is not supported by this hiredis; it needs a TLS proxy in "
			       "front of Redis "
			       "(stunnel, HAProxy): name that proxy's plain address as redis://",
			       SPAN_ARG(scheme));
	if (span_is(scheme, "sentinel"))
		return err_set(e, -EINVAL,
			       "sentinel:// is not supported; name the master, or a proxy that follows it, "
			       "as redis://");
	return err_set(e, -EINVAL, "the URL must begin with redis:// or redis+socket://, not %.*s://",
		       (int)(scheme.len < 20 ? scheme.len : 20), scheme.ptr ? scheme.ptr : "");
}

static int parse(struct span url, struct redis_url *u, struct err *e)
{
	const char *sign = url.len > 3 && url.len < URL_MAX ? memmem(url.ptr, url.len, "://", 3) : NULL;
	bool socket;
	if (!sign)
		return err_set(e, -EINVAL, "expected a URL like redis://host:6379/0");
	int r = read_scheme((struct span){url.ptr, (size_t)(sign - url.ptr)}, &socket, e);
	if (r < 0)
		return r;
	struct span rest = {sign + 3, (size_t)(url.ptr + url.len - sign) - 3};
	if (memchr(rest.ptr, ';', rest.len))
		return err_set(e, -EINVAL, "several servers in one URL are not supported");
	struct span query = rest, address = redis_url_cut(&query, '?');
	/* The last @ ends the credentials: a password may hold one. */
	const char *at = memrchr(address.ptr, '@', address.len);
	if (at && !memchr(address.ptr, '/', (size_t)(at - address.ptr))) {
		r = read_credentials((struct span){address.ptr, (size_t)(at - address.ptr)}, u, e);
		address = (struct span){at + 1, (size_t)(address.ptr + address.len - at) - 1};
	}
	if (r == 0 && socket) {
		r = redis_url_decode(address, "path", &u->path, e);
		if (r == 0 && (!u->path || u->path[0] != '/'))
			r = err_set(e, -EINVAL,
				    "the URL needs the absolute path of a socket, like "
				    "redis+socket:///run/redis.sock");
	} else if (r == 0) {
		struct span path = address, host = redis_url_cut(&path, '/');
		r = read_host(host, u, e);
		if (r == 0)
			r = read_db(path, u, e);
	}
	return r < 0 ? r : read_query(query, u, e);
}

int redis_url_parse(struct span url, struct redis_url *ret, struct err *e)
{
	*ret = (struct redis_url){.port = 0};
	int r = parse(url, ret, e);
	if (r < 0)
		redis_url_release(ret);
	return r;
}

void redis_url_release(struct redis_url *u)
{
	free(u->host);
	free(u->path);
	free(u->user);
	free(u->password);
	*u = (struct redis_url){.port = 0};
}

bool redis_url_same(const struct redis_url *a, const struct redis_url *b, bool any_db)
{
	return text_eq(a->host, b->host) && text_eq(a->path, b->path) && a->port == b->port &&
	       text_eq(a->user, b->user) && text_eq(a->password, b->password) && (any_db || a->db == b->db);
}

void redis_url_where(const struct redis_url *u, char out[REDIS_WHERE_MAX])
{
	if (u->path)
		snprintf(out, REDIS_WHERE_MAX, "%.280s db %u", u->path, u->db);
	else
		snprintf(out, REDIS_WHERE_MAX, "%.280s:%u/%u", u->host, u->port, u->db);
}
