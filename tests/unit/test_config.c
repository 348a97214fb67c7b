/* config: what a file means, and every mistake with its place. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "config/config.h"
#include "operation/auth.h"
#include "support/scratch.h"

/* The environment of a case: "NAME=value" texts, NULL at the end. */
static const char *const *environment;

static const char *test_getenv(const char *name)
{
	size_t n = strlen(name);
	for (const char *const *e = environment; e && *e; e++)
		if (strncmp(*e, name, n) == 0 && (*e)[n] == '=')
			return *e + n + 1;
	return NULL;
}

/* A folder for token files and the like. */
static char folder[SCRATCH_MAX];

static int make_folder(void **state)
{
	(void)state;
	scratch_make(folder);
	return 0;
}

static char *in_folder(const char *name, char out[SCRATCH_MAX])
{
	scratch_path(folder, name, out);
	return out;
}

static int remove_folder(void **state)
{
	(void)state;
	scratch_remove(folder);
	return 0;
}

static void write_file(const char *name, const char *content)
{
	char path[SCRATCH_MAX];
	struct err e = {""};
	if (file_replace(in_folder(name, path), span_of(content), 0600, &e) != 0)
		fail_msg("%s", e.text);
}

static int parse(const char *name, const char *text, struct buf *problems, struct config **ret)
{
	*ret = NULL;
	buf_init(problems, 1 << 20);
	int code = config_parse(name, span_of(text), test_getenv, problems, ret);
	if (!problems->ptr)
		buf_puts(problems, "");
	return code;
}

static void config_unrefp(struct config **c)
{
	*c = config_unref(*c);
}

static struct config *parsed(const char *text)
{
	struct config *c;
	CLEANUP(buf_releasep) struct buf problems;
	if (parse("c.yml", text, &problems, &c) != 0)
		fail_msg("%s", problems.ptr);
	return c;
}

/* Puts what is special to a case behind one service that is in order. The case begins on line 2. */
#define ASYNC(organization) \
	"services:\n  s:\n    listen: 127.0.0.1:5002\n    legacy: \"http://h\"\n    operations: {o: " \
	"{match: POST /x, auth: none, " \
	"flags: [f], task: {name: t, respond_async: true}, identity: {organization: " organization "}}}\n" \
	"backends: {embedded: }\n"
#define SERVICE "services: {s: {listen: 127.0.0.1:5002, legacy: \"http://127.0.0.1:15002\"}}\n"
/* The same for what belongs to one operation, whose members begin on line 6. */
#define OPERATION \
	"backends: {embedded: {}}\n" \
	"services:\n" \
	"  s: {listen: 127.0.0.1:5002, legacy: \"http://127.0.0.1:15002\",\n" \
	"    operations: {\n" \
	"      op: {match: POST /x, auth: none,\n"

static void defaults(void **state)
{
	(void)state;
	environment = NULL;
	CLEANUP(config_unrefp) struct config *c = parsed(SERVICE);
	assert_string_equal(c->path, "c.yml");
	assert_string_equal(c->data_dir, "data");
	assert_int_equal(c->n_services, 1);
	const struct service *s = config_service(c, SPAN_LIT("s"));
	assert_non_null(s);
	assert_string_equal(s->listen, "127.0.0.1:5002");
	assert_string_equal(s->legacy_url, "http://127.0.0.1:15002");
	assert_int_equal(s->max_in_flight, 20000);
	assert_int_equal(s->max_body, 0);
	assert_int_equal(s->legacy_keep_ms, 1500);
	assert_int_equal(s->response_timeout_ms, 3600000);
	assert_true(s->half_close_is_gone);
	assert_int_equal(s->n_operations, 0);
	assert_int_equal(c->max_head, 16384);
	assert_int_equal(c->max_inspect_body, 16 << 20);
	assert_int_equal(c->drain_timeout_ms, 30000);
	assert_int_equal(c->flags.kind, FLAG_SOURCE_FILE);
	assert_string_equal(c->flags.file, "flags.yml");
	assert_string_equal(c->flags.snapshot_file, "data/flags.snapshot.json");
	assert_string_equal(c->outcomes.path, "data/outcomes.db");
	assert_int_equal(c->outcomes.flush_ms, 50);
	assert_string_equal(c->admin.listen, "127.0.0.1:9900");
	assert_int_equal(c->admin.auth.kind, AUTH_NONE);
	assert_false(c->override.enabled);
	assert_true(span_is(c->hatchet_flag, "hatchet_backend_enabled"));
	assert_null(c->default_backend.ptr);
	assert_int_equal(c->n_env_defaults, 0);
	struct sockaddr_storage peer = {.ss_family = AF_UNIX};
	assert_true(config_trusts_peer(c, (struct sockaddr *)&peer, sizeof(sa_family_t)));
	peer.ss_family = AF_INET; /* 0.0.0.0 */
	assert_false(config_trusts_peer(c, (struct sockaddr *)&peer, sizeof(peer)));
}

static const char everything[] =
	"data: /var/lib/router\n"
	"threads: 3\n"
	"drain_timeout: 2m\n"
	"hatchet_flag: ~\n"
	"trusted_proxies: [10.0.0.0/8]\n"
	"limits: {max_head: 8KiB, max_inspect_body: 1MB, max_inspect_memory: 64 MiB}\n"
	"override: {enabled: true, secret_sha256: "
	"9F86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08}\n"
	"outcomes: {path: o.db, flush: 1s, retention_days: 7, max_size: 1GiB, hash_users: true}\n"
	"admin: {listen: \"[::1]:9000\"}\n"
	"flags: {source: flipt, url: \"https://flipt.example:8443\", namespace: n, poll: 1m, timeout: 2s, "
	"stream_idle: 5m, "
	"stream: false}\n"
	"backend: celery\n"
	"backends:\n"
	"  embedded: {database: tasks.db, Tasks: [a, b], fail_fast: true}\n"
	"  celery: {broker_url: \"redis://x/0\"}\n"
	"identity: {user: header:X-User-Id, organization: [header:X-Organization-Id]}\n"
	"error: {status: 500, body: {top: true}}\n"
	"services:\n"
	"  p:\n"
	"    listen: 127.0.0.1:0\n"
	"    legacy: {url: \"http://legacy/prefix\", max_connections: 7, keep: 4s, response_timeout: 90}\n"
	"    limits: {max_in_flight: 5, max_body: 100MiB}\n"
	"    client: {head_timeout: 3s, half_close_is_gone: false}\n"
	"    identity: {organization: [\"body:/organization_id\", query:org]}\n"
	"    entity: organization\n"
	"    operations:\n"
	"      run:\n"
	"        match: POST  /run/{id}\n"
	"        flags: [one, two]\n"
	"        identity: {user: path:id}\n"
	"        entity: [user, organization]\n"
	"        context: {api_version: v2}\n"
	"        variants: {canary: task, mirror: shadow, off: legacy, slow: embedded}\n"
	"        task: {name: t, queue: q, backend: embedded, args: [{$ref: \"body:\"}], kwargs: {k: 1}, "
	"timeout: 5s,\n"
	"               task_timeout: 1m, expires: 10s, priority: 9, single_input: true, idempotent: true,\n"
	"               respond_async: true, response: {body: {$ref: \"result:\"}}}\n"
	"        auth: none\n"
	"        pin: {group: g, key: \"path:id\", role: start}\n"
	"        idempotency: {key: require, keep: 2h, max_answer: 1KiB, max_keys: 5, legacy: forget}\n"
	"        legacy: {timeout: 1s}\n"
	"      plain: {match: GET /plain}\n";

