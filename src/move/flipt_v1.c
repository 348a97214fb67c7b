/*
 * Flipt v1: a flag is read in parts, each with an id, and changed value by value. No revisions, no
 * normalising.
 */
#include <errno.h>
#include <stdio.h>

#include "base/json.h"
#include "move/flipt.h"

#define PATH_LIMIT 8192

/* The key of the variant with that id, as JSON text. */
static struct span key_of_variant(struct span variants, struct span id)
{
	struct json_iter it;
	struct span ignored, variant, own, key;
	for (json_iter_init(&it, variants); json_iter_next(&it, &ignored, &variant);)
		if (json_pointer(variant, SPAN_LIT("/id"), &own) && span_eq(own, id) &&
		    json_pointer(variant, SPAN_LIT("/key"), &key))
			return key;
	return SPAN_LIT("\"\"");
}

/* Distributions name their variant by id: its key is put in front. */
static void add_distributions(struct buf *out, struct span list, struct span variants)
{
	struct json_iter it;
	struct span ignored, item, id;
	bool first = true;
	buf_puts(out, "[");
	for (json_iter_init(&it, list); json_iter_next(&it, &ignored, &item);) {
		if (!json_pointer(item, SPAN_LIT("/variantId"), &id))
			id = SPAN_NONE;
		buf_printf(out, "%s{\"variant\": %.*s, ", first ? "" : ", ",
			   SPAN_ARG(key_of_variant(variants, id)));
		buf_append(out, item.ptr + 1, item.len - 1);
		first = false;
	}
	buf_puts(out, "]");
}

static void add_rules(struct buf *out, struct span rules, struct span variants)
{
	struct json_iter it, inner;
	struct span ignored, key, rule, item;
	bool first = true;
	buf_puts(out, "[");
	for (json_iter_init(&it, rules); json_iter_next(&it, &ignored, &rule);) {
		bool first_member = true;
		buf_puts(out, first ? "{" : ", {");
		first = false;
		for (json_iter_init(&inner, rule); json_iter_next(&inner, &key, &item);) {
			buf_printf(out, "%s%.*s: ", first_member ? "" : ", ", SPAN_ARG(key));
			if (span_is(key, "\"distributions\""))
				add_distributions(out, item, variants);
			else
				buf_append_span(out, item);
			first_member = false;
		}
		buf_puts(out, "}");
	}
	buf_puts(out, "]");
}

/* One document out of three answers, so that it can be edited like the others, ids included. */
static int put_together(struct rollout_place *p, struct span flag, struct span rules, struct span rollouts,
			struct err *e)
{
	struct span variants, list;
	while (flag.len && flag.ptr[flag.len - 1] != '}')
		flag.len--;
	if (!flag.len || !json_pointer(flag, SPAN_LIT("/variants"), &variants))
		return err_set(e, -EBADMSG, "Flipt's answer is not a flag");
	buf_append(&p->document, flag.ptr, flag.len - 1);
	buf_puts(&p->document, ", \"rules\": ");
	add_rules(&p->document, json_pointer(rules, SPAN_LIT("/rules"), &list) ? list : SPAN_LIT("[]"),
		  variants);
	buf_puts(&p->document, ", \"rollouts\": ");
	buf_append_span(&p->document,
			json_pointer(rollouts, SPAN_LIT("/rules"), &list) ? list : SPAN_LIT("[]"));
	buf_puts(&p->document, "}");
	return p->document.error ? err_set(e, p->document.error, "the flag is too large") : 0;
}

static void put_path(const struct rollout_place *p, const char *flag, const char *below, struct buf *path)
{
	buf_puts(path, "/api/v1/namespaces/");
	buf_put_segment(path, span_of(p->config->flags.namespace_key));
	buf_puts(path, "/flags/");
	buf_put_segment(path, span_of(flag));
	buf_puts(path, below);
}

static int get_part(struct rollout_place *p, const char *flag, const char *below, struct flipt_answer *answer,
		    struct err *e)
{
	CLEANUP(buf_releasep) struct buf path = BUF_INIT(PATH_LIMIT);
	put_path(p, flag, below, &path);
	return path.error ? err_set(e, path.error, "the flag's key is too long")
			  : flipt_get(p, path.ptr, answer, e);
}

int flipt_read_v1(struct rollout_place *p, const char *flag, struct err *e)
{
	CLEANUP(flipt_answer_release) struct flipt_answer own = FLIPT_ANSWER_INIT;
	CLEANUP(flipt_answer_release) struct flipt_answer rules = FLIPT_ANSWER_INIT;
	CLEANUP(flipt_answer_release) struct flipt_answer rollouts = FLIPT_ANSWER_INIT;
	int r = get_part(p, flag, "", &own, e);
	if (r == 0)
		r = get_part(p, flag, "/rules", &rules, e);
	if (r == 0)
		r = get_part(p, flag, "/rollouts", &rollouts, e);
	return r < 0 ? r
		     : put_together(p, buf_span(&own.body), buf_span(&rules.body), buf_span(&rollouts.body),
				    e);
}

/* --- writing -------------------------------------------------------------------------------------------- */

/* A value of the document by pointer, strings without their quotes (ids need no escapes). SPAN_NONE if
 * absent. */
static struct span member(const struct rollout_place *p, const char *pointer, ...)
	__attribute__((format(printf, 2, 3)));

