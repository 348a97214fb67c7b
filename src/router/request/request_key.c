/*
 * Idempotency-Key: who has the execution of a key, and what repeated requests get (design,
 * "Idempotency keys").
 *
 * Why:       the ledger decides who was first, by one insert; the flags only decide for the first. What is
 *            there without an answer is looked up at its backend, which is the one who knows.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/crypto.h"
#include "operation/auth.h"
#include "router/request/auth_ask.h"
#include "router/request/hold.h"
#include "router/request/request.h"

#define CLAIM_WAIT_MS 5000 /* for the ledger, where the caller waits for legacy */
/* Since its claim was made: before, its attempt may be about to submit; after, results may have been swept.
 * */
#define AGAIN_AFTER_US (10 * 1000000LL)
#define AGAIN_BEFORE_US (1800 * 1000000LL)
#define FIELDS_MAX 64 /* of an answer that is repeated */

int request_key_find(struct request *r, void (*serve_by_task)(struct request *r))
{
	struct idempotency_key_text text;
	if (!r->op->has_task || r->op->idempotency.use == IDEMPOTENCY_IGNORE)
		return 0;
	r->key_word = idempotency_key_find(r->http->fields, r->http->n_fields, &text);
	if (r->key_word != IDEMPOTENCY_KEY_FOUND)
		return 0;
	r->key = calloc(1, sizeof(*r->key));
	if (!r->key)
		return -ENOMEM;
	r->key->text = text;
	r->key->serve_by_task = serve_by_task;
	return 0;
}

static void count_key(struct request *r, enum key_result result)
{
	atomic_fetch_add_explicit(&r->plane->env->keys[result], 1, memory_order_relaxed);
}

/* --- what is asked for ---------------------------------------------------------------------------------- */

/* Whoever may come again with it: the same on both sides. */
static void ask_for(struct request *r, enum claim_side side)
{
	struct claim *c = &r->key->claim;
	struct auth_fingerprint who;
	char owner[CRYPTO_SHA256_HEX];
	enum auth_result known = auth_check(&r->op->auth, r->http->fields, r->http->n_fields, &who);
	auth_owner(&who, r->identity.organization, owner);
	*c = (struct claim){
		.side = side,
		.stranger = known == AUTH_ASK ? auth_ask_known(r, r->op) != AUTH_WORD_YES
					      : known != AUTH_ACCEPTED,
		.keep_us = (int64_t)r->op->idempotency.keep_ms * 1000,
	};
	memcpy(c->scope, owner, sizeof(c->scope));
	idempotency_digest(r->op->service, r->op->name, span_of(owner), span_of(r->key->text.text), c->key);
	crypto_random_id(c->token);
}

static void ask_for_task(struct request *r)
{
	struct claim *c = &r->key->claim;
	char id[CRYPTO_ID_HEX];
	ask_for(r, CLAIM_TASK);
	idempotency_fingerprint(r->http->method, r->http->target,
				r->body.len ? buf_span(&r->body) : SPAN_LIT(""), c->fingerprint);
	span_copy(r->backend, c->backend, sizeof(c->backend));
	if (r->client->backend->same_id_same_task)
		idempotency_task_id(c->key, c->fingerprint, id);
	else
		crypto_random_id(id);
	memcpy(c->task_id, id, sizeof(id));
}

/* --- refusals ------------------------------------------------------------------------------------------- */

static void begin_refusal(struct request *r)
{
	hold_end(r, BREAKER_UNJUDGED, NULL);
	if (!r->attempting)
		request_begin(r, OUTCOME_LEGACY, r->legacy_role, SPAN_NONE);
	r->timer = loop_timer_free(r->timer);
}

static void refuse_unknown(struct request *r)
{
	begin_refusal(r);
	count_key(r, KEY_UNKNOWN);
	r->decision.reason = REASON_PIN_UNKNOWN;
	request_refuse_for_now(
		r, OUTCOME_FAILURE, 503, "Idempotency key unknown",
		"Whether a request with this key has been executed cannot be determined right now; "
		"nothing was executed by this one.");
}

static void refuse_full(struct request *r, bool crowded)
{
	begin_refusal(r);
	count_key(r, KEY_REFUSED);
	log_warn("idempotency_keys_full", LOG_SPAN("service", r->op->service),
		 LOG_SPAN("operation", r->op->name), LOG_SPAN("request_id", r->request_id),
		 LOG_STR("whose", crowded ? "this organization and credential" : "all"));
	if (crowded)
		request_refuse_for_now(r, OUTCOME_REJECTED, 429, "Too many idempotency keys",
				       "The limit of remembered keys for this organization and credential is "
				       "reached; nothing was executed.");
	else
		request_refuse_for_now(r, OUTCOME_FAILURE, 503, "Too many idempotency keys",
				       "No more keys can be remembered right now; nothing was executed.");
}

