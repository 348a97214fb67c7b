#include "flags/trace.h"

#include <stdio.h>

#define VALUE_SHOWN 60 /* bytes of a value that a sentence shows */

void flag_trace_say(const struct flag_trace *t, unsigned depth, const char *format, ...)
{
	if (!t)
		return;
	char sentence[1024];
	va_list ap;
	va_start(ap, format);
	vsnprintf(sentence, sizeof(sentence), format, ap);
	va_end(ap);
	for (char *p = sentence; *p; p++) {
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			*p = '?'; /* values come from callers: one line, and nothing that steers a terminal */
	}
	t->step(t->arg, depth, sentence);
}

static const char *shown(struct span v, char out[VALUE_SHOWN + 8])
{
	bool cut = v.len > VALUE_SHOWN;
	span_copy(v, out, VALUE_SHOWN + 1);
	if (cut)
		memcpy(out + strlen(out), "…", sizeof("…"));
	return out;
}

void trace_flag(const struct flag_trace *t, const struct flag *f)
{
	flag_trace_say(t, 0, "flag \"%s\": %s, %s", f->key.ptr,
		       f->type == FLAG_VARIANT ? "variant" : "boolean", f->enabled ? "enabled" : "disabled");
}

static const char *segment_reason(const struct segment *s)
{
	if (!s->declared)
		return "it is declared nowhere, which means everybody";
	if (s->n_constraints == 0)
		return "it has no constraints, which means everybody";
	return s->any ? "none of its constraints holds" : "all of its constraints hold";
}

void trace_segment(const struct flag_trace *t, const struct segment *s, bool matched,
		   const struct constraint *deciding, struct span value)
{
	char is[VALUE_SHOWN + 8], wanted[VALUE_SHOWN + 8];
	if (!t)
		return;
	const char *verb = matched ? "matches" : "does not match";
	if (!deciding) {
		flag_trace_say(t, 2, "segment \"%s\" %s: %s", s->key.ptr, verb, segment_reason(s));
	} else {
		flag_trace_say(t, 2, "segment \"%s\" %s: %s \"%s\" %s \"%s\" %s%s%s%s", s->key.ptr, verb,
			       deciding->type == CONSTRAINT_ENTITY_ID ? "entity id" : deciding->property.ptr,
			       shown(value, is), constraint_op_text(deciding->op),
			       shown(deciding->value, wanted), matched ? "holds" : "does not hold",
			       deciding->malformed ? " (malformed: " : "",
			       deciding->malformed ? deciding->why : "", deciding->malformed ? ")" : "");
	}
}

void trace_condition(const struct flag_trace *t, const char *what, size_t index, const struct condition *c)
{
	flag_trace_say(t, 1, "%s %zu: %s of %zu segment%s must match", what, index + 1,
		       c->all ? "all" : "one", c->n_segments, c->n_segments == 1 ? "" : "s");
	if (c->n_dropped)
		flag_trace_say(t, 2,
			       "%zu more left out: Flipt drops a segment that has a malformed constraint",
			       c->n_dropped);
}

void trace_condition_end(const struct flag_trace *t, const char *what, const struct condition *c,
			 size_t matched, bool holds)
{
	flag_trace_say(t, 2, "%zu of %zu match: the %s %s", matched, c->n_segments, what,
		       holds ? "applies" : "does not apply");
}

void trace_distribution(const struct flag_trace *t, const struct rule *rule, int bucket,
			const struct distribution *chosen)
{
	int from = 0;
	if (!t)
		return;
	flag_trace_say(t, 2, "bucket %d of %d (from the flag's key and the entity id)", bucket,
		       MODEL_BUCKETS);
	for (size_t i = 0; i < rule->n_distributions; i++) {
		const struct distribution *d = &rule->distributions[i];
		if (d->limit > from)
			flag_trace_say(t, 3, "%d to %d: variant \"%s\" (%g %%)%s", from, d->limit - 1,
				       d->variant.ptr, (double)d->rollout, d == chosen ? " ← this one" : "");
		else
			flag_trace_say(t, 3, "no bucket: variant \"%s\" (%g %%)", d->variant.ptr,
				       (double)d->rollout);
		from = d->limit > from ? d->limit : from;
	}
	if (!chosen)
		flag_trace_say(t, 3,
			       "%d to %d: no variant ← this one (the shares add up to less than 100 %%)",
			       from, MODEL_BUCKETS - 1);
}

void trace_threshold(const struct flag_trace *t, size_t index, const struct rollout *r, int bucket,
		     bool matched)
{
	flag_trace_say(t, 1, "rollout %zu: threshold %g %%; this entity's number from 0 to 99 is %d: it %s",
		       index + 1, (double)r->percentage, bucket, matched ? "applies" : "does not apply");
}
