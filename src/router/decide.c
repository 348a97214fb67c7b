#include "router/decide.h"

#include <stdlib.h>

#include "base/hash.h"
#include "base/json.h"
#include "tasks/backends.h"

#define CONTEXT_MAX (4 + OPERATION_MAX_CONTEXT + 16)

struct asking {
	const struct decide_input *in;
	struct flag_context context[CONTEXT_MAX];
	size_t n_context;
	const struct flag_trace *trace;
};

static void decide_add_context(struct asking *a, struct span key, struct span value)
{
	if (value.ptr && a->n_context < CONTEXT_MAX)
		a->context[a->n_context++] = (struct flag_context){key, value};
}

static void build_context(struct asking *a)
{
	const struct decide_input *in = a->in;
	const struct operation *op = in->operation;
	decide_add_context(a, SPAN_LIT("user_id"), in->user);
	decide_add_context(a, SPAN_LIT("organization_id"), in->organization);
	decide_add_context(a, SPAN_LIT("service"), op->service);
	decide_add_context(a, SPAN_LIT("operation"), op->name);
	for (size_t i = 0; i < op->n_context; i++)
		decide_add_context(a, op->context[i].key, op->context[i].value);
	for (size_t i = 0; i < in->n_extra; i++)
		decide_add_context(a, in->extra[i].key, in->extra[i].value);
}

static const bool *env_default(const struct config *c, struct span flag)
{
	for (size_t i = 0; i < c->n_env_defaults; i++)
		if (span_eq(c->env_defaults[i].flag, flag))
			return &c->env_defaults[i].value;
	return NULL;
}

/* The flag exists neither in the source nor in the last good snapshot. */
static struct decide_vote vote_missing(const struct asking *a, struct span flag)
{
	const bool *value = env_default(a->in->config, flag);
	if (value) {
		flag_trace_say(a->trace, 1, "flag %.*s exists nowhere; the environment's default says %s",
			       SPAN_ARG(flag), *value ? "task" : "legacy");
		return (struct decide_vote){.task = *value, .reason = REASON_ENV_DEFAULT, .bucket = -1};
	}
	flag_trace_say(a->trace, 1,
		       "flag %.*s exists nowhere (%s), and the environment has no default: legacy",
		       SPAN_ARG(flag), a->in->flags ? "not in the snapshot" : "there is no snapshot");
	return (struct decide_vote){.reason = a->in->flags ? REASON_FLAG_MISSING : REASON_FLAG_UNAVAILABLE,
				    .bucket = -1};
}

static bool means_legacy(struct span variant)
{
	static const char *const names[] = {"0", "off", "legacy", "disabled", "control", "false"};
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (span_is(variant, names[i]))
			return true;
	return variant.len == 0;
}

static struct decide_vote vote_of_variant(const struct operation *op, struct span variant)
{
	for (size_t i = 0; i < op->n_variants; i++)
		if (span_eq(op->variants[i].variant, variant))
			return (struct decide_vote){.task = op->variants[i].task,
						    .backend = op->variants[i].backend,
						    .shadow = op->variants[i].shadow ? 1 : 0};
	if (means_legacy(variant))
		return (struct decide_vote){.task = false};
	if (span_is(variant, "shadow"))
		return (struct decide_vote){.shadow = 1};
	if (task_backend_is_name(variant))
		return (struct decide_vote){.task = true, .backend = variant};
	return (struct decide_vote){.task = true};
}

/* {"side": "task"|"legacy"|"shadow", "backend": name, "shadow": 0..1}; what is malformed is as if absent. */
static void apply_attachment(struct decide_vote *v, struct span attachment)
{
	static const struct span pointers[] = {{"/side", 5}, {"/backend", 8}, {"/shadow", 7}};
	struct span values[3];
	if (attachment.len == 0 || json_pointers(attachment, pointers, 3, values, NULL) != 0)
		return;
	if (span_is(values[0], "\"task\""))
		v->task = true, v->shadow = 0;
	else if (span_is(values[0], "\"legacy\""))
		v->task = false, v->shadow = 0;
	else if (span_is(values[0], "\"shadow\""))
		v->task = false, v->shadow = 1;
	if (values[1].ptr && values[1].len > 2 && values[1].ptr[0] == '"')
		v->backend = (struct span){values[1].ptr + 1, values[1].len - 2};
	if (values[2].ptr && json_type_of(values[2]) == JSON_NUMBER) {
		double share = strtod(values[2].ptr, NULL); /* ends at the ',' or '}' after it */
		v->shadow = share;
		if (share < 0)
			v->shadow = 0;
		else if (share > 1)
			v->shadow = 1;
		if (v->shadow > 0)
			v->task = false; /* a shadow beside legacy: legacy serves */
	}
}

