#include "base/yaml.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "base/cleanup.h"
#include "base/utf8.h"

/* What reading needs to know of a node beside what is public. */
struct node {
	struct yaml_node pub; /* first: a public node is one of these */
	size_t weight;	      /* nodes at and below it, aliases expanded */
	unsigned height;      /* levels at and below it */
};

#define ARENA_CHUNK 65536
#define ODD_KEY_MAX 100u

struct chunk {
	struct chunk *next;
	size_t used, size;
	_Alignas(max_align_t) char bytes[];
};

struct yaml_doc {
	char *name;
	struct chunk *chunks;
	const struct yaml_node *root;
};

struct anchor {
	const char *name;
	struct node *node; /* NULL while the node is still being read: an alias to it would contain itself */
};

struct yaml_reader {
	yaml_parser_t parser;
	struct yaml_doc *doc;
	struct span text;
	struct err *err;
	/* what `text` was before bytes that libyaml does not take were replaced; NULL: none were */
	const char *as_written;
	bool many;	     /* documents may follow one another */
	struct node *newest; /* document's root */
	size_t nodes;	     /* so far, aliases expanded */
	struct anchor *anchors;
	size_t n_anchors, anchors_size;
	/* libyaml's marks count characters: where the character `at_char` begins in bytes. */
	size_t at_char, at_byte;
	size_t base; /* bytes of a byte order mark, which libyaml is not shown */
	/* Reused for every mapping's check for duplicate keys. */
	struct item *items;
	size_t items_size;
};

/* --- memory --------------------------------------------------------------------------------------------- */

static void *arena(struct yaml_doc *doc, size_t n)
{
	n = (n + _Alignof(max_align_t) - 1) & ~(_Alignof(max_align_t) - 1);
	if (!doc->chunks || doc->chunks->size - doc->chunks->used < n) {
		size_t size = n > ARENA_CHUNK ? n : ARENA_CHUNK;
		struct chunk *c = malloc(sizeof(*c) + size);
		if (!c)
			return NULL;
		*c = (struct chunk){.next = doc->chunks, .size = size};
		doc->chunks = c;
	}
	void *p = doc->chunks->bytes + doc->chunks->used;
	doc->chunks->used += n;
	return p;
}

static char *arena_text(struct yaml_doc *doc, const void *bytes, size_t n)
{
	char *p = arena(doc, n + 1);
	if (!p)
		return NULL;
	if (n)
		memcpy(p, bytes, n);
	p[n] = '\0';
	return p;
}

/* At least `need` elements; what was in the array stays. */
static int yaml_grow(void *array, size_t *size, size_t need, size_t element)
{
	if (need <= *size)
		return 0;
	size_t bigger = *size ? *size * 2 : 16;
	while (bigger < need)
		bigger *= 2;
	void *p = realloc(*(void **)array, bigger * element);
	if (!p)
		return -ENOMEM;
	*(void **)array = p;
	*size = bigger;
	return 0;
}

/* --- errors and places ---------------------------------------------------------------------------------- */

static int yaml_out_of_memory(struct yaml_reader *r)
{
	return err_set(r->err, -ENOMEM, "%s: out of memory", r->doc->name);
}

static int yaml_mistake(struct yaml_reader *r, int code, size_t line, size_t column, const char *format, ...)
	__attribute__((format(printf, 5, 6)));

static int yaml_mistake(struct yaml_reader *r, int code, size_t line, size_t column, const char *format, ...)
{
	char text[ERR_TEXT_MAX];
	va_list ap;
	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	return err_set(r->err, code, "%s:%zu:%zu: %s", r->doc->name, line, column, text);
}

static int mistake_at(struct yaml_reader *r, const yaml_event_t *ev, const char *text)
{
	return yaml_mistake(r, -EBADMSG, ev->start_mark.line + 1, ev->start_mark.column + 1, "%s", text);
}

/* Bytes that are not UTF-8, or control characters: libyaml tells the byte's offset only. */
static int reader_mistake(struct yaml_reader *r)
{
	size_t line = 1, column = 1;
	for (size_t i = 0; i < r->parser.problem_offset && i < r->text.len; i++) {
		if (r->text.ptr[i] == '\n')
			line++, column = 1;
		else if (((unsigned char)r->text.ptr[i] & 0xC0) != 0x80)
			column++;
	}
	return yaml_mistake(r, -EBADMSG, line, column, "%s", r->parser.problem);
}

