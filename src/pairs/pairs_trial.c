/* A trial being filled in, on its plane. */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "pairs/pairs.h"
#include "pairs/pairs_memory.h"

#define TRIAL_HEAD_MAX 16384 /* bytes of the fields that are kept */

struct pairs_trial *pairs_trial_new(struct pairs *p, const struct compare_policy *policy)
{
	struct pairs_trial *t = calloc(1, sizeof(*t));
	if (!t)
		return NULL;
	t->owner = p;
	t->policy = policy;
	for (int i = 0; i < PAIRS_SLOTS; i++) {
		t->answers[i].why = PAIRS_OPEN;
		buf_init(&t->answers[i].text, TRIAL_HEAD_MAX);
		buf_init(&t->answers[i].body, pairs_memory_of(p)->max_answer);
	}
	return t;
}

static void trial_drop(struct pairs_answer *a)
{
	buf_release(&a->text);
	buf_release(&a->body);
	a->n_fields = 0;
	a->type = a->coding = SPAN_NONE;
}

void pairs_trial_free(struct pairs_trial *t)
{
	for (int i = 0; i < PAIRS_SLOTS; i++)
		trial_drop(&t->answers[i]);
	atomic_fetch_sub_explicit(&pairs_memory_of(t->owner)->held, t->charged, memory_order_relaxed);
	if (t->release)
		t->release(t->kept);
	free(t);
}

/* What an answer that is given up had is charged until the trial ends: less to keep account of. */
static bool trial_charge(struct pairs_trial *t, uint64_t n)
{
	struct pairs_memory *m = pairs_memory_of(t->owner);
	if (atomic_fetch_add_explicit(&m->held, n, memory_order_relaxed) + n > m->max_memory) {
		atomic_fetch_sub_explicit(&m->held, n, memory_order_relaxed);
		return false;
	}
	t->charged += n;
	return true;
}

static bool trial_compares(const struct compare_policy *policy, struct span name)
{
	for (size_t i = 0; i < policy->options.n_fields; i++)
		if (span_is_nocase(name, policy->options.fields[i]))
			return true;
	return false;
}

static struct span trial_put(struct buf *text, struct span s)
{
	size_t begin = text->len;
	if (buf_append_span(text, s) < 0)
		return SPAN_NONE;
	return (struct span){text->ptr + begin, text->len - begin};
}

static bool trial_keeps(const struct compare_policy *policy, struct span name)
{
	return span_is_nocase(name, "Content-Type") || span_is_nocase(name, "Content-Encoding") ||
	       trial_compares(policy, name);
}

/* Bytes that its fields take, twice where one is compared and looked at. */
static size_t trial_head_size(const struct compare_policy *policy, const struct http_field *fields, size_t n)
{
	size_t size = 0;
	for (size_t i = 0; i < n; i++)
		if (trial_keeps(policy, fields[i].name))
			size += fields[i].name.len + 2 * fields[i].value.len;
	return size;
}

static bool trial_copy_fields(struct pairs_trial *t, struct pairs_answer *a, const struct http_field *fields,
			      size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (span_is_nocase(fields[i].name, "Content-Type"))
			a->type = trial_put(&a->text, fields[i].value);
		if (span_is_nocase(fields[i].name, "Content-Encoding"))
			a->coding = trial_put(&a->text, fields[i].value);
		if (!trial_compares(t->policy, fields[i].name))
			continue;
		if (a->n_fields == PAIRS_FIELDS_MAX)
			return false;
		a->fields[a->n_fields++] = (struct http_field){trial_put(&a->text, fields[i].name),
							       trial_put(&a->text, fields[i].value)};
	}
	return a->text.error == 0;
}

void pairs_answer_head(struct pairs_trial *t, enum pairs_slot slot, int status,
		       const struct http_field *fields, size_t n)
{
	struct pairs_answer *a = &t->answers[slot];
	size_t size = trial_head_size(t->policy, fields, n);
	if (a->why != PAIRS_OPEN)
		return;
	a->status = status;
	if (size > TRIAL_HEAD_MAX)
		pairs_answer_miss(t, slot, PAIRS_SIZE);
	/* It never moves: it has room for all that comes. */
	else if (!trial_charge(t, size) || buf_reserve(&a->text, size) < 0)
		pairs_answer_miss(t, slot, PAIRS_MEMORY);
	else if (!trial_copy_fields(t, a, fields, n))
		pairs_answer_miss(t, slot, PAIRS_SIZE);
}

void pairs_answer_body(struct pairs_trial *t, enum pairs_slot slot, const char *bytes, size_t n)
{
	struct pairs_answer *a = &t->answers[slot];
	if (a->why != PAIRS_OPEN || n == 0)
		return;
	if (n > a->body.max - a->body.len)
		pairs_answer_miss(t, slot, PAIRS_SIZE);
	else if (!trial_charge(t, n) || buf_append(&a->body, bytes, n) < 0)
		pairs_answer_miss(t, slot, PAIRS_MEMORY);
}

void pairs_answer_end(struct pairs_trial *t, enum pairs_slot slot)
{
	if (t->answers[slot].why == PAIRS_OPEN)
		t->answers[slot].why = PAIRS_WHOLE;
}

void pairs_answer_miss(struct pairs_trial *t, enum pairs_slot slot, enum pairs_why why)
{
	struct pairs_answer *a = &t->answers[slot];
	if (a->why != PAIRS_OPEN)
		return;
	trial_drop(a);
	a->why = why;
}
