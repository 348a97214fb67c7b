/*
 * Between the parts of the Hatchet client: hatchet.c (settings, life, small verbs) over hatchet_submit.c,
 * hatchet_check.c and hatchet_wait.c, and these over hatchet_client.c.
 *
 * Every operation is one object that either asks (one request in progress) or sleeps (its timer runs), never
 * both. All are in the client's list, so that they can be dropped with it.
 */
#ifndef TASKS_HATCHET_HATCHET_INTERNAL_H
#define TASKS_HATCHET_HATCHET_INTERNAL_H

#include <sys/queue.h>

#include "base/buf.h"
#include "base/http_client.h"
#include "base/loop.h"
#include "tasks/hatchet/hatchet.h"
#include "tasks/task_options.h"

#define HATCHET_MAX_ANSWER (64u << 20)
#define HATCHET_PAGES_MAX 20 /* of names that have one in them */

struct hatchet_settings {
	struct task_options base;
	char *token, *token_file, *server_url, *ca_file; /* as set, or NULL */
	/* Of the engine's side for workers; as set, or NULL. */
	char *grpc_address, *grpc_tls, *grpc_ca_file;
	/* By check. */
	char *authorization;	 /* Bearer …: never logged, never in a sentence */
	char *url;		 /* without a slash at its end */
	char grpc_of_token[256]; /* host:port; "" when it has none */
	/* Workflows that must have a worker for health to say so: names as the engine has them, separated
	 * by commas. Empty: any worker. */
	char *workflows;
	char tenant[37];
	int64_t expires_s;
	/* Milliseconds; check turns 0 into what is in brackets. */
	unsigned request_ms; /* one request, start to end [30 s] */
	unsigned name_ms;    /* how long the engine's knowledge of a workflow is believed [60 s] */
	unsigned grace_ms;   /* how long a run may be unknown to the engine that has taken it [10 s] */
	unsigned flicker_ms; /* between two looks at a failure that may be retried [1 s] */
};

struct hatchet_name; /* what is known of one workflow's name */

/* A crowd takes turns: an engine that is asked a thousand things at once answers none of them in time. */
#define HATCHET_LANE_WIDTH 16 /* requests in progress */
enum hatchet_lane_kind { HATCHET_TRIGGERS, HATCHET_LOOKS, HATCHET_LANES };
struct hatchet_lane {
	unsigned under_way;
	TAILQ_HEAD(hatchet_turns, hatchet_operation) queue;
};

struct hatchet_client {
	struct task_client base;
	const struct hatchet_settings *settings;
	struct http_client *http;
	LIST_HEAD(, hatchet_operation) operations;
	struct hatchet_lane lanes[HATCHET_LANES];
	struct hatchet_name *names;
	size_t n_names;
	unsigned waits; /* how many runs are checked */
	bool closing;
};

struct hatchet_operation {
	struct hatchet_client *client;
	LIST_ENTRY(hatchet_operation) place;
	bool ended; /* in the client's list no more */
	struct http_call *call;
	struct loop_timer *timer;
	void (*reply)(struct hatchet_operation *op, const struct http_reply *r);
	void (*wake)(struct hatchet_operation *op);
	/* frees what it owns beside this, and the object; NULL: free() */
	void (*release)(struct hatchet_operation *op);
	/* the request could not even be made: the timer tells it */
	bool not_started;
	/* Its place in a lane; NULL: in none. */
	struct hatchet_lane *lane;
	bool queued; /* not its turn yet */
	TAILQ_ENTRY(hatchet_operation) turn;
	void (*late)(struct hatchet_operation *op);
};

/* `size` bytes, zeroed, beginning with a hatchet_operation; NULL if out of memory. */
void *hatchet_operation_new(struct hatchet_client *c, size_t size);
/* Takes it out of the list and stops what it waits for; hatchet_operation_free is then safe at any time. */
void hatchet_operation_end(struct hatchet_operation *op);
void hatchet_operation_free(struct hatchet_operation *op);

/* Appends the path below the tenant: /api/v1/stable/tenants/{t} or /api/v1/tenants/{t}. */
void hatchet_put_tenant(const struct hatchet_client *c, struct buf *path, bool stable);

typedef void (*hatchet_reply_fn)(struct hatchet_operation *op, const struct http_reply *r);
/* One request. Always answers, later: what cannot even be started is HTTP_NOT_CONNECTED. With `once` it is
 * written at most once, on a connection of its own. */
void hatchet_ask(struct hatchet_operation *op, const char *method, const struct buf *path, struct span body,
		 bool once, hatchet_reply_fn fn);
void hatchet_sleep(struct hatchet_operation *op, unsigned ms, void (*wake)(struct hatchet_operation *op));
/* Calls `ask`, which makes one request, when it is the operation's turn, perhaps at once; the turn ends with
 * the answer. With `late`, that is called in its place when the turn has not come within request_ms. */
void hatchet_in_turn(struct hatchet_operation *op, enum hatchet_lane_kind kind,
		     void (*ask)(struct hatchet_operation *op), void (*late)(struct hatchet_operation *op));

/* A sentence about an answer that is not what was hoped for. Returns `code`. */
int hatchet_problem(const struct hatchet_client *c, const struct http_reply *r, int code, struct err *e);

/* hatchet.c: host:port for workers, of the settings. -EINVAL with a sentence. */
int hatchet_grpc_place(const struct hatchet_settings *s, const char **ret_address, bool *ret_tls,
		       struct err *e);

/* hatchet_submit.c */
void hatchet_submit(struct task_client *c, const struct task_call *call, task_submit_fn fn, void *arg);
void hatchet_names_free(struct hatchet_client *c);
/* Appends the path of one page of the workflows with this in their names. */
void hatchet_put_names(const struct hatchet_client *c, struct buf *path, struct span workflow, unsigned page);
/* hatchet_check.c */
void hatchet_check(struct task_client *c, const struct task_probe *probe, task_check_fn fn, void *arg);
/* hatchet_wait.c */
struct task_wait *hatchet_wait(struct task_client *c, struct span task_id, task_result_fn fn, void *arg);
void hatchet_wait_cancel(struct task_wait *w);
void hatchet_get(struct task_client *c, struct span task_id, task_result_fn fn, void *arg);

#endif
