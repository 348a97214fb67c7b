/* drain: patterns of paths, the table of unmapped calls, and verdicts over a store. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "base/db.h"
#include "base/text.h"
#include "outcomes/drain/drain.h"
#include "outcomes/path_pattern.h"
#include "outcomes/unmapped.h"
#include "support/outcome_place.h"

#define MINUTE_US 60000000LL
#define DAY_US 86400000000LL
#define NOW_US (20000 * DAY_US + 7 * MINUTE_US)

static void paths_keep_words_and_no_identity(void **state)
{
	(void)state;
	static const char *const cases[][2] = {
		{"/", "/"},
		{"/api/v1/process", "/api/v1/process"},
		{"/api/v2.1/answer-prompt/", "/api/v2.1/answer-prompt/"},
		{"/users/alice", "/users/{id}"},
		{"/user/alice/settings?token=x", "/user/{id}/settings"},
		{"/org/acme#x", "/org/{id}"},
		{"/x/4711/y", "/x/{id}/y"},
		{"/x/f47ac10b-58cc-4372-a567-0e02b2c3d479", "/x/{id}"},
		{"/x/bob%40example.org", "/x/{id}"},
		{"/x/john.doe", "/x/{id}"},
		{"/index.html", "/index.html"},
		{"/status/live", "/status/live"},
		{"/x/user42", "/x/{id}"},
		{"/x/;jsessionid=1", "/x/{id}"},
		{"/x//y", "/x//y"},
		{"/abcdefghijklmnopqrstuvwxyz", "/{id}"},
		{"/a/b/c/d/e/f/g/h/i", "/a/b/c/d/e/f/g/h/..."},
		{"http://legacy:1/a/1?q", "/a/{id}"},
		{"http://legacy", "/"},
		{"*", "*"},
		{"", "*"},
		{"/redirect?to=http://other/secret", "/redirect"},
	};
	char out[PATH_PATTERN_MAX];
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		path_pattern(span_of(cases[i][0]), out);
		assert_string_equal(out, cases[i][1]);
	}
	char target[4096], method[PATH_PATTERN_METHOD];
	for (size_t n = 1; n < sizeof(target); n++) { /* whatever comes stays within bounds, and plain */
		for (size_t i = 0; i < n; i++)
			target[i] = i % 21 ? (char)('a' + (i + n) % 26) : '/';
		path_pattern((struct span){target, n}, out);
		assert_true(strlen(out) < PATH_PATTERN_MAX);
		target[n / 2] = (char)n;
		path_pattern((struct span){target, n}, out);
		assert_true(text_is_plain(span_of(out)));
	}
	path_pattern_method(SPAN_LIT("PATCH"), method);
	assert_string_equal(method, "PATCH");
	path_pattern_method(SPAN_LIT("FROBNICATE-ALICE"), method);
	assert_string_equal(method, "(other)");
}

static struct unmapped_pattern pattern_of(const char *pattern, int64_t us)
{
	struct unmapped_pattern p = {
		.service = "app", .method = "GET", .count = 1, .last_us = us, .last_found_us = us};
	snprintf(p.pattern, sizeof(p.pattern), "%s", pattern);
	return p;
}

static uint64_t count_of(const struct unmapped_table *t, const char *pattern)
{
	uint64_t n = 0;
	for (size_t i = 0; i < t->n; i++)
		n += strcmp(t->patterns[i].pattern, pattern) == 0 ? t->patterns[i].count : 0;
	return n;
}

static uint64_t count_all(const struct unmapped_table *t)
{
	uint64_t n = 0;
	for (size_t i = 0; i < t->n; i++)
		n += t->patterns[i].count;
	return n;
}

static void no_count_is_lost_however_many_patterns(void **state)
{
	(void)state;
	struct unmapped_table t = {0};
	char text[64];
	for (int i = 0; i < 5000; i++) {
		snprintf(text, sizeof(text), "/%c%c%c", 'a' + i % 26, 'a' + i / 26 % 26, 'a' + i / 676);
		struct unmapped_pattern p = pattern_of(text, i + 1), often = pattern_of("/often", i + 1);
		assert_int_equal(unmapped_add(&t, &p), 0);
		assert_int_equal(unmapped_add(&t, &often), 0);
		if (i % 100 == 0)
			unmapped_compact(&t);
	}
	unmapped_compact(&t);
	assert_int_equal(count_all(&t), 10000);
	assert_int_equal(count_of(&t, "/often"), 5000);
	assert_int_equal(t.n, UNMAPPED_PATTERNS_MAX + 1);
	assert_int_equal(count_of(&t, UNMAPPED_OTHERS), 5000 - (UNMAPPED_PATTERNS_MAX - 1));
	unmapped_release(&t);
}

