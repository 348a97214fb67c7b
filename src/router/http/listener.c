/*
 * Listener over libmicrohttpd: one daemon per listener, without threads of its own; its epoll set is one
 * descriptor of the loop. What the library does at each point is measured in docs/protocols/http.md; the
 * order of its calls, which the stages below follow, is that of its state machine:
 *
 *   on_target (request line) → on_request, first call (head complete) → on_request with bytes (body) →
 *   on_request, last call (everything read) → on_pull (streamed answer) → on_completed
 *
 *   stage      entered                                       leaves by                       waits suspended
 *   NEW        on_target                                     first call                      no
 *   HEAD       first call, when a body is still to be read   read_body → BODY,               yes
 *                                                            respond → ANSWERING
 *   BODY       read_body                                     last call → COMPLETE            handler is full
 *   COMPLETE   last call (straight from NEW without a body)  respond → ANSWERING             yes
 *   ANSWERING  the answer was given to the library           on_completed                    pull has nothing
 *
 * The library takes an answer only at its first and last call, and one given at the first closes the
 * connection. So a whole answer that comes meanwhile is written past it (answer_past_library), and a streamed
 * one is kept in `response` while the rest of the body is dropped.
 *
 * To wake a suspended connection is to resume it and to run the daemon; runs are collected to one per round
 * of the loop. The library then calls on_request (or on_pull) again in the same stage, which looks at what
 * has been decided meanwhile.
 */
#include "router/http/listener.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/tcp.h> /* tcp_info with the byte counts, which <netinet/tcp.h> lacks */
#include <microhttpd.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/queue.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "operation/listen_address.h"
#include "router/http/acceptor.h"
#include "router/http/hangup.h"
#include "router/http/head_check.h"
#include "router/http/layout_check.h"
#include "router/http/lingering.h"
#include "router/http/raw_answer.h"
#include "router/http/sweep.h"

#define STREAM_BLOCK 32768	   /* bytes pulled at once for an answer of known length */
#define UNHEARD_MS 1000		   /* patience with connections that have brought nothing when it quiesces */
#define CONNECTIONS_TO_REFUSE 1024 /* above the limit, so that they can be answered */
#define ANSWER_HEAD_LEAST 2048
/* bytes for what is added to the fields of an answer: status line, Date, Via, framing */
#define ANSWER_OWN 1024
/* Above it the library maps the memory of a connection, which is then resident only as far as it is used (6
 * KiB for a waiting request); up to it, it takes it from malloc, with what was there before. */
#define LIBRARY_MAPS_ABOVE 32768
#define LIBRARY_ENTRY 64 /* bytes, of what it keeps for each field */
#define FIELD_BUFFER 2048
#define HEADS_LOOKED_AT 4 /* at a run of the library, see refuse_large_heads */
/* at connections, for those that the library refuses: some 20 ms of processor time */
#define LOOKS_PER_SECOND 20000
#define HEAD_SLACK 64 /* bytes, of empty lines between requests */

/* MHD_RF_HEAD_ONLY_RESPONSE, which older headers lack: no field of framing goes out. */
#define LIBRARY_HEAD_ONLY ((enum MHD_ResponseFlags)(1 << 4))

enum limit { LIMIT_HEAD, LIMIT_IDLE, LIMIT_PROGRESS, LIMITS };

enum stage { STAGE_NEW, STAGE_HEAD, STAGE_BODY, STAGE_COMPLETE, STAGE_ANSWERING };

struct listener {
	struct loop *loop;
	struct MHD_Daemon *daemon;
	struct acceptor *acceptor;
	struct loop_watch *watch;
	struct loop_work run;
	struct sweep *sweep;
	struct hangup *hangup;
	struct lingering *lingering;
	struct listener_handler handler;
	struct listener_options options; /* address is not kept */
	LIST_HEAD(, client) clients;
	LIST_HEAD(, exchange) heads; /* begun and not complete, the newest first */
	LIST_HEAD(, client) handed;  /* taken from the library, to be given back to it, see hand_over */
	struct client *returning;
	unsigned looks; /* within looks_second */
	uint64_t looks_second;
	unsigned port, connections, exchanges;
	uint64_t quiesced_ms;
	bool run_queued, again, quiesced, patient, stopping;
	size_t n_fields; /* of the head being collected */
	struct http_field fields[HTTP_FIELDS_MAX];
};

/* One connection. */
struct client {
	struct listener *listener;
	LIST_ENTRY(client) place;
	struct MHD_Connection *connection;
	struct exchange *exchange; /* the running one, or NULL */
	struct sweep_entry limit;
	union listen_address peer;
	uint64_t acknowledged, received; /* bytes, at the last look at its progress */
	uint64_t served;		 /* bytes, of the requests before the running one */
	unsigned still;			 /* looks without progress */
	int fd;
	bool over_limit, half_closed, gone, hung_up, linger, handed, refused;
	bool asked;   /* a request line has come */
	bool touched; /* was suspended since the last look: the wait was ours */
};

struct exchange {
	struct client *client;
	LIST_ENTRY(exchange) head_place;
	void *user;
	struct http_request request;
	struct http_field *fields;
	const char *target_at;	       /* where the library had it, for the layout check */
	struct MHD_Response *response; /* given by the handler, not yet by us to the library */
	exchange_pull_fn pull;
	uint64_t dropped, drain_until_ms; /* of a body that is not wanted any more */
	uint64_t arrived, taken;	  /* bytes of the body */
	size_t head_size, answer_room;	  /* bytes; for the head of the answer */
	int status;
	enum stage stage;
	bool told; /* the handler knows of it */
	bool wants_body, body_ended;
	bool yielded; /* see await_answer */
	bool suspended;
	bool woken; /* during a call of the handler's */
	bool cut;
	bool answered_raw; /* past the library, and cut for it */
	bool in_heads;
	bool unframed; /* the end of the answer is the end of the connection */
	bool bare;     /* … for lack of a field of framing: an answer without a body, of 0.9.75 */
	bool known_length;
	size_t target_length;
	char target[];
};

/* --- the library at hand -------------------------------------------------------------------------------- */

/* 1.x parses strictly on demand, drops blanks after values itself, and can answer without framing on a
 * kept-alive connection. It is asked when the process runs: both share one soname, so that it need not be the
 * one that was compiled against. That it keeps to what is said here is the self-test's to find out. */
static bool library_is_new(void)
{
	return MHD_get_version()[0] != '0';
}

const char *listener_library(void)
{
	return MHD_get_version();
}

/* --- running the daemon --------------------------------------------------------------------------------- */

static void listener_schedule(struct listener *l)
{
	if (!l->run_queued) {
		l->run_queued = true;
		loop_defer(l->loop, &l->run);
	}
}

static void refuse_large_heads(struct listener *l);
static void listener_give_back(struct listener *l);

static void listener_on_run(struct loop_work *work)
{
	struct listener *l = (struct listener *)((char *)work - offsetof(struct listener, run));
	l->run_queued = l->again = false;
	MHD_run(l->daemon);
	if (l->again) /* a second pass suspends, or sends, what the first one has prepared */
		MHD_run(l->daemon);
	listener_give_back(l);
	refuse_large_heads(l);
	MHD_UNSIGNED_LONG_LONG wait_ms;
	if (MHD_get_timeout(l->daemon, &wait_ms) == MHD_YES && wait_ms == 0)
		listener_schedule(l);
}

