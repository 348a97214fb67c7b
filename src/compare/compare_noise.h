/*
 * Compare noise: whether a path differs between the sides more often than between two answers of legacy.
 * Pure.
 *
 * Why:       a test that may be looked at as often as you like, and that needs the counts only, so that
 *            counts of replicas add up. Evidence against "differs no more often than noise does": the
 *            probability of the counts, each rate mixed over a Beta(1/2, 1/2) prior, over the largest one
 *            that any pair of rates without such a difference gives them. Under such a pair it is at most a
 *            likelihood ratio that begins at 1, so it reaches 1/alpha with probability alpha at most, ever
 *            (Ville).
 * Source:    Wasserman, Ramdas, Balakrishnan 2020, "Universal inference" (PNAS 117), its running maximum
 *            likelihood; Robbins 1970 for the mixtures.
 * Threads:   any; no state.
 */
#ifndef COMPARE_COMPARE_NOISE_H
#define COMPARE_COMPARE_NOISE_H

#include <stdbool.h>
#include <stdint.h>

#define COMPARE_ALPHA 0.01 /* of an operation: shared by its paths */

struct compare_counts {
	uint64_t differing, compared;  /* of the two sides */
	uint64_t noisy, noise_samples; /* of legacy with itself */
};

/* The natural logarithm of the evidence; <= 0 where it differs no more often than noise. */
double compare_noise_evidence(const struct compare_counts *c);

/* Enough of it for one of `paths` paths of an operation. Without a noise sample: false. */
bool compare_beyond_noise(const struct compare_counts *c, uint64_t paths);

#endif
