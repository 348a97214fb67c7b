#include "programs/status/status_sources.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/http_client.h"
#include "base/loop.h"
#include "base/url.h"
#include "outcomes/report_sums.h"

#define ANSWER_MAX (64u << 20)
#define ANSWER_MS 30000
#define TOKEN_MAX 4096

/* What one source says. */
struct told {
	struct report_sums *sums[STATUS_SOURCES_MAX];
	struct guard_verdicts *guard[STATUS_SOURCES_MAX];
	size_t n;
};

bool status_sources_add(struct status_sources *s, const char *name, bool router)
{
	if (s->n == STATUS_SOURCES_MAX)
		return false;
	s->all[s->n++] = (struct status_source){router, name};
	return true;
}

static int told_by_file(const char *path, const struct report_options *o, struct report_sums **sums,
			struct guard_verdicts **guard, struct err *e)
{
	struct report_options of = *o;
	of.path = path;
	int r = report_sums_read(&of, sums, e);
	if (r < 0)
		return r;
	return guard_verdicts_read(path, o->service ? o->service : "", o->operation ? o->operation : "",
				   guard, e);
}

/* --- routers -------------------------------------------------------------------------------------------- */

struct answer {
	struct loop *loop;
	const char *name;
	struct buf body;
	struct err err;
	int result;
};

static void status_on_answer(void *arg, const struct http_reply *reply)
{
	struct answer *a = arg;
	a->result = 0;
	if (reply->failure != HTTP_OK)
		a->result = err_set(&a->err, -EIO, "%s: %s", a->name, reply->detail);
	else if (reply->status == 401 || reply->status == 403)
		a->result = err_set(&a->err, -EACCES,
				    "%s: %d; it requires a token: MIGRATION_ROUTER_TOKEN or "
				    "--router-token-file",
				    a->name, reply->status);
	else if (reply->status != 200)
		a->result = err_set(&a->err, -EIO, "%s: answered %d: %.*s", a->name, reply->status,
				    reply->body.len > 200 ? 200 : (int)reply->body.len,
				    reply->body.ptr ? reply->body.ptr : "");
	else if (buf_append_span(&a->body, reply->body) < 0)
		a->result = err_set(&a->err, -ENOMEM, "out of memory");
	loop_stop(a->loop);
}

void status_put_parameter(struct buf *url, const char *name, const char *value)
{
	if (!value)
		return;
	buf_printf(url, "&%s=", name);
	for (const unsigned char *c = (const unsigned char *)value; *c; c++) {
		bool plain = (*c >= '0' && *c <= '9') || (*c >= 'A' && *c <= 'Z') ||
			     (*c >= 'a' && *c <= 'z') || strchr("-_.~", *c);
		buf_printf(url, plain ? "%c" : "%%%02X", *c);
	}
}

void status_put_time(struct buf *url, const char *name, int64_t us)
{
	char text[CLOCK_TEXT_MAX];
	if (!us)
		return;
	clock_format(us, text);
	status_put_parameter(url, name, text);
}

static void status_make_url(const char *router, const struct report_options *o, struct buf *url)
{
	buf_printf(url, "%.*s/_admin/report.json?form=sums", SPAN_ARG(url_without_slash(span_of(router))));
	status_put_time(url, "since", o->since_us);
	status_put_time(url, "until", o->until_us);
	status_put_parameter(url, "service", o->service);
	status_put_parameter(url, "operation", o->operation);
	status_put_parameter(url, "org", o->organization);
	buf_terminate(url);
}

static int read_token(const struct status_sources *s, struct buf *bearer, struct err *e)
{
	CLEANUP(buf_releasep) struct buf token = BUF_INIT(TOKEN_MAX + 65536);
	const char *of_environment = getenv("MIGRATION_ROUTER_TOKEN");
	int r = s->token_file ? file_read(s->token_file, TOKEN_MAX, &token, e) : 0;
	if (r == 0 && !s->token_file && of_environment)
		r = buf_puts(&token, of_environment);
	struct span text = token.len ? span_strip(buf_span(&token)) : SPAN_NONE;
	if (r == 0 && text.len) {
		buf_puts(bearer, "Bearer ");
		r = buf_append_span(bearer, text);
	}
	return r;
}

