/*
 * migration-status --drain: the report that drain.h makes, with what the ledger holds.
 */
#ifndef PROGRAMS_STATUS_DRAIN_COMMAND_H
#define PROGRAMS_STATUS_DRAIN_COMMAND_H

#include <stdbool.h>

#include "outcomes/drain/drain.h"
#include "programs/status/status_sources.h"

#define DRAIN_GROUPS_MAX 16

struct drain_arguments {
	struct drain_options options; /* side, service, operation, max_gap_us, idle_ok */
	const char *ledger;	      /* NULL: ledger.db next to the outcomes; only with one database */
	const char *groups[DRAIN_GROUPS_MAX]; /* of its entries, that count; none: all */
	size_t n_groups;
	bool json;
	unsigned columns;
};

/* Over all sources as one. Appends the report to `out`. The exit code (enum drain_verdict); what could not be
 * read is reported on standard error, and is not enough data: a sum without it would look like all. */
int drain_command(const struct drain_arguments *a, const struct status_sources *s, struct buf *out);

#endif