static void a_flood_between_two_writes_is_of_the_others(void **state)
{
	(void)state;
	struct unmapped_table t = {0};
	char text[64];
	for (int i = 0; i < 2000; i++) {
		snprintf(text, sizeof(text), "/%c%c%c", 'a' + i % 26, 'a' + i / 26 % 26, 'a' + i / 676);
		struct unmapped_pattern p = pattern_of(text, i + 1);
		assert_int_equal(unmapped_add(&t, &p), 0);
	}
	assert_true(t.fresh <= UNMAPPED_FRESH + 1);
	assert_int_equal(count_all(&t), 2000);
	unmapped_release(&t);
}

static void names_at_one_place_become_one(void **state)
{
	(void)state;
	struct unmapped_table t = {0};
	char text[64];
	struct unmapped_pattern other = pattern_of("/greet/{id}/now", 5);
	assert_int_equal(unmapped_add(&t, &other), 0);
	for (int i = 0; i < 26; i++) {
		snprintf(text, sizeof(text), "/greet/%cx/now", 'a' + i);
		struct unmapped_pattern p = pattern_of(text, i + 10);
		assert_int_equal(unmapped_add(&t, &p), 0);
		assert_int_equal(count_of(&t, "/greet/{name}/now"), i + 1 < UNMAPPED_SIBLINGS ? 0 : i + 1);
	}
	unmapped_compact(&t);
	assert_int_equal(t.n, 2);
	assert_int_equal(count_all(&t), 27);
	for (int i = 0; i < 26; i++) { /* endpoints that stand first are no names */
		snprintf(text, sizeof(text), "/%cx", 'a' + i);
		struct unmapped_pattern p = pattern_of(text, 1);
		assert_int_equal(unmapped_add(&t, &p), 0);
	}
	assert_int_equal(t.n, 28);
	unmapped_release(&t);
}

/* --- verdicts ------------------------------------------------------------------------------------------- */

static void record(struct place *p, enum outcome_side side, enum outcome_role role,
		   enum outcome_reason reason, int64_t us)
{
	struct outcome o = {.time_us = us,
			    .service = "app",
			    .operation = "go",
			    .organization = "acme",
			    .side = (uint8_t)side,
			    .role = (uint8_t)role,
			    .reason = (uint8_t)reason,
			    .answered = true};
	struct series *s = series_of(p->series, &o);
	struct outcome_batch b = {.outcomes = &o, .series = &s, .count = 1, .now_us = us};
	assert_int_equal(outcome_store_write(p->store, &b, NULL), 0);
}

static void be_there(struct place *p, int64_t since_us, int64_t until_us)
{
	for (int64_t us = since_us; us <= until_us; us += 2 * MINUTE_US) {
		struct outcome_batch b = {.now_us = us};
		assert_int_equal(outcome_store_write(p->store, &b, NULL), 0);
	}
}

static enum drain_verdict judged(struct place *p, enum outcome_side side, int64_t span_us, char *sentence)
{
	struct drain_options o = {.path = p->file,
				  .side = side,
				  .now_us = NOW_US,
				  .since_us = NOW_US - span_us,
				  .max_gap_us = DRAIN_MAX_GAP_US};
	struct drain *d = NULL;
	struct err e = {""};
	if (drain_make(&o, &d, &e) < 0)
		fail_msg("%s", e.text);
	enum drain_verdict v = d->verdict;
	snprintf(sentence, DRAIN_SENTENCE_MAX, "%s", d->sentence);
	drain_free(d);
	return v;
}

