#include "move/flipt.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/http_client.h"
#include "base/json.h"

/* a slow server is waited for: at three in the morning an answer late is better than none */
#define TIMEOUT_MS 60000
#define CONNECT_TIMEOUT_MS 10000
#define SLOW_MS 3000
#define DIGEST_LENGTH 40
#define PATH_LIMIT 8192

/* --- calls ---------------------------------------------------------------------------------------------- */

struct asked {
	struct loop *loop;
	struct flipt_answer *answer;
	struct err *e;
	bool done;
};

static void on_answer(void *arg, const struct http_reply *r)
{
	struct asked *a = arg;
	if (r->failure != HTTP_OK) {
		err_set(a->e, -EIO, "%s", r->detail);
		a->answer->maybe_sent = r->sent;
	} else {
		a->answer->status = r->status;
		a->answer->json =
			span_starts(http_reply_field(r, "Content-Type"), SPAN_LIT("application/json"));
		span_copy(http_reply_field(r, "ETag"), a->answer->etag, sizeof(a->answer->etag));
		span_copy(http_reply_field(r, "Content-Type"), a->answer->content_type,
			  sizeof(a->answer->content_type));
		span_copy(http_reply_field(r, "Location"), a->answer->location, sizeof(a->answer->location));
		buf_append_span(&a->answer->body, r->body);
	}
	a->done = true;
	loop_stop(a->loop);
}

/* One call, as it is. */
static int ask_once(struct rollout_place *p, const char *method, const char *path, struct span body,
		    struct flipt_answer *answer, struct err *e)
{
	CLEANUP(freep) char *url = NULL;
	CLEANUP(buf_releasep) struct buf authorization = BUF_INIT(FLIPT_TOKEN_MAX + 64);
	const struct config *c = p->config;
	struct http_field fields[4] = {{SPAN_LIT("Content-Type"), SPAN_LIT("application/json")},
				       {SPAN_LIT("X-Flipt-Accept-Server-Version"), SPAN_LIT("1.47.0")},
				       {SPAN_LIT("X-Flipt-Environment"), span_of(c->flags.environment)}};
	size_t n = 3, length = strlen(c->flags.url);
	while (length && c->flags.url[length - 1] == '/')
		length--;
	if (asprintf(&url, "%.*s%s", (int)length, c->flags.url, path) < 0 ||
	    flipt_credential_header(&p->credential, &authorization) < 0)
		return err_set(e, -ENOMEM, "out of memory");
	if (authorization.len)
		fields[n++] = (struct http_field){SPAN_LIT("Authorization"), buf_span(&authorization)};
	buf_clear(&answer->body);
	*answer = (struct flipt_answer){.body = answer->body};
	const unsigned timeout_ms = p->timeout_ms ? p->timeout_ms : TIMEOUT_MS;
	struct asked a = {.loop = p->loop, .answer = answer, .e = e};
	struct http_call_request q = {
		.method = method,
		.url = url,
		.fields = fields,
		.n_fields = n,
		.body = body,
		.connect_timeout_ms = timeout_ms < CONNECT_TIMEOUT_MS ? timeout_ms : CONNECT_TIMEOUT_MS,
		.timeout_ms = timeout_ms,
		.max_body = FLAG_MAX_DOCUMENT,
		.may_resend = strcmp(method, "GET") == 0};
	struct http_events events = {.arg = &a, .done = on_answer};
	struct http_call *call;
	int r = http_start(p->http, &q, &events, &call, e);
	if (r < 0)
		return r;
	loop_timer_start(p->slow, SLOW_MS);
	if (p->voice.stopped)
		loop_timer_start(p->tick, 0);
	while (r == 0 && !a.done && !p->gave_up) /* others on this loop stop it as well (rollout_wait.c) */
		r = loop_run(p->loop);
	loop_timer_stop(p->slow);
	loop_timer_stop(p->tick);
	if (!a.done) {
		http_cancel(call);
		answer->maybe_sent = true;
	}
	if (r == 0 && !a.done)
		return err_set(e, -ECANCELED, "Flipt: gave up waiting, since this program is ending");
	if (r < 0)
		return err_set(e, r, "event loop: %s", strerror(-r));
	return answer->status ? 0 : err_prefix(e, -EIO, "Flipt");
}

