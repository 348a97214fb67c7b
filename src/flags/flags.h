/*
 * Flags: one immutable snapshot, and the evaluation of one flag in it.
 *
 * Why:       evaluation is pure and in process: the same identity and the same snapshot give the same answer
 *            on every replica (design, rule 2), and a flag outage never reaches a caller. Source:
 *            docs/protocols/flipt.md, measured on Flipt v2 and v1; tests run the recorded corpora.
 * Ownership: snapshots are reference-counted (atomic); results borrow from the snapshot.
 * Threads:   a snapshot is immutable after parsing; any thread may evaluate.
 * Errors:    parsers: -EBADMSG with "name:line: key: …", -EFBIG, -ENOMEM.
 * Limits:    FLAG_MAX_* below.
 */
#ifndef FLAGS_FLAGS_H
#define FLAGS_FLAGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/span.h"

#define FLAG_MAX_DOCUMENT (64u << 20) /* bytes of a features file or snapshot */
#define FLAG_MAX_SEGMENTS_PER_RULE 64

/* Which server's rules. They differ in how shares that do not add up to 100 % and malformed constraints are
 * treated (flipt.md, "Whose rules"): each applies from the version in its name up to the next. */
enum flag_rules {
	FLAG_RULES_V2_11, /* from 2.10 on */
	FLAG_RULES_V2_9,  /* 2.9 */
	FLAG_RULES_V2_0,  /* 2.0 to 2.8 */
	FLAG_RULES_V1,
	FLAG_RULES_COUNT,
	FLAG_RULES_V2 = FLAG_RULES_V2_11 /* the newest: where nothing is known */
};

/* v1, v2.0, v2.9, v2.11: what the setting and the saved snapshot say */
const char *flag_rules_text(enum flag_rules rules);
bool flag_rules_parse(struct span text, enum flag_rules *ret); /* also v2, the newest; false leaves *ret */
enum flag_rules flag_rules_of_server(unsigned major, unsigned minor);

enum flag_type { FLAG_VARIANT, FLAG_BOOLEAN };

enum flag_reason { FLAG_REASON_UNKNOWN, FLAG_REASON_DISABLED, FLAG_REASON_MATCH, FLAG_REASON_DEFAULT };

struct flag_snapshot;
struct flag; /* borrowed from its snapshot */

/*
 * A fault of one element affects only that element, since other teams write flags, too, and so do newer
 * servers: a flag that cannot be understood, or uses a segment that cannot, is set aside (flag_broken), and
 * every other flag is used as the document says. Only what is not a document at all is an error. Each fault
 * is among the warnings; those that Flipt itself refuses in a file are counted as mistakes.
 */
/* From a Flipt features file (YAML, or JSON which is YAML). `name` is its name in messages. Warnings (an
 * undeclared segment, a percentage finer than Flipt supports) are sentences kept in the snapshot. */
int flag_snapshot_parse_features(const char *name, struct span text, enum flag_rules rules,
				 struct flag_snapshot **ret, struct err *e);
/* The same, of the documents (---) of one namespace; NULL is "default". Where all documents are of one
 * other, "default" means that one. */
int flag_snapshot_parse_namespace(const char *name, struct span text, const char *namespace_key,
				  enum flag_rules rules, struct flag_snapshot **ret, struct err *e);
/* The same of the documents of several files, in this order: a folder's. A file that is not a features file
 * at all, or with an `error`, is a reported mistake, and the others count; -EBADMSG when none does. `whole`
 * is what the digest is made of; the single file's text. */
struct flag_text {
	const char *name;
	struct span text;
	const char *error; /* why it could not be read, or NULL */
};
int flag_snapshot_parse_files(const char *name, const struct flag_text *files, size_t n, struct span whole,
			      const char *namespace_key, enum flag_rules rules, struct flag_snapshot **ret,
			      struct err *e);
/* From the JSON that Flipt's snapshot API answers. */
int flag_snapshot_parse_json(const char *name, struct span text, enum flag_rules rules,
			     struct flag_snapshot **ret, struct err *e);

struct flag_snapshot *flag_snapshot_ref(const struct flag_snapshot *s);
struct flag_snapshot *flag_snapshot_unref(const struct flag_snapshot *s); /* NULL is allowed; returns NULL */

