#include "legacy/response.h"

#include <errno.h>
#include <stdlib.h>

#include "base/digits.h"

/* What a chunked body waits for. */
enum { CHUNK_SIZE, CHUNK_EXTENSION, CHUNK_SIZE_LF, CHUNK_DATA, CHUNK_DATA_CR, CHUNK_DATA_LF, CHUNK_TRAILER };

static int response_malformed(struct response *r, const char *why)
{
	r->why = why;
	return -EPROTO;
}

void response_begin(struct response *r, bool head_request, size_t max_head)
{
	struct http_field *fields = r->fields;
	size_t capacity = r->capacity;
	*r = (struct response){
		.fields = fields,
		.capacity = capacity,
		.max_head = max_head,
		.head_request = head_request,
		.content_length = -1,
		.keep_timeout_s = -1,
	};
}

void response_release(struct response *r)
{
	free(r->fields);
	*r = (struct response){0};
}

/* --- head -------------------------------------------------------------------------------------------- */

/* 1*DIGIT up to INT64_MAX; -1 otherwise. */
static int64_t response_number(struct span s)
{
	uint64_t n;
	return digits_read(s, INT64_MAX, &n) ? (int64_t)n : -1;
}

static bool has_control(struct span s)
{
	return s.len && (memchr(s.ptr, '\0', s.len) || memchr(s.ptr, '\r', s.len));
}

/* HTTP/1.1 200 OK (RFC 9112 §4) */
static int status_line(struct response *r, struct span line)
{
	const char *p = line.ptr;
	if (line.len < 12 || memcmp(p, "HTTP/1.", 7) != 0 || (p[7] != '0' && p[7] != '1') || p[8] != ' ')
		return response_malformed(r, "not an HTTP/1.x status line");
	if (!is_digit(p[9]) || !is_digit(p[10]) || !is_digit(p[11]) || (line.len > 12 && p[12] != ' '))
		return response_malformed(r, "the status is not three digits");
	r->minor = (unsigned)(p[7] - '0');
	r->status = (p[9] - '0') * 100 + (p[10] - '0') * 10 + (p[11] - '0');
	r->reason = line.len > 13 ? (struct span){p + 13, line.len - 13} : (struct span){p + line.len, 0};
	if (r->status < 100)
		return response_malformed(r, "a status below 100");
	if (has_control(r->reason))
		return response_malformed(r, "NUL or CR in the reason phrase");
	r->have_status = true;
	return 0;
}

/* Calls fn for each element of a comma-separated list (RFC 9110 §5.6.1). */
static void each_token(struct response *r, struct span list,
		       void (*fn)(struct response *r, struct span token))
{
	while (list.len) {
		const char *comma = memchr(list.ptr, ',', list.len);
		size_t n = comma ? (size_t)(comma - list.ptr) : list.len;
		fn(r, span_trim((struct span){list.ptr, n}));
		n += comma != NULL;
		list.ptr += n;
		list.len -= n;
	}
}

static void connection_option(struct response *r, struct span token)
{
	r->said_close |= span_is_nocase(token, "close");
	r->said_keep_alive |= span_is_nocase(token, "keep-alive");
}

static void keep_alive_parameter(struct response *r, struct span token)
{
	struct span name = SPAN_LIT("timeout=");
	if (token.len > name.len && strncasecmp(token.ptr, name.ptr, name.len) == 0)
		r->keep_timeout_s =
			response_number((struct span){token.ptr + name.len, token.len - name.len});
}

/* One number, or the same one several times (RFC 9112 §6.3, rule 5). What is wrong counts only without
 * Transfer-Encoding. */
static void length_value(struct response *r, struct span token)
{
	int64_t n = response_number(token);
	if (n < 0)
		r->wrong_length = "Content-Length is not a number";
	else if (r->content_length >= 0 && r->content_length != n)
		r->wrong_length = "Content-Length fields differ";
	else
		r->content_length = n;
}

/* The fields that say where the answer ends and whether the connection continues. */
static int framing_field(struct response *r, struct span name, struct span value)
{
	if (span_is_nocase(name, "Content-Length")) {
		each_token(r, value, length_value);
		r->said_length = true;
	} else if (span_is_nocase(name, "Transfer-Encoding")) {
		if (r->chunked || !span_is_nocase(value, "chunked"))
			return response_malformed(r, "Transfer-Encoding is not exactly chunked");
		r->chunked = true;
	} else if (span_is_nocase(name, "Connection")) {
		each_token(r, value, connection_option);
	} else if (span_is_nocase(name, "Keep-Alive")) {
		each_token(r, value, keep_alive_parameter);
	}
	return 0;
}

