/* gRPC against a server that answers with the HTTP/2 frames it is told, one thread for each connection. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/grpc.h"

enum { FRAME_DATA = 0, FRAME_HEADERS = 1, FRAME_RST = 3, FRAME_SETTINGS = 4, FRAME_PING = 6 };
enum { END_STREAM = 1, ACK = 1, END_HEADERS = 4 };
#define CONNECTIONS_MAX 16

/* What the server says to every request. Field lines are "name: value\n…"; ":status" is 200 unless said. */
struct answer {
	const char *head, *trailers; /* trailers NULL: none follow; head alone ends the stream if !data.ptr */
	struct span data;
	size_t cut;  /* DATA frames of so many bytes; 0: one */
	bool close;  /* after what is there, without an end */
	bool reset;  /* RST_STREAM INTERNAL_ERROR instead of the trailers */
	bool silent; /* says nothing */
};

struct h2 {
	int fd;
	char address[64];
	pthread_t thread, each[CONNECTIONS_MAX];
	int sockets[CONNECTIONS_MAX];
	const struct answer *_Atomic answer;
	atomic_uint connections, requests, resets;
	pthread_mutex_t lock;	   /* over `last` */
	unsigned char last[65536]; /* the bodies of requests */
	size_t last_len;
};

struct serving {
	struct h2 *h;
	int fd;
};

static bool read_all(int fd, void *out, size_t n)
{
	char *p = out;
	while (n) {
		ssize_t got = read(fd, p, n);
		if (got <= 0)
			return false;
		p += got;
		n -= (size_t)got;
	}
	return true;
}

static void put_frame(struct buf *out, int type, int flags, uint32_t stream, struct span payload)
{
	const unsigned char head[9] = {(unsigned char)(payload.len >> 16),
				       (unsigned char)(payload.len >> 8),
				       (unsigned char)payload.len,
				       (unsigned char)type,
				       (unsigned char)flags,
				       (unsigned char)(stream >> 24),
				       (unsigned char)(stream >> 16),
				       (unsigned char)(stream >> 8),
				       (unsigned char)stream};
	buf_append(out, head, sizeof(head));
	buf_append_span(out, payload);
}

/* HPACK: literals without indexing, new names, no Huffman code. */
static void put_fields(struct buf *out, const char *lines, uint32_t stream, bool status, bool ends)
{
	CLEANUP(buf_releasep) struct buf block = BUF_INIT(65536);
	if (status && strncmp(lines, ":status", 7) != 0)
		buf_putc(&block, (char)0x88);
	while (*lines) {
		const char *colon = strstr(lines, ": "), *end = strchr(lines, '\n');
		buf_putc(&block, 0);
		buf_putc(&block, (char)(colon - lines));
		buf_append(&block, lines, (size_t)(colon - lines));
		buf_putc(&block, (char)(end - colon - 2));
		buf_append(&block, colon + 2, (size_t)(end - colon - 2));
		lines = end + 1;
	}
	put_frame(out, FRAME_HEADERS, END_HEADERS | (ends ? END_STREAM : 0), stream, buf_span(&block));
}

static void put_answer(struct buf *out, const struct answer *a, uint32_t stream)
{
	bool alone = !a->data.ptr && !a->close && !a->reset && !a->trailers;
	if (a->silent)
		return;
	put_fields(out, a->head, stream, true, alone);
	for (size_t at = 0; at < a->data.len;) {
		size_t n = a->data.len - at;
		n = a->cut && n > a->cut ? a->cut : n;
		put_frame(out, FRAME_DATA, 0, stream, (struct span){a->data.ptr + at, n});
		at += n;
	}
	if (a->reset)
		put_frame(out, FRAME_RST, 0, stream, SPAN_LIT("\0\0\0\2"));
	else if (a->trailers)
		put_fields(out, a->trailers, stream, false, true);
}

