/*
 * Sequential workflows: each step is a task of its own, inserted in the transaction that ended the one before
 * it. The plan is data in the file, so whoever ends a step can continue, whether or not it knows the
 * definition.
 */
#include "tasks/queue/store.h"

#include <errno.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/crypto.h"
#include "base/json.h"
#include "tasks/queue/store_internal.h"

#define KWARGS_MAX (64u << 20)

struct step_row {
	struct span name, task, queue, kwargs;
	int64_t input;
	unsigned timeout_ms;
};

/* However it is spelled: as plan_has_key of the workflow's plan. */
static bool has_key(struct span object, struct span key)
{
	struct json_iter it;
	struct span k, v;
	if (!object.ptr)
		return false;
	json_iter_init(&it, object);
	while (json_iter_next(&it, &k, &v))
		if (span_eq(k, key) || json_equal(k, key) == 1)
			return true;
	return false;
}

static void put_members(struct span object, struct span but_not, bool *first, struct buf *out)
{
	struct json_iter it;
	struct span key, value;
	if (!object.ptr)
		return;
	json_iter_init(&it, object);
	while (json_iter_next(&it, &key, &value)) {
		if (has_key(but_not, key))
			continue;
		if (!*first)
			buf_putc(out, ',');
		*first = false;
		buf_append_span(out, key);
		buf_putc(out, ':');
		buf_append_span(out, value);
	}
}

/* The step's own keyword arguments stand; the caller's come beside them and cannot replace them. */
static int merge_kwargs(struct span step, struct span caller, struct buf *out)
{
	bool first = true;
	buf_putc(out, '{');
	put_members(caller, step, &first, out);
	put_members(step, SPAN_NONE, &first, out);
	return buf_putc(out, '}');
}

/* Both inputs of the step: `previous` is SPAN_NONE for the first one. */
static int store_workflow_make_input(struct store *s, int64_t workflow, const struct step_row *row,
				     struct span previous, struct buf *args, struct buf *kwargs,
				     struct err *e)
{
	bool own =
		row->input == STORE_INPUT_WORKFLOW || (row->input == STORE_INPUT_PREVIOUS && !previous.ptr);
	struct span given_args = SPAN_LIT("[]"), given_kwargs = SPAN_NONE;
	CLEANUP(db_stmt_freep) struct db_stmt *st = NULL;
	if (own) {
		int r = db_prepare(s->db, "SELECT args, kwargs FROM input WHERE seq = ?1", &st, e);
		if (r < 0)
			return r;
		db_bind_int64(st, 1, workflow);
		r = db_step(st, e);
		if (r <= 0)
			return r < 0 ? r : err_set(e, -EUCLEAN, "a workflow has no input");
		given_args = db_column_text(st, 0);
		given_kwargs = db_column_text(st, 1);
	}
	if (!own && row->input == STORE_INPUT_PREVIOUS) {
		buf_putc(args, '[');
		buf_append_span(args, previous);
		buf_putc(args, ']');
	} else {
		buf_append_span(args, given_args);
	}
	merge_kwargs(row->kwargs, given_kwargs, kwargs);
	int r = args->error ? args->error : kwargs->error;
	return r < 0 ? err_set(e, r, "the input of a step is too large") : 0;
}

static int insert_step(struct store *s, int64_t workflow, int64_t step, const struct step_row *row,
		       struct span previous, struct err *e)
{
	CLEANUP(buf_releasep) struct buf args = BUF_INIT(s->max_result + 16), kwargs = BUF_INIT(KWARGS_MAX);
	int r = store_workflow_make_input(s, workflow, row, previous, &args, &kwargs, e);
	if (r < 0)
		return r;
	struct db_stmt *st = store_sql(s, SQL_PARENT, e);
	if (!st)
		return -EIO;
	db_bind_int64(st, 1, workflow);
	r = db_step(st, e);
	if (r <= 0)
		return r < 0 ? r : err_set(e, -EUCLEAN, "a step's workflow is gone");
	CLEANUP(freep) char *request_id = span_dup(db_column_text(st, 3));
	CLEANUP(freep) char *owner = span_dup(db_column_text(st, 4));
	char id[CRYPTO_ID_HEX];
	crypto_random_id(id);
	struct store_task t = {.id = span_of(id),
			       .name = row->task,
			       .queue = row->queue,
			       .args = buf_span(&args),
			       .kwargs = buf_span(&kwargs),
			       .request_id = span_of(request_id),
			       .owner = span_of(owner),
			       .priority = (int)db_column_int64(st, 2),
			       .timeout_ms = row->timeout_ms,
			       .pending_ms = (unsigned)db_column_int64(st, 6),
			       .parent = workflow,
			       .step = step};
	db_reset(st);
	return store_insert(s, &t, e);
}

/* Looks the step up and inserts it. STORE_E_NOT_FOUND: there is no such step, the workflow is through. */
static int begin_step(struct store *s, int64_t workflow, int64_t step, struct span previous, struct err *e)
{
	CLEANUP(db_stmt_freep) struct db_stmt *st = NULL;
	int r = db_prepare(
		s->db,
		"SELECT name, task, queue, kwargs, input, timeout_ms FROM plan WHERE seq = ?1 AND step = ?2",
		&st, e);
	if (r < 0)
		return r;
	db_bind_int64(st, 1, workflow);
	db_bind_int64(st, 2, step);
	r = db_step(st, e);
	if (r <= 0)
		return r < 0 ? r : STORE_E_NOT_FOUND;
	struct step_row row = {db_column_text(st, 0),  db_column_text(st, 1),
			       db_column_text(st, 2),  db_column_text(st, 3),
			       db_column_int64(st, 4), (unsigned)db_column_int64(st, 5)};
	return insert_step(s, workflow, step, &row, previous, e);
}

