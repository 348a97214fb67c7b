#include "base/redis_tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>

#include <hiredis/hiredis.h>
#include <hiredis/hiredis_ssl.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

static int tls_mistake(struct err *e, const char *what, const char *file)
{
	unsigned long code = ERR_peek_last_error();
	const char *reason = code ? ERR_reason_error_string(code) : NULL;
	ERR_clear_error();
	return err_set(e, -EINVAL, "TLS: %s%s%s cannot be used: %s", what, file ? " " : "", file ? file : "",
		       reason ? reason : "no reason is given");
}

static int tls_files(SSL_CTX *ctx, const struct redis_tls_files *f, struct err *e)
{
	if (f->ca && SSL_CTX_load_verify_locations(ctx, f->ca, NULL) != 1)
		return tls_mistake(e, "the authorities' file", f->ca);
	if (!f->ca && SSL_CTX_set_default_verify_paths(ctx) != 1)
		return tls_mistake(e, "the system's list of authorities", NULL);
	if (f->cert && SSL_CTX_use_certificate_chain_file(ctx, f->cert) != 1)
		return tls_mistake(e, "the certificate", f->cert);
	if (f->key && SSL_CTX_use_PrivateKey_file(ctx, f->key, SSL_FILETYPE_PEM) != 1)
		return tls_mistake(e, "the key", f->key);
	if (f->key && SSL_CTX_check_private_key(ctx) != 1)
		return tls_mistake(e, "the key", f->key);
	return 0;
}

/* hiredis writes from a buffer that may have moved, and asks how much of it has left. */
static int tls_context(const struct redis_url *u, SSL_CTX **ret, struct err *e)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
	if (!ctx)
		return tls_mistake(e, "OpenSSL", NULL);
	SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
	SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	SSL_CTX_set_verify(ctx, u->unverified ? SSL_VERIFY_NONE : SSL_VERIFY_PEER, NULL);
	int r = tls_files(ctx, &u->files, e);
	if (r < 0)
		SSL_CTX_free(ctx);
	else
		*ret = ctx;
	return r;
}

int redis_tls_check(const struct redis_url *u, struct err *e)
{
	SSL_CTX *ctx = NULL;
	int r = tls_context(u, &ctx, e);
	SSL_CTX_free(ctx);
	return r;
}

static bool tls_is_address(const char *host)
{
	unsigned char address[16];
	return inet_pton(AF_INET, host, address) == 1 || inet_pton(AF_INET6, host, address) == 1;
}

/* An address is no server name (RFC 6066, 3), but a certificate may have it. */
static bool tls_name(SSL *ssl, const struct redis_url *u, const char *host)
{
	bool verified = !u->unverified && !u->any_name;
	if (tls_is_address(host))
		return !verified || X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host) == 1;
	return SSL_set_tlsext_host_name(ssl, host) == 1 && (!verified || SSL_set1_host(ssl, host) == 1);
}

int redis_tls_begin(struct redisContext *c, const struct redis_url *u, const char *host, struct ssl_st **ret,
		    struct err *e)
{
	SSL_CTX *ctx = NULL;
	int r = tls_context(u, &ctx, e);
	if (r < 0)
		return r;
	SSL *ssl = SSL_new(ctx); /* it keeps the context */
	SSL_CTX_free(ctx);
	if (!ssl || !tls_name(ssl, u, host)) {
		SSL_free(ssl);
		return tls_mistake(e, "the server's name", host);
	}
	if (redisInitiateSSL(c, ssl) != REDIS_OK) {
		/* The server may have been quick enough to be refused already. */
		err_set(e, -EIO, "%s", c->err ? c->errstr : "the TLS handshake cannot begin");
		redis_tls_reason(ssl, e->text, sizeof(e->text));
		SSL_free(ssl);
		return -EIO;
	}
	*ret = ssl;
	return 0;
}

void redis_tls_turn(void)
{
	ERR_clear_error();
}

bool redis_tls_reason(const struct ssl_st *session, char *room, size_t size)
{
	long verified = SSL_get_verify_result(session);
	unsigned long code = ERR_peek_last_error();
	const char *reason = code ? ERR_reason_error_string(code) : NULL;
	bool doubted = verified != X509_V_OK && SSL_get_verify_mode(session) != SSL_VERIFY_NONE;
	if (doubted)
		reason = X509_verify_cert_error_string(verified);
	if (reason)
		snprintf(room, size, "TLS: %s%s", doubted ? "the server's certificate is not good: " : "",
			 reason);
	return reason != NULL;
}
