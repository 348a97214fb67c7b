/* router: forward. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "router/forward.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define ROOM 64

/* "Name: value\n…" as fields, which borrow from the text. */
static size_t split(const char *text, struct http_field *out)
{
	size_t n = 0;
	while (*text) {
		const char *colon = strchr(text, ':'), *newline = strchr(text, '\n');
		assert_true(colon && newline && n < ROOM);
		out[n].name = (struct span){text, (size_t)(colon - text)};
		out[n++].value = span_trim((struct span){colon + 1, (size_t)(newline - colon) - 1});
		text = newline + 1;
	}
	return n;
}

static void join(struct span name, struct span value, struct buf *out)
{
	buf_printf(out, "%.*s: %.*s\n", SPAN_ARG(name), SPAN_ARG(value));
}

static int forward(const char *text, const struct forward_context *c, struct buf *out)
{
	struct http_field in[ROOM];
	struct http_field fields[ROOM + FORWARD_EXTRA];
	struct forward_context own = *c;
	own.via = SPAN_LIT("1.1 migration-router");
	size_t n = split(text, in), n_out = 0;
	int r = forward_request(in, n, &own, fields, n + FORWARD_EXTRA, &n_out);
	for (size_t i = 0; r == 0 && i < n_out; i++)
		join(fields[i].name, fields[i].value, out);
	return r;
}

#define VIA "Via: 1.1 migration-router\n"

static void what_goes_upstream(void **state)
{
	(void)state;
	static const struct {
		const char *in, *out; /* without the added X-Request-ID and Via */
	} cases[] = {
		{"Host: a\nAccept: */*\naccept: b\nX-E:\nAccept: */*\n",
		 "Host: a\nAccept: */*\naccept: b\nX-E: \nAccept: */*\n"},
		{"Host: a\nConnection: close\nKeep-Alive: 5\nB: 1\n", "Host: a\nB: 1\n"},
		{"Host: a\nX-One: 1\nConnection: keep-alive, x-one ,,X-TWO\nX-Two: 2\nx-two: 3\nX-Three: 4\n",
		 "Host: a\nX-Three: 4\n"},
		{"Host: a\nConnection: X-One\nConnection: X-Two\nX-One: 1\nX-Two: 2\n", "Host: a\n"},
		{"Host: a\nConnection:\nX-One: 1\n", "Host: a\nX-One: 1\n"},
		{"Host: a\nTE: trailers\nTrailer: X\nUpgrade: h2c\nTransfer-Encoding: "
		 "chunked\nContent-Length: 3\nB: 1\n",
		 "Host: a\nB: 1\n"},
		{"Host: a\nProxy-Connection: close\nProxy-Authorization: Basic x\nPROXY-AUTHENTICATE: y\nB: "
		 "1\n",
		 "Host: a\nB: 1\n"},
		{"Host: a\nX-Migration-Override: task\nx-migration-override-secret: "
		 "s\nX-Migration-Overridden: 1\n",
		 "Host: a\nX-Migration-Overridden: 1\n"},
		{"Host: a\nX-Migration-Shadow: 1\nX-Migration-Shadows: 1\n",
		 "Host: a\nX-Migration-Shadows: 1\n"},
		{"Host: a\ntraceparent: 00-a\ntracestate: b\nExpect: 100-continue\nContent-Type: a/b\n",
		 "Host: a\ntraceparent: 00-a\ntracestate: b\nExpect: 100-continue\nContent-Type: a/b\n"},
		/* What Connection must not be able to remove. */
		{"Host: a\nConnection: Host, Content-Type, Authorization, Cookie, X-Forwarded-For, "
		 "traceparent, X-User-Id\n"
		 "Content-Type: a/b\nAuthorization: Bearer x\nCookie: c\nX-Forwarded-For: 1\ntraceparent: "
		 "t\nx-user-id: u\n",
		 "Host: a\nContent-Type: a/b\nAuthorization: Bearer x\nCookie: c\nX-Forwarded-For: "
		 "1\ntraceparent: t\nx-user-id: u\n"},
		/* Lengths that the rules look at, other names. */
		{"XX: 1\nVib: 1\nHosu: 1\nExpecu: 1\nTrailes: 1\nKeep-Alivf: 1\n",
		 "XX: 1\nVib: 1\nHosu: 1\nExpecu: 1\nTrailes: 1\nKeep-Alivf: 1\n"}};
	const struct span protected_names[] = {SPAN_LIT("X-User-Id")};
	struct forward_context c = {
		.request_id = SPAN_LIT("made"), .protected_names = protected_names, .n_protected = 1};
	for (size_t i = 0; i < COUNT(cases); i++) {
		CLEANUP(buf_releasep) struct buf out = BUF_INIT(10000), expected = BUF_INIT(10000);
		assert_int_equal(forward(cases[i].in, &c, &out), 0);
		buf_printf(&expected, "%sX-Request-ID: made\n" VIA, cases[i].out);
		assert_string_equal(out.ptr, expected.ptr);
	}
}

