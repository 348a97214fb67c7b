/* ledger: claims of idempotency keys: one of all who race gets it, and what was told is on disk. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/db.h"
#include "ledger/claims.h"
#include "ledger/ledger.h"
#include "support/redis_server.h"
#include "support/scratch.h"

#define HOUR_US (3600 * 1000000LL)

static char folder[SCRATCH_MAX], path[SCRATCH_MAX];
static struct loop *loop;
static struct claims *claims;
static struct ledger_options options;
static struct redis_server server;

static void begin(void)
{
	struct err e;
	assert_int_equal(claims_start(&options, &claims, &e), 0);
}

static void end(void)
{
	claims = claims_stop(claims);
}

static int setup(void **state)
{
	(void)state;
	scratch_make(folder);
	scratch_path(folder, "ledger.db", path);
	options = (struct ledger_options){.file = path};
	return loop_new(&loop);
}

/* The same claims in a Redis. */
static int setup_shared(void **state)
{
	if (setup(state) != 0)
		return -1;
	if (!redis_server_start(&server, NULL))
		return 0; /* begin_shared() skips */
	options = (struct ledger_options){.redis = server.url, .prefix = "test:", .timeout_ms = 500};
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	claims_stop(claims);
	claims = NULL;
	loop = loop_free(loop);
	scratch_remove(folder);
	return 0;
}

static int teardown_shared(void **state)
{
	int r = teardown(state);
	if (options.redis)
		redis_server_stop(&server);
	return r;
}

static struct claim claim_of(const char *key, const char *token)
{
	struct claim c = {.keep_us = HOUR_US};
	snprintf(c.key, sizeof(c.key), "%s", key);
	snprintf(c.token, sizeof(c.token), "%s", token);
	snprintf(c.scope, sizeof(c.scope), "scope");
	snprintf(c.fingerprint, sizeof(c.fingerprint), "print");
	snprintf(c.backend, sizeof(c.backend), "embedded");
	snprintf(c.task_id, sizeof(c.task_id), "task-%s", key);
	return c;
}

static bool is_told;
static struct claim_told told;
static char told_body[256], told_fields[256];

static void on_told(void *arg, const struct claim_told *t)
{
	(void)arg;
	told = *t;
	span_copy(t->body, told_body, sizeof(told_body));
	span_copy(t->fields, told_fields, sizeof(told_fields));
	is_told = true;
}

static void wait_told(void)
{
	for (is_told = false; !is_told;)
		loop_run_once(loop);
}

static enum claim_answer take(const struct claim *c)
{
	claims_take(claims, loop, c, 100, on_told, NULL);
	wait_told();
	return told.answer;
}

static enum claim_answer move(const char *owner, const struct claim *to)
{
	char token[CRYPTO_ID_HEX] = "";
	memcpy(token, owner, strlen(owner) + 1);
	claims_move(claims, loop, token, to, on_told, NULL);
	wait_told();
	return told.answer;
}

static void run_sql(const char *sql)
{
	struct db_options o = {.path = path, .busy_timeout_ms = 5000};
	struct db *db;
	struct err e;
	if (db_open(&o, &db, &e) != 0 || db_exec(db, sql, &e) != 0)
		fail_msg("%s", e.text);
	db_close(db);
}

static int64_t query(const char *sql)
{
	if (options.redis)
		return -1;
	struct db_options o = {.path = path, .busy_timeout_ms = 5000};
	struct db *db;
	struct err e;
	int64_t n = -1;
	if (db_open(&o, &db, &e) != 0 || db_query_int64(db, sql, &n, &e) != 0)
		fail_msg("%s", e.text);
	db_close(db);
	return n;
}

/* --- one claim ------------------------------------------------------------------------------------------ */

