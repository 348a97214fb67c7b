/* outcomes/report and guard/gate: figures by the design's definitions, the lines that scripts
 * parse, refusals. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/db.h"
#include "base/file.h"
#include "base/json.h"
#include "outcomes/report_sums.h"
#include "outcomes/when.h"
#include "guard/gate.h"
#include "support/outcome_place.h"

#define MINUTE_US 60000000LL
#define T0 (29000000 * MINUTE_US)

static const struct outcome legacy_ok = {.time_us = T0,
					 .latency_us = 2000,
					 .service = "prompt",
					 .operation = "prompt.answer",
					 .organization = "acme",
					 .answered = true};
static const struct outcome task_ok = {.time_us = T0,
				       .latency_us = 1000,
				       .service = "prompt",
				       .operation = "prompt.answer",
				       .organization = "globex",
				       .backend = "embedded",
				       .side = OUTCOME_TASK,
				       .answered = true};

static void record(struct place *p, struct outcome o, size_t n)
{
	struct series *series = series_of(p->series, &o);
	struct err e = {""};
	for (size_t i = 0; i < n; i++) {
		struct outcome_batch b = {.outcomes = &o, .series = &series, .count = 1, .now_us = o.time_us};
		if (outcome_store_write(p->store, &b, &e) < 0)
			fail_msg("%s", e.text);
	}
}

static struct outcome with(struct outcome o, enum outcome_role role, enum outcome_result result,
			   bool answered)
{
	o.role = role;
	o.result = result;
	o.answered = answered;
	return o;
}

static struct report *make(struct place *p, struct report_options o)
{
	struct report *r = NULL;
	struct err e = {""};
	o.path = p->file;
	if (report_make(&o, &r, &e) < 0)
		fail_msg("%s", e.text);
	return r;
}

/* 60 legacy answers and 20 task answers; of the tasks two failed and were answered by legacy. */
static void record_a_story(struct place *p)
{
	record(p, legacy_ok, 56);
	record(p, with(legacy_ok, OUTCOME_PRIMARY, OUTCOME_REJECTED, true), 1);
	record(p, with(legacy_ok, OUTCOME_PRIMARY, OUTCOME_FAILURE, true), 1);
	record(p, with(legacy_ok, OUTCOME_FALLBACK, OUTCOME_SUCCESS, true), 2);
	record(p, task_ok, 19);
	record(p, with(task_ok, OUTCOME_PRIMARY, OUTCOME_FAILURE, false), 2);
	record(p, with(task_ok, OUTCOME_PRIMARY, OUTCOME_UNKNOWN, true), 1);
	record(p, with(task_ok, OUTCOME_PRIMARY, OUTCOME_CANCELLED, false), 5);
	record(p, with(task_ok, OUTCOME_SHADOW, OUTCOME_FAILURE, false), 9);
}

static void figures_follow_the_definitions(void **state)
{
	struct place *p = *state;
	record_a_story(p);
	CLEANUP(report_freep) struct report *r = make(p, (struct report_options){0});
	const struct report_side *legacy = &r->total.sides[OUTCOME_LEGACY],
				 *task = &r->total.sides[OUTCOME_TASK];
	assert_int_equal(r->total.executions, 80);
	assert_int_equal(legacy->executions, 60);
	assert_int_equal(task->executions, 20);
	assert_true(fabs(legacy->share - 0.75) < 1e-12);
	assert_int_equal(legacy->attempts.counted, 59); /* without the rejected one */
	assert_true(fabs(legacy->attempts.rate - 58.0 / 59) < 1e-12);
	assert_int_equal(legacy->fallbacks, 2);
	assert_int_equal(task->attempts.counted, 22); /* without cancelled and shadows */
	assert_true(fabs(task->attempts.rate - 19.0 / 22) < 1e-12);
	assert_int_equal(task->attempts.results[OUTCOME_UNKNOWN], 1);
	assert_int_equal(task->shadows.counted, 9);
	assert_true(task->shadows.rate == 0);
	assert_int_equal(r->total.reasons[REASON_FLAG], 58 + 27); /* primaries only: one decision each */
	assert_true(labs((long)legacy->attempts.p50_us - 2000) <= 32);
	assert_true(labs((long)task->attempts.p99_us - 1000) <= 16);
	/* Wilson's interval for 19 of 22, by the textbook's formula, worked out apart. */
	assert_true(fabs(task->attempts.low - 0.6666) < 1e-3 && fabs(task->attempts.high - 0.9525) < 1e-3);
	assert_int_equal(r->operation_count, 1);
	assert_string_equal(r->operations[0].operation, "prompt.answer");
}

