#include "guard/guard.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/crypto.h"
#include "base/log.h"
#include "guard/guard_store.h"

#define LOOK_MS 250 /* for what another process has written */
/* A queue takes its milliseconds, whatever it runs: twice a legacy that answers in one is nothing to stop a
 * migration for. The same as the gate's --max-slowdown. */
#define SLOW_OVER_US 1000000
#define LIMIT_LOOK_FIRST_US 10000000 /* for a limit of `slow`, while there is none */
#define LIMIT_LOOK_LAST_US 600000000
#define LIMIT_LEAST 200 /* successes of legacy */
#define DAY_MINUTES 1440
#define CLOCK_SLACK_US 5000000
#define BIT_SEEN 0x80 /* beside one for each kind */

struct guard_watched {
	struct guard_expected expected;
	bool announced;		/* expected is newer than what the file was compared with */
	int64_t announced_us;	/* when it came into force */
	char release[160];	/* asked for manually: the word on it; "" when not */
	struct guard_epoch now; /* row 0: none */
	struct entity_set seen, bad;
	bool entities_known; /* the sets hold what the file does: read when first needed */
	bool handled;	     /* what was asked has been done, in a transaction that has not ended yet */
	int64_t limit_looked_us, limit_pause_us;
	bool dirty;
};

struct guard {
	void (*changed)(void *arg);
	void *arg;
	atomic_bool asked; /* something waits for the next flush */

	pthread_mutex_t lock; /* over what follows */
	struct guard_watched *list;
	size_t n, found; /* found: the last one, for the next is often the same */
	bool known;
	char trouble[256];

	/* the recorder's thread */
	struct guard_store *store;
	bool stale, news; /* what is in memory may not be what the file has; `changed` is due */
	int64_t data_version, look_at_ms;
	struct guard_epoch read; /* one at a time */
};

/* --- life ----------------------------------------------------------------------------------------------- */

int guard_new(void (*changed)(void *arg), void *arg, struct guard **ret)
{
	struct guard *g = calloc(1, sizeof(*g));
	if (!g)
		return -ENOMEM;
	pthread_mutex_init(&g->lock, NULL);
	g->changed = changed;
	g->arg = arg;
	g->stale = true;
	*ret = g;
	return 0;
}

static void guard_forget(struct guard_watched *w)
{
	entity_set_clear(&w->seen);
	entity_set_clear(&w->bad);
	memset(&w->now, 0, sizeof(w->now));
	w->dirty = w->entities_known = false;
}

struct guard *guard_free(struct guard *g)
{
	if (!g)
		return NULL;
	for (size_t i = 0; i < g->n; i++)
		guard_forget(&g->list[i]);
	free(g->list);
	guard_store_free(g->store);
	pthread_mutex_destroy(&g->lock);
	free(g);
	return NULL;
}

/* --- what is asked of it ------------------------------------------------------------------------------ */

static struct guard_watched *guard_find(struct guard *g, const char *service, const char *operation)
{
	for (size_t i = 0; i < g->n; i++) {
		size_t at = (g->found + i) % g->n;
		if (strcmp(g->list[at].expected.operation, operation) != 0 ||
		    strcmp(g->list[at].expected.service, service) != 0)
			continue;
		g->found = at;
		return &g->list[at];
	}
	return NULL;
}

int guard_expect(struct guard *g, const struct guard_expected *list, size_t n)
{
	if (n > GUARD_OPERATIONS_MAX)
		return -E2BIG;
	struct guard_watched *new = calloc(n ? n : 1, sizeof(*new));
	if (!new)
		return -ENOMEM;
	int64_t now_us = clock_wall_us();
	pthread_mutex_lock(&g->lock);
	for (size_t i = 0; i < n; i++) {
		struct guard_watched *old = guard_find(g, list[i].service, list[i].operation);
		if (old) {
			new[i] = *old;
			memset(old, 0, sizeof(*old)); /* its sets have moved */
		} else {
			g->stale = true;
			g->known = false; /* of this one nothing has been read */
		}
		if (memcmp(&new[i].expected, &list[i], sizeof(list[i])) == 0)
			continue;
		new[i].expected = list[i];
		new[i].announced = true;
		new[i].announced_us = now_us;
		new[i].handled = false;
	}
	for (size_t i = 0; i < g->n; i++)
		guard_forget(&g->list[i]);
	free(g->list);
	g->list = new;
	g->n = n;
	g->found = 0;
	pthread_mutex_unlock(&g->lock);
	atomic_store(&g->asked, true);
	return 0;
}

