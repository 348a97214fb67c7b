/* legacy: bodies in both directions, early answers, time limits, limits of connections, cancelling. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "support/legacy_scene.h"

static const char *const ok_answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

static struct legacy_request upload(int64_t length)
{
	struct legacy_request r = simple_request("POST", "/up");
	r.has_body = true;
	r.has_length = length >= 0;
	r.content_length = length;
	return r;
}

static void get(struct scene *t, struct seen *s)
{
	struct legacy_request r = simple_request("GET", "/");
	*s = (struct seen){0};
	seen_start(s, &t->client, &r);
}

/* --- requests with bodies ---------------------------------------------------------------------------- */

/* Appends everything that comes in to `arg` until the client closes; answers once the end has come. */
static void record(struct raw_origin *o, int fd, int index)
{
	(void)index;
	struct buf *b = o->arg;
	char c;
	while (raw_read(fd, &c, 1)) {
		buf_append(b, &c, 1);
		if (b->len >= 5 && memcmp(b->ptr + b->len - 5, "END\r\n", 5) == 0)
			raw_puts(fd, ok_answer);
		if (b->len >= 5 && memcmp(b->ptr + b->len - 5, "0\r\n\r\n", 5) == 0)
			raw_puts(fd, ok_answer);
	}
}

/* Sends the parts as the body; what the service has received is looked at when its threads have ended. */
static void send_parts(const struct legacy_request *r, const char *const parts[2], const char *expected)
{
	CLEANUP(buf_releasep) struct buf got = BUF_INIT(1 << 20);
	struct scene t;
	open_scene(&t, record, &got, NULL);
	struct seen s = {0};
	seen_start(&s, &t.client, r);
	for (int i = 0; i < 2; i++)
		assert_int_equal(legacy_call_write(s.call, parts[i], strlen(parts[i])), strlen(parts[i]));
	legacy_call_end(s.call);
	assert_true(seen_run(&s));
	assert_true(s.ended);
	seen_free(&s);
	assert_int_equal(legacy_upstream_connections(t.client.upstream), 1);
	close_scene(&t);
	assert_string_equal(got.ptr, expected);
}

static void frames_bodies(void **state)
{
	(void)state;
	struct legacy_request r = upload(11);
	send_parts(&r, (const char *const[]){"hello", "-END\r\nand more than announced"},
		   "POST /up HTTP/1.1\r\nHost: legacy.test\r\nContent-Length: 11\r\n\r\nhello-END\r\n");
	r = upload(-1);
	send_parts(&r, (const char *const[]){"hello", "0123456789abcdef"},
		   "POST /up HTTP/1.1\r\nHost: legacy.test\r\nTransfer-Encoding: chunked\r\n\r\n"
		   "5\r\nhello\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n");
}

static void a_body_without_end_is_not_sent_on(void **state)
{
	(void)state;
	CLEANUP(buf_releasep) struct buf got = BUF_INIT(1 << 20);
	struct scene t;
	open_scene(&t, record, &got, NULL);
	struct legacy_request r = upload(10);
	struct seen s = {0};
	seen_start(&s, &t.client, &r);
	legacy_call_write(s.call, "hello", 5);
	legacy_call_end(s.call);
	assert_true(seen_run(&s));
	assert_int_equal(s.failure, LEGACY_RESET);
	seen_free(&s);
	assert_int_equal(legacy_upstream_connections(t.client.upstream), 0);
	close_scene(&t);
}

/* Says 100 when it has the head, answers when it has 5 bytes. */
static void says_continue(struct raw_origin *o, int fd, int index)
{
	(void)index;
	char head[4096];
	while (raw_read_head(o, fd, head, sizeof(head))) {
		raw_puts(fd, "HTTP/1.1 100 Continue\r\n\r\n");
		if (!raw_read(fd, head, 5))
			return;
		raw_puts(fd, ok_answer);
	}
}

