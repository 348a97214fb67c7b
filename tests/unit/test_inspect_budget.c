/* router: inspect_budget. Nobody takes the memory for bodies from the others. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <netinet/in.h>

#include "router/request/inspect_budget.h"

static struct inspect_budget budget;
static struct config config = {.max_inspect_body = 100, .max_inspect_memory = 1000};

static struct inspect_claim claim_of(const char *address, const char *forwarded_for, bool stranger)
{
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
	struct sockaddr_in v4 = {.sin_family = AF_INET};
	struct http_field field = {SPAN_LIT("x-forwarded-for"), span_of(forwarded_for)};
	struct http_request r = {.fields = &field, .n_fields = forwarded_for ? 1 : 0};
	if (inet_pton(AF_INET, address, &v4.sin_addr) == 1) {
		r.peer = (const struct sockaddr *)&v4;
		r.peer_length = sizeof(v4);
	} else {
		assert_int_equal(inet_pton(AF_INET6, address, &v6.sin6_addr), 1);
		r.peer = (const struct sockaddr *)&v6;
		r.peer_length = sizeof(v6);
	}
	struct inspect_claim c;
	inspect_claim_init(&c, &budget, &config, &r, stranger, 1);
	return c;
}

static int setup(void **state)
{
	(void)state;
	atomic_store(&budget.seed, 12345); /* of which the addresses below have places of their own */
	return 0;
}

static void what_is_announced_costs_nothing(void **state)
{
	(void)state;
	struct inspect_claim many[50];
	for (size_t i = 0; i < 50; i++)
		many[i] = claim_of("192.0.2.1", NULL, true);
	struct inspect_claim c = claim_of("192.0.2.1", NULL, true);
	assert_true(inspect_claim_more(&c, 100));
	inspect_claim_release(&c);
	for (size_t i = 0; i < 50; i++)
		inspect_claim_release(&many[i]);
	assert_int_equal(atomic_load(&budget.held), 0);
}

static void one_peer_gets_half(void **state)
{
	(void)state;
	struct inspect_claim a = claim_of("192.0.2.1", NULL, false), b = claim_of("192.0.2.1", NULL, false);
	struct inspect_claim other = claim_of("192.0.2.2", NULL, false);
	assert_true(a.peer != other.peer);
	assert_true(inspect_claim_more(&a, 300));
	assert_true(inspect_claim_more(&b, 200));
	assert_false(inspect_claim_more(&b, 1));
	assert_true(inspect_claim_more(&other, 500));
	assert_false(inspect_claim_more(&other, 1)); /* all of it */
	inspect_claim_release(&a);
	assert_true(inspect_claim_more(&b, 300));
	inspect_claim_release(&b);
	inspect_claim_release(&other);
	assert_int_equal(atomic_load(&budget.held), 0);
	assert_int_equal(atomic_load(&budget.peers[a.peer]), 0);
}

static void strangers_get_a_quarter_together(void **state)
{
	(void)state;
	struct inspect_claim a = claim_of("192.0.2.1", NULL, true), b = claim_of("192.0.2.2", NULL, true);
	struct inspect_claim known = claim_of("192.0.2.2", NULL, false);
	assert_true(inspect_claim_more(&a, 200));
	assert_true(inspect_claim_more(&b, 50));
	assert_false(inspect_claim_more(&b, 1));
	assert_true(inspect_claim_more(&known, 400));
	inspect_claim_release(&a);
	inspect_claim_release(&b);
	inspect_claim_release(&known);
	assert_int_equal(atomic_load(&budget.strangers), 0);
	assert_int_equal(atomic_load(&budget.held), 0);
}

static void peers_are_told_apart_by_what_they_cannot_choose(void **state)
{
	(void)state;
	/* Nobody is trusted here: the field says nothing. */
	assert_int_equal(claim_of("192.0.2.1", "198.51.100.1", false).peer,
			 claim_of("192.0.2.1", "198.51.100.2", false).peer);
	/* One customer's network. */
	assert_int_equal(claim_of("2001:db8:1:2::1", NULL, false).peer,
			 claim_of("2001:db8:1:2:ffff::2", NULL, false).peer);
	assert_true(claim_of("2001:db8:1:2::1", NULL, false).peer !=
		    claim_of("2001:db8:1:3::1", NULL, false).peer);
	/* Behind a gateway the last that it added counts, not what came with the request. */
	struct cidr gateway;
	assert_int_equal(cidr_parse(SPAN_LIT("192.0.2.1"), &gateway, NULL), 0);
	config.trusted_proxies.ranges = &gateway;
	config.trusted_proxies.n_cidr = 1;
	unsigned one = claim_of("192.0.2.1", "198.51.100.1", false).peer;
	assert_true(one != claim_of("192.0.2.1", "198.51.100.2", false).peer);
	assert_int_equal(one, claim_of("192.0.2.1", "203.0.113.9, 198.51.100.1", false).peer);
	config.trusted_proxies.n_cidr = 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_announced_costs_nothing),
		cmocka_unit_test(one_peer_gets_half),
		cmocka_unit_test(strangers_get_a_quarter_together),
		cmocka_unit_test(peers_are_told_apart_by_what_they_cannot_choose),
	};
	return cmocka_run_group_tests(tests, setup, NULL);
}