static void listener_on_ready(void *arg, unsigned events)
{
	(void)events;
	listener_schedule(arg);
}

static void suspend(struct exchange *x)
{
	x->suspended = true;
	MHD_suspend_connection(x->client->connection);
}

static void listener_resume(struct exchange *x)
{
	x->suspended = false;
	x->client->touched = true;
	MHD_resume_connection(x->client->connection);
	listener_schedule(x->client->listener);
}

/* --- ending connections --------------------------------------------------------------------------------- */

/* The library notices at its next run. */
static void hang_up(struct client *c)
{
	/* Once: a shutdown is an event of the descriptor itself, and would call us again, forever. */
	if (!c->hung_up)
		shutdown(c->fd, SHUT_RDWR);
	c->hung_up = true;
	listener_schedule(c->listener);
}

/* Sends a reset at once: no orderly end, which could be taken for the end of an unframed body, and nothing
 * left in the kernel for a peer that does not read. */
static void reset(struct client *c)
{
	struct sockaddr nowhere = {.sa_family = AF_UNSPEC};
	if (connect(c->fd, &nowhere, sizeof(nowhere)) < 0)
		shutdown(c->fd, SHUT_RDWR);
	listener_schedule(c->listener);
}

static void listener_cut(struct exchange *x)
{
	x->cut = true;
	if (x->unframed && x->stage == STAGE_ANSWERING)
		reset(x->client);
	if (x->suspended)
		listener_resume(x);
	else
		hang_up(x->client);
}

/* The client has gone, or is treated as if. */
static void lose(struct client *c)
{
	struct exchange *x = c->exchange;
	if (!x || !x->told || x->cut)
		return;
	x->cut = true;
	c->listener->handler.client_gone(x->user, x);
	if (x->suspended)
		listener_resume(x);
}

static bool is_lost(const struct client *c)
{
	return c->gone || (c->half_closed && c->listener->options.half_close_is_gone);
}

static void on_hangup(void *arg, void *client, bool gone)
{
	struct listener *l = arg;
	struct client *c = client;
	c->half_closed = true;
	c->gone |= gone;
	if (!is_lost(c))
		return;
	if (c->exchange && c->exchange->stage == STAGE_ANSWERING && !c->exchange->suspended) {
		/* Perhaps all of the answer is out, and the client has read it: the library knows when it
		 * runs next. */
		listener_schedule(l);
		return;
	}
	lose(c);
	hang_up(c);
}

/* --- limits in time ------------------------------------------------------------------------------------- */

/* Bytes that the peer's TCP has sent or acknowledged since the last look. */
static bool has_progressed(struct client *c)
{
	struct tcp_info info = {0};
	socklen_t n = sizeof(info);
	if (getsockopt(c->fd, IPPROTO_TCP, TCP_INFO, &info, &n) < 0)
		return false;
	bool progressed = info.tcpi_bytes_acked != c->acknowledged || info.tcpi_bytes_received != c->received;
	c->acknowledged = info.tcpi_bytes_acked;
	c->received = info.tcpi_bytes_received;
	return progressed;
}

/* Two looks in a row without progress, while it was the client's turn all the time. */
static void look_at_progress(struct client *c)
{
	bool ours = c->touched || (c->exchange && c->exchange->suspended);
	c->touched = false;
	c->still = has_progressed(c) || ours ? 0 : c->still + 1;
	if (c->still < 2) {
		sweep_start(c->listener->sweep, &c->limit, LIMIT_PROGRESS);
		return;
	}
	lose(c);
	reset(c);
}

static void listener_on_limit(void *arg, struct sweep_entry *e)
{
	struct listener *l = arg;
	struct client *c = (struct client *)((char *)e - offsetof(struct client, limit));
	if (e->kind == LIMIT_PROGRESS) {
		look_at_progress(c);
		return;
	}
	if (e->kind == LIMIT_HEAD && !(c->exchange && c->exchange->cut) && has_progressed(c))
		/* not one that was only opened in advance */
		l->handler.refused(l->handler.arg, 408, "head not complete in time");
	hang_up(c);
}

/* --- answers -------------------------------------------------------------------------------------------- */

static bool listener_is_framing(struct span name)
{
	return span_is_nocase(name, "Content-Length") || span_is_nocase(name, "Transfer-Encoding") ||
	       span_is_nocase(name, "Connection");
}

/* The library wants C strings, and refuses what cannot be sent (CR, LF, a bad name): that is left out. */
static int listener_add_field(struct MHD_Response *response, const struct http_field *f)
{
	if (listener_is_framing(f->name) || f->name.len == 0)
		return 0;
	struct span value = f->value.len ? f->value : SPAN_LIT(" "); /* it refuses an empty value as well */
	if (memchr(f->name.ptr, 0, f->name.len) || memchr(value.ptr, 0, value.len))
		return 0;
	char fixed[FIELD_BUFFER], *text = fixed;
	size_t need = f->name.len + value.len + 2;
	if (need > sizeof(fixed) && !(text = malloc(need)))
		return -ENOMEM;
	memcpy(text, f->name.ptr, f->name.len);
	text[f->name.len] = 0;
	char *value_text = text + f->name.len + 1;
	memcpy(value_text, value.ptr, value.len);
	value_text[value.len] = 0;
	MHD_add_response_header(response, text, value_text);
	if (text != fixed)
		free(text);
	return 0;
}

/*
 * Handing over. 0.9.75 has no answer without a field of framing that keeps the connection (HEAD of unknown
 * length, 304). So we write that head; the library closes its descriptor, and gets a copy of it as a new
 * connection, on which the next request comes. What the library has read of that request would be lost with
 * its buffer: only when it has read nothing more is this done.
 */
static const char *reason_of(int status);

static bool lists(struct span value, const char *token)
{
	while (value.len) {
		const char *comma = memchr(value.ptr, ',', value.len);
		size_t n = comma ? (size_t)(comma - value.ptr) : value.len;
		if (span_is_nocase(span_trim((struct span){value.ptr, n}), token))
			return true;
		n += comma != NULL;
		value = (struct span){value.ptr + n, value.len - n};
	}
	return false;
}

static bool client_says(const struct exchange *x, const char *token)
{
	for (size_t i = 0; i < x->request.n_fields; i++)
		if (span_is_nocase(x->request.fields[i].name, "Connection") &&
		    lists(x->request.fields[i].value, token))
			return true;
	return false;
}

/* Never wrong when true: what comes in between the two looks makes the sum too large. */
static bool nothing_read_beyond(const struct exchange *x)
{
	const struct client *c = x->client;
	int unread = 0;
	struct tcp_info info = {0};
	socklen_t n = sizeof(info);
	if (ioctl(c->fd, FIONREAD, &unread) < 0 || getsockopt(c->fd, IPPROTO_TCP, TCP_INFO, &info, &n) < 0)
		return false;
	uint64_t body = x->request.content_length > 0 ? (uint64_t)x->request.content_length : 0;
	return info.tcpi_bytes_received - (uint64_t)unread == c->served + x->head_size + body;
}

