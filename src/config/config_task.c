/* `task:` and `auth:` of an operation: what it becomes on the task side, and who may ask for it. */
#include "config/config_reader.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"

#define TOKENS_MAX_FILE (1u << 20)
#define DAY_MS 86400000ull

/* --- task ---------------------------------------------------------------------------------------------------------- */

static void check_backend(const struct place *task, const struct operation *op)
{
	const struct config *c = task->reader->config;
	struct place p = place_member(task, "backend");
	if (op->task.backend.ptr && !config_backend(c, op->task.backend))
		backend_mistake(&p, op->task.backend);
	else if (!op->task.backend.ptr && !c->default_backend.ptr)
		place_mistake(task, "there is no backend for it: declare one under backends");
}

static void check_arguments(const struct place *task, const struct operation *op)
{
	struct place args = place_member(task, "args"), kwargs = place_member(task, "kwargs");
	struct place single = place_member(task, "single_input");
	if (args.node && args.node->kind == YAML_SCALAR)
		place_mistake(&args, "expected a list of arguments");
	if (kwargs.node && kwargs.node->kind != YAML_MAPPING)
		place_mistake(&kwargs, "expected a mapping of arguments by name");
	if (op->task.single_input && (!args.node || (args.node->kind == YAML_SEQUENCE && args.node->count != 1)))
		place_mistake(&single, "needs exactly one argument in args, which becomes the input");
}

/* Without a result there is nothing to answer with, or to be asked for. */
static void check_forgotten(const struct place *task, const struct operation *op)
{
	struct place response = place_member(task, "response"), async = place_member(task, "respond_async");
	if (op->task.fire_and_forget && response.node)
		place_mistake(&response, "fire_and_forget and response are mutually exclusive");
	if (op->task.fire_and_forget && op->task.respond_async)
		place_mistake(&async, "fire_and_forget and respond_async are mutually exclusive");
}

static void read_name(const struct place *task, struct operation *op)
{
	struct place name = place_member(task, "name"), workflow = place_member(task, "workflow");
	if (name.node && workflow.node)
		place_mistake(&workflow, "name and workflow are mutually exclusive");
	else if (!name.node && !workflow.node)
		place_mistake(task, "missing: name (of a task) or workflow");
	op->task.workflow = workflow.node != NULL;
	const struct place *p = workflow.node ? &workflow : &name;
	if (value_text(p, &op->task.task) && op->task.task.len > 127)
		place_mistake(p, "a name has at most 127 characters, this one %zu", op->task.task.len);
}

void read_task(const struct place *p, struct operation *op)
{
	static const struct field fields[] = {
		{"name", FIELD_OTHER, 0, 0, 0},
		{"workflow", FIELD_OTHER, 0, 0, 0},
		{"args", FIELD_OTHER, 0, 0, 0},
		{"kwargs", FIELD_OTHER, 0, 0, 0},
		{"response", FIELD_OTHER, 0, 0, 0},
		{"priority", FIELD_OTHER, 0, 0, 0},
		{"queue", FIELD_SPAN, offsetof(struct task_mapping, queue), 0, 0},
		{"backend", FIELD_SPAN, offsetof(struct task_mapping, backend), 0, 0},
		{"single_input", FIELD_BOOL, offsetof(struct task_mapping, single_input), 0, 0},
		{"idempotent", FIELD_BOOL, offsetof(struct task_mapping, idempotent), 0, 0},
		{"respond_async", FIELD_BOOL, offsetof(struct task_mapping, respond_async), 0, 0},
		{"fire_and_forget", FIELD_BOOL, offsetof(struct task_mapping, fire_and_forget), 0, 0},
		{"timeout", FIELD_DURATION, offsetof(struct task_mapping, timeout_ms), 10, 7 * DAY_MS},
		{"task_timeout", FIELD_DURATION, offsetof(struct task_mapping, task_timeout_ms), 10, 7 * DAY_MS},
		{"expires", FIELD_DURATION, offsetof(struct task_mapping, expires_ms), 10, 7 * DAY_MS},
	};
	if (!p->node)
		return;
	op->has_task = true;
	op->task.timeout_ms = 300000;
	if (!value_mapping(p))
		return;
	READ_FIELDS(p, fields, &op->task);
	read_name(p, op);
	struct place args = place_member(p, "args"), kwargs = place_member(p, "kwargs");
	struct place response = place_member(p, "response"), priority = place_member(p, "priority");
	uint64_t v;
	if (value_unsigned(&priority, 0, 9, &v))
		op->task.priority = (int)v;
	op->task.args = read_template(&args, TEMPLATE_REQUEST);
	op->task.kwargs = read_template(&kwargs, TEMPLATE_REQUEST);
	op->task.response = read_response(&response, TEMPLATE_REQUEST | TEMPLATE_RESULT);
	op->task.needs_body = (op->task.args && template_needs_body(op->task.args)) ||
			      (op->task.kwargs && template_needs_body(op->task.kwargs)) ||
			      (op->task.response && response_template_needs_body(op->task.response));
	check_arguments(p, op);
	check_forgotten(p, op);
	check_backend(p, op);
}

