#include "flags/namespaces.h"

#include <string.h>

struct span namespace_of(const struct yaml_node *root)
{
	struct span text = SPAN_LIT(NAMESPACE_DEFAULT);
	const struct yaml_node *n = yaml_get(root, "namespace");
	yaml_string(n && n->kind == YAML_MAPPING ? yaml_get(n, "key") : n, &text);
	return text;
}

struct span namespace_that_counts(const struct yaml_node *first, const char *wanted)
{
	if (wanted && strcmp(wanted, NAMESPACE_DEFAULT) != 0)
		return span_of(wanted);
	struct span one = SPAN_NONE;
	for (const struct yaml_node *root = first; root; root = root->next) {
		if (root->kind != YAML_MAPPING) /* an empty one, after a last --- */
			continue;
		if (one.ptr && !span_eq(namespace_of(root), one))
			return SPAN_LIT(NAMESPACE_DEFAULT);
		one = namespace_of(root);
	}
	return one.ptr ? one : SPAN_LIT(NAMESPACE_DEFAULT);
}
