#include "router/request/access_log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/log.h"

#define STOP_SECONDS 2

struct access_log {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct buf pending; /* under lock, as all up to here */
	int next_fd;	    /* -1: as it was */
	bool stopping;
	int fd; /* the thread's */
	atomic_uint_fast64_t dropped;
	bool failing; /* the thread's: said already */
};

static void access_log_failed(struct access_log *l, struct span lines, int error)
{
	for (size_t i = 0; i < lines.len; i++)
		if (lines.ptr[i] == '\n')
			atomic_fetch_add(&l->dropped, 1);
	if (!l->failing)
		log_warn("access_log_failing", LOG_STR("error", strerror(error)));
	l->failing = true;
}

/* The descriptor does not block, so that opening a pipe does not; here is the place to wait. */
static void access_log_put(struct access_log *l, struct span lines)
{
	while (lines.len) {
		ssize_t n = write(l->fd, lines.ptr, lines.len);
		if (n > 0) {
			lines.ptr += n;
			lines.len -= (size_t)n;
		} else if (n < 0 && errno == EAGAIN) {
			struct pollfd p = {.fd = l->fd, .events = POLLOUT};
			poll(&p, 1, -1);
		} else if (n == 0 || errno != EINTR) {
			access_log_failed(l, lines, n == 0 ? EIO : errno);
			return;
		}
	}
	if (l->failing)
		log_info("access_log_written_again", LOG_INT("dropped", atomic_load(&l->dropped)));
	l->failing = false;
}

static void access_log_switch(struct access_log *l)
{
	if (l->next_fd < 0)
		return;
	close(l->fd);
	l->fd = l->next_fd;
	l->next_fd = -1;
}

static void *access_log_run(void *arg)
{
	struct access_log *l = arg;
	struct buf lines = BUF_INIT(ACCESS_LOG_PENDING);
	pthread_mutex_lock(&l->lock);
	for (;;) {
		while (l->pending.len == 0 && l->next_fd < 0 && !l->stopping)
			pthread_cond_wait(&l->wake, &l->lock);
		/* What was written before the file was reopened belongs to the old one. */
		struct buf taken = l->pending;
		l->pending = lines;
		lines = taken;
		if (lines.len) {
			pthread_mutex_unlock(&l->lock);
			access_log_put(l, buf_span(&lines));
			buf_clear(&lines);
			pthread_mutex_lock(&l->lock);
			continue;
		}
		access_log_switch(l);
		if (l->stopping)
			break;
	}
	pthread_mutex_unlock(&l->lock);
	buf_release(&lines);
	return NULL;
}

/* Signals are the control thread's. */
static int access_log_thread(struct access_log *l)
{
	sigset_t all, before;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	int r = pthread_create(&l->thread, NULL, access_log_run, l);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return -r;
}

static void access_log_free(struct access_log *l)
{
	buf_release(&l->pending);
	if (l->next_fd >= 0)
		close(l->next_fd);
	if (l->fd >= 0)
		close(l->fd);
	pthread_cond_destroy(&l->wake);
	pthread_mutex_destroy(&l->lock);
	free(l);
}

int access_log_start(struct access_log **ret, struct err *e)
{
	struct access_log *l = calloc(1, sizeof(*l));
	if (!l)
		return err_set(e, -ENOMEM, "out of memory");
	pthread_mutex_init(&l->lock, NULL);
	pthread_cond_init(&l->wake, NULL);
	buf_init(&l->pending, ACCESS_LOG_PENDING);
	l->next_fd = -1;
	l->fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0);
	int r = l->fd < 0 ? -errno : access_log_thread(l);
	if (r < 0) {
		access_log_free(l);
		return err_set(e, r, "access log: %s", strerror(-r));
	}
	*ret = l;
	return 0;
}

int access_log_open(struct access_log *l, const char *path, struct err *e)
{
	int fd = path ? open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0640)
		      : fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0);
	if (fd < 0)
		return err_set(e, -errno, "access log %s: %s", path ? path : "stderr", strerror(errno));
	pthread_mutex_lock(&l->lock);
	int unused = l->next_fd;
	l->next_fd = fd;
	pthread_cond_signal(&l->wake);
	pthread_mutex_unlock(&l->lock);
	if (unused >= 0)
		close(unused);
	return 0;
}

void access_log_write(struct access_log *l, struct span line)
{
	pthread_mutex_lock(&l->lock);
	bool fits = l->pending.len + line.len + 1 <= ACCESS_LOG_PENDING;
	if (fits)
		buf_append_span(&l->pending, line);
	if (!fits || l->pending.error)
		atomic_fetch_add(&l->dropped, 1);
	if (l->pending.error) /* memory is out */
		buf_clear(&l->pending);
	pthread_cond_signal(&l->wake);
	pthread_mutex_unlock(&l->lock);
}

uint64_t access_log_dropped(const struct access_log *l)
{
	return atomic_load(&l->dropped);
}

struct access_log *access_log_stop(struct access_log *l)
{
	if (!l)
		return NULL;
	pthread_mutex_lock(&l->lock);
	l->stopping = true;
	pthread_cond_signal(&l->wake);
	pthread_mutex_unlock(&l->lock);
	struct timespec until;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += STOP_SECONDS;
	if (pthread_timedjoin_np(l->thread, NULL, &until) == 0)
		access_log_free(l);
	else /* it hangs in the file, and the process ends anyway */
		pthread_detach(l->thread);
	return NULL;
}
