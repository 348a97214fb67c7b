#include "outcomes/timeline.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/db.h"
#include "base/text.h"
#include "outcomes/histogram.h"
#include "outcomes/outcome_store.h"
#include "outcomes/rollup_days.h"
#include "outcomes/rollup_fold.h"

#define MINUTE_US 60000000LL
#define SERIES_ID_MAX 1000000
#define BUSY_MS 2000

/* What a series counts as. */
struct timeline_series {
	bool wanted, answered, counted, success;
	uint8_t side;
	long key;     /* of its operation; -1: none */
	size_t spark; /* its place in sparks */
};

struct timeline_reader {
	const struct timeline_options *o;
	struct db *db;
	struct timeline_series *series; /* by id */
	size_t series_count;
	int64_t folded; /* before this minute sums are per hour */
	struct timeline *t;
	/* executions whose set is known, and how many of them should have been the task side's */
	double known[TIMELINE_POINTS_MAX], expected[TIMELINE_POINTS_MAX];
	struct histogram_sum *latencies[TIMELINE_POINTS_MAX][OUTCOME_SIDE_COUNT]; /* NULL: none yet */
	struct sparks *sparks; /* NULL: a timeline is read */
};

static int timeline_open(struct timeline_reader *r, const char *path, struct err *e)
{
	int64_t version;
	const struct db_options o = {.path = path,
				     .read_only = true,
				     .busy_timeout_ms = BUSY_MS,
				     .application_id = OUTCOME_STORE_APPLICATION};
	int code = db_open(&o, &r->db, e);
	if (code == 0) /* one snapshot for all that is read */
		code = db_exec(r->db, "BEGIN", e);
	if (code == 0)
		code = db_user_version(r->db, &version, e);
	if (code < 0)
		return code;
	if (version > OUTCOME_STORE_VERSION)
		return err_set(e, -EPROTO, "%s: schema version %lld, this program knows up to %d", path,
			       (long long)version, OUTCOME_STORE_VERSION);
	if (version == 0)
		return err_set(e, -ENODATA, "%s: nothing recorded yet", path);
	r->folded = INT64_MIN;
	return version < 2 ? 0 : db_query_int64(r->db, "SELECT until FROM folded", &r->folded, e);
}

static void timeline_close(struct timeline_reader *r)
{
	if (r->db)
		db_rollback(r->db);
	db_close(r->db);
	free(r->series);
	for (size_t i = 0; i < TIMELINE_POINTS_MAX; i++)
		for (int side = 0; side < OUTCOME_SIDE_COUNT; side++)
			free(r->latencies[i][side]);
}

/* --- the words of the series ---------------------------------------------------------------------------- */

static bool timeline_wants(const struct timeline_reader *r, struct span service, struct span operation,
			   long *ret_key)
{
	const struct timeline_options *o = r->o;
	char s[32], op[64];
	if ((o->service && !span_is(service, o->service)) ||
	    (o->operation && !span_is(operation, o->operation)))
		return false;
	text_copy(service, s, sizeof(s));
	text_copy(operation, op, sizeof(op));
	*ret_key = o->key ? o->key(o->arg, s, op) : -1;
	return !o->key || *ret_key >= 0;
}

