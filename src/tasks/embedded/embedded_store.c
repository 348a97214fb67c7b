/*
 * The store thread: takes operations in, writes all that came in one round in one transaction (group commit),
 * and watches for tasks that end. Nothing else in the process touches tasks.db.
 */
#include "base/hash.h"
#include "tasks/embedded/embedded.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "tasks/embedded/embedded_internal.h"
#include "tasks/queue/poke.h"

#define TICK_MS 1000
#define WORKER_SEEN_MS 20000
#define WAIT_BUCKETS 4096
#define READ_BATCH 1000
#define STEPS_ROOM (4u << 20)
#define RESULT_ROOM (128u << 20) /* a result with its sentences and names */

LIST_HEAD(wait_bucket, embedded_operation);

struct embedded_store {
	const struct embedded_options *o;
	struct loop *loop;
	pthread_t thread;
	struct loop_work stop, flush;
	atomic_size_t queued, queued_bytes;
	atomic_uint_fast64_t number;

	/* The thread's own. */
	struct store *store;
	struct poke *poke;
	struct loop_watch *watch;
	struct loop_timer *tick;
	struct embedded_operation *batch, **batch_end;
	bool flush_due;
	struct wait_bucket waits[WAIT_BUCKETS];
	size_t n_waits;
	int64_t seen; /* mark up to which ends were read */
	int trouble;  /* why nothing can be written now, or 0 */
	struct err why;
};

/* --- from other threads --------------------------------------------------------------------------------- */

static void on_operation(struct loop_work *work);

void embedded_post_work(struct embedded_store *s, struct loop_work *work)
{
	loop_post(s->loop, work);
}

void embedded_post_operation(struct embedded_store *s, struct embedded_operation *op)
{
	op->work.fn = on_operation;
	atomic_fetch_add(&s->queued, 1);
	atomic_fetch_add(&s->queued_bytes, op->bytes);
	loop_post(s->loop, &op->work);
}

bool embedded_post(struct embedded_store *s, struct embedded_operation *op)
{
	if (atomic_load(&s->queued) >= s->o->max_queued ||
	    atomic_load(&s->queued_bytes) + op->bytes > s->o->max_queued_bytes)
		return false;
	embedded_post_operation(s, op);
	return true;
}

const struct embedded_options *embedded_store_options(const struct embedded_store *s)
{
	return s->o;
}

uint64_t embedded_next_number(struct embedded_store *s)
{
	return atomic_fetch_add(&s->number, 1) + 1;
}

/* --- the file ------------------------------------------------------------------------------------------- */

static void embedded_store_note_trouble(struct embedded_store *s, int code, const struct err *e)
{
	if (s->trouble != code && !s->o->must_exist)
		log_error("task_store_failed", LOG_STR("database", s->o->database),
			  LOG_STR("error", e->text));
	s->trouble = code;
	s->why = *e;
}

static void note_health(struct embedded_store *s)
{
	if (s->trouble)
		log_info("task_store_works", LOG_STR("database", s->o->database));
	s->trouble = 0;
}

static void embedded_store_on_poke(void *arg, unsigned events);

static void open_poke(struct embedded_store *s)
{
	struct err e;
	if (s->poke)
		return;
	int r = poke_open(s->o->database, POKE_ROUTER, &s->poke, &e);
	if (r == 0)
		r = loop_watch_new(s->loop, poke_fd(s->poke), LOOP_READ, embedded_store_on_poke, s,
				   &s->watch);
	if (r < 0) {
		s->poke = poke_close(s->poke);
		log_warn("task_store_poke_failed", LOG_STR("error", e.text),
			 LOG_STR("effect", "polling for results"));
	}
}

static void embedded_store_close_file(struct embedded_store *s)
{
	s->watch = loop_watch_free(s->watch);
	s->poke = poke_close(s->poke);
	s->store = store_close(s->store);
}

static int embedded_store_need_file(struct embedded_store *s)
{
	struct err e = {""};
	if (s->store)
		return 0;
	if (s->o->must_exist && access(s->o->database, F_OK) < 0) {
		int code = err_set(&e, -errno, "%s: %s; no router or worker has used it yet", s->o->database,
				   strerror(errno));
		embedded_store_note_trouble(s, code, &e);
		return code;
	}
	struct store_options o = {.path = s->o->database,
				  .busy_timeout_ms = s->o->busy_timeout_ms,
				  .max_result = s->o->max_result};
	int r = store_open(&o, &s->store, &e);
	if (r == 0)
		r = store_finished_last(s->store, &s->seen, &e);
	if (r < 0) {
		s->store = store_close(s->store);
		embedded_store_note_trouble(s, r, &e);
		return r;
	}
	note_health(s);
	open_poke(s);
	return 0;
}