static void refuse_running(struct request *r)
{
	begin_refusal(r);
	count_key(r, KEY_RUNNING);
	request_refuse_for_now(
		r, OUTCOME_REJECTED, 409, "Request in progress",
		"A request with this idempotency key is still being processed, or its outcome is not "
		"known yet; it is not executed again.");
}

static void refuse_other(struct request *r)
{
	begin_refusal(r);
	count_key(r, KEY_OTHER_REQUEST);
	request_fail(
		r, OUTCOME_REJECTED, 422, "Idempotency key reused",
		"This idempotency key belongs to a request with another method, target or body; nothing was "
		"executed.");
}

static void refuse_unkept(struct request *r)
{
	begin_refusal(r);
	count_key(r, KEY_RUNNING);
	request_fail(r, OUTCOME_REJECTED, 409, "Answer not kept",
		     "The request with this idempotency key was executed; its answer is no longer available. "
		     "It is not executed again.");
}

/* --- legacy is about to serve --------------------------------------------------------------------------- */

static void go_to_task(struct request *r, const struct claim *there)
{
	const struct backend_config *b = config_backend(r->service->config, span_of(there->backend));
	r->key->on_task = true;
	r->side = r->decision.side = OUTCOME_TASK;
	r->decision.reason = REASON_PINNED;
	if (!b) {
		request_refuse_pinned(r, OUTCOME_FAILURE, 503, "Task side unavailable",
				      "This call belongs to a task backend that is not configured here; "
				      "nothing was executed.");
		return;
	}
	r->decision.backend = b->name;
	r->key->serve_by_task(r);
}

struct legacy_wait {
	struct request *r;
	void (*go_on)(struct request *r);
	bool moves;
};

static void request_key_on_legacy(void *arg, const struct claim_told *told)
{
	struct legacy_wait w = *(struct legacy_wait *)arg;
	struct request *r = w.r;
	free(arg);
	if (!r->x || r->state != REQUEST_CLAIM) { /* the caller has left, or was told 503 */
		if (told->answer == CLAIM_MINE)
			claims_release(r->plane->env->claims, &told->claim);
		request_unref(r);
		return;
	}
	r->timer = loop_timer_free(r->timer);
	switch (told->answer) {
	case CLAIM_THERE:
		if (told->claim.side == CLAIM_TASK) {
			go_to_task(r, &told->claim);
			break;
		}
		r->decision.reason = REASON_PINNED;
		r->key->on_legacy = true;
		w.go_on(r);
		break;
	case CLAIM_MINE:
		if (!w.moves)
			count_key(r, KEY_BEGUN);
		r->key->on_legacy = true;
		w.go_on(r);
		break;
	case CLAIM_NONE:
		r->key->on_legacy = true;
		w.go_on(r);
		break;
	case CLAIM_LOST:
		refuse_running(r);
		break;
	case CLAIM_CROWDED:
	case CLAIM_FULL:
		refuse_full(r, told->answer == CLAIM_CROWDED);
		break;
	case CLAIM_UNKNOWN:
		refuse_unknown(r);
		break;
	}
	request_unref(r);
}

static void request_key_on_late(void *arg)
{
	refuse_unknown(arg);
}

void request_key_claim_legacy(struct request *r, void (*go_on)(struct request *r))
{
	struct claims *claims = r->plane->env->claims;
	struct loop *loop = r->plane->loop;
	struct legacy_wait *w = calloc(1, sizeof(*w));
	if (!w) {
		refuse_unknown(r);
		return;
	}
	*w = (struct legacy_wait){.r = request_ref(r), .go_on = go_on, .moves = r->key->mine};
	r->state = REQUEST_CLAIM;
	r->timer = loop_timer_free(r->timer);
	if (loop_timer_new(loop, request_key_on_late, r, &r->timer) == 0)
		loop_timer_start(r->timer, CLAIM_WAIT_MS);
	if (r->key->mine) { /* the task side did not serve */
		struct claim to = r->key->claim;
		to.side = CLAIM_LEGACY;
		to.backend[0] = to.task_id[0] = to.fingerprint[0] = '\0';
		crypto_random_id(to.token);
		r->key->mine = false;
		claims_move(claims, loop, r->key->claim.token, &to, request_key_on_legacy, w);
		return;
	}
	ask_for(r, CLAIM_LEGACY);
	if (r->op->idempotency.legacy_forgets)
		claims_look(claims, loop, &r->key->claim, request_key_on_legacy, w);
	else
		claims_take(claims, loop, &r->key->claim, r->op->idempotency.max_keys, request_key_on_legacy,
			    w);
}

