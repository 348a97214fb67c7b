/*
 * Requests: the messages that this worker holds, from their delivery to their acknowledgment.
 *
 * Life:      delivered → (refused, revoked, expired: its result says so, acknowledged, gone) → waits for
 *            its eta → ready → claimed (early acknowledgment: it begins only when Redis has confirmed it)
 *            → runs → its followers are published, its result is stored, its part of a chord is counted →
 *            acknowledged (if late) → gone. Each step begins when the one before it has been confirmed,
 *            and is repeated while Redis is away.
 * Twice:     with an early acknowledgment a task is begun at most once, whatever happens; with a late one
 *            it is run again when its worker is lost. By default those that are declared idempotent are
 *            acknowledged late.
 * Limits:    prefetch (concurrency × prefetch_multiplier) that are not waiting for their eta;
 *            CELERY_ETA_MAX that are. A request counts until its result is stored, so that nothing piles
 *            up while Redis is away.
 * Threads:   the loop's own.
 */
#ifndef TASKS_CELERY_WORKER_REQUESTS_H
#define TASKS_CELERY_WORKER_REQUESTS_H

#include <sys/queue.h>

#include "tasks/celery/worker/events.h"
#include "tasks/celery/worker/incoming.h"
#include "tasks/celery/worker/limits.h"
#include "tasks/celery/worker/own_tasks.h"
#include "tasks/celery/worker/revoked.h"
#include "tasks/celery/worker/taking.h"
#include "tasks/worker/handler.h"

#define CELERY_ETA_MAX 10000

enum celery_request_state {
	CELERY_REQUEST_WAITS, /* for its eta */
	CELERY_REQUEST_READY, /* for a free slot */
	CELERY_REQUEST_CLAIMED,
	CELERY_REQUEST_RUNS,
	CELERY_REQUEST_ENDS
};

enum celery_request_reason {
	CELERY_REASON_NONE,
	CELERY_REASON_HARD_LIMIT,
	CELERY_REASON_SOFT_LIMIT,
	CELERY_REASON_REVOKED,
	CELERY_REASON_STOPPED
};

struct celery_requests;
struct celery_ending;

struct celery_request {
	struct celery_requests *owner;
	TAILQ_ENTRY(celery_request) place; /* in `all` */
	TAILQ_ENTRY(celery_request) turn;  /* in `ready` */
	struct celery_held *held;
	struct celery_incoming m;
	struct registry *registry;
	const struct task_definition *definition; /* of a map: of the task that it calls */
	struct celery_each each;
	enum celery_request_state state;
	enum celery_request_reason reason;
	bool late, acknowledged, requeue, had_turn;
	struct handler_run *run;
	struct loop_timer *timer, *soft; /* its eta, later its hard limit; its soft limit */
	int64_t begun_ms, begun_us, hard_ms, soft_ms;
	/* How it ended. */
	const char *status;
	bool unknown;
	struct buf result, error, detail; /* result: raw JSON; error: text, of what failed */
	const char *exc_type;
	int64_t again_us; /* of a retry: when */
	struct celery_ending *ending;
};

struct celery_requests_options {
	struct loop *loop;
	const struct celery_options *c;
	const struct handler_env *env;
	struct registry *registry; /* borrowed until the next celery_requests_set_registry */
	struct celery_writes *broker, *results;
	struct celery_events *events;
	const char *hostname;	   /* node name */
	const char *const *queues; /* by celery_held.queue */
	unsigned concurrency;
	void (*changed)(void *arg); /* there is more room, or nothing left */
	void *arg;
};

struct celery_requests {
	struct celery_requests_options o;
	TAILQ_HEAD(, celery_request) all;
	TAILQ_HEAD(, celery_request) ready;
	size_t n, n_waiting, n_running;
	struct loop_work work;
	bool work_due, stopping, killing;
	int64_t pause_until_ms; /* nothing begins before */
	struct loop_timer *pause;
	/* Since the start. */
	uint64_t received, succeeded, failed, retried, revoked, refused;
	struct celery_total {
		char *name;
		uint64_t n;
	} * totals; /* begun, by task */
	size_t n_totals;
	struct celery_sender sender;
	struct celery_revoked revoked_ids;
	struct celery_limits limits;
	struct buf said; /* what was logged once */
};

int celery_requests_init(struct celery_requests *q, const struct celery_requests_options *o);
void celery_requests_release(struct celery_requests *q);
void celery_requests_set_registry(struct celery_requests *q, struct registry *r);
/* How many more messages may be taken. */
unsigned celery_requests_room(const struct celery_requests *q);
void celery_requests_take(struct celery_requests *q, struct celery_held *h);
/* Nothing more begins; what has not begun goes back to its queue. */
void celery_requests_stop(struct celery_requests *q);
/* It will not begin here; `terminate`: it is ended if it runs. */
void celery_requests_revoke(struct celery_requests *q, struct span id, bool terminate);
/* So many tasks at once from now on; what runs goes on. */
void celery_requests_set_concurrency(struct celery_requests *q, unsigned n);
/* After q->limits were changed. */
void celery_requests_look_again(struct celery_requests *q);
/* {"<task>": number, …} of those that have begun. */
void celery_requests_put_totals(const struct celery_requests *q, struct buf *out);
/* What runs is ended. */
void celery_requests_kill(struct celery_requests *q);

#endif
