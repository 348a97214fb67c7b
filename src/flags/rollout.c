#include "flags/rollout.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/yaml.h"

struct rollout_document {
	char *text;
	size_t length;
	struct yaml_doc *doc;
	const struct yaml_node *flag;
	const struct yaml_node *segments; /* of a features file; NULL otherwise */
};

/* --- reading ------------------------------------------------------------------------------------------------------- */

static const struct yaml_node *find_flag(const struct yaml_node *root, const char *key)
{
	const struct yaml_node *flags = yaml_get(root, "flags");
	struct span text;
	if (!flags)
		return yaml_string(yaml_get(root, "key"), &text) && span_is(text, key) ? root : NULL;
	for (const struct yaml_node *n = flags->first; n; n = n->next)
		if (yaml_string(yaml_get(n, "key"), &text) && span_is(text, key))
			return n;
	return NULL;
}

int rollout_open(const char *name, struct span text, const char *flag, struct rollout_document **ret, struct err *e)
{
	struct rollout_document *d = calloc(1, sizeof(*d));
	if (!d || !(d->text = span_dup(text))) {
		free(d);
		return err_set(e, -ENOMEM, "out of memory");
	}
	d->length = text.len;
	int r = yaml_parse(name, (struct span){d->text, d->length}, &d->doc, e);
	if (r == 0) {
		const struct yaml_node *root = yaml_root(d->doc);
		d->flag = find_flag(root, flag);
		d->segments = yaml_get(root, "flags") ? yaml_get(root, "segments") : NULL;
		if (!d->flag)
			r = err_set(e, -ENOENT, "%s: there is no flag \"%s\"", name, flag);
	}
	if (r < 0) {
		rollout_close(d);
		return r;
	}
	*ret = d;
	return 0;
}

struct rollout_document *rollout_close(struct rollout_document *d)
{
	if (d) {
		yaml_free(d->doc);
		free(d->text);
		free(d);
	}
	return NULL;
}

static bool text_is(const struct yaml_node *n, const char *text)
{
	struct span s;
	return yaml_string(n, &s) && span_is(s, text);
}

static bool truth(const struct yaml_node *n)
{
	bool value = false;
	return yaml_bool(n, &value) && value;
}

static double number(const struct yaml_node *n)
{
	double value = 0;
	yaml_double(n, &value);
	return value;
}

bool rollout_is_boolean(const struct rollout_document *d)
{
	return text_is(yaml_get(d->flag, "type"), "BOOLEAN_FLAG_TYPE");
}

bool rollout_enabled(const struct rollout_document *d)
{
	return truth(yaml_get(d->flag, "enabled"));
}

/* The words that mean legacy (design, "Flags → side"). */
static bool means_legacy(struct span variant)
{
	static const char *const names[] = {"0", "off", "legacy", "disabled", "control", "false", "shadow", ""};
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (span_is(variant, names[i]))
			return true;
	return false;
}

static struct span variant_of(const struct yaml_node *distribution)
{
	struct span text;
	const struct yaml_node *n = yaml_get(distribution, "variant");
	return yaml_string(n ? n : yaml_get(distribution, "variantKey"), &text) ? text : SPAN_LIT("");
}

static const struct yaml_node *item(const struct yaml_node *list, size_t index)
{
	const struct yaml_node *n = list ? list->first : NULL;
	while (n && index--)
		n = n->next;
	return n;
}

/* --- whom a rule is about ------------------------------------------------------------------------------------------ */

struct audience {
	char names[256];
	bool everybody; /* every segment is without constraints */
	bool named;	/* the one that was looked for is among them */
};

/* Declared without constraints, or the undeclared "default". A snapshot carries the segment itself. */
static bool unconstrained(const struct rollout_document *d, const struct yaml_node *segment, struct span key)
{
	struct span text;
	if (segment->kind == YAML_MAPPING && yaml_get(segment, "constraints"))
		return yaml_get(segment, "constraints")->count == 0;
	if (!d->segments)
		return span_is(key, "default") || span_is(key, "everybody");
	for (const struct yaml_node *n = d->segments->first; n; n = n->next)
		if (yaml_string(yaml_get(n, "key"), &text) && span_eq(text, key)) {
			const struct yaml_node *c = yaml_get(n, "constraints");
			return !c || c->count == 0;
		}
	return span_is(key, "default");
}

