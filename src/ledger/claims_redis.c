#include "ledger/claims_redis.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "ledger/redis_store.h"

#define WINDOW 256 /* changes on their way at a time */
#define ANSWER_ROOM (64u << 20)
#define HELD_MAX (64u << 20) /* bytes of answers on their way; what comes beyond is not kept */

/* --- scripts -------------------------------------------------------------------------------------------- */

#define FIELDS \
	"'scope','fingerprint','token','side','phase','backend','task','created','keep','stranger','status'" \
	"," \
	"'fields','body'"
enum {
	AT_SCOPE,
	AT_FINGERPRINT,
	AT_TOKEN,
	AT_SIDE,
	AT_PHASE,
	AT_BACKEND,
	AT_TASK,
	AT_CREATED,
	AT_KEEP,
	AT_STRANGER,
	AT_STATUS,
	AT_FIELDS,
	AT_BODY
};

/* KEYS: claim, none */
static const char script_look[] =
	REDIS_REFUSE_REPLICA("KEYS[2]") "return redis.call('HMGET',KEYS[1]," FIELDS ")";

/* KEYS: claim, all, strangers, scope. ARGV: end in µs by the server's clock, most of the scope, most of all,
 * most of strangers, ms to keep, key, scope, fingerprint, token, side, backend, task, created, keep in µs,
 * whether a stranger's. A server without memory refuses only a script's first write, and only one that needs
 * some: the claim itself comes first. */
static const char script_take[] = REDIS_SERVER_NOW REDIS_REFUSE_LATE(
	"ARGV[1]") "if redis.call('EXISTS',KEYS[1])==1 then return redis.call('HMGET',KEYS[1]," FIELDS
		   ") end "
		   "local function live(i) return redis.call('ZCOUNT',KEYS[i],string.format('(%.0f',now),"
		   "'+inf') end "
		   "if live(4)>=tonumber(ARGV[2]) then return 'CROWDED' end "
		   "if live(2)>=tonumber(ARGV[3]) then return 'FULL' end "
		   "if ARGV[15]=='1' and live(3)>=tonumber(ARGV[4]) then return 'FULL' end "
		   "redis.call('HSET',KEYS[1],'scope',ARGV[7],'fingerprint',ARGV[8],'token',ARGV[9],'side',"
		   "ARGV[10],"
		   "'phase','0','backend',ARGV[11],'task',ARGV[12],'created',ARGV[13],'keep',ARGV[14],"
		   "'stranger',ARGV[15],'status','0') "
		   "redis.call('PEXPIRE',KEYS[1],ARGV[5]) "
		   "for i=2,4 do redis.call('ZREMRANGEBYSCORE',KEYS[i],'-inf',now) end "
		   "for i=2,4 do if i~=3 or ARGV[15]=='1' then "
		   "redis.call('ZADD',KEYS[i],now+ARGV[5]*1000,ARGV[6]) "
		   "if redis.call('PTTL',KEYS[i])<tonumber(ARGV[5]) then "
		   "redis.call('PEXPIRE',KEYS[i],ARGV[5]) end "
		   "end end "
		   "return 'MINE'";

/* KEYS: claim. ARGV: end, owner, fingerprint, token, side, backend, task */
static const char script_move[] = REDIS_SERVER_NOW REDIS_REFUSE_LATE(
	"ARGV[1]") "local c=redis.call('HMGET',KEYS[1],'token','phase') "
		   "if not c[1] or c[1]~=ARGV[2] or tonumber(c[2])>=2 then return 'LOST' end "
		   "redis.call('HSET',KEYS[1],'fingerprint',ARGV[3],'token',ARGV[4],'side',ARGV[5],'phase','"
		   "0',"
		   "'backend',ARGV[6],'task',ARGV[7]) "
		   "return 'MINE'";

/* KEYS: claim. ARGV: token, task */
static const char script_note[] =
	"local c=redis.call('HMGET',KEYS[1],'token','phase') "
	"if c[1]==ARGV[1] and c[2]=='0' then redis.call('HSET',KEYS[1],'phase','1','task',ARGV[2]) end "
	"return 'DONE'";

