/*
 * Raw cases: requests that two HTTP implementations would read differently (request smuggling), and near
 *            misses that must
 * be served. Bytes as they go over the wire.
 *
 * Source: docs/protocols/http.md (what the library lets through), RFC 9112 §2.2, §3, §5, §6, §11.2.
 */
#ifndef TESTS_RAW_CASES_H
#define TESTS_RAW_CASES_H

#include <stddef.h>

struct raw_case {
	const char *name;
	const char *bytes;
	size_t length;
	int status; /* of the only answer; 200: served */
};

/* clang-format off */
#define RAW_CASE(n, b, s) {(n), (b), sizeof(b) - 1, (s)}
/* clang-format on */
#define RAW_HOST "Host: a\r\n"

static const struct raw_case raw_cases[] = {
	/* served */
	RAW_CASE("plain", "GET /now HTTP/1.1\r\n" RAW_HOST "\r\n", 200),
	RAW_CASE("1.0 without Host", "GET /now HTTP/1.0\r\n\r\n", 200),
	RAW_CASE("empty line before", "\r\nGET /now HTTP/1.1\r\n" RAW_HOST "\r\n", 200),
	RAW_CASE("high bytes in the target", "GET /now?\xc3\xa9\xff HTTP/1.1\r\n" RAW_HOST "\r\n", 200),
	RAW_CASE("obs-text in a value", "GET /now HTTP/1.1\r\n" RAW_HOST "X-A: \xe9\xff\r\n\r\n", 200),
	RAW_CASE("tab in a value", "GET /now HTTP/1.1\r\n" RAW_HOST "X-A: a\tb\r\n\r\n", 200),
	RAW_CASE("unusual token in a name", "GET /now HTTP/1.1\r\n" RAW_HOST "x!#$%&'*+-.^_`|~9: 1\r\n\r\n",
		 200),
	RAW_CASE("length zero", "POST /now HTTP/1.1\r\n" RAW_HOST "Content-Length: 0\r\n\r\n", 200),
	RAW_CASE("chunked in capitals",
		 "POST /sink HTTP/1.1\r\n" RAW_HOST "Transfer-Encoding: CHUNKED\r\n\r\n0\r\n\r\n", 200),
	RAW_CASE("upgrade to h2c is ignored",
		 "GET /now HTTP/1.1\r\n" RAW_HOST "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
		 "HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
		 200),
	/* framing */
	RAW_CASE("length and chunked",
		 "POST /sink HTTP/1.1\r\n" RAW_HOST
		 "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		 400),
	RAW_CASE("chunked and length",
		 "POST /sink HTTP/1.1\r\n" RAW_HOST
		 "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
		 400),
	RAW_CASE("two lengths",
		 "POST /sink HTTP/1.1\r\n" RAW_HOST "Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
		 400),
	RAW_CASE("two equal lengths",
		 "POST /sink HTTP/1.1\r\n" RAW_HOST "Content-Length: 4\r\ncontent-length: 4\r\n\r\nabcd",
		 400),
	RAW_CASE("list of lengths", "POST /sink HTTP/1.1\r\n" RAW_HOST "Content-Length: 4, 4\r\n\r\nabcd",
		 400),
	RAW_CASE("signed length", "POST /sink HTTP/1.1\r\n" RAW_HOST "Content-Length: +4\r\n\r\nabcd", 400),
	RAW_CASE("negative length", "POST /sink HTTP/1.1\r\n" RAW_HOST "Content-Length: -4\r\n\r\nabcd", 400),
	RAW_CASE("hexadecimal length", "POST /sink HTTP/1.1\r\n" RAW_HOST "Content-Length: 0x4\r\n\r\nabcd",
		 400),
	RAW_CASE("empty length", "POST /sink HTTP/1.1\r\n" RAW_HOST "Content-Length:\r\n\r\nabcd", 400),
	RAW_CASE("length with a blank behind",
		 "POST /sink HTTP/1.1\r\n" RAW_HOST "Content-Length: 4 \r\n\r\nabcd", 400),
	RAW_CASE("length above 64 bits",
		 "POST /sink HTTP/1.1\r\n" RAW_HOST "Content-Length: 18446744073709551620\r\n\r\nabcd", 413),
	RAW_CASE("length above 63 bits",
		 "POST /sink HTTP/1.1\r\n" RAW_HOST "Content-Length: 9223372036854775809\r\n\r\nabcd", 400),
	RAW_CASE("coding x", "POST /sink HTTP/1.1\r\n" RAW_HOST "Transfer-Encoding: x\r\n\r\n0\r\n\r\n", 400),
	RAW_CASE("coding xchunked",
		 "POST /sink HTTP/1.1\r\n" RAW_HOST "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
	RAW_CASE("coding gzip, chunked",
		 "POST /sink HTTP/1.1\r\n" RAW_HOST "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
	RAW_CASE("coding chunked, identity",
		 "POST /sink HTTP/1.1\r\n" RAW_HOST "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
		 400),
	RAW_CASE("chunked with a blank behind",
		 "POST /sink HTTP/1.1\r\n" RAW_HOST "Transfer-Encoding: chunked \r\n\r\n0\r\n\r\n", 400),
	RAW_CASE("chunked quoted",
		 "POST /sink HTTP/1.1\r\n" RAW_HOST "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", 400),
	RAW_CASE("two codings",
		 "POST /sink HTTP/1.1\r\n" RAW_HOST
		 "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		 400),
	RAW_CASE("empty coding", "POST /sink HTTP/1.1\r\n" RAW_HOST "Transfer-Encoding:\r\n\r\n0\r\n\r\n",
		 400),
	RAW_CASE("chunked after a vertical tab",
		 "POST /sink HTTP/1.1\r\n" RAW_HOST "Transfer-Encoding: \vchunked\r\n\r\n0\r\n\r\n", 400),
	RAW_CASE("chunked in 1.0",
		 "POST /sink HTTP/1.0\r\n" RAW_HOST "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
	RAW_CASE("chunked hidden by a fold",
		 "POST /sink HTTP/1.1\r\n" RAW_HOST "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", 400),
	RAW_CASE("blank before the colon of a coding",
		 "POST /sink HTTP/1.1\r\n" RAW_HOST "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400),
	RAW_CASE("chunk size with a sign",
		 "POST /sink HTTP/1.1\r\n" RAW_HOST "Transfer-Encoding: chunked\r\n\r\n+1\r\na\r\n0\r\n\r\n",
		 400),
	RAW_CASE("chunk size in 0x",
		 "POST /sink HTTP/1.1\r\n" RAW_HOST "Transfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n",
		 400),
	RAW_CASE("chunk longer than said",
		 "POST /sink HTTP/1.1\r\n" RAW_HOST "Transfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n",
		 400),
	/* 0.9.75 serves extensions of chunks, 1.x refuses them when strict: not a case. */
	/* fields */
	RAW_CASE("no Host in 1.1", "GET /now HTTP/1.1\r\n\r\n", 400),
	RAW_CASE("two Hosts", "GET /now HTTP/1.1\r\n" RAW_HOST "Host: b\r\n\r\n", 400),
	RAW_CASE("two equal Hosts", "GET /now HTTP/1.1\r\n" RAW_HOST RAW_HOST "\r\n", 400),
	RAW_CASE("two Hosts in 1.0", "GET /now HTTP/1.0\r\n" RAW_HOST RAW_HOST "\r\n", 400),
	RAW_CASE("blank in Host", "GET /now HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
	RAW_CASE("blank before a colon", "GET /now HTTP/1.1\r\n" RAW_HOST "X-A : 1\r\n\r\n", 400),
	RAW_CASE("tab before a colon", "GET /now HTTP/1.1\r\n" RAW_HOST "X-A\t: 1\r\n\r\n", 400),
	RAW_CASE("blank before the first name", "GET /now HTTP/1.1\r\n X-A: 1\r\n" RAW_HOST "\r\n", 400),
	RAW_CASE("empty name", "GET /now HTTP/1.1\r\n" RAW_HOST ": 1\r\n\r\n", 400),
	RAW_CASE("no colon", "GET /now HTTP/1.1\r\n" RAW_HOST "X-A\r\n\r\n", 400),
	RAW_CASE("high byte in a name", "GET /now HTTP/1.1\r\n" RAW_HOST "X-\xc3\xa9: 1\r\n\r\n", 400),
	RAW_CASE("slash in a name", "GET /now HTTP/1.1\r\n" RAW_HOST "X/A: 1\r\n\r\n", 400),
	RAW_CASE("control in a value", "GET /now HTTP/1.1\r\n" RAW_HOST "X-A: 1\001\r\n\r\n", 400),
	RAW_CASE("DEL in a value", "GET /now HTTP/1.1\r\n" RAW_HOST "X-A: 1\177\r\n\r\n", 400),
	RAW_CASE("bare CR in a value", "GET /now HTTP/1.1\r\n" RAW_HOST "X-A: 1\rX-B: 2\r\n\r\n", 400),
	RAW_CASE("NUL in a value", "GET /now HTTP/1.1\r\n" RAW_HOST "X-A: 1\0X-B: 2\r\n\r\n", 400),
	RAW_CASE("NUL ends a value", "GET /now HTTP/1.1\r\n" RAW_HOST "X-A: 1\0\r\n\r\n", 400),
	RAW_CASE("NUL in a name", "GET /now HTTP/1.1\r\n" RAW_HOST "X\0A: 1\r\n\r\n", 400),
	RAW_CASE("fold", "GET /now HTTP/1.1\r\n" RAW_HOST "X-A: 1\r\n two\r\nX-B: 2\r\n\r\n", 400),
	RAW_CASE("fold with a tab", "GET /now HTTP/1.1\r\n" RAW_HOST "X-A: 1\r\n\ttwo\r\n\r\n", 400),
	RAW_CASE("fold of blanks only", "GET /now HTTP/1.1\r\n" RAW_HOST "X-A: 1\r\n \r\n\r\n", 400),
	RAW_CASE("identity built by a fold",
		 "GET /now HTTP/1.1\r\n" RAW_HOST "X-User: \r\n -Id\r\nX-B: 2\r\n\r\n", 400),
	RAW_CASE("bare LF between fields", "GET /now HTTP/1.1\r\n" RAW_HOST "X-A: 1\nX-B: 2\r\n\r\n", 400),
	RAW_CASE("bare LF after the request line", "GET /now HTTP/1.1\n" RAW_HOST "\r\n", 400),
	RAW_CASE("bare LF after the last field", "GET /now HTTP/1.1\r\n" RAW_HOST "X-A: 1\n\r\n", 400),
	RAW_CASE("bare LF as the empty line", "GET /now HTTP/1.1\r\n" RAW_HOST "\n", 400),
	RAW_CASE("only bare LF", "GET /now HTTP/1.1\nHost: a\n\n", 400),
	/* request line */
	RAW_CASE("blank in the target", "GET /now /x HTTP/1.1\r\n" RAW_HOST "\r\n", 400),
	RAW_CASE("tab in the target", "GET /now\t/x HTTP/1.1\r\n" RAW_HOST "\r\n", 400),
	RAW_CASE("control in the target", "GET /now\001 HTTP/1.1\r\n" RAW_HOST "\r\n", 400),
	RAW_CASE("CR in the target", "GET /now\rx HTTP/1.1\r\n" RAW_HOST "\r\n", 400),
	RAW_CASE("NUL in the target", "GET /now\0x HTTP/1.1\r\n" RAW_HOST "\r\n", 400),
	RAW_CASE("two blanks before the target", "GET  /now HTTP/1.1\r\n" RAW_HOST "\r\n", 400),
	RAW_CASE("two blanks after the target", "GET /now  HTTP/1.1\r\n" RAW_HOST "\r\n", 400),
	RAW_CASE("blank after the version", "GET /now HTTP/1.1 \r\n" RAW_HOST "\r\n", 400),
	RAW_CASE("relative target", "GET now HTTP/1.1\r\n" RAW_HOST "\r\n", 400),
	RAW_CASE("asterisk without OPTIONS", "GET * HTTP/1.1\r\n" RAW_HOST "\r\n", 400),
	RAW_CASE("method that is no token", "G@T /now HTTP/1.1\r\n" RAW_HOST "\r\n", 400),
	RAW_CASE("CONNECT", "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 501),
	RAW_CASE("websocket",
		 "GET /now HTTP/1.1\r\n" RAW_HOST "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 501)};

#define RAW_CASES (sizeof(raw_cases) / sizeof(raw_cases[0]))

#endif
