/*
 * Model: what a snapshot is made of. Private to src/flags; all others use flags.h.
 *
 * Why:       two loaders (features.c, snapshot.c) build the same thing, so that evaluation knows nothing
 *            about documents, and everything that can be computed once (limits, parsed constants, hashes) is
 *            computed while loading.
 * Ownership: all of it is in the snapshot's arena.
 * Life:      model_new → loader adds flags → model_finish → immutable, shared by reference counts.
 */
#ifndef FLAGS_MODEL_H
#define FLAGS_MODEL_H

#include <stdatomic.h>

#include "base/arena.h"
#include "base/crypto.h"
#include "flags/constraint.h"
#include "flags/flags.h"

#define MODEL_MEMORY_MAX (1024u << 20) /* bytes of arena a snapshot may take */
#define MODEL_WARNINGS_MAX 100	       /* more are counted, not kept */
#define MODEL_BUCKETS 1000	       /* of a distribution: tenths of a percent */
#define MODEL_DIGEST_MAX 80
#define MODEL_PLACE_MAX 160

struct segment {
	struct span key; /* NUL-terminated */
	bool any;	 /* one match is enough; if there are no constraints, everything matches */
	bool declared;
	unsigned document;  /* of a features file: flags of earlier documents cannot use it */
	const char *broken; /* why flags that use it are set aside; NULL: it is intact */
	bool dropped; /* 2.10 and newer: a malformed constraint takes the whole segment out of every rule */
	struct constraint *constraints;
	size_t n_constraints;
	uint64_t digest; /* once it is finished */
};

/* The segments that a rule or rollout requires. */
struct condition {
	bool all;			 /* AND; else OR */
	const struct segment **segments; /* distinct keys, in the order of the document */
	size_t n_segments;
	size_t n_dropped; /* named too, but dropped: AND then requires only the others */
};

struct distribution {
	struct span variant, attachment;
	float rollout; /* as written */
	int limit;     /* buckets below it (and not below the one before) get the variant */
};

struct rule {
	struct condition condition;
	struct distribution *distributions; /* only living ones: rollout > 0 */
	size_t n_distributions;
	bool by_percentage; /* not all buckets lead to the same variant */
};

struct rollout {
	bool is_threshold;
	bool value;
	float percentage;	    /* of a threshold */
	struct condition condition; /* of a segment rollout */
};

struct flag {
	struct span key;    /* NUL-terminated */
	const char *broken; /* why it is set aside: then it has no rules and rollouts; NULL: it is intact */
	unsigned line;	    /* in a features file; else 0 */
	const char *file;   /* which of several; else NULL */
	enum flag_type type;
	bool enabled;
	bool has_default;
	struct span default_variant, default_attachment;
	uint32_t key_crc; /* where the CRC of key + entity continues */
	uint32_t hash;
	struct rule *rules;
	size_t n_rules;
	struct rollout *rollouts;
	size_t n_rollouts;
	uint64_t digest; /* once the snapshot is finished */
};

struct flag_snapshot {
	atomic_uint references;
	struct arena arena;
	enum flag_rules rules;
	struct flag *flags;
	size_t n_flags;
	uint32_t *slots; /* open addressing: index + 1 into flags, 0 = empty; a power of two of them */
	size_t n_slots;
	const char *warnings[MODEL_WARNINGS_MAX];
	bool warning_is_mistake[MODEL_WARNINGS_MAX];
	size_t n_warnings, n_warnings_dropped, n_mistakes;
	char digest[MODEL_DIGEST_MAX];
};

/* A snapshot with room for `n_flags` flags (n_flags counts those in use). -ENOMEM, -EFBIG. */
int model_new(enum flag_rules rules, size_t n_flags, struct flag_snapshot **ret);
/* Indexes the flags; a key that occurs twice is set aside. `name` is the document's. -ENOMEM. */
int model_finish(struct flag_snapshot *s, const char *name);
/* where the source tells none: a third of what parsing costs */
void model_digest(struct flag_snapshot *s, struct span text);

/* Keeps a sentence. Never fails: if out of memory the warning is lost. */
void model_warn(struct flag_snapshot *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The same, of what Flipt itself refuses in a file. */
void model_mistake(struct flag_snapshot *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A flag that cannot be understood: keeps only its key and the reason, and reports it. */
void model_set_aside(struct flag_snapshot *s, struct flag *f, const char *why);
/* `why` kept as long as the snapshot. */
const char *model_keep(struct flag_snapshot *s, const char *why);

bool model_drops_segments(enum flag_rules rules);
/* To be called once all constraints of a segment are compiled: decides whether it is dropped. */
void model_segment_finish(const struct flag_snapshot *s, struct segment *segment);
/* Adds a segment unless it is dropped or the condition has one of that key; false when there are too many.
 * `segments` must have room. */
bool model_condition_add(struct condition *c, const struct segment *segment);
/* Drops dead distributions and computes limits by the snapshot's rules; warns if the shares are finer than
 * Flipt supports, or do not add up. `where` names the rule in messages. */
void model_rule_finish(struct flag_snapshot *s, struct rule *rule, const char *where);
/* "<outer>, <what> <index + 1>": names a part of a document in messages, cut when it is too long. */
void model_place(char out[MODEL_PLACE_MAX], const char *outer, const char *what, size_t index);
/* Warns when a threshold is not a whole percent. */
void model_threshold_check(struct flag_snapshot *s, float percentage, const char *where);
void model_flag_finish(struct flag *f); /* when the key is known */

/* digest.c: sets the number by which two definitions are distinguished; a flag's needs its segments'. */
void digest_segment(struct segment *s);
void digest_flag(struct flag *f);

#endif
