#include "tasks/celery/worker/taking.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"

#define WAIT_SECONDS "1" /* of BRPOP; kombu's brpop_timeout */
#define PAUSE_MS 300	 /* after something went wrong */
#define REFRESH_MS 30000
#define REFRESH_PIECE 100 /* tags in one command */
#define TAKE_MAX 256
#define LISTS_MAX ((size_t)64 * CELERY_STEPS_MAX)

/* Moves up to ARGV[1] messages from the lists KEYS[3…] into unacked (KEYS[1]) and its index (KEYS[2]) at
 * the time ARGV[2]; their tags are ARGV[3] and a number; ARGV[4…] is what kombu keeps after the message,
 * where it goes back to. Returns number of the list, message, …. A key that is no list is passed over; what
 * cannot be noted as unacknowledged (a key of another type) goes back: a script that fails undoes nothing. */
static const char take_script[] = "local got, n = {}, 0 "
				  "for i = 3, #KEYS do "
				  " while n < tonumber(ARGV[1]) do "
				  "  local m = redis.pcall('RPOP', KEYS[i]) "
				  "  if type(m) ~= 'string' then break end "
				  "  local tag = ARGV[3] .. n "
				  "  local ok = redis.pcall('ZADD', KEYS[2], ARGV[2], tag) "
				  "  if type(ok) ~= 'table' then "
				  "   ok = redis.pcall('HSET', KEYS[1], tag, '[' .. m .. ARGV[i + 1]) "
				  "   if type(ok) == 'table' then redis.call('ZREM', KEYS[2], tag) end "
				  "  end "
				  "  if type(ok) == 'table' then "
				  "   redis.call('RPUSH', KEYS[i], m) "
				  "   return ok "
				  "  end "
				  "  got[2 * n + 1] = i - 3 "
				  "  got[2 * n + 2] = m "
				  "  n = n + 1 "
				  " end "
				  "end "
				  "return got";

/* Wrong types are found before anything is changed. */
static const char give_back_script[] = "redis.call('ZSCORE', KEYS[2], ARGV[1]) redis.call('LLEN', KEYS[3]) "
				       "if redis.call('HDEL', KEYS[1], ARGV[1]) == 1 then "
				       " redis.call('ZREM', KEYS[2], ARGV[1]) "
				       " redis.call('RPUSH', KEYS[3], ARGV[2]) "
				       " return 1 "
				       "end "
				       "return 0";

enum taking_state {
	TAKING_IDLE,
	TAKING_SCRIPT,
	TAKING_WAIT,
	TAKING_HOLDS, /* what BRPOP brought is being put into `unacked`; what is behind it comes after it */
	TAKING_RECOVERS,
	TAKING_PAUSED
};

struct celery_taking {
	struct celery_taking_options o;
	struct redis *redis;
	struct loop_timer *pause, *refresh;
	struct loop_work look;
	bool look_due;
	enum taking_state state;
	bool empty, stopping, told_idle;
	bool known, works; /* whether the broker does, once that is known */
	char id[CRYPTO_ID_HEX];
	int64_t refreshed_ms, refresh_began_ms; /* all that were held then */
	uint64_t call;				/* number of the script's calls, part of tags */
	unsigned lost; /* messages that the last call may have taken, of which no answer came */
	size_t turn;   /* the queue that comes first */
	LIST_HEAD(, celery_held) held;
	/* Names of lists, by queue and step; and what kombu keeps after the message, by queue. */
	struct buf unacked, index, *lists, *ends;
	size_t n_lists;
};

void celery_taking_key(const struct celery_options *c, const char *name, struct buf *out)
{
	buf_puts(out, c->broker_prefix);
	buf_puts(out, name);
}

/* --- what is held --------------------------------------------------------------------------------------- */

static struct celery_held *taking_hold(struct celery_taking *t, struct span raw, size_t list)
{
	struct celery_held *h = calloc(1, sizeof(*h) + raw.len + 1);
	if (!h)
		return NULL;
	h->taking = t;
	h->list = list;
	h->queue = list % t->o.n_queues;
	h->taken_ms = clock_mono_ms();
	h->raw = (struct span){(char *)(h + 1), raw.len};
	memcpy(h + 1, raw.ptr, raw.len);
	LIST_INSERT_HEAD(&t->held, h, place);
	return h;
}

void celery_held_free(struct celery_held *h)
{
	if (!h)
		return;
	LIST_REMOVE(h, place);
	free(h);
}

