/*
 * Usage store: what drain (design, "Drain") needs and sums do not tell, in tables next to them:
 *
 *   last_seen  per series: when its last attempt began, and of which organization
 *   unmapped   per day, service, method and pattern (unmapped.h): how often, how often with 404, the last
 *   presence   when a recorder could write: [began, seen], both exact to USAGE_PRESENCE_US
 *
 * Why:       tables of their own and no new version of the schema, so that an older program can go back to
 *            the file. Where an older one has written meanwhile, sums know more than last_seen: readers take
 *            the later of both.
 * Seeded:    when made in a file that has sums: last_seen from them (without organizations), and presence by
 *            the hours that have any.
 * Ownership: the owner of the file (outcome_store) opens and closes transactions.
 * Threads:   the recorder's. Errors: db.h's.
 */
#ifndef OUTCOMES_USAGE_STORE_H
#define OUTCOMES_USAGE_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/db.h"
#include "base/err.h"
#include "outcomes/outcome.h"
#include "outcomes/series.h"

#define USAGE_PRESENCE_US 60000000LL /* between two writes of an idle recorder */
#define USAGE_JOIN_US 180000000LL    /* a shorter silence is no gap: a restart */
#define USAGE_DAY_US 86400000000LL

struct usage_store;

int usage_store_new(struct db *db, struct usage_store **ret, struct err *e);
struct usage_store *usage_store_free(struct usage_store *u); /* NULL is allowed; returns NULL */
/* What is in memory may not be what is in the file. */
void usage_store_forget(struct usage_store *u);

/* Within a transaction: */
int usage_store_add(struct usage_store *u, const struct outcome *o, struct series *s, int64_t now_us,
		    struct err *e);
int usage_store_write(struct usage_store *u, struct series *first, int64_t now_us, struct err *e);
int usage_store_retain(struct usage_store *u, int64_t before_us, struct err *e);

/* Whether presence is to be written again, though there is nothing else. */
bool usage_store_is_due(const struct usage_store *u, int64_t now_us);

DEFINE_CLEANUP(struct usage_store *, usage_store_free)

#endif
