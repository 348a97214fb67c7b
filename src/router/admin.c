#include "router/admin.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/crypto.h"
#include "base/gzip.h"
#include "base/metric_text.h"
#include "operation/auth.h"
#include "operation/listen_address.h"
#include "operation/route.h"
#include "page/page_assets.h"
#include "router/admin_live.h"
#include "router/http/authority.h"
#include "router/http/guesses.h"
#include "router/http/listener.h"
#include "router/problem.h"

#define ANSWER_MAX (64u << 20)

struct admin {
	struct loop *loop;
	struct listener *listener;
	struct admin_content content;
	const struct config *config; /* referenced: who is let in */
	struct guesses *guesses;
	struct live *live;
	char *address; /* as it was started with */
	unsigned jobs; /* running on other threads */
};

/* One request that is not answered at once: it waits for a report or a page, and is freed when both its job
 * is done and its exchange is finished; or it is a stream. */
struct asked {
	struct loop_job job; /* first: the callbacks get its address */
	struct admin *admin;
	struct exchange *x; /* NULL once finished */
	char *target;
	void *facts;								     /* of a page */
	int (*make)(void *arg, struct span target, struct buf *json, struct err *e); /* of a report */
	struct buf out;
	struct err err;
	int status;
	bool done;
	struct live_stream *stream; /* or NULL: then what is above counts */
};

/* Nothing is loaded from elsewhere, and nothing that stands in a page is run. */
#define ADMIN_POLICY \
	"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " \
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

/* `extra`: more fields, up to ADMIN_EXTRA. */
#define ADMIN_EXTRA 3
static void admin_answer_with(struct exchange *x, int status, const char *type, const char *cache,
			      const struct http_field *extra, size_t n_extra, struct span body)
{
	struct http_field fields[5 + ADMIN_EXTRA] = {
		{SPAN_LIT("Content-Type"), span_of(type)},
		{SPAN_LIT("Cache-Control"), span_of(cache)},
		{SPAN_LIT("X-Content-Type-Options"), SPAN_LIT("nosniff")},
		{SPAN_LIT("Referrer-Policy"), SPAN_LIT("same-origin")}, /* URLs name users */
		{SPAN_LIT("Content-Security-Policy"), SPAN_LIT(ADMIN_POLICY)},
	};
	for (size_t i = 0; i < n_extra; i++)
		fields[5 + i] = extra[i];
	struct http_response r = {.status = status, .fields = fields, .n_fields = 5 + n_extra};
	if (span_is(exchange_request(x)->method, "HEAD") || status == 304)
		exchange_respond_bodyless(x, &r, status == 304 ? -1 : (int64_t)body.len);
	else
		exchange_respond(x, &r, body);
}

static void admin_answer(struct exchange *x, int status, const char *type, struct span body)
{
	admin_answer_with(x, status, type, "no-store", NULL, 0, body);
}

static void admin_fail(struct exchange *x, int status, const char *title, const char *detail)
{
	CLEANUP(buf_releasep) struct buf body = BUF_INIT(PROBLEM_MAX);
	problem_render(&(struct problem){.status = status, .title = title, .detail = span_of(detail)}, &body);
	admin_answer(x, status, PROBLEM_CONTENT_TYPE, buf_span(&body));
}

/* Never a part of a document. */
static void answer_made(struct exchange *x, int status, const char *type, const struct buf *body)
{
	if (body->error)
		admin_fail(x, 500, "Answer too large", "The response would be too large.");
	else
		admin_answer(x, status, type, buf_span(body));
}

/* --- reports and pages: on another thread --------------------------------------------------------------- */

static void asked_free(struct asked *q)
{
	buf_release(&q->out);
	free(q->target);
	free(q);
}

static void run_report(struct loop_job *j)
{
	struct asked *q = (struct asked *)j;
	q->status = q->make(q->admin->content.arg, span_of(q->target), &q->out, &q->err);
}

static void run_page(struct loop_job *j)
{
	struct asked *q = (struct asked *)j;
	q->status = q->admin->content.page(q->admin->content.arg, q->facts, span_of(q->target), &q->out);
}

