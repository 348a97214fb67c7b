/* The sums of one outcomes.db. */
#include "outcomes/report_sums.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/crypto.h"
#include "base/db.h"
#include "base/text.h"
#include "outcomes/outcome_store.h"
#include "outcomes/rollup_days.h"
#include "outcomes/rollup_fold.h"
#include "outcomes/search/row_filter.h"
#include "outcomes/search/rows.h"

#define MINUTE_US 60000000LL
#define SERIES_ID_MAX 1000000 /* far beyond what a recorder writes; guards against a made-up file */
#define BUSY_MS 2000

struct sums_reader {
	const struct report_options *options;
	struct db *db;
	struct report_sums *sums;
	size_t *places; /* by id: in sums->series, and one more; 0: it is not wanted */
	size_t place_count;
	int64_t hours_until; /* a minute: what was read before it is sums of hours */
	struct err error;    /* of what is called for each row */
};

struct report_sums *report_sums_free(struct report_sums *s)
{
	if (!s)
		return NULL;
	for (size_t i = 0; i < s->series_count; i++)
		free(s->series[i].latencies);
	free(s->series);
	free(s->minutes);
	free(s);
	return NULL;
}

/* --- the words of the series ---------------------------------------------------------------------------- */

static bool passes(const char *filter, struct span text)
{
	return !filter || span_is(text, filter);
}

static int sums_add_series(struct sums_reader *m, const struct report_series *x, size_t *ret, struct err *e)
{
	struct report_sums *s = m->sums;
	if ((s->series_count & (s->series_count - 1)) == 0) { /* it is full at each power of two */
		size_t room = s->series_count ? 2 * s->series_count : 1;
		struct report_series *grown = reallocarray(s->series, room, sizeof(*grown));
		if (!grown)
			return err_set(e, -ENOMEM, "out of memory");
		s->series = grown;
	}
	s->series[s->series_count++] = *x;
	*ret = s->series_count;
	return 0;
}

static int sums_make_place(struct sums_reader *m, int64_t id, struct err *e)
{
	if ((size_t)id < m->place_count)
		return 0;
	size_t *grown = reallocarray(m->places, (size_t)id + 1, sizeof(*grown));
	if (!grown)
		return err_set(e, -ENOMEM, "out of memory");
	memset(grown + m->place_count, 0, ((size_t)id + 1 - m->place_count) * sizeof(*grown));
	m->places = grown;
	m->place_count = (size_t)id + 1;
	return 0;
}

static int read_one_series(struct sums_reader *m, struct db_stmt *q, struct err *e)
{
	int64_t id = db_column_int64(q, 0);
	struct span service = db_column_text(q, 1), operation = db_column_text(q, 2);
	struct report_series s = {
		.side = outcome_side_parse(db_column_text(q, 3)),
		.role = outcome_role_parse(db_column_text(q, 4)),
		.reason = outcome_reason_parse(db_column_text(q, 5)),
		.result = outcome_result_parse(db_column_text(q, 6)),
		.answered = db_column_int64(q, 7) != 0,
	};
	/* The words of a newer version: what is not known still counts, a result as the worst that it may
	 * be. */
	if (s.reason < 0)
		s.reason = REASON_OTHER;
	if (s.result < 0)
		s.result = OUTCOME_UNKNOWN;
	if (id < 1 || id > SERIES_ID_MAX || s.side < 0 || s.role < 0)
		return err_set(e, -EUCLEAN, "%s: series %lld cannot be decoded", m->options->path,
			       (long long)id);
	text_copy(service, s.service, sizeof(s.service));
	text_copy(operation, s.operation, sizeof(s.operation));
	text_copy(db_column_text(q, 8), s.backend, sizeof(s.backend));
	int r = sums_make_place(m, id, e);
	if (r == 0 && passes(m->options->service, service) && passes(m->options->operation, operation))
		r = sums_add_series(m, &s, &m->places[id], e);
	return r;
}

