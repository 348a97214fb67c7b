#include "base/grpc.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/http_client.h"
#include "base/utf8.h"

#define FRAME_HEAD 5	       /* one byte "compressed", four of length */
#define PIECE_SPARE (4u << 20) /* what libcurl may have received of later messages at once */
#define GRPC_FIELDS_MAX 24
#define DETAIL_MAX 4096
#define TIMEOUT_DIGITS 99999999u /* at most eight digits */

struct grpc_channel {
	struct http_client *http;
	char *base; /* http[s]://host:port */
	struct http_field fields[GRPC_FIELDS_MAX];
	size_t n_fields;
	struct buf texts; /* of the fields, one after another, NUL-terminated */
	unsigned connect_timeout_ms;
};

struct grpc_call {
	struct http_call *http;
	struct grpc_events events;
	struct buf in; /* of the answer: what is not a whole message yet */
	size_t max_message;
	bool *gone; /* set when it is freed within its own callback */
};

/* --- what an answer means ------------------------------------------------------------------------------- */

const char *grpc_code_name(enum grpc_code code)
{
	static const char *const names[] = {"OK",
					    "CANCELLED",
					    "UNKNOWN",
					    "INVALID_ARGUMENT",
					    "DEADLINE_EXCEEDED",
					    "NOT_FOUND",
					    "ALREADY_EXISTS",
					    "PERMISSION_DENIED",
					    "RESOURCE_EXHAUSTED",
					    "FAILED_PRECONDITION",
					    "ABORTED",
					    "OUT_OF_RANGE",
					    "UNIMPLEMENTED",
					    "INTERNAL",
					    "UNAVAILABLE",
					    "DATA_LOSS",
					    "UNAUTHENTICATED"};
	return (size_t)code < sizeof(names) / sizeof(names[0]) ? names[code] : "UNKNOWN";
}

static int grpc_hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int grpc_put_message(struct span in, struct buf *out)
{
	CLEANUP(buf_releasep) struct buf bytes = BUF_INIT(DETAIL_MAX);
	for (size_t i = 0; i < in.len && !bytes.error; i++) {
		int high = -1, low = -1;
		if (in.ptr[i] == '%' && in.len - i > 2) {
			high = grpc_hex(in.ptr[i + 1]);
			low = grpc_hex(in.ptr[i + 2]);
		}
		bool escaped = high >= 0 && low >= 0;
		buf_putc(&bytes, escaped ? (char)(high << 4 | low) : in.ptr[i]);
		i += escaped ? 2 : 0;
	}
	const char *p = bytes.ptr, *end = bytes.ptr + bytes.len;
	while (p < end) {
		size_t n = utf8_sequence(p, end);
		bool control = (unsigned char)*p < ' ' || *p == 0x7f;
		if (n && !control)
			buf_append(out, p, n);
		else
			buf_putc(out, control ? ' ' : '?');
		p += n ? n : 1;
	}
	return out->error;
}

/* http-grpc-status-mapping.md: something on the way answered, which knows nothing of gRPC. */
static enum grpc_code code_of_http(int status)
{
	switch (status) {
	case 400:
		return GRPC_INTERNAL;
	case 401:
		return GRPC_UNAUTHENTICATED;
	case 403:
		return GRPC_PERMISSION_DENIED;
	case 404:
		return GRPC_UNIMPLEMENTED;
	case 429:
	case 502:
	case 503:
	case 504:
		return GRPC_UNAVAILABLE;
	default:
		return GRPC_UNKNOWN;
	}
}

static enum grpc_code code_of_failure(const struct http_reply *r)
{
	switch (r->failure) {
	case HTTP_TIMED_OUT:
		return r->sent ? GRPC_DEADLINE_EXCEEDED : GRPC_UNAVAILABLE;
	case HTTP_TOO_LARGE:
		return GRPC_RESOURCE_EXHAUSTED;
	case HTTP_MALFORMED:
		return GRPC_INTERNAL;
	default:
		return GRPC_UNAVAILABLE;
	}
}

static bool take_code(struct span lines, enum grpc_code *ret)
{
	struct span value = http_line_field(lines, "grpc-status");
	unsigned code = 0;
	if (!value.len || value.len > 3)
		return false;
	for (size_t i = 0; i < value.len; i++) {
		if (value.ptr[i] < '0' || value.ptr[i] > '9')
			return false;
		code = code * 10 + (unsigned)(value.ptr[i] - '0');
	}
	*ret = code <= GRPC_UNAUTHENTICATED ? (enum grpc_code)code : GRPC_UNKNOWN;
	return true;
}

