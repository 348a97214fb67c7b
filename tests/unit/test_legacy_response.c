/* legacy: parsing of answers and making of request heads, without a network. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "legacy/request_head.h"
#include "legacy/response.h"

/* What a whole answer, received in pieces of `step` bytes, comes to. */
struct outcome {
	int error; /* of head or body */
	bool head, complete, keep_alive;
	int status, continues;
	size_t leftover;
	char body[256];
};

static void receive(struct response *r, const char *bytes, size_t n, size_t step, bool head_request,
		    struct outcome *out)
{
	char *head = malloc(n + 1), *copy = malloc(n + 1);
	assert_true(head && copy);
	size_t have = 0, decoded = 0, at = 0;
	*out = (struct outcome){0};
	response_begin(r, head_request, 1024);
	while (at < n && !out->error && !r->complete) {
		size_t piece = n - at < step ? n - at : step, begin = 0;
		if (!out->head) {
			memcpy(head + have, bytes + at, piece);
			have += piece;
			int e;
			while ((e = response_head(r, head, have)) == RESPONSE_CONTINUE)
				out->continues++;
			out->error = e < 0 ? e : 0;
			out->head = e == RESPONSE_HEAD;
			begin = out->head ? piece - (have - r->head_size) : piece;
		}
		memcpy(copy, bytes + at, piece);
		at += piece;
		if (!out->head)
			continue;
		size_t body;
		long used = response_body(r, copy + begin, piece - begin, &body);
		memcpy(out->body + decoded, copy + begin, body);
		decoded += body;
		out->error = used < 0 ? (int)used : 0;
		out->leftover = n - at + piece - begin - (size_t)used;
	}
	out->status = r->status;
	out->complete = out->head && r->complete;
	out->keep_alive = r->keep_alive;
	free(copy);
	free(head);
}

struct row {
	const char *bytes;
	size_t n; /* 0: a string */
	int error, status, kept;
	const char *body;
	bool complete;
	size_t leftover;
};

#define OK(bytes, status, kept, body) \
	{ \
		bytes, 0, 0, status, kept, body, true, 0 \
	}
#define BAD(bytes) \
	{ \
		bytes, 0, -EPROTO, 0, 0, "", false, 0 \
	}
#define BAD_N(bytes) \
	{ \
		bytes, sizeof(bytes) - 1, -EPROTO, 0, 0, "", false, 0 \
	}
#define CHUNKED "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
#define LENGTH(n) "HTTP/1.1 200 OK\r\nContent-Length: " n "\r\n\r\n"

