/*
 * Assets: what the pages load, from within the program: style, script, the chart library, icons. No file has
 * to be found where it runs, and nothing comes from elsewhere.
 *
 * Made by:   src/page/embed.py at build time, from src/page/assets/ and Debian's libjs-chart.js.
 * Threads:   any; constants.
 */
#ifndef PAGE_PAGE_ASSETS_H
#define PAGE_PAGE_ASSETS_H

#include <stddef.h>

#include "base/buf.h"
#include "base/span.h"

#define PAGE_ASSETS "/_page/" /* their path */

struct page_asset {
	const char *name, *type;
	const char *version; /* of its content: of its ETag, and of the URL that pages name */
	const unsigned char *gzip;
	size_t gzip_size, size;
};

extern const struct page_asset page_assets[];
extern const size_t page_asset_count;

/* By its path; NULL: there is none. */
const struct page_asset *page_asset(struct span path);
/* Its URL, "/_page/page.css?v=…": with it, it may be kept forever. An unknown name is a bug: nothing. */
void page_asset_url(struct buf *out, const char *name);

#endif
