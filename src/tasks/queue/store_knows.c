/*
 * What workers know, as they say it: a side table, see store.h.
 *
 * A task is a row without workflow and step 0, a step of a workflow one with both. The marker (step -1) says
 * that the rest is all: it is written last.
 */
#include "tasks/queue/store.h"

#include <errno.h>
#include <stdio.h>

#include "base/clock.h"
#include "tasks/queue/store_internal.h"

#define MARKER (-1)

static const char side_table[] =
	"CREATE TABLE IF NOT EXISTS worker_knows (worker TEXT NOT NULL, workflow TEXT NOT NULL, step INTEGER "
	"NOT NULL,"
	" task TEXT NOT NULL, queue TEXT NOT NULL, PRIMARY KEY (worker, workflow, step, task)) WITHOUT ROWID;"
	/* Also when an older worker, or whoever cleans up, takes the row away. */
	"CREATE TRIGGER IF NOT EXISTS worker_knows_gone AFTER DELETE ON worker BEGIN"
	" DELETE FROM worker_knows WHERE worker = OLD.id; END";

/* --- saying it ------------------------------------------------------------------------------------------ */

static int put_known(struct store *s, struct span worker, int64_t step, const struct store_known *k,
		     struct err *e)
{
	struct db_stmt *st = store_sql(s, SQL_PUBLISH, e);
	if (!st)
		return -EIO;
	db_bind_text(st, 1, worker);
	db_bind_text(st, 2, k->workflow.ptr ? k->workflow : SPAN_LIT(""));
	db_bind_int64(st, 3, step);
	db_bind_text(st, 4, k->task);
	db_bind_text(st, 5, k->queue.ptr ? k->queue : SPAN_LIT(""));
	return db_run(st, e);
}

static int forget_known(struct store *s, struct span worker, struct err *e)
{
	struct db_stmt *st = store_sql(s, SQL_FORGET_KNOWN, e);
	if (!st)
		return -EIO;
	db_bind_text(st, 1, worker);
	return db_run(st, e);
}

int store_publish(struct store *s, struct span worker, const struct store_known *list, size_t n,
		  struct err *e)
{
	const struct store_known marker = {.task = SPAN_LIT("")};
	int64_t step = 0;
	int r = db_exec(s->db, side_table, e);
	if (r == 0)
		r = forget_known(s, worker, e);
	for (size_t i = 0; r == 0 && i < n; i++) {
		step = list[i].workflow.ptr && i && span_eq(list[i].workflow, list[i - 1].workflow) ? step + 1
												    : 0;
		r = put_known(s, worker, step, &list[i], e);
	}
	return r < 0 ? r : put_known(s, worker, MARKER, &marker, e);
}

/* --- asking for it -------------------------------------------------------------------------------------- */

static int side_table_exists(struct store *s, struct err *e)
{
	int64_t n = 0;
	int r = db_query_int64(s->db, "SELECT count(*) FROM sqlite_master WHERE name = 'worker_knows'", &n,
			       e);
	return r < 0 ? r : n > 0;
}

int store_published(struct store *s, struct span worker, struct err *e)
{
	int r = side_table_exists(s, e);
	if (r <= 0)
		return r;
	struct db_stmt *st = store_sql(s, SQL_PUBLISHED, e);
	if (!st)
		return -EIO;
	db_bind_text(st, 1, worker);
	r = db_step(st, e);
	db_reset(st);
	return r;
}

struct known_question {
	struct span queue, name;
	int64_t since_ms;
};

static void bind_question(struct db_stmt *st, const struct known_question *q)
{
	db_bind_int64(st, 1, q->since_ms);
	db_bind_text(st, 2, q->queue);
	db_bind_text(st, 3, q->name);
}

/* `answer` is NO where the queue has no worker at all. */
static int task_known(struct store *s, const struct known_question *q, enum task_answer *answer,
		      char why[256], struct err *e)
{
	struct db_stmt *st = store_sql(s, SQL_TASK_KNOWN, e);
	if (!st)
		return -EIO;
	bind_question(st, q);
	int r = db_step(st, e);
	if (r <= 0)
		return r < 0 ? r : -EIO;
	int64_t live = db_column_int64(st, 0), said = db_column_int64(st, 1), know = db_column_int64(st, 2);
	db_reset(st);
	*answer = TASK_ANSWER_NO;
	if (know > 0)
		*answer = TASK_ANSWER_YES;
	else if (said < live)
		*answer = TASK_ANSWER_UNKNOWN;
	else if (live)
		snprintf(why, 256, "no worker of the queue \"%.*s\" knows the task \"%.*s\"",
			 SPAN_ARG(q->queue), SPAN_ARG(q->name));
	else
		snprintf(why, 256, "no worker serves the queue \"%.*s\"", SPAN_ARG(q->queue));
	return 0;
}

