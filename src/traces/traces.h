/*
 * Traces: spans, handed over by the planes and exported over OTLP/HTTP (JSON) by a thread of its own.
 *
 * Why:       a plane that records a span writes into its own queue and goes on; what the collector does, or
 *            does not, delays nobody (rule 5).
 * Limits:    queue_slots spans of each producer wait, TRACES_BATCH are in a request, of which one is in
 *            progress. What does not fit is dropped and counted.
 * Failures:  a batch is sent again, with a growing pause, while the collector cannot be reached or answers
 *            429, 502, 503 or 504, up to TRACES_ATTEMPTS times; then it is counted as failed, as is what it
 *            refuses.
 * Threads:   traces_producer_new once per producing thread, then reserve and commit from that thread only;
 *            the rest from any. No producer may be used once traces_stop has begun.
 * Source:    https://opentelemetry.io/docs/specs/otlp/ (1.3): ids in hex, 64-bit numbers as strings.
 */
#ifndef TRACES_TRACES_H
#define TRACES_TRACES_H

#include "base/err.h"
#include "base/span.h"
#include "traces/trace_context.h"

#define TRACES_BATCH 512
#define TRACES_ATTEMPTS 5
#define TRACES_QUEUE 2048

struct traces;
struct traces_producer;

/* As configured (`traces:`). Texts are copied. */
struct traces_options {
	const char *endpoint;	   /* the whole URL, …/v1/traces; NULL: nothing is exported */
	const char *ca_file;	   /* or NULL */
	const char *authorization; /* the field's value, or NULL */
	const char *service_name;  /* of the resource */
	double sample;		   /* share of the requests of which no trusted caller has decided; 0 … 1 */
	unsigned queue_slots;	   /* per producer; 0: TRACES_QUEUE */
	unsigned flush_ms;	   /* 0: 1 s */
};

/* Whether their settings are the same. */
bool traces_options_same(const struct traces_options *a, const struct traces_options *b);

enum trace_kind { TRACE_SERVER = 2, TRACE_CLIENT = 3, TRACE_PRODUCER = 4 }; /* OTLP's numbers */

#define TRACE_ATTRIBUTES 16
#define TRACE_TEXT 768

struct trace_attribute {
	const char *key; /* a literal */
	bool is_number;
	int64_t number;
	uint16_t at, length; /* in text */
};

/* A record of fixed size, as it is in the queue. */
struct trace_span {
	char trace[TRACE_ID_HEX], span[TRACE_SPAN_HEX], parent[TRACE_SPAN_HEX]; /* parent "": none */
	enum trace_kind kind;
	bool error;
	int64_t start_us, end_us; /* wall clock */
	char name[128], message[256];
	unsigned n_attributes;
	struct trace_attribute attributes[TRACE_ATTRIBUTES];
	uint16_t used;
	char text[TRACE_TEXT];
};
/* Nothing is put for a text without a pointer or of no length; what there is no room for is cut, or left
 * out. */
void trace_span_text(struct trace_span *s, const char *key, struct span value);
void trace_span_number(struct trace_span *s, const char *key, int64_t value);

int traces_start(const struct traces_options *o, struct traces **ret, struct err *e);
/* Exports what waits, two seconds at most, and ends the thread. NULL is allowed; returns NULL. */
struct traces *traces_stop(struct traces *t);
int traces_producer_new(struct traces *t, struct traces_producer **ret);
/* Zeroed, to be filled and committed; NULL: the queue is full (counted). */
struct trace_span *traces_reserve(struct traces_producer *p);
void traces_commit(struct traces_producer *p);
double traces_sample(const struct traces *t);

struct traces_status {
	uint64_t exported, dropped, failed; /* spans: taken, without room in a queue, not taken */
	size_t queued;
	bool failing; /* the collector cannot be reached, or refuses */
	char last_error[ERR_TEXT_MAX];
};
void traces_status(struct traces *t, struct traces_status *ret); /* NULL: nothing is exported */

#endif
