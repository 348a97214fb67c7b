/* A differing pair made fit to be kept: redacted before it is handed to anyone. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/text.h"
#include "compare/compare_redact.h"
#include "pairs/pairs_internal.h"

#define SAMPLE_VALUE_MAX 160 /* bytes of a value that is shown beside its path */
#define SAMPLE_DIFFERENCES_MAX (64u << 10)

struct sample_maker {
	const struct pairs_trial *trial;
	const struct compare_answer *answers;
	const struct compare_result *result;
	bool secret[2][COMPARE_DIFFERENCES_MAX]; /* the value lies in what is taken out */
};

static void sample_redact_body(struct sample_maker *m, int side, struct buf *out)
{
	struct span places[COMPARE_DIFFERENCES_MAX];
	struct span body = span_strip(m->answers[side].body);
	for (uint32_t i = 0; i < m->result->n; i++) {
		const struct compare_difference *d = &m->result->differences[i];
		places[i] = side == 0 ? d->left : d->right;
	}
	if (!body.len || json_validate(body, NULL) != 0 ||
	    compare_redact_json(body, &m->trial->policy->redaction, places, m->secret[side], m->result->n,
				out) < 0)
		buf_clear(out); /* not JSON: nothing could be taken out of it */
}

static bool sample_hides_field(const struct sample_maker *m, const char *path)
{
	if (compare_names_secret(span_of(path + strlen("header:"))))
		return true;
	for (size_t i = 0; i < m->trial->policy->redaction.n_patterns; i++)
		if (compare_pattern_covers(&m->trial->policy->redaction.patterns[i], path))
			return true;
	return false;
}

static void sample_put_value(const struct sample_maker *m, const struct compare_difference *d, int side,
			     uint32_t i, struct buf *out)
{
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(SAMPLE_VALUE_MAX + 16);
	struct span value = side == 0 ? d->left : d->right;
	bool field = strncmp(d->path, "header:", 7) == 0;
	if (strcmp(d->path, "status") == 0)
		buf_printf(&text, "%d", m->answers[side].status);
	else if (!value.ptr && strcmp(d->path, "body:") == 0)
		buf_printf(&text, "%zu bytes", m->answers[side].body.len);
	else if (!value.ptr)
		return;
	else if (field ? sample_hides_field(m, d->path) : m->secret[side][i])
		buf_puts(&text, "***");
	else if (field)
		text_put_masked(&text, text_front(value, SAMPLE_VALUE_MAX));
	else
		compare_redact_value(value, SAMPLE_VALUE_MAX, &text);
	buf_puts(out, side == 0 ? ",\"legacy\":" : ",\"task\":");
	json_quote(out, buf_span(&text));
}

static void sample_put_differences(const struct sample_maker *m, struct buf *out)
{
	buf_putc(out, '[');
	for (uint32_t i = 0; i < m->result->n; i++) {
		const struct compare_difference *d = &m->result->differences[i];
		buf_puts(out, i ? ",{\"path\":" : "{\"path\":");
		json_quote(out, span_of(d->path));
		buf_printf(out, ",\"kind\":\"%s\",\"count\":%" PRIu32, compare_kind_text(d->kind), d->count);
		sample_put_value(m, d, 0, i, out);
		sample_put_value(m, d, 1, i, out);
		buf_putc(out, '}');
	}
	buf_putc(out, ']');
}

struct pairs_sample *pairs_sample_make(const struct pairs_trial *t, const struct compare_answer answers[2],
				       const struct compare_result *result, uint64_t max_body)
{
	struct pairs_sample *s = calloc(1, sizeof(*s));
	struct sample_maker m = {.trial = t, .answers = answers, .result = result};
	if (!s)
		return NULL;
	s->time_us = t->time_us;
	memcpy(s->request_id, t->request_id, sizeof(s->request_id));
	for (int side = 0; side < 2; side++) {
		s->status[side] = answers[side].status;
		buf_init(&s->body[side], max_body);
		sample_redact_body(&m, side, &s->body[side]);
	}
	buf_init(&s->differences, SAMPLE_DIFFERENCES_MAX);
	sample_put_differences(&m, &s->differences);
	if (!s->differences.error)
		return s;
	pairs_sample_free(s);
	return NULL;
}

void pairs_sample_free(struct pairs_sample *s)
{
	if (!s)
		return;
	buf_release(&s->body[0]);
	buf_release(&s->body[1]);
	buf_release(&s->differences);
	free(s);
}