static void waits_for_continue(void **state)
{
	(void)state;
	struct scene t;
	open_scene(&t, says_continue, NULL, NULL);
	const struct http_field fields[] = {{SPAN_LIT("Host"), SPAN_LIT("x")},
					    {SPAN_LIT("expect"), SPAN_LIT("100-continue")}};
	/* The second one runs over a kept connection, where the head is written at once. */
	for (int i = 0; i < 2; i++) {
		struct legacy_request r = upload(5);
		r.fields = fields;
		r.n_fields = 2;
		struct seen s = {.piece = "hello", .piece_length = 5, .to_send = 5, .end_after = true};
		seen_start(&s, &t.client, &r);
		while (!s.continues && !s.failures)
			loop_run(t.client.loop);
		assert_int_equal(s.continues, 1);
		seen_send(&s);
		assert_true(seen_run(&s));
		assert_string_equal(s.body.ptr, "ok");
		seen_free(&s);
	}
	assert_int_equal(atomic_load(&t.origin->connections), 1);
	close_scene(&t);
}

/* A head whose body does not come is sent all the same, a moment later. */
static void a_head_does_not_wait_long(void **state)
{
	(void)state;
	struct scene t;
	open_scene(&t, says_continue, NULL, NULL);
	for (int i = 0; i < 2; i++) {
		struct legacy_request r = upload(5);
		struct seen s = {.piece = "hello", .piece_length = 5, .to_send = 5, .end_after = true};
		seen_start(&s, &t.client, &r);
		while (!s.continues && !s.failures)
			loop_run(t.client.loop);
		seen_send(&s);
		assert_true(seen_run(&s));
		assert_true(s.ended);
		seen_free(&s);
	}
	close_scene(&t);
}

/* --- early answers ----------------------------------------------------------------------------------- */

static void refuses_early(struct raw_origin *o, int fd, int index)
{
	(void)index;
	char head[4096];
	if (raw_read_head(o, fd, head, sizeof(head)))
		raw_puts(fd, o->arg);
	raw_wait_closed(fd);
}

static void takes_an_early_answer(void **state)
{
	(void)state;
	static const char zeros[65536];
	struct scene t;
	open_scene(&t, refuses_early, (void *)"HTTP/1.1 413 Too large\r\nContent-Length: 3\r\n\r\nbig", NULL);
	struct legacy_request r = upload(1 << 30);
	struct seen s = {0};
	seen_start(&s, &t.client, &r);
	assert_true(seen_run(&s));
	assert_int_equal(s.status, 413);
	assert_string_equal(s.body.ptr, "big");
	assert_true(s.ended);
	/* The rest is swallowed, and the connection is of no more use. */
	for (int i = 0; i < 100; i++)
		assert_int_equal(legacy_call_write(s.call, zeros, sizeof(zeros)), sizeof(zeros));
	legacy_call_end(s.call);
	client_run_ms(&t.client, 1);
	assert_int_equal(s.failures, 0);
	assert_int_equal(legacy_upstream_connections(t.client.upstream), 0);
	seen_free(&s);
	close_scene(&t);
}

/* Nothing of the body is ever read: more than the socket's buffers hold cannot be sent. */
static void refuses_unread(struct raw_origin *o, int fd, int index)
{
	(void)index;
	char head[4096];
	if (!raw_read_head(o, fd, head, sizeof(head)))
		return;
	raw_puts(fd, o->arg);
	poll(&(struct pollfd){.fd = fd, .events = POLLRDHUP}, 1, 20000);
}

