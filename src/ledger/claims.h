/*
 * Claims: which attempt has the execution of a caller's idempotency key, on which side, and what came of it.
 *
 * Why:       the same key of the same caller is executed once, and is answered alike, over restarts, flag
 *            flips and two processes on one file (design, "Idempotency keys"). Answers may be large, so that
 *            nothing of this is held in memory: the file is asked each time, and decides who was first.
 * Threads:   any may call; one thread of its own has its own connection to ledger.db. Callbacks come on the
 *            caller's loop, once. Calls of one thread take effect in their order.
 * Ownership: everything is copied; what a callback is told borrows until it returns.
 * Durability: synchronous=FULL: what was told is on disk. What nobody waits for (claims_note, claims_answer,
 *            claims_release) is tried again while the file cannot be written, up to CLAIMS_UNWRITTEN of them.
 * Limits:    CLAIMS_MAX claims, of which a quarter for strangers; each scope what its calls say; CLAIMS_BYTES
 *            of answers, half of them for one scope. CLAIMS_QUEUE calls waiting.
 * Sharing:   processes meet in the file only. A file that was replaced under the router gets what the old one
 *            had.
 * Older programs go on with the file: the tables are beside theirs, not a version of it.
 */
#ifndef LEDGER_CLAIMS_H
#define LEDGER_CLAIMS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/crypto.h"
#include "base/err.h"
#include "base/loop.h"
#include "base/span.h"
#include "ledger/ledger.h"

#define CLAIMS_MAX 1000000
#define CLAIMS_BYTES (1LL << 30)
#define CLAIMS_QUEUE 65536
#define CLAIMS_UNWRITTEN 4096

struct claims;

enum claim_side { CLAIM_TASK, CLAIM_LEGACY };
enum claim_phase {
	CLAIM_BEGUN,	/* nothing is known of its submission */
	CLAIM_ACCEPTED, /* its backend has accepted it; task_id is the backend's */
	CLAIM_ENDED,	/* there is an answer, or was one that was not kept */
};

struct claim {
	char key[CRYPTO_SHA256_HEX];	     /* digest of the key in its scope */
	char scope[CRYPTO_SHA256_HEX];	     /* digest of whom it is charged to */
	char fingerprint[CRYPTO_SHA256_HEX]; /* of the request; "": not looked at */
	char token[CRYPTO_ID_HEX];	     /* of the attempt that owns it: random */
	enum claim_side side;
	enum claim_phase phase;
	char backend[16];
	char task_id[64];
	int64_t created_us; /* wall clock; filled in when it is taken */
	int64_t keep_us;
	bool stranger; /* its credentials are none that the task side would accept */
	int status;    /* of the answer that was kept, else 0 */
};

enum claim_answer {
	CLAIM_MINE,    /* it was not there, and now belongs to the one who asks */
	CLAIM_THERE,   /* *claim is what is there, with the answer if there is one */
	CLAIM_NONE,    /* it is not there (claims_look) */
	CLAIM_LOST,    /* it is not the token's any more, or has ended (claims_move) */
	CLAIM_CROWDED, /* its scope has as many as it may */
	CLAIM_FULL,    /* there is no room for more */
	CLAIM_UNKNOWN, /* the file cannot tell: not the same as none */
};

struct claim_told {
	enum claim_answer answer;
	struct claim claim;
	struct span fields, body; /* as they were given to claims_answer */
};
typedef void (*claim_fn)(void *arg, const struct claim_told *told);

/* A file that cannot be read or written now is no error: it is tried again whenever somebody asks. */
int claims_start(const struct ledger_options *o, struct claims **ret, struct err *e);
struct claims *claims_stop(struct claims *c); /* after what is queued was written. NULL is fine */

/* Takes a claim that nobody has. `max_of_scope`: how many its scope may have. */
void claims_take(struct claims *c, struct loop *loop, const struct claim *want, unsigned max_of_scope,
		 claim_fn fn, void *arg);
/* The same without taking it. */
void claims_look(struct claims *c, struct loop *loop, const struct claim *want, claim_fn fn, void *arg);
/* What the token `owner` owns and has not ended becomes `to`, whose token owns it from then on: CLAIM_MINE.
 * To fall back (side), or to submit again what another attempt had begun. */
void claims_move(struct claims *c, struct loop *loop, const char owner[CRYPTO_ID_HEX], const struct claim *to,
		 claim_fn fn, void *arg);

/* Accepted, under to->task_id; owned by to->token. */
void claims_note(struct claims *c, const struct claim *to);
/* The end of that task: key and task_id say which. `keeps` false: it has ended, and its answer is not kept.
 * */
void claims_answer(struct claims *c, const struct claim *of, bool keeps, int status, struct span fields,
		   struct span body);
/* Provably nothing was executed: another attempt may. Owned by to->token. */
void claims_release(struct claims *c, const struct claim *of);

struct claims_status {
	uint64_t claims, bytes; /* as of the last change by this process */
	uint64_t taken, repeated, refused, unknown, unkept, lost;
	bool failing;
	char last_error[ERR_TEXT_MAX];
};
void claims_status(struct claims *c, struct claims_status *ret);

#endif
