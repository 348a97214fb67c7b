/* pairs: bounded copies, comparing beside everything else, what is counted, kept, taken out and deleted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "base/clock.h"
#include "base/cleanup.h"
#include "base/db.h"
#include "base/file.h"
#include "base/json.h"
#include "outcomes/recorder.h"
#include "pairs/differences.h"
#include "pairs/pairs.h"
#include "support/scratch.h"

struct world {
	char folder[SCRATCH_MAX], path[SCRATCH_MAX];
	struct pairs *pairs;
	struct recorder *recorder;
	struct compare_policy policy;
	struct compare_rule rule;
};

static const struct pairs_options usual = {.max_answer = 1000,
					   .max_memory = 1u << 20,
					   .samples = 3,
					   .max_sample = 400,
					   .keep_samples_ms = 86400000,
					   .keep_counts_days = 1};

static void begin(struct world *w, const struct pairs_options *o)
{
	struct err e;
	assert_int_equal(pairs_start(o, &w->pairs, &e), 0);
	struct recorder_options r = {.path = w->path, .flush_ms = 5};
	pairs_tap(w->pairs, &r.taps[0]);
	assert_int_equal(recorder_start(&r, &w->recorder, &e), 0);
}

static void end(struct world *w)
{
	pairs_halt(w->pairs);
	w->recorder = recorder_stop(w->recorder);
	w->pairs = pairs_free(w->pairs);
}

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	scratch_make(w->folder);
	scratch_path(w->folder, "outcomes.db", w->path);
	begin(w, &usual);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;
	if (w->pairs)
		end(w);
	scratch_remove(w->folder);
	free(w);
	return 0;
}

static struct pairs_trial *trial(struct world *w, const char *id)
{
	struct pairs_trial *t = pairs_trial_new(w->pairs, &w->policy);
	strcpy(t->service, "s");
	strcpy(t->operation, "op");
	strcpy(t->request_id, id);
	t->time_us = clock_wall_us();
	return t;
}

static void answer(struct pairs_trial *t, enum pairs_slot slot, const char *body)
{
	const struct http_field type = {SPAN_LIT("Content-Type"), SPAN_LIT("application/json")};
	pairs_answer_head(t, slot, 200, &type, 1);
	pairs_answer_body(t, slot, body, strlen(body));
	pairs_answer_end(t, slot);
}

static void pair(struct world *w, const char *legacy, const char *task, const char *again)
{
	struct pairs_trial *t = trial(w, "r");
	answer(t, PAIRS_LEGACY, legacy);
	answer(t, PAIRS_TASK, task);
	t->noise = again != NULL;
	if (again)
		answer(t, PAIRS_AGAIN, again);
	pairs_submit(t);
}

/* Everything is written, and read again. */
static struct differences *read_back(struct world *w, const char *only)
{
	struct differences *d = NULL;
	struct compare_pattern p;
	struct err e = {""};
	end(w);
	struct differences_options o = {.paths = {w->path}, .n_paths = 1, .samples = true};
	if (only) {
		assert_null(compare_pattern_parse(span_of(only), &p));
		o.only = &p;
	}
	assert_int_equal(differences_make(&o, &d, &e), 0);
	if (only)
		compare_pattern_release(&p);
	return d;
}

static bool file_holds(const struct world *w, const char *text)
{
	char wal[SCRATCH_MAX + 8];
	bool found = false;
	snprintf(wal, sizeof(wal), "%s-wal", w->path);
	const char *const paths[] = {w->path, wal};
	for (int i = 0; i < 2; i++) {
		CLEANUP(buf_releasep) struct buf all = BUF_INIT(64u << 20);
		if (file_read(paths[i], 64u << 20, &all, NULL) == 0)
			found |= memmem(all.ptr, all.len, text, strlen(text)) != NULL;
	}
	return found;
}

