#include "programs/status/drain_command.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "programs/drain_ledger.h"

/* What the sources say, each by itself. */
struct drain_told {
	struct drain *list[STATUS_SOURCES_MAX];
	const char *names[STATUS_SOURCES_MAX];
	struct drain_ledger *ledgers[STATUS_SOURCES_MAX]; /* which the drains borrow */
	size_t n;
};

/* ledger.db stands next to the outcomes unless the configuration says otherwise (outcomes: path). */
static char *drain_ledger_path(const struct drain_arguments *a, const char *outcomes)
{
	const char *slash = strrchr(outcomes, '/');
	char *path = NULL;
	int n = slash ? (int)(slash - outcomes) + 1 : 0;
	if (a->ledger)
		return strdup(a->ledger);
	return asprintf(&path, "%.*sledger.db", n, outcomes) < 0 ? NULL : path;
}

static int drain_of_file(const struct drain_arguments *a, const char *path, struct drain_told *told,
			 struct err *e)
{
	struct drain_options o = a->options;
	o.path = path;
	if (o.side == OUTCOME_TASK) {
		CLEANUP(freep) char *ledger = drain_ledger_path(a, path);
		struct drain_ledger *l = told->ledgers[told->n] = calloc(1, sizeof(*l));
		if (!l)
			return err_set(e, -ENOMEM, "out of memory");
		drain_ledger_read(ledger, a->groups, a->n_groups, l);
		drain_ledger_into(l, &o);
	}
	return drain_make(&o, &told->list[told->n], e);
}

static int drain_of_router(const struct drain_arguments *a, const struct status_sources *s, const char *name,
			   struct drain_told *told, struct err *e)
{
	CLEANUP(buf_releasep) struct buf body = {0}, query = BUF_INIT(8192);
	struct drain_options o = a->options;
	buf_printf(&query, "/_admin/drain.json?side=%s", outcome_side_text(o.side));
	status_put_time(&query, "since", o.since_us);
	status_put_parameter(&query, "service", o.service);
	status_put_parameter(&query, "operation", o.operation);
	buf_terminate(&query);
	int r = query.error ? err_set(e, query.error, "%s: too long", name)
			    : status_sources_get(s, name, query.ptr, &body, e);
	return r < 0 ? r : drain_parse(name, buf_span(&body), &o, &told->list[told->n], e);
}

static int drain_ask_all(const struct drain_arguments *a, const struct status_sources *s,
			 struct drain_told *told, struct err *e)
{
	int r = 0;
	for (size_t i = 0; r == 0 && i < s->n; i++) {
		told->names[i] = s->all[i].name;
		if (s->all[i].router)
			r = drain_of_router(a, s, s->all[i].name, told, e);
		else
			r = drain_of_file(a, s->all[i].name, told, e);
		told->n = i + 1;
	}
	return r;
}

/* Of one file as it is; of several, or a router, whose judgment is made here. */
static int drain_conclude_all(const struct drain_arguments *a, const struct status_sources *s,
			      struct drain_told *told, struct drain **ret, struct err *e)
{
	if (told->n > 1 || s->all[0].router)
		return drain_merge(&a->options, told->list, told->names, told->n, ret, e);
	*ret = told->list[0];
	told->list[0] = NULL;
	return 0;
}

int drain_command(const struct drain_arguments *a, const struct status_sources *s, struct buf *out)
{
	struct drain_told told = {.n = 0};
	CLEANUP(drain_freep) struct drain *d = NULL;
	struct err e = {"out of memory"};
	int r = drain_ask_all(a, s, &told, &e), code = DRAIN_NOT_ENOUGH_DATA;
	if (r == 0)
		r = drain_conclude_all(a, s, &told, &d, &e);
	if (r < 0)
		fprintf(stderr, "migration-status: %s\n", e.text);
	else if (a->json)
		drain_to_json(d, out);
	else
		drain_to_text(d, a->columns, out);
	if (r == 0)
		code = (int)d->verdict;
	for (size_t i = 0; i < told.n; i++) {
		drain_free(told.list[i]);
		free(told.ledgers[i]);
	}
	return code;
}
