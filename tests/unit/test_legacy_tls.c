/* legacy: https upstreams. The certificate authority is made here by the openssl command; the service is
 * tls_origin.py. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/legacy_client.h"
#include "support/scratch.h"

static char folder[SCRATCH_MAX], ca_file[SCRATCH_MAX], url[64];
static pid_t service;
static int service_input = -1;
static const char *unavailable;

static const char *const make_certificates = "cd '%s' && exec >log 2>&1 && "
					     "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 "
					     "-nodes -keyout ca.key -out ca.pem -days 2 "
					     "-subj '/CN=test authority' && "
					     "openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes "
					     "-keyout key.pem -out req.pem -subj '/CN=localhost' && "
					     "printf 'subjectAltName=DNS:localhost' >ext && "
					     "openssl x509 -req -in req.pem -CA ca.pem -CAkey ca.key "
					     "-CAcreateserial -out cert.pem -days 2 -extfile ext";

static const char *find_tools(void)
{
	if (system("command -v openssl >/dev/null 2>&1") != 0)
		return "there is no openssl command";
	if (system("python3 -c 'import ssl' >/dev/null 2>&1") != 0)
		return "there is no python3 with ssl";
	return NULL;
}

static int start_service(void)
{
	int in[2], out[2];
	char script[512], certificate[SCRATCH_MAX], key[SCRATCH_MAX], port[16] = "";
	const char *root = getenv("SOURCE_ROOT");
	snprintf(script, sizeof(script), "%s/tests/support/tls_origin.py", root ? root : ".");
	scratch_path(folder, "cert.pem", certificate);
	scratch_path(folder, "key.pem", key);
	if (pipe(in) < 0 || pipe(out) < 0 || (service = fork()) < 0)
		return -1;
	if (service == 0) {
		dup2(in[0], 0);
		dup2(out[1], 1);
		close(in[1]);
		close(out[0]);
		execlp("python3", "python3", script, certificate, key, (char *)NULL);
		_exit(127);
	}
	close(in[0]);
	close(out[1]);
	service_input = in[1];
	FILE *f = fdopen(out[0], "r");
	bool ok = f && fgets(port, sizeof(port), f);
	if (f)
		fclose(f);
	snprintf(url, sizeof(url), "https://localhost:%d", atoi(port));
	return ok ? 0 : -1;
}

static int set_up(void **state)
{
	(void)state;
	unavailable = find_tools();
	if (unavailable) {
		printf("skipped: %s\n", unavailable);
		return 0;
	}
	char command[2048];
	scratch_make(folder);
	snprintf(command, sizeof(command), make_certificates, folder);
	scratch_path(folder, "ca.pem", ca_file);
	return system(command) == 0 ? start_service() : -1;
}

static int tear_down(void **state)
{
	(void)state;
	if (unavailable)
		return 0;
	close(service_input); /* it ends by that */
	waitpid(service, NULL, 0);
	scratch_remove(folder);
	return 0;
}

static void open_client(struct client *c, const char *ca, unsigned max_connections)
{
	if (unavailable)
		skip();
	struct legacy_options o = client_options(url);
	o.ca_file = ca;
	o.max_connections = max_connections;
	client_open(c, &o);
}

static void get(struct client *c, struct seen *s, const char *method, const char *path)
{
	struct legacy_request r = simple_request(method, path);
	seen_start(s, c, &r);
	assert_true(seen_run(s));
}

static void keeps_tls_connections(void **state)
{
	(void)state;
	struct client c;
	open_client(&c, ca_file, 1);
	int before = open_descriptors();
	for (int i = 0; i < 10; i++) {
		struct seen s = {0};
		get(&c, &s, "GET", "/ok");
		if (!s.ended)
			fail_msg("%s: %s", legacy_failure_text(s.failure), s.detail);
		assert_string_equal(s.body.ptr, "ok");
		seen_free(&s);
		assert_int_equal(legacy_upstream_connections(c.upstream), 1);
	}
	assert_int_equal(open_descriptors(), before + 1);
	legacy_upstream_close_kept(c.upstream);
	assert_int_equal(open_descriptors(), before);
	client_close(&c);
}

static void trusts_only_the_authority(void **state)
{
	(void)state;
	struct client c;
	open_client(&c, NULL, 1);
	struct seen s = {0};
	get(&c, &s, "GET", "/ok");
	assert_int_equal(s.failures, 1);
	assert_int_equal(s.failure, LEGACY_TLS);
	assert_non_null(strcasestr(s.detail, "certificate"));
	seen_free(&s);
	client_close(&c);
}

