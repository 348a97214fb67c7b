#include "tasks/worker/secrets.h"

#include <ctype.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/base64.h"
#include "base/digits.h"
#include "base/json.h"
#include "base/text.h"

#define MASK "***"
#define LONG 8	       /* from here on a value is hidden wherever it is, and whatever its case */
#define LINE_MIN 16    /* of a value of several lines */
#define BASE64_MIN 5   /* characters that are wholly the secret's */
#define LEVELS_MAX 64  /* of JSON that is a value */
#define ESCAPES_MAX 32 /* backslashes before one character: escaped five times */
#define SHIFTS_MAX 12  /* a cut may lie in the middle of an escape */
#define ENTITY_DIGITS_MAX 8

enum secret_form { SECRET_TEXT, SECRET_WORD, SECRET_BASE64 };

struct secret {
	char *text;
	size_t len;
	enum secret_form form;
};

void secrets_release(struct secrets *s)
{
	for (size_t i = 0; i < s->n; i++)
		free(s->list[i].text);
	free(s->list);
	*s = (struct secrets){0};
}

/* --- what is one ---------------------------------------------------------------------------------------- */

static bool secrets_one_of(struct span word, const char *const *list)
{
	for (; *list; list++)
		if (span_is_nocase(word, *list))
			return true;
	return false;
}

static bool secrets_everyday(struct span value)
{
	static const char *const words[] = {"true",	  "false", "none",
					    "null",	  "auto",  "default",
					    "debug",	  "info",  "warn",
					    "warning",	  "error", "critical",
					    "fatal",	  "prod",  "production",
					    "staging",	  "stage", "test",
					    "testing",	  "local", "utf-8",
					    "utf8",	  "json",  "development",
					    "localhost",  "text",  "html",
					    "file",	  "http",  "https",
					    "127.0.0.1",  "plain", "application/json",
					    "text/plain", NULL};
	return secrets_one_of(value, words);
}

static bool secrets_harmless_name(struct span name)
{
	static const char *const names[] = {"PATH",
					    "HOME",
					    "LANG",
					    "LANGUAGE",
					    "TZ",
					    "TERM",
					    "TMPDIR",
					    "USER",
					    "LOGNAME",
					    "SHELL",
					    "PWD",
					    "PYTHONPATH",
					    "PYTHONHOME",
					    "VIRTUAL_ENV",
					    "LD_LIBRARY_PATH",
					    "Content-Type",
					    "Accept",
					    "Accept-Language",
					    "Accept-Encoding",
					    "Accept-Charset",
					    "User-Agent",
					    NULL};
	return secrets_one_of(name, names) || span_starts(name, SPAN_LIT("LC_"));
}

static bool secrets_looks_like_one(struct span s)
{
	size_t digits = 0, letters = 0;
	for (size_t i = 0; i < s.len; i++) {
		digits += isdigit((unsigned char)s.ptr[i]) != 0;
		letters += isalpha((unsigned char)s.ptr[i]) != 0;
	}
	return (s.len >= LONG && digits && letters) || s.len >= 20;
}

static void secrets_add(struct secrets *s, struct span text, enum secret_form form)
{
	for (size_t i = 0; i < s->n; i++) {
		struct secret *known = &s->list[i];
		if (!span_eq((struct span){known->text, known->len}, text))
			continue;
		known->form = form < known->form ? form : known->form; /* the one that finds more */
		return;
	}
	/* Doubles at each power of two. */
	if ((s->n & (s->n - 1)) == 0) {
		struct secret *list = realloc(s->list, (s->n ? 2 * s->n : 1) * sizeof(*list));
		if (!list) {
			s->failed = true;
			return;
		}
		s->list = list;
	}
	char *copy = malloc(text.len + 1);
	if (!copy) {
		s->failed = true;
		return;
	}
	memcpy(copy, text.ptr, text.len);
	copy[text.len] = '\0';
	s->list[s->n++] = (struct secret){copy, text.len, form};
}

