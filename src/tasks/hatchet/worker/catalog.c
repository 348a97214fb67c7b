#include "tasks/hatchet/worker/catalog.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "tasks/hatchet/hatchet_message.h"

/* --- names ---------------------------------------------------------------------------------------------- */

static bool catalog_is_name_character(char c)
{
	return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' ||
	       c == '-' || c == '_';
}

static bool catalog_is_name(struct span s)
{
	for (size_t i = 0; i < s.len; i++)
		if (!catalog_is_name_character(s.ptr[i]))
			return false;
	return s.len > 0;
}

int hatchet_put_worker_name(struct span name, struct buf *out)
{
	for (size_t i = 0; i < name.len; i++)
		buf_putc(out, catalog_is_name_character(name.ptr[i]) ? name.ptr[i] : '-');
	return out->error;
}

/* "<workflow>:<task>" in small letters: others it does not take, or makes small itself. */
static char *catalog_action(const char *workflow, const char *task)
{
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(4096);
	buf_printf(&text, "%s:%s", workflow, task);
	for (size_t i = 0; i < text.len; i++)
		text.ptr[i] = (char)tolower((unsigned char)text.ptr[i]);
	return text.error ? NULL : buf_steal(&text);
}

static void catalog_leave_out(struct span name, const char *why)
{
	log_error("task_not_declared", LOG_SPAN("task", name), LOG_STR("reason", why),
		  LOG_STR("effect", "this worker does not take it"));
}

/* --- filling -------------------------------------------------------------------------------------------- */

static bool catalog_has_queue(struct span queue, const char *const *queues, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (span_is(queue, queues[i]))
			return true;
	return false;
}

static const struct hatchet_entry *catalog_look(const struct hatchet_catalog *c, const char *action)
{
	for (size_t i = 0; i < c->n_entries; i++)
		if (strcmp(c->entries[i].action, action) == 0)
			return &c->entries[i];
	return NULL;
}

/* A task is a workflow of its own. */
static int catalog_add_task(struct hatchet_catalog *c, const struct task_definition *t)
{
	CLEANUP(buf_releasep) struct buf name = BUF_INIT(4096);
	struct hatchet_workflow *w = &c->workflows[c->n_workflows];
	struct hatchet_entry *n = &c->entries[c->n_entries];
	if (!catalog_is_name(t->name)) {
		catalog_leave_out(t->name, "Hatchet takes names of A-Z a-z 0-9 . - _ only");
		return 0;
	}
	hatchet_put_workflow(&name, t->name, false);
	w->name = name.error ? NULL : buf_steal(&name);
	n->name = span_dup(t->name);
	n->action = w->name && n->name ? catalog_action(w->name, n->name) : NULL;
	w->tasks = calloc(1, sizeof(*w->tasks));
	bool taken = n->action && catalog_look(c, n->action);
	if (!n->action || !w->tasks || taken) {
		free(w->name);
		free(w->tasks);
		free(n->name);
		free(n->action);
		if (taken)
			catalog_leave_out(t->name, "its name differs from another's in capitals only, which "
						   "Hatchet does not tell apart");
		return taken ? 0 : -ENOMEM;
	}
	*w->tasks = (struct hatchet_declared_task){.name = n->name,
						   .action = n->action,
						   .timeout_ms =
							   (uint64_t)t->timeout_ms + HATCHET_LIMIT_MARGIN_MS,
						   .retries = t->max_attempts > 1 ? t->max_attempts - 1 : 0};
	w->n_tasks = 1;
	w->refused = false;
	n->task = t;
	n->workflow = c->n_workflows++;
	c->n_entries++;
	return 0;
}

static int catalog_fill(struct hatchet_catalog *c, const char *const *queues, size_t n_queues)
{
	size_t n = registry_count(c->registry);
	c->workflows = calloc(n ? n : 1, sizeof(*c->workflows));
	c->entries = calloc(n ? n : 1, sizeof(*c->entries));
	int r = c->workflows && c->entries ? 0 : -ENOMEM;
	for (size_t i = 0; r == 0 && i < n; i++) {
		const struct task_definition *t = registry_task_at(c->registry, i);
		if (catalog_has_queue(t->queue, queues, n_queues))
			r = catalog_add_task(c, t);
	}
	return r;
}

static int catalog_compare(const void *a, const void *b)
{
	const struct hatchet_entry *x = a, *y = b;
	return strcmp(x->action, y->action);
}

int hatchet_catalog_new(struct registry *r, const char *const *queues, size_t n_queues,
			struct hatchet_catalog **ret, struct err *e)
{
	struct hatchet_catalog *c = calloc(1, sizeof(*c));
	if (!c)
		return err_set(e, -ENOMEM, "out of memory");
	c->references = 1;
	c->registry = registry_ref(r);
	int code = catalog_fill(c, queues, n_queues);
	if (code < 0 || !c->n_entries) {
		hatchet_catalog_free(c);
		return code < 0 ? err_set(e, code, "out of memory")
				: err_set(e, -EINVAL, "none of the tasks is of one of the worker's queues");
	}
	qsort(c->entries, c->n_entries, sizeof(*c->entries), catalog_compare);
	*ret = c;
	return 0;
}

struct hatchet_catalog *hatchet_catalog_ref(struct hatchet_catalog *c)
{
	c->references++;
	return c;
}

struct hatchet_catalog *hatchet_catalog_free(struct hatchet_catalog *c)
{
	if (!c || --c->references)
		return NULL;
	for (size_t i = 0; i < c->n_workflows; i++) {
		free(c->workflows[i].name);
		free(c->workflows[i].tasks);
	}
	for (size_t i = 0; i < c->n_entries; i++) {
		free(c->entries[i].name);
		free(c->entries[i].action);
	}
	free(c->workflows);
	free(c->entries);
	registry_free(c->registry);
	free(c);
	return NULL;
}

const struct hatchet_entry *hatchet_catalog_find(const struct hatchet_catalog *c, const char *action)
{
	size_t low = 0, high = c->n_entries;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		int order = strcmp(action, c->entries[middle].action);
		if (order == 0)
			return &c->entries[middle];
		if (order < 0)
			high = middle;
		else
			low = middle + 1;
	}
	return NULL;
}
