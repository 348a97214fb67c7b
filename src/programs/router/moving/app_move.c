#include "programs/router/moving/app_move.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/log.h"
#include "base/text.h"
#include "move/propose.h"
#include "operation/route.h"
#include "page/page_move.h"
#include "programs/router/app_guard.h"
#include "programs/router/app_internal.h"
#include "programs/router/app_standing.h"

#define ANSWER_MAX (1u << 20)
#define NAME_MAX_BYTES 127

/* What someone asks for; freed when it is answered. */
struct asked_move {
	struct mover_job job; /* first: the callbacks get its address */
	struct app *app;
	struct admin_change *change;
	bool apply;
	struct buf command, flag, segment, percent, message, digest;
	struct move_request request;
	struct move_proposal proposal;
	struct move_done done;
};

static void asked_move_free(struct asked_move *m)
{
	struct buf *const all[] = {&m->command, &m->flag,   &m->segment, &m->percent,
				   &m->message, &m->digest, &m->job.said};
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		buf_release(all[i]);
	proposal_release(&m->proposal);
	config_unref(m->job.config);
	free(m);
}

/* --- what is asked for ---------------------------------------------------------------------------------- */

static int move_refuse(struct err *e, const char *sentence)
{
	return err_set(e, -EINVAL, "%s", sentence);
}

/* Digits, perhaps a point and more of them. */
static bool parse_percent(const char *text, double *ret)
{
	size_t whole = strspn(text, "0123456789"), fraction = 0;
	if (text[whole] == '.')
		fraction = 1 + strspn(text + whole + 1, "0123456789");
	if (!whole || whole > 3 || fraction == 1 || fraction > 7 || text[whole + fraction])
		return false;
	*ret = strtod(text, NULL);
	return *ret <= 100;
}

static int read_values(struct asked_move *m, struct err *e)
{
	static const char *const names[] = {"command", "flag",	 "segment", "percent",
					    "message", "digest", "form"};
	const struct {
		const char *name;
		struct buf *to;
		size_t max;
	} values[] = {{"command", &m->command, 16},
		      {"flag", &m->flag, NAME_MAX_BYTES},
		      {"segment", &m->segment, NAME_MAX_BYTES},
		      {"percent", &m->percent, 16},
		      {"message", &m->message, MOVE_MESSAGE_MAX},
		      {"digest", &m->digest, CRYPTO_SHA256_HEX - 1}};
	int r = route_query_check(m->change->target, NULL, 0, e); /* all of it is in the body */
	if (r == 0)
		r = admin_change_check(m->change, names, sizeof(names) / sizeof(names[0]), e);
	for (size_t i = 0; r == 0 && i < sizeof(values) / sizeof(values[0]); i++) {
		*values[i].to = BUF_INIT(values[i].max);
		admin_change_value(m->change, values[i].name, values[i].to);
		if (values[i].to->error)
			r = err_set(e, -EINVAL, "%s: at most %zu bytes", values[i].name, values[i].max);
		else if (!text_is_plain(buf_span(values[i].to)))
			r = err_set(e, -EINVAL, "%s: has control characters or is not UTF-8", values[i].name);
	}
	return r;
}

static const char *text_of(const struct buf *b)
{
	return b->len ? b->ptr : NULL;
}

static int check_values(struct asked_move *m, struct err *e)
{
	static const char *const commands[] = {"set", "enable", "disable", "rollback", "advance"};
	struct move_request *q = &m->request;
	const char *command = text_of(&m->command), *percent = text_of(&m->percent);
	size_t i = 0;
	*q = (struct move_request){.flag = text_of(&m->flag),
				   .segment = text_of(&m->segment),
				   .percent = -1,
				   .who = m->change->caller.name,
				   .message = text_of(&m->message),
				   .config = m->job.config->path};
	while (command && i < 5 && strcmp(command, commands[i]) != 0)
		i++;
	if (!command || i == 5)
		return move_refuse(e, "command: expected set, enable, disable, rollback or advance");
	q->command = commands[i];
	if (!q->flag)
		return move_refuse(e, "flag: name one");
	if (i == 0 && (!percent || !parse_percent(percent, &q->percent)))
		return move_refuse(e, "percent: expected a percentage from 0 to 100");
	if (i != 0 && (percent || q->segment))
		return move_refuse(e, "percent and segment are for set alone");
	if (m->apply && !q->message)
		return move_refuse(e, "message: say why, for the history");
	if (m->apply && m->digest.len != CRYPTO_SHA256_HEX - 1)
		return move_refuse(e, "digest: the plan's, as it was shown");
	if (!m->apply && (q->message || m->digest.len))
		return move_refuse(e, "message and digest are for apply, not for a plan");
	return 0;
}

