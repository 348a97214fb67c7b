#include "flags/source/retired.h"

#include <errno.h>
#include <stdlib.h>

#define LOOK_MS 50

struct retired {
	struct loop_timer *timer;
	const struct flag_snapshot **list;
	size_t n, capacity;
};

static void look(void *arg)
{
	struct retired *r = arg;
	size_t kept = 0;
	for (size_t i = 0; i < r->n; i++) {
		if (flag_snapshot_shared(r->list[i]))
			r->list[kept++] = r->list[i];
		else
			flag_snapshot_unref(r->list[i]);
	}
	r->n = kept;
	if (r->n)
		loop_timer_start(r->timer, LOOK_MS);
}

int retired_new(struct loop *loop, struct retired **ret)
{
	struct retired *r = calloc(1, sizeof(*r));
	if (!r || loop_timer_new(loop, look, r, &r->timer) < 0) {
		free(r);
		return -ENOMEM;
	}
	*ret = r;
	return 0;
}

struct retired *retired_free(struct retired *r)
{
	if (!r)
		return NULL;
	for (size_t i = 0; i < r->n; i++)
		flag_snapshot_unref(r->list[i]);
	loop_timer_free(r->timer);
	free(r->list);
	free(r);
	return NULL;
}

static bool make_room(struct retired *r)
{
	if (r->n < r->capacity)
		return true;
	size_t capacity = r->capacity ? r->capacity * 2 : 8;
	const struct flag_snapshot **list = realloc(r->list, capacity * sizeof(*list));
	if (!list)
		return false;
	r->list = list;
	r->capacity = capacity;
	return true;
}

void retired_add(struct retired *r, const struct flag_snapshot *snapshot)
{
	if (!snapshot)
		return;
	if (!make_room(r)) {
		flag_snapshot_unref(snapshot);
		return;
	}
	r->list[r->n++] = snapshot;
	if (!loop_timer_active(r->timer))
		loop_timer_start(r->timer, LOOK_MS);
}

size_t retired_count(const struct retired *r)
{
	return r->n;
}
