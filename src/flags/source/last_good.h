/*
 * The last good flags: what is in use, its text, and its copy on disk. Common to every source of flags.
 *
 * Why:       a flag in use that vanishes (misspelled key, emptied list, truncated file) must
 *            not move everybody to the environment's default: its last good definition stays in use, even
 *            after a restart, until it is back or no operation uses it. The rest of the new state takes
 *            effect at once. Source: design, rule 1.
 * Ownership: all strings are copied, except `source`, which the owner keeps as long as this. Snapshots are
 *            referenced.
 * Threads:   the loop's own.
 */
#ifndef FLAGS_SOURCE_LAST_GOOD_H
#define FLAGS_SOURCE_LAST_GOOD_H

#include "base/buf.h"
#include "base/err.h"
#include "base/loop.h"
#include "flags/source/flag_source.h"
#include "flags/source/saved_snapshot.h"

struct last_good {
	const char *source; /* for the log, without credentials */
	char *file;	    /* on disk, or NULL */
	char *namespace_key, *environment;
	enum saved_kind kind;
	char **used; /* flags that operations use */
	size_t n_used;
	const struct flag_snapshot *snapshot; /* in use, or NULL */
	struct buf text;		      /* its JSON, carried flags included */
	char told[256];			      /* the carried flags that the log knows of */
	struct loop *loop;		      /* the owner's; without one nothing is saved again */
	struct loop_timer *again;
	char digest[80];		   /* saved with it */
	bool unsaved;			   /* the copy on disk is older than what is in use */
	struct flag_carried carried, next; /* in what is in use; in what was made last */
};

/* `file`, `namespace_key` and `environment` may be NULL. -ENOMEM. */
int last_good_init(struct last_good *g, enum saved_kind kind, const char *file, const char *namespace_key,
		   const char *environment);
void last_good_release(struct last_good *g);

/* The flags that operations use; keys are copied. -ENOMEM. */
int last_good_use(struct last_good *g, const struct span *keys, size_t n);
/* Whether `new` lacks one that is in use. */
bool last_good_lacks(const struct last_good *g, const struct flag_snapshot *new);
/* Whether `new` sets aside one that is in use and intact in the current snapshot. */
bool last_good_breaks(const struct last_good *g, const struct flag_snapshot *new);
/* The snapshot to use after `new`, whose JSON `text` is: `new` itself, which it takes over, or one with what
 * was lost carried over. `whole` gets its JSON. On an error `new` is gone, too. */
int last_good_complete(struct last_good *g, struct flag_snapshot *new, struct span text, struct buf *whole,
		       struct flag_snapshot **ret, struct err *e);
/* `snapshot` becomes the one in use: takes over the caller's reference and the text; what is carried is
 * logged. */
void last_good_take(struct last_good *g, struct flag_snapshot *snapshot, struct buf *text);
/* Writes what is in use to disk; a failure is logged, and retried until it succeeds. */
void last_good_save(struct last_good *g, const char *digest);
/* Uses what an earlier process saved. -ENOENT: there is none. */
int last_good_load(struct last_good *g, int64_t *ret_saved_us, struct err *e);
/* The same for the file's owner at startup: also cleans up, and logs. */
int last_good_begin(struct last_good *g, int64_t *ret_saved_us);
/* Carried flags that are still used, for the status. */
void last_good_carried(const struct last_good *g, struct flag_carried *ret);

#endif
