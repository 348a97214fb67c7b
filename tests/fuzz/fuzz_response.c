/*
 * Answers of legacy services: whatever comes in, in whatever pieces, the parser says the same, and never
 * looks beyond.
 *
 * First byte: bit 0 = the request was HEAD, the rest = size of the pieces. Second run: all in one piece; both
 * must agree.
 */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "legacy/response.h"

#define MAX_HEAD 2048

struct outcome {
	int error, status;
	bool head, complete, keep_alive;
	size_t n_fields, used, body_length;
	char *body;
};

static struct outcome receive(const uint8_t *bytes, size_t n, size_t step, bool head_request)
{
	struct outcome o = {.body = malloc(n + 1)};
	struct response r = {0};
	size_t have = 0;
	char *head = malloc(n + 1);
	response_begin(&r, head_request, MAX_HEAD);
	while (o.used < n && !o.error && !r.complete) {
		size_t piece = n - o.used < step ? n - o.used : step;
		char *copy = malloc(piece); /* exactly as large, for the sanitizer */
		memcpy(copy, bytes + o.used, piece);
		size_t at = 0;
		o.used += piece;
		if (!o.head) {
			memcpy(head + have, copy, piece);
			have += piece;
			int e;
			while ((e = response_head(&r, head, have)) == RESPONSE_CONTINUE)
				;
			o.error = e < 0 ? -1 : 0;
			o.head = e == RESPONSE_HEAD;
			if (o.head)
				at = piece - (have - r.head_size);
		}
		if (o.head) {
			size_t body = 0;
			long used = response_body(&r, copy + at, piece - at, &body);
			assert(body <= piece - at);
			memcpy(o.body + o.body_length, copy + at, body);
			o.body_length += body;
			o.error = used < 0 ? -1 : 0;
			if (used >= 0)
				o.used -= piece - at - (size_t)used;
		}
		free(copy);
	}
	if (o.head) {
		o.status = r.status;
		o.keep_alive = r.keep_alive;
		o.n_fields = r.n_fields;
		o.complete = r.complete;
		for (size_t i = 0; i < r.n_fields; i++) {
			assert(r.fields[i].name.ptr >= head &&
			       r.fields[i].value.ptr + r.fields[i].value.len <= head + have);
			assert(!memchr(r.fields[i].value.ptr, '\n', r.fields[i].value.len));
		}
	}
	assert(!o.error || r.why);
	response_release(&r);
	free(head);
	return o;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 2)
		return 0;
	struct outcome a = receive(data + 1, size - 1, (data[0] >> 1) + 1u, data[0] & 1);
	struct outcome b = receive(data + 1, size - 1, size, data[0] & 1);
	assert(a.error == b.error && a.head == b.head && a.complete == b.complete);
	if (!a.error) {
		assert(a.status == b.status && a.keep_alive == b.keep_alive && a.n_fields == b.n_fields);
		assert(a.used == b.used && a.body_length == b.body_length);
	}
	assert(memcmp(a.body, b.body, a.body_length < b.body_length ? a.body_length : b.body_length) == 0);
	free(a.body);
	free(b.body);
	return 0;
}
