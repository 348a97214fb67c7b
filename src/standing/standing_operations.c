/* The verdict on one operation: what is known of it, then what the window says. */
#include <stdio.h>
#include <string.h>

#include "standing/standing_internal.h"

#define FAILING_FEW 3	   /* attempts without one success */
#define FAILING_COUNTED 5  /* attempts of which most certainly fail */
#define FAILING_RATE 0.5   /* what is certainly below it fails */
#define WORSE_STOP 0.05	   /* a side that certainly succeeds so much less often */
#define REJECTED_STOP 0.05 /* what is certainly rejected so much more often */
#define SLOWER_TIMES 2	   /* as the gate's defaults: tasks take certainly longer */
#define SLOWER_US 1000000
#define DIVERTED_MIN 5	    /* requests */
#define DIVERTED_SHARE 0.05 /* of the decisions */

struct judging {
	struct standing_operation *o;
	const struct standing_facts *f;
	int64_t now_us;
	char since[STANDING_TIME_MAX];
};

/* false: it has nothing to say. The first that speaks counts, so the order is by what explains the rest. */
typedef bool (*judge)(struct judging *j);

static const struct report_rate *rate_of(const struct judging *j, enum outcome_side side)
{
	return &j->o->window.sides[side].attempts;
}

static void say(struct judging *j, enum standing_level level, const char *verdict)
{
	j->o->level = level;
	snprintf(j->o->verdict, sizeof(j->o->verdict), "%s", verdict);
}

/* Everybody to legacy: safe unless legacy is what fails. */
static void propose_rollback(struct judging *j)
{
	if (j->o->facts.flag[0])
		standing_rollout_command(j->f, "rollback", j->o->facts.flag, j->o->command);
}

static bool judge_guard(struct judging *j)
{
	const struct standing_operation_facts *f = &j->o->facts;
	char since[STANDING_TIME_MAX];
	if (!f->held && !(f->guard_judged && f->guard == GUARD_BREACH))
		return false;
	if (f->held)
		snprintf(j->o->why, sizeof(j->o->why),
			 "the guard holds it on legacy since %s, as the task side is worse: %.200s",
			 standing_time(f->held_us, j->now_us, since), f->guard_why);
	else
		snprintf(j->o->why, sizeof(j->o->why),
			 "the guard finds the task side worse, and only watches: %.200s", f->guard_why);
	say(j, STANDING_STOP, f->held ? "held" : "breach");
	propose_rollback(j);
	return true;
}

/* "44 failure, 5 timeout" */
static void what_failed(const struct report_rate *a, char out[STANDING_WHY_MAX])
{
	size_t at = 0;
	out[0] = '\0';
	for (int i = 0; i < OUTCOME_RESULT_COUNT && at + 48 < STANDING_WHY_MAX; i++)
		if (i != OUTCOME_SUCCESS && outcome_is_counted(i) && a->results[i])
			at += (size_t)snprintf(out + at, STANDING_WHY_MAX - at, "%s%llu %s", at ? ", " : "",
					       (unsigned long long)a->results[i],
					       outcome_result_text((enum outcome_result)i));
}

static bool is_failing(const struct report_rate *a)
{
	return (a->counted >= FAILING_FEW && a->results[OUTCOME_SUCCESS] == 0) ||
	       (a->counted >= FAILING_COUNTED && a->high < FAILING_RATE);
}

static void describe_failing(struct judging *j, enum outcome_side side)
{
	const struct report_rate *a = rate_of(j, side);
	char failed[STANDING_NUMBER_MAX], all[STANDING_NUMBER_MAX], what[STANDING_WHY_MAX];
	what_failed(a, what);
	snprintf(j->o->why, sizeof(j->o->why), "%s of %s %s failed since %s (%.200s)",
		 standing_count(a->counted - a->results[OUTCOME_SUCCESS], failed),
		 standing_count(a->counted, all), side == OUTCOME_TASK ? "tasks" : "calls of legacy",
		 j->since, what);
}

static bool judge_failing_tasks(struct judging *j)
{
	if (!is_failing(rate_of(j, OUTCOME_TASK)))
		return false;
	describe_failing(j, OUTCOME_TASK);
	say(j, STANDING_STOP, "tasks failing");
	if (!is_failing(rate_of(j, OUTCOME_LEGACY)))
		propose_rollback(j);
	return true;
}