int celery_held_ack(struct celery_held *h, celery_write_fn fn, void *arg)
{
	struct celery_taking *t = h->taking;
	const struct span hdel[] = {SPAN_LIT("HDEL"), buf_span(&t->unacked), span_of(h->tag)},
			  zrem[] = {SPAN_LIT("ZREM"), buf_span(&t->index), span_of(h->tag)};
	const struct celery_command commands[] = {{hdel, 3}, {zrem, 3}};
	return celery_writes_add(t->o.writes, commands, 2, fn, arg);
}

/* Where an answer was lost, nobody can have put back what was fresh. */
bool celery_held_was_ours(const struct celery_held *h, int64_t first)
{
	const struct celery_taking *t = h->taking;
	int64_t fresh = h->taken_ms > t->refreshed_ms ? h->taken_ms : t->refreshed_ms;
	return first > 0 ||
	       (first == CELERY_WRITE_PERHAPS && clock_mono_ms() - fresh < t->o.visibility_ms / 2);
}

int celery_held_give_back(struct celery_held *h, celery_write_fn fn, void *arg)
{
	struct celery_taking *t = h->taking;
	const struct span words[] = {
		SPAN_LIT("EVAL"),    span_of(give_back_script),	   SPAN_LIT("3"),   buf_span(&t->unacked),
		buf_span(&t->index), buf_span(&t->lists[h->list]), span_of(h->tag), h->raw};
	const struct celery_command command = {words, 8};
	return celery_writes_add(t->o.writes, &command, 1, fn, arg);
}

int celery_held_push_back(struct celery_held *h, celery_write_fn fn, void *arg)
{
	struct celery_taking *t = h->taking;
	return celery_writes_push_once(t->o.writes, t->o.c->broker_prefix, buf_span(&t->lists[h->list]),
				       h->raw, false, fn, arg);
}

static void taking_on_refreshed(void *arg, enum redis_outcome outcome, const struct redis_reply *reply,
				const struct err *why)
{
	struct celery_taking *t = arg;
	(void)why;
	if (outcome == REDIS_ANSWERED && redis_reply_type(reply) == REDIS_INTEGER)
		t->refreshed_ms = t->refresh_began_ms;
}

/* What is held is held by somebody who lives. */
static void taking_on_refresh(void *arg)
{
	struct celery_taking *t = arg;
	struct span words[3 + 2 * REFRESH_PIECE] = {SPAN_LIT("ZADD"), buf_span(&t->index), SPAN_LIT("XX")};
	char now[32];
	size_t n = 3;
	t->refresh_began_ms = clock_mono_ms();
	snprintf(now, sizeof(now), "%.6f", (double)clock_wall_us() / 1e6);
	for (struct celery_held *h = LIST_FIRST(&t->held); h; h = LIST_NEXT(h, place)) {
		words[n++] = span_of(now);
		words[n++] = span_of(h->tag);
		bool last = !LIST_NEXT(h, place);
		if (!last && n < sizeof(words) / sizeof(words[0]))
			continue;
		redis_command(t->o.writes->redis, words, n, 0, last ? taking_on_refreshed : NULL, t);
		n = 3;
	}
	int64_t every = t->o.visibility_ms / 4;
	every = every < 100 ? 100 : every;
	loop_timer_start(t->refresh, every < REFRESH_MS ? (uint64_t)every : REFRESH_MS);
}

/* --- taking --------------------------------------------------------------------------------------------- */

static void taking_go(struct celery_taking *t);

static void taking_on_look(struct loop_work *work)
{
	struct celery_taking *t =
		(struct celery_taking *)((char *)work - offsetof(struct celery_taking, look));
	t->look_due = false;
	taking_go(t);
}

void celery_taking_look(struct celery_taking *t)
{
	if (!t->look_due) {
		t->look_due = true;
		loop_defer(t->o.loop, &t->look);
	}
}

static void taking_say(struct celery_taking *t, bool works, const char *why)
{
	if (t->known && t->works == works)
		return;
	t->known = true;
	t->works = works;
	t->o.state(t->o.arg, works, why);
}

static void taking_on_pause(void *arg)
{
	struct celery_taking *t = arg;
	t->state = TAKING_IDLE;
	taking_go(t);
}

static void taking_trouble(struct celery_taking *t, enum redis_outcome outcome,
			   const struct redis_reply *reply, const struct err *why)
{
	struct span text = redis_reply_text(reply);
	struct err e;
	if (outcome == REDIS_ANSWERED)
		err_set(&e, 0, "Redis at %s: %.*s", redis_where(t->redis), SPAN_ARG(text));
	else
		e = *why;
	taking_say(t, false, e.text);
	t->state = TAKING_PAUSED;
	t->empty = false;
	loop_timer_start(t->pause, PAUSE_MS);
}

