#include "router/admin_live.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/queue.h>

#define LIVE_LOOK_MS 1000

struct live_stream {
	struct live *live;
	struct exchange *x;
	LIST_ENTRY(live_stream) link;
	bool begun, closing;
	uint64_t told; /* the version that was */
	uint64_t told_ms;
};

struct live {
	struct loop *loop;
	struct loop_timer *timer;
	uint64_t (*version)(void *arg);
	void *arg;
	LIST_HEAD(, live_stream) streams;
	unsigned n;
	uint64_t now; /* version, as last looked at */
};

static bool live_is_due(const struct live_stream *s)
{
	uint64_t now = loop_now_ms(s->live->loop);
	uint64_t every = s->told != s->live->now ? LIVE_EVERY_MS : LIVE_BEAT_MS;
	return s->closing || !s->begun || now - s->told_ms >= every;
}

static void live_look(void *arg)
{
	struct live *l = arg;
	struct live_stream *s;
	if (!l->n)
		return;
	l->now = l->version(l->arg);
	LIST_FOREACH (s, &l->streams, link)
		if (live_is_due(s))
			exchange_resume_response(s->x);
	loop_timer_start(l->timer, LIVE_LOOK_MS);
}

int live_new(struct loop *loop, uint64_t (*version)(void *arg), void *arg, struct live **ret)
{
	struct live *l = calloc(1, sizeof(*l));
	if (!l)
		return -ENOMEM;
	l->loop = loop;
	l->version = version;
	l->arg = arg;
	LIST_INIT(&l->streams);
	int r = loop_timer_new(loop, live_look, l, &l->timer);
	if (r < 0) {
		free(l);
		return r;
	}
	*ret = l;
	return 0;
}

struct live *live_free(struct live *l)
{
	if (l)
		loop_timer_free(l->timer);
	free(l);
	return NULL;
}

struct live_stream *live_open(struct live *l, struct exchange *x)
{
	struct live_stream *s = l->n < LIVE_MAX ? calloc(1, sizeof(*s)) : NULL;
	if (!s)
		return NULL;
	s->live = l;
	s->x = x;
	LIST_INSERT_HEAD(&l->streams, s, link);
	l->now = l->version(l->arg);
	if (l->n++ == 0)
		loop_timer_start(l->timer, LIVE_LOOK_MS);
	return s;
}

long live_pull(struct live_stream *s, char *out, size_t size)
{
	const struct live *l = s->live;
	if (s->closing)
		return EXCHANGE_END;
	if (!live_is_due(s))
		return 0;
	int n = snprintf(out, size, "%sevent: version\ndata: %016" PRIx64 "\n\n",
			 s->begun ? "" : "retry: 3000\n", l->now);
	if (n < 0 || (size_t)n >= size) /* no room now */
		return 0;
	s->begun = true;
	s->told = l->now;
	s->told_ms = loop_now_ms(l->loop);
	return n;
}

void live_finished(struct live_stream *s)
{
	LIST_REMOVE(s, link);
	s->live->n--;
	free(s);
}

void live_close(struct live *l)
{
	struct live_stream *s;
	LIST_FOREACH (s, &l->streams, link) {
		s->closing = true;
		exchange_resume_response(s->x);
	}
}
