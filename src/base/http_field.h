/*
 * One field of an HTTP message. Name and value are borrowed, as written, without blanks around the value.
 */
#ifndef BASE_HTTP_FIELD_H
#define BASE_HTTP_FIELD_H

#include "base/span.h"

struct http_field {
	struct span name, value;
};

#endif
