#include "router/breaker.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"

#define NEVER INT64_MAX
#define SILENCE_MIN_US INT64_C(500000)
#define SILENCE_FACTOR 4 /* times the slowest answer of the last minute or two */
#define SLOWEST_FOR_US INT64_C(60000000)
/* So long after an acceptance nothing is silent, or as long as that took: those who come together then (a
 * store that commits in groups answers them together) do not go one handful after the other. */
#define FRESH_MAX_US 10000
#define SEEN_MAX_US 20000 /* of the time between two questions: who stood still has seen no silence */

/* What opened it: it decides what closes it. */
enum cause {
	CAUSE_FAILURES, /* refusals, unknown ends, submissions beyond their callers' time */
	CAUSE_SILENCE,	/* submissions without an answer: theirs may still come, and closes it */
	CAUSE_RESULTS,	/* accepted tasks that nobody ends: only a result closes it */
	CAUSE_KNOWN	/* by asking */
};

/* A transition, logged once the lock is given back. */
struct transition {
	bool happened;
	enum breaker_state to;
	char why[160];
};

struct breaker {
	struct span backend;
	pthread_mutex_t lock;
	/* Turned away until then: 0 or a time gone by: not; NEVER: until something happens. All that is
	 * read without the lock. */
	atomic_int_least64_t shut_until_us;

	struct breaker_config config;
	enum breaker_state state;
	enum cause cause;
	char why[160];
	int64_t open_until_us, wall_us;
	uint32_t round; /* of transitions: what began in an earlier one is not judged any more */

	/* Since the last acceptance: */
	uint32_t epoch;
	unsigned failed, unanswered;
	int64_t unanswered_since_us; /* the oldest of them began */
	int64_t asked_us, silent_us; /* one that had to wait last asked; how much silence those have seen */
	/* The slowest answers of this minute and the one before. 0: there was none */
	int64_t slowest_us, slowest_before_us, minute_began_us;
	int64_t fresh_until_us;
	unsigned without_result; /* tasks in a row during whose wait none ended */
	int64_t ended_us;	 /* a task last did */

	unsigned probing, proven; /* half-open: in progress, ended well */
	uint64_t transitions[BREAKER_STATES], turned_away;
};

/* --- the machine, under the lock ------------------------------------------------------------------------ */

static void publish(struct breaker *b)
{
	int64_t until = 0;
	if (b->state == BREAKER_OPEN)
		until = b->open_until_us;
	else if (b->state == BREAKER_HALF_OPEN && b->probing >= b->config.probes)
		until = NEVER;
	atomic_store_explicit(&b->shut_until_us, until, memory_order_relaxed);
}

static void move(struct breaker *b, enum breaker_state to, const char *why, struct transition *ret)
{
	b->state = to;
	b->round++;
	b->probing = b->proven = 0;
	b->transitions[to]++;
	b->wall_us = clock_wall_us();
	snprintf(b->why, sizeof(b->why), "%s", to == BREAKER_CLOSED ? "" : why);
	*ret = (struct transition){.happened = true, .to = to};
	snprintf(ret->why, sizeof(ret->why), "%s", why);
}

static void close_it(struct breaker *b, const char *why, struct transition *ret)
{
	move(b, BREAKER_CLOSED, why, ret);
	b->epoch++;
	b->failed = b->unanswered = b->without_result = 0;
	b->silent_us = 0;
}

static void open_it(struct breaker *b, enum cause cause, int64_t now_us, const char *why,
		    struct transition *ret)
{
	move(b, BREAKER_OPEN, why, ret);
	b->cause = cause;
	b->open_until_us = now_us + (int64_t)b->config.open_for_ms * 1000;
	if (cause == CAUSE_SILENCE || cause == CAUSE_KNOWN)
		b->open_until_us = NEVER; /* see silence_over() and breaker_know() */
}

static void open_after(struct breaker *b, enum cause cause, int64_t now_us, unsigned n, const char *what,
		       const char *why, struct transition *ret)
{
	char text[sizeof(b->why)];
	snprintf(text, sizeof(text), "%u %s%s%s", n, what, why && *why ? ", the last: " : "", why ? why : "");
	open_it(b, cause, now_us, text, ret);
}

/* Those that wait for an answer are the probes of a silent backend. When none is left, new ones may go. */
static void silence_over(struct breaker *b, int64_t now_us)
{
	if (b->state == BREAKER_OPEN && b->cause == CAUSE_SILENCE && b->unanswered == 0 &&
	    b->open_until_us == NEVER)
		b->open_until_us = now_us + (int64_t)b->config.open_for_ms * 1000;
}

