/*
 * Event loop over libuv. Watches and timers are freed by libuv one round later (uv_close), which is hidden
 * here: freeing one stops its callbacks at once. Timers are kept for re-use, since requests make and drop
 * them all the time.
 */
#include "base/loop.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <uv.h>

struct loop {
	uv_loop_t uv;
	uv_async_t wake;
	uv_prepare_t prepare;
	uv_idle_t spin; /* keeps a round from waiting while deferred work has made more deferred work */
	pthread_mutex_t lock;
	struct loop_work *posted, **posted_end; /* under lock */
	bool stopping;				/* under lock */
	struct loop_work *deferred, **deferred_end;
	struct loop_work *running; /* what is left of the deferred work of this round */
	struct loop_timer *free_timers;
};

struct loop_watch {
	uv_poll_t poll;
	loop_watch_fn fn;
	void *arg;
	unsigned events;
};

struct loop_timer {
	uv_timer_t timer;
	loop_timer_fn fn;
	void *arg;
	struct loop *loop;
	struct loop_timer *next_free;
};

static struct loop_work *take_posted(struct loop *loop, bool *stopping)
{
	pthread_mutex_lock(&loop->lock);
	struct loop_work *w = loop->posted;
	loop->posted = NULL;
	loop->posted_end = &loop->posted;
	*stopping = loop->stopping;
	pthread_mutex_unlock(&loop->lock);
	return w;
}

static void run_list(struct loop_work *w)
{
	while (w) {
		struct loop_work *next = w->next;
		w->next = NULL;
		w->fn(w); /* may free w or queue it again */
		w = next;
	}
}

static void on_wake(uv_async_t *handle)
{
	struct loop *loop = handle->data;
	bool stopping;
	run_list(take_posted(loop, &stopping));
	if (stopping)
		uv_stop(&loop->uv);
}

static void on_spin(uv_idle_t *handle)
{
	(void)handle;
}

static void on_prepare(uv_prepare_t *handle)
{
	struct loop *loop = handle->data;
	loop->running = loop->deferred;
	loop->deferred = NULL;
	loop->deferred_end = &loop->deferred;
	for (struct loop_work *w; (w = loop->running);) {
		loop->running = w->next;
		w->next = NULL;
		w->fn(w); /* may free w, queue it again, or take others back */
	}
	/* An active idle handle makes libuv's next wait return at once. */
	if (loop->deferred)
		uv_idle_start(&loop->spin, on_spin);
	else
		uv_idle_stop(&loop->spin);
}

int loop_new(struct loop **ret)
{
	struct loop *loop = calloc(1, sizeof(*loop));
	if (!loop)
		return -ENOMEM;
	int r = uv_loop_init(&loop->uv);
	if (r < 0) {
		free(loop);
		return r;
	}
	loop->posted_end = &loop->posted;
	loop->deferred_end = &loop->deferred;
	pthread_mutex_init(&loop->lock, NULL);
	r = uv_async_init(&loop->uv, &loop->wake, on_wake);
	if (r < 0) {
		uv_loop_close(&loop->uv);
		pthread_mutex_destroy(&loop->lock);
		free(loop);
		return r;
	}
	uv_prepare_init(&loop->uv, &loop->prepare);
	uv_idle_init(&loop->uv, &loop->spin);
	loop->wake.data = loop->prepare.data = loop;
	uv_prepare_start(&loop->prepare, on_prepare);
	*ret = loop;
	return 0;
}

static void free_timer_handle(uv_handle_t *handle)
{
	free(handle->data);
}

struct loop *loop_free(struct loop *loop)
{
	if (!loop)
		return NULL;
	while (loop->free_timers) {
		struct loop_timer *t = loop->free_timers;
		loop->free_timers = t->next_free;
		uv_close((uv_handle_t *)&t->timer, free_timer_handle);
	}
	uv_close((uv_handle_t *)&loop->wake, NULL);
	uv_close((uv_handle_t *)&loop->prepare, NULL);
	uv_close((uv_handle_t *)&loop->spin, NULL);
	uv_run(&loop->uv, UV_RUN_DEFAULT);
	uv_loop_close(&loop->uv);
	pthread_mutex_destroy(&loop->lock);
	free(loop);
	return NULL;
}

int loop_run(struct loop *loop)
{
	return uv_run(&loop->uv, UV_RUN_DEFAULT) < 0 ? -EIO : 0;
}

void loop_stop(struct loop *loop)
{
	pthread_mutex_lock(&loop->lock);
	loop->stopping = true;
	pthread_mutex_unlock(&loop->lock);
	uv_async_send(&loop->wake);
}

/* --- descriptors ------------------------------------------------------------------------------------- */

static void loop_on_poll(uv_poll_t *handle, int status, int events)
{
	struct loop_watch *w = handle->data;
	unsigned got = 0;
	if (status < 0) {
		w->events = 0; /* libuv has stopped it */
		got = LOOP_ERROR;
	}
	if (events & UV_READABLE)
		got |= LOOP_READ;
	if (events & UV_WRITABLE)
		got |= LOOP_WRITE;
	if (events & UV_DISCONNECT)
		got |= LOOP_RDHUP;
	if (got)
		w->fn(w->arg, got);
}

