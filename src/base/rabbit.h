/*
 * RabbitMQ client: one connection on a thread of its own, used by any number of loops.
 *
 * Why:       librabbitmq's calls block (login, questions, a full socket), so they must not run on a loop. One
 *            connection for all loops of a process: what comes to its reply queue concerns whoever waits, on
 *            whichever loop.
 * Shape:     idle until something is asked, then connected for good: a lost connection is reestablished at
 *            once, a refused one after a pause that doubles, with jitter, each time with the next server of
 *            the URL. Commands wait for the first attempt; while the server is known to be unreachable they
 *            fail at once. Nothing is ever sent twice.
 * Messages:  persistent, mandatory and confirmed. RABBIT_DONE: in a queue, the server's word. RABBIT_REFUSED:
 *            in no queue: never written, returned (no such queue), nacked, or above the server's size.
 *            RABBIT_UNKNOWN: written, and not confirmed within the time limit, or before the connection was
 *            lost. While the server has blocked us (memory, disk) messages are refused unwritten.
 *            A large message travels alone, since the server answers one that is too large by closing the
 *            channel, which says nothing of the others; so does each after such an answer, until one arrives.
 * Queues:    none is declared, nor changed, but our own reply queue: durable, gone `reply_expires` after the
 *            last consumer; it survives a reconnection, and so does what has come meanwhile.
 * Threads:   rabbit_new, rabbit_free: the owner's, with no port between. A port belongs to its loop.
 * Limits:    max_pending commands at once.
 * Errors:    sentences name the server's address, never user or password.
 */
#ifndef BASE_RABBIT_H
#define BASE_RABBIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/loop.h"
#include "base/rabbit_link.h"
#include "base/rabbit_url.h"
#include "base/span.h"

struct rabbit;
struct rabbit_port; /* one user on one loop */

enum rabbit_state { RABBIT_IDLE, RABBIT_CONNECTING, RABBIT_READY, RABBIT_DOWN };
enum rabbit_outcome { RABBIT_DONE, RABBIT_REFUSED, RABBIT_UNKNOWN };

struct rabbit_options {
	const struct rabbit_url *url; /* copied */
	const char *reply_queue;      /* copied */
	unsigned connect_timeout_ms, command_timeout_ms;
	size_t max_body;    /* bytes of what comes */
	size_t max_pending; /* commands at once; 0: 100,000 */
	/* On the connection's thread: what came to the reply queue with a correlation id. too_large: without
	 * its body. NULL: dropped. */
	void (*arrived)(void *arg, struct span correlation_id, struct span body, bool too_large);
	/* On the connection's thread: replies are heard from now on (why ""), or not; why NULL: the
	 * connection is lost and being made anew. NULL: no matter. */
	void (*hearing)(void *arg, const char *why);
	void *arg;
};

int rabbit_new(const struct rabbit_options *options, struct rabbit **ret, struct err *e);
struct rabbit *rabbit_free(struct rabbit *r); /* NULL is allowed; returns NULL */
/* Connects, if it is idle. Any thread. */
void rabbit_begin(struct rabbit *r);
void rabbit_where_now(struct rabbit *r, char out[RABBIT_WHERE_MAX]); /* any thread */

struct rabbit_answer {
	enum rabbit_outcome outcome;
	struct err why;		   /* unless done */
	bool returned;		   /* refused: no queue takes it */
	struct rabbit_queue queue; /* of a question */
};
typedef void (*rabbit_fn)(void *arg, const struct rabbit_answer *a);

struct rabbit_port_options {
	/* what came to the reply queue with a ticket; NULL: dropped */
	void (*reply)(void *arg, struct span ticket, struct span body);
	void *arg;
};

int rabbit_port_new(struct rabbit *r, struct loop *loop, const struct rabbit_port_options *o,
		    struct rabbit_port **ret);
struct rabbit_port *rabbit_port_free(struct rabbit_port *p); /* drops what is asked, without callbacks */
/* Known to be away, or to take no messages. */
bool rabbit_port_away(struct rabbit_port *p, struct err *why);

/* All is copied. fn comes later, once (from within the call if out of memory, or with RABBIT_REFUSED when too
 * many are pending). */
void rabbit_publish(struct rabbit_port *p, enum rabbit_lane lane, const struct rabbit_message *m,
		    rabbit_fn fn, void *arg);
void rabbit_look(struct rabbit_port *p, struct span queue, rabbit_fn fn, void *arg);

#endif