static void what_is_added(void **state)
{
	(void)state;
	static const struct {
		struct forward_context context;
		const char *in, *out;
	} cases[] = {
		{{.request_id = {"r", 1}}, "", "X-Request-ID: r\n" VIA},
		{{.request_id = {"r", 1}}, "x-request-id: mine\n", "x-request-id: mine\n" VIA},
		{{.request_id = {"r", 1}},
		 "X-Request-ID: 1\nX-Request-ID: 2\n",
		 "X-Request-ID: 1\nX-Request-ID: 2\n" VIA},
		{{.request_id = {"r", 1}}, "X-Request-ID:\nB: 1\n", "B: 1\nX-Request-ID: r\n" VIA},
		{{.request_id = {"r", 1}},
		 "Connection: X-Request-ID\nX-Request-ID: 1\n",
		 "X-Request-ID: 1\n" VIA},
		{{.host = {"h:1", 3}}, "B: 1\n", "B: 1\nHost: h:1\n" VIA},
		{{.host = {"h:1", 3}}, "host: mine\n", "host: mine\n" VIA},
		{{.drop_expect = true}, "Expect: 100-continue\nB: 1\n", "B: 1\n" VIA},
		{{.drop_expect = false},
		 "Via: 1.0 fred, 1.1 p.example.net\nB: 1\n",
		 "Via: 1.0 fred, 1.1 p.example.net\nB: 1\n" VIA},
		{{.own_id = {"me", 2}},
		 "Via: 1.1 migration-router (you)\n",
		 "Via: 1.1 migration-router (you)\n" VIA},
		{{.own_id = {"me", 2}},
		 "Via: 1.1 fred (me), 1.1 migration-router (not me)\n",
		 "Via: 1.1 fred (me), 1.1 migration-router (not me)\n" VIA},
		{{.peer_trusted = true}, "X-Migration-Shadow: 1\n", "X-Migration-Shadow: 1\n" VIA},
		{{.via_off = true},
		 "Via: 1.0 fred\n",
		 "Via: 1.0 fred\nX-Migration-Via: 1.1 migration-router\n"},
	};
	for (size_t i = 0; i < COUNT(cases); i++) {
		CLEANUP(buf_releasep) struct buf out = BUF_INIT(10000);
		assert_int_equal(forward(cases[i].in, &cases[i].context, &out), 0);
		assert_string_equal(out.ptr, cases[i].out);
	}
}

