/*
 * The worker. All writing is gathered and done at the end of a round of the loop, in one transaction: what
 * has ended, then as many new leases as there are free places.
 */
#include "tasks/worker/worker.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/crypto.h"
#include "base/log.h"
#include "base/text.h"
#include "tasks/queue/poke.h"
#include "tasks/queue/store.h"
#include "tasks/worker/engine.h"
#include "tasks/worker/handler.h"

#define TICK_MS 1000
#define DEFAULT_LEASE_MS 15000
#define DEFAULT_RETENTION_MS (7 * 24 * 3600 * 1000LL)
#define LAST_MS 5000 /* to write down the ends of what was killed at the end of the drain */
#define LOG_DETAIL_MAX 1024
#define SHORTAGE_PAUSE_MS 1000 /* after a task could not be started */
#define UNKNOWN_LOGGED 65536   /* bytes of names */
#define IDEMPOTENT_ATTEMPTS 3  /* when the definition does not say */

enum job_reason { JOB_RUNS, JOB_TIMED_OUT, JOB_CANCELLED, JOB_STOPPED, JOB_FENCED };

/* One leased task, from its lease until its end is written. */
struct job {
	struct worker *worker;
	LIST_ENTRY(job) place;
	int64_t seq, token;
	const struct task_definition *definition;
	struct registry *registry; /* the definition's, also after a reload */
	char id[TASK_ID_MAX], name[TASK_NAME_MAX];
	struct buf args, kwargs; /* until it is started */
	bool shadow;
	char traceparent[TASK_TRACE_PARENT], tracestate[TASK_TRACE_STATE_MAX + 1];
	unsigned attempt, timeout_ms;
	struct handler_run *run; /* while it runs */
	struct loop_timer *limit;
	enum job_reason reason;
	int64_t begun_ms;
	/* How it ended, once it has. */
	bool ended, unknown, cancelled;
	struct buf result, error, detail;
	bool failed;
	bool not_begun; /* for lack of something that comes back: given back */
	bool orphaned;	/* its row was in a file that is gone: nothing is to be written */
	bool written;	/* in the transaction that is open */
};

struct worker {
	struct worker_options o;
	struct loop *loop;
	struct handler_env env;
	struct store *store;
	struct poke *poke;
	struct loop_watch *watch;
	struct loop_timer *tick, *drain;
	struct loop_work flush, stopped;
	bool flush_due;
	char id[CRYPTO_ID_HEX], host[256];
	struct span queues[WORKER_MAX_QUEUES];
	struct buf queue_list;
	LIST_HEAD(, job) jobs, fresh; /* fresh: leased in the open transaction */
	unsigned n_jobs;
	uint64_t received, succeeded, failed;
	int64_t next_beat_ms;
	int64_t pause_until_ms; /* no leases before */
	/* names of tasks that were left to others, as far as they were logged; with a NUL behind each */
	struct buf unknown;
	bool beaten;	      /* in the open transaction */
	bool said, published; /* what it knows: in the open transaction, in the file */
	bool publish_failed;  /* it was logged */
	bool stopping, drained, over, in_trouble;
};

static void worker_schedule(struct worker *w)
{
	if (!w->flush_due && !w->over) {
		w->flush_due = true;
		loop_defer(w->loop, &w->flush);
	}
}

static void worker_note_trouble(struct worker *w, const struct err *e)
{
	if (!w->in_trouble)
		log_error("task_store_failed", LOG_STR("database", w->o.database), LOG_STR("error", e->text));
	w->in_trouble = true;
}

/* --- jobs ----------------------------------------------------------------------------------------------- */

static void job_free(struct job *j)
{
	LIST_REMOVE(j, place);
	loop_timer_free(j->limit);
	buf_release(&j->args);
	buf_release(&j->kwargs);
	buf_release(&j->result);
	buf_release(&j->error);
	buf_release(&j->detail);
	registry_free(j->registry);
	free(j);
}

static void kill_job(struct job *j, enum job_reason reason)
{
	if (j->ended || !j->run)
		return;
	if (j->reason == JOB_RUNS || reason == JOB_FENCED)
		j->reason = reason;
	handler_kill(j->run);
}

