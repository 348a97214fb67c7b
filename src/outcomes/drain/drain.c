#include "outcomes/drain/drain_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/db.h"
#include "base/text.h"
#include "outcomes/outcome_store.h"
#include "outcomes/rollup_fold.h"
#include "outcomes/usage_store.h"

#define MINUTE_US 60000000LL
#define SERIES_ID_MAX 1000000 /* far beyond what a recorder writes; guards against a made-up file */
#define BUSY_MS 2000

struct drain_series { /* a row of table `series` */
	struct drain_last last;
	uint64_t count;	     /* in the span */
	int64_t last_minute; /* of the sums in the span; INT64_MIN = none */
	int64_t seen_us;     /* last_seen's; 0 = none */
	uint8_t side;
	bool known, answered;
};

struct drain_maker {
	const struct drain_options *options;
	struct db *db;
	struct drain *drain;
	struct drain_series *series; /* by id */
	size_t n_series;
	int64_t folded; /* before this minute sums are per hour */
	bool knows_usage;
	struct unmapped_table unmapped;
};

bool drain_is_use(int role, int reason)
{
	return role != OUTCOME_SHADOW && reason != REASON_REFUSED && reason != REASON_PIN_UNKNOWN;
}

/* --- series --------------------------------------------------------------------------------------------- */

static bool drain_wants(const struct drain_maker *m, struct span service, struct span operation)
{
	const struct drain_options *o = m->options;
	return (!o->service || span_is(service, o->service)) &&
	       (!o->operation || span_is(operation, o->operation));
}

static int drain_grow_series(struct drain_maker *m, int64_t id, struct err *e)
{
	if (id < 1 || id > SERIES_ID_MAX)
		return err_set(e, -EUCLEAN, "%s: series %lld cannot be decoded", m->options->path,
			       (long long)id);
	if ((size_t)id < m->n_series)
		return 0;
	struct drain_series *grown = reallocarray(m->series, (size_t)id + 1, sizeof(*grown));
	if (!grown)
		return err_set(e, -ENOMEM, "out of memory");
	memset(grown + m->n_series, 0, ((size_t)id + 1 - m->n_series) * sizeof(*grown));
	m->series = grown;
	m->n_series = (size_t)id + 1;
	return 0;
}

/* Words of a newer version: an unknown reason is a use, an unknown role one, too. */
static uint8_t drain_word(int parsed, int otherwise)
{
	return (uint8_t)(parsed < 0 ? otherwise : parsed);
}

static int drain_read_one_series(struct drain_maker *m, struct db_stmt *q, struct err *e)
{
	int64_t id = db_column_int64(q, 0);
	struct span service = db_column_text(q, 1), operation = db_column_text(q, 2);
	int side = outcome_side_parse(db_column_text(q, 3));
	int r = drain_grow_series(m, id, e);
	if (r < 0 || side < 0 || !drain_wants(m, service, operation))
		return r;
	struct drain_series *s = &m->series[id];
	*s = (struct drain_series){
		.side = (uint8_t)side,
		.last = {.role = drain_word(outcome_role_parse(db_column_text(q, 4)), OUTCOME_PRIMARY),
			 .reason = drain_word(outcome_reason_parse(db_column_text(q, 5)), REASON_OTHER),
			 .result = drain_word(outcome_result_parse(db_column_text(q, 6)), OUTCOME_UNKNOWN)},
		.answered = db_column_int64(q, 7) != 0,
		.known = true,
		.last_minute = INT64_MIN,
	};
	text_copy(service, s->last.service, sizeof(s->last.service));
	text_copy(operation, s->last.operation, sizeof(s->last.operation));
	text_copy(db_column_text(q, 8), s->last.backend, sizeof(s->last.backend));
	return 0;
}

static int drain_each(struct drain_maker *m, const char *sql, int64_t since,
		      int (*fn)(struct drain_maker *m, struct db_stmt *q, struct err *e), struct err *e)
{
	CLEANUP(db_stmt_freep) struct db_stmt *q = NULL;
	int r = db_prepare(m->db, sql, &q, e);
	if (r == 0 && since != INT64_MIN)
		db_bind_int64(q, 1, since);
	while (r == 0 && (r = db_step(q, e)) > 0)
		r = fn(m, q, e);
	return r;
}

static struct drain_series *drain_series_of(struct drain_maker *m, int64_t id)
{
	return id > 0 && (size_t)id < m->n_series && m->series[id].known ? &m->series[id] : NULL;
}

static int drain_add_sum(struct drain_maker *m, struct db_stmt *q, struct err *e)
{
	struct drain_series *s = drain_series_of(m, db_column_int64(q, 1));
	(void)e;
	if (!s)
		return 0;
	s->count += (uint64_t)db_column_int64(q, 2);
	if (db_column_int64(q, 0) > s->last_minute)
		s->last_minute = db_column_int64(q, 0);
	return 0;
}

