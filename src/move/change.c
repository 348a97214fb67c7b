/*
 * set, enable, disable, rollback: draft, ask, write, record, verify, wait.
 */
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/crypto.h"
#include "move/population.h"
#include "move/draft.h"
#include "move/flipt.h"
#include "move/history.h"
#include "move/verify.h"

#define TRIES_MAX 8
#define INSIST_MAX 4	   /* tries of a rollback whose writes fail midway */
#define AGAIN_FIRST_MS 20u /* doubled each time, with jitter, so that two who change at once part */

struct changing {
	struct rollout_place *place;
	const struct move_request *arguments;
	struct flag_users users;
	struct rollout_draft draft;
	struct rollout_plan plan; /* of place->document */
	int64_t written_ms;	  /* monotonic */
	char *journal;
	bool agreed;
	struct rollout_plan agreed_to;
	size_t done;	 /* of the plan's changes, where not all could be written */
	bool blind;	 /* an emergency, where what everybody gets cannot be evaluated */
	bool unrecorded; /* the history could not be written */
};

/* --- before --------------------------------------------------------------------------------------------- */

static bool same_plan(const struct rollout_plan *a, const struct rollout_plan *b)
{
	if (a->n != b->n)
		return false;
	for (size_t i = 0; i < a->n; i++) {
		const struct rollout_change *x = &a->changes[i], *y = &b->changes[i];
		if (x->what != y->what || x->rule != y->rule || x->share != y->share || x->from != y->from ||
		    x->to != y->to)
			return false;
	}
	return true;
}

static void show_blind(const struct changing *c)
{
	place_say(c->place, MOVE_SAYS, "%s in %s\n", c->arguments->flag, c->place->name);
	draft_show_changes(c->place, &c->plan);
	if (!c->plan.n)
		place_say(c->place, MOVE_SAYS, "  nothing to change\n");
}

static void show(const struct changing *c)
{
	const struct move_request *a = c->arguments;
	const struct rollout_draft *d = &c->draft;
	place_say(c->place, MOVE_SAYS, "%s in %s\n", a->flag, c->place->name);
	draft_show_changes(c->place, &c->plan);
	if (!c->plan.n)
		place_say(c->place, MOVE_SAYS, "  nothing to change\n");
	if (d->of_segment)
		place_say(c->place, MOVE_SAYS, "  of the segment's members: %g %% → %g %% to tasks\n",
			  d->segment_from, d->segment_to);
	place_say(c->place, MOVE_SAYS, "  of everybody: %g %% → %g %% to tasks\n", d->from, d->to);
	draft_show_notes(c->place, d, a);
}

static int ask(const struct changing *c, struct err *e)
{
	const struct move_voice *v = &c->place->voice;
	char question[DRAFT_QUESTION_MAX], whole[DRAFT_QUESTION_MAX + 2];
	draft_question(&c->draft, c->arguments, question);
	if (c->arguments->yes || !*question)
		return 0;
	snprintf(whole, sizeof(whole), "%s.", question);
	int r = v->ask ? v->ask(v->arg, whole) : -1;
	if (r < 0)
		return err_set(e, -ECANCELED, "%s: confirm with --yes", question);
	return r ? 1 : err_set(e, -ECANCELED, "not agreed");
}

static int open_document(struct changing *c, struct rollout_document **ret, struct err *e)
{
	const struct rollout_place *p = c->place;
	struct flag_snapshot *s = NULL;
	int r = place_parse(p, buf_span(&p->flags), &s, e);
	if (r == 0)
		r = rollout_open(place_document_name(p), buf_span(&p->document), c->arguments->flag,
				 &c->users.sides, ret, e);
	if (r == 0 && p->flipt)
		rollout_know_segments(*ret, s);
	flag_snapshot_unref(s);
	return r;
}

static int plan_document(struct changing *c, struct buf *text, struct err *e)
{
	CLEANUP(rollout_closep) struct rollout_document *d = NULL;
	int r = open_document(c, &d, e);
	if (r == 0)
		r = draft_plan(d, c->arguments, &c->plan, e);
	return r < 0 ? r : rollout_apply(d, &c->plan, text, e);
}

