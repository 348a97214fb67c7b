/*
 * Bounded queue of fixed-size records between one producer thread and one consumer thread.
 *
 * Why:       a data-plane thread hands over what it has without a lock, a system call or an allocation; what
 *            does not fit is dropped and counted, since the caller's request must never wait (design, rule
 *            5). C11 atomics rather than Concurrency Kit's ring, since ThreadSanitizer understands the
 *            former.
 * Threads:   ring_push from one thread, ring_pop from one other; ring_dropped and ring_length from any.
 */
#ifndef BASE_RING_H
#define BASE_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ring;

/* `slots` is rounded up to a power of two; `record_size` in bytes. */
int ring_new(size_t slots, size_t record_size, struct ring **ret);
struct ring *ring_free(struct ring *r);

/* Where the next record is to be written, or NULL when full (then the drop is counted); made visible by
 * ring_commit. */
void *ring_reserve(struct ring *r);
void ring_commit(struct ring *r);

/* The oldest record, or NULL; it stays valid until ring_release gives its slot back. */
const void *ring_peek(struct ring *r);
void ring_release(struct ring *r);

uint64_t ring_dropped(const struct ring *r);
size_t ring_length(const struct ring *r);
size_t ring_slots(const struct ring *r);

#endif
