/*
 * Of hiredis only what is asynchronous is used; its own reconnection and time limits do not exist in 0.14.
 *
 * A context of hiredis may outlive our interest in it (it frees itself later when a callback of it is
 * running), so that what it points to are a `link` and `ticket`s, which belong to it and forget their owner
 * when that goes first.
 *
 * Lifetime of a call:
 *   WAITING   no connection yet                    → SENT, or LOST (time limit, attempt failed): not sent
 *   SENT      in hiredis' buffer or the kernel's   → answered, or LOST
 *   LOST      its end is known                     → reported at the end of the loop's round
 */
#include "base/redis.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>

#include <hiredis/async.h>
#include <hiredis/hiredis.h>

#include "base/cleanup.h"
#include "base/backoff.h"
#include "base/redis_channels.h"
#include "base/redis_sentinel.h"
#ifdef REDIS_HAS_TLS
#include "base/redis_tls.h"
#endif

#define TICK_MS 100
#define KEEPALIVE_MS 15000
#define SHORT_LIFE_MS 1000 /* a connection that lived shorter counts as a failed attempt */
#define MAX_ADDRESSES 8
#define MAX_WORDS 32
#define MAX_PARKED 64
#define HOST_PORT_MAX 256

enum redis_call_state { CALL_WAITING, CALL_SENT, CALL_LOST };

struct ticket { /* hiredis' */
	struct redis_call *call;
};

struct redis_link { /* hiredis' */
	redisAsyncContext *ac;
	struct ssl_st *tls; /* NULL: plain */
	struct redis *owner;
	struct loop *loop;
	struct loop_watch *watch;
	struct loop_work flush;
	unsigned wanted;
	bool flush_due, flushing;
	uint64_t appended; /* bytes of all commands so far */
	bool busy;
};

struct resolver {
	struct loop_job job;
	struct redis *owner;
	char *host;
	char addresses[MAX_ADDRESSES][INET6_ADDRSTRLEN];
	size_t n;
	int error; /* EAI_* */
};

struct redis_call {
	struct redis *owner;
	TAILQ_ENTRY(redis_call) place;
	enum redis_call_state state;
	enum redis_outcome outcome;
	redis_reply_fn fn;
	void *arg;
	char *wire; /* while waiting */
	size_t length;
	uint64_t end; /* where it ends in the link's bytes */
	uint64_t started_ms, deadline_ms;
	struct ticket *ticket;
	struct loop_work work; /* tells a lost one */
	struct err why;
};

TAILQ_HEAD(call_list, redis_call);

struct redis {
	struct loop *loop;
	struct redis_options o;
	struct redis_url url;
	struct redis_sentinel *sentinel; /* NULL: the URL's address is the server's */
	char *host;			 /* of the server, or of the master that the Sentinels named last */
	unsigned port;
	char where[REDIS_WHERE_MAX];
	enum redis_state state;
	struct err why; /* of the last failure */
	struct redis_link *link;
	bool asking; /* the Sentinels, who is the master */
	struct resolver *resolver;
	char addresses[MAX_ADDRESSES][INET6_ADDRSTRLEN];
	size_t n_addresses, next_address;
	unsigned failures;
	uint64_t ready_ms, read_ms; /* when it became ready, when it last answered */
	uint64_t drain_until_ms;    /* a condemned connection waits so long for answers */
	struct call_list lists[3];  /* by state */
	size_t n_calls;
	struct loop_timer *tick, *attempt, *retry, *keepalive;
	struct redis_channels channels;
	struct redis_channel *parked; /* left on the wire without listeners, newest first */
	size_t n_parked;
};

static void connect_next(struct redis *r);
static void connect_anew(struct redis *r);

/* --- calls ---------------------------------------------------------------------------------------------- */

static void list_remove(struct redis_call *c)
{
	TAILQ_REMOVE(&c->owner->lists[c->state], c, place);
}

static void list_append(struct redis_call *c, enum redis_call_state state)
{
	c->state = state;
	TAILQ_INSERT_TAIL(&c->owner->lists[state], c, place);
}

static void redis_call_free(struct redis_call *c)
{
	list_remove(c);
	c->owner->n_calls--;
	if (c->state == CALL_LOST)
		loop_defer_cancel(c->owner->loop, &c->work);
	if (c->ticket)
		c->ticket->call = NULL;
	free(c->wire);
	free(c);
}

/* Its end is known; it is reported when no callback is running. */
static void call_lost(struct redis_call *c, enum redis_outcome outcome, const char *why)
{
	c->outcome = outcome;
	if (outcome == REDIS_NO_REPLY)
		err_set(&c->why, 0, "Redis at %s: %s; the command was written and may have been executed",
			c->owner->where, why);
	else
		err_set(&c->why, 0, "Redis at %s: %s", c->owner->where, why);
	if (c->ticket)
		c->ticket->call = NULL;
	c->ticket = NULL;
	list_remove(c);
	list_append(c, CALL_LOST);
	loop_defer(c->owner->loop, &c->work);
}