static int parser_mistake(struct yaml_reader *r)
{
	const yaml_parser_t *p = &r->parser;
	if (p->error == YAML_MEMORY_ERROR)
		return yaml_out_of_memory(r);
	if (p->error == YAML_READER_ERROR)
		return reader_mistake(r);
	const char *problem = p->problem ? p->problem : "not valid YAML";
	size_t line = p->problem_mark.line + 1, column = p->problem_mark.column + 1;
	if (p->context && p->context_mark.line != p->problem_mark.line)
		return yaml_mistake(r, -EBADMSG, line, column, "%s (%s that began on line %zu)", problem,
				    p->context, p->context_mark.line + 1);
	if (p->context)
		return yaml_mistake(r, -EBADMSG, line, column, "%s (%s)", problem, p->context);
	return yaml_mistake(r, -EBADMSG, line, column, "%s", problem);
}

static bool continues(char c)
{
	return ((unsigned char)c & 0xC0) == 0x80;
}

/* The byte offset of a mark. Marks come nearly in order, so walking from the last one is linear over the
 * file. */
static size_t byte_offset(struct yaml_reader *r, size_t character)
{
	while (r->at_char < character && r->at_byte < r->text.len) {
		r->at_byte++;
		while (r->at_byte < r->text.len && continues(r->text.ptr[r->at_byte]))
			r->at_byte++;
		r->at_char++;
	}
	while (r->at_char > character && r->at_byte > 0) {
		r->at_byte--;
		while (r->at_byte > 0 && continues(r->text.ptr[r->at_byte]))
			r->at_byte--;
		r->at_char--;
	}
	return r->base + r->at_byte;
}

/* --- nodes ---------------------------------------------------------------------------------------------- */

/* Counts `weight` nodes against the limit. */
static int count_nodes(struct yaml_reader *r, const yaml_event_t *ev, size_t weight)
{
	if (weight > YAML_MAX_NODES - r->nodes)
		return yaml_mistake(r, -EFBIG, ev->start_mark.line + 1, ev->start_mark.column + 1,
				    "more than %d nodes, aliases expanded", YAML_MAX_NODES);
	r->nodes += weight;
	return 0;
}

static int new_node(struct yaml_reader *r, const yaml_event_t *ev, enum yaml_kind kind, struct node **ret)
{
	int code = count_nodes(r, ev, 1);
	if (code < 0)
		return code;
	struct node *n = arena(r->doc, sizeof(*n));
	if (!n)
		return yaml_out_of_memory(r);
	*n = (struct node){.pub = {.kind = kind,
				   .line = (unsigned)ev->start_mark.line + 1,
				   .column = (unsigned)ev->start_mark.column + 1,
				   .start = byte_offset(r, ev->start_mark.index),
				   .end = byte_offset(r, ev->end_mark.index)},
			   .weight = 1,
			   .height = 1};
	*ret = n;
	return 0;
}

/* Where elements are judged one by one, a mistake is the fault of the node that contains it, and reading
 * continues. */
static int keep_fault(struct yaml_reader *r, struct yaml_node *n)
{
	if (!n->fault)
		n->fault = arena_text(r->doc, r->err->text, strlen(r->err->text));
	r->err->text[0] = '\0';
	return n->fault ? 0 : yaml_out_of_memory(r);
}

static int element_fault(struct yaml_reader *r, struct yaml_node *n, int code)
{
	return r->many && (code == -EBADMSG || code == -EFBIG) ? keep_fault(r, n) : code;
}

/* The substitute for an unusable node: null, with the fault. */
static int stand_in(struct yaml_reader *r, const yaml_event_t *ev, int code, struct node **ret)
{
	if (!r->many)
		return code;
	code = new_node(r, ev, YAML_SCALAR, ret);
	if (code < 0)
		return code;
	(*ret)->pub.plain = true;
	(*ret)->pub.text = SPAN_LIT("");
	return keep_fault(r, &(*ret)->pub);
}

static int next_event(struct yaml_reader *r, yaml_event_t *ev)
{
	return yaml_parser_parse(&r->parser, ev) ? 0 : parser_mistake(r);
}

static int add_anchor(struct yaml_reader *r, const yaml_event_t *ev, const yaml_char_t *name,
		      size_t *ret_slot)
{
	*ret_slot = SIZE_MAX;
	if (!name)
		return 0;
	if (r->n_anchors >= YAML_MAX_ANCHORS)
		return yaml_mistake(r, -EFBIG, ev->start_mark.line + 1, ev->start_mark.column + 1,
				    "more than %d anchors", YAML_MAX_ANCHORS);
	char *copy = arena_text(r->doc, name, strlen((const char *)name));
	if (!copy || yaml_grow(&r->anchors, &r->anchors_size, r->n_anchors + 1, sizeof(*r->anchors)) < 0)
		return yaml_out_of_memory(r);
	r->anchors[r->n_anchors] = (struct anchor){.name = copy};
	*ret_slot = r->n_anchors++;
	return 0;
}

