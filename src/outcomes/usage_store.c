#include "outcomes/usage_store.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "outcomes/unmapped.h"

struct usage_store {
	struct db *db;
	struct db_stmt *put_last, *read_day, *put_pattern, *delete_pattern, *extend, *begin;
	struct db_stmt *expire_patterns, *expire_presence, *cut_presence;
	struct unmapped_table today;
	int64_t day;	    /* of `today`; -1 = not read */
	int64_t present_us; /* as last written; 0 = not yet */
};

/* An hour of sums tells no minute: the last of it, so that nothing looks older than it is. */
static const char usage_schema[] =
	"CREATE TABLE last_seen (series INTEGER PRIMARY KEY, time_us INTEGER NOT NULL, organization TEXT);"
	"INSERT INTO last_seen SELECT series, (max(minute) + 1 + 59 * (max(minute) < (SELECT until FROM "
	"folded)))"
	" * 60000000 - 1, NULL FROM rollups GROUP BY series;"
	"CREATE TABLE presence (began_us INTEGER PRIMARY KEY, seen_us INTEGER NOT NULL);"
	"INSERT INTO presence SELECT min(hour) * 3600000000, (max(hour) + 1) * 3600000000 FROM"
	" (SELECT hour, hour - row_number() OVER (ORDER BY hour) AS island FROM"
	"  (SELECT DISTINCT minute / 60 AS hour FROM rollups)) GROUP BY island;"
	"CREATE TABLE unmapped (day INTEGER NOT NULL, service TEXT NOT NULL, method TEXT NOT NULL, pattern "
	"TEXT NOT"
	" NULL, count INTEGER NOT NULL, not_found INTEGER NOT NULL, last_us INTEGER NOT NULL,"
	" last_found_us INTEGER NOT NULL, PRIMARY KEY (day, service, method, pattern)) WITHOUT ROWID;";

/* --- opening -------------------------------------------------------------------------------------------- */

static int usage_prepare(struct usage_store *u, struct err *e)
{
	const struct {
		struct db_stmt **stmt;
		const char *sql;
	} all[] = {
		/* A time to come is of a clock that was wrong. */
		{&u->put_last, "INSERT INTO last_seen VALUES (?1, ?2, ?3) ON CONFLICT (series) DO UPDATE SET"
			       " time_us = ?2, organization = ?3 WHERE ?2 >= time_us OR time_us > ?4"},
		{&u->read_day, "SELECT service, method, pattern, count, not_found, last_us, last_found_us"
			       " FROM unmapped WHERE day = ?"},
		{&u->put_pattern, "INSERT OR REPLACE INTO unmapped VALUES (?,?,?,?,?,?,?,?)"},
		{&u->delete_pattern,
		 "DELETE FROM unmapped WHERE day = ? AND service = ? AND method = ? AND pattern = ?"},
		{&u->extend, "UPDATE presence SET seen_us = max(seen_us, ?1) WHERE began_us ="
			     " (SELECT began_us FROM presence WHERE began_us <= ?1 AND seen_us >= ?1 - ?2"
			     " AND seen_us <= ?1 + ?2 ORDER BY seen_us DESC LIMIT 1)"},
		{&u->begin, "INSERT OR IGNORE INTO presence VALUES (?1, ?1)"},
		{&u->expire_patterns, "DELETE FROM unmapped WHERE day < ?"},
		{&u->expire_presence, "DELETE FROM presence WHERE seen_us < ?"},
		{&u->cut_presence,
		 "UPDATE OR IGNORE presence SET began_us = ?1 WHERE began_us < ?1 - 86400000000"}};
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		int r = db_prepare(u->db, all[i].sql, all[i].stmt, e);
		if (r < 0)
			return r;
	}
	return 0;
}

static int usage_make_tables(struct db *db, struct err *e)
{
	static const char there[] = "SELECT count(*) FROM sqlite_master WHERE name = 'presence'";
	int64_t n;
	int r = db_query_int64(db, there, &n, e);
	if (r < 0 || n > 0)
		return r;
	r = db_begin(db, e);
	if (r == 0) /* another process may have made them since */
		r = db_query_int64(db, there, &n, e);
	if (r == 0 && n == 0)
		r = db_exec(db, usage_schema, e);
	if (r == 0)
		r = db_commit(db, e);
	if (r < 0)
		db_rollback(db);
	return r;
}

int usage_store_new(struct db *db, struct usage_store **ret, struct err *e)
{
	CLEANUP(usage_store_freep) struct usage_store *u = calloc(1, sizeof(*u));
	if (!u)
		return err_set(e, -ENOMEM, "out of memory");
	u->db = db;
	u->day = -1;
	int r = usage_make_tables(db, e);
	if (r == 0)
		r = usage_prepare(u, e);
	if (r < 0)
		return r;
	*ret = steal(u);
	return 0;
}

struct usage_store *usage_store_free(struct usage_store *u)
{
	if (!u)
		return NULL;
	struct db_stmt *all[] = {u->put_last,	     u->read_day,	 u->put_pattern,
				 u->delete_pattern,  u->extend,		 u->begin,
				 u->expire_patterns, u->expire_presence, u->cut_presence};
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		db_stmt_free(all[i]);
	unmapped_release(&u->today);
	free(u);
	return NULL;
}

void usage_store_forget(struct usage_store *u)
{
	u->day = -1;
	u->present_us = 0;
}

/* --- adding --------------------------------------------------------------------------------------------- */

static int64_t usage_day_of(int64_t now_us)
{
	return now_us / USAGE_DAY_US;
}

