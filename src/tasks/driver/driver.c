/*
 * The driver's thread: takes operations and events in, writes all that came in one round in one transaction
 * (group commit), then does what was written. Nothing else in the process touches workflows.db.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/crypto.h"
#include "base/log.h"
#include "tasks/driver/driver_run.h"

#define TICK_MS 500
#define RETRY_MS 1000
#define BATCH 256	 /* events of one transaction */
#define PATIENCE_MS 2000 /* for answers to submissions when it stops */
#define SAY_AGAIN_MS 60000
#define RESULT_ROOM (160u << 20) /* a result with its steps and sentences */

#define OF(type, member, pointer) ((type *)((char *)(pointer)-offsetof(type, member)))

/* --- from other threads --------------------------------------------------------------------------------- */

static void driver_on_operation(struct loop_work *work);

void driver_post_work(struct driver *d, struct loop_work *work)
{
	loop_post(d->loop, work);
}

static size_t operation_bytes(const struct driver_operation *op)
{
	return op->call.args.len + op->call.kwargs.len;
}

void driver_post_operation(struct driver *d, struct driver_operation *op)
{
	op->work.fn = driver_on_operation;
	atomic_fetch_add(&d->queued, 1);
	atomic_fetch_add(&d->queued_bytes, operation_bytes(op));
	loop_post(d->loop, &op->work);
}

bool driver_post(struct driver *d, struct driver_operation *op)
{
	if (atomic_load(&d->queued) >= d->o->max_queued ||
	    atomic_load(&d->queued_bytes) + operation_bytes(op) > d->o->max_bytes)
		return false;
	driver_post_operation(d, op);
	return true;
}

const struct driver_options *driver_options_of(const struct driver *d)
{
	return d->o;
}

uint64_t driver_next_number(struct driver *d)
{
	return atomic_fetch_add(&d->number, 1) + 1;
}

/* --- the file ------------------------------------------------------------------------------------------- */

static void driver_note_trouble(struct driver *d, int code, const struct err *e)
{
	if (d->trouble != code && !d->o->only_looking)
		log_error("workflow_store_failed", LOG_STR("database", d->o->database),
			  LOG_STR("error", e->text));
	d->trouble = code;
	d->why = *e;
}

static void driver_note_health(struct driver *d)
{
	if (d->trouble)
		log_info("workflow_store_works", LOG_STR("database", d->o->database));
	d->trouble = 0;
}

static int driver_take_number(struct driver *d, struct err *e)
{
	CLEANUP(freep) char *path = NULL;
	if (d->lock.fd >= 0 || d->o->only_looking) /* who only looks drives nothing */
		return 0;
	if (asprintf(&path, "%s-drivers", d->o->database) < 0) {
		path = NULL;
		return err_set(e, -ENOMEM, "out of memory");
	}
	return driver_lock_take(path, &d->lock, e);
}

static int driver_need_file(struct driver *d)
{
	struct err e = {""};
	if (d->store)
		return 0;
	int r = 0;
	if (d->o->only_looking && access(d->o->database, F_OK) < 0)
		r = err_set(&e, -errno, "%s: %s; no router has used it yet", d->o->database, strerror(errno));
	else
		r = driver_take_number(d, &e);
	if (r == 0)
		r = runs_open(d->o->database, 0, &d->store, &e);
	if (r < 0) {
		driver_note_trouble(d, r, &e);
		return r;
	}
	driver_note_health(d);
	return 0;
}

static bool driver_is_about_the_file(int code)
{
	return code == -ENOSPC || code == -EBUSY || code == -EROFS || code == -EIO || code == -EACCES;
}

/* --- waiting and looking -------------------------------------------------------------------------------- */

static struct driver_operations *driver_waits_of(struct driver *d, const char *id)
{
	return &d->waits[crypto_hash64(span_of(id)) % DRIVER_BUCKETS];
}

