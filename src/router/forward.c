#include "router/forward.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "router/http/authority.h"

enum field_class {
	FIELD_OTHER,
	FIELD_HOP, /* goes, whatever it says */
	FIELD_CONNECTION,
	FIELD_LENGTH,
	FIELD_HOST,
	FIELD_VIA,
	FIELD_EXPECT,
	FIELD_REQUEST_ID,
	FIELD_OVERRIDE,
	FIELD_SHADOW,
};

/* On the path of every request: most names are dismissed by their length and first letter. */
static enum field_class forward_classify(struct span name)
{
	switch (name.len) {
	case 3:
		return http_named(name, "via") ? FIELD_VIA : FIELD_OTHER;
	case 4:
		return http_named(name, "host") ? FIELD_HOST : FIELD_OTHER;
	case 6:
		return http_named(name, "expect") ? FIELD_EXPECT : FIELD_OTHER;
	case 10:
		if (http_named(name, "connection"))
			return FIELD_CONNECTION;
		break;
	case 12:
		return http_named(name, "x-request-id") ? FIELD_REQUEST_ID : FIELD_OTHER;
	case 14:
		return http_named(name, "content-length") ? FIELD_LENGTH : FIELD_OTHER;
	case 15:
		return http_named(name, "x-migration-via") ? FIELD_VIA : FIELD_OTHER;
	case 18:
		if (http_named(name, "x-migration-shadow"))
			return FIELD_SHADOW;
		break;
	case 20:
		return http_named(name, "x-migration-override") ? FIELD_OVERRIDE : FIELD_OTHER;
	case 27:
		return http_named(name, "x-migration-override-secret") ? FIELD_OVERRIDE : FIELD_OTHER;
	}
	return http_is_hop_by_hop(name) ? FIELD_HOP : FIELD_OTHER;
}

/* --- Connection ----------------------------------------------------------------------------------------- */
struct named_fields {
	struct span names[FORWARD_MAX_NAMED];
	size_t count;
};

static bool equal_nocase(struct span a, struct span b)
{
	return a.len == b.len && strncasecmp(a.ptr, b.ptr, a.len) == 0;
}

static bool forward_starts_nocase(struct span a, const char *prefix)
{
	size_t n = strlen(prefix);
	return a.len >= n && strncasecmp(a.ptr, prefix, n) == 0;
}

static bool is_protected(struct span name, const struct forward_context *c)
{
	static const char *const always[] = {"authorization", "cookie",	     "set-cookie",
					     "forwarded",     "traceparent", "tracestate"};
	enum field_class class = forward_classify(name);
	if (class == FIELD_HOST || class == FIELD_VIA || class == FIELD_REQUEST_ID)
		return true;
	if (forward_starts_nocase(name, "content-") || forward_tells_of_others(name))
		return true;
	for (size_t i = 0; i < sizeof(always) / sizeof(always[0]); i++)
		if (span_is_nocase(name, always[i]))
			return true;
	for (size_t i = 0; c && i < c->n_protected; i++)
		if (equal_nocase(name, c->protected_names[i]))
			return true;
	return false;
}

/* The next element of a comma-separated list, without blanks; false at its end. */
static bool next_element(struct span *rest, struct span *ret)
{
	while (rest->len) {
		const char *comma = memchr(rest->ptr, ',', rest->len);
		size_t n = comma ? (size_t)(comma - rest->ptr) : rest->len;
		*ret = span_trim((struct span){rest->ptr, n});
		n += comma != NULL;
		rest->ptr += n;
		rest->len -= n;
		if (ret->len)
			return true;
	}
	return false;
}

static int add_named(struct named_fields *f, struct span connection, const struct forward_context *c)
{
	struct span name;
	while (next_element(&connection, &name)) {
		if (span_is_nocase(name, "close") || http_is_hop_by_hop(name) || is_protected(name, c))
			continue;
		if (f->count == FORWARD_MAX_NAMED)
			return FORWARD_E_CONNECTION;
		f->names[f->count++] = name;
	}
	return 0;
}

static bool is_named(const struct named_fields *f, struct span name)
{
	for (size_t i = 0; i < f->count; i++)
		if (equal_nocase(f->names[i], name))
			return true;
	return false;
}

/* --- Via ------------------------------------------------------------------------------------------------ */

/* Cuts a comment off: (…), nested, with quoted pairs; commas in it separate nothing. *p stands on the
 * bracket. */
static const char *skip_comment(const char *p, const char *end)
{
	size_t depth = 0;
	for (; p < end; p++) {
		if (*p == '\\')
			p++;
		else if (*p == '(')
			depth++;
		else if (*p == ')' && --depth == 0)
			return p + 1;
	}
	return end;
}

