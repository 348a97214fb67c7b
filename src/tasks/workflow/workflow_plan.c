#include "tasks/workflow/workflow_plan.h"

#include <errno.h>
#include <stdlib.h>

#include "base/json.h"
#include "tasks/workflow/workflow_template.h"

#define PLAN_MAX_ERROR (1u << 20)
#define PLAN_MAX_KEY 1024 /* bytes of a key as JSON */

enum plan_task { PLAN_AHEAD, PLAN_OPEN, PLAN_COMPLETED, PLAN_NOT_COMPLETED };

struct plan_step {
	unsigned char *tasks; /* as enum plan_task, one for each item that there may be */
	unsigned max, n;      /* n: how many there are, once it is counted */
	unsigned completed;
	bool counted;
};

struct workflow_plan {
	const struct workflow_definition *w;
	struct plan_step steps[WORKFLOW_MAX_STEPS];
	unsigned char *tasks; /* of all steps */
	enum workflow_state state;
	enum workflow_end_kind how; /* when it has failed */
	struct buf error, detail;
	struct buf room; /* a for_each's results, for a template */
};

struct workflow_plan *workflow_plan_new(const struct workflow_definition *w)
{
	struct workflow_plan *p = calloc(1, sizeof(*p));
	unsigned char *at = p ? calloc(1, workflow_max_tasks(w) + 1) : NULL;
	if (!at) {
		free(p);
		return NULL;
	}
	p->w = w;
	p->tasks = at;
	p->error = BUF_INIT(PLAN_MAX_ERROR);
	p->detail = BUF_INIT(PLAN_MAX_ERROR);
	p->room = BUF_INIT(WORKFLOW_MAX_RESULT);
	for (size_t i = 0; i < w->n_steps; i++) {
		struct plan_step *s = &p->steps[i];
		s->tasks = at;
		s->max = w->steps[i].over ? w->steps[i].max_items : 1;
		s->n = s->max;
		s->counted = !w->steps[i].over;
		at += s->max;
	}
	return p;
}

struct workflow_plan *workflow_plan_free(struct workflow_plan *p)
{
	if (!p)
		return NULL;
	buf_release(&p->error);
	buf_release(&p->detail);
	buf_release(&p->room);
	free(p->tasks);
	free(p);
	return NULL;
}

enum workflow_state workflow_plan_state(const struct workflow_plan *p)
{
	return p->state;
}

struct workflow_failure workflow_plan_error(const struct workflow_plan *p)
{
	return (struct workflow_failure){.error = buf_span(&p->error),
					 .detail = p->detail.len ? buf_span(&p->detail) : SPAN_NONE,
					 .cancelled = p->how == WORKFLOW_END_CANCELLED,
					 .timed_out = p->how == WORKFLOW_END_TIMED_OUT};
}

bool workflow_plan_open(const struct workflow_plan *p, unsigned *step, unsigned *item)
{
	for (; *step < p->w->n_steps; (*step)++, *item = 0)
		for (; *item < p->steps[*step].max; (*item)++)
			if (p->steps[*step].tasks[*item] == PLAN_OPEN)
				return true;
	return false;
}

/* --- what has happened ---------------------------------------------------------------------------------- */

static bool plan_has(const struct workflow_plan *p, unsigned step, unsigned item)
{
	return step < p->w->n_steps && item < p->steps[step].max;
}

/* An error's text is cut at a limit rather than lost. */
static void plan_put_text(struct buf *out, struct span text)
{
	size_t room = out->max - out->len;
	buf_append(out, text.ptr, text.len < room ? text.len : room);
}

static void plan_fail(struct workflow_plan *p, enum workflow_end_kind how)
{
	p->state = WORKFLOW_FAILED;
	p->how = how;
}

static void plan_name_step(struct workflow_plan *p, unsigned step, const unsigned *item)
{
	buf_printf(&p->error, "step \"%.*s\"", SPAN_ARG(p->w->steps[step].name));
	if (item && p->w->steps[step].over)
		buf_printf(&p->error, ", item %u", *item);
	buf_puts(&p->error, ": ");
}

static struct span plan_kind_text(enum workflow_end_kind kind)
{
	if (kind == WORKFLOW_END_CANCELLED)
		return SPAN_LIT("cancelled");
	return kind == WORKFLOW_END_TIMED_OUT ? SPAN_LIT("timed out") : SPAN_LIT("failed");
}