/* A caller who was told to wait is told to go on when the answer is there, or he would wait for ever. */
static void an_early_answer_wakes_the_caller(void **state)
{
	(void)state;
	static const char zeros[65536];
	struct scene t;
	open_scene(&t, refuses_unread, (void *)"HTTP/1.1 413 Too large\r\nContent-Length: 3\r\n\r\nbig",
		   NULL);
	struct legacy_request r = upload(256 << 20);
	struct seen s = {
		.piece = zeros, .piece_length = sizeof(zeros), .to_send = 256 << 20, .end_after = true};
	seen_start(&s, &t.client, &r);
	client_run_ms(&t.client, 1);
	seen_send(&s);
	assert_true(seen_run(&s));
	for (int i = 0; s.to_send && i < 2000; i++)
		client_run_ms(&t.client, 1);
	assert_int_equal(s.to_send, 0);
	assert_true(s.ended);
	assert_int_equal(s.failures, 0);
	seen_free(&s);
	close_scene(&t);
}

/* Answers and closes without reading on, so that our writing meets a reset. */
static void refuses_and_closes(struct raw_origin *o, int fd, int index)
{
	(void)index;
	char head[4096];
	if (raw_read_head(o, fd, head, sizeof(head)))
		raw_puts(fd, o->arg);
}

static void an_early_answer_survives_the_reset(void **state)
{
	(void)state;
	static const char zeros[65536];
	for (int round = 0; round < 20; round++) {
		struct scene t;
		open_scene(
			&t, refuses_and_closes,
			(void *)"HTTP/1.1 413 Too large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig",
			NULL);
		struct legacy_request r = upload(64 << 20);
		struct seen s = {.piece = zeros,
				 .piece_length = sizeof(zeros),
				 .to_send = 64 << 20,
				 .end_after = true};
		seen_start(&s, &t.client, &r);
		/* The head first, so that the answer is there when the body follows. */
		while (atomic_load(&t.origin->requests) == 0)
			client_run_ms(&t.client, 1);
		while (atomic_load(&t.origin->open))
			sched_yield();
		seen_send(&s);
		assert_true(seen_run(&s));
		assert_int_equal(s.failures, 0);
		assert_int_equal(s.status, 413);
		assert_string_equal(s.body.ptr, "big");
		seen_free(&s);
		close_scene(&t);
	}
}

