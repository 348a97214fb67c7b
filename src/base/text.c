#include "base/text.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"

#define ELLIPSIS "\xe2\x80\xa6"

/* --- plain ---------------------------------------------------------------------------------------------- */

static bool turns_or_breaks(uint32_t c)
{
	return c == 0x2028 || c == 0x2029 || (c >= 0x202A && c <= 0x202E) || (c >= 0x2066 && c <= 0x2069) ||
	       c == 0x200E || c == 0x200F || c == 0x061C;
}

static bool is_control(uint32_t c)
{
	return c < 0x20 || (c >= 0x7F && c <= 0x9F);
}

size_t text_piece(struct span *s, char out[TEXT_PIECE_MAX])
{
	static const char hex[] = "0123456789abcdef";
	if (s->len == 0)
		return 0;
	size_t n = utf8_sequence(s->ptr, s->ptr + s->len);
	uint32_t c = n ? utf8_character(s->ptr, n) : (unsigned char)s->ptr[0];
	size_t length;
	out[0] = '\\';
	if (n == 0) {
		out[1] = 'x';
		out[2] = hex[c >> 4];
		out[3] = hex[c & 15];
		length = 4;
		n = 1;
	} else if (is_control(c) || turns_or_breaks(c)) {
		out[1] = 'u';
		for (unsigned i = 0; i < 4; i++)
			out[2 + i] = hex[c >> (12 - 4 * i) & 15];
		length = 6;
	} else {
		memcpy(out, s->ptr, n);
		length = n;
	}
	s->ptr += n;
	s->len -= n;
	return length;
}

bool text_is_plain(struct span s)
{
	const char *p = s.ptr, *end = p + s.len;
	while (p < end) {
		size_t n = utf8_sequence(p, end);
		uint32_t c = n ? utf8_character(p, n) : 0;
		if (n == 0 || is_control(c) || turns_or_breaks(c))
			return false;
		p += n;
	}
	return true;
}

int text_put_plain(struct buf *out, struct span s)
{
	char piece[TEXT_PIECE_MAX];
	if (text_is_plain(s))
		return buf_append_span(out, s);
	for (size_t n; !out->error && (n = text_piece(&s, piece)) > 0;)
		buf_append(out, piece, n);
	return out->error;
}

const char *text_shown(struct span s, char out[TEXT_SHOWN_MAX])
{
	char cut[61];
	span_copy(s, cut, sizeof(cut));
	for (char *c = cut; *c; c++)
		if ((unsigned char)*c < 0x20)
			*c = ' ';
	snprintf(out, TEXT_SHOWN_MAX, "\"%s%s\"", cut, strlen(cut) < s.len ? "…" : "");
	return out;
}

int text_put_lines(struct buf *out, struct span s)
{
	char piece[TEXT_PIECE_MAX];
	while (s.len && !out->error) {
		/* as CSV has it (RFC 4180) */
		bool line_end = *s.ptr == '\r' && s.len > 1 && s.ptr[1] == '\n';
		bool kept = *s.ptr == '\n' || *s.ptr == '\t' || line_end;
		char c = *s.ptr;
		size_t n = text_piece(&s, piece);
		if (kept)
			buf_putc(out, c);
		else
			buf_append(out, piece, n);
	}
	return out->error;
}

struct span text_front(struct span s, size_t max)
{
	if (s.len <= max)
		return s;
	/* Back to where a character begins; bytes that are none begin one each. */
	size_t n = max;
	for (size_t back = 0; back < 4 && n > 0 && ((unsigned char)s.ptr[n] & 0xC0) == 0x80; back++)
		n--;
	return (struct span){s.ptr, n};
}

/* How much of `text`, written piece by piece, fits into `max` bytes with the sign of a cut. */
static size_t copy_cut(struct span s, char *dst, size_t max)
{
	char piece[TEXT_PIECE_MAX];
	size_t at = 0, cut = 0; /* cut: the last place where the sign would still fit */
	const size_t sign = sizeof(ELLIPSIS) - 1;
	for (size_t n; (n = text_piece(&s, piece)) > 0;) {
		if (at + sign <= max)
			cut = at;
		if (at + n > max) {
			memcpy(dst + cut, ELLIPSIS, max >= sign ? sign : 0);
			return max >= sign ? cut + sign : 0;
		}
		memcpy(dst + at, piece, n);
		at += n;
	}
	return at;
}

int text_put_cut(struct buf *out, struct span s, size_t max)
{
	/* A character is six bytes at most for each of its own. */
	size_t room = s.len < max / 6 ? s.len * 6 : max;
	int r = buf_reserve(out, room);
	if (r < 0)
		return r;
	out->len += copy_cut(s, out->ptr + out->len, room);
	buf_terminate(out);
	return 0;
}

