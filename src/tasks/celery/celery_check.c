/*
 * Check: which tasks the live workers have registered, which queues they consume, and whether what their
 * application is configured to read and to write is what this backend writes and reads.
 *
 * One round asks both; its answers serve every check of the next health_interval, so that looking at a
 * hundred operations is one question to the workers. A call is run when a worker of its queue has its task
 * registered; a worker of the queue that has not would fail it (NotRegistered), so that is missing as well.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "tasks/celery/celery_internal.h"

#define WORKERS_MAX 1000
#define SIZE_MAX_KEPT (16u << 20)
#define LIST_MAX 120 /* bytes of a list of names in a sentence */

enum { REGISTERED, QUEUES, CONFIGURED, REPORTED, N_QUESTIONS };

static const struct celery_question questions[N_QUESTIONS] = {
	[REGISTERED] = {"registered", "{\"taskinfoitems\": [\"ignore_result\"]}"},
	[QUEUES] = {"active_queues", "{}"},
	[CONFIGURED] = {"conf", "{\"with_defaults\": false}"},
	[REPORTED] = {"report", "{}"}};

/* Names, each followed by a NUL. */
struct names {
	bool told;
	struct buf text;
};

struct celery_worker {
	struct celery_worker *next;
	struct names tasks, queues;
	struct names ignoring; /* the tasks whose results are not kept */
	bool configured;       /* what follows is told */
	struct celery_lists lists;
	/* "": the default, none */
	char result_prefix[CELERY_PREFIX_MAX + 1], serializer[32], compression[32];
	unsigned major, minor; /* of its Celery; 0: not told */
	char name[256];
};

struct celery_check_request {
	struct celery_check_request *next;
	task_check_fn fn;
	void *arg;
	bool workflow, unawaited;
	int priority;
	char task[TASK_NAME_MAX], queue[256];
};

/* --- names ---------------------------------------------------------------------------------------------- */

static bool next_name(const struct names *n, size_t *at, struct span *ret)
{
	if (*at >= n->text.len)
		return false;
	*ret = span_of(n->text.ptr + *at);
	*at += ret->len + 1;
	return true;
}

static bool has_name(const struct names *n, const char *name)
{
	struct span one;
	for (size_t at = 0; next_name(n, &at, &one);)
		if (span_is(one, name))
			return true;
	return false;
}

/* `add [rate_limit=10/m]` is the task `add`. */
static void cut_info(struct buf *name)
{
	char *info = name->len && name->ptr[name->len - 1] == ']' ? strstr(name->ptr, " [") : NULL;
	if (info) {
		*info = '\0';
		name->len = (size_t)(info - name->ptr);
	}
}

static bool read_name(struct span name_value, struct buf *name)
{
	return json_type_of(name_value) == JSON_STRING && json_unescape(name_value, name) == 0 &&
	       name->len > 0 && !memchr(name->ptr, '\0', name->len);
}

static void put_name(struct names *n, struct names *ignoring, struct span name_value)
{
	CLEANUP(buf_releasep) struct buf name = BUF_INIT(4096);
	if (!read_name(name_value, &name))
		return;
	bool ignored = strstr(name.ptr, "ignore_result=True");
	cut_info(&name);
	buf_append(&n->text, name.ptr, name.len + 1);
	if (ignored && ignoring)
		buf_append(&ignoring->text, name.ptr, name.len + 1);
}

/* --- what the workers say ------------------------------------------------------------------------------- */

static void forget_workers(struct celery_check *k)
{
	while (k->workers) {
		struct celery_worker *w = k->workers;
		k->workers = w->next;
		buf_release(&w->tasks.text);
		buf_release(&w->queues.text);
		buf_release(&w->ignoring.text);
		free(w);
	}
	k->n_workers = k->size = 0;
	k->cut = false;
}

/* Finds or adds, in the order of their first answers. NULL: there are too many. */
static struct celery_worker *worker_of(struct celery_check *k, struct span name)
{
	struct celery_worker **last = &k->workers;
	for (; *last; last = &(*last)->next)
		if (span_is(name, (*last)->name))
			return *last;
	struct celery_worker *w = k->n_workers < WORKERS_MAX ? calloc(1, sizeof(*w)) : NULL;
	if (!w)
		return NULL;
	span_copy(name, w->name, sizeof(w->name));
	w->tasks.text = w->queues.text = w->ignoring.text = BUF_INIT(SIZE_MAX_KEPT);
	k->n_workers++;
	*last = w;
	return w;
}