/* Sends every byte of the body back as it comes, in chunks. */
static void echoes(struct raw_origin *o, int fd, int index)
{
	(void)index;
	char head[4096], byte[8];
	if (!raw_read_head(o, fd, head, sizeof(head)))
		return;
	raw_puts(fd, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
	for (int i = 0; i < 10 && raw_read(fd, byte, 1); i++) {
		snprintf(head, sizeof(head), "1\r\n%c\r\n", byte[0]);
		raw_puts(fd, head);
	}
	raw_puts(fd, "0\r\n\r\n");
	raw_wait_closed(fd);
}

static void both_directions_run_side_by_side(void **state)
{
	(void)state;
	struct scene t;
	open_scene(&t, echoes, NULL, NULL);
	struct legacy_request r = upload(10);
	struct seen s = {0};
	seen_start(&s, &t.client, &r);
	for (int i = 0; i < 10; i++) {
		char c = (char)('0' + i);
		assert_int_equal(legacy_call_write(s.call, &c, 1), 1);
		if (i == 9)
			legacy_call_end(s.call);
		while (s.received <= (uint64_t)i && !s.failures)
			client_run_ms(&t.client, 1);
	}
	assert_true(s.ended || seen_run(&s));
	assert_string_equal(s.body.ptr, "0123456789");
	assert_int_equal(legacy_upstream_connections(t.client.upstream), 1);
	seen_free(&s);
	close_scene(&t);
}

/* --- much -------------------------------------------------------------------------------------------- */

#ifndef __has_feature
#define __has_feature(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || __has_feature(address_sanitizer) || \
	__has_feature(thread_sanitizer)
#define SANITIZED true
#else
#define SANITIZED false
#endif

#define MUCH ((uint64_t)256 << 20)

static long rss_kib(void)
{
	FILE *f = fopen("/proc/self/statm", "re");
	long pages = 0;
	assert_non_null(f);
	assert_int_equal(fscanf(f, "%*d %ld", &pages), 1);
	fclose(f);
	return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

static void send_much(struct raw_origin *o, int fd, int index)
{
	(void)index;
	char head[4096];
	static char data[1 << 20];
	if (!raw_read_head(o, fd, head, sizeof(head)))
		return;
	bool chunked = strstr(head, "chunked");
	uint64_t n = 0;
	for (; strstr(head, "POST") && !chunked && n < MUCH; n += sizeof(data))
		if (!raw_read(fd, data, sizeof(data)))
			return;
	raw_puts(fd, chunked ? "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
			     : "HTTP/1.1 200 OK\r\nContent-Length: 268435456\r\n\r\n");
	for (n = 0; n < MUCH; n += sizeof(data))
		if ((chunked && !raw_puts(fd, "100000\r\n")) || !raw_send(fd, data, sizeof(data)) ||
		    (chunked && !raw_puts(fd, "\r\n")))
			return;
	if (chunked)
		raw_puts(fd, "0\r\n\r\n");
	raw_wait_closed(fd);
}

static void streams_much_in_little_memory(void **state)
{
	(void)state;
	static const char zeros[100000];
	struct scene t;
	open_scene(&t, send_much, NULL, NULL);
	long before = rss_kib();
	struct legacy_request r = upload((int64_t)MUCH);
	struct seen s = {.piece = zeros,
			 .piece_length = sizeof(zeros),
			 .to_send = MUCH,
			 .end_after = true,
			 .drop_body = true};
	seen_start(&s, &t.client, &r);
	seen_send(&s);
	assert_true(s.to_send > MUCH - 200000); /* not connected yet: little is taken */
	assert_true(seen_run(&s));
	assert_true(s.ended);
	assert_int_equal(s.received, MUCH);
	assert_true(s.writables >= 1);
	seen_free(&s);

	/* Chunked: the request tells the service to answer so; its own body is empty. */
	const struct http_field fields[] = {{SPAN_LIT("Host"), SPAN_LIT("x")},
					    {SPAN_LIT("X"), SPAN_LIT("chunked")}};
	r = simple_request("GET", "/");
	r.fields = fields;
	r.n_fields = 2;
	s = (struct seen){.drop_body = true};
	legacy_upstream_close_kept(t.client.upstream);
	seen_start(&s, &t.client, &r);
	assert_true(seen_run(&s));
	assert_true(s.ended);
	assert_int_equal(s.received, MUCH);
	seen_free(&s);
	/* Sanitizers take memory of their own. */
	assert_true(SANITIZED || rss_kib() - before < 4096);
	close_scene(&t);
}

struct flow {
	atomic_ullong sent;
};

static void sends_and_counts(struct raw_origin *o, int fd, int index)
{
	(void)index;
	struct flow *f = o->arg;
	char head[4096];
	static char data[65536];
	if (!raw_read_head(o, fd, head, sizeof(head)))
		return;
	raw_puts(fd, "HTTP/1.1 200 OK\r\n\r\n");
	for (int i = 0; i < 1024 && raw_send(fd, data, sizeof(data)); i++)
		atomic_fetch_add(&f->sent, sizeof(data));
}

/* Who does not read stops the upstream, and gets everything once he does. */
static void a_slow_reader_stops_the_upstream(void **state)
{
	(void)state;
	struct flow f = {0};
	struct scene t;
	open_scene(&t, sends_and_counts, &f, NULL);
	struct legacy_request r = simple_request("GET", "/");
	struct seen s = {.hold = true, .drop_body = true};
	seen_start(&s, &t.client, &r);
	unsigned long long last = 0;
	for (int same = 0; same < 20; last = atomic_load(&f.sent)) {
		client_run_ms(&t.client, 5);
		same = last && last == atomic_load(&f.sent) ? same + 1 : 0;
	}
	assert_true(last < 64ull << 20); /* what the kernel's buffers hold, and no more */
	s.hold = false;
	char piece[1000];
	long n;
	while ((n = legacy_call_read(s.call, piece, sizeof(piece))) > 0)
		s.received += (uint64_t)n;
	assert_true(seen_run(&s));
	assert_true(s.ended);
	assert_int_equal(s.received, 1024 * 65536);
	seen_free(&s);
	close_scene(&t);
}

/* --- time limits ------------------------------------------------------------------------------------- */

static void short_limits(struct legacy_options *o)
{
	o->response_timeout_ms = 60;
	o->idle_timeout_ms = 60;
	o->connect_timeout_ms = 60;
	o->max_connections = 1;
}

static void says_part(struct raw_origin *o, int fd, int index)
{
	(void)index;
	char head[4096];
	if (!raw_read_head(o, fd, head, sizeof(head)))
		return;
	raw_puts(fd, o->arg);
	raw_wait_closed(fd);
}

static void gives_up_on_silence(void **state)
{
	(void)state;
	static const char *const parts[] = {
		"", "HTTP/1.1 2", "HTTP/1.1 200 OK\r\n\r\nabc",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"};
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
		struct scene t;
		open_scene(&t, says_part, (void *)parts[i], short_limits);
		struct seen s;
		int64_t begin = clock_mono_ms();
		get(&t, &s);
		assert_true(seen_run(&s));
		assert_int_equal(s.failure, LEGACY_TIMEOUT);
		assert_true(s.written);
		assert_true(clock_mono_ms() - begin >= 55);
		assert_string_equal(s.body.ptr ? s.body.ptr : "", i < 2 ? "" : "abc");
		seen_free(&s);
		assert_int_equal(legacy_upstream_connections(t.client.upstream), 0);
		close_scene(&t);
	}
}

static void reads_nothing(struct raw_origin *o, int fd, int index)
{
	(void)fd;
	(void)index;
	while (!atomic_load((atomic_int *)o->arg))
		usleep(1000);
}

static void gives_up_on_an_upstream_that_does_not_read(void **state)
{
	(void)state;
	static const char zeros[65536];
	atomic_int over = 0;
	struct scene t;
	open_scene(&t, reads_nothing, &over, short_limits);
	struct legacy_request r = upload(64 << 20);
	struct seen s = {
		.piece = zeros, .piece_length = sizeof(zeros), .to_send = 64 << 20, .end_after = true};
	seen_start(&s, &t.client, &r);
	seen_send(&s);
	assert_true(seen_run(&s));
	assert_int_equal(s.failure, LEGACY_TIMEOUT);
	assert_true(s.to_send > 0);
	seen_free(&s);
	atomic_store(&over, 1);
	close_scene(&t);
}

/* A caller that takes its time with the body is not the upstream's fault. */
static void waits_for_a_slow_caller(void **state)
{
	(void)state;
	struct scene t;
	open_scene(&t, says_continue, NULL, short_limits);
	struct legacy_request r = upload(5);
	struct seen s = {.piece = "hello", .piece_length = 5, .to_send = 5, .end_after = true};
	seen_start(&s, &t.client, &r);
	client_run_ms(&t.client, 200);
	assert_int_equal(s.failures, 0);
	seen_send(&s);
	assert_true(seen_run(&s));
	assert_true(s.ended);
	seen_free(&s);
	close_scene(&t);
}

static void says_ok(struct raw_origin *o, int fd, int index)
{
	(void)index;
	char head[4096];
	while (raw_read_head(o, fd, head, sizeof(head)))
		raw_puts(fd, o->arg ? o->arg : ok_answer);
}

static void keeps_shortly(struct legacy_options *o)
{
	o->keep_ms = 50;
}

static void keeps_for_a_limited_time(void **state)
{
	(void)state;
	struct scene t;
	open_scene(&t, says_ok, NULL, keeps_shortly);
	struct seen s;
	get(&t, &s);
	assert_true(seen_run(&s));
	seen_free(&s);
	assert_int_equal(legacy_upstream_connections(t.client.upstream), 1);
	client_run_ms(&t.client, 150);
	assert_int_equal(legacy_upstream_connections(t.client.upstream), 0);
	close_scene(&t);

	/* The upstream keeps it for a second: too short to be worth the risk. */
	open_scene(&t, says_ok,
		   (void *)"HTTP/1.1 200 OK\r\nKeep-Alive: max=5, timeout=1\r\nContent-Length: 0\r\n\r\n",
		   NULL);
	get(&t, &s);
	assert_true(seen_run(&s));
	assert_true(s.ended);
	seen_free(&s);
	assert_int_equal(legacy_upstream_connections(t.client.upstream), 0);
	close_scene(&t);
}

/* --- connections ------------------------------------------------------------------------------------- */

static void two_connections(struct legacy_options *o)
{
	o->max_connections = 2;
	o->max_queued = 3;
}

static void queues_and_overflows(void **state)
{
	(void)state;
	struct scene t;
	open_scene(&t, says_ok, NULL, two_connections);
	struct seen s[6];
	for (int i = 0; i < 6; i++)
		get(&t, &s[i]);
	for (int i = 0; i < 6; i++) {
		assert_true(seen_run(&s[i]));
		if (i < 5) {
			assert_true(s[i].ended);
		} else {
			assert_int_equal(s[i].failure, LEGACY_OVERLOADED);
			assert_false(s[i].written);
		}
	}
	assert_int_equal(atomic_load(&t.origin->connections), 2);
	for (int i = 0; i < 6; i++)
		seen_free(&s[i]);
	close_scene(&t);
}

static void a_cancelled_call_makes_room(void **state)
{
	(void)state;
	struct scene t;
	open_scene(&t, says_part, (void *)"", short_limits);
	struct seen first, second, third;
	get(&t, &first);
	get(&t, &second);
	get(&t, &third);
	client_run_ms(&t.client, 10);
	assert_int_equal(legacy_upstream_connections(t.client.upstream), 1);
	seen_free(&first);  /* runs */
	seen_free(&second); /* waits in the queue, or has just left it */
	assert_true(seen_run(&third));
	assert_int_equal(third.failure, LEGACY_TIMEOUT);
	assert_true(third.written);
	seen_free(&third);
	assert_int_equal(legacy_upstream_connections(t.client.upstream), 0);
	close_scene(&t);
}

static void waiting_for_a_connection_has_a_limit(void **state)
{
	(void)state;
	struct scene t;
	open_scene(&t, says_part, (void *)"HTTP/1.1 200 OK\r\n\r\n", short_limits);
	struct seen first, second;
	get(&t, &first);
	first.hold = true;
	get(&t, &second);
	while (!second.failures)
		client_run_ms(&t.client, 1);
	assert_true(second.failure == LEGACY_CONNECT_TIMEOUT || second.failure == LEGACY_TIMEOUT);
	seen_free(&second);
	seen_free(&first);
	close_scene(&t);
}

static void can_be_freed_in_a_callback(void **state)
{
	(void)state;
	struct scene t;
	open_scene(&t, says_ok, NULL, NULL);
	for (int i = 0; i < 3; i++) {
		struct legacy_request r = simple_request("GET", "/");
		struct seen s = {.free_in_head = true};
		seen_start(&s, &t.client, &r);
		assert_true(seen_run_head(&s));
		assert_int_equal(s.readables, 0);
		seen_free(&s);
	}
	close_scene(&t);
}

/* A listener whose queue is full answers no SYN. */
static void connecting_has_a_limit(void **state)
{
	(void)state;
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t size = sizeof(a);
	int listener = socket(AF_INET, SOCK_STREAM, 0), fill[4];
	assert_int_equal(bind(listener, (struct sockaddr *)&a, size), 0);
	assert_int_equal(listen(listener, 0), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&a, &size), 0);
	for (int i = 0; i < 4; i++) {
		fill[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
		connect(fill[i], (struct sockaddr *)&a, size);
	}
	char url[64];
	snprintf(url, sizeof(url), "http://127.0.0.1:%d", ntohs(a.sin_port));
	struct legacy_options o = client_options(url);
	o.connect_timeout_ms = 80;
	struct scene t;
	client_open(&t.client, &o);
	struct seen s;
	get(&t, &s);
	assert_true(seen_run(&s));
	assert_int_equal(s.failure, LEGACY_CONNECT_TIMEOUT);
	assert_false(s.written);
	seen_free(&s);
	client_close(&t.client);
	for (int i = 0; i < 4; i++)
		close(fill[i]);
	close(listener);
}

static void closes_what_it_opens(void **state)
{
	(void)state;
	struct scene t;
	open_scene(&t, says_ok, NULL, NULL);
	struct seen s[8];
	int before = 0;
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < 8; i++)
			get(&t, &s[i]);
		for (int i = 0; i < 8; i++) {
			assert_true(seen_run(&s[i]));
			seen_free(&s[i]);
		}
		legacy_upstream_close_kept(t.client.upstream);
		while (atomic_load(&t.origin->open))
			sched_yield();
		if (round == 0)
			before = open_descriptors();
	}
	assert_int_equal(open_descriptors(), before);
	close_scene(&t);
}

