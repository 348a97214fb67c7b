#include "outcomes/rollup_days.h"

#include <errno.h>
#include <stdlib.h>

#include "base/buf.h"
#include "outcomes/histogram.h"

#define ENCODED_MAX (HISTOGRAM_BUCKETS * 8)

#define OUT_OF_DATE(when, row) \
	"CREATE TRIGGER IF NOT EXISTS rollup_days_" when " AFTER " when " ON rollups" \
	"  WHEN EXISTS (SELECT 1 FROM summed_days WHERE day = " row ".minute / 1440)" \
	"  BEGIN DELETE FROM summed_days WHERE day = " row ".minute / 1440;" \
	"  DELETE FROM rollup_days WHERE day = " row ".minute / 1440; END;"

static const char days_schema[] =
	"CREATE TABLE IF NOT EXISTS rollup_days (day INTEGER NOT NULL, series INTEGER NOT NULL,"
	"  count INTEGER NOT NULL, latency_us INTEGER NOT NULL, histogram BLOB NOT NULL,"
	"  PRIMARY KEY (day, series)) WITHOUT ROWID;"
	"CREATE TABLE IF NOT EXISTS summed_days (day INTEGER PRIMARY KEY);" OUT_OF_DATE("insert", "NEW")
		OUT_OF_DATE("update", "NEW") OUT_OF_DATE("delete", "OLD");

struct rollup_days {
	struct db *db;
	struct db_stmt *first, *next, *is_summed, *read, *put, *mark;
	int64_t folded; /* as of the last look */
	int64_t day;	/* the next one to look at; 0 = begin at the first */
	struct histogram sum;
	struct buf encoded;
};

/* --- making them ---------------------------------------------------------------------------------------- */

static int days_make_tables(struct db *db, struct err *e)
{
	int64_t n;
	int r = db_query_int64(db, "SELECT count(*) FROM sqlite_master WHERE name = 'rollup_days_delete'", &n,
			       e);
	if (r < 0 || n > 0)
		return r;
	r = db_begin(db, e);
	if (r == 0)
		r = db_exec(db, days_schema, e);
	if (r == 0)
		r = db_commit(db, e);
	if (r < 0)
		db_rollback(db);
	return r;
}

int rollup_days_new(struct db *db, struct rollup_days **ret, struct err *e)
{
	CLEANUP(rollup_days_freep) struct rollup_days *d = calloc(1, sizeof(*d));
	if (!d)
		return err_set(e, -ENOMEM, "out of memory");
	d->db = db;
	d->encoded = BUF_INIT(ENCODED_MAX);
	int r = days_make_tables(db, e);
	const struct {
		struct db_stmt **stmt;
		const char *sql;
	} all[] = {{&d->first, "SELECT min(minute) FROM rollups"},
		   {&d->next, "SELECT min(minute) FROM rollups WHERE minute >= ?"},
		   {&d->is_summed, "SELECT 1 FROM summed_days WHERE day = ?"},
		   {&d->read, "SELECT series, count, latency_us, histogram FROM rollups"
			      " WHERE minute >= ? AND minute < ? ORDER BY series"},
		   {&d->put,
		    "INSERT INTO rollup_days (day, series, count, latency_us, histogram) VALUES (?,?,?,?,?)"},
		   {&d->mark, "INSERT INTO summed_days (day) VALUES (?)"}};
	for (size_t i = 0; r == 0 && i < sizeof(all) / sizeof(all[0]); i++)
		r = db_prepare(db, all[i].sql, all[i].stmt, e);
	if (r < 0)
		return r;
	*ret = steal(d);
	return 0;
}

struct rollup_days *rollup_days_free(struct rollup_days *d)
{
	if (!d)
		return NULL;
	struct db_stmt *all[] = {d->first, d->next, d->is_summed, d->read, d->put, d->mark};
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		db_stmt_free(all[i]);
	buf_release(&d->encoded);
	free(d);
	return NULL;
}

struct day_series {
	int64_t series, count, latency_us; /* series 0: none yet */
};

static int days_put(struct rollup_days *d, int64_t day, const struct day_series *s, struct err *e)
{
	if (!s->series)
		return 0;
	buf_clear(&d->encoded);
	if (histogram_encode(&d->sum, &d->encoded) < 0)
		return err_set(e, -ENOMEM, "%s: a day of sums is too large", db_path(d->db));
	db_bind_int64(d->put, 1, day);
	db_bind_int64(d->put, 2, s->series);
	db_bind_int64(d->put, 3, s->count);
	db_bind_int64(d->put, 4, s->latency_us);
	db_bind_blob(d->put, 5, buf_span(&d->encoded));
	return db_run(d->put, e);
}

static int days_sum(struct rollup_days *d, int64_t day, struct err *e)
{
	struct day_series s = {0, 0, 0};
	int r;
	db_bind_int64(d->read, 1, day * ROLLUP_DAY_MINUTES);
	db_bind_int64(d->read, 2, (day + 1) * ROLLUP_DAY_MINUTES);
	while ((r = db_step(d->read, e)) > 0) {
		if (db_column_int64(d->read, 0) != s.series) {
			if ((r = days_put(d, day, &s, e)) < 0)
				break;
			s = (struct day_series){.series = db_column_int64(d->read, 0)};
			histogram_init(&d->sum);
		}
		s.count += db_column_int64(d->read, 1);
		s.latency_us += db_column_int64(d->read, 2);
		if (histogram_decode(&d->sum, db_column_blob(d->read, 3)) < 0) {
			r = err_set(e, -EUCLEAN, "%s: a damaged histogram in rollups", db_path(d->db));
			break;
		}
	}
	db_reset(d->read);
	if (r == 0)
		r = days_put(d, day, &s, e);
	if (r < 0)
		return r;
	db_bind_int64(d->mark, 1, day);
	return db_run(d->mark, e);
}

