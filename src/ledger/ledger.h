/*
 * Ledger: what must be remembered of an operation so that later calls find it (rule 4).
 *
 * Why:       a follow-up call goes where the first call went, whatever the flag says by then; and only its
 *            owner may ask for a task's result. Both survive flag flips, kill -9 and restarts.
 * Threads:   any. One thread of the ledger's own owns ledger.db; look-ups are answered from memory, under a
 *            lock held for a hash look-up. Callbacks of ledger_put come on the caller's loop.
 * Sharing:   while other processes use the file, too (during a takeover, and until the old router has
 *            drained), memory may be wrong: then a look-up reads the file, which is one row by its key, and
 *            what cannot be read, or is being removed by another process, is LEDGER_UNKNOWN. Once alone the
 *            file is read anew, and memory answers again. See ledger_share.h.
 * Ownership: everything is copied.
 * Durability: an entry is on disk (synchronous=FULL) before its put is called back without error. A removal
 *            that cannot be written is tried again until it is. A file that was replaced gets what memory
 *            has.
 * Limits:    LEDGER_MAX_ENTRIES live entries (a put beyond is -ENOSPC), LEDGER_TTL_DAYS of age, LEDGER_QUEUE
 *            changes waiting.
 */
#ifndef LEDGER_LEDGER_H
#define LEDGER_LEDGER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/loop.h"
#include "base/span.h"

#define LEDGER_APPLICATION 0x4d52474c /* "MRGL" */
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
	int64_t created_us; /* wall clock; 0 is filled in by put */
};

/* -ENAMETOOLONG when group or key do not fit: cut keys would be confused with each other. */
int ledger_entry_set(struct ledger_entry *entry, struct span group, struct span key);

/* A mistake (a folder in its place, another version's file, no right to it) is an error here. A file that
 * cannot be read for the moment, or is damaged, is tried again until it can be: until then what is not
 * known is LEDGER_UNKNOWN. */
int ledger_start(const char *path, struct ledger **ret, struct err *e);
struct ledger *ledger_stop(struct ledger *l); /* after what is queued was written. NULL is fine */

enum ledger_answer {
	LEDGER_NONE,	/* there is no entry */
	LEDGER_FOUND,	/* *ret is filled in */
	LEDGER_UNKNOWN, /* it cannot be told whether there is one: not the same as none (rule 4) */
};
/* An entry counts until the sweep has removed it: a clock that has gone astray makes none disappear from
 * here. */
enum ledger_answer ledger_lookup(struct ledger *l, struct span group, struct span key,
				 struct ledger_entry *ret);

/* Replaces an entry of the same group and key. `fn` is called on `loop` once, with 0 or -errno. */
typedef void (*ledger_done_fn)(void *arg, int error);
void ledger_put(struct ledger *l, struct loop *loop, const struct ledger_entry *entry, ledger_done_fn fn,
		void *arg);
/* Gone from look-ups at once, from the file soon after. -EAGAIN, -ENOMEM: nothing was removed; too many
 * wait for the file. */
int ledger_remove(struct ledger *l, struct span group, struct span key);
/* false: it is certain that no key of this group has an entry. */
bool ledger_may_have(struct ledger *l, struct span group);

/* Another process is about to use the file: from now on it is asked, until ledger_unshare allows memory again
 * and no other process has it open. An error: what the other process does would not be seen. */
int ledger_share(struct ledger *l, struct err *e);
void ledger_unshare(struct ledger *l);

struct ledger_status {
	uint64_t entries;
	bool failing, shared;
	char last_error[ERR_TEXT_MAX];
};
void ledger_status(struct ledger *l, struct ledger_status *ret);

#endif
