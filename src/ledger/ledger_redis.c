#include "ledger/ledger_redis.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/crypto.h"
#include "base/log.h"
#include "base/text.h"
#include "ledger/ledger_store.h"
#include "ledger/redis_store.h"

#define REMOVALS_MAX (2 * LEDGER_QUEUE)
#define TURN_MS 50 /* between two looks whether another start has ended; up to half of timeout_ms */
#define TTL_MS ((int64_t)LEDGER_TTL_DAYS * 86400 * 1000)

/* --- scripts -------------------------------------------------------------------------------------------- */

/* KEYS: entry, none */
static const char script_ask[] =
	REDIS_REFUSE_REPLICA("KEYS[2]") "return redis.call('HMGET',KEYS[1],'backend',"
					"'task','version')";

/* KEYS: group, none. ARGV: age in µs */
static const char script_any[] = REDIS_REFUSE_REPLICA("KEYS[2]") REDIS_SERVER_NOW
	"return redis.call('ZCOUNT',KEYS[1],now-ARGV[1],'+inf')";

/* Whether another start is under way that goes elsewhere; if not, the turn is this one's. */
#define TAKE_TURN(turn, side, token, ms) \
	"local c=redis.call('HMGET'," turn ",'side','token') " \
	"if c[1] and c[1]~=" side " and c[2]~=" token " then return 'TAKEN' end " \
	"redis.call('HSET'," turn ",'side'," side ",'token'," token ") " \
	"redis.call('PEXPIRE'," turn "," ms ") "

/* KEYS: entry, group, turn. ARGV: end in µs by the server's clock, backend, task, version, age in ms, key,
 * token or "", ms of a turn */
static const char script_put[] =
	REDIS_SERVER_NOW REDIS_REFUSE_LATE("ARGV[1]") "if ARGV[7]~='' then " TAKE_TURN(
		"KEYS[3]", "'task '..ARGV[2]", "ARGV[7]",
		"ARGV[8]") "end "
			   "redis.call('HSET',KEYS[1],'backend',ARGV[2],'task',ARGV[3],'version',"
			   "ARGV[4],'at',"
			   "string.format('%.0f',now)) "
			   "redis.call('PEXPIRE',KEYS[1],ARGV[5]) "
			   "redis.call('ZREMRANGEBYSCORE',KEYS[2],'-inf',now-ARGV[5]*1000) "
			   "redis.call('ZADD',KEYS[2],now,ARGV[6]) "
			   "redis.call('PEXPIRE',KEYS[2],ARGV[5]) "
			   "return 'DONE'";

/* KEYS: entry, group, turn. ARGV: end, key, token, ms of a turn */
static const char script_take[] = REDIS_SERVER_NOW REDIS_REFUSE_LATE("ARGV[1]")
	TAKE_TURN("KEYS[3]", "'legacy'", "ARGV[3]", "ARGV[4]") "redis.call('DEL',KEYS[1]) "
							       "redis.call('ZREM',KEYS[2],ARGV[2]) "
							       "return 'DONE'";

/* KEYS: turn. ARGV: token */
static const char script_leave[] =
	"if redis.call('HGET',KEYS[1],'token')==ARGV[1] then redis.call('DEL',KEYS[1]) end return 'DONE'";

/* KEYS: entry, group, none. ARGV: version or "", latest `at` without one, key */
static const char script_remove[] =
	"redis.call('DEL',KEYS[3]) "
	"local e=redis.call('HMGET',KEYS[1],'version','at') "
	"if not e[1] then redis.call('ZREM',KEYS[2],ARGV[3]) return 'DONE' end "
	"local meant=ARGV[1]==e[1] "
	"if ARGV[1]=='' then meant=tonumber(e[2])<=tonumber(ARGV[2]) end "
	"if meant then redis.call('DEL',KEYS[1]) redis.call('ZREM',KEYS[2],ARGV[3]) end "
	"return 'DONE'";

/* --- what there is -------------------------------------------------------------------------------------- */

enum job_kind { JOB_ASK, JOB_ANY, JOB_PUT, JOB_REMOVE, JOB_TAKE, JOB_LEAVE };

/* One question or change: posted to the store's loop, and back. */
struct job {
	struct loop_work work; /* first */
	struct ledger_redis *l;
	enum job_kind kind;
	struct ledger_entry entry;
	char turn[CRYPTO_ID_HEX]; /* "": none */
	struct job *next;	  /* that waits for its turn */
	int64_t began_ms;	  /* monotonic */
	struct loop *loop;	  /* NULL: nobody waits */
	ledger_told_fn told;
	ledger_done_fn done;
	void *arg;
	enum ledger_answer answer;
	int error;
};

