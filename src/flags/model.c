#include "flags/model.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/checksum.h"
#include "base/hash.h"

/* --- life ----------------------------------------------------------------------------------------------- */
int model_new(enum flag_rules rules, size_t n_flags, struct flag_snapshot **ret)
{
	struct flag_snapshot *s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	atomic_init(&s->references, 1);
	s->arena = ARENA_INIT(MODEL_MEMORY_MAX);
	s->rules = rules;
	s->flags = arena_new(&s->arena, struct flag, n_flags);
	if (!s->flags) {
		flag_snapshot_unref(s);
		return -ENOMEM;
	}
	*ret = s;
	return 0;
}

struct flag_snapshot *flag_snapshot_ref(const struct flag_snapshot *s)
{
	/* The count is the one thing in a shared snapshot that changes. */
	struct flag_snapshot *mine = (struct flag_snapshot *)s;
	if (mine)
		atomic_fetch_add_explicit(&mine->references, 1, memory_order_relaxed);
	return mine;
}

struct flag_snapshot *flag_snapshot_unref(const struct flag_snapshot *s)
{
	struct flag_snapshot *mine = (struct flag_snapshot *)s;
	if (mine && atomic_fetch_sub_explicit(&mine->references, 1, memory_order_acq_rel) == 1) {
		arena_release(&mine->arena);
		free(mine);
	}
	return NULL;
}

bool flag_snapshot_shared(const struct flag_snapshot *s)
{
	return atomic_load_explicit(&s->references, memory_order_acquire) > 1;
}

const char *model_keep(struct flag_snapshot *s, const char *why)
{
	struct span kept;
	return arena_copy(&s->arena, span_of(why), &kept) == 0 ? kept.ptr : "out of memory";
}

static void keep_warning(struct flag_snapshot *s, bool mistake, const char *sentence)
{
	s->n_mistakes += mistake;
	if (s->n_warnings == MODEL_WARNINGS_MAX) {
		s->n_warnings_dropped++;
		return;
	}
	s->warning_is_mistake[s->n_warnings] = mistake;
	s->warnings[s->n_warnings++] = model_keep(s, sentence);
}

void model_warn(struct flag_snapshot *s, const char *format, ...)
{
	char sentence[ERR_TEXT_MAX];
	va_list ap;
	va_start(ap, format);
	vsnprintf(sentence, sizeof(sentence), format, ap);
	va_end(ap);
	keep_warning(s, false, sentence);
}

void model_mistake(struct flag_snapshot *s, const char *format, ...)
{
	char sentence[ERR_TEXT_MAX];
	va_list ap;
	va_start(ap, format);
	vsnprintf(sentence, sizeof(sentence), format, ap);
	va_end(ap);
	keep_warning(s, true, sentence);
}

void model_set_aside(struct flag_snapshot *s, struct flag *f, const char *why)
{
	struct flag aside = {.key = f->key,
			     .line = f->line,
			     .hash = f->hash,
			     .key_crc = f->key_crc,
			     .broken = model_keep(s, why)};
	*f = aside;
	model_mistake(s, "%s; flag \"%.80s\" is set aside: legacy serves the requests that ask for it", why,
		      f->key.ptr);
}

/* --- look-up -------------------------------------------------------------------------------------------- */
/* Keys come from our own documents, not from callers. */
static uint32_t model_hash(struct span key)
{
	return hash32(HASH32_START, key);
}

static uint32_t *slot_of(const struct flag_snapshot *s, struct span key, uint32_t hash)
{
	for (size_t i = hash & (s->n_slots - 1);; i = (i + 1) & (s->n_slots - 1)) {
		uint32_t at = s->slots[i];
		if (at == 0 || (s->flags[at - 1].hash == hash && span_eq(s->flags[at - 1].key, key)))
			return &s->slots[i];
	}
}

const struct flag *flag_find(const struct flag_snapshot *s, struct span key)
{
	uint32_t at = *slot_of(s, key, model_hash(key));
	return at ? &s->flags[at - 1] : NULL;
}

static void set_twins_aside(struct flag_snapshot *s, const char *name, struct flag *first,
			    struct flag *second)
{
	char why[ERR_TEXT_MAX];
	if (second->file)
		snprintf(why, sizeof(why),
			 "%.170s:%u: flags: key: flag \"%.60s\" is declared twice, also in %.170s:%u",
			 second->file, second->line, first->key.ptr, first->file, first->line);
	else if (second->line)
		snprintf(why, sizeof(why), "%s:%u: flags: key: flag \"%.100s\" is declared twice", name,
			 second->line, first->key.ptr);
	else
		snprintf(why, sizeof(why), "%s: flag \"%.100s\" occurs twice", name, first->key.ptr);
	model_set_aside(s, first, why);
}

