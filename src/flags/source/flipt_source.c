#include "flags/source/flipt_source.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/backoff.h"
#include "base/clock.h"
#include "base/crypto.h"
#include "base/http_client.h"
#include "base/json.h"
#include "base/log.h"
#include "flags/print.h"
#include "flags/source/flipt_server.h"
#include "flags/source/last_good.h"

#define BACKOFF_FIRST_MS 500u
#define BACKOFF_MAX_MS 30000u
#define TOKEN_LOOK_MS 1000u /* how often the token file is checked while polls fail */
#define POLL_AGAIN_MS 1000u /* when the stream has overtaken one */
#define SLOW_POLL_MS 30000u /* beside a stream that is up */
#define DIGEST_LENGTH 40
#define KINDS_MAX 16
#define ETAG_GRAIN_US 5000000
#define INFO_EVERY_MS \
	60000 /* how often the server is asked what it is: it may be exchanged without a pause */
#define INFO_TIMEOUT_MS 3000

enum flipt_version { VERSION_UNKNOWN, VERSION_1, VERSION_2 };

/* What can go wrong, as far as the log distinguishes it: these, an HTTP status, or minus an
 * http_failure. */
enum failure_kind { NO_SNAPSHOT = 1, HAS_HOLE, IMPOSSIBLE };

struct flipt_source {
	struct loop *loop;
	struct http_client *http;
	struct flag_source_events events;
	char *url;
	struct flipt_credential credential;
	struct buf authorization; /* of the request that is made */
	unsigned poll_ms, timeout_ms, stream_idle_ms;
	bool stream_wanted;

	enum flipt_version version;
	struct http_call *poll, *stream, *info, *login;
	enum flag_rules rules;	    /* of a server that does not report its version */
	bool rules_given;	    /* someone has said so */
	struct flipt_server server; /* what it said of itself last */
	bool server_sure;	    /* it said so when it was asked last */
	int64_t info_ms;	    /* monotonic: when that was; 0: to be asked before the next poll */
	struct loop_timer *poll_timer, *stream_timer, *silence_timer, *token_timer;
	bool token_new; /* no poll has shown it yet */
	unsigned poll_failures, stream_failures;
	unsigned retry_after_ms; /* what the last failed poll's answer asked for */
	struct buf line;	 /* of the stream, until its newline */
	bool stream_begun;	 /* this connection has brought a good snapshot */
	bool stream_up;		 /* it, or the one that it takes over from, has */
	bool poll_overtaken;	 /* the stream has brought something since the poll in progress was sent */

	struct last_good good;
	char server_digest[80];		 /* what If-None-Match says: of the server's own text */
	bool digest_is_own;		 /* v1: it told none */
	char raw[CRYPTO_SHA256_HEX];	 /* hash of that text */
	char content[CRYPTO_SHA256_HEX]; /* hash of what it says */
	int64_t digest_since_us;	 /* when this digest came first with this content (monotonic) */
	bool etag_sure;			 /* v1: no other change can share it */
	int64_t good_us;
	bool failing;
	int told[KINDS_MAX]; /* kinds of failure that were reported since all was well */
	size_t n_told;
	char last_error[512];
};

static void begin_round(struct flipt_source *s);
static void start_poll(struct flipt_source *s);
static void start_stream(struct flipt_source *s);

/* --- what is known of the newest state ------------------------------------------------------------------ */

/* Whether this kind of failure comes for the first time since all was well. */
static bool is_news(struct flipt_source *s, int kind)
{
	for (size_t i = 0; i < s->n_told; i++)
		if (s->told[i] == kind)
			return false;
	if (s->n_told == KINDS_MAX)
		return false;
	s->told[s->n_told++] = kind;
	return true;
}

/* Reported once per kind and outage, not once per attempt: the poll and the stream can fail differently,
 * by turns. */
static void failed(struct flipt_source *s, int kind, const char *why)
{
	s->failing = true;
	snprintf(s->last_error, sizeof(s->last_error), "%s", why);
	if (is_news(s, kind) && s->events.failed)
		s->events.failed(s->events.arg, s->last_error);
}

