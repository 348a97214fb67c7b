#include "router/request/auth_ask.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "base/hash.h"
#include "base/http_client.h"
#include "base/log.h"
#include "router/problem.h"

#define BUCKETS 1024
#define CHALLENGES_MAX 4
#define ANSWER_MAX 65536 /* of its body, which nobody reads */
#define FIELDS_MAX (AUTH_MAX_CREDENTIALS + 4)

/* An answer, or a question under way. */
struct entry {
	TAILQ_ENTRY(entry) order; /* oldest first, among its kind */
	LIST_ENTRY(entry) bucket;
	char key[CRYPTO_SHA256_HEX];
	enum auth_word word; /* AUTH_WORD_UNKNOWN: under way */
	int status;	     /* with AUTH_WORD_NO */
	int64_t at_ms;
	char challenge[AUTH_CHALLENGE_MAX];
	/* under way */
	struct auth_asks *asks;
	struct http_call *call;
	unsigned peer;
	struct waiter *waiters;
	char service[32], operation[64]; /* for the log */
};

struct waiter {
	struct waiter *next;
	struct request *request;
};

TAILQ_HEAD(entries, entry);

struct auth_asks {
	struct plane *plane;
	struct http_client *http;
	char secret[CRYPTO_SHA256_HEX];
	LIST_HEAD(, entry) buckets[BUCKETS];
	struct entries yes, no, flight;
	size_t n_yes, n_no, n_flight;
	uint16_t peers[INSPECT_PEERS];
	bool failing;
};

static void count_ask(struct plane *p, enum auth_ask_result result)
{
	atomic_fetch_add_explicit(&p->env->auth_asks[result], 1, memory_order_relaxed);
}

/* --- the table ------------------------------------------------------------------------------------------ */

static struct auth_asks *asks_of(struct plane *p)
{
	struct err e;
	if (p->auth_asks)
		return p->auth_asks;
	struct auth_asks *a = calloc(1, sizeof(*a));
	const struct http_client_options o = {.max_connections = AUTH_ASK_FLIGHT};
	if (!a || http_client_new(p->loop, &o, &a->http, &e) < 0) {
		free(a);
		return NULL;
	}
	char random[2][CRYPTO_ID_HEX];
	crypto_random_id(random[0]);
	crypto_random_id(random[1]);
	snprintf(a->secret, sizeof(a->secret), "%s%s", random[0], random[1]);
	a->plane = p;
	TAILQ_INIT(&a->yes);
	TAILQ_INIT(&a->no);
	TAILQ_INIT(&a->flight);
	p->auth_asks = a;
	return a;
}

static size_t bucket_of_key(const char *key)
{
	char digits[9] = "";
	memcpy(digits, key, 8);
	return strtoul(digits, NULL, 16) % BUCKETS;
}

static struct entry *auth_ask_find(struct auth_asks *a, const char *key)
{
	struct entry *e;
	LIST_FOREACH (e, &a->buckets[bucket_of_key(key)], bucket)
		if (strcmp(e->key, key) == 0)
			return e;
	return NULL;
}

static void forget_entry(struct auth_asks *a, struct entry *e)
{
	if (e->word == AUTH_WORD_YES) {
		TAILQ_REMOVE(&a->yes, e, order);
		a->n_yes--;
	} else if (e->word == AUTH_WORD_NO) {
		TAILQ_REMOVE(&a->no, e, order);
		a->n_no--;
	} else {
		TAILQ_REMOVE(&a->flight, e, order);
		a->n_flight--;
		a->peers[e->peer]--;
	}
	LIST_REMOVE(e, bucket);
	free(e);
}

/* It was under way, and is answered. */
static void keep_entry(struct auth_asks *a, struct entry *e, enum auth_word word)
{
	bool yes = word == AUTH_WORD_YES;
	TAILQ_REMOVE(&a->flight, e, order);
	a->n_flight--;
	a->peers[e->peer]--;
	e->word = word;
	e->at_ms = (int64_t)loop_now_ms(a->plane->loop);
	TAILQ_INSERT_TAIL(yes ? &a->yes : &a->no, e, order);
	size_t *n = yes ? &a->n_yes : &a->n_no;
	if (++*n > AUTH_ASK_CACHED)
		forget_entry(a, TAILQ_FIRST(yes ? &a->yes : &a->no));
}

