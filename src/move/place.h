/*
 * The place where percentages lie: the features file, or Flipt (v2, v1), whichever the router's configuration
 * names.
 *
 * Why:       what is read, what is edited and what routers will evaluate are the same texts for all three.
 * Ownership: the place owns its texts; they are good until the next read.
 * Threads:   one; calls block.
 * Errors:    -errno with a sentence; -ENOENT when Flipt does not know what was asked for, but -EIO where the
 *            place itself (a file, an environment, a namespace) is gone.
 */
#ifndef MOVE_PLACE_H
#define MOVE_PLACE_H

#include "base/buf.h"
#include "base/loop.h"
#include "config/config.h"
#include "flags/flags.h"
#include "flags/source/features_folder.h"
#include "flags/source/flipt_credential.h"
#include "flags/source/flipt_server.h"
#include "move/move.h"
#include "rollout/rollout.h"

#define PLACE_DIGEST_MAX 80

struct http_client;

struct place_options {
	struct move_voice voice; /* zeroed: nobody listens */
	unsigned timeout_ms;	 /* of a call to Flipt; 0: a minute, for a late answer is better than none */
};

struct rollout_place {
	const struct config *config;
	struct loop *loop;
	struct http_client *http;
	struct loop_timer *slow; /* says that a call takes long */
	struct loop_timer *tick; /* asks the voice whether to give up */
	struct move_voice voice;
	unsigned timeout_ms;
	bool gave_up;
	bool flipt;
	int version;		    /* of Flipt; 0: not known yet */
	struct flipt_server server; /* what it says of itself, once it was asked */
	bool server_asked;
	struct flipt_credential credential;
	bool insist; /* an emergency: what is wrong elsewhere is said, and stops nothing */
	/* for people and the history: the file, or URL, environment and namespace without credentials */
	char name[512];
	/* what is edited: the features file, the payload of a v2 flag, a v1 flag put together */
	struct buf document;
	struct buf revision;		/* v2: JSON text of the revision that `document` is of */
	struct buf segments;		/* v2: the namespace's, as Flipt lists them; read with `document` */
	struct buf flags;		/* what is evaluated: the features file or the snapshot */
	struct features_text files;	/* of a folder; `flags` is its `whole` then */
	size_t file;			/* which of them `document` is */
	char digest[PLACE_DIGEST_MAX];	/* of `flags`, as their source tells it */
	char content[PLACE_DIGEST_MAX]; /* of what they say; as a router that has them reports it */
};

/* `o` NULL: nobody listens. */
int place_open(const struct config *c, const struct place_options *o, struct rollout_place **ret,
	       struct err *e);
struct rollout_place *place_close(struct rollout_place *p); /* NULL is allowed; returns NULL */

/* Reads `flags`. */
int place_read(struct rollout_place *p, struct err *e);
/* After place_read: the flag as `flags` has it (of a folder: as the one file that has it). */
int place_open_flag(const struct rollout_place *p, const char *flag, const struct rollout_sides *sides,
		    struct rollout_document **ret, struct err *e);
/* After place_read: the flag's `document`. */
int place_read_document(struct rollout_place *p, const char *flag, struct err *e);
/* Whose rules count: the server's own where it tells its version. */
enum flag_rules place_rules(const struct rollout_place *p);
/* As a router would: a snapshot from a text like `flags`. */
int place_parse(const struct rollout_place *p, struct span text, struct flag_snapshot **ret, struct err *e);
/* What the name of a document is in messages. */
const char *place_document_name(const struct rollout_place *p);

enum place_written {
	PLACE_WRITTEN,
	PLACE_CHANGED_MEANWHILE, /* by someone else; nothing was written: read again */
	PLACE_NOT_WRITTEN,	 /* the sentence says why */
	/* v1: the first `done` of the changes are written, the sentence says why no more */
	PLACE_PARTLY_WRITTEN,
	PLACE_UNKNOWN, /* sent, no answer: read to find out */
};

/* Writes `text`, which is `document` with the plan's changes made. */
enum place_written place_write(struct rollout_place *p, const char *flag, const struct rollout_plan *plan,
			       struct span text, size_t *ret_done, struct err *e);

/* To the voice. */
void place_say(const struct rollout_place *p, enum move_tone tone, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* Whether the voice says to give up. */
bool place_stopped(const struct rollout_place *p);
/* Waits, unless the voice says to give up: then false. */
bool place_pause(const struct rollout_place *p, unsigned ms);

DEFINE_CLEANUP(struct rollout_place *, place_close)

#endif
