/*
 * workflows.db: the file, its schema, its statements.
 *
 * What changes with every step (run, run_step) is apart from what may be large and is written once
 * (run_input, run_output).
 */
#include "tasks/driver/runs.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/aging.h"
#include "base/clock.h"
#include "base/db.h"
#include "base/file.h"
#include "base/json.h"
#include "base/text.h"

#define RUNS_APPLICATION_ID 0x4d525746 /* "MRWF" */
#define RUNS_DEFAULT_BUSY_MS 2000
#define RUNS_SWEEP_LIMIT "100"

static const char *const runs_schema[] = {
	/* state: enum task_status. driver: the number of the process that drives it. Times: wall clock, us,
	 * 0: not yet, or never. */
	"CREATE TABLE run ("
	" seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, name TEXT NOT NULL, owner TEXT, "
	"request_id "
	"TEXT, queue TEXT, traceparent TEXT, tracestate TEXT, priority INTEGER NOT NULL, expires_ms INTEGER "
	"NOT "
	"NULL, shadow INTEGER NOT NULL, state INTEGER NOT NULL, driver INTEGER NOT NULL, cancel INTEGER NOT "
	"NULL DEFAULT 0, cancelled INTEGER NOT "
	"NULL DEFAULT 0, submitted_us INTEGER NOT NULL, deadline_us INTEGER NOT NULL, completed_us INTEGER "
	"NOT NULL "
	"DEFAULT 0);"
	"CREATE INDEX run_open ON run(driver, seq) WHERE state = 1;"
	"CREATE INDEX run_asked ON run(driver) WHERE state = 1 AND cancel = 1;"
	"CREATE INDEX run_old ON run(completed_us) WHERE completed_us > 0;"
	"CREATE TABLE run_input (seq INTEGER PRIMARY KEY, args TEXT NOT NULL, kwargs TEXT NOT NULL, "
	"definition TEXT "
	"NOT NULL);"
	"CREATE TABLE run_output (seq INTEGER PRIMARY KEY, result TEXT, error TEXT, detail TEXT);"
	/* state: enum run_step_state */
	"CREATE TABLE run_step (seq INTEGER NOT NULL, step INTEGER NOT NULL, item INTEGER NOT NULL, many "
	"INTEGER NOT "
	"NULL, state INTEGER NOT NULL, name TEXT NOT NULL, task TEXT NOT NULL, backend TEXT NOT NULL, "
	"task_id TEXT, submitted_us INTEGER "
	"NOT NULL, started_us INTEGER NOT NULL, completed_us INTEGER NOT NULL, result TEXT, error TEXT, "
	"detail TEXT,"
	" PRIMARY KEY (seq, step, item)) WITHOUT ROWID;"};

enum runs_sql {
	RUNS_INSERT,
	RUNS_INSERT_INPUT,
	RUNS_FIND,
	RUNS_FENCE,
	RUNS_PUT_STEP,
	RUNS_END,
	RUNS_OUTPUT,
	RUNS_CANCEL,
	RUNS_ASKED,
	RUNS_GET,
	RUNS_STEPS,
	RUNS_OTHERS,
	RUNS_TAKE,
	RUNS_INPUT,
	RUNS_STEP_RESULT,
	RUNS_LOAD,
	RUNS_LOAD_STEPS,
	RUNS_DUE,
	RUNS_DELETE_STEPS,
	RUNS_DELETE_INPUT,
	RUNS_DELETE_OUTPUT,
	RUNS_DELETE,
	RUNS_N
};

#define RUNS_OLD \
	"SELECT seq FROM run WHERE completed_us > 0 AND completed_us < ?1 ORDER BY completed_us " \
	"LIMIT " RUNS_SWEEP_LIMIT

