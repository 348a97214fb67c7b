#include "legacy/pool.h"

#include <errno.h>
#include <stdlib.h>

struct pool {
	struct loop *loop;
	struct connector *connector;
	struct pool_options options;
	struct link kept; /* the one used last comes first */
	unsigned n_kept, connections;
	struct loop_timer *timer; /* runs while there are kept lines */
};

static void pool_forget(struct line *l)
{
	struct pool *p = l->pool;
	if (!link_alone(&l->link)) {
		link_remove(&l->link);
		p->n_kept--;
	}
	connection_free(l->connection);
	p->connections--;
	free(l);
}

/* Closed by the upstream, or it speaks without being asked: either way of no use. */
static void on_kept_ready(void *arg, unsigned events)
{
	(void)events;
	pool_forget(arg);
}

static const struct connection_events kept_events = {.ready = on_kept_ready};

static void pool_on_timer(void *arg)
{
	struct pool *p = arg;
	uint64_t now = loop_now_ms(p->loop), next = UINT64_MAX;
	for (struct link *k = p->kept.next; k != &p->kept;) {
		struct line *l = LINK_OWNER(k, struct line, link);
		k = k->next;
		if (l->keep_until <= now)
			pool_forget(l);
		else if (l->keep_until < next)
			next = l->keep_until;
	}
	if (next != UINT64_MAX)
		loop_timer_start(p->timer, next - now);
}

int pool_new(struct loop *loop, const struct origin *origin, const struct pool_options *o, struct pool **ret,
	     struct err *e)
{
	struct pool *p = calloc(1, sizeof(*p));
	if (!p)
		return err_set(e, -ENOMEM, "out of memory");
	p->loop = loop;
	p->options = *o;
	p->options.ca_file = NULL; /* the connector has its own copy */
	link_init(&p->kept);
	int r = connector_new(loop, origin, o->ca_file, o->connect_timeout_ms, &p->connector, e);
	if (r == 0 && loop_timer_new(loop, pool_on_timer, p, &p->timer) < 0)
		r = err_set(e, -ENOMEM, "out of memory");
	if (r < 0) {
		pool_free(p);
		return r;
	}
	*ret = p;
	return 0;
}

struct pool *pool_free(struct pool *p)
{
	if (p) {
		pool_close_kept(p);
		loop_timer_free(p->timer);
		connector_free(p->connector);
		free(p);
	}
	return NULL;
}

struct line *pool_take(struct pool *p, const struct connection_events *events, void *arg)
{
	while (!link_alone(&p->kept)) {
		struct line *l = LINK_OWNER(p->kept.next, struct line, link);
		/* One look at the socket: what came in since the loop last waited has not been reported yet,
		 * and bytes after the last answer would be taken for the next one. */
		if (l->keep_until <= loop_now_ms(p->loop) || !connection_quiet(l->connection)) {
			pool_forget(l);
			continue;
		}
		link_remove(&l->link);
		p->n_kept--;
		connection_give(l->connection, events, arg);
		return l;
	}
	return NULL;
}

bool pool_full(const struct pool *p)
{
	return p->connections >= p->options.max_connections;
}

int pool_connect(struct pool *p, const struct connection_events *events, void *arg, struct line **ret)
{
	struct line *l = calloc(1, sizeof(*l));
	if (!l)
		return -ENOMEM;
	l->pool = p;
	link_init(&l->link);
	int r = connection_new(p->connector, events, arg, &l->connection);
	if (r < 0) {
		free(l);
		return r;
	}
	p->connections++;
	*ret = l;
	return 0;
}

void pool_keep(struct line *l, int64_t upstream_s)
{
	struct pool *p = l->pool;
	uint64_t ms = p->options.keep_ms;
	/* A second less than the upstream, so that it never closes first. */
	if (upstream_s >= 0 && (uint64_t)upstream_s <= ms / 1000)
		ms = upstream_s > 1 ? (uint64_t)(upstream_s - 1) * 1000 : 0;
	if (ms == 0 || p->options.max_kept == 0) {
		pool_forget(l);
		return;
	}
	if (p->n_kept == p->options.max_kept)
		pool_forget(LINK_OWNER(p->kept.prev, struct line, link));
	l->keep_until = loop_now_ms(p->loop) + ms;
	connection_watch(l->connection, LOOP_READ);
	connection_rest(l->connection);
	connection_give(l->connection, &kept_events, l);
	link_prepend(&p->kept, &l->link);
	p->n_kept++;
	/* A timer that runs is left alone: it looks again when it fires, and pool_take looks by itself. */
	if (!loop_timer_active(p->timer))
		loop_timer_start(p->timer, ms);
}

void pool_close(struct line *l)
{
	if (l)
		pool_forget(l);
}

struct connector *pool_connector(struct pool *p)
{
	return p->connector;
}

unsigned pool_connections(const struct pool *p)
{
	return p->connections;
}

void pool_close_kept(struct pool *p)
{
	while (!link_alone(&p->kept))
		pool_forget(LINK_OWNER(p->kept.next, struct line, link));
}