static void confirmed(struct flipt_source *s)
{
	if (s->failing)
		log_info("flags_refresh_recovered", LOG_STR("source", s->url));
	s->failing = false;
	s->n_told = 0;
	s->last_error[0] = '\0';
	s->good_us = clock_wall_us();
}

/* --- accepting a snapshot ------------------------------------------------------------------------------- */

static bool good_digest(const char *digest)
{
	return strlen(digest) == DIGEST_LENGTH && strspn(digest, "0123456789abcdef") == DIGEST_LENGTH;
}

/*
 * A digest is not the content: v1's is made of the time of the last change, which some databases keep in
 * whole seconds (MySQL), and servers up to 1.59.1 and 2.10 give a namespace of several files the last file's.
 * So what comes is compared by content.
 */
static bool digest_counts(const struct flipt_source *s)
{
	return s->server_sure && flipt_server_digest_is_whole(&s->server);
}

static void note_unchanged(struct flipt_source *s)
{
	s->etag_sure = clock_mono_us() - s->digest_since_us >= ETAG_GRAIN_US;
	confirmed(s);
}

static void note_new(struct flipt_source *s, const char *digest, const char *raw, const char *content)
{
	s->digest_is_own = !*digest;
	/* v1 may send no ETag while a namespace was never changed: the content is used instead. */
	snprintf(s->server_digest, sizeof(s->server_digest), "%.*s", DIGEST_LENGTH,
		 *digest ? digest : content);
	memcpy(s->raw, raw, sizeof(s->raw));
	memcpy(s->content, content, sizeof(s->content));
	s->digest_since_us = clock_mono_us();
	s->etag_sure = false;
}

static bool has_hole(struct flipt_source *s, const char *digest)
{
	char why[256];
	if (s->version != VERSION_2 || good_digest(digest))
		return false;
	/* A rule that asks for two segments may list one of them then: the length is the only sign. */
	snprintf(why, sizeof(why),
		 "the snapshot's digest has %zu characters instead of %d: the namespace consists of several "
		 "documents, and segments from the earlier ones can be missing; merge them into one",
		 strlen(digest), DIGEST_LENGTH);
	failed(s, HAS_HOLE, why);
	return true;
}

static enum flag_rules rules_of(const struct flipt_source *s)
{
	if (s->version == VERSION_1)
		return FLAG_RULES_V1;
	if (s->server.known && s->server.major >= 2)
		return flag_rules_of_server(s->server.major, s->server.minor);
	/* Told nothing, also before a restart: what it was. */
	if (!s->rules_given && s->good.snapshot && flag_snapshot_rules(s->good.snapshot) != FLAG_RULES_V1)
		return flag_snapshot_rules(s->good.snapshot);
	return s->rules;
}

static int publish_new(struct flipt_source *s, struct flag_snapshot *snapshot, struct span text,
		       struct err *e)
{
	CLEANUP(buf_releasep) struct buf whole = BUF_INIT(FLAG_MAX_DOCUMENT);
	int r = last_good_complete(&s->good, snapshot, text, &whole, &snapshot, e);
	if (r < 0)
		return r;
	flag_snapshot_set_digest(snapshot, s->server_digest);
	last_good_take(&s->good, snapshot, &whole);
	s->events.publish(s->events.arg, snapshot);
	confirmed(s);
	last_good_save(&s->good, s->server_digest);
	return 0;
}

/* `digest` is "" where the server tells none. */
static void source_accept(struct flipt_source *s, struct span text, const char *digest)
{
	char raw[CRYPTO_SHA256_HEX], content[CRYPTO_SHA256_HEX];
	struct flag_snapshot *snapshot = NULL;
	struct err e = {"out of memory"};
	if (has_hole(s, digest))
		return;
	crypto_sha256_hex(text, raw);
	bool same = s->good.snapshot && s->server_digest[0] &&
		    (*digest ? strcmp(digest, s->server_digest) == 0 : s->digest_is_own);
	if (same && strcmp(raw, s->raw) == 0) {
		note_unchanged(s);
		return;
	}
	int r = flag_snapshot_parse_json("snapshot", text, rules_of(s), &snapshot, &e);
	if (r == 0 && (r = flag_snapshot_content(snapshot, content)) < 0)
		flag_snapshot_unref(snapshot);
	if (r == 0 && same && strcmp(content, s->content) == 0) {
		flag_snapshot_unref(snapshot);
		note_unchanged(s);
		return;
	}
	if (r == 0) {
		note_new(s, digest, raw, content);
		r = publish_new(s, snapshot, text, &e);
	}
	if (r < 0) {
		s->server_digest[0] = '\0';
		failed(s, NO_SNAPSHOT, e.text);
	}
}