static bool may_hand_over(const struct exchange *x)
{
	const struct client *c = x->client;
	bool http10 = span_is(x->request.version, "HTTP/1.0");
	return x->bare && x->stage == STAGE_COMPLETE && !c->listener->quiesced && !is_lost(c) &&
	       !x->dropped && !x->request.chunked && !MHD_get_response_header(x->response, "Connection") &&
	       !client_says(x, "close") && (!http10 || client_says(x, "keep-alive")) &&
	       nothing_read_beyond(x);
}

struct collected {
	struct http_field *fields;
	size_t n, max;
};

static enum MHD_Result on_answer_field(void *arg, enum MHD_ValueKind kind, const char *name,
				       const char *value)
{
	struct collected *all = arg;
	(void)kind;
	if (all->n == all->max)
		return MHD_NO;
	all->fields[all->n++] = (struct http_field){span_of(name), span_of(value)};
	return MHD_YES;
}

/* False when nothing was written. */
static bool listener_hand_over(struct exchange *x)
{
	int n = MHD_get_response_headers(x->response, NULL, NULL);
	struct collected all = {.fields = calloc((size_t)n + 1, sizeof(*all.fields)), .max = (size_t)n};
	if (!all.fields)
		return false;
	MHD_get_response_headers(x->response, on_answer_field, &all);
	struct http_response r = {.status = x->status, .fields = all.fields, .n_fields = all.n};
	int e = raw_answer_send_unframed(x->client->fd, reason_of(x->status),
					 span_is(x->request.version, "HTTP/1.0"), &r);
	free(all.fields);
	if (e == -EAGAIN)
		return false;
	MHD_destroy_response(x->response);
	x->response = NULL;
	x->stage = STAGE_ANSWERING;
	x->answered_raw = x->client->handed = e == 0;
	return true;
}

/* Gives the library the kept answer; only within its first and last call. */
static enum MHD_Result queue(struct exchange *x)
{
	struct client *c = x->client;
	if (may_hand_over(x) && listener_hand_over(x))
		return MHD_NO;
	/* 0.9.75 takes a bare LF for the end of a line in chunk framing, and blanks and control bytes after a
	 * chunk's size: whoever is in front may see the end of the body elsewhere. What follows on this
	 * connection is not served (http.md). */
	c->linger |= x->request.chunked;
	if (c->listener->quiesced || x->dropped || x->request.chunked)
		MHD_add_response_header(x->response, "Connection", "close");
	enum MHD_Result r = MHD_queue_response(c->connection, (unsigned)x->status, x->response);
	MHD_destroy_response(x->response);
	x->response = NULL;
	x->stage = STAGE_ANSWERING;
	c->listener->again = true;
	return r;
}

static bool fits(const struct exchange *x, const struct http_response *r)
{
	size_t n = 256; /* status line, Date, Connection, framing */
	for (size_t i = 0; i < r->n_fields; i++)
		n += r->fields[i].name.len + r->fields[i].value.len + 4;
	return n <= x->client->listener->options.max_head + ANSWER_OWN && n <= x->answer_room;
}

static int listener_answer(struct exchange *x, const struct http_response *r, struct MHD_Response *response)
{
	if (!fits(x, r)) {
		MHD_destroy_response(response);
		return EXCHANGE_E_HEAD_TOO_LARGE;
	}
	int failed = response ? 0 : -ENOMEM;
	for (size_t i = 0; i < r->n_fields && !failed; i++)
		failed = listener_add_field(response, &r->fields[i]);
	if (failed) {
		MHD_destroy_response(response);
		exchange_abort(x);
		return 0;
	}
	if (r->close)
		MHD_add_response_header(response, "Connection", "close");
	x->response = response;
	x->status = r->status;
	if (x->suspended)
		listener_resume(x);
	return 0;
}

static bool may_answer(const struct exchange *x, const struct http_response *r)
{
	assert(r->status >= 200 && r->status <= 999);
	assert(!x->response && (x->stage != STAGE_ANSWERING || x->cut));
	return !x->cut;
}

static bool is_head(const struct exchange *x)
{
	return span_is(x->request.method, "HEAD");
}

static bool listener_is_bodyless(const struct exchange *x, int status)
{
	return status == 204 || status == 304 || is_head(x);
}

static ssize_t no_body(void *arg, uint64_t position, char *out, size_t size)
{
	(void)arg, (void)position, (void)out, (void)size;
	return MHD_CONTENT_READER_END_WITH_ERROR; /* never asked */
}

static struct MHD_Response *make_bodyless(int status, int64_t content_length)
{
	static char nothing[1];
	if (status == 204 || (content_length == 0 && status != 304))
		return MHD_create_response_from_buffer(0, nothing, MHD_RESPMEM_PERSISTENT);
	if (content_length >= 0)
		return MHD_create_response_from_callback((uint64_t)content_length, 1, no_body, NULL, NULL);
	if (library_is_new()) {
		struct MHD_Response *m = MHD_create_response_from_buffer(0, nothing, MHD_RESPMEM_PERSISTENT);
		if (m)
			MHD_set_response_options(m, LIBRARY_HEAD_ONLY, MHD_RO_END);
		return m;
	}
	/* 0.9.75 would send a length of 0, or the last chunk of no body: it has to close, unless the
	 * connection is handed over. */
	struct MHD_Response *m = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 1, no_body, NULL, NULL);
	if (m)
		MHD_set_response_options(m, MHD_RF_HTTP_VERSION_1_0_ONLY, MHD_RO_END);
	return m;
}

int exchange_respond_bodyless(struct exchange *x, const struct http_response *r, int64_t content_length)
{
	assert(listener_is_bodyless(x, r->status));
	if (!may_answer(x, r))
		return 0;
	x->bare = !library_is_new() && content_length < 0 && r->status != 204;
	return listener_answer(x, r, make_bodyless(r->status, content_length));
}

static const char *reason_of(int status)
{
	const char *text = MHD_get_reason_phrase_for((unsigned)status);
	return text && strcmp(text, "Unknown") != 0 ? text : "Non-Standard Status";
}

/* The whole answer past the library, which is reading and has written nothing. It is made to close when it
 * calls next; then what the client still sends is dropped for a while. False when nothing was written. */
static bool answer_past_library(struct exchange *x, const struct http_response *r, struct span body)
{
	int e = raw_answer_send(x->client->fd, reason_of(r->status), r, body);
	if (e == -EAGAIN)
		return false;
	x->cut = true;
	x->answered_raw = e == 0;
	x->client->linger = e == 0;
	if (x->suspended)
		listener_resume(x);
	else if (e < 0)
		hang_up(x->client);
	return true;
}

static bool waits_for_body(const struct exchange *x)
{
	return x->stage == STAGE_BODY &&
	       (x->request.chunked || x->arrived < (uint64_t)x->request.content_length);
}

