#include "outcomes/series.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SLOTS 8192 /* a power of two */

struct series_table {
	struct series *slots[SLOTS];
	struct series *first, **end;
	size_t count;
};

static const int64_t latency_bounds[] = {SERIES_LATENCY_BOUNDS};
_Static_assert(sizeof(latency_bounds) / sizeof(latency_bounds[0]) == SERIES_LATENCY_BUCKETS - 1,
	       "one bucket more than bounds");

int series_table_new(struct series_table **ret)
{
	struct series_table *t = calloc(1, sizeof(*t));
	if (!t)
		return -ENOMEM;
	t->end = &t->first;
	*ret = t;
	return 0;
}

struct series_table *series_table_free(struct series_table *t)
{
	if (!t)
		return NULL;
	for (struct series *s = t->first, *next; s; s = next) {
		next = s->next;
		for (struct series_minute *m = s->minutes, *later; m; m = later) {
			later = m->next;
			free(m);
		}
		free(s);
	}
	free(t);
	return NULL;
}

/* FNV-1a. Names come from the configuration, not from callers, so nobody can aim at one slot. */
static uint32_t hash_bytes(uint32_t h, const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++)
		h = (h ^ (unsigned char)s[i]) * 16777619u;
	return h;
}

static uint32_t series_hash_of(const struct outcome *o)
{
	const char kinds[] = {(char)o->side, (char)o->role, (char)o->reason, (char)o->result,
			      (char)o->answered};
	uint32_t h = hash_bytes(2166136261u, kinds, sizeof(kinds));
	h = hash_bytes(h, o->operation, strnlen(o->operation, sizeof(o->operation)));
	h = hash_bytes(h, o->service, strnlen(o->service, sizeof(o->service)));
	return hash_bytes(h, o->backend, strnlen(o->backend, sizeof(o->backend)));
}

static bool is_of(const struct series *s, const struct outcome *o)
{
	return s->side == o->side && s->role == o->role && s->reason == o->reason && s->result == o->result &&
	       s->answered == o->answered && strncmp(s->operation, o->operation, sizeof(s->operation)) == 0 &&
	       strncmp(s->service, o->service, sizeof(s->service)) == 0 &&
	       strncmp(s->backend, o->backend, sizeof(s->backend)) == 0;
}

static struct series *series_add(struct series_table *t, struct series **slot, const struct outcome *o)
{
	struct series *s = calloc(1, sizeof(*s));
	if (!s)
		return NULL;
	span_copy((struct span){o->service, strnlen(o->service, sizeof(o->service))}, s->service,
		  sizeof(s->service));
	span_copy((struct span){o->operation, strnlen(o->operation, sizeof(o->operation))}, s->operation,
		  sizeof(s->operation));
	span_copy((struct span){o->backend, strnlen(o->backend, sizeof(o->backend))}, s->backend,
		  sizeof(s->backend));
	s->side = o->side;
	s->role = o->role;
	s->reason = o->reason;
	s->result = o->result;
	s->answered = o->answered;
	s->next_in_slot = *slot;
	*slot = s;
	*t->end = s;
	t->end = &s->next;
	t->count++;
	return s;
}

static struct series *find_or_add(struct series_table *t, const struct outcome *o, size_t limit)
{
	struct series **slot = &t->slots[series_hash_of(o) & (SLOTS - 1)];
	for (struct series *s = *slot; s; s = s->next_in_slot)
		if (is_of(s, o))
			return s;
	return t->count < limit ? series_add(t, slot, o) : NULL;
}

struct series *series_of(struct series_table *t, const struct outcome *o)
{
	struct series *s = find_or_add(t, o, SERIES_MAX);
	if (s || t->count < SERIES_MAX)
		return s;
	struct outcome other = *o;
	memset(other.operation, 0, sizeof(other.operation));
	memcpy(other.operation, SERIES_OTHER, sizeof(SERIES_OTHER));
	s = find_or_add(t, &other, 2 * SERIES_MAX);
	if (s || t->count < 2 * SERIES_MAX)
		return s;
	memset(other.service, 0, sizeof(other.service));
	memcpy(other.service, SERIES_OTHER, sizeof(SERIES_OTHER));
	memset(other.backend, 0, sizeof(other.backend)); /* leaves only the enumerations, which are few */
	return find_or_add(t, &other, SIZE_MAX);
}

void series_count(struct series *s, const struct outcome *o)
{
	unsigned b = 0;
	while (b < SERIES_LATENCY_BUCKETS - 1 && o->latency_us > latency_bounds[b])
		b++;
	s->buckets[b]++;
	s->count++;
	s->latency_us += o->latency_us > 0 ? (uint64_t)o->latency_us : 0;
}

struct series *series_first(const struct series_table *t)
{
	return t->first;
}

int64_t series_latency_bound(unsigned bucket)
{
	return bucket < SERIES_LATENCY_BUCKETS - 1 ? latency_bounds[bucket] : INT64_MAX;
}