static void refused_connections_fail(void **state)
{
	(void)state;
	struct scene t;
	open_scene(&t, says_ok, NULL, NULL);
	raw_origin_stop(t.origin);
	struct seen s;
	get(&t, &s);
	assert_true(seen_run(&s));
	assert_int_equal(s.failure, LEGACY_CONNECT);
	assert_false(s.written);
	assert_non_null(strstr(s.detail, "connect"));
	seen_free(&s);
	assert_int_equal(legacy_upstream_connections(t.client.upstream), 0);
	client_close(&t.client);
}

static void bad_options_are_refused(void **state)
{
	(void)state;
	struct loop *loop;
	assert_int_equal(loop_new(&loop), 0);
	static const char *const bad[] = {
		"",	      "localhost:5002",	   "ftp://x/",	    "http://",	   "http:///x",
		"http://:80", "http://u:p@host/x", "http://h/?q=1", "http://h /x", "http://h/x#y"};
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct legacy_options o = client_options(bad[i]);
		struct legacy_upstream *u = NULL;
		struct err e = {""};
		if (legacy_upstream_new(loop, &o, &u, &e) == 0)
			fail_msg("%s was taken", bad[i]);
		assert_true(e.text[0]);
		assert_null(strstr(e.text, "u:p"));
	}
	loop_free(loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(frames_bodies),
		cmocka_unit_test(a_body_without_end_is_not_sent_on),
		cmocka_unit_test(waits_for_continue),
		cmocka_unit_test(a_head_does_not_wait_long),
		cmocka_unit_test(takes_an_early_answer),
		cmocka_unit_test(an_early_answer_wakes_the_caller),
		cmocka_unit_test(an_early_answer_survives_the_reset),
		cmocka_unit_test(both_directions_run_side_by_side),
		cmocka_unit_test(streams_much_in_little_memory),
		cmocka_unit_test(a_slow_reader_stops_the_upstream),
		cmocka_unit_test(gives_up_on_silence),
		cmocka_unit_test(gives_up_on_an_upstream_that_does_not_read),
		cmocka_unit_test(waits_for_a_slow_caller),
		cmocka_unit_test(keeps_for_a_limited_time),
		cmocka_unit_test(queues_and_overflows),
		cmocka_unit_test(a_cancelled_call_makes_room),
		cmocka_unit_test(waiting_for_a_connection_has_a_limit),
		cmocka_unit_test(can_be_freed_in_a_callback),
		cmocka_unit_test(connecting_has_a_limit),
		cmocka_unit_test(closes_what_it_opens),
		cmocka_unit_test(refused_connections_fail),
		cmocka_unit_test(bad_options_are_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