static struct outcome on(struct outcome o, const char *backend)
{
	snprintf(o.backend, sizeof(o.backend), "%s", backend);
	return o;
}

/* Each backend has its part of the task side, with a rate of its own. */
static void backends_are_told_apart(void **state)
{
	struct place *p = *state;
	struct outcome other = on(task_ok, "hatchet");
	snprintf(other.operation, sizeof(other.operation), "prompt.index");
	record(p, legacy_ok, 50);
	record(p, on(task_ok, "hatchet"), 29);
	record(p, with(on(task_ok, "hatchet"), OUTCOME_PRIMARY, OUTCOME_FAILURE, true), 1);
	record(p, on(task_ok, "celery"), 20);
	record(p, with(on(task_ok, "celery"), OUTCOME_SHADOW, OUTCOME_SUCCESS, false), 3);
	record(p, other, 7);
	CLEANUP(report_freep) struct report *r = make(p, (struct report_options){0});
	const struct report_operation *answer = &r->operations[0];
	assert_int_equal(answer->n_backends, 2);
	assert_string_equal(answer->backends[0].name, "celery");
	assert_int_equal(answer->backends[0].side.executions, 20);
	assert_int_equal(answer->backends[0].side.shadows.counted, 3);
	assert_true(fabs(answer->backends[0].side.share - 0.2) < 1e-12);
	assert_int_equal(answer->backends[1].side.executions, 30);
	assert_true(fabs(answer->backends[1].side.attempts.rate - 29.0 / 30) < 1e-12);
	assert_true(labs((long)answer->backends[1].side.attempts.p50_us - 1000) <= 16);
	assert_int_equal(r->total.backends[1].side.executions, 37);
	CLEANUP(buf_releasep) struct buf b = BUF_INIT(1 << 20);
	assert_int_equal(report_to_text(r, 0, &b), 0);
	assert_non_null(strstr(b.ptr, "\n  celery         20  20.0%    100.0%        20       0"));
	assert_non_null(strstr(b.ptr, "\n  hatchet        30  30.0%     96.7%        30       0"));
	assert_null(strstr(strstr(b.ptr, "prompt.index"), "\n  hatchet")); /* alone: its side's figures */
	buf_clear(&b);
	assert_int_equal(report_to_json(r, &b), 0);
	struct span v;
	assert_true(json_pointer(buf_span(&b), SPAN_LIT("/operations/0/backends/celery/executions"), &v) &&
		    span_is(v, "20"));
	assert_true(json_pointer(buf_span(&b), SPAN_LIT("/backends/hatchet/executions"), &v) &&
		    span_is(v, "37"));
}

static void backends_beyond_the_limit_are_in_their_side(void **state)
{
	struct place *p = *state;
	char name[16];
	for (int i = 0; i <= REPORT_BACKENDS_MAX; i++) {
		snprintf(name, sizeof(name), "b%d", i);
		record(p, on(task_ok, name), 2);
	}
	CLEANUP(report_freep) struct report *r = make(p, (struct report_options){0});
	assert_int_equal(r->total.n_backends, REPORT_BACKENDS_MAX);
	assert_int_equal(r->total.sides[OUTCOME_TASK].executions, 2 * (REPORT_BACKENDS_MAX + 1));
}

static void text_begins_with_the_lines_that_scripts_parse(void **state)
{
	struct place *p = *state;
	record(p, legacy_ok, 893);
	record(p, with(legacy_ok, OUTCOME_PRIMARY, OUTCOME_FAILURE, true), 7);
	record(p, task_ok, 299);
	record(p, with(task_ok, OUTCOME_PRIMARY, OUTCOME_TIMEOUT, true), 1);
	CLEANUP(report_freep) struct report *r = make(p, (struct report_options){0});
	CLEANUP(buf_releasep) struct buf b = BUF_INIT(1 << 20);
	assert_int_equal(report_to_text(r, 0, &b), 0);
	static const char head[] =
		"=== Migration Dashboard ===\nTotal Executions: 1200\nlegacy_services: 75.0%\n"
		"task_abstraction: 25.0%\n\nSuccess Rates:\nlegacy_services: 99.2%\ntask_abstraction: "
		"99.7%\n";
	assert_memory_equal(b.ptr, head, sizeof(head) - 1);
	for (const char *line = b.ptr; *line; line = strchr(line, '\n') + 1)
		assert_true(strcspn(line, "\n") <= 80);
	buf_clear(&b);
	assert_int_equal(report_to_json(r, &b), 0);
	struct err e = {""};
	if (json_validate(buf_span(&b), &e) != 0)
		fail_msg("%s", e.text);
	struct span v;
	assert_true(json_pointer(buf_span(&b), SPAN_LIT("/sides/task_abstraction/success_rate"), &v));
	assert_true(span_is(v, "0.996667"));
}

