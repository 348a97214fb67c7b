/*
 * A legacy service made of a script: raw bytes over a socket, in threads, on a free port.
 *
 * Why:       what matters is what an upstream does to a connection (closes it after half a head, answers
 * early, speaks unasked), which no server library can be told to do. Threads:   one per connection; the
 * script runs there. Counters may be read from any thread.
 */
#ifndef TESTS_RAW_ORIGIN_H
#define TESTS_RAW_ORIGIN_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

struct raw_origin;

/* One connection, the index-th since the start. The socket is closed after it returns. */
typedef void (*raw_script)(struct raw_origin *o, int fd, int index);

struct raw_origin {
	int listener, port;
	raw_script script;
	void *arg; /* the test's */
	atomic_int connections, requests, open;
	_Atomic(struct raw_connection *) list;
	void *thread;
};

struct raw_origin *raw_origin_start(raw_script script, void *arg);
void raw_origin_stop(struct raw_origin *o); /* cuts what runs, waits for all threads */

/* Reads up to the end of a head (NUL-terminated, without what follows it); false when the peer closed before.
 * Counted in `requests`. Byte by byte, so that nothing of the body is taken. */
bool raw_read_head(struct raw_origin *o, int fd, char *out, size_t size);
bool raw_read(int fd, char *out, size_t n);
bool raw_send(int fd, const char *bytes, size_t n);
bool raw_puts(int fd, const char *text);
/* Waits until the peer has closed. */
void raw_wait_closed(int fd);
/* The next close of fd sends a reset. */
void raw_reset_on_close(int fd);

#endif
