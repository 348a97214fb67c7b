/* rollout: the steps of flags (design, "Phases"). */
#include "config/config_reader.h"

#include <stdlib.h>
#include <string.h>

#define DAY_MS 86400000ull
#define HOLD_MS 3600000
#define ROLLOUTS_MAX 256
#define NAME_MAX_BYTES 128

struct rollout_reading {
	struct rollout_steps *steps;
	struct rollout_step usual; /* what a step asks for that says nothing itself */
	bool unread;		   /* a step was refused: how many there are says nothing */
};

const struct rollout_steps *config_rollout(const struct config *c, struct span flag)
{
	for (size_t i = 0; i < c->n_rollouts; i++)
		if (span_eq(c->rollouts[i].flag, flag))
			return &c->rollouts[i];
	return NULL;
}

/* Digits with at most one decimal, which is what Flipt acts in; "%" may follow. */
static bool rollout_percent(struct span text, double *ret)
{
	char digits[8];
	size_t n = text.len && text.ptr[text.len - 1] == '%' ? text.len - 1 : text.len;
	if (!n || n >= sizeof(digits))
		return false;
	memcpy(digits, text.ptr, n);
	digits[n] = '\0';
	size_t whole = strspn(digits, "0123456789");
	bool tenth = digits[whole] == '.' && strspn(digits + whole + 1, "0123456789") == 1;
	if (!whole || whole + (tenth ? 2 : 0) != n)
		return false;
	*ret = strtod(digits, NULL);
	return *ret <= 100;
}

static bool rollout_value_percent(const struct place *p, double *ret)
{
	struct span text;
	if (!value_text(p, &text))
		return false;
	if (rollout_percent(text, ret))
		return true;
	place_mistake(p, "expected a percentage from 0 to 100, with at most one decimal");
	return false;
}

/* --- what is required ----------------------------------------------------------------------------------- */

static void rollout_read_word(const struct place *p, void *arg)
{
	static const char *const words[] = {"safe", "manual", "nothing"};
	struct rollout_step *s = arg;
	size_t which;
	if (!value_choice(p, words, 3, &which))
		return;
	s->safe = s->safe || which == 0;
	s->manual = s->manual || which == 1;
}

static bool rollout_says_nothing(const struct yaml_node *list)
{
	struct span text;
	for (const struct yaml_node *n = list->first; n; n = n->next)
		if (yaml_string(n, &text) && span_is(text, "nothing"))
			return true;
	return false;
}

static void rollout_read_requirements(const struct place *p, struct rollout_step *s)
{
	struct place hold = place_member(p, "hold"), require = place_member(p, "require"),
		     differences = place_member(p, "differences_below");
	value_duration(&hold, 0, 366 * DAY_MS, &s->hold_ms);
	if (require.node) {
		s->safe = s->manual = false;
		value_list(&require, 3, rollout_read_word, s);
		bool list = require.node->kind == YAML_SEQUENCE;
		if (list && require.node->count == 0)
			place_mistake(&require, "an empty list; write \"nothing\" if nothing is required");
		else if (list && require.node->count > 1 && rollout_says_nothing(require.node))
			place_mistake(&require, "nothing and something cannot both be required");
	}
	rollout_value_percent(&differences, &s->differences_below);
}

/* --- steps ---------------------------------------------------------------------------------------------- */

static void rollout_check_step(const struct place *p, const struct rollout_steps *all,
			       const struct rollout_step *s)
{
	for (size_t i = 0; i < all->n; i++) {
		const struct rollout_step *before = &all->steps[i];
		if (s->segment.ptr && before->segment.ptr && span_eq(s->segment, before->segment))
			place_mistake(p, "the segment \"%.*s\" is listed twice", SPAN_ARG(s->segment));
		if (!s->segment.ptr && !before->segment.ptr && s->percent <= before->percent) {
			place_mistake(p, "%g %% is not above the previous step (%g %%)", s->percent,
				      before->percent);
			return;
		}
		if (s->segment.ptr && !before->segment.ptr && before->percent >= 100)
			place_mistake(p, "the segment \"%.*s\" comes after 100 %%, which includes it",
				      SPAN_ARG(s->segment));
	}
}

/* Whether it says whom the step is for; a step that does not is compared with no other. */
static bool rollout_read_target(const struct place *p, struct rollout_step *s)
{
	struct span text;
	if (!value_text(p, &text))
		return false;
	if ((text.ptr[0] >= '0' && text.ptr[0] <= '9') || text.ptr[0] == '-' || text.ptr[0] == '.')
		return rollout_value_percent(p, &s->percent);
	if (!check_name(p, text, NAME_MAX_BYTES))
		return false;
	s->segment = text;
	s->percent = 100;
	return true;
}