void text_copy(struct span s, char *dst, size_t size)
{
	dst[copy_cut(s, dst, size - 1)] = '\0';
}

/* --- masked --------------------------------------------------------------------------------------------- */

#define MASK "***"

/* What is left of the text, and where it goes. */
struct masking {
	struct buf *out;
	const char *begin, *at, *end;
	/* where the token around `at` ends, and its first '@': looked for once */
	const char *token, *token_at;
};

static bool is_letter(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_word(char c)
{
	return is_letter(c) || (c >= '0' && c <= '9') || c == '_' || c == '-';
}

/* What ends a URL, or a value, in the middle of a sentence. */
static bool ends_token(char c)
{
	return (unsigned char)c <= ' ' || c == '"' || c == '\'' || c == '<' || c == '>' || c == '`' ||
	       c == '\\' || c == '|';
}

static const char *text_token_end(const char *p, const char *end)
{
	while (p < end && !ends_token(*p))
		p++;
	return p;
}

static const char *last_of(const char *begin, const char *end, char c)
{
	return memrchr(begin, c, (size_t)(end - begin));
}

static void mask_until(struct masking *m, const char *to)
{
	buf_puts(m->out, MASK);
	m->at = to;
}

static void copy_until(struct masking *m, const char *to)
{
	buf_append(m->out, m->at, (size_t)(to - m->at));
	m->at = to;
}

/* Values of name=value pairs up to `end`; at is after the '?' or '#'. Without any '=' nothing is a pair. */
static void mask_pairs(struct masking *m, const char *end)
{
	while (m->at < end) {
		const char *p = m->at;
		while (p < end && *p != '=' && *p != '&' && *p != ';' && *p != '#')
			p++;
		bool value = p < end && *p == '=';
		copy_until(m, p < end ? p + 1 : p);
		if (!value)
			continue;
		for (p = m->at; p < end && *p != '&' && *p != '#';)
			p++;
		if (p > m->at)
			mask_until(m, p);
	}
}

/* At "://": the user info after it, then the query. */
static void mask_authority(struct masking *m)
{
	copy_until(m, m->at + 3);
	const char *end = text_token_end(m->at, m->end), *p = m->at;
	while (p < end && *p != '/' && *p != '?' && *p != '#')
		p++;
	const char *at = last_of(m->at, p, '@');
	const char *colon = memchr(m->at, ':', (size_t)(p - m->at));
	/* A password with a slash or the like in it, as written by someone in a hurry: what follows the
	 * colon is no port. */
	if (!at && colon && (colon + 1 == p || strspn(colon + 1, "0123456789") < (size_t)(p - colon - 1)) &&
	    *m->at != '[')
		at = last_of(p, end, '@');
	if (at)
		mask_until(m, at);
}

static bool is_query(const struct masking *m, const char *end)
{
	const char *p = m->at + 1;
	while (p < end && (is_word(*p) || memchr(".[]%$:~+*", *p, 9)))
		p++;
	return p > m->at + 1 && p < end && *p == '=';
}

/* user:password@host without a scheme; at is the start of a token. */
static bool mask_credentials(struct masking *m)
{
	if (m->at >= m->token) {
		m->token = text_token_end(m->at, m->end);
		m->token_at = memchr(m->at, '@', (size_t)(m->token - m->at));
	}
	const char *end = m->token, *at = m->token_at;
	if (!at || at < m->at || at + 1 >= end || (!is_word(at[1]) && at[1] != '['))
		return false;
	const char *colon = memchr(m->at, ':', (size_t)(at - m->at));
	if (!colon || colon == m->at || colon + 1 == at || memchr(m->at, '/', (size_t)(at - m->at)))
		return false;
	const char *last = last_of(at, end, '@');
	mask_until(m, last && last + 1 < end ? last : at);
	return true;
}

static bool text_starts_nocase(const char *p, const char *end, const char *word)
{
	size_t n = strlen(word);
	return (size_t)(end - p) >= n && strncasecmp(p, word, n) == 0;
}

/* Whether the word, or its last part, says that a secret follows. */
static bool names_secret(const char *p, const char *end)
{
	static const char *const names[] = {
		"password",   "passwd",	     "passphrase",  "pwd",	   "secret",
		"token",      "api_key",     "api-key",	    "apikey",	   "access_key",
		"access-key", "accesskey",   "private_key", "private-key", "key",
		"credential", "credentials", "signature",   "sig",	   "authorization",
		"cookie",     "auth",	     "session",	    "sessionid",   "session_id"};
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		size_t n = strlen(names[i]);
		if ((size_t)(end - p) < n || !text_starts_nocase(end - n, end, names[i]))
			continue;
		const char *before = end - n;
		bool whole = before == p || before[-1] == '_' || before[-1] == '-' ||
			     (*before >= 'A' && *before <= 'Z');
		/* "key" alone, as in "key: value of a map", is everybody's word. */
		if (whole && (strcmp(names[i], "key") != 0 || before > p))
			return true;
	}
	return false;
}

