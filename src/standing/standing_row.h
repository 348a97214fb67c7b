/*
 * Standing row: the router's facts in outcomes.db, table `standing` (one row: when, and the facts as JSON).
 *
 * Why:       whoever reads the file without the router knows what the router knew, and since when it has
 *            been silent. One table of its own and no new version of the schema, as for events.
 * Writing:   the owner hands over the facts as often as it likes; the recorder's thread (recorder_tap)
 *            writes them when they have changed and every STANDING_REPORT_US. In a takeover the process
 *            that leaves stops writing (standing_row_quiet), so that its last word is not the file's.
 * Threads:   set and quiet from any; the tap is the recorder's; read from any, with its own connection.
 */
#ifndef STANDING_STANDING_ROW_H
#define STANDING_STANDING_ROW_H

#include "outcomes/recorder.h"
#include "standing/standing.h"

struct standing_row;

int standing_row_new(struct standing_row **ret); /* -ENOMEM */
/* After the recorder has stopped. NULL is allowed; returns NULL */
struct standing_row *standing_row_free(struct standing_row *r);
void standing_row_tap(struct standing_row *r, struct recorder_tap *ret);
/* Copied. -ENOMEM: the row stays as it was, and grows old. */
int standing_row_set(struct standing_row *r, const struct standing_facts *f);
/* From now on another process writes it. */
void standing_row_quiet(struct standing_row *r);

/* *ret NULL with 0: no router has reported yet. Errors: db.h's, -EPROTO the row cannot be understood. */
int standing_row_read(const char *path, struct standing_facts **ret, struct err *e);

#endif
