/*
 * Claims file: the tables of claims.h in ledger.db, and what is done with them. Private to src/ledger.
 *
 * Threads:   one at a time. Everything but open and sweep within a transaction of the caller
 *            (claims_file_begin).
 * Errors:    those of base/db.h, with a sentence.
 */
#ifndef LEDGER_CLAIMS_FILE_H
#define LEDGER_CLAIMS_FILE_H

#include "base/buf.h"
#include "ledger/claims.h"

struct claims_file;

/* Opens `path`, or makes it. `old`: what was opened there before, and was replaced since; its claims are
 * copied when it can still be read, and it is closed. May be NULL. */
int claims_file_open(const char *path, struct claims_file *old, struct claims_file **ret, struct err *e);
struct claims_file *claims_file_close(struct claims_file *f); /* NULL is fine */
bool claims_file_moved(const struct claims_file *f);

int claims_file_begin(struct claims_file *f, struct err *e);
int claims_file_commit(struct claims_file *f, struct err *e);
void claims_file_rollback(struct claims_file *f);

/* What is there of want->key. Fields and body are appended to `fields` and `body`. */
int claims_file_look(struct claims_file *f, const struct claim *want, enum claim_answer *ret,
		     struct claim *there, struct buf *fields, struct buf *body, struct err *e);
int claims_file_take(struct claims_file *f, const struct claim *want, unsigned max_of_scope,
		     enum claim_answer *ret, struct err *e);
int claims_file_move(struct claims_file *f, const char *owner, const struct claim *to, bool *ret_moved,
		     struct err *e);
int claims_file_note(struct claims_file *f, const struct claim *to, struct err *e);
/* *ret_kept: whether the answer is there now. */
int claims_file_answer(struct claims_file *f, const struct claim *of, bool keeps, int status,
		       struct span fields, struct span body, bool *ret_kept, struct err *e);
int claims_file_release(struct claims_file *f, const struct claim *of, struct err *e);

int claims_file_newest(struct claims_file *f, int64_t *ret_us, struct err *e); /* 0: there are none */
int claims_file_totals(struct claims_file *f, int64_t *ret_claims, int64_t *ret_bytes, struct err *e);
/* Removes some of those whose time is over; 0 when none is left. A transaction of its own. */
int claims_file_sweep(struct claims_file *f, int64_t now_us, int64_t *ret_removed, struct err *e);

#endif
