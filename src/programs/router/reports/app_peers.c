#include "programs/router/reports/app_peers.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/http_client.h"
#include "base/json.h"
#include "base/loop.h"
#include "base/text.h"
#include "base/url.h"
#include "outcomes/report_sums.h"
#include "programs/router/app_internal.h"

#define TOKEN_MAX 4096
#define QUERY_MAX 4096

/* One peer while it is asked. */
struct peer {
	struct peers *all;
	const struct router_peer *configured;
	struct peer_told *told;
	struct http_call *call;
	struct report_sums *sums;
	struct guard_verdicts *guard;
};

struct peers {
	struct loop *loop;
	struct http_client *client;
	struct loop_timer *deadline;
	int64_t began_ms;
	size_t waiting;
	struct peer list[CONFIG_MAX_ROUTERS];
	size_t n;
};

/* --- one peer ------------------------------------------------------------------------------------------- */

static void peer_fail(struct peer *p, enum peer_state state, const char *why)
{
	p->told->state = state;
	text_copy(span_of(why), p->told->why, sizeof(p->told->why));
}

static void peer_take(struct peer *p, const struct http_reply *reply)
{
	struct err e = {""};
	char why[96];
	if (reply->failure != HTTP_OK) {
		peer_fail(p, PEER_UNREACHABLE, reply->detail);
	} else if (reply->status == 401 || reply->status == 403) {
		peer_fail(p, PEER_REFUSED, "it requires a token (routers: token_file)");
	} else if (reply->status != 200) {
		snprintf(why, sizeof(why), "it answered %d", reply->status);
		peer_fail(p, PEER_NOT_UNDERSTOOD, why);
	} else if (report_sums_parse(p->told->name, reply->body, &p->sums, &e) < 0 ||
		   guard_verdicts_parse(p->told->name, reply->body, &p->guard, &e) < 0) {
		peer_fail(p, PEER_NOT_UNDERSTOOD, e.text);
	} else {
		p->told->state = PEER_OK;
		p->told->why[0] = '\0';
	}
}

static void peer_ended(struct peer *p)
{
	p->call = NULL;
	p->told->took_ms = clock_mono_ms() - p->all->began_ms;
	if (--p->all->waiting == 0)
		loop_stop(p->all->loop);
}

static void peer_on_done(void *arg, const struct http_reply *reply)
{
	struct peer *p = arg;
	peer_take(p, reply);
	peer_ended(p);
}

/* Read each time: tokens are replaced while routers run. */
static int peer_bearer(const struct router_peer *peer, struct buf *bearer, struct err *e)
{
	CLEANUP(buf_releasep) struct buf token = BUF_INIT(TOKEN_MAX + 65536);
	int r = peer->token_file ? file_read(peer->token_file, TOKEN_MAX, &token, e) : 0;
	struct span text = token.len ? span_strip(buf_span(&token)) : SPAN_NONE;
	if (r < 0 || !text.len)
		return r;
	buf_puts(bearer, "Bearer ");
	return buf_append_span(bearer, text);
}

static int peer_ask(struct peer *p, const char *query, struct err *e)
{
	CLEANUP(buf_releasep) struct buf url = BUF_INIT(QUERY_MAX + 4096), bearer = BUF_INIT(TOKEN_MAX + 16);
	int r = peer_bearer(p->configured, &bearer, e);
	if (r < 0)
		return r;
	buf_printf(&url, "%.*s%s", SPAN_ARG(url_without_slash(span_of(p->configured->url))), query);
	buf_terminate(&url);
	if (url.error)
		return err_set(e, url.error, "the URL is too long");
	struct http_field field = {SPAN_LIT("Authorization"), buf_span(&bearer)};
	const struct http_call_request q = {.method = "GET",
					    .url = url.ptr,
					    .fields = &field,
					    .n_fields = bearer.len > 0,
					    .ca_file = p->configured->ca_file,
					    .timeout_ms = PEERS_MS,
					    .max_body = PEERS_ANSWER_MAX};
	const struct http_events events = {.arg = p, .done = peer_on_done};
	return http_start(p->all->client, &q, &events, &p->call, e);
}

/* Of the process, by their place in the list, which stays until a restart. */
static _Atomic int64_t peers_missing_since[CONFIG_MAX_ROUTERS];
static atomic_uint peers_being_asked;

