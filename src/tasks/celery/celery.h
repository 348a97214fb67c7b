/*
 * Backend `celery`: tasks for existing Celery workers, over a Redis broker.
 *
 * Why:       Celery tasks that exist already are called unchanged; a worker cannot tell our messages from
 *            those of Celery's own producer (protocol 2; ids, origin, delivery tag, reply-to and times
 *            apart).
 * Shape:     each client has its own connections: commands to the broker and to the result backend (one, when
 *            they are the same), subscriptions to results, and one for the answers of workers to health pings
 *            and checks, made when first needed.
 * Results:   PENDING is queued, or unknown: Celery cannot tell these apart, so TASK_E_NOT_FOUND does not come
 *            from here. A result is kept as the raw text the worker wrote.
 * Errors:    a submission is TASK_REFUSED while Redis is unreachable or says no, or while results cannot be
 *            heard; TASK_UNKNOWN when LPUSH was written and not answered. A wait survives a loss of Redis.
 *            The same id twice is two executions: Celery has no lookup by id before a result exists.
 * Workflows: one that the file of the setting `workflows` declares is submitted as a chain, whose result is
 *            {"<step>": result, …} (celery_steps.c); any other is a task of its name (the chain is the Python
 *            side's).
 * Over:      Redis or RabbitMQ as broker, results in Redis, by rpc:// or in PostgreSQL: a row of verbs each
 *            (celery_broker.h, celery_results.h).
 */
#ifndef TASKS_CELERY_CELERY_H
#define TASKS_CELERY_CELERY_H

#include "tasks/task_backend.h"

#define CELERY_MAX_INPUT (380u << 20) /* a Redis value of 512 MB, in base64 */

/* Settings: broker_url (redis://…, see base/redis_url.h), result_backend (the broker's by default), queue
 * ("celery"), broker_key_prefix and result_key_prefix (what workers have as global_keyprefix in
 * broker_transport_options and in result_backend_transport_options), max_input (bytes of args + kwargs, 64
 * MiB), connect_timeout (3s), command_timeout (10s), health_interval (5s: how old an answer of health or
 * check may be), terminate (false: cancel does not end a task that runs already), control_exchange
 * ("celery"), workflows (a file as tasks.yml, of which only the workflows are read). */
extern const struct task_backend celery_backend;

#endif
