#include "programs/router/app_page.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/hash.h"
#include "operation/route.h"
#include "outcomes/recorded.h"
#include "page/page.h"
#include "programs/router/app_internal.h"
#include "programs/router/moving/app_move_view.h"
#include "programs/router/app_standing.h"
#include "programs/router/explain/explain_decision.h"
#include "programs/router/reports/app_peers.h"
#include "tasks/blocking.h"

#define PAGE_AGES_US 30000000
#define STEPS_PATIENCE_MS 2000
#define STEPS_RESULT_MAX (160u << 20)

/* As of the moment of asking, so that the page need not look at what the control thread changes. */
struct page_facts {
	uint64_t version;
	struct move_view *move;
	const struct config *config;	   /* references, for what a request would get now */
	const struct flag_snapshot *flags; /* or NULL */
	const struct guard_holds *holds;
	const struct app *app;
	struct peers_told *told; /* of the routers, once asked */
};

static void free_page_facts(struct page_facts *f)
{
	move_view_free(f->move);
	config_unref(f->config);
	flag_snapshot_unref(f->flags);
	guard_holds_unref(f->holds);
	peers_told_free(f->told);
	free(f);
}

void *app_page_facts(void *arg, const struct admin_reader *reader)
{
	const struct app *app = arg;
	struct page_facts *f = calloc(1, sizeof(*f));
	if (!f || !(f->move = move_view_take(arg, reader))) {
		free(f);
		return NULL;
	}
	f->app = app;
	f->version = app_page_version(arg);
	f->config = config_ref(app->config);
	f->flags = app->flags ? flag_snapshot_ref(app->flags) : NULL;
	f->holds = app->env.holds ? guard_holds_ref(app->env.holds) : NULL;
	return f;
}

static struct span page_identity(const char *recorded)
{
	return *recorded ? span_of(recorded) : SPAN_NONE;
}

/* What an id that was hashed or cut would get is not what its request got. */
static bool page_can_explain(const struct page_question *q, struct buf *out)
{
	struct span user = page_identity(q->user), organization = page_identity(q->organization);
	if ((user.ptr && recorded_user_is_pseudonym(user)) || (user.ptr && recorded_may_be_cut(user)) ||
	    (organization.ptr && recorded_may_be_cut(organization))) {
		buf_puts(out, "The identity is recorded as a pseudonym or cut, so the decision cannot be "
			      "made again.\n");
		return false;
	}
	return true;
}

static void app_page_explain(void *arg, const struct page_question *q, struct buf *out)
{
	const struct page_facts *f = arg;
	const struct service *s = config_service(f->config, span_of(q->service));
	struct decide_input in = {.config = f->config,
				  .operation = s ? service_operation(s, span_of(q->operation)) : NULL,
				  .flags = f->flags,
				  .user = page_identity(q->user),
				  .organization = page_identity(q->organization),
				  .holds = f->holds};
	if (!in.operation || !page_can_explain(q, out))
		return;
	buf_printf(out, "flags      digest %s\n", f->flags ? flag_snapshot_digest(f->flags) : "none");
	explain_decision(&in, out);
}

/* A backend that does not answer at once keeps nobody from the rest of the page. */
static void app_page_steps(void *arg, const struct page_question *q, const char *backend, const char *task_id,
			   struct buf *out)
{
	const struct page_facts *f = arg;
	const struct app *a = f->app;
	const struct service *s = config_service(f->config, span_of(q->service));
	const struct operation *op = s ? service_operation(s, span_of(q->operation)) : NULL;
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(STEPS_RESULT_MAX);
	struct task_result r;
	struct err e;
	if (!op || !op->has_task || !op->task.workflow)
		return;
	for (size_t i = 0; i < a->env.n_backends; i++)
		if (span_is(a->env.backends[i].name, backend) &&
		    task_look_blocking(a->env.backends[i].options, span_of(task_id), STEPS_PATIENCE_MS, &text,
				       &r, &e) == 0 &&
		    r.steps.ptr)
			buf_append_span(out, r.steps);
}

static int app_page_ask_routers(void *arg, const struct report_options *o, struct page_routers *ret,
				struct err *e)
{
	_Static_assert(PAGE_ROUTERS_MAX == CONFIG_MAX_ROUTERS + 1, "the page has room for all of them");
	struct page_facts *f = arg;
	int r = app_peers_report(f->app, o, &f->told, e);
	if (r < 0)
		return r;
	if (o->organization)
		f->told->guard->n = 0; /* it is of operations */
	*ret = (struct page_routers){.report = f->told->report, .guard = f->told->guard};
	for (; ret->n < f->told->n; ret->n++) {
		const struct peer_told *t = &f->told->peers[ret->n];
		ret->list[ret->n] = (struct page_router){.name = t->name,
							 .url = t->url,
							 .state = peer_state_text(t->state),
							 .why = t->why,
							 .missing = t->state > PEER_ITSELF,
							 .twice = t->state == PEER_ITSELF,
							 .since_us = t->since_us,
							 .took_ms = t->took_ms};
	}
	return 0;
}

int app_page(void *arg, void *facts, struct span target, struct buf *out)
{
	struct app *a = arg;
	struct page_facts *f = facts;
	CLEANUP(standing_freep) struct standing *standing = NULL;
	bool moving = span_is(route_path(target), "/move"); /* others do not need it, and it is not cheap */
	app_standing_now(a, &standing); /* without it the page says that it does not know */
	const struct page_source source = {.path = a->outcomes_path,
					   .standing = standing,
					   .now_us = clock_wall_us(),
					   .version = f->version,
					   .move = moving ? move_view_make(f->move) : NULL,
					   .arg = f,
					   .explain = app_page_explain,
					   .steps = app_page_steps,
					   .several = a->started->n_routers > 0,
					   .ask_routers = app_page_ask_routers};
	int status = page_make(&source, target, out);
	free_page_facts(f);
	return status;
}

/* Also as time passes: what happened in the last 15 minutes changes without anything happening. */
uint64_t app_page_version(void *arg)
{
	struct app *a = arg;
	struct recorder_status r;
	recorder_status(a->recorder, &r);
	uint64_t h = hash64_number(HASH64_START, r.written);
	h = hash64_number(h, r.dropped);
	h = hash64_number(h, app_standing_changes(a));
	return hash64_number(h, (uint64_t)(clock_mono_us() / PAGE_AGES_US));
}
