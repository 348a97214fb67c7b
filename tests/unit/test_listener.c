/* listener: requests and answers of every framing, and back-pressure, over raw sockets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "support/raw_client.h"
#include "support/served.h"

/* --- answers -------------------------------------------------------------------------------------------- */

static void answers_and_keeps_the_connection(void **state)
{
	(void)state;
	struct served *s = serve(&served_usual);
	int fd = ask(s, "GET /now HTTP/1.1\r\nHost: a\r\n\r\n");
	char out[4096];
	assert_int_equal(raw_read_answer(fd, false, out, sizeof(out)), 200);
	assert_string_equal(body_of(out), "now");
	assert_null(strstr(out, "Connection"));
	assert_non_null(strstr(out, "Content-Length: 3\r\n"));
	for (int i = 0; i < 3; i++) {
		assert_true(raw_say(fd, "POST /later HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"));
		assert_int_equal(raw_read_answer(fd, false, out, sizeof(out)), 200);
		assert_string_equal(body_of(out), "5");
	}
	served_wait(s, &s->finished, 4);
	assert_int_equal(served_get(s, &s->finished_gone), 0);
	close(fd);
	served_stop(s);
}

static void streams_of_known_and_unknown_length(void **state)
{
	(void)state;
	struct served *s = serve(&served_usual);
	static char out[1 << 20];
	int fd = ask(s, "GET /stream?n=200000 HTTP/1.1\r\nHost: a\r\n\r\n");
	assert_int_equal(raw_read_answer(fd, false, out, sizeof(out)), 200);
	assert_int_equal(strlen(body_of(out)), 200000);
	assert_true(raw_say(fd, "GET /chunks?n=200000 HTTP/1.1\r\nHost: a\r\n\r\n"));
	assert_int_equal(raw_read_answer(fd, false, out, sizeof(out)), 200);
	assert_true(strlen(body_of(out)) > 200000);
	assert_true(raw_say(fd, "GET /now HTTP/1.1\r\nHost: a\r\n\r\n"));
	assert_int_equal(raw_read_answer(fd, false, out, sizeof(out)), 200);
	close(fd);
	served_stop(s);
}

/* --- framing -------------------------------------------------------------------------------------------- */

static void answers_without_a_body_keep_the_connection(void **state)
{
	(void)state;
	static const struct {
		const char *request;
		int status;
		const char *has, *has_not;
	} cases[] = {
		{"HEAD /head?n=1234", 200, "Content-Length: 1234\r\n", "chunked"},
		{"HEAD /head", 200, "HTTP/1.1 200", "Content-Length"},
		{"HEAD /stream?n=500000", 200, "Content-Length: 500000\r\n", "chunked"},
		{"HEAD /chunks?n=5", 200, "HTTP/1.1 200", "Content-Length"},
		{"HEAD /now", 200, "Content-Length: 3\r\n", "chunked"},
		{"GET /s204", 204, "HTTP/1.1 204", "Content-Length"},
		{"GET /s204?n=7", 204, "HTTP/1.1 204", "Content-Length"},
		{"HEAD /s204", 204, "HTTP/1.1 204", "Content-Length"},
		{"GET /s304?n=77", 304, "Content-Length: 77\r\n", "chunked"},
		{"GET /s304", 304, "HTTP/1.1 304", "Content-Length"},
		{"HEAD /s304?n=77", 304, "Content-Length: 77\r\n", "chunked"},
	};
	struct served *s = serve(&served_usual);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char out[8192], request[128];
		snprintf(request, sizeof(request), "%s HTTP/1.1\r\nHost: a\r\n\r\n", cases[i].request);
		int fd = ask(s, request);
		int status = raw_read_answer(fd, true, out, sizeof(out));
		if (status != cases[i].status || !strstr(out, cases[i].has) ||
		    strstr(out, cases[i].has_not) || strstr(out, "chunked"))
			fail_msg("%s: %d %s", cases[i].request, status, out);
		if (strstr(out, "Connection:"))
			fail_msg("%s: %s", cases[i].request, out);
		/* Again on the same connection, and behind it one with a body in pieces. */
		assert_true(raw_say(fd, request));
		assert_int_equal(raw_read_answer(fd, true, out, sizeof(out)), cases[i].status);
		assert_true(raw_say(fd, "POST /sink HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n12"));
		assert_true(raw_say(fd, "345"));
		expect_answer(fd, 200, "5");
		assert_true(raw_say(fd, request));
		assert_int_equal(raw_read_answer(fd, true, out, sizeof(out)), cases[i].status);
		assert_true(raw_say(fd, "GET /now HTTP/1.1\r\nHost: a\r\n\r\n"));
		expect_answer(fd, 200, "now");
		close(fd);
	}
	served_stop(s);
}

