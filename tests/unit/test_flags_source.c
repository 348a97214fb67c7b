/* The features file being watched: a real folder, a real loop, and waiting for events. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/crypto.h"
#include "base/file.h"
#include "flags/source/features_source.h"
#include "support/scratch.h"

#define PATIENCE_MS 20000 /* only a test that fails waits that long */

#define ON "flags:\n- key: f\n  type: BOOLEAN_FLAG_TYPE\n  enabled: true\n"
#define OFF "flags:\n- key: f\n  type: BOOLEAN_FLAG_TYPE\n  enabled: false\n"
#define BROKEN "flags:\n- key: f\n  type: BOOLEAN_FLAG_TYPE\n  enabled: {perhaps\n"

/* Two flags; what is in use is "f", behind another. */
#define G "- key: g\n  type: BOOLEAN_FLAG_TYPE\n  enabled: "
#define TWO(g, f) "flags:\n" G g "\n- key: f\n  type: BOOLEAN_FLAG_TYPE\n  enabled: " f "\n"

struct watcher {
	char folder[SCRATCH_MAX], path[SCRATCH_MAX], saved[SCRATCH_MAX];
	struct loop *loop;
	struct loop_timer *patience;
	struct features_source *source;
	int published, failed, stop_at_published, stop_at_failed;
	bool on, g_on, f_there, gave_up;
	char why[512];
};

static void on_publish(void *arg, const struct flag_snapshot *s)
{
	struct watcher *w = arg;
	const struct flag *f = flag_find(s, SPAN_LIT("f")), *g = flag_find(s, SPAN_LIT("g"));
	w->f_there = f != NULL;
	w->on = f && flag_enabled(f);
	w->g_on = g && flag_enabled(g);
	if (++w->published == w->stop_at_published)
		loop_stop(w->loop);
}

static void on_failed(void *arg, const char *why)
{
	struct watcher *w = arg;
	span_copy(span_of(why), w->why, sizeof(w->why));
	if (++w->failed == w->stop_at_failed)
		loop_stop(w->loop);
}

static void on_patience(void *arg)
{
	struct watcher *w = arg;
	w->gave_up = true;
	loop_stop(w->loop);
}

