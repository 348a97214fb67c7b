#include "move/propose.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/text.h"
#include "move/phase.h"
#include "router/set_share.h"

#define LINES_MAX 65536
#define DIGESTED_MAX (1u << 20)
#define DIGEST_VERSION "move 1"

/* --- the digest ----------------------------------------------------------------------------------------- */

static void put_shares(struct buf *b, const struct rollout_draft *d)
{
	buf_printf(b, "%.2f %.2f", d->from, d->to);
	if (d->of_segment)
		buf_printf(b, " %.2f %.2f", d->segment_from, d->segment_to);
	buf_putc(b, '\n');
}

/* Of every operation that asks the flag: all its flags, with the segments that they use. */
static void put_splits(struct buf *b, const struct rollout_place *p, const char *flag,
		       const struct flag_snapshot *now)
{
	struct flag_users u;
	const struct operation *op;
	flag_users_init(&u, p->config, flag);
	for (size_t i = 0; (op = flag_users_at(&u, i)); i++)
		buf_printf(b, "%.*s.%.*s %016" PRIx64 "\n", SPAN_ARG(op->service), SPAN_ARG(op->name),
			   decide_split(op, now));
}

static int proposal_digest(const struct rollout_place *p, const struct move_request *q,
			   const struct move_seen *seen, char ret[CRYPTO_SHA256_HEX], struct err *e)
{
	CLEANUP(buf_releasep) struct buf b = BUF_INIT(DIGESTED_MAX);
	/* Each on a line of its own, as JSON: no text can pass for two. */
	const char *const texts[] = {DIGEST_VERSION, q->command, q->flag, q->segment ? q->segment : "",
				     p->name};
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		json_quote(&b, span_of(texts[i]));
		buf_putc(&b, '\n');
	}
	buf_printf(&b, "%.4f %d %d\n", q->percent, q->segment != NULL, seen->blind);
	for (size_t i = 0; i < seen->plan->n; i++) {
		const struct rollout_change *c = &seen->plan->changes[i];
		buf_printf(&b, "%d %zu %zu %.6f %.6f ", (int)c->what, c->rule, c->share, c->from, c->to);
		json_quote(&b, span_of(c->variant));
		buf_putc(&b, '\n');
	}
	if (!seen->blind) {
		put_shares(&b, seen->draft);
		put_splits(&b, p, q->flag, seen->draft->now);
	}
	if (b.error)
		return err_set(e, b.error, "the change is too large to be shown");
	crypto_sha256_hex(buf_span(&b), ret);
	return 0;
}

/* --- what is shown -------------------------------------------------------------------------------------- */

struct proposing {
	const struct move_request *request;
	struct move_proposal *ret;
};

static void proposal_note(void *arg, const char *note)
{
	struct move_proposal *ret = arg;
	text_put_plain(&ret->notes, span_of(note));
	buf_putc(&ret->notes, '\n');
}

static void proposal_show_operations(const struct rollout_place *p, const char *flag,
				     const struct rollout_draft *d, struct move_proposal *ret)
{
	struct flag_users u;
	const struct operation *op;
	flag_users_init(&u, p->config, flag);
	for (size_t i = 0; (op = flag_users_at(&u, i)) && i < PROPOSAL_OPERATIONS_MAX; i++) {
		struct proposal_operation *o = &ret->operations[ret->n_operations++];
		struct set_share now, then;
		snprintf(o->name, sizeof(o->name), "%.*s.%.*s", SPAN_ARG(op->service), SPAN_ARG(op->name));
		o->flags = op->n_flags;
		set_share_of(p->config, op, d->now, &now);
		set_share_of(p->config, op, d->then, &then);
		o->from = 100 * now.task;
		o->to = 100 * then.task;
	}
}

static void proposal_show_judged(const struct rollout_place *p, const struct move_request *q,
				 const struct rollout_draft *d, struct move_proposal *ret)
{
	struct err e = {""};
	ret->of_segment = d->of_segment;
	ret->from = draft_from(d);
	ret->to = draft_to(d);
	draft_question(d, q, ret->question);
	draft_notes(d, q, proposal_note, ret);
	proposal_show_operations(p, q->flag, d, ret);
	ret->counted = census_of(p, q, d, PROPOSAL_NEWEST, &ret->census, &e) == 0;
	if (!ret->counted)
		snprintf(ret->census_trouble, sizeof(ret->census_trouble), "%s", e.text);
}

static int proposal_collect(void *arg, const struct rollout_place *p, const struct move_seen *seen,
			    struct err *e)
{
	struct proposing *x = arg;
	struct move_proposal *ret = x->ret;
	ret->nothing = seen->plan->n == 0;
	ret->blind = seen->blind;
	for (size_t i = 0; i < seen->plan->n; i++) {
		char text[256];
		draft_change_text(&seen->plan->changes[i], text);
		text_put_plain(&ret->changes, span_of(text));
		buf_putc(&ret->changes, '\n');
	}
	if (!seen->blind)
		proposal_show_judged(p, x->request, seen->draft, ret);
	return proposal_digest(p, x->request, seen, ret->digest, e);
}

/* --- both ----------------------------------------------------------------------------------------------- */

static int proposal_run(struct rollout_place *p, const struct move_request *q, struct move_done *done,
			struct err *e)
{
	char said[PHASE_WHY_MAX] = "";
	if (strcmp(q->command, "advance") == 0)
		return move_advance(p, q, clock_wall_us(), said, sizeof(said), done, e);
	return move_change(p, q, done, e);
}

