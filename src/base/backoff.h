/*
 * Pauses between attempts: they double, and are spread.
 *
 * Why:    whoever was refused together must not come back in step.
 * Threads: any.
 */
#ifndef BASE_BACKOFF_H
#define BASE_BACKOFF_H

/* Before the next attempt, after `failures` (≥ 1) in a row: a random time in the upper half of first_ms ×
 * 2^(failures − 1), of max_ms at most. */
unsigned backoff_ms(unsigned first_ms, unsigned max_ms, unsigned failures);

#endif
