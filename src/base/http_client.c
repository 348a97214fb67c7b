/*
 * libcurl calls back while it works, and must not be called from there. So its callbacks here only collect:
 * bytes, heads, ends. What the caller must learn is reported afterwards, by deliver(), outside of libcurl,
 * where the caller may start and cancel as it likes.
 */
#include "base/http_client.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/queue.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/curl_loop.h"

#define DEFAULT_MAX_BODY (16u << 20)
#define DEFAULT_CONNECT_MS 10000

struct http_client {
	struct loop *loop;
	struct curl_loop *curl;
	char *ca_file, *client_cert, *client_key;
	unsigned keep_ms;
	bool http2;
	bool reuse_is_broken; /* see h2c_begin */
	unsigned kept;	      /* connections that can be used again, as far as we know */
	LIST_HEAD(, http_call) calls;
	struct http_call *at; /* deliver()'s place in `calls`, moved on when the call there goes */
};

struct http_call {
	struct http_client *client;
	LIST_ENTRY(http_call) place;
	CURL *easy;
	struct curl_slist *fields;
	struct loop_timer *idle, *deadline;
	struct http_events events;
	struct buf head, body, trailers;
	size_t max_body;
	unsigned idle_timeout_ms;
	int status;
	bool streaming;	 /* the caller wants pieces and the status is 2xx */
	bool head_ended; /* the final head is complete */
	bool head_told;
	bool may_resend;
	bool sent;
	bool only_reused, was_new; /* see h2c_begin */
	bool resend_refused, too_large, idle_ran_out, time_ran_out;
	bool ended;
	CURLcode result;
	char error[CURL_ERROR_SIZE];
};

/* --- answers -------------------------------------------------------------------------------------------- */

struct span http_line_field(struct span rest, const char *name)
{
	while (rest.len) {
		const char *nl = memchr(rest.ptr, '\n', rest.len);
		struct span line = {rest.ptr, nl ? (size_t)(nl - rest.ptr) : rest.len};
		size_t step = nl ? line.len + 1 : line.len;
		rest.ptr += step, rest.len -= step;
		const char *colon = memchr(line.ptr, ':', line.len);
		if (!colon || !span_is_nocase((struct span){line.ptr, (size_t)(colon - line.ptr)}, name))
			continue;
		if (line.len && line.ptr[line.len - 1] == '\r')
			line.len--;
		return span_trim((struct span){colon + 1, (size_t)(line.ptr + line.len - colon - 1)});
	}
	return SPAN_NONE;
}

struct span http_reply_field(const struct http_reply *r, const char *name)
{
	return http_line_field(r->head, name);
}

static enum http_failure failure_of(const struct http_call *c)
{
	if (c->resend_refused)
		return HTTP_NO_REPLY;
	if (c->too_large)
		return HTTP_TOO_LARGE;
	if (c->idle_ran_out || c->time_ran_out)
		return HTTP_TIMED_OUT;
	switch (c->result) {
	case CURLE_OK:
		return HTTP_OK;
	case CURLE_OPERATION_TIMEDOUT:
		return HTTP_TIMED_OUT;
	case CURLE_SSL_CONNECT_ERROR:
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CACERT_BADFILE:
	case CURLE_SSL_CERTPROBLEM:
	case CURLE_SSL_CIPHER:
	case CURLE_SSL_ISSUER_ERROR:
	case CURLE_SSL_INVALIDCERTSTATUS:
		return c->sent ? HTTP_NO_REPLY : HTTP_TLS_FAILED;
	case CURLE_UNSUPPORTED_PROTOCOL:
	case CURLE_WEIRD_SERVER_REPLY:
	case CURLE_BAD_CONTENT_ENCODING:
	case CURLE_TOO_MANY_REDIRECTS:
		return c->sent ? HTTP_MALFORMED : HTTP_NOT_CONNECTED;
	default:
		return c->sent ? HTTP_NO_REPLY : HTTP_NOT_CONNECTED;
	}
}

static const char *detail_of(const struct http_call *c)
{
	if (c->resend_refused)
		return "the connection was lost before an answer; the request is not sent again";
	if (c->too_large)
		return "the answer is larger than allowed";
	if (c->idle_ran_out)
		return "the server sent nothing for too long";
	if (c->time_ran_out)
		return "the time for it has run out";
	return c->error[0] ? c->error : curl_easy_strerror(c->result);
}

/* --- what libcurl calls; collect only ------------------------------------------------------------------- */

