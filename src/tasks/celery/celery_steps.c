/*
 * The results of a chain's steps: what a declared workflow gives is {"<step>": result, …} on every backend,
 * and Celery itself keeps them one by one.
 *
 * Whoever waits or looks has no more than the workflow's id, perhaps in another process than the one that
 * submitted it. So the ids of its steps follow from that and the workflow's name (celery_step_id), and the
 * steps of all declared workflows are asked for at once: where one is there, that workflow it was.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/json.h"
#include "tasks/celery/celery_internal.h"
#include "tasks/celery/celery_message.h"
#include "tasks/celery/celery_meta.h"

void celery_step_id(struct span id, const struct workflow_definition *w, size_t step, char out[CRYPTO_UUID])
{
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(4096);
	char hash[CRYPTO_SHA256_HEX];
	buf_printf(&text, "%.*s\n%.*s\n%zu", SPAN_ARG(id), SPAN_ARG(w->name), step);
	crypto_sha256_hex(buf_span(&text), hash);
	snprintf(out, CRYPTO_UUID, "%.8s-%.4s-%.4s-%.4s-%.12s", hash, hash + 8, hash + 12, hash + 16,
		 hash + 20);
}

/* Steps before the last of all workflows: these have results of their own. */
static size_t steps_before(const struct celery_client *c)
{
	size_t n = 0;
	for (size_t i = 0; c->o->workflows && i < registry_workflow_count(c->o->workflows); i++)
		n += registry_workflow_at(c->o->workflows, i)->n_steps - 1;
	return n;
}

bool celery_steps_ask(struct celery_client *c, struct span id, celery_read_fn fn, void *arg,
		      struct celery_reading **ret)
{
	size_t n = steps_before(c), at = 0;
	if (n == 0)
		return false;
	CLEANUP(freep) struct span *ids = calloc(n, sizeof(*ids));
	CLEANUP(freep) char(*texts)[CRYPTO_UUID] = calloc(n, sizeof(*texts));
	if (!ids || !texts)
		return false;
	for (size_t i = 0; i < registry_workflow_count(c->o->workflows); i++) {
		const struct workflow_definition *w = registry_workflow_at(c->o->workflows, i);
		for (size_t step = 0; step + 1 < w->n_steps; step++, at++) {
			celery_step_id(id, w, step, texts[at]);
			ids[at] = span_of(texts[at]);
		}
	}
	*ret = c->results->read(c, ids, n, fn, arg);
	return true;
}

/* null where its worker kept none, or it has expired. */
static void put_step(struct span text, struct span name, struct buf *out)
{
	struct celery_meta m = CELERY_META_INIT;
	struct task_result r = {.status = TASK_PENDING};
	bool there = text.ptr && celery_meta_read(&m, text, SPAN_LIT(""), &r) == 0;
	json_quote(out, name);
	buf_puts(out, ": ");
	buf_append_span(out,
			there && r.status == TASK_COMPLETED && r.result.len ? r.result : SPAN_LIT("null"));
	celery_meta_release(&m);
}

bool celery_steps_compose(const struct celery_client *c, const struct span *texts, struct span last,
			  struct buf *out)
{
	for (size_t i = 0, at = 0; i < registry_workflow_count(c->o->workflows); i++) {
		const struct workflow_definition *w = registry_workflow_at(c->o->workflows, i);
		size_t before = w->n_steps - 1, there = 0;
		for (size_t step = 0; step < before; step++)
			there += texts[at + step].ptr != NULL;
		if (there == 0) {
			at += before;
			continue;
		}
		buf_putc(out, '{');
		for (size_t step = 0; step < before; step++) {
			put_step(texts[at + step], w->steps[step].name, out);
			buf_puts(out, ", ");
		}
		json_quote(out, w->steps[before].name);
		buf_puts(out, ": ");
		buf_append_span(out, last.len ? last : SPAN_LIT("null"));
		buf_putc(out, '}');
		return !out->error;
	}
	return false;
}