/* The digest: of v2 in the document, of v1 in the ETag alone. false: a v2 server answered on v1's path. */
static bool accept_document(struct flipt_source *s, struct span text, struct span etag)
{
	static const struct span names[] = {SPAN_INIT("/digest"), SPAN_INIT("/flags")};
	char digest[80];
	struct span inner[2];
	span_copy(etag, digest, sizeof(digest));
	if (json_pointers(text, names, 2, inner, NULL) != 0) {
		failed(s, NO_SNAPSHOT, "the snapshot is not valid JSON (truncated?)");
		return true;
	}
	if (!inner[1].ptr || json_type_of(inner[1]) != JSON_ARRAY) {
		failed(s, NO_SNAPSHOT, "the answer is not a snapshot: it has no list of flags");
		return true;
	}
	if (inner[0].ptr && inner[0].len >= 2 && json_type_of(inner[0]) == JSON_STRING) {
		if (s->version == VERSION_1)
			return false;
		span_copy((struct span){inner[0].ptr + 1, inner[0].len - 2}, digest, sizeof(digest));
	}
	source_accept(s, text, digest);
	return true;
}

/* --- poll ----------------------------------------------------------------------------------------------- */

static void schedule_poll(struct flipt_source *s)
{
	unsigned ms = s->poll_ms;
	if (s->poll_failures)
		ms = backoff_ms(BACKOFF_FIRST_MS, BACKOFF_MAX_MS, s->poll_failures);
	if (s->poll_failures && ms < s->retry_after_ms)
		ms = s->retry_after_ms;
	else if (!s->poll_failures && s->stream_up && ms < SLOW_POLL_MS && digest_counts(s))
		ms = SLOW_POLL_MS; /* otherwise the stream leaves out a change that shares its digest */
	loop_timer_start(s->poll_timer, ms);
	if (s->poll_failures && s->credential.file && !loop_timer_active(s->token_timer))
		loop_timer_start(s->token_timer, TOKEN_LOOK_MS);
}

/* A token that is new need not wait until the server may be asked again: it was said of the old one. */
static void on_token_timer(void *arg)
{
	struct flipt_source *s = arg;
	if (s->poll_failures == 0)
		return;
	s->token_new |= flipt_credential_refresh(&s->credential, false);
	if (s->token_new && !s->poll && !s->login) {
		s->token_new = false;
		begin_round(s);
	}
	loop_timer_start(s->token_timer, TOKEN_LOOK_MS);
}

/* What a version that is no longer there sent must not be taken for the new one's. */
static void drop_stream(struct flipt_source *s)
{
	s->stream = http_cancel(s->stream);
	s->stream_up = false;
	s->stream_failures = 0;
	loop_timer_stop(s->stream_timer);
	loop_timer_stop(s->silence_timer);
	buf_release(&s->line);
}

static void set_version(struct flipt_source *s, enum flipt_version v)
{
	if (s->version == v)
		return;
	s->version = v;
	if (v != VERSION_2)
		drop_stream(s);
	s->server_digest[0] = '\0'; /* the other version's rules apply: read again */
	s->server_sure = false;
	s->info_ms = 0;
	if (v != VERSION_UNKNOWN)
		log_info("flipt_version", LOG_STR("source", s->url), LOG_INT("version", v));
	if (v == VERSION_2 && s->stream_wanted && !s->stream)
		start_stream(s);
}

static struct flipt_refusal refusal_of(const struct http_reply *r)
{
	return (struct flipt_refusal){.status = r->status,
				      .content_type = http_reply_field(r, "Content-Type"),
				      .location = http_reply_field(r, "Location"),
				      .body = r->body};
}