static void nothing_is_not_a_hundred_percent(void **state)
{
	struct place *p = *state;
	record(p, with(legacy_ok, OUTCOME_PRIMARY, OUTCOME_REJECTED, true), 3);
	CLEANUP(report_freep) struct report *r = make(p, (struct report_options){0});
	CLEANUP(buf_releasep) struct buf b = BUF_INIT(1 << 20);
	assert_int_equal(report_to_text(r, 0, &b), 0);
	assert_non_null(strstr(
		b.ptr,
		"Success Rates:\nlegacy_services: not enough data\ntask_abstraction: not enough data\n"));
	assert_int_equal(report_to_json(r, &b), 0);
	assert_non_null(strstr(b.ptr, "\"success_rate\":null"));
}

static void percents_are_never_rounded_to_all_or_nothing(void **state)
{
	(void)state;
	assert_true(report_percent(1) == 100);
	assert_true(report_percent(0.99999) == 99.9);
	assert_true(report_percent(0) == 0);
	assert_true(report_percent(0.00001) == 0.1);
	assert_true(fabs(report_percent(0.9925) - 99.3) < 1e-9 || fabs(report_percent(0.9925) - 99.2) < 1e-9);
}

static void filters_choose(void **state)
{
	struct place *p = *state;
	struct outcome other = legacy_ok, later = task_ok;
	span_copy(SPAN_LIT("runner"), other.service, sizeof(other.service));
	span_copy(SPAN_LIT("runner.run"), other.operation, sizeof(other.operation));
	later.time_us = T0 + 10 * MINUTE_US + 5;
	record(p, legacy_ok, 3);
	record(p, other, 5);
	record(p, later, 7);
	static const struct {
		struct report_options o;
		uint64_t executions;
	} cases[] = {
		{{.service = "prompt"}, 10},
		{{.service = "prompt", .operation = "prompt.answer"}, 10},
		{{.operation = "runner.run"}, 5},
		{{.service = "none"}, 0},
		{{.since_us = T0 + MINUTE_US}, 7},
		{{.since_us = T0 + 10 * MINUTE_US + 30}, 7}, /* rounded down to the minute */
		{{.until_us = T0 + 10 * MINUTE_US}, 8},
		{{.since_us = T0 + MINUTE_US, .until_us = T0 + 10 * MINUTE_US}, 0},
		{{.organization = "globex"}, 7},
		{{.organization = "acme"}, 8},
		{{.organization = "acme", .service = "runner"}, 5},
		{{.organization = "globex", .since_us = T0 + 10 * MINUTE_US + 5}, 7},
		{{.organization = "globex", .since_us = T0 + 10 * MINUTE_US + 6}, 0}, /* rows are exact */
		{{.organization = "globex", .since_us = T0 + 60 * MINUTE_US}, 0},
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		CLEANUP(report_freep) struct report *r = make(p, cases[i].o);
		if (r->total.executions != cases[i].executions)
			fail_msg("case %zu: %llu", i, (unsigned long long)r->total.executions);
	}
	CLEANUP(report_freep) struct report *r = make(p, (struct report_options){0});
	assert_int_equal(r->point_count, 11);
	assert_int_equal(r->points[0].executions[OUTCOME_LEGACY], 8);
	assert_int_equal(r->points[5].executions[OUTCOME_LEGACY], 0);
	assert_int_equal(r->points[10].executions[OUTCOME_TASK], 7);
	assert_int_equal(r->points[10].time_us, T0 + 10 * MINUTE_US);
}

static void a_year_has_no_more_points_than_a_day(void **state)
{
	struct place *p = *state;
	struct outcome late = legacy_ok;
	late.time_us += 365 * 1440 * MINUTE_US;
	record(p, legacy_ok, 1);
	record(p, late, 2);
	CLEANUP(report_freep) struct report *r = make(p, (struct report_options){0});
	assert_true(r->point_count <= REPORT_POINTS_MAX);
	assert_int_equal(r->points[0].executions[OUTCOME_LEGACY], 1);
	assert_int_equal(r->points[r->point_count - 1].executions[OUTCOME_LEGACY], 2);
}

