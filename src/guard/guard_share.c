#include "guard/guard_share.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "ledger/redis_store.h"

#define TICK_MS 250
#define ANSWER_MS 1000 /* beyond it the server does not answer */
#define ALIVE_MS "15000"
#define KEEP_MS "2592000000" /* 30 days that nobody asked for it */
#define REFRESH_MS 600000
#define FLIGHTS 64
#define WORDS_MAX 32
#define QUESTION_MAX (1u << 20)

/* --- scripts -------------------------------------------------------------------------------------------- */

/* KEYS: alive, version, changed, key. ARGV: the version that we know, a key if there is none, ms. */
static const char script_tick[] = "redis.call('SET',KEYS[1],'1','PX',ARGV[3]) "
				  "redis.call('SET',KEYS[4],ARGV[2],'NX') "
				  "local v=redis.call('GET',KEYS[2]) or '0' "
				  "local list={} "
				  "if tonumber(v)>tonumber(ARGV[1]) then "
				  "list=redis.call('ZRANGEBYSCORE',KEYS[3],'('..ARGV[1],'+inf') end "
				  "return {v,redis.call('GET',KEYS[4]),list}";

/*
 * KEYS: epoch, log, known, members, members of the epoch that was left, changed, version. ARGV: verb,
 * generation, this replica, the epoch's name, born if it begins, because, limit, breached, keeps, by, born as
 * known, next, most, prefix of alive, ms to keep, events: "entity:bit …", one per line.
 * Nothing in it is worse for being done late or twice.
 */
static const char script_epoch[] =
	"local e=redis.call('HMGET',KEYS[1],'gen','born') "
	"local gen=tonumber(e[1] or '0') local asked=tonumber(ARGV[2]) "
	"local fresh=gen<asked "
	"if ARGV[1]=='release' then fresh=gen<=asked end "
	"if ARGV[1]=='begin' then fresh=true "
	"for _,m in ipairs(redis.call('SMEMBERS',KEYS[4])) do if m~=ARGV[3] then "
	"if redis.call('EXISTS',ARGV[14]..m)==1 then fresh=gen==0 else redis.call('SREM',KEYS[4],m) end "
	"end end end "
	"if fresh then "
	"gen=math.max(gen,asked) if ARGV[1]~='resume' then gen=gen+1 end "
	"redis.call('DEL',KEYS[1],KEYS[2],KEYS[3]) " REDIS_SERVER_NOW
	"redis.call('HSET',KEYS[1],'gen',gen,'born',ARGV[5],'began',string.format('%.0f',now),'because',ARGV["
	"6]) "
	"end "
	"if KEYS[5]~=KEYS[4] then redis.call('SREM',KEYS[5],ARGV[3]) end "
	"redis.call('SADD',KEYS[4],ARGV[3]) "
	"local mine=ARGV[1]=='resume' and gen==asked local changed=fresh "
	"if mine then "
	"if ARGV[7]~='0' and redis.call('HSETNX',KEYS[1],'limit',ARGV[7])==1 then changed=true end "
	"if ARGV[8]~='0' and redis.call('HSETNX',KEYS[1],'breach',ARGV[8])==1 then "
	"redis.call('HSET',KEYS[1],'keeps',ARGV[9],'by',ARGV[10],'byid',ARGV[3]) changed=true end "
	"for line in string.gmatch(ARGV[16],'%C+') do "
	"if redis.call('HSETNX',KEYS[3],string.match(line,'^%S+'),'1')==1 then "
	"redis.call('RPUSH',KEYS[2],line) changed=true end end "
	"end "
	"if changed then redis.call('ZADD',KEYS[6],redis.call('INCR',KEYS[7]),ARGV[4]) "
	"redis.call('ZREMRANGEBYRANK',KEYS[6],0,-10001) end "
	"for _,i in ipairs({1,2,3,4,6,7}) do redis.call('PEXPIRE',KEYS[i],ARGV[15]) end "
	"e=redis.call('HMGET',KEYS[1],'gen','born','began','because','limit','breach','keeps','by','byid') "
	"local next=tonumber(ARGV[12]) local len=redis.call('LLEN',KEYS[2]) local list={} "
	"if mine then if e[2]~=ARGV[11] or next>len then next=0 end "
	"list=redis.call('LRANGE',KEYS[2],next,next+tonumber(ARGV[13])-1) end "
	"local by=e[8] or '' if e[9]==ARGV[3] then by='' end "
	"return {tostring(gen),e[2] or '',e[3] or '0',e[4] or '',e[5] or '0',e[6] or '0',e[7] or '0',by,"
	"tostring(next),tostring(len),list}";

