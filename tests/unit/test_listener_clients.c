/* listener: clients that go, stall or dawdle at every stage, and how exchanges and the listener end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "support/raw_client.h"
#include "support/served.h"

/* --- clients that go ------------------------------------------------------------------------------------ */

static void close_by_reset(int fd)
{
	struct linger at_once = {.l_onoff = 1, .l_linger = 0};
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	close(fd);
}

static void a_client_that_resets_is_noticed_at_every_stage(void **state)
{
	(void)state;
	static const struct {
		const char *request;
		bool body, dry;
		/* the body is being read: who notices first, the reading or the look at hang-ups, is open */
		bool read;
	} stages[] = {
		{"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n", false, false, false},
		{"GET /hold HTTP/1.1\r\nHost: a\r\n\r\n", false, false, false},
		{"POST /hold HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab", false, false, false},
		{"POST /pause HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab", true, false, false},
		{"POST /sink HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab", true, false, true},
		{"GET /gated HTTP/1.1\r\nHost: a\r\n\r\n", false, true, false},
	};
	for (size_t i = 0; i < sizeof(stages) / sizeof(stages[0]); i++) {
		struct served *s = serve(&served_usual);
		int fd = ask(s, stages[i].request);
		served_wait(s, &s->heads, 1);
		served_wait(s, &s->bodies, stages[i].body);
		served_wait(s, &s->dry, stages[i].dry);
		close_by_reset(fd);
		served_wait(s, &s->finished, 1);
		assert_int_equal(served_get(s, &s->finished_gone), 1);
		unsigned gones = served_get(s, &s->gones);
		assert_true(gones <= 1 && gones >= !stages[i].read);
		served_stop(s);
	}
}

/* more than one look at the hang-ups takes, and fewer than the connections that are allowed */
#define CROWD 90
static int crowd[CROWD];

/* On the listener's own thread, so that it finds all of them gone at once. */
static void close_crowd(struct served *s)
{
	(void)s;
	for (size_t i = 0; i < CROWD; i++)
		close_by_reset(crowd[i]);
}

