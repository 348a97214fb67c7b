#include "rollout/rollout_document.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "flags/namespaces.h"

#define ATTACHMENT_MAX 65536

/* In one document. */
static const struct yaml_node *find_flag_in(const struct yaml_node *root, const char *key)
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

/* Only where routers read it, too: another namespace may have a flag of the same key. Of several the last one
 * wins, as for Flipt. */
static void rollout_document_find_flag(struct rollout_document *d, const char *key)
{
	const struct yaml_node *first = yaml_root(d->doc);
	struct span counts = namespace_that_counts(first, d->sides->namespace_key);
	for (const struct yaml_node *root = first; root; root = root->next) {
		const struct yaml_node *flags = yaml_get(root, "flags");
		const struct yaml_node *flag =
			!flags || span_eq(namespace_of(root), counts) ? find_flag_in(root, key) : NULL;
		if (!flag)
			continue;
		d->flag = flag;
		d->counts = flags ? counts : SPAN_NONE;
	}
}

int rollout_open(const char *name, struct span text, const char *flag, const struct rollout_sides *sides,
		 struct rollout_document **ret, struct err *e)
{
	struct rollout_document *d = calloc(1, sizeof(*d));
	if (!d || !(d->text = span_dup(text))) {
		free(d);
		return err_set(e, -ENOMEM, "out of memory");
	}
	d->length = text.len;
	d->sides = sides;
	int r = yaml_parse_all(name, (struct span){d->text, d->length}, &d->doc, e);
	/* A key given twice at the top: routers refuse the whole document, so that nothing written into it
	 * would take effect. */
	for (const struct yaml_node *root = r == 0 ? yaml_root(d->doc) : NULL; root && r == 0;
	     root = root->next)
		if (root->fault)
			r = err_set(e, -EBADMSG, "%s", root->fault);
	if (r == 0) {
		rollout_document_find_flag(d, flag);
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
		flag_snapshot_unref(d->snapshot);
		yaml_free(d->doc);
		free(d->text);
		free(d);
	}
	return NULL;
}

void rollout_know_segments(struct rollout_document *d, struct flag_snapshot *s)
{
	flag_snapshot_unref(d->snapshot);
	d->snapshot = flag_snapshot_ref(s);
}

bool rollout_truth(const struct yaml_node *n)
{
	bool value = false;
	return yaml_bool(n, &value) && value;
}

double rollout_number(const struct yaml_node *n)
{
	double value = 0;
	yaml_double(n, &value);
	return value;
}

const struct yaml_node *rollout_item(const struct yaml_node *list, size_t index)
{
	const struct yaml_node *n = list ? list->first : NULL;
	while (n && index--)
		n = n->next;
	return n;
}

bool rollout_is_boolean(const struct rollout_document *d)
{
	struct span type;
	return yaml_string(yaml_get(d->flag, "type"), &type) &&
	       (span_is(type, "BOOLEAN_FLAG_TYPE") || span_is(type, "boolean"));
}

bool rollout_enabled(const struct rollout_document *d)
{
	return rollout_truth(yaml_get(d->flag, "enabled"));
}

/* --- variants ------------------------------------------------------------------------------------------- */

struct span rollout_variant(const struct yaml_node *distribution)
{
	struct span text;
	const struct yaml_node *n = yaml_get(distribution, "variant");
	return yaml_string(n ? n : yaml_get(distribution, "variantKey"), &text) ? text : SPAN_LIT("");
}

/* In a snapshot it stands in the distribution, elsewhere with the flag's variants. */
static const struct yaml_node *attachment_of(const struct rollout_document *d,
					     const struct yaml_node *distribution)
{
	const struct yaml_node *list = yaml_get(d->flag, "variants");
	struct span key, wanted = rollout_variant(distribution);
	for (const struct yaml_node *n = list ? list->first : NULL; n; n = n->next)
		if (yaml_string(yaml_get(n, "key"), &key) && span_eq(key, wanted))
			return yaml_get(n, "attachment");
	return yaml_get(distribution, "variantAttachment");
}

bool rollout_is_task(const struct rollout_document *d, const struct yaml_node *distribution)
{
	CLEANUP(buf_releasep) struct buf json = BUF_INIT(ATTACHMENT_MAX);
	const struct yaml_node *attachment = attachment_of(d, distribution);
	struct span text;
	if (yaml_string(attachment, &text)) /* v1 and snapshots: JSON as a text */
		buf_append_span(&json, text);
	else if (attachment && !yaml_is_null(attachment))
		yaml_to_json(attachment, &json);
	return d->sides->is_task(d->sides->arg, rollout_variant(distribution), buf_span(&json));
}

/* --- whom a rule is about ------------------------------------------------------------------------------- */

static bool is_everybody(const struct rollout_document *d, struct span segment)
{
	struct span key;
	const struct flag *f =
		yaml_string(yaml_get(d->flag, "key"), &key) ? flag_find(d->snapshot, key) : NULL;
	return f && flag_segment_is_everybody(f, segment);
}

/* Declared without constraints, or the undeclared "default". A snapshot carries the segment itself, one
 * flag only its key. */
