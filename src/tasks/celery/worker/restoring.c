#include "tasks/celery/worker/restoring.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "tasks/celery/worker/incoming.h"

#define EVERY_MS 10000
#define AT_ONCE "10" /* messages in one round, as kombu */
/* kombu: 300, for which a worker that is killed within a round keeps the others from restoring. Each move is
 * atomic without it. */
#define MUTEX_SECONDS "5"
#define QUEUES_MAX 64		/* that one message goes to */
#define BINDING_MAX (64u << 10) /* members of an exchange's table that are looked at */

/* KEYS: unacked, its index, lists. ARGV: tag, what was read, the message for each list. */
static const char restore_script[] = "redis.call('ZSCORE', KEYS[2], ARGV[1]) "
				     "for i = 3, #KEYS do redis.call('LLEN', KEYS[i]) end "
				     "if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end "
				     "redis.call('HDEL', KEYS[1], ARGV[1]) "
				     "redis.call('ZREM', KEYS[2], ARGV[1]) "
				     "for i = 3, #KEYS do redis.call('RPUSH', KEYS[i], ARGV[3]) end "
				     "return 1";

static const char release_script[] = "if redis.call('GET', KEYS[1]) == ARGV[1] then "
				     " return redis.call('DEL', KEYS[1]) "
				     "end "
				     "return 0";

struct celery_restoring {
	struct loop *loop;
	const struct celery_options *c;
	struct redis *redis;
	struct loop_timer *timer;
	char token[CRYPTO_ID_HEX];
	struct buf mutex, unacked, index;
	/* The round that is running. */
	struct buf tags; /* with a NUL behind each */
	size_t at;	 /* of the tag that is being put back */
	struct buf entry;
	bool said;
};

static void restoring_next(struct celery_restoring *r);

static uint64_t restoring_every(const struct celery_restoring *r)
{
	uint64_t ms = r->c->visibility_timeout_ms / 10;
	return ms < EVERY_MS ? ms + 1 : EVERY_MS;
}

static bool restoring_good(enum redis_outcome outcome, const struct redis_reply *reply)
{
	return outcome == REDIS_ANSWERED && redis_reply_type(reply) != REDIS_ERROR;
}

static void restoring_end(struct celery_restoring *r)
{
	const struct span words[] = {SPAN_LIT("EVAL"), span_of(release_script), SPAN_LIT("1"),
				     buf_span(&r->mutex), span_of(r->token)};
	redis_command(r->redis, words, 5, 0, NULL, NULL);
	loop_timer_start(r->timer, restoring_every(r));
}

static struct span restoring_tag(const struct celery_restoring *r)
{
	return span_of(r->tags.ptr + r->at);
}

static void restoring_skip(struct celery_restoring *r)
{
	r->at += restoring_tag(r).len + 1;
	restoring_next(r);
}

/* --- one message ---------------------------------------------------------------------------------------- */

static void restoring_on_restored(void *arg, enum redis_outcome outcome, const struct redis_reply *reply,
				  const struct err *why)
{
	struct celery_restoring *r = arg;
	(void)why;
	if (!restoring_good(outcome, reply)) {
		restoring_end(r);
		return;
	}
	if (redis_reply_integer(reply) == 1)
		log_warn(
			"message_restored", LOG_SPAN("tag", restoring_tag(r)),
			LOG_STR("reason", "its worker did not acknowledge it within the visibility timeout"));
	restoring_skip(r);
}

static int restoring_priority(struct span message)
{
	struct span value;
	char text[16];
	if (!json_pointer(message, SPAN_LIT("/properties/priority"), &value) ||
	    json_type_of(value) != JSON_NUMBER)
		return 0;
	span_copy(value, text, sizeof(text));
	return atoi(text);
}

