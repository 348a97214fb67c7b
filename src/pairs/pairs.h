/*
 * Pairs: bounded copies of two sides' answers to one request, on their way to being compared, counted and,
 * some of them, kept (docs/design.md, "Shadow and compare").
 *
 * Why:       a comparison may cost a second, so planes hand over what they have and continue.
 * Life:      a plane makes a trial, fills the answers in as they pass, and hands it over; the comparing
 *            thread compares; what came out waits for the recorder, which writes it with its next batch
 *            (outcomes/recorder.h, recorder_tap).
 * Limits:    an answer max_answer, all copies max_memory, PAIRS_QUEUE_MAX trials waiting,
 *            PAIRS_OPERATIONS_MAX operations, PAIRS_PATHS_MAX paths of each. What is beyond is not compared,
 *            and counted by why.
 * Threads:   a trial is one thread's until it is handed over; pairs_counts from any; the tap is the
 *            recorder's.
 * Ownership: everything is copied, but for the policy: trials borrow it, and say how to keep it.
 */
#ifndef PAIRS_PAIRS_H
#define PAIRS_PAIRS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/http_message.h"
#include "compare/compare_policy.h"
#include "outcomes/recorder.h"

#define PAIRS_QUEUE_MAX 64
#define PAIRS_OPERATIONS_MAX 512
#define PAIRS_PATHS_MAX 200
#define PAIRS_FIELDS_MAX 16
#define PAIRS_OTHER "(other)" /* the path that stands for those beyond PAIRS_PATHS_MAX */

struct pairs;

struct pairs_options {
	uint64_t max_answer;	   /* bytes of a body; at most COMPARE_BODY_MAX */
	uint64_t max_memory;	   /* of all trials together */
	unsigned samples;	   /* kept of each operation, the newest */
	uint64_t max_sample;	   /* bytes of each body in it */
	unsigned keep_samples_ms;  /* 0 = for ever */
	unsigned keep_counts_days; /* likewise */
};

/* Why a pair was not compared. */
enum pairs_why {
	PAIRS_WHOLE,	 /* it was, or can be */
	PAIRS_OPEN,	 /* an answer that is still coming */
	PAIRS_NO_ANSWER, /* a side failed without one, or took too long */
	PAIRS_CANCELLED, /* the caller left before it had the answer */
	PAIRS_BUSY,	 /* legacy had no room for another call */
	PAIRS_SIZE,
	PAIRS_MEMORY,
	PAIRS_QUEUE,
	PAIRS_CODING, /* a content coding other than gzip and deflate, or a broken one */
	PAIRS_DEPTH,
	PAIRS_VALUES,
	PAIRS_WORK,
	PAIRS_WHY_COUNT
};

/* Which answer of a trial. */
enum pairs_slot { PAIRS_LEGACY, PAIRS_TASK, PAIRS_AGAIN, PAIRS_SLOTS };

/* Which pair: the two sides, or legacy with itself. */
enum pairs_kind { PAIRS_SIDES, PAIRS_NOISE, PAIRS_KINDS };

struct pairs_answer {
	enum pairs_why why; /* PAIRS_WHOLE, or why there is none */
	int status;
	struct http_field fields[PAIRS_FIELDS_MAX]; /* those that are compared; in `text` */
	size_t n_fields;
	struct span type, coding;
	struct buf text, body;
};

struct pairs_trial {
	char service[32], operation[64], request_id[80];
	int64_t time_us;
	const struct compare_policy *policy;
	const void *kept; /* as long as the policy is used; then `release` */
	void (*release)(const void *kept);
	bool noise; /* PAIRS_AGAIN is expected */
	struct pairs_answer answers[PAIRS_SLOTS];
	/* pairs.c's */
	struct pairs *owner;
	uint64_t charged;
	struct pairs_trial *next;
};

/* Whether their settings are the same. */
bool pairs_options_same(const struct pairs_options *a, const struct pairs_options *b);

int pairs_start(const struct pairs_options *o, struct pairs **ret, struct err *e);
/* Compares what waits, two seconds at most, and ends the thread; what came out can still be written. */
void pairs_halt(struct pairs *p);
struct pairs *pairs_free(struct pairs *p); /* after the recorder has stopped. NULL is allowed; returns NULL */
void pairs_tap(struct pairs *p, struct recorder_tap *ret);

/* All answers are PAIRS_OPEN. NULL: no memory. */
struct pairs_trial *pairs_trial_new(struct pairs *p, const struct compare_policy *policy);
void pairs_trial_free(struct pairs_trial *t); /* one that is not handed over: counts nothing */
/* What an answer begins with; pieces of its body; its end. What does not fit makes it PAIRS_SIZE or
 * PAIRS_MEMORY, and what comes then is not looked at. */
void pairs_answer_head(struct pairs_trial *t, enum pairs_slot slot, int status,
		       const struct http_field *fields, size_t n);
void pairs_answer_body(struct pairs_trial *t, enum pairs_slot slot, const char *bytes, size_t n);
void pairs_answer_end(struct pairs_trial *t, enum pairs_slot slot);
void pairs_answer_miss(struct pairs_trial *t, enum pairs_slot slot, enum pairs_why why);
/* Takes it. What is open then counts as PAIRS_NO_ANSWER. Blocks for no longer than a list takes. */
void pairs_submit(struct pairs_trial *t);

struct pairs_counts {
	uint64_t compared[PAIRS_KINDS], differing[PAIRS_KINDS];
	uint64_t not_compared[PAIRS_KINDS][PAIRS_WHY_COUNT];
};
/* Since the start, of each operation; `fn` must be quick and not call pairs. */
void pairs_each(struct pairs *p,
		void (*fn)(void *arg, const char *service, const char *operation,
			   const struct pairs_counts *c),
		void *arg);

const char *pairs_why_text(enum pairs_why w);
const char *pairs_kind_text(enum pairs_kind k); /* sides, noise */

#endif
