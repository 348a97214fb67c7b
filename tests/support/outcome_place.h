/* A store of outcomes in a folder of the test's own: set-up and teardown of the tests that read and write
 * one. */
#ifndef TESTS_OUTCOME_PLACE_H
#define TESTS_OUTCOME_PLACE_H

#include "outcomes/outcome_store.h"
#include "support/scratch.h"

struct place {
	char folder[SCRATCH_MAX], file[SCRATCH_MAX];
	struct series_table *series;
	struct outcome_store *store;
};

int open_place(void **state); /* *state: a struct place */
int close_place(void **state);

#endif
