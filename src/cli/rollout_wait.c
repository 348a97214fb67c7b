#include "cli/rollout_wait.h"

#include <errno.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/http_client.h"
#include "base/json.h"

#define AGAIN_MS 20
#define CALL_MS 2000
#define ROUND_MS 250 /* how often the source is looked at, for changes after this one */
#define TOKEN_MAX 4096

struct crowd;

struct router {
	struct crowd *crowd;
	const char *url;
	const char *before;
	char digest[PLACE_DIGEST_MAX]; /* the last one that it reported */
	char trouble[ERR_TEXT_MAX + 64]; /* why the last call failed; "" when it did not */
	bool done;
	bool later; /* it has not this change's digest, but one that came after */
	int64_t took_ms;
	struct http_call *call;
	struct loop_timer *again;
};

struct crowd {
	struct rollout_place *place;
	const struct rollout_wait *wait;
	struct router routers[ADMIN_MAX];
	size_t n, waiting;
	bool once; /* ask each only once */
	char wanted[PLACE_DIGEST_MAX];
	int64_t since_ms;
	struct loop_timer *round;
};

static void ask(void *arg);

static void settle(struct router *r)
{
	r->done = true;
	r->took_ms = clock_mono_ms() - r->crowd->since_ms;
	if (--r->crowd->waiting == 0)
		loop_stop(r->crowd->place->loop);
}

static void note_digest(struct router *r, const struct http_reply *reply)
{
	struct span value;
	r->trouble[0] = '\0';
	if (reply->failure != HTTP_OK)
		snprintf(r->trouble, sizeof(r->trouble), "does not answer: %s", reply->detail);
	else if (reply->status == 401 || reply->status == 403)
		snprintf(r->trouble, sizeof(r->trouble), "answers %d: --admin-token-file is needed, or wrong", reply->status);
	else if (reply->status != 200 || !json_pointer(reply->body, SPAN_LIT("/digest"), &value) || value.len < 2)
		snprintf(r->trouble, sizeof(r->trouble), "answers %d without a digest: is it a router's admin address?", reply->status);
	else
		span_copy((struct span){value.ptr + 1, value.len - 2}, r->digest, sizeof(r->digest));
}

static void on_answer(void *arg, const struct http_reply *reply)
{
	struct router *r = arg;
	r->call = NULL;
	note_digest(r, reply);
	if (r->crowd->once || (!*r->trouble && strcmp(r->digest, r->crowd->wanted) == 0))
		settle(r);
	else
		loop_timer_start(r->again, AGAIN_MS);
}

static void ask(void *arg)
{
	struct router *r = arg;
	const struct buf *token = &r->crowd->wait->token;
	CLEANUP(freep) char *url = NULL, *bearer = NULL;
	struct err e = {"out of memory"};
	size_t length = strlen(r->url);
	while (length && r->url[length - 1] == '/')
		length--;
	bool made = asprintf(&url, "%.*s/_admin/flags", (int)length, r->url) >= 0;
	bool bears = token->len && asprintf(&bearer, "Bearer %.*s", SPAN_ARG(span_trim(buf_span(token)))) >= 0;
	struct http_field field = {SPAN_LIT("Authorization"), span_of(bearer)};
	struct http_request q = {.method = "GET", .url = url, .fields = &field, .n_fields = bears, .timeout_ms = CALL_MS,
				 .may_resend = true};
	struct http_events events = {.arg = r, .done = on_answer};
	if (made && http_start(r->crowd->place->http, &q, &events, &r->call, &e) == 0)
		return;
	snprintf(r->trouble, sizeof(r->trouble), "cannot be asked: %s", e.text);
	settle(r);
}

static void on_round(void *arg)
{
	struct crowd *c = arg;
	loop_stop(c->place->loop);
}

static int crowd_start(struct crowd *c, struct err *e)
{
	int r = loop_timer_new(c->place->loop, on_round, c, &c->round);
	for (size_t i = 0; r == 0 && i < c->n; i++) {
		c->routers[i].crowd = c;
		c->routers[i].url = c->wait->arguments->admin[i];
		c->routers[i].before = c->wait->before[i];
		r = loop_timer_new(c->place->loop, ask, &c->routers[i], &c->routers[i].again);
	}
	if (r < 0)
		return err_set(e, r, "out of memory");
	c->waiting = c->n;
	for (size_t i = 0; i < c->n; i++)
		ask(&c->routers[i]);
	return 0;
}