static void worker_on_limit(void *arg)
{
	kill_job(arg, JOB_TIMED_OUT);
}

static void set_failure(struct job *j, struct span error, struct span detail)
{
	j->failed = true;
	handler_put_told(j->definition, error, &j->error);
	if (detail.ptr)
		handler_put_told(j->definition, detail, &j->detail);
}

/* A result counts whatever else was going on; a failure is explained by what we did to it. */
static void set_outcome(struct job *j, const struct handler_outcome *o)
{
	char text[64];
	if (o->result.ptr && buf_append_span(&j->result, o->result) == 0)
		return;
	if (o->result.ptr) {
		set_failure(j, SPAN_LIT("the result is too large"), SPAN_NONE);
		return;
	}
	switch (j->reason) {
	case JOB_TIMED_OUT:
		snprintf(text, sizeof(text), "timed out after %u ms", j->timeout_ms);
		set_failure(j, span_of(text), o->detail.ptr ? o->detail : o->error);
		break;
	case JOB_CANCELLED:
		j->cancelled = true;
		set_failure(j, SPAN_LIT("cancelled while it ran"), o->detail.ptr ? o->detail : o->error);
		break;
	case JOB_STOPPED:
		j->unknown = true;
		set_failure(j, SPAN_LIT(STORE_WORKER_LOST),
			    SPAN_LIT("the worker was stopped while the task ran"));
		break;
	case JOB_RUNS:
	case JOB_FENCED:
		set_failure(j, o->error, o->detail);
		break;
	}
}

/* The end of it: there the reason stands. */
static struct span log_detail(const struct job *j)
{
	struct span all = buf_span(&j->detail);
	size_t skip = all.len > LOG_DETAIL_MAX ? all.len - LOG_DETAIL_MAX : 0;
	return (struct span){all.ptr + skip, all.len - skip};
}

static void worker_on_done(void *arg, const struct handler_outcome *o)
{
	struct job *j = arg;
	j->run = NULL;
	j->ended = true;
	loop_timer_stop(j->limit);
	set_outcome(j, o);
	if (j->failed)
		j->worker->failed++;
	else
		j->worker->succeeded++;
	log_info("task_ended", LOG_STR("task_id", j->id), LOG_STR("task", j->name),
		 LOG_STR("status", j->failed ? "failed" : "completed"), LOG_INT("attempt", j->attempt),
		 LOG_INT("ms", clock_mono_ms() - j->begun_ms),
		 LOG_SPAN("error", j->failed ? buf_span(&j->error) : SPAN_NONE),
		 LOG_SPAN("detail", j->failed ? log_detail(j) : SPAN_NONE));
	worker_schedule(j->worker);
}

/* What passes by itself, and may be different for another worker. */
static bool is_shortage(int code)
{
	return code == -EMFILE || code == -ENFILE || code == -EAGAIN || code == -ENOMEM;
}

static void worker_give_back(struct job *j, const struct err *e)
{
	CLEANUP(buf_releasep) struct buf why = BUF_INIT(8 * sizeof(e->text));
	handler_put_told(j->definition, span_of(e->text), &why);
	log_warn("task_given_back", LOG_STR("task_id", j->id), LOG_STR("task", j->name),
		 LOG_SPAN("reason", buf_span(&why)));
	j->ended = j->not_begun = true;
	j->worker->pause_until_ms = clock_mono_ms() + SHORTAGE_PAUSE_MS;
	worker_schedule(j->worker);
}

static void start_job(struct job *j)
{
	struct err e = {""};
	struct handler_call call = {.task_id = span_of(j->id),
				    .name = span_of(j->name),
				    .args = buf_span(&j->args),
				    .kwargs = buf_span(&j->kwargs),
				    .attempt = j->attempt,
				    .shadow = j->shadow,
				    .traceparent = span_of(j->traceparent),
				    .tracestate = span_of(j->tracestate),
				    .timeout_ms = j->timeout_ms};
	j->begun_ms = clock_mono_ms();
	int r = handler_start(&j->worker->env, j->definition, &call, worker_on_done, j, &j->run, &e);
	buf_release(&j->args);
	buf_release(&j->kwargs);
	if (is_shortage(r)) {
		worker_give_back(j, &e);
		return;
	}
	if (r < 0) {
		char text[TASK_NAME_MAX + 64];
		snprintf(text, sizeof(text), "%s: it could not be started", j->name);
		struct handler_outcome o = {.error = span_of(r == -EINVAL ? e.text : text),
					    .detail = span_of(e.text)};
		worker_on_done(j, &o);
		return;
	}
	loop_timer_start(j->limit, j->timeout_ms);
}