/* --- writing -------------------------------------------------------------------------------------------- */

static int write_one(struct embedded_store *s, struct embedded_operation *op)
{
	if (op->kind == OPERATION_CANCEL) {
		op->error = store_cancel(s->store, span_of(op->id), &op->err);
		return op->error;
	}
	int r = store_insert(s->store, &op->task, &op->err);
	op->status = r == 0 || r == STORE_E_EXISTS ? TASK_SUBMITTED : TASK_REFUSED;
	return r;
}

static void fail_write(struct embedded_operation *op, int code, enum task_submit_status status,
		       const struct err *e)
{
	op->status = status;
	op->error = code;
	op->err = *e;
}

/* Writes the operations of the list in one transaction; none of them when it fails. */
static int embedded_store_write_all(struct embedded_store *s, struct embedded_operation *list, struct err *e)
{
	enum task_submit_status failed = TASK_REFUSED;
	int r = store_begin(s->store, e);
	for (struct embedded_operation *op = list; op && r >= 0; op = op->next) {
		r = write_one(s, op);
		if (r < 0)
			*e = op->err;
	}
	if (r >= 0) {
		r = store_commit(s->store, e);
		/* A commit that could not be synced may still be found in the WAL after a power cut. */
		if (r < 0 && r != -ENOSPC && r != -EBUSY && r != -EROFS)
			failed = TASK_UNKNOWN;
	}
	if (r >= 0)
		return 0;
	store_rollback(s->store);
	for (struct embedded_operation *op = list; op; op = op->next)
		fail_write(op, r, failed, e);
	return r;
}

static bool is_about_the_file(int code)
{
	return code == -ENOSPC || code == -EBUSY || code == -EROFS || code == -EIO || code == -EUCLEAN ||
	       code == -EACCES;
}

static void write_list(struct embedded_store *s, struct embedded_operation *list)
{
	struct err e = {""};
	int r = embedded_store_need_file(s);
	if (r < 0) {
		for (struct embedded_operation *op = list; op; op = op->next)
			fail_write(op, r, TASK_REFUSED, &s->why);
		return;
	}
	r = embedded_store_write_all(s, list, &e);
	if (r == 0) {
		note_health(s);
		if (s->poke)
			poke_all(s->poke, POKE_WORKER);
	} else if (is_about_the_file(r)) {
		embedded_store_note_trouble(s, r, &e);
	} else if (list->next) {
		/* One of them cannot be written: the others shall not fail with it. */
		for (struct embedded_operation *op = list, *next; op; op = next) {
			next = op->next;
			op->next = NULL;
			if (op->status != TASK_UNKNOWN)
				write_list(s, op);
			op->next = next;
		}
	}
}

/* --- waiting and looking -------------------------------------------------------------------------------- */

static struct wait_bucket *bucket_of(struct embedded_store *s, const char *id)
{
	return &s->waits[hash64_span(HASH64_START, span_of(id)) % WAIT_BUCKETS];
}

static void embedded_store_remember(struct embedded_store *s, struct embedded_operation *op)
{
	LIST_INSERT_HEAD(bucket_of(s, op->id), op, place);
	s->n_waits++;
}

static void embedded_store_forget(struct embedded_store *s, struct embedded_operation *op)
{
	LIST_REMOVE(op, place);
	s->n_waits--;
}

static void embedded_store_read_result(struct embedded_store *s, struct embedded_operation *op)
{
	buf_init(&op->text, RESULT_ROOM);
	op->error = embedded_store_need_file(s);
	if (op->error == 0)
		op->error = store_get(s->store, span_of(op->id), &op->text, &op->result, &op->err);
	if (op->error == STORE_E_NOT_FOUND)
		op->error = TASK_E_NOT_FOUND;
	else if (op->error < 0)
		op->error = TASK_E_UNREACHABLE;
}