static void tell_lost(struct loop_work *work)
{
	struct redis_call *c = (struct redis_call *)((char *)work - offsetof(struct redis_call, work));
	redis_reply_fn fn = c->fn;
	void *arg = c->arg;
	enum redis_outcome outcome = c->outcome;
	struct err why = c->why;
	redis_call_free(c);
	if (fn)
		fn(arg, outcome, NULL, &why);
}

/* What was not handed to the kernel to its last byte cannot have been executed. Asked only while hiredis'
 * context lives. */
static bool was_written(const struct redis_link *l, const struct redis_call *c)
{
	return c->end <= l->appended - sdslen(l->ac->c.obuf);
}

/* Errors that are about this server, not about the command: it became a replica, is loading, lost its
 * primary, or wants to know again who we are. The same address may name another server by now, but a
 * kept-alive connection would never find out.
 * Source: redis.io/docs, "Redis error codes"; src/server.c, shared.*err. */
static bool condemns(struct span error)
{
	static const char *const codes[] = {"READONLY",	  "LOADING",	 "MASTERDOWN", "NOAUTH",
					    "NOREPLICAS", "CLUSTERDOWN", "UNBLOCKED"};
	for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
		size_t n = strlen(codes[i]);
		if (error.len >= n && memcmp(error.ptr, codes[i], n) == 0 &&
		    (error.len == n || error.ptr[n] == ' '))
			return true;
	}
	return false;
}

static void condemn(struct redis *r, struct span error);

/* hiredis 0.14 tells pending calls of a lost connection before on_gone, 1.x after it: `ac->data` is read only
 * for a call that still has its ticket, which on_gone takes away. */
static void on_reply(redisAsyncContext *ac, void *reply, void *privdata)
{
	struct ticket *t = privdata;
	struct redis_call *c = t->call;
	free(t);
	if (!c)
		return;
	c->ticket = NULL;
	if (!reply) {
		call_lost(c, was_written(ac->data, c) ? REDIS_NO_REPLY : REDIS_NOT_SENT,
			  ac->err ? ac->errstr : "the connection was closed");
		return;
	}
	redis_reply_fn fn = c->fn;
	void *arg = c->arg;
	struct redis *r = c->owner;
	r->read_ms = loop_now_ms(r->loop);
	redis_call_free(c);
	if (redis_reply_type(reply) == REDIS_ERROR && condemns(redis_reply_text(reply)))
		condemn(r, redis_reply_text(reply)); /* before fn, which may free r */
	if (fn)
		fn(arg, REDIS_ANSWERED, reply, NULL);
}

static void call_send(struct redis_call *c)
{
	struct redis_link *l = c->owner->link;
	struct ticket *t = calloc(1, sizeof(*t));
	if (!t) {
		call_lost(c, REDIS_NOT_SENT, "out of memory");
		return;
	}
	t->call = c;
	if (redisAsyncFormattedCommand(l->ac, on_reply, t, c->wire, c->length) != REDIS_OK) {
		free(t);
		call_lost(c, REDIS_NOT_SENT, "the connection is closing");
		return;
	}
	c->ticket = t;
	l->appended += c->length;
	c->end = l->appended;
	free(steal(c->wire));
	list_remove(c);
	list_append(c, CALL_SENT);
}

static struct redis_call *call_new(struct redis *r, const struct span *words, size_t n, unsigned timeout_ms,
				   redis_reply_fn fn, void *arg)
{
	const char *pointers[MAX_WORDS];
	size_t lengths[MAX_WORDS];
	struct redis_call *c = n <= MAX_WORDS ? calloc(1, sizeof(*c)) : NULL;
	if (!c)
		return NULL;
	for (size_t i = 0; i < n; i++) {
		pointers[i] = words[i].ptr ? words[i].ptr : "";
		lengths[i] = words[i].len;
	}
	int length = redisFormatCommandArgv(&c->wire, (int)n, pointers, lengths);
	if (length < 0) {
		free(c);
		return NULL;
	}
	c->owner = r;
	c->work.fn = tell_lost;
	c->length = (size_t)length;
	c->fn = fn;
	c->arg = arg;
	c->started_ms = loop_now_ms(r->loop);
	c->deadline_ms = c->started_ms + (timeout_ms ? timeout_ms : r->o.command_timeout_ms);
	list_append(c, CALL_WAITING);
	r->n_calls++;
	return c;
}

/* --- state ---------------------------------------------------------------------------------------------- */

static void set_state(struct redis *r, enum redis_state state)
{
	if (r->state == state)
		return;
	r->state = state;
	if (r->o.on_state)
		r->o.on_state(r->o.arg, state, state == REDIS_READY ? "" : r->why.text);
}

/* Everything waiting cannot have been executed; of what was sent each call knows. */
static void lose_calls(struct redis *r, enum redis_call_state state, const char *why)
{
	while (!TAILQ_EMPTY(&r->lists[state])) {
		struct redis_call *c = TAILQ_FIRST(&r->lists[state]);
		bool written = state == CALL_SENT && was_written(r->link, c);
		call_lost(c, written ? REDIS_NO_REPLY : REDIS_NOT_SENT, why);
	}
}

