/*
 * The recorded evaluations of real Flipt servers, replayed: every answer must be the server's.
 *
 * v1 (1.61.1) and v2 (2.11) are samples of larger ones: every distinct answer of every flag, every value of
 * every property. v2.8 (2.8.0) and v2.9 (2.9.0, of the same file) hold what versions differ in: shares that
 * do not add up to 100 and malformed constraints.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/crypto.h"
#include "base/file.h"
#include "base/json.h"
#include "programs/router/evaluate.h"

#define CORPUS_MAX (64u << 20)

struct differing {
	/* lines that differ, and how many of them are about the flag v_no_segments */
	size_t lines, of_no_segments;
};

static void path_of(char out[512], const char *version, const char *file)
{
	const char *root = getenv("SOURCE_ROOT");
	assert_true(snprintf(out, 512, "%s/tests/fixtures/flipt/%s/%s", root ? root : ".", version, file) <
		    512);
}

static bool read_fixture(const char *version, const char *file, struct buf *out)
{
	char path[512];
	path_of(path, version, file);
	*out = BUF_INIT(CORPUS_MAX);
	return access(path, R_OK) == 0 && file_read(path, CORPUS_MAX, out, NULL) == 0;
}

/* --- comparing answers ---------------------------------------------------------------------------------- */
static bool same(const struct json_node *a, const struct json_node *b);

static bool same_text(const char *a, const char *b)
{
	return a && b ? strcmp(a, b) == 0 : a == b;
}

static bool same_object(const struct json_node *a, const struct json_node *b)
{
	if (json_count(a) != json_count(b))
		return false;
	for (const struct json_node *m = json_first(a); m; m = json_next(m)) {
		const struct json_node *other = json_get(b, json_key(m));
		if (!other || !same(m, other))
			return false;
	}
	return true;
}

static bool same_array(const struct json_node *a, const struct json_node *b)
{
	if (json_count(a) != json_count(b))
		return false;
	for (a = json_first(a), b = json_first(b); a; a = json_next(a), b = json_next(b)) {
		if (!same(a, b))
			return false;
	}
	return true;
}

static bool same(const struct json_node *a, const struct json_node *b)
{
	double x = 0, y = 0;
	if (json_node_type(a) != json_node_type(b))
		return false;
	switch (json_node_type(a)) {
	case JSON_NUMBER:
		return json_number(a, &x) && json_number(b, &y) && x == y;
	case JSON_STRING:
		return same_text(json_string(a), json_string(b));
	case JSON_ARRAY:
		return same_array(a, b);
	case JSON_OBJECT:
		return same_object(a, b);
	default:
		return true;
	}
}

/* Flipt lists segment keys in random order. */
static bool same_set(const struct json_node *a, const struct json_node *b)
{
	if (json_count(a) != json_count(b))
		return false;
	for (const struct json_node *x = json_first(a); x; x = json_next(x)) {
		const struct json_node *y = json_first(b);
		while (y && !same(x, y))
			y = json_next(y);
		if (!y)
			return false;
	}
	return true;
}

static bool same_attachment(const char *a, const char *b)
{
	struct json_doc *x = NULL, *y = NULL;
	if (!a || !b || !*a || !*b)
		return same_text(a, b);
	bool fine = json_doc_parse(span_of(a), &x, NULL) == 0 && json_doc_parse(span_of(b), &y, NULL) == 0 &&
		    same(json_root(x), json_root(y));
	json_doc_free(x);
	json_doc_free(y);
	return fine;
}

static bool same_result(const struct json_node *a, const struct json_node *b)
{
	const struct json_node *x = json_first(a), *y = json_first(b);
	for (; x && y; x = json_next(x), y = json_next(y)) {
		const char *key = json_key(x);
		if (!same_text(key, json_key(y))) /* also the order of the members */
			return false;
		bool equal = strcmp(key, "segment_keys") == 0 ? same_set(x, y)
			     : strcmp(key, "attachment") == 0
				     ? same_attachment(json_string(x), json_string(y))
				     : same(x, y);
		if (!equal)
			return false;
	}
	return !x && !y;
}

static struct json_doc *result_of(struct span line)
{
	struct json_doc *doc = NULL;
	struct span result;
	assert_true(json_pointer(line, SPAN_LIT("/result"), &result));
	assert_int_equal(json_doc_parse(result, &doc, NULL), 0);
	return doc;
}

