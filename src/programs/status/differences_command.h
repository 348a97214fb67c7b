/*
 * migration-status --differences, and what the report says of compared answers.
 */
#ifndef PROGRAMS_STATUS_DIFFERENCES_COMMAND_H
#define PROGRAMS_STATUS_DIFFERENCES_COMMAND_H

#include <stdbool.h>

#include "pairs/differences.h"

struct differences_arguments {
	struct differences_options options; /* only: set from `path` */
	const char *path;		    /* as given; NULL = all */
	bool json;
};

/* NULL, or what is wrong with a path as given: "body:/a/b", "/a/b", "status", "header:NAME". */
const char *differences_path_check(const char *path);

/* Appends the report to `out`. The exit code; what could not be read is told on standard error. */
int differences_command(const struct differences_arguments *a, struct buf *out);

/* Adds to a report that stands in `out`: lines behind it, or a member of its JSON object. Nothing where
 * nothing was compared. */
void differences_add_to_report(const struct differences_options *o, bool json, struct buf *out);

#endif