static bool on_frame(struct h2 *h, int fd, const unsigned char *head, struct buf *payload)
{
	uint32_t stream =
		(uint32_t)(head[5] & 0x7f) << 24 | (uint32_t)head[6] << 16 | (uint32_t)head[7] << 8 | head[8];
	CLEANUP(buf_releasep) struct buf out = BUF_INIT(64u << 20);
	if (head[3] == FRAME_RST)
		atomic_fetch_add(&h->resets, 1);
	if (head[3] == FRAME_PING && !(head[4] & ACK))
		put_frame(&out, FRAME_PING, ACK, 0, buf_span(payload));
	if (head[3] == FRAME_SETTINGS && !(head[4] & ACK))
		put_frame(&out, FRAME_SETTINGS, ACK, 0, SPAN_NONE);
	pthread_mutex_lock(&h->lock); /* calls come on several connections */
	if (head[3] == FRAME_DATA && h->last_len + payload->len <= sizeof(h->last)) {
		memcpy(h->last + h->last_len, payload->ptr, payload->len);
		h->last_len += payload->len;
	}
	pthread_mutex_unlock(&h->lock);
	bool ends = (head[3] == FRAME_DATA || head[3] == FRAME_HEADERS) && (head[4] & END_STREAM);
	if (ends) {
		atomic_fetch_add(&h->requests, 1);
		put_answer(&out, h->answer, stream);
	}
	if (out.len && write(fd, out.ptr, out.len) != (ssize_t)out.len)
		return false;
	return !(ends && h->answer->close);
}

static void *serve_one(void *arg)
{
	struct serving *s = arg;
	unsigned char head[24];
	CLEANUP(buf_releasep) struct buf payload = BUF_INIT(1u << 20), hello = BUF_INIT(64);
	put_frame(&hello, FRAME_SETTINGS, 0, 0, SPAN_NONE);
	bool goes_on = read_all(s->fd, head, 24) && write(s->fd, hello.ptr, hello.len) == (ssize_t)hello.len;
	while (goes_on && read_all(s->fd, head, 9)) {
		size_t n = (size_t)head[0] << 16 | (size_t)head[1] << 8 | head[2];
		buf_clear(&payload);
		buf_reserve(&payload, n);
		if (!read_all(s->fd, payload.ptr, n))
			break;
		payload.len = n;
		goes_on = on_frame(s->h, s->fd, head, &payload);
	}
	shutdown(s->fd, SHUT_RDWR);
	free(s);
	return NULL;
}

static void *serve(void *arg)
{
	struct h2 *h = arg;
	int fd;
	while ((fd = accept(h->fd, NULL, NULL)) >= 0) {
		struct serving *s = malloc(sizeof(*s));
		unsigned n = atomic_load(&h->connections);
		if (!s || n == CONNECTIONS_MAX)
			abort();
		*s = (struct serving){h, fd};
		h->sockets[n] = fd;
		pthread_create(&h->each[n], NULL, serve_one, s);
		atomic_store(&h->connections, n + 1);
	}
	return NULL;
}

static void h2_start(struct h2 *h)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t n = sizeof(a);
	h->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(h->fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(h->fd, 16), 0);
	assert_int_equal(getsockname(h->fd, (struct sockaddr *)&a, &n), 0);
	snprintf(h->address, sizeof(h->address), "127.0.0.1:%d", ntohs(a.sin_port));
	pthread_mutex_init(&h->lock, NULL);
	assert_int_equal(pthread_create(&h->thread, NULL, serve, h), 0);
}

static void h2_stop(struct h2 *h)
{
	shutdown(h->fd, SHUT_RDWR);
	pthread_join(h->thread, NULL);
	close(h->fd);
	for (unsigned i = 0; i < atomic_load(&h->connections); i++) {
		shutdown(h->sockets[i], SHUT_RDWR);
		if (!pthread_equal(h->each[i], pthread_self()))
			pthread_join(h->each[i], NULL);
		close(h->sockets[i]);
	}
}

/* --- the client's side ---------------------------------------------------------------------------------- */

struct asking {
	struct loop *loop;
	struct grpc_channel *channel;
	struct grpc_call *call;
	unsigned n_messages, n_done, wanted;
	bool cancel_in_message;
	char messages[256];
	size_t bytes;
	struct grpc_status status;
	char text[512];
};

