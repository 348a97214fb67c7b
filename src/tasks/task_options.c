#include "tasks/task_options.h"

#include <errno.h>
#include <stdlib.h>

int task_options_new(const struct task_backend *backend, struct task_options **ret, struct err *e)
{
	*ret = calloc(1, backend->options_size);
	if (!*ret)
		return err_set(e, -ENOMEM, "out of memory");
	(*ret)->backend = backend;
	return 0;
}

const struct task_setting *task_setting_find(const struct task_backend *backend, struct span key)
{
	for (const struct task_setting *s = backend->settings; s->key; s++)
		if (span_is(key, s->key))
			return s;
	return NULL;
}

static int no_such_setting(const struct task_backend *backend, struct span key, struct err *e)
{
	CLEANUP(buf_releasep) struct buf known = BUF_INIT(4096);
	for (const struct task_setting *s = backend->settings; s->key; s++)
		buf_printf(&known, "%s%s", s == backend->settings ? "" : ", ", s->key);
	return err_set(e, -EINVAL, "%s has no setting \"%.*s\"; there are: %s", backend->name, SPAN_ARG(key), known.ptr ? known.ptr : "none");
}

int task_options_set(struct task_options *o, struct span key, struct span value, struct err *e)
{
	const struct task_setting *s = task_setting_find(o->backend, key);
	return s ? s->set((char *)o + s->offset, value, e) : no_such_setting(o->backend, key, e);
}

int task_options_check(struct task_options *o, const struct task_backend_setup *setup, struct err *e)
{
	return o->backend->options_check ? o->backend->options_check(o, setup, e) : 0;
}

int task_options_start(struct task_options *o, struct err *e)
{
	return o->backend->options_start ? o->backend->options_start(o, e) : 0;
}

struct task_options *task_options_free(struct task_options *o)
{
	if (!o)
		return NULL;
	o->backend->options_release(o);
	free(o);
	return NULL;
}

int task_setting_text(void *field, struct span value, struct err *e)
{
	char **text = field, *copy = span_dup(value);
	if (!copy)
		return err_set(e, -ENOMEM, "out of memory");
	free(*text);
	*text = copy;
	return 0;
}
