#include "base/service_manager.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"

/* Lines of NAME=value. -errno */
static int send_state(const char *state)
{
	const char *path = getenv("NOTIFY_SOCKET");
	if (!path || !path[0])
		return 0;
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	size_t n = strlen(path);
	if ((path[0] != '/' && path[0] != '@') || n >= sizeof(address.sun_path))
		return -EINVAL;
	memcpy(address.sun_path, path, n);
	if (path[0] == '@') /* in the abstract namespace */
		address.sun_path[0] = '\0';
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	socklen_t length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n);
	ssize_t sent =
		sendto(fd, state, strlen(state), MSG_NOSIGNAL, (const struct sockaddr *)&address, length);
	int r = sent < 0 ? -errno : 0;
	close(fd);
	return r;
}

static void tell(const char *state)
{
	int r = send_state(state);
	if (r < 0)
		log_warn("service_manager_unreachable", LOG_STR("error", strerror(-r)));
}

void service_manager_ready(void)
{
	char state[96];
	snprintf(state, sizeof(state), "MAINPID=%ld\nREADY=1\nSTATUS=serving", (long)getpid());
	tell(state);
}

void service_manager_reloading(void)
{
	char state[96];
	snprintf(state, sizeof(state), "RELOADING=1\nMONOTONIC_USEC=%lld", (long long)clock_mono_us());
	tell(state);
}

void service_manager_reloaded(bool refused)
{
	tell(refused ? "READY=1\nSTATUS=serving; the last reload was refused, see the log"
		     : "READY=1\nSTATUS=serving");
}

void service_manager_stopping(void)
{
	tell("STOPPING=1\nSTATUS=draining");
}

/* --- watchdog ------------------------------------------------------------------------------------------- */

struct watchdog {
	struct loop_timer *timer;
	uint64_t every_ms;
	bool (*alive)(void *arg);
	void *arg;
};

/* How often it must be notified that we are alive, at least; 0: never. */
static uint64_t watchdog_interval_ms(void)
{
	const char *usec = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
	if (!usec || (pid && strtol(pid, NULL, 10) != (long)getpid()))
		return 0;
	char *end;
	unsigned long long n = strtoull(usec, &end, 10);
	return end == usec || *end ? 0 : n / 1000;
}

static void on_watchdog(void *arg)
{
	struct watchdog *w = arg;
	if (!w->alive || w->alive(w->arg))
		tell("WATCHDOG=1");
	loop_timer_start(w->timer, w->every_ms);
}

int watchdog_new(struct loop *loop, bool (*alive)(void *arg), void *arg, struct watchdog **ret)
{
	uint64_t interval_ms = watchdog_interval_ms();
	*ret = NULL;
	if (interval_ms == 0)
		return 0;
	struct watchdog *w = calloc(1, sizeof(*w));
	if (!w || loop_timer_new(loop, on_watchdog, w, &w->timer) < 0) {
		free(w);
		return -ENOMEM;
	}
	w->every_ms = interval_ms / 3; /* two may be late */
	w->alive = alive;
	w->arg = arg;
	*ret = w;
	on_watchdog(w);
	return 0;
}

struct watchdog *watchdog_free(struct watchdog *w)
{
	if (w)
		loop_timer_free(w->timer);
	free(w);
	return NULL;
}
