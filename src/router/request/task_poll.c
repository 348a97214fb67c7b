/*
 * /_migration/tasks/{id}: the state of a task that was answered with 202, for its owner; DELETE cancels.
 *
 * The ledger knows which backend has it and for whom (task_owner.h). Anyone else gets the same 404 as for a
 * task that never was. The organization is looked for as the operations that answer 202 do it, in fields and
 * query.
 */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/text.h"
#include "operation/auth.h"
#include "router/request/auth_ask.h"
#include "router/request/request.h"
#include "router/request/task_owner.h"

#define PREFIX ROUTE_RESERVED "tasks/"

static void not_found(struct request *r)
{
	request_fail(r, OUTCOME_REJECTED, 404, "Not found",
		     "There is no such task for these credentials and this organization.");
}

static void try_again(struct request *r, const char *title, const char *detail)
{
	static const struct http_field retry = {SPAN_INIT("Retry-After"), SPAN_INIT("1")};
	request_fail_with(r, OUTCOME_FAILURE, 503, title, detail, &retry, 1);
}

/* A long name stands cut in the ledger; the operation that began the task has all of it. SPAN_NONE when it is
 * gone from the configuration, or several could be meant. */
static struct span poll_long_name(const struct service *s, const struct ledger_entry *entry)
{
	struct span name = SPAN_NONE;
	for (size_t i = 0; i < s->n_operations; i++) {
		const struct operation *op = &s->operations[i];
		if (!op->has_task || !op->task.respond_async || !task_owner_may_name(entry, op->task.task))
			continue;
		if (name.len && !span_eq(name, op->task.task))
			return SPAN_NONE;
		name = op->task.task;
	}
	return name;
}

/* As the 202 told it, on every backend: the ledger has it. Of tasks that a router of before accepted there is
 * only what the backend tells. */
static void poll_find_name(struct request *r, const struct ledger_entry *entry, struct span id)
{
	struct span name = task_owner_name(entry, id);
	span_copy(name.len ? name : poll_long_name(r->service->service, entry), r->polled_name,
		  sizeof(r->polled_name));
}

static void on_state(void *arg, int error, const struct task_result *t)
{
	struct request *r = arg;
	if (r->x && error == TASK_E_NOT_FOUND) {
		not_found(r);
	} else if (r->x && error == TASK_E_UNREADABLE) {
		/* As a caller who waited is told it; trying again would not help. */
		request_fail(r, OUTCOME_UNKNOWN, 502, "Result unreadable", TASK_UNREADABLE_SENTENCE);
	} else if (r->x && error != 0) {
		try_again(r, "Backend unreachable", "The task's backend could not be queried; try again.");
	} else if (r->x) {
		CLEANUP(buf_releasep) struct buf body = BUF_INIT(256u << 20);
		CLEANUP(buf_releasep) struct buf room = BUF_INIT(2 * TEXT_MASKED_MAX);
		struct task_result public;
		task_result_for_callers(t, &room, &public);
		if (r->polled_name[0])
		public.task_name = span_of(r->polled_name);
		if (task_result_to_json(&public, &body) < 0) {
			try_again(r, "Result too large",
				  "The task has ended, but there is no memory for its result right now.");
			request_unref(r);
			return;
		}
		const struct http_field fields[] = {{SPAN_LIT("Content-Type"), SPAN_LIT("application/json")},
						    {SPAN_LIT("Cache-Control"), SPAN_LIT("no-store")},
						    {SPAN_LIT("X-Request-ID"), r->request_id}};
		request_answer(r, OUTCOME_SUCCESS, 200, fields, 3, buf_span(&body));
	}
	request_unref(r);
}

static void on_cancelled(void *arg, int error, struct err *e)
{
	struct request *r = arg;
	(void)e;
	if (r->x && error == TASK_E_NOT_FOUND)
		not_found(r);
	else if (r->x && error != 0)
		try_again(r, "Backend unreachable", "The task's backend could not be queried; try again.");
	else if (r->x) /* a request, not a fact: the state tells what came of it */
		request_answer(r, OUTCOME_SUCCESS, 202, NULL, 0, SPAN_LIT(""));
	request_unref(r);
}

