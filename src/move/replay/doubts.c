#include "move/replay/doubts.h"

#include <string.h>

#include "operation/identity.h"

static void add_doubt(void *arg, const struct flag_asked *asked)
{
	struct doubts *a = arg;
	struct doubt *d = a->n ? &a->list[a->n - 1] : NULL;
	if (asked->property.ptr && !asked->has_value)
		return;
	if (!d || !span_is(asked->segment, d->segment)) {
		if (a->n == DOUBTS_MAX)
			return;
		d = &a->list[a->n++];
		*d = (struct doubt){.segment = ""};
		span_copy(asked->segment, d->segment, sizeof(d->segment));
		span_copy(asked->property.ptr ? asked->property : SPAN_LIT("the entity's id"), d->property,
			  sizeof(d->property));
	}
	struct segment_context *c = &d->context;
	c->entity |= !asked->property.ptr;
	if (!asked->property.ptr || c->n == ROLLOUT_CONTEXT_MAX)
		return;
	memcpy(c->values[c->n], asked->value, sizeof(c->values[0]));
	c->entries[c->n] = (struct flag_context){asked->property, span_of(c->values[c->n])};
	c->n++;
}

void doubts_of(struct doubts *ret, const struct config *config, const struct flag_snapshot *flags,
	       const struct operation *op)
{
	ret->op = op;
	for (size_t i = 0; i <= op->n_flags; i++) {
		struct span key = i < op->n_flags ? op->flags[i] : config->hatchet_flag;
		const struct flag *f = key.len ? flag_find(flags, key) : NULL;
		if (f)
			flag_each_asked(f, add_doubt, ret);
	}
}

void recorded_input(const struct config *config, const struct operation *op, const struct recorded *r,
		    struct decide_input *ret, struct recorded_known *known)
{
	enum identity_part part;
	known->pseudonym = recorded_user_is_pseudonym(r->user);
	known->user = !known->pseudonym && !recorded_may_be_cut(r->user);
	known->organization = !recorded_may_be_cut(r->organization);
	*ret = (struct decide_input){
		.config = config, .operation = op, .user = r->user, .organization = r->organization};
	known->entity = !identity_entity(&op->identity, ret->user, ret->organization, &ret->entity, &part) ||
			(part == IDENTITY_USER ? known->user : known->organization);
	ret->user = known->user ? ret->user : SPAN_NONE;
	ret->organization = known->organization ? ret->organization : SPAN_NONE;
	ret->entity = known->entity ? ret->entity : SPAN_NONE;
}

/* Whether the router gives that property to the flags: then what it is (or that it is not there) is known. */
static bool recorded_property(const struct operation *op, struct span property,
			      const struct recorded_known *known)
{
	if (span_is(property, "user_id"))
		return known->user;
	if (span_is(property, "organization_id"))
		return known->organization;
	for (size_t i = 0; i < op->n_context; i++)
		if (span_eq(op->context[i].key, property))
			return op->context[i].value.ptr; /* what is taken from the request is not recorded */
	return span_is(property, "service") || span_is(property, "operation");
}

size_t doubt_unknown(const struct doubt *d, const struct operation *op, const struct recorded_known *known,
		     struct flag_context unknown[ROLLOUT_CONTEXT_MAX])
{
	size_t n = 0;
	for (size_t i = 0; i < d->context.n; i++)
		if (!recorded_property(op, d->context.entries[i].key, known))
			unknown[n++] = d->context.entries[i];
	return n;
}