static void put(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");
	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

static void setup(struct watcher *w)
{
	memset(w, 0, sizeof(*w));
	scratch_make(w->folder);
	scratch_path(w->folder, "flags.yml", w->path);
	scratch_path(w->folder, "saved.json", w->saved);
	assert_int_equal(loop_new(&w->loop), 0);
	assert_int_equal(loop_timer_new(w->loop, on_patience, w, &w->patience), 0);
}

static const struct span used[] = {SPAN_INIT("f")};

static void start(struct watcher *w, const char *path)
{
	struct flag_source_events events = {on_publish, on_failed, w};
	struct flag_source_options o = {.file = path, .rules = FLAG_RULES_V2, .snapshot_file = w->saved};
	struct err e;
	if (features_source_start(w->loop, &o, used, 1, &events, &w->source, &e) < 0)
		fail_msg("%s", e.text);
}

/* Another process on the same data. */
static void restart(struct watcher *w, const char *path)
{
	features_source_stop(w->source);
	w->source = NULL;
	w->published = w->failed = 0;
	w->on = w->g_on = w->f_there = false;
	start(w, path);
}

static void assert_vanished(const struct watcher *w, size_t n)
{
	struct flag_source_status st;
	features_source_status(w->source, &st);
	assert_int_equal(st.carried.n, n);
	if (n)
		assert_string_equal(st.carried.names[0], "f");
}

static void teardown(struct watcher *w)
{
	features_source_stop(w->source);
	loop_timer_free(w->patience);
	loop_free(w->loop);
	scratch_remove(w->folder);
}

static void await(struct watcher *w)
{
	loop_timer_start(w->patience, PATIENCE_MS);
	loop_run(w->loop);
	loop_timer_stop(w->patience);
	assert_false(w->gave_up);
}

static void await_published(struct watcher *w, bool on)
{
	w->stop_at_published = w->published + 1;
	await(w);
	assert_int_equal(w->on, on);
}

static void await_failed(struct watcher *w, const char *part)
{
	w->stop_at_failed = w->failed + 1;
	await(w);
	assert_non_null(strstr(w->why, part));
}

static void written_in_place_and_renamed_over(void **state)
{
	struct watcher w;
	(void)state;
	setup(&w);
	put(w.path, OFF);
	start(&w, w.path);
	assert_int_equal(w.published, 1);
	assert_false(w.on);

	put(w.path, ON);
	await_published(&w, true);

	assert_int_equal(file_replace(w.path, SPAN_LIT(OFF), 0600, NULL), 0);
	await_published(&w, false);
	teardown(&w);
}

static void broken_keeps_the_last_good_and_says_why(void **state)
{
	struct watcher w;
	struct flag_source_status st;
	(void)state;
	setup(&w);
	put(w.path, ON);
	start(&w, w.path);
	features_source_status(w.source, &st);
	assert_false(st.failing);
	assert_string_equal(st.kind, "file");
	assert_string_equal(st.where, w.path);
	assert_true(st.good_us > 0);
	char digest[80];
	strcpy(digest, st.digest);
	assert_int_equal(strlen(digest), 64);

	put(w.path, BROKEN);
	await_failed(&w, "flags.yml:");
	features_source_status(w.source, &st);
	assert_true(st.failing);
	assert_string_equal(st.digest, digest);
	assert_int_equal(w.published, 1);

	put(w.path, OFF);
	await_published(&w, false);
	features_source_status(w.source, &st);
	assert_false(st.failing);
	assert_string_equal(st.last_error, "");
	assert_int_equal(w.published, 2);
	teardown(&w);
}

static void half_written_file_is_no_new_state_until_closed(void **state)
{
	struct watcher w;
	(void)state;
	setup(&w);
	put(w.path, ON);
	start(&w, w.path);
	FILE *f = fopen(w.path, "w");
	assert_non_null(f);
	fputs("flags:\n- key: f\n  type: BOOL", f);
	fflush(f);
	features_source_reload(w.source); /* what the poll would see */
	fputs("EAN_FLAG_TYPE\n  enabled: false\n", f);
	fclose(f);
	await_published(&w, false);
	assert_int_equal(w.failed, 0);
	teardown(&w);
}

/* Valid as it stands, and longer quiet than any change must be: still the writer's time is waited for. */
static void cut_behind_an_earlier_flag_while_being_written_moves_nobody(void **state)
{
	struct watcher w;
	(void)state;
	setup(&w);
	put(w.path, TWO("false", "false"));
	start(&w, w.path);
	FILE *f = fopen(w.path, "w");
	assert_non_null(f);
	fputs("flags:\n" G "true\n", f);
	fflush(f);
	features_source_reload(w.source);
	w.gave_up = false;
	loop_timer_start(w.patience, FEATURES_QUIET_MS * 6);
	loop_run(w.loop);
	assert_true(w.gave_up);
	assert_int_equal(w.published, 1);
	assert_vanished(&w, 0);
	fputs("- key: f\n  type: BOOLEAN_FLAG_TYPE\n  enabled: true\n", f);
	fclose(f);
	w.gave_up = false;
	await_published(&w, true);
	assert_true(w.g_on);
	assert_vanished(&w, 0);
	teardown(&w);
}

/* Whatever makes the flag vanish: its last good definition stays, the rest takes effect, and the status
 * names it. */
static void flag_in_use_that_vanishes_is_carried_over(void **state)
{
	static const struct {
		const char *text;
		bool g_on;
	} cases[] = {
		{"flags: []\n", false},
		/* cut behind an earlier flag */
		{"flags:\n" G "true\n", true},
		/* misspelt */
		{"flags:\n" G "true\n- key: ff\n  type: BOOLEAN_FLAG_TYPE\n  enabled: true\n", true},
		{"flags:\n" G "true\n- key: F\n  type: BOOLEAN_FLAG_TYPE\n  enabled: true\n", true},
		{"flags: []", false},
	};
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct watcher w;
		setup(&w);
		put(w.path, TWO("false", "true"));
		start(&w, w.path);
		put(w.path, cases[i].text);
		await_published(&w, true);
		assert_int_equal(w.g_on, cases[i].g_on);
		assert_vanished(&w, 1);

		/* A restart changes nothing of it, also where the file is gone meanwhile. */
		restart(&w, w.path);
		assert_int_equal(w.published, 1);
		assert_true(w.on);
		assert_int_equal(w.g_on, cases[i].g_on);
		assert_vanished(&w, 1);
		assert_int_equal(unlink(w.path), 0);
		restart(&w, w.path);
		assert_int_equal(w.published, 1);
		assert_int_equal(w.failed, 1);
		assert_true(w.on);

		put(w.path, TWO("false", "false")); /* back */
		await_published(&w, false);
		assert_vanished(&w, 0);
		teardown(&w);
	}
}