static bool rollout_read_mapping(const struct place *p, struct rollout_step *s)
{
	static const struct field fields[] = {{"percent", FIELD_OTHER, 0, 0, 0},
					      {"segment", FIELD_OTHER, 0, 0, 0},
					      {"hold", FIELD_OTHER, 0, 0, 0},
					      {"require", FIELD_OTHER, 0, 0, 0},
					      {"differences_below", FIELD_OTHER, 0, 0, 0}};
	struct place percent = place_member(p, "percent"), segment = place_member(p, "segment");
	READ_FIELDS(p, fields, s);
	rollout_read_requirements(p, s);
	if (!percent.node == !segment.node) {
		place_mistake(p, "a step has either \"percent\" or \"segment\"");
		return false;
	}
	if (percent.node)
		return rollout_value_percent(&percent, &s->percent);
	s->percent = 100;
	return value_text(&segment, &s->segment) && check_name(&segment, s->segment, NAME_MAX_BYTES);
}

/* The step 0 has nobody to judge by: it asks only for what it says itself. */
static void rollout_read_step(const struct place *p, void *arg)
{
	struct rollout_reading *r = arg;
	struct rollout_steps *all = r->steps;
	bool mapping = p->node && p->node->kind == YAML_MAPPING;
	struct place percent = mapping ? place_member(p, "percent") : *p;
	struct span text;
	double zero = 1;
	bool begins = all->n == 1 && percent.node && yaml_string(percent.node, &text) &&
		      rollout_percent(text, &zero) && zero == 0;
	struct rollout_step s = begins ? all->steps[0] : r->usual;
	s.segment = SPAN_NONE;
	s.percent = 0;
	if (!(mapping ? rollout_read_mapping(p, &s) : rollout_read_target(p, &s))) {
		r->unread = true;
		return;
	}
	if (begins) {
		all->steps[0] = s;
		return;
	}
	rollout_check_step(p, all, &s);
	if (all->n < CONFIG_MAX_STEPS)
		all->steps[all->n++] = s;
}

static bool rollout_flag_is_asked(const struct config *c, struct span flag)
{
	for (size_t i = 0; i < c->n_services; i++)
		for (size_t j = 0; j < c->services[i].n_operations; j++) {
			const struct operation *op = &c->services[i].operations[j];
			for (size_t k = 0; k < op->n_flags; k++)
				if (span_eq(op->flags[k], flag))
					return true;
		}
	return span_eq(c->hatchet_flag, flag);
}

static void rollout_read_one(const struct place *p, struct rollout_steps *ret)
{
	static const struct field fields[] = {{"steps", FIELD_OTHER, 0, 0, 0},
					      {"hold", FIELD_OTHER, 0, 0, 0},
					      {"require", FIELD_OTHER, 0, 0, 0},
					      {"differences_below", FIELD_OTHER, 0, 0, 0}};
	struct rollout_reading r = {.steps = ret,
				    .usual = {.hold_ms = HOLD_MS, .safe = true, .differences_below = -1}};
	struct place steps = place_member(p, "steps");
	ret->flag = p->key;
	ret->n = 1;
	ret->steps[0] = (struct rollout_step){.differences_below = -1};
	READ_FIELDS(p, fields, ret);
	rollout_read_requirements(p, &r.usual);
	if (!check_name(p, ret->flag, NAME_MAX_BYTES))
		return;
	if (!rollout_flag_is_asked(config_of(p), ret->flag))
		place_mistake(p, "no operation uses the flag \"%.*s\"", SPAN_ARG(ret->flag));
	value_list(&steps, CONFIG_MAX_STEPS, rollout_read_step, &r);
	if (ret->n < 2 && !r.unread)
		place_mistake(&steps, "missing: such as [0, beta_users, 5, 50, 100]");
}

void read_rollouts(const struct place *p)
{
	struct config *c = config_of(p);
	if (!value_mapping(p) || !p->node)
		return;
	if (p->node->count > ROLLOUTS_MAX) {
		place_mistake(p, "more than %d flags", ROLLOUTS_MAX);
		return;
	}
	c->rollouts = place_memory(p->reader, (p->node->count + 1) * sizeof(*c->rollouts));
	for (const struct yaml_node *n = p->node->first; n && c->rollouts; n = n->next) {
		struct place one = place_item(p, n);
		if (value_mapping(&one))
			rollout_read_one(&one, &c->rollouts[c->n_rollouts++]);
	}
}