static const char *const runs_statements[RUNS_N] = {
	[RUNS_INSERT] =
		"INSERT INTO run (id, name, owner, request_id, queue, traceparent, tracestate, priority, "
		"shadow, state, driver, submitted_us, deadline_us, expires_ms) VALUES (?1, ?2, ?3, ?4, ?5, "
		"?6, ?7, ?8, ?9, 1, ?10, ?11, ?12, ?13) ON CONFLICT (id) DO NOTHING",
	[RUNS_INSERT_INPUT] = "INSERT INTO run_input (seq, args, kwargs, definition) VALUES (?1, ?2, ?3, ?4)",
	[RUNS_FIND] = "SELECT name, owner, seq, state FROM run WHERE id = ?1",
	[RUNS_FENCE] = "SELECT 1 FROM run WHERE seq = ?1 AND driver = ?2 AND state = 1",
	[RUNS_PUT_STEP] =
		"INSERT OR REPLACE INTO run_step (seq, step, item, state, name, task, backend, task_id, "
		"submitted_us, started_us, completed_us, result, error, detail, many) VALUES (?1, ?2, ?3, "
		"?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
	[RUNS_END] = "UPDATE run SET state = ?2, cancelled = ?3, completed_us = ?4 WHERE seq = ?1",
	[RUNS_OUTPUT] = "INSERT INTO run_output (seq, result, error, detail) VALUES (?1, ?2, ?3, ?4)",
	[RUNS_CANCEL] = "UPDATE run SET cancel = 1 WHERE seq = ?1",
	[RUNS_ASKED] = "SELECT id FROM run WHERE driver = ?1 AND state = 1 AND cancel = 1",
	[RUNS_GET] = "SELECT seq, id, name, owner, state, cancelled, submitted_us, completed_us, result, "
		     "error, detail"
		     " FROM run LEFT JOIN run_output USING (seq) WHERE id = ?1",
	[RUNS_STEPS] =
		"SELECT name, item, state, submitted_us, started_us, completed_us, error, many FROM run_step"
		" WHERE seq = ?1 ORDER BY step, item",
	[RUNS_OTHERS] = "SELECT seq, driver FROM run WHERE state = 1 AND driver <> ?1 ORDER BY seq",
	[RUNS_TAKE] = "UPDATE run SET driver = ?3 WHERE seq = ?1 AND driver = ?2 AND state = 1",
	[RUNS_INPUT] = "SELECT args, kwargs FROM run_input WHERE seq = ?1",
	[RUNS_STEP_RESULT] = "SELECT result FROM run_step WHERE seq = ?1 AND step = ?2 AND item = ?3",
	[RUNS_LOAD] =
		"SELECT id, name, owner, request_id, queue, traceparent, tracestate, definition, priority,"
		" shadow, submitted_us, deadline_us, expires_ms, cancel FROM run JOIN run_input USING (seq)"
		" WHERE seq = ?1",
	[RUNS_LOAD_STEPS] = "SELECT name, task, backend, task_id, error, detail, step, item, state, many,"
			    " submitted_us, started_us, completed_us FROM run_step WHERE seq = ?1"
			    " ORDER BY completed_us = 0, completed_us, step, item",
	[RUNS_DUE] = "SELECT EXISTS (SELECT 1 FROM run WHERE completed_us > 0 AND completed_us < ?1)",
	[RUNS_DELETE_STEPS] = "DELETE FROM run_step WHERE seq IN (" RUNS_OLD ")",
	[RUNS_DELETE_INPUT] = "DELETE FROM run_input WHERE seq IN (" RUNS_OLD ")",
	[RUNS_DELETE_OUTPUT] = "DELETE FROM run_output WHERE seq IN (" RUNS_OLD ")",
	[RUNS_DELETE] = "DELETE FROM run WHERE seq IN (" RUNS_OLD ")"};

struct runs {
	struct db *db;
	struct db_stmt *statements[RUNS_N];
	struct aging aging;
};

const char *run_step_text(enum run_step_state s)
{
	static const char *const text[] = {"pending", "running",   "completed",
					   "failed",  "cancelled", "unknown"};
	return text[s];
}

static struct db_stmt *runs_sql(struct runs *s, enum runs_sql which, struct err *e)
{
	if (!s->statements[which])
		db_prepare(s->db, runs_statements[which], &s->statements[which], e);
	else
		db_reset(s->statements[which]);
	return s->statements[which];
}

/* Errors of db_prepare have their sentence; the code is lost with the statement. */
static struct db_stmt *runs_sql_of(struct runs *s, enum runs_sql which, int64_t seq, struct err *e)
{
	struct db_stmt *st = runs_sql(s, which, e);
	if (st)
		db_bind_int64(st, 1, seq);
	return st;
}

/* --- the file ------------------------------------------------------------------------------------------- */