/* The day that is written to, with what the file has of it. */
static int usage_open_day(struct usage_store *u, int64_t day, struct err *e)
{
	if (u->day == day)
		return 0;
	unmapped_release(&u->today);
	db_bind_int64(u->read_day, 1, day);
	int r;
	while ((r = db_step(u->read_day, e)) == 1) {
		struct unmapped_pattern p = {.count = (uint64_t)db_column_int64(u->read_day, 3),
					     .not_found = (uint64_t)db_column_int64(u->read_day, 4),
					     .last_us = db_column_int64(u->read_day, 5),
					     .last_found_us = db_column_int64(u->read_day, 6),
					     .stored = true};
		text_copy(db_column_text(u->read_day, 0), p.service, sizeof(p.service));
		text_copy(db_column_text(u->read_day, 1), p.method, sizeof(p.method));
		text_copy(db_column_text(u->read_day, 2), p.pattern, sizeof(p.pattern));
		if (unmapped_load(&u->today, &p) < 0)
			r = err_set(e, -ENOMEM, "out of memory");
		if (r < 0)
			break;
	}
	db_reset(u->read_day);
	u->day = r == 0 ? day : -1;
	return r;
}

static int usage_add_pattern(struct usage_store *u, const struct outcome *o, struct err *e)
{
	bool found = o->http_status != 404;
	struct unmapped_pattern p = {.count = 1,
				     .not_found = !found,
				     .last_us = o->time_us,
				     .last_found_us = found ? o->time_us : 0};
	memcpy(p.service, o->service, sizeof(p.service));
	memcpy(p.method, o->method, sizeof(p.method));
	memcpy(p.pattern, o->pattern, sizeof(p.pattern));
	return unmapped_add(&u->today, &p) < 0 ? err_set(e, -ENOMEM, "out of memory") : 0;
}

int usage_store_add(struct usage_store *u, const struct outcome *o, struct series *s, int64_t now_us,
		    struct err *e)
{
	if (o->time_us >= s->last.time_us || s->last.time_us > now_us) {
		s->last.time_us = o->time_us;
		memcpy(s->last.organization, o->organization, sizeof(s->last.organization));
	}
	s->last.dirty = true;
	if (!o->pattern[0])
		return 0;
	int r = usage_open_day(u, usage_day_of(now_us), e);
	return r == 0 ? usage_add_pattern(u, o, e) : r;
}

/* --- writing -------------------------------------------------------------------------------------------- */

static int usage_write_last(struct usage_store *u, struct series *s, int64_t now_us, struct err *e)
{
	struct span organization = span_of(s->last.organization);
	db_bind_int64(u->put_last, 1, s->row);
	db_bind_int64(u->put_last, 2, s->last.time_us);
	db_bind_text(u->put_last, 3, organization.len ? organization : SPAN_NONE);
	db_bind_int64(u->put_last, 4, now_us);
	s->last.dirty = false;
	return db_run(u->put_last, e);
}

static int usage_write_pattern(struct usage_store *u, struct unmapped_pattern *p, struct err *e)
{
	struct db_stmt *q = p->gone ? u->delete_pattern : u->put_pattern;
	if (p->gone && !p->stored)
		return 0;
	db_bind_int64(q, 1, u->day);
	db_bind_text(q, 2, span_of(p->service));
	db_bind_text(q, 3, span_of(p->method));
	db_bind_text(q, 4, span_of(p->pattern));
	if (!p->gone) {
		db_bind_int64(q, 5, (int64_t)p->count);
		db_bind_int64(q, 6, (int64_t)p->not_found);
		db_bind_int64(q, 7, p->last_us);
		db_bind_int64(q, 8, p->last_found_us);
	}
	p->dirty = false;
	p->stored = true;
	return db_run(q, e);
}

/* Someone else's clock, or this one's of before, may be another: then this is an interval of its own. */
static int usage_write_presence(struct usage_store *u, int64_t now_us, struct err *e)
{
	db_bind_int64(u->extend, 1, now_us);
	db_bind_int64(u->extend, 2, USAGE_JOIN_US);
	int r = db_run(u->extend, e);
	if (r == 0 && db_changes(u->db) == 0) {
		db_bind_int64(u->begin, 1, now_us);
		r = db_run(u->begin, e);
	}
	if (r == 0)
		u->present_us = now_us;
	return r;
}

bool usage_store_is_due(const struct usage_store *u, int64_t now_us)
{
	return u->present_us == 0 || now_us < u->present_us || now_us - u->present_us >= USAGE_PRESENCE_US;
}

int usage_store_write(struct usage_store *u, struct series *first, int64_t now_us, struct err *e)
{
	int r = 0;
	for (struct series *s = first; r == 0 && s; s = s->next)
		if (s->last.dirty && s->row)
			r = usage_write_last(u, s, now_us, e);
	for (size_t i = 0; r == 0 && u->day >= 0 && i < u->today.n; i++)
		if (u->today.patterns[i].dirty)
			r = usage_write_pattern(u, &u->today.patterns[i], e);
	if (r == 0)
		unmapped_compact(&u->today);
	return r == 0 && usage_store_is_due(u, now_us) ? usage_write_presence(u, now_us, e) : r;
}

int usage_store_retain(struct usage_store *u, int64_t before_us, struct err *e)
{
	struct db_stmt *const all[] = {u->expire_patterns, u->expire_presence, u->cut_presence};
	int r = 0;
	for (size_t i = 0; r == 0 && i < sizeof(all) / sizeof(all[0]); i++) {
		db_bind_int64(all[i], 1, i == 0 ? usage_day_of(before_us) : before_us);
		r = db_run(all[i], e);
	}
	return r;
}
