/* identity: where it is looked for, and what does not count. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/un.h>

#include "operation/cidr.h"
#include "operation/identity.h"

/* user: header, query, body, path; organization: body, header; entity: user, then organization. */
static const struct identity_sources all = {
	.user = {{IDENTITY_HEADER, SPAN_INIT("X-User-Id")},
		 {IDENTITY_QUERY, SPAN_INIT("user")},
		 {IDENTITY_BODY, SPAN_INIT("/user/id")},
		 {IDENTITY_PATH, SPAN_INIT("who")}},
	.organization = {{IDENTITY_BODY, SPAN_INIT("/organization_id")},
			 {IDENTITY_HEADER, SPAN_INIT("X-Organization-Id")}},
	.n_user = 4,
	.n_organization = 2,
	.entity = {IDENTITY_USER, IDENTITY_ORGANIZATION},
	.n_entity = 2,
	.needs_body = true,
};

#define U "X-User-Id"
#define O "X-Organization-Id"
#define NO_BODY NULL

struct example {
	const char *fields[8]; /* name, value, … */
	bool untrusted;
	const char *target, *body; /* body NULL: not read */
	const char *user, *organization, *notes;
};

/* What the flags of an answer say, as words. */
static void notes_of(const struct identity *id, char out[80])
{
	snprintf(out, 80, "%s%s%s%s", id->wants_body ? "wants_body " : "",
		 id->body_malformed ? "malformed " : "", id->ambiguous ? "ambiguous " : "",
		 id->unusable ? "unusable " : "");
}

static void expect(const struct example *x, const struct identity *id)
{
	char notes[80];
	notes_of(id, notes);
	struct span user = x->user ? span_of(x->user) : SPAN_NONE;
	struct span organization = x->organization ? span_of(x->organization) : SPAN_NONE;
	if (!span_eq(id->user, user) || !span_eq(id->organization, organization) ||
	    (id->user.ptr != NULL) != (x->user != NULL) || strcmp(notes, x->notes) != 0)
		fail_msg("%s %s: user \"%.*s\" organization \"%.*s\" %s", x->target, x->body ? x->body : "-",
			 SPAN_ARG(id->user), SPAN_ARG(id->organization), notes);
	assert_int_equal(id->has_entity, x->user || x->organization);
	if (id->has_entity) {
		assert_int_equal(id->entity_part, x->user ? IDENTITY_USER : IDENTITY_ORGANIZATION);
		assert_true(span_eq(id->entity, x->user ? user : organization));
	}
	assert_true(x->body || !id->body_checked);
}

static void find(const struct example *x, const struct route_match *match, struct identity *ret)
{
	struct http_field fields[4];
	size_t n = 0;
	for (; x->fields[2 * n]; n++)
		fields[n] = (struct http_field){span_of(x->fields[2 * n]), span_of(x->fields[2 * n + 1])};
	struct http_request request = {
		.method = SPAN_LIT("POST"), .target = span_of(x->target), .fields = fields, .n_fields = n};
	struct identity_input in = {.request = &request,
				    .match = match,
				    .peer_trusted = !x->untrusted,
				    .body_read = x->body != NULL,
				    .body = x->body ? span_of(x->body) : SPAN_NONE};
	identity_find(&all, &in, ret);
}