static bool is_grpc(const struct http_reply *r)
{
	static const struct span type = {"application/grpc", 16};
	struct span given = http_reply_field(r, "content-type");
	return given.len >= type.len && span_eq_nocase((struct span){given.ptr, type.len}, type);
}

/* What is left of the answer when it has ended, as a status; `detail` holds its sentence. */
static void read_status(const struct grpc_call *c, const struct http_reply *r, struct grpc_status *s,
			struct buf *detail)
{
	/* Trailers-only answers have it in their only head. */
	struct span lines = r->trailers.len ? r->trailers : r->head;
	*s = (struct grpc_status){.sent = r->sent, .trailers = lines};
	if ((r->failure == HTTP_OK || r->trailers.len) && is_grpc(r) && take_code(lines, &s->code)) {
		s->of_server = true;
		grpc_put_message(http_line_field(lines, "grpc-message"), detail);
	} else if (r->failure != HTTP_OK) {
		s->code = code_of_failure(r);
		buf_puts(detail, r->detail);
	} else if (!is_grpc(r)) {
		s->code = r->status == 200 ? GRPC_UNKNOWN : code_of_http(r->status);
		buf_printf(detail, "not an answer of gRPC: HTTP status %d", r->status);
	} else {
		s->code = GRPC_UNKNOWN;
		buf_puts(detail, "the answer ended without a status");
	}
	if (s->code == GRPC_OK && c->in.len) {
		s->code = GRPC_INTERNAL;
		buf_clear(detail);
		buf_puts(detail, "the answer ended within a message");
	}
	if (s->code != GRPC_OK && !detail->len)
		buf_puts(detail, grpc_code_name(s->code));
}

/* --- a call --------------------------------------------------------------------------------------------- */

static void grpc_call_free(struct grpc_call *c)
{
	if (c->gone)
		*c->gone = true;
	http_cancel(c->http);
	buf_release(&c->in);
	free(c);
}

struct grpc_call *grpc_cancel(struct grpc_call *call)
{
	if (call)
		grpc_call_free(call);
	return NULL;
}

static void grpc_on_done(void *arg, const struct http_reply *r)
{
	struct grpc_call *c = arg;
	struct grpc_events events = c->events;
	struct grpc_status s;
	CLEANUP(buf_releasep) struct buf detail = BUF_INIT(DETAIL_MAX);
	c->http = NULL; /* gone when we return */
	read_status(c, r, &s, &detail);
	s.message = detail.ptr && s.code != GRPC_OK ? detail.ptr : "";
	grpc_call_free(c);
	events.done(events.arg, &s);
}

static void grpc_refuse(struct grpc_call *c, enum grpc_code code, const char *why)
{
	struct grpc_events events = c->events;
	struct grpc_status s = {.code = code, .message = why, .sent = true};
	grpc_call_free(c);
	events.done(events.arg, &s);
}

static size_t message_length(const char *head)
{
	const unsigned char *p = (const unsigned char *)head;
	return (size_t)p[1] << 24 | (size_t)p[2] << 16 | (size_t)p[3] << 8 | p[4];
}

/* Whether there is a whole message at the beginning of `rest`; or what is wrong. */
static bool whole_message(const struct grpc_call *c, struct span rest, size_t *ret_len, enum grpc_code *code,
			  const char **why)
{
	if (rest.len < FRAME_HEAD)
		return false;
	*ret_len = message_length(rest.ptr);
	*code = rest.ptr[0] ? GRPC_INTERNAL : GRPC_RESOURCE_EXHAUSTED;
	if (rest.ptr[0])
		*why = "the answer is compressed, which was not asked for";
	else if (*ret_len > c->max_message)
		*why = "a message of the answer is larger than allowed";
	return !*why && rest.len - FRAME_HEAD >= *ret_len;
}