int model_finish(struct flag_snapshot *s, const char *name)
{
	s->n_slots = 8;
	while (s->n_slots < s->n_flags * 2)
		s->n_slots *= 2;
	s->slots = arena_new(&s->arena, uint32_t, s->n_slots);
	if (!s->slots)
		return -ENOMEM;
	for (size_t i = 0; i < s->n_flags; i++) {
		struct flag *f = &s->flags[i];
		uint32_t *slot = slot_of(s, f->key, f->hash);
		if (*slot)
			set_twins_aside(s, name, &s->flags[*slot - 1], f);
		else
			*slot = (uint32_t)i + 1;
	}
	for (size_t i = 0; i < s->n_flags; i++)
		digest_flag(&s->flags[i]);
	if (s->n_warnings_dropped)
		s->warnings[MODEL_WARNINGS_MAX - 1] = "more warnings were dropped";
	return 0;
}

void model_digest(struct flag_snapshot *s, struct span text)
{
	char digest[CRYPTO_SHA256_HEX];
	crypto_sha256_hex(text, digest);
	flag_snapshot_set_digest(s, digest);
}

/* --- whose rules ---------------------------------------------------------------------------------------- */
static const char *const rules_texts[FLAG_RULES_COUNT] = {[FLAG_RULES_V2_11] = "v2.11",
							  [FLAG_RULES_V2_9] = "v2.9",
							  [FLAG_RULES_V2_0] = "v2.0",
							  [FLAG_RULES_V1] = "v1"};

const char *flag_rules_text(enum flag_rules rules)
{
	return rules < FLAG_RULES_COUNT ? rules_texts[rules] : "?";
}

bool flag_rules_parse(struct span text, enum flag_rules *ret)
{
	for (enum flag_rules r = 0; r < FLAG_RULES_COUNT; r++) {
		if (span_is(text, rules_texts[r])) {
			*ret = r;
			return true;
		}
	}
	if (!span_is(text, "v2"))
		return false;
	*ret = FLAG_RULES_V2;
	return true;
}

enum flag_rules flag_rules_of_server(unsigned major, unsigned minor)
{
	if (major < 2)
		return FLAG_RULES_V1;
	if (major > 2 || minor >= 10)
		return FLAG_RULES_V2_11;
	return minor == 9 ? FLAG_RULES_V2_9 : FLAG_RULES_V2_0;
}

/* A malformed constraint takes its whole segment out of every rule; before, it merely does not match. */
bool model_drops_segments(enum flag_rules rules)
{
	return rules == FLAG_RULES_V2_11;
}

static bool scales_shares(enum flag_rules rules)
{
	return rules == FLAG_RULES_V2_11 || rules == FLAG_RULES_V2_9;
}

/* --- parts ---------------------------------------------------------------------------------------------- */
void model_flag_finish(struct flag *f)
{
	f->hash = model_hash(f->key);
	f->key_crc = checksum_crc32(CHECKSUM_CRC32_START, f->key);
}

void model_segment_finish(const struct flag_snapshot *s, struct segment *segment)
{
	for (size_t i = 0; i < segment->n_constraints && model_drops_segments(s->rules); i++) {
		if (segment->constraints[i].malformed)
			segment->dropped = true;
	}
	digest_segment(segment);
}

bool model_condition_add(struct condition *c, const struct segment *segment)
{
	if (segment->dropped) {
		c->n_dropped++;
		return true;
	}
	for (size_t i = 0; i < c->n_segments; i++) {
		if (span_eq(c->segments[i]->key, segment->key))
			return true;
	}
	if (c->n_segments == FLAG_MAX_SEGMENTS_PER_RULE)
		return false;
	c->segments[c->n_segments++] = segment;
	return true;
}

/* (int)f as Go converts on amd64, without the undefined behavior of C for what does not fit. */
static int to_int(float f)
{
	return f >= 2147483648.0f || f < -2147483648.0f || isnan(f) ? 2147483647 : (int)f;
}

/* flipt.md, "Variant flag", 4: all in float32. */
static void limits_scaled(struct rule *rule)
{
	float total = 0, sum = 0;
	for (size_t i = 0; i < rule->n_distributions; i++)
		total += rule->distributions[i].rollout;
	for (size_t i = 0; i < rule->n_distributions; i++) {
		float share = rule->distributions[i].rollout / total;
		sum += share * 100.0f;
		rule->distributions[i].limit = to_int(sum * 10.0f);
	}
	if (rule->n_distributions)
		rule->distributions[rule->n_distributions - 1].limit = MODEL_BUCKETS;
}

static void limits_as_written(struct rule *rule)
{
	int64_t sum = 0;
	for (size_t i = 0; i < rule->n_distributions; i++) {
		sum += to_int(rule->distributions[i].rollout * 10.0f);
		rule->distributions[i].limit = sum > MODEL_BUCKETS ? MODEL_BUCKETS : (int)sum;
	}
}

/* Whether two buckets can lead to different variants, falling past the end included. */
static bool splits(const struct rule *rule)
{
	const struct distribution *first = NULL;
	int from = 0;
	for (size_t i = 0; i < rule->n_distributions && from < MODEL_BUCKETS; i++) {
		const struct distribution *d = &rule->distributions[i];
		if (d->limit <= from)
			continue;
		if (first && !span_eq(first->variant, d->variant))
			return true;
		if (!first)
			first = d;
		from = d->limit;
	}
	return first && from < MODEL_BUCKETS;
}

