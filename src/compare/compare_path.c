#include "compare/compare_path.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"

#define PATH_CUT "\xe2\x80\xa6"

static bool pattern_is_any(struct span step)
{
	return span_is(step, "*");
}

static bool pattern_is_deep(struct span step)
{
	return span_is(step, "**");
}

/* Resolves ~0 and ~1 in place. false: there is another ~. */
static bool pattern_unescape(char *at, size_t *n)
{
	size_t out = 0;
	for (size_t i = 0; i < *n; i++) {
		char c = at[i];
		if (c == '~') {
			i++;
			if (i == *n || (at[i] != '0' && at[i] != '1'))
				return false;
			c = at[i] == '0' ? '~' : '/';
		}
		at[out++] = c;
	}
	*n = out;
	return true;
}

static const char *pattern_parse_pointer(char *at, struct compare_pattern *p)
{
	if (*at == '\0')
		return NULL;
	if (*at != '/')
		return "is not a JSON pointer: it must begin with / after body:";
	while (at) {
		char *step = at + 1;
		at = strchr(step, '/');
		size_t n = at ? (size_t)(at - step) : strlen(step);
		if (p->n_steps == COMPARE_STEPS_MAX)
			return "has too many steps";
		if (!pattern_unescape(step, &n))
			return "has a ~ that is neither ~0 nor ~1";
		p->steps[p->n_steps++] = (struct span){step, n};
	}
	return NULL;
}

static const char *pattern_parse_text(char *text, struct compare_pattern *p)
{
	if (strcmp(text, "status") == 0) {
		p->part = COMPARE_PART_STATUS;
		return NULL;
	}
	if (strncmp(text, "header:", 7) == 0 && text[7] != '\0') {
		p->part = COMPARE_PART_HEADER;
		p->steps[p->n_steps++] = span_of(text + 7);
		return NULL;
	}
	if (strncmp(text, "body:", 5) == 0) {
		p->part = COMPARE_PART_BODY;
		return pattern_parse_pointer(text + 5, p);
	}
	return "must be status, header:NAME or body:/POINTER";
}

const char *compare_pattern_read(char *text, struct compare_pattern *ret)
{
	struct compare_pattern p = {.text = text};
	const char *why = pattern_parse_text(text, &p);
	if (!why)
		*ret = p;
	return why;
}

const char *compare_pattern_parse(struct span text, struct compare_pattern *ret)
{
	if (memchr(text.ptr ? text.ptr : "", '\0', text.len))
		return "holds a NUL";
	char *copy = span_dup(text);
	if (!copy)
		return "does not fit into memory";
	const char *why = compare_pattern_read(copy, ret);
	if (why)
		free(copy);
	return why;
}

void compare_pattern_release(struct compare_pattern *p)
{
	free(p->text);
	*p = (struct compare_pattern){0};
}

/* A position before `**` is also one after it. */
static uint32_t pattern_close(const struct compare_pattern *p, uint32_t at)
{
	for (unsigned i = 0; i < p->n_steps; i++)
		if (at >> i & 1 && pattern_is_deep(p->steps[i]))
			at |= UINT32_C(1) << (i + 1);
	return at;
}

uint32_t compare_pattern_start(const struct compare_pattern *p)
{
	return p->part == COMPARE_PART_BODY ? pattern_close(p, 1) : 0;
}

static bool pattern_takes(struct span step, struct span name, int64_t index)
{
	char text[24];
	if (pattern_is_any(step))
		return true;
	if (index < 0)
		return span_eq(step, name);
	int n = snprintf(text, sizeof(text), "%lld", (long long)index);
	return span_eq(step, (struct span){text, (size_t)n});
}

uint32_t compare_pattern_step(const struct compare_pattern *p, uint32_t at, struct span name, int64_t index)
{
	uint32_t next = 0;
	for (unsigned i = 0; i < p->n_steps && at >> i; i++) {
		if (!(at >> i & 1))
			continue;
		if (pattern_is_deep(p->steps[i]))
			next |= UINT32_C(1) << i;
		else if (pattern_takes(p->steps[i], name, index))
			next |= UINT32_C(1) << (i + 1);
	}
	return next ? pattern_close(p, next) : 0;
}

/* A step of a written path: which of its `*` was an index and which a member is not told, so that a pattern's
 * index takes it, too. */
static uint32_t pattern_step_written(const struct compare_pattern *p, uint32_t at, struct span name)
{
	if (!pattern_is_any(name))
		return compare_pattern_step(p, at, name, -1);
	uint32_t next = 0;
	for (unsigned i = 0; i < p->n_steps; i++)
		if (at >> i & 1)
			next |= UINT32_C(1) << (pattern_is_deep(p->steps[i]) ? i : i + 1);
	return pattern_close(p, next);
}

static bool pattern_covers_pointer(const struct compare_pattern *p, const char *pointer)
{
	char step[COMPARE_PATH_SIZE];
	uint32_t at = compare_pattern_start(p);
	while (*pointer == '/' && at && !compare_pattern_matched(p, at)) {
		const char *begin = pointer + 1;
		size_t n = strcspn(begin, "/");
		pointer = begin + n;
		if (n >= sizeof(step))
			return true; /* cannot be: err on the side of covering */
		memcpy(step, begin, n);
		if (!pattern_unescape(step, &n))
			return true;
		at = pattern_step_written(p, at, (struct span){step, n});
	}
	return compare_pattern_matched(p, at);
}

bool compare_pattern_covers(const struct compare_pattern *p, const char *path)
{
	switch (p->part) {
	case COMPARE_PART_STATUS:
		return strcmp(path, "status") == 0;
	case COMPARE_PART_HEADER:
		return strncmp(path, "header:", 7) == 0 && span_is_nocase(p->steps[0], path + 7);
	case COMPARE_PART_BODY:
		return strncmp(path, "body:", 5) == 0 && pattern_covers_pointer(p, path + 5);
	}
	return false;
}

/* --- writing -------------------------------------------------------------------------------------------- */

void compare_path_init(struct compare_path *p, const char *text)
{
	*p = (struct compare_path){0};
	span_copy(span_of(text), p->text, sizeof(p->text));
	p->length = strlen(p->text);
}

static void path_put(struct compare_path *p, const char *bytes, size_t n)
{
	size_t room = sizeof(p->text) - sizeof(PATH_CUT); /* the mark always fits */
	if (p->cut)
		return;
	if (p->length + n > room) {
		p->cut = true;
		bytes = PATH_CUT;
		n = strlen(PATH_CUT);
	}
	memcpy(p->text + p->length, bytes, n);
	p->length += n;
	p->text[p->length] = '\0';
}

struct compare_path_mark compare_path_enter(struct compare_path *p, struct span name)
{
	struct compare_path_mark mark = {p->length, p->cut};
	char piece[TEXT_PIECE_MAX];
	size_t n;
	path_put(p, "/", 1);
	while (!p->cut && (n = text_piece(&name, piece)) > 0) {
		if (n == 1 && piece[0] == '~')
			path_put(p, "~0", 2);
		else if (n == 1 && piece[0] == '/')
			path_put(p, "~1", 2);
		else
			path_put(p, piece, n);
	}
	return mark;
}

void compare_path_leave(struct compare_path *p, struct compare_path_mark mark)
{
	p->length = mark.length;
	p->cut = mark.cut;
	p->text[p->length] = '\0';
}