int guard_release(struct guard *g, const char *service, const char *operation, const char *who)
{
	int r = 0;
	pthread_mutex_lock(&g->lock);
	struct guard_watched *w = guard_find(g, service, operation);
	if (!w)
		r = -ENOENT;
	else if (!g->known)
		r = -EAGAIN;
	if (r == 0) {
		snprintf(w->release, sizeof(w->release), "released manually%s%.120s", who[0] ? ": " : "",
			 who);
		w->handled = false;
	}
	pthread_mutex_unlock(&g->lock);
	if (r == 0)
		atomic_store(&g->asked, true);
	return r;
}

static void guard_describe(const struct guard_watched *w, int64_t now_us, struct guard_operation_verdict *v)
{
	span_copy(span_of(w->expected.service), v->service, sizeof(v->service));
	span_copy(span_of(w->expected.operation), v->operation, sizeof(v->operation));
	v->mode = w->expected.mode;
	guard_verdict_of_epoch(&w->now, now_us, v);
}

int guard_now(struct guard *g, bool *ret_known, struct guard_verdicts **ret)
{
	int64_t now_us = clock_wall_us();
	pthread_mutex_lock(&g->lock);
	struct guard_verdicts *v = calloc(1, sizeof(*v) + g->n * sizeof(v->operations[0]));
	for (size_t i = 0; v && i < g->n; i++)
		guard_describe(&g->list[i], now_us, &v->operations[v->n++]);
	*ret_known = g->known;
	pthread_mutex_unlock(&g->lock);
	*ret = v;
	return v ? 0 : -ENOMEM;
}

void guard_trouble(struct guard *g, char ret[256])
{
	pthread_mutex_lock(&g->lock);
	memcpy(ret, g->trouble, sizeof(g->trouble));
	pthread_mutex_unlock(&g->lock);
}

/* --- reading the file --------------------------------------------------------------------------------- */

static int guard_put_into(struct entity_set *set, uint64_t entity, uint8_t bits)
{
	uint8_t ignored;
	return entity_set_counts(set, entity) && bits ? entity_set_add(set, entity, bits, &ignored) : 0;
}

static int guard_on_entity(void *arg, uint64_t entity, uint8_t bits)
{
	struct guard_watched *w = arg;
	int r = guard_put_into(&w->seen, entity, bits & BIT_SEEN);
	return r < 0 ? r : guard_put_into(&w->bad, entity, bits & (uint8_t)~BIT_SEEN);
}

static int guard_write_set(struct guard *g, const struct guard_watched *w, const struct entity_set *set,
			   struct err *e)
{
	int r = 0;
	for (size_t i = 0; r == 0 && i < set->room; i++)
		if (set->slots[i].bits)
			r = guard_store_put_entity(g->store, w->now.row, set->slots[i].entity,
						   set->slots[i].bits, e);
	return r;
}

/* The file was deleted or replaced: it gets what memory has. A hold has not ended with it. */
static int guard_write_anew(struct guard *g, struct guard_watched *w, struct err *e)
{
	int r = guard_store_begin(g->store, w->expected.service, w->expected.operation, &w->now, e);
	if (r == 0)
		r = guard_store_put(g->store, &w->now, e);
	if (r == 0)
		r = guard_write_set(g, w, &w->seen, e);
	return r < 0 ? r : guard_write_set(g, w, &w->bad, e);
}

static int guard_load(struct guard *g, struct guard_watched *w, struct err *e)
{
	struct guard_epoch was = w->now;
	int r = guard_store_load(g->store, w->expected.service, w->expected.operation, &g->read, e);
	if (r < 0)
		return r;
	if (r == 0)
		return was.row ? guard_write_anew(g, w, e) : 0;
	guard_forget(w);
	w->now = g->read;
	g->news |= was.row != w->now.row || was.held_us != w->now.held_us || was.verdict != w->now.verdict;
	return 0;
}

/* Only who has something to add needs them: a process that drains does not read them again and again. */
static int guard_know_entities(struct guard *g, struct guard_watched *w, struct err *e)
{
	if (w->entities_known)
		return 0;
	entity_set_clear(&w->seen);
	entity_set_clear(&w->bad);
	w->seen.level = w->now.seen_level;
	w->bad.level = w->now.bad_level;
	int r = guard_store_each_entity(g->store, w->now.row, guard_on_entity, w, e);
	w->entities_known = r == 0;
	return r;
}