struct decide_vote decide_variant(const struct operation *op, struct span variant, struct span attachment)
{
	struct decide_vote v = vote_of_variant(op, variant);
	apply_attachment(&v, attachment);
	return v;
}

static struct decide_vote vote_variant_flag(const struct asking *a, const struct flag_result *r)
{
	if (r->reason == FLAG_REASON_DISABLED)
		return (struct decide_vote){.reason = REASON_FLAG_DISABLED};
	/* A default variant counts where no rule matches: so do clients of Flipt, who go by the variant's
	 * key. */
	if (!r->match && r->reason != FLAG_REASON_DEFAULT)
		return (struct decide_vote){.reason = REASON_NO_MATCH};
	struct decide_vote v = decide_variant(a->in->operation, r->variant, r->attachment);
	v.reason = r->variant.len || v.task ? REASON_FLAG : REASON_NO_MATCH;
	return v;
}

/* A boolean flag that says false by its own value, rather than by a rollout, is off for everybody. */
static struct decide_vote vote_boolean_flag(const struct flag_result *r)
{
	bool off = !r->enabled && r->reason == FLAG_REASON_DEFAULT;
	return (struct decide_vote){.task = r->enabled, .reason = off ? REASON_FLAG_OFF : REASON_FLAG};
}

static struct decide_vote vote_flag(const struct asking *a, struct span key, struct span *ret_variant)
{
	const struct decide_input *in = a->in;
	const struct flag *f = in->flags ? flag_find(in->flags, key) : NULL;
	if (!f)
		return vote_missing(a, key);
	if (flag_broken(f)) {
		flag_trace_say(a->trace, 1, "flag %.*s is set aside: %s: legacy", SPAN_ARG(key),
			       flag_broken(f));
		return (struct decide_vote){.reason = REASON_FLAG_BROKEN, .bucket = -1};
	}
	struct span entity = in->entity.ptr ? in->entity : SPAN_LIT(DECIDE_ANONYMOUS);
	struct flag_result r;
	flag_trace_say(a->trace, 1, "flag %.*s for the entity \"%.*s\"", SPAN_ARG(key), SPAN_ARG(entity));
	flag_evaluate(in->flags, f, entity, a->context, a->n_context, &r, a->trace);
	if (r.type == FLAG_VARIANT && (r.match || r.reason == FLAG_REASON_DEFAULT))
		*ret_variant = r.variant;
	if (!in->entity.ptr && r.by_percentage) {
		flag_trace_say(a->trace, 1, "a percentage decided and there is no identity: legacy");
		return (struct decide_vote){.reason = REASON_NO_IDENTITY, .bucket = r.bucket};
	}
	struct decide_vote v = r.type == FLAG_VARIANT ? vote_variant_flag(a, &r) : vote_boolean_flag(&r);
	v.bucket = r.bucket;
	v.by_percentage = r.by_percentage;
	const char *says = v.task ? "task" : "legacy";
	if (!v.task && v.shadow > 0)
		says = "shadow";
	flag_trace_say(a->trace, 1, "flag %.*s says %s (%s)", SPAN_ARG(key), says,
		       outcome_reason_text(v.reason));
	return v;
}

static bool unknown_backend(const struct asking *a, struct span name, const char *why, struct decision *ret)
{
	struct err e;
	config_backend_not_found(a->in->config, name, &e);
	flag_trace_say(a->trace, 1, "backend %.*s (%s): %s: legacy", SPAN_ARG(name), why, e.text);
	ret->reason = REASON_BACKEND_UNKNOWN;
	ret->unknown = name;
	return false;
}

/* Which backend, once the side is known: a variant's, else hatchet when its flag says so, else the
 * operation's, else the default. One that is not configured is a broken rule: false, and legacy serves. */
