#include "guard/entity_set.h"

#include <errno.h>
#include <stdlib.h>

#define ROOM_FIRST 256
#define LEVEL_MAX 40

void entity_set_clear(struct entity_set *s)
{
	free(s->slots);
	*s = (struct entity_set){0};
}

/* Hashes are spread evenly, but their low bits are those of the level. */
static struct entity_slot *entity_slot_of(const struct entity_set *s, uint64_t entity)
{
	size_t at = (size_t)(entity * UINT64_C(0x9e3779b97f4a7c15) >> 20) & (s->room - 1);
	while (s->slots[at].bits && s->slots[at].entity != entity)
		at = (at + 1) & (s->room - 1);
	return &s->slots[at];
}

uint8_t entity_set_bits(const struct entity_set *s, uint64_t entity)
{
	return s->room ? entity_slot_of(s, entity)->bits : 0;
}

/* Anew with this room, and only those that count. */
static int entity_set_rebuild(struct entity_set *s, size_t room)
{
	struct entity_set old = *s;
	struct entity_slot *slots = calloc(room, sizeof(*slots));
	if (!slots)
		return -ENOMEM;
	s->slots = slots;
	s->room = room;
	s->n = 0;
	for (size_t i = 0; i < old.room; i++)
		if (old.slots[i].bits && entity_set_counts(s, old.slots[i].entity)) {
			*entity_slot_of(s, old.slots[i].entity) = old.slots[i];
			s->n++;
		}
	free(old.slots);
	return 0;
}

static int entity_set_make_room(struct entity_set *s)
{
	if (s->n >= ENTITY_SET_MAX && s->level < LEVEL_MAX) {
		s->level++;
		int r = entity_set_rebuild(s, s->room);
		if (r < 0)
			s->level--;
		return r;
	}
	if (2 * (s->n + 1) <= s->room)
		return 0;
	return entity_set_rebuild(s, s->room ? 2 * s->room : ROOM_FIRST);
}

int entity_set_add(struct entity_set *s, uint64_t entity, uint8_t bits, uint8_t *ret_new)
{
	*ret_new = 0;
	uint8_t had = entity_set_bits(s, entity);
	if (had) {
		*ret_new = bits & (uint8_t)~had;
		entity_slot_of(s, entity)->bits |= bits;
		return 0;
	}
	int r = entity_set_make_room(s);
	if (r < 0 || !entity_set_counts(s, entity))
		return r;
	struct entity_slot *slot = entity_slot_of(s, entity);
	*slot = (struct entity_slot){entity, bits};
	s->n++;
	*ret_new = bits;
	return 0;
}
