/*
 * A rollout: the percentages of one flag in a document, and how to change them. Pure.
 *
 * Why:       one editor for the three places where a percentage lies: the features file, the payload of a v2 resource and a
 *            snapshot (JSON is YAML). Only the bytes of the values that change are replaced, so that comments and order stay.
 * Growing:   moves nobody from task to legacy, and shrinking nobody new to task: the task share of a rule must lie at one end
 *            of its distributions, from where it grows; a rule where it does not is refused.
 * Ownership: a rollout owns its document; changes hold no pointers.
 * Errors:    -EBADMSG the document, -ENOENT no such flag, -EINVAL the change is refused (the sentence says why), -ENOMEM.
 */
#ifndef FLAGS_ROLLOUT_H
#define FLAGS_ROLLOUT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/span.h"

#define ROLLOUT_CHANGES_MAX 64

struct rollout_document;

enum rollout_what { ROLLOUT_ENABLED, ROLLOUT_SHARE, ROLLOUT_THRESHOLD, ROLLOUT_SEGMENT_VALUE };

struct rollout_change {
	enum rollout_what what;
	size_t rule, share; /* indexes in the flag: of the rule or rollout, and of the distribution */
	double from, to;    /* percent; of truths 0 or 1 */
	bool grows_task;
	char variant[128]; /* of a share */
};

struct rollout_plan {
	struct rollout_change changes[ROLLOUT_CHANGES_MAX];
	size_t n;
	double from, to; /* percent of those whom the rule is about */
};

/* One line of what a flag does. */
struct rollout_line {
	char who[256];	/* segments, or "everybody" */
	double percent; /* that goes to tasks */
	bool everybody;
};

/* `text` is a whole document (features file, snapshot) or one flag (payload). It is copied. */
int rollout_open(const char *name, struct span text, const char *flag, struct rollout_document **ret, struct err *e);
struct rollout_document *rollout_close(struct rollout_document *d); /* NULL is fine; returns NULL */

bool rollout_is_boolean(const struct rollout_document *d);
bool rollout_enabled(const struct rollout_document *d);
size_t rollout_lines(const struct rollout_document *d, struct rollout_line *lines, size_t max);
/* The text of a member of a rule (or rollout), and of one of its distributions: for ids. SPAN_NONE when there is none. */
struct span rollout_member(const struct rollout_document *d, const struct rollout_change *c, bool of_share, const char *key);

/* The percentage for everybody, or for those of a segment (NULL: everybody). */
int rollout_set(const struct rollout_document *d, const char *segment, double percent, struct rollout_plan *ret, struct err *e);
int rollout_enable(const struct rollout_document *d, bool enabled, struct rollout_plan *ret, struct err *e);
/* Everybody to legacy. */
int rollout_back(const struct rollout_document *d, struct rollout_plan *ret, struct err *e);

/* Appends the text with the changes made. */
int rollout_apply(const struct rollout_document *d, const struct rollout_plan *plan, struct buf *out, struct err *e);

DEFINE_CLEANUP(struct rollout_document *, rollout_close)

#endif
