/*
 * Answers of legacy services: an incremental HTTP/1.x parser (RFC 9112). Pure: bytes in, meaning out.
 *
 * Why:       an answer is handed on as it was received, so fields keep their order, spelling and duplicates;
 *            where its body ends must be beyond doubt, or the next answer on the connection would be someone
 *            else's.
 * Ownership: the spans point into the caller's bytes; the array of fields is the parser's, kept from one
 *            answer to the next.
 * Limits:    a head (1xx before it, and trailers, counted with it) of max_head bytes, RESPONSE_FIELDS_MAX
 *            fields, a line of chunk framing of RESPONSE_CHUNK_LINE_MAX bytes.
 *
 * Refused as malformed: anything that is not a status line, HTTP other than 1.0 and 1.1, statuses below 100,
 *                       101 (nothing
 * was asked to be upgraded), obs-fold, NUL, CR that ends no line, names that are not tokens, Content-Length
 * that is no number or differs between its fields, Transfer-Encoding other than one `chunked`, both of them
 * together, Transfer-Encoding in HTTP/1.0, wrong chunk framing.
 * Tolerated: a bare LF as the end of a line of a head (RFC 9112 §2.2; it is reframed for the caller), a
 *            missing
 * reason phrase with or without its blank, the same Content-Length repeated (RFC 9110 §8.6).
 */
#ifndef LEGACY_RESPONSE_H
#define LEGACY_RESPONSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/span.h"
#include "legacy/legacy.h"

#define RESPONSE_FIELDS_MAX 256
#define RESPONSE_CHUNK_LINE_MAX 4096

enum response_framing { RESPONSE_NO_BODY, RESPONSE_LENGTH, RESPONSE_CHUNKED, RESPONSE_UNTIL_CLOSE };

struct response {
	/* Meaning, once response_head has said RESPONSE_HEAD */
	int status;
	struct span reason;
	struct http_field *fields;
	size_t n_fields;
	int64_t content_length; /* -1: no such field */
	enum response_framing framing;
	bool keep_alive;	/* the connection may be used again once `complete` */
	int64_t keep_timeout_s; /* of Keep-Alive: timeout=N; -1 without */
	size_t head_size;	/* bytes up to the body, 1xx heads before it included */

	bool complete;	 /* the answer has ended */
	const char *why; /* what is wrong, once something is */

	/* The parser's own */
	size_t capacity, max_head, line, scanned, trailer_bytes;
	uint64_t left; /* of the body or the chunk */
	unsigned chunk_line, chunk_state;
	unsigned minor;
	bool head_request, have_status, chunked, said_length, said_close, said_keep_alive;
	const char *wrong_length; /* of Content-Length, NULL: nothing */
};

/* Forgets the last answer, keeps the memory (a zeroed struct is fine). `head_request`: the answer is one to
 * HEAD. */
void response_begin(struct response *r, bool head_request, size_t max_head);
void response_release(struct response *r);

#define RESPONSE_MORE 0	    /* the head is not complete */
#define RESPONSE_HEAD 1	    /* it is; the body begins at bytes + head_size */
#define RESPONSE_CONTINUE 2 /* a 100 was read; call again with the same bytes */
/* `bytes` are all bytes of the answer so far: the same address at each call, until RESPONSE_HEAD. Other 1xx
 * are skipped. -EPROTO (see `why`) when malformed, -EFBIG above max_head or RESPONSE_FIELDS_MAX, -ENOMEM. */
int response_head(struct response *r, const char *bytes, size_t len);

/* The next n bytes of the body as received. Decodes in place: *ret_body body bytes are at `bytes` after it.
 * Returns how many bytes belonged to the answer (fewer than n only when `complete`), or -EPROTO. */
long response_body(struct response *r, char *bytes, size_t n, size_t *ret_body);

/* The upstream has closed in good order. true: that ended the body; false: it cut the answer short. */
bool response_closed(struct response *r);

#endif