static void add_segment(const struct rollout_document *d, const struct yaml_node *n, const char *wanted, struct audience *a)
{
	struct span key;
	if (!yaml_string(n && n->kind == YAML_MAPPING ? yaml_get(n, "key") : n, &key))
		return;
	size_t at = strlen(a->names);
	snprintf(a->names + at, sizeof(a->names) - at, "%s%.*s", at ? ", " : "", SPAN_ARG(key));
	a->everybody = a->everybody && unconstrained(d, n, key);
	a->named = a->named || (wanted && span_is(key, wanted));
}

static struct audience audience_of(const struct rollout_document *d, const struct yaml_node *holder, const char *wanted)
{
	struct audience a = {.everybody = true};
	const struct yaml_node *segment = yaml_get(holder, "segment");
	const struct yaml_node *from = segment && segment->kind == YAML_MAPPING ? segment : holder;
	static const char *const lists[] = {"segments", "keys", "segmentKeys"};
	if (segment && segment->kind == YAML_SCALAR)
		add_segment(d, segment, wanted, &a);
	else if (yaml_get(from, "key") && from == segment)
		add_segment(d, yaml_get(from, "key"), wanted, &a);
	else if (yaml_get(from, "segmentKey") && yaml_get(from, "segmentKey")->text.len)
		add_segment(d, yaml_get(from, "segmentKey"), wanted, &a);
	for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
		const struct yaml_node *list = yaml_get(from, lists[i]);
		for (const struct yaml_node *n = list ? list->first : NULL; n; n = n->next)
			add_segment(d, n, wanted, &a);
	}
	return a;
}

static double task_percent(const struct yaml_node *rule)
{
	const struct yaml_node *list = yaml_get(rule, "distributions");
	double task = 0, all = 0;
	for (const struct yaml_node *n = list ? list->first : NULL; n; n = n->next) {
		double share = number(yaml_get(n, "rollout"));
		all += share;
		task += means_legacy(variant_of(n)) ? 0 : share;
	}
	return all > 0 ? task * 100 / all : 0;
}

size_t rollout_lines(const struct rollout_document *d, struct rollout_line *lines, size_t max)
{
	bool boolean = rollout_is_boolean(d);
	const struct yaml_node *list = yaml_get(d->flag, boolean ? "rollouts" : "rules");
	size_t n = 0;
	for (const struct yaml_node *r = list ? list->first : NULL; r && n < max; r = r->next, n++) {
		struct audience a = audience_of(d, r, NULL);
		const struct yaml_node *threshold = yaml_get(r, "threshold");
		lines[n] = (struct rollout_line){.everybody = threshold || a.everybody};
		snprintf(lines[n].who, sizeof(lines[n].who), "%s", threshold ? "everybody" : a.names);
		if (threshold)
			lines[n].percent = truth(yaml_get(threshold, "value")) ? number(yaml_get(threshold, "percentage"))
									      : 100 - number(yaml_get(threshold, "percentage"));
		else if (boolean)
			lines[n].percent = truth(yaml_get(yaml_get(r, "segment"), "value")) ? 100 : 0;
		else
			lines[n].percent = task_percent(r);
	}
	return n;
}

static const struct yaml_node *holder_of(const struct rollout_document *d, const struct rollout_change *c)
{
	bool of_rule = c->what == ROLLOUT_SHARE;
	return item(yaml_get(d->flag, of_rule ? "rules" : "rollouts"), c->rule);
}

struct span rollout_member(const struct rollout_document *d, const struct rollout_change *c, bool of_share, const char *key)
{
	const struct yaml_node *n = holder_of(d, c);
	struct span text;
	if (of_share)
		n = item(yaml_get(n, "distributions"), c->share);
	return yaml_string(yaml_get(n, key), &text) ? text : SPAN_NONE;
}

/* --- planning ------------------------------------------------------------------------------------------------------ */

static int add_change(struct rollout_plan *p, struct rollout_change c, struct err *e)
{
	if (c.from == c.to)
		return 0;
	if (p->n == ROLLOUT_CHANGES_MAX)
		return err_set(e, -EINVAL, "more than %d values would change", ROLLOUT_CHANGES_MAX);
	p->changes[p->n++] = c;
	return 0;
}

static bool multiple_of(double value, double step)
{
	double n = value / step;
	return fabs(n - round(n)) < 1e-6;
}

