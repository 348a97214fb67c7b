#include "move/setback.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/text.h"
#include "move/draft.h"
#include "move/population.h"

#define EVIDENCE_MAX 32768

struct setting_back {
	const struct setback *wanted;
	const struct operation *op;
	bool moot;
};

static bool is_same_split(const struct setting_back *x, const struct flag_snapshot *s)
{
	return decide_split(x->op, s) == x->wanted->split;
}

/* --- which flag ----------------------------------------------------------------------------------------- */

static size_t count_users(const struct config *c, const char *flag)
{
	struct flag_users u;
	size_t n = 0;
	flag_users_init(&u, c, flag);
	while (flag_users_at(&u, n))
		n++;
	return n;
}

/* That decides by a percentage, before others; of those the one that the fewest operations ask, the last of
 * several. */
static bool choose_flag(const struct rollout_place *p, const struct operation *op,
			const struct flag_snapshot *s, char ret[128], double *ret_share)
{
	bool best_splits = false;
	size_t best_users = 0;
	ret[0] = '\0';
	for (size_t i = 0; i < op->n_flags; i++) {
		struct flag_users u;
		char key[128];
		const struct flag *f = flag_find(s, op->flags[i]);
		if (!f || flag_broken(f))
			continue;
		span_copy(op->flags[i], key, sizeof(key));
		flag_users_init(&u, p->config, key);
		struct decide_input like = flag_users_like(&u, op, s);
		double share = population_share_of_flag(&like, op->flags[i]);
		bool splits = share > 0 && share < 100;
		size_t users = count_users(p->config, key);
		if (ret[0] && (splits < best_splits || (splits == best_splits && users > best_users)))
			continue;
		memcpy(ret, key, sizeof(key));
		*ret_share = share;
		best_splits = splits;
		best_users = users;
	}
	return ret[0];
}

/* Whether someone of a segment is on the task side, whom a percentage for everybody would leave there. */
static bool has_segments(const struct rollout_place *p, const char *flag)
{
	CLEANUP(rollout_closep) struct rollout_document *d = NULL;
	struct flag_users u;
	flag_users_init(&u, p->config, flag);
	if (place_open_flag(p, flag, &u.sides, &d, NULL) < 0)
		return false;
	for (size_t i = 0; i < rollout_count(d); i++) {
		struct rollout_line line;
		rollout_line(d, i, &line);
		if (!line.everybody && line.percent > 0)
			return true;
	}
	return false;
}

/* The flag's percentage of which the share that was safe is left, in the flag's own steps; 0: none. */
static double kept_percent(const struct rollout_place *p, const struct setting_back *x,
			   const struct flag_snapshot *s, const char *flag, double share)
{
	struct flag_users u;
	flag_users_init(&u, p->config, flag);
	struct decide_input like = flag_users_like(&u, x->op, s);
	double now = population_share(&like) / 100, keeps = x->wanted->keeps;
	double step = flag_type_of(flag_find(s, span_of(flag))) == FLAG_BOOLEAN ? 1 : 0.1;
	if (keeps <= 0 || now <= 0 || keeps >= now)
		return 0;
	return floor(share * keeps / now / step + 1e-6) * step;
}

/* --- the note ------------------------------------------------------------------------------------------- */

static void put_note(const struct rollout_place *p, const struct setback *s, const char *flag,
		     char ret[MOVE_MESSAGE_MAX + 1])
{
	CLEANUP(buf_releasep) struct buf b = BUF_INIT(65536);
	struct flag_users u;
	const struct operation *op;
	bool any = false;
	buf_printf(&b, "breach of %s.%s: %s", s->service, s->operation, s->why);
	flag_users_init(&u, p->config, flag);
	for (size_t i = 0; (op = flag_users_at(&u, i)); i++) {
		if (span_is(op->service, s->service) && span_is(op->name, s->operation))
			continue;
		buf_printf(&b, "%s%.*s.%.*s", any ? ", " : "; sets back as well: ", SPAN_ARG(op->service),
			   SPAN_ARG(op->name));
		any = true;
	}
	text_copy(buf_span(&b), ret, MOVE_MESSAGE_MAX + 1);
}

