#include "tasks/celery/worker/writes.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/crypto.h"

#define AGAIN_MS 250
#define MARKER_SECONDS "3600" /* how long it is known that a value was put there */

/* KEYS: a marker, a list. ARGV: the value, the command, the marker's seconds. */
static const char push_once_script[] =
	"if redis.call('SET', KEYS[1], '1', 'NX', 'EX', ARGV[3]) then "
	" local ok = redis.pcall(ARGV[2], KEYS[2], ARGV[1]) "
	" if type(ok) == 'table' then redis.call('DEL', KEYS[1]) return ok end "
	"end "
	"return 1";

struct celery_write {
	struct celery_writes *owner;
	TAILQ_ENTRY(celery_write) place;
	celery_write_fn fn;
	void *arg;
	size_t n, answered;
	bool again, waits; /* one was not executed; it stands in `waiting` */
	bool maybe;	   /* an earlier attempt may have been executed */
	struct err why;	   /* what is refused for good */
	int64_t first;
	size_t n_words[CELERY_WRITE_COMMANDS];
	struct span *words; /* of all commands, one after the other, in the same block */
};

static void write_free(struct celery_write *x)
{
	struct celery_writes *w = x->owner;
	if (x->waits)
		TAILQ_REMOVE(&w->waiting, x, place);
	else
		TAILQ_REMOVE(&w->open, x, place);
	w->n_open--;
	free(x);
}

static void write_send(struct celery_write *x);

static void write_wait(struct celery_write *x)
{
	struct celery_writes *w = x->owner;
	TAILQ_REMOVE(&w->open, x, place);
	TAILQ_INSERT_TAIL(&w->waiting, x, place);
	x->waits = true;
	if (!loop_timer_active(w->again))
		loop_timer_start(w->again, AGAIN_MS);
}

static void write_settle(struct celery_write *x, const struct redis_reply *reply)
{
	struct celery_writes *w = x->owner;
	if (x->again) {
		write_wait(x);
		return;
	}
	celery_write_fn fn = x->fn;
	void *arg = x->arg;
	struct err why = x->why;
	int64_t first = x->first == 0 && x->maybe ? CELERY_WRITE_PERHAPS : x->first;
	write_free(x);
	w->reply = reply;
	if (fn)
		fn(arg, first, why.text[0] ? &why : NULL);
	w->reply = NULL;
}

/* What is about the server, or the moment, and not about the command. */
static bool passes(struct span text)
{
	static const char *const words[] = {"OOM",	   "READONLY",	 "LOADING",   "MISCONF",
					    "BUSY",	   "MASTERDOWN", "NOAUTH",    "TRYAGAIN",
					    "CLUSTERDOWN", "NOREPLICAS", "UNKILLABLE"};
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (span_starts(text, span_of(words[i])))
			return true;
	return false;
}

static void writes_on_reply(void *arg, enum redis_outcome outcome, const struct redis_reply *reply,
			    const struct err *why)
{
	struct celery_write *x = arg;
	(void)why;
	struct span text = redis_reply_text(reply);
	x->maybe |= outcome == REDIS_NO_REPLY;
	if (outcome != REDIS_ANSWERED)
		x->again = true;
	else if (redis_reply_type(reply) == REDIS_ERROR && passes(text))
		x->again = true;
	else if (redis_reply_type(reply) == REDIS_ERROR)
		err_set(&x->why, 0, "%.*s", SPAN_ARG(text));
	else if (x->answered == 0)
		x->first = redis_reply_integer(reply);
	if (++x->answered == x->n)
		write_settle(x, reply);
}

static void write_send(struct celery_write *x)
{
	struct redis *r = x->owner->redis;
	struct span *words = x->words;
	const size_t n = x->n;
	x->answered = 0;
	x->again = false;
	for (size_t i = 0; i < n; i++) {
		size_t n_words = x->n_words[i];
		/* Out of memory is told from within the call, at the last one the write is gone. */
		redis_command(r, words, n_words, 0, writes_on_reply, x);
		words += n_words;
	}
}

