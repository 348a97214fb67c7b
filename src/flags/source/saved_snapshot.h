/*
 * Saved snapshot: the last good snapshot of a source, on disk, for starting without the source.
 *
 * File:      {"format":2,"source":"flipt"|"file" (missing: flipt),"rules":"v1"|"v2.0"|"v2.9"|"v2.11",
 *            "namespace":…,"environment":…,"digest":…,"saved_at":RFC 3339,"crc32":hex of the text of
 *            "snapshot", "snapshot":{…}}; replaced atomically, mode 0600, checked when read.
 */
#ifndef FLAGS_SOURCE_SAVED_SNAPSHOT_H
#define FLAGS_SOURCE_SAVED_SNAPSHOT_H

#include "base/err.h"
#include "flags/flags.h"

enum saved_kind { SAVED_FLIPT, SAVED_FILE };

struct saved_snapshot {
	enum saved_kind kind;
	enum flag_rules rules;
	const char *namespace_key, *environment, *digest; /* the first two: NULL for a file */
	struct span text;				  /* the snapshot's JSON */
};

/* What it must have been saved from; a namespace or environment of NULL may be any. */
struct saved_from {
	enum saved_kind kind;
	const char *namespace_key, *environment;
};

int saved_snapshot_write(const char *path, const struct saved_snapshot *s, struct err *e);

/* `text` gets the file's content, which ret_text borrows from: the snapshot's JSON as it was saved.
 * ret_saved_us (may be NULL): when, wall clock. -EBADMSG if anything about it is wrong, -errno. */
int saved_snapshot_read(const char *path, const struct saved_from *from, struct buf *text,
			struct span *ret_text, struct flag_snapshot **ret, int64_t *ret_saved_us,
			struct err *e);

#endif
