#include "outcomes/path_pattern.h"

#include <string.h>
#include <strings.h>

#include "base/digits.h"

#define SEGMENTS_MAX 8
#define WORD_MAX 24

static bool pattern_is_letter(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool pattern_among(struct span s, const char *const *words, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (s.len == strlen(words[i]) && strncasecmp(s.ptr, words[i], s.len) == 0)
			return true;
	return false;
}
#define AMONG(s, words) pattern_among((s), (words), sizeof(words) / sizeof((words)[0]))

/* "v1", "v2.1" */
static bool pattern_is_version(struct span s)
{
	if (s.len < 2 || s.len > 5 || (s.ptr[0] != 'v' && s.ptr[0] != 'V') || !is_digit(s.ptr[1]))
		return false;
	for (size_t i = 1; i < s.len; i++)
		if (!is_digit(s.ptr[i]) && (s.ptr[i] != '.' || i + 1 == s.len))
			return false;
	return true;
}

/* Letters, with - and _ between them. */
static bool pattern_is_word(struct span s)
{
	if (!s.len || s.len > WORD_MAX || !pattern_is_letter(s.ptr[0]))
		return false;
	for (size_t i = 1; i < s.len; i++)
		if (!pattern_is_letter(s.ptr[i]) && s.ptr[i] != '-' && s.ptr[i] != '_')
			return false;
	return true;
}

static bool pattern_is_file(struct span s)
{
	static const char *const extensions[] = {"html", "htm", "php", "json", "xml", "txt", "js",  "css",
						 "ico",	 "png", "svg", "asp",  "jsp", "cgi", "aspx"};
	const char *dot = s.len ? memrchr(s.ptr, '.', s.len) : NULL;
	if (!dot)
		return false;
	size_t stem = (size_t)(dot - s.ptr);
	return pattern_is_word((struct span){s.ptr, stem}) &&
	       AMONG(((struct span){dot + 1, s.len - stem - 1}), extensions);
}

/* Whether the segment after this one names one of something. */
static bool pattern_announces_id(struct span s)
{
	static const char *const holders[] = {
		"user",	   "u",		"org",	    "organization", "organisation", "tenant",  "account",
		"acct",	   "client",	"team",	    "group",	    "customer",	    "member",  "person",
		"people",  "profile",	"owner",    "name",	    "by-name",	    "email",   "login",
		"id",	   "by-id",	"key",	    "token",	    "session",	    "author",  "company",
		"contact", "container", "document", "doc",	    "file",	    "project", "workspace",
		"job",	   "task",	"run",	    "item"};
	static const char *const no_plurals[] = {"status", "news",    "process",
						 "access", "address", "analysis"};
	if (AMONG(s, holders))
		return true;
	return s.len >= 4 && (s.ptr[s.len - 1] == 's' || s.ptr[s.len - 1] == 'S') && !AMONG(s, no_plurals);
}

static struct span pattern_segment(struct span s, struct span before)
{
	bool kept = !s.len || (!pattern_announces_id(before) && (pattern_is_word(s) || pattern_is_file(s))) ||
		    pattern_is_version(s);
	return kept ? s : SPAN_LIT(PATH_PATTERN_ID);
}

static struct span pattern_path_of(struct span target)
{
	const char *at = target.len ? memmem(target.ptr, target.len, "://", 3) : NULL;
	const char *end = target.ptr + target.len;
	if (at && target.ptr[0] != '/') {
		at = memchr(at + 3, '/', (size_t)(end - at - 3));
		target = at ? (struct span){at, (size_t)(end - at)} : SPAN_LIT("/");
	}
	size_t n = 0;
	while (n < target.len && target.ptr[n] != '?' && target.ptr[n] != '#')
		n++;
	return (struct span){target.ptr, n};
}

void path_pattern(struct span target, char out[PATH_PATTERN_MAX])
{
	struct span rest = pattern_path_of(target), before = SPAN_LIT("");
	size_t at = 0, segments = 0;
	const size_t room = PATH_PATTERN_MAX - sizeof(PATH_PATTERN_MORE);
	while (rest.len && rest.ptr[0] == '/') {
		const char *end = memchr(rest.ptr + 1, '/', rest.len - 1);
		struct span raw = {rest.ptr + 1, end ? (size_t)(end - rest.ptr) - 1 : rest.len - 1};
		struct span shown = pattern_segment(raw, before);
		if (++segments > SEGMENTS_MAX || at + 1 + shown.len > room) {
			memcpy(out + at, PATH_PATTERN_MORE, sizeof(PATH_PATTERN_MORE) - 1);
			at += sizeof(PATH_PATTERN_MORE) - 1;
			break;
		}
		out[at++] = '/';
		memcpy(out + at, shown.ptr, shown.len);
		at += shown.len;
		before = raw;
		rest = end ? (struct span){end, rest.len - raw.len - 1} : SPAN_NONE;
	}
	if (!at) /* *, or an authority */
		out[at++] = '*';
	out[at] = '\0';
}

void path_pattern_method(struct span method, char out[PATH_PATTERN_METHOD])
{
	static const char *const known[] = {"GET",   "HEAD",   "POST",	  "PUT",
					    "PATCH", "DELETE", "OPTIONS", "TRACE"};
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (span_is(method, known[i])) {
			memcpy(out, known[i], strlen(known[i]) + 1);
			return;
		}
	memcpy(out, "(other)", sizeof("(other)"));
}