static int read_series(struct sums_reader *m, struct err *e)
{
	CLEANUP(db_stmt_freep) struct db_stmt *q = NULL;
	int r = db_prepare(
		m->db,
		"SELECT id, service, operation, side, role, reason, result, answered, backend FROM series"
		" ORDER BY id",
		&q, e);
	while (r == 0 && (r = db_step(q, e)) > 0)
		r = read_one_series(m, q, e);
	return r;
}

/* --- what cannot move ----------------------------------------------------------------------------------- */

static bool never_moves(const struct report_series *s)
{
	return s->reason == REASON_NO_TASK || s->reason == REASON_UNMAPPED ||
	       strcmp(s->operation, OUTCOME_UNMAPPED) == 0;
}

/* A request that was refused before anyone looked for a task says nothing by itself: it is of the others of
 * its operation. */
static bool is_of_no_task(const struct report_sums *all, const struct report_series *s)
{
	bool none = false;
	for (size_t i = 0; i < all->series_count; i++) {
		const struct report_series *x = &all->series[i];
		if (x->reason == REASON_REFUSED || strcmp(x->operation, s->operation) != 0 ||
		    strcmp(x->service, s->service) != 0)
			continue;
		if (!never_moves(x))
			return false;
		none = true;
	}
	return none;
}

void report_sums_mark_left_out(struct report_sums *s)
{
	for (size_t i = 0; i < s->series_count; i++) {
		struct report_series *x = &s->series[i];
		x->left_out = never_moves(x) || (x->reason == REASON_REFUSED && is_of_no_task(s, x));
	}
}

static struct report_series *wanted(struct sums_reader *m, int64_t id)
{
	size_t place = id > 0 && (size_t)id < m->place_count ? m->places[id] : 0;
	return place ? &m->sums->series[place - 1] : NULL;
}

/* --- the span of time ----------------------------------------------------------------------------------- */

static int64_t report_minute_of(int64_t time_us)
{
	return time_us / MINUTE_US - (time_us % MINUTE_US < 0);
}

static int64_t since_minute(const struct sums_reader *m)
{
	if (!m->options->since_us)
		return INT64_MIN;
	int64_t minute = report_minute_of(m->options->since_us);
	return minute < m->sums->folded ? rollup_hour(minute) : minute;
}

/* The first minute that is out. */
static int64_t until_minute(const struct sums_reader *m)
{
	if (!m->options->until_us)
		return INT64_MAX;
	int64_t last = report_minute_of(m->options->until_us - 1);
	return last < m->sums->folded ? rollup_hour(last) + 60 : last + 1;
}

static int read_int(struct sums_reader *m, const char *sql, int64_t a, int64_t b, int64_t *ret, bool *null,
		    struct err *e)
{
	CLEANUP(db_stmt_freep) struct db_stmt *q = NULL;
	int r = db_prepare(m->db, sql, &q, e);
	if (r < 0)
		return r;
	db_bind_int64(q, 1, a);
	db_bind_int64(q, 2, b);
	r = db_step(q, e);
	if (r < 0)
		return r;
	*null = db_column_is_null(q, 0);
	*ret = db_column_int64(q, 0);
	return 0;
}

static int read_span(struct sums_reader *m, struct err *e)
{
	struct report_sums *s = m->sums;
	bool none;
	int64_t since = since_minute(m), until = until_minute(m), length;
	int r = read_int(m, "SELECT min(minute) FROM rollups WHERE minute >= ? AND minute < ?", since, until,
			 &s->first_minute, &none, e);
	if (r == 0 && !none)
		r = read_int(m, "SELECT max(minute) FROM rollups WHERE minute >= ? AND minute < ?", since,
			     until, &s->last_minute, &none, e);
	if (r < 0 || none)
		return r;
	s->any = true;
	if (__builtin_sub_overflow(s->last_minute, s->first_minute, &length) ||
	    length > INT64_MAX / (2 * MINUTE_US))
		return err_set(e, -EUCLEAN, "%s: times out of range", m->options->path);
	return 0;
}

