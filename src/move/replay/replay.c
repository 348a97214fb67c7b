#include "move/replay/replay.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/crypto.h"
#include "base/file.h"
#include "base/json.h"
#include "flags/source/features_folder.h"
#include "flags/source/saved_snapshot.h"
#include "move/replay/doubts.h"

enum replayed {
	REPLAY_STAYS,
	REPLAY_TO_TASK,
	REPLAY_TO_LEGACY,
	REPLAY_ELSEWHERE,
	REPLAY_UNKNOWN,
	REPLAYED_COUNT
};

struct replay_counts {
	int64_t requests;	    /* whose side the flags decided */
	int64_t by[REPLAYED_COUNT]; /* of them */
	int64_t identities[REPLAYED_COUNT], all_identities;
	int64_t was_task, would_task; /* of the requests that are not unknown */
	int64_t not_by_flags;	      /* beside `requests` */
};

struct replay_operation {
	struct doubts doubts;
	struct replay_counts counts;
	struct replay_operation *next;
};

struct replay_organization {
	char name[64];
	struct replay_counts counts;
};

/* A recorded combination. */
struct replay_item {
	uint64_t identity; /* of operation, organization and user */
	struct replay_operation *operation;
	size_t organization; /* of replay.organizations, + 1; 0: none */
	int64_t requests;
	enum replayed what;
};

struct replay {
	struct replay_options o;
	struct replay_operation *operations, **last_operation;
	struct replay_item *items;
	size_t n_items, room_items;
	struct replay_organization *organizations;
	size_t n_organizations, room_organizations;
	struct replay_counts total;
	int64_t reasons[REASON_COUNT]; /* of requests whose side something else decided */
	int64_t no_task, not_configured, pseudonyms, cut, by_segment;
	int64_t first_us; /* the latest of the files' first attempts: before it one of them says nothing */
	size_t n_files;
	bool truncated;
};

/* --- flags ---------------------------------------------------------------------------------------------- */

static int replay_parse_json(const struct config *c, const char *path, struct span text,
			     struct flag_snapshot **ret, struct err *e)
{
	static const enum saved_kind kinds[] = {SAVED_FLIPT, SAVED_FILE};
	CLEANUP(buf_releasep) struct buf saved = BUF_INIT(FLAG_MAX_DOCUMENT + 65536);
	struct span inner;
	struct err ignored;
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		struct saved_from from = {kinds[i], NULL, NULL};
		buf_clear(&saved);
		if (saved_snapshot_read(path, &from, &saved, &inner, ret, NULL, &ignored) == 0)
			return 0;
	}
	return flag_snapshot_parse_json(path, text, c->flags.rules, ret, e);
}

/* Flipt's answer, or what the router saved of it; a features file may be JSON, too, and says "version". */
static bool replay_is_snapshot(struct span text)
{
	struct json_doc *doc = NULL;
	struct err ignored;
	text = span_strip(text);
	if (!text.len || text.ptr[0] != '{' || json_doc_parse(text, &doc, &ignored) < 0)
		return false;
	const struct json_node *root = json_root(doc);
	bool snapshot = json_get(root, "snapshot") ||
			json_node_type(json_get(root, "namespace")) == JSON_OBJECT ||
			(json_get(root, "digest") && !json_get(root, "version"));
	json_doc_free(doc);
	return snapshot;
}

int replay_flags(const struct config *config, const char *path, struct flag_snapshot **ret, struct err *e)
{
	CLEANUP(features_release) struct features_text text = {.whole = BUF_INIT(0)};
	int r = features_read(path, config->flags.rules, &text, e);
	if (r < 0)
		return r;
	if (!text.folder && replay_is_snapshot(buf_span(&text.whole)))
		return replay_parse_json(config, path, buf_span(&text.whole), ret, e);
	return features_parse(path, &text, config->flags.namespace_key, config->flags.rules, ret, e);
}

/* --- one identity --------------------------------------------------------------------------------------- */

