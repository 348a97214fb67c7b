/*
 * Row filter: whether something may occur in a range of rows (a Bloom filter). Pure.
 *
 * Says no only when it does not occur; yes by mistake for about one of 100 asked. Stored as it is, so hash
 * and layout never change.
 */
#ifndef OUTCOMES_SEARCH_ROW_FILTER_H
#define OUTCOMES_SEARCH_ROW_FILTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/span.h"

#define ROW_FILTER_BITS 10 /* per key */
#define ROW_FILTER_PROBES 7

/* What a key is about, so that a user called as an organization is another key. */
enum row_filter_kind {
	ROW_REQUEST,
	ROW_USER,
	ROW_ORGANIZATION,
	ROW_TASK,
	ROW_SERIES,
	ROW_ERROR,
	ROW_FAILED /* an organization of which something failed */
};

uint64_t row_filter_key(enum row_filter_kind kind, struct span text); /* never 0 */
/* Bytes of a filter for so many keys. */
size_t row_filter_size(size_t keys);
void row_filter_add(unsigned char *bits, size_t size, uint64_t key);
/* true also when there is no filter. */
bool row_filter_has(struct span filter, uint64_t key);

#endif