static void the_first_has_it_and_others_are_told_of_it(void **state)
{
	(void)state;
	struct claim a = claim_of("k", "a"), b = claim_of("k", "b");
	begin();
	assert_int_equal(take(&a), CLAIM_MINE);
	assert_int_equal(take(&b), CLAIM_THERE);
	assert_string_equal(told.claim.token, "a");
	assert_int_equal(told.claim.phase, CLAIM_BEGUN);
	claims_look(claims, loop, &b, on_told, NULL);
	wait_told();
	assert_int_equal(told.answer, CLAIM_THERE);
	b = claim_of("other", "b");
	claims_look(claims, loop, &b, on_told, NULL);
	wait_told();
	assert_int_equal(told.answer, CLAIM_NONE);
	snprintf(a.task_id, sizeof(a.task_id), "of-the-backend");
	claims_note(claims, &a);
	claims_answer(claims, &a, true, 201, (struct span){"A\0b\0", 4}, SPAN_LIT("body"));
	b = claim_of("k", "b");
	assert_int_equal(take(&b), CLAIM_THERE);
	assert_int_equal(told.claim.phase, CLAIM_ENDED);
	assert_int_equal(told.claim.status, 201);
	assert_string_equal(told.claim.task_id, "of-the-backend");
	assert_string_equal(told_body, "body");
	assert_string_equal(told_fields, "A");
	end();
	begin();
	assert_int_equal(take(&b), CLAIM_THERE);
	assert_string_equal(told_body, "body");
}

static void only_its_owner_moves_it_and_nobody_what_has_ended(void **state)
{
	(void)state;
	struct claim a = claim_of("k", "a"), legacy = claim_of("k", "l"), b = claim_of("k", "b");
	legacy.side = CLAIM_LEGACY;
	begin();
	assert_int_equal(take(&a), CLAIM_MINE);
	assert_int_equal(move("b", &legacy), CLAIM_LOST);
	assert_int_equal(move("a", &b), CLAIM_MINE);
	assert_int_equal(move("a", &legacy), CLAIM_LOST);
	assert_int_equal(move("b", &legacy), CLAIM_MINE);
	assert_int_equal(take(&a), CLAIM_THERE);
	assert_int_equal(told.claim.side, CLAIM_LEGACY);
	claims_answer(claims, &b, true, 200, SPAN_LIT(""), SPAN_LIT("late")); /* legacy has it */
	assert_int_equal(take(&a), CLAIM_THERE);
	assert_int_equal(told.claim.phase, CLAIM_BEGUN);
	a = claim_of("k2", "a");
	assert_int_equal(take(&a), CLAIM_MINE);
	claims_answer(claims, &a, false, 200, SPAN_LIT(""), SPAN_LIT("x"));
	legacy = claim_of("k2", "l");
	assert_int_equal(move("a", &legacy), CLAIM_LOST);
}

static void a_release_is_for_what_was_not_accepted(void **state)
{
	(void)state;
	struct claim a = claim_of("k", "a"), b = claim_of("k", "b");
	begin();
	assert_int_equal(take(&a), CLAIM_MINE);
	claims_release(claims, &b); /* not its owner */
	assert_int_equal(take(&b), CLAIM_THERE);
	claims_release(claims, &a);
	assert_int_equal(take(&b), CLAIM_MINE);
	claims_note(claims, &b);
	claims_release(claims, &b);
	assert_int_equal(take(&a), CLAIM_THERE);
	assert_int_equal(told.claim.phase, CLAIM_ACCEPTED);
	if (!options.redis)
		assert_int_equal(query("SELECT n FROM claim_counts WHERE scope = ''"), 1);
}

static void what_was_told_survives_kill_9(void **state)
{
	(void)state;
	struct claim a = claim_of("k", "a");
	pid_t child = fork();
	if (child == 0) {
		loop_new(&loop); /* one that is the child's own */
		begin();
		if (take(&a) != CLAIM_MINE)
			_exit(1);
		kill(getpid(), SIGKILL);
	}
	int status;
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	begin();
	assert_int_equal(take(&a), CLAIM_THERE);
}

