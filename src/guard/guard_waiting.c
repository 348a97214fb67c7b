#include "guard/guard_waiting.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char waiting_schema[] =
	"CREATE TABLE IF NOT EXISTS guard_joint (epoch INTEGER PRIMARY KEY, generation INTEGER NOT NULL, "
	"ends "
	"INTEGER NOT NULL, born TEXT NOT NULL, next INTEGER NOT NULL, began_us INTEGER NOT NULL, breached_us "
	"INTEGER NOT NULL, keeps BLOB "
	"NOT NULL, found_by TEXT NOT NULL);"
	"CREATE TABLE IF NOT EXISTS guard_waiting (id INTEGER PRIMARY KEY, epoch INTEGER NOT NULL, entity "
	"INTEGER NOT NULL, bit INTEGER NOT NULL, assigned INTEGER NOT NULL, served INTEGER NOT NULL, reason "
	"INTEGER NOT NULL, share BLOB NOT NULL, UNIQUE (epoch, entity, bit));";

struct guard_waiting {
	struct db *db;
	struct db_stmt *load, *put, *each, *add, *remove, *tidy_joint, *tidy_waiting;
};

int guard_waiting_new(struct db *db, struct guard_waiting **ret, struct err *e)
{
	struct guard_waiting *w = calloc(1, sizeof(*w));
	if (!w)
		return err_set(e, -ENOMEM, "%s: out of memory", db_path(db));
	w->db = db;
	int r = db_exec(db, waiting_schema, e);
	const struct {
		struct db_stmt **stmt;
		const char *sql;
	} all[] = {
		{&w->load, "SELECT generation, ends, born, next, breached_us, keeps, found_by, began_us FROM "
			   "guard_joint "
			   "WHERE epoch = ?"},
		{&w->put, "INSERT OR REPLACE INTO guard_joint (epoch, generation, ends, born, next, "
			  "breached_us, keeps, found_by, "
			  "began_us) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"},
		{&w->each,
		 "SELECT entity, bit, assigned, served, reason, share FROM guard_waiting WHERE epoch = "
		 "? ORDER BY id"},
		{&w->add,
		 "INSERT OR IGNORE INTO guard_waiting (epoch, entity, bit, assigned, served, reason, "
		 "share) VALUES (?, ?, ?, ?, ?, ?, ?)"},
		{&w->remove, "DELETE FROM guard_waiting WHERE epoch = ? AND entity = ? AND bit = ?"},
		{&w->tidy_joint, "DELETE FROM guard_joint WHERE epoch NOT IN (SELECT id FROM guard_epochs)"},
		{&w->tidy_waiting,
		 "DELETE FROM guard_waiting WHERE epoch NOT IN (SELECT id FROM guard_epochs g WHERE epoch = "
		 "(SELECT max(epoch) FROM guard_epochs h WHERE h.service = g.service AND h.operation = "
		 "g.operation))"},
	};
	for (size_t i = 0; r == 0 && i < sizeof(all) / sizeof(all[0]); i++)
		r = db_prepare(db, all[i].sql, all[i].stmt, e);
	if (r < 0) {
		guard_waiting_free(w);
		return r;
	}
	*ret = w;
	return 0;
}

struct guard_waiting *guard_waiting_free(struct guard_waiting *w)
{
	if (!w)
		return NULL;
	struct db_stmt *all[] = {w->load, w->put, w->each, w->add, w->remove, w->tidy_joint, w->tidy_waiting};
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		db_stmt_free(all[i]);
	free(w);
	return NULL;
}

static double waiting_double(struct db_stmt *q, int column)
{
	double d = 0;
	struct span blob = db_column_blob(q, column);
	if (blob.len == sizeof(d))
		memcpy(&d, blob.ptr, sizeof(d));
	return d;
}

static void waiting_bind_double(struct db_stmt *q, int i, const double *d)
{
	db_bind_blob(q, i, (struct span){(const char *)d, sizeof(*d)});
}

