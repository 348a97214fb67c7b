/*
 * Peers: the report of this router and of those that `routers:` lists, as one.
 *
 * Why:       behind one address there may be several routers, and one router's report is not the migration's.
 *            What they recorded is added up as sums; a peer that does not answer is told with its name and
 *            why, and the report says that it is not whole.
 * Bounds:    PEERS_MS for all of them together, which are asked at once; PEERS_ANSWER_MAX bytes each.
 * Loops:     a peer is asked for its own sums only, so nobody asks on; this router in its own list is
 *            "itself".
 * Fairness:  PEERS_AT_ONCE reports at a time, since each may hold a thread of the pool for all that time, and
 *            reports of this router alone, and pages, come from the same pool.
 * Threads:   any but the loop's: it waits. It uses the configuration of the start (changes need a restart).
 * Ownership: what is told owns everything in it.
 */
#ifndef PROGRAMS_ROUTER_REPORTS_APP_PEERS_H
#define PROGRAMS_ROUTER_REPORTS_APP_PEERS_H

#include "base/cleanup.h"
#include "config/config.h"
#include "guard/guard_verdict.h"
#include "outcomes/report.h"

#define PEERS_MS 3000
#define PEERS_ANSWER_MAX (16u << 20)
#define PEERS_AT_ONCE 2

enum peer_state {
	PEER_HERE,	    /* this router */
	PEER_OK,	    /* its sums are in the report */
	PEER_ITSELF,	    /* it is this router, or one that is there already: counted once */
	PEER_UNREACHABLE,   /* no answer in time */
	PEER_REFUSED,	    /* it wants a token, or another one */
	PEER_NOT_UNDERSTOOD /* it answered something else */
};

struct peer_told {
	char name[128], url[256];
	enum peer_state state;
	char why[256]; /* "" when well */
	int64_t took_ms;
	int64_t since_us; /* missing: when that was first seen, wall clock; 0: it is there */
};

struct peers_told {
	struct report *report; /* of all that are PEER_HERE or PEER_OK */
	struct guard_verdicts *guard;
	bool whole; /* nobody is missing */
	size_t n;
	struct peer_told peers[CONFIG_MAX_ROUTERS + 1]; /* this one first */
};

struct app;
/* `o` without its path. -EBUSY: PEERS_AT_ONCE are being made. -errno when this router's own report cannot be
 * made; peers are no error. */
int app_peers_report(const struct app *a, const struct report_options *o, struct peers_told **ret,
		     struct err *e);
struct peers_told *peers_told_free(struct peers_told *t); /* NULL is fine; returns NULL */
const char *peer_state_text(enum peer_state s);		  /* here, ok, itself, unreachable, … */
/* The members "whole" and "routers" at the end of the JSON object that `object` ends with. Buf's errors. */
int peers_told_into_json(const struct peers_told *t, struct buf *object);

DEFINE_CLEANUP(struct peers_told *, peers_told_free)

#endif
