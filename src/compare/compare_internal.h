/* What the files of compare share. */
#ifndef COMPARE_COMPARE_INTERNAL_H
#define COMPARE_COMPARE_INTERNAL_H

#include "compare/compare.h"

/* Counts a difference at a written path. false: there is no room for another path. */
bool compare_note(struct compare_result *result, const char *path, enum compare_kind kind, struct span left,
		  struct span right);

/* Both are valid JSON. Adds to the result. COMPARE_WHY_NONE, or why they were not compared to the end. */
enum compare_why compare_json(struct span left, struct span right, const struct compare_options *o,
			      struct compare_result *result);

#endif
