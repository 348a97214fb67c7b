/*
 * The tables of outcomes.db in which comparisons are counted. Older programs do not look at them, so that no
 * version of the schema is spent.
 *
 *   compare_counts   per hour, operation and kind of pair: compared, differing
 *   compare_missed   likewise, by why: not compared
 *   compare_paths    per hour, operation and path: in how many pairs of each kind it differed
 *   compare_samples  differing pairs, redacted
 */
#include <errno.h>
#include <stdlib.h>

#include "pairs/pairs_internal.h"

#define RETAIN_ROWS 500 /* deleted at a time, so that writing continues in between */

static const char pairs_schema[] =
	"CREATE TABLE IF NOT EXISTS compare_counts (hour INTEGER NOT NULL, service TEXT NOT NULL, operation "
	"TEXT NOT NULL, pair TEXT NOT NULL, compared INTEGER NOT NULL, differing INTEGER NOT NULL, PRIMARY "
	"KEY (service, operation, hour, pair)) WITHOUT ROWID;"
	"CREATE TABLE IF NOT EXISTS compare_missed (hour INTEGER NOT NULL, service TEXT NOT NULL, operation "
	"TEXT NOT NULL, pair TEXT NOT NULL, why TEXT NOT NULL, count INTEGER NOT NULL, PRIMARY KEY (service, "
	"operation, hour, pair, why)) WITHOUT ROWID;"
	"CREATE TABLE IF NOT EXISTS compare_paths (hour INTEGER NOT NULL, service TEXT NOT NULL, operation "
	"TEXT NOT NULL, path TEXT NOT NULL, kind TEXT NOT NULL, differing INTEGER NOT NULL, noisy INTEGER "
	"NOT NULL, PRIMARY KEY (service, operation, hour, path)) WITHOUT ROWID;"
	"CREATE TABLE IF NOT EXISTS compare_samples (id INTEGER PRIMARY KEY, time_us INTEGER NOT NULL, "
	"service TEXT NOT NULL, operation TEXT NOT NULL, request_id TEXT NOT NULL, legacy_status INTEGER NOT "
	"NULL, task_status INTEGER NOT NULL, legacy_body TEXT NOT NULL, task_body TEXT NOT NULL, differences "
	"TEXT NOT NULL);"
	"CREATE INDEX IF NOT EXISTS compare_samples_operation ON compare_samples (service, operation, id);"
	"CREATE INDEX IF NOT EXISTS compare_samples_time ON compare_samples (time_us);"
	"CREATE INDEX IF NOT EXISTS compare_paths_hour ON compare_paths (hour);";

struct pairs_store {
	struct db *db;
	struct db_stmt *counts, *missed, *path, *has_path, *n_paths, *sample, *thin;
	struct db_stmt *old_samples, *any_sample, *old_counts, *old_missed, *old_paths, *newest;
};

