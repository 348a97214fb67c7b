/*
 * Trace: the sentences that `explain` prints about an evaluation.
 *
 * Why:       evaluate.c stays short and formats nothing unless someone listens; this is what to tell a person
 *            at 3 a.m.
 * Contract:  every function does nothing when `t` is NULL.
 */
#ifndef FLAGS_TRACE_H
#define FLAGS_TRACE_H

#include "flags/model.h"

void trace_flag(const struct flag_trace *t, const struct flag *f);
/* `deciding` is the constraint that decided: the first that failed (all) or matched (any); NULL when none
 * did. */
void trace_segment(const struct flag_trace *t, const struct segment *s, bool matched,
		   const struct constraint *deciding, struct span value);
/* Before the segments of a rule or rollout (`what`) are checked, and after. */
void trace_condition(const struct flag_trace *t, const char *what, size_t index, const struct condition *c);
void trace_condition_end(const struct flag_trace *t, const char *what, const struct condition *c,
			 size_t matched, bool holds);
void trace_distribution(const struct flag_trace *t, const struct rule *rule, int bucket,
			const struct distribution *chosen);
void trace_threshold(const struct flag_trace *t, size_t index, const struct rollout *r, int bucket,
		     bool matched);

#endif
