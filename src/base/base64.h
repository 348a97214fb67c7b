/*
 * Base64 (RFC 4648 §4, the standard alphabet with padding).
 */
#ifndef BASE_BASE64_H
#define BASE_BASE64_H

#include "base/buf.h"
#include "base/span.h"

int base64_encode(struct span bytes, struct buf *out);
/* -EINVAL for anything other than complete, padded base64; line breaks (as MIME puts them) are skipped. */
int base64_decode(struct span text, struct buf *out);

#endif
