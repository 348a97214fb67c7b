/*
 * What the files of drain share. Private to outcomes/drain.
 */
#ifndef OUTCOMES_DRAIN_INTERNAL_H
#define OUTCOMES_DRAIN_INTERNAL_H

#include "outcomes/drain/drain.h"

/* That operation of the drain, made if it is not there; good until the next. -ENOMEM, -E2BIG. */
int drain_add_operation(struct drain *d, const struct drain_last *like, struct drain_operation **ret,
			struct err *e);
/* What keeps "nothing was recorded" from meaning "nothing was there"; false when nothing does. */
bool drain_lacks(const struct drain *d, char why[256]);
/* Sorts, groups by service, and judges. */
int drain_conclude(struct drain *d, struct err *e);

#endif
