/* A number for what a flag says: the same for the same definition, in every process and after a restart. */
#include "base/hash.h"
#include "flags/model.h"

static uint64_t digest_text(uint64_t h, struct span text)
{
	return hash64_span(hash64_number(h, text.len), text);
}

/* 0.1 as float32 is the same number everywhere. */
static uint64_t digest_share(uint64_t h, float share)
{
	return hash64_number(h, (uint64_t)((double)share * 1e6));
}

void digest_segment(struct segment *s)
{
	uint64_t h = digest_text(HASH64_START, s->key);
	h = hash64_number(h, (uint64_t)s->any | (uint64_t)s->dropped << 1);
	for (size_t i = 0; i < s->n_constraints; i++) {
		const struct constraint *c = &s->constraints[i];
		h = hash64_number(h, (uint64_t)c->type << 8 | (uint64_t)c->op);
		h = digest_text(digest_text(h, c->property), c->value);
	}
	s->digest = h;
}

static uint64_t digest_condition(uint64_t h, const struct condition *c)
{
	h = hash64_number(h, (uint64_t)c->all | (uint64_t)c->n_segments << 1);
	for (size_t i = 0; i < c->n_segments; i++)
		h = hash64_number(h, c->segments[i]->digest);
	return h;
}

static uint64_t digest_rule(uint64_t h, const struct rule *r)
{
	h = hash64_number(digest_condition(h, &r->condition), r->n_distributions);
	for (size_t i = 0; i < r->n_distributions; i++) {
		const struct distribution *d = &r->distributions[i];
		h = digest_text(digest_text(h, d->variant), d->attachment);
		h = hash64_number(h, (uint64_t)(int64_t)d->limit);
	}
	return h;
}

static uint64_t digest_rollout(uint64_t h, const struct rollout *r)
{
	h = hash64_number(h, (uint64_t)r->is_threshold | (uint64_t)r->value << 1);
	return r->is_threshold ? digest_share(h, r->percentage) : digest_condition(h, &r->condition);
}

void digest_flag(struct flag *f)
{
	uint64_t h = digest_text(HASH64_START, f->key);
	h = hash64_number(h, (uint64_t)f->type | (uint64_t)f->enabled << 2 | (uint64_t)f->has_default << 3 |
				     (uint64_t)(f->broken != NULL) << 4);
	if (f->has_default)
		h = digest_text(digest_text(h, f->default_variant), f->default_attachment);
	for (size_t i = 0; i < f->n_rules; i++)
		h = digest_rule(h, &f->rules[i]);
	for (size_t i = 0; i < f->n_rollouts; i++)
		h = digest_rollout(h, &f->rollouts[i]);
	f->digest = h;
}

uint64_t flag_digest(const struct flag *f)
{
	return f->digest;
}
