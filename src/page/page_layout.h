/*
 * Layout: what all pages share: head, navigation, filters, and small things that sections are built of.
 */
#ifndef PAGE_PAGE_LAYOUT_H
#define PAGE_PAGE_LAYOUT_H

#include "page/page.h"

/* How things stand, of the whole or of a part; a word, an icon and a color each (never the color alone). */
enum page_level { PAGE_EMPTY, PAGE_OK, PAGE_WATCH, PAGE_STOP };
const char *page_level_class(enum page_level level); /* "empty", "ok", "watch", "stop" */
enum page_level page_level_from(int standing_level); /* enum standing_level */
enum page_level page_level_of(const struct page *p); /* of the whole; STOP where it is not known */
/* Of the page's frame: at least WATCH while a router is missing from the figures. */
enum page_level page_level_of_frame(const struct page *p);
void page_icon(struct buf *out, enum page_level level);

/* From the doctype up to the begin of <main>. `title` also stands in the tab, behind the level's sign. */
void page_begin(struct page *p, const char *title);
void page_end(struct page *p);
/* "in the last 24 hours", "since … until …": the view's span. */
void page_span_text(struct page *p);

/* <section id="…">, its heading, and its end. Live sections are replaced while the page is open. */
void page_section(struct page *p, const char *id, const char *heading);
/* Its figures are of all routers in the view of all; other sections say there that they are not. */
void page_section_of_all(struct page *p, const char *id, const char *heading);
void page_section_end(struct page *p);
/* In the view of all routers: a note that what follows is this one's alone. */
void page_own(struct page *p);
/* Instead of a section's content: nothing there, or it cannot be read; the text is escaped. */
void page_note(struct page *p, const char *text);
void page_alert(struct page *p, const char *text);
/* What could not be read from outcomes.db (a code as of report_make): that there is nothing yet is no
 * trouble. */
void page_unreadable(struct page *p, int code, const char *why);

#endif