enum {
	AT_GENERATION,
	AT_BORN,
	AT_BEGAN,
	AT_BECAUSE,
	AT_LIMIT,
	AT_BREACH,
	AT_KEEPS,
	AT_BY,
	AT_NEXT,
	AT_LENGTH,
	AT_EVENTS
};

/* --- what there is -------------------------------------------------------------------------------------- */

enum share_flight { SHARE_IDLE, SHARE_ASKED, SHARE_FLYING, SHARE_ANSWERED };

struct guard_share_slot {
	struct guard_share *share;
	struct guard_share_slot *next;
	uint64_t hash;
	char name[GUARD_SHARE_NAME];
	bool orphan; /* nobody follows it; freed when nothing is under way */
	bool wants;
	enum share_flight state;
	struct guard_share_question *question;
	struct guard_share_answer *answer;
};

struct guard_share {
	struct redis_store store;
	void (*news)(void *arg);
	void *arg;
	char id[CRYPTO_ID_HEX], label[64];
	struct loop_work ask;
	atomic_bool posted;
	/* the store's thread's */
	struct loop_timer *tick;
	bool ticking;
	unsigned flights;
	int64_t version, refreshed_ms;
	/* under lock */
	pthread_mutex_t lock;
	struct guard_share_slot *slots;
	char key[CRYPTO_SHA256_HEX]; /* "": never heard */
	int64_t heard_ms;
	char refused[ERR_TEXT_MAX]; /* the last question that failed; "": it did not */
	bool late;		    /* as it was told last */
};

static void slot_free(struct guard_share_slot *slot)
{
	free(slot->question);
	free(slot->answer);
	free(slot);
}

static void share_sweep(struct guard_share *s)
{
	for (struct guard_share_slot **at = &s->slots; *at;) {
		struct guard_share_slot *slot = *at;
		if (!slot->orphan || slot->state == SHARE_FLYING) {
			at = &slot->next;
			continue;
		}
		*at = slot->next;
		slot_free(slot);
	}
}

static bool share_is_late(const struct guard_share *s)
{
	return !s->key[0] || clock_mono_ms() - s->heard_ms > GUARD_SHARE_LATE_MS;
}

/* Under lock. Everything is asked for anew. */
static void share_want_all(struct guard_share *s)
{
	for (struct guard_share_slot *slot = s->slots; slot; slot = slot->next)
		slot->wants = true;
}

/* Under lock: it has answered. */
static void share_heard(struct guard_share *s)
{
	if (share_is_late(s))
		share_want_all(s);
	s->heard_ms = clock_mono_ms();
}

/* --- questions ------------------------------------------------------------------------------------------ */

struct share_words {
	struct buf text;
	size_t ends[WORDS_MAX];
	struct span words[WORDS_MAX];
	size_t n;
};

