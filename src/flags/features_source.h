/*
 * The features file as a source of snapshots: read, watched, read again.
 *
 * Why:       Percentages changed in the file take effect at once; a broken file keeps the last good snapshot (rule 1).
 * Threads:   lives on the control thread's loop; `publish` is called there.
 * Not here:  who gets the snapshot (app), and what a flag means (flags.h).
 */
#ifndef FLAGS_FEATURES_SOURCE_H
#define FLAGS_FEATURES_SOURCE_H

#include "base/err.h"
#include "base/loop.h"
#include "flags/flags.h"

struct features_source;

struct features_source_events {
	/* A new good snapshot; the callee takes its own reference. */
	void (*publish)(void *arg, const struct flag_snapshot *snapshot);
	/* The newest state could not be used, and why (file, line, key); once per state. May be NULL. */
	void (*failed)(void *arg, const char *why);
	void *arg;
};

/* Neither may stop the source from within. */

/* What a flag source tells /readyz and the report. */
struct flag_source_status {
	const char *kind;      /* "file" or "flipt" */
	char where[256];       /* path or URL without credentials */
	int64_t good_us;       /* wall clock of the last good snapshot; 0 = never */
	char digest[80];
	bool failing;	       /* the newest state could not be used */
	char last_error[512];  /* why; "" unless failing */
};

#define FEATURES_POLL_MS 2000 /* how often the file is looked at even when no event came */

/* Reads `path` now (calls publish when good) and whenever it changes: inotify on its folder, so that editors' renames,
 * symlink swaps (Kubernetes ConfigMaps) and in-place writes are all seen; also a slow poll as safety net. A file that is
 * missing or broken now is no error: the status says so, and the source keeps watching. Identical content is not published
 * again. Without inotify (its limits reached) the slow poll alone does the work. -EINVAL for an empty path, -ENAMETOOLONG,
 * -ENOMEM. */
int features_source_start(struct loop *loop, const char *path, enum flag_rules rules,
			  const struct features_source_events *events, struct features_source **ret, struct err *e);
struct features_source *features_source_stop(struct features_source *s);
void features_source_reload(struct features_source *s); /* read again now (SIGHUP) */
void features_source_status(const struct features_source *s, struct flag_source_status *ret);

#endif
