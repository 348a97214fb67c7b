#include "programs/router/explain/explain_decision.h"

#include <stdio.h>

#include "flags/flags.h"
#include "move/flag_names.h"
#include "move/population.h"
#include "operation/identity.h"

static void explain_step(void *arg, unsigned depth, const char *sentence)
{
	buf_printf(arg, "  %*s%s\n", (int)depth * 2, "", sentence);
}

/* Each flag hashes with its own key, so that several percentages multiply: what the screen says of one
 * flag is not the share. */
static void explain_shares(const struct decide_input *in, const struct operation *op, struct buf *out)
{
	if (!in->entity.ptr || !op->has_task || op->n_flags == 0)
		return;
	buf_printf(out, "share      %.1f %% of %d made-up %s go to tasks", population_share(in),
		   POPULATION_SIZE,
		   in->entity.ptr == in->organization.ptr ? "organizations" : "users of this organization");
	for (size_t i = 0; op->n_flags > 1 && i < op->n_flags; i++)
		buf_printf(out, "%s%.*s alone %.1f %%", i ? ", " : ": ", SPAN_ARG(op->flags[i]),
			   population_share_of_flag(in, op->flags[i]));
	buf_printf(out, "\n");
}

static bool explain_is_given(const struct decide_input *a, struct span property)
{
	for (size_t i = 0; i < a->n_extra; i++)
		if (span_eq(a->extra[i].key, property))
			return true;
	return false;
}

/* What segments ask for and nobody gives, and what the router would look for in the request. */
static void explain_unasked(const struct operation *op, const struct flag_snapshot *flags,
			    const struct decide_input *in, struct buf *out)
{
	for (size_t i = 0; flags && i < op->n_flags; i++) {
		CLEANUP(buf_releasep) struct buf properties = BUF_INIT(65536);
		const struct flag *f = flag_find(flags, op->flags[i]);
		if (f)
			flag_names_unasked(op, f, &properties);
		if (properties.len)
			buf_printf(out, "  note: %.*s asks for %s, which this operation does not provide\n",
				   SPAN_ARG(op->flags[i]), properties.ptr);
	}
	for (size_t i = 0; i < op->n_context; i++)
		if (op->context[i].n_sources && !explain_is_given(in, op->context[i].key))
			buf_printf(out,
				   "  note: %.*s comes from the request; set it with --context %.*s=VALUE\n",
				   SPAN_ARG(op->context[i].key), SPAN_ARG(op->context[i].key));
}

void explain_decision(const struct decide_input *of, struct buf *out)
{
	struct decide_input in = *of;
	const struct operation *op = in.operation;
	enum identity_part part;
	identity_entity(&op->identity, in.user, in.organization, &in.entity, &part);
	buf_printf(out, "operation  %.*s.%.*s  %.*s %.*s\n", SPAN_ARG(op->service), SPAN_ARG(op->name),
		   SPAN_ARG(op->method), SPAN_ARG(op->path));
	buf_printf(out, "entity     %.*s\n\n",
		   SPAN_ARG(in.entity.ptr ? in.entity : SPAN_LIT("none (" DECIDE_ANONYMOUS ")")));
	struct flag_trace trace = {.arg = out, .step = explain_step};
	struct decision d;
	decide(&in, &d, &trace);
	explain_unasked(op, in.flags, &in, out);
	buf_printf(out, "\nside       %s\n", outcome_side_text(d.side));
	if (d.backend.len)
		buf_printf(out, "backend    %.*s%s\n", SPAN_ARG(d.backend),
			   d.side == OUTCOME_LEGACY ? " (shadow)" : "");
	if (d.backend.len && d.reason != REASON_OVERRIDE)
		buf_puts(out, "           note: none of it while it is not ready or its breaker is open: see "
			      "/readyz\n");
	for (size_t i = 0; d.side == OUTCOME_TASK && i < op->task.n_backends; i++)
		if (!span_eq(op->task.backends[i], d.backend))
			buf_printf(out, "else       %.*s, if it has provably not accepted the task\n",
				   SPAN_ARG(op->task.backends[i]));
	if (d.shadow > 0)
		buf_printf(out, "shadow     %g\n", d.shadow);
	if (d.variant.len)
		buf_printf(out, "variant    %.*s\n", SPAN_ARG(d.variant));
	buf_printf(out, "reason     %s\nwhy        %s\n", outcome_reason_text(d.reason),
		   outcome_reason_meaning(d.reason));
	explain_shares(&in, op, out);
}
