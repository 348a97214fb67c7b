#include "standing/standing.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "standing/standing_internal.h"

/* --- the operations ------------------------------------------------------------------------------------- */

static void name_operation(struct standing_operation *o)
{
	size_t n = strlen(o->service);
	if (strncmp(o->operation, o->service, n) == 0 && (!o->operation[n] || o->operation[n] == '.'))
		snprintf(o->name, sizeof(o->name), "%s", o->operation);
	else
		snprintf(o->name, sizeof(o->name), "%s.%s", o->service, o->operation);
}

static void put_operation(struct standing *s, const struct standing_operation_facts *f,
			  const struct report_operation *w)
{
	struct standing_operation *o = &s->operations[s->n_operations++];
	o->facts.set = o->facts.next = STANDING_NOT_SET;
	if (f)
		o->facts = *f;
	if (w)
		o->window = *w;
	memcpy(o->service, f ? f->service : w->service, sizeof(o->service));
	memcpy(o->operation, f ? f->operation : w->operation, sizeof(o->operation));
	o->since_us = f && standing_is_set_within(f, s->since_us, s->made_us) ? f->set_since_us : s->since_us;
	o->measured = o->window.executions ? o->window.sides[OUTCOME_TASK].share * 100 : STANDING_NOT_SET;
	name_operation(o);
	standing_judge_operation(o, s->facts, s->made_us);
	s->executions += o->window.executions;
}

static void join_windows(struct standing *s, const struct report *w, struct standing_name *names)
{
	const struct standing_facts *f = s->facts;
	size_t n = w ? w->operation_count : 0;
	for (size_t i = 0; i < n; i++)
		names[i] = (struct standing_name){w->operations[i].service, w->operations[i].operation, i};
	standing_names_sort(names, n);
	for (size_t i = 0; f && i < f->n_operations; i++) {
		const struct standing_name *x = standing_names_find(
			names, n, span_of(f->operations[i].service), span_of(f->operations[i].operation));
		put_operation(s, &f->operations[i], x ? &w->operations[x->at] : NULL);
	}
}

static void join_others(struct standing *s, const struct report *w, struct standing_name *names)
{
	const struct standing_facts *f = s->facts;
	size_t n = f ? f->n_operations : 0;
	for (size_t i = 0; i < n; i++)
		names[i] = (struct standing_name){f->operations[i].service, f->operations[i].operation, i};
	standing_names_sort(names, n);
	for (size_t i = 0; w && i < w->operation_count; i++) {
		const struct report_operation *x = &w->operations[i];
		if (x->can_move && !standing_names_find(names, n, span_of(x->service), span_of(x->operation)))
			put_operation(s, NULL, x);
	}
}

/* Those of the configuration, and what was recorded of others meanwhile (removed since, or no router has
 * reported). */
static int join_operations(struct standing *s, const struct report *w)
{
	const struct standing_facts *f = s->facts;
	size_t n = (f ? f->n_operations : 0) + (w ? w->operation_count : 0);
	struct standing_name *names = calloc(n + 1, sizeof(*names));
	s->operations = calloc(n + 1, sizeof(*s->operations));
	if (names && s->operations) {
		join_windows(s, w, names);
		join_others(s, w, names);
	}
	free(names);
	return names && s->operations ? 0 : -ENOMEM;
}

/* Between two that are well, the one that is on its way is of more interest, then the busier one. */
static bool is_rolling(const struct standing_operation *o)
{
	return (o->facts.set > 0 && o->facts.set < 100) || o->facts.n_segments > 0;
}

static int compare_standings(const void *a, const void *b)
{
	const struct standing_operation *x = a, *y = b;
	if (x->level != y->level)
		return x->level > y->level ? -1 : 1;
	if (is_rolling(x) != is_rolling(y))
		return is_rolling(x) ? -1 : 1;
	if (x->window.executions != y->window.executions)
		return x->window.executions > y->window.executions ? -1 : 1;
	return strcmp(x->name, y->name);
}

