/*
 * What Python workers read from, and write into, JSON that JSON itself does not know.
 *
 * Why:       kombu 5.3 and newer reads an object of exactly `__type__` and `__value__` as a value of another
 *            type, and drops the message when it knows no such type; Python refuses integers of more than
 *            4300 digits, and what is nested deeper than its recursion limit. What a worker would drop, or
 *            get changed, is better not sent.
 * Source:    kombu/utils/json.py; sys.set_int_max_str_digits; Python's json scanner.
 */
#ifndef TASKS_PYTHON_JSON_H
#define TASKS_PYTHON_JSON_H

#include "base/buf.h"
#include "base/err.h"
#include "base/span.h"

#define PYTHON_LEVELS_MAX 800 /* of Python's 1000, some of which the worker's own calls take */
/* its pool of processes pickles them, two of Python's for each; at some 470 the whole worker ends */
#define CELERY_LEVELS_MAX 400
#define PYTHON_DIGITS_MAX 4300

/* Whether a Python worker reads the valid JSON as it is; otherwise -EINVAL and a sentence. `celery`: one
 * of Celery, which reads kombu's wrappers and bears fewer levels. */
int python_json_check(struct span json, bool celery, struct err *e);

/* Appends the valid JSON with kombu's wrappers replaced by what Celery 5.2 wrote: ISO text for dates and
 * times (a date as its midnight, UTC as Z), decimals and UUIDs as text, bytes as their text or base64.
 * Types of the application's own stay wrapped. */
int python_json_unwrap(struct span json, struct buf *out);

#endif
