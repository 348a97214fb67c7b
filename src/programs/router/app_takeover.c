#include "programs/router/app_takeover.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "programs/router/app_control.h"
#include "programs/router/app_lock.h"
#include "programs/router/app_registration.h"
#include "base/clock.h"
#include "base/log.h"

#define ASK_MS 10000	 /* within which who connects asks */
#define PREPARE_MS 15000 /* for flags and the backends' first answers */
#define TICK_MS 20
#define TRIES 60 /* to find either the lock free or its holder at the control socket */
#define BETWEEN_TRIES_US 50000

struct takeover {
	struct app *app;
	void (*taken_over)(struct app *a);
	/* the old side's */
	int listening, peer; /* -1: none */
	pid_t peer_pid;
	struct loop_watch *listening_watch, *peer_watch;
	struct loop_timer *patience;
	uint64_t offered[CONTROL_SOCKETS_MAX];
	size_t n_offered;
	bool asked, handed_over;
	/* the new side's */
	int old;
	pid_t old_pid;
	struct control_message message; /* the one at hand */
};

static int takeover_new(struct app *a, void (*taken_over)(struct app *a), struct err *e)
{
	struct takeover *t = calloc(1, sizeof(*t));
	if (!t)
		return err_set(e, -ENOMEM, "out of memory");
	t->app = a;
	t->taken_over = taken_over;
	t->listening = t->peer = t->old = -1;
	a->takeover = t;
	return 0;
}

/* --- the new side --------------------------------------------------------------------------------------- */

static int send_text(int fd, struct takeover *t, enum control_kind kind, const char *text, struct err *e)
{
	t->message = (struct control_message){.kind = kind, .lock = -1};
	span_copy(span_of(text), t->message.text, sizeof(t->message.text));
	return control_send(fd, &t->message, e);
}

/* -EAGAIN: it has ended meanwhile. */
static int receive_offer(struct takeover *t, struct err *e)
{
	struct app *a = t->app;
	int r = send_text(t->old, t, CONTROL_ASK, PROJECT_VERSION, e);
	if (r == -EPIPE || r == -ECONNRESET) /* it has said no and closed already: its answer is there */
		r = 0;
	for (bool last = false; r == 0 && !last;) {
		r = control_receive(t->old, &t->message, e);
		if (r < 0)
			break;
		if (t->message.kind != CONTROL_OFFER) {
			control_close_sockets(&t->message);
			return err_set(e, -EBUSY, "process %ld refuses takeovers: %s", (long)t->old_pid,
				       t->message.kind == CONTROL_REFUSE ? t->message.text
									 : "it speaks another protocol");
		}
		for (size_t i = 0; i < t->message.n_sockets; i++)
			listen_address_adopt(&t->message.sockets[i]);
		if (t->message.lock >= 0)
			a->lock = t->message.lock;
		last = t->message.last;
	}
	if (r == -EPIPE || r == -ECONNRESET)
		return -EAGAIN;
	if (r == -EAGAIN) /* stopped, perhaps */
		return err_set(e, -ETIMEDOUT, "process %ld does not answer", (long)t->old_pid);
	return r < 0 ? err_prefix(e, r, "process %ld", (long)t->old_pid) : 0;
}

/* -EAGAIN: nobody is there. */
static int ask_old(struct takeover *t, struct err *e)
{
	int r = control_connect(t->app->config->data_dir, &t->old, e);
	if (r == 0)
		r = control_peer(t->old, &t->old_pid, e);
	if (r == 0)
		r = receive_offer(t, e);
	if (r == 0) {
		atomic_store(&t->app->env.held, true);
		log_info("taking_over", LOG_INT("from_pid", t->old_pid));
		return 0;
	}
	if (t->old >= 0)
		close(t->old);
	t->old = -1;
	if (t->app->lock >= 0)
		close(t->app->lock);
	t->app->lock = -1;
	listen_address_adopted(NULL, 0);
	return r;
}

int takeover_lock(struct app *a, bool wanted, void (*taken_over)(struct app *a), struct err *e)
{
	int r = takeover_new(a, taken_over, e);
	if (r < 0 || !wanted)
		return r < 0 ? r : app_lock(a->config->data_dir, &a->lock, e);
	/* Who starts, or ends, at this moment is neither at his socket nor gone. */
	for (unsigned tries = 0; tries < TRIES; tries++) {
		struct err why;
		int locked = app_lock(a->config->data_dir, &a->lock, e);
		if ((locked == 0 && a->lock >= 0) || (locked < 0 && locked != -EBUSY))
			return locked;
		r = ask_old(a->takeover, &why);
		if (r != -EAGAIN) {
			*e = r < 0 ? why : *e;
			return r;
		}
		if (locked == 0) /* where there are no locks, nobody at the socket is nobody */
			return 0;
		err_set(e, -EBUSY,
			"%s: another router is using this data folder and cannot be taken over: %s",
			a->config->data_dir, why.text);
		usleep(BETWEEN_TRIES_US);
	}
	return -EBUSY;
}

