/*
 * Shadow request: what a response template may ask of the request, kept after the request has ended.
 *
 * Why:       the answer that the task side would have given is compared with legacy's; a template that
 *            repeats something of the request would otherwise differ every time.
 * Ownership: copies, but for the names of path parameters, which are the configuration's.
 * Threads:   everything on the plane's loop.
 */
#ifndef ROUTER_SHADOW_SHADOW_REQUEST_H
#define ROUTER_SHADOW_SHADOW_REQUEST_H

#include "operation/route.h"
#include "operation/template.h"
#include "router/request/request.h"

struct shadow_request {
	struct buf text; /* in which all spans but `body` lie */
	struct http_field *fields;
	size_t n_fields;
	struct span target, user, organization, request_id;
	struct route_match match;
	char uuid[CRYPTO_UUID];
};

/* The request is there still. -ENOMEM; then it is as zeroed. */
int shadow_request_keep(struct shadow_request *s, struct request *r);
void shadow_request_release(struct shadow_request *s); /* zeroed is allowed */
/* Without body, result and task; zeroed gives nothing. Borrows from s. */
void shadow_request_source(struct shadow_request *s, struct template_source *ret);

#endif
