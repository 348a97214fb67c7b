/* `backend:` and `backends:` of the file, and what the environment says of them and of flags. */
#include "router/config_reader.h"

#include <stdio.h>
#include <string.h>

#define SETTINGS_MAX (sizeof(((struct backend_config *)0)->settings) / sizeof(((struct backend_config *)0)->settings[0]))

static const char *const known_backends[] = {"embedded", "celery", "temporal", "hatchet"};
#define N_KNOWN (sizeof(known_backends) / sizeof(known_backends[0]))

/* Variables in use around task queues (core-tasks.md). The first of a key that is set wins; a variable wins over the file. */
static const struct {
	const char *variable, *backend, *key;
} variables[] = {
	{"CELERY_BROKER_URL", "celery", "broker_url"},
	{"CELERY_RESULT_BACKEND", "celery", "result_backend"},
	{"TEMPORAL_HOST", "temporal", "host"},
	{"TEMPORAL_PORT", "temporal", "port"},
	{"TEMPORAL_NAMESPACE", "temporal", "namespace"},
	{"TEMPORAL_TASK_QUEUE", "temporal", "task_queue"},
	{"TEMPORAL_HTTP_URL", "temporal", "http_url"},
	{"TEMPORAL_API_KEY", "temporal", "api_key"},
	{"TEMPORAL_TLS_SERVER_CA_CERT_PATH", "temporal", "ca_file"},
	{"TEMPORAL_TLS_CLIENT_CERT_PATH", "temporal", "client_cert_file"},
	{"TEMPORAL_TLS_CLIENT_KEY_PATH", "temporal", "client_key_file"},
	{"HATCHET_CLIENT_TOKEN", "hatchet", "token"},
	{"HATCHET_TOKEN", "hatchet", "token"},
	{"HATCHET_SERVER_URL", "hatchet", "server_url"},
	{"HATCHET_CLIENT_SERVER_URL", "hatchet", "server_url"},
};

bool config_is_backend_name(struct span name)
{
	for (size_t i = 0; i < N_KNOWN; i++)
		if (span_is(name, known_backends[i]))
			return true;
	return false;
}

/* --- settings ------------------------------------------------------------------------------------------------------ */

/* Settings that are paths, so that they can be relative to the file's folder like all others. */
static bool is_path(struct span key)
{
	static const char *const keys[] = {"database", "tasks", "socket"};
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
		if (span_is(key, keys[i]))
			return true;
	return key.len > 5 && memcmp(key.ptr + key.len - 5, "_file", 5) == 0;
}

struct list_text {
	struct buf *out;
	bool wrong;
};

static void append_element(const struct place *p, void *arg)
{
	struct list_text *l = arg;
	struct span s;
	if (!value_text(p, &s)) {
		l->wrong = true;
		return;
	}
	if (l->out->len)
		buf_putc(l->out, ',');
	buf_append_span(l->out, s);
}

/* A scalar as it is written; a list joined by commas. */
static bool setting_value(const struct place *p, struct span key, struct span *ret)
{
	if (p->node->kind == YAML_MAPPING) {
		place_mistake(p, "expected a single value or a list");
		return false;
	}
	if (p->node->kind == YAML_SCALAR) {
		if (!yaml_string(p->node, ret))
			return false;
		if (is_path(key))
			*ret = span_of(config_path(p->reader, *ret));
		return ret->ptr != NULL;
	}
	CLEANUP(buf_releasep) struct buf joined = BUF_INIT(64u << 10);
	struct list_text l = {&joined, false};
	value_list(p, 1024, append_element, &l);
	if (joined.error)
		place_mistake(p, "the list is too long");
	if (l.wrong || joined.error)
		return false;
	*ret = span_of(config_text(p->reader, buf_span(&joined)));
	return ret->ptr != NULL;
}

static void lower(const struct place *p, struct span *key)
{
	char *copy = config_text(p->reader, *key);
	if (!copy)
		return;
	for (char *c = copy; *c; c++)
		if (*c >= 'A' && *c <= 'Z')
			*c = (char)(*c | 0x20);
	key->ptr = copy;
}

static void read_settings(const struct place *p, struct backend_config *b)
{
	if (!p->node || !value_mapping(p))
		return;
	if (p->node->count > SETTINGS_MAX) {
		place_mistake(p, "at most %zu settings, not %zu", SETTINGS_MAX, p->node->count);
		return;
	}
	for (const struct yaml_node *n = p->node->first; n; n = n->next) {
		struct place setting = place_item(p, n);
		if (span_is(n->key->text, "fail_fast")) { /* the router's own: no backend reads it */
			value_bool(&setting, &b->fail_fast);
			continue;
		}
		struct span key = n->key->text, value;
		if (!setting.node || !setting_value(&setting, key, &value))
			continue;
		lower(&setting, &key);
		b->settings[b->n_settings].key = key;
		b->settings[b->n_settings].value = value;
		b->settings[b->n_settings++].line = n->key->line;
	}
}

static void set_setting(struct config_reader *r, struct backend_config *b, const char *variable, const char *key,
			const char *value)
{
	size_t i = 0;
	while (i < b->n_settings && !span_is(b->settings[i].key, key))
		i++;
	if (i == SETTINGS_MAX) {
		environment_mistake(r, variable, "the backend has %zu settings already", SETTINGS_MAX);
		return;
	}
	/* The environment's own memory may change. */
	b->settings[i].key = span_of(key);
	b->settings[i].value = span_of(config_text(r, span_of(value)));
	b->settings[i].line = 0;
	if (i == b->n_settings)
		b->n_settings++;
}