/* What is left when the answer has gone. */
static void asked_done(struct asked *q)
{
	q->admin->jobs--;
	buf_release(&q->out);
	q->done = true;
	if (!q->x)
		asked_free(q);
}

static void report_done(struct loop_job *j)
{
	struct asked *q = (struct asked *)j;
	if (q->x && q->status == 0)
		admin_answer(q->x, 200, "application/json", buf_span(&q->out));
	else if (q->x)
		admin_fail(q->x, q->status, "No report", q->err.text);
	asked_done(q);
}

static void page_done(struct loop_job *j)
{
	struct asked *q = (struct asked *)j;
	if (q->x)
		answer_made(q->x, q->status, "text/html; charset=utf-8", &q->out);
	asked_done(q);
}

static struct asked *asked_new(struct admin *a, struct exchange *x, const struct http_request *h)
{
	struct asked *q = calloc(1, sizeof(*q));
	char *target = span_dup(h->target);
	if (!q || !target) {
		free(q);
		free(target);
		admin_fail(x, 503, "Out of memory", "");
		return NULL;
	}
	q->admin = a;
	q->x = x;
	q->target = target;
	q->out = BUF_INIT(ANSWER_MAX);
	return q;
}

static void *start_report(struct admin *a, struct exchange *x, const struct http_request *h,
			  int (*make)(void *arg, struct span target, struct buf *json, struct err *e))
{
	struct asked *q = asked_new(a, x, h);
	if (!q)
		return NULL;
	q->make = make;
	q->job = (struct loop_job){.work = run_report, .done = report_done};
	a->jobs++;
	loop_job_start(a->loop, &q->job);
	return q;
}

static void *start_page(struct admin *a, struct exchange *x, const struct http_request *h)
{
	struct asked *q = asked_new(a, x, h);
	if (!q)
		return NULL;
	q->facts = a->content.page_facts(a->content.arg);
	if (!q->facts) {
		asked_free(q);
		admin_fail(x, 503, "Out of memory", "");
		return NULL;
	}
	q->job = (struct loop_job){.work = run_page, .done = page_done};
	a->jobs++;
	loop_job_start(a->loop, &q->job);
	return q;
}

/* --- what pages load ------------------------------------------------------------------------------------ */

static bool lists(struct span field, struct span word)
{
	return field.ptr && memmem(field.ptr, field.len, word.ptr, word.len);
}

/* Compressed as it is in the program; plain for those few who cannot read that. */
static void serve_asset(struct exchange *x, const struct http_request *h, const struct page_asset *asset)
{
	char etag[24];
	CLEANUP(buf_releasep) struct buf plain = BUF_INIT(asset->size);
	struct span packed = {(const char *)asset->gzip, asset->gzip_size};
	struct span query = {h->target.ptr, h->target.len};
	bool zipped = lists(http_request_field(h, "Accept-Encoding"), SPAN_LIT("gzip"));
	snprintf(etag, sizeof(etag), "\"%s%s\"", asset->version, zipped ? "-z" : "");
	const struct http_field extra[ADMIN_EXTRA] = {{SPAN_LIT("ETag"), span_of(etag)},
						      {SPAN_LIT("Vary"), SPAN_LIT("Accept-Encoding")},
						      {SPAN_LIT("Content-Encoding"), SPAN_LIT("gzip")}};
	/* Another version's URL, in a takeover: what it gets is not what it asked for. */
	const char *cache =
		lists(query, span_of(asset->version)) ? "public, max-age=31536000, immutable" : "no-cache";
	if (lists(http_request_field(h, "If-None-Match"), span_of(etag)))
		admin_answer_with(x, 304, asset->type, cache, extra, 2, SPAN_NONE);
	else if (zipped)
		admin_answer_with(x, 200, asset->type, cache, extra, 3, packed);
	else if (gzip_decode(packed, &plain) == 0)
		admin_answer_with(x, 200, asset->type, cache, extra, 2, buf_span(&plain));
	else
		admin_fail(x, 503, "Out of memory", "");
}

