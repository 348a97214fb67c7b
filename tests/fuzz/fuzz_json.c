/* JSON spans: the scanner, the pointers and the iterators must agree, documents must take all that is valid,
 * and text must survive quoting. The input's first line, when there is more than one, is a pointer into
 * the rest. */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"

static void check(bool holds)
{
	if (!holds)
		abort();
}

/* Each value that iteration finds is valid by itself. Returns how many values there are. */
static size_t walk(struct span value)
{
	size_t n = 1;
	struct json_iter it;
	struct span key, item;
	check(json_validate(value, NULL) == 0 && value.ptr == span_trim(value).ptr);
	json_iter_init(&it, value);
	while (json_iter_next(&it, &key, &item)) {
		CLEANUP(buf_releasep) struct buf text = BUF_INIT(1u << 20);
		check((key.ptr != NULL) == (json_type_of(value) == JSON_OBJECT));
		check(!key.ptr || json_unescape(key, &text) == 0);
		n += walk(item);
	}
	return n;
}

static size_t count(const struct json_node *node)
{
	size_t n = 1;
	for (const struct json_node *c = json_first(node); c; c = json_next(c))
		n += count(c);
	return n;
}

static void check_valid(struct span text, struct span pointer)
{
	struct span pointers[3] = {pointer, SPAN_LIT(""), pointer}, values[3], alone;
	check(json_pointers(text, pointers, 3, values, NULL) == 0);
	check(values[1].ptr && span_eq(values[0], values[2]));
	check(json_pointer(text, pointer, &alone) == (values[0].ptr != NULL));
	check(values[0].ptr == alone.ptr && values[0].len == alone.len);
	check(!values[0].ptr || json_validate(values[0], NULL) == 0);
	check(!values[0].ptr || json_pointer_valid(pointer));
	check(text.len > 1000 || json_equal(values[1], values[1]) == 1);

	struct json_doc *doc = NULL, *again = NULL;
	CLEANUP(buf_releasep) struct buf printed = BUF_INIT(64u << 20);
	check(json_doc_parse(text, &doc, NULL) == 0);
	check(walk(values[1]) == count(json_root(doc)));
	check(json_print(json_root(doc), &printed) == 0);
	check(json_doc_parse(buf_span(&printed), &again, NULL) == 0);
	json_doc_free(doc);
	json_doc_free(again);
}

static void check_text(struct span text)
{
	CLEANUP(buf_releasep) struct buf quoted = BUF_INIT(16u << 20);
	CLEANUP(buf_releasep) struct buf back = BUF_INIT(16u << 20);
	CLEANUP(buf_releasep) struct buf twice = BUF_INIT(16u << 20);
	check(json_quote(&quoted, text) == 0);
	check(json_validate(buf_span(&quoted), NULL) == 0);
	check(json_unescape(buf_span(&quoted), &back) == 0);
	check(json_quote(&twice, buf_span(&back)) == 0);
	check(span_eq(buf_span(&quoted), buf_span(&twice)));
	struct span as_value = text;
	buf_clear(&back);
	int r = json_unescape(as_value, &back);
	check(r == 0 || r == -EINVAL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct span text = {(const char *)data, size}, pointer = SPAN_LIT("/a");
	const char *newline = size ? memchr(data, '\n', size) : NULL;
	if (newline) {
		pointer = (struct span){text.ptr, (size_t)(newline - text.ptr)};
		text = (struct span){newline + 1, size - pointer.len - 1};
	}
	struct err e;
	int r = json_validate(text, &e);
	check(r == 0 || (r == -EBADMSG && strlen(e.text) > 0));
	if (r == 0)
		check_valid(text, pointer);
	check_text(text);
	return 0;
}