static int spark_place(struct sparks *s, struct span service, struct span operation, size_t *ret)
{
	for (size_t i = s->n; i-- > 0;)
		if (span_is(service, s->all[i].service) && span_is(operation, s->all[i].operation)) {
			*ret = i;
			return 0;
		}
	struct spark *grown = reallocarray(s->all, s->n + 1, sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	s->all = grown;
	struct spark *new = &s->all[s->n];
	memset(new, 0, sizeof(*new));
	text_copy(service, new->service, sizeof(new->service));
	text_copy(operation, new->operation, sizeof(new->operation));
	*ret = s->n++;
	return 0;
}

static int timeline_add_series(struct timeline_reader *r, struct db_stmt *q, struct err *e)
{
	int64_t id = db_column_int64(q, 0);
	int side = outcome_side_parse(db_column_text(q, 3)), role = outcome_role_parse(db_column_text(q, 4)),
	    result = outcome_result_parse(db_column_text(q, 5));
	if (id < 1 || id > SERIES_ID_MAX || side < 0 || role < 0)
		return err_set(e, -EUCLEAN, "%s: series %lld cannot be decoded", db_path(r->db),
			       (long long)id);
	if ((size_t)id >= r->series_count) {
		struct timeline_series *grown = reallocarray(r->series, (size_t)id + 1, sizeof(*grown));
		if (!grown)
			return err_set(e, -ENOMEM, "out of memory");
		memset(grown + r->series_count, 0, ((size_t)id + 1 - r->series_count) * sizeof(*grown));
		r->series = grown;
		r->series_count = (size_t)id + 1;
	}
	struct timeline_series *s = &r->series[id];
	struct span service = db_column_text(q, 1), operation = db_column_text(q, 2);
	s->side = (uint8_t)side;
	s->answered = db_column_int64(q, 6) != 0;
	s->success = result == OUTCOME_SUCCESS;
	/* a newer version's word counts as the worst that it may be */
	s->counted = result < 0 || outcome_is_counted(result);
	s->wanted = role != OUTCOME_SHADOW && (s->answered || s->counted);
	if (s->wanted && r->sparks)
		return spark_place(r->sparks, service, operation, &s->spark);
	s->wanted = s->wanted && timeline_wants(r, service, operation, &s->key);
	return 0;
}

static int timeline_read_series(struct timeline_reader *r, struct err *e)
{
	CLEANUP(db_stmt_freep) struct db_stmt *q = NULL;
	int code = db_prepare(r->db,
			      "SELECT id, service, operation, side, role, result, answered FROM series"
			      " ORDER BY service, operation",
			      &q, e);
	while (code == 0 && (code = db_step(q, e)) > 0)
		code = timeline_add_series(r, q, e);
	return code;
}

static const struct timeline_series *timeline_series_of(const struct timeline_reader *r, int64_t id)
{
	return id > 0 && (size_t)id < r->series_count && r->series[id].wanted ? &r->series[id] : NULL;
}

/* --- the points ----------------------------------------------------------------------------------------- */

static int64_t timeline_floor(int64_t value, int64_t width)
{
	int64_t rest = value % width;
	return value - (rest < 0 ? rest + width : rest);
}

/* The narrowest round width that does; where there are only sums of hours, of hours. */
static int64_t timeline_width(int64_t minutes, bool hours)
{
	static const int64_t widths[] = {1,   2,   5,	 10,   15,   30,    60,	   120,	  180,
					 360, 720, 1440, 2880, 7200, 10080, 20160, 43200, 129600};
	size_t i = hours ? 6 : 0, last = sizeof(widths) / sizeof(widths[0]) - 1;
	while (i < last && minutes / widths[i] > TIMELINE_POINTS_MAX - 3)
		i++;
	return widths[i];
}

static int timeline_first(struct timeline_reader *r, int64_t *ret_us, struct err *e)
{
	int64_t first;
	int code = db_query_int64(r->db, "SELECT coalesce(min(minute), -1) FROM rollups", &first, e);
	*ret_us = code == 0 && first > 0 ? first * MINUTE_US : 0;
	return code;
}

static int timeline_make_points(struct timeline_reader *r, struct err *e)
{
	struct timeline *t = r->t;
	int64_t since = r->o->since_us;
	int code = since ? 0 : timeline_first(r, &since, e);
	if (code < 0 || !since || since >= r->o->until_us)
		return code;
	int64_t minutes = (r->o->until_us - since) / MINUTE_US + 1;
	int64_t width = timeline_width(minutes, since / MINUTE_US < r->folded) * MINUTE_US;
	t->point_us = width;
	t->since_us = timeline_floor(since, width);
	t->until_us = r->o->until_us;
	for (int64_t at = t->since_us; at < t->until_us; at += width) {
		if (t->n == TIMELINE_POINTS_MAX) /* decades */
			return err_set(e, -E2BIG, "name a shorter span");
		t->points[t->n++] = (struct timeline_point){.time_us = at, .p95_us = {-1, -1}};
	}
	return 0;
}

static int timeline_count(struct timeline_reader *r, const struct timeline_series *s, int64_t time_us,
			  uint64_t n, struct histogram_sum **ret)
{
	struct timeline *t = r->t;
	*ret = NULL;
	if (time_us < t->since_us)
		return 0;
	size_t at = (size_t)((time_us - t->since_us) / t->point_us);
	if (at >= t->n)
		return 0;
	struct timeline_point *p = &t->points[at];
	double set = s->answered && s->key >= 0 ? r->o->set(r->o->arg, s->key, time_us) : -1;
	r->known[at] += set >= 0 ? (double)n : 0;
	r->expected[at] += set >= 0 ? (double)n * set : 0;
	p->executions[s->side] += s->answered ? n : 0;
	p->success[s->side] += s->success ? n : 0;
	p->counted[s->side] += s->counted ? n : 0;
	if (!s->counted)
		return 0;
	struct histogram_sum **h = &r->latencies[at][s->side];
	if (!*h && !(*h = calloc(1, sizeof(**h))))
		return -ENOMEM;
	*ret = *h;
	return 0;
}

static int timeline_add_rollup(void *arg, struct db_stmt *q, struct err *e)
{
	struct timeline_reader *r = arg;
	const struct timeline_series *s = timeline_series_of(r, db_column_int64(q, 1));
	struct histogram_sum *h;
	if (!s)
		return 0;
	if (timeline_count(r, s, db_column_int64(q, 0) * MINUTE_US, (uint64_t)db_column_int64(q, 2), &h) < 0)
		return err_set(e, -ENOMEM, "out of memory");
	if (h && histogram_sum_decode(h, db_column_blob(q, 3)) < 0)
		return err_set(e, -EUCLEAN, "%s: a damaged histogram in rollups", db_path(r->db));
	return 0;
}

/* Points of whole days are made of sums of days: their beginnings are the same. */
static int timeline_read_rollups(struct timeline_reader *r, struct err *e)
{
	bool days = r->t->point_us % (ROLLUP_DAY_MINUTES * MINUTE_US) == 0;
	return rollups_read(r->db, r->t->since_us / MINUTE_US, (r->t->until_us + MINUTE_US - 1) / MINUTE_US,
			    days, timeline_add_rollup, r, e);
}

static int timeline_add_row(struct timeline_reader *r, struct db_stmt *q, struct err *e)
{
	const struct timeline_series *s = timeline_series_of(r, db_column_int64(q, 0));
	struct histogram_sum *h;
	if (s && timeline_count(r, s, db_column_int64(q, 1), 1, &h) < 0)
		return err_set(e, -ENOMEM, "out of memory");
	if (s && h)
		histogram_sum_add(h, db_column_int64(q, 2));
	return 0;
}

/* Sums carry no organization. */
static int timeline_read_rows(struct timeline_reader *r, struct err *e)
{
	char organization[sizeof(((struct outcome *)NULL)->organization)];
	CLEANUP(db_stmt_freep) struct db_stmt *q = NULL;
	int code = db_prepare(
		r->db,
		"SELECT series, time_us, latency_us FROM outcomes WHERE organisation = ? AND time_us >= ?"
		" AND time_us < ? AND id >= (SELECT min(row) FROM row_marks WHERE minute >= ?)",
		&q, e);
	if (code < 0)
		return code;
	outcome_id(span_of(r->o->organization), organization, sizeof(organization));
	db_bind_text(q, 1, span_of(organization));
	db_bind_int64(q, 2, r->t->since_us);
	db_bind_int64(q, 3, r->t->until_us);
	db_bind_int64(q, 4, r->t->since_us / MINUTE_US);
	while ((code = db_step(q, e)) > 0 && (code = timeline_add_row(r, q, e)) == 0)
		;
	return code;
}

static void timeline_finish(struct timeline_reader *r)
{
	for (size_t i = 0; i < r->t->n; i++)
		r->t->points[i].set = r->known[i] > 0 ? r->expected[i] / r->known[i] : -1;
	for (size_t i = 0; i < r->t->n; i++)
		for (int side = 0; side < OUTCOME_SIDE_COUNT; side++)
			if (r->latencies[i][side])
				r->t->points[i].p95_us[side] =
					histogram_sum_quantile(r->latencies[i][side], 0.95);
}

int timeline_read(const struct timeline_options *o, struct timeline **ret, struct err *e)
{
	CLEANUP(freep) struct timeline_reader *r = calloc(1, sizeof(*r));
	CLEANUP(timeline_freep) struct timeline *t = calloc(1, sizeof(*t));
	if (!r || !t)
		return err_set(e, -ENOMEM, "out of memory");
	r->o = o;
	r->t = t;
	int code = timeline_open(r, o->path, e);
	if (code == 0)
		code = timeline_read_series(r, e);
	if (code == 0)
		code = timeline_make_points(r, e);
	if (code == 0 && t->n)
		code = o->organization ? timeline_read_rows(r, e) : timeline_read_rollups(r, e);
	if (code == 0) {
		timeline_finish(r);
		*ret = steal(t);
	}
	timeline_close(r);
	return code;
}

struct timeline *timeline_free(struct timeline *t)
{
	free(t);
	return NULL;
}

/* --- sparks --------------------------------------------------------------------------------------------- */

static int sparks_read_minutes(struct timeline_reader *r, int64_t until_us, struct err *e)
{
	CLEANUP(db_stmt_freep) struct db_stmt *q = NULL;
	int64_t end = (until_us + MINUTE_US - 1) / MINUTE_US, first = end - SPARK_MINUTES;
	int code = db_prepare(
		r->db, "SELECT minute, series, count FROM rollups WHERE minute >= ? AND minute < ?", &q, e);
	if (code < 0)
		return code;
	db_bind_int64(q, 1, first);
	db_bind_int64(q, 2, end);
	while ((code = db_step(q, e)) > 0) {
		const struct timeline_series *s = timeline_series_of(r, db_column_int64(q, 1));
		if (s && s->answered)
			r->sparks->all[s->spark].executions[db_column_int64(q, 0) - first][s->side] +=
				(uint32_t)db_column_int64(q, 2);
	}
	return code;
}

int sparks_read(const char *path, int64_t until_us, struct sparks **ret, struct err *e)
{
	CLEANUP(freep) struct timeline_reader *r = calloc(1, sizeof(*r));
	CLEANUP(sparks_freep) struct sparks *sparks = calloc(1, sizeof(*sparks));
	if (!r || !sparks)
		return err_set(e, -ENOMEM, "out of memory");
	r->sparks = sparks;
	int code = timeline_open(r, path, e);
	if (code == 0)
		code = timeline_read_series(r, e);
	if (code == -ENOMEM)
		err_set(e, code, "out of memory");
	if (code == 0)
		code = sparks_read_minutes(r, until_us, e);
	timeline_close(r);
	if (code == 0)
		*ret = steal(sparks);
	return code;
}

struct sparks *sparks_free(struct sparks *s)
{
	if (s)
		free(s->all);
	free(s);
	return NULL;
}

const struct spark *sparks_of(const struct sparks *s, const char *service, const char *operation)
{
	for (size_t i = 0; s && i < s->n; i++)
		if (strcmp(s->all[i].service, service) == 0 && strcmp(s->all[i].operation, operation) == 0)
			return &s->all[i];
	return NULL;
}