static void check_operation(const struct operation *op)
{
	assert_true(span_is(op->service, "p") && span_is(op->method, "POST") &&
		    span_is(op->path, "/run/{id}"));
	assert_int_equal(op->n_flags, 2);
	assert_true(span_is(op->flags[1], "two"));
	assert_int_equal(op->identity.n_user, 1);
	assert_int_equal(op->identity.user[0].kind, IDENTITY_PATH);
	assert_int_equal(op->identity.n_organization, 2);
	assert_int_equal(op->identity.organization[1].kind, IDENTITY_QUERY);
	assert_true(op->identity.needs_body);
	assert_int_equal(op->identity.n_entity, 2);
	assert_int_equal(op->identity.entity[0], IDENTITY_USER);
	assert_int_equal(op->n_context, 1);
	assert_true(span_is(op->context[0].key, "api_version") && span_is(op->context[0].value, "v2"));
	assert_int_equal(op->n_variants, 4);
	assert_true(op->variants[0].task && !op->variants[0].backend.ptr);
	assert_true(op->variants[1].shadow && !op->variants[1].task);
	assert_true(!op->variants[2].shadow && !op->variants[2].task);
	assert_true(op->variants[3].task && span_is(op->variants[3].backend, "embedded"));
	assert_true(op->pin_start && !op->pin_end && span_is(op->pin_group, "g") &&
		    span_is(op->pin_key, "path:id"));
	assert_int_equal(op->legacy_timeout_ms, 1000);
	assert_int_equal(op->idempotency.use, IDEMPOTENCY_REQUIRE);
	assert_int_equal(op->idempotency.keep_ms, 7200000);
	assert_int_equal(op->idempotency.max_answer, 1024);
	assert_int_equal(op->idempotency.max_keys, 5);
	assert_true(op->idempotency.legacy_forgets);
	assert_int_equal(op->auth.kind, AUTH_NONE);
	assert_non_null(op->error);
}

static void check_task(const struct task_mapping *t)
{
	assert_true(span_is(t->task, "t") && span_is(t->queue, "q") && span_is(t->backend, "embedded"));
	assert_true(!t->workflow && t->single_input && t->idempotent && t->respond_async && t->needs_body);
	assert_non_null(t->args);
	assert_non_null(t->kwargs);
	assert_non_null(t->response);
	assert_int_equal(t->timeout_ms, 5000);
	assert_int_equal(t->task_timeout_ms, 60000);
	assert_int_equal(t->expires_ms, 10000);
	assert_int_equal(t->priority, 9);
}

static void everything_is_read(void **state)
{
	(void)state;
	environment = NULL;
	CLEANUP(config_unrefp) struct config *c = parsed(everything);
	assert_string_equal(c->data_dir, "/var/lib/router");
	assert_int_equal(c->threads, 3);
	assert_int_equal(c->drain_timeout_ms, 120000);
	assert_null(c->hatchet_flag.ptr);
	assert_int_equal(c->trusted_proxies.n_cidr, 1);
	assert_int_equal(c->max_head, 8192);
	assert_int_equal(c->max_inspect_body, 1000000);
	assert_int_equal(c->max_inspect_memory, 64 << 20);
	assert_true(c->override.enabled);
	assert_string_equal(c->override.secret_sha256,
			    "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08");
	assert_string_equal(c->outcomes.path, "o.db");
	assert_int_equal(c->outcomes.flush_ms, 1000);
	assert_int_equal(c->outcomes.max_bytes, 1 << 30);
	assert_true(c->outcomes.hash_users);
	assert_string_equal(c->admin.listen, "[::1]:9000");
	assert_int_equal(c->flags.kind, FLAG_SOURCE_FLIPT);
	assert_string_equal(c->flags.url, "https://flipt.example:8443");
	assert_int_equal(c->flags.poll_ms, 60000);
	assert_int_equal(c->flags.timeout_ms, 2000);
	assert_int_equal(c->flags.stream_idle_ms, 300000);
	assert_false(c->flags.stream);
	assert_string_equal(c->flags.snapshot_file, "/var/lib/router/flags.snapshot.json");
	assert_true(span_is(c->default_backend, "celery"));
	const struct backend_config *b = config_backend(c, SPAN_LIT("embedded"));
	assert_non_null(b);
	assert_true(span_is(backend_setting(b, "database"), "tasks.db"));
	assert_true(span_is(backend_setting(b, "tasks"), "a\nb"));
	assert_true(b->fail_fast);
	assert_null(backend_setting(b, "x").ptr);
	assert_null(config_backend(c, SPAN_LIT("hatchet")));
	const struct service *s = config_service(c, SPAN_LIT("p"));
	assert_int_equal(s->legacy_max_connections, 7);
	assert_int_equal(s->response_timeout_ms, 90000);
	assert_int_equal(s->max_in_flight, 5);
	assert_int_equal(s->max_body, 100 << 20);
	assert_int_equal(s->head_timeout_ms, 3000);
	assert_false(s->half_close_is_gone);
	check_operation(service_operation(s, SPAN_LIT("run")));
	check_task(&service_operation(s, SPAN_LIT("run"))->task);
	const struct operation *plain = service_operation(s, SPAN_LIT("plain"));
	assert_false(plain->has_task);
	assert_int_equal(plain->identity.n_user, 1);
	assert_int_equal(plain->identity.user[0].kind, IDENTITY_HEADER);
	assert_int_equal(plain->identity.n_entity, 1);
	assert_int_equal(plain->identity.entity[0], IDENTITY_ORGANIZATION);
	assert_null(service_operation(s, SPAN_LIT("absent")));
}

static void paths_are_relative_to_the_file(void **state)
{
	(void)state;
	environment = NULL;
	struct config *c;
	CLEANUP(buf_releasep) struct buf problems;
	assert_int_equal(parse("conf/d/c.yml",
			       SERVICE "outcomes: {path: /abs/o.db}\nflags: {file: ../f.yml}\n"
				       "backends: {embedded: {database: t.db, tasks: x/t.yml}, temporal: "
				       "{ca_file: a, host: b}}\n",
			       &problems, &c),
			 0);
	assert_string_equal(problems.ptr, "warning: conf/d/c.yml:3: flags.file: conf/d/../f.yml cannot be "
					  "read right now; until it can, flags have their defaults\n");
	assert_string_equal(c->outcomes.path, "/abs/o.db");
	assert_string_equal(c->flags.file, "conf/d/../f.yml");
	assert_string_equal(c->data_dir, "conf/d/data");
	const struct backend_config *b = config_backend(c, SPAN_LIT("embedded"));
	assert_true(span_is(backend_setting(b, "database"), "conf/d/t.db"));
	assert_true(span_is(backend_setting(b, "tasks"), "conf/d/x/t.yml"));
	b = config_backend(c, SPAN_LIT("temporal"));
	assert_true(span_is(backend_setting(b, "ca_file"), "conf/d/a"));
	assert_true(span_is(backend_setting(b, "host"), "b"));
	assert_true(span_is(c->default_backend, "embedded"));
	struct config *again = config_ref(c);
	config_unref(c);
	assert_string_equal(again->outcomes.path, "/abs/o.db");
	config_unref(again);
}

