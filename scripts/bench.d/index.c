/*
 * bench-index FILE: lets the recorder's store take up what is in outcomes.db
 * (outcomes/search/row_index.h), as it does after an upgrade, and tells how long a row costs. Deletes
 * nothing. Makes the file where there is none.
 */
#include <inttypes.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/crypto.h"
#include "outcomes/outcome_store.h"

int main(int argc, char **argv)
{
	struct series_table *series = NULL;
	struct outcome_store *store = NULL;
	struct err e = {""};
	if (argc != 2 || crypto_setup() < 0 || series_table_new(&series) < 0)
		return 2;
	if (outcome_store_open(argv[1], series, &store, &e) < 0) {
		fprintf(stderr, "%s\n", e.text);
		return 1;
	}
	const struct outcome_limits limits = {.now_us = clock_wall_us()};
	int64_t began_us = clock_mono_us(), longest_us = 0;
	uint64_t steps = 0;
	int r = 1;
	while (r == 1) {
		int64_t step_us = clock_mono_us();
		r = outcome_store_retain(store, &limits, &e);
		step_us = clock_mono_us() - step_us;
		longest_us = step_us > longest_us ? step_us : longest_us;
		steps++;
	}
	if (r < 0)
		fprintf(stderr, "%s\n", e.text);
	printf("steps %" PRIu64 " seconds %.1f longest_ms %.1f\n", steps,
	       (double)(clock_mono_us() - began_us) / 1e6, (double)longest_us / 1e3);
	outcome_store_close(store);
	series_table_free(series);
	return r < 0;
}
