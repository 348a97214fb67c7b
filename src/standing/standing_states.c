/* What is known without counting: the router itself, its flags, stores, backends and legacy services. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "standing/standing_internal.h"

#define AHEAD_US (5 * 60 * 1000000LL) /* a report of a time to come is of a clock that was wrong */
#define BACKLOG_STANDS 10 /* that wait and never fewer: no luck of the moments at which it was looked */
#define NAMED_MAX 2	  /* operations that a sentence names */

static void say(struct standing_finding *worst, enum standing_level level, enum standing_rank rank,
		const char *command, const char *next, const char *format, ...)
	__attribute__((format(printf, 6, 7)));

static void say(struct standing_finding *worst, enum standing_level level, enum standing_rank rank,
		const char *command, const char *next, const char *format, ...)
{
	struct standing_finding f = {.level = level, .rank = rank};
	va_list args;
	va_start(args, format);
	vsnprintf(f.sentence, sizeof(f.sentence), format, args);
	va_end(args);
	snprintf(f.command, sizeof(f.command), "%s", command);
	snprintf(f.next, sizeof(f.next), "%s", next);
	standing_find(worst, &f);
}

/* --- the router ----------------------------------------------------------------------------------------- */

static void judge_report(const struct standing *s, struct standing_finding *worst)
{
	const struct standing_facts *f = s->facts;
	char when[STANDING_TIME_MAX], command[STANDING_TEXT_MAX] = "";
	if (!f) {
		say(worst, STANDING_WATCH, RANK_SILENT, "",
		    "start a router of this version: it reports what it knows into the same file",
		    "no router has reported what it knows (never, or an older version): only outcomes are "
		    "known");
		return;
	}
	standing_time(f->time_us, s->made_us, when);
	if (f->stopped)
		say(worst, STANDING_STOP, RANK_SILENT, "", "start the router", "the router was stopped at %s",
		    when);
	else if (s->made_us - f->time_us > STANDING_SILENT_US || f->time_us - s->made_us > AHEAD_US) {
		if (f->admin[0])
			snprintf(command, sizeof(command), "curl -i http://%s/readyz", f->admin);
		say(worst, STANDING_STOP, RANK_SILENT, command,
		    "see whether it runs, and can write its database",
		    "the router has not reported since %s: nothing later is known", when);
	}
}

static void judge_router(const struct standing_facts *f, struct standing_finding *worst)
{
	if (!f->accepting)
		say(worst, STANDING_STOP, RANK_ROUTER, "", "raise its limits, or find what uses them up",
		    "the router cannot accept connections: out of descriptors or memory");
	else if (f->draining)
		say(worst, STANDING_WATCH, RANK_ROUTER, "", "", "the router is shutting down");
}

static void judge_store(const struct standing *s, const struct standing_store *store, enum standing_rank rank,
			const char *what, const char *effect, struct standing_finding *worst)
{
	char since[STANDING_TIME_MAX];
	if (store->failing)
		say(worst, STANDING_STOP, rank, "",
		    "free or repair what the error names; it recovers by itself",
		    "%s cannot be written since %s: %s (%.200s)", what,
		    standing_time(store->since_us, s->made_us, since), effect, store->last_error);
}

static void judge_guard_works(const struct standing_facts *f, struct standing_finding *worst)
{
	if (f->guard_trouble[0])
		say(worst, STANDING_WATCH, RANK_STATE, "", "",
		    "the guard cannot work, nobody watches whether the task side is worse: %.250s",
		    f->guard_trouble);
	if (f->state_warning[0])
		say(worst, STANDING_WATCH, RANK_STATE, "", "", "the state store may lose what it has: %.250s",
		    f->state_warning);
}

/* --- flags ---------------------------------------------------------------------------------------------- */

static void judge_flags(const struct standing *s, struct standing_finding *worst)
{
	const struct standing_flags *f = &s->facts->flags;
	char since[STANDING_TIME_MAX], good[STANDING_TIME_MAX], command[STANDING_TEXT_MAX];
	standing_time(f->failing_since_us, s->made_us, since);
	standing_check_command(s->facts, "", command);
	if (s->facts->n_operations == 0)
		return; /* nobody asks for one */
	if (!f->loaded)
		say(worst, STANDING_STOP, RANK_FLAGS, command, "",
		    "no flags have been loaded; the environment's defaults serve, else legacy: %.250s",
		    f->last_error);
	else if (f->failing)
		say(worst, STANDING_STOP, RANK_FLAGS, command, "",
		    "flags cannot be read since %s, those of %s serve and nothing can be changed: %.250s",
		    since, standing_time(f->confirmed_us, s->made_us, good), f->last_error);
	else if (f->broken)
		say(worst, STANDING_STOP, RANK_FLAGS, command, "",
		    "%u flag%s in use cannot be understood (%.100s), and legacy serves whatever is set",
		    f->broken, f->broken == 1 ? "" : "s", f->broken_name);
	else if (f->vanished)
		say(worst, STANDING_WATCH, RANK_FLAGS, command,
		    "put it back, or take it out of the configuration",
		    "%u flag%s in use vanished from the source (%.100s); the last definition serves",
		    f->vanished, f->vanished == 1 ? "" : "s", f->vanished_name);
	else if (f->unsaved)
		say(worst, STANDING_WATCH, RANK_FLAGS, "", "",
		    "the flags in use cannot be saved: a restart would begin with older ones");
}

