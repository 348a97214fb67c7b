#include "support/redis_server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static bool reach(const struct redis_server *s, int *ret_fd)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	*ret_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	snprintf(a.sun_path, sizeof(a.sun_path), "%s", s->socket);
	return connect(*ret_fd, (struct sockaddr *)&a, sizeof(a)) == 0;
}

static bool answers(const struct redis_server *s)
{
	int fd;
	bool good = reach(s, &fd);
	close(fd);
	return good;
}

void redis_server_say(const struct redis_server *s, const char *line)
{
	char answer[64];
	int fd;
	if (!reach(s, &fd) || dprintf(fd, "%s\r\n", line) < 0 || read(fd, answer, sizeof(answer)) <= 0 ||
	    answer[0] == '-')
		abort();
	close(fd);
}

static bool launch(struct redis_server *s)
{
	s->pid = fork();
	if (s->pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		int null = open("/dev/null", O_RDWR);
		dup2(null, 1);
		dup2(null, 2);
		execlp("redis-server", "redis-server", "--port", "0", "--unixsocket", s->socket, "--save", "",
		       "--appendonly", "no", "--dir", s->folder, s->password ? "--requirepass" : (char *)NULL,
		       s->password, (char *)NULL);
		_exit(127);
	}
	/* Its socket appears when it listens; there is no event to wait for before. */
	for (int i = 0; i < 2000; i++) {
		if (answers(s))
			return true;
		if (waitpid(s->pid, NULL, WNOHANG) == s->pid)
			break;
		poll(NULL, 0, 5);
	}
	s->pid = 0;
	return false;
}

bool redis_server_start(struct redis_server *s, const char *password)
{
	*s = (struct redis_server){.password = password};
	scratch_make(s->folder);
	if (snprintf(s->socket, sizeof(s->socket), "%s/redis.sock", s->folder) >= (int)sizeof(s->socket)) {
		fprintf(stderr, "%s is too long for a socket's path: name a shorter folder in TMPDIR\n",
			s->folder);
		abort();
	}
	snprintf(s->url, sizeof(s->url), "redis+socket://%s", s->socket);
	return launch(s);
}

void redis_server_restart(struct redis_server *s)
{
	if (!launch(s))
		abort();
}

void redis_server_kill(struct redis_server *s)
{
	if (s->pid > 0) {
		kill(s->pid, SIGKILL);
		waitpid(s->pid, NULL, 0);
		unlink(s->socket);
	}
	s->pid = 0;
}

void redis_server_stop(struct redis_server *s)
{
	redis_server_kill(s);
	scratch_remove(s->folder);
}

/* --- the scripted one ----------------------------------------------------------------------------------- */

#define GREETING (sizeof("*1\r\n$4\r\nPING\r\n") - 1) /* its length */

static void serve(const struct fake_redis *f, int fd)
{
	char piece[4096];
	size_t greeting = 0, others = 0;
	while (others < f->trigger) {
		size_t room = f->trigger - others + GREETING - greeting;
		ssize_t n = TEMP_FAILURE_RETRY(read(fd, piece, room < sizeof(piece) ? room : sizeof(piece)));
		if (n <= 0)
			return;
		for (ssize_t i = 0; i < n; i++) {
			if (greeting == GREETING)
				others++;
			else if (++greeting == GREETING && write(fd, "+PONG\r\n", 7) != 7)
				return;
		}
	}
	/* Its end may never show here: it stands behind what is not read. */
	struct pollfd until[] = {{.fd = fd, .events = POLLRDHUP}, {.fd = f->stop[0], .events = POLLIN}};
	if (f->does == FAKE_SAYS && write(fd, f->says, strlen(f->says)) < 0)
		return;
	if (f->does != FAKE_CLOSES)
		poll(until, 2, -1);
}

static void *run(void *arg)
{
	const struct fake_redis *f = arg;
	int fd;
	while ((fd = accept(f->listener, NULL, NULL)) >= 0) {
		serve(f, fd);
		close(fd);
	}
	return NULL;
}

void fake_redis_start(struct fake_redis *f, enum fake_does does, size_t trigger)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t length = sizeof(a);
	*f = (struct fake_redis){.does = does, .trigger = trigger};
	f->listener = socket(AF_INET, SOCK_STREAM, 0);
	if (bind(f->listener, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(f->listener, 8) < 0 ||
	    getsockname(f->listener, (struct sockaddr *)&a, &length) < 0)
		abort();
	f->port = ntohs(a.sin_port);
	if (pipe(f->stop) < 0)
		abort();
	snprintf(f->url, sizeof(f->url), "redis://127.0.0.1:%u/0", f->port);
	pthread_create(&f->thread, NULL, run, f);
}

void fake_redis_stop(struct fake_redis *f)
{
	shutdown(f->listener, SHUT_RDWR);
	close(f->stop[1]);
	pthread_join(f->thread, NULL);
	close(f->listener);
	close(f->stop[0]);
}