/* Whether the flags had decided it; otherwise its side says nothing of them. */
static bool replay_was_by_flags(int reason)
{
	switch (reason) {
	case REASON_FLAG:
	case REASON_FLAG_DISABLED:
	case REASON_FLAG_OFF:
	case REASON_NO_MATCH:
	case REASON_ENV_DEFAULT:
	case REASON_FLAG_MISSING:
	case REASON_FLAG_UNAVAILABLE:
	case REASON_FLAG_BROKEN:
	case REASON_NO_IDENTITY:
		return true;
	default:
		return false;
	}
}

static struct decision replay_decide(const struct replay *r, const struct decide_input *like,
				     const struct flag_context *extra, size_t n_extra)
{
	struct decide_input in = *like;
	struct decision d;
	in.flags = r->o.flags;
	in.extra = extra;
	in.n_extra = n_extra;
	decide(&in, &d, NULL);
	return d;
}

static bool replay_same(const struct decision *a, const struct decision *b)
{
	return a->side == b->side && (a->side == OUTCOME_LEGACY || span_eq(a->backend, b->backend));
}

static bool replay_hangs_on(const struct replay *r, const struct decide_input *in, const struct doubt *doubt,
			    const struct recorded_known *known, const struct decision *without)
{
	struct flag_context unknown[ROLLOUT_CONTEXT_MAX];
	size_t n = doubt_unknown(doubt, in->operation, known, unknown);
	if (doubt->context.entity && !known->entity)
		return true;
	if (!n)
		return false;
	struct decision with = replay_decide(r, in, unknown, n);
	return !replay_same(without, &with);
}

/* false: it cannot be known. */
static bool replay_redecide(struct replay *r, struct replay_operation *op, const struct recorded *who,
			    struct decision *ret)
{
	struct decide_input in;
	struct recorded_known known;
	recorded_input(r->o.config, op->doubts.op, who, &in, &known);
	*ret = replay_decide(r, &in, NULL, 0);
	/* Without the entity the decision says where a percentage took part. */
	if (!known.entity && ret->reason == REASON_NO_IDENTITY) {
		*(known.pseudonym ? &r->pseudonyms : &r->cut) += who->requests;
		return false;
	}
	for (size_t i = 0; i < op->doubts.n; i++)
		if (replay_hangs_on(r, &in, &op->doubts.list[i], &known, ret)) {
			op->doubts.list[i].identities += (size_t)who->requests;
			r->by_segment += who->requests;
			return false;
		}
	return true;
}

static enum replayed replay_compare(const struct recorded_decision *was, const struct decision *is)
{
	if (was->side != (int)is->side)
		return is->side == OUTCOME_TASK ? REPLAY_TO_TASK : REPLAY_TO_LEGACY;
	if (is->side == OUTCOME_TASK && was->backend.len && !span_eq(was->backend, is->backend))
		return REPLAY_ELSEWHERE;
	return REPLAY_STAYS;
}

/* --- what is counted ------------------------------------------------------------------------------------ */

static struct replay_operation *replay_operation_of(struct replay *r, const struct operation *op)
{
	for (struct replay_operation *x = r->operations; x; x = x->next)
		if (x->doubts.op == op)
			return x;
	struct replay_operation *x = calloc(1, sizeof(*x));
	if (!x)
		return NULL;
	doubts_of(&x->doubts, r->o.config, r->o.flags, op);
	*r->last_operation = x;
	r->last_operation = &x->next;
	return x;
}

/* 0: it has none; -ENOMEM. Rows come by organization. */
static int replay_organization_of(struct replay *r, struct span name, size_t *ret)
{
	*ret = 0;
	if (!name.ptr)
		return 0;
	if (r->n_organizations && span_is(name, r->organizations[r->n_organizations - 1].name)) {
		*ret = r->n_organizations;
		return 0;
	}
	if (r->n_organizations == r->room_organizations) {
		size_t room = r->room_organizations ? 2 * r->room_organizations : 256;
		struct replay_organization *more = realloc(r->organizations, room * sizeof(*more));
		if (!more)
			return -ENOMEM;
		r->organizations = more;
		r->room_organizations = room;
	}
	struct replay_organization *o = &r->organizations[r->n_organizations++];
	memset(o, 0, sizeof(*o));
	span_copy(name, o->name, sizeof(o->name));
	*ret = r->n_organizations;
	return 0;
}