static int guard_load_all(struct guard *g, struct err *e)
{
	int64_t version;
	int r = guard_store_data_version(g->store, &version, e);
	if (r < 0 || (!g->stale && version == g->data_version))
		return r;
	for (size_t i = 0; i < g->n; i++)
		if ((r = guard_load(g, &g->list[i], e)) < 0)
			return r;
	g->data_version = version;
	g->stale = false;
	return 0;
}

/* --- epochs ------------------------------------------------------------------------------------------- */

static bool guard_same_rule(const struct guard_epoch *now, const struct guard_expected *x)
{
	return now->rule.alpha == x->rule.alpha && now->rule.tolerated == x->rule.tolerated &&
	       now->rule.harm == x->rule.harm && now->rule.negligible == x->rule.negligible &&
	       now->slow_factor == x->slow_factor;
}

static const char *guard_why_anew(const struct guard_watched *w)
{
	if (w->release[0])
		return w->release;
	if (!w->announced)
		return NULL;
	if (!w->now.row)
		return w->expected.mode == GUARD_OFF ? NULL : "the first";
	if (w->now.split != w->expected.split)
		return "the split changed";
	return guard_same_rule(&w->now, &w->expected) ? NULL : "the guard's settings changed";
}

static int guard_find_limit(struct guard *g, struct guard_watched *w, int64_t now_us, struct err *e)
{
	/* It reads a day's sums: less and less often, where legacy has too few answers for long. */
	w->limit_looked_us = now_us;
	w->limit_pause_us = w->limit_pause_us ? 2 * w->limit_pause_us : LIMIT_LOOK_FIRST_US;
	if (w->limit_pause_us > LIMIT_LOOK_LAST_US)
		w->limit_pause_us = LIMIT_LOOK_LAST_US;
	if (w->now.slow_factor <= 0)
		return 0;
	int64_t p99;
	int r = guard_store_legacy_p99(g->store, w->expected.service, w->expected.operation,
				       now_us / 60000000 - DAY_MINUTES, LIMIT_LEAST, &p99, e);
	if (r < 0 || p99 <= 0)
		return r;
	w->now.limit_us = (int64_t)((double)p99 * w->now.slow_factor);
	if (w->now.limit_us < p99 + SLOW_OVER_US)
		w->now.limit_us = p99 + SLOW_OVER_US;
	w->dirty = true;
	return 0;
}

static int guard_begin(struct guard *g, struct guard_watched *w, const char *why, int64_t began_us,
		       struct err *e)
{
	char because[sizeof(w->now.because)];
	span_copy(span_of(why), because, sizeof(because));
	guard_forget(w);
	w->limit_pause_us = 0;
	w->now.split = w->expected.split;
	w->now.rule = w->expected.rule;
	w->now.slow_factor = w->expected.slow_factor;
	w->now.mode = w->expected.mode;
	w->now.began_us = w->now.changed_us = began_us;
	memcpy(w->now.because, because, sizeof(because));
	int r = guard_find_limit(g, w, began_us, e);
	w->dirty = false;
	w->entities_known = g->news = true;
	return r < 0 ? r
		     : guard_store_begin(g->store, w->expected.service, w->expected.operation, &w->now, e);
}

/* What the mode makes of the verdict. */
static int guard_act(struct guard *g, struct guard_watched *w, int64_t now_us, struct err *e)
{
	struct guard_epoch *now = &w->now;
	if (now->mode < GUARD_HOLD || now->verdict != GUARD_BREACH) {
		now->held_us = 0;
		return 0;
	}
	if (!now->held_us)
		now->held_us = now_us;
	now->keeps = 0;
	if (now->mode != GUARD_ROLLBACK)
		return 0;
	return guard_store_last_safe(g->store, w->expected.service, w->expected.operation, now->number,
				     &now->keeps, e);
}

/* What was asked for since the last flush. */
static int guard_catch_up(struct guard *g, struct guard_watched *w, int64_t now_us, struct err *e)
{
	const char *why = guard_why_anew(w);
	w->handled = true;
	if (why)
		return guard_begin(g, w, why, w->release[0] ? now_us : w->announced_us, e);
	if (w->now.row && w->now.mode != w->expected.mode && w->announced) {
		w->now.mode = w->expected.mode;
		w->dirty = g->news = true;
		int r = guard_act(g, w, now_us, e);
		if (r < 0)
			return r;
	}
	if (w->now.began_us > now_us + CLOCK_SLACK_US) { /* the clock was ahead when it began */
		w->now.began_us = now_us;
		w->dirty = true;
	}
	if (w->now.row && !w->now.limit_us && w->now.slow_factor > 0 &&
	    llabs(now_us - w->limit_looked_us) >= w->limit_pause_us)
		return guard_find_limit(g, w, now_us, e);
	return 0;
}

