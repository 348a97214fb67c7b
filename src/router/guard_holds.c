#include "router/guard_holds.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct guard_holds {
	atomic_uint refs;
	struct guard_hold *holds;
	size_t n, room;
};

struct guard_holds *guard_holds_new(void)
{
	struct guard_holds *h = calloc(1, sizeof(*h));
	if (h)
		atomic_init(&h->refs, 1);
	return h;
}

const struct guard_holds *guard_holds_ref(const struct guard_holds *h)
{
	/* The count is the one thing in a shared one that changes. */
	if (h)
		atomic_fetch_add_explicit(&((struct guard_holds *)(uintptr_t)h)->refs, 1,
					  memory_order_relaxed);
	return h;
}

const struct guard_holds *guard_holds_unref(const struct guard_holds *h)
{
	struct guard_holds *own = (struct guard_holds *)(uintptr_t)h;
	if (own && atomic_fetch_sub_explicit(&own->refs, 1, memory_order_acq_rel) == 1) {
		free(own->holds);
		free(own);
	}
	return NULL;
}

int guard_holds_put(struct guard_holds *h, const struct guard_hold *hold)
{
	if (h->n == h->room) {
		size_t room = h->room ? h->room * 2 : 8;
		struct guard_hold *holds = realloc(h->holds, room * sizeof(*holds));
		if (!holds)
			return -ENOMEM;
		h->holds = holds;
		h->room = room;
	}
	h->holds[h->n++] = *hold;
	return 0;
}

const struct guard_hold *guard_holds_find(const struct guard_holds *h, struct span service,
					  struct span operation)
{
	for (size_t i = 0; h && i < h->n; i++)
		if (span_is(operation, h->holds[i].operation) && span_is(service, h->holds[i].service))
			return &h->holds[i];
	return NULL;
}

bool guard_holds_equal(const struct guard_holds *a, const struct guard_holds *b)
{
	if (guard_holds_count(a) != guard_holds_count(b))
		return false;
	for (size_t i = 0; i < guard_holds_count(a); i++) {
		const struct guard_hold *x = &a->holds[i];
		const struct guard_hold *y = guard_holds_find(b, span_of(x->service), span_of(x->operation));
		if (!y || x->unknown != y->unknown || x->keeps != y->keeps)
			return false;
	}
	return true;
}

size_t guard_holds_count(const struct guard_holds *h)
{
	return h ? h->n : 0;
}

const struct guard_hold *guard_holds_at(const struct guard_holds *h, size_t i)
{
	return &h->holds[i];
}
