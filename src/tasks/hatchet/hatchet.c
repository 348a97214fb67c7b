/*
 * Settings, the client's life, and the verbs that are one or two requests: cancel and health.
 */
#include "tasks/hatchet/hatchet.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/url.h"
#include "tasks/hatchet/hatchet_internal.h"
#include "tasks/hatchet/hatchet_message.h"
#include "tasks/hatchet/hatchet_token.h"

/* --- settings ------------------------------------------------------------------------------------------- */

static int find_token(const struct hatchet_settings *s, struct buf *text, struct span *ret, struct err *e)
{
	if (s->token && s->token[0]) {
		*ret = span_strip(span_of(s->token));
		return 0;
	}
	if (!s->token_file || !s->token_file[0])
		return err_set(e, -EINVAL, "no token: set HATCHET_CLIENT_TOKEN, or token_file");
	int r = file_read(s->token_file, 32768, text, e);
	if (r < 0)
		return err_prefix(e, r, "token_file");
	*ret = span_strip(buf_span(text));
	return ret->len ? 0 : err_set(e, -EINVAL, "token_file %s is empty", s->token_file);
}

static int check_expiry(const struct hatchet_claims *claims, struct err *e)
{
	char when[CLOCK_TEXT_MAX];
	if (!claims->expires_s || claims->expires_s * 1000000 > clock_wall_us())
		return 0;
	clock_format(claims->expires_s * 1000000, when);
	return err_set(e, -EINVAL,
		       "the token has expired (%s); make a new one in Hatchet under Settings, API Tokens",
		       when);
}

static int hatchet_set_url(struct hatchet_settings *s, struct span url, struct err *e)
{
	if (!url_without_slash(url).len)
		return err_set(e, -EINVAL, "the token names no server_url: set HATCHET_SERVER_URL");
	int r = task_setting_url(&s->url, url, e);
	return r < 0 ? err_prefix(e, r, "server_url must look like http://host:port") : 0;
}

/* --- where workers listen: only they need it ------------------------------------------------------------ */

static int hatchet_check_grpc(const struct hatchet_settings *s, struct err *e)
{
	const char *tls = s->grpc_tls ? s->grpc_tls : "";
	if (s->grpc_address && strchr(s->grpc_address, '/'))
		return err_set(e, -EINVAL, "grpc_address must look like host:port");
	if (*tls && strcmp(tls, "tls") != 0 && strcmp(tls, "none") != 0 && strcmp(tls, "mtls") != 0)
		return err_set(e, -EINVAL, "grpc_tls must be tls or none");
	return 0;
}

/* An engine whose REST interface has no TLS is rarely one whose gRPC has it. */
static bool hatchet_grpc_has_tls(const struct hatchet_settings *s)
{
	if (s->grpc_tls && s->grpc_tls[0])
		return strcmp(s->grpc_tls, "tls") == 0;
	return strncmp(s->url, "https:", 6) == 0;
}

int hatchet_grpc_place(const struct hatchet_settings *s, const char **ret_address, bool *ret_tls,
		       struct err *e)
{
	*ret_address = s->grpc_address && s->grpc_address[0] ? s->grpc_address : s->grpc_of_token;
	*ret_tls = hatchet_grpc_has_tls(s);
	if (s->grpc_tls && strcmp(s->grpc_tls, "mtls") == 0)
		return err_set(e, -EINVAL, "grpc_tls: certificates of clients (mtls) are not supported");
	return **ret_address
		       ? 0
		       : err_set(e, -EINVAL, "the token names no gRPC address: set HATCHET_CLIENT_HOST_PORT");
}

/* --- checking ------------------------------------------------------------------------------------------- */

/* What it will be asked to run, by the engine's names. */
static int put_workflows(struct hatchet_settings *s, const struct task_backend_setup *setup)
{
	CLEANUP(buf_releasep) struct buf names = BUF_INIT(1u << 20);
	for (size_t i = 0; i < setup->n_calls; i++)
		buf_printf(&names, "%s%.*s%s", i ? "," : "", SPAN_ARG(setup->calls[i].task),
			   setup->calls[i].workflow ? "" : "_workflow");
	s->workflows = names.error ? NULL : buf_steal(&names);
	return s->workflows ? 0 : -ENOMEM;
}

static void set_times(struct hatchet_settings *s)
{
	s->request_ms = s->request_ms ? s->request_ms : 30000;
	s->name_ms = s->name_ms ? s->name_ms : 60000;
	s->grace_ms = s->grace_ms ? s->grace_ms : 10000;
	s->flicker_ms = s->flicker_ms ? s->flicker_ms : 1000;
}

