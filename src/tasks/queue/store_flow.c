/*
 * Workflows that are more than a list: graphs, for_each, templates. What is to be done next is the plan's
 * to say (tasks/workflow/workflow_plan.h); here it is told what stands in the file, and its steps are
 * inserted in the transaction in which something has happened to the workflow.
 *
 * A step's task has as `parent` its workflow's number, negated, and as `step` STORE_FLOW_STEP(step, item).
 * An older program that shares the file runs and ends such tasks as any others: it finds no workflow of a
 * negative number, so it does nothing else. Triggers note in flow_due which workflow something has happened
 * to, whoever did it: who knows how takes the note in the same transaction, and what an older program left
 * is taken by the next sweep. These are side tables without a version, as worker_knows is.
 */
#include "tasks/queue/store.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/crypto.h"
#include "tasks/queue/store_internal.h"
#include "tasks/workflow/workflow_plan.h"

#define FLOW_NAMES_MAX 5

/* --- a workflow as it stands in the file ---------------------------------------------------------------- */

struct flow {
	struct store *store;
	int64_t seq;
	struct arena memory; /* of the definition */
	struct workflow_definition *w;
	struct workflow_plan *plan;
	struct workflow_source source;
	struct db_stmt *input, *result; /* open while their rows are borrowed from */
	/* of the workflow's own row, which its steps share */
	bool over, cancelled;
	int priority;
	unsigned pending_ms;
	char *request_id, *owner;
	struct err *e; /* of whoever is at it */
};

static void flow_release(struct flow *f)
{
	free(f->request_id);
	free(f->owner);
	db_stmt_free(f->input);
	db_stmt_free(f->result);
	workflow_plan_free(f->plan);
	arena_release(&f->memory);
}

static int flow_result(void *arg, unsigned step, unsigned item, struct span *ret, struct err *e)
{
	struct flow *f = arg;
	if (!f->result) {
		int r = db_prepare(
			f->store->db,
			"SELECT result FROM task JOIN output USING (seq) WHERE parent = ?1 AND step = ?2"
			" AND state = 2",
			&f->result, e);
		if (r < 0)
			return r;
	}
	db_reset(f->result);
	db_bind_int64(f->result, 1, -f->seq);
	db_bind_int64(f->result, 2, STORE_FLOW_STEP(step, item));
	int r = db_step(f->result, e);
	if (r <= 0)
		return r < 0 ? r : err_set(e, -EUCLEAN, "the result of a workflow's step is gone");
	*ret = db_column_text(f->result, 0);
	return 0;
}

/* 1: read; 0: there is no such workflow. */
static int flow_read_row(struct flow *f, struct err *e)
{
	struct db_stmt *st;
	int r = store_row(f->store, SQL_PARENT, f->seq, &st, e);
	if (r <= 0)
		return r;
	f->over = db_column_int64(st, 0) > STATE_RUNNING;
	f->cancelled = db_column_int64(st, 1) != 0;
	f->priority = (int)db_column_int64(st, 2);
	f->pending_ms = (unsigned)db_column_int64(st, 6);
	f->request_id = span_dup(db_column_text(st, 3));
	f->owner = span_dup(db_column_text(st, 4));
	db_reset(st);
	return 1;
}

int store_flow_definition(struct store *s, int64_t seq, struct arena *memory,
			  struct workflow_definition **ret, struct err *e)
{
	struct db_stmt *st;
	struct err why = {""};
	int r = store_row(s, SQL_FLOW, seq, &st, e);
	if (r <= 0)
		return r;
	r = workflow_from_json(db_column_text(st, 0), memory, ret, &why);
	db_reset(st);
	if (r == -EBADMSG)
		return 0;
	return r < 0 ? err_set(e, r, "%s", why.text) : 1;
}

static int flow_read_definition(struct flow *f, struct err *e)
{
	f->memory = ARENA_INIT(STORE_FLOW_MAX_MEMORY);
	return store_flow_definition(f->store, f->seq, &f->memory, &f->w, e);
}

