/*
 * ns per flag evaluation: `bench-decide FEATURES [REQUESTS]` prints one line, name=value pairs.
 *
 * REQUESTS are lines of the corpus (flag, entity_id, context); without them every flag of the file is asked
 * for made-up users and organizations. Each request is timed as a run of REPEAT evaluations, the clock's own
 * cost taken off; median and p99 are over the requests, best of ROUNDS rounds each, so that an interrupted
 * run does not count.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/crypto.h"
#include "base/file.h"
#include "base/json.h"
#include "flags/flags.h"

#define REPEAT 32
#define ROUNDS 5
#define CONTEXT_MAX 16
#define MADE_UP 2000

struct request {
	const struct flag *flag;
	struct span entity_id;
	struct flag_context context[CONTEXT_MAX];
	size_t n_context;
};

struct workload {
	struct request *requests;
	size_t n, room;
};

static void die(const char *sentence)
{
	fprintf(stderr, "bench-decide: %s\n", sentence);
	exit(1);
}

static struct request *add(struct workload *w)
{
	if (w->n == w->room) {
		w->room = w->room ? w->room * 2 : 1024;
		w->requests = realloc(w->requests, w->room * sizeof(*w->requests));
		if (!w->requests)
			die("out of memory");
	}
	struct request *r = &w->requests[w->n++];
	r->n_context = 0;
	return r;
}

/* A copy that lives as long as the program. */
static struct span text_of(struct span value)
{
	struct buf b = BUF_INIT(1 << 20);
	if (value.ptr && json_type_of(value) == JSON_STRING && json_unescape(value, &b) < 0)
		die("a string is too long");
	size_t n = b.len;
	return (struct span){buf_steal(&b), n};
}

static void add_line(struct workload *w, const struct flag_snapshot *s, struct span line)
{
	const struct span pointers[] = {SPAN_LIT("/flag"), SPAN_LIT("/entity_id"), SPAN_LIT("/context")};
	struct span values[3], key, value;
	struct json_iter it;
	if (json_pointers(line, pointers, 3, values, NULL) < 0 || !values[0].ptr || !values[1].ptr ||
	    !values[2].ptr)
		die("a request is not as in the corpus");
	struct request *r = add(w);
	r->flag = flag_find(s, text_of(values[0]));
	if (!r->flag)
		die("a request names an unknown flag");
	r->entity_id = text_of(values[1]);
	json_iter_init(&it, values[2]);
	while (r->n_context < CONTEXT_MAX && json_iter_next(&it, &key, &value))
		r->context[r->n_context++] = (struct flag_context){text_of(key), text_of(value)};
}

static void add_lines(struct workload *w, const struct flag_snapshot *s, struct span text)
{
	while (text.len) {
		const char *newline = memchr(text.ptr, '\n', text.len);
		size_t n = newline ? (size_t)(newline - text.ptr) : text.len;
		if (n)
			add_line(w, s, (struct span){text.ptr, n});
		text.ptr += n + (newline != NULL);
		text.len -= n + (newline != NULL);
	}
}

/* What the router asks: four entries of context, and every tenth request from the beta organization. */
static void make_up(struct workload *w, const struct flag_snapshot *s)
{
	for (size_t i = 0; i < MADE_UP; i++) {
		char user[64], org[64];
		snprintf(user, sizeof(user), "user-%zu", i * 7919);
		snprintf(org, sizeof(org), "org-%zu", i % 97);
		struct request *r = add(w);
		r->flag = flag_snapshot_at(s, i % flag_snapshot_count(s));
		r->entity_id = span_of(strdup(user));
		r->context[r->n_context++] = (struct flag_context){SPAN_LIT("user_id"), r->entity_id};
		r->context[r->n_context++] = (struct flag_context){
			SPAN_LIT("organization_id"), i % 10 ? span_of(strdup(org)) : SPAN_LIT("beta_org")};
		r->context[r->n_context++] = (struct flag_context){SPAN_LIT("service"), SPAN_LIT("prompt")};
		r->context[r->n_context++] = (struct flag_context){SPAN_LIT("operation"), SPAN_LIT("answer")};
	}
}

/* ns of one look-up and evaluation. */
static double time_request(const struct flag_snapshot *s, const struct request *r)
{
	struct flag_result result;
	struct span key = span_of(flag_key(r->flag));
	int64_t start = clock_mono_ns();
	for (int i = 0; i < REPEAT; i++) {
		flag_evaluate(s, flag_find(s, key), r->entity_id, r->context, r->n_context, &result, NULL);
		__asm__ volatile(""
				 :
				 : "r"(&result)
				 : "memory"); /* the answer is used, as far as the compiler knows */
	}
	return (double)(clock_mono_ns() - start);
}

static double clock_cost(void)
{
	double best = 1e9;
	for (int i = 0; i < 1000; i++) {
		int64_t start = clock_mono_ns();
		double cost = (double)(clock_mono_ns() - start);
		best = cost < best ? cost : best;
	}
	return best;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static void measure(const char *name, const struct flag_snapshot *s, const struct workload *w)
{
	double *best = calloc(w->n, sizeof(*best)), overhead = clock_cost();
	if (!best || w->n == 0)
		die("nothing to measure");
	for (int round = 0; round < ROUNDS; round++) {
		for (size_t i = 0; i < w->n; i++) {
			double ns = (time_request(s, &w->requests[i]) - overhead) / REPEAT;
			if (round == 0 || ns < best[i])
				best[i] = ns < 0 ? 0 : ns;
		}
	}
	qsort(best, w->n, sizeof(*best), compare);
	printf("file=%s flags=%zu requests=%zu median_ns=%.0f p99_ns=%.0f max_ns=%.0f\n", name,
	       flag_snapshot_count(s), w->n, best[w->n / 2], best[w->n * 99 / 100], best[w->n - 1]);
	free(best);
}

int main(int argc, char **argv)
{
	struct buf text = BUF_INIT(FLAG_MAX_DOCUMENT), lines = BUF_INIT(FLAG_MAX_DOCUMENT);
	struct flag_snapshot *s = NULL;
	struct workload w = {NULL, 0, 0};
	struct err e;
	if (argc < 2 || argc > 3)
		die("usage: bench-decide FEATURES [REQUESTS]");
	if (crypto_setup() < 0 || file_read(argv[1], FLAG_MAX_DOCUMENT, &text, &e) < 0 ||
	    flag_snapshot_parse_features(argv[1], buf_span(&text), FLAG_RULES_V2, &s, &e) < 0)
		die(e.text);
	if (flag_snapshot_count(s) == 0)
		die("the file has no flags");
	if (argc == 2)
		make_up(&w, s);
	else if (file_read(argv[2], FLAG_MAX_DOCUMENT, &lines, &e) < 0)
		die(e.text);
	else
		add_lines(&w, s, buf_span(&lines));
	measure(argv[1], s, &w);
	return 0;
}
