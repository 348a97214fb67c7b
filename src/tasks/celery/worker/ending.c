#include "tasks/celery/worker/ending.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "tasks/celery/worker/answer.h"

#define META_MAX (512u << 20)
#define GROUP_PREFIX "celery-taskset-meta-"
#define CLAIM_SECONDS "30"
#define DONE_SECONDS "300"

/* Counts a part once, and claims the body when all are there: 1 when this worker is to apply it. KEYS:
 * results, the difference to the size, size, those counted, claim. ARGV: id and index, index, the part,
 * seconds all is kept, seconds of the claim, its token. */
static const char part_script[] =
	"if redis.call('GET', KEYS[5]) == 'done' then return 0 end "
	"if redis.call('SISMEMBER', KEYS[4], ARGV[1]) == 0 then "
	" redis.call('ZADD', KEYS[1], ARGV[2], ARGV[3]) redis.call('SADD', KEYS[4], ARGV[1]) "
	"end "
	"local keep = tonumber(ARGV[4]) "
	"if keep > 0 then for i = 1, 4 do redis.call('EXPIRE', KEYS[i], keep) end end "
	"local size = tonumber(redis.call('GET', KEYS[3]) or '') "
	"if not size then return 0 end "
	"if redis.call('ZCARD', KEYS[1]) ~= size + tonumber(redis.call('GET', KEYS[2]) or 0) then return 0 "
	"end "
	"if redis.call('SET', KEYS[5], ARGV[6], 'NX', 'EX', ARGV[5]) then return 1 end "
	"if redis.call('GET', KEYS[5]) == ARGV[6] then return 1 end "
	"return 0";

/* All parts in order, behind the structure that they are to be put into, where Python has kept one: ""
 * without. KEYS: results, group. */
static const char read_script[] = "local all = redis.call('ZRANGE', KEYS[1], 0, -1) "
				  "table.insert(all, 1, redis.call('GET', KEYS[2]) or '') return all";

/* The same keys. ARGV: token, seconds for which it is known that the body was applied. */
static const char done_script[] = "if redis.call('GET', KEYS[5]) == ARGV[1] then "
				  " redis.call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[4]) "
				  " redis.call('SET', KEYS[5], 'done', 'EX', ARGV[2]) "
				  "end "
				  "return 1";

enum ending_kind { ENDING_SIZE, ENDING_PUSH, ENDING_STORE, ENDING_PART, ENDING_READ, ENDING_DONE };

struct ending_job {
	STAILQ_ENTRY(ending_job) next;
	enum ending_kind kind;
	struct buf key;		/* group, queue, or id of a task: text */
	struct buf text;	/* what is written; of a part: its entry */
	struct buf more;	/* of parts: the chord's body */
	struct buf index, task; /* of parts */
	size_t n;
	int priority;
};

struct celery_ending {
	struct celery_request *r;
	void (*fn)(struct celery_request *r);
	STAILQ_HEAD(, ending_job) jobs;
	struct ending_job *last_new; /* new ones come after it, or first */
	char token[CRYPTO_ID_HEX];
	struct loop_work begin;
	bool begin_due;
};

static void ending_next(struct celery_ending *e);

/* --- the list ------------------------------------------------------------------------------------------- */

static void ending_job_free(struct ending_job *j)
{
	buf_release(&j->key);
	buf_release(&j->text);
	buf_release(&j->more);
	buf_release(&j->index);
	buf_release(&j->task);
	free(j);
}

static struct ending_job *ending_add(struct celery_ending *e, enum ending_kind kind)
{
	struct ending_job *j = calloc(1, sizeof(*j));
	if (!j) {
		log_error("task_not_followed", LOG_STR("task_id", e->r->m.id),
			  LOG_STR("error", "out of memory"));
		return NULL;
	}
	j->kind = kind;
	buf_init(&j->key, 4096);
	buf_init(&j->text, META_MAX);
	buf_init(&j->more, META_MAX);
	buf_init(&j->index, 64);
	buf_init(&j->task, CELERY_ID_MAX * 8);
	if (e->last_new)
		STAILQ_INSERT_AFTER(&e->jobs, e->last_new, j, next);
	else
		STAILQ_INSERT_HEAD(&e->jobs, j, next);
	e->last_new = j;
	return j;
}

