/* The report for programs: JSON for the dashboard and scripts, CSV for spreadsheets. */
#include <inttypes.h>

#include "base/clock.h"
#include "base/json.h"
#include "outcomes/report.h"

static void key(struct buf *b, const char *name)
{
	buf_printf(b, "\"%s\":", name);
}

static void time_or_null(struct buf *b, const char *name, int64_t us)
{
	char text[CLOCK_TEXT_MAX];
	key(b, name);
	if (us == 0) {
		buf_puts(b, "null,");
		return;
	}
	clock_format(us, text);
	buf_printf(b, "\"%s\",", text);
}

static void report_json_text_or_null(struct buf *b, const char *name, const char *text)
{
	key(b, name);
	if (*text)
		json_quote(b, span_of(text));
	else
		buf_puts(b, "null");
}

static void put_latency(struct buf *b, const char *name, int64_t us)
{
	key(b, name);
	if (us < 0)
		buf_puts(b, "null");
	else
		buf_printf(b, "%" PRId64, us);
}

static void put_rate(struct buf *b, const struct report_rate *a)
{
	if (a->known)
		buf_printf(b, "\"success_rate\":%.6f,\"interval\":[%.6f,%.6f],", a->rate, a->low, a->high);
	else
		buf_puts(b, "\"success_rate\":null,\"interval\":null,");
	buf_printf(b, "\"n\":%" PRIu64 ",\"few\":%s,\"results\":{", a->counted, a->few ? "true" : "false");
	for (int i = 0; i < OUTCOME_RESULT_COUNT; i++)
		buf_printf(b, "%s\"%s\":%" PRIu64, i ? "," : "", outcome_result_text((enum outcome_result)i),
			   a->results[i]);
	buf_puts(b, "},");
	put_latency(b, "p50_us", a->p50_us);
	buf_putc(b, ',');
	put_latency(b, "p95_us", a->p95_us);
	buf_putc(b, ',');
	put_latency(b, "p99_us", a->p99_us);
}

static void report_json_put_side(struct buf *b, const struct report_side *s, uint64_t executions)
{
	buf_printf(b, "{\"executions\":%" PRIu64 ",", s->executions);
	if (executions)
		buf_printf(b, "\"share\":%.6f,", s->share);
	else
		buf_puts(b, "\"share\":null,");
	buf_printf(b, "\"fallbacks\":%" PRIu64 ",", s->fallbacks);
	put_rate(b, &s->attempts);
	buf_puts(b, ",\"shadow\":{");
	put_rate(b, &s->shadows);
	buf_puts(b, "}}");
}

static void report_json_put_figures(struct buf *b, const struct report_operation *op)
{
	key(b, "sides");
	for (int i = 0; i < OUTCOME_SIDE_COUNT; i++) {
		buf_printf(b, "%c\"%s\":", i ? ',' : '{', report_side_name((enum outcome_side)i));
		report_json_put_side(b, &op->sides[i], op->executions);
	}
	buf_puts(b, "},\"backends\":{");
	for (size_t i = 0; i < op->n_backends; i++) {
		if (i)
			buf_putc(b, ',');
		json_quote(b, span_of(op->backends[i].name));
		buf_putc(b, ':');
		report_json_put_side(b, &op->backends[i].side, op->executions);
	}
	buf_puts(b, "},\"reasons\":{");
	for (int i = 0, n = 0; i < REASON_COUNT; i++)
		if (op->reasons[i])
			buf_printf(b, "%s\"%s\":%" PRIu64, n++ ? "," : "",
				   outcome_reason_text((enum outcome_reason)i), op->reasons[i]);
	buf_putc(b, '}');
}

static void report_json_put_operation(struct buf *b, const struct report_operation *op)
{
	buf_puts(b, "{\"service\":");
	json_quote(b, span_of(op->service));
	buf_puts(b, ",\"operation\":");
	json_quote(b, span_of(op->operation));
	buf_printf(b, ",\"can_move\":%s,\"executions\":%" PRIu64 ",\"left_out\":%" PRIu64 ",",
		   op->can_move ? "true" : "false", op->executions, op->left_out);
	report_json_put_figures(b, op);
	buf_putc(b, '}');
}

static void put_point(struct buf *b, const struct report_point *p)
{
	char time[CLOCK_TEXT_MAX];
	clock_format(p->time_us, time);
	buf_printf(b, "{\"time\":\"%s\"", time);
	for (int i = 0; i < OUTCOME_SIDE_COUNT; i++)
		buf_printf(b,
			   ",\"%s\":{\"executions\":%" PRIu64 ",\"success\":%" PRIu64 ",\"n\":%" PRIu64 "}",
			   report_side_name((enum outcome_side)i), p->executions[i], p->success[i],
			   p->counted[i]);
	buf_putc(b, '}');
}

