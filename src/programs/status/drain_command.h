/*
 * migration-status --drain: the report that drain.h makes, with what the ledger holds.
 */
#ifndef PROGRAMS_STATUS_DRAIN_COMMAND_H
#define PROGRAMS_STATUS_DRAIN_COMMAND_H

#include <stdbool.h>

#include "outcomes/drain/drain.h"

#define DRAIN_GROUPS_MAX 16

struct drain_arguments {
	struct drain_options options;	      /* path, side, service, operation, max_gap_us, idle_ok */
	const char *ledger;		      /* NULL: ledger.db next to the outcomes */
	const char *groups[DRAIN_GROUPS_MAX]; /* of its entries, that count; none: all */
	size_t n_groups;
	bool json;
	unsigned columns;
};

/* Appends the report to `out`. The exit code (enum drain_verdict); what could not be read is reported on
 * standard error, and is not enough data. */
int drain_command(const struct drain_arguments *a, struct buf *out);

#endif
