/*
 * Served: a listener in a thread with a loop, and a handler that does what the target says; for tests of the
 * listener.
 *
 * The handler of the tests does what the target's path says:
 *   /now      answers in head, without looking at the body
 *   /sink     takes the body, answers with the number of its bytes
 *   /later    the same, one round later (so the library has suspended it)
 *   /pause    takes the body only while the gate is open
 *   /early    answers 413 after the first piece of the body
 *   /wait     reads the body and never answers
 *   /hold     neither reads nor answers
 *   /refuse   answers 401 without reading the body, one round later
 *   /stream   a streamed answer of ?n bytes, known length
 *   /chunks   the same of unknown length
 *   /gated    of unknown length, one piece of 5 bytes each time the gate opens
 *   /cut      of known length, cut in its middle; /cutchunks of unknown length
 *   /short    says one byte more than it has
 *   /s204 /s304 /head204 …   see bodyless()
 *   /abort    aborts one round later
 *   /bighead  an answer with a field of ?n bytes
 * Threads: counters are changed on the listener's thread; tests read them by served_get and wait by
 * served_wait.
 */
#ifndef TESTS_SERVED_H
#define TESTS_SERVED_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/loop.h"
#include "router/http/listener.h"

struct call;

struct served {
	struct loop *loop;
	struct listener *listener;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	/* under lock */
	unsigned heads, bodies, ends, gones, finished, finished_gone, refused;
	unsigned refused_status;
	uint64_t body_bytes;
	bool gate;
	struct call *waiting; /* of /pause and /gated */
	struct call *held;    /* the last of /hold */
	unsigned dry;	      /* pulls that had nothing */
	uint64_t pulled;
	char seen[65536]; /* the last head as the handler saw it */
	struct loop_work posted;
	void (*todo)(struct served *s);
	bool todo_done;
};

extern const struct listener_options served_usual;

struct served *serve(const struct listener_options *o);
void served_stop(struct served *s); /* asserts that every exchange was finished */

unsigned served_get(struct served *s, const unsigned *counter);
uint64_t served_get64(struct served *s, const uint64_t *counter);
/* Waits for an event, not for a time; a limit ends a broken test. */
void served_wait(struct served *s, const unsigned *counter, unsigned at_least);
void served_expect_seen(struct served *s, const char *expected);
/* Runs something on the listener's thread and waits for it. */
void served_on_loop(struct served *s, void (*todo)(struct served *));

/* For served_on_loop. */
void served_open_gate(struct served *s);
void served_read_held(struct served *s);
void served_quiesce(struct served *s);

/* The handler itself, for listeners that a test starts on its own. */
struct listener_handler served_handler(struct served *s);

/* Clients. */
int ask(struct served *s, const char *request);
int ask_with_body(struct served *s, const char *path, size_t n); /* sends the head only */
void expect_answer(int fd, int status, const char *body);	 /* body NULL: any */
const char *body_of(const char *answer);
int status_of(const char *answer);
size_t answers_in(const char *bytes);

#endif
