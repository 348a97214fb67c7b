/* standing: the levels and sentences by what is known and counted, facts as JSON and back, changes as events,
 * the row and the events in a file. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/db.h"
#include "outcomes/events.h"
#include "standing/backlog_floor.h"
#include "standing/standing_changes.h"
#include "standing/standing_row.h"
#include "standing/standing_window.h"
#include "support/outcome_place.h"

#define NOW (1800000000 * INT64_C(1000000))
#define MINUTE (60 * INT64_C(1000000))

/* --- made-up facts and windows -------------------------------------------------------------------------- */

static void name_it(char *out, size_t size, const char *text)
{
	snprintf(out, size, "%s", text);
}

/* One operation, shop.price, on a backend that is well. */
static struct standing_facts *facts_at(double set)
{
	struct standing_facts *f;
	assert_int_equal(standing_facts_new(2, &f), 0);
	f->time_us = NOW;
	f->flags.loaded = true;
	f->flags.confirmed_us = NOW - MINUTE;
	f->n_backends = f->n_legacy = f->n_operations = 1;
	name_it(f->backends[0].name, sizeof(f->backends[0].name), "celery");
	name_it(f->backends[0].breaker, sizeof(f->backends[0].breaker), "closed");
	f->backends[0].known = f->backends[0].reachable = f->backends[0].worker = true;
	name_it(f->legacy[0].service, sizeof(f->legacy[0].service), "shop");
	f->legacy[0].known = f->legacy[0].reachable = f->guard_known = true;
	struct standing_operation_facts *o = &f->operations[0];
	name_it(o->service, sizeof(o->service), "shop");
	name_it(o->operation, sizeof(o->operation), "price");
	name_it(o->flag, sizeof(o->flag), "price_flag");
	name_it(o->backend, sizeof(o->backend), "celery");
	name_it(o->stage, sizeof(o->stage), "rolling");
	o->set = set;
	o->next = 50;
	return f;
}

struct window {
	struct report report;
	struct report_operation operation;
};

static void count_rate(struct report_rate *a)
{
	for (int i = 0; i < OUTCOME_RESULT_COUNT; i++)
		a->counted += outcome_is_counted(i) ? a->results[i] : 0;
	a->known = a->counted > 0;
	a->few = a->counted < REPORT_FEW;
	if (!a->known)
		return;
	double n = (double)a->counted, p = (double)a->results[OUTCOME_SUCCESS] / n, z = 1.96;
	double scale = 1 + z * z / n, reach = z * sqrt(p * (1 - p) / n + z * z / (4 * n * n));
	a->rate = p;
	a->low = (p + z * z / (2 * n) - reach) / scale;
	a->high = (p + z * z / (2 * n) + reach) / scale;
}

/* Answers of both sides, and how many of them failed. */
static struct report *window_of(struct window *w, unsigned legacy, unsigned legacy_failed, unsigned task,
				unsigned task_failed)
{
	struct report_operation *o = &w->operation;
	*w = (struct window){
		.report = {.operations = o, .operation_count = 1, .since_us = NOW - 15 * MINUTE}};
	name_it(o->service, sizeof(o->service), "shop");
	name_it(o->operation, sizeof(o->operation), "price");
	o->can_move = true;
	o->executions = legacy + task;
	o->reasons[REASON_FLAG] = o->executions;
	const unsigned all[] = {legacy, task}, failed[] = {legacy_failed, task_failed};
	for (int side = 0; side < OUTCOME_SIDE_COUNT; side++) {
		struct report_side *s = &o->sides[side];
		s->executions = all[side];
		s->share = o->executions ? (double)all[side] / (double)o->executions : 0;
		s->attempts.results[OUTCOME_SUCCESS] = all[side] - failed[side];
		s->attempts.results[OUTCOME_FAILURE] = failed[side];
		count_rate(&s->attempts);
	}
	return &w->report;
}

static void expect(struct standing_facts *f, const struct report *w, enum standing_level level,
		   const char *words)
{
	struct standing *s;
	assert_int_equal(standing_make(f, w, NULL, NOW, &s), 0);
	if (s->level != level || !strstr(s->sentence, words))
		fail_msg("%s, not %s with \"%s\": %s", standing_level_text(s->level),
			 standing_level_text(level), words, s->sentence);
	standing_free(s);
}

/* --- a queue -------------------------------------------------------------------------------------------- */