/* --- backends ------------------------------------------------------------------------------------------- */

/* The operations whose task would go there and that send, or should send, somebody. */
struct affected {
	char names[220];
	size_t n;
	double set;		/* of the first */
	uint64_t tasks, failed; /* in the window */
	const struct standing_operation *first;
};

static bool sends_tasks(const struct standing_operation *o)
{
	return o->facts.set > 0 || o->facts.shadow > 0 || o->facts.n_segments > 0;
}

static void add_affected(struct affected *a, const struct standing_operation *o)
{
	const struct report_rate *task = &o->window.sides[OUTCOME_TASK].attempts;
	char set[STANDING_NUMBER_MAX];
	size_t at = strlen(a->names);
	if (a->n < NAMED_MAX)
		snprintf(a->names + at, sizeof(a->names) - at, "%s%s (%s set)", a->n ? ", " : "", o->name,
			 standing_percent(o->facts.set, set));
	a->first = a->first ? a->first : o;
	a->tasks += task->counted;
	a->failed += task->counted - task->results[OUTCOME_SUCCESS];
	a->n++;
}

static struct affected affected_by(const struct standing *s, const char *backend)
{
	struct affected a = {.n = 0};
	for (size_t i = 0; i < s->n_operations; i++)
		if (strcmp(s->operations[i].facts.backend, backend) == 0 && sends_tasks(&s->operations[i]))
			add_affected(&a, &s->operations[i]);
	if (a.n > NAMED_MAX)
		snprintf(a.names + strlen(a.names), sizeof(a.names) - strlen(a.names), " and %zu more",
			 a.n - NAMED_MAX);
	return a;
}

/* What becomes of the calls meanwhile. */
static const char *fate(const struct affected *a, char out[STANDING_WHY_MAX])
{
	char n[STANDING_NUMBER_MAX];
	if (a->first && a->first->facts.not_ready[0])
		snprintf(out, STANDING_WHY_MAX, "legacy serves %s instead", a->names);
	else if (a->failed)
		snprintf(out, STANDING_WHY_MAX, "%s task%s of %s failed or timed out",
			 standing_count(a->failed, n), a->failed == 1 ? "" : "s", a->names);
	else
		snprintf(out, STANDING_WHY_MAX, "tasks of %s wait", a->names);
	return out;
}

/* A worker is there, but not enough of them. */
static void judge_backlog(const struct standing_backend *b, const struct affected *a,
			  struct standing_finding *worst)
{
	char n[STANDING_NUMBER_MAX];
	say(worst, STANDING_WATCH, RANK_BACKEND, "", "add workers, or go back until the queue is short",
	    "workers of %s do not keep up: for minutes no fewer than %s task%s waited%s%s", b->name,
	    standing_count((uint64_t)b->backlog_floor, n), b->backlog_floor == 1 ? "" : "s",
	    a->n ? ", before those of " : "", a->n ? a->names : "");
}

static void judge_backend(const struct standing *s, const struct standing_backend *b,
			  struct standing_finding *worst)
{
	struct affected a = affected_by(s, b->name);
	enum standing_level level = a.n ? STANDING_STOP : STANDING_WATCH;
	char since[STANDING_TIME_MAX], meanwhile[STANDING_WHY_MAX], command[STANDING_TEXT_MAX];
	const char *next = "";
	standing_check_command(s->facts, " --backends", command);
	if (a.n && a.failed && a.first->facts.flag[0]) {
		standing_rollout_command(s->facts, "rollback", a.first->facts.flag, command);
		next = "everybody goes to legacy until it is back";
	}
	fate(&a, meanwhile);
	standing_time(b->since_us, s->made_us, since);
	if (b->known && !b->reachable)
		say(worst, level, RANK_BACKEND, command, next, "%s cannot be reached since %s%s%s: %.150s",
		    b->name, since, a.n ? "; " : "", a.n ? meanwhile : "", b->detail);
	else if (b->known && !b->worker)
		say(worst, level, RANK_BACKEND, command,
		    *next ? next : "start a worker; it is noticed within seconds",
		    "%s has no worker since %s%s%s", b->name, since, a.n ? "; " : "", a.n ? meanwhile : "");
	else if (strcmp(b->breaker, "open") == 0)
		say(worst, level, RANK_BACKEND, command, next,
		    "%s does not answer: its circuit breaker is open since %s and legacy serves%s%s (%.120s)",
		    b->name, standing_time(b->breaker_since_us, s->made_us, since), a.n ? " " : "", a.names,
		    b->breaker_why);
	else if (b->known && b->backlog_floor >= BACKLOG_STANDS)
		judge_backlog(b, &a, worst);
}

