/*
 * advance: judge the step a flag is on, and take the next one (design, "Phases").
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "move/move.h"
#include "move/evidence.h"
#include "move/history.h"
#include "move/position.h"

#define EVIDENCE_BYTES_MAX 32768 /* of the history's line */

struct advancing {
	struct rollout_place *place;
	const struct move_request *arguments;
	const struct rollout_steps *steps;
	struct flag_users users;
	char *journal;
	struct phase_state state; /* as judged */
	int step;
	char label[PHASE_LABEL_MAX], next[PHASE_LABEL_MAX];
	struct buf evidence;
	int64_t began_us; /* of this look */
	char *said;	  /* last, while watching */
	size_t said_size;
	struct move_done *done;
};

/* --- judging -------------------------------------------------------------------------------------------- */

/* Noted, so that it holds from now on. */
static int advance_note(struct advancing *v, struct history_reached *ret, struct err *e)
{
	struct rollout_record seen = {.command = "observe",
				      .flag = v->arguments->flag,
				      .source = v->place->name,
				      .percent = -1,
				      .from = v->state.everybody,
				      .to = v->state.everybody,
				      .step = v->label,
				      .result = "seen"};
	ret->since_us = clock_wall_us();
	if (v->arguments->dry_run)
		return 0;
	int r = history_write(v->journal, &seen, e);
	return r < 0 ? err_prefix(e, r, "the step could not be recorded in the history") : 0;
}

static int advance_stand(struct advancing *v, struct err *e)
{
	char labels[512];
	int r = place_read(v->place, e);
	if (r == 0)
		r = position_state(v->place, &v->users, v->steps, &v->state, e);
	if (r == 0)
		r = position_check_steps(v->place, &v->users, v->steps, e);
	if (r < 0)
		return r;
	phase_labels(v->steps, labels, sizeof(labels));
	if (v->state.disabled)
		return err_set(e, -EINVAL, "%s is disabled: enable it first", v->arguments->flag);
	v->step = phase_stands(v->steps, &v->state);
	if (v->step == PHASE_NOWHERE)
		return err_set(e, -EINVAL,
			       "%s has %g %% of everybody on the task side, which (with its segments) "
			       "matches none of its steps (%s): set it to one of them",
			       v->arguments->flag, v->state.everybody, labels);
	phase_label(&v->steps->steps[v->step], v->label);
	return 0;
}

/* A person at a terminal may say the word that is missing. */
static bool advance_asks(const struct advancing *v, const char *why)
{
	const struct move_voice *voice = &v->place->voice;
	char question[PHASE_WHY_MAX + 512];
	snprintf(question, sizeof(question), "%s: from %s to %s: %s\nIts rollout requires confirmation.",
		 v->arguments->flag, v->label, v->next, why);
	return voice->ask && voice->ask(voice->arg, question) > 0;
}

static void advance_judge(struct advancing *v, const struct history_reached *reached, enum phase_verdict *ret,
			  char why[PHASE_WHY_MAX])
{
	struct phase_evidence found = {.now_us = clock_wall_us(), .person = v->arguments->yes};
	struct flag_snapshot *flags = NULL;
	struct err ignored; /* it was parsed just now */
	place_parse(v->place, buf_span(&v->place->flags), &flags, &ignored);
	const struct evidence_question q = {
		.flags = flags,
		.config = v->place->config,
		.users = &v->users,
		.since_us = reached->since_us,
		.of_segment = v->state.everybody <= 0,
		.has_task = phase_has_task(v->steps, v->step),
	};
	buf_clear(&v->evidence);
	evidence_read(&q, &found, &v->evidence);
	flag_snapshot_unref(flags);
	if (v->evidence.error) {
		buf_release(&v->evidence);
		v->evidence = BUF_INIT(EVIDENCE_BYTES_MAX);
		buf_puts(&v->evidence, "{\"operations\":[],\"cut\":true}");
	}
	*ret = phase_judge(v->steps, v->step, &found, why);
	if (*ret == PHASE_WAIT && !found.person) { /* whether nothing but a person's word is missing */
		char without[PHASE_WHY_MAX];
		found.person = true;
		if (phase_judge(v->steps, v->step, &found, without) == PHASE_GO && advance_asks(v, without)) {
			*ret = PHASE_GO;
			memcpy(why, without, sizeof(without));
		}
	}
}

/* --- the step ------------------------------------------------------------------------------------------- */

