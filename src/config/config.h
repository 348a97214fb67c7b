/*
 * Configuration of the router: one YAML file and the environment, read into plain immutable structs.
 *
 * Why:       reading configuration is a different thing from running; every mistake is found and named at
 *            once, with file, line and key, before anything is changed.
 * Ownership: reference-counted; everything inside is borrowed until the last reference is dropped. A request
 *            holds one.
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
#include "flags/source/flag_source.h"
#include "operation/cidr.h"
#include "operation/operation.h"
#include "outcomes/recorder.h"
#include "pairs/pairs.h"
#include "tasks/task_backend.h"
#include "tasks/task_options.h"
#include "traces/traces.h"

#define LEGACY_HOST_UPSTREAM ""
#define CONFIG_MAX_FILE (4u << 20)
#define CONFIG_MAX_MEMORY (1u << 30) /* beside the document */
#define CONFIG_MAX_SERVICES 16
#define CONFIG_MAX_OPERATIONS 256 /* per service */
#define CONFIG_MAX_BACKENDS 8

/* What a request claims about the hops before it: Forwarded, X-Forwarded-*, X-Real-IP and the like, with - or
 * _ in their names, since WSGI servers read both. Services trust them from loopback, where the router
 * runs. */
enum forward_forwarded {
	FORWARD_AUTO, /* of the configuration: keep from trusted proxies, replace from others */
	FORWARD_KEEP, /* as sent */
	/* the peer is added to X-Forwarded-For (and Forwarded); others stay from trusted peers, and are
	 * made anew from others */
	FORWARD_APPEND,
	FORWARD_REPLACE, /* rebuilt: what was sent is dropped */
	FORWARD_REMOVE,
};

struct service {
	struct span name;
	const char *listen;	/* "127.0.0.1:5002" */
	const char *legacy_url; /* "http://127.0.0.1:15002" */
	const char *legacy_ca_file;
	unsigned max_in_flight;			 /* requests, all threads; beyond it 503 + Retry-After */
	unsigned max_in_flight_per_organization; /* likewise. 0: no limit */
	unsigned max_connections;
	uint64_t max_body; /* declared or read; beyond it 413. 0: no limit */
	unsigned connect_timeout_ms, response_timeout_ms, idle_timeout_ms; /* toward legacy */
	unsigned head_timeout_ms, client_idle_timeout_ms, drain_timeout_ms;
	unsigned legacy_max_connections, legacy_max_kept, legacy_keep_ms;
	bool half_close_is_gone;
	enum forward_forwarded forwarded;
	bool via_off;
	/* Host and SNI of what legacy gets. NULL: the caller's Host; LEGACY_HOST_UPSTREAM: the URL's; else
	 * this name. */
	const char *legacy_host;
	struct operation *operations;
	size_t n_operations;
};

struct backend_setting {
	struct span key, value;
	unsigned line;	      /* in the file */
	const char *variable; /* of the environment that it was taken from, or NULL */
};

/* When to stop using a backend for a while (router/breaker.h). */
struct breaker_config {
	bool off;
	unsigned failures;    /* one after the other; and submissions without an answer */
	unsigned silence_ms;  /* this long without an answer is too long */
	unsigned open_for_ms; /* until it is tried again */
	unsigned probes;      /* at a time; and how many must succeed before it closes */
};

struct backend_config {
	struct span name; /* lives as long as the program */
	/* Settings the backend knows, by key; values as written. The backend reads them
	 * (tasks/task_options.h). */
	struct backend_setting settings[TASK_SETTINGS_MAX];
	size_t n_settings;
	unsigned line;
	bool misread; /* a setting could not be taken: what is missing then is not a separate mistake */
	/* startup stops when it cannot be reached, or lacks a task or a worker; default: the
	 * configuration's */
	bool fail_fast;
	bool submit_anyway; /* when_not_ready: submit: also what it is known not to run at present */
	struct breaker_config breaker;
	unsigned max_in_flight; /* tasks that are submitted and waited for, all threads. 0: no limit */
};

enum access_log_mode { ACCESS_LOG_OFF, ACCESS_LOG_ERRORS, ACCESS_LOG_ALL };

/* One step of a flag's rollout (design, "Phases"). */
struct rollout_step {
	struct span segment; /* all of it; SPAN_NONE: `percent` of everybody */
	double percent;
	/* requirements for leaving it: */
	uint64_t hold_ms;
	bool safe, manual;
	double differences_below; /* percent; <0: not asked for */
};

#define CONFIG_MAX_STEPS 32
struct rollout_steps {
	struct span flag;
	struct rollout_step steps[CONFIG_MAX_STEPS]; /* the first one is 0 */
	size_t n;
};

#define ADMIN_WRITERS_MAX 1001 /* one more than there may be */
#define ADMIN_WRITER_NAME 64
struct admin_writer {
	char hash[65]; /* lower-case hex SHA-256 of the token */
	char name[ADMIN_WRITER_NAME];
};