static const char *failure_text(const struct http_reply *r, char *out, size_t size)
{
	struct flipt_refusal refusal = refusal_of(r);
	if (r->failure != HTTP_OK)
		snprintf(out, size, "%s", r->detail);
	else
		flipt_refusal_text(&refusal, out, size);
	return out;
}

/* A page instead of a snapshot, whatever its status says. */
static bool is_html(const struct http_reply *r)
{
	return r->failure == HTTP_OK && flipt_is_html(http_reply_field(r, "Content-Type"), r->body);
}

static bool is_json(const struct http_reply *r)
{
	return span_starts(http_reply_field(r, "Content-Type"), SPAN_LIT("application/json"));
}

/* After a 401: the file may have changed in a way that does not show, and what was exchanged may be no
 * longer known. Once for each. */
static bool has_another_token(struct flipt_source *s, const struct http_reply *r)
{
	if (r->failure != HTTP_OK || r->status != 401)
		return false;
	bool exchanged = s->credential.client_token && s->poll_failures == 0;
	bool another = flipt_credential_refresh(&s->credential, true);
	flipt_credential_log_out(&s->credential);
	return another || exchanged;
}

static void on_poll(void *arg, const struct http_reply *r)
{
	struct flipt_source *s = arg;
	char why[512];
	bool overtaken = s->poll_overtaken;
	s->poll = NULL;
	s->poll_overtaken = false;
	bool v1_kind = r->failure == HTTP_OK && r->status == 404 && !is_json(r) && !is_html(r);
	if (v1_kind && s->version != VERSION_1) {
		/* v1 has no such path at all: text, where v2 answers JSON. */
		set_version(s, s->version == VERSION_UNKNOWN ? VERSION_1 : VERSION_UNKNOWN);
		start_poll(s);
		return;
	}
	s->retry_after_ms = r->failure == HTTP_OK ? flipt_retry_after_ms(http_reply_field(r, "Retry-After"),
									 clock_wall_us())
						  : 0;
	if (r->failure == HTTP_OK && (r->status == 200 || r->status == 304) && !is_html(r)) {
		s->retry_after_ms = 0;
		if (s->version == VERSION_UNKNOWN)
			set_version(s, VERSION_2);
		bool back = s->poll_failures > 0;
		s->poll_failures = 0;
		if (overtaken && r->status == 200) {
			/* It may be of before: what the stream has brought must not go back to it. */
			loop_timer_start(s->poll_timer,
					 s->poll_ms < POLL_AGAIN_MS ? s->poll_ms : POLL_AGAIN_MS);
			return;
		}
		if (r->status == 304) {
			confirmed(s);
		} else if (!accept_document(s, r->body, http_reply_field(r, "ETag"))) {
			set_version(s, VERSION_UNKNOWN); /* upgraded meanwhile: v2 serves v1's path too */
			start_poll(s);
			return;
		}
		if (back)
			s->info_ms = 0; /* perhaps it is another one that is there again */
		if (back && s->version == VERSION_2 && s->stream_wanted && !s->stream)
			start_stream(s); /* the server is there again: no need to wait */
	} else if (has_another_token(s, r)) {
		begin_round(s);
		return;
	} else {
		s->poll_failures++;
		int kind = r->failure == HTTP_OK ? r->status : -(int)r->failure;
		failed(s, is_html(r) ? NO_SNAPSHOT : kind, failure_text(r, why, sizeof(why)));
		if (s->version == VERSION_1 && s->poll_failures % 4 == 0)
			set_version(s, VERSION_UNKNOWN); /* perhaps it was upgraded meanwhile */
	}
	schedule_poll(s);
}

/* Names are one segment of a path each, whatever they are made of. */
static int snapshot_url(const struct flipt_source *s, bool stream, struct buf *url)
{
	buf_puts(url, s->url);
	if (s->version == VERSION_1) {
		buf_puts(url, "/internal/v1/evaluation/snapshot/namespace/");
		return buf_put_segment(url, span_of(s->good.namespace_key));
	}
	buf_puts(url, "/client/v2/environments/");
	buf_put_segment(url, span_of(s->good.environment));
	buf_puts(url, "/namespaces/");
	buf_put_segment(url, span_of(s->good.namespace_key));
	return buf_puts(url, stream ? "/stream" : "/snapshot");
}