/* What 0.9.75 has read of the next request already cannot be given back to it: then the connection ends,
 * and says so. */
static void requests_behind_an_answer_without_a_body_are_answered_or_the_connection_ends(void **state)
{
	(void)state;
	struct served *s = serve(&served_usual);
	char out[8192];
	int fd = ask(s, "HEAD /head HTTP/1.1\r\nHost: a\r\n\r\nGET /now HTTP/1.1\r\nHost: a\r\n\r\n");
	assert_int_equal(raw_read_answer(fd, true, out, sizeof(out)), 200);
	if (strstr(out, "Connection: close\r\n"))
		assert_int_not_equal(raw_wait_end(fd), RAW_OPEN);
	else
		expect_answer(fd, 200, "now");
	close(fd);
	fd = ask(s, "HEAD /head HTTP/1.1\r\nHost: a\r\nConnection: x , close\r\n\r\n");
	assert_int_equal(raw_read_answer(fd, true, out, sizeof(out)), 200);
	assert_non_null(strstr(out, "Connection: close\r\n"));
	assert_int_equal(raw_wait_end(fd), RAW_EOF);
	close(fd);
	fd = ask(s, "HEAD /head HTTP/1.0\r\n\r\n");
	assert_int_equal(raw_read_answer(fd, true, out, sizeof(out)), 200);
	assert_int_equal(raw_wait_end(fd), RAW_EOF);
	close(fd);
	fd = ask(s, "HEAD /head HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
	assert_int_equal(raw_read_answer(fd, true, out, sizeof(out)), 200);
	if (strcasestr(out, "Connection: keep-alive\r\n")) {
		assert_true(raw_say(fd, "GET /now HTTP/1.1\r\nHost: a\r\n\r\n"));
		expect_answer(fd, 200, "now");
	} else {
		assert_int_equal(raw_wait_end(fd), RAW_EOF);
	}
	close(fd);
	served_stop(s);
}

static void http_1_0_is_served(void **state)
{
	(void)state;
	struct served *s = serve(&served_usual);
	char out[16384];
	enum raw_end end;
	int fd = ask(s, "GET /now HTTP/1.0\r\n\r\n");
	raw_read_all(fd, out, sizeof(out), &end);
	assert_string_equal(body_of(out), "now");
	assert_int_equal(end, RAW_EOF);
	close(fd);
	fd = ask(s, "GET /later HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
	expect_answer(fd, 200, "0");
	assert_true(raw_say(fd, "GET /chunks?n=5000 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"));
	raw_read_all(fd, out, sizeof(out), &end);
	assert_int_equal(end, RAW_EOF);
	assert_int_equal(strlen(body_of(out)), 5000);
	assert_null(strstr(out, "chunked"));
	close(fd);
	served_wait(s, &s->finished, 3);
	assert_int_equal(served_get(s, &s->finished_gone), 0);
	served_stop(s);
}

static void cut_bodies_never_look_whole(void **state)
{
	(void)state;
	struct served *s = serve(&served_usual);
	char out[16384];
	enum raw_end end;
	int fd = ask(s, "GET /cut?n=1000 HTTP/1.1\r\nHost: a\r\n\r\n");
	raw_read_all(fd, out, sizeof(out), &end);
	assert_non_null(strstr(out, "Content-Length: 1001\r\n"));
	assert_int_equal(strlen(body_of(out)), 1000);
	close(fd);
	fd = ask(s, "GET /short?n=1000 HTTP/1.1\r\nHost: a\r\n\r\n");
	raw_read_all(fd, out, sizeof(out), &end);
	assert_non_null(strstr(out, "Content-Length: 1001\r\n"));
	assert_int_equal(strlen(body_of(out)), 1000);
	close(fd);
	fd = ask(s, "GET /cutchunks?n=1000 HTTP/1.1\r\nHost: a\r\n\r\n");
	raw_read_all(fd, out, sizeof(out), &end);
	assert_non_null(strstr(out, "chunked"));
	assert_null(strstr(out, "\r\n0\r\n"));
	close(fd);
	fd = ask(s, "GET /cutchunks?n=1000 HTTP/1.0\r\n\r\n");
	raw_read_all(fd, out, sizeof(out), &end);
	assert_int_equal(end, RAW_RESET); /* nothing else tells a cut from an end there */
	close(fd);
	served_wait(s, &s->finished, 4);
	assert_int_equal(served_get(s, &s->finished_gone), 4);
	served_stop(s);
}

static void heads_arrive_as_they_were_sent(void **state)
{
	(void)state;
	struct served *s = serve(&served_usual);
	int fd = ask(s, "GET /now//a/../b%2F%zz?x=%20&y&&z=#f;\xff HTTP/1.1\r\nX-B:  one \t\r\nhOST: "
			"a\r\nX-A:\r\nx-b: two\r\n\r\n");
	expect_answer(fd, 200, NULL);
	served_expect_seen(s, "GET /now//a/../b%2F%zz?x=%20&y&&z=#f;\xff HTTP/1.1 cl=-1 chunked=0 expect=0\n"
			      "X-B=[one]\nhOST=[a]\nX-A=[]\nx-b=[two]\n");
	assert_true(raw_say(fd, "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"));
	expect_answer(fd, 200, "0");
	served_expect_seen(s, "OPTIONS * HTTP/1.1 cl=-1 chunked=0 expect=0\nHost=[a]\n");
	assert_true(raw_say(fd, "GET http://b:80/now?x HTTP/1.1\r\nHost: a\r\n\r\n"));
	expect_answer(fd, 200, "0");
	served_expect_seen(s, "GET http://b:80/now?x HTTP/1.1 cl=-1 chunked=0 expect=0\nHost=[a]\n");
	assert_true(raw_say(fd, "PURGE /now HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"));
	expect_answer(fd, 200, "now");
	served_expect_seen(s, "PURGE /now HTTP/1.1 cl=0 chunked=0 expect=0\nHost=[a]\nContent-Length=[0]\n");
	close(fd);
	served_stop(s);
}

static void pipelined_requests_are_answered_in_order(void **state)
{
	(void)state;
	struct served *s = serve(&served_usual);
	int fd = ask(s, "POST /later HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
			"GET /now HTTP/1.1\r\nHost: a\r\n\r\n"
			"HEAD /stream?n=9 HTTP/1.1\r\nHost: a\r\n\r\n"
			"GET /chunks?n=4 HTTP/1.1\r\nHost: a\r\n\r\n"
			"GET /now HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
			"GET /now HTTP/1.1\r\nHost: a\r\n\r\n");
	char out[4096];
	expect_answer(fd, 200, "3");
	expect_answer(fd, 200, "now");
	assert_int_equal(raw_read_answer(fd, true, out, sizeof(out)), 200);
	expect_answer(fd, 200, "4\r\ndddd\r\n0\r\n\r\n");
	expect_answer(fd, 200, "now");
	assert_true(raw_wait_end(fd) != RAW_OPEN);
	close(fd);
	assert_int_equal(served_get(s, &s->heads), 5);
	served_stop(s);
}

/* --- bodies --------------------------------------------------------------------------------------------- */

static void bodies_of_every_framing_arrive(void **state)
{
	(void)state;
	struct served *s = serve(&served_usual);
	int fd = ask(s, "POST /sink HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
	expect_answer(fd, 200, "0");
	assert_int_equal(raw_wait_end(fd), RAW_EOF); /* a chunked body is the last on its connection */
	close(fd);
	fd = ask(s, "POST /now HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
	expect_answer(fd, 200, "now");
	assert_true(raw_say(fd, "POST /sink HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"));
	assert_true(raw_say(fd, "5\r\nhello\r\n00A\r\n0123456789\r\n"));
	served_wait(s, &s->bodies, 1);
	assert_true(raw_say(fd, "0\r\nX-Trailer: 1\r\nX-Other: 2\r\n\r\n"));
	expect_answer(fd, 200, "15");
	close(fd);
	fd = ask(s, "GET /now HTTP/1.1\r\nHost: a\r\n\r\n");
	expect_answer(fd, 200, "now");
	assert_true(raw_say(fd, "POST /later HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\nabcd"));
	served_wait(s, &s->bodies, 3);
	assert_true(raw_say(fd, "efgh"));
	expect_answer(fd, 200, "8");
	close(fd);
	served_stop(s);
}

static void a_client_that_waits_for_100_gets_it_when_the_body_is_wanted(void **state)
{
	(void)state;
	struct served *s = serve(&served_usual);
	char out[4096];
	int fd =
		ask(s, "POST /sink HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
	static const char go[] = "HTTP/1.1 100 Continue\r\n\r\n";
	raw_read_all(fd, out, sizeof(go), NULL);
	assert_string_equal(out, go);
	assert_true(raw_say(fd, "hello"));
	expect_answer(fd, 200, "5");
	assert_true(raw_say(
		fd, "POST /refuse HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"));
	raw_read_all(fd, out, sizeof(out), NULL);
	assert_int_equal(status_of(out), 401);
	assert_int_equal(answers_in(out), 1);
	close(fd);
	served_stop(s);
}

static void nothing_is_read_before_it_is_wanted(void **state)
{
	(void)state;
	struct served *s = serve(&served_usual);
	int fd = ask(
		s,
		"POST /hold HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello");
	served_wait(s, &s->heads, 1);
	int other = ask(s, "GET /later HTTP/1.1\r\nHost: a\r\n\r\n"); /* some rounds go by */
	expect_answer(other, 200, "0");
	assert_int_equal(served_get(s, &s->bodies), 0);
	served_on_loop(s, served_read_held);
	expect_answer(fd, 200, NULL);
	assert_int_equal(served_get64(s, &s->body_bytes), 5);
	int get_fd = ask(s, "GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
	served_wait(s, &s->heads, 3);
	served_on_loop(s, served_read_held);
	expect_answer(get_fd, 200, "0");
	close(get_fd);
	close(other);
	close(fd);
	served_stop(s);
}

static void early_answers_are_seen(void **state)
{
	(void)state;
	struct served *s = serve(&served_usual);
	static char body[1 << 19];
	char out[4096];
	/* While the body is being read: the rest is dropped first. */
	int fd = ask_with_body(s, "/early", sizeof(body));
	assert_true(raw_send(fd, body, sizeof(body)));
	raw_read_all(fd, out, sizeof(out), NULL);
	assert_int_equal(status_of(out), 413);
	assert_non_null(strstr(out, "Connection: close\r\n"));
	close(fd);
	/* Before any of it was read: at once, and the client may finish sending. */
	fd = ask_with_body(s, "/refuse", sizeof(body));
	struct pollfd p = {.fd = fd, .events = POLLIN};
	assert_int_equal(poll(&p, 1, RAW_PATIENCE_S * 1000), 1);
	assert_true(raw_send(fd, body, sizeof(body)));
	raw_read_all(fd, out, sizeof(out), NULL);
	assert_int_equal(status_of(out), 401);
	close(fd);
	/* The same to a client that has shut its side behind the body. */
	fd = ask_with_body(s, "/refuse", sizeof(body));
	assert_true(raw_send(fd, body, sizeof(body)));
	shutdown(fd, SHUT_WR);
	raw_read_all(fd, out, sizeof(out), NULL);
	assert_int_equal(status_of(out), 401);
	close(fd);
	served_wait(s, &s->finished, 3);
	assert_int_equal(served_get(s, &s->finished_gone), 0);
	served_stop(s);
}

/* 128 MiB are more than the kernel holds, and more than any limit in bytes used to be. */
static void the_answer_waits_for_a_large_body(void **state)
{
	(void)state;
	struct served *s = serve(&served_usual);
	static char body[1 << 20];
	char out[4096];
	int fd = ask_with_body(s, "/early", 128 * sizeof(body));
	for (int i = 0; i < 128; i++)
		assert_true(raw_send(fd, body, sizeof(body)));
	raw_read_all(fd, out, sizeof(out), NULL);
	assert_int_equal(status_of(out), 413);
	close(fd);
	served_wait(s, &s->finished, 1);
	assert_int_equal(served_get(s, &s->finished_gone), 0);
	served_stop(s);
}

/* As direct callers would see it: at once, whatever of the body is still to come. */
static void an_early_answer_does_not_wait_for_the_body(void **state)
{
	(void)state;
	static const char *const framings[] = {"Content-Length: 1000000000000", "Transfer-Encoding: chunked"};
	struct served *s = serve(&served_usual);
	for (unsigned i = 0; i < 2; i++) {
		char out[4096];
		snprintf(out, sizeof(out), "POST /early HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n5\r\nhello\r\n",
			 framings[i]);
		int fd = ask(s, out);
		enum raw_end end;
		raw_read_all(fd, out, sizeof(out), &end);
		assert_int_equal(end, RAW_EOF);
		assert_int_equal(status_of(out), 413);
		assert_string_equal(body_of(out), "too large");
		assert_non_null(strstr(out, "\r\nConnection: close\r\n"));
		assert_non_null(strstr(out, "\r\nDate: "));
		close(fd);
		served_wait(s, &s->finished, i + 1);
	}
	assert_int_equal(served_get(s, &s->finished_gone), 0);
	served_stop(s);
}

static void a_body_beyond_the_drain_limit_is_cut(void **state)
{
	(void)state;
	struct listener_options o = served_usual;
	o.drain_timeout_ms = 100;
	/* the latter was answered, and is booked as that */
	static const char *const paths[] = {"/earlystream", "/early"};
	for (unsigned i = 0; i < 2; i++) {
		struct served *s = serve(&o);
		static char body[1 << 16];
		int fd = ask_with_body(s, paths[i], 1ull << 40);
		while (raw_send(fd, body, sizeof(body)))
			;
		close(fd);
		served_wait(s, &s->finished, 1);
		assert_int_equal(served_get(s, &s->finished_gone), i == 0);
		served_stop(s);
	}
}

/* --- back-pressure -------------------------------------------------------------------------------------- */

#define MUCH (64u << 20)

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif

static long peak_kib(void)
{
	struct rusage u;
	getrusage(RUSAGE_SELF, &u);
	return u.ru_maxrss;
}

static void expect_little_memory(long before)
{
#ifdef SANITIZED
	(void)before;
#else
	assert_true(peak_kib() - before < 8192);
#endif
}

/* Sends until the kernel takes no more for a while. */
static size_t send_until_stuck(int fd, size_t most)
{
	static char block[65536];
	size_t sent = 0;
	struct pollfd p = {.fd = fd, .events = POLLOUT};
	while (sent < most && poll(&p, 1, 300) == 1) {
		size_t n = most - sent < sizeof(block) ? most - sent : sizeof(block);
		ssize_t r = send(fd, block, n, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (r < 0 && errno == EAGAIN)
			continue;
		assert_true(r > 0);
		sent += (size_t)r;
	}
	return sent;
}

static void a_slow_handler_stops_the_client(void **state)
{
	(void)state;
	struct served *s = serve(&served_usual);
	long before = peak_kib();
	int fd = ask_with_body(s, "/pause", MUCH);
	size_t sent = send_until_stuck(fd, MUCH);
	assert_true(sent < MUCH / 2);
	assert_int_equal(served_get64(s, &s->body_bytes), 0);
	served_on_loop(s, served_open_gate);
	assert_int_equal(send_until_stuck(fd, MUCH - sent), MUCH - sent);
	expect_answer(fd, 200, "67108864");
	expect_little_memory(before);
	close(fd);
	served_stop(s);
}

static size_t read_and_count(int fd, size_t want)
{
	static char block[65536];
	size_t n = 0;
	ssize_t r;
	while (n < want && (r = TEMP_FAILURE_RETRY(recv(fd, block, sizeof(block), 0))) > 0)
		n += (size_t)r;
	return n;
}

static void a_slow_client_stops_the_handler(void **state)
{
	(void)state;
	static const char *const paths[] = {"/stream", "/chunks"};
	for (int i = 0; i < 2; i++) {
		struct served *s = serve(&served_usual);
		long before = peak_kib();
		char request[128];
		snprintf(request, sizeof(request), "GET %s?n=%u HTTP/1.1\r\nHost: a\r\n\r\n", paths[i], MUCH);
		int fd = ask(s, request);
		char first[100];
		raw_read_all(fd, first, sizeof(first), NULL);
		int other = ask(s, "GET /later HTTP/1.1\r\nHost: a\r\n\r\n"); /* nobody else is held up */
		expect_answer(other, 200, "0");
		close(other);
		assert_true(served_get64(s, &s->pulled) < MUCH / 2);
		assert_true(read_and_count(fd, MUCH) >= MUCH - 100);
		expect_little_memory(before);
		close(fd);
		served_stop(s);
	}
}

static void a_streamed_answer_waits_for_its_source(void **state)
{
	(void)state;
	struct served *s = serve(&served_usual);
	int fd = ask(s, "GET /gated HTTP/1.1\r\nHost: a\r\n\r\n");
	for (unsigned i = 1; i <= 4; i++) {
		served_wait(s, &s->dry, i);
		served_on_loop(s, served_open_gate);
	}
	expect_answer(fd, 200, "5\r\npiece\r\n5\r\npiece\r\n5\r\npiece\r\n0\r\n\r\n");
	assert_true(raw_say(fd, "GET /now HTTP/1.1\r\nHost: a\r\n\r\n"));
	expect_answer(fd, 200, "now");
	close(fd);
	served_stop(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(answers_and_keeps_the_connection),
		cmocka_unit_test(answers_without_a_body_keep_the_connection),
		cmocka_unit_test(
			requests_behind_an_answer_without_a_body_are_answered_or_the_connection_ends),
		cmocka_unit_test(http_1_0_is_served),
		cmocka_unit_test(cut_bodies_never_look_whole),
		cmocka_unit_test(heads_arrive_as_they_were_sent),
		cmocka_unit_test(pipelined_requests_are_answered_in_order),
		cmocka_unit_test(bodies_of_every_framing_arrive),
		cmocka_unit_test(a_client_that_waits_for_100_gets_it_when_the_body_is_wanted),
		cmocka_unit_test(nothing_is_read_before_it_is_wanted),
		cmocka_unit_test(early_answers_are_seen),
		cmocka_unit_test(the_answer_waits_for_a_large_body),
		cmocka_unit_test(an_early_answer_does_not_wait_for_the_body),
		cmocka_unit_test(a_body_beyond_the_drain_limit_is_cut),
		cmocka_unit_test(a_slow_handler_stops_the_client),
		cmocka_unit_test(a_slow_client_stops_the_handler),
		cmocka_unit_test(a_streamed_answer_waits_for_its_source),
		cmocka_unit_test(streams_of_known_and_unknown_length),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
