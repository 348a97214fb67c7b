/*
 * Set share: what the flags of an operation are set to, for everybody and for the segments that their rules
 * name, and where its tasks would go.
 *
 * Why:       what is measured means something only beside what is set.
 * Shape:     made-up identities are given to the decision itself, so that this cannot differ from what
 *            requests get: one that is in no segment, and for each segment one with the values that it asks
 *            for.
 * Threads:   any; borrows from the snapshot and the configuration.
 */
#ifndef ROUTER_SET_SHARE_H
#define ROUTER_SET_SHARE_H

#include "router/decide.h"

#define SET_SHARE_SEGMENTS_MAX 8

struct set_share {
	double task, shadow; /* 0 … 1 */
	struct span backend; /* of a task decision; else the operation's */
	struct {
		struct span name;
		double task;
	} segments[SET_SHARE_SEGMENTS_MAX]; /* whose share differs from `task` */
	size_t n_segments;
};

void set_share_of(const struct config *c, const struct operation *op, const struct flag_snapshot *flags,
		  struct set_share *ret);

#endif
