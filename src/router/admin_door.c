#include "router/admin_door.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "router/http/authority.h"
#include "router/http/forwarded.h"

struct door {
	const struct config *config; /* referenced */
	struct guesses *guesses;
	struct sessions *sessions;
	char *address; /* as the listener was started with */
	char cookie[64];
};

/* --- by which name -------------------------------------------------------------------------------------- */

static bool is_loopback(const char *host)
{
	struct in_addr v4;
	struct in6_addr v6;
	if (inet_pton(AF_INET, host, &v4) == 1)
		return ntohl(v4.s_addr) >> 24 == 127;
	return inet_pton(AF_INET6, host, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

/* An address cannot be made to lead elsewhere, as a name can; any is the own of a listener on all of them. */
static bool is_own_address(const struct door *d, const char *host)
{
	struct in6_addr any;
	char own[128];
	snprintf(own, sizeof(own), "%s", d->address);
	char *colon = strrchr(own, ':');
	if (colon)
		*colon = '\0';
	size_t n = strlen(own);
	char *bare = own[0] == '[' && n > 1 ? own + 1 : own;
	if (bare != own)
		own[n - 1] = '\0';
	bool wild = strcmp(bare, "*") == 0 || strcmp(bare, "0.0.0.0") == 0 || strcmp(bare, "::") == 0;
	if (wild && (inet_pton(AF_INET, host, &any) == 1 || inet_pton(AF_INET6, host, &any) == 1))
		return true;
	return strcmp(host, bare) == 0;
}

static bool is_listed(const struct config *c, const char *host)
{
	for (size_t i = 0; i < c->admin.n_hosts; i++)
		if (span_is_nocase(c->admin.hosts[i], host))
			return true;
	return false;
}

static bool may_be_called(const struct door *d, struct span authority)
{
	char host[AUTHORITY_HOST_MAX];
	return authority_host(authority, host) && (strcmp(host, "localhost") == 0 || is_loopback(host) ||
						   is_own_address(d, host) || is_listed(d->config, host));
}

/* Browsers always send a Host; programs of HTTP/1.0 may not. A target in absolute form counts, too. */
bool door_host_fits(const struct door *d, const struct http_request *h)
{
	struct span host = http_request_field(h, "Host"), target = authority_of_target(h->target);
	return (!host.ptr || may_be_called(d, host)) && (!target.ptr || may_be_called(d, target));
}

/* A page of another site can make a browser of this machine send a POST; it cannot keep the browser from
 * saying so. */
bool door_from_another_site(const struct door *d, const struct http_request *h)
{
	struct span origin = http_request_field(h, "Origin"), site = http_request_field(h, "Sec-Fetch-Site");
	if (site.ptr && !span_is(site, "same-origin") && !span_is(site, "none"))
		return true;
	if (!origin.ptr)
		return false;
	struct span theirs = authority_of_target(origin), ours = http_request_field(h, "Host");
	/* Without that word of the browser's, another port of this machine may be another site's, too. */
	if (!site.ptr && !span_eq_nocase(theirs, ours))
		return true;
	return !theirs.ptr || !may_be_called(d, theirs);
}

bool door_form_fits(const struct door *d, const struct http_request *h, const struct door_caller *c,
		    struct span form)
{
	struct span origin = http_request_field(h, "Origin");
	struct span scheme = d->config->admin.https ? SPAN_LIT("https://") : SPAN_LIT("http://");
	return origin.ptr && span_starts(origin, scheme) && !door_from_another_site(d, h) &&
	       form.len == sizeof(c->form) - 1 && crypto_equal(form, span_of(c->form));
}

/* --- who ------------------------------------------------------------------------------------------------ */

static const struct admin_writer *writer_of(const struct config *c, const char *hash)
{
	for (size_t i = 0; i < c->admin.n_writers; i++)
		if (strcmp(c->admin.writers[i].hash, hash) == 0)
			return &c->admin.writers[i];
	return NULL;
}

static bool is_open(const struct door *d)
{
	return d->config->admin.auth.kind == AUTH_NONE || d->config->admin.auth.kind == AUTH_UNSET;
}

/* What a token with this hash may do now. Hashes of random tokens need not be compared in constant time: to
 * find one byte by byte someone would have to invert it. */
static enum door_scope scope_of(const struct door *d, const char *hash, char name[ADMIN_WRITER_NAME])
{
	const struct admin_writer *w = writer_of(d->config, hash);
	const struct auth *auth = &d->config->admin.auth;
	name[0] = '\0';
	if (w) {
		memcpy(name, w->name, sizeof(w->name));
		return DOOR_WRITE;
	}
	for (size_t i = 0; auth->kind == AUTH_BEARER && i < auth->n_hashes; i++)
		if (strcmp(auth->hashes[i], hash) == 0)
			return DOOR_READ;
	return DOOR_NOBODY;
}

static const struct sockaddr *door_peer(const struct door *d, const struct http_request *h,
					struct sockaddr_storage *room)
{
	/* Without a proxy in front nobody may say that it speaks for someone else. */
	if (!d->config->admin.https || !forwarded_client(d->config, h, room))
		return h->peer;
	return (const struct sockaddr *)room;
}

/* A token that someone shows: right, wrong, or not looked at. */
static void look_at_token(struct door *d, const struct http_request *h, const char *hash,
			  struct door_caller *ret)
{
	struct sockaddr_storage room;
	const struct sockaddr *peer = door_peer(d, h, &room);
	if (!guesses_allow(d->guesses, peer, hash)) { /* the answer does not tell whether it was right */
		ret->too_many = true;
		return;
	}
	ret->scope = scope_of(d, hash, ret->name);
	if (ret->scope != DOOR_NOBODY) {
		ret->why = AUTH_ACCEPTED;
		guesses_right(d->guesses, hash);
		return;
	}
	ret->why = AUTH_WRONG;
	guesses_wrong(d->guesses, peer, "admin_token_wrong");
}

static struct span cookie_of(const struct door *d, const struct http_request *h)
{
	const struct auth_credential named = {.cookie = true, .name = span_of(d->cookie)};
	struct span value;
	if (auth_credential_find(&named, h->fields, h->n_fields, &value) != AUTH_FOUND)
		return SPAN_NONE; /* twice: someone has set another beside ours */
	return value;
}

static void look_at_session(struct door *d, const struct http_request *h, struct door_caller *ret)
{
	struct span cookie = cookie_of(d, h);
	struct session s;
	if (!cookie.ptr || !sessions_find(d->sessions, cookie, clock_mono_ms(), &s))
		return;
	ret->scope = scope_of(d, s.token, ret->name);
	ret->session = ret->scope != DOOR_NOBODY;
	if (ret->session)
		memcpy(ret->form, s.form, sizeof(ret->form));
	else
		sessions_end(d->sessions, cookie); /* the token is in no list any more */
}

void door_look(struct door *d, const struct http_request *h, struct door_caller *ret)
{
	static const struct auth none = {.kind = AUTH_NONE}, bearer = {.kind = AUTH_BEARER};
	struct auth_fingerprint who = {""};
	const bool open = is_open(d);
	*ret = (struct door_caller){.scope = DOOR_NOBODY, .why = AUTH_MISSING};
	if (http_request_field(h, "Authorization").ptr) {
		ret->why = auth_check(open ? &none : &bearer, h->fields, h->n_fields, &who);
		if (ret->why == AUTH_MALFORMED)
			return;
		if (auth_check(&bearer, h->fields, h->n_fields, &who) == AUTH_WRONG &&
		    (!open || door_has_writers(d)))
			look_at_token(d, h, who.hex, ret);
	} else {
		look_at_session(d, h, ret);
	}
	if (ret->scope == DOOR_NOBODY && open) { /* whoever asks may read, whatever else was shown */
		ret->scope = DOOR_READ;
		ret->why = AUTH_ACCEPTED;
	}
}

bool door_guards_release(const struct door *d)
{
	return !is_open(d) || d->config->admin.n_writers > 0;
}

bool door_has_writers(const struct door *d)
{
	return d->config->admin.n_writers > 0;
}

/* --- sessions ------------------------------------------------------------------------------------------- */

static void put_cookie(const struct door *d, const char *value, long long lasts_s, char out[DOOR_COOKIE_MAX])
{
	snprintf(out, DOOR_COOKIE_MAX, "%s=%s; Path=/; HttpOnly; SameSite=Strict; Max-Age=%lld%s", d->cookie,
		 value, lasts_s, d->config->admin.https ? "; Secure" : "");
}

void door_sign_in(struct door *d, const struct http_request *h, struct span token,
		  char cookie[DOOR_COOKIE_MAX], struct door_caller *ret)
{
	char hash[CRYPTO_SHA256_HEX], value[SESSIONS_COOKIE];
	const int64_t lasts_ms = d->config->admin.session_ms;
	*ret = (struct door_caller){.scope = DOOR_NOBODY, .why = AUTH_WRONG};
	crypto_sha256_hex(token, hash);
	look_at_token(d, h, hash, ret);
	if (ret->scope == DOOR_NOBODY)
		return;
	struct span before = cookie_of(d, h);
	if (before.ptr)
		sessions_end(d->sessions,
			     before); /* one browser, one session: it never goes on under a new token */
	sessions_begin(d->sessions, hash, clock_mono_ms(), lasts_ms, value);
	put_cookie(d, value, lasts_ms / 1000, cookie);
	log_info("admin_signed_in", LOG_STR("who", ret->name),
		 LOG_STR("scope", ret->scope == DOOR_WRITE ? "write" : "read"));
}

void door_sign_out(struct door *d, const struct http_request *h, char cookie[DOOR_COOKIE_MAX])
{
	struct span value = cookie_of(d, h);
	if (value.ptr)
		sessions_end(d->sessions, value);
	put_cookie(d, "", 0, cookie);
}

/* --- life ----------------------------------------------------------------------------------------------- */

void door_set_config(struct door *d, const struct config *config)
{
	config_unref(d->config);
	d->config = config_ref(config);
}

void door_set_port(struct door *d, unsigned port)
{
	snprintf(d->cookie, sizeof(d->cookie), "migration_session_%u", port);
}

int door_new(const struct config *config, const char *address, struct guesses *guesses, struct door **ret)
{
	struct door *d = calloc(1, sizeof(*d));
	if (!d)
		return -ENOMEM;
	d->config = config_ref(config);
	d->guesses = guesses;
	d->address = strdup(address);
	door_set_port(d, 0);
	if (!d->address || sessions_new(&d->sessions) < 0) {
		door_free(d);
		return -ENOMEM;
	}
	*ret = d;
	return 0;
}

struct door *door_free(struct door *d)
{
	if (!d)
		return NULL;
	sessions_free(d->sessions);
	config_unref(d->config);
	free(d->address);
	free(d);
	return NULL;
}
