/*
 * The ledger in a file: ledger.db, one process's own.
 *
 * Threads:   one thread of the ledger's own owns ledger.db; lookups are answered from memory, under a lock
 *            held for a hash lookup, within the call.
 * Sharing:   while other processes use the file, too (during a takeover, and until the old router has
 *            drained), memory may be wrong: then a lookup reads the file, which is one row by its key, and
 *            what cannot be read, or is being removed by another process, is LEDGER_UNKNOWN. Once alone the
 *            file is reread, and memory answers again. See ledger_share.h.
 * Durability: an entry is on disk (synchronous=FULL) before its put is called back without error. A removal
 *            that cannot be written is tried again until it is. A file that was replaced gets what memory
 *            has.
 * Limits:    LEDGER_MAX_ENTRIES live entries (a put beyond is -ENOSPC), LEDGER_QUEUE changes waiting.
 */
#ifndef LEDGER_LEDGER_FILE_H
#define LEDGER_LEDGER_FILE_H

#include "ledger/ledger.h"

#define LEDGER_APPLICATION 0x4d52474c /* "MRGL" */

/* A mistake (a folder in its place, another version's file, no right to it) is an error here. A file that
 * cannot be read for the moment, or is damaged, is tried again until it can be: until then what is not
 * known is LEDGER_UNKNOWN. */
int ledger_file_start(const char *path, struct ledger **ret, struct err *e);

/* ledger_ask, answered by returning. */
enum ledger_answer ledger_lookup(struct ledger *l, struct span group, struct span key,
				 struct ledger_entry *ret);
/* false: it is certain that no key of this group has an entry. */
bool ledger_may_have(struct ledger *l, struct span group);

#endif
