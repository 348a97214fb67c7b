/* YAML: no document, however twisted, may do more than be refused; what is accepted must convert to valid
 * JSON. */
#include <assert.h>
#include <stdint.h>

#include "base/json.h"
#include "base/yaml.h"

/* Places lie within the text, and what the node counts is there. */
static void check_node(const struct yaml_node *n, size_t size)
{
	size_t count = 0;
	assert(n->start <= n->end && n->end <= size && n->line > 0 && n->column > 0);
	assert(n->kind != YAML_SCALAR || n->text.ptr[n->text.len] == '\0');
	for (const struct yaml_node *i = n->first; i; i = i->next, count++) {
		assert((n->kind == YAML_MAPPING) == (i->key != NULL));
		/* Children of aliases are shared: following them all would expand what the limit only
		 * counts. */
		if (count < 16)
			check_node(i, size);
	}
	assert(count == n->count);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct yaml_doc *doc = NULL;
	struct err e = {""};
	if (yaml_parse("fuzz", (struct span){(const char *)data, size}, &doc, &e) != 0) {
		assert(doc == NULL && e.text[0]);
		return 0;
	}
	const struct yaml_node *root = yaml_root(doc);
	CLEANUP(buf_releasep) struct buf json = BUF_INIT(1 << 20);
	if (yaml_to_json(root, &json) == 0 && yaml_root(doc))
		assert(json_validate(buf_span(&json), NULL) == 0);
	if (root && json.error == 0)
		check_node(root, size);
	yaml_free(doc);
	return 0;
}
