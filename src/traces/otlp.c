#include "traces/otlp.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

static void put_attribute(struct buf *out, const char *key, struct span text, bool first)
{
	buf_puts(out, first ? "{\"key\":" : ",{\"key\":");
	json_quote(out, span_of(key));
	buf_puts(out, ",\"value\":{\"stringValue\":");
	json_quote(out, text);
	buf_puts(out, "}}");
}

void otlp_begin(struct buf *out, const char *service_name, const char *instance)
{
	buf_puts(out, "{\"resourceSpans\":[{\"resource\":{\"attributes\":[");
	put_attribute(out, "service.name", span_of(service_name), true);
	put_attribute(out, "service.version", SPAN_LIT(PROJECT_VERSION), false);
	put_attribute(out, "service.instance.id", span_of(instance), false);
	buf_puts(out,
		 "]},\"scopeSpans\":[{\"scope\":{\"name\":\"migration-router\",\"version\":\"" PROJECT_VERSION
		 "\"},\"spans\":[");
}

static void put_number(struct buf *out, const struct trace_attribute *a, bool first)
{
	buf_puts(out, first ? "{\"key\":" : ",{\"key\":");
	json_quote(out, span_of(a->key));
	buf_printf(out, ",\"value\":{\"intValue\":\"%" PRId64 "\"}}", a->number);
}

void otlp_put_span(struct buf *out, const struct trace_span *s, bool first)
{
	buf_printf(out, "%s{\"traceId\":\"%s\",\"spanId\":\"%s\",", first ? "" : ",", s->trace, s->span);
	if (s->parent[0])
		buf_printf(out, "\"parentSpanId\":\"%s\",", s->parent);
	buf_puts(out, "\"flags\":1,\"name\":");
	json_quote(out, span_of(s->name));
	buf_printf(out,
		   ",\"kind\":%d,\"startTimeUnixNano\":\"%" PRId64 "000\",\"endTimeUnixNano\":\"%" PRId64
		   "000\",\"attributes\":[",
		   s->kind, s->start_us, s->end_us > s->start_us ? s->end_us : s->start_us);
	for (unsigned i = 0; i < s->n_attributes; i++) {
		const struct trace_attribute *a = &s->attributes[i];
		if (a->is_number)
			put_number(out, a, i == 0);
		else
			put_attribute(out, a->key, (struct span){s->text + a->at, a->length}, i == 0);
	}
	buf_puts(out, "],\"status\":{");
	if (s->error) {
		buf_puts(out, "\"code\":2,\"message\":");
		json_quote(out, span_of(s->message));
	}
	buf_puts(out, "}}");
}

int otlp_end(struct buf *out)
{
	buf_puts(out, "]}]}]}");
	return out->error;
}

uint64_t otlp_rejected(struct span body, uint64_t sent, struct err *why)
{
	struct span count, message;
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(4096);
	if (!json_pointer(body, SPAN_LIT("/partialSuccess/rejectedSpans"), &count))
		return 0;
	char digits[24];
	if (count.len && count.ptr[0] == '"')
		count = (struct span){count.ptr + 1, count.len - 1};
	span_copy(count, digits, sizeof(digits));
	unsigned long long n = strtoull(digits, NULL, 10);
	if (json_pointer(body, SPAN_LIT("/partialSuccess/errorMessage"), &message))
		json_unescape(message, &text);
	if (n)
		err_set(why, 0, "the collector refused %llu spans: %.*s", n, SPAN_ARG(buf_span(&text)));
	return n < sent ? n : sent;
}
