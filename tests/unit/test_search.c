/* Asking for rows: what is found by chunks, filters and sums of hours is what reading every row finds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/crypto.h"
#include "base/db.h"
#include "base/text.h"
#include "outcomes/report.h"
#include "outcomes/search/error_pattern.h"
#include "outcomes/search/errors.h"
#include "outcomes/search/organizations.h"
#include "outcomes/search/requests.h"
#include "outcomes/search/row_filter.h"
#include "outcomes/search/row_index.h"
#include "support/outcome_place.h"

#define SECOND INT64_C(1000000)
#define BEGIN_US (INT64_C(1790000000) * SECOND + 123) /* within an hour, not at its begin */
#define COUNT 20000				      /* two chunks, and more */
#define STEP_US (6 * SECOND)			      /* 20,000 of them: over a day */
#define BATCH 2000
#define PAGE 999 /* attempts; each page looks for its place anew */

/* --- what is recorded ----------------------------------------------------------------------------------- */

static void fill(struct outcome *o, unsigned n)
{
	bool task = n % 3 == 0;
	*o = (struct outcome){.time_us = BEGIN_US + n * STEP_US - (n % 50 == 7 ? 1800 * SECOND : 0),
			      .latency_us = 1000 + n % 977,
			      .http_status = 200,
			      .answered = true,
			      .side = task ? OUTCOME_TASK : OUTCOME_LEGACY};
	strcpy(o->service, "prompt");
	snprintf(o->operation, sizeof(o->operation), "operation-%u", n % 4);
	snprintf(o->organization, sizeof(o->organization), "org-%u", n % 17);
	snprintf(o->user, sizeof(o->user), "user-%u", n % 1000);
	snprintf(o->request_id, sizeof(o->request_id), "request-%u", n);
	strcpy(o->backend, task ? "embedded" : "");
	if (n % 40 == 1) {
		o->result = OUTCOME_FAILURE;
		o->http_status = 502;
		snprintf(o->error, sizeof(o->error), "reset: connection %u of 10.0.0.1:%u", n, 1024 + n);
	} else if (n % 90 == 3) {
		o->result = OUTCOME_TIMEOUT;
		o->http_status = 504;
		strcpy(o->error, "Task still running");
	}
}

static void write_some(struct place *p, unsigned first, unsigned n, int64_t now_us)
{
	static struct outcome outcomes[BATCH];
	static struct series *series[BATCH];
	struct err e = {""};
	for (unsigned i = 0; i < n; i++) {
		fill(&outcomes[i], first + i);
		series[i] = series_of(p->series, &outcomes[i]);
		assert_non_null(series[i]);
	}
	const struct outcome_batch b = {
		.outcomes = outcomes, .series = series, .count = n, .user_key = SPAN_NONE, .now_us = now_us};
	assert_int_equal(outcome_store_write(p->store, &b, &e), 0);
}

static void write_all(struct place *p)
{
	for (unsigned first = 0; first < COUNT; first += BATCH)
		write_some(p, first, BATCH, BEGIN_US + (first + BATCH) * STEP_US);
}

/* As a program wrote them that knew of no chunks: to be taken up by reading. */
static const char not_indexed[] = "DELETE FROM row_chunks; DELETE FROM organization_hours; DELETE FROM "
				  "organization_days; DELETE FROM error_hours;"
				  "UPDATE organization_days_until SET hour = 0";

static void index_all(struct place *p, unsigned steps)
{
	const struct outcome_limits none = {.now_us = BEGIN_US + COUNT * STEP_US};
	struct err e = {""};
	int r = 1;
	for (unsigned i = 0; r == 1 && i < steps; i++)
		r = outcome_store_retain(p->store, &none, &e);
	assert_true(r >= 0);
}

static int64_t ask(struct place *p, const char *sql)
{
	int64_t n;
	struct err e = {""};
	if (db_query_int64(outcome_store_db(p->store), sql, &n, &e) < 0)
		fail_msg("%s: %s", sql, e.text);
	return n;
}