int exchange_respond(struct exchange *x, const struct http_response *r, struct span body)
{
	if (listener_is_bodyless(x, r->status))
		return exchange_respond_bodyless(x, r, r->status == 304 ? -1 : (int64_t)body.len);
	if (!may_answer(x, r))
		return 0;
	if (waits_for_body(x) && fits(x, r) && answer_past_library(x, r, body))
		return 0;
	void *bytes = body.len ? (void *)(uintptr_t)body.ptr : "";
	return listener_answer(x, r, MHD_create_response_from_buffer(body.len, bytes, MHD_RESPMEM_MUST_COPY));
}

static ssize_t end_by_error(struct exchange *x)
{
	x->cut = true;
	if (x->unframed)
		reset(x->client);
	else
		/* the library marks the connection closed, and closes it at the next event only */
		hang_up(x->client);
	return MHD_CONTENT_READER_END_WITH_ERROR;
}

static ssize_t on_pull(void *arg, uint64_t position, char *out, size_t size)
{
	(void)position;
	struct exchange *x = arg;
	if (is_lost(x->client))
		lose(x->client); /* there is more to send, to nobody */
	if (x->cut)
		return end_by_error(x);
	x->woken = false;
	long n = x->pull(x->user, x, out, size);
	if (x->cut || n < EXCHANGE_END || (n == EXCHANGE_END && x->known_length))
		return end_by_error(x);
	if (n == EXCHANGE_END)
		return MHD_CONTENT_READER_END_OF_STREAM;
	if (n == 0) {
		suspend(x);
		if (x->woken)
			listener_resume(x);
	}
	return n;
}

int exchange_respond_stream(struct exchange *x, const struct http_response *r, int64_t length,
			    exchange_pull_fn pull)
{
	if (listener_is_bodyless(x, r->status))
		return exchange_respond_bodyless(x, r, length);
	if (length == 0)
		return exchange_respond(x, r, SPAN_LIT(""));
	if (!may_answer(x, r))
		return 0;
	x->pull = pull;
	x->known_length = length >= 0;
	x->unframed = length < 0 && span_is(x->request.version, "HTTP/1.0");
	/* Chunks are pulled straight into the library's buffer, everything else into a block of the
	 * response's. */
	size_t block = length < 0 && !x->unframed ? 1 : STREAM_BLOCK;
	if (x->known_length && (uint64_t)length < block)
		block = (size_t)length;
	return listener_answer(
		x, r,
		MHD_create_response_from_callback(x->known_length ? (uint64_t)length : MHD_SIZE_UNKNOWN,
						  block, on_pull, x, NULL));
}

/* --- the handler's other calls -------------------------------------------------------------------------- */

void exchange_read_body(struct exchange *x)
{
	x->wants_body = true;
	if (x->suspended && x->stage != STAGE_ANSWERING)
		listener_resume(x);
}

void exchange_resume_body(struct exchange *x)
{
	x->woken = true;
	if (x->suspended && x->stage == STAGE_BODY)
		listener_resume(x);
}

void exchange_resume_response(struct exchange *x)
{
	x->woken = true;
	if (x->suspended && x->stage == STAGE_ANSWERING)
		listener_resume(x);
}

void exchange_abort(struct exchange *x)
{
	if (!x->cut)
		listener_cut(x);
}

const struct http_request *exchange_request(const struct exchange *x)
{
	return &x->request;
}

/* --- heads ---------------------------------------------------------------------------------------------- */

static const char *title_of(int status)
{
	switch (status) {
	case 400:
		return "Bad Request";
	case 413:
		return "Content Too Large";
	case 414:
		return "URI Too Long";
	case 431:
		return "Request Header Fields Too Large";
	case 501:
		return "Not Implemented";
	case 503:
		return "Service Unavailable";
	case 505:
		return "HTTP Version Not Supported";
	default:
		return "Error";
	}
}

#define REFUSAL_MAX 256

static size_t refusal_body(char out[REFUSAL_MAX], int status, const char *why)
{
	int n = snprintf(out, REFUSAL_MAX,
			 "{\"type\":\"about:blank\",\"title\":\"%s\",\"status\":%d,\"detail\":\"%s\"}\n",
			 title_of(status), status, why);
	return (size_t)n;
}

/* Answers at the library's first call: nothing more is read and the connection is closed. */
static enum MHD_Result listener_refuse(struct exchange *x, int status, const char *why)
{
	struct client *c = x->client;
	struct listener *l = c->listener;
	char body[REFUSAL_MAX];
	size_t n = refusal_body(body, status, why);
	x->response = MHD_create_response_from_buffer(n, body, MHD_RESPMEM_MUST_COPY);
	l->handler.refused(l->handler.arg, status, why);
	if (!x->response)
		return MHD_NO;
	MHD_add_response_header(x->response, "Connection", "close");
	MHD_add_response_header(x->response, "Content-Type", "application/problem+json");
	if (status == 503)
		MHD_add_response_header(x->response, "Retry-After", "1");
	x->status = status;
	c->linger = true;
	return queue(x);
}

static void head_begins(struct exchange *x)
{
	struct listener *l = x->client->listener;
	x->in_heads = true;
	LIST_INSERT_HEAD(&l->heads, x, head_place);
}

static void head_ends(struct exchange *x)
{
	if (!x->in_heads)
		return;
	x->in_heads = false;
	LIST_REMOVE(x, head_place);
}

/* Bytes that the library has read of a head that is not complete. */
static uint64_t read_of_head(const struct exchange *x)
{
	struct tcp_info info = {0};
	socklen_t n = sizeof(info);
	int unread = 0;
	if (getsockopt(x->client->fd, IPPROTO_TCP, TCP_INFO, &info, &n) < 0 ||
	    ioctl(x->client->fd, FIONREAD, &unread) < 0)
		return 0;
	uint64_t not_of_it = x->client->served + (uint64_t)unread;
	return info.tcpi_bytes_received > not_of_it ? info.tcpi_bytes_received - not_of_it : 0;
}

/* The value of a field that we put before all others, see hide_cookies. */
static const char no_cookies[] = "";

static enum MHD_Result on_field(void *arg, enum MHD_ValueKind kind, const char *name, size_t name_length,
				const char *value, size_t value_length)
{
	(void)kind;
	struct listener *l = arg;
	if (value == no_cookies)
		return MHD_YES; /* our own */
	if (l->n_fields == HTTP_FIELDS_MAX) {
		l->n_fields++;
		return MHD_NO;
	}
	l->fields[l->n_fields++] =
		(struct http_field){{name, name_length}, {value ? value : "", value_length}};
	return MHD_YES;
}

static size_t memory_for(size_t max_head);

/* What the library's memory for this connection leaves for the head of an answer; it closes without one when
 * the head does not fit. Half of that memory, or the head if it is longer, is its read buffer. */
static size_t room_for_answer(const struct exchange *x, size_t head_size)
{
	const struct listener *l = x->client->listener;
	size_t memory = memory_for(l->options.max_head);
	size_t used = head_size + ANSWER_HEAD_LEAST > memory / 2 ? head_size + ANSWER_HEAD_LEAST : memory / 2;
	used += (l->n_fields + 1) * LIBRARY_ENTRY;
	return used < memory ? memory - used : 0;
}