/* The characters of base64 that are wholly the value's when `before` bytes stand in front of it. */
static void secrets_add_base64(struct secrets *s, struct span value, size_t before)
{
	CLEANUP(buf_releasep) struct buf bytes = BUF_INIT(value.len + 3), text = BUF_INIT(2 * value.len + 16);
	buf_append(&bytes, "\0\0", before);
	buf_append_span(&bytes, value);
	base64_encode(buf_span(&bytes), &text);
	s->failed |= bytes.error || text.error;
	size_t first = (8 * before + 5) / 6, end = 8 * (before + value.len) / 6;
	if (end <= text.len && end >= first + BASE64_MIN)
		secrets_add(s, (struct span){text.ptr + first, end - first}, SECRET_BASE64);
}

static void secrets_add_value(struct secrets *s, struct span value, bool named)
{
	if (value.len < SECRETS_MIN || (!named && secrets_everyday(value)))
		return;
	bool anywhere = value.len >= LONG || (named && !secrets_everyday(value));
	secrets_add(s, value, anywhere ? SECRET_TEXT : SECRET_WORD);
	for (size_t before = 0; before < 3; before++)
		secrets_add_base64(s, value, before);
}

/* --- parts ---------------------------------------------------------------------------------------------- */

static struct span secrets_rest(struct span s, size_t skip)
{
	skip = skip < s.len ? skip : s.len;
	return (struct span){s.ptr + skip, s.len - skip};
}

static size_t secrets_until(struct span s, const char *ends)
{
	size_t n = 0;
	while (n < s.len && !strchr(ends, s.ptr[n]))
		n++;
	return n;
}

/* A piece of a URL: what it means is looked for in every form, the URL's own among them. */
static void secrets_add_piece(struct secrets *s, struct span piece, bool named)
{
	CLEANUP(buf_releasep) struct buf plain = BUF_INIT(piece.len + 1);
	for (const char *p = piece.ptr, *end = p + piece.len; p < end;) {
		int byte = *p == '%' ? hex_byte(p + 1, end) : -1;
		buf_putc(&plain, byte >= 0 ? (char)byte : *p);
		p += byte >= 0 ? 3 : 1;
	}
	s->failed |= plain.error != 0;
	secrets_add_value(s, buf_span(&plain), named);
	if (!span_eq(buf_span(&plain), piece))
		secrets_add_value(s, piece, named);
}

static void secrets_take_pairs(struct secrets *s, struct span query)
{
	while (query.len) {
		size_t n = secrets_until(query, "&#"), name = secrets_until((struct span){query.ptr, n}, "=");
		if (name < n)
			secrets_add_piece(s, (struct span){query.ptr + name + 1, n - name - 1},
					  text_names_secret((struct span){query.ptr, name}));
		else if (secrets_looks_like_one((struct span){query.ptr, n}))
			secrets_add_piece(s, (struct span){query.ptr, n}, false);
		query = secrets_rest(query, n + 1);
	}
}

/* `whole`: its host is told without it. `last`: its last segment is one by itself. */
static void secrets_take_path(struct secrets *s, struct span path, bool whole, bool last)
{
	struct span all = secrets_rest(path, 1);
	if (whole && memchr(all.ptr, '/', all.len)) /* one plain segment is a word like others */
		secrets_add_piece(s, all, false);
	while (path.len) {
		path = secrets_rest(path, 1);
		struct span segment = {path.ptr, secrets_until(path, "/")};
		path = secrets_rest(path, segment.len);
		if ((last && path.len == 0 && segment.len < all.len) || secrets_looks_like_one(segment))
			secrets_add_piece(s, segment, false);
	}
}

static void secrets_take_address(struct secrets *s, struct span url, bool value)
{
	const char *mark = memmem(url.ptr, url.len, "://", 3);
	if (!mark)
		return;
	bool web = url.len > 4 && strncasecmp(url.ptr, "http", 4) == 0;
	struct span rest = secrets_rest(url, (size_t)(mark - url.ptr) + 3);
	struct span authority = {rest.ptr, secrets_until(rest, "/?#")};
	const char *at = authority.len ? memrchr(authority.ptr, '@', authority.len) : NULL;
	if (at) {
		struct span user = {authority.ptr, (size_t)(at - authority.ptr)};
		size_t name = secrets_until(user, ":");
		secrets_add_piece(s, user, true);
		if (name < user.len)
			secrets_add_piece(s, secrets_rest(user, name + 1), true);
	}
	rest = secrets_rest(rest, authority.len);
	struct span path = {rest.ptr, secrets_until(rest, "?#")};
	secrets_take_path(s, path, web, web && value);
	secrets_take_pairs(s, secrets_rest(rest, path.len + 1));
}

