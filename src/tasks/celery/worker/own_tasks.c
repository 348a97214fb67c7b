#include "tasks/celery/worker/own_tasks.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct span own_argument(const struct celery_incoming *m, const char *name, const char *position)
{
	struct span value = SPAN_NONE;
	if (!json_pointer(m->kwargs, span_of(name), &value))
		json_pointer(m->args, span_of(position), &value);
	return value;
}

/* args[index], or all of them. */
static int own_accumulate(const struct celery_incoming *m, struct buf *result, struct err *e)
{
	struct span index = SPAN_NONE, key, item;
	struct json_iter it;
	char text[16];
	json_pointer(m->kwargs, SPAN_LIT("/index"), &index);
	if (!index.ptr || json_type_of(index) == JSON_NULL)
		return buf_append_span(result, m->args) < 0 ? -ENOMEM : CELERY_OWN_RESULT;
	span_copy(index, text, sizeof(text));
	json_iter_init(&it, m->args);
	for (long i = strtol(text, NULL, 10); json_iter_next(&it, &key, &item); i--)
		if (i == 0)
			return buf_append_span(result, item) < 0 ? -ENOMEM : CELERY_OWN_RESULT;
	return err_set(e, -EINVAL, "celery.accumulate has no argument %s", text);
}

static int own_map(const struct celery_incoming *m, bool star, struct celery_each *each, struct err *e)
{
	CLEANUP(buf_releasep) struct buf name = BUF_INIT(CELERY_ID_MAX);
	struct span task = own_argument(m, "/task", "/0"), items = own_argument(m, "/it", "/1"),
		    inner = SPAN_NONE;
	if (task.ptr && json_type_of(task) == JSON_OBJECT)
		json_pointer(task, SPAN_LIT("/task"), &inner);
	if (!inner.ptr || json_type_of(inner) != JSON_STRING || json_unescape(inner, &name) < 0 ||
	    !name.len || name.len >= sizeof(each->task) || memchr(name.ptr, '\0', name.len))
		return err_set(e, -EINVAL, "%s names no task to call", m->task);
	if (!items.ptr || json_type_of(items) != JSON_ARRAY)
		return err_set(e, -EINVAL, "%s has no list of items", m->task);
	span_copy(buf_span(&name), each->task, sizeof(each->task));
	each->star = star;
	json_iter_init(&each->items, items);
	buf_init(&each->args, CELERY_BODY_MAX);
	buf_init(&each->results, CELERY_BODY_MAX);
	return CELERY_OWN_EACH;
}

int celery_own_read(const struct celery_incoming *m, struct celery_each *each, struct buf *result,
		    struct err *e)
{
	if (strcmp(m->task, "celery.map") == 0 || strcmp(m->task, "celery.starmap") == 0)
		return own_map(m, strcmp(m->task, "celery.starmap") == 0, each, e);
	if (strcmp(m->task, "celery.accumulate") == 0)
		return own_accumulate(m, result, e);
	/* Redis forgets results by itself. */
	if (strcmp(m->task, "celery.backend_cleanup") == 0)
		return buf_puts(result, "null") < 0 ? -ENOMEM : CELERY_OWN_RESULT;
	return CELERY_OWN_NONE;
}

bool celery_each_next(struct celery_each *each, struct span *ret_args)
{
	struct span key, item;
	if (!json_iter_next(&each->items, &key, &item))
		return false;
	buf_clear(&each->args);
	/* An item of starmap that is no list is what Python's * takes apart; here it is one argument. */
	bool list = each->star && json_type_of(item) == JSON_ARRAY;
	buf_puts(&each->args, list ? "" : "[");
	buf_append_span(&each->args, item);
	buf_puts(&each->args, list ? "" : "]");
	*ret_args = buf_span(&each->args);
	return !each->args.error;
}

int celery_each_add(struct celery_each *each, struct span result)
{
	buf_puts(&each->results, each->results.len ? ", " : "");
	buf_append_span(&each->results, result);
	return each->results.error ? -ENOMEM : 0;
}

int celery_each_put(const struct celery_each *each, struct buf *out)
{
	buf_putc(out, '[');
	buf_append_span(out, buf_span(&each->results));
	buf_putc(out, ']');
	return out->error ? -ENOMEM : 0;
}

void celery_each_release(struct celery_each *each)
{
	buf_release(&each->args);
	buf_release(&each->results);
}
