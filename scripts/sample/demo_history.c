/*
 * demo-history FILE [DAYS]: makes an outcomes.db with days of made-up history of the operations of
 * scripts/run, marked as such (outcomes/demo_history.h). FILE must not exist.
 *
 * Written as the recorder writes, by the recorder's own store: sums, marks and events are what a router
 * would have left. Who is on which side follows from the flags' own hash, so that a user who was on the task
 * side at 5 % is there at 25 % and today. The same every time but for the clock: the numbers come from a
 * seed.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/checksum.h"
#include "base/clock.h"
#include "base/crypto.h"
#include "base/db.h"
#include "outcomes/demo_history.h"
#include "outcomes/events.h"
#include "outcomes/outcome_store.h"

#define MINUTE_US 60000000LL
#define HOUR_US (60 * MINUTE_US)
#define DAY_US (24 * HOUR_US)
#define SLOT_US (5 * MINUTE_US) /* written at once */
#define SLOT_MAX 2000
#define STAGES_MAX 6
#define USERS 300
#define ORGANIZATIONS 40
#define CALLER_MISTAKES 0.004 /* share of rejected calls, on both sides */

struct stage {
	double ago; /* days before the end */
	int percent;
	const char *who, *why;
};

struct life { /* of an operation on one side */
	double median_ms, failures;
};

struct scene {
	const char *operation, *flag;
	bool variant; /* the flag: which hash decides */
	int shadow;   /* percent of users for whom the task runs beside legacy */
	double per_hour;
	struct life legacy, task;
	struct stage stages[STAGES_MAX]; /* ascending in time */
};

static const struct scene scenes[] = {
	{"answer_prompt",
	 "task_abstraction_enabled",
	 true,
	 0,
	 130,
	 {9, 0.002},
	 {24, 0.001},
	 {{6.2, 1, "dana", "first users"},
	  {5.1, 5, "dana", "a day without an error"},
	  {2.9, 25, "lee", "safe"}}},
	{"single_pass_extraction",
	 "single_pass_as_tasks",
	 false,
	 0,
	 45,
	 {14, 0.004},
	 {22, 0.003},
	 {{6.6, 5, "lee", "first users"}, {5.0, 25, "lee", "safe"}, {1.8, 50, "lee", "safe; half of them"}}},
	{"extract",
	 "extraction_as_tasks",
	 false,
	 0,
	 50,
	 {30, 0.006},
	 {26, 0.001},
	 {{6.8, 25, "dana", "rehearsed for a month"},
	  {5.2, 50, "dana", "safe"},
	  {3.4, 100, "dana", "safe; legacy fails more often"}}},
	{"index",
	 "indexing_as_tasks",
	 false,
	 0,
	 40,
	 {11, 0.002},
	 {21, 0.002},
	 {{4.6, 5, "kim", "first users"},
	  {2.9, 25, "kim", "looks good"},
	  {2.35, 5, "kim", "index fails for one in eight: held by the guard, rolled back"}}},
	{"summarize", "summaries_as_tasks", true, 30, 45, {12, 0.003}, {35, 0.004}, {{0, 0, NULL, NULL}}},
};
#define SCENES (sizeof(scenes) / sizeof(scenes[0]))

/* Days before the end: when something was wrong. */
static const struct {
	double from, to;
	const char *operation; /* NULL: all */
	enum outcome_side side;
	double failures;
	int status;
	const char *error;
} troubles[] = {
	{2.85, 2.4, "index", OUTCOME_TASK, 0.125, 500, "execute_extraction: HTTP 503"},
	{4.02, 4.0, NULL, OUTCOME_LEGACY, 0.7, 502, "connect: Connection refused"},
};

struct teller {
	struct outcome_store *store;
	struct series_table *series;
	struct events *events;
	struct recorder_tap tap;
	uint64_t random;
	int64_t end_us;
	struct outcome outcomes[SLOT_MAX];
	struct series *of[SLOT_MAX];
	size_t n;
};