static void warn_about_shares(struct flag_snapshot *s, const struct rule *rule, const char *where)
{
	double total = 0;
	for (size_t i = 0; i < rule->n_distributions; i++) {
		const struct distribution *d = &rule->distributions[i];
		double tenths = (double)d->rollout * 10;
		total += (double)d->rollout;
		/* float32 holds 7 digits: 33.3 is 33.2999992. */
		if (fabs(tenths - nearbyint(tenths)) > 1e-4)
			model_warn(s, "%s: variant \"%s\" has %g %%, but Flipt works in steps of 0.1 %%",
				   where, d->variant.ptr, (double)d->rollout);
	}
	if (rule->n_distributions == 0 || fabs(total - 100) < 0.05)
		return;
	if (scales_shares(s->rules))
		model_warn(s,
			   "%s: the distributions add up to %g %%; under the rules of %s they are scaled to "
			   "100 %%",
			   where, total, flag_rules_text(s->rules));
	else if (total < 100)
		model_warn(s,
			   "%s: the distributions add up to %g %%; under the rules of %s the rest up to 100 "
			   "%% gets no variant",
			   where, total, flag_rules_text(s->rules));
	else
		model_warn(s,
			   "%s: the distributions add up to %g %%; under the rules of %s the excess over 100 "
			   "%% gets nobody",
			   where, total, flag_rules_text(s->rules));
}

void model_rule_finish(struct flag_snapshot *s, struct rule *rule, const char *where)
{
	size_t living = 0;
	for (size_t i = 0; i < rule->n_distributions; i++) {
		if (rule->distributions[i].rollout > 0)
			rule->distributions[living++] = rule->distributions[i];
	}
	rule->n_distributions = living;
	if (scales_shares(s->rules))
		limits_scaled(rule);
	else
		limits_as_written(rule);
	rule->by_percentage = splits(rule);
	warn_about_shares(s, rule, where);
}

void model_place(char out[MODEL_PLACE_MAX], const char *outer, const char *what, size_t index)
{
	if (snprintf(out, MODEL_PLACE_MAX, "%s, %s %zu", outer, what, index + 1) >= MODEL_PLACE_MAX)
		memcpy(out + MODEL_PLACE_MAX - sizeof("..."), "...", sizeof("..."));
}

void model_threshold_check(struct flag_snapshot *s, float percentage, const char *where)
{
	if (percentage < 0 || percentage > 100) {
		model_warn(s, "%s: a threshold of %g %% acts as %d %%", where, (double)percentage,
			   percentage < 0 ? 0 : 100);
		return;
	}
	double acts_as = ceil((double)percentage);
	if (acts_as - (double)percentage > 0)
		model_warn(s, "%s: a threshold of %g %% acts as %g %%: Flipt compares whole percents", where,
			   (double)percentage, acts_as);
}

/* --- reading -------------------------------------------------------------------------------------------- */
const char *flag_snapshot_digest(const struct flag_snapshot *s)
{
	return s->digest;
}

void flag_snapshot_set_digest(struct flag_snapshot *s, const char *digest)
{
	span_copy(span_of(digest), s->digest, sizeof(s->digest));
}

enum flag_rules flag_snapshot_rules(const struct flag_snapshot *s)
{
	return s->rules;
}

size_t flag_snapshot_count(const struct flag_snapshot *s)
{
	return s->n_flags;
}

const struct flag *flag_snapshot_at(const struct flag_snapshot *s, size_t i)
{
	return i < s->n_flags ? &s->flags[i] : NULL;
}

size_t flag_snapshot_warnings(const struct flag_snapshot *s)
{
	return s->n_warnings;
}

const char *flag_snapshot_warning(const struct flag_snapshot *s, size_t i)
{
	return i < s->n_warnings ? s->warnings[i] : NULL;
}

bool flag_snapshot_warning_is_mistake(const struct flag_snapshot *s, size_t i)
{
	return i < s->n_warnings && s->warning_is_mistake[i];
}

size_t flag_snapshot_mistakes(const struct flag_snapshot *s)
{
	return s->n_mistakes;
}

const char *flag_broken(const struct flag *f)
{
	return f->broken;
}

const char *flag_key(const struct flag *f)
{
	return f->key.ptr;
}

enum flag_type flag_type_of(const struct flag *f)
{
	return f->type;
}

bool flag_enabled(const struct flag *f)
{
	return f->enabled;
}

static bool names_everybody(const struct condition *c, struct span key)
{
	for (size_t i = 0; i < c->n_segments; i++)
		if (span_eq(c->segments[i]->key, key))
			return c->segments[i]->n_constraints == 0;
	return false;
}

bool flag_segment_is_everybody(const struct flag *f, struct span segment_key)
{
	bool found = false;
	for (size_t i = 0; i < f->n_rules && !found; i++)
		found = names_everybody(&f->rules[i].condition, segment_key);
	for (size_t i = 0; i < f->n_rollouts && !found; i++)
		found = !f->rollouts[i].is_threshold &&
			names_everybody(&f->rollouts[i].condition, segment_key);
	return found;
}