void celery_ending_free(struct celery_ending *e)
{
	if (!e)
		return;
	while (!STAILQ_EMPTY(&e->jobs)) {
		struct ending_job *j = STAILQ_FIRST(&e->jobs);
		STAILQ_REMOVE_HEAD(&e->jobs, next);
		ending_job_free(j);
	}
	if (e->begin_due)
		loop_defer_cancel(e->r->owner->o.loop, &e->begin);
	free(e);
}

/* --- what is to be written ------------------------------------------------------------------------------ */

static void ending_add_canvas(struct celery_ending *e, struct canvas *v)
{
	for (size_t i = 0; i < v->n_sizes; i++) {
		struct ending_job *j = ending_add(e, ENDING_SIZE);
		if (!j)
			continue;
		buf_puts(&j->key, v->sizes[i].group);
		j->n = v->sizes[i].n;
	}
	for (size_t i = 0; i < v->n_messages; i++) {
		struct ending_job *j = ending_add(e, ENDING_PUSH);
		if (!j)
			continue;
		buf_append_span(&j->key, buf_span(&v->messages[i].queue));
		j->priority = v->messages[i].priority;
		struct buf text = j->text;
		j->text = v->messages[i].text;
		v->messages[i].text = text;
	}
}

static void ending_add_store(struct celery_ending *e, const struct celery_answer *a)
{
	struct ending_job *j = ending_add(e, ENDING_STORE);
	if (!j)
		return;
	buf_append_span(&j->key, a->id);
	celery_put_answer(a, &j->text);
}

static void ending_text(struct span json_string, struct buf *out)
{
	if (json_string.ptr && json_type_of(json_string) == JSON_STRING)
		json_unescape(json_string, out);
}

/* `group` and `index` raw JSON. */
static void ending_add_part(struct celery_ending *e, struct span group, struct span index, struct span id,
			    const char *state, struct span result, struct span chord)
{
	struct ending_job *j = group.ptr ? ending_add(e, ENDING_PART) : NULL;
	if (!j)
		return;
	ending_text(group, &j->key);
	bool number = index.ptr && json_type_of(index) == JSON_NUMBER;
	buf_append_span(&j->index, number ? index : SPAN_LIT("+inf"));
	buf_append_span(&j->task, id);
	buf_puts(&j->text, "[1, ");
	json_quote(&j->text, id);
	buf_printf(&j->text, ", \"%s\", ", state);
	buf_append_span(&j->text, result);
	buf_putc(&j->text, ']');
	buf_append_span(&j->more, chord);
}

static struct span ending_member(struct span object, const char *pointer)
{
	struct span value = SPAN_NONE;
	if (!object.ptr || !json_pointer(object, span_of(pointer), &value) ||
	    json_type_of(value) == JSON_NULL)
		return SPAN_NONE;
	return value;
}

static void ending_fail_element(struct celery_ending *e, struct span element, struct span result,
				unsigned level);

/* The rest of a chain fails with what it waited for. */
static void ending_fail_chain(struct celery_ending *e, struct span chain, struct span result, unsigned level)
{
	struct json_iter it;
	struct span key, item;
	json_iter_init(&it, chain.ptr && json_type_of(chain) == JSON_ARRAY ? chain : SPAN_LIT("[]"));
	while (json_iter_next(&it, &key, &item))
		ending_fail_element(e, item, result, level);
}