static bool knows_backends(const struct app *a)
{
	for (size_t i = 0; i < a->env.n_backends; i++)
		if (a->health[i].client && !a->health[i].known)
			return false;
	return !registration_asking(a->registration);
}

static bool old_is_gone(const struct app *a)
{
	char byte;
	ssize_t n = recv(a->takeover->old, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
	return n == 0 || (n < 0 && errno == ECONNRESET);
}

static void tick(void *arg)
{
	(void)arg;
}

/* Where the old one has flags and knows which backends work, a new one that does not would send requests
 * elsewhere for a while. */
static int await_knowledge(struct app *a, struct err *e)
{
	struct loop_timer *t = NULL;
	int64_t until = clock_mono_ms() + PREPARE_MS;
	if (loop_timer_new(a->loop, tick, NULL, &t) < 0)
		return err_set(e, -ENOMEM, "out of memory");
	while (!a->draining && clock_mono_ms() < until && !old_is_gone(a) &&
	       !(app_has_flags(a) && knows_backends(a))) {
		if (!loop_timer_active(t))
			loop_timer_start(t, TICK_MS);
		loop_run_once(a->loop);
	}
	loop_timer_free(t);
	if (a->draining)
		return err_set(e, -EINTR, "asked to stop while starting");
	if (!app_has_flags(a) && !old_is_gone(a)) /* else anything is better than nobody */
		return err_set(e, -ENODATA,
			       "no flags within %d s; the running router may have its last good ones",
			       PREPARE_MS / 1000);
	return 0;
}

static void open_all(struct app *a)
{
	atomic_store(&a->env.held, false);
	for (size_t i = 0; i < a->n_planes; i++)
		plane_open(a->planes[i]);
	if (a->admin)
		admin_open(a->admin);
}

static void let_old_go(struct app *a)
{
	struct takeover *t = a->takeover;
	struct err e;
	t->message = (struct control_message){.kind = CONTROL_SERVING, .lock = -1};
	t->message.n_ids = listen_address_adopted(t->message.ids, CONTROL_SOCKETS_MAX);
	open_all(a);
	if (control_send(t->old, &t->message, &e) < 0)
		log_warn("old_router_gone", LOG_INT("pid", t->old_pid), LOG_STR("error", e.text));
	close(t->old);
	t->old = -1;
	app_lock_own(a->config->data_dir, a->lock);
	log_info("took_over", LOG_INT("from_pid", t->old_pid), LOG_INT("sockets", t->message.n_ids));
}

void takeover_failed(struct app *a, const struct err *why)
{
	struct err e;
	if (!a->takeover || a->takeover->old < 0)
		return;
	send_text(a->takeover->old, a->takeover, CONTROL_FAILED, why->text, &e);
	log_error("takeover_failed", LOG_INT("from_pid", a->takeover->old_pid), LOG_STR("error", why->text),
		  LOG_STR("effect", "the running router keeps serving"));
}

/* --- the old side --------------------------------------------------------------------------------------- */

static void end_conversation(struct takeover *t)
{
	t->peer_watch = loop_watch_free(t->peer_watch);
	if (t->peer >= 0)
		close(t->peer);
	t->peer = -1;
	t->n_offered = 0;
	t->asked = false;
	loop_timer_stop(t->patience);
}

static void refuse(struct takeover *t, int fd, const char *why)
{
	struct err e;
	log_warn("takeover_refused", LOG_STR("why", why));
	send_text(fd, t, CONTROL_REFUSE, why, &e);
}

/* The new one failed before it accepted anything. */
static void cancel(struct takeover *t, const char *why)
{
	bool asked = t->asked;
	pid_t pid = t->peer_pid;
	end_conversation(t);
	if (!asked)
		return;
	ledger_unshare(t->app->ledger);
	log_warn("takeover_failed", LOG_INT("by_pid", pid), LOG_STR("error", why),
		 LOG_STR("effect", "this router keeps serving"));
}

static int send_offer(struct takeover *t, struct err *e)
{
	size_t n = 0;
	struct listen_handed *all = calloc(CONTROL_SOCKETS_MAX, sizeof(*all));
	int r = all ? listen_address_collect(all, CONTROL_SOCKETS_MAX, &n) : -ENOMEM;
	if (r < 0)
		err_set(e, r, "the listening sockets cannot be duplicated: %s", strerror(-r));
	for (size_t at = 0; r == 0 && (at == 0 || at < n);) {
		struct control_message *m = &t->message;
		*m = (struct control_message){.kind = CONTROL_OFFER, .lock = at == 0 ? t->app->lock : -1};
		m->n_sockets = n - at < CONTROL_AT_ONCE ? n - at : CONTROL_AT_ONCE;
		memcpy(m->sockets, all + at, m->n_sockets * sizeof(*all));
		m->last = at + m->n_sockets >= n;
		r = control_send(t->peer, m, e);
		at += m->last && m->n_sockets == 0 ? 1 : m->n_sockets;
	}
	for (size_t i = 0; i < n; i++) {
		t->offered[i] = all[i].id;
		close(all[i].fd);
	}
	t->n_offered = n;
	free(all);
	return r;
}

static void offer(struct takeover *t)
{
	struct err e;
	int r = ledger_share(t->app->ledger, &e);
	if (r < 0) {
		refuse(t, t->peer, e.text);
		end_conversation(t);
		return;
	}
	t->asked = true;
	loop_timer_stop(t->patience); /* a start may take long; its end, however it comes, is seen */
	log_info("being_taken_over", LOG_INT("by_pid", t->peer_pid), LOG_STR("version", t->message.text));
	r = send_offer(t, &e);
	if (r < 0)
		cancel(t, e.text);
}

static void hand_over(struct takeover *t)
{
	struct app *a = t->app;
	listen_address_leave(t->message.ids, t->message.n_ids);
	t->handed_over = true;
	log_info("taken_over", LOG_INT("by_pid", t->peer_pid), LOG_INT("sockets", t->message.n_ids));
	end_conversation(t);
	t->listening_watch = loop_watch_free(t->listening_watch);
	close(t->listening); /* its name is the new one's */
	t->listening = -1;
	if (a->lock >= 0)
		close(a->lock);
	a->lock = -1;
	t->taken_over(a);
}

static void on_peer(void *arg, unsigned events)
{
	struct takeover *t = arg;
	struct err e;
	(void)events;
	int r = control_receive(t->peer, &t->message, &e);
	if (r == -EAGAIN)
		return;
	if (r == 0)
		control_close_sockets(&t->message); /* nobody is to send any */
	if (r < 0)
		cancel(t, e.text);
	else if (t->message.kind == CONTROL_ASK && !t->asked)
		offer(t);
	else if (t->message.kind == CONTROL_SERVING && t->asked)
		hand_over(t);
	else if (t->message.kind == CONTROL_FAILED)
		cancel(t, t->message.text);
	else
		cancel(t, "it speaks another protocol");
}

static void on_patience(void *arg)
{
	cancel(arg, "it sent no request");
}

static void begin_conversation(struct takeover *t, int fd, pid_t pid)
{
	t->peer = fd;
	t->peer_pid = pid;
	if (loop_watch_new(t->app->loop, fd, LOOP_READ, on_peer, t, &t->peer_watch) < 0)
		end_conversation(t);
	else
		loop_timer_start(t->patience, ASK_MS);
}

static void on_connection(void *arg, unsigned events)
{
	struct takeover *t = arg;
	char text[ERR_TEXT_MAX];
	struct err e;
	pid_t pid;
	(void)events;
	int fd = accept4(t->listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd < 0)
		return;
	if (control_peer(fd, &pid, &e) < 0) {
		refuse(t, fd, e.text);
	} else if (t->app->draining) {
		refuse(t, fd, "it is ending");
	} else if (t->peer >= 0) {
		snprintf(text, sizeof(text), "process %ld is taking over", (long)t->peer_pid);
		refuse(t, fd, text);
	} else {
		begin_conversation(t, fd, pid);
		return;
	}
	close(fd);
}

/* --- both ----------------------------------------------------------------------------------------------- */

static int listen_for_next(struct app *a, struct err *e)
{
	struct takeover *t = a->takeover;
	int r = control_listen(a->config->data_dir, &t->listening, e);
	if (r == 0 && (r = loop_timer_new(a->loop, on_patience, t, &t->patience)) < 0)
		err_set(e, r, "out of memory");
	if (r == 0 &&
	    (r = loop_watch_new(a->loop, t->listening, LOOP_READ, on_connection, t, &t->listening_watch)) < 0)
		err_set(e, r, "%s", strerror(-r));
	return r;
}

int takeover_serve(struct app *a, struct err *e)
{
	struct takeover *t = a->takeover;
	struct err why;
	int r = t->old >= 0 ? await_knowledge(a, e) : 0;
	if (r < 0)
		return r;
	/* Before anything changes for the old one; its name it gets afterwards. */
	int listens = listen_for_next(a, &why);
	if (t->old >= 0)
		let_old_go(a);
	if (listens == 0)
		listens = control_publish(a->config->data_dir, &why);
	if (listens < 0)
		log_warn("takeover_unavailable", LOG_STR("error", why.text),
			 LOG_STR("effect", "the next restart will have a gap"));
	return 0;
}

pid_t takeover_under_way(const struct app *a)
{
	return a->takeover && a->takeover->asked ? a->takeover->peer_pid : 0;
}

void takeover_leave(struct app *a)
{
	if (a->takeover && a->takeover->asked)
		listen_address_leave(a->takeover->offered, a->takeover->n_offered);
}

void takeover_stop(struct app *a)
{
	struct takeover *t = a->takeover;
	if (!t)
		return;
	loop_watch_free(t->peer_watch);
	loop_watch_free(t->listening_watch);
	loop_timer_free(t->patience);
	if (t->listening >= 0 && a->lock >= 0 && !t->handed_over && t->old < 0 && !t->asked)
		control_unpublish(a->config->data_dir);
	if (t->peer >= 0)
		close(t->peer);
	if (t->listening >= 0)
		close(t->listening);
	if (t->old >= 0)
		close(t->old);
	free(t);
	a->takeover = NULL;
}
