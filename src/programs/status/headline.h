/*
 * Headline: the sentence that comes first, what to do, and a line for each operation that can move; of
 * several sources the worst.
 *
 * Why:       one form for what a file and what a running router say: the JSON of a standing
 *            (docs/migration-status.schema.json).
 * Never:     an error. A source that cannot be read is a stop by itself.
 */
#ifndef PROGRAMS_STATUS_HEADLINE_H
#define PROGRAMS_STATUS_HEADLINE_H

#include "programs/status/status_sources.h"
#include "standing/standing.h"

struct json_doc;

struct headline_source {
	const char *name;
	struct buf json;
	struct json_doc *doc; /* NULL: it could not be read, and `sentence` says why */
	enum standing_level level;
	char sentence[STANDING_TEXT_MAX];
};

struct headlines {
	struct headline_source all[STATUS_SOURCES_MAX];
	size_t n, worst;
};

void headlines_read(const struct status_sources *s, struct headlines *ret);
void headlines_release(struct headlines *h);

enum standing_level headlines_level(const struct headlines *h);
/* Why the gate must not say that all is well: a stop; with a service or an operation (NULL: all), one of
 * theirs. NULL: nothing. */
const char *headlines_stop(const struct headlines *h, const char *service, const char *operation,
			   char why[STANDING_TEXT_MAX]);
/* The sentence, without a newline. */
int headlines_put_sentence(const struct headlines *h, struct buf *out);
/* What to do, what is next, and the operations, worst first. Lines of at most `columns`, 0 = 80. */
int headlines_put_rest(const struct headlines *h, unsigned columns, struct buf *out);
/* "level", "sentence", "command", "next" and "standings" at the end of the object that `object` ends with. */
int headlines_into_json(const struct headlines *h, struct buf *object);

#endif