/* --- the same, by reading each -------------------------------------------------------------------------- */

static bool wanted_in(const struct outcome *o, const struct search_filter *f)
{
	return (!f->since_us || o->time_us >= f->since_us) && (!f->until_us || o->time_us < f->until_us) &&
	       (!f->operation || strcmp(o->operation, f->operation) == 0) &&
	       (f->side < 0 || f->side == o->side) && (f->result < 0 || f->result == o->result) &&
	       (!f->user || strcmp(o->user, f->user) == 0) &&
	       (!f->organization || strcmp(o->organization, f->organization) == 0) &&
	       (!f->status || f->status == o->http_status);
}

static uint64_t count_all(const struct search_filter *f, bool errors_only)
{
	uint64_t n = 0;
	for (unsigned i = 0; i < COUNT; i++) {
		struct outcome o;
		fill(&o, i);
		n += wanted_in(&o, f) && (!errors_only || o.error[0]);
	}
	return n;
}

static const struct search_filter filters[] = {
	{.side = -1, .role = -1, .result = -1},
	{.side = OUTCOME_TASK, .role = -1, .result = -1},
	{.side = -1, .role = -1, .result = OUTCOME_TIMEOUT},
	{.side = -1, .role = -1, .result = -1, .operation = "operation-2"},
	{.side = -1, .role = -1, .result = -1, .organization = "org-5"},
	{.side = -1, .role = -1, .result = -1, .user = "user-41"},
	{.side = -1, .role = -1, .result = -1, .status = 504},
	{.side = -1, .role = -1, .result = -1, .since_us = BEGIN_US + 3000 * STEP_US * 2},
	{.side = -1, .role = -1, .result = -1, .until_us = BEGIN_US + 9000 * STEP_US * 2},
	{.side = -1,
	 .role = -1,
	 .result = -1,
	 .since_us = BEGIN_US + 2000 * STEP_US * 2,
	 .until_us = BEGIN_US + 2100 * STEP_US * 2},
	{.side = -1,
	 .role = -1,
	 .result = OUTCOME_FAILURE,
	 .organization = "org-3",
	 .since_us = BEGIN_US + 1000 * STEP_US * 2,
	 .until_us = BEGIN_US + 12000 * STEP_US * 2},
	{.side = -1, .role = -1, .result = -1, .organization = "nobody"},
};
#define FILTERS (sizeof(filters) / sizeof(filters[0]))

static uint64_t page_through(struct place *p, const struct search_filter *f)
{
	uint64_t n = 0;
	int64_t before = 0, last = INT64_MAX; /* no row is on two pages */
	do {
		struct requests *r = NULL;
		struct err e = {""};
		assert_int_equal(requests_find(p->file, f, before, PAGE, &r, &e), 0);
		for (size_t i = 0; i < r->n; i++) {
			assert_true(r->all[i].row < last);
			assert_true(i == 0 || r->all[i].time_us <= r->all[i - 1].time_us);
		}
		assert_false(r->cut);
		n += r->n;
		before = r->next;
		last = before;
		requests_free(r);
	} while (before);
	return n;
}

static uint64_t organization_requests(struct place *p, const struct search_filter *f)
{
	struct organizations_options o = {.filter = *f};
	struct organization_list *r = NULL;
	struct err e = {""};
	uint64_t n = 0;
	assert_int_equal(organization_list_find(p->file, &o, &r, &e), 0);
	for (size_t i = 0; i < r->n; i++)
		n += r->all[i].requests;
	organization_list_free(r);
	return n;
}

static void check_all(struct place *p)
{
	for (size_t i = 0; i < FILTERS; i++) {
		struct errors *errors = NULL;
		struct err e = {""};
		const struct search_filter *f = &filters[i];
		assert_int_equal(page_through(p, f), count_all(f, false));
		assert_int_equal(errors_find(p->file, f, 0, &errors, &e), 0);
		assert_int_equal(errors->total, count_all(f, true));
		errors_free(errors);
		if (!f->user && !f->status)
			assert_int_equal(organization_requests(p, f), count_all(f, false));
	}
}