/* Every case leaves out the warning about flags.yml, which is not there. */
static const struct {
	const char *text, *problems;
} mistakes[] = {
	{"", "c.yml:1: services: missing: at least one service\n"},
	{"services: {}\n", "c.yml:1: services: missing: at least one service\n"},
	{"services: 5\n", "c.yml:1: services: expected a mapping, not \"5\"\n"},
	{"- a\n", "c.yml:1: expected a mapping, not a list\n"},
	{"a: 1\na: 2\n", "c.yml:2:1: the key \"a\" was already given on line 1\n"},
	{"a: [\n", "c.yml:2:1: did not find expected node content (while parsing a flow node)\n"},
	/* unknown keys */
	{SERVICE "servces: {}\n", "c.yml:2: servces: unknown key; did you mean \"services\"?\n"},
	{SERVICE "x-mine: {any: thing}\n", ""},
	{SERVICE "override: {secret: x}\n",
	 "c.yml:2: override.secret: unknown key; known here: enabled, secret_sha256\n"},
	{SERVICE "limits:\n  max_heads:\n",
	 "c.yml:3: limits.max_heads: unknown key; did you mean \"max_head\"?\n"},
	/* traces: nothing is taken for less than it says, and no secret is shown */
	{SERVICE "traces: {sample: 1}\n", "c.yml:2: traces.endpoint: missing: the URL to POST spans to, such "
					  "as http://127.0.0.1:4318/v1/traces\n"},
	{SERVICE "traces: {endpoint: \"http://c/v1/traces\", sample: 10%}\n",
	 "c.yml:2: traces.sample: expected a share from 0 to 1, not \"10%\"\n"},
	{SERVICE "traces: {endpoint: \"http://c/v1/traces\", queue: 1}\n",
	 "c.yml:2: traces.queue: expected a whole number from 16 to 65536, not \"1\"\n"},
	{SERVICE "traces: {endpoint: \"http://c/v1/traces\", authorization_file: /dev/null}\n",
	 "c.yml:2: traces.authorization_file: /dev/null: not a regular file\n"},
/* shared state: no password is shown, and nothing is passed over */
#ifndef REDIS_HAS_TLS
	{SERVICE "state: rediss://:hunter2@cache/0\n",
	 "c.yml:2: state: rediss:// (TLS) is not supported by this build's hiredis, which has no TLS (Debian "
	 "13's has); it needs a TLS proxy in front of Redis (stunnel, HAProxy): name that proxy's plain "
	 "address as redis://\n"},
#endif
	{SERVICE "state: sentinel://:hunter2@cache;sentinel://other/1?master_name=m\n",
	 "c.yml:2: state: user, password and database belong into the URL of the first Sentinel; another one "
	 "says something else\n"},
	{SERVICE "state: {url: sentinel://:hunter2@cache}\n",
	 "c.yml:2: state.url: sentinel:// needs the master's name: ?master_name= in the URL (for Celery "
	 "also the setting master_name)\n"},
	{SERVICE "state: {prefix: \"x:\"}\n",
	 "c.yml:2: state: url is missing: replicas would share nothing (or set MIGRATION_STATE_URL)\n"},
	{SERVICE "state: {urls: redis://cache/0}\n",
	 "c.yml:2: state.urls: unknown key; did you mean \"url\"?\n"
	 "c.yml:2: state: url is missing: replicas would share nothing (or set MIGRATION_STATE_URL)\n"},
	{SERVICE "state: {url: redis://cache/0, prefix: \"a b\"}\n",
	 "c.yml:2: state.prefix: expected up to 128 printable ASCII characters without blanks and braces\n"},
	{SERVICE "flags: {token: hunter2}\n", "c.yml:2: flags.token: unknown key; known here: source, rules, "
					      "auth, token_file, file, url, namespace, environment, ca_file, "
					      "snapshot, poll, timeout, stream_idle, stream\n"},
	/* kinds of values */
	{SERVICE "threads: many\n", "c.yml:2: threads: expected a whole number from 0 to 64, not \"many\"\n"},
	{SERVICE "threads: 65\n", "c.yml:2: threads: expected a whole number from 0 to 64, not \"65\"\n"},
	{SERVICE "threads: -1\n", "c.yml:2: threads: expected a whole number from 0 to 64, not \"-1\"\n"},
	{SERVICE "threads: [1]\n", "c.yml:2: threads: expected a whole number from 0 to 64, not a list\n"},
	{SERVICE "threads: \"1\"\n", "c.yml:2: threads: expected a whole number from 0 to 64, not \"1\"\n"},
	{SERVICE "limits: {max_head: 100GiB}\n", "c.yml:2: limits.max_head: expected a size from 1KiB to "
						 "1MiB (bytes, or with KiB, MiB, GiB), not \"100GiB\"\n"},
	{SERVICE "limits: {max_head: 2KB}\n", "c.yml:2: limits.max_head: expected a size from 1KiB to 1MiB "
					      "(bytes, or with KiB, MiB, GiB), not \"2KB\"\n"},
	{SERVICE "limits: {max_head: 99999999999999999999}\n",
	 "c.yml:2: limits.max_head: expected a size from 1KiB to 1MiB (bytes, or with KiB, MiB, GiB), not "
	 "\"99999999999999999999\"\n"},
	{SERVICE "limits: {max_inspect_memory: 1MiB}\n",
	 "c.yml:2: limits: max_inspect_memory covers all requests together and cannot be below "
	 "max_inspect_body\n"},
	{SERVICE "drain_timeout: 5 minutes\n", "c.yml:2: drain_timeout: expected a duration from 0s to 1h "
					       "(500ms, 5s, 2m, 1h, 7d), not \"5 minutes\"\n"},
	{SERVICE "outcomes: {hash_users: yes}\n",
	 "c.yml:2: outcomes.hash_users: expected true or false, not \"yes\"\n"},
	{SERVICE "outcomes: {path: {a: b}}\n", "c.yml:2: outcomes.path: expected a string, not a mapping\n"},
	{SERVICE "outcomes: {path: \"\"}\n", "c.yml:2: outcomes.path: expected a string, not \"\"\n"},
	/* services */
	{"services: {s: }\n",
	 "c.yml:1: services.s.listen: missing: the address that callers use, such as 127.0.0.1:5002\n"
	 "c.yml:1: services.s.legacy: missing: the legacy service's URL, such as http://127.0.0.1:15002\n"},
	{"services: {\"a b\": {listen: 127.0.0.1:1, legacy: \"http://h\"}}\n",
	 "c.yml:1: services.a b: a name consists of letters, digits, \"_\", \"-\" and \".\"\n"},
	{"services:\n  s: {listen: localhost:1, legacy: \"http://h\"}\n",
	 "c.yml:2: services.s.listen: expected address:port, such as 127.0.0.1:5002, [::1]:5002 or *:5002, "
	 "not \"localhost:1\"\n"},
	{"services:\n  s: {listen: 127.0.0.1, legacy: \"http://h\"}\n",
	 "c.yml:2: services.s.listen: expected address:port, such as 127.0.0.1:5002, [::1]:5002 or *:5002, "
	 "not \"127.0.0.1\"\n"},
	{"services:\n  s: {listen: 127.0.0.1:65536, legacy: \"http://h\"}\n",
	 "c.yml:2: services.s.listen: expected address:port, such as 127.0.0.1:5002, [::1]:5002 or *:5002, "
	 "not \"127.0.0.1:65536\"\n"},
	{"services:\n  s: {listen: 127.0.0.1:1, legacy: ftp://h}\n",
	 "c.yml:2: services.s.legacy: expected a URL that begins with http:// or https://\n"},
	{"services:\n  s: {listen: 127.0.0.1:1, legacy: \"http://user:hunter2@h\"}\n",
	 "c.yml:2: services.s.legacy: user names and passwords are not allowed in this URL\n"},
	{"services:\n  s: {listen: 127.0.0.1:1, legacy: \"http://h:0\"}\n",
	 "c.yml:2: services.s.legacy: the port must be a number from 1 to 65535\n"},
	{"services:\n  s: {listen: 127.0.0.1:1, legacy: \"http://:80/x\"}\n",
	 "c.yml:2: services.s.legacy: the URL's host is missing or not a host name\n"},
	{"services:\n  s: {listen: 127.0.0.1:1, legacy: \"http://h/?a\"}\n",
	 "c.yml:2: services.s.legacy: a base URL must not contain \"?\" or \"#\"\n"},
	{"services:\n  s: {listen: 127.0.0.1:1, legacy: {keep: 1s}}\n",
	 "c.yml:2: services.s.legacy: missing: the legacy service's URL\n"},
	{"services:\n  s: {listen: 127.0.0.1:1, legacy: {url: \"https://h\", ca_file: nowhere.pem}}\n",
	 "c.yml:2: services.s.legacy.ca_file: nowhere.pem: No such file or directory\n"},
	{"services:\n  a: {listen: 127.0.0.1:1, legacy: \"http://h\"}\n  b: {listen: \"*:1\", legacy: "
	 "\"http://h\"}\n",
	 "c.yml:3: services.b.listen: *:1 is the address of the service \"a\" already\n"},
	{"services:\n  a: {listen: 127.0.0.1:0, legacy: \"http://h\"}\n  b: {listen: 127.0.0.1:0, legacy: "
	 "\"http://h\"}\n",
	 ""},
	{"services:\n  a: {listen: 127.0.0.1:9900, legacy: \"http://h\"}\n",
	 "c.yml:2: services.a.listen: 127.0.0.1:9900 is the address of the admin listener already\n"},
	{"services:\n  a: {listen: \"*:1\", legacy: \"http://localhost:1/x\"}\n",
	 "c.yml:2: services.a.legacy: points to the listener of the service \"a\": requests would loop back "
	 "here\n"},
	{"services:\n  a: {listen: \"*:1\", legacy: \"http://10.0.0.1:1\"}\n", ""},
	{"services:\n  a: {listen: 10.0.0.1:80, legacy: \"http://10.0.0.1\"}\n",
	 "c.yml:2: services.a.legacy: points to the listener of the service \"a\": requests would loop back "
	 "here\n"},
	/* process */
	{SERVICE "trusted_proxies: [10.0.0.0/8, proxy]\n",
	 "c.yml:2: trusted_proxies[1]: \"proxy\" is not an IP address\n"},
	{SERVICE "admin: {listen: \"*:9900\"}\n", "c.yml:2: admin.listen: reachable from other hosts: set "
						  "\"auth: bearer\" or \"auth: none\" beside it\n"},
	{SERVICE "admin: {writers: nowhere.txt}\n",
	 "c.yml:2: admin.writers: nowhere.txt: No such file or directory\n"},
	{SERVICE "admin: {session: 1s}\n",
	 "c.yml:2: admin.session: expected a duration from 1m to 7d (500ms, 5s, 2m, 1h, 7d), not \"1s\"\n"},
	{SERVICE "admin: {https: perhaps}\n",
	 "c.yml:2: admin.https: expected true or false, not \"perhaps\"\n"},
	{SERVICE "guard: {write: true}\n",
	 "c.yml:2: guard.write: needs on_breach: hold or rollback: what is only watched sets nothing back\n"},
	{SERVICE "admin: {auth: bearer}\n", "c.yml:2: admin.auth: bearer needs \"tokens\": a file of SHA-256 "
					    "hashes, here or on a level above\n"},
	{SERVICE "override: {enabled: true}\n",
	 "c.yml:2: override.secret_sha256: missing: an override needs a secret; give its SHA-256 in hex\n"},
	{SERVICE "override: {secret_sha256: hunter2}\n",
	 "c.yml:2: override.secret_sha256: expected the SHA-256 of the secret in 64 hex digits\n"},
	{SERVICE "flags: {source: etcd}\n", "c.yml:2: flags.source: expected file or flipt, not \"etcd\"\n"},
	{SERVICE "flags: {source: flipt}\n", "c.yml:2: flags.url: missing: the source flipt needs the "
					     "server's URL, here or in FLIPT_SERVER_URL\n"},
	/* backends */
	{SERVICE "backends: {ingest: {}}\n", "c.yml:2: backends.ingest: there is no backend \"ingest\"; "
					     "available: embedded, celery, temporal, hatchet, router\n"},
	{SERVICE "backend: celery\n",
	 "c.yml:2: backend: no backend \"celery\" is declared under backends (declared: none)\n"},
	{SERVICE "backends: {celery: {broker_url: {url: x}}}\n",
	 "c.yml:2: backends.celery.broker_url: expected a single value or a list\n"},
	{SERVICE "backends: {celery: {\n broker_uri: x}, hatchet: {\n colour: red, rhyme: }}\n",
	 "c.yml:3: backends.celery.broker_uri: unknown key; did you mean \"broker_url\"?\n"
	 "c.yml:4: backends.hatchet.colour: unknown key; known here: token, token_file, server_url, ca_file, "
	 "grpc_address, grpc_tls, grpc_ca_file, fail_fast, when_not_ready, breaker, max_in_flight\n"
	 "c.yml:4: backends.hatchet.rhyme: unknown key; known here: token, token_file, server_url, ca_file, "
	 "grpc_address, grpc_tls, grpc_ca_file, fail_fast, when_not_ready, breaker, max_in_flight\n"},
	{SERVICE "backend: celerry\n",
	 "c.yml:2: backend: there is no backend \"celerry\"; did you mean \"celery\"?\n"},
	{SERVICE "access_log: error\n",
	 "c.yml:2: access_log: expected off, errors or all, not \"error\"; did you mean \"errors\"?\n"},
	{SERVICE "backend: ingest\nbackends: {embedded: {}}\n",
	 "c.yml:2: backend: there is no backend \"ingest\"; available: embedded, celery, temporal, "
	 "hatchet, router\n"},
	/* a Location that nobody could use */
	{ASYNC("[\"body:/org\"]"), "c.yml:5: services.s.operations.o.task.respond_async: nobody could poll "
				   "the task: the organization comes only from the body or the path, which a "
				   "GET of the Location does not have; add header:, query: or "
				   "cookie: to identity.organization\n"},
	{ASYNC("[\"body:/org\", \"header:X-Org\"]"), ""},
	{ASYNC("[\"query:org\"]"), ""},
	/* identity */
	{SERVICE "identity: {user: [header]}\n", "c.yml:2: identity.user[0]: expected header:NAME, "
						 "query:NAME, body:/POINTER, path:NAME or cookie:NAME\n"},
	{SERVICE "identity: {user: \"header:a b\"}\n",
	 "c.yml:2: identity.user: this is not the name of a header field\n"},
	{SERVICE "identity: {user: header:Authorization}\n",
	 "c.yml:2: identity.user: this field carries credentials, which would be recorded as an identity\n"},
	{SERVICE "identity: {user: body:organization_id}\n",
	 "c.yml:2: identity.user: a JSON pointer begins with \"/\" (RFC 6901): body:/organization_id\n"},
	{SERVICE "identity: {user: \"body:/a~2\"}\n",
	 "c.yml:2: identity.user: a JSON pointer begins with \"/\" (RFC 6901): body:/organization_id\n"},
	{SERVICE "identity: {organisation: query:o}\n",
	 "c.yml:2: identity.organisation: unknown key; did you mean \"organization\"?\n"},
	{SERVICE "identity: {user: [query:1, query:2, query:3, query:4, query:5, query:6, query:7, query:8, "
		 "query:9]}\n",
	 "c.yml:2: identity.user: at most 8, not 9\n"},
	{SERVICE "entity: [user, user]\n", "c.yml:2: entity[1]: \"user\" is listed twice\n"},
	{SERVICE "entity: team\n", "c.yml:2: entity: expected user or organization, not \"team\"\n"},
	/* operations */
	{OPERATION "match2: x}}}\n",
	 "c.yml:6: services.s.operations.op.match2: unknown key; did you mean \"match\"?\n"
	 "warning: c.yml:5: services.s.operations.op.auth: has no effect: without a task everything goes to "
	 "legacy, which authenticates its own callers\n"},
	{OPERATION "flags: [a, a]}}}\n",
	 "c.yml:6: services.s.operations.op.flags[1]: the flag \"a\" is listed twice\n"
	 "warning: c.yml:5: services.s.operations.op.auth: has no effect: without a task everything goes to "
	 "legacy, which authenticates its own callers\n"
	 "warning: c.yml:6: services.s.operations.op.flags: have no effect: the operation has no task and "
	 "always goes to "
	 "legacy\n"},
	{OPERATION "task: {name: t}, flags: f, identity: {user: query:u}, shadow: task, shadow_share: 2}}}\n",
	 "c.yml:6: services.s.operations.op.shadow: expected legacy, not \"task\"\n"
	 "c.yml:6: services.s.operations.op.shadow_share: expected a number from 0 to 1\n"
	 "c.yml:6: services.s.operations.op.shadow: needs safe_to_shadow: true: legacy runs what the task "
	 "has already run\n"},
	{OPERATION
	 "task: {name: t}, flags: f, identity: {user: query:u}, safe_to_shadow: true, "
	 "compare: {ignore: [a], fields: [\"a b\"], noise_sample: 0.5, rules: [{path: status, map: true}, "
	 "{path: \"body:/a\"}, {unordered: 5}]}}}}\n",
	 "c.yml:6: services.s.operations.op.compare.fields[0]: not a field name\n"
	 "c.yml:6: services.s.operations.op.compare.ignore[0]: must be status, header:NAME or "
	 "body:/POINTER\n"
	 "c.yml:6: services.s.operations.op.compare.rules[0].path: rules apply to places in the body; "
	 "status and fields can only be ignored\n"
	 "c.yml:6: services.s.operations.op.compare.rules[1]: has no effect: add map, unordered, fold, "
	 "tolerance, relative or similarity\n"
	 "c.yml:6: services.s.operations.op.compare.rules[2].unordered: expected true, or a JSON pointer to "
	 "an element's key, such as /id\n"
	 "c.yml:6: services.s.operations.op.compare.rules[2].path: missing: where the rule applies, such as "
	 "body:/items/*/price\n"
	 "c.yml:6: services.s.operations.op.compare.rules[2]: has no effect: add map, unordered, fold, "
	 "tolerance, relative or similarity\n"
	 "c.yml:6: services.s.operations.op.compare.noise_sample: needs repeatable: true, since legacy is "
	 "called twice\n"},
	{OPERATION "task: {name: t, fire_and_forget: true}, flags: f, identity: {user: query:u}, compare: "
		   "{}}}}\n",
	 "c.yml:6: services.s.operations.op.compare: needs safe_to_shadow: true: only then do both sides run "
	 "a request\n"
	 "c.yml:6: services.s.operations.op.compare: cannot be combined with fire_and_forget: the task "
	 "gives no answer\n"},
	{SERVICE "compare: {max_answer: 1MiB, max_memory: 1MiB, keep_samples: 60d}\n",
	 "c.yml:2: compare.keep_samples: expected a duration from 1s to 45d (500ms, 5s, 2m, 1h, 7d), not "
	 "\"60d\"\n"
	 "c.yml:2: compare: max_memory covers all answers together and cannot be below twice "
	 "max_answer\n"},
	{OPERATION "task: {name: t}, flags: [f], idempotency: {key: maybe, keep: 1m}}}}\n",
	 "c.yml:6: services.s.operations.op.idempotency.key: expected ignore, accept or require, not "
	 "\"maybe\"\n"
	 "warning: c.yml:5: services.s.operations.op: no identity source is configured: requests that a "
	 "percentage decides go to legacy\n"},
	{OPERATION "task: {name: t}, flags: [f], idempotency: {key: accept, keep: 1m}}}}\n",
	 "c.yml:6: services.s.operations.op.idempotency.keep: keep is shorter than the task's time limit "
	 "(300 s)\n"
	 "warning: c.yml:5: services.s.operations.op: no identity source is configured: requests that a "
	 "percentage decides go to legacy\n"},
	{OPERATION "task: {name: t}, flags: [1, 2, 3, 4, 5, 6, 7, 8, 9]}}}\n",
	 "c.yml:6: services.s.operations.op.flags: at most 8, not 9\n"
	 "warning: c.yml:6: services.s.operations.op.task: the operation names no flags and always goes to "
	 "legacy\n"},
	{OPERATION "task: {}}}}\n",
	 "c.yml:6: services.s.operations.op.task: missing: name (of a task) or workflow\n"
	 "warning: c.yml:6: services.s.operations.op.task: the operation names no flags and always goes to "
	 "legacy\n"},
	{OPERATION "task: {name: a, workflow: b}, flags: f}}}\n",
	 "c.yml:6: services.s.operations.op.task.workflow: name and workflow are mutually exclusive\n"
	 "warning: c.yml:5: services.s.operations.op: no identity source is configured: requests that a "
	 "percentage decides go to legacy\n"},
	{OPERATION "task: {name: a, backend: celery}, flags: f, identity: {user: query:u}}}}\n",
	 "c.yml:6: services.s.operations.op.task.backend: no backend \"celery\" is declared under backends "
	 "(declared: embedded)\n"},
	{OPERATION "task: {name: a, backend: ingest}, flags: f, identity: {user: query:u}}}}\n",
	 "c.yml:6: services.s.operations.op.task.backend: there is no backend \"ingest\"; available: "
	 "embedded, celery, temporal, "
	 "hatchet, router\n"},
	{OPERATION
	 "task: {name: a, single_input: true, args: [1, 2]}, flags: f, identity: {user: query:u}}}}\n",
	 "c.yml:6: services.s.operations.op.task.single_input: needs exactly one argument in args, which "
	 "becomes the input\n"},
	{OPERATION
	 "task: {name: a, args: 5, kwargs: [1], priority: 10}, flags: f, identity: {user: query:u}}}}\n",
	 "c.yml:6: services.s.operations.op.task.priority: expected a whole number from 0 to 9, not \"10\"\n"
	 "c.yml:6: services.s.operations.op.task.args: expected a list of arguments\n"
	 "c.yml:6: services.s.operations.op.task.kwargs: expected a mapping of arguments by name\n"},
	{OPERATION "task: {name: a}, flags: f, identity: {user: path:id}}}}\n",
	 "c.yml:6: services.s.operations.op.identity: the operation's path has no parameter {id}\n"},
	{OPERATION "task: {name: a}, flags: f, identity: {user: query:u}, context: {user_id: x}}}}\n",
	 "c.yml:6: services.s.operations.op.context.user_id: the router sets this entry itself\n"},
	{OPERATION
	 "task: {name: a}, flags: f, identity: {user: query:u}, variants: {a: hatchet, b: legacy}}}}\n",
	 "c.yml:6: services.s.operations.op.variants.a: no backend \"hatchet\" is declared under backends "
	 "(declared: embedded)\n"},
	{OPERATION
	 "task: {name: a}, flags: f, identity: {user: query:u}, variants: {a: celry, b: legacy}}}}\n",
	 "c.yml:6: services.s.operations.op.variants.a: expected legacy, task, shadow or the name of a "
	 "declared backend\n"},
	{OPERATION "task: {name: a}, flags: f, identity: {user: query:u}, unified: true}}}\n",
	 "c.yml:6: services.s.operations.op.unified: needs a task with a response\n"
	 "c.yml:6: services.s.operations.op.unified: needs legacy.path and legacy.response: what the legacy "
	 "side calls and how "
	 "it answers\n"},
	{OPERATION "task: {name: a}, flags: f, identity: {user: query:u}, pin: {group: g, key: header:x, "
		   "role: follow}}}}\n",
	 "c.yml:6: services.s.operations.op.pin.key: a key is in the body, the query or the path\n"
	 "c.yml:6: services.s.operations.op.pin: no operation of this service has the role start in the "
	 "group \"g\"\n"},
	{OPERATION "task: {name: a}, flags: f, identity: {user: query:u}, pin: {}}}}\n",
	 "c.yml:6: services.s.operations.op.pin.role: missing: start, follow or end\n"
	 "c.yml:6: services.s.operations.op.pin.key: missing: where the key is, such as body:/container_name "
	 "or "
	 "query:container_name\n"
	 "c.yml:6: services.s.operations.op.pin: missing: group, the name shared by the operations of one "
	 "key\n"},
	{OPERATION "legacy: {method: post, path: \"/a/{b}\"}, auth: }}}\n",
	 "c.yml:6:41: the key \"auth\" was already given on line 5\n"},
	{OPERATION "}, o: {match: PUT /y, legacy: {method: post, path: \"/a/{b}\"}}}}\n",
	 "warning: c.yml:5: services.s.operations.op.auth: has no effect: without a task everything goes to "
	 "legacy, which authenticates its own callers\n"
	 "c.yml:6: services.s.operations.o.legacy.method: expected a method in capitals\n"
	 "c.yml:6: services.s.operations.o.legacy.path: a path on the legacy side has no parameters\n"},
	{OPERATION "}, o: {match: POST /x}}}\n",
	 "warning: c.yml:5: services.s.operations.op.auth: has no effect: without a task everything goes to "
	 "legacy, which authenticates its own callers\n"
	 "c.yml:4: services.s.operations: the operations \"op\" and \"o\" match the same requests\n"},
	{OPERATION
	 "task: {name: a}}, o: {match: PUT /y, task: {name: t}, flags: [f], identity: {user: query:u}}}}\n",
	 "warning: c.yml:6: services.s.operations.op.task: the operation names no flags and always goes to "
	 "legacy\n"
	 "c.yml:6: services.s.operations.o.auth: missing: an operation mapped to a task must say how its "
	 "callers are authenticated, "
	 "\"auth: bearer\" or \"auth: none\"\n"},
	/* match */
	{OPERATION "}, o: {}}}\n", "warning: c.yml:5: services.s.operations.op.auth: has no effect: without "
				   "a task everything goes to legacy, which authenticates its own callers\n"
				   "c.yml:6: services.s.operations.o.match: missing: method and path, such "
				   "as \"POST /answer-prompt\"\n"},
	{"services:\n  s: {listen: 127.0.0.1:1, legacy: \"http://h\", operations: {o: {match: post /x}}}\n",
	 "c.yml:2: services.s.operations.o.match: expected a method in capitals, a blank, and a path, such "
	 "as \"POST /answer-prompt\"\n"},
	{"services:\n  s: {listen: 127.0.0.1:1, legacy: \"http://h\", operations: {o: {match: POST "
	 "/a//b}}}\n",
	 "c.yml:2: services.s.operations.o.match: an empty segment (\"//\") never matches\n"},
	{"services:\n  s: {listen: 127.0.0.1:1, legacy: \"http://h\", operations: {o: {match: GET "
	 "/_migration/tasks}}}\n",
	 "c.yml:2: services.s.operations.o.match: paths under /_migration/ are the router's own\n"},
	/* what is inherited is said once */
	{"error: {body: {$ref: \"result:/x\"}}\nservices:\n  s: {listen: 127.0.0.1:1, legacy: \"http://h\",\n"
	 "    operations: {o: {match: GET /1}, p: {match: GET /2}}}\n",
	 "c.yml:1: error: $ref: there is no such value here: 'result:/x'; allowed here: body:/pointer "
	 "header:Name query:name "
	 "path:name identity:user identity:organization uuid request:id error:status error:title "
	 "error:detail\n"},
	/* listeners that others reach */
	{"backends: {embedded: {}}\nidentity: {user: header:X-User-Id}\nservices:\n  s: {listen: \"*:1\", "
	 "legacy: \"http://h\",\n"
	 "    operations: {o: {match: GET /1, flags: f, task: {name: t}, auth: none}}}\n",
	 "warning: c.yml:4: services.s.listen: reachable from other hosts, but trusted_proxies is not set: "
	 "identity headers are trusted only from this machine\n"},
	{SERVICE "trusted_proxies: [0.0.0.0/0]\n", "warning: c.yml:2: trusted_proxies: \"0.0.0.0/0\" lets "
						   "nearly anyone choose their identity with a header\n"}};

