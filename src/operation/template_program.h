/*
 * Template programs: what a template is compiled to. Only for template.c; everyone else uses template.h.
 *
 * Why:       one program may hold several trees (a response has one for each choice and condition) that share
 *            the list of JSON pointers, so that a body of 10 MB is scanned once, however many references lead
 *            into it.
 * Ownership: trees belong to their caller and must not outlive the program; a run borrows from the source.
 * Threads:   a program and its trees are immutable once compiled; a run belongs to one thread.
 * Limits:    PROGRAM_MAX_POINTERS different pointers into the body, and as many into the result.
 */
#ifndef OPERATION_TEMPLATE_PROGRAM_H
#define OPERATION_TEMPLATE_PROGRAM_H

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/span.h"
#include "base/yaml.h"
#include "operation/template.h"

#define PROGRAM_MAX_POINTERS 128

struct pointer_list {
	struct span *items; /* each owned */
	size_t count;
	bool whole_only; /* nothing but "": no need to scan */
};

struct program {
	unsigned allowed; /* TEMPLATE_* */
	struct pointer_list body, result;
	bool credential; /* some tree refers to it */
};

struct program_node;

void program_init(struct program *p, unsigned allowed);
void program_release(struct program *p);

/* Any YAML node as a tree. -EBADMSG, -ENOMEM. */
int program_compile(struct program *p, const struct yaml_node *y, struct program_node **ret, struct err *e);
/* A scalar that is a reference's text ("result:/success"). */
int program_compile_reference(struct program *p, const struct yaml_node *y, struct program_node **ret,
			      struct err *e);
struct program_node *program_node_free(struct program_node *node); /* NULL is allowed */
DEFINE_CLEANUP(struct program_node *, program_node_free)

/* "line N: key: …" with the node's own place. */
int program_error(struct err *e, const struct yaml_node *at, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

struct program_run {
	const struct template_source *source;
	struct span body[PROGRAM_MAX_POINTERS], result[PROGRAM_MAX_POINTERS];
	struct buf scratch; /* a decoded parameter or a number, until the next value */
};

/* Finds everything that pointers name; program_end releases. */
void program_begin(const struct program *p, const struct template_source *s, struct program_run *run);
void program_end(struct program_run *run);

#define PROGRAM_ABSENT 1
/* Appends the tree as compact JSON: 0, PROGRAM_ABSENT (nothing was appended), buf's errors. */
int program_render(const struct program_node *node, struct program_run *run, struct buf *out);
/* The same, but a string is appended as its content. */
int program_render_raw(const struct program_node *node, struct program_run *run, struct buf *out);
/* Whether the tree, a reference, gives a value that equals `literal` (JSON, or SPAN_NONE: gives any
 * value). 1, 0, <0. */
int program_equals(const struct program_node *node, struct program_run *run, struct span literal);

#endif
