#include "outcomes/unmapped.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static bool unmapped_is_of(const struct unmapped_pattern *a, const struct unmapped_pattern *b)
{
	return strcmp(a->service, b->service) == 0 && strcmp(a->method, b->method) == 0;
}

static struct unmapped_pattern *unmapped_find(struct unmapped_table *t, const struct unmapped_pattern *like)
{
	for (size_t i = 0; i < t->n; i++) {
		struct unmapped_pattern *p = &t->patterns[i];
		if (!p->gone && strcmp(p->pattern, like->pattern) == 0 && unmapped_is_of(p, like))
			return p;
	}
	return NULL;
}

static void unmapped_count(struct unmapped_pattern *p, const struct unmapped_pattern *more)
{
	p->count += more->count;
	p->not_found += more->not_found;
	p->last_us = more->last_us > p->last_us ? more->last_us : p->last_us;
	p->last_found_us = more->last_found_us > p->last_found_us ? more->last_found_us : p->last_found_us;
	p->dirty = true;
}

static void unmapped_move(struct unmapped_pattern *from, struct unmapped_pattern *to)
{
	unmapped_count(to, from);
	from->count = from->not_found = 0;
	from->gone = from->dirty = true;
}

int unmapped_load(struct unmapped_table *t, const struct unmapped_pattern *p)
{
	if (t->n == t->capacity) {
		size_t n = t->capacity ? t->capacity * 2 : 64;
		struct unmapped_pattern *grown = reallocarray(t->patterns, n, sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		t->patterns = grown;
		t->capacity = n;
	}
	t->patterns[t->n++] = *p;
	return 0;
}

/* --- names at one place --------------------------------------------------------------------------------- */

/* The segment that begins at `at` (after its slash). */
static struct span unmapped_segment(const char *pattern, size_t at)
{
	return (struct span){pattern + at, strcspn(pattern + at, "/")};
}

/* Neither an id nor a name yet. */
static bool unmapped_is_word(struct span segment)
{
	return segment.len && segment.ptr[0] != '{';
}

/* Whether `p` is `like` but for the word at `at`. */
static bool unmapped_is_sibling(const struct unmapped_pattern *p, const struct unmapped_pattern *like,
				size_t at)
{
	if (p->gone || !unmapped_is_of(p, like) || strncmp(p->pattern, like->pattern, at) != 0)
		return false;
	return unmapped_is_word(unmapped_segment(p->pattern, at)) &&
	       strcmp(p->pattern + at + strcspn(p->pattern + at, "/"),
		      like->pattern + at + strcspn(like->pattern + at, "/")) == 0;
}

/* `like` with the word at `at` as a name; false if it is unknown, or there is no room. */
static bool unmapped_generalize(const struct unmapped_pattern *like, size_t at, struct unmapped_pattern *ret)
{
	static const struct span name = SPAN_INIT(UNMAPPED_NAME);
	struct span segment = unmapped_segment(like->pattern, at);
	size_t tail = strlen(like->pattern + at) - segment.len;
	if (!unmapped_is_word(segment) || at + name.len + tail >= sizeof(ret->pattern))
		return false;
	*ret = *like;
	ret->stored = ret->gone = false;
	memcpy(ret->pattern + at, name.ptr, name.len);
	memcpy(ret->pattern + at + name.len, like->pattern + at + segment.len, tail + 1);
	return true;
}

static size_t unmapped_siblings(const struct unmapped_table *t, const struct unmapped_pattern *like,
				size_t at)
{
	size_t n = 0;
	for (size_t i = 0; i < t->n; i++)
		n += unmapped_is_sibling(&t->patterns[i], like, at);
	return n;
}

/* Where its names are known as such, or have become so many: their common pattern in *ret. */
static bool unmapped_folds(struct unmapped_table *t, const struct unmapped_pattern *p,
			   struct unmapped_pattern *ret)
{
	const char *second = p->pattern[0] == '/' ? strchr(p->pattern + 1, '/') : NULL;
	for (const char *slash = second; slash; slash = strchr(slash + 1, '/')) {
		size_t at = (size_t)(slash + 1 - p->pattern);
		if (unmapped_generalize(p, at, ret) &&
		    (unmapped_find(t, ret) || unmapped_siblings(t, p, at) + 1 >= UNMAPPED_SIBLINGS)) {
			for (size_t i = 0; i < t->n; i++)
				if (unmapped_is_sibling(&t->patterns[i], p, at))
					unmapped_move(&t->patterns[i], ret);
			return true;
		}
	}
	return false;
}

/* --- room ----------------------------------------------------------------------------------------------- */

static struct unmapped_pattern *unmapped_least(struct unmapped_table *t, const char *service, size_t *ret_n)
{
	struct unmapped_pattern *least = NULL;
	*ret_n = 0;
	for (size_t i = 0; i < t->n; i++) {
		struct unmapped_pattern *p = &t->patterns[i];
		if (p->gone || strcmp(p->service, service) != 0 || strcmp(p->pattern, UNMAPPED_OTHERS) == 0)
			continue;
		++*ret_n;
		if (!least || p->count < least->count ||
		    (p->count == least->count && p->last_us < least->last_us))
			least = p;
	}
	return least;
}

static int unmapped_append(struct unmapped_table *t, const struct unmapped_pattern *p)
{
	struct unmapped_pattern fresh = *p;
	fresh.stored = fresh.gone = false;
	fresh.dirty = true;
	t->fresh++;
	return unmapped_load(t, &fresh);
}

static void unmapped_name_others(struct unmapped_pattern *p)
{
	memcpy(p->method, UNMAPPED_OTHERS, sizeof(UNMAPPED_OTHERS));
	memcpy(p->pattern, UNMAPPED_OTHERS, sizeof(UNMAPPED_OTHERS));
}

static int unmapped_make_room(struct unmapped_table *t, const struct unmapped_pattern *p)
{
	size_t n;
	struct unmapped_pattern *least = unmapped_least(t, p->service, &n);
	if (n < UNMAPPED_PATTERNS_MAX)
		return 0;
	struct unmapped_pattern others = {.service = ""};
	memcpy(others.service, p->service, sizeof(others.service));
	unmapped_name_others(&others);
	struct unmapped_pattern *there = unmapped_find(t, &others);
	if (there) {
		unmapped_move(least, there);
		return 0;
	}
	unmapped_count(&others, least);
	size_t at = (size_t)(least - t->patterns);
	int r = unmapped_append(t, &others);
	if (r == 0) {
		t->patterns[at].count = t->patterns[at].not_found = 0;
		t->patterns[at].gone = t->patterns[at].dirty = true;
	}
	return r;
}

int unmapped_add(struct unmapped_table *t, const struct unmapped_pattern *p)
{
	struct unmapped_pattern own = *p, folded;
	for (;;) {
		struct unmapped_pattern *there = unmapped_find(t, &own);
		if (there) {
			unmapped_count(there, &own);
			return 0;
		}
		if (t->fresh == UNMAPPED_FRESH) /* a flood: what it is made of does not matter */
			unmapped_name_others(&own);
		else if (unmapped_folds(t, &own, &folded))
			own = folded;
		else
			break;
	}
	if (t->n >= UNMAPPED_MAX)
		return 0;
	int r = unmapped_make_room(t, &own);
	return r < 0 ? r : unmapped_append(t, &own);
}

void unmapped_compact(struct unmapped_table *t)
{
	size_t n = 0;
	for (size_t i = 0; i < t->n; i++)
		if (!t->patterns[i].gone)
			t->patterns[n++] = t->patterns[i];
	t->n = n;
	t->fresh = 0;
}

void unmapped_release(struct unmapped_table *t)
{
	free(t->patterns);
	*t = (struct unmapped_table){0};
}