static bool only_warnings(const char *problems)
{
	for (const char *line = problems; *line; line = strchr(line, '\n') + 1)
		if (strncmp(line, "warning: ", 9) != 0)
			return false;
	return true;
}

/* Without the line about flags.yml, whose number depends on the file. */
static void drop_flags_warning(struct buf *problems)
{
	char *at = strstr(problems->ptr, " flags.file: ");
	if (!at)
		return;
	char *end = strchr(at, '\n') + 1;
	while (at > problems->ptr && at[-1] != '\n')
		at--;
	memmove(at, end, strlen(end) + 1);
}

static void mistakes_name_their_place(void **state)
{
	(void)state;
	environment = NULL;
	int wrong = 0;
	for (size_t i = 0; i < sizeof(mistakes) / sizeof(mistakes[0]); i++) {
		struct config *c;
		CLEANUP(buf_releasep) struct buf problems;
		int code = parse("c.yml", mistakes[i].text, &problems, &c);
		drop_flags_warning(&problems);
		if (strcmp(problems.ptr, mistakes[i].problems) != 0) {
			print_error("%s---\n%s=== expected\n%s\n", mistakes[i].text, problems.ptr,
				    mistakes[i].problems);
			wrong++;
		}
		assert_int_equal(code, only_warnings(problems.ptr) ? 0 : -EBADMSG);
		assert_int_equal(c == NULL, code != 0);
		config_unref(c);
	}
	assert_int_equal(wrong, 0);
}