static void ending_fail_element(struct celery_ending *e, struct span element, struct span result,
				unsigned level)
{
	CLEANUP(buf_releasep) struct buf id = BUF_INIT(CELERY_ID_MAX);
	struct span chord = ending_member(element, "/options/chord"),
		    group = ending_member(element, "/options/group_id");
	struct celery_request *r = e->r;
	if (level > CANVAS_MAX_LEVELS)
		return;
	ending_text(ending_member(element, "/options/task_id"), &id);
	const struct celery_answer a = {.status = "FAILURE",
					.result = result,
					.traceback = r->detail.len ? buf_span(&r->detail) : SPAN_NONE,
					.done_us = clock_wall_us(),
					.id = buf_span(&id),
					.group = group,
					.parent_id = ending_member(element, "/options/parent_id")};
	if (id.len)
		ending_add_store(e, &a);
	if (id.len && chord.ptr)
		ending_add_part(e, group, ending_member(element, "/options/group_index"), buf_span(&id),
				"FAILURE", result, chord);
	/* A chord in a chain is waited for by its body. */
	struct span body = ending_member(element, "/kwargs/body");
	if (body.ptr && span_is(ending_member(element, "/task"), "\"celery.chord\""))
		ending_fail_element(e, body, result, level + 1);
}

static void ending_init_canvas(struct celery_ending *e, struct canvas *v)
{
	const struct celery_options *c = e->r->owner->o.c;
	canvas_init(v, c, &e->r->owner->sender, c->queue);
}

static void ending_log_canvas(const struct celery_ending *e, const struct err *why)
{
	log_error("task_not_followed", LOG_STR("task_id", e->r->m.id), LOG_STR("task", e->r->m.task),
		  LOG_STR("reason", why->text));
}

/* Called with the id of what failed, as Celery's workers call those that they do not have themselves. */
static void ending_call_errbacks(struct celery_ending *e, struct span errbacks, struct span id,
				 struct span root_id)
{
	CLEANUP(buf_releasep)
	struct buf args = BUF_INIT(8 * CELERY_ID_MAX), quoted = BUF_INIT(8 * CELERY_ID_MAX);
	struct canvas v;
	struct json_iter it;
	struct span key, item;
	struct err why;
	json_quote(&quoted, id);
	buf_printf(&args, "[%s]", quoted.ptr);
	const struct canvas_call call = {.args = buf_span(&args),
					 .root_id = root_id.ptr ? root_id : buf_span(&quoted),
					 .parent_id = buf_span(&quoted)};
	ending_init_canvas(e, &v);
	if (errbacks.ptr && json_type_of(errbacks) == JSON_OBJECT &&
	    canvas_apply(&v, errbacks, &call, &why) != 0)
		ending_log_canvas(e, &why);
	json_iter_init(&it, errbacks.ptr && json_type_of(errbacks) == JSON_ARRAY ? errbacks : SPAN_LIT("[]"));
	while (json_iter_next(&it, &key, &item))
		if (canvas_apply(&v, item, &call, &why) != 0)
			ending_log_canvas(e, &why);
	ending_add_canvas(e, &v);
	canvas_release(&v);
}

/* --- how it ended --------------------------------------------------------------------------------------- */

static struct celery_answer ending_answer(const struct celery_request *r, struct span children)
{
	bool retried = strcmp(r->status, "RETRY") == 0;
	return (struct celery_answer){.status = r->status,
				      .result = buf_span(&r->result),
				      .traceback = r->detail.len ? buf_span(&r->detail) : SPAN_NONE,
				      .children = children,
				      .done_us = retried ? 0 : clock_wall_us(),
				      .id = span_of(r->m.id),
				      .group = r->m.group,
				      .parent_id = r->m.parent_id};
}

static void ending_store_own(struct celery_ending *e, struct span children)
{
	const struct celery_answer a = ending_answer(e->r, children);
	if (!e->r->m.ignores_result && e->r->m.id[0])
		ending_add_store(e, &a);
}

static void ending_count_own(struct celery_ending *e)
{
	const struct celery_request *r = e->r;
	if (r->m.chord.ptr)
		ending_add_part(e, r->m.group, r->m.group_index, span_of(r->m.id), r->status,
				buf_span(&r->result), r->m.chord);
}

