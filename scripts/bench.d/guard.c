/*
 * The guard, measured on made-up traffic: `bench-guard [ROLLOUTS [RUNS [SEED]]]` prints two tables.
 *
 * The first: ROLLOUTS rollouts in which both sides are the same service. Of 5,000 entities some are a
 * thousand times as active as others (Pareto, 1.1), a few of them fail often; failures, rejections and slow
 * answers come and go with outages and the time of day; the task side's percentage goes 5, 10, 25, 50, an
 * hour each.
 * After each request three rules are asked: the guard's, Flagger's, and a two-proportion test. A rollout that
 * one of them would have stopped is a false breach.
 *
 * The second: RUNS regressions, and how many bad entities there were until the guard's breach, beside Wald's
 * test of the true odds, which no guard can know.
 *
 * The same seed gives the same numbers, on however many threads. Exit code 1 when a goal is missed.
 */
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "guard/guard_evidence.h"

#define ENTITIES 5000
#define MINUTES 60 /* of a step */
#define REQUESTS_PER_MINUTE 120
#define STEPS 4
#define THREADS_MAX 16
#define LIMIT 50000 /* bad entities of a run */

static const double steps[STEPS] = {0.05, 0.10, 0.25, 0.50};
static const struct guard_rule rule = {0.01, 0.1, 2, 0.005};

/* --- chance: splitmix64 ------------------------------------------------------------------------------- */

