/*
 * What the ledger says of a request's keys: asked once for each, and waited for where it is not known at
 * once.
 *
 * Why:       a shared ledger is asked over the network (design, "Replicas"). The steps of a request that need
 *            its word stay what they were: they ask, and when they have to wait they are run again.
 */
#include <stdlib.h>

#include "router/request/request.h"

struct asked {
	struct asked *next;
	struct request *request;
	bool told, within; /* within: the call that asked has not returned */
	enum ledger_answer answer;
	bool any; /* of its group */
	struct ledger_entry entry;
};

static void on_told(void *arg, enum ledger_answer answer, const struct ledger_entry *entry)
{
	struct asked *a = arg;
	struct request *r = a->request;
	a->told = true;
	a->answer = answer;
	if (entry)
		a->entry = *entry;
	if (a->within)
		return;
	r->asking = false;
	request_trace(r, "ledger_told", LOG_BOOL("found", answer == LEDGER_FOUND),
		      LOG_BOOL("known", answer != LEDGER_UNKNOWN));
	if (r->x && r->state == REQUEST_ASK)
		r->step(r);
	request_unref(r);
}

static struct asked *find_asked(struct request *r, const struct asked *like)
{
	struct span group = span_of(like->entry.group), key = span_of(like->entry.key);
	for (struct asked *a = r->asked; a; a = a->next)
		if (a->any == like->any && span_is(group, a->entry.group) && span_is(key, a->entry.key))
			return a;
	return NULL;
}

static struct asked *ask_now(struct request *r, const struct asked *what)
{
	struct asked *a = malloc(sizeof(*a));
	if (!a)
		return NULL;
	*a = *what;
	a->request = r;
	a->within = true;
	a->next = r->asked;
	r->asked = a;
	request_ref(r);
	ledger_ask(r->plane->env->ledger, r->plane->loop, span_of(a->entry.group),
		   a->any ? SPAN_NONE : span_of(a->entry.key), on_told, a);
	a->within = false;
	if (a->told)
		request_unref(r);
	else
		r->asking = true;
	return a;
}

static const struct asked *request_asked(struct request *r, struct span group, struct span key)
{
	struct asked what = {.any = !key.ptr};
	if (ledger_entry_set(&what.entry, group, key) != 0)
		return NULL;
	struct asked *a = find_asked(r, &what);
	return a || r->asking ? a : ask_now(r, &what);
}

enum ledger_answer request_ask(struct request *r, struct span group, struct span key,
			       struct ledger_entry *ret)
{
	if (key.ptr && ledger_entry_set(ret, group, key) != 0)
		return LEDGER_NONE; /* no entry has such a key */
	const struct asked *a = request_asked(r, group, key);
	if (!a || !a->told)
		return LEDGER_UNKNOWN;
	if (a->answer == LEDGER_FOUND && ret)
		*ret = a->entry;
	return a->answer;
}

bool request_may_have(struct request *r, struct span group)
{
	return request_ask(r, group, SPAN_NONE, NULL) != LEDGER_NONE;
}

bool request_waits(struct request *r, void (*step)(struct request *r))
{
	if (!r->asking)
		return false;
	r->step = step;
	r->state = REQUEST_ASK;
	return true;
}

/* Of those in progress the request lives on, and this is not called. */
void request_forget_answers(struct request *r)
{
	while (r->asked) {
		struct asked *a = r->asked;
		r->asked = a->next;
		free(a);
	}
}
