/* What a Redis has: a scan over its keys, a few at a time, so that nobody else has to wait for it. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/loop.h"
#include "base/redis.h"
#include "base/text.h"
#include "ledger/claims.h"
#include "ledger/ledger_read.h"
#include "ledger/redis_store.h"

#define SCAN_MS 10000	/* in all */
#define WORD_MAX 4096	/* bytes */
#define SCAN_KEYS "500" /* at a time: about a millisecond of the server's */

/* KEYS: since, none. ARGV: cursor, keys at a time, prefix, the same as a pattern, side of a claim, phase of
 * one that has ended. Answers the next cursor, since when the server remembers, and what was there: {group,
 * backend, count, oldest, newest}, … */
static const char script_scan[] = REDIS_REFUSE_REPLICA(
	"KEYS[2]") "local s=redis.call('SCAN',ARGV[1],'MATCH',ARGV[4],'COUNT',ARGV[2]) "
		   "local out,at={},{} "
		   "local function add(group,backend,t) "
		   "local id=#group..':'..group..backend local g=at[id] "
		   "if not g then g={group,backend,0,t,t} at[id]=g out[#out+1]=g end "
		   "g[3]=g[3]+1 if t<g[4] then g[4]=t end if t>g[5] then g[5]=t end end "
		   "local function read(k,group,...) "
		   "local e=redis.pcall('HMGET',k,...) "
		   "if e.err then add('" LEDGER_GROUP_UNUSABLE "','',0) "
		   "elseif group then if e[1] then add(group,e[1],tonumber(e[2]) or 0) end "
		   "elseif e[3]==ARGV[5] and (tonumber(e[4]) or 0)<tonumber(ARGV[6]) then "
		   "add('" LEDGER_GROUP_CLAIMS "',e[1] or '',tonumber(e[2]) or 0) end end "
		   "for _,k in ipairs(s[2]) do local name=k:sub(#ARGV[3]+1) "
		   "local n,rest=name:match('^entry:(%d+):(.*)$') "
		   "if n then read(k,rest:sub(1,tonumber(n)),'backend','at') "
		   "elseif name:sub(1,6)=='claim:' then read(k,nil,'backend','created','side','phase') end "
		   "end "
		   "return {s[1],redis.call('GET',KEYS[1]) or '',out}";

struct ledger_scan {
	struct loop *loop;
	struct loop_timer *limit;
	struct redis *redis;
	const char *prefix;
	unsigned timeout_ms;
	struct buf pattern, cursor;
	struct ledger_group *groups; /* the caller's */
	size_t max, *n;
	char *store; /* the caller's */
	int code;
	struct err *e;
};

static void scan_end(struct ledger_scan *s, int code)
{
	s->code = code;
	loop_stop(s->loop);
}

static void scan_on_limit(void *arg)
{
	struct ledger_scan *s = arg;
	scan_end(s, err_set(s->e, -ETIMEDOUT, "%s: more keys than can be looked at within %d s",
			    redis_where(s->redis), SCAN_MS / 1000));
}

static struct ledger_group *scan_group(struct ledger_scan *s, struct span group, struct span backend)
{
	struct ledger_group like = {.entries = 0};
	text_copy(group, like.group, sizeof(like.group));
	text_copy(backend, like.backend, sizeof(like.backend));
	for (size_t i = 0; i < *s->n; i++)
		if (strcmp(s->groups[i].group, like.group) == 0 &&
		    strcmp(s->groups[i].backend, like.backend) == 0)
			return &s->groups[i];
	if (*s->n == s->max)
		return NULL;
	s->groups[*s->n] = like;
	return &s->groups[(*s->n)++];
}

static int scan_add(struct ledger_scan *s, const struct redis_reply *one)
{
	struct ledger_group *g = scan_group(s, redis_reply_text(redis_reply_at(one, 0)),
					    redis_reply_text(redis_reply_at(one, 1)));
	int64_t oldest = redis_reply_integer(redis_reply_at(one, 3));
	int64_t newest = redis_reply_integer(redis_reply_at(one, 4));
	if (!g)
		return err_set(s->e, -E2BIG, "%s: more than %zu groups", redis_where(s->redis), s->max);
	g->entries += (uint64_t)redis_reply_integer(redis_reply_at(one, 2));
	if (!g->oldest_us || oldest < g->oldest_us)
		g->oldest_us = oldest;
	if (newest > g->newest_us)
		g->newest_us = newest;
	return 0;
}

static void scan_next(struct ledger_scan *s);

