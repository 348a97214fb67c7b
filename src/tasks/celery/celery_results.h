/*
 * The verbs of a result store, one row for each kind: hearing of results and reading them. Whatever a store
 * keeps, it hands out as the JSON text that Celery's key-value stores have (celery_meta.h).
 *
 * Callbacks: those of watches come any number of times until unwatch, that of a reading once, later than the
 *            call (from within it only if out of memory), unless it is dropped or the client is closed.
 */
#ifndef TASKS_CELERY_CELERY_RESULTS_H
#define TASKS_CELERY_CELERY_RESULTS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "base/span.h"

struct celery_client;
struct celery_options;
struct celery_watch;
struct celery_reading;

struct celery_watcher {
	/* From now on it is heard; again after each reconnection, when something may have been missed. */
	void (*ready)(void *arg);
	void (*message)(void *arg, struct span text);
};

enum celery_read_outcome {
	CELERY_READ,
	CELERY_READ_REFUSED, /* the store answered that it does not give it */
	CELERY_UNREAD	     /* no answer */
};
/* texts[i].ptr is NULL where nothing is stored; good until it returns. */
typedef void (*celery_read_fn)(void *arg, enum celery_read_outcome outcome, const struct span *texts,
			       size_t n);

struct celery_results {
	const char *name; /* for people: "Redis" */
	/* What the clients of all loops share; NULL: nothing. `stop` is of whatever start has done. */
	int (*start)(struct celery_options *o, struct err *e);
	void (*stop)(struct celery_options *o);
	int (*open)(struct celery_client *c, struct err *e); /* after the broker's */
	void (*close)(struct celery_client *c);		     /* before the broker's; watches are gone */
	const char *(*where)(const struct celery_client *c); /* address for people */
	bool (*ready)(const struct celery_client *c);	     /* watches are heard now */
	/* A watch tells what is stored already as well: nothing has to be read beside it. */
	bool watch_tells_stored;
	/* Whether it can say anything of a task: false, it is not this process's. NULL: of every one. */
	bool (*knows)(const struct celery_client *c, struct span id);
	void (*sent)(struct celery_client *c,
		     struct span id); /* a task is being submitted; NULL: no matter */
	/* NULL: no memory */
	struct celery_watch *(*watch)(struct celery_client *c, struct span id,
				      const struct celery_watcher *watcher, void *arg);
	void (*unwatch)(struct celery_watch *w); /* NULL is allowed */
	/* NULL: out of memory, fn was called */
	struct celery_reading *(*read)(struct celery_client *c, const struct span *ids, size_t n,
				       celery_read_fn fn, void *arg);
	void (*read_drop)(struct celery_reading *r); /* NULL is allowed; fn will not be called */
};

extern const struct celery_results celery_results_redis, celery_results_rpc, celery_results_postgres;

#endif