/* A Kubernetes token is exchanged for a client token before anything else. */
static int log_in(struct rollout_place *p, struct err *e)
{
	CLEANUP(buf_releasep) struct buf body = BUF_INIT(FLIPT_TOKEN_MAX * 2);
	CLEANUP(flipt_answer_release) struct flipt_answer answer = FLIPT_ANSWER_INIT;
	int r = flipt_credential_login_body(&p->credential, &body);
	if (r == 0)
		r = ask_once(p, "POST", FLIPT_LOGIN_PATH, buf_span(&body), &answer, e);
	if (r == 0)
		r = flipt_expect("the exchange of the service account's token", &answer, e);
	if (r == 0 && !flipt_credential_logged_in(&p->credential, buf_span(&answer.body)))
		r = err_set(e, -EBADMSG, "the exchange of the service account's token returned none");
	return r;
}

int flipt_ask(struct rollout_place *p, const char *method, const char *path, struct span body,
	      struct flipt_answer *answer, struct err *e)
{
	int r = flipt_credential_wants_login(&p->credential) ? log_in(p, e) : 0;
	return r < 0 ? r : ask_once(p, method, path, body, answer, e);
}

int flipt_expect(const char *what, const struct flipt_answer *answer, struct err *e)
{
	struct span message;
	char text[512];
	const struct flipt_refusal refusal = {.status = answer->status,
					      .content_type = span_of(answer->content_type),
					      .location = span_of(answer->location),
					      .body = buf_span(&answer->body)};
	bool html = flipt_is_html(refusal.content_type, refusal.body);
	if (answer->status == 200 && !html)
		return 0;
	if (html || (answer->status >= 300 && answer->status < 400))
		return err_set(e, -EIO, "%s: %s", what, flipt_refusal_text(&refusal, text, sizeof(text)));
	if (answer->status == 401 || answer->status == 403)
		return err_set(e, -EACCES,
			       "Flipt answers %d: the client token is missing or lacks permission "
			       "(FLIPT_CLIENT_TOKEN, or "
			       "token_file in the configuration)",
			       answer->status);
	if (!answer->json || !json_pointer(buf_span(&answer->body), SPAN_LIT("/message"), &message))
		return err_set(e, answer->status == 404 ? -ENOENT : -EIO,
			       "%s: the server answers %d: is this Flipt?", what, answer->status);
	return err_set(e, answer->status == 404 ? -ENOENT : -EIO, "%s: Flipt answers %d %.*s", what,
		       answer->status, SPAN_ARG(message));
}

int flipt_get(struct rollout_place *p, const char *path, struct flipt_answer *answer, struct err *e)
{
	int r = flipt_ask(p, "GET", path, SPAN_NONE, answer, e);
	return r < 0 ? r : flipt_expect(path, answer, e);
}

/* --- the snapshot --------------------------------------------------------------------------------------- */

static int snapshot_path(const struct rollout_place *p, int version, struct buf *path, struct err *e)
{
	const struct config *c = p->config;
	buf_clear(path);
	if (version == 1) {
		buf_puts(path, "/internal/v1/evaluation/snapshot/namespace/");
		buf_put_segment(path, span_of(c->flags.namespace_key));
	} else {
		buf_puts(path, "/client/v2/environments/");
		buf_put_segment(path, span_of(c->flags.environment));
		buf_puts(path, "/namespaces/");
		buf_put_segment(path, span_of(c->flags.namespace_key));
		buf_puts(path, "/snapshot");
	}
	return path->error ? err_set(e, path->error, "the namespace's name is too long") : 0;
}

static void keep_digest(struct rollout_place *p, const struct flipt_answer *answer)
{
	struct span digest;
	bool own = json_pointer(buf_span(&answer->body), SPAN_LIT("/digest"), &digest) && digest.len > 2;
	span_copy(own ? (struct span){digest.ptr + 1, digest.len - 2} : span_of(answer->etag), p->digest,
		  sizeof(p->digest));
	if (p->version == 2 && strlen(p->digest) != DIGEST_LENGTH)
		place_say(p, MOVE_WARNS,
			  "warning: Flipt's snapshot is incomplete (its digest has %zu characters, not %d): "
			  "routers keep their last "
			  "good one until it is fixed\n",
			  strlen(p->digest), DIGEST_LENGTH);
}

