/*
 * What a request sees of its plane. Private to src/router: plane.c, and the files of request/.
 */
#ifndef ROUTER_PLANE_INTERNAL_H
#define ROUTER_PLANE_INTERNAL_H

#include <pthread.h>
#include <sys/queue.h>

#include "legacy/legacy.h"
#include "operation/route.h"
#include "router/http/listener.h"
#include "router/plane.h"

#define SERVICE_IDENTITY_FIELDS 32

/* One service of one configuration on one plane. Requests hold a reference, so that a reload replaces it
 * under them. */
struct service_runtime {
	unsigned refs;
	struct plane *plane;
	const struct config *config; /* referenced */
	const struct service *service;
	struct service_shared *shared;
	struct route_table *routes;
	struct legacy_upstream *upstream;
	struct span host; /* of the legacy base URL, for requests without one */
	struct span identity_fields[SERVICE_IDENTITY_FIELDS]; /* names that Connection cannot remove */
	size_t n_identity_fields;
};

struct service_runtime *service_runtime_ref(struct service_runtime *s);
struct service_runtime *service_runtime_unref(struct service_runtime *s);

/* A listener and the runtime that new requests on it get. */
struct plane_listener {
	struct plane *plane;
	struct listener *listener;
	struct service_runtime *current; /* NULL once the service is gone from the configuration */
	char address[128];		 /* as configured */
	struct listener_options opened;	 /* with these; they stay until a restart. Without the address */
	bool closing, retired;		 /* takes no new connections; is gone from the configuration */
	struct plane_listener *next;
};

/* Requests that wait for the word of one backend's breaker (request/hold.h). */
TAILQ_HEAD(hold_line, request);

struct plane {
	struct plane_env *env;
	unsigned index;
	struct loop *loop;
	pthread_t thread;
	bool running;
	const struct flag_snapshot *flags; /* may be NULL */
	const struct readiness *readiness; /* may be NULL */
	const struct guard_holds *holds;   /* may be NULL */
	struct plane_listener *listeners;
	struct task_client *clients[CONFIG_MAX_BACKENDS]; /* as in env->backends */
	struct hold_line held[CONFIG_MAX_BACKENDS];	  /* likewise */
	struct loop_timer *hold_timer;
	struct auth_asks *auth_asks; /* made when first needed */
	struct recorder_producer *producer;
	struct traces_producer *spans; /* with env->traces */
	struct loop_work beat;	       /* plane_answers */
	atomic_bool beating;
	atomic_uint exchanges;
	atomic_uint unheard;	    /* connections of closing listeners that may still bring a request */
	atomic_bool settling;	    /* and there may be more of them */
	struct loop_timer *closing; /* looks at them */
	LIST_HEAD(, request) live_requests; /* those with references left */
	LIST_HEAD(, request) free_requests; /* kept for re-use */
	unsigned n_free_requests;
	LIST_HEAD(, shadow) shadows; /* in flight */
	unsigned n_shadows;
	struct shadow_call *shadow_calls; /* likewise */
	unsigned n_shadow_calls;
};

/* In env->backends; n_backends when there is none of that name. */
size_t plane_backend(const struct plane *p, struct span backend);
struct task_client *plane_client(struct plane *p, struct span backend);
/* Which backends' breakers turn submissions away now. */
void plane_look_at_breakers(const struct plane *p, struct breaker_view *ret);

#endif
