#include "router/request/organizations.h"

#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/buf.h"
#include "base/crypto.h"

#define BUCKETS 256 /* of a shard */

struct organization_place {
	struct organization_place *next;
	uint64_t hash; /* of service and organization, salted: nobody can aim at another's */
	unsigned n;
};

struct organizations {
	char salt[CRYPTO_ID_HEX];
	struct shard {
		pthread_mutex_t lock;
		struct organization_place *buckets[BUCKETS];
	} shards[ORGANIZATION_SHARDS];
};

int organizations_new(struct organizations **ret)
{
	struct organizations *o = calloc(1, sizeof(*o));
	if (!o)
		return -ENOMEM;
	crypto_random_id(o->salt);
	for (size_t i = 0; i < ORGANIZATION_SHARDS; i++)
		pthread_mutex_init(&o->shards[i].lock, NULL);
	*ret = o;
	return 0;
}

static void organization_free_all(struct organization_place *p)
{
	while (p) {
		struct organization_place *next = p->next;
		free(p);
		p = next;
	}
}

struct organizations *organizations_free(struct organizations *o)
{
	for (size_t i = 0; o && i < ORGANIZATION_SHARDS; i++) {
		for (size_t k = 0; k < BUCKETS; k++)
			organization_free_all(o->shards[i].buckets[k]);
		pthread_mutex_destroy(&o->shards[i].lock);
	}
	free(o);
	return NULL;
}

static struct shard *shard_of(struct organizations *o, uint64_t hash)
{
	return &o->shards[hash % ORGANIZATION_SHARDS];
}

static struct organization_place **find(struct shard *s, uint64_t hash)
{
	struct organization_place **at = &s->buckets[hash / ORGANIZATION_SHARDS % BUCKETS];
	while (*at && (*at)->hash != hash)
		at = &(*at)->next;
	return at;
}

static uint64_t hash_of(const struct organizations *o, struct span service, struct span organization)
{
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(1u << 20);
	buf_puts(&text, o->salt);
	buf_append_span(&text, service);
	buf_putc(&text, '\0');
	buf_append_span(&text, organization);
	return crypto_hash64(buf_span(&text));
}

int organization_take(struct organizations *o, struct span service, struct span organization, unsigned max,
		      struct organization_place **ret)
{
	uint64_t hash = hash_of(o, service, organization);
	struct shard *s = shard_of(o, hash);
	int r = 0;
	pthread_mutex_lock(&s->lock);
	struct organization_place **at = find(s, hash);
	if (!*at && (*at = calloc(1, sizeof(**at))))
		(*at)->hash = hash;
	*ret = *at;
	if (*at && (*at)->n >= max) {
		*ret = NULL;
		r = -EBUSY;
	} else if (*at) {
		(*at)->n++;
	}
	pthread_mutex_unlock(&s->lock);
	return r;
}

void organization_give(struct organizations *o, struct organization_place *place)
{
	if (!place)
		return;
	struct shard *s = shard_of(o, place->hash);
	pthread_mutex_lock(&s->lock);
	if (--place->n == 0) {
		struct organization_place **at = find(s, place->hash);
		*at = place->next;
		free(place);
	}
	pthread_mutex_unlock(&s->lock);
}