#define LONG_256 \
	"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef" \
	"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef" \
	"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static void examples(void **state)
{
	(void)state;
	static const struct example cases[] = {
		/* order of sources */
		{{U, "u", O, "o"}, false, "/?user=q", "{\"user\":{\"id\":\"b\"}}", "u", "o", ""},
		{{O, "o"}, false, "/?user=q", "{\"user\":{\"id\":\"b\"}}", "q", "o", ""},
		{{NULL}, false, "/", "{\"user\":{\"id\":\"b\"},\"organization_id\":\"c\"}", "b", "c", ""},
		{{O, "o"}, false, "/", "{\"organization_id\":\"c\"}", NULL, "c", ""},
		{{NULL}, false, "/", "{}", NULL, NULL, ""},
		/* the body is asked for only when its turn comes */
		{{U, "u", O, "o"}, false, "/", NO_BODY, "u", NULL, "wants_body "},
		{{NULL}, false, "/", NO_BODY, NULL, NULL, "wants_body "},
		/* fields: names without case, values trimmed, empty ones and untrusted peers do not count */
		{{"x-user-ID", " u\t"}, false, "/", "", "u", NULL, ""},
		{{U, ""}, false, "/?user=q", "", "q", NULL, ""},
		{{U, " \t "}, false, "/?user=q", "", "q", NULL, ""},
		{{U, "u", O, "o"}, true, "/", "", NULL, NULL, ""},
		{{U, "u"}, true, "/?user=q", "", "q", NULL, ""},
		/* repeated: the same is fine, another is ambiguous, and then nothing else is asked */
		{{U, "u", U, "u"}, false, "/", "", "u", NULL, ""},
		{{U, "u", U, ""}, false, "/", "", "u", NULL, ""},
		{{U, "u", "x-user-id", "v"}, false, "/?user=q", "", NULL, NULL, "ambiguous "},
		{{U, "u", U, "v", O, "o"}, false, "/?user=q", "", NULL, "o", "ambiguous "},
		{{NULL}, false, "/?user=a&user=a", "", "a", NULL, ""},
		{{NULL}, false, "/?user=&user=a", "", "a", NULL, ""},
		{{NULL}, false, "/?user=a&user=b", "{\"user\":{\"id\":\"b\"}}", NULL, NULL, "ambiguous "},
		/* query decoding */
		{{NULL}, false, "/?user=a%40b+c", "", "a@b c", NULL, ""},
		/* JSON: strings decoded, numbers as sent, other types and empty strings are no values; the
		 * last of two keys */
		{{NULL},
		 false,
		 "/",
		 "{\"user\":{\"id\":42},\"organization_id\":9007199254740993}",
		 "42",
		 "9007199254740993",
		 ""},
		{{NULL}, false, "/", "{\"organization_id\":1.0}", NULL, "1.0", ""},
		{{NULL}, false, "/", "{\"user\":{\"id\":\"\\u00e9\\n\"}}", NULL, NULL, "unusable "},
		{{NULL}, false, "/", "{\"user\":{\"id\":\"\\u00e9\"}}", "\xc3\xa9", NULL, ""},
		{{O, "o"}, false, "/", "{\"organization_id\":true}", NULL, "o", ""},
		{{O, "o"}, false, "/", "{\"organization_id\":null}", NULL, "o", ""},
		{{O, "o"}, false, "/", "{\"organization_id\":{\"id\":1}}", NULL, "o", ""},
		{{O, "o"}, false, "/", "{\"organization_id\":\"\"}", NULL, "o", ""},
		{{NULL}, false, "/", "{\"organization_id\":\"a\",\"organization_id\":\"b\"}", NULL, "b", ""},
		{{O, "o"}, false, "/", "[1,2]", NULL, "o", ""},
		/* not JSON: noted, and later sources still count; no body at all is fine */
		{{O, "o"}, false, "/", "{\"organization_id\":\"c\"", NULL, "o", "malformed "},
		{{O, "o"}, false, "/", "--boundary", NULL, "o", "malformed "},
		{{O, "o"}, false, "/", "", NULL, "o", ""},
		/* long and odd values are not cut but absent */
		{{U, LONG_256}, false, "/", "", LONG_256, NULL, ""},
		{{U, LONG_256 "x"}, false, "/?user=q", "", NULL, NULL, "unusable "},
		{{NULL}, false, "/?user=" LONG_256 "x", "", NULL, NULL, "unusable "},
		{{NULL}, false, "/", "{\"organization_id\":\"" LONG_256 "x\"}", NULL, NULL, "unusable "},
		{{U, "a\x01"}, false, "/?user=q", "", NULL, NULL, "unusable "},
		{{NULL}, false, "/?user=a%00b", "", NULL, NULL, "unusable "},
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct identity id;
		find(&cases[i], NULL, &id);
		expect(&cases[i], &id);
	}
}

static void path_parameters(void **state)
{
	(void)state;
	static const struct operation op = {
		.name = SPAN_INIT("x"), .method = SPAN_INIT("POST"), .path = SPAN_INIT("/u/{who}/x")};
	struct route_table *table = NULL;
	assert_int_equal(route_table_new(&op, 1, &table, NULL), 0);
	static const struct example cases[] = {
		{{NULL}, false, "/u/a%20b/x", "", "a b", NULL, ""},
		{{U, "h"}, false, "/u/a/x", "", "h", NULL, ""},
		{{NULL}, false, "/u/" LONG_256 "x/x", "", NULL, NULL, "unusable "},
		{{NULL}, false, "/v", "", NULL, NULL, ""}};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct route_match match;
		struct identity id;
		assert_int_equal(route_match(table, SPAN_LIT("POST"), span_of(cases[i].target), &match),
				 i < 3);
		find(&cases[i], &match, &id);
		expect(&cases[i], &id);
	}
	route_table_free(table);
}