/* --- replaying ------------------------------------------------------------------------------------------ */
static bool replay_line(const struct flag_snapshot *s, struct span line, struct buf *out)
{
	struct err e;
	buf_clear(out);
	int r = evaluate_line(s, line, out, &e);
	if (r < 0)
		fail_msg("%s", e.text);
	struct json_doc *expected = result_of(line), *got = result_of(buf_span(out));
	bool fine = same_result(json_root(expected), json_root(got));
	json_doc_free(expected);
	json_doc_free(got);
	return fine;
}

static struct differing replay(const struct flag_snapshot *s, struct span corpus, size_t *ret_lines)
{
	struct differing d = {0, 0};
	struct buf out = BUF_INIT(CORPUS_MAX);
	*ret_lines = 0;
	while (corpus.len) {
		const char *newline = memchr(corpus.ptr, '\n', corpus.len);
		struct span line = {corpus.ptr, newline ? (size_t)(newline - corpus.ptr) : corpus.len};
		struct span flag;
		++*ret_lines;
		if (!replay_line(s, line, &out)) {
			assert_true(json_pointer(line, SPAN_LIT("/flag"), &flag));
			d.lines++;
			if (span_is(flag, "\"v_no_segments\""))
				d.of_no_segments++;
			else
				print_error("differs: %.*s\n     got: %s\n", SPAN_ARG(line), out.ptr);
		}
		corpus.ptr += line.len + (newline != NULL);
		corpus.len -= line.len + (newline != NULL);
	}
	buf_release(&out);
	return d;
}

/* Replays one corpus against one document, by the rules of that version. */
static void replay_document(const char *version, const char *document, enum flag_rules rules, size_t flags,
			    struct differing *ret, size_t *ret_lines)
{
	struct buf text, corpus;
	struct flag_snapshot *s = NULL;
	struct err e;
	assert_true(read_fixture(version, document, &text));
	assert_true(read_fixture(version, "evaluations.jsonl", &corpus));
	int r = strstr(document, ".yml")
			? flag_snapshot_parse_features(document, buf_span(&text), rules, &s, &e)
			: flag_snapshot_parse_json(document, buf_span(&text), rules, &s, &e);
	if (r < 0)
		fail_msg("%s", e.text);
	assert_int_equal(flag_snapshot_count(s), flags);
	assert_int_equal(flag_snapshot_mistakes(s), 0);
	*ret = replay(s, buf_span(&corpus), ret_lines);
	flag_snapshot_unref(s);
	buf_release(&text);
	buf_release(&corpus);
}

/* What may differ: nothing, except that v1's snapshot has no rules of zero segments. The server itself
 * answers the flag v_no_segments (a rule AND over no segments: everybody) from its store, with MATCH; its
 * snapshot lists the flag with `"rules": []`, so nobody who evaluates the snapshot can know: UNKNOWN. All 60
 * recorded lines of that flag differ, in the sample as in the whole, and no other line. (v_no_segments_or
 * matches nobody either way.) */
static void every_answer_is_the_servers(void **state)
{
	static const struct {
		const char *version, *document;
		enum flag_rules rules;
		size_t flags, lines, differ;
	} rows[] = {{"v2", "features.yml", FLAG_RULES_V2_11, 238, 1884, 0},
		    {"v2", "snapshot.json", FLAG_RULES_V2_11, 238, 1884, 0},
		    {"v1", "features.yml", FLAG_RULES_V1, 238, 1884, 0},
		    {"v1", "snapshot.json", FLAG_RULES_V1, 238, 1884, 60},
		    {"v2.8", "features.yml", FLAG_RULES_V2_0, 45, 480, 0},
		    {"v2.8", "snapshot.json", FLAG_RULES_V2_0, 45, 480, 0},
		    {"v2.9", "../v2.8/features.yml", FLAG_RULES_V2_9, 45, 480, 0}};
	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct differing d;
		size_t n = 0;
		replay_document(rows[i].version, rows[i].document, rows[i].rules, rows[i].flags, &d, &n);
		print_message("%s %s: %zu lines, %zu differ\n", rows[i].version, rows[i].document, n,
			      d.lines);
		assert_true(n >= rows[i].lines);
		assert_int_equal(d.lines, rows[i].differ);
		assert_int_equal(d.of_no_segments, rows[i].differ);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(every_answer_is_the_servers)};
	return crypto_setup() < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
