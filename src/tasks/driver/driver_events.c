/*
 * What has happened and is not written yet, and which runs there are.
 */
#include <stdlib.h>

#include "base/crypto.h"
#include "tasks/driver/driver_run.h"

void driver_flush_soon(struct driver *d)
{
	if (d->flush_due)
		return;
	d->flush_due = true;
	loop_defer(d->loop, &d->flush);
}

void driver_add_event(struct driver *d, struct run_event *ev)
{
	TAILQ_INSERT_TAIL(&d->events, ev, place);
	if (!loop_timer_active(d->retry))
		driver_flush_soon(d);
}

struct run *driver_find_run(struct driver *d, struct span id)
{
	struct run *run;
	LIST_FOREACH (run, &d->buckets[crypto_hash64(id) % DRIVER_BUCKETS], bucket)
		if (span_eq(run->record.id, id))
			return run;
	return NULL;
}

void driver_drop_events(struct driver *d, const struct run *run)
{
	for (struct run_event *ev = TAILQ_FIRST(&d->events), *next; ev; ev = next) {
		next = TAILQ_NEXT(ev, place);
		if (ev->run == run) {
			TAILQ_REMOVE(&d->events, ev, place);
			free(ev);
		}
	}
}
