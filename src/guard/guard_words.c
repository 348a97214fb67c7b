/* The words of design.md for verdicts, kinds and modes. */
#include "guard/guard_verdict.h"

const char *guard_verdict_text(enum guard_verdict v)
{
	static const char *const texts[GUARD_VERDICT_COUNT] = {[GUARD_NOT_ENOUGH_DATA] = "not_enough_data",
							       [GUARD_SAFE] = "safe",
							       [GUARD_SHARE_MISMATCH] = "share_mismatch",
							       [GUARD_BREACH] = "breach"};
	return v < GUARD_VERDICT_COUNT ? texts[v] : "?";
}

const char *guard_kind_text(enum guard_kind k)
{
	static const char *const texts[GUARD_KIND_COUNT] = {
		[GUARD_FAILURE] = "failure", [GUARD_REJECTED] = "rejected", [GUARD_SLOW] = "slow"};
	return k < GUARD_KIND_COUNT ? texts[k] : "?";
}

const char *guard_mode_text(enum guard_mode m)
{
	static const char *const texts[GUARD_MODE_COUNT] = {[GUARD_OFF] = "off",
							    [GUARD_WATCH] = "watch",
							    [GUARD_HOLD] = "hold",
							    [GUARD_ROLLBACK] = "rollback"};
	return m < GUARD_MODE_COUNT ? texts[m] : "?";
}

enum guard_verdict guard_verdicts_worst(const struct guard_verdicts *v)
{
	enum guard_verdict worst = v->n ? GUARD_SAFE : GUARD_NOT_ENOUGH_DATA;
	for (size_t i = 0; i < v->n; i++) {
		enum guard_verdict x = v->operations[i].verdict;
		bool before = x == GUARD_NOT_ENOUGH_DATA ? worst == GUARD_SAFE : x > worst;
		if (before)
			worst = x;
	}
	return worst;
}
