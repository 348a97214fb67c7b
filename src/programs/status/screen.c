#include "programs/status/screen.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define INDENT 2 /* of what a broken line goes on with */
#define OUTPUT_MAX (64u << 20)

void screen_look(struct screen *ret)
{
	struct winsize w;
	const char *term = getenv("TERM"), *no_color = getenv("NO_COLOR");
	*ret = (struct screen){.terminal = isatty(STDOUT_FILENO)};
	if (!ret->terminal || ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) < 0)
		return;
	ret->columns = w.ws_col;
	ret->rows = w.ws_row;
	ret->color = (!no_color || !*no_color) && term && *term && strcmp(term, "dumb") != 0;
}

/* --- lines ---------------------------------------------------------------------------------------------- */

/* The columns of UTF-8 text without wide characters, of which the program itself prints none. */
static size_t columns_of(struct span s)
{
	size_t n = 0;
	for (size_t i = 0; i < s.len; i++)
		n += ((unsigned char)s.ptr[i] & 0xc0) != 0x80;
	return n;
}

/* The bytes of the front that fits, broken behind a blank where there is one. */
static size_t fitting(struct span line, size_t width)
{
	size_t at = 0, n = 0, blank = 0;
	while (at < line.len && n < width) {
		at++;
		while (at < line.len && ((unsigned char)line.ptr[at] & 0xc0) == 0x80)
			at++;
		n++;
		if (at < line.len && line.ptr[at] == ' ')
			blank = at;
	}
	if (at >= line.len)
		return line.len;
	return blank > width / 3 ? blank : at;
}

static unsigned break_line(struct span line, unsigned width, struct buf *out)
{
	unsigned n = 0;
	do {
		unsigned indent = n ? INDENT : 0;
		size_t front = width > INDENT + 8 && columns_of(line) + indent > width
				       ? fitting(line, width - indent)
				       : line.len;
		buf_printf(out, "%*s%.*s\n", (int)indent, "", (int)front, line.ptr);
		line.ptr += front;
		line.len -= front;
		while (line.len && *line.ptr == ' ') {
			line.ptr++;
			line.len--;
		}
		n++;
	} while (line.len);
	return n;
}

/* Appends it broken; *ret_head: the bytes of the first line. */
static void lay_out(const struct screen *s, bool again, struct span text, size_t *ret_head, struct buf *out)
{
	unsigned rows = 0, room = again && s->rows > 2 ? s->rows - 2 : 0;
	*ret_head = 0;
	while (text.len) {
		const char *end = memchr(text.ptr, '\n', text.len);
		size_t n = end ? (size_t)(end - text.ptr) : text.len;
		if (room && rows >= room) {
			buf_puts(out, "… more than fits: --service, --operation\n");
			return;
		}
		rows += break_line((struct span){text.ptr, n}, s->columns, out);
		if (!*ret_head)
			*ret_head = out->len;
		n += end ? 1 : 0;
		text.ptr += n;
		text.len -= n;
	}
}

/* --- printing ------------------------------------------------------------------------------------------- */

/* Meant for the terminal itself: standard output is sanitized. */
static void command(const char *sequence)
{
	fflush(stdout);
	ssize_t ignored = write(STDOUT_FILENO, sequence, strlen(sequence));
	(void)ignored;
}

static const char *color_of(enum standing_level level)
{
	static const char *const colors[STANDING_LEVELS] = {"\033[1m", "\033[1;32m", "\033[1;33m",
							    "\033[1;31m"};
	return colors[level];
}

void screen_put(const struct screen *s, enum standing_level level, bool headline, bool again,
		const struct buf *text)
{
	CLEANUP(buf_releasep) struct buf laid = BUF_INIT(OUTPUT_MAX);
	size_t head;
	if (!s->terminal) {
		if (text->len)
			fwrite(text->ptr, 1, text->len, stdout);
		return;
	}
	lay_out(s, again, buf_span(text), &head, &laid);
	if (laid.error || laid.len == 0)
		return;
	if (again)
		command("\033[H\033[2J");
	if (headline && s->color) {
		command(color_of(level));
		fwrite(laid.ptr, 1, head, stdout);
		command("\033[0m");
	} else {
		head = 0;
	}
	fwrite(laid.ptr + head, 1, laid.len - head, stdout);
}
