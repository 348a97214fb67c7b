#include "standing/standing_changes.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "standing/standing_internal.h"

#define PERCENT_DIFFERS 0.005

struct telling {
	void (*fn)(void *arg, const struct event *e);
	void *arg;
	int64_t time_us;
};

static const struct standing_backend *backend_before(const struct standing_facts *f, const char *name)
{
	for (size_t i = 0; f && i < f->n_backends; i++)
		if (strcmp(f->backends[i].name, name) == 0)
			return &f->backends[i];
	return NULL;
}

static const struct standing_legacy *legacy_before(const struct standing_facts *f, const char *service)
{
	for (size_t i = 0; f && i < f->n_legacy; i++)
		if (strcmp(f->legacy[i].service, service) == 0)
			return &f->legacy[i];
	return NULL;
}

/* They stay in the same order, unless the configuration changes. */
static const struct standing_operation_facts *operation_before(const struct standing_facts *f, size_t like,
							       const struct standing_operation_facts *o)
{
	for (size_t i = 0; f && i < f->n_operations; i++) {
		const struct standing_operation_facts *x = &f->operations[(like + i) % f->n_operations];
		if (strcmp(x->operation, o->operation) == 0 && strcmp(x->service, o->service) == 0)
			return x;
	}
	return NULL;
}

/* Of one that has not been asked yet: as it was (keep_backends). */
static bool is_up(const struct standing_backend *b)
{
	return b->reachable && b->worker;
}

static bool is_open(const struct standing_backend *b)
{
	return strcmp(b->breaker, "open") == 0 || strcmp(b->breaker, "half_open") == 0;
}

static bool same_percent(double a, double b)
{
	return fabs(a - b) < PERCENT_DIFFERS;
}

static bool same_set(const struct standing_operation_facts *a, const struct standing_operation_facts *b)
{
	if (!same_percent(a->set, b->set) || a->n_segments != b->n_segments)
		return false;
	for (size_t i = 0; i < a->n_segments; i++)
		if (strcmp(a->segments[i].name, b->segments[i].name) != 0 ||
		    !same_percent(a->segments[i].percent, b->segments[i].percent))
			return false;
	return true;
}

/* --- since ---------------------------------------------------------------------------------------------- */

static void keep_store(const struct standing_store *before, struct standing_store *now, int64_t time_us)
{
	bool same = before && before->failing == now->failing;
	if (same)
		now->since_us = before->since_us;
	else
		now->since_us = before || now->failing ? time_us : 0;
}

static void keep_backends(const struct standing_facts *before, struct standing_facts *now)
{
	for (size_t i = 0; i < now->n_backends; i++) {
		struct standing_backend *b = &now->backends[i];
		const struct standing_backend *x = backend_before(before, b->name);
		if (!b->known) { /* a restart is no news of it: what is not known is neither gone nor back */
			b->reachable = x ? x->reachable : true;
			b->worker = x ? x->worker : true;
		}
		if (x && x->reachable == b->reachable && x->worker == b->worker)
			b->since_us = x->since_us;
		else
			b->since_us = x || !is_up(b) ? now->time_us : 0;
	}
}

static void keep_legacy(const struct standing_facts *before, struct standing_facts *now)
{
	for (size_t i = 0; i < now->n_legacy; i++) {
		struct standing_legacy *l = &now->legacy[i];
		const struct standing_legacy *x = legacy_before(before, l->service);
		if (!l->known) /* likewise */
			l->reachable = x ? x->reachable : true;
		if (x && x->reachable == l->reachable)
			l->since_us = x->since_us;
		else
			l->since_us = x || !l->reachable ? now->time_us : 0;
	}
}

/* Until outcomes.db has been read, what was held is still held. */
static void keep_guard(const struct standing_operation_facts *x, struct standing_operation_facts *o)
{
	o->guard = x->guard;
	o->guard_judged = x->guard_judged;
	o->held = x->held;
	o->held_us = x->held_us;
	memcpy(o->guard_why, x->guard_why, sizeof(o->guard_why));
}