/* --- leasing; within the transaction -------------------------------------------------------------------- */

/* Once for each name: otherwise nobody would know why it waits. */
static void log_unknown(struct worker *w, struct span name, bool workflow)
{
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(8192);
	if (memmem(w->unknown.ptr ? w->unknown.ptr : "", w->unknown.len, name.ptr, name.len + 1))
		/* the NUL behind it is looked for as well; a name that another ends with is logged but
		 * once with it */
		return;
	buf_append_span(&w->unknown, name);
	buf_putc(&w->unknown, '\0');
	registry_describe_unknown(w->o.registry, name, workflow, &text);
	log_warn("task_not_known", LOG_SPAN("task", name), LOG_SPAN("reason", buf_span(&text)),
		 LOG_STR("effect", "it waits for a worker that knows it"));
}

static bool worker_can_start(const struct registry *r, const struct workflow_definition *d)
{
	for (size_t i = 0; i < d->n_steps; i++)
		if (!registry_task(r, d->steps[i].task))
			return false;
	return !registry_is_for_router(d);
}

/* Versions of workers differ while they are being replaced: what this one does not know, another may. */
static bool worker_knows(void *arg, struct span name, bool workflow)
{
	struct worker *w = arg;
	const struct workflow_definition *d = workflow ? registry_workflow(w->o.registry, name) : NULL;
	if (workflow ? d && worker_can_start(w->o.registry, d) : registry_task(w->o.registry, name) != NULL)
		return true;
	log_unknown(w, name, workflow);
	return false;
}

static unsigned max_attempts(void *arg, struct span name, bool idempotent)
{
	const struct worker *w = arg;
	const struct task_definition *t = registry_task(w->o.registry, name);
	if (!idempotent && !(t && t->idempotent))
		return 1;
	return t && t->max_attempts > 1 ? t->max_attempts : IDEMPOTENT_ATTEMPTS;
}

/* A plain sequence is begun as ever, so that older workers, which share the file, can go on with it. */
static int start_graph(struct worker *w, const struct store_lease *l, const struct workflow_definition *d,
		       unsigned timeout_ms)
{
	CLEANUP(freep) struct workflow_definition *own = malloc(sizeof(*own));
	struct err e = {""};
	if (!own)
		return -ENOMEM;
	*own = *d;
	for (size_t i = 0; i < own->n_steps; i++) {
		const struct task_definition *t = registry_task(w->o.registry, own->steps[i].task);
		if (!own->steps[i].queue.ptr)
			own->steps[i].queue = t->queue;
	}
	int r = store_flow_start(w->store, l, own, timeout_ms, &e);
	if (r < 0)
		worker_note_trouble(w, &e);
	return r < 0 ? r : 0;
}

static int start_workflow(struct worker *w, const struct store_lease *l)
{
	struct store_step steps[WORKFLOW_MAX_STEPS];
	struct err e = {""};
	const struct workflow_definition *d = registry_workflow(w->o.registry, l->name);
	if (!d)
		return -EINVAL; /* is_known has let it through */
	unsigned timeout_ms = l->timeout_ms ? l->timeout_ms : d->timeout_ms;
	if (!workflow_is_sequence(d))
		return start_graph(w, l, d, timeout_ms);
	for (size_t i = 0; i < d->n_steps; i++) {
		const struct workflow_step *s = &d->steps[i];
		const struct task_definition *t = registry_task(w->o.registry, s->task);
		steps[i] = (struct store_step){.name = s->name,
					       .task = s->task,
					       .queue = s->queue.ptr ? s->queue : t->queue,
					       .kwargs = span_of(s->kwargs),
					       .input = STORE_INPUT_PREVIOUS,
					       .timeout_ms = s->timeout_ms};
		if (s->input == STEP_INPUT_WORKFLOW)
			steps[i].input = STORE_INPUT_WORKFLOW;
		else if (s->input == STEP_INPUT_NONE)
			steps[i].input = STORE_INPUT_NONE;
	}
	int r = store_workflow_start(w->store, l, steps, d->n_steps, timeout_ms, &e);
	if (r < 0)
		worker_note_trouble(w, &e);
	return r < 0 ? r : 0;
}