int move_propose(struct rollout_place *p, const struct move_request *q, struct move_proposal *ret,
		 struct err *e)
{
	struct move_request dry = *q;
	struct proposing x = {&dry, ret};
	struct move_done done;
	*ret = (struct move_proposal){
		.percent = q->percent, .changes = BUF_INIT(LINES_MAX), .notes = BUF_INIT(LINES_MAX)};
	text_copy(span_of(q->command), ret->command, sizeof(ret->command));
	text_copy(span_of(q->flag), ret->flag, sizeof(ret->flag));
	text_copy(span_of(q->segment ? q->segment : ""), ret->segment, sizeof(ret->segment));
	text_copy(span_of(p->name), ret->place, sizeof(ret->place));
	dry.dry_run = true;
	dry.yes = true;
	dry.still = proposal_collect;
	dry.still_arg = &x;
	return proposal_run(p, &dry, &done, e);
}

void proposal_release(struct move_proposal *p)
{
	buf_release(&p->changes);
	buf_release(&p->notes);
}

struct applying {
	const struct move_request *request;
	const char *digest;
};

static int apply_still(void *arg, const struct rollout_place *p, const struct move_seen *seen, struct err *e)
{
	const struct applying *x = arg;
	char now[CRYPTO_SHA256_HEX];
	int r = proposal_digest(p, x->request, seen, now, e);
	if (r < 0)
		return r;
	return crypto_equal(span_of(now), span_of(x->digest))
		       ? 0
		       : err_set(e, -ESTALE,
				 "this is not what was shown: something has changed since; look again");
}

int move_apply(struct rollout_place *p, const struct move_request *q, const char *digest,
	       struct move_done *ret, struct err *e)
{
	struct move_request bound = *q;
	struct applying x = {&bound, digest};
	bound.yes = true;
	bound.still = apply_still;
	bound.still_arg = &x;
	return proposal_run(p, &bound, ret, e);
}

/* --- JSON ----------------------------------------------------------------------------------------------- */

static void put_text(struct buf *out, const char *name, const char *text)
{
	buf_printf(out, "\"%s\":", name);
	json_quote(out, span_of(text));
	buf_putc(out, ',');
}

static void put_lines(struct buf *out, const char *name, struct span lines)
{
	bool first = true;
	buf_printf(out, "\"%s\":[", name);
	while (lines.len) {
		const char *end = memchr(lines.ptr, '\n', lines.len);
		size_t n = end ? (size_t)(end - lines.ptr) : lines.len;
		buf_puts(out, first ? "" : ",");
		json_quote(out, (struct span){lines.ptr, n});
		first = false;
		n += end ? 1 : 0;
		lines = (struct span){lines.ptr + n, lines.len - n};
	}
	buf_puts(out, "],");
}

static void put_kind(struct buf *out, const char *name, const struct census_kind *k)
{
	buf_printf(out,
		   ",\"%s\":{\"known\":%zu,\"to_task\":%zu,\"to_legacy\":%zu,\"to_other_backend\":%zu,"
		   "\"unknown\":%zu,\"largest\":[",
		   name, k->known, k->to_task, k->to_legacy, k->elsewhere, k->unknown);
	for (size_t i = 0; i < k->n_largest; i++) {
		buf_puts(out, i ? ",{" : "{");
		put_text(out, "name", k->largest[i].name);
		buf_printf(out, "\"moved\":%" PRId64 ",\"requests\":%" PRId64 "}", k->largest[i].moved,
			   k->largest[i].requests);
	}
	buf_puts(out, "]}");
}

static void put_census(struct buf *out, const struct move_proposal *p)
{
	const struct census_sum *c = &p->census;
	if (!p->counted || c->nobody) {
		buf_puts(out, "\"recorded\":null");
		return;
	}
	buf_printf(out,
		   "\"recorded\":{\"requests\":%" PRId64 ",\"to_task\":%" PRId64 ",\"to_legacy\":%" PRId64
		   ",\"unknown\":%" PRId64 ",\"cut\":%s",
		   c->requests, c->to_task, c->to_legacy, c->unknown, c->cut ? "true" : "false");
	put_kind(out, "users", &c->users);
	put_kind(out, "organizations", &c->organizations);
	buf_putc(out, '}');
}

int proposal_to_json(const struct move_proposal *p, struct buf *out)
{
	buf_putc(out, '{');
	put_text(out, "digest", p->digest);
	put_text(out, "command", p->command);
	put_text(out, "flag", p->flag);
	put_text(out, "segment", p->segment);
	put_text(out, "place", p->place);
	put_text(out, "question", p->question);
	if (p->percent >= 0)
		buf_printf(out, "\"percent\":%.6g,", p->percent);
	if (!p->blind)
		buf_printf(out, "\"from\":%.6g,\"to\":%.6g,\"of_segment\":%s,", p->from, p->to,
			   p->of_segment ? "true" : "false");
	buf_printf(out, "\"nothing\":%s,\"blind\":%s,", p->nothing ? "true" : "false",
		   p->blind ? "true" : "false");
	put_lines(out, "changes", buf_span(&p->changes));
	put_lines(out, "notes", buf_span(&p->notes));
	buf_puts(out, "\"operations\":[");
	for (size_t i = 0; i < p->n_operations; i++) {
		buf_puts(out, i ? ",{" : "{");
		put_text(out, "operation", p->operations[i].name);
		buf_printf(out, "\"from\":%.6g,\"to\":%.6g,\"flags\":%zu}", p->operations[i].from,
			   p->operations[i].to, p->operations[i].flags);
	}
	buf_puts(out, "],");
	put_census(out, p);
	buf_putc(out, '}');
	return out->error;
}