/* The steps as this worker has them: it is the one that begins the workflow, perhaps. */
static int steps_known(struct store *s, const struct known_question *q, struct span worker,
		       enum task_answer *answer, char why[256], struct err *e)
{
	CLEANUP(buf_releasep) struct buf steps = BUF_INIT(1u << 20);
	struct db_stmt *st = store_sql(s, SQL_STEPS_KNOWN, e);
	if (!st)
		return -EIO;
	db_bind_text(st, 1, worker);
	db_bind_text(st, 2, q->name);
	int r;
	while ((r = db_step(st, e)) == 1) {
		for (int column = 0; column < 2; column++) {
			buf_append_span(&steps, db_column_text(st, column));
			buf_putc(&steps, '\0');
		}
	}
	if (r < 0 || steps.error)
		return r < 0 ? r : steps.error;
	*answer = TASK_ANSWER_YES;
	for (size_t at = 0; at < steps.len && *answer != TASK_ANSWER_NO;) {
		struct known_question step = {.since_ms = q->since_ms, .name = span_of(steps.ptr + at)};
		enum task_answer one;
		at += step.name.len + 1;
		step.queue = span_of(steps.ptr + at);
		at += step.queue.len + 1;
		r = task_known(s, &step, &one, why, e);
		if (r < 0)
			return r;
		*answer = one == TASK_ANSWER_YES ? *answer : one;
	}
	return 0;
}

#define KNOWERS_MAX 256

struct knowers {
	char ids[KNOWERS_MAX][TASK_ID_MAX];
	size_t n;
	bool silent; /* one has not said what it knows, or there are too many */
};

static int read_knowers(struct store *s, const struct known_question *q, struct knowers *k, struct err *e)
{
	struct db_stmt *st = store_sql(s, SQL_WORKFLOW_KNOWN, e);
	if (!st)
		return -EIO;
	bind_question(st, q);
	int r;
	while ((r = db_step(st, e)) == 1) {
		bool said = db_column_int64(st, 1) != 0, knows = db_column_int64(st, 2) != 0;
		k->silent |= !said || (knows && k->n == KNOWERS_MAX);
		if (said && knows && k->n < KNOWERS_MAX)
			span_copy(db_column_text(st, 0), k->ids[k->n++], TASK_ID_MAX);
	}
	return r;
}

static int workflow_known(struct store *s, const struct known_question *q, enum task_answer *answer,
			  char why[256], struct err *e)
{
	CLEANUP(freep) struct knowers *k = calloc(1, sizeof(*k));
	if (!k)
		return err_set(e, -ENOMEM, "out of memory");
	int r = read_knowers(s, q, k, e);
	*answer = k->silent ? TASK_ANSWER_UNKNOWN : TASK_ANSWER_NO;
	snprintf(why, 256, "no worker of the queue \"%.*s\" knows the workflow \"%.*s\"", SPAN_ARG(q->queue),
		 SPAN_ARG(q->name));
	for (size_t i = 0; r == 0 && i < k->n && *answer != TASK_ANSWER_YES; i++) {
		enum task_answer one = TASK_ANSWER_UNKNOWN;
		r = steps_known(s, q, span_of(k->ids[i]), &one, why, e);
		*answer = one == TASK_ANSWER_NO ? *answer : one;
	}
	return r;
}

int store_knows(struct store *s, struct span queue, struct span name, bool workflow, unsigned within_ms,
		enum task_answer *ret, char why[256], struct err *e)
{
	const struct known_question q = {queue, name, clock_mono_ms() - within_ms};
	*ret = TASK_ANSWER_UNKNOWN;
	why[0] = '\0';
	int r = side_table_exists(s, e);
	if (r <= 0)
		return r;
	int64_t workers = 0;
	r = store_workers_of(s, queue, within_ms, &workers, e);
	if (r < 0 || workers == 0)
		return r;
	return workflow ? workflow_known(s, &q, ret, why, e) : task_known(s, &q, ret, why, e);
}
