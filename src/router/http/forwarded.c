#include "router/http/forwarded.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

/* One element: an address, with a port or brackets or without. */
static bool forwarded_address(struct span text, struct sockaddr_storage *ret)
{
	char copy[INET6_ADDRSTRLEN + 16];
	if (text.len == 0 || text.len >= sizeof(copy))
		return false;
	span_copy(text, copy, sizeof(copy));
	char *begin = copy[0] == '[' ? copy + 1 : copy, *colon = strchr(copy, ':');
	if (copy[0] == '[')
		copy[strcspn(copy, "]")] = '\0';
	else if (colon && !strchr(colon + 1, ':'))
		*colon = '\0';
	*ret = (struct sockaddr_storage){.ss_family = AF_INET};
	if (inet_pton(AF_INET, begin, &((struct sockaddr_in *)(void *)ret)->sin_addr) == 1)
		return true;
	ret->ss_family = AF_INET6;
	return inet_pton(AF_INET6, begin, &((struct sockaddr_in6 *)(void *)ret)->sin6_addr) == 1;
}

/* The elements of one field, from its end. True: go on with the field before it. */
static bool forwarded_walk(const struct config *c, struct span rest, struct sockaddr_storage *ret)
{
	while (rest.len) {
		const char *comma = memrchr(rest.ptr, ',', rest.len);
		size_t at = comma ? (size_t)(comma - rest.ptr) + 1 : 0;
		struct sockaddr_storage address;
		if (!forwarded_address(span_trim((struct span){rest.ptr + at, rest.len - at}), &address))
			return false;
		*ret = address;
		if (!config_trusts_peer(c, (const struct sockaddr *)&address, sizeof(address)))
			return false;
		rest.len = at ? at - 1 : 0;
	}
	return true;
}

bool forwarded_client(const struct config *c, const struct http_request *h, struct sockaddr_storage *ret)
{
	*ret = (struct sockaddr_storage){.ss_family = AF_UNSPEC};
	if (!h->peer || h->peer_length > sizeof(*ret))
		return false;
	memcpy(ret, h->peer, h->peer_length);
	if (!config_trusts_peer(c, h->peer, h->peer_length))
		return true;
	for (size_t i = h->n_fields; i-- > 0;)
		if (span_is_nocase(h->fields[i].name, "X-Forwarded-For") &&
		    !forwarded_walk(c, h->fields[i].value, ret))
			break;
	return true;
}
