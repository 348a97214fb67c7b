#include "ledger/claims.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/aging.h"
#include "base/backoff.h"
#include "base/clock.h"
#include "base/log.h"
#include "ledger/claims_file.h"
#include "ledger/claims_redis.h"

#define BATCH_MAX 256
#define SWEEP_SECONDS 60
#define RETRY_FIRST_MS 500
#define RETRY_MAX_MS 15000
#define SWEEPS_AT_ONCE 10
#define SWEEP_PAUSE_MS 100
#define ANSWER_ROOM (64u << 20)
#define HELD_MAX (64u << 20) /* bytes of answers that wait for the file; what comes beyond is not kept */

enum op_kind { OP_LOOK, OP_TAKE, OP_MOVE, OP_NOTE, OP_ANSWER, OP_RELEASE };

struct op {
	struct loop_work work; /* first */
	struct op *next;
	enum op_kind kind;
	struct claim claim;
	char owner[CRYPTO_ID_HEX]; /* OP_MOVE */
	unsigned max_of_scope;
	bool keeps;
	int status;
	struct buf fields, body;
	struct loop *loop;
	claim_fn fn; /* NULL: nobody waits */
	void *arg;
	enum claim_answer answer;
	atomic_size_t *held; /* of bytes, where it has some of them */
	size_t bytes;
};

struct claims {
	struct claims_redis *redis; /* they are there; else NULL, and what follows counts */
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	/* under lock */
	struct op *first, **last;
	unsigned n_queued;
	bool stopping;
	struct claims_status status;
	atomic_size_t held;
	/* the thread's */
	bool ending;   /* what fails now is not tried again */
	bool sweeping; /* there is more to remove */
	char *path;
	struct claims_file *file; /* NULL: to be opened */
	struct claims_file *old;  /* that was replaced, and whose claims are not in the new one yet */
	struct op *unwritten;	  /* that nobody waits for */
	unsigned n_unwritten, failures;
	struct aging aging;
	int64_t swept_ms;
};

/* --- operations ----------------------------------------------------------------------------------------- */

static struct op *op_new(enum op_kind kind, const struct claim *claim)
{
	struct op *op = calloc(1, sizeof(*op));
	if (!op)
		return NULL;
	op->kind = kind;
	op->claim = *claim;
	buf_init(&op->fields, ANSWER_ROOM);
	buf_init(&op->body, ANSWER_ROOM);
	return op;
}

static void op_free(struct op *op)
{
	if (op->held)
		atomic_fetch_sub(op->held, op->bytes);
	buf_release(&op->fields);
	buf_release(&op->body);
	free(op);
}

static void op_tell(struct loop_work *w)
{
	struct op *op = (struct op *)w;
	const struct claim_told told = {
		.answer = op->answer,
		.claim = op->claim,
		.fields = buf_span(&op->fields),
		.body = buf_span(&op->body),
	};
	op->fn(op->arg, &told);
	op_free(op);
}

static void claims_enqueue(struct claims *c, struct op *op)
{
	pthread_mutex_lock(&c->lock);
	bool full = c->n_queued >= CLAIMS_QUEUE;
	if (!full) {
		op->next = NULL;
		*c->last = op;
		c->last = &op->next;
		c->n_queued++;
		pthread_cond_signal(&c->wake);
	} else if (op->fn) {
		c->status.unknown++;
	} else {
		c->status.lost++;
	}
	pthread_mutex_unlock(&c->lock);
	if (!full)
		return;
	if (op->fn)
		loop_post(op->loop, &op->work);
	else
		op_free(op);
}

/* --- the thread: a batch -------------------------------------------------------------------------------- */

static int look_or_take(struct claims *c, struct op *op, struct err *e)
{
	struct claim there;
	int r = claims_file_look(c->file, &op->claim, &op->answer, &there, &op->fields, &op->body, e);
	if (r == 0 && op->answer == CLAIM_THERE)
		op->claim = there;
	else if (r == 0 && op->kind == OP_TAKE)
		r = claims_file_take(c->file, &op->claim, op->max_of_scope, &op->answer, e);
	return r;
}