/* libcurl before 8.0 begins HTTP/2 anew on a connection that it uses again, when the version asked for is
 * "by prior knowledge" (https://github.com/curl/curl/pull/10643); with "2" it goes on in what is there, but
 * would upgrade a new one from HTTP/1.1. So there a call says "2" when a kept connection should be there, and
 * begins a second time, by prior knowledge, when libcurl opened a new one after all: nothing was sent. */
static void h2c_begin(struct http_call *c, bool reused)
{
	c->only_reused = reused;
	c->was_new = false;
	curl_easy_setopt(c->easy, CURLOPT_HTTP_VERSION,
			 (long)(reused ? CURL_HTTP_VERSION_2_0 : CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE));
	curl_easy_setopt(c->easy, CURLOPT_FRESH_CONNECT, reused ? 0L : 1L);
}

static bool h2c_is_new(const struct http_call *c)
{
	long connects = 0;
	curl_easy_getinfo(c->easy, CURLINFO_NUM_CONNECTS, &connects);
	return connects > 0;
}

static void h2c_set_version(struct http_call *c)
{
	if (!c->client->reuse_is_broken) {
		curl_easy_setopt(c->easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE);
		return;
	}
	h2c_begin(c, c->client->kept > 0);
	if (c->client->kept)
		c->client->kept--;
}

/* False when there is nothing to begin again. */
static bool h2c_again(struct http_call *c)
{
	if (!c->was_new)
		return false;
	curl_multi_remove_handle(curl_loop_multi(c->client->curl), c->easy);
	h2c_begin(c, false);
	c->ended = false;
	c->error[0] = '\0';
	return curl_multi_add_handle(curl_loop_multi(c->client->curl), c->easy) == CURLM_OK;
}

static int on_before_send(void *arg, char *ip, char *local_ip, int port, int local_port)
{
	(void)ip, (void)local_ip, (void)port, (void)local_port;
	struct http_call *c = arg;
	if (c->only_reused && h2c_is_new(c)) {
		c->was_new = true;
		return CURL_PREREQFUNC_ABORT;
	}
	if (c->sent && !c->may_resend) {
		c->resend_refused = true;
		return CURL_PREREQFUNC_ABORT;
	}
	c->sent = true;
	return CURL_PREREQFUNC_OK;
}

static void touch(struct http_call *c)
{
	if (c->idle)
		loop_timer_start(c->idle, c->idle_timeout_ms);
}

static size_t on_head_line(char *bytes, size_t size, size_t n, void *arg)
{
	struct http_call *c = arg;
	size_t len = size * n;
	touch(c);
	if (len >= 5 && memcmp(bytes, "HTTP/", 5) == 0) {
		buf_clear(&c->head); /* a new answer: after 1xx, a redirect */
		return len;
	}
	if (len <= 2 && (bytes[0] == '\r' || bytes[0] == '\n')) {
		long status = 0;
		curl_easy_getinfo(c->easy, CURLINFO_RESPONSE_CODE, &status);
		c->status = (int)status;
		c->head_ended = status >= 200;
		c->streaming = c->events.piece && status >= 200 && status < 300;
		return len;
	}
	struct buf *lines = c->head_ended ? &c->trailers : &c->head;
	if ((!c->head_ended || c->client->http2) && buf_append(lines, bytes, len) < 0) {
		c->too_large = true;
		return 0;
	}
	return len;
}

static size_t http_client_on_body(char *bytes, size_t size, size_t n, void *arg)
{
	struct http_call *c = arg;
	touch(c);
	if (buf_append(&c->body, bytes, size * n) < 0) {
		c->too_large = true;
		return 0;
	}
	return size * n;
}

/* --- ends ----------------------------------------------------------------------------------------------- */

static void http_client_call_free(struct http_call *c)
{
	if (c->client->at == c)
		c->client->at = LIST_NEXT(c, place);
	LIST_REMOVE(c, place);
	if (c->easy) {
		/* the server learns at once that nobody waits, and no half stream is left behind */
		if (c->client->http2 && !c->ended)
			curl_easy_setopt(c->easy, CURLOPT_FORBID_REUSE, 1L);
		curl_multi_remove_handle(curl_loop_multi(c->client->curl), c->easy);
		curl_easy_cleanup(c->easy);
	}
	curl_slist_free_all(c->fields);
	loop_timer_free(c->idle);
	loop_timer_free(c->deadline);
	buf_release(&c->head);
	buf_release(&c->body);
	buf_release(&c->trailers);
	free(c);
}

struct http_call *http_cancel(struct http_call *call)
{
	if (call)
		http_client_call_free(call);
	return NULL;
}

