/*
 * The features file as a source of snapshots: read, watched, read again.
 *
 * Why:       Percentages changed in the file take effect at once; a broken file keeps the last good snapshot
 *            (rule 1).
 * Threads:   lives on the control thread's loop; `publish` is called there.
 * Not here:  who gets the snapshot (app), and what a flag means (flags.h).
 */
#ifndef FLAGS_SOURCE_FEATURES_SOURCE_H
#define FLAGS_SOURCE_FEATURES_SOURCE_H

#include "base/err.h"
#include "base/loop.h"
#include "flags/source/flag_source.h"

struct features_source;

#define FEATURES_POLL_MS 2000	  /* how often the file is checked even without an event */
#define FEATURES_QUIET_MS 50	  /* a change is accepted after the file has been unchanged for this long */
#define FEATURES_PATIENCE_MS 1000 /* the same if it looks unfinished */
#define FEATURES_UNREST_MS 10000  /* a file that keeps changing is reported */

/* `used`: the flags that operations use; copied, as the options are. Reads the file now (calls publish
 * when there is something good, if only on disk) and whenever it changes: inotify on its folder, so that
 * editors' renames, symlink swaps (Kubernetes ConfigMaps) and in-place writes are all seen; also a slow
 * poll as safety net. A change is accepted once the file has been quiet for a moment; longer if the file
 * looks truncated: it does not parse, lacks a used flag that was there, or the end of its last line. A file
 * that is missing or broken now is not an error: the status says so, and the source keeps watching. A flag in
 * use that it lost keeps its last good definition. Identical content is not published again. Without inotify
 * (its limits reached) the slow poll alone does the work. -EINVAL for an empty path, -ENAMETOOLONG,
 * -ENOMEM. */
int features_source_start(struct loop *loop, const struct flag_source_options *o, const struct span *used,
			  size_t n_used, const struct flag_source_events *events,
			  struct features_source **ret, struct err *e);
struct features_source *features_source_stop(struct features_source *s);
void features_source_reload(struct features_source *s); /* read again, changed or not (SIGHUP) */
/* The flags that operations use now; keys are copied. -ENOMEM. */
int features_source_use(struct features_source *s, const struct span *keys, size_t n);
void features_source_status(const struct features_source *s, struct flag_source_status *ret);

#endif
