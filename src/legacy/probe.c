#include "legacy/legacy.h"

#include <errno.h>
#include <stdlib.h>

#include "legacy/upstream.h"

struct legacy_probe {
	struct connection *connection;
	legacy_probe_fn told;
	void *arg;
};

static void on_made(void *arg, enum connection_result r, const char *detail)
{
	struct legacy_probe *p = arg;
	p->connection = connection_free(p->connection);
	p->told(p->arg, r == CONNECTION_MADE, r == CONNECTION_MADE ? "" : detail);
}

static const struct connection_events events = {.made = on_made};

int legacy_probe_start(struct legacy_upstream *u, legacy_probe_fn told, void *arg, struct legacy_probe **ret)
{
	struct legacy_probe *p = calloc(1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	p->told = told;
	p->arg = arg;
	int r = connection_new(pool_connector(u->pool), &events, p, &p->connection);
	if (r < 0) {
		free(p);
		return r;
	}
	return (*ret = p, 0);
}

struct legacy_probe *legacy_probe_free(struct legacy_probe *p)
{
	if (p)
		connection_free(p->connection);
	free(p);
	return NULL;
}
