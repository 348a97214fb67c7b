/*
 * stage: where each operation stands (design, "Phases").
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "outcomes/drain/drain.h"
#include "move/population.h"
#include "move/draft.h"
#include "programs/rollout/rollout_command.h"
#include "move/evidence.h"
#include "move/history.h"
#include "move/position.h"

#define OUTPUT_MAX (16u << 20)
#define RECENT_US 900000000LL /* what is judged where no step tells */

struct staging {
	struct rollout_place *place;
	const struct rollout_arguments *arguments;
	struct flag_snapshot *snapshot;
	struct drain *drain; /* NULL: outcomes cannot be read */
	char *journal;
	int64_t now_us;
	struct buf out;
	bool begun;
};

/* One flag of an operation. */
struct staged_flag {
	char key[128];
	const struct rollout_steps *steps; /* NULL: it has none */
	int step;
	bool disabled;
	int64_t since_us; /* 0: not known */
};

struct staged {
	const struct operation *op;
	enum phase_stage stage;
	double everybody, shadow;
	bool segment;
	struct staged_flag flags[OPERATION_MAX_FLAGS];
	size_t n;
	const char *verdict;
	struct phase_evidence evidence;
	const struct drain_operation *drain; /* NULL: nothing was recorded of it */
};

/* --- looking -------------------------------------------------------------------------------------------- */

/* Whether someone of one of the flags' segments is on the task side. */
static bool stage_has_segment(struct staging *s, const struct operation *op, const char *key,
			      const struct rollout_document *d)
{
	struct flag_users u;
	const struct flag *f = flag_find(s->snapshot, span_of(key));
	flag_users_init(&u, s->place->config, key);
	for (size_t i = 0; f && i < rollout_count(d); i++) {
		struct rollout_line line;
		struct segment_context members;
		rollout_line(d, i, &line);
		if (line.everybody || line.percent <= 0)
			continue;
		segment_context_of(f, line.who, &members);
		struct decide_input like = flag_users_like(&u, op, s->snapshot);
		like.extra = members.entries;
		like.n_extra = members.n;
		if (members.entity || population_share(&like) > 0)
			return true;
	}
	return false;
}

static int stage_look_at_flag(struct staging *s, struct staged *ret, struct span name, struct err *e)
{
	struct staged_flag *f = &ret->flags[ret->n++];
	struct flag_users u;
	CLEANUP(rollout_closep) struct rollout_document *d = NULL;
	struct phase_state state;
	struct history_reached reached = {0};
	char label[PHASE_LABEL_MAX];
	span_copy(name, f->key, sizeof(f->key));
	flag_users_init(&u, s->place->config, f->key);
	f->steps = config_rollout(s->place->config, name);
	f->step = PHASE_NOWHERE;
	const struct flag *flag = flag_find(s->snapshot, name);
	if (!flag || flag_broken(flag) || place_open_flag(s->place, f->key, &u.sides, &d, NULL) < 0)
		return 0; /* what the environment says, or nothing */
	ret->segment = ret->segment || stage_has_segment(s, ret->op, f->key, d);
	if (!f->steps)
		return 0;
	int r = position_state(s->place, &u, f->steps, &state, e);
	if (r < 0)
		return r;
	f->disabled = state.disabled;
	f->step = phase_stands(f->steps, &state);
	if (f->step == PHASE_NOWHERE)
		return 0;
	phase_label(&f->steps->steps[f->step], label);
	r = history_reached(s->journal, f->key, label, &reached, e);
	f->since_us = reached.since_us;
	return r;
}

static const struct drain_operation *stage_drain_of(const struct staging *s, const struct operation *op)
{
	for (size_t i = 0; s->drain && i < s->drain->n_operations; i++)
		if (span_is(op->service, s->drain->operations[i].service) &&
		    span_is(op->name, s->drain->operations[i].operation))
			return &s->drain->operations[i];
	return NULL;
}

static void stage_look_at_evidence(struct staging *s, struct staged *ret)
{
	struct evidence_question q = {.config = s->place->config,
				      .flags = s->snapshot,
				      .of_segment = ret->everybody <= 0,
				      .has_task = ret->everybody > 0 || ret->segment};
	for (size_t i = 0; i < ret->n; i++)
		if (ret->flags[i].since_us > q.since_us)
			q.since_us = ret->flags[i].since_us;
	if (!q.since_us)
		q.since_us = s->now_us - RECENT_US;
	evidence_of_operation(&q, ret->op, &ret->evidence, &ret->verdict);
}

