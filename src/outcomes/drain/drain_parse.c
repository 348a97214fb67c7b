/* A drain as another router tells it: the inverse of drain_to_json. What it judged is judged here again. */
#include "outcomes/drain/drain_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/text.h"
#include "outcomes/when.h"

#define HELD_MAX 1000

static uint64_t parse_count(const struct json_node *object, const char *name)
{
	double d;
	return json_number(json_get(object, name), &d) && d >= 0 && d < 9e15 ? (uint64_t)d : 0;
}

static int64_t parse_time(const struct json_node *object, const char *name)
{
	const char *text = json_string(json_get(object, name));
	int64_t us;
	return text && when_parse(text, 0, &us) ? us : 0;
}

static const char *parse_text(const struct json_node *object, const char *name)
{
	const char *text = json_string(json_get(object, name));
	return text ? text : "";
}

static void parse_copy(const struct json_node *object, const char *name, char *to, size_t size)
{
	text_copy(span_of(parse_text(object, name)), to, size);
}

static uint8_t parse_word(int parsed, int otherwise)
{
	return (uint8_t)(parsed < 0 ? otherwise : parsed);
}

static void parse_last(const struct json_node *last, const char *service, struct drain_last *ret)
{
	bool exact;
	if (json_node_type(last) != JSON_OBJECT)
		return;
	ret->time_us = parse_time(last, "time");
	text_copy(span_of(service), ret->service, sizeof(ret->service));
	parse_copy(last, "operation", ret->operation, sizeof(ret->operation));
	parse_copy(last, "organization", ret->organization, sizeof(ret->organization));
	parse_copy(last, "backend", ret->backend, sizeof(ret->backend));
	ret->reason = parse_word(outcome_reason_parse(span_of(parse_text(last, "reason"))), REASON_OTHER);
	ret->role = parse_word(outcome_role_parse(span_of(parse_text(last, "role"))), OUTCOME_PRIMARY);
	ret->result = parse_word(outcome_result_parse(span_of(parse_text(last, "result"))), OUTCOME_UNKNOWN);
	ret->exact = json_bool(json_get(last, "exact"), &exact) && exact;
}

static void parse_reasons(const struct json_node *object, const char *name, uint64_t to[REASON_COUNT])
{
	const struct json_node *counts = json_get(object, name);
	for (const struct json_node *one = json_first(counts); one; one = json_next(one)) {
		double d;
		int reason = outcome_reason_parse(span_of(json_key(one) ? json_key(one) : ""));
		if (json_number(one, &d) && d >= 0 && d < 9e15)
			to[reason < 0 ? REASON_OTHER : reason] += (uint64_t)d;
	}
}

static int parse_operation(struct drain *d, const char *service, const struct json_node *object,
			   struct err *e)
{
	struct drain_last like = {.time_us = 0};
	struct drain_operation *op;
	text_copy(span_of(service), like.service, sizeof(like.service));
	parse_copy(object, "operation", like.operation, sizeof(like.operation));
	int r = drain_add_operation(d, &like, &op, e);
	if (r < 0)
		return r;
	parse_last(json_get(object, "last"), service, &op->last);
	op->uses = parse_count(object, "uses");
	op->others = parse_count(object, "uses_of_other_side");
	op->shadows = parse_count(object, "shadows");
	op->fallbacks = parse_count(object, "fallbacks");
	parse_reasons(object, "reasons", op->reasons);
	parse_reasons(object, "fallback_reasons", op->fallback_reasons);
	for (int i = 0; i < OUTCOME_RESULT_COUNT; i++)
		op->gave_up[i] = parse_count(json_get(object, "task_gave_up"),
					     outcome_result_text((enum outcome_result)i));
	return 0;
}

static int parse_pattern(struct unmapped_table *t, const char *service, const struct json_node *object)
{
	struct unmapped_pattern p = {.count = parse_count(object, "count"),
				     .not_found = parse_count(object, "not_found"),
				     .last_us = parse_time(object, "last"),
				     .last_found_us = parse_time(object, "last_found")};
	text_copy(span_of(service), p.service, sizeof(p.service));
	parse_copy(object, "method", p.method, sizeof(p.method));
	parse_copy(object, "pattern", p.pattern, sizeof(p.pattern));
	t->fresh = 0;
	return unmapped_add(t, &p);
}