static bool unconstrained(const struct rollout_document *d, const struct yaml_node *segment, struct span key)
{
	struct span text;
	if (segment->kind == YAML_MAPPING && yaml_get(segment, "constraints"))
		return yaml_get(segment, "constraints")->count == 0;
	if (d->snapshot)
		return is_everybody(d, key);
	for (const struct yaml_node *root = d->counts.ptr ? yaml_root(d->doc) : NULL; root;
	     root = root->next) {
		const struct yaml_node *list =
			span_eq(namespace_of(root), d->counts) ? yaml_get(root, "segments") : NULL;
		for (const struct yaml_node *n = list ? list->first : NULL; n; n = n->next)
			if (yaml_string(yaml_get(n, "key"), &text) && span_eq(text, key)) {
				const struct yaml_node *c = yaml_get(n, "constraints");
				return !c || c->count == 0;
			}
	}
	return span_is(key, "default");
}

static void rollout_document_add_segment(const struct rollout_document *d, const struct yaml_node *n,
					 const char *wanted, struct rollout_audience *a)
{
	struct span key;
	if (!yaml_string(n && n->kind == YAML_MAPPING ? yaml_get(n, "key") : n, &key))
		return;
	size_t at = strlen(a->names);
	snprintf(a->names + at, sizeof(a->names) - at, "%s%.*s", at ? ", " : "", SPAN_ARG(key));
	a->everybody = a->everybody && unconstrained(d, n, key);
	a->named = a->named || (wanted && span_is(key, wanted));
}

struct rollout_audience rollout_audience(const struct rollout_document *d, const struct yaml_node *holder,
					 const char *wanted)
{
	struct rollout_audience a = {.everybody = true};
	const struct yaml_node *segment = yaml_get(holder, "segment");
	const struct yaml_node *from = segment && segment->kind == YAML_MAPPING ? segment : holder;
	static const char *const lists[] = {"segments", "keys", "segmentKeys"};
	if (segment && segment->kind == YAML_SCALAR)
		rollout_document_add_segment(d, segment, wanted, &a);
	else if (yaml_get(from, "key") && from == segment)
		rollout_document_add_segment(d, yaml_get(from, "key"), wanted, &a);
	else if (yaml_get(from, "segmentKey") && yaml_get(from, "segmentKey")->text.len)
		rollout_document_add_segment(d, yaml_get(from, "segmentKey"), wanted, &a);
	for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
		const struct yaml_node *list = yaml_get(from, lists[i]);
		for (const struct yaml_node *n = list ? list->first : NULL; n; n = n->next)
			rollout_document_add_segment(d, n, wanted, &a);
	}
	return a;
}

/* --- what it says --------------------------------------------------------------------------------------- */

size_t rollout_count(const struct rollout_document *d)
{
	const struct yaml_node *list = yaml_get(d->flag, rollout_is_boolean(d) ? "rollouts" : "rules");
	return list ? list->count : 0;
}

static void describe_rule(const struct rollout_document *d, const struct yaml_node *rule,
			  struct rollout_line *ret)
{
	const struct yaml_node *list = yaml_get(rule, "distributions");
	double task = 0, all = 0;
	for (const struct yaml_node *n = list ? list->first : NULL; n; n = n->next) {
		double share = rollout_number(yaml_get(n, "rollout"));
		size_t at = strlen(ret->shares);
		snprintf(ret->shares + at, sizeof(ret->shares) - at, "%s%.*s: %g %%", at ? ", " : "",
			 SPAN_ARG(rollout_variant(n)), share);
		all += share;
		task += rollout_is_task(d, n) ? share : 0;
	}
	ret->percent = all > 0 ? task * 100 / all : 0;
}

static void describe_threshold(const struct yaml_node *threshold, struct rollout_line *ret)
{
	bool value = rollout_truth(yaml_get(threshold, "value"));
	double percent = rollout_number(yaml_get(threshold, "percentage"));
	snprintf(ret->who, sizeof(ret->who), "everybody");
	snprintf(ret->shares, sizeof(ret->shares), "%s for %g %%", value ? "true" : "false", percent);
	ret->everybody = true;
	ret->percent = value ? percent : 100 - percent;
}

void rollout_line(const struct rollout_document *d, size_t index, struct rollout_line *ret)
{
	bool boolean = rollout_is_boolean(d);
	const struct yaml_node *r = rollout_item(yaml_get(d->flag, boolean ? "rollouts" : "rules"), index);
	const struct yaml_node *threshold = yaml_get(r, "threshold");
	*ret = (struct rollout_line){.who = ""};
	if (threshold) {
		describe_threshold(threshold, ret);
		return;
	}
	struct rollout_audience a = rollout_audience(d, r, NULL);
	memcpy(ret->who, a.names, sizeof(ret->who));
	ret->everybody = a.everybody;
	if (!boolean) {
		describe_rule(d, r, ret);
		return;
	}
	bool value = rollout_truth(yaml_get(yaml_get(r, "segment"), "value"));
	ret->percent = value ? 100 : 0;
	snprintf(ret->shares, sizeof(ret->shares), value ? "true" : "false");
}
