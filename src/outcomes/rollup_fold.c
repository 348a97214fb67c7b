#include "outcomes/rollup_fold.h"

#include <errno.h>
#include <stdlib.h>

#include "base/buf.h"
#include "outcomes/histogram.h"
#include "outcomes/series.h"

/* What an hour is folded into before its minutes are deleted. Series are limited, and a histogram is 9 kB
 * at most. */
#define HOUR_BYTES_MAX (256u << 20)

struct rollup_fold {
	struct db *db;
	struct db_stmt *first, *read, *delete, *put, *advance;
	struct histogram sum; /* of the series being read */
	struct buf encoded;   /* all histograms of the hour */
	struct folded_series {
		int64_t series, count, latency_us;
		size_t at, len; /* in encoded */
	} * done;
	size_t done_count, capacity;
};

int rollup_fold_new(struct db *db, struct rollup_fold **ret, struct err *e)
{
	struct rollup_fold *f = calloc(1, sizeof(*f));
	if (!f)
		return err_set(e, -ENOMEM, "out of memory");
	f->db = db;
	f->encoded = BUF_INIT(HOUR_BYTES_MAX);
	const struct {
		struct db_stmt **stmt;
		const char *sql;
	} all[] = {
		{&f->first, "SELECT min(minute) FROM rollups WHERE minute >= (SELECT until FROM folded)"},
		{&f->read,
		 "SELECT series, count, latency_us, histogram FROM rollups WHERE minute >= ? AND minute < ?"
		 " ORDER BY series"},
		{&f->delete, "DELETE FROM rollups WHERE minute >= ? AND minute < ?"},
		{&f->put,
		 "INSERT INTO rollups (minute, series, count, latency_us, histogram) VALUES (?,?,?,?,?)"},
		{&f->advance, "UPDATE folded SET until = ?"}};
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		int r = db_prepare(db, all[i].sql, all[i].stmt, e);
		if (r < 0) {
			rollup_fold_free(f);
			return r;
		}
	}
	*ret = f;
	return 0;
}

struct rollup_fold *rollup_fold_free(struct rollup_fold *f)
{
	if (f) {
		db_stmt_free(f->first);
		db_stmt_free(f->read);
		db_stmt_free(f->delete);
		db_stmt_free(f->put);
		db_stmt_free(f->advance);
		buf_release(&f->encoded);
		free(f->done);
		free(f);
	}
	return NULL;
}

static int begin_series(struct rollup_fold *f, int64_t series, struct err *e)
{
	if (f->done_count == f->capacity) {
		size_t n = f->capacity ? f->capacity * 2 : 64;
		struct folded_series *grown = reallocarray(f->done, n, sizeof(*grown));
		if (!grown)
			return err_set(e, -ENOMEM, "out of memory");
		f->done = grown;
		f->capacity = n;
	}
	f->done[f->done_count++] = (struct folded_series){.series = series};
	histogram_init(&f->sum);
	return 0;
}

static int end_series(struct rollup_fold *f, struct err *e)
{
	if (f->done_count == 0)
		return 0;
	struct folded_series *s = &f->done[f->done_count - 1];
	s->at = f->encoded.len;
	int r = histogram_encode(&f->sum, &f->encoded);
	s->len = f->encoded.len - s->at;
	return r < 0 ? err_set(e, r, "%s: an hour of sums is too large", db_path(f->db)) : 0;
}

static int add_minute(struct rollup_fold *f, struct err *e)
{
	int64_t series = db_column_int64(f->read, 0);
	int r = 0;
	if (f->done_count == 0 || f->done[f->done_count - 1].series != series) {
		r = end_series(f, e);
		if (r == 0)
			r = begin_series(f, series, e);
	}
	if (r < 0)
		return r;
	struct folded_series *s = &f->done[f->done_count - 1];
	s->count += db_column_int64(f->read, 1);
	s->latency_us += db_column_int64(f->read, 2);
	if (histogram_decode(&f->sum, db_column_blob(f->read, 3)) < 0)
		return err_set(e, -EUCLEAN, "%s: a damaged histogram in rollups", db_path(f->db));
	return 0;
}

static int read_hour(struct rollup_fold *f, int64_t hour, struct err *e)
{
	f->done_count = 0;
	buf_clear(&f->encoded);
	db_bind_int64(f->read, 1, hour);
	db_bind_int64(f->read, 2, hour + 60);
	int r;
	while ((r = db_step(f->read, e)) > 0 && (r = add_minute(f, e)) == 0)
		;
	db_reset(f->read);
	return r < 0 ? r : end_series(f, e);
}

static int write_hour(struct rollup_fold *f, int64_t hour, struct err *e)
{
	db_bind_int64(f->delete, 1, hour);
	db_bind_int64(f->delete, 2, hour + 60);
	int r = db_run(f->delete, e);
	for (size_t i = 0; r == 0 && i < f->done_count; i++) {
		const struct folded_series *s = &f->done[i];
		db_bind_int64(f->put, 1, hour);
		db_bind_int64(f->put, 2, s->series);
		db_bind_int64(f->put, 3, s->count);
		db_bind_int64(f->put, 4, s->latency_us);
		db_bind_blob(f->put, 5, (struct span){buf_span(&f->encoded).ptr + s->at, s->len});
		r = db_run(f->put, e);
	}
	if (r < 0)
		return r;
	db_bind_int64(f->advance, 1, hour + 60);
	return db_run(f->advance, e);
}

int rollup_fold_step(struct rollup_fold *f, int64_t before, struct err *e)
{
	int r = db_step(f->first, e);
	if (r < 0)
		return r;
	bool none = db_column_is_null(f->first, 0);
	int64_t hour = rollup_hour(db_column_int64(f->first, 0));
	db_reset(f->first);
	if (none || hour + 60 > before)
		return 0;
	r = read_hour(f, hour, e);
	if (r == 0)
		r = write_hour(f, hour, e);
	return r < 0 ? r : 1;
}