int workflow_plan_begun(struct workflow_plan *p, unsigned step, unsigned item)
{
	if (!plan_has(p, step, item))
		return -EINVAL;
	if (p->steps[step].tasks[item] == PLAN_AHEAD)
		p->steps[step].tasks[item] = PLAN_OPEN;
	return 0;
}

int workflow_plan_ended(struct workflow_plan *p, const struct workflow_end *end)
{
	if (!plan_has(p, end->step, end->item))
		return -EINVAL;
	struct plan_step *s = &p->steps[end->step];
	unsigned char *task = &s->tasks[end->item];
	if (*task > PLAN_OPEN)
		return 0;
	*task = end->kind == WORKFLOW_END_COMPLETED ? PLAN_COMPLETED : PLAN_NOT_COMPLETED;
	if (*task == PLAN_COMPLETED) {
		s->completed++;
		return 0;
	}
	if (p->state != WORKFLOW_GOES_ON)
		return 0;
	plan_name_step(p, end->step, &end->item);
	plan_put_text(&p->error, end->error.len ? end->error : plan_kind_text(end->kind));
	plan_put_text(&p->detail, end->detail);
	plan_fail(p, end->kind);
	return 0;
}

void workflow_plan_stop(struct workflow_plan *p, enum workflow_end_kind kind, struct span error)
{
	if (p->state != WORKFLOW_GOES_ON)
		return;
	plan_put_text(&p->error, error.len ? error : plan_kind_text(kind));
	plan_fail(p, kind);
}

/* --- values --------------------------------------------------------------------------------------------- */

/* One call's way through the plan. */
struct plan_run {
	struct workflow_plan *plan;
	const struct workflow_source *source;
	workflow_begin_fn begin;
	void *arg;
	struct err *e;
};

static int plan_step_value(void *arg, const struct workflow_reference *r, struct span *ret, struct err *e);

static struct workflow_values plan_values(struct plan_run *run, struct span item)
{
	const struct workflow_source *s = run->source;
	return (struct workflow_values){.args = s->args.ptr ? s->args : SPAN_LIT("[]"),
					.kwargs = s->kwargs.ptr ? s->kwargs : SPAN_LIT("{}"),
					.item = item,
					.arg = run,
					.step = plan_step_value};
}

/* Whether an error is of the workflow's own values, which will be no better next time. */
static bool plan_is_final(int r)
{
	return r == -ENOENT || r == -EFBIG;
}

static int plan_source_result(struct plan_run *run, unsigned step, unsigned item, struct span *ret,
			      struct err *e)
{
	int r = run->source->result(run->source->arg, step, item, ret, e);
	return plan_is_final(r) ? -EIO : r;
}

/* The key of one item, a JSON string; spelled one way, so that equal ones are equal. */
static int plan_put_key(struct plan_run *run, unsigned step, struct span item, struct buf *out, struct err *e)
{
	CLEANUP(buf_releasep) struct buf given = BUF_INIT(PLAN_MAX_KEY), text = BUF_INIT(PLAN_MAX_KEY);
	struct workflow_values v = plan_values(run, item);
	int r = workflow_template_fill(span_of(run->plan->w->steps[step].key), &v, &given, e);
	if (r < 0)
		return r;
	if (json_type_of(buf_span(&given)) != JSON_STRING)
		return err_set(e, -ENOENT, "a key of for_each is no string");
	r = json_unescape(buf_span(&given), &text);
	return r < 0 ? r : json_quote(out, buf_span(&text));
}

static int plan_put_elements(struct plan_run *run, unsigned step, struct buf *out, struct err *e)
{
	struct workflow_values v = plan_values(run, SPAN_NONE);
	int r = workflow_template_fill(span_of(run->plan->w->steps[step].over), &v, out, e);
	if (r == 0 && json_type_of(buf_span(out)) != JSON_ARRAY)
		return err_set(e, -ENOENT, "what for_each goes over is no list");
	return r;
}

