/*
 * URLs of http and https that someone configures: one check for all files, settings and variables.
 *
 * Secrets: no sentence repeats a part of the URL.
 * Threads: any; no state.
 */
#ifndef BASE_URL_H
#define BASE_URL_H

#include <stdbool.h>

#include "base/span.h"

/* URL_BASE: paths are prefixed with it, so that it has neither "?" nor "#". URL_WHOLE: it is called as it
 * is. */
enum url_kind { URL_BASE, URL_WHOLE };

/* NULL when it is one that we can call, else what is wrong: a sentence. */
const char *url_mistake(struct span url, enum url_kind kind);
/* What is before the "@" of its host; SPAN_NONE if there is none, or it is of neither scheme. */
struct span url_user_info(struct span url);
/* What follows its host and port, with the "/", "?" or "#" that it begins with; empty when there is
 * nothing. SPAN_NONE when it is of neither scheme. */
struct span url_behind_host(struct span url);
/* In place: schemes are written in any case, and compared in one. */
void url_lower_scheme(char *url);
/* Without the slashes at its end. */
struct span url_without_slash(struct span url);

#endif