static void on_message(void *arg, struct span m)
{
	struct asking *a = arg;
	a->n_messages++;
	a->bytes += m.len;
	if (m.len < 32) {
		strncat(a->messages, m.ptr, m.len);
		strcat(a->messages, "|");
	}
	if (a->cancel_in_message) {
		a->call = grpc_cancel(a->call);
		loop_stop(a->loop);
	}
}

static void on_done(void *arg, const struct grpc_status *s)
{
	struct asking *a = arg;
	a->call = NULL;
	a->status = *s;
	span_copy(span_of(s->message), a->text, sizeof(a->text));
	if (++a->n_done == a->wanted)
		loop_stop(a->loop);
}

static void asking_start(struct asking *a, const char *address)
{
	struct err e = {""};
	const struct http_field metadata[] = {{SPAN_INIT("authorization"), SPAN_INIT("Bearer x")}};
	struct grpc_channel_options o = {.address = address, .metadata = metadata, .n_metadata = 1};
	*a = (struct asking){.wanted = 1};
	assert_int_equal(loop_new(&a->loop), 0);
	assert_int_equal(grpc_channel_new(a->loop, &o, &a->channel, &e), 0);
}

static void asking_end(struct asking *a)
{
	grpc_channel_free(a->channel);
	loop_free(a->loop);
}

static void begin(struct asking *a, const struct grpc_request *r)
{
	struct err e = {""};
	const struct grpc_events events = {.arg = a, .message = on_message, .done = on_done};
	assert_int_equal(grpc_start(a->channel, r, &events, &a->call, &e), 0);
	assert_int_equal(a->n_done, 0);
}

static const struct grpc_request hello = {.path = "/test.Greeter/Hello", .message = SPAN_INIT("hi")};

static void ask(struct h2 *h, struct asking *a, const struct answer *answer, const struct grpc_request *r)
{
	*h = (struct h2){.answer = answer};
	h2_start(h);
	asking_start(a, h->address);
	begin(a, r);
	loop_run(a->loop);
	asking_end(a);
	h2_stop(h);
}

#define GRPC_HEAD "content-type: application/grpc\n"

static void a_message_and_its_status(void **state)
{
	(void)state;
	struct h2 h;
	struct asking a;
	const struct answer answer = {
		.head = GRPC_HEAD, .data = SPAN_LIT("\0\0\0\0\5there"), .trailers = "grpc-status: 0\n"};
	ask(&h, &a, &answer, &hello);
	assert_int_equal(a.status.code, GRPC_OK);
	assert_true(a.status.of_server);
	assert_string_equal(a.messages, "there|");
	assert_int_equal(h.last_len, 7);
	assert_memory_equal(h.last, "\0\0\0\0\2hi", 7);
}

static void an_error_in_trailers_alone(void **state)
{
	(void)state;
	struct h2 h;
	struct asking a;
	const struct answer answer = {.head = GRPC_HEAD "grpc-status: 5\ngrpc-message: no%20such%0Athing: "
							"%C3%A9 %FF %zz\n"};
	ask(&h, &a, &answer, &hello);
	assert_int_equal(a.status.code, GRPC_NOT_FOUND);
	assert_string_equal(a.text, "no such thing: \xC3\xA9 ? %zz");
	assert_int_equal(a.n_messages, 0);
}

static void a_stream_cut_anywhere(void **state)
{
	(void)state;
	for (size_t cut = 1; cut < 9; cut++) {
		struct h2 h;
		struct asking a;
		const struct answer answer = {.head = GRPC_HEAD,
					      .data = SPAN_LIT("\0\0\0\0\1a\0\0\0\0\0\0\0\0\0\2bc"),
					      .cut = cut,
					      .trailers = "grpc-status: 10\ngrpc-message: later\n"};
		ask(&h, &a, &answer, &hello);
		assert_string_equal(a.messages, "a||bc|");
		assert_int_equal(a.status.code, GRPC_ABORTED);
		assert_string_equal(a.text, "later");
	}
}