static int stage_look_at(struct staging *s, const struct operation *op, struct staged *ret, struct err *e)
{
	struct flag_users u;
	*ret = (struct staged){.op = op};
	int r = 0;
	for (size_t i = 0; r == 0 && op->has_task && i < op->n_flags; i++)
		r = stage_look_at_flag(s, ret, op->flags[i], e);
	if (r < 0)
		return r;
	flag_users_init(&u, s->place->config, "");
	struct decide_input like = flag_users_like(&u, op, s->snapshot);
	ret->everybody = op->has_task ? population_share(&like) : 0;
	ret->shadow = op->has_task ? population_shadow(&like) : 0;
	ret->drain = stage_drain_of(s, op);
	ret->stage = phase_stage(ret->everybody, ret->segment, ret->shadow,
				 ret->drain && drain_judge_operation(s->drain, ret->drain) == DRAIN_DRAINED);
	stage_look_at_evidence(s, ret);
	return 0;
}

/* --- telling -------------------------------------------------------------------------------------------- */

static void stage_put_flag(struct staging *s, const struct staged_flag *f)
{
	char labels[512], next[PHASE_LABEL_MAX], held[32], wanted[32];
	struct buf *b = &s->out;
	if (!f->steps)
		return;
	phase_labels(f->steps, labels, sizeof(labels));
	if (f->step == PHASE_NOWHERE) {
		buf_printf(b, "  %s: %s (%s)\n", f->key, f->disabled ? "disabled" : "on none of its steps",
			   labels);
		return;
	}
	const struct rollout_step *now = &f->steps->steps[f->step];
	buf_printf(b, "  %s: step %d of %zu (%s)", f->key, f->step + 1, f->steps->n, labels);
	drain_span_text(s->now_us - f->since_us, held, sizeof(held));
	drain_span_text((int64_t)now->hold_ms * 1000, wanted, sizeof(wanted));
	if (f->since_us)
		buf_printf(b, "\n    for %s, it holds for %s", held, wanted);
	if ((size_t)f->step + 1 < f->steps->n) {
		phase_label(&f->steps->steps[f->step + 1], next);
		buf_printf(b, "%s next %s", f->since_us ? ";" : "\n   ", next);
	}
	buf_putc(b, '\n');
}

static void stage_to_text(struct staging *s, const struct staged *o)
{
	struct buf *b = &s->out;
	char ago[32];
	buf_printf(b, "%s%.*s.%.*s: %s", s->begun ? "\n" : "", SPAN_ARG(o->op->service),
		   SPAN_ARG(o->op->name), phase_stage_text(o->stage));
	if (!o->op->has_task)
		buf_puts(b, " (no task is mapped to it)");
	else
		buf_printf(b, ", %.4g %% of everybody%s", o->everybody,
			   o->segment ? ", and of segments" : "");
	if (o->shadow > 0)
		buf_printf(b, ", %.4g %% shadowed", o->shadow);
	buf_putc(b, '\n');
	for (size_t i = 0; i < o->n; i++)
		stage_put_flag(s, &o->flags[i]);
	if (o->stage >= STAGE_ROLLING)
		buf_printf(b, "  %s: %s\n", o->verdict, o->evidence.why);
	if (o->stage < STAGE_COMPLETE)
		return;
	if (o->drain && o->drain->last.time_us) {
		drain_span_text(s->now_us - o->drain->last.time_us, ago, sizeof(ago));
		buf_printf(b, "  legacy was last used %s ago (reason %s)\n", ago,
			   outcome_reason_text(o->drain->last.reason));
	} else {
		buf_puts(b, s->drain ? "  no known use of legacy\n" : "  uses of legacy cannot be read\n");
	}
}

static void stage_json_time(struct buf *b, const char *name, int64_t us)
{
	char text[CLOCK_TEXT_MAX];
	clock_format(us, text);
	if (us)
		buf_printf(b, ",\"%s\":\"%s\"", name, text);
	else
		buf_printf(b, ",\"%s\":null", name);
}

