/* `services:` of the file: listeners, the legacy side, limits. */
#include "config/config_reader.h"

#include <errno.h>
#include <string.h>

#include "base/url.h"
#include "operation/route.h"

#define HOUR_MS 3600000ull
#define DAY_MS (24 * HOUR_MS)

static void config_service_set_defaults(struct service *s)
{
	s->max_in_flight = 20000;
	s->max_connections = 20000;
	s->connect_timeout_ms = 5000;
	s->response_timeout_ms = HOUR_MS; /* calls of up to an hour are in use (legacy.md) */
	s->idle_timeout_ms = 120000;
	s->head_timeout_ms = 30000;
	s->client_idle_timeout_ms = 75000;
	s->drain_timeout_ms = 120000;
	s->legacy_max_connections = 20000;
	s->legacy_max_kept = 256;
	s->legacy_keep_ms = 1500; /* below the 2 s of a gunicorn as it comes */
	s->half_close_is_gone = true;
}

static void read_legacy_host(const struct place *p, struct service *s)
{
	struct span name;
	if (!p->node || !value_text(p, &name) || span_is(name, "keep"))
		return;
	if (span_is(name, "upstream")) {
		s->legacy_host = LEGACY_HOST_UPSTREAM;
		return;
	}
	CLEANUP(buf_releasep) struct buf url = BUF_INIT(512);
	buf_printf(&url, "http://%.*s", SPAN_ARG(name));
	if (url.error || memchr(name.ptr, '/', name.len) || url_mistake(buf_span(&url), URL_BASE))
		place_mistake(p, "expected keep, upstream, or a host name with or without a port");
	else
		s->legacy_host = place_text(p->reader, name);
}

static bool names_a_socket(struct span url)
{
	return span_starts(url, SPAN_LIT("unix:")) || span_starts(url, SPAN_LIT("/")) ||
	       span_starts(url, SPAN_LIT("http+unix:")) || span_starts(url, SPAN_LIT("http://unix:"));
}

/* What other proxies can, said in so many words. */
static bool refuse_legacy(const struct place *p)
{
	struct place url = p->node && p->node->kind == YAML_SCALAR ? *p : place_member(p, "url");
	struct place proxy = place_member(p, "proxy_protocol");
	struct span text;
	bool refused = url.node && yaml_string(url.node, &text) && names_a_socket(text);
	if (refused)
		place_mistake(&url, "legacy services on unix sockets are not supported: let it listen on a "
				    "loopback port");
	if (proxy.node)
		place_mistake(
			&proxy,
			"the PROXY protocol is not supported toward legacy services: see \"forwarded\"");
	return refused || proxy.node;
}

static void read_legacy(const struct place *p, struct service *s)
{
	if (p->node && (p->node->kind == YAML_SCALAR || p->node->kind == YAML_MAPPING) && refuse_legacy(p))
		return;
	bool via = true;
	static const struct field fields[] = {
		{"host", FIELD_OTHER, 0, 0, 0},
		{"via", FIELD_OTHER, 0, 0, 0},
		{"url", FIELD_URL, offsetof(struct service, legacy_url), 0, 0},
		{"ca_file", FIELD_FILE, offsetof(struct service, legacy_ca_file), 0, 0},
		{"max_connections", FIELD_UNSIGNED, offsetof(struct service, legacy_max_connections), 1,
		 1000000},
		{"max_kept", FIELD_UNSIGNED, offsetof(struct service, legacy_max_kept), 0, 1000000},
		{"keep", FIELD_DURATION, offsetof(struct service, legacy_keep_ms), 0, HOUR_MS},
		{"connect_timeout", FIELD_DURATION, offsetof(struct service, connect_timeout_ms), 10,
		 HOUR_MS},
		{"response_timeout", FIELD_DURATION, offsetof(struct service, response_timeout_ms), 10,
		 7 * DAY_MS},
		{"idle_timeout", FIELD_DURATION, offsetof(struct service, idle_timeout_ms), 10, 7 * DAY_MS}};
	if (p->node && p->node->kind == YAML_SCALAR) { /* the URL alone */
		value_url(p, &s->legacy_url);
		return;
	}
	unsigned before = p->reader->mistakes;
	READ_FIELDS(p, fields, s);
	struct place host = place_member(p, "host"), with_via = place_member(p, "via");
	read_legacy_host(&host, s);
	if (value_bool(&with_via, &via))
		s->via_off = !via;
	if (!s->legacy_url && p->reader->mistakes == before)
		place_mistake(p, "missing: the legacy service's URL");
	if (s->legacy_url && s->legacy_ca_file && !span_starts(span_of(s->legacy_url), SPAN_LIT("https://")))
		place_warning(p, "ca_file has no effect without https");
}

