/*
 * Redis client on the loop: one connection that reconnects itself. Over hiredis' asynchronous interface.
 *
 * Why:       hiredis has no time limits for commands and forgets what it had written when a connection dies.
 *            Here every command ends in time, and says whether the server can have seen it: what was not
 *            handed to the kernel as a whole cannot have been executed. Nothing is ever sent twice.
 * Shape:     idle until something is asked; then connected (names resolved off the loop), AUTH and SELECT,
 *            ready. A lost connection is reestablished at once, a refused one after a pause that doubles,
 *            with jitter. Commands wait for the first attempt; while the server is known to be unreachable
 *            they fail at once. After an answer that is about the server and not about the command (READONLY,
 *            LOADING, MASTERDOWN, NOAUTH, …) nothing more is sent on that connection: the name is looked up
 *            and a new one made, after a pause. A connection is used either for commands or for subscriptions
 *            (RESP2 cannot do both).
 * Sentinels: they are asked for the master at each connection; its ROLE is verified before anything else
 *            is sent, and while it is in use they are asked again each second (redis_sentinel.h): a
 *            connection to a server that they have replaced is closed, also if that server never noticed.
 * TLS:       where hiredis has it; never plain where it was asked for (redis_url.h).
 * Threads:   the loop's own.
 * Ownership: words are copied. A call belongs to its connection and ends by its callback; a subscription
 *            belongs to who made it until redis_unsubscribe. redis_free drops all calls without their
 *            callbacks; subscriptions must be gone before. redis_free may be called from any callback.
 * Signals:   hiredis writes with write(2): the program ignores SIGPIPE.
 * Limits:    max_pending commands at once (REDIS_NOT_SENT above it).
 * Errors:    sentences name the server's address, never user or password.
 */
#ifndef BASE_REDIS_H
#define BASE_REDIS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/loop.h"
#include "base/redis_url.h"
#include "base/span.h"

struct redis;
struct redis_call;
struct redis_subscription;
struct redis_reply;

enum redis_state {
	REDIS_IDLE,	  /* nothing was asked yet */
	REDIS_CONNECTING, /* until AUTH and SELECT are answered */
	REDIS_READY,
	REDIS_DOWN /* the last attempt failed; the next comes after a pause */
};

/* `why` is "" when ready. */
typedef void (*redis_state_fn)(void *arg, enum redis_state state, const char *why);

struct redis_options {
	const struct redis_url *url; /* copied */
	unsigned connect_timeout_ms; /* Sentinels, names, TCP, TLS, AUTH and SELECT together; 0: 3 s */
	unsigned command_timeout_ms; /* 0: 10 s */
	unsigned backoff_min_ms;     /* 0: 50 ms */
	unsigned backoff_max_ms;     /* 0: 5 s */
	size_t max_pending;	     /* 0: 100,000 */
	redis_state_fn on_state;     /* optional; it must not free the client */
	void *arg;
};

/* -EINVAL: files of TLS that cannot be used, Sentinels without the master's name. */
int redis_new(struct loop *loop, const struct redis_options *options, struct redis **ret, struct err *e);
struct redis *redis_free(struct redis *r); /* NULL is allowed; returns NULL */
enum redis_state redis_state(const struct redis *r);
/* Known to be away: the last attempt failed and none has succeeded since, so that a command would get
 * REDIS_NOT_SENT at once. */
bool redis_away(const struct redis *r, struct err *why);
const char *redis_where(const struct redis *r); /* address for people */

/* --- commands ------------------------------------------------------------------------------------------- */
enum redis_outcome {
	REDIS_ANSWERED, /* `reply`, which may be an error of the server's: not executed */
	REDIS_NOT_SENT, /* provably not executed */
	REDIS_NO_REPLY	/* written, and no answer came: may have been executed */
};

/* `reply` is good until it returns, and NULL unless answered; `why` is a sentence unless answered. */
typedef void (*redis_reply_fn)(void *arg, enum redis_outcome outcome, const struct redis_reply *reply,
			       const struct err *why);

/* Calls fn once, later (only if out of memory from within the call, and then NULL is returned). `fn` may be
 * NULL. timeout_ms 0: the client's. */
struct redis_call *redis_command(struct redis *r, const struct span *words, size_t n, unsigned timeout_ms,
				 redis_reply_fn fn, void *arg);
/* fn will not be called; the command may be executed nevertheless. */
void redis_call_cancel(struct redis_call *c);

enum redis_type { REDIS_NIL, REDIS_TEXT, REDIS_STATUS, REDIS_ERROR, REDIS_INTEGER, REDIS_ARRAY };
enum redis_type redis_reply_type(const struct redis_reply *reply); /* NULL → REDIS_NIL */
/* of TEXT, STATUS and ERROR, else SPAN_NONE */
struct span redis_reply_text(const struct redis_reply *reply);
int64_t redis_reply_integer(const struct redis_reply *reply); /* of INTEGER, else 0 */
/* NULL if there is none */
const struct redis_reply *redis_reply_at(const struct redis_reply *reply, size_t index);

/* --- subscriptions -------------------------------------------------------------------------------------- */
struct redis_listener {
	/* From now on everything published is heard; called again after each reconnection, when something
	 * may have been missed. */
	void (*ready)(void *arg);
	void (*message)(void *arg, struct span payload); /* borrowed until it returns */
};

/* Any number of subscriptions per channel share one on the wire. NULL: no memory. */
struct redis_subscription *redis_subscribe(struct redis *r, struct span channel,
					   const struct redis_listener *listener, void *arg);
/* at any time; NULL is allowed; returns NULL */
struct redis_subscription *redis_unsubscribe(struct redis_subscription *s);

#endif
