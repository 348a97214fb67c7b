/*
 * Events: what changed and who changed it, in outcomes.db beside the outcomes: percentages, guard, breakers,
 * backends and legacy services gone and back, flags failing and back, reloads, starts and stops.
 *
 * Table `events` (id, time_us, kind, service, operation, backend, who, what, why, before_percent,
 * after_percent), ids in the order of writing. One of its own and no new version of the schema: an older
 * program, also the one that a takeover replaces, goes on writing to the same file.
 *
 * Why:       a figure that changes without a mark of what caused it explains nothing, and the log is
 *            elsewhere.
 * Writing:   events_add queues; the recorder's thread writes (recorder_tap). When the queue is full the
 *            newest are dropped and counted; while the file cannot be written they wait.
 * Limits:    EVENTS_KEPT rows: the oldest go first. Texts are plain (base/text.h), masked and cut.
 * Threads:   events_add, events_status from any; the tap is the recorder's; events_read from any, with a
 *            connection of its own.
 */
#ifndef OUTCOMES_EVENTS_H
#define OUTCOMES_EVENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/span.h"
#include "outcomes/recorder.h"

#define EVENTS_QUEUED 256
#define EVENTS_KEPT 100000
#define EVENTS_READ_MAX 10000 /* at once */
#define EVENT_NO_PERCENT (-1.0)

/* In the file as words (event_kind_text); a word that is not known is another version's: EVENT_OTHER. */
enum event_kind {
	EVENT_START,
	EVENT_STOP,
	EVENT_RELOAD,	     /* of the configuration */
	EVENT_PERCENT,	     /* of an operation, as set by its flags: before, after */
	EVENT_FLAGS_FAILING, /* the newest state cannot be used */
	EVENT_FLAGS_BACK,
	EVENT_BACKEND_GONE, /* unreachable, or without a worker */
	EVENT_BACKEND_BACK,
	EVENT_BREAKER_OPEN,
	EVENT_BREAKER_CLOSED,
	EVENT_LEGACY_GONE,
	EVENT_LEGACY_BACK,
	EVENT_GUARD_BREACH,
	EVENT_GUARD_MISMATCH,
	EVENT_GUARD_HELD,
	EVENT_GUARD_RELEASED,
	EVENT_GUARD_SAFE,
	EVENT_STORE_FAILING, /* the state store (ledger) */
	EVENT_STORE_BACK,
	EVENT_MOVE, /* someone asked for another percentage: who and why; EVENT_PERCENT follows */
	EVENT_OTHER,
	EVENT_KINDS
};

struct event {
	int64_t id; /* of the row; 0: not written yet */
	int64_t time_us;
	enum event_kind kind;
	char service[32], operation[64], backend[16]; /* "": not about one */
	char who[64];				      /* a person or program; "": the router itself */
	char what[160], why[256];		      /* sentences for people */
	double before, after; /* percent of the task side for everybody; EVENT_NO_PERCENT: not about one */
};

struct events;

int events_new(struct events **ret);	      /* -ENOMEM */
struct events *events_free(struct events *e); /* after the recorder has stopped. NULL is allowed */
void events_tap(struct events *e, struct recorder_tap *ret);
/* Copied; time_us 0 is now. Never waits. */
void events_add(struct events *e, const struct event *of);
/* Those that were dropped since the start. */
uint64_t events_dropped(struct events *e);

struct event_list {
	size_t n;
	bool more;	       /* older ones in the span were left out */
	struct event events[]; /* by time, ascending */
};

struct event_filter {
	int64_t since_us, until_us;	 /* 0: open */
	const char *service, *operation; /* NULL: all; events that are about none belong to all */
	size_t max;			 /* the newest; 0: EVENTS_READ_MAX */
};
/* No table yet: an empty list. Errors: db.h's, as report_make. */
int events_read(const char *path, const struct event_filter *f, struct event_list **ret, struct err *e);
struct event_list *event_list_free(struct event_list *l); /* NULL is allowed; returns NULL */
DEFINE_CLEANUP(struct event_list *, event_list_free)

const char *event_kind_text(enum event_kind k); /* "start", "percent", "backend_gone", … */
enum event_kind event_kind_parse(struct span text);
/* One as a JSON object. Appends; buf's errors. */
int event_to_json(const struct event *of, struct buf *out);

#endif
