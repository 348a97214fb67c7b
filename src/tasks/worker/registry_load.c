/*
 * Reads tasks.yml. Every mistake becomes one line in `problems`; reading goes on, so that all are seen at
 * once.
 */
#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "base/size.h"
#include "base/text.h"
#include "base/yaml.h"
#include "tasks/task_backend.h"
#include "tasks/worker/call_template.h"
#include "tasks/worker/registry_internal.h"

#define MAX_TIMEOUT_MS (7 * 86400000LL)
#define MAX_OUTPUT (64u << 20)
#define DEFAULT_ATTEMPTS 3

/* What a variable gave to a text: where it stands in it. */
struct substitution {
	struct span name;
	size_t at, len;
};

#define SUBSTITUTIONS_MAX 64

struct registry_reader {
	struct registry *registry;
	const char *path;
	char folder[PATH_MAX];
	const char *(*getenv_fn)(const char *);
	struct buf *problems;
	bool wrong;
	bool elsewhere;		 /* tasks are somebody else's: not read, and steps may name any */
	struct secrets *secrets; /* of the task that is being read */
	struct substitution given[SUBSTITUTIONS_MAX]; /* to the last text */
	size_t n_given;
	char where[256]; /* the key that contains what is being read: tasks[2].exec */
};

typedef void (*read_fn)(struct registry_reader *r, const struct yaml_node *n, void *into);

struct key_reader {
	const char *key;
	read_fn read;
	bool required;
};

static void registry_load_mistake(struct registry_reader *r, const struct yaml_node *n, const char *key,
				  const char *format, ...) __attribute__((format(printf, 4, 5)));

static void registry_load_mistake(struct registry_reader *r, const struct yaml_node *n, const char *key,
				  const char *format, ...)
{
	va_list ap;
	r->wrong = true;
	buf_printf(r->problems, "%s:%u: %s%s%s: ", r->path, n ? n->line : 1, r->where,
		   r->where[0] && key[0] ? "." : "", key);
	va_start(ap, format);
	buf_vprintf(r->problems, format, ap);
	va_end(ap);
	buf_putc(r->problems, '\n');
}

static const char *key_of(const struct yaml_node *n)
{
	return n->key ? n->key->text.ptr : "";
}

static const struct key_reader *find_key(const struct key_reader *keys, size_t n, struct span key)
{
	for (size_t i = 0; i < n; i++)
		if (span_is(key, keys[i].key))
			return &keys[i];
	return NULL;
}

static void registry_load_unknown_key(struct registry_reader *r, const struct yaml_node *item,
				      const struct key_reader *keys, size_t n)
{
	CLEANUP(buf_releasep) struct buf known = BUF_INIT(1024);
	for (size_t i = 0; i < n; i++)
		buf_printf(&known, "%s%s", i ? ", " : "", keys[i].key);
	registry_load_mistake(r, item, key_of(item), "unknown key; available: %s", known.ptr);
}

static void read_mapping(struct registry_reader *r, const struct yaml_node *n, const struct key_reader *keys,
			 size_t n_keys, void *into)
{
	if (!n || n->kind != YAML_MAPPING) {
		registry_load_mistake(r, n, "", "must be a mapping");
		return;
	}
	for (const struct yaml_node *item = n->first; item; item = item->next) {
		const struct key_reader *k = find_key(keys, n_keys, item->key->text);
		if (k)
			k->read(r, item, into);
		else
			registry_load_unknown_key(r, item, keys, n_keys);
	}
	for (size_t i = 0; i < n_keys; i++)
		if (keys[i].required && !yaml_get(n, keys[i].key))
			registry_load_mistake(r, n, keys[i].key, "is missing");
}

#define READ_MAPPING(r, n, keys, into) \
	read_mapping((r), (n), (keys), sizeof(keys) / sizeof((keys)[0]), (into))

