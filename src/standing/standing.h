/*
 * Standing: where a migration stands *now*, from known states and the last 15 minutes: one sentence, its
 * level, the command to copy, what is next, and a verdict with its reason on each operation that can move
 * (docs/design.md, "Standing"). Pure.
 *
 * Why:       one sentence for the page, migration-status, /readyz and alerts. It is never made of history: a
 *            hundred good days must not outvote ten bad minutes.
 * Shape:     facts (what the router knows of itself) and a window (a report over the last minutes) in,
 *            standing out. The router keeps its facts as a row in outcomes.db (standing/standing_row.h), so
 *            that whoever reads that file says the same sentence as the router itself.
 * Can move:  an operation with a task. Operations without one, and unknown paths, are in no denominator.
 * Ownership: facts and standings own everything in them.
 * Threads:   any.
 * Units:     percent 0 … 100; times in µs of the wall clock, 0 = never or not known.
 */
#ifndef STANDING_STANDING_H
#define STANDING_STANDING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/span.h"
#include "guard/guard_verdict.h"
#include "outcomes/report.h"

#define STANDING_VERSION 1
#define STANDING_WINDOW_US (15 * 60 * 1000000LL)
#define STANDING_REPORT_US 10000000LL /* between two rows of a router of which nothing changes */
#define STANDING_SILENT_US 45000000LL /* an older row: the router has not reported */
#define STANDING_SERVICES_MAX 64
#define STANDING_BACKENDS_MAX 8
#define STANDING_OPERATIONS_MAX 4096
#define STANDING_SEGMENTS_MAX 8 /* of one operation */
#define STANDING_NAME_MAX 100	/* "service.operation" */
#define STANDING_WHY_MAX 256
#define STANDING_TEXT_MAX 512
#define STANDING_NOT_SET (-1.0)
#define STANDING_HOUR_POINTS 30
#define STANDING_POINT_MINUTES 2

/* --- facts ---------------------------------------------------------------------------------------------- */

struct standing_flags {
	char source[16];	      /* "file", "flipt v2", … */
	char where[256];	      /* path, or URL without credentials */
	char digest[80], version[32]; /* version: of the server, or "" */
	bool loaded;		      /* a snapshot is in use */
	bool failing; /* the newest state could not be fetched or used; the last good one serves */
	bool unsaved; /* what is in use could not be written to disk */
	unsigned broken, vanished; /* flags in use that are set aside; that are gone from the source */
	char broken_name[128], vanished_name[128]; /* the first of them */
	int64_t confirmed_us;			   /* the state in use was last seen at its source */
	int64_t failing_since_us;
	char last_error[STANDING_WHY_MAX];
};

struct standing_backend {
	char name[16];
	bool known; /* it has been asked; else nothing below but the breaker */
	bool reachable, worker;
	int64_t backlog;       /* tasks waiting; -1: not known */
	int64_t backlog_floor; /* the fewest that waited for minutes (backlog_floor.h); -1: not known */
	int64_t since_us;      /* of this reachable and worker */
	char detail[STANDING_WHY_MAX];
	char breaker[16]; /* closed, half_open, open, off */
	int64_t breaker_since_us;
	char breaker_why[STANDING_WHY_MAX];
	unsigned in_flight;
};

struct standing_legacy {
	char service[32];
	bool known;	   /* somebody has tried since the start; else nothing but the errors */
	bool reachable;	   /* as far as callers have tried */
	char failing[96];  /* kinds, such as "refused, dns"; "": none now */
	int64_t since_us;  /* of this reachable */
	uint64_t errors;   /* since the start of the router */
	double per_minute; /* of them, over the last minutes */
	char address[128]; /* without credentials */
};

struct standing_store { /* recorder, state store, idempotency keys */
	bool failing;
	int64_t since_us;
	char where[128]; /* "" or the store, without credentials */
	char last_error[STANDING_WHY_MAX];
};

struct standing_segment {
	char name[96]; /* of one rule: segments */
	double percent;
};

/* What is known of one operation that can move, before anything is counted. */
struct standing_operation_facts {
	char service[32], operation[64];
	char flag[96];	      /* the first one; "": none, legacy always */
	char backend[16];     /* where its task would go by default */
	double set;	      /* for everybody; STANDING_NOT_SET: no flags, or they are not known */
	double shadow;	      /* percent that is shadowed */
	int64_t set_since_us; /* of this set; 0: since before the router knows */
	struct standing_segment segments[STANDING_SEGMENTS_MAX]; /* where rules differ from `set` */
	size_t n_segments;
	char stage[16]; /* off, shadow, rolling, complete */
	char phase[96]; /* of its plan, for people; "": it has none */
	double next;	/* what the plan, or the usual steps, say after `set`; STANDING_NOT_SET: nothing */
	char not_ready[STANDING_WHY_MAX]; /* why its task would not be run; "": nothing known against it */
	int64_t not_ready_since_us;
	enum guard_mode guard_mode;
	enum guard_verdict guard;
	bool guard_judged; /* an epoch has begun */
	bool held;
	int64_t held_us;
	char guard_why[STANDING_WHY_MAX];
};

