/*
 * Reading of the configuration: places in the file, typed values, and the list of problems. Private to
 * src/router/config*.c.
 *
 * Why:       each section says what keys it has in a table; everything that can be wrong with a value is said
 *            in one place, with file, line and the whole key, and reading goes on so that all mistakes come
 *            at once.
 * Ownership: everything made here belongs to the configuration being read.
 * Secrets:   values that may hold one (URLs, hashes, tokens) are never repeated in a message.
 */
#ifndef CONFIG_CONFIG_READER_H
#define CONFIG_CONFIG_READER_H

#include <stdatomic.h>

#include "base/buf.h"
#include "base/yaml.h"
#include "config/config.h"

struct config_reader {
	struct config *config;
	const char *name;   /* of the file, for messages */
	const char *folder; /* what relative paths are put behind: "" or "…/" */
	const char *(*getenv_fn)(const char *);
	struct buf *problems;
	unsigned mistakes;
	bool out_of_memory;
};

/* What a configuration really is (config_memory.c). */
struct config_piece;
struct config_whole {
	struct config pub; /* first: a public configuration is one of these */
	atomic_uint refs;
	struct yaml_doc *doc; /* names and texts point into it */
	struct config_piece *memory;
};
void config_whole_free(struct config_whole *w);

/* A value and the way to it. Lives on the stack of who reads; `up` outlives it. */
struct place {
	struct config_reader *reader;
	const struct place *up;
	const struct yaml_node *node; /* NULL: the key is not there (or has no value) */
	struct span key;	      /* SPAN_NONE in a list */
	size_t index;		      /* in a list */
};

struct place place_root(struct config_reader *r, const struct yaml_node *root);
struct place place_member(const struct place *up, const char *key);
struct place place_item(const struct place *up, const struct yaml_node *node); /* of a mapping */
struct place place_element(const struct place *up, const struct yaml_node *node, size_t index);

/* One line "file:line: key: sentence". */
void place_mistake(const struct place *p, const char *format, ...) __attribute__((format(printf, 2, 3)));
void place_warning(const struct place *p, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A mistake of a variable in the environment. */
void environment_mistake(struct config_reader *r, const char *variable, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* The variable, NULL when it is not set or empty. */
const char *environment_get(struct config_reader *r, const char *variable);

/* Zeroed memory that lives as long as the configuration; NULL when memory is out (and remembered). */
void *config_memory(struct config_reader *r, size_t n);
char *config_text(struct config_reader *r, struct span s);
/* A path as written, relative ones behind the file's folder. */
char *config_path(struct config_reader *r, struct span path);

/* --- values: false when absent, or when wrong and said so ----------------------------------------------- */
bool value_text(const struct place *p, struct span *ret); /* not empty */
bool value_bool(const struct place *p, bool *ret);
bool value_unsigned(const struct place *p, uint64_t min, uint64_t max, uint64_t *ret);
/* 4096, 16KiB, 1GB */
bool value_size(const struct place *p, uint64_t min, uint64_t max, uint64_t *ret);
bool value_duration(const struct place *p, uint64_t min, uint64_t max, uint64_t *ret); /* ms; 5s, 2m, 500ms */
bool value_listen(const struct place *p, const char **ret);			       /* address:port */
bool value_url(const struct place *p, const char **ret);			       /* http or https */
/* a path that can be read */
bool value_file(const struct place *p, const char **ret);
/* One of `names`; its index. */
bool value_choice(const struct place *p, const char *const *names, size_t n, size_t *ret);
/* A mapping (or nothing at all, which is an empty one); a mistake otherwise. */
bool value_mapping(const struct place *p);
/* A list, or a single value in place of one; calls `each` for every element. More than `max` is a mistake. */
void value_list(const struct place *p, size_t max, void (*each)(const struct place *element, void *arg),
		void *arg);
/* Letters, digits, '_', '-', '.', at most `max` bytes: names of services, operations, flags. */
bool check_name(const struct place *p, struct span name, size_t max);
bool sha256_hex_valid(struct span text);
/* A copy with its scheme in lower case. */
char *config_url(struct config_reader *r, struct span url);
const char *url_mistake(struct span url); /* NULL when it is one that we can call, else what is wrong */
bool listen_is_loopback(const char *listen);

/* --- tables of keys ------------------------------------------------------------------------------------- */
enum field_kind {
	FIELD_SPAN,	/* struct span */
	FIELD_TEXT,	/* const char * */
	FIELD_PATH,	/* const char *, relative to the file's folder */
	FIELD_FILE,	/* the same, and it must be readable */
	FIELD_LISTEN,	/* const char * */
	FIELD_URL,	/* const char * */
	FIELD_BOOL,	/* bool */
	FIELD_UNSIGNED, /* unsigned */
	FIELD_SIZE,	/* uint64_t */
	FIELD_SIZE_T,	/* size_t */
	FIELD_DURATION, /* unsigned, milliseconds */
	FIELD_OTHER,	/* known; read by other code */
};

struct field {
	const char *key;
	enum field_kind kind;
	size_t offset;	   /* in the struct that is filled */
	uint64_t min, max; /* numbers, sizes (bytes), durations (ms) */
};

/* Reads the members of a mapping into `into`; keys that are not in the table are mistakes. */
void read_fields(const struct place *p, const struct field *fields, size_t n, void *into);
#define READ_FIELDS(p, fields, into) read_fields(p, fields, sizeof(fields) / sizeof((fields)[0]), into)
/* Says that a key is none of these, and which one was perhaps meant. */
void unknown_key(const struct place *p, struct span key, const char *const *known, size_t n);

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
};

void read_services(const struct place *root);
void read_operation(const struct place *p, const struct config_defaults *above, struct operation *op);
void read_task(const struct place *p, struct operation *op);
/* `auth:` with the tokens file of this place or, without one, of `inherited`. */
void read_auth(const struct place *auth, const struct place *tokens, struct auth *ret);
/* Template and response template of a place that may be absent; NULL then. */
struct template *read_template(const struct place *p, unsigned allowed);
struct response_template *read_response(const struct place *p, unsigned allowed);

void read_backends(const struct place *root);
/* What the backends say of their settings, and of the files that these name. */
void judge_backends(struct config_reader *r);
/* Says why this name is no backend that a task can go to: unknown, left out of this build, or not
 * declared. */
void backend_mistake(const struct place *p, struct span name);
void read_environment_defaults(struct config_reader *r);
void read_flag_source(const struct place *p);
void read_outcomes(const struct place *p);
void read_admin(const struct place *p, const struct place *tokens);
void read_override(const struct place *p);
void read_trusted_proxies(const struct place *p);
void read_limits(const struct place *p);
void read_access_log(const struct place *p);

/* What can only be seen in the whole: addresses used twice, listeners without trusted proxies, … */
void check_config(const struct place *root);

#endif