/* The flag is looked for in the snapshot first: its message knows the flags' names. */
static int make_judged_draft(struct changing *c, struct buf *text, struct err *e)
{
	struct rollout_place *p = c->place;
	const struct flag *f;
	struct flag_snapshot *s = NULL;
	int r = place_read(p, e);
	if (r == 0)
		r = place_parse(p, buf_span(&p->flags), &s, e);
	if (r == 0)
		r = draft_find_flag(s, c->arguments->flag, &f, e);
	flag_snapshot_unref(s);
	if (r == 0)
		r = place_read_document(p, c->arguments->flag, e);
	if (r == 0)
		r = draft_make(p, &c->users, c->arguments, &c->draft, e);
	return r < 0 ? r : plan_document(c, text, e);
}

static int open_blind(struct changing *c, struct rollout_document **ret, struct err *e)
{
	struct rollout_place *p = c->place;
	struct flag_snapshot *s = NULL;
	int r = rollout_open(place_document_name(p), buf_span(&p->document), c->arguments->flag,
			     &c->users.sides, ret, e);
	/* A rollback asks nobody whom a rule is about. */
	if (r == 0 && p->flipt && c->arguments->percent >= 0 &&
	    flipt_know_segments(p, c->arguments->flag, &s, NULL) == 0)
		rollout_know_segments(*ret, s);
	flag_snapshot_unref(s);
	return r;
}

/* What is written must be what routers read: otherwise they would keep using the last good flags, and
 * nobody would have moved. */
static int refuse_unread(const struct changing *c, struct span text, struct err *e)
{
	struct flag_snapshot *s = NULL;
	struct err why;
	if (c->place->flipt)
		return 0;
	int r = place_parse(c->place, text, &s, &why);
	bool there = r == 0 && flag_find(s, span_of(c->arguments->flag));
	flag_snapshot_unref(s);
	if (r < 0)
		return err_set(e, -EINVAL,
			       "routers cannot read this file, with the change or without it, and keep using "
			       "the last good flags: fix it first: %s",
			       why.text);
	return there ? 0
		     : err_set(e, -EINVAL,
			       "routers would not find the flag \"%.80s\" where it would be changed",
			       c->arguments->flag);
}

/* From the flag's own document alone. */
static int make_blind_draft(struct changing *c, struct buf *text, struct err *e)
{
	CLEANUP(rollout_closep) struct rollout_document *d = NULL;
	struct rollout_place *p = c->place;
	draft_release(&c->draft);
	c->draft = (struct rollout_draft){.from = -1};
	buf_clear(text);
	int r = place_read_document(p, c->arguments->flag, e);
	if (r == 0)
		r = open_blind(c, &d, e);
	if (r == 0)
		r = draft_plan(d, c->arguments, &c->plan, e);
	if (r == 0)
		r = rollout_apply(d, &c->plan, text, e);
	return r < 0 ? r : refuse_unread(c, buf_span(text), e);
}

/* An odd flag of someone else's, an unavailable snapshot, operations that disagree: none of it
 * stops an emergency. */
static int make_draft(struct changing *c, struct buf *text, struct err *e)
{
	struct err blind;
	draft_release(&c->draft);
	buf_clear(text);
	c->blind = false;
	int r = make_judged_draft(c, text, e);
	if (r == 0 || !c->place->insist)
		return r;
	int code = make_blind_draft(c, text, &blind);
	if (code == -EINVAL && !c->place->flipt)
		return err_set(e, code, "%s", blind.text);
	if (code < 0 && r == -EBADMSG && !c->place->flipt) {
		blind = *e;
		return err_set(e, r,
			       "%s: routers cannot read this file either and keep using the last good flags: "
			       "fix that line first",
			       blind.text);
	}
	if (code < 0)
		return r; /* the first sentence knows more */
	place_say(c->place, MOVE_WARNS, "warning: its effect cannot be evaluated: %s\n", e->text);
	c->blind = true;
	return 0;
}

/* --- the write ------------------------------------------------------------------------------------------ */

static void record(struct changing *c, const char *result)
{
	struct err e;
	const struct move_request *a = c->arguments;
	struct rollout_record entry = {.command = a->command,
				       .flag = a->flag,
				       .segment = a->segment,
				       .source = c->place->name,
				       .percent = a->percent,
				       .from = draft_from(&c->draft),
				       .to = draft_to(&c->draft),
				       .plan = &c->plan,
				       .step = a->step,
				       .message = a->message,
				       .evidence = a->evidence,
				       .who = a->who,
				       .result = result};
	c->unrecorded = history_write(c->journal, &entry, &e) < 0;
	if (c->unrecorded)
		place_say(c->place, MOVE_WARNS,
			  "warning: the change could not be recorded in the history: %s\n", e.text);
}

