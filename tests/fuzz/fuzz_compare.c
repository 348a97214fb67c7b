/* Two answers: an answer equals itself whatever the options; what differs from left to right differs from
 * right to left; a redacted body is JSON unless it was cut. The input's first line, where
 * there are three, is a pattern for one rule; the next two are the bodies. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "compare/compare.h"
#include "compare/compare_redact.h"

static void check(bool holds)
{
	if (!holds)
		abort();
}

static struct span next_line(struct span *rest)
{
	const char *newline = rest->len ? memchr(rest->ptr, '\n', rest->len) : NULL;
	struct span line = {rest->ptr, newline ? (size_t)(newline - rest->ptr) : rest->len};
	rest->ptr += line.len + (newline != NULL);
	rest->len -= line.len + (newline != NULL);
	return line;
}

static void check_pair(struct span a, struct span b, const struct compare_options *o)
{
	static struct compare_result there, back;
	struct compare_answer left = {.status = 200, .body = a}, right = {.status = 200, .body = b};
	compare_answers(&left, &left, o, &there);
	check(there.verdict == COMPARE_EQUAL);
	compare_answers(&left, &right, o, &there);
	compare_answers(&right, &left, o, &back);
	check(there.verdict == back.verdict && there.n == back.n);
	for (uint32_t i = 0; i < there.n; i++) {
		const struct compare_difference *d = &there.differences[i];
		check(d->count > 0 && strlen(d->path) < COMPARE_PATH_SIZE);
		check(!d->left.ptr || json_validate(d->left, NULL) == 0);
		check(!d->right.ptr || json_validate(d->right, NULL) == 0);
	}
}

static void check_redacted(struct span text, const struct compare_pattern *pattern)
{
	if (!text.len || json_validate(text, NULL) != 0)
		return;
	struct compare_redaction none = {.patterns = pattern, .n_patterns = pattern != NULL};
	for (size_t limit = 8; limit < 4096; limit *= 8) {
		CLEANUP(buf_releasep) struct buf out = BUF_INIT(limit);
		bool secret;
		int e = compare_redact_json(text, &none, &text, &secret, 1, &out);
		bool cut = out.len >= 3 && memcmp(out.ptr + out.len - 3, "\xe2\x80\xa6", 3) == 0;
		check(e < 0 || cut || json_validate(buf_span(&out), NULL) == 0);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct span rest = {(const char *)data, size};
	struct span first = next_line(&rest), a = next_line(&rest), b = rest;
	struct compare_pattern pattern;
	bool parsed = compare_pattern_parse(first, &pattern) == NULL;
	struct compare_rule rules[4] = {
		{.pattern = pattern, .ignore = true},
		{.pattern = pattern, .unordered = true, .fold_case = true, .fold_space = true},
		{.pattern = pattern, .unordered = true, .key = (char *)"/id", .map = true},
		{.pattern = pattern, .tolerance = 0.5, .relative = 0.1, .similarity = 0.5},
	};
	struct compare_options o = {0};
	check_pair(a, b, &o);
	for (size_t i = 0; i < 4 && parsed; i++) {
		o = (struct compare_options){.rules = &rules[i], .n_rules = 1};
		check_pair(a, b, &o);
	}
	check_redacted(a, NULL);
	if (parsed) {
		check_redacted(a, &pattern);
		compare_pattern_release(&pattern);
	}
	return 0;
}