/* The one task share and the one legacy share that make up the whole; the others must be 0. */
static int find_shares(const struct yaml_node *rule, struct rollout_change *task, struct rollout_change *legacy, struct err *e)
{
	const struct yaml_node *list = yaml_get(rule, "distributions");
	bool has_task = false, has_legacy = false;
	size_t i = 0;
	for (const struct yaml_node *n = list ? list->first : NULL; n; n = n->next, i++) {
		struct span variant = variant_of(n);
		bool is_legacy = means_legacy(variant);
		bool *has = is_legacy ? &has_legacy : &has_task;
		struct rollout_change *c = is_legacy ? legacy : task;
		double share = number(yaml_get(n, "rollout"));
		if (*has && share > 0 && c->from > 0)
			return err_set(e, -EINVAL, "the rule has several %s variants with a share: change it in Flipt or in the file",
				       is_legacy ? "legacy" : "task");
		if (*has && share <= 0)
			continue;
		*has = true;
		*c = (struct rollout_change){.what = ROLLOUT_SHARE, .share = i, .from = share, .grows_task = !is_legacy};
		span_copy(variant, c->variant, sizeof(c->variant));
	}
	if (!has_task || !has_legacy)
		return err_set(e, -EINVAL, "the rule distributes to no %s variant: add one with a share of 0 first",
			       has_task ? "legacy" : "task");
	if (fabs(task->from + legacy->from - 100) > 0.05)
		return err_set(e, -EINVAL, "the rule's shares make %g %%, not 100 %%", task->from + legacy->from);
	return 0;
}

static int set_variant(const struct rollout_document *d, const char *segment, double percent, struct rollout_plan *p,
		       struct err *e)
{
	const struct yaml_node *list = yaml_get(d->flag, "rules"), *found = NULL;
	size_t i = 0, at = 0;
	for (const struct yaml_node *r = list ? list->first : NULL; r; r = r->next, i++) {
		struct audience a = audience_of(d, r, segment);
		if (!found && (segment ? a.named : a.everybody)) {
			found = r;
			at = i;
		}
	}
	if (!found)
		return err_set(e, -EINVAL, segment ? "no rule is about the segment \"%s\"" :
						     "no rule is about everybody%s: name one of its segments with --segment",
			       segment ? segment : "");
	struct rollout_change task = {0}, legacy = {0};
	int r = find_shares(found, &task, &legacy, e);
	if (r < 0)
		return r;
	p->from = task.from;
	p->to = percent;
	task.rule = legacy.rule = at;
	task.to = percent;
	legacy.to = round((100 - percent) * 10) / 10;
	/* For servers that take one value at a time (v1: running sums, past the last limit no variant): what grows comes first,
	 * so that the shares never make less than the whole and nobody falls out in between. */
	const struct rollout_change *first = percent > task.from ? &task : &legacy;
	r = add_change(p, *first, e);
	return r < 0 ? r : add_change(p, first == &task ? legacy : task, e);
}

static int set_boolean(const struct rollout_document *d, const char *segment, double percent, struct rollout_plan *p,
		       struct err *e)
{
	const struct yaml_node *list = yaml_get(d->flag, "rollouts");
	size_t i = 0;
	for (const struct yaml_node *r = list ? list->first : NULL; r; r = r->next, i++) {
		const struct yaml_node *threshold = yaml_get(r, "threshold");
		struct rollout_change c = {.rule = i, .grows_task = true};
		if (segment && !threshold && audience_of(d, r, segment).named) {
			if (percent != 0 && percent != 100)
				return err_set(e, -EINVAL, "a segment of a boolean flag is on or off: 0 or 100");
			c.what = ROLLOUT_SEGMENT_VALUE;
			c.from = truth(yaml_get(yaml_get(r, "segment"), "value"));
			c.to = percent == 100;
			p->from = c.from * 100;
			p->to = percent;
			return add_change(p, c, e);
		}
		if (segment || !threshold)
			continue;
		if (!truth(yaml_get(threshold, "value")))
			return err_set(e, -EINVAL, "the threshold says false for its share: turn it round first");
		if (rollout_enabled(d) && percent < 100)
			return err_set(e, -EINVAL, "the flag is enabled, which means true for whom the threshold leaves out: "
				       "disable it first");
		c.what = ROLLOUT_THRESHOLD;
		c.from = number(yaml_get(threshold, "percentage"));
		c.to = percent;
		p->from = c.from;
		p->to = percent;
		return add_change(p, c, e);
	}
	if (segment)
		return err_set(e, -EINVAL, "no rollout is about the segment \"%s\"", segment);
	if (percent != 0 && percent != 100)
		return err_set(e, -EINVAL, "the flag has no threshold: add one of 0 %% first");
	return rollout_enable(d, percent == 100, p, e);
}

