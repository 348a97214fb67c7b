/*
 * Saved snapshot: the last good snapshot of a Flipt server, on disk, for starting without the server.
 *
 * File:      {"format":2,"rules":"v1"|"v2","namespace":…,"environment":…,"digest":…,"saved_at":RFC 3339,"crc32":hex of the text
 *            of "snapshot","snapshot":{…}}; replaced atomically, mode 0600, checked when read.
 */
#ifndef FLAGS_SAVED_SNAPSHOT_H
#define FLAGS_SAVED_SNAPSHOT_H

#include "base/err.h"
#include "flags/flags.h"

struct saved_snapshot {
	enum flag_rules rules;
	const char *namespace_key, *environment, *digest;
	struct span text; /* the snapshot's JSON */
};

int saved_snapshot_write(const char *path, const struct saved_snapshot *s, struct err *e);

/* The file must be of this namespace and environment (either may be NULL: any). `text` gets the file's content, which
 * ret_text borrows from: the snapshot's JSON as it was saved. ret_saved_us (may be NULL): when, wall clock. -EBADMSG when anything about it is wrong, -errno. */
int saved_snapshot_read(const char *path, const char *namespace_key, const char *environment, struct buf *text,
			struct span *ret_text, struct flag_snapshot **ret, int64_t *ret_saved_us, struct err *e);

#endif