static bool judge_failing_legacy(struct judging *j)
{
	if (!is_failing(rate_of(j, OUTCOME_LEGACY)))
		return false;
	describe_failing(j, OUTCOME_LEGACY);
	say(j, STANDING_STOP, "legacy failing");
	snprintf(j->o->command, sizeof(j->o->command),
		 "migration-status --since 15m --service %s --operation %s", j->o->service, j->o->operation);
	return true;
}

static bool judge_not_ready(struct judging *j)
{
	const struct standing_operation_facts *f = &j->o->facts;
	char since[STANDING_TIME_MAX], set[STANDING_NUMBER_MAX];
	bool wanted = f->set > 0 || f->shadow > 0 || f->n_segments > 0;
	if (!f->not_ready[0])
		return false;
	snprintf(j->o->why, sizeof(j->o->why), "%s set, but legacy serves it since %s: %.200s",
		 standing_percent(f->set, set), standing_time(f->not_ready_since_us, j->now_us, since),
		 f->not_ready);
	say(j, wanted ? STANDING_STOP : STANDING_WATCH, "not ready");
	standing_check_command(j->f, " --backends", j->o->command);
	return true;
}

static bool judge_worse(struct judging *j)
{
	const struct report_rate *task = rate_of(j, OUTCOME_TASK), *legacy = rate_of(j, OUTCOME_LEGACY);
	char ours[STANDING_NUMBER_MAX], theirs[STANDING_NUMBER_MAX];
	if (task->few || legacy->few || task->high >= legacy->low)
		return false;
	snprintf(j->o->why, sizeof(j->o->why), "tasks succeed in %s, legacy in %s since %s",
		 standing_percent(task->rate * 100, ours), standing_percent(legacy->rate * 100, theirs),
		 j->since);
	say(j, legacy->low - task->high >= WORSE_STOP ? STANDING_STOP : STANDING_WATCH, "worse");
	propose_rollback(j);
	return true;
}

/* Rejected attempts are in no success rate: whoever calls may be wrong. But the callers of both sides are
 * wrong as often, unless a side refuses what the other takes. */
static void rejected_of(const struct report_rate *a, uint64_t *ret_seen, double *ret_low, double *ret_high)
{
	*ret_seen = a->counted + a->results[OUTCOME_REJECTED];
	*ret_low = 0;
	*ret_high = 1;
	if (*ret_seen)
		report_interval(a->results[OUTCOME_REJECTED], *ret_seen, ret_low, ret_high);
}

static bool judge_rejected(struct judging *j)
{
	const struct report_rate *task = rate_of(j, OUTCOME_TASK), *legacy = rate_of(j, OUTCOME_LEGACY);
	uint64_t n, of_legacy, rejected = task->results[OUTCOME_REJECTED];
	double low, high, legacy_low, legacy_high;
	char ours[STANDING_NUMBER_MAX], all[STANDING_NUMBER_MAX], theirs[STANDING_NUMBER_MAX];
	rejected_of(task, &n, &low, &high);
	rejected_of(legacy, &of_legacy, &legacy_low, &legacy_high);
	bool compared = of_legacy >= REPORT_FEW;
	if (n < REPORT_FEW || (compared ? low - legacy_high < REJECTED_STOP : rejected < n))
		return false;
	size_t at = (size_t)snprintf(j->o->why, sizeof(j->o->why), "tasks reject %s of %s calls since %s",
				     standing_count(rejected, ours), standing_count(n, all), j->since);
	if (compared)
		snprintf(j->o->why + at, sizeof(j->o->why) - at, ", legacy %s of %s",
			 standing_count(legacy->results[OUTCOME_REJECTED], ours),
			 standing_count(of_legacy, theirs));
	else
		snprintf(j->o->why + at, sizeof(j->o->why) - at, ", with too few of legacy to compare with");
	say(j, compared ? STANDING_STOP : STANDING_WATCH, "rejecting");
	propose_rollback(j);
	return true;
}

static bool judge_slower(struct judging *j)
{
	const struct report_rate *task = rate_of(j, OUTCOME_TASK), *legacy = rate_of(j, OUTCOME_LEGACY);
	if (task->counted < REPORT_FEW || legacy->counted < REPORT_FEW || task->p95_us < 0 ||
	    legacy->p95_us < 0 || task->p95_us <= legacy->p95_us * SLOWER_TIMES ||
	    task->p95_us - legacy->p95_us <= SLOWER_US)
		return false;
	snprintf(j->o->why, sizeof(j->o->why),
		 "1 of 20 tasks takes %.1f s or longer, of legacy %.1f s, since %s",
		 (double)task->p95_us / 1e6, (double)legacy->p95_us / 1e6, j->since);
	say(j, STANDING_WATCH, "slower");
	propose_rollback(j);
	return true;
}