static uint64_t replay_identity(const struct recorded *who)
{
	char text[512];
	struct buf b = BUF_INIT(sizeof(text));
	buf_printf(&b, "%.*s\n%.*s\n%.*s\n%.*s", SPAN_ARG(who->service), SPAN_ARG(who->operation),
		   who->organization.ptr ? (int)who->organization.len : 0,
		   who->organization.ptr ? who->organization.ptr : "", who->user.ptr ? (int)who->user.len : 0,
		   who->user.ptr ? who->user.ptr : "");
	uint64_t hash = crypto_hash64(buf_span(&b));
	buf_release(&b);
	return hash;
}

static int replay_push(struct replay *r, const struct replay_item *item)
{
	if (r->n_items == r->room_items) {
		size_t room = r->room_items ? 2 * r->room_items : 1024;
		struct replay_item *more = realloc(r->items, room * sizeof(*more));
		if (!more)
			return -ENOMEM;
		r->items = more;
		r->room_items = room;
	}
	r->items[r->n_items++] = *item;
	return 0;
}

static bool replay_wants(const struct replay *r, const struct recorded *who)
{
	return (!r->o.service || span_is(who->service, r->o.service)) &&
	       (!r->o.operation || span_is(who->operation, r->o.operation)) &&
	       (!r->o.organization ||
		(who->organization.ptr && span_is(who->organization, r->o.organization)));
}

static void replay_count(struct replay_counts *c, const struct recorded_decision *was, enum replayed what,
			 const struct decision *is)
{
	int64_t n = was->who.requests;
	c->requests += n;
	c->by[what] += n;
	if (what == REPLAY_UNKNOWN)
		return;
	c->was_task += was->side == OUTCOME_TASK ? n : 0;
	c->would_task += is->side == OUTCOME_TASK ? n : 0;
}

static int replay_take_one(struct replay *r, const struct operation *configured,
			   const struct recorded_decision *was)
{
	struct replay_operation *op = replay_operation_of(r, configured);
	size_t organization;
	if (!op || replay_organization_of(r, was->who.organization, &organization) < 0)
		return -ENOMEM;
	struct replay_counts *of[] = {&r->total, &op->counts,
				      organization ? &r->organizations[organization - 1].counts : NULL};
	if (!replay_was_by_flags(was->reason)) {
		r->reasons[was->reason] += was->who.requests;
		for (size_t i = 0; i < 3; i++)
			if (of[i])
				of[i]->not_by_flags += was->who.requests;
		return 0;
	}
	struct decision is;
	bool known = replay_redecide(r, op, &was->who, &is);
	enum replayed what = known ? replay_compare(was, &is) : REPLAY_UNKNOWN;
	for (size_t i = 0; i < 3; i++)
		if (of[i])
			replay_count(of[i], was, what, &is);
	struct replay_item item = {replay_identity(&was->who), op, organization, was->who.requests, what};
	return replay_push(r, &item);
}

static int replay_take(void *arg, const struct recorded_decision *was)
{
	struct replay *r = arg;
	if (!replay_wants(r, &was->who))
		return 0;
	const struct service *service = config_service(r->o.config, was->who.service);
	const struct operation *op = service ? service_operation(service, was->who.operation) : NULL;
	if (!op) {
		r->not_configured += was->who.requests;
		return 0;
	}
	if (!op->has_task || op->n_flags == 0) {
		r->no_task += was->who.requests;
		return 0;
	}
	return replay_take_one(r, op, was);
}

/* --- life ----------------------------------------------------------------------------------------------- */

int replay_new(const struct replay_options *o, struct replay **ret, struct err *e)
{
	struct replay *r = calloc(1, sizeof(*r));
	if (!r)
		return err_set(e, -ENOMEM, "out of memory");
	r->o = *o;
	r->last_operation = &r->operations;
	*ret = r;
	return 0;
}