/* --- chance: splitmix64 --------------------------------------------------------------------------------- */

static uint64_t next_random(struct teller *t)
{
	uint64_t z = t->random += 0x9e3779b97f4a7c15;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return z ^ (z >> 31);
}

static double uniform(struct teller *t)
{
	return ((double)(next_random(t) >> 11) + 0.5) / 9007199254740992.0;
}

static bool chance(struct teller *t, double p)
{
	return uniform(t) < p;
}

/* Log-normal: the 95th percentile is about twice the median. */
static int64_t latency_us(struct teller *t, double median_ms)
{
	double normal = sqrt(-2 * log(uniform(t))) * cos(2 * M_PI * uniform(t));
	return (int64_t)(median_ms * 1000 * exp(0.45 * normal));
}

/* --- who is where --------------------------------------------------------------------------------------- */

static const struct stage *stage_at(const struct scene *s, double ago)
{
	const struct stage *at = NULL;
	for (size_t i = 0; i < STAGES_MAX && s->stages[i].percent; i++)
		if (s->stages[i].ago >= ago)
			at = &s->stages[i];
	return at;
}

/* The user's number from 0 to 99, as Flipt's rules have it (docs/protocols/flipt.md). */
static double number_of(const struct scene *s, const char *user)
{
	const char *first = s->variant ? s->flag : user, *second = s->variant ? user : s->flag;
	uint32_t crc = checksum_crc32(checksum_crc32(CHECKSUM_CRC32_START, span_of(first)), span_of(second));
	return s->variant ? crc % 1000 / 10.0 : crc % 100;
}

/* As traffic.py's: large organizations have more users. */
static void organization_of(const char *user, char *out, size_t size)
{
	double u = checksum_crc32(CHECKSUM_CRC32_START, span_of(user)) % 1000 / 1000.0;
	snprintf(out, size, "org-%02d", (int)(ORGANIZATIONS * u * u));
}

/* --- what happened -------------------------------------------------------------------------------------- */

static void copy(const char *text, char *out, size_t size)
{
	span_copy(span_of(text), out, size);
}

static void make_result(struct teller *t, struct outcome *o, const struct life *life, double ago)
{
	double failures = life->failures;
	int status = o->side == OUTCOME_LEGACY ? 502 : 500;
	const char *error = o->side == OUTCOME_LEGACY ? "response: Connection reset by peer"
						      : "execute_extraction: timed out";
	for (size_t i = 0; i < sizeof(troubles) / sizeof(troubles[0]); i++)
		if (ago <= troubles[i].from && ago > troubles[i].to && o->side == troubles[i].side &&
		    (!troubles[i].operation || strcmp(troubles[i].operation, o->operation) == 0)) {
			failures = troubles[i].failures;
			status = troubles[i].status;
			error = troubles[i].error;
		}
	o->latency_us = latency_us(t, life->median_ms);
	o->result = OUTCOME_SUCCESS;
	o->http_status = 200;
	if (chance(t, CALLER_MISTAKES)) {
		o->result = OUTCOME_REJECTED;
		o->http_status = 400;
	} else if (chance(t, failures)) {
		o->result = OUTCOME_FAILURE;
		o->http_status = (uint16_t)status;
		outcome_error(span_of(error), o->error);
	}
}