int pairs_store_new(struct db *db, struct pairs_store **ret, struct err *e)
{
	struct pairs_store *s = calloc(1, sizeof(*s));
	if (!s)
		return err_set(e, -ENOMEM, "%s: out of memory", db_path(db));
	s->db = db;
	const struct {
		struct db_stmt **stmt;
		const char *sql;
	} all[] = {
		{&s->counts,
		 "INSERT INTO compare_counts (service, operation, hour, pair, compared, differing) "
		 "VALUES (?1,?2,?3,?4,?5,?6) ON CONFLICT DO UPDATE SET compared = compared + ?5, "
		 "differing = differing + ?6"},
		{&s->missed, "INSERT INTO compare_missed (service, operation, hour, pair, why, count) VALUES "
			     "(?1,?2,?3,?4,?5,?6) ON CONFLICT DO UPDATE SET count = count + ?6"},
		{&s->path,
		 "INSERT INTO compare_paths (service, operation, hour, path, kind, differing, noisy) "
		 "VALUES (?1,?2,?3,?4,?5,?6,?7) ON CONFLICT DO UPDATE SET differing = differing + "
		 "?6, noisy = noisy + ?7"},
		{&s->has_path, "SELECT 1 FROM compare_paths WHERE service = ? AND operation = ? AND hour = ? "
			       "AND path = ?"},
		{&s->n_paths, "SELECT count(*) FROM compare_paths WHERE service = ? AND operation = ? AND "
			      "hour = ?"},
		{&s->sample,
		 "INSERT INTO compare_samples (service, operation, time_us, request_id, legacy_status, "
		 "task_status, legacy_body, task_body, differences) VALUES (?,?,?,?,?,?,?,?,?)"},
		{&s->thin,
		 "DELETE FROM compare_samples WHERE service = ?1 AND operation = ?2 AND id <= (SELECT "
		 "id FROM compare_samples WHERE service = ?1 AND operation = ?2 ORDER BY id DESC "
		 "LIMIT 1 OFFSET ?3)"},
		{&s->old_samples, "DELETE FROM compare_samples WHERE id IN (SELECT id FROM compare_samples "
				  "WHERE time_us < ?1 ORDER BY time_us LIMIT ?2)"},
		{&s->any_sample, "SELECT (SELECT count(*) FROM (SELECT 1 FROM compare_samples LIMIT 1)) + "
				 "(SELECT count(*) FROM (SELECT 1 FROM compare_counts LIMIT 1)) + (SELECT "
				 "count(*) FROM (SELECT 1 FROM compare_missed LIMIT 1))"},
		{&s->old_counts, "DELETE FROM compare_counts WHERE hour < ?"},
		{&s->old_missed, "DELETE FROM compare_missed WHERE hour < ?"},
		{&s->old_paths, "DELETE FROM compare_paths WHERE hour < ?"},
		{&s->newest, "SELECT max(coalesce((SELECT max(time_us) FROM compare_samples), 0), "
			     "coalesce((SELECT max(hour) FROM compare_counts), 0) * 3600000000)"},
	};
	int r = db_exec(db, pairs_schema, e);
	for (size_t i = 0; r == 0 && i < sizeof(all) / sizeof(all[0]); i++)
		r = db_prepare(db, all[i].sql, all[i].stmt, e);
	if (r < 0) {
		pairs_store_free(s);
		return r;
	}
	*ret = s;
	return 0;
}

struct pairs_store *pairs_store_free(struct pairs_store *s)
{
	if (!s)
		return NULL;
	struct db_stmt *all[] = {s->counts,	s->missed,    s->path,	      s->has_path,   s->n_paths,
				 s->sample,	s->thin,      s->old_samples, s->any_sample, s->old_counts,
				 s->old_missed, s->old_paths, s->newest};
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		db_stmt_free(all[i]);
	free(s);
	return NULL;
}

/* --- writing -------------------------------------------------------------------------------------------- */

struct pairs_place {
	struct span service, operation;
	int64_t hour;
};

static void store_bind_place(struct db_stmt *q, const struct pairs_place *at)
{
	db_bind_text(q, 1, at->service);
	db_bind_text(q, 2, at->operation);
	db_bind_int64(q, 3, at->hour);
}

static int store_counts(struct pairs_store *s, const struct pairs_place *at, const struct pairs_counts *c,
			enum pairs_kind kind, struct err *e)
{
	int r = 0;
	if (c->compared[kind]) {
		store_bind_place(s->counts, at);
		db_bind_text(s->counts, 4, span_of(pairs_kind_text(kind)));
		db_bind_int64(s->counts, 5, (int64_t)c->compared[kind]);
		db_bind_int64(s->counts, 6, (int64_t)c->differing[kind]);
		r = db_run(s->counts, e);
	}
	for (int why = 0; why < PAIRS_WHY_COUNT && r == 0; why++) {
		if (!c->not_compared[kind][why])
			continue;
		store_bind_place(s->missed, at);
		db_bind_text(s->missed, 4, span_of(pairs_kind_text(kind)));
		db_bind_text(s->missed, 5, span_of(pairs_why_text(why)));
		db_bind_int64(s->missed, 6, (int64_t)c->not_compared[kind][why]);
		r = db_run(s->missed, e);
	}
	return r;
}