/* --- tests ---------------------------------------------------------------------------------------------- */

static void what_is_found_is_what_reading_every_row_finds(void **state)
{
	struct place *p = *state;
	struct err e = {""};
	write_all(p);
	assert_int_equal(ask(p, "SELECT count(*) FROM row_chunks"), COUNT / ROW_INDEX_RANGE); /* as written */
	assert_int_equal(db_exec(outcome_store_db(p->store), not_indexed, &e), 0);
	check_all(p); /* before anything is indexed, as after an upgrade */
	while (ask(p, "SELECT count(*) FROM row_chunks") < 1)
		index_all(p, 1);
	check_all(p); /* in the midst */
	index_all(p, 1000);
	assert_int_equal(ask(p, "SELECT count(*) FROM row_chunks"), COUNT / ROW_INDEX_RANGE);
	assert_true(ask(p, "SELECT count(DISTINCT day) FROM organization_days") > 1);
	check_all(p);
}

/* What the tables that are made of rows hold, as one text. */
static void index_text(struct place *p, char out[CRYPTO_SHA256_HEX], struct buf *b)
{
	static const char *const tables[] = {
		"SELECT group_concat(first || ' ' || last || ' ' || earliest_us || ' ' || latest_us || ' ' "
		"|| "
		"hex(filter), '/') FROM (SELECT * FROM row_chunks ORDER BY first)",
		"SELECT group_concat(hour || organization || ' ' || series || ' ' || count || ' ' || "
		"latency_us "
		"|| ' ' || first_us || ' ' || last_us || ' ' || hex(histogram), '/') FROM organization_hours",
		"SELECT group_concat(day || organization || ' ' || series || ' ' || count || ' ' || first_us "
		"|| "
		"' ' || last_us, '/') FROM organization_days",
		("SELECT group_concat(hour || ' ' || series || ' ' || http_status || error || count || ' ' "
		 "|| "
		 "first_us || ' ' || last_us || ' ' || sample, '/') FROM error_hours")};
	struct err e = {""};
	buf_clear(b);
	for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]); i++) {
		struct db_stmt *q = NULL;
		assert_int_equal(db_prepare(outcome_store_db(p->store), tables[i], &q, &e), 0);
		assert_int_equal(db_step(q, &e), 1);
		assert_true(db_column_text(q, 0).len > 100);
		buf_append_span(b, db_column_text(q, 0));
		db_stmt_free(q);
	}
	assert_int_equal(b->error, 0);
	crypto_sha256_hex(buf_span(b), out);
}

/* The tables are the same whether made as rows are written or of rows in the file; whether in one go, or with
 * a restart, another process, or a failed commit in the midst of a chunk. */
static void rows_are_indexed_alike_as_they_are_written_and_from_the_file(void **state)
{
	struct place *p = *state;
	struct err e = {""};
	char written[CRYPTO_SHA256_HEX], read[CRYPTO_SHA256_HEX];
	CLEANUP(buf_releasep) struct buf b = BUF_INIT(16 << 20);
	write_all(p);
	index_all(p, 1000);
	index_text(p, written, &b);
	assert_int_equal(db_exec(outcome_store_db(p->store), not_indexed, &e), 0);
	index_all(p, 1000);
	index_text(p, read, &b);
	assert_string_equal(read, written);
}

static void reopen(struct place *p)
{
	struct err e = {""};
	p->store = outcome_store_close(p->store);
	series_table_free(p->series);
	assert_int_equal(series_table_new(&p->series), 0);
	if (outcome_store_open(p->file, p->series, &p->store, &e) < 0)
		fail_msg("%s", e.text);
}

