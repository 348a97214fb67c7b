/*
 * When: a point in time as people and URLs name it. Pure.
 */
#ifndef OUTCOMES_WHEN_H
#define OUTCOMES_WHEN_H

#include <stdbool.h>
#include <stdint.h>

/* "90s", "15m", "24h", "7d" before `now_us`, or RFC 3339: "2026-01-31T08:00:00Z", also with a fraction or an
 * offset; a date alone is its first moment in UTC. false when it is neither. */
bool when_parse(const char *text, int64_t now_us, int64_t *ret_us);

#endif
