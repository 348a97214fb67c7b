/* `routers:` the others of this migration, whose reports are added to this one's (design, "Replicas"). */
#include "config/config_reader.h"

#include <string.h>

static void read_router_url(const struct place *p, struct router_peer *peer)
{
	struct config *c = config_of(p);
	if (!p->node) {
		place_mistake(
			p, "missing: the URL of the router's admin listener, such as http://10.0.0.2:9900");
		return;
	}
	if (!value_url(p, &peer->url))
		return;
	for (size_t i = 0; i < c->n_routers; i++)
		if (&c->routers[i] != peer && c->routers[i].url && strcmp(c->routers[i].url, peer->url) == 0)
			place_mistake(p, "is listed twice");
}

static void read_router(const struct place *p, void *arg)
{
	static const struct field fields[] = {
		{"url", FIELD_OTHER, 0, 0, 0},
		{"name", FIELD_TEXT, offsetof(struct router_peer, name), 0, 0},
		{"token_file", FIELD_FILE, offsetof(struct router_peer, token_file), 0, 0},
		{"ca_file", FIELD_FILE, offsetof(struct router_peer, ca_file), 0, 0},
	};
	struct config *c = config_of(p);
	(void)arg;
	if (c->n_routers == CONFIG_MAX_ROUTERS)
		return; /* said by the list */
	struct router_peer *peer = &c->routers[c->n_routers++];
	*peer = (struct router_peer){.url = NULL};
	if (p->node->kind != YAML_MAPPING) {
		read_router_url(p, peer);
	} else {
		READ_FIELDS(p, fields, peer);
		struct place url = place_member(p, "url");
		read_router_url(&url, peer);
	}
	if (!peer->name)
		peer->name = peer->url ? peer->url : "";
}

void read_routers(const struct place *p)
{
	if (p->node)
		value_list(p, CONFIG_MAX_ROUTERS, read_router, NULL);
}
