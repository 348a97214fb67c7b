/*
 * Plane: one data-plane thread with everything it owns, and what all of them share.
 *
 * Why:       threads share nothing on the hot path: each has its loop, its listeners (SO_REUSEPORT), its
 *            connections to the legacy services, its task clients and its queue to the recorder.
 *            Configuration and flags reach it as immutable snapshots, by loop_post.
 * Threads:   plane_start, plane_halt and plane_free from the control thread; plane_set_* and plane_quiesce
 *            post, from any thread.
 * Ownership: a plane holds references to its configuration and snapshot; requests hold their own.
 */
#ifndef ROUTER_PLANE_H
#define ROUTER_PLANE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/crypto.h"
#include "base/err.h"
#include "base/loop.h"
#include "config/config.h"
#include "flags/flags.h"
#include "ledger/claims.h"
#include "ledger/ledger.h"
#include "outcomes/recorder.h"
#include "pairs/pairs.h"
#include "router/breaker.h"
#include "router/readiness.h"
#include "router/request/access_log.h"
#include "router/request/inspect_budget.h"
#include "router/request/legacy_state.h"
#include "router/request/organizations.h"
#include "tasks/task_backend.h"

#define PLANE_MAX 64

struct plane;

/* Counters of one service, shared by all planes; one cache line is touched once per request and direction. */
struct service_shared {
	char name[32];
	char id[CRYPTO_ID_HEX]; /* random: this service of this process, in Via */
	char via[2][64];	/* what Via gets of requests over HTTP/1.1 and HTTP/1.0 */
	atomic_uint in_flight;
	/* of the listener once bound: the other planes bind the same when the configuration says 0 */
	atomic_uint port;
	atomic_uint_fast64_t requests, refused, overloaded, shadow_dropped;
	/* answered 503: a pinned call's backend, or the organization, has as many in flight as it may */
	atomic_uint_fast64_t shed_backend, shed_organization;
	struct legacy_state legacy;
	atomic_uint uploads[INSPECT_PEERS]; /* requests of each peer whose body is not here yet */
};

/* One configured task backend: its name, which lives as long as the program, what its clients are made of,
 * and what all planes know of its answers. */
struct plane_backend {
	struct span name;
	struct task_options *options;
	struct breaker *breaker;
	/* What is submitted and waited for, all planes; no more than the limit. 0: none */
	atomic_uint in_flight, max_in_flight;
	atomic_uint_fast64_t full; /* times that it was at its limit */
};

/* What became of requests with an idempotency key. */
enum key_result {
	KEY_BEGUN,
	KEY_ANSWERED,
	KEY_RUNNING,
	KEY_OTHER_REQUEST,
	KEY_REFUSED,
	KEY_UNKNOWN,
	KEY_RESULTS
};

/* What became of questions about credentials (auth: check). */
enum auth_ask_result {
	AUTH_ASK_ACCEPTED,
	AUTH_ASK_DENIED,
	AUTH_ASK_FAILED,
	AUTH_ASK_CACHED_ANSWER,
	AUTH_ASK_RESULTS
};

/* Shared by all planes, made by the composition root, outlives them. */
struct plane_env {
	struct recorder *recorder;
	struct pairs *pairs;
	struct ledger *ledger;
	struct claims *claims;
	atomic_uint_fast64_t keys[KEY_RESULTS];
	atomic_uint_fast64_t auth_asks[AUTH_ASK_RESULTS];
	struct access_log *access_log; /* NULL: there is none */
	struct traces *traces;	       /* NULL: nothing is exported */
	struct guesses *guesses;       /* of override secrets and admin tokens */
	struct organizations *organizations;
	struct service_shared services[CONFIG_MAX_SERVICES];
	size_t n_services;
	struct plane_backend backends[CONFIG_MAX_BACKENDS];
	size_t n_backends;
	atomic_bool held;		 /* listeners accept nothing yet, until plane_open */
	const struct guard_holds *holds; /* that planes begin with; NULL: none */
	struct inspect_budget inspect;	 /* bodies being held, all planes */
	/* names that flags gave in vain, by their hash: each is logged once. 0: free */
	atomic_uint_fast64_t unknown_backends[16];
	/* operations that flags shadow though they are not safe to, likewise */
	atomic_uint_fast64_t unsafe_shadows[16];
};

int plane_start(struct plane_env *env, unsigned index, const struct config *config,
		const struct flag_snapshot *flags, struct plane **ret, struct err *e);
/* Ends the thread. After it nothing of the plane runs, but other threads may still post to its loop: stop
 * those (ledger, task store), then free. */
void plane_halt(struct plane *p);
struct plane *plane_free(struct plane *p); /* what still runs is cut, and recorded so. NULL is allowed */

void plane_set_flags(struct plane *p, const struct flag_snapshot *flags);
void plane_set_holds(struct plane *p, const struct guard_holds *holds);
void plane_set_readiness(struct plane *p, const struct readiness *readiness);
/* Listeners that stay the same stay open; new ones are opened, others stop accepting. A listener that cannot
 * be opened is logged. `config` was checked. */
void plane_set_config(struct plane *p, const struct config *config);
void plane_open(struct plane *p); /* after env->held has ended */
/* `patient`: as listener_quiesce. */
void plane_quiesce(struct plane *p, bool patient);
unsigned plane_exchanges(const struct plane *p); /* requests running; any thread */
/* Connections that were accepted and may still bring a request after plane_quiesce or a reload; any
 * thread. */
unsigned plane_unheard(const struct plane *p);
bool plane_settling(const struct plane *p); /* whether some are not counted yet; any thread */
/* Whether the plane's loop has turned since the last call, or this is the first. For one thread, which calls
 * it now and then: a plane that hangs says no the second time. */
bool plane_answers(struct plane *p);
/* Whether nobody listens there, this process included. -EADDRINUSE, … with a sentence. */
int plane_address_free(const char *address, struct err *e);

/* Counters by service name; made when it is not there yet (control thread only). NULL when the table is
 * full. */
struct service_shared *plane_env_service(struct plane_env *env, struct span name);

#endif