static int response_grow(struct response *r)
{
	if (r->n_fields == RESPONSE_FIELDS_MAX) {
		r->why = "too many fields";
		return -EFBIG;
	}
	size_t capacity = r->capacity ? r->capacity * 2 : 32;
	struct http_field *fields = realloc(r->fields, capacity * sizeof(*fields));
	if (!fields) {
		r->why = "out of memory";
		return -ENOMEM;
	}
	r->fields = fields;
	r->capacity = capacity;
	return 0;
}

static int field_line(struct response *r, struct span line)
{
	size_t n = 0;
	while (n < line.len && http_is_tchar(line.ptr[n]))
		n++;
	if (n == 0 && (line.ptr[0] == ' ' || line.ptr[0] == '\t'))
		return response_malformed(r, "a folded field (obs-fold)");
	if (n == 0 || n == line.len || line.ptr[n] != ':')
		return response_malformed(r, "a field name is not a token followed by a colon");
	struct span name = {line.ptr, n};
	struct span value = span_trim((struct span){line.ptr + n + 1, line.len - n - 1});
	if (has_control(value))
		return response_malformed(r, "NUL or CR in a field");
	if (r->n_fields == r->capacity) {
		int e = response_grow(r);
		if (e < 0)
			return e;
	}
	r->fields[r->n_fields++] = (struct http_field){name, value};
	return n == 10 || n == 14 || n == 17 ? framing_field(r, name, value) : 0;
}

/* Where the body ends (RFC 9112 §6.3). */
static int settle_framing(struct response *r)
{
	if (r->chunked && r->minor == 0)
		return response_malformed(r, "Transfer-Encoding in HTTP/1.0");
	/* Rule 3: Transfer-Encoding wins, and Content-Length goes; proxies that copy fields send both. Two
	 * readers of the same bytes could differ about where the answer ends, so the connection carries
	 * nothing after it. */
	bool both = r->chunked && r->said_length;
	if (both)
		r->content_length = -1;
	else if (r->wrong_length || (r->said_length && r->content_length < 0))
		return response_malformed(r, r->wrong_length ? r->wrong_length
							     : "Content-Length is not a number");
	if (r->head_request || r->status == 204 || r->status == 304) {
		r->framing = RESPONSE_NO_BODY;
	} else if (r->chunked) {
		r->framing = RESPONSE_CHUNKED;
	} else if (r->content_length >= 0) {
		r->framing = RESPONSE_LENGTH;
		r->left = (uint64_t)r->content_length;
	} else {
		r->framing = RESPONSE_UNTIL_CLOSE;
	}
	r->complete = r->framing == RESPONSE_NO_BODY || (r->framing == RESPONSE_LENGTH && r->left == 0);
	r->keep_alive = r->framing != RESPONSE_UNTIL_CLOSE && !both && !r->said_close &&
			(r->minor == 1 || r->said_keep_alive);
	return RESPONSE_HEAD;
}

/* The empty line: an interim answer is dropped and the next head expected right after it. */
static int end_of_head(struct response *r)
{
	if (r->status == 101)
		return response_malformed(r, "unexpected 101 Switching Protocols");
	if (r->status >= 200) {
		r->head_size = r->line;
		return settle_framing(r);
	}
	bool go_on = r->status == 100;
	size_t at = r->line;
	response_begin(r, r->head_request, r->max_head);
	r->line = r->scanned = at;
	return go_on ? RESPONSE_CONTINUE : RESPONSE_MORE;
}

static int head_line(struct response *r, struct span line)
{
	if (!r->have_status)
		return status_line(r, line);
	return line.len ? field_line(r, line) : end_of_head(r);
}

static int too_large(struct response *r)
{
	r->why = "the head is too large";
	return -EFBIG;
}

int response_head(struct response *r, const char *bytes, size_t len)
{
	while (r->scanned < len) {
		const char *lf = memchr(bytes + r->scanned, '\n', len - r->scanned);
		if (!lf) {
			r->scanned = len;
			break;
		}
		struct span line = {bytes + r->line, (size_t)(lf - bytes) - r->line};
		r->line = r->scanned = (size_t)(lf - bytes) + 1;
		if (r->line > r->max_head)
			return too_large(r);
		if (line.len && line.ptr[line.len - 1] == '\r')
			line.len--;
		int e = head_line(r, line);
		if (e != 0)
			return e;
	}
	return len >= r->max_head ? too_large(r) : RESPONSE_MORE;
}