static void all_mistakes_come_at_once(void **state)
{
	(void)state;
	environment = (const char *const[]){"TASK_QUEUE_BACKEND=ingest", NULL};
	struct config *c;
	CLEANUP(buf_releasep) struct buf problems;
	int code = parse("c.yml",
			 "threds: 2\n"
			 "drain_timeout: soon\n"
			 "services:\n"
			 "  a:\n"
			 "    listen: 127.0.0.1\n"
			 "    legacy: h:80\n"
			 "    operations:\n"
			 "      o:\n"
			 "        match: /x\n"
			 "        task:\n"
			 "          name: t\n"
			 "          timout: 5s\n"
			 "  b:\n"
			 "    listen: 127.0.0.1:1\n",
			 &problems, &c);
	assert_int_equal(code, -EBADMSG);
	assert_null(c);
	drop_flags_warning(&problems);
	assert_string_equal(
		problems.ptr,
		"c.yml:1: threds: unknown key; did you mean \"threads\"?\n"
		"c.yml:2: drain_timeout: expected a duration from 0s to 1h (500ms, 5s, 2m, 1h, 7d), not "
		"\"soon\"\n"
		"environment: TASK_QUEUE_BACKEND: there is no backend \"ingest\"; available: embedded, "
		"celery, temporal, "
		"hatchet, router\n"
		"c.yml:5: services.a.listen: expected address:port, such as 127.0.0.1:5002, [::1]:5002 or "
		"*:5002, not \"127.0.0.1\"\n"
		"c.yml:6: services.a.legacy: expected a URL that begins with http:// or https://\n"
		"c.yml:9: services.a.operations.o.match: expected a method in capitals, a blank, and a path, "
		"such as \"POST "
		"/answer-prompt\"\n"
		"c.yml:12: services.a.operations.o.task.timout: unknown key; did you mean \"timeout\"?\n"
		"c.yml:10: services.a.operations.o.task: there is no backend for it: declare one under "
		"backends\n"
		"c.yml:8: services.a.operations.o.auth: missing: an operation mapped to a task must say how "
		"its callers are authenticated, \"auth: bearer\" or \"auth: none\"\n"
		"warning: c.yml:10: services.a.operations.o.task: the operation names no flags and always "
		"goes to legacy\n"
		"c.yml:13: services.b.legacy: missing: the legacy service's URL, such as "
		"http://127.0.0.1:15002\n");
}

