/*
 * Errors: a code for the program, a sentence for a person.
 *
 * Convention everywhere: 0 is success; <0 is fatal for the unit of work (-errno) and forwarded unchanged; >0
 * is
 * a code listed in the header that declares the function, for its direct caller to handle.
 * A `struct err *` argument may be NULL; when it is not, it holds a sentence whenever the return value is not
 * 0. Sentences name the file, line and key, or the field of the request, and carry no secrets.
 */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#include <stdarg.h>

#define ERR_TEXT_MAX 512

struct err {
	char text[ERR_TEXT_MAX];
};

/* Formats the sentence and returns `code`, so that `return err_set(e, -EINVAL, "…")` is one line. */
int err_set(struct err *e, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Puts "<prefix>: " in front of what is there; for adding the name of the outer thing. Returns `code`. */
int err_prefix(struct err *e, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
