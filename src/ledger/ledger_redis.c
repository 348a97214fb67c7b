#include "ledger/ledger_redis.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/crypto.h"
#include "base/log.h"
#include "base/redis.h"
#include "base/text.h"
#include "ledger/ledger_store.h"

#define BEAT_MS 1000
#define ALIVE_MS "10000"  /* of the key that each beat writes */
#define CONNECT_MS 1000	  /* no more than timeout_ms */
#define STOP_MORE_MS 1000 /* than timeout_ms */
#define REMOVALS_MAX (2 * LEDGER_QUEUE)
#define TURN_MS 50 /* between two looks whether another start has ended; up to half of timeout_ms */
#define TTL_MS ((int64_t)LEDGER_TTL_DAYS * 86400 * 1000)
#define KEY_ROOM 2048

/* --- scripts -------------------------------------------------------------------------------------------- */

/* A server that has become a replica refuses it, whatever it would do: reading there could miss what the
 * primary has. Nothing is ever at that key. */
#define REFUSE_REPLICA(key) \
	"local p=redis.pcall('DEL'," key ") " \
	"if type(p)=='table' and p.err and p.err:find('READONLY') then return p end "

#define SERVER_NOW "local t=redis.call('TIME') local now=t[1]*1000000+t[2] "

/* KEYS: entry, none */
static const char script_ask[] = REFUSE_REPLICA("KEYS[2]") "return redis.call('HMGET',KEYS[1],'backend',"
							   "'task','version')";

/* KEYS: group, none. ARGV: age in µs */
static const char script_any[] =
	REFUSE_REPLICA("KEYS[2]") SERVER_NOW "return redis.call('ZCOUNT',KEYS[1],now-ARGV[1],'+inf')";

/* Whether another start is under way that goes elsewhere; if not, the turn is this one's. */
#define TAKE_TURN(turn, side, token, ms) \
	"local c=redis.call('HMGET'," turn ",'side','token') " \
	"if c[1] and c[1]~=" side " and c[2]~=" token " then return 'TAKEN' end " \
	"redis.call('HSET'," turn ",'side'," side ",'token'," token ") " \
	"redis.call('PEXPIRE'," turn "," ms ") "

/* KEYS: entry, group, turn. ARGV: end in µs by the server's clock, backend, task, version, age in ms, key,
 * token or "", ms of a turn */
static const char script_put[] =
	SERVER_NOW "if now>tonumber(ARGV[1]) then return 'LATE' end "
		   "if ARGV[7]~='' then " TAKE_TURN(
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
static const char script_take[] = SERVER_NOW "if now>tonumber(ARGV[1]) then return 'LATE' end " TAKE_TURN(
	"KEYS[3]", "'legacy'", "ARGV[3]", "ARGV[4]") "redis.call('DEL',KEYS[1]) "
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

/* KEYS: alive, since. ARGV: ms. What writing needs is there; how late it is there; and since when it has its
 * memory. */
static const char script_beat[] = SERVER_NOW "redis.call('SET',KEYS[1],'1','PX',ARGV[1]) "
					     "redis.call('SET',KEYS[2],string.format('%.0f',now),'NX') "
					     "return {string.format('%.0f',now),redis.call('GET',KEYS[2])}";

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
	pthread_t thread;
	struct loop *loop;
	char *prefix;
	unsigned timeout_ms;
	atomic_uint jobs; /* under way */
	struct loop_work stop;
	/* the thread's */
	struct redis *redis;
	struct loop_timer *beat, *patience, *turns;
	struct job *turned_away; /* they try again */
	struct removal *removals, **last_removal;
	unsigned n_sent; /* of them */
	bool stopping, beating;
	int64_t beat_us;  /* monotonic: of the beat under way */
	bool clock_known; /* and then: */
	int64_t clock_us; /* the server's clock less our monotonic one; never too large */
	char since[24];	  /* of the server's memory; "" before it was asked */
	/* under lock */
	pthread_mutex_t lock;
	pthread_cond_t met;
	bool has_met; /* the server has answered, or could not */
	struct ledger_status status;
	uint64_t errors_before; /* of them before this outage */
	int64_t failing_ms;	/* monotonic: since when */
	unsigned n_removals;
};