static int flow_read_input(struct flow *f, struct err *e)
{
	int r = db_prepare(f->store->db, "SELECT args, kwargs FROM input WHERE seq = ?1", &f->input, e);
	if (r < 0)
		return r;
	db_bind_int64(f->input, 1, f->seq);
	r = db_step(f->input, e);
	if (r <= 0)
		return r < 0 ? r : err_set(e, -EUCLEAN, "a workflow has no input");
	f->source = (struct workflow_source){.args = db_column_text(f->input, 0),
					     .kwargs = db_column_text(f->input, 1),
					     .arg = f,
					     .result = flow_result};
	return 0;
}

static int flow_tell_failure(struct flow *f, int64_t seq, const struct workflow_end *end, struct err *e)
{
	struct workflow_end told = *end;
	struct db_stmt *st;
	int r = store_row(f->store, SQL_FLOW_ERROR, seq, &st, e);
	if (r < 0)
		return r;
	if (r == 1) {
		told.error = db_column_text(st, 0);
		told.detail = db_column_text(st, 1);
	}
	workflow_plan_ended(f->plan, &told);
	db_reset(st);
	return 0;
}

/* What has begun, and what has ended, in that order of time. */
static int flow_tell_steps(struct flow *f, struct err *e)
{
	CLEANUP(db_stmt_freep) struct db_stmt *st = NULL;
	int r = db_prepare(
		f->store->db,
		"SELECT seq, step, state, cancelled FROM task WHERE parent = ?1 ORDER BY completed_us, seq",
		&st, e);
	if (r < 0)
		return r;
	db_bind_int64(st, 1, -f->seq);
	while ((r = db_step(st, e)) == 1) {
		int64_t step = db_column_int64(st, 1), state = db_column_int64(st, 2);
		struct workflow_end end = {.step = STORE_FLOW_STEP_OF(step),
					   .item = STORE_FLOW_ITEM_OF(step)};
		if (state <= STATE_RUNNING) {
			workflow_plan_begun(f->plan, end.step, end.item);
		} else if (state == STATE_COMPLETED) {
			workflow_plan_ended(f->plan, &end);
		} else {
			end.kind = db_column_int64(st, 3) ? WORKFLOW_END_CANCELLED : WORKFLOW_END_FAILED;
			r = flow_tell_failure(f, db_column_int64(st, 0), &end, e);
			if (r < 0)
				return r;
		}
	}
	return r;
}

/* --- moving it on --------------------------------------------------------------------------------------- */

static int flow_begin_step(void *arg, const struct workflow_begin *b)
{
	struct flow *f = arg;
	char id[CRYPTO_ID_HEX];
	crypto_random_id(id);
	const struct workflow_step *d = b->definition;
	struct store_task t = {.id = span_of(id),
			       .name = d->task,
			       .queue = d->queue.ptr ? d->queue : f->w->queue,
			       .args = b->args,
			       .kwargs = b->kwargs,
			       .request_id = span_of(f->request_id),
			       .owner = span_of(f->owner),
			       .idempotent = d->idempotent,
			       .priority = f->priority,
			       .timeout_ms = d->timeout_ms,
			       .pending_ms = f->pending_ms,
			       .parent = -f->seq,
			       .step = STORE_FLOW_STEP(b->step, b->item)};
	int r = store_insert(f->store, &t, f->e);
	return r > 0 ? -EEXIST : r;
}

/* Nothing else begins; what waits ends, what runs is asked to. */
static int flow_stop_open(struct flow *f, struct err *e)
{
	CLEANUP(freep) int64_t *open = calloc(WORKFLOW_MAX_TASKS, sizeof(*open));
	struct db_stmt *st;
	size_t n = 0;
	if (!open)
		return err_set(e, -ENOMEM, "out of memory");
	int r = store_row(f->store, SQL_FLOW_OPEN, -f->seq, &st, e);
	for (; r == 1 && n < WORKFLOW_MAX_TASKS; r = db_step(st, e))
		open[n++] = db_column_int64(st, 0);
	if (r < 0)
		return r;
	db_reset(st);
	for (size_t i = 0; i < n; i++) {
		r = store_cancel_seq(f->store, open[i], e);
		if (r < 0)
			return r;
	}
	return (int)n;
}

