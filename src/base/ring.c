#include "base/ring.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

/* Producer and consumer each write one counter; a cache line apart, or every push would slow every pop. */
struct ring {
	_Alignas(64) atomic_size_t head; /* next slot to write: the producer's */
	_Alignas(64) atomic_size_t tail; /* next slot to read: the consumer's */
	_Alignas(64) atomic_uint_fast64_t dropped;
	size_t mask, record_size;
	char *records;
};

int ring_new(size_t slots, size_t record_size, struct ring **ret)
{
	size_t n = 2;
	while (n < slots)
		n *= 2;
	struct ring *r = aligned_alloc(64, sizeof(*r));
	if (!r)
		return -ENOMEM;
	*r = (struct ring){.mask = n - 1, .record_size = record_size};
	r->records = calloc(n, record_size);
	if (!r->records) {
		free(r);
		return -ENOMEM;
	}
	*ret = r;
	return 0;
}

struct ring *ring_free(struct ring *r)
{
	if (r) {
		free(r->records);
		free(r);
	}
	return NULL;
}

void *ring_reserve(struct ring *r)
{
	size_t head = atomic_load_explicit(&r->head, memory_order_relaxed);
	size_t tail = atomic_load_explicit(&r->tail, memory_order_acquire);
	if (head - tail > r->mask) {
		atomic_fetch_add_explicit(&r->dropped, 1, memory_order_relaxed);
		return NULL;
	}
	return r->records + (head & r->mask) * r->record_size;
}

void ring_commit(struct ring *r)
{
	size_t head = atomic_load_explicit(&r->head, memory_order_relaxed);
	atomic_store_explicit(&r->head, head + 1, memory_order_release);
}

const void *ring_peek(struct ring *r)
{
	size_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed);
	size_t head = atomic_load_explicit(&r->head, memory_order_acquire);
	if (head == tail)
		return NULL;
	return r->records + (tail & r->mask) * r->record_size;
}

void ring_release(struct ring *r)
{
	size_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed);
	atomic_store_explicit(&r->tail, tail + 1, memory_order_release);
}

uint64_t ring_dropped(const struct ring *r)
{
	return atomic_load_explicit(&r->dropped, memory_order_relaxed);
}

size_t ring_length(const struct ring *r)
{
	size_t tail = atomic_load_explicit(&r->tail, memory_order_acquire);
	return atomic_load_explicit(&r->head, memory_order_acquire) - tail;
}

size_t ring_slots(const struct ring *r)
{
	return r->mask + 1;
}
