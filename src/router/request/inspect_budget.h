/*
 * The memory that bodies take while they are looked into (limits.max_inspect_memory), and who has how much of
 * it.
 *
 * Why:       it is shared by all callers, so nobody may take it from the others: it is charged as bytes
 *            arrive, never for what is merely announced; one peer gets at most half of it; and those who
 *            would have to show credentials for the task side, and have none, a quarter together. (Each of
 *            the two at least one whole body of max_inspect_body.)
 * Threads:   any; a claim belongs to one thread.
 */
#ifndef ROUTER_REQUEST_INSPECT_BUDGET_H
#define ROUTER_REQUEST_INSPECT_BUDGET_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "config/config.h"
#include "router/http/listener.h"

#define INSPECT_PEERS 4096 /* peers that share a place by chance share its part */

/* The peer is whoever connected (of IPv6: its /64); behind a trusted proxy the one for whom it says, last in
 * X-Forwarded-For, that it speaks. */

/* Zeroed is empty. Shared by all planes. */
struct inspect_budget {
	atomic_uint_fast64_t held, strangers; /* bytes */
	atomic_uint_fast64_t peers[INSPECT_PEERS];
	atomic_uint_fast64_t seed; /* of the places, so nobody can aim at another's; 0: not chosen yet */
};

/* One request's part. Zeroed has none. */
struct inspect_claim {
	struct inspect_budget *budget;
	uint64_t total_max, peer_max, stranger_max;
	uint64_t bytes;
	unsigned peer;
	bool stranger;
};

/* The place of whoever sent this request, below INSPECT_PEERS. */
unsigned inspect_peer(struct inspect_budget *b, const struct config *config, const struct http_request *r);

/* `stranger`: without the credentials that the task side asks for. `share`: of the budget, for what must
 * leave room for others. */
void inspect_claim_init(struct inspect_claim *c, struct inspect_budget *b, const struct config *config,
			const struct http_request *r, bool stranger, double share);
/* false when one of the limits would be passed; the claim is as before then. */
bool inspect_claim_more(struct inspect_claim *c, uint64_t bytes);
void inspect_claim_release(struct inspect_claim *c); /* zeroed is fine */

#endif