/* That it has ended is noted, so that what is still open is stopped next. */
static int flow_end(struct flow *f, const struct store_outcome *o, struct err *e)
{
	int r = store_end(f->store, f->seq, o, e);
	return r < 0 ? r : 0;
}

static int flow_end_failed(struct flow *f, struct err *e)
{
	const struct workflow_failure why = workflow_plan_error(f->plan);
	const struct store_outcome o = {.error = why.error, .detail = why.detail, .cancelled = why.cancelled};
	return flow_end(f, &o, e);
}

static int flow_end_completed(struct flow *f, struct err *e)
{
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(f->store->max_result);
	struct err why = {""};
	int r = workflow_plan_result(f->plan, &f->source, &text, &why);
	struct store_outcome o = {.result = buf_span(&text)};
	if (r == -ENOENT || r == -EFBIG)
		o = (struct store_outcome){.error = span_of(why.text)};
	else if (r < 0)
		return err_set(e, r, "%s", why.text);
	return flow_end(f, &o, e);
}

/* It was cancelled: it ends with the first of its steps that does not complete, or when nothing of it is
 * open. */
static int flow_cancel(struct flow *f, struct err *e)
{
	if (workflow_plan_state(f->plan) != WORKFLOW_FAILED) {
		int n = flow_stop_open(f, e);
		if (n != 0)
			return n < 0 ? n : 0;
		workflow_plan_stop(f->plan, WORKFLOW_END_CANCELLED, SPAN_LIT("cancelled between two steps"));
	}
	return flow_end_failed(f, e);
}

static int flow_move_on(struct flow *f, struct err *e)
{
	int r = flow_read_input(f, e);
	f->plan = r == 0 ? workflow_plan_new(f->w) : NULL;
	if (!f->plan)
		return r < 0 ? r : err_set(e, -ENOMEM, "out of memory");
	r = flow_tell_steps(f, e);
	if (r == 0 && f->cancelled)
		return flow_cancel(f, e);
	if (r == 0)
		r = workflow_plan_next(f->plan, &f->source, flow_begin_step, f, e);
	if (r < 0)
		return r;
	switch (workflow_plan_state(f->plan)) {
	case WORKFLOW_COMPLETED:
		return flow_end_completed(f, e);
	case WORKFLOW_FAILED:
		return flow_end_failed(f, e);
	case WORKFLOW_GOES_ON:
		break;
	}
	return 0;
}

/* 1: moved on; 0: it is a newer program's, for which the note stays. */
static int flow_advance(struct store *s, int64_t seq, struct err *e)
{
	struct flow f = {.store = s, .seq = seq, .e = e};
	int r = flow_read_row(&f, e);
	bool there = r == 1;
	if (there && !f.over)
		r = flow_read_definition(&f, e);
	bool readable = r == 1 || !there;
	if (r >= 0 && readable)
		r = store_change(s, SQL_FLOW_NOT_DUE, seq, e);
	if (r == 0 && readable && there)
		r = f.over ? flow_stop_open(&f, e) : flow_move_on(&f, e);
	flow_release(&f);
	return r < 0 ? r : readable;
}

/* The next one that is due after this. 1, 0, <0. */
static int flow_next_due(struct store *s, int64_t *seq, struct err *e)
{
	struct db_stmt *st;
	int r = store_row(s, SQL_FLOW_DUE, *seq, &st, e);
	if (r == 1)
		*seq = db_column_int64(st, 0);
	if (r >= 0)
		db_reset(st);
	return r;
}