static void beyond_two_days_the_span_is_of_whole_hours(void **state)
{
	struct place *p = *state;
	const int64_t hour = 28999980 * MINUTE_US, now = hour + 4 * 1440 * MINUTE_US;
	struct outcome o = legacy_ok;
	for (int i = 0; i < 60; i++) {
		o.time_us = hour + i * MINUTE_US;
		record(p, o, 1);
	}
	o.time_us = now - MINUTE_US;
	record(p, o, 3);
	struct outcome_limits l = {INT64_MIN, INT64_MIN, 0, now, false};
	while (outcome_store_retain(p->store, &l, NULL) > 0)
		;
	CLEANUP(report_freep)
	struct report *r = make(p, (struct report_options){.since_us = hour + 30 * MINUTE_US});
	assert_int_equal(r->since_us, hour);
	assert_int_equal(r->total.executions, 63);
	assert_int_equal(r->point_us % (60 * MINUTE_US), 0);
	assert_int_equal(r->points[0].executions[OUTCOME_LEGACY], 60);
	assert_int_equal(r->points[r->point_count - 1].executions[OUTCOME_LEGACY], 3);
	assert_true(labs((long)r->total.sides[OUTCOME_LEGACY].attempts.p99_us - 2000) <= 32);
}

static int refusal(const char *path, struct err *e)
{
	struct report *r = NULL;
	int code = report_make(&(struct report_options){.path = path}, &r, e);
	assert_null(r);
	return code;
}

static void files_that_are_not_ours_are_refused_in_words(void **state)
{
	struct place *p = *state;
	struct err e = {""};
	struct db *db = NULL;
	char path[SCRATCH_MAX];
	scratch_path(p->folder, "other.db", path);
	assert_int_equal(refusal(path, &e), -ENOENT);
	assert_int_equal(
		file_replace(
			path,
			SPAN_LIT("hello, this is not a database at all, but a text that is longer than the"
				 " hundred bytes of a header"),
			0600, &e),
		0);
	assert_int_equal(refusal(path, &e), -EMEDIUMTYPE);
	unlink(path);
	assert_int_equal(db_open(&(struct db_options){.path = path}, &db, &e), 0);
	assert_int_equal(db_exec(db, "CREATE TABLE t (a)", &e), 0);
	db_close(db);
	assert_int_equal(refusal(path, &e), -EMEDIUMTYPE);
	unlink(path);
	assert_int_equal(
		db_open(&(struct db_options){.path = path, .application_id = OUTCOME_STORE_APPLICATION}, &db,
			&e),
		0);
	assert_int_equal(refusal(path, &e), -ENODATA);
	assert_int_equal(db_exec(db, "PRAGMA user_version = 99", &e), 0);
	assert_int_equal(refusal(path, &e), -EPROTO);
	assert_non_null(strstr(e.text, "schema version 99"));
	db_close(db);
	unlink(path);
}

static void times_are_read_as_people_write_them(void **state)
{
	(void)state;
	const int64_t now = 1790000000LL * 1000000;
	static const struct {
		const char *text;
		int64_t seconds; /* since 1970; -1 = refused */
		int64_t us;
	} cases[] = {
		{"15m", 1790000000 - 900, 0},
		{"7d", 1790000000 - 7 * 86400, 0},
		{"1970-01-02", 86400, 0},
		{"2026-01-31T08:15:00Z", 1769847300, 0},
		{"2026-01-31T08:15:00.123Z", 1769847300, 123000},
		{"2026-01-31T08:15:00.0000019Z", 1769847300, 1},
		{"2026-01-31T08:15:00.+00:00", 1769847300, 0},
		{"2026-01-31T10:15:00+02:00", 1769847300, 0},
		{"2026-01-31T03:45:00-04:30", 1769847300, 0},
		{"yesterday", -1, 0},
		{"", -1, 0},
		{"2026-01-31T08:15:00", -1, 0},
		{"2026-01-31T08:15:00+2", -1, 0},
		{"2026-01-31x", -1, 0},
		{"99999d", -1, 0},
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		int64_t us = -1000000;
		bool good = when_parse(cases[i].text, now, &us);
		if (good != (cases[i].seconds >= 0) ||
		    (good && us != cases[i].seconds * 1000000 + cases[i].us))
			fail_msg("%s: %lld", cases[i].text, (long long)us);
	}
}