void auth_ask_release(struct plane *p)
{
	struct auth_asks *a = p->auth_asks;
	struct entry *e;
	if (!a)
		return;
	p->auth_asks = NULL;
	http_client_free(a->http);
	while ((e = TAILQ_FIRST(&a->flight))) {
		while (e->waiters) {
			struct waiter *w = e->waiters;
			e->waiters = w->next;
			free(w);
		}
		forget_entry(a, e);
	}
	while ((e = TAILQ_FIRST(&a->yes)))
		forget_entry(a, e);
	while ((e = TAILQ_FIRST(&a->no)))
		forget_entry(a, e);
	free(a);
}

/* --- the question --------------------------------------------------------------------------------------- */

/* What the answer may depend on. Each part is hashed by itself first, so that none reaches into the next. */
static void make_key(const struct auth_asks *a, struct request *r, const struct operation *op,
		     char out[CRYPTO_SHA256_HEX])
{
	struct auth_fingerprint who;
	auth_check(&op->auth, r->http->fields, r->http->n_fields, &who);
	const struct span parts[] = {span_of(op->auth.url), op->service,     op->name,
				     span_of(who.hex),	    r->http->method, r->http->target};
	char all[sizeof(parts) / sizeof(parts[0]) * CRYPTO_SHA256_HEX];
	size_t length = 0;
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
		crypto_sha256_hex(parts[i], all + length);
		length += CRYPTO_SHA256_HEX - 1;
	}
	crypto_hmac_sha256_hex(span_of(a->secret), (struct span){all, length}, out);
}

static bool is_fresh(const struct auth_asks *a, const struct entry *e, const struct auth *auth)
{
	int64_t age_ms = (int64_t)loop_now_ms(a->plane->loop) - e->at_ms;
	return age_ms < (e->word == AUTH_WORD_YES ? auth->cache_ms : auth->cache_denied_ms);
}

/* Cookies that are named alone go in one field. */
static size_t auth_ask_fields(struct request *r, const struct auth *auth, struct buf *cookies,
			      struct http_field out[FIELDS_MAX])
{
	size_t n = 0;
	struct span value;
	for (size_t i = 0; i < auth->n_credentials; i++) {
		const struct auth_credential *c = &auth->credentials[i];
		if (auth_credential_find(c, r->http->fields, r->http->n_fields, &value) != AUTH_FOUND)
			continue;
		if (!c->cookie) {
			out[n++] = (struct http_field){c->name, value};
			continue;
		}
		buf_puts(cookies, cookies->len ? "; " : "");
		buf_append_span(cookies, c->name);
		buf_putc(cookies, '=');
		buf_append_span(cookies, value);
	}
	if (cookies->len)
		out[n++] = (struct http_field){SPAN_LIT("Cookie"), buf_span(cookies)};
	out[n++] = (struct http_field){SPAN_LIT("X-Original-Method"), r->http->method};
	out[n++] = (struct http_field){SPAN_LIT("X-Original-URI"), r->http->target};
	out[n++] = (struct http_field){SPAN_LIT("X-Request-ID"), r->request_id};
	return n;
}

static void note_challenges(struct entry *e, struct span head)
{
	static const struct span name = SPAN_INIT("WWW-Authenticate:");
	size_t used = 0, n = 0;
	while (head.len) {
		const char *end = memchr(head.ptr, '\n', head.len);
		size_t length = end ? (size_t)(end - head.ptr) : head.len;
		struct span line = {head.ptr, length};
		length += end != NULL;
		head = (struct span){head.ptr + length, head.len - length};
		if (line.len < name.len || strncasecmp(line.ptr, name.ptr, name.len) != 0)
			continue;
		struct span value = span_strip((struct span){line.ptr + name.len, line.len - name.len});
		if (value.len == 0 || n++ == CHALLENGES_MAX || used + value.len + 2 > sizeof(e->challenge))
			continue;
		span_copy(value, e->challenge + used, sizeof(e->challenge) - used);
		used += strlen(e->challenge + used) + 1;
	}
	e->challenge[used] = '\0';
}