int runs_open(const char *path, int busy_timeout_ms, struct runs **ret, struct err *e)
{
	CLEANUP(runs_closep) struct runs *s = calloc(1, sizeof(*s));
	int64_t newest = 0;
	if (!s)
		return err_set(e, -ENOMEM, "out of memory");
	struct db_options d = {.path = path,
			       .sync_full = true,
			       .busy_timeout_ms = busy_timeout_ms ? busy_timeout_ms : RUNS_DEFAULT_BUSY_MS,
			       .application_id = RUNS_APPLICATION_ID};
	int r = file_make_parent(path, 0700, e);
	if (r == 0)
		r = db_open(&d, &s->db, e);
	if (r == 0)
		r = db_migrate(s->db, runs_schema, sizeof(runs_schema) / sizeof(runs_schema[0]), e);
	if (r == 0)
		r = db_query_int64(
			s->db,
			"SELECT max(coalesce((SELECT submitted_us FROM run ORDER BY seq DESC LIMIT 1), 0),"
			" coalesce((SELECT max(completed_us) FROM run WHERE completed_us > 0), 0))",
			&newest, e);
	if (r < 0)
		return r;
	aging_begin(&s->aging, "workflows", newest);
	*ret = steal(s);
	return 0;
}

struct runs *runs_close(struct runs *s)
{
	if (!s)
		return NULL;
	for (size_t i = 0; i < RUNS_N; i++)
		db_stmt_free(s->statements[i]);
	db_close(s->db);
	free(s);
	return NULL;
}

int runs_begin(struct runs *s, struct err *e)
{
	return db_begin(s->db, e);
}

int runs_commit(struct runs *s, struct err *e)
{
	return db_commit(s->db, e);
}

void runs_rollback(struct runs *s)
{
	for (size_t i = 0; i < RUNS_N; i++)
		if (s->statements[i])
			db_reset(s->statements[i]);
	db_rollback(s->db);
}

int runs_mark(struct runs *s, struct err *e)
{
	return db_exec(s->db, "SAVEPOINT call", e);
}

int runs_back(struct runs *s, struct err *e)
{
	for (size_t i = 0; i < RUNS_N; i++)
		if (s->statements[i])
			db_reset(s->statements[i]);
	return db_exec(s->db, "ROLLBACK TO call", e);
}

int runs_probe(struct runs *s, struct err *e)
{
	return db_probe_write(s->db, e);
}

bool runs_moved(struct runs *s)
{
	return db_moved(s->db);
}

int runs_integrity_check(struct runs *s, struct err *e)
{
	return db_integrity_check(s->db, e);
}

/* --- writing -------------------------------------------------------------------------------------------- */

static int runs_compare_existing(struct runs *s, const struct run_record *r, struct err *e)
{
	struct db_stmt *st = runs_sql(s, RUNS_FIND, e);
	if (!st)
		return -EIO;
	db_bind_text(st, 1, r->id);
	int found = db_step(st, e);
	if (found < 0)
		return found;
	bool same = found == 1 && span_eq(db_column_text(st, 0), r->name) &&
		    span_eq(db_column_text(st, 1), r->owner);
	db_reset(st);
	return same ? RUNS_E_EXISTS : err_set(e, RUNS_E_CONFLICT, "another workflow has this id");
}

int runs_insert(struct runs *s, const struct run_record *r, int64_t driver, int64_t *ret_seq, struct err *e)
{
	struct db_stmt *st = runs_sql(s, RUNS_INSERT, e);
	if (!st)
		return -EIO;
	db_bind_text(st, 1, r->id);
	db_bind_text(st, 2, r->name);
	db_bind_text(st, 3, r->owner);
	db_bind_text(st, 4, r->request_id);
	db_bind_text(st, 5, r->queue);
	db_bind_text(st, 6, r->traceparent);
	db_bind_text(st, 7, r->tracestate);
	db_bind_int64(st, 8, r->priority);
	db_bind_int64(st, 9, r->shadow);
	db_bind_int64(st, 10, driver);
	db_bind_int64(st, 11, r->submitted_us);
	db_bind_int64(st, 12, r->deadline_us);
	db_bind_int64(st, 13, r->expires_ms);
	int code = db_run(st, e);
	if (code < 0)
		return code;
	if (db_changes(s->db) == 0)
		return runs_compare_existing(s, r, e);
	*ret_seq = db_last_insert_rowid(s->db);
	st = runs_sql_of(s, RUNS_INSERT_INPUT, *ret_seq, e);
	if (!st)
		return -EIO;
	db_bind_text(st, 2, r->args);
	db_bind_text(st, 3, r->kwargs);
	db_bind_text(st, 4, r->definition);
	return db_run(st, e);
}