void secrets_take_url(struct secrets *s, struct span url)
{
	secrets_take_address(s, url, false);
}

static void secrets_take_leaves(struct secrets *s, struct span json, bool named, unsigned level)
{
	struct json_iter it;
	struct span key, item;
	enum json_type type = json_type_of(json);
	if (type == JSON_STRING && named) {
		CLEANUP(buf_releasep) struct buf text = BUF_INIT(json.len + 1);
		if (json_unescape(json, &text) == 0)
			secrets_take(s, SPAN_LIT("secret"), buf_span(&text));
	} else if (type == JSON_NUMBER && named) {
		secrets_add_value(s, json, true);
	}
	if ((type != JSON_OBJECT && type != JSON_ARRAY) || level > LEVELS_MAX)
		return;
	json_iter_init(&it, json);
	while (json_iter_next(&it, &key, &item)) {
		struct span name = type == JSON_OBJECT && key.len > 2
					   ? (struct span){key.ptr + 1, key.len - 2}
					   : SPAN_LIT("");
		secrets_take_leaves(s, item, named || text_names_secret(name), level + 1);
	}
}

void secrets_take_json(struct secrets *s, struct span json)
{
	struct err why = {""};
	if (json_validate(json, &why) == 0)
		secrets_take_leaves(s, json, false, 0);
}

/* PEM and the like: one line of it is as good as all. */
static void secrets_take_lines(struct secrets *s, struct span value)
{
	while (value.len) {
		struct span line = {value.ptr, secrets_until(value, "\r\n")};
		if (line.len >= LINE_MIN && !span_starts(line, SPAN_LIT("-----")))
			secrets_add_value(s, line, false);
		value = secrets_rest(value, line.len + 1);
	}
}

/* `Basic dTpw`: who it is lies inside. */
static void secrets_take_basic(struct secrets *s, struct span credentials)
{
	CLEANUP(buf_releasep) struct buf plain = BUF_INIT(credentials.len + 4);
	if (base64_decode(credentials, &plain) < 0)
		return;
	size_t user = secrets_until(buf_span(&plain), ":");
	secrets_add_value(s, buf_span(&plain), true);
	secrets_add_value(s, secrets_rest(buf_span(&plain), user + 1), true);
}

/* `Bearer x`, `host=a password=b`, `session=c; theme=d`, `user:password`. */
static void secrets_take_words(struct secrets *s, struct span value, bool named)
{
	static const char *const schemes[] = {"Basic",	"Bearer", "Token",     "JWT",
					      "ApiKey", "Digest", "Negotiate", NULL};
	for (struct span rest = value, before = SPAN_NONE; rest.len;) {
		struct span word = {rest.ptr, secrets_until(rest, " \t;,&\r\n")};
		size_t name = secrets_until(word, "=:");
		struct span says = {word.ptr, name}, what = secrets_rest(word, name + 1);
		bool secret_name = name < word.len && text_names_secret(says);
		if (secret_name || (name < word.len && (named || secrets_looks_like_one(what))))
			secrets_add_value(s, what, true);
		if (before.ptr && span_is_nocase(before, "basic"))
			secrets_take_basic(s, word);
		bool credentials =
			before.ptr && (secrets_one_of(before, schemes) || (named && word.len >= LONG));
		if (word.len < value.len && (credentials || secrets_looks_like_one(word)))
			secrets_add_value(s, word, true);
		before = word;
		rest = secrets_rest(rest, word.len + 1);
	}
}

void secrets_take(struct secrets *s, struct span name, struct span value)
{
	bool named = name.ptr && text_names_secret(name);
	value = span_strip(value);
	if (value.len < SECRETS_MIN || (!named && name.ptr && secrets_harmless_name(name)))
		return;
	bool is_url = memmem(value.ptr, value.len, "://", 3) != NULL &&
		      secrets_until(value, " \t\r\n{") == value.len;
	if (is_url)
		secrets_take_address(s, value, true);
	if (is_url && !named)
		return;
	secrets_add_value(s, value, named);
	secrets_take_lines(s, value);
	secrets_take_words(s, value, named);
	if (*value.ptr == '{' || *value.ptr == '[')
		secrets_take_json(s, value);
}

