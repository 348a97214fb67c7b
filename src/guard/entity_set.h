/*
 * Entity set: which entities an epoch has seen, and of which kinds their bad events were, in bounded memory.
 *
 * Why:       an entity counts once. When the set is full it keeps every second entity, by a bit of its hash,
 *            then every fourth: that is chance, independent of the side, and an entity that was dropped never
 *            comes back to be counted twice.
 * Threads:   none; its owner's.
 */
#ifndef GUARD_ENTITY_SET_H
#define GUARD_ENTITY_SET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ENTITY_SET_MAX 16384

struct entity_slot {
	uint64_t entity;
	uint8_t bits; /* 0: the slot is free */
};

/* All zeros is an empty one. */
struct entity_set {
	struct entity_slot *slots;
	size_t n, room; /* room: a power of two */
	unsigned level; /* entities count whose hash has so many zeros at its end */
};

void entity_set_clear(struct entity_set *s); /* frees; empty and at level 0 afterwards */

/* Whether entities with this hash still count. */
static inline bool entity_set_counts(const struct entity_set *s, uint64_t entity)
{
	return (entity & ((UINT64_C(1) << s->level) - 1)) == 0;
}

uint8_t entity_set_bits(const struct entity_set *s, uint64_t entity); /* 0: it is not in it */
/* Adds `bits` to those of the entity, which counts: *ret_new gets those that it did not have. When the set is
 * full, its level rises first, and the entity may not count any more (then *ret_new is 0). -ENOMEM. */
int entity_set_add(struct entity_set *s, uint64_t entity, uint8_t bits, uint8_t *ret_new);

#endif
