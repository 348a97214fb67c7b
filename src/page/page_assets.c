#include "page/page_assets.h"

#include "page/html.h"

static const struct page_asset *asset_named(struct span name)
{
	for (size_t i = 0; i < page_asset_count; i++)
		if (span_is(name, page_assets[i].name))
			return &page_assets[i];
	return NULL;
}

const struct page_asset *page_asset(struct span path)
{
	struct span folder = SPAN_LIT(PAGE_ASSETS);
	if (!span_starts(path, folder))
		return NULL;
	return asset_named((struct span){path.ptr + folder.len, path.len - folder.len});
}

void page_asset_url(struct buf *out, const char *name)
{
	const struct page_asset *a = asset_named(span_of(name));
	if (a)
		html(out, PAGE_ASSETS "%s?v=%s", a->name, a->version);
}
