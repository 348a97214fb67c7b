/* What the files of the celery backend share. Private to them. */
#ifndef TASKS_CELERY_CELERY_INTERNAL_H
#define TASKS_CELERY_CELERY_INTERNAL_H

#include <sys/queue.h>

#include "base/crypto.h"
#include "base/rabbit_url.h"
#include "base/redis.h"
#include "tasks/celery/celery.h"
#include "tasks/celery/celery_broker.h"
#include "tasks/celery/celery_message.h"
#include "tasks/celery/celery_results.h"
#include "tasks/task_options.h"
#include "tasks/worker/registry.h"

#define CELERY_RESULT_PREFIX "celery-task-meta-"
#define CELERY_FANOUT_PREFIX "/{db}." /* kombu's */
#define CELERY_PREFIX_MAX 64	      /* of the configured prefixes, with NUL */
#define CELERY_KEY_MAX (CELERY_PREFIX_MAX + 1 + sizeof(CELERY_RESULT_PREFIX) + TASK_ID_MAX)

/* When a worker of ours acknowledges a message: late ones are run again when the worker is lost. */
enum celery_acks { CELERY_ACKS_IDEMPOTENT, CELERY_ACKS_LATE, CELERY_ACKS_EARLY };

struct celery_options {
	struct task_options base;
	enum celery_broker_kind { CELERY_BROKER_REDIS, CELERY_BROKER_AMQP, CELERY_BROKERS } broker_kind;
	enum celery_results_kind {
		CELERY_RESULTS_REDIS,
		CELERY_RESULTS_RPC,
		CELERY_RESULTS_POSTGRES,
		CELERY_RESULT_STORES
	} results_kind;
	struct redis_url broker, results;
	struct rabbit_url amqp;
	char *postgres, *result_table; /* a URL of libpq's; NULL: Celery's own name */
	unsigned result_poll_ms;
	bool has_broker, has_results;
	char *master_name; /* which the Sentinels of sentinel:// know it by, where the URL does not say */
	/* what runs for all clients, from options_start on */
	struct rabbit *rabbit;
	struct celery_heard *heard;
	struct celery_postgres *poller;
	char reply_queue[CRYPTO_UUID];
	char *queue, *control_exchange;
	struct registry_source source, workflows_source;
	struct registry *workflows; /* NULL: none is declared */
	/* of all keys and channels; "" is none */
	char broker_prefix[CELERY_PREFIX_MAX], result_prefix[CELERY_PREFIX_MAX + 1];
	size_t max_input;
	unsigned connect_timeout_ms, command_timeout_ms, health_interval_ms;
	bool terminate;
	struct celery_lists lists;
	char fanout_prefix[CELERY_PREFIX_MAX]; /* of channels, with {db} in it */
	bool has_fanout_prefix, fanout_plain;  /* plain: routing keys are no part of channels' names */
	/* Of task-backend-worker; times in ms, 0: none. */
	enum celery_acks acks;
	unsigned prefetch_multiplier;
	unsigned visibility_timeout_ms, result_expires_ms, task_time_limit_ms, task_soft_time_limit_ms;
	bool never_expires, track_started, task_events;
	struct celery_retries {
		unsigned max, delay_ms;
		bool is_set, delay_is_set;
	} retries;
};

/* Sentences for what is missing: with the broker's address, with the reason. */
#define CELERY_NO_WORKER \
	"no worker listens on %s (or its remote control is switched off, or its fanout_prefix or " \
	"global_keyprefix is another)"
#define CELERY_DEAF "results cannot be received: %s"
#define CELERY_SHAPE "a sequence (at its end perhaps steps beside each other and one behind them)"
#define CELERY_NO_CHAIN \
	"the workflow \"%.*s\" is more than " CELERY_SHAPE "; declare it with \"execution: router\""

struct celery_client;
struct celery_operation; /* a submission, lookup or cancellation in progress */
struct celery_health_request;
struct celery_check_request;
struct celery_worker; /* what one worker has answered */

#define CELERY_QUESTIONS_MAX 4
struct celery_question {
	const char *method, *arguments; /* of the pidbox; arguments as JSON */
};

/* One round of questions to all workers, part of who asks (celery_pidbox.c). */
struct celery_round {
	const struct celery_question *questions;
	size_t n_questions;
	/* borrowed */
	void (*answer)(struct celery_client *c, size_t question, struct span worker, struct span value);
	void (*end)(struct celery_client *c); /* may free the client */
	/* What it came to, good at the end. */
	bool reachable;	   /* the broker takes messages */
	bool open_ended;   /* nobody knows how many will answer: silence ends it */
	int64_t listeners; /* workers that a question was delivered to */
	int64_t expected, answers;
	struct err why; /* "" when all was asked */
	/* celery_pidbox.c's own */
	struct celery_round *next;
	bool running;
	size_t asked;
	uint64_t begun_ms;
	char tickets[CELERY_QUESTIONS_MAX][CRYPTO_UUID];
};

struct celery_pidbox {
	struct celery_round *first; /* in progress; the others wait after it */
	bool begun;
};

/* Whether results can be heard (celery_hearing.c). */
struct celery_hearing {
	struct celery_watch *probe;
	struct loop_timer *limit;
	bool settled;	       /* it is known */
	bool stays;	       /* the probe, to know it at all times */
	struct err why;	       /* "" when they can */
	void (*fn)(void *arg); /* whenever it is known, anew too */
	void *arg;
};

