/*
 * JSON as spans of raw text: one scanner that validates and, on the way, finds what pointers name.
 *
 * It is on the path of every request whose body is looked into (100 bytes to 16 MiB), hence: one pass, no
 * recursion, no allocation, eight bytes at a time inside strings.
 */
#include "base/digits.h"
#include "base/json.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "base/text.h"
#include "base/utf8.h"

#define GROUP 64 /* pointers that one pass follows: a bit each */

/* A container that is open around the current value. */
struct level {
	const char *begin;
	uint64_t live; /* pointers whose path leads through it */
	size_t index;  /* of the current element */
	bool object;
};

struct scan {
	const char *at, *end;
	const char *problem; /* what is wrong at `at`, once something is */
	bool python;	     /* NaN and Infinity are numbers */
	const char *begin;   /* of the current value */
	uint64_t live;	     /* pointers whose path so far is the current value's */
	size_t depth;
	struct level levels[JSON_MAX_DEPTH];
	const struct span *pointers;
	struct span *values;
	size_t cursor[GROUP]; /* bytes of each live pointer that are matched: a token's end */
};

static const char too_deep[] = "nested too deeply";

static bool wrong(struct scan *s, const char *problem)
{
	s->problem = problem;
	return false;
}

static inline bool is_blank(char c)
{
	return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

static inline const char *skip_blanks(const char *p, const char *end)
{
	while (p < end && is_blank(*p))
		p++;
	return p;
}

/* --- strings -------------------------------------------------------------------------------------------- */

/* The first byte from p on that is not plain inside a string: a quote, a backslash, a control character or
 * not ASCII. */
static inline const char *skip_plain(const char *p, const char *end)
{
	const uint64_t ones = 0x0101010101010101u, tops = 0x8080808080808080u;
	while (end - p >= 8) {
		uint64_t w;
		memcpy(&w, p, 8);
		/* A top bit set by a borrow lies above the byte that caused it: the lowest set one is
		 * always true. */
		uint64_t stop =
			(w | (w - ones * 0x20) | ((w ^ ones * '"') - ones) | ((w ^ ones * '\\') - ones)) &
			tops;
		if (stop) {
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
			return p + (__builtin_ctzll(stop) >> 3);
#else
			break;
#endif
		}
		p += 8;
	}
	while (p < end && (unsigned char)*p >= 0x20 && (unsigned char)*p < 0x80 && *p != '"' && *p != '\\')
		p++;
	return p;
}

/* The four hex digits at p, or -1. */
static int32_t json_span_hex4(const char *p, const char *end)
{
	uint32_t value;
	return hex_read(p, end, 4, &value) ? (int32_t)value : -1;
}

/* s->at is on the backslash. */
static bool scan_escape(struct scan *s)
{
	const char *p = s->at + 1;
	if (p == s->end)
		return wrong(s, "the text ends inside a string");
	if (*p == 'u') {
		if (json_span_hex4(p + 1, s->end) < 0)
			return wrong(s, "\\u needs four hex digits");
		s->at = p + 5;
		return true;
	}
	if (!*p || !strchr("\"\\/bfnrt", *p))
		return wrong(s, "unknown escape in a string");
	s->at = p + 1;
	return true;
}

/* s->at is on the opening quote; after the closing one. */
static bool scan_string(struct scan *s)
{
	s->at++;
	for (;;) {
		s->at = skip_plain(s->at, s->end);
		if (s->at == s->end)
			return wrong(s, "the text ends inside a string");
		unsigned char c = (unsigned char)*s->at;
		if (c == '"') {
			s->at++;
			return true;
		}
		if (c == '\\') {
			if (!scan_escape(s))
				return false;
		} else if (c < 0x20) {
			return wrong(s, "control character in a string");
		} else {
			size_t n = utf8_sequence(s->at, s->end);
			if (n == 0)
				return wrong(s, "not UTF-8");
			s->at += n;
		}
	}
}

/* --- scalars -------------------------------------------------------------------------------------------- */
static bool scan_digits(struct scan *s)
{
	if (s->at == s->end || !is_digit(*s->at))
		return wrong(s, "missing digit in a number");
	while (s->at < s->end && is_digit(*s->at))
		s->at++;
	return true;
}

static bool scan_number(struct scan *s)
{
	if (*s->at == '-')
		s->at++;
	if (s->at < s->end && *s->at == '0') {
		s->at++;
		if (s->at < s->end && is_digit(*s->at))
			return wrong(s, "a number must not begin with 0");
	} else if (!scan_digits(s)) {
		return false;
	}
	if (s->at < s->end && *s->at == '.') {
		s->at++;
		if (!scan_digits(s))
			return false;
	}
	if (s->at < s->end && (*s->at | 0x20) == 'e') {
		s->at++;
		if (s->at < s->end && (*s->at == '+' || *s->at == '-'))
			s->at++;
		return scan_digits(s);
	}
	return true;
}

static bool scan_word(struct scan *s, struct span word)
{
	if ((size_t)(s->end - s->at) < word.len || memcmp(s->at, word.ptr, word.len) != 0)
		return wrong(s, "not a JSON value");
	s->at += word.len;
	return true;
}

/* What Python's json writes for floats that are no numbers. */
static bool scan_no_number(struct scan *s)
{
	static const struct span words[] = {SPAN_INIT("NaN"), SPAN_INIT("Infinity"), SPAN_INIT("-Infinity")};
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if ((size_t)(s->end - s->at) >= words[i].len &&
		    memcmp(s->at, words[i].ptr, words[i].len) == 0) {
			s->at += words[i].len;
			return true;
		}
	return false;
}

/* --- pointers ------------------------------------------------------------------------------------------- */

/* Appends the code point's UTF-8 form; returns its length. */
static size_t encode_utf8(uint32_t c, char out[4])
{
	if (c < 0x80) {
		out[0] = (char)c;
		return 1;
	}
	static const unsigned char leads[] = {0, 0, 0xC0, 0xE0, 0xF0};
	size_t n = 4;
	if (c < 0x800)
		n = 2;
	else if (c < 0x10000)
		n = 3;
	for (size_t i = n - 1; i > 0; i--, c >>= 6)
		out[i] = (char)(0x80 | (c & 0x3F));
	out[0] = (char)(leads[n] | c);
	return n;
}

/* The character that the escape at p (on its backslash) stands for, as UTF-8; *p moves past it. 0 when
 * it is none. */
static size_t decode_escape(const char **p, const char *end, char out[4])
{
	static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
	const char *at = *p + 1;
	if (at == end)
		return 0;
	if (*at != 'u') {
		const char *found = *at ? strchr(from, *at) : NULL;
		if (!found)
			return 0;
		*p = at + 1;
		out[0] = to[found - from];
		return 1;
	}
	int32_t unit = json_span_hex4(at + 1, end);
	if (unit < 0)
		return 0;
	*p = at + 5;
	uint32_t c = (uint32_t)unit;
	if (c >= 0xD800 && c <= 0xDBFF && end - *p >= 6 && (*p)[0] == '\\' && (*p)[1] == 'u') {
		int32_t low = json_span_hex4(*p + 2, end);
		if (low >= 0xDC00 && low <= 0xDFFF) {
			c = 0x10000 + ((c - 0xD800) << 10) + ((uint32_t)low - 0xDC00);
			*p += 6;
		}
	}
	if (c >= 0xD800 && c <= 0xDFFF)
		c = 0xFFFD; /* half of a pair has no UTF-8 form */
	return encode_utf8(c, out);
}

/* Moves over one byte of a pointer's token, ~0 and ~1 resolved; -1 at its end or for another ~. */
static int token_byte(const char **p, const char *end)
{
	if (*p == end)
		return -1;
	char c = *(*p)++;
	if (c != '~')
		return (unsigned char)c;
	if (*p == end || ((*p)[0] != '0' && (*p)[0] != '1'))
		return -1;
	return *(*p)++ == '0' ? '~' : '/';
}

/* Whether the raw key (without its quotes) is the token, both with their escapes. */
static bool key_is_escaped_token(struct span key, struct span token)
{
	const char *k = key.ptr, *k_end = k + key.len, *t = token.ptr, *t_end = t + token.len;
	while (k < k_end) {
		char bytes[4] = {*k};
		size_t n = 1;
		if (*k == '\\')
			n = decode_escape(&k, k_end, bytes);
		else
			k++;
		if (n == 0)
			return false;
		for (size_t i = 0; i < n; i++)
			if (token_byte(&t, t_end) != (unsigned char)bytes[i])
				return false;
	}
	return t == t_end;
}

static bool key_is_token(struct span key, struct span token)
{
	/* An escape is never shorter than what it stands for; ~0 and ~1 are twice as long. */
	if (key.len == token.len && memcmp(key.ptr, token.ptr, key.len) == 0)
		return !memchr(key.ptr, '\\', key.len) && !memchr(token.ptr, '~', token.len);
	if (!memchr(key.ptr, '\\', key.len) && !memchr(token.ptr, '~', token.len))
		return false;
	return key_is_escaped_token(key, token);
}

static bool index_is_token(size_t index, struct span token)
{
	uint64_t value;
	if (token.len > 1 && token.ptr[0] == '0')
		return false;
	return digits_read(token, UINT64_MAX, &value) && value == index;
}

/* Of the container's live pointers those that continue to this member or element. What a duplicate key before
 * it had given is forgotten: the last one wins. */
static uint64_t json_span_descend(struct scan *s, const struct level *container, struct span key)
{
	uint64_t live = 0;
	for (uint64_t rest = container->live; rest; rest &= rest - 1) {
		int i = __builtin_ctzll(rest);
		struct span p = s->pointers[i];
		if (s->cursor[i] == p.len)
			continue; /* names the container itself */
		struct span token = {p.ptr + s->cursor[i] + 1, p.len - s->cursor[i] - 1};
		const char *slash = token.len ? memchr(token.ptr, '/', token.len) : NULL;
		if (slash)
			token.len = (size_t)(slash - token.ptr);
		if (container->object ? !key_is_token(key, token) : !index_is_token(container->index, token))
			continue;
		s->cursor[i] += 1 + token.len;
		s->values[i] = SPAN_NONE;
		live |= rest & -rest;
	}
	return live;
}

/* The current value ends at s->at. */
static void end_value(struct scan *s)
{
	for (uint64_t rest = s->live; rest; rest &= rest - 1) {
		int i = __builtin_ctzll(rest);
		if (s->cursor[i] == s->pointers[i].len)
			s->values[i] = (struct span){s->begin, (size_t)(s->at - s->begin)};
	}
}

/* Back from a member or element to its container. */
static void ascend(struct scan *s)
{
	for (uint64_t rest = s->live; rest; rest &= rest - 1) {
		int i = __builtin_ctzll(rest);
		do
			s->cursor[i]--;
		while (s->pointers[i].ptr[s->cursor[i]] != '/');
	}
	s->live = 0;
}

/* --- the walk ------------------------------------------------------------------------------------------- */

/* Up to the value of the innermost container's next member or element. */
static bool begin_child(struct scan *s)
{
	struct level *container = &s->levels[s->depth - 1];
	s->at = skip_blanks(s->at, s->end);
	struct span key = SPAN_NONE;
	if (container->object) {
		if (s->at == s->end || *s->at != '"')
			return wrong(s, "expected a member name in quotes");
		key.ptr = s->at + 1;
		if (!scan_string(s))
			return false;
		key.len = (size_t)(s->at - key.ptr) - 1;
		s->at = skip_blanks(s->at, s->end);
		if (s->at == s->end || *s->at != ':')
			return wrong(s, "':' is expected");
		s->at++;
	}
	s->live = container->live ? json_span_descend(s, container, key) : 0;
	return true;
}

static bool open_container(struct scan *s, bool *ret_opened)
{
	if (s->depth == JSON_MAX_DEPTH)
		return wrong(s, too_deep);
	bool object = *s->at == '{';
	s->levels[s->depth++] = (struct level){.begin = s->begin, .live = s->live, .object = object};
	s->at = skip_blanks(s->at + 1, s->end);
	if (s->at < s->end && *s->at == (object ? '}' : ']')) {
		s->at++;
		s->depth--;
		return true;
	}
	*ret_opened = true;
	return begin_child(s);
}

/* A scalar or an empty container as a whole, or up to the first child of a container (then *ret_opened). */
static bool begin_value(struct scan *s, bool *ret_opened)
{
	*ret_opened = false;
	s->at = skip_blanks(s->at, s->end);
	s->begin = s->at;
	if (s->at == s->end)
		return wrong(s, "expected a value, but the text ends");
	switch (*s->at) {
	case '"':
		return scan_string(s);
	case '{':
	case '[':
		return open_container(s, ret_opened);
	case 't':
		return scan_word(s, SPAN_LIT("true"));
	case 'f':
		return scan_word(s, SPAN_LIT("false"));
	case 'n':
		return scan_word(s, SPAN_LIT("null"));
	default:
		if (s->python && scan_no_number(s))
			return true;
		return *s->at == '-' || is_digit(*s->at) ? scan_number(s) : wrong(s, "not a JSON value");
	}
}

/* After a child's value: on to the next child, or past the container's end (then *ret_closed). */
static bool after_child(struct scan *s, bool *ret_closed)
{
	struct level *container = &s->levels[s->depth - 1];
	ascend(s);
	*ret_closed = false;
	s->at = skip_blanks(s->at, s->end);
	char c = s->at < s->end ? *s->at : '\0';
	if (c == ',') {
		s->at++;
		container->index++;
		return begin_child(s);
	}
	if (c != (container->object ? '}' : ']'))
		return wrong(s, container->object ? "expected ',' or '}'" : "expected ',' or ']'");
	s->at++;
	s->begin = container->begin;
	s->live = container->live;
	s->depth--;
	*ret_closed = true;
	return true;
}

static bool scan_text(struct scan *s)
{
	for (;;) {
		bool opened, closed = true;
		if (!begin_value(s, &opened))
			return false;
		if (opened)
			continue;
		while (closed) {
			end_value(s);
			if (s->depth == 0) {
				s->at = skip_blanks(s->at, s->end);
				return s->at == s->end || wrong(s, "unexpected text after the value");
			}
			if (!after_child(s, &closed))
				return false;
		}
	}
}

/* Line and column (in characters) of a place, from 1. */
static int report(struct span text, const struct scan *s, struct err *e)
{
	size_t line = 1, column = 1;
	for (const char *p = text.ptr; p < s->at; p++) {
		if (*p == '\n')
			line++, column = 1;
		else if (((unsigned char)*p & 0xC0) != 0x80)
			column++;
	}
	return err_set(e, -EBADMSG, "JSON, line %zu, column %zu: %s", line, column, s->problem);
}

int json_pointers(struct span text, const struct span *pointers, size_t n, struct span *ret_values,
		  struct err *e)
{
	for (size_t i = 0; i < n; i++)
		ret_values[i] = SPAN_NONE;
	if (!text.ptr)
		text = SPAN_LIT("");
	size_t done = 0;
	do {
		struct scan s; /* the levels are written before they are read: not cleared, they are 64 KiB */
		s.at = text.ptr;
		s.end = s.at + text.len;
		s.begin = s.at;
		s.live = 0;
		s.depth = 0;
		s.python = false;
		size_t group = n - done < GROUP ? n - done : GROUP;
		s.pointers = n ? pointers + done : NULL;
		s.values = n ? ret_values + done : NULL;
		for (size_t i = 0; i < group; i++) {
			struct span p = s.pointers[i];
			s.cursor[i] = 0;
			if (p.ptr && (p.len == 0 || p.ptr[0] == '/'))
				s.live |= UINT64_C(1) << i;
		}
		if (!scan_text(&s)) {
			for (size_t i = 0; i < n; i++)
				ret_values[i] = SPAN_NONE;
			return report(text, &s, e);
		}
		done += group;
	} while (done < n);
	return 0;
}

int json_validate(struct span text, struct err *e)
{
	return json_pointers(text, NULL, 0, NULL, e);
}

bool json_python_takes(struct span text)
{
	static const struct span mark = SPAN_INIT("\xEF\xBB\xBF");
	if (span_starts(text, mark)) {
		text.ptr += mark.len;
		text.len -= mark.len;
	} else if (text.len >= 2 && (!memcmp(text.ptr, "\xFE\xFF", 2) || !memcmp(text.ptr, "\xFF\xFE", 2) ||
				     !text.ptr[0] || !text.ptr[1])) {
		return true; /* UTF-16 or UTF-32, as json.detect_encoding has it */
	}
	struct scan s;
	s.at = s.begin = text.ptr;
	s.end = s.at + text.len;
	s.live = 0;
	s.depth = 0;
	s.python = true;
	s.pointers = NULL;
	s.values = NULL;
	return text.len && (scan_text(&s) || s.problem == too_deep);
}

bool json_pointer(struct span text, struct span pointer, struct span *ret_value)
{
	return json_pointers(text, &pointer, 1, ret_value, NULL) == 0 && ret_value->ptr;
}

bool json_pointer_valid(struct span pointer)
{
	if (!pointer.ptr || (pointer.len && pointer.ptr[0] != '/'))
		return false;
	for (size_t i = 0; i < pointer.len; i++)
		if (pointer.ptr[i] == '~' &&
		    (i + 1 == pointer.len || (pointer.ptr[i + 1] != '0' && pointer.ptr[i + 1] != '1')))
			return false;
	return true;
}

enum json_type json_type_of(struct span value)
{
	switch (value.len ? *value.ptr : 'n') {
	case '{':
		return JSON_OBJECT;
	case '[':
		return JSON_ARRAY;
	case '"':
		return JSON_STRING;
	case 't':
		return JSON_TRUE;
	case 'f':
		return JSON_FALSE;
	case 'n':
		return JSON_NULL;
	default:
		return JSON_NUMBER;
	}
}

/* --- text ----------------------------------------------------------------------------------------------- */
int json_unescape(struct span string_value, struct buf *out)
{
	if (string_value.len < 2 || string_value.ptr[0] != '"' ||
	    string_value.ptr[string_value.len - 1] != '"')
		return -EINVAL;
	const char *p = string_value.ptr + 1, *end = string_value.ptr + string_value.len - 1;
	int r = buf_reserve(out, 0); /* an empty string, too, leaves a NUL-terminated buffer */
	if (r == 0)
		buf_terminate(out);
	while (r == 0 && p < end) {
		const char *slash = memchr(p, '\\', (size_t)(end - p));
		size_t plain = (size_t)((slash ? slash : end) - p);
		r = buf_append(out, p, plain);
		p += plain;
		if (r == 0 && slash) {
			char bytes[4];
			size_t n = decode_escape(&p, end, bytes);
			r = n ? buf_append(out, bytes, n) : -EINVAL;
		}
	}
	return r;
}

int json_unescape_front(struct span string_value, struct buf *out)
{
	static const char sign[] = "\xe2\x80\xa6";
	const size_t n = sizeof(sign) - 1, room = out->max - out->len;
	CLEANUP(buf_releasep) struct buf whole = BUF_INIT(string_value.len);
	int r = json_unescape(string_value, &whole);
	if (r < 0)
		return r;
	if (whole.len <= room)
		return buf_append_span(out, buf_span(&whole));
	r = buf_append_span(out, text_front(buf_span(&whole), room > n ? room - n : 0));
	return r == 0 && room >= n ? buf_puts(out, sign) : r;
}

static int quote_control(struct buf *out, unsigned char c)
{
	switch (c) {
	case '\b':
		return buf_append(out, "\\b", 2);
	case '\f':
		return buf_append(out, "\\f", 2);
	case '\n':
		return buf_append(out, "\\n", 2);
	case '\r':
		return buf_append(out, "\\r", 2);
	case '\t':
		return buf_append(out, "\\t", 2);
	default:
		return buf_printf(out, "\\u%04x", c);
	}
}

int json_quote(struct buf *out, struct span text)
{
	const char *p = text.ptr, *end = p ? p + text.len : p;
	size_t start = out->len;
	int r = buf_putc(out, '"');
	while (r == 0 && p < end) {
		const char *stop = skip_plain(p, end), *del = memchr(p, 0x7F, (size_t)(stop - p));
		stop = del ? del : stop;
		r = buf_append(out, p, (size_t)(stop - p));
		p = stop;
		if (r < 0 || p == end)
			break;
		unsigned char c = (unsigned char)*p;
		size_t n = 1;
		if (c < 0x20 || c == 0x7F) {
			r = quote_control(out, c);
		} else if (c < 0x80) {
			char escape[2] = {'\\', (char)c};
			r = buf_append(out, escape, 2);
		} else if ((n = utf8_sequence(p, end)) > 0) {
			/* a terminal that shows the document obeys them */
			bool c1 = c == 0xC2 && (unsigned char)p[1] < 0xA0;
			r = c1 ? quote_control(out, (unsigned char)p[1]) : buf_append(out, p, n);
		} else {
			r = buf_append(out, "\xEF\xBF\xBD", 3);
			n = 1;
		}
		p += n;
	}
	if (r == 0)
		r = buf_putc(out, '"');
	if (r < 0) { /* all or nothing: half a string would swallow what follows */
		out->len = start;
		buf_terminate(out);
	}
	return r;
}

/* --- iteration over valid text -------------------------------------------------------------------------- */

/* Behind the string whose opening quote is at p. */
static const char *skip_string(const char *p, const char *end)
{
	const char *first = ++p;
	for (;;) {
		const char *quote = p < end ? memchr(p, '"', (size_t)(end - p)) : NULL;
		if (!quote)
			return end;
		const char *back = quote;
		while (back > first && back[-1] == '\\')
			back--;
		p = quote + 1;
		if ((quote - back) % 2 == 0)
			return p;
	}
}

static const char *skip_value(const char *p, const char *end)
{
	size_t depth = 0;
	while (p < end) {
		char c = *p;
		if (c == '"') {
			p = skip_string(p, end);
		} else if (c == '{' || c == '[') {
			depth++;
			p++;
			continue;
		} else if (c == '}' || c == ']') {
			if (depth == 0)
				return p;
			depth--;
			p++;
		} else if (depth) {
			p++;
			continue;
		} else {
			while (p < end && *p != ',' && *p != '}' && *p != ']' && !is_blank(*p))
				p++;
		}
		if (depth == 0)
			return p;
	}
	return end;
}

void json_iter_init(struct json_iter *it, struct span value)
{
	bool container = value.len > 0 && (value.ptr[0] == '{' || value.ptr[0] == '[');
	it->at = container ? value.ptr + 1 : NULL;
	it->end = container ? value.ptr + value.len : NULL;
	it->object = container && value.ptr[0] == '{';
	it->begun = false;
}

bool json_iter_next(struct json_iter *it, struct span *ret_key, struct span *ret_value)
{
	const char *p = skip_blanks(it->at, it->end);
	if (it->begun && p < it->end && *p == ',')
		p = skip_blanks(p + 1, it->end);
	it->begun = true;
	*ret_key = *ret_value = SPAN_NONE;
	it->at = it->end;
	if (p >= it->end || *p == '}' || *p == ']')
		return false;
	if (it->object) {
		const char *key_end = skip_string(p, it->end);
		*ret_key = (struct span){p, (size_t)(key_end - p)};
		p = skip_blanks(key_end, it->end);
		if (p < it->end && *p == ':')
			p++;
		p = skip_blanks(p, it->end);
	}
	const char *value_end = skip_value(p, it->end);
	*ret_value = (struct span){p, (size_t)(value_end - p)};
	it->at = value_end;
	return value_end > p;
}
