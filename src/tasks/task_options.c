#include "tasks/task_options.h"

#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/nearest.h"
#include "base/size.h"
#include "base/text.h"
#include "base/url.h"

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
	const char *keys[TASK_SETTINGS_MAX];
	size_t n = 0;
	for (const struct task_setting *s = backend->settings; s->key && n < TASK_SETTINGS_MAX; s++) {
		buf_printf(&known, "%s%s", n ? ", " : "", s->key);
		keys[n++] = s->key;
	}
	const char *near = nearest_word(key, keys, n);
	if (near)
		return err_set(e, -EINVAL, "%s has no setting \"%.*s\"; did you mean \"%s\"?", backend->name,
			       SPAN_ARG(key), near);
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
	char range[CLOCK_RANGE_MAX], shown[TEXT_SHOWN_MAX];
	uint64_t ms;
	if (!clock_duration_within(value, min_ms, max_ms, &ms)) {
		clock_duration_range(min_ms, max_ms, range);
		return err_set(e, -EINVAL, "expected %s, not %s", range, text_shown(value, shown));
	}
	*(unsigned *)field = (unsigned)ms;
	return 0;
}

int task_setting_size(void *field, struct span value, size_t max, struct err *e)
{
	char range[SIZE_RANGE_MAX], shown[TEXT_SHOWN_MAX];
	uint64_t bytes;
	if (!size_within(value, 1, max, &bytes)) {
		size_range(1, max, range);
		return err_set(e, -EINVAL, "expected %s, not %s", range, text_shown(value, shown));
	}
	*(size_t *)field = (size_t)bytes;
	return 0;
}

int task_setting_bool(void *field, struct span value, struct err *e)
{
	char shown[TEXT_SHOWN_MAX];
	if (!span_is(value, "true") && !span_is(value, "false"))
		return err_set(e, -EINVAL, "expected true or false, not %s", text_shown(value, shown));
	*(bool *)field = span_is(value, "true");
	return 0;
}

/* Without what was found: it may hold a password. */
int task_setting_url(void *field, struct span value, struct err *e)
{
	const char *wrong = url_mistake(value, URL_BASE);
	if (wrong)
		return err_set(e, -EINVAL, "%s", wrong);
	int r = task_setting_text(field, url_without_slash(value), e);
	if (r == 0)
		url_lower_scheme(*(char **)field);
	return r;
}
