/* move/setback: what the guard writes into a features file, and what it leaves alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/crypto.h"
#include "base/file.h"
#include "move/setback.h"
#include "move/users.h"
#include "support/scratch.h"

#define ROUTER \
	"data: data\nbackends: {embedded: {}}\nflags: {file: flags.yml}\n" \
	"services:\n  s:\n    listen: 127.0.0.1:5002\n    legacy: http://h\n    operations:\n" \
	"      one: {match: POST /one, flags: [everything, mine], auth: none, identity: {user: " \
	"header:X-User}," \
	" task: {name: t}}\n" \
	"      two: {match: POST /two, flags: [everything], auth: none, identity: {user: header:X-User}," \
	" task: {name: t}}\n"

#define BOOLEAN(key, percent) \
	"- {key: " key ", name: " key \
	", type: BOOLEAN_FLAG_TYPE, enabled: false, rollouts: [{threshold: {percentage: " percent \
	", value: true}}]}\n"

struct world {
	char folder[SCRATCH_MAX], config_path[SCRATCH_MAX], flags_path[SCRATCH_MAX];
	struct config *config;
	struct rollout_place *place;
};

static const char *no_environment(const char *name)
{
	(void)name;
	return NULL;
}

static void write_text(const char *path, const char *text)
{
	FILE *file = fopen(path, "w");
	assert_non_null(file);
	assert_true(fputs(text, file) >= 0);
	assert_int_equal(fclose(file), 0);
}

static void write_flags(struct world *w, const char *flags)
{
	char text[4096];
	snprintf(text, sizeof(text), "namespace: default\nflags:\n%s", flags);
	write_text(w->flags_path, text);
}

static void read_flags(struct world *w, struct buf *text)
{
	struct err e;
	*text = BUF_INIT(1 << 20);
	assert_int_equal(file_read(w->flags_path, 65536, text, &e), 0);
}

static bool flags_have(struct world *w, const char *wanted)
{
	CLEANUP(buf_releasep) struct buf text;
	read_flags(w, &text);
	return strstr(text.ptr, wanted) != NULL;
}

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	struct buf problems = BUF_INIT(1 << 20);
	struct err e = {""};
	if (!w || crypto_setup() < 0)
		return -1;
	scratch_make(w->folder);
	scratch_path(w->folder, "router.yml", w->config_path);
	scratch_path(w->folder, "flags.yml", w->flags_path);
	write_text(w->config_path, ROUTER);
	write_flags(w, BOOLEAN("everything", "100") BOOLEAN("mine", "25"));
	if (config_load(w->config_path, no_environment, &problems, &w->config) < 0)
		fail_msg("%s", problems.ptr);
	buf_release(&problems);
	if (place_open(w->config, NULL, &w->place, &e) < 0)
		fail_msg("%s", e.text);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;
	place_close(w->place);
	config_unref(w->config);
	scratch_remove(w->folder);
	free(w);
	return 0;
}

/* A breach of `operation`, judged upon what the file says now. */
static struct setback breach_of(struct world *w, const char *operation, double keeps)
{
	struct setback s = {.service = "s", .keeps = keeps, .why = "the task side is worse"};
	struct flag_snapshot *flags = NULL;
	struct err e = {""};
	snprintf(s.operation, sizeof(s.operation), "%s", operation);
	assert_int_equal(place_read(w->place, &e), 0);
	assert_int_equal(place_parse(w->place, buf_span(&w->place->flags), &flags, &e), 0);
	s.split = decide_split(
		service_operation(config_service(w->config, SPAN_LIT("s")), span_of(operation)), flags);
	flag_snapshot_unref(flags);
	return s;
}

static int set_back(struct world *w, const struct setback *s, struct setback_done *done)
{
	struct err e = {""};
	int r = move_set_back(w->place, s, done, &e);
	if (r < 0)
		print_message("%s\n", e.text);
	return r;
}

static void the_flag_that_splits_is_set_to_0_and_no_other(void **state)
{
	struct world *w = *state;
	struct setback_done done;
	const struct setback s = breach_of(w, "one", 0);
	assert_int_equal(set_back(w, &s, &done), SETBACK_MADE);
	assert_string_equal(done.flag, "mine");
	assert_string_equal(done.command, "set");
	assert_true(flags_have(w, "key: mine, name: mine, type: BOOLEAN_FLAG_TYPE, enabled: false, rollouts: "
				  "[{threshold: {percentage: 0"));
	assert_true(flags_have(w, "percentage: 100"));
	assert_false(done.unrecorded);
	assert_int_equal(set_back(w, &s, &done), SETBACK_MOOT);
}