static void wants_the_right_name(void **state)
{
	(void)state;
	struct client c;
	char right[64];
	snprintf(right, sizeof(right), "%s", url);
	const char *port = strrchr(right, ':');
	if (port)
		snprintf(url, sizeof(url), "https://127.0.0.1%s", port);
	open_client(&c, ca_file, 1);
	snprintf(url, sizeof(url), "%s", right);
	struct seen s = {0};
	get(&c, &s, "GET", "/ok");
	assert_int_equal(s.failure, LEGACY_TLS);
	assert_int_equal(s.failures, 1);
	seen_free(&s);
	client_close(&c);
}

static void streams_over_tls(void **state)
{
	(void)state;
	static const char zeros[70000];
	struct client c;
	open_client(&c, ca_file, 1);
	struct seen s = {.drop_body = true};
	get(&c, &s, "GET", "/big");
	assert_true(s.ended);
	assert_int_equal(s.received, 64 << 20);
	seen_free(&s);

	struct legacy_request r = simple_request("POST", "/echo");
	r.has_body = r.has_length = true;
	r.content_length = 64 << 20;
	s = (struct seen){
		.piece = zeros, .piece_length = sizeof(zeros), .to_send = 64 << 20, .end_after = true};
	seen_start(&s, &c, &r);
	seen_send(&s);
	assert_true(seen_run(&s));
	assert_true(s.ended);
	assert_string_equal(s.body.ptr, "67108864");
	seen_free(&s);
	assert_int_equal(legacy_upstream_connections(c.upstream), 1);
	client_close(&c);
}

/* Reads nothing for a while: what the TLS layer holds is found afterwards all the same. */
static void a_slow_reader_over_tls(void **state)
{
	(void)state;
	struct client c;
	open_client(&c, ca_file, 1);
	struct legacy_request r = simple_request("GET", "/big");
	struct seen s = {.hold = true, .drop_body = true};
	seen_start(&s, &c, &r);
	assert_true(seen_run_head(&s));
	client_run_ms(&c, 100);
	s.hold = false;
	char piece[999];
	long n;
	while ((n = legacy_call_read(s.call, piece, sizeof(piece))) > 0)
		s.received += (uint64_t)n;
	assert_int_equal(n, 0);
	assert_true(seen_run(&s));
	assert_true(s.ended);
	assert_int_equal(s.received, 64 << 20);
	seen_free(&s);
	client_close(&c);
}

static void an_end_without_close_notify_is_a_cut(void **state)
{
	(void)state;
	struct client c;
	open_client(&c, ca_file, 1);
	struct seen s = {0};
	get(&c, &s, "GET", "/notify");
	if (!s.ended)
		fail_msg("%s: %s", legacy_failure_text(s.failure), s.detail);
	assert_string_equal(s.body.ptr, "to the end");
	seen_free(&s);
	s = (struct seen){0};
	get(&c, &s, "GET", "/cut");
	assert_false(s.ended);
	assert_int_equal(s.failure, LEGACY_TRUNCATED);
	assert_string_equal(s.body.ptr, "to the end");
	seen_free(&s);
	client_close(&c);
}

static void a_kept_connection_that_died(void **state)
{
	(void)state;
	struct client c;
	open_client(&c, ca_file, 1);
	for (int i = 0; i < 4; i++) {
		struct seen s = {0};
		get(&c, &s, i % 2 ? "GET" : "POST", "/once");
		/* The close may be seen before the next request (another connection) or with it (POST fails,
		 * GET is retried). */
		assert_true(s.ended || (i == 2 && s.failure == LEGACY_RESET));
		seen_free(&s);
	}
	client_close(&c);
}

/* Connections being made, in use and idle side by side in one multi handle. */
static void many_tls_connections(void **state)
{
	(void)state;
	struct client c;
	open_client(&c, ca_file, 16);
	for (int round = 0; round < 3; round++) {
		struct seen s[16] = {0};
		struct legacy_request r = simple_request("GET", "/ok");
		for (int i = 0; i < 16; i++)
			seen_start(&s[i], &c, &r);
		for (int i = 0; i < 16; i++) {
			assert_true(seen_run(&s[i]));
			assert_true(s[i].ended);
			seen_free(&s[i]);
		}
		client_run_ms(&c, round == 1 ? 1100 : 1); /* libcurl cleans up once a second */
		if (round == 1)
			legacy_upstream_close_kept(c.upstream);
	}
	client_close(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(keeps_tls_connections),
		cmocka_unit_test(trusts_only_the_authority),
		cmocka_unit_test(wants_the_right_name),
		cmocka_unit_test(streams_over_tls),
		cmocka_unit_test(a_slow_reader_over_tls),
		cmocka_unit_test(an_end_without_close_notify_is_a_cut),
		cmocka_unit_test(a_kept_connection_that_died),
		cmocka_unit_test(many_tls_connections),
	};
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
