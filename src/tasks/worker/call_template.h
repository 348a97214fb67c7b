/*
 * Values of a call, and JSON texts in which they are put: {"$ref": "args:/0"} stands for the value there.
 *
 * Sources: args:<JSON pointer>, kwargs:<JSON pointer>, task:id, task:name; in what is made of an answer only
 * answer:<JSON pointer>. With "default" beside "$ref", that when there is none.
 */
#ifndef TASKS_WORKER_CALL_TEMPLATE_H
#define TASKS_WORKER_CALL_TEMPLATE_H

#include "base/buf.h"
#include "base/err.h"
#include "base/span.h"
#include "tasks/worker/handler.h"

/* The raw JSON at "args:/…", "kwargs:/…" or "answer:/…". False if there is none. */
bool call_value(const struct handler_call *call, struct span source, struct span *ret);
/* Checks a template: valid JSON, every source known; of a call's values or of an answer's. */
int call_template_check(struct span json, bool of_answer, struct err *e);
/* Appends the template with its values. -ENOENT names the source that is missing and has no default. */
int call_template_fill(struct span json, const struct handler_call *call, struct buf *out, struct err *e);

#endif
