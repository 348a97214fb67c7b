#include "tasks/temporal/worker/api.h"

#include <errno.h>
#include <temporal_api.pb-c.h>

#include "base/json.h"
#include "base/utf8.h"

#define ENCODING "encoding"
#define JSON_ENCODING "json/plain"
#define FAILURE_SOURCE "migration-router"

char *api_text(struct arena *a, struct span text)
{
	struct span copy;
	if (arena_copy(a, text.ptr ? text : SPAN_LIT(""), &copy) < 0)
		return NULL;
	char *out = (char *)copy.ptr, *end = out + copy.len;
	for (char *p = out; p < end;) {
		size_t n = utf8_sequence(p, end);
		if (!n)
			*p = '?';
		p += n ? n : 1;
	}
	return out;
}

TemporalApi__Name *api_name(struct arena *a, const char *name)
{
	TemporalApi__Name *n = arena_new(a, TemporalApi__Name, 1);
	if (!n)
		return NULL;
	temporal_api__name__init(n);
	n->name = api_text(a, span_of(name));
	return n->name ? n : NULL;
}

TemporalApi__Duration *api_duration(struct arena *a, uint64_t ms)
{
	TemporalApi__Duration *d = arena_new(a, TemporalApi__Duration, 1);
	if (!d)
		return NULL;
	temporal_api__duration__init(d);
	d->seconds = (int64_t)(ms / 1000);
	d->nanos = (int32_t)(ms % 1000) * 1000000;
	return d;
}

uint64_t api_milliseconds(const TemporalApi__Duration *d)
{
	if (!d || d->seconds < 0 || d->nanos < 0)
		return 0;
	return (uint64_t)d->seconds * 1000 + (uint64_t)d->nanos / 1000000;
}

/* --- payloads ------------------------------------------------------------------------------------------- */

static TemporalApi__Payload *api_payload(struct arena *a, struct span json)
{
	TemporalApi__Payload *p = arena_new(a, TemporalApi__Payload, 1);
	TemporalApi__MetadataEntry *m = arena_new(a, TemporalApi__MetadataEntry, 1);
	TemporalApi__MetadataEntry **list = arena_new(a, TemporalApi__MetadataEntry *, 1);
	struct span copy;
	if (!p || !m || !list || arena_copy(a, json, &copy) < 0)
		return NULL;
	temporal_api__payload__init(p);
	temporal_api__metadata_entry__init(m);
	m->key = (char *)ENCODING;
	m->value = (ProtobufCBinaryData){sizeof(JSON_ENCODING) - 1, (uint8_t *)JSON_ENCODING};
	list[0] = m;
	p->metadata = list;
	p->n_metadata = 1;
	p->data = (ProtobufCBinaryData){copy.len, (uint8_t *)copy.ptr};
	return p;
}

TemporalApi__Payloads *api_payloads(struct arena *a, const struct span *json, size_t n)
{
	TemporalApi__Payloads *ps = arena_new(a, TemporalApi__Payloads, 1);
	TemporalApi__Payload **list = arena_new(a, TemporalApi__Payload *, n);
	if (!ps || !list)
		return NULL;
	temporal_api__payloads__init(ps);
	for (size_t i = 0; i < n; i++) {
		list[i] = api_payload(a, json[i]);
		if (!list[i])
			return NULL;
	}
	ps->payloads = list;
	ps->n_payloads = n;
	return ps;
}

static struct span bytes_of(ProtobufCBinaryData d)
{
	return (struct span){d.data ? (const char *)d.data : "", d.len};
}

bool api_json(const TemporalApi__Payload *p, struct span *ret)
{
	for (size_t i = 0; i < p->n_metadata; i++) {
		struct span value = bytes_of(p->metadata[i]->value);
		if (strcmp(p->metadata[i]->key, ENCODING) != 0)
			continue;
		if (span_is(value, "binary/null")) {
			*ret = SPAN_LIT("null");
			return true;
		}
		*ret = span_strip(bytes_of(p->data));
		return span_is(value, JSON_ENCODING) && json_validate(*ret, NULL) == 0;
	}
	return false;
}

bool api_first_json(const TemporalApi__Payloads *p, struct span *ret)
{
	*ret = SPAN_LIT("null");
	return !p || !p->n_payloads || api_json(p->payloads[0], ret);
}

int api_arguments(const TemporalApi__Payloads *p, struct buf *room, struct span *args, struct span *kwargs,
		  struct err *e)
{
	size_t n = p ? p->n_payloads : 0;
	struct span values[2];
	*args = SPAN_LIT("[]");
	*kwargs = SPAN_LIT("{}");
	if (n > 2)
		return err_set(e, -EINVAL, "expected two arguments, a list and an object, but there are %zu",
			       n);
	for (size_t i = 0; i < n; i++)
		if (!api_json(p->payloads[i], &values[i]))
			return err_set(e, -EINVAL, "argument %zu is not JSON (json/plain)", i + 1);
	if (n == 2 && (json_type_of(values[0]) != JSON_ARRAY || json_type_of(values[1]) != JSON_OBJECT))
		return err_set(e, -EINVAL, "expected two arguments, a list and an object");
	if (n == 2) {
		*args = values[0];
		*kwargs = values[1];
	} else if (n == 1) { /* of a caller with single_input */
		buf_putc(room, '[');
		buf_append_span(room, values[0]);
		buf_putc(room, ']');
		*args = buf_span(room);
	}
	return room->error ? err_set(e, room->error, "the argument is too large") : 0;
}

struct span api_entry(TemporalApi__PayloadEntry *const *entries, size_t n, const char *key)
{
	struct span json;
	for (size_t i = 0; i < n; i++)
		if (strcmp(entries[i]->key, key) == 0 && entries[i]->value &&
		    api_json(entries[i]->value, &json))
			return json;
	return SPAN_NONE;
}

/* --- failures ------------------------------------------------------------------------------------------- */

TemporalApi__Failure *api_failure(struct arena *a, struct span message, const char *type, struct span detail)
{
	TemporalApi__Failure *f = arena_new(a, TemporalApi__Failure, 1);
	TemporalApi__ApplicationFailureInfo *info = arena_new(a, TemporalApi__ApplicationFailureInfo, 1);
	if (!f || !info)
		return NULL;
	temporal_api__failure__init(f);
	temporal_api__application_failure_info__init(info);
	info->type = (char *)type;
	f->message = api_text(a, message);
	f->source = (char *)FAILURE_SOURCE;
	f->stack_trace = api_text(a, detail);
	f->application_failure_info = info;
	return f->message && f->stack_trace ? f : NULL;
}