/* --- body -------------------------------------------------------------------------------------------- */

static int response_hex(char c)
{
	if (is_digit(c))
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* One byte of a chunk's first line: size, extensions (dropped), CR LF (RFC 9112 §7.1). */
static int chunk_line_byte(struct response *r, char c)
{
	if (++r->chunk_line > RESPONSE_CHUNK_LINE_MAX)
		return response_malformed(r, "a chunk's line is too long");
	if (r->chunk_state == CHUNK_SIZE_LF) {
		if (c != '\n')
			return response_malformed(r, "a chunk's line does not end with CR LF");
		r->chunk_line = 0;
		r->chunk_state = r->left ? CHUNK_DATA : CHUNK_TRAILER;
		return 0;
	}
	int digit = r->chunk_state == CHUNK_SIZE ? response_hex(c) : -1;
	if (digit >= 0) {
		if (r->left > (uint64_t)INT64_MAX >> 4)
			return response_malformed(r, "a chunk's size overflows");
		r->left = r->left << 4 | (uint64_t)digit;
		return 0;
	}
	if (r->chunk_line == 1)
		return response_malformed(r, "a chunk without a size");
	if (c == '\r')
		r->chunk_state = CHUNK_SIZE_LF;
	else if (c == '\n' || (r->chunk_state == CHUNK_SIZE && c != ';' && c != ' ' && c != '\t'))
		return response_malformed(r, "a chunk's size is not hexadecimal");
	else
		r->chunk_state = CHUNK_EXTENSION;
	return 0;
}

/* One byte of the trailers, which are dropped; an empty line ends the answer. chunk_line: length of this line
 * so far. */
static int trailer_byte(struct response *r, char c, char before)
{
	if (++r->trailer_bytes > r->max_head)
		return response_malformed(r, "the trailers are too large");
	if (c == '\0')
		return response_malformed(r, "NUL in a trailer");
	if (c != '\n') {
		r->chunk_line++;
		return 0;
	}
	if (before != '\r')
		return response_malformed(r, "a trailer does not end with CR LF");
	r->complete = r->chunk_line == 1;
	r->chunk_line = 0;
	return 0;
}

static int chunk_end_byte(struct response *r, char c)
{
	if (c != (r->chunk_state == CHUNK_DATA_CR ? '\r' : '\n'))
		return response_malformed(r, "a chunk is longer than its size");
	r->chunk_state = r->chunk_state == CHUNK_DATA_CR ? CHUNK_DATA_LF : CHUNK_SIZE;
	return 0;
}

static int chunk_framing_byte(struct response *r, char c)
{
	if (r->chunk_state == CHUNK_TRAILER) {
		/* `left` is 0 here and has room for the one byte that must be remembered. */
		int e = trailer_byte(r, c, (char)r->left);
		r->left = (unsigned char)c;
		return e;
	}
	if (r->chunk_state == CHUNK_DATA_CR || r->chunk_state == CHUNK_DATA_LF)
		return chunk_end_byte(r, c);
	return chunk_line_byte(r, c);
}

static long chunked_body(struct response *r, char *bytes, size_t n, size_t *ret_body)
{
	size_t at = 0, body = 0;
	while (at < n && !r->complete) {
		if (r->chunk_state != CHUNK_DATA) {
			if (chunk_framing_byte(r, bytes[at++]) < 0)
				return -EPROTO;
			continue;
		}
		size_t take = n - at < r->left ? n - at : (size_t)r->left;
		if (body != at)
			memmove(bytes + body, bytes + at, take);
		at += take;
		body += take;
		r->left -= take;
		if (r->left == 0)
			r->chunk_state = CHUNK_DATA_CR;
		*ret_body = body;
	}
	return (long)at;
}

long response_body(struct response *r, char *bytes, size_t n, size_t *ret_body)
{
	*ret_body = 0;
	if (r->complete)
		return 0;
	if (r->framing == RESPONSE_CHUNKED)
		return chunked_body(r, bytes, n, ret_body);
	if (r->framing == RESPONSE_LENGTH) {
		if (n > r->left)
			n = (size_t)r->left;
		r->left -= n;
		r->complete = r->left == 0;
	}
	*ret_body = n;
	return (long)n;
}

bool response_closed(struct response *r)
{
	if (r->framing == RESPONSE_UNTIL_CLOSE && r->head_size)
		r->complete = true;
	return r->complete;
}