static void driver_read_result(struct driver *d, struct driver_operation *op)
{
	buf_release(&op->text);
	buf_init(&op->text, RESULT_ROOM);
	op->error = driver_need_file(d);
	if (op->error == 0)
		op->error = runs_get(d->store, span_of(op->id), &op->text, &op->result, &op->err);
	if (op->error == RUNS_E_NOT_FOUND)
		op->error = TASK_E_NOT_FOUND;
	else if (op->error < 0)
		op->error = TASK_E_UNREACHABLE;
}

static bool driver_is_over(const struct driver_operation *op)
{
	return op->error == TASK_E_NOT_FOUND || (op->error == 0 && op->result.status >= TASK_COMPLETED);
}

static void driver_begin_wait(struct driver *d, struct driver_operation *op)
{
	driver_read_result(d, op);
	/* A file that cannot be read now is read again by the tick: the run is there. */
	if (driver_is_over(op) || driver_channel_closed(op->channel)) {
		driver_channel_deliver(op);
		return;
	}
	buf_release(&op->text);
	TAILQ_INSERT_TAIL(driver_waits_of(d, op->id), op, place);
	d->n_waits++;
}

static void driver_end_wait(struct driver *d, const struct driver_operation *unwait)
{
	struct driver_operation *op;
	TAILQ_FOREACH (op, driver_waits_of(d, unwait->id), place) {
		if (op->number == unwait->number) {
			TAILQ_REMOVE(driver_waits_of(d, unwait->id), op, place);
			d->n_waits--;
			driver_channel_deliver(op);
			return;
		}
	}
}

void driver_detach(struct driver *d, struct driver_channel *c)
{
	for (size_t i = 0; i < DRIVER_BUCKETS && d->n_waits; i++) {
		for (struct driver_operation *op = TAILQ_FIRST(&d->waits[i]), *next; op; op = next) {
			next = TAILQ_NEXT(op, place);
			if (op->channel == c) {
				TAILQ_REMOVE(&d->waits[i], op, place);
				d->n_waits--;
				driver_operation_free(op);
			}
		}
	}
}

/* Those who wait for this run are told, if it is over. */
static void driver_look_again(struct driver *d, struct driver_operations *bucket, const char *id)
{
	struct driver_operations again = TAILQ_HEAD_INITIALIZER(again);
	struct driver_operation *op, *next;
	for (op = TAILQ_FIRST(bucket); op; op = next) {
		next = TAILQ_NEXT(op, place);
		if (id ? strcmp(op->id, id) == 0 : !driver_find_run(d, span_of(op->id))) {
			TAILQ_REMOVE(bucket, op, place);
			d->n_waits--;
			TAILQ_INSERT_TAIL(&again, op, place);
		}
	}
	while ((op = TAILQ_FIRST(&again))) {
		TAILQ_REMOVE(&again, op, place);
		driver_begin_wait(d, op);
	}
}

/* --- writing -------------------------------------------------------------------------------------------- */

static void driver_fail_call(struct driver_operation *op, int code, enum task_submit_status status,
			     const struct err *e)
{
	op->status = status;
	op->error = code;
	op->err = *e;
}

/* A call that cannot be begun leaves the others alone. */
static int driver_write_submit(struct driver *d, struct driver_operation *op, struct err *e)
{
	op->status = TASK_REFUSED;
	if (d->stopping) {
		err_set(&op->err, 0, "the router is stopping");
		return 0;
	}
	if (d->n_runs >= d->o->max_running) {
		err_set(&op->err, 0, "%zu workflows are in progress already (max_running)", d->n_runs);
		return 0;
	}
	int r = runs_mark(d->store, e);
	if (r < 0)
		return r;
	r = run_begin(d, op, &op->err);
	op->status = r == 0 || r == RUNS_E_EXISTS ? TASK_SUBMITTED : TASK_REFUSED;
	if (r == -EFBIG)
		op->status = TASK_INPUT_TOO_LARGE;
	op->about_call = r == RUNS_E_CONFLICT || r == -EFBIG || r == -ENOENT;
	if (r >= 0 || driver_is_about_the_file(r)) {
		*e = op->err;
		return r < 0 ? r : 0;
	}
	return runs_back(d->store, e);
}

