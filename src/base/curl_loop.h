/*
 * libcurl's multi interface in our loop: the sockets that it wants watched, and its timer.
 *
 * Why:       the HTTP client and the connections to legacy services both need it, and nothing else of each
 *            other.
 * Ownership: the multi handle belongs to the curl_loop; easy handles in it are removed before it is freed.
 * Threads:   the loop's.
 * Source:    curl_multi_socket_action(3).
 */
#ifndef BASE_CURL_LOOP_H
#define BASE_CURL_LOOP_H

#include "base/loop.h"

struct curl_loop;

/* `turned` is called after each time that libcurl has had a socket or its timer: look for what has ended. It
 * may not free the curl_loop. -ENOMEM. */
int curl_loop_new(struct loop *loop, void (*turned)(void *arg), void *arg, struct curl_loop **ret);
/* Closes what libcurl keeps open. NULL is fine; returns NULL. */
struct curl_loop *curl_loop_free(struct curl_loop *c);
void *curl_loop_multi(const struct curl_loop *c); /* CURLM *; no header of ours includes libcurl's */

#endif