/* Every check of a head. 0 when it is clean, or the status to refuse it with. */
static int listener_check(struct exchange *x, const char **ret_why)
{
	struct listener *l = x->client->listener;
	const union MHD_ConnectionInfo *size =
		MHD_get_connection_info(x->client->connection, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
	if (x->client->over_limit) {
		*ret_why = "too many connections";
		return 503;
	}
	if (l->n_fields > HTTP_FIELDS_MAX) {
		*ret_why = "too many fields";
		return 431;
	}
	x->head_size = size ? size->header_size : 0;
	x->answer_room = size ? room_for_answer(x, size->header_size) : 0;
	if (x->answer_room < ANSWER_HEAD_LEAST || size->header_size > l->options.max_head) {
		*ret_why = "request line and fields are too large";
		return 431;
	}
	x->request.fields = l->fields;
	x->request.n_fields = l->n_fields;
	int status = head_check(&x->request, ret_why);
	if (status)
		return status;
	struct http_request raw = x->request;
	raw.target.ptr = x->target_at;
	*ret_why = layout_check(&raw, size->header_size, library_is_new());
	return *ret_why ? 400 : 0;
}

static int keep_fields(struct exchange *x)
{
	struct listener *l = x->client->listener;
	x->fields = malloc(sizeof(*x->fields) * (l->n_fields ? l->n_fields : 1));
	if (!x->fields)
		return -ENOMEM;
	for (size_t i = 0; i < l->n_fields; i++)
		x->fields[i] = (struct http_field){l->fields[i].name, span_trim(l->fields[i].value)};
	x->request.fields = x->fields;
	return 0;
}

static socklen_t peer_length(const struct client *c)
{
	return c->peer.any.sa_family == AF_INET6 ? sizeof(c->peer.v6) : sizeof(c->peer.v4);
}

static void fill_request(struct exchange *x, const char *method, const char *version)
{
	struct client *c = x->client;
	x->request.method = span_of(method);
	x->request.version = span_of(version);
	x->request.target = (struct span){x->target, x->target_length};
	x->request.peer = &c->peer.any;
	x->request.peer_length = peer_length(c);
	c->listener->n_fields = 0;
	MHD_get_connection_values_n(c->connection, MHD_HEADER_KIND, on_field, c->listener);
}

/* --- the library's refusals ----------------------------------------------------------------------------- */

/* Writes a refusal past the library, whose own then fails, and takes what the client still sends. */
static void refuse_past_library(struct client *c, int status, const char *why)
{
	static const struct http_field type[] = {
		{SPAN_INIT("Content-Type"), SPAN_INIT("application/problem+json")}};
	struct http_response r = {.status = status, .fields = type, .n_fields = 1};
	struct listener *l = c->listener;
	char body[REFUSAL_MAX];
	size_t n = refusal_body(body, status, why);
	l->handler.refused(l->handler.arg, status, why);
	if (c->exchange) {
		head_ends(c->exchange);
		c->exchange->cut = true;
	}
	c->linger = c->refused = raw_answer_send(c->fd, reason_of(status), &r, (struct span){body, n}) == 0;
	if (!c->linger)
		hang_up(c);
	listener_schedule(l);
}

static const char too_large[] = "request line and fields are too large";

/* The library would refuse a head that its memory cannot hold with a page of its own. That memory is more
 * than two reads can fill, so that the newest ones are checked in time. */
static void refuse_large_heads(struct listener *l)
{
	struct exchange *next, *x = LIST_FIRST(&l->heads);
	for (int i = 0; i < HEADS_LOOKED_AT && x; i++, x = next) {
		next = LIST_NEXT(x, head_place);
		if (read_of_head(x) > l->options.max_head + HEAD_SLACK)
			refuse_past_library(x->client, 431, too_large);
	}
}

/*
 * What the library refuses by itself gets a page of its own, whose head 0.9.75 sends twice for a bad
 * Content-Length. Right before it makes that page it tells its log: there ours goes out instead. The log does
 * not say whose request it is. Exactly one exchange can have a complete head that we have not been called
 * for; heads that are too large are refused, all of them; and otherwise it must be the only connection that
 * it can be, or the page stands.
 */
static bool may_look(struct listener *l)
{
	uint64_t second = loop_now_ms(l->loop) / 1000;
	if (second != l->looks_second)
		l->looks = 0;
	l->looks_second = second;
	return l->looks++ < LOOKS_PER_SECOND;
}

/* Bytes that the library has read and not yet served; perhaps too many, never too few. */
static uint64_t read_beyond(const struct client *c)
{
	int unread = 0;
	struct tcp_info info = {0};
	socklen_t n = sizeof(info);
	if (ioctl(c->fd, FIONREAD, &unread) < 0 || getsockopt(c->fd, IPPROTO_TCP, TCP_INFO, &info, &n) < 0)
		return 1;
	uint64_t not_of_it = c->served + (uint64_t)unread;
	return info.tcpi_bytes_received > not_of_it ? info.tcpi_bytes_received - not_of_it : 0;
}

static bool is_answered(const struct client *c)
{
	return c->hung_up || c->refused || c->handed ||
	       MHD_get_connection_info(c->connection, MHD_CONNECTION_INFO_HTTP_STATUS);
}

static struct client *complete_head(const struct listener *l)
{
	for (struct exchange *x = LIST_FIRST(&l->heads); x; x = LIST_NEXT(x, head_place))
		if (!is_answered(x->client) &&
		    MHD_get_connection_info(x->client->connection, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE))
			return x->client;
	return NULL;
}

static bool listener_is_of_size(int status)
{
	return status == 414 || status == 431;
}

/* Whether the connection's state allows it to be the one, as far as that is known without a look at its
 * socket. */
static bool may_be_suspect(const struct client *c, int status)
{
	const struct exchange *x = c->exchange;
	if (is_answered(c))
		return false;
	if (!x || listener_is_of_size(status))
		return !x || x->in_heads;
	return x->stage == STAGE_NEW
		       ? status != 505
		       : x->stage == STAGE_BODY && x->request.chunked && !x->body_ended && !x->suspended;
}

static bool needs_a_look(const struct client *c, int status)
{
	return !c->exchange || listener_is_of_size(status);
}

static bool is_suspect(const struct client *c, int status)
{
	return !needs_a_look(c, status) ||
	       read_beyond(c) > (listener_is_of_size(status) ? c->listener->options.max_head : 0);
}

static const char *why_of(int status)
{
	switch (status) {
	case 413:
		return "the body is too large";
	case 414:
	case 431:
		return too_large;
	case 505:
		return "only HTTP/1.0 and HTTP/1.1 are served";
	default:
		return "malformed request";
	}
}

static void refuse_suspects(struct listener *l, int status)
{
	struct client *only = NULL;
	unsigned n = 0;
	for (struct client *c = LIST_FIRST(&l->clients); c; c = LIST_NEXT(c, place)) {
		if (!may_be_suspect(c, status))
			continue;
		if (needs_a_look(c, status) && !may_look(l))
			return;
		if (!is_suspect(c, status))
			continue;
		n++;
		only = c;
		if (listener_is_of_size(status))
			refuse_past_library(c, c->exchange ? 431 : 414, too_large);
	}
	if (n == 1 && !listener_is_of_size(status))
		refuse_past_library(only, status, why_of(status));
}

/* Our own sentence, where the fields give one. */
static void refuse_head(struct exchange *x, int status)
{
	const char *why = NULL;
	fill_request(x, "GET", "HTTP/1.1"); /* which are not to be had here, and not at fault */
	x->request.fields = x->client->listener->fields;
	x->request.n_fields = x->client->listener->n_fields;
	if (x->request.n_fields > HTTP_FIELDS_MAX || head_check(&x->request, &why) != status)
		why = why_of(status);
	refuse_past_library(x->client, status, why);
}

static void on_log(void *arg, const char *format, va_list values)
{
	static const char refusing[] = "Error processing request (HTTP response code is %u";
	struct listener *l = arg;
	if (strncmp(format, refusing, sizeof(refusing) - 1) != 0)
		return;
	int status = (int)va_arg(values, unsigned);
	struct client *c = complete_head(l);
	if (c)
		refuse_head(c->exchange, status);
	else
		refuse_suspects(l, status);
}

/* --- the library's calls, by stage ---------------------------------------------------------------------- */

/*
 * Everything was read, nothing answered. The library reads from a connection right after resuming it if it
 * was reading when suspended; the end of a half-closed client's stream would then end the exchange before its
 * answer. So the call returns once without an answer, which makes the library stop reading, and suspends when
 * it is called again at once.
 */
static enum MHD_Result await_answer(struct exchange *x)
{
	if (x->yielded) {
		suspend(x);
	} else {
		x->yielded = true;
		x->client->listener->again = true;
	}
	return MHD_YES;
}

static enum MHD_Result listener_complete(struct exchange *x)
{
	x->stage = STAGE_COMPLETE;
	if (x->wants_body && !x->body_ended && !x->response && !x->cut) {
		x->body_ended = true;
		x->client->listener->handler.body_end(x->user, x);
	}
	if (x->cut)
		return MHD_NO;
	return x->response ? queue(x) : await_answer(x);
}

static enum MHD_Result take_body(struct exchange *x, const char *bytes, size_t *size)
{
	struct listener *l = x->client->listener;
	if (!x->response && !x->cut) {
		x->woken = false;
		x->arrived = x->taken + *size;
		size_t took = l->handler.body(x->user, x, bytes, *size);
		assert(took <= *size);
		x->taken += took;
		*size -= took;
	}
	if (x->cut)
		return MHD_NO;
	if (x->response) {
		uint64_t now = loop_now_ms(l->loop);
		if (!x->dropped)
			x->drain_until_ms = now + l->options.drain_timeout_ms;
		x->dropped += *size;
		*size = 0;
		x->cut = now >= x->drain_until_ms;
		return x->cut ? MHD_NO : MHD_YES;
	}
	if (*size) {
		suspend(x);
		if (x->woken)
			listener_resume(x);
	}
	return MHD_YES;
}

static enum MHD_Result after_head(struct exchange *x)
{
	if (x->cut)
		return MHD_NO;
	if (!x->request.has_body) {
		x->stage = STAGE_COMPLETE; /* the last call follows at once */
	} else if (x->response) {
		x->client->linger = true;
		return queue(x);
	} else if (x->wants_body) {
		x->stage = STAGE_BODY;
	} else {
		x->stage = STAGE_HEAD;
		suspend(x);
	}
	return MHD_YES;
}

static enum MHD_Result listener_begin(struct exchange *x, const char *method, const char *version)
{
	struct client *c = x->client;
	struct listener *l = c->listener;
	const char *why = NULL;
	head_ends(x);
	if (x->cut)
		return MHD_NO;
	c->still = 0;
	sweep_start(l->sweep, &c->limit, LIMIT_PROGRESS);
	fill_request(x, method, version);
	int status = listener_check(x, &why);
	if (status)
		return listener_refuse(x, status, why);
	if (is_lost(c) || keep_fields(x) < 0)
		return MHD_NO;
	x->told = true;
	l->exchanges++;
	x->user = l->handler.head(l->handler.arg, x, &x->request);
	return after_head(x);
}

static enum MHD_Result on_request(void *arg, struct MHD_Connection *connection, const char *url,
				  const char *method, const char *version, const char *bytes, size_t *size,
				  void **context)
{
	(void)arg, (void)connection, (void)url;
	struct exchange *x = *context;
	if (!x)
		return MHD_NO;
	switch (x->stage) {
	case STAGE_NEW:
		return listener_begin(x, method, version);
	case STAGE_HEAD:
		return after_head(x);
	case STAGE_BODY:
		return *size ? take_body(x, bytes, size) : listener_complete(x);
	case STAGE_COMPLETE:
		return listener_complete(x);
	case STAGE_ANSWERING:
		break;
	}
	return MHD_NO;
}

static struct client *client_of(struct MHD_Connection *connection)
{
	return MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
}

/*
 * The library is about to split the query into arguments, which nobody asks it for: that costs time, and 64
 * bytes for each, so that it drops the connection at a few hundred. An end of string after the question mark
 * makes it find none. The text is in its read buffer; only the library's own strings end there, and it is
 * not checked again.
 */
static void hide_arguments(const char *target)
{
	char *query = target ? strchr((char *)(uintptr_t)target, '?') : NULL;
	if (query)
		query[1] = 0; /* at worst the end that is there already */
}

/*
 * The library parses the first Cookie field it finds, which nobody asks it for: that costs 64 bytes and a
 * copy for each cookie, and one that it cannot read (`theme="`) ends the request with 431. So the first is an
 * empty one of ours.
 */
static void hide_cookies(struct MHD_Connection *connection)
{
	MHD_set_connection_value(connection, MHD_HEADER_KIND, "Cookie", no_cookies);
}

/* The only place where the target can be had as it was sent. */
static void *on_target(void *arg, const char *target, struct MHD_Connection *connection)
{
	(void)arg;
	struct client *c = client_of(connection);
	size_t n = target ? strlen(target) : 0;
	struct exchange *x = c ? calloc(1, sizeof(*x) + n + 1) : NULL;
	if (!x)
		return NULL;
	x->client = c;
	x->target_at = target;
	x->target_length = n;
	if (n)
		memcpy(x->target, target, n);
	hide_arguments(target);
	hide_cookies(connection);
	c->exchange = x;
	c->asked = true;
	head_begins(x);
	if (!c->limit.next || c->limit.kind != LIMIT_HEAD) /* of the first request it runs since the accept */
		sweep_start(c->listener->sweep, &c->limit, LIMIT_HEAD);
	return x;
}

/* Spares the library from decoding a path that is never used. */
static size_t keep_escapes(void *arg, struct MHD_Connection *connection, char *text)
{
	(void)arg, (void)connection;
	return strlen(text);
}

static void tell_end(struct exchange *x, enum MHD_RequestTerminationCode code)
{
	struct listener *l = x->client->listener;
	if (x->told) {
		l->exchanges--;
		bool answered =
			code == MHD_REQUEST_TERMINATED_COMPLETED_OK && x->stage == STAGE_ANSWERING && !x->cut;
		l->handler.finished(x->user, x, !answered && !x->answered_raw);
	} else if (x->stage == STAGE_NEW && !x->cut) { /* by its own page, see on_log */
		const union MHD_ConnectionInfo *i =
			MHD_get_connection_info(x->client->connection, MHD_CONNECTION_INFO_HTTP_STATUS);
		if (i)
			l->handler.refused(l->handler.arg, (int)i->http_status, "refused by libmicrohttpd");
	}
}

static void on_completed(void *arg, struct MHD_Connection *connection, void **context,
			 enum MHD_RequestTerminationCode code)
{
	(void)arg, (void)connection;
	struct exchange *x = *context;
	if (!x)
		return;
	struct client *c = x->client;
	tell_end(x, code);
	head_ends(x);
	c->served += x->head_size + (uint64_t)(x->request.content_length > 0 ? x->request.content_length : 0);
	*context = NULL;
	c->exchange = NULL;
	sweep_start(c->listener->sweep, &c->limit, LIMIT_IDLE);
	/* While it is patient, the client learns it with its next answer. */
	if (c->listener->quiesced && !c->listener->patient && !c->linger)
		hang_up(c);
	if (x->response)
		MHD_destroy_response(x->response);
	free(x->fields);
	free(x);
}

/* --- connections ---------------------------------------------------------------------------------------- */

/* IPv4 clients of an IPv6 socket are shown as what they are. */
static void keep_peer(struct client *c, const struct sockaddr *peer)
{
	bool v6 = peer->sa_family == AF_INET6;
	memcpy(&c->peer, peer, v6 ? sizeof(c->peer.v6) : sizeof(c->peer.v4));
	if (v6 && IN6_IS_ADDR_V4MAPPED(&c->peer.v6.sin6_addr)) {
		struct sockaddr_in6 mapped = c->peer.v6;
		memset(&c->peer, 0, sizeof(c->peer));
		c->peer.v4.sin_family = AF_INET;
		c->peer.v4.sin_port = mapped.sin6_port;
		memcpy(&c->peer.v4.sin_addr, &mapped.sin6_addr.s6_addr[12], 4);
	}
}

/* The newest is at the list's head. One that is being closed already has made its place. */
static void make_place(struct listener *l, const struct client *newest)
{
	struct client *oldest = NULL, *idle = NULL;
	unsigned closing = 0;
	for (struct client *c = LIST_FIRST(&l->clients); c; c = LIST_NEXT(c, place)) {
		closing += c->hung_up;
		if (c == newest || c->hung_up)
			continue;
		oldest = c;
		idle = c->exchange ? idle : c;
	}
	if (l->connections - closing > l->options.max_connections && oldest)
		hang_up(idle ? idle : oldest);
}

static struct client *listener_client_new(struct listener *l, struct MHD_Connection *connection)
{
	struct client *c = steal(l->returning);
	bool returns = c != NULL;
	if (!returns && !(c = calloc(1, sizeof(*c))))
		return NULL;
	c->listener = l;
	c->connection = connection;
	c->handed = false;
	c->fd = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
	if (!returns)
		keep_peer(
			c,
			MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS)->client_addr);
	if (hangup_add(l->hangup, c->fd, c) < 0) {
		free(c);
		return NULL;
	}
	LIST_INSERT_HEAD(&l->clients, c, place);
	c->over_limit = ++l->connections > l->options.max_connections && !returns;
	if (c->over_limit && l->options.newest_first) {
		c->over_limit = false;
		make_place(l, c);
	}
	sweep_start(l->sweep, &c->limit, returns ? LIMIT_IDLE : LIMIT_HEAD);
	return c;
}