static struct outcome *add_attempt(struct teller *t, const struct scene *s, const char *user,
				   enum outcome_side side, int64_t time_us)
{
	if (t->n == SLOT_MAX)
		return NULL;
	struct outcome *o = &t->outcomes[t->n++];
	*o = (struct outcome){
		.time_us = time_us, .side = (uint8_t)side, .answered = true, .role = OUTCOME_PRIMARY};
	copy("prompt", o->service, sizeof(o->service));
	copy(s->operation, o->operation, sizeof(o->operation));
	copy(user, o->user, sizeof(o->user));
	organization_of(user, o->organization, sizeof(o->organization));
	snprintf(o->request_id, sizeof(o->request_id), "made-up-%016llx", (unsigned long long)next_random(t));
	o->reason = s->variant || side == OUTCOME_TASK ? REASON_FLAG : REASON_FLAG_OFF;
	if (side == OUTCOME_TASK) {
		copy("embedded", o->backend, sizeof(o->backend));
		snprintf(o->task_id, sizeof(o->task_id), "%016llx%016llx", (unsigned long long)next_random(t),
			 (unsigned long long)next_random(t));
	}
	make_result(t, o, side == OUTCOME_TASK ? &s->task : &s->legacy,
		    (double)(t->end_us - time_us) / (double)DAY_US);
	return o;
}

static void add_call(struct teller *t, const struct scene *s, int64_t time_us)
{
	double ago = (double)(t->end_us - time_us) / (double)DAY_US, u = uniform(t);
	const struct stage *stage = stage_at(s, ago);
	char user[16];
	/* some call much more often than others */
	snprintf(user, sizeof(user), "user-%03d", (int)(USERS * u * u));
	double number = number_of(s, user);
	bool task = stage && number < stage->percent;
	add_attempt(t, s, user, task ? OUTCOME_TASK : OUTCOME_LEGACY, time_us);
	struct outcome *shadow = number < s->shadow ? add_attempt(t, s, user, OUTCOME_TASK, time_us) : NULL;
	if (shadow) {
		shadow->role = OUTCOME_SHADOW;
		shadow->answered = false;
	}
}

/* More by day than at night, and on working days. */
static double how_busy(int64_t time_us)
{
	double day = (double)(time_us % DAY_US) / (double)DAY_US;
	int weekday = (int)((time_us / DAY_US + 4) % 7); /* 0: Sunday */
	double busy = 0.12 + 0.88 * pow(sin(M_PI * day), 2);
	return weekday == 0 || weekday == 6 ? busy * 0.45 : busy;
}

static int compare_times(const void *a, const void *b)
{
	const struct outcome *x = a, *y = b;
	return (x->time_us > y->time_us) - (x->time_us < y->time_us);
}

static int write_slot(struct teller *t, int64_t end_us, struct err *e)
{
	qsort(t->outcomes, t->n, sizeof(t->outcomes[0]), compare_times);
	for (size_t i = 0; i < t->n; i++)
		if (!(t->of[i] = series_of(t->series, &t->outcomes[i])))
			return err_set(e, -ENOMEM, "out of memory");
	struct outcome_batch b = {.outcomes = t->outcomes,
				  .series = t->of,
				  .count = t->n,
				  .user_key = SPAN_NONE,
				  .now_us = end_us,
				  .taps = {&t->tap}};
	t->n = 0;
	return outcome_store_write(t->store, &b, e);
}

static int tell_slot(struct teller *t, int64_t begin_us, struct err *e)
{
	double hours = (double)SLOT_US / (double)HOUR_US * how_busy(begin_us);
	for (size_t i = 0; i < SCENES; i++) {
		double calls = scenes[i].per_hour * hours;
		int n = (int)calls + chance(t, calls - floor(calls));
		for (int k = 0; k < n; k++)
			add_call(t, &scenes[i], begin_us + (int64_t)(uniform(t) * (double)SLOT_US));
	}
	return write_slot(t, begin_us + SLOT_US, e);
}

/* --- events --------------------------------------------------------------------------------------------- */

static void add_event(struct teller *t, double ago, const struct event *like)
{
	struct event one = *like;
	one.time_us = t->end_us - (int64_t)(ago * (double)DAY_US);
	if (*one.operation)
		copy("prompt", one.service, sizeof(one.service));
	events_add(t->events, &one);
}