/* [result, …] or {key: result, …} of a for_each that has completed. */
static int plan_put_items(struct plan_run *run, unsigned step, struct buf *out, struct err *e)
{
	bool keyed = run->plan->w->steps[step].key != NULL;
	CLEANUP(buf_releasep)
	struct buf elements = BUF_INIT(WORKFLOW_MAX_INPUT), key = BUF_INIT(PLAN_MAX_KEY);
	struct json_iter it;
	struct span name, element, result;
	int r = keyed ? plan_put_elements(run, step, &elements, e) : 0;
	json_iter_init(&it, buf_span(&elements));
	buf_putc(out, keyed ? '{' : '[');
	for (unsigned i = 0; r == 0 && i < run->plan->steps[step].n; i++) {
		buf_puts(out, i ? "," : "");
		buf_clear(&key);
		if (keyed && json_iter_next(&it, &name, &element)) {
			r = plan_put_key(run, step, element, &key, e);
			buf_append_span(out, buf_span(&key));
			buf_putc(out, ':');
		}
		if (r == 0)
			r = plan_source_result(run, step, i, &result, e);
		if (r == 0)
			r = buf_append_span(out, result);
	}
	buf_putc(out, keyed ? '}' : ']');
	return r < 0 ? r : out->error;
}

/* What a step has given, in whole. */
static int plan_put_result(struct plan_run *run, unsigned step, struct buf *out, struct err *e)
{
	struct span result;
	if (run->plan->w->steps[step].over)
		return plan_put_items(run, step, out, e);
	int r = plan_source_result(run, step, 0, &result, e);
	return r < 0 ? r : buf_append_span(out, result);
}

static int plan_step_value(void *arg, const struct workflow_reference *ref, struct span *ret, struct err *e)
{
	struct plan_run *run = arg;
	struct workflow_plan *p = run->plan;
	unsigned step = 0;
	while (step < p->w->n_steps && !workflow_reference_is(ref, p->w->steps[step].name))
		step++;
	if (step == p->w->n_steps)
		return err_set(e, -ENOENT, "there is no step \"%.*s\"", SPAN_ARG(ref->step));
	if (!p->w->steps[step].over)
		return plan_source_result(run, step, 0, ret, e);
	buf_clear(&p->room);
	int r = plan_put_items(run, step, &p->room, e);
	*ret = buf_span(&p->room);
	return r;
}

/* --- a step's input ------------------------------------------------------------------------------------- */

/* Keys are equal however they are spelled ("a" is "\u0061"), or a caller could name one around us. */
static bool plan_has_key(struct span object, struct span key)
{
	struct json_iter it;
	struct span k, v;
	json_iter_init(&it, object);
	while (json_iter_next(&it, &k, &v))
		if (span_eq(k, key) || json_equal(k, key) == 1)
			return true;
	return false;
}

static void plan_put_members(struct span object, struct span but_not, struct buf *out)
{
	struct json_iter it;
	struct span key, value;
	json_iter_init(&it, object);
	while (json_iter_next(&it, &key, &value)) {
		if (but_not.ptr && plan_has_key(but_not, key))
			continue;
		buf_puts(out, out->len > 1 ? "," : "");
		buf_append_span(out, key);
		buf_putc(out, ':');
		buf_append_span(out, value);
	}
}

/* The step's own keyword arguments stand; the workflow's come beside them and cannot replace them. */
static int plan_put_kwargs(const struct workflow_values *v, const struct workflow_step *s, bool own,
			   struct buf *out, struct err *e)
{
	CLEANUP(buf_releasep) struct buf said = BUF_INIT(WORKFLOW_MAX_INPUT);
	int r = s->kwargs ? workflow_template_fill(span_of(s->kwargs), v, &said, e) : buf_puts(&said, "{}");
	if (r < 0)
		return r;
	buf_putc(out, '{');
	if (own)
		plan_put_members(v->kwargs, buf_span(&said), out);
	plan_put_members(buf_span(&said), SPAN_NONE, out);
	return buf_putc(out, '}');
}

static int plan_put_previous(struct plan_run *run, const struct workflow_step *s, struct buf *out,
			     struct err *e)
{
	bool several = (s->parents & (s->parents - 1)) != 0;
	const char *separator = "";
	int r = buf_puts(out, several ? "[[" : "[");
	for (unsigned i = 0; r == 0 && i < run->plan->w->n_steps; i++) {
		if (!(s->parents >> i & 1))
			continue;
		buf_puts(out, separator);
		separator = ",";
		r = plan_put_result(run, i, out, e);
	}
	buf_puts(out, several ? "]]" : "]");
	return r < 0 ? r : out->error;
}