static const char *skip_blanks_quotes(const char *p, const char *end)
{
	while (p < end && (*p == ' ' || *p == '\t' || *p == '"' || *p == '\'' || *p == '\\'))
		p++;
	return p;
}

/* Looks like a secret by itself: long, or with digits in it. */
static bool looks_secret(const char *p, const char *end)
{
	size_t digits = 0;
	for (const char *c = p; c < end; c++)
		digits += *c >= '0' && *c <= '9';
	return end - p >= 6 && (digits > 0 || end - p >= 20);
}

static const char *value_end(const char *p, const char *end)
{
	while (p < end && !ends_token(*p) && *p != ',' && *p != ';' && *p != '&' && *p != ')' && *p != '}' &&
	       *p != ']')
		p++;
	return p;
}

static bool is_scheme(const char *p, const char *end)
{
	static const char *const schemes[] = {"bearer",	   "basic",  "token", "jwt",
					      "negotiate", "digest", "apikey"};
	for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++)
		if ((size_t)(end - p) == strlen(schemes[i]) && text_starts_nocase(p, end, schemes[i]))
			return true;
	return false;
}

/* What follows a word that says so; at is its begin, `end` the word's. */
static bool mask_named(struct masking *m, const char *end)
{
	const char *p = end;
	while (p < m->end && (*p == '"' || *p == '\'' || *p == '\\'))
		p++;
	while (p < m->end && *p == ' ')
		p++;
	bool equals = p < m->end && *p == '=', colon = p < m->end && *p == ':';
	if ((!equals && !colon) || !names_secret(m->at, end) ||
	    (colon && m->end - p > 2 && p[1] == '/' && p[2] == '/'))
		return false;
	const char *value = skip_blanks_quotes(p + 1, m->end), *to = value_end(value, m->end);
	if (is_scheme(value, to) && to < m->end && *to == ' ') { /* Authorization: Bearer … */
		copy_until(m, to + 1);
		to = value_end(m->at, m->end);
		if (to > m->at)
			mask_until(m, to);
		return true;
	}
	bool whole_line =
		text_starts_nocase(m->at, end, "cookie") || text_starts_nocase(m->at, end, "set-cookie");
	if (to == value || (colon && p + 1 < m->end && p[1] == ' ' && !whole_line && to - value < 6))
		return false;
	copy_until(m, value);
	while (whole_line && to < m->end && *to != '\n' && *to != '"')
		to++;
	mask_until(m, to);
	return true;
}

/* A word in the text: a name that a secret follows, a scheme, or a token by itself. */
static void mask_word(struct masking *m)
{
	const char *end = m->at;
	while (end < m->end && is_word(*end))
		end++;
	if (mask_credentials(m) || mask_named(m, end))
		return;
	if (is_scheme(m->at, end) && end < m->end && *end == ' ') {
		const char *to = value_end(end + 1, m->end);
		if (looks_secret(end + 1, to)) {
			copy_until(m, end + 1);
			mask_until(m, to);
			return;
		}
	}
	const char *to = value_end(m->at, m->end);
	if (to - m->at > 20 && memcmp(m->at, "eyJ", 3) == 0 && memchr(m->at, '.', (size_t)(to - m->at)))
		mask_until(m, to);
	else
		copy_until(m, end);
}

int text_put_masked(struct buf *out, struct span s)
{
	bool cut = s.len > TEXT_MASKED_MAX;
	s.len = cut ? TEXT_MASKED_MAX : s.len;
	struct masking m = {.out = out, .begin = s.ptr, .at = s.ptr, .end = s.ptr + s.len, .token = s.ptr};
	while (m.at < m.end) {
		bool fresh = m.at == m.begin || !is_word(m.at[-1]);
		if (*m.at == ':' && m.end - m.at > 3 && m.at[1] == '/' && m.at[2] == '/') {
			mask_authority(&m);
		} else if ((*m.at == '?' || *m.at == '#') && is_query(&m, text_token_end(m.at, m.end))) {
			const char *end = text_token_end(m.at, m.end);
			copy_until(&m, m.at + 1);
			mask_pairs(&m, end);
		} else if (is_word(*m.at) && fresh) {
			mask_word(&m);
		} else {
			copy_until(&m, m.at + 1);
		}
	}
	if (cut)
		buf_puts(out, ELLIPSIS);
	return out->error;
}

bool text_names_secret(struct span name)
{
	return name.len > 0 && names_secret(name.ptr, name.ptr + name.len);
}
