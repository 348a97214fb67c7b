/*
 * tasks.db: the file, its schema and statements; inserting and looking. Leases are store_lease.c, workflows
 * store_workflow.c.
 *
 * What workers change all the time (task) is apart from what may be large (input, output), so that a
 * heartbeat writes one page.
 */
#include "tasks/queue/store.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/file.h"
#include "tasks/queue/store_internal.h"

#define APPLICATION_ID 0x4d525451 /* "MRTQ" */
#define DEFAULT_BUSY_MS 2000
#define DEFAULT_GRACE_MS 4000 /* a worker in trouble tries each second, and waits two for a lock */
#define SLOW_MS 1000
#define DEFAULT_MAX_RESULT (64u << 20)
#define BACKLOG_CUT "100000"
#define BOOT_ID_FILE "/proc/sys/kernel/random/boot_id"

static const char *const schema[] = {
	/* monotonic ms, 0 = never */
	"CREATE TABLE task ("
	" seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, name TEXT NOT NULL, queue TEXT NOT "
	"NULL,"
	" workflow INTEGER NOT NULL, state INTEGER NOT NULL, priority INTEGER NOT NULL, idempotent INTEGER "
	"NOT NULL,"
	" attempts INTEGER NOT NULL DEFAULT 0, max_attempts INTEGER NOT NULL DEFAULT 1, timeout_ms INTEGER "
	"NOT NULL,"
	" expires_ms INTEGER NOT NULL, wait_ms INTEGER NOT NULL, expires_at INTEGER NOT NULL,"
	" token INTEGER NOT NULL DEFAULT 0, lease_until INTEGER NOT NULL DEFAULT 0, worker TEXT,"
	" cancel INTEGER NOT NULL DEFAULT 0, cancelled INTEGER NOT NULL DEFAULT 0,"
	" submitted_us INTEGER NOT NULL, started_us INTEGER NOT NULL DEFAULT 0, completed_us INTEGER NOT "
	"NULL DEFAULT 0,"
	" parent INTEGER, step INTEGER, deadline_at INTEGER NOT NULL DEFAULT 0, request_id TEXT, owner TEXT);"
	"CREATE INDEX task_ready ON task(queue, priority DESC, seq) WHERE state = 0;"
	"CREATE INDEX task_leased ON task(lease_until) WHERE state = 1 AND lease_until > 0;"
	"CREATE INDEX task_expiry ON task(expires_at) WHERE state = 0 AND expires_at > 0;"
	"CREATE INDEX task_deadline ON task(deadline_at) WHERE state = 1 AND deadline_at > 0;"
	"CREATE INDEX task_cancel ON task(worker) WHERE state = 1 AND cancel = 1;"
	"CREATE INDEX task_parent ON task(parent, step) WHERE parent IS NOT NULL;"
	"CREATE INDEX task_old ON task(completed_us) WHERE completed_us > 0 AND parent IS NULL;"
	"CREATE TABLE input (seq INTEGER PRIMARY KEY, args TEXT NOT NULL, kwargs TEXT NOT NULL);"
	"CREATE TABLE output (seq INTEGER PRIMARY KEY, result TEXT, error TEXT, detail TEXT);"
	"CREATE TABLE plan (seq INTEGER NOT NULL, step INTEGER NOT NULL, name TEXT NOT NULL, task TEXT NOT "
	"NULL,"
	" queue TEXT NOT NULL, kwargs TEXT, input INTEGER NOT NULL, timeout_ms INTEGER NOT NULL, PRIMARY KEY "
	"(seq, step))"
	" WITHOUT ROWID;"
	"CREATE TABLE finished (n INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL);"
	"CREATE TABLE worker (id TEXT PRIMARY KEY, name TEXT NOT NULL, host TEXT NOT NULL, queues TEXT NOT "
	"NULL,"
	" pid INTEGER NOT NULL, concurrency INTEGER NOT NULL, seen_at INTEGER NOT NULL) WITHOUT ROWID;"
	"CREATE TABLE boot (id TEXT NOT NULL);"};