/* Moving one on may note it again, as what it ends does. */
int store_flow_run_due(struct store *s, struct err *e)
{
	int64_t seq = 0;
	bool moved = false;
	int r;
	if (s->flows_running)
		return 0; /* who runs them sees the note that led here */
	s->flows_running = true;
	while ((r = flow_next_due(s, &seq, e)) == 1 || (r == 0 && moved)) {
		if (r == 0) {
			seq = 0;
			moved = false;
			continue;
		}
		r = flow_advance(s, seq, e);
		if (r < 0)
			break;
		moved |= r == 1;
	}
	s->flows_running = false;
	return r < 0 ? r : 0;
}

/* --- begin and time out --------------------------------------------------------------------------------- */

int store_flow_start(struct store *s, const struct store_lease *l, const struct workflow_definition *w,
		     unsigned timeout_ms, struct err *e)
{
	CLEANUP(buf_releasep) struct buf json = BUF_INIT(WORKFLOW_MAX_FROZEN);
	int r = store_fence(s, l->seq, l->token, e);
	if (r)
		return r;
	if (workflow_to_json(w, &json) < 0) {
		const struct store_outcome o = {.error = SPAN_LIT("the workflow's definition is too large")};
		return store_end(s, l->seq, &o, e);
	}
	struct db_stmt *st = store_sql(s, SQL_FLOW_INSERT, e);
	if (!st)
		return -EIO;
	db_bind_int64(st, 1, l->seq);
	db_bind_text(st, 2, buf_span(&json));
	r = db_run(st, e);
	st = r == 0 ? store_sql(s, SQL_WORKFLOW_RUN, e) : NULL;
	if (!st)
		return r < 0 ? r : -EIO;
	db_bind_int64(st, 1, l->seq);
	db_bind_int64(st, 2, timeout_ms ? clock_mono_ms() + timeout_ms : 0);
	db_bind_int64(st, 3, timeout_ms);
	r = db_run(st, e);
	if (r == 0)
		r = store_change(s, SQL_FLOW_MAKE_DUE, l->seq, e);
	return r == 0 ? store_flow_run_due(s, e) : r;
}

/* `in step "a"`, `in steps "a", "b"`: of a for_each once. */
static int flow_name_open(struct flow *f, struct buf *out, struct err *e)
{
	uint64_t open = 0;
	unsigned n = 0;
	struct db_stmt *st;
	int r = store_row(f->store, SQL_FLOW_OPEN, -f->seq, &st, e);
	for (; r == 1; r = db_step(st, e))
		if (STORE_FLOW_STEP_OF(db_column_int64(st, 1)) < f->w->n_steps)
			open |= UINT64_C(1) << STORE_FLOW_STEP_OF(db_column_int64(st, 1));
	if (r < 0)
		return r;
	db_reset(st);
	for (size_t i = 0; i < f->w->n_steps; i++)
		if ((open >> i & 1) && n++ < FLOW_NAMES_MAX)
			buf_printf(out, "%s\"%.*s\"", n > 1 ? ", " : "", SPAN_ARG(f->w->steps[i].name));
	if (n > FLOW_NAMES_MAX)
		buf_printf(out, " and %u more", n - FLOW_NAMES_MAX);
	return (int)n;
}

int store_flow_time_out(struct store *s, int64_t seq, int64_t timeout_ms, struct err *e)
{
	CLEANUP(buf_releasep) struct buf names = BUF_INIT(4096), text = BUF_INIT(8192);
	struct flow f = {.store = s, .seq = seq};
	int r = flow_read_definition(&f, e);
	if (r == 1) {
		r = flow_name_open(&f, &names, e);
		buf_printf(&text, "timed out after %lld ms in step%s %.*s", (long long)timeout_ms,
			   r > 1 ? "s" : "", SPAN_ARG(buf_span(&names)));
		const struct store_outcome o = {.error = buf_span(&text)};
		r = r < 0 ? r : store_end(s, seq, &o, e);
		r = r < 0 ? r : 1;
	}
	flow_release(&f);
	return r;
}