/* --- finding -------------------------------------------------------------------------------------------- */

struct finding {
	const char *at, *end;
	bool cut; /* the text went on behind its end */
};

static size_t secrets_put_character(uint32_t c, char out[4])
{
	if (c < 0x80) {
		out[0] = (char)c;
		return 1;
	}
	if (c < 0x800) {
		out[0] = (char)(0xC0 | c >> 6);
		out[1] = (char)(0x80 | (c & 63));
		return 2;
	}
	if (c < 0x10000) {
		out[0] = (char)(0xE0 | c >> 12);
		out[1] = (char)(0x80 | (c >> 6 & 63));
		out[2] = (char)(0x80 | (c & 63));
		return 3;
	}
	out[0] = (char)(0xF0 | (c >> 18 & 7));
	out[1] = (char)(0x80 | (c >> 12 & 63));
	out[2] = (char)(0x80 | (c >> 6 & 63));
	out[3] = (char)(0x80 | (c & 63));
	return 4;
}

/* \uXXXX and \UXXXXXXXX; p is behind the backslashes. How many bytes it takes, 0: it is none. */
static size_t secrets_unicode_escape(const char *p, const char *end, uint32_t *c)
{
	uint32_t low;
	if (p < end && *p == 'U' && hex_read(p + 1, end, 8, c))
		return 9;
	if (p >= end || *p != 'u' || !hex_read(p + 1, end, 4, c))
		return 0;
	if (*c < 0xD800 || *c > 0xDBFF)
		return 5;
	const char *second = p + 5;
	while (second < end && *second == '\\')
		second++;
	if (second >= end || *second != 'u' || !hex_read(second + 1, end, 4, &low))
		return 5;
	*c = 0x10000 + ((*c - 0xD800) << 10) + (low & 0x3FF);
	return (size_t)(second + 5 - p);
}

/* &#246; and &#xF6;. How many bytes it takes, 0: it is none. */
static size_t secrets_numeric_entity(const char *p, const char *end, uint32_t *c)
{
	if (end - p < 4 || p[0] != '&' || p[1] != '#')
		return 0;
	uint32_t base = (p[2] | 0x20) == 'x' ? 16 : 10;
	const char *first = p + (base == 16 ? 3 : 2), *digit = first;
	*c = 0;
	for (; digit < end && digit - first < ENTITY_DIGITS_MAX; digit++) {
		int value = hex_digit(*digit);
		if (value < 0 || (uint32_t)value >= base)
			break;
		*c = *c * base + (uint32_t)value;
	}
	return digit > first && digit < end && *digit == ';' ? (size_t)(digit + 1 - p) : 0;
}

/* An entity of HTML or XML, if that is how `want` continues. How many bytes of it, 0: it is not; *used of the
 * text. */
static size_t secrets_entity(const char *p, const char *end, struct span want, size_t *used)
{
	static const struct {
		const char *text;
		char byte;
	} entities[] = {{"&amp;", '&'}, {"&lt;", '<'}, {"&gt;", '>'}, {"&quot;", '"'}, {"&apos;", '\''}};
	char bytes[4];
	uint32_t character;
	size_t length = secrets_numeric_entity(p, end, &character);
	if (length) {
		size_t n = secrets_put_character(character, bytes);
		*used = length;
		return n <= want.len && memcmp(bytes, want.ptr, n) == 0 ? n : 0;
	}
	for (size_t i = 0; i < sizeof(entities) / sizeof(entities[0]); i++) {
		size_t n = strlen(entities[i].text);
		if ((size_t)(end - p) >= n && strncasecmp(p, entities[i].text, n) == 0) {
			*used = n;
			return entities[i].byte == *want.ptr ? 1 : 0;
		}
	}
	return 0;
}

/* Of backslashes, looked at up to `max`: a text of nothing else must not cost its square. */
static size_t secrets_run(const char *p, const char *end, size_t max)
{
	const char *from = p;
	while (p < end && *p == '\\' && (size_t)(p - from) < max)
		p++;
	return (size_t)(p - from);
}

/* Three octal digits, as shells and C have them; -1: there are none. */
static int secrets_octal(const char *p, const char *end)
{
	if (end - p < 3 || p[0] < '0' || p[0] > '3' || p[1] < '0' || p[1] > '7' || p[2] < '0' || p[2] > '7')
		return -1;
	return (p[0] - '0') * 64 + (p[1] - '0') * 8 + (p[2] - '0');
}