static void forget_wire(struct redis *r)
{
	r->parked = NULL;
	r->n_parked = 0;
	for (struct redis_channel *c = redis_channels_next(&r->channels, NULL), *next; c; c = next) {
		next = redis_channels_next(&r->channels, c);
		c->unconfirmed = 0;
		c->on_wire = c->confirmed = c->parked = false;
		if (LIST_EMPTY(&c->listeners) && !c->telling)
			redis_channels_remove(&r->channels, c);
	}
}

/* The attempt has failed, or the connection was lost. */
static void redis_lost(struct redis *r, const char *why)
{
	bool lived = r->state == REDIS_READY && loop_now_ms(r->loop) - r->ready_ms >= SHORT_LIFE_MS;
	err_set(&r->why, 0, "Redis at %s: %s", r->where, why);
	forget_wire(r);
	loop_timer_stop(r->attempt);
	loop_timer_stop(r->keepalive);
	r->asking = false;
	if (r->sentinel)
		redis_sentinel_watch(r->sentinel, false);
	if (lived) {
		r->failures = 0;
		set_state(r, REDIS_CONNECTING);
		connect_anew(r);
		return;
	}
	if (r->state == REDIS_CONNECTING && r->next_address < r->n_addresses) {
		connect_next(r); /* another address of the same name */
		return;
	}
	r->failures++;
	lose_calls(r, CALL_WAITING, why);
	set_state(r, REDIS_DOWN);
	loop_timer_start(r->retry, backoff_ms(r->o.backoff_min_ms, r->o.backoff_max_ms, r->failures));
}

static void link_close(struct redis *r, const char *why)
{
	struct redis_link *l = r->link;
	if (!l)
		return;
	lose_calls(r, CALL_SENT, why);
	r->link = NULL;
	l->owner = NULL;
	redisAsyncFree(l->ac);
}

/* Nothing more is sent on this connection. Calls in flight may still be answered until it is closed
 * (on_retry). */
static void condemn(struct redis *r, struct span error)
{
	if (r->state != REDIS_READY)
		return; /* a greeting ends the attempt by itself */
	uint64_t now = loop_now_ms(r->loop);
	err_set(&r->why, 0, "Redis at %s: %.*s", r->where, SPAN_ARG(error));
	r->failures = now - r->ready_ms >= SHORT_LIFE_MS ? 1 : r->failures + 1;
	r->drain_until_ms = now + r->o.connect_timeout_ms;
	loop_timer_stop(r->keepalive);
	loop_timer_start(r->retry, backoff_ms(r->o.backoff_min_ms, r->o.backoff_max_ms, r->failures));
	set_state(r, REDIS_DOWN);
}

/* Ends the connection from our side. */
static void redis_drop(struct redis *r, const char *why)
{
	link_close(r, why);
	if (r->resolver)
		steal(r->resolver)->owner = NULL;
	redis_lost(r, why);
}

/* --- hiredis' events ------------------------------------------------------------------------------------ */

static void link_turn(const struct redis_link *l)
{
#ifdef REDIS_HAS_TLS
	if (l->tls)
		redis_tls_turn();
#endif
	(void)l;
}

static void link_read(const struct redis_link *l)
{
	link_turn(l);
	redisAsyncHandleRead(l->ac);
}

static void link_write(const struct redis_link *l)
{
	link_turn(l);
	redisAsyncHandleWrite(l->ac);
}

static void on_io(void *arg, unsigned events)
{
	struct redis_link *l = arg;
	l->busy = true;
	if (l->ac && events & (LOOP_READ | LOOP_ERROR))
		link_read(l);
	if (l->ac && events & LOOP_WRITE)
		link_write(l);
	if (l->ac && events & LOOP_ERROR) {
		/* More may be left to read before the end: hiredis takes 16 KiB at a time. */
		loop_watch_set(l->watch, 0);
		loop_watch_set(l->watch, l->wanted);
	}
	l->busy = false;
	if (!l->ac)
		free(l);
}

static void want(struct redis_link *l, unsigned events)
{
	l->wanted = events;
	if (l->watch)
		loop_watch_set(l->watch, events);
}

static void add_read(void *arg)
{
	struct redis_link *l = arg;
	want(l, l->wanted | LOOP_READ);
}

static void del_read(void *arg)
{
	struct redis_link *l = arg;
	want(l, l->wanted & ~LOOP_READ);
}

/* The server has closed it, which the loop has not reported yet. Below TLS the end is announced by what
 * is read before it. */
