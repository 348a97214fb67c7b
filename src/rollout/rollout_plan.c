/*
 * Which values change, and in which order. See rollout.h, "Growing".
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "rollout/rollout_document.h"

#define TENTHS 1000 /* of a percent, in the whole: the steps in which Flipt distributes variants */

static int add_change(struct rollout_plan *p, struct rollout_change c, struct err *e)
{
	if (c.from == c.to)
		return 0;
	if (p->n == ROLLOUT_CHANGES_MAX)
		return err_set(e, -EINVAL, "more than %d values would change", ROLLOUT_CHANGES_MAX);
	p->changes[p->n++] = c;
	return 0;
}

static int refuse_segment(const struct rollout_document *d, const char *segment, struct err *e)
{
	CLEANUP(buf_releasep) struct buf known = BUF_INIT(ERR_TEXT_MAX);
	for (size_t i = 0; i < rollout_count(d); i++) {
		struct rollout_line line;
		rollout_line(d, i, &line);
		buf_printf(&known, "%s%s", i ? "; " : "", line.who);
	}
	return err_set(e, -EINVAL, "no rule targets the segment \"%s\"; rules target: %s", segment,
		       known.len ? known.ptr : "nobody");
}

/* --- a rule of a variant flag --------------------------------------------------------------------------- */

struct share {
	struct span variant;
	double now;	 /* percent, as written */
	unsigned tenths; /* then */
	double rest;	 /* what rounding down took */
	bool task;
};

struct shares {
	struct share all[ROLLOUT_CHANGES_MAX];
	size_t n;
};

static int read_shares(const struct rollout_document *d, const struct yaml_node *rule, struct shares *ret,
		       struct err *e)
{
	const struct yaml_node *list = yaml_get(rule, "distributions");
	bool has[2] = {false, false};
	*ret = (struct shares){.n = 0};
	if (list && list->count > ROLLOUT_CHANGES_MAX)
		return err_set(e, -EINVAL, "the rule distributes to more than %d variants",
			       ROLLOUT_CHANGES_MAX);
	for (const struct yaml_node *n = list ? list->first : NULL; n; n = n->next) {
		struct share s = {.variant = rollout_variant(n),
				  .now = rollout_number(yaml_get(n, "rollout")),
				  .task = rollout_is_task(d, n)};
		has[s.task] = true;
		ret->all[ret->n++] = s;
	}
	if (!has[false] || !has[true])
		return err_set(e, -EINVAL,
			       "the rule distributes to no %s variant: add one with a share of 0 first",
			       has[true] ? "legacy" : "task");
	return 0;
}

/* How often the side changes along the shares that are not nothing, now and then. */
static unsigned alternations(const struct shares *s)
{
	const struct share *before = NULL;
	unsigned n = 0;
	for (size_t i = 0; i < s->n; i++) {
		const struct share *x = &s->all[i];
		if (x->now <= 0 && x->tenths == 0)
			continue;
		n += before && before->task != x->task;
		before = x;
	}
	return n;
}

/* A side where nobody is gets its whole from the first of its variants that does not lie in between the
 * other side's. */
static void begin_side(struct shares *s, bool task, unsigned tenths)
{
	struct share *first = NULL;
	for (size_t i = 0; i < s->n; i++) {
		struct share *x = &s->all[i];
		if (x->task != task)
			continue;
		x->tenths = tenths;
		if (alternations(s) <= 1)
			return;
		x->tenths = 0;
		first = first ? first : x;
	}
	first->tenths = tenths; /* which will be refused */
}

static struct share *largest_rest(struct shares *s, bool task)
{
	struct share *best = NULL;
	for (size_t i = 0; i < s->n; i++)
		if (s->all[i].task == task && s->all[i].rest > (best ? best->rest : 0))
			best = &s->all[i];
	return best;
}

/* In proportion, rounded by largest remainders: since it scales what is there, no share shrinks while its
 * side grows. */
static void scale_side(struct shares *s, bool task, unsigned tenths)
{
	double now = 0;
	unsigned given = 0;
	for (size_t i = 0; i < s->n; i++)
		now += s->all[i].task == task ? s->all[i].now : 0;
	if (now <= 0) {
		if (tenths)
			begin_side(s, task, tenths);
		return;
	}
	for (size_t i = 0; i < s->n; i++) {
		struct share *x = &s->all[i];
		if (x->task != task)
			continue;
		double exact = x->now * tenths / now;
		x->tenths = (unsigned)floor(exact + 1e-6);
		x->rest = exact - x->tenths > 1e-6 ? exact - x->tenths : 0;
		given += x->tenths;
	}
	for (struct share *x; given < tenths && (x = largest_rest(s, task)); given++) {
		x->tenths++;
		x->rest = 0;
	}
}

static int plan_shares(size_t rule, const struct shares *s, struct rollout_plan *p, struct err *e)
{
	for (int growing = 1; growing >= 0; growing--)
		for (size_t i = 0; i < s->n; i++) {
			const struct share *x = &s->all[i];
			struct rollout_change c = {.what = ROLLOUT_SHARE,
						   .rule = rule,
						   .share = i,
						   .from = x->now,
						   .to = x->tenths / 10.0};
			span_copy(x->variant, c.variant, sizeof(c.variant));
			int r = (c.to > c.from) == growing ? add_change(p, c, e) : 0;
			if (r < 0)
				return r;
		}
	return 0;
}