static void scan_on_keys(void *arg, enum redis_outcome outcome, const struct redis_reply *reply,
			 const struct err *why)
{
	struct ledger_scan *s = arg;
	char room[ERR_TEXT_MAX];
	const char *wrong = redis_store_complaint(outcome, reply, why, room);
	struct span cursor = redis_reply_text(redis_reply_at(reply, 0));
	const struct redis_reply *found = redis_reply_at(reply, 2), *one;
	if (!wrong && !cursor.ptr)
		wrong = "an answer to something else";
	if (wrong) {
		scan_end(s, err_set(s->e, -EIO, "%s: %s", redis_where(s->redis), wrong));
		return;
	}
	text_copy(redis_reply_text(redis_reply_at(reply, 1)), s->store, LEDGER_STORE_MAX);
	for (size_t i = 0; (one = redis_reply_at(found, i)) != NULL; i++)
		if (scan_add(s, one) < 0) {
			scan_end(s, -E2BIG);
			return;
		}
	if (span_is(cursor, "0")) {
		scan_end(s, 0);
		return;
	}
	buf_clear(&s->cursor);
	buf_append_span(&s->cursor, cursor);
	scan_next(s);
}

static void scan_next(struct ledger_scan *s)
{
	CLEANUP(buf_releasep) struct buf keys = BUF_INIT(2 * WORD_MAX), numbers = BUF_INIT(8);
	buf_printf(&keys, "%ssince%snone", s->prefix, s->prefix);
	buf_printf(&numbers, "%d%d", CLAIM_TASK, CLAIM_ENDED);
	if (keys.error || numbers.error || s->cursor.error || s->pattern.error) {
		scan_end(s, err_set(s->e, -ENOMEM, "the prefix is too long, or there is no memory"));
		return;
	}
	size_t prefix = strlen(s->prefix);
	const struct span words[] = {SPAN_LIT("EVAL"),
				     span_of(script_scan),
				     SPAN_LIT("2"),
				     {keys.ptr, prefix + 5},
				     {keys.ptr + prefix + 5, prefix + 4},
				     buf_span(&s->cursor),
				     SPAN_LIT(SCAN_KEYS),
				     span_of(s->prefix),
				     buf_span(&s->pattern),
				     {numbers.ptr, 1},
				     {numbers.ptr + 1, 1}};
	redis_command(s->redis, words, sizeof(words) / sizeof(words[0]), s->timeout_ms, scan_on_keys, s);
}

/* What is special in a pattern of Redis' is meant as it is. */
static void scan_pattern(struct ledger_scan *s)
{
	for (const char *p = s->prefix; *p; p++) {
		if (strchr("*?[]\\^-", *p))
			buf_putc(&s->pattern, '\\');
		buf_putc(&s->pattern, *p);
	}
	buf_putc(&s->pattern, '*');
	buf_putc(&s->cursor, '0');
}

static int scan_connect(struct ledger_scan *s, const char *text, struct err *e)
{
	struct redis_url url;
	int r = redis_url_parse(span_of(text), &url, e);
	if (r < 0)
		return r;
	const struct redis_options o = {
		.url = &url, .connect_timeout_ms = s->timeout_ms, .command_timeout_ms = s->timeout_ms};
	r = redis_new(s->loop, &o, &s->redis, e);
	redis_url_release(&url);
	return r;
}

int ledger_read_redis(const char *url, const char *prefix, unsigned timeout_ms, struct ledger_group *ret,
		      size_t max, size_t *ret_n, char store[LEDGER_STORE_MAX], struct err *e)
{
	struct ledger_scan s = {.pattern = BUF_INIT(WORD_MAX),
				.cursor = BUF_INIT(64),
				.prefix = prefix,
				.timeout_ms = timeout_ms,
				.groups = ret,
				.max = max,
				.n = ret_n,
				.store = store,
				.e = e};
	*ret_n = 0;
	store[0] = 0;
	scan_pattern(&s);
	int r = loop_new(&s.loop);
	if (r < 0)
		err_set(e, r, "no event loop");
	if (r == 0 && (r = loop_timer_new(s.loop, scan_on_limit, &s, &s.limit)) < 0)
		err_set(e, r, "out of memory");
	if (r == 0)
		r = scan_connect(&s, url, e);
	if (r == 0) {
		loop_timer_start(s.limit, SCAN_MS);
		scan_next(&s);
		r = loop_run(s.loop);
		r = r < 0 ? err_set(e, r, "no event loop") : s.code;
	}
	redis_free(s.redis);
	if (s.loop)
		loop_run_posted(s.loop);
	loop_timer_free(s.limit);
	loop_free(s.loop);
	buf_release(&s.pattern);
	buf_release(&s.cursor);
	return r;
}