static struct span member(const struct rollout_place *p, const char *pointer, ...)
{
	char text[128];
	struct span value;
	va_list ap;
	va_start(ap, pointer);
	vsnprintf(text, sizeof(text), pointer, ap);
	va_end(ap);
	if (!json_pointer(buf_span(&p->document), span_of(text), &value))
		return SPAN_NONE;
	if (json_type_of(value) == JSON_STRING)
		value = (struct span){value.ptr + 1, value.len - 2};
	return value;
}

/* A PUT takes the whole: what it leaves out is gone. */
static void keep_members(const struct rollout_place *p, const char *holder, const char *const *names,
			 size_t n, struct buf *body)
{
	for (size_t i = 0; i < n; i++) {
		char pointer[128];
		struct span value;
		snprintf(pointer, sizeof(pointer), "%s/%s", holder, names[i]);
		if (json_pointer(buf_span(&p->document), span_of(pointer), &value))
			buf_printf(body, ", \"%s\": %.*s", names[i], SPAN_ARG(value));
	}
}

static void flag_body(const struct rollout_place *p, const struct rollout_change *c, struct buf *body)
{
	static const char *const kept[] = {"name", "description", "metadata"};
	struct span id;
	buf_printf(body, "{\"enabled\": %s", c->to > 0 ? "true" : "false");
	keep_members(p, "", kept, sizeof(kept) / sizeof(kept[0]), body);
	if (json_pointer(buf_span(&p->document), SPAN_LIT("/defaultVariant/id"), &id))
		buf_printf(body, ", \"defaultVariantId\": %.*s", SPAN_ARG(id));
	buf_puts(body, "}");
}

/* Of a segment's two spellings only the one in use may be sent: an empty list would be taken for no
 * segments. */
static void rollout_body(const struct rollout_place *p, const struct rollout_change *c, struct buf *body)
{
	static const char *const described[] = {"description"}, *const of_threshold[] = {"value"},
				 *const of_segment[] = {"segmentOperator"};
	char holder[64];
	bool threshold = c->what == ROLLOUT_THRESHOLD;
	struct span one = member(p, "/rollouts/%zu/segment/segmentKey", c->rule);
	struct span several = member(p, "/rollouts/%zu/segment/segmentKeys", c->rule);
	snprintf(holder, sizeof(holder), "/rollouts/%zu/%s", c->rule, threshold ? "threshold" : "segment");
	if (threshold) {
		buf_printf(body, "{\"threshold\": {\"percentage\": %.6g", c->to);
		keep_members(p, holder, of_threshold, 1, body);
	} else {
		buf_printf(body, "{\"segment\": {\"value\": %s", c->to > 0 ? "true" : "false");
		if (one.len)
			buf_printf(body, ", \"segmentKey\": \"%.*s\"", SPAN_ARG(one));
		else
			buf_printf(body, ", \"segmentKeys\": %.*s", SPAN_ARG(several));
		keep_members(p, holder, of_segment, 1, body);
	}
	buf_puts(body, "}");
	snprintf(holder, sizeof(holder), "/rollouts/%zu", c->rule);
	keep_members(p, holder, described, 1, body);
	buf_puts(body, "}");
}

static void make_request(const struct rollout_place *p, const char *flag, const struct rollout_change *c,
			 struct buf *path, struct buf *body)
{
	put_path(p, flag, "", path);
	if (c->what == ROLLOUT_ENABLED) {
		flag_body(p, c, body);
	} else if (c->what == ROLLOUT_SHARE) {
		buf_printf(path, "/rules/%.*s/distributions/%.*s",
			   SPAN_ARG(member(p, "/rules/%zu/id", c->rule)),
			   SPAN_ARG(member(p, "/rules/%zu/distributions/%zu/id", c->rule, c->share)));
		buf_printf(body, "{\"variantId\": \"%.*s\", \"rollout\": %.6g}",
			   SPAN_ARG(member(p, "/rules/%zu/distributions/%zu/variantId", c->rule, c->share)),
			   c->to);
	} else {
		buf_printf(path, "/rollouts/%.*s", SPAN_ARG(member(p, "/rollouts/%zu/id", c->rule)));
		rollout_body(p, c, body);
	}
}

static enum place_written write_change(struct rollout_place *p, const char *flag,
				       const struct rollout_change *c, struct err *e)
{
	CLEANUP(buf_releasep) struct buf path = BUF_INIT(PATH_LIMIT);
	CLEANUP(buf_releasep) struct buf body = BUF_INIT(1u << 20);
	CLEANUP(flipt_answer_release) struct flipt_answer answer = FLIPT_ANSWER_INIT;
	make_request(p, flag, c, &path, &body);
	if (path.error || body.error) {
		err_set(e, -EFBIG, "the change is too large");
		return PLACE_NOT_WRITTEN;
	}
	if (flipt_ask(p, "PUT", path.ptr, buf_span(&body), &answer, e) < 0)
		return answer.maybe_sent ? PLACE_UNKNOWN : PLACE_NOT_WRITTEN;
	return flipt_expect(path.ptr, &answer, e) < 0 ? PLACE_NOT_WRITTEN : PLACE_WRITTEN;
}

enum place_written flipt_write_v1(struct rollout_place *p, const char *flag, const struct rollout_plan *plan,
				  size_t *ret_done, struct err *e)
{
	for (*ret_done = 0; *ret_done < plan->n; ++*ret_done) {
		enum place_written w = write_change(p, flag, &plan->changes[*ret_done], e);
		if (w != PLACE_WRITTEN)
			return w == PLACE_NOT_WRITTEN && *ret_done ? PLACE_PARTLY_WRITTEN : w;
	}
	return PLACE_WRITTEN;
}