/* Whether the hour has it, or has room for another one. */
static int store_has_room(struct pairs_store *s, const struct pairs_place *at, const char *path,
			  bool *ret_room, struct err *e)
{
	store_bind_place(s->has_path, at);
	db_bind_text(s->has_path, 4, span_of(path));
	int r = db_step(s->has_path, e);
	db_reset(s->has_path);
	*ret_room = r == 1;
	if (r != 0)
		return r < 0 ? r : 0;
	store_bind_place(s->n_paths, at);
	r = db_step(s->n_paths, e);
	if (r == 1)
		*ret_room = db_column_int64(s->n_paths, 0) < PAIRS_PATHS_MAX;
	db_reset(s->n_paths);
	return r < 0 ? r : 0;
}

static int store_path(struct pairs_store *s, const struct pairs_place *at, const struct pairs_path *p,
		      struct err *e)
{
	bool room;
	int r = store_has_room(s, at, p->path, &room, e);
	if (r < 0)
		return r;
	store_bind_place(s->path, at);
	db_bind_text(s->path, 4, span_of(room ? p->path : PAIRS_OTHER));
	db_bind_text(s->path, 5, span_of(compare_kind_text(p->kind)));
	db_bind_int64(s->path, 6, (int64_t)p->differing[PAIRS_SIDES]);
	db_bind_int64(s->path, 7, (int64_t)p->differing[PAIRS_NOISE]);
	return db_run(s->path, e);
}

static int store_sample(struct pairs_store *s, const struct pairs_place *at, const struct pairs_sample *x,
			struct err *e)
{
	store_bind_place(s->sample, at);
	db_bind_int64(s->sample, 3, x->time_us);
	db_bind_text(s->sample, 4, span_of(x->request_id));
	db_bind_int64(s->sample, 5, x->status[0]);
	db_bind_int64(s->sample, 6, x->status[1]);
	db_bind_text(s->sample, 7, buf_span(&x->body[0]));
	db_bind_text(s->sample, 8, buf_span(&x->body[1]));
	db_bind_text(s->sample, 9, buf_span(&x->differences));
	return db_run(s->sample, e);
}

int pairs_store_write(struct pairs_store *s, const char *service, const char *operation, int64_t hour,
		      const struct pairs_delta *d, unsigned keep_samples, struct err *e)
{
	struct pairs_place at = {span_of(service), span_of(operation), hour};
	int r = 0;
	for (int kind = 0; kind < PAIRS_KINDS && r == 0; kind++)
		r = store_counts(s, &at, &d->counts, kind, e);
	for (size_t i = 0; i < d->n_paths && r == 0; i++)
		r = store_path(s, &at, &d->paths[i], e);
	for (const struct pairs_sample *x = d->samples; x && r == 0; x = x->next)
		r = store_sample(s, &at, x, e);
	if (r < 0 || !d->samples)
		return r;
	db_bind_text(s->thin, 1, at.service);
	db_bind_text(s->thin, 2, at.operation);
	db_bind_int64(s->thin, 3, keep_samples);
	return db_run(s->thin, e);
}

/* --- age ------------------------------------------------------------------------------------------------ */

int pairs_store_retain(struct pairs_store *s, int64_t samples_before_us, int64_t counts_before_hour,
		       bool *ret_left, struct err *e)
{
	struct db_stmt *by_hour[] = {s->old_counts, s->old_missed, s->old_paths};
	db_bind_int64(s->old_samples, 1, samples_before_us);
	db_bind_int64(s->old_samples, 2, RETAIN_ROWS);
	int r = db_run(s->old_samples, e);
	for (size_t i = 0; i < sizeof(by_hour) / sizeof(by_hour[0]) && r == 0; i++) {
		db_bind_int64(by_hour[i], 1, counts_before_hour);
		r = db_run(by_hour[i], e);
	}
	if (r < 0)
		return r;
	r = db_step(s->any_sample, e);
	*ret_left = r == 1 && db_column_int64(s->any_sample, 0) > 0;
	db_reset(s->any_sample);
	return r < 0 ? r : 0;
}

int pairs_store_newest(struct pairs_store *s, int64_t *ret_us, struct err *e)
{
	int r = db_step(s->newest, e);
	*ret_us = r == 1 ? db_column_int64(s->newest, 0) : 0;
	db_reset(s->newest);
	return r < 0 ? r : 0;
}