static int refuse_namespace(const struct rollout_place *p, struct err *e)
{
	return err_set(e, -ENOENT, "Flipt has no %s", strstr(p->name, "environment "));
}

/* v1 over a database gives an empty snapshot of a namespace that is not there. */
static int check_namespace(struct rollout_place *p, struct err *e)
{
	CLEANUP(flipt_answer_release) struct flipt_answer answer = FLIPT_ANSWER_INIT;
	CLEANUP(buf_releasep) struct buf path = BUF_INIT(PATH_LIMIT);
	struct span any;
	if (p->version != 1 || json_pointer(buf_span(&p->flags), SPAN_LIT("/flags/0"), &any))
		return 0;
	buf_puts(&path, "/api/v1/namespaces/");
	buf_put_segment(&path, span_of(p->config->flags.namespace_key));
	int r = path.error ? path.error : flipt_get(p, path.ptr, &answer, e);
	return r == -ENOENT ? refuse_namespace(p, e) : r;
}

/* Also tells the version where no snapshot can be had. */
static void ask_server_version(struct rollout_place *p)
{
	CLEANUP(flipt_answer_release) struct flipt_answer answer = FLIPT_ANSWER_INIT;
	if (p->server_asked)
		return;
	p->server_asked = true;
	if (flipt_ask(p, "GET", FLIPT_INFO_PATH, SPAN_NONE, &answer, NULL) < 0 || answer.status != 200)
		return;
	p->server = flipt_server_of(buf_span(&answer.body));
	if (p->server.known && !p->version)
		p->version = p->server.major == 1 ? 1 : 2;
}

int flipt_read_snapshot(struct rollout_place *p, struct err *e)
{
	ask_server_version(p);
	CLEANUP(flipt_answer_release) struct flipt_answer answer = FLIPT_ANSWER_INIT;
	CLEANUP(buf_releasep) struct buf path = BUF_INIT(PATH_LIMIT);
	int version = p->version ? p->version : 2;
	int r = snapshot_path(p, version, &path, e);
	if (r == 0)
		r = flipt_ask(p, "GET", path.ptr, SPAN_NONE, &answer, e);
	if (r == 0 && !p->version && answer.status == 404 && !answer.json) {
		/* v1 has no such path at all: text, where v2 answers JSON. */
		version = 1;
		r = snapshot_path(p, version, &path, e);
		if (r == 0)
			r = flipt_ask(p, "GET", path.ptr, SPAN_NONE, &answer, e);
	}
	if (r == 0 && answer.status == 404 && answer.json)
		return refuse_namespace(p, e);
	if (r == 0)
		r = flipt_expect(path.ptr, &answer, e);
	if (r < 0)
		return r;
	p->version = version;
	keep_digest(p, &answer);
	buf_clear(&p->flags);
	r = buf_append_span(&p->flags, buf_span(&answer.body));
	return r < 0 ? r : check_namespace(p, e);
}

/* --- v2 ------------------------------------------------------------------------------------------------- */

static int resources_path(const struct rollout_place *p, const char *type, const char *key, struct buf *path,
			  struct err *e)
{
	const struct config *c = p->config;
	buf_puts(path, "/api/v2/environments/");
	buf_put_segment(path, span_of(c->flags.environment));
	buf_puts(path, "/namespaces/");
	buf_put_segment(path, span_of(c->flags.namespace_key));
	buf_puts(path, "/resources");
	buf_puts(path, type);
	if (key) {
		buf_putc(path, '/');
		buf_put_segment(path, span_of(key));
	}
	return path->error ? err_set(e, path->error, "the flag's key is too long") : 0;
}

static int read_segments(struct rollout_place *p, struct err *e)
{
	CLEANUP(flipt_answer_release) struct flipt_answer answer = FLIPT_ANSWER_INIT;
	CLEANUP(buf_releasep) struct buf path = BUF_INIT(PATH_LIMIT);
	int r = resources_path(p, "/flipt.core.Segment", NULL, &path, e);
	if (r == 0)
		r = flipt_get(p, path.ptr, &answer, e);
	buf_clear(&p->segments);
	return r < 0 ? r : buf_append_span(&p->segments, buf_span(&answer.body));
}