static int worker_taken(void *arg, const struct store_lease *l)
{
	struct worker *w = arg;
	if (l->workflow)
		return start_workflow(w, l);
	const struct task_definition *t = registry_task(w->o.registry, l->name);
	if (!t)
		return -EINVAL;
	struct job *j = calloc(1, sizeof(*j));
	if (!j)
		return -ENOMEM;
	j->worker = w;
	j->definition = t;
	j->registry = registry_ref(w->o.registry);
	j->seq = l->seq;
	j->token = l->token;
	j->attempt = l->attempt;
	j->shadow = l->shadow;
	memcpy(j->traceparent, l->traceparent, sizeof(j->traceparent));
	memcpy(j->tracestate, l->tracestate, sizeof(j->tracestate));
	j->timeout_ms = l->timeout_ms ? l->timeout_ms : t->timeout_ms;
	span_copy(l->id, j->id, sizeof(j->id));
	span_copy(l->name, j->name, sizeof(j->name));
	buf_init(&j->args, l->args.len);
	buf_init(&j->kwargs, l->kwargs.len);
	buf_init(&j->result, HANDLER_MAX_RESULT);
	buf_init(&j->error, 8 * TEXT_MASKED_MAX); /* sanitized, a byte is six at most */
	buf_init(&j->detail, 1 << 20);
	LIST_INSERT_HEAD(&w->fresh, j, place);
	int r = loop_timer_new(w->loop, worker_on_limit, j, &j->limit);
	buf_append_span(&j->args, l->args);
	buf_append_span(&j->kwargs, l->kwargs);
	if (r < 0)
		return r;
	return j->args.error ? j->args.error : j->kwargs.error;
}

static struct store_lease_request lease_request(struct worker *w, unsigned limit)
{
	return (struct store_lease_request){.queues = w->queues,
					    .n_queues = w->o.n_queues,
					    .worker = span_of(w->id),
					    .lease_ms = w->o.lease_ms,
					    .limit = limit,
					    .known = worker_knows,
					    .max_attempts = max_attempts,
					    .taken = worker_taken,
					    .arg = w};
}

static bool takes(const struct worker *w)
{
	return !w->stopping && clock_mono_ms() >= w->pause_until_ms;
}

static int lease(struct worker *w, struct err *e)
{
	/* Jobs written as ended in this transaction have given their places back. */
	unsigned busy = 0;
	for (struct job *j = LIST_FIRST(&w->jobs); j; j = LIST_NEXT(j, place))
		busy += !j->written;
	if (!takes(w) || busy >= w->o.concurrency)
		return 0;
	struct store_lease_request r = lease_request(w, w->o.concurrency - busy);
	return store_lease(w->store, &r, e);
}

/* --- writing -------------------------------------------------------------------------------------------- */

static int write_end(struct worker *w, struct job *j, struct err *e)
{
	int r;
	if (j->orphaned) {
		log_warn("task_result_refused", LOG_STR("task_id", j->id), LOG_STR("task", j->name),
			 LOG_STR("reason", "the database was deleted or replaced while it ran"));
		j->written = true;
		return 0;
	}
	if (j->not_begun) {
		r = store_give_back(w->store, j->seq, j->token, e);
	} else if (j->unknown) {
		r = store_lost(w->store, j->seq, j->token, buf_span(&j->detail), e);
	} else {
		struct store_outcome o = {.result = j->failed ? SPAN_NONE : buf_span(&j->result),
					  .error = buf_span(&j->error),
					  .detail = j->detail.len ? buf_span(&j->detail) : SPAN_NONE,
					  .cancelled = j->cancelled};
		r = store_finish(w->store, j->seq, j->token, &o, e);
	}
	if (r == STORE_E_STALE)
		log_warn("task_result_refused", LOG_STR("task_id", j->id), LOG_STR("task", j->name),
			 LOG_STR("reason", "the lease had run out"));
	j->written = r >= 0;
	return r < 0 ? r : 0;
}