int guard_waiting_load(struct guard_waiting *w, int64_t epoch_row, struct guard_joint *ret, struct err *e)
{
	memset(ret, 0, sizeof(*ret));
	db_bind_int64(w->load, 1, epoch_row);
	int r = db_step(w->load, e);
	if (r <= 0)
		return r;
	ret->generation = db_column_int64(w->load, 0);
	ret->ends = db_column_int64(w->load, 1);
	span_copy(db_column_text(w->load, 2), ret->born, sizeof(ret->born));
	ret->next = db_column_int64(w->load, 3);
	ret->breached_us = db_column_int64(w->load, 4);
	ret->keeps = waiting_double(w->load, 5);
	span_copy(db_column_text(w->load, 6), ret->by, sizeof(ret->by));
	ret->began_us = db_column_int64(w->load, 7);
	db_reset(w->load);
	return 1;
}

int guard_waiting_put(struct guard_waiting *w, int64_t epoch_row, const struct guard_joint *j, struct err *e)
{
	struct db_stmt *q = w->put;
	db_bind_int64(q, 1, epoch_row);
	db_bind_int64(q, 2, j->generation);
	db_bind_int64(q, 3, j->ends);
	db_bind_text(q, 4, span_of(j->born));
	db_bind_int64(q, 5, j->next);
	db_bind_int64(q, 6, j->breached_us);
	waiting_bind_double(q, 7, &j->keeps);
	db_bind_text(q, 8, span_of(j->by));
	db_bind_int64(q, 9, j->began_us);
	return db_run(q, e);
}

int guard_waiting_each(struct guard_waiting *w, int64_t epoch_row,
		       int (*fn)(void *arg, const struct guard_event *event), void *arg, struct err *e)
{
	int r;
	struct db_stmt *q = w->each;
	db_bind_int64(q, 1, epoch_row);
	while ((r = db_step(q, e)) == 1) {
		struct guard_event event = {.entity = (uint64_t)db_column_int64(q, 0),
					    .bit = (uint8_t)db_column_int64(q, 1),
					    .assigned = db_column_int64(q, 2) != 0,
					    .served = db_column_int64(q, 3) != 0,
					    .reason = (uint8_t)db_column_int64(q, 4),
					    .share = waiting_double(q, 5)};
		r = fn(arg, &event);
		if (r == 0)
			continue;
		db_reset(q);
		return err_set(e, r, "%s: out of memory", db_path(w->db));
	}
	return r;
}

int guard_waiting_add(struct guard_waiting *w, int64_t epoch_row, const struct guard_event *event,
		      struct err *e)
{
	struct db_stmt *q = w->add;
	db_bind_int64(q, 1, epoch_row);
	db_bind_int64(q, 2, (int64_t)event->entity);
	db_bind_int64(q, 3, event->bit);
	db_bind_int64(q, 4, event->assigned);
	db_bind_int64(q, 5, event->served);
	db_bind_int64(q, 6, event->reason);
	waiting_bind_double(q, 7, &event->share);
	return db_run(q, e);
}

int guard_waiting_remove(struct guard_waiting *w, int64_t epoch_row, const struct guard_event *event,
			 struct err *e)
{
	db_bind_int64(w->remove, 1, epoch_row);
	db_bind_int64(w->remove, 2, (int64_t)event->entity);
	db_bind_int64(w->remove, 3, event->bit);
	return db_run(w->remove, e);
}

int guard_waiting_tidy(struct guard_waiting *w, struct err *e)
{
	int r = db_run(w->tidy_joint, e);
	return r < 0 ? r : db_run(w->tidy_waiting, e);
}

int guard_waiting_finder(struct db *db, int64_t epoch_row, char ret[64], struct err *e)
{
	CLEANUP(db_stmt_freep) struct db_stmt *q = NULL;
	int64_t there = 0;
	ret[0] = '\0';
	int r = db_query_int64(db, "SELECT count(*) FROM sqlite_master WHERE name = 'guard_joint'", &there,
			       e);
	if (r < 0 || !there)
		return r;
	r = db_prepare(db, "SELECT found_by FROM guard_joint WHERE epoch = ? AND breached_us <> 0", &q, e);
	if (r < 0)
		return r;
	db_bind_int64(q, 1, epoch_row);
	r = db_step(q, e);
	if (r == 1)
		span_copy(db_column_text(q, 0), ret, 64);
	return r < 0 ? r : 0;
}
