/*
 * argsrepr and kwargsrepr: what people see in logs, Flower and `inspect`. The same text as Celery's saferepr
 * for the values that JSON has: cut after 1024 characters (at the last blank, inside a string), three levels
 * deep, open brackets closed.
 */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "tasks/celery/celery_message.h"
#include "tasks/number.h"

#define MAX_LEVELS 3

struct repr {
	struct buf *out;
	long left; /* characters; closing brackets are not counted once it is used up */
	int level;
	bool cut;
};

static long characters(struct span s)
{
	long n = 0;
	for (size_t i = 0; i < s.len; i++)
		n += ((unsigned char)s.ptr[i] & 0xc0) != 0x80;
	return n;
}

/* Whether there is still room; the first token without room becomes the ellipsis. */
static bool room(struct repr *p)
{
	if (!p->cut && p->left <= 0) {
		buf_puts(p->out, ", ...");
		p->cut = true;
	}
	return !p->cut;
}

static void put(struct repr *p, struct span token)
{
	if (!room(p))
		return;
	buf_append_span(p->out, token);
	p->left -= characters(token);
}

/* As much of a raw string as `n` characters can need: a megabyte is not unescaped for its first line. */
static struct span raw_prefix(struct span string, long n, struct buf *copy)
{
	size_t i = 1;
	for (long units = (n + 2) * 2; units > 0 && i < string.len - 1; units--) {
		if (string.ptr[i] == '\\')
			i += string.ptr[i + 1] == 'u' ? 6 : 2;
		else
			i++;
		while (i < string.len - 1 && ((unsigned char)string.ptr[i] & 0xc0) == 0x80)
			i++;
	}
	if (i >= string.len - 1)
		return string;
	buf_append(copy, string.ptr, i);
	buf_putc(copy, '"');
	return copy->error ? string : buf_span(copy);
}

/* At most p->left characters, cut at the last blank among them. */
static bool truncate_text(const struct repr *p, struct span *s)
{
	size_t i = 0;
	if (characters(*s) < p->left)
		return false;
	for (long n = 0; i < s->len; i++) {
		if (((unsigned char)s->ptr[i] & 0xc0) != 0x80 && n++ == p->left)
			break;
	}
	s->len = i;
	const char *blank = memrchr(s->ptr, ' ', s->len);
	if (blank)
		s->len = (size_t)(blank - s->ptr);
	return true;
}

static void put_string(struct repr *p, struct span value)
{
	CLEANUP(buf_releasep) struct buf raw = BUF_INIT(1u << 20);
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(1u << 20);
	CLEANUP(buf_releasep) struct buf token = BUF_INIT(1u << 20);
	if (!room(p) || json_unescape(raw_prefix(value, p->left, &raw), &text) < 0)
		return;
	struct span s = buf_span(&text);
	bool shortened = truncate_text(p, &s);
	buf_putc(&token, '\'');
	for (size_t i = 0; i < s.len; i++) {
		if (s.ptr[i] == '\'')
			buf_putc(&token, '\\');
		buf_putc(&token, s.ptr[i]);
	}
	buf_puts(&token, shortened ? "...'" : "'");
	put(p, buf_span(&token));
}

static void put_plain(struct repr *p, struct span value)
{
	if (!room(p))
		return;
	bool shortened = truncate_text(p, &value);
	put(p, value);
	if (shortened)
		buf_puts(p->out, "...");
}

static void put_number(struct repr *p, struct span value)
{
	CLEANUP(buf_releasep) struct buf token = BUF_INIT(1u << 16);
	/* An integer of thousands of digits is not worth reading. */
	if (value.len < 4096 && number_text(value, &token) == 0)
		value = buf_span(&token);
	put_plain(p, value);
}

static void put_value(struct repr *p, struct span value);

static void put_container(struct repr *p, struct span value, bool object)
{
	struct json_iter it;
	struct span key, item;
	bool first = true;
	if (p->level >= MAX_LEVELS) {
		put(p, object ? SPAN_LIT("{...}") : SPAN_LIT("[...]"));
		return;
	}
	if (!room(p))
		return; /* its closing bracket is not shown either */
	put(p, object ? SPAN_LIT("{") : SPAN_LIT("["));
	p->level++;
	json_iter_init(&it, value);
	while (!p->cut && json_iter_next(&it, &key, &item)) {
		if (!first)
			put(p, SPAN_LIT(", "));
		first = false;
		if (object) {
			put_string(p, key);
			put(p, SPAN_LIT(": "));
		}
		put_value(p, item);
	}
	p->level--;
	buf_putc(p->out, object ? '}' : ']');
	p->left--;
}

static void put_value(struct repr *p, struct span value)
{
	if (p->cut)
		return;
	switch (json_type_of(value)) {
	case JSON_NULL:
		put_plain(p, SPAN_LIT("None"));
		break;
	case JSON_FALSE:
		put_plain(p, SPAN_LIT("False"));
		break;
	case JSON_TRUE:
		put_plain(p, SPAN_LIT("True"));
		break;
	case JSON_NUMBER:
		put_number(p, value);
		break;
	case JSON_STRING:
		put_string(p, value);
		break;
	case JSON_ARRAY:
		put_container(p, value, false);
		break;
	case JSON_OBJECT:
		put_container(p, value, true);
		break;
	}
}

int celery_repr(struct span value, size_t max, struct buf *out)
{
	struct repr p = {.out = out, .left = (long)max};
	put_value(&p, value);
	return out->error;
}