/* Room for one more, be it to refuse it. */
static bool has_room(const struct listener *l)
{
	return l->connections < l->options.max_connections + CONNECTIONS_TO_REFUSE;
}

/* Whoever wrote it, and whether it has gone out or waits in the kernel. */
static bool was_written_to(const struct client *c)
{
	struct tcp_info info = {0};
	socklen_t n = sizeof(info);
	return getsockopt(c->fd, IPPROTO_TCP, TCP_INFO, &info, &n) < 0 || info.tcpi_bytes_sent > 0 ||
	       info.tcpi_notsent_bytes > 0;
}

/* It closes without an answer when a request line has no blank. Only of a first one it is certain that no
 * answer went before, and only if the library's own page has not. */
static void refuse_closed_line(struct client *c)
{
	bool ours =
		c->asked || c->hung_up || c->refused || c->half_closed || c->gone || c->listener->stopping;
	if (ours || read_beyond(c) == 0)
		return;
	if (was_written_to(c))
		c->listener->handler.refused(c->listener->handler.arg, 400, "refused by libmicrohttpd");
	else
		refuse_past_library(c, 400, why_of(400));
}

/* The descriptor is closed by the library right after. */
static void listener_client_free(struct client *c)
{
	struct listener *l = c->listener;
	sweep_stop(&c->limit);
	hangup_remove(l->hangup, c->fd);
	LIST_REMOVE(c, place);
	l->connections--;
	if (l->acceptor)
		acceptor_pause(l->acceptor, !has_room(l));
	refuse_closed_line(c);
	bool handed = c->handed && !c->hung_up && !is_lost(c);
	int copy = handed || (c->linger && !c->gone) ? fcntl(c->fd, F_DUPFD_CLOEXEC, 0) : -1;
	if (copy >= 0 && handed) {
		c->fd = copy;
		LIST_INSERT_HEAD(&l->handed, c, place);
		return;
	}
	if (copy >= 0)
		lingering_take(l->lingering, copy);
	free(c);
}