static void the_floor_of_a_backlog_is_known_after_an_interval_and_forgets_a_burst(void **state)
{
	(void)state;
	struct backlog_floor f = {.begun = false};
	int64_t now = 1000;
	for (int i = 0; i < 60; i++, now += BACKLOG_FLOOR_MS / 60) {
		backlog_floor_note(&f, 500 - i, now);
		assert_int_equal(backlog_floor(&f), -1);
	}
	backlog_floor_note(&f, 900, now);
	assert_int_equal(backlog_floor(&f), 441);
	backlog_floor_note(&f, 3, now += 1000); /* short for a moment: it can keep up */
	assert_int_equal(backlog_floor(&f), 3);
	backlog_floor_note(&f, 700, now += BACKLOG_FLOOR_MS);
	assert_int_equal(backlog_floor(&f), 3);
	backlog_floor_note(&f, 800, now += BACKLOG_FLOOR_MS);
	assert_int_equal(backlog_floor(&f), 700);
	backlog_floor_note(&f, -1, now += 1000); /* not known: nothing is said of what was before */
	assert_int_equal(backlog_floor(&f), -1);
	backlog_floor_note(&f, 700, now += 2 * BACKLOG_FLOOR_MS);
	assert_int_equal(backlog_floor(&f), -1);
}

static void workers_that_do_not_keep_up_are_told_and_a_burst_is_not(void **state)
{
	(void)state;
	struct window w;
	struct standing_facts *f = facts_at(100);
	f->backends[0].backlog = f->backends[0].backlog_floor = 4000;
	expect(f, window_of(&w, 0, 0, 50, 0), STANDING_WATCH,
	       "WATCH: workers of celery do not keep up: for minutes no fewer than 4,000 tasks waited, "
	       "before those of shop.price");
	f = facts_at(100);
	f->backends[0].backlog = 4000;
	f->backends[0].backlog_floor = 2;
	expect(f, window_of(&w, 0, 0, 50, 0), STANDING_OK, "100 % set");
	f = facts_at(100); /* what nobody works on is said as such */
	f->backends[0].backlog = f->backends[0].backlog_floor = 4000;
	f->backends[0].worker = false;
	expect(f, window_of(&w, 0, 0, 50, 0), STANDING_STOP, "celery has no worker");
}

/* --- levels --------------------------------------------------------------------------------------------- */

static void what_is_set_is_beside_what_is_measured(void **state)
{
	(void)state;
	struct window w;
	struct standing_facts *f = facts_at(25);
	f->operations[0].guard_judged = true;
	f->operations[0].guard = GUARD_SAFE;
	expect(f, window_of(&w, 752, 0, 248, 0), STANDING_OK,
	       "shop.price: 25 % set, 24.8 % measured, safe; next: 50 %");
	/* 999 of 1,000 are not all */
	expect(facts_at(100), window_of(&w, 1, 0, 99999, 0), STANDING_OK, "100 % set, 99.9 % measured");
}

static void more_is_not_next_while_it_is_not_safe(void **state)
{
	(void)state;
	struct window w;
	struct standing_facts *f = facts_at(25);
	f->operations[0].guard_judged = true;
	expect(f, window_of(&w, 75, 0, 25, 0), STANDING_OK, "not enough data; next: 50 %, once it is safe");
}

