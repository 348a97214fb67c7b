#include "base/url.h"

#include <arpa/inet.h>

#include "base/digits.h"

static bool url_port_valid(struct span s)
{
	uint64_t port;
	return s.len <= 5 && digits_read(s, 65535, &port) && port > 0;
}

/* Cuts "host:port" at its last colon; an IPv6 host is in brackets. False when there is no port. */
static bool url_split_port(struct span s, struct span *ret_host, struct span *ret_port)
{
	size_t colon = s.len;
	while (colon > 0 && s.ptr[colon - 1] != ':' && s.ptr[colon - 1] != ']')
		colon--;
	if (colon == 0 || s.ptr[colon - 1] != ':')
		return false;
	*ret_host = (struct span){s.ptr, colon - 1};
	*ret_port = (struct span){s.ptr + colon, s.len - colon};
	return true;
}

static bool url_bracketed_address(struct span host)
{
	char copy[INET6_ADDRSTRLEN];
	unsigned char address[16];
	if (host.len < 3 || host.ptr[host.len - 1] != ']' || host.len - 2 >= sizeof(copy))
		return false;
	span_copy((struct span){host.ptr + 1, host.len - 2}, copy, sizeof(copy));
	return inet_pton(AF_INET6, copy, address) == 1;
}

/* Host names, IPv4 and bracketed IPv6. */
static bool url_host_valid(struct span host)
{
	if (host.len && host.ptr[0] == '[')
		return url_bracketed_address(host);
	for (size_t i = 0; i < host.len; i++) {
		char c = host.ptr[i];
		bool good = (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') || c == '-' ||
			    c == '.' || c == '_';
		if (!good)
			return false;
	}
	return host.len > 0 && host.len <= 253;
}

/* What follows the scheme, which is written in any case (RFC 3986 §3.1); SPAN_NONE for other schemes. */
static struct span url_behind_scheme(struct span url)
{
	static const char *const schemes[] = {"http://", "https://"};
	for (size_t i = 0; i < 2; i++) {
		size_t n = strlen(schemes[i]);
		if (url.len >= n && span_is_nocase((struct span){url.ptr, n}, schemes[i]))
			return (struct span){url.ptr + n, url.len - n};
	}
	return SPAN_NONE;
}

/* User info, host and port (RFC 3986 §3.2), of what follows the scheme. */
static struct span url_authority(struct span rest)
{
	size_t n = 0;
	while (n < rest.len && !memchr("/?#", rest.ptr[n], 3))
		n++;
	return (struct span){rest.ptr, n};
}

struct span url_user_info(struct span url)
{
	struct span a = url_authority(url_behind_scheme(url));
	const char *at = a.len ? memrchr(a.ptr, '@', a.len) : NULL;
	return at ? (struct span){a.ptr, (size_t)(at - a.ptr)} : SPAN_NONE;
}

struct span url_behind_host(struct span url)
{
	struct span rest = url_behind_scheme(url);
	size_t n = url_authority(rest).len;
	return rest.ptr ? (struct span){rest.ptr + n, rest.len - n} : SPAN_NONE;
}

void url_lower_scheme(char *url)
{
	for (; *url && *url != ':'; url++)
		if (*url >= 'A' && *url <= 'Z')
			*url = (char)(*url - 'A' + 'a');
}

struct span url_without_slash(struct span url)
{
	while (url.len && url.ptr[url.len - 1] == '/')
		url.len--;
	return url;
}

const char *url_mistake(struct span url, enum url_kind kind)
{
	struct span rest = url_behind_scheme(url), host = url_authority(rest), port;
	if (!rest.ptr)
		return "expected a URL that begins with http:// or https://";
	for (size_t i = 0; i < rest.len; i++)
		if ((unsigned char)rest.ptr[i] <= 0x20 || (unsigned char)rest.ptr[i] >= 0x7F)
			return "a URL must not contain blanks, control or non-ASCII characters";
	if (kind == URL_BASE && rest.len &&
	    (memchr(rest.ptr, '?', rest.len) || memchr(rest.ptr, '#', rest.len)))
		return "a base URL must not contain \"?\" or \"#\"";
	if (url_user_info(url).ptr)
		return "user names and passwords are not allowed in this URL";
	if (url_split_port(host, &host, &port) && !url_port_valid(port))
		return "the port must be a number from 1 to 65535";
	return url_host_valid(host) ? NULL : "the URL's host is missing or not a host name";
}