static int write_ends(struct worker *w, struct err *e)
{
	int r = 0;
	for (struct job *j = LIST_FIRST(&w->jobs); r == 0 && j; j = LIST_NEXT(j, place))
		if (j->ended)
			r = write_end(w, j, e);
	return r;
}

static size_t count_known(const struct registry *r)
{
	size_t n = registry_count(r);
	for (size_t i = 0; i < registry_workflow_count(r); i++)
		n += registry_workflow_at(r, i)->n_steps;
	return n; /* at most */
}

static size_t fill_known(const struct registry *r, struct store_known *list)
{
	struct store_known *at = list;
	for (size_t i = 0; i < registry_count(r); i++)
		*at++ = (struct store_known){.task = registry_task_at(r, i)->name};
	for (size_t i = 0; i < registry_workflow_count(r); i++) {
		const struct workflow_definition *w = registry_workflow_at(r, i);
		for (size_t step = 0; worker_can_start(r, w) && step < w->n_steps; step++) {
			const struct workflow_step *s = &w->steps[step];
			struct span queue = s->queue.ptr ? s->queue : registry_task(r, s->task)->queue;
			*at++ = (struct store_known){.workflow = w->name, .task = s->task, .queue = queue};
		}
	}
	return (size_t)(at - list);
}

/* What it knows, so that routers do not submit what nobody would take. Without it they go by what they know
 * themselves: no reason to run nothing. */
static void publish(struct worker *w)
{
	struct err e = {""};
	if (w->published && store_published(w->store, span_of(w->id), &e) == 1)
		return;
	size_t n = count_known(w->o.registry);
	CLEANUP(freep) struct store_known *list = calloc(n ? n : 1, sizeof(*list));
	int r = list ? 0 : err_set(&e, -ENOMEM, "out of memory");
	if (r == 0) {
		n = fill_known(w->o.registry, list);
		r = store_publish(w->store, span_of(w->id), list, n, &e);
	}
	w->said = r == 0;
	if (r < 0 && !w->publish_failed)
		log_warn("tasks_not_published", LOG_STR("error", e.text),
			 LOG_STR("effect", "routers cannot tell whether this worker knows a task"));
	w->publish_failed = r < 0;
}

static int beat(struct worker *w, struct err *e)
{
	if (clock_mono_ms() < w->next_beat_ms)
		return 0;
	struct store_worker row = {.id = span_of(w->id),
				   .name = span_of(w->o.name),
				   .host = span_of(w->host),
				   .queues = buf_span(&w->queue_list),
				   .pid = getpid(),
				   .concurrency = w->o.concurrency};
	w->beaten = true;
	int r = store_worker_beat(w->store, &row, e);
	if (r == 0)
		publish(w);
	for (struct job *j = LIST_FIRST(&w->jobs); r >= 0 && j; j = LIST_NEXT(j, place)) {
		if (j->ended || j->orphaned)
			continue;
		r = store_extend(w->store, j->seq, j->token, w->o.lease_ms, e);
		if (r == STORE_E_STALE) {
			log_warn("task_lease_lost", LOG_STR("task_id", j->id), LOG_STR("task", j->name));
			kill_job(j, JOB_FENCED);
		}
	}
	return r < 0 ? r : 0;
}

static bool anything_to_write(struct worker *w, struct err *e)
{
	for (struct job *j = LIST_FIRST(&w->jobs); j; j = LIST_NEXT(j, place))
		if (j->ended)
			return true;
	if (clock_mono_ms() >= w->next_beat_ms)
		return true;
	struct store_lease_request r = lease_request(w, 1);
	return takes(w) && w->n_jobs < w->o.concurrency && store_ready(w->store, &r, e) != 0;
}

