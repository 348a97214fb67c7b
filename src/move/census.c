/*
 * plan: who of the recorded identities a change would move. The decision itself is asked, with the flags as
 * they are and as they would be.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "move/census.h"
#include "move/replay/doubts.h"
#include "move/draft.h"
#include "move/population.h"

struct asker {
	struct doubts doubts;
	struct asker *next;
};

/* What is known of one user or organization. */
struct party {
	char *name;
	bool user;
	int64_t requests, to_task, to_legacy, elsewhere, unknown;
};

struct census {
	const struct rollout_place *place;
	const struct move_request *arguments;
	const struct rollout_draft *draft;
	struct asker *askers;
	struct party *parties;
	size_t n, size;
	struct party total;	/* of requests */
	size_t pseudonyms, cut; /* identities of which the answer is not known for that */
	/* whose answer hangs on what is not recorded: as the router asks, without it */
	size_t open_to_task, open_to_legacy, open;
};

enum move { STAYS, TO_TASK, TO_LEGACY, ELSEWHERE, UNKNOWN };

static struct asker *asker_of(struct census *c, const struct operation *op, struct err *e)
{
	for (struct asker *a = c->askers; a; a = a->next)
		if (a->doubts.op == op)
			return a;
	struct asker *a = calloc(1, sizeof(*a));
	if (!a) {
		err_set(e, -ENOMEM, "out of memory");
		return NULL;
	}
	doubts_of(&a->doubts, c->place->config, c->draft->now, op);
	a->next = c->askers;
	c->askers = a;
	return a;
}

/* --- one identity --------------------------------------------------------------------------------------- */

static enum move compare(const struct decision *was, const struct decision *is)
{
	if (was->side != is->side)
		return is->side == OUTCOME_TASK ? TO_TASK : TO_LEGACY;
	return is->side == OUTCOME_TASK && !span_eq(was->backend, is->backend) ? ELSEWHERE : STAYS;
}

static enum move move_of(const struct census *c, const struct decide_input *like, bool entity_known)
{
	struct decide_input in = *like;
	struct decision was, is;
	in.flags = c->draft->now;
	decide(&in, &was, NULL);
	in.flags = c->draft->then;
	decide(&in, &is, NULL);
	/* Without the entity the decision says where a percentage took part. */
	if (!entity_known && (was.reason == REASON_NO_IDENTITY || is.reason == REASON_NO_IDENTITY))
		return UNKNOWN;
	return compare(&was, &is);
}

/* Whether the answer hangs on the doubt: with other values for what is unknown it would be another. */
static bool matters(const struct census *c, const struct decide_input *like, const struct doubt *d,
		    enum move without, const struct recorded_known *known)
{
	struct flag_context unknown[ROLLOUT_CONTEXT_MAX];
	struct decide_input in = *like;
	size_t n = doubt_unknown(d, like->operation, known, unknown);
	if (d->context.entity && !known->entity)
		return true;
	in.extra = unknown;
	in.n_extra = n;
	return n && move_of(c, &in, known->entity) != without;
}

static enum move judge(struct census *c, struct asker *a, const struct recorded *r)
{
	struct decide_input in;
	struct recorded_known known;
	recorded_input(c->place->config, a->doubts.op, r, &in, &known);
	enum move m = move_of(c, &in, known.entity);
	if (m == UNKNOWN) {
		c->pseudonyms += known.pseudonym;
		c->cut += !known.pseudonym;
		return m;
	}
	bool all = known.user && known.organization;
	for (size_t i = 0; i < a->doubts.n; i++)
		if (matters(c, &in, &a->doubts.list[i], m, &known)) {
			a->doubts.list[i].identities++;
			c->open += all;
			c->open_to_task += all && m == TO_TASK;
			c->open_to_legacy += all && m == TO_LEGACY;
			return UNKNOWN;
		}
	return m;
}

