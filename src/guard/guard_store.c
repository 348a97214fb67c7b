#include "guard/guard_store.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "outcomes/histogram.h"

static const char guard_schema[] =
	"CREATE TABLE IF NOT EXISTS guard_epochs (id INTEGER PRIMARY KEY, service TEXT NOT NULL, operation "
	"TEXT NOT NULL, epoch INTEGER NOT NULL, split INTEGER NOT NULL, mode TEXT NOT NULL, began_us INTEGER "
	"NOT NULL, changed_us INTEGER NOT NULL, held_us INTEGER NOT NULL, limit_us INTEGER NOT NULL, verdict "
	"TEXT NOT NULL, because TEXT NOT NULL, seen_level INTEGER NOT NULL, bad_level INTEGER NOT NULL, "
	"evidence BLOB NOT NULL, UNIQUE (service, operation, epoch));"
	"CREATE TABLE IF NOT EXISTS guard_entities (epoch INTEGER NOT NULL, entity INTEGER NOT NULL, bits "
	"INTEGER NOT NULL, PRIMARY KEY (epoch, entity)) WITHOUT ROWID;";

/* The evidence as it is stored: another layout (another version's) is not read. */
#define STORED_MARK (UINT64_C(0x31647267524d0000) + sizeof(struct guard_stored))
struct guard_stored {
	uint64_t mark;
	struct guard_rule rule;
	double slow_factor, keeps;
	struct guard_evidence evidence;
};

struct guard_store {
	struct db *db;
	struct db_stmt *load, *each_entity, *last, *begin, *put, *put_entity, *thin, *thinned;
	struct db_stmt *old_entities, *old_epochs, *p99, *last_safe;
	struct guard_stored stored;
	struct histogram_sum sum;
};

int guard_store_new(struct db *db, struct guard_store **ret, struct err *e)
{
	struct guard_store *s = calloc(1, sizeof(*s));
	if (!s)
		return err_set(e, -ENOMEM, "%s: out of memory", db_path(db));
	s->db = db;
	int r = db_exec(db, guard_schema, e);
	const struct {
		struct db_stmt **stmt;
		const char *sql;
	} all[] = {
		{&s->load, "SELECT " GUARD_EPOCH_COLUMNS " FROM guard_epochs WHERE service = ? AND operation "
			   "= ? ORDER BY epoch DESC LIMIT 1"},
		{&s->each_entity, "SELECT entity, bits FROM guard_entities WHERE epoch = ?"},
		{&s->last, "SELECT coalesce(max(epoch), 0) FROM guard_epochs WHERE service = ? AND operation "
			   "= ?"},
		{&s->begin,
		 "INSERT INTO guard_epochs (service, operation, epoch, split, mode, began_us, changed_us, "
		 "held_us, limit_us, verdict, because, seen_level, bad_level, evidence) VALUES "
		 "(?,?,?,?,?,?,?,0,?,?,?,0,0,?)"},
		{&s->put,
		 "UPDATE guard_epochs SET mode = ?2, began_us = ?3, changed_us = ?4, held_us = ?5, "
		 "limit_us = ?6, verdict = ?7, seen_level = ?8, bad_level = ?9, evidence = ?10 WHERE "
		 "id = ?1"},
		{&s->put_entity, "INSERT INTO guard_entities VALUES (?1, ?2, ?3) ON CONFLICT (epoch, entity) "
				 "DO UPDATE SET bits = bits | ?3"},
		{&s->thin, "UPDATE guard_entities SET bits = bits & ~?3 WHERE epoch = ?1 AND (entity & ?2) "
			   "<> 0"},
		{&s->thinned, "DELETE FROM guard_entities WHERE epoch = ? AND bits = 0"},
		{&s->old_entities, "DELETE FROM guard_entities WHERE epoch IN (SELECT id FROM guard_epochs "
				   "WHERE service = ? AND operation = ? AND epoch < ?)"},
		{&s->old_epochs,
		 "DELETE FROM guard_epochs WHERE service = ? AND operation = ? AND epoch <= ?"},
		{&s->last_safe,
		 "SELECT " GUARD_EPOCH_COLUMNS " FROM guard_epochs WHERE service = ? AND operation = ? AND "
		 "epoch < ? AND verdict = 'safe' ORDER BY epoch DESC LIMIT 1"},
		{&s->p99, "SELECT histogram FROM rollups JOIN series ON series.id = rollups.series WHERE "
			  "minute >= ? AND service = ? AND operation = ? AND side = 'legacy' AND role = "
			  "'primary' AND result = 'success'"},
	};
	for (size_t i = 0; r == 0 && i < sizeof(all) / sizeof(all[0]); i++)
		r = db_prepare(db, all[i].sql, all[i].stmt, e);
	if (r < 0) {
		guard_store_free(s);
		return r;
	}
	*ret = s;
	return 0;
}