static int runs_fence(struct runs *s, int64_t seq, int64_t driver, struct err *e)
{
	struct db_stmt *st = runs_sql_of(s, RUNS_FENCE, seq, e);
	if (!st)
		return -EIO;
	db_bind_int64(st, 2, driver);
	int r = db_step(st, e);
	db_reset(st);
	if (r < 0)
		return r;
	return r == 1 ? 0 : err_set(e, RUNS_E_STALE, "another process drives this workflow by now");
}

int runs_put_step(struct runs *s, int64_t seq, int64_t driver, const struct run_step *step, struct err *e)
{
	int r = runs_fence(s, seq, driver, e);
	if (r)
		return r;
	struct db_stmt *st = runs_sql_of(s, RUNS_PUT_STEP, seq, e);
	if (!st)
		return -EIO;
	db_bind_int64(st, 2, step->step);
	db_bind_int64(st, 3, step->item);
	db_bind_int64(st, 4, step->state);
	db_bind_text(st, 5, step->name);
	db_bind_text(st, 6, step->task);
	db_bind_text(st, 7, step->backend);
	db_bind_text(st, 8, step->task_id);
	db_bind_int64(st, 9, step->submitted_us);
	db_bind_int64(st, 10, step->started_us);
	db_bind_int64(st, 11, step->completed_us);
	db_bind_text(st, 12, step->result);
	db_bind_text(st, 13, step->error);
	db_bind_text(st, 14, step->detail);
	db_bind_int64(st, 15, step->one_of_many);
	return db_run(st, e);
}

int runs_end(struct runs *s, int64_t seq, int64_t driver, const struct run_end *end, struct err *e)
{
	int r = runs_fence(s, seq, driver, e);
	if (r)
		return r;
	struct db_stmt *st = runs_sql_of(s, RUNS_END, seq, e);
	if (!st)
		return -EIO;
	db_bind_int64(st, 2, end->result.ptr ? TASK_COMPLETED : TASK_FAILED);
	db_bind_int64(st, 3, end->cancelled);
	db_bind_int64(st, 4, clock_wall_us());
	r = db_run(st, e);
	if (r < 0)
		return r;
	st = runs_sql_of(s, RUNS_OUTPUT, seq, e);
	if (!st)
		return -EIO;
	db_bind_text(st, 2, end->result);
	db_bind_text(st, 3, end->error);
	db_bind_text(st, 4, end->detail);
	return db_run(st, e);
}

int runs_cancel(struct runs *s, struct span id, struct err *e)
{
	struct db_stmt *st = runs_sql(s, RUNS_FIND, e);
	if (!st)
		return -EIO;
	db_bind_text(st, 1, id);
	int r = db_step(st, e);
	if (r <= 0)
		return r < 0 ? r : RUNS_E_NOT_FOUND;
	int64_t seq = db_column_int64(st, 2);
	bool ended = db_column_int64(st, 3) >= TASK_COMPLETED;
	db_reset(st);
	if (ended)
		return 0;
	st = runs_sql_of(s, RUNS_CANCEL, seq, e);
	return st ? db_run(st, e) : -EIO;
}

/* --- looking -------------------------------------------------------------------------------------------- */

int runs_asked(struct runs *s, int64_t driver, void (*fn)(void *arg, struct span id), void *arg,
	       struct err *e)
{
	struct db_stmt *st = runs_sql_of(s, RUNS_ASKED, driver, e);
	int r;
	if (!st)
		return -EIO;
	while ((r = db_step(st, e)) == 1)
		fn(arg, db_column_text(st, 0));
	return r;
}

static void runs_put_time(struct buf *out, const char *key, int64_t us)
{
	char text[CLOCK_TEXT_MAX];
	if (us)
		clock_format(us, text);
	buf_printf(out, us ? ", \"%s\": \"%s\"" : ", \"%s\": null", key, text);
}

/* What callers may know: a step's error masked, nothing of where it ran. */
static void runs_put_step_json(struct buf *out, struct db_stmt *st)
{
	struct span error = db_column_text(st, 6);
	buf_puts(out, "{\"name\": ");
	json_quote(out, db_column_text(st, 0));
	if (db_column_int64(st, 7))
		buf_printf(out, ", \"item\": %lld", (long long)db_column_int64(st, 1));
	buf_printf(out, ", \"status\": \"%s\"", run_step_text((enum run_step_state)db_column_int64(st, 2)));
	runs_put_time(out, "submitted_at", db_column_int64(st, 3));
	runs_put_time(out, "started_at", db_column_int64(st, 4));
	runs_put_time(out, "completed_at", db_column_int64(st, 5));
	if (error.ptr) {
		CLEANUP(buf_releasep) struct buf masked = BUF_INIT(TEXT_MASKED_MAX);
		text_put_masked(&masked, error);
		buf_puts(out, ", \"error\": ");
		json_quote(out, buf_span(&masked));
	}
	buf_putc(out, '}');
}

