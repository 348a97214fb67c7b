/* The standing for programs: docs/migration-status.schema.json. */
#include <inttypes.h>
#include <math.h>

#include "base/clock.h"
#include "base/json.h"
#include "standing/standing_internal.h"

static void put_text(struct buf *b, const char *name, const char *text)
{
	buf_printf(b, "\"%s\":", name);
	json_quote(b, span_of(text));
	buf_putc(b, ',');
}

static void put_time(struct buf *b, const char *name, int64_t us)
{
	char text[CLOCK_TEXT_MAX];
	if (us <= 0) {
		buf_printf(b, "\"%s\":null,", name);
		return;
	}
	clock_format(us, text);
	buf_printf(b, "\"%s\":\"%s\",", name, text);
}

/* A comma follows all but the last member of an object. */
static void put_percent(struct buf *b, const char *name, double percent, const char *after)
{
	if (percent < 0)
		buf_printf(b, "\"%s\":null%s", name, after);
	else
		buf_printf(b, "\"%s\":%.6g%s", name, percent, after);
}

static void put_side(struct buf *b, const struct report_operation *op, enum outcome_side side)
{
	const struct report_side *s = &op->sides[side];
	const struct report_rate *a = &s->attempts;
	buf_printf(b, "\"%s\":{\"executions\":%" PRIu64 ",\"fallbacks\":%" PRIu64 ",\"n\":%" PRIu64 ",",
		   outcome_side_text(side), s->executions, s->fallbacks, a->counted);
	put_percent(b, "success", a->known ? a->rate * 100 : STANDING_NOT_SET, ",");
	put_percent(b, "low", a->known ? a->low * 100 : STANDING_NOT_SET, ",");
	put_percent(b, "high", a->known ? a->high * 100 : STANDING_NOT_SET, ",");
	buf_puts(b, "\"results\":{");
	for (int i = 0; i < OUTCOME_RESULT_COUNT; i++)
		buf_printf(b, "%s\"%s\":%" PRIu64, i ? "," : "", outcome_result_text((enum outcome_result)i),
			   a->results[i]);
	buf_puts(b, "}}");
}

static void standing_put_operation(struct buf *b, const struct standing_operation *o)
{
	buf_putc(b, '{');
	put_text(b, "service", o->service);
	put_text(b, "operation", o->operation);
	put_text(b, "level", standing_level_text(o->level));
	put_text(b, "verdict", o->verdict);
	put_text(b, "why", o->why);
	put_text(b, "command", o->command);
	put_text(b, "flag", o->facts.flag);
	put_text(b, "backend", o->facts.backend);
	put_text(b, "stage", o->facts.stage);
	put_text(b, "phase", o->facts.phase);
	put_percent(b, "set", o->facts.set, ",");
	put_percent(b, "measured", o->measured, ",");
	put_percent(b, "next", o->facts.next, ",");
	put_percent(b, "shadow", o->facts.shadow, ",");
	put_time(b, "since", o->since_us);
	buf_printf(b, "\"held\":%s,\"executions\":%" PRIu64 ",\"segments\":[",
		   o->facts.held ? "true" : "false", o->window.executions);
	for (size_t i = 0; i < o->facts.n_segments; i++) {
		buf_puts(b, i ? ",{" : "{");
		put_text(b, "name", o->facts.segments[i].name);
		put_percent(b, "percent", o->facts.segments[i].percent, "}");
	}
	buf_puts(b, "],\"hour\":[");
	for (size_t i = 0; i < STANDING_HOUR_POINTS; i++)
		buf_printf(b, "%s[%" PRIu32 ",%" PRIu32 "]", i ? "," : "", o->hour[i][OUTCOME_LEGACY],
			   o->hour[i][OUTCOME_TASK]);
	buf_puts(b, "],\"sides\":{");
	put_side(b, &o->window, OUTCOME_LEGACY);
	buf_putc(b, ',');
	put_side(b, &o->window, OUTCOME_TASK);
	buf_puts(b, "}}");
}

int standing_to_json(const struct standing *s, struct buf *out)
{
	buf_printf(out, "{\"version\":%d,", STANDING_VERSION);
	put_text(out, "level", standing_level_text(s->level));
	put_text(out, "sentence", s->sentence);
	put_text(out, "command", s->command);
	put_text(out, "next", s->next);
	put_time(out, "made_at", s->made_us);
	put_time(out, "since", s->since_us);
	put_time(out, "reported_at", s->reported_us);
	put_time(out, "hour_since", s->hour_us);
	buf_printf(out, "\"hour_point_seconds\":%d,", STANDING_POINT_MINUTES * 60);
	put_percent(out, "set", s->set, ",");
	put_percent(out, "measured", s->measured, ",");
	buf_printf(out, "\"executions\":%" PRIu64 ",\"left_out\":%" PRIu64 ",\"without_task\":%zu,",
		   s->executions, s->left_out, s->without_task);
	put_text(out, "others", s->others);
	buf_puts(out, "\"operations\":[");
	for (size_t i = 0; i < s->n_operations; i++) {
		buf_puts(out, i ? "," : "");
		standing_put_operation(out, &s->operations[i]);
	}
	buf_puts(out, "],\"facts\":");
	if (s->facts)
		standing_facts_to_json(s->facts, out);
	else
		buf_puts(out, "null");
	buf_puts(out, "}");
	return out->error;
}