static struct ledger_redis *redis_store(struct ledger *l)
{
	return (struct ledger_redis *)l;
}

/* --- its state ------------------------------------------------------------------------------------------ */

static void store_met(struct ledger_redis *l)
{
	l->has_met = true;
	pthread_cond_broadcast(&l->met);
}

static void store_failing(struct ledger_redis *l, const char *why)
{
	pthread_mutex_lock(&l->lock);
	bool news = !l->status.failing;
	l->status.failing = true;
	text_copy(span_of(why), l->status.last_error, sizeof(l->status.last_error));
	if (news) {
		l->status.since_us = clock_wall_us();
		l->failing_ms = clock_mono_ms();
		l->errors_before = l->status.errors;
	}
	store_met(l);
	pthread_mutex_unlock(&l->lock);
	if (news)
		log_error("state_unavailable", LOG_STR("store", l->status.where), LOG_STR("error", why));
}

static void store_working(struct ledger_redis *l)
{
	pthread_mutex_lock(&l->lock);
	bool news = l->status.failing;
	int64_t lasted_ms = clock_mono_ms() - l->failing_ms;
	uint64_t errors = l->status.errors - l->errors_before;
	if (news || !l->has_met)
		l->status.since_us = clock_wall_us();
	l->status.failing = false;
	l->status.last_error[0] = '\0';
	store_met(l);
	pthread_mutex_unlock(&l->lock);
	if (news)
		log_info("state_available", LOG_STR("store", l->status.where),
			 LOG_INT("lasted_ms", lasted_ms), LOG_INT("errors", errors));
}

static void store_count_error(struct ledger_redis *l)
{
	pthread_mutex_lock(&l->lock);
	l->status.errors++;
	pthread_mutex_unlock(&l->lock);
}

static void store_warn(struct ledger_redis *l, const char *warning)
{
	pthread_mutex_lock(&l->lock);
	bool news = warning && warning != l->status.warning;
	l->status.warning = warning;
	pthread_mutex_unlock(&l->lock);
	if (news)
		log_warn("state_may_be_lost", LOG_STR("store", l->status.where), LOG_STR("why", warning));
}

/* What an outcome says against the server; NULL: it did as it was told. */
static const char *complaint(enum redis_outcome outcome, const struct redis_reply *reply,
			     const struct err *why, char room[ERR_TEXT_MAX])
{
	if (outcome != REDIS_ANSWERED)
		return why->text;
	struct span text = redis_reply_text(reply);
	if (redis_reply_type(reply) == REDIS_ERROR) {
		text_copy(text, room, ERR_TEXT_MAX);
		return room;
	}
	return span_is(text, "LATE") ? "a change came too late to be made" : NULL;
}

/* --- keys ----------------------------------------------------------------------------------------------- */

/* The words of a command, with the memory of those that are made. */
struct command {
	struct buf text;
	size_t ends[8];
	size_t n_made;
	struct span words[16];
	size_t n;
};

static void command_add(struct command *c, struct span word)
{
	c->words[c->n++] = word;
}

static void command_text(struct command *c, const char *text)
{
	command_add(c, span_of(text));
}

static void command_begin(struct command *c, const char *script, const char *n_keys)
{
	*c = (struct command){0};
	buf_init(&c->text, KEY_ROOM);
	command_text(c, "EVAL");
	command_text(c, script);
	command_text(c, n_keys);
}

/* A word that is made: its text follows in c->text until the next one, since that may move. */
static void command_made(struct command *c)
{
	c->ends[c->n_made++] = c->text.len;
	command_add(c, SPAN_NONE);
}

static void add_entry_key(struct command *c, const struct ledger_redis *l, const struct ledger_entry *e)
{
	buf_printf(&c->text, "%sentry:%zu:%s:%s", l->prefix, strlen(e->group), e->group, e->key);
	command_made(c);
}

static void add_group_key(struct command *c, const struct ledger_redis *l, const struct ledger_entry *e)
{
	buf_printf(&c->text, "%sgroup:%s", l->prefix, e->group);
	command_made(c);
}

