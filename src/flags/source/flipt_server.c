#include "flags/source/flipt_server.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/json.h"

static bool server_is_least(const struct flipt_server *s, unsigned minor, unsigned patch)
{
	return s->minor > minor || (s->minor == minor && s->patch >= patch);
}

/* "1.61.1", "v2.11.0", "2.0.0-beta": what is built manually says "dev" and is not known. */
static bool server_parse(struct span text, struct flipt_server *ret)
{
	char copy[64];
	span_copy(text, copy, sizeof(copy));
	if (strstr(copy, "-dev")) /* built from source: whatever it says, it may be any version */
		return false;
	return sscanf(copy[0] == 'v' ? copy + 1 : copy, "%u.%u.%u", &ret->major, &ret->minor, &ret->patch) ==
	       3;
}

struct flipt_server flipt_server_of(struct span info)
{
	static const struct span names[] = {SPAN_INIT("/version"), SPAN_INIT("/build/version"),
					    SPAN_INIT("/storage/type")};
	struct flipt_server s = {.known = false};
	struct span v[3];
	if (json_pointers(info, names, 3, v, NULL) != 0)
		return s;
	struct span version = v[1].ptr ? v[1] : v[0]; /* v2, v1 */
	if (!version.ptr || json_type_of(version) != JSON_STRING || version.len < 2)
		return s;
	s.known = server_parse((struct span){version.ptr + 1, version.len - 2}, &s);
	s.database = v[2].ptr && span_is(v[2], "\"database\"");
	return s;
}

bool flipt_server_digest_is_whole(const struct flipt_server *s)
{
	if (!s->known)
		return false;
	if (s->major == 1)
		return s->database; /* of files it tells time and size alone, in whole seconds */
	return s->major > 2 || server_is_least(s, 11, 0);
}

void flipt_server_version(const struct flipt_server *s, char text[32])
{
	text[0] = '\0';
	if (s->known)
		snprintf(text, 32, "%u.%u.%u", s->major, s->minor, s->patch);
}

/* --- answers that are no success ------------------------------------------------------------------------ */

#define RETRY_AFTER_MAX_S 3600

bool flipt_is_html(struct span content_type, struct span body)
{
	static const struct span types[] = {SPAN_INIT("text/html"), SPAN_INIT("application/xhtml")};
	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
		if (content_type.len >= types[i].len &&
		    strncasecmp(content_type.ptr, types[i].ptr, types[i].len) == 0)
			return true;
	body = span_strip(body);
	return body.len && body.ptr[0] == '<';
}

/* Where a redirect leads: without user info, query and fragment, which may hold secrets. */
static void refusal_target(struct span location, char *out, size_t size)
{
	struct span shown = location;
	for (size_t i = 0; i < shown.len; i++)
		if (shown.ptr[i] == '?' || shown.ptr[i] == '#')
			shown.len = i;
	const char *slashes = memmem(shown.ptr, shown.len, "://", 3);
	const char *rest = slashes ? slashes + 3 : NULL;
	size_t left = rest ? (size_t)(shown.ptr + shown.len - rest) : 0;
	const char *slash = left ? memchr(rest, '/', left) : NULL;
	size_t authority = slash ? (size_t)(slash - rest) : left;
	const char *at = authority ? memrchr(rest, '@', authority) : NULL;
	if (at)
		snprintf(out, size, "%.*s%.*s", (int)(rest - shown.ptr), shown.ptr,
			 (int)(shown.ptr + shown.len - at - 1), at + 1);
	else
		snprintf(out, size, "%.*s", SPAN_ARG(shown));
}

const char *flipt_refusal_text(const struct flipt_refusal *r, char *out, size_t size)
{
	char target[256];
	if (r->status >= 300 && r->status < 400 && r->status != 304) {
		refusal_target(r->location, target, sizeof(target));
		snprintf(out, size,
			 "status %d: it redirects to %s, which is not followed; set the URL to the server "
			 "itself",
			 r->status, *target ? target : "nowhere");
	} else if (flipt_is_html(r->content_type, r->body)) {
		snprintf(out, size,
			 "status %d with an HTML page, which is not an answer from Flipt's API: a login "
			 "page, a proxy in front of it, or a path missing from the URL?",
			 r->status);
	} else if (r->status == 401 || r->status == 403) {
		snprintf(out, size, "status %d: the client token is missing or not accepted", r->status);
	} else if (r->status == 404) {
		snprintf(out, size, "status 404: the namespace or environment does not exist");
	} else {
		snprintf(out, size, "status %d", r->status);
	}
	return out;
}

unsigned flipt_retry_after_ms(struct span field, int64_t now_us)
{
	char text[64];
	struct tm tm = {0};
	long long seconds = 0;
	span_copy(field, text, sizeof(text));
	size_t digits = strspn(text, "0123456789");
	if (digits && !text[digits])
		seconds = digits > 9 ? RETRY_AFTER_MAX_S : atoll(text);
	else if (strptime(text, "%a, %d %b %Y %H:%M:%S GMT", &tm))
		seconds = (long long)timegm(&tm) - now_us / 1000000;
	if (seconds <= 0)
		return 0;
	return (unsigned)(seconds > RETRY_AFTER_MAX_S ? RETRY_AFTER_MAX_S : seconds) * 1000;
}