/* One that could not be written yet. */
struct removal {
	struct removal *next, **link;
	struct ledger_redis *l;
	struct ledger_entry entry;
	int64_t before_us; /* by the server's clock; of those without a version */
	bool sent;
	struct job *job; /* that waits for the first try, or NULL */
};

struct ledger_redis {
	struct ledger base; /* first */
	struct redis_store store;
	atomic_uint jobs; /* under way */
	/* the store's thread's */
	struct loop_timer *turns;
	struct job *turned_away; /* they try again */
	struct removal *removals, **last_removal;
	unsigned n_sent; /* of them */
	atomic_uint n_removals;
};

static struct ledger_redis *redis_of(struct ledger *l)
{
	return (struct ledger_redis *)l;
}

/* --- keys ----------------------------------------------------------------------------------------------- */

static void add_entry_key(struct redis_words *c, const struct ledger_redis *l, const struct ledger_entry *e)
{
	redis_words_key(c, &l->store, "entry:%zu:%s:%s", strlen(e->group), e->group, e->key);
}

static void add_group_key(struct redis_words *c, const struct ledger_redis *l, const struct ledger_entry *e)
{
	redis_words_key(c, &l->store, "group:%s", e->group);
}

static void add_turn_key(struct redis_words *c, const struct ledger_redis *l, const struct ledger_entry *e)
{
	redis_words_key(c, &l->store, "turn:%zu:%s:%s", strlen(e->group), e->group, e->key);
}

/* --- removals that wait --------------------------------------------------------------------------------- */

static void removal_drop(struct removal *m)
{
	struct ledger_redis *l = m->l;
	*m->link = m->next;
	if (m->next)
		m->next->link = m->link;
	else
		l->last_removal = m->link;
	free(m);
	l->n_removals--;
}

/* Whether this entry may be one that is to be removed. */
static bool is_going(const struct ledger_redis *l, const struct ledger_entry *e)
{
	for (const struct removal *m = l->removals; m; m = m->next)
		if (strcmp(m->entry.key, e->key) == 0 && strcmp(m->entry.group, e->group) == 0 &&
		    (!m->entry.created_us || m->entry.created_us == e->created_us))
			return true;
	return false;
}

static void job_end(struct job *j, enum ledger_answer answer, int error);

static void on_removed(void *arg, enum redis_outcome outcome, const struct redis_reply *reply,
		       const struct err *why)
{
	struct removal *m = arg;
	struct ledger_redis *l = m->l;
	char room[ERR_TEXT_MAX];
	const char *wrong = redis_store_complaint(outcome, reply, why, room);
	m->sent = false;
	l->n_sent--;
	if (m->job)
		job_end(m->job, LEDGER_NONE, 0);
	m->job = NULL;
	if (wrong) {
		redis_store_failed(&l->store, wrong);
	} else {
		removal_drop(m);
	}
	redis_store_settle(&l->store);
}

static void removal_send(struct removal *m)
{
	struct ledger_redis *l = m->l;
	struct redis_words c;
	redis_words_begin(&c, script_remove, "3");
	add_entry_key(&c, l, &m->entry);
	add_group_key(&c, l, &m->entry);
	redis_words_key(&c, &l->store, "none");
	if (m->entry.created_us)
		redis_words_number(&c, m->entry.created_us);
	else
		redis_words_text(&c, "");
	redis_words_number(&c, m->before_us);
	redis_words_text(&c, m->entry.key);
	m->sent = true;
	l->n_sent++;
	redis_words_send(&c, &l->store, on_removed, m);
}

static void removals_send(struct ledger_redis *l)
{
	for (struct removal *m = l->removals; m; m = m->next)
		if (!m->sent)
			removal_send(m);
}

static struct removal *removal_new(struct ledger_redis *l, const struct ledger_entry *entry)
{
	struct removal *m = malloc(sizeof(*m));
	if (!m)
		return NULL;
	*m = (struct removal){
		.l = l, .link = l->last_removal, .entry = *entry, .before_us = redis_store_now(&l->store)};
	*l->last_removal = m;
	l->last_removal = &m->next;
	l->n_removals++;
	return m;
}

/* --- jobs ----------------------------------------------------------------------------------------------- */