static size_t secrets_entity_behind(const char *p, const char *at, const char *end, struct span want,
				    size_t *used)
{
	size_t n = secrets_entity(at, end, want, used);
	*used += n ? (size_t)(at - p) : 0;
	return n;
}

/* Behind a run of backslashes: what is escaped, if that is how `want` continues. How many bytes of it, 0: it
 * is not; *used of the text. */
static size_t secrets_backslashed(const char *p, const char *end, struct span want, size_t *used)
{
	static const char letters[] = "nrtbfv0a", meant[] = "\n\r\t\b\f\v\0\a";
	const char *c = p + secrets_run(p, end, ESCAPES_MAX);
	char bytes[4];
	uint32_t character;
	if (c == end)
		return 0;
	size_t length = secrets_unicode_escape(c, end, &character), n;
	if (length == 0 && *c == 'x' && hex_read(c + 1, end, 2, &character)) {
		length = 3;
		if ((unsigned char)*want.ptr == character) {
			*used = (size_t)(c + 3 - p);
			return 1;
		}
	}
	if (length) {
		n = secrets_put_character(character, bytes);
		*used = (size_t)(c - p) + length;
		return n <= want.len && memcmp(bytes, want.ptr, n) == 0 ? n : 0;
	}
	if (*c == '&' && (n = secrets_entity_behind(p, c, end, want, used)) > 0)
		return n; /* JSON in a page */
	if (secrets_octal(c, end) == (unsigned char)*want.ptr) {
		*used = (size_t)(c + 3 - p);
		return 1;
	}
	*used = (size_t)(c + 1 - p);
	const char *letter = memchr(letters, *c, sizeof(letters) - 1);
	if (letter && *want.ptr == meant[letter - letters])
		return 1;
	return *c == *want.ptr && (ispunct((unsigned char)*c) || *c == ' ') ? 1 : 0;
}

static bool secrets_same(char a, char b, const struct secret *of)
{
	if (a == b)
		return true;
	if (of->form == SECRET_BASE64)
		return (a == '+' && b == '-') || (a == '/' && b == '_');
	if (of->len < LONG)
		return false;
	/* Of Latin-1, too: the cases of its letters differ in the same bit of their second byte. */
	return (a & 0x80) && (b & 0x80) ? (a | 0x20) == (b | 0x20)
					: tolower((unsigned char)a) == tolower((unsigned char)b);
}

static size_t secrets_step(const struct secret *of, struct span want, const char *p, const char *end,
			   bool ahead, size_t *used);

/* Whether the text continues at p as the secret does. One step only, which looks no further: texts are
 * anyone's. */
static bool secrets_go_on(const struct secret *of, struct span want, const char *p, const char *end)
{
	size_t used;
	return want.len == 0 || p == end || secrets_step(of, want, p, end, false, &used) > 0;
}

/* %XX, and %25XX where it was encoded more often. */
static bool secrets_percent(const struct secret *of, struct span want, const char *p, const char *end,
			    bool ahead, size_t *used)
{
	const char *digits = p + 1;
	size_t first = 0;
	/* Or a percent sign that is just that. */
	bool plain = *want.ptr == '%' && ahead && secrets_go_on(of, secrets_rest(want, 1), p + 1, end);
	*used = plain ? 1 : 0;
	for (int code; (code = hex_byte(digits, end)) >= 0; digits += 2) {
		size_t n = (size_t)(digits + 2 - p);
		if (secrets_same(*want.ptr, (char)code, of)) {
			first = first ? first : n;
			if (!ahead || secrets_go_on(of, secrets_rest(want, 1), p + n, end))
				*used = n;
		}
		if (code != '%')
			break;
	}
	*used = *used ? *used : first;
	return *used > 0;
}

/* A run of backslashes in it is doubled in the text, or more often; what is more belongs to how the next
 * character is escaped. */
