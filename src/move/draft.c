#include "move/draft.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "move/flag_names.h"
#include "move/population.h"

#define KEY_MAX 128

/* --- an unknown flag ------------------------------------------------------------------------------------ */

int draft_find_flag(const struct flag_snapshot *s, const char *key, const struct flag **ret, struct err *e)
{
	CLEANUP(buf_releasep) struct buf list = BUF_INIT(4096);
	*ret = flag_find(s, span_of(key));
	if (*ret)
		return 0;
	flag_names_suggest(s, key, &list);
	return err_set(e, -ENOENT, "there is no flag \"%s\"%s", key, list.len ? list.ptr : "");
}

/* --- the draft ------------------------------------------------------------------------------------------ */

int draft_plan(const struct rollout_document *d, const struct move_request *a, struct rollout_plan *ret,
	       struct err *e)
{
	if (a->percent >= 0)
		return rollout_set(d, a->segment, a->percent, ret, e);
	if (strcmp(a->command, "rollback") == 0)
		return rollout_back(d, ret, e);
	return rollout_enable(d, strcmp(a->command, "enable") == 0, ret, e);
}

/* Growing must not move anyone back, nor shrinking anyone to task: whatever the rules look like, the
 * made-up people tell. */
static int check_moves(const struct decide_input *like, const struct move_request *a,
		       const struct rollout_draft *d, struct err *e)
{
	struct population_moves m = population_moves(like, span_of(a->flag), d->then);
	if (!m.to_task || !m.to_legacy)
		return 0;
	return err_set(e, -EINVAL,
		       "the change would move %.1f %% to task and %.1f %% back to legacy at once: edit the "
		       "rules manually",
		       100.0 * m.to_task / POPULATION_SIZE, 100.0 * m.to_legacy / POPULATION_SIZE);
}

static void look_for_backends(const struct flag_users *u, struct rollout_draft *d)
{
	const struct operation *op;
	struct span backend;
	for (size_t i = 0; (op = flag_users_at(u, i)) && !*d->missing; i++) {
		struct decide_input like = flag_users_like(u, op, d->then);
		if (population_misses_backend(&like, &backend))
			snprintf(d->missing, sizeof(d->missing),
				 "%.*s.%.*s is routed to the backend \"%.*s\", which is not configured: "
				 "legacy serves",
				 SPAN_ARG(op->service), SPAN_ARG(op->name), SPAN_ARG(backend));
	}
}

/* A flag with the same name but for a slip is not the one that operations ask. */
static void look_for_users(const struct flag_users *u, struct rollout_draft *d)
{
	const struct config *c = u->config;
	char close[128] = "";
	if (flag_users_at(u, 0) || !c->n_services) /* none is known in an emergency */
		return;
	for (size_t i = 0; i < c->n_services && !*close; i++)
		for (size_t j = 0; j < c->services[i].n_operations && !*close; j++) {
			const struct operation *op = &c->services[i].operations[j];
			for (size_t k = 0; k < op->n_flags && op->has_task && !*close; k++) {
				char key[KEY_MAX + 1];
				span_copy(op->flags[k], key, sizeof(key));
				if (flag_names_near(key, u->flag))
					snprintf(close, sizeof(close), " (similar: %.100s)", key);
			}
		}
	snprintf(d->unused, sizeof(d->unused),
		 "no operation uses the flag \"%.80s\"%s, so the change moves nobody", u->flag, close);
}

static int judge(const struct flag_users *u, const struct move_request *a, struct rollout_draft *d,
		 struct err *e)
{
	struct decide_input like = flag_users_like(u, flag_users_at(u, 0), d->now);
	struct segment_context members;
	d->from = population_share_of_flag(&like, span_of(a->flag));
	int r = check_moves(&like, a, d, e);
	like.flags = d->then;
	d->to = population_share_of_flag(&like, span_of(a->flag));
	look_for_backends(u, d);
	look_for_users(u, d);
	if (r < 0 || !a->segment)
		return r;
	segment_context_of(flag_find(d->now, span_of(a->flag)), a->segment, &members);
	like.extra = members.entries;
	like.n_extra = members.n;
	d->of_segment = true;
	d->segment_to = population_share_of_flag(&like, span_of(a->flag));
	like.flags = d->now;
	d->segment_from = population_share_of_flag(&like, span_of(a->flag));
	return check_moves(&like, a, d, e);
}

/* Its own fault stops a change, whose effect nobody could know, but no emergency; what other flags suffer
 * from stops nothing. */
static int refuse_broken(const struct move_request *a, const struct flag *f, struct err *e)
{
	if (!flag_broken(f) || move_is_emergency(a))
		return 0;
	return err_set(e, -EINVAL, "flag \"%.80s\" is set aside by routers, legacy serves: fix it first: %s",
		       a->flag, flag_broken(f));
}

int draft_make(const struct rollout_place *p, struct flag_users *u, const struct move_request *a,
	       struct rollout_draft *ret, struct err *e)
{
	CLEANUP(rollout_closep) struct rollout_document *d = NULL;
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(FLAG_MAX_DOCUMENT + 65536);
	const struct flag *f;
	*ret = (struct rollout_draft){.now = NULL};
	int r = place_parse(p, buf_span(&p->flags), &ret->now, e);
	if (r == 0)
		r = draft_find_flag(ret->now, a->flag, &f, e);
	if (r == 0)
		r = refuse_broken(a, f, e);
	if (r == 0)
		r = place_open_flag(p, a->flag, &u->sides, &d, e);
	if (r == 0)
		r = draft_plan(d, a, &ret->plan, e);
	if (r == 0 && *u->disagree && strcmp(a->command, "rollback") != 0)
		r = err_set(e, -EINVAL, "%s: a percentage of %s is ambiguous", u->disagree, a->flag);
	if (r == 0)
		r = rollout_apply(d, &ret->plan, &text, e);
	if (r == 0)
		r = place_parse(p, buf_span(&text), &ret->then, e);
	return r < 0 ? r : judge(u, a, ret, e);
}

