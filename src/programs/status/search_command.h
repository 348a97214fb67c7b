/*
 * migration-status --requests, --request, --errors, --organizations: what is asked of single rows.
 */
#ifndef PROGRAMS_STATUS_SEARCH_COMMAND_H
#define PROGRAMS_STATUS_SEARCH_COMMAND_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "outcomes/search/search.h"
#include "programs/status/status_sources.h"

#define SEARCH_SPAN_US INT64_C(86400000000) /* of errors and organizations, where no --since is given */
#define SEARCH_LIMIT 50
#define SEARCH_NOT_FOUND 3 /* exit code: no such request is recorded */

enum search_what { SEARCH_NOTHING, SEARCH_REQUESTS, SEARCH_REQUEST, SEARCH_ERRORS, SEARCH_ORGANIZATIONS };
enum search_format { SEARCH_TEXT, SEARCH_JSON, SEARCH_CSV };

struct search_arguments {
	enum search_what what;
	struct search_filter filter;
	const char *search; /* of organizations; NULL = all */
	const struct status_sources *sources;
	int64_t before; /* a row; only of one source */
	size_t limit;	/* 0 = SEARCH_LIMIT */
	enum search_format format;
	unsigned columns;
};

/* Appends what was found. The exit code; what could not be read is told on standard error. */
int search_command(const struct search_arguments *a, struct buf *out);

#endif
