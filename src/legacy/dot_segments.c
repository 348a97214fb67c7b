#include "legacy/dot_segments.h"

#include <stdint.h>
#include <stdlib.h>

#include "base/digits.h"
#include "base/utf8.h"

#define LEVELS 8 /* of escapes within escapes */

/* --- what stands for what ------------------------------------------------------------------------------- */

/* The ASCII character that some take a character for (Unicode NFKC, best fit of Windows); 0: none. */
static char likeness(uint32_t c)
{
	switch (c) {
	case 0x2024: /* one dot leader */
	case 0xFE52: /* small full stop */
	case 0xFF0E: /* full-width full stop */
		return '.';
	case 0x2044: /* fraction slash */
	case 0x2215: /* division slash */
	case 0xFF0F: /* full-width solidus */
		return '/';
	case 0x2216: /* set minus */
	case 0xFE68: /* small reverse solidus */
	case 0xFF3C: /* full-width reverse solidus */
		return '\\';
	case 0xFF05: /* full-width percent sign */
		return '%';
	case 0xFF1B: /* full-width semicolon */
		return ';';
	default:
		/* Of others it matters only that they are no characters: dropped. */
		return c && c < 0x80 && strchr("./\\%;", (int)c) ? (char)c : '\0';
	}
}

/* How long a sequence is by its first byte, whatever follows; 0 for one that begins none. */
static size_t length_by_lead(unsigned char lead)
{
	static const struct {
		unsigned char mask, bits;
	} leads[] = {{0xE0, 0xC0}, {0xF0, 0xE0}, {0xF8, 0xF0}, {0xFC, 0xF8}, {0xFE, 0xFC}};
	for (size_t i = 0; i < sizeof(leads) / sizeof(leads[0]); i++)
		if ((lead & leads[i].mask) == leads[i].bits)
			return i + 2;
	return 0;
}

/* The ASCII character that a sequence, be it overlong, stands for to a careless reader; 0: none. */
static char careless(const char *text, const char *end, size_t *ret_length)
{
	size_t n = length_by_lead((unsigned char)text[0]);
	if (n == 0 || (size_t)(end - text) < n)
		return '\0';
	uint32_t c = (unsigned char)text[0] & (0x7Fu >> n);
	for (size_t i = 1; i < n; i++) {
		if (n > 2 && ((unsigned char)text[i] & 0xC0) != 0x80)
			return '\0';
		c = c << 6 | ((unsigned char)text[i] & 0x3F);
	}
	if (n == 2 && c >= 0x80 && ((unsigned char)text[1] & 0xC0) != 0x80)
		return '\0';
	*ret_length = n;
	return likeness(c);
}

/* Replaces what resembles ASCII by it; the two-dot leader by two dots, which are no longer. */
static size_t fold(char *text, size_t n)
{
	const char *in = text, *end = text + n;
	char *out = text;
	while (in < end) {
		size_t length = 1;
		char c = (unsigned char)*in < 0x80 ? *in : careless(in, end, &length);
		if (!c && end - in >= 3 && memcmp(in, "\xE2\x80\xA5", 3) == 0) {
			*out++ = '.';
			c = '.';
			length = 3;
		}
		*out++ = c ? c : *in;
		in += c ? length : 1;
	}
	return (size_t)(out - text);
}

/* Decodes once in place, %uXXXX included; false when there was nothing to decode. */
static bool dot_segments_decode(char *text, size_t *n)
{
	const char *in = text, *end = text + *n;
	char *out = text;
	bool changed = false;
	while (in < end) {
		bool wide = end - in >= 6 && in[0] == '%' && (in[1] | 0x20) == 'u';
		uint32_t character;
		int c = -1;
		if (wide && hex_read(in + 2, end, 4, &character))
			c = likeness(character) ? likeness(character) : 0xFF;
		else if (*in == '%')
			c = hex_byte(in + 1, end);
		changed |= c >= 0;
		*out++ = c >= 0 ? (char)c : *in;
		if (c >= 0)
			in += wide ? 6 : 3;
		else
			in++;
	}
	*n = (size_t)(out - text);
	return changed;
}

