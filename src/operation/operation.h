/*
 * Operation: one method and path of a service, with its flags, identity, mapping to a task, credentials and
 *            pins. What the
 * configuration reads and everything that decides or maps works on.
 *
 * Ownership: borrowed from the configuration.
 * Threads:   immutable.
 */
#ifndef OPERATION_OPERATION_H
#define OPERATION_OPERATION_H

#include <stdbool.h>
#include <stddef.h>

#include "base/span.h"
#include "compare/compare_policy.h"
#include "operation/idempotency.h"
#include "operation/template.h"
#include "tasks/task_backend.h"

#define OPERATION_MAX_BACKENDS 4
#define OPERATION_MAX_FLAGS 8		/* per operation */
#define OPERATION_MAX_SOURCES 8		/* per identity part */
#define OPERATION_MAX_CONTEXT 16	/* own context entries per operation */
#define OPERATION_MAX_CONTEXT_SOURCES 4 /* per entry */

/* Where a part of the identity is looked for. */
enum identity_source_kind { IDENTITY_HEADER, IDENTITY_QUERY, IDENTITY_BODY, IDENTITY_PATH, IDENTITY_COOKIE };
struct identity_source {
	enum identity_source_kind kind;
	struct span name; /* of the field, parameter or cookie, or JSON pointer */
};
enum identity_part { IDENTITY_USER, IDENTITY_ORGANIZATION };
struct identity_sources {
	struct identity_source user[OPERATION_MAX_SOURCES], organization[OPERATION_MAX_SOURCES];
	size_t n_user, n_organization;
	enum identity_part entity[2]; /* which part becomes the flags' entity id, in this order */
	size_t n_entity;
	bool needs_body; /* some source is IDENTITY_BODY */
};

/* Which side a variant means, if the operation maps variants itself. */
struct variant_map {
	struct span variant;
	bool task;
	bool shadow;
	struct span backend; /* SPAN_NONE: the default one */
};

enum auth_kind { AUTH_UNSET, AUTH_NONE, AUTH_BEARER, AUTH_CHECK };
#define AUTH_MAX_CREDENTIALS 8
/* Where a credential is. */
struct auth_credential {
	bool cookie; /* one of Cookie's, else a field */
	struct span name;
};
struct auth {
	enum auth_kind kind;
	/* AUTH_CHECK: asked with the credentials of a request whether it may */
	const char *url;
	struct auth_credential credentials[AUTH_MAX_CREDENTIALS];
	size_t n_credentials;
	unsigned cache_ms, cache_denied_ms, timeout_ms;
	/* what {"$ref": "credential"} gives the task; name SPAN_NONE: nothing */
	struct auth_credential forward;
	/* AUTH_BEARER: lower-case hex SHA-256 of each accepted token, sorted */
	char (*hashes)[65];
	size_t n_hashes;
	struct span file;
};

/* What the guard is asked, and what a breach does (design, "The guard"). */
enum guard_action { GUARD_ACTION_OFF, GUARD_ACTION_WATCH, GUARD_ACTION_HOLD, GUARD_ACTION_ROLLBACK };
struct guard_policy {
	enum guard_action on_breach;
	double alpha;	    /* 0.01: one epoch in a hundred is stopped although the task side is no worse */
	double tolerated;   /* 0.1: a tenth more bad entities */
	double harm;	    /* 2: `safe` excludes twice as many */
	double negligible;  /* 0.01: or excludes this share of the task side's entities */
	double slow_factor; /* of legacy's p99; 0: `slow` is not judged */
	bool write;	    /* a breach that holds also sets the percentage back where the flags are */
};

/* How an operation becomes a task, and its result an answer (design, "Mapping"). */
struct task_mapping {
	struct span task; /* name of the task or workflow */
	bool workflow;
	struct span queue;
	struct span backend; /* SPAN_NONE: the default backend */
	/* Other backends tried instead, in this order, where it provably has not accepted the task. None:
	 * legacy then. With some, the first is `backend` */
	struct span backends[OPERATION_MAX_BACKENDS];
	size_t n_backends;
	struct template *args;	 /* NULL: [] */
	struct template *kwargs; /* NULL: {} */
	bool single_input;
	bool idempotent;	  /* may fall back to legacy, may run again */
	unsigned timeout_ms;	  /* how long the caller waits; then 504 with the task's id */
	unsigned task_timeout_ms; /* how long the task may run in the backend */
	int priority;
	unsigned expires_ms;
	bool respond_async;		    /* Prefer: respond-async is honored */
	bool fire_and_forget;		    /* 202 once it is accepted; nothing waits for its result */
	struct response_template *response; /* NULL: 200 with the task's result as it is */
	bool needs_body;		    /* a template uses the request's body */
};

/* What its backend will be asked to run. */
static inline struct task_probe task_mapping_probe(const struct task_mapping *t)
{
	return (struct task_probe){.task = t->task,
				   .workflow = t->workflow,
				   .queue = t->queue,
				   .priority = t->priority,
				   .unawaited = t->fire_and_forget};
}

/* Whether its task may come to this backend without a flag that names it. */
static inline bool task_mapping_names(const struct task_mapping *t, struct span default_backend,
				      struct span backend)
{
	if (span_eq(t->backend.ptr ? t->backend : default_backend, backend))
		return true;
	for (size_t i = 0; i < t->n_backends; i++)
		if (span_eq(t->backends[i], backend))
			return true;
	return false;
}

struct operation {
	struct span name;    /* "answer" */
	struct span service; /* "prompt": its service's name */
	struct span method;
	struct span path; /* template: /v1/{name}/x; a segment in braces matches one segment */
	/* all must say task; none: legacy always (unmapped to flags) */
	struct span flags[OPERATION_MAX_FLAGS];
	size_t n_flags;
	struct identity_sources identity;
	struct {
		/* value: a literal; SPAN_NONE where it is looked for in the request */
		struct span key, value;
		struct identity_source sources[OPERATION_MAX_CONTEXT_SOURCES];
		size_t n_sources;
	} context[OPERATION_MAX_CONTEXT];
	size_t n_context;
	bool context_sources; /* some entry has them */
	struct variant_map *variants;
	size_t n_variants;
	bool has_task; /* an operation without one always goes to legacy */
	struct task_mapping task;
	struct auth auth; /* checked before a task is submitted, not on the legacy path */
	struct idempotency idempotency;
	/* NULL: application/problem+json. Over error:status, error:title, error:detail */
	struct response_template *error;
	unsigned legacy_timeout_ms; /* 0: the service's */
	/* the router's own endpoint: on the legacy side `legacy_path` is called and the answer wrapped */
	bool unified;
	/* where it differs on the legacy side; SPAN_NONE: as received */
	struct span legacy_method, legacy_path;
	struct template *legacy_body; /* NULL: the body as received */
	/* NULL: byte for byte. Needs the whole answer (bounded) */
	struct response_template *legacy_response;
	bool legacy_needs_body; /* one of the two uses the request's body */
	bool safe_to_shadow;	/* both sides may run one request: nothing happens twice by it */
	bool repeatable;	/* legacy may be asked the same twice */
	double shadow_legacy; /* where the task side serves, this share (0 … 1) runs on legacy beside it */
	const struct compare_policy *compare; /* NULL: the answers of shadows are not compared */
	/* ledger: where the key of follow-up calls lies ("body:/container_name", "query:…"), or NONE */
	struct span pin_key;
	bool pin_start;	       /* this operation starts an entry; others follow it */
	bool pin_end;	       /* this operation ends it when it succeeds */
	struct span pin_group; /* operations that share keys */
	struct guard_policy guard;
};

#endif
