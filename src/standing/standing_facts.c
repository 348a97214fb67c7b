/* Facts as JSON and back: what one process writes and others, also of another version, read. */
#include <errno.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/text.h"
#include "standing/standing.h"

enum fact_type { FACT_TEXT, FACT_BOOL, FACT_TIME, FACT_COUNT, FACT_UNSIGNED, FACT_NUMBER, FACT_WORD };

/* One member of a struct and of its JSON object. A WORD is an enumeration, by the text of its value. */
struct fact {
	const char *name;
	enum fact_type type;
	size_t offset, size;
	const char *(*word)(int value);
	int n_words;
};

#define FACT(type, of, member) #member, type, offsetof(struct of, member), sizeof(((struct of *)0)->member)
#define TEXT_OF(of, member) \
	{ \
		FACT(FACT_TEXT, of, member), NULL, 0 \
	}
#define BOOL_OF(of, member) \
	{ \
		FACT(FACT_BOOL, of, member), NULL, 0 \
	}
#define TIME_OF(of, member) \
	{ \
		FACT(FACT_TIME, of, member), NULL, 0 \
	}
#define COUNT_OF(of, member) \
	{ \
		FACT(FACT_COUNT, of, member), NULL, 0 \
	}
#define UNSIGNED_OF(of, member) \
	{ \
		FACT(FACT_UNSIGNED, of, member), NULL, 0 \
	}
#define NUMBER_OF(of, member) \
	{ \
		FACT(FACT_NUMBER, of, member), NULL, 0 \
	}
#define FACTS_N(a) (sizeof(a) / sizeof((a)[0]))

static const char *word_of_mode(int value)
{
	return guard_mode_text((enum guard_mode)value);
}

static const char *word_of_verdict(int value)
{
	return guard_verdict_text((enum guard_verdict)value);
}

static const struct fact of_flags[] = {
	TEXT_OF(standing_flags, source),	   TEXT_OF(standing_flags, where),
	TEXT_OF(standing_flags, digest),	   TEXT_OF(standing_flags, version),
	BOOL_OF(standing_flags, loaded),	   BOOL_OF(standing_flags, failing),
	BOOL_OF(standing_flags, unsaved),	   UNSIGNED_OF(standing_flags, broken),
	UNSIGNED_OF(standing_flags, vanished),	   TEXT_OF(standing_flags, broken_name),
	TEXT_OF(standing_flags, vanished_name),	   TIME_OF(standing_flags, confirmed_us),
	TIME_OF(standing_flags, failing_since_us), TEXT_OF(standing_flags, last_error)};

static const struct fact of_backend[] = {
	TEXT_OF(standing_backend, name),	BOOL_OF(standing_backend, known),
	BOOL_OF(standing_backend, reachable),	BOOL_OF(standing_backend, worker),
	TIME_OF(standing_backend, backlog),	TIME_OF(standing_backend, backlog_floor),
	TIME_OF(standing_backend, since_us),	TEXT_OF(standing_backend, detail),
	TEXT_OF(standing_backend, breaker),	TIME_OF(standing_backend, breaker_since_us),
	TEXT_OF(standing_backend, breaker_why), UNSIGNED_OF(standing_backend, in_flight)};

static const struct fact of_legacy[] = {
	TEXT_OF(standing_legacy, service),	BOOL_OF(standing_legacy, known),
	BOOL_OF(standing_legacy, reachable),	TEXT_OF(standing_legacy, failing),
	TIME_OF(standing_legacy, since_us),	COUNT_OF(standing_legacy, errors),
	NUMBER_OF(standing_legacy, per_minute), TEXT_OF(standing_legacy, address)};

static const struct fact of_store[] = {BOOL_OF(standing_store, failing), TIME_OF(standing_store, since_us),
				       TEXT_OF(standing_store, where), TEXT_OF(standing_store, last_error)};

static const struct fact of_segment[] = {TEXT_OF(standing_segment, name),
					 NUMBER_OF(standing_segment, percent)};

static const struct fact of_operation[] = {
	TEXT_OF(standing_operation_facts, service),
	TEXT_OF(standing_operation_facts, operation),
	TEXT_OF(standing_operation_facts, flag),
	TEXT_OF(standing_operation_facts, backend),
	NUMBER_OF(standing_operation_facts, set),
	NUMBER_OF(standing_operation_facts, shadow),
	TIME_OF(standing_operation_facts, set_since_us),
	TEXT_OF(standing_operation_facts, stage),
	TEXT_OF(standing_operation_facts, phase),
	NUMBER_OF(standing_operation_facts, next),
	TEXT_OF(standing_operation_facts, not_ready),
	TIME_OF(standing_operation_facts, not_ready_since_us),
	{FACT(FACT_WORD, standing_operation_facts, guard_mode), word_of_mode, GUARD_MODE_COUNT},
	{FACT(FACT_WORD, standing_operation_facts, guard), word_of_verdict, GUARD_VERDICT_COUNT},
	BOOL_OF(standing_operation_facts, guard_judged),
	BOOL_OF(standing_operation_facts, held),
	TIME_OF(standing_operation_facts, held_us),
	TEXT_OF(standing_operation_facts, guard_why)};