/* Only where something was made up. */
static void put_demo(struct buf *b, const struct demo_history *h)
{
	if (!h->until_us)
		return;
	char since[CLOCK_TEXT_MAX], until[CLOCK_TEXT_MAX];
	clock_format(h->since_us, since);
	clock_format(h->until_us, until);
	buf_printf(b, "\"demo_history\":{\"since\":\"%s\",\"until\":\"%s\"},", since, until);
}

int report_to_json(const struct report *r, struct buf *out)
{
	buf_puts(out, "{\"version\":1,");
	time_or_null(out, "generated_at", r->made_us);
	time_or_null(out, "since", r->since_us);
	time_or_null(out, "until", r->until_us);
	buf_puts(out, "\"filters\":{");
	report_json_text_or_null(out, "service", r->service);
	buf_putc(out, ',');
	report_json_text_or_null(out, "operation", r->operation);
	buf_putc(out, ',');
	report_json_text_or_null(out, "organization", r->organization);
	buf_printf(out,
		   "},\"source\":\"%s\",\"total_executions\":%" PRIu64 ",\"left_out\":%" PRIu64
		   ",\"dropped\":%" PRIu64 ",",
		   r->from_rows ? "rows" : "rollups", r->total.executions, r->total.left_out, r->dropped);
	put_demo(out, &r->demo);
	report_json_put_figures(out, &r->total);
	buf_puts(out, ",\"meanings\":{");
	for (int i = 0, n = 0; i < REASON_COUNT; i++)
		if (r->total.reasons[i])
			buf_printf(out, "%s\"%s\":\"%s\"", n++ ? "," : "",
				   outcome_reason_text((enum outcome_reason)i),
				   outcome_reason_meaning((enum outcome_reason)i));
	buf_putc(out, '}');
	buf_puts(out, ",\"operations\":[");
	for (size_t i = 0; i < r->operation_count; i++) {
		if (i)
			buf_putc(out, ',');
		report_json_put_operation(out, &r->operations[i]);
	}
	buf_printf(out, "],\"point_seconds\":%" PRId64 ",\"points\":[", r->point_us / 1000000);
	for (size_t i = 0; i < r->point_count; i++) {
		if (i)
			buf_putc(out, ',');
		put_point(out, &r->points[i]);
	}
	buf_puts(out, "]}\n");
	return out->error;
}

/* RFC 4180; a leading = + - or @ gets a quote in front, since spreadsheets would run it. */
static void csv_text(struct buf *b, const char *text)
{
	buf_putc(b, '"');
	if (*text && strchr("=+-@\t\r", *text))
		buf_putc(b, '\'');
	for (; *text; text++) {
		if (*text == '"')
			buf_putc(b, '"');
		buf_putc(b, *text);
	}
	buf_putc(b, '"');
}

static void csv_latency(struct buf *b, int64_t us)
{
	buf_putc(b, ',');
	if (us >= 0)
		buf_printf(b, "%" PRId64, us);
}

static void csv_side(struct buf *b, const struct report_operation *op, enum outcome_side side)
{
	const struct report_side *s = &op->sides[side];
	csv_text(b, op->service);
	buf_putc(b, ',');
	csv_text(b, op->operation);
	buf_printf(b, ",%s,%" PRIu64 ",", report_side_name(side), s->executions);
	if (op->executions)
		buf_printf(b, "%.6f", s->share);
	buf_putc(b, ',');
	if (s->attempts.known)
		buf_printf(b, "%.6f", s->attempts.rate);
	buf_printf(b, ",%" PRIu64, s->attempts.counted);
	for (int i = 0; i < OUTCOME_RESULT_COUNT; i++)
		buf_printf(b, ",%" PRIu64, s->attempts.results[i]);
	buf_printf(b, ",%" PRIu64, s->fallbacks);
	csv_latency(b, s->attempts.p50_us);
	csv_latency(b, s->attempts.p95_us);
	csv_latency(b, s->attempts.p99_us);
	buf_puts(b, "\r\n");
}

int report_to_csv(const struct report *r, struct buf *out)
{
	buf_puts(out, "service,operation,side,executions,share,success_rate,n");
	for (int i = 0; i < OUTCOME_RESULT_COUNT; i++)
		buf_printf(out, ",%s", outcome_result_text((enum outcome_result)i));
	buf_puts(out, ",fallbacks,p50_us,p95_us,p99_us\r\n");
	for (size_t i = 0; i < r->operation_count; i++)
		for (int side = 0; side < OUTCOME_SIDE_COUNT; side++)
			csv_side(out, &r->operations[i], (enum outcome_side)side);
	return out->error;
}
