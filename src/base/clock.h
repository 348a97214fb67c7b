/*
 * Clocks. Durations and deadlines use the monotonic clock; the wall clock is only for what people read and
 * what is recorded, and it may jump.
 */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "base/span.h"

int64_t clock_mono_ns(void);
int64_t clock_mono_us(void);
int64_t clock_mono_ms(void);
/* So far from now, for pthread_cond_timedwait on this clock (CLOCK_MONOTONIC, CLOCK_REALTIME). */
struct timespec clock_deadline(clockid_t clock, unsigned ms);
int64_t clock_wall_us(void); /* since 1970-01-01 UTC */

#define CLOCK_TEXT_MAX 32
/* RFC 3339 in UTC with milliseconds: 2026-01-31T08:15:00.123Z */
void clock_format(int64_t wall_us, char out[CLOCK_TEXT_MAX]);

/* "90s", "15m", "24h", "7d", "500ms" or a bare number of seconds → milliseconds; -EINVAL otherwise (also
 * for overflow). */
int clock_parse_duration(const char *text, int64_t *ret_ms);
/* 90000 → "90s" */
void clock_format_duration(int64_t ms, char out[CLOCK_TEXT_MAX]);

#define CLOCK_RANGE_MAX 128
/* A duration of min to max milliseconds; false leaves *ret as it was. */
bool clock_duration_within(struct span text, uint64_t min_ms, uint64_t max_ms, uint64_t *ret_ms);
/* What was expected: "a duration from 1s to 7d (500ms, 5s, 2m, 1h, 7d)" */
void clock_duration_range(uint64_t min_ms, uint64_t max_ms, char out[CLOCK_RANGE_MAX]);

#endif