/* --- the task side is about to begin -------------------------------------------------------------------- */

struct task_wait_for_key {
	struct request *r;
	struct request_key_task fns;
};

static struct request *end_wait(struct task_wait_for_key *w, struct request_key_task *ret)
{
	struct request *r = w->r;
	*ret = w->fns;
	free(w);
	return r;
}

static bool still_waits(const struct request *r)
{
	return r->x && r->state == REQUEST_CLAIM;
}

/* One text and the NUL behind it; false: there is none. */
static bool kept_text(struct span *rest, struct span *ret)
{
	const char *end = rest->len ? memchr(rest->ptr, '\0', rest->len) : NULL;
	if (!end)
		return false;
	*ret = (struct span){rest->ptr, (size_t)(end - rest->ptr)};
	rest->ptr += ret->len + 1;
	rest->len -= ret->len + 1;
	return true;
}

/* Whether an answer was kept, and reads as it was written: a store may be damaged, or shared with others. */
static bool kept_answer(const struct claim_told *told, struct http_field fields[FIELDS_MAX], size_t *n)
{
	int status = told->claim.status;
	struct span rest = told->fields;
	if (told->claim.phase != CLAIM_ENDED || status < 200 || status > 999)
		return false;
	while (rest.len) {
		struct http_field *f = &fields[*n];
		if (*n == FIELDS_MAX || !kept_text(&rest, &f->name) || !kept_text(&rest, &f->value))
			return false;
		(*n)++;
	}
	return true;
}

/* As it was told the first time. */
static void answer_again(struct request *r, const struct claim_told *told, const struct http_field *fields,
			 size_t n)
{
	r->timer = loop_timer_free(r->timer);
	count_key(r, KEY_ANSWERED);
	request_answer(r, request_result_of_task(TASK_COMPLETED, told->claim.status), told->claim.status,
		       fields, n, told->body);
}

static void on_again(void *arg, const struct claim_told *told)
{
	struct request_key_task fns;
	struct request *r = end_wait(arg, &fns);
	if (!still_waits(r)) {
		request_unref(r); /* it stays begun, as it was */
		return;
	}
	if (told->answer == CLAIM_MINE) {
		r->key->claim = told->claim;
		r->key->mine = r->key->again = true;
		fns.go_on(r);
	} else if (told->answer == CLAIM_LOST) {
		refuse_running(r);
	} else {
		refuse_unknown(r);
	}
	request_unref(r);
}

/* Its backend knows no such task: the attempt that began it ended before it came to submit, or its result is
 * no longer kept. */
static bool may_begin_again(const struct request *r)
{
	const struct claim *c = &r->key->claim;
	int64_t age_us = clock_wall_us() - c->created_us;
	return r->client->backend->same_id_same_task && c->phase == CLAIM_BEGUN && age_us > AGAIN_AFTER_US &&
	       age_us < AGAIN_BEFORE_US;
}

static void begin_again(struct request *r, struct task_wait_for_key *w)
{
	struct claim to = r->key->claim;
	crypto_random_id(to.token);
	claims_move(r->plane->env->claims, r->plane->loop, r->key->claim.token, &to, on_again, w);
}

static void tell_state(struct request *r, int error, const struct task_result *t,
		       void (*answer)(struct request *r, const struct task_result *t))
{
	r->timer = loop_timer_free(r->timer);
	if (error == TASK_E_NOT_FOUND && r->key->claim.phase == CLAIM_ENDED)
		refuse_unkept(r);
	else if (error == TASK_E_NOT_FOUND || (error == 0 && t->status < TASK_COMPLETED))
		refuse_running(r);
	else if (error == TASK_E_UNREADABLE)
		request_fail(r, OUTCOME_UNKNOWN, 502, "Result unreadable", TASK_UNREADABLE_SENTENCE);
	else if (error != 0)
		refuse_unknown(r);
	else {
		count_key(r, KEY_ANSWERED);
		answer(r, t);
	}
}

static void key_on_state(void *arg, int error, const struct task_result *t)
{
	struct task_wait_for_key *w = arg;
	struct request *r = w->r;
	if (still_waits(r) && error == TASK_E_NOT_FOUND && may_begin_again(r)) {
		begin_again(r, w);
		return;
	}
	struct request_key_task fns;
	end_wait(w, &fns);
	if (still_waits(r))
		tell_state(r, error, t, fns.answer);
	request_unref(r);
}