static void read_service_limits(const struct place *p, struct service *s)
{
	static const struct field fields[] = {
		{"max_in_flight", FIELD_UNSIGNED, offsetof(struct service, max_in_flight), 1, 1000000},
		{"max_in_flight_per_organization", FIELD_UNSIGNED,
		 offsetof(struct service, max_in_flight_per_organization), 1, 1000000},
		{"max_connections", FIELD_UNSIGNED, offsetof(struct service, max_connections), 1, 1000000},
		{"max_body", FIELD_SIZE, offsetof(struct service, max_body), 0, 1ull << 50},
	};
	READ_FIELDS(p, fields, s);
}

static void read_client(const struct place *p, struct service *s)
{
	static const struct field fields[] = {
		{"head_timeout", FIELD_DURATION, offsetof(struct service, head_timeout_ms), 100, HOUR_MS},
		{"idle_timeout", FIELD_DURATION, offsetof(struct service, client_idle_timeout_ms), 100,
		 DAY_MS},
		{"half_close_is_gone", FIELD_BOOL, offsetof(struct service, half_close_is_gone), 0, 0},
		{"drain_timeout", FIELD_DURATION, offsetof(struct service, drain_timeout_ms), 100, HOUR_MS}};
	READ_FIELDS(p, fields, s);
}

/* What the operations of this level inherit: the nearest that is there. */
static void config_service_descend(const struct place *p, struct config_defaults *d)
{
	struct place error = place_member(p, "error"), tokens = place_member(p, "tokens");
	struct place identity = place_member(p, "identity"), entity = place_member(p, "entity");
	if (error.node)
		d->error = error;
	if (tokens.node)
		d->tokens = tokens;
	struct place guard = place_member(p, "guard");
	read_identity(&identity, &d->sources);
	read_entity(&entity, &d->sources);
	read_guard(&guard, &d->guard);
}

/* Follow-up calls need a first call; two first calls would be two truths. */
static void check_pins(const struct place *operations, const struct service *s)
{
	for (size_t i = 0; i < s->n_operations; i++) {
		const struct operation *op = &s->operations[i];
		bool started = false;
		for (size_t j = 0; j < s->n_operations; j++)
			started = started || (s->operations[j].pin_start &&
					      span_eq(s->operations[j].pin_group, op->pin_group));
		if (!op->pin_group.ptr || started)
			continue;
		struct place p = place_member(operations, op->name.ptr);
		struct place pin = place_member(&p, "pin");
		place_mistake(&pin, "no operation of this service has the role start in the group \"%.*s\"",
			      SPAN_ARG(op->pin_group));
	}
}

/* Ambiguous templates; the table itself is made again where it is used. */
static void check_routes(const struct place *operations, const struct service *s)
{
	for (size_t i = 0; i < s->n_operations; i++)
		if (!s->operations[i].path.ptr || route_template_check(s->operations[i].path, NULL) != 0)
			return; /* said already */
	struct route_table *table = NULL;
	struct err e = {""};
	int code = route_table_new(s->operations, s->n_operations, &table, &e);
	if (code == -ENOMEM)
		operations->reader->out_of_memory = true;
	else if (code < 0)
		place_mistake(operations, "%s", e.text);
	route_table_free(table);
}

