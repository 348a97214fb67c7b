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
#include "flags/features_source.h"
#include "support/scratch.h"

#define PATIENCE_MS 20000 /* only a test that fails waits that long */

#define ON "flags:\n- key: f\n  type: BOOLEAN_FLAG_TYPE\n  enabled: true\n"
#define OFF "flags:\n- key: f\n  type: BOOLEAN_FLAG_TYPE\n  enabled: false\n"
#define BROKEN "flags:\n- key: f\n  type: BOOLEAN_FLAG_TYPE\n  enabled: perhaps\n"

struct watcher {
	char folder[SCRATCH_MAX], path[SCRATCH_MAX];
	struct loop *loop;
	struct loop_timer *patience;
	struct features_source *source;
	int published, failed, stop_at_published, stop_at_failed;
	bool on, gave_up;
	char why[512];
};

static void on_publish(void *arg, const struct flag_snapshot *s)
{
	struct watcher *w = arg;
	w->on = flag_enabled(flag_find(s, SPAN_LIT("f")));
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
	assert_int_equal(loop_new(&w->loop), 0);
	assert_int_equal(loop_timer_new(w->loop, on_patience, w, &w->patience), 0);
}

static void start(struct watcher *w, const char *path)
{
	struct flag_source_events events = {on_publish, on_failed, w};
	struct err e;
	if (features_source_start(w->loop, path, FLAG_RULES_V2, &events, &w->source, &e) < 0)
		fail_msg("%s", e.text);
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
	await_failed(&w, "flags.yml:4: flag \"f\": enabled: must be true or false");
	features_source_status(w.source, &st);
	assert_true(st.failing);
	assert_string_equal(st.digest, digest);
	assert_non_null(strstr(st.last_error, ":4:"));
	assert_int_equal(w.published, 1);

	/* The same content as the last good: fine again, but nothing new to publish. Shown by what comes next. */
	put(w.path, ON);
	features_source_reload(w.source);
	features_source_status(w.source, &st);
	assert_false(st.failing);
	assert_string_equal(st.last_error, "");
	assert_int_equal(w.published, 1);
	put(w.path, OFF);
	await_published(&w, false);
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
	assert_int_equal(w.failed, 1);
	assert_non_null(strstr(w.why, "type"));
	fputs("EAN_FLAG_TYPE\n  enabled: false\n", f);
	fclose(f);
	await_published(&w, false);
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

/* As Kubernetes mounts a ConfigMap: flags.yml → ..data/flags.yml, ..data → a dated folder; an update renames a new ..data
 * over the old one and touches nothing else. */
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
	struct err e;
	(void)state;
	setup(&w);
	assert_int_equal(features_source_start(w.loop, "", FLAG_RULES_V2, &events, &w.source, &e), -EINVAL);
	assert_null(w.source);
	assert_null(features_source_stop(NULL));
	teardown(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(written_in_place_and_renamed_over),
		cmocka_unit_test(broken_keeps_the_last_good_and_says_why),
		cmocka_unit_test(half_written_file_is_no_new_state_until_closed),
		cmocka_unit_test(deleted_and_made_again),
		cmocka_unit_test(missing_at_the_start),
		cmocka_unit_test(symbolic_links_swapped),
		cmocka_unit_test(folder_made_later_and_replaced),
		cmocka_unit_test(refused_paths),
	};
	return crypto_setup() < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
