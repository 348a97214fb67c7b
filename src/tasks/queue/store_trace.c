/*
 * The trace context of tasks: a side table without a version, as worker_knows is, since a step of the schema
 * would lock out older workers while they are replaced. It is made with the first task that has one; those of
 * older programs that delete a task take its row along by the trigger.
 */
#include "tasks/queue/store.h"
#include "tasks/queue/store_internal.h"

static const char trace_table[] = "CREATE TABLE IF NOT EXISTS task_trace (seq INTEGER PRIMARY KEY, parent "
				  "TEXT NOT NULL, state TEXT NOT "
				  "NULL);"
				  "CREATE TRIGGER IF NOT EXISTS task_trace_gone AFTER DELETE ON task BEGIN"
				  " DELETE FROM task_trace WHERE seq = OLD.seq; END";

/* 1: read; 0: there is none, or no table. */
static int store_trace_read(struct store *s, int64_t seq, struct store_lease *ret)
{
	CLEANUP(db_stmt_freep) struct db_stmt *st = NULL;
	struct err ignored;
	if (db_prepare(s->db, "SELECT parent, state FROM task_trace WHERE seq = ?1", &st, &ignored) < 0)
		return 0;
	db_bind_int64(st, 1, seq);
	if (db_step(st, &ignored) != 1)
		return 0;
	span_copy(db_column_text(st, 0), ret->traceparent, sizeof(ret->traceparent));
	span_copy(db_column_text(st, 1), ret->tracestate, sizeof(ret->tracestate));
	return 1;
}

static int store_trace_insert(struct store *s, int64_t seq, struct span parent, struct span state,
			      struct err *e)
{
	CLEANUP(db_stmt_freep) struct db_stmt *st = NULL;
	int r = db_exec(s->db, trace_table, e);
	if (r == 0)
		r = db_prepare(s->db, "INSERT INTO task_trace (seq, parent, state) VALUES (?1, ?2, ?3)", &st,
			       e);
	if (r < 0)
		return r;
	db_bind_int64(st, 1, seq);
	db_bind_text(st, 2, parent);
	db_bind_text(st, 3, state.ptr ? state : SPAN_LIT(""));
	return db_run(st, e);
}

int store_trace_put(struct store *s, int64_t seq, const struct store_task *t, struct err *e)
{
	struct store_lease of = {.seq = 0};
	if (t->traceparent.len)
		return store_trace_insert(s, seq, t->traceparent, t->tracestate, e);
	if (t->parent && store_trace_read(s, t->parent < 0 ? -t->parent : t->parent, &of) == 1)
		return store_trace_insert(s, seq, span_of(of.traceparent), span_of(of.tracestate), e);
	return 0;
}

void store_trace_get(struct store *s, int64_t seq, struct store_lease *ret)
{
	ret->traceparent[0] = ret->tracestate[0] = '\0';
	store_trace_read(s, seq, ret);
}