static void on_names(struct celery_check *k, struct celery_worker *w, size_t question, struct span value)
{
	struct names *n = question == REGISTERED ? &w->tasks : &w->queues;
	struct json_iter it;
	struct span key, item, name;
	buf_clear(&n->text);
	json_iter_init(&it, value);
	while (json_iter_next(&it, &key, &item))
		if (question == REGISTERED)
			put_name(n, &w->ignoring, item);
		else if (json_pointer(item, SPAN_LIT("/name"), &name))
			put_name(n, NULL, name);
	n->told = !n->text.error && !w->ignoring.text.error;
	k->cut |= !n->told;
	k->size += n->text.len + w->ignoring.text.len;
}

static void copy_text(struct span value, char *to, size_t size)
{
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(4096);
	if (json_type_of(value) == JSON_STRING && json_unescape(value, &text) == 0)
		span_copy(buf_span(&text), to, size);
}

static void read_steps(struct span value, struct celery_lists *l)
{
	struct json_iter it;
	struct span key, item;
	char text[12];
	l->n_steps = 0;
	json_iter_init(&it, value);
	while (l->n_steps < CELERY_STEPS_MAX && json_iter_next(&it, &key, &item)) {
		span_copy(json_type_of(item) == JSON_NUMBER ? item : SPAN_LIT("-1"), text, sizeof(text));
		l->steps[l->n_steps++] = atoi(text);
	}
}

/* What the application has set itself; the names of Celery 3 are taken as well. */
static void on_configuration(struct celery_worker *w, struct span value)
{
	enum { SEPARATOR, STEPS, PREFIX, SERIALIZER, COMPRESSION, N_NAMES };
	static const struct span names[2 * N_NAMES] = {
		SPAN_INIT("/broker_transport_options/sep"),
		SPAN_INIT("/broker_transport_options/priority_steps"),
		SPAN_INIT("/result_backend_transport_options/global_keyprefix"),
		SPAN_INIT("/result_serializer"),
		SPAN_INIT("/result_compression"),
		SPAN_INIT("/BROKER_TRANSPORT_OPTIONS/sep"),
		SPAN_INIT("/BROKER_TRANSPORT_OPTIONS/priority_steps"),
		SPAN_INIT("/CELERY_RESULT_BACKEND_TRANSPORT_OPTIONS/global_keyprefix"),
		SPAN_INIT("/CELERY_RESULT_SERIALIZER"),
		SPAN_INIT("/CELERY_RESULT_COMPRESSION")};
	struct span f[2 * N_NAMES], error;
	if (json_type_of(value) != JSON_OBJECT || json_pointer(value, SPAN_LIT("/error"), &error) ||
	    json_pointers(value, names, 2 * N_NAMES, f, NULL) < 0)
		return;
	for (size_t i = 0; i < N_NAMES; i++)
		if (!f[i].ptr)
			f[i] = f[N_NAMES + i];
	w->lists = celery_lists_default;
	copy_text(f[SEPARATOR], w->lists.separator, sizeof(w->lists.separator));
	if (json_type_of(f[STEPS]) == JSON_ARRAY)
		read_steps(f[STEPS], &w->lists);
	copy_text(f[PREFIX], w->result_prefix, sizeof(w->result_prefix));
	copy_text(f[SERIALIZER], w->serializer, sizeof(w->serializer));
	copy_text(f[COMPRESSION], w->compression, sizeof(w->compression));
	w->configured = true;
}

/* {"ok": "\nsoftware -> celery:5.7.0 (…) kombu:…"} */
static void on_report(struct celery_worker *w, struct span value)
{
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(1u << 20);
	struct span ok;
	if (!json_pointer(value, SPAN_LIT("/ok"), &ok) || json_unescape(ok, &text) < 0 || !text.ptr)
		return;
	const char *version = strstr(text.ptr, "celery:");
	if (version && sscanf(version, "celery:%u.%u", &w->major, &w->minor) != 2)
		w->major = w->minor = 0;
}

static void on_answer(struct celery_client *c, size_t question, struct span worker, struct span value)
{
	struct celery_check *k = &c->check;
	struct celery_worker *w = worker_of(k, worker);
	bool names = question == REGISTERED || question == QUEUES;
	if (!w || (names && json_type_of(value) != JSON_ARRAY) || k->size + value.len > SIZE_MAX_KEPT)
		k->cut = true;
	else if (names)
		on_names(k, w, question, value);
	else if (question == CONFIGURED)
		on_configuration(w, value);
	else
		on_report(w, value);
}

