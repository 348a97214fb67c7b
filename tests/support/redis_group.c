#include "support/redis_group.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAUSE_MS 20
#define TRIES (60000 / PAUSE_MS)

static unsigned free_port(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t length = sizeof(a);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 ||
	    getsockname(fd, (struct sockaddr *)&a, &length) < 0)
		abort();
	close(fd);
	return ntohs(a.sin_port);
}

void group_ask(const struct group_server *s, const char *line, char *answer, size_t size)
{
	struct sockaddr_in a = {.sin_family = AF_INET,
				.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
				.sin_port = htons((unsigned short)s->port)};
	struct timeval second = {.tv_sec = 1};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ssize_t n = 0;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &second, sizeof(second));
	if (connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0 && dprintf(fd, "%s\r\n", line) > 0)
		n = read(fd, answer, size - 1);
	answer[n > 0 ? n : 0] = '\0';
	close(fd);
}

void group_await(const struct group_server *s, const char *line, const char *text)
{
	char answer[8192] = "";
	for (int i = 0; i < TRIES; i++) {
		group_ask(s, line, answer, sizeof(answer));
		if (strstr(answer, text))
			return;
		poll(NULL, 0, PAUSE_MS); /* there is no event to wait for */
	}
	fprintf(stderr, "%s of port %u never has %s: %s\n", line, s->port, text, answer);
	abort();
}

void group_signal(const struct group_server *s, int signal)
{
	if (s->pid > 0)
		kill(s->pid, signal);
}

void group_kill(struct group_server *s)
{
	if (s->pid > 0) {
		kill(s->pid, SIGKILL);
		waitpid(s->pid, NULL, 0);
	}
	s->pid = 0;
}

static pid_t launch(const char *folder, char *const argv[])
{
	pid_t pid = fork();
	if (pid != 0)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	int null = open("/dev/null", O_RDWR);
	dup2(null, 1);
	dup2(null, 2);
	if (chdir(folder) == 0)
		execvp("redis-server", argv);
	_exit(127);
}

unsigned group_serve_tls(struct group_server *s, const char *folder, char *cert, char *key, char *clients)
{
	char port[8], tls[8];
	unsigned secured = free_port();
	s->port = free_port();
	snprintf(port, sizeof(port), "%u", s->port);
	snprintf(tls, sizeof(tls), "%u", secured);
	char *const argv[] = {"redis-server",
			      "--port",
			      port,
			      "--tls-port",
			      tls,
			      "--bind",
			      "127.0.0.1",
			      "--save",
			      "",
			      "--tls-cert-file",
			      cert,
			      "--tls-key-file",
			      key,
			      "--tls-ca-cert-file",
			      "ca.pem",
			      "--tls-auth-clients",
			      clients,
			      NULL};
	s->pid = launch(folder, argv);
	group_await(s, "PING", "+PONG");
	return secured;
}

static void server_start(const struct redis_group *g, struct group_server *s, unsigned master)
{
	char port[8], of[8];
	s->port = s->port ? s->port : free_port();
	snprintf(port, sizeof(port), "%u", s->port);
	snprintf(of, sizeof(of), "%u", master);
	char *const argv[] = {"redis-server",
			      "--port",
			      port,
			      "--bind",
			      "127.0.0.1",
			      "--save",
			      "",
			      "--repl-diskless-sync-delay",
			      "0",
			      "--repl-ping-replica-period",
			      "1",
			      master ? "--replicaof" : NULL,
			      "127.0.0.1",
			      of,
			      NULL};
	s->pid = launch(g->folder, argv);
}

void group_first_anew(struct redis_group *g)
{
	group_kill(&g->first);
	server_start(g, &g->first, 0);
	group_await(&g->first, "PING", "+PONG");
}

static void sentinel_file(const struct redis_group *g, unsigned index, char path[SCRATCH_MAX + 32])
{
	snprintf(path, SCRATCH_MAX + 32, "%s/sentinel-%u.conf", g->folder, index);
}

void group_sentinel_restart(struct redis_group *g, unsigned index)
{
	char path[SCRATCH_MAX + 32];
	sentinel_file(g, index, path);
	char *const argv[] = {"redis-server", path, "--sentinel", NULL};
	g->sentinels[index].pid = launch(g->folder, argv);
	group_await(&g->sentinels[index], "PING", "+PONG");
}

static void sentinel_start(struct redis_group *g, unsigned index)
{
	char path[SCRATCH_MAX + 32];
	struct group_server *s = &g->sentinels[index];
	sentinel_file(g, index, path);
	FILE *f = fopen(path, "w");
	s->port = free_port();
	fprintf(f,
		"port %u\nbind 127.0.0.1\ndir %s\nsentinel monitor " GROUP_MASTER " 127.0.0.1 %u 2\n"
		"sentinel down-after-milliseconds " GROUP_MASTER " 500\n"
		"sentinel failover-timeout " GROUP_MASTER " 3000\n",
		s->port, g->folder, g->first.port);
	fclose(f);
	group_sentinel_restart(g, index);
}

bool redis_group_start(struct redis_group *g)
{
	*g = (struct redis_group){.folder = ""};
	if (system("redis-server --version > /dev/null 2>&1") != 0)
		return false;
	scratch_make(g->folder);
	server_start(g, &g->first, 0);
	group_await(&g->first, "PING", "+PONG");
	server_start(g, &g->second, g->first.port);
	group_await(&g->second, "INFO replication", "master_link_status:up");
	for (unsigned i = 0; i < GROUP_SENTINELS; i++)
		sentinel_start(g, i);
	for (unsigned i = 0; i < GROUP_SENTINELS; i++) {
		group_await(&g->sentinels[i], "INFO sentinel", "slaves=1,sentinels=3");
		group_await(&g->sentinels[i], "INFO sentinel", "status=ok");
	}
	size_t n = 0;
	for (unsigned i = 0; i < GROUP_SENTINELS; i++)
		n += (size_t)snprintf(g->url + n, sizeof(g->url) - n, "%ssentinel://127.0.0.1:%u%s",
				      i ? ";" : "", g->sentinels[i].port, i ? "" : "/0");
	snprintf(g->url + n, sizeof(g->url) - n, "?master_name=" GROUP_MASTER);
	return true;
}

void redis_group_stop(struct redis_group *g)
{
	if (!g->folder[0])
		return;
	for (unsigned i = 0; i < GROUP_SENTINELS; i++)
		group_kill(&g->sentinels[i]);
	group_kill(&g->first);
	group_kill(&g->second);
	scratch_remove(g->folder);
}
