/* Follow-up calls go where the first call went (rule 4): what the ledger says of a call, and what is
 * refused because of it. */
#include <errno.h>

#include "operation/plain_path.h"
#include "router/request/request.h"

/* A follow-up call is pinned, one way or the other; one that starts or is none is not. */
bool request_follows(const struct operation *op)
{
	return op && op->has_task && op->pin_key.ptr && !op->pin_start;
}

bool request_pin_in_body(const struct operation *op)
{
	return span_starts(op->pin_key, SPAN_LIT("body:"));
}

bool request_has_pin(const struct operation *op)
{
	return op && op->has_task && op->pin_key.ptr;
}

enum pin_key request_pin_key_of(const struct request *r)
{
	CLEANUP(buf_releasep) struct buf key = BUF_INIT(PIN_KEY_ROOM);
	return request_has_pin(r->op) ? request_pin_key(r, &key) : PIN_KEY_NONE;
}

/* Whether the call that a server makes of it which tidies paths up has, or may have, an entry. */
static bool tidied_has_pin(struct request *r, const struct route_match *m)
{
	static const struct span path = SPAN_INIT("path:");
	CLEANUP(buf_releasep) struct buf key = BUF_INIT(PIN_KEY_ROOM);
	const struct operation *op = m->operation;
	struct span name = {op->pin_key.ptr + path.len, op->pin_key.len - path.len};
	struct ledger_entry entry;
	if (!span_starts(op->pin_key, path) || !route_parameter(m, name, &key))
		return request_may_have(r, op->pin_group);
	return request_ask(r, op->pin_group, buf_span(&key), &entry) != LEDGER_NONE;
}

bool request_may_follow(struct request *r)
{
	CLEANUP(buf_releasep) struct buf path = BUF_INIT(65536);
	struct route_match m;
	return r->http && plain_path(r->http->target, &path) &&
	       route_match(r->service->routes, r->http->method, buf_span(&path), &m) &&
	       request_follows(m.operation) && tidied_has_pin(r, &m);
}

/* Follow-up calls go where the first call went (rule 4). An entry exists only where that was the task side; a
 * call that has none for certain belongs to legacy, whatever the flag says by now. */
enum decide_wish request_pin_of(struct request *r, struct ledger_entry *entry)
{
	CLEANUP(buf_releasep) struct buf key = BUF_INIT(PIN_KEY_ROOM);
	switch (request_pin_key(r, &key)) {
	case PIN_KEY_NONE:
		return WISH_LEGACY;
	case PIN_KEY_FOUND:
		break;
	case PIN_KEY_MALFORMED:
	case PIN_KEY_UNREADABLE:
	case PIN_KEY_AMBIGUOUS:
		return request_may_have(r, r->op->pin_group) ? WISH_UNKNOWN : WISH_LEGACY;
	}
	switch (request_ask(r, r->op->pin_group, buf_span(&key), entry)) {
	case LEDGER_NONE:
		return request_may_follow(r) ? WISH_UNKNOWN : WISH_LEGACY;
	case LEDGER_FOUND:
		r->pin_version = entry->created_us;
		return WISH_TASK;
	case LEDGER_UNKNOWN:
		break;
	}
	return WISH_UNKNOWN;
}

/* A start of a name that may be pinned: legacy would have it, and follow-up calls would continue to the task
 * side. */
static void refuse_start(struct request *r)
{
	if (!r->attempting)
		request_begin(r, OUTCOME_LEGACY, r->legacy_role, SPAN_NONE);
	r->decision.reason = REASON_PIN_UNKNOWN;
	if (request_pin_key_of(r) == PIN_KEY_MALFORMED)
		request_fail(r, OUTCOME_REJECTED, 400, "Malformed body", SIDE_IN_BODY);
	else
		request_refuse_for_now(r, OUTCOME_FAILURE, 503, "Side unknown", SIDE_UNKNOWN);
}

/* --- starts ------------------------------------------------------------------------------------------- */

void request_refuse_turn(struct request *r)
{
	r->decision.reason = REASON_REFUSED;
	request_key_release(r);
	request_refuse_for_now(
		r, OUTCOME_REJECTED, 409, "Being started",
		"Another call is starting the same name on another side; nothing was executed.");
}

static void on_key_taken(void *arg, int error)
{
	struct request *r = arg;
	bool waits = r->x && r->state == REQUEST_ASK;
	if (waits && error == -EBUSY) {
		if (!r->attempting)
			request_begin(r, OUTCOME_LEGACY, r->legacy_role, SPAN_NONE);
		request_refuse_turn(r);
	} else if (waits && error) {
		refuse_start(r);
	} else if (waits) {
		legacy_side_start(r, r->legacy_role);
	}
	request_unref(r);
}

/* A name that is used anew on legacy belongs to legacy, also when its end on the task side was never seen:
 * what the ledger has of it goes first. */
static void take_key(struct request *r)
{
	struct ledger_entry entry = {0};
	buf_release(&r->pin_key);
	buf_init(&r->pin_key, PIN_KEY_ROOM);
	enum pin_key found = request_pin_key(r, &r->pin_key);
	bool known = found == PIN_KEY_FOUND &&
		     ledger_entry_set(&entry, r->op->pin_group, buf_span(&r->pin_key)) == 0;
	bool may_have =
		found != PIN_KEY_FOUND && found != PIN_KEY_NONE && request_may_have(r, r->op->pin_group);
	if (request_waits(r, take_key))
		return;
	if (known) {
		r->state = REQUEST_ASK;
		request_ref(r);
		ledger_take(r->plane->env->ledger, r->plane->loop, &entry, request_turn(r), on_key_taken, r);
	} else if (may_have) {
		refuse_start(r);
	} else {
		legacy_side_start(r, r->legacy_role);
	}
}

static void start_claimed(struct request *r)
{
	if (!request_has_pin(r->op) || !r->op->pin_start) {
		legacy_side_start(r, r->legacy_role);
		return;
	}
	request_forget_answers(r);
	take_key(r);
}

void request_start_legacy(struct request *r, enum outcome_role role)
{
	r->legacy_role = role;
	if (r->key && !r->key->on_legacy)
		request_key_claim_legacy(r, start_claimed);
	else
		start_claimed(r);
}