static int driver_write_cancel(struct driver *d, struct driver_operation *op, struct err *e)
{
	int r = runs_cancel(d->store, span_of(op->id), e);
	op->error = r == RUNS_E_NOT_FOUND ? TASK_E_NOT_FOUND : r;
	return r < 0 ? r : 0;
}

static int driver_write_calls(struct driver *d, struct driver_operations *calls, struct err *e)
{
	struct driver_operation *op;
	int r = 0;
	TAILQ_FOREACH (op, calls, place) {
		if (r < 0)
			break;
		if (op->kind == DRIVER_SUBMIT)
			r = driver_write_submit(d, op, e);
		else if (op->kind == DRIVER_CANCEL)
			r = driver_write_cancel(d, op, e);
	}
	return r;
}

/* Another process has it by now, which should not be: nothing more is done here. */
static void driver_lost_run(struct run *run)
{
	log_error("workflow_lost", LOG_SPAN("workflow", run->record.name), LOG_SPAN("id", run->record.id),
		  LOG_STR("effect", "another process goes on with it, or its row is gone"));
	run->lost = true;
}

static int driver_write_events(struct driver *d, struct run_events *now, struct err *e)
{
	struct run_event *ev;
	int r = 0;
	TAILQ_FOREACH (ev, now, place) {
		if (ev->run && ev->run->lost)
			continue;
		r = run_apply(d, ev, e);
		if (r > 0 && ev->run)
			driver_lost_run(ev->run);
		if (r < 0)
			break;
		r = 0;
	}
	return r;
}

/* In one transaction; nothing of it when it fails. */
static int driver_write(struct driver *d, struct driver_operations *calls, struct run_events *now,
			enum task_submit_status *ret_failed, struct err *e)
{
	*ret_failed = TASK_REFUSED;
	int r = runs_begin(d->store, e);
	if (r == 0)
		r = driver_write_calls(d, calls, e);
	if (r == 0)
		r = driver_write_events(d, now, e);
	if (r == 0) {
		r = runs_commit(d->store, e);
		/* A commit that could not be synced may still be found in the WAL after a power cut. */
		if (r < 0 && r != -ENOSPC && r != -EBUSY && r != -EROFS)
			*ret_failed = TASK_UNKNOWN;
	}
	if (r < 0)
		runs_rollback(d->store);
	return r;
}

/* When it stops, nothing more begins: what has ended is found again by the next process. */
static bool driver_may_take(const struct driver *d, const struct run_event *ev)
{
	return !d->stopping || ev->kind == RUN_ACCEPTED;
}

static void driver_take_events(struct driver *d, struct run_events *now)
{
	size_t n = d->one_by_one ? 1 : BATCH;
	TAILQ_INIT(now);
	for (struct run_event *ev = TAILQ_FIRST(&d->events), *next; ev && n; ev = next) {
		next = TAILQ_NEXT(ev, place);
		if (!driver_may_take(d, ev))
			continue;
		TAILQ_REMOVE(&d->events, ev, place);
		TAILQ_INSERT_TAIL(now, ev, place);
		n--;
	}
}

static void driver_done(struct driver *d, struct run_events *now)
{
	struct run_event *ev;
	struct run *run;
	char id[TASK_ID_MAX];
	while ((ev = TAILQ_FIRST(now))) {
		TAILQ_REMOVE(now, ev, place);
		free(ev);
	}
	while ((run = TAILQ_FIRST(&d->touched))) {
		bool over = run->over;
		span_copy(run->record.id, id, sizeof(id));
		if (run->lost)
			run_forget(run);
		else
			run_go(run);
		if (over)
			driver_look_again(d, driver_waits_of(d, id), id);
	}
}