/* KEYS: claim. ARGV: task, status, fields, body. What there is no room for has ended nevertheless. */
static const char script_answer[] =
	"local c=redis.call('HMGET',KEYS[1],'task','side','phase') "
	"if c[1]~=ARGV[1] or c[2]~='0' or tonumber(c[3])>=2 then return 'DONE' end "
	"local r=redis.pcall('HSET',KEYS[1],'phase','2','status',ARGV[2],'fields',ARGV[3],'body',ARGV[4]) "
	"if type(r)=='table' and r.err then return r end "
	"return 'DONE'";

/* KEYS: claim, all, strangers, scope. ARGV: token, key */
static const char script_release[] = "local c=redis.call('HMGET',KEYS[1],'token','phase') "
				     "if c[1]==ARGV[1] and c[2]=='0' then redis.call('DEL',KEYS[1]) "
				     "for i=2,4 do redis.call('ZREM',KEYS[i],ARGV[2]) end end "
				     "return 'DONE'";

/* --- what there is -------------------------------------------------------------------------------------- */

enum op_state { OP_WAITING, OP_FLYING, OP_DONE }; /* of what nobody waits for */
enum op_kind { OP_LOOK, OP_TAKE, OP_MOVE, OP_NOTE, OP_ANSWER, OP_RELEASE };

struct claim_op {
	struct loop_work work; /* first */
	struct claim_op *next;
	struct claims_redis *c;
	enum op_kind kind;
	struct claim claim;
	char owner[CRYPTO_ID_HEX]; /* OP_MOVE */
	unsigned max_of_scope;
	bool keeps;
	int status;
	struct buf fields, body;
	size_t bytes; /* of c->held */
	struct loop *loop;
	claim_fn fn; /* NULL: nobody waits */
	void *arg;
	enum claim_answer answer;
	enum op_state state;
};

struct claims_redis {
	struct redis_store store;
	atomic_uint ops; /* of those that somebody waits for, and of others that were not begun */
	atomic_size_t held;
	/* the store's thread's: what nobody waits for, in its order */
	struct claim_op *later, **last_later;
	unsigned n_later, n_flying;
	bool later_failed; /* one of those that are flying */
	/* under lock */
	pthread_mutex_t lock;
	struct claims_status status;
};

static void claim_op_free(struct claim_op *op)
{
	atomic_fetch_sub(&op->c->held, op->bytes);
	buf_release(&op->fields);
	buf_release(&op->body);
	free(op);
}

static void claim_op_tell(struct loop_work *w)
{
	struct claim_op *op = (struct claim_op *)w;
	const struct claim_told told = {.answer = op->answer,
					.claim = op->claim,
					.fields = buf_span(&op->fields),
					.body = buf_span(&op->body)};
	op->fn(op->arg, &told);
	claim_op_free(op);
}

/* --- counting ------------------------------------------------------------------------------------------- */

static void claims_count(struct claims_redis *c, const struct claim_op *op)
{
	pthread_mutex_lock(&c->lock);
	struct claims_status *s = &c->status;
	bool asks = op->kind == OP_TAKE || op->kind == OP_LOOK;
	s->taken += op->kind == OP_TAKE && op->answer == CLAIM_MINE;
	s->repeated += asks && op->answer == CLAIM_THERE;
	s->refused += asks && (op->answer == CLAIM_CROWDED || op->answer == CLAIM_FULL);
	s->unknown += op->answer == CLAIM_UNKNOWN;
	pthread_mutex_unlock(&c->lock);
}

static void claims_add(struct claims_redis *c, uint64_t *counter)
{
	pthread_mutex_lock(&c->lock);
	(*counter)++;
	pthread_mutex_unlock(&c->lock);
}

/* --- words ---------------------------------------------------------------------------------------------- */

static void words_claim(struct redis_words *w, const struct claim_op *op)
{
	redis_words_key(w, &op->c->store, "claim:%s", op->claim.key);
}

static void words_sets(struct redis_words *w, const struct claim_op *op)
{
	redis_words_key(w, &op->c->store, "claims");
	redis_words_key(w, &op->c->store, "claims:strangers");
	redis_words_key(w, &op->c->store, "claims:scope:%s", op->claim.scope);
}

