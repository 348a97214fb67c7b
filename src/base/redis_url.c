#include "base/redis_url.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
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

/* Never plain where TLS is asked for. */
static int need_tls(struct span what, struct err *e)
{
#ifdef REDIS_HAS_TLS
	(void)what;
	(void)e;
	return 0;
#else
	return err_set(
		e, -EINVAL,
		"%.*s:// (TLS) is not supported by this build's hiredis, which has no TLS (Debian 13's "
		"has); it needs a TLS proxy in front of Redis (stunnel, HAProxy): name that proxy's "
		"plain address as redis://",
		SPAN_ARG(what));
#endif
}

static int read_db(struct span text, struct redis_url *u, struct err *e)
{
	while (text.len && text.ptr[0] == '/')
		text.ptr++, text.len--;
	while (text.len && text.ptr[text.len - 1] == '/')
		text.len--;
	return text.len ? redis_url_number(text, 0, MAX_DB, "database", &u->db, e) : 0;
}

static int read_bool(struct span value, const char *key, bool *ret, struct err *e)
{
	*ret = span_is(value, "true") || span_is(value, "True") || span_is(value, "1");
	if (!*ret && !span_is(value, "false") && !span_is(value, "False") && !span_is(value, "0"))
		return err_set(e, -EINVAL, "the URL's %s must be true or false", key);
	return 0;
}

/* Names of Python's ssl module, or redis-py's. A client that would take a certificate as an option
 * verifies the one it gets, as Python does. */
static int read_cert_reqs(struct span value, struct redis_url *u, struct err *e)
{
	static const char *const verified[] = {"required", "CERT_REQUIRED", "optional", "CERT_OPTIONAL"};
	u->unverified = span_is(value, "none") || span_is(value, "CERT_NONE");
	bool good = u->unverified;
	for (size_t i = 0; !good && i < sizeof(verified) / sizeof(verified[0]); i++)
		good = span_is(value, verified[i]);
	return good ? 0
		    : err_set(e, -EINVAL,
			      "the URL's ssl_cert_reqs must be CERT_REQUIRED, CERT_OPTIONAL or CERT_NONE");
}

static int read_tls(struct span key, struct span value, struct redis_url *u, struct err *e)
{
	bool checked = true;
	int r;
	if (!u->tls && u->sentinels.n == 0)
		return err_set(e, -EINVAL, "the URL's %.*s asks for TLS, which needs rediss://",
			       (int)(key.len < 30 ? key.len : 30), key.ptr);
	if (!u->tls && (r = need_tls(SPAN_LIT("rediss"), e)) < 0)
		return r;
	u->tls = true;
	if (span_is(key, "ssl_cert_reqs"))
		return read_cert_reqs(value, u, e);
	if (span_is(key, "ssl_ca_certs"))
		return redis_url_decode(value, "ssl_ca_certs", &u->files.ca, e);
	if (span_is(key, "ssl_certfile"))
		return redis_url_decode(value, "ssl_certfile", &u->files.cert, e);
	if (span_is(key, "ssl_keyfile"))
		return redis_url_decode(value, "ssl_keyfile", &u->files.key, e);
	if (!span_is(key, "ssl_check_hostname"))
		return err_set(e, -EINVAL, "the URL's %.*s is not supported",
			       (int)(key.len < 30 ? key.len : 30), key.ptr);
	r = read_bool(value, "ssl_check_hostname", &checked, e);
	u->any_name = !checked;
	return r;
}

