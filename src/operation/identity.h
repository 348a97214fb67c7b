/*
 * Identity: which user and which organization a request speaks for.
 *
 * Why:       flags hash the identity, so finding it must be a pure function of the request and the
 *            configuration, and must leave no choice to someone who adds a field (design,
 *            "identity").
 * Ownership: an identity holds its values itself (its spans point into it: never copy the struct); the input
 *            is borrowed for the call.
 * Threads:   any.
 *
 * The sources of a part are tried in order; the first one with a value wins.
 *   header:Name      only when the peer is a trusted proxy; else the field is ignored
 *   cookie:name      likewise; without the double quotes that may surround it (RFC 6265 §4.1.1)
 *   query:name       decoded                    path:name    decoded segment of the operation's template
 *   body:/pointer    RFC 6901 into a JSON body: strings, and numbers as their text as sent; other types are
 *   not values
 * Empty values (blanks only, for fields) are no values. A field or query parameter that is repeated with
 * different values is ambiguous, and a value longer than IDENTITY_MAX bytes or that is not plain text
 * (base/text.h: not UTF-8, control characters) is unusable: then the part is absent, and no later source is
 * asked, since otherwise the caller would choose. A body that is not JSON has no values.
 */
#ifndef OPERATION_IDENTITY_H
#define OPERATION_IDENTITY_H

#include <stdbool.h>
#include <stddef.h>

#include "base/http_message.h"
#include "base/span.h"
#include "flags/flags.h"
#include "operation/route.h"
#include "operation/operation.h"

#define IDENTITY_MAX 256 /* bytes of a user or organization id */

struct identity_input {
	const struct http_request *request; /* fields and target */
	const struct route_match *match;    /* NULL or without an operation: no path sources */
	bool peer_trusted;		    /* config_trusts_peer */
	bool body_read;			    /* `body` is all of it; false: not known (yet) */
	struct span body;		    /* SPAN_NONE or empty: the request has none */
};

struct identity {
	struct span user, organization; /* SPAN_NONE: absent */
	struct span entity;		/* the flags' entity id; SPAN_NONE: no identity */
	bool has_entity;
	enum identity_part entity_part; /* where has_entity */
	/* a body source would be asked, and the body was not read: read it, then ask again */
	bool wants_body;
	bool body_checked;	    /* the body was looked into, so body_malformed is known */
	bool body_malformed;	    /* it is not JSON */
	bool ambiguous;		    /* some part was given twice with different values */
	bool unusable;		    /* some part was too long or not plain text */
	char text[2][IDENTITY_MAX]; /* not for use: what the spans point into */
};

/* Never fails. To be called at the head, and again with the body when it set wants_body; both times from
 * scratch. */
void identity_find(const struct identity_sources *sources, const struct identity_input *in,
		   struct identity *ret);
/* What an operation adds to the flags' context from the request, by the same sources and rules. */
struct identity_context {
	struct flag_context entries[OPERATION_MAX_CONTEXT]; /* those present */
	size_t n;
	bool wants_body;
	/* not for use: what the spans point into; the struct must not move */
	char text[OPERATION_MAX_CONTEXT][IDENTITY_MAX];
};
void identity_find_context(const struct operation *op, const struct identity_input *in,
			   struct identity_context *ret);
/* The part that flags hash: the first of `entity` that is present. false: none is. */
bool identity_entity(const struct identity_sources *sources, struct span user, struct span organization,
		     struct span *ret, enum identity_part *ret_part);

#endif