static void stage_json_flag(struct buf *b, const struct staged_flag *f)
{
	buf_puts(b, "{\"flag\":");
	json_quote(b, span_of(f->key));
	if (f->steps) {
		buf_puts(b, ",\"steps\":[");
		for (size_t i = 0; i < f->steps->n; i++) {
			char label[PHASE_LABEL_MAX];
			phase_label(&f->steps->steps[i], label);
			buf_puts(b, i ? "," : "");
			json_quote(b, span_of(label));
		}
		buf_putc(b, ']');
		if (f->step == PHASE_NOWHERE)
			buf_puts(b, ",\"step\":null");
		else
			buf_printf(b, ",\"step\":%d,\"hold_seconds\":%lld", f->step + 1,
				   (long long)f->steps->steps[f->step].hold_ms / 1000);
		stage_json_time(b, "since", f->since_us);
	}
	buf_putc(b, '}');
}

static void stage_to_json(struct staging *s, const struct staged *o)
{
	struct buf *b = &s->out;
	buf_puts(b, s->begun ? ",{\"service\":" : "{\"service\":");
	json_quote(b, o->op->service);
	buf_puts(b, ",\"operation\":");
	json_quote(b, o->op->name);
	buf_printf(b,
		   ",\"stage\":\"%s\",\"percent\":%.6g,\"segments\":%s,\"shadow_percent\":%.6g,\"flags\":[",
		   phase_stage_text(o->stage), o->everybody, o->segment ? "true" : "false", o->shadow);
	for (size_t i = 0; i < o->n; i++) {
		buf_puts(b, i ? "," : "");
		stage_json_flag(b, &o->flags[i]);
	}
	buf_puts(b, "],\"verdict\":");
	json_quote(b, span_of(o->verdict));
	buf_puts(b, ",\"why\":");
	json_quote(b, span_of(o->evidence.why));
	stage_json_time(b, "legacy_last_used", o->drain ? o->drain->last.time_us : 0);
	buf_putc(b, '}');
}

/* --- all ------------------------------------------------------------------------------------------------ */

static int stage_each(struct staging *s, struct err *e)
{
	const struct config *c = s->place->config;
	const char *flag = s->arguments->move.flag;
	for (size_t i = 0; i < c->n_services; i++)
		for (size_t j = 0; j < c->services[i].n_operations; j++) {
			const struct operation *op = &c->services[i].operations[j];
			struct staged one;
			if (flag && !operation_asks(c, op, span_of(flag)))
				continue;
			int r = stage_look_at(s, op, &one, e);
			if (r < 0)
				return r;
			(s->arguments->json ? stage_to_json : stage_to_text)(s, &one);
			s->begun = true;
		}
	return 0;
}

static void stage_read_drain(struct staging *s)
{
	const struct drain_options o = {.path = s->place->config->outcomes.path,
					.side = OUTCOME_LEGACY,
					.now_us = s->now_us,
					.since_us = s->now_us - DRAIN_SINCE_US,
					.max_gap_us = DRAIN_MAX_GAP_US};
	struct err e;
	if (drain_make(&o, &s->drain, &e) < 0)
		fprintf(stderr, "warning: %s\n", e.text);
}

static int stage_read(struct staging *s, struct err *e)
{
	const char *flag = s->arguments->move.flag;
	const struct flag *f;
	int r = history_path(s->place->config, s->arguments->move.journal, &s->journal, e);
	if (r == 0)
		r = place_read(s->place, e);
	if (r == 0)
		r = place_parse(s->place, buf_span(&s->place->flags), &s->snapshot, e);
	if (r == 0 && flag)
		r = draft_find_flag(s->snapshot, flag, &f, e);
	if (r == 0)
		stage_read_drain(s);
	return r;
}

int command_stage(struct rollout_place *p, const struct rollout_arguments *a, struct err *e)
{
	struct staging s = {
		.place = p, .arguments = a, .now_us = clock_wall_us(), .out = BUF_INIT(OUTPUT_MAX)};
	int r = stage_read(&s, e);
	if (a->json)
		buf_puts(&s.out, "{\"operations\":[");
	if (r == 0)
		r = stage_each(&s, e);
	if (a->json)
		buf_puts(&s.out, "]}\n");
	else if (r == 0 && !s.begun)
		buf_puts(&s.out, "no operation uses it\n");
	if (r == 0 && s.out.error)
		r = err_set(e, s.out.error, "the report does not fit into memory");
	if (r == 0)
		fwrite(s.out.ptr, 1, s.out.len, stdout);
	buf_release(&s.out);
	flag_snapshot_unref(s.snapshot);
	drain_free(s.drain);
	free(s.journal);
	return r;
}
