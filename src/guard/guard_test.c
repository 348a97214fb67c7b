#include "guard/guard_test.h"

#include <math.h>
#include <pthread.h>

struct guard_grid {
	double distance[GUARD_TEST_POINTS]; /* |log(w / bound)| */
	double log_weight[GUARD_TEST_POINTS];
};

static struct guard_grid guard_grids[2];
static pthread_once_t guard_grids_made = PTHREAD_ONCE_INIT;

/*
 * Points lie evenly by the logarithm of their distance. The weight of small distances is what detects a
 * doubling soon, since many entities are needed there and each unit of the logarithm costs dozens of them; at
 * a hundredfold it costs one. The even part keeps the price of a total failure at two entities.
 */
static double guard_density(enum guard_prior prior, double distance)
{
	return prior == GUARD_PRIOR_SHARE ? 1 : distance * (0.15 + exp(-distance / 1.2));
}

static void guard_make_grid(enum guard_prior prior, double first, double last)
{
	struct guard_grid *g = &guard_grids[prior];
	double sum = 0;
	for (int i = 0; i < GUARD_TEST_POINTS; i++) {
		g->distance[i] = first * pow(last / first, (double)i / (GUARD_TEST_POINTS - 1));
		sum += guard_density(prior, g->distance[i]);
	}
	for (int i = 0; i < GUARD_TEST_POINTS; i++)
		g->log_weight[i] = log(guard_density(prior, g->distance[i]) / sum);
}

static void guard_make_grids(void)
{
	guard_make_grid(GUARD_PRIOR_HARM, 0.1, 6.9);
	guard_make_grid(GUARD_PRIOR_SHARE, 0.02, 3);
}

static const struct guard_grid *guard_grid(const struct guard_question *q)
{
	pthread_once(&guard_grids_made, guard_make_grids);
	return &guard_grids[q->prior];
}

double guard_test_share(double odds, double share)
{
	return share * odds / (share * odds + 1 - share);
}

static double guard_step(const struct guard_question *q, double distance, double at_bound, bool task)
{
	double log_ratio = q->direction == GUARD_ABOVE ? distance : -distance;
	double step = -log1p(at_bound * expm1(log_ratio));
	return task ? step + log_ratio : step;
}

bool guard_test_add(struct guard_test *t, const struct guard_question *q, bool task, double share)
{
	if (!(share > 0 && share < 1))
		return false;
	const struct guard_grid *g = guard_grid(q);
	double at_bound = guard_test_share(q->bound, share);
	for (int i = 0; i < GUARD_TEST_POINTS; i++)
		t->log_evidence[i] += guard_step(q, g->distance[i], at_bound, task);
	return true;
}

double guard_test_evidence(const struct guard_test *t, const struct guard_question *q)
{
	const struct guard_grid *g = guard_grid(q);
	double most = -INFINITY, sum = 0;
	for (int i = 0; i < GUARD_TEST_POINTS; i++)
		most = fmax(most, t->log_evidence[i] + g->log_weight[i]);
	for (int i = 0; i < GUARD_TEST_POINTS; i++)
		sum += exp(t->log_evidence[i] + g->log_weight[i] - most);
	return most + log(sum);
}

double guard_test_growth(const struct guard_question *q, double odds, double share)
{
	if (!(share > 0 && share < 1))
		return 0;
	const struct guard_grid *g = guard_grid(q);
	double at_bound = guard_test_share(q->bound, share), truth = guard_test_share(odds, share);
	double best = -INFINITY;
	for (int i = 0; i < GUARD_TEST_POINTS; i++)
		best = fmax(best, truth * guard_step(q, g->distance[i], at_bound, true) +
					  (1 - truth) * guard_step(q, g->distance[i], at_bound, false));
	return best;
}
