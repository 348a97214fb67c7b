/*
 * Changes as bytes: the values are replaced in place, and the result is compared with what was there.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "rollout/rollout_document.h"

static const struct yaml_node *rollout_apply_value_of(const struct rollout_document *d,
						      const struct rollout_change *c)
{
	const struct yaml_node *rule = rollout_item(yaml_get(d->flag, "rules"), c->rule);
	const struct yaml_node *rollout = rollout_item(yaml_get(d->flag, "rollouts"), c->rule);
	switch (c->what) {
	case ROLLOUT_ENABLED:
		return yaml_get(d->flag, "enabled");
	case ROLLOUT_SHARE:
		return yaml_get(rollout_item(yaml_get(rule, "distributions"), c->share), "rollout");
	case ROLLOUT_THRESHOLD:
		return yaml_get(yaml_get(rollout, "threshold"), "percentage");
	case ROLLOUT_SEGMENT_VALUE:
		return yaml_get(yaml_get(rollout, "segment"), "value");
	}
	return NULL;
}

static const char *name_of(const struct rollout_change *c)
{
	static const char *const names[] = {[ROLLOUT_ENABLED] = "enabled",
					    [ROLLOUT_SHARE] = "rollout",
					    [ROLLOUT_THRESHOLD] = "percentage",
					    [ROLLOUT_SEGMENT_VALUE] = "value"};
	return names[c->what];
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

/* Only a plain value that stands there in full: no alias, anchor, tag or quotes around it. */
static int make_splice(const struct rollout_document *d, const struct rollout_change *c, struct splice *ret,
		       struct err *e)
{
	const struct yaml_node *n = rollout_apply_value_of(d, c);
	if (!n)
		return err_set(e, -EINVAL,
			       "%s:%u: the flag omits \"%s\", which has to change: write it out first",
			       yaml_name(d->doc), d->flag->line, name_of(c));
	if (n->kind != YAML_SCALAR || !span_eq(n->text, (struct span){d->text + n->start, n->end - n->start}))
		return err_set(e, -EINVAL,
			       "%s:%u: \"%s\" has to change, but is not a plain value there (an alias, an "
			       "anchor or a tag): "
			       "write it out first",
			       yaml_name(d->doc), n->line, name_of(c));
	*ret = (struct splice){.start = n->start, .end = n->end};
	if (c->what == ROLLOUT_ENABLED || c->what == ROLLOUT_SEGMENT_VALUE)
		snprintf(ret->text, sizeof(ret->text), "%s", c->to > 0 ? "true" : "false");
	else
		snprintf(ret->text, sizeof(ret->text), "%.6g", c->to);
	return 0;
}

/* How many scalars differ; a difference in shape counts as many. */
static size_t differences(const struct yaml_node *a, const struct yaml_node *b)
{
	size_t n = 0;
	if (!a || !b || a->kind != b->kind || a->count != b->count)
		return a == b ? 0 : ROLLOUT_CHANGES_MAX + 1;
	if (a->kind == YAML_SCALAR)
		return a->plain != b->plain || !span_eq(a->text, b->text);
	for (a = a->first, b = b->first; a && b; a = a->next, b = b->next)
		n += a->key && !span_eq(a->key->text, b->key->text) ? ROLLOUT_CHANGES_MAX + 1
								    : differences(a, b);
	return n;
}

static int refuse_shared(const struct rollout_document *d, struct err *e)
{
	return err_set(e, -EINVAL,
		       "%s:%u: a value that has to change is shared with another place (an anchor): write it "
		       "out first",
		       yaml_name(d->doc), d->flag->line);
}

/* A value below an alias stands where its anchor is: changing it there changes it in both places. */
static int rollout_apply_check(const struct rollout_document *d, const struct rollout_plan *plan,
			       struct span text, struct err *e)
{
	struct yaml_doc *doc = NULL;
	size_t n = 0;
	int r = yaml_parse_all(yaml_name(d->doc), text, &doc, e);
	const struct yaml_node *a = yaml_root(d->doc), *b = r == 0 ? yaml_root(doc) : NULL;
	for (; r == 0 && (a || b); a = a ? a->next : NULL, b = b ? b->next : NULL)
		n += differences(a, b);
	if (r == 0 && n != plan->n)
		r = refuse_shared(d, e);
	yaml_free(doc);
	return r;
}

int rollout_apply(const struct rollout_document *d, const struct rollout_plan *plan, struct buf *out,
		  struct err *e)
{
	struct splice splices[ROLLOUT_CHANGES_MAX];
	size_t at = 0, begin = out->len;
	for (size_t i = 0; i < plan->n; i++) {
		int r = make_splice(d, &plan->changes[i], &splices[i], e);
		if (r < 0)
			return r;
	}
	qsort(splices, plan->n, sizeof(splices[0]), compare_splices);
	for (size_t i = 0; i < plan->n; i++) {
		if (splices[i].start < at)
			return refuse_shared(d, e);
		buf_append(out, d->text + at, splices[i].start - at);
		buf_puts(out, splices[i].text);
		at = splices[i].end;
	}
	buf_append(out, d->text + at, d->length - at);
	if (out->error)
		return err_set(e, out->error, "%s: the document is too large", yaml_name(d->doc));
	return rollout_apply_check(d, plan, (struct span){out->ptr + begin, out->len - begin}, e);
}
