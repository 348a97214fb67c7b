/*
 * Layout check: did the library below leave anything out between the pieces of a head that it handed over?
 *
 * Why:       libmicrohttpd 0.9.75 glues folded lines onto field names, takes a bare LF for a line end and
 *            cuts values at a NUL. All three hide bytes which a proxy in front reads differently. The spans
 *            it hands out are in its read buffer, where a clean head leaves exactly the separators between
 *            them: so distances tell.
 * Hazard:    the layout is not documented by the library: listener_self_test proves it at startup. Pointer
 *            arithmetic only, but for the blanks around values.
 */
#ifndef ROUTER_HTTP_LAYOUT_CHECK_H
#define ROUTER_HTTP_LAYOUT_CHECK_H

#include "router/http/listener.h"

/* `head_size`: bytes from the method's first to the head's last, as the library counted. `trimmed`: the
 * library has dropped blanks after values (1.0 and later, which refuse NULs by themselves); otherwise they
 * must be in the spans. Returns NULL when the head is laid out cleanly, otherwise a constant sentence. */
const char *layout_check(const struct http_request *r, size_t head_size, bool trimmed);

#endif