struct guard_store *guard_store_free(struct guard_store *s)
{
	if (!s)
		return NULL;
	struct db_stmt *all[] = {s->load,	  s->each_entity, s->last, s->begin,
				 s->put,	  s->put_entity,  s->thin, s->thinned,
				 s->old_entities, s->old_epochs,  s->p99,  s->last_safe};
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		db_stmt_free(all[i]);
	free(s);
	return NULL;
}

/* --- epochs ------------------------------------------------------------------------------------------- */

static enum guard_mode guard_mode_parse(struct span text)
{
	for (int m = 0; m < GUARD_MODE_COUNT; m++)
		if (span_is(text, guard_mode_text(m)))
			return m;
	return GUARD_WATCH;
}

static enum guard_verdict guard_verdict_parse(struct span text)
{
	for (int v = 0; v < GUARD_VERDICT_COUNT; v++)
		if (span_is(text, guard_verdict_text(v)))
			return v;
	return GUARD_NOT_ENOUGH_DATA;
}

void guard_store_read_epoch(struct db_stmt *q, int first, struct guard_epoch *ret)
{
	struct guard_stored stored;
	memset(ret, 0, sizeof(*ret));
	ret->row = db_column_int64(q, first);
	ret->number = db_column_int64(q, first + 1);
	ret->split = (uint64_t)db_column_int64(q, first + 2);
	ret->mode = guard_mode_parse(db_column_text(q, first + 3));
	ret->began_us = db_column_int64(q, first + 4);
	ret->changed_us = db_column_int64(q, first + 5);
	ret->held_us = db_column_int64(q, first + 6);
	ret->limit_us = db_column_int64(q, first + 7);
	ret->verdict = guard_verdict_parse(db_column_text(q, first + 8));
	span_copy(db_column_text(q, first + 9), ret->because, sizeof(ret->because));
	ret->seen_level = (unsigned)db_column_int64(q, first + 10);
	ret->bad_level = (unsigned)db_column_int64(q, first + 11);
	struct span blob = db_column_blob(q, first + 12);
	if (blob.len != sizeof(stored))
		return; /* no rule: differs from any configured one, so that a new epoch begins */
	memcpy(&stored, blob.ptr, sizeof(stored));
	if (stored.mark != STORED_MARK)
		return;
	ret->rule = stored.rule;
	ret->slow_factor = stored.slow_factor;
	ret->keeps = stored.keeps;
	ret->evidence = stored.evidence;
}

int guard_store_load(struct guard_store *s, const char *service, const char *operation,
		     struct guard_epoch *ret, struct err *e)
{
	db_bind_text(s->load, 1, span_of(service));
	db_bind_text(s->load, 2, span_of(operation));
	int r = db_step(s->load, e);
	if (r <= 0)
		return r;
	guard_store_read_epoch(s->load, 0, ret);
	db_reset(s->load);
	return 1;
}

static struct span guard_pack(struct guard_store *s, const struct guard_epoch *epoch)
{
	memset(&s->stored, 0, sizeof(s->stored)); /* padding, too */
	s->stored.mark = STORED_MARK;
	s->stored.rule = epoch->rule;
	s->stored.slow_factor = epoch->slow_factor;
	s->stored.keeps = epoch->keeps;
	s->stored.evidence = epoch->evidence;
	return (struct span){(const char *)&s->stored, sizeof(s->stored)};
}

static int guard_run_for(struct db_stmt *q, const char *service, const char *operation, int64_t number,
			 struct err *e)
{
	db_bind_text(q, 1, span_of(service));
	db_bind_text(q, 2, span_of(operation));
	db_bind_int64(q, 3, number);
	return db_run(q, e);
}

int guard_store_begin(struct guard_store *s, const char *service, const char *operation,
		      struct guard_epoch *epoch, struct err *e)
{
	db_bind_text(s->last, 1, span_of(service));
	db_bind_text(s->last, 2, span_of(operation));
	int r = db_step(s->last, e);
	if (r < 0)
		return r;
	epoch->number = db_column_int64(s->last, 0) + 1;
	db_reset(s->last);
	struct db_stmt *q = s->begin;
	db_bind_text(q, 1, span_of(service));
	db_bind_text(q, 2, span_of(operation));
	db_bind_int64(q, 3, epoch->number);
	db_bind_int64(q, 4, (int64_t)epoch->split);
	db_bind_text(q, 5, span_of(guard_mode_text(epoch->mode)));
	db_bind_int64(q, 6, epoch->began_us);
	db_bind_int64(q, 7, epoch->changed_us);
	db_bind_int64(q, 8, epoch->limit_us);
	db_bind_text(q, 9, span_of(guard_verdict_text(epoch->verdict)));
	db_bind_text(q, 10, span_of(epoch->because));
	db_bind_blob(q, 11, guard_pack(s, epoch));
	r = db_run(q, e);
	epoch->row = db_last_insert_rowid(s->db);
	if (r == 0)
		r = guard_run_for(s->old_entities, service, operation, epoch->number, e);
	return r < 0 ? r
		     : guard_run_for(s->old_epochs, service, operation, epoch->number - GUARD_EPOCHS_KEPT, e);
}

