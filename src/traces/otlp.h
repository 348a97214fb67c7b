/*
 * OTLP's JSON of spans, and what the answer says. Pure. Private to src/traces.
 */
#ifndef TRACES_OTLP_H
#define TRACES_OTLP_H

#include "base/buf.h"
#include "traces/traces.h"

/* The beginning of a request, each span in turn, its end. The buffer's errors. */
void otlp_begin(struct buf *out, const char *service_name, const char *instance);
void otlp_put_span(struct buf *out, const struct trace_span *s, bool first);
int otlp_end(struct buf *out);

/* How many spans an answer of 200 says were not taken, at most `sent`; `why` gets its sentence. */
uint64_t otlp_rejected(struct span body, uint64_t sent, struct err *why);

#endif