struct celery_health {
	struct celery_health_request *requests;
	struct loop_work work; /* tells them */
	struct celery_round round;
	struct task_health now;
	uint64_t asked_ms; /* 0: never */
};

struct celery_check {
	struct celery_check_request *requests;
	struct loop_work work;
	struct celery_round round;
	struct celery_worker *workers;
	size_t n_workers, size; /* size: bytes kept of all */
	bool cut;		/* there was more than is kept */
	uint64_t known_ms;	/* when the round ended; 0: none has */
};

/* Of the row of Redis as the broker (celery_broker_redis.c). */
struct celery_redis_look {
	celery_look_fn fn;
	struct celery_look look;
	size_t waiting; /* lengths of lists */
};

/* Of the row of RabbitMQ (celery_broker_amqp.c). */
struct celery_amqp {
	struct rabbit_port *port;
	celery_look_fn look;
	celery_told_fn told;
	TAILQ_HEAD(, amqp_answer) answers; /* of the round, that have come */
	size_t n_answers, bytes;
	bool open, listening; /* a round, for an answer */
	struct loop_timer *silence;
	struct loop_work work;
	bool work_due;
	LIST_HEAD(, amqp_errand) errands;
	char where[RABBIT_WHERE_MAX];
};

struct celery_client {
	struct task_client base;
	const struct celery_options *o;
	const struct celery_broker *broker;
	const struct celery_results *results;
	struct celery_sender sender;
	LIST_HEAD(, celery_operation) operations;
	/* submissions, until it is known whether results can be heard */
	struct celery_operation *held, **held_end;
	LIST_HEAD(, task_wait) waits;
	struct task_wait *offered; /* watched ahead, submitted, and not waited for yet */
	struct loop_work drop_offered;
	bool drop_due;
	TAILQ_HEAD(, task_wait) unheard; /* to be read when no message comes, oldest first */
	struct loop_timer *read_timer;
	struct celery_pidbox pidbox;
	struct celery_hearing hearing;
	struct celery_health health;
	struct celery_check check;
	/* of the rows of Redis */
	struct redis *redis_broker, *redis_results; /* may be one */
	struct redis *redis_listener;		    /* subscriptions to results */
	struct redis *redis_replies;		    /* BRPOP; NULL until workers are asked */
	celery_told_fn redis_told;
	struct celery_redis_look redis_look;
	LIST_HEAD(, redis_errand) errands;
	LIST_HEAD(, celery_reading) readings;
	/* of the others */
	struct celery_amqp amqp;
	struct celery_ear *ear;
};

/* celery_steps.c */
/* Asks for the results of all steps but the last of whatever declared workflow `id` may be the chain of.
 * False: none is declared, or out of memory, and fn will not be called. */
bool celery_steps_ask(struct celery_client *c, struct span id, celery_read_fn fn, void *arg,
		      struct celery_reading **ret);
/* {"<step>": result, …} of the texts read and the last step's result; false: it is no chain that is known. */
bool celery_steps_compose(const struct celery_client *c, const struct span *texts, struct span last,
			  struct buf *out);

/* celery_client.c */
int celery_connect(struct celery_client *c, const struct redis_url *url, redis_state_fn on_state,
		   struct redis **ret, struct err *e);
struct span celery_result_key(const struct celery_client *c, struct span id, char key[CELERY_KEY_MAX]);
/* NULL when it is to be submitted as a task. */
const struct workflow_definition *celery_workflow(const struct celery_client *c, bool workflow,
						  struct span name);

/* celery_options.c */
/* What names of fanout channels begin with. */
void celery_put_fanout_prefix(const struct celery_options *o, struct buf *out);
extern const struct task_setting celery_settings[];
int celery_options_check(struct task_options *o, const struct task_backend_setup *setup, struct err *e);
void celery_options_release(struct task_options *o);

/* celery_wait.c */
int celery_waits_init(struct celery_client *c);
/* Watches the result of a task that is not submitted yet, for a wait that follows; NULL: no memory, it
 * watches itself then. Ends by celery_wait_offer once the task is submitted, which leaves it to
 * celery_wait until the end of the loop's round, or by celery_wait_cancel. NULL is allowed for both. */
struct task_wait *celery_wait_ahead(struct celery_client *c, struct span id, bool chain);
void celery_wait_offer(struct task_wait *w);
struct task_wait *celery_wait(struct task_client *base, struct span id, task_result_fn fn, void *arg);
void celery_wait_cancel(struct task_wait *w);
void celery_waits_read_again(struct celery_client *c); /* the result backend is back */
void celery_waits_drop(struct celery_client *c);

/* celery_hearing.c */
int celery_hearing_init(struct celery_client *c, void (*fn)(void *arg), void *arg);
/* Whether c->hearing.why can be believed. Where not, celery_hear finds it out, and what waits for it resumes
 * then (it may be at once). */
bool celery_hears(const struct celery_client *c);
void celery_hear(struct celery_client *c, bool stays);
void celery_hearing_down(struct celery_client *c, const char *why); /* for result stores */
void celery_hearing_drop(struct celery_client *c);

/* celery_pidbox.c */
/* not while it is running */
int celery_pidbox_ask(struct celery_client *c, struct celery_round *round, struct err *e);
void celery_pidbox_go_on(struct celery_client *c);

/* celery_check.c */
void celery_check(struct task_client *base, const struct task_probe *probe, task_check_fn fn, void *arg);
void celery_check_drop(struct celery_client *c);

/* celery_health.c */
void celery_health(struct task_client *base, task_health_fn fn, void *arg);
void celery_health_drop(struct celery_client *c);

#endif
