/*
 * Configuration of the router: one YAML file and the environment, read into plain immutable structs.
 *
 * Why:       reading configuration is a different thing from running; every mistake is found and named at once, with file,
 *            line and key, before anything is changed.
 * Ownership: reference-counted; everything inside is borrowed until the last reference is dropped. A request holds one.
 * Threads:   immutable after config_load.
 * Limits:    CONFIG_MAX_* below.
 *
 * The keys of the file are described in config/router.yml and in migration-router.yml(5).
 */
#ifndef CONFIG_CONFIG_H
#define CONFIG_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/span.h"
#include "flags/flags.h"
#include "flags/source/flipt_credential.h"
#include "operation/cidr.h"
#include "operation/template.h"
#include "router/forward.h"
#include "tasks/task_backend.h"

#define LEGACY_HOST_UPSTREAM ""
#define CONFIG_MAX_FILE (4u << 20)
#define CONFIG_MAX_SERVICES 16
#define CONFIG_MAX_OPERATIONS 256 /* per service */
#define CONFIG_MAX_FLAGS 8	  /* per operation */
#define CONFIG_MAX_SOURCES 8	  /* per identity part */
#define CONFIG_MAX_CONTEXT 16	  /* own context entries per operation */
#define CONFIG_MAX_CONTEXT_SOURCES 4 /* per entry */
#define CONFIG_MAX_BACKENDS 8

/* Where a part of the identity is looked for. */
enum identity_source_kind { IDENTITY_HEADER, IDENTITY_QUERY, IDENTITY_BODY, IDENTITY_PATH, IDENTITY_COOKIE };
struct identity_source {
	enum identity_source_kind kind;
	struct span name; /* of the field, parameter or cookie, or JSON pointer */
};
enum identity_part { IDENTITY_USER, IDENTITY_ORGANISATION };
struct identity_sources {
	struct identity_source user[CONFIG_MAX_SOURCES], organisation[CONFIG_MAX_SOURCES];
	size_t n_user, n_organisation;
	enum identity_part entity[2]; /* which part becomes the flags' entity id, in this order */
	size_t n_entity;
	bool needs_body; /* some source is IDENTITY_BODY */
};

/* Says which side a variant means, where the operation maps variants itself. */
struct variant_map {
	struct span variant;
	bool task;
	bool shadow;
	struct span backend; /* SPAN_NONE: the default one */
};

enum auth_kind { AUTH_UNSET, AUTH_NONE, AUTH_BEARER };
struct auth {
	enum auth_kind kind;
	/* AUTH_BEARER: lower-case hex SHA-256 of each accepted token, sorted */
	char (*hashes)[65];
	size_t n_hashes;
	struct span file;
};

/* How an operation becomes a task and its result an answer (design, "Mapping"). */
struct task_mapping {
	struct span task; /* name of the task or workflow */
	bool workflow;
	struct span queue;
	struct span backend; /* SPAN_NONE: the default backend */
	struct template *args;	 /* NULL: [] */
	struct template *kwargs; /* NULL: {} */
	bool single_input;
	bool idempotent; /* may fall back to legacy, may be run again */
	unsigned timeout_ms;	  /* how long the caller waits; then 504 with the task's id */
	unsigned task_timeout_ms; /* how long the task may run in the backend */
	int priority;
	unsigned expires_ms;
	bool respond_async; /* Prefer: respond-async is honoured */
	bool fire_and_forget; /* 202 once it is accepted; nobody waits for its result */
	struct response_template *response; /* NULL: 200 with the task's result as it is */
	bool needs_body;		    /* a template looks into the request's body */
};

/* What its backend will be asked to run. */
static inline struct task_probe task_mapping_probe(const struct task_mapping *t)
{
	return (struct task_probe){.task = t->task, .workflow = t->workflow, .queue = t->queue, .priority = t->priority,
				   .unawaited = t->fire_and_forget};
}