static bool taking_answered(struct celery_taking *t, enum redis_outcome outcome,
			    const struct redis_reply *reply, const struct err *why)
{
	if (outcome != REDIS_ANSWERED || redis_reply_type(reply) == REDIS_ERROR) {
		taking_trouble(t, outcome, reply, why);
		return false;
	}
	taking_say(t, true, "");
	t->state = TAKING_IDLE;
	return true;
}

static void taking_tag(const struct celery_taking *t, unsigned i, char out[CELERY_TAG_MAX])
{
	snprintf(out, CELERY_TAG_MAX, "%s.%llu.%u", t->id, (unsigned long long)t->call, i);
}

static void taking_deliver(struct celery_taking *t, struct celery_held *h)
{
	if (h)
		t->o.delivered(t->o.arg, h);
	else /* it stands in `unacked`, and comes back after the visibility timeout */
		log_error("message_not_held", LOG_STR("error", "out of memory"));
}

/* --- by the script -------------------------------------------------------------------------------------- */

/* List i of the script's order: all queues of the first step, then those of the next. */
static size_t taking_list(const struct celery_taking *t, size_t i)
{
	size_t n = t->o.n_queues, step = i / n;
	return step * n + (i % n + t->turn) % n;
}

static void taking_on_taken(void *arg, enum redis_outcome outcome, const struct redis_reply *reply,
			    const struct err *why)
{
	struct celery_taking *t = arg;
	unsigned n = 0, asked = t->lost;
	const struct redis_reply *item;
	if (outcome != REDIS_NO_REPLY)
		t->lost = 0;
	if (!taking_answered(t, outcome, reply, why))
		return;
	for (; (item = redis_reply_at(reply, 2 * n + 1)); n++) {
		size_t list = taking_list(t, (size_t)redis_reply_integer(redis_reply_at(reply, 2 * n)));
		struct celery_held *h = taking_hold(t, redis_reply_text(item), list);
		if (h)
			taking_tag(t, n, h->tag);
		taking_deliver(t, h);
	}
	t->empty = n < asked;
	t->turn = (t->turn + 1) % t->o.n_queues;
	celery_taking_look(t);
}

static void taking_ask(struct celery_taking *t, unsigned n)
{
	const size_t n_words = 3 + 2 + t->n_lists + 3 + t->n_lists;
	CLEANUP(freep) struct span *words = calloc(n_words, sizeof(*words));
	char count[16], now[32], tags[CELERY_TAG_MAX], keys[16];
	if (!words) {
		taking_trouble(t, REDIS_NOT_SENT, NULL, &(struct err){"out of memory"});
		return;
	}
	t->call++;
	t->lost = n < TAKE_MAX ? n : TAKE_MAX;
	snprintf(count, sizeof(count), "%u", t->lost);
	snprintf(now, sizeof(now), "%.6f", (double)clock_wall_us() / 1e6);
	snprintf(tags, sizeof(tags), "%s.%llu.", t->id, (unsigned long long)t->call);
	snprintf(keys, sizeof(keys), "%zu", 2 + t->n_lists);
	size_t at = 0;
	words[at++] = SPAN_LIT("EVAL");
	words[at++] = span_of(take_script);
	words[at++] = span_of(keys);
	words[at++] = buf_span(&t->unacked);
	words[at++] = buf_span(&t->index);
	for (size_t i = 0; i < t->n_lists; i++)
		words[at++] = buf_span(&t->lists[taking_list(t, i)]);
	words[at++] = span_of(count);
	words[at++] = span_of(now);
	words[at++] = span_of(tags);
	for (size_t i = 0; i < t->n_lists; i++)
		words[at++] = buf_span(&t->ends[taking_list(t, i) % t->o.n_queues]);
	t->state = TAKING_SCRIPT;
	redis_command(t->redis, words, at, 0, taking_on_taken, t);
}

/* --- what a lost answer spoke of ------------------------------------------------------------------------ */

static void taking_on_recovered(void *arg, enum redis_outcome outcome, const struct redis_reply *reply,
				const struct err *why)
{
	static const struct span parts[] = {SPAN_INIT("/0"), SPAN_INIT("/2")};
	struct celery_taking *t = arg;
	const struct redis_reply *item;
	if (!taking_answered(t, outcome, reply, why))
		return;
	for (unsigned i = 0; i < t->lost && (item = redis_reply_at(reply, i)); i++) {
		struct span f[2];
		size_t queue = 0;
		CLEANUP(buf_releasep) struct buf name = BUF_INIT(4096);
		if (redis_reply_type(item) != REDIS_TEXT ||
		    json_pointers(redis_reply_text(item), parts, 2, f, NULL) < 0)
			continue; /* what is no JSON comes back after the visibility timeout */
		json_unescape(f[1], &name);
		while (queue + 1 < t->o.n_queues && !span_is(buf_span(&name), t->o.queues[queue]))
			queue++;
		struct celery_held *h = taking_hold(t, f[0], queue);
		if (h)
			taking_tag(t, i, h->tag);
		taking_deliver(t, h);
	}
	t->lost = 0;
	celery_taking_look(t);
}

