#include "ledger/redis_store.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"

#define BEAT_MS 1000
#define ALIVE_MS "10000"  /* of the key that each beat writes */
#define CONNECT_MS 1000	  /* no more than timeout_ms */
#define STOP_MORE_MS 1000 /* than timeout_ms */
#define MAX_PENDING 400000
#define TEXT_ROOM 8192
#define KEY_SAID_MS 60000

/* KEYS: alive, since. ARGV: ms. What writing needs is there; how late it is there; and since when it has its
 * memory. */
static const char script_beat[] =
	REDIS_SERVER_NOW "redis.call('SET',KEYS[1],'1','PX',ARGV[1]) "
			 "redis.call('SET',KEYS[2],string.format('%.0f',now),'NX') "
			 "return {string.format('%.0f',now),redis.call('GET',KEYS[2])}";

/* --- its state ------------------------------------------------------------------------------------------ */

static void store_met(struct redis_store *s)
{
	s->has_met = true;
	pthread_cond_broadcast(&s->met);
}

static void store_failing(struct redis_store *s, const char *why)
{
	pthread_mutex_lock(&s->lock);
	bool news = !s->status.failing;
	s->status.failing = true;
	text_copy(span_of(why), s->status.last_error, sizeof(s->status.last_error));
	if (news) {
		s->status.since_us = clock_wall_us();
		s->failing_ms = clock_mono_ms();
		s->errors_before = s->status.errors;
	}
	store_met(s);
	pthread_mutex_unlock(&s->lock);
	if (news && !s->o.quiet)
		log_error("state_unavailable", LOG_STR("store", s->status.where), LOG_STR("error", why));
}

static void store_working(struct redis_store *s)
{
	pthread_mutex_lock(&s->lock);
	bool news = s->status.failing;
	int64_t lasted_ms = clock_mono_ms() - s->failing_ms;
	uint64_t errors = s->status.errors - s->errors_before;
	if (news || !s->has_met)
		s->status.since_us = clock_wall_us();
	s->status.failing = false;
	s->status.last_error[0] = '\0';
	store_met(s);
	pthread_mutex_unlock(&s->lock);
	if (news && !s->o.quiet)
		log_info("state_available", LOG_STR("store", s->status.where),
			 LOG_INT("lasted_ms", lasted_ms), LOG_INT("errors", errors));
}

void redis_store_count_error(struct redis_store *s)
{
	pthread_mutex_lock(&s->lock);
	s->status.errors++;
	pthread_mutex_unlock(&s->lock);
}

bool redis_store_failed(struct redis_store *s, const char *why)
{
	/* The error of a script names what it called before, or behind, this word, depending on the
	 * server. */
	bool one_key = strstr(why, "WRONGTYPE") != NULL;
	int64_t now = clock_mono_ms();
	pthread_mutex_lock(&s->lock);
	s->status.errors++;
	bool say = one_key && (!s->key_said_ms || now - s->key_said_ms >= KEY_SAID_MS);
	if (say)
		s->key_said_ms = now;
	pthread_mutex_unlock(&s->lock);
	if (say)
		log_error("state_key_unusable", LOG_STR("store", s->status.where), LOG_STR("error", why),
			  LOG_STR("effect", "what it is about is unknown until the key is removed"));
	if (!one_key)
		store_failing(s, why);
	return one_key;
}

static void store_warn(struct redis_store *s, const char *warning)
{
	pthread_mutex_lock(&s->lock);
	bool news = warning && warning != s->status.warning;
	s->status.warning = warning;
	pthread_mutex_unlock(&s->lock);
	if (news && !s->o.quiet)
		log_warn("state_may_be_lost", LOG_STR("store", s->status.where), LOG_STR("why", warning));
}

