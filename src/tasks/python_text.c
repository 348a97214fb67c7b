#include "tasks/python_text.h"

#include <errno.h>
#include <locale.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <wctype.h>

#include "base/json.h"
#include "tasks/number.h"

#define LEVELS_MAX 100 /* nobody reads deeper: what lies there is shown as it is */

static int python_text_put_repr(struct span value, unsigned level, struct buf *out);

static int put_string_repr(struct span value, struct buf *out)
{
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(out->max);
	int r = json_unescape(value, &text);
	if (r < 0)
		return r;
	struct span s = buf_span(&text);
	bool single = memchr(s.ptr, '\'', s.len), twice = memchr(s.ptr, '"', s.len);
	char quote = single && !twice ? '"' : '\'';
	buf_putc(out, quote);
	for (size_t i = 0; i < s.len; i++) {
		unsigned char c = (unsigned char)s.ptr[i];
		if (c == '\n')
			buf_puts(out, "\\n");
		else if (c == '\r')
			buf_puts(out, "\\r");
		else if (c == '\t')
			buf_puts(out, "\\t");
		else if (c < 0x20 || c == 0x7f)
			buf_printf(out, "\\x%02x", c);
		else if (c == '\\' || c == quote)
			buf_printf(out, "\\%c", c);
		else
			buf_putc(out, (char)c);
	}
	return buf_putc(out, quote);
}

static int python_text_put_container(struct span value, bool object, unsigned level, struct buf *out)
{
	struct json_iter it;
	struct span key, item;
	const char *separator = "";
	buf_putc(out, object ? '{' : '[');
	json_iter_init(&it, value);
	while (json_iter_next(&it, &key, &item)) {
		buf_puts(out, separator);
		separator = ", ";
		if (object) {
			put_string_repr(key, out);
			buf_puts(out, ": ");
		}
		int r = python_text_put_repr(item, level + 1, out);
		if (r < 0)
			return r;
	}
	return buf_putc(out, object ? '}' : ']');
}

static int python_text_put_repr(struct span value, unsigned level, struct buf *out)
{
	if (level > LEVELS_MAX)
		return buf_append_span(out, value);
	switch (json_type_of(value)) {
	case JSON_NULL:
		return buf_puts(out, "None");
	case JSON_FALSE:
		return buf_puts(out, "False");
	case JSON_TRUE:
		return buf_puts(out, "True");
	case JSON_NUMBER:
		return number_text(value, out);
	case JSON_STRING:
		return put_string_repr(value, out);
	case JSON_ARRAY:
		return python_text_put_container(value, false, level, out);
	case JSON_OBJECT:
		return python_text_put_container(value, true, level, out);
	}
	return -EINVAL;
}

int python_str(struct span value, struct buf *out)
{
	return json_type_of(value) == JSON_STRING ? json_unescape(value, out)
						  : python_text_put_repr(value, 0, out);
}

int python_tuple(struct span list, struct buf *out)
{
	struct json_iter it;
	struct span key, item;
	size_t n = 0;
	int r = buf_putc(out, '(');
	for (json_iter_init(&it, list); r == 0 && json_iter_next(&it, &key, &item); n++) {
		buf_puts(out, n ? ", " : "");
		r = python_text_put_repr(item, 1, out);
	}
	if (r < 0)
		return r;
	return buf_puts(out, n == 1 ? ",)" : ")");
}

/* --- upper case ----------------------------------------------------------------------------------------- */

/* One character of valid UTF-8 at s[*i]; moves *i past it. */
static uint32_t next_character(struct span s, size_t *i)
{
	unsigned char c = (unsigned char)s.ptr[(*i)++];
	unsigned more = 0;
	if (c >= 0xf0)
		more = 3;
	else if (c >= 0xe0)
		more = 2;
	else if (c >= 0xc0)
		more = 1;
	uint32_t value = more == 0 ? c : c & (0x3fu >> more);
	while (more-- && *i < s.len)
		value = value << 6 | ((unsigned char)s.ptr[(*i)++] & 0x3fu);
	return value;
}

static void put_character(uint32_t c, struct buf *out)
{
	if (c < 0x80) {
		buf_putc(out, (char)c);
	} else if (c < 0x800) {
		buf_putc(out, (char)(0xc0 | c >> 6));
		buf_putc(out, (char)(0x80 | (c & 0x3f)));
	} else if (c < 0x10000) {
		buf_putc(out, (char)(0xe0 | c >> 12));
		buf_putc(out, (char)(0x80 | (c >> 6 & 0x3f)));
		buf_putc(out, (char)(0x80 | (c & 0x3f)));
	} else {
		buf_putc(out, (char)(0xf0 | c >> 18));
		buf_putc(out, (char)(0x80 | (c >> 12 & 0x3f)));
		buf_putc(out, (char)(0x80 | (c >> 6 & 0x3f)));
		buf_putc(out, (char)(0x80 | (c & 0x3f)));
	}
}

int python_upper(struct span text, struct buf *out)
{
	locale_t unicode = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0);
	for (size_t i = 0; i < text.len;) {
		uint32_t c = next_character(text, &i);
		if (c == 0xdf)
			buf_puts(out, "SS");
		else if (c < 0x80)
			buf_putc(out, (char)(c >= 'a' && c <= 'z' ? c - 32 : c));
		else
			put_character(unicode ? (uint32_t)towupper_l((wint_t)c, unicode) : c, out);
	}
	if (unicode)
		freelocale(unicode);
	return out->error;
}

/* --- exceptions ----------------------------------------------------------------------------------------- */

size_t python_class_length(struct span raised)
{
	size_t i = 0;
	static const struct span locals = SPAN_INIT("<locals>");
	while (i < raised.len &&
	       (span_starts((struct span){raised.ptr + i, raised.len - i}, locals) || raised.ptr[i] == '_' ||
		raised.ptr[i] == '.' || (raised.ptr[i] >= '0' && raised.ptr[i] <= '9') ||
		((raised.ptr[i] | 0x20) >= 'a' && (raised.ptr[i] | 0x20) <= 'z')))
		i += raised.ptr[i] == '<' ? locals.len : 1;
	bool is_class = i && i + 2 < raised.len && raised.ptr[i] == ':' && raised.ptr[i + 1] == ' ';
	return is_class && !span_starts(raised, SPAN_LIT("KeyError: ")) ? i + 2 : 0;
}

static struct span python_text_next_line(struct span text)
{
	const char *end = memchr(text.ptr, '\n', text.len);
	size_t n = end ? (size_t)(end - text.ptr) + 1 : text.len;
	return (struct span){text.ptr + n, text.len - n};
}

struct span python_raised(struct span text)
{
	static const struct span head = SPAN_INIT("Traceback (most recent call last):\n");
	struct span raised = SPAN_NONE;
	for (struct span rest = text; rest.len; rest = python_text_next_line(rest))
		if (span_starts(rest, head))
			raised = python_text_next_line(rest);
	while (raised.len && raised.ptr[0] == ' ')
		raised = python_text_next_line(raised);
	raised = span_strip(raised);
	size_t class = python_class_length(raised);
	return raised.len ? (struct span){raised.ptr + class, raised.len - class} : SPAN_NONE;
}
