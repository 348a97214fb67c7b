/*
 * Rows: what the sections on single requests share: the filters of a view, tables that are cards on a
 * phone, and a form of filters that needs no script.
 */
#ifndef PAGE_PAGE_ROWS_H
#define PAGE_PAGE_ROWS_H

#include "outcomes/search/search.h"
#include "page/page.h"

#define ROWS_SHOWN 50 /* of a list at a time */
#define ROWS_BRIEF 5  /* where it is a part of the overview */

/* The view's filters; they borrow from it. false: a word is none, and *wrong says which parameter and
 * word. */
bool rows_filter(const struct page_view *v, struct search_filter *ret, char wrong[160]);

/* <table> with a caption for those who cannot see the heading, and the names of its columns; "" is a column
 * without a name. */
void rows_begin(struct page *p, const char *caption, const char *const *names, size_t n);
void rows_end(struct page *p);
/* <td> with the column's name, which a phone shows beside the value. The caller closes it. */
void rows_cell(struct page *p, const char *name);
void rows_number(struct page *p, const char *name); /* the same, to the right */
/* A side and its backend, as a colored word. */
void rows_side(struct page *p, int side, const char *backend);
void rows_result(struct page *p, int result, int status);

/* A form of the view's filters on `path`: begins it, fields, and the button. */
struct rows_field {
	const char *name, *label, *value;
	const char *const *choices; /* NULL at their end; NULL: free text */
};
void rows_form(struct page *p, const char *path, const struct rows_field *fields, size_t n);

extern const char *const rows_sides[], *const rows_results[];

#endif
