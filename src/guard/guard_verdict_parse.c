/* Verdicts as another router tells them: the inverse of guard_verdict_to_json, as far as it is passed on. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/text.h"
#include "guard/guard_verdict.h"
#include "outcomes/when.h"

#define OPERATIONS_MAX 10000

static uint64_t guard_take_count(const struct json_node *object, const char *name)
{
	double d;
	const struct json_node *n = json_get(object, name);
	if (!json_number(n, &d))
		return GUARD_UNKNOWN;
	return d >= 0 && d < 9e15 ? (uint64_t)d : 0;
}

static double guard_take_number(const struct json_node *object, const char *name)
{
	double d;
	return json_number(json_get(object, name), &d) ? d : 0;
}

static bool guard_take_bool(const struct json_node *object, const char *name)
{
	bool b;
	return json_bool(json_get(object, name), &b) && b;
}

static int64_t guard_take_time(const struct json_node *object, const char *name)
{
	const char *text = json_string(json_get(object, name));
	int64_t us;
	return text && when_parse(text, 0, &us) ? us : 0;
}

static void guard_take_text(const struct json_node *object, const char *name, char *to, size_t size)
{
	text_copy(span_of(json_string(json_get(object, name))), to, size);
}

/* A word that is not known is a newer router's: it is no reason to go on. */
static enum guard_verdict guard_take_verdict(const struct json_node *object)
{
	const char *text = json_string(json_get(object, "verdict"));
	for (int i = 0; text && i < GUARD_VERDICT_COUNT; i++)
		if (strcmp(text, guard_verdict_text((enum guard_verdict)i)) == 0)
			return (enum guard_verdict)i;
	return GUARD_NOT_ENOUGH_DATA;
}

static enum guard_mode guard_take_mode(const struct json_node *object)
{
	const char *text = json_string(json_get(object, "mode"));
	for (int i = 0; text && i < GUARD_MODE_COUNT; i++)
		if (strcmp(text, guard_mode_text((enum guard_mode)i)) == 0)
			return (enum guard_mode)i;
	return GUARD_WATCH;
}

static void guard_take_sides(const struct json_node *object, uint64_t to[OUTCOME_SIDE_COUNT])
{
	to[OUTCOME_LEGACY] = guard_take_count(object, "legacy");
	to[OUTCOME_TASK] = guard_take_count(object, "task");
}

static void guard_take_kind(const struct json_node *object, struct guard_kind_verdict *k)
{
	k->judged = guard_take_bool(object, "judged");
	k->verdict = guard_take_verdict(object);
	guard_take_sides(json_get(object, "bad_entities"), k->bad);
	k->worse = guard_take_number(object, "evidence_worse");
	k->worse_needed = guard_take_number(object, "needed_worse");
	k->harmless = guard_take_number(object, "evidence_safe");
	k->harmless_needed = guard_take_number(object, "needed_safe");
	k->breached_us = guard_take_time(object, "breached");
	k->safe_us = guard_take_time(object, "safe_since");
	k->limit_us = (int64_t)guard_take_number(object, "limit_us");
}

static void guard_take_operation(const struct json_node *object, struct guard_operation_verdict *v)
{
	const struct json_node *share = json_get(object, "share"), *kinds = json_get(object, "kinds");
	*v = (struct guard_operation_verdict){.verdict = guard_take_verdict(object),
					      .mode = guard_take_mode(object),
					      .held = guard_take_bool(object, "held"),
					      .epoch = (int64_t)guard_take_number(object, "epoch"),
					      .began_us = guard_take_time(object, "began"),
					      .changed_us = guard_take_time(object, "changed"),
					      .held_us = guard_take_time(object, "held_since"),
					      .keeps = guard_take_number(object, "keeps_share"),
					      .missing_entities =
						      guard_take_count(object, "missing_entities"),
					      .missing_seconds = guard_take_count(object, "missing_seconds"),
					      .share = guard_take_number(share, "expected"),
					      .share_seen = guard_take_number(share, "seen"),
					      .share_mismatch = guard_take_bool(share, "mismatch")};
	guard_take_text(object, "service", v->service, sizeof(v->service));
	guard_take_text(object, "operation", v->operation, sizeof(v->operation));
	guard_take_text(object, "began_because", v->began_because, sizeof(v->began_because));
	if (json_string(json_get(object, "found_by")))
		guard_take_text(object, "found_by", v->found_by, sizeof(v->found_by));
	guard_take_text(share, "reason", v->share_reason, sizeof(v->share_reason));
	guard_take_sides(json_get(object, "entities"), v->entities);
	for (int k = 0; k < GUARD_KIND_COUNT; k++)
		guard_take_kind(json_get(kinds, guard_kind_text((enum guard_kind)k)), &v->kinds[k]);
}

static struct guard_verdicts *guard_verdicts_new(size_t n)
{
	struct guard_verdicts *v = calloc(1, sizeof(*v) + n * sizeof(v->operations[0]));
	if (v)
		v->n = n;
	return v;
}

int guard_verdicts_parse(const char *name, struct span json, struct guard_verdicts **ret, struct err *e)
{
	struct json_doc *doc = NULL;
	int r = json_doc_parse(json, &doc, e);
	if (r < 0)
		return err_prefix(e, r, "%s", name);
	const struct json_node *list = json_get(json_root(doc), "guard");
	size_t n = json_count(list), i = 0;
	if (json_node_type(list) != JSON_ARRAY || n > OPERATIONS_MAX)
		r = err_set(e, -EPROTO, "%s: does not report its guard's verdict", name);
	else if (!(*ret = guard_verdicts_new(n)))
		r = err_set(e, -ENOMEM, "out of memory");
	for (const struct json_node *one = json_first(list); r == 0 && one; one = json_next(one))
		guard_take_operation(one, &(*ret)->operations[i++]);
	json_doc_free(doc);
	return r;
}

static int compare_verdicts(const void *a, const void *b)
{
	const struct guard_operation_verdict *x = a, *y = b;
	int r = strcmp(x->service, y->service);
	if (r == 0)
		r = strcmp(x->operation, y->operation);
	return r ? r : (x->verdict < y->verdict) - (x->verdict > y->verdict);
}

int guard_verdicts_join(struct guard_verdicts *const *all, size_t n, struct guard_verdicts **ret)
{
	size_t total = 0;
	for (size_t i = 0; i < n; i++)
		total += all[i]->n;
	struct guard_verdicts *v = guard_verdicts_new(total);
	if (!v)
		return -ENOMEM;
	for (size_t i = 0, at = 0; i < n; at += all[i++]->n)
		memcpy(v->operations + at, all[i]->operations, all[i]->n * sizeof(v->operations[0]));
	qsort(v->operations, total, sizeof(v->operations[0]), compare_verdicts);
	*ret = v;
	return 0;
}
