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
#include "flags/flag_source.h"

struct features_source;

#define FEATURES_POLL_MS 2000 /* how often the file is looked at even when no event came */

/* Reads `path` now (calls publish when good) and whenever it changes: inotify on its folder, so that editors' renames,
 * symlink swaps (Kubernetes ConfigMaps) and in-place writes are all seen; also a slow poll as safety net. A file that is
 * missing or broken now is no error: the status says so, and the source keeps watching. Identical content is not published
 * again. Without inotify (its limits reached) the slow poll alone does the work. -EINVAL for an empty path, -ENAMETOOLONG,
 * -ENOMEM. */
int features_source_start(struct loop *loop, const char *path, enum flag_rules rules,
			  const struct flag_source_events *events, struct features_source **ret, struct err *e);
struct features_source *features_source_stop(struct features_source *s);
void features_source_reload(struct features_source *s); /* read again now (SIGHUP) */
void features_source_status(const struct features_source *s, struct flag_source_status *ret);

#endif