static void read_operations(const struct place *p, const struct config_defaults *defaults, struct service *s)
{
	if (!p->node || !value_mapping(p))
		return;
	if (p->node->count > CONFIG_MAX_OPERATIONS) {
		place_mistake(p, "at most %d operations, not %zu", CONFIG_MAX_OPERATIONS, p->node->count);
		return;
	}
	s->operations = place_memory(p->reader, p->node->count * sizeof(*s->operations));
	if (!s->operations)
		return;
	for (const struct yaml_node *n = p->node->first; n; n = n->next) {
		struct operation *op = &s->operations[s->n_operations++];
		struct place member = place_item(p, n);
		op->service = s->name;
		op->name = n->key->text;
		check_name(&member, op->name, 63);
		read_operation(&member, defaults, op);
	}
	check_routes(p, s);
	check_pins(p, s);
}

static void read_service(const struct place *p, const struct config_defaults *above, struct service *s)
{
	static const struct field fields[] = {
		{"listen", FIELD_LISTEN, offsetof(struct service, listen), 0, 0},
		{"legacy", FIELD_OTHER, 0, 0, 0},
		{"forwarded", FIELD_OTHER, 0, 0, 0},
		{"limits", FIELD_OTHER, 0, 0, 0},
		{"client", FIELD_OTHER, 0, 0, 0},
		{"identity", FIELD_OTHER, 0, 0, 0},
		{"entity", FIELD_OTHER, 0, 0, 0},
		{"error", FIELD_OTHER, 0, 0, 0},
		{"tokens", FIELD_OTHER, 0, 0, 0},
		{"guard", FIELD_OTHER, 0, 0, 0},
		{"operations", FIELD_OTHER, 0, 0, 0},
	};
	config_service_set_defaults(s);
	READ_FIELDS(p, fields, s);
	struct config_defaults defaults = *above;
	struct place listen = place_member(p, "listen"), legacy = place_member(p, "legacy");
	struct place limits = place_member(p, "limits"), client = place_member(p, "client");
	struct place operations = place_member(p, "operations");
	/* as enum forward_forwarded */
	static const char *const modes[] = {"auto", "keep", "append", "replace", "remove"};
	struct place forwarded = place_member(p, "forwarded");
	size_t mode;
	if (value_choice(&forwarded, modes, 5, &mode))
		s->forwarded = (enum forward_forwarded)mode;
	if (!listen.node)
		place_mistake(&listen, "missing: the address that callers use, such as 127.0.0.1:5002");
	if (!legacy.node)
		place_mistake(&legacy, "missing: the legacy service's URL, such as http://127.0.0.1:15002");
	else
		read_legacy(&legacy, s);
	read_service_limits(&limits, s);
	read_client(&client, s);
	config_service_descend(p, &defaults);
	read_operations(&operations, &defaults, s);
}

void read_services(const struct place *root)
{
	struct config *c = config_of(root);
	struct place p = place_member(root, "services");
	struct config_defaults defaults = {
		.sources = {.entity = {IDENTITY_USER, IDENTITY_ORGANIZATION}, .n_entity = 2},
		.guard = config_guard_default()};
	config_service_descend(root, &defaults);
	if (!p.node || (p.node->kind == YAML_MAPPING && p.node->count == 0)) {
		place_mistake(&p, "missing: at least one service");
		return;
	}
	if (!value_mapping(&p))
		return;
	if (p.node->count > CONFIG_MAX_SERVICES) {
		place_mistake(&p, "at most %d services, not %zu", CONFIG_MAX_SERVICES, p.node->count);
		return;
	}
	c->services = place_memory(root->reader, p.node->count * sizeof(*c->services));
	if (!c->services)
		return;
	for (const struct yaml_node *n = p.node->first; n; n = n->next) {
		struct service *s = &c->services[c->n_services++];
		struct place member = place_item(&p, n);
		s->name = n->key->text;
		check_name(&member, s->name, 31);
		read_service(&member, &defaults, s);
	}
}