/* --- counting ------------------------------------------------------------------------------------------- */

static void count(struct party *p, enum move m, int64_t requests)
{
	p->requests += requests;
	p->to_task += m == TO_TASK ? requests : 0;
	p->to_legacy += m == TO_LEGACY ? requests : 0;
	p->elsewhere += m == ELSEWHERE ? requests : 0;
	p->unknown += m == UNKNOWN ? requests : 0;
}

static int add_party(struct census *c, struct span name, bool user, enum move m, int64_t requests,
		     struct err *e)
{
	if (!name.ptr)
		return 0;
	if (c->n == c->size) {
		size_t size = c->size ? c->size * 2 : 1024;
		struct party *bigger = realloc(c->parties, size * sizeof(*bigger));
		if (!bigger)
			return err_set(e, -ENOMEM, "out of memory");
		c->parties = bigger;
		c->size = size;
	}
	struct party *p = &c->parties[c->n];
	*p = (struct party){.name = span_dup(name), .user = user};
	if (!p->name)
		return err_set(e, -ENOMEM, "out of memory");
	c->n++;
	count(p, m, requests);
	return 0;
}

struct counting {
	struct census *census;
	struct err *e;
};

static int take(void *arg, const struct recorded *r)
{
	struct counting *counting = arg;
	struct census *c = counting->census;
	const struct config *config = c->place->config;
	const struct service *service = config_service(config, r->service);
	const struct operation *op = service ? service_operation(service, r->operation) : NULL;
	if (!op || !operation_asks(config, op, span_of(c->arguments->flag)))
		return 0;
	struct asker *a = asker_of(c, op, counting->e);
	if (!a)
		return -ENOMEM;
	enum move m = judge(c, a, r);
	count(&c->total, m, r->requests);
	int result = add_party(c, r->user, true, m, r->requests, counting->e);
	return result < 0 ? result : add_party(c, r->organization, false, m, r->requests, counting->e);
}

static int by_name(const void *a, const void *b)
{
	const struct party *x = a, *y = b;
	return x->user != y->user ? x->user - y->user : strcmp(x->name, y->name);
}

/* Most moved requests first. */
static int by_size(const void *a, const void *b)
{
	const struct party *x = a, *y = b;
	int64_t m = x->to_task + x->to_legacy + x->elsewhere, n = y->to_task + y->to_legacy + y->elsewhere;
	return m != n ? (m < n) - (m > n) : by_name(a, b);
}

/* One entry for each user and organization. */
static void merge(struct census *c)
{
	size_t kept = 0;
	if (c->n)
		qsort(c->parties, c->n, sizeof(c->parties[0]), by_name);
	for (size_t i = 0; i < c->n; i++) {
		struct party *p = &c->parties[i], *last = kept ? &c->parties[kept - 1] : NULL;
		if (!last || by_name(last, p) != 0) {
			c->parties[kept++] = *p;
			continue;
		}
		last->requests += p->requests;
		last->to_task += p->to_task;
		last->to_legacy += p->to_legacy;
		last->elsewhere += p->elsewhere;
		last->unknown += p->unknown;
		free(p->name);
	}
	c->n = kept;
	if (c->n)
		qsort(c->parties, c->n, sizeof(c->parties[0]), by_size);
}

/* --- telling -------------------------------------------------------------------------------------------- */

static void show_operations(const struct census *c)
{
	struct flag_users u;
	const struct operation *op;
	flag_users_init(&u, c->place->config, c->arguments->flag);
	if (!flag_users_at(&u, 0))
		place_say(c->place, MOVE_SAYS,
			  "\nNo operation of this configuration uses %s: nobody would notice.\n",
			  c->arguments->flag);
	for (size_t i = 0; (op = flag_users_at(&u, i)); i++) {
		struct decide_input like = flag_users_like(&u, op, c->draft->now);
		double now = population_share(&like);
		like.flags = c->draft->then;
		place_say(c->place, MOVE_SAYS, "%s  %.*s.%.*s: %.1f %% → %.1f %% to tasks",
			  i ? "" : "\nOf everybody, by operation:\n", SPAN_ARG(op->service),
			  SPAN_ARG(op->name), now, population_share(&like));
		place_say(c->place, MOVE_SAYS, op->n_flags > 1 ? "  (%zu flags together)\n" : "\n",
			  op->n_flags);
	}
}

