/*
 * Live: streams of server-sent events that say to an open page that there is something new to fetch.
 *
 * Why:       a page that stays as it was drawn stays calm while things burn. The stream carries no figures:
 *            the page fetches itself again, through the same door, so that what is shown has one way.
 * Events:    `version`, at most every LIVE_EVERY_MS when there is another one, and every LIVE_BEAT_MS, by
 *            whose absence the page sees that it is cut off. A page fetches itself when it was made of
 *            another one.
 * Limits:    LIVE_MAX streams; more are refused with 503, and the page asks now and then instead.
 * Life:      a stream holds up nothing: live_close ends all of them (a drain, a takeover, other rules for who
 *            is let in), and a page then opens another one, with whoever serves by then.
 * Threads:   the loop's.
 */
#ifndef ROUTER_ADMIN_LIVE_H
#define ROUTER_ADMIN_LIVE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/loop.h"
#include "router/http/listener.h"

#define LIVE_MAX 16
#define LIVE_EVERY_MS 2000
#define LIVE_BEAT_MS 10000

struct live;
struct live_stream;

/* `version` changes whenever what the pages show may have. -ENOMEM. */
int live_new(struct loop *loop, uint64_t (*version)(void *arg), void *arg, struct live **ret);
struct live *live_free(struct live *l); /* after its exchanges have finished. NULL is allowed; returns NULL */

/* One more stream, whose answer is given with live_pull; NULL: there is no room, or no memory. */
struct live_stream *live_open(struct live *l, struct exchange *x);
/* As exchange_pull_fn. */
long live_pull(struct live_stream *s, char *out, size_t size);
void live_finished(struct live_stream *s);
/* Ends all; those that come later are served. */
void live_close(struct live *l);

#endif