static void of_two_processes_one_gets_each_key(void **state)
{
	(void)state;
	enum { KEYS = 200 };
	int pipes[2];
	assert_int_equal(pipe(pipes), 0);
	begin(); /* makes the file */
	struct claim first = claim_of("first", "a");
	assert_int_equal(take(&first), CLAIM_MINE);
	end();
	pid_t child = fork();
	if (child == 0)
		loop_new(&loop); /* one that is the child's own */
	begin();
	unsigned mine = 0;
	for (int i = 0; i < KEYS; i++) {
		char key[16];
		snprintf(key, sizeof(key), "k%d", i);
		struct claim c = claim_of(key, child ? "parent" : "child");
		claims_take(claims, loop, &c, 1000, on_told, NULL);
		wait_told();
		mine += told.answer == CLAIM_MINE;
		if (told.answer != CLAIM_MINE && told.answer != CLAIM_THERE)
			mine = 100000;
	}
	if (child == 0) {
		_exit(write(pipes[1], &mine, sizeof(mine)) == sizeof(mine) ? 0 : 1);
	}
	unsigned others;
	assert_int_equal(read(pipes[0], &others, sizeof(others)), sizeof(others));
	assert_int_equal(waitpid(child, NULL, 0), child);
	close(pipes[0]);
	close(pipes[1]);
	assert_int_equal(mine + others, KEYS);
	if (!options.redis)
		assert_int_equal(query("SELECT n FROM claim_counts WHERE scope = ''"), KEYS + 1);
}

/* --- limits --------------------------------------------------------------------------------------------- */

static void a_scope_that_is_full_leaves_others_alone(void **state)
{
	(void)state;
	begin();
	for (int i = 0; i < 4; i++) {
		char key[16];
		snprintf(key, sizeof(key), "k%d", i);
		struct claim c = claim_of(key, "a");
		claims_take(claims, loop, &c, 3, on_told, NULL);
		wait_told();
		assert_int_equal(told.answer, i < 3 ? CLAIM_MINE : CLAIM_CROWDED);
	}
	struct claim c = claim_of("k3", "a");
	snprintf(c.scope, sizeof(c.scope), "another");
	assert_int_equal(take(&c), CLAIM_MINE);
	c = claim_of("k0", "b");
	claims_take(claims, loop, &c, 3, on_told, NULL);
	wait_told();
	assert_int_equal(told.answer, CLAIM_THERE);
	c = claim_of("k1", "a");
	claims_release(claims, &c);
	c = claim_of("k4", "a");
	claims_take(claims, loop, &c, 3, on_told, NULL);
	wait_told();
	assert_int_equal(told.answer, CLAIM_MINE);
}

static void strangers_get_a_quarter_and_all_of_it_has_an_end(void **state)
{
	(void)state;
	char sql[128];
	begin();
	struct claim c = claim_of("k", "a");
	c.stranger = true;
	assert_int_equal(take(&c), CLAIM_MINE);
	snprintf(sql, sizeof(sql), "UPDATE claim_counts SET n = %d WHERE scope = 's'", CLAIMS_MAX / 4);
	run_sql(sql);
	c = claim_of("k2", "a");
	c.stranger = true;
	assert_int_equal(take(&c), CLAIM_FULL);
	c.stranger = false;
	assert_int_equal(take(&c), CLAIM_MINE);
	snprintf(sql, sizeof(sql), "UPDATE claim_counts SET n = %d WHERE scope = ''", CLAIMS_MAX);
	run_sql(sql);
	c = claim_of("k3", "a");
	assert_int_equal(take(&c), CLAIM_FULL);
}

static void answers_of_one_scope_get_half_of_the_room(void **state)
{
	(void)state;
	char sql[128];
	begin();
	struct claim c = claim_of("k", "a");
	assert_int_equal(take(&c), CLAIM_MINE);
	snprintf(sql, sizeof(sql), "UPDATE claim_counts SET bytes = %lld WHERE scope = 'scope'",
		 (long long)(CLAIMS_BYTES / 2 - 3));
	run_sql(sql);
	claims_answer(claims, &c, true, 200, SPAN_LIT(""), SPAN_LIT("four"));
	assert_int_equal(take(&c), CLAIM_THERE);
	assert_int_equal(told.claim.phase, CLAIM_ENDED);
	assert_int_equal(told.claim.status, 0);
	c = claim_of("k2", "a");
	snprintf(c.scope, sizeof(c.scope), "another");
	assert_int_equal(take(&c), CLAIM_MINE);
	claims_answer(claims, &c, true, 200, SPAN_LIT(""), SPAN_LIT("four"));
	assert_int_equal(take(&c), CLAIM_THERE);
	assert_int_equal(told.claim.status, 200);
	struct claims_status s;
	claims_status(claims, &s);
	assert_int_equal(s.unkept, 1);
}