static uint64_t draw(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

static double uniform(uint64_t *state)
{
	return (double)(draw(state) >> 11) * 0x1p-53;
}

/* --- traffic ------------------------------------------------------------------------------------------ */

struct person {
	double bucket;					  /* below the share: the task side */
	double rate[GUARD_KIND_COUNT];			  /* of bad events among requests */
	unsigned epoch_bad[GUARD_KIND_COUNT], epoch_seen; /* the last epoch in which */
};

struct world {
	struct person people[ENTITIES];
	double activity[ENTITIES]; /* cumulated */
	double outage;		   /* a factor on both sides' failures */
	double outage_ends;	   /* minute */
	uint64_t chance;
};

static void make_person(struct world *w, struct person *p)
{
	static const double usual[GUARD_KIND_COUNT] = {0.002, 0.004, 0.003};
	*p = (struct person){.bucket = uniform(&w->chance)};
	for (int k = 0; k < GUARD_KIND_COUNT; k++) {
		bool fragile = uniform(&w->chance) < 0.04;
		p->rate[k] = fragile ? -0.08 * log1p(-uniform(&w->chance)) : usual[k];
	}
}

static void make_world(struct world *w, uint64_t seed, uint64_t number)
{
	w->chance = seed + number * 0xd1342543de82ef95u;
	w->outage = 1;
	w->outage_ends = 0;
	double sum = 0;
	for (int i = 0; i < ENTITIES; i++) {
		make_person(w, &w->people[i]);
		sum += pow(1 - uniform(&w->chance), -1 / 1.1);
		w->activity[i] = sum;
	}
}

static struct person *who(struct world *w)
{
	double at = uniform(&w->chance) * w->activity[ENTITIES - 1];
	int low = 0, high = ENTITIES - 1;
	while (low < high) {
		int middle = (low + high) / 2;
		if (w->activity[middle] < at)
			low = middle + 1;
		else
			high = middle;
	}
	return &w->people[low];
}

static void drift(struct world *w, double minute)
{
	if (minute < w->outage_ends)
		return;
	bool begins = w->outage < 2 && uniform(&w->chance) < 1.0 / 50;
	double times_of_day = 1 + 0.5 * sin(minute / 240 * 2 * M_PI);
	w->outage = begins ? 8 : times_of_day;
	w->outage_ends = minute + (begins ? -4 * log1p(-uniform(&w->chance)) : 1);
}

/* --- the three rules ---------------------------------------------------------------------------------- */

struct stopped {
	bool guard, mismatch, flagger, proportions;
};

struct flagger {
	unsigned requests, failures; /* of the task side in this minute */
	unsigned failed_checks;
};

/* request-success-rate, interval 1m, min 99, threshold 5: failed checks add up over the whole analysis. */
static bool flagger_minute(struct flagger *f)
{
	if (f->requests && f->failures * 100 > f->requests)
		f->failed_checks++;
	f->requests = f->failures = 0;
	return f->failed_checks >= 5;
}

struct proportions {
	double requests[2], failures[2];
};

static bool proportions_differ(const struct proportions *p)
{
	double n0 = p->requests[0], n1 = p->requests[1];
	if (n0 < 100 || n1 < 100)
		return false;
	double pooled = (p->failures[0] + p->failures[1]) / (n0 + n1);
	double error = sqrt(pooled * (1 - pooled) * (1 / n0 + 1 / n1));
	return error > 0 && (p->failures[1] / n1 - p->failures[0] / n0) / error > 2.326; /* one-sided, 1 % */
}

static void guard_looks(struct guard_evidence *e, struct person *p, enum guard_kind kind, unsigned epoch,
			enum outcome_side side, double share)
{
	if (p->epoch_bad[kind] == epoch)
		return;
	p->epoch_bad[kind] = epoch;
	struct guard_bad b = {kind, side, share, true, 1};
	guard_evidence_bad(e, &rule, &b);
}

/* --- a rollout ---------------------------------------------------------------------------------------- */

struct rollout {
	struct world world;
	struct guard_evidence evidence;
	struct flagger flagger;
	struct proportions proportions;
	struct stopped stopped;
};

static void one_request(struct rollout *r, unsigned epoch, double share)
{
	struct person *p = who(&r->world);
	enum outcome_side side = p->bucket < share ? OUTCOME_TASK : OUTCOME_LEGACY;
	bool failed = false;
	if (p->epoch_seen != epoch) {
		p->epoch_seen = epoch;
		struct guard_sight s = {side, side, REASON_FLAG, share, 1, 1};
		guard_evidence_seen(&r->evidence, &rule, &s);
	}
	for (int k = 0; k < GUARD_KIND_COUNT && !failed; k++) {
		double rate = p->rate[k] * (k == GUARD_REJECTED ? 1 : r->world.outage);
		if (uniform(&r->world.chance) >= rate)
			continue;
		failed = true; /* a request has one result */
		guard_looks(&r->evidence, p, k, epoch, side, share);
		if (k != GUARD_FAILURE)
			continue;
		r->proportions.failures[side]++;
		r->flagger.failures += side == OUTCOME_TASK;
	}
	r->proportions.requests[side]++;
	r->flagger.requests += side == OUTCOME_TASK;
	for (int k = 0; k < GUARD_KIND_COUNT; k++)
		r->stopped.guard |= r->evidence.kinds[k].breached_us != 0;
	r->stopped.mismatch |= r->evidence.mismatch_us != 0;
	r->stopped.proportions |= proportions_differ(&r->proportions);
}

static struct stopped run_rollout(struct rollout *r, uint64_t seed, uint64_t number)
{
	make_world(&r->world, seed, number);
	r->flagger = (struct flagger){0};
	r->stopped = (struct stopped){0};
	for (unsigned step = 0; step < STEPS; step++) {
		memset(&r->evidence, 0, sizeof(r->evidence));
		memset(&r->proportions, 0, sizeof(r->proportions));
		for (unsigned minute = 0; minute < MINUTES; minute++) {
			drift(&r->world, step * MINUTES + minute);
			for (unsigned i = 0; i < REQUESTS_PER_MINUTE; i++)
				one_request(r, step + 1, steps[step]);
			r->stopped.flagger |= flagger_minute(&r->flagger);
		}
	}
	return r->stopped;
}

struct crew {
	uint64_t rollouts, seed;
	atomic_ulong next, guard, mismatch, flagger, proportions;
};

static void *work(void *arg)
{
	struct crew *c = arg;
	struct rollout *r = calloc(1, sizeof(*r));
	if (!r)
		abort();
	for (uint64_t n; (n = atomic_fetch_add(&c->next, 1)) < c->rollouts;) {
		struct stopped s = run_rollout(r, c->seed, n);
		atomic_fetch_add(&c->guard, s.guard);
		atomic_fetch_add(&c->mismatch, s.mismatch);
		atomic_fetch_add(&c->flagger, s.flagger);
		atomic_fetch_add(&c->proportions, s.proportions);
	}
	free(r);
	return NULL;
}

static void on_all_cores(void *(*fn)(void *), void *arg)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	pthread_t threads[THREADS_MAX];
	int n = (int)(cores < 1 ? 1 : cores > THREADS_MAX ? THREADS_MAX : cores);
	for (int i = 0; i < n; i++)
		if (pthread_create(&threads[i], NULL, fn, arg) != 0)
			abort();
	for (int i = 0; i < n; i++)
		pthread_join(threads[i], NULL);
}

static bool same_service(uint64_t rollouts, uint64_t seed)
{
	struct crew c = {.rollouts = rollouts, .seed = seed};
	on_all_cores(work, &c);
	double all = (double)rollouts / 100;
	printf("%llu rollouts of a task side that is the same service, %d requests each, looked at after "
	       "every one:\n",
	       (unsigned long long)rollouts, STEPS * MINUTES * REQUESTS_PER_MINUTE);
	printf("  %-72s %5.2f %%\n", "the guard (alpha 1 %, failure, rejected and slow): false breaches",
	       (double)c.guard / all);
	printf("  %-72s %5.2f %%\n", "the guard: false share mismatches", (double)c.mismatch / all);
	printf("  %-72s %5.2f %%\n", "Flagger's request-success-rate, 1m, min 99, threshold 5",
	       (double)c.flagger / all);
	printf("  %-72s %5.2f %%\n", "a two-proportion test of requests at 1 %, repeated",
	       (double)c.proportions / all);
	return (double)c.guard / all <= 1;
}