static void finish_anchor(struct yaml_reader *r, size_t slot, struct node *n)
{
	if (slot != SIZE_MAX)
		r->anchors[slot].node = n;
}

static int read_alias(struct yaml_reader *r, const yaml_event_t *ev, unsigned depth, struct node **ret)
{
	const char *name = (const char *)ev->data.alias.anchor;
	/* An anchor may be used again for another node; an alias means the latest one before it. */
	for (size_t i = r->n_anchors; i-- > 0;) {
		if (strcmp(r->anchors[i].name, name) != 0)
			continue;
		const struct node *target = r->anchors[i].node;
		if (!target)
			return stand_in(r, ev, mistake_at(r, ev, "an alias to a node that contains it"), ret);
		if (depth + target->height > YAML_MAX_DEPTH)
			return stand_in(r, ev,
					yaml_mistake(r, -EFBIG, ev->start_mark.line + 1,
						     ev->start_mark.column + 1,
						     "nested deeper than %d levels, aliases expanded",
						     YAML_MAX_DEPTH),
					ret);
		int code = count_nodes(r, ev, target->weight - 1);
		if (code == 0)
			code = new_node(r, ev, target->pub.kind, ret);
		if (code < 0)
			return code;
		struct yaml_node *n = &(*ret)->pub;
		n->plain = target->pub.plain;
		n->text = target->pub.text;
		n->first = target->pub.first;
		n->count = target->pub.count;
		n->fault = target->pub.fault;
		(*ret)->weight = target->weight;
		(*ret)->height = target->height;
		return 0;
	}
	return stand_in(r, ev,
			yaml_mistake(r, -EBADMSG, ev->start_mark.line + 1, ev->start_mark.column + 1,
				     "an alias with no anchor before it: *%.100s", name),
			ret);
}

/* Tags of the core schema say how a scalar is to be taken; all others would need code of their own. */
static int apply_tag(struct yaml_reader *r, const yaml_event_t *ev, const yaml_char_t *tag,
		     struct yaml_node *n)
{
	if (!tag)
		return 0;
	const char *t = (const char *)tag;
	static const char *const plain[] = {YAML_NULL_TAG, YAML_BOOL_TAG, YAML_INT_TAG, YAML_FLOAT_TAG};
	if (n->kind == YAML_MAPPING ? strcmp(t, YAML_MAP_TAG) == 0
				    : n->kind == YAML_SEQUENCE && strcmp(t, YAML_SEQ_TAG) == 0)
		return 0;
	if (n->kind == YAML_SCALAR && (strcmp(t, YAML_STR_TAG) == 0 || strcmp(t, "!") == 0)) {
		n->plain = false;
		return 0;
	}
	for (size_t i = 0; n->kind == YAML_SCALAR && i < sizeof(plain) / sizeof(plain[0]); i++)
		if (strcmp(t, plain[i]) == 0) {
			n->plain = true;
			return 0;
		}
	return element_fault(r, n,
			     yaml_mistake(r, -EBADMSG, ev->start_mark.line + 1, ev->start_mark.column + 1,
					  "the tag %.100s is not supported here", t));
}

/* Whether nothing had to be replaced in it. */
static bool is_as_written(const struct yaml_reader *r, const struct yaml_node *n)
{
	size_t at = (size_t)(n->start - r->base);
	return !r->as_written || memcmp(r->as_written + at, r->text.ptr + at, n->end - n->start) == 0;
}

static int read_scalar(struct yaml_reader *r, const yaml_event_t *ev, struct node **ret)
{
	size_t slot;
	int code = add_anchor(r, ev, ev->data.scalar.anchor, &slot);
	if (code == 0)
		code = new_node(r, ev, YAML_SCALAR, ret);
	if (code < 0)
		return code;
	struct yaml_node *n = &(*ret)->pub;
	n->plain = ev->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
	code = apply_tag(r, ev, ev->data.scalar.tag, n);
	if (code < 0)
		return code;
	const char *value = (const char *)ev->data.scalar.value;
	size_t length = ev->data.scalar.length;
	if (memchr(value, '\0', length)) {
		code = element_fault(r, n, mistake_at(r, ev, "a NUL character in a string"));
		length = strlen(value);
	}
	if (code == 0 && !is_as_written(r, n))
		code = element_fault(r, n,
				     mistake_at(r, ev, "bytes that are not UTF-8, or control characters"));
	if (code < 0)
		return code;
	char *text = arena_text(r->doc, value, length);
	if (!text)
		return yaml_out_of_memory(r);
	n->text = (struct span){text, length};
	finish_anchor(r, slot, *ret);
	return 0;
}

