#include "router/readiness.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>

struct readiness {
	atomic_uint refs;
	struct readiness_entry *entries;
	size_t n, room;
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
		free(own);
	}
	return NULL;
}

int readiness_put(struct readiness *r, struct span service, struct span operation, struct span backend,
		  struct span why)
{
	if (r->n == r->room) {
		size_t room = r->room ? r->room * 2 : 8;
		struct readiness_entry *entries = realloc(r->entries, room * sizeof(*entries));
		if (!entries)
			return -ENOMEM;
		r->entries = entries;
		r->room = room;
	}
	struct readiness_entry *entry = &r->entries[r->n++];
	span_copy(service, entry->service, sizeof(entry->service));
	span_copy(operation, entry->operation, sizeof(entry->operation));
	span_copy(backend, entry->backend, sizeof(entry->backend));
	span_copy(why, entry->why, sizeof(entry->why));
	return 0;
}

const char *readiness_against(const struct readiness *r, struct span service, struct span operation,
			      struct span backend)
{
	for (size_t i = 0; r && i < r->n; i++) {
		const struct readiness_entry *entry = &r->entries[i];
		if (span_is(backend, entry->backend) && span_is(operation, entry->operation) &&
		    span_is(service, entry->service))
			return entry->why;
	}
	return NULL;
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
