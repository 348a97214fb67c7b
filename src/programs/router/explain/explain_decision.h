/*
 * How a decision comes about, as lines of text: what `migration-router explain` prints, and the page of a
 * request.
 */
#ifndef PROGRAMS_ROUTER_EXPLAIN_EXPLAIN_DECISION_H
#define PROGRAMS_ROUTER_EXPLAIN_EXPLAIN_DECISION_H

#include "base/buf.h"
#include "router/decide.h"

/* `in` without entity: it is found from user and organization. Appends. */
void explain_decision(const struct decide_input *in, struct buf *out);

#endif
