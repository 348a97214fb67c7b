/*
 * Outcome: what is recorded of one attempt (design, "Words").
 *
 * A fixed-size record, so that it travels through a ring without allocation; longer texts are cut
 * (span_copy).
 */
#ifndef OUTCOMES_OUTCOME_H
#define OUTCOMES_OUTCOME_H

#include <stdbool.h>
#include <stdint.h>

#include "base/span.h"
#include "outcomes/path_pattern.h"
#include "outcomes/reason.h"

#define OUTCOME_UNMAPPED "(unmapped)" /* the operation of requests that match none */

enum outcome_side { OUTCOME_LEGACY, OUTCOME_TASK, OUTCOME_SIDE_COUNT };
enum outcome_role { OUTCOME_PRIMARY, OUTCOME_FALLBACK, OUTCOME_SHADOW, OUTCOME_ROLE_COUNT };
enum outcome_result {
	OUTCOME_SUCCESS,
	/* the caller's fault: 4xx but 408 and 429 of a legacy answer, refused before any side */
	OUTCOME_REJECTED,
	OUTCOME_FAILURE,
	OUTCOME_TIMEOUT,
	OUTCOME_UNKNOWN, /* submitted, outcome unknown */
	OUTCOME_CANCELLED,
	OUTCOME_RESULT_COUNT
};

#define OUTCOME_ERROR_MAX 200 /* bytes with NUL */

struct outcome {
	int64_t time_us;    /* wall clock at the start of the attempt */
	int64_t latency_us; /* monotonic */
	char service[32], operation[64];
	char organization[64], user[64];
	char backend[16]; /* "" on the legacy side */
	char variant[48];
	char task_id[64];
	char request_id[80];
	/* of a request that no operation matches: path_pattern.h's; "" otherwise */
	char method[PATH_PATTERN_METHOD], pattern[PATH_PATTERN_MAX];
	char client[46];	       /* address (INET6_ADDRSTRLEN); "": none */
	char error[OUTCOME_ERROR_MAX]; /* what went wrong (outcome_error); "": nothing */
	uint16_t http_status;	       /* what the caller got; 0 = nothing */
	uint8_t side, role, reason, result;
	bool answered; /* this attempt gave the caller its answer: the execution counts for its side */
	/* For the guard, not recorded (design, "The guard"): */
	uint8_t assigned; /* enum outcome_side: what the flags said */
	double share;	  /* of the task side, where a percentage decided; 0: it did not */
	uint64_t split;	  /* a number for the flags that decided */
	uint64_t entity;  /* a hash of the entity id (crypto_hash64) */
};

/* How an id of a user or an organization is recorded, and looked for, in an array of `size` bytes: plain
 * (base/text.h), as it is when it fits; otherwise its front, … and 16 digits of its SHA-256, so that two
 * that begin alike are two. */
void outcome_id(struct span id, char *dst, size_t size);

/* How an error is recorded: plain, what looks like a secret masked (base/text.h), cut. Operators read it;
 * what callers are told may be less. */
void outcome_error(struct span error, char dst[OUTCOME_ERROR_MAX]);

/* The words of the design; "?" for a value that is none. */
const char *outcome_side_text(enum outcome_side s);
const char *outcome_role_text(enum outcome_role r);
const char *outcome_result_text(enum outcome_result r);

/* Whether a result is in the denominator of a success rate (design, "success rate"). */
static inline bool outcome_is_counted(int result)
{
	return result == OUTCOME_SUCCESS || result == OUTCOME_FAILURE || result == OUTCOME_TIMEOUT ||
	       result == OUTCOME_UNKNOWN;
}

/* The value that a word stands for; -1 when it is none. */
int outcome_side_parse(struct span text);
int outcome_role_parse(struct span text);
int outcome_result_parse(struct span text);

#endif
