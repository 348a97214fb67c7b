#include "pairs/pairs.h"

const char *pairs_why_text(enum pairs_why w)
{
	static const char *const texts[PAIRS_WHY_COUNT] = {
		[PAIRS_WHOLE] = "none",		 [PAIRS_OPEN] = "no_answer", [PAIRS_NO_ANSWER] = "no_answer",
		[PAIRS_CANCELLED] = "cancelled", [PAIRS_BUSY] = "busy",	     [PAIRS_SIZE] = "size",
		[PAIRS_MEMORY] = "memory",	 [PAIRS_QUEUE] = "queue",    [PAIRS_CODING] = "coding",
		[PAIRS_DEPTH] = "depth",	 [PAIRS_VALUES] = "values",  [PAIRS_WORK] = "work",
	};
	return w < PAIRS_WHY_COUNT ? texts[w] : "?";
}

const char *pairs_kind_text(enum pairs_kind k)
{
	return k == PAIRS_NOISE ? "noise" : "sides";
}