static void grpc_on_piece(void *arg, struct span bytes)
{
	struct grpc_call *c = arg;
	size_t at = 0, len = 0;
	bool gone = false;
	const char *why = NULL;
	enum grpc_code code = GRPC_RESOURCE_EXHAUSTED;
	if (buf_append_span(&c->in, bytes) < 0) {
		grpc_refuse(c, code, "an answer larger than allowed");
		return;
	}
	c->gone = &gone;
	struct span rest = buf_span(&c->in);
	while (whole_message(c, rest, &len, &code, &why)) {
		/* The bytes stay until its callback returns, also when that cancels the call. */
		struct buf held = c->in;
		c->in = BUF_INIT(0);
		c->events.message(c->events.arg, (struct span){rest.ptr + FRAME_HEAD, len});
		if (gone) {
			buf_release(&held);
			return;
		}
		c->in = held;
		at += FRAME_HEAD + len;
		rest = (struct span){c->in.ptr + at, c->in.len - at};
	}
	c->gone = NULL;
	if (why)
		grpc_refuse(c, code, why);
	else
		buf_consume(&c->in, at);
}

/* --- a channel ------------------------------------------------------------------------------------------ */

static bool is_metadata_name(struct span name)
{
	for (size_t i = 0; i < name.len; i++)
		if (!strchr("abcdefghijklmnopqrstuvwxyz0123456789-_.", name.ptr[i]) || !name.ptr[i])
			return false;
	return name.len > 0 && !span_starts(name, SPAN_LIT("grpc-"));
}

static bool is_metadata_value(struct span value)
{
	for (size_t i = 0; i < value.len; i++)
		if (value.ptr[i] < ' ' || value.ptr[i] > '~')
			return false;
	return true;
}

static int check_metadata(const struct http_field *fields, size_t n, struct err *e)
{
	for (size_t i = 0; i < n; i++)
		if (!is_metadata_name(fields[i].name) || !is_metadata_value(fields[i].value))
			return err_set(e, -EINVAL, "metadata %.*s: not a valid name or value",
				       SPAN_ARG(fields[i].name));
	return 0;
}

static int channel_keep_metadata(struct grpc_channel *c, const struct grpc_channel_options *o, struct err *e)
{
	size_t at = 0;
	if (o->n_metadata > GRPC_FIELDS_MAX / 2)
		return err_set(e, -EINVAL, "too much metadata");
	int r = check_metadata(o->metadata, o->n_metadata, e);
	if (r < 0)
		return r;
	for (size_t i = 0; i < o->n_metadata; i++) {
		buf_append_span(&c->texts, o->metadata[i].name);
		buf_append_span(&c->texts, o->metadata[i].value);
	}
	if (c->texts.error)
		return err_set(e, c->texts.error, "the metadata is too long");
	for (size_t i = 0; i < o->n_metadata; i++) {
		struct span name = {c->texts.ptr + at, o->metadata[i].name.len};
		struct span value = {name.ptr + name.len, o->metadata[i].value.len};
		c->fields[c->n_fields++] = (struct http_field){name, value};
		at += name.len + value.len;
	}
	return 0;
}

static int channel_keep_address(struct grpc_channel *c, const struct grpc_channel_options *o, struct err *e)
{
	CLEANUP(buf_releasep) struct buf base = BUF_INIT(1024);
	size_t n = strlen(o->address);
	const char *colon = strrchr(o->address, ':');
	if (!n || !colon || colon == o->address || !colon[1] ||
	    strspn(colon + 1, "0123456789") != strlen(colon + 1) || strcspn(o->address, "/@?# \t\r\n") != n)
		return err_set(e, -EINVAL, "expected host:port");
	buf_printf(&base, "%s://%s", o->tls ? "https" : "http", o->address);
	c->base = base.error ? NULL : buf_steal(&base);
	return c->base ? 0 : err_set(e, -EINVAL, "the address is too long");
}

int grpc_channel_new(struct loop *loop, const struct grpc_channel_options *o, struct grpc_channel **ret,
		     struct err *e)
{
	struct http_client_options http = {.ca_file = o->ca_file,
					   .client_cert = o->client_cert,
					   .client_key = o->client_key,
					   .max_connections = o->max_connections,
					   .http2 = true};
	struct grpc_channel *c = calloc(1, sizeof(*c));
	if (!c)
		return err_set(e, -ENOMEM, "out of memory");
	c->connect_timeout_ms = o->connect_timeout_ms;
	buf_init(&c->texts, HTTP_MAX_HEAD);
	int r = channel_keep_address(c, o, e);
	if (r == 0)
		r = channel_keep_metadata(c, o, e);
	if (r == 0)
		r = http_client_new(loop, &http, &c->http, e);
	if (r < 0)
		grpc_channel_free(c);
	else
		*ret = c;
	return r;
}

