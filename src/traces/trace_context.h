/*
 * W3C trace context: the fields traceparent and tracestate, read and written. Pure.
 *
 * Why:       what a caller's trace began goes on in the task, whichever backend runs it.
 * Source:    https://www.w3.org/TR/trace-context/. What is malformed is as if absent; a version that is not
 *            known is read as far as version 00 goes, and written as that.
 */
#ifndef TRACES_TRACE_CONTEXT_H
#define TRACES_TRACE_CONTEXT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/http_message.h"

#define TRACE_ID_HEX 33	    /* 32 hex digits and NUL */
#define TRACE_SPAN_HEX 17   /* 16 and NUL */
#define TRACE_PARENT 56	    /* 55 and NUL */
#define TRACE_STATE_MAX 512 /* more is dropped as a whole */
#define TRACE_SAMPLED 0x01

struct trace_context {
	char trace[TRACE_ID_HEX];
	char span[TRACE_SPAN_HEX]; /* whoever has sent it */
	uint8_t flags;
};

/* False: it is none. */
bool trace_parent_read(struct span text, struct trace_context *ret);
/* Of a request's fields; none, or several: false. */
bool trace_context_find(const struct http_field *fields, size_t n, struct trace_context *ret);
/* Its tracestate fields, joined; "" where there is none that is good. */
void trace_state_find(const struct http_field *fields, size_t n, char ret[TRACE_STATE_MAX + 1]);
void trace_parent_write(const struct trace_context *c, char ret[TRACE_PARENT]);

/* New ids. */
void trace_new_id(char ret[TRACE_ID_HEX]);
void trace_new_span(char ret[TRACE_SPAN_HEX]);
/* Whether a share (0 … 1) of all traces has this one: the same at whoever asks. */
bool trace_is_among(const char trace[TRACE_ID_HEX], double share);

#endif