/* What one element of Via says: received-protocol RWS received-by [ RWS comment ] */
struct via_element {
	struct span received_by, comment;
};

static struct span inside_comment(const char *begin, const char *end)
{
	size_t n = (size_t)(end - begin);
	return n >= 2 && end[-1] == ')' ? (struct span){begin + 1, n - 2} : SPAN_NONE;
}

/* Up to the comma; *p moves past it. */
static struct via_element next_via(const char **p, const char *end)
{
	struct span words[2] = {SPAN_NONE, SPAN_NONE}, comment = SPAN_NONE;
	size_t n = 0;
	while (*p < end && **p != ',') {
		const char *begin = *p;
		if (*begin == ' ' || *begin == '\t') {
			(*p)++;
		} else if (*begin == '(') {
			*p = skip_comment(begin, end);
			if (n == 2 && !comment.ptr)
				comment = inside_comment(begin, *p);
		} else {
			while (*p < end && !memchr(" \t,(", **p, 4))
				(*p)++;
			if (n < 2)
				words[n] = (struct span){begin, (size_t)(*p - begin)};
			n++;
		}
	}
	*p += *p < end;
	return (struct via_element){words[1], comment};
}

unsigned forward_count_via(struct span via, struct span id, bool *seen)
{
	unsigned count = 0;
	if (via.len == 0)
		return 0;
	const char *p = via.ptr, *end = p + via.len;
	while (p < end) {
		struct via_element e = next_via(&p, end);
		if (!span_is_nocase(e.received_by, FORWARD_PSEUDONYM))
			continue;
		count++;
		if (id.len && span_eq(span_trim(e.comment), id))
			*seen = true;
	}
	return count;
}

void forward_write_via(bool received_http10, struct span id, char out[FORWARD_VIA_MAX])
{
	snprintf(out, FORWARD_VIA_MAX, "%s " FORWARD_PSEUDONYM " (%.*s)", received_http10 ? "1.0" : "1.1",
		 SPAN_ARG(id));
}

/* --- Forwarded ------------------------------------------------------------------------------------------ */

/* Letters in any case, _ as -. */
static bool alike(struct span name, const char *lower, size_t n)
{
	if (name.len < n)
		return false;
	for (size_t i = 0; i < n; i++) {
		char c = name.ptr[i] == '_' ? '-' : name.ptr[i];
		if ((c >= 'A' && c <= 'Z' ? c | 0x20 : c) != lower[i])
			return false;
	}
	return true;
}

static bool is_alike(struct span name, const char *lower)
{
	return name.len == strlen(lower) && alike(name, lower, name.len);
}

/*
 * Servers and frameworks believe these from loopback or a proxy of theirs (uvicorn, gunicorn, Tomcat, Rails,
 * ASP.NET, nginx' and Apache's remote address, Gitea, Kubernetes' request headers, …), and only a proxy has a
 * reason to send them. What callers say of themselves (X-User-Id, X-Http-Method-Override, …) is none of them.
 */
bool forward_tells_of_others(struct span name)
{
	static const char *const prefixes[] = {
		"forwarded-", "x-forwarded-", "x-forward-",	 /* standards that never became one */
		"x-remote-", "x-webauth-", "x-auth-request-",	 /* who was signed in */
		"x-ssl-client-", "ssl-client-", "x-client-cert", /* by a certificate */
		/* so say the load balancers of clouds, and modules of web servers */
		"x-amzn-oidc-", "x-goog-authenticated-user-", "x-ms-client-principal",
		"cf-access-authenticated-user-", "x-authentik-", "oidc-claim-"};
	static const char *const names[] = {
		/* the caller's address */
		"forwarded", "x-forwarded", "x-real-ip", "x-client-ip", "client-ip", "true-client-ip",
		"x-true-client-ip", "x-cluster-client-ip", "cluster-client-ip", "cf-connecting-ip",
		"cf-connecting-ipv6", "cf-pseudo-ipv4", "fastly-client-ip", "fly-client-ip",
		"x-azure-clientip", "x-azure-socketip", "x-appengine-user-ip", "x-envoy-external-address",
		"x-envoy-internal", "proxy-client-ip", "wl-proxy-client-ip", "x-proxyuser-ip",
		"x-originating-ip", "remote-addr", "remote-host", "remote-port", "x-original-for",
		"x-original-forwarded-for", "x-original-remote-addr",
		/* the scheme, host and path that it asked for; gunicorn takes the last two as it takes
		 * X-Forwarded-Proto */
		"x-scheme", "x-url-scheme", "x-original-proto", "x-original-scheme", "x-original-host",
		"x-http-host-override", "front-end-https", "x-arr-ssl", "x-original-url", "x-original-uri",
		"x-original-method", "x-rewrite-url", "x-envoy-original-path", "x-envoy-original-host",
		"x-script-name", "script-name", "path-info",
		/* who was signed in */
		"remote-user", "remote-groups", "remote-email", "remote-name", "remote-ident",
		"x-authenticated-user", "x-proxy-user", "client-cert", "client-cert-chain", "x-client-verify",
		"x-client-dn", "x-ssl-cert", "x-arr-clientcert", "x-vouch-user", "sm-user", "iv-user",
		"iv-groups",
		/* a CGI program's HTTP_PROXY */
		"proxy"};
	for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++)
		if (alike(name, prefixes[i], strlen(prefixes[i])))
			return true;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (is_alike(name, names[i]))
			return true;
	return false;
}

