#include "flags/flipt_server.h"

#include <stdio.h>

#include "base/json.h"

static bool server_is_least(const struct flipt_server *s, unsigned minor, unsigned patch)
{
	return s->minor > minor || (s->minor == minor && s->patch >= patch);
}

/* "1.61.1", "v2.11.0", "2.0.0-beta": what is built by hand says "dev" and is not known. */
static bool server_parse(struct span text, struct flipt_server *ret)
{
	char copy[64];
	span_copy(text, copy, sizeof(copy));
	return sscanf(copy[0] == 'v' ? copy + 1 : copy, "%u.%u.%u", &ret->major, &ret->minor, &ret->patch) == 3;
}

struct flipt_server flipt_server_of(struct span info)
{
	static const struct span names[] = {SPAN_INIT("/version"), SPAN_INIT("/build/version"), SPAN_INIT("/storage/type")};
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