/* Of queue ?2, seen after ?1. */
#define LIVE_WORKERS " FROM worker WHERE seen_at > ?1 AND instr(',' || queues || ',', ',' || ?2 || ',') > 0"

static const char *const sql[SQL_N] = {
	[SQL_INSERT] = "INSERT INTO task (id, name, queue, workflow, state, priority, idempotent, "
		       "timeout_ms, expires_ms,"
		       " wait_ms, expires_at, submitted_us, parent, step, request_id, owner)"
		       " VALUES (?1, ?2, ?3, ?4, 0, ?5, ?6, ?7, ?8, ?15, ?9, ?10, ?11, ?12, ?13, ?14) ON "
		       "CONFLICT (id) DO NOTHING",
	[SQL_INSERT_INPUT] = "INSERT INTO input (seq, args, kwargs) VALUES (?1, ?2, ?3)",
	[SQL_FIND] = "SELECT seq, state, name, owner, workflow FROM task WHERE id = ?1",
	[SQL_GET] = "SELECT id, name, state, cancelled, submitted_us, started_us, completed_us, attempts, "
		    "owner, result,"
		    " error, detail FROM task LEFT JOIN output USING (seq) WHERE id = ?1",
	[SQL_FINISHED_SINCE] = "SELECT n, id FROM finished WHERE n > ?1 ORDER BY n LIMIT ?2",
	[SQL_FINISHED_LAST] = "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'finished'), 0)",
	[SQL_BACKLOG] = "SELECT count(*) FROM (SELECT 1 FROM task WHERE state = 0 LIMIT " BACKLOG_CUT ")",
	[SQL_WORKER_BEAT] =
		"INSERT INTO worker (id, name, host, queues, pid, concurrency, seen_at)"
		" VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (id) DO UPDATE SET seen_at = ?7",
	[SQL_WORKER_GONE] = "DELETE FROM worker WHERE id = ?1",
	[SQL_WORKERS] = "SELECT count(*) FROM worker WHERE seen_at > ?1",
	[SQL_PUBLISHED] = "SELECT 1 FROM worker_knows WHERE worker = ?1 AND workflow = '' AND step = -1",
	[SQL_FORGET_KNOWN] = "DELETE FROM worker_knows WHERE worker = ?1",
	[SQL_PUBLISH] = "INSERT OR REPLACE INTO worker_knows (worker, workflow, step, task, queue)"
			" VALUES (?1, ?2, ?3, ?4, ?5)",
	[SQL_TASK_KNOWN] =
		"SELECT count(*), total(EXISTS (SELECT 1 FROM worker_knows k WHERE"
		" k.worker = worker.id AND workflow = '' AND step = -1)), total(EXISTS (SELECT 1 FROM "
		"worker_knows k"
		" WHERE k.worker = worker.id AND workflow = '' AND step = 0 AND task = ?3))" LIVE_WORKERS,
	[SQL_WORKFLOW_KNOWN] = "SELECT id, EXISTS (SELECT 1 FROM worker_knows k WHERE k.worker = worker.id"
			       " AND workflow = '' AND step = -1), EXISTS (SELECT 1 FROM worker_knows k"
			       " WHERE k.worker = worker.id AND workflow = ?3)" LIVE_WORKERS,
	[SQL_STEPS_KNOWN] = "SELECT task, queue FROM worker_knows WHERE worker = ?1 AND workflow = ?2"
			    " ORDER BY step",
	[SQL_WORKERS_OF] = "SELECT count(*)" LIVE_WORKERS,
	[SQL_WORKERS_OLD] = "DELETE FROM worker WHERE seen_at < ?1",
	[SQL_READY] = "SELECT name, workflow FROM task WHERE state = 0 AND queue = ?1 AND (expires_at = 0 OR "
		      "expires_at > ?2)"
		      " ORDER BY priority DESC, seq",
	[SQL_CANDIDATES] =
		"SELECT seq, id, name, queue, workflow, idempotent, attempts, timeout_ms, owner FROM task "
		"WHERE state = 0"
		" AND queue = ?1 AND (expires_at = 0 OR expires_at > ?2) ORDER BY priority DESC, seq",
	[SQL_TAKE] = "UPDATE task SET state = 1, attempts = attempts + 1, max_attempts = ?2, token = ?3, "
		     "lease_until = ?4,"
		     " worker = ?5, started_us = ?6 WHERE seq = ?1 AND state = 0",
	[SQL_EXTEND] = "UPDATE task SET lease_until = ?3 WHERE seq = ?1 AND token = ?2 AND state = 1",
	[SQL_FENCE] = "SELECT 1 FROM task WHERE seq = ?1 AND token = ?2 AND state = 1",
	[SQL_END] = "UPDATE task SET state = ?2, cancelled = ?3, completed_us = ?4, lease_until = 0 WHERE "
		    "seq = ?1 AND state < 2"
		    " RETURNING id, parent, step, workflow",
	[SQL_OUTPUT] = "INSERT INTO output (seq, result, error, detail) VALUES (?1, ?2, ?3, ?4)",
	[SQL_MARK] = "INSERT INTO finished (id) VALUES (?1)",
	[SQL_REQUEUE] = "UPDATE task SET state = 0, token = 0, lease_until = 0, worker = NULL"
			" WHERE seq = ?1 AND state = 1",
	[SQL_GIVE_BACK] = "UPDATE task SET state = 0, token = 0, lease_until = 0, worker = NULL, attempts = "
			  "attempts - 1, started_us = 0"
			  " WHERE seq = ?1 AND state = 1",
	[SQL_CANCEL_ASK] = "UPDATE task SET cancel = 1 WHERE seq = ?1",
	[SQL_CANCELLED] = "SELECT seq FROM task WHERE state = 1 AND cancel = 1 AND worker = ?1",
	[SQL_PLAN_INSERT] = "INSERT INTO plan (seq, step, name, task, queue, kwargs, input, timeout_ms)"
			    " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
	[SQL_PLAN_NAME] = "SELECT name FROM plan WHERE seq = ?1 AND step = ?2",
	[SQL_ATTEMPTS] = "SELECT attempts, max_attempts, cancel FROM task WHERE seq = ?1 AND state = 1",
	[SQL_WORKFLOW_RUN] = "UPDATE task SET lease_until = 0, worker = NULL, deadline_at = ?2, timeout_ms = "
			     "?3 WHERE seq = ?1 AND state = 1",
	[SQL_STEP_RESULTS] = "SELECT plan.name, output.result FROM task JOIN output USING (seq)"
			     " JOIN plan ON plan.seq = task.parent AND plan.step = task.step WHERE "
			     "task.parent = ?1 ORDER BY task.step",
	[SQL_STEP_OPEN] = "SELECT task.seq, plan.name FROM task JOIN plan ON plan.seq = task.parent AND "
			  "plan.step = task.step"
			  " WHERE task.parent = ?1 AND task.state < 2",
	[SQL_PARENT] = "SELECT state, cancel, priority, request_id, owner, workflow, wait_ms FROM task WHERE "
		       "seq = ?1",
	[SQL_DUE] =
		"SELECT EXISTS (SELECT 1 FROM task WHERE state = 1 AND lease_until > 0 AND lease_until <= ?1)"
		" OR EXISTS (SELECT 1 FROM task WHERE state = 0 AND expires_at > 0 AND expires_at <= ?1)"
		" OR EXISTS (SELECT 1 FROM task WHERE state = 1 AND deadline_at > 0 AND deadline_at <= ?1)"
		" OR EXISTS (SELECT 1 FROM flow_due)"
		" OR EXISTS (SELECT 1 FROM task WHERE completed_us > 0 AND parent IS NULL AND completed_us < "
		"?2)",
	[SQL_DUE_LEASE] = "SELECT seq, 0 FROM task WHERE state = 1 AND lease_until > 0"
			  " AND lease_until <= ?1 AND lease_until & 1 = 1 LIMIT 200",
	[SQL_DOUBT_LEASE] =
		"UPDATE task SET lease_until = ?2 WHERE state = 1 AND lease_until > 0 AND lease_until <= ?1"
		" AND lease_until & 1 = 0",
	[SQL_DUE_EXPIRED] = "SELECT seq, expires_ms FROM task WHERE state = 0 AND expires_at > 0 AND "
			    "expires_at <= ?1 LIMIT 200",
	[SQL_DUE_WORKFLOW] = "SELECT seq, timeout_ms FROM task WHERE state = 1 AND deadline_at > 0 AND "
			     "deadline_at <= ?1 LIMIT 200",
	[SQL_OLD] = "SELECT seq, 0 FROM task WHERE completed_us > 0 AND parent IS NULL AND completed_us < ?1"
		    " ORDER BY completed_us LIMIT 100",
	[SQL_MARKS_OLD] = "DELETE FROM finished WHERE n < ?1",
	[SQL_FLOW] = "SELECT definition FROM flow WHERE seq = ?1",
	[SQL_FLOW_INSERT] = "INSERT INTO flow (seq, definition) VALUES (?1, ?2)",
	[SQL_FLOW_OPEN] = "SELECT seq, step FROM task WHERE parent = ?1 AND state < 2 ORDER BY seq",
	[SQL_FLOW_ERROR] = "SELECT error, detail FROM output WHERE seq = ?1",
	[SQL_FLOW_DUE] = "SELECT seq FROM flow_due WHERE seq > ?1 ORDER BY seq LIMIT 1",
	[SQL_FLOW_MAKE_DUE] = "INSERT OR IGNORE INTO flow_due (seq) VALUES (?1)",
	[SQL_FLOW_NOT_DUE] = "DELETE FROM flow_due WHERE seq = ?1",
	[SQL_STEPS] = "SELECT step, state, cancelled, submitted_us, started_us, completed_us,"
		      " CASE WHEN state = 3 THEN (SELECT error FROM output WHERE output.seq = task.seq) END,"
		      " (SELECT name FROM plan WHERE plan.seq = task.parent AND plan.step = task.step)"
		      " FROM task WHERE parent = ?1 ORDER BY seq"};