static int run_op(struct claims *c, struct op *op, struct err *e)
{
	bool done = false;
	int r;
	switch (op->kind) {
	case OP_LOOK:
	case OP_TAKE:
		return look_or_take(c, op, e);
	case OP_MOVE:
		r = claims_file_move(c->file, op->owner, &op->claim, &done, e);
		op->answer = done ? CLAIM_MINE : CLAIM_LOST;
		return r;
	case OP_NOTE:
		return claims_file_note(c->file, &op->claim, e);
	case OP_ANSWER:
		r = claims_file_answer(c->file, &op->claim, op->keeps, op->status, buf_span(&op->fields),
				       buf_span(&op->body), &done, e);
		op->answer = done ? CLAIM_THERE : CLAIM_NONE;
		return r;
	case OP_RELEASE:
		return claims_file_release(c->file, &op->claim, e);
	}
	return 0;
}

static int claims_need_file(struct claims *c, struct err *e)
{
	if (c->file && claims_file_moved(c->file)) {
		log_error("ledger_replaced", LOG_STR("path", c->path), LOG_STR("holds", "idempotency keys"));
		/* of two in a row the first has what matters */
		if (c->old)
			claims_file_close(c->file);
		else
			c->old = c->file;
		c->file = NULL;
	}
	if (c->file)
		return 0;
	int r = claims_file_open(c->path, c->old, &c->file, e);
	int64_t newest = 0;
	if (r < 0)
		return r;
	c->old = NULL;
	if (!c->aging.what && claims_file_newest(c->file, &newest, e) == 0)
		aging_begin(&c->aging, "idempotency keys", newest);
	return 0;
}

static bool only_looks(const struct op *batch)
{
	for (; batch; batch = batch->next)
		if (batch->kind != OP_LOOK)
			return false;
	return true;
}

/* All or nothing: one transaction, one sync for many callers. Who only looks needs none. */
static int run_batch(struct claims *c, struct op *batch, struct err *e)
{
	bool writes = !only_looks(batch);
	int r = claims_need_file(c, e);
	if (r < 0)
		return r;
	if (writes)
		r = claims_file_begin(c->file, e);
	for (struct op *op = batch; r == 0 && op; op = op->next)
		r = run_op(c, op, e);
	if (r == 0 && writes)
		r = claims_file_commit(c->file, e);
	if (r < 0)
		claims_file_rollback(c->file);
	return r;
}

static void set_status(struct claims *c, const struct err *failure)
{
	int64_t n, bytes;
	struct err e;
	bool known = !failure && claims_file_totals(c->file, &n, &bytes, &e) == 0;
	pthread_mutex_lock(&c->lock);
	bool news = failure && !c->status.failing;
	c->status.failing = failure != NULL;
	snprintf(c->status.last_error, sizeof(c->status.last_error), "%s", failure ? failure->text : "");
	if (known) {
		c->status.claims = (uint64_t)n;
		c->status.bytes = (uint64_t)bytes;
	}
	pthread_mutex_unlock(&c->lock);
	if (news)
		log_error("idempotency_keys_failing", LOG_STR("error", failure->text));
}

static void count_op(struct claims *c, const struct op *op)
{
	pthread_mutex_lock(&c->lock);
	struct claims_status *s = &c->status;
	bool asks = op->kind == OP_TAKE || op->kind == OP_LOOK;
	s->taken += op->kind == OP_TAKE && op->answer == CLAIM_MINE;
	s->repeated += asks && op->answer == CLAIM_THERE;
	s->refused += asks && (op->answer == CLAIM_CROWDED || op->answer == CLAIM_FULL);
	s->unknown += op->fn && op->answer == CLAIM_UNKNOWN;
	s->unkept += op->kind == OP_ANSWER && op->keeps && op->answer != CLAIM_THERE;
	pthread_mutex_unlock(&c->lock);
}

/* What nobody waits for comes again with the next batch, before what has come since. */
static void keep_for_later(struct claims *c, struct op *op, struct op ***end)
{
	if (c->n_unwritten < CLAIMS_UNWRITTEN) {
		op->next = NULL;
		**end = op;
		*end = &op->next;
		c->n_unwritten++;
		return;
	}
	pthread_mutex_lock(&c->lock);
	c->status.lost++;
	pthread_mutex_unlock(&c->lock);
	op_free(op);
}

static void finish_batch(struct claims *c, struct op *batch, int error)
{
	struct op **end = &c->unwritten;
	c->unwritten = NULL;
	c->n_unwritten = 0;
	for (struct op *op = batch, *next; op; op = next) {
		next = op->next;
		if (error && !op->fn && !c->ending) {
			keep_for_later(c, op, &end);
			continue;
		}
		if (error) {
			op->answer = CLAIM_UNKNOWN;
			buf_clear(&op->fields);
			buf_clear(&op->body);
		}
		count_op(c, op);
		if (op->fn)
			loop_post(op->loop, &op->work);
		else
			op_free(op);
	}
}

