#include "outcomes/demo_history.h"

#include <errno.h>
#include <stdio.h>
#include <time.h>

static const char demo_history_schema[] =
	"CREATE TABLE IF NOT EXISTS demo_history (one INTEGER PRIMARY KEY CHECK (one = 1),"
	"  since_us INTEGER NOT NULL, until_us INTEGER NOT NULL);";

int demo_history_write(struct db *db, const struct demo_history *h, struct err *e)
{
	CLEANUP(db_stmt_freep) struct db_stmt *put = NULL;
	int r = db_exec(db, demo_history_schema, e);
	if (r == 0)
		r = db_prepare(db, "INSERT OR REPLACE INTO demo_history VALUES (1,?,?)", &put, e);
	if (r < 0)
		return r;
	db_bind_int64(put, 1, h->since_us);
	db_bind_int64(put, 2, h->until_us);
	return db_run(put, e);
}

static int read_row(struct db *db, struct demo_history *ret, struct err *e)
{
	CLEANUP(db_stmt_freep) struct db_stmt *get = NULL;
	int r = db_prepare(db, "SELECT since_us, until_us FROM demo_history", &get, e);
	if (r == 0)
		r = db_step(get, e);
	if (r <= 0)
		return r;
	*ret = (struct demo_history){db_column_int64(get, 0), db_column_int64(get, 1)};
	return 0;
}

int demo_history_of(struct db *db, struct demo_history *ret, struct err *e)
{
	int64_t n = 0;
	*ret = (struct demo_history){0};
	int r = db_query_int64(db, "SELECT count(*) FROM sqlite_master WHERE name = 'demo_history'", &n, e);
	return r == 0 && n > 0 ? read_row(db, ret, e) : r;
}

int demo_history_read(const char *path, struct demo_history *ret, struct err *e)
{
	CLEANUP(db_closep) struct db *db = NULL;
	struct db_options o = {.path = path, .read_only = true, .busy_timeout_ms = 2000};
	*ret = (struct demo_history){0};
	int r = db_open(&o, &db, e);
	return r < 0 ? r : demo_history_of(db, ret, e);
}

void demo_history_text(const struct demo_history *h, char text[DEMO_HISTORY_TEXT])
{
	time_t s = (time_t)(h->until_us / 1000000);
	struct tm tm;
	char until[32];
	gmtime_r(&s, &tm);
	strftime(until, sizeof(until), "%Y-%m-%d %H:%M", &tm);
	snprintf(text, DEMO_HISTORY_TEXT, "The figures before %s UTC are made up (--demo-history).", until);
}
