/*
 * Forwarded: for whom a trusted proxy says that it speaks (X-Forwarded-For, from its end).
 *
 * Why:       whatever is counted by address must not take everybody behind a proxy for one.
 * Threads:   any; pure.
 */
#ifndef ROUTER_HTTP_FORWARDED_H
#define ROUTER_HTTP_FORWARDED_H

#include <stdbool.h>
#include <sys/socket.h>

#include "base/http_message.h"
#include "config/config.h"

/* The peer, or behind trusted_proxies the nearest address that is none of them. False: there is no peer, and
 * *ret is zeroed. */
bool forwarded_client(const struct config *c, const struct http_request *h, struct sockaddr_storage *ret);

#endif
