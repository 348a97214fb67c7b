#include "outcomes/search/row_gather.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/hash.h"
#include "outcomes/outcome.h"
#include "outcomes/search/error_pattern.h"
#include "outcomes/search/row_filter.h"

#define KEY_SLOTS_MIN 16384 /* powers of two, both: at first, and again once half of them is taken */
#define PLACES_MIN 1024
#define TEXTS_MAX (2 * ROW_GATHER_MAX * OUTCOME_ERROR_MAX)
#define HOUR_US INT64_C(3600000000)
#define OF_ORGANIZATION (-1)
#define NAME_MAX_LENGTH (sizeof(((struct outcome *)NULL)->organization) - 1)

struct row_gather {
	uint64_t *keys; /* a set; 0 = free */
	size_t key_slots, n_keys;
	struct gathered_sums *sums;
	size_t n_sums, room;
	uint32_t *places; /* of sums by their hash, 1 + index; 0 = free */
	size_t n_places;
	struct buf texts;
	int64_t earliest_us, latest_us;
	uint32_t n_rows;
	struct {
		uint32_t bucket, before; /* 1 + the row before of the same sums; 0 = none */
	} latencies[ROW_GATHER_MAX];
};

struct row_gather *row_gather_new(void)
{
	CLEANUP(row_gather_freep) struct row_gather *g = calloc(1, sizeof(*g));
	if (!g)
		return NULL;
	g->key_slots = KEY_SLOTS_MIN;
	g->n_places = PLACES_MIN;
	g->texts = BUF_INIT(TEXTS_MAX);
	g->keys = calloc(g->key_slots, sizeof(*g->keys));
	g->places = calloc(g->n_places, sizeof(*g->places));
	if (!g->keys || !g->places)
		return NULL;
	row_gather_clear(g);
	return steal(g);
}

struct row_gather *row_gather_free(struct row_gather *g)
{
	if (!g)
		return NULL;
	free(g->keys);
	free(g->sums);
	free(g->places);
	buf_release(&g->texts);
	free(g);
	return NULL;
}

void row_gather_clear(struct row_gather *g)
{
	memset(g->keys, 0, g->key_slots * sizeof(*g->keys));
	memset(g->places, 0, g->n_places * sizeof(*g->places));
	g->n_keys = g->n_sums = 0;
	g->n_rows = 0;
	g->earliest_us = INT64_MAX;
	g->latest_us = INT64_MIN;
	buf_clear(&g->texts);
}

/* --- keys of the filter --------------------------------------------------------------------------------- */

static bool gather_put_key(uint64_t *keys, size_t slots, uint64_t key)
{
	size_t at = key & (slots - 1);
	while (keys[at] && keys[at] != key)
		at = (at + 1) & (slots - 1);
	bool is_new = keys[at] == 0;
	keys[at] = key;
	return is_new;
}

static int gather_grow_keys(struct row_gather *g)
{
	uint64_t *keys = calloc(2 * g->key_slots, sizeof(*keys));
	if (!keys)
		return -ENOMEM;
	for (size_t i = 0; i < g->key_slots; i++)
		if (g->keys[i])
			gather_put_key(keys, 2 * g->key_slots, g->keys[i]);
	free(g->keys);
	g->keys = keys;
	g->key_slots *= 2;
	return 0;
}

static int gather_key(struct row_gather *g, enum row_filter_kind kind, struct span text)
{
	if (!text.len)
		return 0;
	g->n_keys += gather_put_key(g->keys, g->key_slots, row_filter_key(kind, text));
	return 2 * g->n_keys > g->key_slots ? gather_grow_keys(g) : 0;
}

static int gather_series_key(struct row_gather *g, int64_t series)
{
	char text[24];
	int n = snprintf(text, sizeof(text), "%lld", (long long)series);
	return gather_key(g, ROW_SERIES, (struct span){text, (size_t)n});
}

unsigned char *row_gather_filter(const struct row_gather *g, size_t *ret_size)
{
	size_t size = row_filter_size(g->n_keys);
	unsigned char *bits = calloc(1, size);
	for (size_t i = 0; bits && i < g->key_slots; i++)
		if (g->keys[i])
			row_filter_add(bits, size, g->keys[i]);
	*ret_size = size;
	return bits;
}