/* The events stay, in their order; the one that cannot be written alone goes behind the others. */
static void driver_undo(struct driver *d, struct run_events *now, int code, const struct err *e)
{
	struct run_event *ev;
	bool alone = d->one_by_one && !driver_is_about_the_file(code);
	while ((ev = TAILQ_LAST(now, run_events))) {
		TAILQ_REMOVE(now, ev, place);
		if (alone && ev->kind == RUN_TAKE)
			free(ev); /* the tick finds it again */
		else if (alone)
			TAILQ_INSERT_TAIL(&d->events, ev, place);
		else
			TAILQ_INSERT_HEAD(&d->events, ev, place);
	}
	struct run *run;
	while ((run = TAILQ_FIRST(&d->touched)))
		run_revert(run);
	if (alone && clock_mono_ms() - d->said_ms > SAY_AGAIN_MS) {
		log_error("workflow_not_written", LOG_STR("error", e->text));
		d->said_ms = clock_mono_ms();
	}
}

static void driver_write_round(struct driver *d, struct driver_operations *calls)
{
	enum task_submit_status failed = TASK_REFUSED;
	struct driver_operation *op;
	struct run_events now;
	struct err e = {""};
	int r = driver_need_file(d);
	driver_take_events(d, &now);
	if (r < 0)
		e = d->why;
	else
		r = driver_write(d, calls, &now, &failed, &e);
	if (r == 0) {
		driver_note_health(d);
		d->one_by_one = d->one_by_one && !TAILQ_EMPTY(&d->events);
		driver_done(d, &now);
		return;
	}
	TAILQ_FOREACH (op, calls, place)
		driver_fail_call(op, r, failed, &e);
	driver_undo(d, &now, r, &e);
	if (driver_is_about_the_file(r))
		driver_note_trouble(d, r, &e);
	d->one_by_one = !driver_is_about_the_file(r);
	loop_timer_start(d->retry, RETRY_MS);
}

/* --- operations ----------------------------------------------------------------------------------------- */

static void driver_answer(struct driver *d, struct driver_operation *op)
{
	switch (op->kind) {
	case DRIVER_GET:
		driver_read_result(d, op);
		break;
	case DRIVER_WAIT:
		driver_begin_wait(d, op);
		return;
	case DRIVER_UNWAIT:
		driver_end_wait(d, op);
		driver_operation_free(op);
		return;
	case DRIVER_HEALTH:
		driver_read_health(d, &op->health);
		break;
	case DRIVER_CHECK:
		driver_begin_check(d, op);
		return;
	case DRIVER_SUBMIT:
	case DRIVER_CANCEL:
		break;
	}
	driver_channel_deliver(op);
}

static bool driver_writes(const struct driver_operation *op)
{
	return op->kind == DRIVER_SUBMIT || op->kind == DRIVER_CANCEL;
}

static void driver_stop_run(struct run *run)
{
	struct run_event *ev = run->stopping || run->over ? NULL : run_event_new(RUN_STOP, run, NULL, 0);
	if (!ev)
		return;
	run->stopping = true;
	ev->stop = WORKFLOW_END_CANCELLED;
	driver_add_event(run->driver, ev);
}

static void driver_flush(struct driver *d)
{
	struct driver_operations written = TAILQ_HEAD_INITIALIZER(written),
				 others = TAILQ_HEAD_INITIALIZER(others);
	struct driver_operation *op;
	while ((op = TAILQ_FIRST(&d->calls))) {
		TAILQ_REMOVE(&d->calls, op, place);
		TAILQ_INSERT_TAIL(driver_writes(op) ? &written : &others, op, place);
		atomic_fetch_sub(&d->queued, 1);
		atomic_fetch_sub(&d->queued_bytes, operation_bytes(op));
	}
	if (!TAILQ_EMPTY(&written) || !TAILQ_EMPTY(&d->events))
		driver_write_round(d, &written);
	while ((op = TAILQ_FIRST(&written))) {
		struct run *run = op->kind == DRIVER_CANCEL && op->error == 0
					  ? driver_find_run(d, span_of(op->id))
					  : NULL;
		if (run)
			driver_stop_run(run);
		TAILQ_REMOVE(&written, op, place);
		driver_answer(d, op);
	}
	while ((op = TAILQ_FIRST(&others))) {
		TAILQ_REMOVE(&others, op, place);
		driver_answer(d, op);
	}
	if (!TAILQ_EMPTY(&d->events) && !d->stopping && !loop_timer_active(d->retry))
		driver_flush_soon(d);
}