struct replay *replay_free(struct replay *r)
{
	if (!r)
		return NULL;
	for (struct replay_operation *x = r->operations; x;) {
		struct replay_operation *next = x->next;
		free(x);
		x = next;
	}
	free(r->items);
	free(r->organizations);
	free(r);
	return NULL;
}

int replay_add(struct replay *r, const char *path, struct err *e)
{
	int64_t first_us = 0;
	int n = recorded_each_decision(path, r->o.since_us, r->o.until_us, &first_us, replay_take, r, e);
	if (n == -ENOMEM)
		err_set(e, n, "%s: out of memory", path);
	if (n < 0)
		return n;
	r->truncated |= n == 1;
	r->n_files++;
	if (first_us > r->first_us)
		r->first_us = first_us;
	return 0;
}

static int replay_by_identity(const void *a, const void *b)
{
	const struct replay_item *x = a, *y = b;
	return (x->identity > y->identity) - (x->identity < y->identity);
}

static void replay_count_identity(struct replay_counts *c, const bool has[REPLAYED_COUNT])
{
	bool moves = has[REPLAY_TO_TASK] || has[REPLAY_TO_LEGACY] || has[REPLAY_ELSEWHERE];
	c->all_identities++;
	for (int w = REPLAY_TO_TASK; w <= REPLAY_ELSEWHERE; w++)
		c->identities[w] += has[w];
	c->identities[REPLAY_UNKNOWN] += has[REPLAY_UNKNOWN] && !moves;
	c->identities[REPLAY_STAYS] += !has[REPLAY_UNKNOWN] && !moves;
}

/* An identity that was on both sides moves if any of its requests would. */
static void replay_count_identities(struct replay *r)
{
	if (r->n_items)
		qsort(r->items, r->n_items, sizeof(r->items[0]), replay_by_identity);
	for (size_t i = 0; i < r->n_items;) {
		bool has[REPLAYED_COUNT] = {false};
		const struct replay_item *first = &r->items[i];
		for (; i < r->n_items && r->items[i].identity == first->identity; i++)
			has[r->items[i].what] = true;
		replay_count_identity(&r->total, has);
		replay_count_identity(&first->operation->counts, has);
		if (first->organization)
			replay_count_identity(&r->organizations[first->organization - 1].counts, has);
	}
}

static int64_t replay_moved(const struct replay_counts *c)
{
	return c->by[REPLAY_TO_TASK] + c->by[REPLAY_TO_LEGACY] + c->by[REPLAY_ELSEWHERE];
}

static int replay_by_name(const void *a, const void *b)
{
	return strcmp(((const struct replay_organization *)a)->name,
		      ((const struct replay_organization *)b)->name);
}

static int replay_by_moved(const void *a, const void *b)
{
	const struct replay_organization *x = a, *y = b;
	int64_t m = replay_moved(&x->counts), n = replay_moved(&y->counts);
	if (m != n)
		return (m < n) - (m > n);
	if (x->counts.requests != y->counts.requests)
		return (x->counts.requests < y->counts.requests) - (x->counts.requests > y->counts.requests);
	return replay_by_name(a, b);
}

static void replay_add_counts(struct replay_counts *to, const struct replay_counts *c)
{
	for (int w = 0; w < REPLAYED_COUNT; w++) {
		to->by[w] += c->by[w];
		to->identities[w] += c->identities[w];
	}
	to->requests += c->requests;
	to->all_identities += c->all_identities;
	to->was_task += c->was_task;
	to->would_task += c->would_task;
	to->not_by_flags += c->not_by_flags;
}

int replay_finish(struct replay *r, struct err *e)
{
	size_t kept = 0;
	(void)e;
	replay_count_identities(r);
	r->n_items = 0;
	if (r->n_organizations)
		qsort(r->organizations, r->n_organizations, sizeof(r->organizations[0]), replay_by_name);
	for (size_t i = 0; i < r->n_organizations; i++) { /* those of several files */
		struct replay_organization *o = &r->organizations[i];
		if (kept && replay_by_name(&r->organizations[kept - 1], o) == 0)
			replay_add_counts(&r->organizations[kept - 1].counts, &o->counts);
		else
			r->organizations[kept++] = *o;
	}
	r->n_organizations = kept;
	if (kept)
		qsort(r->organizations, kept, sizeof(r->organizations[0]), replay_by_moved);
	return 0;
}