void draft_release(struct rollout_draft *d)
{
	flag_snapshot_unref(d->now);
	flag_snapshot_unref(d->then);
	d->now = d->then = NULL;
}

double draft_from(const struct rollout_draft *d)
{
	return d->of_segment ? d->segment_from : d->from;
}

double draft_to(const struct rollout_draft *d)
{
	return d->of_segment ? d->segment_to : d->to;
}

void draft_say_otherwise(const struct rollout_draft *d, const struct move_request *a, char text[256])
{
	const struct flag *f = flag_find(d->then, span_of(a->flag));
	bool waits = flag_type_of(f) == FLAG_VARIANT &&
		     !flag_enabled(f); /* a disabled boolean flag still runs its rollouts */
	text[0] = '\0';
	if (a->percent < 0 || waits || fabs(draft_to(d) - a->percent) <= 0.01)
		return;
	snprintf(text, 256, "%s makes it %g %%, not %g %%",
		 flag_type_of(f) == FLAG_VARIANT ? "an earlier rule" : "another rollout of the flag",
		 draft_to(d), a->percent);
}

void draft_question(const struct rollout_draft *d, const struct move_request *a,
		    char question[DRAFT_QUESTION_MAX])
{
	char parts[4][320] = {"", "", "", ""};
	question[0] = '\0';
	if (move_is_emergency(a))
		return;
	if (a->step)
		; /* agreed upon already */
	else if (d->to > d->from * 2)
		snprintf(parts[0], sizeof(parts[0]), "%g %% → %g %% of everybody more than doubles", d->from,
			 d->to);
	else if (d->of_segment && d->segment_to > d->segment_from * 2)
		snprintf(parts[0], sizeof(parts[0]),
			 "%g %% → %g %% of the segment's members more than doubles", d->segment_from,
			 d->segment_to);
	draft_say_otherwise(d, a, parts[1]);
	snprintf(parts[2], sizeof(parts[2]), "%s", d->missing);
	snprintf(parts[3], sizeof(parts[3]), "%s", d->unused);
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
		size_t at = strlen(question);
		if (*parts[i])
			snprintf(question + at, DRAFT_QUESTION_MAX - at, "%s%s", at ? "; " : "", parts[i]);
	}
}

void draft_change_text(const struct rollout_change *c, char text[256])
{
	const char *was = c->from > 0 ? "true" : "false", *is = c->to > 0 ? "true" : "false";
	switch (c->what) {
	case ROLLOUT_ENABLED:
		snprintf(text, 256, "enabled: %s → %s", was, is);
		break;
	case ROLLOUT_SHARE:
		snprintf(text, 256, "rule %zu, variant \"%s\": %g %% → %g %%", c->rule + 1, c->variant,
			 c->from, c->to);
		break;
	case ROLLOUT_THRESHOLD:
		snprintf(text, 256, "rollout %zu, threshold: %g %% → %g %%", c->rule + 1, c->from, c->to);
		break;
	case ROLLOUT_SEGMENT_VALUE:
		snprintf(text, 256, "rollout %zu, of its segment: %s → %s", c->rule + 1, was, is);
		break;
	}
}

void draft_show_changes(const struct rollout_place *p, const struct rollout_plan *plan)
{
	for (size_t i = 0; i < plan->n; i++) {
		char text[256];
		draft_change_text(&plan->changes[i], text);
		place_say(p, MOVE_SAYS, "  %s\n", text);
	}
}

void draft_notes(const struct rollout_draft *d, const struct move_request *a,
		 void (*each)(void *arg, const char *note), void *arg)
{
	const struct flag *f = flag_find(d->then, span_of(a->flag));
	char otherwise[256];
	if (strcmp(a->command, "disable") == 0 && d->to > 0)
		each(arg, "a disabled boolean flag still runs its rollouts; \"rollback\" moves everybody to "
			  "legacy");
	if (a->percent > 0 && flag_type_of(f) == FLAG_VARIANT && !flag_enabled(f))
		each(arg, "the flag is disabled: its rules apply once it is enabled");
	draft_say_otherwise(d, a, otherwise);
	const char *const notes[] = {d->missing, d->unused, otherwise};
	for (size_t i = 0; i < sizeof(notes) / sizeof(notes[0]); i++)
		if (*notes[i])
			each(arg, notes[i]);
	if (*otherwise && a->percent == 0)
		each(arg, "\"rollback\" moves everybody to legacy");
	for (size_t i = 0; i < flag_snapshot_warnings(d->then); i++)
		if (strstr(flag_snapshot_warning(d->then, i), a->flag))
			each(arg, flag_snapshot_warning(d->then, i));
}

static void show_note(void *arg, const char *note)
{
	place_say(arg, MOVE_SAYS, "  note: %s\n", note);
}

void draft_show_notes(struct rollout_place *p, const struct rollout_draft *d, const struct move_request *a)
{
	draft_notes(d, a, show_note, p);
}
