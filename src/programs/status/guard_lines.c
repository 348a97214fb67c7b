#include "programs/status/guard_lines.h"

#include <stdio.h>

int guard_lines_put(const struct guard_verdicts *v, struct buf *out)
{
	if (v->n == 0)
		return 0;
	buf_puts(out, "\nGuard:\n");
	for (size_t i = 0; i < v->n; i++) {
		buf_puts(out, "  ");
		guard_verdict_to_text(&v->operations[i], out);
		buf_putc(out, '\n');
	}
	return out->error;
}

static const struct guard_operation_verdict *the_worst(const struct guard_verdicts *v)
{
	enum guard_verdict worst = guard_verdicts_worst(v);
	for (size_t i = 0; i < v->n; i++)
		if (v->operations[i].verdict == worst)
			return &v->operations[i];
	return NULL;
}

enum gate_verdict guard_lines_judge(const struct guard_verdicts *v, enum gate_verdict limits,
				    char why[GATE_TEXT_MAX])
{
	const struct guard_operation_verdict *worst = the_worst(v);
	if (!worst || (limits == GATE_BREACHED && worst->verdict != GUARD_BREACH))
		return limits;
	if (worst->verdict == GUARD_SAFE && limits == GATE_HEALTHY)
		return limits;
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(4096);
	guard_verdict_to_text(worst, &text);
	snprintf(why, GATE_TEXT_MAX, "the guard: %.*s", text.len > 300 ? 300 : (int)text.len,
		 buf_span(&text).ptr);
	if (worst->verdict == GUARD_BREACH)
		return GATE_BREACHED;
	return worst->verdict == GUARD_SAFE ? GATE_HEALTHY : GATE_NOT_ENOUGH_DATA;
}
