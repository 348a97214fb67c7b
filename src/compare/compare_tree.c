#include "compare/compare_tree.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct tree_reader {
	struct compare_tree *tree;
	const char *at, *end;
	size_t text_length;
	uint32_t open[COMPARE_DEPTH_MAX];
	unsigned depth;
	struct span name; /* of the value to come */
};

static int tree_grow(struct compare_tree *t)
{
	if (t->n < t->capacity)
		return 0;
	if (t->n == COMPARE_VALUES_MAX)
		return -E2BIG;
	uint32_t capacity = t->capacity ? t->capacity * 2 : 64;
	if (capacity > COMPARE_VALUES_MAX)
		capacity = COMPARE_VALUES_MAX;
	struct compare_node *nodes = realloc(t->nodes, capacity * sizeof(*nodes));
	if (!nodes)
		return -ENOMEM;
	t->nodes = nodes;
	t->capacity = capacity;
	return 0;
}

static int tree_add(struct tree_reader *r, struct span value)
{
	struct compare_tree *t = r->tree;
	int e = tree_grow(t);
	if (e < 0)
		return e;
	if (r->depth)
		t->nodes[r->open[r->depth - 1]].children++;
	t->nodes[t->n] = (struct compare_node){
		.name = r->name, .value = value, .after = t->n + 1, .type = json_type_of(value)};
	t->n++;
	r->name = SPAN_NONE;
	return 0;
}

static int tree_open(struct tree_reader *r)
{
	if (r->depth == COMPARE_DEPTH_MAX)
		return -ELOOP;
	int e = tree_add(r, (struct span){r->at, 1});
	if (e < 0)
		return e;
	r->open[r->depth++] = r->tree->n - 1;
	r->at++;
	return 0;
}

static void tree_shut(struct tree_reader *r)
{
	struct compare_node *node = &r->tree->nodes[r->open[--r->depth]];
	r->at++;
	node->value.len = (size_t)(r->at - node->value.ptr);
	node->after = r->tree->n;
}

/* Unescaped names share one buffer that never moves: it has room for all of the text. */
static int tree_name(struct tree_reader *r, struct span quoted)
{
	struct buf *names = &r->tree->names;
	r->name = (struct span){quoted.ptr + 1, quoted.len - 2};
	if (!memchr(r->name.ptr, '\\', r->name.len))
		return 0;
	if (!names->ptr) {
		buf_init(names, r->text_length);
		if (buf_reserve(names, r->text_length) < 0)
			return -ENOMEM;
	}
	size_t begin = names->len;
	if (json_unescape(quoted, names) < 0)
		return -ENOMEM;
	r->name = (struct span){names->ptr + begin, names->len - begin};
	return 0;
}

static bool tree_expects_name(const struct tree_reader *r)
{
	return r->depth && !r->name.ptr && r->tree->nodes[r->open[r->depth - 1]].type == JSON_OBJECT;
}

static int tree_string(struct tree_reader *r)
{
	struct span text = {r->at++, 0};
	while (r->at < r->end && *r->at != '"')
		r->at += *r->at == '\\' ? 2 : 1;
	r->at++;
	text.len = (size_t)(r->at - text.ptr);
	return tree_expects_name(r) ? tree_name(r, text) : tree_add(r, text);
}

static int tree_scalar(struct tree_reader *r)
{
	struct span text = {r->at, 0};
	while (r->at < r->end && !strchr(",]} \t\r\n", *r->at))
		r->at++;
	text.len = (size_t)(r->at - text.ptr);
	return tree_add(r, text);
}

static int tree_read(struct tree_reader *r)
{
	int e = 0;
	while (e == 0 && r->at < r->end) {
		switch (*r->at) {
		case ' ':
		case '\t':
		case '\r':
		case '\n':
		case ',':
		case ':':
			r->at++;
			break;
		case '{':
		case '[':
			e = tree_open(r);
			break;
		case '}':
		case ']':
			tree_shut(r);
			break;
		case '"':
			e = tree_string(r);
			break;
		default:
			e = tree_scalar(r);
		}
	}
	return e;
}

int compare_tree_make(struct span text, struct compare_tree *ret)
{
	*ret = (struct compare_tree){0};
	struct tree_reader r = {
		.tree = ret, .at = text.ptr, .end = text.ptr + text.len, .text_length = text.len};
	int e = tree_read(&r);
	if (e < 0)
		compare_tree_release(ret);
	return e;
}

void compare_tree_release(struct compare_tree *t)
{
	free(t->nodes);
	buf_release(&t->names);
	*t = (struct compare_tree){0};
}

int compare_tree_order(struct span a, struct span b)
{
	size_t n = a.len < b.len ? a.len : b.len;
	int order = n ? memcmp(a.ptr, b.ptr, n) : 0;
	if (order != 0)
		return order;
	return (a.len > b.len) - (a.len < b.len);
}

static int tree_compare_members(const void *a, const void *b, void *arg)
{
	const struct compare_tree *t = arg;
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	int order = compare_tree_order(t->nodes[x].name, t->nodes[y].name);
	return order != 0 ? order : (x > y) - (x < y);
}

/* Of equal names the last stays. */
static uint32_t tree_drop_duplicates(const struct compare_tree *t, uint32_t *children, uint32_t n)
{
	uint32_t kept = 0;
	for (uint32_t i = 0; i < n; i++)
		if (i + 1 == n ||
		    compare_tree_order(t->nodes[children[i]].name, t->nodes[children[i + 1]].name) != 0)
			children[kept++] = children[i];
	return kept;
}

int compare_tree_children(const struct compare_tree *t, uint32_t node, uint32_t **ret, uint32_t *ret_n)
{
	const struct compare_node *parent = &t->nodes[node];
	*ret = NULL;
	*ret_n = 0;
	if (parent->children == 0)
		return 0;
	uint32_t *children = malloc(parent->children * sizeof(*children)), n = 0;
	if (!children)
		return -ENOMEM;
	for (uint32_t child = node + 1; child < parent->after; child = t->nodes[child].after)
		children[n++] = child;
	if (parent->type == JSON_OBJECT) {
		qsort_r(children, n, sizeof(*children), tree_compare_members, (void *)t);
		n = tree_drop_duplicates(t, children, n);
	}
	*ret = children;
	*ret_n = n;
	return 0;
}
