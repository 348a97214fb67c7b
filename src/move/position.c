#include "move/position.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#include "move/population.h"
#include "move/draft.h"

#define EPSILON 0.05

static void position_read_segments(const struct rollout_document *d, const struct rollout_steps *steps,
				   struct phase_state *ret)
{
	struct rollout_line line;
	for (size_t i = 0; i < rollout_count(d); i++) {
		rollout_line(d, i, &line);
		for (size_t j = 0; j < steps->n; j++)
			if (steps->steps[j].segment.ptr && span_is(steps->steps[j].segment, line.who))
				ret->segments[j] = line.percent;
	}
}

int position_state(const struct rollout_place *p, struct flag_users *u, const struct rollout_steps *steps,
		   struct phase_state *ret, struct err *e)
{
	CLEANUP(rollout_closep) struct rollout_document *d = NULL;
	struct flag_snapshot *s = NULL;
	const struct flag *f;
	*ret = (struct phase_state){.everybody = 0};
	int r = place_parse(p, buf_span(&p->flags), &s, e);
	if (r == 0)
		r = draft_find_flag(s, u->flag, &f, e);
	if (r == 0 && flag_broken(f))
		r = err_set(e, -EINVAL,
			    "flag \"%.80s\" is set aside by routers, legacy serves: fix it first: %s",
			    u->flag, flag_broken(f));
	if (r == 0)
		r = place_open_flag(p, u->flag, &u->sides, &d, e);
	if (r == 0) {
		struct decide_input like = flag_users_like(u, flag_users_at(u, 0), s);
		ret->everybody = population_share_of_flag(&like, span_of(u->flag));
		ret->disabled = !rollout_is_boolean(d) && !rollout_enabled(d);
		position_read_segments(d, steps, ret);
	}
	flag_snapshot_unref(s);
	return r;
}

static bool position_has_segment(const struct rollout_document *d, struct span segment)
{
	struct rollout_line line;
	for (size_t i = 0; i < rollout_count(d); i++) {
		rollout_line(d, i, &line);
		if (span_is(segment, line.who))
			return true;
	}
	return false;
}

int position_check_steps(const struct rollout_place *p, struct flag_users *u,
			 const struct rollout_steps *steps, struct err *e)
{
	CLEANUP(rollout_closep) struct rollout_document *d = NULL;
	int r = place_open_flag(p, u->flag, &u->sides, &d, e);
	for (size_t i = 0; r == 0 && i < steps->n; i++) {
		const struct rollout_step *s = &steps->steps[i];
		if (s->segment.ptr && !position_has_segment(d, s->segment))
			r = err_set(e, -EINVAL, "step %.*s: no rule of %s targets this segment alone",
				    SPAN_ARG(s->segment), u->flag);
		else if (!s->segment.ptr && rollout_is_boolean(d) && s->percent != floor(s->percent))
			r = err_set(e, -EINVAL, "step %g %%: boolean flags work in whole percents",
				    s->percent);
	}
	return r;
}

bool position_same(const struct rollout_steps *steps, const struct phase_state *a,
		   const struct phase_state *b)
{
	bool same = a->disabled == b->disabled && fabs(a->everybody - b->everybody) < EPSILON;
	for (size_t i = 0; i < steps->n; i++)
		same = same && fabs(a->segments[i] - b->segments[i]) < EPSILON;
	return same;
}

int position_document_agrees(const struct rollout_place *p, struct flag_users *u, bool *ret, struct err *e)
{
	CLEANUP(rollout_closep) struct rollout_document *read = NULL, *edited = NULL;
	int r = place_open_flag(p, u->flag, &u->sides, &read, e);
	if (r == 0)
		r = rollout_open(place_document_name(p), buf_span(&p->document), u->flag, &u->sides, &edited,
				 e);
	if (r < 0)
		return r;
	size_t n = rollout_count(read);
	*ret = n == rollout_count(edited) && rollout_enabled(read) == rollout_enabled(edited);
	for (size_t i = 0; *ret && i < n; i++) {
		struct rollout_line a, b;
		rollout_line(read, i, &a);
		rollout_line(edited, i, &b);
		*ret = strcmp(a.who, b.who) == 0 && fabs(a.percent - b.percent) < EPSILON;
	}
	return 0;
}
