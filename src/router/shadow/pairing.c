#include "router/shadow/pairing.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/text.h"
#include "router/request/request.h"

struct pairing {
	struct pairs_trial *trial;
	unsigned refs;
	bool called_off;
};

static void pairing_release_config(const void *config)
{
	config_unref((struct config *)(uintptr_t)config);
}

struct pairing *pairing_new(const struct request *r)
{
	struct pairing *p = NULL;
	struct pairs *pairs = r->plane->env->pairs;
	if (!pairs || !r->op->compare)
		return NULL;
	p = calloc(1, sizeof(*p));
	struct pairs_trial *t = p ? pairs_trial_new(pairs, r->op->compare) : NULL;
	if (!t) {
		free(p);
		return NULL;
	}
	text_copy(r->service->service->name, t->service, sizeof(t->service));
	text_copy(r->op->name, t->operation, sizeof(t->operation));
	text_copy(r->request_id, t->request_id, sizeof(t->request_id));
	t->time_us = clock_wall_us();
	t->kept = config_ref(r->service->config); /* the policy is its */
	t->release = pairing_release_config;
	p->trial = t;
	p->refs = 1;
	return p;
}

struct pairing *pairing_ref(struct pairing *p)
{
	if (p)
		p->refs++;
	return p;
}

struct pairing *pairing_unref(struct pairing *p)
{
	if (!p || --p->refs > 0)
		return NULL;
	if (p->called_off)
		pairs_trial_free(p->trial);
	else
		pairs_submit(p->trial);
	free(p);
	return NULL;
}

void pairing_call_off(struct pairing *p)
{
	if (p)
		p->called_off = true;
}

void pairing_expect_noise(struct pairing *p)
{
	if (p)
		p->trial->noise = true;
}

void pairing_head(struct pairing *p, enum pairs_slot slot, int status, const struct http_field *fields,
		  size_t n)
{
	if (p)
		pairs_answer_head(p->trial, slot, status, fields, n);
}

void pairing_body(struct pairing *p, enum pairs_slot slot, struct span bytes)
{
	if (p)
		pairs_answer_body(p->trial, slot, bytes.ptr, bytes.len);
}

void pairing_end(struct pairing *p, enum pairs_slot slot)
{
	if (p)
		pairs_answer_end(p->trial, slot);
}

void pairing_miss(struct pairing *p, enum pairs_slot slot, enum pairs_why why)
{
	if (p)
		pairs_answer_miss(p->trial, slot, why);
}
