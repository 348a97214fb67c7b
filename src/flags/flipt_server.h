/*
 * What a Flipt server says of itself (GET /meta/info), and what follows from it. Pure.
 *
 * Source:    docs/protocols/flipt.md, "Which server".
 */
#ifndef FLAGS_FLIPT_SERVER_H
#define FLAGS_FLIPT_SERVER_H

#include <stdbool.h>

#include "base/span.h"
#include "flags/flags.h"

#define FLIPT_INFO_PATH "/meta/info"

struct flipt_server {
	bool known;
	unsigned major, minor, patch;
	bool database; /* v1: its flags lie in one, not in files */
};

/* From the answer's body; not known when it says no version. */
struct flipt_server flipt_server_of(struct span info);
/* Whether different contents of a namespace never have the same digest (of v1: once its grain of time has passed). Only then may a
 * digest save work: other servers give a namespace of several files the last file's. */
bool flipt_server_digest_is_whole(const struct flipt_server *s);
/* `text`: at least 32 bytes; "2.11.0", "" when not known. */
void flipt_server_version(const struct flipt_server *s, char text[32]);

#endif
