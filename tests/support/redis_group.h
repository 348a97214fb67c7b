/*
 * A master, its replica, and Sentinels that watch them: real servers on free TCP ports of 127.0.0.1.
 */
#ifndef SUPPORT_REDIS_GROUP_H
#define SUPPORT_REDIS_GROUP_H

#include <stdbool.h>
#include <sys/types.h>

#include "support/scratch.h"

#define GROUP_SENTINELS 3
#define GROUP_MASTER "the-master"

struct group_server {
	unsigned port;
	pid_t pid;
};

struct redis_group {
	char folder[SCRATCH_MAX], url[256]; /* sentinel:// of all, with master_name */
	struct group_server first, second;  /* the master at the beginning, and its replica */
	struct group_server sentinels[GROUP_SENTINELS];
};

/* The replica is in sync and the Sentinels know it and each other when it returns. false: no redis-server
 * here. */
bool redis_group_start(struct redis_group *g);
void redis_group_stop(struct redis_group *g);
/* Answer of one inline command, its first `size` - 1 bytes; "" if none comes within a second. */
void group_ask(const struct group_server *s, const char *line, char *answer, size_t size);
/* Until the answer has this text; a test that waits for a minute fails. */
void group_await(const struct group_server *s, const char *line, const char *text);
void group_signal(const struct group_server *s, int signal);
/* One server alone, with a port of its own and one for TLS, which is returned; its files in `folder`, and
 * what it asks of its clients' certificates: yes, no, optional. Its authority is ca.pem. */
unsigned group_serve_tls(struct group_server *s, const char *folder, char *cert, char *key, char *clients);
/* SIGKILL, and then as it was set up, by its file as it is. */
void group_kill(struct group_server *s);
/* The first server again, as a master that knows of nobody. */
void group_first_anew(struct redis_group *g);
void group_sentinel_restart(struct redis_group *g, unsigned index);

#endif
