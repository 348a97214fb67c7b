/*
 * Namespaces: which documents of a features file count.
 *
 * Why:       a file may hold several documents (---), each of a namespace; readers and writers must mean the
 *            same ones.
 * Source:    docs/protocols/flipt.md, "Features file".
 */
#ifndef FLAGS_NAMESPACES_H
#define FLAGS_NAMESPACES_H

#include "base/span.h"
#include "base/yaml.h"

#define NAMESPACE_DEFAULT "default"

/* Of one document: `namespace: key` or `namespace: {key: …}`; without one it is the default. */
struct span namespace_of(const struct yaml_node *root);
/* The namespace that counts in a file whose first document `first` is: `wanted`, but where that is the
 * default (or NULL) and all documents are of one other, that one. */
struct span namespace_that_counts(const struct yaml_node *first, const char *wanted);

#endif