static void words_take(struct redis_words *w, const struct claim_op *op)
{
	const struct claim *x = &op->claim;
	redis_words_begin(w, script_take, "4");
	words_claim(w, op);
	words_sets(w, op);
	redis_words_number(w, redis_store_end(&op->c->store));
	redis_words_number(w, op->max_of_scope);
	redis_words_number(w, CLAIMS_MAX);
	redis_words_number(w, CLAIMS_MAX / 4);
	redis_words_number(w, x->keep_us / 1000 > 0 ? x->keep_us / 1000 : 1);
	redis_words_text(w, x->key);
	redis_words_text(w, x->scope);
	redis_words_text(w, x->fingerprint);
	redis_words_text(w, x->token);
	redis_words_number(w, x->side);
	redis_words_text(w, x->backend);
	redis_words_text(w, x->task_id);
	redis_words_number(w, x->created_us);
	redis_words_number(w, x->keep_us);
	redis_words_text(w, x->stranger ? "1" : "0");
}

static void words_move(struct redis_words *w, const struct claim_op *op)
{
	const struct claim *x = &op->claim;
	redis_words_begin(w, script_move, "1");
	words_claim(w, op);
	redis_words_number(w, redis_store_end(&op->c->store));
	redis_words_text(w, op->owner);
	redis_words_text(w, x->fingerprint);
	redis_words_text(w, x->token);
	redis_words_number(w, x->side);
	redis_words_text(w, x->backend);
	redis_words_text(w, x->task_id);
}

static void words_answer(struct redis_words *w, const struct claim_op *op)
{
	redis_words_begin(w, script_answer, "1");
	words_claim(w, op);
	redis_words_text(w, op->claim.task_id);
	redis_words_number(w, op->keeps ? op->status : 0);
	redis_words_add(w, op->keeps ? buf_span(&op->fields) : SPAN_NONE);
	redis_words_add(w, op->keeps ? buf_span(&op->body) : SPAN_NONE);
}

static void words_of(struct redis_words *w, const struct claim_op *op)
{
	switch (op->kind) {
	case OP_TAKE:
		words_take(w, op);
		return;
	case OP_MOVE:
		words_move(w, op);
		return;
	case OP_ANSWER:
		words_answer(w, op);
		return;
	case OP_LOOK:
		redis_words_begin(w, script_look, "2");
		words_claim(w, op);
		redis_words_key(w, &op->c->store, "none");
		return;
	case OP_NOTE:
		redis_words_begin(w, script_note, "1");
		words_claim(w, op);
		redis_words_text(w, op->claim.token);
		redis_words_text(w, op->claim.task_id);
		return;
	case OP_RELEASE:
		redis_words_begin(w, script_release, "4");
		words_claim(w, op);
		words_sets(w, op);
		redis_words_text(w, op->claim.token);
		redis_words_text(w, op->claim.key);
		return;
	}
}

/* --- what nobody waits for ------------------------------------------------------------------------------ */

/* They are written in their order, many at a time; where one fails, it and all behind it are written once
 * more: none of them does anything twice. */
static void later_write(struct claims_redis *c);

static void later_drop(struct claims_redis *c)
{
	struct claim_op *op = c->later;
	c->later = op->next;
	if (!c->later)
		c->last_later = &c->later;
	c->n_later--;
	claim_op_free(op);
}

static void later_done(struct claims_redis *c)
{
	while (c->later && c->later->state == OP_DONE)
		later_drop(c);
	for (struct claim_op *op = c->later; c->later_failed && c->n_flying == 0 && op; op = op->next)
		op->state = OP_WAITING;
	if (!c->later_failed)
		later_write(c);
	else if (c->n_flying == 0)
		c->later_failed = false; /* the next beat, or the next one added, begins anew */
}