static void sum_up(struct standing *s)
{
	double set = 0, measured = 0, weight = 0;
	s->set = s->measured = STANDING_NOT_SET;
	for (size_t i = 0; i < s->n_operations; i++) {
		const struct standing_operation *o = &s->operations[i];
		double n = (double)o->window.executions;
		measured += (double)o->window.sides[OUTCOME_TASK].executions;
		if (o->facts.set < 0)
			continue;
		set += n * o->facts.set;
		weight += n;
	}
	if (s->executions)
		s->measured = 100 * measured / (double)s->executions;
	if (weight > 0)
		s->set = set / weight;
	else if (s->n_operations == 1)
		s->set = s->operations[0].facts.set;
}

/* --- what was left out ---------------------------------------------------------------------------------- */

static void note_left_out(struct standing *s, const struct report *w)
{
	char n[STANDING_NUMBER_MAX];
	s->left_out = w ? w->total.left_out : 0;
	s->without_task = s->facts ? s->facts->without_task : 0;
	if (s->left_out == 0 && s->without_task == 0)
		return;
	snprintf(s->others, sizeof(s->others),
		 "left out, as they cannot move: %zu operation%s without a task, and unknown paths (%s "
		 "answer%s)",
		 s->without_task, s->without_task == 1 ? "" : "s", standing_count(s->left_out, n),
		 s->left_out == 1 ? "" : "s");
}

/* --- the sentence --------------------------------------------------------------------------------------- */

/* "25 % set, 24.8 % measured" */
static void put_percentages(const struct standing_operation *o, char *out, size_t size)
{
	char set[STANDING_NUMBER_MAX], measured[STANDING_NUMBER_MAX];
	size_t at = 0;
	if (o->facts.set >= 0)
		at += (size_t)snprintf(out, size, "%s set", standing_percent(o->facts.set, set));
	else
		at += (size_t)snprintf(out, size, "%s", o->facts.flag[0] ? "set unknown" : "no flag");
	for (size_t i = 0; i < o->facts.n_segments && i < 2 && at < size; i++)
		at += (size_t)snprintf(out + at, size - at, " (%.40s %s)", o->facts.segments[i].name,
				       standing_percent(o->facts.segments[i].percent, set));
	if (at < size && o->measured >= 0)
		snprintf(out + at, size - at, ", %s measured", standing_percent(o->measured, measured));
	else if (at < size)
		snprintf(out + at, size - at, ", nothing measured");
}

static void tell_next(const struct standing_operation *o, const struct standing_facts *f,
		      struct standing_finding *ret)
{
	char next[STANDING_NUMBER_MAX];
	if (o->facts.next < 0 || !o->facts.flag[0]) {
		if (o->facts.set >= 100)
			snprintf(ret->next, sizeof(ret->next), "see whether legacy is still used");
		if (o->facts.set >= 100)
			snprintf(ret->command, sizeof(ret->command), "migration-status --drain");
		return;
	}
	bool unsafe = o->facts.guard_judged && o->facts.guard != GUARD_SAFE;
	snprintf(ret->next, sizeof(ret->next), "%s%s", standing_percent(o->facts.next, next),
		 unsafe ? ", once it is safe" : "");
	if (unsafe) {
		snprintf(ret->command, sizeof(ret->command), "migration-status --gate");
		return;
	}
	if (o->facts.phase[0]) {
		standing_rollout_command(f, "advance", o->facts.flag, ret->command);
		return;
	}
	standing_rollout_command(f, "set", o->facts.flag, ret->command);
	size_t at = strlen(ret->command);
	snprintf(ret->command + at, sizeof(ret->command) - at, " %g", o->facts.next);
}

static void find_of_operation(const struct standing *s, const struct standing_operation *o,
			      struct standing_finding *ret)
{
	char shares[200];
	put_percentages(o, shares, sizeof(shares));
	ret->level = o->level;
	ret->rank = RANK_OPERATION;
	snprintf(ret->command, sizeof(ret->command), "%s", o->command);
	if (o->level == STANDING_EMPTY) {
		snprintf(ret->sentence, sizeof(ret->sentence), "%s: %s; %.100s", o->name, shares, o->why);
		snprintf(ret->next, sizeof(ret->next), "send requests through the router's address of %s",
			 o->service);
	} else if (o->level == STANDING_OK) {
		tell_next(o, s->facts, ret);
		snprintf(ret->sentence, sizeof(ret->sentence), "%s: %s, %s%s%.100s", o->name, shares,
			 o->verdict, ret->next[0] ? "; next: " : "", ret->next);
	} else {
		snprintf(ret->sentence, sizeof(ret->sentence), "%s: %.300s (%.90s)", o->name, o->why, shares);
	}
}