/* --- ends ----------------------------------------------------------------------------------------------- */

/* {"<step>": <result>, …} in the order of the steps. */
static int store_workflow_put_results(struct store *s, int64_t workflow, struct buf *out, struct err *e)
{
	struct db_stmt *st = store_sql(s, SQL_STEP_RESULTS, e);
	if (!st)
		return -EIO;
	db_bind_int64(st, 1, workflow);
	const char *separator = "{";
	int r;
	while ((r = db_step(st, e)) == 1) {
		buf_puts(out, separator);
		json_quote(out, db_column_text(st, 0));
		buf_putc(out, ':');
		buf_append_span(out, db_column_text(st, 1));
		separator = ",";
	}
	buf_putc(out, '}');
	return r;
}

static int store_workflow_complete(struct store *s, int64_t workflow, struct store_end *ret, struct err *e)
{
	buf_init(&ret->text, s->max_result);
	int r = store_workflow_put_results(s, workflow, &ret->text, e);
	if (r < 0)
		return r;
	ret->outcome = (struct store_outcome){.result = buf_span(&ret->text)};
	if (ret->text.error)
		ret->outcome = (struct store_outcome){
			.error = SPAN_LIT("the results of the steps are larger together than the limit")};
	return 1;
}

static int fail_for_step(struct store *s, int64_t workflow, int64_t step, const struct store_outcome *o,
			 struct store_end *ret, struct err *e)
{
	struct db_stmt *st = store_sql(s, SQL_PLAN_NAME, e);
	if (!st)
		return -EIO;
	db_bind_int64(st, 1, workflow);
	db_bind_int64(st, 2, step);
	int r = db_step(st, e);
	if (r < 0)
		return r;
	buf_init(&ret->text, o->error.len + TASK_NAME_MAX + 32);
	buf_printf(&ret->text, "step \"%.*s\": ", SPAN_ARG(r == 1 ? db_column_text(st, 0) : SPAN_NONE));
	buf_append_span(&ret->text, o->error);
	db_reset(st);
	ret->outcome = (struct store_outcome){
		.error = buf_span(&ret->text), .detail = o->detail, .cancelled = o->cancelled};
	return 1;
}

int store_workflow_advance(struct store *s, int64_t parent, int64_t step, const struct store_outcome *o,
			   struct store_end *ret, struct err *e)
{
	struct db_stmt *st;
	int r = store_row(s, SQL_PARENT, parent, &st, e);
	if (r <= 0)
		return r;
	bool over = db_column_int64(st, 0) > STATE_RUNNING, cancelled = db_column_int64(st, 1) != 0;
	db_reset(st);
	if (over)
		return 0; /* its time ran out while the step went on */
	if (!o->result.ptr)
		return fail_for_step(s, parent, step, o, ret, e);
	if (cancelled) {
		ret->outcome = (struct store_outcome){.error = SPAN_LIT("cancelled between two steps"),
						      .cancelled = true};
		return 1;
	}
	r = begin_step(s, parent, step + 1, o->result, e);
	return r == STORE_E_NOT_FOUND ? store_workflow_complete(s, parent, ret, e) : r;
}

/* --- begin ---------------------------------------------------------------------------------------------- */

static int insert_plan(struct store *s, int64_t seq, const struct store_step *steps, size_t n, struct err *e)
{
	int r = 0;
	for (size_t i = 0; r == 0 && i < n; i++) {
		struct db_stmt *st = store_sql(s, SQL_PLAN_INSERT, e);
		if (!st)
			return -EIO;
		db_bind_int64(st, 1, seq);
		db_bind_int64(st, 2, (int64_t)i);
		db_bind_text(st, 3, steps[i].name);
		db_bind_text(st, 4, steps[i].task);
		db_bind_text(st, 5, steps[i].queue);
		db_bind_text(st, 6, steps[i].kwargs);
		db_bind_int64(st, 7, steps[i].input);
		db_bind_int64(st, 8, steps[i].timeout_ms);
		r = db_run(st, e);
	}
	return r;
}

int store_workflow_start(struct store *s, const struct store_lease *l, const struct store_step *steps,
			 size_t n, unsigned timeout_ms, struct err *e)
{
	int r = store_fence(s, l->seq, l->token, e);
	if (r)
		return r;
	r = insert_plan(s, l->seq, steps, n, e);
	struct db_stmt *st = r == 0 ? store_sql(s, SQL_WORKFLOW_RUN, e) : NULL;
	if (!st)
		return r < 0 ? r : -EIO;
	db_bind_int64(st, 1, l->seq);
	db_bind_int64(st, 2, timeout_ms ? clock_mono_ms() + timeout_ms : 0);
	db_bind_int64(st, 3, timeout_ms);
	r = db_run(st, e);
	return r == 0 ? begin_step(s, l->seq, 0, SPAN_NONE, e) : r;
}
