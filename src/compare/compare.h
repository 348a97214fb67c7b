/*
 * Compare: two answers to one request in, the places where they differ out. Pure.
 *
 * Why:       whether the task side answers as legacy does is asked of real requests (docs/design.md, "Shadow
 *            and compare").
 * JSON:      by place. Numbers by their decimal value (9007199254740993 is not its neighbor), strings by
 *            their characters, objects by their members in any order. Anything else: bytes.
 * Limits:    COMPARE_BODY_MAX, those of compare_tree.h, COMPARE_WORK_MAX steps, COMPARE_DIFFERENCES_MAX
 *            places. What is beyond a limit is not compared, and says why; it is never "equal".
 * Cost:      up to a second for the largest answers: not for a plane.
 * Ownership: the result's spans borrow from the answers.
 * Threads:   any; options are read by any number of threads.
 */
#ifndef COMPARE_COMPARE_H
#define COMPARE_COMPARE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/http_message.h"
#include "base/span.h"
#include "compare/compare_path.h"

#define COMPARE_BODY_MAX (8u << 20)
#define COMPARE_WORK_MAX 20000000 /* places looked at, and 16 bytes of text each */
#define COMPARE_DIFFERENCES_MAX 32
#define COMPARE_RULES_MAX 64

/* What is forgiven at a place. Where several rules match, whatever one of them forgives is forgiven. */
struct compare_rule {
	struct compare_pattern pattern;
	bool ignore;	   /* with all that is beneath */
	bool fold_case;	   /* strings, ASCII letters */
	bool fold_space;   /* strings: runs of white space are one blank, none at the ends */
	bool map;	   /* an object whose names are data: they are `*` in paths */
	bool unordered;	   /* an array in any order */
	char *key;	   /* with unordered: JSON pointer within an element; NULL: whole elements. Owned */
	double tolerance;  /* numbers: of the difference; 0 = none */
	double relative;   /* numbers: as a share of the larger magnitude */
	double similarity; /* strings: alike from here on, 0 … 1 (compare_value.h); 0 = not looked at */
};

struct compare_options {
	const struct compare_rule *rules;
	size_t n_rules;		   /* up to COMPARE_RULES_MAX */
	const char *const *fields; /* names of fields that are compared */
	size_t n_fields;
};

struct compare_answer {
	int status;
	const struct http_field *fields;
	size_t n_fields;
	struct span content_type; /* SPAN_NONE: there is none */
	struct span body;	  /* without any content coding */
};

enum compare_kind {
	COMPARE_VALUE,	 /* another number, text, boolean */
	COMPARE_TYPE,	 /* a number here, a text there; JSON here, something else there */
	COMPARE_MISSING, /* the left has it, the right does not */
	COMPARE_EXTRA,	 /* the right has it, the left does not */
	COMPARE_TEXT,	 /* less alike than asked for */
	COMPARE_BYTES,	 /* bodies that are not JSON */
	COMPARE_KIND_COUNT
};

struct compare_difference {
	char path[COMPARE_PATH_SIZE]; /* normalized */
	enum compare_kind kind;	      /* of the first place */
	uint32_t count;		      /* places of that path */
	struct span left, right;      /* there: raw JSON, a field's value, or SPAN_NONE */
};

enum compare_verdict { COMPARE_EQUAL, COMPARE_DIFFERING, COMPARE_NOT_COMPARED };

enum compare_why { /* not compared */
		   COMPARE_WHY_NONE,
		   COMPARE_WHY_SIZE,
		   COMPARE_WHY_DEPTH,
		   COMPARE_WHY_VALUES, /* too many */
		   COMPARE_WHY_WORK,
		   COMPARE_WHY_MEMORY,
};

struct compare_result {
	enum compare_verdict verdict;
	enum compare_why why;
	bool more; /* there are places beyond COMPARE_DIFFERENCES_MAX */
	uint32_t n;
	struct compare_difference differences[COMPARE_DIFFERENCES_MAX];
};

void compare_answers(const struct compare_answer *left, const struct compare_answer *right,
		     const struct compare_options *o, struct compare_result *ret);

const char *compare_kind_text(enum compare_kind k);
const char *compare_why_text(enum compare_why w);

#endif