/* Somebody was here before, on the task side. */
static void come_again(struct request *r, const struct claim_told *told, struct task_wait_for_key *w)
{
	const struct claim *there = &told->claim;
	bool other = strcmp(there->fingerprint, r->key->claim.fingerprint) != 0;
	struct http_field fields[FIELDS_MAX] = {{SPAN_LIT("X-Request-ID"), r->request_id}};
	size_t n = 1;
	bool kept = kept_answer(told, fields, &n);
	hold_end(r, BREAKER_UNJUDGED, NULL);
	r->decision.reason = REASON_PINNED;
	r->key->on_task = true;
	r->key->claim = *there;
	span_copy(span_of(there->task_id), r->task_id, sizeof(r->task_id));
	const struct backend_config *b = config_backend(r->service->config, span_of(there->backend));
	r->client = b ? plane_client(r->plane, b->name) : NULL;
	if (b)
		r->backend = r->decision.backend = b->name;
	if (!other && !kept && r->client) {
		task_get(r->client, span_of(r->task_id), key_on_state, w);
		return;
	}
	if (other)
		refuse_other(r);
	else if (kept)
		answer_again(r, told, fields, n);
	else
		refuse_unknown(r);
	request_unref(r);
	free(w);
}

static void on_claim_told(void *arg, const struct claim_told *told)
{
	struct task_wait_for_key *w = arg;
	struct request *r = w->r;
	if (still_waits(r) && told->answer == CLAIM_THERE && told->claim.side == CLAIM_TASK) {
		come_again(r, told, w);
		return;
	}
	struct request_key_task fns;
	end_wait(w, &fns);
	if (!still_waits(r)) {
		hold_end(r, BREAKER_UNJUDGED, NULL);
		if (told->answer == CLAIM_MINE) /* nothing was submitted */
			claims_release(r->plane->env->claims, &told->claim);
	} else if (told->answer == CLAIM_THERE) {
		hold_end(r, BREAKER_UNJUDGED, NULL);
		r->timer = loop_timer_free(r->timer);
		r->key->on_legacy = true;
		fns.to_legacy(r);
	} else if (told->answer == CLAIM_MINE) {
		if (!r->tried) /* for another backend it was this request's before */
			count_key(r, KEY_BEGUN);
		r->key->claim = told->claim;
		r->key->mine = true;
		fns.go_on(r);
	} else if (told->answer == CLAIM_LOST) {
		refuse_running(r);
	} else if (told->answer == CLAIM_CROWDED || told->answer == CLAIM_FULL) {
		refuse_full(r, told->answer == CLAIM_CROWDED);
	} else {
		refuse_unknown(r);
	}
	request_unref(r);
}

void request_key_claim_task(struct request *r, const struct request_key_task *fns)
{
	struct task_wait_for_key *w = calloc(1, sizeof(*w));
	if (!w) {
		refuse_unknown(r);
		return;
	}
	*w = (struct task_wait_for_key){.r = request_ref(r), .fns = *fns};
	char owner[CRYPTO_ID_HEX];
	bool moves = r->key->mine; /* another backend has refused it */
	memcpy(owner, r->key->claim.token, sizeof(owner));
	ask_for_task(r);
	r->key->mine = false;
	r->state = REQUEST_CLAIM;
	if (moves)
		claims_move(r->plane->env->claims, r->plane->loop, owner, &r->key->claim, on_claim_told, w);
	else
		claims_take(r->plane->env->claims, r->plane->loop, &r->key->claim,
			    r->op->idempotency.max_keys, on_claim_told, w);
}

/* --- what became of it ---------------------------------------------------------------------------------- */

void request_key_release(struct request *r)
{
	if (!r->key || !r->key->mine || r->key->again)
		return;
	r->key->mine = false;
	claims_release(r->plane->env->claims, &r->key->claim);
}

void request_key_submitted(struct request *r, enum task_submit_status status)
{
	if (!r->key || !r->key->mine)
		return;
	if (status == TASK_SUBMITTED) {
		span_copy(span_of(r->task_id), r->key->claim.task_id, sizeof(r->key->claim.task_id));
		claims_note(r->plane->env->claims, &r->key->claim);
	} else if (status != TASK_UNKNOWN && (!r->x || r->state != REQUEST_SUBMIT)) {
		request_key_release(r);
	}
}
