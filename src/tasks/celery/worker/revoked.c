#include "tasks/celery/worker/revoked.h"

#include <errno.h>
#include <stdlib.h>

#include "base/crypto.h"
#include "base/json.h"

static uint32_t *revoked_head(const struct celery_revoked *r, struct span id)
{
	return &r->heads[crypto_hash64(id) % CELERY_REVOKED_BUCKETS];
}

bool celery_revoked_has(const struct celery_revoked *r, struct span id)
{
	for (uint32_t at = r->n ? *revoked_head(r, id) : 0; at; at = r->links[at - 1])
		if (span_is(id, r->ids[at - 1]))
			return true;
	return false;
}

static void revoked_forget(struct celery_revoked *r, size_t place)
{
	uint32_t *at = revoked_head(r, span_of(r->ids[place]));
	while (*at != place + 1)
		at = &r->links[*at - 1];
	*at = r->links[place];
	free(r->ids[place]);
	r->ids[place] = NULL;
	r->n--;
}

static int revoked_make(struct celery_revoked *r)
{
	if (r->ids)
		return 0;
	r->ids = calloc(CELERY_REVOKED_MAX, sizeof(*r->ids));
	r->links = calloc(CELERY_REVOKED_MAX, sizeof(*r->links));
	r->heads = calloc(CELERY_REVOKED_BUCKETS, sizeof(*r->heads));
	if (r->ids && r->links && r->heads)
		return 0;
	celery_revoked_release(r);
	return -ENOMEM;
}

int celery_revoked_add(struct celery_revoked *r, struct span id)
{
	if (celery_revoked_has(r, id))
		return 0;
	char *copy = span_dup(id);
	if (!copy || revoked_make(r) < 0) {
		free(copy);
		return -ENOMEM;
	}
	if (r->ids[r->next])
		revoked_forget(r, r->next);
	uint32_t *head = revoked_head(r, id);
	r->ids[r->next] = copy;
	r->links[r->next] = *head;
	*head = (uint32_t)r->next + 1;
	r->n++;
	r->next = (r->next + 1) % CELERY_REVOKED_MAX;
	return 0;
}

int celery_revoked_put(const struct celery_revoked *r, struct buf *out)
{
	const char *separator = "";
	buf_putc(out, '[');
	for (size_t i = 0; r->ids && i < CELERY_REVOKED_MAX; i++) {
		const char *id = r->ids[(r->next + i) % CELERY_REVOKED_MAX];
		if (!id)
			continue;
		buf_puts(out, separator);
		json_quote(out, span_of(id));
		separator = ", ";
	}
	return buf_putc(out, ']');
}

void celery_revoked_release(struct celery_revoked *r)
{
	for (size_t i = 0; r->ids && i < CELERY_REVOKED_MAX; i++)
		free(r->ids[i]);
	free(r->ids);
	free(r->heads);
	free(r->links);
	*r = (struct celery_revoked){0};
}