static int ending_apply_all(struct celery_ending *e, struct canvas *v, struct err *why)
{
	const struct celery_incoming *m = &e->r->m;
	CLEANUP(buf_releasep)
	struct buf args = BUF_INIT(META_MAX), id = BUF_INIT(8 * CELERY_ID_MAX), rest = BUF_INIT(META_MAX);
	struct json_iter it;
	struct span key, item, last = SPAN_NONE;
	int r = 0;
	buf_putc(&args, '[');
	buf_append_span(&args, buf_span(&e->r->result));
	buf_putc(&args, ']');
	json_quote(&id, span_of(m->id));
	struct canvas_call call = {.args = buf_span(&args),
				   .root_id = m->root_id.ptr ? m->root_id : buf_span(&id),
				   .parent_id = buf_span(&id)};
	json_iter_init(&it, m->callbacks.ptr && json_type_of(m->callbacks) == JSON_ARRAY ? m->callbacks
											 : SPAN_LIT("[]"));
	while (r == 0 && json_iter_next(&it, &key, &item))
		r = canvas_apply(v, item, &call, why);
	json_iter_init(&it, m->chain.ptr && json_type_of(m->chain) == JSON_ARRAY ? m->chain : SPAN_LIT("[]"));
	buf_putc(&rest, '[');
	while (json_iter_next(&it, &key, &item)) {
		if (last.ptr) {
			buf_puts(&rest, rest.len > 1 ? ", " : "");
			buf_append_span(&rest, last);
		}
		last = item;
	}
	buf_putc(&rest, ']');
	call.chain = rest.len > 2 ? buf_span(&rest) : SPAN_NONE;
	if (r == 0 && last.ptr)
		r = canvas_apply(v, last, &call, why);
	return r;
}

static void ending_failure(struct celery_ending *e)
{
	const struct celery_request *r = e->r;
	ending_store_own(e, SPAN_NONE);
	ending_count_own(e);
	if (strcmp(r->status, "REVOKED") == 0)
		return; /* as Celery: only the chord hears of it */
	ending_fail_chain(e, r->m.chain, buf_span(&r->result), 0);
	ending_call_errbacks(e, r->m.errbacks, span_of(r->m.id), r->m.root_id);
}

static void ending_success(struct celery_ending *e)
{
	CLEANUP(buf_releasep) struct buf children = BUF_INIT(META_MAX);
	struct celery_request *r = e->r;
	struct err why = {""};
	struct canvas v;
	ending_init_canvas(e, &v);
	if (ending_apply_all(e, &v, &why) != 0) {
		ending_log_canvas(e, &why);
		canvas_release(&v);
		r->status = "FAILURE";
		r->exc_type = "NotImplementedError";
		buf_clear(&r->result);
		celery_put_exception("NotImplementedError", "builtins", span_of(why.text), &r->result);
		ending_failure(e);
		return;
	}
	ending_add_canvas(e, &v);
	buf_printf(&children, "[%s]", v.children.ptr ? v.children.ptr : "");
	canvas_release(&v);
	ending_store_own(e, buf_span(&children));
	ending_count_own(e);
}

static void ending_retry(struct celery_ending *e)
{
	struct celery_request *r = e->r;
	struct canvas v;
	ending_init_canvas(e, &v);
	if (canvas_again(&v, &r->m, r->held->raw, span_of(r->owner->o.queues[r->held->queue]), r->again_us) ==
	    0)
		ending_add_canvas(e, &v);
	canvas_release(&v);
	ending_store_own(e, SPAN_NONE);
}

/* --- chords --------------------------------------------------------------------------------------------- */

#define CHORD_KEYS 6 /* the last is the group's own */

