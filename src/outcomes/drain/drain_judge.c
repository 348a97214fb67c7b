#include "outcomes/drain/drain_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"

/* --- operations ----------------------------------------------------------------------------------------- */

static struct drain_operation *drain_operation_of(struct drain *d, const struct drain_last *like)
{
	for (size_t i = 0; i < d->n_operations; i++) {
		struct drain_operation *op = &d->operations[i];
		if (strcmp(op->operation, like->operation) == 0 && strcmp(op->service, like->service) == 0)
			return op;
	}
	return NULL;
}

int drain_add_operation(struct drain *d, const struct drain_last *like, struct drain_operation **ret,
			struct err *e)
{
	*ret = drain_operation_of(d, like);
	if (*ret)
		return 0;
	if (d->n_operations == DRAIN_OPERATIONS_MAX)
		return err_set(e, -E2BIG, "%s: more than %d operations; filter by service",
			       d->options.path ? d->options.path : "all together", DRAIN_OPERATIONS_MAX);
	struct drain_operation *grown = reallocarray(d->operations, d->n_operations + 1, sizeof(*grown));
	if (!grown)
		return err_set(e, -ENOMEM, "out of memory");
	d->operations = grown;
	*ret = &grown[d->n_operations++];
	memset(*ret, 0, sizeof(**ret));
	memcpy((*ret)->service, like->service, sizeof(like->service));
	memcpy((*ret)->operation, like->operation, sizeof(like->operation));
	return 0;
}

static int drain_compare_operations(const void *a, const void *b)
{
	const struct drain_operation *x = a, *y = b;
	int r = strcmp(x->service, y->service);
	return r ? r : strcmp(x->operation, y->operation);
}

static int drain_compare_patterns(const void *a, const void *b)
{
	const struct unmapped_pattern *x = a, *y = b;
	int r = strcmp(x->service, y->service);
	if (r)
		return r;
	if (x->last_us != y->last_us)
		return x->last_us < y->last_us ? 1 : -1;
	r = strcmp(x->pattern, y->pattern);
	return r ? r : strcmp(x->method, y->method);
}

/* --- verdicts ------------------------------------------------------------------------------------------- */

void drain_span_text(int64_t us, char *out, size_t size)
{
	static const struct {
		int64_t us;
		const char *name;
	} units[] = {{86400000000LL, "day"},
		     {3600000000LL, "hour"},
		     {60000000LL, "minute"},
		     {1000000LL, "second"}};
	size_t i = 0;
	if (us < 0)
		us = 0;
	while (i < 3 && us < 2 * units[i].us && us != units[i].us)
		i++;
	int64_t n = (us + units[i].us / 2) / units[i].us;
	snprintf(out, size, "%" PRId64 " %s%s", n, units[i].name, n == 1 ? "" : "s");
}

static const char *drain_side_text(const struct drain *d)
{
	return outcome_side_text(d->options.side);
}

/* Whether this is a use that someone would miss: of unmapped calls only what legacy knows. */
static bool drain_pattern_is_missed(const struct drain *d, const struct unmapped_pattern *p)
{
	return p->last_found_us >= d->since_us;
}

/* The uses of unmapped calls, where patterns tell more than sums. */
static bool drain_unmapped_is_missed(const struct drain *d, const struct drain_service *s,
				     const struct drain_operation *op)
{
	uint64_t told = 0;
	for (size_t i = 0; i < s->n_patterns; i++) {
		const struct unmapped_pattern *p = &d->unmapped[s->first_pattern + i];
		if (drain_pattern_is_missed(d, p))
			return true;
		told += p->count;
	}
	return told < op->uses; /* an older program recorded some, without their patterns */
}

static bool drain_operation_is_used(const struct drain *d, const struct drain_service *s,
				    const struct drain_operation *op)
{
	if (op->uses == 0)
		return false;
	return strcmp(op->operation, DRAIN_UNMAPPED) != 0 || drain_unmapped_is_missed(d, s, op);
}

/* Whom a sentence is about: the service, or the one operation that was asked for. */
static void drain_label(const struct drain *d, const char *service, char out[128])
{
	const char *operation = d->options.operation;
	size_t n = strlen(service);
	if (!operation)
		snprintf(out, 128, "%s", service);
	else if (strncmp(operation, service, n) == 0 && operation[n] == '.')
		snprintf(out, 128, "%s", operation);
	else
		snprintf(out, 128, "%s %s", service, operation);
}