static void of_two_that_split_it_is_the_one_that_fewer_ask(void **state)
{
	struct world *w = *state;
	struct setback_done done;
	write_flags(w, BOOLEAN("mine", "50") BOOLEAN("everything", "50"));
	const struct setback s = breach_of(w, "one", 0);
	assert_int_equal(set_back(w, &s, &done), SETBACK_MADE);
	assert_string_equal(done.flag, "mine");
}

static void a_flag_of_others_goes_back_for_all_and_the_note_names_them(void **state)
{
	struct world *w = *state;
	struct setback_done done;
	write_flags(w, BOOLEAN("mine", "100") BOOLEAN("everything", "50"));
	const struct setback s = breach_of(w, "one", 0);
	assert_int_equal(set_back(w, &s, &done), SETBACK_MADE);
	assert_string_equal(done.flag, "everything");
	assert_non_null(strstr(done.message, "sets back as well: s.two"));
	assert_non_null(strstr(done.message, "breach of s.one: the task side is worse"));
}

static void it_goes_back_to_the_share_that_was_safe(void **state)
{
	struct world *w = *state;
	struct setback_done done;
	write_flags(w, BOOLEAN("everything", "100") BOOLEAN("mine", "50"));
	const struct setback s = breach_of(w, "one", 0.107);
	assert_int_equal(set_back(w, &s, &done), SETBACK_MADE);
	assert_true(flags_have(w, "percentage: 10,"));
}

static void with_a_segment_on_the_task_side_everybody_goes_back(void **state)
{
	struct world *w = *state;
	struct setback_done done;
	write_flags(w,
		    BOOLEAN("everything",
			    "100") "- {key: mine, name: mine, type: BOOLEAN_FLAG_TYPE, enabled: false, "
				   "rollouts: [{segment: {key: beta, value: true}}, {threshold: {percentage: "
				   "25, value: true}}]}\n"
				   "segments:\n- {key: beta, name: beta, match_type: ALL_MATCH_TYPE, "
				   "constraints: [{type: "
				   "STRING_COMPARISON_TYPE, property: plan, operator: eq, value: beta}]}\n");
	const struct setback s = breach_of(w, "one", 0);
	assert_int_equal(set_back(w, &s, &done), SETBACK_MADE);
	assert_string_equal(done.command, "rollback");
	assert_true(flags_have(w, "value: false}}, {threshold: {percentage: 0"));
}

static void what_someone_has_changed_since_stays(void **state)
{
	struct world *w = *state;
	struct setback_done done;
	CLEANUP(buf_releasep) struct buf before, after;
	const struct setback s = breach_of(w, "one", 0);
	write_flags(w, BOOLEAN("everything", "100") BOOLEAN("mine", "10"));
	read_flags(w, &before);
	assert_int_equal(set_back(w, &s, &done), SETBACK_MOOT);
	read_flags(w, &after);
	assert_true(span_eq(buf_span(&before), buf_span(&after)));
}

static void what_cannot_be_evaluated_is_not_written(void **state)
{
	struct world *w = *state;
	struct setback_done done;
	CLEANUP(buf_releasep) struct buf before, after;
	const struct setback s = breach_of(w, "one", 0);
	write_flags(w, BOOLEAN("everything", "100") BOOLEAN("mine", "25") "- {key: [broken\n");
	read_flags(w, &before);
	assert_true(set_back(w, &s, &done) < 0);
	read_flags(w, &after);
	assert_true(span_eq(buf_span(&before), buf_span(&after)));
}

static void an_operation_that_is_gone_is_nobodys(void **state)
{
	struct world *w = *state;
	struct setback_done done;
	struct setback s = breach_of(w, "one", 0);
	snprintf(s.operation, sizeof(s.operation), "gone");
	assert_int_equal(set_back(w, &s, &done), SETBACK_MOOT);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(the_flag_that_splits_is_set_to_0_and_no_other),
		TEST(of_two_that_split_it_is_the_one_that_fewer_ask),
		TEST(a_flag_of_others_goes_back_for_all_and_the_note_names_them),
		TEST(it_goes_back_to_the_share_that_was_safe),
		TEST(with_a_segment_on_the_task_side_everybody_goes_back),
		TEST(what_someone_has_changed_since_stays),
		TEST(what_cannot_be_evaluated_is_not_written),
		TEST(an_operation_that_is_gone_is_nobodys),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
