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
#include "guard/guard_joint.h"
#include "guard/guard_watched.h"

#define LOOK_MS 250 /* for what another process has written */
/* A queue takes its milliseconds, whatever it runs: twice a legacy that answers in one is nothing to stop a
 * migration for. The same as the gate's --max-slowdown. */
#define SLOW_OVER_US 1000000
#define LIMIT_LOOK_FIRST_US 10000000 /* for a limit of `slow`, while there is none */
#define LIMIT_LOOK_LAST_US 600000000
#define LIMIT_LEAST 200 /* successes of legacy */
#define DAY_MINUTES 1440
#define CLOCK_SLACK_US 5000000

struct guard {
	void (*changed)(void *arg);
	void *arg;
	atomic_bool asked; /* something waits for the next flush */

	pthread_mutex_t lock; /* over what follows */
	struct guard_watched *list;
	size_t n, found;       /* found: the last one, for the next is often the same */
	bool known, was_known; /* was_known: since the start */
	bool told;	       /* guard_expect was called */
	char trouble[256];
	struct guard_share *share; /* NULL: nobody shares it */

	/* the recorder's thread */
	struct guard_store *store;
	struct guard_waiting *waiting; /* with a share */
	bool works;		       /* the share did when it was last looked at */
	bool stale, news;	       /* what is in memory may not be what the file has; `changed` is due */
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

static void guard_on_news(void *arg)
{
	struct guard *g = arg;
	atomic_store(&g->asked, true);
}

int guard_share_with(struct guard *g, const char *url, const char *prefix, unsigned timeout_ms, struct err *e)
{
	const struct guard_share_options o = {
		.url = url, .prefix = prefix, .timeout_ms = timeout_ms, .news = guard_on_news, .arg = g};
	return guard_share_start(&o, &g->share, e);
}

static void guard_drop(struct guard_watched *w)
{
	guard_joint_leave(w);
	guard_forget(w);
}

struct guard *guard_free(struct guard *g)
{
	if (!g)
		return NULL;
	for (size_t i = 0; i < g->n; i++)
		guard_drop(&g->list[i]);
	free(g->list);
	guard_share_stop(g->share);
	guard_store_free(g->store);
	guard_waiting_free(g->waiting);
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
		guard_drop(&g->list[i]);
	free(g->list);
	g->list = new;
	g->told = true;
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
	v->generation = w->joint.generation;
	v->generation_us = w->joint.began_us;
	memcpy(v->found_by, w->joint.by, sizeof(v->found_by));
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

bool guard_is_shared(struct guard *g, char ret[256])
{
	ret[0] = '\0';
	if (g->share)
		guard_share_trouble(g->share, ret);
	return g->share != NULL;
}

/* --- reading the file --------------------------------------------------------------------------------- */

static struct guard_joint_context guard_context(const struct guard *g, int64_t now_us)
{
	return (struct guard_joint_context){g->store, g->waiting, g->share, g->works, now_us};
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
	if (r == 0)
		r = guard_write_set(g, w, &w->bad, e);
	struct guard_joint_context c = guard_context(g, 0);
	return r < 0 ? r : guard_joint_write_anew(&c, w, e);
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
	struct guard_joint_context c = guard_context(g, 0);
	return guard_joint_load(&c, w, e);
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

static const char *guard_why_anew(const struct guard_watched *w, bool shared)
{
	if (w->release[0])
		return w->release;
	if (w->announced && !w->now.row)
		return w->expected.mode == GUARD_OFF ? NULL : "the first";
	if (w->announced && w->now.split != w->expected.split)
		return "the split changed";
	if (w->announced && !guard_same_rule(&w->now, &w->expected))
		return "the guard's settings changed";
	if (w->moved[0] && w->moved_to > w->joint.generation)
		return w->moved;
	if (shared && w->now.row && !w->joint_there && !w->now.held_us && w->expected.mode != GUARD_OFF)
		return "evidence is shared with other routers from now on";
	return NULL;
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

/* The generation that a release ends, for all replicas. */
static int64_t guard_ends(const struct guard_watched *w, const char *why)
{
	if (why != w->release || w->now.split != w->expected.split || !guard_same_rule(&w->now, &w->expected))
		return 0;
	return w->joint.generation ? w->joint.generation
				   : w->joint.ends; /* that of before, during an outage */
}

static int guard_begin(struct guard *g, struct guard_watched *w, const char *why, int64_t now_us,
		       struct err *e)
{
	char because[sizeof(w->now.because)];
	int64_t ends = guard_ends(w, why), joined = why == w->moved ? w->moved_to : 0;
	bool of_flags = w->announced && why != w->release && why != w->moved;
	int64_t began_us = of_flags ? w->announced_us : now_us;
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
	if (r == 0)
		r = guard_store_begin(g->store, w->expected.service, w->expected.operation, &w->now, e);
	struct guard_joint_context c = guard_context(g, now_us);
	return r < 0 ? r : guard_joint_begin(&c, w, ends, joined, e);
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
	if (w->joint.by[0]) {
		now->keeps = w->joint.keeps;
		return 0;
	}
	return guard_store_last_safe(g->store, w->expected.service, w->expected.operation, now->number,
				     &now->keeps, e);
}

/* What was asked for since the last flush. */
static int guard_catch_up(struct guard *g, struct guard_watched *w, int64_t now_us, struct err *e)
{
	const char *why = guard_why_anew(w, g->share != NULL);
	w->handled = true;
	if (why)
		return guard_begin(g, w, why, now_us, e);
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

/* Ids are pseudonyms where they are everywhere else; replicas must have the same. */
static uint64_t guard_entity(struct guard *g, const struct outcome *o, struct span user_key)
{
	char hex[CRYPTO_SHA256_HEX], room[CRYPTO_SHA256_HEX];
	if (!user_key.ptr)
		return o->entity;
	struct span key = g->share ? guard_share_key(g->share, room) : user_key;
	if (!key.ptr)
		key = user_key;
	crypto_hmac_sha256_hex(key, (struct span){(const char *)&o->entity, sizeof(o->entity)}, hex);
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
	if (g->share && !g->known) /* it goes to legacy whatever was said */
		return 0;
	struct guard_watched *w = guard_find(g, o->service, o->operation);
	if (!w || !guard_counts(w, o))
		return 0;
	struct guard_event event = {.entity = guard_entity(g, o, user_key),
				    .share = o->share,
				    .bit = GUARD_BIT_SEEN,
				    .assigned = (uint8_t)o->assigned,
				    .served = (uint8_t)o->side,
				    .reason = (uint8_t)o->reason};
	struct guard_joint_context c = guard_context(g, now_us);
	int r = guard_joint_event(&c, w, &event, e);
	enum guard_kind kind;
	if (r < 0 || !guard_kind_of(w, o, &kind))
		return r;
	event.bit = (uint8_t)(1u << kind);
	return guard_joint_event(&c, w, &event, e);
}

/* --- verdicts ----------------------------------------------------------------------------------------- */

static int guard_settle(struct guard *g, struct guard_watched *w, int64_t now_us, struct err *e)
{
	if (!w->dirty)
		return 0;
	struct guard_operation_verdict v = {.began_us = w->now.began_us};
	guard_evidence_verdict(&w->now.evidence, &w->now.rule, w->now.limit_us > 0, now_us, &v);
	if (w->joint.breached_us)
		v.verdict = GUARD_BREACH;
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

/* What the server of replicas said, and what waits for it. */
static int guard_join_in(struct guard *g, struct guard_watched *w, int64_t now_us, struct err *e)
{
	if (!g->share)
		return 0;
	struct guard_joint_context c = guard_context(g, now_us);
	return guard_joint_receive(&c, w, e);
}

static int guard_write_one(struct guard *g, struct guard_watched *w, int64_t now_us, struct err *e)
{
	struct guard_joint_context c = guard_context(g, now_us);
	int r = g->share && w->now.row && !w->now.held_us ? guard_joint_alone(&c, w, e) : 0;
	if (r == 0)
		r = guard_settle(g, w, now_us, e);
	return r < 0 ? r : guard_joint_write(&c, w, e);
}

static int guard_write_all(struct guard *g, const struct recorder_batch *b, struct err *e)
{
	g->works = g->share && guard_share_works(g->share);
	int r = guard_load_all(g, e);
	for (size_t i = 0; r == 0 && i < g->n; i++)
		r = guard_join_in(g, &g->list[i], b->now_us, e);
	for (size_t i = 0; r == 0 && i < g->n; i++)
		r = guard_catch_up(g, &g->list[i], b->now_us, e);
	for (size_t i = 0; r == 0 && i < b->count; i++)
		r = guard_take(g, &b->outcomes[i], b->user_key, b->now_us, e);
	for (size_t i = 0; r == 0 && i < g->n; i++)
		r = guard_write_one(g, &g->list[i], b->now_us, e);
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
	int r = guard_store_new(db, &g->store, e);
	return r == 0 && g->share ? guard_waiting_new(db, &g->waiting, e) : r;
}

static void guard_closed(void *arg)
{
	struct guard *g = arg;
	g->waiting = guard_waiting_free(g->waiting);
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
	if (!g->store || (g->share && !g->waiting))
		return err_set(e, -EIO, "the guard's tables could not be opened");
	atomic_store(&g->asked, false);
	pthread_mutex_lock(&g->lock);
	int r = guard_write_all(g, b, e);
	pthread_mutex_unlock(&g->lock);
	return r;
}

/* Every operation has been told what holds; one that runs on without the server has been before. */
static bool guard_has_heard(const struct guard *g)
{
	bool all = g->told;
	for (size_t i = 0; i < g->n; i++)
		all = all && (g->list[i].heard || g->list[i].expected.mode == GUARD_OFF);
	return !g->share || all || (g->was_known && !g->works);
}

static void guard_committed(struct guard *g)
{
	struct guard_joint_context c = guard_context(g, 0);
	for (size_t i = 0; i < g->n; i++) {
		struct guard_watched *w = &g->list[i];
		w->heard |= w->hears;
		if (g->share)
			guard_joint_ask(&c, w);
		if (!w->handled) /* asked for since */
			continue;
		w->announced = w->handled = false;
		w->release[0] = w->moved[0] = '\0';
	}
	bool knew = g->known;
	g->known = knew || guard_has_heard(g);
	g->was_known |= g->known;
	g->news |= !knew && g->known;
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
