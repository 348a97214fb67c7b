/* `state:` where what replicas must find of each other is kept (design, "Replicas"). */
#include "config/config_reader.h"

#include <string.h>

#include "base/redis_url.h"

#define STATE_PREFIX "migration-router:"
#define STATE_PREFIX_MAX 128
#define STATE_TIMEOUT_MS 2000
#define STATE_VARIABLE "MIGRATION_STATE_URL"

/* NULL: none. The sentence has no password. */
static const char *state_url_mistake(struct span url, struct err *e)
{
	struct redis_url u;
#ifndef CONFIG_HAS_REDIS
	(void)u;
	err_set(e, 0, "this build has no Redis client (hiredis)");
	return e->text;
#else
	int r = redis_url_parse(url, &u, e);
	if (r == 0)
		r = redis_url_set_master(&u, NULL, e);
	redis_url_release(&u);
	return r < 0 ? e->text : NULL;
#endif
}

static void take_url(const struct place *p, struct span url)
{
	struct config *c = config_of(p);
	struct err e = {""};
	if (span_is(url, "file"))
		return;
	const char *wrong = state_url_mistake(url, &e);
	if (wrong)
		place_mistake(p, "%s", wrong);
	else
		c->state.url = place_text(p->reader, url);
}

static void check_prefix(const struct place *p, const char *prefix)
{
	size_t n = strlen(prefix);
	bool plain = n <= STATE_PREFIX_MAX;
	for (size_t i = 0; i < n; i++)
		plain = plain && prefix[i] > ' ' && prefix[i] < 0x7f && prefix[i] != '{' && prefix[i] != '}';
	if (!plain)
		place_mistake(p, "expected up to %d printable ASCII characters without blanks and braces",
			      STATE_PREFIX_MAX);
}

static void read_state_environment(struct config_reader *r)
{
	struct err e = {""};
	const char *value = environment_get(r, STATE_VARIABLE);
	if (!value)
		return;
	r->config->state.url = NULL;
	if (strcmp(value, "file") == 0)
		return;
	const char *wrong = state_url_mistake(span_of(value), &e);
	if (wrong)
		environment_mistake(r, STATE_VARIABLE, "%s", wrong);
	else
		r->config->state.url = place_text(&r->file, span_of(value));
}

void read_state(const struct place *p)
{
	static const struct field fields[] = {
		{"url", FIELD_OTHER, 0, 0, 0},
		{"prefix", FIELD_TEXT, offsetof(struct config, state.prefix), 0, 0},
		{"timeout", FIELD_DURATION, offsetof(struct config, state.timeout_ms), 50, 10000},
	};
	struct config *c = config_of(p);
	struct span url;
	c->state.prefix = STATE_PREFIX;
	c->state.timeout_ms = STATE_TIMEOUT_MS;
	if (p->node && p->node->kind == YAML_SCALAR) {
		if (value_text(p, &url))
			take_url(p, url);
	} else if (p->node) {
		READ_FIELDS(p, fields, c);
		struct place of_url = place_member(p, "url"), of_prefix = place_member(p, "prefix");
		if (value_text(&of_url, &url))
			take_url(&of_url, url);
		else if (!of_url.node && !environment_get(config_reader_of(p), STATE_VARIABLE))
			place_mistake(p, "url is missing: replicas would share nothing (or set %s)",
				      STATE_VARIABLE);
		check_prefix(&of_prefix, c->state.prefix);
	}
	read_state_environment(config_reader_of(p));
}