#define CONFIG_MAX_ROUTERS 16
/* Another router of this migration. */
struct router_peer {
	const char *name, *url;		  /* of its admin listener */
	const char *token_file, *ca_file; /* NULL: none, the system's */
};

struct config {
	const char *path; /* of the file */
	/* the base of the defaults' data/…, absolute or relative to the working folder */
	const char *data_dir;
	struct service *services;
	size_t n_services;
	struct backend_config backends[CONFIG_MAX_BACKENDS];
	size_t n_backends;
	struct span default_backend; /* TASK_QUEUE_BACKEND, TASK_BACKEND_TYPE */
	bool fail_fast;		     /* for backends that do not set it themselves */
	/* the flag that moves the default backend to hatchet: hatchet_backend_enabled. NONE: none */
	struct span hatchet_flag;
	/* Defaults from the environment for flags that exist nowhere (design): */
	struct {
		struct span flag;
		bool value;
	} env_defaults[8];
	size_t n_env_defaults;

	struct flag_source_options flags; /* paths are relative to the configuration's folder */
	struct recorder_options outcomes;
	struct pairs_options pairs;	    /* compare: */
	struct compare_redaction redaction; /* what no operation's samples may hold */

	struct {
		const char *url; /* NULL: the file; as base/redis_url.h reads it */
		const char *prefix;
		unsigned timeout_ms;
	} state; /* where the ledger keeps it; stays until a restart */

	struct {
		const char *listen; /* admin listener: healthz, readyz, metrics, dashboard */
		struct auth auth;
		/* names by which it may be called, besides loopback's and its own address */
		struct span *hosts;
		size_t n_hosts;
		struct admin_writer *writers; /* who may change percentages and release holds */
		size_t n_writers;
		unsigned session_ms; /* how long a browser stays signed in */
		bool https;	     /* it is reached over TLS only, which ends in front of it */
	} admin;

	struct rollout_steps *rollouts; /* by flag */
	size_t n_rollouts;

	struct {
		bool enabled;
		/* hex of the secret that X-Migration-Override-Secret must hash to */
		const char *secret_sha256;
	} override;

	struct {
		struct span *cidr;   /* text, checked */
		struct cidr *ranges; /* the same, parsed: config_trusts_peer */
		size_t n_cidr;
	} trusted_proxies; /* default: 127.0.0.0/8, ::1 and unix */

	struct {
		const char *url; /* NULL: none */
		const char *ca_file;
		const char *secret; /* as it was when the configuration was read */
	} webhook;		    /* of the guard */

	struct router_peer routers[CONFIG_MAX_ROUTERS]; /* whose reports are added; stays until a restart */
	size_t n_routers;

	struct traces_options traces; /* endpoint NULL: nothing is exported */

	enum access_log_mode access_log;
	const char *access_log_file; /* NULL: standard error */

	unsigned threads; /* data-plane threads; 0: one per core */
	size_t max_head;
	size_t max_inspect_body;     /* per request */
	uint64_t max_inspect_memory; /* of all requests together */
	unsigned drain_timeout_ms;
};

/* Reads `path` and the environment. Every mistake is appended to `problems` as one line "file:line: key: what
 * is wrong" (warnings too, they begin with "warning: "); -EBADMSG when there was one that is not a warning.
 * Relative paths in the file are relative to the file's folder. `getenv_fn` is getenv, or a test's. */
int config_load(const char *path, const char *(*getenv_fn)(const char *), struct buf *problems,
		struct config **ret);
/* Only where flags and outcomes are: for emergencies, when the rest is broken. No services, no
 * backends. */
int config_load_flags(const char *path, const char *(*getenv_fn)(const char *), struct buf *problems,
		      struct config **ret);
/* The same from memory. `name` is its name in messages, and relative paths are relative to its
 * folder. */
int config_parse(const char *name, struct span text, const char *(*getenv_fn)(const char *),
		 struct buf *problems, struct config **ret);
struct config *config_ref(const struct config *c);
struct config *config_unref(const struct config *c); /* NULL is allowed; returns NULL */

/* The steps of a flag; NULL: it has none. */
const struct rollout_steps *config_rollout(const struct config *c, struct span flag);
const struct backend_config *config_backend(const struct config *c, struct span name);
/* -EINVAL with a sentence about a name that config_backend does not find: no such backend, left out, or not
 * declared; and which backends there are. */
int config_backend_not_found(const struct config *c, struct span name, struct err *e);
const struct service *config_service(const struct config *c, struct span name);
const struct operation *service_operation(const struct service *s, struct span name);
/* One setting of a backend by its key, SPAN_NONE if absent. */
struct span backend_setting(const struct backend_config *b, const char *key);
/* Whether identity headers from this peer are trusted. */
bool config_trusts_peer(const struct config *c, const struct sockaddr *peer, socklen_t peer_length);

#endif