static void keep_operations(const struct standing_facts *before, struct standing_facts *now)
{
	for (size_t i = 0; i < now->n_operations; i++) {
		struct standing_operation_facts *o = &now->operations[i];
		const struct standing_operation_facts *x = operation_before(before, i, o);
		if (x && (same_set(x, o) || o->set < 0))
			o->set_since_us = x->set_since_us;
		else
			o->set_since_us = x ? now->time_us : 0;
		if (x && x->not_ready[0] && o->not_ready[0])
			o->not_ready_since_us = x->not_ready_since_us;
		else
			o->not_ready_since_us = o->not_ready[0] ? now->time_us : 0;
		if (x && !now->guard_known)
			keep_guard(x, o);
	}
}

void standing_since(const struct standing_facts *before, struct standing_facts *now)
{
	keep_store(before ? &before->recorder : NULL, &now->recorder, now->time_us);
	keep_store(before ? &before->state : NULL, &now->state, now->time_us);
	keep_store(before ? &before->keys : NULL, &now->keys, now->time_us);
	if (!now->flags.failing)
		now->flags.failing_since_us = 0;
	else if (before && before->flags.failing)
		now->flags.failing_since_us = before->flags.failing_since_us;
	else
		now->flags.failing_since_us = now->time_us;
	keep_backends(before, now);
	keep_legacy(before, now);
	keep_operations(before, now);
}

/* --- changes -------------------------------------------------------------------------------------------- */

static struct event change(const struct telling *t, enum event_kind kind, const char *what, const char *why)
{
	struct event e = {
		.time_us = t->time_us, .kind = kind, .before = EVENT_NO_PERCENT, .after = EVENT_NO_PERCENT};
	snprintf(e.what, sizeof(e.what), "%.159s", what);
	snprintf(e.why, sizeof(e.why), "%.255s", why);
	return e;
}

static void tell_flags(const struct telling *t, const struct standing_flags *before,
		       const struct standing_flags *now)
{
	bool was = before && before->failing;
	struct event e;
	if (was == now->failing)
		return;
	if (now->failing)
		e = change(t, EVENT_FLAGS_FAILING, "flags cannot be read", now->last_error);
	else
		e = change(t, EVENT_FLAGS_BACK, "flags are read again", "");
	t->fn(t->arg, &e);
}

static void tell_store(const struct telling *t, const struct standing_store *before,
		       const struct standing_store *now, const char *what)
{
	bool was = before && before->failing;
	if (was == now->failing)
		return;
	struct event e = change(t, now->failing ? EVENT_STORE_FAILING : EVENT_STORE_BACK, what,
				now->failing ? now->last_error : "");
	t->fn(t->arg, &e);
}

static void tell_backend(const struct telling *t, const struct standing_backend *x,
			 const struct standing_backend *b)
{
	bool was_up = !x || is_up(x), was_open = x && is_open(x);
	char what[160];
	struct event e;
	if (was_up != is_up(b)) {
		const char *state = b->reachable ? "has no worker" : "cannot be reached";
		snprintf(what, sizeof(what), "%s %s", b->name, is_up(b) ? "is back" : state);
		e = change(t, is_up(b) ? EVENT_BACKEND_BACK : EVENT_BACKEND_GONE, what, b->detail);
		memcpy(e.backend, b->name, sizeof(e.backend));
		t->fn(t->arg, &e);
	}
	if (was_open != is_open(b)) {
		snprintf(what, sizeof(what), "the circuit breaker of %s has %s", b->name,
			 is_open(b) ? "opened" : "closed");
		e = change(t, is_open(b) ? EVENT_BREAKER_OPEN : EVENT_BREAKER_CLOSED, what, b->breaker_why);
		memcpy(e.backend, b->name, sizeof(e.backend));
		t->fn(t->arg, &e);
	}
}

static void tell_legacy(const struct telling *t, const struct standing_legacy *x,
			const struct standing_legacy *l)
{
	bool was = !x || x->reachable;
	char what[160];
	if (was == l->reachable)
		return;
	snprintf(what, sizeof(what), "legacy %s %s", l->service, l->reachable ? "is back" : "is gone");
	struct event e = change(t, l->reachable ? EVENT_LEGACY_BACK : EVENT_LEGACY_GONE, what, l->failing);
	memcpy(e.service, l->service, sizeof(e.service));
	t->fn(t->arg, &e);
}

static void tell_of_operation(const struct telling *t, const struct standing_operation_facts *o,
			      struct event e)
{
	memcpy(e.service, o->service, sizeof(e.service));
	memcpy(e.operation, o->operation, sizeof(e.operation));
	t->fn(t->arg, &e);
}

