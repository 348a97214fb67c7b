/*
 * Auth ask: whether an endpoint of the operator's accepts a request's credentials (auth: {check: URL}), as
 * nginx's auth_request asks it.
 *
 * Why:       the legacy services authenticate their callers themselves; the task side must not let anyone in
 *            whom they would not. The answer is theirs: GET with the credentials, X-Original-Method and
 *            X-Original-URI, no body. 2xx lets in; 401 and 403 are passed on; anything else, or none, is 503.
 * Cache:     per plane, by a keyed digest (HMAC, the key random and of this process) of the endpoint,
 *            operation, credentials, method and target: nothing of a credential is kept. Answers that let in
 *            and those that do not have room apart, so that made-up credentials push no real ones out.
 * Sharing:   those who ask the same at the same time share one sub-request.
 * Limits:    AUTH_ASK_CACHED answers of each kind, AUTH_ASK_FLIGHT sub-requests under way, of which one peer
 *            gets half: 503 beyond.
 * Threads:   the plane's own.
 */
#ifndef ROUTER_REQUEST_AUTH_ASK_H
#define ROUTER_REQUEST_AUTH_ASK_H

#include "router/request/request.h"

#define AUTH_ASK_CACHED 4096
#define AUTH_ASK_FLIGHT 256

void auth_ask_release(struct plane *p); /* at its end */

/* What is known of r's credentials for `op`, without asking. */
enum auth_word auth_ask_known(struct request *r, const struct operation *op);
/* The same; where it is not known it is asked, and nobody waits. */
enum auth_word auth_ask_soon(struct request *r, const struct operation *op);
/* Asks, unless it is known; true: `step` is run once r->auth_word says it. */
bool auth_ask_waits(struct request *r, const struct operation *op, void (*step)(struct request *r));
/* Answers as r->auth_word says; false, and no answer, when they are accepted. */
bool auth_ask_refuse(struct request *r);

#endif
