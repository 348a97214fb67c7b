#include "move/verify.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"
#include "operation/identity.h"
#include "outcomes/recorded.h"
#include "move/population.h"
#include "move/flipt.h"

#define SHOWS_WITHIN_MS 15000
#define AGREES_WITHIN_MS 2000
#define AGAIN_MS 50
#define RECENT_MAX 100000 /* attempts whose identities are checked: a rollback must not read millions */
#define ASKED_MAX 8	  /* made-up entities that the server is asked about */

static bool stands(const struct rollout_place *p, struct flag_users *u, const struct move_request *a)
{
	CLEANUP(rollout_closep) struct rollout_document *d = NULL;
	struct rollout_plan left;
	return place_open_flag(p, a->flag, &u->sides, &d, NULL) == 0 && draft_plan(d, a, &left, NULL) == 0 &&
	       left.n == 0;
}

/* Flipt gives a change out a little after it took it. */
static int read_until_it_shows(struct rollout_place *p, struct flag_users *u, const struct move_request *a,
			       struct err *e)
{
	int64_t until_ms = clock_mono_ms() + SHOWS_WITHIN_MS;
	for (;;) {
		int r = place_read(p, e);
		if (r == 0 && stands(p, u, a))
			return 0;
		if (!p->flipt || clock_mono_ms() > until_ms)
			return r < 0 ? r
				     : err_set(e, -EAGAIN,
					       "%s does not show the change: someone else may have changed "
					       "it at the same time",
					       p->name);
		if (!place_pause(p, AGAIN_MS))
			return err_set(e, -ECANCELED, "gave up waiting, since this program is ending");
	}
}

/* --- those on record ------------------------------------------------------------------------------------ */

struct comparison {
	const struct flag_users *users;
	const struct move_request *arguments;
	const struct flag_snapshot *then, *read;
	int64_t requests, task, different;
};

static int compare_recorded(void *arg, const struct recorded *r)
{
	struct comparison *c = arg;
	const struct config *config = c->users->config;
	const struct service *service = config_service(config, r->service);
	const struct operation *op = service ? service_operation(service, r->operation) : NULL;
	struct decide_input in = {.config = config,
				  .operation = op,
				  .flags = c->then,
				  .user = r->user,
				  .organization = r->organization};
	enum identity_part part;
	struct decision wanted, found;
	if (!op || !operation_asks(config, op, span_of(c->arguments->flag)))
		return 0;
	identity_entity(&op->identity, in.user, in.organization, &in.entity, &part);
	decide(&in, &wanted, NULL);
	in.flags = c->read;
	decide(&in, &found, NULL);
	c->requests += r->requests;
	c->task += found.side == OUTCOME_TASK ? r->requests : 0;
	c->different += wanted.side != found.side;
	return 0;
}

/* --- everybody made up ---------------------------------------------------------------------------------- */

static int compare_made_up(const struct comparison *c, struct err *e)
{
	struct decide_input like = flag_users_like(c->users, flag_users_at(c->users, 0), c->then);
	struct population_moves m = population_moves(&like, span_of(c->arguments->flag), c->read);
	if (m.to_task || m.to_legacy)
		return err_set(
			e, -EIO,
			"of %d made-up identities %u get task and %u get legacy, contrary to the request",
			POPULATION_SIZE, m.to_task, m.to_legacy);
	return 0;
}

/* 1: the server tells it otherwise. */
static int ask_about(struct rollout_place *p, const struct flag_snapshot *s, const struct flag *f,
		     const char *name, struct err *e)
{
	CLEANUP(buf_releasep) struct buf said = BUF_INIT(65536);
	const struct flag_context context = {SPAN_LIT("user_id"), span_of(name)};
	struct flag_result own;
	flag_evaluate(s, f, span_of(name), &context, 1, &own, NULL);
	int r = flipt_evaluate(p, f, name, &said, e);
	if (r < 0)
		return r;
	struct span here = SPAN_LIT("false");
	if (own.type == FLAG_VARIANT)
		here = own.variant;
	else if (own.enabled)
		here = SPAN_LIT("true");
	if (span_eq(here, buf_span(&said)))
		return 0;
	err_set(e, -EIO, "Flipt itself says \"%s\" \"%.*s\", but its snapshot \"%.*s\"", name,
		SPAN_ARG(buf_span(&said)), SPAN_ARG(here));
	return 1;
}