/* --- sums ----------------------------------------------------------------------------------------------- */

static size_t gather_hash(int64_t hour, int64_t series, int status, struct span text)
{
	uint64_t h = hash64_span(HASH64_START, text);
	h = (h ^ (uint64_t)hour) * UINT64_C(0xff51afd7ed558ccd);
	h = (h ^ h >> 32 ^ (uint64_t)series) * UINT64_C(0xc4ceb9fe1a85ec53);
	h = (h ^ h >> 32 ^ (uint64_t)status) * UINT64_C(0xff51afd7ed558ccd);
	return (size_t)(h ^ h >> 32);
}

static void gather_put_place(struct row_gather *g, uint32_t n)
{
	const struct gathered_sums *s = &g->sums[n];
	size_t at = gather_hash(s->hour, s->series, s->status, row_gather_text(g, s)) & (g->n_places - 1);
	while (g->places[at])
		at = (at + 1) & (g->n_places - 1);
	g->places[at] = n + 1;
}

static int gather_grow_places(struct row_gather *g)
{
	uint32_t *places = calloc(2 * g->n_places, sizeof(*places));
	if (!places)
		return -ENOMEM;
	free(g->places);
	g->places = places;
	g->n_places *= 2;
	for (uint32_t n = 0; n < g->n_sums; n++)
		gather_put_place(g, n);
	return 0;
}

static int gather_make_room(struct row_gather *g)
{
	if (g->n_sums < g->room)
		return 0;
	size_t room = g->room ? 2 * g->room : 64;
	struct gathered_sums *sums = realloc(g->sums, room * sizeof(*sums));
	if (!sums)
		return -ENOMEM;
	g->sums = sums;
	g->room = room;
	return 0;
}

static int gather_add_sums(struct row_gather *g, const struct gathered_sums *s, struct span text)
{
	int r = gather_make_room(g);
	if (r == 0)
		r = buf_append_span(&g->texts, text);
	if (r < 0)
		return r;
	struct gathered_sums *added = &g->sums[g->n_sums];
	*added = *s;
	added->at = (uint32_t)g->n_sums;
	added->text = (uint32_t)(g->texts.len - text.len);
	added->text_len = (uint32_t)text.len;
	gather_put_place(g, (uint32_t)g->n_sums++);
	return 2 * g->n_sums > g->n_places ? gather_grow_places(g) : 0;
}

static struct gathered_sums *gather_find(const struct row_gather *g, int64_t hour, int64_t series, int status,
					 struct span text)
{
	size_t at = gather_hash(hour, series, status, text) & (g->n_places - 1);
	for (; g->places[at]; at = (at + 1) & (g->n_places - 1)) {
		struct gathered_sums *s = &g->sums[g->places[at] - 1];
		if (s->hour == hour && s->series == series && s->status == status &&
		    span_eq(row_gather_text(g, s), text))
			return s;
	}
	return NULL;
}

/* The sums that a row belongs to; 1 = they are new, 0 = not. */
static int gather_open(struct row_gather *g, const struct gathered_row *row, int status, struct span text,
		       struct gathered_sums **ret)
{
	int64_t hour = row->time_us / HOUR_US;
	*ret = gather_find(g, hour, row->series, status, text);
	if (*ret)
		return 0;
	const struct gathered_sums s = {.hour = hour,
					.series = row->series,
					.status = status,
					.first_us = row->time_us,
					.last_us = row->time_us};
	int r = gather_add_sums(g, &s, text);
	*ret = r == 0 ? &g->sums[g->n_sums - 1] : NULL;
	return r == 0 ? 1 : r;
}

static void gather_count(struct gathered_sums *s, const struct gathered_row *row)
{
	s->count++;
	s->first_us = row->time_us < s->first_us ? row->time_us : s->first_us;
	s->last_us = row->time_us > s->last_us ? row->time_us : s->last_us;
	s->newest = row->id > s->newest ? row->id : s->newest;
}