static void driver_on_flush(struct loop_work *work)
{
	struct driver *d = OF(struct driver, flush, work);
	d->flush_due = false;
	driver_flush(d);
}

static void driver_on_operation(struct loop_work *work)
{
	struct driver_operation *op = (struct driver_operation *)work; /* its first member */
	struct driver *d = op->channel->driver;
	TAILQ_INSERT_TAIL(&d->calls, op, place);
	driver_flush_soon(d);
}

static void driver_on_retry(void *arg)
{
	driver_flush_soon(arg);
}

/* --- from time to time ---------------------------------------------------------------------------------- */

static void driver_on_asked(void *arg, struct span id)
{
	struct run *run = driver_find_run(arg, id);
	if (run)
		driver_stop_run(run);
}

static bool driver_is_taking(const struct driver *d, int64_t seq)
{
	const struct run_event *ev;
	TAILQ_FOREACH (ev, &d->events, place)
		if (ev->kind == RUN_TAKE && ev->seq == seq)
			return true;
	return false;
}

struct orphans {
	struct driver *driver;
	int64_t looked_at; /* the number that was asked about last */
	bool lives;
	size_t n;
};

/* Whose process is gone. Some at a time, so that what comes in is not kept waiting. */
static void driver_on_other(void *arg, int64_t seq, int64_t number)
{
	struct orphans *o = arg;
	if (number != o->looked_at) {
		o->looked_at = number;
		o->lives = driver_lock_lives(&o->driver->lock, number);
	}
	if (o->lives || o->n >= BATCH || driver_is_taking(o->driver, seq))
		return;
	struct run_event *ev = run_event_new(RUN_TAKE, NULL, NULL, 0);
	if (!ev)
		return;
	ev->seq = seq;
	ev->from = number;
	o->n++;
	driver_add_event(o->driver, ev);
}

static void driver_feed(struct driver *d)
{
	for (size_t i = 0; i < DRIVER_BUCKETS; i++) {
		struct run *run;
		LIST_FOREACH (run, &d->buckets[i], bucket) {
			struct run_event *ev = run->hungry ? run_event_new(RUN_GO_ON, run, NULL, 0) : NULL;
			if (!ev)
				continue;
			run->hungry = false;
			driver_add_event(d, ev);
		}
	}
}

static void driver_look_around(struct driver *d)
{
	struct err e = {""};
	unsigned n;
	struct orphans o = {.driver = d};
	int r = runs_of_others(d->store, d->lock.number, driver_on_other, &o, &e);
	if (r == 0)
		r = runs_asked(d->store, d->lock.number, driver_on_asked, d, &e);
	if (r == 0)
		r = runs_sweep(d->store, d->o->retention_ms, &n, &e);
	/* Is it over? Nobody else would find out: while it is not, nothing is submitted. */
	if (r == 0 && d->trouble)
		r = runs_probe(d->store, &e);
	if (r < 0)
		driver_note_trouble(d, r, &e);
	else
		driver_note_health(d);
}

/* Runs of the file that was there: their rows' numbers are those of others in the new one. Under a new number
 * of our own, what a restored file says that we drive is taken over as that of a process that is gone. */
static void driver_change_file(struct driver *d)
{
	log_warn("workflow_store_moved", LOG_STR("database", d->o->database),
		 LOG_STR("effect", "opened anew"));
	for (size_t i = 0; i < DRIVER_BUCKETS; i++) {
		struct run *run;
		while ((run = LIST_FIRST(&d->buckets[i]))) {
			driver_lost_run(run);
			run_forget(run);
		}
	}
	d->store = runs_close(d->store);
	driver_lock_drop(&d->lock);
}

static void driver_on_tick(void *arg)
{
	struct driver *d = arg;
	if (d->store && runs_moved(d->store))
		driver_change_file(d);
	if (!d->o->only_looking && !d->stopping && driver_need_file(d) == 0)
		driver_look_around(d);
	driver_feed(d);
	for (size_t i = 0; i < DRIVER_BUCKETS && d->n_waits; i++)
		driver_look_again(d, &d->waits[i], NULL);
	loop_timer_start(d->tick, TICK_MS);
}

