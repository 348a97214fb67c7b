/* `idempotency:` of an operation: what becomes of its callers' Idempotency-Key. */
#include "config/config_reader.h"

#define MINUTE_MS 60000ull
#define DAY_MS 86400000ull

/* What ran longer than it is remembered could be run again by a repetition. */
static void check_keep(const struct place *p, const struct operation *op)
{
	struct place keep = place_member(p, "keep");
	const struct task_mapping *t = &op->task;
	unsigned longest = t->task_timeout_ms > t->timeout_ms ? t->task_timeout_ms : t->timeout_ms;
	if (op->idempotency.use != IDEMPOTENCY_IGNORE && op->idempotency.keep_ms < longest)
		place_mistake(keep.node ? &keep : p, "keep is shorter than the task's time limit (%u s)",
			      longest / 1000);
}

void read_idempotency(const struct place *p, struct operation *op)
{
	static const struct field fields[] = {
		{"key", FIELD_OTHER, 0, 0, 0},
		{"keep", FIELD_DURATION, offsetof(struct idempotency, keep_ms), MINUTE_MS, 30 * DAY_MS},
		{"max_answer", FIELD_SIZE_T, offsetof(struct idempotency, max_answer), 0, 16u << 20},
		{"max_keys", FIELD_UNSIGNED, offsetof(struct idempotency, max_keys), 1, 500000},
		{"legacy", FIELD_OTHER, 0, 0, 0},
	};
	static const char *const uses[] = {"ignore", "accept", "require"};
	static const char *const legacies[] = {"remember", "forget"};
	struct idempotency *i = &op->idempotency;
	size_t which;
	*i = (struct idempotency){.keep_ms = DAY_MS, .max_answer = 64u << 10, .max_keys = 100000};
	if (!p->node || !value_mapping(p))
		return;
	READ_FIELDS(p, fields, i);
	struct place key = place_member(p, "key"), legacy = place_member(p, "legacy");
	if (value_choice(&key, uses, 3, &which))
		i->use = (enum idempotency_use)which;
	else if (!key.node)
		place_mistake(&key, "missing: accept, require or ignore");
	if (value_choice(&legacy, legacies, 2, &which))
		i->legacy_forgets = which == 1;
	if (!op->has_task && i->use != IDEMPOTENCY_IGNORE)
		place_warning(p, "has no effect: without a task everything goes to legacy, key included");
	if (op->has_task)
		check_keep(p, op);
}
