/*
 * Leases: taking, keeping, ending and losing tasks, and the sweep that ends what nobody else will.
 */
#include "tasks/queue/store.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/crypto.h"
#include "tasks/queue/store_internal.h"

#define WORKER_FORGOTTEN_MS (24 * 3600 * 1000LL)
#define MARKS_KEPT 100000

/* --- ends ----------------------------------------------------------------------------------------------- */

static int write_output(struct store *s, int64_t seq, const struct store_outcome *o, struct err *e)
{
	struct db_stmt *st = store_sql(s, SQL_OUTPUT, e);
	if (!st)
		return -EIO;
	db_bind_int64(st, 1, seq);
	db_bind_text(st, 2, o->result);
	db_bind_text(st, 3, o->result.ptr ? SPAN_NONE : o->error);
	db_bind_text(st, 4, o->detail);
	return db_run(st, e);
}

static int mark_finished(struct store *s, struct span id, struct err *e)
{
	struct db_stmt *st = store_sql(s, SQL_MARK, e);
	if (!st)
		return -EIO;
	db_bind_text(st, 1, id);
	return db_run(st, e);
}

struct lease_parent {
	int64_t workflow, step; /* workflow 0: none; negative: store_flow.c */
	bool is_workflow;	/* the task itself */
};

/* Of one task, whatever it is a step of. `o` must fit. */
static int end_task(struct store *s, int64_t seq, const struct store_outcome *o, struct lease_parent *ret,
		    struct err *e)
{
	struct db_stmt *st = store_sql(s, SQL_END, e);
	if (!st)
		return -EIO;
	db_bind_int64(st, 1, seq);
	db_bind_int64(st, 2, o->result.ptr ? STATE_COMPLETED : STATE_FAILED);
	db_bind_int64(st, 3, o->cancelled);
	db_bind_int64(st, 4, clock_wall_us());
	int r = db_step(st, e);
	if (r <= 0)
		return r < 0 ? r : STORE_E_STALE;
	char id[TASK_ID_MAX];
	span_copy(db_column_text(st, 0), id, sizeof(id));
	*ret = (struct lease_parent){db_column_int64(st, 1), db_column_int64(st, 2),
				     db_column_int64(st, 3) != 0};
	db_reset(st);
	r = write_output(s, seq, o, e);
	return r == 0 ? mark_finished(s, span_of(id), e) : r;
}

int store_end(struct store *s, int64_t seq, const struct store_outcome *o, struct err *e)
{
	char too_large[128];
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(0);
	struct store_outcome outcome = *o;
	for (;;) {
		if (outcome.result.len > s->max_result) {
			snprintf(too_large, sizeof(too_large), "the result has %zu bytes, the limit is %zu",
				 outcome.result.len, s->max_result);
			outcome = (struct store_outcome){.error = span_of(too_large)};
		}
		struct lease_parent up = {0};
		int r = end_task(s, seq, &outcome, &up, e);
		if (r == 0 && (up.workflow < 0 || up.is_workflow))
			r = store_flow_run_due(s, e);
		if (r || up.workflow <= 0)
			return r;
		/* A workflow may be a step itself. What ends it may quote what ended the step. */
		struct store_end end = {.text = BUF_INIT(0)};
		r = store_workflow_advance(s, up.workflow, up.step, &outcome, &end, e);
		buf_release(&text);
		text = end.text;
		if (r <= 0)
			return r;
		outcome = end.outcome;
		seq = up.workflow;
	}
}

int store_finish(struct store *s, int64_t seq, int64_t token, const struct store_outcome *o, struct err *e)
{
	int r = store_fence(s, seq, token, e);
	return r ? r : store_end(s, seq, o, e);
}

static int requeue(struct store *s, int64_t seq, struct err *e)
{
	s->news = true;
	return store_change(s, SQL_REQUEUE, seq, e);
}

int store_give_up(struct store *s, int64_t seq, struct span detail, struct err *e)
{
	struct db_stmt *st;
	int r = store_row(s, SQL_ATTEMPTS, seq, &st, e);
	if (r <= 0)
		return r;
	bool again = db_column_int64(st, 0) < db_column_int64(st, 1), cancelled = db_column_int64(st, 2) != 0;
	db_reset(st);
	if (again && !cancelled)
		return requeue(s, seq, e);
	struct store_outcome o = {
		.error = SPAN_LIT(STORE_WORKER_LOST), .detail = detail, .cancelled = cancelled};
	return store_end(s, seq, &o, e);
}

