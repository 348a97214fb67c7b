#include "flags/print.h"

#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "flags/model.h"

static void print_member(struct buf *b, const char *name, struct span text)
{
	buf_printf(b, "\"%s\":", name);
	json_quote(b, text);
}

static void print_constraint(const struct constraint *c, struct buf *b)
{
	buf_puts(b, "{");
	print_member(b, "type", span_of(constraint_type_text(c->type)));
	buf_puts(b, ",");
	print_member(b, "operator", span_of(constraint_op_text(c->op)));
	buf_puts(b, ",");
	print_member(b, "property", c->property);
	buf_puts(b, ",");
	print_member(b, "value", c->value);
	buf_puts(b, "}");
}

static int print_by_key(const void *a, const void *b)
{
	const struct segment *x = *(const struct segment *const *)a, *y = *(const struct segment *const *)b;
	return strcmp(x->key.ptr, y->key.ptr);
}

/* Servers list segments in random order; no answer depends on it. */
static void print_condition(const struct condition *c, struct buf *b)
{
	const struct segment *sorted[FLAG_MAX_SEGMENTS_PER_RULE];
	for (size_t i = 0; i < c->n_segments; i++)
		sorted[i] = c->segments[i];
	qsort(sorted, c->n_segments, sizeof(sorted[0]), print_by_key);
	buf_printf(b, "\"segmentOperator\":\"%s_SEGMENT_OPERATOR\",\"segments\":[", c->all ? "AND" : "OR");
	for (size_t i = 0; i < c->n_segments; i++) {
		const struct segment *s = sorted[i];
		buf_puts(b, i ? ",{" : "{");
		print_member(b, "key", s->key);
		buf_printf(b, ",\"matchType\":\"%s_SEGMENT_MATCH_TYPE\",\"constraints\":[",
			   s->any ? "ANY" : "ALL");
		for (size_t j = 0; j < s->n_constraints; j++) {
			buf_puts(b, j ? "," : "");
			print_constraint(&s->constraints[j], b);
		}
		buf_puts(b, "]}");
	}
	buf_puts(b, "]");
}

static void print_rule(const struct rule *r, struct buf *b)
{
	buf_puts(b, "{");
	print_condition(&r->condition, b);
	buf_puts(b, ",\"distributions\":[");
	for (size_t i = 0; i < r->n_distributions; i++) {
		const struct distribution *d = &r->distributions[i];
		buf_puts(b, i ? ",{" : "{");
		print_member(b, "variantKey", d->variant);
		buf_puts(b, ",");
		print_member(b, "variantAttachment", d->attachment);
		buf_printf(b, ",\"rollout\":%.9g}",
			   (double)d->rollout); /* nine digits tell every float32 apart */
	}
	buf_puts(b, "]}");
}

static void print_rollout(const struct rollout *r, struct buf *b)
{
	const char *value = r->value ? "true" : "false";
	if (r->is_threshold) {
		buf_printf(b, "{\"threshold\":{\"percentage\":%.9g,\"value\":%s}}", (double)r->percentage,
			   value);
		return;
	}
	buf_printf(b, "{\"segment\":{\"value\":%s,", value);
	print_condition(&r->condition, b);
	buf_puts(b, "}}");
}

static void print_flag(const struct flag *f, struct buf *b)
{
	buf_puts(b, "{");
	print_member(b, "key", f->key);
	if (f->broken) {
		buf_puts(b, ",");
		print_member(b, PRINT_BROKEN, span_of(f->broken));
		buf_puts(b, "}");
		return;
	}
	buf_printf(b, ",\"type\":\"%s_FLAG_TYPE\",\"enabled\":%s",
		   f->type == FLAG_BOOLEAN ? "BOOLEAN" : "VARIANT", f->enabled ? "true" : "false");
	if (f->has_default) {
		buf_puts(b, ",\"defaultVariant\":{");
		print_member(b, "key", f->default_variant);
		buf_puts(b, ",");
		print_member(b, "attachment", f->default_attachment);
		buf_puts(b, "}");
	}
	buf_puts(b, ",\"rules\":[");
	for (size_t i = 0; i < f->n_rules; i++) {
		buf_puts(b, i ? "," : "");
		print_rule(&f->rules[i], b);
	}
	buf_puts(b, "],\"rollouts\":[");
	for (size_t i = 0; i < f->n_rollouts; i++) {
		buf_puts(b, i ? "," : "");
		print_rollout(&f->rollouts[i], b);
	}
	buf_puts(b, "]}");
}

int flag_snapshot_print(const struct flag_snapshot *s, struct buf *out)
{
	buf_puts(out, "{\"flags\":[");
	for (size_t i = 0; i < s->n_flags; i++) {
		buf_puts(out, i ? ",\n" : "\n");
		print_flag(&s->flags[i], out);
	}
	return buf_puts(out, "]}") < 0 || out->error ? out->error : 0;
}

int flag_snapshot_content(const struct flag_snapshot *s, char ret[CRYPTO_SHA256_HEX])
{
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(MODEL_MEMORY_MAX);
	int r = flag_snapshot_print(s, &text);
	if (r == 0)
		crypto_sha256_hex(buf_span(&text), ret);
	return r;
}
