/* A configuration with what it owns: how long it lives, and looking things up in it. */
#include "config/config_reader.h"

#include <stdlib.h>

static void release_operation(struct operation *op)
{
	template_free(op->task.args);
	template_free(op->task.kwargs);
	response_template_free(op->task.response);
	response_template_free(op->error);
	template_free(op->legacy_body);
	response_template_free(op->legacy_response);
}

void config_whole_free(struct config_whole *w)
{
	for (size_t i = 0; i < w->pub.n_services; i++)
		for (size_t j = 0; j < w->pub.services[i].n_operations; j++)
			release_operation(&w->pub.services[i].operations[j]);
	arena_release(&w->memory);
	yaml_free(w->doc);
	free(w);
}

struct config *config_ref(const struct config *c)
{
	struct config_whole *w = (struct config_whole *)c;
	atomic_fetch_add_explicit(&w->refs, 1, memory_order_relaxed);
	return &w->pub;
}

struct config *config_unref(const struct config *c)
{
	struct config_whole *w = (struct config_whole *)c;
	if (w && atomic_fetch_sub_explicit(&w->refs, 1, memory_order_acq_rel) == 1)
		config_whole_free(w);
	return NULL;
}

/* --- look-ups ------------------------------------------------------------------------------------------- */

const struct backend_config *config_backend(const struct config *c, struct span name)
{
	for (size_t i = 0; i < c->n_backends; i++)
		if (span_eq(c->backends[i].name, name))
			return &c->backends[i];
	return NULL;
}

const struct service *config_service(const struct config *c, struct span name)
{
	for (size_t i = 0; i < c->n_services; i++)
		if (span_eq(c->services[i].name, name))
			return &c->services[i];
	return NULL;
}

const struct operation *service_operation(const struct service *s, struct span name)
{
	for (size_t i = 0; i < s->n_operations; i++)
		if (span_eq(s->operations[i].name, name))
			return &s->operations[i];
	return NULL;
}

struct span backend_setting(const struct backend_config *b, const char *key)
{
	for (size_t i = 0; i < b->n_settings; i++)
		if (span_is(b->settings[i].key, key))
			return b->settings[i].value;
	return SPAN_NONE;
}

bool config_trusts_peer(const struct config *c, const struct sockaddr *peer, socklen_t peer_length)
{
	for (size_t i = 0; i < c->trusted_proxies.n_cidr; i++)
		if (cidr_contains(&c->trusted_proxies.ranges[i], peer, peer_length))
			return true;
	return false;
}