struct grpc_channel *grpc_channel_free(struct grpc_channel *c)
{
	if (!c)
		return NULL;
	http_client_free(c->http);
	free(c->base);
	buf_release(&c->texts);
	free(c);
	return NULL;
}

/* --- starting ------------------------------------------------------------------------------------------- */

static void put_timeout(unsigned ms, char out[16])
{
	if (ms <= TIMEOUT_DIGITS)
		snprintf(out, 16, "%um", ms);
	else
		snprintf(out, 16, "%uS", ms / 1000);
}

static size_t collect_fields(const struct grpc_channel *c, const struct grpc_request *r, const char *timeout,
			     struct http_field *fields)
{
	static const struct http_field fixed[] = {
		{SPAN_INIT("content-type"), SPAN_INIT("application/grpc")},
		{SPAN_INIT("te"), SPAN_INIT("trailers")},
		{SPAN_INIT("user-agent"), SPAN_INIT("migration-router/" PROJECT_VERSION)},
		{SPAN_INIT("grpc-accept-encoding"), SPAN_INIT("identity")},
	};
	size_t n = sizeof(fixed) / sizeof(fixed[0]);
	memcpy(fields, fixed, sizeof(fixed));
	if (*timeout)
		fields[n++] = (struct http_field){SPAN_LIT("grpc-timeout"), span_of(timeout)};
	for (size_t i = 0; i < c->n_fields; i++)
		fields[n++] = c->fields[i];
	for (size_t i = 0; i < r->n_metadata; i++)
		fields[n++] = r->metadata[i];
	return n;
}

static int put_framed(struct span message, struct buf *out)
{
	const unsigned char head[FRAME_HEAD] = {
		0, (unsigned char)(message.len >> 24), (unsigned char)(message.len >> 16),
		(unsigned char)(message.len >> 8), (unsigned char)message.len};
	buf_init(out, message.len + FRAME_HEAD);
	buf_append(out, head, sizeof(head));
	return buf_append_span(out, message);
}

static int grpc_send(struct grpc_channel *c, const struct grpc_request *r, struct grpc_call *call,
		     struct err *e)
{
	CLEANUP(buf_releasep) struct buf url = BUF_INIT(4096), body = BUF_INIT(0);
	struct http_field fields[GRPC_FIELDS_MAX + 8];
	char timeout[16] = "";
	struct http_events events = {.arg = call, .done = grpc_on_done, .piece = grpc_on_piece};
	if (r->deadline_ms)
		put_timeout(r->deadline_ms, timeout);
	buf_printf(&url, "%s%s", c->base, r->path);
	if (url.error || put_framed(r->message, &body) < 0)
		return err_set(e, -ENOMEM, "out of memory");
	struct http_call_request request = {.method = "POST",
					    .url = url.ptr,
					    .fields = fields,
					    .n_fields = collect_fields(c, r, timeout, fields),
					    .body = buf_span(&body),
					    .connect_timeout_ms = c->connect_timeout_ms,
					    .timeout_ms = r->deadline_ms ? r->deadline_ms + r->grace_ms : 0,
					    .may_resend = r->may_resend,
					    .idle_timeout_ms = r->idle_timeout_ms,
					    .max_body = call->max_message + FRAME_HEAD + PIECE_SPARE};
	return http_start(c->http, &request, &events, &call->http, e);
}

int grpc_start(struct grpc_channel *c, const struct grpc_request *r, const struct grpc_events *events,
	       struct grpc_call **ret, struct err *e)
{
	if (r->path[0] != '/' || r->message.len > UINT32_MAX)
		return err_set(e, -EINVAL, "not a call: %s", r->path);
	if (r->n_metadata > GRPC_FIELDS_MAX / 2)
		return err_set(e, -EINVAL, "too much metadata");
	int code = check_metadata(r->metadata, r->n_metadata, e);
	if (code < 0)
		return code;
	struct grpc_call *call = calloc(1, sizeof(*call));
	if (!call)
		return err_set(e, -ENOMEM, "out of memory");
	call->events = *events;
	call->max_message = r->max_message ? r->max_message : GRPC_DEFAULT_MESSAGE;
	buf_init(&call->in, call->max_message + 2 * (FRAME_HEAD + PIECE_SPARE));
	code = grpc_send(c, r, call, e);
	if (code < 0) {
		grpc_call_free(call);
		return code;
	}
	*ret = call;
	return 0;
}