/* One integer, or none: false. */
static int days_ask(struct db_stmt *q, int64_t *ret, bool *ret_any, struct err *e)
{
	int r = db_step(q, e);
	*ret_any = r > 0 && !db_column_is_null(q, 0);
	if (*ret_any)
		*ret = db_column_int64(q, 0);
	db_reset(q);
	return r < 0 ? r : 0;
}

static int64_t days_of(int64_t minute)
{
	return minute / ROLLUP_DAY_MINUTES - (minute % ROLLUP_DAY_MINUTES < 0);
}

/* The next day from d->day on that has sums, in *ret_day; false: none that is whole. */
static int days_next(struct rollup_days *d, int64_t folded, bool *ret_any, struct err *e)
{
	int64_t minute = 0;
	db_bind_int64(d->next, 1, d->day * ROLLUP_DAY_MINUTES);
	int r = days_ask(d->next, &minute, ret_any, e);
	if (r < 0 || !*ret_any)
		return r;
	d->day = days_of(minute);
	*ret_any = (d->day + 1) * ROLLUP_DAY_MINUTES <= folded;
	return 0;
}

int rollup_days_step(struct rollup_days *d, struct err *e)
{
	int64_t minute = 0, folded;
	bool any = true, summed = false;
	int r = db_query_int64(d->db, "SELECT until FROM folded", &folded, e);
	if (r < 0)
		return r;
	if (d->folded == folded && d->day < 0) /* all looked at */
		return 0;
	if (d->folded != folded || d->day == 0) { /* also for those that were taken out since */
		d->folded = folded;
		r = days_ask(d->first, &minute, &any, e);
		d->day = days_of(minute) + 1;
	}
	while (r == 0 && any) {
		r = days_next(d, folded, &any, e);
		if (r < 0 || !any)
			break;
		db_bind_int64(d->is_summed, 1, d->day);
		r = days_ask(d->is_summed, &minute, &summed, e);
		if (r == 0 && !summed) {
			r = days_sum(d, d->day, e);
			return r < 0 ? r : 1;
		}
		d->day++;
	}
	d->day = -1;
	return r;
}

/* --- reading -------------------------------------------------------------------------------------------- */

struct days_reader {
	struct db *db;
	struct db_stmt *hours, *days;
	int (*fn)(void *arg, struct db_stmt *q, struct err *e);
	void *arg;
};

static int days_run(struct days_reader *r, struct db_stmt *q, int64_t from, int64_t to, struct err *e)
{
	int code;
	if (from >= to)
		return 0;
	db_bind_int64(q, 1, from);
	db_bind_int64(q, 2, to);
	while ((code = db_step(q, e)) > 0 && (code = r->fn(r->arg, q, e)) >= 0)
		;
	db_reset(q);
	return code;
}

/* Runs of summed days, and what is between them by the hour. */
static int days_read_both(struct days_reader *r, int64_t since, int64_t until, struct err *e)
{
	CLEANUP(db_stmt_freep) struct db_stmt *q = NULL;
	int64_t at = since; /* what is before has been read */
	int code = db_prepare(r->db,
			      "SELECT day FROM summed_days WHERE day * 1440 >= ?1 AND (day + 1) * 1440 <= ?2"
			      " ORDER BY day",
			      &q, e);
	if (code < 0)
		return code;
	db_bind_int64(q, 1, since);
	db_bind_int64(q, 2, until);
	while ((code = db_step(q, e)) > 0) {
		int64_t day = db_column_int64(q, 0);
		code = days_run(r, r->hours, at, day * ROLLUP_DAY_MINUTES, e);
		if (code >= 0)
			code = days_run(r, r->days, day, day + 1, e);
		if (code < 0)
			return code;
		at = (day + 1) * ROLLUP_DAY_MINUTES;
	}
	return code < 0 ? code : days_run(r, r->hours, at, until, e);
}

static int days_are_there(struct db *db, bool *ret, struct err *e)
{
	int64_t n;
	int r = db_query_int64(db, "SELECT count(*) FROM sqlite_master WHERE name = 'rollup_days_delete'", &n,
			       e);
	*ret = r == 0 && n > 0;
	return r;
}

int rollups_read(struct db *db, int64_t since, int64_t until, bool days,
		 int (*fn)(void *arg, struct db_stmt *q, struct err *e), void *arg, struct err *e)
{
	CLEANUP(db_stmt_freep) struct db_stmt *by_hour = NULL, *by_day = NULL;
	struct days_reader r = {.db = db, .fn = fn, .arg = arg};
	int code = days ? days_are_there(db, &days, e) : 0;
	if (code == 0)
		code = db_prepare(db,
				  "SELECT minute, series, count, histogram FROM rollups"
				  " WHERE minute >= ? AND minute < ?",
				  &by_hour, e);
	if (code == 0 && days)
		code = db_prepare(db,
				  "SELECT day * 1440, series, count, histogram FROM rollup_days"
				  " WHERE day >= ? AND day < ?",
				  &by_day, e);
	if (code < 0)
		return code;
	r.hours = by_hour;
	r.days = by_day;
	return days ? days_read_both(&r, since, until, e) : days_run(&r, by_hour, since, until, e);
}
