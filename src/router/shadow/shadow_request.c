#include "router/shadow/shadow_request.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* The buffer has room for all of it: it never moves. */
static struct span shadow_request_put(struct shadow_request *s, struct span text)
{
	if (!text.ptr)
		return SPAN_NONE;
	size_t begin = s->text.len;
	buf_append_span(&s->text, text);
	return (struct span){s->text.ptr + begin, text.len};
}

static size_t shadow_request_size(const struct request *r)
{
	size_t size =
		r->http->target.len + r->identity.user.len + r->identity.organization.len + r->request_id.len;
	for (size_t i = 0; i < r->http->n_fields; i++)
		size += r->http->fields[i].name.len + r->http->fields[i].value.len;
	return size;
}

/* The values of path parameters lie in the target. */
static void shadow_request_keep_match(struct shadow_request *s, const struct request *r)
{
	s->match = r->match;
	for (size_t i = 0; i < s->match.n_parameters; i++) {
		struct span *value = &s->match.parameters[i].value;
		value->ptr = s->target.ptr + (value->ptr - r->http->target.ptr);
	}
}

int shadow_request_keep(struct shadow_request *s, struct request *r)
{
	struct template_source source;
	request_template_source(r, &source); /* makes the uuid */
	size_t size = shadow_request_size(r), n = r->http->n_fields;
	*s = (struct shadow_request){.text = BUF_INIT(size)};
	s->fields = calloc(n + 1, sizeof(*s->fields));
	if (!s->fields || buf_reserve(&s->text, size) < 0) {
		shadow_request_release(s);
		return -ENOMEM;
	}
	for (; s->n_fields < n; s->n_fields++) {
		const struct http_field *f = &r->http->fields[s->n_fields];
		s->fields[s->n_fields].name = shadow_request_put(s, f->name);
		s->fields[s->n_fields].value = shadow_request_put(s, f->value);
	}
	s->target = shadow_request_put(s, r->http->target);
	s->user = shadow_request_put(s, source.user);
	s->organization = shadow_request_put(s, source.organization);
	s->request_id = shadow_request_put(s, source.request_id);
	memcpy(s->uuid, r->uuid, sizeof(s->uuid));
	shadow_request_keep_match(s, r);
	return 0;
}

void shadow_request_release(struct shadow_request *s)
{
	buf_release(&s->text);
	free(s->fields);
	*s = (struct shadow_request){0};
}

static struct span shadow_request_header(void *arg, struct span name)
{
	const struct shadow_request *s = arg;
	for (size_t i = 0; i < s->n_fields; i++)
		if (s->fields[i].name.len == name.len &&
		    strncasecmp(s->fields[i].name.ptr, name.ptr, name.len) == 0)
			return s->fields[i].value;
	return SPAN_NONE;
}

static bool shadow_request_query(void *arg, struct span name, struct buf *decoded)
{
	const struct shadow_request *s = arg;
	return s->target.ptr && route_query(s->target, name, decoded);
}

static bool shadow_request_path(void *arg, struct span name, struct buf *decoded)
{
	const struct shadow_request *s = arg;
	return route_parameter(&s->match, name, decoded);
}

void shadow_request_source(struct shadow_request *s, struct template_source *ret)
{
	*ret = (struct template_source){
		.arg = s,
		.header = shadow_request_header,
		.query = shadow_request_query,
		.path = shadow_request_path,
		.user = s->user,
		.organization = s->organization,
		.uuid = s->uuid[0] ? span_of(s->uuid) : SPAN_NONE,
		.request_id = s->request_id,
	};
}