static void note_failing(struct auth_asks *a, const struct entry *e, const struct http_reply *reply)
{
	bool failed = reply != NULL;
	if (failed && !a->failing)
		log_error("auth_check_failing", LOG_STR("service", e->service),
			  LOG_STR("operation", e->operation), LOG_INT("status", reply->status),
			  LOG_STR("error",
				  reply->failure == HTTP_OK ? "neither 2xx nor 401 or 403" : reply->detail));
	else if (!failed && a->failing)
		log_info("auth_check_works", LOG_STR("service", e->service),
			 LOG_STR("operation", e->operation));
	a->failing = failed;
}

static void take_word(struct request *r, const struct entry *e, enum auth_word word)
{
	r->auth_word = word;
	if (word != AUTH_WORD_NO)
		return;
	r->auth_denied = r->auth_denied ? r->auth_denied : calloc(1, sizeof(*r->auth_denied));
	if (!r->auth_denied) {
		r->auth_word = AUTH_WORD_FAILED;
		return;
	}
	r->auth_denied->status = e->status;
	memcpy(r->auth_denied->challenge, e->challenge, sizeof(e->challenge));
}

static void tell_waiters(struct waiter *first, const struct entry *e, enum auth_word word)
{
	for (struct waiter *w = first, *next; w; w = next) {
		next = w->next;
		struct request *r = w->request;
		free(w);
		if (r->x && r->state == REQUEST_ASK) {
			take_word(r, e, word);
			r->step(r);
		}
		request_unref(r);
	}
}

static void auth_ask_on_done(void *arg, const struct http_reply *reply)
{
	struct entry *e = arg, copy;
	struct auth_asks *a = e->asks;
	struct waiter *waiters = e->waiters;
	int status = reply->failure == HTTP_OK ? reply->status : 0;
	enum auth_word word = AUTH_WORD_FAILED;
	if (status >= 200 && status < 300)
		word = AUTH_WORD_YES;
	else if (status == 401 || status == 403)
		word = AUTH_WORD_NO;
	e->call = NULL;
	e->waiters = NULL;
	e->status = status;
	note_failing(a, e, word == AUTH_WORD_FAILED ? reply : NULL);
	if (word == AUTH_WORD_NO)
		note_challenges(e, reply->head);
	static const enum auth_ask_result results[] = {[AUTH_WORD_UNKNOWN] = AUTH_ASK_FAILED,
						       [AUTH_WORD_YES] = AUTH_ASK_ACCEPTED,
						       [AUTH_WORD_NO] = AUTH_ASK_DENIED,
						       [AUTH_WORD_FAILED] = AUTH_ASK_FAILED};
	count_ask(a->plane, results[word]);
	copy = *e; /* who is told may make room of it */
	if (word == AUTH_WORD_FAILED)
		forget_entry(a, e);
	else
		keep_entry(a, e, word);
	tell_waiters(waiters, &copy, word);
}

static bool join(struct entry *e, struct request *r)
{
	struct waiter *w = calloc(1, sizeof(*w));
	if (!w)
		return false;
	w->request = request_ref(r);
	w->next = e->waiters;
	e->waiters = w;
	return true;
}

static struct entry *begin_asking(struct auth_asks *a, struct request *r, const struct operation *op,
				  const char *key)
{
	unsigned peer = (unsigned)inspect_peer(&r->plane->env->inspect, r->service->config, r->http);
	if (a->n_flight >= AUTH_ASK_FLIGHT || a->peers[peer] >= AUTH_ASK_FLIGHT / 2)
		return NULL;
	struct entry *e = calloc(1, sizeof(*e));
	CLEANUP(buf_releasep) struct buf cookies = BUF_INIT(65536);
	struct http_field fields[FIELDS_MAX];
	struct http_call_request q = {
		.method = "GET",
		.url = op->auth.url,
		.fields = fields,
		.n_fields = auth_ask_fields(r, &op->auth, &cookies, fields),
		.connect_timeout_ms = op->auth.timeout_ms,
		.timeout_ms = op->auth.timeout_ms,
		.max_body = ANSWER_MAX,
		.may_resend = true, /* it only asks; but redirects are not followed */
	};
	const struct http_events events = {.arg = e, .done = auth_ask_on_done};
	struct err why;
	if (!e || cookies.error || http_start(a->http, &q, &events, &e->call, &why) < 0) {
		free(e);
		return NULL;
	}
	e->asks = a;
	e->peer = peer;
	memcpy(e->key, key, sizeof(e->key));
	span_copy(op->service, e->service, sizeof(e->service));
	span_copy(op->name, e->operation, sizeof(e->operation));
	TAILQ_INSERT_TAIL(&a->flight, e, order);
	LIST_INSERT_HEAD(&a->buckets[bucket_of_key(key)], e, bucket);
	a->n_flight++;
	a->peers[peer]++;
	return e;
}

