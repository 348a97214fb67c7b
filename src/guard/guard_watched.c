#include "guard/guard_watched.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void guard_forget(struct guard_watched *w)
{
	entity_set_clear(&w->seen);
	entity_set_clear(&w->bad);
	entity_set_clear(&w->waiting);
	free(w->out);
	w->out = NULL;
	w->n_out = w->room_out = w->n_applied = 0;
	w->out_serial++;
	memset(&w->now, 0, sizeof(w->now));
	memset(&w->joint, 0, sizeof(w->joint));
	w->dirty = w->entities_known = w->joint_there = w->joint_dirty = false;
}

static int guard_put_into(struct entity_set *set, uint64_t entity, uint8_t bits)
{
	uint8_t ignored;
	return entity_set_counts(set, entity) && bits ? entity_set_add(set, entity, bits, &ignored) : 0;
}

static int guard_on_entity(void *arg, uint64_t entity, uint8_t bits)
{
	struct guard_watched *w = arg;
	int r = guard_put_into(&w->seen, entity, bits & GUARD_BIT_SEEN);
	return r < 0 ? r : guard_put_into(&w->bad, entity, bits & (uint8_t)~GUARD_BIT_SEEN);
}

/* Only who has something to add needs them: a process that drains does not read them again and again. */
int guard_know_entities(struct guard_store *s, struct guard_watched *w, struct err *e)
{
	if (w->entities_known)
		return 0;
	entity_set_clear(&w->seen);
	entity_set_clear(&w->bad);
	w->seen.level = w->now.seen_level;
	w->bad.level = w->now.bad_level;
	int r = guard_store_each_entity(s, w->now.row, guard_on_entity, w, e);
	w->entities_known = r == 0;
	return r;
}

static struct entity_set *guard_set_of(struct guard_watched *w, uint8_t bit)
{
	return bit == GUARD_BIT_SEEN ? &w->seen : &w->bad;
}

bool guard_watched_has(const struct guard_watched *w, const struct guard_event *event)
{
	const struct entity_set *set = event->bit == GUARD_BIT_SEEN ? &w->seen : &w->bad;
	return !entity_set_counts(set, event->entity) ||
	       (entity_set_bits(set, event->entity) & event->bit) != 0;
}

/* Adds what is new of the entity, here and in the file. */
static int guard_add_entity(struct guard_store *s, struct guard_watched *w, const struct guard_event *event,
			    bool *ret_new, struct err *e)
{
	struct entity_set *set = guard_set_of(w, event->bit);
	uint8_t new = 0;
	unsigned level = set->level;
	*ret_new = false;
	if (!entity_set_counts(set, event->entity))
		return 0;
	int r = entity_set_add(set, event->entity, event->bit, &new);
	if (r < 0)
		return err_set(e, r, "out of memory");
	if (set->level != level)
		r = guard_store_thin(s, w->now.row, set->level,
				     set == &w->seen ? GUARD_BIT_SEEN : (uint8_t)~GUARD_BIT_SEEN, e);
	w->now.seen_level = w->seen.level;
	w->now.bad_level = w->bad.level;
	*ret_new = new != 0;
	w->dirty |= new || set->level != level;
	return r == 0 && new ? guard_store_put_entity(s, w->now.row, event->entity, event->bit, e) : r;
}

static void guard_apply_seen(struct guard_watched *w, const struct guard_event *event, int64_t now_us)
{
	struct guard_sight s = {.assigned = event->assigned,
				.served = event->served,
				.reason = event->reason,
				.share = event->share,
				.stands_for = UINT64_C(1) << w->seen.level,
				.now_us = now_us};
	guard_evidence_seen(&w->now.evidence, &w->now.rule, &s);
}

static void guard_apply_bad(struct guard_watched *w, const struct guard_event *event, int64_t now_us)
{
	struct guard_bad b = {.assigned = event->assigned,
			      .share = event->share,
			      .seen = entity_set_bits(&w->seen, event->entity) != 0,
			      .now_us = now_us};
	for (int kind = 0; kind < GUARD_KIND_COUNT; kind++)
		if (event->bit == 1u << kind) {
			b.kind = (enum guard_kind)kind;
			guard_evidence_bad(&w->now.evidence, &w->now.rule, &b);
		}
}

int guard_watched_apply(struct guard_store *s, struct guard_watched *w, const struct guard_event *event,
			int64_t now_us, struct err *e)
{
	bool new;
	int r = guard_know_entities(s, w, e);
	if (r == 0)
		r = guard_add_entity(s, w, event, &new, e);
	if (r < 0 || !new)
		return r;
	if (event->bit == GUARD_BIT_SEEN)
		guard_apply_seen(w, event, now_us);
	else
		guard_apply_bad(w, event, now_us);
	return 0;
}