static void each_thing_that_burns_is_a_stop(void **state)
{
	(void)state;
	struct window w;
	struct standing_facts *f = facts_at(100);
	f->backends[0].worker = false;
	expect(f, window_of(&w, 0, 0, 50, 0), STANDING_STOP, "STOP: celery has no worker since ");
	f = facts_at(100);
	f->backends[0].reachable = false;
	expect(f, window_of(&w, 0, 0, 50, 0), STANDING_STOP, "celery cannot be reached");
	f = facts_at(100);
	name_it(f->backends[0].breaker, sizeof(f->backends[0].breaker), "open");
	expect(f, window_of(&w, 0, 0, 50, 0), STANDING_STOP, "its circuit breaker is open");
	expect(facts_at(100), window_of(&w, 0, 0, 49, 49), STANDING_STOP, "49 of 49 tasks failed");
	expect(facts_at(25), window_of(&w, 300, 2, 100, 40), STANDING_STOP,
	       "tasks succeed in 60 %, legacy in 99.3 %");
	expect(facts_at(25), window_of(&w, 1171, 1171, 0, 0), STANDING_STOP,
	       "1,171 of 1,171 calls of legacy failed");
	f = facts_at(25);
	f->legacy[0].reachable = false;
	name_it(f->legacy[0].failing, sizeof(f->legacy[0].failing), "refused");
	expect(f, window_of(&w, 1171, 1171, 0, 0), STANDING_STOP,
	       "legacy shop is gone since the start (refused): all 1,171 calls failed");
	f = facts_at(25);
	f->flags.failing = true;
	name_it(f->flags.last_error, sizeof(f->flags.last_error), "flags.yml:3: not YAML");
	expect(f, window_of(&w, 75, 0, 25, 0), STANDING_STOP, "flags.yml:3: not YAML");
	f = facts_at(25);
	f->operations[0].held = true;
	expect(f, window_of(&w, 75, 0, 25, 0), STANDING_STOP, "the guard holds it on legacy");
	f = facts_at(25);
	f->state.failing = true;
	expect(f, window_of(&w, 75, 0, 25, 0), STANDING_STOP,
	       "the ledger of follow-up calls cannot be written");
}

static void what_nobody_needs_is_no_stop(void **state)
{
	(void)state;
	struct window w;
	struct standing_facts *f = facts_at(0);
	f->backends[0].worker = false; /* nobody is sent there yet */
	expect(f, window_of(&w, 50, 0, 0, 0), STANDING_WATCH, "WATCH: celery has no worker");
	f = facts_at(100); /* everybody has moved: legacy may be switched off */
	f->legacy[0].reachable = false;
	name_it(f->legacy[0].failing, sizeof(f->legacy[0].failing), "refused");
	expect(f, window_of(&w, 0, 0, 50, 0), STANDING_WATCH, "legacy shop is gone");
	f = facts_at(25);
	f->backends[0].known = f->backends[0].reachable = f->backends[0].worker = false; /* not asked yet */
	expect(f, window_of(&w, 75, 0, 25, 0), STANDING_OK, "25 % set");
}

static void what_was_before_a_few_failures_is_no_stop(void **state)
{
	(void)state;
	struct window w;
	expect(facts_at(25), window_of(&w, 75, 0, 25, 1), STANDING_OK, "25 % measured");
	expect(facts_at(25), window_of(&w, 2, 2, 0, 0), STANDING_OK, "0 % measured");
}

static void silence_is_told_as_silence(void **state)
{
	(void)state;
	struct window w;
	struct standing_facts *f = facts_at(25);
	f->time_us = NOW - STANDING_SILENT_US - 1;
	expect(f, window_of(&w, 75, 0, 25, 0), STANDING_STOP, "the router has not reported since ");
	f = facts_at(25);
	f->stopped = true;
	expect(f, window_of(&w, 75, 0, 25, 0), STANDING_STOP, "the router was stopped at ");
	expect(NULL, window_of(&w, 75, 0, 25, 0), STANDING_WATCH, "no router has reported what it knows");
	expect(facts_at(25), window_of(&w, 0, 0, 0, 0), STANDING_EMPTY,
	       "25 % set, nothing measured; no requests since");
	struct standing *s;
	assert_int_equal(standing_make(facts_at(25), NULL, "outcomes.db: corrupt", NOW, &s), 0);
	assert_int_equal(s->level, STANDING_STOP);
	assert_non_null(strstr(s->sentence, "outcomes.db: corrupt"));
	standing_free(s);
}

static void an_older_router_of_a_time_to_come_is_not_silent(void **state)
{
	(void)state;
	struct window w;
	struct standing_facts *f = facts_at(25);
	f->time_us = NOW + MINUTE; /* clocks of two machines */
	expect(f, window_of(&w, 75, 0, 25, 0), STANDING_OK, "25 % set");
	f = facts_at(25);
	f->time_us = NOW + 10 * MINUTE; /* it was set back, and nobody has written since */
	expect(f, window_of(&w, 75, 0, 25, 0), STANDING_STOP, "has not reported");
}