static void say_command(const struct rollout_place *p, const struct move_request *a)
{
	place_say(p, MOVE_WARNS, "  migration-rollout --config %s %s %s", a->config ? a->config : "CONFIG",
		  a->command, a->flag);
	if (a->percent >= 0)
		place_say(p, MOVE_WARNS, " %g", a->percent);
	if (a->segment)
		place_say(p, MOVE_WARNS, " --segment %s", a->segment);
	place_say(p, MOVE_WARNS, "\n");
}

/* v1 takes one value at a time: the first ones are written, the others are not. */
static int half_done(struct changing *c, const struct err *why)
{
	char result[ERR_TEXT_MAX + 64];
	struct rollout_plan stands = c->plan, missing = {.n = c->plan.n - c->done};
	struct err e;
	stands.n = c->done;
	memcpy(missing.changes, c->plan.changes + c->done, missing.n * sizeof(missing.changes[0]));
	place_say(c->place, MOVE_ALARMS, "HALF DONE: %zu of %zu values were written, then: %s\n", c->done,
		  c->plan.n, why->text);
	place_say(c->place, MOVE_SAYS, "Written:\n");
	draft_show_changes(c->place, &stands);
	place_say(c->place, MOVE_SAYS, "Not written:\n");
	draft_show_changes(c->place, &missing);
	if (place_read(c->place, &e) == 0) {
		struct flag_snapshot *s = NULL;
		if (place_parse(c->place, buf_span(&c->place->flags), &s, &e) == 0) {
			struct decide_input like = flag_users_like(&c->users, flag_users_at(&c->users, 0), s);
			place_say(c->place, MOVE_SAYS, "Right now, %g %% of everybody go to tasks.\n",
				  population_share_of_flag(&like, span_of(c->arguments->flag)));
		}
		flag_snapshot_unref(s);
	}
	place_say(c->place, MOVE_WARNS, "To finish, run the same again:\n");
	say_command(c->place, c->arguments);
	snprintf(result, sizeof(result), "HALF DONE: %zu of %zu values: %s", c->done, c->plan.n, why->text);
	record(c, result);
	return MOVE_NOT_AS_ASKED;
}

/* Whether the change is in what the place would edit: there it shows at once. <0: it could not be read. */
static int document_has_change(struct changing *c, struct err *e)
{
	CLEANUP(rollout_closep) struct rollout_document *d = NULL;
	struct rollout_place *p = c->place;
	struct rollout_plan left;
	int r = c->blind ? 0 : place_read(p, e);
	if (r == 0)
		r = place_read_document(p, c->arguments->flag, e);
	if (r == 0 && c->blind)
		r = open_blind(c, &d, e);
	else if (r == 0)
		r = open_document(c, &d, e);
	if (r == 0)
		r = draft_plan(d, c->arguments, &left, e);
	return r < 0 ? r : left.n == 0;
}

/* Sent, and no answer: only reading tells. 0 if the change is in place. */
static int find_out(struct changing *c, struct err *e)
{
	struct err reading;
	place_say(c->place, MOVE_WARNS, "%s\nThe change was sent and may have been made: checking.\n",
		  e->text);
	int r = document_has_change(c, &reading);
	if (r >= 0)
		return r ? 0 : -EIO;
	place_say(c->place, MOVE_ALARMS,
		  "UNKNOWN whether it was made, because reading fails too: %s\nCheck "
		  "with:\n  migration-rollout "
		  "--config %s get %s\n",
		  reading.text, c->arguments->config, c->arguments->flag);
	record(c, "UNKNOWN: sent, and no answer");
	return MOVE_NOT_AS_ASKED;
}

/* A rollback continues by itself where another change would stop and report what was written. */
static bool insists(struct changing *c, int tries, const struct err *why)
{
	char result[ERR_TEXT_MAX + 64];
	if (strcmp(c->arguments->command, "rollback") != 0 || tries >= INSIST_MAX)
		return false;
	place_say(c->place, MOVE_WARNS, "%s\nTrying again.\n", why->text);
	snprintf(result, sizeof(result), "NOT YET: %s", why->text);
	record(c, result);
	return true;
}

static int judge_write(struct changing *c, enum place_written w, int tries, struct err *e)
{
	switch (w) {
	case PLACE_WRITTEN:
		record(c, "done");
		return 0;
	case PLACE_CHANGED_MEANWHILE:
		return -EAGAIN;
	case PLACE_NOT_WRITTEN:
		return -EIO;
	case PLACE_PARTLY_WRITTEN:
	case PLACE_UNKNOWN:
		break;
	}
	if (insists(c, tries, e))
		return -EAGAIN;
	if (w == PLACE_PARTLY_WRITTEN || c->done)
		return half_done(c, e);
	int r = find_out(c, e);
	if (r == 0)
		record(c, "done");
	return r;
}

