/* Pickles of plain values become JSON; all others are not read, and nothing of any is run. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/buf.h"
#include "tasks/celery/celery_pickle.h"

static void unhex(const char *hex, struct buf *out)
{
	for (; hex[0] && hex[1]; hex += 2) {
		const char pair[] = {hex[0], hex[1], '\0'};
		buf_putc(out, (char)strtoul(pair, NULL, 16));
	}
}

/* The first five as a worker of Celery 5.4 has stored them. */
static const struct {
	const char *hex, *json; /* NULL: not read */
} cases[] = {
	{"80054b032e", "3"},
	{"80059519000000000000007d948c0161945d94284b014e8847400400000000000065732e",
	 "{\"a\": [1, null, true, 2.5]}"},
	{"8005954d000000000000007d94288c086578635f74797065948c0a56616c75654572726f72948c0b6578635f6d657373616"
	 "7659"
	 "48c0562616420339485948c0a6578635f6d6f64756c65948c086275696c74696e7394752e",
	 "{\"exc_type\": \"ValueError\", \"exc_message\": [\"bad 3\"], \"exc_module\": \"builtins\"}"},
	/* {'d': datetime.datetime(…), …} */
	{"800595a1000000000000007d94288c0164948c086461746574696d65948c086461746574696d65949394430a07e40102030"
	 "4050000"
	 "0094859452942e",
	 NULL},
	{"80049500000000000000008a090000000000000000402e", "1180591620717411303424"},
	/* protocol 2, as Python 2 wrote it: {'a': u'\xe4', 1: -5, None: (1, 2, 3)} */
	{"80027d71002858010000006171015802000000c3a471024b014afbffffff4e4b014b024b03877103752e",
	 "{\"a\": \"\xc3\xa4\", \"1\": -5, \"null\": [1, 2, 3]}"},
	{"80058a002e", "0"},
	{"80058a01ff2e", "-1"},
	{"80058a0200802e", "-32768"},
	{"80055d942e", "[]"},
	{"80057d942e", "{}"},
	{"8005292e", "[]"},
	{"80058c00942e", "\"\""},
	{"800547bff00000000000002e", "-1.0"},
	{"8005473fb999999999999a2e", "0.1"},
	{"8005477e37e43c8800759c2e", "1e+300"},
	{"80054740c81cd6e631f8a12e", "12345.6789"},
	{"8005477ff80000000000002e", NULL}, /* NaN */
	{"8005477ff00000000000002e", NULL}, /* infinity */
	/* print("run"): GLOBAL, then REDUCE; and by STACK_GLOBAL */
	{"800263627569676c74696e730a7072696e740a580300000072756e85522e", NULL},
	{"80058c086275696c74696e73948c057072696e749493948c0372756e948594522e", NULL},
	/* bytes; a set; a persistent id; an extension; protocol 0 */
	{"80054303616263942e", NULL},
	{"80058f94284b01902e", NULL},
	{"8005512e", NULL},
	{"800582012e", NULL},
	{"49330a2e", NULL},
	/* nothing; two values; a mark; items without a container; an odd number of them; no such memos */
	{"80052e", NULL},
	{"80054b014b022e", NULL},
	{"8005282e", NULL},
	{"8005284b01652e", NULL},
	{"80057d284b01752e", NULL},
	{"80054b01612e", NULL},
	{"800568002e", NULL},
	{"80056affffffff2e", NULL},
	{"800571002e", NULL},
	/* sizes beyond the end, and beyond everything */
	{"80058cff612e", NULL},
	{"800558ffffffff612e", NULL},
	{"80058dffffffffffffffff612e", NULL},
	{"80058bffffffff2e", NULL},
	/* a list within itself: a = []; a.append(a) */
	{"80055d946800612e", NULL},
};

static void plain_values_are_read_and_nothing_else_is(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		CLEANUP(buf_releasep) struct buf bytes = BUF_INIT(4096), json = BUF_INIT(1u << 20);
		unhex(cases[i].hex, &bytes);
		int r = celery_pickle_to_json(buf_span(&bytes), &json);
		if (!cases[i].json != (r < 0))
			fail_msg("case %zu: %d, %s", i, r, json.ptr ? json.ptr : "");
		if (cases[i].json)
			assert_string_equal(json.ptr, cases[i].json);
	}
}

/* Cut anywhere, and with any byte changed: an error or some value, and no more than that. */
static void a_broken_pickle_is_an_error_at_most(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		CLEANUP(buf_releasep) struct buf bytes = BUF_INIT(4096), json = BUF_INIT(1u << 20);
		unhex(cases[i].hex, &bytes);
		for (size_t n = 0; n < bytes.len; n++) {
			buf_clear(&json);
			assert_true(celery_pickle_to_json((struct span){bytes.ptr, n}, &json) < 0);
			for (int byte = 0; byte < 256; byte++) {
				char kept = bytes.ptr[n];
				buf_clear(&json);
				bytes.ptr[n] = (char)byte;
				celery_pickle_to_json(buf_span(&bytes), &json);
				bytes.ptr[n] = kept;
			}
		}
	}
}

/* Lists of twice the list before: 2^60 values in 300 bytes. */
static void what_grows_without_end_is_cut_off(void **state)
{
	CLEANUP(buf_releasep) struct buf bytes = BUF_INIT(4096), json = BUF_INIT(1u << 20);
	(void)state;
	unhex("80055d94", &bytes);
	for (int i = 0; i < 60; i++) {
		unhex("68", &bytes);
		buf_putc(&bytes, (char)i);
		unhex("8694", &bytes);
	}
	buf_putc(&bytes, '.');
	assert_int_equal(celery_pickle_to_json(buf_span(&bytes), &json), -EFBIG);
}

static void levels_are_limited(void **state)
{
	(void)state;
	for (int more = 0; more < 2; more++) {
		CLEANUP(buf_releasep) struct buf bytes = BUF_INIT(1u << 16), json = BUF_INIT(1u << 20);
		unhex("80055d", &bytes);
		for (int i = 1; i < CELERY_PICKLE_LEVELS + more; i++)
			unhex("85", &bytes);
		buf_putc(&bytes, '.');
		assert_int_equal(celery_pickle_to_json(buf_span(&bytes), &json) < 0, more);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(plain_values_are_read_and_nothing_else_is),
					   cmocka_unit_test(a_broken_pickle_is_an_error_at_most),
					   cmocka_unit_test(what_grows_without_end_is_cut_off),
					   cmocka_unit_test(levels_are_limited)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
