#include "programs/router/evaluate.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/json.h"

#define READ_BYTES (256u << 10)

/* --- one line ------------------------------------------------------------------------------------------- */
struct evaluation {
	struct span flag, type, entity_id, context; /* raw JSON; SPAN_NONE when missing */
};

/* A string or null; anything else is a mistake. Appends its content to `text` and tells where it begins
 * and ends. */
static int take_string(struct span value, const char *what, struct buf *text, size_t *ret_start,
		       struct err *e)
{
	*ret_start = text->len;
	if (!value.ptr || json_type_of(value) == JSON_NULL)
		return 0;
	if (json_type_of(value) != JSON_STRING)
		return err_set(e, -EBADMSG, "%s: must be a string", what);
	int r = json_unescape(value, text);
	return r < 0 ? err_set(e, r, "%s: too long", what) : 0;
}

/* Copies the members through, all but an old result, and notes those that are asked for. */
static int pass_members(struct span object, struct evaluation *q, struct buf *out)
{
	struct json_iter it;
	struct span key, value;
	const char *between = "{";
	json_iter_init(&it, object);
	while (json_iter_next(&it, &key, &value)) {
		if (span_is(key, "\"result\""))
			continue;
		if (span_is(key, "\"flag\""))
			q->flag = value;
		else if (span_is(key, "\"type\""))
			q->type = value;
		else if (span_is(key, "\"entity_id\""))
			q->entity_id = value;
		else if (span_is(key, "\"context\""))
			q->context = value;
		buf_puts(out, between);
		buf_append_span(out, key);
		buf_puts(out, ": ");
		buf_append_span(out, value);
		between = ", ";
	}
	return buf_puts(out, ", \"result\": ");
}

struct context {
	struct flag_context entries[EVALUATE_MAX_CONTEXT];
	size_t starts[EVALUATE_MAX_CONTEXT + 1]
		     [2]; /* of key and value in the text, which moves while it grows */
	size_t n;
	struct buf text;
};

static int evaluate_read_context(struct span object, struct context *c, struct err *e)
{
	struct json_iter it;
	struct span key, value;
	if (!object.ptr || json_type_of(object) == JSON_NULL)
		return 0;
	if (json_type_of(object) != JSON_OBJECT)
		return err_set(e, -EBADMSG, "context: must be an object");
	json_iter_init(&it, object);
	for (; json_iter_next(&it, &key, &value); c->n++) {
		if (c->n == EVALUATE_MAX_CONTEXT)
			return err_set(e, -EBADMSG, "context: more than %u entries", EVALUATE_MAX_CONTEXT);
		int r = take_string(key, "context", &c->text, &c->starts[c->n][0], e);
		if (r == 0)
			r = take_string(value, "context: values", &c->text, &c->starts[c->n][1], e);
		if (r < 0)
			return r;
	}
	c->starts[c->n][0] = c->text.len;
	struct span all = buf_span(&c->text);
	for (size_t i = 0; i < c->n; i++) {
		size_t k = c->starts[i][0], v = c->starts[i][1], end = c->starts[i + 1][0];
		c->entries[i] = (struct flag_context){{all.ptr + k, v - k}, {all.ptr + v, end - v}};
	}
	return 0;
}

static int print_segments(const struct flag_result *r, struct buf *out)
{
	buf_puts(out, "\"segment_keys\": [");
	for (size_t i = 0; i < r->segments; i++) {
		buf_puts(out, i ? ", " : "");
		json_quote(out, span_of(r->segment_keys[i]));
	}
	return buf_puts(out, "]");
}

static int evaluate_print_result(const struct flag_result *r, struct buf *out)
{
	if (r->type == FLAG_BOOLEAN) {
		buf_printf(out, "{\"enabled\": %s, \"reason\": \"%s\", ", r->enabled ? "true" : "false",
			   flag_reason_text(r->reason));
		print_segments(r, out);
		return buf_puts(out, "}");
	}
	buf_printf(out, "{\"match\": %s, \"variant_key\": ", r->match ? "true" : "false");
	json_quote(out, r->variant);
	buf_printf(out, ", \"reason\": \"%s\", ", flag_reason_text(r->reason));
	print_segments(r, out);
	buf_puts(out, ", \"attachment\": ");
	json_quote(out, r->attachment);
	return buf_puts(out, "}");
}

