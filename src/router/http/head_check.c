/*
 * Head check. One pass over the fields; values are compared exactly as they came, trailing blanks included,
 * since that is how the library below compares them when it decides on the framing.
 */
#include "router/http/head_check.h"

#include <ctype.h>

#include "base/digits.h"

enum { BAD_REQUEST = 400, NOT_IMPLEMENTED = 501, VERSION_NOT_SUPPORTED = 505 };

struct seen {
	unsigned hosts, lengths, codings, expects;
	const char *why;
	int status;
};

static int head_check_refuse(struct seen *s, int status, const char *why)
{
	s->status = status;
	s->why = why;
	return status;
}

static bool is_value(struct span s)
{
	for (size_t i = 0; i < s.len; i++) {
		unsigned char c = (unsigned char)s.ptr[i];
		if ((c < 0x20 && c != '\t') || c == 0x7f)
			return false;
	}
	return true;
}

static bool has_blank_or_control(struct span s)
{
	for (size_t i = 0; i < s.len; i++) {
		unsigned char c = (unsigned char)s.ptr[i];
		if (c <= 0x20 || c == 0x7f)
			return true;
	}
	return false;
}

static bool head_check_starts_nocase(struct span s, const char *prefix)
{
	size_t n = strlen(prefix);
	return s.len >= n && strncasecmp(s.ptr, prefix, n) == 0;
}

/* Digits only; 18 of them always fit. */
static bool parse_length(struct span s, int64_t *ret)
{
	uint64_t n;
	if (s.len > 18 || !digits_read(s, INT64_MAX, &n))
		return false;
	*ret = (int64_t)n;
	return true;
}

static bool names_websocket(struct span value)
{
	for (; value.len >= 9; value.ptr++, value.len--)
		if (strncasecmp(value.ptr, "websocket", 9) == 0)
			return true;
	return false;
}

static int check_target(const struct http_request *r, struct seen *s)
{
	if (r->target.len == 0)
		return head_check_refuse(s, BAD_REQUEST, "empty request target");
	if (has_blank_or_control(r->target))
		return head_check_refuse(s, BAD_REQUEST, "blank or control character in the request target");
	if (r->target.ptr[0] == '/')
		return 0;
	if (span_is(r->target, "*"))
		return span_is(r->method, "OPTIONS")
			       ? 0
			       : head_check_refuse(s, BAD_REQUEST, "target * without OPTIONS");
	if (head_check_starts_nocase(r->target, "http://") || head_check_starts_nocase(r->target, "https://"))
		return 0;
	return head_check_refuse(s, BAD_REQUEST, "request target is neither a path nor a URL");
}

static int check_line(const struct http_request *r, struct seen *s)
{
	if (!span_is(r->version, "HTTP/1.1") && !span_is(r->version, "HTTP/1.0"))
		return head_check_refuse(s, VERSION_NOT_SUPPORTED, "only HTTP/1.0 and HTTP/1.1 are served");
	if (!http_is_token(r->method))
		return head_check_refuse(s, BAD_REQUEST, "method is not a token");
	if (span_is(r->method, "CONNECT"))
		return head_check_refuse(s, NOT_IMPLEMENTED, "CONNECT is not served");
	return check_target(r, s);
}

static int check_coding(struct http_request *r, struct span value, struct seen *s)
{
	if (s->codings++)
		return head_check_refuse(s, BAD_REQUEST, "repeated Transfer-Encoding");
	if (!span_is_nocase(value, "chunked"))
		return head_check_refuse(s, BAD_REQUEST, "Transfer-Encoding other than chunked");
	if (span_is(r->version, "HTTP/1.0"))
		return head_check_refuse(s, BAD_REQUEST, "Transfer-Encoding in HTTP/1.0");
	r->chunked = true;
	return 0;
}

static int check_special(struct http_request *r, const struct http_field *f, struct seen *s)
{
	switch (f->name.len) {
	case 4:
		if (!span_is_nocase(f->name, "Host"))
			return 0;
		if (s->hosts++)
			return head_check_refuse(s, BAD_REQUEST, "repeated Host");
		return has_blank_or_control(span_trim(f->value))
			       ? head_check_refuse(s, BAD_REQUEST, "blank in Host")
			       : 0;
	case 6:
		/* Only the first one counts: so does the library, which sends the 100. */
		if (span_is_nocase(f->name, "Expect") && !s->expects++)
			r->expects_continue =
				span_is_nocase(f->value, "100-continue") && span_is(r->version, "HTTP/1.1");
		return 0;
	case 7:
		if (span_is_nocase(f->name, "Upgrade") && names_websocket(f->value))
			return head_check_refuse(s, NOT_IMPLEMENTED, "upgrade to websocket is not served");
		return 0;
	case 14:
		if (!span_is_nocase(f->name, "Content-Length"))
			return 0;
		if (s->lengths++)
			return head_check_refuse(s, BAD_REQUEST, "repeated Content-Length");
		if (!parse_length(f->value, &r->content_length))
			return head_check_refuse(s, BAD_REQUEST, "Content-Length is not a number");
		return 0;
	case 17:
		return span_is_nocase(f->name, "Transfer-Encoding") ? check_coding(r, f->value, s) : 0;
	default:
		return 0;
	}
}

static int check_field(struct http_request *r, const struct http_field *f, struct seen *s)
{
	if (!http_is_token(f->name))
		return head_check_refuse(s, BAD_REQUEST, "field name is not a token");
	if (!is_value(f->value))
		return head_check_refuse(s, BAD_REQUEST, "control character in a field value");
	return check_special(r, f, s);
}

static int head_check_all(struct http_request *r, struct seen *s)
{
	if (check_line(r, s))
		return s->status;
	for (size_t i = 0; i < r->n_fields; i++)
		if (check_field(r, &r->fields[i], s))
			return s->status;
	if (s->hosts == 0 && span_is(r->version, "HTTP/1.1"))
		return head_check_refuse(s, BAD_REQUEST, "HTTP/1.1 without Host");
	if (s->codings && s->lengths)
		return head_check_refuse(s, BAD_REQUEST, "both Content-Length and Transfer-Encoding");
	return 0;
}

int head_check(struct http_request *r, const char **ret_why)
{
	struct seen s = {0};
	r->chunked = r->expects_continue = false;
	r->content_length = -1;
	int status = head_check_all(r, &s);
	r->has_body = r->chunked || r->content_length > 0;
	*ret_why = s.why;
	return status;
}
