/*
 * Snapshots that are no longer in use, freed once nobody reads them anymore.
 *
 * Why:       the last reference is dropped by whichever thread used the snapshot last, often one that
 *            serves requests; freeing a large one there would make them wait. Who made a snapshot keeps a
 *            reference here, and frees it.
 * Ownership: a reference that is added belongs to the list. retired_free drops all.
 * Threads:   the loop's own.
 */
#ifndef FLAGS_SOURCE_RETIRED_H
#define FLAGS_SOURCE_RETIRED_H

#include "base/loop.h"
#include "flags/flags.h"

struct retired;

int retired_new(struct loop *loop, struct retired **ret); /* -ENOMEM */
struct retired *retired_free(struct retired *r);	  /* NULL is allowed; returns NULL */

/* Takes over the caller's reference; NULL is allowed. Without memory for the list it is dropped here and
 * now. */
void retired_add(struct retired *r, const struct flag_snapshot *snapshot);
size_t retired_count(const struct retired *r); /* still read by someone */

#endif