static int runs_put_steps(struct runs *s, int64_t seq, struct buf *out, struct err *e)
{
	struct db_stmt *st = runs_sql_of(s, RUNS_STEPS, seq, e);
	const char *separator = "";
	int r;
	if (!st)
		return -EIO;
	buf_putc(out, '[');
	while ((r = db_step(st, e)) == 1) {
		buf_puts(out, separator);
		runs_put_step_json(out, st);
		separator = ", ";
	}
	buf_putc(out, ']');
	return r;
}

/* Columns go away with the statement: they move into `text`. */
static void runs_copy(struct db_stmt *st, int column, struct buf *text, size_t *at, size_t *n)
{
	struct span from = db_column_text(st, column);
	*at = from.ptr ? text->len : SIZE_MAX;
	*n = from.len;
	buf_append_span(text, from);
}

int runs_get(struct runs *s, struct span id, struct buf *text, struct task_result *ret, struct err *e)
{
	struct db_stmt *st = runs_sql(s, RUNS_GET, e);
	struct span *const spans[] = {&ret->task_id, &ret->task_name, &ret->owner,
				      &ret->result,  &ret->error,     &ret->error_detail};
	static const int columns[] = {1, 2, 3, 8, 9, 10};
	size_t at[6], n[6];
	if (!st)
		return -EIO;
	db_bind_text(st, 1, id);
	int r = db_step(st, e);
	if (r <= 0)
		return r < 0 ? r : RUNS_E_NOT_FOUND;
	*ret = (struct task_result){.status = (enum task_status)db_column_int64(st, 4),
				    .cancelled = db_column_int64(st, 5) != 0,
				    .submitted_us = db_column_int64(st, 6),
				    .started_us = db_column_int64(st, 6),
				    .completed_us = db_column_int64(st, 7),
				    .attempts = 1};
	int64_t seq = db_column_int64(st, 0);
	buf_clear(text);
	for (size_t i = 0; i < 6; i++)
		runs_copy(st, columns[i], text, &at[i], &n[i]);
	db_reset(st);
	size_t steps = text->len;
	r = runs_put_steps(s, seq, text, e);
	if (r < 0)
		return r;
	if (text->error)
		return err_set(e, text->error, "the result is too large to be read");
	for (size_t i = 0; i < 6; i++)
		*spans[i] = at[i] == SIZE_MAX ? SPAN_NONE : (struct span){text->ptr + at[i], n[i]};
	ret->steps = (struct span){text->ptr + steps, text->len - steps};
	return 0;
}

int runs_input(struct runs *s, int64_t seq, struct buf *args, struct buf *kwargs, struct err *e)
{
	struct db_stmt *st = runs_sql_of(s, RUNS_INPUT, seq, e);
	if (!st)
		return -EIO;
	int r = db_step(st, e);
	if (r <= 0)
		return r < 0 ? r : RUNS_E_NOT_FOUND;
	buf_append_span(args, db_column_text(st, 0));
	buf_append_span(kwargs, db_column_text(st, 1));
	db_reset(st);
	r = args->error ? args->error : kwargs->error;
	return r < 0 ? err_set(e, r, "a workflow's input cannot be read: %s", strerror(-r)) : 0;
}

int runs_step_result(struct runs *s, int64_t seq, unsigned step, unsigned item, struct buf *out,
		     struct err *e)
{
	struct db_stmt *st = runs_sql_of(s, RUNS_STEP_RESULT, seq, e);
	if (!st)
		return -EIO;
	db_bind_int64(st, 2, step);
	db_bind_int64(st, 3, item);
	int r = db_step(st, e);
	if (r <= 0 || db_column_is_null(st, 0)) {
		db_reset(st);
		return r < 0 ? r : err_set(e, -EUCLEAN, "a step's result is not there");
	}
	buf_append_span(out, db_column_text(st, 0));
	db_reset(st);
	return out->error
		       ? err_set(e, out->error, "a step's result cannot be read: %s", strerror(-out->error))
		       : 0;
}

