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

bool celery_steps_ask(struct celery_client *c, struct span id, redis_reply_fn fn, void *arg,
		      struct redis_call **ret)
{
	size_t n = steps_before(c), at = 0;
	if (n == 0)
		return false;
	CLEANUP(freep) struct span *words = calloc(n + 1, sizeof(*words));
	CLEANUP(freep) char(*keys)[CELERY_KEY_MAX] = calloc(n, sizeof(*keys));
	if (!words || !keys)
		return false;
	words[0] = SPAN_LIT("MGET");
	for (size_t i = 0; i < registry_workflow_count(c->o->workflows); i++) {
		const struct workflow_definition *w = registry_workflow_at(c->o->workflows, i);
		for (size_t step = 0; step + 1 < w->n_steps; step++, at++) {
			char step_id[CRYPTO_UUID];
			celery_step_id(id, w, step, step_id);
			words[at + 1] = celery_result_key(c, span_of(step_id), keys[at]);
		}
	}
	*ret = redis_command(c->results, words, n + 1, 0, fn, arg);
	return true;
}

/* null where its worker kept none, or it has expired. */
static void put_step(const struct redis_reply *reply, struct span name, struct buf *out)
{
	struct celery_meta m = CELERY_META_INIT;
	struct task_result r = {.status = TASK_PENDING};
	bool there = redis_reply_type(reply) == REDIS_TEXT &&
		     celery_meta_read(&m, redis_reply_text(reply), SPAN_LIT(""), &r) == 0;
	json_quote(out, name);
	buf_puts(out, ": ");
	buf_append_span(out,
			there && r.status == TASK_COMPLETED && r.result.len ? r.result : SPAN_LIT("null"));
	celery_meta_release(&m);
}

bool celery_steps_compose(const struct celery_client *c, const struct redis_reply *reply, struct span last,
			  struct buf *out)
{
	for (size_t i = 0, at = 0; i < registry_workflow_count(c->o->workflows); i++) {
		const struct workflow_definition *w = registry_workflow_at(c->o->workflows, i);
		size_t before = w->n_steps - 1, there = 0;
		for (size_t step = 0; step < before; step++)
			there += redis_reply_type(redis_reply_at(reply, at + step)) == REDIS_TEXT;
		if (there == 0) {
			at += before;
			continue;
		}
		buf_putc(out, '{');
		for (size_t step = 0; step < before; step++) {
			put_step(redis_reply_at(reply, at + step), w->steps[step].name, out);
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
