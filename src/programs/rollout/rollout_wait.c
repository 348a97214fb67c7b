#include "programs/rollout/rollout_wait.h"

#include <errno.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/http_client.h"
#include "base/json.h"

#define AGAIN_MS 20
#define CALL_MS 2000
#define ROUND_MS 250 /* how often the source is checked, for changes after this one */
#define TOKEN_MAX 4096

struct router {
	struct rollout_wait *wait;
	const char *url;
	char before[PLACE_DIGEST_MAX];	 /* what it had before the change; "" when it did not answer */
	char digest[PLACE_DIGEST_MAX];	 /* what it reported last */
	int64_t since_ms;		 /* when it did so first */
	char trouble[ERR_TEXT_MAX + 64]; /* why the last call failed; "" when it did not */
	bool answered, done;
	bool later; /* it has not this change's digest, but one that came after */
	struct http_call *call;
	struct loop_timer *again;
};

struct rollout_wait {
	struct rollout_place *place;
	const struct rollout_arguments *arguments;
	struct buf token;
	struct router routers[ADMIN_MAX];
	size_t n, waiting;		      /* for the first answer, then for the change */
	char wanted[PLACE_DIGEST_MAX];	      /* content; "" as long as it is not known */
	char wanted_digest[PLACE_DIGEST_MAX]; /* of routers that do not tell their content */
	struct loop_timer *round;
};

static void ask(void *arg);

static void settle(struct router *r)
{
	struct rollout_wait *w = r->wait;
	r->done = true;
	if (--w->waiting == 0)
		loop_stop(w->place->loop);
}

/* What it has: by content, since digests of the source can stand for several states; older routers tell
 * the digest alone. */
static bool digest_of(const struct http_reply *reply, struct span *ret)
{
	if (json_pointer(reply->body, SPAN_LIT("/content"), ret) && ret->len > 2)
		return true;
	return json_pointer(reply->body, SPAN_LIT("/digest"), ret) && ret->len >= 2;
}

static void note_digest(struct router *r, const struct http_reply *reply)
{
	struct span value;
	char digest[PLACE_DIGEST_MAX] = "";
	r->trouble[0] = '\0';
	if (reply->failure != HTTP_OK)
		snprintf(r->trouble, sizeof(r->trouble), "does not answer: %s", reply->detail);
	else if (reply->status == 401 || reply->status == 403)
		snprintf(r->trouble, sizeof(r->trouble), "answers %d: --admin-token-file is needed, or wrong",
			 reply->status);
	else if (reply->status != 200 || !digest_of(reply, &value))
		snprintf(r->trouble, sizeof(r->trouble),
			 "answers %d without a digest: is it a router's admin address?", reply->status);
	else
		span_copy((struct span){value.ptr + 1, value.len - 2}, digest, sizeof(digest));
	if (!*digest || strcmp(digest, r->digest) == 0)
		return;
	memcpy(r->digest, digest, sizeof(r->digest));
	r->since_ms = clock_mono_ms();
}

static bool has_change(const struct router *r)
{
	const struct rollout_wait *w = r->wait;
	return *w->wanted && !*r->trouble &&
	       (strcmp(r->digest, w->wanted) == 0 || strcmp(r->digest, w->wanted_digest) == 0);
}

static void took_answer(struct router *r)
{
	bool first = !r->answered;
	r->answered = true;
	if (first)
		memcpy(r->before, r->digest, sizeof(r->before));
	if (!r->done && (first || has_change(r)))
		settle(r);
	loop_timer_start(r->again, AGAIN_MS);
}

static void on_answer(void *arg, const struct http_reply *reply)
{
	struct router *r = arg;
	r->call = NULL;
	note_digest(r, reply);
	took_answer(r);
}

static void ask(void *arg)
{
	struct router *r = arg;
	const struct buf *token = &r->wait->token;
	CLEANUP(freep) char *url = NULL, *bearer = NULL;
	struct err e = {"out of memory"};
	size_t length = strlen(r->url);
	while (length && r->url[length - 1] == '/')
		length--;
	bool made = asprintf(&url, "%.*s/_admin/flags", (int)length, r->url) >= 0;
	bool bears =
		token->len && asprintf(&bearer, "Bearer %.*s", SPAN_ARG(span_trim(buf_span(token)))) >= 0;
	struct http_field field = {SPAN_LIT("Authorization"), span_of(bearer)};
	struct http_call_request q = {.method = "GET",
				      .url = url,
				      .fields = &field,
				      .n_fields = bears,
				      .timeout_ms = CALL_MS,
				      .may_resend = true};
	struct http_events events = {.arg = r, .done = on_answer};
	if (made && http_start(r->wait->place->http, &q, &events, &r->call, &e) == 0)
		return;
	snprintf(r->trouble, sizeof(r->trouble), "cannot be asked: %s", e.text);
	took_answer(r);
}

static void on_round(void *arg)
{
	struct rollout_wait *w = arg;
	loop_stop(w->place->loop);
}

