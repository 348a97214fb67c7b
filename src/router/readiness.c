#include "router/readiness.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"

struct readiness {
	atomic_uint refs;
	struct readiness_entry *entries;
	size_t n, room;
	/* Places in `entries` + 1 by the hash of its names, 2 × room of them: every request asks, and with a
	 * backend that is gone all operations are in here. */
	uint32_t *slots;
};

struct readiness *readiness_new(void)
{
	struct readiness *r = calloc(1, sizeof(*r));
	if (r)
		atomic_init(&r->refs, 1);
	return r;
}

const struct readiness *readiness_ref(const struct readiness *r)
{
	/* The count is the one thing in a shared one that changes. */
	if (r)
		atomic_fetch_add_explicit(&((struct readiness *)(uintptr_t)r)->refs, 1, memory_order_relaxed);
	return r;
}

const struct readiness *readiness_unref(const struct readiness *r)
{
	struct readiness *own = (struct readiness *)(uintptr_t)r;
	if (own && atomic_fetch_sub_explicit(&own->refs, 1, memory_order_acq_rel) == 1) {
		free(own->entries);
		free(own->slots);
		free(own);
	}
	return NULL;
}

/* Where it is, or the empty slot where it belongs. There is always one. */
static uint32_t *readiness_slot(const struct readiness *r, struct span service, struct span operation,
				struct span backend)
{
	size_t mask = 2 * r->room - 1;
	uint64_t h = hash64_span(hash64_span(hash64_span(HASH64_START, service), operation), backend);
	for (size_t at = (size_t)(h ^ h >> 32) & mask;; at = (at + 1) & mask) {
		uint32_t *slot = &r->slots[at];
		const struct readiness_entry *entry = &r->entries[*slot ? *slot - 1 : 0];
		if (!*slot || (span_is(operation, entry->operation) && span_is(service, entry->service) &&
			       span_is(backend, entry->backend)))
			return slot;
	}
}

static void readiness_index(struct readiness *r, size_t i)
{
	const struct readiness_entry *entry = &r->entries[i];
	uint32_t *slot = readiness_slot(r, span_of(entry->service), span_of(entry->operation),
					span_of(entry->backend));
	if (!*slot) /* of two sentences the first */
		*slot = (uint32_t)i + 1;
}

static int readiness_grow(struct readiness *r)
{
	size_t room = r->room ? r->room * 2 : 8; /* a power of two: the slots are found by a mask */
	struct readiness_entry *entries = realloc(r->entries, room * sizeof(*entries));
	if (!entries)
		return -ENOMEM;
	r->entries = entries;
	uint32_t *slots = calloc(2 * room, sizeof(*slots));
	if (!slots)
		return -ENOMEM;
	free(r->slots);
	r->slots = slots;
	r->room = room;
	for (size_t i = 0; i < r->n; i++)
		readiness_index(r, i);
	return 0;
}

int readiness_put(struct readiness *r, struct span service, struct span operation, struct span backend,
		  struct span why)
{
	if (r->n == r->room && readiness_grow(r) < 0)
		return -ENOMEM;
	struct readiness_entry *entry = &r->entries[r->n++];
	span_copy(service, entry->service, sizeof(entry->service));
	span_copy(operation, entry->operation, sizeof(entry->operation));
	span_copy(backend, entry->backend, sizeof(entry->backend));
	span_copy(why, entry->why, sizeof(entry->why));
	readiness_index(r, r->n - 1);
	return 0;
}

const char *readiness_against(const struct readiness *r, struct span service, struct span operation,
			      struct span backend)
{
	if (!r || r->n == 0)
		return NULL;
	uint32_t slot = *readiness_slot(r, service, operation, backend);
	return slot ? r->entries[slot - 1].why : NULL;
}

static bool readiness_has_all(const struct readiness *a, const struct readiness *b)
{
	for (size_t i = 0; i < b->n; i++) {
		const struct readiness_entry *entry = &b->entries[i];
		const char *why = readiness_against(a, span_of(entry->service), span_of(entry->operation),
						    span_of(entry->backend));
		if (!why || strcmp(why, entry->why) != 0)
			return false;
	}
	return true;
}

bool readiness_equal(const struct readiness *a, const struct readiness *b)
{
	if (readiness_count(a) != readiness_count(b))
		return false;
	return readiness_count(a) == 0 || readiness_has_all(a, b);
}

size_t readiness_count_of(const struct readiness *r, struct span backend, const char **ret_why)
{
	size_t n = 0;
	for (size_t i = 0; r && i < r->n; i++)
		if (span_is(backend, r->entries[i].backend) && n++ == 0)
			*ret_why = r->entries[i].why;
	return n;
}

size_t readiness_count(const struct readiness *r)
{
	return r ? r->n : 0;
}

const struct readiness_entry *readiness_at(const struct readiness *r, size_t i)
{
	return &r->entries[i];
}