/* --- the answer ----------------------------------------------------------------------------------------- */

struct verdict {
	size_t registered, consuming, both;
	const struct celery_worker *knowing;  /* the first that has registered the task */
	const struct celery_worker *ignorant; /* the first of the queue that has not */
	/* the first of the queue that does not read the list of the priority */
	const struct celery_worker *deaf;
	/* the first whose results would not be found, or could not be read */
	const struct celery_worker *odd;
	bool incomplete; /* someone did not answer */
};

/* Which of its queues' lists a worker reads is up to its application. */
static bool reads(const struct celery_client *c, const struct celery_worker *w, int priority)
{
	int step = celery_priority_step(&c->o->lists, priority);
	bool found = false;
	for (size_t i = 0; i < w->lists.n_steps && !found; i++)
		found = w->lists.steps[i] == step &&
			(step == 0 || strcmp(w->lists.separator, c->o->lists.separator) == 0);
	return found || !w->configured;
}

/* Celery 5.7 and newer lets the message say otherwise, which ours do. */
static bool keeps_no_result(const struct celery_worker *w, const char *task)
{
	return w->major && (w->major < 5 || (w->major == 5 && w->minor < 7)) && has_name(&w->ignoring, task);
}

/* 5.5 and newer put a _ after a prefix that ends in a letter or digit, and so does the setting. */
static bool writes_elsewhere(const struct celery_client *c, const struct celery_worker *w)
{
	size_t n = strlen(w->result_prefix);
	const char *ours = c->o->result_prefix;
	return w->configured && (strncmp(ours, w->result_prefix, n) != 0 ||
				 (ours[n] && strcmp(ours + n, "_") != 0) || (!n && *ours));
}

static bool writes_no_json(const struct celery_worker *w)
{
	return w->compression[0] || (w->serializer[0] && strcmp(w->serializer, "json") != 0);
}

static struct verdict look(const struct celery_client *c, const struct celery_check_request *q,
			   const char *task)
{
	const struct celery_check *k = &c->check;
	struct verdict v = {.incomplete = k->cut || k->round.answers < k->round.expected};
	for (const struct celery_worker *w = k->workers; w; w = w->next) {
		bool knows = has_name(&w->tasks, task), has_queue = has_name(&w->queues, q->queue);
		bool consumes = has_queue && reads(c, w, q->priority);
		if (has_queue && !consumes && !v.deaf)
			v.deaf = w;
		if (consumes && !q->unawaited && !v.odd &&
		    (keeps_no_result(w, task) || writes_elsewhere(c, w) || writes_no_json(w)))
			v.odd = w;
		v.registered += knows;
		v.consuming += consumes;
		v.both += knows && consumes;
		if (knows && !v.knowing)
			v.knowing = w;
		if (consumes && w->tasks.told && !knows && !v.ignorant)
			v.ignorant = w;
		v.incomplete |= !w->tasks.told || !w->queues.told;
	}
	return v;
}

/* Appends to the list that began at `from`; false when it is full, which its end then says. */
static bool list_name(struct span name, struct buf *out, size_t from)
{
	bool first = out->len == from;
	if (out->len - from + name.len > LIST_MAX) {
		buf_puts(out, first ? "..." : ", ...");
		return false;
	}
	return buf_printf(out, "%s%.*s", first ? "" : ", ", SPAN_ARG(name)) == 0;
}

static bool heard_before(const struct celery_check *k, const struct celery_worker *end, struct span name,
			 size_t question)
{
	for (const struct celery_worker *w = k->workers; w != end; w = w->next)
		if (has_name(question == REGISTERED ? &w->tasks : &w->queues, name.ptr))
			return true;
	return false;
}

/* Names over all workers, each once. */
static void list_all(const struct celery_check *k, size_t question, struct buf *out)
{
	size_t from = out->len;
	struct span name;
	bool room = true;
	for (const struct celery_worker *w = k->workers; w && room; w = w->next)
		for (size_t at = 0;
		     room && next_name(question == REGISTERED ? &w->tasks : &w->queues, &at, &name);)
			room = heard_before(k, w, name, question) || list_name(name, out, from);
	if (out->len == from)
		buf_puts(out, "none");
}

static void list_workers(const struct celery_check *k, struct buf *out)
{
	size_t from = out->len;
	for (const struct celery_worker *w = k->workers; w && list_name(span_of(w->name), out, from);
	     w = w->next)
		;
}