/* A batch of which all but the drops can be written: nothing is. */
static void fail_to_write(struct place *p, struct outcome_store *other, unsigned first)
{
	static struct outcome o[BATCH];
	static struct series *series[BATCH];
	struct err e = {""};
	for (unsigned i = 0; i < BATCH; i++) {
		fill(&o[i], first + i);
		series[i] = series_of(p->series, &o[i]);
	}
	static const struct outcome_drops unwritable = {.minute = 1, .count = 1};
	const struct outcome_batch b = {.outcomes = o,
					.series = series,
					.count = BATCH,
					.drops = &unwritable,
					.drop_count = 1,
					.now_us = 1};
	assert_int_equal(
		db_exec(outcome_store_db(other),
			"CREATE TRIGGER never BEFORE INSERT ON drops BEGIN SELECT RAISE(ABORT, 'no'); END",
			&e),
		0);
	assert_true(outcome_store_write(p->store, &b, &e) < 0);
	assert_int_equal(db_exec(outcome_store_db(other), "DROP TRIGGER never", &e), 0);
}

static void rows_of_restarts_failures_and_two_processes_are_indexed_once(void **state)
{
	struct place *p = *state;
	struct err e = {""};
	char pieces[CRYPTO_SHA256_HEX], read[CRYPTO_SHA256_HEX];
	CLEANUP(buf_releasep) struct buf b = BUF_INIT(16 << 20);
	struct place q = *p;
	assert_int_equal(series_table_new(&q.series), 0);
	assert_int_equal(outcome_store_open(p->file, q.series, &q.store, &e), 0);
	for (unsigned first = 0; first < COUNT; first += BATCH) {
		if (first == 3 * BATCH)
			reopen(p);
		if (first == 6 * BATCH || first == 8 * BATCH)
			fail_to_write(p, q.store, first - BATCH);
		/* two batches by the other process, in the second chunk */
		write_some(first == 5 * BATCH || first == 6 * BATCH ? &q : p, first, BATCH,
			   BEGIN_US + (first + BATCH) * STEP_US);
		if (first == 7 * BATCH)
			index_all(p, 1);
	}
	index_all(p, 1000);
	q.store = outcome_store_close(q.store);
	series_table_free(q.series);
	index_text(p, pieces, &b);
	assert_int_equal(db_exec(outcome_store_db(p->store), not_indexed, &e), 0);
	index_all(p, 1000);
	index_text(p, read, &b);
	assert_string_equal(pieces, read);
}

/* A table that cannot be written costs nobody his outcomes: they stay, and are indexed once it can. */
static void an_index_that_fails_costs_no_outcome(void **state)
{
	struct place *p = *state;
	struct err e = {""};
	static const char break_it[] =
		"CREATE TRIGGER never BEFORE INSERT ON row_chunks BEGIN SELECT RAISE(ABORT, 'no chunk'); END";
	const struct outcome_limits none = {.now_us = BEGIN_US + COUNT * STEP_US};
	assert_int_equal(db_exec(outcome_store_db(p->store), break_it, &e), 0);
	write_all(p);
	assert_int_equal(ask(p, "SELECT count(*) FROM outcomes"), COUNT);
	int r;
	while ((r = outcome_store_retain(p->store, &none, &e)) > 0)
		;
	assert_true(r < 0);
	assert_non_null(strstr(e.text, "no chunk"));
	assert_int_equal(db_exec(outcome_store_db(p->store), "DROP TRIGGER never", &e), 0);
	index_all(p, 1000);
	assert_int_equal(ask(p, "SELECT count(*) FROM row_chunks"), COUNT / ROW_INDEX_RANGE);
	assert_int_equal(ask(p, "SELECT sum(count) FROM organization_hours"),
			 COUNT / ROW_INDEX_RANGE * ROW_INDEX_RANGE);
}

static void a_report_of_an_organization_is_exact_from_hours(void **state)
{
	struct place *p = *state;
	write_all(p);
	index_all(p, 1000);
	for (size_t i = 0; i < FILTERS; i++) {
		const struct search_filter *f = &filters[i];
		const struct report_options o = {.path = p->file,
						 .organization = "org-5",
						 .since_us = f->since_us,
						 .until_us = f->until_us};
		struct search_filter of = SEARCH_FILTER_ALL;
		struct report *r = NULL;
		struct err e = {""};
		of.organization = "org-5";
		of.since_us = f->since_us;
		of.until_us = f->until_us;
		assert_int_equal(report_make(&o, &r, &e), 0);
		assert_int_equal(r->total.executions, count_all(&of, false));
		uint64_t on_points = 0;
		for (size_t at = 0; at < r->point_count; at++)
			on_points += r->points[at].executions[0] + r->points[at].executions[1];
		assert_int_equal(on_points, r->total.executions);
		report_free(r);
	}
}

