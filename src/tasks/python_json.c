#include "tasks/python_json.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "base/json.h"

enum { HAS_TYPE = 1, HAS_VALUE = 2, HAS_OTHER = 4, IS_OBJECT = 8 };
#define WRAPPER (HAS_TYPE | HAS_VALUE | IS_OBJECT)
#define LONGEST_KEY 64 /* "__value__" with all its characters escaped */

/* A pass over valid JSON: which containers are open, and which keys they have. */
struct python_walk {
	struct span json;
	size_t at, depth;
	uint8_t keys[JSON_MAX_DEPTH];
};

static size_t string_end(struct span json, size_t at)
{
	for (at++; at < json.len && json.ptr[at] != '"'; at++)
		at += json.ptr[at] == '\\';
	return at < json.len ? at + 1 : json.len;
}

static bool python_json_is_key(const struct python_walk *w, size_t end)
{
	while (end < w->json.len && strchr(" \t\r\n", w->json.ptr[end]))
		end++;
	return end < w->json.len && w->json.ptr[end] == ':';
}

static uint8_t key_bit(struct span quoted)
{
	CLEANUP(buf_releasep) struct buf name = BUF_INIT(LONGEST_KEY * 4);
	if (quoted.len > LONGEST_KEY || json_unescape(quoted, &name) < 0)
		return HAS_OTHER;
	if (span_is(buf_span(&name), "__type__"))
		return HAS_TYPE;
	return span_is(buf_span(&name), "__value__") ? HAS_VALUE : HAS_OTHER;
}

/* The next token: a string, a bracket, or a run of other characters up to one. Its keys are noted; of a
 * closing bracket *ret_keys are its container's. false at the end. */
static bool walk_next(struct python_walk *w, struct span *ret, uint8_t *ret_keys)
{
	size_t begin = w->at;
	if (begin >= w->json.len)
		return false;
	char c = w->json.ptr[begin];
	*ret_keys = 0;
	w->at++;
	if (c == '"') {
		w->at = string_end(w->json, begin);
		if (w->depth && python_json_is_key(w, w->at))
			w->keys[w->depth - 1] |= key_bit((struct span){w->json.ptr + begin, w->at - begin});
	} else if (c == '{' || c == '[') {
		if (w->depth < JSON_MAX_DEPTH)
			w->keys[w->depth++] = c == '{' ? IS_OBJECT : 0;
	} else if (c == '}' || c == ']') {
		*ret_keys = w->depth ? w->keys[--w->depth] : 0;
	} else {
		while (w->at < w->json.len && !strchr("\"{}[],: \t\r\n", w->json.ptr[w->at]))
			w->at++;
	}
	*ret = (struct span){w->json.ptr + begin, w->at - begin};
	return true;
}

static bool is_long_integer(struct span token)
{
	size_t i = token.ptr[0] == '-';
	while (i < token.len && token.ptr[i] >= '0' && token.ptr[i] <= '9')
		i++;
	return i == token.len && token.len > PYTHON_DIGITS_MAX;
}

int python_json_check(struct span json, bool celery, struct err *e)
{
	size_t levels = celery ? CELERY_LEVELS_MAX : PYTHON_LEVELS_MAX;
	struct python_walk w = {.json = json};
	struct span token;
	uint8_t keys;
	while (walk_next(&w, &token, &keys)) {
		if (w.depth > levels)
			return err_set(e, -EINVAL,
				       "the input is nested deeper than %zu levels, which Python workers "
				       "cannot read",
				       levels);
		if (celery && keys == WRAPPER)
			return err_set(e, -EINVAL,
				       "the input has an object of __type__ and __value__, which kombu reads "
				       "as another type");
		if (is_long_integer(token))
			return err_set(e, -EINVAL,
				       "the input has an integer of more than %d digits, which Python "
				       "workers cannot read",
				       PYTHON_DIGITS_MAX);
	}
	return 0;
}

/* --- unwrapping ----------------------------------------------------------------------------------------- */

/* [text] → "text", with what Celery 5.2 prefixed with a date, and Z for UTC. */
static void python_json_put_instant(struct span quoted, bool date, struct buf *out)
{
	struct span text = {quoted.ptr, quoted.len - 1};
	static const struct span utc = SPAN_INIT("+00:00");
	bool zulu =
		!date && text.len > utc.len && memcmp(text.ptr + text.len - utc.len, utc.ptr, utc.len) == 0;
	buf_append(out, text.ptr, text.len - (zulu ? utc.len : 0));
	if (date)
		buf_puts(out, "T00:00:00");
	else if (zulu)
		buf_putc(out, 'Z');
	buf_putc(out, '"');
}

/* {"hex": "…32 digits…"} → "8-4-4-4-12" */
static bool put_uuid(struct span value, struct buf *out)
{
	struct span hex;
	if (!json_pointer(value, SPAN_LIT("/hex"), &hex) || json_type_of(hex) != JSON_STRING || hex.len != 34)
		return false;
	buf_putc(out, '"');
	for (size_t i = 1; i < 33; i++) {
		if (i == 9 || i == 13 || i == 17 || i == 21)
			buf_putc(out, '-');
		buf_putc(out, hex.ptr[i]);
	}
	buf_putc(out, '"');
	return true;
}

static bool put_unwrapped(struct span object, struct buf *out)
{
	static const struct span pointers[] = {SPAN_INIT("/__type__"), SPAN_INIT("/__value__")};
	struct span f[2];
	if (json_pointers(object, pointers, 2, f, NULL) < 0)
		return false;
	if (span_is(f[0], "\"uuid\""))
		return put_uuid(f[1], out);
	if (json_type_of(f[1]) != JSON_STRING || f[1].len < 2)
		return false;
	if (span_is(f[0], "\"datetime\"") || span_is(f[0], "\"date\"")) {
		python_json_put_instant(f[1], span_is(f[0], "\"date\""), out);
		return true;
	}
	if (!span_is(f[0], "\"time\"") && !span_is(f[0], "\"decimal\"") && !span_is(f[0], "\"bytes\"") &&
	    !span_is(f[0], "\"base64\""))
		return false;
	buf_append_span(out, f[1]);
	return true;
}

int python_json_unwrap(struct span json, struct buf *out)
{
	struct python_walk w = {.json = json};
	CLEANUP(buf_releasep) struct buf value = BUF_INIT(out->max);
	size_t begins[JSON_MAX_DEPTH];
	struct span token;
	uint8_t keys;
	while (walk_next(&w, &token, &keys)) {
		if (token.ptr[0] == '{' || token.ptr[0] == '[')
			begins[w.depth - 1] = out->len;
		buf_append_span(out, token);
		if (keys != WRAPPER || out->error)
			continue;
		buf_clear(&value);
		struct span object = {buf_span(out).ptr + begins[w.depth], out->len - begins[w.depth]};
		if (put_unwrapped(object, &value)) {
			out->len = begins[w.depth];
			buf_append_span(out, buf_span(&value));
		}
	}
	return out->error ? out->error : value.error;
}