struct operation {
	struct span name;    /* "answer" */
	struct span service; /* "prompt": its service's name */
	struct span method;
	struct span path; /* template: /v1/{name}/x; a segment in braces takes one segment */
	struct span flags[CONFIG_MAX_FLAGS]; /* all must say task; none: legacy always (unmapped to flags) */
	size_t n_flags;
	struct identity_sources identity;
	struct {
		struct span key, value; /* value: a literal; SPAN_NONE where it is looked for in the request */
		struct identity_source sources[CONFIG_MAX_CONTEXT_SOURCES];
		size_t n_sources;
	} context[CONFIG_MAX_CONTEXT];
	size_t n_context;
	bool context_sources; /* some entry has them */
	struct variant_map *variants;
	size_t n_variants;
	bool has_task; /* an operation without one always goes to legacy */
	struct task_mapping task;
	struct auth auth;	      /* checked before a task is submitted, not on the legacy path */
	struct response_template *error; /* NULL: application/problem+json. Over error:status, error:title, error:detail */
	unsigned legacy_timeout_ms;   /* 0: the service's */
	bool unified; /* the router's own endpoint: on the legacy side `legacy_path` is called and the answer wrapped */
	struct span legacy_method, legacy_path; /* where it differs on the legacy side; SPAN_NONE: as received */
	struct template *legacy_body;		     /* NULL: the body as received */
	struct response_template *legacy_response;   /* NULL: byte for byte. Needs the whole answer (bounded) */
	bool legacy_needs_body;			     /* one of the two looks into the request's body */
	struct span pin_key; /* ledger: where the key of follow-up calls lies ("body:/container_name", "query:…"), or NONE */
	bool pin_start;	     /* this operation begins an entry; others follow it */
	bool pin_end;	     /* this operation ends it when it succeeds */
	struct span pin_group; /* operations that share keys */
};

struct service {
	struct span name;
	const char *listen;	/* "127.0.0.1:5002" */
	const char *legacy_url; /* "http://127.0.0.1:15002" */
	const char *legacy_ca_file;
	unsigned max_in_flight; /* requests, all threads; above it 503 + Retry-After */
	unsigned max_connections;
	uint64_t max_body;	/* declared or read; above it 413. 0: no limit */
	unsigned connect_timeout_ms, response_timeout_ms, idle_timeout_ms; /* towards legacy */
	unsigned head_timeout_ms, client_idle_timeout_ms, drain_timeout_ms;
	unsigned legacy_max_connections, legacy_max_kept, legacy_keep_ms;
	bool half_close_is_gone;
	enum forward_forwarded forwarded;
	bool via_off;
	/* Host and SNI of what legacy gets. NULL: the caller's Host; LEGACY_HOST_UPSTREAM: the URL's; else this name. */
	const char *legacy_host;
	struct operation *operations;
	size_t n_operations;
};

struct backend_setting {
	struct span key, value;
	unsigned line;	      /* in the file */
	const char *variable; /* of the environment that it was taken from, or NULL */
};

struct backend_config {
	struct span name; /* lives as long as the program */
	/* Those that the backend knows, by its keys; values as written. The backend reads them (tasks/task_options.h). */
	struct backend_setting settings[32];
	size_t n_settings;
	unsigned line;
	bool misread;	/* a setting could not be taken: what is missing then is no mistake of its own */
	bool fail_fast; /* start-up stops when it cannot be reached, or lacks a task or a worker; default: the configuration's */
	bool submit_anyway; /* when_not_ready: submit: also what it is known not to run at present */
};

enum access_log_mode { ACCESS_LOG_OFF, ACCESS_LOG_ERRORS, ACCESS_LOG_ALL };

enum flag_source_kind { FLAG_SOURCE_FILE, FLAG_SOURCE_FLIPT };

