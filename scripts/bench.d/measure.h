/* What the benchmarks of tasks measure and print: time of each round trip, CPU of the whole process. */
#ifndef BENCH_MEASURE_H
#define BENCH_MEASURE_H

#include <stddef.h>
#include <stdint.h>

struct measure {
	size_t count, ended;
	int64_t *took_us; /* of each round trip */
	int64_t begin_us, begin_cpu_us;
};

void measure_begin(struct measure *m, size_t count); /* ends the program when memory is out */
void measure_add(struct measure *m, int64_t took_us);
/* One line of JSON {"tasks", "in_flight", "cpu_us", "p50_us", "p99_us", "per_second"}, and the end of it. */
void measure_end(struct measure *m, int in_flight);

#endif