static const struct row rows[] = {
	OK(LENGTH("3") "abc", 200, 1, "abc"),
	OK(LENGTH("0"), 200, 1, ""),
	OK(LENGTH("003") "abc", 200, 1, "abc"),
	OK("HTTP/1.1 299 \r\nContent-Length:\t 1 \t\r\n\r\nx", 299, 1, "x"),
	OK("HTTP/1.1 204\r\n\r\n", 204, 1, ""),
	OK("HTTP/1.1 999 \xff\r\nContent-Length: 0\r\n\r\n", 999, 1, ""),
	OK("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", 200, 0, ""),
	OK("HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: foo ,\tKEEP-ALIVE\r\n\r\n", 200, 1, ""),
	OK("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\nconnection: close\r\n\r\n", 200,
	   0, ""),
	OK("HTTP/1.1 100 C\r\n\r\nHTTP/1.1 204 N\r\n\r\n", 204, 1, ""),
	OK(CHUNKED "1\r\na\r\n00000000000000000000000000000002;x\r\nbc\r\n0\r\n\r\n", 200, 1, "abc"),
	OK(CHUNKED "1 ; a=\"b\"\r\na\r\nF\r\n0123456789abcde\r\n0;z\r\nTrailer: x\r\nY: \r\n\r\n", 200, 1,
	   "a0123456789abcde"),
	OK("HTTP/1.1 200 OK\nTransfer-Encoding:chunked\n\r\n0\r\n\r\n", 200, 1, ""),
	{LENGTH("3") "abcdef", 0, 0, 200, 1, "abc", true, 3},
	{CHUNKED "0\r\n\r\nHTTP", 0, 0, 200, 1, "", true, 4},
	{"HTTP/1.1 204 N\r\n\r\nx", 0, 0, 204, 1, "", true, 1},
	{LENGTH("4") "abc", 0, 0, 200, 1, "abc", false, 0},
	{"HTTP/1.1 200 OK\r\n\r\nabc", 0, 0, 200, 0, "abc", false, 0},
	BAD("\r\nHTTP/1.1 200 OK\r\n\r\n"),
	BAD("HTTP/2 200\r\n\r\n"),
	BAD("HTTP/1.2 200 OK\r\n\r\n"),
	BAD("http/1.1 200 OK\r\n\r\n"),
	BAD("HTTP/1.1  200 OK\r\n\r\n"),
	BAD("HTTP/1.1 20 OK\r\n\r\n"),
	BAD("HTTP/1.1 2000 OK\r\n\r\n"),
	BAD("HTTP/1.1 099 OK\r\n\r\n"),
	BAD("HTTP/1.1 -20 OK\r\n\r\n"),
	BAD("HTTP/1.1 101 Switching\r\n\r\n"),
	BAD("HTTP/1.1 200 a\rb\r\n\r\n"),
	BAD("HTTP/1.1 200 OK\r\nA: 1\r\n b\r\n\r\n"),
	BAD("HTTP/1.1 200 OK\r\n A: 1\r\n\r\n"),
	BAD("HTTP/1.1 200 OK\r\nA : 1\r\n\r\n"),
	BAD("HTTP/1.1 200 OK\r\n: 1\r\n\r\n"),
	BAD("HTTP/1.1 200 OK\r\nA\r\n\r\n"),
	BAD("HTTP/1.1 200 OK\r\nA\x80: 1\r\n\r\n"),
	BAD("HTTP/1.1 200 OK\r\nA: 1\rB: 2\r\n\r\n"),
	BAD("HTTP/1.1 200 OK\r\nA: 1\r\r\n\r\n"),
	BAD_N("HTTP/1.1 200 OK\r\nA: 1\0\r\n\r\n"),
	BAD_N("HTTP/1.1 200 OK\r\nA\0: 1\r\n\r\n"),
	BAD_N("HTTP/1.1 200 O\0K\r\n\r\n"),
	BAD(LENGTH("")),
	BAD(LENGTH("-1")),
	BAD(LENGTH("+1")),
	BAD(LENGTH("1, 2")),
	BAD(LENGTH("1, x")),
	BAD(LENGTH(",")),
	BAD(LENGTH("1 1")),
	BAD(LENGTH("0x1")),
	BAD(LENGTH("9223372036854775808")),
	BAD(LENGTH("18446744073709551617")),
	BAD(LENGTH("1\r\nContent-Length: 2")),
	BAD(LENGTH("3\r\nTransfer-Encoding: chunked") "xyz"),
	OK(LENGTH("1, 1") "a", 200, 1, "a"),
	OK(LENGTH("3\r\nTransfer-Encoding: chunked") "1\r\na\r\n0\r\n\r\n", 200, 0, "a"),
	OK("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\nContent-Length: "
	   "2\r\n\r\n0\r\n\r\n",
	   200, 0, ""),
	BAD("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"),
	BAD("HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n"),
	BAD("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"),
	BAD("HTTP/1.1 200 OK\r\nTransfer-Encoding: \"chunked\"\r\n\r\n"),
	BAD("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
	OK("HTTP/1.1 204 N\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 204, 0, ""),
	BAD(CHUNKED "\r\n"),
	BAD(CHUNKED "g\r\n"),
	BAD(CHUNKED "-1\r\n"),
	BAD(CHUNKED "0x1\r\n"),
	BAD(CHUNKED ";a\r\n"),
	BAD(CHUNKED "1\na\n"),
	BAD(CHUNKED "1\ra"),
	BAD(CHUNKED "8000000000000000\r\n"),
	BAD(CHUNKED "10000000000000000\r\n"),
	BAD(CHUNKED "ffffffffffffffff0\r\n"),
	BAD(CHUNKED "0\r\nA: 1\n\r\n"),
	BAD(CHUNKED "0\r\n\n"),
	BAD_N(CHUNKED "0\r\nA: \0\r\n\r\n")};

static void check_row(const struct row *row, size_t step)
{
	struct response r = {0};
	struct outcome got;
	receive(&r, row->bytes, row->n ? row->n : strlen(row->bytes), step, false, &got);
	if (got.error != row->error)
		fail_msg("%s in steps of %zu: %d instead of %d (%s)", row->bytes, step, got.error, row->error,
			 r.why);
	if (row->error) {
		assert_non_null(r.why);
	} else if (got.status != row->status || got.complete != row->complete ||
		   strcmp(got.body, row->body) || got.leftover != row->leftover ||
		   got.keep_alive != row->kept) {
		fail_msg("%s in steps of %zu: status %d complete %d keep %d leftover %zu body '%s'",
			 row->bytes, step, got.status, got.complete, got.keep_alive, got.leftover, got.body);
	}
	response_release(&r);
}

static void answers_in_all_pieces(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		for (size_t step = 1; step < 80; step++)
			check_row(&rows[i], step);
}

static void malformed_chunks(void **state)
{
	(void)state;
	struct response r = {0};
	struct outcome got;
	const char *const bytes[] = {CHUNKED "3\r\nabcd\r\n", CHUNKED "3\r\nabc\n0\r\n\r\n",
				     CHUNKED "3\r\nabc\r0\r\n\r\n"};
	for (size_t i = 0; i < 3; i++) {
		receive(&r, bytes[i], strlen(bytes[i]), 7, false, &got);
		assert_int_equal(got.error, -EPROTO);
		assert_string_equal(got.body, "abc");
	}
	response_release(&r);
}

static void limits_of_heads(void **state)
{
	(void)state;
	struct response r = {0};
	char many[16384] = "HTTP/1.1 200 OK\r\n";
	for (int i = 0; i < RESPONSE_FIELDS_MAX + 1; i++)
		strcat(many, "A:\r\n");
	response_begin(&r, false, sizeof(many));
	assert_int_equal(response_head(&r, many, strlen(many)), -EFBIG);
	many[strlen(many) - 4] = '\0';
	strcat(many, "\r\n");
	response_begin(&r, false, sizeof(many));
	assert_int_equal(response_head(&r, many, strlen(many)), RESPONSE_HEAD);
	assert_int_equal(r.n_fields, RESPONSE_FIELDS_MAX);
	assert_int_equal(r.head_size, strlen(many));
	response_begin(&r, false, 100);
	assert_int_equal(response_head(&r, many, 99), RESPONSE_MORE);
	assert_int_equal(response_head(&r, many, 100), -EFBIG);
	/* Many interim answers are one large head. */
	char interim[8192] = "";
	for (int i = 0; i < 200; i++)
		strcat(interim, "HTTP/1.1 103 E\r\n\r\n");
	response_begin(&r, false, 1024);
	assert_int_equal(response_head(&r, interim, strlen(interim)), -EFBIG);
	response_release(&r);
}

static void limits_of_chunk_framing(void **state)
{
	(void)state;
	struct response r = {0};
	static char long_extension[8192] = "1;";
	memset(long_extension + 2, 'x', 8000);
	size_t body;
	for (int trailers = 0; trailers < 2; trailers++) {
		response_begin(&r, false, 1024);
		assert_int_equal(response_head(&r, CHUNKED, strlen(CHUNKED)), RESPONSE_HEAD);
		char end[] = "0\r\n";
		if (trailers)
			assert_int_equal(response_body(&r, end, 3, &body), 3);
		assert_int_equal(response_body(&r, long_extension, 8000, &body), -EPROTO);
	}
	response_release(&r);
}

static void bodiless_answers(void **state)
{
	(void)state;
	struct response r = {0};
	struct outcome got;
	receive(&r, LENGTH("10"), strlen(LENGTH("10")), 1000, true, &got);
	assert_true(got.complete && got.keep_alive);
	assert_int_equal(r.content_length, 10);
	receive(&r, CHUNKED, strlen(CHUNKED), 1000, true, &got);
	assert_true(got.complete && got.keep_alive);
	const char *not_modified =
		"HTTP/1.1 304 N\r\nContent-Length: 7\r\nKeep-Alive: timeout=5, max=100\r\n\r\n";
	receive(&r, not_modified, strlen(not_modified), 1000, false, &got);
	assert_true(got.complete);
	assert_int_equal(r.keep_timeout_s, 5);
	response_release(&r);
}

static void ends_by_closing(void **state)
{
	(void)state;
	struct response r = {0};
	struct outcome got;
	receive(&r, "HTTP/1.1 200 OK\r\n\r\nabc", 22, 100, false, &got);
	assert_true(response_closed(&r));
	receive(&r, LENGTH("4") "abc", strlen(LENGTH("4") "abc"), 100, false, &got);
	assert_false(response_closed(&r));
	receive(&r, CHUNKED "3\r\nabc\r\n", strlen(CHUNKED "3\r\nabc\r\n"), 100, false, &got);
	assert_false(response_closed(&r));
	receive(&r, "HTTP/1.1 200 OK\r\n", 17, 100, false, &got);
	assert_false(response_closed(&r));
	response_release(&r);
}

/* --- heads of requests ------------------------------------------------------------------------------- */

static const char *head_of(const char *base_url, const struct legacy_request *r, struct buf *b)
{
	struct origin o;
	assert_int_equal(origin_parse(base_url, &o, NULL), 0);
	buf_clear(b);
	int e = request_head_append(b, r, &o);
	origin_release(&o);
	return e == 0 ? b->ptr : e == -EINVAL ? "EINVAL" : "error";
}

static void targets_and_prefixes(void **state)
{
	(void)state;
	static const char *const table[][3] = {
		{"http://h:1", "/a?b", "GET /a?b HTTP/1.1\r\nHost: h:1\r\n\r\n"},
		{"http://h:1/", "/", "GET / HTTP/1.1\r\nHost: h:1\r\n\r\n"},
		{"http://h:1/p/q/", "/a//b/", "GET /p/q/a//b/ HTTP/1.1\r\nHost: h:1\r\n\r\n"},
		{"https://h/p", "/?x", "GET /p/?x HTTP/1.1\r\nHost: h\r\n\r\n"},
		{"http://h", "http://other/x?y", "GET http://other/x?y HTTP/1.1\r\nHost: h\r\n\r\n"},
		{"http://h/p", "http://other/x?y", "GET /p/x?y HTTP/1.1\r\nHost: h\r\n\r\n"},
		{"http://h/p", "http://other", "GET /p/ HTTP/1.1\r\nHost: h\r\n\r\n"},
		{"http://h/p", "http://other?y", "GET /p/?y HTTP/1.1\r\nHost: h\r\n\r\n"},
		{"http://h/p", "*", "GET * HTTP/1.1\r\nHost: h\r\n\r\n"},
		{"http://h", "", "EINVAL"},
		{"http://h", "/a b", "EINVAL"},
		{"http://h", "/a\r\nX: y", "EINVAL"},
		{"http://h", "/a\n", "EINVAL"},
		{"http://h", "/a\r", "EINVAL"},
	};
	CLEANUP(buf_releasep) struct buf b = BUF_INIT(4096);
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct legacy_request r = {
			.method = SPAN_LIT("GET"), .target = span_of(table[i][1]), .content_length = -1};
		assert_string_equal(head_of(table[i][0], &r, &b), table[i][2]);
	}
}

static void framing_of_requests(void **state)
{
	(void)state;
	static const struct {
		int64_t length;
		bool has_body, has_length;
		const char *framing;
	} table[] = {
		{-1, false, false, ""},
		{0, false, true, "Content-Length: 0\r\n"},
		{0, true, true, "Content-Length: 0\r\n"},
		{INT64_MAX, true, true, "Content-Length: 9223372036854775807\r\n"},
		{-1, true, false, "Transfer-Encoding: chunked\r\n"},
	};
	CLEANUP(buf_releasep) struct buf b = BUF_INIT(4096);
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct legacy_request r = {.method = SPAN_LIT("POST"),
					   .target = SPAN_LIT("/"),
					   .content_length = table[i].length,
					   .has_body = table[i].has_body,
					   .has_length = table[i].has_length};
		char expected[200];
		snprintf(expected, sizeof(expected), "POST / HTTP/1.1\r\nHost: h\r\n%s\r\n",
			 table[i].framing);
		assert_string_equal(head_of("http://h", &r, &b), expected);
	}
}