static void claims_run_batch(struct claims *c, struct op *batch)
{
	struct err e = {""};
	int r = run_batch(c, batch, &e);
	if (r < 0 && r != -EBUSY && r != -ENOSPC) /* those two pass by themselves */
		c->file = claims_file_close(c->file);
	c->failures = r < 0 ? c->failures + 1 : 0;
	set_status(c, r < 0 ? &e : NULL);
	finish_batch(c, batch, r);
}

static void claims_sweep(struct claims *c)
{
	struct err e;
	int64_t now = clock_mono_ms(), removed = 1;
	if ((now - c->swept_ms < SWEEP_SECONDS * 1000 && !c->sweeping) || !c->file ||
	    claims_need_file(c, &e) < 0)
		return;
	c->swept_ms = now;
	for (unsigned i = 0; i < SWEEPS_AT_ONCE && removed > 0; i++)
		if (claims_file_sweep(c->file, aging_now(&c->aging), &removed, &e) < 0)
			removed = 0; /* the next one will */
	c->sweeping = removed > 0;   /* others go first */
}

/* --- the thread ----------------------------------------------------------------------------------------- */

static struct timespec claims_wait_until(const struct claims *c)
{
	unsigned ms = SWEEP_SECONDS * 1000;
	if (c->sweeping)
		ms = SWEEP_PAUSE_MS;
	else if (c->unwritten)
		ms = backoff_ms(RETRY_FIRST_MS, RETRY_MAX_MS, c->failures ? c->failures : 1);
	return clock_deadline(CLOCK_MONOTONIC, ms);
}

/* What is left from before, and up to BATCH_MAX more; NULL when there is nothing to do. */
static struct op *claims_take_batch(struct claims *c, bool *end)
{
	struct timespec until = claims_wait_until(c);
	struct op *batch = c->unwritten, **at = &batch;
	while (*at)
		at = &(*at)->next;
	pthread_mutex_lock(&c->lock);
	while (!c->first && !c->stopping)
		if (pthread_cond_timedwait(&c->wake, &c->lock, &until) == ETIMEDOUT)
			break;
	for (unsigned n = 0; c->first && n < BATCH_MAX; n++) {
		struct op *op = c->first;
		c->first = op->next;
		op->next = NULL;
		*at = op;
		at = &op->next;
		c->n_queued--;
	}
	if (!c->first)
		c->last = &c->first;
	c->ending = c->stopping;
	*end = c->stopping && !c->first;
	pthread_mutex_unlock(&c->lock);
	c->unwritten = NULL;
	return batch;
}

static void *claims_run(void *arg)
{
	struct claims *c = arg;
	struct err e;
	if (claims_need_file(c, &e) < 0) /* it is tried again when somebody asks */
		set_status(c, &e);
	claims_sweep(c);
	for (bool end = false; !end;) {
		struct op *batch = claims_take_batch(c, &end);
		if (batch)
			claims_run_batch(c, batch);
		claims_sweep(c);
	}
	return NULL;
}

/* --- face ----------------------------------------------------------------------------------------------- */

static void claims_release_all(struct claims *c)
{
	claims_file_close(c->file);
	claims_file_close(c->old);
	while (c->unwritten) {
		struct op *op = c->unwritten;
		c->unwritten = op->next;
		op_free(op);
	}
	pthread_cond_destroy(&c->wake);
	pthread_mutex_destroy(&c->lock);
	free(c->path);
	free(c);
}

static int start_shared(struct claims *c, const struct ledger_options *o, struct claims **ret, struct err *e)
{
	int r = claims_redis_start(o, &c->redis, e);
	if (r < 0)
		free(c);
	else
		*ret = c;
	return r;
}

int claims_start(const struct ledger_options *o, struct claims **ret, struct err *e)
{
	struct claims *c = calloc(1, sizeof(*c));
	if (!c)
		return err_set(e, -ENOMEM, "out of memory");
	if (o->redis)
		return start_shared(c, o, ret, e);
	c->last = &c->first;
	c->swept_ms = clock_mono_ms() - SWEEP_SECONDS * 1000;
	pthread_mutex_init(&c->lock, NULL);
	pthread_condattr_t attributes;
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&c->wake, &attributes);
	pthread_condattr_destroy(&attributes);
	c->path = strdup(o->file);
	int r = c->path ? -pthread_create(&c->thread, NULL, claims_run, c) : -ENOMEM;
	if (r < 0) {
		claims_release_all(c);
		return err_set(e, r, "thread: %s", strerror(-r));
	}
	*ret = c;
	return 0;
}

