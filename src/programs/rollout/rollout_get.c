/*
 * get: what each rule says, what a flag comes to, and what operations of several flags come to.
 */
#include <stdio.h>

#include "move/flag_names.h"
#include "move/population.h"
#include "move/draft.h"
#include "programs/rollout/rollout_command.h"

/* Operations that lack the same are named together. */
static void say_unasked(const struct flag_users *u, const struct flag *f)
{
	CLEANUP(buf_releasep) struct buf before = BUF_INIT(65536);
	const struct operation *op;
	for (size_t i = 0; f && (op = flag_users_at(u, i)); i++) {
		CLEANUP(buf_releasep) struct buf properties = BUF_INIT(65536);
		flag_names_unasked(op, f, &properties);
		if (!properties.len || span_eq(buf_span(&properties), buf_span(&before)))
			continue;
		printf("  note: asks for %s, which %.*s.%.*s does not provide\n", properties.ptr,
		       SPAN_ARG(op->service), SPAN_ARG(op->name));
		buf_clear(&before);
		buf_append_span(&before, buf_span(&properties));
	}
}

static int show_flag(const struct rollout_place *p, const struct flag_snapshot *s, const char *key,
		     struct err *e)
{
	CLEANUP(rollout_closep) struct rollout_document *d = NULL;
	struct flag_users u;
	flag_users_init(&u, p->config, key);
	int r = place_open_flag(p, key, &u.sides, &d, e);
	if (r < 0)
		return r;
	struct decide_input like = flag_users_like(&u, flag_users_at(&u, 0), s);
	printf("%s: %s flag, %s: %g %% of everybody\n", key, rollout_is_boolean(d) ? "boolean" : "variant",
	       rollout_enabled(d) ? "enabled" : "disabled", population_share_of_flag(&like, span_of(key)));
	for (size_t i = 0; i < rollout_count(d); i++) {
		struct rollout_line line;
		rollout_line(d, i, &line);
		printf("  %zu. %s: %.4g %%  (%s%s)\n", i + 1, line.who, line.percent, line.shares,
		       line.everybody && strcmp(line.who, "everybody") != 0 ? "; everybody" : "");
	}
	if (rollout_is_boolean(d) && rollout_enabled(d) && rollout_count(d))
		printf("  everybody else: 100 %%  (enabled)\n");
	if (*u.disagree)
		printf("  note: %s\n", u.disagree);
	say_unasked(&u, flag_find(s, span_of(key)));
	return 0;
}

/* Each flag hashes with its own key, so that the shares multiply. */
static void show_operation(const struct rollout_place *p, const struct flag_snapshot *s,
			   const struct operation *op)
{
	double product = 100;
	printf("%.*s.%.*s:", SPAN_ARG(op->service), SPAN_ARG(op->name));
	for (size_t i = 0; i < op->n_flags; i++) {
		struct flag_users u;
		CLEANUP(freep) char *key = span_dup(op->flags[i]);
		flag_users_init(&u, p->config, key ? key : "");
		struct decide_input like = flag_users_like(&u, op, s);
		double share = population_share_of_flag(&like, op->flags[i]);
		product *= share / 100;
		printf("%s %.*s %g %%", i ? " ×" : "", SPAN_ARG(op->flags[i]), share);
	}
	printf(" = %.3g %% of everybody\n", product);
}

static void show_operations(const struct rollout_place *p, const struct flag_snapshot *s, const char *flag)
{
	const struct config *c = p->config;
	bool first = true;
	for (size_t i = 0; i < c->n_services; i++)
		for (size_t j = 0; j < c->services[i].n_operations; j++) {
			const struct operation *op = &c->services[i].operations[j];
			if (op->n_flags < 2 || !op->has_task ||
			    (flag && !operation_asks(c, op, span_of(flag))))
				continue;
			printf(first ? "\nOperations with several flags:\n" : "");
			first = false;
			show_operation(p, s, op);
		}
}

int command_get(struct rollout_place *p, const struct rollout_arguments *a, struct err *e)
{
	struct flag_snapshot *s = NULL;
	const struct flag *f;
	int r = place_read(p, e);
	if (r == 0)
		r = place_parse(p, buf_span(&p->flags), &s, e);
	if (r == 0 && a->move.flag)
		r = draft_find_flag(s, a->move.flag, &f, e);
	if (r == 0)
		printf("%s\n\n", p->name);
	for (size_t i = 0; r == 0 && i < flag_snapshot_count(s); i++) {
		const struct flag *one = flag_snapshot_at(s, i);
		if (a->move.flag && strcmp(a->move.flag, flag_key(one)) != 0)
			continue;
		if (flag_broken(one)) /* someone else's, perhaps: the others are shown all the same */
			printf("%s: set aside, legacy serves: %s\n",
			       *flag_key(one) ? flag_key(one) : "(no key)", flag_broken(one));
		else
			r = show_flag(p, s, flag_key(one), e);
	}
	if (r == 0)
		show_operations(p, s, a->move.flag);
	flag_snapshot_unref(s);
	return r;
}