static void on_later(void *arg, enum redis_outcome outcome, const struct redis_reply *reply,
		     const struct err *why)
{
	struct claim_op *op = arg;
	struct claims_redis *c = op->c;
	char room[ERR_TEXT_MAX];
	const char *wrong = redis_store_complaint(outcome, reply, why, room);
	c->n_flying--;
	bool lost = wrong && redis_store_failed(&c->store, wrong); /* where its claim was is something else */
	if (lost)
		claims_add(c, &c->status.lost);
	op->state = wrong && !lost ? OP_WAITING : OP_DONE;
	if (wrong && op->kind == OP_ANSWER && op->keeps && strncmp(wrong, "OOM", 3) == 0) {
		op->keeps = false; /* it has ended, and that is known at least */
		claims_add(c, &c->status.unkept);
	}
	c->later_failed |= wrong && !lost;
	later_done(c);
	redis_store_settle(&c->store);
}

static void later_write(struct claims_redis *c)
{
	for (struct claim_op *op = c->later; op && !c->later_failed && c->n_flying < WINDOW; op = op->next) {
		struct redis_words w;
		if (op->state != OP_WAITING)
			continue;
		op->state = OP_FLYING;
		c->n_flying++;
		words_of(&w, op);
		redis_words_send(&w, &c->store, on_later, op);
	}
}

static void later_add(struct claims_redis *c, struct claim_op *op)
{
	if (c->n_later >= CLAIMS_UNWRITTEN) {
		claims_add(c, &c->status.lost);
		claim_op_free(op);
		return;
	}
	op->next = NULL;
	*c->last_later = op;
	c->last_later = &op->next;
	c->n_later++;
	if (!c->store.status.failing)
		later_write(c);
}

static void later_begin(struct loop_work *w)
{
	struct claim_op *op = (struct claim_op *)w;
	struct claims_redis *c = op->c;
	later_add(c, op);
	atomic_fetch_sub(&c->ops, 1);
	redis_store_settle(&c->store);
}

/* --- what somebody waits for ---------------------------------------------------------------------------- */

static struct claim_op *claim_op_new(struct claims_redis *c, enum op_kind kind, const struct claim *claim)
{
	struct claim_op *op = atomic_load(&c->ops) < CLAIMS_QUEUE ? calloc(1, sizeof(*op)) : NULL;
	if (!op)
		return NULL;
	op->c = c;
	op->kind = kind;
	op->claim = *claim;
	buf_init(&op->fields, ANSWER_ROOM);
	buf_init(&op->body, ANSWER_ROOM);
	return op;
}

/* Whether it was taken is not known: if it was, nobody holds it. */
static void give_up_take(const struct claim_op *op)
{
	struct claim_op *release = claim_op_new(op->c, OP_RELEASE, &op->claim);
	if (release)
		later_add(op->c, release);
}

static int64_t claim_number(const struct redis_reply *reply, size_t at)
{
	char text[24];
	text_copy(redis_reply_text(redis_reply_at(reply, at)), text, sizeof(text));
	return strtoll(text, NULL, 10);
}

static void claim_text(const struct redis_reply *reply, size_t at, char *to, size_t size)
{
	span_copy(redis_reply_text(redis_reply_at(reply, at)), to, size);
}

static enum claim_answer read_claim(const struct redis_reply *reply, struct claim_op *op)
{
	struct claim *x = &op->claim;
	if (!redis_reply_at(reply, AT_BODY)) /* an answer to something else */
		return CLAIM_UNKNOWN;
	if (!redis_reply_text(redis_reply_at(reply, AT_TOKEN)).ptr)
		return CLAIM_NONE;
	claim_text(reply, AT_SCOPE, x->scope, sizeof(x->scope));
	claim_text(reply, AT_FINGERPRINT, x->fingerprint, sizeof(x->fingerprint));
	claim_text(reply, AT_TOKEN, x->token, sizeof(x->token));
	claim_text(reply, AT_BACKEND, x->backend, sizeof(x->backend));
	claim_text(reply, AT_TASK, x->task_id, sizeof(x->task_id));
	x->side = claim_number(reply, AT_SIDE) == CLAIM_LEGACY ? CLAIM_LEGACY : CLAIM_TASK;
	x->phase = (enum claim_phase)claim_number(reply, AT_PHASE);
	x->created_us = claim_number(reply, AT_CREATED);
	x->keep_us = claim_number(reply, AT_KEEP);
	x->stranger = claim_number(reply, AT_STRANGER) != 0;
	x->status = (int)claim_number(reply, AT_STATUS);
	if (buf_append_span(&op->fields, redis_reply_text(redis_reply_at(reply, AT_FIELDS))) < 0 ||
	    buf_append_span(&op->body, redis_reply_text(redis_reply_at(reply, AT_BODY))) < 0)
		return CLAIM_UNKNOWN;
	return CLAIM_THERE;
}