static int to_uv(unsigned events)
{
	return ((events & LOOP_READ) ? UV_READABLE : 0) | ((events & LOOP_WRITE) ? UV_WRITABLE : 0) |
	       ((events & LOOP_RDHUP) ? UV_DISCONNECT : 0);
}

static void free_watch_handle(uv_handle_t *handle)
{
	free(handle->data);
}

int loop_watch_new(struct loop *loop, int fd, unsigned events, loop_watch_fn fn, void *arg,
		   struct loop_watch **ret)
{
	struct loop_watch *w = calloc(1, sizeof(*w));
	if (!w)
		return -ENOMEM;
	w->fn = fn;
	w->arg = arg;
	int r = uv_poll_init(&loop->uv, &w->poll, fd);
	if (r < 0) {
		free(w);
		return r;
	}
	w->poll.data = w;
	r = loop_watch_set(w, events);
	if (r < 0) {
		uv_close((uv_handle_t *)&w->poll, free_watch_handle);
		return r;
	}
	*ret = w;
	return 0;
}

int loop_watch_set(struct loop_watch *w, unsigned events)
{
	if (w->events == events)
		return 0;
	int r = events ? uv_poll_start(&w->poll, to_uv(events), loop_on_poll) : uv_poll_stop(&w->poll);
	if (r == 0)
		w->events = events;
	return r;
}

struct loop_watch *loop_watch_free(struct loop_watch *w)
{
	if (w) {
		uv_poll_stop(&w->poll);
		uv_close((uv_handle_t *)&w->poll, free_watch_handle);
	}
	return NULL;
}

/* --- timers ------------------------------------------------------------------------------------------ */

static void loop_on_timer(uv_timer_t *handle)
{
	struct loop_timer *t = handle->data;
	t->fn(t->arg);
}

int loop_timer_new(struct loop *loop, loop_timer_fn fn, void *arg, struct loop_timer **ret)
{
	struct loop_timer *t = loop->free_timers;
	if (t) {
		loop->free_timers = t->next_free;
	} else {
		t = calloc(1, sizeof(*t));
		if (!t)
			return -ENOMEM;
		uv_timer_init(&loop->uv, &t->timer);
		t->timer.data = t;
		t->loop = loop;
	}
	t->fn = fn;
	t->arg = arg;
	*ret = t;
	return 0;
}

void loop_timer_start(struct loop_timer *t, uint64_t after_ms)
{
	uv_timer_start(&t->timer, loop_on_timer, after_ms, 0);
}

void loop_timer_stop(struct loop_timer *t)
{
	uv_timer_stop(&t->timer);
}

bool loop_timer_active(const struct loop_timer *t)
{
	return uv_is_active((const uv_handle_t *)&t->timer);
}

struct loop_timer *loop_timer_free(struct loop_timer *t)
{
	if (t) {
		uv_timer_stop(&t->timer);
		t->next_free = t->loop->free_timers;
		t->loop->free_timers = t;
	}
	return NULL;
}

/* --- work -------------------------------------------------------------------------------------------- */

void loop_post(struct loop *loop, struct loop_work *work)
{
	work->next = NULL;
	pthread_mutex_lock(&loop->lock);
	*loop->posted_end = work;
	loop->posted_end = &work->next;
	pthread_mutex_unlock(&loop->lock);
	uv_async_send(&loop->wake);
}

void loop_run_posted(struct loop *loop)
{
	bool stopping;
	run_list(take_posted(loop, &stopping));
}

void loop_defer(struct loop *loop, struct loop_work *work)
{
	work->next = NULL;
	*loop->deferred_end = work;
	loop->deferred_end = &work->next;
}

static bool unlink_work(struct loop_work **at, const struct loop_work *work)
{
	for (; *at; at = &(*at)->next)
		if (*at == work) {
			*at = work->next;
			return true;
		}
	return false;
}

void loop_defer_cancel(struct loop *loop, struct loop_work *work)
{
	if (unlink_work(&loop->running, work) || !unlink_work(&loop->deferred, work))
		return;
	loop->deferred_end = &loop->deferred;
	while (*loop->deferred_end)
		loop->deferred_end = &(*loop->deferred_end)->next;
}

struct queued_job {
	uv_work_t request;
	struct loop_job *job;
};

static void run_job(uv_work_t *request)
{
	struct queued_job *q = request->data;
	q->job->work(q->job);
}

static void job_done(uv_work_t *request, int status)
{
	struct queued_job *q = request->data;
	struct loop_job *job = q->job;
	(void)status; /* never cancelled */
	free(q);
	job->done(job);
}

void loop_job_start(struct loop *loop, struct loop_job *job)
{
	struct queued_job *q = malloc(sizeof(*q));
	if (!q) {
		/* Blocking the loop is bad, losing the job is worse. */
		job->work(job);
		job->done(job);
		return;
	}
	q->job = job;
	q->request.data = q;
	uv_queue_work(&loop->uv, &q->request, run_job, job_done);
}

void loop_run_once(struct loop *loop)
{
	uv_run(&loop->uv, UV_RUN_ONCE);
}

uint64_t loop_now_ms(const struct loop *loop)
{
	return uv_now(&loop->uv);
}