/* --- live: pages that are open -------------------------------------------------------------------------- */

static long pull_events(void *user, struct exchange *x, char *out, size_t size)
{
	struct asked *q = user;
	(void)x;
	return live_pull(q->stream, out, size);
}

static void *start_stream(struct admin *a, struct exchange *x, const struct http_request *h)
{
	struct asked *q = asked_new(a, x, h);
	if (!q)
		return NULL;
	q->stream = live_open(a->live, x);
	if (!q->stream) {
		asked_free(q);
		admin_fail(x, 503, "Too many pages are open", "Ask for the page itself now and then.");
		return NULL;
	}
	const struct http_field fields[] = {{SPAN_LIT("Content-Type"), SPAN_LIT("text/event-stream")},
					    {SPAN_LIT("Cache-Control"), SPAN_LIT("no-store")},
					    {SPAN_LIT("X-Accel-Buffering"), SPAN_LIT("no")}};
	const struct http_response r = {.status = 200, .fields = fields, .n_fields = 3, .close = true};
	exchange_respond_stream(x, &r, -1, pull_events);
	return q;
}

/* --- requests ------------------------------------------------------------------------------------------- */

static bool is_loopback(const char *host)
{
	struct in_addr v4;
	struct in6_addr v6;
	if (inet_pton(AF_INET, host, &v4) == 1)
		return ntohl(v4.s_addr) >> 24 == 127;
	return inet_pton(AF_INET6, host, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

/* An address cannot be made to lead elsewhere, as a name can; any is the own of a listener on all of them. */
static bool is_own_address(const struct admin *a, const char *host)
{
	struct in6_addr any;
	char own[128];
	snprintf(own, sizeof(own), "%s", a->address);
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

static bool may_be_called(const struct admin *a, struct span authority)
{
	char host[AUTHORITY_HOST_MAX];
	return authority_host(authority, host) && (strcmp(host, "localhost") == 0 || is_loopback(host) ||
						   is_own_address(a, host) || is_listed(a->config, host));
}

/* Browsers always send a Host; programs of HTTP/1.0 may not. A target in absolute form counts, too. */
static bool host_fits(const struct admin *a, const struct http_request *h)
{
	struct span host = http_request_field(h, "Host"), target = authority_of_target(h->target);
	return (!host.ptr || may_be_called(a, host)) && (!target.ptr || may_be_called(a, target));
}

enum admission { ADMITTED, NOT_ADMITTED, TOO_MANY_GUESSES };

static enum admission admin_admit(struct admin *a, const struct http_request *h, enum auth_result *ret_why)
{
	struct auth_fingerprint who;
	const struct auth *auth = &a->config->admin.auth;
	*ret_why = AUTH_ACCEPTED;
	if (auth->kind == AUTH_UNSET) /* loopback by default; the configuration asks for a token elsewhere */
		return ADMITTED;
	*ret_why = auth_check(auth, h->fields, h->n_fields, &who);
	if (auth->kind == AUTH_NONE || !who.hex[0])
		return *ret_why == AUTH_ACCEPTED ? ADMITTED : NOT_ADMITTED;
	if (!guesses_allow(a->guesses, h->peer, who.hex)) /* the answer does not tell whether it was right */
		return TOO_MANY_GUESSES;
	if (*ret_why == AUTH_ACCEPTED)
		guesses_right(a->guesses, who.hex);
	else
		guesses_wrong(a->guesses, h->peer, "admin_token_wrong");
	return *ret_why == AUTH_ACCEPTED ? ADMITTED : NOT_ADMITTED;
}

static bool admitted(struct admin *a, struct exchange *x, const struct http_request *h)
{
	enum auth_result why;
	enum admission r = admin_admit(a, h, &why);
	if (r == ADMITTED)
		return true;
	const struct http_field fields[] = {{SPAN_LIT("WWW-Authenticate"), auth_challenge(why)}};
	const struct http_field later[] = {{SPAN_LIT("Retry-After"), SPAN_LIT("60")}};
	bool many = r == TOO_MANY_GUESSES;
	struct http_response refused = {
		.status = many ? 429 : 401, .fields = many ? later : fields, .n_fields = 1};
	exchange_respond(x, &refused,
			 many ? SPAN_LIT("429 Too Many Requests\n") : SPAN_LIT("401 Unauthorized\n"));
	return false;
}

static void tell_readiness(struct admin *a, struct exchange *x, const struct http_request *h)
{
	CLEANUP(buf_releasep) struct buf body = BUF_INIT(ANSWER_MAX);
	enum auth_result why;
	bool ready = a->content.ready(a->content.arg, admin_admit(a, h, &why) == ADMITTED, &body);
	answer_made(x, ready ? 200 : 503, "application/json", &body);
}

static void tell_guard(struct admin *a, struct exchange *x, const struct http_request *h,
		       int (*door)(void *arg, struct span target, struct buf *json, struct err *e))
{
	CLEANUP(buf_releasep) struct buf body = BUF_INIT(ANSWER_MAX);
	struct err e = {""};
	int status = door(a->content.arg, h->target, &body, &e);
	if (body.len || body.error)
		answer_made(x, status, "application/json", &body);
	else
		admin_fail(x, status, "The guard cannot say", e.text);
}

/* A page of another site can make a browser of this machine send a POST; it cannot keep the browser from
 * saying so. */
static bool from_another_site(const struct admin *a, const struct http_request *h)
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
	return !theirs.ptr || !may_be_called(a, theirs);
}

/* What changes something. */
static void admin_write(struct admin *a, struct exchange *x, const struct http_request *h, struct span path)
{
	if (!span_is(path, "/_admin/guard/release"))
		admin_fail(x, 405, "Method not allowed", "Only GET and HEAD are served here.");
	else if (from_another_site(a, h))
		admin_fail(x, 403, "Forbidden", "Pages of other sites may not request this.");
	else
		tell_guard(a, x, h, a->content.release);
}

static void *admin_on_head(void *arg, struct exchange *x, const struct http_request *h)
{
	struct admin *a = arg;
	CLEANUP(buf_releasep) struct buf body = BUF_INIT(ANSWER_MAX);
	struct span path = route_path(h->target);
	if (span_is(path, "/healthz")) { /* liveness must not depend on anything, a token included */
		admin_answer(x, 200, "text/plain; charset=utf-8", SPAN_LIT("ok\n"));
		return NULL;
	}
	if (!host_fits(a, h)) {
		admin_fail(x, 421, "Misdirected request",
			   "This listener is not known by that Host; admin.hosts can list it.");
		return NULL;
	}
	if (span_is(path, "/readyz")) {
		tell_readiness(a, x, h);
		return NULL;
	}
	const struct page_asset *asset = page_asset(path);
	if (asset && (span_is(h->method, "GET") || span_is(h->method, "HEAD"))) {
		serve_asset(x, h, asset);
		return NULL;
	}
	if (!admitted(a, x, h))
		return NULL;
	if (span_is(h->method, "POST")) {
		admin_write(a, x, h, path);
	} else if (!span_is(h->method, "GET") && !span_is(h->method, "HEAD")) {
		admin_fail(x, 405, "Method not allowed", "Only GET and HEAD are served here.");
	} else if (span_is(path, "/_admin/guard/release")) {
		admin_fail(x, 405, "Method not allowed", "Use POST to release.");
	} else if (span_is(path, "/_admin/gate")) {
		tell_guard(a, x, h, a->content.gate);
	} else if (span_is(path, "/_admin/report.json")) {
		return start_report(a, x, h, a->content.report);
	} else if (span_is(path, "/_admin/standing.json")) {
		return start_report(a, x, h, a->content.standing);
	} else if (a->content.is_page(path)) {
		return start_page(a, x, h);
	} else if (span_is(path, "/_admin/live") && span_is(h->method, "GET")) {
		return start_stream(a, x, h);
	} else if (span_is(path, "/metrics")) {
		bool open = metric_accepts_open(http_request_field(h, "Accept"));
		a->content.metrics(a->content.arg, open, &body);
		answer_made(x, 200, open ? METRIC_OPEN_TYPE : METRIC_TEXT_TYPE, &body);
	} else if (span_is(path, "/_admin/flags")) {
		a->content.flags(a->content.arg, &body);
		answer_made(x, 200, "application/json", &body);
	} else {
		admin_fail(x, 404, "Not found", "There is no such page here.");
	}
	return NULL;
}

static void admin_on_finished(void *user, struct exchange *x, bool gone)
{
	struct asked *q = user; /* what is answered at once has none */
	(void)gone, (void)x;
	if (!q)
		return;
	q->x = NULL;
	if (q->stream)
		live_finished(q->stream);
	if (q->done || q->stream)
		asked_free(q);
}

static size_t admin_on_body(void *user, struct exchange *x, const char *bytes, size_t n)
{
	(void)user, (void)x, (void)bytes;
	return n;
}

static void on_nothing(void *user, struct exchange *x)
{
	(void)user, (void)x;
}

static void admin_on_refused(void *arg, int status, const char *why)
{
	(void)arg, (void)status, (void)why;
}

/* --- life ----------------------------------------------------------------------------------------------- */

void admin_set_config(struct admin *a, const struct config *config)
{
	if (config->admin.auth.kind != AUTH_BEARER &&
	    (!config->admin.listen || strcmp(config->admin.listen, a->address) != 0))
		return;
	config_unref(a->config);
	a->config = config_ref(config);
	live_close(a->live); /* who was let in by other rules comes again */
}

static struct admin *admin_free(struct admin *a)
{
	live_free(a->live);
	config_unref(a->config);
	free(a->address);
	free(a);
	return NULL;
}

int admin_start(struct loop *loop, const struct config *config, struct guesses *guesses,
		const struct admin_content *content, bool held, struct admin **ret, struct err *e)
{
	struct admin *a = calloc(1, sizeof(*a));
	if (!a)
		return err_set(e, -ENOMEM, "out of memory");
	a->loop = loop;
	a->content = *content;
	a->guesses = guesses;
	a->config = config_ref(config);
	a->address = strdup(config->admin.listen);
	if (!a->address || live_new(loop, content->version, content->arg, &a->live) < 0) {
		admin_free(a);
		return err_set(e, -ENOMEM, "out of memory");
	}
	struct listener_options o = {
		.address = a->address,
		.max_connections = 64,
		.newest_first = true,
		.reserve = 4,
		.held = held,
		.max_head = 16384,
		.head_timeout_ms = 10000,
		.idle_timeout_ms = 30000,
		.drain_timeout_ms = 5000,
	};
	struct listener_handler h = {.arg = a,
				     .head = admin_on_head,
				     .body = admin_on_body,
				     .body_end = on_nothing,
				     .client_gone = on_nothing,
				     .finished = admin_on_finished,
				     .refused = admin_on_refused};
	int r = listener_start(loop, &o, &h, &a->listener, e);
	if (r < 0) {
		admin_free(a);
		return err_prefix(e, r, "admin listener");
	}
	*ret = a;
	return 0;
}

unsigned admin_port(const struct admin *a)
{
	return listener_port(a->listener);
}

void admin_open(struct admin *a)
{
	listener_open(a->listener);
}

bool admin_drain(struct admin *a, bool patient)
{
	live_close(a->live); /* it waits for those who want to know how the drain goes, not for these */
	listener_quiesce(a->listener, patient);
	unsigned n = listener_unheard(a->listener) + listener_exchanges(a->listener);
	return n > 0 || listener_settling(a->listener);
}

struct admin *admin_stop(struct admin *a)
{
	if (!a)
		return NULL;
	listener_stop(a->listener);
	/* What is still being made holds a pointer to this. */
	while (a->jobs > 0)
		loop_run_once(a->loop);
	return admin_free(a);
}
