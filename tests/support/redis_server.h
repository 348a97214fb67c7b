/*
 * Redis for unit tests: a real server of the test's own on a unix socket, and a scripted one that misbehaves.
 */
#ifndef SUPPORT_REDIS_SERVER_H
#define SUPPORT_REDIS_SERVER_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/redis.h"
#include "support/scratch.h"

struct redis_server {
	char folder[SCRATCH_MAX], socket[108], url[128]; /* 108: as sun_path */
	const char *password;				 /* NULL: none */
	pid_t pid;
};
/* false when there is no redis-server on this machine. */
bool redis_server_start(struct redis_server *s, const char *password);
void redis_server_restart(struct redis_server *s);
/* an inline command, answered when it returns */
void redis_server_say(const struct redis_server *s, const char *line);
void redis_server_kill(struct redis_server *s);
void redis_server_stop(struct redis_server *s);

/* Accepts one connection after another on a TCP port of its own, answers each PING with PONG, and then, once
 * `trigger` bytes of anything else have come, does as told. */
enum fake_does { FAKE_CLOSES, FAKE_SAYS_NOTHING, FAKE_SAYS };
struct fake_redis {
	int listener, stop[2];
	unsigned port;
	size_t trigger;
	enum fake_does does;
	const char *says; /* set before anything connects */
	pthread_t thread;
	char url[64];
};
void fake_redis_start(struct fake_redis *f, enum fake_does does, size_t trigger);
void fake_redis_stop(struct fake_redis *f);

#endif