/* Beside the result: without them it is told all the same. */
static void embedded_store_read_steps(struct embedded_store *s, struct embedded_operation *op)
{
	struct err ignored;
	buf_init(&op->steps, STEPS_ROOM);
	if (op->error == 0 && store_steps(s->store, span_of(op->id), &op->steps, &ignored) == 0)
		op->result.steps = buf_span(&op->steps);
}

static bool is_over(const struct embedded_operation *op)
{
	return op->error == TASK_E_NOT_FOUND || (op->error == 0 && op->result.status >= TASK_COMPLETED);
}

static void begin_wait(struct embedded_store *s, struct embedded_operation *op)
{
	embedded_store_read_result(s, op);
	/* A file that cannot be read now is read again by the tick: the task is there. */
	if (is_over(op) || channel_closed(op->channel)) {
		channel_deliver(op);
	} else {
		buf_release(&op->text);
		embedded_store_remember(s, op);
	}
}

static void end_wait(struct embedded_store *s, const struct embedded_operation *unwait)
{
	struct embedded_operation *op;
	LIST_FOREACH (op, bucket_of(s, unwait->id), place) {
		if (op->number == unwait->number) {
			embedded_store_forget(s, op);
			channel_deliver(op);
			return;
		}
	}
}

void embedded_detach(struct embedded_store *s, struct channel *c)
{
	for (size_t i = 0; i < WAIT_BUCKETS && s->n_waits; i++) {
		for (struct embedded_operation *op = LIST_FIRST(&s->waits[i]), *next; op; op = next) {
			next = LIST_NEXT(op, place);
			if (op->channel == c) {
				embedded_store_forget(s, op);
				operation_free(op);
			}
		}
	}
}

struct ends {
	struct embedded_store *store;
	struct embedded_operation *list;
};

static void embedded_store_on_end(void *arg, struct span id)
{
	struct ends *ends = arg;
	char text[TASK_ID_MAX];
	span_copy(id, text, sizeof(text));
	for (struct embedded_operation *op = LIST_FIRST(bucket_of(ends->store, text)), *next; op; op = next) {
		next = LIST_NEXT(op, place);
		if (strcmp(op->id, text) == 0) {
			embedded_store_forget(ends->store, op);
			op->next = ends->list;
			ends->list = op;
		}
	}
}

static void take_all_waits(struct embedded_store *s, struct ends *ends)
{
	for (size_t i = 0; i < WAIT_BUCKETS; i++) {
		while (!LIST_EMPTY(&s->waits[i])) {
			struct embedded_operation *op = LIST_FIRST(&s->waits[i]);
			embedded_store_forget(s, op);
			op->next = ends->list;
			ends->list = op;
		}
	}
}

/* Reads which tasks have ended since the last time, and tells those who wait for them. */
static void read_ends(struct embedded_store *s)
{
	struct err e = {""};
	if (embedded_store_need_file(s) < 0)
		return;
	for (int64_t before = -1; before != s->seen;) {
		struct ends ends = {.store = s};
		bool gap;
		before = s->seen;
		int r = store_finished_since(s->store, &s->seen, READ_BATCH, &gap, embedded_store_on_end,
					     &ends, &e);
		if (gap)
			take_all_waits(s, &ends);
		for (struct embedded_operation *op = ends.list, *next; op; op = next) {
			next = op->next;
			begin_wait(s, op);
		}
		if (r < 0) {
			embedded_store_note_trouble(s, r, &e);
			return;
		}
	}
}

static void read_health(struct embedded_store *s, struct embedded_operation *op)
{
	struct task_health *h = &op->health;
	struct err e = {""};
	int64_t workers = 0;
	h->backlog = -1;
	int r = embedded_store_need_file(s);
	if (r == 0) {
		r = store_workers(s->store, WORKER_SEEN_MS, &workers, &e);
		if (r == 0)
			r = store_backlog(s->store, &h->backlog, &e);
		/* Is it over? Nobody else would find out: while it is not, nothing is submitted. */
		if (r == 0 && s->trouble && !s->o->must_exist)
			r = store_probe(s->store, &e);
		if (r < 0)
			embedded_store_note_trouble(s, r, &e);
		else
			note_health(s);
	}
	h->reachable = s->trouble == 0;
	h->worker = workers > 0;
	if (!h->reachable)
		span_copy(span_of(s->why.text), h->detail, sizeof(h->detail));
	else if (!h->worker)
		snprintf(h->detail, sizeof(h->detail), "no worker is running for %s", s->o->database);
}

