/*
 * The document that a rollout is about. Private to rollout*.c; everyone else sees rollout.h.
 */
#ifndef ROLLOUT_ROLLOUT_DOCUMENT_H
#define ROLLOUT_ROLLOUT_DOCUMENT_H

#include "base/yaml.h"
#include "rollout/rollout.h"

struct rollout_document {
	char *text;
	size_t length;
	struct yaml_doc *doc;
	const struct yaml_node *flag;
	/* of a features file: the namespace whose segments the flag may name; NONE otherwise */
	struct span counts;
	struct flag_snapshot *snapshot; /* of one flag: where its segments are known from; or NULL */
	const struct rollout_sides *sides;
};

struct rollout_audience {
	char names[256];
	bool everybody; /* every segment is without constraints */
	bool named;	/* the one that was looked for is among them */
};

/* Whom a rule or a segment rollout is about; `wanted` may be NULL. */
struct rollout_audience rollout_audience(const struct rollout_document *d, const struct yaml_node *holder,
					 const char *wanted);

/* All take NULL and then find nothing. */
const struct yaml_node *rollout_item(const struct yaml_node *list, size_t index);
bool rollout_truth(const struct yaml_node *n);
double rollout_number(const struct yaml_node *n);
struct span rollout_variant(const struct yaml_node *distribution);
bool rollout_is_task(const struct rollout_document *d, const struct yaml_node *distribution);

#endif