static bool choose_backend(const struct asking *a, struct span by_variant, struct decision *ret)
{
	const struct config *c = a->in->config;
	struct span name = by_variant;
	const char *why = a->in->pinned != WISH_NONE ? "pinned" : "named by the variant";
	if (!name.ptr && c->hatchet_flag.len && config_backend(c, SPAN_LIT("hatchet"))) {
		struct span ignored;
		const bool *fallback = env_default(c, c->hatchet_flag);
		bool known = a->in->flags && flag_find(a->in->flags, c->hatchet_flag);
		struct decide_vote v = {.reason = REASON_FLAG_MISSING};
		if (known || fallback)
			v = vote_flag(a, c->hatchet_flag, &ignored);
		if (v.reason == REASON_FLAG_BROKEN) { /* which backend it would have named nobody can say */
			ret->reason = v.reason;
			return false;
		}
		if (v.task) {
			name = SPAN_LIT("hatchet");
			why = "by its flag";
		}
	}
	if (!name.ptr) {
		name = a->in->operation->task.backend;
		why = "the operation's";
	}
	if (!name.ptr) {
		name = c->default_backend;
		why = "the default";
	}
	const struct backend_config *configured = config_backend(c, name);
	if (!configured)
		return unknown_backend(a, name, why, ret);
	flag_trace_say(a->trace, 1, "backend %.*s (%s)", SPAN_ARG(name), why);
	/* the configuration's: a pinned name lives no longer than the lookup */
	ret->backend = configured->name;
	return true;
}

/* Known before anything is submitted: then legacy serves, and nobody waits for a task that nobody runs.
 * What is known of this operation says more than what others met. */
static bool backend_is_usable(const struct asking *a, struct span backend, enum outcome_reason *ret_reason)
{
	const struct operation *op = a->in->operation;
	const char *why = readiness_against(a->in->readiness, op->service, op->name, backend);
	if (!why && !breaker_view_has(a->in->breakers, backend))
		return true;
	if (why)
		flag_trace_say(a->trace, 1, "backend %.*s would not run the task: %s", SPAN_ARG(backend),
			       why);
	else
		flag_trace_say(a->trace, 1, "the circuit breaker of backend %.*s is open", SPAN_ARG(backend));
	*ret_reason = why ? REASON_BACKEND_NOT_READY : REASON_BREAKER_OPEN;
	return false;
}

/* The chosen one, or the first usable of the operation's others. */
static bool settle_backend(const struct asking *a, struct decision *ret)
{
	const struct task_mapping *t = &a->in->operation->task;
	enum outcome_reason first, ignored;
	if (backend_is_usable(a, ret->backend, &first))
		return true;
	for (size_t i = 0; i < t->n_backends; i++) {
		if (span_eq(t->backends[i], ret->backend) || !backend_is_usable(a, t->backends[i], &ignored))
			continue;
		flag_trace_say(a->trace, 1, "backend %.*s in its place", SPAN_ARG(t->backends[i]));
		ret->backend = t->backends[i];
		return true;
	}
	flag_trace_say(a->trace, 1, "legacy");
	ret->reason = first;
	ret->backend = SPAN_NONE;
	return false;
}

bool decide_may_use(const struct decide_input *in, struct span backend)
{
	const struct asking a = {.in = in};
	enum outcome_reason ignored;
	return config_backend(in->config, backend) && backend_is_usable(&a, backend, &ignored);
}

/* --- the share, for the guard ------------------------------------------------------------------------- */

uint64_t decide_split(const struct operation *op, const struct flag_snapshot *flags)
{
	uint64_t h = HASH64_START;
	for (size_t i = 0; i < op->n_flags; i++) {
		const struct flag *f = flags ? flag_find(flags, op->flags[i]) : NULL;
		h = hash64_number(h, f ? flag_digest(f) : 0);
	}
	for (size_t i = 0; i < op->n_variants; i++) {
		for (size_t j = 0; j < op->variants[i].variant.len; j++)
			h = hash64_number(h, (unsigned char)op->variants[i].variant.ptr[j]);
		h = hash64_number(h, op->variants[i].task);
	}
	return h ? h : 1;
}

struct flag_share {
	const struct asking *asking;
	double task; /* the share that says so */
	bool by_percentage;
	double at, from, below; /* where the entity's bucket lies, what was gone through, task below it */
	bool first, last;	/* whether the lowest bucket, the highest, says task */
	double shadow;		/* of those that it leaves to legacy */
};

