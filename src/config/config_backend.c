/* `backend:` and `backends:` of the file, and what the environment says of them and of flags. */
#include "config/config_reader.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "tasks/backends.h"
#include "tasks/task_options.h"

/* --- settings ------------------------------------------------------------------------------------------- */

struct list_text {
	struct buf *out;
	bool paths; /* one a line, else joined by commas */
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
		buf_putc(l->out, l->paths ? '\n' : ',');
	if (l->paths)
		s = span_of(place_path(p->reader, s));
	buf_append_span(l->out, s);
}

/* A scalar as it is written; a list joined by commas, of paths by line feeds. */
static bool setting_value(const struct place *p, const struct task_setting *setting, struct span *ret)
{
	if (p->node->kind == YAML_MAPPING) {
		place_mistake(p, "expected a single value or a list");
		return false;
	}
	if (p->node->kind == YAML_SEQUENCE && setting->path && !setting->several) {
		place_mistake(p, "expected a single path");
		return false;
	}
	if (p->node->kind == YAML_SCALAR) {
		if (!yaml_string(p->node, ret))
			return false;
		if (setting->path)
			*ret = span_of(place_path(p->reader, *ret));
		return ret->ptr != NULL;
	}
	CLEANUP(buf_releasep) struct buf joined = BUF_INIT(64u << 10);
	struct list_text l = {.out = &joined, .paths = setting->path};
	value_list(p, 1024, append_element, &l);
	if (joined.error)
		place_mistake(p, "the list is too long");
	if (l.wrong || joined.error)
		return false;
	*ret = span_of(place_text(p->reader, buf_span(&joined)));
	return ret->ptr != NULL;
}

/* As the keys of backends are written, so that `Broker_URL` is found. */
static struct span lower(const struct place *p, struct span key)
{
	char *copy = place_text(p->reader, key);
	for (char *c = copy; c && *c; c++)
		if (*c >= 'A' && *c <= 'Z')
			*c = (char)(*c | 0x20);
	return span_of(copy);
}

static void unknown_setting(const struct place *p, const struct task_backend *backend, struct span key)
{
	const char *known[TASK_SETTINGS_MAX + 4];
	size_t n = 0;
	for (const struct task_setting *s = backend->settings; s->key && n < TASK_SETTINGS_MAX; s++)
		known[n++] = s->key;
	known[n++] = "fail_fast";
	known[n++] = "when_not_ready";
	known[n++] = "breaker";
	known[n++] = "max_in_flight";
	unknown_key(p, key, known, n);
}

/* The setting of this key, made when it is not there yet. */
static struct backend_setting *add_setting(struct backend_config *b, const char *key)
{
	size_t i = 0;
	while (i < b->n_settings && !span_is(b->settings[i].key, key))
		i++;
	assert(i < TASK_SETTINGS_MAX); /* only those that a backend declares get here */
	if (i == b->n_settings)
		b->n_settings++;
	b->settings[i].key = span_of(key);
	return &b->settings[i];
}

static void read_setting(const struct place *p, const struct yaml_node *n, const struct task_backend *backend,
			 struct backend_config *b)
{
	const struct task_setting *known = task_setting_find(backend, lower(p, n->key->text));
	struct span value;
	if (!known) {
		struct place here = *p;
		here.node = n; /* the line of the unknown key itself, also when it has no value */
		unknown_setting(&here, backend, n->key->text);
		return;
	}
	if (!p->node || !setting_value(p, known, &value))
		return;
	struct backend_setting *s = add_setting(b, known->key);
	s->value = value;
	s->line = n->key->line;
}

static const char *const when_not_ready[] = {"legacy", "submit"};

static void read_settings(const struct place *p, const struct task_backend *backend, struct backend_config *b)
{
	if (!p->node || !value_mapping(p))
		return;
	for (const struct yaml_node *n = p->node->first; n; n = n->next) {
		struct place member = place_item(p, n);
		size_t choice = 0;
		uint64_t v;
		if (span_is(n->key->text, "fail_fast")) /* the router's own: no backend reads it */
			value_bool(&member, &b->fail_fast);
		else if (span_is(n->key->text, "when_not_ready"))
			b->submit_anyway = value_choice(&member, when_not_ready, 2, &choice) && choice == 1;
		else if (span_is(n->key->text, "breaker"))
			read_breaker(&member, &b->breaker);
		else if (span_is(n->key->text, "max_in_flight"))
			b->max_in_flight = value_unsigned(&member, 1, 1000000, &v) ? (unsigned)v : 0;
		else
			read_setting(&member, n, backend, b);
	}
}