static void the_worst_operation_comes_first(void **state)
{
	(void)state;
	struct window w;
	struct standing *s;
	struct standing_facts *f = facts_at(25);
	f->operations[1] = f->operations[0];
	name_it(f->operations[1].operation, sizeof(f->operations[1].operation), "stock");
	f->operations[1].held = true;
	f->n_operations = 2;
	assert_int_equal(standing_make(f, window_of(&w, 75, 0, 25, 0), NULL, NOW, &s), 0);
	assert_string_equal(s->operations[0].name, "shop.stock");
	assert_string_equal(s->operations[1].name, "shop.price");
	assert_int_equal(s->level, STANDING_STOP);
	standing_free(s);
}

static void who_was_kept_from_the_task_side_is_told(void **state)
{
	(void)state;
	struct window w;
	window_of(&w, 100, 0, 0, 0);
	w.operation.reasons[REASON_FLAG] = 40;
	w.operation.reasons[REASON_NO_IDENTITY] = 60;
	expect(facts_at(25), &w.report, STANDING_WATCH,
	       "60 % of its requests went to legacy whatever is set");
}

/* Rejected attempts are in no success rate, yet a task that refuses what legacy takes hurts its callers. */
static void tasks_that_reject_what_legacy_takes_are_a_stop(void **state)
{
	(void)state;
	struct window w;
	window_of(&w, 300, 0, 0, 0);
	w.operation.sides[OUTCOME_TASK].attempts.results[OUTCOME_REJECTED] = 100;
	expect(facts_at(25), &w.report, STANDING_STOP,
	       "shop.price: tasks reject 100 of 100 calls since 07:45 UTC, legacy 0 of 300");
	/* callers who are wrong are so on both sides */
	w.operation.sides[OUTCOME_LEGACY].attempts.results[OUTCOME_REJECTED] = 5000;
	expect(facts_at(25), &w.report, STANDING_OK, "25 % set");
	/* nobody is left to compare with, and it may be the callers */
	window_of(&w, 0, 0, 0, 0);
	w.operation.sides[OUTCOME_TASK].attempts.results[OUTCOME_REJECTED] = 100;
	expect(facts_at(100), &w.report, STANDING_WATCH, "tasks reject 100 of 100 calls");
	w.operation.sides[OUTCOME_TASK].attempts.results[OUTCOME_REJECTED] = 3;
	w.operation.executions = 3;
	expect(facts_at(100), &w.report, STANDING_OK, "100 % set");
}

static void tasks_that_take_much_longer_are_watched(void **state)
{
	(void)state;
	struct window w;
	window_of(&w, 300, 0, 100, 0);
	w.operation.sides[OUTCOME_LEGACY].attempts.p95_us = 100000;
	w.operation.sides[OUTCOME_TASK].attempts.p95_us = 30000000;
	expect(facts_at(25), &w.report, STANDING_WATCH,
	       "1 of 20 tasks takes 30.0 s or longer, of legacy 0.1 s");
	w.operation.sides[OUTCOME_TASK].attempts.p95_us = 1000000; /* it has to be fetched */
	expect(facts_at(25), &w.report, STANDING_OK, "25 % set");
}

/* Operations without a task and unknown paths are in no list, and their callers are callers. */
static void legacy_that_is_called_in_vain_is_a_stop_whoever_calls(void **state)
{
	(void)state;
	struct window w;
	struct standing_facts *f = facts_at(100);
	f->legacy[0].reachable = false;
	f->legacy[0].per_minute = 12;
	name_it(f->legacy[0].failing, sizeof(f->legacy[0].failing), "refused");
	expect(f, window_of(&w, 0, 0, 50, 0), STANDING_STOP,
	       "legacy shop is gone since the start (refused): 12.0 calls fail per minute");
	f = facts_at(100); /* those of a segment stay there */
	f->legacy[0].reachable = false;
	f->operations[0].n_segments = 1;
	expect(f, window_of(&w, 0, 0, 50, 0), STANDING_STOP, "legacy shop is gone");
	f = facts_at(100);
	f->legacy[0].reachable = false;
	f->operations[0].n_segments = 1;
	f->operations[0].segments[0].percent = 100;
	expect(f, window_of(&w, 0, 0, 50, 0), STANDING_WATCH, "legacy shop is gone");
}

static void a_command_is_one_for_a_shell(void **state)
{
	(void)state;
	struct window w;
	struct standing *s;
	struct standing_facts *f = facts_at(25);
	name_it(f->config, sizeof(f->config), "/etc/a b/router.yml");
	name_it(f->operations[0].flag, sizeof(f->operations[0].flag), "it's; rm -rf /");
	assert_int_equal(standing_make(f, window_of(&w, 0, 0, 49, 49), NULL, NOW, &s), 0);
	assert_string_equal(s->command,
			    "migration-rollout --config '/etc/a b/router.yml' rollback 'it'\\''s; rm -rf /'");
	standing_free(s);
}

