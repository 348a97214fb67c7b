/*
 * Status sources: the routers that a report is of, read from their databases or asked at their admin
 * listeners, and added up.
 *
 * Why:       behind one address there may be several routers. What they recorded is added up as sums; what
 *            their guards say stands side by side, and the worst of it counts.
 * Errors:    one source that cannot be read fails the whole: a sum without it would look like all.
 */
#ifndef PROGRAMS_STATUS_STATUS_SOURCES_H
#define PROGRAMS_STATUS_STATUS_SOURCES_H

#include "base/buf.h"
#include "base/err.h"
#include "guard/guard_verdict.h"
#include "outcomes/report.h"

#define STATUS_SOURCES_MAX 64

struct status_source {
	bool router;	  /* its admin listener, else a database */
	const char *name; /* path or URL */
};

struct status_sources {
	struct status_source all[STATUS_SOURCES_MAX];
	size_t n;
	const char *token_file; /* of the routers; NULL: MIGRATION_ROUTER_TOKEN, or none */
};

/* false: too many. */
bool status_sources_add(struct status_sources *s, const char *name, bool router);
/* `o` without its path. `guard` may be NULL: it is not wanted. */
int status_sources_report(const struct status_sources *s, const struct report_options *o, struct report **ret,
			  struct guard_verdicts **guard, struct err *e);
/* -EEXIST: two are of the same file, which would count twice. */
int status_sources_differ(const struct status_sources *s, struct err *e);
/* What a router answers at a path of its admin listener ("/_admin/…"). */
int status_sources_get(const struct status_sources *s, const char *router, const char *path, struct buf *body,
		       struct err *e);

void status_put_parameter(struct buf *url, const char *name, const char *value); /* NULL: nothing */
void status_put_time(struct buf *url, const char *name, int64_t us);		 /* 0: nothing */

#endif