/* --- reading -------------------------------------------------------------------------------------------- */

static int sums_insert_minute(struct report_sums *s, size_t at, int64_t minute)
{
	if (s->minute_count == REPORT_MINUTES_MAX)
		return -E2BIG;
	if ((s->minute_count & (s->minute_count - 1)) == 0) {
		size_t room = s->minute_count ? 2 * s->minute_count : 1;
		struct report_minute *grown = reallocarray(s->minutes, room, sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		s->minutes = grown;
	}
	memmove(s->minutes + at + 1, s->minutes + at, (s->minute_count - at) * sizeof(*s->minutes));
	s->minutes[at] = (struct report_minute){.minute = minute};
	s->minute_count++;
	return 0;
}

int report_sums_add_minute(struct report_sums *s, const struct report_series *of, int64_t minute, uint64_t n)
{
	if (of->role == OUTCOME_SHADOW || of->left_out)
		return 0;
	size_t at = s->minute_count; /* they come nearly in order */
	while (at > 0 && s->minutes[at - 1].minute > minute)
		at--;
	bool there = at > 0 && s->minutes[at - 1].minute == minute;
	int r = there ? 0 : sums_insert_minute(s, at, minute);
	if (r < 0)
		return r;
	struct report_minute *m = &s->minutes[there ? at - 1 : at];
	if (of->answered)
		m->executions[of->side] += n;
	if (outcome_is_counted((enum outcome_result)of->result))
		m->counted[of->side] += n;
	if (of->result == OUTCOME_SUCCESS)
		m->success[of->side] += n;
	return 0;
}

static int count_into(struct sums_reader *m, struct report_series *s, int64_t minute, uint64_t n,
		      struct err *e)
{
	s->count += n;
	int r = report_sums_add_minute(m->sums, s, minute, n);
	if (r == 0 && !s->latencies && outcome_is_counted((enum outcome_result)s->result) &&
	    !(s->latencies = calloc(1, sizeof(*s->latencies))))
		r = -ENOMEM;
	if (r == -E2BIG)
		return err_set(e, r, "%s: too many minutes; name a shorter span", m->options->path);
	return r < 0 ? err_set(e, r, "out of memory") : 0;
}

static int add_rollup(void *arg, struct db_stmt *q, struct err *e)
{
	struct sums_reader *m = arg;
	struct report_series *s = wanted(m, db_column_int64(q, 1));
	if (!s)
		return 0;
	int r = count_into(m, s, db_column_int64(q, 0), (uint64_t)db_column_int64(q, 2), e);
	if (r == 0 && s->latencies && histogram_sum_decode(s->latencies, db_column_blob(q, 3)) < 0)
		return err_set(e, -EUCLEAN, "%s: a damaged histogram in rollups", m->options->path);
	return r;
}

static int read_rollups(struct sums_reader *m, struct err *e)
{
	return rollups_read(m->db, since_minute(m), until_minute(m), m->options->no_points, add_rollup, m, e);
}

static int report_add_row(void *arg, struct db_stmt *q)
{
	struct sums_reader *m = arg;
	struct report_series *s = wanted(m, db_column_int64(q, 0));
	if (!s)
		return 0;
	int r = count_into(m, s, report_minute_of(db_column_int64(q, 1)), 1, &m->error);
	if (r == 0 && s->latencies)
		histogram_sum_add(s->latencies, db_column_int64(q, 2));
	return r;
}

static int read_row_spans(struct sums_reader *m, struct rows_reader *rows, const struct rows_split *split,
			  const char *organization, struct err *e)
{
	CLEANUP(db_stmt_freep) struct db_stmt *q = NULL;
	int r = db_prepare(m->db,
			   "SELECT series, time_us, latency_us FROM outcomes WHERE id BETWEEN ?1 AND ?2"
			   " AND time_us >= ?3 AND time_us < ?4 AND organisation = ?5",
			   &q, e);
	if (r < 0)
		return r;
	db_bind_text(q, 5, span_of(organization));
	rows->keys[0].either = rows->keys[0].or = row_filter_key(ROW_ORGANIZATION, span_of(organization));
	rows->n_keys = 1;
	for (size_t i = 0; r == 0 && i < split->n_spans; i++)
		r = rows_each(rows, q, &split->spans[i], report_add_row, m, e);
	if (r < 0 && m->error.text[0])
		*e = m->error;
	return r;
}

static int add_hour(struct sums_reader *m, struct db_stmt *q, int64_t hour, struct err *e)
{
	struct report_series *s = wanted(m, db_column_int64(q, 0));
	if (!s)
		return 0;
	int r = count_into(m, s, hour * 60, (uint64_t)db_column_int64(q, 1), e);
	if (r == 0 && s->latencies && histogram_sum_decode(s->latencies, db_column_blob(q, 2)) < 0)
		return err_set(e, -EUCLEAN, "%s: a damaged histogram in organization_hours",
			       m->options->path);
	return r;
}

/* The hours are in order; each is asked for the organization, past which there may be thousands of others. */
static int read_row_hours(struct sums_reader *m, const struct rows_split *split, const char *organization,
			  struct err *e)
{
	CLEANUP(db_stmt_freep) struct db_stmt *q = NULL;
	int64_t hour = split->first_hour, next;
	bool none = split->first_hour >= split->end_hour;
	int r = none ? 0
		     : db_prepare(m->db,
				  "SELECT series, count, histogram FROM organization_hours"
				  " WHERE hour = ? AND organization = ?",
				  &q, e);
	for (; r == 0 && !none && hour < split->end_hour; hour++) {
		r = read_int(m, "SELECT min(hour) FROM organization_hours WHERE hour >= ? AND hour < ?", hour,
			     split->end_hour, &next, &none, e);
		if (r < 0 || none)
			break;
		hour = next;
		db_bind_int64(q, 1, hour);
		db_bind_text(q, 2, span_of(organization));
		while ((r = db_step(q, e)) > 0 && (r = add_hour(m, q, hour, e)) == 0)
			m->hours_until = (hour + 1) * 60;
	}
	return r;
}

/* Whole hours from sums (search/row_index.h), the edges of the span from rows: exact. */
static int read_rows(struct sums_reader *m, struct err *e)
{
	char organization[sizeof(((struct outcome *)NULL)->organization)];
	struct rows_reader rows;
	struct rows_split split;
	outcome_id(span_of(m->options->organization), organization, sizeof(organization));
	int r = rows_open(m->db, &rows, e);
	if (r < 0)
		return r;
	rows.most = INT64_MAX; /* a report is of all, also of a file that is just being taken up */
	rows_split(&rows, m->options->since_us ? m->options->since_us : INT64_MIN,
		   m->options->until_us ? m->options->until_us : INT64_MAX, &split);
	r = read_row_hours(m, &split, organization, e);
	return r < 0 ? r : read_row_spans(m, &rows, &split, organization, e);
}

/* Of everybody, for a short span: an attempt is written after it began, so earlier rows are not looked at. */
static int read_exact_rows(struct sums_reader *m, struct err *e)
{
	CLEANUP(db_stmt_freep) struct db_stmt *q = NULL;
	int r = db_prepare(
		m->db,
		"SELECT series, time_us, latency_us FROM outcomes WHERE time_us >= ? AND time_us < ?"
		" AND id >= (SELECT min(row) FROM row_marks WHERE minute >= ?)",
		&q, e);
	if (r < 0)
		return r;
	db_bind_int64(q, 1, m->options->since_us);
	db_bind_int64(q, 2, m->options->until_us ? m->options->until_us : INT64_MAX);
	db_bind_int64(q, 3, since_minute(m));
	while ((r = db_step(q, e)) > 0 && (r = report_add_row(m, q)) == 0)
		;
	if (r < 0 && m->error.text[0])
		*e = m->error;
	return r;
}

static int read_all_sums(struct sums_reader *m, struct err *e)
{
	if (m->options->organization)
		return read_rows(m, e);
	return m->options->exact ? read_exact_rows(m, e) : read_rollups(m, e);
}

static int read_drops(struct sums_reader *m, struct err *e)
{
	int64_t dropped;
	bool null;
	int r = read_int(m, "SELECT coalesce(sum(count), 0) FROM drops WHERE minute >= ? AND minute < ?",
			 since_minute(m), until_minute(m), &dropped, &null, e);
	if (r == 0)
		m->sums->dropped = (uint64_t)dropped;
	return r;
}

/* --- all of it ------------------------------------------------------------------------------------------ */

static int check_version(struct sums_reader *m, struct err *e)
{
	int64_t version;
	int r = db_user_version(m->db, &version, e);
	if (r < 0)
		return r;
	if (version > OUTCOME_STORE_VERSION)
		return err_set(e, -EPROTO, "%s: schema version %lld, this program knows up to %d",
			       m->options->path, (long long)version, OUTCOME_STORE_VERSION);
	if (version == 0)
		return err_set(e, -ENODATA, "%s: nothing recorded yet", m->options->path);
	m->sums->folded = INT64_MIN;
	return version < 2 ? 0 : db_query_int64(m->db, "SELECT until FROM folded", &m->sums->folded, e);
}

/* What the span really is; rows are exact. */
static void describe_span(struct sums_reader *m)
{
	struct report_sums *s = m->sums;
	s->since_us = m->options->since_us;
	s->until_us = m->options->until_us;
	if (s->from_rows)
		return;
	if (s->since_us)
		s->since_us = since_minute(m) * MINUTE_US;
	if (s->until_us)
		s->until_us = until_minute(m) * MINUTE_US;
}

static int sums_read_all(struct sums_reader *m, struct err *e)
{
	int r = check_version(m, e);
	if (r < 0)
		return r;
	describe_span(m);
	r = read_series(m, e);
	report_sums_mark_left_out(m->sums);
	if (r == 0)
		r = read_span(m, e);
	if (r == 0)
		r = read_all_sums(m, e);
	if (r == 0)
		r = read_drops(m, e);
	if (r == 0)
		r = demo_history_of(m->db, &m->sums->demo, e);
	if (m->hours_until > m->sums->folded) /* points over time are of whole hours up to there */
		m->sums->folded = m->hours_until;
	return r;
}

static int sums_read_file(struct sums_reader *m, struct err *e)
{
	struct db_options o = {
		.path = m->options->path,
		.read_only = true,
		.busy_timeout_ms = BUSY_MS,
		.application_id = OUTCOME_STORE_APPLICATION,
	};
	int r = db_open(&o, &m->db, e);
	if (r == 0) /* one snapshot for all that is read; it does not hold up the writer */
		r = db_exec(m->db, "BEGIN", e);
	if (r == 0)
		r = sums_read_all(m, e);
	if (m->db)
		db_rollback(m->db);
	return r;
}

int report_sums_read(const struct report_options *o, struct report_sums **ret, struct err *e)
{
	struct sums_reader m = {.options = o, .hours_until = INT64_MIN, .sums = calloc(1, sizeof(*m.sums))};
	if (!m.sums)
		return err_set(e, -ENOMEM, "out of memory");
	m.sums->from_rows = o->organization || o->exact;
	int r = sums_read_file(&m, e);
	db_close(m.db);
	free(m.places);
	if (r < 0) {
		report_sums_free(m.sums);
		return r;
	}
	outcome_store_name(o->path, m.sums->store);
	*ret = m.sums;
	return 0;
}