static void http_client_finish(struct http_call *c)
{
	struct http_reply reply = {.failure = failure_of(c),
				   .sent = c->sent,
				   .status = c->status,
				   .head = buf_span(&c->head),
				   .trailers = buf_span(&c->trailers)};
	if (reply.failure != HTTP_OK)
		reply.detail = detail_of(c);
	else if (!c->streaming)
		reply.body = buf_span(&c->body);
	if (c->client->reuse_is_broken && reply.failure == HTTP_OK)
		c->client->kept++;
	struct http_events events = c->events;
	/* Out of libcurl and the list first, so that the caller may free or start things; the bytes stay
	 * until it returns. */
	struct buf head = c->head, body = c->body, trailers = c->trailers;
	char detail[CURL_ERROR_SIZE];
	if (reply.detail) {
		span_copy(span_of(reply.detail), detail, sizeof(detail));
		reply.detail = detail;
	}
	c->head = c->body = c->trailers = BUF_INIT(0);
	http_client_call_free(c);
	events.done(events.arg, &reply);
	buf_release(&head);
	buf_release(&body);
	buf_release(&trailers);
}

/* Tells the head and the pieces that are there; the call may be cancelled in both. False when it is gone. */
static bool tell_progress(struct http_client *client, struct http_call *c)
{
	client->at = c;
	if (c->head_ended && !c->head_told) {
		c->head_told = true;
		if (c->events.head)
			c->events.head(c->events.arg, c->status);
		if (client->at != c)
			return false;
	}
	if (c->streaming && c->body.len) {
		struct buf piece = c->body;
		buf_init(&c->body, c->max_body);
		c->events.piece(c->events.arg, buf_span(&piece));
		buf_release(&piece);
	}
	return client->at == c;
}

static void collect_ends(struct http_client *client)
{
	CURLMsg *m;
	int left;
	while ((m = curl_multi_info_read(curl_loop_multi(client->curl), &left))) {
		struct http_call *c = NULL;
		if (m->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&c);
		c->ended = true;
		c->result = m->data.result;
	}
}

/* `at` follows the walk, since a callback may end any call, the next one too. */
static void deliver(void *arg)
{
	struct http_client *client = arg;
	collect_ends(client);
	struct http_call *c = LIST_FIRST(&client->calls);
	while (c) {
		if (tell_progress(client, c)) {
			client->at = LIST_NEXT(c, place);
			if (c->ended && !h2c_again(c))
				http_client_finish(c);
		}
		c = client->at;
	}
	client->at = NULL;
}

static void on_idle(void *arg)
{
	struct http_call *c = arg;
	c->idle_ran_out = true;
	http_client_finish(c);
}

static void on_deadline(void *arg)
{
	struct http_call *c = arg;
	c->time_ran_out = true;
	http_client_finish(c);
}

/* --- client --------------------------------------------------------------------------------------------- */

static bool http_client_copy_text(const char *from, char **to)
{
	*to = from ? strdup(from) : NULL;
	return !from || *to;
}

int http_client_new(struct loop *loop, const struct http_client_options *o, struct http_client **ret,
		    struct err *e)
{
	static const struct http_client_options none;
	o = o ? o : &none;
	if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
		return err_set(e, -EIO, "libcurl cannot be set up");
	struct http_client *c = calloc(1, sizeof(*c));
	if (!c) {
		curl_global_cleanup();
		return err_set(e, -ENOMEM, "out of memory");
	}
	c->loop = loop;
	c->keep_ms = o->keep_ms ? o->keep_ms : 60000;
	c->http2 = o->http2;
	c->reuse_is_broken = o->http2 && curl_version_info(CURLVERSION_NOW)->version_num < 0x080000;
	if (!http_client_copy_text(o->ca_file, &c->ca_file) ||
	    !http_client_copy_text(o->client_cert, &c->client_cert) ||
	    !http_client_copy_text(o->client_key, &c->client_key) ||
	    curl_loop_new(loop, deliver, c, &c->curl) < 0) {
		http_client_free(c);
		return err_set(e, -ENOMEM, "out of memory");
	}
	CURLM *multi = curl_loop_multi(c->curl);
	curl_multi_setopt(multi, CURLMOPT_PIPELINING, CURLPIPE_NOTHING);
	curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, (long)(o->max_connections ? o->max_connections : 64));
	*ret = c;
	return 0;
}