static void restoring_put(struct celery_restoring *r, const struct span *queues, size_t n)
{
	CLEANUP(buf_releasep) struct buf message = BUF_INIT(r->entry.len + 256);
	struct buf lists[QUEUES_MAX];
	struct span words[8 + QUEUES_MAX], raw;
	char keys[16];
	json_pointer(buf_span(&r->entry), SPAN_LIT("/0"), &raw);
	celery_put_redelivered(raw, &message);
	snprintf(keys, sizeof(keys), "%zu", n + 2);
	size_t w = 0;
	words[w++] = SPAN_LIT("EVAL");
	words[w++] = span_of(restore_script);
	words[w++] = span_of(keys);
	words[w++] = buf_span(&r->unacked);
	words[w++] = buf_span(&r->index);
	for (size_t i = 0; i < n; i++) {
		buf_init(&lists[i], 4096);
		buf_puts(&lists[i], r->c->broker_prefix);
		celery_queue_key(&r->c->lists, queues[i], restoring_priority(raw), &lists[i]);
		words[w++] = buf_span(&lists[i]);
	}
	words[w++] = restoring_tag(r);
	words[w++] = buf_span(&r->entry);
	words[w++] = buf_span(&message);
	if (message.error)
		restoring_end(r);
	else
		redis_command(r->redis, words, w, 0, restoring_on_restored, r);
	for (size_t i = 0; i < n; i++)
		buf_release(&lists[i]);
}

/* Routing key, pattern and queue, with the separator between. */
static bool restoring_leads(const struct celery_restoring *r, struct span member, struct span key,
			    struct span *queue)
{
	const char *sep = r->c->lists.separator;
	size_t length = strlen(sep);
	const char *first = memmem(member.ptr, member.len, sep, length), *second = NULL,
		   *end = member.ptr + member.len;
	if (first)
		second = memmem(first + length, (size_t)(end - first) - length, sep, length);
	if (!second)
		return false;
	*queue = (struct span){second + length, (size_t)(end - second) - length};
	return queue->len && span_eq((struct span){member.ptr, (size_t)(first - member.ptr)}, key);
}

static void restoring_on_table(void *arg, enum redis_outcome outcome, const struct redis_reply *reply,
			       const struct err *why)
{
	struct celery_restoring *r = arg;
	CLEANUP(buf_releasep) struct buf key = BUF_INIT(4096);
	struct span value, queues[QUEUES_MAX];
	const struct redis_reply *member;
	size_t n = 0;
	(void)why;
	if (!restoring_good(outcome, reply)) {
		restoring_end(r);
		return;
	}
	if (json_pointer(buf_span(&r->entry), SPAN_LIT("/2"), &value))
		json_unescape(value, &key);
	for (size_t i = 0; n < QUEUES_MAX && i < BINDING_MAX && (member = redis_reply_at(reply, i)); i++)
		n += restoring_leads(r, redis_reply_text(member), buf_span(&key), &queues[n]);
	if (n) {
		restoring_put(r, queues, n);
		return;
	}
	if (!r->said)
		log_error("message_not_restored", LOG_SPAN("tag", restoring_tag(r)),
			  LOG_SPAN("routing_key", buf_span(&key)),
			  LOG_STR("reason", "no queue is bound to its routing key"),
			  LOG_STR("effect", "it stays in unacked; said once"));
	r->said = true;
	restoring_skip(r);
}

static void restoring_route(struct celery_restoring *r, struct span exchange, struct span routing_key)
{
	CLEANUP(buf_releasep) struct buf name = BUF_INIT(4096), table = BUF_INIT(4096);
	json_unescape(exchange, &name);
	if (name.len == 0) { /* the default exchange: the routing key is the queue */
		json_unescape(routing_key, &table);
		const struct span queue = buf_span(&table);
		restoring_put(r, &queue, 1);
		return;
	}
	buf_printf(&table, "%s_kombu.binding.%s", r->c->broker_prefix, name.ptr);
	const struct span words[] = {SPAN_LIT("SMEMBERS"), buf_span(&table)};
	redis_command(r->redis, words, 2, 0, restoring_on_table, r);
}

static void restoring_on_entry(void *arg, enum redis_outcome outcome, const struct redis_reply *reply,
			       const struct err *why)
{
	static const struct span parts[] = {SPAN_INIT("/0"), SPAN_INIT("/1"), SPAN_INIT("/2")};
	struct celery_restoring *r = arg;
	struct span f[3];
	(void)why;
	if (!restoring_good(outcome, reply)) {
		restoring_end(r);
		return;
	}
	buf_clear(&r->entry);
	if (redis_reply_type(reply) != REDIS_TEXT) { /* acknowledged meanwhile; what is left in the index */
		const struct span words[] = {SPAN_LIT("ZREM"), buf_span(&r->index), restoring_tag(r)};
		redis_command(r->redis, words, 3, 0, NULL, NULL);
		restoring_skip(r);
	} else if (buf_append_span(&r->entry, redis_reply_text(reply)) < 0 ||
		   json_pointers(buf_span(&r->entry), parts, 3, f, NULL) < 0 || !f[0].ptr || !f[2].ptr) {
		restoring_skip(r);
	} else {
		restoring_route(r, f[1], f[2]);
	}
}

