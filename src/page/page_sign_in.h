/*
 * Sign-in: the page that asks a browser for a token. Shown to everybody, so nothing in it is this router's
 * own. And what it shares with the answers to forms, which are not loaded again by themselves: a bare
 * document.
 *
 * Threads:   any.
 */
#ifndef PAGE_PAGE_SIGN_IN_H
#define PAGE_PAGE_SIGN_IN_H

#include "base/buf.h"
#include "base/span.h"

/* `next`: where to go then, a path of ours; `trouble`: what was wrong, "" = nothing yet. */
void page_sign_in(struct span next, const char *trouble, struct buf *out);
/* A document without a script, navigation or filters. */
void page_bare_begin(struct buf *out, const char *title);
void page_bare_end(struct buf *out);
/* Makes the browser ask for the same target once more, as from a page of ours. */
void page_ask_again(struct span target, struct buf *out);

#endif
