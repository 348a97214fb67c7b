/*
 * What a Flipt server reports about itself (GET /meta/info), and what follows from it. Pure.
 *
 * Source:    docs/protocols/flipt.md, "Which server".
 */
#ifndef FLAGS_SOURCE_FLIPT_SERVER_H
#define FLAGS_SOURCE_FLIPT_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/span.h"
#include "flags/flags.h"

#define FLIPT_INFO_PATH "/meta/info"

struct flipt_server {
	bool known;
	unsigned major, minor, patch;
	bool database; /* v1: its flags are in a database, not in files */
};

/* From the answer's body; unknown if it reports no version. */
struct flipt_server flipt_server_of(struct span info);
/* Whether different contents of a namespace never have the same digest (of v1: once its grain of time has
 * passed). Only then may a digest save work: other servers give a namespace of several files the last
 * file's. */
bool flipt_server_digest_is_whole(const struct flipt_server *s);
/* A sentence for an unsuccessful answer; borrowed spans may be SPAN_NONE. */
struct flipt_refusal {
	int status;
	struct span content_type, location, body;
};
bool flipt_is_html(struct span content_type, struct span body);
const char *flipt_refusal_text(const struct flipt_refusal *r, char *out, size_t size);
/* Retry-After: how long to leave the server alone, at most an hour; 0: it does not say. `now_us`:
 * wall clock. */
unsigned flipt_retry_after_ms(struct span field, int64_t now_us);
/* `text`: at least 32 bytes; "2.11.0", "" when not known. */
void flipt_server_version(const struct flipt_server *s, char text[32]);

#endif
