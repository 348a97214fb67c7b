#include "base/redis_sentinel.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/digits.h"
#include "base/redis.h"
#include "base/text.h"

#define OTHERS_MS 250 /* so long an answer waits for those of the others */
#define WATCH_MS 1000
#define BACKOFF_MAX_MS 1000
#define HOST_MAX 256

struct sentinel_answer {
	char host[HOST_MAX]; /* "": none */
	unsigned port;
	int64_t epoch; /* -1: not known */
};

struct sentinel_one {
	struct redis_sentinel *all;
	struct redis *redis;
	struct redis_call *calls[2];
	struct sentinel_answer answer;
	struct err why; /* of no answer */
	bool asked;	/* and not answered yet */
};

struct redis_sentinel {
	struct loop *loop;
	struct redis_url url; /* for its names */
	unsigned timeout_ms;
	redis_master_fn fn;
	void *arg;
	struct sentinel_one ones[REDIS_SENTINELS_MAX];
	size_t n;
	struct loop_timer *others, *watch;
	struct loop_work end;
	bool asking, watching;
	struct sentinel_answer last; /* which was told */
	int64_t epoch;		     /* the highest that was told */
};

/* --- which answer counts -------------------------------------------------------------------------------- */

static bool sentinel_agree(const struct sentinel_answer *a, const struct sentinel_answer *b)
{
	return a->port == b->port && strcmp(a->host, b->host) == 0;
}

static bool sentinel_majority(const struct redis_sentinel *s, const struct sentinel_answer *a)
{
	size_t n = 0;
	for (size_t i = 0; i < s->n; i++)
		n += s->ones[i].answer.host[0] && sentinel_agree(&s->ones[i].answer, a);
	return n > s->n / 2;
}

/* One of several with the same epoch may write a name where another writes an address: what is in use
 * stays. */
static bool sentinel_better(const struct redis_sentinel *s, const struct sentinel_answer *a,
			    const struct sentinel_answer *than)
{
	if (!than || a->epoch != than->epoch)
		return !than || a->epoch > than->epoch;
	return !sentinel_agree(than, &s->last) && sentinel_agree(a, &s->last);
}

static const struct sentinel_answer *sentinel_pick(const struct redis_sentinel *s)
{
	const struct sentinel_answer *best = NULL;
	for (size_t i = 0; i < s->n; i++)
		if (s->ones[i].answer.host[0] && sentinel_better(s, &s->ones[i].answer, best))
			best = &s->ones[i].answer;
	return best;
}

static void sentinel_reason(const struct redis_sentinel *s, struct err *why)
{
	for (size_t i = 0; i < s->n; i++)
		if (s->ones[i].why.text[0]) {
			*why = s->ones[i].why;
			return;
		}
	err_set(why, -ETIMEDOUT, "no Sentinel answers within the time limit");
}

static void sentinel_end(struct loop_work *work)
{
	struct redis_sentinel *s =
		(struct redis_sentinel *)((char *)work - offsetof(struct redis_sentinel, end));
	const struct sentinel_answer *best = sentinel_pick(s);
	struct err why = {.text = ""};
	s->asking = false;
	loop_timer_stop(s->others);
	if (s->watching)
		loop_timer_start(s->watch, WATCH_MS);
	if (!best) {
		sentinel_reason(s, &why);
	} else if (best->epoch < s->epoch && !sentinel_majority(s, best)) {
		err_set(&why, -ESTALE, "the Sentinels that answer know only of an earlier master");
		best = NULL;
	} else {
		s->last = *best;
		s->epoch = best->epoch;
	}
	s->fn(s->arg, best ? s->last.host : NULL, best ? s->last.port : 0, &why);
}

static void sentinel_settle(struct redis_sentinel *s)
{
	size_t open = 0, answers = 0;
	for (size_t i = 0; i < s->n; i++) {
		open += s->ones[i].asked;
		answers += !s->ones[i].asked && s->ones[i].answer.host[0];
	}
	if (open == 0)
		loop_defer(s->loop, &s->end);
	else if (answers && !loop_timer_active(s->others))
		loop_timer_start(s->others, OTHERS_MS);
}

/* What is still open is not waited for; it may be answered in the next round's time. */
static void sentinel_on_others(void *arg)
{
	struct redis_sentinel *s = arg;
	for (size_t i = 0; i < s->n; i++) {
		redis_call_cancel(s->ones[i].calls[0]);
		redis_call_cancel(s->ones[i].calls[1]);
		s->ones[i].calls[0] = s->ones[i].calls[1] = NULL;
		s->ones[i].asked = false;
	}
	loop_defer(s->loop, &s->end);
}

/* --- one Sentinel --------------------------------------------------------------------------------------- */

static bool sentinel_refused(struct sentinel_one *o, enum redis_outcome outcome,
			     const struct redis_reply *reply, const struct err *why)
{
	if (outcome != REDIS_ANSWERED) {
		err_set(&o->why, -EIO, "Sentinel: %s", why->text);
		return true;
	}
	if (redis_reply_type(reply) != REDIS_ERROR)
		return false;
	err_set(&o->why, -EIO, "Sentinel at %s: %.*s", redis_where(o->redis),
		SPAN_ARG(redis_reply_text(reply)));
	return true;
}