/* --- answering ------------------------------------------------------------------------------------------ */

static int status_of(int result)
{
	switch (result) {
	case MOVE_DONE:
		return 200;
	case MOVE_NOT_YET:
	case MOVE_BREACH:
	case -ESTALE:
	case -EALREADY:
	case -EBUSY:
		return 409;
	case -ENOENT:
		return 404;
	case -EINVAL:
		return 422;
	case MOVE_NOT_AS_ASKED:
		return 500;
	default:
		return 503;
	}
}

static const char *word_of(int result)
{
	switch (result) {
	case MOVE_DONE:
		return "done";
	case MOVE_NOT_YET:
		return "not_yet";
	case MOVE_BREACH:
		return "breach";
	case MOVE_NOT_AS_ASKED:
		return "not_as_asked";
	case -ESTALE:
		return "changed_meanwhile";
	default:
		return "refused";
	}
}

static void answer_json(struct asked_move *m, int status)
{
	CLEANUP(buf_releasep) struct buf out = BUF_INIT(ANSWER_MAX);
	int r = m->job.result;
	buf_printf(&out, "{\"result\":\"%s\",\"error\":", m->apply || r != 0 ? word_of(r) : "planned");
	json_quote(&out, span_of(r < 0 ? m->job.err.text : ""));
	if (!m->apply && r == 0) {
		buf_puts(&out, ",\"plan\":");
		proposal_to_json(&m->proposal, &out);
	}
	buf_puts(&out, ",\"said\":");
	json_quote(&out, buf_span(&m->job.said));
	buf_puts(&out, "}\n");
	admin_change_answer(m->change, status, "application/json", &out);
}

static void show_plan(const struct asked_move *m, const struct page_move_reader *reader, struct buf *out)
{
	const struct move_proposal *p = &m->proposal;
	struct page_move_operation operations[PROPOSAL_OPERATIONS_MAX];
	struct page_move_plan plan = {.command = p->command,
				      .flag = p->flag,
				      .segment = p->segment,
				      .place = p->place,
				      .percent = p->percent,
				      .from = p->from,
				      .to = p->to,
				      .nothing = p->nothing,
				      .known = !p->blind,
				      .digest = p->digest,
				      .question = p->question,
				      .changes = buf_span(&p->changes),
				      .notes = buf_span(&p->notes),
				      .said = buf_span(&m->job.said),
				      .operations = operations,
				      .n_operations = p->n_operations};
	for (size_t i = 0; i < p->n_operations; i++)
		operations[i] = (struct page_move_operation){p->operations[i].name, p->operations[i].from,
							     p->operations[i].to};
	const struct census_kind *kinds[] = {&p->census.users, &p->census.organizations};
	for (size_t i = 0; i < 2; i++) {
		struct page_move_who *who = &plan.who[i];
		*who = (struct page_move_who){.known = kinds[i]->known,
					      .to_task = kinds[i]->to_task,
					      .to_legacy = kinds[i]->to_legacy,
					      .unknown = kinds[i]->unknown};
		for (size_t j = 0; j < kinds[i]->n_largest; j++)
			who->largest[who->n_largest++] = kinds[i]->largest[j].name;
	}
	plan.counted = p->counted && !p->blind;
	plan.trouble = p->census_trouble;
	page_move_plan(reader, &plan, out);
}

static void answer_page(struct asked_move *m, int status)
{
	CLEANUP(buf_releasep) struct buf out = BUF_INIT(ANSWER_MAX);
	const struct door_caller *c = &m->change->caller;
	const struct page_move_reader reader = {
		.may_write = true, .session = c->session, .who = c->name, .form = c->form};
	int r = m->job.result;
	if (!m->apply && r == 0) {
		show_plan(m, &reader, &out);
	} else {
		const struct page_move_result result = {.flag = text_of(&m->flag),
							.result = word_of(r),
							.done = r == 0,
							.changed = m->apply && r >= 0 && r != MOVE_NOT_YET &&
								   r != MOVE_BREACH,
							.error = r < 0 ? m->job.err.text : "",
							.said = buf_span(&m->job.said)};
		page_move_result(&reader, &result, &out);
	}
	admin_change_answer(m->change, status, "text/html; charset=utf-8", &out);
}

static void answer_move(struct asked_move *m, int status)
{
	if (m->change->page)
		answer_page(m, status);
	else
		answer_json(m, status);
}

/* --- doing it ------------------------------------------------------------------------------------------- */

static int run_move(struct mover_job *job, struct rollout_place *p, struct err *e)
{
	struct asked_move *m = (struct asked_move *)job;
	if (!m->apply)
		return move_propose(p, &m->request, &m->proposal, e);
	int r = move_apply(p, &m->request, m->digest.ptr, &m->done, e);
	return r == 0 && m->done.unrecorded ? MOVE_NOT_AS_ASKED : r;
}