struct db_stmt *store_sql(struct store *s, enum store_sql which, struct err *e)
{
	if (!s->statements[which])
		db_prepare(s->db, sql[which], &s->statements[which], e);
	else
		db_reset(s->statements[which]);
	return s->statements[which];
}

int store_row(struct store *s, enum store_sql which, int64_t key, struct db_stmt **ret, struct err *e)
{
	*ret = store_sql(s, which, e);
	if (!*ret)
		return -EIO;
	db_bind_int64(*ret, 1, key);
	return db_step(*ret, e);
}

int store_change(struct store *s, enum store_sql which, int64_t key, struct err *e)
{
	struct db_stmt *st = store_sql(s, which, e);
	if (!st)
		return -EIO;
	db_bind_int64(st, 1, key);
	return db_run(st, e);
}

int store_fence(struct store *s, int64_t seq, int64_t token, struct err *e)
{
	struct db_stmt *st = store_sql(s, SQL_FENCE, e);
	if (!st)
		return -EIO;
	db_bind_int64(st, 1, seq);
	db_bind_int64(st, 2, token);
	int r = db_step(st, e);
	db_reset(st);
	if (r < 0)
		return r;
	return r == 1 ? 0 : err_set(e, STORE_E_STALE, "the lease is no longer this worker's");
}

