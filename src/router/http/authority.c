#include "router/http/authority.h"

#include <arpa/inet.h>

#include "base/digits.h"

static bool is_port(struct span text)
{
	uint64_t n;
	return text.len <= 5 && digits_read(text, 65535, &n);
}

/* Labels of letters, digits, '-' and '_', none of them empty. */
static bool is_name(struct span text)
{
	char before = '.';
	for (size_t i = 0; i < text.len; i++) {
		char c = text.ptr[i];
		bool letter = (c | 0x20) >= 'a' && (c | 0x20) <= 'z';
		bool word = letter || (c >= '0' && c <= '9') || c == '-' || c == '_';
		if (!word && (c != '.' || before == '.'))
			return false;
		before = c;
	}
	return text.len > 0 && before != '.';
}

static void put_lower(struct span text, char out[AUTHORITY_HOST_MAX])
{
	for (size_t i = 0; i < text.len; i++) {
		char c = text.ptr[i];
		out[i] = c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
	}
	out[text.len] = '\0';
}

bool authority_host(struct span text, char out[AUTHORITY_HOST_MAX])
{
	struct in6_addr v6;
	text = span_trim(text);
	bool bracketed = text.len && text.ptr[0] == '[';
	const char *end = bracketed ? memchr(text.ptr, ']', text.len) : NULL;
	const char *from = end ? end + 1 : text.ptr;
	const char *colon = text.len ? memchr(from, ':', (size_t)(text.ptr + text.len - from)) : NULL;
	struct span host = {text.ptr, colon ? (size_t)(colon - text.ptr) : text.len};
	if (colon && !is_port((struct span){colon + 1, text.len - host.len - 1}))
		return false;
	if (host.len == 0 || host.len >= AUTHORITY_HOST_MAX)
		return false;
	if (bracketed) {
		if (!end || end + 1 != host.ptr + host.len)
			return false;
		put_lower((struct span){host.ptr + 1, host.len - 2}, out);
		return inet_pton(AF_INET6, out, &v6) == 1;
	}
	host.len -= host.ptr[host.len - 1] == '.';
	if (!is_name(host))
		return false;
	put_lower(host, out);
	return true;
}

struct span authority_of_target(struct span target)
{
	bool absolute = target.len && target.ptr[0] != '/';
	const char *scheme = absolute ? memmem(target.ptr, target.len, "://", 3) : NULL;
	if (!scheme)
		return SPAN_NONE;
	struct span rest = {scheme + 3, (size_t)(target.ptr + target.len - scheme) - 3};
	size_t n = 0;
	while (n < rest.len && rest.ptr[n] != '/' && rest.ptr[n] != '?' && rest.ptr[n] != '#')
		n++;
	return (struct span){rest.ptr, n};
}