static void say_unregistered(const struct celery_check *k, const struct verdict *v, const char *task,
			     struct buf *out)
{
	if (v->incomplete)
		buf_printf(out,
			   "not every worker answered, and of those that did none has registered task "
			   "\"%s\"; registered are: ",
			   task);
	else
		buf_printf(out, "no live worker has registered task \"%s\"; registered are: ", task);
	list_all(k, REGISTERED, out);
}

static void say_unconsumed(const struct celery_check *k, const struct verdict *v, const char *queue,
			   struct buf *out)
{
	buf_printf(out, "%s%s ", v->incomplete ? "not every worker answered; " : "",
		   k->n_workers > 1 ? "workers" : "worker");
	list_workers(k, out);
	buf_puts(out, k->n_workers > 1 ? " consume " : " consumes ");
	list_all(k, QUEUES, out);
	buf_printf(out, ", not \"%s\"", queue);
}

static void say_unread(const struct celery_client *c, const struct celery_worker *w,
		       const struct celery_check_request *q, struct buf *out)
{
	buf_printf(out, "worker %s reads the lists of \"%s\" for the priorities ", w->name, q->queue);
	for (size_t i = 0; i < w->lists.n_steps; i++)
		buf_printf(out, "%s%d", i ? ", " : "", w->lists.steps[i]);
	buf_puts(out, ", with the sep ");
	json_quote(out, span_of(w->lists.separator));
	buf_printf(out, "; nobody reads priority %d, which this backend maps to step %d with the sep ",
		   q->priority, celery_priority_step(&c->o->lists, q->priority));
	json_quote(out, span_of(c->o->lists.separator));
}

static void say_odd(const struct celery_client *c, const struct celery_worker *w, const char *task,
		    struct buf *out)
{
	if (keeps_no_result(w, task))
		buf_printf(out,
			   "worker %s (Celery %u.%u) keeps no result of task \"%s\" (ignore_result): callers "
			   "would wait in vain; "
			   "declare fire_and_forget, or let the worker keep it",
			   w->name, w->major, w->minor, task);
	else if (writes_no_json(w))
		buf_printf(out,
			   "worker %s writes results with result_serializer \"%s\", result_compression "
			   "\"%s\": only plain JSON can be read",
			   w->name, w->serializer[0] ? w->serializer : "json", w->compression);
	else
		buf_printf(out,
			   "worker %s writes results with the global_keyprefix \"%s\", this backend's "
			   "result_key_prefix is \"%s\"",
			   w->name, w->result_prefix, c->o->result_prefix);
}

static void say_missing(const struct celery_client *c, const struct celery_check_request *q, const char *task,
			const struct verdict *v, struct buf *out)
{
	const struct celery_check *k = &c->check;
	const char *queue = q->queue;
	if (k->round.why.text[0])
		buf_puts(out, k->round.why.text);
	else if (c->hearing.why.text[0])
		buf_printf(out, CELERY_DEAF, c->hearing.why.text);
	else if (k->round.listeners == 0)
		buf_printf(out, CELERY_NO_WORKER, c->broker->where(c));
	else if (k->n_workers == 0)
		buf_puts(out, "workers listen, but none answered in time");
	else if (!v->registered)
		say_unregistered(k, v, task, out);
	else if (!v->consuming && v->deaf)
		say_unread(c, v->deaf, q, out);
	else if (!v->consuming)
		say_unconsumed(k, v, queue, out);
	else if (!v->both)
		buf_printf(out,
			   "task \"%s\" is registered with %s, which does not consume \"%s\"; its workers do "
			   "not know the task",
			   task, v->knowing->name, queue);
	else if (v->ignorant)
		buf_printf(out,
			   "worker %s consumes \"%s\" without having registered task \"%s\": what it "
			   "receives will fail",
			   v->ignorant->name, queue, task);
	else if (v->odd)
		say_odd(c, v->odd, task, out);
}

static enum task_answer answer_of(size_t found, bool incomplete)
{
	if (found)
		return TASK_ANSWER_YES;
	return incomplete ? TASK_ANSWER_UNKNOWN : TASK_ANSWER_NO;
}