/* An emergency does without. */
static int read_segments_if_needed(struct rollout_place *p, struct err *e)
{
	int r = read_segments(p, e);
	if (r == 0 || !p->insist)
		return r;
	place_say(p, MOVE_WARNS, "warning: the namespace's segments cannot be read: %s\n", e->text);
	return 0;
}

int flipt_read_v2(struct rollout_place *p, const char *flag, struct err *e)
{
	CLEANUP(flipt_answer_release) struct flipt_answer answer = FLIPT_ANSWER_INIT;
	CLEANUP(buf_releasep) struct buf path = BUF_INIT(PATH_LIMIT);
	struct span payload, revision;
	int r = read_segments_if_needed(
		p, e); /* first, so that little time lies between the revision and the write */
	buf_clear(&p->revision);
	if (r == 0)
		r = resources_path(p, "/flipt.core.Flag", flag, &path, e);
	if (r == 0)
		r = flipt_get(p, path.ptr, &answer, e);
	if (r < 0)
		return r;
	if (!json_pointer(buf_span(&answer.body), SPAN_LIT("/resource/payload"), &payload) ||
	    !json_pointer(buf_span(&answer.body), SPAN_LIT("/revision"), &revision) || revision.len <= 2)
		return err_set(e, -EBADMSG, "%s: no payload or no revision in the answer", path.ptr);
	buf_append_span(&p->document, payload);
	return buf_append_span(&p->revision, revision);
}

/* Whether the payload names the segment; its key could also be elsewhere in it, which does no harm. */
static bool names_segment(struct span payload, struct span segment)
{
	struct span key;
	return json_pointer(segment, SPAN_LIT("/key"), &key) && key.len > 2 &&
	       memmem(payload.ptr, payload.len, key.ptr, key.len);
}

/*
 * What a resource has in common with a features file: the members that a file knows, at each level. Others
 * ("@type", what a newer Flipt adds) are a mistake in a file, and none here.
 */
enum part {
	RAW,
	FLAG,
	VARIANT,
	RULE,
	DISTRIBUTION,
	ROLLOUT,
	ROLLOUT_SEGMENT,
	ROLLOUT_THRESHOLD_PART,
	SEGMENT,
	CONSTRAINT
};

#define PART_MEMBERS 10

struct part_member {
	const char *quoted; /* NULL: no more */
	enum part part;	    /* of the value, or of each of its elements */
};

static const struct part_member parts[][PART_MEMBERS] = {
	[FLAG] = {{"\"key\"", RAW},
		  {"\"name\"", RAW},
		  {"\"description\"", RAW},
		  {"\"type\"", RAW},
		  {"\"enabled\"", RAW},
		  {"\"variants\"", VARIANT},
		  {"\"rules\"", RULE},
		  {"\"rollouts\"", ROLLOUT},
		  {"\"metadata\"", RAW}},
	[VARIANT] = {{"\"key\"", RAW}, {"\"name\"", RAW}, {"\"description\"", RAW}, {"\"attachment\"", RAW}},
	[RULE] = {{"\"segments\"", RAW}, {"\"segmentOperator\"", RAW}, {"\"distributions\"", DISTRIBUTION}},
	[DISTRIBUTION] = {{"\"variant\"", RAW}, {"\"rollout\"", RAW}},
	[ROLLOUT] = {{"\"segment\"", ROLLOUT_SEGMENT},
		     {"\"threshold\"", ROLLOUT_THRESHOLD_PART},
		     {"\"description\"", RAW}},
	[ROLLOUT_SEGMENT] = {{"\"segments\"", RAW}, {"\"segmentOperator\"", RAW}, {"\"value\"", RAW}},
	[ROLLOUT_THRESHOLD_PART] = {{"\"percentage\"", RAW}, {"\"value\"", RAW}},
	[SEGMENT] = {{"\"key\"", RAW},
		     {"\"name\"", RAW},
		     {"\"description\"", RAW},
		     {"\"matchType\"", RAW},
		     {"\"constraints\"", CONSTRAINT}},
	[CONSTRAINT] = {{"\"type\"", RAW},
			{"\"property\"", RAW},
			{"\"operator\"", RAW},
			{"\"value\"", RAW},
			{"\"description\"", RAW}}};

static const struct part_member *part_member(enum part part, struct span key)
{
	for (const struct part_member *m = parts[part]; m < parts[part] + PART_MEMBERS && m->quoted; m++)
		if (span_is(key, m->quoted))
			return m;
	return NULL;
}