static void entity_is_the_first_present(void **state)
{
	(void)state;
	struct identity_sources s = {.organization = {{IDENTITY_HEADER, SPAN_INIT(O)}},
				     .user = {{IDENTITY_HEADER, SPAN_INIT(U)}},
				     .n_organization = 1,
				     .n_user = 1,
				     .entity = {IDENTITY_ORGANIZATION},
				     .n_entity = 1};
	struct http_field fields[] = {{SPAN_LIT(U), SPAN_LIT("u")}, {SPAN_LIT(O), SPAN_LIT("o")}};
	struct http_request request = {.fields = fields, .n_fields = 1};
	struct identity_input in = {.request = &request, .peer_trusted = true};
	struct identity id;
	identity_find(&s, &in, &id);
	assert_true(span_is(id.user, "u"));
	assert_false(id.has_entity);
	assert_false(id.wants_body);
	request.n_fields = 2;
	s.entity[1] = IDENTITY_USER;
	s.n_entity = 2;
	identity_find(&s, &in, &id);
	assert_true(id.has_entity && span_is(id.entity, "o") && id.entity_part == IDENTITY_ORGANIZATION);
}

/* --- cookies, and what is added to the flags' context --------------------------------------------------- */

static void cookies(void **state)
{
	(void)state;
	static const struct {
		const char *first, *second; /* Cookie fields */
		bool untrusted;
		const char *user, *notes;
	} cases[] = {
		{"uid=u1", NULL, false, "u1", ""},
		{"a=b; uid=u1; c=d", NULL, false, "u1", ""},
		{"a=b;uid=u1", NULL, false, "u1", ""},
		{"uid=\"u1\"", NULL, false, "u1", ""},
		{"uid=a=b", NULL, false, "a=b", ""},
		{"a=b", "uid=u1", false, "u1", ""},
		{"uid=u1", "uid=u1", false, "u1", ""},
		{"uid=u1; uid=u2", NULL, false, NULL, "ambiguous "},
		{"uid=u1", "uid=u2", false, NULL, "ambiguous "},
		{"uid=", NULL, false, NULL, ""},
		{"uid=; uid=u1", NULL, false, "u1", ""},
		{"uid=\"\"", NULL, false, NULL, ""},
		{"uid", NULL, false, NULL, ""},
		{"xuid=u1; uidx=u2; UID=u3", NULL, false, NULL, ""}, /* names are case-sensitive */
		{";;; ;uid=u1;;", NULL, false, "u1", ""},
		{"theme=\"", NULL, false, NULL, ""},
		{"uid=\x01", NULL, false, NULL, "unusable "},
		{"uid=u1", NULL, true, NULL, ""}, /* anybody could say it */
		{"", NULL, false, NULL, ""},
	};
	static const struct identity_sources s = {.user = {{IDENTITY_COOKIE, SPAN_INIT("uid")}}, .n_user = 1};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct http_field fields[] = {{SPAN_LIT("Cookie"), span_of(cases[i].first)},
					      {SPAN_LIT("cookie"), span_of(cases[i].second)}};
		struct http_request request = {.fields = fields, .n_fields = cases[i].second ? 2 : 1};
		struct identity_input in = {.request = &request, .peer_trusted = !cases[i].untrusted};
		struct identity id;
		char notes[80];
		identity_find(&s, &in, &id);
		notes_of(&id, notes);
		if (!span_eq(id.user, span_of(cases[i].user)) || strcmp(notes, cases[i].notes) != 0)
			fail_msg("case %zu: \"%.*s\" %s", i, SPAN_ARG(id.user), notes);
	}
}

static struct span of_context(const struct identity_context *c, const char *key)
{
	for (size_t i = 0; i < c->n; i++)
		if (span_is(c->entries[i].key, key))
			return c->entries[i].value;
	return SPAN_NONE;
}

static void context_comes_from_the_request(void **state)
{
	(void)state;
	static struct operation op = {
		.context = {{.key = SPAN_INIT("plan"),
			     .sources = {{IDENTITY_HEADER, SPAN_INIT("X-Plan")}},
			     .n_sources = 1},
			    {.key = SPAN_INIT("api_version"), .value = SPAN_INIT("v1")},
			    {.key = SPAN_INIT("country"),
			     .sources = {{IDENTITY_QUERY, SPAN_INIT("c")}},
			     .n_sources = 1},
			    {.key = SPAN_INIT("email"),
			     .sources = {{IDENTITY_COOKIE, SPAN_INIT("mail")},
					 {IDENTITY_BODY, SPAN_INIT("/email")}},
			     .n_sources = 2},
			    {.key = SPAN_INIT("seats"),
			     .sources = {{IDENTITY_BODY, SPAN_INIT("/seats")}},
			     .n_sources = 1}},
		.n_context = 5,
		.context_sources = true,
	};
	struct http_field fields[] = {{SPAN_LIT("X-Plan"), SPAN_LIT("gold")},
				      {SPAN_LIT("Cookie"), SPAN_LIT("mail=a@b.example")}};
	struct http_request request = {.target = SPAN_LIT("/x?c=n%C3%A9"), .fields = fields, .n_fields = 2};
	struct identity_input in = {.request = &request, .peer_trusted = true};
	static struct identity_context c;
	identity_find_context(&op, &in, &c);
	assert_true(c.wants_body); /* for the seats */
	assert_true(span_is(of_context(&c, "plan"), "gold") &&
		    span_is(of_context(&c, "email"), "a@b.example"));
	in.body_read = true;
	in.body = SPAN_LIT("{\"email\": \"c@d.example\", \"seats\": 12}");
	in.peer_trusted = false;
	identity_find_context(&op, &in, &c);
	assert_false(c.wants_body);
	assert_null(of_context(&c, "plan").ptr);
	assert_true(span_is(of_context(&c, "email"), "c@d.example") &&
		    span_is(of_context(&c, "seats"), "12"));
	assert_true(span_is(of_context(&c, "country"), "n\xc3\xa9"));
	assert_null(of_context(&c, "api_version").ptr); /* a literal is the configuration's */
}