static const struct fact of_all[] = {
	TEXT_OF(standing_facts, config),	TEXT_OF(standing_facts, admin),
	BOOL_OF(standing_facts, guard_known),	TEXT_OF(standing_facts, guard_trouble),
	TEXT_OF(standing_facts, state_warning), TEXT_OF(standing_facts, router),
	TEXT_OF(standing_facts, version),	TIME_OF(standing_facts, time_us),
	TIME_OF(standing_facts, started_us),	BOOL_OF(standing_facts, stopped),
	BOOL_OF(standing_facts, draining),	BOOL_OF(standing_facts, accepting),
	COUNT_OF(standing_facts, dropped)};

/* --- life ----------------------------------------------------------------------------------------------- */

int standing_facts_new(size_t n_operations, struct standing_facts **ret)
{
	if (n_operations > STANDING_OPERATIONS_MAX)
		return -E2BIG;
	struct standing_facts *f = calloc(1, sizeof(*f));
	if (!f)
		return -ENOMEM;
	f->operations = calloc(n_operations + 1, sizeof(*f->operations));
	if (!f->operations) {
		free(f);
		return -ENOMEM;
	}
	f->accepting = true;
	*ret = f;
	return 0;
}

struct standing_facts *standing_facts_free(struct standing_facts *f)
{
	if (f)
		free(f->operations);
	free(f);
	return NULL;
}

/* --- writing -------------------------------------------------------------------------------------------- */

static void put_fact(struct buf *out, const struct fact *f, const void *of)
{
	const char *at = (const char *)of + f->offset;
	buf_printf(out, "\"%s\":", f->name);
	switch (f->type) {
	case FACT_TEXT:
		json_quote(out, span_of(at));
		break;
	case FACT_BOOL:
		buf_puts(out, *(const bool *)at ? "true" : "false");
		break;
	case FACT_TIME:
		buf_printf(out, "%lld", (long long)*(const int64_t *)at);
		break;
	case FACT_COUNT:
		buf_printf(out, "%llu", (unsigned long long)*(const uint64_t *)at);
		break;
	case FACT_UNSIGNED:
		buf_printf(out, "%u", *(const unsigned *)at);
		break;
	case FACT_NUMBER:
		buf_printf(out, "%.9g", *(const double *)at);
		break;
	case FACT_WORD:
		json_quote(out, span_of(f->word(*(const int *)at)));
		break;
	}
}

/* The members, without braces: lists follow in some. */
static void put_facts(struct buf *out, const struct fact *facts, size_t n, const void *of)
{
	for (size_t i = 0; i < n; i++) {
		buf_puts(out, i ? "," : "");
		put_fact(out, &facts[i], of);
	}
}

static void put_object(struct buf *out, const char *name, const struct fact *facts, size_t n, const void *of)
{
	buf_printf(out, ",\"%s\":{", name);
	put_facts(out, facts, n, of);
	buf_putc(out, '}');
}

static void put_list(struct buf *out, const char *name, const struct fact *facts, size_t n, const void *list,
		     size_t count, size_t size)
{
	buf_printf(out, ",\"%s\":[", name);
	for (size_t i = 0; i < count; i++) {
		buf_puts(out, i ? ",{" : "{");
		put_facts(out, facts, n, (const char *)list + i * size);
		buf_putc(out, '}');
	}
	buf_putc(out, ']');
}

static void put_operation_facts(struct buf *out, const struct standing_operation_facts *o)
{
	put_facts(out, of_operation, FACTS_N(of_operation), o);
	put_list(out, "segments", of_segment, FACTS_N(of_segment), o->segments, o->n_segments,
		 sizeof(o->segments[0]));
}

int standing_facts_to_json(const struct standing_facts *f, struct buf *out)
{
	buf_printf(out, "{\"facts_version\":%d,", STANDING_VERSION);
	put_facts(out, of_all, FACTS_N(of_all), f);
	buf_printf(out, ",\"without_task\":%zu", f->without_task);
	put_object(out, "flags", of_flags, FACTS_N(of_flags), &f->flags);
	put_object(out, "recorder", of_store, FACTS_N(of_store), &f->recorder);
	put_object(out, "state", of_store, FACTS_N(of_store), &f->state);
	put_object(out, "keys", of_store, FACTS_N(of_store), &f->keys);
	put_list(out, "backends", of_backend, FACTS_N(of_backend), f->backends, f->n_backends,
		 sizeof(f->backends[0]));
	put_list(out, "legacy", of_legacy, FACTS_N(of_legacy), f->legacy, f->n_legacy, sizeof(f->legacy[0]));
	buf_puts(out, ",\"operations\":[");
	for (size_t i = 0; i < f->n_operations; i++) {
		buf_puts(out, i ? ",{" : "{");
		put_operation_facts(out, &f->operations[i]);
		buf_putc(out, '}');
	}
	buf_puts(out, "]}");
	return out->error;
}