/* What the workers say they know counts for more than what the router's own file says. */
static void read_known(struct embedded_store *s, struct embedded_operation *op)
{
	struct task_check *c = &op->check;
	struct span queues = op->task.queue;
	const char *comma = memchr(queues.ptr, ',', queues.len);
	struct span own = {queues.ptr, comma ? (size_t)(comma - queues.ptr) : queues.len};
	enum task_answer known = TASK_ANSWER_UNKNOWN;
	char why[sizeof(c->missing)];
	struct err e;
	int r = store_knows(s->store, own, op->task.name, op->task.workflow, WORKER_SEEN_MS, &known, why, &e);
	if (r < 0 || known == TASK_ANSWER_UNKNOWN)
		return;
	if (known == TASK_ANSWER_NO && c->known == TASK_ANSWER_NO && c->missing[0])
		return; /* the file's own sentence names the nearest task, too */
	c->known = known;
	snprintf(c->missing, sizeof(c->missing), "%s", known == TASK_ANSWER_NO ? why : "");
}

/* What the client knows of the task is there already; whether it is reachable comes before that. */
static void read_check(struct embedded_store *s, struct embedded_operation *op)
{
	struct task_check *c = &op->check;
	struct err e = {""};
	read_health(s, op);
	c->reachable = op->health.reachable;
	if (!c->reachable) {
		span_copy(span_of(op->health.detail), c->missing, sizeof(c->missing));
		return;
	}
	c->worker = TASK_ANSWER_YES;
	for (struct span rest = op->task.queue; rest.len && c->worker == TASK_ANSWER_YES;) {
		const char *comma = memchr(rest.ptr, ',', rest.len);
		struct span queue = {rest.ptr, comma ? (size_t)(comma - rest.ptr) : rest.len};
		int64_t workers = 0;
		int r = store_workers_of(s->store, queue, WORKER_SEEN_MS, &workers, &e);
		if (r < 0)
			c->worker = TASK_ANSWER_UNKNOWN;
		else if (workers == 0)
			c->worker = TASK_ANSWER_NO;
		if (r < 0 && !c->missing[0])
			span_copy(span_of(e.text), c->missing, sizeof(c->missing));
		else if (workers == 0 && !c->missing[0])
			snprintf(c->missing, sizeof(c->missing), "no worker serves the queue \"%.*s\"",
				 SPAN_ARG(queue));
		rest.ptr += queue.len + (comma != NULL);
		rest.len -= queue.len + (comma != NULL);
	}
	if (c->worker == TASK_ANSWER_YES)
		read_known(s, op);
}

/* --- the thread ----------------------------------------------------------------------------------------- */

static void embedded_store_answer(struct embedded_store *s, struct embedded_operation *op)
{
	switch (op->kind) {
	case OPERATION_SUBMIT:
	case OPERATION_CANCEL:
		if (op->error == STORE_E_NOT_FOUND)
			op->error = TASK_E_NOT_FOUND;
		break;
	case OPERATION_GET:
		embedded_store_read_result(s, op);
		embedded_store_read_steps(s, op);
		break;
	case OPERATION_WAIT:
		begin_wait(s, op);
		return;
	case OPERATION_UNWAIT:
		end_wait(s, op);
		operation_free(op);
		return;
	case OPERATION_HEALTH:
		read_health(s, op);
		break;
	case OPERATION_CHECK:
		read_check(s, op);
		break;
	}
	channel_deliver(op);
}

static bool writes(const struct embedded_operation *op)
{
	return op->kind == OPERATION_SUBMIT || op->kind == OPERATION_CANCEL;
}

static void embedded_store_flush(struct embedded_store *s)
{
	struct embedded_operation *written = NULL, **written_end = &written, *others = NULL,
				  **others_end = &others;
	for (struct embedded_operation *op = s->batch; op; op = op->next) {
		struct embedded_operation ***end = writes(op) ? &written_end : &others_end;
		**end = op;
		*end = &op->next;
		atomic_fetch_sub(&s->queued, 1);
		atomic_fetch_sub(&s->queued_bytes, op->bytes);
	}
	*written_end = *others_end = NULL;
	s->batch = NULL;
	s->batch_end = &s->batch;
	if (written)
		write_list(s, written);
	bool cancelled = false;
	for (struct embedded_operation *op = written, *next; op; op = next) {
		next = op->next;
		cancelled |= op->kind == OPERATION_CANCEL;
		embedded_store_answer(s, op);
	}
	if (cancelled)
		read_ends(s);
	for (struct embedded_operation *op = others, *next; op; op = next) {
		next = op->next;
		embedded_store_answer(s, op);
	}
}