struct http_client *http_client_free(struct http_client *c)
{
	if (!c)
		return NULL;
	while (!LIST_EMPTY(&c->calls))
		http_client_call_free(LIST_FIRST(&c->calls));
	curl_loop_free(c->curl);
	free(c->ca_file);
	free(c->client_cert);
	free(c->client_key);
	free(c);
	curl_global_cleanup();
	return NULL;
}

/* --- a request ------------------------------------------------------------------------------------------ */

static bool clean(struct span s)
{
	for (size_t i = 0; i < s.len; i++)
		if (s.ptr[i] == '\r' || s.ptr[i] == '\n' || s.ptr[i] == '\0')
			return false;
	return true;
}

static int http_client_add_field(struct http_call *c, const char *text)
{
	struct curl_slist *l = curl_slist_append(c->fields, text);
	if (!l)
		return -ENOMEM;
	c->fields = l;
	return 0;
}

static int add_fields(struct http_call *c, const struct http_call_request *r, struct err *e)
{
	bool has_type = false;
	for (size_t i = 0; i < r->n_fields; i++) {
		const struct http_field *f = &r->fields[i];
		CLEANUP(buf_releasep) struct buf line = BUF_INIT(HTTP_MAX_HEAD);
		if (!f->name.len || !clean(f->name) || !clean(f->value))
			return err_set(e, -EINVAL, "header %.*s: not a valid field", SPAN_ARG(f->name));
		buf_append_span(&line, f->name);
		/* libcurl's spelling of a field with an empty value is "Name;" */
		buf_puts(&line, f->value.len ? ": " : ";");
		buf_append_span(&line, f->value);
		if (line.error || http_client_add_field(c, line.ptr) < 0)
			return err_set(e, -ENOMEM, "header %.*s: too large", SPAN_ARG(f->name));
		has_type |= span_is_nocase(f->name, "content-type");
	}
	/* What libcurl would add by itself. */
	if (http_client_add_field(c, "Expect:") < 0 ||
	    (!has_type && http_client_add_field(c, "Content-Type:") < 0))
		return err_set(e, -ENOMEM, "out of memory");
	for (size_t i = 0; i < r->n_fields; i++)
		if (span_is_nocase(r->fields[i].name, "accept"))
			return 0;
	return http_client_add_field(c, "Accept:");
}

static void set_method(CURL *easy, const struct http_call_request *r)
{
	if (r->body.ptr || strcmp(r->method, "POST") == 0) {
		curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)r->body.len);
		curl_easy_setopt(easy, CURLOPT_COPYPOSTFIELDS, r->body.ptr ? r->body.ptr : "");
	} else if (strcmp(r->method, "HEAD") == 0) {
		curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
	}
	if (strcmp(r->method, "HEAD") != 0)
		curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, r->method);
}

static void set_limits(struct http_call *c, const struct http_call_request *r)
{
	curl_easy_setopt(c->easy, CURLOPT_CONNECTTIMEOUT_MS,
			 (long)(r->connect_timeout_ms ? r->connect_timeout_ms : DEFAULT_CONNECT_MS));
	/* of HTTP/2 our own timer ends it: see http_client_call_free */
	if (!c->client->http2)
		curl_easy_setopt(c->easy, CURLOPT_TIMEOUT_MS, (long)r->timeout_ms);
	curl_easy_setopt(c->easy, CURLOPT_MAXAGE_CONN, (long)((c->client->keep_ms + 999) / 1000));
	if (r->fresh_connection) {
		curl_easy_setopt(c->easy, CURLOPT_FRESH_CONNECT, 1L);
		curl_easy_setopt(c->easy, CURLOPT_FORBID_REUSE, 1L);
	}
	if (r->may_resend && r->max_redirects) {
		curl_easy_setopt(c->easy, CURLOPT_FOLLOWLOCATION, 1L);
		curl_easy_setopt(c->easy, CURLOPT_MAXREDIRS, (long)r->max_redirects);
	}
}

static void http_client_set_tls(struct http_call *c, const struct http_call_request *r)
{
	const char *ca = r->ca_file ? r->ca_file : c->client->ca_file;
	if (ca)
		curl_easy_setopt(c->easy, CURLOPT_CAINFO, ca);
	if (c->client->client_cert)
		curl_easy_setopt(c->easy, CURLOPT_SSLCERT, c->client->client_cert);
	if (c->client->client_key)
		curl_easy_setopt(c->easy, CURLOPT_SSLKEY, c->client->client_key);
}

