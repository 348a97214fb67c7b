/* outcomes/recorder: nothing lost at stop, little at kill -9, and files that fail in every way they can. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/crypto.h"
#include "base/db.h"
#include "base/file.h"
#include "outcomes/outcome_store.h"
#include "outcomes/outcome_metrics.h"
#include "outcomes/recorder.h"
#include "outcomes/series.h"
#include "support/scratch.h"

#define PATIENCE_MS 20000

struct place {
	char folder[SCRATCH_MAX], file[SCRATCH_MAX];
	struct recorder *r;
	struct recorder_producer *p;
};

static int make_place(void **state)
{
	static struct place p;
	memset(&p, 0, sizeof(p));
	scratch_make(p.folder);
	scratch_path(p.folder, "outcomes.db", p.file);
	*state = &p;
	return 0;
}

static int remove_place(void **state)
{
	struct place *p = *state;
	p->r = recorder_stop(p->r);
	scratch_remove(p->folder);
	return 0;
}

static void start(struct place *p, struct recorder_options o)
{
	struct err e = {""};
	o.path = p->file;
	if (recorder_start(&o, &p->r, &e) < 0)
		fail_msg("%s", e.text);
	assert_int_equal(recorder_producer_new(p->r, &p->p), 0);
}

static bool put(struct recorder_producer *p, unsigned n)
{
	struct outcome *o = recorder_reserve(p);
	if (!o)
		return false;
	o->time_us = clock_wall_us();
	o->latency_us = n;
	span_copy(SPAN_LIT("prompt"), o->service, sizeof(o->service));
	span_copy(SPAN_LIT("prompt.answer"), o->operation, sizeof(o->operation));
	span_copy(SPAN_LIT("ada@example.org"), o->user, sizeof(o->user));
	o->answered = true;
	recorder_commit(p);
	return true;
}

/* Waits on the recorder's own word, not for luck. */
static struct recorder_status wait_until(struct place *p, bool failing, uint64_t written)
{
	struct recorder_status s;
	for (int64_t until = clock_mono_ms() + PATIENCE_MS; clock_mono_ms() < until; poll(NULL, 0, 2)) {
		recorder_status(p->r, &s);
		if (s.failing == failing && s.written >= written)
			return s;
	}
	fail_msg("failing %d, written %llu, %s", s.failing, (unsigned long long)s.written, s.last_error);
	return s;
}

static int64_t ask(struct place *p, const char *sql)
{
	CLEANUP(db_closep) struct db *db = NULL;
	struct err e = {""};
	int64_t n = -1;
	if (db_open(&(struct db_options){.path = p->file, .read_only = true, .busy_timeout_ms = 2000}, &db,
		    &e) < 0 ||
	    db_query_int64(db, sql, &n, &e) < 0 || db_integrity_check(db, &e) < 0)
		fail_msg("%s", e.text);
	return n;
}