int rollout_set(const struct rollout_document *d, const char *segment, double percent, struct rollout_plan *ret, struct err *e)
{
	bool boolean = rollout_is_boolean(d);
	*ret = (struct rollout_plan){0};
	if (!(percent >= 0 && percent <= 100))
		return err_set(e, -EINVAL, "%g is no percentage from 0 to 100", percent);
	if (!multiple_of(percent, boolean ? 1 : 0.1))
		return err_set(e, -EINVAL, "%g %% is finer than Flipt acts on: %s flags have steps of %s %%", percent,
			       boolean ? "boolean" : "variant", boolean ? "1" : "0.1");
	return boolean ? set_boolean(d, segment, percent, ret, e) : set_variant(d, segment, percent, ret, e);
}

int rollout_enable(const struct rollout_document *d, bool enabled, struct rollout_plan *ret, struct err *e)
{
	*ret = (struct rollout_plan){.from = rollout_enabled(d) ? 100 : 0, .to = enabled ? 100 : 0};
	return add_change(ret, (struct rollout_change){.what = ROLLOUT_ENABLED, .from = rollout_enabled(d), .to = enabled,
							.grows_task = true}, e);
}

int rollout_back(const struct rollout_document *d, struct rollout_plan *ret, struct err *e)
{
	int r = rollout_enable(d, false, ret, e);
	if (r < 0 || !rollout_is_boolean(d))
		return r; /* a disabled variant flag is legacy whatever its rules say */
	/* A disabled boolean flag still runs its rollouts (flipt.md). */
	const struct yaml_node *list = yaml_get(d->flag, "rollouts");
	size_t i = 0;
	for (const struct yaml_node *n = list ? list->first : NULL; n && r == 0; n = n->next, i++) {
		const struct yaml_node *threshold = yaml_get(n, "threshold");
		struct rollout_change c = {.rule = i, .grows_task = true};
		if (threshold && truth(yaml_get(threshold, "value"))) {
			c.what = ROLLOUT_THRESHOLD;
			c.from = number(yaml_get(threshold, "percentage"));
		} else if (!threshold) {
			c.what = ROLLOUT_SEGMENT_VALUE;
			c.from = truth(yaml_get(yaml_get(n, "segment"), "value"));
		}
		r = add_change(ret, c, e);
	}
	return r;
}

/* --- writing ------------------------------------------------------------------------------------------------------- */

static const struct yaml_node *value_of(const struct rollout_document *d, const struct rollout_change *c)
{
	const struct yaml_node *holder = holder_of(d, c);
	switch (c->what) {
	case ROLLOUT_ENABLED:
		return yaml_get(d->flag, "enabled");
	case ROLLOUT_SHARE:
		return yaml_get(item(yaml_get(holder, "distributions"), c->share), "rollout");
	case ROLLOUT_THRESHOLD:
		return yaml_get(yaml_get(holder, "threshold"), "percentage");
	case ROLLOUT_SEGMENT_VALUE:
		return yaml_get(yaml_get(holder, "segment"), "value");
	}
	return NULL;
}

struct splice {
	size_t start, end;
	char text[32];
};

static int compare_splices(const void *a, const void *b)
{
	size_t x = ((const struct splice *)a)->start, y = ((const struct splice *)b)->start;
	return (x > y) - (x < y);
}

int rollout_apply(const struct rollout_document *d, const struct rollout_plan *plan, struct buf *out, struct err *e)
{
	struct splice splices[ROLLOUT_CHANGES_MAX];
	for (size_t i = 0; i < plan->n; i++) {
		const struct rollout_change *c = &plan->changes[i];
		const struct yaml_node *n = value_of(d, c);
		bool flag = c->what == ROLLOUT_ENABLED || c->what == ROLLOUT_SEGMENT_VALUE;
		if (!n || n->kind != YAML_SCALAR || d->text[n->start] == '*' || d->text[n->start] == '&')
			return err_set(e, -EINVAL, "%s: the value to change is not written there: write it out first",
				       yaml_name(d->doc));
		splices[i] = (struct splice){.start = n->start, .end = n->end};
		if (flag)
			snprintf(splices[i].text, sizeof(splices[i].text), "%s", c->to > 0 ? "true" : "false");
		else
			snprintf(splices[i].text, sizeof(splices[i].text), "%.6g", c->to);
	}
	qsort(splices, plan->n, sizeof(splices[0]), compare_splices);
	size_t at = 0;
	for (size_t i = 0; i < plan->n; i++) {
		buf_append(out, d->text + at, splices[i].start - at);
		buf_puts(out, splices[i].text);
		at = splices[i].end;
	}
	buf_append(out, d->text + at, d->length - at);
	return out->error ? err_set(e, out->error, "the document is too large") : 0;
}
