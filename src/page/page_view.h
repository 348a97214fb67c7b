/*
 * View: what a reader has chosen, as it stands in the page's URL: the span of time and the filters.
 *
 * Why:       a page that someone looks at can be sent to someone else, and shows the same there. What is not
 *            understood is refused with the parameter's name, never left out: the page would show more than
 *            was asked for.
 * Limits:    each value has its array's size; a name given twice or unknown is refused.
 * Threads:   any; no state.
 */
#ifndef PAGE_PAGE_VIEW_H
#define PAGE_PAGE_VIEW_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/span.h"

#define PAGE_SINCE "24h" /* where none is chosen */

struct page_view {
	char path[128]; /* "/", "/requests", … */
	/* as given; "" = none chosen */
	char since[40], until[40], service[32], operation[64], org[64], user[64];
	/* of requests, errors and differences; each section says which words it takes */
	char id[80], side[16], backend[16], result[16], status[8], reason[32], search[80], sort[16], page[24];
	char error[200];	    /* a pattern of error texts */
	char routers[8];	    /* "": this one; "all": with those that `routers:` lists */
	int64_t since_us, until_us; /* 0 = open */
};

/* 0, or 400 with a sentence that names the parameter. */
int page_view_parse(struct span target, int64_t now_us, struct page_view *ret, struct err *e);

/* href of `path` with the view's filters, of which each `name` (up to two; NULL: none) has the value beside
 * it instead; "" leaves it out. `page` is never kept. Appends the attribute's value, escaped. */
void page_link(struct buf *out, const struct page_view *v, const char *path, const char *name,
	       const char *value);
void page_link2(struct buf *out, const struct page_view *v, const char *path, const char *name,
		const char *value, const char *name2, const char *value2);
/* The view's query alone, "?…" or "". */
void page_query(struct buf *out, const struct page_view *v);
/* The filters as hidden fields of a form, but for those that the form has itself (`but`, NULL at its end). */
void page_hidden_fields(struct buf *out, const struct page_view *v, const char *const *but);

#endif
