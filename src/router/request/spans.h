/*
 * Spans: the trace that a request belongs to, what a task is told of it, and what is exported.
 *
 * Rules:     without `traces:` a caller's context goes on into the task as it came. With it there is a span
 *            per request and one per attempt, where the request is sampled: by its caller, if that is a
 *            trusted peer, else by the configured share; the task then continues the attempt's span. What
 *            legacy gets stays as it was sent (rule 6).
 * Not in it: users, organizations, targets: what is exported leaves the house.
 * Threads:   the plane's.
 */
#ifndef ROUTER_REQUEST_SPANS_H
#define ROUTER_REQUEST_SPANS_H

#include "outcomes/outcome.h"
#include "tasks/task_backend.h"
#include "traces/traces.h"

struct request;
struct plane;

/* Of a request. Zeroed: it was not looked for yet. */
struct request_spans {
	bool looked, known, sampled;
	struct trace_context own;     /* sampled: the request's own span; else the caller's */
	char parent[TRACE_SPAN_HEX];  /* the caller's span, or "" */
	char attempt[TRACE_SPAN_HEX]; /* of the attempt in progress; sampled only */
};

/* An attempt that may outlive its request. */
struct attempt_span {
	bool sampled;
	char trace[TRACE_ID_HEX], span[TRACE_SPAN_HEX], parent[TRACE_SPAN_HEX];
	/* for the task; "": none */
	char traceparent[TRACE_PARENT], tracestate[TRACE_STATE_MAX + 1];
};

void spans_begin_attempt(struct request *r);
/* As `o` says; before the attempt's span is replaced by the next one's. */
void spans_end_attempt(const struct request *r, const struct outcome *o);
void spans_end_request(const struct request *r, int status);

/* For a task of this request's attempt; `ret` outlives the submission. The request's head is there. */
void spans_of_attempt(struct request *r, struct attempt_span *ret);
/* The same for one beside it, a span of its own. */
void spans_of_shadow(struct request *r, struct attempt_span *ret);
void spans_put_call(const struct attempt_span *s, struct task_call *call);
void spans_end_shadow(struct plane *p, const struct attempt_span *s, const struct outcome *o);

#endif