static void a_request_is_found_with_all_its_attempts(void **state)
{
	struct place *p = *state;
	write_all(p);
	index_all(p, 1000);
	struct requests *r = NULL;
	struct err e = {""};
	assert_int_equal(requests_of(p->file, "request-4711", &r, &e), 0);
	assert_int_equal(r->n, 1);
	assert_string_equal(r->all[0].user, "user-711");
	requests_free(r);
	assert_int_equal(requests_of(p->file, "request-none", &r, &e), 0);
	assert_int_equal(r->n, 0);
	requests_free(r);
}

static void errors_that_differ_in_ids_are_one_group(void **state)
{
	struct place *p = *state;
	write_all(p);
	index_all(p, 1000);
	struct search_filter f = SEARCH_FILTER_ALL;
	struct errors *errors = NULL;
	struct requests *r = NULL;
	struct err e = {""};
	assert_int_equal(errors_find(p->file, &f, 0, &errors, &e), 0);
	f.operation = errors->all[0].operation;
	f.error = errors->all[0].error;
	f.side = errors->all[0].side;
	f.result = errors->all[0].result;
	assert_string_equal(errors->all[0].error, "reset: connection # of #.#.#.#:#");
	assert_true(errors->all[0].first_us < errors->all[0].last_us);
	assert_int_equal(requests_of(p->file, errors->all[0].request_id, &r, &e), 0);
	assert_string_equal(r->all[0].error, errors->all[0].text);
	requests_free(r);
	assert_int_equal(page_through(p, &f), errors->all[0].count); /* a group leads to its requests */
	errors_free(errors);
}

static void too_many_texts_of_an_hour_are_counted_together(void **state)
{
	struct place *p = *state;
	static struct outcome outcomes[ROW_INDEX_RANGE];
	static struct series *series[ROW_INDEX_RANGE];
	struct err e = {""};
	for (unsigned i = 0; i < ROW_INDEX_RANGE; i++) {
		fill(&outcomes[i], 1);
		outcomes[i].error[0] = '\0';
		for (unsigned n = i + 26; n; n /= 26)
			strncat(outcomes[i].error, (char[]){(char)('a' + n % 26), '\0'}, 2);
		series[i] = series_of(p->series, &outcomes[i]);
	}
	const struct outcome_batch b = {.outcomes = outcomes,
					.series = series,
					.count = ROW_INDEX_RANGE,
					.user_key = SPAN_NONE,
					.now_us = BEGIN_US};
	assert_int_equal(outcome_store_write(p->store, &b, &e), 0);
	index_all(p, 10);
	assert_int_equal(ask(p, "SELECT count(*) FROM error_hours"), ROW_INDEX_ERRORS_MAX + 1);
	assert_int_equal(ask(p, "SELECT sum(count) FROM error_hours"), ROW_INDEX_RANGE);
	assert_int_equal(ask(p, "SELECT count FROM error_hours WHERE error = '(other)'"),
			 ROW_INDEX_RANGE - ROW_INDEX_ERRORS_MAX);
}

static void what_is_deleted_is_forgotten(void **state)
{
	struct place *p = *state;
	struct err e = {""};
	write_all(p);
	index_all(p, 1000);
	const struct outcome_limits all = {.rows_before_us = BEGIN_US + 1000000 * SECOND,
					   .now_us = BEGIN_US + 1000000 * SECOND};
	int r;
	while ((r = outcome_store_retain(p->store, &all, &e)) == 1)
		;
	assert_int_equal(r, 0);
	assert_int_equal(ask(p, "SELECT count(*) FROM outcomes"), 0);
	assert_int_equal(ask(p, "SELECT count(*) FROM row_chunks"), 0);
	write_some(p, 0, BATCH, BEGIN_US + 2000000 * SECOND);
	struct search_filter f = SEARCH_FILTER_ALL;
	assert_int_equal(page_through(p, &f), BATCH);
}