/* --- facts ---------------------------------------------------------------------------------------------- */

static void facts_are_read_as_they_were_written(void **state)
{
	(void)state;
	struct standing_facts *f = facts_at(12.5), *again;
	CLEANUP(buf_releasep) struct buf first = BUF_INIT(1u << 20), second = BUF_INIT(1u << 20);
	struct err e;
	f->operations[0].n_segments = 1;
	name_it(f->operations[0].segments[0].name, sizeof(f->operations[0].segments[0].name), "staff");
	f->operations[0].segments[0].percent = 100;
	f->operations[0].guard = GUARD_SHARE_MISMATCH;
	f->backends[0].backlog = -1;
	f->legacy[0].per_minute = 1.25;
	f->without_task = 3;
	assert_int_equal(standing_facts_to_json(f, &first), 0);
	assert_int_equal(standing_facts_parse("row", buf_span(&first), &again, &e), 0);
	assert_int_equal(standing_facts_to_json(again, &second), 0);
	assert_int_equal(first.len, second.len);
	assert_memory_equal(first.ptr, second.ptr, first.len);
	standing_facts_free(f);
	standing_facts_free(again);
}

static void what_another_version_wrote_is_read_as_far_as_it_goes(void **state)
{
	(void)state;
	struct standing_facts *f = NULL;
	struct err e;
	static const char newer[] =
		"{\"facts_version\":2,\"time_us\":5,\"new\":[1],\"flags\":{\"loaded\":true},"
		"\"operations\":[{\"service\":\"s\",\"operation\":\"o\",\"guard\":\"new_word\"}]}";
	assert_int_equal(standing_facts_parse("row", span_of(newer), &f, &e), 0);
	assert_int_equal(f->n_operations, 1);
	assert_true(f->operations[0].set < 0);
	standing_facts_free(f);
	f = NULL;
	static const char *const bad[] = {"", "[]", "{}", "{\"facts_version\":\"1\"}",
					  "{\"facts_version\":1"};
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(standing_facts_parse("row", span_of(bad[i]), &f, &e), -EPROTO);
		assert_null(f);
	}
}

/* --- changes -------------------------------------------------------------------------------------------- */

struct seen {
	struct event all[32];
	size_t n;
};

static void see(void *arg, const struct event *e)
{
	struct seen *s = arg;
	assert_true(s->n < 32);
	s->all[s->n++] = *e;
}

static void a_change_is_one_event_and_begins_a_new_since(void **state)
{
	(void)state;
	struct standing_facts *before = facts_at(10), *now = facts_at(25);
	struct seen seen = {.n = 0};
	before->backends[0].since_us = 7;
	now->backends[0].worker = false;
	now->legacy[0].reachable = false;
	now->flags.failing = true;
	standing_since(before, now);
	standing_each_change(before, now, see, &seen);
	assert_true(standing_differs(before, now));
	assert_int_equal(seen.n, 4);
	assert_int_equal(seen.all[0].kind, EVENT_FLAGS_FAILING);
	assert_int_equal(seen.all[1].kind, EVENT_BACKEND_GONE);
	assert_int_equal(seen.all[2].kind, EVENT_LEGACY_GONE);
	assert_int_equal(seen.all[3].kind, EVENT_PERCENT);
	assert_true(seen.all[3].before == 10 && seen.all[3].after == 25);
	assert_int_equal(now->backends[0].since_us, NOW);
	assert_int_equal(now->operations[0].set_since_us, NOW);
	/* and nothing again while it lasts */
	struct standing_facts *later = facts_at(25);
	later->time_us = NOW + MINUTE;
	later->backends[0].worker = false;
	later->legacy[0].reachable = false;
	later->flags.failing = true;
	standing_since(now, later);
	seen.n = 0;
	standing_each_change(now, later, see, &seen);
	assert_int_equal(seen.n, 0);
	assert_false(standing_differs(now, later));
	assert_int_equal(later->backends[0].since_us, NOW);
	assert_int_equal(later->flags.failing_since_us, NOW);
	assert_int_equal(later->operations[0].set_since_us, NOW);
	standing_facts_free(before);
	standing_facts_free(now);
	standing_facts_free(later);
}