static void go(struct breaker *b, bool counted, int64_t now_us, struct breaker_pass *ret)
{
	*ret = (struct breaker_pass){
		.live = true, .counted = counted, .epoch = b->epoch, .round = b->round, .begun_us = now_us};
	if (!counted)
		return;
	if (b->unanswered++ == 0)
		b->unanswered_since_us = now_us;
}

/* How long it may be silent: by its own measure, where there is one. */
static int64_t patience_us(const struct breaker *b)
{
	int64_t most = (int64_t)b->config.silence_ms * 1000;
	int64_t slowest = b->slowest_us > b->slowest_before_us ? b->slowest_us : b->slowest_before_us;
	int64_t own = SILENCE_FACTOR * slowest;
	if (slowest == 0)
		return most;
	own = own < SILENCE_MIN_US ? SILENCE_MIN_US : own;
	return own < most ? own : most;
}

static void hear_silence(struct breaker *b, int64_t now_us)
{
	int64_t step = now_us - b->asked_us;
	b->silent_us += step < SEEN_MAX_US ? step : SEEN_MAX_US;
	b->asked_us = now_us;
}

static void note_answer(struct breaker *b, int64_t took_us, int64_t now_us)
{
	int64_t age_us = now_us - b->minute_began_us;
	if (age_us >= SLOWEST_FOR_US) {
		b->slowest_before_us = age_us < 2 * SLOWEST_FOR_US ? b->slowest_us : 0;
		b->slowest_us = 0;
		b->minute_began_us = now_us;
	}
	took_us = took_us > 0 ? took_us : 1;
	b->fresh_until_us = now_us + (took_us < FRESH_MAX_US ? took_us : FRESH_MAX_US);
	if (took_us > b->slowest_us)
		b->slowest_us = took_us;
}

static enum breaker_word begin_closed(struct breaker *b, int64_t now_us, struct breaker_pass *ret,
				      struct transition *t)
{
	bool fresh = b->failed == 0 && now_us < b->fresh_until_us;
	if (fresh || b->failed + b->unanswered < b->config.failures) {
		go(b, !fresh, now_us, ret);
		return BREAKER_GO;
	}
	hear_silence(b, now_us);
	if (b->silent_us < patience_us(b))
		return BREAKER_HOLD;
	int64_t silent_ms = (now_us - b->unanswered_since_us) / 1000;
	char what[80];
	snprintf(what, sizeof(what), "submissions have had no answer for %lld ms", (long long)silent_ms);
	open_after(b, CAUSE_SILENCE, now_us, b->unanswered, what, NULL, t);
	return BREAKER_NO;
}

static enum breaker_word begin_probe(struct breaker *b, int64_t now_us, struct breaker_pass *ret,
				     struct transition *t)
{
	char why[sizeof(b->why)];
	if (b->state == BREAKER_OPEN && now_us < b->open_until_us)
		return BREAKER_NO;
	if (b->state == BREAKER_OPEN) {
		snprintf(why, sizeof(why), "%s", b->why);
		move(b, BREAKER_HALF_OPEN, why, t);
		b->epoch++;
		b->failed = b->unanswered = 0;
	}
	if (b->probing >= b->config.probes)
		return BREAKER_NO;
	b->probing++;
	go(b, true, now_us, ret);
	ret->probe = true;
	return BREAKER_GO;
}

static void prove(struct breaker *b, struct breaker_pass *pass, struct transition *t)
{
	if (pass->probe)
		b->probing--;
	pass->probe = false;
	if (++b->proven >= b->config.probes)
		close_it(b, "its probes were answered", t);
}

/* A task was accepted: whatever was counted against the backend's taking them is over. */
static void end_accepted(struct breaker *b, struct breaker_pass *pass, int64_t now_us, struct transition *t)
{
	b->epoch++;
	b->failed = b->unanswered = 0;
	b->silent_us = 0;
	note_answer(b, now_us - pass->begun_us, now_us);
	pass->counted = false;
	pass->live = !pass->unawaited;
	pass->accepted_us = now_us;
	bool enough = b->cause != CAUSE_RESULTS || pass->unawaited;
	if (b->state == BREAKER_OPEN && b->cause == CAUSE_SILENCE)
		close_it(b, "it has answered", t);
	else if (b->state == BREAKER_OPEN && b->cause == CAUSE_FAILURES)
		b->open_until_us = now_us; /* one that began before, or did not ask: probes may go */
	else if (b->state == BREAKER_HALF_OPEN && pass->round == b->round && enough)
		prove(b, pass, t);
}