/* --- for people ----------------------------------------------------------------------------------------- */

static double replay_percent(int64_t part, const struct replay_counts *c)
{
	int64_t known = c->requests - c->by[REPLAY_UNKNOWN];
	return known > 0 ? 100.0 * (double)part / (double)known : 0;
}

static void replay_say_counts(const struct replay_counts *c, struct buf *out)
{
	if (c->requests == c->by[REPLAY_UNKNOWN])
		buf_puts(out, "cannot be re-decided");
	else
		buf_printf(out, "%.1f %% -> %.1f %% to tasks", replay_percent(c->was_task, c),
			   replay_percent(c->would_task, c));
	buf_printf(out,
		   "; of %" PRId64 " identities %" PRId64 " would move to tasks, %" PRId64 " back to legacy",
		   c->all_identities, c->identities[REPLAY_TO_TASK], c->identities[REPLAY_TO_LEGACY]);
	if (c->identities[REPLAY_ELSEWHERE])
		buf_printf(out, ", %" PRId64 " to another backend", c->identities[REPLAY_ELSEWHERE]);
	if (c->identities[REPLAY_UNKNOWN])
		buf_printf(out, "; unknown for %" PRId64, c->identities[REPLAY_UNKNOWN]);
	buf_putc(out, '\n');
}

static void replay_say_organizations(const struct replay *r, struct buf *out)
{
	size_t shown = 0, moved = 0;
	for (size_t i = 0; i < r->n_organizations; i++)
		moved += replay_moved(&r->organizations[i].counts) > 0;
	buf_printf(out, "\nOrganizations: %zu of %zu would have requests moved%s\n", moved,
		   r->n_organizations, moved ? ", most first:" : "");
	for (size_t i = 0; i < r->n_organizations && shown < REPLAY_ORGANIZATIONS_SHOWN; i++) {
		const struct replay_organization *o = &r->organizations[i];
		if (!replay_moved(&o->counts))
			break;
		shown++;
		buf_printf(out, "  %s: %" PRId64 " of %" PRId64 " requests to tasks, %" PRId64 " to legacy",
			   o->name, o->counts.by[REPLAY_TO_TASK], o->counts.requests,
			   o->counts.by[REPLAY_TO_LEGACY]);
		if (o->counts.by[REPLAY_ELSEWHERE])
			buf_printf(out, ", %" PRId64 " to another backend", o->counts.by[REPLAY_ELSEWHERE]);
		if (o->counts.by[REPLAY_UNKNOWN])
			buf_printf(out, ", unknown for %" PRId64, o->counts.by[REPLAY_UNKNOWN]);
		buf_putc(out, '\n');
	}
	if (moved > shown)
		buf_printf(out, "  and %zu more (--json lists them)\n", moved - shown);
}

static void replay_say_line(struct buf *out, int64_t n, const char *why)
{
	if (n)
		buf_printf(out, "  %" PRId64 " requests: %s\n", n, why);
}

static void replay_say_left_out(const struct replay *r, struct buf *out)
{
	int64_t unknown =
		r->total.by[REPLAY_UNKNOWN] + r->total.not_by_flags + r->no_task + r->not_configured;
	if (unknown)
		buf_puts(out, "\nNot re-decided:\n");
	for (int i = 0; i < REASON_COUNT; i++)
		if (r->reasons[i])
			buf_printf(out, "  %" PRId64 " requests: their side was not chosen by flags (%s)\n",
				   r->reasons[i], outcome_reason_text(i));
	replay_say_line(out, r->pseudonyms, "their user is recorded as a pseudonym");
	replay_say_line(out, r->cut, "their id was too long and was truncated");
	for (const struct replay_operation *op = r->operations; op; op = op->next)
		for (size_t i = 0; i < op->doubts.n; i++)
			if (op->doubts.list[i].identities)
				buf_printf(out,
					   "  %zu requests: the segment \"%s\" asks for \"%s\", which is not "
					   "recorded (%.*s.%.*s)\n",
					   op->doubts.list[i].identities, op->doubts.list[i].segment,
					   op->doubts.list[i].property, SPAN_ARG(op->doubts.op->service),
					   SPAN_ARG(op->doubts.op->name));
	replay_say_line(out, r->no_task, "of operations without a task or flags");
	replay_say_line(out, r->not_configured, "of operations that this configuration does not have");
}

