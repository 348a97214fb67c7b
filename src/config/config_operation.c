/* One operation: what it matches, its flags, and the policies around them. */
#include "config/config_reader.h"

#include <stdio.h>
#include <string.h>

#include "operation/route.h"
#include "tasks/backends.h"

#define FLAG_NAME_MAX 128

/* --- match ---------------------------------------------------------------------------------------------- */

static bool method_valid(struct span s)
{
	for (size_t i = 0; i < s.len; i++)
		if (!((s.ptr[i] >= 'A' && s.ptr[i] <= 'Z') || s.ptr[i] == '-'))
			return false;
	return s.len > 0 && s.len <= 32 && !span_is(s, "CONNECT");
}

/* "POST /v1/x/{name}" */
static void read_match(const struct place *p, struct operation *op)
{
	struct span s;
	if (!p->node)
		place_mistake(p, "missing: method and path, such as \"POST /answer-prompt\"");
	if (!value_text(p, &s))
		return;
	const char *blank = memchr(s.ptr, ' ', s.len);
	struct span method = {s.ptr, blank ? (size_t)(blank - s.ptr) : s.len};
	if (!blank || !method_valid(method)) {
		place_mistake(p, "expected a method in capitals, a blank, and a path, such as \"POST "
				 "/answer-prompt\"");
		return;
	}
	struct span path = span_trim((struct span){blank, s.len - method.len});
	struct err e = {""};
	if (route_template_check(path, &e) != 0)
		place_mistake(p, "%s", e.text);
	else if (span_starts(path, SPAN_LIT(ROUTE_RESERVED)) || span_is(path, "/_migration"))
		place_mistake(p, "paths under " ROUTE_RESERVED " are the router's own");
	op->method = method;
	op->path = path;
}

/* --- flags, context, variants --------------------------------------------------------------------------- */

static void add_flag(const struct place *p, void *arg)
{
	struct operation *op = arg;
	struct span name;
	if (!value_text(p, &name) || !check_name(p, name, FLAG_NAME_MAX))
		return;
	for (size_t i = 0; i < op->n_flags; i++)
		if (span_eq(op->flags[i], name)) {
			place_mistake(p, "the flag \"%.*s\" is listed twice", SPAN_ARG(name));
			return;
		}
	op->flags[op->n_flags++] = name;
}

#define LITERAL "literal:"

static void add_context_source(const struct place *p, void *arg)
{
	struct operation *op = arg;
	struct identity_source source;
	struct span text;
	if (!value_text(p, &text) || !parse_source(p, text, &source))
		return;
	size_t *n = &op->context[op->n_context].n_sources;
	op->context[op->n_context].sources[(*n)++] = source;
	op->context_sources = true;
}

/* One entry: a source or a list of them (the first that has a value counts), or a text that is meant as it
 * is. */
static void read_context_entry(const struct place *p, struct span key, struct operation *op)
{
	struct span text;
	op->context[op->n_context].key = key;
	op->context[op->n_context].value = SPAN_NONE;
	op->context[op->n_context].n_sources = 0;
	if (p->node->kind == YAML_SEQUENCE) {
		value_list(p, OPERATION_MAX_CONTEXT_SOURCES, add_context_source, op);
	} else if (value_text(p, &text)) {
		if (is_source(text))
			add_context_source(p, op);
		else if (span_starts(text, SPAN_LIT(LITERAL)))
			op->context[op->n_context].value =
				(struct span){text.ptr + strlen(LITERAL), text.len - strlen(LITERAL)};
		else
			op->context[op->n_context].value = text;
	}
	op->n_context++;
}

static void config_operation_read_context(const struct place *p, struct operation *op)
{
	static const char *const own[] = {"user_id", "organization_id", "service", "operation"};
	if (!p->node || !value_mapping(p))
		return;
	if (p->node->count > OPERATION_MAX_CONTEXT) {
		place_mistake(p, "at most %d entries, not %zu", OPERATION_MAX_CONTEXT, p->node->count);
		return;
	}
	for (const struct yaml_node *n = p->node->first; n; n = n->next) {
		struct place entry = place_item(p, n);
		for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++)
			if (span_is(n->key->text, own[i]))
				place_mistake(&entry, "the router sets this entry itself");
		if (!entry.node)
			place_mistake(&entry, "empty");
		else
			read_context_entry(&entry, n->key->text, op);
	}
}