static void what_is_lost_is_unavailable(void **state)
{
	(void)state;
	struct h2 h;
	struct asking a;
	const struct answer closed = {.head = GRPC_HEAD, .data = SPAN_LIT("\0\0\0\0\1a\0\0"), .close = true};
	const struct answer reset = {.head = GRPC_HEAD, .data = SPAN_LIT("\0\0\0\0\1a"), .reset = true};
	const struct answer gateway = {.head = ":status: 503\ncontent-type: text/plain\n",
				       .data = SPAN_LIT("away"),
				       .trailers = "x: y\n"};
	ask(&h, &a, &closed, &hello);
	assert_int_equal(a.status.code, GRPC_UNAVAILABLE);
	assert_true(a.status.sent);
	assert_true(strlen(a.text) > 0);
	assert_int_equal(h.requests, 1);
	ask(&h, &a, &reset, &hello);
	assert_int_equal(a.status.code, GRPC_UNAVAILABLE);
	assert_int_equal(h.requests, 1);
	ask(&h, &a, &gateway, &hello);
	assert_int_equal(a.status.code, GRPC_UNAVAILABLE);
	assert_false(a.status.of_server);
	/* nobody listens at that port any more */
	asking_start(&a, h.address);
	begin(&a, &hello);
	loop_run(a.loop);
	asking_end(&a);
	assert_int_equal(a.status.code, GRPC_UNAVAILABLE);
	assert_false(a.status.sent);
}

static void what_is_no_grpc_is_said(void **state)
{
	(void)state;
	struct h2 h;
	struct asking a;
	const struct answer page = {
		.head = "content-type: text/html\n", .data = SPAN_LIT("<p>"), .trailers = "x: y\n"};
	const struct answer open_end = {
		.head = GRPC_HEAD, .data = SPAN_LIT("\0\0\0\0\1a"), .trailers = "x: y\n"};
	const struct answer cut = {
		.head = GRPC_HEAD, .data = SPAN_LIT("\0\0\0\0\4a"), .trailers = "grpc-status: 0\n"};
	const struct answer compressed = {
		.head = GRPC_HEAD, .data = SPAN_LIT("\1\0\0\0\1a"), .trailers = "grpc-status: 0\n"};
	ask(&h, &a, &page, &hello);
	assert_int_equal(a.status.code, GRPC_UNKNOWN);
	ask(&h, &a, &open_end, &hello);
	assert_int_equal(a.status.code, GRPC_UNKNOWN);
	ask(&h, &a, &cut, &hello);
	assert_int_equal(a.status.code, GRPC_INTERNAL);
	ask(&h, &a, &compressed, &hello);
	assert_int_equal(a.status.code, GRPC_INTERNAL);
	assert_int_equal(a.n_messages, 0);
}

static void a_message_has_a_limit(void **state)
{
	(void)state;
	struct h2 h;
	struct asking a;
	static char big[5 + 65536] = {0, 0, 1, 0, 0};
	const struct answer answer = {
		.head = GRPC_HEAD, .data = {big, sizeof(big)}, .cut = 16384, .trailers = "grpc-status: 0\n"};
	struct grpc_request r = hello;
	r.max_message = 65535;
	ask(&h, &a, &answer, &r);
	assert_int_equal(a.status.code, GRPC_RESOURCE_EXHAUSTED);
	assert_int_equal(a.n_messages, 0);
	r.max_message = 65536;
	ask(&h, &a, &answer, &r);
	assert_int_equal(a.status.code, GRPC_OK);
	assert_int_equal(a.bytes, 65536);
}

static void a_deadline_ends_it(void **state)
{
	(void)state;
	struct h2 h;
	struct asking a;
	const struct answer answer = {.silent = true};
	struct grpc_request r = hello;
	r.deadline_ms = 50;
	r.grace_ms = 10;
	ask(&h, &a, &answer, &r);
	assert_int_equal(a.status.code, GRPC_DEADLINE_EXCEEDED);
	assert_true(a.status.sent);
}

static void cancelled_within_its_message(void **state)
{
	(void)state;
	const struct answer answer = {.head = GRPC_HEAD,
				      .data = SPAN_LIT("\0\0\0\0\1a\0\0\0\0\1b"),
				      .trailers = "grpc-status: 0\n"};
	struct h2 h = {.answer = &answer};
	struct asking a;
	h2_start(&h);
	asking_start(&a, h.address);
	a.cancel_in_message = true;
	begin(&a, &hello);
	loop_run(a.loop);
	asking_end(&a);
	h2_stop(&h);
	assert_string_equal(a.messages, "a|");
	assert_int_equal(a.n_done, 0);
}