/* --- the gate ------------------------------------------------------------------------------------------- */

struct sides {
	uint64_t success, failure, rejected;
	int64_t p95_us;
};

static struct report_rate rate_of(struct sides s)
{
	struct report_rate a = {.counted = s.success + s.failure, .p95_us = s.p95_us ? s.p95_us : -1};
	a.results[OUTCOME_SUCCESS] = s.success;
	a.results[OUTCOME_FAILURE] = s.failure;
	a.results[OUTCOME_REJECTED] = s.rejected;
	a.known = a.counted > 0;
	a.rate = a.known ? (double)s.success / (double)a.counted : 0;
	a.high = a.rate + 0.2 > 1 ? 1 : a.rate + 0.2;
	return a;
}

static struct report_operation operation_of(const char *name, struct sides task, struct sides legacy)
{
	struct report_operation op = {.service = "s"};
	snprintf(op.operation, sizeof(op.operation), "%s", name);
	op.sides[OUTCOME_TASK].attempts = rate_of(task);
	op.sides[OUTCOME_LEGACY].attempts = rate_of(legacy);
	return op;
}

static void the_gate_needs_data_and_holds_limits(void **state)
{
	(void)state;
	static const struct gate_options floor = {.min_success = 99,
						  .max_regression = -1,
						  .max_rejected = 5,
						  .max_slowdown = 2,
						  .min_executions = 20};
	static const struct {
		struct sides task, legacy;
		double max_regression;
		enum gate_verdict verdict;
	} cases[] = {{{995, 5, 0, 0}, {990, 10, 0, 0}, 1, GATE_HEALTHY},
		     {{99, 1, 0, 0}, {99, 1, 0, 0}, 0, GATE_HEALTHY},
		     {{98, 2, 0, 0}, {90, 10, 0, 0}, -1, GATE_BREACHED},
		     {{992, 8, 0, 0}, {999, 1, 0, 0}, 0.5, GATE_BREACHED},
		     {{19, 0, 0, 0}, {1000, 0, 0, 0}, -1, GATE_NOT_ENOUGH_DATA},
		     {{0, 0, 0, 0}, {1000, 0, 0, 0}, -1, GATE_NOT_ENOUGH_DATA},
		     {{100, 0, 0, 0}, {3, 0, 0, 0}, 1, GATE_NOT_ENOUGH_DATA},
		     {{100, 0, 0, 0}, {3, 0, 0, 0}, -1, GATE_HEALTHY},
		     {{50, 50, 0, 0}, {3, 0, 0, 0}, 1, GATE_BREACHED},
		     /* rejected: the difference counts, not the share */
		     {{0, 0, 60, 0}, {60, 0, 0, 0}, -1, GATE_BREACHED},
		     {{60, 0, 40, 0}, {60, 0, 40, 0}, -1, GATE_HEALTHY},
		     {{60, 0, 40, 0}, {60, 0, 30, 0}, -1, GATE_BREACHED},
		     {{60, 0, 2, 0}, {60, 0, 0, 0}, -1, GATE_HEALTHY},
		     {{0, 0, 60, 0}, {3, 0, 0, 0}, -1, GATE_NOT_ENOUGH_DATA},
		     /* what is known is not excused by what is not */
		     {{0, 50, 60, 0}, {3, 0, 0, 0}, -1, GATE_BREACHED},
		     /* latency: more than twice, and more than a second */
		     {{100, 0, 0, 900000}, {100, 0, 0, 10000}, -1, GATE_HEALTHY},
		     {{100, 0, 0, 4000000}, {100, 0, 0, 50000}, -1, GATE_BREACHED},
		     {{100, 0, 0, 35000000}, {100, 0, 0, 30000000}, -1, GATE_HEALTHY}};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct report_operation op = operation_of("o", cases[i].task, cases[i].legacy);
		struct report r = {.operations = &op, .operation_count = 1};
		struct gate_options o = floor;
		char why[GATE_TEXT_MAX];
		o.max_regression = cases[i].max_regression;
		if (gate_check(&o, &r, NULL, NULL, NULL, why) != cases[i].verdict)
			fail_msg("case %zu: %s", i, why);
	}
}

static void count_finding(void *arg, const struct gate_finding *f)
{
	(void)f;
	++*(size_t *)arg;
}

