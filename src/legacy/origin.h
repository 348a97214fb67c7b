/*
 * Origin: a base URL taken apart. Pure.
 *
 * http://host:port[/prefix] or https://…; user info, query and fragment are refused.
 * Ownership: origin_release frees.
 */
#ifndef LEGACY_ORIGIN_H
#define LEGACY_ORIGIN_H

#include <stdbool.h>

#include "base/err.h"
#include "base/span.h"

struct origin {
	bool tls;
	char *authority; /* host[:port], as for the Host field */
	char *host;	 /* without brackets */
	unsigned port;
	bool reroute;	 /* the URL has another name than `host`, which is where connections go */
	bool is_address; /* the host is one, not a name */
	char *url;	 /* scheme://authority/ */
	char *prefix;	 /* "" or "/a/b": without the last slash */
	size_t prefix_length;
};

int origin_parse(const char *base_url, struct origin *ret, struct err *e); /* -EINVAL, -ENOMEM */
/* of the URL: SNI and certificate; its port is ignored. -ENOMEM */
int origin_rename(struct origin *o, const char *server_name);
void origin_release(struct origin *o);

#endif