#define URL_MAX 16384
#define FIELDS_MAX 5

/* The fields borrow from s until the next request is made. */
static size_t request_fields(struct flipt_source *s, bool with_digest, struct http_field fields[FIELDS_MAX])
{
	size_t n = 0;
	flipt_credential_refresh(&s->credential, false);
	buf_clear(&s->authorization);
	flipt_credential_header(&s->credential, &s->authorization);
	fields[n++] = (struct http_field){SPAN_LIT("X-Flipt-Environment"), span_of(s->good.environment)};
	fields[n++] = (struct http_field){SPAN_LIT("X-Flipt-Accept-Server-Version"), SPAN_LIT("1.47.0")};
	if (s->authorization.len)
		fields[n++] = (struct http_field){SPAN_LIT("Authorization"), buf_span(&s->authorization)};
	if (with_digest && s->server_digest[0] && digest_counts(s) &&
	    (s->version != VERSION_1 || s->etag_sure))
		fields[n++] = (struct http_field){SPAN_LIT("If-None-Match"), span_of(s->server_digest)};
	return n;
}

static void start_poll(struct flipt_source *s)
{
	if (s->poll)
		return;
	s->poll_overtaken = false;
	CLEANUP(buf_releasep) struct buf url = BUF_INIT(URL_MAX);
	struct http_field fields[FIELDS_MAX];
	struct err e;
	if (snapshot_url(s, false, &url) < 0) {
		s->poll_failures++;
		failed(s, IMPOSSIBLE, "the URL is too long");
		schedule_poll(s);
		return;
	}
	struct http_call_request q = {
		.method = "GET",
		.url = url.ptr,
		.fields = fields,
		.n_fields = request_fields(s, true, fields),
		.connect_timeout_ms = s->timeout_ms,
		.timeout_ms = s->timeout_ms * 3,
		.idle_timeout_ms = s->timeout_ms,
		.max_body = FLAG_MAX_DOCUMENT,
		.may_resend = true,
	};
	struct http_events events = {.arg = s, .done = on_poll};
	if (http_start(s->http, &q, &events, &s->poll, &e) < 0) {
		s->poll_failures++;
		failed(s, IMPOSSIBLE, e.text);
		schedule_poll(s);
	}
}

/* --- which server --------------------------------------------------------------------------------------- */

static bool same_server(const struct flipt_server *a, const struct flipt_server *b)
{
	return a->known == b->known && a->major == b->major && a->minor == b->minor && a->patch == b->patch &&
	       a->database == b->database;
}

/* A server that does not tell (an outage, a token that is being changed) is taken for what it was, but
 * nothing more rests on it. */
static void on_info(void *arg, const struct http_reply *r)
{
	struct flipt_source *s = arg;
	bool answered = r->failure == HTTP_OK && r->status == 200;
	struct flipt_server now = answered ? flipt_server_of(r->body) : (struct flipt_server){.known = false};
	s->info = NULL;
	s->server_sure = now.known;
	if (now.known && !same_server(&now, &s->server)) {
		char version[32];
		s->server = now;
		s->server_digest[0] = '\0'; /* read again: other rules may apply */
		flipt_server_version(&now, version);
		log_info("flipt_server", LOG_STR("source", s->url), LOG_STR("version", version));
	}
	start_poll(s);
}

static void start_info(struct flipt_source *s)
{
	CLEANUP(freep) char *url = NULL;
	struct http_field fields[FIELDS_MAX];
	struct err e;
	if (s->info)
		return;
	s->info_ms = clock_mono_ms();
	if (asprintf(&url, "%s" FLIPT_INFO_PATH, s->url) < 0) {
		url = NULL;
		start_poll(s);
		return;
	}
	struct http_call_request q = {
		.method = "GET",
		.url = url,
		.fields = fields,
		.n_fields = request_fields(s, false, fields),
		.connect_timeout_ms = s->timeout_ms,
		.timeout_ms = s->timeout_ms < INFO_TIMEOUT_MS ? s->timeout_ms : INFO_TIMEOUT_MS,
		.may_resend = true,
	};
	struct http_events events = {.arg = s, .done = on_info};
	if (http_start(s->http, &q, &events, &s->info, &e) < 0)
		start_poll(s);
}

