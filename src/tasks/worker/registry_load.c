/*
 * Reads tasks.yml, by base/places.h. Every mistake becomes one line in `problems`; reading continues, so that
 * all are seen at once.
 */
#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/file.h"
#include "base/json.h"
#include "base/places.h"
#include "base/text.h"
#include "base/url.h"
#include "tasks/task_backend.h"
#include "tasks/worker/call_template.h"
#include "tasks/worker/registry_files.h"
#include "tasks/worker/registry_internal.h"

#define MAX_TIMEOUT_MS (7 * 86400000ull)
#define MAX_OUTPUT (64u << 20)
#define MAX_ATTEMPTS 100
#define DEFAULT_PATH "PATH=/usr/local/bin:/usr/bin:/bin"

/* What a variable gave to a text: where it stands in it. */
struct substitution {
	struct span name;
	size_t at, len;
};

#define SUBSTITUTIONS_MAX 64

struct registry_reader {
	struct place_reader file; /* first: a place's reader is one of these */
	struct registry *registry;
	const char *(*getenv_fn)(const char *);
	bool elsewhere;	  /* tasks are someone else's: not read, and steps may name any */
	bool skip_broken; /* what is wrong is left out */
	unsigned skipped;
	struct secrets *secrets;		      /* of the task that is being read */
	struct substitution given[SUBSTITUTIONS_MAX]; /* to the last text */
	size_t n_given;
};

static struct registry_reader *registry_reader_of(const struct place *p)
{
	return (struct registry_reader *)p->reader;
}

/* --- values --------------------------------------------------------------------------------------------- */

static void registry_require(const struct place *p, const char *key)
{
	struct place member = place_member(p, key);
	if (!member.node)
		place_mistake(&member, "is missing");
}

static void registry_name(const struct place *p, struct span *ret)
{
	struct span s;
	if (!p->node)
		return;
	if (!yaml_string(p->node, &s) || s.len == 0 || s.len >= TASK_NAME_MAX)
		place_mistake(p, "must be a string of 1 to %d characters", TASK_NAME_MAX - 1);
	else
		*ret = s;
}

/* The first declaration counts, whatever reads them; both places are told. */
static void registry_refuse_twice(const struct place *p, struct span name, bool workflow)
{
	const struct registry *r = registry_reader_of(p)->registry;
	const struct registry_place *first = name.ptr ? registry_place_of(r, name, workflow) : NULL;
	if (first)
		place_mistake(p, "\"%.*s\" is declared twice; first at %s:%u", SPAN_ARG(name), first->file,
			      first->line);
}

/* ${NAME} and ${NAME:-default}; an unset one without a default is a mistake. */
static bool put_variable(const struct place *p, struct span inside, struct buf *out)
{
	struct registry_reader *r = registry_reader_of(p);
	const char *mark = memmem(inside.ptr, inside.len, ":-", 2);
	size_t name_len = mark ? (size_t)(mark - inside.ptr) : inside.len;
	CLEANUP(freep) char *name = span_dup((struct span){inside.ptr, name_len});
	const char *value = name && *name ? r->getenv_fn(name) : NULL;
	if (value && *value) {
		if (r->n_given == SUBSTITUTIONS_MAX)
			place_mistake(p, "more than %d environment variables", SUBSTITUTIONS_MAX);
		else
			r->given[r->n_given++] =
				(struct substitution){{inside.ptr, name_len}, out->len, strlen(value)};
		buf_puts(out, value);
	} else if (mark)
		buf_append(out, mark + 2, inside.len - name_len - 2);
	else
		place_mistake(p, "the environment variable %.*s is not set", (int)name_len, inside.ptr);
	return value || mark;
}

static char *expand(const struct place *p, struct span s)
{
	struct registry_reader *r = registry_reader_of(p);
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
		if (!put_variable(p, (struct span){s.ptr + i + 2, (size_t)(end - s.ptr) - i - 2}, &out))
			return NULL;
		i = (size_t)(end - s.ptr) + 1;
	}
	if (memchr(buf_span(&out).ptr, '\0', out.len) || out.error) {
		place_mistake(p, "is too long or contains a NUL");
		return NULL;
	}
	return place_text(p->reader, buf_span(&out));
}

