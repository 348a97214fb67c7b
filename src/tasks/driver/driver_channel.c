/*
 * The way back: how an operation comes from the driver to the loop of its client.
 */
#include <stdlib.h>

#include "tasks/driver/driver_internal.h"

struct driver_channel *driver_channel_ref(struct driver_channel *c)
{
	atomic_fetch_add(&c->references, 1);
	return c;
}

void driver_channel_unref(struct driver_channel *c)
{
	if (atomic_fetch_sub(&c->references, 1) != 1)
		return;
	pthread_mutex_destroy(&c->lock);
	free(c);
}

bool driver_channel_closed(struct driver_channel *c)
{
	pthread_mutex_lock(&c->lock);
	bool closed = c->closed;
	pthread_mutex_unlock(&c->lock);
	return closed;
}

void driver_operation_free(struct driver_operation *op)
{
	driver_channel_unref(op->channel);
	buf_release(&op->text);
	free(op);
}

void driver_channel_deliver(struct driver_operation *op)
{
	struct driver_channel *c = op->channel;
	pthread_mutex_lock(&c->lock);
	bool closed = c->closed;
	if (!closed) {
		op->next = NULL;
		*c->mail_end = op;
		c->mail_end = &op->next;
		if (!c->posted) {
			c->posted = true;
			loop_post(c->loop, &driver_channel_ref(c)->work);
		}
	}
	pthread_mutex_unlock(&c->lock);
	if (closed)
		driver_operation_free(op);
}
