#include "compare/compare_noise.h"

#include <math.h>

static double noise_log_gamma(double x)
{
	int sign;
	return lgamma_r(x, &sign);
}

/* Of k in n in a certain order, the rate mixed over Beta(1/2, 1/2). */
static double noise_log_mixed(double k, double n)
{
	double log_pi = log(3.14159265358979323846); /* B(1/2, 1/2) */
	return noise_log_gamma(k + 0.5) + noise_log_gamma(n - k + 0.5) - noise_log_gamma(n + 1) - log_pi;
}

static double noise_log_likelihood(double k, double n)
{
	double hits = k > 0 ? k * log(k / n) : 0, misses = n > k ? (n - k) * log((n - k) / n) : 0;
	return hits + misses;
}

double compare_noise_evidence(const struct compare_counts *c)
{
	double m = (double)c->differing, n = (double)c->compared;
	double k = (double)c->noisy, l = (double)c->noise_samples;
	double mixed = noise_log_mixed(m, n) + noise_log_mixed(k, l);
	/* The likeliest pair with the first rate at most the second: where the rates seen are not such a
	 * pair, both are what was seen of both together. */
	bool within = m * l <= k * n;
	double most = noise_log_likelihood(m + k, n + l);
	if (within)
		most = noise_log_likelihood(m, n) + noise_log_likelihood(k, l);
	return mixed - most;
}

bool compare_beyond_noise(const struct compare_counts *c, uint64_t paths)
{
	if (!c->noise_samples || !c->compared)
		return false;
	return compare_noise_evidence(c) >= log((double)(paths ? paths : 1) / COMPARE_ALPHA);
}