static int read_node(struct yaml_reader *r, const yaml_event_t *ev, unsigned depth, struct node **ret);

static void adopt(struct node *parent, const struct node *child)
{
	parent->weight += child->weight;
	if (child->height >= parent->height)
		parent->height = child->height + 1;
}

static int read_items(struct yaml_reader *r, unsigned depth, struct node *sequence)
{
	struct yaml_node **tail = &sequence->pub.first;
	for (;;) {
		yaml_event_t ev;
		int code = next_event(r, &ev);
		if (code < 0)
			return code;
		if (ev.type == YAML_SEQUENCE_END_EVENT) {
			sequence->pub.end = byte_offset(r, ev.end_mark.index);
			yaml_event_delete(&ev);
			return 0;
		}
		struct node *item;
		code = read_node(r, &ev, depth + 1, &item);
		yaml_event_delete(&ev);
		if (code < 0)
			return code;
		adopt(sequence, item);
		*tail = &item->pub;
		tail = &item->pub.next;
		sequence->pub.count++;
	}
}

/* --- mappings: duplicate keys, merge keys --------------------------------------------------------------- */

/* One candidate of a mapping. Explicit members have rank 0; merged ones the number of their source, from
 * 1. */
struct item {
	struct node *node;
	size_t rank, position;
	bool merged; /* belongs to another mapping: copied before it is linked */
};

static int by_key(const void *a, const void *b)
{
	const struct item *x = a, *y = b;
	struct span s = x->node->pub.key->text, t = y->node->pub.key->text;
	size_t least = s.len < t.len ? s.len : t.len;
	int c = least ? memcmp(s.ptr, t.ptr, least) : 0;
	if (c != 0)
		return c;
	if (s.len != t.len)
		return s.len < t.len ? -1 : 1;
	return x->position < y->position ? -1 : x->position > y->position;
}

static int by_position(const void *a, const void *b)
{
	const struct item *x = a, *y = b;
	return x->position < y->position ? -1 : x->position > y->position;
}

static int add_item(struct yaml_reader *r, size_t *n, struct node *node, size_t rank, bool merged)
{
	if (yaml_grow(&r->items, &r->items_size, *n + 1, sizeof(*r->items)) < 0)
		return yaml_out_of_memory(r);
	r->items[*n] = (struct item){.node = node, .rank = rank, .position = *n, .merged = merged};
	++*n;
	return 0;
}

static bool is_merge_key(const struct yaml_node *item)
{
	return item->key->plain && span_is(item->key->text, "<<");
}

static int yaml_add_source(struct yaml_reader *r, size_t *n, const struct yaml_node *source, size_t rank)
{
	if (source->kind != YAML_MAPPING)
		return yaml_mistake(r, -EBADMSG, source->line, source->column,
				    "<< merges mappings: expected one, or a list of them");
	for (struct yaml_node *m = source->first; m; m = m->next) {
		int code = add_item(r, n, (struct node *)m, rank, true);
		if (code < 0)
			return code;
	}
	return 0;
}

/* YAML 1.1's merge key: explicit members win over merged ones, earlier sources over later ones. */
static int add_merged(struct yaml_reader *r, size_t *n, const struct yaml_node *merge)
{
	if (merge->kind != YAML_SEQUENCE)
		return yaml_add_source(r, n, merge, 1);
	size_t rank = 1;
	for (const struct yaml_node *s = merge->first; s; s = s->next, rank++) {
		int code = yaml_add_source(r, n, s, rank);
		if (code < 0)
			return code;
	}
	return 0;
}

static int duplicate(struct yaml_reader *r, struct node *mapping, const struct item *first,
		     const struct item *second)
{
	const struct yaml_node *k = second->node->pub.key;
	int code = yaml_mistake(
		r, -EBADMSG, k->line, k->column, "the key \"%.*s\" was already given on line %u",
		k->text.len > 100 ? 100 : (int)k->text.len, k->text.ptr, first->node->pub.key->line);
	return element_fault(r, &mapping->pub, code);
}

