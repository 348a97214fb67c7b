/* Differences, for people and for programs. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/json.h"
#include "base/text.h"
#include "pairs/differences.h"

#define TEXT_PATHS_MAX 40 /* of an operation; programs get all */

static uint64_t differences_missed(const struct differences_operation *op, enum pairs_kind kind)
{
	uint64_t n = 0;
	for (int why = 0; why < PAIRS_WHY_COUNT; why++)
		n += op->counts.not_compared[kind][why];
	return n;
}

static const char *differences_verdict(const struct differences_operation *op)
{
	if (op->counts.differing[PAIRS_SIDES] == 0)
		return "";
	if (!op->noise_known)
		return ", noise not measured";
	return op->beyond ? ", beyond noise" : ", not beyond noise";
}

static void differences_put_counts(const struct differences_operation *op, struct buf *out)
{
	buf_printf(out, "differs in %" PRIu64 " of %" PRIu64 "%s", op->counts.differing[PAIRS_SIDES],
		   op->counts.compared[PAIRS_SIDES], differences_verdict(op));
	if (differences_missed(op, PAIRS_SIDES))
		buf_printf(out, "; not compared: %" PRIu64, differences_missed(op, PAIRS_SIDES));
}

int differences_summary(const struct differences *d, struct buf *out)
{
	for (size_t i = 0; i < d->n_operations; i++) {
		const struct differences_operation *op = &d->operations[i];
		buf_printf(out, "  %s.%s: ", op->service, op->operation);
		differences_put_counts(op, out);
		buf_putc(out, '\n');
	}
	return out->error;
}

static void differences_put_missed(const struct differences_operation *op, struct buf *out)
{
	bool any = false;
	for (int why = 0; why < PAIRS_WHY_COUNT; why++) {
		uint64_t n = op->counts.not_compared[PAIRS_SIDES][why];
		if (n)
			buf_printf(out, "%s%s %" PRIu64, any ? ", " : " (", pairs_why_text(why), n);
		any |= n > 0;
	}
	buf_puts(out, any ? ")\n" : "\n");
}

static void differences_put_path(const struct differences_operation *op, const struct differences_path *p,
				 struct buf *out)
{
	char noise[48] = "not measured";
	if (op->noise_known)
		snprintf(noise, sizeof(noise), "%" PRIu64 " of %" PRIu64, p->noisy,
			 op->counts.compared[PAIRS_NOISE]);
	char differs[48];
	snprintf(differs, sizeof(differs), "%" PRIu64 " of %" PRIu64, p->differing,
		 op->counts.compared[PAIRS_SIDES]);
	buf_printf(out, "  %16s  %16s  %-6s  %-7s  ", differs, noise, p->beyond ? "beyond" : "", p->kind);
	text_put_plain(out, span_of(p->path));
	buf_putc(out, '\n');
}

static void differences_put_time(int64_t time_us, struct buf *out)
{
	time_t seconds = time_us / 1000000;
	struct tm parts;
	char text[32] = "";
	if (gmtime_r(&seconds, &parts))
		strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &parts);
	buf_puts(out, text);
}

static void differences_put_member(struct span object, struct span pointer, const char *before,
				   struct buf *out)
{
	struct span value;
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(4096);
	if (!json_pointer(object, pointer, &value) || json_unescape(value, &text) < 0)
		return;
	buf_puts(out, before);
	text_put_plain(out, buf_span(&text));
}

static void differences_put_sample(const struct differences_sample *s, bool bodies, struct buf *out)
{
	static const char *const sides[] = {"legacy", "task"};
	struct json_iter it;
	struct span key, item;
	buf_puts(out, "  sample of ");
	differences_put_time(s->time_us, out);
	buf_printf(out, ", legacy %d, task %d, request ", s->status[0], s->status[1]);
	text_put_plain(out, span_of(s->request_id));
	buf_putc(out, '\n');
	json_iter_init(&it, span_of(s->differences));
	while (json_iter_next(&it, &key, &item)) {
		differences_put_member(item, SPAN_LIT("/path"), "    ", out);
		differences_put_member(item, SPAN_LIT("/kind"), " ", out);
		differences_put_member(item, SPAN_LIT("/legacy"), ", legacy: ", out);
		differences_put_member(item, SPAN_LIT("/task"), ", task: ", out);
		buf_putc(out, '\n');
	}
	for (int side = 0; bodies && side < 2; side++) {
		buf_printf(out, "    %s: ", sides[side]);
		text_put_plain(out, s->body[side][0] ? span_of(s->body[side])
						     : SPAN_LIT("(empty, or not JSON and so not kept)"));
		buf_putc(out, '\n');
	}
}

