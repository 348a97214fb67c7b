#include "programs/router/app_page.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/hash.h"
#include "operation/route.h"
#include "page/page.h"
#include "programs/router/app_internal.h"
#include "programs/router/moving/app_move_view.h"
#include "programs/router/app_standing.h"

#define PAGE_AGES_US 30000000

/* As of the moment of asking, so that the page need not look at what the control thread changes. */
struct page_facts {
	uint64_t version;
	struct move_view *move;
};

void *app_page_facts(void *arg, const struct admin_reader *reader)
{
	struct page_facts *f = calloc(1, sizeof(*f));
	if (!f || !(f->move = move_view_take(arg, reader))) {
		free(f);
		return NULL;
	}
	f->version = app_page_version(arg);
	return f;
}

int app_page(void *arg, void *facts, struct span target, struct buf *out)
{
	struct app *a = arg;
	struct page_facts *f = facts;
	CLEANUP(standing_freep) struct standing *standing = NULL;
	bool moving = span_is(route_path(target), "/move"); /* others do not need it, and it is not cheap */
	app_standing_now(a, &standing); /* without it the page says that it does not know */
	const struct page_source source = {.path = a->outcomes_path,
					   .standing = standing,
					   .now_us = clock_wall_us(),
					   .version = f->version,
					   .move = moving ? move_view_make(f->move) : NULL};
	int status = page_make(&source, target, out);
	move_view_free(f->move);
	free(f);
	return status;
}

/* Also as time passes: what happened in the last 15 minutes changes without anything happening. */
uint64_t app_page_version(void *arg)
{
	struct app *a = arg;
	struct recorder_status r;
	recorder_status(a->recorder, &r);
	uint64_t h = hash64_number(HASH64_START, r.written);
	h = hash64_number(h, r.dropped);
	h = hash64_number(h, app_standing_changes(a));
	return hash64_number(h, (uint64_t)(clock_mono_us() / PAGE_AGES_US));
}