static enum claim_answer read_word(struct span word)
{
	static const struct {
		const char *word;
		enum claim_answer answer;
	} words[] = {
		{"MINE", CLAIM_MINE}, {"LOST", CLAIM_LOST}, {"CROWDED", CLAIM_CROWDED}, {"FULL", CLAIM_FULL}};
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (span_is(word, words[i].word))
			return words[i].answer;
	return CLAIM_UNKNOWN;
}

static void op_end(struct claim_op *op, enum claim_answer answer)
{
	struct claims_redis *c = op->c;
	op->answer = answer;
	if (answer == CLAIM_UNKNOWN) {
		buf_clear(&op->fields);
		buf_clear(&op->body);
	}
	claims_count(c, op);
	op->work.fn = claim_op_tell;
	loop_post(op->loop, &op->work);
	atomic_fetch_sub(&c->ops, 1);
	redis_store_settle(&c->store);
}

static void on_op(void *arg, enum redis_outcome outcome, const struct redis_reply *reply,
		  const struct err *why)
{
	struct claim_op *op = arg;
	struct claims_redis *c = op->c;
	char room[ERR_TEXT_MAX];
	enum claim_answer answer = CLAIM_UNKNOWN;
	const char *wrong = redis_store_complaint(outcome, reply, why, room);
	if (wrong)
		redis_store_failed(&c->store, wrong);
	else if (redis_reply_type(reply) == REDIS_ARRAY)
		answer = read_claim(reply, op);
	else
		answer = read_word(redis_reply_text(reply));
	if (op->kind == OP_TAKE && answer == CLAIM_UNKNOWN && outcome != REDIS_NOT_SENT)
		give_up_take(op);
	op_end(op, answer);
}

static void op_begin(struct loop_work *work)
{
	struct claim_op *op = (struct claim_op *)work;
	struct redis_words w;
	/* What is taken or moved could not be kept from being made too late. */
	if (!op->c->store.clock_known && op->kind != OP_LOOK) {
		op_end(op, CLAIM_UNKNOWN);
		return;
	}
	words_of(&w, op);
	redis_words_send(&w, &op->c->store, on_op, op);
}

static void claims_ask(struct claims_redis *c, struct claim_op *op, struct loop *loop, claim_fn fn, void *arg)
{
	if (!op) {
		const struct claim_told told = {.answer = CLAIM_UNKNOWN};
		fn(arg, &told);
		return;
	}
	op->work.fn = op_begin;
	op->loop = loop;
	op->fn = fn;
	op->arg = arg;
	atomic_fetch_add(&c->ops, 1);
	loop_post(c->store.loop, &op->work);
}

/* --- face ----------------------------------------------------------------------------------------------- */

void claims_redis_take(struct claims_redis *c, struct loop *loop, const struct claim *want,
		       unsigned max_of_scope, claim_fn fn, void *arg)
{
	struct claim_op *op = claim_op_new(c, OP_TAKE, want);
	if (op) {
		op->claim.created_us = clock_wall_us();
		op->max_of_scope = max_of_scope;
	}
	claims_ask(c, op, loop, fn, arg);
}

void claims_redis_look(struct claims_redis *c, struct loop *loop, const struct claim *want, claim_fn fn,
		       void *arg)
{
	claims_ask(c, claim_op_new(c, OP_LOOK, want), loop, fn, arg);
}

void claims_redis_move(struct claims_redis *c, struct loop *loop, const char owner[CRYPTO_ID_HEX],
		       const struct claim *to, claim_fn fn, void *arg)
{
	struct claim_op *op = claim_op_new(c, OP_MOVE, to);
	if (op)
		memcpy(op->owner, owner, sizeof(op->owner));
	claims_ask(c, op, loop, fn, arg);
}