/* --- outcomes ----------------------------------------------------------------------------------------- */

/* Ids are pseudonyms where they are everywhere else. */
static uint64_t guard_entity(const struct outcome *o, struct span user_key)
{
	char hex[CRYPTO_SHA256_HEX];
	if (!user_key.ptr)
		return o->entity;
	crypto_hmac_sha256_hex(user_key, (struct span){(const char *)&o->entity, sizeof(o->entity)}, hex);
	hex[16] = '\0';
	return strtoull(hex, NULL, 16);
}

static bool guard_kind_of(const struct guard_watched *w, const struct outcome *o, enum guard_kind *ret)
{
	switch (o->result) {
	case OUTCOME_FAILURE:
	case OUTCOME_TIMEOUT:
	case OUTCOME_UNKNOWN:
		*ret = GUARD_FAILURE;
		return true;
	case OUTCOME_REJECTED:
		*ret = GUARD_REJECTED;
		return true;
	case OUTCOME_SUCCESS:
		*ret = GUARD_SLOW;
		return w->now.limit_us > 0 && o->latency_us > w->now.limit_us;
	default:
		return false;
	}
}

/* Adds what is new of the entity, here and in the file. */
static int guard_add_entity(struct guard *g, struct guard_watched *w, struct entity_set *set, uint64_t entity,
			    uint8_t bit, bool *ret_new, struct err *e)
{
	uint8_t new = 0;
	unsigned level = set->level;
	*ret_new = false;
	if (!entity_set_counts(set, entity))
		return 0;
	int r = entity_set_add(set, entity, bit, &new);
	if (r < 0)
		return err_set(e, r, "out of memory");
	if (set->level != level)
		r = guard_store_thin(g->store, w->now.row, set->level,
				     set == &w->seen ? BIT_SEEN : (uint8_t)~BIT_SEEN, e);
	w->now.seen_level = w->seen.level;
	w->now.bad_level = w->bad.level;
	*ret_new = new != 0;
	w->dirty |= new || set->level != level;
	return r == 0 && new ? guard_store_put_entity(g->store, w->now.row, entity, bit, e) : r;
}

static int guard_see(struct guard *g, struct guard_watched *w, const struct outcome *o, uint64_t entity,
		     int64_t now_us, struct err *e)
{
	bool new;
	int r = guard_add_entity(g, w, &w->seen, entity, BIT_SEEN, &new, e);
	if (r < 0 || !new)
		return r;
	struct guard_sight s = {.assigned = o->assigned,
				.served = o->side,
				.reason = o->reason,
				.share = o->share,
				.stands_for = UINT64_C(1) << w->seen.level,
				.now_us = now_us};
	guard_evidence_seen(&w->now.evidence, &w->now.rule, &s);
	return 0;
}

static int guard_see_bad(struct guard *g, struct guard_watched *w, const struct outcome *o, uint64_t entity,
			 int64_t now_us, struct err *e)
{
	enum guard_kind kind;
	bool new;
	if (!guard_kind_of(w, o, &kind))
		return 0;
	int r = guard_add_entity(g, w, &w->bad, entity, (uint8_t)(1 << kind), &new, e);
	if (r < 0 || !new)
		return r;
	struct guard_bad b = {.kind = kind,
			      .assigned = o->assigned,
			      .share = o->share,
			      .seen = entity_set_bits(&w->seen, entity) != 0,
			      .now_us = now_us};
	guard_evidence_bad(&w->now.evidence, &w->now.rule, &b);
	return 0;
}

/* Of another split: begun before this one came into force, or decided where it has not come to yet. */
static bool guard_counts(const struct guard_watched *w, const struct outcome *o)
{
	return w->now.row && w->now.mode != GUARD_OFF && !w->now.held_us && o->split == w->now.split &&
	       o->time_us >= w->now.began_us;
}

static int guard_take(struct guard *g, const struct outcome *o, struct span user_key, int64_t now_us,
		      struct err *e)
{
	if (o->role != OUTCOME_PRIMARY || !(o->share > 0 && o->share < 1))
		return 0;
	struct guard_watched *w = guard_find(g, o->service, o->operation);
	if (!w || !guard_counts(w, o))
		return 0;
	uint64_t entity = guard_entity(o, user_key);
	int r = guard_know_entities(g, w, e);
	if (r < 0)
		return r;
	r = guard_see(g, w, o, entity, now_us, e);
	return r < 0 ? r : guard_see_bad(g, w, o, entity, now_us, e);
}

