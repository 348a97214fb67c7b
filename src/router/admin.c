#include "router/admin.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/crypto.h"
#include "base/file.h"
#include "operation/auth.h"
#include "operation/listen_address.h"
#include "operation/route.h"
#include "router/http/authority.h"
#include "router/http/guesses.h"
#include "router/http/listener.h"
#include "router/problem.h"

#define FILE_MAX_BYTES (4u << 20)
#define ANSWER_MAX (64u << 20)

struct admin {
	struct loop *loop;
	struct listener *listener;
	struct admin_content content;
	const struct config *config; /* referenced: who is let in */
	struct guesses *guesses;
	char *address; /* as it was started with */
	char *files;
	unsigned reports; /* running on other threads */
};

/* One request that waits for a report; freed when both its job is done and its exchange is finished. */
struct report_job {
	struct loop_job job; /* first: the callbacks get its address */
	struct admin *admin;
	struct exchange *x; /* NULL once finished */
	char *target;
	struct buf json;
	struct err err;
	int status;
	bool done;
};

static void admin_answer(struct exchange *x, int status, const char *type, struct span body)
{
	const struct http_field fields[] = {
		{SPAN_LIT("Content-Type"), span_of(type)},
		{SPAN_LIT("Cache-Control"), SPAN_LIT("no-store")},
		{SPAN_LIT("X-Content-Type-Options"), SPAN_LIT("nosniff")},
		{SPAN_LIT("Content-Security-Policy"),
		 SPAN_LIT("default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")},
	};
	struct http_response r = {.status = status, .fields = fields, .n_fields = 4};
	if (span_is(exchange_request(x)->method, "HEAD"))
		exchange_respond_bodyless(x, &r, (int64_t)body.len);
	else
		exchange_respond(x, &r, body);
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

/* --- report: on another thread -------------------------------------------------------------------------- */

static void report_free(struct report_job *r)
{
	buf_release(&r->json);
	free(r->target);
	free(r);
}

static void run_report(struct loop_job *j)
{
	struct report_job *r = (struct report_job *)j;
	r->status = r->admin->content.report(r->admin->content.arg, span_of(r->target), &r->json, &r->err);
}

static void report_done(struct loop_job *j)
{
	struct report_job *r = (struct report_job *)j;
	r->admin->reports--;
	if (r->x && r->status == 0)
		admin_answer(r->x, 200, "application/json", buf_span(&r->json));
	else if (r->x)
		admin_fail(r->x, r->status, "No report", r->err.text);
	buf_release(&r->json);
	r->done = true;
	if (!r->x)
		report_free(r);
}

static void *start_report(struct admin *a, struct exchange *x, const struct http_request *h)
{
	struct report_job *r = calloc(1, sizeof(*r));
	char *target = span_dup(h->target);
	if (!r || !target) {
		free(r);
		free(target);
		admin_fail(x, 503, "Out of memory", "");
		return NULL;
	}
	r->job = (struct loop_job){.work = run_report, .done = report_done};
	r->admin = a;
	r->x = x;
	r->target = target;
	r->json = BUF_INIT(ANSWER_MAX);
	a->reports++;
	loop_job_start(a->loop, &r->job);
	return r;
}

/* --- files of the dashboard ----------------------------------------------------------------------------- */

static const char *type_of(const char *name)
{
	static const struct {
		const char *ending, *type;
	} types[] = {{".html", "text/html; charset=utf-8"},
		     {".js", "text/javascript; charset=utf-8"},
		     {".css", "text/css; charset=utf-8"},
		     {".svg", "image/svg+xml"},
		     {".json", "application/json"}};
	const char *dot = strrchr(name, '.');
	for (size_t i = 0; dot && i < sizeof(types) / sizeof(types[0]); i++)
		if (strcmp(dot, types[i].ending) == 0)
			return types[i].type;
	return NULL;
}

/* Plain names only: letters, digits, '-', '_' and single dots between them; so nothing outside the folder can
 * be named. */
static bool plain_name(struct span name)
{
	for (size_t i = 0; i < name.len; i++) {
		char c = name.ptr[i];
		bool word = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
			    c == '-' || c == '_';
		if (!word && !(c == '.' && i > 0 && name.ptr[i - 1] != '.'))
			return false;
	}
	return name.len > 0 && name.len < 100;
}

static void serve_file(struct admin *a, struct exchange *x, struct span name)
{
	char path[4096];
	if (name.len == 0)
		name = SPAN_LIT("index.html");
	int n = plain_name(name) && a->files
			? snprintf(path, sizeof(path), "%s/%.*s", a->files, SPAN_ARG(name))
			: -1;
	CLEANUP(buf_releasep) struct buf content = BUF_INIT(FILE_MAX_BYTES);
	if (n < 0 || (size_t)n >= sizeof(path) || !type_of(path) ||
	    file_read(path, FILE_MAX_BYTES - 65536, &content, NULL) < 0)
		admin_fail(x, 404, "Not found", "There is no such page here.");
	else
		admin_answer(x, 200, type_of(path), buf_span(&content));
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
		return start_report(a, x, h);
	} else if (span_is(path, "/metrics")) {
		a->content.metrics(a->content.arg, &body);
		answer_made(x, 200, "text/plain; version=0.0.4; charset=utf-8", &body);
	} else if (span_is(path, "/_admin/flags")) {
		a->content.flags(a->content.arg, &body);
		answer_made(x, 200, "application/json", &body);
	} else {
		serve_file(a, x, path.len ? (struct span){path.ptr + 1, path.len - 1} : path);
	}
	return NULL;
}

static void admin_on_finished(void *user, struct exchange *x, bool gone)
{
	struct report_job *r = user; /* only reports have one */
	(void)gone, (void)x;
	if (!r)
		return;
	r->x = NULL;
	if (r->done)
		report_free(r);
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
}

static struct admin *admin_free(struct admin *a)
{
	config_unref(a->config);
	free(a->address);
	free(a->files);
	free(a);
	return NULL;
}

int admin_start(struct loop *loop, const struct config *config, struct guesses *guesses, const char *files,
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
	if (!a->address || (files && !(a->files = strdup(files)))) {
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
	listener_quiesce(a->listener, patient);
	unsigned n = listener_unheard(a->listener) + listener_exchanges(a->listener);
	return n > 0 || listener_settling(a->listener);
}

struct admin *admin_stop(struct admin *a)
{
	if (!a)
		return NULL;
	listener_stop(a->listener);
	/* Reports still being made hold a pointer to this. */
	while (a->reports > 0)
		loop_run_once(a->loop);
	return admin_free(a);
}