static int settings_check(struct task_options *base, const struct task_backend_setup *setup, struct err *e)
{
	struct hatchet_settings *s = (struct hatchet_settings *)base;
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(1u << 20);
	struct hatchet_claims claims;
	struct span token;
	int r = find_token(s, &text, &token, e);
	if (r < 0 || (r = hatchet_token_read(token, &claims, e)) < 0 || (r = check_expiry(&claims, e)) < 0 ||
	    (r = hatchet_set_url(
		     s, span_of(s->server_url && s->server_url[0] ? s->server_url : claims.server_url), e)) <
		    0 ||
	    (r = hatchet_check_grpc(s, e)) < 0)
		return r;
	memcpy(s->tenant, claims.tenant, sizeof(s->tenant));
	memcpy(s->grpc_of_token, claims.grpc_address, sizeof(s->grpc_of_token));
	s->expires_s = claims.expires_s;
	if (asprintf(&s->authorization, "Bearer %.*s", SPAN_ARG(token)) < 0)
		s->authorization = NULL;
	if (!s->authorization || put_workflows(s, setup) < 0)
		return err_set(e, -ENOMEM, "out of memory");
	set_times(s);
	return 0;
}

static void settings_release(struct task_options *base)
{
	struct hatchet_settings *s = (struct hatchet_settings *)base;
	free(s->token);
	free(s->token_file);
	free(s->server_url);
	free(s->ca_file);
	free(s->grpc_address);
	free(s->grpc_tls);
	free(s->grpc_ca_file);
	free(s->authorization);
	free(s->url);
	free(s->workflows);
}

#define FIELD(name) .offset = offsetof(struct hatchet_settings, name)
static const struct task_setting settings[] = {
	{.key = "token",
	 .set = task_setting_text,
	 FIELD(token),
	 .variables = {"HATCHET_CLIENT_TOKEN", "HATCHET_TOKEN"}},
	{.key = "token_file", .path = true, .set = task_setting_text, FIELD(token_file)},
	{.key = "server_url",
	 .set = task_setting_text,
	 FIELD(server_url),
	 .variables = {"HATCHET_SERVER_URL", "HATCHET_CLIENT_SERVER_URL"}},
	{.key = "ca_file", .path = true, .set = task_setting_text, FIELD(ca_file)},
	{.key = "grpc_address",
	 .set = task_setting_text,
	 FIELD(grpc_address),
	 .variables = {"HATCHET_CLIENT_HOST_PORT"}},
	{.key = "grpc_tls",
	 .set = task_setting_text,
	 FIELD(grpc_tls),
	 .variables = {"HATCHET_CLIENT_TLS_STRATEGY"}},
	{.key = "grpc_ca_file",
	 .path = true,
	 .set = task_setting_text,
	 FIELD(grpc_ca_file),
	 .variables = {"HATCHET_CLIENT_TLS_ROOT_CA_FILE"}},
	{.key = NULL},
};

/* --- client --------------------------------------------------------------------------------------------- */

static int hatchet_client_new(struct loop *loop, const struct task_options *options, struct task_client **ret,
			      struct err *e)
{
	const struct hatchet_settings *s = (const struct hatchet_settings *)options;
	struct hatchet_client *c = calloc(1, sizeof(*c));
	if (!c)
		return err_set(e, -ENOMEM, "out of memory");
	struct http_client_options o = {.ca_file = s->ca_file};
	task_client_init(&c->base, &hatchet_backend, loop);
	c->settings = s;
	for (size_t i = 0; i < HATCHET_LANES; i++)
		TAILQ_INIT(&c->lanes[i].queue);
	int r = http_client_new(loop, &o, &c->http, e);
	if (r < 0) {
		free(c);
		return r;
	}
	*ret = &c->base;
	return 0;
}

static void hatchet_client_free(struct task_client *base)
{
	struct hatchet_client *c = (struct hatchet_client *)base;
	c->closing = true; /* what waits for its turn is dropped, not sent */
	while (!LIST_EMPTY(&c->operations))
		hatchet_operation_free(LIST_FIRST(&c->operations));
	hatchet_names_free(c);
	http_client_free(c->http);
	free(c);
}

/* --- cancel --------------------------------------------------------------------------------------------- */

struct cancellation {
	struct hatchet_operation op;
	task_done_fn fn;
	void *arg;
};

static void hatchet_on_cancelled(struct hatchet_operation *op, const struct http_reply *r)
{
	struct cancellation *x = (struct cancellation *)op;
	struct err why = {""};
	int error = 0;
	hatchet_operation_end(op);
	if (r->failure == HTTP_OK && r->status == 400)
		error = hatchet_problem(op->client, r, TASK_E_NOT_FOUND, &why); /* no id of the engine's */
	else if (r->failure != HTTP_OK || r->status != 200)
		error = hatchet_problem(op->client, r, TASK_E_UNREACHABLE, &why);
	x->fn(x->arg, error, &why);
	hatchet_operation_free(op);
}

