/*
 * What other threads have for a loop: mails, handed over in order, on the loop's thread.
 *
 * Why:       loop_post cannot take back what is queued already; the owner of a mailbox can go at any time.
 * Threads:   mailbox_put from any, as long as the mailbox is there (the senders' lock says so); the rest on
 *            the loop's own.
 * Ownership: a mail belongs to the mailbox from mailbox_put until fn is called with it; then to fn.
 */
#ifndef BASE_MAILBOX_H
#define BASE_MAILBOX_H

#include "base/loop.h"

struct mailbox;
struct mail {
	struct mail *next; /* the mailbox's */
};

int mailbox_new(struct loop *loop, void (*fn)(void *arg, struct mail *m), void *arg, struct mailbox **ret);
void mailbox_put(struct mailbox *b, struct mail *m);
/* At any time, also from fn; no fn follows. The mails that are still there, for their owner to free. */
struct mail *mailbox_free(struct mailbox *b);

#endif