static void ending_chord_keys(const struct celery_ending *e, const struct ending_job *j,
			      struct buf keys[CHORD_KEYS])
{
	static const char *const suffixes[CHORD_KEYS] = {".j", ".t", ".s", ".d", ".c", ""};
	for (size_t i = 0; i < CHORD_KEYS; i++) {
		buf_init(&keys[i], 4096);
		buf_printf(&keys[i], "%s" GROUP_PREFIX "%s%s", e->r->owner->o.c->result_prefix, j->key.ptr,
			   suffixes[i]);
	}
}

/* What follows this job comes right after it. */
static void ending_insert_after(struct celery_ending *e, struct ending_job *j)
{
	e->last_new = j;
}

static void ending_chord_failed(struct celery_ending *e, struct ending_job *j, struct span message)
{
	CLEANUP(buf_releasep) struct buf result = BUF_INIT(META_MAX), id = BUF_INIT(CELERY_ID_MAX);
	struct span body = buf_span(&j->more);
	celery_put_exception("ChordError", "celery.exceptions", message, &result);
	ending_text(ending_member(body, "/options/task_id"), &id);
	log_warn("chord_failed", LOG_SPAN("group", buf_span(&j->key)), LOG_SPAN("reason", message));
	if (span_is(ending_member(body, "/task"), "\"celery.group\"")) {
		ending_fail_chain(e, ending_member(body, "/kwargs/tasks"), buf_span(&result), 0);
	} else if (span_is(ending_member(body, "/task"), "\"celery.chain\"")) {
		ending_fail_chain(e, ending_member(body, "/kwargs/tasks"), buf_span(&result), 0);
	} else {
		ending_fail_element(e, body, buf_span(&result), 0);
	}
	ending_fail_chain(e, ending_member(body, "/options/chain"), buf_span(&result), 0);
	ending_call_errbacks(e, ending_member(body, "/options/link_error"), buf_span(&id), SPAN_NONE);
}

/* Why a part makes the chord fail, or nothing. */
static bool ending_part_failed(struct span part, struct buf *why)
{
	static const struct span parts[] = {SPAN_INIT("/1"), SPAN_INIT("/2"), SPAN_INIT("/3")};
	CLEANUP(buf_releasep)
	struct buf type = BUF_INIT(1024), repr = BUF_INIT(1u << 16), text = BUF_INIT(META_MAX),
		   id = BUF_INIT(CELERY_ID_MAX);
	struct span f[3];
	if (json_pointers(part, parts, 3, f, NULL) < 0 ||
	    !(span_is(f[1], "\"FAILURE\"") || span_is(f[1], "\"REVOKED\"")))
		return false;
	ending_text(f[0], &id);
	ending_text(ending_member(f[2], "/exc_type"), &type);
	ending_text(ending_member(f[2], "/exc_message/0"), &text);
	celery_put_exception_repr(type.len ? type.ptr : "Exception", text.len ? buf_span(&text) : SPAN_NONE,
				  &repr);
	buf_printf(why, "Dependency %s raised %s", id.ptr ? id.ptr : "", repr.ptr);
	return true;
}

/* --- the structure of a chord's results ----------------------------------------------------------------- */

struct ending_leaf {
	struct span id, result; /* raw JSON */
};

static int ending_leaf_order(const void *a, const void *b)
{
	struct span x = ((const struct ending_leaf *)a)->id, y = ((const struct ending_leaf *)b)->id;
	int r = memcmp(x.ptr, y.ptr, x.len < y.len ? x.len : y.len);
	return r ? r : (x.len > y.len) - (x.len < y.len);
}