int store_give_back(struct store *s, int64_t seq, int64_t token, struct err *e)
{
	int r = store_fence(s, seq, token, e);
	if (r)
		return r;
	s->news = true;
	return store_change(s, SQL_GIVE_BACK, seq, e);
}

int store_lost(struct store *s, int64_t seq, int64_t token, struct span detail, struct err *e)
{
	int r = store_fence(s, seq, token, e);
	return r ? r : store_give_up(s, seq, detail, e);
}

/* --- cancelling ----------------------------------------------------------------------------------------- */

static int cancel_open_step(struct store *s, int64_t workflow, struct err *e)
{
	struct db_stmt *st;
	int r = store_row(s, SQL_STEP_OPEN, workflow, &st, e);
	if (r <= 0)
		return r;
	int64_t seq = db_column_int64(st, 0);
	db_reset(st);
	return store_cancel_seq(s, seq, e);
}

int store_cancel_seq(struct store *s, int64_t seq, struct err *e)
{
	struct db_stmt *st;
	int r = store_row(s, SQL_PARENT, seq, &st, e);
	if (r <= 0)
		return r;
	int64_t state = db_column_int64(st, 0);
	bool workflow = db_column_int64(st, 5) != 0;
	db_reset(st);
	if (state > STATE_RUNNING)
		return 0;
	if (state == STATE_PENDING) {
		struct store_outcome o = {.error = SPAN_LIT("cancelled before it was started"),
					  .cancelled = true};
		return store_end(s, seq, &o, e);
	}
	st = store_sql(s, SQL_CANCEL_ASK, e);
	if (!st)
		return -EIO;
	db_bind_int64(st, 1, seq);
	r = db_run(st, e);
	if (r < 0 || !workflow)
		return r;
	r = cancel_open_step(s, seq, e);
	return r < 0 ? r : store_flow_run_due(s, e);
}

int store_cancel(struct store *s, struct span id, struct err *e)
{
	struct db_stmt *st = store_sql(s, SQL_FIND, e);
	if (!st)
		return -EIO;
	db_bind_text(st, 1, id);
	int r = db_step(st, e);
	if (r <= 0)
		return r < 0 ? r : err_set(e, STORE_E_NOT_FOUND, "no such task");
	int64_t seq = db_column_int64(st, 0);
	db_reset(st);
	return store_cancel_seq(s, seq, e);
}

int store_cancelled(struct store *s, struct span worker, void (*fn)(void *arg, int64_t seq), void *arg,
		    struct err *e)
{
	struct db_stmt *st = store_sql(s, SQL_CANCELLED, e);
	if (!st)
		return -EIO;
	db_bind_text(st, 1, worker);
	int r;
	while ((r = db_step(st, e)) == 1)
		fn(arg, db_column_int64(st, 0));
	return r;
}

/* --- taking --------------------------------------------------------------------------------------------- */

/* What a candidate row says; copied, since taking it needs other statements. */
struct lease_candidate {
	int64_t seq;
	char id[TASK_ID_MAX], name[TASK_NAME_MAX], queue[TASK_NAME_MAX];
	bool workflow, idempotent;
	bool shadow;
	unsigned attempts, timeout_ms;
};

static void read_candidate(struct db_stmt *st, struct lease_candidate *c)
{
	c->seq = db_column_int64(st, 0);
	span_copy(db_column_text(st, 1), c->id, sizeof(c->id));
	span_copy(db_column_text(st, 2), c->name, sizeof(c->name));
	span_copy(db_column_text(st, 3), c->queue, sizeof(c->queue));
	c->workflow = db_column_int64(st, 4) != 0;
	c->idempotent = db_column_int64(st, 5) != 0;
	c->attempts = (unsigned)db_column_int64(st, 6);
	c->timeout_ms = (unsigned)db_column_int64(st, 7);
	c->shadow = span_is(db_column_text(st, 8), STORE_SHADOW_OWNER);
}

/* Positive 63 bits nobody can guess or repeat. */
static int64_t new_token(void)
{
	char hex[CRYPTO_ID_HEX];
	crypto_random_id(hex);
	hex[15] = '\0';
	return (int64_t)strtoull(hex, NULL, 16) + 1;
}