struct claims *claims_stop(struct claims *c)
{
	if (!c)
		return NULL;
	if (c->redis) {
		claims_redis_stop(c->redis);
		free(c);
		return NULL;
	}
	pthread_mutex_lock(&c->lock);
	c->stopping = true;
	pthread_cond_signal(&c->wake);
	pthread_mutex_unlock(&c->lock);
	pthread_join(c->thread, NULL);
	claims_release_all(c);
	return NULL;
}

/* Whoever waits is notified in a later round of its loop. */
static void ask(struct claims *c, struct op *op, struct loop *loop, claim_fn fn, void *arg)
{
	if (!op) {
		const struct claim_told told = {.answer = CLAIM_UNKNOWN};
		fn(arg, &told); /* memory is out */
		return;
	}
	op->work.fn = op_tell;
	op->loop = loop;
	op->fn = fn;
	op->arg = arg;
	op->answer = CLAIM_UNKNOWN;
	claims_enqueue(c, op);
}

void claims_take(struct claims *c, struct loop *loop, const struct claim *want, unsigned max_of_scope,
		 claim_fn fn, void *arg)
{
	if (c->redis) {
		claims_redis_take(c->redis, loop, want, max_of_scope, fn, arg);
		return;
	}
	struct op *op = op_new(OP_TAKE, want);
	if (op) {
		op->claim.created_us = clock_wall_us();
		op->max_of_scope = max_of_scope;
	}
	ask(c, op, loop, fn, arg);
}

void claims_look(struct claims *c, struct loop *loop, const struct claim *want, claim_fn fn, void *arg)
{
	if (c->redis) {
		claims_redis_look(c->redis, loop, want, fn, arg);
		return;
	}
	ask(c, op_new(OP_LOOK, want), loop, fn, arg);
}

void claims_move(struct claims *c, struct loop *loop, const char owner[CRYPTO_ID_HEX], const struct claim *to,
		 claim_fn fn, void *arg)
{
	if (c->redis) {
		claims_redis_move(c->redis, loop, owner, to, fn, arg);
		return;
	}
	struct op *op = op_new(OP_MOVE, to);
	if (op)
		memcpy(op->owner, owner, sizeof(op->owner));
	ask(c, op, loop, fn, arg);
}

static void tell_only(struct claims *c, struct op *op)
{
	if (op && op->fields.error == 0 && op->body.error == 0) {
		claims_enqueue(c, op);
		return;
	}
	if (op)
		op_free(op);
	pthread_mutex_lock(&c->lock);
	c->status.lost++;
	pthread_mutex_unlock(&c->lock);
}

void claims_note(struct claims *c, const struct claim *to)
{
	if (c->redis) {
		claims_redis_note(c->redis, to);
		return;
	}
	tell_only(c, op_new(OP_NOTE, to));
}

void claims_answer(struct claims *c, const struct claim *of, bool keeps, int status, struct span fields,
		   struct span body)
{
	if (c->redis) {
		claims_redis_answer(c->redis, of, keeps, status, fields, body);
		return;
	}
	struct op *op = op_new(OP_ANSWER, of);
	if (op) {
		op->held = &c->held;
		op->bytes = keeps ? fields.len + body.len : 0;
		op->keeps = keeps && atomic_fetch_add(&c->held, op->bytes) + op->bytes <= HELD_MAX;
		op->status = status;
	}
	if (op && op->keeps) {
		buf_append_span(&op->fields, fields);
		buf_append_span(&op->body, body);
	}
	tell_only(c, op);
}

void claims_release(struct claims *c, const struct claim *of)
{
	if (c->redis) {
		claims_redis_release(c->redis, of);
		return;
	}
	tell_only(c, op_new(OP_RELEASE, of));
}

void claims_status(struct claims *c, struct claims_status *ret)
{
	if (c->redis) {
		claims_redis_status(c->redis, ret);
		return;
	}
	pthread_mutex_lock(&c->lock);
	*ret = c->status;
	pthread_mutex_unlock(&c->lock);
}