/* A node is ((id, parent), nodes): a group by its nodes, a task by null. False: a result is missing. */
static bool ending_put_node(const struct ending_leaf *leaves, size_t n, struct span node, unsigned level,
			    struct buf *out)
{
	static const struct span parts[] = {SPAN_INIT("/0/0"), SPAN_INIT("/1")};
	struct span f[2], key, item;
	struct json_iter it;
	bool good = true;
	if (level > CANVAS_MAX_LEVELS || json_pointers(node, parts, 2, f, NULL) < 0 || !f[0].ptr)
		return false;
	if (!f[1].ptr || json_type_of(f[1]) != JSON_ARRAY) {
		const struct ending_leaf wanted = {.id = f[0]},
					 *leaf = bsearch(&wanted, leaves, n, sizeof(*leaves),
							 ending_leaf_order);
		buf_append_span(out, leaf ? leaf->result : SPAN_LIT("null"));
		return leaf != NULL;
	}
	buf_putc(out, '[');
	json_iter_init(&it, f[1]);
	for (size_t i = 0; good && json_iter_next(&it, &key, &item); i++) {
		buf_puts(out, i ? ", " : "");
		good = ending_put_node(leaves, n, item, level + 1, out);
	}
	buf_putc(out, ']');
	return good;
}

static bool ending_put_structure(struct span structure, struct ending_leaf *leaves, size_t n, struct buf *out)
{
	struct span root = SPAN_NONE;
	qsort(leaves, n, sizeof(*leaves), ending_leaf_order);
	return json_pointer(structure, SPAN_LIT("/result"), &root) &&
	       ending_put_node(leaves, n, root, 0, out) && out->len && out->ptr[0] == '[';
}

/* The results as the body gets them, or why it gets none. */
static void ending_put_results(const struct redis_reply *all, struct buf *out, struct buf *why)
{
	struct span structure = redis_reply_text(redis_reply_at(all, 0));
	const struct redis_reply *item;
	size_t n = 0;
	while (redis_reply_at(all, n + 1))
		n++;
	CLEANUP(freep) struct ending_leaf *leaves = calloc(n + 1, sizeof(*leaves));
	for (size_t i = 0; leaves && i < n && (item = redis_reply_at(all, i + 1)); i++) {
		static const struct span parts[] = {SPAN_INIT("/1"), SPAN_INIT("/3")};
		struct span part = redis_reply_text(item), f[2];
		if (ending_part_failed(part, why))
			return;
		bool good = json_pointers(part, parts, 2, f, NULL) == 0 && f[0].ptr;
		leaves[i] = (struct ending_leaf){.id = good ? f[0] : SPAN_LIT(""),
						 .result = good && f[1].ptr ? f[1] : SPAN_LIT("null")};
	}
	if (!leaves) {
		buf_puts(why, "out of memory");
		return;
	}
	if (structure.len) {
		if (!ending_put_structure(structure, leaves, n, out))
			buf_puts(why, "the results of the groups within it cannot be put together");
		return;
	}
	buf_putc(out, '[');
	for (size_t i = 0; i < n; i++) {
		buf_puts(out, i ? ", " : "");
		buf_append_span(out, leaves[i].result);
	}
	buf_putc(out, ']');
}

/* All parts are there, in order: the body is applied to their results. */
static void ending_apply_body(struct celery_ending *e, struct ending_job *j, const struct redis_reply *all)
{
	CLEANUP(buf_releasep) struct buf args = BUF_INIT(META_MAX), why = BUF_INIT(1u << 16);
	CLEANUP(buf_releasep) struct buf results = BUF_INIT(META_MAX);
	struct canvas v;
	struct err error = {""};
	ending_put_results(all, &results, &why);
	if (why.len) {
		ending_chord_failed(e, j, buf_span(&why));
		return;
	}
	buf_printf(&args, "[%s]", results.ptr);
	if (results.error)
		args.error = results.error;
	ending_init_canvas(e, &v);
	const struct canvas_call call = {.args = buf_span(&args)};
	int r = args.error ? err_set(&error, -ENOMEM, "out of memory")
			   : canvas_apply(&v, buf_span(&j->more), &call, &error);
	if (r == 0)
		ending_add_canvas(e, &v);
	else
		ending_chord_failed(e, j, span_of(error.text));
	canvas_release(&v);
}

