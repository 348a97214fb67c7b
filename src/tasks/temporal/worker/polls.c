#include "tasks/temporal/worker/polls.h"

#include <errno.h>
#include <stdlib.h>
#include <temporal_api.pb-c.h>

#include "base/backoff.h"

#define FIRST_PAUSE_MS 100
#define MOST_PAUSE_MS 5000

struct temporal_poll {
	struct temporal_polls *owner;
	struct temporal_call *call;
};

struct temporal_polls {
	struct temporal_polls_options o;
	struct temporal_poll polls[TEMPORAL_POLLS_MAX];
	unsigned n_open, failures;
	struct loop_timer *pause;
	bool stopping;
};

/* Nothing to do within the time is an answer; so is a time that ran out. */
static bool is_no_failure(const struct grpc_status *s, struct span message)
{
	return message.ptr || s->code == GRPC_OK || (s->code == GRPC_DEADLINE_EXCEEDED && s->sent);
}

static void polls_on_done(void *arg, const struct grpc_status *s, struct span message)
{
	struct temporal_poll *poll = arg;
	struct temporal_polls *p = poll->owner;
	poll->call = NULL;
	p->n_open--;
	if (is_no_failure(s, message)) {
		p->failures = 0;
		p->o.state(p->o.arg, true, NULL);
		if (message.len)
			p->o.taken(p->o.arg, message);
	} else {
		p->o.state(p->o.arg, false, s->message);
		if (!loop_timer_active(p->pause))
			loop_timer_start(p->pause, backoff_ms(FIRST_PAUSE_MS, MOST_PAUSE_MS, ++p->failures));
	}
	temporal_polls_look(p);
	if (p->stopping && !p->n_open)
		p->o.idle(p->o.arg);
}

static void polls_on_pause(void *arg)
{
	temporal_polls_look(arg);
}

static int polls_open(struct temporal_polls *p, struct temporal_poll *poll)
{
	TemporalApi__PollRequest r = TEMPORAL_API__POLL_REQUEST__INIT;
	TemporalApi__Name queue = TEMPORAL_API__NAME__INIT;
	queue.name = (char *)p->o.queue;
	r.namespace_ = (char *)p->o.calls->namespace_name;
	r.identity = (char *)p->o.calls->identity;
	r.task_queue = &queue;
	int code = temporal_call(p->o.calls, p->o.method, &r.base, 0, polls_on_done, poll, &poll->call);
	p->n_open += code == 0;
	return code;
}

void temporal_polls_look(struct temporal_polls *p)
{
	unsigned limit = p->o.limit(p->o.arg);
	/* While it fails one asks, after a pause. */
	limit = p->failures && limit > 1 ? 1 : limit;
	for (unsigned i = 0; i < TEMPORAL_POLLS_MAX && p->n_open < limit; i++) {
		if (p->stopping || p->polls[i].call || loop_timer_active(p->pause))
			continue;
		if (polls_open(p, &p->polls[i]) < 0)
			loop_timer_start(p->pause, MOST_PAUSE_MS);
	}
}

void temporal_polls_stop(struct temporal_polls *p)
{
	p->stopping = true;
	loop_timer_stop(p->pause);
}

bool temporal_polls_open(const struct temporal_polls *p)
{
	return p->n_open > 0;
}

int temporal_polls_new(const struct temporal_polls_options *o, struct temporal_polls **ret)
{
	struct temporal_polls *p = calloc(1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	p->o = *o;
	for (unsigned i = 0; i < TEMPORAL_POLLS_MAX; i++)
		p->polls[i].owner = p;
	if (loop_timer_new(o->calls->loop, polls_on_pause, p, &p->pause) < 0) {
		free(p);
		return -ENOMEM;
	}
	*ret = p;
	return 0;
}

struct temporal_polls *temporal_polls_free(struct temporal_polls *p)
{
	if (!p)
		return NULL;
	for (unsigned i = 0; i < TEMPORAL_POLLS_MAX; i++)
		temporal_call_cancel(p->polls[i].call);
	loop_timer_free(p->pause);
	free(p);
	return NULL;
}
