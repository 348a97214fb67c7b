#include "flags/asked.h"

#include <stdio.h>

#include "flags/model.h"

/* Tries what could make the difference, and lets the matching itself judge. */
static bool try_value(const struct constraint *c, const char *value, char out[FLAG_ASKED_VALUE_MAX])
{
	if (constraint_match(c, span_of(value)) == constraint_match(c, SPAN_LIT("")))
		return false;
	snprintf(out, FLAG_ASKED_VALUE_MAX, "%s", value);
	return true;
}

static bool find_value(const struct constraint *c, char out[FLAG_ASKED_VALUE_MAX])
{
	static const char *const others[] = {"true", "false", "x", "0", "0001-01-01", "9999-12-31"};
	char text[FLAG_ASKED_VALUE_MAX];
	span_copy(c->value, text, sizeof(text));
	if (try_value(c, text, out))
		return true;
	if (c->strings && c->n_set) {
		span_copy(c->strings[c->n_set - 1], text, sizeof(text));
		if (try_value(c, text, out))
			return true;
	}
	double numbers[] = {c->n_set && c->numbers ? c->numbers[0] : c->number, c->number + 1, c->number - 1};
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]) && c->type == CONSTRAINT_NUMBER; i++) {
		snprintf(text, sizeof(text), "%.17g", numbers[i]);
		if (try_value(c, text, out))
			return true;
	}
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		if (try_value(c, others[i], out))
			return true;
	return false;
}

static void each_of_condition(const struct condition *condition,
			      void (*fn)(void *, const struct flag_asked *), void *arg)
{
	for (size_t i = 0; i < condition->n_segments; i++) {
		const struct segment *s = condition->segments[i];
		for (size_t j = 0; j < s->n_constraints; j++) {
			const struct constraint *c = &s->constraints[j];
			struct flag_asked asked = {.segment = s->key,
						   .property = c->type == CONSTRAINT_ENTITY_ID ? SPAN_NONE
											       : c->property,
						   .holds_without = constraint_match(c, SPAN_LIT(""))};
			asked.has_value = find_value(c, asked.value);
			fn(arg, &asked);
		}
	}
}

void flag_each_asked(const struct flag *f, void (*fn)(void *arg, const struct flag_asked *asked), void *arg)
{
	for (size_t i = 0; i < f->n_rules; i++)
		each_of_condition(&f->rules[i].condition, fn, arg);
	for (size_t i = 0; i < f->n_rollouts; i++)
		if (!f->rollouts[i].is_threshold)
			each_of_condition(&f->rollouts[i].condition, fn, arg);
}
