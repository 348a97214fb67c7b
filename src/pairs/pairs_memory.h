/* The bounds of all trials, which planes share. Private to src/pairs. */
#ifndef PAIRS_PAIRS_MEMORY_H
#define PAIRS_PAIRS_MEMORY_H

#include <stdatomic.h>
#include <stdint.h>

struct pairs;

struct pairs_memory {
	uint64_t max_answer, max_memory;
	atomic_uint_fast64_t held;
};

/* It is the first of what a struct pairs has. */
static inline struct pairs_memory *pairs_memory_of(struct pairs *p)
{
	return (struct pairs_memory *)(void *)p;
}

#endif