static void an_organization_is_on_a_side_since_it_moved(void **state)
{
	struct place *p = *state;
	struct outcome outcomes[6];
	struct series *series[6];
	struct err e = {""};
	for (unsigned i = 0; i < 6; i++) {
		fill(&outcomes[i], 0);
		outcomes[i].time_us = BEGIN_US + i * SECOND;
		outcomes[i].side = i < 3 ? OUTCOME_LEGACY : OUTCOME_TASK;
		series[i] = series_of(p->series, &outcomes[i]);
	}
	strcpy(outcomes[5].organization, "always");
	const struct outcome_batch b = {.outcomes = outcomes,
					.series = series,
					.count = 6,
					.user_key = SPAN_NONE,
					.now_us = BEGIN_US};
	assert_int_equal(outcome_store_write(p->store, &b, &e), 0);
	struct organizations_options o = {.filter = SEARCH_FILTER_ALL, .order = ORGANIZATIONS_BY_NAME};
	struct organization_list *r = NULL;
	assert_int_equal(organization_list_find(p->file, &o, &r, &e), 0);
	assert_int_equal(r->n, 2);
	assert_string_equal(r->all[0].name, "always");
	assert_int_equal(r->all[0].on, ON_TASK);
	assert_true(r->all[0].before_span);
	assert_int_equal(r->all[1].on, ON_TASK);
	assert_false(r->all[1].before_span);
	assert_int_equal(r->all[1].since_us, BEGIN_US + 3 * SECOND);
	assert_int_equal(r->all[1].requests, 5);
	organization_list_free(r);
}

/* The file as the version before made it, to which it has written, and writes once more after. */
static void a_file_of_the_version_before_is_taken_up_and_stays_usable_for_it(void **state)
{
	static const char before[] = "DROP VIEW attempts; DROP TABLE row_chunks; DROP TABLE "
				     "organization_hours; DROP TABLE error_hours;"
				     "DROP TABLE organization_days; DROP TABLE organization_days_until;"
				     "ALTER TABLE outcomes DROP COLUMN error";
	static const char of_old[] = "INSERT INTO outcomes (id, time_us, series, latency_us, http_status, "
				     "organisation, user, variant,"
				     " task_id, request_id) SELECT max(id) + 1, max(time_us), series, 1, "
				     "200, 'org-5', 'user-41', NULL, NULL,"
				     " 'of-the-old-one' FROM outcomes";
	struct place *p = *state;
	struct err e = {""};
	write_all(p);
	assert_int_equal(db_exec(outcome_store_db(p->store), before, &e), 0);
	struct search_filter f = SEARCH_FILTER_ALL;
	struct errors *errors = NULL;
	assert_int_equal(page_through(p, &f), COUNT); /* as a program of today reads it */
	assert_int_equal(errors_find(p->file, &f, 0, &errors, &e), 0);
	assert_false(errors->recorded);
	assert_int_equal(errors->total, count_all(&f, true));
	errors_free(errors);

	reopen(p);
	assert_int_equal(ask(p, "PRAGMA user_version"), OUTCOME_STORE_VERSION);
	assert_int_equal(db_exec(outcome_store_db(p->store), of_old, &e), 0);
	index_all(p, 1000);
	struct requests *r = NULL;
	assert_int_equal(requests_of(p->file, "of-the-old-one", &r, &e), 0);
	assert_int_equal(r->n, 1);
	requests_free(r);
	assert_int_equal(ask(p, "SELECT count(error) FROM attempts"), 0);
	assert_int_equal(page_through(p, &f), COUNT + 1);
	assert_int_equal(errors_find(p->file, &f, 0, &errors, &e), 0);
	assert_int_equal(errors->total, count_all(&f, true)); /* without texts, but all of them */
	errors_free(errors);
}