/* What an outcome says against the server; NULL: it did as it was told. */
const char *redis_store_complaint(enum redis_outcome outcome, const struct redis_reply *reply,
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

/* --- words ---------------------------------------------------------------------------------------------- */

void redis_words_begin(struct redis_words *w, const char *script, const char *n_keys)
{
	*w = (struct redis_words){0};
	buf_init(&w->text, TEXT_ROOM);
	redis_words_text(w, "EVAL");
	redis_words_text(w, script);
	redis_words_text(w, n_keys);
}

void redis_words_add(struct redis_words *w, struct span word)
{
	w->words[w->n++] = word.ptr ? word : SPAN_LIT("");
}

void redis_words_text(struct redis_words *w, const char *text)
{
	redis_words_add(w, span_of(text));
}

/* A word that is made: its text may still move. */
static void words_made(struct redis_words *w)
{
	w->ends[w->n_made++] = w->text.len;
	w->words[w->n++] = SPAN_NONE;
}

void redis_words_number(struct redis_words *w, int64_t n)
{
	buf_printf(&w->text, "%" PRId64, n);
	words_made(w);
}

void redis_words_key(struct redis_words *w, const struct redis_store *s, const char *format, ...)
{
	va_list ap;
	va_start(ap, format);
	buf_puts(&w->text, s->prefix);
	buf_vprintf(&w->text, format, ap);
	va_end(ap);
	words_made(w);
}

void redis_words_send(struct redis_words *w, struct redis_store *s, redis_reply_fn fn, void *arg)
{
	size_t made = 0, begin = 0;
	for (size_t i = 0; i < w->n; i++)
		if (!w->words[i].ptr) {
			w->words[i] = (struct span){w->text.ptr + begin, w->ends[made] - begin};
			begin = w->ends[made++];
		}
	redis_command(s->redis, w->words, w->n, s->timeout_ms, fn, arg);
	buf_release(&w->text);
}

/* --- the beat: it works, and how late it is there ------------------------------------------------------- */

static void note_clock(struct redis_store *s, struct span server)
{
	char text[24];
	int64_t now = clock_mono_us(), took = now - s->beat_us;
	/* One that took long says little of when the server looked. */
	if (s->clock_known && took > (int64_t)s->timeout_ms * 1000 / 4)
		return;
	text_copy(server, text, sizeof(text));
	s->clock_us = strtoll(text, NULL, 10) - now;
	s->clock_known = true;
}

/* The server's memory is another one than that which was there before. */
static void note_since(struct redis_store *s, struct span since)
{
	bool lost = s->since[0] && !span_is(since, s->since);
	text_copy(since, s->since, sizeof(s->since));
	if (!lost || s->o.quiet)
		return;
	pthread_mutex_lock(&s->lock);
	s->status.losses++;
	pthread_mutex_unlock(&s->lock);
	log_error("state_lost", LOG_STR("store", s->status.where),
		  LOG_STR("why",
			  "the server has lost its data; it was flushed, or restarted without persistence"),
		  LOG_STR("effect", "follow-up calls to what was started earlier go to legacy"));
}

static void on_beat(void *arg, enum redis_outcome outcome, const struct redis_reply *reply,
		    const struct err *why)
{
	struct redis_store *s = arg;
	char room[ERR_TEXT_MAX];
	const char *wrong = redis_store_complaint(outcome, reply, why, room);
	s->beating = false;
	loop_timer_start(s->beat, BEAT_MS);
	if (!wrong && !redis_reply_text(redis_reply_at(reply, 1)).ptr)
		wrong = "an answer to something else";
	if (wrong) {
		store_failing(s, wrong);
		return;
	}
	note_clock(s, redis_reply_text(redis_reply_at(reply, 0)));
	note_since(s, redis_reply_text(redis_reply_at(reply, 1)));
	store_working(s);
	s->o.works(s->o.arg);
}

static void store_beat(void *arg)
{
	struct redis_store *s = arg;
	struct redis_words w;
	if (s->beating)
		return;
	s->beating = true;
	s->beat_us = clock_mono_us();
	redis_words_begin(&w, script_beat, "2");
	redis_words_key(&w, s, "alive");
	redis_words_key(&w, s, "since");
	redis_words_text(&w, ALIVE_MS);
	redis_words_send(&w, s, on_beat, s);
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

/* Another process than before, with the same memory as far as can be seen: a replica that became the
 * master, or the same one restarted. What was acknowledged last may not be in it, which nothing there
 * would show. */
static void note_run(struct redis_store *s, struct span run_id)
{
	bool news = s->run_id[0] && run_id.len && !span_is(run_id, s->run_id);
	if (run_id.len)
		text_copy(run_id, s->run_id, sizeof(s->run_id));
	if (news && !s->o.quiet)
		log_warn("state_server_changed", LOG_STR("store", s->status.where),
			 LOG_STR("why", "another server has become the master, or it was restarted"),
			 LOG_STR("effect",
				 "what the former one acknowledged in its last moments may be missing: "
				 "follow-up calls to it go to legacy"));
}

/* How it is set up, as far as we may see it. */
static void on_info(void *arg, enum redis_outcome outcome, const struct redis_reply *reply,
		    const struct err *why)
{
	struct redis_store *s = arg;
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
	else if (s->sentinels && info.len && !info_of(info, "min_slaves_good_slaves").len)
		warning = "min-replicas-to-write is 0: a failover loses what the master had not passed on";
	note_run(s, info_of(info, "run_id"));
	store_warn(s, warning);
}

static void store_on_state(void *arg, enum redis_state state, const char *why)
{
	struct redis_store *s = arg;
	const struct span info[] = {SPAN_INIT("INFO")};
	if (state == REDIS_DOWN)
		store_failing(s, why);
	if (state != REDIS_READY)
		return;
	redis_command(s->redis, info, 1, s->timeout_ms, on_info, s);
	store_beat(s);
}

/* --- life ----------------------------------------------------------------------------------------------- */

int64_t redis_store_now(const struct redis_store *s)
{
	return s->clock_known ? s->clock_us + clock_mono_us() : clock_wall_us();
}

int64_t redis_store_end(const struct redis_store *s)
{
	return redis_store_now(s) + (int64_t)s->timeout_ms * 1000;
}

void redis_store_settle(struct redis_store *s)
{
	if (s->stopping && !s->o.busy(s->o.arg))
		loop_stop(s->loop);
}

static void store_stop_now(void *arg)
{
	struct redis_store *s = arg;
	loop_stop(s->loop);
}

static void store_on_stop(struct loop_work *w)
{
	struct redis_store *s = (struct redis_store *)((char *)w - offsetof(struct redis_store, stop));
	s->stopping = true;
	loop_timer_start(s->patience, s->timeout_ms + STOP_MORE_MS);
	s->o.stopping(s->o.arg);
	redis_store_settle(s);
}

static void *store_run(void *arg)
{
	struct redis_store *s = arg;
	sigset_t all;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, NULL);
	store_beat(s);
	loop_run(s->loop);
	return NULL;
}

void redis_store_release(struct redis_store *s)
{
	redis_free(s->redis);
	loop_timer_free(s->beat);
	loop_timer_free(s->patience);
	loop_free(s->loop);
	free(s->prefix);
	pthread_cond_destroy(&s->met);
	pthread_mutex_destroy(&s->lock);
}

void redis_store_stop(struct redis_store *s)
{
	loop_post(s->loop, &s->stop);
	pthread_join(s->thread, NULL);
}

void redis_store_status(struct redis_store *s, struct redis_store_status *ret)
{
	pthread_mutex_lock(&s->lock);
	*ret = s->status;
	pthread_mutex_unlock(&s->lock);
}

static int store_client(struct redis_store *s, const char *text, struct err *e)
{
	struct redis_url url;
	int r = redis_url_parse(span_of(text), &url, e);
	if (r < 0)
		return r;
	const struct redis_options o = {.url = &url,
					.connect_timeout_ms =
						s->timeout_ms < CONNECT_MS ? s->timeout_ms : CONNECT_MS,
					.command_timeout_ms = s->timeout_ms,
					.backoff_max_ms = BEAT_MS,
					.max_pending = MAX_PENDING,
					.on_state = store_on_state,
					.arg = s};
	s->sentinels = url.sentinels.n > 0;
	r = redis_new(s->loop, &o, &s->redis, e);
	if (r == 0)
		text_copy(span_of(redis_where(s->redis)), s->status.where, sizeof(s->status.where));
	redis_url_release(&url);
	return r;
}

static void wait_until_met(struct redis_store *s)
{
	struct timespec until;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += s->timeout_ms / 1000 + 1;
	pthread_mutex_lock(&s->lock);
	while (!s->has_met)
		if (pthread_cond_timedwait(&s->met, &s->lock, &until) == ETIMEDOUT)
			break;
	pthread_mutex_unlock(&s->lock);
}

static void store_init(struct redis_store *s, const struct redis_store_options *o)
{
	pthread_condattr_t attributes;
	s->o = *o;
	s->stop.fn = store_on_stop;
	s->timeout_ms = o->timeout_ms;
	pthread_mutex_init(&s->lock, NULL);
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&s->met, &attributes);
	pthread_condattr_destroy(&attributes);
}

int redis_store_start(struct redis_store *s, const struct redis_store_options *o, struct err *e)
{
	store_init(s, o);
	s->prefix = strdup(o->prefix);
	int r = s->prefix ? loop_new(&s->loop) : -ENOMEM;
	if (r == 0)
		r = loop_timer_new(s->loop, store_beat, s, &s->beat);
	if (r == 0)
		r = loop_timer_new(s->loop, store_stop_now, s, &s->patience);
	if (r < 0)
		err_set(e, r, "%s", strerror(-r));
	else
		r = store_client(s, o->url, e);
	if (r == 0 && (r = -pthread_create(&s->thread, NULL, store_run, s)) < 0)
		err_set(e, r, "thread: %s", strerror(-r));
	if (r < 0) {
		redis_store_release(s);
		return r;
	}
	if (!o->unasked)
		wait_until_met(s);
	return 0;
}