static void add_to_share(void *arg, double share, const struct flag_result *r)
{
	struct flag_share *s = arg;
	struct decide_vote v =
		r->type == FLAG_VARIANT ? vote_variant_flag(s->asking, r) : vote_boolean_flag(r);
	s->by_percentage |= r->by_percentage;
	s->first |= v.task && s->from == 0;
	s->last = v.task;
	if (v.task) {
		double below = s->at - s->from;
		s->task += share;
		if (below > 0)
			s->below += below < share ? below : share;
	} else {
		s->shadow += share * v.shadow;
	}
	s->from += share;
}

/* `at`: where the entity's bucket lies, 0 … 1; only who asks for a place needs it. */
static struct flag_share share_of_flag(const struct asking *a, struct span key, double at)
{
	const struct decide_input *in = a->in;
	const struct flag *f = in->flags ? flag_find(in->flags, key) : NULL;
	struct flag_share s = {.asking = a, .at = at};
	if (f && !flag_broken(f))
		flag_each_share(in->flags, f, in->entity, a->context, a->n_context, add_to_share, &s);
	else
		s.task = !f && vote_missing(a, key).task ? 1 : 0;
	return s;
}

/* All flags must say task, each by a hash of its own, so also those are asked that the decision did not need
 * any more: one that says legacy to everybody leaves nothing to chance. */
static void note_share(const struct asking *a, struct decision *ret)
{
	struct asking silent = *a;
	const struct operation *op = a->in->operation;
	double share = 1;
	bool by_percentage = false;
	if (!a->in->entity.ptr)
		return;
	silent.trace = NULL;
	for (size_t i = 0; i < op->n_flags; i++) {
		struct flag_share s = share_of_flag(&silent, op->flags[i], 0);
		share *= s.task;
		by_percentage |= s.by_percentage;
	}
	if (!by_percentage || share <= 0 || share >= 1)
		return;
	ret->share = share;
	ret->split = decide_split(op, a->in->flags);
}

struct decide_share decide_share(const struct decide_input *in)
{
	struct asking a = {.in = in};
	struct decide_share ret = {.task = in->operation->n_flags > 0};
	build_context(&a);
	for (size_t i = 0; i < in->operation->n_flags; i++) {
		struct flag_share s = share_of_flag(&a, in->operation->flags[i], 0);
		ret.task *= s.task;
		ret.shadow = s.shadow > 0 ? s.shadow : ret.shadow;
	}
	return ret;
}

/* --- the guard's hold --------------------------------------------------------------------------------- */

static double bucket_of(const struct asking *a, struct span key)
{
	struct flag_result r;
	const struct flag *f = flag_find(a->in->flags, key);
	flag_evaluate(a->in->flags, f, a->in->entity, a->context, a->n_context, &r, NULL);
	return (r.bucket + 0.5) / (r.type == FLAG_VARIANT ? 1000 : 100);
}

/* Whether the entity is among the share that came first: who was on the task side when its percentage was
 * smaller. If a single flag splits, that is known, as shares grow from the end at which they begin;
 * otherwise nobody is. */
static bool is_among_first(const struct asking *a, double keeps)
{
	struct asking silent = *a;
	const struct operation *op = a->in->operation;
	struct flag_share splitting = {0};
	unsigned n = 0;
	silent.trace = NULL;
	for (size_t i = 0; i < op->n_flags; i++) {
		struct flag_share s = share_of_flag(&silent, op->flags[i], 0);
		if (s.task >= 1)
			continue;
		splitting = share_of_flag(&silent, op->flags[i], bucket_of(&silent, op->flags[i]));
		n++;
	}
	if (n != 1)
		return false;
	bool downwards = splitting.last && !splitting.first;
	return (downwards ? splitting.task - splitting.below : splitting.below) < keeps;
}