/* --- a Kubernetes token is exchanged first -------------------------------------------------------------- */

static void on_login(void *arg, const struct http_reply *r)
{
	struct flipt_source *s = arg;
	char why[512], text[600];
	s->login = NULL;
	if (r->failure == HTTP_OK && r->status == 200 &&
	    flipt_credential_logged_in(&s->credential, r->body)) {
		begin_round(s);
		return;
	}
	snprintf(text, sizeof(text), "the service account's token could not be exchanged: %s",
		 failure_text(r, why, sizeof(why)));
	s->poll_failures++;
	failed(s, r->failure == HTTP_OK ? r->status : -(int)r->failure, text);
	schedule_poll(s);
}

static void start_login(struct flipt_source *s)
{
	CLEANUP(freep) char *url = NULL;
	CLEANUP(buf_releasep) struct buf body = BUF_INIT(FLIPT_TOKEN_MAX * 2);
	struct http_field field = {SPAN_LIT("Content-Type"), SPAN_LIT("application/json")};
	struct err e = {"out of memory"};
	if (s->login)
		return;
	bool made = asprintf(&url, "%s" FLIPT_LOGIN_PATH, s->url) >= 0;
	url = made ? url : NULL;
	struct http_call_request q = {
		.method = "POST",
		.url = url,
		.fields = &field,
		.n_fields = 1,
		.connect_timeout_ms = s->timeout_ms,
		.timeout_ms = s->timeout_ms,
		.may_resend = true, /* it only makes another token */
	};
	struct http_events events = {.arg = s, .done = on_login};
	made = made && flipt_credential_login_body(&s->credential, &body) == 0;
	q.body = buf_span(&body);
	if (made && http_start(s->http, &q, &events, &s->login, &e) == 0)
		return;
	s->poll_failures++;
	failed(s, IMPOSSIBLE, e.text);
	schedule_poll(s);
}

/* What must be known first, and then the poll. */
static void begin_round(struct flipt_source *s)
{
	flipt_credential_refresh(&s->credential, false);
	if (flipt_credential_wants_login(&s->credential))
		start_login(s);
	else if (!s->poll && s->poll_failures == 0 &&
		 (!s->info_ms || clock_mono_ms() - s->info_ms > INFO_EVERY_MS))
		start_info(s);
	else
		start_poll(s);
}

static void on_poll_timer(void *arg)
{
	begin_round(arg);
}

/* --- stream (v2) ---------------------------------------------------------------------------------------- */

static void stream_ended(struct flipt_source *s, const char *why)
{
	bool was_up = s->stream_up;
	s->stream = NULL;
	s->stream_up = false;
	loop_timer_stop(s->silence_timer);
	buf_release(&s->line);
	s->stream_failures = was_up ? 1 : s->stream_failures + 1;
	if (why && s->stream_failures == 1) /* once, not for every attempt */
		log_info("flags_stream_ended", LOG_STR("source", s->url), LOG_STR("why", why));
	loop_timer_start(s->stream_timer, backoff_ms(BACKOFF_FIRST_MS, BACKOFF_MAX_MS, s->stream_failures));
	if (was_up) { /* what changed meanwhile must not wait for the slow poll */
		s->info_ms = 0;
		loop_timer_start(s->poll_timer, 0);
	}
}

static void on_stream_done(void *arg, const struct http_reply *r)
{
	struct flipt_source *s = arg;
	char why[512];
	stream_ended(s, failure_text(r, why, sizeof(why)));
}

/* This protocol has no keep-alive bytes: a stream that was well is reopened, one that never began has
 * failed. */
static void on_silence(void *arg)
{
	struct flipt_source *s = arg;
	s->stream = http_cancel(s->stream);
	if (s->stream_begun) {
		buf_release(&s->line);
		start_stream(s);
	} else {
		stream_ended(s, "silence");
	}
}