static void embedded_store_on_flush(struct loop_work *work)
{
	struct embedded_store *s =
		(struct embedded_store *)((char *)work - offsetof(struct embedded_store, flush));
	s->flush_due = false;
	embedded_store_flush(s);
}

static void on_operation(struct loop_work *work)
{
	struct embedded_operation *op = (struct embedded_operation *)work; /* its first member */
	struct embedded_store *s = op->channel->store;
	op->next = NULL;
	*s->batch_end = op;
	s->batch_end = &op->next;
	if (!s->flush_due) {
		s->flush_due = true;
		loop_defer(s->loop, &s->flush);
	}
}

static void embedded_store_on_poke(void *arg, unsigned events)
{
	struct embedded_store *s = arg;
	(void)events;
	poke_drain(s->poke);
	read_ends(s);
}

static void embedded_store_on_tick(void *arg)
{
	struct embedded_store *s = arg;
	struct err e = {""};
	unsigned changes = 0;
	if (s->store && store_moved(s->store)) {
		log_warn("task_store_moved", LOG_STR("database", s->o->database),
			 LOG_STR("effect", "opened anew"));
		embedded_store_close_file(s);
	}
	if (embedded_store_need_file(s) == 0) {
		open_poke(s);
		int r = store_sweep(s->store, s->o->retention_ms, &changes, &e);
		if (r < 0)
			embedded_store_note_trouble(s, r, &e);
		if (changes && s->poke)
			poke_all(s->poke, POKE_WORKER); /* a lost task may be waiting again */
		read_ends(s);
	}
	loop_timer_start(s->tick, TICK_MS);
}

static void on_stop(struct loop_work *work)
{
	struct embedded_store *s =
		(struct embedded_store *)((char *)work - offsetof(struct embedded_store, stop));
	loop_stop(s->loop);
}

static void *embedded_store_run(void *arg)
{
	struct embedded_store *s = arg;
	embedded_store_need_file(s);
	loop_timer_start(s->tick, TICK_MS);
	loop_run(s->loop);
	/* What was handed over before the stop but not yet written. */
	loop_run_posted(s->loop);
	embedded_store_flush(s);
	struct ends left = {.store = s};
	take_all_waits(s, &left);
	for (struct embedded_operation *op = left.list, *next; op; op = next) {
		next = op->next;
		operation_free(op);
	}
	embedded_store_close_file(s);
	return NULL;
}

/* --- start and stop ------------------------------------------------------------------------------------- */

static void store_release_all(struct embedded_store *s)
{
	if (s->loop) {
		loop_timer_free(s->tick);
		loop_free(s->loop);
	}
	free(s);
}

int embedded_store_start(const struct embedded_options *o, struct embedded_store **ret, struct err *e)
{
	struct embedded_store *s = calloc(1, sizeof(*s));
	if (!s)
		return err_set(e, -ENOMEM, "out of memory");
	s->o = o;
	s->batch_end = &s->batch;
	s->stop.fn = on_stop;
	s->flush.fn = embedded_store_on_flush;
	int r = loop_new(&s->loop);
	if (r == 0)
		r = loop_timer_new(s->loop, embedded_store_on_tick, s, &s->tick);
	if (r == 0) {
		/* Signals are the main thread's. */
		sigset_t all, old;
		sigfillset(&all);
		pthread_sigmask(SIG_SETMASK, &all, &old);
		r = -pthread_create(&s->thread, NULL, embedded_store_run, s);
		pthread_sigmask(SIG_SETMASK, &old, NULL);
	}
	if (r < 0) {
		store_release_all(s);
		return err_set(e, r, "the task store cannot be started: %s", strerror(-r));
	}
	*ret = s;
	return 0;
}

struct embedded_store *embedded_store_stop(struct embedded_store *s)
{
	if (!s)
		return NULL;
	loop_post(s->loop, &s->stop);
	pthread_join(s->thread, NULL);
	store_release_all(s);
	return NULL;
}