/* Keeps the first of each key, in the old order; two explicit ones are a mistake. */
static int unique_items(struct yaml_reader *r, struct node *mapping, size_t *n)
{
	if (*n == 0)
		return 0; /* there may be no array to sort yet */
	qsort(r->items, *n, sizeof(*r->items), by_key);
	size_t kept = 0;
	for (size_t i = 0; i < *n; i++) {
		const struct item *last = kept ? &r->items[kept - 1] : NULL;
		if (last && span_eq(last->node->pub.key->text, r->items[i].node->pub.key->text)) {
			int code = r->items[i].rank == 0 ? duplicate(r, mapping, last, &r->items[i]) : 0;
			if (code < 0)
				return code;
			continue;
		}
		r->items[kept++] = r->items[i];
	}
	*n = kept;
	qsort(r->items, kept, sizeof(*r->items), by_position);
	return 0;
}

static int link_items(struct yaml_reader *r, struct node *mapping, const yaml_event_t *ev, size_t n)
{
	struct yaml_node **tail = &mapping->pub.first;
	for (size_t i = 0; i < n; i++) {
		struct node *node = r->items[i].node;
		if (r->items[i].merged) {
			int code = count_nodes(r, ev, node->weight);
			if (code < 0)
				return code;
			struct node *copy = arena(r->doc, sizeof(*copy));
			if (!copy)
				return yaml_out_of_memory(r);
			*copy = *node;
			node = copy;
			adopt(mapping, node);
		}
		*tail = &node->pub;
		tail = &node->pub.next;
	}
	*tail = NULL;
	mapping->pub.count = n;
	return 0;
}

static int finish_mapping(struct yaml_reader *r, struct node *mapping, const yaml_event_t *ev)
{
	const struct yaml_node *merge = NULL;
	size_t n = 0;
	int code = 0;
	for (struct yaml_node *m = mapping->pub.first; m && code == 0; m = m->next) {
		if (!is_merge_key(m))
			code = add_item(r, &n, (struct node *)m, 0, false);
		else if (merge)
			code = element_fault(r, &mapping->pub,
					     yaml_mistake(r, -EBADMSG, m->key->line, m->key->column,
							  "the key \"<<\" was already given on line %u",
							  merge->key->line));
		else
			merge = m;
	}
	if (code == 0 && merge)
		code = element_fault(r, &mapping->pub, add_merged(r, &n, merge));
	if (code == 0)
		code = unique_items(r, mapping, &n);
	return code < 0 ? code : link_items(r, mapping, ev, n);
}

static int read_key(struct yaml_reader *r, const yaml_event_t *ev, unsigned depth, struct node **ret)
{
	int code = read_node(r, ev, depth, ret);
	if (code < 0 || (*ret)->pub.kind == YAML_SCALAR)
		return code;
	struct yaml_node *n = &(*ret)->pub;
	code = element_fault(r, n, mistake_at(r, ev, "a key must be a scalar"));
	if (code < 0)
		return code;
	/* Its text represents it: an unknown key for whoever knows keys. */
	size_t length = n->end - n->start < ODD_KEY_MAX ? n->end - n->start : ODD_KEY_MAX;
	char *text = arena_text(r->doc, r->text.ptr + (n->start - r->base), length);
	if (!text)
		return yaml_out_of_memory(r);
	n->kind = YAML_SCALAR;
	n->text = (struct span){text, length};
	n->first = NULL;
	n->count = 0;
	return 0;
}

static int read_members(struct yaml_reader *r, unsigned depth, struct node *mapping)
{
	struct yaml_node **tail = &mapping->pub.first;
	for (;;) {
		yaml_event_t ev;
		int code = next_event(r, &ev);
		if (code < 0)
			return code;
		if (ev.type == YAML_MAPPING_END_EVENT) {
			mapping->pub.end = byte_offset(r, ev.end_mark.index);
			code = finish_mapping(r, mapping, &ev);
			yaml_event_delete(&ev);
			return code;
		}
		struct node *key, *value;
		code = read_key(r, &ev, depth + 1, &key);
		yaml_event_delete(&ev);
		if (code < 0)
			return code;
		code = next_event(r, &ev);
		if (code < 0)
			return code;
		code = read_node(r, &ev, depth + 1, &value);
		yaml_event_delete(&ev);
		if (code < 0)
			return code;
		mapping->weight += key->weight;
		adopt(mapping, value);
		value->pub.key = &key->pub;
		if (!value->pub.fault)
			value->pub.fault = key->pub.fault;
		*tail = &value->pub;
		tail = &value->pub.next;
	}
}