/* Outside of the library's run, in which it still forgets the descriptor that was copied. */
static void listener_give_back(struct listener *l)
{
	while (!LIST_EMPTY(&l->handed)) {
		struct client *c = LIST_FIRST(&l->handed);
		LIST_REMOVE(c, place);
		l->returning = c;
		/* closes it when it cannot be served */
		MHD_add_connection(l->daemon, c->fd, &c->peer.any, peer_length(c));
		free(steal(l->returning)); /* which it then did not take */
		listener_schedule(l);
	}
}

static void listener_on_connection(void *arg, struct MHD_Connection *connection, void **context,
				   enum MHD_ConnectionNotificationCode code)
{
	if (code == MHD_CONNECTION_NOTIFY_STARTED)
		*context = listener_client_new(arg, connection);
	else if (*context)
		listener_client_free(*context);
}

/* --- the listener --------------------------------------------------------------------------------------- */

/* The library keeps in this memory: the head (in one half of it, at first), 64 bytes for each field, and the
 * head of the answer. A head of max_head passes either way, whatever the other one is. The library clears all
 * of it after every request of a kept-alive connection; base/clear.c says why the part that was not used
 * costs little. */
static size_t memory_for(size_t max_head)
{
	size_t half = max_head + ANSWER_OWN + (HTTP_FIELDS_MAX + 1) * LIBRARY_ENTRY;
	size_t n = (2 * half + 4095) & ~(size_t)4095;
	return n > LIBRARY_MAPS_ABOVE ? n : LIBRARY_MAPS_ABOVE + 4096;
}