static void peers_note_missing(struct peers *all)
{
	for (size_t i = 0; i < all->n; i++) {
		int64_t since = 0, now = clock_wall_us();
		if (all->list[i].told->state <= PEER_ITSELF)
			atomic_store(&peers_missing_since[i], 0);
		else if (atomic_compare_exchange_strong(&peers_missing_since[i], &since, now))
			all->list[i].told->since_us = now;
		else
			all->list[i].told->since_us = since;
	}
}

/* --- all of them ---------------------------------------------------------------------------------------- */

static void peers_put(struct buf *query, const char *name, const char *value)
{
	if (!value)
		return;
	buf_printf(query, "&%s=", name);
	for (const unsigned char *c = (const unsigned char *)value; *c; c++) {
		bool plain = (*c >= '0' && *c <= '9') || (*c >= 'A' && *c <= 'Z') ||
			     (*c >= 'a' && *c <= 'z') || strchr("-_.~", *c);
		buf_printf(query, plain ? "%c" : "%%%02X", *c);
	}
}

/* Its own sums: a peer asks nobody on. */
static void peers_query(const struct report_options *o, struct buf *query)
{
	char since[CLOCK_TEXT_MAX], until[CLOCK_TEXT_MAX];
	if (o->since_us)
		clock_format(o->since_us, since);
	if (o->until_us)
		clock_format(o->until_us, until);
	buf_puts(query, "/_admin/report.json?form=sums");
	peers_put(query, "since", o->since_us ? since : NULL);
	peers_put(query, "until", o->until_us ? until : NULL);
	peers_put(query, "service", o->service);
	peers_put(query, "operation", o->operation);
	peers_put(query, "org", o->organization);
	buf_terminate(query);
}

static void peers_on_deadline(void *arg)
{
	struct peers *all = arg;
	for (size_t i = 0; i < all->n; i++)
		if (all->list[i].call) {
			all->list[i].call = http_cancel(all->list[i].call);
			peer_fail(&all->list[i], PEER_UNREACHABLE, "no answer in time");
			all->list[i].told->took_ms = clock_mono_ms() - all->began_ms;
		}
	loop_stop(all->loop);
}

static void peers_run(struct peers *all, const char *query)
{
	struct err e;
	all->began_ms = clock_mono_ms();
	for (size_t i = 0; i < all->n; i++) {
		all->waiting++;
		if (peer_ask(&all->list[i], query, &e) == 0)
			continue;
		peer_fail(&all->list[i], PEER_UNREACHABLE, e.text);
		all->waiting--;
	}
	if (!all->waiting)
		return;
	loop_timer_start(all->deadline, PEERS_MS);
	loop_run(all->loop);
}

/* Without memory or a loop all of them stay unreachable, and say so. */
static void peers_ask(struct peers *all, const struct report_options *o)
{
	CLEANUP(buf_releasep) struct buf query = BUF_INIT(QUERY_MAX);
	struct err e = {"out of memory"};
	peers_query(o, &query);
	if (!all->n || query.error || loop_new(&all->loop) < 0)
		return;
	if (http_client_new(all->loop, &(struct http_client_options){0}, &all->client, &e) == 0 &&
	    loop_timer_new(all->loop, peers_on_deadline, all, &all->deadline) == 0)
		peers_run(all, query.ptr);
	loop_timer_free(all->deadline);
	http_client_free(all->client);
	loop_free(all->loop);
}

/* A list that all routers share names this one, too; and an address may lead to one that is there already. */
static void peers_find_doubles(struct peers *all, const struct report_sums *own)
{
	for (size_t i = 0; i < all->n; i++) {
		struct peer *p = &all->list[i];
		if (!p->sums || !p->sums->store[0])
			continue;
		bool double_of = strcmp(p->sums->store, own->store) == 0;
		for (size_t j = 0; j < i && !double_of; j++)
			double_of =
				all->list[j].sums && strcmp(all->list[j].sums->store, p->sums->store) == 0;
		if (!double_of)
			continue;
		p->told->state = PEER_ITSELF;
		p->sums = report_sums_free(p->sums);
		p->guard = guard_verdicts_free(p->guard);
	}
}

static int peers_merge(const struct peers *all, const struct report_options *o, struct report_sums *own,
		       struct guard_verdicts *guard, struct peers_told *t, struct err *e)
{
	struct report_sums *sums[CONFIG_MAX_ROUTERS + 1] = {own};
	struct guard_verdicts *verdicts[CONFIG_MAX_ROUTERS + 1] = {guard};
	size_t n = 1;
	for (size_t i = 0; i < all->n; i++)
		if (all->list[i].sums) {
			verdicts[n] = all->list[i].guard;
			sums[n++] = all->list[i].sums;
		}
	int r = report_merge(o, sums, n, &t->report, e);
	if (r == 0 && (r = guard_verdicts_join(verdicts, n, &t->guard)) < 0)
		err_set(e, r, "out of memory");
	return r;
}

