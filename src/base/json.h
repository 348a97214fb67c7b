/*
 * JSON, twice: spans of raw text, and documents.
 *
 * Why:       values between a caller's body and a task move as raw text (9007199254740993 and 1.0 arrive as
 *            sent); that is the span half, which validates RFC 8259 strictly and never builds a tree.
 *            Snapshots, envelopes and answers of APIs, where a double is enough, are documents (cJSON behind
 *            an opaque type).
 * Ownership: spans borrow from the text. A document owns its nodes; nodes and strings borrow from it.
 * Limits:    JSON_MAX_DEPTH levels of nesting in spans; JSON_DOC_MAX_DEPTH levels and JSON_DOC_MAX_VALUES
 *            values in a document.
 * Threads:   no state of its own; a document may be read by any number of threads.
 */
#ifndef BASE_JSON_H
#define BASE_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/span.h"

#define JSON_MAX_DEPTH 2048
#define JSON_DOC_MAX_DEPTH 512 /* cJSON recurses */
#define JSON_DOC_MAX_VALUES 4000000

/* --- spans ---------------------------------------------------------------------------------------------- */
enum json_type { JSON_NULL, JSON_FALSE, JSON_TRUE, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT };

/* Whether the whole text is one valid JSON value (RFC 8259, UTF-8 checked, blanks around allowed, no byte
 * order mark; escapes of lone surrogates pass, as the grammar has it). Errors: -EBADMSG with line and
 * column (in characters). */
int json_validate(struct span text, struct err *e);

/* Whether Python's json.loads(bytes) may take what json_validate does not: NaN and Infinity, a byte order
 * mark, UTF-16 and UTF-32, more than JSON_MAX_DEPTH levels. */
bool json_python_takes(struct span text);

/* Whether the text is an RFC 6901 pointer: empty, or begins with '/', with ~ only in ~0 and ~1. */
bool json_pointer_valid(struct span pointer);

/* The value that an RFC 6901 pointer names ("" is the whole), without blanks around it. false if there is
 * none, when the pointer is not valid, and when the text is not. With duplicate keys the last one wins, as in
 * Python's json. */
bool json_pointer(struct span text, struct span pointer, struct span *ret_value);

/* One pass for several pointers at once over text that need NOT be valid: 0 when the text is one valid value
 * (then ret_values[i] is the value or SPAN_NONE), else -EBADMSG and all are SPAN_NONE. (One pass for each
 * 64 pointers.) */
int json_pointers(struct span text, const struct span *pointers, size_t n, struct span *ret_values,
		  struct err *e);

enum json_type json_type_of(struct span value); /* SPAN_NONE → JSON_NULL */

/* Appends a string value's content, escapes resolved (lone surrogates become U+FFFD; \u0000 a NUL byte).
 * -EINVAL if it is not a string, or buf's errors. */
int json_unescape(struct span string_value, struct buf *out);
/* The same for people: what does not fit is cut at a character, with … at the end, and is not an error. */
int json_unescape_front(struct span string_value, struct buf *out);
/* Appends text as a JSON string, quotes included; controls (C0, DEL, C1) are escaped, bytes that are not
 * UTF-8 become U+FFFD. All of it or, with an error, nothing. */
int json_quote(struct buf *out, struct span text);

/* Whether two valid values (without blanks around) mean the same: numbers by their decimal value, strings by
 * their characters, objects by their members in any order (of duplicates the last). 1 or 0; -ENOMEM. Its cost
 * for objects is members × members: one side should be small. */
int json_equal(struct span a, struct span b);

/* Iterates over a valid array's elements or a valid object's members, duplicates included; over anything else
 * it ends at once.
 *   struct json_iter it; json_iter_init(&it, value);
 *   while (json_iter_next(&it, &key, &item)) …         key is the raw quoted key (SPAN_NONE in arrays) */
struct json_iter {
	const char *at, *end;
	bool object, begun;
};
void json_iter_init(struct json_iter *it, struct span value);
bool json_iter_next(struct json_iter *it, struct span *ret_key, struct span *ret_value);

/* --- documents ------------------------------------------------------------------------------------------ */
struct json_doc;
struct json_node; /* borrowed from the document */

/* \u0000 and lone surrogates become U+FFFD, so that strings and keys are C strings in UTF-8. The text may be
 * freed after.
 * Errors: -EBADMSG, -EFBIG (too many values), -ENOMEM. */
int json_doc_parse(struct span text, struct json_doc **ret, struct err *e);
struct json_doc *json_doc_free(struct json_doc *doc);
const struct json_node *json_root(const struct json_doc *doc);

/* All take NULL and give "nothing" for it, so that lookups chain. Keys are case-sensitive; of duplicates the
 * last is got, and all are iterated and counted. */
const struct json_node *json_get(const struct json_node *object, const char *key);
/* O(index): iterate with first/next */
const struct json_node *json_at(const struct json_node *array, size_t index);
const struct json_node *json_first(const struct json_node *array_or_object);
const struct json_node *json_next(const struct json_node *item);
size_t json_count(const struct json_node *array_or_object);
const char *json_key(const struct json_node *member);	     /* NULL in arrays */
enum json_type json_node_type(const struct json_node *node); /* NULL → JSON_NULL */
const char *json_string(const struct json_node *node);	     /* NULL unless a string */
bool json_number(const struct json_node *node, double *ret); /* false also beyond a double's range (1e400) */
bool json_bool(const struct json_node *node, bool *ret);
int json_print(const struct json_node *node, struct buf *out); /* compact; NULL → null */

#endif