static void a_filter_says_no_only_when_it_does_not_occur(void **state)
{
	(void)state;
	enum { KEYS = 5000 };
	size_t size = row_filter_size(KEYS), wrong = 0;
	unsigned char *bits = calloc(1, size);
	char text[32];
	for (unsigned i = 0; i < KEYS; i++) {
		snprintf(text, sizeof(text), "id-%u", i);
		row_filter_add(bits, size, row_filter_key(ROW_REQUEST, span_of(text)));
	}
	struct span filter = {(char *)bits, size};
	for (unsigned i = 0; i < 20 * KEYS; i++) {
		snprintf(text, sizeof(text), "id-%u", i);
		bool has = row_filter_has(filter, row_filter_key(ROW_REQUEST, span_of(text)));
		assert_true(has || i >= KEYS);
		wrong += i >= KEYS && has;
	}
	assert_true(wrong < 19 * KEYS / 50);
	free(bits);
}

static void a_recorded_error_is_plain_masked_and_bounded(void **state)
{
	(void)state;
	char out[OUTCOME_ERROR_MAX], long_one[600];
	outcome_error(SPAN_LIT("redis://bob:hunter2@cache:6379 said\x1b[31m no\npassword=hunter3"), out);
	assert_null(strstr(out, "hunter"));
	assert_null(strchr(out, '\x1b'));
	assert_true(text_is_plain(span_of(out)));
	memset(long_one, '=', sizeof(long_one) - 1);
	memcpy(long_one + 150, " amqp://u:secretsecretsecretsecretsecretsecretsecret@x ", 55);
	long_one[sizeof(long_one) - 1] = '\0';
	outcome_error(span_of(long_one), out); /* masked before it is cut */
	assert_null(strstr(out, "secret"));
	assert_true(strlen(out) < OUTCOME_ERROR_MAX);
	outcome_error(SPAN_NONE, out);
	assert_string_equal(out, "");
}

static void a_pattern_keeps_words_and_statuses(void **state)
{
	(void)state;
	static const struct {
		const char *text, *pattern;
	} rows[] = {{"the legacy service answered 503 Service Unavailable",
		     "the legacy service answered 503 Service Unavailable"},
		    {"KeyError: 'doc-83721'", "KeyError: '#'"},
		    {"no task 0123456789abcdef on v1", "no task # on v1"},
		    {"3f0c2b8e-6a54-4a1e-9f70-7d1f6f0b2a11", "#"},
		    {"refused: 127.0.0.1:8443", "refused: #.#.#.#:#"},
		    {"", ""}};
	char out[OUTCOME_ERROR_MAX];
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		error_pattern(span_of(rows[i].text), out);
		assert_string_equal(out, rows[i].pattern);
	}
}

#define PLACE(test) cmocka_unit_test_setup_teardown(test, open_place, close_place)

int main(void)
{
	crypto_setup();
	const struct CMUnitTest tests[] = {
		PLACE(what_is_found_is_what_reading_every_row_finds),
		PLACE(rows_are_indexed_alike_as_they_are_written_and_from_the_file),
		PLACE(rows_of_restarts_failures_and_two_processes_are_indexed_once),
		PLACE(an_index_that_fails_costs_no_outcome),
		PLACE(a_report_of_an_organization_is_exact_from_hours),
		PLACE(a_request_is_found_with_all_its_attempts),
		PLACE(errors_that_differ_in_ids_are_one_group),
		PLACE(too_many_texts_of_an_hour_are_counted_together),
		PLACE(what_is_deleted_is_forgotten),
		PLACE(an_organization_is_on_a_side_since_it_moved),
		PLACE(a_file_of_the_version_before_is_taken_up_and_stays_usable_for_it),
		cmocka_unit_test(a_filter_says_no_only_when_it_does_not_occur),
		cmocka_unit_test(a_recorded_error_is_plain_masked_and_bounded),
		cmocka_unit_test(a_pattern_keeps_words_and_statuses),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