static void what_is_refused(void **state)
{
	(void)state;
	struct forward_context none = {.own_id = {"me", 2}};
	CLEANUP(buf_releasep) struct buf out = BUF_INIT(10000);
	static const char *const loops[] = {
		"Via: 1.1 migration-router (me)\n",
		"Via: 1.0 fred, 1.1 Migration-Router ( me ), 1.1 x\n",
		"Connection: Via\nVia: 1.1 a\nVia: 1.1 migration-router (you), 1.0 migration-router (me)\n",
		"X-Migration-Via: 1.1 migration-router (me)\n",
		VIA VIA VIA VIA VIA VIA VIA VIA VIA VIA, /* as long as no chain of honest calls is */
	};
	for (size_t i = 0; i < COUNT(loops); i++)
		assert_int_equal(forward(loops[i], &none, &out), FORWARD_E_LOOP);
	CLEANUP(buf_releasep) struct buf many = BUF_INIT(10000);
	buf_puts(&many, "Connection: close");
	for (int i = 0; i < FORWARD_MAX_NAMED; i++)
		buf_printf(&many, ",x-%d", i);
	CLEANUP(buf_releasep) struct buf fits = BUF_INIT(10000);
	buf_append_span(&fits, buf_span(&many));
	buf_puts(&fits, "\n");
	buf_puts(&many, ",one-more\n");
	assert_int_equal(forward(fits.ptr, &none, &out), 0);
	assert_int_equal(forward(many.ptr, &none, &out), FORWARD_E_CONNECTION);
	struct http_field in[1] = {{SPAN_LIT("A"), SPAN_LIT("b")}};
	struct http_field small[3];
	size_t n;
	assert_int_equal(forward_request(in, 1, &none, small, 3, &n), -ENOSPC);
}

static void what_comes_back(void **state)
{
	(void)state;
	static const struct {
		const char *in, *out; /* NULL: FORWARD_E_CONNECTION */
	} cases[] = {
		{"Date: d\nServer: s\nSet-Cookie: a\nSet-Cookie: b\nX-E:\n",
		 "Date: d\nServer: s\nSet-Cookie: a\nSet-Cookie: b\nX-E: \n" VIA},
		{"Connection: close, X-A\nX-A: 1\nKeep-Alive: timeout=5\nTransfer-Encoding: "
		 "chunked\nContent-Length: 3\nB: 1\n",
		 "B: 1\n" VIA},
		{"Connection: Set-Cookie, Content-Type\nSet-Cookie: a\nContent-Type: a/b\n",
		 "Set-Cookie: a\nContent-Type: a/b\n" VIA},
		{"Proxy-Authenticate: Basic\nWWW-Authenticate: Basic\nUpgrade: h2c\nTrailer: X\n",
		 "WWW-Authenticate: Basic\n" VIA},
		{VIA "X-Migration-Override: task\nX-Request-ID:\nExpect: x\n",
		 VIA "X-Migration-Override: task\nX-Request-ID: \nExpect: x\n" VIA},
		{"Connection: a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q\n", NULL},
	};
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct http_field split_fields[ROOM], out_fields[ROOM + FORWARD_EXTRA];
		struct http_field in[ROOM];
		CLEANUP(buf_releasep) struct buf out = BUF_INIT(10000);
		size_t n = split(cases[i].in, split_fields), n_out = 0;
		for (size_t j = 0; j < n; j++)
			in[j] = (struct http_field){split_fields[j].name, split_fields[j].value};
		int r = forward_answer(in, n, true, out_fields, COUNT(out_fields), &n_out);
		assert_int_equal(r, cases[i].out ? 0 : FORWARD_E_CONNECTION);
		for (size_t j = 0; j < n_out; j++)
			join(out_fields[j].name, out_fields[j].value, &out);
		assert_true(!cases[i].out || span_is(buf_span(&out), cases[i].out));
	}
	struct http_field small[2];
	size_t n;
	assert_int_equal(forward_answer(NULL, 0, true, small, 2, &n), -ENOSPC);
}

static void request_ids(void **state)
{
	(void)state;
	struct http_field fields[2] = {{SPAN_LIT("x-request-id"), SPAN_LIT("")},
				       {SPAN_LIT("X-REQUEST-ID"), SPAN_LIT("mine")}};
	char made[CRYPTO_UUID], again[CRYPTO_UUID];
	assert_true(span_is(forward_request_id(fields, 2, made), "mine"));
	struct span id = forward_request_id(fields, 1, made);
	assert_int_equal(id.len, 36);
	assert_int_equal(id.ptr[14], '4');
	assert_ptr_equal(id.ptr, made);
	assert_false(span_eq(id, forward_request_id(NULL, 0, again)));
}

