/*
 * Instants as Flipt reads them: RFC 3339 the way Go's time.Parse takes it, or YYYY-MM-DD (midnight UTC).
 *
 * Source: docs/protocols/flipt.md, "datetime". Looser than the RFC in three places (a one-digit hour, a comma
 * before the fraction, offsets up to 24:60) and stricter in two (no lower-case t and z, no leap second).
 */
#ifndef FLAGS_INSTANT_H
#define FLAGS_INSTANT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/span.h"

struct instant {
	int64_t seconds; /* since 1970-01-01 UTC */
	int32_t nanos;	 /* 0..999999999 */
};

bool instant_parse(struct span text, struct instant *ret);
int instant_compare(struct instant a, struct instant b); /* <0, 0, >0 */

#endif