static void drain_say_used(const struct drain *d, struct drain_service *s)
{
	char ago[32], who[96] = "", label[128];
	const struct drain_last *l = &s->last;
	drain_label(d, s->name, label);
	drain_span_text(d->options.now_us - l->time_us, ago, sizeof(ago));
	if (*l->organization)
		snprintf(who, sizeof(who), " by organization %s", l->organization);
	snprintf(s->sentence, sizeof(s->sentence),
		 "%s %s is still used: %" PRIu64 " time%s, last %s ago%s (%s, reason %s%s)",
		 drain_side_text(d), label, s->uses, s->uses == 1 ? "" : "s", ago, who, l->operation,
		 outcome_reason_text(l->reason), l->role == OUTCOME_FALLBACK ? ", fell back" : "");
}

static void drain_say_unknown(const struct drain *d, const char *name, const char *why, char *out)
{
	snprintf(out, DRAIN_SENTENCE_MAX, "not enough data for %s%s%s: %s", drain_side_text(d),
		 *name ? " " : "", name, why);
}

/* What keeps "nothing was recorded" from meaning "nothing was there"; false when nothing does. */
bool drain_lacks(const struct drain *d, char why[256])
{
	char a[32], b[32];
	if (d->merged) {
		memcpy(why, d->lacks, sizeof(d->lacks));
		return d->lacks[0];
	}
	if (!d->records_us) {
		snprintf(why, 256, "nothing was ever recorded");
		return true;
	}
	if (d->records_us > d->since_us) {
		drain_span_text(d->options.now_us - d->records_us, a, sizeof(a));
		drain_span_text(d->options.now_us - d->since_us, b, sizeof(b));
		snprintf(why, 256, "records reach back only %s, %s are required", a, b);
		return true;
	}
	if (d->dropped) {
		snprintf(why, 256,
			 "%" PRIu64 " outcome%s dropped in this span: they may have belonged to this side",
			 d->dropped, d->dropped == 1 ? " was" : "s were");
		return true;
	}
	if (d->gap_us > d->options.max_gap_us) {
		drain_span_text(d->gap_us, a, sizeof(a));
		drain_span_text(d->options.max_gap_us, b, sizeof(b));
		snprintf(why, 256, "for %s of this span no router recorded (--max-gap %s)", a, b);
		return true;
	}
	return false;
}

/* Calls that legacy does not know: no use, but whoever switches it off should have seen them. */
static uint64_t drain_not_found(const struct drain *d, const struct drain_service *s)
{
	uint64_t n = 0;
	for (size_t i = 0; d->options.side == OUTCOME_LEGACY && i < s->n_patterns; i++)
		n += d->unmapped[s->first_pattern + i].not_found;
	return n;
}

static void drain_judge_service(const struct drain *d, struct drain_service *s)
{
	char why[256], span[32], label[128];
	drain_span_text(d->options.now_us - d->since_us, span, sizeof(span));
	drain_label(d, s->name, label);
	if (s->verdict == DRAIN_USED) {
		drain_say_used(d, s);
		return;
	}
	s->verdict = DRAIN_NOT_ENOUGH_DATA;
	if (drain_lacks(d, why)) {
		drain_say_unknown(d, label, why, s->sentence);
		return;
	}
	if (!s->others && !d->options.idle_ok) {
		snprintf(why, sizeof(why),
			 "for %s no call of it has passed the router, to either side: "
			 "do its callers still come here? (--idle-ok)",
			 span);
		drain_say_unknown(d, label, why, s->sentence);
		return;
	}
	s->verdict = DRAIN_DRAINED;
	uint64_t unknown = drain_not_found(d, s);
	int n = snprintf(s->sentence, sizeof(s->sentence), "nothing has used %s %s for %s",
			 drain_side_text(d), label, span);
	if (unknown && n > 0 && (size_t)n < sizeof(s->sentence))
		snprintf(s->sentence + n, sizeof(s->sentence) - (size_t)n,
			 ", except for %" PRIu64 " call%s to unmapped paths that it answered with 404",
			 unknown, unknown == 1 ? "" : "s");
}

enum drain_verdict drain_judge_operation(const struct drain *d, const struct drain_operation *op)
{
	char why[256];
	if (op->uses)
		return DRAIN_USED;
	return drain_lacks(d, why) || (!op->others && !d->options.idle_ok) ? DRAIN_NOT_ENOUGH_DATA
									   : DRAIN_DRAINED;
}

static struct drain_service *drain_service_of(struct drain *d, const char *name, struct err *e)
{
	struct drain_service *last = d->n_services ? &d->services[d->n_services - 1] : NULL;
	if (last && strcmp(last->name, name) == 0)
		return last;
	struct drain_service *grown = reallocarray(d->services, d->n_services + 1, sizeof(*grown));
	if (!grown) {
		err_set(e, -ENOMEM, "out of memory");
		return NULL;
	}
	d->services = grown;
	last = &grown[d->n_services++];
	*last = (struct drain_service){.verdict = DRAIN_DRAINED};
	text_copy(span_of(name), last->name, sizeof(last->name));
	return last;
}

