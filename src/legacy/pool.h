/*
 * Pool: the connections to one origin, of which some wait for their next request.
 *
 * Why:       a request over a kept-alive connection costs no connect; one that the upstream is about to close
 *            costs a failure. So they are kept for a shorter time than the upstream keeps them, watched
 *            (whatever comes in on an idle connection ends it) and checked once more before use.
 * Ownership: a line (pooled connection) belongs to its user from take/connect to keep/close.
 */
#ifndef LEGACY_POOL_H
#define LEGACY_POOL_H

#include "legacy/connection.h"
#include "legacy/link.h"

struct pool;

struct line {
	struct pool *pool;
	struct connection *connection;
	struct link link;    /* the pool's, while kept */
	uint64_t keep_until; /* loop time in ms; the pool's */
};

struct pool_options {
	unsigned max_connections, max_kept, keep_ms, connect_timeout_ms;
	const char *ca_file;
};

int pool_new(struct loop *loop, const struct origin *origin, const struct pool_options *o, struct pool **ret,
	     struct err *e);
struct pool *pool_free(struct pool *p); /* all lines must be kept or closed */

/* A kept line on which nothing has happened; NULL if there is none. */
struct line *pool_take(struct pool *p, const struct connection_events *events, void *arg);
bool pool_full(const struct pool *p);
int pool_connect(struct pool *p, const struct connection_events *events, void *arg, struct line **ret);

/* `upstream_s`: how long the upstream says it keeps it, -1 unknown. */
void pool_keep(struct line *l, int64_t upstream_s);
void pool_close(struct line *l);

struct connector *pool_connector(struct pool *p);
unsigned pool_connections(const struct pool *p); /* in use, being made and kept */
void pool_close_kept(struct pool *p);

#endif
