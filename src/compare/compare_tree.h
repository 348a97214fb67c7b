/*
 * Compare tree: a JSON text as a list of its values, each with the place after its subtree. Pure.
 *
 * Why:       comparing walks two texts side by side, in the order of names; spans alone would be read once
 *            more for each level, and cJSON's numbers are doubles.
 * Ownership: spans of values borrow from the text, names from the text or the tree.
 * Limits:    COMPARE_DEPTH_MAX levels, COMPARE_VALUES_MAX values.
 */
#ifndef COMPARE_COMPARE_TREE_H
#define COMPARE_COMPARE_TREE_H

#include <stdint.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/json.h"
#include "base/span.h"

#define COMPARE_DEPTH_MAX 100
#define COMPARE_VALUES_MAX 200000

struct compare_node {
	struct span name;  /* of a member, unescaped; SPAN_NONE otherwise */
	struct span value; /* raw */
	uint32_t after;	   /* the node after this one and everything in it */
	uint32_t children;
	enum json_type type;
};

struct compare_tree {
	struct compare_node *nodes; /* [0] is the root; a node's first child follows it */
	uint32_t n, capacity;
	struct buf names; /* unescaped ones */
};

/* The text must be valid JSON. Errors: -ELOOP too deep, -E2BIG too many values, -ENOMEM. */
int compare_tree_make(struct span text, struct compare_tree *ret);
void compare_tree_release(struct compare_tree *t);

/* The children of an array in order, of an object by name, of duplicates the last (as in Python). The caller
 * frees *ret, which may be NULL when there are none. -ENOMEM. */
int compare_tree_children(const struct compare_tree *t, uint32_t node, uint32_t **ret, uint32_t *ret_n);

/* Names as they are ordered: <0, 0, >0. */
int compare_tree_order(struct span a, struct span b);

#endif