static void a_crowd_that_goes_at_once_does_not_stop_the_others(void **state)
{
	(void)state;
	struct served *s = serve(&served_usual);
	for (size_t i = 0; i < CROWD; i++)
		crowd[i] = ask(s, "GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
	served_wait(s, &s->heads, CROWD);
	served_on_loop(s, close_crowd);
	int fd = ask(s, "GET /now HTTP/1.1\r\nHost: a\r\n\r\n");
	expect_answer(fd, 200, "now");
	served_wait(s, &s->finished_gone, CROWD);
	close(fd);
	served_stop(s);
}

static void clients_that_go_in_their_head_or_body_leave_nothing(void **state)
{
	(void)state;
	struct served *s = serve(&served_usual);
	static const char request[] = "POST /sink HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab";
	for (size_t n = 0; n < sizeof(request); n++) {
		for (int reset = 0; reset < 2; reset++) {
			int fd = raw_connect(listener_port(s->listener));
			assert_true(raw_send(fd, request, n));
			reset ? close_by_reset(fd) : (void)close(fd);
		}
	}
	int fd = ask(s, "GET /now HTTP/1.1\r\nHost: a\r\n\r\n");
	expect_answer(fd, 200, "now");
	close(fd);
	served_stop(s);
}

static void a_half_close_counts_only_when_configured(void **state)
{
	(void)state;
	struct served *s = serve(&served_usual);
	/* before the answer, and in the midst of a streamed one */
	int fd = ask(s, "GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
	served_wait(s, &s->heads, 1);
	shutdown(fd, SHUT_WR);
	int other = ask(s, "GET /later HTTP/1.1\r\nHost: a\r\n\r\n");
	expect_answer(other, 200, "0");
	served_on_loop(s, served_read_held);
	expect_answer(fd, 200, "0");
	close(fd);
	fd = ask(s, "GET /gated HTTP/1.1\r\nHost: a\r\n\r\n");
	served_wait(s, &s->dry, 1);
	shutdown(fd, SHUT_WR);
	for (unsigned i = 1; i <= 4; i++) {
		served_wait(s, &s->dry, i);
		served_on_loop(s, served_open_gate);
	}
	expect_answer(fd, 200, "5\r\npiece\r\n5\r\npiece\r\n5\r\npiece\r\n0\r\n\r\n");
	close(fd);
	/* request and end in one */
	fd = ask(s, "POST /later HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab");
	shutdown(fd, SHUT_WR);
	expect_answer(fd, 200, "2");
	close(fd);
	close(other);
	assert_int_equal(served_get(s, &s->gones), 0);
	served_stop(s);

	struct listener_options o = served_usual;
	o.half_close_is_gone = true;
	s = serve(&o);
	fd = ask(s, "GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
	served_wait(s, &s->heads, 1);
	shutdown(fd, SHUT_WR);
	served_wait(s, &s->finished, 1);
	assert_int_equal(served_get(s, &s->gones), 1);
	close(fd);
	served_stop(s);
}

static void an_aborted_exchange_closes_without_an_answer(void **state)
{
	(void)state;
	struct served *s = serve(&served_usual);
	int fd = ask(s, "GET /abort HTTP/1.1\r\nHost: a\r\n\r\n");
	assert_int_equal(raw_wait_end(fd), RAW_EOF);
	close(fd);
	fd = ask(s, "POST /abort HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n");
	assert_int_equal(raw_wait_end(fd), RAW_EOF);
	close(fd);
	served_wait(s, &s->finished, 2);
	assert_int_equal(served_get(s, &s->finished_gone), 2);
	assert_int_equal(served_get(s, &s->gones), 0);
	served_stop(s);
}

/* --- limits in time ------------------------------------------------------------------------------------- */

static void a_head_that_comes_byte_by_byte_is_cut(void **state)
{
	(void)state;
	struct listener_options o = served_usual;
	o.head_timeout_ms = 200;
	struct served *s = serve(&o);
	int fd = raw_connect(listener_port(s->listener));
	struct pollfd p = {.fd = fd, .events = POLLIN};
	int sent = 0;
	while (sent < 500 && poll(&p, 1, 10) == 0) /* the pace of the client: 100 bytes/s */
		sent += raw_send(fd, sent < 4 ? &"GET "[sent] : "x", 1);
	assert_true(sent < 500);
	assert_true(raw_wait_end(fd) != RAW_OPEN);
	served_wait(s, &s->refused, 1);
	assert_int_equal(served_get(s, &s->refused_status), 408);
	close(fd);
	/* the same after the request line */
	fd = ask(s, "GET /now HTTP/1.1\r\nHost: a\r\nX-A: ");
	p.fd = fd;
	for (sent = 0; sent < 500 && poll(&p, 1, 10) == 0;)
		sent += raw_say(fd, "x") ? 1 : 0;
	assert_true(sent < 500);
	assert_true(raw_wait_end(fd) != RAW_OPEN);
	close(fd);
	assert_int_equal(served_get(s, &s->heads), 0);
	served_stop(s);
}

static void idle_and_stalled_clients_are_cut_but_waiting_ones_are_not(void **state)
{
	(void)state;
	struct listener_options o = served_usual;
	o.idle_timeout_ms = 200;
	struct served *s = serve(&o);
	int waiting = ask(s, "GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
	served_wait(s, &s->heads, 1);
	/* kept, without a request */
	int fd = ask(s, "GET /now HTTP/1.1\r\nHost: a\r\n\r\n");
	expect_answer(fd, 200, "now");
	assert_int_equal(raw_wait_end(fd), RAW_EOF);
	close(fd);
	/* a body that stops */
	fd = ask(s, "POST /sink HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab");
	assert_int_equal(raw_wait_end(fd), RAW_RESET);
	close(fd);
	served_wait(s, &s->finished, 2);
	/* an answer that is not read: streamed, and in one piece */
	fd = ask(s, "GET /stream?n=67108864 HTTP/1.1\r\nHost: a\r\n\r\n");
	served_wait(s, &s->finished, 3);
	close(fd);
	assert_int_equal(served_get(s, &s->finished_gone), 2);
	assert_int_equal(served_get(s, &s->gones), 2);
	served_on_loop(s, served_read_held);
	expect_answer(waiting, 200, "0");
	close(waiting);
	served_stop(s);
}

static void quiescing_lets_running_exchanges_end(void **state)
{
	(void)state;
	struct served *s = serve(&served_usual);
	int idle = ask(s, "GET /now HTTP/1.1\r\nHost: a\r\n\r\n");
	expect_answer(idle, 200, "now");
	int running = ask(s, "GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
	served_wait(s, &s->heads, 2);
	served_on_loop(s, served_quiesce);
	assert_int_equal(raw_wait_end(idle), RAW_EOF);
	int late = raw_connect(listener_port(s->listener));
	assert_int_equal(late, -1);
	served_on_loop(s, served_read_held);
	char out[4096];
	enum raw_end end;
	raw_read_all(running, out, sizeof(out), &end);
	assert_int_equal(status_of(out), 200);
	assert_non_null(strstr(out, "Connection: close\r\n"));
	assert_int_equal(end, RAW_EOF);
	close(idle);
	close(running);
	served_stop(s);
}

static void quiescing_closes_after_a_running_answer(void **state)
{
	(void)state;
	struct served *s = serve(&served_usual);
	int fd = ask(s, "GET /gated HTTP/1.1\r\nHost: a\r\n\r\n");
	served_wait(s, &s->dry, 1);
	served_on_loop(s, served_quiesce); /* too late for a Connection field */
	for (unsigned i = 1; i <= 4; i++) {
		served_wait(s, &s->dry, i);
		served_on_loop(s, served_open_gate);
	}
	expect_answer(fd, 200, "5\r\npiece\r\n5\r\npiece\r\n5\r\npiece\r\n0\r\n\r\n");
	assert_int_equal(raw_wait_end(fd), RAW_EOF);
	close(fd);
	served_stop(s);
}

static void stopping_ends_what_runs(void **state)
{
	(void)state;
	static const char *const requests[] = {
		"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST /hold HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab",
		"POST /pause HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab",
		"POST /sink HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab",
		"GET /gated HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET /stream?n=67108864 HTTP/1.1\r\nHost: a\r\n\r\n",
	};
	struct served *s = serve(&served_usual);
	int fds[6];
	for (int i = 0; i < 6; i++)
		fds[i] = ask(s, requests[i]);
	served_wait(s, &s->heads, 6);
	served_wait(s, &s->bodies, 2);
	served_wait(s, &s->dry, 1);
	served_stop(s); /* asserts that each head was finished */
	for (int i = 0; i < 6; i++)
		close(fds[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_client_that_resets_is_noticed_at_every_stage),
		cmocka_unit_test(a_crowd_that_goes_at_once_does_not_stop_the_others),
		cmocka_unit_test(clients_that_go_in_their_head_or_body_leave_nothing),
		cmocka_unit_test(a_half_close_counts_only_when_configured),
		cmocka_unit_test(an_aborted_exchange_closes_without_an_answer),
		cmocka_unit_test(a_head_that_comes_byte_by_byte_is_cut),
		cmocka_unit_test(idle_and_stalled_clients_are_cut_but_waiting_ones_are_not),
		cmocka_unit_test(quiescing_lets_running_exchanges_end),
		cmocka_unit_test(quiescing_closes_after_a_running_answer),
		cmocka_unit_test(stopping_ends_what_runs),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