static int read_of_sentinels(struct span key, struct span value, struct redis_url *u, struct err *e)
{
	struct redis_sentinels *s = &u->sentinels;
	if (span_is(key, "master_name"))
		return redis_url_decode(value, "master_name", &s->master, e);
	if (span_is(key, "sentinel_username"))
		return redis_url_decode(value, "sentinel_username", &s->user, e);
	if (span_is(key, "sentinel_password"))
		return redis_url_decode(value, "sentinel_password", &s->password, e);
	if (!span_is(key, "sentinel_ssl"))
		return 0;
	int r = read_bool(value, "sentinel_ssl", &s->tls, e);
	return r < 0 || !s->tls ? r : need_tls(SPAN_LIT("rediss"), e);
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
			r = read_tls(key, value, u, e);
		else if (u->sentinels.n)
			r = read_of_sentinels(key, value, u, e);
	}
	return r;
}

static int read_credentials(struct span text, struct redis_url *u, struct err *e)
{
	struct span password = text, user = redis_url_cut(&password, ':');
	int r = redis_url_decode(user, "user", &u->user, e);
	return r < 0 || !password.ptr ? r : redis_url_decode(password, "password", &u->password, e);
}

static int read_host(struct span text, unsigned default_port, char **ret_host, unsigned *ret_port,
		     struct err *e)
{
	struct span host = text, port = SPAN_NONE;
	*ret_port = default_port;
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
	int r = redis_url_decode(host.len ? host : SPAN_LIT("127.0.0.1"), "host", ret_host, e);
	return r < 0 || !port.len ? r : redis_url_number(port, 1, 65535, "port", ret_port, e);
}

enum scheme { SCHEME_SERVER, SCHEME_TLS, SCHEME_SOCKET, SCHEME_SENTINEL };

static int read_scheme(struct span s, enum scheme *ret, struct err *e)
{
	static const struct {
		const char *name;
		enum scheme scheme;
	} known[] = {{"redis", SCHEME_SERVER},	{"valkey", SCHEME_SERVER},    {"rediss", SCHEME_TLS},
		     {"valkeys", SCHEME_TLS},	{"unix", SCHEME_SOCKET},      {"redis+socket", SCHEME_SOCKET},
		     {"socket", SCHEME_SOCKET}, {"sentinel", SCHEME_SENTINEL}};
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (span_is(s, known[i].name)) {
			*ret = known[i].scheme;
			return *ret == SCHEME_TLS ? need_tls(s, e) : 0;
		}
	return err_set(e, -EINVAL,
		       "the URL must begin with redis://, rediss://, redis+socket:// or "
		       "sentinel://, not %.*s://",
		       (int)(s.len < 20 ? s.len : 20), s.ptr ? s.ptr : "");
}

static int read_address(struct span address, enum scheme scheme, struct redis_url *u, struct err *e)
{
	if (scheme == SCHEME_SOCKET) {
		int r = redis_url_decode(address, "path", &u->path, e);
		if (r == 0 && (!u->path || u->path[0] != '/'))
			r = err_set(e, -EINVAL,
				    "the URL needs the absolute path of a socket, like "
				    "redis+socket:///run/redis.sock");
		return r;
	}
	struct redis_sentinels *s = &u->sentinels;
	struct span path = address, host = redis_url_cut(&path, '/');
	int r = scheme == SCHEME_SENTINEL ? read_host(host, 26379, &s->hosts[0], &s->ports[0], e)
					  : read_host(host, 6379, &u->host, &u->port, e);
	s->n = scheme == SCHEME_SENTINEL;
	return r < 0 ? r : read_db(path, u, e);
}

static int parse_one(struct span url, enum scheme *ret_scheme, struct redis_url *u, struct err *e)
{
	const char *sign = url.len > 3 ? memmem(url.ptr, url.len, "://", 3) : NULL;
	if (!sign)
		return err_set(e, -EINVAL, "expected a URL like redis://host:6379/0");
	int r = read_scheme((struct span){url.ptr, (size_t)(sign - url.ptr)}, ret_scheme, e);
	if (r < 0)
		return r;
	u->tls = *ret_scheme == SCHEME_TLS;
	struct span query = {sign + 3, (size_t)(url.ptr + url.len - sign) - 3},
		    address = redis_url_cut(&query, '?');
	/* The last @ ends the credentials: a password may hold one. */
	const char *at = memrchr(address.ptr, '@', address.len);
	if (at && !memchr(address.ptr, '/', (size_t)(at - address.ptr))) {
		r = read_credentials((struct span){address.ptr, (size_t)(at - address.ptr)}, u, e);
		address = (struct span){at + 1, (size_t)(address.ptr + address.len - at) - 1};
	}
	if (r == 0)
		r = read_address(address, *ret_scheme, u, e);
	return r < 0 ? r : read_query(query, u, e);
}

