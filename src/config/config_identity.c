/* `identity:` and `entity:` of the file, a service and an operation. */
#include "base/http_message.h"
#include "config/config_reader.h"

#include <string.h>

/* RFC 6901, and not the whole document. */
static bool is_pointer(struct span s)
{
	if (s.len == 0 || s.ptr[0] != '/')
		return false;
	for (size_t i = 0; i < s.len; i++)
		if (s.ptr[i] == '~' && (i + 1 == s.len || (s.ptr[i + 1] != '0' && s.ptr[i + 1] != '1')))
			return false;
	return true;
}

/* What is wrong with the name of a source, or NULL. */
static const char *source_mistake(enum identity_source_kind kind, struct span name)
{
	if (kind == IDENTITY_BODY)
		return is_pointer(name)
			       ? NULL
			       : "a JSON pointer begins with \"/\" (RFC 6901): body:/organization_id";
	if (kind == IDENTITY_COOKIE)
		return http_is_token(name) ? NULL : "this is not the name of a cookie";
	if (kind != IDENTITY_HEADER)
		return name.len ? NULL : "the name of the parameter is missing";
	if (!http_is_token(name))
		return "this is not the name of a header field";
	static const char *const secret[] = {"authorization", "proxy-authorization", "cookie"};
	for (size_t i = 0; i < sizeof(secret) / sizeof(secret[0]); i++)
		if (span_is_nocase(name, secret[i]))
			return "this field carries credentials, which would be recorded as an identity";
	return NULL;
}

static const char *const source_kinds[] = {[IDENTITY_HEADER] = "header:",
					   [IDENTITY_QUERY] = "query:",
					   [IDENTITY_BODY] = "body:",
					   [IDENTITY_PATH] = "path:",
					   [IDENTITY_COOKIE] = "cookie:"};

bool parse_source(const struct place *p, struct span text, struct identity_source *ret)
{
	for (size_t i = 0; i < sizeof(source_kinds) / sizeof(source_kinds[0]); i++) {
		struct span prefix = span_of(source_kinds[i]);
		if (!span_starts(text, prefix))
			continue;
		*ret = (struct identity_source){(enum identity_source_kind)i,
						{text.ptr + prefix.len, text.len - prefix.len}};
		const char *wrong = source_mistake(ret->kind, ret->name);
		if (wrong)
			place_mistake(p, "%s", wrong);
		return !wrong;
	}
	place_mistake(p, "expected header:NAME, query:NAME, body:/POINTER, path:NAME or cookie:NAME");
	return false;
}

bool is_source(struct span text)
{
	for (size_t i = 0; i < sizeof(source_kinds) / sizeof(source_kinds[0]); i++)
		if (span_starts(text, span_of(source_kinds[i])))
			return true;
	return false;
}

struct identity_section {
	struct identity_source *sources;
	size_t *n;
};

static void config_identity_add_source(const struct place *p, void *arg)
{
	struct identity_section *part = arg;
	struct span text;
	if (value_text(p, &text) && parse_source(p, text, &part->sources[*part->n]))
		++*part->n;
}

static void read_part(const struct place *section, const char *key, struct identity_source *sources,
		      size_t *n)
{
	struct place p = place_member(section, key);
	if (!p.node)
		return;
	*n = 0; /* a level replaces what the level above says */
	value_list(&p, OPERATION_MAX_SOURCES, config_identity_add_source,
		   &(struct identity_section){sources, n});
}

bool identity_uses(const struct identity_sources *s, enum identity_source_kind kind)
{
	for (size_t i = 0; i < s->n_user; i++)
		if (s->user[i].kind == kind)
			return true;
	for (size_t i = 0; i < s->n_organization; i++)
		if (s->organization[i].kind == kind)
			return true;
	return false;
}

void read_identity(const struct place *section, struct identity_sources *s)
{
	static const struct field fields[] = {{"user", FIELD_OTHER, 0, 0, 0},
					      {"organization", FIELD_OTHER, 0, 0, 0}};
	READ_FIELDS(section, fields, s);
	read_part(section, "user", s->user, &s->n_user);
	read_part(section, "organization", s->organization, &s->n_organization);
	s->needs_body = identity_uses(s, IDENTITY_BODY);
}

static void add_entity(const struct place *p, void *arg)
{
	struct identity_sources *s = arg;
	static const char *const names[] = {"user", "organization"};
	size_t which;
	if (!value_choice(p, names, 2, &which))
		return;
	if (s->n_entity && s->entity[0] == (enum identity_part)which)
		place_mistake(p, "\"%s\" is listed twice", names[which]);
	else
		s->entity[s->n_entity++] = (enum identity_part)which;
}

void read_entity(const struct place *p, struct identity_sources *s)
{
	if (!p->node)
		return;
	s->n_entity = 0;
	value_list(p, 2, add_entity, s);
}
