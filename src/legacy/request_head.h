/*
 * Heads of requests to legacy services. Pure.
 *
 * Fields go out in the order given. Content-Length, Transfer-Encoding and Connection among them are left out:
 * framing is made here from the request, and it comes last. Connection is never sent (keep-alive is
 * HTTP/1.1's default). Host is added when there is none. Target: origin-form gets the prefix in front; `*`
 * goes as it is; absolute-form goes as it is without a prefix, and with one is turned into origin-form first.
 */
#ifndef LEGACY_REQUEST_HEAD_H
#define LEGACY_REQUEST_HEAD_H

#include "base/buf.h"
#include "legacy/legacy.h"
#include "legacy/origin.h"

/* Appends the head with its empty line. -EINVAL when a part of the request would break the framing (CR, LF or
 * NUL anywhere, a blank in method or target), -EFBIG above the buffer's limit, -ENOMEM; the buffer may then
 * hold a part. */
int request_head_append(struct buf *out, const struct legacy_request *r, const struct origin *o);

/* Whether dot segments lead above the target's own root: legacy_upstream_is_left. Out of memory counts as
 * yes. */
bool request_target_climbs(struct span target);

#endif
