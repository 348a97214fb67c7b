/*
 * The key by which the ledger knows what a call is about, as every reader of the request finds it.
 *
 * Why:       legacy, a task and what is in front of the router may read a request otherwise than the router
 *            does: the first or the last of two parameters, ';' between parameters, up to a fragment or a
 *            NUL. A key that they could read differently is none.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/text.h"
#include "router/request/request.h"

static struct span behind(struct span source, struct span prefix)
{
	return (struct span){source.ptr + prefix.len, source.len - prefix.len};
}

/* Where it was looked for is known, and in `found`: the key is usable, or no entry can have it. */
static enum pin_key usable_key(bool found, const struct buf *key)
{
	if (key->error == -ENOMEM)
		return PIN_KEY_UNREADABLE;
	if (!found || key->error || key->len >= LEDGER_KEY_MAX)
		return PIN_KEY_NONE;
	return text_is_plain(buf_span(key)) ? PIN_KEY_FOUND : PIN_KEY_AMBIGUOUS;
}

/* --- query ---------------------------------------------------------------------------------------------- */

/* Whether all parameters of that name say the same, and that is what `key` has. */
static bool all_say(struct span target, struct span name, bool found, const struct buf *key)
{
	CLEANUP(buf_releasep) struct buf value = BUF_INIT(PIN_KEY_ROOM);
	size_t at = 0, n = 0;
	for (; route_query_next(target, name, &at, &value); n++)
		if (value.error != key->error || !span_eq(buf_span(&value), buf_span(key)))
			return false;
	return found ? n > 0 : n == 0;
}

/* The same target as those read it who separate parameters with ';', too, or cut it at a fragment. */
static bool read_alike(struct span target, struct span name, bool found, const struct buf *key)
{
	const char *fragment = memchr(target.ptr, '#', target.len);
	struct span before = {target.ptr, fragment ? (size_t)(fragment - target.ptr) : 0};
	if (fragment && !all_say(before, name, found, key))
		return false;
	size_t path = route_path(target).len;
	if (!memchr(target.ptr + path, ';', target.len - path))
		return true;
	CLEANUP(buf_releasep) struct buf copy = BUF_INIT(1u << 20);
	if (buf_append_span(&copy, target) < 0)
		return false;
	for (size_t i = path; i < copy.len; i++)
		if (copy.ptr[i] == ';')
			copy.ptr[i] = '&';
	return all_say(buf_span(&copy), name, found, key);
}

static enum pin_key key_in_query(const struct request *r, struct span name, struct buf *key)
{
	if (!r->http)
		return PIN_KEY_UNREADABLE;
	struct span target = r->http->target;
	size_t at = 0;
	bool found = route_query_next(target, name, &at, key);
	bool known = key->error != -ENOMEM;
	if (known && (!all_say(target, name, found, key) || !read_alike(target, name, found, key)))
		return PIN_KEY_AMBIGUOUS;
	return usable_key(found, key);
}

/* --- body ----------------------------------------------------------------------------------------------- */

/* The next token of a valid pointer, its escapes resolved. */
static bool next_token(struct span *pointer, struct buf *token)
{
	buf_clear(token);
	if (pointer->len == 0)
		return false;
	size_t i = 1;
	for (; i < pointer->len && pointer->ptr[i] != '/'; i++) {
		bool escaped = pointer->ptr[i] == '~' && i + 1 < pointer->len;
		char c = pointer->ptr[i];
		if (escaped)
			c = pointer->ptr[++i] == '1' ? '/' : '~';
		buf_putc(token, c);
	}
	*pointer = (struct span){pointer->ptr + i, pointer->len - i};
	return true;
}

static bool pin_key_is_key(struct span quoted, struct span name)
{
	struct span inside = {quoted.ptr + 1, quoted.len - 2};
	if (!memchr(inside.ptr, '\\', inside.len))
		return span_eq(inside, name);
	CLEANUP(buf_releasep) struct buf plain = BUF_INIT(quoted.len + 16);
	return json_unescape(quoted, &plain) == 0 && span_eq(buf_span(&plain), name);
}

/* The member or element of that name; false when one is there twice with differing texts: some take the
 * first, some the last. */
static bool only_one(struct span container, struct span name, struct span *ret)
{
	struct json_iter it;
	struct span key, item;
	char place[24];
	size_t n = 0;
	*ret = SPAN_NONE;
	json_iter_init(&it, container);
	for (; json_iter_next(&it, &key, &item); n++) {
		snprintf(place, sizeof(place), "%zu", n);
		if (key.ptr ? !pin_key_is_key(key, name) : !span_is(name, place))
			continue;
		if (ret->ptr && !span_eq(*ret, item))
			return false;
		*ret = item;
	}
	return true;
}

static bool has_doubles(struct span value, struct span pointer)
{
	CLEANUP(buf_releasep) struct buf token = BUF_INIT(PIN_KEY_ROOM);
	while (value.ptr && next_token(&pointer, &token))
		if (!only_one(value, buf_span(&token), &value))
			return true;
	return false;
}

static enum pin_key key_in_body(const struct request *r, struct span pointer, struct buf *key)
{
	struct span value, body = span_strip(buf_span(&r->body));
	if (r->http && !r->http->has_body)
		return PIN_KEY_NONE;
	if (!r->body_complete)
		return PIN_KEY_UNREADABLE;
	if (body.len == 0)
		return PIN_KEY_NONE;
	if (json_pointers(body, &pointer, 1, &value, NULL) != 0)
		return PIN_KEY_MALFORMED;
	if (has_doubles(body, pointer))
		return PIN_KEY_AMBIGUOUS;
	if (!value.ptr || json_type_of(value) != JSON_STRING)
		return PIN_KEY_NONE;
	return usable_key(json_unescape(value, key) == 0, key);
}

/* --- face ----------------------------------------------------------------------------------------------- */

enum pin_key request_pin_key(const struct request *r, struct buf *key)
{
	static const struct span body = SPAN_INIT("body:"), query = SPAN_INIT("query:");
	static const struct span path = SPAN_INIT("path:");
	struct span where = r->op->pin_key;
	if (span_starts(where, body))
		return key_in_body(r, behind(where, body), key);
	if (span_starts(where, query))
		return key_in_query(r, behind(where, query), key);
	if (!span_starts(where, path))
		return PIN_KEY_NONE;
	bool found = route_parameter(&r->match, behind(where, path), key);
	return usable_key(found, key);
}

/* --- its turn ----------------------------------------------------------------------------------------- */

const char *request_turn(struct request *r)
{
	if (!r->turn[0])
		crypto_random_id(r->turn);
	return r->turn;
}

void request_leave_turn(struct request *r)
{
	struct ledger_entry entry = {0};
	if (!r->turn[0])
		return;
	if (r->pin_key.len && ledger_entry_set(&entry, r->op->pin_group, buf_span(&r->pin_key)) == 0)
		ledger_leave(r->plane->env->ledger, &entry, r->turn);
	r->turn[0] = '\0';
}