#define LIBRARY_CONNECTIONS_MORE 64 /* closed, and not yet cleaned up by the library */

static int start_daemon(struct listener *l)
{
	l->daemon = MHD_start_daemon(
		MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_TURBO | MHD_USE_NO_LISTEN_SOCKET |
			MHD_USE_ERROR_LOG,
		0, NULL, NULL, on_request, l, MHD_OPTION_EXTERNAL_LOGGER, on_log, l,
		MHD_OPTION_URI_LOG_CALLBACK, on_target, l, MHD_OPTION_NOTIFY_COMPLETED, on_completed, l,
		MHD_OPTION_NOTIFY_CONNECTION, listener_on_connection, l, MHD_OPTION_UNESCAPE_CALLBACK,
		keep_escapes, l, MHD_OPTION_CONNECTION_LIMIT,
		l->options.max_connections + CONNECTIONS_TO_REFUSE + LIBRARY_CONNECTIONS_MORE,
		MHD_OPTION_CONNECTION_MEMORY_LIMIT, memory_for(l->options.max_head),
		/* The strictness of 0.9.75 finds little (http.md): we check, and count. */
		MHD_OPTION_STRICT_FOR_CLIENT, library_is_new() ? 1 : 0, MHD_OPTION_END);
	return l->daemon ? 0 : -EIO;
}

static void on_accepted(void *arg, int fd, const struct sockaddr *peer, socklen_t length)
{
	struct listener *l = arg;
	MHD_add_connection(l->daemon, fd, peer, length); /* closes it when it cannot be served */
	acceptor_pause(l->acceptor, !has_room(l));
	listener_schedule(l);
}

static int start_parts(struct listener *l)
{
	const struct listener_options *o = &l->options;
	unsigned limits[LIMITS] = {[LIMIT_HEAD] = o->head_timeout_ms,
				   [LIMIT_IDLE] = o->idle_timeout_ms,
				   [LIMIT_PROGRESS] = (o->idle_timeout_ms + 1) / 2};
	int r = sweep_new(l->loop, limits, LIMITS, listener_on_limit, l, &l->sweep);
	if (r == 0)
		r = hangup_new(l->loop, on_hangup, l, &l->hangup);
	if (r == 0)
		r = lingering_new(l->loop, o->drain_timeout_ms, &l->lingering);
	return r;
}

static int start(struct listener *l, int fd)
{
	int r = start_parts(l);
	if (r == 0)
		r = start_daemon(l);
	if (r < 0) {
		close(fd);
		return r;
	}
	bool outlives;
	listen_address_is_inherited(l->options.address, &outlives);
	r = acceptor_new(l->loop, fd, outlives, l->options.reserve, on_accepted, l, &l->acceptor);
	if (r < 0)
		return r;
	acceptor_pause(l->acceptor, l->options.held);
	int epoll_fd = MHD_get_daemon_info(l->daemon, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;
	r = loop_watch_new(l->loop, epoll_fd, LOOP_READ, listener_on_ready, l, &l->watch);
	if (r == 0)
		listener_schedule(l);
	return r;
}

int listener_start(struct loop *loop, const struct listener_options *o, const struct listener_handler *h,
		   struct listener **ret, struct err *e)
{
	struct listener *l = calloc(1, sizeof(*l));
	if (!l)
		return err_set(e, -ENOMEM, "out of memory");
	l->loop = loop;
	l->handler = *h;
	l->options = *o;
	l->run.fn = listener_on_run;
	int fd, r = listen_address_open(o->address, o->reuse_port, &fd, &l->port, e);
	if (r == 0 && (r = start(l, fd)) < 0)
		err_set(e, r, "cannot serve %s: %s", o->address, strerror(-r));
	if (r < 0) {
		listener_stop(l);
		return r;
	}
	l->options.address = NULL;
	*ret = l;
	return 0;
}

unsigned listener_port(const struct listener *l)
{
	return l->port;
}

unsigned listener_exchanges(const struct listener *l)
{
	return l->exchanges;
}

static bool has_input(const struct client *c)
{
	int n = 0;
	return ioctl(c->fd, FIONREAD, &n) == 0 && n > 0;
}

static void listener_close_idle(void *arg, struct sweep_entry *e)
{
	(void)arg;
	struct client *c = (struct client *)((char *)e - offsetof(struct client, limit));
	if (!has_input(c)) /* the next request is there already: it gets its answer, with Connection: close */
		hang_up(c);
}

void listener_open(struct listener *l)
{
	acceptor_pause(l->acceptor, !has_room(l));
}

void listener_quiesce(struct listener *l, bool patient)
{
	if (l->quiesced && (patient || !l->patient))
		return;
	l->quiesced = true;
	l->patient = patient;
	l->quiesced_ms = loop_now_ms(l->loop);
	acceptor_close(l->acceptor);
	if (!patient)
		sweep_each(l->sweep, LIMIT_IDLE, listener_close_idle, NULL);
	listener_schedule(l);
}

static bool has_received(const struct client *c)
{
	struct tcp_info info = {0};
	socklen_t n = sizeof(info);
	return getsockopt(c->fd, IPPROTO_TCP, TCP_INFO, &info, &n) == 0 && info.tcpi_bytes_received > 0;
}

bool listener_settling(const struct listener *l)
{
	/* What libmicrohttpd 1 was handed is not a client of ours before its next run. */
	return !acceptor_closed(l->acceptor) || l->run_queued;
}

unsigned listener_unheard(struct listener *l)
{
	unsigned n = 0;
	bool patient = l->patient || !acceptor_closed(l->acceptor) ||
		       loop_now_ms(l->loop) - l->quiesced_ms < UNHEARD_MS;
	for (struct client *c = LIST_FIRST(&l->clients); c; c = LIST_NEXT(c, place)) {
		if (c->hung_up || is_lost(c) || (c->exchange && c->exchange->told))
			continue;
		bool idle = !c->exchange && c->limit.next && c->limit.kind == LIMIT_IDLE;
		if (c->exchange || (idle ? has_input(c) : has_received(c)) ||
		    (patient && (!idle || l->patient)))
			n++;
		else
			hang_up(c);
	}
	return n;
}

struct listener *listener_stop(struct listener *l)
{
	if (!l)
		return NULL;
	l->stopping = true;
	l->acceptor = acceptor_free(l->acceptor);
	loop_watch_free(l->watch);
	for (struct client *c = LIST_FIRST(&l->clients); c; c = LIST_NEXT(c, place))
		if (c->exchange && c->exchange->suspended)
			/* the library must not be stopped with suspended ones */
			listener_resume(c->exchange);
	if (l->daemon)
		MHD_stop_daemon(l->daemon);
	while (!LIST_EMPTY(&l->handed)) {
		struct client *c = LIST_FIRST(&l->handed);
		LIST_REMOVE(c, place);
		close(c->fd);
		free(c);
	}
	if (l->run_queued)
		loop_defer_cancel(l->loop, &l->run);
	lingering_free(l->lingering);
	hangup_free(l->hangup);
	sweep_free(l->sweep);
	free(l);
	return NULL;
}
