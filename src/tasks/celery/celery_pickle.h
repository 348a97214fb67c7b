/*
 * Values that Python has pickled, as JSON: what Celery before 5.7 stores in a database (SQLAlchemy's
 * PickleType), whatever its result_serializer is.
 *
 * Safety: a pickle is a program, of which only the instructions that make plain values are known here: None,
 *         booleans, numbers, texts, lists, tuples and dictionaries. Nothing is looked up, called or built;
 *         one with any other instruction is not read.
 * Limits: CELERY_PICKLE_NODES values, CELERY_PICKLE_LEVELS of nesting, and the limit of `out` (a value that
 *         is referred to many times is written as often).
 */
#ifndef TASKS_CELERY_CELERY_PICKLE_H
#define TASKS_CELERY_CELERY_PICKLE_H

#include <stdbool.h>

#include "base/buf.h"

#define CELERY_PICKLE_NODES 1000000
#define CELERY_PICKLE_LEVELS 400

bool celery_is_pickle(struct span bytes);
/* Appends what json.dumps gives for the value. -EINVAL: not of the known kind (also NaN and infinity, which
 * JSON has not); -EFBIG, -ENOMEM. */
int celery_pickle_to_json(struct span bytes, struct buf *out);

#endif