/* -EAGAIN: to be tried again. What was written is recorded before a signal can end this program. */
static int write_once(struct changing *c, int tries, const struct buf *text, struct err *e)
{
	sigset_t all, before;
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &before);
	enum place_written w =
		place_write(c->place, c->arguments->flag, &c->plan, buf_span(text), &c->done, e);
	c->written_ms = clock_mono_ms();
	int r = judge_write(c, w, tries, e);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return r;
}

/* What is agreed to is what is written: whatever changed meanwhile is shown and asked about again. v1 has no
 * revisions, so that it is read again after a question, which can take long. */
static int write_agreed(struct changing *c, struct err *e)
{
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(FLAG_MAX_DOCUMENT + 65536);
	for (int i = 0; i < TRIES_MAX; i++) {
		int r = make_draft(c, &text, e);
		if (r == 0 && c->arguments->still)
			r = c->arguments->still(c->arguments->still_arg, c->place,
						&(struct move_seen){&c->draft, &c->plan, c->blind}, e);
		if (r < 0)
			return r;
		if (!c->agreed || !same_plan(&c->agreed_to, &c->plan)) {
			(c->blind ? show_blind : show)(c);
			if (c->agreed && !c->plan.n)
				record(c, "done"); /* by the try before, or by someone else */
			if (c->arguments->dry_run || !c->plan.n)
				return 0;
			r = c->blind ? 0 : ask(c, e);
			if (r < 0)
				return r;
			c->agreed = true;
			c->agreed_to = c->plan;
			if (r == 1)
				continue;
		}
		r = write_once(c, i, &text, e);
		if (r != -EAGAIN)
			return r;
		if (!place_pause(c->place, (AGAIN_FIRST_MS << i) + crypto_random_below(AGAIN_FIRST_MS << i)))
			return err_set(e, -ECANCELED, "gave up, since this program is ending");
	}
	return err_set(e, -EBUSY, "someone else keeps changing it; gave up after %d tries", TRIES_MAX);
}

/* --- after ---------------------------------------------------------------------------------------------- */

static int verify_blind(struct changing *c, struct err *e)
{
	int r = document_has_change(c, e);
	if (r == 1)
		place_say(c->place, MOVE_SAYS, "The change is in %s; its effect could not be evaluated.\n",
			  c->place->name);
	if (r == 0)
		return err_set(e, -EAGAIN, "%s does not show the change", c->place->name);
	return r < 0 ? r : 0;
}

static int after(struct changing *c, struct err *e)
{
	char result[ERR_TEXT_MAX + 64];
	int r = c->blind ? verify_blind(c, e)
			 : verify_change(c->place, &c->users, c->arguments, &c->draft, e);
	if (r < 0) {
		place_say(c->place, MOVE_ALARMS,
			  "the change was made, but the result is not as requested: %s\n", e->text);
		snprintf(result, sizeof(result), "NOT AS ASKED: %s", e->text);
		record(c, result);
		return MOVE_NOT_AS_ASKED;
	}
	return 0;
}

/* Nothing may keep a rollback from being made, a journal that cannot be written included. */
static int prepare(struct changing *c, struct err *e)
{
	const struct move_request *a = c->arguments;
	bool back = move_is_emergency(a);
	int r = history_path(c->place->config, a->journal, &c->journal, e);
	if (r == 0 && !a->dry_run && !back && (r = history_writable(c->journal, e)) < 0)
		return err_prefix(e, r, "the change could not be recorded");
	if (r == 0 && a->before && !a->dry_run)
		r = a->before(a->before_arg, e);
	return r;
}

int move_change(struct rollout_place *p, const struct move_request *q, struct move_done *ret, struct err *e)
{
	struct changing c = {.place = p, .arguments = q};
	*ret = (struct move_done){.written = false};
	flag_users_init(&c.users, p->config, q->flag);
	p->insist = move_is_emergency(q);
	int r = prepare(&c, e);
	if (r == 0)
		r = write_agreed(&c, e);
	if (r == 0 && c.agreed)
		r = after(&c, e);
	ret->written = r == 0 && c.agreed;
	ret->unrecorded = c.unrecorded;
	ret->written_ms = c.written_ms;
	draft_release(&c.draft);
	free(c.journal);
	return r;
}