static bool says_otherwise(const char *here, const char *first)
{
	return here && !text_eq(here, first);
}

static void move_text(char **to, char **from)
{
	if (*from) {
		free(*to);
		*to = steal(*from);
	}
}

/* Another Sentinel of the same master. What it says beside its address must be what the first one says:
 * Celery takes the first one's, and would not tell. */
static int join_sentinel(struct redis_url *u, struct redis_url *other, struct err *e)
{
	struct redis_sentinels *s = &u->sentinels, *o = &other->sentinels;
	if (s->n == REDIS_SENTINELS_MAX)
		return err_set(e, -EINVAL, "the URL names more than %d Sentinels", REDIS_SENTINELS_MAX);
	if (says_otherwise(other->user, u->user) || says_otherwise(other->password, u->password) ||
	    (other->db && other->db != u->db))
		return err_set(e, -EINVAL,
			       "user, password and database belong into the URL of the first Sentinel; "
			       "another one says something else");
	if ((s->master && says_otherwise(o->master, s->master)))
		return err_set(e, -EINVAL, "the URL's Sentinels have different names of the master");
	s->hosts[s->n] = steal(o->hosts[0]);
	s->ports[s->n++] = o->ports[0];
	move_text(&s->master, &o->master);
	move_text(&s->user, &o->user);
	move_text(&s->password, &o->password);
	move_text(&u->files.ca, &other->files.ca);
	move_text(&u->files.cert, &other->files.cert);
	move_text(&u->files.key, &other->files.key);
	s->tls = s->tls || o->tls;
	u->unverified = other->tls ? other->unverified : u->unverified;
	u->any_name = other->tls ? other->any_name : u->any_name;
	u->tls = u->tls || other->tls;
	return 0;
}

static int parse(struct span rest, struct redis_url *u, struct err *e)
{
	enum scheme first, scheme;
	if (rest.len >= URL_MAX)
		return err_set(e, -EINVAL, "the URL is longer than %d bytes", URL_MAX - 1);
	struct span url = redis_url_cut(&rest, ';');
	int r = parse_one(url, &first, u, e);
	while (r == 0 && rest.len) {
		struct redis_url other = {.port = 0};
		url = redis_url_cut(&rest, ';');
		r = parse_one(url, &scheme, &other, e);
		if (r == 0 && (first != SCHEME_SENTINEL || scheme != SCHEME_SENTINEL))
			r = err_set(e, -EINVAL,
				    "several servers in one URL are not supported, but for sentinel://");
		if (r == 0)
			r = join_sentinel(u, &other, e);
		redis_url_release(&other);
	}
	if (r == 0 && !u->files.cert != !u->files.key)
		r = err_set(e, -EINVAL, "the URL's ssl_certfile and ssl_keyfile belong together");
	return r;
}

int redis_url_parse(struct span url, struct redis_url *ret, struct err *e)
{
	*ret = (struct redis_url){.port = 0};
	int r = parse(url, ret, e);
	if (r < 0)
		redis_url_release(ret);
	return r;
}

/* What is allocated, in one place for all who go through it. */
static size_t redis_url_texts(struct redis_url *u, char **ret[10 + REDIS_SENTINELS_MAX])
{
	char **const texts[] = {&u->host,	    &u->path,
				&u->user,	    &u->password,
				&u->files.ca,	    &u->files.cert,
				&u->files.key,	    &u->sentinels.master,
				&u->sentinels.user, &u->sentinels.password};
	size_t n = sizeof(texts) / sizeof(texts[0]);
	memcpy(ret, texts, sizeof(texts));
	for (size_t i = 0; i < REDIS_SENTINELS_MAX; i++)
		ret[n++] = &u->sentinels.hosts[i];
	return n;
}