/* --- the thread ----------------------------------------------------------------------------------------- */

/* Answers to submissions are worth waiting for: the next process would have to doubt them. */
static void driver_on_patience(void *arg)
{
	struct driver *d = arg;
	if (d->n_submitting == 0 || loop_now_ms(d->loop) >= d->stop_by_ms)
		loop_stop(d->loop);
	else
		loop_timer_start(d->patience, 10);
}

static void driver_on_stop(struct loop_work *work)
{
	struct driver *d = OF(struct driver, stop, work);
	d->stopping = true;
	d->stop_by_ms = loop_now_ms(d->loop) + PATIENCE_MS;
	driver_on_patience(d);
}

static void driver_clear(struct driver *d)
{
	struct driver_operation *op;
	struct run_event *ev;
	for (size_t i = 0; i < DRIVER_BUCKETS; i++) {
		while (!LIST_EMPTY(&d->buckets[i]))
			run_forget(LIST_FIRST(&d->buckets[i]));
		while ((op = TAILQ_FIRST(&d->waits[i]))) {
			TAILQ_REMOVE(&d->waits[i], op, place);
			driver_operation_free(op);
		}
	}
	while ((ev = TAILQ_FIRST(&d->events))) {
		TAILQ_REMOVE(&d->events, ev, place);
		free(ev);
	}
	driver_peers_free(d);
	loop_run_posted(d->loop); /* answers on their way to those clients */
	d->store = runs_close(d->store);
	driver_lock_drop(&d->lock);
}

static void *driver_thread(void *arg)
{
	struct driver *d = arg;
	driver_on_tick(d);
	loop_run(d->loop);
	/* What was handed over before the stop but not yet written. */
	loop_run_posted(d->loop);
	loop_timer_stop(d->retry);
	driver_flush(d);
	driver_clear(d);
	return NULL;
}

/* --- start and stop ------------------------------------------------------------------------------------- */

static void driver_release(struct driver *d)
{
	if (d->loop) {
		loop_timer_free(d->tick);
		loop_timer_free(d->retry);
		loop_timer_free(d->patience);
		loop_free(d->loop);
	}
	free(d);
}

static int driver_make_loop(struct driver *d)
{
	int r = loop_new(&d->loop);
	if (r == 0)
		r = loop_timer_new(d->loop, driver_on_tick, d, &d->tick);
	if (r == 0)
		r = loop_timer_new(d->loop, driver_on_retry, d, &d->retry);
	if (r == 0)
		r = loop_timer_new(d->loop, driver_on_patience, d, &d->patience);
	return r;
}

int driver_start(const struct driver_options *o, struct driver **ret, struct err *e)
{
	struct driver *d = calloc(1, sizeof(*d));
	if (!d)
		return err_set(e, -ENOMEM, "out of memory");
	d->o = o;
	d->lock.fd = -1;
	TAILQ_INIT(&d->calls);
	TAILQ_INIT(&d->events);
	TAILQ_INIT(&d->touched);
	for (size_t i = 0; i < DRIVER_BUCKETS; i++)
		TAILQ_INIT(&d->waits[i]);
	d->stop.fn = driver_on_stop;
	d->flush.fn = driver_on_flush;
	int r = driver_make_loop(d);
	if (r == 0) {
		/* Signals are the main thread's. */
		sigset_t all, old;
		sigfillset(&all);
		pthread_sigmask(SIG_SETMASK, &all, &old);
		r = -pthread_create(&d->thread, NULL, driver_thread, d);
		pthread_sigmask(SIG_SETMASK, &old, NULL);
	}
	if (r < 0) {
		driver_release(d);
		return err_set(e, r, "the driver of workflows cannot be started: %s", strerror(-r));
	}
	*ret = d;
	return 0;
}

struct driver *driver_stop(struct driver *d)
{
	if (!d)
		return NULL;
	loop_post(d->loop, &d->stop);
	pthread_join(d->thread, NULL);
	driver_release(d);
	return NULL;
}