/* Ids that the engine does not know are echoed like the others: it cannot tell. */
static void hatchet_client_cancel(struct task_client *base, struct span task_id, task_done_fn fn, void *arg)
{
	struct hatchet_client *c = (struct hatchet_client *)base;
	CLEANUP(buf_releasep) struct buf path = BUF_INIT(1024), body = BUF_INIT(1024);
	char id[TASK_ID_MAX];
	struct cancellation *x = hatchet_operation_new(c, sizeof(*x));
	if (!x) {
		struct err why;
		fn(arg, err_set(&why, -ENOMEM, "out of memory"), &why);
		return;
	}
	x->fn = fn;
	x->arg = arg;
	span_copy(task_id, id, sizeof(id));
	hatchet_put_tenant(c, &path, true);
	buf_puts(&path, "/tasks/cancel");
	buf_printf(&body, "{\"externalIds\":[\"");
	buf_put_segment(&body, span_of(id)); /* no quotes, whatever it is */
	buf_puts(&body, "\"]}");
	hatchet_ask(&x->op, "POST", &path, buf_span(&body), false, hatchet_on_cancelled);
}

/* --- health --------------------------------------------------------------------------------------------- */

struct examination {
	struct hatchet_operation op;
	task_health_fn fn;
	void *arg;
	struct task_health health;
};

static void hatchet_tell_health(struct examination *x)
{
	hatchet_operation_end(&x->op);
	x->fn(x->arg, &x->health);
	hatchet_operation_free(&x->op);
}

static void fail_health(struct examination *x, const struct http_reply *r)
{
	struct err why;
	hatchet_problem(x->op.client, r, 0, &why);
	span_copy(span_of(why.text), x->health.detail, sizeof(x->health.detail));
	hatchet_tell_health(x);
}

static void ask_tenant(struct examination *x, const char *what, hatchet_reply_fn fn)
{
	CLEANUP(buf_releasep) struct buf path = BUF_INIT(1024);
	hatchet_put_tenant(x->op.client, &path, false);
	buf_puts(&path, what);
	hatchet_ask(&x->op, "GET", &path, SPAN_NONE, false, fn);
}

static void on_metrics(struct hatchet_operation *op, const struct http_reply *r)
{
	struct examination *x = (struct examination *)op;
	if (r->failure == HTTP_OK && r->status == 200)
		x->health.backlog = hatchet_read_backlog(r->body);
	hatchet_tell_health(x);
}

static void hatchet_on_workers(struct hatchet_operation *op, const struct http_reply *r)
{
	struct examination *x = (struct examination *)op;
	struct span missing;
	if (r->failure != HTTP_OK || r->status != 200) {
		x->health.reachable = r->failure == HTTP_OK && r->status != 403 && r->status < 500;
		fail_health(x, r);
		return;
	}
	x->health.worker = hatchet_read_workers(r->body, span_of(op->client->settings->workflows), &missing);
	if (!x->health.worker && missing.len)
		snprintf(x->health.detail, sizeof(x->health.detail),
			 "no active worker serves the workflow %.*s", SPAN_ARG(missing));
	else if (!x->health.worker)
		snprintf(x->health.detail, sizeof(x->health.detail), "no worker is active");
	ask_tenant(x, "/step-run-queue-metrics", on_metrics);
}

static void hatchet_on_ready(struct hatchet_operation *op, const struct http_reply *r)
{
	struct examination *x = (struct examination *)op;
	x->health.reachable = r->failure == HTTP_OK && r->status == 200;
	if (x->health.reachable)
		ask_tenant(x, "/worker?statuses=ACTIVE", hatchet_on_workers);
	else
		fail_health(x, r);
}

static void hatchet_client_health(struct task_client *base, task_health_fn fn, void *arg)
{
	struct hatchet_client *c = (struct hatchet_client *)base;
	CLEANUP(buf_releasep) struct buf path = BUF_INIT(64);
	struct examination *x = hatchet_operation_new(c, sizeof(*x));
	if (!x) {
		struct task_health h = {.backlog = -1, .detail = "out of memory"};
		fn(arg, &h);
		return;
	}
	x->fn = fn;
	x->arg = arg;
	x->health.backlog = -1;
	buf_puts(&path, "/api/ready");
	hatchet_ask(&x->op, "GET", &path, SPAN_NONE, false, hatchet_on_ready);
}

const struct task_backend hatchet_backend = {
	.name = "hatchet",
	.max_input = HATCHET_MAX_INPUT,
	.settings = settings,
	.options_size = sizeof(struct hatchet_settings),
	.options_check = settings_check,
	.options_release = settings_release,
	.client_new = hatchet_client_new,
	.client_free = hatchet_client_free,
	.submit = hatchet_submit,
	.wait = hatchet_wait,
	.wait_cancel = hatchet_wait_cancel,
	.get = hatchet_get,
	.cancel = hatchet_client_cancel,
	.health = hatchet_client_health,
	.check = hatchet_check,
};
