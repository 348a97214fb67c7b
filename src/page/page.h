/*
 * Page: the migration as people look at it, made on the server: HTML that reads well without a script.
 *
 * Why:       who decides on the next percent, and who is on call at 3 a.m., see it at a glance
 *            (docs/design.md, "The page").
 * Shape:     a *page* is a path ("/", "/requests", …) with *sections*, each a function
 *            page_<section>(struct page *) in a file of its own, which reads what it shows and appends
 *            <section id="…">. What cannot be read is said in its section; the others are there all the same.
 * Threads:   a page is made on one thread, any. What only the control thread knows comes with page_source.
 * Ownership: the source and all it points to are the caller's and stay during the call.
 */
#ifndef PAGE_PAGE_H
#define PAGE_PAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/span.h"
#include "page/page_view.h"

#define PAGE_MAX (16u << 20) /* bytes of one page */

struct guard_verdicts;
struct page_move;
struct report;
struct report_options;
struct standing;
struct standing_operation;

/* Who asks for what: whose decision is explained. "" = none. */
struct page_question {
	const char *service, *operation, *user, *organization;
	int64_t time_us; /* of the request */
};

/* One of several routers, as it was found when they were asked for this page. */
struct page_router {
	const char *name, *url; /* url "": this router */
	const char *state;	/* here, ok, itself, unreachable, refused, not_understood */
	const char *why;	/* "" when well */
	bool missing;		/* its figures are not there */
	bool twice;		/* it is this router, or one that is there already */
	int64_t since_us;	/* missing: since when, as far as anyone has looked */
	int64_t took_ms;
};

#define PAGE_ROUTERS_MAX 17

/* What they told together. */
struct page_routers {
	const struct report *report;
	const struct guard_verdicts *guard; /* side by side, the worst first */
	size_t n;
	struct page_router list[PAGE_ROUTERS_MAX]; /* this one first */
};

/* What a page is made of. */
struct page_source {
	const char *path;		 /* outcomes.db */
	const struct standing *standing; /* now; NULL: no memory for it */
	int64_t now_us;			 /* wall clock */
	uint64_t version;		 /* router/admin_live.h */
	const struct page_move *move;	 /* of /move: what can be moved, and by whom; NULL: not known */
	void *arg;
	/* Appends how it would be decided now, as lines of text; NULL: that cannot be told here. */
	void (*explain)(void *arg, const struct page_question *q, struct buf *out);
	/* Appends the steps of a workflow, as task_result.steps has them; nothing: it has none, or they
	 * cannot be told. May take seconds. NULL: likewise. */
	void (*steps)(void *arg, const struct page_question *q, const char *backend, const char *task_id,
		      struct buf *out);
	bool several; /* `routers:` lists others */
	/* Asks them all, and waits for seconds. What `ret` points to is the source's. NULL unless several.
	 * -errno with why. */
	int (*ask_routers)(void *arg, const struct report_options *o, struct page_routers *ret,
			   struct err *e);
};

/* A page while it is made; what its sections get. */
struct page {
	struct buf *out;
	const struct page_source *source;
	struct page_view view;
	const struct report *report;	    /* of the view; NULL: it cannot be read, and then: */
	const char *trouble;		    /* why; "": nothing was recorded yet */
	const struct page_routers *routers; /* whose report it is; NULL: this one's alone */
};

/* Whether there is a page of that path. */
bool page_is(struct span path);
/* Appends the whole document. Returns its HTTP status: 200, or 400 with a page that says what is wrong with
 * the parameters, 404. What is too long leaves out->error set. */
int page_make(const struct page_source *source, struct span target, struct buf *out);

/* --- sections, each in its own file; they append to p->out ---------------------------------------------- */
void page_sentence(struct page *p);	      /* 1 */
void page_all_routers(struct page *p);	      /* whose figures these are, and who is missing */
void page_health(struct page *p);	      /* 2 */
void page_operations(struct page *p);	      /* 3 */
void page_timeline(struct page *p);	      /* 4 */
void page_errors(struct page *p, bool brief); /* 5; brief: the most frequent, on the overview */
void page_organizations(struct page *p);      /* 6 */
void page_requests(struct page *p);	      /* 7: the list */
void page_request(struct page *p);	      /* of view.id */
void page_differences(struct page *p);	      /* 8 */
void page_move(struct page *p);		      /* 9: page_move.h */

/* "service.operation" as people say it: "prompt.answer_prompt", and "runner.run" once. */
void page_operation_name(struct buf *out, const char *service, const char *operation);

#endif