static int plan_put_input(struct plan_run *run, const struct workflow_step *s, struct span item,
			  struct buf *args, struct buf *kwargs, struct err *e)
{
	struct workflow_values v = plan_values(run, item);
	bool own = s->input == STEP_INPUT_WORKFLOW || (s->input == STEP_INPUT_PREVIOUS && !s->parents);
	int r;
	if (own)
		r = buf_append_span(args, v.args);
	else if (s->input == STEP_INPUT_PREVIOUS)
		r = plan_put_previous(run, s, args, e);
	else if (s->input == STEP_INPUT_TEMPLATE)
		r = workflow_template_fill(span_of(s->args), &v, args, e);
	else
		r = buf_puts(args, "[]");
	if (r == 0)
		r = args->error;
	return r < 0 ? r : plan_put_kwargs(&v, s, own, kwargs, e);
}

/* --- what begins now ------------------------------------------------------------------------------------ */

static int plan_fail_at(struct plan_run *run, unsigned step, const unsigned *item, int r, const struct err *e)
{
	struct workflow_plan *p = run->plan;
	if (!plan_is_final(r))
		return err_set(run->e, r, "%s", e->text[0] ? e->text : "out of memory");
	plan_name_step(p, step, item);
	if (r == -EFBIG)
		buf_puts(&p->error, "the input of a step is too large");
	else
		buf_puts(&p->error, e->text);
	plan_fail(p, WORKFLOW_END_FAILED);
	return 0;
}

static int plan_begin(struct plan_run *run, unsigned step, unsigned item, struct span element)
{
	const struct workflow_step *s = &run->plan->w->steps[step];
	CLEANUP(buf_releasep)
	struct buf args = BUF_INIT(WORKFLOW_MAX_INPUT), kwargs = BUF_INIT(WORKFLOW_MAX_INPUT),
		   key = BUF_INIT(PLAN_MAX_KEY);
	struct err e = {""};
	int r = plan_put_input(run, s, element, &args, &kwargs, &e);
	if (r == 0 && s->key)
		r = plan_put_key(run, step, element, &key, &e);
	if (r < 0)
		return plan_fail_at(run, step, &item, r, &e);
	struct workflow_begin b = {.step = step,
				   .item = item,
				   .n_items = run->plan->steps[step].n,
				   .definition = s,
				   .key = s->key ? buf_span(&key) : SPAN_NONE,
				   .args = buf_span(&args),
				   .kwargs = buf_span(&kwargs)};
	r = run->begin(run->arg, &b);
	if (r == 0)
		run->plan->steps[step].tasks[item] = PLAN_OPEN;
	return r;
}

/* Two items of one key would be one member of the result. */
static int plan_check_keys(struct plan_run *run, unsigned step, struct span elements, struct err *e)
{
	CLEANUP(buf_releasep) struct buf keys = BUF_INIT(WORKFLOW_MAX_INPUT), key = BUF_INIT(PLAN_MAX_KEY);
	struct json_iter it;
	struct span name, element;
	int r = buf_putc(&keys, '{');
	json_iter_init(&it, elements);
	while (r == 0 && json_iter_next(&it, &name, &element)) {
		buf_clear(&key);
		r = plan_put_key(run, step, element, &key, e);
		if (r == 0 && plan_has_key(buf_span(&keys), buf_span(&key)))
			return err_set(e, -ENOENT, "two items have the key %.*s", SPAN_ARG(buf_span(&key)));
		buf_puts(&keys, keys.len > 1 ? "," : "");
		buf_append_span(&keys, buf_span(&key));
		buf_puts(&keys, ":0");
		if (r == 0 && keys.error == 0)
			r = buf_putc(&keys, '}');
		if (r == 0)
			keys.len--;
	}
	return r;
}

static int plan_count(struct plan_run *run, unsigned step, struct span elements, struct err *e)
{
	struct plan_step *s = &run->plan->steps[step];
	struct json_iter it;
	struct span key, element;
	unsigned n = 0;
	json_iter_init(&it, elements);
	while (json_iter_next(&it, &key, &element))
		n++;
	if (n > s->max)
		return err_set(e, -ENOENT, "for_each has %u items, the limit is %u", n, s->max);
	int r = run->plan->w->steps[step].key ? plan_check_keys(run, step, elements, e) : 0;
	if (r == 0) {
		s->n = n;
		s->counted = true;
	}
	return r;
}

