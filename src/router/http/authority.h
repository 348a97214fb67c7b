/*
 * Authority: a host and perhaps a port, as in Host and in targets of absolute form (RFC 9110 §7.2, RFC 3986
 * §3.2). Pure.
 *
 * Why:       whoever is known by name must not be taken for another because the rest was not looked at.
 */
#ifndef ROUTER_HTTP_AUTHORITY_H
#define ROUTER_HTTP_AUTHORITY_H

#include <stdbool.h>

#include "base/span.h"

#define AUTHORITY_HOST_MAX 256 /* with NUL */

/*
 * "name", "name:port", "127.0.0.1:port", "[::1]:port" → the name or address in lower case, without brackets
 * and without one dot at its end. false for all else: user info, letters in a port, one above 65535, none
 * after the colon, brackets around or behind what is not an IPv6 address, characters that no name has, blanks
 * inside.
 */
bool authority_host(struct span text, char out[AUTHORITY_HOST_MAX]);

/* The authority of a target in absolute form ("http://host/…"); SPAN_NONE for other targets. */
struct span authority_of_target(struct span target);

#endif