/* What decide knows of a variant, from a word: a side, or a backend's name. */
static bool variant_word(const struct place *p, struct span word, struct variant_map *ret)
{
	if (span_is(word, "legacy"))
		return true;
	if (span_is(word, "shadow")) {
		ret->shadow = true;
		return true;
	}
	ret->task = true;
	if (span_is(word, "task"))
		return true;
	ret->backend = word;
	if (config_backend(config_of(p), word))
		return true;
	if (task_backend_is_name(word))
		backend_mistake(p, word);
	else
		place_mistake(p, "expected legacy, task, shadow or the name of a declared backend");
	return false;
}

static void read_variants(const struct place *p, struct operation *op)
{
	if (!p->node || !value_mapping(p) || p->node->count == 0)
		return;
	op->variants = place_memory(p->reader, p->node->count * sizeof(*op->variants));
	if (!op->variants)
		return;
	for (const struct yaml_node *n = p->node->first; n; n = n->next) {
		struct place member = place_item(p, n);
		struct variant_map *v = &op->variants[op->n_variants];
		struct span word;
		*v = (struct variant_map){.variant = n->key->text};
		if (!member.node)
			place_mistake(&member, "empty");
		else if (value_text(&member, &word) && variant_word(&member, word, v))
			op->n_variants++;
	}
}

/* --- follow-up calls ------------------------------------------------------------------------------------ */

static void read_pin(const struct place *p, struct operation *op)
{
	static const struct field fields[] = {
		{"group", FIELD_SPAN, offsetof(struct operation, pin_group), 0, 0},
		{"key", FIELD_SPAN, offsetof(struct operation, pin_key), 0, 0},
		{"role", FIELD_OTHER, 0, 0, 0},
	};
	static const char *const roles[] = {"start", "follow", "end"};
	if (!p->node)
		return;
	READ_FIELDS(p, fields, op);
	struct place role = place_member(p, "role"), key = place_member(p, "key");
	size_t which;
	if (value_choice(&role, roles, 3, &which)) {
		op->pin_start = which == 0;
		op->pin_end = which == 2;
	} else if (!role.node) {
		place_mistake(&role, "missing: start, follow or end");
	}
	struct identity_source source;
	if (!op->pin_key.ptr)
		place_mistake(
			&key,
			"missing: where the key is, such as body:/container_name or query:container_name");
	else if (parse_source(&key, op->pin_key, &source) &&
		 (source.kind == IDENTITY_HEADER || source.kind == IDENTITY_COOKIE))
		place_mistake(&key, "a key is in the body, the query or the path");
	if (!op->pin_group.ptr)
		place_mistake(p, "missing: group, the name shared by the operations of one key");
	if (!op->has_task)
		place_mistake(p, "only an operation with a task can be followed up on the task side");
}

/* --- legacy side ---------------------------------------------------------------------------------------- */

static void read_legacy_path(const struct place *p, struct operation *op)
{
	struct span path;
	struct err e = {""};
	if (!value_text(p, &path))
		return;
	if (memchr(path.ptr, '{', path.len))
		place_mistake(p, "a path on the legacy side has no parameters");
	else if (route_template_check(path, &e) != 0)
		place_mistake(p, "%s", e.text);
	op->legacy_path = path;
}

static void read_operation_legacy(const struct place *p, struct operation *op)
{
	static const struct field fields[] = {
		{"method", FIELD_SPAN, offsetof(struct operation, legacy_method), 0, 0},
		{"path", FIELD_OTHER, 0, 0, 0},
		{"body", FIELD_OTHER, 0, 0, 0},
		{"response", FIELD_OTHER, 0, 0, 0},
		{"timeout", FIELD_DURATION, offsetof(struct operation, legacy_timeout_ms), 10,
		 7ull * 86400000}};
	READ_FIELDS(p, fields, op);
	struct place method = place_member(p, "method"), path = place_member(p, "path");
	struct place body = place_member(p, "body"), response = place_member(p, "response");
	if (op->legacy_method.ptr && !method_valid(op->legacy_method))
		place_mistake(&method, "expected a method in capitals");
	read_legacy_path(&path, op);
	op->legacy_body = read_template(&body, TEMPLATE_REQUEST);
	op->legacy_response = read_response(&response, TEMPLATE_REQUEST | TEMPLATE_RESULT);
	op->legacy_needs_body = (op->legacy_body && template_needs_body(op->legacy_body)) ||
				(op->legacy_response && response_template_needs_body(op->legacy_response));
}

