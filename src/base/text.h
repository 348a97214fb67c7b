/*
 * Text from outside, made fit to be written down, and text that may hold secrets, made fit to be shown.
 *
 * Why:       a caller chooses the bytes of an X-Request-ID, a task the bytes of its error. Raw they break
 *            JSON lines, make other readers of a database fail, and send commands to a terminal. Whatever
 *            comes from outside is *plain* before it is recorded, logged or printed: valid UTF-8 without C0
 *            and C1 controls (and DEL), without line and paragraph separators, and without the characters
 *            that turn the direction of what follows.
 * Shown so:  a byte that is not UTF-8 as \xHH, such a character as \uHHHH. Plain text stays as it is,
 *            backslashes too.
 * Threads:   any; no state.
 */
#ifndef BASE_TEXT_H
#define BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/span.h"

#define TEXT_PIECE_MAX 8	    /* bytes that text_piece makes of one character */
#define TEXT_MASKED_MAX (32u << 10) /* bytes of a text that text_put_masked looks at; what follows is cut */

bool text_is_plain(struct span s);

/* The next character of *s, sanitized: writes up to TEXT_PIECE_MAX bytes (no NUL) and moves *s past it. 0
 * at the end. */
size_t text_piece(struct span *s, char out[TEXT_PIECE_MAX]);

/* Appends it plain. Errors: buf's. */
int text_put_plain(struct buf *out, struct span s);
/* The same with at most `max` bytes; what does not fit is cut at a character, with … at the end. */
int text_put_cut(struct buf *out, struct span s, size_t max);
/* The same into a NUL-terminated array of `size` bytes. */
void text_copy(struct span s, char *dst, size_t size);

#define TEXT_SHOWN_MAX 80
/* A wrong value as messages repeat it: in quotes, cut at 60 bytes with …, blanks for control characters. */
const char *text_shown(struct span s, char out[TEXT_SHOWN_MAX]); /* returns out */

/* The same as text_put_plain, but for line ends (LF, CR LF) and tabs, which stay: for several lines on a
 * terminal. */
int text_put_lines(struct buf *out, struct span s);
/* The front of it, of at most `max` bytes, cut at a character. */
struct span text_front(struct span s, size_t max);

/* Appends it with what looks like a secret replaced by ***:
 *   - the user info of URLs, and user:password@ elsewhere
 *   - the values of a query: ?a=1&b=2 → ?a=***&b=***, and of a fragment that has such
 *   - what follows password, secret, token, api_key, authorization, cookie and the like, after = or :
 *   - credentials of the schemes Bearer, Basic, Token, and JSON web tokens
 * A guess, and thus the second line of defense: what is for callers should not hold them in the first
 * place. */
int text_put_masked(struct buf *out, struct span s);
/* Whether a name says that its value is a secret: API_KEY, X-Auth-Token, password. */
bool text_names_secret(struct span name);

#endif
