/*
 * Reading of the configuration, by base/places.h. Private to src/config/config*.c.
 *
 * Why:       each section is a function and a table of its keys, in a file of its own.
 * Ownership: everything made here belongs to the configuration being read.
 * Secrets:   values that may hold one (URLs, hashes, tokens) are never repeated in a message.
 */
#ifndef CONFIG_CONFIG_READER_H
#define CONFIG_CONFIG_READER_H

#include <stdatomic.h>

#include "base/places.h"
#include "config/config.h"

struct config_reader {
	struct place_reader file; /* first: a place's reader is one of these */
	struct config *config;
	const char *(*getenv_fn)(const char *);
};

/* Of a place in router.yml. */
static inline struct config_reader *config_reader_of(const struct place *p)
{
	return (struct config_reader *)p->reader;
}
static inline struct config *config_of(const struct place *p)
{
	return config_reader_of(p)->config;
}

/* What a configuration really is (config_memory.c). */
struct config_whole {
	struct config pub; /* first: a public configuration is one of these */
	atomic_uint refs;
	struct yaml_doc *doc; /* names and texts point into it */
	struct arena memory;
};
void config_whole_free(struct config_whole *w);

/* A mistake of a variable in the environment. */
void environment_mistake(struct config_reader *r, const char *variable, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* The variable, NULL if unset or empty. */
const char *environment_get(struct config_reader *r, const char *variable);

#define FIELD_LISTEN FIELD_OWN			    /* const char *: address:port */
bool value_listen(const struct place *p, void *to); /* const char *; of config_reader.file.own */
bool listen_is_loopback(const char *listen);

/* --- the sections --------------------------------------------------------------------------------------- */
/* Identity and entity of one level over what the level above says. */
void read_identity(const struct place *section, struct identity_sources *s);
void read_entity(const struct place *p, struct identity_sources *s);
bool identity_uses(const struct identity_sources *s, enum identity_source_kind kind);
/* "header:…", "query:…", "body:/…", "path:…" */
bool is_source(struct span text); /* whether it begins as one */
bool parse_source(const struct place *p, struct span text, struct identity_source *ret);

/* What operations inherit. */
struct config_defaults {
	struct place error, tokens; /* of the nearest level that has them; node NULL: none */
	struct identity_sources sources;
	struct guard_policy guard;
};

struct guard_policy config_guard_default(void);
void read_guard(const struct place *p, struct guard_policy *ret);
void read_guard_webhook(const struct place *guard); /* of the top */

void read_services(const struct place *root);
void read_operation(const struct place *p, const struct config_defaults *above, struct operation *op);
void read_task(const struct place *p, struct operation *op);
/* `auth:` with the tokens file of this place or, without one, of `inherited`. */
void read_auth(const struct place *auth, const struct place *tokens, struct auth *ret);
/* `auth:` of the admin listener: bearer or none. */
void read_admin_auth(const struct place *auth, const struct place *tokens, struct auth *ret);
/* `writers:` of the admin listener. Their tokens read as well, where a token is asked for. */
void read_admin_writers(const struct place *p, struct config *c);
void read_idempotency(const struct place *p, struct operation *op);
/* Template and response template of a place that may be absent; NULL then. */
struct template *read_template(const struct place *p, unsigned allowed);
struct response_template *read_response(const struct place *p, unsigned allowed);

void read_backends(const struct place *root);
struct breaker_config config_breaker_default(void);
void read_breaker(const struct place *p, struct breaker_config *ret);
/* What the backends report about their settings, and about the files these name. */
void judge_backends(struct config_reader *r);
/* Reports why this name is not a usable backend: unknown, left out of this build, or not
 * declared. */
void backend_mistake(const struct place *p, struct span name);
void read_environment_defaults(struct config_reader *r);
void read_flag_source(const struct place *p);
void read_outcomes(const struct place *p);
void read_state(const struct place *p);
void read_traces(const struct place *p);
void read_routers(const struct place *p);
void read_admin(const struct place *p, const struct place *tokens);
void read_override(const struct place *p);
void read_trusted_proxies(const struct place *p);
void read_limits(const struct place *p);
void read_compare_limits(const struct place *p);
/* safe_to_shadow, shadow, compare: after the task, the variants and the legacy side. */
void read_shadow(const struct place *p, struct operation *op);
void read_access_log(const struct place *p);
void read_rollouts(const struct place *p); /* after the services, whose flags they are about */

/* What can only be checked as a whole: addresses used twice, listeners without trusted proxies, … */
void check_config(const struct place *root);

#endif
