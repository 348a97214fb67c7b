#include "router/request/inspect_budget.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "base/checksum.h"
#include "base/crypto.h"

static uint64_t seed_of(struct inspect_budget *b)
{
	uint64_t seed = atomic_load_explicit(&b->seed, memory_order_relaxed), none = 0;
	if (seed)
		return seed;
	char random[CRYPTO_ID_HEX];
	crypto_random_id(random);
	random[15] = '\0';
	seed = strtoull(random, NULL, 16) | 1;
	return atomic_compare_exchange_strong(&b->seed, &none, seed) ? seed : none;
}

/* The address in the form that counts: of IPv6 the network that one customer gets. */
static struct span inspect_budget_peer_address(const struct http_request *r)
{
	if (r->peer && r->peer->sa_family == AF_INET)
		return (struct span){
			(const char *)&((const struct sockaddr_in *)(const void *)r->peer)->sin_addr, 4};
	if (r->peer && r->peer->sa_family == AF_INET6)
		return (struct span){
			(const char *)&((const struct sockaddr_in6 *)(const void *)r->peer)->sin6_addr, 8};
	return SPAN_LIT("local");
}

static struct span last_element(struct span list)
{
	const char *comma = memrchr(list.ptr, ',', list.len);
	size_t skip = comma ? (size_t)(comma + 1 - list.ptr) : 0;
	return span_trim((struct span){list.ptr + skip, list.len - skip});
}

static struct span caller(const struct config *config, const struct http_request *r)
{
	struct span said = SPAN_NONE;
	if (r->peer && config_trusts_peer(config, r->peer, r->peer_length))
		for (size_t i = 0; i < r->n_fields; i++)
			if (span_is_nocase(r->fields[i].name, "X-Forwarded-For"))
				said = last_element(r->fields[i].value);
	return said.len ? said : inspect_budget_peer_address(r);
}

static uint64_t at_least(uint64_t part, uint64_t body)
{
	return part > body ? part : body;
}

unsigned inspect_peer(struct inspect_budget *b, const struct config *config, const struct http_request *r)
{
	uint64_t seed = seed_of(b);
	uint32_t place =
		checksum_crc32(CHECKSUM_CRC32_START, (struct span){(const char *)&seed, sizeof(seed)});
	place = checksum_crc32(place, caller(config, r));
	/* A CRC is linear: two addresses that differ by the same would always meet. The multiplication ends
	 * that. */
	return (unsigned)((place * (seed | 1)) >> 40) % INSPECT_PEERS;
}

void inspect_claim_init(struct inspect_claim *c, struct inspect_budget *b, const struct config *config,
			const struct http_request *r, bool stranger, double share)
{
	*c = (struct inspect_claim){
		.budget = b,
		.total_max = (uint64_t)((double)config->max_inspect_memory * share),
		.peer_max = at_least(config->max_inspect_memory / 2, config->max_inspect_body),
		.stranger_max = at_least(config->max_inspect_memory / 4, config->max_inspect_body),
		.peer = inspect_peer(b, config, r),
		.stranger = stranger,
	};
}

static bool inspect_budget_take(atomic_uint_fast64_t *of, uint64_t bytes, uint64_t max)
{
	uint64_t used = atomic_fetch_add_explicit(of, bytes, memory_order_relaxed);
	if (used + bytes <= max)
		return true;
	atomic_fetch_sub_explicit(of, bytes, memory_order_relaxed);
	return false;
}

bool inspect_claim_more(struct inspect_claim *c, uint64_t bytes)
{
	struct inspect_budget *b = c->budget;
	if (!inspect_budget_take(&b->held, bytes, c->total_max))
		return false;
	if (!inspect_budget_take(&b->peers[c->peer], bytes, c->peer_max)) {
		atomic_fetch_sub_explicit(&b->held, bytes, memory_order_relaxed);
		return false;
	}
	if (c->stranger && !inspect_budget_take(&b->strangers, bytes, c->stranger_max)) {
		atomic_fetch_sub_explicit(&b->held, bytes, memory_order_relaxed);
		atomic_fetch_sub_explicit(&b->peers[c->peer], bytes, memory_order_relaxed);
		return false;
	}
	c->bytes += bytes;
	return true;
}

void inspect_claim_release(struct inspect_claim *c)
{
	if (c->bytes == 0)
		return;
	atomic_fetch_sub_explicit(&c->budget->held, c->bytes, memory_order_relaxed);
	atomic_fetch_sub_explicit(&c->budget->peers[c->peer], c->bytes, memory_order_relaxed);
	if (c->stranger)
		atomic_fetch_sub_explicit(&c->budget->strangers, c->bytes, memory_order_relaxed);
	c->bytes = 0;
}