static void accept_jobs(struct worker *w)
{
	while (!LIST_EMPTY(&w->fresh)) {
		struct job *j = LIST_FIRST(&w->fresh);
		LIST_REMOVE(j, place);
		LIST_INSERT_HEAD(&w->jobs, j, place);
		w->n_jobs++;
		w->received++;
		start_job(j);
	}
}

static void drop_written(struct worker *w)
{
	for (struct job *j = LIST_FIRST(&w->jobs), *next; j; j = next) {
		next = LIST_NEXT(j, place);
		if (j->written) {
			w->n_jobs--;
			job_free(j);
		}
	}
}

static void worker_undo(struct worker *w)
{
	store_rollback(w->store);
	store_take_news(w->store);
	while (!LIST_EMPTY(&w->fresh))
		job_free(LIST_FIRST(&w->fresh));
	for (struct job *j = LIST_FIRST(&w->jobs); j; j = LIST_NEXT(j, place))
		j->written = false;
}

/* One transaction. The number of leases taken, or <0. */
static int write_round(struct worker *w, struct err *e)
{
	int r = store_begin(w->store, e), n = 0;
	w->beaten = w->said = false;
	if (r == 0)
		r = write_ends(w, e);
	if (r == 0)
		r = beat(w, e);
	if (r == 0)
		r = n = lease(w, e);
	if (r >= 0)
		r = store_commit(w->store, e);
	return r < 0 ? r : n;
}

static void check_stopped(struct worker *w);
static bool worker_need_file(struct worker *w);

static void worker_flush(struct worker *w)
{
	struct err e = {""};
	if (!worker_need_file(w) || !anything_to_write(w, &e))
		return;
	int n = write_round(w, &e);
	if (n < 0) {
		worker_undo(w);
		worker_note_trouble(w, &e);
		return; /* the tick tries again; leases continue */
	}
	if (w->in_trouble)
		log_info("task_store_works", LOG_STR("database", w->o.database));
	w->in_trouble = false;
	w->published |= w->said;
	if (w->beaten)
		w->next_beat_ms = clock_mono_ms() + w->o.lease_ms / 3;
	unsigned before = w->n_jobs;
	drop_written(w);
	bool freed = w->n_jobs < before;
	accept_jobs(w);
	if (w->poke)
		poke_all(w->poke, POKE_ROUTER);
	if (store_take_news(w->store) && w->poke)
		poke_all(w->poke, POKE_WORKER);
	/* Places that became free in this round, steps of workflows that began in it. */
	if (freed || n > 0)
		worker_schedule(w);
	check_stopped(w);
}

static void worker_on_flush(struct loop_work *work)
{
	struct worker *w = (struct worker *)((char *)work - offsetof(struct worker, flush));
	w->flush_due = false;
	worker_flush(w);
}

/* --- the file ------------------------------------------------------------------------------------------- */

static void worker_on_poke(void *arg, unsigned events);

static int worker_open_file(struct worker *w, struct err *e)
{
	struct store_options o = {.path = w->o.database};
	int r = store_open(&o, &w->store, e);
	if (r == 0)
		r = poke_open(w->o.database, POKE_WORKER, &w->poke, e);
	if (r == 0)
		r = loop_watch_new(w->loop, poke_fd(w->poke), LOOP_READ, worker_on_poke, w, &w->watch);
	return r;
}

static void worker_close_file(struct worker *w)
{
	w->watch = loop_watch_free(w->watch);
	w->poke = poke_close(w->poke);
	w->store = store_close(w->store);
}

/* A file that was deleted or replaced has taken the rows of what runs with it: these tasks end, and nobody
 * can be told. */
static void leave_file(struct worker *w)
{
	log_warn("task_store_moved", LOG_STR("database", w->o.database), LOG_STR("effect", "opened anew"));
	for (struct job *j = LIST_FIRST(&w->jobs); j; j = LIST_NEXT(j, place))
		j->orphaned = true;
	worker_close_file(w);
	w->published = false;
	w->next_beat_ms = 0;
}

