#include "pairs/differences.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/db.h"
#include "base/json.h"
#include "compare/compare_noise.h"
#include "outcomes/outcome_store.h"
#include "pairs/pairs_internal.h"

#define DIFFERENCES_BUSY_MS 5000

struct differences_reader {
	const struct differences_options *options;
	struct db *db;
	struct differences *d;
	struct err *e;
};

/* --- opening -------------------------------------------------------------------------------------------- */

static int differences_open(const char *path, struct db **ret, struct err *e)
{
	struct db_options o = {.path = path,
			       .read_only = true,
			       .busy_timeout_ms = DIFFERENCES_BUSY_MS,
			       .application_id = OUTCOME_STORE_APPLICATION};
	return db_open(&o, ret, e);
}

/* Older routers made none of the tables. */
static int differences_has_tables(struct db *db, bool *ret, struct err *e)
{
	int64_t n;
	int r = db_query_int64(
		db, "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name LIKE 'compare_%'", &n,
		e);
	*ret = r == 0 && n >= 4;
	return r;
}

/* service, operation (NULL: all), first and last hour */
#define DIFFERENCES_WHERE \
	" WHERE (?1 IS NULL OR service = ?1) AND (?2 IS NULL OR operation = ?2) AND hour >= ?3 AND hour <= " \
	"?4 "

static void differences_bind(const struct differences_reader *r, struct db_stmt *q)
{
	const struct differences_options *o = r->options;
	db_bind_text(q, 1, span_of(o->service));
	db_bind_text(q, 2, span_of(o->operation));
	db_bind_int64(q, 3, o->since_us / PAIRS_HOUR_US);
	db_bind_int64(q, 4, o->until_us ? (o->until_us - 1) / PAIRS_HOUR_US : INT64_MAX);
}

static struct differences_operation *differences_operation_of(struct differences *d, struct span service,
							      struct span operation)
{
	for (size_t i = 0; i < d->n_operations; i++)
		if (span_is(service, d->operations[i].service) &&
		    span_is(operation, d->operations[i].operation))
			return &d->operations[i];
	struct differences_operation *all =
		realloc(d->operations, (d->n_operations + 1) * sizeof(*d->operations));
	if (!all)
		return NULL;
	d->operations = all;
	struct differences_operation *op = &all[d->n_operations++];
	*op = (struct differences_operation){0};
	span_copy(service, op->service, sizeof(op->service));
	span_copy(operation, op->operation, sizeof(op->operation));
	return op;
}

/* Calls `row` for each row of a query that begins with service and operation. */
static int differences_each(struct differences_reader *r, const char *sql,
			    int (*row)(struct differences_reader *r, struct differences_operation *op,
				       struct db_stmt *q))
{
	CLEANUP(db_stmt_freep) struct db_stmt *q = NULL;
	int code = db_prepare(r->db, sql, &q, r->e);
	if (code < 0)
		return code;
	differences_bind(r, q);
	while ((code = db_step(q, r->e)) == 1) {
		struct differences_operation *op =
			differences_operation_of(r->d, db_column_text(q, 0), db_column_text(q, 1));
		code = op ? row(r, op, q) : -ENOMEM;
		if (code < 0)
			return code == -ENOMEM ? err_set(r->e, code, "out of memory") : code;
	}
	return code;
}

/* --- counts --------------------------------------------------------------------------------------------- */

static int differences_kind(struct span text)
{
	return span_is(text, pairs_kind_text(PAIRS_NOISE)) ? PAIRS_NOISE : PAIRS_SIDES;
}

static int differences_on_counts(struct differences_reader *r, struct differences_operation *op,
				 struct db_stmt *q)
{
	int kind = differences_kind(db_column_text(q, 2));
	(void)r;
	op->counts.compared[kind] += (uint64_t)db_column_int64(q, 3);
	op->counts.differing[kind] += (uint64_t)db_column_int64(q, 4);
	return 0;
}

static int differences_on_missed(struct differences_reader *r, struct differences_operation *op,
				 struct db_stmt *q)
{
	int kind = differences_kind(db_column_text(q, 2)), why = PAIRS_NO_ANSWER;
	(void)r;
	for (int w = 0; w < PAIRS_WHY_COUNT; w++)
		if (span_is(db_column_text(q, 3), pairs_why_text(w)))
			why = w;
	op->counts.not_compared[kind][why] += (uint64_t)db_column_int64(q, 4);
	return 0;
}

static int differences_on_path(struct differences_reader *r, struct differences_operation *op,
			       struct db_stmt *q)
{
	struct differences_path p = {.differing = (uint64_t)db_column_int64(q, 4),
				     .noisy = (uint64_t)db_column_int64(q, 5)};
	span_copy(db_column_text(q, 2), p.path, sizeof(p.path));
	span_copy(db_column_text(q, 3), p.kind, sizeof(p.kind));
	for (size_t i = 0; i < op->n_paths; i++)
		if (strcmp(op->paths[i].path, p.path) == 0) { /* of another file */
			op->paths[i].differing += p.differing;
			op->paths[i].noisy += p.noisy;
			return 0;
		}
	op->all_paths++;
	if (r->options->only && !compare_pattern_covers(r->options->only, p.path))
		return 0;
	struct differences_path *all = realloc(op->paths, (op->n_paths + 1) * sizeof(*all));
	if (!all)
		return -ENOMEM;
	op->paths = all;
	op->paths[op->n_paths++] = p;
	return 0;
}

/* --- samples -------------------------------------------------------------------------------------------- */

