/*
 * What the files of this room share. Private to src/standing.
 */
#ifndef STANDING_STANDING_INTERNAL_H
#define STANDING_STANDING_INTERNAL_H

#include "standing/standing.h"

/* What is wrong, and how much it explains: of findings of one level the lowest rank makes the sentence. */
enum standing_rank {
	RANK_UNREADABLE, /* nobody can tell */
	RANK_SILENT,
	RANK_RECORDER,
	RANK_ROUTER,
	RANK_FLAGS,
	RANK_STATE,
	RANK_BACKEND,
	RANK_LEGACY,
	RANK_OPERATION, /* one operation; of these the first in the list */
	RANK_MINOR
};

struct standing_finding {
	enum standing_level level;
	enum standing_rank rank;
	char sentence[STANDING_TEXT_MAX];
	char command[STANDING_TEXT_MAX], next[STANDING_TEXT_MAX];
};

/* Keeps the worse of the two in *worst. */
void standing_find(struct standing_finding *worst, const struct standing_finding *f);

/* standing_operations.c: level, verdict and reason of one; facts and window are there. */
void standing_judge_operation(struct standing_operation *o, const struct standing_facts *f, int64_t now_us);
/* Its percentage was set after since_us. One of a time to come was set by a clock that was set back since:
 * nobody knows when, and what is measured must not wait for it. */
bool standing_is_set_within(const struct standing_operation_facts *f, int64_t since_us, int64_t now_us);
/* standing_states.c: what is known without counting; o: all operations, judged. */
void standing_judge_states(const struct standing *s, struct standing_finding *worst);

/* standing_names.c: finds operations by name in lists of thousands. */
struct standing_name {
	const char *service, *operation; /* referenced */
	size_t at;			 /* in its list */
};
void standing_names_sort(struct standing_name *names, size_t n);
/* NULL: it is not there. Of several the first in the list. */
const struct standing_name *standing_names_find(const struct standing_name *names, size_t n,
						struct span service, struct span operation);

/* standing_words.c */
#define STANDING_TIME_MAX 32
#define STANDING_NUMBER_MAX 32
/* "05:36 UTC", or with its date when that was another day; 0: "the start". */
const char *standing_time(int64_t us, int64_t now_us, char out[STANDING_TIME_MAX]);
const char *standing_count(uint64_t n, char out[STANDING_NUMBER_MAX]); /* 1,171 */
/* "24.8 %"; never 0 or 100 unless it is. STANDING_NOT_SET: "nothing". */
const char *standing_percent(double percent, char out[STANDING_NUMBER_MAX]);
/* A command of one of our programs, with the configuration that the router runs with; its words are quoted
 * for a shell. `flag` may be NULL. */
void standing_rollout_command(const struct standing_facts *f, const char *verb, const char *flag,
			      char out[STANDING_TEXT_MAX]);
void standing_check_command(const struct standing_facts *f, const char *options, char out[STANDING_TEXT_MAX]);
void standing_quote(const char *word, char *out, size_t size); /* for a shell */

#endif