static void count_off(struct breaker *b, struct breaker_pass *pass)
{
	if (pass->counted && pass->epoch == b->epoch)
		b->unanswered--;
	pass->counted = false;
}

static void end_failed(struct breaker *b, struct breaker_pass *pass, int64_t now_us, const char *why,
		       struct transition *t)
{
	count_off(b, pass);
	pass->live = false;
	bool judged = pass->round == b->round;
	if (b->state == BREAKER_CLOSED && judged && ++b->failed >= b->config.failures)
		open_after(b, CAUSE_FAILURES, now_us, b->failed, "consecutive submissions failed", why, t);
	else if (b->state == BREAKER_HALF_OPEN && judged)
		open_after(b, b->cause == CAUSE_RESULTS ? CAUSE_RESULTS : CAUSE_FAILURES, now_us, 1,
			   "probe failed", why, t);
	silence_over(b, now_us);
}

static void end_unjudged(struct breaker *b, struct breaker_pass *pass, int64_t now_us)
{
	count_off(b, pass);
	if (pass->probe && pass->round == b->round)
		b->probing--;
	pass->live = false;
	silence_over(b, now_us);
}

static void end_result(struct breaker *b, struct breaker_pass *pass, int64_t now_us, struct transition *t)
{
	b->without_result = 0;
	b->ended_us = now_us;
	if (b->state == BREAKER_HALF_OPEN && pass->probe && pass->round == b->round)
		prove(b, pass, t);
	pass->live = false;
}

/* Where another task has ended meanwhile there are workers, and this one is only slow. */
static void end_no_result(struct breaker *b, struct breaker_pass *pass, int64_t now_us, struct transition *t)
{
	if (b->ended_us >= pass->accepted_us) {
		end_unjudged(b, pass, now_us);
		return;
	}
	bool judged = pass->round == b->round;
	pass->live = false;
	if (b->state == BREAKER_CLOSED && judged && ++b->without_result >= b->config.failures)
		open_after(b, CAUSE_RESULTS, now_us, b->without_result,
			   "consecutive tasks had no result in time, and no other task had one", NULL, t);
	else if (b->state == BREAKER_HALF_OPEN && pass->probe && judged)
		open_after(b, CAUSE_RESULTS, now_us, 1, "probe had no result in time", NULL, t);
}

/* --- the doors ------------------------------------------------------------------------------------------ */

static void lock(struct breaker *b)
{
	pthread_mutex_lock(&b->lock);
}

static void unlock(struct breaker *b, const struct transition *t)
{
	static const char *const events[] = {"breaker_closed", "breaker_half_open", "breaker_open"};
	publish(b);
	pthread_mutex_unlock(&b->lock);
	if (t->happened)
		LOG_AT(t->to == BREAKER_OPEN ? LOG_WARN : LOG_INFO, events[t->to],
		       LOG_SPAN("backend", b->backend), LOG_STR("why", t->why));
}

int breaker_new(struct span backend, struct breaker **ret)
{
	struct breaker *b = calloc(1, sizeof(*b));
	if (!b)
		return -ENOMEM;
	b->backend = backend;
	pthread_mutex_init(&b->lock, NULL);
	atomic_init(&b->shut_until_us, 0);
	b->config.off = true;
	*ret = b;
	return 0;
}

struct breaker *breaker_free(struct breaker *b)
{
	if (b)
		pthread_mutex_destroy(&b->lock);
	free(b);
	return NULL;
}

void breaker_configure(struct breaker *b, const struct breaker_config *c, int64_t now_us)
{
	struct transition t = {0};
	lock(b);
	int64_t latest = now_us + (int64_t)c->open_for_ms * 1000;
	b->config = *c;
	if (c->off && b->state != BREAKER_CLOSED)
		close_it(b, "it was switched off", &t);
	if (b->state == BREAKER_OPEN && b->open_until_us != NEVER && b->open_until_us > latest)
		b->open_until_us = latest;
	unlock(b, &t);
}

