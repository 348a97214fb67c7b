/*
 * The steps of a workflow, for people: of a plain sequence and of any other.
 */
#include "tasks/queue/store.h"

#include <errno.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/text.h"
#include "tasks/queue/store_internal.h"

static const char *steps_state_text(int64_t state, bool cancelled)
{
	return state == STATE_FAILED && cancelled ? "cancelled" : task_status_text((enum task_status)state);
}

static void steps_put_time(struct buf *out, const char *key, int64_t us)
{
	char text[CLOCK_TEXT_MAX];
	if (us)
		clock_format(us, text);
	buf_printf(out, us ? ", \"%s\": \"%s\"" : ", \"%s\": null", key, text);
}

/* In the form in which the router's driver tells them: the error masked, nothing of where it ran. */
static void steps_put_one(struct db_stmt *st, const struct workflow_definition *w, struct buf *out)
{
	int64_t step = db_column_int64(st, 0);
	struct span name = db_column_text(st, 7), error = db_column_text(st, 6);
	bool item = false;
	if (w && STORE_FLOW_STEP_OF(step) < w->n_steps) {
		name = w->steps[STORE_FLOW_STEP_OF(step)].name;
		item = w->steps[STORE_FLOW_STEP_OF(step)].over != NULL;
	}
	buf_puts(out, "{\"name\": ");
	json_quote(out, name);
	if (item)
		buf_printf(out, ", \"item\": %u", STORE_FLOW_ITEM_OF(step));
	buf_printf(out, ", \"status\": \"%s\"",
		   steps_state_text(db_column_int64(st, 1), db_column_int64(st, 2) != 0));
	steps_put_time(out, "submitted_at", db_column_int64(st, 3));
	steps_put_time(out, "started_at", db_column_int64(st, 4));
	steps_put_time(out, "completed_at", db_column_int64(st, 5));
	if (error.ptr) {
		CLEANUP(buf_releasep) struct buf masked = BUF_INIT(TEXT_MASKED_MAX);
		text_put_masked(&masked, error);
		buf_puts(out, ", \"error\": ");
		json_quote(out, buf_span(&masked));
	}
	buf_putc(out, '}');
}

static int steps_put_all(struct store *s, int64_t seq, const struct workflow_definition *w, struct buf *out,
			 struct err *e)
{
	struct db_stmt *st = store_sql(s, SQL_STEPS, e);
	const char *separator = "";
	int r;
	if (!st)
		return -EIO;
	db_bind_int64(st, 1, w ? -seq : seq);
	buf_putc(out, '[');
	while ((r = db_step(st, e)) == 1) {
		buf_puts(out, separator);
		steps_put_one(st, w, out);
		separator = ", ";
	}
	buf_putc(out, ']');
	return r;
}

/* 1: it is a workflow. */
static int steps_find(struct store *s, struct span id, int64_t *seq, struct err *e)
{
	struct db_stmt *st = store_sql(s, SQL_FIND, e);
	if (!st)
		return -EIO;
	db_bind_text(st, 1, id);
	int r = db_step(st, e);
	if (r <= 0)
		return r;
	*seq = db_column_int64(st, 0);
	bool workflow = db_column_int64(st, 4) != 0;
	db_reset(st);
	return workflow;
}

int store_steps(struct store *s, struct span id, struct buf *out, struct err *e)
{
	struct arena memory = ARENA_INIT(STORE_FLOW_MAX_MEMORY);
	struct workflow_definition *w = NULL;
	int64_t seq = 0;
	int r = steps_find(s, id, &seq, e);
	if (r == 1)
		r = store_flow_definition(s, seq, &memory, &w, e);
	else if (r == 0)
		r = STORE_E_NOT_FOUND;
	if (r == 0 || r == 1)
		r = steps_put_all(s, seq, w, out, e);
	arena_release(&memory);
	return r == 0 ? out->error : r;
}