/* Whether the ledger has the task for what this request shows when it is read as one to `op`. */
static bool owned(struct request *r, const struct operation *op, struct span id, struct ledger_entry *entry,
		  bool *ret_unknown)
{
	struct auth_fingerprint who;
	enum auth_result known = auth_check(&op->auth, r->http->fields, r->http->n_fields, &who);
	if (known != AUTH_ACCEPTED && known != AUTH_ASK)
		return false;
	struct identity_input in = {
		.request = r->http,
		.match = &r->match,
		.peer_trusted = config_trusts_peer(r->service->config, r->http->peer, r->http->peer_length),
		.body_read = true,
	};
	identity_find(&op->identity, &in, &r->identity);
	auth_owner(&who, r->identity.organization, r->owner);
	char key[LEDGER_KEY_MAX];
	enum ledger_answer found =
		request_ask(r, SPAN_LIT(TASK_OWNER_GROUP), task_owner_key(id, r->owner, key), entry);
	*ret_unknown |= found == LEDGER_UNKNOWN;
	return found == LEDGER_FOUND;
}

/* The operation that the task is of, or NULL. */
static const struct operation *find(struct request *r, struct span id, struct ledger_entry *entry,
				    bool *ret_unknown)
{
	const struct service *s = r->service->service;
	for (size_t i = 0; i < s->n_operations; i++)
		if (s->operations[i].has_task && s->operations[i].task.respond_async &&
		    owned(r, &s->operations[i], id, entry, ret_unknown))
			return &s->operations[i];
	return NULL;
}

/* Its state is asked for, or it is cancelled, when it is the caller's. */
static void task_poll_look(struct request *r)
{
	struct span path = route_path(r->http->target);
	struct span id = {path.ptr + sizeof(PREFIX) - 1, path.len - (sizeof(PREFIX) - 1)};
	struct ledger_entry entry;
	bool unknown = false;
	const struct operation *found = find(r, id, &entry, &unknown);
	if (request_waits(r, task_poll_look))
		return;
	if (!found && unknown) {
		try_again(r, "Tasks unknown",
			  "Who owns this task cannot be determined right now; try again.");
		return;
	}
	if (!found) {
		not_found(r);
		return;
	}
	/* Whether they are still accepted: they may have been revoked since. */
	if (auth_ask_waits(r, found, task_poll_look))
		return;
	if (found->auth.kind == AUTH_CHECK && auth_ask_refuse(r))
		return;
	r->client = plane_client(r->plane, span_of(entry.backend));
	if (!r->client) {
		request_fail(r, OUTCOME_FAILURE, 503, "Backend not configured",
			     "The task's backend is no longer configured.");
		return;
	}
	poll_find_name(r, &entry, id);
	request_ref(r);
	if (span_is(r->http->method, "GET"))
		task_get(r->client, id, on_state, r);
	else
		task_cancel(r->client, id, on_cancelled, r);
}

void task_poll_start(struct request *r)
{
	struct span path = route_path(r->http->target);
	bool get = span_is(r->http->method, "GET"), delete = span_is(r->http->method, "DELETE");
	if (!span_starts(path, SPAN_LIT(PREFIX))) {
		request_fail(r, OUTCOME_REJECTED, 404, "Not found",
			     "Paths under " ROUTE_RESERVED " belong to the router.");
		return;
	}
	size_t id_length = path.len - (sizeof(PREFIX) - 1);
	if (!get && !delete) {
		static const struct http_field allow = {SPAN_INIT("Allow"), SPAN_INIT("GET, DELETE")};
		request_fail_with(r, OUTCOME_REJECTED, 405, "Method not allowed",
				  "GET returns the state, DELETE cancels.", &allow, 1);
		return;
	}
	if (id_length == 0 || id_length >= TASK_ID_MAX)
		not_found(r);
	else
		task_poll_look(r);
}