typedef void (*replay_flag_fn)(void *arg, struct span flag, const char *why);

static void replay_each_missing(const struct replay *r, replay_flag_fn fn, void *arg)
{
	for (const struct replay_operation *op = r->operations; op; op = op->next)
		for (size_t i = 0; i < op->doubts.op->n_flags; i++) {
			struct span key = op->doubts.op->flags[i];
			const struct flag *f = flag_find(r->o.flags, key);
			bool before = false;
			for (const struct replay_operation *x = r->operations; x != op; x = x->next)
				for (size_t j = 0; j < x->doubts.op->n_flags; j++)
					before |= span_eq(x->doubts.op->flags[j], key);
			if (!before && (!f || flag_broken(f)))
				fn(arg, key, f ? flag_broken(f) : "it is not there");
		}
}

static void replay_say_missing(void *arg, struct span flag, const char *why)
{
	buf_printf(arg, "warning: the flag %.*s decides nothing by these flags: %s\n", SPAN_ARG(flag), why);
}

static void replay_say_span(const struct replay *r, struct buf *out)
{
	char text[CLOCK_TEXT_MAX];
	if (r->first_us && (!r->o.since_us || r->first_us > r->o.since_us)) {
		clock_format(r->first_us, text);
		buf_printf(out, "Identities are on record since %s%s.\n", text,
			   r->n_files > 1 ? ", in each of the files" : "");
	}
	if (r->truncated)
		buf_printf(out, "warning: only the first %d combinations of a file were looked at\n",
			   RECORDED_MAX);
}

int replay_to_text(const struct replay *r, struct buf *out)
{
	buf_printf(out, "Replay of %" PRId64 " recorded requests under %s: ", r->total.requests,
		   r->o.flags_name);
	replay_say_counts(&r->total, out);
	replay_say_span(r, out);
	replay_each_missing(r, replay_say_missing, out);
	if (r->operations)
		buf_putc(out, '\n');
	for (const struct replay_operation *op = r->operations; op; op = op->next) {
		buf_printf(out, "  %.*s.%.*s: ", SPAN_ARG(op->doubts.op->service),
			   SPAN_ARG(op->doubts.op->name));
		replay_say_counts(&op->counts, out);
	}
	if (r->n_organizations)
		replay_say_organizations(r, out);
	replay_say_left_out(r, out);
	return out->error;
}

/* --- for programs --------------------------------------------------------------------------------------- */

static void replay_put_by(struct buf *out, const char *name, const int64_t by[REPLAYED_COUNT])
{
	buf_printf(out,
		   "\"%s\":{\"to_task\":%" PRId64 ",\"to_legacy\":%" PRId64 ",\"to_another_backend\":%" PRId64
		   ",\"stay\":%" PRId64 ",\"unknown\":%" PRId64 "}",
		   name, by[REPLAY_TO_TASK], by[REPLAY_TO_LEGACY], by[REPLAY_ELSEWHERE], by[REPLAY_STAYS],
		   by[REPLAY_UNKNOWN]);
}

static void replay_put_counts(const struct replay_counts *c, struct buf *out)
{
	bool known = c->requests > c->by[REPLAY_UNKNOWN];
	buf_printf(out, "\"requests\":%" PRId64 ",\"identities\":%" PRId64 ",", c->requests,
		   c->all_identities);
	replay_put_by(out, "requests_that", c->by);
	buf_putc(out, ',');
	replay_put_by(out, "identities_that", c->identities);
	if (known)
		buf_printf(out, ",\"task_percent\":{\"was\":%.4f,\"would_be\":%.4f}",
			   replay_percent(c->was_task, c), replay_percent(c->would_task, c));
	else
		buf_puts(out, ",\"task_percent\":null");
	buf_printf(out, ",\"not_by_flags\":%" PRId64, c->not_by_flags);
}