/* --- operation ------------------------------------------------------------------------------------------ */

static void check_path_source(const struct place *p, const struct operation *op,
			      const struct identity_source *source)
{
	char parameter[128];
	if (source->kind != IDENTITY_PATH || !op->path.ptr)
		return;
	snprintf(parameter, sizeof(parameter), "{%.*s}", SPAN_ARG(source->name));
	if (!memmem(op->path.ptr, op->path.len, parameter, strlen(parameter)))
		place_mistake(p, "the operation's path has no parameter {%.*s}", SPAN_ARG(source->name));
}

static void check_context_sources(const struct place *context, const struct operation *op)
{
	for (size_t i = 0; i < op->n_context; i++)
		for (size_t j = 0; j < op->context[i].n_sources; j++)
			check_path_source(context, op, &op->context[i].sources[j]);
}

/* path: sources that this operation itself names must be parameters of its path. */
static void check_path_sources(const struct place *identity, const struct operation *op)
{
	const struct identity_sources *s = &op->identity;
	if (!identity->node || !op->path.ptr)
		return;
	for (size_t i = 0; i < s->n_user + s->n_organization; i++)
		check_path_source(identity, op,
				  i < s->n_user ? &s->user[i] : &s->organization[i - s->n_user]);
}

static void check_unified(const struct place *p, const struct operation *op)
{
	struct place unified = place_member(p, "unified");
	if (!op->unified)
		return;
	if (!op->has_task || !op->task.response)
		place_mistake(&unified, "needs a task with a response");
	if (!op->legacy_path.ptr || !op->legacy_response)
		place_mistake(&unified, "needs legacy.path and legacy.response: what the legacy side calls "
					"and how it answers");
}

static bool finds_entity(const struct identity_sources *s)
{
	for (size_t i = 0; i < s->n_entity; i++)
		if (s->entity[i] == IDENTITY_USER ? s->n_user : s->n_organization)
			return true;
	return false;
}

/* Whoever asks for the state of a task shows its organization again, in a GET that has no body and another
 * path. */
static void check_async(const struct place *task, const struct operation *op)
{
	const struct identity_sources *s = &op->identity;
	struct place async = place_member(task, "respond_async");
	bool shown = s->n_organization == 0;
	for (size_t i = 0; i < s->n_organization; i++)
		shown |= s->organization[i].kind != IDENTITY_BODY && s->organization[i].kind != IDENTITY_PATH;
	if (op->has_task && op->task.respond_async && !shown)
		place_mistake(
			&async,
			"nobody could poll the task: the organization comes only from the body or the path, "
			"which a GET of the Location does not have; add header:, query: or cookie: "
			"to identity.organization");
}

/* What a task is given lies in its backend's queue for as long as that keeps it. */
static void check_forward(const struct place *auth, const struct place *task, const struct operation *op)
{
	struct place forward = place_member(auth, "forward");
	bool used = template_has_credential(op->task.args) || template_has_credential(op->task.kwargs);
	if (used && !op->auth.forward.name.ptr)
		place_mistake(task, "{$ref: credential} needs \"auth: {forward: …}\" to name the credential");
	else if (!used && op->auth.forward.name.ptr)
		place_mistake(&forward,
			      "has no effect: the task's args or kwargs have no {$ref: credential}");
	else if (used)
		place_warning(&forward,
			      "the queue of the task's backend will hold this credential; anyone who can "
			      "read it can use it");
}