/* Nobody uses it any more: it may go. */
static void flag_that_no_operation_uses_any_more_goes(void **state)
{
	struct watcher w;
	(void)state;
	setup(&w);
	put(w.path, TWO("true", "true"));
	start(&w, w.path);
	put(w.path, "flags: []\n");
	await_published(&w, true);
	assert_int_equal(features_source_use(w.source, NULL, 0), 0);
	assert_vanished(&w, 0);
	features_source_reload(w.source);
	await_published(&w, false);
	assert_false(w.f_there);
	teardown(&w);
}

static void deleted_and_made_again(void **state)
{
	struct watcher w;
	(void)state;
	setup(&w);
	put(w.path, ON);
	start(&w, w.path);
	assert_int_equal(unlink(w.path), 0);
	await_failed(&w, "No such file");
	put(w.path, OFF);
	await_published(&w, false);
	teardown(&w);
}

static void missing_at_the_start(void **state)
{
	struct watcher w;
	struct flag_source_status st;
	(void)state;
	setup(&w);
	start(&w, w.path);
	assert_int_equal(w.published, 0);
	assert_int_equal(w.failed, 1);
	features_source_status(w.source, &st);
	assert_true(st.failing);
	assert_int_equal(st.good_us, 0);
	put(w.path, ON);
	await_published(&w, true);
	teardown(&w);
}

/* As Kubernetes mounts a ConfigMap: flags.yml → ..data/flags.yml, ..data → a dated folder; an update renames
 * a new ..data over the old one and touches nothing else. */
static void symbolic_links_swapped(void **state)
{
	struct watcher w;
	char name[SCRATCH_MAX + 32], link[SCRATCH_MAX], next[SCRATCH_MAX];
	(void)state;
	setup(&w);
	for (int i = 1; i <= 2; i++) {
		snprintf(name, sizeof(name), "%s/..%d", w.folder, i);
		assert_int_equal(mkdir(name, 0700), 0);
		snprintf(name, sizeof(name), "%s/..%d/flags.yml", w.folder, i);
		put(name, i == 1 ? OFF : ON);
	}
	scratch_path(w.folder, "..data", link);
	scratch_path(w.folder, "..data_next", next);
	assert_int_equal(symlink("..1", link), 0);
	assert_int_equal(symlink("..data/flags.yml", w.path), 0);
	start(&w, w.path);
	assert_int_equal(w.published, 1);
	assert_false(w.on);
	assert_int_equal(symlink("..2", next), 0);
	assert_int_equal(rename(next, link), 0);
	await_published(&w, true);

	/* The file itself replaced by a link. */
	assert_int_equal(unlink(w.path), 0);
	assert_int_equal(symlink("..1/flags.yml", w.path), 0);
	await_published(&w, false);
	teardown(&w);
}

