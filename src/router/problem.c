#include "router/problem.h"

#include <string.h>

#include "base/json.h"

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
	return status >= 500 ? "Server Error" : status >= 400 ? "Client Error" : "Answer";
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
		json_quote(out, m->value);
}

int problem_render(const struct problem *p, struct buf *out)
{
	buf_puts(out, "{\"type\":");
	json_quote(out, span_of(p->type ? p->type : "about:blank"));
	buf_puts(out, ",\"title\":");
	json_quote(out, span_of(p->title ? p->title : problem_title(p->status)));
	buf_printf(out, ",\"status\":%d", p->status);
	if (p->detail.ptr) {
		buf_puts(out, ",\"detail\":");
		json_quote(out, p->detail);
	}
	if (p->instance.ptr) {
		buf_puts(out, ",\"instance\":\"");
		buf_put_segment(out, p->instance);
		buf_putc(out, '"');
	}
	for (size_t i = 0; i < p->n_members; i++)
		append_member(out, &p->members[i]);
	buf_putc(out, '}');
	return out->error;
}
