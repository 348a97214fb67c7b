/* Several routers' drains as one. */
#include "outcomes/drain/drain_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void drain_add_counts(struct drain_operation *to, const struct drain_operation *of)
{
	if (of->last.time_us > to->last.time_us)
		to->last = of->last;
	to->uses += of->uses;
	to->fallbacks += of->fallbacks;
	to->shadows += of->shadows;
	to->others += of->others;
	for (int i = 0; i < REASON_COUNT; i++) {
		to->reasons[i] += of->reasons[i];
		to->fallback_reasons[i] += of->fallback_reasons[i];
	}
	for (int i = 0; i < OUTCOME_RESULT_COUNT; i++)
		to->gave_up[i] += of->gave_up[i];
}

static int drain_merge_operations(struct drain *d, const struct drain *of, struct err *e)
{
	for (size_t i = 0; i < of->n_operations; i++) {
		struct drain_last like = {.time_us = 0};
		struct drain_operation *op;
		memcpy(like.service, of->operations[i].service, sizeof(like.service));
		memcpy(like.operation, of->operations[i].operation, sizeof(like.operation));
		int r = drain_add_operation(d, &like, &op, e);
		if (r < 0)
			return r;
		drain_add_counts(op, &of->operations[i]);
	}
	return 0;
}

static int drain_merge_patterns(struct unmapped_table *t, const struct drain *of, struct err *e)
{
	for (size_t i = 0; i < of->n_unmapped; i++) {
		t->fresh = 0; /* what they come to is limited by what each of them may have */
		if (unmapped_add(t, &of->unmapped[i]) < 0)
			return err_set(e, -ENOMEM, "out of memory");
	}
	return 0;
}

/* Whether one before it has told what is in the same store. */
static bool drain_held_told(struct drain *const *list, size_t i)
{
	const char *store = list[i]->options.held_store;
	for (size_t j = 0; store && *store && j < i; j++)
		if (list[j]->options.held_store && strcmp(list[j]->options.held_store, store) == 0)
			return true;
	return false;
}

static int drain_merge_held(struct drain *d, struct drain *const *list, size_t i, const char *name,
			    struct err *e)
{
	const struct drain_options *o = &list[i]->options;
	if (o->held_error && !d->own_error[0])
		snprintf(d->own_error, sizeof(d->own_error), "%.80s: %.170s", name, o->held_error);
	if (!o->n_held || drain_held_told(list, i))
		return 0;
	struct drain_held *more =
		reallocarray(d->own_held, d->options.n_held + o->n_held, sizeof(*d->own_held));
	if (!more)
		return err_set(e, -ENOMEM, "out of memory");
	d->own_held = more;
	memcpy(more + d->options.n_held, o->held, o->n_held * sizeof(*more));
	d->options.held = more;
	d->options.n_held += o->n_held;
	return 0;
}

static void drain_merge_gaps(struct drain *d, const struct drain *of)
{
	if (of->gap_us > d->gap_us) { /* the router's that was away for longest */
		d->gap_us = of->gap_us;
		memcpy(d->gaps, of->gaps, sizeof(d->gaps));
		d->n_gaps = of->n_gaps;
	}
}

static void drain_merge_records(struct drain *d, const struct drain *of, const char *name, bool first)
{
	char why[256];
	if (!d->lacks[0] && drain_lacks(of, why))
		snprintf(d->lacks, sizeof(d->lacks), "%.90s: %.160s", name, why);
	if (first || !of->records_us || (d->records_us && of->records_us > d->records_us))
		d->records_us = of->records_us; /* from when on all of them have some */
	if (first || of->since_us > d->since_us)
		d->since_us = of->since_us;
	d->dropped += of->dropped;
	d->knows_patterns = of->knows_patterns && (first || d->knows_patterns);
	drain_merge_gaps(d, of);
}

static int drain_merge_one(struct drain *d, struct unmapped_table *t, struct drain *const *list, size_t i,
			   const char *name, struct err *e)
{
	const struct drain *of = list[i];
	drain_merge_records(d, of, name, i == 0);
	int r = drain_merge_operations(d, of, e);
	if (r == 0)
		r = drain_merge_patterns(t, of, e);
	return r < 0 ? r : drain_merge_held(d, list, i, name, e);
}

static int drain_check_doubles(struct drain *const *list, const char *const *names, size_t n, struct err *e)
{
	for (size_t i = 0; i < n; i++)
		for (size_t j = 0; j < i; j++)
			if (list[i]->store[0] && strcmp(list[i]->store, list[j]->store) == 0)
				return err_set(e, -EEXIST, "%s: is listed twice (%s)", names[i], names[j]);
	return 0;
}

int drain_merge(const struct drain_options *o, struct drain *const *list, const char *const *names, size_t n,
		struct drain **ret, struct err *e)
{
	CLEANUP(drain_freep) struct drain *d = calloc(1, sizeof(*d));
	struct unmapped_table unmapped = {.patterns = NULL};
	if (!d)
		return err_set(e, -ENOMEM, "out of memory");
	d->options = *o;
	d->options.path = NULL;
	d->options.held = NULL;
	d->options.n_held = 0;
	d->options.held_error = NULL;
	d->options.held_store = NULL;
	d->merged = true;
	int r = drain_check_doubles(list, names, n, e);
	for (size_t i = 0; r == 0 && i < n; i++)
		r = drain_merge_one(d, &unmapped, list, i, names[i], e);
	unmapped_compact(&unmapped);
	d->unmapped = unmapped.patterns;
	d->n_unmapped = unmapped.n;
	d->options.held_error = d->own_error[0] ? d->own_error : NULL;
	if (r == 0)
		r = drain_conclude(d, e);
	if (r == 0)
		*ret = steal(d);
	return r;
}