static void job_tell(struct loop_work *w)
{
	struct job *j = (struct job *)w;
	if (j->kind == JOB_ASK || j->kind == JOB_ANY)
		j->told(j->arg, j->answer,
			j->kind == JOB_ASK && j->answer == LEDGER_FOUND ? &j->entry : NULL);
	else if (j->done)
		j->done(j->arg, j->error);
	free(j);
}

static void job_end(struct job *j, enum ledger_answer answer, int error)
{
	struct ledger_redis *l = j->l;
	j->answer = answer;
	j->error = error;
	j->work.fn = job_tell;
	if (j->loop)
		loop_post(j->loop, &j->work);
	else
		free(j);
	atomic_fetch_sub(&l->jobs, 1);
	redis_store_settle(&l->store);
}

static enum ledger_answer read_entry(const struct redis_reply *reply, struct ledger_entry *ret)
{
	struct span backend = redis_reply_text(redis_reply_at(reply, 0));
	struct span version = redis_reply_text(redis_reply_at(reply, 2));
	if (!redis_reply_at(reply, 2)) /* an answer to something else */
		return LEDGER_UNKNOWN;
	if (!version.ptr) /* half an entry is not none */
		return backend.ptr ? LEDGER_UNKNOWN : LEDGER_NONE;
	char text[24];
	text_copy(version, text, sizeof(text));
	ret->created_us = strtoll(text, NULL, 10);
	span_copy(backend, ret->backend, sizeof(ret->backend));
	span_copy(redis_reply_text(redis_reply_at(reply, 1)), ret->task_id, sizeof(ret->task_id));
	return LEDGER_FOUND;
}

static void try_turns(void *arg);

/* Another start of the key is under way: it may be over soon. */
static void wait_for_turn(struct job *j)
{
	struct ledger_redis *l = j->l;
	bool over = clock_mono_ms() - j->began_ms >= l->store.timeout_ms / 2 || l->store.stopping;
	if (!over && !l->turns)
		over = loop_timer_new(l->store.loop, try_turns, l, &l->turns) < 0;
	if (over) {
		job_end(j, LEDGER_UNKNOWN, -EBUSY);
		return;
	}
	j->next = l->turned_away;
	l->turned_away = j;
	loop_timer_start(l->turns, TURN_MS);
}

/* Legacy starts a key of which the store cannot be told: what is there by now goes as soon as it can. */
static void remove_later(struct job *j)
{
	bool kept = j->l->n_removals < REMOVALS_MAX && removal_new(j->l, &j->entry);
	job_end(j, LEDGER_NONE, kept ? 0 : -EAGAIN);
}

static enum ledger_answer read_count(const struct redis_reply *reply)
{
	if (redis_reply_type(reply) != REDIS_INTEGER)
		return LEDGER_UNKNOWN;
	return redis_reply_integer(reply) > 0 ? LEDGER_FOUND : LEDGER_NONE;
}

static void on_job_answered(void *arg, enum redis_outcome outcome, const struct redis_reply *reply,
			    const struct err *why)
{
	struct job *j = arg;
	char room[ERR_TEXT_MAX];
	enum ledger_answer answer = LEDGER_UNKNOWN;
	const char *wrong = redis_store_complaint(outcome, reply, why, room);
	if (wrong) {
		redis_store_failed(&j->l->store, wrong);
	} else if (j->kind == JOB_ASK) {
		answer = read_entry(reply, &j->entry);
		if (answer == LEDGER_FOUND && is_going(j->l, &j->entry))
			answer = LEDGER_UNKNOWN;
	} else if (j->kind == JOB_ANY) {
		answer = read_count(reply);
	} else if (span_is(redis_reply_text(reply), "TAKEN")) {
		wait_for_turn(j);
		return;
	} else if (!span_is(redis_reply_text(reply), "DONE")) {
		wrong = "an answer to something else";
	}
	if (wrong && j->kind == JOB_TAKE)
		remove_later(j);
	else
		job_end(j, answer, wrong ? -EIO : 0);
}

static void job_ask(struct job *j)
{
	struct redis_words c;
	bool any = j->kind == JOB_ANY;
	redis_words_begin(&c, any ? script_any : script_ask, "2");
	if (any)
		add_group_key(&c, j->l, &j->entry);
	else
		add_entry_key(&c, j->l, &j->entry);
	redis_words_key(&c, &j->l->store, "none");
	if (any)
		redis_words_number(&c, TTL_MS * 1000);
	redis_words_send(&c, &j->l->store, on_job_answered, j);
}

