/*
 * Starting a program for a task: its own process group, clean environment, working folder /, no shell, no
 * descriptors but three pipes, and it dies when the worker dies.
 */
#ifndef TASKS_WORKER_SPAWN_H
#define TASKS_WORKER_SPAWN_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/err.h"

struct spawned {
	pid_t pid;	  /* leader of its process group */
	int pidfd;	  /* readable when it has ended */
	int in, out, err; /* our ends, not blocking; in: -1 when its standard input is a file */
};

/* `input`: a file that becomes its standard input and stays the caller's, or -1 for a pipe.
 * argv and env end with NULL. argv[0] is searched in PATH of `env` when it has no slash. From the thread that
 * outlives the program: the kernel ends it with the thread that started it. */
int spawn(char *const argv[], char *const env[], int input, struct spawned *ret, struct err *e);
/* This process may have as many descriptors as the system allows; programs get what it was started with.
 * Before the first spawn. */
void spawn_raise_descriptor_limit(void);
/* SIGKILL to the whole group, and to all that descend from its leader in other groups and sessions. Only
 * while the leader has not been reaped. */
void spawned_kill(const struct spawned *s);
/* Whether it has ended; it stays a zombie, so that its group's number is not given away. */
bool spawned_ended(const struct spawned *s);
/* Reaps it: kills what is left of its group first. *ret is as from waitpid. */
void spawned_reap(struct spawned *s, int *ret);

#endif