/* --- the file ------------------------------------------------------------------------------------------- */

static int bind_run(struct store *s, const char *text, struct span a, int64_t b, int64_t c, struct err *e)
{
	CLEANUP(db_stmt_freep) struct db_stmt *st = NULL;
	int r = db_prepare(s->db, text, &st, e);
	if (r < 0)
		return r;
	if (a.ptr)
		db_bind_text(st, 1, a);
	else
		db_bind_int64(st, 1, b);
	if (c)
		db_bind_int64(st, 2, c);
	return db_run(st, e);
}

/* After a reboot the monotonic clock restarted: leases are void, waiting times continue by the wall clock. */
static int set_clocks_anew(struct store *s, struct span boot, struct err *e)
{
	int64_t wall_ms = clock_wall_us() / 1000, mono_ms = clock_mono_ms();
	int r = db_exec(
		s->db,
		"DELETE FROM boot; UPDATE task SET lease_until = 1 WHERE state = 1 AND lease_until > 0;"
		"DELETE FROM worker;",
		e);
	if (r == 0)
		r = bind_run(s, "INSERT INTO boot (id) VALUES (?1)", boot, 0, 0, e);
	if (r == 0)
		r = bind_run(
			s,
			"UPDATE task SET expires_at = ?2 + max(1 - ?2, submitted_us / 1000 + wait_ms - ?1)"
			" WHERE state = 0 AND expires_at > 0",
			SPAN_NONE, wall_ms, mono_ms, e);
	if (r == 0)
		r = bind_run(
			s,
			"UPDATE task SET deadline_at = ?2 + max(1 - ?2, started_us / 1000 + timeout_ms - ?1)"
			" WHERE state = 1 AND deadline_at > 0",
			SPAN_NONE, wall_ms, mono_ms, e);
	return r;
}