static struct census_kind kind_of(const struct census *c, bool user)
{
	struct census_kind k = {.known = 0};
	for (size_t i = 0; i < c->n; i++) {
		const struct party *p = &c->parties[i];
		int64_t moved = p->to_task + p->to_legacy + p->elsewhere;
		if (p->user != user)
			continue;
		k.known++;
		k.to_task += p->to_task > 0;
		k.to_legacy += p->to_legacy > 0;
		k.elsewhere += p->elsewhere > 0;
		k.unknown += p->unknown > 0;
		if (!moved || k.n_largest == CENSUS_LARGEST_MAX)
			continue;
		struct census_party *l = &k.largest[k.n_largest++];
		l->moved = moved;
		l->requests = p->requests;
		text_copy(span_of(p->name), l->name, sizeof(l->name));
	}
	return k;
}

static void show_kind(const struct census *c, const struct census_kind *k, const char *kind)
{
	if (!k->known)
		return;
	place_say(c->place, MOVE_SAYS, "  %zu %s: %zu would move to tasks, %zu back to legacy", k->known,
		  kind, k->to_task, k->to_legacy);
	if (k->elsewhere)
		place_say(c->place, MOVE_SAYS, ", %zu to another backend", k->elsewhere);
	if (k->unknown)
		place_say(c->place, MOVE_SAYS, "; unknown for %zu", k->unknown);
	place_say(c->place, MOVE_SAYS, "\n");
}

static void show_largest(const struct census *c, const struct census_kind *k, const char *kind)
{
	for (size_t i = 0; i < k->n_largest; i++) {
		if (i == 0)
			place_say(c->place, MOVE_SAYS, "  the largest %s: ", kind);
		place_say(c->place, MOVE_SAYS, "%s%s (%lld of %lld requests)", i ? ", " : "",
			  k->largest[i].name, (long long)k->largest[i].moved,
			  (long long)k->largest[i].requests);
	}
	if (k->n_largest)
		place_say(c->place, MOVE_SAYS, "\n");
}

static void show_unknown(const struct census *c)
{
	if (c->place->config->outcomes.hash_users)
		place_say(c->place, MOVE_SAYS,
			  "\nwarning: users are recorded as pseudonyms (outcomes.hash_users): if the user is "
			  "what is hashed, the record cannot show who would move.\n");
	if (!c->total.unknown)
		return;
	place_say(c->place, MOVE_SAYS, "\nUnknown for %lld of %lld requests:\n", (long long)c->total.unknown,
		  (long long)c->total.requests);
	if (c->pseudonyms)
		place_say(c->place, MOVE_SAYS, "  %zu identities: their user is recorded as a pseudonym\n",
			  c->pseudonyms);
	if (c->cut)
		place_say(c->place, MOVE_SAYS, "  %zu identities: their id was too long and was truncated\n",
			  c->cut);
	for (const struct asker *a = c->askers; a; a = a->next)
		for (size_t i = 0; i < a->doubts.n; i++)
			if (a->doubts.list[i].identities)
				place_say(
					c->place, MOVE_SAYS,
					"  %zu identities: the segment \"%s\" asks for \"%s\", which is not "
					"recorded (%.*s.%.*s)\n",
					a->doubts.list[i].identities, a->doubts.list[i].segment,
					a->doubts.list[i].property, SPAN_ARG(a->doubts.op->service),
					SPAN_ARG(a->doubts.op->name));
	if (c->open)
		place_say(
			c->place, MOVE_SAYS,
			"  This router evaluates without it: then %zu of them would move to tasks, %zu back "
			"to "
			"legacy.\n",
			c->open_to_task, c->open_to_legacy);
}

