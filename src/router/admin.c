#include "router/admin.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/gzip.h"
#include "base/json.h"
#include "base/metric_text.h"
#include "base/text.h"
#include "operation/route.h"
#include "page/page_assets.h"
#include "page/page_sign_in.h"
#include "router/admin_door.h"
#include "router/admin_live.h"
#include "router/http/listener.h"
#include "router/problem.h"

#define ANSWER_MAX (64u << 20)
#define FORM_MAX 16384
#define CHANGE_NAMES_MAX 16 /* that one change may have a use for */
#define HTML "text/html; charset=utf-8"

struct admin {
	struct loop *loop;
	struct listener *listener;
	struct admin_content content;
	struct door *door;
	struct live *live;
	const struct config *config; /* referenced */
	char *address;		     /* as it was started with */
	unsigned jobs;		     /* running on other threads */
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
	bool begun, done;	    /* it is being made; nobody but the exchange needs it any more */
	struct live_stream *stream; /* or NULL: then what is above counts */
	struct admin_change change; /* or, with a body, this */
	struct buf body;	    /* "?" and what was sent, as a query is written; or JSON */
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
	buf_release(&q->body);
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
		answer_made(q->x, q->status, HTML, &q->out);
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
	q->begun = true;
	loop_job_start(a->loop, &q->job);
	return q;
}

