/* Compare policy: how the answers of one operation are compared, and what of them may be kept. Configured. */
#ifndef COMPARE_COMPARE_POLICY_H
#define COMPARE_COMPARE_POLICY_H

#include "compare/compare.h"
#include "compare/compare_redact.h"

struct compare_policy {
	struct compare_options options;
	struct compare_redaction redaction;
	double noise_sample; /* of the pairs: this share (0 … 1) has legacy asked twice */
};

#endif
