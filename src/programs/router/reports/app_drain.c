#include "programs/router/reports/app_drain.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "operation/route.h"
#include "outcomes/when.h"
#include "programs/drain_ledger.h"
#include "programs/router/app_internal.h"

struct drain_target {
	struct buf side, since, service, operation;
};

static void drain_target_release(struct drain_target *t)
{
	buf_release(&t->side);
	buf_release(&t->since);
	buf_release(&t->service);
	buf_release(&t->operation);
}

static const char *drain_value(const struct buf *b)
{
	return b->len ? b->ptr : NULL;
}

/* 0, or an HTTP status. */
static int drain_read_target(struct span target, struct drain_target *t, struct drain_options *o,
			     struct err *e)
{
	static const char *const names[] = {"side", "since", "service", "operation"};
	struct buf *const values[] = {&t->side, &t->since, &t->service, &t->operation};
	if (route_query_check(target, names, 4, e) < 0)
		return 400;
	for (size_t i = 0; i < 4; i++) {
		route_query(target, span_of(names[i]), values[i]);
		if (values[i]->error || memchr(values[i]->ptr ? values[i]->ptr : "", 0, values[i]->len)) {
			err_set(e, 400, "%s: longer than %zu bytes, or with a NUL", names[i], values[i]->max);
			return 400;
		}
	}
	int side = t->side.len ? outcome_side_parse(buf_span(&t->side)) : OUTCOME_LEGACY;
	if (side < 0) {
		err_set(e, 400, "side: neither legacy nor task");
		return 400;
	}
	if (t->since.len && !when_parse(t->since.ptr, o->now_us, &o->since_us)) {
		err_set(e, 400, "since: \"%s\" is neither a duration such as 14d nor an RFC 3339 time",
			t->since.ptr);
		return 400;
	}
	o->side = (enum outcome_side)side;
	o->service = drain_value(&t->service);
	o->operation = drain_value(&t->operation);
	return 0;
}

/* The configuration may be another one by now: state and data folder are those that it was started with. */
static void drain_of_ledger(const struct app *a, struct drain_ledger *l)
{
	CLEANUP(freep) char *path = NULL;
	if (a->started->state.url)
		drain_ledger_read_redis(a->started->state.url, a->started->state.prefix,
					a->started->state.timeout_ms, l);
	else if (asprintf(&path, "%s/ledger.db", a->started->data_dir) < 0)
		snprintf(l->error, sizeof(l->error), "out of memory");
	else
		drain_ledger_read(path, NULL, 0, l);
}

int app_drain(void *arg, struct span target, struct buf *json, struct err *e)
{
	struct app *a = arg;
	CLEANUP(drain_target_release)
	struct drain_target t = {BUF_INIT(16), BUF_INIT(64), BUF_INIT(256), BUF_INIT(256)};
	CLEANUP(freep) struct drain_ledger *ledger = calloc(1, sizeof(*ledger));
	CLEANUP(drain_freep) struct drain *d = NULL;
	struct drain_options o = {.path = a->outcomes_path, .max_gap_us = DRAIN_MAX_GAP_US};
	o.now_us = clock_wall_us();
	o.since_us = o.now_us - DRAIN_SINCE_US;
	int code = drain_read_target(target, &t, &o, e);
	if (code != 0)
		return code;
	if (!ledger) {
		err_set(e, 503, "out of memory");
		return 503;
	}
	if (o.side == OUTCOME_TASK) {
		drain_of_ledger(a, ledger);
		drain_ledger_into(ledger, &o);
	}
	if (drain_make(&o, &d, e) < 0)
		return 503;
	if (drain_to_json(d, json) == 0)
		return 0;
	err_set(e, 503, "it does not fit into %zu bytes; name a service", json->max);
	return 503;
}