static void a_field_cannot_split_a_request(void **state)
{
	(void)state;
	const struct span values[] = {SPAN_LIT("a\r\nB: c"), SPAN_LIT("a\n"), SPAN_LIT("a\rb"), {"a\0b", 3}};
	CLEANUP(buf_releasep) struct buf b = BUF_INIT(4096);
	for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++)
		for (int as_name = 0; as_name < 2; as_name++) {
			struct http_field f = {SPAN_LIT("X"), SPAN_LIT("y")};
			*(as_name ? &f.name : &f.value) = values[i];
			struct legacy_request r = {.method = SPAN_LIT("GET"),
						   .target = SPAN_LIT("/"),
						   .fields = &f,
						   .n_fields = 1};
			assert_string_equal(head_of("http://h", &r, &b), "EINVAL");
		}
	struct buf small = BUF_INIT(20);
	struct legacy_request r = {.method = SPAN_LIT("GET"), .target = SPAN_LIT("/")};
	assert_string_equal(head_of("http://h", &r, &small), "error");
	buf_release(&small);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(answers_in_all_pieces),
		cmocka_unit_test(malformed_chunks),
		cmocka_unit_test(limits_of_heads),
		cmocka_unit_test(limits_of_chunk_framing),
		cmocka_unit_test(bodiless_answers),
		cmocka_unit_test(ends_by_closing),
		cmocka_unit_test(targets_and_prefixes),
		cmocka_unit_test(framing_of_requests),
		cmocka_unit_test(a_field_cannot_split_a_request),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
