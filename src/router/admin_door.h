/*
 * The admin listener's door: who comes in, by token or by session, and what for (docs/design.md, "Moving").
 *
 * Why:       one place says who may read and who may change something; what is behind it does not look at
 *            credentials.
 * Ownership: holds its own reference to the configuration.
 * Host:      asks for a Host that is a loopback name, the listener's own address or one of admin.hosts, so
 *            that no page of another site can reach it through a name of its own that resolves here (DNS
 *            rebinding).
 * Guesses:   wrong tokens are counted by the caller's address, behind a proxy that ends TLS (admin.https) by
 *            the one that it names.
 * Threads:   the loop's.
 */
#ifndef ROUTER_ADMIN_DOOR_H
#define ROUTER_ADMIN_DOOR_H

#include <stdbool.h>

#include "base/http_message.h"
#include "config/config.h"
#include "operation/auth.h"
#include "router/http/guesses.h"
#include "router/http/sessions.h"

#define DOOR_TOKEN_MAX 4096 /* bytes of a token */
#define DOOR_COOKIE_MAX 256 /* of a Set-Cookie */

struct door;

enum door_scope { DOOR_NOBODY, DOOR_READ, DOOR_WRITE };

struct door_caller {
	enum door_scope scope;
	char name[ADMIN_WRITER_NAME]; /* of a writer; "": it has none */
	bool session;		      /* a cookie let them in */
	char form[CRYPTO_ID_HEX];     /* of the session: every form has to bring it back */
	bool too_many;		      /* nobody: too many wrong tokens came from there */
	enum auth_result why;	      /* nobody: what to say of it */
};

/* `address`: what the listener was started with; `guesses` outlives it. -ENOMEM. */
int door_new(const struct config *config, const char *address, struct guesses *guesses, struct door **ret);
struct door *door_free(struct door *d); /* NULL is allowed; returns NULL */
void door_set_config(struct door *d, const struct config *config);
void door_set_port(struct door *d, unsigned port); /* for the name of the cookie: cookies do not know ports */

bool door_host_fits(const struct door *d, const struct http_request *h);
/* Counts a wrong token. */
void door_look(struct door *d, const struct http_request *h, struct door_caller *ret);
/* Whether a page of another site made the browser send this; programs say nothing of the kind. */
bool door_from_another_site(const struct door *d, const struct http_request *h);
/* What a session must show beside its cookie: its form token, and an Origin that is this address. */
bool door_form_fits(const struct door *d, const struct http_request *h, const struct door_caller *c,
		    struct span form);
/* Whether releases need the scope `write`: always but on a loopback listener that asks nobody for anything.
 * */
bool door_guards_release(const struct door *d);
bool door_has_writers(const struct door *d);

/* A token from the sign-in page: what is told of whoever has it, with a cookie to set if it is right. */
void door_sign_in(struct door *d, const struct http_request *h, struct span token,
		  char cookie[DOOR_COOKIE_MAX], struct door_caller *ret);
/* Ends the session of the request, if it has one, and takes the cookie back. */
void door_sign_out(struct door *d, const struct http_request *h, char cookie[DOOR_COOKIE_MAX]);

#endif
