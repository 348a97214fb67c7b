#include "router/http/guesses.h"

#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"

#define MINUTE_MS 60000
#define KNOWN 16

struct guesses_peer {
	unsigned char address[16];
	int64_t begun_ms, last_ms;
	unsigned wrong;
};

struct guesses {
	pthread_mutex_t lock;
	struct guesses_peer peers[GUESSES_PEERS];
	size_t n_peers;
	char known[KNOWN][CRYPTO_SHA256_HEX];
	size_t next_known;
};

int guesses_new(struct guesses **ret)
{
	struct guesses *g = calloc(1, sizeof(*g));
	if (!g)
		return -ENOMEM;
	pthread_mutex_init(&g->lock, NULL);
	*ret = g;
	return 0;
}

struct guesses *guesses_free(struct guesses *g)
{
	if (g)
		pthread_mutex_destroy(&g->lock);
	free(g);
	return NULL;
}

/* IPv4 as mapped into IPv6; of IPv6 the /64, which one customer has whole. */
static void guesses_address(const struct sockaddr *peer, unsigned char out[16])
{
	memset(out, 0, 16);
	if (peer && peer->sa_family == AF_INET6) {
		memcpy(out, &((const struct sockaddr_in6 *)(const void *)peer)->sin6_addr, 8);
	} else if (peer && peer->sa_family == AF_INET) {
		out[10] = out[11] = 0xff;
		memcpy(out + 12, &((const struct sockaddr_in *)(const void *)peer)->sin_addr, 4);
	}
}

/* NULL when it is not there and none is to be made. */
static struct guesses_peer *guesses_find(struct guesses *g, const struct sockaddr *peer, bool make)
{
	unsigned char address[16];
	int64_t now = clock_mono_ms();
	guesses_address(peer, address);
	struct guesses_peer *oldest = &g->peers[0];
	for (size_t i = 0; i < g->n_peers; i++) {
		struct guesses_peer *p = &g->peers[i];
		if (memcmp(p->address, address, sizeof(address)) == 0) {
			if (now - p->begun_ms >= MINUTE_MS) {
				p->begun_ms = now;
				p->wrong = 0;
			}
			return p;
		}
		oldest = p->last_ms < oldest->last_ms ? p : oldest;
	}
	if (!make)
		return NULL;
	struct guesses_peer *p = g->n_peers < GUESSES_PEERS ? &g->peers[g->n_peers++] : oldest;
	*p = (struct guesses_peer){.begun_ms = now, .last_ms = now};
	memcpy(p->address, address, sizeof(address));
	return p;
}

static bool guesses_known(const struct guesses *g, const char *hash)
{
	for (size_t i = 0; i < KNOWN; i++)
		if (strcmp(g->known[i], hash) == 0)
			return true;
	return false;
}

bool guesses_allow(struct guesses *g, const struct sockaddr *peer, const char hash[CRYPTO_SHA256_HEX])
{
	pthread_mutex_lock(&g->lock);
	const struct guesses_peer *p = guesses_find(g, peer, false);
	bool allow = !p || p->wrong < GUESSES_PER_MINUTE || guesses_known(g, hash);
	pthread_mutex_unlock(&g->lock);
	return allow;
}

void guesses_right(struct guesses *g, const char hash[CRYPTO_SHA256_HEX])
{
	pthread_mutex_lock(&g->lock);
	if (!guesses_known(g, hash))
		memcpy(g->known[g->next_known++ % KNOWN], hash, CRYPTO_SHA256_HEX);
	pthread_mutex_unlock(&g->lock);
}

void guesses_wrong(struct guesses *g, const struct sockaddr *peer, const char *event)
{
	char text[INET6_ADDRSTRLEN] = "unknown";
	if (peer && peer->sa_family == AF_INET6)
		inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)(const void *)peer)->sin6_addr, text,
			  sizeof(text));
	else if (peer && peer->sa_family == AF_INET)
		inet_ntop(AF_INET, &((const struct sockaddr_in *)(const void *)peer)->sin_addr, text,
			  sizeof(text));
	pthread_mutex_lock(&g->lock);
	struct guesses_peer *p = guesses_find(g, peer, true);
	p->last_ms = clock_mono_ms();
	unsigned wrong = ++p->wrong;
	pthread_mutex_unlock(&g->lock);
	if (wrong == 1 || wrong == GUESSES_PER_MINUTE)
		log_warn(event, LOG_STR("peer", text), LOG_INT("within_a_minute", wrong),
			 LOG_BOOL("refused_from_now", wrong >= GUESSES_PER_MINUTE));
}