/* The first variable of a setting that is set; it wins over the file. */
static void apply_variables(struct config_reader *r, const struct task_setting *known,
			    struct backend_config *b)
{
	for (size_t i = 0; i < TASK_SETTING_VARIABLES && known->variables[i]; i++) {
		const char *value = environment_get(r, known->variables[i]);
		if (!value)
			continue;
		struct backend_setting *s = add_setting(b, known->key);
		/* the environment's own memory may change */
		s->value = span_of(place_text(&r->file, span_of(value)));
		s->variable = known->variables[i];
		return;
	}
}

/* --- backends ------------------------------------------------------------------------------------------- */

int config_backend_not_found(const struct config *c, struct span name, struct err *e)
{
	CLEANUP(buf_releasep) struct buf list = BUF_INIT(1024);
	if (!task_backend_find(name))
		return task_backend_not_found(name, e);
	for (size_t i = 0; i < c->n_backends; i++)
		buf_printf(&list, "%s%.*s", i ? ", " : "", SPAN_ARG(c->backends[i].name));
	return err_set(e, -EINVAL, "no backend \"%.*s\" is declared under backends (declared: %s)",
		       SPAN_ARG(name), list.len ? list.ptr : "none");
}

void backend_mistake(const struct place *p, struct span name)
{
	struct err e;
	config_backend_not_found(config_of(p), name, &e);
	place_mistake(p, "%s", e.text);
}

/* One more, with its settings of the file (`p` NULL: none) and of the environment. */
static void declare(struct config_reader *r, const struct task_backend *backend, const struct place *p,
		    unsigned line)
{
	struct config *c = r->config;
	assert(c->n_backends < CONFIG_MAX_BACKENDS); /* each backend of the build once */
	struct backend_config *b = &c->backends[c->n_backends++];
	b->name = span_of(backend->name);
	b->line = line;
	b->fail_fast = c->fail_fast;
	b->breaker = config_breaker_default();
	unsigned before = r->file.mistakes;
	if (p)
		read_settings(p, backend, b);
	b->misread = r->file.mistakes != before;
	for (const struct task_setting *s = backend->settings; s->key; s++)
		apply_variables(r, s, b);
}

static void read_declared(const struct place *p)
{
	if (!p->node || !value_mapping(p))
		return;
	for (const struct yaml_node *n = p->node->first; n; n = n->next) {
		struct place member = place_item(p, n);
		const struct task_backend *backend = task_backend_find(n->key->text);
		if (backend) {
			declare(config_reader_of(p), backend, &member, n->key->line);
			continue;
		}
		member.node = n;
		backend_mistake(&member, n->key->text);
	}
}

/* The backend that the environment names; NULL when it names none, or two. */
static const char *environment_backend(struct config_reader *r, const char **ret_variable)
{
	const char *queue = environment_get(r, "TASK_QUEUE_BACKEND"),
		   *type = environment_get(r, "TASK_BACKEND_TYPE");
	if (queue && type && strcmp(queue, type) != 0) {
		environment_mistake(r, "TASK_QUEUE_BACKEND",
				    "is \"%s\", but TASK_BACKEND_TYPE is \"%s\"; set one of them", queue,
				    type);
		return NULL;
	}
	*ret_variable = queue ? "TASK_QUEUE_BACKEND" : "TASK_BACKEND_TYPE";
	return queue ? queue : type;
}

/* "One variable switches the backend": what it names need not be in the file. */
static void use_environment_backend(struct config_reader *r, const char *variable, struct span name)
{
	struct config *c = r->config;
	const struct task_backend *backend = task_backend_find(name);
	struct err e;
	if (!backend) {
		task_backend_not_found(name, &e);
		environment_mistake(r, variable, "%s", e.text);
		return;
	}
	c->default_backend = span_of(backend->name);
	if (!config_backend(c, c->default_backend))
		declare(r, backend, NULL, 0);
}