static int check_boot(struct store *s, struct err *e)
{
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(1 << 17);
	int r = file_read(BOOT_ID_FILE, 1000, &text, e);
	if (r < 0)
		return r;
	struct span boot = buf_span(&text);
	if (boot.len && boot.ptr[boot.len - 1] == '\n')
		boot.len--;
	CLEANUP(db_stmt_freep) struct db_stmt *st = NULL;
	r = db_prepare(s->db, "SELECT 1 FROM boot WHERE id = ?1", &st, e);
	if (r < 0)
		return r;
	db_bind_text(st, 1, boot);
	r = db_step(st, e);
	if (r < 0)
		return r;
	db_reset(st);
	if (r == 1)
		return 0;
	r = db_begin(s->db, e);
	if (r == 0)
		r = set_clocks_anew(s, boot, e);
	if (r == 0)
		r = db_commit(s->db, e);
	if (r < 0)
		db_rollback(s->db);
	return r;
}

static int begin_aging(struct store *s, struct err *e)
{
	int64_t newest;
	int r = db_query_int64(s->db,
			       "SELECT max(coalesce((SELECT submitted_us FROM task ORDER BY seq DESC LIMIT "
			       "1), 0), coalesce((SELECT"
			       " max(completed_us) FROM task WHERE completed_us > 0 AND parent IS NULL), 0))",
			       &newest, e);
	if (r == 0)
		aging_begin(&s->aging, "tasks", newest);
	return r;
}

int store_open(const struct store_options *o, struct store **ret, struct err *e)
{
	CLEANUP(store_closep) struct store *s = calloc(1, sizeof(*s));
	if (!s)
		return err_set(e, -ENOMEM, "out of memory");
	s->grace_ms = o->grace_ms ? o->grace_ms : DEFAULT_GRACE_MS;
	s->max_result = o->max_result ? o->max_result : DEFAULT_MAX_RESULT;
	struct db_options d = {.path = o->path,
			       .sync_full = true,
			       .busy_timeout_ms = o->busy_timeout_ms ? o->busy_timeout_ms : DEFAULT_BUSY_MS,
			       .application_id = APPLICATION_ID};
	int r = file_make_parent(o->path, 0700, e);
	if (r == 0)
		r = db_open(&d, &s->db, e);
	if (r == 0)
		r = db_migrate(s->db, schema, sizeof(schema) / sizeof(schema[0]), e);
	if (r == 0)
		r = store_flow_tables(s, e);
	if (r == 0)
		r = check_boot(s, e);
	if (r == 0)
		r = begin_aging(s, e);
	if (r < 0)
		return r;
	*ret = steal(s);
	return 0;
}