/* What routers evaluate has been looked at; a server that cannot be asked as well is no reason for alarm. */
static int ask_server(struct rollout_place *p, const struct move_request *a, const struct flag_snapshot *s,
		      struct err *e)
{
	const struct flag *f = flag_find(s, span_of(a->flag));
	int64_t until_ms = clock_mono_ms() + AGREES_WITHIN_MS;
	int r = 0;
	for (unsigned i = 0; r == 0 && i < ASKED_MAX; i++) {
		char name[32];
		snprintf(name, sizeof(name), "made-up-%u", i);
		while ((r = ask_about(p, s, f, name, e)) == 1 && clock_mono_ms() < until_ms)
			if (!place_pause(p, AGAIN_MS))
				break;
	}
	if (r < 0)
		place_say(p, MOVE_WARNS, "warning: Flipt itself could not be asked: %s\n", e->text);
	return r == 1 ? -EIO : 0;
}

/* --- all of it ------------------------------------------------------------------------------------------ */

static int say_share(const struct rollout_place *p, const struct move_request *a,
		     const struct rollout_draft *draft, const struct comparison *c, struct err *e)
{
	struct decide_input like = flag_users_like(c->users, flag_users_at(c->users, 0), c->read);
	const struct flag *f = flag_find(c->read, span_of(a->flag));
	double asked = draft_to(draft);
	place_say(p, MOVE_SAYS, "%s now sends %g %% of everybody to tasks", a->flag,
		  population_share_of_flag(&like, span_of(a->flag)));
	if (draft->of_segment)
		place_say(p, MOVE_SAYS, " and %g %% of the segment's members", draft->segment_to);
	if (c->requests)
		place_say(p, MOVE_SAYS, "; of the last %lld requests on record %.1f %% would go to tasks",
			  (long long)c->requests, 100.0 * (double)c->task / (double)c->requests);
	place_say(p, MOVE_SAYS, "\n");
	if (*draft->missing)
		return err_set(e, -EIO, "%s", draft->missing);
	if (*draft->unused && !move_is_emergency(a))
		return err_set(e, -EIO, "%s", draft->unused);
	if (a->percent < 0 || fabs(asked - a->percent) < 0.01)
		return 0;
	if (flag_type_of(f) == FLAG_VARIANT && !flag_enabled(f)) {
		place_say(p, MOVE_SAYS, "The flag is disabled: the percentage applies once it is enabled.\n");
		return 0;
	}
	return err_set(e, -EIO, "%g %% was requested, but %s makes it %g %%", a->percent,
		       flag_type_of(f) == FLAG_VARIANT ? "an earlier rule" : "another rollout of the flag",
		       asked);
}

int verify_change(struct rollout_place *p, struct flag_users *u, const struct move_request *a,
		  const struct rollout_draft *draft, struct err *e)
{
	struct flag_snapshot *s = NULL;
	struct comparison c = {.users = u, .arguments = a, .then = draft->then};
	int r = read_until_it_shows(p, u, a, e);
	if (r == 0)
		r = place_parse(p, buf_span(&p->flags), &s, e);
	c.read = s;
	if (r == 0)
		r = compare_made_up(&c, e);
	if (r == 0)
		/* nobody on record: nobody to compare */
		recorded_each(p->config->outcomes.path, RECENT_MAX, compare_recorded, &c, NULL);
	if (r == 0 && c.different)
		r = err_set(e, -EIO, "%lld of those on record get something else than requested",
			    (long long)c.different);
	if (r == 0 && p->flipt)
		r = ask_server(p, a, s, e);
	if (r == 0)
		r = say_share(p, a, draft, &c, e);
	flag_snapshot_unref(s);
	return r;
}