static void via_is_parsed(void **state)
{
	(void)state;
	static const struct {
		const char *via;
		unsigned count;
	} cases[] = {{"", 0},
		     {"1.1 migration-router", 1},
		     {"HTTP/1.1 MIGRATION-ROUTER", 1},
		     {"1.1 migration-router, 1.1 migration-router", 2},
		     {"1.1\tmigration-router (a, b)", 1},
		     {"1.1 a (1.1 migration-router, 1.1 migration-router)", 0},
		     {"1.1 a (x \\) , 1.1 migration-router)", 0},
		     {"1.1 a (( x ) , 1.1 migration-router), 1.0 migration-router", 1},
		     {"1.1 migration-router2", 0},
		     {"1.1 migration-router:80", 0},
		     {"migration-router", 0},
		     {"migration-router 1.1", 0},
		     {",, ,1.1 migration-router,", 1},
		     {"1.1 a (unclosed, 1.1 migration-router", 0},
		     {"1.1 a (\\", 0},
		     {")", 0},
		     {"1.1 (c) migration-router", 1},
		     {"1.1 a migration-router", 0},
		     {"1.1 (me) migration-router", 1},
		     {"1.1 migration-router (me", 1}};
	bool seen = false;
	for (size_t i = 0; i < COUNT(cases); i++)
		if (forward_count_via(span_of(cases[i].via), SPAN_LIT("me"), &seen) != cases[i].count || seen)
			fail_msg("%s", cases[i].via);
	assert_int_equal(forward_count_via(SPAN_NONE, SPAN_LIT("me"), &seen), 0);
	char via[FORWARD_VIA_MAX];
	forward_write_via(true, SPAN_LIT("me"), via);
	assert_string_equal(via, "1.0 migration-router (me)");
	assert_int_equal(forward_count_via(span_of(via), SPAN_LIT("me"), &seen), 1);
	assert_true(seen);
}

/* --- what is said of those before ----------------------------------------------------------------------- */

static const char *const told_of_others[] = {"Forwarded",
					     "Forwarded-For",
					     "X-Forwarded",
					     "X-Forwarded-For",
					     "X-Forwarded-Proto",
					     "X-Forwarded-Protocol",
					     "X-Forwarded-Host",
					     "X-Forwarded-Port",
					     "X-Forwarded-Server",
					     "X-Forwarded-Ssl",
					     "X-Forwarded-Uri",
					     "X-Forwarded-Method",
					     "X-Forwarded-Prefix",
					     "X-Forwarded-User",
					     "X-Forwarded-Email",
					     "X-Forwarded-Groups",
					     "X-Forwarded-Preferred-Username",
					     "X-Forwarded-Access-Token",
					     "X-Forwarded-Client-Cert",
					     "X-Real-IP",
					     "X-Client-IP",
					     "Client-IP",
					     "True-Client-IP",
					     "X-Cluster-Client-IP",
					     "CF-Connecting-IP",
					     "CF-Connecting-IPv6",
					     "Fastly-Client-IP",
					     "Fly-Client-IP",
					     "X-Azure-ClientIP",
					     "X-Envoy-External-Address",
					     "X-Original-Forwarded-For",
					     "X-Original-For",
					     "X-Original-Host",
					     "X-Original-Proto",
					     "X-Original-URL",
					     "X-Original-URI",
					     "X-Rewrite-URL",
					     "X-Scheme",
					     "X-URL-Scheme",
					     "Front-End-Https",
					     "Script-Name",
					     "Path-Info",
					     "Remote-User",
					     "Remote-Groups",
					     "Remote-Email",
					     "Remote-Addr",
					     "X-Remote-User",
					     "X-Remote-Group",
					     "X-Remote-Extra-Scopes",
					     "X-WebAuth-User",
					     "X-Auth-Request-User",
					     "X-SSL-Client-Verify",
					     "Client-Cert",
					     "X-Client-Cert",
					     "X-Amzn-Oidc-Identity",
					     "X-Amzn-Oidc-Data",
					     "X-Goog-Authenticated-User-Email",
					     "X-MS-Client-Principal",
					     "X-MS-Client-Principal-Name",
					     "CF-Access-Authenticated-User-Email",
					     "X-Authentik-Username",
					     "OIDC-Claim-Sub",
					     "X-Vouch-User",
					     "SM-User",
					     "IV-User",
					     "IV-Groups",
					     "Proxy"};