/* No event comes from a folder that did not exist: the poll finds it. */
static void folder_made_later_and_replaced(void **state)
{
	struct watcher w;
	char folder[SCRATCH_MAX], path[SCRATCH_MAX], old[SCRATCH_MAX];
	(void)state;
	setup(&w);
	scratch_path(w.folder, "conf", folder);
	scratch_path(w.folder, "old", old);
	scratch_path(folder, "flags.yml", path);
	start(&w, path);
	assert_int_equal(w.failed, 1);
	assert_int_equal(mkdir(folder, 0700), 0);
	put(path, ON);
	await_published(&w, true);

	assert_int_equal(rename(folder, old), 0);
	assert_int_equal(mkdir(folder, 0700), 0);
	put(path, OFF);
	await_published(&w, false);
	teardown(&w);
}

static void refused_paths(void **state)
{
	struct watcher w;
	struct flag_source_events events = {on_publish, on_failed, &w};
	struct flag_source_options o = {.file = ""};
	struct err e;
	(void)state;
	setup(&w);
	assert_int_equal(features_source_start(w.loop, &o, NULL, 0, &events, &w.source, &e), -EINVAL);
	assert_null(w.source);
	assert_null(features_source_stop(NULL));
	teardown(&w);
}

#define OTHER(field, value) differs(offsetof(struct flag_source_options, field), sizeof(o.field), &(value))

static const struct flag_source_options o = {.rules = FLAG_RULES_V2,
					     .file = "f",
					     .url = "u",
					     .namespace_key = "n",
					     .environment = "e",
					     .ca_file = "c",
					     .snapshot_file = "s",
					     .token = "t"};

static size_t differs(size_t offset, size_t size, const void *value)
{
	struct flag_source_options b = o;
	assert_true(flag_source_same(&o, &b));
	memcpy((char *)&b + offset, value, size);
	assert_false(flag_source_same(&o, &b));
	return size;
}

/* What is asked at a reload: a field that is not compared would be accepted and silently ignored. */
static void a_source_with_any_field_changed_is_another(void **state)
{
	static const char *const text = "other", *const none = NULL;
	const enum flag_source_kind kind = FLAG_SOURCE_FLIPT;
	const enum flag_rules rules = FLAG_RULES_V1;
	const enum flipt_auth auth = FLIPT_JWT;
	const bool yes = true;
	const unsigned one = 1;
	(void)state;
	size_t seen = OTHER(kind, kind) + OTHER(file, text) + OTHER(url, text) + OTHER(namespace_key, text) +
		      OTHER(environment, text) + OTHER(ca_file, none) + OTHER(snapshot_file, text) +
		      OTHER(rules, rules) + OTHER(rules_given, yes) + OTHER(auth, auth) + OTHER(token, none) +
		      OTHER(token_file, text) + OTHER(poll_ms, one) + OTHER(timeout_ms, one) +
		      OTHER(stream_idle_ms, one) + OTHER(stream, yes);
	/* no field but these; up to 8 bytes of padding twice */
	assert_true(sizeof(o) - seen < 16);
	/* the same text elsewhere, as after a reload; and a token that its file brought anew */
	char file[] = "f";
	struct flag_source_options a = o, b = o;
	b.file = file;
	assert_true(flag_source_same(&a, &b));
	a.token_file = b.token_file = "t.txt";
	b.token = "new";
	assert_true(flag_source_same(&a, &b));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(written_in_place_and_renamed_over),
		cmocka_unit_test(broken_keeps_the_last_good_and_says_why),
		cmocka_unit_test(half_written_file_is_no_new_state_until_closed),
		cmocka_unit_test(cut_behind_an_earlier_flag_while_being_written_moves_nobody),
		cmocka_unit_test(flag_in_use_that_vanishes_is_carried_over),
		cmocka_unit_test(flag_that_no_operation_uses_any_more_goes),
		cmocka_unit_test(deleted_and_made_again),
		cmocka_unit_test(missing_at_the_start),
		cmocka_unit_test(symbolic_links_swapped),
		cmocka_unit_test(folder_made_later_and_replaced),
		cmocka_unit_test(refused_paths),
		cmocka_unit_test(a_source_with_any_field_changed_is_another),
	};
	return crypto_setup() < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
