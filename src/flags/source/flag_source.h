/*
 * What every source of flag snapshots (features file, Flipt) tells: to its owner, and of itself for /readyz.
 */
#ifndef FLAGS_SOURCE_FLAG_SOURCE_H
#define FLAGS_SOURCE_FLAG_SOURCE_H

#include <stdbool.h>
#include <stdint.h>

#include "flags/flags.h"

struct flag_source_events {
	/* A new good snapshot; the callee takes its own reference. On the source's loop. */
	void (*publish)(void *arg, const struct flag_snapshot *snapshot);
	/* The newest state could not be had or used, and why (file, line, key); once per state. May be
	 * NULL. */
	void (*failed)(void *arg, const char *why);
	void *arg;
};
/* Neither may stop the source from within. */

#define FLAG_CARRIED_NAMED 8

/* Flags that operations use and that the source no longer has: their last good definition stays in use. */
struct flag_carried {
	size_t n;
	char names[FLAG_CARRIED_NAMED][128]; /* the first of them */
};

struct flag_source_status {
	const char *kind; /* "file", "flipt" (version not known yet), "flipt v1", "flipt v2" */
	char where[256];  /* path, or URL without credentials */
	int64_t good_us;  /* wall clock of the last time the state in use was confirmed; 0 = never */
	char digest[80];  /* the source's own */
	char content[80]; /* of what it says (flag_snapshot_content); "" where the digest is of the content */
	char version[32]; /* of the server; "" when not known */
	bool failing;	  /* the newest state could not be had or used */
	bool streaming;	  /* changes arrive by themselves */
	char last_error[512];
	struct flag_carried carried;
	/* what is in use could not be written to disk: a restart would begin with older flags */
	bool unsaved;
};

#endif
