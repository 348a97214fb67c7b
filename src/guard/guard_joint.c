#include "guard/guard_joint.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/crypto.h"

#define OUT_FIRST 64
#define OUT_MAX (4 * ENTITY_SET_MAX)

/* --- what waits ----------------------------------------------------------------------------------------- */

static int joint_push(struct guard_watched *w, const struct guard_event *event)
{
	uint8_t ignored;
	if (w->n_out == w->room_out) {
		size_t room = w->room_out ? 2 * w->room_out : OUT_FIRST;
		struct guard_event *out = realloc(w->out, room * sizeof(*out));
		if (!out)
			return -ENOMEM;
		w->out = out;
		w->room_out = room;
	}
	w->out[w->n_out++] = *event;
	return entity_set_add(&w->waiting, event->entity, event->bit, &ignored);
}

static int joint_on_waiting(void *arg, const struct guard_event *event)
{
	return joint_push(arg, event);
}

int guard_joint_load(const struct guard_joint_context *c, struct guard_watched *w, struct err *e)
{
	if (!c->waiting)
		return 0;
	int r = guard_waiting_load(c->waiting, w->now.row, &w->joint, e);
	w->joint_there = r > 0;
	return r < 0 ? r : guard_waiting_each(c->waiting, w->now.row, joint_on_waiting, w, e);
}

int guard_joint_begin(const struct guard_joint_context *c, struct guard_watched *w, int64_t ends,
		      int64_t joined, struct err *e)
{
	if (!c->waiting)
		return 0;
	w->joint.generation = joined;
	w->joint.ends = ends;
	w->joint_there = w->joint_dirty = true;
	return guard_waiting_tidy(c->waiting, e);
}

int guard_joint_write(const struct guard_joint_context *c, struct guard_watched *w, struct err *e)
{
	if (!c->waiting || !w->joint_dirty)
		return 0;
	int r = guard_waiting_put(c->waiting, w->now.row, &w->joint, e);
	w->joint_dirty = r < 0;
	return r;
}

int guard_joint_write_anew(const struct guard_joint_context *c, struct guard_watched *w, struct err *e)
{
	int r = 0;
	w->joint_dirty = w->joint_there;
	for (size_t i = 0; c->waiting && r == 0 && i < w->n_out; i++)
		r = guard_waiting_add(c->waiting, w->now.row, &w->out[i], e);
	return r < 0 ? r : guard_joint_write(c, w, e);
}

int guard_joint_event(const struct guard_joint_context *c, struct guard_watched *w,
		      const struct guard_event *event, struct err *e)
{
	int r = guard_know_entities(c->store, w, e);
	if (r < 0 || guard_watched_has(w, event))
		return r;
	if (!c->waiting)
		return guard_watched_apply(c->store, w, event, c->now_us, e);
	bool waits = (entity_set_bits(&w->waiting, event->entity) & event->bit) != 0;
	if (waits || w->n_out >= OUT_MAX || !entity_set_counts(&w->waiting, event->entity))
		return 0;
	r = joint_push(w, event);
	return r < 0 ? err_set(e, r, "out of memory") : guard_waiting_add(c->waiting, w->now.row, event, e);
}

int guard_joint_alone(const struct guard_joint_context *c, struct guard_watched *w, struct err *e)
{
	int r = 0;
	for (; !c->works && r == 0 && w->n_applied < w->n_out; w->n_applied++)
		r = guard_watched_apply(c->store, w, &w->out[w->n_applied], c->now_us, e);
	return r;
}

/* The log has the first so many. */
static int joint_accepted(const struct guard_joint_context *c, struct guard_watched *w, size_t n,
			  struct err *e)
{
	int r = 0;
	for (size_t i = 0; r == 0 && i < n; i++)
		r = guard_waiting_remove(c->waiting, w->now.row, &w->out[i], e);
	if (r < 0)
		return r;
	w->n_out -= n;
	if (w->n_out)
		memmove(w->out, w->out + n, w->n_out * sizeof(w->out[0]));
	w->n_applied = w->n_applied > n ? w->n_applied - n : 0;
	if (w->n_out == 0) /* what was in it is in the evidence */
		entity_set_clear(&w->waiting);
	w->out_serial += n > 0;
	return 0;
}

/* --- what the server said ------------------------------------------------------------------------------- */

static void joint_take_breach(struct guard_watched *w, const struct guard_share_answer *a)
{
	if (!a->breached_us || w->joint.breached_us)
		return;
	w->joint.breached_us = a->breached_us;
	w->joint.keeps = a->keeps;
	memcpy(w->joint.by, a->by, sizeof(w->joint.by));
	w->dirty = true;
}

static int joint_take_log(const struct guard_joint_context *c, struct guard_watched *w,
			  const struct guard_share_answer *a, struct err *e)
{
	int r = 0;
	if (a->limit_us && a->limit_us != w->now.limit_us) {
		w->now.limit_us = a->limit_us;
		w->dirty = true;
	}
	for (size_t i = 0; r == 0 && i < a->n; i++)
		r = guard_watched_apply(c->store, w, &a->events[i], c->now_us, e);
	if (r < 0)
		return r;
	if (a->next != w->joint.next || strcmp(a->born, w->joint.born) != 0) {
		w->joint.next = a->next;
		memcpy(w->joint.born, a->born, sizeof(w->joint.born));
		w->joint_dirty = true;
	}
	if (a->began_us != w->joint.began_us || (a->breached_us && !w->joint.breached_us)) {
		w->joint.began_us = a->began_us;
		w->joint_dirty = true;
	}
	joint_take_breach(w, a);
	w->more = a->more;
	/* What has not come back yet is sent once more rather than lost with the server. */
	return a->tag == w->out_serial && !a->more ? joint_accepted(c, w, a->accepted, e) : 0;
}

