#include "standing/standing_row.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/crypto.h"
#include "base/db.h"
#include "outcomes/outcome_store.h"

#define BUSY_MS 2000
#define ROW_MAX (16u << 20)

static const char row_schema[] =
	"CREATE TABLE IF NOT EXISTS standing (id INTEGER PRIMARY KEY CHECK (id = 1), time_us INTEGER NOT "
	"NULL, facts TEXT NOT NULL);";

struct standing_row {
	pthread_mutex_t lock; /* over what follows, up to the blank line */
	struct buf facts;     /* as JSON */
	int64_t time_us;      /* of them */
	uint64_t version;     /* counts what was set */
	bool pending, quiet;

	/* the recorder's thread */
	struct db *db;
	struct db_stmt *put;
	struct buf written; /* in the transaction that is open */
	uint64_t taken;	    /* its version */
};

int standing_row_new(struct standing_row **ret)
{
	struct standing_row *r = calloc(1, sizeof(*r));
	if (!r)
		return -ENOMEM;
	r->facts = BUF_INIT(ROW_MAX);
	r->written = BUF_INIT(ROW_MAX);
	pthread_mutex_init(&r->lock, NULL);
	*ret = r;
	return 0;
}

struct standing_row *standing_row_free(struct standing_row *r)
{
	if (!r)
		return NULL;
	db_stmt_free(r->put);
	buf_release(&r->facts);
	buf_release(&r->written);
	pthread_mutex_destroy(&r->lock);
	free(r);
	return NULL;
}

int standing_row_set(struct standing_row *r, const struct standing_facts *f)
{
	CLEANUP(buf_releasep) struct buf json = BUF_INIT(ROW_MAX);
	if (standing_facts_to_json(f, &json) < 0)
		return json.error;
	pthread_mutex_lock(&r->lock);
	struct buf old = r->facts;
	r->facts = json;
	json = old;
	r->time_us = f->time_us;
	r->version++;
	r->pending = true;
	pthread_mutex_unlock(&r->lock);
	return 0;
}

void standing_row_quiet(struct standing_row *r)
{
	pthread_mutex_lock(&r->lock);
	r->quiet = true;
	pthread_mutex_unlock(&r->lock);
}

/* --- the recorder's tap --------------------------------------------------------------------------------- */

static int row_opened(void *arg, struct db *db, struct err *e)
{
	struct standing_row *r = arg;
	r->db = db;
	int code = db_exec(db, row_schema, e);
	return code < 0 ? code
			: db_prepare(db,
				     "INSERT OR REPLACE INTO standing (id, time_us, facts) VALUES (1, ?, ?)",
				     &r->put, e);
}

static void row_closed(void *arg)
{
	struct standing_row *r = arg;
	r->put = db_stmt_free(r->put);
	pthread_mutex_lock(&r->lock); /* the next file has no row */
	r->pending = r->facts.len > 0;
	pthread_mutex_unlock(&r->lock);
}

static bool row_due(void *arg)
{
	struct standing_row *r = arg;
	pthread_mutex_lock(&r->lock);
	bool due = r->pending && !r->quiet;
	pthread_mutex_unlock(&r->lock);
	return due;
}

static int row_write(void *arg, const struct recorder_batch *b, struct err *e)
{
	struct standing_row *r = arg;
	int64_t time_us;
	(void)b;
	r->taken = 0;
	if (!row_due(r))
		return 0;
	buf_clear(&r->written);
	pthread_mutex_lock(&r->lock);
	int code = buf_append_span(&r->written, buf_span(&r->facts));
	time_us = r->time_us;
	r->taken = r->version;
	pthread_mutex_unlock(&r->lock);
	if (code < 0)
		return err_set(e, code, "out of memory");
	db_bind_int64(r->put, 1, time_us);
	db_bind_text(r->put, 2, buf_span(&r->written));
	return db_run(r->put, e);
}

static void row_ended(void *arg, bool committed, const char *error)
{
	struct standing_row *r = arg;
	pthread_mutex_lock(&r->lock);
	if (committed && !error && r->taken == r->version)
		r->pending = false;
	pthread_mutex_unlock(&r->lock);
	r->taken = 0;
}

void standing_row_tap(struct standing_row *r, struct recorder_tap *ret)
{
	*ret = (struct recorder_tap){.arg = r,
				     .opened = row_opened,
				     .closed = row_closed,
				     .due = row_due,
				     .write = row_write,
				     .ended = row_ended};
}

/* --- reading -------------------------------------------------------------------------------------------- */

static int read_row(struct db *db, struct standing_facts **ret, struct err *e)
{
	CLEANUP(db_stmt_freep) struct db_stmt *q = NULL;
	int r = db_prepare(db, "SELECT facts, time_us FROM standing WHERE id = 1", &q, e);
	if (r == 0)
		r = db_step(q, e);
	if (r <= 0)
		return r;
	r = standing_facts_parse(db_path(db), db_column_text(q, 0), ret, e);
	if (r == 0)
		(*ret)->time_us = db_column_int64(q, 1);
	return r;
}

int standing_row_read(const char *path, struct standing_facts **ret, struct err *e)
{
	struct db_options o = {.path = path,
			       .read_only = true,
			       .busy_timeout_ms = BUSY_MS,
			       .application_id = OUTCOME_STORE_APPLICATION};
	CLEANUP(db_closep) struct db *db = NULL;
	int64_t there = 0;
	*ret = NULL;
	int r = db_open(&o, &db, e);
	if (r == 0)
		r = db_query_int64(db, "SELECT count(*) FROM sqlite_master WHERE name = 'standing'", &there,
				   e);
	return r == 0 && there ? read_row(db, ret, e) : r;
}
