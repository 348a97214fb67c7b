#include "config/config_reader.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "operation/listen_address.h"

/* --- environment ---------------------------------------------------------------------------------------- */

void environment_mistake(struct config_reader *r, const char *variable, const char *format, ...)
{
	buf_printf(r->file.problems, "environment: %s: ", variable);
	va_list ap;
	va_start(ap, format);
	buf_vprintf(r->file.problems, format, ap);
	va_end(ap);
	buf_putc(r->file.problems, '\n');
	r->file.mistakes++;
}

const char *environment_get(struct config_reader *r, const char *variable)
{
	const char *value = r->getenv_fn ? r->getenv_fn(variable) : NULL;
	return value && *value ? value : NULL;
}

/* --- values of router.yml alone ------------------------------------------------------------------------- */

bool value_listen(const struct place *p, void *to)
{
	struct span s;
	union listen_address address;
	if (!value_text(p, &s))
		return false;
	if (listen_address_parse(s.ptr, &address, NULL) != 0) {
		place_mistake(p,
			      "expected address:port, such as 127.0.0.1:5002, [::1]:5002 or *:5002, not %s",
			      place_shown(p->node).text);
		return false;
	}
	*(const char **)to = s.ptr;
	return true;
}

bool listen_is_loopback(const char *listen)
{
	union listen_address a;
	if (listen_address_parse(listen, &a, NULL) != 0)
		return false;
	return a.any.sa_family == AF_INET ? ntohl(a.v4.sin_addr.s_addr) >> 24 == 127
					  : IN6_IS_ADDR_LOOPBACK(&a.v6.sin6_addr);
}
