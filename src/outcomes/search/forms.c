#include "outcomes/search/forms.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"

const char *form_time(int64_t us, char out[FORM_TIME_MAX])
{
	char text[CLOCK_TEXT_MAX];
	if (!us) {
		strcpy(out, "-");
		return out;
	}
	clock_format(us, text);
	snprintf(out, FORM_TIME_MAX, "%.19s", text);
	if (out[10] == 'T')
		out[10] = ' ';
	return out;
}

const char *form_latency(int64_t us, char out[FORM_LATENCY_MAX])
{
	if (us < 1000)
		snprintf(out, FORM_LATENCY_MAX, "%" PRId64 " us", us);
	else if (us < 10000)
		snprintf(out, FORM_LATENCY_MAX, "%.1f ms", (double)us / 1e3);
	else if (us < 1000000)
		snprintf(out, FORM_LATENCY_MAX, "%.0f ms", (double)us / 1e3);
	else
		snprintf(out, FORM_LATENCY_MAX, "%.1f s", (double)us / 1e6);
	return out;
}

/* --- columns: a character each, as plain text mostly has ------------------------------------------------ */

static bool form_begins(char c)
{
	return (c & 0xc0) != 0x80;
}

/* Bytes of the front that have `columns` characters, and how many there are in *ret. */
static size_t form_front(const char *text, size_t columns, size_t *ret)
{
	size_t n = 0, at = 0;
	for (; text[at]; at++) {
		if (!form_begins(text[at]))
			continue;
		if (n == columns)
			break;
		n++;
	}
	*ret = n;
	return at;
}

static size_t form_put_cut(struct buf *out, const char *text, unsigned width)
{
	size_t columns, bytes = form_front(text, width, &columns);
	if (text[bytes]) {
		bytes = form_front(text, width - 1, &columns);
		buf_append(out, text, bytes);
		buf_puts(out, "…");
		return width;
	}
	buf_append(out, text, bytes);
	return columns;
}

void form_cut(struct buf *out, const char *text, unsigned width)
{
	form_put_cut(out, text, width);
}

void form_cell(struct buf *out, const char *text, unsigned width)
{
	size_t columns = form_put_cut(out, text, width);
	buf_printf(out, "%*s", (int)(width - columns), "");
}

void form_paragraph(struct buf *out, const char *text, unsigned indent, unsigned width)
{
	size_t room = width > indent + 20 ? width - indent : 20;
	do {
		size_t columns, bytes = form_front(text, room, &columns), end = bytes;
		if (text[bytes]) {
			while (end > bytes / 3 && text[end] != ' ')
				end--;
			if (text[end] != ' ')
				end = bytes;
		}
		buf_printf(out, "%*s%.*s\n", (int)indent, "", (int)end, text);
		text += end;
		while (*text == ' ')
			text++;
	} while (*text);
}

/* --- JSON and CSV --------------------------------------------------------------------------------------- */

void form_json_text(struct buf *out, const char *name, const char *text)
{
	buf_printf(out, ",\"%s\":", name);
	if (*text)
		json_quote(out, span_of(text));
	else
		buf_puts(out, "null");
}

void form_json_time(struct buf *out, const char *name, int64_t us)
{
	char text[CLOCK_TEXT_MAX] = "";
	if (us)
		clock_format(us, text);
	form_json_text(out, name, text);
}

void form_json_number(struct buf *out, const char *name, int64_t number)
{
	buf_printf(out, ",\"%s\":%" PRId64, name, number);
}

void form_csv_text(struct buf *out, const char *text)
{
	buf_putc(out, '"');
	if (*text && strchr("=+-@\t\r", *text))
		buf_putc(out, '\'');
	for (; *text; text++) {
		if (*text == '"')
			buf_putc(out, '"');
		buf_putc(out, *text);
	}
	buf_putc(out, '"');
}

void form_csv_time(struct buf *out, int64_t us)
{
	char text[CLOCK_TEXT_MAX] = "";
	if (us)
		clock_format(us, text);
	buf_puts(out, text);
}