static size_t secrets_backslashes(const struct secret *of, struct span want, const char *p, const char *end,
				  size_t *used)
{
	size_t mine = secrets_run(want.ptr, want.ptr + want.len, want.len);
	size_t there = secrets_run(p, end, (mine + 1) * ESCAPES_MAX);
	if (there < mine)
		return 0;
	*used = there;
	size_t most = 1, number;
	while (2 * mine * most <= there)
		most *= 2;
	for (size_t times = most; times > 0; times /= 2) {
		if (secrets_go_on(of, secrets_rest(want, mine), p + mine * times, end)) {
			*used = mine * times;
			return mine;
		}
	}
	size_t n = secrets_backslashed(p, end, want, &number); /* \u005c */
	*used = n ? number : there;
	return n ? n : mine;
}

static size_t secrets_run_of(char c, const char *p, const char *end)
{
	const char *from = p;
	while (p < end && *p == c && p - from < 2 * ESCAPES_MAX)
		p++;
	return (size_t)(p - from);
}

/* Quotes that are doubled, as SQL and CSV have it, or as a shell has one within quotes. */
static size_t secrets_quotes(const struct secret *of, struct span want, const char *p, const char *end,
			     size_t *used)
{
	static const char *const in_shell[] = {"'\\''", "'\"'\"'"};
	size_t mine = secrets_run_of(*want.ptr, want.ptr, want.ptr + want.len);
	if (secrets_run_of(*want.ptr, p, end) == 2 * mine) {
		*used = 2 * mine;
		return mine;
	}
	for (size_t i = 0; i < sizeof(in_shell) / sizeof(in_shell[0]); i++) {
		size_t n = strlen(in_shell[i]);
		if (*want.ptr == '\'' && (size_t)(end - p) >= n && memcmp(p, in_shell[i], n) == 0 &&
		    secrets_go_on(of, secrets_rest(want, 1), p + n, end)) {
			*used = n;
			return 1;
		}
	}
	return 0;
}

/* %5C%22 and %5Cu00f6: what JSON escapes, in a URL. */
static size_t secrets_escape_in_url(const struct secret *of, struct span want, const char *p, const char *end,
				    bool ahead, size_t *used)
{
	char plain[2 * ESCAPES_MAX];
	size_t behind[2 * ESCAPES_MAX], n = 0;
	if (hex_byte(p + 1, end) != '\\' || *want.ptr == '%')
		return 0;
	for (const char *at = p; at < end && n < sizeof(plain); n++) {
		int byte = *at == '%' ? hex_byte(at + 1, end) : -1;
		plain[n] = byte >= 0 ? (char)byte : *at;
		at += byte >= 0 ? 3 : 1;
		behind[n] = (size_t)(at - p);
	}
	size_t done = secrets_step(of, want, plain, plain + n, ahead, used);
	*used = done ? behind[*used - 1] : 0;
	return done;
}

/* One step: how many bytes of `want` stand next in the text, in whichever form; 0: none. */
static size_t secrets_step(const struct secret *of, struct span want, const char *p, const char *end,
			   bool ahead, size_t *used)
{
	size_t n;
	if (*p == '%' && (n = secrets_escape_in_url(of, want, p, end, ahead, used)) > 0)
		return n;
	if (*p == '%' && secrets_percent(of, want, p, end, ahead, used))
		return 1;
	if (*want.ptr == '\\' && *p == '\\' && (n = secrets_backslashes(of, want, p, end, used)) > 0)
		return n;
	if (ahead && (*p == '\'' || *p == '"') && *want.ptr == *p &&
	    (n = secrets_quotes(of, want, p, end, used)) > 0)
		return n;
	if (*p == '\\' && (n = secrets_backslashed(p, end, want, used)) > 0)
		return n;
	/* A secret may have what looks like one. */
	if (*p == '&' && (n = secrets_entity(p, end, want, used)) > 0 &&
	    (*want.ptr != '&' || !ahead || secrets_go_on(of, secrets_rest(want, n), p + *used, end)))
		return n;
	*used = 1;
	return secrets_same(*want.ptr, *p, of) || (*p == '+' && *want.ptr == ' ') ? 1 : 0;
}

/* How many bytes of the text it takes there; 0: it is not there. */
static size_t secrets_match(const struct finding *f, const struct secret *of)
{
	const char *p = f->at;
	size_t done = 0, used = 0;
	if (!f->cut && (size_t)(f->end - p) < of->len)
		return 0; /* no form is shorter */
	while (done < of->len) {
		if (p == f->end)
			return f->cut && done >= SECRETS_MIN ? (size_t)(p - f->at) : 0;
		if (of->form == SECRET_BASE64 && done &&
		    (*p == '\n' || *p == '\r')) { /* in lines, as MIME has it */
			p++;
			continue;
		}
		struct span want = {of->text + done, of->len - done};
		size_t n = secrets_step(of, want, p, f->end, true, &used);
		if (n == 0)
			return 0;
		done += n;
		p += used;
	}
	return (size_t)(p - f->at);
}

