#include "base/rabbit_url.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/digits.h"

#define RABBIT_URL_MAX 8192

bool rabbit_url_is(struct span url)
{
	static const struct span schemes[] = {SPAN_INIT("amqp://"), SPAN_INIT("amqps://"),
					      SPAN_INIT("pyamqp://"), SPAN_INIT("librabbitmq://")};
	for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++)
		if (span_starts(url, schemes[i]))
			return true;
	return false;
}

/* Cuts `*rest` at the first `c`: returns what was before it, and leaves what follows it (SPAN_NONE without
 * one). */
static struct span rabbit_cut(struct span *rest, char c)
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

static int rabbit_hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
		return (c | 0x20) - 'a' + 10;
	return -1;
}

/* As Python's unquote: a % that is none stays as it is. */
static int rabbit_decode(struct span s, const char *what, char **to, struct err *e)
{
	char *text = malloc(s.len + 1);
	size_t n = 0;
	if (!text)
		return err_set(e, -ENOMEM, "out of memory");
	for (size_t i = 0; i < s.len; i++) {
		int high = s.ptr[i] == '%' && i + 2 < s.len ? rabbit_hex(s.ptr[i + 1]) : -1;
		int low = high >= 0 ? rabbit_hex(s.ptr[i + 2]) : -1;
		text[n++] = low < 0 ? s.ptr[i] : (char)(high * 16 + low);
		i += low < 0 ? 0 : 2;
		if (text[n - 1] == '\0') {
			free(text);
			return err_set(e, -EINVAL, "the URL's %s holds a NUL", what);
		}
	}
	text[n] = '\0';
	free(*to);
	*to = text;
	return 0;
}

static int rabbit_port(struct span s, unsigned *ret, struct err *e)
{
	uint64_t value;
	if (!digits_read(s, 65535, &value) || value < 1)
		return err_set(e, -EINVAL, "the URL's port must be a number from 1 to 65535");
	*ret = (unsigned)value;
	return 0;
}

static int rabbit_host(struct span text, struct rabbit_server *s, struct err *e)
{
	struct span host = text, port = SPAN_NONE;
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
		host = rabbit_cut(&port, ':');
	}
	int r = rabbit_decode(host.len ? host : SPAN_LIT("127.0.0.1"), "host", &s->host, e);
	return r < 0 || !port.len ? r : rabbit_port(port, &s->port, e);
}

static int rabbit_query(struct span query, struct rabbit_server *s, struct err *e)
{
	int r = 0;
	while (query.ptr && r == 0) {
		struct span value = rabbit_cut(&query, '&'), key = rabbit_cut(&value, '=');
		if (span_is(key, "ssl_ca_certs"))
			r = rabbit_decode(value, "ssl_ca_certs", &s->ca, e);
		else if (span_is(key, "ssl_certfile"))
			r = rabbit_decode(value, "ssl_certfile", &s->cert, e);
		else if (span_is(key, "ssl_keyfile"))
			r = rabbit_decode(value, "ssl_keyfile", &s->key, e);
		else if (span_is(key, "ssl_cert_reqs") &&
			 (span_is_nocase(value, "CERT_NONE") || span_is_nocase(value, "none")))
			s->unverified = true;
		else if (span_is(key, "ssl_cert_reqs") && !span_is_nocase(value, "CERT_REQUIRED") &&
			 !span_is_nocase(value, "required"))
			r = err_set(e, -EINVAL, "the URL's ssl_cert_reqs must be CERT_REQUIRED or CERT_NONE");
	}
	if (r == 0 && !s->tls && (s->ca || s->cert || s->key || s->unverified))
		r = err_set(e, -EINVAL, "the URL names certificates; its scheme must be amqps:// for TLS");
	if (r == 0 && (s->cert == NULL) != (s->key == NULL))
		r = err_set(e, -EINVAL, "the URL needs both, ssl_certfile and ssl_keyfile, or neither");
	return r;
}

static int rabbit_credentials(struct span text, struct rabbit_server *s, struct err *e)
{
	struct span password = text, user = rabbit_cut(&password, ':');
	int r = rabbit_decode(user, "user", &s->user, e);
	return r < 0 || !password.ptr ? r : rabbit_decode(password, "password", &s->password, e);
}