/* A busy healthy operation hides no broken one; what has not moved is not judged. */
static void the_gate_judges_each_operation_by_itself(void **state)
{
	(void)state;
	static const struct sides good = {2000, 0, 0, 0}, bad = {0, 30, 0, 0}, none = {0, 0, 0, 0},
				  few = {15, 0, 0, 0}, few_bad = {0, 12, 0, 0}, few_mixed = {14, 1, 0, 0};
	const struct { /* not static: clang takes no object for a constant */
		struct sides tasks[4];
		enum gate_verdict verdict;
		const char *why;
		size_t findings;
	} cases[] = {{{good, bad, none, none}, GATE_BREACHED, "s.b: ", 2},
		     {{good, good, none, none}, GATE_HEALTHY, "s.a: ", 2},
		     {{good, few, none, none}, GATE_HEALTHY, "s.a: ", 2},
		     /* nobody may take that for healthy */
		     {{good, few_bad, none, none}, GATE_NOT_ENOUGH_DATA, "s.b: ", 2},
		     {{few, few, none, none}, GATE_HEALTHY, "2 operations", 3},
		     {{few, few_mixed, few_mixed, none}, GATE_BREACHED, "3 operations", 4},
		     {{few, none, none, none}, GATE_NOT_ENOUGH_DATA, "s.a: ", 1},
		     {{none, none, none, none}, GATE_NOT_ENOUGH_DATA, "task_abstraction has no attempts", 0}};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct report_operation ops[4];
		static const char *const names[] = {"a", "b", "c", "d"};
		for (size_t j = 0; j < 4; j++)
			ops[j] = operation_of(names[j], cases[i].tasks[j], good);
		struct report r = {.operations = ops, .operation_count = 4};
		char why[GATE_TEXT_MAX];
		size_t findings = 0;
		enum gate_verdict v = gate_check(&GATE_DEFAULTS, &r, NULL, count_finding, &findings, why);
		if (v != cases[i].verdict || strncmp(why, cases[i].why, strlen(cases[i].why)) != 0 ||
		    findings != cases[i].findings)
			fail_msg("case %zu: %d, %zu findings: %s", i, v, findings, why);
	}
}

/* Everybody has moved: legacy's share of rejected is what it was before. */
static void the_gate_compares_with_legacy_of_before(void **state)
{
	(void)state;
	static const struct sides none = {0, 0, 0, 0}, rejecting = {0, 0, 60, 0}, fine = {60, 0, 0, 0};
	struct report_operation now = operation_of("o", rejecting, none);
	struct report r = {.operations = &now, .operation_count = 1};
	char why[GATE_TEXT_MAX];
	assert_true(gate_needs_baseline(&GATE_DEFAULTS, &r));
	struct report_operation before = operation_of("o", none, fine),
				as_well = operation_of("o", none, rejecting);
	struct report b = {.operations = &before, .operation_count = 1},
		      c = {.operations = &as_well, .operation_count = 1};
	assert_int_equal(gate_check(&GATE_DEFAULTS, &r, &b, NULL, NULL, why), GATE_BREACHED);
	/* as before, but none counted */
	assert_int_equal(gate_check(&GATE_DEFAULTS, &r, &c, NULL, NULL, why), GATE_NOT_ENOUGH_DATA);
	assert_int_equal(gate_check(&GATE_DEFAULTS, &r, NULL, NULL, NULL, why), GATE_NOT_ENOUGH_DATA);
}

/* The same schema, a newer router: its words are not ours, its figures count. */
static void words_of_a_newer_version_fail_nothing(void **state)
{
	struct place *p = *state;
	struct err e = {""};
	struct db *db = NULL;
	record(p, legacy_ok, 3);
	record(p, task_ok, 2);
	assert_int_equal(db_open(&(struct db_options){.path = p->file, .busy_timeout_ms = 5000}, &db, &e), 0);
	assert_int_equal(db_exec(db,
				 "UPDATE series SET reason='moon' WHERE side='legacy';"
				 " UPDATE series SET result='odd' WHERE side='task'",
				 &e),
			 0);
	db_close(db);
	CLEANUP(report_freep) struct report *r = make(p, (struct report_options){0});
	assert_int_equal(r->total.executions, 5);
	assert_int_equal(r->total.reasons[REASON_OTHER], 3);
	assert_int_equal(r->total.sides[OUTCOME_TASK].attempts.results[OUTCOME_UNKNOWN], 2);
}