/* One operation with "auth: bearer" and this file of tokens. */
static int parse_with_tokens(const char *file, struct buf *problems, struct config **ret)
{
	char text[1024], name[SCRATCH_MAX];
	snprintf(text, sizeof(text),
		 "tokens: %s\nflags: {file: tokens}\nbackends: {embedded: {}}\nservices: {s: {listen: "
		 "127.0.0.1:1,\n"
		 "legacy: \"http://h\", operations: {\n"
		 "o: {match: GET /, flags: f, task: {name: t}, identity: {user: query:u}, auth: bearer}}}}\n",
		 file);
	return parse(in_folder("c.yml", name), text, problems, ret);
}

static void tokens_are_read(void **state)
{
	(void)state;
	environment = NULL;
	write_file("tokens", "# keys\r\n\n"
			     "FF00000000000000000000000000000000000000000000000000000000000000  # b\r\n"
			     "  0100000000000000000000000000000000000000000000000000000000000000\n");
	CLEANUP(buf_releasep) struct buf problems;
	CLEANUP(config_unrefp) struct config *c;
	char path[SCRATCH_MAX];
	assert_int_equal(parse_with_tokens("tokens", &problems, &c), 0);
	assert_string_equal(problems.ptr, "");
	const struct auth *a = &c->services[0].operations[0].auth;
	assert_int_equal(a->kind, AUTH_BEARER);
	assert_int_equal(a->n_hashes, 2);
	assert_string_equal(a->hashes[0], "0100000000000000000000000000000000000000000000000000000000000000");
	assert_string_equal(a->hashes[1], "ff00000000000000000000000000000000000000000000000000000000000000");
	assert_true(span_is(a->file, in_folder("tokens", path)));
}