static int plan_begin_items(struct plan_run *run, unsigned step)
{
	struct plan_step *s = &run->plan->steps[step];
	CLEANUP(buf_releasep) struct buf elements = BUF_INIT(WORKFLOW_MAX_INPUT);
	struct err e = {""};
	struct json_iter it;
	struct span key, element;
	int r = plan_put_elements(run, step, &elements, &e);
	if (r == 0 && !s->counted)
		r = plan_count(run, step, buf_span(&elements), &e);
	if (r < 0)
		return plan_fail_at(run, step, NULL, r, &e);
	json_iter_init(&it, buf_span(&elements));
	for (unsigned i = 0; r == 0 && i < s->n && json_iter_next(&it, &key, &element); i++)
		if (s->tasks[i] == PLAN_AHEAD && run->plan->state == WORKFLOW_GOES_ON)
			r = plan_begin(run, step, i, element);
	return r;
}

static bool plan_is_completed(const struct workflow_plan *p, unsigned step)
{
	return p->steps[step].counted && p->steps[step].completed >= p->steps[step].n;
}

/* Whether something of it may be ahead. */
static bool plan_is_due(const struct workflow_plan *p, unsigned step)
{
	const struct plan_step *s = &p->steps[step];
	if (!s->counted)
		return true;
	for (unsigned i = 0; i < s->n; i++)
		if (s->tasks[i] == PLAN_AHEAD)
			return true;
	return false;
}

static bool plan_may_begin(const struct workflow_plan *p, unsigned step)
{
	for (unsigned i = 0; i < p->w->n_steps; i++)
		if ((p->w->steps[step].parents >> i & 1) && !plan_is_completed(p, i))
			return false;
	return plan_is_due(p, step);
}

/* An empty for_each completes by being looked at, which lets others begin: until nothing changes. */
int workflow_plan_next(struct workflow_plan *p, const struct workflow_source *s, workflow_begin_fn begin,
		       void *arg, struct err *e)
{
	struct plan_run run = {.plan = p, .source = s, .begin = begin, .arg = arg, .e = e};
	bool moved = true;
	int r = 0;
	while (moved && r == 0 && p->state == WORKFLOW_GOES_ON) {
		moved = false;
		for (unsigned i = 0; r == 0 && i < p->w->n_steps && p->state == WORKFLOW_GOES_ON; i++) {
			if (!plan_may_begin(p, i))
				continue;
			moved = true;
			r = p->w->steps[i].over ? plan_begin_items(&run, i)
						: plan_begin(&run, i, 0, SPAN_NONE);
		}
	}
	bool all = r == 0 && p->state == WORKFLOW_GOES_ON;
	for (unsigned i = 0; all && i < p->w->n_steps; i++)
		all = plan_is_completed(p, i);
	if (all)
		p->state = WORKFLOW_COMPLETED;
	return r;
}

/* --- the whole's result --------------------------------------------------------------------------------- */

static int plan_put_steps(struct plan_run *run, struct buf *out, struct err *e)
{
	const char *separator = "{";
	int r = 0;
	for (unsigned i = 0; r == 0 && i < run->plan->w->n_steps; i++) {
		buf_puts(out, separator);
		separator = ",";
		json_quote(out, run->plan->w->steps[i].name);
		buf_putc(out, ':');
		r = plan_put_result(run, i, out, e);
	}
	return r < 0 ? r : buf_putc(out, '}');
}

int workflow_plan_result(struct workflow_plan *p, const struct workflow_source *s, struct buf *out,
			 struct err *e)
{
	struct plan_run run = {.plan = p, .source = s, .e = e};
	struct workflow_values v = plan_values(&run, SPAN_NONE);
	int r = p->w->result ? workflow_template_fill(span_of(p->w->result), &v, out, e)
			     : plan_put_steps(&run, out, e);
	if (r == 0)
		r = out->error;
	if (r == -ENOENT)
		return err_prefix(e, r, "the workflow's result");
	return r == -EFBIG ? err_set(e, r, "the results of the steps are larger together than the limit") : r;
}
