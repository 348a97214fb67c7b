#include "router/request/hold.h"

#include "base/clock.h"

static void hold_append(struct hold_line *line, struct request *r)
{
	TAILQ_INSERT_TAIL(line, r, held);
	r->line = line;
}

static void take_out(struct request *r)
{
	TAILQ_REMOVE(r->line, r, held);
	r->line = NULL;
}

/* --- places in flight ----------------------------------------------------------------------------------- */

bool hold_take_place(struct plane_backend *b, bool shadow)
{
	unsigned max = atomic_load_explicit(&b->max_in_flight, memory_order_relaxed);
	unsigned n = atomic_fetch_add_explicit(&b->in_flight, 1, memory_order_relaxed);
	if (max == 0 || n < (shadow ? max / 2 : max))
		return true;
	atomic_fetch_sub_explicit(&b->in_flight, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&b->full, 1, memory_order_relaxed);
	return false;
}

void hold_give_place(struct plane_backend *b)
{
	atomic_fetch_sub_explicit(&b->in_flight, 1, memory_order_relaxed);
}

static bool take_place(struct request *r)
{
	struct plane_backend *b = &r->plane->env->backends[plane_backend(r->plane, r->backend)];
	if (!hold_take_place(b, false))
		return false;
	r->place = b;
	return true;
}

static void give_place(struct request *r)
{
	if (r->place)
		hold_give_place(r->place);
	r->place = NULL;
}

/* --- the word ------------------------------------------------------------------------------------------- */

/* false: it has to wait for it. */
static bool hear(struct request *r, enum hold_word *ret)
{
	enum outcome_reason reason = r->decision.reason;
	*ret = HOLD_FULL;
	if (!take_place(r))
		return true;
	*ret = HOLD_GO;
	if (reason == REASON_PINNED || reason == REASON_OVERRIDE) {
		breaker_begin_unasked(r->breaker, clock_mono_us(), &r->pass);
		return true;
	}
	enum breaker_word word = breaker_begin(r->breaker, clock_mono_us(), &r->pass);
	if (word == BREAKER_GO)
		return true;
	give_place(r);
	*ret = HOLD_SHUT;
	return word == BREAKER_NO;
}

/* The word may be given within another one's callback: the line is whole before each. */
static void go_on(struct hold_line *line)
{
	enum hold_word word;
	struct request *r;
	while ((r = TAILQ_FIRST(line)) && r->plane->hold_timer) {
		if (!hear(r, &word))
			return;
		take_out(r);
		r->on_word(r, word);
	}
}

static void hold_on_tick(void *arg)
{
	struct plane *p = arg;
	bool more = false;
	for (size_t i = 0; i < p->env->n_backends; i++) {
		go_on(&p->held[i]);
		more = more || !TAILQ_EMPTY(&p->held[i]);
	}
	if (more)
		loop_timer_start(p->hold_timer, BREAKER_ASK_MS);
}

int hold_init(struct plane *p)
{
	for (size_t i = 0; i < CONFIG_MAX_BACKENDS; i++)
		TAILQ_INIT(&p->held[i]);
	return loop_timer_new(p->loop, hold_on_tick, p, &p->hold_timer);
}

void hold_release(struct plane *p)
{
	p->hold_timer = loop_timer_free(p->hold_timer);
}

void hold_ask(struct request *r, void (*fn)(struct request *r, enum hold_word word))
{
	struct plane *p = r->plane;
	size_t i = plane_backend(p, r->backend);
	struct hold_line *line = &p->held[i];
	enum outcome_reason reason = r->decision.reason;
	bool waits = !TAILQ_EMPTY(line) && reason != REASON_PINNED && reason != REASON_OVERRIDE;
	enum hold_word word;
	r->breaker = p->env->backends[i].breaker;
	r->on_word = fn;
	if (!waits && hear(r, &word)) {
		fn(r, word);
		return;
	}
	hold_append(line, r);
	if (!loop_timer_active(p->hold_timer))
		loop_timer_start(p->hold_timer, BREAKER_ASK_MS);
}

void hold_leave(struct request *r)
{
	if (r->line)
		take_out(r);
}

void hold_end(struct request *r, enum breaker_end how, const char *why)
{
	if (!r->breaker)
		return;
	/* It was given up, and has come: that it answers is worth knowing. */
	if (how == BREAKER_ACCEPTED && !r->pass.live)
		breaker_begin_unasked(r->breaker, clock_mono_us(), &r->pass);
	r->pass.unawaited = r->async || r->op->task.fire_and_forget || !r->x || r->state != REQUEST_SUBMIT;
	breaker_end(r->breaker, &r->pass, how, clock_mono_us(), why);
	if (how != BREAKER_ACCEPTED || r->pass.unawaited)
		give_place(r);
	go_on(&r->plane->held[plane_backend(r->plane, r->backend)]);
}
