/* `guard:` at the top, of a service or of an operation: what is asked of the guard, and what a breach
 * does. */
#include "config/config_reader.h"

#include <sys/stat.h>

#include "base/file.h"

#define SECRET_MIN 16
#define SECRET_MAX 4096

static const char *const actions[] = {"off", "watch", "hold", "rollback"}; /* as enum guard_action */

struct guard_policy config_guard_default(void)
{
	return (struct guard_policy){.on_breach = GUARD_ACTION_WATCH,
				     .alpha = 0.01,
				     .tolerated = 0.1,
				     .harm = 2,
				     .negligible = 0.01,
				     .slow_factor = 2};
}

/* A plain number between the two; false when it is not there, or wrong and said so. */
static bool guard_number(const struct place *p, double min, double max, const char *what, double *ret)
{
	double value;
	if (!p->node)
		return false;
	if (!yaml_double(p->node, &value) || value < min || value > max) {
		place_mistake(p, "expected %s from %g to %g, not %s", what, min, max,
			      place_shown(p->node).text);
		return false;
	}
	*ret = value;
	return true;
}

static void guard_percent(const struct place *section, const char *key, double min, double max, double *ret)
{
	struct place p = place_member(section, key);
	if (guard_number(&p, min, max, "a percentage", ret))
		*ret /= 100;
}

static void read_slow(const struct place *p, struct guard_policy *ret)
{
	struct span text;
	if (p->node && yaml_string(p->node, &text) && span_is(text, "off"))
		ret->slow_factor = 0;
	else
		guard_number(p, 1, 1000, "off, or a multiple of legacy's p99", &ret->slow_factor);
}

static void read_action(const struct place *p, struct guard_policy *ret)
{
	size_t which;
	if (value_choice(p, actions, sizeof(actions) / sizeof(actions[0]), &which))
		ret->on_breach = (enum guard_action)which;
}

/* Over what the level above says. */
void read_guard(const struct place *p, struct guard_policy *ret)
{
	static const struct field fields[] = {
		{"on_breach", FIELD_OTHER, 0, 0, 0},
		{"alpha", FIELD_OTHER, 0, 0, 0},
		{"tolerated", FIELD_OTHER, 0, 0, 0},
		{"harm", FIELD_OTHER, 0, 0, 0},
		{"negligible", FIELD_OTHER, 0, 0, 0},
		{"slow", FIELD_OTHER, 0, 0, 0},
		{"webhook", FIELD_OTHER, 0, 0, 0},
		{"write", FIELD_BOOL, offsetof(struct guard_policy, write), 0, 0},
	};
	if (!p->node)
		return;
	if (p->node->kind == YAML_SCALAR) {
		read_action(p, ret);
		return;
	}
	READ_FIELDS(p, fields, ret);
	struct place action = place_member(p, "on_breach"), harm = place_member(p, "harm");
	struct place slow = place_member(p, "slow"), webhook = place_member(p, "webhook");
	struct place write = place_member(p, "write");
	read_action(&action, ret);
	guard_percent(p, "alpha", 0.0001, 20, &ret->alpha);
	guard_percent(p, "tolerated", 0, 1000, &ret->tolerated);
	guard_number(&harm, 1.01, 1000, "a factor", &ret->harm);
	guard_percent(p, "negligible", 0, 50, &ret->negligible);
	read_slow(&slow, ret);
	if (ret->harm <= 1 + ret->tolerated)
		place_mistake(harm.node ? &harm : p,
			      "harm %g must exceed what is tolerated, %g times legacy's", ret->harm,
			      1 + ret->tolerated);
	if (write.node && ret->write && ret->on_breach < GUARD_ACTION_HOLD)
		place_mistake(&write,
			      "needs on_breach: hold or rollback: what is only watched sets nothing back");
	if (webhook.node && p->up && p->up->up)
		place_mistake(&webhook, "can only be set once, in guard: at the top of the file");
}

static void read_secret(const struct place *p, const char *path, const char **ret)
{
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(SECRET_MAX + (128u << 10));
	struct err e = {""};
	struct stat st;
	if (stat(path, &st) != 0 || !S_ISREG(st.st_mode)) {
		place_mistake(p, "%s: not a regular file", path);
		return;
	}
	if (file_read(path, SECRET_MAX, &text, &e) < 0) {
		place_mistake(p, "%s", e.text);
		return;
	}
	struct span secret = span_strip(buf_span(&text));
	if (secret.len < SECRET_MIN)
		place_mistake(p, "%s: a secret of at least %d characters", path, SECRET_MIN);
	else
		*ret = place_text(p->reader, secret);
}

void read_guard_webhook(const struct place *guard)
{
	struct config *c = config_of(guard);
	struct place p = place_member(guard, "webhook");
	static const struct field fields[] = {
		{"url", FIELD_URL, offsetof(struct config, webhook.url), 0, 0},
		{"ca_file", FIELD_FILE, offsetof(struct config, webhook.ca_file), 0, 0},
		{"secret_file", FIELD_OTHER, 0, 0, 0},
	};
	if (!guard->node || guard->node->kind == YAML_SCALAR || !p.node || !value_mapping(&p))
		return;
	READ_FIELDS(&p, fields, c);
	struct place url = place_member(&p, "url"), secret = place_member(&p, "secret_file");
	const char *path = NULL;
	if (!url.node)
		place_mistake(&url, "missing: the URL to POST to");
	if (!secret.node)
		place_mistake(&secret, "missing: the file with the secret that signs requests");
	else if (value_file(&secret, &path))
		read_secret(&secret, path, &c->webhook.secret);
}