/* The task side of a held operation serves only what is pinned to it. */
static bool is_held(const struct asking *a, struct decision *ret)
{
	const struct operation *op = a->in->operation;
	const struct guard_hold *hold = guard_holds_find(a->in->holds, op->service, op->name);
	if (!hold || (hold->unknown && ret->share == 0))
		return false;
	if (hold->keeps > 0 && ret->share > 0 && is_among_first(a, hold->keeps)) {
		flag_trace_say(a->trace, 1, "the guard holds everything above the %g %% that was safe: task",
			       hold->keeps * 100);
		return false;
	}
	flag_trace_say(a->trace, 1,
		       hold->unknown ? "whether the guard holds this operation is not known yet: legacy"
				     : "the guard holds this operation's task side: legacy");
	ret->reason = REASON_GUARD;
	return true;
}

static void decide_by_flags(const struct asking *a, struct decision *ret)
{
	const struct operation *op = a->in->operation;
	struct span backend = SPAN_NONE;
	double shadow = 0;
	bool task = op->n_flags > 0, by_percentage = false;
	ret->reason = op->n_flags ? REASON_FLAG : REASON_FLAG_MISSING;
	for (size_t i = 0; i < op->n_flags; i++) {
		struct decide_vote v = vote_flag(a, op->flags[i], &ret->variant);
		by_percentage |= v.by_percentage;
		if (v.backend.ptr)
			backend = v.backend;
		if (v.reason == REASON_ENV_DEFAULT || !v.task)
			ret->reason = v.reason;
		if (v.task)
			continue;
		task = false;
		/* several: the smallest share */
		shadow = shadow > 0 && shadow < v.shadow ? shadow : v.shadow;
		if (v.shadow == 0)
			break; /* all must say task, and this one says legacy */
	}
	ret->assigned = task ? OUTCOME_TASK : OUTCOME_LEGACY;
	if (by_percentage)
		note_share(a, ret);
	if ((!task && shadow == 0) || (task && is_held(a, ret)))
		return;
	if (!choose_backend(a, backend, ret) || !settle_backend(a, ret))
		return;
	ret->shadow = shadow;
	ret->side = task ? OUTCOME_TASK : OUTCOME_LEGACY;
}

static void decide_by_wish(const struct asking *a, enum decide_wish wish, struct span backend,
			   enum outcome_reason reason, struct decision *ret)
{
	ret->reason = reason;
	flag_trace_say(a->trace, 1, "%s: %s", outcome_reason_text(reason),
		       wish == WISH_TASK ? "task" : "legacy");
	if (wish != WISH_TASK)
		return;
	ret->side = choose_backend(a, backend, ret) ? OUTCOME_TASK : OUTCOME_LEGACY;
	if (ret->side == OUTCOME_LEGACY && reason == REASON_PINNED) {
		flag_trace_say(a->trace, 1, "but legacy knows nothing of what it is about: refused");
		ret->side = OUTCOME_TASK;
		ret->refused = true;
	}
}

void decide(const struct decide_input *in, struct decision *ret, const struct flag_trace *trace)
{
	*ret = (struct decision){.side = OUTCOME_LEGACY, .reason = REASON_UNMAPPED, .variant = SPAN_LIT("")};
	if (!in->operation) {
		flag_trace_say(trace, 1, "no operation matches: legacy");
		return;
	}
	if (!in->operation->has_task) {
		flag_trace_say(trace, 1, "the operation has no task: legacy");
		ret->reason = REASON_NO_TASK;
		return;
	}
	struct asking a = {.in = in, .trace = trace};
	build_context(&a);
	if (in->pinned == WISH_UNKNOWN) {
		flag_trace_say(trace, 1, "cannot determine whether this call is the task side's: refused");
		*ret = (struct decision){.side = OUTCOME_TASK,
					 .reason = REASON_PIN_UNKNOWN,
					 .refused = true,
					 .variant = SPAN_LIT("")};
	} else if (in->pinned != WISH_NONE)
		decide_by_wish(&a, in->pinned, in->pinned_backend, REASON_PINNED, ret);
	else if (in->override != WISH_NONE)
		decide_by_wish(&a, in->override, SPAN_NONE, REASON_OVERRIDE, ret);
	else
		decide_by_flags(&a, ret);
}

void decide_flag(const struct decide_input *in, struct span flag, struct decide_vote *ret)
{
	struct asking a = {.in = in};
	struct span ignored;
	build_context(&a);
	*ret = vote_flag(&a, flag, &ignored);
}

double decide_share_of_flag(const struct decide_input *in, struct span flag)
{
	struct asking a = {.in = in};
	build_context(&a);
	return share_of_flag(&a, flag, 0).task;
}
