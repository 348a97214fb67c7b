/*
 * Names that people mix up: of flags, and of the properties that flags ask the context for.
 */
#ifndef MOVE_FLAG_NAMES_H
#define MOVE_FLAG_NAMES_H

#include "base/buf.h"
#include "config/config.h"
#include "flags/flags.h"

/* Whether one is a typo of the other, or a part of it with one. */
bool flag_names_near(const char *key, const char *wanted);
/* "; similar: a, b", else "; available: …" (some), else "; there are no flags at all". */
void flag_names_suggest(const struct flag_snapshot *s, const char *wanted, struct buf *out);
/* The properties that segments of the flag ask for and that this operation does not provide, "a, b"; "" if it
 * provides all. */
void flag_names_unasked(const struct operation *op, const struct flag *f, struct buf *out);

#endif