static int evaluate_print_error(const char *sentence, struct span flag, struct buf *out)
{
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(EVALUATE_MAX_LINE);
	buf_printf(&text, "flag \"%.*s\" %s", SPAN_ARG(flag), sentence);
	buf_puts(out, "{\"error\": ");
	json_quote(out, buf_span(&text));
	return buf_puts(out, "}");
}

/* The answer for a flag and a context that were read. `type` is the raw member. */
static int evaluate_answer(const struct flag_snapshot *s, struct span key, struct span type,
			   struct span entity_id, const struct context *c, struct buf *out, struct err *e)
{
	struct flag_result result;
	bool any = !type.ptr, boolean = any ? false : span_is(type, "\"boolean\"");
	if (!any && !boolean && !span_is(type, "\"variant\""))
		return err_set(e, -EBADMSG, "type: must be \"variant\" or \"boolean\"");
	const struct flag *f = flag_find(s, key);
	if (!f)
		return evaluate_print_error("not found", key, out);
	if (flag_broken(f))
		return evaluate_print_error("is set aside: its definition cannot be understood", key, out);
	if (!any && boolean != (flag_type_of(f) == FLAG_BOOLEAN))
		return evaluate_print_error(boolean ? "is a variant flag" : "is a boolean flag", key, out);
	flag_evaluate(s, f, entity_id, c->entries, c->n, &result, NULL);
	return evaluate_print_result(&result, out);
}

static int evaluate_request(const struct flag_snapshot *s, const struct evaluation *q, struct context *c,
			    struct buf *out, struct err *e)
{
	CLEANUP(buf_releasep)
	struct buf flag = BUF_INIT(EVALUATE_MAX_LINE), entity = BUF_INIT(EVALUATE_MAX_LINE);
	size_t start;
	if (!q->flag.ptr)
		return err_set(e, -EBADMSG, "flag: is missing");
	int r = take_string(q->flag, "flag", &flag, &start, e);
	if (r == 0)
		r = take_string(q->entity_id, "entity_id", &entity, &start, e);
	if (r == 0)
		r = evaluate_read_context(q->context, c, e);
	if (r == 0)
		r = evaluate_answer(s, buf_span(&flag), q->type, buf_span(&entity), c, out, e);
	return r;
}

int evaluate_line(const struct flag_snapshot *s, struct span line, struct buf *out, struct err *e)
{
	struct evaluation q = {SPAN_NONE, SPAN_NONE, SPAN_NONE, SPAN_NONE};
	struct span object;
	int r = json_validate(line, e);
	if (r < 0)
		return r;
	if (!json_pointer(line, SPAN_LIT(""), &object) || json_type_of(object) != JSON_OBJECT)
		return err_set(e, -EBADMSG, "must be an object");
	r = pass_members(object, &q, out);
	if (r < 0)
		return err_set(e, r, "the line is too long");
	CLEANUP(freep) struct context *c = malloc(sizeof(*c));
	if (!c)
		return err_set(e, -ENOMEM, "out of memory");
	c->n = 0;
	c->text = BUF_INIT(EVALUATE_MAX_LINE);
	r = evaluate_request(s, &q, c, out, e);
	buf_release(&c->text);
	if (r == 0)
		r = buf_puts(out, "}");
	return r < 0 && out->error ? err_set(e, r, "the answer is too long") : r;
}

/* --- the command ---------------------------------------------------------------------------------------- */
struct options {
	const char *features, *snapshot;
	enum flag_rules rules;
};

static int evaluate_usage(const char *problem)
{
	if (problem)
		fprintf(stderr, "evaluate: %s\n", problem);
	fprintf(stderr, "usage: migration-router evaluate (--features FILE | --snapshot FILE) [--rules "
			"v1|v2.0|v2.9|v2.11]"
			" < requests.jsonl > results.jsonl\n");
	return 2;
}

/* 0, or the exit code + 1 when the program is to end. */
static int parse_options(int argc, char **argv, struct options *o)
{
	static const struct option known[] = {{"features", required_argument, NULL, 'f'},
					      {"snapshot", required_argument, NULL, 's'},
					      {"v1", no_argument, NULL, '1'},
					      {"rules", required_argument, NULL, 'r'},
					      {"help", no_argument, NULL, 'h'},
					      {NULL, 0, NULL, 0}};
	int c;
	optind = 0; /* GNU: begin anew, main may have used getopt */
	while ((c = getopt_long(argc, argv, "h", known, NULL)) != -1) {
		switch (c) {
		case 'f':
			o->features = optarg;
			break;
		case 's':
			o->snapshot = optarg;
			break;
		case '1':
			o->rules = FLAG_RULES_V1;
			break;
		case 'r':
			if (!flag_rules_parse(span_of(optarg), &o->rules))
				return evaluate_usage("--rules is one of v1, v2.0, v2.9, v2.11") + 1;
			break;
		case 'h':
			evaluate_usage(NULL);
			return 1;
		default:
			return evaluate_usage(NULL) + 1;
		}
	}
	if (optind < argc)
		return evaluate_usage("requests are read from standard input") + 1;
	if (!o->features == !o->snapshot)
		return evaluate_usage("give either --features or --snapshot") + 1;
	return 0;
}