enum breaker_word breaker_begin(struct breaker *b, int64_t now_us, struct breaker_pass *ret)
{
	struct transition t = {0};
	enum breaker_word word = BREAKER_GO;
	*ret = (struct breaker_pass){0};
	lock(b);
	if (!b->config.off && b->state == BREAKER_CLOSED)
		word = begin_closed(b, now_us, ret, &t);
	else if (!b->config.off)
		word = begin_probe(b, now_us, ret, &t);
	if (word == BREAKER_NO)
		b->turned_away++;
	unlock(b, &t);
	return word;
}

enum breaker_word breaker_begin_shadow(struct breaker *b, int64_t now_us, struct breaker_pass *ret)
{
	struct transition t = {0};
	enum breaker_word word = BREAKER_GO;
	*ret = (struct breaker_pass){0};
	lock(b);
	if (!b->config.off && b->state == BREAKER_CLOSED)
		go(b, false, now_us, ret);
	else if (!b->config.off)
		word = begin_probe(b, now_us, ret, &t);
	unlock(b, &t);
	return word;
}

void breaker_begin_unasked(struct breaker *b, int64_t now_us, struct breaker_pass *ret)
{
	const struct transition none = {0};
	*ret = (struct breaker_pass){0};
	lock(b);
	if (!b->config.off)
		go(b, true, now_us, ret);
	unlock(b, &none);
}

void breaker_end(struct breaker *b, struct breaker_pass *pass, enum breaker_end how, int64_t now_us,
		 const char *why)
{
	struct transition t = {0};
	if (!pass->live)
		return;
	lock(b);
	switch (how) {
	case BREAKER_ACCEPTED:
		end_accepted(b, pass, now_us, &t);
		break;
	case BREAKER_FAILED:
		end_failed(b, pass, now_us, why, &t);
		break;
	case BREAKER_UNJUDGED:
		end_unjudged(b, pass, now_us);
		break;
	case BREAKER_RESULT:
		end_result(b, pass, now_us, &t);
		break;
	case BREAKER_NO_RESULT:
		end_no_result(b, pass, now_us, &t);
		break;
	}
	unlock(b, &t);
}

void breaker_know(struct breaker *b, const char *why, int64_t now_us)
{
	struct transition t = {0};
	lock(b);
	bool known = b->state == BREAKER_OPEN && b->cause == CAUSE_KNOWN;
	char before[sizeof(b->why)];
	snprintf(before, sizeof(before), "%s", b->why);
	if (why && !b->config.off && b->state == BREAKER_OPEN) {
		b->cause = CAUSE_KNOWN;
		b->open_until_us = NEVER;
		snprintf(b->why, sizeof(b->why), "%s", why);
	} else if (why && !b->config.off) {
		open_it(b, CAUSE_KNOWN, now_us, why, &t);
	} else if (!why && known) {
		move(b, BREAKER_HALF_OPEN, before, &t);
		b->epoch++;
		b->failed = b->unanswered = b->without_result = 0;
	}
	unlock(b, &t);
}

bool breaker_is_shut(const struct breaker *b, int64_t now_us)
{
	return now_us < atomic_load_explicit(&b->shut_until_us, memory_order_relaxed);
}

void breaker_status(struct breaker *b, int64_t now_us, struct breaker_status *ret)
{
	*ret = (struct breaker_status){0};
	lock(b);
	ret->state = b->state;
	if (b->state == BREAKER_OPEN && now_us >= b->open_until_us)
		ret->state = BREAKER_HALF_OPEN;
	ret->off = b->config.off;
	ret->probing = b->probing > 0;
	snprintf(ret->why, sizeof(ret->why), "%s", b->why);
	ret->since_us = b->wall_us;
	ret->failed = b->failed;
	ret->unanswered = b->unanswered;
	ret->without_result = b->without_result;
	for (size_t i = 0; i < BREAKER_STATES; i++)
		ret->transitions[i] = b->transitions[i];
	ret->turned_away = b->turned_away;
	pthread_mutex_unlock(&b->lock);
}

const char *breaker_state_text(enum breaker_state s)
{
	static const char *const text[] = {"closed", "half_open", "open"};
	return text[s];
}

/* --- what decide() is handed ---------------------------------------------------------------------------- */

void breaker_look(const struct breaker *b, int64_t now_us, struct breaker_view *view)
{
	if (breaker_is_shut(b, now_us) && view->n < CONFIG_MAX_BACKENDS)
		view->shut[view->n++] = b->backend;
}

bool breaker_view_has(const struct breaker_view *view, struct span backend)
{
	for (size_t i = 0; view && i < view->n; i++)
		if (span_eq(view->shut[i], backend))
			return true;
	return false;
}
