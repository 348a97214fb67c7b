/*
 * Event loop of one thread: descriptors, timers, work posted from other threads. Over libuv.
 *
 * Why:       every data-plane thread owns exactly one; whoever waits for something does it here, nothing
 *            blocks.
 * Threads:   all calls only from the loop's own thread, except loop_post and loop_stop (any thread).
 * Ownership: watches and timers belong to who made them and are freed by their free function, at any time,
 *            even from within their own callback; no callback follows the free. All must be freed before
 *            loop_free.
 * Errors:    -ENOMEM, or what the kernel says.
 */
#ifndef BASE_LOOP_H
#define BASE_LOOP_H

#include <stdbool.h>
#include <stdint.h>

struct loop;
struct loop_watch;
struct loop_timer;

int loop_new(struct loop **ret);
struct loop *loop_free(struct loop *loop); /* NULL is allowed; returns NULL */
int loop_run(struct loop *loop);	   /* until loop_stop */
void loop_stop(struct loop *loop);	   /* any thread; the current round is finished first */

/* --- descriptors ---------------------------------------------------------------------------------------- */
#define LOOP_READ 1u
#define LOOP_WRITE 2u
#define LOOP_RDHUP 4u /* the peer has shut its writing side (half-close) */
/* only reported, never asked for: EPOLLERR or EPOLLHUP; the watch is then idle until set again */
#define LOOP_ERROR 8u

typedef void (*loop_watch_fn)(void *arg, unsigned events);

/* Watches `fd` (which stays the caller's) for `events`; 0 makes an idle watch. One watch per descriptor
 * and loop. */
int loop_watch_new(struct loop *loop, int fd, unsigned events, loop_watch_fn fn, void *arg,
		   struct loop_watch **ret);
int loop_watch_set(struct loop_watch *w, unsigned events); /* no system call when nothing changes */
/* before the descriptor is closed; NULL is allowed */
struct loop_watch *loop_watch_free(struct loop_watch *w);

/* --- timers: one-shot, monotonic, milliseconds ---------------------------------------------------------- */
typedef void (*loop_timer_fn)(void *arg);

int loop_timer_new(struct loop *loop, loop_timer_fn fn, void *arg, struct loop_timer **ret); /* not started */
/* starts or restarts */
void loop_timer_start(struct loop_timer *t, uint64_t after_ms);
void loop_timer_stop(struct loop_timer *t);
bool loop_timer_active(const struct loop_timer *t);
struct loop_timer *loop_timer_free(struct loop_timer *t); /* NULL is allowed */

/* --- work ----------------------------------------------------------------------------------------------- */
/* Intrusive, so that posting cannot fail. The owner keeps it alive until fn was called. A work item is in at
 * most one queue: posting one that is queued already is a bug. */
struct loop_work {
	void (*fn)(struct loop_work *work);
	struct loop_work *next; /* the loop's */
};

/* Runs work->fn on the loop's thread, in the order of posting. Any thread. Works also before loop_run; what
 * is still queued at loop_free is dropped, not run. */
void loop_post(struct loop *loop, struct loop_work *work);

/* Runs what has been posted so far, now, on the calling thread; for the time after loop_run has ended. */
void loop_run_posted(struct loop *loop);

/* Runs work->fn at the end of this round, before the loop waits again. Own thread only. Cheap: no system
 * call. */
void loop_defer(struct loop *loop, struct loop_work *work);

/* Takes deferred work back, so that its owner can be freed; no effect when it is not queued. */
void loop_defer_cancel(struct loop *loop, struct loop_work *work);

/* A job for a thread of the pool (libuv's), for work that blocks, such as reading a database: `work` runs
 * there, then `done` on the loop's thread. The owner keeps it alive until done was called; it cannot be
 * taken back. */
struct loop_job {
	void (*work)(struct loop_job *job);
	void (*done)(struct loop_job *job);
};
void loop_job_start(struct loop *loop, struct loop_job *job);

/* One round, waiting for at least one event; for taking in the last jobs at the end. */
void loop_run_once(struct loop *loop);

/* Monotonic time at the beginning of this round, ms: good enough for time limits, and free. */
uint64_t loop_now_ms(const struct loop *loop);

#endif