static void restoring_next(struct celery_restoring *r)
{
	if (r->at >= r->tags.len) {
		restoring_end(r);
		return;
	}
	const struct span words[] = {SPAN_LIT("HGET"), buf_span(&r->unacked), restoring_tag(r)};
	redis_command(r->redis, words, 3, 0, restoring_on_entry, r);
}

/* --- a round -------------------------------------------------------------------------------------------- */

static void restoring_on_tags(void *arg, enum redis_outcome outcome, const struct redis_reply *reply,
			      const struct err *why)
{
	struct celery_restoring *r = arg;
	const struct redis_reply *item;
	(void)why;
	buf_clear(&r->tags);
	r->at = 0;
	for (size_t i = 0; restoring_good(outcome, reply) && (item = redis_reply_at(reply, i)); i++) {
		buf_append_span(&r->tags, redis_reply_text(item));
		buf_putc(&r->tags, '\0');
	}
	if (r->tags.error)
		buf_clear(&r->tags);
	restoring_next(r);
}

static void restoring_on_mutex(void *arg, enum redis_outcome outcome, const struct redis_reply *reply,
			       const struct err *why)
{
	struct celery_restoring *r = arg;
	char ceiling[32];
	(void)why;
	if (!restoring_good(outcome, reply) || redis_reply_type(reply) == REDIS_NIL) { /* another is at it */
		loop_timer_start(r->timer, restoring_every(r));
		return;
	}
	snprintf(ceiling, sizeof(ceiling), "%.6f",
		 (double)(clock_wall_us() - (int64_t)r->c->visibility_timeout_ms * 1000) / 1e6);
	const struct span words[] = {SPAN_LIT("ZREVRANGEBYSCORE"),
				     buf_span(&r->index),
				     span_of(ceiling),
				     SPAN_LIT("0"),
				     SPAN_LIT("LIMIT"),
				     SPAN_LIT("0"),
				     SPAN_LIT(AT_ONCE)};
	redis_command(r->redis, words, 7, 0, restoring_on_tags, r);
}

static void restoring_on_timer(void *arg)
{
	struct celery_restoring *r = arg;
	crypto_random_id(r->token);
	const struct span words[] = {SPAN_LIT("SET"), buf_span(&r->mutex), span_of(r->token),
				     SPAN_LIT("NX"),  SPAN_LIT("EX"),	   SPAN_LIT(MUTEX_SECONDS)};
	redis_command(r->redis, words, 6, 0, restoring_on_mutex, r);
}

int celery_restoring_new(struct loop *loop, const struct celery_options *c, struct redis *broker,
			 struct celery_restoring **ret, struct err *e)
{
	struct celery_restoring *r = calloc(1, sizeof(*r));
	if (!r)
		return err_set(e, -ENOMEM, "out of memory");
	r->loop = loop;
	r->c = c;
	r->redis = broker;
	buf_init(&r->mutex, 256);
	buf_init(&r->unacked, 256);
	buf_init(&r->index, 256);
	buf_init(&r->tags, 64u << 10);
	buf_init(&r->entry, 512u << 20);
	buf_printf(&r->mutex, "%sunacked_mutex", c->broker_prefix);
	buf_printf(&r->unacked, "%sunacked", c->broker_prefix);
	buf_printf(&r->index, "%sunacked_index", c->broker_prefix);
	int code = loop_timer_new(loop, restoring_on_timer, r, &r->timer);
	if (code < 0) {
		celery_restoring_free(r);
		return err_set(e, code, "out of memory");
	}
	loop_timer_start(r->timer, restoring_every(r));
	*ret = r;
	return 0;
}

struct celery_restoring *celery_restoring_free(struct celery_restoring *r)
{
	if (!r)
		return NULL;
	loop_timer_free(r->timer);
	buf_release(&r->mutex);
	buf_release(&r->unacked);
	buf_release(&r->index);
	buf_release(&r->tags);
	buf_release(&r->entry);
	free(r);
	return NULL;
}