static bool contains(const char *range, const char *peer)
{
	struct cidr c;
	struct err e = {""};
	if (cidr_parse(span_of(range), &c, &e) != 0)
		fail_msg("%s", e.text);
	struct sockaddr_in v4 = {.sin_family = AF_INET};
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
	if (inet_pton(AF_INET, peer, &v4.sin_addr) == 1)
		return cidr_contains(&c, (const struct sockaddr *)&v4, sizeof(v4));
	assert_int_equal(inet_pton(AF_INET6, peer, &v6.sin6_addr), 1);
	return cidr_contains(&c, (const struct sockaddr *)&v6, sizeof(v6));
}

static void ranges(void **state)
{
	(void)state;
	assert_true(contains("127.0.0.0/8", "127.1.2.3"));
	assert_true(contains("127.0.0.0/8", "::ffff:127.1.2.3"));
	assert_false(contains("127.0.0.0/8", "128.0.0.1"));
	assert_true(contains("10.1.2.3", "10.1.2.3"));
	assert_false(contains("10.1.2.3", "10.1.2.4"));
	assert_true(contains("10.1.2.128/25", "10.1.2.200"));
	assert_false(contains("10.1.2.128/25", "10.1.2.127"));
	assert_true(contains("::1", "::1"));
	assert_false(contains("::1", "0.0.0.1"));
	assert_true(contains("2001:db8::/33", "2001:db8:7fff::1"));
	assert_false(contains("2001:db8::/33", "2001:db8:8000::1"));
	assert_true(contains("0.0.0.0/0", "8.8.8.8"));
	assert_false(contains("0.0.0.0/0", "2001:db8::1"));
	assert_true(contains("::/0", "8.8.8.8"));
	struct cidr c;
	struct sockaddr_un local = {.sun_family = AF_UNIX};
	assert_int_equal(cidr_parse(SPAN_LIT("unix"), &c, NULL), 0);
	assert_true(cidr_contains(&c, (const struct sockaddr *)&local, sizeof(sa_family_t)));
	assert_int_equal(cidr_parse(SPAN_LIT("::/0"), &c, NULL), 0);
	assert_false(cidr_contains(&c, (const struct sockaddr *)&local, sizeof(sa_family_t)));
	assert_false(cidr_contains(&c, NULL, 0));
}

static void bad_ranges(void **state)
{
	(void)state;
	static const struct {
		const char *range, *text;
	} cases[] = {
		{"", "\"\" is not an IP address"},
		{"localhost", "\"localhost\" is not an IP address"},
		{"10.0.0", "\"10.0.0\" is not an IP address"},
		{"10.0.0.0/33", "\"10.0.0.0/33\": \"/\" must be followed by a number of bits from 0 to 32"},
		{"10.0.0.0/", "\"10.0.0.0/\": \"/\" must be followed by a number of bits from 0 to 32"},
		{"10.0.0.0/-1", "\"10.0.0.0/-1\": \"/\" must be followed by a number of bits from 0 to 32"},
		{"::1/129", "\"::1/129\": \"/\" must be followed by a number of bits from 0 to 128"},
		{"10.0.0.1/8", "\"10.0.0.1/8\" has address bits set beyond its first 8"},
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct cidr c;
		struct err e = {""};
		assert_int_equal(cidr_parse(span_of(cases[i].range), &c, &e), -EINVAL);
		assert_string_equal(e.text, cases[i].text);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(examples),
					   cmocka_unit_test(path_parameters),
					   cmocka_unit_test(entity_is_the_first_present),
					   cmocka_unit_test(ranges),
					   cmocka_unit_test(bad_ranges),
					   cmocka_unit_test(cookies),
					   cmocka_unit_test(context_comes_from_the_request)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
