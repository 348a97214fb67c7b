/*
 * Flipt's API as a place of percentages. Private to rollout_place.c and rollout_flipt*.c. Protocol:
 * docs/protocols/flipt.md.
 */
#ifndef MOVE_FLIPT_H
#define MOVE_FLIPT_H

#include "move/place.h"

struct flipt_answer {
	struct buf body;
	char etag[PLACE_DIGEST_MAX];
	int status;	 /* 0: none came */
	bool maybe_sent; /* no answer, but the request may have arrived */
	bool json;
	char content_type[64], location[512];
};

/* One call, waited for; `path` below the server's URL, `body` SPAN_NONE: none. <0 when no answer came (or
 * not a whole one). */
int flipt_ask(struct rollout_place *p, const char *method, const char *path, struct span body,
	      struct flipt_answer *answer, struct err *e);
/* 0 when the status is 200, else a sentence with Flipt's own message. */
int flipt_expect(const char *what, const struct flipt_answer *answer, struct err *e);
/* Both; only for what may be asked again. */
int flipt_get(struct rollout_place *p, const char *path, struct flipt_answer *answer, struct err *e);

/* Finds out the version when it is not known, and reads the snapshot. */
int flipt_read_snapshot(struct rollout_place *p, struct err *e);

int flipt_read_v2(struct rollout_place *p, const char *flag, struct err *e);
enum place_written flipt_write_v2(struct rollout_place *p, const char *flag, struct span text, struct err *e);

int flipt_read_v1(struct rollout_place *p, const char *flag, struct err *e);
enum place_written flipt_write_v1(struct rollout_place *p, const char *flag, const struct rollout_plan *plan,
				  size_t *ret_done, struct err *e);

/* A snapshot of this flag's key that knows which of the namespace's segments are about everybody, and nothing
 * else: for rollout_know_segments where no real one can be had. */
int flipt_know_segments(struct rollout_place *p, const char *flag, struct flag_snapshot **ret, struct err *e);

/* Asks the server itself what the flag says to an entity with this user_id: the variant's key ("" when none
 * matched), or "true" or "false". */
int flipt_evaluate(struct rollout_place *p, const struct flag *f, const char *entity, struct buf *ret,
		   struct err *e);

static inline void flipt_answer_release(struct flipt_answer *a)
{
	buf_release(&a->body);
}
#define FLIPT_ANSWER_INIT ((struct flipt_answer){.body = BUF_INIT(FLAG_MAX_DOCUMENT)})

#endif