/* --- face ----------------------------------------------------------------------------------------------- */

/* What is there and may still be used. */
static struct entry *current(struct auth_asks *a, const char *key, const struct auth *auth)
{
	struct entry *e = auth_ask_find(a, key);
	if (!e || e->word == AUTH_WORD_UNKNOWN || is_fresh(a, e, auth))
		return e;
	forget_entry(a, e);
	return NULL;
}

enum auth_word auth_ask_known(struct request *r, const struct operation *op)
{
	struct auth_asks *a = asks_of(r->plane);
	char key[CRYPTO_SHA256_HEX];
	if (!a)
		return AUTH_WORD_UNKNOWN;
	make_key(a, r, op, key);
	const struct entry *e = current(a, key, &op->auth);
	return e ? e->word : AUTH_WORD_UNKNOWN;
}

enum auth_word auth_ask_soon(struct request *r, const struct operation *op)
{
	enum auth_word word = auth_ask_known(r, op);
	struct auth_asks *a = asks_of(r->plane);
	char key[CRYPTO_SHA256_HEX];
	if (word != AUTH_WORD_UNKNOWN || !a)
		return word;
	make_key(a, r, op, key);
	if (!auth_ask_find(a, key))
		begin_asking(a, r, op, key);
	return AUTH_WORD_UNKNOWN;
}

bool auth_ask_waits(struct request *r, const struct operation *op, void (*step)(struct request *r))
{
	if (op->auth.kind != AUTH_CHECK || r->auth_word != AUTH_WORD_UNKNOWN)
		return false;
	struct auth_fingerprint who;
	if (auth_check(&op->auth, r->http->fields, r->http->n_fields, &who) != AUTH_ASK)
		return false; /* what is malformed is nobody's to judge */
	struct auth_asks *a = asks_of(r->plane);
	char key[CRYPTO_SHA256_HEX];
	r->auth_word = AUTH_WORD_FAILED;
	if (!a)
		return false;
	make_key(a, r, op, key);
	struct entry *e = current(a, key, &op->auth);
	if (e && e->word != AUTH_WORD_UNKNOWN) {
		count_ask(r->plane, AUTH_ASK_CACHED_ANSWER);
		take_word(r, e, e->word);
		return false;
	}
	if (!e && !(e = begin_asking(a, r, op, key))) {
		count_ask(r->plane, AUTH_ASK_FAILED);
		return false;
	}
	if (!join(e, r))
		return false;
	r->auth_word = AUTH_WORD_UNKNOWN;
	r->state = REQUEST_ASK;
	r->step = step;
	return true;
}

bool auth_ask_refuse(struct request *r)
{
	if (r->auth_word == AUTH_WORD_YES)
		return false;
	if (r->auth_word != AUTH_WORD_NO) {
		request_refuse_for_now(
			r, OUTCOME_FAILURE, 503, "Credentials not checked",
			"Whether these credentials are accepted cannot be determined right now; "
			"nothing was executed.");
		return true;
	}
	struct http_field challenges[CHALLENGES_MAX];
	size_t n = 0;
	int status = r->auth_denied->status;
	for (const char *at = r->auth_denied->challenge; *at && n < CHALLENGES_MAX; at += strlen(at) + 1)
		challenges[n++] = (struct http_field){SPAN_LIT("WWW-Authenticate"), span_of(at)};
	request_fail_with(r, OUTCOME_REJECTED, status, problem_title(status),
			  status == 401 ? "These credentials are not accepted, or missing."
					: "These credentials do not allow this request.",
			  challenges, n);
	return true;
}
