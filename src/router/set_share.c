#include "router/set_share.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "flags/asked.h"
#include "operation/identity.h"

#define TRIES 64	 /* made-up entities of which one should be on the task side */
#define CONTEXT_VALUES 8 /* that one segment asks for */
#define NAMES_MAX 32	 /* segments of one operation that are looked at */
#define DIFFERS 0.0005

static struct decide_input somebody(const struct config *c, const struct operation *op,
				    const struct flag_snapshot *flags)
{
	struct decide_input in = {.config = c,
				  .operation = op,
				  .flags = flags,
				  .user = SPAN_LIT("made-up-user"),
				  .organization = SPAN_LIT("made-up-organization")};
	enum identity_part part;
	if (!identity_entity(&op->identity, in.user, in.organization, &in.entity, &part))
		in.entity = in.user;
	return in;
}

/* --- segments ------------------------------------------------------------------------------------------- */

struct segment_names {
	struct span names[NAMES_MAX];
	size_t n;
};

static void note_segment(void *arg, const struct flag_asked *asked)
{
	struct segment_names *s = arg;
	for (size_t i = 0; i < s->n; i++)
		if (span_eq(s->names[i], asked->segment))
			return;
	if (s->n < NAMES_MAX)
		s->names[s->n++] = asked->segment;
}

/* One who is in the segment. */
struct member {
	struct span segment;
	struct flag_context context[CONTEXT_VALUES];
	char values[CONTEXT_VALUES][FLAG_ASKED_VALUE_MAX];
	size_t n;
	char entity[FLAG_ASKED_VALUE_MAX];
};

static void become_member(void *arg, const struct flag_asked *asked)
{
	struct member *m = arg;
	if (!span_eq(asked->segment, m->segment) || asked->holds_without || !asked->has_value)
		return;
	if (!asked->property.ptr) {
		memcpy(m->entity, asked->value, sizeof(m->entity));
	} else if (m->n < CONTEXT_VALUES) {
		memcpy(m->values[m->n], asked->value, sizeof(m->values[0]));
		m->context[m->n] = (struct flag_context){asked->property, span_of(m->values[m->n])};
		m->n++;
	}
}

static void add_segment(const struct decide_input *like, const struct flag *f, struct span segment,
			struct set_share *ret)
{
	struct member m = {.segment = segment};
	struct decide_input in = *like;
	flag_each_asked(f, become_member, &m);
	in.extra = m.context;
	in.n_extra = m.n;
	if (m.entity[0])
		in.entity = span_of(m.entity);
	double task = decide_share(&in).task;
	if (fabs(task - ret->task) < DIFFERS || ret->n_segments == SET_SHARE_SEGMENTS_MAX)
		return;
	ret->segments[ret->n_segments].name = segment;
	ret->segments[ret->n_segments++].task = task;
}

static void add_segments(const struct decide_input *like, struct span key, struct set_share *ret)
{
	struct segment_names names = {.n = 0};
	const struct flag *f = like->flags ? flag_find(like->flags, key) : NULL;
	if (!f || flag_broken(f))
		return;
	flag_each_asked(f, note_segment, &names);
	for (size_t i = 0; i < names.n; i++)
		add_segment(like, f, names.names[i], ret);
}

/* --- the backend ---------------------------------------------------------------------------------------- */

static struct span backend_of(const struct decide_input *like)
{
	const struct operation *op = like->operation;
	for (unsigned i = 0; i < TRIES && op->n_flags; i++) {
		char name[32];
		struct decide_input in = *like;
		struct decision d;
		snprintf(name, sizeof(name), "made-up-%u", i);
		in.entity = span_of(name);
		decide(&in, &d, NULL);
		if (d.side == OUTCOME_TASK || d.shadow > 0)
			return d.backend;
	}
	return op->task.backend.ptr ? op->task.backend : like->config->default_backend;
}

void set_share_of(const struct config *c, const struct operation *op, const struct flag_snapshot *flags,
		  struct set_share *ret)
{
	struct decide_input in = somebody(c, op, flags);
	struct decide_share share = decide_share(&in);
	*ret = (struct set_share){.task = share.task, .shadow = share.shadow, .backend = backend_of(&in)};
	for (size_t i = 0; i < op->n_flags; i++)
		add_segments(&in, op->flags[i], ret);
}