static void taking_recover(struct celery_taking *t)
{
	struct span words[2 + TAKE_MAX] = {SPAN_LIT("HMGET"), buf_span(&t->unacked)};
	char tags[TAKE_MAX][CELERY_TAG_MAX];
	for (unsigned i = 0; i < t->lost; i++) {
		taking_tag(t, i, tags[i]);
		words[2 + i] = span_of(tags[i]);
	}
	t->state = TAKING_RECOVERS;
	redis_command(t->redis, words, 2 + t->lost, 0, taking_on_recovered, t);
}

/* --- by waiting ----------------------------------------------------------------------------------------- */

static void taking_on_returned(void *arg, int64_t first, const struct err *why)
{
	struct celery_held *h = arg;
	struct celery_taking *t = h->taking;
	(void)first;
	if (why)
		log_error("message_lost", LOG_STR("error", why->text),
			  LOG_STR("effect", "it was taken, and can be put nowhere"));
	celery_held_free(h);
	t->state = TAKING_PAUSED;
	t->empty = false;
	loop_timer_start(t->pause, PAUSE_MS);
}

static void taking_on_held(void *arg, int64_t first, const struct err *why)
{
	struct celery_held *h = arg;
	struct celery_taking *t = h->taking;
	(void)first;
	if (why) {
		/* What is not noted could not be claimed either. */
		log_error("message_not_in_unacked", LOG_STR("error", why->text),
			  LOG_STR("effect", "it goes back to its queue"));
		if (celery_held_push_back(h, taking_on_returned, h) == 0)
			return;
	}
	t->state = TAKING_IDLE;
	taking_deliver(t, h);
	celery_taking_look(t);
}

/* From here on it is in no list: first of all it is put where a kill does not lose it. */
static int taking_put_unacked(struct celery_taking *t, struct celery_held *h)
{
	CLEANUP(buf_releasep) struct buf entry = BUF_INIT(h->raw.len + 4096);
	char now[32];
	snprintf(now, sizeof(now), "%.6f", (double)clock_wall_us() / 1e6);
	buf_putc(&entry, '[');
	buf_append_span(&entry, h->raw);
	buf_append_span(&entry, buf_span(&t->ends[h->queue]));
	const struct span hset[] = {SPAN_LIT("HSET"), buf_span(&t->unacked), span_of(h->tag),
				    buf_span(&entry)},
			  zadd[] = {SPAN_LIT("ZADD"), buf_span(&t->index), span_of(now), span_of(h->tag)};
	const struct celery_command commands[] = {{hset, 4}, {zadd, 4}};
	return entry.error ? entry.error : celery_writes_add(t->o.writes, commands, 2, taking_on_held, h);
}

static void taking_popped(struct celery_taking *t, struct span key, struct span raw)
{
	size_t list = 0;
	struct err e = {"out of memory"};
	while (list + 1 < t->n_lists && !span_eq(key, buf_span(&t->lists[list])))
		list++;
	struct celery_held *h = taking_hold(t, raw, list);
	if (!h) { /* nothing left to hold it with: back to where it was */
		const struct span words[] = {SPAN_LIT("RPUSH"), key, raw};
		redis_command(t->o.writes->redis, words, 3, 0, NULL, NULL);
		taking_trouble(t, REDIS_NOT_SENT, NULL, &e);
		return;
	}
	t->call++;
	taking_tag(t, 0, h->tag);
	t->state = TAKING_HOLDS;
	if (taking_put_unacked(t, h) < 0)
		taking_on_held(h, 0, &e);
}

static void taking_on_popped(void *arg, enum redis_outcome outcome, const struct redis_reply *reply,
			     const struct err *why)
{
	struct celery_taking *t = arg;
	if (!taking_answered(t, outcome, reply, why))
		return;
	if (redis_reply_type(reply) == REDIS_ARRAY) {
		t->empty = false;
		taking_popped(t, redis_reply_text(redis_reply_at(reply, 0)),
			      redis_reply_text(redis_reply_at(reply, 1)));
	}
	taking_go(t);
}

