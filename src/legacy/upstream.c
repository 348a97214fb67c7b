#include "legacy/upstream.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>

#include "legacy/request_head.h"

#define SPARE_BLOCKS 16

int legacy_setup(void)
{
	/* Sockets are written with MSG_NOSIGNAL; TLS libraries do not all do so. */
	if (signal(SIGPIPE, SIG_IGN) == SIG_ERR)
		return -errno;
	return connection_setup();
}

/* --- memory --------------------------------------------------------------------------------------------- */

char *upstream_take_block(struct legacy_upstream *u)
{
	struct block *b = u->blocks;
	if (!b)
		return malloc(u->block_size);
	u->blocks = b->next;
	u->n_blocks--;
	return (char *)b;
}

void upstream_give_block(struct legacy_upstream *u, char *block)
{
	if (!block)
		return;
	if (u->n_blocks == SPARE_BLOCKS) {
		free(block);
		return;
	}
	struct block *b = (struct block *)(void *)block;
	b->next = u->blocks;
	u->blocks = b;
	u->n_blocks++;
}

/* --- who waits ------------------------------------------------------------------------------------------ */

void upstream_serve_queue(struct legacy_upstream *u)
{
	while (!link_alone(&u->queue) && u->verbs->leave_queue(u->queue.next))
		;
}

static void on_soon(void *arg)
{
	struct legacy_upstream *u = arg;
	u->soon_at = 0;
	/* What is added from now on belongs to the next round. */
	struct link now;
	link_init(&now);
	if (!link_alone(&u->soon))
		link_move(&u->soon, &now);
	while (!link_alone(&now)) {
		struct link *l = now.next;
		link_remove(l);
		u->verbs->look(l);
	}
}

void upstream_look_soon(struct legacy_upstream *u, struct link *of_call, uint64_t after_ms)
{
	if (link_alone(of_call))
		link_append(&u->soon, of_call);
	uint64_t at = loop_now_ms(u->loop) + after_ms;
	if (u->soon_at && u->soon_at <= at)
		return;
	u->soon_at = at;
	loop_timer_start(u->soon_timer, after_ms);
}

/* --- an upstream ---------------------------------------------------------------------------------------- */

static int check_options(const struct legacy_options *o, struct err *e)
{
	if (o->max_connections == 0)
		return err_set(e, -EINVAL, "max_connections must be at least 1");
	if (o->max_head < 256 || o->max_head > 1 << 20)
		return err_set(e, -EINVAL, "max_head must be between 256 bytes and 1 MiB");
	if (!o->connect_timeout_ms || !o->response_timeout_ms || !o->idle_timeout_ms)
		return err_set(e, -EINVAL, "time limits of legacy calls must not be 0");
	return 0;
}

int upstream_new(struct loop *loop, const struct legacy_options *o, const struct upstream_verbs *verbs,
		 struct legacy_upstream **ret, struct err *e)
{
	int r = check_options(o, e);
	if (r < 0)
		return r;
	struct legacy_upstream *u = calloc(1, sizeof(*u));
	if (!u)
		return err_set(e, -ENOMEM, "out of memory");
	u->loop = loop;
	u->verbs = verbs;
	u->options = *o;
	u->options.base_url = u->options.ca_file = NULL;
	u->block_size = o->max_head + UPSTREAM_BLOCK_BODY;
	link_init(&u->queue);
	link_init(&u->soon);
	link_init(&u->idle_calls);
	const struct pool_options po = {
		.max_connections = o->max_connections,
		.max_kept = o->max_kept,
		.keep_ms = o->keep_ms,
		.connect_timeout_ms = o->connect_timeout_ms,
		.ca_file = o->ca_file,
	};
	u->options.server_name = NULL;
	r = origin_parse(o->base_url, &u->origin, e);
	if (r == 0 && u->origin.tls && o->server_name && origin_rename(&u->origin, o->server_name) < 0)
		r = err_set(e, -ENOMEM, "out of memory");
	if (r == 0)
		r = pool_new(loop, &u->origin, &po, &u->pool, e);
	if (r == 0 && loop_timer_new(loop, on_soon, u, &u->soon_timer) < 0)
		r = err_set(e, -ENOMEM, "out of memory");
	if (r < 0) {
		legacy_upstream_free(u);
		return r;
	}
	*ret = u;
	return 0;
}

struct legacy_upstream *legacy_upstream_free(struct legacy_upstream *u)
{
	if (!u)
		return NULL;
	while (!link_alone(&u->idle_calls)) {
		struct link *idle = u->idle_calls.next;
		link_remove(idle);
		u->verbs->free_idle(idle);
	}
	pool_free(u->pool);
	loop_timer_free(u->soon_timer);
	origin_release(&u->origin);
	while (u->blocks) {
		struct block *b = u->blocks;
		u->blocks = b->next;
		free(b);
	}
	free(u);
	return NULL;
}

bool legacy_upstream_is_left(const struct legacy_upstream *u, struct span target)
{
	return u->origin.prefix_length && request_target_climbs(target);
}

unsigned legacy_upstream_waiting(const struct legacy_upstream *u)
{
	return u->n_queued;
}

unsigned legacy_upstream_connections(const struct legacy_upstream *u)
{
	return pool_connections(u->pool);
}

void legacy_upstream_close_kept(struct legacy_upstream *u)
{
	pool_close_kept(u->pool);
}
