#include "operation/identity.h"

#include <string.h>

#include "base/buf.h"
#include "base/json.h"
#include "base/text.h"

enum found { FOUND_NOTHING, FOUND_VALUE, FOUND_STOP };

struct finder {
	const struct identity_sources *sources;
	const struct identity_input *in;
	struct identity *out;
	struct buf scratch;
	/* What the body's pointers name, once it has been looked into: of the user's sources, then the
	 * organization's. */
	struct span body_values[2 * OPERATION_MAX_SOURCES];
};

static enum found unusable(struct finder *f)
{
	f->out->unusable = true;
	return FOUND_STOP;
}

static enum found ambiguous(struct finder *f)
{
	f->out->ambiguous = true;
	return FOUND_STOP;
}

/* Takes over a candidate: copies it to where the identity keeps it. */
static enum found identity_keep(struct finder *f, struct span value, char *text, struct span *ret)
{
	if (value.len == 0)
		return FOUND_NOTHING;
	if (value.len > IDENTITY_MAX)
		return unusable(f);
	if (!text_is_plain(value))
		return unusable(f);
	memcpy(text, value.ptr, value.len);
	*ret = (struct span){text, value.len};
	return FOUND_VALUE;
}

static bool same_field(struct span a, struct span b)
{
	return a.len == b.len && strncasecmp(a.ptr, b.ptr, a.len) == 0;
}

static enum found from_header(struct finder *f, struct span name, char *text, struct span *ret)
{
	if (!f->in->peer_trusted)
		return FOUND_NOTHING;
	const struct http_request *r = f->in->request;
	struct span value = SPAN_NONE;
	for (size_t i = 0; i < r->n_fields; i++) {
		if (!same_field(r->fields[i].name, name))
			continue;
		struct span other = span_trim(r->fields[i].value);
		if (value.len && other.len && !span_eq(value, other))
			return ambiguous(f);
		if (other.len)
			value = other;
	}
	return identity_keep(f, value, text, ret);
}

/* `name` = value; of all Cookie fields (RFC 9112 lets a proxy split them). */
static enum found from_cookie(struct finder *f, struct span name, char *text, struct span *ret)
{
	if (!f->in->peer_trusted)
		return FOUND_NOTHING;
	const struct http_request *r = f->in->request;
	struct span value = SPAN_NONE;
	for (size_t i = 0; i < r->n_fields; i++) {
		struct span rest = r->fields[i].value;
		while (span_is_nocase(r->fields[i].name, "cookie") && rest.len) {
			const char *end = memchr(rest.ptr, ';', rest.len);
			struct span pair =
				span_trim((struct span){rest.ptr, end ? (size_t)(end - rest.ptr) : rest.len});
			rest = end ? (struct span){end + 1, (size_t)(rest.ptr + rest.len - end - 1)}
				   : SPAN_NONE;
			if (pair.len <= name.len || pair.ptr[name.len] != '=' ||
			    memcmp(pair.ptr, name.ptr, name.len) != 0)
				continue;
			struct span other = {pair.ptr + name.len + 1, pair.len - name.len - 1};
			if (other.len >= 2 && other.ptr[0] == '"' && other.ptr[other.len - 1] == '"')
				other = (struct span){other.ptr + 1, other.len - 2};
			if (value.len && other.len && !span_eq(value, other))
				return ambiguous(f);
			if (other.len)
				value = other;
		}
	}
	return identity_keep(f, value, text, ret);
}

static enum found from_query(struct finder *f, struct span name, char *text, struct span *ret)
{
	size_t at = 0;
	enum found found = FOUND_NOTHING;
	while (route_query_next(f->in->request->target, name, &at, &f->scratch)) {
		if (f->scratch.error)
			return unusable(f);
		struct span other = buf_span(&f->scratch);
		if (found == FOUND_VALUE && other.len && !span_eq(*ret, other))
			return ambiguous(f);
		if (found == FOUND_NOTHING)
			found = identity_keep(f, other, text, ret);
		if (found == FOUND_STOP)
			break;
	}
	return found;
}

static enum found from_path(struct finder *f, struct span name, char *text, struct span *ret)
{
	buf_clear(&f->scratch);
	if (!f->in->match || !route_parameter(f->in->match, name, &f->scratch))
		return f->scratch.error ? unusable(f) : FOUND_NOTHING;
	return identity_keep(f, buf_span(&f->scratch), text, ret);
}

