/*
 * Replay: whom other flags would have led elsewhere, of those who really came.
 *
 * Why:       before flags are changed, "who would move?" is answered by the decision itself, asked about the
 *            identities on record. What was is what was recorded; what would be is what the flags say, so
 *            requests whose side something else chose (a pin, the guard, a breaker, …) are told apart, and so
 *            is everything that was not recorded well enough to be decided again.
 * Shape:     replay_new, replay_add for each outcomes.db, replay_finish, then what is told of it.
 * Ownership: a replay owns its results; it borrows configuration and flags.
 * Threads:   one.
 * Limits:    RECORDED_MAX combinations per file (truncated); REPLAY_ORGANIZATIONS_MAX in JSON, the first
 *            REPLAY_ORGANIZATIONS_SHOWN in text.
 */
#ifndef MOVE_REPLAY_REPLAY_H
#define MOVE_REPLAY_REPLAY_H

#include "base/buf.h"
#include "base/err.h"
#include "config/config.h"
#include "flags/flags.h"

#define REPLAY_VERSION 1
#define REPLAY_ORGANIZATIONS_MAX 10000
#define REPLAY_ORGANIZATIONS_SHOWN 20

struct replay_options {
	const struct config *config;
	const struct flag_snapshot *flags;
	const char *flags_name;				/* for people */
	int64_t since_us, until_us;			/* 0: open */
	const char *service, *operation, *organization; /* NULL: all */
};

struct replay;

int replay_new(const struct replay_options *o, struct replay **ret, struct err *e);
struct replay *replay_free(struct replay *r); /* NULL is fine; returns NULL */
/* -ENOENT: there is no such file. Others as of the database. */
int replay_add(struct replay *r, const char *path, struct err *e);
int replay_finish(struct replay *r, struct err *e); /* -ENOMEM */

/* Both append; buf's errors. */
int replay_to_text(const struct replay *r, struct buf *out);
int replay_to_json(const struct replay *r, struct buf *out);

DEFINE_CLEANUP(struct replay *, replay_free)

/* Flags of a features file, a folder of them, Flipt's snapshot or one that the router saved: told by what is
 * in it. Namespace and rules are the configuration's. */
int replay_flags(const struct config *config, const char *path, struct flag_snapshot **ret, struct err *e);

#endif
