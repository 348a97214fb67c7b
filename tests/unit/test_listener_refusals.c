/* listener: what it refuses by itself (request smuggling, sizes, numbers), and where it cannot listen. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "support/raw_cases.h"
#include "support/raw_client.h"
#include "support/served.h"

/* One answer, whole, of the shape of all refusals, and nothing behind it. */
static void expect_one_problem(const char *name, const char *out)
{
	const char *body = strstr(out, "\r\n\r\n"), *length = strstr(out, "\r\nContent-Length: ");
	if (strncmp(out, "HTTP/1.1 ", 9) != 0 || !body || !length || length > body ||
	    strlen(body + 4) != (size_t)atoi(length + 18) ||
	    strncmp(body + 4, "{\"type\":\"about:blank\",", 22) != 0 ||
	    !strstr(out, "\r\nContent-Type: application/problem+json\r\n") ||
	    !strstr(out, "\r\nConnection: close\r\n"))
		fail_msg("%s: %s", name, out);
}

/* Each case is followed by a request that must not be served when the case is refused: the connection is
 * closed. */
static void run_raw_case(struct served *s, const struct raw_case *c, size_t piece)
{
	char out[8192];
	unsigned heads = served_get(s, &s->heads), refused = served_get(s, &s->refused);
	int fd = raw_connect(listener_port(s->listener));
	for (size_t i = 0; i < c->length; i += piece)
		if (!raw_send(fd, c->bytes + i, c->length - i < piece ? c->length - i : piece))
			break;
	raw_say(fd, "GET /now HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
	raw_read_all(fd, out, sizeof(out), NULL);
	close(fd);
	/* libmicrohttpd 1.x drops blanks behind values before it looks at them, which leaves nothing
	 * ambiguous. */
	bool blank_behind = strstr(c->name, "with a blank behind") && status_of(out) == 200;
	bool closed = strcmp(c->name, "NUL in the target") == 0 && !*out; /* as 1.x does */
	/* What the library refuses by itself is a 400, a 413 or a 501, as its version sees it. */
	bool refused_itself = c->status >= 400 && status_of(out) >= 400 && !strstr(out, "problem+json");
	if (status_of(out) != c->status && !blank_behind && !closed && !refused_itself)
		fail_msg("%s: expected %d, got %.100s", c->name, c->status, out);
	if (status_of(out) == 200) {
		assert_true(served_get(s, &s->heads) >= heads + 1);
		return;
	}
	if (!closed)
		expect_one_problem(c->name, out);
	bool in_body = strncmp(c->name, "chunk size", 10) == 0 || strncmp(c->name, "chunk longer", 12) == 0;
	if (served_get(s, &s->heads) != heads + in_body)
		fail_msg("%s: the handler heard of it", c->name);
	assert_int_equal(served_get(s, &s->refused), refused + 1);
}

static void smuggling_shapes_are_refused(void **state)
{
	(void)state;
	struct served *s = serve(&served_usual);
	for (size_t i = 0; i < RAW_CASES; i++)
		run_raw_case(s, &raw_cases[i], 1 << 20);
	served_stop(s);
}

static void smuggling_shapes_in_pieces_are_refused(void **state)
{
	(void)state;
	struct served *s = serve(&served_usual);
	for (size_t i = 0; i < RAW_CASES; i++)
		run_raw_case(s, &raw_cases[i], 7);
	served_stop(s);
}

static void expect_status_and_close(struct served *s, const char *request, size_t n, int status)
{
	char out[4096];
	enum raw_end end;
	int fd = raw_connect(listener_port(s->listener));
	assert_true(raw_send(fd, request, n));
	raw_read_all(fd, out, sizeof(out), &end);
	assert_int_equal(status_of(out), status);
	assert_int_equal(end, RAW_EOF);
	close(fd);
}

static void heads_have_limits(void **state)
{
	(void)state;
	struct served *s = serve(&served_usual);
	static char head[40000];
	int n = snprintf(head, sizeof(head), "GET /now HTTP/1.1\r\nHost: a\r\n");
	for (int i = 0; i < HTTP_FIELDS_MAX; i++)
		n += snprintf(head + n, sizeof(head) - (size_t)n, "X-%d: 1\r\n", i);
	n += snprintf(head + n, sizeof(head) - (size_t)n, "\r\n");
	expect_status_and_close(s, head, (size_t)n, 431);
	/* 15 KiB are served, on the same connection again; 17 KiB are not; 30 KiB and a long target
	 * neither (the library) */
	n = snprintf(head, sizeof(head), "GET /now HTTP/1.1\r\nHost: a\r\nX-A: %*s\r\n\r\n", 15000, "x");
	int fd = ask(s, head);
	expect_answer(fd, 200, "now");
	assert_true(raw_say(fd, head));
	expect_answer(fd, 200, "now");
	close(fd);
	n = snprintf(head, sizeof(head), "GET /now HTTP/1.1\r\nHost: a\r\nX-A: %*s\r\n\r\n", 17000, "x");
	expect_status_and_close(s, head, (size_t)n, 431);
	assert_int_equal(served_get(s, &s->refused_status), 431);
	n = snprintf(head, sizeof(head), "GET /now?%0*d HTTP/1.1\r\nHost: a\r\n\r\n", 8000, 1);
	fd = ask(s, head);
	expect_answer(fd, 200, "now");
	close(fd);
	assert_int_equal(served_get(s, &s->heads), 3);
	served_stop(s);
}

/* Also one that the library has no room for. */
static void a_431_has_the_promised_shape_whatever_the_size(void **state)
{
	(void)state;
	static const size_t sizes[] = {17000, 33000, 65000, 100000, 1000000};
	static char filler[1000001];
	char out[8192];
	struct served *s = serve(&served_usual);
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		for (int kept = 0; kept < 2; kept++) {
			unsigned refused = served_get(s, &s->refused), heads = served_get(s, &s->heads);
			int fd = raw_connect(listener_port(s->listener));
			for (int k = 0; k < 20 * kept; k++) {
				/* bytes of which the listener must not take for the head's */
				assert_true(raw_say(
					fd,
					"POST /sink HTTP/1.1\r\nHost: a\r\nContent-Length: 10000\r\n\r\n"));
				memset(filler, 'b', 10000);
				assert_true(raw_send(fd, filler, 10000));
				expect_answer(fd, 200, "10000");
			}
			memset(filler, 'c', sizes[i]);
			assert_true(raw_say(fd, "GET /now HTTP/1.1\r\nHost: a\r\nCookie: a="));
			raw_send(fd, filler, sizes[i]);
			raw_say(fd, "\r\n\r\nGET /now HTTP/1.1\r\nHost: a\r\n\r\n");
			raw_read_all(fd, out, sizeof(out), NULL);
			close(fd);
			if (status_of(out) != 431 || answers_in(out) != 1 ||
			    !strstr(out, "\r\nContent-Type: application/problem+json\r\n") ||
			    strstr(out, "<html"))
				fail_msg("%zu bytes: %s", sizes[i], out);
			assert_int_equal(served_get(s, &s->refused), refused + 1);
			assert_int_equal(served_get(s, &s->heads), heads + 20 * (unsigned)kept);
		}
	served_stop(s);
}

#define POST_OF(length) "POST /sink HTTP/1.1\r\nHost: a\r\nContent-Length: " length "\r\n\r\nhello"
#define CHUNKS(text) "POST /sink HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" text

/* What the library refuses by itself; it has pages of its own for that, and 0.9.75 sends the head of one
 * of them twice. */
static const struct refusal {
	const char *request;
	int status; /* 0: depends on the library */
	bool line;  /* the request line has no blank: without an answer on a kept connection */
} refusals[] = {
	{POST_OF("5, 5"), 400, false},
	{POST_OF("+5"), 400, false},
	{POST_OF("-5"), 400, false},
	{POST_OF("0x5"), 400, false},
	{POST_OF("5;"), 400, false},
	{POST_OF("5 5"), 400, false},
	{POST_OF("5_0"), 400, false},
	{POST_OF(""), 400, false},
	{POST_OF("five"), 400, false},
	{POST_OF("5\r\nContent-Length: 5"), 400, false},
	{POST_OF("99999999999999999999999999"), 413, false},
	{POST_OF("18446744073709551615"), 0, false},
	{"POST /sink HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 400, false},
	{"GET / HTTP/1.x\r\nHost: a\r\n\r\n", 400, false},
	{"GET / http/1.1\r\nHost: a\r\n\r\n", 400, false},
	{"GET / HTTP/0.9\r\nHost: a\r\n\r\n", 505, false},
	{"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505, false},
	{"GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505, false},
	{"GET /\r\nHost: a\r\n\r\n", 400, false},
	{"GET\r\nHost: a\r\n\r\n", 400, true},
	{"\x16\x03\x01\x02\r\n\r\n", 400, true},
	{"GET / HTTP/1.1\r\n\r\n", 400, false},
	{"GET / HTTP/1.1\r\nHost: a\r\nwithout a colon\r\n\r\n", 400, false},
	{"GET / HTTP/1.1\r\nwithout a colon\r\nHost: a\r\n\r\n", 400, false},
	{"GET / HTTP/1.1\r\n: a\r\nHost: a\r\n\r\n", 400, false},
	{"GET / HTTP/1.1\r\n X: 1\r\nHost: a\r\n\r\n", 400, false},
	{"G(T / HTTP/1.1\r\nHost: a\r\n\r\n", 400, false},
	{CHUNKS("zz\r\nhello\r\n0\r\n\r\n"), 400, false},
	{CHUNKS("-5\r\nhello\r\n0\r\n\r\n"), 400, false},
	{CHUNKS("\r\n\r\n"), 400, false},
	{CHUNKS("5\r\nhelloX\r\n0\r\n\r\n"), 400, false},
	{CHUNKS("ffffffffffffffffff\r\nhello\r\n0\r\n\r\n"), 413, false},
	{CHUNKS("0\r\nwithout a colon\r\n\r\n"), 400, false},
};

static void expect_refusal(struct served *s, const struct refusal *c, bool kept, size_t piece)
{
	char out[8192];
	enum raw_end end;
	unsigned refused = served_get(s, &s->refused);
	int fd = raw_connect(listener_port(s->listener));
	if (kept) {
		assert_true(raw_say(fd, "GET /now HTTP/1.1\r\nHost: a\r\n\r\n"));
		expect_answer(fd, 200, "now");
	}
	for (size_t i = 0, n = strlen(c->request); i < n; i += piece)
		if (!raw_send(fd, c->request + i, n - i < piece ? n - i : piece))
			break;
	raw_read_all(fd, out, sizeof(out), &end);
	close(fd);
	if (kept && c->line && !*out)
		return;
	expect_one_problem(c->request, out);
	assert_int_equal(end, RAW_EOF);
	if (c->status && status_of(out) != c->status)
		fail_msg("%s: %s", c->request, out);
	assert_int_equal(served_get(s, &s->refused), refused + 1);
}

/* Beside connections that wait for their first or next request. */
static void every_refusal_is_one_answer_of_the_promised_shape(void **state)
{
	(void)state;
	struct served *s = serve(&served_usual);
	int idle[2] = {raw_connect(listener_port(s->listener)),
		       ask(s, "GET /now HTTP/1.1\r\nHost: a\r\n\r\n")};
	expect_answer(idle[1], 200, "now");
	for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++) {
		expect_refusal(s, &refusals[i], false, 1 << 20);
		expect_refusal(s, &refusals[i], true, 1 << 20);
		expect_refusal(s, &refusals[i], false, 5);
	}
	for (int i = 0; i < 2; i++) { /* nobody else was refused */
		assert_true(raw_say(idle[i], "GET /now HTTP/1.1\r\nHost: a\r\n\r\n"));
		expect_answer(idle[i], 200, "now");
		close(idle[i]);
	}
	served_stop(s);
}

/* While others are in the midst of their heads and bodies it may be anybody's: then nobody but the one at
 * fault is answered. */
static void a_refusal_is_never_told_to_somebody_else(void **state)
{
	(void)state;
	struct served *s = serve(&served_usual);
	char out[8192];
	enum raw_end end;
	int head = ask(s, "GET /now HTTP/1.1\r\nHost: a\r\nX-"), line = ask(s, "GET /n"),
	    body = ask(s, "POST /sink HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel");
	for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++) {
		unsigned refused = served_get(s, &s->refused);
		int fd = ask(s, refusals[i].request);
		raw_read_all(fd, out, sizeof(out), &end);
		close(fd);
		if (!strstr(refusals[i].request, "chunked")) /* of which the handler has heard */
			served_wait(s, &s->refused, refused + 1);
		if (*out &&
		    ((refusals[i].status && status_of(out) != refusals[i].status) || answers_in(out) != 1))
			fail_msg("%s: %s", refusals[i].request, out);
	}
	raw_say(head, "A: 1\r\n\r\n");
	expect_answer(head, 200, "now");
	raw_say(line, "ow HTTP/1.1\r\nHost: a\r\n\r\n");
	expect_answer(line, 200, "now");
	raw_say(body, "lo\r\n0\r\n\r\n");
	expect_answer(body, 200, "5");
	close(head);
	close(line);
	close(body);
	served_stop(s);
}

/* 40 of them at a time: more than are looked at beforehand. */
static void every_large_head_is_told_so_in_the_promised_shape(void **state)
{
	(void)state;
	enum { CROWD = 40 };
	static char filler[100000];
	char out[8192];
	struct served *s = serve(&served_usual);
	int fds[CROWD];
	memset(filler, 'c', sizeof(filler));
	for (int i = 0; i < CROWD; i++) {
		fds[i] = ask(s, i % 2 ? "GET /now HTTP/1.1\r\nHost: a\r\nCookie: a=" : "GET /");
		raw_send(fds[i], filler, 10000);
	}
	for (int i = 0; i < CROWD; i++)
		raw_send(fds[i], filler, sizeof(filler));
	for (int i = 0; i < CROWD; i++) {
		raw_read_all(fds[i], out, sizeof(out), NULL);
		close(fds[i]);
		expect_one_problem("a large head", out);
		assert_int_equal(status_of(out), i % 2 ? 431 : 414);
	}
	served_stop(s);
}

static void a_head_of_many_cookies_and_arguments_leaves_room_for_the_answer(void **state)
{
	(void)state;
	struct served *s = serve(&served_usual);
	static char head[20000], unit[8000];
	for (int k = 0; k < 3000; k += 50) {
		memset(unit, '&', (size_t)k);
		unit[k] = 0;
		snprintf(head, sizeof(head), "GET /now?%s HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
			 unit);
		char out[4096];
		int fd = ask(s, head);
		raw_read_all(fd, out, sizeof(out), NULL);
		close(fd);
		int status = status_of(out);
		if (status != 200)
			fail_msg("%d arguments: %s", k, out);
		memset(unit, ';', (size_t)k);
		snprintf(head, sizeof(head),
			 "GET /now HTTP/1.1\r\nHost: a\r\nConnection: close\r\nCookie: a=b%s\r\n\r\n", unit);
		fd = ask(s, head);
		raw_read_all(fd, out, sizeof(out), NULL);
		close(fd);
		status = status_of(out);
		if (status != 200)
			fail_msg("%d cookies: %s", k, out);
	}
	served_stop(s);
}

/* Nobody asks the library for cookies: what it cannot read is passed on like everything else. */
static void cookies_are_nobodys_business(void **state)
{
	(void)state;
	static const char *const cookies[] = {"Cookie: theme=\"\r\n",
					      "Cookie: a=\"b\r\nCookie: c=d\r\n",
					      "Cookie: ;;;=;\r\n",
					      "Cookie:\r\n",
					      "cookie: =\r\n",
					      "Cookie: a=b;c\r\n",
					      "Cookie: \x80\xff=\"\"\"\r\n",
					      "Cookie: a=\"x\\\"\r\n",
					      "Cookie: $Version=\"1\"; a=\r\n"};
	struct served *s = serve(&served_usual);
	char head[512], out[4096];
	int fd = -1;
	for (size_t i = 0; i < sizeof(cookies) / sizeof(cookies[0]); i++) {
		snprintf(head, sizeof(head), "GET /now HTTP/1.1\r\n%sHost: a\r\n\r\n", cookies[i]);
		if (fd < 0)
			fd = ask(s, head);
		else
			assert_true(raw_say(fd, head)); /* also on a kept connection */
		if (raw_read_answer(fd, false, out, sizeof(out)) != 200)
			fail_msg("%s%s", cookies[i], out);
	}
	close(fd);
	served_stop(s);
}

/* Whatever follows a body whose end two servers may see at different places is not served: at most one
 * answer. */
static void nothing_is_served_behind_a_chunked_body(void **state)
{
	(void)state;
	static const struct {
		const char *name, *body;
		bool good;
	} cases[] = {
		{"as it should be", "5\r\nhello\r\n0\r\n\r\n", true},
		{"bare LF everywhere", "5\nhello\n0\n\n", false},
		{"bare LF behind the data", "5\r\nhello\n0\r\n\r\n", false},
		{"bare LF behind the size", "5\nhello\r\n0\r\n\r\n", false},
		{"bare LF behind the last size", "5\r\nhello\r\n0\n\r\n", false},
		{"bare LF at the end", "5\r\nhello\r\n0\r\n\n", false},
		{"only bare LF, empty", "0\n\n", false},
		{"CR in an extension", "5;a\rb\r\nhello\r\n0\r\n\r\n", false},
		{"LF in an extension", "5;a\nb\r\nhello\r\n0\r\n\r\n", false},
		{"an extension", "5;a=b\r\nhello\r\n0\r\n\r\n", false},
		{"an extension with a quoted line end", "5;a=\"\r\n\"\r\nhello\r\n0\r\n\r\n", false},
		{"control bytes in an extension", "5;\x01\x7f\r\nhello\r\n0\r\n\r\n", false},
		{"a blank before the size", " 5\r\nhello\r\n0\r\n\r\n", false},
		{"a blank behind the size", "5 \r\nhello\r\n0\r\n\r\n", false},
		{"a tab behind the size", "5\t\r\nhello\r\n0\r\n\r\n", false},
		{"0x", "0x5\r\nhello\r\n0\r\n\r\n", false},
		{"a sign", "+5\r\nhello\r\n0\r\n\r\n", false},
		{"an underscore", "0_5\r\nhello\r\n0\r\n\r\n", false},
		{"a size of 20 digits", "00000000000000000005\r\nhello\r\n0\r\n\r\n", false},
		{"a size above 64 bits", "10000000000000005\r\nhello\r\n0\r\n\r\n", false},
		{"no size", "\r\nhello\r\n0\r\n\r\n", false},
		{"bytes behind the data", "5\r\nhelloX\r\n0\r\n\r\n", false},
		{"trailers", "5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n", true},
		{"trailers with a bare LF", "5\r\nhello\r\n0\r\nX-T: 1\n\r\n", false},
		{"a folded trailer", "5\r\nhello\r\n0\r\nX-T: 1\r\n 2\r\n\r\n", false},
	};
	static const char hidden[] = "GET /now HTTP/1.1\r\nHost: a\r\nX-User-Id: somebody-else\r\n\r\n";
	char request[1024], out[8192];
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		for (size_t piece = 1; piece <= 2048; piece += 2047) {
			struct served *s = serve(&served_usual);
			snprintf(request, sizeof(request),
				 "POST /sink HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n%s%s",
				 cases[i].body, hidden);
			int fd = raw_connect(listener_port(s->listener));
			for (size_t at = 0, n = strlen(request); at < n; at += piece)
				if (!raw_send(fd, request + at, n - at < piece ? n - at : piece))
					break;
			shutdown(fd, SHUT_WR); /* for a body that never ends */
			raw_read_all(fd, out, sizeof(out), NULL);
			close(fd);
			if (answers_in(out) > 1 || served_get(s, &s->heads) > 1)
				fail_msg("%s: %zu answers: %s", cases[i].name, answers_in(out), out);
			if (cases[i].good && status_of(out) != 200)
				fail_msg("%s: %s", cases[i].name, out);
			served_stop(s);
		}
}

/* A head of max_head passes one way whatever the other way's is: the answer to a POST that was executed is
 * not lost. */
static void a_large_head_leaves_room_for_a_large_head(void **state)
{
	(void)state;
	struct served *s = serve(&served_usual);
	static char head[20000], out[40000], filler[16384];
	for (int fields = 1; fields <= 250; fields += 83) {
		size_t n =
			(size_t)snprintf(head, sizeof(head),
					 "GET /bighead?n=16000 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n");
		for (int i = 0; i < fields; i++)
			n += (size_t)snprintf(head + n, sizeof(head) - n, "X-%03d: %d\r\n", i, i);
		memset(filler, 'c', 16384 - n - 20);
		filler[16384 - n - 20] = '\0';
		snprintf(head + n, sizeof(head) - n, "Cookie: a=%s\r\n\r\n", filler);
		int fd = ask(s, head);
		raw_read_all(fd, out, sizeof(out), NULL);
		close(fd);
		if (status_of(out) != 200)
			fail_msg("%d fields: %.200s", fields, out);
		assert_string_equal(body_of(out), "big");
	}
	served_stop(s);
}

static void heads_of_answers_have_a_limit(void **state)
{
	(void)state;
	struct served *s = serve(&served_usual);
	static char out[40000];
	int fd = ask(s, "GET /bighead?n=12000 HTTP/1.1\r\nHost: a\r\n\r\n");
	assert_int_equal(raw_read_answer(fd, false, out, sizeof(out)), 200);
	assert_string_equal(body_of(out), "big");
	assert_true(raw_say(fd, "GET /bighead?n=20000 HTTP/1.1\r\nHost: a\r\n\r\n"));
	/* the handler was told, and answered this */
	assert_int_equal(raw_read_answer(fd, false, out, sizeof(out)), 502);
	assert_string_equal(body_of(out), "too big");
	close(fd);
	served_stop(s);
}

static void connections_have_a_limit(void **state)
{
	(void)state;
	struct listener_options o = served_usual;
	o.max_connections = 2;
	struct served *s = serve(&o);
	int a = ask(s, "GET /now HTTP/1.1\r\nHost: a\r\n\r\n");
	expect_answer(a, 200, "now");
	int b = ask(s, "GET /now HTTP/1.1\r\nHost: a\r\n\r\n");
	expect_answer(b, 200, "now");
	char out[4096];
	int c = ask(s, "GET /now HTTP/1.1\r\nHost: a\r\n\r\n");
	raw_read_all(c, out, sizeof(out), NULL);
	assert_int_equal(status_of(out), 503);
	assert_non_null(strstr(out, "\r\nRetry-After: 1\r\n"));
	close(c);
	assert_int_equal(served_get(s, &s->heads), 2);
	assert_true(raw_say(a, "GET /now HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
	expect_answer(a, 200, "now");
	assert_int_equal(raw_wait_end(a), RAW_EOF); /* closed by the listener, so no longer counted */
	close(a);
	c = ask(s, "GET /now HTTP/1.1\r\nHost: a\r\n\r\n");
	expect_answer(c, 200, "now");
	close(b);
	close(c);
	served_stop(s);
}

static void listening_fails_with_a_sentence(void **state)
{
	(void)state;
	struct served *s = serve(&served_usual);
	static const char *const bad[] = {
		"",	  "127.0.0.1",	"127.0.0.1:", "127.0.0.1:x",  "127.0.0.1:65536",
		"::1:80", "[::1]",	"[::1:80",    "localhost:80", "256.0.0.1:80",
		":80",	  "unix:/tmp/x"};
	struct listener_handler h = served_handler(s);
	struct listener_options o = served_usual;
	struct listener *l;
	struct err e;
	struct loop *loop;
	assert_int_equal(loop_new(&loop), 0);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		o.address = bad[i];
		assert_int_equal(listener_start(loop, &o, &h, &l, &e), -EINVAL);
		assert_non_null(strstr(e.text, bad[i]));
	}
	char taken[32];
	snprintf(taken, sizeof(taken), "127.0.0.1:%u", listener_port(s->listener));
	o.address = taken;
	assert_int_equal(listener_start(loop, &o, &h, &l, &e), -EADDRINUSE);
	assert_non_null(strstr(e.text, taken));
	o.address = "192.0.2.1:0";
	assert_int_equal(listener_start(loop, &o, &h, &l, &e), -EADDRNOTAVAIL);
	o.address = "[::1]:0";
	int r = listener_start(loop, &o, &h, &l, &e);
	if (r == 0)
		listener_stop(l);
	o.address = "*:0";
	assert_int_equal(listener_start(loop, &o, &h, &l, &e), 0);
	assert_true(listener_port(l) > 0);
	listener_stop(l);
	loop_free(loop);
	served_stop(s);
}

static void two_listeners_share_a_port(void **state)
{
	(void)state;
	struct listener_options o = served_usual;
	o.reuse_port = true;
	struct served *s = serve(&o);
	char address[32];
	snprintf(address, sizeof(address), "127.0.0.1:%u", listener_port(s->listener));
	o.address = address;
	struct served *t = serve(&o);
	for (int i = 0; i < 40; i++) {
		int fd = ask(s, "GET /now HTTP/1.1\r\nHost: a\r\n\r\n");
		expect_answer(fd, 200, "now");
		close(fd);
	}
	assert_true(served_get(s, &s->heads) > 0);
	assert_true(served_get(t, &t->heads) > 0);
	served_stop(t);
	served_stop(s);
}

static void the_self_test_passes(void **state)
{
	(void)state;
	struct err e = {""};
	int r = listener_self_test(&e);
	if (r)
		fail_msg("%s", e.text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_self_test_passes),
		cmocka_unit_test(smuggling_shapes_are_refused),
		cmocka_unit_test(smuggling_shapes_in_pieces_are_refused),
		cmocka_unit_test(heads_have_limits),
		cmocka_unit_test(a_431_has_the_promised_shape_whatever_the_size),
		cmocka_unit_test(every_refusal_is_one_answer_of_the_promised_shape),
		cmocka_unit_test(a_refusal_is_never_told_to_somebody_else),
		cmocka_unit_test(every_large_head_is_told_so_in_the_promised_shape),
		cmocka_unit_test(a_head_of_many_cookies_and_arguments_leaves_room_for_the_answer),
		cmocka_unit_test(cookies_are_nobodys_business),
		cmocka_unit_test(nothing_is_served_behind_a_chunked_body),
		cmocka_unit_test(a_large_head_leaves_room_for_a_large_head),
		cmocka_unit_test(heads_of_answers_have_a_limit),
		cmocka_unit_test(connections_have_a_limit),
		cmocka_unit_test(listening_fails_with_a_sentence),
		cmocka_unit_test(two_listeners_share_a_port),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