static void join_values(const struct http_field *in, size_t n, const char *name, struct buf *out)
{
	for (size_t i = 0; i < n; i++)
		if (is_alike(in[i].name, name) && in[i].value.len) {
			buf_append_span(out, in[i].value);
			buf_puts(out, ", ");
		}
}

static bool any_alike(const struct http_field *in, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (is_alike(in[i].name, name))
			return true;
	return false;
}

/* What is no host and port is not repeated in the router's own words. */
static struct span host_received(const struct http_field *in, size_t n)
{
	char ignored[AUTHORITY_HOST_MAX];
	for (size_t i = 0; i < n; i++)
		if (forward_classify(in[i].name) == FIELD_HOST)
			return authority_host(in[i].value, ignored) ? in[i].value : SPAN_NONE;
	return SPAN_NONE;
}

/* Whether this one continues although others are made anew. */
static bool forwarded_passes(const struct forward_context *c, struct span name)
{
	if (c->forwarded == FORWARD_AUTO || c->forwarded == FORWARD_KEEP || !forward_tells_of_others(name))
		return true;
	return c->forwarded == FORWARD_APPEND && c->peer_trusted && !is_alike(name, "x-forwarded-for") &&
	       !is_alike(name, "forwarded");
}

static void append_peer(const struct http_field *in, size_t n, const struct forward_context *c,
			struct http_field *out, size_t *count)
{
	bool append = c->forwarded == FORWARD_APPEND,
	     v6 = c->peer.len && memchr(c->peer.ptr, ':', c->peer.len);
	size_t chain = c->scratch->len, forwarded;
	if (append)
		join_values(in, n, "x-forwarded-for", c->scratch);
	buf_append_span(c->scratch, c->peer);
	forwarded = c->scratch->len;
	if (append && any_alike(in, n, "forwarded")) {
		join_values(in, n, "forwarded", c->scratch);
		buf_printf(c->scratch, v6 ? "for=\"[%.*s]\";proto=http" : "for=%.*s;proto=http",
			   SPAN_ARG(c->peer));
	}
	if (c->scratch->error)
		return;
	const char *text = c->scratch->ptr;
	out[(*count)++] = (struct http_field){SPAN_LIT("X-Forwarded-For"), {text + chain, forwarded - chain}};
	if (c->scratch->len > forwarded)
		out[(*count)++] = (struct http_field){SPAN_LIT("Forwarded"),
						      {text + forwarded, c->scratch->len - forwarded}};
}

static void add_forwarded(const struct http_field *in, size_t n, const struct forward_context *c,
			  struct http_field *out, size_t *count)
{
	if ((c->forwarded != FORWARD_APPEND && c->forwarded != FORWARD_REPLACE) || !c->peer.len)
		return;
	append_peer(in, n, c, out, count);
	bool stay = c->forwarded == FORWARD_APPEND && c->peer_trusted;
	const struct {
		const char *lower;
		struct http_field field;
	} made[] = {{"x-forwarded-proto", {SPAN_LIT("X-Forwarded-Proto"), SPAN_LIT("http")}},
		    {"x-forwarded-host", {SPAN_LIT("X-Forwarded-Host"), host_received(in, n)}},
		    {"x-real-ip", {SPAN_LIT("X-Real-IP"), c->peer}}};
	for (size_t i = 0; i < sizeof(made) / sizeof(made[0]); i++)
		if (made[i].field.value.len && !(stay && any_alike(in, n, made[i].lower)))
			out[(*count)++] = made[i].field;
}

