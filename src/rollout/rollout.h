/*
 * A rollout: the percentages of one flag in a document, and how to change them. Pure.
 *
 * Why:       one editor for the three places where a percentage lies: the features file, the payload of a v2
 *            resource and a snapshot (JSON is YAML). Only the bytes of the values that change are replaced,
 *            so that comments and order stay.
 * Growing:   moves nobody from task to legacy, and shrinking nobody new to task: the task shares of a rule
 *            must be at one end of its distributions, from where they grow; a rule where they do not is
 *            refused. Several variants of a side keep their proportion, in tenths of a percent. The changes
 *            of a plan come in an order that keeps this true after each of them, for servers that take one
 *            value at a time (v1: running sums, past the last limit no variant): what grows comes before what
 *            shrinks.
 * Ownership: a rollout owns its document; changes hold no pointers.
 * Errors:    -EBADMSG the document, -ENOENT no such flag, -EINVAL the change is refused (the sentence says
 *            why), -ENOMEM.
 */
#ifndef ROLLOUT_ROLLOUT_H
#define ROLLOUT_ROLLOUT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/span.h"
#include "flags/flags.h"

#define ROLLOUT_CHANGES_MAX 64
#define ROLLOUT_NAME_MAX 128

struct rollout_document;

/* Which side a variant means; `attachment` is its JSON text, "" when it has none. What the words mean is
 * the router's matter. */
struct rollout_sides {
	bool (*is_task)(void *arg, struct span variant, struct span attachment);
	void *arg;
	const char *namespace_key; /* which documents of a file count; NULL: default */
};

enum rollout_what { ROLLOUT_ENABLED, ROLLOUT_SHARE, ROLLOUT_THRESHOLD, ROLLOUT_SEGMENT_VALUE };

struct rollout_change {
	enum rollout_what what;
	size_t rule, share; /* indexes in the flag: of the rule or rollout, and of the distribution */
	double from, to;    /* percent; of truths 0 or 1 */
	char variant[ROLLOUT_NAME_MAX]; /* of a share */
};

struct rollout_plan {
	struct rollout_change changes[ROLLOUT_CHANGES_MAX];
	size_t n;
};

/* One rule or rollout of a flag. */
struct rollout_line {
	char who[256];	  /* segments, or "everybody" */
	char shares[256]; /* what is written there, for people: "25: 25 %, 0: 75 %", "true for 5 %", "true" */
	double percent;	  /* that goes to tasks of those whom it is about */
	bool everybody;
};

/* `text` is a whole document (features file, snapshot) or one flag (payload). It is copied; `sides` is
 * borrowed until close. */
int rollout_open(const char *name, struct span text, const char *flag, const struct rollout_sides *sides,
		 struct rollout_document **ret, struct err *e);
/* A document of one flag only names segments: what they are is known from the snapshot that serves. */
void rollout_know_segments(struct rollout_document *d, struct flag_snapshot *s);
struct rollout_document *rollout_close(struct rollout_document *d); /* NULL is allowed; returns NULL */

bool rollout_is_boolean(const struct rollout_document *d);
bool rollout_enabled(const struct rollout_document *d);
size_t rollout_count(const struct rollout_document *d); /* rules or rollouts */
void rollout_line(const struct rollout_document *d, size_t index, struct rollout_line *ret);

/* The percentage for everybody, or for those of a segment (NULL: everybody). */
int rollout_set(const struct rollout_document *d, const char *segment, double percent,
		struct rollout_plan *ret, struct err *e);
int rollout_enable(const struct rollout_document *d, bool enabled, struct rollout_plan *ret, struct err *e);
/* Everybody to legacy. */
int rollout_back(const struct rollout_document *d, struct rollout_plan *ret, struct err *e);

/* Appends the text with the changes made. -EINVAL when a value is not written where it can be replaced, or
 * when replacing it would change something else as well (anchors). */
int rollout_apply(const struct rollout_document *d, const struct rollout_plan *plan, struct buf *out,
		  struct err *e);

DEFINE_CLEANUP(struct rollout_document *, rollout_close)

#endif