/* A restart asks anew: until it has, nothing is gone, back or released. */
static void a_restart_is_no_change(void **state)
{
	(void)state;
	struct standing_facts *before = facts_at(25), *now = facts_at(25);
	struct seen seen = {.n = 0};
	before->backends[0].worker = before->legacy[0].reachable = false;
	before->backends[0].since_us = before->legacy[0].since_us = 5;
	before->operations[0].held = true;
	now->backends[0].known = now->legacy[0].known = now->guard_known = false;
	standing_since(before, now);
	standing_each_change(before, now, see, &seen);
	assert_int_equal(seen.n, 0);
	assert_true(now->operations[0].held);
	struct standing_facts *later = facts_at(25);
	later->backends[0].worker = later->legacy[0].reachable = false;
	standing_since(now, later);
	standing_each_change(now, later, see, &seen);
	assert_int_equal(seen.n, 1);
	assert_int_equal(seen.all[0].kind, EVENT_GUARD_RELEASED);
	assert_int_equal(later->backends[0].since_us, 5);
	assert_int_equal(later->legacy[0].since_us, 5);
	standing_facts_free(before);
	standing_facts_free(now);
	standing_facts_free(later);
}

static void what_is_not_known_is_no_change(void **state)
{
	(void)state;
	struct standing_facts *before = facts_at(25), *now = facts_at(STANDING_NOT_SET);
	struct seen seen = {.n = 0};
	before->operations[0].set_since_us = 5;
	standing_since(before, now);
	standing_each_change(before, now, see, &seen);
	assert_int_equal(seen.n, 0);
	assert_int_equal(now->operations[0].set_since_us, 5);
	standing_facts_free(before);
	standing_facts_free(now);
}

/* --- the file ------------------------------------------------------------------------------------------- */

static void place_write(struct place *p, const struct outcome *o)
{
	struct series *series = series_of(p->series, o);
	struct err e = {""};
	struct outcome_batch b = {.outcomes = o, .series = &series, .count = 1, .now_us = o->time_us};
	assert_int_equal(outcome_store_write(p->store, &b, &e), 0);
}

static void write_tap(struct place *p, const struct recorder_tap *tap, bool committed)
{
	struct err e = {""};
	struct recorder_batch none = {.now_us = NOW};
	assert_int_equal(db_begin(outcome_store_db(p->store), &e), 0);
	assert_int_equal(tap->write(tap->arg, &none, &e), 0);
	if (committed)
		assert_int_equal(db_commit(outcome_store_db(p->store), &e), 0);
	else
		db_rollback(outcome_store_db(p->store));
	tap->ended(tap->arg, committed, NULL);
}

static void events_are_in_the_file_once_also_after_a_write_that_failed(void **state)
{
	struct place *p = *state;
	struct events *events;
	struct recorder_tap tap;
	struct event_list *list;
	struct err e = {""};
	assert_int_equal(events_read(p->file, &(struct event_filter){0}, &list, &e), 0);
	assert_int_equal(list->n, 0);
	event_list_free(list);
	assert_int_equal(events_new(&events), 0);
	events_tap(events, &tap);
	assert_int_equal(tap.opened(tap.arg, outcome_store_db(p->store), &e), 0);
	assert_false(tap.due(tap.arg));
	struct event one = {.time_us = NOW,
			    .kind = EVENT_PERCENT,
			    .service = "shop",
			    .operation = "price",
			    .who = "ann",
			    .what = "10 % to 25 %",
			    .why = "token=secret1234",
			    .before = 10,
			    .after = 25};
	events_add(events, &one);
	write_tap(p, &tap, false);
	assert_true(tap.due(tap.arg));
	write_tap(p, &tap, true);
	assert_false(tap.due(tap.arg));
	struct event other = {.time_us = NOW + 1, .kind = EVENT_START, .before = -1, .after = -1};
	events_add(events, &other);
	write_tap(p, &tap, true);
	assert_int_equal(events_read(p->file, &(struct event_filter){.service = "shop"}, &list, &e), 0);
	assert_int_equal(list->n, 2);
	assert_int_equal(list->events[0].kind, EVENT_PERCENT);
	assert_true(list->events[0].before == 10 && list->events[0].after == 25);
	assert_null(strstr(list->events[0].why, "secret"));
	assert_true(list->events[1].before < 0);
	event_list_free(list);
	assert_int_equal(events_read(p->file, &(struct event_filter){.max = 1}, &list, &e), 0);
	assert_true(list->n == 1 && list->more && list->events[0].kind == EVENT_START);
	event_list_free(list);
	for (int i = 0; i < EVENTS_QUEUED + 5; i++)
		events_add(events, &other);
	assert_int_equal(events_dropped(events), 5);
	tap.closed(tap.arg);
	events_free(events);
}