/* Without a word about it: embedded, or the only one. */
static void choose_default(struct config *c)
{
	if (config_backend(c, SPAN_LIT("embedded")))
		c->default_backend = config_backend(c, SPAN_LIT("embedded"))->name;
	else if (c->n_backends == 1)
		c->default_backend = c->backends[0].name;
}

static bool parse_switch(const char *text, bool *ret)
{
	static const char *const yes[] = {"true", "1", "yes", "on"}, *const no[] = {"false", "0", "no",
										    "off"};
	for (size_t i = 0; i < 4; i++) {
		if (strcasecmp(text, yes[i]) == 0 || strcasecmp(text, no[i]) == 0) {
			*ret = strcasecmp(text, yes[i]) == 0;
			return true;
		}
	}
	return false;
}

/* The switch and a token are all that the Python services give. A wrong value of the switch is reported by
 * read_environment_defaults. */
static void declare_hatchet_by_environment(struct config_reader *r)
{
	const char *text = environment_get(r, "HATCHET_BACKEND_ENABLED");
	const struct task_backend *hatchet = task_backend_find(SPAN_LIT("hatchet"));
	bool wanted;
	if (!text || !parse_switch(text, &wanted) || !wanted || !hatchet ||
	    config_backend(r->config, SPAN_LIT("hatchet")))
		return;
	if (environment_get(r, "HATCHET_CLIENT_TOKEN") || environment_get(r, "HATCHET_TOKEN"))
		declare(r, hatchet, NULL, 0);
}

void read_backends(const struct place *root)
{
	struct config_reader *r = config_reader_of(root);
	struct config *c = r->config;
	struct place declared = place_member(root, "backends"), chosen = place_member(root, "backend");
	struct span name;
	read_declared(&declared);
	if (value_text(&chosen, &name)) {
		c->default_backend = name;
		if (!config_backend(c, name))
			backend_mistake(&chosen, name);
	} else if (!chosen.node) {
		choose_default(c);
	}
	declare_hatchet_by_environment(r);
	const char *variable = "", *from_environment = environment_backend(r, &variable);
	if (from_environment)
		use_environment_backend(r, variable, span_of(from_environment));
}

/* --- values --------------------------------------------------------------------------------------------- */

static void judge_backend(struct config_reader *r, const struct backend_config *b)
{
	struct task_options *o = NULL;
	struct err e = {""};
	const struct task_backend_setup setup = {.data_dir = r->config->data_dir,
						 .getenv_fn = r->getenv_fn,
						 .only_looking = true,
						 .problems = r->file.problems};
	int code = task_options_new(task_backend_find(b->name), &o, &e);
	bool good = code == 0 && !b->misread;
	for (size_t i = 0; code == 0 && i < b->n_settings; i++) {
		const struct backend_setting *s = &b->settings[i];
		if (task_options_set(o, s->key, s->value, &e) == 0)
			continue;
		good = false;
		if (s->variable)
			environment_mistake(r, s->variable, "%s", e.text);
		else
			buf_printf(r->file.problems, "%s:%u: backends.%.*s.%.*s: %s\n", r->file.name, s->line,
				   SPAN_ARG(b->name), SPAN_ARG(s->key), e.text);
	}
	e.text[0] = '\0';
	if (good && task_options_check(o, &setup, &e) < 0 && e.text[0])
		buf_printf(r->file.problems, "%s:%u: backends.%.*s: %s\n", r->file.name, b->line,
			   SPAN_ARG(b->name), e.text);
	task_options_free(o);
}

void judge_backends(struct config_reader *r)
{
	for (size_t i = 0; i < r->config->n_backends; i++)
		judge_backend(r, &r->config->backends[i]);
}

/* --- flags' defaults from the environment --------------------------------------------------------------- */

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
					    "expected true, false, 1, 0, yes, no, on or off, not \"%.60s\"",
					    text);
			continue;
		}
		c->env_defaults[c->n_env_defaults].flag = span_of(switches[i].flag);
		c->env_defaults[c->n_env_defaults++].value = value;
	}
}
