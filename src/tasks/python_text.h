/*
 * Python's str() and upper() of JSON values, for core tasks whose results show them; and the exceptions that
 * it prints.
 */
#ifndef TASKS_PYTHON_TEXT_H
#define TASKS_PYTHON_TEXT_H

#include "base/buf.h"
#include "base/span.h"

/* Appends str(value) of a valid JSON value: a string's content, True, None, 1.5, [1, 'a'], {'k': None}. */
int python_str(struct span value, struct buf *out);
/* Appends repr(tuple(list)) of a valid JSON array: ('a', 1). */
int python_tuple(struct span list, struct buf *out);
/* Appends text.upper(). Characters whose upper case is several (ß and ligatures) follow Python where they
 * are in Latin-1. */
int python_upper(struct span text, struct buf *out);

/* How long `ValueError: ` or `package.Error: ` in front of a message is; 0 when there is no class. A
 * KeyError's stays, since its message is a bare key. */
size_t python_class_length(struct span raised);
/* The message of the exception that ended a program, as its interpreter tells it on standard error: what
 * follows the frames of the last traceback, without the class. SPAN_NONE when there is no traceback.
 * Borrows from `text`. */
struct span python_raised(struct span text);

#endif
