/*
 * Differences: what outcomes.db says of compared answers (docs/design.md, "Shadow and compare").
 *
 * Units:     counts are of pairs, in whole hours: `since` is rounded down.
 * Ownership: owns everything in it.
 * Threads:   any; reads with a connection of its own.
 */
#ifndef PAIRS_DIFFERENCES_H
#define PAIRS_DIFFERENCES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "compare/compare_path.h"
#include "pairs/pairs.h"

#define DIFFERENCES_FILES_MAX 64
#define DIFFERENCES_SAMPLES_MAX 50 /* read, of each operation */

struct differences_options {
	const char *paths[DIFFERENCES_FILES_MAX]; /* whose counts add up */
	size_t n_paths;
	int64_t since_us, until_us;	    /* 0 = from the first on, to the last */
	const char *service, *operation;    /* NULL = all */
	const struct compare_pattern *only; /* NULL = all paths */
	bool samples;			    /* reads them, too */
};

struct differences_path {
	char path[COMPARE_PATH_SIZE], kind[12];
	uint64_t differing, noisy;
	bool beyond; /* noise; false also where that is not known */
};

struct differences_sample {
	int64_t time_us;
	int status[2]; /* legacy, task */
	char *request_id;
	char *body[2];	   /* redacted JSON, maybe cut; "" */
	char *differences; /* JSON */
};

struct differences_operation {
	char service[32], operation[64];
	struct pairs_counts counts;
	bool noise_known;		/* some noise sample was compared */
	bool beyond;			/* some path is */
	uint64_t all_paths;		/* also those that are not wanted */
	struct differences_path *paths; /* the most frequent first */
	size_t n_paths;
	struct differences_sample *samples; /* the newest first */
	size_t n_samples;
};

struct differences {
	struct differences_operation *operations; /* by service and operation */
	size_t n_operations;
};

/* Errors as of report_make (outcomes/report.h). A file without comparisons: n_operations = 0. */
int differences_make(const struct differences_options *o, struct differences **ret, struct err *e);
struct differences *differences_free(struct differences *d); /* NULL is allowed; returns NULL */
DEFINE_CLEANUP(struct differences *, differences_free)

/* Append; buf's errors. */
int differences_to_text(const struct differences *d, bool bodies, struct buf *out);
int differences_to_json(const struct differences *d, struct buf *out);
/* One line for each operation, as the report has them: "differs in 3 of 120, beyond noise". */
int differences_summary(const struct differences *d, struct buf *out);

#endif