static void apply_environment(struct config_reader *r, struct backend_config *b)
{
	const char *done = "";
	for (size_t i = 0; i < sizeof(variables) / sizeof(variables[0]); i++) {
		const char *value = span_is(b->name, variables[i].backend) ? environment_get(r, variables[i].variable) : NULL;
		if (!value || strcmp(done, variables[i].key) == 0)
			continue;
		set_setting(r, b, variables[i].variable, variables[i].key, value);
		done = variables[i].key; /* variables of one key stand together */
	}
}

/* --- backends ------------------------------------------------------------------------------------------------------ */

static void append_declared(const struct config *c, struct buf *out)
{
	for (size_t i = 0; i < c->n_backends; i++)
		buf_printf(out, "%s%.*s", i ? ", " : "", SPAN_ARG(c->backends[i].name));
}

static void read_declared(const struct place *p)
{
	struct config *c = p->reader->config;
	if (!p->node || !value_mapping(p))
		return;
	for (const struct yaml_node *n = p->node->first; n; n = n->next) {
		struct place member = place_item(p, n);
		if (!config_is_backend_name(n->key->text)) {
			member.node = n;
			place_mistake(&member, "there is no such backend; there are embedded, celery, temporal and hatchet");
			continue;
		}
		struct backend_config *b = &c->backends[c->n_backends++];
		b->name = n->key->text;
		b->line = n->key->line;
		b->fail_fast = c->fail_fast;
		read_settings(&member, b);
		apply_environment(p->reader, b);
	}
}

/* The backend that the environment names; NULL when it names none, or two. */
static const char *environment_backend(struct config_reader *r, const char **ret_variable)
{
	const char *queue = environment_get(r, "TASK_QUEUE_BACKEND"), *type = environment_get(r, "TASK_BACKEND_TYPE");
	if (queue && type && strcmp(queue, type) != 0) {
		environment_mistake(r, "TASK_QUEUE_BACKEND", "is \"%s\", but TASK_BACKEND_TYPE is \"%s\"; set one of them",
				    queue, type);
		return NULL;
	}
	*ret_variable = queue ? "TASK_QUEUE_BACKEND" : "TASK_BACKEND_TYPE";
	return queue ? queue : type;
}

/* "One variable switches the backend": what it names need not stand in the file. */
static void use_environment_backend(struct config_reader *r, const char *variable, const char *name)
{
	struct config *c = r->config;
	if (!config_is_backend_name(span_of(name))) {
		environment_mistake(r, variable,
				    "there is no backend \"%s\"; there are embedded, celery, temporal and hatchet", name);
		return;
	}
	c->default_backend = span_of(config_text(r, span_of(name)));
	if (config_backend(c, c->default_backend) || !c->default_backend.ptr)
		return;
	struct backend_config *b = &c->backends[c->n_backends++];
	b->name = c->default_backend;
	b->fail_fast = c->fail_fast;
	apply_environment(r, b);
}

/* Without a word about it: embedded, or the only one. */
static void choose_default(struct config *c)
{
	if (config_backend(c, SPAN_LIT("embedded")))
		c->default_backend = config_backend(c, SPAN_LIT("embedded"))->name;
	else if (c->n_backends == 1)
		c->default_backend = c->backends[0].name;
}

void read_backends(const struct place *root)
{
	struct config_reader *r = root->reader;
	struct config *c = r->config;
	struct place declared = place_member(root, "backends"), chosen = place_member(root, "backend");
	struct span name;
	read_declared(&declared);
	if (value_text(&chosen, &name)) {
		c->default_backend = name;
		if (!config_backend(c, name)) {
			CLEANUP(buf_releasep) struct buf list = BUF_INIT(1024);
			append_declared(c, &list);
			place_mistake(&chosen, "no backend \"%.*s\" is declared under backends (declared: %s)", SPAN_ARG(name),
				      list.len ? list.ptr : "none");
		}
	} else if (!chosen.node) {
		choose_default(c);
	}
	const char *variable = "", *from_environment = environment_backend(r, &variable);
	if (from_environment)
		use_environment_backend(r, variable, from_environment);
}

/* --- flags' defaults from the environment -------------------------------------------------------------------------- */

static bool parse_switch(const char *text, bool *ret)
{
	static const char *const yes[] = {"true", "1", "yes", "on"}, *const no[] = {"false", "0", "no", "off"};
	for (size_t i = 0; i < 4; i++) {
		if (strcasecmp(text, yes[i]) == 0 || strcasecmp(text, no[i]) == 0) {
			*ret = strcasecmp(text, yes[i]) == 0;
			return true;
		}
	}
	return false;
}

void read_environment_defaults(struct config_reader *r)
{
	static const struct {
		const char *variable, *flag;
	} switches[] = {
		{"TASK_ABSTRACTION_ENABLED", "task_abstraction_enabled"},
		{"HATCHET_BACKEND_ENABLED", "hatchet_backend_enabled"},
		{"PROMPT_HELPERS_ENABLED", "prompt_helpers_enabled"},
	};
	struct config *c = r->config;
	for (size_t i = 0; i < sizeof(switches) / sizeof(switches[0]); i++) {
		const char *text = environment_get(r, switches[i].variable);
		bool value;
		if (!text)
			continue;
		if (!parse_switch(text, &value)) {
			environment_mistake(r, switches[i].variable,
					    "expected true, false, 1, 0, yes, no, on or off, not \"%.60s\"", text);
			continue;
		}
		c->env_defaults[c->n_env_defaults].flag = span_of(switches[i].flag);
		c->env_defaults[c->n_env_defaults++].value = value;
	}
}