struct standing_facts {
	char router[96];  /* who says it: host and process */
	char version[32]; /* of the router */
	char config[256]; /* its configuration's file, for commands */
	char admin[128];  /* the address of its admin listener; "": none */
	int64_t time_us;  /* of these facts */
	int64_t started_us;
	bool stopped; /* it has ended by itself: the last word */
	bool draining, accepting;
	struct standing_flags flags;
	struct standing_store recorder, state, keys;
	uint64_t dropped;		      /* outcomes, since the start */
	bool guard_known;		      /* outcomes.db has been read, and so what is held is known */
	char guard_trouble[STANDING_WHY_MAX]; /* why the guard cannot work; "" */
	char state_warning[STANDING_WHY_MAX]; /* how the state store may lose what it has; "" */
	struct standing_backend backends[STANDING_BACKENDS_MAX];
	size_t n_backends;
	struct standing_legacy legacy[STANDING_SERVICES_MAX];
	size_t n_legacy;
	struct standing_operation_facts *operations; /* that can move */
	size_t n_operations;
	size_t without_task; /* operations */
};

/* Room for n operations. -ENOMEM, -E2BIG. */
int standing_facts_new(size_t n_operations, struct standing_facts **ret);
struct standing_facts *standing_facts_free(struct standing_facts *f); /* NULL is allowed; returns NULL */
DEFINE_CLEANUP(struct standing_facts *, standing_facts_free)

int standing_facts_to_json(const struct standing_facts *f, struct buf *out);
/* What standing_facts_to_json wrote, also another version's: members that are not known are left out.
 * -EPROTO with a sentence about `name`. */
int standing_facts_parse(const char *name, struct span json, struct standing_facts **ret, struct err *e);

/* --- standing ------------------------------------------------------------------------------------------- */

enum standing_level {
	STANDING_EMPTY, /* nothing wrong is known, and nothing to judge by */
	STANDING_OK,
	STANDING_WATCH, /* it goes on, but something is not as it should be */
	STANDING_STOP,	/* callers are hurt, or would be, or nobody can tell: do not move on */
	STANDING_LEVELS
};

struct standing_operation {
	char service[32], operation[64], name[STANDING_NAME_MAX];
	enum standing_level level;
	char verdict[32]; /* safe, not enough data, breach, no worker, failing, legacy failing, … */
	char why[STANDING_TEXT_MAX];	 /* the reason, a sentence; "" with nothing to say */
	char command[STANDING_TEXT_MAX]; /* "": nothing to do */
	double measured;  /* percent of the executions that the task side answered; STANDING_NOT_SET: none */
	int64_t since_us; /* what is measured begins here: the window, or when the percentage was set */
	struct standing_operation_facts facts;
	struct report_operation window;
	/* Answers by side over the last hour, for a sparkline; no part of any judgment. */
	uint32_t hour[STANDING_HOUR_POINTS][OUTCOME_SIDE_COUNT];
};

struct standing {
	enum standing_level level;
	char sentence[STANDING_TEXT_MAX];
	char command[STANDING_TEXT_MAX]; /* to copy; "": none */
	char next[STANDING_TEXT_MAX];	 /* what is next, for people; "": nothing */
	int64_t made_us, since_us;	 /* the window */
	int64_t reported_us;		 /* when the router last said what it knows; 0: never */
	double set,
		measured; /* over all operations that can move, by their executions; or STANDING_NOT_SET */
	int64_t hour_us;  /* where `hour` of the operations begins; 0: not read */
	uint64_t executions, left_out;	       /* of operations that can move; of the others */
	size_t without_task;		       /* operations that were left out */
	struct standing_operation *operations; /* worst first */
	size_t n_operations;
	char others[STANDING_WHY_MAX]; /* what was left out, a sentence; "": nothing */
	struct standing_facts *facts;  /* owned; NULL: no router has reported */
};

/* `facts` NULL: no router has reported; taken over. `window`: a report over the window, made by
 * standing_window.h; NULL: it could not be read, `trouble` says why. -ENOMEM. */
int standing_make(struct standing_facts *facts, const struct report *window, const char *trouble,
		  int64_t now_us, struct standing **ret);
struct standing *standing_free(struct standing *s); /* NULL is allowed; returns NULL */
DEFINE_CLEANUP(struct standing *, standing_free)

const char *standing_level_text(enum standing_level l); /* empty, ok, watch, stop */
/* docs/migration-status.schema.json. Appends; buf's errors. */
int standing_to_json(const struct standing *s, struct buf *out);

#endif
