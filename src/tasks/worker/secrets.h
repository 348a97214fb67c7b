/*
 * Secrets: the values that a task's definition gives to what it runs, and how they are taken out
 *            of what is reported about it.
 *
 * Why:       masking by shape (base/text.h) is a guess; these values are known. A program that
 *            raises an exception with its password in the message must tell neither callers nor logs nor
 *            tasks.db.
 * What:      of an environment, of fields, of `${...}` and of a URL whatever is not plainly
 *            harmless: well-known names (PATH, LANG, Accept), everyday words (true, production, json) and, of
 *            a URL that is a value, its scheme and host stay.
 * Found:     as it is, and as %XX, as escaped in JSON, Python and C (once or more, also in a page or a URL),
 *            as entities of HTML and XML, as quoted by shells, SQL and CSV, as hexadecimal, as base64 (also
 *            in the middle of something), without regard to case from 8 bytes on.
 * Short:     below SECRETS_MIN bytes nothing is hidden: no text would be left, and it is not a secret. Up to
 *            7 bytes only where it stands alone, unless its name says that it is one.
 * Not:       a *result* is the task's own business: a program that prints its secret there gives
 *            it to its callers.
 * Ownership: the set owns copies. Immutable once filled. Threads: any then.
 */
#ifndef TASKS_WORKER_SECRETS_H
#define TASKS_WORKER_SECRETS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/span.h"

#define SECRETS_MIN 4

struct secret;

struct secrets { /* zeroed is empty */
	struct secret *list;
	size_t n;
	bool failed; /* memory was out: it is not whole */
};

void secrets_release(struct secrets *s);

/* A value, and the name under which it is given (SPAN_NONE: none): with its parts that are secrets by
 * themselves, such as the password of a URL, the lines of a key, the credentials after a scheme, what has
 * such a name in JSON. */
void secrets_take(struct secrets *s, struct span name, struct span value);
/* What a URL that is called holds after its host, and user info. */
void secrets_take_url(struct secrets *s, struct span url);
/* Of JSON what stands under a name that says so. */
void secrets_take_json(struct secrets *s, struct span json);

/* Appends the text with the secrets replaced by ***. `cut`: it was cut at its end, where a secret may begin.
 * Errors: buf's. */
int secrets_put_hidden(const struct secrets *s, struct span text, bool cut, struct buf *out);
/* The text, whose front was cut off, without the end of a secret there. */
struct span secrets_skip_end(const struct secrets *s, struct span text);

#endif