static int read_collection(struct yaml_reader *r, const yaml_event_t *ev, unsigned depth, struct node **ret)
{
	bool mapping = ev->type == YAML_MAPPING_START_EVENT;
	const yaml_char_t *anchor = mapping ? ev->data.mapping_start.anchor : ev->data.sequence_start.anchor;
	const yaml_char_t *tag = mapping ? ev->data.mapping_start.tag : ev->data.sequence_start.tag;
	size_t slot;
	int code = add_anchor(r, ev, anchor, &slot);
	if (code == 0)
		code = new_node(r, ev, mapping ? YAML_MAPPING : YAML_SEQUENCE, ret);
	if (code == 0)
		/* a document's own says nothing */
		code = r->many && depth == 0 ? 0 : apply_tag(r, ev, tag, &(*ret)->pub);
	if (code == 0)
		code = mapping ? read_members(r, depth, *ret) : read_items(r, depth, *ret);
	if (code == 0)
		finish_anchor(r, slot, *ret);
	return code;
}

/* Of a node that is not to be read: what is below it. */
static int skip_rest(struct yaml_reader *r, const yaml_event_t *begin)
{
	size_t open = begin->type == YAML_MAPPING_START_EVENT || begin->type == YAML_SEQUENCE_START_EVENT;
	while (open) {
		yaml_event_t ev;
		int code = next_event(r, &ev);
		if (code < 0)
			return code;
		if (ev.type == YAML_MAPPING_START_EVENT || ev.type == YAML_SEQUENCE_START_EVENT)
			open++;
		else if (ev.type == YAML_MAPPING_END_EVENT || ev.type == YAML_SEQUENCE_END_EVENT)
			open--;
		yaml_event_delete(&ev);
	}
	return 0;
}

/* `ev` stays the caller's to delete. `depth`: levels above this node. */
static int read_node(struct yaml_reader *r, const yaml_event_t *ev, unsigned depth, struct node **ret)
{
	if (depth >= YAML_MAX_DEPTH) {
		int code = yaml_mistake(r, -EFBIG, ev->start_mark.line + 1, ev->start_mark.column + 1,
					"nested deeper than %d levels", YAML_MAX_DEPTH);
		code = stand_in(r, ev, code, ret);
		return code < 0 ? code : skip_rest(r, ev);
	}
	if (ev->type == YAML_ALIAS_EVENT)
		return read_alias(r, ev, depth, ret);
	if (ev->type == YAML_SCALAR_EVENT)
		return read_scalar(r, ev, ret);
	return read_collection(r, ev, depth, ret);
}

/* --- documents ------------------------------------------------------------------------------------------ */

static int yaml_read_document(struct yaml_reader *r)
{
	yaml_event_t ev;
	int code = next_event(r, &ev);
	if (code < 0)
		return code;
	struct node *root;
	code = read_node(r, &ev, 0, &root);
	yaml_event_delete(&ev);
	if (code < 0)
		return code;
	if (r->newest)
		r->newest->pub.next = &root->pub;
	else
		r->doc->root = &root->pub;
	r->newest = root;
	r->n_anchors = 0;	   /* they are the document's own */
	code = next_event(r, &ev); /* the document's end */
	if (code == 0)
		yaml_event_delete(&ev);
	return code;
}

static int read_stream(struct yaml_reader *r)
{
	bool seen = false;
	for (;;) {
		yaml_event_t ev;
		int code = next_event(r, &ev);
		if (code < 0)
			return code;
		yaml_event_type_t type = ev.type;
		if (type == YAML_DOCUMENT_START_EVENT && seen && !r->many)
			code = mistake_at(r, &ev, "a second document; a file holds only one");
		yaml_event_delete(&ev);
		if (code < 0 || type == YAML_STREAM_END_EVENT)
			return code;
		if (type != YAML_DOCUMENT_START_EVENT)
			continue;
		seen = true;
		code = yaml_read_document(r);
		if (code < 0)
			return code;
	}
}

/* The length of the character at `text` that libyaml takes; 0: it takes none there. */
static size_t character_taken(const char *text, const char *end)
{
	size_t n = utf8_sequence(text, end);
	uint32_t c = n ? utf8_character(text, n) : 0;
	if (c < 0x80)
		return c == '\t' || c == '\n' || c == '\r' || (c >= 0x20 && c < 0x7F) ? n : 0;
	return (c >= 0xA0 || c == 0x85) && c != 0xFEFF && c != 0xFFFE && c != 0xFFFF ? n : 0;
}