/* What is no snapshot at all says nothing of the flags: the poll tells what there is, so that one fault
 * has one name. */
static void refuse_stream(struct flipt_source *s, struct span line)
{
	s->stream = http_cancel(s->stream);
	stream_ended(s, flipt_is_html(SPAN_NONE, line) ? "an HTML page came instead of a stream of snapshots"
						       : "the stream sent something that is not a snapshot");
}

static void on_line(struct flipt_source *s, struct span line)
{
	struct span result;
	if (line.len == 0)
		return;
	if (json_pointers(line, &SPAN_LIT("/result"), 1, &result, NULL) != 0 || !result.ptr) {
		refuse_stream(s, line);
		return;
	}
	s->poll_overtaken = s->poll != NULL;
	accept_document(s, result, SPAN_NONE);
	if (!s->failing) {
		s->stream_begun = s->stream_up = true;
		s->stream_failures = 0;
		s->poll_failures = 0;
		schedule_poll(s);
	}
	loop_timer_start(s->silence_timer, s->stream_idle_ms);
}

static void on_piece(void *arg, struct span bytes)
{
	struct flipt_source *s = arg;
	while (bytes.len) {
		const char *end = memchr(bytes.ptr, '\n', bytes.len);
		size_t n = end ? (size_t)(end - bytes.ptr) : bytes.len;
		if (buf_append(&s->line, bytes.ptr, n) < 0) {
			http_cancel(s->stream);
			failed(s, NO_SNAPSHOT, "a snapshot of the stream is too large");
			stream_ended(s, NULL);
			return;
		}
		if (!end)
			return;
		on_line(s, buf_span(&s->line));
		if (!s->stream)
			return;
		buf_clear(&s->line);
		bytes.ptr += n + 1;
		bytes.len -= n + 1;
	}
}

static void start_stream(struct flipt_source *s)
{
	CLEANUP(buf_releasep) struct buf url = BUF_INIT(URL_MAX);
	struct http_field fields[FIELDS_MAX];
	struct err e;
	if (snapshot_url(s, true, &url) < 0) {
		stream_ended(s, "the URL is too long");
		return;
	}
	/* Without ?digest the first snapshot comes at once, so that silence before it is a detectable
	 * fault. */
	struct http_call_request q = {
		.method = "GET",
		.url = url.ptr,
		.fields = fields,
		.n_fields = request_fields(s, false, fields),
		.connect_timeout_ms = s->timeout_ms,
		.max_body = FLAG_MAX_DOCUMENT,
		.may_resend = true,
		.fresh_connection = true,
	};
	struct http_events events = {.arg = s, .done = on_stream_done, .piece = on_piece};
	s->line = BUF_INIT(FLAG_MAX_DOCUMENT + 64);
	s->stream_begun = false;
	if (http_start(s->http, &q, &events, &s->stream, &e) < 0)
		stream_ended(s, e.text);
	else
		/* the first snapshot comes at once, or not at all */
		loop_timer_start(s->silence_timer, s->timeout_ms);
}

static void on_stream_timer(void *arg)
{
	struct flipt_source *s = arg;
	if (s->version == VERSION_2 && s->stream_wanted && !s->stream)
		start_stream(s);
}

/* --- life ----------------------------------------------------------------------------------------------- */

static void start_from_disk(struct flipt_source *s)
{
	int64_t saved_us = 0;
	if (last_good_begin(&s->good, &saved_us) < 0)
		return;
	s->good_us = saved_us;
	s->events.publish(s->events.arg, s->good.snapshot);
}

static const char *or_default(const char *text)
{
	return text && *text ? text : "default";
}