static void peers_begin(const struct app *a, struct peers *all, struct peers_told *t)
{
	const struct config *c = a->started;
	t->peers[t->n++] = (struct peer_told){.name = "this router", .state = PEER_HERE};
	for (size_t i = 0; i < c->n_routers; i++) {
		struct peer_told *told = &t->peers[t->n++];
		text_copy(span_of(c->routers[i].name), told->name, sizeof(told->name));
		text_copy(span_of(c->routers[i].url), told->url, sizeof(told->url));
		told->state = PEER_UNREACHABLE;
		snprintf(told->why, sizeof(told->why), "it could not be asked");
		all->list[all->n++] = (struct peer){.all = all, .configured = &c->routers[i], .told = told};
	}
}

static int peers_report(const struct app *a, const struct report_options *o, struct peers_told **ret,
			struct err *e)
{
	CLEANUP(peers_told_freep) struct peers_told *t = calloc(1, sizeof(*t));
	CLEANUP(freep) struct peers *all = calloc(1, sizeof(*all));
	CLEANUP(report_sums_freep) struct report_sums *own = NULL;
	CLEANUP(guard_verdicts_freep) struct guard_verdicts *guard = NULL;
	struct report_options mine = *o;
	if (!t || !all)
		return err_set(e, -ENOMEM, "out of memory");
	mine.path = a->outcomes_path;
	int r = report_sums_read(&mine, &own, e);
	if (r == 0)
		r = guard_verdicts_read(mine.path, o->service ? o->service : "",
					o->operation ? o->operation : "", &guard, e);
	if (r < 0)
		return r;
	peers_begin(a, all, t);
	peers_ask(all, o);
	peers_find_doubles(all, own);
	peers_note_missing(all);
	r = peers_merge(all, &mine, own, guard, t, e);
	t->whole = true;
	for (size_t i = 0; i < t->n; i++)
		t->whole = t->whole && t->peers[i].state <= PEER_ITSELF;
	for (size_t i = 0; i < all->n; i++) {
		report_sums_free(all->list[i].sums);
		guard_verdicts_free(all->list[i].guard);
	}
	if (r == 0)
		*ret = steal(t);
	return r;
}

int app_peers_report(const struct app *a, const struct report_options *o, struct peers_told **ret,
		     struct err *e)
{
	int r = -EBUSY;
	if (atomic_fetch_add(&peers_being_asked, 1) < PEERS_AT_ONCE)
		r = peers_report(a, o, ret, e);
	else
		err_set(e, r, "all routers are being asked for %d others already; ask again in %d s",
			PEERS_AT_ONCE, PEERS_MS / 1000);
	atomic_fetch_sub(&peers_being_asked, 1);
	return r;
}

struct peers_told *peers_told_free(struct peers_told *t)
{
	if (t) {
		report_free(t->report);
		guard_verdicts_free(t->guard);
		free(t);
	}
	return NULL;
}

const char *peer_state_text(enum peer_state s)
{
	static const char *const texts[] = {"here",	   "ok",      "itself",
					    "unreachable", "refused", "not_understood"};
	return texts[s];
}

int peers_told_into_json(const struct peers_told *t, struct buf *object)
{
	while (object->len && object->ptr[object->len - 1] != '}')
		object->len--;
	if (object->error || !object->len)
		return object->error;
	object->len--; /* opens the object again */
	buf_printf(object, ",\"whole\":%s,\"routers\":[", t->whole ? "true" : "false");
	for (size_t i = 0; i < t->n; i++) {
		const struct peer_told *p = &t->peers[i];
		buf_puts(object, i ? ",{\"name\":" : "{\"name\":");
		json_quote(object, span_of(p->name));
		buf_puts(object, ",\"url\":");
		json_quote(object, span_of(p->url));
		buf_printf(object, ",\"state\":\"%s\",\"why\":", peer_state_text(p->state));
		json_quote(object, span_of(p->why));
		buf_printf(object, ",\"took_ms\":%" PRId64 "}", p->took_ms);
	}
	return buf_puts(object, "]}\n");
}
