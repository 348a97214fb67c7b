#include "programs/router/app_registration.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

/* The entries of one backend, asked one after the other. */
struct chain {
	struct registration *all;
	struct task_client *client;
	size_t first, end, at;
	bool asking;
};

struct registration {
	const struct config *config;
	struct loop *loop;
	struct registration_entry *entries;
	size_t n, room;
	struct chain chains[CONFIG_MAX_BACKENDS];
	size_t n_chains, running;
	void (*done)(void *arg);
	void *arg;
	struct loop_timer *limit;
};

int app_clients_start(struct app *a, struct err *e)
{
	for (size_t i = 0; i < a->env.n_backends; i++) {
		const struct plane_backend *b = &a->env.backends[i];
		a->health[i].name = b->name;
		int r = task_client_new(b->options, a->loop, &a->health[i].client, e);
		if (r < 0)
			return err_prefix(e, r, "backend %.*s", SPAN_ARG(b->name));
	}
	return 0;
}

/* --- what may be reached -------------------------------------------------------------------------------- */

static const char *way_to(const struct config *c, const struct operation *op, struct span backend)
{
	if (task_mapping_names(&op->task, c->default_backend, backend))
		return op->task.backend.ptr ? "operation" : "default";
	for (size_t i = 0; i < op->n_variants; i++)
		if (span_eq(op->variants[i].backend, backend))
			return "variant";
	return "flag";
}

static void registration_add(struct registration *r, const struct operation *op, struct span backend)
{
	const char *by = way_to(r->config, op, backend);
	r->entries[r->n++] = (struct registration_entry){
		.operation = op, .backend = backend, .by = by, .needed = strcmp(by, "flag") != 0};
}

static void add_operations(struct registration *r, struct span backend)
{
	for (size_t i = 0; i < r->config->n_services; i++)
		for (size_t j = 0; j < r->config->services[i].n_operations; j++)
			if (r->config->services[i].operations[j].has_task)
				registration_add(r, &r->config->services[i].operations[j], backend);
}

static size_t registration_count_operations(const struct config *c)
{
	size_t n = 0;
	for (size_t i = 0; i < c->n_services; i++)
		for (size_t j = 0; j < c->services[i].n_operations; j++)
			n += c->services[i].operations[j].has_task;
	return n;
}

int registration_new(struct app *a, const struct config *c, struct registration **ret, struct err *e)
{
	struct registration *r = calloc(1, sizeof(*r));
	size_t n = registration_count_operations(c) * a->env.n_backends;
	if (!r || !(r->entries = calloc(n ? n : 1, sizeof(*r->entries)))) {
		free(r);
		return err_set(e, -ENOMEM, "out of memory");
	}
	r->config = config_ref(c);
	r->loop = a->loop;
	for (size_t i = 0; i < a->env.n_backends; i++) {
		struct chain *chain = &r->chains[r->n_chains++];
		*chain = (struct chain){.all = r, .client = a->health[i].client, .first = r->n};
		add_operations(r, a->env.backends[i].name);
		chain->end = r->n;
	}
	*ret = r;
	return 0;
}

struct registration *registration_free(struct registration *r)
{
	if (!r)
		return NULL;
	loop_timer_free(r->limit);
	config_unref(r->config);
	free(r->entries);
	free(r);
	return NULL;
}

const struct config *registration_config(const struct registration *r)
{
	return r->config;
}

size_t registration_count(const struct registration *r)
{
	return r->n;
}

const struct registration_entry *registration_at(const struct registration *r, size_t i)
{
	return &r->entries[i];
}

bool registration_lacks(const struct registration_entry *entry)
{
	return entry->asked && entry->now.missing[0];
}

/* --- a round -------------------------------------------------------------------------------------------- */

static void note(struct registration_entry *entry, const struct task_check *now)
{
	bool lacked = registration_lacks(entry), was_asked = entry->asked;
	entry->now = *now;
	entry->asked = true;
	bool lacks = registration_lacks(entry);
	if (!entry->needed || (was_asked ? lacked == lacks : !lacks))
		return;
	LOG_AT(lacks ? LOG_WARN : LOG_INFO, lacks ? "registration_missing" : "registration_fine",
	       LOG_SPAN("service", entry->operation->service), LOG_SPAN("operation", entry->operation->name),
	       LOG_SPAN("backend", entry->backend), LOG_STR("missing", now->missing));
}

/* The answer that an earlier entry of this round has for the same question. */
static const struct task_check *registration_answered(const struct chain *c)
{
	const struct registration_entry *entries = c->all->entries;
	const struct task_mapping *mine = &entries[c->at].operation->task;
	for (size_t i = c->at; i > c->first; i--) {
		const struct registration_entry *entry = &entries[i - 1];
		const struct task_mapping *t = &entry->operation->task;
		if (!entry->now.reachable ||
		    (span_eq(t->task, mine->task) && span_eq(t->queue, mine->queue) &&
		     t->workflow == mine->workflow && t->priority == mine->priority &&
		     t->fire_and_forget == mine->fire_and_forget))
			return &entry->now;
	}
	return NULL;
}

static void registration_on_check(void *arg, const struct task_check *now);

static void ask_next(struct chain *c)
{
	struct registration *r = c->all;
	const struct task_check *known;
	for (; c->at < c->end && (known = registration_answered(c)); c->at++)
		note(&r->entries[c->at], known);
	if (c->at < c->end) {
		const struct task_mapping *t = &r->entries[c->at].operation->task;
		const struct task_probe probe = task_mapping_probe(t);
		task_check(c->client, &probe, registration_on_check, c);
		return;
	}
	c->asking = false;
	r->running--;
	r->done(r->arg);
}

static void registration_on_check(void *arg, const struct task_check *now)
{
	struct chain *c = arg;
	note(&c->all->entries[c->at++], now);
	ask_next(c);
}

bool registration_asking(const struct registration *r)
{
	return r->running > 0;
}

void registration_ask(struct registration *r, void (*done)(void *arg), void *arg)
{
	r->done = done;
	r->arg = arg;
	for (size_t i = 0; i < r->n_chains; i++) {
		struct chain *c = &r->chains[i];
		if (c->asking)
			continue;
		c->asking = true;
		c->at = c->first;
		r->running++;
		ask_next(c);
	}
}

/* --- and wait for it ------------------------------------------------------------------------------------ */

static void stop_loop(void *arg)
{
	struct registration *r = arg;
	loop_stop(r->loop);
}

static void stop_when_all_answered(void *arg)
{
	struct registration *r = arg;
	if (!r->running)
		loop_stop(r->loop);
}

static void ignore(void *arg)
{
	(void)arg;
}

static void note_silence(struct registration *r)
{
	const struct task_check silent = {.known = TASK_ANSWER_UNKNOWN,
					  .worker = TASK_ANSWER_UNKNOWN,
					  .missing = "the backend did not answer in time"};
	for (size_t i = 0; i < r->n; i++)
		if (!r->entries[i].asked)
			note(&r->entries[i], &silent);
}

void registration_ask_now(struct registration *r, unsigned limit_ms)
{
	if (loop_timer_new(r->loop, stop_loop, r, &r->limit) < 0)
		return;
	loop_timer_start(r->limit, limit_ms);
	registration_ask(r, stop_when_all_answered, r);
	if (r->running)
		loop_run(r->loop);
	r->done = ignore; /* an answer that comes too late ends nothing */
	r->limit = loop_timer_free(r->limit);
	note_silence(r);
}
