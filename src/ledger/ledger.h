/*
 * Ledger: what must be remembered of an operation so that later calls find it (rule 4).
 *
 * Why:       a follow-up call goes where the first call went, whatever the flag says by then; and only its
 *            owner may ask for a task's result. Both survive flag flips, kill -9 and restarts; in a Redis
 *            also the loss of a router, since all of its replicas ask there (design, "Replicas").
 * Shape:     one interface, two stores: ledger_file.h (one process, memory in front of SQLite) and
 *            ledger_redis.h (any number of processes, nothing in front of it).
 * Threads:   any. Callbacks come once, on the caller's loop, perhaps within the call.
 * Ownership: everything is copied.
 * Durability: an entry is in the store before its put is called back without error, and any replica that asks
 *            from then on finds it.
 * Limits:    LEDGER_MAX_ENTRIES live entries (file), LEDGER_TTL_DAYS of age, LEDGER_QUEUE changes waiting.
 */
#ifndef LEDGER_LEDGER_H
#define LEDGER_LEDGER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/loop.h"
#include "base/span.h"

#define LEDGER_GROUP_MAX 64
#define LEDGER_KEY_MAX 512
#define LEDGER_MAX_ENTRIES 1000000
#define LEDGER_TTL_DAYS 7
#define LEDGER_QUEUE 65536

struct ledger;

struct ledger_entry {
	char group[LEDGER_GROUP_MAX]; /* operations that share keys */
	char key[LEDGER_KEY_MAX];
	char backend[16];
	char task_id[64]; /* of pins; of tasks that were answered with 202 their name (task_owner.h) */
	/* Wall clock; 0 is filled in by put. An entry that was replaced has another one: it names the version
	 * that a removal is about. */
	int64_t created_us;
};

/* -ENAMETOOLONG when group or key do not fit: cut keys would be confused with each other. */
int ledger_entry_set(struct ledger_entry *entry, struct span group, struct span key);

struct ledger_options {
	const char *file; /* path of ledger.db */
	/* NULL: the file. "redis://…" as base/redis_url.h reads them: there instead */
	const char *redis;
	const char *prefix;  /* of all keys there */
	unsigned timeout_ms; /* of a question or a change there */
};

/* The file's mistakes are errors (ledger_file.h). An unreachable Redis is not one: it is awaited for up to
 * timeout_ms, then it is LEDGER_UNKNOWN until it is there. */
int ledger_start(const struct ledger_options *o, struct ledger **ret, struct err *e);
struct ledger *ledger_stop(struct ledger *l); /* after what is queued was written. NULL is allowed */

enum ledger_answer {
	LEDGER_NONE,	/* there is no entry */
	LEDGER_FOUND,	/* there is one */
	LEDGER_UNKNOWN, /* it is unknown whether there is one: not the same as none (rule 4) */
};
/* `entry` (with LEDGER_FOUND, and where a key was asked for; else NULL) is good until it returns. */
typedef void (*ledger_told_fn)(void *arg, enum ledger_answer answer, const struct ledger_entry *entry);
/* What there is of a key; with SPAN_NONE as the key, whether any key of the group has an entry: LEDGER_NONE
 * when it is certain that none has. An entry counts until the sweep has removed it: a clock that has gone
 * astray makes none disappear from here. */
void ledger_ask(struct ledger *l, struct loop *loop, struct span group, struct span key, ledger_told_fn fn,
		void *arg);

typedef void (*ledger_done_fn)(void *arg, int error); /* 0 or -errno */
/* Replaces an entry of the same group and key. With an error it may be there nevertheless: who goes on
 * elsewhere removes it. `turn`: of a start, its token (ledger_take); NULL: it needs none. -EBUSY: another
 * start of the key is under way, on another side or backend; nothing was put. */
void ledger_put(struct ledger *l, struct loop *loop, const struct ledger_entry *entry, const char *turn,
		ledger_done_fn fn, void *arg);
/* Of that version; with created_us 0, of any that is there by now. This process's questions do not find it
 * any more. 0: it is gone from the store, whatever is killed now; or that could not be written at the first
 * try, and will be as soon as it can. -EAGAIN, -ENOMEM:
 * nothing was removed; too many wait. `fn` may be NULL. */
void ledger_remove(struct ledger *l, struct loop *loop, const struct ledger_entry *entry, ledger_done_fn fn,
		   void *arg);

/* The turn of a key: which start of it is under way, so that of two at the same moment, at two replicas, only
 * one goes on unless they go to the same place. Known to a remote store only; it ends by ledger_leave, or
 * after LEDGER_TURN_MS. `turn` is a random token of the start (crypto_random_id). */
#define LEDGER_TURN_MS 30000
/* A start on the legacy side: what there is of the key goes, as by ledger_remove. -EBUSY as ledger_put. */
void ledger_take(struct ledger *l, struct loop *loop, const struct ledger_entry *key, const char *turn,
		 ledger_done_fn fn, void *arg);
void ledger_leave(struct ledger *l, const struct ledger_entry *key, const char *turn);

/* Another process is about to use the file: from now on it is asked, until ledger_unshare allows memory again
 * and no other process has it open. An error: what the other process does would not be seen. */
int ledger_share(struct ledger *l, struct err *e);
void ledger_unshare(struct ledger *l);

struct ledger_status {
	bool remote; /* a Redis, whose address is `where` */
	char where[ERR_TEXT_MAX];
	uint64_t entries; /* of the file's */
	uint64_t queued;  /* changes on their way to the file */
	/* It cannot be read or written now. */
	bool failing, shared;
	uint64_t errors;     /* questions and changes that failed there, since the start; remote only */
	uint64_t unwritten;  /* removals that wait for it */
	int64_t since_us;    /* wall clock: since when it is failing, or has not been; remote only */
	uint64_t losses;     /* how often its server lost what it had; remote only */
	const char *warning; /* what is set up there so that entries may be lost; NULL: nothing known */
	char last_error[ERR_TEXT_MAX];
};
void ledger_status(struct ledger *l, struct ledger_status *ret);

#endif