static void pairs_are_counted_by_path(void **state)
{
	struct world *w = *state;
	for (int i = 0; i < 60; i++)
		pair(w, "{\"a\":1,\"b\":1}", i < 40 ? "{\"a\":2,\"b\":1}" : "{\"a\":1,\"b\":1}",
		     i < 20 ? "{\"a\":1,\"b\":2}" : NULL);
	CLEANUP(differences_freep) struct differences *d = read_back(w, NULL);
	assert_int_equal(d->n_operations, 1);
	const struct differences_operation *op = &d->operations[0];
	assert_string_equal(op->service, "s");
	assert_int_equal(op->counts.compared[PAIRS_SIDES], 60);
	assert_int_equal(op->counts.differing[PAIRS_SIDES], 40);
	assert_int_equal(op->counts.compared[PAIRS_NOISE], 20);
	assert_int_equal(op->counts.differing[PAIRS_NOISE], 20);
	assert_int_equal(op->n_paths, 2);
	assert_string_equal(op->paths[0].path, "body:/a");
	assert_int_equal(op->paths[0].differing, 40);
	assert_true(op->paths[0].beyond); /* noise never differs there */
	assert_string_equal(op->paths[1].path, "body:/b");
	assert_int_equal(op->paths[1].noisy, 20);
	assert_false(op->paths[1].beyond);
	assert_int_equal(op->n_samples, 3);
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(1u << 20);
	assert_int_equal(differences_to_text(d, true, &text), 0);
	assert_non_null(strstr(text.ptr, "s.op: differs in 40 of 60, beyond noise\n"));
	assert_non_null(strstr(text.ptr, "body:/a value, legacy: 1, task: 2\n"));
	buf_clear(&text);
	assert_int_equal(differences_to_json(d, &text), 0);
	assert_int_equal(json_validate(buf_span(&text), NULL), 0);
	buf_clear(&text);
	assert_int_equal(differences_summary(d, &text), 0);
	assert_string_equal(text.ptr, "  s.op: differs in 40 of 60, beyond noise\n");
}

static void one_path_can_be_asked_for(void **state)
{
	struct world *w = *state;
	pair(w, "{\"a\":1,\"b\":1}", "{\"a\":2,\"b\":1}", NULL);
	pair(w, "{\"a\":1,\"b\":1}", "{\"a\":1,\"b\":2}", NULL);
	CLEANUP(differences_freep) struct differences *d = read_back(w, "body:/b");
	assert_int_equal(d->operations[0].n_paths, 1);
	assert_int_equal(d->operations[0].n_samples, 1);
	assert_string_equal(d->operations[0].samples[0].body[1], "{\"a\":1,\"b\":2}");
	assert_false(d->operations[0].noise_known);
}

/* Two routers' files: their counts are one. */
static void files_of_replicas_add_up(void **state)
{
	struct world *w = *state;
	pair(w, "{\"a\":1}", "{\"a\":2}", "{\"a\":1}");
	struct differences *d = read_back(w, NULL);
	differences_free(d);
	struct differences_options o = {.paths = {w->path, w->path}, .n_paths = 2, .samples = true};
	assert_int_equal(differences_make(&o, &d, NULL), 0);
	assert_int_equal(d->n_operations, 1);
	assert_int_equal(d->operations[0].counts.compared[PAIRS_SIDES], 2);
	assert_int_equal(d->operations[0].counts.compared[PAIRS_NOISE], 2);
	assert_int_equal(d->operations[0].n_paths, 1);
	assert_int_equal(d->operations[0].paths[0].differing, 2);
	differences_free(d);
}

static void what_is_beyond_a_limit_is_counted_by_why(void **state)
{
	struct world *w = *state;
	char large[1102];
	memset(large, 'x', 1100);
	large[0] = large[1099] = '"';
	large[1100] = '\0';
	pair(w, "{}", large, NULL);
	struct pairs_trial *t = trial(w, "r"); /* one side never answered */
	answer(t, PAIRS_LEGACY, "{}");
	pairs_submit(t);
	t = trial(w, "r");
	answer(t, PAIRS_TASK, "{}");
	pairs_answer_miss(t, PAIRS_LEGACY, PAIRS_CANCELLED);
	pairs_submit(t);
	t = trial(w, "r");
	const struct http_field brotli = {SPAN_LIT("content-encoding"), SPAN_LIT("br")};
	pairs_answer_head(t, PAIRS_LEGACY, 200, &brotli, 1);
	pairs_answer_body(t, PAIRS_LEGACY, "xx", 2);
	pairs_answer_end(t, PAIRS_LEGACY);
	answer(t, PAIRS_TASK, "{}");
	pairs_submit(t);
	CLEANUP(differences_freep) struct differences *d = read_back(w, NULL);
	const struct pairs_counts *c = &d->operations[0].counts;
	assert_int_equal(c->compared[PAIRS_SIDES], 0);
	assert_int_equal(c->not_compared[PAIRS_SIDES][PAIRS_SIZE], 1);
	assert_int_equal(c->not_compared[PAIRS_SIDES][PAIRS_NO_ANSWER], 1);
	assert_int_equal(c->not_compared[PAIRS_SIDES][PAIRS_CANCELLED], 1);
	assert_int_equal(c->not_compared[PAIRS_SIDES][PAIRS_CODING], 1);
}

