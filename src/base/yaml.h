/*
 * YAML documents with line numbers. Over libyaml.
 *
 * Why:       every mistake in a configuration or features file is reported with file, line and key.
 * Ownership: the document owns its nodes; they are borrowed until it is freed. Aliases (&a / *a) and merge
 *            keys (<<) are resolved while reading: an alias is a copy of the node with the children of its
 *            anchor, placed (line, start, end) where the alias is; what is below it is placed where the
 *            anchor is.
 * Errors:    -EBADMSG with "file:line:column: …"; -EFBIG beyond a limit.
 * Refused:   duplicate keys, keys that are not scalars, tags beyond YAML's core schema, NUL characters,
 *            anything but UTF-8.
 * Limits:    YAML_MAX_DEPTH levels, YAML_MAX_NODES nodes (aliases expanded), YAML_MAX_ANCHORS anchors, one
 *            document per file (a second is an error), but for yaml_parse_all.
 */
#ifndef BASE_YAML_H
#define BASE_YAML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/span.h"

#define YAML_MAX_DEPTH 64
#define YAML_MAX_NODES 4000000
#define YAML_MAX_ANCHORS 4096

enum yaml_kind { YAML_SCALAR, YAML_SEQUENCE, YAML_MAPPING };

struct yaml_node {
	enum yaml_kind kind;
	bool plain;	       /* scalar without quotes: may be null, a boolean or a number */
	unsigned line, column; /* from 1; columns count characters */
	/* byte offsets in the text, quotes included: for changing a value in place */
	size_t start, end;
	struct span text;	     /* scalar: its content, NUL-terminated and without NUL inside */
	const struct yaml_node *key; /* in a mapping: this item's key (a scalar) */
	struct yaml_node *first, *next;
	size_t count;
	/* read by yaml_parse_all: what is wrong with this node, as a sentence with its place; else NULL */
	const char *fault;
};

struct yaml_doc;

/* libyaml exports a yaml_free of its own, which a function of that name here would replace at run time. */
#define yaml_free yaml_doc_free

/* `name` is its name in messages. An empty text gives a document whose root is NULL. */
int yaml_parse(const char *name, struct span text, struct yaml_doc **ret, struct err *e);
/* The same of a text that may hold several documents (---): each root's `next` is the next document's. What
 * is refused above is its node's fault there and no error, for elements are judged one by one (yaml_fault):
 * of keys given twice, the first one wins; null stands for what is too deep and for aliases of nothing;
 * a key that is not a scalar is its own text; other tags count as none (a document's own is not a fault); '?'
 * stands for a byte that is not UTF-8, which is not a fault outside a value. Only what is not YAML, or beyond
 * the other limits, is an error. */
int yaml_parse_all(const char *name, struct span text, struct yaml_doc **ret, struct err *e);
struct yaml_doc *yaml_free(struct yaml_doc *doc);
const struct yaml_node *yaml_root(const struct yaml_doc *doc);
const char *yaml_name(const struct yaml_doc *doc);
/* The documents of `more` follow those of `doc`, as if they were in its text; both are freed as before,
 * `more` last. */
void yaml_chain(struct yaml_doc *doc, const struct yaml_doc *more);

/* The first fault at or below a node, NULL for none. */
const char *yaml_fault(const struct yaml_node *n);

/* All take NULL nodes and then find nothing. */
const struct yaml_node *yaml_get(const struct yaml_node *mapping, const char *key);
bool yaml_is_null(const struct yaml_node *n);		       /* plain ~, null, or nothing */
bool yaml_string(const struct yaml_node *n, struct span *ret); /* any scalar that is not null */
/* plain true/false in YAML 1.2's three spellings */
bool yaml_bool(const struct yaml_node *n, bool *ret);
bool yaml_int(const struct yaml_node *n, int64_t *ret);	  /* plain decimal */
bool yaml_double(const struct yaml_node *n, double *ret); /* plain decimal number, finite */

/* The node as compact JSON text: plain scalars become null, booleans, numbers (as spelt, when that is valid
 * JSON) or strings; mappings keep their order. Errors: buf's. */
int yaml_to_json(const struct yaml_node *n, struct buf *out);

#endif