static void replay_put_time(struct buf *out, const char *name, int64_t us)
{
	char text[CLOCK_TEXT_MAX];
	if (us)
		clock_format(us, text);
	buf_printf(out, us ? ",\"%s\":\"%s\"" : ",\"%s\":null", name, text);
}

struct replay_list {
	struct buf *out;
	bool any;
};

static void replay_put_missing(void *arg, struct span flag, const char *why)
{
	struct replay_list *l = arg;
	buf_puts(l->out, l->any ? ",{\"flag\":" : "{\"flag\":");
	json_quote(l->out, flag);
	buf_puts(l->out, ",\"why\":");
	json_quote(l->out, span_of(why));
	buf_putc(l->out, '}');
	l->any = true;
}

static void replay_put_left_out(const struct replay *r, struct buf *out)
{
	bool any = false;
	buf_puts(out, ",\"not_redecided\":{\"not_by_flags\":{");
	for (int i = 0; i < REASON_COUNT; i++)
		if (r->reasons[i]) {
			buf_printf(out, "%s\"%s\":%" PRId64, any ? "," : "", outcome_reason_text(i),
				   r->reasons[i]);
			any = true;
		}
	buf_printf(out,
		   "},\"pseudonym\":%" PRId64 ",\"truncated_id\":%" PRId64
		   ",\"segment_not_recorded\":%" PRId64 ",\"no_task\":%" PRId64 ",\"not_configured\":%" PRId64
		   "}",
		   r->pseudonyms, r->cut, r->by_segment, r->no_task, r->not_configured);
}

static void replay_put_operations(const struct replay *r, struct buf *out)
{
	buf_puts(out, ",\"operations\":[");
	for (const struct replay_operation *op = r->operations; op; op = op->next) {
		buf_puts(out, op == r->operations ? "{\"service\":" : ",{\"service\":");
		json_quote(out, op->doubts.op->service);
		buf_puts(out, ",\"operation\":");
		json_quote(out, op->doubts.op->name);
		buf_putc(out, ',');
		replay_put_counts(&op->counts, out);
		buf_putc(out, '}');
	}
	buf_puts(out, "],\"organizations\":[");
	size_t n =
		r->n_organizations < REPLAY_ORGANIZATIONS_MAX ? r->n_organizations : REPLAY_ORGANIZATIONS_MAX;
	for (size_t i = 0; i < n; i++) {
		buf_puts(out, i ? ",{\"organization\":" : "{\"organization\":");
		json_quote(out, span_of(r->organizations[i].name));
		buf_putc(out, ',');
		replay_put_counts(&r->organizations[i].counts, out);
		buf_putc(out, '}');
	}
	buf_printf(out, "],\"organizations_left_out\":%zu", r->n_organizations - n);
}

int replay_to_json(const struct replay *r, struct buf *out)
{
	struct replay_list missing = {.out = out};
	buf_printf(out, "{\"replay\":{\"version\":%d,\"flags\":", REPLAY_VERSION);
	json_quote(out, span_of(r->o.flags_name));
	buf_puts(out, ",\"digest\":");
	json_quote(out, span_of(flag_snapshot_digest(r->o.flags)));
	replay_put_time(out, "since", r->o.since_us);
	replay_put_time(out, "until", r->o.until_us);
	replay_put_time(out, "recorded_since", r->first_us);
	buf_printf(out, ",\"files\":%zu,\"truncated\":%s,", r->n_files, r->truncated ? "true" : "false");
	replay_put_counts(&r->total, out);
	replay_put_left_out(r, out);
	buf_puts(out, ",\"missing_flags\":[");
	replay_each_missing(r, replay_put_missing, &missing);
	buf_putc(out, ']');
	replay_put_operations(r, out);
	return buf_puts(out, "}}\n");
}