static int store_lease_hand_over(struct store *s, const struct store_lease_request *r,
				 const struct lease_candidate *c, int64_t token, struct err *e)
{
	CLEANUP(db_stmt_freep) struct db_stmt *st = NULL; /* its own: `taken` runs while its row is open */
	int code = db_prepare(s->db, "SELECT args, kwargs FROM input WHERE seq = ?1", &st, e);
	if (code < 0)
		return code;
	db_bind_int64(st, 1, c->seq);
	code = db_step(st, e);
	if (code <= 0)
		return code < 0 ? code : err_set(e, -EUCLEAN, "task %s has no input", c->id);
	struct store_lease l = {.seq = c->seq,
				.token = token,
				.attempt = c->attempts + 1,
				.id = span_of(c->id),
				.name = span_of(c->name),
				.queue = span_of(c->queue),
				.args = db_column_text(st, 0),
				.kwargs = db_column_text(st, 1),
				.workflow = c->workflow,
				.shadow = c->shadow,
				.timeout_ms = c->timeout_ms};
	store_trace_get(s, c->seq, &l);
	return r->taken(r->arg, &l);
}

static int store_lease_take(struct store *s, const struct store_lease_request *r,
			    const struct lease_candidate *c, struct err *e)
{
	struct db_stmt *st = store_sql(s, SQL_TAKE, e);
	if (!st)
		return -EIO;
	int64_t token = new_token();
	db_bind_int64(st, 1, c->seq);
	db_bind_int64(st, 2, r->max_attempts(r->arg, span_of(c->name), c->idempotent));
	db_bind_int64(st, 3, token);
	db_bind_int64(st, 4, LEASE_EVEN(clock_mono_ms() + r->lease_ms));
	db_bind_text(st, 5, r->worker);
	db_bind_int64(st, 6, clock_wall_us());
	int code = db_run(st, e);
	return code < 0 ? code : store_lease_hand_over(s, r, c, token, e);
}

static bool store_lease_is_known(const struct store_lease_request *r, struct span name, bool workflow)
{
	return !r->known || r->known(r->arg, name, workflow);
}

static int lease_from(struct store *s, const struct store_lease_request *r, struct span queue, unsigned limit,
		      struct err *e)
{
	CLEANUP(freep) struct lease_candidate *found = calloc(limit, sizeof(*found));
	struct db_stmt *st = found ? store_sql(s, SQL_CANDIDATES, e) : NULL;
	if (!st)
		return found ? -EIO : err_set(e, -ENOMEM, "out of memory");
	db_bind_text(st, 1, queue);
	db_bind_int64(st, 2, clock_mono_ms());
	unsigned n = 0;
	int code;
	while ((code = db_step(st, e)) == 1 && n < limit)
		if (store_lease_is_known(r, db_column_text(st, 2), db_column_int64(st, 4) != 0))
			read_candidate(st, &found[n++]);
	db_reset(st);
	for (unsigned i = 0; code >= 0 && i < n; i++)
		code = store_lease_take(s, r, &found[i], e);
	return code < 0 ? code : (int)n;
}

int store_ready(struct store *s, const struct store_lease_request *req, struct err *e)
{
	int r = 0;
	for (size_t i = 0; r == 0 && i < req->n_queues; i++) {
		struct db_stmt *st = store_sql(s, SQL_READY, e);
		if (!st)
			return -EIO;
		db_bind_text(st, 1, req->queues[i]);
		db_bind_int64(st, 2, clock_mono_ms());
		while ((r = db_step(st, e)) == 1 &&
		       !store_lease_is_known(req, db_column_text(st, 0), db_column_int64(st, 1) != 0))
			;
		db_reset(st);
	}
	return r;
}

int store_lease(struct store *s, const struct store_lease_request *r, struct err *e)
{
	unsigned taken = 0;
	size_t first = r->n_queues ? s->queue_turn++ % r->n_queues : 0;
	for (size_t i = 0; i < r->n_queues && taken < r->limit; i++) {
		struct span queue = r->queues[(first + i) % r->n_queues];
		int n = lease_from(s, r, queue, r->limit - taken, e);
		if (n < 0)
			return n;
		taken += (unsigned)n;
	}
	return (int)taken;
}

