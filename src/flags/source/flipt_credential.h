/*
 * Credentials for a Flipt server: a client token, a JWT, or a Kubernetes service account's token that is
 * exchanged for one.
 *
 * Why:       tokens are rotated while the router runs: a file is reread whenever it has changed, and
 *            after a 401.
 * Ownership: strings are copied.
 * Threads:   one.
 */
#ifndef FLAGS_SOURCE_FLIPT_CREDENTIAL_H
#define FLAGS_SOURCE_FLIPT_CREDENTIAL_H

#include <stdbool.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/span.h"

#define FLIPT_TOKEN_MAX 16384
#define FLIPT_LOGIN_PATH "/auth/v1/method/kubernetes/serviceaccount"
#define FLIPT_SERVICE_ACCOUNT "/var/run/secrets/kubernetes.io/serviceaccount/token"

enum flipt_auth { FLIPT_BEARER, FLIPT_JWT, FLIPT_KUBERNETES };

struct flipt_credential {
	enum flipt_auth auth;
	char *token;	    /* or NULL */
	char *file;	    /* where it is read from, or NULL */
	struct stat seen;   /* the file, when it was read */
	char *client_token; /* kubernetes: what the token was exchanged for, or NULL */
};

/* `token` counts where there is no file, or it cannot be read. -ENOMEM. */
int flipt_credential_init(struct flipt_credential *c, enum flipt_auth auth, const char *token,
			  const char *file);
void flipt_credential_release(struct flipt_credential *c);

/* Reads the file again when it has changed, or `anyway`. Whether the token is a different one now. */
bool flipt_credential_refresh(struct flipt_credential *c, bool anyway);
/* Whether the token must be exchanged before any other request. */
bool flipt_credential_wants_login(const struct flipt_credential *c);
int flipt_credential_login_body(const struct flipt_credential *c, struct buf *out);
/* From the answer's body; false if it contains no token. */
bool flipt_credential_logged_in(struct flipt_credential *c, struct span answer);
/* The server no longer accepts it. */
void flipt_credential_log_out(struct flipt_credential *c);
/* Appends the value of Authorization; nothing when there is none. buf's errors. */
int flipt_credential_header(const struct flipt_credential *c, struct buf *out);

/* What is wrong with a token; NULL: nothing. */
const char *flipt_token_mistake(struct span token);

#endif