static size_t secrets_match_hex(const struct finding *f, const struct secret *of)
{
	const char *p = f->at;
	for (size_t i = 0; i < of->len; i++, p += 2) {
		int byte = hex_byte(p, f->end);
		if (byte < 0 && f->cut && i >= SECRETS_MIN && f->end - p < 2)
			return (size_t)(f->end - f->at);
		if (byte != (unsigned char)of->text[i])
			return 0;
	}
	return (size_t)(p - f->at);
}

static bool secrets_in_word(char c)
{
	return isalnum((unsigned char)c) || c == '_';
}

/* Whether no word continues there, on either side. The n of a \n belongs to none. */
static bool secrets_stands_alone(const char *begin, const char *p, const char *behind, const char *end)
{
	bool escape = p - begin >= 2 && p[-2] == '\\' && strchr("nrtbfv", p[-1]);
	return (p == begin || escape || !secrets_in_word(p[-1])) &&
	       (behind == end || !secrets_in_word(*behind));
}

/* Cheap, since nearly every byte of a text begins none. */
static bool secrets_may_begin(const struct secret *of, char c)
{
	char first = *of->text;
	return c == first || c == '%' || c == '\\' || c == '&' || (c == '+' && first == ' ') ||
	       secrets_same(first, c, of);
}

static bool secrets_may_begin_hex(const struct secret *of, char c)
{
	return of->form == SECRET_TEXT && hex_digit(c) == (unsigned char)*of->text >> 4;
}

/* Length of the longest that stands there. */
static size_t secrets_at(const struct secrets *s, const char *begin, const struct finding *f)
{
	size_t longest = 0;
	for (size_t i = 0; i < s->n; i++) {
		const struct secret *of = &s->list[i];
		size_t n = secrets_may_begin(of, *f->at) ? secrets_match(f, of) : 0;
		if (of->form == SECRET_WORD && n && !secrets_stands_alone(begin, f->at, f->at + n, f->end))
			n = 0;
		if (n == 0 && secrets_may_begin_hex(of, *f->at))
			n = secrets_match_hex(f, of);
		longest = n > longest ? n : longest;
	}
	return longest;
}

int secrets_put_hidden(const struct secrets *s, struct span text, bool cut, struct buf *out)
{
	const char *end = text.ptr + text.len, *shown = text.ptr, *hidden = text.ptr;
	/* Also within what is hidden: another may begin there, and continue. */
	for (const char *p = text.ptr; s->n && p < end; p++) {
		const struct finding f = {p, end, cut};
		size_t n = secrets_at(s, text.ptr, &f);
		if (n == 0)
			continue;
		if (p >= hidden) {
			buf_append(out, shown, (size_t)(p - shown));
			buf_puts(out, MASK);
		}
		hidden = p + n > hidden ? p + n : hidden;
		shown = hidden;
	}
	return buf_append(out, shown, (size_t)(end - shown));
}

/* The longest end of it that the text begins with. */
static size_t secrets_end_at(const struct secret *of, const struct finding *f)
{
	for (size_t from = 1; from + SECRETS_MIN <= of->len; from++) {
		const struct secret rest = {of->text + from, of->len - from, of->form};
		size_t n = secrets_match(f, &rest);
		if (n == 0 && of->form == SECRET_TEXT)
			n = secrets_match_hex(f, &rest);
		if (n)
			return n;
	}
	return 0;
}

struct span secrets_skip_end(const struct secrets *s, struct span text)
{
	size_t skip = 0;
	for (size_t i = 0; i < s->n; i++) {
		for (size_t shift = 0; shift < SHIFTS_MAX && shift < text.len; shift++) {
			const struct finding f = {text.ptr + shift, text.ptr + text.len, false};
			size_t n = secrets_end_at(&s->list[i], &f);
			skip = n && shift + n > skip ? shift + n : skip;
		}
	}
	return secrets_rest(text, skip);
}