static int gather_organization(struct row_gather *g, const struct gathered_row *row)
{
	struct gathered_sums *s;
	if (!row->organization.len)
		return gather_series_key(g, row->series);
	struct span name = row->organization;
	if (name.len > NAME_MAX_LENGTH) /* by nobody recorded */
		name.len = NAME_MAX_LENGTH;
	int r = gather_open(g, row, OF_ORGANIZATION, name, &s);
	if (r < 0)
		return r;
	gather_count(s, row);
	s->latency_us += row->latency_us > 0 ? row->latency_us : 0;
	g->latencies[g->n_rows].bucket = histogram_bucket(row->latency_us);
	g->latencies[g->n_rows].before = s->latencies;
	s->latencies = g->n_rows + 1;
	if (r == 0)
		return 0; /* the keys are those of the row before */
	r = gather_key(g, ROW_ORGANIZATION, row->organization);
	return r == 0 ? gather_series_key(g, row->series) : r;
}

static int gather_error(struct row_gather *g, const struct gathered_row *row)
{
	char pattern[OUTCOME_ERROR_MAX];
	struct gathered_sums *s;
	if (!row->failed)
		return 0;
	error_pattern(row->error, pattern); /* what failed before there were texts, too */
	int r = gather_open(g, row, row->http_status, span_of(pattern), &s);
	if (r < 0)
		return r;
	gather_count(s, row);
	r = gather_key(g, ROW_FAILED, row->organization);
	return r == 0 && row->error.len ? gather_key(g, ROW_ERROR, span_of(pattern)) : r;
}

int row_gather_add(struct row_gather *g, const struct gathered_row *row)
{
	if (g->n_rows == ROW_GATHER_MAX)
		return -ENOSPC;
	g->earliest_us = row->time_us < g->earliest_us ? row->time_us : g->earliest_us;
	g->latest_us = row->time_us > g->latest_us ? row->time_us : g->latest_us;
	int r = gather_key(g, ROW_REQUEST, row->request_id);
	if (r == 0)
		r = gather_key(g, ROW_USER, row->user);
	if (r == 0)
		r = gather_key(g, ROW_TASK, row->task_id);
	if (r == 0)
		r = gather_organization(g, row);
	if (r == 0)
		r = gather_error(g, row);
	g->n_rows++;
	return r;
}

/* --- reading -------------------------------------------------------------------------------------------- */

int64_t row_gather_earliest(const struct row_gather *g)
{
	return g->earliest_us;
}

int64_t row_gather_latest(const struct row_gather *g)
{
	return g->latest_us;
}

static int64_t gather_compare_int64(int64_t a, int64_t b)
{
	return (a > b) - (a < b);
}

static int gather_compare_text(struct span a, struct span b)
{
	size_t least = a.len < b.len ? a.len : b.len;
	int c = memcmp(a.ptr, b.ptr, least);
	return c ? c : (int)gather_compare_int64((int64_t)a.len, (int64_t)b.len);
}

static int gather_compare(const void *left, const void *right, void *arg)
{
	const struct gathered_sums *a = left, *b = right;
	if ((a->status < 0) != (b->status < 0))
		return a->status < 0 ? 1 : -1;
	if (a->status >= 0)
		return (int)gather_compare_int64(a->at, b->at);
	int c = (int)gather_compare_int64(a->hour, b->hour);
	if (c == 0)
		c = gather_compare_text(row_gather_text(arg, a), row_gather_text(arg, b));
	return c ? c : (int)gather_compare_int64(a->series, b->series);
}

void row_gather_sort(struct row_gather *g)
{
	if (g->n_sums)
		qsort_r(g->sums, g->n_sums, sizeof(*g->sums), gather_compare, g);
}

const struct gathered_sums *row_gather_sums(const struct row_gather *g, size_t n)
{
	return n < g->n_sums ? &g->sums[n] : NULL;
}

struct span row_gather_text(const struct row_gather *g, const struct gathered_sums *s)
{
	return (struct span){g->texts.ptr ? g->texts.ptr + s->text : "", s->text_len};
}

void row_gather_latencies(const struct row_gather *g, const struct gathered_sums *s, struct histogram *to)
{
	for (uint32_t n = s->latencies; n; n = g->latencies[n - 1].before)
		histogram_add(to, histogram_lowest(g->latencies[n - 1].bucket));
}
