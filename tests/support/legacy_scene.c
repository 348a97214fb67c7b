#include "support/legacy_scene.h"

#include <stdio.h>

void open_scene(struct scene *t, raw_script script, void *arg, void (*change)(struct legacy_options *o))
{
	t->origin = raw_origin_start(script, arg);
	snprintf(t->url, sizeof(t->url), "http://127.0.0.1:%d", t->origin->port);
	struct legacy_options o = client_options(t->url);
	if (change)
		change(&o);
	client_open(&t->client, &o);
}

void close_scene(struct scene *t)
{
	client_close(&t->client);
	raw_origin_stop(t->origin);
}