static void the_row_is_read_as_it_was_reported_and_a_quiet_process_leaves_it(void **state)
{
	struct place *p = *state;
	struct standing_row *row;
	struct recorder_tap tap;
	struct standing_facts *f = facts_at(25), *read;
	struct err e = {""};
	assert_int_equal(standing_row_read(p->file, &read, &e), 0);
	assert_null(read);
	assert_int_equal(standing_row_new(&row), 0);
	standing_row_tap(row, &tap);
	assert_int_equal(tap.opened(tap.arg, outcome_store_db(p->store), &e), 0);
	assert_int_equal(standing_row_set(row, f), 0);
	write_tap(p, &tap, false);
	assert_true(tap.due(tap.arg));
	write_tap(p, &tap, true);
	assert_false(tap.due(tap.arg));
	f->operations[0].set = 50;
	standing_row_quiet(row); /* another process has taken over */
	assert_int_equal(standing_row_set(row, f), 0);
	assert_false(tap.due(tap.arg));
	write_tap(p, &tap, true);
	assert_int_equal(standing_row_read(p->file, &read, &e), 0);
	assert_int_equal(read->time_us, NOW);
	assert_true(read->operations[0].set == 25);
	standing_facts_free(read);
	standing_facts_free(f);
	tap.closed(tap.arg);
	standing_row_free(row);
}

/* What was before the percentage was set is no part of what is measured, to the microsecond. */
static void what_is_measured_begins_when_it_was_set(void **state)
{
	struct place *p = *state;
	int64_t now = clock_wall_us();
	struct outcome legacy = {.time_us = now - 2 * MINUTE,
				 .latency_us = 1000,
				 .service = "shop",
				 .operation = "price",
				 .answered = true},
		       task = legacy, poll = legacy;
	struct standing_facts *f = facts_at(100);
	struct report *r;
	struct err e = {""};
	task.side = OUTCOME_TASK;
	task.time_us = now - 30 * INT64_C(1000000);
	poll.reason = REASON_NO_TASK;
	name_it(poll.operation, sizeof(poll.operation), "health");
	for (int i = 0; i < 10; i++)
		place_write(p, &legacy);
	for (int i = 0; i < 5; i++)
		place_write(p, &task);
	for (int i = 0; i < 40; i++)
		place_write(p, &poll);
	assert_int_equal(standing_window(p->file, f, now, &r, &e), 0);
	assert_int_equal(r->total.executions, 15);
	assert_int_equal(r->total.left_out, 40);
	report_free(r);
	f->operations[0].set_since_us = now - MINUTE;
	assert_int_equal(standing_window(p->file, f, now, &r, &e), 0);
	for (size_t i = 0; i < r->operation_count; i++)
		if (strcmp(r->operations[i].operation, "price") == 0) {
			assert_int_equal(r->operations[i].executions, 5);
			assert_true(r->operations[i].sides[OUTCOME_TASK].share == 1);
		}
	report_free(r);
	standing_facts_free(f);
}

/* Until then everything that fails would be of before. */
static void what_was_set_at_a_time_to_come_hides_nothing(void **state)
{
	struct place *p = *state;
	int64_t now = clock_wall_us();
	struct outcome failed = {.time_us = now - 2 * MINUTE,
				 .latency_us = 1000,
				 .service = "shop",
				 .operation = "price",
				 .side = OUTCOME_TASK,
				 .result = OUTCOME_FAILURE,
				 .answered = true};
	struct standing_facts *f = facts_at(100);
	struct standing *s;
	f->time_us = now;
	f->operations[0].set_since_us = now + 50 * MINUTE; /* by a clock that was set back since */
	for (int i = 0; i < 30; i++)
		place_write(p, &failed);
	assert_int_equal(standing_of(p->file, f, now, &s), 0);
	assert_int_equal(s->level, STANDING_STOP);
	assert_non_null(strstr(s->sentence, "30 of 30 tasks failed"));
	standing_free(s);
}

