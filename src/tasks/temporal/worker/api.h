/*
 * Pieces of Temporal's messages: payloads read and made. Made ones live in an arena; NULL when it is full.
 *
 * Threads: any; no state.
 */
#ifndef TASKS_TEMPORAL_WORKER_API_H
#define TASKS_TEMPORAL_WORKER_API_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/span.h"

struct TemporalApi__Payloads;
struct TemporalApi__Payload;
struct TemporalApi__Failure;
struct TemporalApi__Header;
struct TemporalApi__Duration;
struct TemporalApi__Name;

/* A text as a message holds it: NUL-terminated, and UTF-8, which servers insist on. */
char *api_text(struct arena *a, struct span text);
struct TemporalApi__Name *api_name(struct arena *a, const char *name);
struct TemporalApi__Duration *api_duration(struct arena *a, uint64_t ms);
uint64_t api_milliseconds(const struct TemporalApi__Duration *d); /* 0: none */
/* JSON values, one payload each. */
struct TemporalApi__Payloads *api_payloads(struct arena *a, const struct span *json, size_t n);

/* The JSON of a payload: json/plain as it is, binary/null as null; borrowed. False: it is neither, or no
 * JSON. */
bool api_json(const struct TemporalApi__Payload *p, struct span *ret);
/* The same of the first of several; none at all is null. */
bool api_first_json(const struct TemporalApi__Payloads *p, struct span *ret);

/* The two arguments of a task or a workflow. -EINVAL with a sentence. Borrowed from the payloads, or made in
 * `room`. */
int api_arguments(const struct TemporalApi__Payloads *p, struct buf *room, struct span *args,
		  struct span *kwargs, struct err *e);

/* A failure of an application: its message, its kind, and what is for operators (or SPAN_NONE). */
struct TemporalApi__Failure *api_failure(struct arena *a, struct span message, const char *type,
					 struct span detail);

/* The text of a header's or a memo's JSON string or object, SPAN_NONE: none. */
struct TemporalApi__PayloadEntry;
struct span api_entry(struct TemporalApi__PayloadEntry *const *entries, size_t n, const char *key);

#endif