static bool worker_need_file(struct worker *w)
{
	struct err e = {""};
	if (w->store && store_moved(w->store))
		leave_file(w);
	if (w->store)
		return true;
	if (worker_open_file(w, &e) == 0)
		return true;
	worker_close_file(w);
	worker_note_trouble(w, &e);
	return false;
}

/* --- what others ask for -------------------------------------------------------------------------------- */

static void worker_on_cancelled(void *arg, int64_t seq)
{
	struct worker *w = arg;
	for (struct job *j = LIST_FIRST(&w->jobs); j; j = LIST_NEXT(j, place))
		if (j->seq == seq)
			kill_job(j, JOB_CANCELLED);
}

static void worker_look(struct worker *w)
{
	struct err e = {""};
	if (w->n_jobs && worker_need_file(w) &&
	    store_cancelled(w->store, span_of(w->id), worker_on_cancelled, w, &e) < 0)
		worker_note_trouble(w, &e);
	worker_schedule(w);
}

static void worker_on_poke(void *arg, unsigned events)
{
	struct worker *w = arg;
	(void)events;
	poke_drain(w->poke);
	worker_look(w);
}

static void worker_sweep(struct worker *w)
{
	struct err e = {""};
	unsigned changes = 0;
	if (!worker_need_file(w))
		return;
	if (store_sweep(w->store, w->o.retention_ms, &changes, &e) < 0)
		worker_note_trouble(w, &e);
	if (changes && w->poke) {
		poke_all(w->poke, POKE_ROUTER);
		poke_all(w->poke, POKE_WORKER);
	}
}

static void worker_on_tick(void *arg)
{
	struct worker *w = arg;
	/* what it has itself to say comes first: its own lease may be the one that ran out */
	worker_flush(w);
	if (w->over)
		return;
	if (!w->in_trouble)
		worker_sweep(w);
	worker_look(w);
	loop_timer_start(w->tick, TICK_MS);
}

/* --- stopping ------------------------------------------------------------------------------------------- */

static void worker_on_stopped(struct loop_work *work)
{
	struct worker *w = (struct worker *)((char *)work - offsetof(struct worker, stopped));
	w->o.stopped(w->o.arg);
}

static void check_stopped(struct worker *w)
{
	struct err e = {""};
	if (!w->stopping || !LIST_EMPTY(&w->jobs) || w->over)
		return;
	w->over = true;
	loop_timer_stop(w->tick);
	loop_timer_stop(w->drain);
	int r = w->store ? store_begin(w->store, &e) : -ENOENT;
	if (r == 0)
		r = store_worker_gone(w->store, span_of(w->id), &e);
	if (r == 0)
		r = store_commit(w->store, &e);
	if (r < 0 && w->store)
		store_rollback(w->store); /* it goes out of sight by its age */
	loop_defer(w->loop, &w->stopped);
}

static void kill_all(struct worker *w)
{
	for (struct job *j = LIST_FIRST(&w->jobs); j; j = LIST_NEXT(j, place)) {
		if (!j->ended)
			log_warn("task_cut", LOG_STR("task_id", j->id), LOG_STR("task", j->name));
		kill_job(j, JOB_STOPPED);
	}
}

/* First what runs is killed. What could still not be written down some seconds later is left to its lease. */
static void on_drain_end(void *arg)
{
	struct worker *w = arg;
	if (!w->drained) {
		w->drained = true;
		kill_all(w);
		loop_timer_start(w->drain, LAST_MS);
		return;
	}
	log_error("worker_leaves_tasks", LOG_INT("tasks", w->n_jobs),
		  LOG_STR("effect", "their leases will run out"));
	w->over = true;
	loop_timer_stop(w->tick);
	loop_defer(w->loop, &w->stopped);
}

void worker_stop(struct worker *w)
{
	if (w->stopping) {
		kill_all(w);
		return;
	}
	w->stopping = true;
	log_info("worker_drains", LOG_INT("running", w->n_jobs), LOG_INT("deadline_ms", w->o.drain_ms));
	loop_timer_start(w->drain, w->o.drain_ms);
	check_stopped(w);
}

