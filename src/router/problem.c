#include "router/problem.h"

#include <string.h>

#include "base/json.h"
#include "base/text.h"

const char *problem_title(int status)
{
	static const struct {
		int status;
		const char *title;
	} known[] = {
		{400, "Bad Request"},
		{401, "Unauthorized"},
		{403, "Forbidden"},
		{404, "Not Found"},
		{405, "Method Not Allowed"},
		{408, "Request Timeout"},
		{409, "Conflict"},
		{411, "Length Required"},
		{413, "Content Too Large"},
		{414, "URI Too Long"},
		{415, "Unsupported Media Type"},
		{417, "Expectation Failed"},
		{421, "Misdirected Request"},
		{422, "Unprocessable Content"},
		{429, "Too Many Requests"},
		{431, "Request Header Fields Too Large"},
		{500, "Internal Server Error"},
		{501, "Not Implemented"},
		{502, "Bad Gateway"},
		{503, "Service Unavailable"},
		{504, "Gateway Timeout"},
		{505, "HTTP Version Not Supported"},
		{508, "Loop Detected"},
	};
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (known[i].status == status)
			return known[i].title;
	if (status >= 500)
		return "Server Error";
	return status >= 400 ? "Client Error" : "Answer";
}

static void problem_put_text(struct buf *out, struct span text)
{
	CLEANUP(buf_releasep) struct buf cut = BUF_INIT(PROBLEM_TEXT_MAX + 3);
	if (text.len <= PROBLEM_TEXT_MAX) {
		json_quote(out, text);
		return;
	}
	buf_append_span(&cut, text_front(text, PROBLEM_TEXT_MAX));
	buf_puts(&cut, "\xe2\x80\xa6");
	json_quote(out, buf_span(&cut));
}

static void append_member(struct buf *out, const struct problem_member *m)
{
	buf_putc(out, ',');
	json_quote(out, span_of(m->name));
	buf_putc(out, ':');
	if (!m->value.ptr)
		buf_puts(out, "null");
	else if (m->json)
		buf_append_span(out, m->value);
	else
		problem_put_text(out, m->value);
}

static void problem_put_head(const struct problem *p, struct buf *out)
{
	buf_puts(out, "{\"type\":");
	json_quote(out, span_of(p->type ? p->type : "about:blank"));
	buf_puts(out, ",\"title\":");
	problem_put_text(out, span_of(p->title ? p->title : problem_title(p->status)));
	buf_printf(out, ",\"status\":%d", p->status);
}

static void put_rest(const struct problem *p, struct buf *out)
{
	if (p->detail.ptr) {
		buf_puts(out, ",\"detail\":");
		problem_put_text(out, p->detail);
	}
	if (p->instance.ptr && p->instance.len <= PROBLEM_TEXT_MAX) { /* cut it would name another */
		buf_puts(out, ",\"instance\":\"");
		buf_put_segment(out, p->instance);
		buf_putc(out, '"');
	}
	for (size_t i = 0; i < p->n_members; i++)
		append_member(out, &p->members[i]);
}

/* Back to where nothing was appended. */
static void problem_undo(struct buf *out, size_t start)
{
	out->len = start;
	buf_terminate(out);
}

int problem_render(const struct problem *p, struct buf *out)
{
	size_t start = out->len;
	if (out->error)
		return out->error;
	problem_put_head(p, out);
	put_rest(p, out);
	buf_putc(out, '}');
	if (!out->error)
		return 0;
	problem_undo(out, start);
	out->error = 0;
	problem_put_head(p, out);
	buf_putc(out, '}');
	if (out->error)
		problem_undo(out, start);
	return out->error;
}
