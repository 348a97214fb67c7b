#include "base/http_message.h"

#include <string.h>
#include <strings.h>

struct span http_request_field(const struct http_request *r, const char *name)
{
	for (size_t i = 0; i < r->n_fields; i++)
		if (span_is_nocase(r->fields[i].name, name))
			return r->fields[i].value;
	return SPAN_NONE;
}

bool http_is_tchar(char c)
{
	return (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') || c == '-' ||
	       (c && strchr("!#$%&'*+.^_`|~", c));
}

bool http_is_token(struct span name)
{
	for (size_t i = 0; i < name.len; i++)
		if (!http_is_tchar(name.ptr[i]))
			return false;
	return name.len > 0;
}

/* On the path of every request: most names are dismissed by their length and first letter. */
bool http_is_hop_by_hop(struct span name)
{
	switch (name.len) {
	case 2:
		return http_named(name, "te");
	case 7:
		return http_named(name, "trailer") || http_named(name, "upgrade");
	case 10:
		return http_named(name, "connection") || http_named(name, "keep-alive");
	case 16:
		return http_named(name, "proxy-connection");
	case 17:
		return http_named(name, "transfer-encoding");
	case 18:
		return http_named(name, "proxy-authenticate");
	case 19:
		return http_named(name, "proxy-authorization");
	case 25:
		return http_named(name, "proxy-authentication-info");
	default:
		return false;
	}
}