static void ending_add_same(struct celery_ending *e, const struct ending_job *j, enum ending_kind kind)
{
	struct ending_job *same = ending_add(e, kind);
	if (!same)
		return;
	buf_append_span(&same->key, buf_span(&j->key));
	buf_append_span(&same->more, buf_span(&j->more));
}

/* --- writing -------------------------------------------------------------------------------------------- */

static void ending_on_written(void *arg, int64_t first, const struct err *why)
{
	struct celery_ending *e = arg;
	struct ending_job *j = STAILQ_FIRST(&e->jobs);
	const struct redis_reply *reply = e->r->owner->o.results->reply;
	if (why)
		log_error("task_end_refused", LOG_STR("task_id", e->r->m.id), LOG_STR("task", e->r->m.task),
			  LOG_STR("error", why->text),
			  LOG_STR("effect", "a result, or what follows the task, is missing"));
	ending_insert_after(e, j);
	if (!why && j->kind == ENDING_PART && first == 1)
		ending_add_same(e, j, ENDING_READ);
	if (!why && j->kind == ENDING_READ) {
		ending_apply_body(e, j, reply);
		ending_add_same(e, j, ENDING_DONE);
	}
	STAILQ_REMOVE_HEAD(&e->jobs, next);
	ending_job_free(j);
	ending_next(e);
}

static int ending_write_chord(struct celery_ending *e, struct ending_job *j)
{
	struct celery_writes *w = e->r->owner->o.results;
	CLEANUP(buf_releasep) struct buf member = BUF_INIT(16 * CELERY_ID_MAX);
	struct buf keys[CHORD_KEYS];
	char seconds[24];
	int r;
	ending_chord_keys(e, j, keys);
	snprintf(seconds, sizeof(seconds), "%u", e->r->owner->o.c->result_expires_ms / 1000);
	buf_printf(&member, "%s:%s", j->task.ptr ? j->task.ptr : "", j->index.ptr ? j->index.ptr : "");
	struct span k[CHORD_KEYS];
	for (size_t i = 0; i < CHORD_KEYS; i++)
		k[i] = buf_span(&keys[i]);
	const struct span part[] = {SPAN_LIT("EVAL"),
				    span_of(part_script),
				    SPAN_LIT("5"),
				    k[0],
				    k[1],
				    k[2],
				    k[3],
				    k[4],
				    buf_span(&member),
				    buf_span(&j->index),
				    buf_span(&j->text),
				    span_of(seconds),
				    SPAN_LIT(CLAIM_SECONDS),
				    span_of(e->token)},
			  read[] = {SPAN_LIT("EVAL"), span_of(read_script), SPAN_LIT("2"), k[0], k[5]},
			  done[] = {SPAN_LIT("EVAL"),
				    span_of(done_script),
				    SPAN_LIT("5"),
				    k[0],
				    k[1],
				    k[2],
				    k[3],
				    k[4],
				    span_of(e->token),
				    SPAN_LIT(DONE_SECONDS)},
			  del[] = {SPAN_LIT("DEL"), k[4]},
			  set[] = {SPAN_LIT("SET"), k[2], SPAN_NONE, SPAN_LIT("EX"), span_of(seconds)};
	char count[24];
	snprintf(count, sizeof(count), "%zu", j->n);
	struct span size[5];
	memcpy(size, set, sizeof(size));
	size[2] = span_of(count);
	struct celery_command commands[2] = {{part, 14}, {size, e->r->owner->o.c->result_expires_ms ? 5 : 3}};
	if (j->kind == ENDING_READ)
		commands[0] = (struct celery_command){read, 5};
	else if (j->kind == ENDING_DONE)
		commands[0] = (struct celery_command){done, 10};
	else if (j->kind == ENDING_SIZE)
		commands[0] = (struct celery_command){del, 2};
	r = celery_writes_add(w, commands, j->kind == ENDING_SIZE ? 2 : 1, ending_on_written, e);
	for (size_t i = 0; i < CHORD_KEYS; i++)
		buf_release(&keys[i]);
	return r;
}

