#include "tasks/worker/builtin.h"

#include <errno.h>

#include "base/json.h"

static const char *type_name(enum json_type t)
{
	static const char *const names[] = {
		[JSON_NULL] = "null",	     [JSON_FALSE] = "a boolean", [JSON_TRUE] = "a boolean",
		[JSON_NUMBER] = "a number",  [JSON_STRING] = "a string", [JSON_ARRAY] = "an array",
		[JSON_OBJECT] = "an object",
	};
	return names[t];
}

static int check_type(const struct builtin *b, const struct builtin_param *p, struct span value,
		      struct err *e)
{
	static const enum json_type wanted[] = {[BUILTIN_NUMBER] = JSON_NUMBER,
						[BUILTIN_STRING] = JSON_STRING,
						[BUILTIN_OBJECT] = JSON_OBJECT};
	enum json_type got = json_type_of(value);
	if (p->type == BUILTIN_ANY || got == wanted[p->type])
		return 0;
	return err_set(e, -EINVAL, "%s() argument '%s' must be %s, not %s", b->name, p->name,
		       type_name(wanted[p->type]), type_name(got));
}

static int bind_positional(const struct builtin *b, struct span args, struct builtin_call *call,
			   struct err *e)
{
	struct json_iter it;
	struct span key, value;
	size_t n = 0;
	json_iter_init(&it, args);
	for (; json_iter_next(&it, &key, &value); n++)
		if (n < b->n_params)
			call->values[n] = value;
	if (n > b->n_params)
		return err_set(e, -EINVAL, "%s() takes %zu positional argument%s but %zu were given", b->name,
			       b->n_params, b->n_params == 1 ? "" : "s", n);
	return 0;
}

static int bind_keyword(const struct builtin *b, size_t n_positional, struct span key, struct span value,
			struct builtin_call *call, struct err *e)
{
	CLEANUP(buf_releasep) struct buf name = BUF_INIT(256);
	if (json_unescape(key, &name) < 0)
		return err_set(e, -EINVAL, "%s() got an unexpected keyword argument", b->name);
	for (size_t i = 0; i < b->n_params; i++) {
		if (!span_is(buf_span(&name), b->params[i].name))
			continue;
		if (i < n_positional)
			return err_set(e, -EINVAL, "%s() got multiple values for argument '%s'", b->name,
				       b->params[i].name);
		call->values[i] = value; /* of duplicate keys the last one wins, as in Python's json */
		return 0;
	}
	return err_set(e, -EINVAL, "%s() got an unexpected keyword argument '%.*s'", b->name,
		       SPAN_ARG(buf_span(&name)));
}

static int bind_keywords(const struct builtin *b, struct span kwargs, struct builtin_call *call,
			 struct err *e)
{
	struct json_iter it;
	struct span key, value;
	size_t n_positional = 0;
	while (n_positional < b->n_params && call->values[n_positional].ptr)
		n_positional++;
	json_iter_init(&it, kwargs);
	while (json_iter_next(&it, &key, &value)) {
		int r = bind_keyword(b, n_positional, key, value, call, e);
		if (r < 0)
			return r;
	}
	return 0;
}

int builtin_bind(const struct builtin *b, struct span args, struct span kwargs, struct builtin_call *call,
		 struct err *e)
{
	memset(call->values, 0, sizeof(call->values));
	int r = args.len ? bind_positional(b, args, call, e) : 0;
	if (r == 0 && kwargs.len)
		r = bind_keywords(b, kwargs, call, e);
	for (size_t i = 0; r == 0 && i < b->n_params; i++) {
		const struct builtin_param *p = &b->params[i];
		if (!call->values[i].ptr)
			call->values[i] = span_of(p->fallback);
		if (!call->values[i].ptr)
			return err_set(e, -EINVAL, "%s() missing required argument: '%s'", b->name, p->name);
		r = check_type(b, p, call->values[i], e);
	}
	return r;
}