static void joint_come_to(struct guard_watched *w, const struct guard_share_answer *a)
{
	if (a->verb == GUARD_SHARE_BEGIN && a->began_us && a->began_us < w->now.began_us) {
		w->now.began_us = a->began_us; /* the others' traffic counts since then */
		w->dirty = true;
	}
	w->joint.generation = a->generation;
	w->joint.ends = 0;
	w->joint.next = 0;
	w->joint.began_us = a->began_us;
	w->joint.born[0] = '\0';
	w->left[0] = '\0';
	w->joint_dirty = w->more = true;
}

int guard_joint_receive(const struct guard_joint_context *c, struct guard_watched *w, struct err *e)
{
	struct guard_share_answer *a = w->slot ? guard_share_take(w->slot) : NULL;
	int r = 0;
	if (!a)
		return 0;
	bool resumed = a->verb == GUARD_SHARE_RESUME;
	bool ours = w->now.row && (resumed ? w->joint.generation > 0 && a->asked == w->joint.generation
					   : w->joint.generation == 0 && a->asked == w->joint.ends);
	if (ours && !resumed) {
		joint_come_to(w, a);
	} else if (ours && a->generation > w->joint.generation) {
		span_copy(span_of(a->because[0] ? a->because : "another router began it anew"), w->moved,
			  sizeof(w->moved));
		w->moved_to = a->generation;
	} else if (ours) {
		r = joint_take_log(c, w, a, e);
	}
	w->hears |= ours && resumed && !a->more && a->generation == w->joint.generation;
	free(a);
	return r;
}

/* --- questions ------------------------------------------------------------------------------------------ */

void guard_joint_leave(struct guard_watched *w)
{
	w->slot = guard_share_unfollow(w->slot);
	w->slot_name[0] = '\0';
}

/* The epoch, by what makes it what it is. */
static void joint_name(const struct guard_watched *w, char ret[GUARD_SHARE_NAME])
{
	const struct guard_rule *rule = &w->now.rule;
	char settings[256];
	snprintf(settings, sizeof(settings), "%.17g %.17g %.17g %.17g %.17g", rule->alpha, rule->tolerated,
		 rule->harm, rule->negligible, w->now.slow_factor);
	snprintf(ret, GUARD_SHARE_NAME, "%s/%s:%016" PRIx64 "%08" PRIx32, w->expected.service,
		 w->expected.operation, w->now.split, (uint32_t)crypto_hash64(span_of(settings)));
}

static void joint_follow(const struct guard_joint_context *c, struct guard_watched *w)
{
	char name[GUARD_SHARE_NAME] = "";
	if (w->now.row && w->now.mode != GUARD_OFF)
		joint_name(w, name);
	if (strcmp(name, w->slot_name) == 0)
		return;
	if (w->slot_name[0])
		memcpy(w->left, w->slot_name, sizeof(w->left));
	guard_joint_leave(w);
	if (name[0] && guard_share_follow(c->share, name, &w->slot) == 0)
		memcpy(w->slot_name, name, sizeof(name));
}

static void joint_fill(const struct guard_watched *w, struct guard_share_question *q)
{
	bool released = w->joint.generation == 0 && w->joint.ends > 0;
	q->verb = released ? GUARD_SHARE_RELEASE : GUARD_SHARE_BEGIN;
	q->generation = w->joint.ends;
	memcpy(q->left, w->left, sizeof(q->left));
	memcpy(q->because, w->now.because, sizeof(q->because));
	q->tag = w->out_serial;
	if (w->joint.generation == 0)
		return;
	q->verb = GUARD_SHARE_RESUME;
	q->generation = w->joint.generation;
	memcpy(q->born, w->joint.born, sizeof(q->born));
	q->next = w->joint.next;
	q->limit_us = w->now.limit_us;
	q->keeps = w->now.keeps;
	if (w->now.verdict == GUARD_BREACH)
		q->breached_us = w->joint.breached_us ? w->joint.breached_us : w->now.changed_us;
	q->n_send = w->n_out < GUARD_SHARE_SEND ? w->n_out : GUARD_SHARE_SEND;
	if (q->n_send)
		memcpy(q->send, w->out, q->n_send * sizeof(q->send[0]));
}

void guard_joint_ask(const struct guard_joint_context *c, struct guard_watched *w)
{
	joint_follow(c, w);
	if (!w->slot || guard_share_asking(w->slot))
		return;
	bool tells = w->n_out > 0 || w->more || w->joint.generation == 0 ||
		     (w->now.verdict == GUARD_BREACH && !w->joint.breached_us);
	if (!guard_share_wants(w->slot) && !(c->works && tells))
		return;
	struct guard_share_question *q = calloc(1, sizeof(*q));
	if (!q)
		return;
	joint_fill(w, q);
	guard_share_ask(w->slot, q);
	free(q);
}
