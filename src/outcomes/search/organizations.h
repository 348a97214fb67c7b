/*
 * Organizations: which side serves them, since when, how much, and what fails.
 *
 * What:      an organization is *on* the side that gave its answers in the span; on both when either did
 *            after the other had begun. `since_us` is when its answers on that side began.
 * Limits:    ORGANIZATIONS_MAX are counted; what comes after is counted together as `left_out`.
 */
#ifndef OUTCOMES_SEARCH_ORGANIZATIONS_H
#define OUTCOMES_SEARCH_ORGANIZATIONS_H

#include "base/cleanup.h"
#include "outcomes/search/search.h"

#define ORGANIZATIONS_MAX 200000
#define ORGANIZATIONS_TOLD_MAX 10000 /* in JSON, to be added up with others' */

enum organization_order { ORGANIZATIONS_BY_ERRORS, ORGANIZATIONS_BY_REQUESTS, ORGANIZATIONS_BY_NAME };
enum organization_on { ON_LEGACY, ON_TASK, ON_BOTH, ON_NEITHER };

struct organization_sums {
	uint64_t requests;	   /* answers */
	uint64_t counted, errors;  /* attempts of a success rate, and those of them that did not succeed */
	int64_t first_us, last_us; /* of its answers; 0 = none */
};

struct organization {
	char name[64];
	struct organization_sums sides[OUTCOME_SIDE_COUNT];
	enum organization_on on;
	/* When its answers on that side (both: on either) began, as far as the span tells; before_span:
	 * they may have begun before it, since there is none of the other side. */
	int64_t since_us;
	bool before_span;
	uint64_t requests, errors;
};

struct organization_list {
	struct organization *all;
	size_t n;
	size_t found;	   /* that match, of which `all` are some */
	uint64_t left_out; /* attempts of organizations beyond the limit */
	bool cut;
};

struct organizations_options {
	struct search_filter filter; /* service, operation, since, until; organization: this one alone */
	const char *search;	     /* part of a name, in any case; NULL = all */
	enum organization_order order;
	size_t offset, limit;
};

int organization_list_find(const char *path, const struct organizations_options *o,
			   struct organization_list **ret, struct err *e);
/* Of several files, added up with what was found elsewhere (`others`, whole lists). */
int organization_list_of_all(const char *const *paths, size_t n, struct organization_list *const *others,
			     size_t n_others, const struct organizations_options *o,
			     struct organization_list **ret, struct err *e);
/* What another router's organization_list_to_json said; all that it found must be there, or a sum would not
 * be whole. -EPROTO with a sentence about `name`. */
int organization_list_parse(const char *name, struct span json, struct organization_list **ret,
			    struct err *e);
struct organization_list *
organization_list_free(struct organization_list *r);	   /* NULL is allowed; returns NULL */
const char *organization_on_text(enum organization_on on); /* legacy, task, both, none */

int organization_list_to_json(const struct organization_list *r, struct buf *out);
int organization_list_to_csv(const struct organization_list *r, struct buf *out);
int organization_list_to_text(const struct organization_list *r, unsigned columns, struct buf *out);

DEFINE_CLEANUP(struct organization_list *, organization_list_free)

#endif