/* --- several routers ------------------------------------------------------------------------------------ */

static struct report_sums *sums_of(struct place *p)
{
	struct report_sums *s = NULL;
	struct err e = {""};
	if (report_sums_read(&(struct report_options){.path = p->file}, &s, &e) < 0)
		fail_msg("%s", e.text);
	return s;
}

/* As another program gets them. */
static struct report_sums *over_the_wire(struct report_sums *s)
{
	CLEANUP(buf_releasep) struct buf json = BUF_INIT(1u << 20);
	struct report_sums *ret = NULL;
	struct err e = {""};
	assert_int_equal(report_sums_to_json(s, &json), 0);
	report_sums_free(s);
	if (report_sums_parse("there", buf_span(&json), &ret, &e) < 0)
		fail_msg("%s", e.text);
	return ret;
}

static void report_text_of(const struct report *r, struct buf *out)
{
	struct report copy = *r;
	copy.made_us = 0;
	assert_int_equal(report_to_json(&copy, out), 0);
}

/* Unequal halves: a report made of averages would differ in every figure. */
static void several_routers_add_up_to_what_one_would_have_recorded(void **state)
{
	void *others[2];
	struct place *all = *state, *half[2];
	for (int i = 0; i < 2; i++) {
		assert_int_equal(open_place(&others[i]), 0);
		half[i] = others[i];
	}
	struct place *first[] = {half[0], all}, *second[] = {half[1], all};
	struct outcome later = on(task_ok, "celery"), slow = legacy_ok;
	later.time_us += 45 * MINUTE_US;
	slow.latency_us = 900000;
	snprintf(slow.operation, sizeof(slow.operation), "prompt.index");
	for (int i = 0; i < 2; i++) {
		record_a_story(first[i]);
		record(first[i], later, 3);
		record(second[i], slow, 7);
		record(second[i], with(task_ok, OUTCOME_PRIMARY, OUTCOME_FAILURE, true), 40);
	}
	CLEANUP(report_freep) struct report *whole = make(all, (struct report_options){0});
	CLEANUP(buf_releasep) struct buf expected = BUF_INIT(1u << 20), merged = BUF_INIT(1u << 20);
	report_text_of(whole, &expected);
	for (int wire = 0; wire < 2; wire++) {
		struct report_sums *sums[] = {sums_of(half[0]), sums_of(half[1])};
		CLEANUP(report_freep) struct report *r = NULL;
		struct err e = {""};
		if (wire)
			sums[1] = over_the_wire(sums[1]);
		assert_int_equal(report_merge(&(struct report_options){0}, sums, 2, &r, &e), 0);
		buf_clear(&merged);
		report_text_of(r, &merged);
		buf_terminate(&merged);
		buf_terminate(&expected);
		assert_string_equal(merged.ptr, expected.ptr);
		report_sums_free(sums[0]);
		report_sums_free(sums[1]);
	}
	for (int i = 0; i < 2; i++)
		close_place(&others[i]);
}

static bool says_demo(const struct report *r)
{
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(1u << 20), json = BUF_INIT(1u << 20);
	assert_int_equal(report_to_text(r, 80, &text), 0);
	assert_int_equal(report_to_json(r, &json), 0);
	buf_terminate(&text);
	buf_terminate(&json);
	bool in_text = strstr(text.ptr, "are made up (--demo-history)");
	bool in_json = strstr(json.ptr, "\"demo_history\":{\"since\":");
	assert_int_equal(in_text, in_json);
	return in_text;
}

static void what_was_made_up_is_said_wherever_it_is_counted(void **state)
{
	struct place *p = *state;
	void *other;
	struct err e = {""};
	record_a_story(p);
	CLEANUP(report_freep) struct report *before = make(p, (struct report_options){0});
	assert_false(says_demo(before));
	struct demo_history mark = {legacy_ok.time_us - 60 * MINUTE_US, legacy_ok.time_us + 10 * MINUTE_US};
	assert_int_equal(demo_history_write(outcome_store_db(p->store), &mark, &e), 0);
	CLEANUP(report_freep) struct report *marked = make(p, (struct report_options){0});
	assert_true(says_demo(marked));
	CLEANUP(report_freep)
	struct report *later = make(p, (struct report_options){.since_us = mark.until_us + 5 * MINUTE_US});
	assert_false(says_demo(later));
	/* Also when it is one of several, or another router's. */
	assert_int_equal(open_place(&other), 0);
	record_a_story(other);
	for (int wire = 0; wire < 2; wire++) {
		struct report_sums *sums[] = {sums_of(p), sums_of(other)};
		CLEANUP(report_freep) struct report *r = NULL;
		if (wire)
			sums[0] = over_the_wire(sums[0]);
		assert_int_equal(report_merge(&(struct report_options){0}, sums, 2, &r, &e), 0);
		assert_true(says_demo(r));
		assert_int_equal(r->demo.until_us, mark.until_us);
		report_sums_free(sums[0]);
		report_sums_free(sums[1]);
	}
	close_place(&other);
}