static void add_turn_key(struct command *c, const struct ledger_redis *l, const struct ledger_entry *e)
{
	buf_printf(&c->text, "%sturn:%zu:%s:%s", l->prefix, strlen(e->group), e->group, e->key);
	command_made(c);
}

static void add_key(struct command *c, const struct ledger_redis *l, const char *name)
{
	buf_printf(&c->text, "%s%s", l->prefix, name);
	command_made(c);
}

static void add_number(struct command *c, int64_t n)
{
	buf_printf(&c->text, "%" PRId64, n);
	command_made(c);
}

static void command_send(struct command *c, struct ledger_redis *l, redis_reply_fn fn, void *arg)
{
	size_t made = 0, begin = 0;
	for (size_t i = 0; i < c->n; i++)
		if (!c->words[i].ptr) {
			c->words[i] = (struct span){c->text.ptr + begin, c->ends[made] - begin};
			begin = c->ends[made++];
		}
	redis_command(l->redis, c->words, c->n, l->timeout_ms, fn, arg);
	buf_release(&c->text);
}

/* --- removals that wait --------------------------------------------------------------------------------- */

static int64_t server_now(const struct ledger_redis *l)
{
	return l->clock_known ? l->clock_us + clock_mono_us() : clock_wall_us();
}

static void removal_drop(struct removal *m)
{
	struct ledger_redis *l = m->l;
	*m->link = m->next;
	if (m->next)
		m->next->link = m->link;
	else
		l->last_removal = m->link;
	free(m);
	pthread_mutex_lock(&l->lock);
	l->n_removals--;
	pthread_mutex_unlock(&l->lock);
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

static void stop_if_done(struct ledger_redis *l);
static void job_end(struct job *j, enum ledger_answer answer, int error);

static void on_removed(void *arg, enum redis_outcome outcome, const struct redis_reply *reply,
		       const struct err *why)
{
	struct removal *m = arg;
	struct ledger_redis *l = m->l;
	char room[ERR_TEXT_MAX];
	const char *wrong = complaint(outcome, reply, why, room);
	m->sent = false;
	l->n_sent--;
	if (m->job)
		job_end(m->job, LEDGER_NONE, 0);
	m->job = NULL;
	if (wrong) {
		store_count_error(l);
		store_failing(l, wrong);
	} else {
		removal_drop(m);
	}
	stop_if_done(l);
}

static void removal_send(struct removal *m)
{
	struct ledger_redis *l = m->l;
	struct command c;
	command_begin(&c, script_remove, "3");
	add_entry_key(&c, l, &m->entry);
	add_group_key(&c, l, &m->entry);
	add_key(&c, l, "none");
	if (m->entry.created_us)
		add_number(&c, m->entry.created_us);
	else
		command_text(&c, "");
	add_number(&c, m->before_us);
	command_text(&c, m->entry.key);
	m->sent = true;
	l->n_sent++;
	command_send(&c, l, on_removed, m);
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
	*m = (struct removal){.l = l, .link = l->last_removal, .entry = *entry, .before_us = server_now(l)};
	*l->last_removal = m;
	l->last_removal = &m->next;
	pthread_mutex_lock(&l->lock);
	l->n_removals++;
	pthread_mutex_unlock(&l->lock);
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
	stop_if_done(l);
}

static enum ledger_answer read_entry(const struct redis_reply *reply, struct ledger_entry *ret)
{
	struct span backend = redis_reply_text(redis_reply_at(reply, 0));
	struct span version = redis_reply_text(redis_reply_at(reply, 2));
	if (!redis_reply_at(reply, 2)) /* an answer to something else */
		return LEDGER_UNKNOWN;
	if (!version.ptr)
		return LEDGER_NONE;
	char text[24];
	text_copy(version, text, sizeof(text));
	ret->created_us = strtoll(text, NULL, 10);
	span_copy(backend, ret->backend, sizeof(ret->backend));
	span_copy(redis_reply_text(redis_reply_at(reply, 1)), ret->task_id, sizeof(ret->task_id));
	return LEDGER_FOUND;
}

/* Another start of the key is under way: it may be over soon. */
static void wait_for_turn(struct job *j)
{
	struct ledger_redis *l = j->l;
	if (clock_mono_ms() - j->began_ms >= l->timeout_ms / 2 || l->stopping) {
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
	const char *wrong = complaint(outcome, reply, why, room);
	if (wrong) {
		store_count_error(j->l);
		store_failing(j->l, wrong);
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
	struct command c;
	bool any = j->kind == JOB_ANY;
	command_begin(&c, any ? script_any : script_ask, "2");
	if (any)
		add_group_key(&c, j->l, &j->entry);
	else
		add_entry_key(&c, j->l, &j->entry);
	add_key(&c, j->l, "none");
	if (any)
		add_number(&c, TTL_MS * 1000);
	command_send(&c, j->l, on_job_answered, j);
}

static void job_put(struct job *j)
{
	struct ledger_redis *l = j->l;
	struct command c;
	if (!l->clock_known) { /* nothing could keep it from being made too late */
		store_count_error(l);
		job_end(j, LEDGER_UNKNOWN, -ENOTCONN);
		return;
	}
	command_begin(&c, script_put, "3");
	add_entry_key(&c, l, &j->entry);
	add_group_key(&c, l, &j->entry);
	add_turn_key(&c, l, &j->entry);
	add_number(&c, server_now(l) + (int64_t)l->timeout_ms * 1000);
	command_text(&c, j->entry.backend);
	command_text(&c, j->entry.task_id);
	add_number(&c, j->entry.created_us);
	add_number(&c, TTL_MS);
	command_text(&c, j->entry.key);
	command_text(&c, j->turn);
	add_number(&c, LEDGER_TURN_MS);
	command_send(&c, l, on_job_answered, j);
}

static void job_take(struct job *j)
{
	struct ledger_redis *l = j->l;
	struct command c;
	if (!l->clock_known) {
		store_count_error(l);
		remove_later(j);
		return;
	}
	command_begin(&c, script_take, "3");
	add_entry_key(&c, l, &j->entry);
	add_group_key(&c, l, &j->entry);
	add_turn_key(&c, l, &j->entry);
	add_number(&c, server_now(l) + (int64_t)l->timeout_ms * 1000);
	command_text(&c, j->entry.key);
	command_text(&c, j->turn);
	add_number(&c, LEDGER_TURN_MS);
	command_send(&c, l, on_job_answered, j);
}

/* Without an answer it ends by itself. */
static void job_leave(struct job *j)
{
	struct command c;
	command_begin(&c, script_leave, "1");
	add_turn_key(&c, j->l, &j->entry);
	command_text(&c, j->turn);
	command_send(&c, j->l, on_job_answered, j);
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
	struct ledger_redis *l = redis_store(of);
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
	loop_post(l->loop, &j->work);
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
	loop_post(l->loop, &j->work);
}

static void redis_put(struct ledger *of, struct loop *loop, const struct ledger_entry *entry,
		      const char *turn, ledger_done_fn fn, void *arg)
{
	redis_change(redis_store(of), JOB_PUT, loop, entry, turn, fn, arg);
}

static void redis_take(struct ledger *of, struct loop *loop, const struct ledger_entry *key, const char *turn,
		       ledger_done_fn fn, void *arg)
{
	struct ledger_entry any = *key;
	any.created_us = 0;
	redis_change(redis_store(of), JOB_TAKE, loop, &any, turn, fn, arg);
}

static void redis_leave(struct ledger *of, const struct ledger_entry *key, const char *turn)
{
	redis_change(redis_store(of), JOB_LEAVE, NULL, key, turn, NULL, NULL);
}

static void redis_remove(struct ledger *of, struct loop *loop, const struct ledger_entry *entry,
			 ledger_done_fn fn, void *arg)
{
	redis_change(redis_store(of), JOB_REMOVE, loop, entry, NULL, fn, arg);
}

/* --- the beat: it works, and how late it is there ------------------------------------------------------- */

static void note_clock(struct ledger_redis *l, struct span server)
{
	char text[24];
	int64_t now = clock_mono_us(), took = now - l->beat_us;
	/* One that took long says little of when the server looked. */
	if (l->clock_known && took > (int64_t)l->timeout_ms * 1000 / 4)
		return;
	text_copy(server, text, sizeof(text));
	l->clock_us = strtoll(text, NULL, 10) - now;
	l->clock_known = true;
}

/* The server's memory is another one than that which was there before. */
static void note_since(struct ledger_redis *l, struct span since)
{
	bool lost = l->since[0] && !span_is(since, l->since);
	text_copy(since, l->since, sizeof(l->since));
	if (!lost)
		return;
	pthread_mutex_lock(&l->lock);
	l->status.losses++;
	pthread_mutex_unlock(&l->lock);
	log_error("state_lost", LOG_STR("store", l->status.where),
		  LOG_STR("why",
			  "the server has lost its data; it was flushed, or restarted without persistence"),
		  LOG_STR("effect", "follow-up calls to what was started earlier go to legacy"));
}

static void on_beat(void *arg, enum redis_outcome outcome, const struct redis_reply *reply,
		    const struct err *why)
{
	struct ledger_redis *l = arg;
	char room[ERR_TEXT_MAX];
	const char *wrong = complaint(outcome, reply, why, room);
	l->beating = false;
	loop_timer_start(l->beat, BEAT_MS);
	if (!wrong && !redis_reply_text(redis_reply_at(reply, 1)).ptr)
		wrong = "an answer to something else";
	if (wrong) {
		store_failing(l, wrong);
		return;
	}
	note_clock(l, redis_reply_text(redis_reply_at(reply, 0)));
	note_since(l, redis_reply_text(redis_reply_at(reply, 1)));
	store_working(l);
	removals_send(l);
}

static void redis_beat(void *arg)
{
	struct ledger_redis *l = arg;
	struct command c;
	if (l->beating)
		return;
	l->beating = true;
	l->beat_us = clock_mono_us();
	command_begin(&c, script_beat, "2");
	add_key(&c, l, "alive");
	add_key(&c, l, "since");
	command_text(&c, ALIVE_MS);
	command_send(&c, l, on_beat, l);
}

static struct span info_of(struct span info, const char *name)
{
	size_t n = strlen(name);
	while (info.len) {
		const char *end = memchr(info.ptr, '\n', info.len);
		size_t line = end ? (size_t)(end - info.ptr) + 1 : info.len;
		if (line > n && memcmp(info.ptr, name, n) == 0 && info.ptr[n] == ':')
			return span_strip((struct span){info.ptr + n + 1, line - n - 1});
		info.ptr += line;
		info.len -= line;
	}
	return SPAN_NONE;
}

/* How it is set up, as far as we may see it. */
static void on_info(void *arg, enum redis_outcome outcome, const struct redis_reply *reply,
		    const struct err *why)
{
	(void)why;
	struct span info = outcome == REDIS_ANSWERED && redis_reply_type(reply) == REDIS_TEXT
				   ? redis_reply_text(reply)
				   : SPAN_LIT("");
	struct span policy = info_of(info, "maxmemory_policy"), max = info_of(info, "maxmemory");
	const char *warning = NULL;
	if (max.len && !span_is(max, "0") && !span_is(policy, "noeviction"))
		warning = "maxmemory-policy is not noeviction: the server may evict pins";
	else if (span_is(info_of(info, "aof_enabled"), "0"))
		warning =
			"appendonly is off: a restart of the server loses everything since its last snapshot";
	store_warn(arg, warning);
}

static void store_on_state(void *arg, enum redis_state state, const char *why)
{
	struct ledger_redis *l = arg;
	const struct span info[] = {SPAN_INIT("INFO")};
	if (state == REDIS_DOWN)
		store_failing(l, why);
	if (state != REDIS_READY)
		return;
	redis_command(l->redis, info, 1, l->timeout_ms, on_info, l);
	redis_beat(l);
}

/* --- life ----------------------------------------------------------------------------------------------- */

static void stop_if_done(struct ledger_redis *l)
{
	if (l->stopping && atomic_load(&l->jobs) == 0 && l->n_sent == 0)
		loop_stop(l->loop);
}

static void stop_now(void *arg)
{
	struct ledger_redis *l = arg;
	loop_stop(l->loop);
}

static void on_stop(struct loop_work *w)
{
	struct ledger_redis *l = (struct ledger_redis *)((char *)w - offsetof(struct ledger_redis, stop));
	l->stopping = true;
	loop_timer_start(l->patience, l->timeout_ms + STOP_MORE_MS);
	removals_send(l);
	stop_if_done(l);
}

static void *redis_run(void *arg)
{
	struct ledger_redis *l = arg;
	sigset_t all;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, NULL);
	redis_beat(l);
	loop_run(l->loop);
	return NULL;
}

static void redis_release(struct ledger_redis *l)
{
	if (l->removals)
		log_error("state_removals_lost", LOG_STR("store", l->status.where),
			  LOG_INT("removals", l->n_removals));
	while (l->removals) {
		struct removal *m = l->removals;
		l->removals = m->next;
		free(m);
	}
	redis_free(l->redis);
	loop_timer_free(l->beat);
	loop_timer_free(l->patience);
	loop_timer_free(l->turns);
	loop_free(l->loop);
	free(l->prefix);
	pthread_cond_destroy(&l->met);
	pthread_mutex_destroy(&l->lock);
	free(l);
}

/* Jobs that are still under way end with the connection: nobody waits for them any more. */
static struct ledger *redis_stop(struct ledger *of)
{
	struct ledger_redis *l = redis_store(of);
	loop_post(l->loop, &l->stop);
	pthread_join(l->thread, NULL);
	redis_release(l);
	return NULL;
}

static void redis_status(struct ledger *of, struct ledger_status *ret)
{
	struct ledger_redis *l = redis_store(of);
	pthread_mutex_lock(&l->lock);
	*ret = l->status;
	ret->unwritten = l->n_removals;
	pthread_mutex_unlock(&l->lock);
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

static int redis_client(struct ledger_redis *l, const char *text, struct err *e)
{
	struct redis_url url;
	int r = redis_url_parse(span_of(text), &url, e);
	if (r < 0)
		return r;
	const struct redis_options o = {.url = &url,
					.connect_timeout_ms =
						l->timeout_ms < CONNECT_MS ? l->timeout_ms : CONNECT_MS,
					.command_timeout_ms = l->timeout_ms,
					.backoff_max_ms = BEAT_MS,
					.max_pending = 2 * LEDGER_QUEUE + REMOVALS_MAX,
					.on_state = store_on_state,
					.arg = l};
	r = redis_new(l->loop, &o, &l->redis, e);
	if (r == 0)
		text_copy(span_of(redis_where(l->redis)), l->status.where, sizeof(l->status.where));
	redis_url_release(&url);
	return r;
}

static void wait_until_met(struct ledger_redis *l)
{
	struct timespec until;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += l->timeout_ms / 1000 + 1;
	pthread_mutex_lock(&l->lock);
	while (!l->has_met)
		if (pthread_cond_timedwait(&l->met, &l->lock, &until) == ETIMEDOUT)
			break;
	pthread_mutex_unlock(&l->lock);
}

int ledger_redis_start(const struct ledger_options *o, struct ledger **ret, struct err *e)
{
	struct ledger_redis *l = calloc(1, sizeof(*l));
	if (!l)
		return err_set(e, -ENOMEM, "out of memory");
	l->base.verbs = &verbs;
	l->last_removal = &l->removals;
	l->stop.fn = on_stop;
	l->timeout_ms = o->timeout_ms;
	l->status.remote = true;
	pthread_mutex_init(&l->lock, NULL);
	pthread_condattr_t attributes;
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&l->met, &attributes);
	pthread_condattr_destroy(&attributes);
	l->prefix = strdup(o->prefix);
	int r = l->prefix ? loop_new(&l->loop) : -ENOMEM;
	if (r == 0)
		r = loop_timer_new(l->loop, redis_beat, l, &l->beat);
	if (r == 0)
		r = loop_timer_new(l->loop, stop_now, l, &l->patience);
	if (r == 0)
		r = loop_timer_new(l->loop, try_turns, l, &l->turns);
	if (r < 0)
		err_set(e, r, "%s", strerror(-r));
	else
		r = redis_client(l, o->redis, e);
	if (r == 0 && (r = -pthread_create(&l->thread, NULL, redis_run, l)) < 0)
		err_set(e, r, "thread: %s", strerror(-r));
	if (r < 0) {
		redis_release(l);
		return r;
	}
	wait_until_met(l);
	*ret = &l->base;
	return 0;
}
