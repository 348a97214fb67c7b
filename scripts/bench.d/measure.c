#include "measure.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "base/clock.h"

static int64_t cpu_us(void)
{
	struct rusage u;
	getrusage(RUSAGE_SELF, &u);
	return (u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000ll + u.ru_utime.tv_usec + u.ru_stime.tv_usec;
}

static int by_size(const void *a, const void *b)
{
	const int64_t *x = a, *y = b;
	return (*x > *y) - (*x < *y);
}

void measure_begin(struct measure *m, size_t count)
{
	*m = (struct measure){.count = count, .took_us = calloc(count, sizeof(*m->took_us))};
	if (!m->took_us)
		abort();
	m->begin_us = clock_mono_us();
	m->begin_cpu_us = cpu_us();
}

void measure_add(struct measure *m, int64_t took_us)
{
	m->took_us[m->ended++] = took_us;
}

void measure_end(struct measure *m, int in_flight)
{
	double cpu = (double)(cpu_us() - m->begin_cpu_us), took = (double)(clock_mono_us() - m->begin_us),
	       n = (double)m->count;
	qsort(m->took_us, m->count, sizeof(*m->took_us), by_size);
	printf("{\"tasks\": %zu, \"in_flight\": %d, \"cpu_us\": %.1f, \"p50_us\": %lld, \"p99_us\": %lld, "
	       "\"per_second\": %.0f}\n",
	       m->count, in_flight, cpu / n, (long long)m->took_us[m->count / 2],
	       (long long)m->took_us[m->count * 99 / 100], n * 1e6 / took);
	free(m->took_us);
}