static void write_legacy(struct place *p, const char *operation, int64_t time_us)
{
	struct outcome x = {.time_us = time_us, .service = "shop", .answered = true};
	name_it(x.operation, sizeof(x.operation), operation);
	place_write(p, &x);
}

/* One flag may be that of a whole service: its change is read at once, not once per operation. */
static void operations_that_were_set_together_are_each_measured_from_then_on(void **state)
{
	struct place *p = *state;
	int64_t now = clock_wall_us();
	struct standing_facts *f;
	struct standing *s;
	assert_int_equal(standing_facts_new(300, &f), 0);
	f->time_us = now;
	f->flags.loaded = f->guard_known = true;
	for (int i = 299; i >= 0; i--) {
		struct standing_operation_facts *o = &f->operations[f->n_operations++];
		name_it(o->service, sizeof(o->service), "shop");
		snprintf(o->operation, sizeof(o->operation), "price%d", i);
		o->set = 50;
		o->set_since_us = now - (i % 2 ? 1 : 10) * MINUTE;
		write_legacy(p, o->operation, now - 12 * MINUTE - MINUTE / 2);
		write_legacy(p, o->operation, now - 6 * MINUTE - MINUTE / 2);
		write_legacy(p, o->operation, now - MINUTE / 2);
	}
	assert_int_equal(standing_of(p->file, f, now, &s), 0);
	assert_int_equal(s->n_operations, 300);
	for (size_t i = 0; i < 300; i++) {
		const struct standing_operation *o = &s->operations[i];
		uint32_t of_hour = 0;
		for (int at = 0; at < STANDING_HOUR_POINTS; at++)
			of_hour += o->hour[at][OUTCOME_LEGACY];
		assert_string_equal(o->facts.operation, o->operation);
		assert_int_equal(o->window.executions, strtol(o->operation + 5, NULL, 10) % 2 ? 1 : 2);
		assert_int_equal(of_hour, 3);
	}
	standing_free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_set_is_beside_what_is_measured),
		cmocka_unit_test(more_is_not_next_while_it_is_not_safe),
		cmocka_unit_test(each_thing_that_burns_is_a_stop),
		cmocka_unit_test(the_floor_of_a_backlog_is_known_after_an_interval_and_forgets_a_burst),
		cmocka_unit_test(workers_that_do_not_keep_up_are_told_and_a_burst_is_not),
		cmocka_unit_test(what_nobody_needs_is_no_stop),
		cmocka_unit_test(what_was_before_a_few_failures_is_no_stop),
		cmocka_unit_test(silence_is_told_as_silence),
		cmocka_unit_test(an_older_router_of_a_time_to_come_is_not_silent),
		cmocka_unit_test(the_worst_operation_comes_first),
		cmocka_unit_test(who_was_kept_from_the_task_side_is_told),
		cmocka_unit_test(tasks_that_reject_what_legacy_takes_are_a_stop),
		cmocka_unit_test(tasks_that_take_much_longer_are_watched),
		cmocka_unit_test(legacy_that_is_called_in_vain_is_a_stop_whoever_calls),
		cmocka_unit_test_setup_teardown(what_was_set_at_a_time_to_come_hides_nothing, open_place,
						close_place),
		cmocka_unit_test_setup_teardown(
			operations_that_were_set_together_are_each_measured_from_then_on, open_place,
			close_place),
		cmocka_unit_test(a_command_is_one_for_a_shell),
		cmocka_unit_test(facts_are_read_as_they_were_written),
		cmocka_unit_test(what_another_version_wrote_is_read_as_far_as_it_goes),
		cmocka_unit_test(a_change_is_one_event_and_begins_a_new_since),
		cmocka_unit_test(a_restart_is_no_change),
		cmocka_unit_test(what_is_not_known_is_no_change),
		cmocka_unit_test_setup_teardown(events_are_in_the_file_once_also_after_a_write_that_failed,
						open_place, close_place),
		cmocka_unit_test_setup_teardown(
			the_row_is_read_as_it_was_reported_and_a_quiet_process_leaves_it, open_place,
			close_place),
		cmocka_unit_test_setup_teardown(what_is_measured_begins_when_it_was_set, open_place,
						close_place),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