void redis_url_release(struct redis_url *u)
{
	char **texts[10 + REDIS_SENTINELS_MAX];
	size_t n = redis_url_texts(u, texts);
	for (size_t i = 0; i < n; i++)
		free(*texts[i]);
	*u = (struct redis_url){.port = 0};
}

int redis_url_copy(const struct redis_url *u, struct redis_url *ret)
{
	char **texts[10 + REDIS_SENTINELS_MAX];
	int r = 0;
	*ret = *u;
	size_t n = redis_url_texts(ret, texts);
	for (size_t i = 0; i < n; i++)
		if (*texts[i] && !(*texts[i] = strdup(*texts[i])))
			r = -ENOMEM;
	if (r < 0)
		redis_url_release(ret);
	return r;
}

int redis_url_of_sentinel(const struct redis_url *u, size_t index, struct redis_url *ret)
{
	struct redis_url at = {.host = u->sentinels.hosts[index],
			       .port = u->sentinels.ports[index],
			       .user = u->sentinels.user,
			       .password = u->sentinels.password,
			       .tls = u->sentinels.tls,
			       .unverified = u->unverified,
			       .any_name = u->any_name,
			       .files = u->files};
	return redis_url_copy(&at, ret);
}

int redis_url_set_master(struct redis_url *u, const char *name, struct err *e)
{
	struct redis_sentinels *s = &u->sentinels;
	if (s->n == 0 || s->master)
		return 0;
	if (!name)
		return err_set(e, -EINVAL,
			       "sentinel:// needs the master's name: ?master_name= in the URL (for Celery "
			       "also the setting master_name)");
	s->master = strdup(name);
	return s->master ? 0 : err_set(e, -ENOMEM, "out of memory");
}

static bool same_sentinels(const struct redis_sentinels *a, const struct redis_sentinels *b)
{
	bool same = a->n == b->n && text_eq(a->master, b->master) && text_eq(a->user, b->user) &&
		    text_eq(a->password, b->password) && a->tls == b->tls;
	for (size_t i = 0; same && i < a->n; i++)
		same = text_eq(a->hosts[i], b->hosts[i]) && a->ports[i] == b->ports[i];
	return same;
}

static bool same_tls(const struct redis_url *a, const struct redis_url *b)
{
	return a->tls == b->tls && a->unverified == b->unverified && a->any_name == b->any_name &&
	       text_eq(a->files.ca, b->files.ca) && text_eq(a->files.cert, b->files.cert) &&
	       text_eq(a->files.key, b->files.key);
}

bool redis_url_same(const struct redis_url *a, const struct redis_url *b, bool any_db)
{
	return text_eq(a->host, b->host) && text_eq(a->path, b->path) && a->port == b->port &&
	       text_eq(a->user, b->user) && text_eq(a->password, b->password) &&
	       same_sentinels(&a->sentinels, &b->sentinels) && same_tls(a, b) && (any_db || a->db == b->db);
}

void redis_url_where(const struct redis_url *u, char out[REDIS_WHERE_MAX])
{
	const struct redis_sentinels *s = &u->sentinels;
	if (s->n)
		snprintf(out, REDIS_WHERE_MAX, "%.100s/%u (Sentinel %.180s:%u)", s->master ? s->master : "?",
			 u->db, s->hosts[0], s->ports[0]);
	else if (u->path)
		snprintf(out, REDIS_WHERE_MAX, "%.280s db %u", u->path, u->db);
	else
		snprintf(out, REDIS_WHERE_MAX, "%.280s:%u/%u", u->host, u->port, u->db);
}