static int drain_add_last_seen(struct drain_maker *m, struct db_stmt *q, struct err *e)
{
	struct drain_series *s = drain_series_of(m, db_column_int64(q, 0));
	(void)e;
	if (!s)
		return 0;
	s->seen_us = db_column_int64(q, 1);
	text_copy(db_column_text(q, 2), s->last.organization, sizeof(s->last.organization));
	return 0;
}

/* Sums that are later than last_seen are of an older program, which writes none. */
static void drain_settle_last(struct drain_maker *m, struct drain_series *s)
{
	int64_t width = s->last_minute < m->folded ? 60 : 1;
	s->last.time_us = s->seen_us;
	s->last.exact = s->seen_us % MINUTE_US != MINUTE_US - 1; /* as seeded */
	if (s->last_minute == INT64_MIN || s->seen_us >= s->last_minute * MINUTE_US)
		return;
	s->last.time_us = (s->last_minute + width) * MINUTE_US - 1;
	if (s->last.time_us > m->options->now_us)
		s->last.time_us = m->options->now_us;
	s->last.organization[0] = '\0';
	s->last.exact = false;
}

/* --- what could be recorded ----------------------------------------------------------------------------- */

static int drain_add_drops(struct drain_maker *m, struct db_stmt *q, struct err *e)
{
	(void)e;
	m->drain->dropped = (uint64_t)db_column_int64(q, 0);
	return 0;
}

static void drain_note_gap(struct drain *d, int64_t began_us, int64_t ended_us)
{
	if (began_us < d->since_us)
		began_us = d->since_us;
	if (ended_us - began_us <= USAGE_JOIN_US)
		return;
	d->gap_us += ended_us - began_us;
	struct drain_gap gap = {began_us, ended_us};
	for (size_t i = 0; i < d->n_gaps; i++)
		if (gap.ended_us - gap.began_us > d->gaps[i].ended_us - d->gaps[i].began_us) {
			struct drain_gap shorter = d->gaps[i];
			d->gaps[i] = gap;
			gap = shorter;
		}
	if (d->n_gaps < DRAIN_GAPS_MAX)
		d->gaps[d->n_gaps++] = gap;
}

static int drain_read_presence(struct drain_maker *m, struct err *e)
{
	CLEANUP(db_stmt_freep) struct db_stmt *q = NULL;
	struct drain *d = m->drain;
	int64_t until_us = 0, now_us = m->options->now_us;
	int r = db_prepare(m->db, "SELECT began_us, seen_us FROM presence ORDER BY began_us", &q, e);
	while (r == 0 && (r = db_step(q, e)) > 0) {
		int64_t began_us = db_column_int64(q, 0), seen_us = db_column_int64(q, 1);
		if (began_us > now_us) /* by a clock that was wrong */
			break;
		if (!until_us)
			d->records_us = began_us;
		else if (began_us > until_us && began_us > d->since_us)
			drain_note_gap(d, until_us, began_us);
		until_us = seen_us > until_us ? seen_us : until_us;
		r = 0;
	}
	if (r < 0)
		return r;
	if (until_us && until_us < now_us)
		drain_note_gap(d, until_us, now_us);
	return 0;
}

/* --- unmapped ------------------------------------------------------------------------------------------- */

static int drain_add_pattern(struct drain_maker *m, struct db_stmt *q, struct err *e)
{
	struct unmapped_pattern p = {.count = (uint64_t)db_column_int64(q, 3),
				     .not_found = (uint64_t)db_column_int64(q, 4),
				     .last_us = db_column_int64(q, 5),
				     .last_found_us = db_column_int64(q, 6)};
	if (p.last_us < m->drain->since_us || !drain_wants(m, db_column_text(q, 0), SPAN_LIT(DRAIN_UNMAPPED)))
		return 0;
	text_copy(db_column_text(q, 0), p.service, sizeof(p.service));
	text_copy(db_column_text(q, 1), p.method, sizeof(p.method));
	text_copy(db_column_text(q, 2), p.pattern, sizeof(p.pattern));
	m->unmapped.fresh = 0; /* what the days together come to is limited by what each of them may have */
	return unmapped_add(&m->unmapped, &p) < 0 ? err_set(e, -ENOMEM, "out of memory") : 0;
}

/* --- operations ----------------------------------------------------------------------------------------- */

static void drain_count_use(struct drain_operation *op, const struct drain_series *s)
{
	if (s->last.time_us > op->last.time_us)
		op->last = s->last;
	op->uses += s->count;
	op->reasons[s->last.reason] += s->count;
}

static void drain_count_series(const struct drain_maker *m, struct drain_operation *op,
			       const struct drain_series *s)
{
	bool of_side = s->side == m->options->side, use = drain_is_use(s->last.role, s->last.reason);
	if (s->last.role == OUTCOME_SHADOW && of_side)
		op->shadows += s->count;
	if (use && of_side)
		drain_count_use(op, s);
	else if (use)
		op->others += s->count;
	if (use && s->side == OUTCOME_LEGACY && s->last.role == OUTCOME_FALLBACK) {
		op->fallbacks += s->count;
		op->fallback_reasons[s->last.reason] += s->count;
	}
	if (use && s->side == OUTCOME_TASK && s->last.role == OUTCOME_PRIMARY && !s->answered)
		op->gave_up[s->last.result] += s->count;
}