static int copy_options(struct flipt_source *s, const struct flag_source_options *o)
{
	const char *file = o->snapshot_file && *o->snapshot_file ? o->snapshot_file : NULL;
	s->url = strdup(o->url ? o->url : "");
	if (!s->url || last_good_init(&s->good, SAVED_FLIPT, file, or_default(o->namespace_key),
				      or_default(o->environment)) < 0)
		return -ENOMEM;
	s->good.source = s->url;
	s->good.loop = s->loop;
	for (size_t n = strlen(s->url); n > 0 && s->url[n - 1] == '/'; n--)
		s->url[n - 1] = '\0';
	if (flipt_credential_init(&s->credential, o->auth, o->token, o->token_file) < 0)
		return -ENOMEM;
	s->poll_ms = o->poll_ms;
	s->timeout_ms = o->timeout_ms;
	s->stream_idle_ms = o->stream_idle_ms;
	s->stream_wanted = o->stream;
	s->rules =
		/* a v1 server is recognized by its answers */
		o->rules == FLAG_RULES_V1 ? FLAG_RULES_V2 : o->rules;
	s->rules_given = o->rules_given;
	return 0;
}

int flipt_source_start(struct loop *loop, const struct flag_source_options *o,
		       const struct flag_source_events *events, struct flipt_source **ret, struct err *e)
{
	struct flipt_source *s = calloc(1, sizeof(*s));
	if (!s)
		return err_set(e, -ENOMEM, "out of memory");
	s->loop = loop;
	s->events = *events;
	s->authorization = BUF_INIT(FLIPT_TOKEN_MAX + 64);
	struct http_client_options ho = {.ca_file = o->ca_file, .max_connections = 4, .keep_ms = 8000};
	int r = copy_options(s, o);
	if (r == 0)
		r = loop_timer_new(loop, on_poll_timer, s, &s->poll_timer);
	if (r == 0)
		r = loop_timer_new(loop, on_stream_timer, s, &s->stream_timer);
	if (r == 0)
		r = loop_timer_new(loop, on_silence, s, &s->silence_timer);
	if (r == 0)
		r = loop_timer_new(loop, on_token_timer, s, &s->token_timer);
	if (r < 0)
		err_set(e, r, "out of memory");
	else
		r = http_client_new(loop, &ho, &s->http, e);
	if (r < 0) {
		flipt_source_stop(s);
		return r;
	}
	start_from_disk(s);
	begin_round(s);
	*ret = s;
	return 0;
}

struct flipt_source *flipt_source_stop(struct flipt_source *s)
{
	if (!s)
		return NULL;
	http_cancel(s->poll);
	http_cancel(s->stream);
	http_cancel(s->info);
	http_cancel(s->login);
	http_client_free(s->http);
	loop_timer_free(s->poll_timer);
	loop_timer_free(s->stream_timer);
	loop_timer_free(s->silence_timer);
	loop_timer_free(s->token_timer);
	last_good_release(&s->good);
	buf_release(&s->line);
	free(s->url);
	flipt_credential_release(&s->credential);
	buf_release(&s->authorization);
	free(s);
	return NULL;
}

void flipt_source_refresh(struct flipt_source *s)
{
	loop_timer_start(s->poll_timer, 0);
}

int flipt_source_use(struct flipt_source *s, const struct span *keys, size_t n)
{
	return last_good_use(&s->good, keys, n);
}

void flipt_source_status(const struct flipt_source *s, struct flag_source_status *ret)
{
	static const char *const kinds[] = {"flipt", "flipt v1", "flipt v2"};
	*ret = (struct flag_source_status){.kind = kinds[s->version],
					   .good_us = s->good_us,
					   .failing = s->failing,
					   .streaming = s->stream_up};
	/* Without user info: text before an '@' may be a password. */
	const char *at = strchr(s->url, '@'), *slashes = strstr(s->url, "://");
	if (at && slashes)
		snprintf(ret->where, sizeof(ret->where), "%.*s%s", (int)(slashes + 3 - s->url), s->url,
			 at + 1);
	else
		snprintf(ret->where, sizeof(ret->where), "%s", s->url);
	snprintf(ret->digest, sizeof(ret->digest), "%s",
		 s->good.snapshot ? flag_snapshot_digest(s->good.snapshot) : "");
	snprintf(ret->last_error, sizeof(ret->last_error), "%s", s->last_error);
	span_copy(span_of(s->content), ret->content, sizeof(ret->content));
	flipt_server_version(&s->server, ret->version);
	last_good_carried(&s->good, &ret->carried);
	ret->unsaved = s->good.unsaved;
}
