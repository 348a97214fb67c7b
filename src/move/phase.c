#include "move/phase.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "outcomes/drain/drain.h"

#define EPSILON 0.05 /* below the finest step that Flipt acts in */

static bool phase_shows(const struct rollout_steps *steps, size_t step, const struct phase_state *state)
{
	double everybody = 0;
	for (size_t i = 0; i <= step; i++)
		if (!steps->steps[i].segment.ptr)
			everybody = steps->steps[i].percent;
	if (fabs(state->everybody - everybody) > EPSILON)
		return false;
	for (size_t i = 0; i < steps->n && everybody < 100; i++)
		if (steps->steps[i].segment.ptr && fabs(state->segments[i] - (i <= step ? 100 : 0)) > EPSILON)
			return false;
	return true;
}

int phase_stands(const struct rollout_steps *steps, const struct phase_state *state)
{
	int found = PHASE_NOWHERE;
	for (size_t i = 0; i < steps->n && !state->disabled; i++)
		if (phase_shows(steps, i, state))
			found = (int)i;
	return found;
}

void phase_label(const struct rollout_step *s, char out[PHASE_LABEL_MAX])
{
	if (s->segment.ptr)
		snprintf(out, PHASE_LABEL_MAX, "%.*s", SPAN_ARG(s->segment));
	else
		snprintf(out, PHASE_LABEL_MAX, "%g %%", s->percent);
}

void phase_labels(const struct rollout_steps *steps, char *out, size_t size)
{
	size_t at = 0;
	*out = '\0';
	for (size_t i = 0; i < steps->n && at < size; i++) {
		char label[PHASE_LABEL_MAX];
		phase_label(&steps->steps[i], label);
		at += (size_t)snprintf(out + at, size - at, "%s%s", i ? ", " : "", label);
	}
}

bool phase_has_task(const struct rollout_steps *steps, int step)
{
	for (int i = 0; i <= step; i++)
		if (steps->steps[i].percent > 0)
			return true;
	return false;
}

static bool phase_holds(const struct rollout_step *s, const struct phase_evidence *e, char why[PHASE_WHY_MAX])
{
	char held[32], wanted[32], label[PHASE_LABEL_MAX];
	int64_t held_us = e->now_us - e->since_us;
	if (held_us >= (int64_t)s->hold_ms * 1000)
		return false;
	phase_label(s, label);
	drain_span_text(held_us, held, sizeof(held));
	drain_span_text((int64_t)s->hold_ms * 1000, wanted, sizeof(wanted));
	snprintf(why, PHASE_WHY_MAX, "%s has held for %s of %s", label, held, wanted);
	return true;
}

static bool phase_differs(const struct rollout_step *s, const struct phase_evidence *e,
			  char why[PHASE_WHY_MAX])
{
	if (s->differences_below < 0)
		return false;
	if (!e->differences_known)
		snprintf(why, PHASE_WHY_MAX,
			 "differences below %g %% are required, but nothing has been compared",
			 s->differences_below);
	else if (e->differences >= s->differences_below)
		snprintf(why, PHASE_WHY_MAX,
			 "up to %.3g %% of the answers may differ (%" PRIu64 " of %" PRIu64
			 " did), below %g %% is required",
			 e->differences, e->differing, e->compared, s->differences_below);
	else
		return false;
	return true;
}

enum phase_verdict phase_judge(const struct rollout_steps *steps, int step, const struct phase_evidence *e,
			       char why[PHASE_WHY_MAX])
{
	const struct rollout_step *s = &steps->steps[step];
	memcpy(why, e->why, PHASE_WHY_MAX);
	if (e->breach)
		return PHASE_BREACH;
	if (e->unreadable)
		return PHASE_WAIT;
	if (phase_holds(s, e, why))
		return PHASE_WAIT;
	if (s->safe && !e->safe && phase_has_task(steps, step))
		return PHASE_WAIT; /* the evidence says what is missing */
	if (phase_differs(s, e, why))
		return PHASE_WAIT;
	if (s->manual && !e->person) {
		snprintf(why, PHASE_WHY_MAX, "confirmation by a person is required: --yes");
		return PHASE_WAIT;
	}
	return PHASE_GO;
}

enum phase_stage phase_stage(double everybody, bool segment, double shadow, bool drained)
{
	if (everybody >= 100 - EPSILON / 10)
		return drained ? STAGE_DRAINED : STAGE_COMPLETE;
	if (everybody > 0 || segment)
		return STAGE_ROLLING;
	return shadow > 0 ? STAGE_SHADOW : STAGE_OFF;
}

const char *phase_stage_text(enum phase_stage s)
{
	static const char *const texts[] = {[STAGE_OFF] = "off",
					    [STAGE_SHADOW] = "shadow",
					    [STAGE_ROLLING] = "rolling",
					    [STAGE_COMPLETE] = "complete",
					    [STAGE_DRAINED] = "drained"};
	return texts[s];
}
