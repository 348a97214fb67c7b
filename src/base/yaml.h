/*
 * YAML documents with line numbers. Over libyaml.
 *
 * Why:       every mistake in a configuration or features file is reported with file, line and key.
 * Ownership: the document owns its nodes; they are borrowed until it is freed. Aliases (&a / *a) and merge keys (<<) are
 *            resolved while reading.
 * Errors:    -EBADMSG with "file:line:column: …"; -EFBIG beyond a limit.
 * Limits:    YAML_MAX_DEPTH levels, YAML_MAX_NODES nodes (aliases expanded), one document per file (a second is an error).
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

enum yaml_kind { YAML_SCALAR, YAML_SEQUENCE, YAML_MAPPING };

struct yaml_node {
	enum yaml_kind kind;
	bool plain;		 /* scalar without quotes: may be null, a boolean or a number */
	unsigned line, column;	 /* from 1 */
	size_t start, end;	 /* byte offsets in the text, quotes included: for changing a value in place */
	struct span text;	 /* scalar: its content, NUL-terminated */
	const struct yaml_node *key; /* in a mapping: this item's key (a scalar) */
	struct yaml_node *first, *next;
	size_t count;
};

struct yaml_doc;

/* `name` is what messages call the text. An empty text gives a document whose root is NULL. Duplicate keys are errors. */
int yaml_parse(const char *name, struct span text, struct yaml_doc **ret, struct err *e);
struct yaml_doc *yaml_free(struct yaml_doc *doc);
const struct yaml_node *yaml_root(const struct yaml_doc *doc);
const char *yaml_name(const struct yaml_doc *doc);

/* All take NULL nodes and then find nothing. */
const struct yaml_node *yaml_get(const struct yaml_node *mapping, const char *key);
bool yaml_is_null(const struct yaml_node *n);		       /* plain ~, null, or nothing */
bool yaml_string(const struct yaml_node *n, struct span *ret); /* any scalar that is not null */
bool yaml_bool(const struct yaml_node *n, bool *ret);	       /* plain true/false in YAML 1.2's three spellings */
bool yaml_int(const struct yaml_node *n, int64_t *ret);	       /* plain decimal */
bool yaml_double(const struct yaml_node *n, double *ret);      /* plain number, finite */

/* The node as compact JSON text: plain scalars become null, booleans, numbers (as spelt, when that is valid JSON) or
 * strings; mappings keep their order. */
int yaml_to_json(const struct yaml_node *n, struct buf *out);

#endif
