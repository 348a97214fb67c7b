/*
 * A session: one worker as the engine knows it, from what it declares to its last goodbye.
 *
 * Life:      declares its workflows → registers, which gives it an id → listens → is given tasks. When
 *            the stream ends it listens again with the same id, so that what it holds stays its own;
 *            when the engine does not know the id any more, it registers anew. It says every 4 s that it
 *            is there.
 * End:       paused (nothing more is assigned, some seconds later) → holds nothing → unsubscribed → the
 *            stream is closed. While it holds something it goes on saying that it is there: 30 s of
 *            silence, and the engine gives that to another.
 * One each:  a worker's actions cannot be changed. A reload makes another session; the old one ends as
 *            above.
 * Threads:   the loop's own.
 */
#ifndef TASKS_HATCHET_WORKER_SESSION_H
#define TASKS_HATCHET_WORKER_SESSION_H

#include "base/grpc.h"
#include "base/http_client.h"
#include "base/loop.h"
#include "tasks/hatchet/hatchet_internal.h"
#include "tasks/hatchet/worker/catalog.h"
#include "tasks/hatchet/worker/wire.h"

#define HATCHET_HEARTBEAT_MS 4000

struct hatchet_session;

struct hatchet_session_options {
	struct loop *loop;
	const struct hatchet_settings *settings;
	struct grpc_channel *engine;
	struct http_client *rest;	 /* for the engine's REST interface */
	struct hatchet_catalog *catalog; /* a reference is taken */
	const char *name;
	unsigned slots;
	/* Whether it listens; a sentence when not (else ""). Also told when nothing has changed. */
	void (*state)(void *arg, struct hatchet_session *s, bool listens, const char *why);
	/* Takes what the action holds. */
	void (*action)(void *arg, struct hatchet_session *s, struct hatchet_action *a);
	/* how many tasks of this worker id are held */
	size_t (*held)(void *arg, const char *worker_id);
	/* it has ended, and may be freed now */
	void (*closed)(void *arg, struct hatchet_session *s);
	void *arg;
};

int hatchet_session_new(const struct hatchet_session_options *o, struct hatchet_session **ret, struct err *e);
/* NULL is allowed; returns NULL. The engine notices by itself. */
struct hatchet_session *hatchet_session_free(struct hatchet_session *s);
struct hatchet_catalog *hatchet_session_catalog(const struct hatchet_session *s);
const char *hatchet_session_worker_id(const struct hatchet_session *s); /* "": it has none yet */
/* Nothing more is to be given to it; `closed` follows. */
void hatchet_session_end(struct hatchet_session *s);
/* What it holds may have become less. */
void hatchet_session_look(struct hatchet_session *s);

#endif
