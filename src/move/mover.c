#include "move/mover.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

struct mover_queue {
	struct mover *mover;
	pthread_t thread;
	bool started;
	struct mover_job *first, *last;
	unsigned waiting;
	const char *changing; /* the flag of the job that runs; NULL: none, or it changes none */
};

struct mover {
	struct loop *loop;
	pthread_mutex_t lock;
	pthread_cond_t changed; /* a job came, one ended, or all is over */
	bool stopping;
	struct mover_queue lanes[MOVER_LANES];
};

/* --- on a lane's thread --------------------------------------------------------------------------------- */

static bool mover_is_stopping(struct mover *m)
{
	pthread_mutex_lock(&m->lock);
	bool stopping = m->stopping;
	pthread_mutex_unlock(&m->lock);
	return stopping;
}

struct mover_voice {
	struct mover *mover;
	struct mover_job *job;
};

static void mover_hears(void *arg, enum move_tone tone, const char *text)
{
	struct mover_voice *v = arg;
	(void)tone;
	buf_puts(&v->job->said, text); /* beyond the limit the rest is not kept */
}

static bool mover_gives_up(void *arg)
{
	return mover_is_stopping(((struct mover_voice *)arg)->mover);
}

static void mover_run(struct mover *m, struct mover_job *job)
{
	CLEANUP(place_closep) struct rollout_place *p = NULL;
	struct mover_voice v = {m, job};
	const struct place_options o = {
		.voice = {.arg = &v, .say = mover_hears, .stopped = mover_gives_up},
		.timeout_ms = MOVER_CALL_MS,
	};
	job->said = BUF_INIT(MOVER_SAID_MAX);
	if (mover_is_stopping(m)) {
		job->result = err_set(&job->err, -ECANCELED, "the router is ending");
		return;
	}
	job->result = place_open(job->config, &o, &p, &job->err);
	if (job->result == 0)
		job->result = job->run(job, p, &job->err);
}

static bool mover_may_meet(const char *a, const char *b)
{
	return a && b && (!*a || !*b || strcmp(a, b) == 0);
}

/* Under the lock. */
static bool mover_is_free(const struct mover *m, const struct mover_job *job)
{
	for (size_t i = 0; i < MOVER_LANES; i++)
		if (mover_may_meet(m->lanes[i].changing, job->flag))
			return false;
	return true;
}

/* Under the lock. What waits when all is over is run as well: it says so. */
static struct mover_job *mover_take(struct mover_queue *q)
{
	struct mover *m = q->mover;
	while (!(q->first && (m->stopping || mover_is_free(m, q->first)))) {
		if (m->stopping && !q->first)
			return NULL;
		pthread_cond_wait(&m->changed, &m->lock);
	}
	struct mover_job *job = q->first;
	q->first = job->next;
	q->last = q->first ? q->last : NULL;
	q->waiting--;
	q->changing = job->flag;
	return job;
}

static void *mover_main(void *arg)
{
	struct mover_queue *q = arg;
	struct mover *m = q->mover;
	struct mover_job *job;
	pthread_mutex_lock(&m->lock);
	while ((job = mover_take(q))) {
		pthread_mutex_unlock(&m->lock);
		mover_run(m, job);
		pthread_mutex_lock(&m->lock);
		q->changing = NULL;
		pthread_cond_broadcast(&m->changed);
		loop_post(m->loop, &job->work);
	}
	pthread_mutex_unlock(&m->lock);
	return NULL;
}

/* --- on the loop's -------------------------------------------------------------------------------------- */

static void mover_done(struct loop_work *work)
{
	struct mover_job *job = (struct mover_job *)(void *)((char *)work - offsetof(struct mover_job, work));
	job->done(job);
}

int mover_add(struct mover *m, enum mover_lane lane, struct mover_job *job)
{
	struct mover_queue *q = &m->lanes[lane];
	job->work = (struct loop_work){.fn = mover_done};
	job->next = NULL;
	job->lane = lane;
	pthread_mutex_lock(&m->lock);
	bool full = q->waiting == MOVER_WAITING;
	if (!full) {
		if (q->last)
			q->last->next = job;
		else
			q->first = job;
		q->last = job;
		q->waiting++;
		pthread_cond_broadcast(&m->changed);
	}
	pthread_mutex_unlock(&m->lock);
	return full ? -EBUSY : 0;
}

/* Signals are the main thread's. */
static int mover_start_thread(struct mover_queue *q)
{
	sigset_t all, before;
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &before);
	int r = pthread_create(&q->thread, NULL, mover_main, q);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	q->started = r == 0;
	return -r;
}

int mover_start(struct loop *loop, struct mover **ret, struct err *e)
{
	struct mover *m = calloc(1, sizeof(*m));
	if (!m)
		return err_set(e, -ENOMEM, "out of memory");
	m->loop = loop;
	pthread_mutex_init(&m->lock, NULL);
	pthread_cond_init(&m->changed, NULL);
	int r = 0;
	for (size_t i = 0; r == 0 && i < MOVER_LANES; i++) {
		m->lanes[i].mover = m;
		r = mover_start_thread(&m->lanes[i]);
	}
	if (r < 0) {
		mover_stop(m);
		return err_set(e, r, "thread for changes: %s", strerror(-r));
	}
	*ret = m;
	return 0;
}

struct mover *mover_stop(struct mover *m)
{
	if (!m)
		return NULL;
	pthread_mutex_lock(&m->lock);
	m->stopping = true;
	pthread_cond_broadcast(&m->changed);
	pthread_mutex_unlock(&m->lock);
	for (size_t i = 0; i < MOVER_LANES; i++)
		if (m->lanes[i].started)
			pthread_join(m->lanes[i].thread, NULL);
	loop_run_posted(m->loop);
	pthread_cond_destroy(&m->changed);
	pthread_mutex_destroy(&m->lock);
	free(m);
	return NULL;
}