/* --- verdicts ----------------------------------------------------------------------------------------- */

static int guard_settle(struct guard *g, struct guard_watched *w, int64_t now_us, struct err *e)
{
	if (!w->dirty)
		return 0;
	struct guard_operation_verdict v = {.began_us = w->now.began_us};
	guard_evidence_verdict(&w->now.evidence, &w->now.rule, w->now.limit_us > 0, now_us, &v);
	if (v.verdict != w->now.verdict) {
		w->now.verdict = v.verdict;
		w->now.changed_us = now_us;
		g->news = true;
		int r = guard_act(g, w, now_us, e);
		if (r < 0)
			return r;
	}
	w->dirty = false;
	return guard_store_put(g->store, &w->now, e);
}

static int guard_write_all(struct guard *g, const struct recorder_batch *b, struct err *e)
{
	int r = guard_load_all(g, e);
	for (size_t i = 0; r == 0 && i < g->n; i++)
		r = guard_catch_up(g, &g->list[i], b->now_us, e);
	for (size_t i = 0; r == 0 && i < b->count; i++)
		r = guard_take(g, &b->outcomes[i], b->user_key, b->now_us, e);
	for (size_t i = 0; r == 0 && i < g->n; i++)
		r = guard_settle(g, &g->list[i], b->now_us, e);
	return r;
}

/* --- the recorder's tap ------------------------------------------------------------------------------- */

static int guard_opened(void *arg, struct db *db, struct err *e)
{
	struct guard *g = arg;
	pthread_mutex_lock(&g->lock);
	g->stale = true;
	pthread_mutex_unlock(&g->lock);
	atomic_store(&g->asked, true); /* to read it, though nothing happens */
	return guard_store_new(db, &g->store, e);
}

static void guard_closed(void *arg)
{
	struct guard *g = arg;
	g->store = guard_store_free(g->store);
}

static bool guard_due(void *arg)
{
	struct guard *g = arg;
	struct err e;
	int64_t version, now_ms = clock_mono_ms();
	if (!g->store)
		return false;
	if (atomic_load(&g->asked))
		return true;
	if (now_ms < g->look_at_ms)
		return false;
	g->look_at_ms = now_ms + LOOK_MS;
	return guard_store_data_version(g->store, &version, &e) == 0 && version != g->data_version;
}

static int guard_write(void *arg, const struct recorder_batch *b, struct err *e)
{
	struct guard *g = arg;
	if (!g->store)
		return err_set(e, -EIO, "the guard's tables could not be opened");
	atomic_store(&g->asked, false);
	pthread_mutex_lock(&g->lock);
	int r = guard_write_all(g, b, e);
	pthread_mutex_unlock(&g->lock);
	return r;
}

static void guard_committed(struct guard *g)
{
	for (size_t i = 0; i < g->n; i++) {
		struct guard_watched *w = &g->list[i];
		if (!w->handled) /* asked for since */
			continue;
		w->announced = w->handled = false;
		w->release[0] = '\0';
	}
	g->news |= !g->known;
	g->known = true;
}

static void guard_ended(void *arg, bool committed, const char *why)
{
	struct guard *g = arg;
	bool well = committed && !why, was_well;
	pthread_mutex_lock(&g->lock);
	was_well = !g->trouble[0];
	const char *trouble = well ? "" : why;
	span_copy(span_of(trouble ? trouble : "the batch could not be written"), g->trouble,
		  sizeof(g->trouble));
	if (well)
		guard_committed(g);
	else
		g->stale = true;
	pthread_mutex_unlock(&g->lock);
	if (!well)
		atomic_store(&g->asked, true);
	if (!well && was_well)
		log_error("guard_failing", LOG_STR("error", g->trouble));
	if (well && !was_well)
		log_info("guard_recovered",
			 LOG_STR("effect", "outcomes recorded meanwhile are not used as evidence"));
	if (well && g->news && g->changed)
		g->changed(g->arg);
	g->news &= !well;
}

void guard_tap(struct guard *g, struct recorder_tap *ret)
{
	*ret = (struct recorder_tap){.arg = g,
				     .opened = guard_opened,
				     .closed = guard_closed,
				     .due = guard_due,
				     .write = guard_write,
				     .ended = guard_ended};
}