static void presence_is_one_interval_until_it_is_interrupted(void **state)
{
	struct place *p = *state;
	char sentence[DRAIN_SENTENCE_MAX];
	be_there(p, NOW_US - 2 * DAY_US, NOW_US - DAY_US);
	record(p, OUTCOME_TASK, OUTCOME_PRIMARY, REASON_FLAG, NOW_US - DAY_US);
	be_there(p, NOW_US - DAY_US + 50 * MINUTE_US, NOW_US);
	assert_int_equal(judged(p, OUTCOME_LEGACY, 47 * 60 * MINUTE_US, sentence), DRAIN_DRAINED);
	assert_int_equal(judged(p, OUTCOME_LEGACY, 3 * DAY_US, sentence), DRAIN_NOT_ENOUGH_DATA);
	assert_non_null(strstr(sentence, "records reach back only 2 days, 3 days are required"));
	be_there(p, NOW_US - 9 * DAY_US,
		 NOW_US - 9 * DAY_US); /* by a clock that was behind: a gap, no bridge */
	assert_int_equal(judged(p, OUTCOME_LEGACY, 3 * DAY_US, sentence), DRAIN_NOT_ENOUGH_DATA);
	assert_non_null(strstr(sentence, "no router recorded"));
}

static void what_is_a_use_and_what_is_none(void **state)
{
	struct place *p = *state;
	char sentence[DRAIN_SENTENCE_MAX];
	be_there(p, NOW_US - 2 * DAY_US, NOW_US);
	record(p, OUTCOME_TASK, OUTCOME_PRIMARY, REASON_FLAG, NOW_US - MINUTE_US);
	record(p, OUTCOME_LEGACY, OUTCOME_PRIMARY, REASON_REFUSED, NOW_US - MINUTE_US);
	record(p, OUTCOME_LEGACY, OUTCOME_PRIMARY, REASON_PIN_UNKNOWN, NOW_US - MINUTE_US);
	record(p, OUTCOME_LEGACY, OUTCOME_SHADOW, REASON_FLAG, NOW_US - MINUTE_US);
	assert_int_equal(judged(p, OUTCOME_LEGACY, DAY_US, sentence), DRAIN_DRAINED);
	assert_string_equal(sentence, "nothing has used legacy app for 1 day");
	record(p, OUTCOME_LEGACY, OUTCOME_FALLBACK, REASON_FLAG, NOW_US - 2 * MINUTE_US);
	assert_int_equal(judged(p, OUTCOME_LEGACY, DAY_US, sentence), DRAIN_USED);
	assert_string_equal(sentence,
			    "legacy app is still used: 1 time, last 2 minutes ago by organization acme "
			    "(go, reason flag, fell back)");
	assert_int_equal(judged(p, OUTCOME_TASK, DAY_US, sentence), DRAIN_USED);
}

static void a_clock_that_was_ahead_keeps_no_last_use(void **state)
{
	struct place *p = *state;
	CLEANUP(db_closep) struct db *db = NULL;
	int64_t last;
	record(p, OUTCOME_LEGACY, OUTCOME_PRIMARY, REASON_FLAG, NOW_US + 60 * DAY_US);
	record(p, OUTCOME_LEGACY, OUTCOME_PRIMARY, REASON_FLAG, NOW_US);
	assert_int_equal(db_open(&(struct db_options){.path = p->file, .read_only = true}, &db, NULL), 0);
	assert_int_equal(db_query_int64(db, "SELECT time_us FROM last_seen", &last, NULL), 0);
	assert_int_equal(last, NOW_US);
}

static void old_usage_goes_with_the_sums(void **state)
{
	struct place *p = *state;
	CLEANUP(db_closep) struct db *db = NULL;
	int64_t n;
	be_there(p, NOW_US - 40 * DAY_US, NOW_US - 40 * DAY_US);
	be_there(p, NOW_US - DAY_US, NOW_US);
	struct outcome_limits limits = {
		.rows_before_us = INT64_MIN, .rollups_before_us = NOW_US - 30 * DAY_US, .now_us = NOW_US};
	while (outcome_store_retain(p->store, &limits, NULL) > 0)
		;
	assert_int_equal(db_open(&(struct db_options){.path = p->file, .read_only = true}, &db, NULL), 0);
	assert_int_equal(db_query_int64(db, "SELECT count(*) FROM presence", &n, NULL), 0);
	assert_int_equal(n, 1);
}

#define WITH_STORE(f) cmocka_unit_test_setup_teardown(f, open_place, close_place)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(paths_keep_words_and_no_identity),
		cmocka_unit_test(no_count_is_lost_however_many_patterns),
		cmocka_unit_test(a_flood_between_two_writes_is_of_the_others),
		cmocka_unit_test(names_at_one_place_become_one),
		WITH_STORE(presence_is_one_interval_until_it_is_interrupted),
		WITH_STORE(what_is_a_use_and_what_is_none),
		WITH_STORE(a_clock_that_was_ahead_keeps_no_last_use),
		WITH_STORE(old_usage_goes_with_the_sums),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