static int ending_write_push(struct celery_ending *e, struct ending_job *j)
{
	const struct celery_requests_options *o = &e->r->owner->o;
	CLEANUP(buf_releasep) struct buf list = BUF_INIT(4096);
	buf_puts(&list, o->c->broker_prefix);
	celery_queue_key(&o->c->lists, buf_span(&j->key), j->priority, &list);
	return celery_writes_push_once(o->broker, o->c->broker_prefix, buf_span(&list), buf_span(&j->text),
				       true, ending_on_written, e);
}

static int ending_store(struct celery_requests *q, struct span id, struct span meta, celery_write_fn fn,
			void *arg)
{
	const struct celery_options *c = q->o.c;
	CLEANUP(buf_releasep) struct buf key = BUF_INIT(CELERY_PREFIX_MAX + CELERY_ID_MAX + 64);
	char expires[24];
	buf_printf(&key, "%s" CELERY_RESULT_PREFIX "%.*s", c->result_prefix, SPAN_ARG(id));
	snprintf(expires, sizeof(expires), "%u", c->result_expires_ms / 1000);
	const struct span setex[] = {SPAN_LIT("SETEX"), buf_span(&key), span_of(expires), meta},
			  set[] = {SPAN_LIT("SET"), buf_span(&key), meta},
			  publish[] = {SPAN_LIT("PUBLISH"), buf_span(&key), meta};
	bool forever = c->result_expires_ms == 0;
	const struct celery_command commands[] = {{forever ? set : setex, forever ? 3 : 4}, {publish, 3}};
	return celery_writes_add(q->o.results, commands, 2, fn, arg);
}

void celery_store_started(struct celery_request *r, struct span result)
{
	CLEANUP(buf_releasep) struct buf meta = BUF_INIT(1u << 16);
	const struct celery_answer a = {.status = "STARTED",
					.result = result,
					.id = span_of(r->m.id),
					.group = r->m.group,
					.parent_id = r->m.parent_id};
	celery_put_answer(&a, &meta);
	ending_store(r->owner, span_of(r->m.id), buf_span(&meta), NULL, NULL);
}

static int ending_write(struct celery_ending *e, struct ending_job *j)
{
	if (j->text.error || j->key.error || j->more.error)
		return -ENOMEM;
	if (j->kind == ENDING_PUSH)
		return ending_write_push(e, j);
	if (j->kind == ENDING_STORE)
		return ending_store(e->r->owner, buf_span(&j->key), buf_span(&j->text), ending_on_written, e);
	return ending_write_chord(e, j);
}

static void ending_next(struct celery_ending *e)
{
	struct ending_job *j = STAILQ_FIRST(&e->jobs);
	if (!j) {
		struct celery_request *r = e->r;
		void (*fn)(struct celery_request * r) = e->fn;
		r->ending = NULL;
		celery_ending_free(e);
		fn(r);
		return;
	}
	if (ending_write(e, j) < 0)
		ending_on_written(e, 0, &(struct err){"out of memory"});
}

static void ending_on_begin(struct loop_work *work)
{
	struct celery_ending *e =
		(struct celery_ending *)((char *)work - offsetof(struct celery_ending, begin));
	e->begin_due = false;
	ending_next(e);
}

struct celery_ending *celery_end(struct celery_request *r, void (*fn)(struct celery_request *r))
{
	struct celery_ending *e = calloc(1, sizeof(*e));
	if (!e)
		return NULL;
	e->r = r;
	e->fn = fn;
	e->begin.fn = ending_on_begin;
	STAILQ_INIT(&e->jobs);
	crypto_random_id(e->token);
	if (strcmp(r->status, "SUCCESS") == 0)
		ending_success(e);
	else if (strcmp(r->status, "RETRY") == 0)
		ending_retry(e);
	else
		ending_failure(e);
	e->begin_due = true;
	loop_defer(r->owner->o.loop, &e->begin);
	return e;
}