static int evaluate_load(const struct options *o, struct flag_snapshot **ret, struct err *e)
{
	const char *path = o->features ? o->features : o->snapshot;
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(FLAG_MAX_DOCUMENT);
	int r = file_read(path, FLAG_MAX_DOCUMENT, &text, e);
	if (r < 0)
		return r;
	return o->features ? flag_snapshot_parse_features(path, buf_span(&text), o->rules, ret, e)
			   : flag_snapshot_parse_json(path, buf_span(&text), o->rules, ret, e);
}

static int answer_line(const struct flag_snapshot *s, struct span line, size_t number)
{
	CLEANUP(buf_releasep) struct buf out = BUF_INIT(4 * EVALUATE_MAX_LINE);
	struct err e;
	if (line.len && line.ptr[line.len - 1] == '\r')
		line.len--;
	if (span_trim(line).len == 0)
		return 0;
	if (evaluate_line(s, line, &out, &e) < 0) {
		fprintf(stderr, "evaluate: line %zu: %s\n", number, e.text);
		return 2;
	}
	buf_putc(&out, '\n');
	if (out.error || (out.len && fwrite(out.ptr, 1, out.len, stdout) != out.len)) {
		fprintf(stderr, "evaluate: the output cannot be written: %s\n", strerror(errno));
		return 1;
	}
	return 0;
}

/* Answers the lines that are complete (at the end of input all) and leaves the rest. */
static int answer_lines(const struct flag_snapshot *s, struct buf *in, bool at_end, size_t *number)
{
	size_t done = 0;
	int code = 0;
	while (code == 0 && done < in->len) {
		const char *start = in->ptr + done;
		const char *newline = memchr(start, '\n', in->len - done);
		if (!newline && !at_end)
			break;
		size_t n = newline ? (size_t)(newline - start) : in->len - done;
		code = answer_line(s, (struct span){start, n}, ++*number);
		done += n + (newline != NULL);
	}
	buf_consume(in, done);
	return code;
}

static int answer_all(const struct flag_snapshot *s, FILE *from)
{
	CLEANUP(buf_releasep) struct buf in = BUF_INIT(EVALUATE_MAX_LINE + READ_BYTES);
	size_t number = 0;
	int code = 0;
	for (bool at_end = false; code == 0 && !at_end;) {
		if (in.len > EVALUATE_MAX_LINE || buf_reserve(&in, READ_BYTES) < 0) {
			fprintf(stderr, "evaluate: line %zu: longer than %u bytes\n", number + 1,
				EVALUATE_MAX_LINE);
			return 2;
		}
		size_t n = fread(in.ptr + in.len, 1, READ_BYTES, from);
		in.len += n;
		buf_terminate(&in);
		if (n < READ_BYTES && ferror(from)) {
			fprintf(stderr, "evaluate: standard input cannot be read: %s\n", strerror(errno));
			return 1;
		}
		at_end = n < READ_BYTES;
		code = answer_lines(s, &in, at_end, &number);
	}
	return code;
}

int evaluate_command(int argc, char **argv)
{
	struct options o = {.rules = FLAG_RULES_V2};
	struct flag_snapshot *s = NULL;
	struct err e;
	int r = parse_options(argc, argv, &o);
	if (r)
		return r - 1;
	if (evaluate_load(&o, &s, &e) < 0) {
		fprintf(stderr, "evaluate: %s\n", e.text);
		return 1;
	}
	for (size_t i = 0; i < flag_snapshot_warnings(s); i++)
		fprintf(stderr, "evaluate: warning: %s\n", flag_snapshot_warning(s, i));
	r = answer_all(s, stdin);
	flag_snapshot_unref(s);
	if (fflush(stdout) != 0 && r == 0) {
		fprintf(stderr, "evaluate: the output cannot be written: %s\n", strerror(errno));
		r = 1;
	}
	return r;
}
