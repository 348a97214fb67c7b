/* What the files of pairs share: what came out of comparing, on its way into outcomes.db. */
#ifndef PAIRS_PAIRS_INTERNAL_H
#define PAIRS_PAIRS_INTERNAL_H

#include "base/db.h"
#include "pairs/pairs.h"

#define PAIRS_HOUR_US 3600000000LL

struct pairs_path {
	char path[COMPARE_PATH_SIZE];
	enum compare_kind kind;
	uint64_t differing[PAIRS_KINDS];
};

/* A differing pair, redacted. */
struct pairs_sample {
	int64_t time_us;
	char request_id[80];
	int status[2];		/* legacy, task */
	struct buf body[2];	/* "": there is none, or none that is fit to be kept */
	struct buf differences; /* JSON: [{"path","kind","count","legacy","task"}] */
	struct pairs_sample *next;
};

/* What is new since the last write, of one operation. */
struct pairs_delta {
	struct pairs_counts counts;
	struct pairs_path *paths;
	size_t n_paths, paths_capacity;
	struct pairs_sample *samples;
	unsigned n_samples;
	bool any;
};

/* A sample of this trial, or NULL: memory is out. */
struct pairs_sample *pairs_sample_make(const struct pairs_trial *t, const struct compare_answer answers[2],
				       const struct compare_result *result, uint64_t max_body);
void pairs_sample_free(struct pairs_sample *s);

/* pairs_store.c: the recorder's thread */
struct pairs_store;
int pairs_store_new(struct db *db, struct pairs_store **ret, struct err *e);
struct pairs_store *pairs_store_free(struct pairs_store *s); /* NULL is allowed; returns NULL */
int pairs_store_write(struct pairs_store *s, const char *service, const char *operation, int64_t hour,
		      const struct pairs_delta *d, unsigned keep_samples, struct err *e);
/* Deletes what is older; *ret_samples: whether any are left. */
int pairs_store_retain(struct pairs_store *s, int64_t samples_before_us, int64_t counts_before_hour,
		       bool *ret_samples, struct err *e);
int pairs_store_newest(struct pairs_store *s, int64_t *ret_us, struct err *e); /* 0: nothing is there */

#endif