static void sentinel_on_address(void *arg, enum redis_outcome outcome, const struct redis_reply *reply,
				const struct err *why)
{
	struct sentinel_one *o = arg;
	uint64_t port = 0;
	o->calls[0] = NULL;
	if (sentinel_refused(o, outcome, reply, why))
		return;
	struct span host = redis_reply_text(redis_reply_at(reply, 0));
	if (redis_reply_type(reply) == REDIS_NIL)
		err_set(&o->why, -ENOENT, "Sentinel at %s knows no master named %s", redis_where(o->redis),
			o->all->url.sentinels.master);
	else if (!host.len || host.len >= HOST_MAX ||
		 !digits_read(redis_reply_text(redis_reply_at(reply, 1)), 65535, &port))
		err_set(&o->why, -EPROTO, "Sentinel at %s gives no address", redis_where(o->redis));
	else
		text_copy(host, o->answer.host, sizeof(o->answer.host));
	o->answer.port = (unsigned)port;
}

/* Names and values, one behind the other. One that may not be asked leaves the epoch unknown. */
static void sentinel_on_master(void *arg, enum redis_outcome outcome, const struct redis_reply *reply,
			       const struct err *why)
{
	struct sentinel_one *o = arg;
	uint64_t epoch;
	(void)why;
	(void)outcome;
	o->calls[1] = NULL;
	o->answer.epoch = -1;
	for (size_t i = 0; redis_reply_at(reply, i); i += 2)
		if (span_is(redis_reply_text(redis_reply_at(reply, i)), "config-epoch") &&
		    digits_read(redis_reply_text(redis_reply_at(reply, i + 1)), INT64_MAX, &epoch))
			o->answer.epoch = (int64_t)epoch;
	o->asked = false;
	sentinel_settle(o->all);
}

static void sentinel_ask_one(struct sentinel_one *o)
{
	const struct redis_sentinel *s = o->all;
	struct span name = span_of(s->url.sentinels.master);
	const struct span address[] = {SPAN_LIT("SENTINEL"), SPAN_LIT("GET-MASTER-ADDR-BY-NAME"), name},
			  master[] = {SPAN_LIT("SENTINEL"), SPAN_LIT("MASTER"), name};
	o->answer = (struct sentinel_answer){.epoch = -1};
	o->why.text[0] = '\0';
	o->asked = true;
	o->calls[0] = redis_command(o->redis, address, 3, s->timeout_ms, sentinel_on_address, o);
	o->calls[1] = redis_command(o->redis, master, 3, s->timeout_ms, sentinel_on_master, o);
}

void redis_sentinel_ask(struct redis_sentinel *s)
{
	if (s->asking)
		return;
	s->asking = true;
	loop_timer_stop(s->watch);
	for (size_t i = 0; i < s->n; i++)
		sentinel_ask_one(&s->ones[i]);
}

static void sentinel_on_watch(void *arg)
{
	redis_sentinel_ask(arg);
}

void redis_sentinel_watch(struct redis_sentinel *s, bool on)
{
	s->watching = on;
	if (!on)
		loop_timer_stop(s->watch);
	else if (!s->asking)
		loop_timer_start(s->watch, WATCH_MS);
}

/* --- life ----------------------------------------------------------------------------------------------- */

static int sentinel_add(struct redis_sentinel *s, size_t index, struct err *e)
{
	struct redis_url at;
	struct sentinel_one *o = &s->ones[index];
	if (redis_url_of_sentinel(&s->url, index, &at) < 0)
		return err_set(e, -ENOMEM, "out of memory");
	const struct redis_options options = {.url = &at,
					      .connect_timeout_ms = s->timeout_ms,
					      .command_timeout_ms = s->timeout_ms,
					      .backoff_max_ms = BACKOFF_MAX_MS};
	o->all = s;
	int r = redis_new(s->loop, &options, &o->redis, e);
	redis_url_release(&at);
	s->n += r == 0;
	return r;
}

int redis_sentinel_new(struct loop *loop, const struct redis_url *u, unsigned timeout_ms, redis_master_fn fn,
		       void *arg, struct redis_sentinel **ret, struct err *e)
{
	struct redis_sentinel *s = calloc(1, sizeof(*s));
	if (!s || redis_url_copy(u, &s->url) < 0) {
		free(s);
		return err_set(e, -ENOMEM, "out of memory");
	}
	s->loop = loop;
	s->timeout_ms = timeout_ms;
	s->fn = fn;
	s->arg = arg;
	s->end.fn = sentinel_end;
	s->epoch = -1;
	int r = redis_url_set_master(&s->url, NULL, e);
	if (r == 0 && (loop_timer_new(loop, sentinel_on_others, s, &s->others) < 0 ||
		       loop_timer_new(loop, sentinel_on_watch, s, &s->watch) < 0))
		r = err_set(e, -ENOMEM, "out of memory");
	for (size_t i = 0; r == 0 && i < u->sentinels.n; i++)
		r = sentinel_add(s, i, e);
	if (r < 0)
		redis_sentinel_free(s);
	else
		*ret = s;
	return r;
}

struct redis_sentinel *redis_sentinel_free(struct redis_sentinel *s)
{
	if (!s)
		return NULL;
	for (size_t i = 0; i < s->n; i++)
		redis_free(s->ones[i].redis);
	loop_defer_cancel(s->loop, &s->end);
	loop_timer_free(s->others);
	loop_timer_free(s->watch);
	redis_url_release(&s->url);
	free(s);
	return NULL;
}