/* What was judged is what is written upon. */
static int advance_still(void *arg, const struct rollout_place *p, const struct move_seen *seen,
			 struct err *e)
{
	struct advancing *v = arg;
	struct phase_state now;
	bool agrees = false;
	int r = position_state(p, &v->users, v->steps, &now, e);
	if (r == 0)
		r = position_document_agrees(p, &v->users, &agrees, e);
	if (r < 0)
		return r;
	if (agrees && position_same(v->steps, &now, &v->state))
		return v->arguments->still ? v->arguments->still(v->arguments->still_arg, p, seen, e) : 0;
	return err_set(e, -ESTALE, "%s was changed by someone else in the meantime", v->arguments->flag);
}

static int advance_make(struct advancing *v, struct err *e)
{
	const struct rollout_step *next = &v->steps->steps[v->step + 1];
	CLEANUP(freep) char *segment = next->segment.ptr ? span_dup(next->segment) : NULL;
	struct move_request a = *v->arguments;
	if (next->segment.ptr && !segment)
		return err_set(e, -ENOMEM, "out of memory");
	a.percent = next->percent;
	a.segment = segment;
	a.step = v->next;
	a.evidence = buf_span(&v->evidence);
	a.still = advance_still;
	a.still_arg = v;
	return move_change(v->place, &a, v->done, e);
}

static int advance_tell(struct advancing *v, enum phase_verdict verdict, const char *why)
{
	if (strcmp(why, v->said) != 0) {
		place_say(v->place, MOVE_SAYS, "%s is on %s, the next step is %s\n%s: %s\n",
			  v->arguments->flag, v->label, v->next,
			  verdict == PHASE_BREACH ? "breach" : "not yet", why);
		snprintf(v->said, v->said_size, "%s", why);
	}
	return verdict == PHASE_BREACH ? MOVE_BREACH : MOVE_NOT_YET;
}

/* Under the lock of the history. */
static int advance_locked(struct advancing *v, struct err *e)
{
	struct history_reached reached;
	enum phase_verdict verdict;
	char why[PHASE_WHY_MAX];
	int r = advance_stand(v, e);
	if (r == 0)
		r = history_reached(v->journal, v->arguments->flag, v->label, &reached, e);
	if (r < 0)
		return r;
	if (reached.advanced_us >= v->began_us)
		return err_set(e, -EALREADY, "someone else has just advanced %s to %s", v->arguments->flag,
			       v->label);
	if ((size_t)v->step + 1 == v->steps->n) {
		place_say(v->place, MOVE_SAYS, "%s is on %s, its last step\n", v->arguments->flag, v->label);
		return MOVE_DONE;
	}
	phase_label(&v->steps->steps[v->step + 1], v->next);
	if (!reached.since_us)
		r = advance_note(v, &reached, e);
	if (r < 0)
		return r;
	advance_judge(v, &reached, &verdict, why);
	if (verdict != PHASE_GO)
		return advance_tell(v, verdict, why);
	place_say(v->place, MOVE_SAYS, "%s: from %s to %s: %s\n", v->arguments->flag, v->label, v->next, why);
	return advance_make(v, e);
}

static int advance_once(struct advancing *v, struct err *e)
{
	CLEANUP(closep) int lock = -1;
	if (!v->arguments->dry_run) {
		lock = history_lock(v->journal, e);
		if (lock < 0)
			return lock;
	}
	return advance_locked(v, e);
}

int move_advance(struct rollout_place *p, const struct move_request *q, int64_t began_us, char *said,
		 size_t said_size, struct move_done *ret, struct err *e)
{
	struct advancing v = {.began_us = began_us / 1000 * 1000, /* as the history writes it */
			      .place = p,
			      .arguments = q,
			      .steps = config_rollout(p->config, span_of(q->flag)),
			      .said = said,
			      .said_size = said_size,
			      .done = ret,
			      .evidence = BUF_INIT(EVIDENCE_BYTES_MAX)};
	*ret = (struct move_done){.written = false};
	flag_users_init(&v.users, p->config, q->flag);
	int r = v.steps ? history_path(p->config, q->journal, &v.journal, e) : -EINVAL;
	if (!v.steps)
		err_set(e, r, "%s has no steps: it is not listed under \"rollout\" in %s", q->flag,
			q->config ? q->config : "the configuration");
	if (r == 0)
		r = advance_once(&v, e);
	buf_release(&v.evidence);
	free(v.journal);
	return r;
}
