/* What can only be seen in the whole configuration. */
#include "config/config_reader.h"

#include <stdio.h>
#include <string.h>

#include "operation/listen_address.h"

static uint16_t port_of(const union listen_address *a)
{
	return ntohs(a->any.sa_family == AF_INET ? a->v4.sin_port : a->v6.sin6_port);
}

static bool is_wildcard(const union listen_address *a)
{
	return a->any.sa_family == AF_INET ? a->v4.sin_addr.s_addr == htonl(INADDR_ANY)
					   : IN6_IS_ADDR_UNSPECIFIED(&a->v6.sin6_addr);
}

static bool same_host(const union listen_address *a, const union listen_address *b)
{
	if (is_wildcard(a) || is_wildcard(b))
		return true;
	if (a->any.sa_family != b->any.sa_family)
		return false;
	return a->any.sa_family == AF_INET ? a->v4.sin_addr.s_addr == b->v4.sin_addr.s_addr
					   : IN6_ARE_ADDR_EQUAL(&a->v6.sin6_addr, &b->v6.sin6_addr);
}

static bool listens_everywhere(const char *listen)
{
	union listen_address a;
	return listen_address_parse(listen, &a, NULL) == 0 && is_wildcard(&a);
}

/* Port 0 is a new port for each. */
static bool same_address(const char *a, const char *b)
{
	union listen_address x, y;
	if (listen_address_parse(a, &x, NULL) != 0 || listen_address_parse(b, &y, NULL) != 0)
		return false;
	return port_of(&x) != 0 && port_of(&x) == port_of(&y) && same_host(&x, &y);
}

/* The place of one key of a service; `service` is the way to it. */
static struct place service_member(const struct place *services, struct place *service,
				   const struct service *s, const char *key)
{
	*service = place_member(services, s->name.ptr);
	return place_member(service, key);
}

static void config_check_addresses(const struct config *c, const struct place *services)
{
	struct place service;
	for (size_t i = 0; i < c->n_services; i++) {
		const struct service *s = &c->services[i];
		if (!s->listen)
			continue;
		struct place listen = service_member(services, &service, s, "listen");
		for (size_t j = 0; j < i; j++)
			if (c->services[j].listen && same_address(s->listen, c->services[j].listen))
				place_mistake(&listen, "%s is the address of the service \"%.*s\" already",
					      s->listen, SPAN_ARG(c->services[j].name));
		if (same_address(s->listen, c->admin.listen))
			place_mistake(&listen, "%s is the address of the admin listener already", s->listen);
	}
}

/* The host and port that a checked URL of an IP address (or localhost) leads to, as listeners write it;
 * false for names. */
static bool url_listen_form(const char *url, char *out, size_t size)
{
	bool tls = strncmp(url, "https://", 8) == 0;
	const char *start = url + (tls ? 8 : 7);
	struct span host = {start, strcspn(start, "/")};
	const char *port = tls ? ":443" : ":80";
	if (host.len > 10 && memcmp(host.ptr, "localhost:", 10) == 0)
		snprintf(out, size, "127.0.0.1%.*s", (int)(host.len - 9), host.ptr + 9);
	else
		snprintf(out, size, "%.*s", SPAN_ARG(host));
	union listen_address a;
	if (listen_address_parse(out, &a, NULL) == 0)
		return true;
	snprintf(out, size, "%.*s%s", SPAN_ARG(host), port);
	return listen_address_parse(out, &a, NULL) == 0;
}

/* The legacy address of a service is one of our own listeners: requests would go round and round. */
static void check_loops(const struct config *c, const struct place *services)
{
	struct place service;
	char legacy[300];
	for (size_t i = 0; i < c->n_services; i++) {
		if (!c->services[i].legacy_url ||
		    !url_listen_form(c->services[i].legacy_url, legacy, sizeof(legacy)))
			continue;
		for (size_t j = 0; j < c->n_services; j++) {
			const char *listen = c->services[j].listen;
			/* Beside a wildcard, an address that is not loopback may be another machine's. */
			if (!listen || !same_address(legacy, listen) ||
			    (listens_everywhere(listen) && !listen_is_loopback(legacy)))
				continue;
			struct place p = service_member(services, &service, &c->services[i], "legacy");
			place_mistake(&p,
				      "points to the listener of the service \"%.*s\": requests would loop "
				      "back here",
				      SPAN_ARG(c->services[j].name));
		}
	}
}

static bool context_uses_headers(const struct operation *op)
{
	for (size_t i = 0; i < op->n_context; i++)
		for (size_t j = 0; j < op->context[i].n_sources; j++)
			if (op->context[i].sources[j].kind == IDENTITY_HEADER ||
			    op->context[i].sources[j].kind == IDENTITY_COOKIE)
				return true;
	return false;
}

static bool uses_headers(const struct service *s)
{
	for (size_t i = 0; i < s->n_operations; i++) {
		const struct operation *op = &s->operations[i];
		if (op->has_task &&
		    (identity_uses(&op->identity, IDENTITY_HEADER) ||
		     identity_uses(&op->identity, IDENTITY_COOKIE) || context_uses_headers(op)))
			return true;
	}
	return false;
}

static bool nearly_everybody(const struct cidr *range)
{
	static const uint8_t ipv4[12] = {[10] = 0xFF, [11] = 0xFF};
	if (range->family == AF_UNIX)
		return false;
	return range->bits < 16 ||
	       (range->bits >= 96 && range->bits < 104 && memcmp(range->address, ipv4, 12) == 0);
}

/* Identity headers count only from trusted proxies: say so where the default hides it. */
static void warn_of_proxies(const struct place *root, const struct place *services)
{
	const struct config *c = config_of(root);
	struct place proxies = place_member(root, "trusted_proxies"), service;
	for (size_t i = 0; i < c->trusted_proxies.n_cidr; i++)
		if (nearly_everybody(&c->trusted_proxies.ranges[i]) && proxies.node)
			place_warning(&proxies,
				      "\"%.*s\" lets nearly anyone choose their identity with a header",
				      SPAN_ARG(c->trusted_proxies.cidr[i]));
	for (size_t i = 0; i < c->n_services && !proxies.node; i++) {
		const struct service *s = &c->services[i];
		if (!s->listen || listen_is_loopback(s->listen) || !uses_headers(s))
			continue;
		struct place listen = service_member(services, &service, s, "listen");
		place_warning(&listen, "reachable from other hosts, but trusted_proxies is not set: identity "
				       "headers are trusted only from this machine");
	}
}

/* Replicas share pins and owners of tasks, not keys. */
static void warn_of_keys(const struct place *root)
{
	const struct config *c = config_of(root);
	struct place state = place_member(root, "state");
	for (size_t i = 0; c->state.url && i < c->n_services; i++)
		for (size_t j = 0; j < c->services[i].n_operations; j++)
			if (c->services[i].operations[j].idempotency.use != IDEMPOTENCY_IGNORE) {
				place_warning(
					&state,
					"idempotency keys are not kept there: each router remembers its "
					"own, so a repeated request must reach the same router");
				return;
			}
}

void check_config(const struct place *root)
{
	const struct config *c = config_of(root);
	struct place services = place_member(root, "services");
	config_check_addresses(c, &services);
	check_loops(c, &services);
	warn_of_proxies(root, &services);
	warn_of_keys(root);
}