struct store *store_close(struct store *s)
{
	if (!s)
		return NULL;
	for (size_t i = 0; i < SQL_N; i++)
		db_stmt_free(s->statements[i]);
	db_close(s->db);
	free(s);
	return NULL;
}

int store_begin(struct store *s, struct err *e)
{
	int64_t asked_ms = clock_mono_ms();
	int r = db_begin(s->db, e);
	if (r < 0 || clock_mono_ms() - asked_ms >= SLOW_MS)
		s->quiet_until_ms = clock_mono_ms() + s->grace_ms;
	return r;
}

int store_commit(struct store *s, struct err *e)
{
	int r = db_commit(s->db, e);
	if (r < 0)
		s->quiet_until_ms = clock_mono_ms() + s->grace_ms;
	return r;
}

void store_rollback(struct store *s)
{
	for (size_t i = 0; i < SQL_N; i++)
		if (s->statements[i])
			db_reset(s->statements[i]);
	db_rollback(s->db);
}

int store_probe(struct store *s, struct err *e)
{
	return db_probe_write(s->db, e);
}

bool store_moved(struct store *s)
{
	return db_moved(s->db);
}

int store_integrity_check(struct store *s, struct err *e)
{
	return db_integrity_check(s->db, e);
}

/* --- inserting ------------------------------------------------------------------------------------------ */

static int compare_existing(struct store *s, const struct store_task *t, struct err *e)
{
	struct db_stmt *st = store_sql(s, SQL_FIND, e);
	if (!st)
		return -EIO;
	db_bind_text(st, 1, t->id);
	int r = db_step(st, e);
	if (r < 0)
		return r;
	bool same = r == 1 && span_eq(db_column_text(st, 2), t->name) &&
		    span_eq(db_column_text(st, 3), t->owner) && (db_column_int64(st, 4) != 0) == t->workflow;
	db_reset(st);
	return same ? STORE_E_EXISTS : err_set(e, STORE_E_CONFLICT, "another task has this id");
}

int store_insert(struct store *s, const struct store_task *t, struct err *e)
{
	struct db_stmt *st = store_sql(s, SQL_INSERT, e);
	if (!st)
		return -EIO;
	db_bind_text(st, 1, t->id);
	db_bind_text(st, 2, t->name);
	db_bind_text(st, 3, t->queue);
	db_bind_int64(st, 4, t->workflow);
	db_bind_int64(st, 5, t->priority);
	db_bind_int64(st, 6, t->idempotent);
	db_bind_int64(st, 7, t->timeout_ms);
	db_bind_int64(st, 8, t->expires_ms);
	unsigned wait_ms = t->expires_ms ? t->expires_ms : t->pending_ms;
	db_bind_int64(st, 9, wait_ms ? clock_mono_ms() + wait_ms : 0);
	db_bind_int64(st, 15, wait_ms);
	db_bind_int64(st, 10, clock_wall_us());
	if (t->parent)
		db_bind_int64(st, 11, t->parent);
	else
		db_bind_null(st, 11);
	db_bind_int64(st, 12, t->step);
	db_bind_text(st, 13, t->request_id);
	db_bind_text(st, 14, t->owner);
	int r = db_run(st, e);
	if (r < 0)
		return r;
	if (db_changes(s->db) == 0)
		return compare_existing(s, t, e);
	int64_t seq = db_last_insert_rowid(s->db);
	s->news = true;
	st = store_sql(s, SQL_INSERT_INPUT, e);
	if (!st)
		return -EIO;
	db_bind_int64(st, 1, seq);
	db_bind_text(st, 2, t->args);
	db_bind_text(st, 3, t->kwargs);
	r = db_run(st, e);
	return r < 0 ? r : store_trace_put(s, seq, t, e);
}

/* --- looking -------------------------------------------------------------------------------------------- */