/* A silent stream is no obstacle for the calls beside it, and these take the connections of their
 * predecessors. */
static void a_long_poll_holds_up_nothing(void **state)
{
	(void)state;
	const struct answer silent = {.silent = true}, quick = {.head = GRPC_HEAD "grpc-status: 0\n"};
	struct h2 h = {.answer = &silent};
	struct asking a;
	struct grpc_call *poll;
	h2_start(&h);
	asking_start(&a, h.address);
	struct grpc_request r = hello;
	r.deadline_ms = 30;
	a.wanted = 2;
	begin(&a, &hello);
	poll = a.call;
	begin(&a, &r);
	a.wanted = 1;
	loop_run(a.loop);
	assert_int_equal(a.status.code, GRPC_DEADLINE_EXCEEDED);
	h.answer = &quick;
	for (int i = 0; i < 5; i++) {
		a.n_done = 0;
		begin(&a, &hello);
		loop_run(a.loop);
		assert_int_equal(a.status.code, GRPC_OK);
	}
	assert_true(atomic_load(&h.connections) <= 3);
	grpc_cancel(poll);
	asking_end(&a);
	h2_stop(&h);
}

/* A kept connection that the server has closed meanwhile costs one call at most: libcurl 8 looks at its kept
 * connections once a second, and what it sends over a dead one is UNAVAILABLE. */
static void a_kept_connection_that_is_gone(void **state)
{
	(void)state;
	const struct answer last = {
		.head = GRPC_HEAD, .data = SPAN_LIT("\0\0\0\0\1a"), .trailers = "grpc-status: 0\n"};
	struct h2 h = {.answer = &last};
	struct asking a;
	struct grpc_request r = hello;
	r.may_resend = true;
	h2_start(&h);
	asking_start(&a, h.address);
	for (int i = 0; i < 4; i++) {
		a.n_done = 0;
		begin(&a, &r);
		loop_run(a.loop);
		if (a.status.code == GRPC_UNAVAILABLE) {
			a.n_done = 0;
			begin(&a, &r);
			loop_run(a.loop);
		}
		assert_int_equal(a.status.code, GRPC_OK);
		shutdown(h.sockets[i], SHUT_RDWR);
		pthread_join(h.each[i], NULL); /* it is closed */
		h.each[i] = pthread_self();
	}
	assert_true(h.requests >= 4);
	asking_end(&a);
	h2_stop(&h);
}

static void wrong_settings_are_named(void **state)
{
	(void)state;
	struct loop *loop;
	struct grpc_channel *c = NULL;
	struct err e;
	static const char *const wrong[] = {"",		  "host",  "host:", ":7233",
					    "http://h:1", "a b:1", "h:x",   "u@h:1"};
	assert_int_equal(loop_new(&loop), 0);
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		struct grpc_channel_options o = {.address = wrong[i]};
		assert_int_equal(grpc_channel_new(loop, &o, &c, &e), -EINVAL);
	}
	const struct http_field bad = {SPAN_INIT("authorization"), SPAN_INIT("Bearer a\r\nb")};
	struct grpc_channel_options o = {.address = "h:1", .metadata = &bad, .n_metadata = 1};
	assert_int_equal(grpc_channel_new(loop, &o, &c, &e), -EINVAL);
	assert_null(strstr(e.text, "Bearer"));
	assert_null(c);
	loop_free(loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_message_and_its_status),
		cmocka_unit_test(an_error_in_trailers_alone),
		cmocka_unit_test(a_stream_cut_anywhere),
		cmocka_unit_test(what_is_lost_is_unavailable),
		cmocka_unit_test(what_is_no_grpc_is_said),
		cmocka_unit_test(a_message_has_a_limit),
		cmocka_unit_test(a_deadline_ends_it),
		cmocka_unit_test(cancelled_within_its_message),
		cmocka_unit_test(a_kept_connection_that_is_gone),
		cmocka_unit_test(a_long_poll_holds_up_nothing),
		cmocka_unit_test(wrong_settings_are_named),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