static int rabbit_defaults(struct rabbit_server *s, struct err *e)
{
	int r = s->user ? 0 : rabbit_decode(SPAN_LIT("guest"), "user", &s->user, e);
	return r < 0 || s->password ? r : rabbit_decode(SPAN_LIT("guest"), "password", &s->password, e);
}

static int rabbit_one(struct span url, struct rabbit_server *s, struct err *e)
{
	if (!rabbit_url_is(url))
		return err_set(e, -EINVAL, "expected a URL like amqp://user:password@host:5672/vhost");
	const char *sign = memmem(url.ptr, url.len, "://", 3);
	struct span rest = {sign + 3, (size_t)(url.ptr + url.len - sign) - 3};
	s->tls = span_starts(url, SPAN_LIT("amqps://"));
	s->port = s->tls ? 5671 : 5672;
	struct span query = rest, address = rabbit_cut(&query, '?');
	/* The last @ ends the credentials: a password may hold one. */
	const char *at = memrchr(address.ptr, '@', address.len);
	int r = 0;
	if (at && !memchr(address.ptr, '/', (size_t)(at - address.ptr))) {
		r = rabbit_credentials((struct span){address.ptr, (size_t)(at - address.ptr)}, s, e);
		address = (struct span){at + 1, (size_t)(address.ptr + address.len - at) - 1};
	}
	struct span vhost = address, host = rabbit_cut(&vhost, '/');
	if (r == 0)
		r = rabbit_host(host, s, e);
	if (r == 0)
		r = rabbit_decode(vhost.len ? vhost : SPAN_LIT("/"), "virtual host", &s->vhost, e);
	if (r == 0)
		r = rabbit_query(query, s, e);
	return r < 0 ? r : rabbit_defaults(s, e);
}

int rabbit_url_parse(struct span url, struct rabbit_url *ret, struct err *e)
{
	*ret = (struct rabbit_url){.n = 0};
	int r = url.len < RABBIT_URL_MAX ? 0 : err_set(e, -EINVAL, "the URL is too long");
	while (r == 0 && url.len) {
		struct span one = rabbit_cut(&url, ';');
		if (ret->n == RABBIT_SERVERS_MAX)
			r = err_set(e, -EINVAL, "the URL names more than %d servers", RABBIT_SERVERS_MAX);
		else
			r = rabbit_one(one, &ret->servers[ret->n++], e);
	}
	if (r == 0 && ret->n == 0)
		r = err_set(e, -EINVAL, "expected a URL like amqp://user:password@host:5672/vhost");
	if (r < 0)
		rabbit_url_release(ret);
	return r;
}

static int rabbit_copy_text(const char *from, char **to)
{
	*to = from ? strdup(from) : NULL;
	return from && !*to ? -ENOMEM : 0;
}

int rabbit_url_copy(const struct rabbit_url *from, struct rabbit_url *to)
{
	*to = *from;
	int r = 0;
	for (size_t i = 0; i < RABBIT_SERVERS_MAX; i++) {
		const struct rabbit_server *a = &from->servers[i];
		struct rabbit_server *b = &to->servers[i];
		r |= rabbit_copy_text(a->host, &b->host) | rabbit_copy_text(a->user, &b->user) |
		     rabbit_copy_text(a->password, &b->password) | rabbit_copy_text(a->vhost, &b->vhost) |
		     rabbit_copy_text(a->ca, &b->ca) | rabbit_copy_text(a->cert, &b->cert) |
		     rabbit_copy_text(a->key, &b->key);
	}
	if (r)
		rabbit_url_release(to);
	return r ? -ENOMEM : 0;
}

void rabbit_url_release(struct rabbit_url *u)
{
	for (size_t i = 0; i < RABBIT_SERVERS_MAX; i++) {
		struct rabbit_server *s = &u->servers[i];
		char *texts[] = {s->host, s->user, s->password, s->vhost, s->ca, s->cert, s->key};
		for (size_t k = 0; k < sizeof(texts) / sizeof(texts[0]); k++)
			free(texts[k]);
	}
	*u = (struct rabbit_url){.n = 0};
}

void rabbit_where(const struct rabbit_server *s, char out[RABBIT_WHERE_MAX])
{
	bool v6 = strchr(s->host, ':') != NULL;
	snprintf(out, RABBIT_WHERE_MAX, "%s%.200s%s:%u%s%.80s", v6 ? "[" : "", s->host, v6 ? "]" : "",
		 s->port, s->vhost[0] == '/' ? "" : "/", s->vhost);
}