static int parse_service(struct drain *d, struct unmapped_table *t, const struct json_node *object,
			 struct err *e)
{
	const char *service = parse_text(object, "service");
	int r = 0;
	for (const struct json_node *one = json_first(json_get(object, "operations")); r == 0 && one;
	     one = json_next(one))
		r = parse_operation(d, service, one, e);
	for (const struct json_node *one = json_first(json_get(object, "unmapped")); r == 0 && one;
	     one = json_next(one))
		if (parse_pattern(t, service, one) < 0)
			r = err_set(e, -ENOMEM, "out of memory");
	return r;
}

static void parse_records(struct drain *d, const struct json_node *records)
{
	bool patterns;
	d->records_us = parse_time(records, "since");
	d->dropped = parse_count(records, "dropped");
	d->knows_patterns = json_bool(json_get(records, "patterns"), &patterns) && patterns;
	d->gap_us = (int64_t)parse_count(records, "gap_seconds") * 1000000;
	for (const struct json_node *one = json_first(json_get(records, "gaps"));
	     one && d->n_gaps < DRAIN_GAPS_MAX; one = json_next(one))
		d->gaps[d->n_gaps++] = (struct drain_gap){parse_time(one, "from"), parse_time(one, "to")};
}

static int parse_held(struct drain *d, const struct json_node *ledger, struct err *e)
{
	const struct json_node *entries = json_get(ledger, "entries");
	size_t n = json_count(entries);
	d->options.held_error = NULL;
	d->options.held_store = NULL;
	d->options.held = NULL;
	d->options.n_held = 0;
	if (n > HELD_MAX)
		return err_set(e, -EPROTO, "more than %d kinds of entries", HELD_MAX);
	parse_copy(ledger, "error", d->own_error, sizeof(d->own_error));
	d->options.held_error = d->own_error[0] ? d->own_error : NULL;
	parse_copy(ledger, "store", d->own_store, sizeof(d->own_store));
	d->options.held_store = d->own_store;
	if (!n)
		return 0;
	d->own_held = calloc(n, sizeof(*d->own_held));
	if (!d->own_held)
		return err_set(e, -ENOMEM, "out of memory");
	for (const struct json_node *one = json_first(entries); one; one = json_next(one)) {
		struct drain_held *h = &d->own_held[d->options.n_held++];
		parse_copy(one, "what", h->what, sizeof(h->what));
		parse_copy(one, "backend", h->backend, sizeof(h->backend));
		h->count = parse_count(one, "count");
		h->oldest_us = parse_time(one, "oldest");
		h->newest_us = parse_time(one, "newest");
	}
	d->options.held = d->own_held;
	return 0;
}

static int drain_parse_all(struct drain *d, const struct json_node *root, struct err *e)
{
	struct unmapped_table unmapped = {.patterns = NULL};
	const struct json_node *services = json_get(root, "services"), *records = json_get(root, "records");
	double version = 0;
	json_number(json_get(root, "version"), &version);
	if (version != 1 || json_node_type(services) != JSON_ARRAY || json_node_type(records) != JSON_OBJECT)
		return err_set(e, -EPROTO, "it does not tell whether a side is used");
	if (outcome_side_parse(span_of(parse_text(root, "side"))) != (int)d->options.side)
		return err_set(e, -EPROTO, "it tells of the other side");
	d->since_us = parse_time(root, "since");
	parse_copy(root, "store", d->store, sizeof(d->store));
	parse_records(d, records);
	int r = parse_held(d, json_get(root, "ledger"), e);
	for (const struct json_node *one = json_first(services); r == 0 && one; one = json_next(one))
		r = parse_service(d, &unmapped, one, e);
	unmapped_compact(&unmapped);
	d->unmapped = unmapped.patterns;
	d->n_unmapped = unmapped.n;
	return r;
}

int drain_parse(const char *name, struct span json, const struct drain_options *o, struct drain **ret,
		struct err *e)
{
	CLEANUP(drain_freep) struct drain *d = calloc(1, sizeof(*d));
	struct json_doc *doc = NULL;
	if (!d)
		return err_set(e, -ENOMEM, "out of memory");
	d->options = *o;
	d->options.path = NULL;
	int r = json_doc_parse(json, &doc, e);
	if (r == 0)
		r = drain_parse_all(d, json_root(doc), e);
	json_doc_free(doc);
	if (r < 0)
		return err_prefix(e, r, "%s", name);
	*ret = steal(d);
	return 0;
}