/* Whether one of its places is wanted; the text is JSON that this program has written. */
static bool differences_wants(const struct differences_reader *r, struct span differences)
{
	struct json_iter it;
	struct span key, item, path;
	if (!r->options->only)
		return true;
	json_iter_init(&it, differences);
	while (json_iter_next(&it, &key, &item)) {
		CLEANUP(buf_releasep) struct buf text = BUF_INIT(COMPARE_PATH_SIZE);
		if (json_pointer(item, SPAN_LIT("/path"), &path) && json_unescape(path, &text) == 0 &&
		    compare_pattern_covers(r->options->only, text.ptr))
			return true;
	}
	return false;
}

static int differences_on_sample(struct differences_reader *r, struct differences_operation *op,
				 struct db_stmt *q)
{
	struct span differences = db_column_text(q, 8);
	if (op->n_samples == DIFFERENCES_SAMPLES_MAX || json_validate(differences, NULL) != 0 ||
	    !differences_wants(r, differences))
		return 0;
	struct differences_sample *all = realloc(op->samples, (op->n_samples + 1) * sizeof(*all));
	if (!all)
		return -ENOMEM;
	op->samples = all;
	struct differences_sample *s = &all[op->n_samples++];
	*s = (struct differences_sample){
		.time_us = db_column_int64(q, 2),
		.request_id = span_dup(db_column_text(q, 3)),
		.status = {(int)db_column_int64(q, 4), (int)db_column_int64(q, 5)},
		.body = {span_dup(db_column_text(q, 6)), span_dup(db_column_text(q, 7))},
		.differences = span_dup(differences)};
	return s->request_id && s->body[0] && s->body[1] && s->differences ? 0 : -ENOMEM;
}

/* --- all ------------------------------------------------------------------------------------------------ */

static int differences_by_count(const void *a, const void *b)
{
	const struct differences_path *x = a, *y = b;
	if (x->differing != y->differing)
		return x->differing < y->differing ? 1 : -1;
	return strcmp(x->path, y->path);
}

static int differences_by_name(const void *a, const void *b)
{
	const struct differences_operation *x = a, *y = b;
	int order = strcmp(x->service, y->service);
	return order != 0 ? order : strcmp(x->operation, y->operation);
}

static void differences_judge(struct differences_operation *op)
{
	struct compare_counts c = {.compared = op->counts.compared[PAIRS_SIDES],
				   .noise_samples = op->counts.compared[PAIRS_NOISE]};
	op->noise_known = c.noise_samples > 0;
	for (size_t i = 0; i < op->n_paths; i++) {
		c.differing = op->paths[i].differing;
		c.noisy = op->paths[i].noisy;
		op->paths[i].beyond = compare_beyond_noise(&c, op->all_paths);
		op->beyond |= op->paths[i].beyond;
	}
	if (op->n_paths)
		qsort(op->paths, op->n_paths, sizeof(*op->paths), differences_by_count);
}

static int differences_read(struct differences_reader *r)
{
	int code = differences_each(r,
				    "SELECT service, operation, pair, sum(compared), sum(differing) FROM "
				    "compare_counts" DIFFERENCES_WHERE "GROUP BY 1, 2, 3",
				    differences_on_counts);
	if (code == 0)
		code = differences_each(r,
					"SELECT service, operation, pair, why, sum(count) FROM "
					"compare_missed" DIFFERENCES_WHERE "GROUP BY 1, 2, 3, 4",
					differences_on_missed);
	if (code == 0)
		code = differences_each(r,
					"SELECT service, operation, path, min(kind), sum(differing), "
					"sum(noisy) FROM compare_paths" DIFFERENCES_WHERE "GROUP BY 1, 2, 3",
					differences_on_path);
	if (code == 0 && r->options->samples)
		code = differences_each(
			r,
			"SELECT service, operation, time_us, request_id, legacy_status, task_status, "
			"legacy_body, task_body, differences FROM compare_samples WHERE (?1 IS NULL OR "
			"service = ?1) AND (?2 IS NULL OR operation = ?2) AND time_us / 3600000000 >= ?3 "
			"AND time_us / 3600000000 <= ?4 ORDER BY id DESC",
			differences_on_sample);
	return code;
}

static int differences_read_file(struct differences_reader *r, const char *path)
{
	CLEANUP(db_closep) struct db *db = NULL;
	bool tables;
	int code = differences_open(path, &db, r->e);
	if (code == 0)
		code = differences_has_tables(db, &tables, r->e);
	r->db = db;
	return code == 0 && tables ? differences_read(r) : code;
}

int differences_make(const struct differences_options *o, struct differences **ret, struct err *e)
{
	CLEANUP(differences_freep) struct differences *d = calloc(1, sizeof(*d));
	struct differences_reader r = {.options = o, .d = d, .e = e};
	if (!d)
		return err_set(e, -ENOMEM, "out of memory");
	for (size_t i = 0; i < o->n_paths; i++) {
		int code = differences_read_file(&r, o->paths[i]);
		if (code < 0)
			return code;
	}
	for (size_t i = 0; i < d->n_operations; i++)
		differences_judge(&d->operations[i]);
	if (d->n_operations)
		qsort(d->operations, d->n_operations, sizeof(*d->operations), differences_by_name);
	*ret = steal(d);
	return 0;
}

struct differences *differences_free(struct differences *d)
{
	if (!d)
		return NULL;
	for (size_t i = 0; i < d->n_operations; i++) {
		struct differences_operation *op = &d->operations[i];
		for (size_t j = 0; j < op->n_samples; j++) {
			free(op->samples[j].request_id);
			free(op->samples[j].body[0]);
			free(op->samples[j].body[1]);
			free(op->samples[j].differences);
		}
		free(op->samples);
		free(op->paths);
	}
	free(d->operations);
	free(d);
	return NULL;
}