static const char *const told_of_the_caller[] = {"X-User-Id",
						 "X-Organization-Id",
						 "X-Forwarder",
						 "Forward",
						 "Remote",
						 "X-Original-Filename",
						 "X-HTTP-Method-Override",
						 "Client",
						 "X-Client-Version",
						 "X-Client-Id",
						 "Authorization",
						 "Cookie",
						 "Origin",
						 "Referer",
						 "From",
						 "X-Requested-With",
						 "X-Auth-Token",
						 "X-Amzn-Trace-Id",
						 "X-Goog-Api-Key",
						 "X-MS-Version",
						 "X-Proxy"};

/* As sent, in lower case, in upper case with underscores (WSGI makes one name of all). */
static void spell(const char *name, int way, char out[64])
{
	size_t i = 0;
	for (; name[i]; i++) {
		char c = name[i];
		bool letter = (c | 0x20) >= 'a' && (c | 0x20) <= 'z';
		out[i] = c;
		if (way == 1 && letter)
			out[i] = (char)(c | 0x20);
		if (way == 2)
			out[i] = letter ? (char)(c & ~0x20) : c;
		if (way == 2 && c == '-')
			out[i] = '_';
	}
	out[i] = '\0';
}

static bool passes(const char *name, enum forward_forwarded mode, bool trusted)
{
	char text[160];
	CLEANUP(buf_releasep) struct buf out = BUF_INIT(4096), scratch = BUF_INIT(4096);
	struct forward_context c = {.forwarded = mode,
				    .peer = SPAN_LIT("192.0.2.7"),
				    .peer_trusted = trusted,
				    .scratch = &scratch};
	snprintf(text, sizeof(text), "Host: a\n%s: spoofed\n", name);
	assert_int_equal(forward(text, &c, &out), 0);
	return memmem(out.ptr, out.len, "spoofed", 7) != NULL;
}

static void what_is_told_of_others_is_the_proxys_alone(void **state)
{
	(void)state;
	char name[64];
	for (size_t i = 0; i < 3 * COUNT(told_of_others); i++) {
		spell(told_of_others[i / 3], (int)(i % 3), name);
		for (int trusted = 0; trusted < 2; trusted++)
			if (passes(name, FORWARD_REPLACE, trusted) || passes(name, FORWARD_REMOVE, trusted) ||
			    !passes(name, FORWARD_KEEP, trusted))
				fail_msg("%s", name);
		bool chain = strcasecmp(told_of_others[i / 3], "Forwarded") == 0 ||
			     strcasecmp(told_of_others[i / 3], "X-Forwarded-For") == 0;
		if (!passes(name, FORWARD_APPEND, true) || passes(name, FORWARD_APPEND, false) != chain)
			fail_msg("%s, append", name);
	}
}

static void what_callers_say_of_themselves_passes(void **state)
{
	(void)state;
	char name[64];
	for (size_t i = 0; i < 3 * COUNT(told_of_the_caller); i++) {
		spell(told_of_the_caller[i / 3], (int)(i % 3), name);
		for (int mode = FORWARD_KEEP; mode <= FORWARD_REMOVE; mode++)
			if (!passes(name, (enum forward_forwarded)mode, false))
				fail_msg("%s", name);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_goes_upstream),
		cmocka_unit_test(what_is_added),
		cmocka_unit_test(what_is_refused),
		cmocka_unit_test(what_comes_back),
		cmocka_unit_test(request_ids),
		cmocka_unit_test(via_is_parsed),
		cmocka_unit_test(what_is_told_of_others_is_the_proxys_alone),
		cmocka_unit_test(what_callers_say_of_themselves_passes),
	};
	return crypto_setup() < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