struct config {
	const char *path;     /* of the file */
	const char *data_dir; /* where data/… of the defaults lies, absolute or relative to the working folder */
	struct service *services;
	size_t n_services;
	struct backend_config backends[CONFIG_MAX_BACKENDS];
	size_t n_backends;
	struct span default_backend; /* TASK_QUEUE_BACKEND, TASK_BACKEND_TYPE */
	bool fail_fast;		     /* of backends that do not say it themselves */
	struct span hatchet_flag;    /* the flag that moves the default backend to hatchet: hatchet_backend_enabled. NONE: none */
	/* Defaults from the environment for flags that exist nowhere (design): */
	struct {
		struct span flag;
		bool value;
	} env_defaults[8];
	size_t n_env_defaults;

	struct {
		enum flag_source_kind kind;
		const char *file; /* features file; relative to the configuration's folder when relative */
		enum flag_rules rules; /* of a file, and of a server that does not tell its version */
		bool rules_given;
		const char *url, *namespace_key, *environment, *ca_file, *snapshot_file; /* flipt */
		enum flipt_auth auth;
		const char *token, *token_file; /* token: as it was when the configuration was read; token_file: NULL where the environment says it */
		unsigned poll_ms, timeout_ms, stream_idle_ms;
		bool stream;
	} flags;

	struct {
		const char *path;
		unsigned flush_ms, queue_slots, retention_days, retention_rollup_days;
		uint64_t max_bytes;
		bool hash_users;
	} outcomes;

	struct {
		const char *listen; /* admin listener: healthz, readyz, metrics, dashboard */
		struct auth auth;
		struct span *hosts; /* names that it may be called by, besides loopback's and its own address */
		size_t n_hosts;
	} admin;

	struct {
		bool enabled;
		const char *secret_sha256; /* hex of the secret that X-Migration-Override-Secret must hash to */
	} override;

	struct {
		struct span *cidr; /* text, checked */
		struct cidr *ranges; /* the same, parsed: config_trusts_peer */
		size_t n_cidr;
	} trusted_proxies; /* default: 127.0.0.0/8, ::1 and unix */

	enum access_log_mode access_log;
	const char *access_log_file; /* NULL: standard error */

	unsigned threads; /* data-plane threads; 0: one per core */
	size_t max_head;
	size_t max_inspect_body;	/* per request */
	uint64_t max_inspect_memory; /* of all requests together */
	unsigned drain_timeout_ms;
};

/* Reads `path` and the environment. Every mistake is appended to `problems` as one line "file:line: key: what is wrong"
 * (warnings too, they begin with "warning: "); -EBADMSG when there was one that is not a warning. Relative paths in
 * the file are relative to the file's folder. `getenv_fn` is getenv, or a test's. */
int config_load(const char *path, const char *(*getenv_fn)(const char *), struct buf *problems, struct config **ret);
/* Only what says where flags and outcomes lie: for emergencies, where the rest is broken. No services, no backends. */
int config_load_flags(const char *path, const char *(*getenv_fn)(const char *), struct buf *problems, struct config **ret);
/* The same from memory. `name` is what messages call the text, and relative paths are relative to its folder. */
int config_parse(const char *name, struct span text, const char *(*getenv_fn)(const char *), struct buf *problems,
		 struct config **ret);
struct config *config_ref(const struct config *c);
struct config *config_unref(const struct config *c); /* NULL is fine; returns NULL */

const struct backend_config *config_backend(const struct config *c, struct span name);
/* -EINVAL with a sentence about a name that config_backend does not find: no such backend, left out, or not declared; and those that there
 * are. */
int config_backend_not_found(const struct config *c, struct span name, struct err *e);
const struct service *config_service(const struct config *c, struct span name);
const struct operation *service_operation(const struct service *s, struct span name);
/* One setting of a backend by its key, SPAN_NONE when it is not there. */
struct span backend_setting(const struct backend_config *b, const char *key);
/* Whether identity headers from this peer count. */
bool config_trusts_peer(const struct config *c, const struct sockaddr *peer, socklen_t peer_length);

#endif