/* How many bytes libyaml does not take; in `out` (NULL: none is wanted) a '?' stands for each, so that places
 * stay. */
static size_t yaml_bad_bytes(struct span text, char *out)
{
	size_t bad = 0;
	for (size_t at = 0; at < text.len;) {
		size_t n = character_taken(text.ptr + at, text.ptr + text.len);
		if (n == 0 && out)
			out[at] = '?';
		bad += n == 0;
		at += n ? n : 1;
	}
	return bad;
}

static int parse(struct yaml_doc *doc, struct span text, bool many, struct err *e)
{
	struct err own = {""}; /* faults are kept from here, also where the caller wants no sentence */
	struct yaml_reader r = {.doc = doc, .text = text, .err = e ? e : &own, .many = many};
	if (span_starts(text, SPAN_LIT("\xEF\xBB\xBF"))) {
		r.base = 3;
		r.text = (struct span){text.ptr + 3, text.len - 3};
	}
	CLEANUP(freep) char *clean = NULL;
	if (many && yaml_bad_bytes(r.text, NULL)) {
		clean = span_dup(r.text);
		if (!clean)
			return yaml_out_of_memory(&r);
		yaml_bad_bytes(r.text, clean);
		r.as_written = r.text.ptr;
		r.text.ptr = clean;
	}
	if (!yaml_parser_initialize(&r.parser))
		return yaml_out_of_memory(&r);
	yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
	yaml_parser_set_input_string(&r.parser, (const unsigned char *)(r.text.ptr ? r.text.ptr : ""),
				     r.text.len);
	int code = read_stream(&r);
	yaml_parser_delete(&r.parser);
	free(r.anchors);
	free(r.items);
	return code;
}

DEFINE_CLEANUP(struct yaml_doc *, yaml_doc_free)

static int yaml_parse_some(const char *name, struct span text, bool many, struct yaml_doc **ret,
			   struct err *e)
{
	CLEANUP(yaml_doc_freep) struct yaml_doc *doc = calloc(1, sizeof(*doc));
	if (!doc || !(doc->name = span_dup(span_of(name))))
		return err_set(e, -ENOMEM, "%s: out of memory", name);
	int code = parse(doc, text, many, e);
	if (code == 0)
		*ret = steal(doc);
	return code;
}

int yaml_parse(const char *name, struct span text, struct yaml_doc **ret, struct err *e)
{
	return yaml_parse_some(name, text, false, ret, e);
}

int yaml_parse_all(const char *name, struct span text, struct yaml_doc **ret, struct err *e)
{
	return yaml_parse_some(name, text, true, ret, e);
}

struct yaml_doc *yaml_doc_free(struct yaml_doc *doc)
{
	if (!doc)
		return NULL;
	for (struct chunk *c = doc->chunks; c;) {
		struct chunk *next = c->next;
		free(c);
		c = next;
	}
	free(doc->name);
	free(doc);
	return NULL;
}

const struct yaml_node *yaml_root(const struct yaml_doc *doc)
{
	return doc->root;
}

void yaml_chain(struct yaml_doc *doc, const struct yaml_doc *more)
{
	if (!doc->root) {
		doc->root = more->root;
		return;
	}
	struct yaml_node *last = (struct yaml_node *)doc->root; /* nodes are the reader's own */
	while (last->next)
		last = last->next;
	last->next = (struct yaml_node *)more->root;
}

const char *yaml_name(const struct yaml_doc *doc)
{
	return doc->name;
}

const char *yaml_fault(const struct yaml_node *n)
{
	const char *fault = n->fault;
	for (const struct yaml_node *i = n->first; i && !fault; i = i->next)
		fault = yaml_fault(i);
	return fault;
}

/* --- values --------------------------------------------------------------------------------------------- */

const struct yaml_node *yaml_get(const struct yaml_node *mapping, const char *key)
{
	if (!mapping || mapping->kind != YAML_MAPPING)
		return NULL;
	for (const struct yaml_node *m = mapping->first; m; m = m->next)
		if (span_is(m->key->text, key))
			return m;
	return NULL;
}

static bool plain_is_one_of(const struct yaml_node *n, const char *const *spellings, size_t count)
{
	if (!n || n->kind != YAML_SCALAR || !n->plain)
		return false;
	for (size_t i = 0; i < count; i++)
		if (span_is(n->text, spellings[i]))
			return true;
	return false;
}

