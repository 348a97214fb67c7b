/*
 * Section 9, Move: change a percentage, advance, roll back, release a hold. First the plan, then a
 * confirmation that names it (docs/design.md, "Moving"). Plain forms: it works without a script.
 *
 * Threads:   any. Everything is borrowed for the call.
 */
#ifndef PAGE_PAGE_MOVE_H
#define PAGE_PAGE_MOVE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/span.h"

struct page;

struct page_move_reader {
	bool may_write, session, may_sign_in;
	const char *who, *form; /* the session's form token; "": there is none */
};

struct page_move_flag {
	const char *key;
	double percent; /* of everybody to tasks; <0: it cannot be known */
	bool disabled;
	const char *operations; /* that ask it, "a.b, c.d" */
	const char *steps;	/* of its rollout, "0 %, 5 %, 100 %"; "": it has none */
};

struct page_move_hold {
	const char *service, *operation, *why;
};

/* What the page shows before anything is asked for. */
struct page_move {
	struct page_move_reader reader;
	const char *place; /* where the flags are */
	const struct page_move_flag *flags;
	size_t n_flags, n_left_out;
	const struct page_move_hold *holds;
	size_t n_holds;
};

struct page_move_operation {
	const char *name;
	double from, to;
};

#define PAGE_MOVE_LARGEST 8
struct page_move_who { /* users, organizations */
	size_t known, to_task, to_legacy, unknown;
	const char *largest[PAGE_MOVE_LARGEST];
	size_t n_largest;
};

struct page_move_plan {
	const char *command, *flag, *segment, *place, *digest, *question;
	double percent, from, to;
	bool nothing, known, counted; /* known: its effect could be evaluated */
	const char *trouble;	      /* why nobody could be counted */
	struct span changes, notes, said;
	const struct page_move_operation *operations;
	size_t n_operations;
	struct page_move_who who[2];
};

struct page_move_result {
	const char *flag, *result, *error;
	bool done, changed; /* something was changed, though perhaps not as asked for */
	struct span said;
};

void page_move(struct page *p); /* p->source->move; NULL: nothing */
/* Whole documents, as answers to a form. */
void page_move_plan(const struct page_move_reader *r, const struct page_move_plan *plan, struct buf *out);
void page_move_result(const struct page_move_reader *r, const struct page_move_result *result,
		      struct buf *out);

#endif