/* Columns go away with the statement: they move into `text`, first all bytes, then the spans over them. */
static int copy_columns(struct db_stmt *st, const int *columns, struct span *out[], size_t n,
			struct buf *text)
{
	size_t total = 0;
	for (size_t i = 0; i < n; i++)
		total += db_column_text(st, columns[i]).len;
	int r = buf_reserve(text, total);
	for (size_t i = 0; r == 0 && i < n; i++) {
		struct span from = db_column_text(st, columns[i]);
		const char *at = text->ptr + text->len;
		r = buf_append_span(text, from);
		*out[i] = from.ptr ? (struct span){at, from.len} : SPAN_NONE;
	}
	return r;
}

int store_get(struct store *s, struct span id, struct buf *text, struct task_result *ret, struct err *e)
{
	struct db_stmt *st = store_sql(s, SQL_GET, e);
	if (!st)
		return -EIO;
	db_bind_text(st, 1, id);
	int r = db_step(st, e);
	if (r <= 0)
		return r < 0 ? r : STORE_E_NOT_FOUND;
	memset(ret, 0, sizeof(*ret));
	buf_clear(text);
	static const int columns[] = {0, 1, 8, 9, 10, 11};
	struct span *spans[] = {&ret->task_id, &ret->task_name, &ret->owner,
				&ret->result,  &ret->error,	&ret->error_detail};
	r = copy_columns(st, columns, spans, 6, text);
	ret->status = (enum task_status)db_column_int64(st, 2);
	ret->cancelled = db_column_int64(st, 3) != 0;
	ret->submitted_us = db_column_int64(st, 4);
	ret->started_us = db_column_int64(st, 5);
	ret->completed_us = db_column_int64(st, 6);
	ret->attempts = (unsigned)db_column_int64(st, 7);
	db_reset(st);
	return r < 0 ? err_set(e, r, "the result is too large to be read") : 0;
}

static int one_number(struct store *s, enum store_sql which, const int64_t *parameter, int64_t *ret,
		      struct err *e)
{
	struct db_stmt *st = store_sql(s, which, e);
	if (!st)
		return -EIO;
	if (parameter)
		db_bind_int64(st, 1, *parameter);
	int r = db_step(st, e);
	if (r < 0)
		return r;
	*ret = r == 1 ? db_column_int64(st, 0) : 0;
	db_reset(st);
	return 0;
}

int store_finished_last(struct store *s, int64_t *n, struct err *e)
{
	return one_number(s, SQL_FINISHED_LAST, NULL, n, e);
}

int store_finished_since(struct store *s, int64_t *n, unsigned limit, bool *gap,
			 void (*fn)(void *arg, struct span id), void *arg, struct err *e)
{
	struct db_stmt *st = store_sql(s, SQL_FINISHED_SINCE, e);
	if (!st)
		return -EIO;
	db_bind_int64(st, 1, *n);
	db_bind_int64(st, 2, limit);
	int r;
	*gap = false;
	/* Marks are without holes while they are kept: a jump means that some were dropped. */
	while ((r = db_step(st, e)) == 1) {
		int64_t next = db_column_int64(st, 0);
		*gap |= next != *n + 1;
		*n = next;
		fn(arg, db_column_text(st, 1));
	}
	return r;
}

int store_backlog(struct store *s, int64_t *ret, struct err *e)
{
	return one_number(s, SQL_BACKLOG, NULL, ret, e);
}

int store_workers(struct store *s, unsigned within_ms, int64_t *ret, struct err *e)
{
	int64_t since = clock_mono_ms() - within_ms;
	return one_number(s, SQL_WORKERS, &since, ret, e);
}

int store_workers_of(struct store *s, struct span queue, unsigned within_ms, int64_t *ret, struct err *e)
{
	struct db_stmt *st = store_sql(s, SQL_WORKERS_OF, e);
	if (!st)
		return -EIO;
	db_bind_int64(st, 1, clock_mono_ms() - within_ms);
	db_bind_text(st, 2, queue);
	int r = db_step(st, e);
	if (r < 0)
		return r;
	*ret = r == 1 ? db_column_int64(st, 0) : 0;
	db_reset(st);
	return 0;
}

bool store_take_news(struct store *s)
{
	bool news = s->news;
	s->news = false;
	return news;
}
