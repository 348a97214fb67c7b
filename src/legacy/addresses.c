#include "legacy/addresses.h"

#include <stdlib.h>
#include <string.h>

struct addresses {
	struct loop *loop;
	const char *host;
	char list[LOOKUP_MAX][LOOKUP_TEXT];
	size_t n, preferred;
	uint64_t as_of; /* loop time in ms of the last lookup that found some */
	struct lookup *lookup;
	struct link waiters;
};

static void on_looked_up(void *arg, const char (*found)[LOOKUP_TEXT], size_t n, const char *why)
{
	struct addresses *a = arg;
	a->lookup = NULL;
	if (n) {
		char before[LOOKUP_TEXT];
		memcpy(before, a->list[a->preferred], sizeof(before));
		memcpy(a->list, found, n * sizeof(*found));
		a->n = n;
		a->preferred = 0;
		a->as_of = loop_now_ms(a->loop);
		addresses_prefer(a, before);
	}
	struct link now; /* who asks from now on waits for the next one */
	link_init(&now);
	if (!link_alone(&a->waiters))
		link_move(&a->waiters, &now);
	while (!link_alone(&now)) {
		struct addresses_waiter *w = LINK_OWNER(now.next, struct addresses_waiter, link);
		link_remove(&w->link);
		w->told(w, n ? NULL : why);
	}
}

static int addresses_lookup(struct addresses *a)
{
	return a->lookup ? 0 : lookup_start(a->loop, a->host, on_looked_up, a, &a->lookup);
}

struct addresses *addresses_new(struct loop *loop, const char *host)
{
	struct addresses *a = calloc(1, sizeof(*a));
	if (a) {
		a->loop = loop;
		a->host = host;
		link_init(&a->waiters);
	}
	return a;
}

struct addresses *addresses_free(struct addresses *a)
{
	if (a)
		lookup_cancel(a->lookup);
	free(a);
	return NULL;
}

bool addresses_ready(struct addresses *a)
{
	uint64_t age = loop_now_ms(a->loop) - a->as_of;
	if (a->n == 0 || age > ADDRESSES_MAX_MS)
		return false;
	if (age > ADDRESSES_FRESH_MS)
		addresses_lookup(a); /* another time, when it does not start */
	return true;
}

int addresses_ask(struct addresses *a, struct addresses_waiter *w)
{
	int r = addresses_lookup(a);
	if (r == 0)
		link_append(&a->waiters, &w->link);
	return r;
}

size_t addresses_count(const struct addresses *a)
{
	return a->n;
}

const char *addresses_at(const struct addresses *a, size_t i)
{
	if (i == 0)
		return a->list[a->preferred];
	return a->list[i <= a->preferred ? i - 1 : i];
}

void addresses_prefer(struct addresses *a, const char *address)
{
	for (size_t i = 0; i < a->n; i++)
		if (strcmp(a->list[i], address) == 0)
			a->preferred = i;
}