/* --- auth ---------------------------------------------------------------------------------------------------------- */

struct tokens {
	const struct place *place;
	const char *path;
	struct auth *auth;
	size_t capacity;
};

/* The line is not repeated: somebody may have put a token itself there. */
static void add_hash(struct tokens *t, struct span line, unsigned number)
{
	const char *comment = line.len ? memchr(line.ptr, '#', line.len) : NULL;
	if (comment)
		line.len = (size_t)(comment - line.ptr);
	line = span_trim(line);
	if (line.len == 0)
		return;
	if (!sha256_hex_valid(line)) {
		place_mistake(t->place, "%s:%u: expected the SHA-256 of a token in 64 hex digits", t->path, number);
		return;
	}
	char *hash = t->auth->hashes[t->auth->n_hashes++];
	for (size_t i = 0; i < line.len; i++)
		hash[i] = (char)(line.ptr[i] >= 'A' && line.ptr[i] <= 'F' ? line.ptr[i] | 0x20 : line.ptr[i]);
}

static int by_text(const void *a, const void *b)
{
	return strcmp(a, b);
}

static size_t count_lines(struct span text)
{
	size_t n = 1;
	for (size_t i = 0; i < text.len; i++)
		n += text.ptr[i] == '\n';
	return n;
}

static void parse_tokens(struct tokens *t, struct span text)
{
	unsigned before = t->place->reader->mistakes, number = 0;
	/* A hash per line at most, and each takes a line of 64 characters. */
	t->auth->hashes = config_memory(t->place->reader, (count_lines(text) + 1) * sizeof(*t->auth->hashes));
	if (!t->auth->hashes)
		return;
	while (text.len) {
		const char *end = memchr(text.ptr, '\n', text.len);
		size_t length = end ? (size_t)(end - text.ptr) : text.len;
		struct span line = {text.ptr, length && text.ptr[length - 1] == '\r' ? length - 1 : length};
		add_hash(t, line, ++number);
		text.ptr += length + (end != NULL);
		text.len -= length + (end != NULL);
	}
	qsort(t->auth->hashes, t->auth->n_hashes, sizeof(*t->auth->hashes), by_text);
	if (t->auth->n_hashes == 0 && t->place->reader->mistakes == before)
		place_mistake(t->place, "%s contains no hashes; every request would be rejected", t->path);
}

static void read_tokens(const struct place *p, struct auth *ret)
{
	const char *path;
	struct stat st;
	if (!value_file(p, &path))
		return;
	/* A named pipe or a device would block, or never end. */
	if (stat(path, &st) != 0 || !S_ISREG(st.st_mode)) {
		place_mistake(p, "%s: not a regular file", path);
		return;
	}
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(TOKENS_MAX_FILE + (128u << 10));
	struct err e = {""};
	if (file_read(path, TOKENS_MAX_FILE, &text, &e) < 0) {
		place_mistake(p, "%s", e.text);
		return;
	}
	ret->file = span_of(path);
	parse_tokens(&(struct tokens){.place = p, .path = path, .auth = ret}, buf_span(&text));
}

void read_auth(const struct place *auth, const struct place *tokens, struct auth *ret)
{
	static const char *const kinds[] = {"none", "bearer"};
	size_t which;
	if (!value_choice(auth, kinds, 2, &which))
		return;
	ret->kind = which == 0 ? AUTH_NONE : AUTH_BEARER;
	if (ret->kind == AUTH_NONE)
		return;
	if (!tokens->node)
		place_mistake(auth, "bearer needs \"tokens\": a file of SHA-256 hashes, here or on a level above");
	else
		read_tokens(tokens, ret);
}