int store_extend(struct store *s, int64_t seq, int64_t token, unsigned lease_ms, struct err *e)
{
	struct db_stmt *st = store_sql(s, SQL_EXTEND, e);
	if (!st)
		return -EIO;
	db_bind_int64(st, 1, seq);
	db_bind_int64(st, 2, token);
	db_bind_int64(st, 3, LEASE_EVEN(clock_mono_ms() + lease_ms));
	int r = db_run(st, e);
	if (r < 0)
		return r;
	return db_changes(s->db) == 1 ? 0 : STORE_E_STALE;
}

/* --- workers -------------------------------------------------------------------------------------------- */

int store_worker_beat(struct store *s, const struct store_worker *w, struct err *e)
{
	struct db_stmt *st = store_sql(s, SQL_WORKER_BEAT, e);
	if (!st)
		return -EIO;
	db_bind_text(st, 1, w->id);
	db_bind_text(st, 2, w->name);
	db_bind_text(st, 3, w->host);
	db_bind_text(st, 4, w->queues);
	db_bind_int64(st, 5, w->pid);
	db_bind_int64(st, 6, w->concurrency);
	db_bind_int64(st, 7, clock_mono_ms());
	return db_run(st, e);
}

int store_worker_gone(struct store *s, struct span id, struct err *e)
{
	struct db_stmt *st = store_sql(s, SQL_WORKER_GONE, e);
	if (!st)
		return -EIO;
	db_bind_text(st, 1, id);
	return db_run(st, e);
}

/* --- the sweep ------------------------------------------------------------------------------------------ */

#define SWEEP_BATCH 200

struct due {
	int64_t seq, extra; /* extra: expires_ms or timeout_ms */
};

static int read_due(struct store *s, enum store_sql which, struct due *out, int64_t now, struct err *e)
{
	struct db_stmt *st = store_sql(s, which, e);
	if (!st)
		return -EIO;
	db_bind_int64(st, 1, now);
	int n = 0, r;
	while ((r = db_step(st, e)) == 1 && n < SWEEP_BATCH)
		out[n++] = (struct due){db_column_int64(st, 0), db_column_int64(st, 1)};
	db_reset(st);
	return r < 0 ? r : n;
}

static int end_lost(struct store *s, const struct due *d, struct err *e)
{
	return store_give_up(s, d->seq, SPAN_LIT("the worker's lease ran out"), e);
}

static int end_expired(struct store *s, const struct due *d, struct err *e)
{
	struct store_outcome o = {.error = d->extra ? SPAN_LIT("expired before a worker started it")
						    : SPAN_LIT("timed out waiting for a worker")};
	return store_end(s, d->seq, &o, e);
}

static int end_workflow(struct store *s, const struct due *d, struct err *e)
{
	struct db_stmt *st;
	int r = store_flow_time_out(s, d->seq, d->extra, e);
	if (r)
		return r < 0 ? r : 0;
	r = store_row(s, SQL_STEP_OPEN, d->seq, &st, e);
	if (r < 0)
		return r;
	char text[TASK_NAME_MAX + 128];
	struct span step = r == 1 ? db_column_text(st, 1) : SPAN_NONE;
	int64_t open = r == 1 ? db_column_int64(st, 0) : 0;
	snprintf(text, sizeof(text), "timed out after %lld ms in step \"%.*s\"", (long long)d->extra,
		 SPAN_ARG(step));
	db_reset(st);
	struct store_outcome o = {.error = span_of(text)};
	r = store_end(s, d->seq, &o, e);
	return r == 0 && open ? store_cancel_seq(s, open, e) : r;
}

static int sweep_kind(struct store *s, enum store_sql which,
		      int (*end)(struct store *, const struct due *, struct err *), unsigned *count,
		      struct err *e)
{
	CLEANUP(freep) struct due *due = calloc(SWEEP_BATCH, sizeof(*due));
	if (!due)
		return err_set(e, -ENOMEM, "out of memory");
	int n = read_due(s, which, due, clock_mono_ms(), e), r = n < 0 ? n : 0;
	for (int i = 0; i < n && r >= 0; i++)
		r = end(s, &due[i], e);
	*count += n > 0 ? (unsigned)n : 0;
	return r < 0 ? r : 0;
}