/* --- pieces --------------------------------------------------------------------------------------------- */

/* Where a name ends for someone: at parameters, at a fragment or a query that was encoded, at a NUL, at a
 * stream of NTFS. */
static bool ends_name(char c)
{
	return c == '\0' || strchr(";:,#?&!=*|", c);
}

/* What someone leaves out: blanks, controls, bytes that are not UTF-8. The length of it, or 0. */
static size_t dropped(const char *text, const char *end)
{
	unsigned char c = (unsigned char)*text;
	if (c <= ' ' || c == 0x7F || c == '+')
		return 1;
	return c >= 0x80 && !utf8_sequence(text, end) ? 1 : 0;
}

enum path_piece { PIECE_NOTHING, PIECE_NAME, PIECE_UP };

/* Up to its name's end, or whole. */
static enum path_piece classify_name(const char *text, const char *end, bool cut)
{
	size_t dots = 0, left_out = 0;
	for (const char *p = text; p < end; p++) {
		if (cut && ends_name(*p))
			break;
		if (*p == '.')
			dots++;
		else if (dropped(p, end))
			left_out++;
		else
			return PIECE_NAME;
	}
	/* "..." is a name like any other, unless someone cuts it down. */
	return dots == 2 || (dots > 2 && left_out) ? PIECE_UP : PIECE_NOTHING;
}

static enum path_piece dot_segments_classify(const char *text, const char *end)
{
	enum path_piece a = classify_name(text, end, true), b = classify_name(text, end, false);
	if (a == PIECE_UP || b == PIECE_UP)
		return PIECE_UP;
	return a == PIECE_NAME && b == PIECE_NAME ? PIECE_NAME : PIECE_NOTHING;
}

/* Up where a piece between separators is that; a name only where each is one, so that those who separate less
 * see one, too. */
static enum path_piece look_through(const char *text, size_t n)
{
	enum path_piece found = PIECE_NAME;
	for (size_t begin = 0, i = 0; i <= n; i++) {
		if (i < n && text[i] != '/' && text[i] != '\\')
			continue;
		enum path_piece p = dot_segments_classify(text + begin, text + i);
		if (p == PIECE_UP)
			return p;
		found = p < found ? p : found;
		begin = i + 1;
	}
	return found;
}

/* A segment on all levels: a name only where it is one on each; up where it is that on any. */
static enum path_piece look_into(char *text, size_t n)
{
	enum path_piece found = PIECE_NAME;
	for (int level = 0; level <= LEVELS; level++) {
		n = fold(text, n);
		enum path_piece p = look_through(text, n);
		if (p == PIECE_UP)
			return p;
		found = p < found ? p : found;
		if (!dot_segments_decode(text, &n))
			return found;
	}
	return PIECE_UP;
}

/* Most are dismissed by their bytes: without a dot, an escape or what may stand for them nothing climbs. */
static bool is_plain(struct span path)
{
	for (size_t i = 0; i < path.len; i++) {
		unsigned char c = (unsigned char)path.ptr[i];
		if (c >= 0x80 || c == '%')
			return false;
		unsigned char next = i + 1 < path.len ? (unsigned char)path.ptr[i + 1] : 'x';
		if (c == '.' && (next == '.' || next == '+' || next <= ' ' || next == 0x7F))
			return false;
	}
	return true;
}

bool dot_segments_climb(struct span path)
{
	if (is_plain(path))
		return false;
	char *text = malloc(path.len);
	long depth = 0;
	for (size_t begin = 0, i = 0; text && depth >= 0 && i <= path.len; i++) {
		if (i < path.len && path.ptr[i] != '/')
			continue;
		struct span segment = {path.ptr + begin, i - begin};
		begin = i + 1;
		if (span_is(segment, "..")) {
			depth--;
		} else if (segment.len) {
			memcpy(text, segment.ptr, segment.len);
			enum path_piece p = look_into(text, segment.len);
			depth = p == PIECE_UP ? -1 : depth + (p == PIECE_NAME);
		}
	}
	free(text);
	return !text || depth < 0;
}