static struct task_check answer_task(const struct celery_client *c, const struct celery_check_request *q,
				     const char *task)
{
	const struct celery_check *k = &c->check;
	const struct verdict v = look(c, q, task);
	struct task_check a = {.known = TASK_ANSWER_UNKNOWN, .worker = TASK_ANSWER_UNKNOWN};
	CLEANUP(buf_releasep) struct buf missing = BUF_INIT(4096);
	a.reachable = k->round.reachable && !c->hearing.why.text[0];
	if (!k->round.why.text[0]) {
		a.worker = answer_of(v.consuming, v.incomplete);
		if (k->n_workers)
			a.known = answer_of(v.registered, v.incomplete);
	}
	say_missing(c, q, task, &v, &missing);
	span_copy(buf_span(&missing), a.missing, sizeof(a.missing));
	return a;
}

/* Of a chain the first step that lacks something. */
static struct task_check answer(const struct celery_client *c, const struct celery_check_request *q)
{
	const struct workflow_definition *w = celery_workflow(c, q->workflow, span_of(q->task));
	struct task_check a = {.reachable = false};
	if (!w)
		return answer_task(c, q, q->task);
	if (!(c->o->results_kind == CELERY_RESULTS_RPC ? celery_can_chain(w) : celery_can_chord(w))) {
		a = answer_task(c, q, q->task);
		a.known = TASK_ANSWER_NO;
		snprintf(a.missing, sizeof(a.missing), CELERY_NO_CHAIN, SPAN_ARG(w->name));
		return a;
	}
	for (size_t i = 0; i < w->n_steps; i++) {
		char task[TASK_NAME_MAX];
		span_copy(w->steps[i].task, task, sizeof(task));
		a = answer_task(c, q, task);
		if (a.missing[0])
			break;
	}
	return a;
}

/* --- telling -------------------------------------------------------------------------------------------- */

static void finish(struct celery_client *c);

/* One at a time: a callback may free the client. */
static void tell(struct loop_work *work)
{
	struct celery_check *k = (struct celery_check *)((char *)work - offsetof(struct celery_check, work));
	struct celery_client *c = (struct celery_client *)((char *)k - offsetof(struct celery_client, check));
	struct celery_check_request *q = k->requests, copy = *q;
	const struct task_check now = answer(c, q);
	k->requests = q->next;
	free(q);
	if (k->requests)
		finish(c);
	copy.fn(copy.arg, &now);
}

static void finish(struct celery_client *c)
{
	c->check.work.fn = tell;
	loop_defer_cancel(c->base.loop, &c->check.work);
	loop_defer(c->base.loop, &c->check.work);
}

static void on_end(struct celery_client *c)
{
	c->check.known_ms = loop_now_ms(c->base.loop);
	finish(c);
}

/* --- asking --------------------------------------------------------------------------------------------- */

static void ask(struct celery_client *c)
{
	struct celery_check *k = &c->check;
	struct err e;
	forget_workers(k);
	k->round = (struct celery_round){
		.questions = questions, .n_questions = N_QUESTIONS, .answer = on_answer, .end = on_end};
	if (celery_pidbox_ask(c, &k->round, &e) < 0) {
		k->round.why = e;
		finish(c);
	}
}

void celery_check(struct task_client *base, const struct task_probe *probe, task_check_fn fn, void *arg)
{
	struct celery_client *c = (struct celery_client *)base;
	struct celery_check *k = &c->check;
	struct celery_check_request **last = &k->requests, *q = calloc(1, sizeof(*q));
	if (!q) {
		const struct task_check none = {.known = TASK_ANSWER_UNKNOWN,
						.worker = TASK_ANSWER_UNKNOWN,
						.missing = "out of memory"};
		fn(arg, &none);
		return;
	}
	q->fn = fn;
	q->arg = arg;
	q->workflow = probe->workflow;
	q->unawaited = probe->unawaited;
	q->priority = probe->priority;
	span_copy(probe->task, q->task, sizeof(q->task));
	span_copy(probe->queue.len ? probe->queue : span_of(c->o->queue), q->queue, sizeof(q->queue));
	while (*last)
		last = &(*last)->next;
	*last = q;
	if (k->round.running)
		return; /* it is told with the others */
	if (k->known_ms && loop_now_ms(base->loop) - k->known_ms < c->o->health_interval_ms)
		finish(c);
	else if (k->requests == q)
		ask(c);
}

void celery_check_drop(struct celery_client *c)
{
	loop_defer_cancel(c->base.loop, &c->check.work);
	while (c->check.requests) {
		struct celery_check_request *q = c->check.requests;
		c->check.requests = q->next;
		free(q);
	}
	forget_workers(&c->check);
}