static void differences_put_operation(const struct differences_operation *op, bool bodies, struct buf *out)
{
	buf_printf(out, "%s.%s: ", op->service, op->operation);
	differences_put_counts(op, out);
	differences_put_missed(op, out);
	if (op->n_paths)
		buf_printf(out, "  %16s  %16s  %-6s  %-7s  path\n", "differs in", "noise in", "", "kind");
	for (size_t i = 0; i < op->n_paths && i < TEXT_PATHS_MAX; i++)
		differences_put_path(op, &op->paths[i], out);
	if (op->n_paths > TEXT_PATHS_MAX)
		buf_printf(out, "  and %zu more paths (--json has all)\n", op->n_paths - TEXT_PATHS_MAX);
	for (size_t i = 0; i < op->n_samples; i++)
		differences_put_sample(&op->samples[i], bodies, out);
}

int differences_to_text(const struct differences *d, bool bodies, struct buf *out)
{
	if (!d->n_operations)
		buf_puts(out, "Nothing was compared.\n");
	for (size_t i = 0; i < d->n_operations; i++) {
		if (i)
			buf_putc(out, '\n');
		differences_put_operation(&d->operations[i], bodies, out);
	}
	return out->error;
}

/* --- JSON ----------------------------------------------------------------------------------------------- */

static void differences_json_counts(const struct differences_operation *op, enum pairs_kind kind,
				    struct buf *out)
{
	bool any = false;
	buf_printf(out, "\"compared\":%" PRIu64 ",\"differing\":%" PRIu64 ",\"not_compared\":{",
		   op->counts.compared[kind], op->counts.differing[kind]);
	for (int why = 0; why < PAIRS_WHY_COUNT; why++) {
		uint64_t n = op->counts.not_compared[kind][why];
		if (n)
			buf_printf(out, "%s\"%s\":%" PRIu64, any ? "," : "", pairs_why_text(why), n);
		any |= n > 0;
	}
	buf_putc(out, '}');
}

static const char *differences_json_beyond(bool known, bool beyond)
{
	if (!known)
		return "null";
	return beyond ? "true" : "false";
}

static void differences_json_paths(const struct differences_operation *op, struct buf *out)
{
	buf_puts(out, ",\"paths\":[");
	for (size_t i = 0; i < op->n_paths; i++) {
		const struct differences_path *p = &op->paths[i];
		buf_puts(out, i ? ",{\"path\":" : "{\"path\":");
		json_quote(out, span_of(p->path));
		buf_printf(out,
			   ",\"kind\":\"%s\",\"differing\":%" PRIu64 ",\"of\":%" PRIu64 ",\"noisy\":%" PRIu64
			   ",\"noise_of\":%" PRIu64 ",\"beyond_noise\":%s}",
			   p->kind, p->differing, op->counts.compared[PAIRS_SIDES], p->noisy,
			   op->counts.compared[PAIRS_NOISE],
			   differences_json_beyond(op->noise_known, p->beyond));
	}
	buf_putc(out, ']');
}

static void differences_json_samples(const struct differences_operation *op, struct buf *out)
{
	static const char *const sides[] = {"legacy", "task"};
	buf_puts(out, ",\"samples\":[");
	for (size_t i = 0; i < op->n_samples; i++) {
		const struct differences_sample *s = &op->samples[i];
		buf_puts(out, i ? ",{\"time\":\"" : "{\"time\":\"");
		differences_put_time(s->time_us, out);
		buf_puts(out, "\",\"request_id\":");
		json_quote(out, span_of(s->request_id));
		for (int side = 0; side < 2; side++) {
			buf_printf(out, ",\"%s\":{\"status\":%d,\"body\":", sides[side], s->status[side]);
			json_quote(out, span_of(s->body[side])); /* a text: it may be cut */
			buf_putc(out, '}');
		}
		buf_printf(out, ",\"differences\":%s}", s->differences);
	}
	buf_putc(out, ']');
}

int differences_to_json(const struct differences *d, struct buf *out)
{
	buf_puts(out, "{\"operations\":[");
	for (size_t i = 0; i < d->n_operations; i++) {
		const struct differences_operation *op = &d->operations[i];
		buf_puts(out, i ? ",{\"service\":" : "{\"service\":");
		json_quote(out, span_of(op->service));
		buf_puts(out, ",\"operation\":");
		json_quote(out, span_of(op->operation));
		buf_putc(out, ',');
		differences_json_counts(op, PAIRS_SIDES, out);
		buf_puts(out, ",\"noise\":{");
		differences_json_counts(op, PAIRS_NOISE, out);
		buf_printf(out, "},\"beyond_noise\":%s",
			   differences_json_beyond(op->noise_known, op->beyond));
		differences_json_paths(op, out);
		differences_json_samples(op, out);
		buf_putc(out, '}');
	}
	buf_puts(out, "]}\n");
	return out->error;
}