/* A scalar with what the environment gives to it; NULL when it is none, and that was said. */
static char *registry_text(const struct place *p)
{
	struct span s;
	if (p->node && yaml_string(p->node, &s))
		return expand(p, s);
	place_mistake(p, "must be a text");
	return NULL;
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

/* One of a mapping's texts, which may be a secret by its name. */
static char *registry_named_text(const struct place *p)
{
	struct registry_reader *r = registry_reader_of(p);
	char *text = registry_text(p);
	if (text) {
		secrets_take(r->secrets, p->key, span_of(text));
		take_given(r, text, 0);
	}
	return text;
}

/* --- exec ----------------------------------------------------------------------------------------------- */

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

static void read_argv(const struct place *p, struct exec_handler *x)
{
	size_t i = 0;
	if (!p->node)
		return;
	if (p->node->kind != YAML_SEQUENCE || !p->node->count || p->node->count > REGISTRY_MAX_ARGV) {
		place_mistake(p, "must be a list of 1 to %d strings (no shell is used)", REGISTRY_MAX_ARGV);
		return;
	}
	for (const struct yaml_node *n = p->node->first; n; n = n->next) {
		struct place argument = place_element(p, n, i);
		x->argv[i] = registry_text(&argument);
		if (!x->argv[i])
			return;
		take_argument(registry_reader_of(p), x, i++);
	}
	if (strchr(x->argv[0], '/'))
		x->argv[0] = place_path(p->reader, span_of(x->argv[0]));
}

static char *registry_assignment(struct registry_reader *r, struct span name, const char *value)
{
	CLEANUP(buf_releasep) struct buf line = BUF_INIT(1 << 17);
	buf_printf(&line, "%.*s=%s", SPAN_ARG(name), value);
	return line.error ? NULL : place_text(&r->file, buf_span(&line));
}

static void read_env(const struct place *p, struct exec_handler *x)
{
	size_t i = 0;
	bool has_path = false;
	if (p->node && (p->node->kind != YAML_MAPPING || p->node->count > REGISTRY_MAX_ENV)) {
		place_mistake(p, "must be a mapping of at most %d names", REGISTRY_MAX_ENV);
		return;
	}
	for (const struct yaml_node *n = p->node ? p->node->first : NULL; n; n = n->next) {
		struct place variable = place_item(p, n);
		const char *text = registry_named_text(&variable);
		if (text && (x->env[i] = registry_assignment(registry_reader_of(p), n->key->text, text)))
			i++;
		has_path |= span_is(n->key->text, "PATH");
	}
	if (!has_path)
		x->env[i] = place_text(p->reader, SPAN_LIT(DEFAULT_PATH));
}

static bool read_source(const struct place *p, struct span *ret)
{
	struct span s;
	if (!p->node)
		return false;
	if (!yaml_string(p->node, &s) ||
	    (!span_starts(s, SPAN_LIT("args:/")) && !span_starts(s, SPAN_LIT("kwargs:/")))) {
		place_mistake(p, "must name a value of the call, like args:/0/content or kwargs:/text");
		return false;
	}
	*ret = s;
	return true;
}

/* A file that the call names, and the folder it lies below. */
static void read_file_source(const struct place *p, struct exec_handler *x)
{
	struct place file = place_member(p, "file"), folder = place_member(p, "folder");
	const char *text = folder.node ? registry_text(&folder) : NULL;
	x->folder = "";
	if (text && *text)
		x->folder = place_path(p->reader, span_of(text));
	if (read_source(&file, &x->file_source) && !folder.node)
		place_mistake(&folder, "is missing: the folder that such files lie below");
	if (folder.node && !file.node)
		place_mistake(&folder, "is of no use without file");
}

static void read_stdin(const struct place *p, struct exec_handler *x)
{
	static const struct field fields[] = {{"base64", FIELD_OTHER, 0, 0, 0},
					      {"text", FIELD_OTHER, 0, 0, 0},
					      {"file", FIELD_OTHER, 0, 0, 0},
					      {"folder", FIELD_OTHER, 0, 0, 0}};
	struct span s;
	if (!p->node || (p->node->kind == YAML_SCALAR && yaml_string(p->node, &s) && span_is(s, "json")))
		return;
	struct place base64 = place_member(p, "base64"), text = place_member(p, "text");
	struct place file = place_member(p, "file");
	if (p->node->kind != YAML_MAPPING || (base64.node && text.node)) {
		place_mistake(p,
			      "must be json, {base64: SOURCE} or {text: SOURCE}, perhaps with {file: SOURCE, "
			      "folder: FOLDER}");
		return;
	}
	READ_FIELDS(p, fields, x);
	x->stdin_kind = EXEC_STDIN_FILE;
	if (read_source(&base64, &x->stdin_source))
		x->stdin_kind = EXEC_STDIN_BASE64;
	if (read_source(&text, &x->stdin_source))
		x->stdin_kind = EXEC_STDIN_TEXT;
	read_file_source(p, x);
	if (!base64.node && !text.node && !file.node)
		place_mistake(p, "must name a value of the call, like args:/0/content or kwargs:/text");
}

/* What handlers have in common. */
struct handler_reading {
	unsigned timeout_ms;
	size_t max_output;
};

static void read_exec(const struct place *p, struct exec_handler *x, struct handler_reading *h)
{
	static const struct field fields[] = {
		{"argv", FIELD_OTHER, 0, 0, 0},
		{"env", FIELD_OTHER, 0, 0, 0},
		{"timeout", FIELD_DURATION, offsetof(struct handler_reading, timeout_ms), 1, MAX_TIMEOUT_MS},
		{"max_output", FIELD_SIZE_T, offsetof(struct handler_reading, max_output), 1, MAX_OUTPUT},
		{"stdin", FIELD_OTHER, 0, 0, 0},
		{"stdout", FIELD_OTHER, 0, 0, 0}};
	static const char *const outputs[] = {"json", "text"};
	struct place argv = place_member(p, "argv"), env = place_member(p, "env");
	struct place input = place_member(p, "stdin"), output = place_member(p, "stdout");
	size_t which;
	READ_FIELDS(p, fields, h);
	registry_require(p, "argv");
	read_argv(&argv, x);
	read_env(&env, x);
	read_stdin(&input, x);
	if (value_choice(&output, outputs, 2, &which))
		x->stdout_text = which == 1;
	x->max_output = h->max_output;
}

/* --- http ----------------------------------------------------------------------------------------------- */

static void registry_load_url(const struct place *p, struct http_handler *h)
{
	struct registry_reader *r = registry_reader_of(p);
	const char *text = p->node ? registry_text(p) : NULL;
	if (!text)
		return;
	const char *wrong = url_mistake(span_of(text), URL_WHOLE);
	if (url_user_info(span_of(text)).ptr)
		place_mistake(p, "must not contain a user or password; use headers");
	else if (wrong)
		place_mistake(p, "%s", wrong);
	h->url = place_url(p->reader, span_of(text));
	struct span behind = url_behind_host(span_of(h->url));
	if (!behind.ptr)
		return;
	secrets_take_url(r->secrets, span_of(h->url));
	take_given(r, h->url, (size_t)(behind.ptr - h->url));
}

static void read_headers(const struct place *p, struct http_handler *h)
{
	if (p->node && (p->node->kind != YAML_MAPPING || p->node->count > REGISTRY_MAX_FIELDS)) {
		place_mistake(p, "must be a mapping of at most %d names", REGISTRY_MAX_FIELDS);
		return;
	}
	for (const struct yaml_node *n = p->node ? p->node->first : NULL; n; n = n->next) {
		struct place header = place_item(p, n);
		struct http_handler_field *f = &h->fields[h->n_fields];
		f->value = registry_named_text(&header);
		if (!f->value)
			continue;
		f->name = n->key->text.ptr;
		h->n_fields++;
		if (strpbrk(f->value, "\r\n"))
			place_mistake(&header, "must have no line break");
	}
}

/* Null is a body, too. */
static void registry_load_body(const struct place *http, struct http_handler *h)
{
	const struct yaml_node *n = yaml_get(http->node, "body");
	struct place p = place_member(http, "body");
	CLEANUP(buf_releasep) struct buf json = BUF_INIT(REGISTRY_MAX_FILE);
	struct err why = {""};
	if (!n)
		return;
	if (yaml_to_json(n, &json) < 0 || call_template_check(buf_span(&json), false, &why) < 0)
		place_mistake(&p, "%s", why.text[0] ? why.text : "cannot be written as JSON");
	secrets_take_json(registry_reader_of(&p)->secrets, buf_span(&json));
	h->body = place_text(p.reader, buf_span(&json));
}

static void registry_load_result(const struct place *p, struct http_handler *h)
{
	struct span s;
	h->result = SPAN_LIT("");
	if (!p->node)
		return;
	if (p->node->kind == YAML_MAPPING) {
		CLEANUP(buf_releasep) struct buf json = BUF_INIT(REGISTRY_MAX_FILE);
		struct err why = {""};
		if (yaml_to_json(p->node, &json) < 0 || call_template_check(buf_span(&json), true, &why) < 0)
			place_mistake(p, "%s", why.text[0] ? why.text : "cannot be written as JSON");
		h->result_template = place_text(p->reader, buf_span(&json));
		return;
	}
	if (!yaml_string(p->node, &s) || (s.len && s.ptr[0] != '/'))
		place_mistake(p, "must be a JSON pointer, like /choices/0/message/content, or a mapping of "
				 "references to answer:");
	else
		h->result = s;
}

static void read_http(const struct place *p, struct http_handler *x, struct handler_reading *h)
{
	static const struct field fields[] = {
		{"url", FIELD_OTHER, 0, 0, 0},
		{"headers", FIELD_OTHER, 0, 0, 0},
		{"ca_file", FIELD_OTHER, 0, 0, 0},
		{"timeout", FIELD_DURATION, offsetof(struct handler_reading, timeout_ms), 1, MAX_TIMEOUT_MS},
		{"max_output", FIELD_SIZE_T, offsetof(struct handler_reading, max_output), 1, MAX_OUTPUT},
		{"body", FIELD_OTHER, 0, 0, 0},
		{"result", FIELD_OTHER, 0, 0, 0}};
	struct place url = place_member(p, "url"), headers = place_member(p, "headers");
	struct place ca_file = place_member(p, "ca_file"), result = place_member(p, "result");
	READ_FIELDS(p, fields, h);
	registry_require(p, "url");
	registry_load_url(&url, x);
	read_headers(&headers, x);
	const char *path = ca_file.node ? registry_text(&ca_file) : NULL;
	x->ca_file = path ? place_path(p->reader, span_of(path)) : NULL;
	registry_load_body(p, x);
	registry_load_result(&result, x);
	x->max_output = h->max_output;
}

/* --- tasks ---------------------------------------------------------------------------------------------- */

struct task_reading {
	struct task_definition t;
	struct handler_reading handler;
	unsigned timeout_ms, attempts;
};

static void read_builtin(const struct place *p, struct task_definition *t)
{
	struct span name = SPAN_NONE;
	t->kind = HANDLER_BUILTIN;
	registry_name(p, &name);
	t->builtin = core_task_find(name);
	if (!name.ptr || t->builtin)
		return;
	CLEANUP(buf_releasep) struct buf known = BUF_INIT(1024);
	for (size_t i = 0; i < n_core_tasks; i++)
		buf_printf(&known, "%s%s", i ? ", " : "", core_tasks[i].name);
	place_mistake(p, "there is no built-in task of this name; available: %s", known.ptr);
}

/* How it is run: exactly one of three ways. */
static void read_handler(const struct place *p, struct task_reading *reading)
{
	struct task_definition *t = &reading->t;
	struct place builtin = place_member(p, "builtin"), exec = place_member(p, "exec");
	struct place http = place_member(p, "http");
	reading->handler.max_output = REGISTRY_DEFAULT_OUTPUT;
	if (builtin.node)
		read_builtin(&builtin, t);
	if (exec.node && value_mapping(&exec) && (t->exec = place_memory(p->reader, sizeof(*t->exec)))) {
		t->kind = HANDLER_EXEC;
		read_exec(&exec, t->exec, &reading->handler);
	}
	if (http.node && value_mapping(&http) && (t->http = place_memory(p->reader, sizeof(*t->http)))) {
		t->kind = HANDLER_HTTP;
		read_http(&http, t->http, &reading->handler);
	}
	if ((builtin.node != NULL) + (exec.node != NULL) + (http.node != NULL) != 1)
		place_mistake(p, "needs exactly one of builtin, exec and http");
}

static unsigned smaller(unsigned a, unsigned b)
{
	if (!a)
		return b;
	if (!b)
		return a;
	return a < b ? a : b;
}

static void set_attempts(const struct place *p, struct task_reading *reading)
{
	struct place attempts = place_member(p, "max_attempts");
	if (reading->attempts > 1 && !reading->t.idempotent)
		place_mistake(&attempts, "may exceed 1 only if idempotent is true");
	reading->t.max_attempts = REGISTRY_DEFAULT_ATTEMPTS;
	if (!reading->t.idempotent)
		reading->t.max_attempts = 1;
	else if (reading->attempts)
		reading->t.max_attempts = reading->attempts;
}

static void read_task_names(const struct place *p, struct task_definition *t)
{
	struct place name = place_member(p, "name"), queue = place_member(p, "queue");
	struct span s = SPAN_NONE;
	registry_require(p, "name");
	registry_name(&name, &s);
	registry_refuse_twice(&name, s, false);
	t->place = (struct registry_place){p->reader->name, p->node->line};
	t->name = s.ptr ? s : SPAN_LIT("");
	t->queue = SPAN_LIT(REGISTRY_DEFAULT_QUEUE);
	registry_name(&queue, &t->queue);
}

/* Added also when it is wrong, so that what it owns is freed and its name is known to workflows; but not when
 * the others are served without it. */
static void registry_keep_task(const struct place *p, struct task_definition *fresh, bool wrong)
{
	struct registry *registry = registry_reader_of(p)->registry;
	if (wrong && registry_reader_of(p)->skip_broken) {
		secrets_release(&fresh->secrets);
		registry_drop_core(registry, fresh->name);
		return;
	}
	struct task_definition *t = registry_of_program(registry, fresh->name);
	t = t ? t : registry_add_task(registry);
	if (t) {
		*t = *fresh;
		return;
	}
	secrets_release(&fresh->secrets);
	if (registry_count(registry) == REGISTRY_MAX_TASKS)
		place_mistake(p, "more than %d tasks", REGISTRY_MAX_TASKS);
	else
		p->reader->out_of_memory = true;
}

static void read_task(const struct place *p)
{
	static const struct field fields[] = {
		{"name", FIELD_OTHER, 0, 0, 0},
		{"queue", FIELD_OTHER, 0, 0, 0},
		{"builtin", FIELD_OTHER, 0, 0, 0},
		{"exec", FIELD_OTHER, 0, 0, 0},
		{"http", FIELD_OTHER, 0, 0, 0},
		{"idempotent", FIELD_BOOL, offsetof(struct task_reading, t.idempotent), 0, 0},
		{"max_attempts", FIELD_UNSIGNED, offsetof(struct task_reading, attempts), 1, MAX_ATTEMPTS},
		{"timeout", FIELD_DURATION, offsetof(struct task_reading, timeout_ms), 1, MAX_TIMEOUT_MS}};
	struct registry_reader *r = registry_reader_of(p);
	struct task_reading reading = {.timeout_ms = 0};
	unsigned before = p->reader->mistakes;
	if (!value_mapping(p))
		return;
	r->secrets = &reading.t.secrets;
	READ_FIELDS(p, fields, &reading);
	read_task_names(p, &reading.t);
	read_handler(p, &reading);
	r->secrets = NULL;
	p->reader->out_of_memory |= reading.t.secrets.failed;
	set_attempts(p, &reading);
	reading.t.timeout_ms = smaller(reading.timeout_ms, reading.handler.timeout_ms);
	if (!reading.t.timeout_ms)
		reading.t.timeout_ms = REGISTRY_DEFAULT_TIMEOUT_MS;
	registry_keep_task(p, &reading.t, p->reader->mistakes > before);
}

/* --- workflows ------------------------------------------------------------------------------------------ */

static bool registry_knows_task(void *arg, struct span task, struct buf *why)
{
	const struct registry *r = arg;
	if (registry_task(r, task))
		return true;
	registry_describe_unknown(r, task, false, why);
	return false;
}

static void read_workflow(const struct place *p)
{
	struct registry_reader *r = registry_reader_of(p);
	const struct workflow_tasks tasks = {.arg = r->registry,
					     .known = r->elsewhere ? NULL : registry_knows_task,
					     .queue = SPAN_LIT(REGISTRY_DEFAULT_QUEUE)};
	struct place name = place_member(p, "name");
	struct span s;
	if (yaml_string(name.node, &s))
		registry_refuse_twice(&name, s, true);
	const struct registry_place where = {p->reader->name, p->node ? p->node->line : 0};
	struct workflow_definition *w = registry_add_workflow(r->registry, where);
	if (w)
		workflow_read(p, &tasks, w);
	else if (registry_workflow_count(r->registry) == REGISTRY_MAX_WORKFLOWS)
		place_mistake(p, "more than %d workflows", REGISTRY_MAX_WORKFLOWS);
	else
		p->reader->out_of_memory = true;
}

/* --- the files ------------------------------------------------------------------------------------------ */

static void registry_load_element(const struct place *p, void (*read)(const struct place *))
{
	struct registry_reader *r = registry_reader_of(p);
	unsigned before = p->reader->mistakes;
	size_t n_workflows = r->registry->n_workflows;
	if (p->node)
		read(p);
	else
		place_mistake(p, "empty");
	if (p->reader->mistakes == before)
		return;
	r->skipped++;
	if (r->skip_broken && r->registry->n_workflows > n_workflows)
		registry_drop_workflow(r->registry);
}

static void registry_load_list(const struct place *p, void (*read)(const struct place *))
{
	size_t i = 0;
	if (!p->node)
		return;
	if (p->node->kind != YAML_SEQUENCE) {
		place_mistake(p, "must be a list");
		registry_reader_of(p)->skipped++;
		return;
	}
	for (const struct yaml_node *n = p->node->first; n; n = n->next) {
		struct place element = place_element(p, n, i++);
		registry_load_element(&element, read);
	}
}

static void registry_load_top(const struct place *root)
{
	static const struct field fields[] = {{"tasks", FIELD_OTHER, 0, 0, 0},
					      {"workflows", FIELD_OTHER, 0, 0, 0}};
	struct registry_reader *r = registry_reader_of(root);
	struct place workflows = place_member(root, "workflows");
	unsigned before = root->reader->mistakes;
	if (value_mapping(root)) {
		READ_FIELDS(root, fields, r);
		if (r->elsewhere ? r->registry->files->n == 1 : !workflows.node)
			registry_require(root, r->elsewhere ? "workflows" : "tasks");
	}
	r->skipped += root->reader->mistakes > before;
}

enum registry_pass { PASS_TOP, PASS_TASKS, PASS_WORKFLOWS };

static void registry_load_pass(struct registry_reader *r, struct registry_file *file, enum registry_pass pass)
{
	r->file.name = file->name;
	r->file.folder = file->folder;
	struct place root = place_root(&r->file, yaml_root(file->doc));
	struct place tasks = place_member(&root, "tasks"), workflows = place_member(&root, "workflows");
	if (pass == PASS_TOP)
		registry_load_top(&root);
	else if (root.node && root.node->kind != YAML_MAPPING)
		return;
	else if (pass == PASS_WORKFLOWS)
		registry_load_list(&workflows, read_workflow);
	else if (!r->elsewhere)
		registry_load_list(&tasks, read_task);
}

/* -errno when it cannot be read, -EBADMSG when it is no YAML: said. */
static int registry_load_text(struct registry_reader *r, struct registry_file *file)
{
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(REGISTRY_MAX_FILE + (1 << 17));
	struct err why = {""};
	int code = file_read(file->name, REGISTRY_MAX_FILE, &text, &why);
	if (code == 0) {
		code = yaml_parse(file->name, buf_span(&text), &file->doc, &why);
		code = code < 0 && code != -ENOMEM ? -EBADMSG : code;
	}
	if (code < 0)
		buf_printf(r->file.problems, "%s\n", why.text);
	return code;
}

static int registry_load_texts(struct registry_reader *r, struct registry_files *files)
{
	size_t read = 0;
	for (size_t i = 0; i < files->n; i++) {
		int code = registry_load_text(r, &files->all[i]);
		if (code == -ENOMEM)
			return code;
		read += code == 0;
		files->wrong += code < 0;
		files->code = code < 0 ? code : files->code;
	}
	/* Where nothing can be read, nothing has ended. */
	if (read == 0 || (files->wrong && !r->skip_broken))
		r->file.mistakes += files->wrong;
	r->skipped += files->wrong;
	return 0;
}

static bool registry_load_is_wrong(const struct registry_reader *r, const struct registry_files *files)
{
	size_t read = 0;
	for (size_t i = 0; i < files->n; i++)
		read += files->all[i].doc != NULL;
	return r->skip_broken ? read == 0 : r->file.mistakes > 0;
}

/* Workflows name tasks that may stand behind them, and in other files: they are read after. */
static int registry_load_files(struct registry_reader *r, const char *paths)
{
	struct registry_files *files = r->registry->files;
	int code = registry_files_find(paths, r->file.memory, r->file.problems, files);
	if (code == 0)
		code = registry_load_texts(r, files);
	for (enum registry_pass pass = PASS_TOP; code == 0 && pass <= PASS_WORKFLOWS; pass++)
		for (size_t i = 0; i < files->n; i++)
			if (files->all[i].doc)
				registry_load_pass(r, &files->all[i], pass);
	if (code < 0 || r->file.out_of_memory) {
		buf_printf(r->file.problems, "tasks: out of memory\n");
		return -ENOMEM;
	}
	if (!registry_load_is_wrong(r, files))
		return 0;
	/* of the one file that there is, why it cannot be read */
	return r->file.mistakes == 1 && files->wrong == 1 ? files->code : -EBADMSG;
}

/* What was left out is remembered, for whoever asks later. */
static int registry_load_note(const struct registry_reader *r, size_t from)
{
	const struct buf *problems = r->file.problems;
	struct registry *registry = r->registry;
	registry->skipped = r->skipped;
	if (!r->skipped)
		return 0;
	registry->skipped_lines = span_dup((struct span){problems->ptr + from, problems->len - from});
	return registry->skipped_lines ? 0 : -ENOMEM;
}

static int load(struct registry_reader *r, const struct registry_source *s, struct registry **ret)
{
	size_t from = r->file.problems->len;
	r->skip_broken = s->skip_broken;
	r->registry = registry_new();
	if (!r->registry)
		return -ENOMEM;
	r->file.memory = &r->registry->memory;
	int code = r->elsewhere || s->without_core ? 0 : registry_add_core(r->registry);
	if (code == 0 && s->paths) {
		r->registry->files = calloc(1, sizeof(*r->registry->files));
		code = r->registry->files ? registry_load_files(r, s->paths) : -ENOMEM;
	}
	if (code == 0)
		code = registry_load_note(r, from);
	if (code < 0)
		registry_free(r->registry);
	else
		*ret = r->registry;
	return code;
}

int registry_load(const struct registry_source *s, const char *(*getenv_fn)(const char *),
		  struct buf *problems, struct registry **ret)
{
	struct registry_reader r = {.file = {.problems = problems}, .getenv_fn = getenv_fn};
	return load(&r, s, ret);
}

int registry_load_workflows(const struct registry_source *s, struct buf *problems, struct registry **ret)
{
	struct registry_reader r = {.file = {.problems = problems}, .elsewhere = true};
	return load(&r, s, ret);
}