/* --- regressions -------------------------------------------------------------------------------------- */

struct regression {
	const char *name;
	double odds, share;
	uint64_t runs, seed;
	unsigned *guard, *oracle; /* bad entities until the breach, of each run */
	atomic_ulong next;
};

static unsigned oracle_run(const struct regression *g, uint64_t chance)
{
	double p = guard_test_share(g->odds, g->share), q = guard_test_share(1 + rule.tolerated, g->share);
	double sum = 0;
	for (unsigned n = 1; n < LIMIT; n++) {
		sum += uniform(&chance) < p ? log(p / q) : log((1 - p) / (1 - q));
		if (sum >= -log(rule.alpha))
			return n;
	}
	return LIMIT;
}

static unsigned guard_run(const struct regression *g, uint64_t chance)
{
	struct guard_evidence e;
	memset(&e, 0, sizeof(e));
	double p = guard_test_share(g->odds, g->share);
	for (unsigned n = 1; n < LIMIT; n++) {
		enum outcome_side side = uniform(&chance) < p ? OUTCOME_TASK : OUTCOME_LEGACY;
		struct guard_bad b = {GUARD_FAILURE, side, g->share, false, 1};
		guard_evidence_bad(&e, &rule, &b);
		if (e.kinds[GUARD_FAILURE].breached_us)
			return n;
	}
	return LIMIT;
}

static void *work_regression(void *arg)
{
	struct regression *g = arg;
	for (uint64_t n; (n = atomic_fetch_add(&g->next, 1)) < g->runs;) {
		uint64_t chance = g->seed + n * 0xd1342543de82ef95u;
		g->guard[n] = guard_run(g, chance);
		g->oracle[n] = oracle_run(g, chance);
	}
	return NULL;
}

static int by_size(const void *a, const void *b)
{
	unsigned x = *(const unsigned *)a, y = *(const unsigned *)b;
	return (x > y) - (x < y);
}

static bool one_regression(struct regression *g)
{
	on_all_cores(work_regression, g);
	qsort(g->guard, g->runs, sizeof(*g->guard), by_size);
	qsort(g->oracle, g->runs, sizeof(*g->oracle), by_size);
	unsigned median = g->guard[g->runs / 2], oracle = g->oracle[g->runs / 2];
	double ratio = (double)median / oracle;
	printf("  %-24s %4.0f %% %7u %7u %9u %7u   %.2f\n", g->name, g->share * 100, median,
	       g->guard[g->runs * 95 / 100], oracle, g->oracle[g->runs * 95 / 100], ratio);
	return ratio <= 1.6;
}

static bool regressions(uint64_t runs, uint64_t seed)
{
	static const struct {
		const char *name;
		double odds;
	} kinds[] = {{"1 % to 2 %", 2}, {"1 % to 5 %", 5}, {"0.1 % to 1 %", 10}, {"1 % to all", 100}};
	static const double shares[] = {0.01, 0.05, 0.25, 0.50};
	bool well = true;
	unsigned *counts = calloc(2 * runs, sizeof(*counts));
	if (!counts)
		abort();
	printf("\nbad entities until the breach, %llu runs each:\n", (unsigned long long)runs);
	printf("  %-24s %6s %7s %7s %9s %7s   %s\n", "entities with failures", "task", "median", "p95",
	       "oracle's", "p95", "ratio");
	for (unsigned i = 0; i < 4; i++)
		for (unsigned j = 0; j < 4; j++) {
			struct regression g = {.name = kinds[i].name,
					       .odds = kinds[i].odds,
					       .share = shares[j],
					       .runs = runs,
					       .seed = seed + 1000003 * (4 * i + j + 1),
					       .guard = counts,
					       .oracle = counts + runs};
			well &= one_regression(&g);
		}
	free(counts);
	return well;
}

static uint64_t argument(char **argv, int argc, int i, uint64_t otherwise)
{
	return argc > i ? strtoull(argv[i], NULL, 10) : otherwise;
}

int main(int argc, char **argv)
{
	uint64_t rollouts = argument(argv, argc, 1, 10000), runs = argument(argv, argc, 2, 4000);
	uint64_t seed = argument(argv, argc, 3, 1);
	if (rollouts == 0 || runs == 0) {
		fprintf(stderr, "bench-guard: ROLLOUTS and RUNS are at least 1\n");
		return 2;
	}
	bool few_false = same_service(rollouts, seed), soon = regressions(runs, seed);
	printf("\nfalse breaches at most 1 %%: %s; at most 1.6 times the oracle's median: %s\n",
	       few_false ? "yes" : "NO", soon ? "yes" : "NO");
	return few_false && soon ? 0 : 1;
}
