/*
 * Arena: many small allocations that live and die together.
 *
 * Why:       a snapshot, a configuration or a registry is built once, read by many threads and freed as a
 *            whole.
 * Ownership: everything handed out belongs to the arena and is freed with it. Memory is zeroed and aligned
 *            for any type.
 * Errors:    NULL if out of memory or the limit is reached.
 */
#ifndef BASE_ARENA_H
#define BASE_ARENA_H

#include <stddef.h>

#include "base/span.h"

struct arena_block;

struct arena {
	struct arena_block *blocks;
	size_t used, max; /* bytes handed out, and how many may be */
};

#define ARENA_INIT(limit) ((struct arena){.max = (limit)})

void arena_release(struct arena *a);
void *arena_alloc(struct arena *a, size_t count, size_t size);
#define arena_new(a, type, count) ((type *)arena_alloc((a), (count), sizeof(type)))
/* A NUL-terminated copy; the span that describes it in *ret. -ENOMEM. */
int arena_copy(struct arena *a, struct span text, struct span *ret);

#endif