static int set_variant(const struct rollout_document *d, const char *segment, double percent,
		       struct rollout_plan *p, struct err *e)
{
	const struct yaml_node *list = yaml_get(d->flag, "rules"), *rule = list ? list->first : NULL;
	size_t at = 0;
	struct shares s;
	for (; rule; rule = rule->next, at++) {
		struct rollout_audience a = rollout_audience(d, rule, segment);
		if (segment ? a.named : a.everybody)
			break;
	}
	if (!rule && segment)
		return refuse_segment(d, segment, e);
	if (!rule)
		return err_set(e, -EINVAL,
			       list && list->count
				       ? "no rule targets everybody: name one of its segments with --segment"
				       : "the flag has no rules: add one that distributes everybody first");
	int r = read_shares(d, rule, &s, e);
	if (r < 0)
		return r;
	unsigned tenths = (unsigned)lround(percent * 10);
	scale_side(&s, true, tenths);
	scale_side(&s, false, TENTHS - tenths);
	if (alternations(&s) > 1)
		return err_set(e, -EINVAL,
			       "the rule's task and legacy variants alternate, so that a new share would "
			       "move people both "
			       "ways: put the task variants together, at one end");
	return plan_shares(at, &s, p, e);
}

/* --- a boolean flag ------------------------------------------------------------------------------------- */

static int set_segment_value(const struct yaml_node *rollout, size_t at, double percent,
			     struct rollout_plan *p, struct err *e)
{
	struct rollout_change c = {.what = ROLLOUT_SEGMENT_VALUE,
				   .rule = at,
				   .to = percent == 100,
				   .from = rollout_truth(yaml_get(yaml_get(rollout, "segment"), "value"))};
	if (percent != 0 && percent != 100)
		return err_set(e, -EINVAL, "a segment of a boolean flag is on or off: 0 or 100");
	return add_change(p, c, e);
}

static int set_threshold(const struct rollout_document *d, const struct yaml_node *threshold, size_t at,
			 double percent, struct rollout_plan *p, struct err *e)
{
	struct rollout_change c = {.what = ROLLOUT_THRESHOLD,
				   .rule = at,
				   .to = percent,
				   .from = rollout_number(yaml_get(threshold, "percentage"))};
	if (!rollout_truth(yaml_get(threshold, "value")))
		return err_set(e, -EINVAL, "the threshold says false for its share: invert it first");
	if (rollout_enabled(d) && percent < 100)
		return err_set(e, -EINVAL,
			       "the flag is enabled, which means true for those outside the threshold: "
			       "disable it first");
	return add_change(p, c, e);
}

static int set_boolean(const struct rollout_document *d, const char *segment, double percent,
		       struct rollout_plan *p, struct err *e)
{
	const struct yaml_node *list = yaml_get(d->flag, "rollouts");
	size_t at = 0;
	for (const struct yaml_node *r = list ? list->first : NULL; r; r = r->next, at++) {
		const struct yaml_node *threshold = yaml_get(r, "threshold");
		if (segment && !threshold && rollout_audience(d, r, segment).named)
			return set_segment_value(r, at, percent, p, e);
		if (!segment && threshold)
			return set_threshold(d, threshold, at, percent, p, e);
	}
	if (segment)
		return refuse_segment(d, segment, e);
	if (percent != 0 && percent != 100)
		return err_set(e, -EINVAL, "the flag has no threshold: add one of 0 %% first");
	return rollout_enable(d, percent == 100, p, e);
}

/* --- what can be asked for ------------------------------------------------------------------------------ */

static int refuse_finer(double percent, double step, const char *kind, struct err *e)
{
	double n = percent / step;
	if (fabs(n - round(n)) < 1e-6)
		return 0;
	return err_set(e, -EINVAL,
		       "%.10g %% is finer than Flipt supports: %s flags have steps of %g %%; the nearest are "
		       "%.10g and %.10g",
		       percent, kind, step, floor(n) * step, ceil(n) * step);
}

int rollout_set(const struct rollout_document *d, const char *segment, double percent,
		struct rollout_plan *ret, struct err *e)
{
	bool boolean = rollout_is_boolean(d);
	*ret = (struct rollout_plan){.n = 0};
	if (!(percent >= 0 && percent <= 100))
		return err_set(e, -EINVAL, "%g is not a percentage from 0 to 100", percent);
	int r = refuse_finer(percent, boolean ? 1 : 0.1, boolean ? "boolean" : "variant", e);
	if (r < 0)
		return r;
	return boolean ? set_boolean(d, segment, percent, ret, e) : set_variant(d, segment, percent, ret, e);
}

int rollout_enable(const struct rollout_document *d, bool enabled, struct rollout_plan *ret, struct err *e)
{
	*ret = (struct rollout_plan){.n = 0};
	return add_change(
		ret,
		(struct rollout_change){.what = ROLLOUT_ENABLED, .from = rollout_enabled(d), .to = enabled},
		e);
}

int rollout_back(const struct rollout_document *d, struct rollout_plan *ret, struct err *e)
{
	int r = rollout_enable(d, false, ret, e);
	if (r < 0 || !rollout_is_boolean(d))
		return r; /* a disabled variant flag is legacy whatever its rules say */
	/* A disabled boolean flag still runs its rollouts (flipt.md). */
	const struct yaml_node *list = yaml_get(d->flag, "rollouts");
	size_t i = 0;
	for (const struct yaml_node *n = list ? list->first : NULL; n && r == 0; n = n->next, i++) {
		const struct yaml_node *threshold = yaml_get(n, "threshold");
		struct rollout_change c = {.rule = i,
					   .what = threshold ? ROLLOUT_THRESHOLD : ROLLOUT_SEGMENT_VALUE};
		if (threshold && rollout_truth(yaml_get(threshold, "value")))
			c.from = rollout_number(yaml_get(threshold, "percentage"));
		else if (!threshold)
			c.from = rollout_truth(yaml_get(yaml_get(n, "segment"), "value"));
		r = add_change(ret, c, e);
	}
	return r;
}