static void claims_tell(struct claims_redis *c, struct claim_op *op)
{
	if (!op || op->fields.error || op->body.error) {
		if (op)
			claim_op_free(op);
		claims_add(c, &c->status.lost);
		return;
	}
	op->work.fn = later_begin;
	atomic_fetch_add(&c->ops, 1);
	loop_post(c->store.loop, &op->work);
}

void claims_redis_note(struct claims_redis *c, const struct claim *to)
{
	claims_tell(c, claim_op_new(c, OP_NOTE, to));
}

void claims_redis_answer(struct claims_redis *c, const struct claim *of, bool keeps, int status,
			 struct span fields, struct span body)
{
	struct claim_op *op = claim_op_new(c, OP_ANSWER, of);
	if (op) {
		op->bytes = keeps ? fields.len + body.len : 0;
		op->keeps = atomic_fetch_add(&c->held, op->bytes) + op->bytes <= HELD_MAX && keeps;
		op->status = status;
	}
	if (op && keeps && !op->keeps)
		claims_add(c, &c->status.unkept);
	if (op && op->keeps) {
		buf_append_span(&op->fields, fields);
		buf_append_span(&op->body, body);
	}
	claims_tell(c, op);
}

void claims_redis_release(struct claims_redis *c, const struct claim *of)
{
	claims_tell(c, claim_op_new(c, OP_RELEASE, of));
}

void claims_redis_status(struct claims_redis *c, struct claims_status *ret)
{
	struct redis_store_status s;
	redis_store_status(&c->store, &s);
	pthread_mutex_lock(&c->lock);
	*ret = c->status;
	pthread_mutex_unlock(&c->lock);
	ret->failing = s.failing;
	text_copy(span_of(s.last_error), ret->last_error, sizeof(ret->last_error));
}

/* --- life ----------------------------------------------------------------------------------------------- */

static void on_number(void *arg, enum redis_outcome outcome, const struct redis_reply *reply,
		      const struct err *why)
{
	struct claims_redis *c = arg;
	(void)why;
	if (outcome != REDIS_ANSWERED || redis_reply_type(reply) != REDIS_INTEGER)
		return;
	pthread_mutex_lock(&c->lock);
	c->status.claims = (uint64_t)redis_reply_integer(reply);
	pthread_mutex_unlock(&c->lock);
}

static void claims_works(void *arg)
{
	struct claims_redis *c = arg;
	struct redis_words w;
	later_write(c);
	redis_words_begin(&w, "return redis.call('ZCARD',KEYS[1])", "1");
	redis_words_key(&w, &c->store, "claims");
	redis_words_send(&w, &c->store, on_number, c);
}

static void claims_stopping(void *arg)
{
	later_write(arg);
}

static bool claims_busy(void *arg)
{
	struct claims_redis *c = arg;
	return atomic_load(&c->ops) > 0 || c->n_flying > 0;
}

int claims_redis_start(const struct ledger_options *o, struct claims_redis **ret, struct err *e)
{
	struct claims_redis *c = calloc(1, sizeof(*c));
	if (!c)
		return err_set(e, -ENOMEM, "out of memory");
	c->last_later = &c->later;
	pthread_mutex_init(&c->lock, NULL);
	const struct redis_store_options options = {.url = o->redis,
						    .prefix = o->prefix,
						    .timeout_ms = o->timeout_ms,
						    .quiet = true,
						    .arg = c,
						    .works = claims_works,
						    .stopping = claims_stopping,
						    .busy = claims_busy};
	int r = redis_store_start(&c->store, &options, e);
	if (r < 0) {
		pthread_mutex_destroy(&c->lock);
		free(c);
		return r;
	}
	*ret = c;
	return 0;
}

void claims_redis_stop(struct claims_redis *c)
{
	redis_store_stop(&c->store);
	if (c->later)
		log_error("idempotency_keys_lost", LOG_INT("changes", c->n_later));
	while (c->later)
		later_drop(c);
	redis_store_release(&c->store);
	pthread_mutex_destroy(&c->lock);
	free(c);
}
