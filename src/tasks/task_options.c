#include "tasks/task_options.h"

#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/size.h"

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
	return err_set(e, -EINVAL, "%s has no setting \"%.*s\"; available: %s", backend->name, SPAN_ARG(key),
		       known.ptr ? known.ptr : "none");
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

int task_setup_mistakes(const struct task_backend_setup *setup, int code, const char *setting,
			struct span lines, struct err *e)
{
	const char *end = lines.len ? memchr(lines.ptr, '\n', lines.len) : NULL;
	if (!lines.len)
		return err_set(e, code, "%s: the file cannot be read", setting);
	if (!setup->problems || code != -EBADMSG) /* cannot be read: the place is that of the setting */
		return err_set(e, code, "%.*s", (int)(end ? end - lines.ptr : (ptrdiff_t)lines.len),
			       lines.ptr);
	buf_append_span(setup->problems, lines);
	e->text[0] = '\0';
	return code;
}

int task_setting_duration(void *field, struct span value, unsigned min_ms, unsigned max_ms, struct err *e)
{
	CLEANUP(freep) char *text = span_dup(value);
	char low[CLOCK_TEXT_MAX], high[CLOCK_TEXT_MAX];
	int64_t ms;
	clock_format_duration(min_ms, low);
	clock_format_duration(max_ms, high);
	if (!text || strlen(text) != value.len || clock_parse_duration(text, &ms) < 0 || ms < min_ms ||
	    ms > max_ms)
		return err_set(e, -EINVAL,
			       "expected a duration from %s to %s (500ms, 5s, 2m, 1h, 7d), not \"%.*s\"", low,
			       high, (int)(value.len < 60 ? value.len : 60), value.ptr);
	*(unsigned *)field = (unsigned)ms;
	return 0;
}

int task_setting_size(void *field, struct span value, size_t max, struct err *e)
{
	CLEANUP(freep) char *text = span_dup(value);
	char most[SIZE_TEXT_MAX];
	uint64_t bytes;
	size_format(max, most);
	if (!text || strlen(text) != value.len || size_parse(text, &bytes) < 0 || bytes < 1 || bytes > max)
		return err_set(e, -EINVAL,
			       "expected a size from 1 to %s (bytes, or with KiB, MiB, GiB), not \"%.*s\"",
			       most, (int)(value.len < 60 ? value.len : 60), value.ptr);
	*(size_t *)field = (size_t)bytes;
	return 0;
}
