/*
 * Pairing: the answers of one request and its shadows being brought together, on the plane's loop.
 *
 * Life:      made where a shadow begins and the operation compares; whoever brings an answer holds a
 *            reference. With the last one it goes to be compared (pairs/pairs.h hands it
 *            to compare/compare.c, which judges the two answers), unless it was called off
 *            because there is no shadow after all.
 * Threads:   everything on the plane's loop.
 */
#ifndef ROUTER_SHADOW_PAIRING_H
#define ROUTER_SHADOW_PAIRING_H

#include "pairs/pairs.h"

struct pairing;
struct request;

/* With one reference; NULL where nothing is compared, or memory is out. */
struct pairing *pairing_new(const struct request *r);
struct pairing *pairing_ref(struct pairing *p);	  /* NULL is fine, likewise below */
struct pairing *pairing_unref(struct pairing *p); /* returns NULL */
void pairing_call_off(struct pairing *p);
void pairing_expect_noise(struct pairing *p);

/* As pairs_answer_*. */
void pairing_head(struct pairing *p, enum pairs_slot slot, int status, const struct http_field *fields,
		  size_t n);
void pairing_body(struct pairing *p, enum pairs_slot slot, struct span bytes);
void pairing_end(struct pairing *p, enum pairs_slot slot);
void pairing_miss(struct pairing *p, enum pairs_slot slot, enum pairs_why why);

#endif