static void add_moves(struct teller *t, const struct scene *s, double days)
{
	double before = 0;
	for (size_t i = 0; i < STAGES_MAX && s->stages[i].percent; i++) {
		const struct stage *stage = &s->stages[i];
		struct event one = {.kind = EVENT_PERCENT, .before = before, .after = stage->percent};
		copy(s->operation, one.operation, sizeof(one.operation));
		copy(stage->who, one.who, sizeof(one.who));
		copy(stage->why, one.why, sizeof(one.why));
		snprintf(one.what, sizeof(one.what), "%s: %g %% -> %d %%", s->flag, before, stage->percent);
		before = stage->percent;
		if (stage->ago <= days)
			add_event(t, stage->ago, &one);
	}
}

static void add_events(struct teller *t, double days)
{
	const struct {
		double ago;
		struct event event;
	} others[] = {
		{4.018,
		 {.kind = EVENT_LEGACY_GONE, .service = "prompt", .what = "legacy refuses connections"}},
		{4.0, {.kind = EVENT_LEGACY_BACK, .service = "prompt", .what = "legacy answers again"}},
		{2.41,
		 {.kind = EVENT_GUARD_BREACH,
		  .operation = "index",
		  .what = "index fails for more users on the task side"}},
		{2.409, {.kind = EVENT_GUARD_HELD, .operation = "index", .what = "index goes to legacy"}},
		{2.34,
		 {.kind = EVENT_GUARD_RELEASED, .operation = "index", .who = "kim", .what = "another split"}},
	};
	for (size_t i = 0; i < SCENES; i++)
		add_moves(t, &scenes[i], days);
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
		struct event one = others[i].event;
		one.before = one.after = EVENT_NO_PERCENT;
		if (others[i].ago <= days)
			add_event(t, others[i].ago, &one);
	}
}

/* -------------------------------------------------------------------------------------------------------- */

static int tell(struct teller *t, int64_t begin_us, struct err *e)
{
	int r = 0;
	add_events(t, (double)(t->end_us - begin_us) / (double)DAY_US);
	for (int64_t at = begin_us; r == 0 && at < t->end_us; at += SLOT_US)
		r = tell_slot(t, at, e);
	return r;
}

static int tell_into(const char *path, double days, struct err *e)
{
	struct teller *t = calloc(1, sizeof(*t));
	if (!t || series_table_new(&t->series) < 0 || events_new(&t->events) < 0)
		return err_set(e, -ENOMEM, "out of memory");
	t->random = 12;
	t->end_us = clock_wall_us() / SLOT_US * SLOT_US;
	struct demo_history mark = {t->end_us - (int64_t)(days * (double)DAY_US) / SLOT_US * SLOT_US,
				    t->end_us};
	events_tap(t->events, &t->tap);
	int r = outcome_store_open(path, t->series, &t->store, e);
	if (r == 0) /* first: nothing of it is ever without its mark */
		r = demo_history_write(outcome_store_db(t->store), &mark, e);
	if (r == 0)
		r = t->tap.opened(t->tap.arg, outcome_store_db(t->store), e);
	if (r == 0)
		r = tell(t, mark.since_us, e);
	t->tap.closed(t->tap.arg);
	outcome_store_close(t->store);
	events_free(t->events);
	series_table_free(t->series);
	free(t);
	return r;
}

int main(int argc, char **argv)
{
	double days = argc > 2 ? strtod(argv[2], NULL) : 7;
	struct err e = {""};
	if (argc < 2 || argc > 3 || !(days > 0 && days <= 60)) {
		fprintf(stderr, "usage: demo-history FILE [DAYS]   (at most 60)\n");
		return 2;
	}
	if (access(argv[1], F_OK) == 0) {
		fprintf(stderr, "%s: exists; real outcomes are not mixed with made-up ones\n", argv[1]);
		return 2;
	}
	if (crypto_setup() < 0 || tell_into(argv[1], days, &e) < 0) {
		fprintf(stderr, "%s\n", e.text);
		return 1;
	}
	return 0;
}
