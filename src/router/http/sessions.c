#include "router/http/sessions.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct sessions_one {
	struct session is;
	char cookie[CRYPTO_SHA256_HEX]; /* its hash; "": free */
	int64_t begun_ms, used_ms;
};

struct sessions {
	struct sessions_one all[SESSIONS_MAX];
};

int sessions_new(struct sessions **ret)
{
	*ret = calloc(1, sizeof(**ret));
	return *ret ? 0 : -ENOMEM;
}

struct sessions *sessions_free(struct sessions *s)
{
	free(s);
	return NULL;
}

static void sessions_sweep(struct sessions *s, int64_t now_ms)
{
	for (size_t i = 0; i < SESSIONS_MAX; i++)
		if (s->all[i].cookie[0] && s->all[i].is.ends_ms <= now_ms)
			s->all[i] = (struct sessions_one){.begun_ms = 0};
}

/* A place for one more of this token. */
static struct sessions_one *sessions_place(struct sessions *s, const char *token)
{
	struct sessions_one *unused = NULL, *stalest = &s->all[0], *own = NULL;
	size_t n = 0;
	for (size_t i = 0; i < SESSIONS_MAX; i++) {
		struct sessions_one *one = &s->all[i];
		if (!one->cookie[0]) {
			unused = unused ? unused : one;
			continue;
		}
		if (one->used_ms < stalest->used_ms)
			stalest = one;
		if (strcmp(one->is.token, token) != 0)
			continue;
		n++;
		if (!own || one->begun_ms < own->begun_ms)
			own = one;
	}
	if (n >= SESSIONS_OF_TOKEN)
		return own;
	return unused ? unused : stalest;
}

void sessions_begin(struct sessions *s, const char token[CRYPTO_SHA256_HEX], int64_t now_ms, int64_t lasts_ms,
		    char ret_cookie[SESSIONS_COOKIE])
{
	sessions_sweep(s, now_ms);
	struct sessions_one *one = sessions_place(s, token);
	*one = (struct sessions_one){
		.is = {.ends_ms = now_ms + lasts_ms}, .begun_ms = now_ms, .used_ms = now_ms};
	memcpy(one->is.token, token, sizeof(one->is.token));
	crypto_random_id(one->is.form);
	crypto_random_id(ret_cookie);
	crypto_random_id(ret_cookie + CRYPTO_ID_HEX - 1);
	crypto_sha256_hex(span_of(ret_cookie), one->cookie);
}

/* By its hash: how long the comparison takes tells nothing about the cookie. */
static struct sessions_one *sessions_of(struct sessions *s, struct span cookie)
{
	char hash[CRYPTO_SHA256_HEX];
	if (cookie.len != SESSIONS_COOKIE - 1)
		return NULL;
	crypto_sha256_hex(cookie, hash);
	for (size_t i = 0; i < SESSIONS_MAX; i++)
		if (strcmp(s->all[i].cookie, hash) == 0)
			return &s->all[i];
	return NULL;
}

bool sessions_find(struct sessions *s, struct span cookie, int64_t now_ms, struct session *ret)
{
	sessions_sweep(s, now_ms);
	struct sessions_one *one = sessions_of(s, cookie);
	if (!one)
		return false;
	one->used_ms = now_ms;
	*ret = one->is;
	return true;
}

void sessions_end(struct sessions *s, struct span cookie)
{
	struct sessions_one *one = sessions_of(s, cookie);
	if (one)
		*one = (struct sessions_one){.begun_ms = 0};
}