static void bad_tokens_are_told_without_them(void **state)
{
	(void)state;
	environment = NULL;
	write_file("tokens", "");
	write_file("no-tokens", "# nobody\n\n");
	write_file("bad-tokens", "0100000000000000000000000000000000000000000000000000000000000000\nsecret-"
				 "platform-key\n00\n");
	char path[SCRATCH_MAX];
	assert_int_equal(mkfifo(in_folder("pipe", path), 0600), 0);
	static const struct {
		const char *file, *problems; /* %s: the folder */
	} cases[] = {
		{"absent", "%1$s/c.yml:1: tokens: %1$s/absent: No such file or directory\n"},
		{"no-tokens", "%1$s/c.yml:1: tokens: %1$s/no-tokens contains no hashes; every request would "
			      "be rejected\n"},
		{"bad-tokens",
		 "%1$s/c.yml:1: tokens: %1$s/bad-tokens:2: expected the SHA-256 of a token in 64 hex digits\n"
		 "%1$s/c.yml:1: tokens: %1$s/bad-tokens:3: expected the SHA-256 of a token in 64 hex "
		 "digits\n"},
		{"pipe", "%1$s/c.yml:1: tokens: %1$s/pipe: not a regular file\n"},
		{".", "%1$s/c.yml:1: tokens: %1$s/.: not a regular file\n"}};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		CLEANUP(buf_releasep) struct buf problems, expected = BUF_INIT(4096);
		struct config *c;
		assert_int_equal(parse_with_tokens(cases[i].file, &problems, &c), -EBADMSG);
		for (const char *at = cases[i].problems; *at; at++) {
			bool here = strncmp(at, "%1$s", 4) == 0;
			buf_append_span(&expected, here ? span_of(folder) : (struct span){at, 1});
			at += here ? 3 : 0;
		}
		assert_string_equal(problems.ptr, expected.ptr);
	}
}

static void environment_wins(void **state)
{
	(void)state;
	environment = (const char *const[]){"TASK_QUEUE_BACKEND=celery",
					    "TASK_BACKEND_TYPE=celery",
					    "CELERY_BROKER_URL=redis://:hunter2@env/1",
					    "TEMPORAL_HOST=elsewhere",
					    "TASK_ABSTRACTION_ENABLED=On",
					    "HATCHET_BACKEND_ENABLED=0",
					    "PROMPT_HELPERS_ENABLED=",
					    "FLIPT_SERVER_URL=http://flipt:8080",
					    "FLIPT_NAMESPACE=prod",
					    "FLIPT_ENVIRONMENT=blue",
					    "FLIPT_CLIENT_TOKEN=hunter2",
					    NULL};
	CLEANUP(config_unrefp)
	struct config *c =
		parsed(SERVICE "backend: embedded\nbackends: {embedded: {}}\nflags: {namespace: file}\n");
	assert_true(span_is(c->default_backend, "celery"));
	assert_int_equal(c->n_backends, 2); /* what is not chosen is not declared by its variables */
	assert_true(span_is(backend_setting(config_backend(c, SPAN_LIT("celery")), "broker_url"),
			    "redis://:hunter2@env/1"));
	assert_int_equal(c->n_env_defaults, 2);
	assert_true(span_is(c->env_defaults[0].flag, "task_abstraction_enabled") && c->env_defaults[0].value);
	assert_true(span_is(c->env_defaults[1].flag, "hatchet_backend_enabled") && !c->env_defaults[1].value);
	assert_int_equal(c->flags.kind, FLAG_SOURCE_FLIPT);
	assert_string_equal(c->flags.url, "http://flipt:8080");
	assert_string_equal(c->flags.namespace_key, "prod");
	assert_string_equal(c->flags.environment, "blue");
	assert_string_equal(c->flags.token, "hunter2");
}

static void environment_over_settings(void **state)
{
	(void)state;
	environment = (const char *const[]){
		"TASK_BACKEND_TYPE=hatchet",	      "HATCHET_TOKEN=second", "HATCHET_CLIENT_TOKEN=first",
		"HATCHET_CLIENT_SERVER_URL=http://h", "TEMPORAL_PORT=7",      NULL};
	CLEANUP(config_unrefp)
	struct config *c = parsed(
		SERVICE
		"backends: {hatchet: {token: file, ca_file: kept}, temporal: {port: 7233, host: h}}\n");
	assert_true(span_is(c->default_backend, "hatchet"));
	const struct backend_config *b = config_backend(c, SPAN_LIT("hatchet"));
	assert_true(span_is(backend_setting(b, "token"), "first"));
	assert_true(span_is(backend_setting(b, "server_url"), "http://h"));
	assert_true(span_is(backend_setting(b, "ca_file"), "kept"));
	assert_int_equal(b->n_settings, 3);
	b = config_backend(c, SPAN_LIT("temporal"));
	assert_true(span_is(backend_setting(b, "port"), "7"));
	assert_true(span_is(backend_setting(b, "host"), "h"));
}

/* The switch and a token are all that the Python services are given. */
static void hatchet_is_declared_by_its_switch_and_token(void **state)
{
	(void)state;
	static const struct {
		const char *environment[3];
		bool declared;
	} cases[] = {{{"HATCHET_BACKEND_ENABLED=true", "HATCHET_TOKEN=t"}, true},
		     {{"HATCHET_BACKEND_ENABLED=1", "HATCHET_CLIENT_TOKEN=t"}, true},
		     {{"HATCHET_BACKEND_ENABLED=false", "HATCHET_TOKEN=t"}, false},
		     {{"HATCHET_TOKEN=t"}, false},
		     {{"HATCHET_BACKEND_ENABLED=true"}, false}};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		environment = cases[i].environment;
		CLEANUP(config_unrefp) struct config *c = parsed(SERVICE "backends: {embedded: {}}\n");
		assert_int_equal(config_backend(c, SPAN_LIT("hatchet")) != NULL, cases[i].declared);
		assert_true(span_is(c->default_backend, "embedded"));
	}
}

static void environment_mistakes(void **state)
{
	(void)state;
	environment = (const char *const[]){"TASK_QUEUE_BACKEND=celery", "TASK_BACKEND_TYPE=temporal",
					    "TASK_ABSTRACTION_ENABLED=maybe",
					    "FLIPT_SERVER_URL=http://u:hunter2@flipt", NULL};
	struct config *c;
	CLEANUP(buf_releasep) struct buf problems;
	assert_int_equal(parse("c.yml", SERVICE, &problems, &c), -EBADMSG);
	assert_string_equal(
		problems.ptr,
		"environment: TASK_QUEUE_BACKEND: is \"celery\", but TASK_BACKEND_TYPE is \"temporal\"; set "
		"one of them\n"
		"environment: TASK_ABSTRACTION_ENABLED: expected true, false, 1, 0, yes, no, on or off, not "
		"\"maybe\"\n"
		"environment: FLIPT_SERVER_URL: user names and passwords are not allowed in this URL\n"
		"c.yml:1: flags.url: missing: the source flipt needs the server's URL, here or in "
		"FLIPT_SERVER_URL\n");
}

static void flipt_token_file(void **state)
{
	(void)state;
	environment = NULL;
	write_file("flipt.token", "hunter2\n");
	char name[SCRATCH_MAX];
	CLEANUP(buf_releasep) struct buf problems;
	CLEANUP(config_unrefp) struct config *c;
	assert_int_equal(parse(in_folder("c.yml", name),
			       SERVICE "flags: {source: flipt, url: \"http://f\", token_file: flipt.token}\n",
			       &problems, &c),
			 0);
	assert_string_equal(c->flags.token, "hunter2");
}

/* --- what is shipped ------------------------------------------------------------------------------------ */

static void read_shipped(const char *name, struct buf *out)
{
	const char *root = getenv("SOURCE_ROOT");
	char path[4096];
	struct err e = {""};
	snprintf(path, sizeof(path), "%s/config/%s", root ? root : ".", name);
	buf_init(out, 1 << 20);
	if (file_read(path, 1 << 19, out, &e) != 0)
		fail_msg("%s", e.text);
}

static void the_default_file_is_good(void **state)
{
	(void)state;
	environment = NULL;
	const char *root = getenv("SOURCE_ROOT");
	char path[4096];
	CLEANUP(buf_releasep) struct buf problems = BUF_INIT(1 << 20);
	CLEANUP(config_unrefp) struct config *c = NULL;
	snprintf(path, sizeof(path), "%s/config/router.yml", root ? root : ".");
	if (config_load(path, test_getenv, &problems, &c) != 0 || problems.len)
		fail_msg("%s", problems.ptr);
	assert_int_equal(c->n_services, 4);
	const struct operation *op =
		service_operation(config_service(c, SPAN_LIT("prompt")), SPAN_LIT("extract"));
	assert_true(span_is(op->task.task, "execute_extraction") && op->task.needs_body && op->task.args &&
		    op->error);
	assert_int_equal(op->auth.n_hashes, 1);
	op = service_operation(config_service(c, SPAN_LIT("unified")), SPAN_LIT("process_document"));
	assert_true(op->unified && op->task.workflow && op->legacy_needs_body && op->legacy_response);
}

