#include "programs/router/app_webhook.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/backoff.h"
#include "base/crypto.h"
#include "base/http_client.h"
#include "base/log.h"

#define TIMEOUT_MS 10000
#define FIRST_PAUSE_MS 1000
#define LONGEST_PAUSE_MS 300000
#define ANSWER_MAX 65536

struct webhook_message {
	struct webhook *owner;
	char *body;
	size_t length;
	unsigned attempts;
	struct http_call *call;
	struct loop_timer *pause;
	struct webhook_message *next;
};

struct webhook {
	struct loop *loop;
	struct http_client *client;
	char *url, *ca_file, *secret;
	struct webhook_message *messages;
	unsigned waiting;
	struct webhook_counts counts;
};

int webhook_new(struct loop *loop, struct webhook **ret, struct err *e)
{
	struct webhook *w = calloc(1, sizeof(*w));
	if (!w)
		return err_set(e, -ENOMEM, "out of memory");
	w->loop = loop;
	int r = http_client_new(loop, &(struct http_client_options){.max_connections = 4}, &w->client, e);
	if (r < 0) {
		free(w);
		return r;
	}
	*ret = w;
	return 0;
}

static void message_free(struct webhook_message *m)
{
	for (struct webhook_message **at = &m->owner->messages; *at; at = &(*at)->next)
		if (*at == m) {
			*at = m->next;
			m->owner->waiting--;
			break;
		}
	http_cancel(m->call);
	loop_timer_free(m->pause);
	free(m->body);
	free(m);
}

struct webhook *webhook_free(struct webhook *w)
{
	if (!w)
		return NULL;
	while (w->messages)
		message_free(w->messages);
	http_client_free(w->client);
	webhook_set(w, NULL, NULL, NULL);
	free(w);
	return NULL;
}

static int webhook_copy(char **to, const char *text)
{
	char *copy = text ? strdup(text) : NULL;
	if (text && !copy)
		return -ENOMEM;
	free(*to);
	*to = copy;
	return 0;
}

int webhook_set(struct webhook *w, const char *url, const char *ca_file, const char *secret)
{
	int r = webhook_copy(&w->url, url);
	if (r == 0)
		r = webhook_copy(&w->ca_file, ca_file);
	return r == 0 ? webhook_copy(&w->secret, secret) : r;
}

/* --- sending ------------------------------------------------------------------------------------------ */

static void message_try(void *arg);

static bool is_final(const struct http_reply *r)
{
	return r->failure == HTTP_OK && r->status >= 400 && r->status < 500 && r->status != 408 &&
	       r->status != 425 && r->status != 429;
}

static void message_failed(struct webhook_message *m, bool final, const char *why)
{
	final |= m->attempts >= WEBHOOK_ATTEMPTS;
	log_warn(final ? "webhook_given_up" : "webhook_failed", LOG_INT("attempt", m->attempts),
		 LOG_STR("error", why));
	if (!final) {
		loop_timer_start(m->pause, backoff_ms(FIRST_PAUSE_MS, LONGEST_PAUSE_MS, m->attempts));
		return;
	}
	m->owner->counts.failed++;
	message_free(m);
}

static void message_done(void *arg, const struct http_reply *r)
{
	struct webhook_message *m = arg;
	char why[64];
	m->call = NULL;
	if (r->failure == HTTP_OK && r->status >= 200 && r->status < 300) {
		m->owner->counts.delivered++;
		log_info("webhook_delivered", LOG_INT("attempts", m->attempts));
		message_free(m);
		return;
	}
	snprintf(why, sizeof(why), "HTTP %d", r->status);
	message_failed(m, is_final(r), r->failure == HTTP_OK ? why : r->detail);
}

static void message_try(void *arg)
{
	struct webhook_message *m = arg;
	struct webhook *w = m->owner;
	struct span body = {m->body, m->length};
	char hex[CRYPTO_SHA256_HEX], signature[sizeof("sha256=") + CRYPTO_SHA256_HEX];
	struct err e;
	m->attempts++;
	if (!w->url || !w->secret) {
		message_failed(m, true, "guard.webhook is no longer configured");
		return;
	}
	crypto_hmac_sha256_hex(span_of(w->secret), body, hex);
	snprintf(signature, sizeof(signature), "sha256=%s", hex);
	const struct http_field fields[] = {{SPAN_LIT("Content-Type"), SPAN_LIT("application/json")},
					    {SPAN_LIT("X-Migration-Signature"), span_of(signature)}};
	const struct http_call_request request = {.method = "POST",
						  .url = w->url,
						  .ca_file = w->ca_file,
						  .fields = fields,
						  .n_fields = 2,
						  .body = body,
						  .timeout_ms = TIMEOUT_MS,
						  .max_body = ANSWER_MAX,
						  .fresh_connection = true};
	const struct http_events events = {.arg = m, .done = message_done};
	int r = http_start(w->client, &request, &events, &m->call, &e);
	if (r < 0)
		message_failed(m, r == -EINVAL, e.text);
}

void webhook_send(struct webhook *w, struct span body)
{
	if (!w->url)
		return;
	struct webhook_message *m = w->waiting < WEBHOOK_WAITING ? calloc(1, sizeof(*m)) : NULL;
	if (m) {
		m->owner = w;
		m->body = span_dup(body);
		m->length = body.len;
	}
	if (!m || !m->body || loop_timer_new(w->loop, message_try, m, &m->pause) < 0) {
		if (m)
			free(m->body);
		free(m);
		w->counts.dropped++;
		log_error("webhook_dropped", LOG_STR("error", "too many are waiting, or out of memory"));
		return;
	}
	m->next = w->messages;
	w->messages = m;
	w->waiting++;
	loop_timer_start(m->pause, 0);
}

struct webhook_counts webhook_counts(const struct webhook *w)
{
	return w->counts;
}
