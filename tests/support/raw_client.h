/*
 * Raw client: blocking sockets for tests that must say exactly which bytes go out and when.
 *
 * Every receive ends by itself after RAW_PATIENCE_S, so that a broken server fails a test instead of hanging
 * it.
 */
#ifndef TESTS_RAW_CLIENT_H
#define TESTS_RAW_CLIENT_H

#include <stdbool.h>
#include <stddef.h>

#define RAW_PATIENCE_S 20

int raw_connect(unsigned port);			    /* to 127.0.0.1; -1 on failure */
bool raw_send(int fd, const char *bytes, size_t n); /* all of it; false when the peer is gone */
bool raw_say(int fd, const char *text);

enum raw_end { RAW_OPEN, RAW_EOF, RAW_RESET, RAW_TIMEOUT };

/* Reads until the peer closes or `size` - 1 bytes are there; NUL-terminates. */
size_t raw_read_all(int fd, char *out, size_t size, enum raw_end *ret_end);

/* Reads exactly one answer: head and, by its Content-Length or chunks, its body. 1xx answers are part of what
 * follows them. Returns the status, or -1. `bodyless`: an answer to HEAD. */
int raw_read_answer(int fd, bool bodyless, char *out, size_t size);

/* Waits until the peer has closed: RAW_EOF or RAW_RESET; RAW_OPEN when bytes come instead. */
enum raw_end raw_wait_end(int fd);

#endif