static void tell_percent(const struct telling *t, const struct standing_operation_facts *x,
			 const struct standing_operation_facts *o, const char *digest)
{
	char what[160], why[STANDING_WHY_MAX], from[STANDING_NUMBER_MAX], to[STANDING_NUMBER_MAX];
	if (!x || x->set < 0 || o->set < 0 || same_set(x, o))
		return;
	if (same_percent(x->set, o->set))
		snprintf(what, sizeof(what), "%.90s: its segments changed", o->flag);
	else
		snprintf(what, sizeof(what), "%.90s: %s to %s", o->flag, standing_percent(x->set, from),
			 standing_percent(o->set, to));
	snprintf(why, sizeof(why), "flags %.16s", digest);
	struct event e = change(t, EVENT_PERCENT, what, why);
	e.before = x->set;
	e.after = o->set;
	tell_of_operation(t, o, e);
}

static void tell_guard(const struct telling *t, const struct standing_operation_facts *x,
		       const struct standing_operation_facts *o)
{
	bool was_held = x && x->held, judged = x && x->guard_judged;
	enum guard_verdict was = judged ? x->guard : GUARD_NOT_ENOUGH_DATA;
	if (!was_held && o->held)
		tell_of_operation(t, o, change(t, EVENT_GUARD_HELD, "held on legacy", o->guard_why));
	else if (was_held && !o->held)
		tell_of_operation(t, o, change(t, EVENT_GUARD_RELEASED, "released", o->guard_why));
	if (!o->guard_judged || o->guard == was)
		return;
	if (o->guard == GUARD_BREACH)
		tell_of_operation(t, o,
				  change(t, EVENT_GUARD_BREACH, "the task side is worse", o->guard_why));
	else if (o->guard == GUARD_SHARE_MISMATCH)
		tell_of_operation(
			t, o, change(t, EVENT_GUARD_MISMATCH, "the share is not what is set", o->guard_why));
	else if (o->guard == GUARD_SAFE)
		tell_of_operation(t, o, change(t, EVENT_GUARD_SAFE, "the task side is safe", o->guard_why));
}

void standing_each_change(const struct standing_facts *before, const struct standing_facts *now,
			  void (*fn)(void *arg, const struct event *e), void *arg)
{
	struct telling t = {fn, arg, now->time_us};
	tell_flags(&t, before ? &before->flags : NULL, &now->flags);
	tell_store(&t, before ? &before->recorder : NULL, &now->recorder, "outcomes");
	tell_store(&t, before ? &before->state : NULL, &now->state, "the ledger");
	tell_store(&t, before ? &before->keys : NULL, &now->keys, "idempotency keys");
	for (size_t i = 0; i < now->n_backends; i++)
		tell_backend(&t, backend_before(before, now->backends[i].name), &now->backends[i]);
	for (size_t i = 0; i < now->n_legacy; i++)
		tell_legacy(&t, legacy_before(before, now->legacy[i].service), &now->legacy[i]);
	for (size_t i = 0; i < now->n_operations; i++) {
		const struct standing_operation_facts *o = &now->operations[i],
						      *x = operation_before(before, i, o);
		tell_percent(&t, x, o, now->flags.digest);
		tell_guard(&t, x, o);
	}
}

static void note_change(void *arg, const struct event *e)
{
	bool *any = arg;
	(void)e;
	*any = true;
}

static bool flags_differ(const struct standing_flags *a, const struct standing_flags *b)
{
	return a->loaded != b->loaded || a->unsaved != b->unsaved || a->broken != b->broken ||
	       a->vanished != b->vanished || strcmp(a->digest, b->digest) != 0;
}

bool standing_differs(const struct standing_facts *before, const struct standing_facts *now)
{
	bool differs = !before || before->stopped != now->stopped || before->draining != now->draining ||
		       before->accepting != now->accepting || before->n_backends != now->n_backends ||
		       before->n_legacy != now->n_legacy || before->n_operations != now->n_operations ||
		       before->without_task != now->without_task || flags_differ(&before->flags, &now->flags);
	for (size_t i = 0; !differs && i < now->n_backends; i++)
		differs = before->backends[i].known != now->backends[i].known;
	for (size_t i = 0; !differs && i < now->n_operations; i++)
		differs = !before->operations[i].not_ready[0] != !now->operations[i].not_ready[0];
	if (!differs)
		standing_each_change(before, now, note_change, &differs);
	return differs;
}