bool flag_snapshot_shared(const struct flag_snapshot *s); /* whether the caller's is not the only reference */

/* hex SHA-256 of the text, or the source's ETag once set */
const char *flag_snapshot_digest(const struct flag_snapshot *s);
void flag_snapshot_set_digest(struct flag_snapshot *s, const char *digest); /* before it is shared */
enum flag_rules flag_snapshot_rules(const struct flag_snapshot *s);
size_t flag_snapshot_count(const struct flag_snapshot *s);
/* in the order of the document */
const struct flag *flag_snapshot_at(const struct flag_snapshot *s, size_t i);
size_t flag_snapshot_warnings(const struct flag_snapshot *s);
const char *flag_snapshot_warning(const struct flag_snapshot *s, size_t i);
bool flag_snapshot_warning_is_mistake(const struct flag_snapshot *s, size_t i);
size_t flag_snapshot_mistakes(const struct flag_snapshot *s); /* including those that are not kept */

/* hashed; NULL if there is none */
const struct flag *flag_find(const struct flag_snapshot *s, struct span key);
const char *flag_key(const struct flag *f);
/* Why the flag was set aside (it must not be evaluated then); NULL: it is intact. */
const char *flag_broken(const struct flag *f);
enum flag_type flag_type_of(const struct flag *f);
bool flag_enabled(const struct flag *f);
/* Whether the segment, which a rule or a rollout of this flag names, matches everybody: it has no
 * constraints. */
bool flag_segment_is_everybody(const struct flag *f, struct span segment_key);

/* One entry of the evaluation context; all values are strings. Later entries with the same key win. */
struct flag_context {
	struct span key, value;
};

struct flag_result {
	enum flag_type type;
	enum flag_reason reason;
	bool match;		/* variant flags */
	bool enabled;		/* boolean flags: the answer */
	struct span variant;	/* "" when none */
	struct span attachment; /* raw JSON text, "" when none */
	/* Whether a percentage was involved: the rule's buckets do not all lead to the same answer, or a
	 * threshold that takes some entities and not others was compared on the way (also when it did not
	 * match). What counts is what it does: a share too small for a bucket and a threshold of 99.5 (which
	 * takes everyone) decide nothing. If true, a constant entity must not be hashed. */
	bool by_percentage;
	int bucket; /* 0..999 of a variant, 0..99 once a threshold was compared; -1 when none was computed */
	size_t segments;
	const char *segment_keys[FLAG_MAX_SEGMENTS_PER_RULE]; /* in the order of the rule */
};

/* Called for every step, for `explain`; the sentence is one line without a newline, indented by `depth`
 * levels. */
struct flag_trace {
	void (*step)(void *arg, unsigned depth, const char *sentence);
	void *arg;
};

/* 0 and *ret filled. `trace` may be NULL: then nothing is formatted and nothing allocated. Never fails
 * otherwise. A flag that is set aside matches nothing. */
void flag_evaluate(const struct flag_snapshot *s, const struct flag *f, struct span entity_id,
		   const struct flag_context *context, size_t n_context, struct flag_result *ret,
		   const struct flag_trace *trace);

/* Each answer that chance alone could have given this entity, with its probability: the buckets that lead to
 * it, whichever the entity is in, everything else (the segments) being equal. Shares add up to 1. One call
 * with the share 1 if no percentage is involved, and for a flag that is set aside: it matches nothing. Of
 * a result type, reason, match, enabled, variant, attachment and by_percentage are filled in. */
void flag_each_share(const struct flag_snapshot *s, const struct flag *f, struct span entity_id,
		     const struct flag_context *context, size_t n_context,
		     void (*fn)(void *arg, double share, const struct flag_result *r), void *arg);

/* Of everything in the flag's definition that an answer can depend on, including the segments it uses. */
uint64_t flag_digest(const struct flag *f);

/* One more step, for callers that decide by flags; nothing when `t` is NULL. */
void flag_trace_say(const struct flag_trace *t, unsigned depth, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

const char *flag_reason_text(enum flag_reason r); /* MATCH_EVALUATION_REASON, … as Flipt spells them */

#endif