static void add_others(const struct standing *s, struct standing_finding *f)
{
	size_t n = s->n_operations - 1, at = strlen(f->sentence);
	if (f->rank == RANK_OPERATION && n > 0 && f->level <= STANDING_OK)
		snprintf(f->sentence + at, sizeof(f->sentence) - at,
			 " (and %zu other operation%s, none worse)", n, n == 1 ? "" : "s");
}

static void judge_operations(const struct standing *s, struct standing_finding *worst)
{
	struct standing_finding f = {.level = STANDING_EMPTY};
	if (s->n_operations == 0) {
		snprintf(f.sentence, sizeof(f.sentence), "no operation has a task: nothing can move yet");
		snprintf(f.next, sizeof(f.next), "map an operation to a task in router.yml");
		standing_check_command(s->facts, "", f.command);
		f.rank = RANK_MINOR;
	} else {
		find_of_operation(s, &s->operations[0], &f);
		add_others(s, &f);
	}
	standing_find(worst, &f);
}

static void judge_dropped(const struct standing *s, const struct report *w, struct standing_finding *worst)
{
	struct standing_finding f = {.level = STANDING_WATCH, .rank = RANK_MINOR};
	char n[STANDING_NUMBER_MAX];
	(void)s;
	if (!w || w->dropped == 0)
		return;
	snprintf(f.sentence, sizeof(f.sentence),
		 "%s outcomes of the last 15 minutes were not recorded: the figures are too low",
		 standing_count(w->dropped, n));
	standing_find(worst, &f);
}

/* The whole is never calmer than what it is made of: an operation that stands still is not hidden by one
 * that is well. */
static void conclude(struct standing *s, const struct report *w, const char *trouble)
{
	static const char *const words[STANDING_LEVELS] = {"", "", "WATCH: ", "STOP: "};
	struct standing_finding worst = {.level = STANDING_EMPTY, .rank = RANK_MINOR + 1};
	if (trouble) {
		worst = (struct standing_finding){.level = STANDING_STOP, .rank = RANK_UNREADABLE};
		snprintf(worst.sentence, sizeof(worst.sentence), "what was recorded cannot be read: %.400s",
			 trouble);
	}
	standing_judge_states(s, &worst);
	judge_operations(s, &worst);
	judge_dropped(s, w, &worst);
	s->level = worst.level;
	snprintf(s->sentence, sizeof(s->sentence), "%s%.500s", words[s->level], worst.sentence);
	memcpy(s->command, worst.command, sizeof(s->command));
	memcpy(s->next, worst.next, sizeof(s->next));
}

int standing_make(struct standing_facts *facts, const struct report *window, const char *trouble,
		  int64_t now_us, struct standing **ret)
{
	CLEANUP(standing_freep) struct standing *s = calloc(1, sizeof(*s));
	if (!s) {
		standing_facts_free(facts);
		return -ENOMEM;
	}
	s->facts = facts;
	s->made_us = now_us;
	s->since_us = window && window->since_us ? window->since_us : now_us - STANDING_WINDOW_US;
	s->reported_us = facts ? facts->time_us : 0;
	if (join_operations(s, window) < 0)
		return -ENOMEM;
	qsort(s->operations, s->n_operations, sizeof(*s->operations), compare_standings);
	sum_up(s);
	note_left_out(s, window);
	conclude(s, window, trouble);
	*ret = steal(s);
	return 0;
}

struct standing *standing_free(struct standing *s)
{
	if (!s)
		return NULL;
	standing_facts_free(s->facts);
	free(s->operations);
	free(s);
	return NULL;
}
