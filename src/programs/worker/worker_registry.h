/*
 * The worker's registry over its life: where it comes from, what is in force, and what is wrong with it.
 *
 * Why:     a set that was refused, or that is not whole, is told for as long as that lasts, not just once.
 * Errors:  mistakes are told on standard error at the start, and in the log at a reload.
 * Threads: the loop's.
 */
#ifndef PROGRAMS_WORKER_WORKER_REGISTRY_H
#define PROGRAMS_WORKER_WORKER_REGISTRY_H

#include "config/config.h"
#include "tasks/worker/registry.h"

struct worker_registry {
	struct registry_source source;
	bool fail_fast_is_set, core_is_set; /* by the command line, which wins */
	struct registry *now;
	int64_t stale_us; /* wall clock: since when what is in the files was refused; 0: it is in force */
};

/* One more path of --tasks. */
int worker_registry_add_path(struct worker_registry *w, const char *path);
/* true or false; false when it is neither. */
bool worker_registry_set_fail_fast(struct worker_registry *w, const char *value);
bool worker_registry_set_core(struct worker_registry *w, const char *value);
/* What the command line does not say, from the backend's settings. */
int worker_registry_take(struct worker_registry *w, const struct backend_config *b);

/* For the start. */
int worker_registry_load(struct worker_registry *w);
/* A fresh one, to be given to the engine and then to worker_registry_put; NULL: the old one stays. */
struct registry *worker_registry_read(struct worker_registry *w);
void worker_registry_put(struct worker_registry *w, struct registry *fresh);
/* In the log, what is left out; nothing when that is nothing. */
void worker_registry_tell(const struct worker_registry *w);
void worker_registry_release(struct worker_registry *w);

/* Prints what is known, one a line, and what was left out. */
void worker_registry_list(const struct worker_registry *w);

#endif
