#include "move/users.h"

#include <stdio.h>

#include "operation/identity.h"

/* --- operations ----------------------------------------------------------------------------------------- */

bool operation_asks(const struct config *c, const struct operation *op, struct span flag)
{
	if (!op->has_task)
		return false;
	for (size_t i = 0; i < op->n_flags; i++)
		if (span_eq(op->flags[i], flag))
			return true;
	return span_eq(c->hatchet_flag, flag) && config_backend(c, SPAN_LIT("hatchet"));
}

const struct operation *flag_users_at(const struct flag_users *u, size_t index)
{
	const struct config *c = u->config;
	for (size_t i = 0; i < c->n_services; i++)
		for (size_t j = 0; j < c->services[i].n_operations; j++) {
			const struct operation *op = &c->services[i].operations[j];
			if (operation_asks(c, op, span_of(u->flag)) && index-- == 0)
				return op;
		}
	return NULL;
}

/* All who ask the flag must take a variant alike, or a percentage has no one meaning. */
static bool is_task(void *arg, struct span variant, struct span attachment)
{
	struct flag_users *u = arg;
	const struct operation *first = flag_users_at(u, 0), *op;
	bool task = decide_variant(first ? first : &u->own, variant, attachment).task;
	for (size_t i = 1; (op = flag_users_at(u, i)); i++)
		if (decide_variant(op, variant, attachment).task != task && !*u->disagree)
			snprintf(u->disagree, sizeof(u->disagree),
				 "variant \"%.*s\" means %s to %.*s.%.*s and %s to %.*s.%.*s",
				 SPAN_ARG(variant), task ? "task" : "legacy", SPAN_ARG(first->service),
				 SPAN_ARG(first->name), task ? "legacy" : "task", SPAN_ARG(op->service),
				 SPAN_ARG(op->name));
	return task;
}

void flag_users_init(struct flag_users *u, const struct config *c, const char *flag)
{
	*u = (struct flag_users){.config = c, .flag = flag};
	u->own.service = u->own.name = SPAN_LIT("");
	u->own.has_task = true;
	u->own.identity.entity[0] = IDENTITY_USER;
	u->own.identity.entity[1] = IDENTITY_ORGANIZATION;
	u->own.identity.n_entity = 2;
	u->sides = (struct rollout_sides){
		.is_task = is_task, .arg = u, .namespace_key = u->config->flags.namespace_key};
}

struct decide_input flag_users_like(const struct flag_users *u, const struct operation *op,
				    const struct flag_snapshot *s)
{
	struct decide_input in = {.config = u->config,
				  .operation = op ? op : &u->own,
				  .flags = s,
				  .user = SPAN_LIT("made-up-user"),
				  .organization = SPAN_LIT("made-up-organization")};
	enum identity_part part;
	identity_entity(&in.operation->identity, in.user, in.organization, &in.entity, &part);
	return in;
}

/* --- segments ------------------------------------------------------------------------------------------- */

struct wanted {
	struct span segment;
	struct segment_context *ret;
};

static void add_asked(void *arg, const struct flag_asked *asked)
{
	struct wanted *w = arg;
	struct segment_context *c = w->ret;
	if (!span_eq(asked->segment, w->segment) || asked->holds_without)
		return;
	if (!asked->property.ptr)
		c->entity = true;
	if (!asked->property.ptr || !asked->has_value || c->n == ROLLOUT_CONTEXT_MAX)
		return;
	memcpy(c->values[c->n], asked->value, sizeof(c->values[0]));
	c->entries[c->n] = (struct flag_context){asked->property, span_of(c->values[c->n])};
	c->n++;
}

void segment_context_of(const struct flag *f, const char *segment, struct segment_context *ret)
{
	struct wanted w = {span_of(segment), ret};
	ret->n = 0;
	ret->entity = false;
	flag_each_asked(f, add_asked, &w);
}
