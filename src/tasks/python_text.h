/*
 * Python's str() and upper() of JSON values, for core tasks whose results show them.
 */
#ifndef TASKS_PYTHON_TEXT_H
#define TASKS_PYTHON_TEXT_H

#include "base/buf.h"
#include "base/span.h"

/* Appends str(value) of a valid JSON value: a string's content, True, None, 1.5, [1, 'a'], {'k': None}. */
int python_str(struct span value, struct buf *out);
/* Appends text.upper(). Characters whose upper case is several (ß and ligatures) follow Python where they are in Latin-1. */
int python_upper(struct span text, struct buf *out);

#endif