static void put_what(const struct move_request *q, int result, const char *why, char out[160])
{
	char wish[128];
	if (q->percent >= 0)
		snprintf(wish, sizeof(wish), "%s %.60s to %g %%%s%.40s", q->command, q->flag, q->percent,
			 q->segment ? " for " : "", q->segment ? q->segment : "");
	else
		snprintf(wish, sizeof(wish), "%s %.60s", q->command, q->flag);
	if (result == MOVE_DONE)
		snprintf(out, 160, "%s", wish);
	else
		snprintf(out, 160, "%s: %s%s%s", wish, word_of(result), *why ? ": " : "", why);
}

void app_move_tell(struct app *a, const struct move_request *q, int result, const char *why)
{
	struct event event = {.kind = EVENT_MOVE, .before = EVENT_NO_PERCENT, .after = EVENT_NO_PERCENT};
	const struct log_field fields[] = {LOG_STR("flag", q->flag),
					   LOG_STR("command", q->command),
					   LOG_STR("who", q->who),
					   LOG_STR("result", word_of(result)),
					   LOG_STR("why", q->message ? q->message : ""),
					   LOG_STR("error", why)};
	enum log_level level = result == MOVE_DONE ? LOG_INFO : LOG_WARN;
	if (log_enabled(level))
		log_write(level, "moved", fields, sizeof(fields) / sizeof(fields[0]));
	put_what(q, result, why, event.what);
	text_copy(span_of(q->who), event.who, sizeof(event.who));
	text_copy(span_of(q->message ? q->message : ""), event.why, sizeof(event.why));
	if (app_standing_events(a))
		events_add(app_standing_events(a), &event);
}

static void move_done(struct mover_job *job)
{
	struct asked_move *m = (struct asked_move *)job;
	if (m->apply)
		app_move_tell(m->app, &m->request, job->result, job->result < 0 ? job->err.text : "");
	answer_move(m, status_of(job->result));
	asked_move_free(m);
}

static void start_move(struct app *a, struct admin_change *c, bool apply)
{
	struct asked_move *m = calloc(1, sizeof(*m));
	if (!m) {
		admin_change_fail(c, 503, "Out of memory", "");
		return;
	}
	m->app = a;
	m->change = c;
	m->apply = apply;
	m->job.config = config_ref(a->config);
	m->job.run = run_move;
	m->job.done = move_done;
	int r = read_values(m, &m->job.err), status = 400;
	if (r == 0)
		r = check_values(m, &m->job.err);
	if (r == 0) {
		m->job.flag = apply ? m->request.flag : NULL;
		r = a->mover ? mover_add(a->mover, MOVER_PEOPLE, &m->job) : -ECANCELED;
		status = 503;
		if (r < 0)
			err_set(&m->job.err, r,
				r == -EBUSY ? "too many changes are waiting: try again in a moment"
					    : "this router is ending");
	}
	if (r == 0)
		return;
	m->job.result = r;
	answer_move(m, status);
	asked_move_free(m);
}

/* --- ending a hold -------------------------------------------------------------------------------------- */

static void answer_release(struct app *a, struct admin_change *c)
{
	CLEANUP(buf_releasep) struct buf json = BUF_INIT(ANSWER_MAX), out = BUF_INIT(ANSWER_MAX);
	struct err e = {""};
	int status = app_guard_release(a, c, &json, &e);
	if (!c->page && (json.len || json.error)) {
		admin_change_answer(c, status, "application/json", &json);
		return;
	}
	if (!c->page) {
		admin_change_fail(c, status, "The guard cannot say", e.text);
		return;
	}
	const struct page_move_reader reader = {.may_write = true,
						.session = c->caller.session,
						.who = c->caller.name,
						.form = c->caller.form};
	const struct page_move_result result = {.flag = "the guard's hold",
						.result = status == 202 ? "done" : "refused",
						.done = status == 202,
						.changed = status == 202,
						.error = e.text,
						.said = SPAN_LIT("")};
	page_move_result(&reader, &result, &out);
	admin_change_answer(c, status == 202 ? 200 : status, "text/html; charset=utf-8", &out);
}

void app_move_change(void *arg, struct admin_change *c)
{
	if (span_is(c->path, "/_admin/guard/release"))
		answer_release(arg, c);
	else
		start_move(arg, c, span_is(c->path, "/_admin/move/apply"));
}

/* --- life ----------------------------------------------------------------------------------------------- */

int app_move_start(struct app *a, struct err *e)
{
	return mover_start(a->loop, &a->mover, e);
}

void app_move_stop(struct app *a)
{
	a->mover = mover_stop(a->mover);
}