/* One pass over the body for all sources of both parts. */
static void identity_read_body(struct finder *f)
{
	struct span pointers[2 * OPERATION_MAX_SOURCES];
	const struct identity_sources *s = f->sources;
	for (size_t i = 0; i < s->n_user; i++)
		pointers[i] = s->user[i].kind == IDENTITY_BODY ? s->user[i].name : SPAN_LIT("");
	for (size_t i = 0; i < s->n_organization; i++)
		pointers[s->n_user + i] =
			s->organization[i].kind == IDENTITY_BODY ? s->organization[i].name : SPAN_LIT("");
	size_t n = s->n_user + s->n_organization;
	f->out->body_checked = true;
	if (f->in->body.len && json_pointers(f->in->body, pointers, n, f->body_values, NULL) == 0)
		return;
	f->out->body_malformed = f->in->body.len > 0;
	for (size_t i = 0; i < n; i++)
		f->body_values[i] = SPAN_NONE;
}

static enum found from_body(struct finder *f, size_t index, char *text, struct span *ret)
{
	if (!f->in->body_read) {
		f->out->wants_body = true;
		return FOUND_STOP;
	}
	if (!f->out->body_checked)
		identity_read_body(f);
	struct span value = f->body_values[index];
	if (!value.ptr)
		return FOUND_NOTHING;
	enum json_type type = json_type_of(value);
	if (type == JSON_NUMBER)
		return identity_keep(f, value, text, ret);
	if (type != JSON_STRING)
		return FOUND_NOTHING;
	buf_clear(&f->scratch);
	if (json_unescape(value, &f->scratch) != 0)
		return unusable(f);
	return identity_keep(f, buf_span(&f->scratch), text, ret);
}

/* `first`: index of the part's first source among the body values. */
static struct span find_part(struct finder *f, const struct identity_source *sources, size_t n, size_t first,
			     char *text)
{
	struct span value = SPAN_NONE;
	for (size_t i = 0; i < n; i++) {
		enum found found = FOUND_NOTHING;
		switch (sources[i].kind) {
		case IDENTITY_HEADER:
			found = from_header(f, sources[i].name, text, &value);
			break;
		case IDENTITY_QUERY:
			found = from_query(f, sources[i].name, text, &value);
			break;
		case IDENTITY_PATH:
			found = from_path(f, sources[i].name, text, &value);
			break;
		case IDENTITY_BODY:
			found = from_body(f, first + i, text, &value);
			break;
		case IDENTITY_COOKIE:
			found = from_cookie(f, sources[i].name, text, &value);
			break;
		}
		if (found != FOUND_NOTHING)
			return found == FOUND_VALUE ? value : SPAN_NONE;
	}
	return SPAN_NONE;
}

bool identity_entity(const struct identity_sources *sources, struct span user, struct span organization,
		     struct span *ret, enum identity_part *ret_part)
{
	for (size_t i = 0; i < sources->n_entity; i++) {
		struct span value = sources->entity[i] == IDENTITY_USER ? user : organization;
		if (!value.ptr)
			continue;
		*ret = value;
		*ret_part = sources->entity[i];
		return true;
	}
	return false;
}

void identity_find(const struct identity_sources *sources, const struct identity_input *in,
		   struct identity *ret)
{
	/* Without the two texts, which need no clearing. */
	memset(ret, 0, offsetof(struct identity, text));
	struct finder f = {.sources = sources, .in = in, .out = ret, .scratch = BUF_INIT(IDENTITY_MAX)};
	ret->user = find_part(&f, sources->user, sources->n_user, 0, ret->text[0]);
	ret->organization =
		find_part(&f, sources->organization, sources->n_organization, sources->n_user, ret->text[1]);
	ret->has_entity =
		identity_entity(sources, ret->user, ret->organization, &ret->entity, &ret->entity_part);
	buf_release(&f.scratch);
}

/* Each entry by itself, as if it were a part of an identity: one pass over the body for each that looks
 * into it. */
void identity_find_context(const struct operation *op, const struct identity_input *in,
			   struct identity_context *ret)
{
	ret->n = 0;
	ret->wants_body = false;
	for (size_t i = 0; i < op->n_context; i++) {
		struct identity_sources one = {.n_user = op->context[i].n_sources};
		struct identity found;
		memset(&found, 0, offsetof(struct identity, text));
		struct finder f = {
			.sources = &one, .in = in, .out = &found, .scratch = BUF_INIT(IDENTITY_MAX)};
		memcpy(one.user, op->context[i].sources, one.n_user * sizeof(one.user[0]));
		struct span value = find_part(&f, one.user, one.n_user, 0, ret->text[i]);
		ret->wants_body |= found.wants_body;
		if (value.ptr)
			ret->entries[ret->n++] = (struct flag_context){op->context[i].key, value};
		buf_release(&f.scratch);
	}
}