static void *start_page(struct admin *a, struct exchange *x, const struct http_request *h,
			const struct admin_reader *reader)
{
	struct asked *q = asked_new(a, x, h);
	if (!q)
		return NULL;
	q->facts = a->content.page_facts(a->content.arg, reader);
	if (!q->facts) {
		asked_free(q);
		admin_fail(x, 503, "Out of memory", "");
		return NULL;
	}
	q->job = (struct loop_job){.work = run_page, .done = page_done};
	a->jobs++;
	q->begun = true;
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

/* What a browser that has not signed in gets instead of a bare 401. */
static bool wants_page(const struct admin *a, const struct http_request *h)
{
	return span_is(h->method, "GET") && lists(http_request_field(h, "Accept"), SPAN_LIT("text/html")) &&
	       a->content.is_page(route_path(h->target));
}

/* A strict cookie does not come with a link from elsewhere: the browser is made to ask once more, by a page
 * of ours. */
static void send_to_sign_in(struct exchange *x, const struct http_request *h)
{
	struct span site = http_request_field(h, "Sec-Fetch-Site");
	CLEANUP(buf_releasep) struct buf out = BUF_INIT(ANSWER_MAX);
	if (site.ptr && (span_is(site, "cross-site") || span_is(site, "same-site"))) {
		page_ask_again(h->target, &out);
		answer_made(x, 200, HTML, &out);
		return;
	}
	buf_puts(&out, "/sign-in?next=");
	buf_put_segment(&out, h->target);
	const struct http_field location[] = {{SPAN_LIT("Location"), buf_span(&out)}};
	admin_answer_with(x, 303, HTML, "no-store", location, 1, SPAN_NONE);
}

static bool admitted(struct admin *a, struct exchange *x, const struct http_request *h,
		     const struct door_caller *c)
{
	if (c->scope != DOOR_NOBODY)
		return true;
	if (!c->too_many && wants_page(a, h)) {
		send_to_sign_in(x, h);
		return false;
	}
	const struct http_field fields[] = {{SPAN_LIT("WWW-Authenticate"), auth_challenge(c->why)}};
	const struct http_field later[] = {{SPAN_LIT("Retry-After"), SPAN_LIT("60")}};
	struct http_response refused = {
		.status = c->too_many ? 429 : 401, .fields = c->too_many ? later : fields, .n_fields = 1};
	exchange_respond(x, &refused,
			 c->too_many ? SPAN_LIT("429 Too Many Requests\n") : SPAN_LIT("401 Unauthorized\n"));
	return false;
}

static void tell_readiness(struct admin *a, struct exchange *x, const struct http_request *h)
{
	CLEANUP(buf_releasep) struct buf body = BUF_INIT(ANSWER_MAX);
	struct door_caller c;
	door_look(a->door, h, &c);
	bool ready = a->content.ready(a->content.arg, c.scope != DOOR_NOBODY, &body);
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

static struct admin_reader reader_of(const struct admin *a, const struct door_caller *c)
{
	struct admin_reader r = {.may_write = c->scope == DOOR_WRITE,
				 .session = c->session,
				 .may_sign_in = door_has_writers(a->door) ||
						a->config->admin.auth.kind == AUTH_BEARER};
	memcpy(r.who, c->name, sizeof(r.who));
	memcpy(r.form, c->form, sizeof(r.form));
	return r;
}

/* --- what changes something: POST ----------------------------------------------------------------------- */

static const char path_sign_in[] = "/sign-in", path_sign_out[] = "/sign-out",
		  path_release[] = "/_admin/guard/release", path_plan[] = "/_admin/move/plan",
		  path_apply[] = "/_admin/move/apply";

static bool is_post_path(struct span path)
{
	static const char *const paths[] = {path_sign_in, path_sign_out, path_release, path_plan, path_apply};
	for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++)
		if (span_is(path, paths[i]))
			return true;
	return false;
}

bool admin_change_value(const struct admin_change *c, const char *name, struct buf *ret)
{
	char pointer[64];
	struct span value;
	if (!c->json)
		return route_query(c->body, span_of(name), ret);
	snprintf(pointer, sizeof(pointer), "/%s", name);
	if (!json_pointer(c->body, span_of(pointer), &value) || json_type_of(value) == JSON_NULL)
		return false;
	if (json_type_of(value) == JSON_STRING)
		json_unescape(value, ret);
	else
		buf_append_span(ret, value);
	return true;
}

static int check_json_names(struct span body, const char *const *names, size_t n, struct err *e)
{
	struct json_iter it;
	struct span key, value;
	bool seen[CHANGE_NAMES_MAX] = {false};
	if (n > CHANGE_NAMES_MAX || json_validate(body, e) < 0 ||
	    json_type_of(span_strip(body)) != JSON_OBJECT)
		return err_set(e, -EINVAL, "the body is no JSON object");
	for (json_iter_init(&it, span_strip(body)); json_iter_next(&it, &key, &value);) {
		size_t i = 0;
		struct span name = {key.ptr + 1, key.len - 2};
		while (i < n && !span_is(name, names[i]))
			i++;
		if (i == n)
			return err_set(e, -EINVAL, "unknown member \"%.*s\"",
				       (int)(name.len < 64 ? name.len : 64), name.ptr);
		if (seen[i])
			return err_set(e, -EINVAL, "%s is given twice", names[i]);
		seen[i] = true;
	}
	return 0;
}

int admin_change_check(const struct admin_change *c, const char *const *names, size_t n, struct err *e)
{
	return c->json ? check_json_names(c->body, names, n, e) : route_query_check(c->body, names, n, e);
}

void admin_change_answer(struct admin_change *c, int status, const char *type, const struct buf *body)
{
	struct asked *q = (struct asked *)(void *)((char *)c - offsetof(struct asked, change));
	if (q->x)
		answer_made(q->x, status, type, body);
	asked_done(q);
}

void admin_change_fail(struct admin_change *c, int status, const char *title, const char *detail)
{
	struct asked *q = (struct asked *)(void *)((char *)c - offsetof(struct asked, change));
	if (q->x)
		admin_fail(q->x, status, title, detail);
	asked_done(q);
}

/* Only to a page of ours: nothing else can be meant, and nothing else is safe. */
static bool is_own_page(const struct admin *a, struct span next)
{
	return next.len > 0 && next.len < 2048 && next.ptr[0] == '/' && text_is_plain(next) &&
	       a->content.is_page(route_path(next));
}

static void sign_in(struct admin *a, struct asked *q)
{
	static const char *const names[] = {"token", "next"};
	CLEANUP(buf_releasep)
	struct buf token = BUF_INIT(DOOR_TOKEN_MAX), next = BUF_INIT(2048), out = BUF_INIT(ANSWER_MAX);
	char cookie[DOOR_COOKIE_MAX];
	struct door_caller c;
	struct err e = {""};
	struct span way = SPAN_LIT("/");
	if (admin_change_check(&q->change, names, sizeof(names) / sizeof(names[0]), &e) < 0) {
		page_sign_in(way, e.text, &out);
		answer_made(q->x, 400, HTML, &out);
		return;
	}
	admin_change_value(&q->change, "token", &token);
	if (admin_change_value(&q->change, "next", &next) && is_own_page(a, buf_span(&next)))
		way = buf_span(&next);
	struct span shown = span_strip(buf_span(&token));
	if (token.error || !shown.len) {
		page_sign_in(way, token.error ? "This is too long for a token." : "Enter a token.", &out);
		answer_made(q->x, 400, HTML, &out);
		return;
	}
	door_sign_in(a->door, exchange_request(q->x), shown, cookie, &c);
	if (c.scope == DOOR_NOBODY) {
		page_sign_in(way,
			     c.too_many ? "Too many wrong tokens came from your address. Wait a minute."
					: "This token is not known here.",
			     &out);
		answer_made(q->x, c.too_many ? 429 : 401, HTML, &out);
		return;
	}
	const struct http_field fields[] = {{SPAN_LIT("Location"), way},
					    {SPAN_LIT("Set-Cookie"), span_of(cookie)}};
	admin_answer_with(q->x, 303, HTML, "no-store", fields, 2, SPAN_NONE);
}

static void sign_out(struct admin *a, struct asked *q)
{
	char cookie[DOOR_COOKIE_MAX];
	door_sign_out(a->door, exchange_request(q->x), cookie);
	const struct http_field fields[] = {{SPAN_LIT("Location"), span_of(path_sign_in)},
					    {SPAN_LIT("Set-Cookie"), span_of(cookie)}};
	admin_answer_with(q->x, 303, HTML, "no-store", fields, 2, SPAN_NONE);
}

/* A cookie comes by itself; the form's token and the Origin show that our own page has sent it. */
static bool form_is_ours(struct admin *a, struct asked *q)
{
	CLEANUP(buf_releasep) struct buf form = BUF_INIT(256);
	if (!q->change.caller.session)
		return true;
	admin_change_value(&q->change, "form", &form);
	return door_form_fits(a->door, exchange_request(q->x), &q->change.caller, buf_span(&form));
}

/* The body is there. */
static void admin_on_body_end(void *user, struct exchange *x)
{
	struct asked *q = user;
	if (!q || !q->x)
		return;
	struct admin *a = q->admin;
	struct span path = route_path(exchange_request(x)->target);
	q->change.path = path;
	q->change.target = span_of(q->target);
	q->change.body = q->change.json && q->body.len ? (struct span){q->body.ptr + 1, q->body.len - 1}
						       : buf_span(&q->body);
	a->jobs++;
	q->begun = true;
	if (q->body.error) {
		admin_fail(x, 413, "Too large", "At most 16 KiB can be sent here.");
	} else if (span_is(path, path_sign_in)) {
		sign_in(a, q);
	} else if (!form_is_ours(a, q)) {
		admin_fail(x, 403, "Forbidden",
			   "The form is not of this session, or this is not its address (Origin). Reload the "
			   "page.");
	} else if (span_is(path, path_sign_out)) {
		sign_out(a, q);
	} else {
		a->content.change(a->content.arg, &q->change);
		return;
	}
	asked_done(q);
}

static bool is_form(const struct http_request *h, bool *ret_json)
{
	struct span type = http_request_field(h, "Content-Type");
	const char *end = type.ptr ? memchr(type.ptr, ';', type.len) : NULL;
	type.len = end ? (size_t)(end - type.ptr) : type.len;
	type = span_trim(type);
	*ret_json = span_is_nocase(type, "application/json");
	return *ret_json || span_is_nocase(type, "application/x-www-form-urlencoded") ||
	       (!h->has_body && !type.ptr);
}

static void *take_body(struct admin *a, struct exchange *x, const struct http_request *h,
		       const struct door_caller *caller)
{
	struct asked *q = asked_new(a, x, h);
	if (!q)
		return NULL;
	q->body = BUF_INIT(FORM_MAX);
	q->change.caller = *caller;
	q->change.page = caller->session || lists(http_request_field(h, "Accept"), SPAN_LIT("text/html"));
	if (!is_form(h, &q->change.json)) {
		asked_free(q);
		admin_fail(x, 415, "Unsupported media type",
			   "Send a form (application/x-www-form-urlencoded) or application/json.");
		return NULL;
	}
	buf_putc(&q->body, '?');
	exchange_read_body(x);
	return q;
}

static void *admin_write(struct admin *a, struct exchange *x, const struct http_request *h, struct span path)
{
	struct door_caller c = {.scope = DOOR_NOBODY};
	bool release = span_is(path, path_release), signs = span_is(path, path_sign_in);
	if (!is_post_path(path)) {
		door_look(a->door, h, &c);
		if (admitted(a, x, h, &c))
			admin_fail(x, 405, "Method not allowed", "Only GET and HEAD are served here.");
		return NULL;
	}
	if (!signs) {
		door_look(a->door, h, &c);
		if (!admitted(a, x, h, &c))
			return NULL;
	}
	if (door_from_another_site(a->door, h)) {
		admin_fail(x, 403, "Forbidden", "Pages of other sites may not request this.");
		return NULL;
	}
	bool write = !signs && !span_is(path, path_sign_out) && (!release || door_guards_release(a->door));
	if (write && c.scope != DOOR_WRITE) {
		admin_fail(x, c.too_many ? 429 : 403, "Forbidden",
			   door_has_writers(a->door)
				   ? "This needs a token with the scope write (admin.writers)."
				   : "Nobody has the scope write: admin.writers names who may change "
				     "something.");
		return NULL;
	}
	return take_body(a, x, h, &c);
}

static void show_sign_in(struct admin *a, struct exchange *x, const struct http_request *h)
{
	CLEANUP(buf_releasep) struct buf next = BUF_INIT(2048), out = BUF_INIT(ANSWER_MAX);
	struct span way = SPAN_LIT("/");
	if (!door_has_writers(a->door) && a->config->admin.auth.kind != AUTH_BEARER) {
		admin_fail(x, 404, "Not found", "Nobody has to sign in here.");
		return;
	}
	if (route_query(h->target, SPAN_LIT("next"), &next) && is_own_page(a, buf_span(&next)))
		way = buf_span(&next);
	page_sign_in(way, "", &out);
	answer_made(x, 200, HTML, &out);
}

static void *admin_read(struct admin *a, struct exchange *x, const struct http_request *h, struct span path)
{
	CLEANUP(buf_releasep) struct buf body = BUF_INIT(ANSWER_MAX);
	struct door_caller c;
	if (span_is(path, path_sign_in)) {
		show_sign_in(a, x, h);
		return NULL;
	}
	door_look(a->door, h, &c);
	if (!admitted(a, x, h, &c))
		return NULL;
	if (is_post_path(path)) {
		admin_fail(x, 405, "Method not allowed", "Use POST: a GET changes nothing.");
	} else if (span_is(path, "/_admin/gate")) {
		tell_guard(a, x, h, a->content.gate);
	} else if (span_is(path, "/_admin/report.json")) {
		return start_report(a, x, h, a->content.report);
	} else if (span_is(path, "/_admin/drain.json")) {
		return start_report(a, x, h, a->content.drain);
	} else if (span_is(path, "/_admin/requests.json") || span_is(path, "/_admin/errors.json") ||
		   span_is(path, "/_admin/organizations.json")) {
		return start_report(a, x, h, a->content.search);
	} else if (span_is(path, "/_admin/standing.json")) {
		return start_report(a, x, h, a->content.standing);
	} else if (a->content.is_page(path)) {
		const struct admin_reader reader = reader_of(a, &c);
		return start_page(a, x, h, &reader);
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

static void *admin_on_head(void *arg, struct exchange *x, const struct http_request *h)
{
	struct admin *a = arg;
	struct span path = route_path(h->target);
	bool reads = span_is(h->method, "GET") || span_is(h->method, "HEAD");
	if (span_is(path, "/healthz")) { /* liveness must not depend on anything, a token included */
		admin_answer(x, 200, "text/plain; charset=utf-8", SPAN_LIT("ok\n"));
		return NULL;
	}
	if (!door_host_fits(a->door, h)) {
		admin_fail(x, 421, "Misdirected request",
			   "This listener is not known by that Host; admin.hosts can list it.");
		return NULL;
	}
	if (span_is(path, "/readyz")) {
		tell_readiness(a, x, h);
		return NULL;
	}
	const struct page_asset *asset = page_asset(path);
	if (asset && reads) {
		serve_asset(x, h, asset);
		return NULL;
	}
	if (reads)
		return admin_read(a, x, h, path);
	if (span_is(h->method, "POST"))
		return admin_write(a, x, h, path);
	struct door_caller c;
	door_look(a->door, h, &c);
	if (admitted(a, x, h, &c))
		admin_fail(x, 405, "Method not allowed", "Only GET and HEAD are served here.");
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
	if (q->done || q->stream || !q->begun)
		asked_free(q);
}

static size_t admin_on_body(void *user, struct exchange *x, const char *bytes, size_t n)
{
	struct asked *q = user;
	(void)x;
	if (q && !q->body.error)
		buf_append(&q->body, bytes, n);
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
	door_set_config(a->door, config);
	live_close(a->live); /* who was let in by other rules comes again */
}

static struct admin *admin_free(struct admin *a)
{
	live_free(a->live);
	door_free(a->door);
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
	a->config = config_ref(config);
	a->address = strdup(config->admin.listen);
	if (!a->address || door_new(config, a->address, guesses, &a->door) < 0 ||
	    live_new(loop, content->version, content->arg, &a->live) < 0) {
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
				     .body_end = admin_on_body_end,
				     .client_gone = on_nothing,
				     .finished = admin_on_finished,
				     .refused = admin_on_refused};
	int r = listener_start(loop, &o, &h, &a->listener, e);
	if (r < 0) {
		admin_free(a);
		return err_prefix(e, r, "admin listener");
	}
	door_set_port(a->door, listener_port(a->listener));
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