static void stop_loses_nothing(void **state)
{
	struct place *p = *state;
	start(p, (struct recorder_options){.flush_ms = 60000});
	for (unsigned i = 0; i < 5000; i++)
		assert_true(put(p->p, i));
	p->r = recorder_stop(p->r);
	assert_int_equal(ask(p, "SELECT count(*) FROM outcomes"), 5000);
	assert_int_equal(ask(p, "SELECT sum(count) FROM rollups"), 5000);
	struct stat st;
	assert_int_equal(stat(p->file, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
}

struct feeder {
	struct recorder *r;
	unsigned put;
};

static void *feed(void *arg)
{
	struct feeder *f = arg;
	struct recorder_producer *p;
	if (recorder_producer_new(f->r, &p) < 0)
		return NULL;
	for (unsigned i = 0; i < 20000; i++)
		f->put += put(p, i);
	return NULL;
}

static void what_many_producers_put_is_written_or_counted(void **state)
{
	struct place *p = *state;
	start(p, (struct recorder_options){.flush_ms = 5, .queue_slots = 1024});
	struct feeder f[3] = {{.r = p->r}, {.r = p->r}, {.r = p->r}};
	pthread_t threads[3];
	for (int i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, feed, &f[i]), 0);
	unsigned put_in = 0;
	for (int i = 0; i < 3; i++) {
		pthread_join(threads[i], NULL);
		put_in += f[i].put;
	}
	struct recorder_status s = wait_until(p, false, put_in);
	assert_int_equal(s.written, put_in);
	assert_int_equal(s.dropped, 60000 - put_in);
	p->r = recorder_stop(p->r);
	assert_int_equal(ask(p, "SELECT count(*) FROM outcomes"), put_in);
	assert_int_equal(ask(p, "SELECT coalesce(sum(count), 0) FROM drops"), 60000 - put_in);
}

/* The child writes a byte for each outcome it has put more than the flush interval ago. */
static void record_until_killed(struct place *p, int out)
{
	start(p, (struct recorder_options){.flush_ms = 10});
	for (uint64_t n = 0;; n++) {
		struct recorder_status s;
		put(p->p, (unsigned)n);
		recorder_status(p->r, &s);
		if (write(out, &s.written, sizeof(s.written)) != sizeof(s.written))
			_exit(1);
	}
}

static void kill_minus_nine_keeps_what_was_flushed(void **state)
{
	struct place *p = *state;
	int64_t before = 0;
	for (int round = 0; round < 3; round++) {
		int fds[2];
		assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
		pid_t child = fork();
		if (child == 0)
			record_until_killed(p, fds[1]);
		close(fds[1]);
		uint64_t written = 0, got;
		while (written < 2000 && read(fds[0], &got, sizeof(got)) == sizeof(got))
			written = got;
		kill(child, SIGKILL);
		while (read(fds[0], &got, sizeof(got)) == sizeof(got))
			written = got;
		waitpid(child, NULL, 0);
		close(fds[0]);
		assert_true(written >= 2000);
		int64_t rows = ask(p, "SELECT count(*) FROM outcomes");
		assert_true(rows >= before + (int64_t)written);
		assert_int_equal(ask(p, "SELECT sum(count) FROM rollups"), rows);
		before = rows;
	}
}

static void a_locked_file_is_waited_for(void **state)
{
	struct place *p = *state;
	CLEANUP(db_closep) struct db *other = NULL;
	start(p, (struct recorder_options){.flush_ms = 1, .queue_slots = 64});
	put(p->p, 0);
	wait_until(p, false, 1);
	assert_int_equal(
		db_open(&(struct db_options){.path = p->file, .busy_timeout_ms = 5000}, &other, NULL), 0);
	assert_int_equal(db_exec(other, "BEGIN EXCLUSIVE", NULL), 0);
	unsigned held = 0;
	for (unsigned i = 0; i < 32; i++)
		held += put(p->p, i);
	assert_int_equal(held, 32);
	struct recorder_status s = wait_until(p, true, 1);
	assert_non_null(strstr(s.last_error, "locked"));
	assert_int_equal(s.dropped, 0);
	for (unsigned i = 0; i < 20000; i++)
		/* far more than queue and batch hold: the producer is never stopped */
		held += put(p->p, i);
	recorder_status(p->r, &s);
	assert_int_equal(s.dropped, 20032 - held);
	assert_true(s.dropped > 0);
	db_rollback(other);
	s = wait_until(p, false, held + 1);
	p->r = recorder_stop(p->r);
	assert_int_equal(ask(p, "SELECT count(*) FROM outcomes"), held + 1);
	assert_int_equal(ask(p, "SELECT sum(count) FROM drops"), 20032 - held);
}

static void a_deleted_file_is_made_anew(void **state)
{
	struct place *p = *state;
	start(p, (struct recorder_options){.flush_ms = 1});
	put(p->p, 1);
	wait_until(p, false, 1);
	assert_int_equal(unlink(p->file), 0);
	put(p->p, 2);
	struct recorder_status s = wait_until(p, false, 2);
	assert_non_null(strstr(s.last_error, "deleted or replaced"));
	p->r = recorder_stop(p->r);
	assert_int_equal(ask(p, "SELECT count(*) FROM outcomes"), 1);
	assert_int_equal(ask(p, "SELECT latency_us FROM outcomes"), 2);
}

static void a_folder_in_the_files_place_is_told_and_recovers(void **state)
{
	struct place *p = *state;
	assert_int_equal(mkdir(p->file, 0700), 0);
	start(p, (struct recorder_options){.flush_ms = 1});
	put(p->p, 1);
	struct recorder_status s = wait_until(p, true, 0);
	assert_non_null(strstr(s.last_error, "Is a directory"));
	assert_int_equal(rmdir(p->file), 0);
	wait_until(p, false, 1);
	p->r = recorder_stop(p->r);
	assert_int_equal(ask(p, "SELECT count(*) FROM outcomes"), 1);
}

static void a_corrupt_file_is_left_alone_until_moved(void **state)
{
	struct place *p = *state;
	char text[2048], bad[SCRATCH_MAX];
	memset(text, 'x', sizeof(text));
	assert_int_equal(file_replace(p->file, (struct span){text, sizeof(text)}, 0600, NULL), 0);
	start(p, (struct recorder_options){.flush_ms = 1});
	put(p->p, 1);
	struct recorder_status s = wait_until(p, true, 0);
	assert_non_null(strstr(s.last_error, "not a database"));
	scratch_path(p->folder, "outcomes.db.bad", bad);
	assert_int_equal(rename(p->file, bad), 0);
	wait_until(p, false, 1);
	struct stat st;
	assert_int_equal(stat(bad, &st), 0);
	assert_int_equal(st.st_size, sizeof(text));
}

static void damage_while_running_is_told(void **state)
{
	struct place *p = *state;
	start(p, (struct recorder_options){.flush_ms = 1});
	put(p->p, 1);
	wait_until(p, false, 1);
	p->r = recorder_stop(p->r); /* moves the WAL into the file */
	int fd = open(p->file, O_RDWR | O_CLOEXEC);
	struct stat st;
	char junk[4096];
	memset(junk, 0xee, sizeof(junk));
	assert_int_equal(fstat(fd, &st), 0);
	for (off_t at = sizeof(junk); at < st.st_size; at += (off_t)sizeof(junk))
		assert_int_equal(pwrite(fd, junk, sizeof(junk), at), sizeof(junk));
	close(fd);
	start(p, (struct recorder_options){.flush_ms = 1});
	put(p->p, 2);
	struct recorder_status s = wait_until(p, true, 0);
	assert_non_null(strstr(s.last_error, "malformed"));
	assert_int_equal(unlink(p->file), 0);
	wait_until(p, false, 1);
}

/* A small file system of our own; false, with the reason printed, where that is not allowed. */
static bool mount_small(struct place *p, const char *options, unsigned long flags)
{
	if (mount("tmpfs", p->folder, "tmpfs", flags, options) == 0)
		return true;
	print_message("not run: mounting a tmpfs: %s\n", strerror(errno));
	return false;
}

static void a_full_disk_is_told_and_recovers(void **state)
{
	struct place *p = *state;
	if (!mount_small(p, "size=1m", 0))
		skip();
	start(p, (struct recorder_options){.flush_ms = 1});
	unsigned held = 0;
	struct recorder_status s;
	do { /* until it does not fit any more */
		held += put(p->p, held);
		recorder_status(p->r, &s);
	} while (!s.failing);
	assert_non_null(strstr(s.last_error, "full"));
	for (unsigned i = 0; i < 1000; i++)
		held += put(p->p, i);
	assert_int_equal(mount("tmpfs", p->folder, "tmpfs", MS_REMOUNT, "size=64m"), 0);
	wait_until(p, false, held);
	p->r = recorder_stop(p->r);
	assert_int_equal(ask(p, "SELECT count(*) FROM outcomes"), held);
	assert_int_equal(ask(p, "SELECT sum(count) FROM rollups"), held);
	assert_int_equal(umount(p->folder), 0);
}

static void a_read_only_folder_is_told_and_recovers(void **state)
{
	struct place *p = *state;
	if (!mount_small(p, "size=4m", MS_RDONLY))
		skip();
	start(p, (struct recorder_options){.flush_ms = 1});
	put(p->p, 1);
	struct recorder_status s = wait_until(p, true, 0);
	assert_non_null(strstr(s.last_error, "Read-only file system"));
	assert_int_equal(mount("tmpfs", p->folder, "tmpfs", MS_REMOUNT, "size=4m"), 0);
	wait_until(p, false, 1);
	p->r = recorder_stop(p->r);
	assert_int_equal(ask(p, "SELECT count(*) FROM outcomes"), 1);
	assert_int_equal(umount(p->folder), 0);
}

static void stopping_with_a_locked_file_ends_and_counts(void **state)
{
	struct place *p = *state;
	CLEANUP(db_closep) struct db *other = NULL;
	start(p, (struct recorder_options){.flush_ms = 1});
	put(p->p, 0);
	wait_until(p, false, 1);
	assert_int_equal(
		db_open(&(struct db_options){.path = p->file, .busy_timeout_ms = 5000}, &other, NULL), 0);
	assert_int_equal(db_exec(other, "BEGIN EXCLUSIVE", NULL), 0);
	put(p->p, 1);
	int64_t begun = clock_mono_ms();
	p->r = recorder_stop(p->r);
	assert_true(clock_mono_ms() - begun < PATIENCE_MS);
	db_rollback(other);
	assert_int_equal(ask(p, "SELECT count(*) FROM outcomes"), 1);
}

static void what_goes_by_age_takes_its_client_with_it(void **state)
{
	struct place *p = *state;
	start(p, (struct recorder_options){.flush_ms = 1, .retention_days = 1});
	for (int i = 0; i < 3; i++) {
		struct outcome *o = recorder_reserve(p->p);
		span_copy(SPAN_LIT("192.0.2.7"), o->client, sizeof(o->client));
		recorder_commit(p->p);
	}
	wait_until(p, false, 3);
	p->r = recorder_stop(p->r);
	assert_int_equal(ask(p, "SELECT count(*) FROM clients WHERE client = '192.0.2.7'"), 3);
	struct outcome_store *s;
	struct series_table *t;
	assert_int_equal(series_table_new(&t), 0);
	assert_int_equal(outcome_store_open(p->file, t, &s, NULL), 0);
	int64_t far = clock_wall_us() + INT64_C(10) * 86400 * 1000000;
	struct outcome_limits all = {.rows_before_us = far, .rollups_before_us = far, .now_us = far};
	while (outcome_store_retain(s, &all, NULL) == 1)
		continue;
	outcome_store_close(s);
	series_table_free(t);
	assert_int_equal(ask(p, "SELECT count(*) FROM outcomes"), 0);
	assert_int_equal(ask(p, "SELECT count(*) FROM clients"), 0);
}

static void users_are_hashed_with_a_key_that_stays(void **state)
{
	struct place *p = *state;
	char key_path[SCRATCH_MAX], expected[CRYPTO_SHA256_HEX], sql[256];
	struct stat st;
	for (int round = 0; round < 2; round++) {
		start(p, (struct recorder_options){.hash_users = true});
		put(p->p, 1);
		p->r = recorder_stop(p->r);
	}
	scratch_path(p->folder, "outcomes.db-userkey", key_path);
	assert_int_equal(stat(key_path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	CLEANUP(buf_releasep) struct buf key = BUF_INIT(1 << 17);
	assert_int_equal(file_read(key_path, 1000, &key, NULL), 0);
	assert_int_equal(key.len, 65);
	crypto_hmac_sha256_hex((struct span){key.ptr, 64}, SPAN_LIT("ada@example.org"), expected);
	snprintf(sql, sizeof(sql), "SELECT count(*) FROM outcomes WHERE user = '%s'", expected);
	assert_int_equal(ask(p, sql), 2);
}

/* What is asked at a reload: a field that is not compared would be accepted and silently ignored. */
static void options_with_any_field_changed_are_others(void **state)
{
	const struct recorder_options a = {.path = "o.db"};
	struct recorder_options all[] = {a, a, a, a, a, a, a, a};
	char path[] = "o.db";
	(void)state;
	all[0].path = path; /* the same text elsewhere, as after a reload */
	all[1].path = "p.db";
	all[2].flush_ms = 1;
	all[3].queue_slots = 1;
	all[4].retention_days = 1;
	all[5].retention_rollup_days = 1;
	all[6].max_bytes = 1;
	all[7].hash_users = true;
	for (size_t i = 0; i < 8; i++)
		assert_int_equal(recorder_options_same(&a, &all[i]), i == 0);
	/* no field but these, the tap and padding before it */
	assert_true(sizeof(a) - sizeof(a.path) - 4 * sizeof(unsigned) - sizeof(uint64_t) - sizeof(bool) -
			    sizeof(a.taps) <
		    8);
}

static void put_odd_one(struct place *p)
{
	struct outcome *o = recorder_reserve(p->p);
	span_copy(SPAN_LIT("a\"b\\c"), o->service, sizeof(o->service));
	span_copy(SPAN_LIT("x"), o->operation, sizeof(o->operation));
	span_copy(SPAN_LIT("celery"), o->backend, sizeof(o->backend));
	o->side = OUTCOME_TASK;
	o->role = OUTCOME_SHADOW;
	o->result = OUTCOME_REJECTED;
	recorder_commit(p->p);
}

static void check_lines(const struct buf *b, const char *const *lines, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!strstr(b->ptr, lines[i]))
			fail_msg("missing: %s in\n%s", lines[i], b->ptr);
}

static void prometheus_text_counts_since_the_start(void **state)
{
	struct place *p = *state;
	CLEANUP(buf_releasep) struct buf b = BUF_INIT(1 << 20);
	struct metric_text text = {.out = &b};
	start(p, (struct recorder_options){.flush_ms = 1});
	for (unsigned i = 0; i < 10; i++)
		assert_true(put(p->p, 3000 * i));
	put_odd_one(p);
	wait_until(p, false, 11);
	assert_int_equal(outcome_metrics_render(p->r, NULL, 0, &text), 0);
	static const char *const lines[] = {
		("\nmigration_executions_total{service=\"prompt\",operation=\"prompt.answer\","
		 "side=\"legacy\"} 10\n"),
		"\nmigration_executions_total{service=\"a\\\"b\\\\c\",operation=\"x\",side=\"task\"} 0\n",
		"side=\"task\",backend=\"celery\",role=\"shadow\",result=\"rejected\"} 1\n",
		("\nmigration_decisions_total{service=\"prompt\",operation=\"prompt.answer\","
		 "reason=\"flag\"} 10\n"),
		"side=\"legacy\",role=\"primary\",le=\"0.0001\"} 1\n",
		"side=\"legacy\",role=\"primary\",le=\"0.01\"} 4\n",
		"side=\"legacy\",role=\"primary\",le=\"3600.0\"} 10\n",
		"side=\"legacy\",role=\"primary\",le=\"+Inf\"} 10\n",
		"side=\"legacy\",role=\"primary\"} 0.135\n",
		"\nmigration_outcomes_written_total 11\n",
		"\nmigration_outcomes_dropped_total 0\n",
		"\nmigration_outcomes_failing 0\n",
		"\nmigration_outcomes_queue_slots 16384\n",
	};
	check_lines(&b, lines, sizeof(lines) / sizeof(lines[0]));
}

/* Prometheus sees no increase in a series that begins with its first error. */
static void what_an_operation_can_have_is_there_with_0(void **state)
{
	struct place *p = *state;
	CLEANUP(buf_releasep) struct buf b = BUF_INIT(1 << 20);
	struct metric_text text = {.out = &b};
	start(p, (struct recorder_options){.flush_ms = 1});
	const struct outcome_metrics_operation expected[] = {
		{.service = "prompt",
		 .operation = "answer",
		 .has_task = true,
		 .has_pins = true,
		 .backends = {"celery", "temporal"},
		 .n_backends = 2},
		{.service = "prompt", .operation = "plain"},
		{.service = "prompt", .operation = "(unmapped)", .unmapped = true},
	};
	assert_int_equal(outcome_metrics_render(p->r, expected, 3, &text), 0);
#define ANSWER "{service=\"prompt\",operation=\"answer\","
	static const char *const lines[] = {
		"\nmigration_executions_total" ANSWER "side=\"task\"} 0\n",
		"\nmigration_attempts_total" ANSWER
		"side=\"task\",backend=\"temporal\",role=\"primary\",result=\"unknown\"} 0\n",
		"\nmigration_attempts_total" ANSWER
		"side=\"legacy\",backend=\"\",role=\"fallback\",result=\"failure\"} 0\n",
		"\nmigration_decisions_total" ANSWER "reason=\"guard\"} 0\n",
		"\nmigration_pinned_requests_total" ANSWER "side=\"task\"} 0\n",
		"\nmigration_attempt_duration_seconds_count" ANSWER "side=\"task\",role=\"primary\"} 0\n",
		"operation=\"plain\",reason=\"no_task\"} 0\n",
		"operation=\"(unmapped)\",reason=\"unmapped\"} 0\n",
	};
	check_lines(&b, lines, sizeof(lines) / sizeof(lines[0]));
	assert_null(strstr(b.ptr, "operation=\"plain\",side=\"task\""));
	assert_null(strstr(b.ptr, "operation=\"plain\",reason=\"guard\""));
	assert_null(strstr(b.ptr, "role=\"shadow\""));
}

/* Whatever is configured: a scrape stays one. */
static void the_text_is_bounded_with_thousands_of_operations(void **state)
{
	struct place *p = *state;
	static char names[4096][16];
	static struct outcome_metrics_operation expected[4096];
	CLEANUP(buf_releasep) struct buf b = BUF_INIT(64 << 20);
	struct metric_text text = {.out = &b};
	start(p, (struct recorder_options){.flush_ms = 1});
	for (unsigned i = 0; i < 4096; i++) {
		snprintf(names[i], sizeof(names[i]), "op-%u", i);
		expected[i] =
			(struct outcome_metrics_operation){.service = "prompt",
							   .operation = names[i],
							   .has_task = true,
							   .has_pins = true,
							   .may_shadow = true,
							   .backends = {"celery", "temporal", "hatchet"},
							   .n_backends = 3};
	}
	assert_int_equal(outcome_metrics_render(p->r, expected, 4096, &text), 0);
	assert_int_equal(b.error, 0);
	assert_non_null(strstr(b.ptr, "operation=\"op-511\""));
	assert_null(strstr(b.ptr, "operation=\"op-512\""));
	print_message("512 operations: %zu bytes\n", b.len);
	assert_true(b.len < 24 << 20);
}

static void totals_are_by_operation_and_side(void **state)
{
	struct place *p = *state;
	start(p, (struct recorder_options){.flush_ms = 1});
	CLEANUP(freep) struct outcome_totals *none = outcome_totals_now(p->r);
	assert_null(outcome_totals_find(none, "prompt", "prompt.answer"));
	for (unsigned i = 0; i < 10; i++)
		assert_true(put(p->p, i));
	put_odd_one(p); /* answers nobody */
	wait_until(p, false, 11);
	CLEANUP(freep) struct outcome_totals *t = outcome_totals_now(p->r);
	const struct outcome_total *of = outcome_totals_find(t, "prompt", "prompt.answer");
	assert_non_null(of);
	assert_int_equal(of->answered[OUTCOME_LEGACY], 10);
	assert_int_equal(of->answered[OUTCOME_TASK], 0);
	assert_null(outcome_totals_find(t, "a\"b\\c", "x"));
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, make_place, remove_place)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(stop_loses_nothing),
		CASE(what_many_producers_put_is_written_or_counted),
		CASE(kill_minus_nine_keeps_what_was_flushed),
		CASE(a_locked_file_is_waited_for),
		CASE(a_deleted_file_is_made_anew),
		CASE(a_folder_in_the_files_place_is_told_and_recovers),
		CASE(a_corrupt_file_is_left_alone_until_moved),
		CASE(damage_while_running_is_told),
		CASE(a_full_disk_is_told_and_recovers),
		CASE(a_read_only_folder_is_told_and_recovers),
		CASE(stopping_with_a_locked_file_ends_and_counts),
		CASE(what_goes_by_age_takes_its_client_with_it),
		CASE(users_are_hashed_with_a_key_that_stays),
		CASE(options_with_any_field_changed_are_others),
		CASE(prometheus_text_counts_since_the_start),
		CASE(what_an_operation_can_have_is_there_with_0),
		CASE(the_text_is_bounded_with_thousands_of_operations),
		CASE(totals_are_by_operation_and_side),
	};
	if (crypto_setup() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