static void job_put(struct job *j)
{
	struct ledger_redis *l = j->l;
	struct redis_words c;
	if (!l->store.clock_known) { /* nothing could keep it from being made too late */
		redis_store_count_error(&l->store);
		job_end(j, LEDGER_UNKNOWN, -ENOTCONN);
		return;
	}
	redis_words_begin(&c, script_put, "3");
	add_entry_key(&c, l, &j->entry);
	add_group_key(&c, l, &j->entry);
	add_turn_key(&c, l, &j->entry);
	redis_words_number(&c, redis_store_end(&l->store));
	redis_words_text(&c, j->entry.backend);
	redis_words_text(&c, j->entry.task_id);
	redis_words_number(&c, j->entry.created_us);
	redis_words_number(&c, TTL_MS);
	redis_words_text(&c, j->entry.key);
	redis_words_text(&c, j->turn);
	redis_words_number(&c, LEDGER_TURN_MS);
	redis_words_send(&c, &l->store, on_job_answered, j);
}

static void job_take(struct job *j)
{
	struct ledger_redis *l = j->l;
	struct redis_words c;
	if (!l->store.clock_known) {
		redis_store_count_error(&l->store);
		remove_later(j);
		return;
	}
	redis_words_begin(&c, script_take, "3");
	add_entry_key(&c, l, &j->entry);
	add_group_key(&c, l, &j->entry);
	add_turn_key(&c, l, &j->entry);
	redis_words_number(&c, redis_store_end(&l->store));
	redis_words_text(&c, j->entry.key);
	redis_words_text(&c, j->turn);
	redis_words_number(&c, LEDGER_TURN_MS);
	redis_words_send(&c, &l->store, on_job_answered, j);
}

/* Without an answer it ends by itself. */
static void job_leave(struct job *j)
{
	struct redis_words c;
	redis_words_begin(&c, script_leave, "1");
	add_turn_key(&c, j->l, &j->entry);
	redis_words_text(&c, j->turn);
	redis_words_send(&c, &j->l->store, on_job_answered, j);
}

/* It ends with the first try, whatever came of that: it is tried until it is written. */
static void job_remove(struct job *j)
{
	struct removal *m = j->l->n_removals < REMOVALS_MAX ? removal_new(j->l, &j->entry) : NULL;
	if (!m) {
		job_end(j, LEDGER_NONE, -EAGAIN);
		return;
	}
	m->job = j;
	removal_send(m);
}

static void job_begin(struct loop_work *w)
{
	static void (*const begin[])(struct job *) = {
		[JOB_ASK] = job_ask,	   [JOB_ANY] = job_ask,	  [JOB_PUT] = job_put,
		[JOB_REMOVE] = job_remove, [JOB_TAKE] = job_take, [JOB_LEAVE] = job_leave,
	};
	struct job *j = (struct job *)w;
	begin[j->kind](j);
}

static void try_turns(void *arg)
{
	struct ledger_redis *l = arg;
	struct job *waiting = l->turned_away;
	l->turned_away = NULL;
	for (struct job *j = waiting, *next; j; j = next) {
		next = j->next;
		job_begin(&j->work);
	}
}

/* NULL: too many are under way, or memory is out. */
static struct job *job_new(struct ledger_redis *l, enum job_kind kind, struct loop *loop, void *arg)
{
	struct job *j = atomic_load(&l->jobs) < LEDGER_QUEUE ? calloc(1, sizeof(*j)) : NULL;
	if (!j)
		return NULL;
	j->l = l;
	j->kind = kind;
	j->began_ms = clock_mono_ms();
	j->loop = loop;
	j->arg = arg;
	j->work.fn = job_begin;
	atomic_fetch_add(&l->jobs, 1);
	return j;
}

static void redis_ask(struct ledger *of, struct loop *loop, struct span group, struct span key,
		      ledger_told_fn fn, void *arg)
{
	struct ledger_redis *l = redis_of(of);
	struct ledger_entry entry = {0};
	if (ledger_entry_set(&entry, group, key) != 0) { /* no entry has such a key */
		fn(arg, LEDGER_NONE, NULL);
		return;
	}
	struct job *j = job_new(l, key.ptr ? JOB_ASK : JOB_ANY, loop, arg);
	if (!j) {
		fn(arg, LEDGER_UNKNOWN, NULL);
		return;
	}
	j->entry = entry;
	j->told = fn;
	loop_post(l->store.loop, &j->work);
}

