#include "programs/router/moving/app_move_view.h"

#include <stdio.h>
#include <stdlib.h>

#include "guard/guard_verdict.h"
#include "move/phase.h"
#include "move/population.h"
#include "move/users.h"
#include "programs/router/app_guard.h"
#include "programs/router/app_internal.h"

#define VIEW_FLAGS_MAX 64
#define VIEW_HOLDS_MAX 64
#define VIEW_TEXT_MAX 512

struct view_flag {
	char key[128], operations[VIEW_TEXT_MAX], steps[VIEW_TEXT_MAX];
};

struct view_hold {
	char why[VIEW_TEXT_MAX];
};

struct move_view {
	const struct config *config;
	const struct flag_snapshot *flags; /* NULL: there have never been any */
	struct guard_verdicts *guard;
	struct admin_reader reader;
	char place[512];
	struct view_flag texts[VIEW_FLAGS_MAX];
	struct page_move_flag shown[VIEW_FLAGS_MAX];
	struct view_hold whys[VIEW_HOLDS_MAX];
	struct page_move_hold holds[VIEW_HOLDS_MAX];
	struct page_move page;
};

struct move_view *move_view_take(struct app *a, const struct admin_reader *reader)
{
	struct move_view *v = calloc(1, sizeof(*v));
	if (!v)
		return NULL;
	v->config = config_ref(a->config);
	v->flags = a->flags ? flag_snapshot_ref(a->flags) : NULL;
	if (app_guard_verdicts(a, &v->guard) < 0)
		return move_view_free(v);
	v->reader = *reader;
	return v;
}

struct move_view *move_view_free(struct move_view *v)
{
	if (!v)
		return NULL;
	flag_snapshot_unref(v->flags);
	config_unref(v->config);
	guard_verdicts_free(v->guard);
	free(v);
	return NULL;
}

static void view_flag(struct move_view *v, struct span key)
{
	struct view_flag *t = &v->texts[v->page.n_flags];
	struct page_move_flag *shown = &v->shown[v->page.n_flags];
	const struct flag *f = v->flags ? flag_find(v->flags, key) : NULL;
	const struct rollout_steps *steps = config_rollout(v->config, key);
	struct flag_users u;
	const struct operation *op;
	if (v->page.n_flags == VIEW_FLAGS_MAX) {
		v->page.n_left_out++;
		return;
	}
	span_copy(key, t->key, sizeof(t->key));
	flag_users_init(&u, v->config, t->key);
	for (size_t i = 0, at = 0; (op = flag_users_at(&u, i)) && at < sizeof(t->operations) - 1; i++)
		at += (size_t)snprintf(t->operations + at, sizeof(t->operations) - at, "%s%.*s.%.*s",
				       i ? ", " : "", SPAN_ARG(op->service), SPAN_ARG(op->name));
	if (!t->operations[0])
		return; /* nobody with a task asks it */
	if (steps)
		phase_labels(steps, t->steps, sizeof(t->steps));
	*shown = (struct page_move_flag){
		.key = t->key, .operations = t->operations, .steps = t->steps, .percent = -1};
	if (f && !flag_broken(f)) {
		struct decide_input like = flag_users_like(&u, flag_users_at(&u, 0), v->flags);
		shown->percent = population_share_of_flag(&like, key);
		shown->disabled = flag_type_of(f) == FLAG_VARIANT && !flag_enabled(f);
	}
	v->page.n_flags++;
}

static void view_holds(struct move_view *v)
{
	for (size_t i = 0; v->guard && i < v->guard->n && v->page.n_holds < VIEW_HOLDS_MAX; i++) {
		const struct guard_operation_verdict *of = &v->guard->operations[i];
		CLEANUP(buf_releasep) struct buf why = BUF_INIT(VIEW_TEXT_MAX - 1);
		if (!of->held)
			continue;
		guard_verdict_to_text(of, &why);
		span_copy(buf_span(&why), v->whys[v->page.n_holds].why, VIEW_TEXT_MAX);
		v->holds[v->page.n_holds] =
			(struct page_move_hold){of->service, of->operation, v->whys[v->page.n_holds].why};
		v->page.n_holds++;
	}
}

/* As move/place.c names it. */
static void view_place(struct move_view *v)
{
	const struct flag_source_options *o = &v->config->flags;
	const char *at = o->url ? strrchr(o->url, '@') : NULL;
	if (o->kind == FLAG_SOURCE_FLIPT)
		snprintf(v->place, sizeof(v->place), "%s, environment %s, namespace %s", at ? at + 1 : o->url,
			 o->environment, o->namespace_key);
	else
		snprintf(v->place, sizeof(v->place), "%s", o->file);
}

const struct page_move *move_view_make(struct move_view *v)
{
	struct app_used_flags used = app_flags_in_use(v->config);
	v->page = (struct page_move){.flags = v->shown, .holds = v->holds, .place = v->place};
	v->page.reader = (struct page_move_reader){.may_write = v->reader.may_write,
						   .session = v->reader.session,
						   .may_sign_in = v->reader.may_sign_in,
						   .who = v->reader.who,
						   .form = v->reader.form};
	view_place(v);
	view_holds(v);
	for (size_t i = 0; i < used.n; i++)
		view_flag(v, used.keys[i]);
	return &v->page;
}