static int start(struct rollout_wait *w, struct err *e)
{
	int r = loop_timer_new(w->place->loop, on_round, w, &w->round);
	w->n = w->waiting = w->arguments->n_admin;
	for (size_t i = 0; r == 0 && i < w->n; i++) {
		w->routers[i] = (struct router){.wait = w, .url = w->arguments->admin[i]};
		r = loop_timer_new(w->place->loop, ask, &w->routers[i], &w->routers[i].again);
	}
	for (size_t i = 0; r == 0 && i < w->n; i++)
		ask(&w->routers[i]);
	while (r == 0 && w->waiting)
		r = loop_run(w->place->loop);
	return r < 0 ? err_set(e, r, "waiting for routers: %s", strerror(-r)) : 0;
}

static int read_token(struct rollout_wait *w, struct err *e)
{
	struct buf *token = &w->token;
	int r = w->arguments->admin_token_file
			? file_read(w->arguments->admin_token_file, TOKEN_MAX, token, e)
			: 0;
	while (token->len && (token->ptr[token->len - 1] == '\n' || token->ptr[token->len - 1] == '\r'))
		token->ptr[--token->len] = '\0';
	return r;
}

int wait_begin(struct rollout_place *p, const struct rollout_arguments *a, struct rollout_wait **ret,
	       struct err *e)
{
	struct rollout_wait *w = calloc(1, sizeof(*w));
	if (!w)
		return err_set(e, -ENOMEM, "out of memory");
	*ret = w;
	w->place = p;
	w->arguments = a;
	w->token = BUF_INIT(TOKEN_MAX + 65536);
	int r = read_token(w, e);
	if (r == 0)
		r = start(w, e);
	for (size_t i = 0; r == 0 && i < w->n; i++)
		if (*w->routers[i].trouble)
			fprintf(stderr, "warning: %s %s\n", w->routers[i].url, w->routers[i].trouble);
	return r;
}

struct rollout_wait *wait_end(struct rollout_wait *w)
{
	if (!w)
		return NULL;
	for (size_t i = 0; i < w->n; i++) {
		http_cancel(w->routers[i].call);
		loop_timer_free(w->routers[i].again);
	}
	loop_timer_free(w->round);
	buf_release(&w->token);
	free(w);
	return NULL;
}

/* Someone may have made a further change, so that a router shows neither the digest that it had nor this
 * one: where it is what the source has by now, this change has been there before it. */
static void look_for_later(struct rollout_wait *w)
{
	bool other = false;
	struct err e;
	for (size_t i = 0; i < w->n; i++) {
		const struct router *r = &w->routers[i];
		other |= !r->done && *r->digest && strcmp(r->digest, r->before) != 0;
	}
	if (!other || place_read(w->place, &e) < 0)
		return;
	for (size_t i = 0; i < w->n; i++) {
		struct router *r = &w->routers[i];
		bool now =
			strcmp(r->digest, w->place->content) == 0 || strcmp(r->digest, w->place->digest) == 0;
		if (r->done || !now || strcmp(r->digest, r->before) == 0)
			continue;
		r->later = true;
		settle(r);
	}
}

static int tell(const struct rollout_wait *w, int64_t since_ms)
{
	int result = 0;
	for (size_t i = 0; i < w->n; i++) {
		const struct router *r = &w->routers[i];
		if (r->done) {
			int64_t took_ms = r->since_ms > since_ms ? r->since_ms - since_ms : 0;
			printf("%s: in effect after %lld ms%s\n", r->url, (long long)took_ms,
			       r->later ? " (with a later change)" : "");
			continue;
		}
		result = MOVE_NOT_AS_ASKED;
		fflush(stdout);
		const char *state = "has neither the old flags nor these";
		if (*r->trouble)
			state = r->trouble;
		else if (strcmp(r->digest, r->before) == 0)
			state = "still has the flags from before the change";
		fprintf(stderr, "%s: not in effect after %lld ms: it %s\n", r->url,
			(long long)(clock_mono_ms() - since_ms), state);
	}
	return result;
}

int wait_routers(struct rollout_wait *w, int64_t since_ms)
{
	int64_t until_ms = clock_mono_ms() + (int64_t)w->arguments->timeout_s * 1000;
	int r = 0;
	memcpy(w->wanted, w->place->content, sizeof(w->wanted));
	memcpy(w->wanted_digest, w->place->digest, sizeof(w->wanted_digest));
	for (size_t i = 0; i < w->n; i++) {
		w->routers[i].done = has_change(&w->routers[i]);
		w->waiting += !w->routers[i].done;
	}
	while (r == 0 && w->waiting && clock_mono_ms() < until_ms) {
		int64_t left_ms = until_ms - clock_mono_ms();
		if (left_ms > ROUND_MS)
			left_ms = ROUND_MS;
		loop_timer_start(w->round, (uint64_t)(left_ms < 1 ? 1 : left_ms));
		r = loop_run(w->place->loop);
		if (r == 0 && w->waiting)
			look_for_later(w);
	}
	return tell(w, since_ms);
}