static int drain_count_all(struct drain_maker *m, struct err *e)
{
	struct drain_operation *op;
	for (size_t i = 0; i < m->n_series; i++) {
		struct drain_series *s = &m->series[i];
		if (!s->known)
			continue;
		int r = drain_add_operation(m->drain, &s->last, &op, e);
		if (r < 0)
			return r;
		drain_settle_last(m, s);
		drain_count_series(m, op, s);
	}
	return 0;
}

/* --- making --------------------------------------------------------------------------------------------- */

static int drain_check_version(struct drain_maker *m, struct err *e)
{
	int64_t version, n;
	int r = db_user_version(m->db, &version, e);
	if (r == 0 && version > OUTCOME_STORE_VERSION)
		r = err_set(e, -EPROTO, "%s: schema version %lld, this program knows up to %d",
			    m->options->path, (long long)version, OUTCOME_STORE_VERSION);
	if (r == 0 && version == 0)
		r = err_set(e, -ENODATA, "%s: nothing recorded yet", m->options->path);
	m->folded = INT64_MIN;
	if (r == 0 && version >= 2)
		r = db_query_int64(m->db, "SELECT until FROM folded", &m->folded, e);
	if (r == 0)
		r = db_query_int64(m->db, "SELECT count(*) FROM sqlite_master WHERE name = 'presence'", &n,
				   e);
	m->knows_usage = r == 0 && n > 0;
	return r;
}

static int64_t drain_minute_of(int64_t us)
{
	return us / MINUTE_US - (us % MINUTE_US < 0);
}

static void drain_round(struct drain_maker *m)
{
	int64_t minute = drain_minute_of(m->options->since_us);
	m->drain->since_us = (minute < m->folded ? rollup_hour(minute) : minute) * MINUTE_US;
}

/* A file that only older programs have written: nothing tells when one of them ran, or what it saw last. */
static int drain_read_usage(struct drain_maker *m, struct err *e)
{
	struct drain *d = m->drain;
	if (!m->knows_usage)
		return 0;
	d->knows_patterns = true;
	int r = drain_each(m, "SELECT series, time_us, organization FROM last_seen", INT64_MIN,
			   drain_add_last_seen, e);
	if (r == 0)
		r = drain_read_presence(m, e);
	if (r == 0)
		r = drain_each(
			m,
			"SELECT service, method, pattern, count, not_found, last_us, last_found_us FROM"
			" unmapped WHERE day >= ? ORDER BY day",
			d->since_us / USAGE_DAY_US, drain_add_pattern, e);
	if (r < 0)
		return r;
	unmapped_compact(&m->unmapped);
	d->unmapped = m->unmapped.patterns;
	d->n_unmapped = m->unmapped.n;
	return 0;
}

static int drain_read_all(struct drain_maker *m, struct err *e)
{
	int r = drain_check_version(m, e);
	if (r < 0)
		return r;
	drain_round(m);
	int64_t minute = drain_minute_of(m->drain->since_us);
	r = drain_each(
		m, "SELECT id, service, operation, side, role, reason, result, answered, backend FROM series",
		INT64_MIN, drain_read_one_series, e);
	if (r == 0)
		r = drain_each(m, "SELECT minute, series, count FROM rollups WHERE minute >= ?", minute,
			       drain_add_sum, e);
	if (r == 0)
		r = drain_each(m, "SELECT coalesce(sum(count), 0) FROM drops WHERE minute >= ?", minute,
			       drain_add_drops, e);
	if (r == 0)
		r = drain_read_usage(m, e);
	if (r == 0)
		r = drain_count_all(m, e);
	return r < 0 ? r : drain_conclude(m->drain, e);
}

int drain_make(const struct drain_options *o, struct drain **ret, struct err *e)
{
	struct drain_maker m = {.options = o};
	CLEANUP(drain_freep) struct drain *d = calloc(1, sizeof(*d));
	if (!d)
		return err_set(e, -ENOMEM, "out of memory");
	d->options = *o;
	outcome_store_name(o->path, d->store);
	m.drain = d;
	struct db_options file = {.path = o->path,
				  .read_only = true,
				  .busy_timeout_ms = BUSY_MS,
				  .application_id = OUTCOME_STORE_APPLICATION};
	int r = db_open(&file, &m.db, e);
	if (r == 0) /* one snapshot for all that is read; it does not hold up the writer */
		r = db_exec(m.db, "BEGIN", e);
	if (r == 0)
		r = drain_read_all(&m, e);
	if (m.db)
		db_rollback(m.db);
	db_close(m.db);
	free(m.series);
	if (d->unmapped != m.unmapped.patterns)
		unmapped_release(&m.unmapped);
	if (r == 0)
		*ret = steal(d);
	return r;
}

struct drain *drain_free(struct drain *d)
{
	if (d) {
		free(d->services);
		free(d->operations);
		free(d->unmapped);
		free(d->own_held);
		free(d);
	}
	return NULL;
}
