/* Drain for programs. */
#include <inttypes.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "outcomes/drain/drain.h"

static void drain_json_key(struct buf *b, const char *name)
{
	buf_printf(b, "%s\"%s\":", b->len && b->ptr[b->len - 1] != '{' ? "," : "", name);
}

static void drain_json_text(struct buf *b, const char *name, const char *text)
{
	drain_json_key(b, name);
	if (*text)
		json_quote(b, span_of(text));
	else
		buf_puts(b, "null");
}

static void drain_json_time(struct buf *b, const char *name, int64_t us)
{
	char text[CLOCK_TEXT_MAX] = "";
	if (us)
		clock_format(us, text);
	drain_json_text(b, name, text);
}

static void drain_json_count(struct buf *b, const char *name, uint64_t n)
{
	drain_json_key(b, name);
	buf_printf(b, "%" PRIu64, n);
}

static void drain_json_truth(struct buf *b, const char *name, bool truth)
{
	drain_json_key(b, name);
	buf_puts(b, truth ? "true" : "false");
}

static void drain_json_seconds(struct buf *b, const char *name, int64_t us)
{
	drain_json_key(b, name);
	buf_printf(b, "%" PRId64, us / 1000000);
}

static void drain_json_reasons(struct buf *b, const char *name, const uint64_t counts[REASON_COUNT])
{
	drain_json_key(b, name);
	buf_putc(b, '{');
	for (int i = 0; i < REASON_COUNT; i++)
		if (counts[i])
			drain_json_count(b, outcome_reason_text((enum outcome_reason)i), counts[i]);
	buf_putc(b, '}');
}

static void drain_json_last(struct buf *b, const struct drain_last *l)
{
	drain_json_key(b, "last");
	if (!l->time_us) {
		buf_puts(b, "null");
		return;
	}
	buf_putc(b, '{');
	drain_json_time(b, "time", l->time_us);
	drain_json_truth(b, "exact", l->exact);
	drain_json_text(b, "operation", l->operation);
	drain_json_text(b, "organization", l->organization);
	drain_json_text(b, "reason", outcome_reason_text(l->reason));
	drain_json_text(b, "role", outcome_role_text(l->role));
	drain_json_text(b, "result", outcome_result_text(l->result));
	drain_json_text(b, "backend", l->backend);
	buf_putc(b, '}');
}

static void drain_json_operation(struct buf *b, const struct drain_operation *op)
{
	buf_putc(b, '{');
	drain_json_text(b, "operation", op->operation);
	drain_json_last(b, &op->last);
	drain_json_count(b, "uses", op->uses);
	drain_json_reasons(b, "reasons", op->reasons);
	drain_json_count(b, "uses_of_other_side", op->others);
	drain_json_count(b, "shadows", op->shadows);
	drain_json_count(b, "fallbacks", op->fallbacks);
	drain_json_reasons(b, "fallback_reasons", op->fallback_reasons);
	drain_json_key(b, "task_gave_up");
	buf_putc(b, '{');
	for (int i = 0; i < OUTCOME_RESULT_COUNT; i++)
		if (op->gave_up[i])
			drain_json_count(b, outcome_result_text((enum outcome_result)i), op->gave_up[i]);
	buf_puts(b, "}}");
}

static void drain_json_pattern(struct buf *b, const struct unmapped_pattern *u)
{
	buf_putc(b, '{');
	drain_json_text(b, "method", u->method);
	drain_json_text(b, "pattern", u->pattern);
	drain_json_count(b, "count", u->count);
	drain_json_count(b, "not_found", u->not_found);
	drain_json_time(b, "last", u->last_us);
	drain_json_time(b, "last_found", u->last_found_us);
	buf_putc(b, '}');
}

static void drain_json_service(struct buf *b, const struct drain *d, const struct drain_service *s)
{
	buf_putc(b, '{');
	drain_json_text(b, "service", s->name);
	drain_json_text(b, "verdict", drain_verdict_text(s->verdict));
	drain_json_text(b, "sentence", s->sentence);
	drain_json_count(b, "uses", s->uses);
	drain_json_last(b, &s->last);
	drain_json_key(b, "operations");
	for (size_t i = 0; i < s->n; i++) {
		buf_putc(b, i ? ',' : '[');
		drain_json_operation(b, &d->operations[s->first + i]);
	}
	buf_puts(b, s->n ? "]" : "[]");
	drain_json_key(b, "unmapped");
	for (size_t i = 0; i < s->n_patterns; i++) {
		buf_putc(b, i ? ',' : '[');
		drain_json_pattern(b, &d->unmapped[s->first_pattern + i]);
	}
	buf_puts(b, s->n_patterns ? "]}" : "[]}");
}

static void drain_json_records(struct buf *b, const struct drain *d)
{
	drain_json_key(b, "records");
	buf_putc(b, '{');
	drain_json_time(b, "since", d->records_us);
	drain_json_count(b, "dropped", d->dropped);
	drain_json_truth(b, "patterns", d->knows_patterns);
	drain_json_seconds(b, "gap_seconds", d->gap_us);
	drain_json_seconds(b, "max_gap_seconds", d->options.max_gap_us);
	drain_json_text(b, "lacks", d->lacks);
	drain_json_key(b, "gaps");
	for (size_t i = 0; i < d->n_gaps; i++) {
		buf_puts(b, i ? ",{" : "[{");
		drain_json_time(b, "from", d->gaps[i].began_us);
		drain_json_time(b, "to", d->gaps[i].ended_us);
		buf_putc(b, '}');
	}
	buf_puts(b, d->n_gaps ? "]}" : "[]}");
}

static void drain_json_held(struct buf *b, const struct drain_options *o)
{
	drain_json_key(b, "ledger");
	if (o->side != OUTCOME_TASK) {
		buf_puts(b, "null");
		return;
	}
	buf_putc(b, '{');
	drain_json_text(b, "error", o->held_error ? o->held_error : "");
	drain_json_text(b, "store", o->held_store ? o->held_store : "");
	drain_json_key(b, "entries");
	for (size_t i = 0; i < o->n_held; i++) {
		const struct drain_held *h = &o->held[i];
		buf_puts(b, i ? ",{" : "[{");
		drain_json_text(b, "what", h->what);
		drain_json_text(b, "backend", h->backend);
		drain_json_count(b, "count", h->count);
		drain_json_time(b, "oldest", h->oldest_us);
		drain_json_time(b, "newest", h->newest_us);
		buf_putc(b, '}');
	}
	buf_puts(b, o->n_held ? "]}" : "[]}");
}

int drain_to_json(const struct drain *d, struct buf *out)
{
	const struct drain_options *o = &d->options;
	buf_puts(out, "{\"version\":1");
	drain_json_text(out, "side", outcome_side_text(o->side));
	drain_json_text(out, "verdict", drain_verdict_text(d->verdict));
	drain_json_text(out, "sentence", d->sentence);
	drain_json_text(out, "store", d->store);
	drain_json_time(out, "since", d->since_us);
	drain_json_time(out, "until", o->now_us);
	drain_json_records(out, d);
	drain_json_held(out, o);
	drain_json_key(out, "services");
	for (size_t i = 0; i < d->n_services; i++) {
		buf_putc(out, i ? ',' : '[');
		drain_json_service(out, d, &d->services[i]);
	}
	buf_puts(out, d->n_services ? "]}\n" : "[]}\n");
	return out->error;
}