/* --- requests and answers ------------------------------------------------------------------------------- */
struct span forward_request_id(const struct http_field *in, size_t n, char made[CRYPTO_UUID])
{
	for (size_t i = 0; i < n; i++)
		if (forward_classify(in[i].name) == FIELD_REQUEST_ID && in[i].value.len)
			return in[i].value;
	crypto_uuid4(made);
	return (struct span){made, CRYPTO_UUID - 1};
}

struct request_scan {
	const struct forward_context *context;
	struct named_fields dropped; /* by Connection */
	unsigned hops;
	bool been_here, has_host, has_request_id;
};

/* Whether the field continues, as far as the field itself decides that. */
static bool request_field_passes(struct request_scan *s, struct span name, struct span value, int *error)
{
	switch (forward_classify(name)) {
	case FIELD_OTHER:
		return true;
	case FIELD_CONNECTION:
		if (*error == 0)
			*error = add_named(&s->dropped, value, s->context);
		return false;
	case FIELD_VIA:
		s->hops += forward_count_via(value, s->context->own_id, &s->been_here);
		return true;
	case FIELD_HOST:
		s->has_host = true;
		return !s->context->host_instead.ptr;
	case FIELD_REQUEST_ID:
		s->has_request_id = s->has_request_id || value.len > 0;
		return value.len > 0;
	case FIELD_EXPECT:
		return !s->context->drop_expect;
	case FIELD_SHADOW: /* legacy may leave things undone for it: nobody may say so of himself */
		return s->context->peer_trusted;
	case FIELD_HOP:
	case FIELD_LENGTH:
	case FIELD_OVERRIDE:
		return false;
	}
	return true;
}

int forward_request(const struct http_field *in, size_t n, const struct forward_context *c,
		    struct http_field *out, size_t size, size_t *ret_n)
{
	struct request_scan s; /* not set whole: the names are many, and few are used */
	s.context = c;
	s.dropped.count = 0;
	s.hops = 0;
	s.been_here = s.has_host = s.has_request_id = false;
	int error = 0;
	size_t count = 0, kept = 0;
	if (size < n + FORWARD_EXTRA)
		return -ENOSPC;
	for (size_t i = 0; i < n; i++)
		if (request_field_passes(&s, in[i].name, in[i].value, &error) &&
		    forwarded_passes(c, in[i].name))
			out[count++] = (struct http_field){in[i].name, in[i].value};
	if (error)
		return error;
	if (s.been_here || s.hops >= FORWARD_MAX_HOPS)
		return FORWARD_E_LOOP;
	if (s.dropped.count) {
		for (size_t i = 0; i < count; i++)
			if (!is_named(&s.dropped, out[i].name))
				out[kept++] = out[i];
		count = kept;
	}
	if (c->host_instead.ptr)
		out[count++] = (struct http_field){SPAN_LIT("Host"), c->host_instead};
	else if (!s.has_host && c->host.ptr)
		out[count++] = (struct http_field){SPAN_LIT("Host"), c->host};
	if (!s.has_request_id && c->request_id.len)
		out[count++] = (struct http_field){SPAN_LIT("X-Request-ID"), c->request_id};
	add_forwarded(in, n, c, out, &count);
	if (c->scratch && c->scratch->error)
		return c->scratch->error;
	struct span via = SPAN_LIT("Via"), instead = SPAN_LIT("X-Migration-Via");
	out[count++] = (struct http_field){c->via_off ? instead : via, c->via};
	*ret_n = count;
	return 0;
}

int forward_answer(const struct http_field *in, size_t n, bool with_via, struct http_field *out, size_t size,
		   size_t *ret_n)
{
	struct named_fields dropped = {.count = 0};
	size_t count = 0, kept = 0;
	if (size < n + FORWARD_EXTRA)
		return -ENOSPC;
	for (size_t i = 0; i < n; i++) {
		enum field_class class = forward_classify(in[i].name);
		if (class == FIELD_CONNECTION && add_named(&dropped, in[i].value, NULL) != 0)
			return FORWARD_E_CONNECTION;
		if (class != FIELD_CONNECTION && class != FIELD_HOP && class != FIELD_LENGTH)
			out[count++] = (struct http_field){in[i].name, in[i].value};
	}
	if (dropped.count) {
		for (size_t i = 0; i < count; i++)
			if (!is_named(&dropped, out[i].name))
				out[kept++] = out[i];
		count = kept;
	}
	if (with_via)
		out[count++] = (struct http_field){SPAN_LIT("Via"), SPAN_LIT("1.1 " FORWARD_PSEUDONYM)};
	*ret_n = count;
	return 0;
}