void worker_set_registry(struct worker *w, struct registry *r)
{
	registry_free(w->o.registry);
	w->o.registry = registry_ref(r);
	buf_clear(&w->unknown);
	w->published = false;
	w->next_beat_ms = 0; /* it is said at once */
	worker_schedule(w);
}

/* --- begin and end -------------------------------------------------------------------------------------- */

static int open_parts(struct worker *w, struct err *e)
{
	int r = worker_open_file(w, e);
	if (r == 0)
		r = http_client_new(w->loop, NULL, &w->env.http, e);
	if (r == 0)
		r = loop_timer_new(w->loop, worker_on_tick, w, &w->tick);
	if (r == 0)
		r = loop_timer_new(w->loop, on_drain_end, w, &w->drain);
	return r;
}

int worker_new(struct loop *loop, const struct worker_options *o, struct worker **ret, struct err *e)
{
	if (!o->n_queues || o->n_queues > WORKER_MAX_QUEUES || !o->concurrency ||
	    o->concurrency > WORKER_MAX_CONCURRENCY)
		return err_set(e, -EINVAL, "a worker needs 1 to %d queues and 1 to %d slots",
			       WORKER_MAX_QUEUES, WORKER_MAX_CONCURRENCY);
	struct worker *w = calloc(1, sizeof(*w));
	if (!w)
		return err_set(e, -ENOMEM, "out of memory");
	w->o = *o;
	registry_ref(w->o.registry);
	buf_init(&w->unknown, UNKNOWN_LOGGED);
	w->o.lease_ms = o->lease_ms ? o->lease_ms : DEFAULT_LEASE_MS;
	w->o.retention_ms = o->retention_ms ? o->retention_ms : DEFAULT_RETENTION_MS;
	w->loop = w->env.loop = loop;
	w->flush.fn = worker_on_flush;
	w->stopped.fn = worker_on_stopped;
	crypto_random_id(w->id);
	gethostname(w->host, sizeof(w->host) - 1);
	buf_init(&w->queue_list, WORKER_MAX_QUEUES * (TASK_NAME_MAX + 1));
	for (size_t i = 0; i < o->n_queues; i++) {
		w->queues[i] = span_of(o->queues[i]);
		buf_printf(&w->queue_list, "%s%s", i ? "," : "", o->queues[i]);
	}
	int r = open_parts(w, e);
	if (r < 0) {
		worker_free(w);
		return r;
	}
	worker_on_tick(w);
	*ret = w;
	return 0;
}

struct worker *worker_free(struct worker *w)
{
	if (!w)
		return NULL;
	while (!LIST_EMPTY(&w->jobs))
		job_free(LIST_FIRST(&w->jobs));
	worker_close_file(w);
	loop_timer_free(w->tick);
	loop_timer_free(w->drain);
	http_client_free(w->env.http);
	buf_release(&w->queue_list);
	buf_release(&w->unknown);
	registry_free(w->o.registry);
	free(w);
	return NULL;
}

/* --- as an engine --------------------------------------------------------------------------------------- */

static int worker_make(struct loop *loop, const struct worker_options *o, void **ret, struct err *e)
{
	struct worker *w = NULL;
	int r = worker_new(loop, o, &w, e);
	*ret = w;
	return r;
}

static void worker_engine_set_registry(void *w, struct registry *r)
{
	worker_set_registry(w, r);
}

static void worker_engine_stop(void *w)
{
	worker_stop(w);
}

static void worker_engine_release(void *w)
{
	worker_free(w);
}

static void worker_counts(const void *arg, struct worker_counts *ret)
{
	const struct worker *w = arg;
	*ret = (struct worker_counts){.received = w->received,
				      .succeeded = w->succeeded,
				      .failed = w->failed,
				      .running = w->n_jobs,
				      .connected = w->store && !w->in_trouble};
}

const struct worker_engine embedded_engine = {.name = "embedded",
					      .default_queue = REGISTRY_DEFAULT_QUEUE,
					      .make = worker_make,
					      .set_registry = worker_engine_set_registry,
					      .stop = worker_engine_stop,
					      .release = worker_engine_release,
					      .counts = worker_counts};