static void all_copies_together_have_a_bound(void **state)
{
	struct world *w = *state;
	end(w);
	struct pairs_options small = usual;
	small.max_memory = 1000;
	begin(w, &small);
	struct pairs_trial *held = trial(w, "r"), *other = trial(w, "r");
	char half[501];
	memset(half, '1', 450);
	half[450] = '\0';
	answer(held, PAIRS_LEGACY, half);
	answer(held, PAIRS_TASK, half);
	answer(other, PAIRS_LEGACY, half);
	answer(other, PAIRS_TASK, "{}");
	assert_int_equal(held->answers[PAIRS_TASK].why, PAIRS_WHOLE);
	assert_int_equal(other->answers[PAIRS_LEGACY].why, PAIRS_MEMORY);
	pairs_trial_free(held);
	pairs_submit(other);
	pair(w, "{}", "{}", NULL); /* given back */
	CLEANUP(differences_freep) struct differences *d = read_back(w, NULL);
	assert_int_equal(d->operations[0].counts.compared[PAIRS_SIDES], 1);
	assert_int_equal(d->operations[0].counts.not_compared[PAIRS_SIDES][PAIRS_MEMORY], 1);
}

static void a_coded_body_is_decoded(void **state)
{
	struct world *w = *state;
	const char *plain = "{\"a\":1}";
	unsigned char coded[200];
	z_stream z = {.next_in = (unsigned char *)plain,
		      .avail_in = (unsigned)strlen(plain),
		      .next_out = coded,
		      .avail_out = sizeof(coded)};
	assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
	assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
	size_t n = z.total_out;
	deflateEnd(&z);
	for (int cut = 0; cut < 2; cut++) {
		struct pairs_trial *t = trial(w, "r");
		const struct http_field gzip = {SPAN_LIT("Content-Encoding"), SPAN_LIT("gzip")};
		pairs_answer_head(t, PAIRS_LEGACY, 200, &gzip, 1);
		pairs_answer_body(t, PAIRS_LEGACY, (const char *)coded, n - (size_t)cut * 12);
		pairs_answer_end(t, PAIRS_LEGACY);
		answer(t, PAIRS_TASK, " {\"a\": 1.0}");
		pairs_submit(t);
	}
	CLEANUP(differences_freep) struct differences *d = read_back(w, NULL);
	assert_int_equal(d->operations[0].counts.compared[PAIRS_SIDES], 1);
	assert_int_equal(d->operations[0].counts.differing[PAIRS_SIDES], 0);
	assert_int_equal(d->operations[0].counts.not_compared[PAIRS_SIDES][PAIRS_CODING], 1);
}

static void secrets_never_reach_the_file(void **state)
{
	struct world *w = *state;
	struct compare_pattern listed;
	assert_null(compare_pattern_parse(SPAN_LIT("body:/**/iban"), &listed));
	w->policy.redaction = (struct compare_redaction){&listed, 1};
	pair(w, "{\"access_token\":\"sesame-one\",\"x\":{\"iban\":\"DE-iban-1\"},\"n\":1}",
	     "{\"access_token\":\"sesame-two\",\"x\":{\"iban\":\"DE-iban-2\"},\"n\":2}", NULL);
	pair(w, "secret plain text sesame-three", "other", NULL);
	CLEANUP(differences_freep) struct differences *d = read_back(w, NULL);
	assert_int_equal(d->operations[0].n_samples, 2);
	assert_false(file_holds(w, "sesame"));
	assert_false(file_holds(w, "DE-iban"));
	assert_true(file_holds(w, "body:/x/iban")); /* that they differ is told */
	assert_true(file_holds(w, "access_token"));
	compare_pattern_release(&listed);
}