/* --- legacy --------------------------------------------------------------------------------------------- */

static uint64_t legacy_failures(const struct standing *s, const char *service, bool *ret_all)
{
	uint64_t failed = 0, counted = 0;
	for (size_t i = 0; i < s->n_operations; i++) {
		const struct report_rate *a = &s->operations[i].window.sides[OUTCOME_LEGACY].attempts;
		if (strcmp(s->operations[i].service, service) != 0)
			continue;
		failed += a->counted - a->results[OUTCOME_SUCCESS];
		counted += a->counted;
	}
	*ret_all = counted > 0 && failed == counted;
	return failed;
}

static bool has_segment_below(const struct standing_operation_facts *o, double percent)
{
	for (size_t i = 0; i < o->n_segments; i++)
		if (o->segments[i].percent < percent)
			return true;
	return false;
}

/* Whether anybody of this service may still be sent to legacy. */
static bool is_needed(const struct standing *s, const char *service)
{
	bool any = false;
	for (size_t i = 0; i < s->n_operations; i++) {
		const struct standing_operation *o = &s->operations[i];
		if (strcmp(o->service, service) != 0)
			continue;
		any = true;
		if (o->facts.set < 100 || o->facts.held || o->facts.not_ready[0] ||
		    has_segment_below(&o->facts, 100))
			return true;
	}
	return !any;
}

static void judge_legacy(const struct standing *s, const struct standing_legacy *l,
			 struct standing_finding *worst)
{
	char since[STANDING_TIME_MAX], command[STANDING_TEXT_MAX] = "", quoted[160], n[STANDING_NUMBER_MAX];
	bool all;
	uint64_t failed = legacy_failures(s, l->service, &all);
	if (!l->known || (l->reachable && !l->failing[0]))
		return;
	if (l->address[0]) {
		standing_quote(l->address, quoted, sizeof(quoted));
		snprintf(command, sizeof(command), "curl -i %s", quoted);
	}
	standing_time(l->since_us, s->made_us, since);
	if (!l->reachable && failed)
		say(worst, STANDING_STOP, RANK_LEGACY, command, "",
		    "legacy %s is gone since %s (%s): %s%s calls failed in the last 15 minutes", l->service,
		    since, l->failing, all ? "all " : "", standing_count(failed, n));
	else if (!l->reachable && l->per_minute > 0) /* also of what cannot move, and is in no list */
		say(worst, STANDING_STOP, RANK_LEGACY, command, "",
		    "legacy %s is gone since %s (%s): %.1f calls fail per minute", l->service, since,
		    l->failing, l->per_minute);
	else if (!l->reachable)
		say(worst, is_needed(s, l->service) ? STANDING_STOP : STANDING_WATCH, RANK_LEGACY, command,
		    "", "legacy %s is gone since %s (%s)", l->service, since, l->failing);
	else
		say(worst, STANDING_WATCH, RANK_LEGACY, command, "",
		    "legacy %s answers, but not always (%s): %.1f errors per minute", l->service, l->failing,
		    l->per_minute);
}

/* --- all ------------------------------------------------------------------------------------------------ */

void standing_judge_states(const struct standing *s, struct standing_finding *worst)
{
	const struct standing_facts *f = s->facts;
	judge_report(s, worst);
	if (!f)
		return;
	judge_router(f, worst);
	judge_store(s, &f->recorder, RANK_RECORDER, "outcomes", "the figures are not whole", worst);
	judge_flags(s, worst);
	judge_store(s, &f->state, RANK_STATE, "the ledger of follow-up calls",
		    "follow-up calls are refused, nothing can be started", worst);
	judge_store(s, &f->keys, RANK_STATE, "the store of idempotency keys",
		    "requests with a key are refused", worst);
	judge_guard_works(f, worst);
	for (size_t i = 0; i < f->n_backends; i++)
		judge_backend(s, &f->backends[i], worst);
	for (size_t i = 0; i < f->n_legacy; i++)
		judge_legacy(s, &f->legacy[i], worst);
}
