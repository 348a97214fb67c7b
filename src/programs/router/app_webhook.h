/*
 * Webhook: tells the guard's verdicts to a URL, signed, and tries again when nobody listens.
 *
 * Sent:      POST, application/json, with X-Migration-Signature: sha256=<hex>, the HMAC-SHA-256 of the body
 *            under the secret. The body's `id` is the same for the same event, however often and by whichever
 *            process it is sent.
 * Tried:     WEBHOOK_ATTEMPTS times, with growing pauses, until the answer is 2xx. Any other 4xx than 408,
 *            425 and 429 is final.
 * Limits:    WEBHOOK_WAITING messages; a further one is dropped, counted and logged.
 * Threads:   its loop's.
 */
#ifndef PROGRAMS_ROUTER_APP_WEBHOOK_H
#define PROGRAMS_ROUTER_APP_WEBHOOK_H

#include <stdint.h>

#include "base/err.h"
#include "base/loop.h"
#include "base/span.h"

#define WEBHOOK_ATTEMPTS 10
#define WEBHOOK_WAITING 32

struct webhook;

int webhook_new(struct loop *loop, struct webhook **ret, struct err *e); /* without a target */
struct webhook *webhook_free(struct webhook *w); /* what was not delivered is lost. NULL is fine */
/* Where to, from now on; all copied. `url` NULL: nowhere. -ENOMEM. */
int webhook_set(struct webhook *w, const char *url, const char *ca_file, const char *secret);
/* Copies. Nothing happens without a target. */
void webhook_send(struct webhook *w, struct span body);

struct webhook_counts {
	uint64_t delivered, failed, dropped; /* failed: given up */
};
struct webhook_counts webhook_counts(const struct webhook *w);

#endif
