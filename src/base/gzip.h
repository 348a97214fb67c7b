/*
 * Content codings gzip and deflate (RFC 9110 §8.4.1), the reading half. Over zlib.
 */
#ifndef BASE_GZIP_H
#define BASE_GZIP_H

#include "base/buf.h"
#include "base/span.h"

/* Appends what the gzip or zlib stream holds. -EFBIG beyond out's limit, -EBADMSG when it is neither or ends
 * early, -ENOMEM. */
int gzip_decode(struct span coded, struct buf *out);

#endif
