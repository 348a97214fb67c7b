#include "page/page_view.h"

#include <stddef.h>
#include <string.h>

#include "operation/route.h"
#include "outcomes/when.h"
#include "page/html.h"

static const struct view_field {
	const char *name;
	size_t offset, size;
} view_fields[] = {
#define VIEW_FIELD(name) \
	{ \
#name, offsetof(struct page_view, name), sizeof(((struct page_view *)NULL)->name) \
	}
	VIEW_FIELD(since),   VIEW_FIELD(until),	 VIEW_FIELD(service), VIEW_FIELD(operation),
	VIEW_FIELD(org),     VIEW_FIELD(user),	 VIEW_FIELD(id),      VIEW_FIELD(side),
	VIEW_FIELD(backend), VIEW_FIELD(result), VIEW_FIELD(status),  VIEW_FIELD(reason),
	VIEW_FIELD(search),  VIEW_FIELD(sort),	 VIEW_FIELD(page),    VIEW_FIELD(error),
	VIEW_FIELD(routers),
#undef VIEW_FIELD
};
#define VIEW_FIELDS (sizeof(view_fields) / sizeof(view_fields[0]))

static char *view_value(struct page_view *v, size_t i)
{
	return (char *)v + view_fields[i].offset;
}

static const char *view_text(const struct page_view *v, size_t i)
{
	return (const char *)v + view_fields[i].offset;
}

static int view_read(struct span target, size_t i, struct page_view *v, struct err *e)
{
	CLEANUP(buf_releasep) struct buf value = BUF_INIT(view_fields[i].size - 1);
	route_query(target, span_of(view_fields[i].name), &value);
	if (value.error || memchr(value.ptr ? value.ptr : "", '\0', value.len)) {
		err_set(e, 400, "%s: longer than %zu bytes, or with a NUL", view_fields[i].name,
			view_fields[i].size - 1);
		return 400;
	}
	memcpy(view_value(v, i), value.ptr ? value.ptr : "", value.len);
	return 0;
}

static int view_time(const char *name, const char *text, int64_t now_us, int64_t *ret_us, struct err *e)
{
	if (!text[0] || when_parse(text, now_us, ret_us))
		return 0;
	err_set(e, 400, "%s: \"%s\" is neither a duration such as 15m, 24h or 7d nor an RFC 3339 time", name,
		text);
	return 400;
}

int page_view_parse(struct span target, int64_t now_us, struct page_view *ret, struct err *e)
{
	const char *names[VIEW_FIELDS];
	*ret = (struct page_view){.path = ""};
	span_copy(route_path(target), ret->path, sizeof(ret->path));
	for (size_t i = 0; i < VIEW_FIELDS; i++)
		names[i] = view_fields[i].name;
	if (route_query_check(target, names, VIEW_FIELDS, e) < 0)
		return 400;
	int r = 0;
	for (size_t i = 0; r == 0 && i < VIEW_FIELDS; i++)
		r = view_read(target, i, ret, e);
	if (r == 0 && strcmp(ret->since, "all") != 0)
		r = view_time("since", ret->since[0] ? ret->since : PAGE_SINCE, now_us, &ret->since_us, e);
	if (r == 0)
		r = view_time("until", ret->until, now_us, &ret->until_us, e);
	if (r == 0 && ret->until_us && ret->until_us <= ret->since_us) {
		err_set(e, 400, "until: before since");
		r = 400;
	}
	if (r == 0 && ret->routers[0] && strcmp(ret->routers, "all") != 0) {
		err_set(e, 400, "routers: it is \"all\" or left out");
		r = 400;
	}
	return r;
}

/* --- writing it ----------------------------------------------------------------------------------------- */

static const char *view_replaced(size_t i, const char *name, const char *value, const char *else_value)
{
	return name && strcmp(view_fields[i].name, name) == 0 ? value : else_value;
}

void page_link2(struct buf *out, const struct page_view *v, const char *path, const char *name,
		const char *value, const char *name2, const char *value2)
{
	bool any = false;
	html(out, "%s", path);
	for (size_t i = 0; i < VIEW_FIELDS; i++) {
		const char *text = strcmp(view_fields[i].name, "page") == 0 ? "" : view_text(v, i);
		text = view_replaced(i, name, value, text);
		text = view_replaced(i, name2, value2, text);
		if (!text || !text[0])
			continue;
		html(out, "%s%s=", any ? "&" : "?", view_fields[i].name);
		html_query(out, span_of(text));
		any = true;
	}
}

void page_link(struct buf *out, const struct page_view *v, const char *path, const char *name,
	       const char *value)
{
	page_link2(out, v, path, name, value, NULL, NULL);
}

void page_query(struct buf *out, const struct page_view *v)
{
	page_link(out, v, "", NULL, NULL);
}

void page_hidden_fields(struct buf *out, const struct page_view *v, const char *const *but)
{
	for (size_t i = 0; i < VIEW_FIELDS; i++) {
		bool own = strcmp(view_fields[i].name, "page") == 0;
		for (const char *const *b = but; *b; b++)
			own = own || strcmp(*b, view_fields[i].name) == 0;
		if (!own && view_text(v, i)[0])
			html(out, "<input type=\"hidden\" name=\"%s\" value=\"%s\">", view_fields[i].name,
			     view_text(v, i));
	}
}
