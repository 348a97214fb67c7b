/* An upstream's client and the scripted service that it calls. */
#ifndef TESTS_LEGACY_SCENE_H
#define TESTS_LEGACY_SCENE_H

#include "support/legacy_client.h"
#include "support/raw_origin.h"

struct scene {
	struct raw_origin *origin;
	struct client client;
	char url[64];
};

/* A client of a service that follows `script`; options by `change`, NULL: none. */
void open_scene(struct scene *t, raw_script script, void *arg, void (*change)(struct legacy_options *o));
void close_scene(struct scene *t);

#endif
