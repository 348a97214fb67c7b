/*
 * Connections to one origin: names, TCP, TLS. The only file of the legacy side that knows libcurl.
 *
 * Why:       libcurl makes connections well (TCP, TLS, verification); what is sent over them is our own
 *            business (CURLOPT_CONNECT_ONLY). Which address comes when is ours too: libcurl races families
 *            only, and gives each address of one its share of the whole time. Here the next address is tried
 *            as soon as one fails, or in parallel after 250 ms (RFC 8305), and a name none of whose addresses
 *            answers is looked up again.
 * Threads:   a connector and its connections belong to one loop.
 * Ownership: a connection belongs to who made it, until connection_free (at any time, even from within its
 *            callbacks; no callback comes after). All must be freed before connector_free.
 *
 * http:      once connected, the socket is ours (a duplicate; libcurl's handle is used for the next
 *            connection). So an idle connection costs no libcurl memory, reading and writing is one system
 *            call, and libcurl cannot close it: its clean-up of idle connections (118 s, or the peer's FIN)
 *            also takes connect-only ones.
 * https:     the handle stays in the multi handle; reading and writing go through curl_easy_recv and _send.
 */
#ifndef LEGACY_CONNECTION_H
#define LEGACY_CONNECTION_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "base/err.h"
#include "base/loop.h"
#include "legacy/origin.h"

struct connector;
struct connection;

enum connection_result {
	CONNECTION_MADE,
	CONNECTION_REFUSED, /* or unreachable, closed, reset */
	CONNECTION_TIMED_OUT,
	CONNECTION_NO_NAME, /* the name has no address */
	CONNECTION_NO_TLS,  /* no agreement, or a certificate that does not verify */
};

struct connection_events {
	/* Once; `detail` says what went wrong otherwise. Never from within connection_new. */
	void (*made)(void *arg, enum connection_result r, const char *detail);
	void (*ready)(void *arg, unsigned events); /* LOOP_READ, LOOP_WRITE, LOOP_ERROR */
};

/* Once per process, before any thread: libcurl's global state. -EIO. */
int connection_setup(void);

/* `origin` must outlive the connector. */
int connector_new(struct loop *loop, const struct origin *origin, const char *ca_file,
		  unsigned connect_timeout_ms, struct connector **ret, struct err *e);
struct connector *connector_free(struct connector *c);

int connection_new(struct connector *c, const struct connection_events *events, void *arg,
		   struct connection **ret);
struct connection *connection_free(struct connection *c); /* closes; NULL is allowed */
/* Who gets `ready` from now on. */
void connection_give(struct connection *c, const struct connection_events *events, void *arg);

/* What `ready` is called for; LOOP_READ from the beginning. */
void connection_watch(struct connection *c, unsigned events);

/* Returns how many bytes were taken (over TLS some may still be in here: connection_flush), -EAGAIN, or
 * -errno. */
ssize_t connection_send(struct connection *c, const struct iovec *parts, int n);
/* 0: nothing lies in here any more; -EAGAIN; -errno. */
int connection_flush(struct connection *c);
/* Bytes read, 0 at the end (over TLS only after close_notify), -EAGAIN, -errno. */
ssize_t connection_recv(struct connection *c, char *out, size_t size);

/* Gives memory back that only a connection in use needs. */
void connection_rest(struct connection *c);

/* Nothing has come in and the peer has not closed: fit for the next request. */
bool connection_quiet(struct connection *c);
/* Must be read until -EAGAIN: the watch alone does not tell of everything. */
bool connection_buffers(const struct connection *c);
/* A failed first connection_send proves that nothing was sent. */
bool connection_send_is_atomic(const struct connection *c);

#endif
