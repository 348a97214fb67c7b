/* organizations: each has its own places in flight, and is forgotten with its last one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>

#include "base/crypto.h"
#include "router/request/organizations.h"

#define SHOP SPAN_LIT("shop")

static void each_has_its_own_places(void **state)
{
	(void)state;
	struct organizations *o;
	struct organization_place *a[2], *b, *other, *none;
	assert_int_equal(organizations_new(&o), 0);
	for (int i = 0; i < 2; i++)
		assert_int_equal(organization_take(o, SHOP, SPAN_LIT("acme"), 2, &a[i]), 0);
	assert_int_equal(organization_take(o, SHOP, SPAN_LIT("acme"), 2, &none), -EBUSY);
	assert_null(none);
	assert_int_equal(organization_take(o, SHOP, SPAN_LIT("other"), 2, &b), 0);
	assert_int_equal(organization_take(o, SPAN_LIT("shopa"), SPAN_LIT("cme"), 2, &other), 0);
	organization_give(o, a[0]);
	assert_int_equal(organization_take(o, SHOP, SPAN_LIT("acme"), 2, &a[0]), 0);
	assert_int_equal(organization_take(o, SHOP, SPAN_LIT("acme"), 3, &none),
			 0); /* a reload allows more */
	organization_give(o, none);
	organization_give(o, a[0]);
	organization_give(o, a[1]);
	organization_give(o, b);
	organization_give(o, other);
	organization_give(o, NULL);
	organizations_free(o);
}

/* However many there are, none is counted for another. */
static void strangers_share_nothing(void **state)
{
	(void)state;
	enum { N = 50000 };
	static struct organization_place *places[N];
	struct organizations *o;
	assert_int_equal(organizations_new(&o), 0);
	for (int i = 0; i < N; i++) {
		char name[32];
		snprintf(name, sizeof(name), "org-%d", i);
		assert_int_equal(organization_take(o, SHOP, span_of(name), 1, &places[i]), 0);
	}
	for (int i = 0; i < N; i += 2)
		organization_give(o, places[i]);
	organizations_free(o);
}

static struct organizations *shared;

static void *crowd(void *arg)
{
	unsigned *held = arg;
	for (int i = 0; i < 20000; i++) {
		struct organization_place *place;
		if (organization_take(shared, SHOP, i % 2 ? SPAN_LIT("a") : SPAN_LIT("b"), 2, &place) == 0) {
			(*held)++;
			organization_give(shared, place);
		}
	}
	return NULL;
}

static void threads_share_it(void **state)
{
	(void)state;
	pthread_t threads[4];
	unsigned held[4] = {0};
	assert_int_equal(organizations_new(&shared), 0);
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, crowd, &held[i]), 0);
	for (int i = 0; i < 4; i++) {
		pthread_join(threads[i], NULL);
		assert_true(held[i] > 0);
	}
	struct organization_place *places[2];
	for (int i = 0; i < 2; i++) /* all were given back */
		assert_int_equal(organization_take(shared, SHOP, SPAN_LIT("a"), 2, &places[i]), 0);
	organizations_free(shared);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_has_its_own_places),
		cmocka_unit_test(strangers_share_nothing),
		cmocka_unit_test(threads_share_it),
	};
	return crypto_setup() < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