/* --- reading -------------------------------------------------------------------------------------------- */

static double fact_number(const struct json_node *n, double least, double most)
{
	double d;
	if (!json_number(n, &d) || !(d >= least))
		return least;
	return d > most ? most : d;
}

static int fact_word(const struct fact *f, const struct json_node *n)
{
	const char *text = json_string(n);
	for (int i = 0; text && i < f->n_words; i++)
		if (strcmp(text, f->word(i)) == 0)
			return i;
	return 0;
}

/* A member that is missing leaves what is there. Times fit a double to the microsecond for centuries. */
static void take_fact(const struct json_node *object, const struct fact *f, void *of)
{
	char *at = (char *)of + f->offset;
	const struct json_node *n = json_get(object, f->name);
	bool b;
	if (!n)
		return;
	switch (f->type) {
	case FACT_TEXT:
		text_copy(span_of(json_string(n) ? json_string(n) : ""), at, f->size);
		break;
	case FACT_BOOL:
		*(bool *)at = json_bool(n, &b) && b;
		break;
	case FACT_TIME:
		*(int64_t *)at = (int64_t)fact_number(n, -1, 9e15);
		break;
	case FACT_COUNT:
		*(uint64_t *)at = (uint64_t)fact_number(n, 0, 9e15);
		break;
	case FACT_UNSIGNED:
		*(unsigned *)at = (unsigned)fact_number(n, 0, 4e9);
		break;
	case FACT_NUMBER:
		*(double *)at = fact_number(n, STANDING_NOT_SET, 1e12);
		break;
	case FACT_WORD:
		*(int *)at = fact_word(f, n);
		break;
	}
}

static void take_facts(const struct json_node *object, const struct fact *facts, size_t n, void *of)
{
	for (size_t i = 0; i < n; i++)
		take_fact(object, &facts[i], of);
}

static size_t take_list(const struct json_node *list, const struct fact *facts, size_t n, void *into,
			size_t max, size_t size)
{
	size_t count = 0;
	for (const struct json_node *one = json_first(list); one && count < max; one = json_next(one))
		take_facts(one, facts, n, (char *)into + size * count++);
	return count;
}

static void take_operation_facts(const struct json_node *n, struct standing_operation_facts *o)
{
	o->set = o->next = STANDING_NOT_SET;
	take_facts(n, of_operation, FACTS_N(of_operation), o);
	o->n_segments = take_list(json_get(n, "segments"), of_segment, FACTS_N(of_segment), o->segments,
				  STANDING_SEGMENTS_MAX, sizeof(o->segments[0]));
}

static void take_all(const struct json_node *root, struct standing_facts *f)
{
	take_facts(root, of_all, FACTS_N(of_all), f);
	f->without_task = (size_t)fact_number(json_get(root, "without_task"), 0, 1e6);
	take_facts(json_get(root, "flags"), of_flags, FACTS_N(of_flags), &f->flags);
	take_facts(json_get(root, "recorder"), of_store, FACTS_N(of_store), &f->recorder);
	take_facts(json_get(root, "state"), of_store, FACTS_N(of_store), &f->state);
	take_facts(json_get(root, "keys"), of_store, FACTS_N(of_store), &f->keys);
	f->n_backends = take_list(json_get(root, "backends"), of_backend, FACTS_N(of_backend), f->backends,
				  STANDING_BACKENDS_MAX, sizeof(f->backends[0]));
	f->n_legacy = take_list(json_get(root, "legacy"), of_legacy, FACTS_N(of_legacy), f->legacy,
				STANDING_SERVICES_MAX, sizeof(f->legacy[0]));
	const struct json_node *list = json_get(root, "operations");
	for (const struct json_node *n = json_first(list); n; n = json_next(n))
		take_operation_facts(n, &f->operations[f->n_operations++]);
}

int standing_facts_parse(const char *name, struct span json, struct standing_facts **ret, struct err *e)
{
	struct json_doc *doc = NULL;
	struct standing_facts *f = NULL;
	double version;
	int r = json_doc_parse(json, &doc, e);
	if (r < 0)
		return err_prefix(e, -EPROTO, "%s: what the router reported", name);
	const struct json_node *root = json_root(doc);
	if (!json_number(json_get(root, "facts_version"), &version))
		r = err_set(e, -EPROTO, "%s: what the router reported is not understood", name);
	else
		r = standing_facts_new(json_count(json_get(root, "operations")), &f);
	if (r == -E2BIG || r == -ENOMEM)
		err_set(e, r, "%s: too many operations, or out of memory", name);
	if (r == 0)
		take_all(root, f);
	json_doc_free(doc);
	*ret = f;
	return r;
}