static void put_part(struct span value, enum part part, struct buf *out)
{
	enum json_type type = part == RAW ? JSON_NULL : json_type_of(value);
	struct span key, item;
	struct json_iter it;
	bool first = true;
	if (type != JSON_OBJECT && type != JSON_ARRAY) {
		buf_append_span(out, value);
		return;
	}
	buf_putc(out, type == JSON_OBJECT ? '{' : '[');
	for (json_iter_init(&it, value); json_iter_next(&it, &key, &item);) {
		const struct part_member *m = type == JSON_OBJECT ? part_member(part, key) : NULL;
		if (type == JSON_OBJECT && !m)
			continue;
		buf_puts(out, first ? "" : ",");
		first = false;
		if (m) {
			buf_append_span(out, key);
			buf_putc(out, ':');
		}
		put_part(item, m ? m->part : part, out);
	}
	buf_putc(out, type == JSON_OBJECT ? '}' : ']');
}

/* The flag beside those of the namespace's segments that it names, as a features file: other people's are
 * no matter of it. */
static void put_features(const struct rollout_place *p, struct span payload, struct buf *features)
{
	struct span list, ignored, resource, segment;
	struct json_iter it;
	bool first = true;
	buf_puts(features, "{\"flags\": [");
	put_part(payload, FLAG, features);
	buf_puts(features, "], \"segments\": [");
	if (json_pointer(buf_span(&p->segments), SPAN_LIT("/resources"), &list))
		for (json_iter_init(&it, list); json_iter_next(&it, &ignored, &resource);)
			if (json_pointer(resource, SPAN_LIT("/payload"), &segment) &&
			    names_segment(payload, segment)) {
				buf_puts(features, first ? "" : ", ");
				put_part(segment, SEGMENT, features);
				first = false;
			}
	buf_puts(features, "]}");
}

/* v2 takes what is invalid: the flag is read as a features file is, which names every mistake. */
static int check_payload(const struct rollout_place *p, struct span payload, struct err *e)
{
	CLEANUP(buf_releasep) struct buf features = BUF_INIT(FLAG_MAX_DOCUMENT);
	struct flag_snapshot *s = NULL;
	put_features(p, payload, &features);
	int r = features.error ? err_set(e, features.error, "the namespace is too large")
			       : flag_snapshot_parse_features("Flipt's flag", buf_span(&features),
							      place_rules(p), &s, e);
	const struct flag *f = r == 0 ? flag_snapshot_at(s, 0) : NULL;
	if (f && flag_broken(f))
		r = err_set(e, -EINVAL, "%s", flag_broken(f));
	flag_snapshot_unref(s);
	if (r == 0 || !p->insist)
		return r;
	place_say(p, MOVE_WARNS, "warning: the flag is not valid, before and after the change: %s\n",
		  e->text);
	return 0;
}

enum place_written flipt_write_v2(struct rollout_place *p, const char *flag, struct span text, struct err *e)
{
	CLEANUP(flipt_answer_release) struct flipt_answer answer = FLIPT_ANSWER_INIT;
	CLEANUP(buf_releasep) struct buf body = BUF_INIT(FLAG_MAX_DOCUMENT);
	CLEANUP(buf_releasep) struct buf path = BUF_INIT(PATH_LIMIT);
	if (check_payload(p, text, e) < 0 || resources_path(p, "", NULL, &path, e) < 0)
		return PLACE_NOT_WRITTEN;
	buf_puts(&body, "{\"key\":");
	json_quote(&body, span_of(flag));
	buf_puts(&body, ",\"payload\":");
	buf_append_span(&body, text);
	buf_printf(&body, ",\"revision\":%s}", p->revision.ptr);
	if (body.error) {
		err_set(e, body.error, "the flag is too large");
		return PLACE_NOT_WRITTEN;
	}
	if (flipt_ask(p, "PUT", path.ptr, buf_span(&body), &answer, e) < 0)
		return answer.maybe_sent ? PLACE_UNKNOWN : PLACE_NOT_WRITTEN;
	if (answer.status == 409)
		return PLACE_CHANGED_MEANWHILE;
	return flipt_expect(path.ptr, &answer, e) < 0 ? PLACE_NOT_WRITTEN : PLACE_WRITTEN;
}