static void put_evidence(const struct setback *s, struct buf *json)
{
	const struct {
		const char *name, *text;
	} members[] = {{"service", s->service},
		       {"operation", s->operation},
		       {"judge", "guard"},
		       {"verdict", "breach"},
		       {"why", s->why}};
	buf_puts(json, "{\"operations\":[");
	for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++) {
		buf_printf(json, "%c\"%s\":", i ? ',' : '{', members[i].name);
		json_quote(json, span_of(members[i].text));
	}
	buf_puts(json, "}]");
	if (s->evidence.len)
		buf_printf(json, ",\"guard\":%.*s", SPAN_ARG(s->evidence));
	buf_putc(json, '}');
}

/* --- writing -------------------------------------------------------------------------------------------- */

/* Each time that the place was read, right before it is written. */
static int setback_still(void *arg, const struct rollout_place *p, const struct move_seen *seen,
			 struct err *e)
{
	struct setting_back *x = arg;
	(void)p;
	if (seen->blind)
		return err_set(e, -EBADMSG,
			       "what the flags say cannot be evaluated right now; the hold stays");
	x->moot = !is_same_split(x, seen->draft->now);
	return x->moot ? err_set(e, -ESTALE, "the flags were changed by someone else in the meantime") : 0;
}

static int setback_write(struct rollout_place *p, struct setting_back *x, struct move_request *q,
			 struct setback_done *ret, struct err *e)
{
	struct move_done done;
	int r = move_change(p, q, &done, e);
	if (r == -EINVAL && strcmp(q->command, "set") == 0) { /* its rules take no such percentage */
		q->command = "rollback";
		q->percent = -1;
		r = move_change(p, q, &done, e);
	}
	text_copy(span_of(q->command), ret->command, sizeof(ret->command));
	ret->percent = q->percent;
	ret->unrecorded = done.unrecorded;
	if (x->moot)
		return SETBACK_MOOT;
	if (r < 0)
		return r;
	if (r == MOVE_DONE && !done.written)
		return SETBACK_MOOT; /* nothing to change */
	return r == MOVE_DONE ? SETBACK_MADE : SETBACK_NOT_AS_ASKED;
}

static int setback_choose(struct rollout_place *p, struct setting_back *x, struct setback_done *ret,
			  struct err *e)
{
	struct flag_snapshot *s = NULL;
	double share = 0;
	int r = place_read(p, e);
	if (r == 0)
		r = place_parse(p, buf_span(&p->flags), &s, e);
	if (r < 0)
		return r;
	x->moot = !is_same_split(x, s);
	if (!x->moot && !choose_flag(p, x->op, s, ret->flag, &share))
		r = err_set(e, -ENOENT, "no flag of %s.%s can be changed", x->wanted->service,
			    x->wanted->operation);
	if (!x->moot && r == 0)
		ret->percent = kept_percent(p, x, s, ret->flag, share);
	flag_snapshot_unref(s);
	return r;
}

int move_set_back(struct rollout_place *p, const struct setback *s, struct setback_done *ret, struct err *e)
{
	CLEANUP(buf_releasep) struct buf evidence = BUF_INIT(EVIDENCE_MAX);
	struct setting_back x = {.wanted = s};
	const struct service *service = config_service(p->config, span_of(s->service));
	*ret = (struct setback_done){.percent = -1};
	x.op = service ? service_operation(service, span_of(s->operation)) : NULL;
	if (!x.op)
		return SETBACK_MOOT;
	int r = setback_choose(p, &x, ret, e);
	if (r < 0)
		return r;
	if (x.moot)
		return SETBACK_MOOT;
	put_note(p, s, ret->flag, ret->message);
	put_evidence(s, &evidence);
	bool all = ret->percent <= 0 && has_segments(p, ret->flag);
	struct move_request q = {.command = all ? "rollback" : "set",
				 .flag = ret->flag,
				 .percent = all ? -1 : ret->percent,
				 .yes = true,
				 .who = "guard",
				 .message = ret->message,
				 .evidence = evidence.error ? SPAN_NONE : buf_span(&evidence),
				 .still = setback_still,
				 .still_arg = &x};
	return setback_write(p, &x, &q, ret, e);
}