static void the_same_file_is_never_counted_twice(void **state)
{
	struct place *p = *state;
	record_a_story(p);
	struct report_sums *sums[] = {sums_of(p), over_the_wire(sums_of(p))};
	struct report *r = NULL;
	struct err e = {""};
	assert_int_equal(report_merge(&(struct report_options){0}, sums, 2, &r, &e), -EEXIST);
	assert_null(r);
	report_sums_free(sums[0]);
	report_sums_free(sums[1]);
}

static void sums_that_nobody_can_have_made_are_refused(void **state)
{
#define SUMS(series, minutes) \
	"{\"sums\":1,\"store\":\"\",\"since_us\":0,\"until_us\":0,\"from_rows\":false,\"dropped\":0," \
	"\"folded\":null," \
	"\"first_minute\":1,\"last_minute\":2,\"series\":[" series "],\"minutes\":[" minutes "]}"
#define ONE "[\"s\",\"o\",\"\",\"legacy\",\"primary\",\"flag\",\"success\",true,1,"
	static const char *const good[] = {SUMS("", ""), SUMS(ONE "[5,1]]", "[1,1,1,1,0,0,0]")};
	static const char *const bad[] = {
		"",
		"[]",
		"{}",
		"{\"version\":1}",
		"{\"sums\":2}",
		"{\"sums\":1}",
		SUMS("1", ""),
		SUMS("[]", ""),
		SUMS(ONE "[5]]", ""),
		SUMS(ONE "[-1,1]]", ""),
		SUMS(ONE "[1152,1]]", ""),
		SUMS(ONE "[5,1e300]]", ""),
		SUMS(ONE "[5,0.5]]", ""),
		SUMS("", "[1,1,1,1,0,0]"),
		SUMS("", "[1e14,1,1,1,0,0,0]"),
		SUMS("[\"s\",\"o\",\"\",\"up\",\"primary\",\"flag\",\"success\",true,1,[]]", ""),
		SUMS("[\"s\",\"o\",\"\",\"legacy\",\"primary\",\"flag\",\"success\",true,-1,[]]", ""),
	};
	(void)state;
	struct err e;
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		CLEANUP(report_sums_freep) struct report_sums *s = NULL;
		if (report_sums_parse("there", span_of(good[i]), &s, &e) < 0)
			fail_msg("%s: %s", good[i], e.text);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		CLEANUP(report_sums_freep) struct report_sums *s = NULL;
		if (report_sums_parse("there", span_of(bad[i]), &s, &e) == 0)
			fail_msg("taken: %s", bad[i]);
		assert_non_null(strstr(e.text, "there"));
	}
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, open_place, close_place)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(figures_follow_the_definitions),
		CASE(backends_are_told_apart),
		CASE(backends_beyond_the_limit_are_in_their_side),
		CASE(text_begins_with_the_lines_that_scripts_parse),
		CASE(nothing_is_not_a_hundred_percent),
		CASE(several_routers_add_up_to_what_one_would_have_recorded),
		CASE(what_was_made_up_is_said_wherever_it_is_counted),
		CASE(the_same_file_is_never_counted_twice),
		cmocka_unit_test(sums_that_nobody_can_have_made_are_refused),
		cmocka_unit_test(percents_are_never_rounded_to_all_or_nothing),
		CASE(filters_choose),
		CASE(a_year_has_no_more_points_than_a_day),
		CASE(beyond_two_days_the_span_is_of_whole_hours),
		CASE(words_of_a_newer_version_fail_nothing),
		CASE(files_that_are_not_ours_are_refused_in_words),
		cmocka_unit_test(times_are_read_as_people_write_them),
		cmocka_unit_test(the_gate_needs_data_and_holds_limits),
		cmocka_unit_test(the_gate_judges_each_operation_by_itself),
		cmocka_unit_test(the_gate_compares_with_legacy_of_before),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