static void redis_change(struct ledger_redis *l, enum job_kind kind, struct loop *loop,
			 const struct ledger_entry *entry, const char *turn, ledger_done_fn fn, void *arg)
{
	struct job *j = job_new(l, kind, fn ? loop : NULL, arg);
	if (!j) {
		if (fn)
			fn(arg, -EAGAIN);
		return;
	}
	j->entry = *entry;
	j->done = fn;
	text_copy(span_of(turn ? turn : ""), j->turn, sizeof(j->turn));
	if (kind == JOB_PUT && !entry->created_us)
		j->entry.created_us = clock_wall_us();
	loop_post(l->store.loop, &j->work);
}

static void redis_put(struct ledger *of, struct loop *loop, const struct ledger_entry *entry,
		      const char *turn, ledger_done_fn fn, void *arg)
{
	redis_change(redis_of(of), JOB_PUT, loop, entry, turn, fn, arg);
}

static void redis_take(struct ledger *of, struct loop *loop, const struct ledger_entry *key, const char *turn,
		       ledger_done_fn fn, void *arg)
{
	struct ledger_entry any = *key;
	any.created_us = 0;
	redis_change(redis_of(of), JOB_TAKE, loop, &any, turn, fn, arg);
}

static void redis_leave(struct ledger *of, const struct ledger_entry *key, const char *turn)
{
	redis_change(redis_of(of), JOB_LEAVE, NULL, key, turn, NULL, NULL);
}

static void redis_remove(struct ledger *of, struct loop *loop, const struct ledger_entry *entry,
			 ledger_done_fn fn, void *arg)
{
	redis_change(redis_of(of), JOB_REMOVE, loop, entry, NULL, fn, arg);
}

/* --- life ----------------------------------------------------------------------------------------------- */

static void redis_works(void *arg)
{
	removals_send(arg);
}

static bool redis_busy(void *arg)
{
	struct ledger_redis *l = arg;
	return atomic_load(&l->jobs) > 0 || l->n_sent > 0;
}

static void redis_release(struct ledger_redis *l)
{
	if (l->removals)
		log_error("state_removals_lost", LOG_STR("store", l->store.status.where),
			  LOG_INT("removals", l->n_removals));
	while (l->removals) {
		struct removal *m = l->removals;
		l->removals = m->next;
		free(m);
	}
	loop_timer_free(l->turns);
	redis_store_release(&l->store);
	free(l);
}

/* Jobs that are still under way end with the connection: nobody waits for them any more. */
static struct ledger *redis_stop(struct ledger *of)
{
	struct ledger_redis *l = redis_of(of);
	redis_store_stop(&l->store);
	redis_release(l);
	return NULL;
}

static void redis_status(struct ledger *of, struct ledger_status *ret)
{
	struct ledger_redis *l = redis_of(of);
	struct redis_store_status s;
	redis_store_status(&l->store, &s);
	*ret = (struct ledger_status){.remote = true,
				      .failing = s.failing,
				      .errors = s.errors,
				      .losses = s.losses,
				      .since_us = s.since_us,
				      .warning = s.warning,
				      .unwritten = l->n_removals};
	text_copy(span_of(s.where), ret->where, sizeof(ret->where));
	text_copy(span_of(s.last_error), ret->last_error, sizeof(ret->last_error));
}

/* Any number of processes may ask there. */
static int redis_share(struct ledger *l, struct err *e)
{
	(void)l;
	(void)e;
	return 0;
}

static void redis_unshare(struct ledger *l)
{
	(void)l;
}

static const struct ledger_verbs verbs = {.stop = redis_stop,
					  .ask = redis_ask,
					  .put = redis_put,
					  .remove = redis_remove,
					  .take = redis_take,
					  .leave = redis_leave,
					  .share = redis_share,
					  .unshare = redis_unshare,
					  .status = redis_status};

int ledger_redis_start(const struct ledger_options *o, struct ledger **ret, struct err *e)
{
	struct ledger_redis *l = calloc(1, sizeof(*l));
	if (!l)
		return err_set(e, -ENOMEM, "out of memory");
	l->base.verbs = &verbs;
	l->last_removal = &l->removals;
	const struct redis_store_options options = {.url = o->redis,
						    .prefix = o->prefix,
						    .timeout_ms = o->timeout_ms,
						    .arg = l,
						    .works = redis_works,
						    .stopping = redis_works,
						    .busy = redis_busy};
	int r = redis_store_start(&l->store, &options, e);
	if (r < 0) {
		free(l);
		return r;
	}
	*ret = &l->base;
	return 0;
}