static bool has_ended(struct redis_link *l)
{
	char byte;
	ssize_t n = recv(l->ac->c.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
	if (n > 0 && l->tls) {
		link_read(l);
		n = l->ac ? recv(l->ac->c.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) : 1;
	}
	return n == 0 || (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR);
}

/* Writes what this round has brought in one go, and waits for the descriptor only when the kernel takes no
 * more: two system calls less for each command. What a server that has gone could not read is not written:
 * written it could not be distinguished any more from what was executed, and a request that legacy could
 * serve would be lost with it. */
static void redis_flush(struct loop_work *work)
{
	struct redis_link *l = (struct redis_link *)((char *)work - offsetof(struct redis_link, flush));
	l->flush_due = false;
	l->busy = l->flushing = true;
	bool ended = has_ended(l);
	if (l->ac && ended)
		link_read(l);
	else if (l->ac)
		link_write(l);
	l->busy = l->flushing = false;
	if (!l->ac)
		free(l);
}

static void add_write(void *arg)
{
	struct redis_link *l = arg;
	if (l->flushing || !(l->ac->c.flags & REDIS_CONNECTED)) {
		want(l, l->wanted | LOOP_WRITE);
	} else if (!l->flush_due && !(l->wanted & LOOP_WRITE)) {
		l->flush_due = true;
		loop_defer(l->loop, &l->flush);
	}
}

static void del_write(void *arg)
{
	struct redis_link *l = arg;
	want(l, l->wanted & ~LOOP_WRITE);
}

/* hiredis' last word on a connection, before it closes the descriptor. */
static void redis_on_gone(void *arg)
{
	struct redis_link *l = arg;
	struct redis *r = l->owner;
	char why[128];
	snprintf(why, sizeof(why), "%s", l->ac->c.err ? l->ac->c.errstr : "the connection was closed");
#ifdef REDIS_HAS_TLS
	if (l->tls)
		redis_tls_reason(l->tls, why, sizeof(why));
#endif
	if (r)
		lose_calls(r, CALL_SENT, why); /* while the context still knows what it has written */
	l->watch = loop_watch_free(l->watch);
	loop_defer_cancel(l->loop, &l->flush);
	l->ac = NULL;
	l->owner = NULL;
	if (!l->busy)
		free(l);
	if (r) {
		r->link = NULL;
		redis_lost(r, why);
	}
}

static int link_new(struct redis *r, redisAsyncContext *ac)
{
	struct redis_link *l = calloc(1, sizeof(*l));
	if (!l || loop_watch_new(r->loop, ac->c.fd, 0, on_io, l, &l->watch) < 0) {
		free(l);
		return -ENOMEM;
	}
	fcntl(ac->c.fd, F_SETFD, FD_CLOEXEC);
	l->ac = ac;
	l->owner = r;
	l->loop = r->loop;
	l->flush.fn = redis_flush;
	r->link = l;
	ac->data = l;
	ac->ev.data = l;
	ac->ev.addRead = add_read;
	ac->ev.delRead = del_read;
	ac->ev.addWrite = add_write;
	ac->ev.delWrite = del_write;
	ac->ev.cleanup = redis_on_gone;
	return 0;
}

/* --- connecting ----------------------------------------------------------------------------------------- */

static void subscribe_all(struct redis *r);

static void become_ready(struct redis *r)
{
	r->ready_ms = r->read_ms = loop_now_ms(r->loop);
	r->n_addresses = r->next_address = 0;
	loop_timer_stop(r->attempt);
	err_set(&r->why, 0, "%s", "");
	while (!TAILQ_EMPTY(&r->lists[CALL_WAITING]))
		call_send(TAILQ_FIRST(&r->lists[CALL_WAITING]));
	set_state(r, REDIS_READY);
	subscribe_all(r);
	if (r->sentinel)
		redis_sentinel_watch(r->sentinel, true);
	if (r->channels.n)
		loop_timer_start(r->keepalive, KEEPALIVE_MS);
}

static bool refused(struct redis *r, enum redis_outcome outcome, const struct redis_reply *reply)
{
	if (outcome != REDIS_ANSWERED)
		return true; /* redis_lost() does the rest */
	if (redis_reply_type(reply) != REDIS_ERROR)
		return false;
	char why[256];
	span_copy(redis_reply_text(reply), why, sizeof(why));
	redis_drop(r, why);
	return true;
}

static void on_greeting(void *arg, enum redis_outcome outcome, const struct redis_reply *reply,
			const struct err *why)
{
	(void)why;
	refused(arg, outcome, reply);
}

static void on_greeted(void *arg, enum redis_outcome outcome, const struct redis_reply *reply,
		       const struct err *why)
{
	struct redis *r = arg;
	(void)why;
	if (!refused(r, outcome, reply))
		become_ready(r);
}

/* Whom the Sentinels name may have been demoted since, or before they knew. */
static void on_role(void *arg, enum redis_outcome outcome, const struct redis_reply *reply,
		    const struct err *why)
{
	struct redis *r = arg;
	char text[HOST_PORT_MAX + 64];
	(void)why;
	if (refused(r, outcome, reply) || span_is(redis_reply_text(redis_reply_at(reply, 0)), "master"))
		return;
	snprintf(text, sizeof(text), "%.*s:%u, which the Sentinels name, is not a master", HOST_PORT_MAX,
		 r->host, r->port);
	redis_drop(r, text);
}

static bool greet_with(struct redis *r, const struct span *words, size_t n, redis_reply_fn fn)
{
	struct redis_call *c = call_new(r, words, n, r->o.connect_timeout_ms * 2, fn, r);
	if (c)
		call_send(c);
	return c != NULL;
}

/* AUTH, SELECT, ROLE and PING in one go; nothing else is sent before all are answered, or it could land in
 * another database, or at a replica. */
static bool greet(struct redis *r)
{
	char db[16];
	snprintf(db, sizeof(db), "%u", r->url.db);
	struct span user = span_of(r->url.user),
		    password = r->url.password ? span_of(r->url.password) : SPAN_LIT("");
	const struct span with_user[] = {SPAN_LIT("AUTH"), user, password},
			  without[] = {SPAN_LIT("AUTH"), password};
	const struct span select[] = {SPAN_LIT("SELECT"), span_of(db)}, role[] = {SPAN_LIT("ROLE")},
			  ping[] = {SPAN_LIT("PING")};
	if (user.ptr && !greet_with(r, with_user, 3, on_greeting))
		return false;
	if (!user.ptr && r->url.password && !greet_with(r, without, 2, on_greeting))
		return false;
	if (r->url.db && !greet_with(r, select, 2, on_greeting))
		return false;
	if (r->sentinel && !greet_with(r, role, 1, on_role))
		return false;
	return greet_with(r, ping, 1, on_greeted);
}

/* False: the attempt has failed. */
static bool start_tls(struct redis *r, redisAsyncContext *ac)
{
	struct err e;
#ifdef REDIS_HAS_TLS
	redis_tls_turn();
	if (redis_tls_begin(&ac->c, &r->url, r->host, &r->link->tls, &e) == 0)
		return true;
#else
	(void)ac;
	err_set(&e, -ENOTSUP, "this build has no TLS"); /* no URL asks for it */
#endif
	redis_drop(r, e.text);
	return false;
}

static void start_link(struct redis *r, redisAsyncContext *ac)
{
	char why[128];
	if (!ac || ac->err || link_new(r, ac) < 0) {
		snprintf(why, sizeof(why), "%s", ac && ac->err ? ac->errstr : "out of memory");
		if (ac)
			redisAsyncFree(ac);
		redis_lost(r, why);
		return;
	}
	if (r->host)
		redisEnableKeepAlive(&ac->c);
	if (r->url.tls && !start_tls(r, ac))
		return;
	if (!greet(r))
		redis_drop(r, "out of memory");
}

static void resolve_work(struct loop_job *job)
{
	struct resolver *v = (struct resolver *)job;
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list = NULL;
	v->error = getaddrinfo(v->host, NULL, &hints, &list);
	for (struct addrinfo *a = v->error ? NULL : list; a && v->n < MAX_ADDRESSES; a = a->ai_next)
		if (getnameinfo(a->ai_addr, a->ai_addrlen, v->addresses[v->n], INET6_ADDRSTRLEN, NULL, 0,
				NI_NUMERICHOST) == 0)
			v->n++;
	if (list)
		freeaddrinfo(list);
}

static void resolve_done(struct loop_job *job)
{
	struct resolver *v = (struct resolver *)job;
	struct redis *r = v->owner;
	if (r) {
		r->resolver = NULL;
		memcpy(r->addresses, v->addresses, sizeof(r->addresses));
		r->n_addresses = v->n;
		r->next_address = 0;
		if (v->n)
			connect_next(r);
		else
			redis_lost(r, v->error ? gai_strerror(v->error) : "the name has no address");
	}
	free(v->host);
	free(v);
}

static void resolve(struct redis *r)
{
	struct resolver *v = calloc(1, sizeof(*v));
	char *host = strdup(r->host);
	if (!v || !host) {
		free(v);
		free(host);
		redis_lost(r, "out of memory");
		return;
	}
	v->job = (struct loop_job){.work = resolve_work, .done = resolve_done};
	v->owner = r;
	v->host = host;
	r->resolver = v;
	loop_job_start(r->loop, &v->job);
}

static bool is_numeric(const char *host)
{
	unsigned char address[16];
	return inet_pton(AF_INET, host, address) == 1 || inet_pton(AF_INET6, host, address) == 1;
}

static void ask_sentinels(struct redis *r)
{
	r->asking = true;
	redis_sentinel_ask(r->sentinel);
}

/* The end of a round, which was for a new connection, or about the one that is in use. */
static void on_master(void *arg, const char *host, unsigned port, const struct err *why)
{
	struct redis *r = arg;
	if (r->asking) {
		r->asking = false;
		r->host = host ? strdup(host) : NULL;
		r->port = port;
		if (r->host)
			connect_next(r);
		else
			redis_lost(r, host ? "out of memory" : why->text);
	} else if (r->state == REDIS_READY && host && (port != r->port || strcmp(host, r->host) != 0)) {
		redis_drop(r, "the Sentinels have made another server the master");
	}
}

/* The next address; names are resolved on another thread, since hiredis would block in it. */
static void connect_next(struct redis *r)
{
	if (!loop_timer_active(r->attempt))
		loop_timer_start(r->attempt, r->o.connect_timeout_ms);
	if (r->url.path)
		start_link(r, redisAsyncConnectUnix(r->url.path));
	else if (!r->host)
		ask_sentinels(r);
	else if (is_numeric(r->host))
		start_link(r, redisAsyncConnect(r->host, (int)r->port));
	else if (r->next_address < r->n_addresses)
		start_link(r, redisAsyncConnect(r->addresses[r->next_address++], (int)r->port));
	else
		resolve(r);
}

/* The name may mean another address by now, and the master be another server. */
static void connect_anew(struct redis *r)
{
	r->n_addresses = r->next_address = 0;
	if (r->sentinel)
		free(steal(r->host));
	connect_next(r);
}

static void on_attempt_limit(void *arg)
{
	struct redis *r = arg;
	r->next_address = r->n_addresses;
	redis_drop(r, "no connection within the time limit");
}

static void redis_on_retry(void *arg)
{
	struct redis *r = arg;
	if (r->link && TAILQ_FIRST(&r->lists[CALL_SENT]) && loop_now_ms(r->loop) < r->drain_until_ms) {
		loop_timer_start(r->retry, TICK_MS);
		return;
	}
	if (r->link) {
		link_close(r, "the connection was abandoned");
		forget_wire(r);
	}
	set_state(r, REDIS_CONNECTING);
	connect_anew(r);
}

static void redis_wake(struct redis *r)
{
	if (r->state != REDIS_IDLE)
		return;
	set_state(r, REDIS_CONNECTING);
	connect_anew(r);
}

/* --- commands ------------------------------------------------------------------------------------------- */

/* An answer that comes too late is dropped by its ticket. When the server said nothing at all since, or when
 * the command has not even left, the connection is of no use any more. */
static bool expire_sent(struct redis *r, struct redis_call *c)
{
	if (!was_written(r->link, c) || r->read_ms <= c->started_ms) {
		redis_drop(r, "no answer within the time limit");
		return true;
	}
	call_lost(c, REDIS_NO_REPLY, "no answer within the time limit");
	return false;
}

static void redis_on_tick(void *arg)
{
	struct redis *r = arg;
	uint64_t now = loop_now_ms(r->loop);
	for (struct redis_call *c = TAILQ_FIRST(&r->lists[CALL_WAITING]), *next; c; c = next) {
		next = TAILQ_NEXT(c, place);
		if (now >= c->deadline_ms)
			call_lost(c, REDIS_NOT_SENT, "no connection within the time limit");
	}
	for (struct redis_call *c = TAILQ_FIRST(&r->lists[CALL_SENT]), *next; c; c = next) {
		next = TAILQ_NEXT(c, place);
		if (now >= c->deadline_ms && expire_sent(r, c))
			break;
	}
	if (TAILQ_FIRST(&r->lists[CALL_WAITING]) || TAILQ_FIRST(&r->lists[CALL_SENT]))
		loop_timer_start(r->tick, TICK_MS);
}

struct redis_call *redis_command(struct redis *r, const struct span *words, size_t n, unsigned timeout_ms,
				 redis_reply_fn fn, void *arg)
{
	struct redis_call *c =
		r->n_calls < r->o.max_pending ? call_new(r, words, n, timeout_ms, fn, arg) : NULL;
	struct err why;
	if (!c) {
		err_set(&why, 0, "Redis at %s: %s", r->where,
			r->n_calls < r->o.max_pending ? "out of memory" : "too many commands in flight");
		if (fn)
			fn(arg, REDIS_NOT_SENT, NULL, &why);
		return NULL;
	}
	if (!loop_timer_active(r->tick))
		loop_timer_start(r->tick, TICK_MS);
	if (r->state == REDIS_READY)
		call_send(c);
	else if (r->state == REDIS_IDLE)
		redis_wake(r);
	else if (redis_away(r, &why)) {
		/* The caller has a better place to go to. The sentence has the address already. */
		call_lost(c, REDIS_NOT_SENT, "");
		c->why = why;
	}
	return c;
}

void redis_call_cancel(struct redis_call *c)
{
	if (c)
		c->fn = NULL;
}

/* --- replies -------------------------------------------------------------------------------------------- */

static const redisReply *of(const struct redis_reply *reply)
{
	return (const redisReply *)(const void *)reply;
}

enum redis_type redis_reply_type(const struct redis_reply *reply)
{
	switch (reply ? of(reply)->type : REDIS_REPLY_NIL) {
	case REDIS_REPLY_STRING:
		return REDIS_TEXT;
	case REDIS_REPLY_ARRAY:
		return REDIS_ARRAY;
	case REDIS_REPLY_INTEGER:
		return REDIS_INTEGER;
	case REDIS_REPLY_STATUS:
		return REDIS_STATUS;
	case REDIS_REPLY_ERROR:
		return REDIS_ERROR;
	default:
		return REDIS_NIL;
	}
}

struct span redis_reply_text(const struct redis_reply *reply)
{
	enum redis_type type = redis_reply_type(reply);
	if (type != REDIS_TEXT && type != REDIS_STATUS && type != REDIS_ERROR)
		return SPAN_NONE;
	return (struct span){of(reply)->str, (size_t)of(reply)->len};
}

int64_t redis_reply_integer(const struct redis_reply *reply)
{
	return redis_reply_type(reply) == REDIS_INTEGER ? of(reply)->integer : 0;
}

const struct redis_reply *redis_reply_at(const struct redis_reply *reply, size_t index)
{
	if (redis_reply_type(reply) != REDIS_ARRAY || index >= of(reply)->elements)
		return NULL;
	return (const struct redis_reply *)(const void *)of(reply)->element[index];
}

/* --- subscriptions -------------------------------------------------------------------------------------- */

static void channel_settle(struct redis *r, struct redis_channel *c)
{
	if (LIST_EMPTY(&c->listeners) && !c->on_wire && !c->unconfirmed && !c->telling)
		redis_channels_remove(&r->channels, c);
}

static void on_confirmed(struct redis *r, struct redis_channel *c)
{
	if (!c || c->unconfirmed == 0)
		return;
	/* Only the last of several in progress: between them there may have been an UNSUBSCRIBE. */
	if (--c->unconfirmed == 0 && c->on_wire && !c->confirmed) {
		c->confirmed = true;
		if (!redis_channel_tell(c, NULL))
			return; /* r is gone */
	}
	channel_settle(r, c);
}

static void on_published(redisAsyncContext *ac, void *reply, void *privdata)
{
	(void)privdata;
	if (!reply)
		return; /* the connection is lost, and with hiredis 1.x its link is gone already */
	const struct redis_link *l = ac->data;
	struct redis *r = l->owner;
	if (!r)
		return;
	r->read_ms = loop_now_ms(r->loop);
	struct span kind = redis_reply_text(redis_reply_at(reply, 0)),
		    name = redis_reply_text(redis_reply_at(reply, 1));
	struct redis_channel *c = redis_channels_find(&r->channels, name);
	if (span_is(kind, "subscribe")) {
		on_confirmed(r, c);
	} else if (c && span_is(kind, "message")) {
		struct span payload = redis_reply_text(redis_reply_at(reply, 2));
		if (redis_channel_tell(c, &payload))
			channel_settle(r, c);
	}
}

static void channel_command(struct redis *r, const char *verb, const struct redis_channel *c)
{
	const struct span words[] = {span_of(verb), {c->name, c->length}};
	const char *pointers[] = {words[0].ptr, words[1].ptr};
	const size_t lengths[] = {words[0].len, words[1].len};
	/* It fails only where hiredis itself gives up for lack of memory. */
	redisAsyncCommandArgv(r->link->ac, on_published, NULL, 2, pointers, lengths);
}

static void channel_unsubscribe(struct redis *r, struct redis_channel *c)
{
	channel_command(r, "UNSUBSCRIBE", c);
	c->on_wire = c->confirmed = false;
	channel_settle(r, c);
}

/* UNSUBSCRIBE travels with the next SUBSCRIBE, in one write, or when many have come together. The newest
 * channel stays on the wire: hiredis reads messages only while something is subscribed. */
static void unpark(struct redis *r)
{
	struct redis_channel *c = r->parked, *next = c ? c->next_parked : NULL;
	if (!c)
		return;
	r->n_parked = 1;
	c->next_parked = NULL;
	while ((c = next)) {
		next = c->next_parked;
		c->parked = false;
		if (LIST_EMPTY(&c->listeners))
			channel_unsubscribe(r, c);
	}
}

static void park(struct redis *r, struct redis_channel *c)
{
	if (c->parked)
		return;
	c->parked = true;
	c->next_parked = r->parked;
	r->parked = c;
	if (++r->n_parked > MAX_PARKED)
		unpark(r);
}

static void channel_subscribe(struct redis *r, struct redis_channel *c)
{
	channel_command(r, "SUBSCRIBE", c);
	c->unconfirmed++;
	c->on_wire = true;
	unpark(r);
}

static void subscribe_all(struct redis *r)
{
	for (struct redis_channel *c = redis_channels_next(&r->channels, NULL); c;
	     c = redis_channels_next(&r->channels, c))
		if (!LIST_EMPTY(&c->listeners))
			channel_subscribe(r, c);
}

/* A subscription that is there already is confirmed again: as good as a PING, and allowed between
 * subscriptions. */
static void on_keepalive(void *arg)
{
	struct redis *r = arg;
	unpark(r);
	struct redis_channel *c = redis_channels_next(&r->channels, NULL);
	while (c && !c->on_wire)
		c = redis_channels_next(&r->channels, c);
	if (!c)
		return;
	if (loop_now_ms(r->loop) - r->read_ms >= 2 * KEEPALIVE_MS) {
		redis_drop(r, "no answer within the time limit");
		return;
	}
	channel_command(r, "SUBSCRIBE", c);
	c->unconfirmed++;
	loop_timer_start(r->keepalive, KEEPALIVE_MS);
}

static void tell_joined(struct loop_work *work)
{
	struct redis_subscription *s =
		(struct redis_subscription *)((char *)work - offsetof(struct redis_subscription, work));
	if (s->channel->confirmed)
		s->listener->ready(s->arg);
}

struct redis_subscription *redis_subscribe(struct redis *r, struct span channel,
					   const struct redis_listener *listener, void *arg)
{
	struct redis_subscription *s = calloc(1, sizeof(*s));
	struct redis_channel *c = s ? redis_channels_add(&r->channels, channel) : NULL;
	if (!c) {
		free(s);
		return NULL;
	}
	*s = (struct redis_subscription){
		.owner = r, .listener = listener, .arg = arg, .work.fn = tell_joined};
	redis_channel_join(c, s);
	if (c->confirmed)
		loop_defer(r->loop, &s->work);
	else if (r->state == REDIS_READY && !c->on_wire)
		channel_subscribe(r, c);
	if (r->state == REDIS_READY && !loop_timer_active(r->keepalive))
		loop_timer_start(r->keepalive, KEEPALIVE_MS);
	redis_wake(r);
	return s;
}

struct redis_subscription *redis_unsubscribe(struct redis_subscription *s)
{
	if (!s)
		return NULL;
	struct redis *r = s->owner;
	struct redis_channel *c = s->channel;
	loop_defer_cancel(r->loop, &s->work);
	redis_channel_leave(s);
	free(s);
	if (!LIST_EMPTY(&c->listeners))
		return NULL;
	if (c->on_wire)
		park(r, c);
	else
		channel_settle(r, c);
	return NULL;
}

/* --- life ----------------------------------------------------------------------------------------------- */

static void redis_set_defaults(struct redis_options *o)
{
	const struct redis_options defaults = {.connect_timeout_ms = 3000,
					       .command_timeout_ms = 10000,
					       .backoff_min_ms = 50,
					       .backoff_max_ms = 5000,
					       .max_pending = 100000};
	if (!o->connect_timeout_ms)
		o->connect_timeout_ms = defaults.connect_timeout_ms;
	if (!o->command_timeout_ms)
		o->command_timeout_ms = defaults.command_timeout_ms;
	if (!o->backoff_min_ms)
		o->backoff_min_ms = defaults.backoff_min_ms;
	if (!o->backoff_max_ms)
		o->backoff_max_ms = defaults.backoff_max_ms;
	if (!o->max_pending)
		o->max_pending = defaults.max_pending;
}

/* What the way to the server needs besides its address. */
static int redis_route(struct redis *r, struct err *e)
{
#ifdef REDIS_HAS_TLS
	int error = r->url.tls || r->url.sentinels.tls ? redis_tls_check(&r->url, e) : 0;
	if (error < 0)
		return error;
#endif
	r->port = r->url.port;
	if (r->url.sentinels.n)
		return redis_sentinel_new(r->loop, &r->url, r->o.connect_timeout_ms, on_master, r,
					  &r->sentinel, e);
	r->host = r->url.host ? strdup(r->url.host) : NULL;
	return r->url.host && !r->host ? err_set(e, -ENOMEM, "out of memory") : 0;
}

int redis_new(struct loop *loop, const struct redis_options *options, struct redis **ret, struct err *e)
{
	struct redis *r = calloc(1, sizeof(*r));
	const struct redis_url *u = options->url;
	if (!r)
		return err_set(e, -ENOMEM, "out of memory");
	r->loop = loop;
	r->o = *options;
	for (enum redis_call_state state = CALL_WAITING; state <= CALL_LOST; state++)
		TAILQ_INIT(&r->lists[state]);
	redis_set_defaults(&r->o);
	redis_url_where(u, r->where);
	int error = redis_url_copy(u, &r->url) < 0 || loop_timer_new(loop, redis_on_tick, r, &r->tick) < 0 ||
				    loop_timer_new(loop, on_attempt_limit, r, &r->attempt) < 0 ||
				    loop_timer_new(loop, redis_on_retry, r, &r->retry) < 0 ||
				    loop_timer_new(loop, on_keepalive, r, &r->keepalive) < 0
			    ? err_set(e, -ENOMEM, "out of memory")
			    : redis_route(r, e);
	if (error < 0)
		redis_free(r);
	else
		*ret = r;
	return error;
}

struct redis *redis_free(struct redis *r)
{
	if (!r)
		return NULL;
	for (enum redis_call_state s = CALL_WAITING; s <= CALL_LOST; s++)
		while (!TAILQ_EMPTY(&r->lists[s]))
			redis_call_free(TAILQ_FIRST(&r->lists[s]));
	if (r->link) {
		struct redis_link *l = r->link;
		l->owner = NULL;
		redisAsyncFree(l->ac);
	}
	if (r->resolver)
		r->resolver->owner = NULL;
	loop_timer_free(r->tick);
	loop_timer_free(r->attempt);
	loop_timer_free(r->retry);
	loop_timer_free(r->keepalive);
	redis_channels_release(&r->channels);
	redis_sentinel_free(r->sentinel);
	free(r->host);
	redis_url_release(&r->url);
	free(r);
	return NULL;
}

enum redis_state redis_state(const struct redis *r)
{
	return r->state;
}

bool redis_away(const struct redis *r, struct err *why)
{
	bool away = r->failures > 0 && r->state != REDIS_READY && r->state != REDIS_IDLE;
	*why = r->why;
	return away;
}

const char *redis_where(const struct redis *r)
{
	return r->where;
}