static void drain_find_patterns(const struct drain *d, struct drain_service *s)
{
	while (s->first_pattern < d->n_unmapped &&
	       strcmp(d->unmapped[s->first_pattern].service, s->name) != 0)
		s->first_pattern++;
	while (s->first_pattern + s->n_patterns < d->n_unmapped &&
	       strcmp(d->unmapped[s->first_pattern + s->n_patterns].service, s->name) == 0)
		s->n_patterns++;
}

static int drain_group(struct drain *d, struct err *e)
{
	for (size_t i = 0; i < d->n_operations; i++) {
		const struct drain_operation *op = &d->operations[i];
		struct drain_service *s = drain_service_of(d, op->service, e);
		if (!s)
			return -ENOMEM;
		if (s->n++ == 0) {
			s->first = i;
			drain_find_patterns(d, s);
		}
		/* Calls that legacy does not know go past both sides. */
		bool used = drain_operation_is_used(d, s, op);
		s->others += used ? op->others : op->others + op->uses;
		if (!used)
			continue;
		s->verdict = DRAIN_USED;
		s->uses += op->uses;
		if (op->last.time_us > s->last.time_us)
			s->last = op->last;
	}
	for (size_t i = 0; i < d->n_services; i++)
		drain_judge_service(d, &d->services[i]);
	return 0;
}

/* What is left there though nobody has called. */
static void drain_judge_held(struct drain *d)
{
	const struct drain_options *o = &d->options;
	uint64_t n = 0;
	for (size_t i = 0; i < o->n_held; i++)
		n += o->held[i].count;
	if (n && d->verdict != DRAIN_USED) {
		d->verdict = DRAIN_USED;
		snprintf(d->sentence, sizeof(d->sentence),
			 "%s is still needed: it has %" PRIu64 " entr%s that later calls may ask for (%s)",
			 drain_side_text(d), n, n == 1 ? "y" : "ies", o->held[0].what);
	} else if (o->held_error && d->verdict == DRAIN_DRAINED) {
		d->verdict = DRAIN_NOT_ENOUGH_DATA;
		drain_say_unknown(d, "", o->held_error, d->sentence);
	}
}

static void drain_judge(struct drain *d)
{
	size_t used = 0, unknown = 0;
	const struct drain_service *worst = NULL;
	char span[32], why[256];
	for (size_t i = 0; i < d->n_services; i++) {
		const struct drain_service *s = &d->services[i];
		used += s->verdict == DRAIN_USED;
		unknown += s->verdict == DRAIN_NOT_ENOUGH_DATA;
		if (!worst || (s->verdict == DRAIN_USED && worst->verdict != DRAIN_USED) ||
		    (s->verdict == DRAIN_NOT_ENOUGH_DATA && worst->verdict == DRAIN_DRAINED))
			worst = s;
	}
	d->verdict = worst ? worst->verdict : DRAIN_NOT_ENOUGH_DATA;
	drain_span_text(d->options.now_us - d->since_us, span, sizeof(span));
	if (!worst) {
		snprintf(why, sizeof(why), "nothing was ever recorded of %s%s",
			 d->options.service ? "service " : "any service",
			 d->options.service ? d->options.service : "");
		drain_say_unknown(d, "", why, d->sentence);
	} else if (d->n_services == 1) {
		memcpy(d->sentence, worst->sentence, sizeof(d->sentence));
	} else if (used || unknown) {
		snprintf(d->sentence, sizeof(d->sentence), "%s: %zu of %zu services; %.300s",
			 used ? "still used" : "not enough data", used ? used : unknown, d->n_services,
			 worst->sentence);
	} else {
		snprintf(d->sentence, sizeof(d->sentence), "nothing has used %s of %zu services for %s",
			 drain_side_text(d), d->n_services, span);
	}
	drain_judge_held(d);
}

/* --- all ------------------------------------------------------------------------------------------------ */

int drain_conclude(struct drain *d, struct err *e)
{
	if (d->n_operations)
		qsort(d->operations, d->n_operations, sizeof(*d->operations), drain_compare_operations);
	if (d->n_unmapped)
		qsort(d->unmapped, d->n_unmapped, sizeof(*d->unmapped), drain_compare_patterns);
	int r = drain_group(d, e);
	if (r == 0)
		drain_judge(d);
	return r;
}

const char *drain_verdict_text(enum drain_verdict v)
{
	switch (v) {
	case DRAIN_DRAINED:
		return "drained";
	case DRAIN_USED:
		return "used";
	case DRAIN_NOT_ENOUGH_DATA:
		return "not enough data";
	}
	return "?";
}