static void taking_wait(struct celery_taking *t)
{
	CLEANUP(freep) struct span *words = calloc(t->n_lists + 2, sizeof(*words));
	if (!words) {
		taking_trouble(t, REDIS_NOT_SENT, NULL, &(struct err){"out of memory"});
		return;
	}
	words[0] = SPAN_LIT("BRPOP");
	for (size_t i = 0; i < t->n_lists; i++)
		words[1 + i] = buf_span(&t->lists[taking_list(t, i)]);
	words[1 + t->n_lists] = SPAN_LIT(WAIT_SECONDS);
	t->state = TAKING_WAIT;
	redis_command(t->redis, words, t->n_lists + 2, 0, taking_on_popped, t);
}

static void taking_go(struct celery_taking *t)
{
	if (t->state != TAKING_IDLE)
		return;
	if (t->lost) {
		taking_recover(t);
		return;
	}
	if (t->stopping) {
		if (!t->told_idle)
			t->o.idle(t->o.arg);
		t->told_idle = true;
		return;
	}
	unsigned n = t->o.wanted(t->o.arg);
	if (n == 0)
		return;
	if (t->empty)
		taking_wait(t);
	else
		taking_ask(t, n);
}

void celery_taking_stop(struct celery_taking *t)
{
	t->stopping = true;
	if (t->state == TAKING_PAUSED && !t->lost) {
		loop_timer_stop(t->pause);
		t->state = TAKING_IDLE;
	}
	celery_taking_look(t);
}

/* --- begin and end -------------------------------------------------------------------------------------- */

static int taking_names(struct celery_taking *t)
{
	const struct celery_options *c = t->o.c;
	const size_t n = t->o.n_queues;
	int error = 0;
	for (size_t i = 0; i < t->n_lists; i++) {
		buf_init(&t->lists[i], 4096);
		buf_puts(&t->lists[i], c->broker_prefix);
		celery_queue_key(&c->lists, span_of(t->o.queues[i % n]), c->lists.steps[i / n], &t->lists[i]);
		error = t->lists[i].error ? t->lists[i].error : error;
	}
	for (size_t i = 0; i < n; i++) {
		buf_init(&t->ends[i], 4096);
		buf_puts(&t->ends[i], ", \"\", ");
		json_quote(&t->ends[i], span_of(t->o.queues[i]));
		buf_putc(&t->ends[i], ']');
		error = t->ends[i].error ? t->ends[i].error : error;
	}
	return error;
}

static int taking_open(struct celery_taking *t, struct err *e)
{
	buf_init(&t->unacked, 256);
	buf_init(&t->index, 256);
	celery_taking_key(t->o.c, "unacked", &t->unacked);
	celery_taking_key(t->o.c, "unacked_index", &t->index);
	t->n_lists = t->o.n_queues * t->o.c->lists.n_steps;
	t->lists = calloc(t->n_lists, sizeof(*t->lists));
	t->ends = calloc(t->o.n_queues, sizeof(*t->ends));
	int r = t->lists && t->ends ? taking_names(t) : -ENOMEM;
	if (r == 0)
		r = loop_timer_new(t->o.loop, taking_on_pause, t, &t->pause);
	if (r == 0)
		r = loop_timer_new(t->o.loop, taking_on_refresh, t, &t->refresh);
	if (r < 0)
		return err_set(e, r, "out of memory");
	return redis_new(t->o.loop, t->o.redis, &t->redis, e);
}

int celery_taking_new(const struct celery_taking_options *o, struct celery_taking **ret, struct err *e)
{
	struct celery_taking *t = calloc(1, sizeof(*t));
	if (!t)
		return err_set(e, -ENOMEM, "out of memory");
	t->o = *o;
	t->look.fn = taking_on_look;
	crypto_random_id(t->id);
	LIST_INIT(&t->held);
	int r = taking_open(t, e);
	if (r < 0) {
		celery_taking_free(t);
		return r;
	}
	taking_on_refresh(t);
	celery_taking_look(t);
	*ret = t;
	return 0;
}

struct celery_taking *celery_taking_free(struct celery_taking *t)
{
	if (!t)
		return NULL;
	redis_free(t->redis);
	loop_defer_cancel(t->o.loop, &t->look);
	loop_timer_free(t->pause);
	loop_timer_free(t->refresh);
	while (!LIST_EMPTY(&t->held))
		celery_held_free(LIST_FIRST(&t->held));
	for (size_t i = 0; t->lists && i < t->n_lists; i++)
		buf_release(&t->lists[i]);
	for (size_t i = 0; t->ends && i < t->o.n_queues; i++)
		buf_release(&t->ends[i]);
	free(t->lists);
	free(t->ends);
	buf_release(&t->unacked);
	buf_release(&t->index);
	free(t);
	return NULL;
}