/* Each is compared for each request. */
static void a_file_of_too_many_tokens_is_refused(void **state)
{
	(void)state;
	for (int over = 0; over < 2; over++) {
		CLEANUP(buf_releasep) struct buf text = BUF_INIT(1 << 20), problems = BUF_INIT(1 << 16);
		struct config *c = NULL;
		buf_puts(&text, "\n\n# many\n");
		for (int i = 0; i < AUTH_MAX_HASHES + over; i++)
			buf_printf(&text, "%064x\n", i);
		write_file("many-tokens", text.ptr);
		assert_int_equal(parse_with_tokens("many-tokens", &problems, &c), over ? -EBADMSG : 0);
		assert_int_equal(problems.ptr && strstr(problems.ptr, "many-tokens: more than 10000 hashes"),
				 over);
		config_unref(c);
	}
}

/* Its tokens file is the operator's to write. */
static void the_unstract_mapping_is_good(void **state)
{
	(void)state;
	environment = NULL;
	CLEANUP(buf_releasep) struct buf text, problems;
	CLEANUP(config_unrefp) struct config *c;
	char name[SCRATCH_MAX];
	read_shipped("unstract.yml", &text);
	write_file("tokens.sha256", "0100000000000000000000000000000000000000000000000000000000000000\n");
	write_file("flags.yml", "");
	if (parse(in_folder("c.yml", name), text.ptr, &problems, &c) != 0 || problems.len)
		fail_msg("%s", problems.ptr);
	static const char *const prompt[] = {"answer_prompt",	       "extract",   "index",
					     "single_pass_extraction", "summarize", "agentic_extract"};
	for (size_t i = 0; i < sizeof(prompt) / sizeof(prompt[0]); i++) {
		const struct operation *op =
			service_operation(config_service(c, SPAN_LIT("prompt")), span_of(prompt[i]));
		assert_non_null(op);
		assert_true(span_is(op->task.task, "execute_extraction") &&
			    span_is(op->task.queue, "celery_executor_legacy"));
		assert_int_equal(op->task.timeout_ms, 3600000);
		assert_int_equal(op->auth.kind, AUTH_BEARER);
	}
	const struct service *runner = config_service(c, SPAN_LIT("runner"));
	assert_true(service_operation(runner, SPAN_LIT("run"))->pin_start);
	assert_true(service_operation(runner, SPAN_LIT("remove"))->pin_end);
	assert_true(
		span_is(service_operation(runner, SPAN_LIT("run_status"))->pin_key, "query:container_name"));
}

static void a_file_that_is_not_there(void **state)
{
	(void)state;
	struct config *c = NULL;
	CLEANUP(buf_releasep) struct buf problems = BUF_INIT(1024);
	assert_int_equal(config_load("/nowhere/router.yml", test_getenv, &problems, &c), -ENOENT);
	assert_string_equal(problems.ptr, "/nowhere/router.yml: No such file or directory\n");
	assert_null(c);
}

/* --- auth as a mapping ---------------------------------------------------------------------------------- */

#define ASKED(auth, task) \
	"backends: {embedded: {}}\nstate: {url: \"redis://h\"}\n" \
	"services: {s: {listen: 127.0.0.1:5002, legacy: \"http://h\", operations: {o: {match: POST /x,\n" \
	"  auth: " auth ",\n" \
	"  flags: [f], identity: {user: query:u}, task: {name: t, " task "}}}}}\n"

static void an_endpoint_and_a_credential_to_forward(void **state)
{
	(void)state;
	environment = NULL;
	CLEANUP(config_unrefp)
	struct config *c =
		parsed(ASKED("{check: HTTP://auth/x, credentials: [cookie:sid, header:X-Key], cache: 1m, "
			     "cache_denied: 2m, timeout: 1s, forward: cookie:sid}",
			     "kwargs: {c: {$ref: credential}}"));
	const struct auth *a = &c->services[0].operations[0].auth;
	assert_int_equal(a->kind, AUTH_CHECK);
	assert_string_equal(a->url, "http://auth/x");
	assert_int_equal(a->n_credentials, 2);
	assert_true(a->credentials[0].cookie && span_is(a->credentials[0].name, "sid"));
	assert_true(!a->credentials[1].cookie && span_is(a->credentials[1].name, "X-Key"));
	assert_true(a->forward.cookie && span_is(a->forward.name, "sid"));
	assert_int_equal(a->timeout_ms, 1000);
	assert_int_equal(a->cache_denied_ms, a->cache_ms); /* never for longer */
	CLEANUP(config_unrefp) struct config *d = parsed(ASKED("{check: \"http://auth\"}", ""));
	a = &d->services[0].operations[0].auth;
	assert_int_equal(a->n_credentials, 2);
	assert_true(span_is(a->credentials[1].name, "Cookie"));
	assert_int_equal(a->cache_ms, 30000);
	assert_int_equal(a->cache_denied_ms, 5000);
}

static void mistakes_of_auth(void **state)
{
	(void)state;
	static const struct {
		const char *text, *says;
	} cases[] = {
		{ASKED("{forward: header:Authorization}", "kwargs: {c: {$ref: credential}}"),
		 "auth: missing: check (a URL), or kind (none or bearer)"},
		{ASKED("{kind: none, check: \"http://a\"}", ""),
		 "auth.kind: check and kind are mutually exclusive"},
		{ASKED("{check: \"ftp://a\"}", ""), "auth.check: "},
		{ASKED("{check: \"http://a\", credentials: Authorization}", ""),
		 "auth.credentials: expected header:NAME or cookie:NAME"},
		{ASKED("{check: \"http://a\", credentials: [header:Cookie, cookie:a]}", ""),
		 "auth.credentials: header:Cookie "},
		{ASKED("none", "args: [{$ref: credential}]"),
		 "{$ref: credential} needs \"auth: {forward: …}\""},
		{ASKED("{kind: none, forward: header:X}", ""), "auth.forward: has no effect"},
		{ASKED("{kind: none, forward: header:X}", "args: [{$ref: credential}]"),
		 "warning: c.yml:4: services.s.operations.o.auth.forward: the queue of the task's backend"},
		{ASKED("{kind: bearer}", ""), "bearer needs \"tokens\""},
		{ASKED("none, idempotency: {key: accept}", ""),
		 "warning: c.yml:2: state: idempotency keys are not kept there"},
		{SERVICE "admin: {auth: {check: \"http://a\"}}\n", "admin.auth: expected"}};
	environment = NULL;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		CLEANUP(config_unrefp) struct config *c = NULL;
		CLEANUP(buf_releasep) struct buf problems;
		parse("c.yml", cases[i].text, &problems, &c);
		if (!strstr(problems.ptr, cases[i].says))
			fail_msg("%s---\n%s=== lacks\n%s", cases[i].text, problems.ptr, cases[i].says);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults),
		cmocka_unit_test(everything_is_read),
		cmocka_unit_test(paths_are_relative_to_the_file),
		cmocka_unit_test(mistakes_name_their_place),
		cmocka_unit_test(all_mistakes_come_at_once),
		cmocka_unit_test(tokens_are_read),
		cmocka_unit_test(bad_tokens_are_told_without_them),
		cmocka_unit_test(a_file_of_too_many_tokens_is_refused),
		cmocka_unit_test(environment_wins),
		cmocka_unit_test(environment_over_settings),
		cmocka_unit_test(hatchet_is_declared_by_its_switch_and_token),
		cmocka_unit_test(environment_mistakes),
		cmocka_unit_test(flipt_token_file),
		cmocka_unit_test(the_default_file_is_good),
		cmocka_unit_test(the_unstract_mapping_is_good),
		cmocka_unit_test(a_file_that_is_not_there),
		cmocka_unit_test(an_endpoint_and_a_credential_to_forward),
		cmocka_unit_test(mistakes_of_auth),
	};
	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