int runs_of_others(struct runs *s, int64_t driver, void (*fn)(void *arg, int64_t seq, int64_t driver),
		   void *arg, struct err *e)
{
	struct db_stmt *st = runs_sql_of(s, RUNS_OTHERS, driver, e);
	int r;
	if (!st)
		return -EIO;
	while ((r = db_step(st, e)) == 1)
		fn(arg, db_column_int64(st, 0), db_column_int64(st, 1));
	return r;
}

int runs_take(struct runs *s, int64_t seq, int64_t from, int64_t driver, struct err *e)
{
	struct db_stmt *st = runs_sql_of(s, RUNS_TAKE, seq, e);
	if (!st)
		return -EIO;
	db_bind_int64(st, 2, from);
	db_bind_int64(st, 3, driver);
	int r = db_run(st, e);
	if (r < 0)
		return r;
	return db_changes(s->db) ? 0
				 : err_set(e, RUNS_E_STALE, "another process drives this workflow by now");
}

int runs_load(struct runs *s, int64_t seq, void (*on_run)(void *arg, const struct run_record *r),
	      void (*on_step)(void *arg, const struct run_step *step), void *arg, struct err *e)
{
	struct db_stmt *st = runs_sql_of(s, RUNS_LOAD, seq, e);
	if (!st)
		return -EIO;
	int r = db_step(st, e);
	if (r <= 0)
		return r < 0 ? r : RUNS_E_NOT_FOUND;
	const struct run_record run = {.seq = seq,
				       .id = db_column_text(st, 0),
				       .name = db_column_text(st, 1),
				       .owner = db_column_text(st, 2),
				       .request_id = db_column_text(st, 3),
				       .queue = db_column_text(st, 4),
				       .traceparent = db_column_text(st, 5),
				       .tracestate = db_column_text(st, 6),
				       .definition = db_column_text(st, 7),
				       .priority = (int)db_column_int64(st, 8),
				       .shadow = db_column_int64(st, 9) != 0,
				       .submitted_us = db_column_int64(st, 10),
				       .deadline_us = db_column_int64(st, 11),
				       .expires_ms = (unsigned)db_column_int64(st, 12),
				       .cancel = db_column_int64(st, 13) != 0};
	on_run(arg, &run);
	db_reset(st);
	st = runs_sql_of(s, RUNS_LOAD_STEPS, seq, e);
	if (!st)
		return -EIO;
	while ((r = db_step(st, e)) == 1) {
		const struct run_step step = {.name = db_column_text(st, 0),
					      .task = db_column_text(st, 1),
					      .backend = db_column_text(st, 2),
					      .task_id = db_column_text(st, 3),
					      .error = db_column_text(st, 4),
					      .detail = db_column_text(st, 5),
					      .step = (unsigned)db_column_int64(st, 6),
					      .item = (unsigned)db_column_int64(st, 7),
					      .state = (enum run_step_state)db_column_int64(st, 8),
					      .one_of_many = db_column_int64(st, 9) != 0,
					      .submitted_us = db_column_int64(st, 10),
					      .started_us = db_column_int64(st, 11),
					      .completed_us = db_column_int64(st, 12)};
		on_step(arg, &step);
	}
	return r;
}

/* --- old ones ------------------------------------------------------------------------------------------- */

static int runs_delete_before(struct runs *s, int64_t before_us, struct err *e)
{
	int r = db_begin(s->db, e);
	for (int which = RUNS_DELETE_STEPS; r >= 0 && which <= RUNS_DELETE; which++) {
		struct db_stmt *st = runs_sql_of(s, (enum runs_sql)which, before_us, e);
		r = st ? db_run(st, e) : -EIO;
	}
	int64_t n = r >= 0 ? db_changes(s->db) : 0;
	if (r >= 0)
		r = db_commit(s->db, e);
	if (r < 0)
		runs_rollback(s);
	return r < 0 ? r : (int)n;
}

int runs_sweep(struct runs *s, int64_t retention_ms, unsigned *ret, struct err *e)
{
	int64_t before_us = aging_now(&s->aging) - retention_ms * 1000;
	*ret = 0;
	struct db_stmt *st = runs_sql_of(s, RUNS_DUE, before_us, e);
	if (!st)
		return -EIO;
	int r = db_step(st, e);
	bool due = r == 1 && db_column_int64(st, 0);
	db_reset(st);
	if (r < 0 || !due)
		return r < 0 ? r : 0;
	r = runs_delete_before(s, before_us, e);
	*ret = r > 0 ? (unsigned)r : 0;
	return r < 0 ? r : 0;
}
