/*
 * The way back: how an operation comes from the store thread to the loop of its client.
 */
#include <stdlib.h>

#include "tasks/embedded/embedded_internal.h"

struct channel *channel_ref(struct channel *c)
{
	atomic_fetch_add(&c->references, 1);
	return c;
}

void channel_unref(struct channel *c)
{
	if (atomic_fetch_sub(&c->references, 1) != 1)
		return;
	pthread_mutex_destroy(&c->lock);
	free(c);
}

bool channel_closed(struct channel *c)
{
	pthread_mutex_lock(&c->lock);
	bool closed = c->closed;
	pthread_mutex_unlock(&c->lock);
	return closed;
}

void operation_free(struct embedded_operation *op)
{
	channel_unref(op->channel);
	buf_release(&op->text);
	buf_release(&op->steps);
	free(op);
}

void channel_deliver(struct embedded_operation *op)
{
	struct channel *c = op->channel;
	pthread_mutex_lock(&c->lock);
	bool closed = c->closed;
	if (!closed) {
		op->next = NULL;
		*c->mail_end = op;
		c->mail_end = &op->next;
		if (!c->posted) {
			c->posted = true;
			loop_post(c->loop, &channel_ref(c)->work);
		}
	}
	pthread_mutex_unlock(&c->lock);
	if (closed)
		operation_free(op);
}