/* Puts `text` into `where` while something inside is read. */
static void enter(struct registry_reader *r, char saved[256], const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static void enter(struct registry_reader *r, char saved[256], const char *format, ...)
{
	va_list ap;
	memcpy(saved, r->where, sizeof(r->where));
	size_t at = strlen(r->where);
	if (at && at < sizeof(r->where) - 1)
		r->where[at++] = '.';
	va_start(ap, format);
	vsnprintf(r->where + at, sizeof(r->where) - at, format, ap);
	va_end(ap);
}

static void leave(struct registry_reader *r, const char saved[256])
{
	memcpy(r->where, saved, sizeof(r->where));
}

/* --- values --------------------------------------------------------------------------------------------- */

static void registry_load_read_name(struct registry_reader *r, const struct yaml_node *n, struct span *ret)
{
	struct span s;
	if (!yaml_string(n, &s) || s.len == 0 || s.len >= TASK_NAME_MAX)
		registry_load_mistake(r, n, key_of(n), "must be a string of 1 to %d characters",
				      TASK_NAME_MAX - 1);
	else
		*ret = s;
}

static void read_duration(struct registry_reader *r, const struct yaml_node *n, unsigned *ret)
{
	struct span s;
	int64_t ms;
	if (!yaml_string(n, &s) || clock_parse_duration(s.ptr, &ms) < 0 || ms < 1 || ms > MAX_TIMEOUT_MS)
		registry_load_mistake(r, n, key_of(n), "must be a duration from 1ms to 7d, like 30s");
	else
		*ret = (unsigned)ms;
}

static void read_bool(struct registry_reader *r, const struct yaml_node *n, bool *ret)
{
	if (!yaml_bool(n, ret))
		registry_load_mistake(r, n, key_of(n), "must be true or false");
}

static void read_size(struct registry_reader *r, const struct yaml_node *n, size_t *ret)
{
	struct span s;
	uint64_t bytes;
	if (!yaml_string(n, &s) || memchr(s.ptr, '\0', s.len) || size_parse(s.ptr, &bytes) < 0 || bytes < 1 ||
	    bytes > MAX_OUTPUT)
		registry_load_mistake(r, n, key_of(n), "must be a size from 1 to 64MiB, like 8MiB");
	else
		*ret = (size_t)bytes;
}

/* ${NAME} and ${NAME:-default}; an unset one without a default is a mistake. */
static bool put_variable(struct registry_reader *r, const struct yaml_node *n, struct span inside,
			 struct buf *out)
{
	const char *mark = memmem(inside.ptr, inside.len, ":-", 2);
	size_t name_len = mark ? (size_t)(mark - inside.ptr) : inside.len;
	CLEANUP(freep) char *name = span_dup((struct span){inside.ptr, name_len});
	const char *value = name && *name ? r->getenv_fn(name) : NULL;
	if (value && *value) {
		if (r->n_given == SUBSTITUTIONS_MAX)
			registry_load_mistake(r, n, key_of(n), "more than %d environment variables",
					      SUBSTITUTIONS_MAX);
		else
			r->given[r->n_given++] =
				(struct substitution){{inside.ptr, name_len}, out->len, strlen(value)};
		buf_puts(out, value);
	} else if (mark)
		buf_append(out, mark + 2, inside.len - name_len - 2);
	else
		registry_load_mistake(r, n, key_of(n), "the environment variable %.*s is not set",
				      (int)name_len, inside.ptr);
	return value || mark;
}

static char *expand(struct registry_reader *r, const struct yaml_node *n, struct span s)
{
	CLEANUP(buf_releasep) struct buf out = BUF_INIT(1 << 16);
	r->n_given = 0;
	for (size_t i = 0; i < s.len;) {
		const char *end = NULL;
		if (s.len - i > 3 && s.ptr[i] == '$' && s.ptr[i + 1] == '{')
			end = memchr(s.ptr + i, '}', s.len - i);
		if (!end) {
			buf_putc(&out, s.ptr[i++]);
			continue;
		}
		if (!put_variable(r, n, (struct span){s.ptr + i + 2, (size_t)(end - s.ptr) - i - 2}, &out))
			return NULL;
		i = (size_t)(end - s.ptr) + 1;
	}
	if (memchr(s.ptr, '\0', s.len) || out.error) {
		registry_load_mistake(r, n, key_of(n), "is too long or has a NUL in it");
		return NULL;
	}
	return buf_steal(&out);
}

static void read_text(struct registry_reader *r, const struct yaml_node *n, char **ret)
{
	struct span s;
	if (!yaml_string(n, &s)) {
		registry_load_mistake(r, n, key_of(n), "must be a text");
		return;
	}
	free(*ret);
	*ret = expand(r, n, s);
}

/* What the environment gave to the text that was read last, from byte `from` on; of a whole URL, what it
 * holds. */
static void take_given(struct registry_reader *r, const char *text, size_t from)
{
	for (size_t i = 0; i < r->n_given; i++) {
		struct span value = {text + r->given[i].at, r->given[i].len};
		if (r->given[i].at >= from || memmem(value.ptr, value.len, "://", 3))
			secrets_take(r->secrets, r->given[i].name, value);
	}
}

/* A path, relative to the file's folder. */
static void make_absolute(struct registry_reader *r, const struct yaml_node *n, char **path)
{
	char *absolute;
	if (!*path || **path == '/')
		return;
	if (asprintf(&absolute, "%s/%s", r->folder, *path) < 0) {
		registry_load_mistake(r, n, key_of(n), "out of memory");
		return;
	}
	free(*path);
	*path = absolute;
}

/* --- exec ----------------------------------------------------------------------------------------------- */

struct exec_reading {
	struct exec_handler *x;
	unsigned timeout_ms;
};

/* The program's own name is none. `--token x` and `--token=x` say that it is one. */
static void take_argument(struct registry_reader *r, const struct exec_handler *x, size_t i)
{
	if (i == 0)
		return;
	const char *text = x->argv[i], *before = x->argv[i - 1];
	size_t name = strcspn(text, "=");
	take_given(r, text, 0);
	if (strstr(text, "://") && strchr(text, '@'))
		secrets_take_url(r->secrets, span_of(text));
	if (text[name] && text_names_secret((struct span){text, name}))
		secrets_take(r->secrets, (struct span){text, name}, span_of(text + name + 1));
	if (before[0] == '-' && text[0] != '-' && text_names_secret(span_of(before)))
		secrets_take(r->secrets, span_of(before), span_of(text));
}

static void read_argv(struct registry_reader *r, const struct yaml_node *n, void *into)
{
	struct exec_handler *x = ((struct exec_reading *)into)->x;
	size_t i = 0;
	if (n->kind != YAML_SEQUENCE || !n->count || n->count > REGISTRY_MAX_ARGV) {
		registry_load_mistake(r, n, "argv", "must be a list of 1 to %d strings (no shell is used)",
				      REGISTRY_MAX_ARGV);
		return;
	}
	for (const struct yaml_node *a = n->first; a; a = a->next) {
		read_text(r, a, &x->argv[i]);
		if (!x->argv[i])
			return;
		take_argument(r, x, i++);
	}
	if (strchr(x->argv[0], '/'))
		make_absolute(r, n, &x->argv[0]);
}

static void read_env(struct registry_reader *r, const struct yaml_node *n, void *into)
{
	struct exec_handler *x = ((struct exec_reading *)into)->x;
	size_t i = 0;
	if (n->kind != YAML_MAPPING || n->count > REGISTRY_MAX_ENV) {
		registry_load_mistake(r, n, "env", "must be a mapping of at most %d names", REGISTRY_MAX_ENV);
		return;
	}
	while (x->env[i])
		free(x->env[i++]);
	memset(x->env, 0, sizeof(x->env));
	i = 0;
	bool has_path = false;
	for (const struct yaml_node *v = n->first; v; v = v->next) {
		char *text = NULL;
		read_text(r, v, &text);
		if (text) {
			secrets_take(r->secrets, span_of(key_of(v)), span_of(text));
			take_given(r, text, 0);
		}
		if (text && asprintf(&x->env[i], "%s=%s", key_of(v), text) >= 0)
			i++;
		has_path |= strcmp(key_of(v), "PATH") == 0;
		free(text);
	}
	if (!has_path)
		x->env[i] = strdup("PATH=/usr/local/bin:/usr/bin:/bin");
}

static void read_exec_timeout(struct registry_reader *r, const struct yaml_node *n, void *into)
{
	read_duration(r, n, &((struct exec_reading *)into)->timeout_ms);
}

static void read_max_output(struct registry_reader *r, const struct yaml_node *n, void *into)
{
	read_size(r, n, &((struct exec_reading *)into)->x->max_output);
}

static void set_source(struct registry_reader *r, const struct yaml_node *n, struct exec_handler *x,
		       enum exec_stdin kind)
{
	struct span s;
	if (!yaml_string(n, &s) ||
	    (!span_starts(s, SPAN_LIT("args:/")) && !span_starts(s, SPAN_LIT("kwargs:/"))))
		registry_load_mistake(r, n, key_of(n),
				      "must name a value of the call, like args:/0/content or kwargs:/text");
	x->stdin_source = s;
	x->stdin_kind = kind;
}

static void read_stdin_base64(struct registry_reader *r, const struct yaml_node *n, void *into)
{
	set_source(r, n, into, EXEC_STDIN_BASE64);
}

static void read_stdin_text(struct registry_reader *r, const struct yaml_node *n, void *into)
{
	set_source(r, n, into, EXEC_STDIN_TEXT);
}

static void read_stdin(struct registry_reader *r, const struct yaml_node *n, void *into)
{
	static const struct key_reader keys[] = {{"base64", read_stdin_base64, false},
						 {"text", read_stdin_text, false}};
	struct exec_handler *x = ((struct exec_reading *)into)->x;
	struct span s;
	if (n->kind == YAML_SCALAR && yaml_string(n, &s) && span_is(s, "json"))
		return;
	if (n->kind != YAML_MAPPING || n->count != 1) {
		registry_load_mistake(r, n, "stdin", "must be json, {base64: SOURCE} or {text: SOURCE}");
		return;
	}
	READ_MAPPING(r, n, keys, x);
}

static void read_stdout(struct registry_reader *r, const struct yaml_node *n, void *into)
{
	struct exec_handler *x = ((struct exec_reading *)into)->x;
	struct span s;
	if (!yaml_string(n, &s) || (!span_is(s, "json") && !span_is(s, "text")))
		registry_load_mistake(r, n, "stdout", "must be json or text");
	else
		x->stdout_text = span_is(s, "text");
}

static const struct key_reader exec_keys[] = {{"argv", read_argv, true},
					      {"env", read_env, false},
					      {"timeout", read_exec_timeout, false},
					      {"max_output", read_max_output, false},
					      {"stdin", read_stdin, false},
					      {"stdout", read_stdout, false}};

/* --- http ----------------------------------------------------------------------------------------------- */

struct http_reading {
	struct http_handler *h;
	unsigned timeout_ms;
};

static void read_url(struct registry_reader *r, const struct yaml_node *n, void *into)
{
	struct http_handler *h = ((struct http_reading *)into)->h;
	read_text(r, n, &h->url);
	if (!h->url)
		return;
	const char *host = "";
	if (strncmp(h->url, "http://", 7) == 0)
		host = h->url + 7;
	else if (strncmp(h->url, "https://", 8) == 0)
		host = h->url + 8;
	size_t n_host = strcspn(host, "/?#");
	if (!n_host || strpbrk(h->url, " \r\n\t"))
		registry_load_mistake(r, n, "url", "must be a URL of http or https");
	else if (memchr(host, '@', n_host))
		registry_load_mistake(r, n, "url", "must have no user and password in it; use headers");
	if (!n_host)
		return;
	secrets_take_url(r->secrets, span_of(h->url));
	take_given(r, h->url, (size_t)(host - h->url) + n_host);
}

static void read_headers(struct registry_reader *r, const struct yaml_node *n, void *into)
{
	struct http_handler *h = ((struct http_reading *)into)->h;
	if (n->kind != YAML_MAPPING || n->count > REGISTRY_MAX_FIELDS) {
		registry_load_mistake(r, n, "headers", "must be a mapping of at most %d names",
				      REGISTRY_MAX_FIELDS);
		return;
	}
	for (const struct yaml_node *v = n->first; v; v = v->next) {
		struct http_handler_field *f = &h->fields[h->n_fields];
		read_text(r, v, &f->value);
		f->name = f->value ? strdup(key_of(v)) : NULL;
		if (f->value) {
			secrets_take(r->secrets, span_of(key_of(v)), span_of(f->value));
			take_given(r, f->value, 0);
		}
		if (f->value && strpbrk(f->value, "\r\n"))
			registry_load_mistake(r, v, key_of(v), "must have no line break");
		h->n_fields += f->value != NULL;
	}
}

static void read_http_timeout(struct registry_reader *r, const struct yaml_node *n, void *into)
{
	read_duration(r, n, &((struct http_reading *)into)->timeout_ms);
}

static void read_ca_file(struct registry_reader *r, const struct yaml_node *n, void *into)
{
	struct http_handler *h = ((struct http_reading *)into)->h;
	read_text(r, n, &h->ca_file);
	make_absolute(r, n, &h->ca_file);
}

static void registry_load_read_body(struct registry_reader *r, const struct yaml_node *n, void *into)
{
	struct http_handler *h = ((struct http_reading *)into)->h;
	CLEANUP(buf_releasep) struct buf json = BUF_INIT(REGISTRY_MAX_FILE);
	struct err why = {""};
	if (yaml_to_json(n, &json) < 0 || call_template_check(buf_span(&json), &why) < 0)
		registry_load_mistake(r, n, "body", "%s",
				      why.text[0] ? why.text : "cannot be written as JSON");
	secrets_take_json(r->secrets, buf_span(&json));
	free(h->body);
	h->body = buf_steal(&json);
}

static void registry_load_read_result(struct registry_reader *r, const struct yaml_node *n, void *into)
{
	struct http_handler *h = ((struct http_reading *)into)->h;
	struct span s;
	if (!yaml_string(n, &s) || (s.len && s.ptr[0] != '/'))
		registry_load_mistake(r, n, "result",
				      "must be a JSON pointer, like /choices/0/message/content");
	else
		h->result = s;
}

static void read_http_output(struct registry_reader *r, const struct yaml_node *n, void *into)
{
	read_size(r, n, &((struct http_reading *)into)->h->max_output);
}

static const struct key_reader http_keys[] = {{"url", read_url, true},
					      {"headers", read_headers, false},
					      {"timeout", read_http_timeout, false},
					      {"ca_file", read_ca_file, false},
					      {"body", registry_load_read_body, false},
					      {"result", registry_load_read_result, false},
					      {"max_output", read_http_output, false}};

/* --- tasks ---------------------------------------------------------------------------------------------- */

struct task_reading {
	struct task_definition *t;
	unsigned handlers;
	unsigned timeout_ms, handler_timeout_ms;
	unsigned attempts;
};

static void read_task_name(struct registry_reader *r, const struct yaml_node *n, void *into)
{
	struct task_definition *t = ((struct task_reading *)into)->t;
	struct span name = SPAN_NONE;
	registry_load_read_name(r, n, &name);
	if (name.ptr && registry_task(r->registry, name))
		registry_load_mistake(r, n, "name", "\"%.*s\" is declared twice", SPAN_ARG(name));
	t->name = name.ptr ? name : SPAN_LIT("");
}

static void read_task_queue(struct registry_reader *r, const struct yaml_node *n, void *into)
{
	registry_load_read_name(r, n, &((struct task_reading *)into)->t->queue);
}

static void read_builtin(struct registry_reader *r, const struct yaml_node *n, void *into)
{
	struct task_reading *reading = into;
	struct span name = SPAN_NONE;
	reading->handlers++;
	reading->t->kind = HANDLER_BUILTIN;
	registry_load_read_name(r, n, &name);
	reading->t->builtin = core_task_find(name);
	if (name.ptr && !reading->t->builtin) {
		CLEANUP(buf_releasep) struct buf known = BUF_INIT(1024);
		for (size_t i = 0; i < n_core_tasks; i++)
			buf_printf(&known, "%s%s", i ? ", " : "", core_tasks[i].name);
		registry_load_mistake(r, n, "builtin", "no task of this name is built in; available: %s",
				      known.ptr);
	}
}

static void read_exec(struct registry_reader *r, const struct yaml_node *n, void *into)
{
	struct task_reading *reading = into;
	char saved[256];
	reading->handlers++;
	reading->t->kind = HANDLER_EXEC;
	if (reading->t->exec || !(reading->t->exec = calloc(1, sizeof(struct exec_handler))))
		return;
	struct exec_reading x = {.x = reading->t->exec};
	x.x->max_output = REGISTRY_DEFAULT_OUTPUT;
	x.x->env[0] = strdup("PATH=/usr/local/bin:/usr/bin:/bin");
	enter(r, saved, "exec");
	READ_MAPPING(r, n, exec_keys, &x);
	leave(r, saved);
	reading->handler_timeout_ms = x.timeout_ms;
}

static void read_http(struct registry_reader *r, const struct yaml_node *n, void *into)
{
	struct task_reading *reading = into;
	char saved[256];
	reading->handlers++;
	reading->t->kind = HANDLER_HTTP;
	if (reading->t->http || !(reading->t->http = calloc(1, sizeof(struct http_handler))))
		return;
	struct http_reading h = {.h = reading->t->http};
	h.h->max_output = REGISTRY_DEFAULT_OUTPUT;
	h.h->result = SPAN_LIT("");
	enter(r, saved, "http");
	READ_MAPPING(r, n, http_keys, &h);
	leave(r, saved);
	reading->handler_timeout_ms = h.timeout_ms;
}

static void read_idempotent(struct registry_reader *r, const struct yaml_node *n, void *into)
{
	read_bool(r, n, &((struct task_reading *)into)->t->idempotent);
}

static void read_attempts(struct registry_reader *r, const struct yaml_node *n, void *into)
{
	int64_t v;
	if (!yaml_int(n, &v) || v < 1 || v > 100)
		registry_load_mistake(r, n, "max_attempts", "must be a number from 1 to 100");
	else
		((struct task_reading *)into)->attempts = (unsigned)v;
}

static void read_task_timeout(struct registry_reader *r, const struct yaml_node *n, void *into)
{
	read_duration(r, n, &((struct task_reading *)into)->timeout_ms);
}

static const struct key_reader task_keys[] = {{"name", read_task_name, true},
					      {"queue", read_task_queue, false},
					      {"builtin", read_builtin, false},
					      {"exec", read_exec, false},
					      {"http", read_http, false},
					      {"idempotent", read_idempotent, false},
					      {"max_attempts", read_attempts, false},
					      {"timeout", read_task_timeout, false}};

static unsigned smaller(unsigned a, unsigned b)
{
	if (!a)
		return b;
	if (!b)
		return a;
	return a < b ? a : b;
}

static void read_task(struct registry_reader *r, const struct yaml_node *n, unsigned index)
{
	char saved[256];
	struct task_definition fresh = {.queue = SPAN_LIT(REGISTRY_DEFAULT_QUEUE)};
	struct task_reading reading = {.t = &fresh};
	r->secrets = &fresh.secrets;
	enter(r, saved, "tasks[%u]", index);
	READ_MAPPING(r, n, task_keys, &reading);
	if (fresh.secrets.failed)
		registry_load_mistake(r, n, "", "out of memory");
	if (reading.handlers != 1)
		registry_load_mistake(r, n, "", "needs exactly one of builtin, exec and http");
	if (reading.attempts > 1 && !fresh.idempotent)
		registry_load_mistake(r, n, "max_attempts", "may only be above 1 where idempotent is true");
	fresh.max_attempts = DEFAULT_ATTEMPTS;
	if (!fresh.idempotent)
		fresh.max_attempts = 1;
	else if (reading.attempts)
		fresh.max_attempts = reading.attempts;
	fresh.timeout_ms = smaller(reading.timeout_ms, reading.handler_timeout_ms);
	if (!fresh.timeout_ms)
		fresh.timeout_ms = REGISTRY_DEFAULT_TIMEOUT_MS;
	/* Added also when it is wrong, so that what it owns is freed and its name is known to workflows. */
	struct task_definition *t = registry_add_task(r->registry);
	if (t) {
		*t = fresh;
	} else {
		secrets_release(&fresh.secrets);
		registry_load_mistake(r, n, "", "more than %d tasks", REGISTRY_MAX_TASKS);
	}
	r->secrets = NULL;
	leave(r, saved);
}

/* --- workflows ------------------------------------------------------------------------------------------ */

static void read_step_name(struct registry_reader *r, const struct yaml_node *n, void *into)
{
	registry_load_read_name(r, n, &((struct workflow_step *)into)->name);
}

static void read_step_task(struct registry_reader *r, const struct yaml_node *n, void *into)
{
	struct workflow_step *s = into;
	registry_load_read_name(r, n, &s->task);
	if (s->task.ptr && !r->elsewhere && !registry_task(r->registry, s->task)) {
		CLEANUP(buf_releasep) struct buf text = BUF_INIT(8192);
		registry_describe_unknown(r->registry, s->task, false, &text);
		registry_load_mistake(r, n, "task", "%s", text.ptr);
	}
}

static void read_step_kwargs(struct registry_reader *r, const struct yaml_node *n, void *into)
{
	struct workflow_step *s = into;
	CLEANUP(buf_releasep) struct buf json = BUF_INIT(REGISTRY_MAX_FILE);
	if (n->kind != YAML_MAPPING || yaml_to_json(n, &json) < 0) {
		registry_load_mistake(r, n, "kwargs", "must be a mapping");
		return;
	}
	free(s->kwargs);
	s->kwargs = buf_steal(&json);
}

static void read_step_input(struct registry_reader *r, const struct yaml_node *n, void *into)
{
	struct workflow_step *s = into;
	struct span text;
	if (yaml_string(n, &text) && span_is(text, "previous"))
		s->input = STEP_INPUT_PREVIOUS;
	else if (yaml_string(n, &text) && span_is(text, "workflow"))
		s->input = STEP_INPUT_WORKFLOW;
	else if (yaml_string(n, &text) && span_is(text, "none"))
		s->input = STEP_INPUT_NONE;
	else
		registry_load_mistake(r, n, "input", "must be previous, workflow or none");
}

static void read_step_timeout(struct registry_reader *r, const struct yaml_node *n, void *into)
{
	read_duration(r, n, &((struct workflow_step *)into)->timeout_ms);
}

static const struct key_reader step_keys[] = {{"name", read_step_name, false},
					      {"task", read_step_task, true},
					      {"kwargs", read_step_kwargs, false},
					      {"input", read_step_input, false},
					      {"timeout", read_step_timeout, false}};

static void read_workflow_name(struct registry_reader *r, const struct yaml_node *n, void *into)
{
	struct workflow_definition *w = into;
	struct span name = SPAN_NONE;
	registry_load_read_name(r, n, &name);
	if (name.ptr && registry_workflow(r->registry, name))
		registry_load_mistake(r, n, "name", "\"%.*s\" is declared twice", SPAN_ARG(name));
	if (name.ptr)
		w->name = name;
}

static void read_workflow_queue(struct registry_reader *r, const struct yaml_node *n, void *into)
{
	registry_load_read_name(r, n, &((struct workflow_definition *)into)->queue);
}

static void check_step_name(struct registry_reader *r, const struct yaml_node *n,
			    struct workflow_definition *w)
{
	struct workflow_step *s = &w->steps[w->n_steps];
	if (!s->name.ptr)
		s->name = s->task.ptr ? s->task : SPAN_LIT("");
	for (size_t i = 0; i < w->n_steps; i++)
		if (span_eq(w->steps[i].name, s->name))
			registry_load_mistake(r, n, "name", "two steps are named \"%.*s\"",
					      SPAN_ARG(s->name));
}

static void registry_load_read_steps(struct registry_reader *r, const struct yaml_node *n, void *into)
{
	struct workflow_definition *w = into;
	char saved[256];
	if (n->kind != YAML_SEQUENCE || !n->count || n->count > REGISTRY_MAX_STEPS) {
		registry_load_mistake(r, n, "steps", "must be a list of 1 to %d steps", REGISTRY_MAX_STEPS);
		return;
	}
	if (w->n_steps)
		return; /* given twice: the YAML reader refuses it */
	for (const struct yaml_node *s = n->first; s; s = s->next) {
		enter(r, saved, "steps[%zu]", w->n_steps);
		READ_MAPPING(r, s, step_keys, &w->steps[w->n_steps]);
		check_step_name(r, s, w);
		w->n_steps++;
		leave(r, saved);
	}
}

static void read_workflow_timeout(struct registry_reader *r, const struct yaml_node *n, void *into)
{
	read_duration(r, n, &((struct workflow_definition *)into)->timeout_ms);
}

static const struct key_reader workflow_keys[] = {
	{"name", read_workflow_name, true},
	{"queue", read_workflow_queue, false},
	{"steps", registry_load_read_steps, true},
	{"timeout", read_workflow_timeout, false},
};

static void read_workflow(struct registry_reader *r, const struct yaml_node *n, unsigned index)
{
	char saved[256];
	enter(r, saved, "workflows[%u]", index);
	struct workflow_definition *w = calloc(1, sizeof(*w)), *kept = NULL;
	if (w) {
		w->name = SPAN_LIT("");
		w->queue = SPAN_LIT(REGISTRY_DEFAULT_QUEUE);
		READ_MAPPING(r, n, workflow_keys, w);
		kept = registry_add_workflow(r->registry);
		if (kept)
			*kept = *w;
		free(w);
	}
	if (!kept)
		registry_load_mistake(r, n, "", "more than %d workflows", REGISTRY_MAX_WORKFLOWS);
	leave(r, saved);
}

/* --- the file ------------------------------------------------------------------------------------------- */

static void read_list(struct registry_reader *r, const struct yaml_node *n,
		      void (*read)(struct registry_reader *, const struct yaml_node *, unsigned))
{
	unsigned i = 0;
	if (n->kind != YAML_SEQUENCE) {
		registry_load_mistake(r, n, key_of(n), "must be a list");
		return;
	}
	for (const struct yaml_node *item = n->first; item; item = item->next)
		read(r, item, i++);
}

static void read_tasks(struct registry_reader *r, const struct yaml_node *n, void *into)
{
	(void)into;
	read_list(r, n, read_task);
}

/* Workflows name tasks that may stand behind them: they are read after. */
static void registry_load_read_later(struct registry_reader *r, const struct yaml_node *n, void *into)
{
	(void)r, (void)n, (void)into;
}

static const struct key_reader top_keys[] = {{"tasks", read_tasks, true},
					     {"workflows", registry_load_read_later, false}};
static const struct key_reader elsewhere_keys[] = {{"tasks", registry_load_read_later, false},
						   {"workflows", registry_load_read_later, true}};

static int registry_load_parse(struct registry_reader *r, struct buf *text)
{
	struct err why = {""};
	int code = file_read(r->path, REGISTRY_MAX_FILE, text, &why);
	if (code == 0) {
		code = yaml_parse(r->path, buf_span(text), &r->registry->doc, &why);
		code = code < 0 && code != -ENOMEM ? -EBADMSG : code;
	}
	if (code < 0)
		buf_printf(r->problems, "%s\n", why.text);
	return code;
}

static int load(struct registry_reader *r, struct registry **ret)
{
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(REGISTRY_MAX_FILE + (1 << 17));
	CLEANUP(freep) char *real = realpath(r->path, NULL);
	snprintf(r->folder, sizeof(r->folder), "%s", real ? dirname(real) : ".");
	r->registry = calloc(1, sizeof(*r->registry));
	if (!r->registry)
		return -ENOMEM;
	int code = registry_load_parse(r, &text);
	if (code == 0) {
		const struct yaml_node *root = yaml_root(r->registry->doc);
		if (r->elsewhere)
			READ_MAPPING(r, root, elsewhere_keys, NULL);
		else
			READ_MAPPING(r, root, top_keys, NULL);
		const struct yaml_node *workflows = yaml_get(root, "workflows");
		if (workflows)
			read_list(r, workflows, read_workflow);
	}
	if (code < 0 || r->wrong) {
		registry_free(r->registry);
		return code < 0 ? code : -EBADMSG;
	}
	*ret = r->registry;
	return 0;
}

int registry_load(const char *path, const char *(*getenv_fn)(const char *), struct buf *problems,
		  struct registry **ret)
{
	struct registry_reader r = {.path = path, .getenv_fn = getenv_fn, .problems = problems};
	return load(&r, ret);
}

int registry_load_workflows(const char *path, struct buf *problems, struct registry **ret)
{
	struct registry_reader r = {.path = path, .problems = problems, .elsewhere = true};
	return load(&r, ret);
}