static int delete_one(struct store *s, int64_t seq, struct err *e)
{
	static const char *const statements[] = {
		"DELETE FROM input WHERE seq IN (SELECT seq FROM task WHERE parent = %lld UNION SELECT %lld)",
		("DELETE FROM output WHERE seq IN"
		 " (SELECT seq FROM task WHERE parent = %lld UNION SELECT %lld)"),
		"DELETE FROM plan WHERE seq IN (%lld, %lld)",
		"DELETE FROM task WHERE parent = %lld OR seq = %lld",
	};
	int r = 0;
	for (size_t i = 0; r == 0 && i < sizeof(statements) / sizeof(statements[0]); i++) {
		CLEANUP(buf_releasep) struct buf text = BUF_INIT(1024);
		buf_printf(&text, statements[i], (long long)seq, (long long)seq);
		r = text.error ? text.error : db_exec(s->db, text.ptr, e);
	}
	return r;
}

static int delete_due(struct store *s, const struct due *d, struct err *e)
{
	return delete_one(s, d->seq, e);
}

static int store_lease_forget(struct store *s, int64_t before_us, unsigned *count, struct err *e)
{
	struct due old[SWEEP_BATCH];
	int n = read_due(s, SQL_OLD, old, before_us, e), r = n < 0 ? n : 0;
	for (int i = 0; i < n && r == 0; i++)
		r = delete_due(s, &old[i], e);
	*count += n > 0 ? (unsigned)n : 0;
	int64_t last = 0;
	if (r == 0)
		r = store_finished_last(s, &last, e);
	struct db_stmt *st = r == 0 && last > MARKS_KEPT ? store_sql(s, SQL_MARKS_OLD, e) : NULL;
	if (!st)
		return r;
	db_bind_int64(st, 1, last - MARKS_KEPT);
	return db_run(st, e);
}

static int doubt_leases(struct store *s, struct err *e)
{
	struct db_stmt *st = store_sql(s, SQL_DOUBT_LEASE, e);
	if (!st)
		return -EIO;
	int64_t now_ms = clock_mono_ms();
	db_bind_int64(st, 1, now_ms);
	db_bind_int64(st, 2, LEASE_EVEN(now_ms + s->grace_ms) + 1);
	return db_run(st, e);
}

static int sweep_all(struct store *s, int64_t before_us, unsigned *count, struct err *e)
{
	int r = sweep_kind(s, SQL_DUE_LEASE, end_lost, count, e);
	if (r == 0)
		r = doubt_leases(s, e);
	if (r == 0)
		r = sweep_kind(s, SQL_DUE_EXPIRED, end_expired, count, e);
	if (r == 0)
		r = sweep_kind(s, SQL_DUE_WORKFLOW, end_workflow, count, e);
	if (r == 0)
		r = store_flow_run_due(s, e);
	if (r == 0 && before_us)
		r = store_lease_forget(s, before_us, count, e);
	struct db_stmt *st = r == 0 ? store_sql(s, SQL_WORKERS_OLD, e) : NULL;
	if (!st)
		return r;
	db_bind_int64(st, 1, clock_mono_ms() - WORKER_FORGOTTEN_MS);
	return db_run(st, e);
}

int store_sweep(struct store *s, int64_t retention_ms, unsigned *ret, struct err *e)
{
	int64_t before_us = retention_ms ? aging_now(&s->aging) - retention_ms * 1000 : 0;
	*ret = 0;
	if (clock_mono_ms() < s->quiet_until_ms)
		return 0;
	struct db_stmt *st = store_sql(s, SQL_DUE, e);
	if (!st)
		return -EIO;
	db_bind_int64(st, 1, clock_mono_ms());
	db_bind_int64(st, 2, before_us);
	int r = db_step(st, e);
	bool due = r == 1 && db_column_int64(st, 0) != 0;
	db_reset(st);
	if (r < 0 || !due)
		return r < 0 ? r : 0;
	r = store_begin(s, e);
	if (r == 0 && clock_mono_ms() < s->quiet_until_ms) {
		/* it had to wait: those whose leases these are had to, too */
		store_rollback(s);
		return 0;
	}
	if (r == 0)
		r = sweep_all(s, before_us, ret, e);
	if (r == 0)
		r = store_commit(s, e);
	if (r < 0) {
		/* Also where it did not come to the commit. */
		s->quiet_until_ms = clock_mono_ms() + s->grace_ms;
		store_rollback(s);
	}
	return r;
}
