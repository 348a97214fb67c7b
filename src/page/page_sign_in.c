#include "page/page_sign_in.h"

#include "page/html.h"
#include "page/page_assets.h"
#include "page/page_layout.h"

static void sign_in_head(struct buf *out, const char *title)
{
	html(out, "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
		  "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
		  "<meta name=\"color-scheme\" content=\"light dark\">\n");
	html(out, "<title>%s</title>\n<link rel=\"icon\" href=\"", title);
	page_asset_url(out, "empty.svg");
	html(out, "\">\n<link rel=\"stylesheet\" href=\"");
	page_asset_url(out, "page.css");
	html(out, "\">\n");
}

void page_bare_begin(struct buf *out, const char *title)
{
	sign_in_head(out, title);
	html(out, "</head>\n<body>\n<a class=\"skip\" href=\"#main\">Skip to the content</a>\n<header "
		  "class=\"top\">"
		  "<p class=\"brand\"><a href=\"/\">Migration</a></p></header>\n<main id=\"main\" "
		  "tabindex=\"-1\">\n");
}

void page_bare_end(struct buf *out)
{
	html(out, "</main>\n</body>\n</html>\n");
}

void page_sign_in(struct span next, const char *trouble, struct buf *out)
{
	sign_in_head(out, "Sign in – Migration");
	html(out, "</head>\n<body>\n<main id=\"main\" class=\"sign-in\">\n<section class=\"part\" "
		  "aria-labelledby=\"sign-in-h\"><h1 id=\"sign-in-h\">Sign in</h1>\n");
	if (trouble[0]) {
		html(out, "<p class=\"alert\" role=\"alert\" id=\"trouble\">");
		page_icon(out, PAGE_STOP);
		html(out, "%s</p>\n", trouble);
	}
	html(out, "<form method=\"post\" action=\"/sign-in\">\n<p><label for=\"token\">Token</label> "
		  "<input id=\"token\" name=\"token\" type=\"password\" autocomplete=\"current-password\" "
		  "required autofocus maxlength=\"4096\"></p>\n");
	html(out, "<input type=\"hidden\" name=\"next\" value=\"%.*s\">\n", SPAN_ARG(next));
	html(out, "<p><button type=\"submit\">Sign in</button></p>\n</form>\n"
		  "<p class=\"note\">A token of this router's admin listener. Whoever runs it has it.</p>\n"
		  "</section>\n</main>\n</body>\n</html>\n");
}

void page_ask_again(struct span target, struct buf *out)
{
	if (target.len == 0 || target.ptr[0] != '/')
		target = SPAN_LIT("/");
	sign_in_head(out, "Migration");
	html(out, "<meta http-equiv=\"refresh\" content=\"0; url=%.*s\">\n", SPAN_ARG(target));
	html(out, "</head>\n<body>\n<main><p><a href=\"%.*s\">Continue</a></p></main>\n</body>\n</html>\n",
	     SPAN_ARG(target));
}