bool yaml_is_null(const struct yaml_node *n)
{
	static const char *const nulls[] = {"", "~", "null", "Null", "NULL"};
	return plain_is_one_of(n, nulls, 5);
}

bool yaml_string(const struct yaml_node *n, struct span *ret)
{
	if (!n || n->kind != YAML_SCALAR || yaml_is_null(n))
		return false;
	*ret = n->text;
	return true;
}

bool yaml_bool(const struct yaml_node *n, bool *ret)
{
	static const char *const spellings[] = {"true", "True", "TRUE", "false", "False", "FALSE"};
	bool yes = plain_is_one_of(n, spellings, 3);
	if (!yes && !plain_is_one_of(n, spellings + 3, 3))
		return false;
	*ret = yes;
	return true;
}

static size_t digits(struct span s, size_t from)
{
	size_t n = 0;
	while (from + n < s.len && s.ptr[from + n] >= '0' && s.ptr[from + n] <= '9')
		n++;
	return n;
}

bool yaml_int(const struct yaml_node *n, int64_t *ret)
{
	if (!n || n->kind != YAML_SCALAR || !n->plain)
		return false;
	size_t sign = n->text.len && (n->text.ptr[0] == '-' || n->text.ptr[0] == '+');
	if (n->text.len == sign || digits(n->text, sign) != n->text.len - sign)
		return false;
	errno = 0;
	long long v = strtoll(n->text.ptr, NULL, 10);
	if (errno)
		return false;
	*ret = v;
	return true;
}

/* RFC 8259's number, or with `loose` YAML's decimal float: also +1, 007, .5 and 5. */
static bool is_number(struct span s, bool loose)
{
	size_t at = s.len && (s.ptr[0] == '-' || (loose && s.ptr[0] == '+'));
	size_t whole = digits(s, at), fraction = 0;
	if (!loose && (whole == 0 || (whole > 1 && s.ptr[at] == '0')))
		return false;
	at += whole;
	if (at < s.len && s.ptr[at] == '.') {
		fraction = digits(s, at + 1);
		if (!loose && fraction == 0)
			return false;
		at += 1 + fraction;
	}
	if (whole + fraction == 0)
		return false;
	if (at < s.len && (s.ptr[at] == 'e' || s.ptr[at] == 'E')) {
		at++;
		if (at < s.len && (s.ptr[at] == '+' || s.ptr[at] == '-'))
			at++;
		size_t exponent = digits(s, at);
		if (exponent == 0)
			return false;
		at += exponent;
	}
	return at == s.len;
}

bool yaml_double(const struct yaml_node *n, double *ret)
{
	if (!n || n->kind != YAML_SCALAR || !n->plain || !is_number(n->text, true))
		return false;
	double v = strtod(n->text.ptr, NULL);
	if (!(v - v == 0)) /* infinite */
		return false;
	*ret = v;
	return true;
}

/* --- JSON ----------------------------------------------------------------------------------------------- */

/* libyaml has checked that the text is UTF-8; only what JSON must escape is left. */
static int quote(struct buf *out, struct span s)
{
	buf_putc(out, '"');
	for (size_t i = 0; i < s.len; i++) {
		unsigned char c = (unsigned char)s.ptr[i];
		if (c == '"' || c == '\\')
			buf_printf(out, "\\%c", c);
		else if (c < 0x20)
			buf_printf(out, "\\u%04x", c);
		else
			buf_putc(out, (char)c);
	}
	return buf_putc(out, '"');
}

static int scalar_to_json(const struct yaml_node *n, struct buf *out)
{
	bool b;
	if (yaml_is_null(n))
		return buf_puts(out, "null");
	if (yaml_bool(n, &b))
		return buf_puts(out, b ? "true" : "false");
	if (n->plain && is_number(n->text, false))
		return buf_append_span(out, n->text);
	return quote(out, n->text);
}

int yaml_to_json(const struct yaml_node *n, struct buf *out)
{
	if (!n || n->kind == YAML_SCALAR)
		return n ? scalar_to_json(n, out) : buf_puts(out, "null");
	bool mapping = n->kind == YAML_MAPPING;
	buf_putc(out, mapping ? '{' : '[');
	for (const struct yaml_node *i = n->first; i && !out->error; i = i->next) {
		if (i != n->first)
			buf_putc(out, ',');
		if (mapping) {
			quote(out, i->key->text);
			buf_putc(out, ':');
		}
		yaml_to_json(i, out);
	}
	buf_putc(out, mapping ? '}' : ']');
	return out->error;
}