static void show_census(const struct census *c)
{
	place_say(c->place, MOVE_SAYS, "\nOf the identities on record (%lld requests):\n",
		  (long long)c->total.requests);
	const struct census_kind users = kind_of(c, true), organizations = kind_of(c, false);
	show_kind(c, &users, "users");
	show_kind(c, &organizations, "organizations");
	show_largest(c, &users, "users");
	show_largest(c, &organizations, "organizations");
	place_say(c->place, MOVE_SAYS,
		  "  %lld requests would have gone to tasks instead, %lld to legacy instead\n",
		  (long long)c->total.to_task, (long long)c->total.to_legacy);
	show_unknown(c);
	if (c->total.to_legacy)
		place_say(c->place, MOVE_SAYS, "\nSome would move back to legacy.\n");
	else
		place_say(c->place, MOVE_SAYS, "\nNobody%s would move back to legacy.\n",
			  c->total.unknown ? " for whom this is known" : "");
}

/* --- the command ---------------------------------------------------------------------------------------- */

static void release(struct census *c)
{
	for (size_t i = 0; i < c->n; i++)
		free(c->parties[i].name);
	free(c->parties);
	for (struct asker *a = c->askers; a;) {
		struct asker *next = a->next;
		free(a);
		a = next;
	}
}

static int take_census(struct census *c, struct err *e)
{
	struct counting counting = {c, e};
	int r = recorded_each(c->place->config->outcomes.path, 0, take, &counting, e);
	if (r == -ENOENT) {
		place_say(c->place, MOVE_SAYS, "\nNobody is on record yet (%s does not exist).\n",
			  c->place->config->outcomes.path);
		return 0;
	}
	if (r < 0)
		return r;
	if (r == 1)
		place_say(c->place, MOVE_SAYS, "\nwarning: only the first %d identities were checked\n",
			  RECORDED_MAX);
	merge(c);
	show_census(c);
	return 0;
}

int census_of(const struct rollout_place *p, const struct move_request *q, const struct rollout_draft *d,
	      int64_t newest, struct census_sum *ret, struct err *e)
{
	struct census c = {.place = p, .arguments = q, .draft = d};
	struct counting counting = {&c, e};
	*ret = (struct census_sum){.requests = 0};
	int r = recorded_each(p->config->outcomes.path, newest, take, &counting, e);
	ret->nobody = r == -ENOENT;
	ret->cut = r == 1;
	if (r >= 0) {
		merge(&c);
		ret->requests = c.total.requests;
		ret->to_task = c.total.to_task;
		ret->to_legacy = c.total.to_legacy;
		ret->unknown = c.total.unknown;
		ret->users = kind_of(&c, true);
		ret->organizations = kind_of(&c, false);
	}
	release(&c);
	return r < 0 && r != -ENOENT ? r : 0;
}

int move_plan(struct rollout_place *p, const struct move_request *a, struct err *e)
{
	struct rollout_draft draft = {.now = NULL};
	struct census c = {.place = p, .arguments = a, .draft = &draft};
	struct flag_users u;
	flag_users_init(&u, p->config, a->flag);
	int r = place_read(p, e);
	if (r == 0)
		r = draft_make(p, &u, a, &draft, e);
	if (r == 0) {
		place_say(p, MOVE_SAYS, "%s: %g %% → %g %% of %s\n", a->flag, draft_from(&draft),
			  draft_to(&draft), a->segment ? "the segment's members" : "everybody");
		draft_show_changes(p, &draft.plan);
		draft_show_notes(p, &draft, a);
		show_operations(&c);
		r = take_census(&c, e);
	}
	release(&c);
	draft_release(&draft);
	return r;
}