int guard_store_put(struct guard_store *s, const struct guard_epoch *epoch, struct err *e)
{
	struct db_stmt *q = s->put;
	db_bind_int64(q, 1, epoch->row);
	db_bind_text(q, 2, span_of(guard_mode_text(epoch->mode)));
	db_bind_int64(q, 3, epoch->began_us);
	db_bind_int64(q, 4, epoch->changed_us);
	db_bind_int64(q, 5, epoch->held_us);
	db_bind_int64(q, 6, epoch->limit_us);
	db_bind_text(q, 7, span_of(guard_verdict_text(epoch->verdict)));
	db_bind_int64(q, 8, epoch->seen_level);
	db_bind_int64(q, 9, epoch->bad_level);
	db_bind_blob(q, 10, guard_pack(s, epoch));
	return db_run(q, e);
}

/* --- entities ----------------------------------------------------------------------------------------- */

int guard_store_each_entity(struct guard_store *s, int64_t epoch_row,
			    int (*fn)(void *arg, uint64_t entity, uint8_t bits), void *arg, struct err *e)
{
	int r;
	db_bind_int64(s->each_entity, 1, epoch_row);
	while ((r = db_step(s->each_entity, e)) == 1) {
		r = fn(arg, (uint64_t)db_column_int64(s->each_entity, 0),
		       (uint8_t)db_column_int64(s->each_entity, 1));
		if (r == 0)
			continue;
		db_reset(s->each_entity);
		return err_set(e, r, "%s: out of memory", db_path(s->db));
	}
	return r;
}

int guard_store_put_entity(struct guard_store *s, int64_t epoch_row, uint64_t entity, uint8_t bits,
			   struct err *e)
{
	db_bind_int64(s->put_entity, 1, epoch_row);
	db_bind_int64(s->put_entity, 2, (int64_t)entity);
	db_bind_int64(s->put_entity, 3, bits);
	return db_run(s->put_entity, e);
}

int guard_store_thin(struct guard_store *s, int64_t epoch_row, unsigned level, uint8_t bits, struct err *e)
{
	db_bind_int64(s->thin, 1, epoch_row);
	db_bind_int64(s->thin, 2, (int64_t)((UINT64_C(1) << level) - 1));
	db_bind_int64(s->thin, 3, bits);
	int r = db_run(s->thin, e);
	if (r < 0)
		return r;
	db_bind_int64(s->thinned, 1, epoch_row);
	return db_run(s->thinned, e);
}

/* --- the rest of the file ----------------------------------------------------------------------------- */

int guard_store_last_safe(struct guard_store *s, const char *service, const char *operation, int64_t number,
			  double *ret, struct err *e)
{
	struct guard_epoch epoch;
	*ret = 0;
	db_bind_text(s->last_safe, 1, span_of(service));
	db_bind_text(s->last_safe, 2, span_of(operation));
	db_bind_int64(s->last_safe, 3, number);
	int r = db_step(s->last_safe, e);
	if (r <= 0)
		return r;
	guard_store_read_epoch(s->last_safe, 0, &epoch);
	db_reset(s->last_safe);
	if (epoch.evidence.tested)
		*ret = epoch.evidence.share_sum / (double)epoch.evidence.tested;
	return 0;
}

int guard_store_legacy_p99(struct guard_store *s, const char *service, const char *operation,
			   int64_t since_minute, uint64_t least, int64_t *ret_us, struct err *e)
{
	int r;
	*ret_us = 0;
	memset(&s->sum, 0, sizeof(s->sum));
	db_bind_int64(s->p99, 1, since_minute);
	db_bind_text(s->p99, 2, span_of(service));
	db_bind_text(s->p99, 3, span_of(operation));
	while ((r = db_step(s->p99, e)) == 1)
		histogram_sum_decode(&s->sum, db_column_blob(s->p99, 0)); /* a damaged one adds less */
	if (r == 0 && s->sum.total >= least)
		*ret_us = histogram_sum_quantile(&s->sum, 0.99);
	return r;
}

int guard_store_data_version(struct guard_store *s, int64_t *ret, struct err *e)
{
	return db_query_int64(s->db, "PRAGMA data_version", ret, e);
}
