/*
 * Guard test: whether bad entities are on the task side more often than chance puts them there. Pure.
 *
 * Why:       a test that may be looked at after every entity. An entity is on the task side with probability
 *            p(w) = share × w / (share × w + 1 - share) when a bad one is w times as likely there as it is on
 *            legacy (w: odds). Against the bound that w is at most w0 the evidence is the product over bad
 *            entities of p(w)/p(w0), mixed over a prior on w beyond w0. Under the bound it is a
 *            supermartingale that begins at 1, whatever the order, time and clustering of entities and
 *            however the share changes from one to the next; so it reaches 1/alpha with probability alpha at
 *            most, ever (Ville). Kept as logs, a sum for each point of the prior.
 * Source:    Lindon, Sanden, Shirikian 2022, "Rapid Regression Detection in Software Deployments through
 *            Sequential Testing"; Lindon, Malek, "Anytime-Valid Inference for Multinomial Count Data", arXiv
 *            2011.03567.
 * Threads:   any; a test is its owner's.
 */
#ifndef GUARD_GUARD_TEST_H
#define GUARD_GUARD_TEST_H

#include <stdbool.h>

#define GUARD_TEST_POINTS 32

/* Plain data: all zeros is a test that has seen nothing; it may be stored as it is. */
struct guard_test {
	double log_evidence[GUARD_TEST_POINTS];
};

enum guard_direction {
	GUARD_ABOVE, /* refutes: the odds are at most the bound */
	GUARD_BELOW, /* refutes: the odds are at least the bound */
};

/* How the prior lies beyond the bound, by |log(w / bound)|. */
enum guard_prior {
	GUARD_PRIOR_HARM,  /* 0.1 … 6.9 (a thousandfold), most of it within a factor of 3 */
	GUARD_PRIOR_SHARE, /* 0.02 … 3, evenly by its logarithm: small deviations, many entities */
};

struct guard_question {
	double bound; /* odds, > 0 */
	enum guard_direction direction;
	enum guard_prior prior;
};

/* One more entity, on the task side or not. `share`: the probability of the task side, > 0 and < 1; any other
 * decides nothing: false, and nothing is changed. */
bool guard_test_add(struct guard_test *t, const struct guard_question *q, bool task, double share);

/* The natural logarithm of the evidence so far: 0 for a fresh test. Compare with -log(alpha). */
double guard_test_evidence(const struct guard_test *t, const struct guard_question *q);

/* What one more entity adds to the logarithm on average when the odds are `odds`, at the best single point:
 * <= 0 where the truth lies on the bound's side. For estimates of how many are missing. */
double guard_test_growth(const struct guard_question *q, double odds, double share);

/* The probability of the task side under these odds. */
double guard_test_share(double odds, double share);

#endif