static void crowd_stop(struct crowd *c)
{
	for (size_t i = 0; i < c->n; i++) {
		http_cancel(c->routers[i].call);
		loop_timer_free(c->routers[i].again);
	}
	loop_timer_free(c->round);
}

int wait_prepare(struct rollout_place *p, const struct rollout_arguments *a, struct rollout_wait *w, struct err *e)
{
	struct crowd c = {.place = p, .wait = w, .n = a->n_admin, .once = true, .since_ms = clock_mono_ms()};
	*w = (struct rollout_wait){.arguments = a, .token = BUF_INIT(TOKEN_MAX + 65536)};
	int r = a->admin_token_file ? file_read(a->admin_token_file, TOKEN_MAX, &w->token, e) : 0;
	while (w->token.len && (w->token.ptr[w->token.len - 1] == '\n' || w->token.ptr[w->token.len - 1] == '\r'))
		w->token.ptr[--w->token.len] = '\0';
	if (r == 0)
		r = crowd_start(&c, e);
	while (r == 0 && c.waiting)
		r = loop_run(p->loop);
	for (size_t i = 0; i < c.n; i++) {
		memcpy(w->before[i], c.routers[i].digest, sizeof(w->before[i]));
		if (*c.routers[i].trouble)
			fprintf(stderr, "warning: %s %s\n", a->admin[i], c.routers[i].trouble);
	}
	crowd_stop(&c);
	return r;
}

void wait_release(struct rollout_wait *w)
{
	buf_release(&w->token);
}

/* Somebody may have made a further change, so that a router shows neither the digest that it had nor this one: where it is what the
 * source has by now, this change has been there before it. */
static void look_for_later(struct crowd *c)
{
	bool other = false;
	struct err e;
	for (size_t i = 0; i < c->n; i++) {
		const struct router *r = &c->routers[i];
		other |= !r->done && *r->digest && strcmp(r->digest, r->before) != 0 && strcmp(r->digest, c->wanted) != 0;
	}
	if (!other || place_read(c->place, &e) < 0)
		return;
	for (size_t i = 0; i < c->n; i++) {
		struct router *r = &c->routers[i];
		if (r->done || strcmp(r->digest, c->place->digest) != 0 || strcmp(r->digest, r->before) == 0)
			continue;
		r->later = true;
		loop_timer_stop(r->again);
		r->call = http_cancel(r->call);
		settle(r);
	}
}

static int tell(const struct crowd *c)
{
	int result = 0;
	for (size_t i = 0; i < c->n; i++) {
		const struct router *r = &c->routers[i];
		if (r->done && !*r->trouble) {
			printf("%s: in effect after %lld ms%s\n", r->url, (long long)r->took_ms, r->later ? " (with a later change)" : "");
			continue;
		}
		result = ROLLOUT_NOT_AS_ASKED;
		fflush(stdout);
		fprintf(stderr, "%s: not in effect after %lld ms: it %s\n", r->url, (long long)(clock_mono_ms() - c->since_ms),
			*r->trouble ? r->trouble : strcmp(r->digest, r->before) == 0 ? "still has the flags of before the change" :
										       "has flags that are neither those of before nor these");
	}
	return result;
}

int wait_routers(struct rollout_place *p, const struct rollout_wait *w, int64_t since_ms)
{
	const struct rollout_arguments *a = w->arguments;
	struct crowd c = {.place = p, .wait = w, .n = a->n_admin, .since_ms = since_ms};
	int64_t until_ms = clock_mono_ms() + (int64_t)a->timeout_s * 1000;
	struct err e = {""};
	memcpy(c.wanted, p->digest, sizeof(c.wanted));
	int r = crowd_start(&c, &e);
	while (r == 0 && c.waiting && clock_mono_ms() < until_ms) {
		int64_t left_ms = until_ms - clock_mono_ms();
		loop_timer_start(c.round, (uint64_t)(left_ms < 1 ? 1 : left_ms < ROUND_MS ? left_ms : ROUND_MS));
		r = loop_run(p->loop);
		if (r == 0 && c.waiting)
			look_for_later(&c);
	}
	if (r < 0)
		fprintf(stderr, "the routers could not be waited for: %s\n", e.text);
	int result = r < 0 ? ROLLOUT_NOT_AS_ASKED : tell(&c);
	crowd_stop(&c);
	return result;
}
