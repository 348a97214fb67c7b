/* Of operations: what outcomes count, beside the percentage that is set. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "outcomes/outcome_metrics.h"
#include "programs/router/app_internal.h"
#include "programs/router/metrics/metrics.h"
#include "router/decide.h"

#define MINUTE_MS 60000
#define UNMAPPED "(unmapped)"

_Static_assert(OUTCOME_METRICS_BACKENDS == CONFIG_MAX_BACKENDS, "each backend of a configuration has room");

struct metrics {
	/* At the end of each of the last minutes, a ring. NULL: not yet */
	struct outcome_totals *minutes[METRICS_WINDOW_MINUTES];
	size_t next;
	int64_t next_ms; /* clock_mono_ms() */
};

int metrics_new(struct metrics **ret)
{
	*ret = calloc(1, sizeof(**ret));
	if (!*ret)
		return -ENOMEM;
	(*ret)->next_ms = clock_mono_ms() + MINUTE_MS;
	return 0;
}

struct metrics *metrics_free(struct metrics *m)
{
	for (size_t i = 0; m && i < METRICS_WINDOW_MINUTES; i++)
		free(m->minutes[i]);
	free(m);
	return NULL;
}

void metrics_look(struct app *a)
{
	struct metrics *m = a->metrics;
	int64_t now = clock_mono_ms();
	if (now < m->next_ms)
		return;
	struct outcome_totals *t = outcome_totals_now(a->recorder);
	if (!t) /* the minute before it lasts longer */
		return;
	free(m->minutes[m->next]);
	m->minutes[m->next] = t;
	m->next = (m->next + 1) % METRICS_WINDOW_MINUTES;
	m->next_ms = now + MINUTE_MS;
}

/* --- what there can be ---------------------------------------------------------------------------------- */

/* Names as outcomes have them. */
struct operation_names {
	char service[32], operation[64];
};

static bool has_pins(const struct operation *op)
{
	return op->has_task && op->pin_key.ptr;
}

static void expect_of(const struct app *a, const struct operation *op, struct span service,
		      struct operation_names *names, struct outcome_metrics_operation *ret)
{
	text_copy(service, names->service, sizeof(names->service));
	text_copy(op ? op->name : SPAN_LIT(UNMAPPED), names->operation, sizeof(names->operation));
	*ret = (struct outcome_metrics_operation){.service = names->service,
						  .operation = names->operation,
						  .has_task = op && op->has_task,
						  .has_pins = op && has_pins(op),
						  .may_shadow = op && op->safe_to_shadow,
						  .unmapped = !op};
	for (size_t i = 0; ret->has_task && i < a->env.n_backends; i++)
		if (task_mapping_names(&op->task, a->config->default_backend, a->env.backends[i].name))
			ret->backends[ret->n_backends++] = a->env.backends[i].name.ptr;
}

void metrics_put_operations(struct app *a, struct metric_text *out)
{
	const struct config *c = a->config;
	size_t n = c->n_services, at = 0;
	for (size_t i = 0; i < c->n_services; i++)
		n += c->services[i].n_operations;
	struct operation_names *names = calloc(n + 1, sizeof(*names));
	struct outcome_metrics_operation *all = calloc(n + 1, sizeof(*all));
	for (size_t i = 0; names && all && i < c->n_services; i++) {
		const struct service *s = &c->services[i];
		for (size_t j = 0; j < s->n_operations; j++, at++)
			expect_of(a, &s->operations[j], s->name, &names[at], &all[at]);
		expect_of(a, NULL, s->name, &names[at], &all[at]);
		at++;
	}
	if (outcome_metrics_render(a->recorder, all, at, out) < 0)
		log_warn("metrics_left_out", LOG_STR("error", "out of memory"));
	free(names);
	free(all);
}

/* --- the percentage ------------------------------------------------------------------------------------- */

/* Of those whom no segment names. */
static struct decide_input anybody(const struct app *a, const struct operation *op)
{
	struct decide_input in = {.config = a->config, .operation = op, .flags = a->flags};
	in.entity = SPAN_LIT("made-up-0");
	if (op->identity.n_entity && op->identity.entity[0] == IDENTITY_ORGANIZATION)
		in.organization = in.entity;
	else
		in.user = in.entity;
	return in;
}

/* The operation that says what the flag's variants mean. */
static const struct operation *user_of_flag(const struct config *c, struct span flag)
{
	for (size_t i = 0; i < c->n_services; i++)
		for (size_t j = 0; j < c->services[i].n_operations; j++) {
			const struct operation *op = &c->services[i].operations[j];
			for (size_t k = 0; k < op->n_flags; k++)
				if (span_eq(op->flags[k], flag))
					return op;
		}
	return NULL;
}

static void put_percents(const struct app *a, struct metric_text *out)
{
	struct app_used_flags u = app_flags_in_use(a->config);
	metric_begin(out, "migration_rollout_percent", METRIC_GAUGE,
		     "Percent of those whom no segment names that the flag sends to the task side.");
	for (size_t i = 0; i < u.n; i++) {
		const struct operation *op = user_of_flag(a->config, u.keys[i]);
		if (!op)
			continue;
		struct decide_input in = anybody(a, op);
		metric_value(out, 100 * decide_share_of_flag(&in, u.keys[i]),
			     METRIC_LABELS({"flag", u.keys[i]}));
	}
}

static double set_share(const struct app *a, const struct operation *op)
{
	struct decide_input in = anybody(a, op);
	double share = op->n_flags > 0;
	for (size_t i = 0; i < op->n_flags; i++)
		share *= decide_share_of_flag(&in, op->flags[i]);
	return share;
}