static bool judge_mismatch(struct judging *j)
{
	const struct standing_operation_facts *f = &j->o->facts;
	if (!f->guard_judged || f->guard != GUARD_SHARE_MISMATCH)
		return false;
	snprintf(j->o->why, sizeof(j->o->why), "the share is not what the flags say: %.250s", f->guard_why);
	say(j, STANDING_WATCH, "share mismatch");
	return true;
}

/* Who was meant for the task side, or may have been, and was served by legacy. */
static bool is_diversion(int reason)
{
	switch (reason) {
	case REASON_NO_IDENTITY:
	case REASON_BREAKER_OPEN:
	case REASON_GUARD:
	case REASON_BODY_TOO_LARGE:
	case REASON_INPUT_TOO_LARGE:
	case REASON_INPUT_NOT_REPRESENTABLE:
	case REASON_BACKEND_UNKNOWN:
	case REASON_BACKEND_NOT_READY:
	case REASON_BACKEND_BUSY:
	case REASON_FLAG_MISSING:
	case REASON_FLAG_UNAVAILABLE:
	case REASON_FLAG_BROKEN:
	case REASON_STATE_UNAVAILABLE:
	case REASON_PIN_UNKNOWN:
		return true;
	default:
		return false;
	}
}

static bool judge_diverted(struct judging *j)
{
	const uint64_t *reasons = j->o->window.reasons;
	uint64_t all = 0, diverted = 0;
	int most = 0;
	char share[STANDING_NUMBER_MAX];
	for (int i = 0; i < REASON_COUNT; i++) {
		all += reasons[i];
		if (!is_diversion(i))
			continue;
		diverted += reasons[i];
		if (!is_diversion(most) || reasons[i] > reasons[most])
			most = i;
	}
	if (diverted < DIVERTED_MIN || (double)diverted < DIVERTED_SHARE * (double)all)
		return false;
	snprintf(j->o->why, sizeof(j->o->why),
		 "%s of its requests went to legacy whatever is set, mostly %s: %s",
		 standing_percent(100.0 * (double)diverted / (double)all, share),
		 outcome_reason_text((enum outcome_reason)most),
		 outcome_reason_meaning((enum outcome_reason)most));
	say(j, STANDING_WATCH, "diverted");
	return true;
}

static bool judge_unknown(struct judging *j)
{
	uint64_t n = rate_of(j, OUTCOME_TASK)->results[OUTCOME_UNKNOWN];
	if (n == 0)
		return false;
	snprintf(j->o->why, sizeof(j->o->why),
		 "%llu call%s since %s that may or may not have run: submitted, without an answer",
		 (unsigned long long)n, n == 1 ? "" : "s", j->since);
	say(j, STANDING_WATCH, "unknown results");
	return true;
}

static bool judge_idle(struct judging *j)
{
	if (j->o->window.executions)
		return false;
	snprintf(j->o->why, sizeof(j->o->why), "no requests since %s", j->since);
	say(j, STANDING_EMPTY, "no requests");
	return true;
}

static bool judge_well(struct judging *j)
{
	const struct standing_operation_facts *f = &j->o->facts;
	if (f->guard_judged && f->guard == GUARD_SAFE)
		say(j, STANDING_OK, "safe");
	else if (rate_of(j, OUTCOME_TASK)->counted == 0)
		say(j, STANDING_OK, "on legacy");
	else if (f->guard_judged || rate_of(j, OUTCOME_TASK)->few)
		say(j, STANDING_OK, "not enough data");
	else
		say(j, STANDING_OK, "no worse so far");
	return true;
}

bool standing_is_set_within(const struct standing_operation_facts *f, int64_t since_us, int64_t now_us)
{
	return f->set_since_us > since_us && f->set_since_us <= now_us;
}

void standing_judge_operation(struct standing_operation *o, const struct standing_facts *f, int64_t now_us)
{
	static const judge all[] = {judge_guard,     judge_failing_legacy, judge_failing_tasks,
				    judge_not_ready, judge_worse,	   judge_rejected,
				    judge_mismatch,  judge_slower,	   judge_diverted,
				    judge_unknown,   judge_idle,	   judge_well};
	struct judging j = {.o = o, .f = f, .now_us = now_us};
	standing_time(o->since_us, now_us, j.since);
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		if (all[i](&j))
			return;
}