static void the_sweep_takes_what_is_over_with_its_counts(void **state)
{
	(void)state;
	begin();
	struct claim c = claim_of("k", "a");
	assert_int_equal(take(&c), CLAIM_MINE);
	claims_answer(claims, &c, true, 200, SPAN_LIT(""), SPAN_LIT("four"));
	c = claim_of("k2", "a");
	assert_int_equal(take(&c), CLAIM_MINE);
	end();
	run_sql("UPDATE claims SET created_us = created_us - 7200000000 WHERE key = 'k'");
	begin(); /* sweeps first */
	while (query("SELECT count(*) FROM claims") > 1)
		usleep(10000);
	assert_int_equal(query("SELECT n FROM claim_counts WHERE scope = 'scope'"), 1);
	assert_int_equal(query("SELECT bytes FROM claim_counts WHERE scope = ''"), 0);
	c = claim_of("k", "b");
	assert_int_equal(take(&c), CLAIM_MINE);
}

/* --- the file ------------------------------------------------------------------------------------------- */

static void a_locked_file_is_unknown_and_what_nobody_waits_for_comes_later(void **state)
{
	(void)state;
	begin();
	struct claim a = claim_of("k", "a"), b = claim_of("k2", "b");
	assert_int_equal(take(&a), CLAIM_MINE);
	struct db_options o = {.path = path};
	struct db *db;
	struct err e;
	assert_int_equal(db_open(&o, &db, &e), 0);
	assert_int_equal(db_begin(db, &e), 0);
	claims_answer(claims, &a, true, 200, SPAN_LIT(""), SPAN_LIT("kept"));
	assert_int_equal(take(&b), CLAIM_UNKNOWN);
	struct claims_status s;
	claims_status(claims, &s);
	assert_true(s.failing);
	db_rollback(db);
	db_close(db);
	assert_int_equal(take(&b), CLAIM_MINE);
	assert_int_equal(take(&a), CLAIM_THERE);
	assert_string_equal(told_body, "kept");
	claims_status(claims, &s);
	assert_false(s.failing);
}

static void a_file_that_was_replaced_gets_what_the_old_one_had(void **state)
{
	(void)state;
	char other[SCRATCH_MAX + 8];
	begin();
	struct claim a = claim_of("k", "a"), b = claim_of("k", "b");
	assert_int_equal(take(&a), CLAIM_MINE);
	claims_answer(claims, &a, true, 200, SPAN_LIT(""), SPAN_LIT("kept"));
	assert_int_equal(take(&b), CLAIM_THERE);
	static const char *const ends[] = {"", "-wal", "-shm"};
	for (size_t i = 0; i < 3; i++) {
		snprintf(other, sizeof(other), "%s%s", path, ends[i]);
		unlink(other);
	}
	assert_int_equal(take(&b), CLAIM_THERE);
	assert_string_equal(told_body, "kept");
	end();
	begin();
	assert_int_equal(take(&b), CLAIM_THERE);
	assert_int_equal(query("SELECT n FROM claim_counts WHERE scope = ''"), 1);
}

/* A ledger of before, and one after it: each goes on with the file. */
static void the_ledger_and_claims_share_a_file(void **state)
{
	(void)state;
	struct ledger *l;
	struct err e;
	struct claim a = claim_of("k", "a");
	begin();
	assert_int_equal(take(&a), CLAIM_MINE);
	const struct ledger_options o = {.file = path};
	assert_int_equal(ledger_start(&o, &l, &e), 0);
	end();
	ledger_stop(l);
	assert_int_equal(query("PRAGMA user_version"), 1);
	begin();
	assert_int_equal(take(&a), CLAIM_THERE);
}

/* --- in a Redis ----------------------------------------------------------------------------------------- */