static size_t count_words(const struct celery_command *commands, size_t n, size_t *ret_bytes)
{
	size_t words = 0;
	*ret_bytes = 0;
	for (size_t i = 0; i < n; i++) {
		words += commands[i].n;
		for (size_t j = 0; j < commands[i].n; j++)
			*ret_bytes += commands[i].words[j].len;
	}
	return words;
}

int celery_writes_add(struct celery_writes *w, const struct celery_command *commands, size_t n,
		      celery_write_fn fn, void *arg)
{
	size_t bytes, n_words = count_words(commands, n, &bytes);
	struct celery_write *x = calloc(1, sizeof(*x) + n_words * sizeof(struct span) + bytes);
	if (!x)
		return -ENOMEM;
	x->owner = w;
	x->fn = fn;
	x->arg = arg;
	x->n = n;
	x->words = (struct span *)(x + 1);
	char *at = (char *)(x->words + n_words);
	struct span *word = x->words;
	for (size_t i = 0; i < n; i++) {
		x->n_words[i] = commands[i].n;
		for (size_t j = 0; j < commands[i].n; j++, word++) {
			*word = (struct span){at, commands[i].words[j].len};
			if (word->len)
				memcpy(at, commands[i].words[j].ptr, word->len);
			at += word->len;
		}
	}
	TAILQ_INSERT_TAIL(&w->open, x, place);
	w->n_open++;
	write_send(x);
	return 0;
}

int celery_writes_push_once(struct celery_writes *w, const char *prefix, struct span list, struct span value,
			    bool tail, celery_write_fn fn, void *arg)
{
	char id[CRYPTO_ID_HEX], marker[256];
	crypto_random_id(id);
	snprintf(marker, sizeof(marker), "%s_migration.sent.%s", prefix, id);
	const struct span words[] = {SPAN_LIT("EVAL"),
				     span_of(push_once_script),
				     SPAN_LIT("2"),
				     span_of(marker),
				     list,
				     value,
				     tail ? SPAN_LIT("LPUSH") : SPAN_LIT("RPUSH"),
				     SPAN_LIT(MARKER_SECONDS)};
	const struct celery_command command = {words, 8};
	return celery_writes_add(w, &command, 1, fn, arg);
}

/* From the loop: whoever says so may be in the middle of something. */
void celery_writes_go_on(struct celery_writes *w)
{
	if (!TAILQ_EMPTY(&w->waiting))
		loop_timer_start(w->again, 0);
}

static void writes_on_again(void *arg)
{
	struct celery_writes *w = arg;
	struct err why;
	TAILQ_HEAD(, celery_write) now = TAILQ_HEAD_INITIALIZER(now);
	if (redis_away(w->redis, &why)) {
		loop_timer_start(w->again, AGAIN_MS);
		return;
	}
	TAILQ_CONCAT(&now, &w->waiting, place);
	while (!TAILQ_EMPTY(&now)) {
		struct celery_write *x = TAILQ_FIRST(&now);
		TAILQ_REMOVE(&now, x, place);
		TAILQ_INSERT_TAIL(&w->open, x, place);
		x->waits = false;
		write_send(x);
	}
}

int celery_writes_init(struct celery_writes *w, struct loop *loop, struct redis *redis)
{
	TAILQ_INIT(&w->open);
	TAILQ_INIT(&w->waiting);
	w->redis = redis;
	return loop_timer_new(loop, writes_on_again, w, &w->again);
}

void celery_writes_release(struct celery_writes *w)
{
	if (!w->redis) /* never made */
		return;
	/* The connection that knows them is freed by now, without their callbacks. */
	while (!TAILQ_EMPTY(&w->open))
		write_free(TAILQ_FIRST(&w->open));
	while (!TAILQ_EMPTY(&w->waiting))
		write_free(TAILQ_FIRST(&w->waiting));
	w->again = loop_timer_free(w->again);
}