static int ask_router(struct http_client *client, const struct status_sources *s, const char *url,
		      struct answer *a, struct err *e)
{
	CLEANUP(buf_releasep) struct buf bearer = BUF_INIT(TOKEN_MAX + 16);
	struct http_call *call = NULL;
	int r = read_token(s, &bearer, e);
	if (r < 0)
		return r;
	struct http_field field = {SPAN_LIT("Authorization"), buf_span(&bearer)};
	struct http_call_request q = {.method = "GET",
				      .url = url,
				      .fields = &field,
				      .n_fields = bearer.len > 0,
				      .timeout_ms = ANSWER_MS,
				      .max_body = ANSWER_MAX,
				      .may_resend = true};
	struct http_events events = {.arg = a, .done = status_on_answer};
	r = http_start(client, &q, &events, &call, e);
	if (r < 0)
		return err_prefix(e, r, "%s", a->name);
	loop_run(a->loop);
	*e = a->err;
	return a->result;
}

static int get_url(const struct status_sources *s, const char *name, const struct buf *url, struct buf *body,
		   struct err *e)
{
	struct answer a = {.name = name, .body = BUF_INIT(ANSWER_MAX), .result = -EIO};
	struct http_client *client = NULL;
	if (url->error)
		return err_set(e, url->error, "%s: too long", name);
	int r = loop_new(&a.loop);
	if (r < 0)
		return err_set(e, r, "event loop: %s", strerror(-r));
	r = http_client_new(a.loop, &(struct http_client_options){0}, &client, e);
	if (r == 0)
		r = ask_router(client, s, url->ptr, &a, e);
	http_client_free(client);
	loop_free(a.loop);
	*body = a.body;
	return r;
}

int status_sources_get(const struct status_sources *s, const char *router, const char *path, struct buf *body,
		       struct err *e)
{
	CLEANUP(buf_releasep) struct buf url = BUF_INIT(16384);
	buf_printf(&url, "%.*s%s", SPAN_ARG(url_without_slash(span_of(router))), path);
	buf_terminate(&url);
	return get_url(s, router, &url, body, e);
}

static int told_by_router(const struct status_sources *s, const char *name, const struct report_options *o,
			  struct report_sums **sums, struct guard_verdicts **guard, struct err *e)
{
	CLEANUP(buf_releasep) struct buf url = BUF_INIT(16384), body = {0};
	status_make_url(name, o, &url);
	int r = get_url(s, name, &url, &body, e);
	if (r == 0)
		r = report_sums_parse(name, buf_span(&body), sums, e);
	if (r == 0)
		r = guard_verdicts_parse(name, buf_span(&body), guard, e);
	return r;
}

/* --- all ------------------------------------------------------------------------------------------------ */

static int ask_all(const struct status_sources *s, const struct report_options *o, struct told *t,
		   struct err *e)
{
	int r = 0;
	for (size_t i = 0; r == 0 && i < s->n; i++) {
		const char *name = s->all[i].name;
		t->n = i + 1;
		if (s->all[i].router)
			r = told_by_router(s, name, o, &t->sums[i], &t->guard[i], e);
		else
			r = told_by_file(name, o, &t->sums[i], &t->guard[i], e);
	}
	return r;
}

static void told_release(struct told *t)
{
	for (size_t i = 0; i < t->n; i++) {
		report_sums_free(t->sums[i]);
		guard_verdicts_free(t->guard[i]);
	}
}

/* -EEXIST in the names that were given. */
static int check_doubles(const struct status_sources *s, const struct told *t, struct err *e)
{
	for (size_t i = 0; i < t->n; i++)
		for (size_t j = 0; j < i; j++)
			if (t->sums[i]->store[0] && strcmp(t->sums[i]->store, t->sums[j]->store) == 0)
				return err_set(e, -EEXIST, "%s: is listed twice (%s)", s->all[i].name,
					       s->all[j].name);
	return 0;
}

int status_sources_differ(const struct status_sources *s, struct err *e)
{
	struct told t = {.n = 0};
	const struct report_options nothing = {.since_us = clock_wall_us()}; /* only whose it is */
	int r = s->n > 1 ? ask_all(s, &nothing, &t, e) : 0;
	if (r == 0)
		r = check_doubles(s, &t, e);
	told_release(&t);
	return r;
}

int status_sources_report(const struct status_sources *s, const struct report_options *o, struct report **ret,
			  struct guard_verdicts **guard, struct err *e)
{
	struct told t = {.n = 0};
	int r = ask_all(s, o, &t, e);
	if (r == 0)
		r = check_doubles(s, &t, e);
	if (r == 0)
		r = report_merge(o, t.sums, t.n, ret, e);
	if (r == 0 && guard && (r = guard_verdicts_join(t.guard, t.n, guard)) < 0)
		err_set(e, r, "out of memory");
	told_release(&t);
	return r;
}