static double observed_share(const struct metrics *m, const struct outcome_totals *now,
			     const struct operation_names *of)
{
	/* the oldest; without it, all since the start is within the window */
	const struct outcome_total *was =
		outcome_totals_find(m->minutes[m->next], of->service, of->operation);
	const struct outcome_total *is = outcome_totals_find(now, of->service, of->operation);
	uint64_t sides[OUTCOME_SIDE_COUNT] = {0};
	for (int side = 0; is && side < OUTCOME_SIDE_COUNT; side++)
		sides[side] = is->answered[side] - (was ? was->answered[side] : 0);
	uint64_t all = sides[OUTCOME_LEGACY] + sides[OUTCOME_TASK];
	return all ? (double)sides[OUTCOME_TASK] / (double)all : NAN;
}

/* Of each operation that can move. */
static void put_shares_of(const struct app *a, struct metric_text *out, const struct outcome_totals *now)
{
	for (size_t i = 0; i < a->config->n_services; i++)
		for (size_t j = 0; j < a->config->services[i].n_operations; j++) {
			const struct operation *op = &a->config->services[i].operations[j];
			struct operation_names names;
			struct outcome_metrics_operation of;
			if (!op->has_task || op->n_flags == 0)
				continue;
			expect_of(a, op, op->service, &names, &of);
			metric_value(out, now ? observed_share(a->metrics, now, &names) : set_share(a, op),
				     METRIC_LABELS({"service", span_of(names.service)},
						   {"operation", span_of(names.operation)}));
		}
}

void metrics_put_shares(struct app *a, struct metric_text *out)
{
	struct outcome_totals *now = outcome_totals_now(a->recorder);
	put_percents(a, out);
	metric_begin(out, "migration_set_share", METRIC_GAUGE,
		     "Share of those whom no segment names that the operation's flags together send to the "
		     "task side.");
	put_shares_of(a, out, NULL);
	metric_begin(out, "migration_observed_share", METRIC_GAUGE,
		     "Share of the answers of the last 15 minutes that the task side gave. NaN: there were "
		     "none.");
	if (now)
		put_shares_of(a, out, now);
	free(now);
}

/* --- compared answers ----------------------------------------------------------------------------------- */

struct compared {
	struct operation_names names;
	struct pairs_counts counts;
};

struct compared_list {
	struct compared *all;
	size_t n, room;
};

static bool compared_is(const struct compared *c, const char *service, const char *operation)
{
	return text_eq(c->names.service, service) && text_eq(c->names.operation, operation);
}

static void compared_note(void *arg, const char *service, const char *operation, const struct pairs_counts *c)
{
	struct compared_list *l = arg;
	size_t at = 0;
	while (at < l->n && !compared_is(&l->all[at], service, operation))
		at++;
	if (at == l->room)
		return;
	text_copy(span_of(service), l->all[at].names.service, sizeof(l->all[at].names.service));
	text_copy(span_of(operation), l->all[at].names.operation, sizeof(l->all[at].names.operation));
	l->all[at].counts = *c;
	l->n = at == l->n ? at + 1 : l->n;
}

static void compared_expect(const struct config *c, struct compared_list *l)
{
	static const struct pairs_counts none;
	for (size_t i = 0; i < c->n_services; i++)
		for (size_t j = 0; j < c->services[i].n_operations; j++) {
			const struct operation *op = &c->services[i].operations[j];
			struct operation_names names;
			if (!op->compare || !op->safe_to_shadow)
				continue;
			text_copy(op->service, names.service, sizeof(names.service));
			text_copy(op->name, names.operation, sizeof(names.operation));
			compared_note(l, names.service, names.operation, &none);
		}
}

static void put_compared(struct metric_text *out, const struct compared_list *l, bool differing)
{
	for (size_t i = 0; i < l->n; i++)
		for (int kind = 0; kind < PAIRS_KINDS; kind++)
			metric_count(out,
				     differing ? l->all[i].counts.differing[kind]
					       : l->all[i].counts.compared[kind],
				     METRIC_LABELS({"service", span_of(l->all[i].names.service)},
						   {"operation", span_of(l->all[i].names.operation)},
						   {"pair", span_of(pairs_kind_text(kind))}));
}

static void put_not_compared(struct metric_text *out, const struct compared *c)
{
	for (int kind = 0; kind < PAIRS_KINDS; kind++)
		for (int why = PAIRS_NO_ANSWER; why < PAIRS_WHY_COUNT; why++)
			metric_count(out, c->counts.not_compared[kind][why],
				     METRIC_LABELS({"service", span_of(c->names.service)},
						   {"operation", span_of(c->names.operation)},
						   {"pair", span_of(pairs_kind_text(kind))},
						   {"why", span_of(pairs_why_text(why))}));
}

void metrics_put_pairs(const struct app *a, struct metric_text *out)
{
	struct compared_list l = {.room = PAIRS_OPERATIONS_MAX + 1};
	l.all = calloc(l.room, sizeof(*l.all));
	if (!l.all)
		return;
	compared_expect(a->config, &l);
	pairs_each(a->pairs, compared_note, &l);
	metric_begin(out, "migration_shadow_compared_total", METRIC_COUNTER,
		     "Pairs of answers compared: both sides' (sides), or two of legacy's (noise).");
	put_compared(out, &l, false);
	metric_begin(out, "migration_shadow_differing_total", METRIC_COUNTER, "Pairs that differ.");
	put_compared(out, &l, true);
	metric_begin(out, "migration_shadow_not_compared_total", METRIC_COUNTER,
		     "Pairs not compared because of a limit or a missing answer, by cause.");
	for (size_t i = 0; i < l.n; i++)
		put_not_compared(out, &l.all[i]);
	free(l.all);
}