static void while_redis_is_frozen_nothing_is_known_and_nothing_is_taken_later(void **state)
{
	(void)state;
	struct claim a = claim_of("k", "a"), b = claim_of("k", "b"), other = claim_of("other", "o");
	if (!options.redis)
		skip();
	begin();
	assert_int_equal(take(&other), CLAIM_MINE);
	kill(server.pid, SIGSTOP);
	assert_int_equal(take(&a), CLAIM_UNKNOWN);
	claims_note(claims, &other);
	claims_answer(claims, &other, true, 200, SPAN_LIT(""), SPAN_LIT("kept"));
	kill(server.pid, SIGCONT);
	struct claims_status s = {.failing = true};
	for (int64_t until = clock_mono_ms() + 10000; s.failing && clock_mono_ms() < until; poll(NULL, 0, 5))
		claims_status(claims, &s);
	assert_int_equal(take(&b), CLAIM_MINE);
	other = claim_of("other", "b");
	for (int64_t until = clock_mono_ms() + 10000; clock_mono_ms() < until; poll(NULL, 0, 5)) {
		assert_int_equal(take(&other), CLAIM_THERE);
		if (told.claim.phase == CLAIM_ENDED)
			break;
	}
	assert_string_equal(told_body, "kept");
}

static void what_was_to_be_kept_has_its_end_there(void **state)
{
	(void)state;
	struct claim a = claim_of("k", "a"), b = claim_of("k", "b");
	if (!options.redis)
		skip();
	a.keep_us = 200000;
	begin();
	assert_int_equal(take(&a), CLAIM_MINE);
	claims_note(claims, &a);
	for (int64_t until = clock_mono_ms() + 10000; clock_mono_ms() < until; poll(NULL, 0, 20))
		if (take(&b) == CLAIM_MINE)
			break;
	assert_int_equal(told.answer, CLAIM_MINE);
}

static void a_server_without_memory_takes_no_key(void **state)
{
	(void)state;
	struct claim kept = claim_of("kept", "k"), new = claim_of("new", "n");
	if (!options.redis)
		skip();
	begin();
	assert_int_equal(take(&kept), CLAIM_MINE);
	redis_server_say(&server, "CONFIG SET maxmemory 1");
	assert_int_equal(take(&new), CLAIM_UNKNOWN);
	assert_int_equal(take(&kept), CLAIM_THERE); /* which takes none */
	redis_server_say(&server, "CONFIG SET maxmemory 0");
	struct claims_status s = {.failing = true};
	for (int64_t until = clock_mono_ms() + 10000; s.failing && clock_mono_ms() < until; poll(NULL, 0, 5))
		claims_status(claims, &s);
	assert_int_equal(take(&new), CLAIM_MINE);
}

int main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
/* clang-format off */
#define SHARED(f) {"shared_" #f, f, setup_shared, teardown_shared, NULL}
	/* clang-format on */
	const struct CMUnitTest tests[] = {
		CASE(the_first_has_it_and_others_are_told_of_it),
		CASE(only_its_owner_moves_it_and_nobody_what_has_ended),
		CASE(a_release_is_for_what_was_not_accepted),
		CASE(what_was_told_survives_kill_9),
		CASE(of_two_processes_one_gets_each_key),
		CASE(a_scope_that_is_full_leaves_others_alone),
		CASE(strangers_get_a_quarter_and_all_of_it_has_an_end),
		CASE(answers_of_one_scope_get_half_of_the_room),
		CASE(the_sweep_takes_what_is_over_with_its_counts),
		CASE(a_locked_file_is_unknown_and_what_nobody_waits_for_comes_later),
		CASE(a_file_that_was_replaced_gets_what_the_old_one_had),
		CASE(the_ledger_and_claims_share_a_file),
		SHARED(the_first_has_it_and_others_are_told_of_it),
		SHARED(only_its_owner_moves_it_and_nobody_what_has_ended),
		SHARED(a_release_is_for_what_was_not_accepted),
		SHARED(what_was_told_survives_kill_9),
		SHARED(of_two_processes_one_gets_each_key),
		SHARED(a_scope_that_is_full_leaves_others_alone),
		SHARED(while_redis_is_frozen_nothing_is_known_and_nothing_is_taken_later),
		SHARED(what_was_to_be_kept_has_its_end_there),
		SHARED(a_server_without_memory_takes_no_key),
	};
	return crypto_setup() == 0 ? cmocka_run_group_tests_name("claims", tests, NULL, NULL) : 1;
}
