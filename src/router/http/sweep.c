/*
 * Sweep: one list per kind, oldest first, and one timer at or before the earliest end. Stopping an entry
 * leaves the timer alone: it then fires once for nothing, which is cheaper than moving it with every request.
 */
#include "router/http/sweep.h"

#include <errno.h>
#include <stdlib.h>

struct sweep {
	struct loop *loop;
	struct loop_timer *timer;
	sweep_fn fn;
	void *arg;
	unsigned kinds;
	unsigned limits_ms[SWEEP_KINDS_MAX];
	struct sweep_entry lists[SWEEP_KINDS_MAX]; /* ring heads */
	uint64_t timer_due_ms;			   /* when the timer is active */
};

static void arm(struct sweep *s, uint64_t due_ms)
{
	uint64_t now = loop_now_ms(s->loop);
	s->timer_due_ms = due_ms;
	loop_timer_start(s->timer, due_ms > now ? due_ms - now : 0);
}

static struct sweep_entry *take_due(struct sweep *s, uint64_t now)
{
	for (unsigned k = 0; k < s->kinds; k++) {
		struct sweep_entry *e = s->lists[k].next;
		if (e != &s->lists[k] && e->due_ms <= now) {
			sweep_stop(e);
			return e;
		}
	}
	return NULL;
}

static void arm_for_earliest(struct sweep *s)
{
	uint64_t earliest = UINT64_MAX;
	for (unsigned k = 0; k < s->kinds; k++) {
		const struct sweep_entry *e = s->lists[k].next;
		if (e != &s->lists[k] && e->due_ms < earliest)
			earliest = e->due_ms;
	}
	if (earliest != UINT64_MAX)
		arm(s, earliest);
}

static void sweep_on_timer(void *arg)
{
	struct sweep *s = arg;
	uint64_t now = loop_now_ms(s->loop);
	struct sweep_entry *e;
	while ((e = take_due(s, now)))
		s->fn(s->arg, e);
	arm_for_earliest(s);
}

int sweep_new(struct loop *loop, const unsigned *limits_ms, unsigned kinds, sweep_fn fn, void *arg,
	      struct sweep **ret)
{
	if (kinds > SWEEP_KINDS_MAX)
		return -EINVAL;
	struct sweep *s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	*s = (struct sweep){.loop = loop, .fn = fn, .arg = arg, .kinds = kinds};
	for (unsigned k = 0; k < kinds; k++) {
		s->limits_ms[k] = limits_ms[k];
		s->lists[k].prev = s->lists[k].next = &s->lists[k];
	}
	int r = loop_timer_new(loop, sweep_on_timer, s, &s->timer);
	if (r < 0) {
		free(s);
		return r;
	}
	*ret = s;
	return 0;
}

struct sweep *sweep_free(struct sweep *s)
{
	if (s) {
		loop_timer_free(s->timer);
		free(s);
	}
	return NULL;
}

void sweep_start(struct sweep *s, struct sweep_entry *e, unsigned kind)
{
	sweep_stop(e);
	if (s->limits_ms[kind] == 0)
		return;
	struct sweep_entry *list = &s->lists[kind];
	e->kind = kind;
	e->due_ms = loop_now_ms(s->loop) + s->limits_ms[kind];
	e->prev = list->prev;
	e->next = list;
	list->prev->next = e;
	list->prev = e;
	if (!loop_timer_active(s->timer) || e->due_ms < s->timer_due_ms)
		arm(s, e->due_ms);
}

void sweep_stop(struct sweep_entry *e)
{
	if (!e->next)
		return;
	e->prev->next = e->next;
	e->next->prev = e->prev;
	e->prev = e->next = NULL;
}

void sweep_each(struct sweep *s, unsigned kind, sweep_fn fn, void *arg)
{
	struct sweep_entry *list = &s->lists[kind];
	for (struct sweep_entry *e = list->next, *next; e != list; e = next) {
		next = e->next;
		fn(arg, e);
	}
}