static void share_put(struct share_words *w, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void share_put(struct share_words *w, const char *format, ...)
{
	va_list ap;
	va_start(ap, format);
	buf_vprintf(&w->text, format, ap);
	va_end(ap);
	w->ends[w->n++] = w->text.len;
}

static void share_put_head(struct share_words *w, const char *script, int n_keys)
{
	buf_init(&w->text, QUESTION_MAX);
	w->n = 0;
	share_put(w, "EVAL");
	share_put(w, "%s", script);
	share_put(w, "%d", n_keys);
}

static void share_send(struct guard_share *s, struct share_words *w, redis_reply_fn fn, void *arg)
{
	for (size_t i = 0, begin = 0; i < w->n; begin = w->ends[i++])
		w->words[i] = (struct span){w->text.ptr + begin, w->ends[i] - begin};
	redis_command(s->store.redis, w->words, w->n, ANSWER_MS, fn, arg);
	buf_release(&w->text);
}

static void share_put_question(struct share_words *w, const struct guard_share_slot *slot)
{
	static const char *const verbs[] = {"begin", "release", "resume"};
	const struct guard_share *s = slot->share;
	const struct guard_share_question *q = slot->question;
	const char *prefix = s->store.prefix;
	char born[CRYPTO_ID_HEX];
	crypto_random_id(born);
	share_put_head(w, script_epoch, 7);
	share_put(w, "%sguard:%s", prefix, slot->name);
	share_put(w, "%sguard:%s:log", prefix, slot->name);
	share_put(w, "%sguard:%s:known", prefix, slot->name);
	share_put(w, "%sguard:%s:members", prefix, slot->name);
	share_put(w, "%sguard:%s:members", prefix, q->left[0] ? q->left : slot->name);
	share_put(w, "%sguard:changed", prefix);
	share_put(w, "%sguard:version", prefix);
	share_put(w, "%s", verbs[q->verb]);
	share_put(w, "%" PRId64, q->generation);
	share_put(w, "%s", s->id);
	share_put(w, "%s", slot->name);
	share_put(w, "%s", born);
	share_put(w, "%s", q->because);
	share_put(w, "%" PRId64, q->limit_us);
	share_put(w, "%" PRId64, q->breached_us);
	share_put(w, "%.9g", q->keeps);
	share_put(w, "%s", s->label);
	share_put(w, "%s", q->born);
	share_put(w, "%" PRId64, q->next);
	share_put(w, "%d", GUARD_SHARE_READ);
	share_put(w, "%sguard:alive:", prefix);
	share_put(w, "%s", KEEP_MS);
	for (size_t i = 0; i < q->n_send; i++)
		buf_printf(&w->text, "%016" PRIx64 ":%x %u %u %u %.17g\n", q->send[i].entity, q->send[i].bit,
			   q->send[i].assigned, q->send[i].served, q->send[i].reason, q->send[i].share);
	share_put(w, "%s", "");
}

/* --- answers -------------------------------------------------------------------------------------------- */

static void share_text(const struct redis_reply *reply, size_t at, char *to, size_t size)
{
	struct span text = redis_reply_text(redis_reply_at(reply, at));
	text_copy(text.ptr ? text : SPAN_LIT(""), to, size);
}

static int64_t share_number(const struct redis_reply *reply, size_t at)
{
	char text[32];
	share_text(reply, at, text, sizeof(text));
	int64_t n = strtoll(text, NULL, 10);
	return n > 0 ? n : 0;
}

/* false: none of ours. */
static bool share_read_event(struct span text, struct guard_event *ret)
{
	char line[128];
	unsigned bit, assigned, served, reason;
	double share;
	if (text.len >= sizeof(line))
		return false;
	span_copy(text, line, sizeof(line));
	if (sscanf(line, "%16" SCNx64 ":%x %u %u %u %lf", &ret->entity, &bit, &assigned, &served, &reason,
		   &share) != 6)
		return false;
	if (bit == 0 || bit > 0xff || (bit & (bit - 1)) || assigned > 1 || served > 1 || reason > 255 ||
	    !(share > 0 && share < 1))
		return false;
	ret->bit = (uint8_t)bit;
	ret->assigned = (uint8_t)assigned;
	ret->served = (uint8_t)served;
	ret->reason = (uint8_t)reason;
	ret->share = share;
	return true;
}

static size_t share_count(const struct redis_reply *list)
{
	size_t n = 0;
	while (n < GUARD_SHARE_READ && redis_reply_at(list, n))
		n++;
	return n;
}

static struct guard_share_answer *share_read(const struct guard_share_question *q,
					     const struct redis_reply *reply)
{
	const struct redis_reply *list = redis_reply_at(reply, AT_EVENTS);
	size_t n = share_count(list);
	struct guard_share_answer *a = calloc(1, sizeof(*a) + n * sizeof(a->events[0]));
	char keeps[32];
	if (!a)
		return NULL;
	a->verb = q->verb;
	a->asked = q->generation;
	a->tag = q->tag;
	a->generation = share_number(reply, AT_GENERATION);
	a->accepted = q->verb == GUARD_SHARE_RESUME && a->generation == q->generation ? q->n_send : 0;
	share_text(reply, AT_BORN, a->born, sizeof(a->born));
	a->began_us = share_number(reply, AT_BEGAN);
	share_text(reply, AT_BECAUSE, a->because, sizeof(a->because));
	a->limit_us = share_number(reply, AT_LIMIT);
	a->breached_us = share_number(reply, AT_BREACH);
	share_text(reply, AT_KEEPS, keeps, sizeof(keeps));
	a->keeps = strtod(keeps, NULL);
	if (!(a->keeps > 0 && a->keeps < 1))
		a->keeps = 0;
	share_text(reply, AT_BY, a->by, sizeof(a->by));
	a->next = share_number(reply, AT_NEXT) + (int64_t)n;
	a->more = a->next < share_number(reply, AT_LENGTH);
	for (size_t i = 0; i < n; i++)
		a->n += share_read_event(redis_reply_text(redis_reply_at(list, i)), &a->events[a->n]);
	return a;
}

static void share_work(struct guard_share *s);

static void share_on_answer(void *arg, enum redis_outcome outcome, const struct redis_reply *reply,
			    const struct err *why)
{
	struct guard_share_slot *slot = arg;
	struct guard_share *s = slot->share;
	char room[ERR_TEXT_MAX];
	const char *wrong = redis_store_complaint(outcome, reply, why, room);
	if (!wrong && redis_reply_type(reply) != REDIS_ARRAY)
		wrong = "an answer to something else";
	if (wrong)
		redis_store_failed(&s->store, wrong);
	pthread_mutex_lock(&s->lock);
	s->flights--;
	slot->state = SHARE_IDLE;
	bool news = wrong && !s->refused[0];
	text_copy(span_of(wrong ? wrong : ""), s->refused, sizeof(s->refused));
	if (!wrong) {
		share_heard(s);
		slot->answer = share_read(slot->question, reply);
	}
	slot->wants = slot->wants || !slot->answer; /* once the server is back */
	if (slot->answer)
		slot->state = SHARE_ANSWERED;
	bool told = slot->answer && !slot->orphan;
	share_sweep(s);
	pthread_mutex_unlock(&s->lock);
	if (news)
		log_warn("guard_share_failing", LOG_STR("error", wrong),
			 LOG_STR("effect", "evidence waits, or counts for this router alone"));
	if (told)
		s->news(s->arg);
	share_work(s);
	redis_store_settle(&s->store);
}

/* On the store's thread: sends what was asked, so many at a time. */
static void share_work(struct guard_share *s)
{
	struct share_words *w = malloc(sizeof(*w));
	pthread_mutex_lock(&s->lock);
	share_sweep(s);
	struct guard_share_slot *send[FLIGHTS];
	size_t n = 0;
	for (struct guard_share_slot *slot = s->slots; w && slot && s->flights < FLIGHTS; slot = slot->next)
		if (slot->state == SHARE_ASKED && !slot->orphan) {
			slot->state = SHARE_FLYING;
			s->flights++;
			send[n++] = slot;
		}
	pthread_mutex_unlock(&s->lock);
	for (size_t i = 0; i < n; i++) { /* a slot that is flying changes nowhere else */
		share_put_question(w, send[i]);
		share_send(s, w, share_on_answer, send[i]);
	}
	free(w);
}

static void share_on_ask(struct loop_work *work)
{
	struct guard_share *s = (struct guard_share *)((char *)work - offsetof(struct guard_share, ask));
	atomic_store(&s->posted, false);
	share_work(s);
}

/* --- the tick ------------------------------------------------------------------------------------------- */

/* Under lock. */
static bool share_note_changes(struct guard_share *s, const struct redis_reply *list)
{
	bool any = false;
	const struct redis_reply *one;
	for (size_t i = 0; (one = redis_reply_at(list, i)) != NULL; i++) {
		struct span name = redis_reply_text(one);
		uint64_t hash = name.ptr ? crypto_hash64(name) : 0;
		for (struct guard_share_slot *slot = s->slots; slot; slot = slot->next)
			if (slot->hash == hash && span_is(name, slot->name))
				any = slot->wants = true;
	}
	return any;
}

static bool share_note_tick(struct guard_share *s, const struct redis_reply *reply)
{
	int64_t version = share_number(reply, 0), now = clock_mono_ms();
	pthread_mutex_lock(&s->lock);
	bool any = share_is_late(s);
	share_text(reply, 1, s->key, sizeof(s->key));
	share_heard(s);
	if (version < s->version || now - s->refreshed_ms >= REFRESH_MS || any) {
		share_want_all(s); /* another memory, or it keeps what is asked for */
		s->refreshed_ms = now;
		any = true;
	}
	any = share_note_changes(s, redis_reply_at(reply, 2)) || any;
	s->version = version;
	s->late = false;
	pthread_mutex_unlock(&s->lock);
	return any;
}

static void share_on_tick(void *arg, enum redis_outcome outcome, const struct redis_reply *reply,
			  const struct err *why)
{
	struct guard_share *s = arg;
	char room[ERR_TEXT_MAX];
	const char *wrong = redis_store_complaint(outcome, reply, why, room);
	bool news = false;
	s->ticking = false;
	if (!wrong && !redis_reply_text(redis_reply_at(reply, 1)).ptr)
		wrong = "an answer to something else";
	if (wrong)
		redis_store_failed(&s->store, wrong);
	else
		news = share_note_tick(s, reply);
	loop_timer_start(s->tick, TICK_MS);
	if (news)
		s->news(s->arg);
}

static void share_tick(void *arg)
{
	struct guard_share *s = arg;
	struct share_words *w = malloc(sizeof(*w));
	char key[CRYPTO_SHA256_HEX], id[CRYPTO_ID_HEX];
	pthread_mutex_lock(&s->lock);
	bool late = share_is_late(s) && !s->late;
	s->late = s->late || late;
	memcpy(key, s->key, sizeof(key));
	pthread_mutex_unlock(&s->lock);
	if (late) /* who waits for the log waits no more */
		s->news(s->arg);
	crypto_random_id(id);
	if (!key[0])
		crypto_sha256_hex(span_of(id), key);
	if (!w || s->ticking) {
		loop_timer_start(s->tick, TICK_MS);
		free(w);
		return;
	}
	s->ticking = true;
	share_put_head(w, script_tick, 4);
	share_put(w, "%sguard:alive:%s", s->store.prefix, s->id);
	share_put(w, "%sguard:version", s->store.prefix);
	share_put(w, "%sguard:changed", s->store.prefix);
	share_put(w, "%sguard:key", s->store.prefix);
	share_put(w, "%" PRId64, s->version);
	share_put(w, "%s", key);
	share_put(w, "%s", ALIVE_MS);
	share_send(s, w, share_on_tick, s);
	loop_timer_start(s->tick, TICK_MS); /* also to notice that it is late */
	free(w);
}

/* --- life ----------------------------------------------------------------------------------------------- */

static void share_on_begin(struct guard_share *s)
{
	if (!s->tick && loop_timer_new(s->store.loop, share_tick, s, &s->tick) == 0)
		share_tick(s);
}

static void share_on_works(void *arg)
{
	share_on_begin(arg);
}

static void share_on_stopping(void *arg)
{
	struct guard_share *s = arg;
	char key[512];
	snprintf(key, sizeof(key), "%sguard:alive:%s", s->store.prefix, s->id);
	const struct span words[] = {SPAN_LIT("DEL"), span_of(key)};
	share_work(s);
	redis_command(s->store.redis, words, 2, ANSWER_MS, NULL, NULL);
}

static bool share_is_busy(void *arg)
{
	return ((struct guard_share *)arg)->flights > 0;
}

int guard_share_start(const struct guard_share_options *o, struct guard_share **ret, struct err *e)
{
	struct guard_share *s = calloc(1, sizeof(*s));
	char host[64] = "";
	if (!s)
		return err_set(e, -ENOMEM, "out of memory");
	s->news = o->news;
	s->arg = o->arg;
	s->ask.fn = share_on_ask;
	crypto_random_id(s->id);
	gethostname(host, sizeof(host) - 1);
	snprintf(s->label, sizeof(s->label), "%.40s:%ld", host, (long)getpid());
	pthread_mutex_init(&s->lock, NULL);
	const struct redis_store_options options = {.url = o->url,
						    .prefix = o->prefix,
						    .timeout_ms = o->timeout_ms,
						    .quiet = true,
						    .unasked = true,
						    .arg = s,
						    .works = share_on_works,
						    .stopping = share_on_stopping,
						    .busy = share_is_busy};
	int r = redis_store_start(&s->store, &options, e);
	if (r < 0) {
		pthread_mutex_destroy(&s->lock);
		free(s);
		return r;
	}
	*ret = s;
	return 0;
}

struct guard_share *guard_share_stop(struct guard_share *s)
{
	if (!s)
		return NULL;
	redis_store_stop(&s->store);
	loop_timer_free(s->tick);
	redis_store_release(&s->store);
	while (s->slots) {
		struct guard_share_slot *slot = s->slots;
		s->slots = slot->next;
		slot_free(slot);
	}
	pthread_mutex_destroy(&s->lock);
	free(s);
	return NULL;
}

bool guard_share_works(struct guard_share *s)
{
	pthread_mutex_lock(&s->lock);
	bool works = !share_is_late(s);
	pthread_mutex_unlock(&s->lock);
	return works;
}

struct span guard_share_key(struct guard_share *s, char room[CRYPTO_SHA256_HEX])
{
	pthread_mutex_lock(&s->lock);
	memcpy(room, s->key, sizeof(s->key));
	pthread_mutex_unlock(&s->lock);
	return room[0] ? span_of(room) : SPAN_NONE;
}

void guard_share_trouble(struct guard_share *s, char ret[256])
{
	struct redis_store_status status;
	bool works = guard_share_works(s);
	redis_store_status(&s->store, &status);
	pthread_mutex_lock(&s->lock);
	span_copy(span_of(s->refused), ret, 256);
	pthread_mutex_unlock(&s->lock);
	if (!works)
		span_copy(
			span_of(status.last_error[0] ? status.last_error : "the server has not answered yet"),
			ret, 256);
}

/* --- slots ---------------------------------------------------------------------------------------------- */

int guard_share_follow(struct guard_share *s, const char *name, struct guard_share_slot **ret)
{
	struct guard_share_slot *slot = calloc(1, sizeof(*slot));
	struct guard_share_question *question = calloc(1, sizeof(*question));
	if (!slot || !question) {
		free(slot);
		free(question);
		return -ENOMEM;
	}
	slot->share = s;
	slot->question = question;
	slot->hash = crypto_hash64(span_of(name));
	slot->wants = true;
	span_copy(span_of(name), slot->name, sizeof(slot->name));
	pthread_mutex_lock(&s->lock);
	slot->next = s->slots;
	s->slots = slot;
	pthread_mutex_unlock(&s->lock);
	*ret = slot;
	return 0;
}

struct guard_share_slot *guard_share_unfollow(struct guard_share_slot *slot)
{
	if (!slot)
		return NULL;
	struct guard_share *s = slot->share;
	pthread_mutex_lock(&s->lock);
	slot->orphan = true;
	share_sweep(s);
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

bool guard_share_wants(struct guard_share_slot *slot)
{
	struct guard_share *s = slot->share;
	pthread_mutex_lock(&s->lock);
	bool wants = slot->wants && slot->state == SHARE_IDLE && !share_is_late(s);
	pthread_mutex_unlock(&s->lock);
	return wants;
}

bool guard_share_asking(struct guard_share_slot *slot)
{
	pthread_mutex_lock(&slot->share->lock);
	bool asking = slot->state != SHARE_IDLE;
	pthread_mutex_unlock(&slot->share->lock);
	return asking;
}

int guard_share_ask(struct guard_share_slot *slot, const struct guard_share_question *q)
{
	struct guard_share *s = slot->share;
	pthread_mutex_lock(&s->lock);
	bool idle = slot->state == SHARE_IDLE;
	if (idle) {
		*slot->question = *q;
		slot->wants = false;
		slot->state = SHARE_ASKED;
	}
	pthread_mutex_unlock(&s->lock);
	if (idle && !atomic_exchange(&s->posted, true))
		loop_post(s->store.loop, &s->ask);
	return idle ? 0 : -EBUSY;
}

struct guard_share_answer *guard_share_take(struct guard_share_slot *slot)
{
	struct guard_share *s = slot->share;
	pthread_mutex_lock(&s->lock);
	struct guard_share_answer *a = slot->answer;
	if (a) {
		slot->answer = NULL;
		slot->state = SHARE_IDLE;
	}
	pthread_mutex_unlock(&s->lock);
	return a;
}