static void set_callbacks(struct http_call *c)
{
	curl_easy_setopt(c->easy, CURLOPT_PRIVATE, c);
	curl_easy_setopt(c->easy, CURLOPT_ERRORBUFFER, c->error);
	curl_easy_setopt(c->easy, CURLOPT_PREREQFUNCTION, on_before_send);
	curl_easy_setopt(c->easy, CURLOPT_PREREQDATA, c);
	curl_easy_setopt(c->easy, CURLOPT_HEADERFUNCTION, on_head_line);
	curl_easy_setopt(c->easy, CURLOPT_HEADERDATA, c);
	curl_easy_setopt(c->easy, CURLOPT_WRITEFUNCTION, http_client_on_body);
	curl_easy_setopt(c->easy, CURLOPT_WRITEDATA, c);
}

static void http_client_set_version(struct http_call *c, const struct http_call_request *r)
{
	if (!c->client->http2)
		curl_easy_setopt(c->easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	else if (strncasecmp(r->url, "https:", 6) == 0)
		curl_easy_setopt(c->easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2TLS);
	else
		h2c_set_version(c);
}

static int set_up(struct http_call *c, const struct http_call_request *r, struct err *e)
{
	c->easy = curl_easy_init();
	if (!c->easy)
		return err_set(e, -ENOMEM, "out of memory");
	if (curl_easy_setopt(c->easy, CURLOPT_PROTOCOLS_STR, "http,https") != CURLE_OK ||
	    curl_easy_setopt(c->easy, CURLOPT_URL, r->url) != CURLE_OK)
		return err_set(e, -EINVAL, "not a URL that can be requested");
	curl_easy_setopt(c->easy, CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
	http_client_set_version(c, r);
	curl_easy_setopt(c->easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(c->easy, CURLOPT_TCP_KEEPALIVE, 1L); /* a stream may be silent for long */
	curl_easy_setopt(c->easy, CURLOPT_NOPROXY, "*");
	curl_easy_setopt(c->easy, CURLOPT_PATH_AS_IS, 1L); /* a name with dots leads to no other path */
	set_method(c->easy, r);
	set_limits(c, r);
	http_client_set_tls(c, r);
	set_callbacks(c);
	int code = add_fields(c, r, e);
	if (code < 0)
		return code;
	curl_easy_setopt(c->easy, CURLOPT_HTTPHEADER, c->fields);
	if (r->idle_timeout_ms) {
		c->idle_timeout_ms = r->idle_timeout_ms;
		if (loop_timer_new(c->client->loop, on_idle, c, &c->idle) < 0)
			return err_set(e, -ENOMEM, "out of memory");
		touch(c);
	}
	if (c->client->http2 && r->timeout_ms) {
		if (loop_timer_new(c->client->loop, on_deadline, c, &c->deadline) < 0)
			return err_set(e, -ENOMEM, "out of memory");
		loop_timer_start(c->deadline, r->timeout_ms);
	}
	return 0;
}

static bool http_client_is_token(const char *method)
{
	return *method && strspn(method, "ABCDEFGHIJKLMNOPQRSTUVWXYZ-") == strlen(method);
}

static bool is_url(const char *url)
{
	return (strncasecmp(url, "http://", 7) == 0 || strncasecmp(url, "https://", 8) == 0) &&
	       clean(span_of(url)) && !strchr(url, ' ');
}

int http_start(struct http_client *c, const struct http_call_request *r, const struct http_events *events,
	       struct http_call **ret, struct err *e)
{
	if (!http_client_is_token(r->method))
		return err_set(e, -EINVAL, "not a method: %s", r->method);
	if (!is_url(r->url))
		return err_set(e, -EINVAL, "not an http or https URL");
	struct http_call *call = calloc(1, sizeof(*call));
	if (!call)
		return err_set(e, -ENOMEM, "out of memory");
	call->client = c;
	call->events = *events;
	call->may_resend = r->may_resend;
	call->max_body = r->max_body ? r->max_body : DEFAULT_MAX_BODY;
	buf_init(&call->head, HTTP_MAX_HEAD);
	buf_init(&call->body, call->max_body);
	buf_init(&call->trailers, HTTP_MAX_HEAD);
	LIST_INSERT_HEAD(&c->calls, call, place);
	int code = set_up(call, r, e);
	/* Adding only asks for a timer; the work begins in a later round of the loop. */
	if (code == 0 && curl_multi_add_handle(curl_loop_multi(c->curl), call->easy) != CURLM_OK)
		code = err_set(e, -ENOMEM, "libcurl rejects the request");
	if (code < 0) {
		http_client_call_free(call);
		return code;
	}
	*ret = call;
	return 0;
}