/* --- whom segments are about, without a snapshot -------------------------------------------------------- */

static void put_segment(struct span segment, size_t i, struct buf *out)
{
	struct span key, first;
	if (!json_pointer(segment, SPAN_LIT("/key"), &key) || json_type_of(key) != JSON_STRING)
		return;
	bool constrained = json_pointer(segment, SPAN_LIT("/constraints/0"), &first);
	buf_printf(out, "%s{\"segments\":[{\"key\":%.*s,\"constraints\":[%s]}]}", i ? "," : "", SPAN_ARG(key),
		   constrained ? "{}" : "");
}

/* v1 lists them by themselves, v2 as resources. */
static int list_segments(struct rollout_place *p, struct err *e)
{
	CLEANUP(flipt_answer_release) struct flipt_answer answer = FLIPT_ANSWER_INIT;
	CLEANUP(buf_releasep) struct buf path = BUF_INIT(PATH_LIMIT);
	if (p->version != 1)
		return read_segments(p, e);
	buf_puts(&path, "/api/v1/namespaces/");
	buf_put_segment(&path, span_of(p->config->flags.namespace_key));
	buf_puts(&path, "/segments");
	int r = path.error ? err_set(e, path.error, "the namespace's name is too long")
			   : flipt_get(p, path.ptr, &answer, e);
	buf_clear(&p->segments);
	return r < 0 ? r : buf_append_span(&p->segments, buf_span(&answer.body));
}

int flipt_know_segments(struct rollout_place *p, const char *flag, struct flag_snapshot **ret, struct err *e)
{
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(FLAG_MAX_DOCUMENT);
	struct span list, ignored, item, payload;
	struct json_iter it;
	int r = list_segments(p, e);
	if (r < 0)
		return r;
	buf_puts(&text, "{\"flags\":[{\"key\":");
	json_quote(&text, span_of(flag));
	buf_puts(&text, ",\"type\":\"VARIANT_FLAG_TYPE\",\"rules\":[");
	if (json_pointer(buf_span(&p->segments),
			 p->version == 1 ? SPAN_LIT("/segments") : SPAN_LIT("/resources"), &list)) {
		json_iter_init(&it, list);
		for (size_t i = 0; json_iter_next(&it, &ignored, &item); i++)
			put_segment(json_pointer(item, SPAN_LIT("/payload"), &payload) ? payload : item, i,
				    &text);
	}
	buf_puts(&text, "]}]}");
	return text.error ? err_set(e, text.error, "the namespace is too large")
			  : flag_snapshot_parse_json("segments", buf_span(&text), FLAG_RULES_V1, ret, e);
}

/* --- the server's own answer ---------------------------------------------------------------------------- */

int flipt_evaluate(struct rollout_place *p, const struct flag *f, const char *entity, struct buf *ret,
		   struct err *e)
{
	CLEANUP(flipt_answer_release) struct flipt_answer answer = FLIPT_ANSWER_INIT;
	CLEANUP(buf_releasep) struct buf body = BUF_INIT(65536);
	bool boolean = flag_type_of(f) == FLAG_BOOLEAN;
	const struct span texts[] = {span_of(p->config->flags.namespace_key), span_of(flag_key(f)),
				     span_of(entity), span_of(entity)};
	static const char *const before[] = {
		"{\"namespaceKey\":", ",\"flagKey\":", ",\"entityId\":", ",\"context\":{\"user_id\":"};
	struct span value;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		buf_puts(&body, before[i]);
		json_quote(&body, texts[i]);
	}
	buf_puts(&body, "}}");
	const char *path = boolean ? "/evaluate/v1/boolean" : "/evaluate/v1/variant";
	int r = body.error ? err_set(e, body.error, "the flag's key is too long")
			   : flipt_ask(p, "POST", path, buf_span(&body), &answer, e);
	if (r == 0)
		r = flipt_expect(path, &answer, e);
	if (r < 0)
		return r;
	if (!json_pointer(buf_span(&answer.body), boolean ? SPAN_LIT("/enabled") : SPAN_LIT("/variantKey"),
			  &value))
		return err_set(e, -EBADMSG, "%s: the answer lacks the requested data", path);
	return boolean ? buf_append_span(ret, value) : json_unescape(value, ret);
}