static void samples_are_few_and_go_by_age(void **state)
{
	struct world *w = *state;
	for (int i = 0; i < 20; i++) {
		char task[40];
		snprintf(task, sizeof(task), "{\"k%d\":1}", i);
		pair(w, "{}", task, NULL);
		while (i % 5 == 4 && !file_holds(w, task)) /* the recorder takes few at once */
			poll(NULL, 0, 2);
	}
	struct differences *d = read_back(w, NULL);
	assert_int_equal(d->operations[0].n_samples, 3);
	assert_non_null(strstr(d->operations[0].samples[0].differences, "k19"));
	assert_int_equal(d->operations[0].n_paths, 20);
	differences_free(d);
	struct pairs_options brief = usual;
	brief.keep_samples_ms = 1;
	begin(w, &brief);
	struct differences_options o = {.paths = {w->path}, .n_paths = 1, .samples = true};
	for (int i = 0; i < 5000; i++) {
		assert_int_equal(differences_make(&o, &d, NULL), 0);
		size_t left = d->operations[0].n_samples;
		bool counted = d->operations[0].counts.compared[PAIRS_SIDES] == 20;
		differences_free(d);
		assert_true(counted); /* counts stay */
		if (left == 0)
			return;
		poll(NULL, 0, 2);
	}
	fail_msg("samples stayed");
}

static void a_file_that_fails_loses_no_counts(void **state)
{
	struct world *w = *state;
	struct db *db;
	struct err e;
	pair(w, "{}", "{}", NULL);
	while (!file_holds(w, "sides"))
		poll(NULL, 0, 2);
	struct db_options o = {.path = w->path, .busy_timeout_ms = 5000};
	assert_int_equal(db_open(&o, &db, &e), 0);
	assert_int_equal(db_begin(db, &e), 0); /* others wait */
	for (int i = 0; i < 10; i++)
		pair(w, "{\"a\":1}", "{\"a\":2}", NULL);
	struct recorder_status status = {0};
	while (!status.failing) {
		recorder_status(w->recorder, &status);
		poll(NULL, 0, 2);
	}
	pair(w, "{\"a\":1}", "{\"a\":2}", NULL);
	db_rollback(db);
	db_close(db);
	CLEANUP(differences_freep) struct differences *d = read_back(w, NULL);
	assert_int_equal(d->operations[0].counts.compared[PAIRS_SIDES], 12);
	assert_int_equal(d->operations[0].paths[0].differing, 11);
}

static void so_many_paths_and_no_more(void **state)
{
	struct world *w = *state;
	for (int i = 0; i < PAIRS_PATHS_MAX + 50; i += 10) {
		char task[400] = "{";
		for (int k = i; k < i + 10; k++)
			sprintf(task + strlen(task), "%s\"p%d\":1", k == i ? "" : ",", k);
		strcat(task, "}");
		pair(w, "{}", task, NULL);
		while (i % 100 == 90 && !file_holds(w, "p95"))
			poll(NULL, 0, 2);
	}
	CLEANUP(differences_freep) struct differences *d = read_back(w, NULL);
	assert_in_range(d->operations[0].n_paths, 2, PAIRS_PATHS_MAX + 1);
	assert_string_equal(d->operations[0].paths[0].path, PAIRS_OTHER);
	uint64_t sum = 0;
	for (size_t i = 0; i < d->operations[0].n_paths; i++)
		sum += d->operations[0].paths[i].differing;
	assert_int_equal(sum, PAIRS_PATHS_MAX + 50);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(pairs_are_counted_by_path, setup, teardown),
		cmocka_unit_test_setup_teardown(one_path_can_be_asked_for, setup, teardown),
		cmocka_unit_test_setup_teardown(files_of_replicas_add_up, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_beyond_a_limit_is_counted_by_why, setup, teardown),
		cmocka_unit_test_setup_teardown(all_copies_together_have_a_bound, setup, teardown),
		cmocka_unit_test_setup_teardown(a_coded_body_is_decoded, setup, teardown),
		cmocka_unit_test_setup_teardown(secrets_never_reach_the_file, setup, teardown),
		cmocka_unit_test_setup_teardown(samples_are_few_and_go_by_age, setup, teardown),
		cmocka_unit_test_setup_teardown(a_file_that_fails_loses_no_counts, setup, teardown),
		cmocka_unit_test_setup_teardown(so_many_paths_and_no_more, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