static void check_policies(const struct place *p, const struct operation *op)
{
	struct place auth = place_member(p, "auth"), flags = place_member(p, "flags"),
		     task = place_member(p, "task");
	struct place identity = place_member(p, "identity");
	if (op->has_task && !auth.node)
		place_mistake(
			&auth,
			"missing: an operation mapped to a task must say how its callers are authenticated, "
			"\"auth: bearer\" or \"auth: none\"");
	if (!op->has_task && auth.node)
		place_warning(&auth, "has no effect: without a task everything goes to legacy, which "
				     "authenticates its own callers");
	if (!op->has_task && op->n_flags)
		place_warning(&flags, "have no effect: the operation has no task and always goes to legacy");
	if (op->has_task && op->n_flags == 0)
		place_warning(&task, "the operation names no flags and always goes to legacy");
	if (op->has_task && op->n_flags && !finds_entity(&op->identity))
		place_warning(
			p,
			"no identity source is configured: requests that a percentage decides go to legacy");
	check_forward(&auth, &task, op);
	check_path_sources(&identity, op);
	check_async(&task, op);
	struct place context = place_member(p, "context");
	check_context_sources(&context, op);
	check_unified(p, op);
}

static void inherit(const struct place *p, const struct config_defaults *above, struct operation *op)
{
	struct place identity = place_member(p, "identity"), entity = place_member(p, "entity");
	struct place error = place_member(p, "error");
	struct place guard = place_member(p, "guard");
	op->identity = above->sources;
	op->guard = above->guard;
	read_guard(&guard, &op->guard);
	read_identity(&identity, &op->identity);
	read_entity(&entity, &op->identity);
	op->error = read_response(error.node ? &error : &above->error, TEMPLATE_REQUEST | TEMPLATE_ERROR);
}

void read_operation(const struct place *p, const struct config_defaults *above, struct operation *op)
{
	static const struct field fields[] = {
		{"match", FIELD_OTHER, 0, 0, 0},
		{"flags", FIELD_OTHER, 0, 0, 0},
		{"identity", FIELD_OTHER, 0, 0, 0},
		{"entity", FIELD_OTHER, 0, 0, 0},
		{"context", FIELD_OTHER, 0, 0, 0},
		{"variants", FIELD_OTHER, 0, 0, 0},
		{"task", FIELD_OTHER, 0, 0, 0},
		{"auth", FIELD_OTHER, 0, 0, 0},
		{"tokens", FIELD_OTHER, 0, 0, 0},
		{"error", FIELD_OTHER, 0, 0, 0},
		{"legacy", FIELD_OTHER, 0, 0, 0},
		{"pin", FIELD_OTHER, 0, 0, 0},
		{"guard", FIELD_OTHER, 0, 0, 0},
		{"idempotency", FIELD_OTHER, 0, 0, 0},
		{"safe_to_shadow", FIELD_BOOL, offsetof(struct operation, safe_to_shadow), 0, 0},
		{"repeatable", FIELD_BOOL, offsetof(struct operation, repeatable), 0, 0},
		{"shadow", FIELD_OTHER, 0, 0, 0},
		{"shadow_share", FIELD_OTHER, 0, 0, 0},
		{"compare", FIELD_OTHER, 0, 0, 0},
		{"unified", FIELD_BOOL, offsetof(struct operation, unified), 0, 0},
	};
	struct place match = place_member(p, "match"), flags = place_member(p, "flags");
	struct place context = place_member(p, "context"), variants = place_member(p, "variants");
	struct place legacy = place_member(p, "legacy"), pin = place_member(p, "pin");
	struct place auth = place_member(p, "auth"), tokens = place_member(p, "tokens");
	struct place task = place_member(p, "task"), idempotency = place_member(p, "idempotency");
	READ_FIELDS(p, fields, op);
	read_match(&match, op);
	value_list(&flags, OPERATION_MAX_FLAGS, add_flag, op);
	inherit(p, above, op);
	config_operation_read_context(&context, op);
	read_variants(&variants, op);
	read_task(&task, op);
	read_auth(&auth, tokens.node ? &tokens : &above->tokens, &op->auth);
	read_operation_legacy(&legacy, op);
	read_pin(&pin, op);
	read_idempotency(&idempotency, op);
	read_shadow(p, op);
	check_policies(p, op);
}
