/* Section 2: what the router knows of itself and of what it needs; each part opens to its detail. */
#include <stdio.h>
#include <string.h>

#include "page/html.h"
#include "page/page.h"
#include "page/page_layout.h"
#include "standing/standing.h"

/* A part: icon, name and one line; then, when it is opened, what is known of it. */
static void health_begin(struct page *p, enum page_level level, const char *kind, const char *name,
			 const char *says)
{
	html(p->out, "<details class=\"state %s\" id=\"health-%s-%s\"><summary>", page_level_class(level),
	     kind, name);
	page_icon(p->out, level);
	html(p->out, "<span class=\"kind\">%s</span> <b>%s</b> <span class=\"says\">%s", kind, name, says);
}

static void health_detail(struct page *p)
{
	html(p->out, "</span></summary><dl>");
}

static void health_end(struct page *p)
{
	html(p->out, "</dl></details>\n");
}

static void health_text(struct page *p, const char *term, const char *value)
{
	if (value[0])
		html(p->out, "<div><dt>%s</dt><dd>%s</dd></div>", term, value);
}

static void health_count(struct page *p, const char *term, uint64_t n)
{
	html(p->out, "<div><dt>%s</dt><dd>", term);
	html_count(p->out, n);
	html(p->out, "</dd></div>");
}

static void health_time(struct page *p, const char *term, int64_t us)
{
	if (!us)
		return;
	html(p->out, "<div><dt>%s</dt><dd>", term);
	html_time(p->out, us, p->source->now_us);
	html(p->out, "</dd></div>");
}

static void health_since(struct page *p, int64_t us)
{
	if (!us)
		return;
	html(p->out, " since ");
	html_time(p->out, us, p->source->now_us);
}

/* --- flags ---------------------------------------------------------------------------------------------- */

static enum page_level flags_level(const struct standing_flags *f, const char **ret_says)
{
	const struct {
		bool is;
		enum page_level level;
		const char *says;
	} all[] = {
		{!f->loaded, PAGE_STOP, "none: everything goes to legacy"},
		{f->broken > 0, PAGE_STOP, "a flag in use cannot be understood"},
		{f->failing, PAGE_STOP, "failing; the last good ones serve"},
		{f->vanished > 0, PAGE_WATCH, "a flag in use has vanished; its last definition serves"},
		{f->unsaved, PAGE_WATCH, "cannot be saved: a restart would start with older ones"},
	};
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		if (all[i].is) {
			*ret_says = all[i].says;
			return all[i].level;
		}
	*ret_says = "fresh";
	return PAGE_OK;
}

static void health_flags(struct page *p, const struct standing_flags *f)
{
	const char *says;
	enum page_level level = flags_level(f, &says);
	health_begin(p, level, "flags", f->source, says);
	if (f->failing)
		health_since(p, f->failing_since_us);
	else if (f->confirmed_us) {
		html(p->out, ", seen ");
		html_duration(p->out, p->source->now_us - f->confirmed_us);
		html(p->out, " ago");
	}
	health_detail(p);
	health_text(p, "from", f->where);
	html(p->out, "<div><dt>digest</dt><dd><code>%.*s</code></dd></div>", 19, f->digest);
	health_text(p, "version", f->version);
	health_time(p, "last seen there", f->confirmed_us);
	health_text(p, "cannot be understood", f->broken_name);
	health_text(p, "vanished", f->vanished_name);
	health_text(p, "last error", f->last_error);
	health_end(p);
}

/* --- backends ------------------------------------------------------------------------------------------- */

static const char *backend_says(const struct standing_backend *b, enum page_level *ret)
{
	*ret = PAGE_STOP;
	if (!b->known) {
		*ret = PAGE_EMPTY;
		return "not asked yet";
	}
	if (!b->reachable)
		return "unreachable";
	if (!b->worker)
		return "no worker";
	if (strcmp(b->breaker, "open") == 0)
		return "not answering: its breaker is open";
	*ret = PAGE_OK; /* half-open: it may be that nobody has come to try */
	return strcmp(b->breaker, "half_open") == 0 ? "works, and is tried again after an outage" : "works";
}

static void health_backend(struct page *p, const struct standing_backend *b)
{
	enum page_level level;
	const char *says = backend_says(b, &level);
	health_begin(p, level, "backend", b->name, says);
	if (level == PAGE_STOP)
		health_since(p, b->reachable && b->worker ? b->breaker_since_us : b->since_us);
	if (b->known && b->backlog >= 0) {
		html(p->out, ", ");
		html_count(p->out, (uint64_t)b->backlog);
		html(p->out, " waiting");
	}
	health_detail(p);
	health_text(p, "reachable", b->reachable ? "yes" : "no");
	health_text(p, "worker", b->worker ? "yes" : "no");
	if (b->backlog >= 0)
		health_count(p, "tasks waiting", (uint64_t)b->backlog);
	if (b->backlog_floor >= 0)
		health_count(p, "fewest waiting in the last minutes", (uint64_t)b->backlog_floor);
	health_count(p, "in flight from here", b->in_flight);
	health_text(p, "breaker", b->breaker);
	health_time(p, "breaker since", b->breaker_since_us);
	health_text(p, "why", b->breaker_why);
	health_time(p, "like this since", b->since_us);
	health_text(p, "says", b->detail);
	health_end(p);
}

/* --- legacy services ------------------------------------------------------------------------------------ */

static void health_legacy(struct page *p, const struct standing_legacy *l)
{
	enum page_level level = PAGE_OK;
	const char *says = "answers";
	if (!l->reachable) {
		level = PAGE_STOP;
		says = "unreachable";
	} else if (l->failing[0]) {
		level = PAGE_WATCH;
		says = "failing now and then";
	}
	health_begin(p, level, "legacy", l->service, says);
	if (!l->reachable)
		health_since(p, l->since_us);
	html(p->out, ", %.*f errors a minute", l->per_minute >= 10 || l->per_minute == 0 ? 0 : 1,
	     l->per_minute);
	health_detail(p);
	health_text(p, "address", l->address);
	health_text(p, "fails with", l->failing);
	health_count(p, "errors since the router began", l->errors);
	health_time(p, "like this since", l->since_us);
	health_end(p);
}

/* --- recorder, stores, router --------------------------------------------------------------------------- */

static void health_store(struct page *p, const char *name, const struct standing_store *s, const char *well,
			 const char *failing, uint64_t dropped)
{
	health_begin(p, s->failing ? PAGE_STOP : PAGE_OK, "store", name, s->failing ? failing : well);
	if (s->failing)
		health_since(p, s->since_us);
	health_detail(p);
	health_text(p, "where", s->where);
	if (dropped)
		health_count(p, "outcomes lost since the router began", dropped);
	health_text(p, "last error", s->last_error);
	health_end(p);
}

static void health_router(struct page *p, const struct standing *s)
{
	const struct standing_facts *f = s->facts;
	bool silent = f->stopped || p->source->now_us - s->reported_us > STANDING_SILENT_US;
	enum page_level level = PAGE_OK;
	const char *says = "serves";
	if (silent) {
		level = PAGE_STOP;
		says = f->stopped ? "has ended" : "has not reported of late";
	} else if (!f->accepting) {
		level = PAGE_STOP;
		says = "cannot accept connections";
	} else if (f->draining) {
		level = PAGE_WATCH;
		says = "is ending: it takes no new callers";
	}
	health_begin(p, level, "router", f->version, says);
	health_since(p, f->started_us);
	health_detail(p);
	health_text(p, "process", f->router);
	health_time(p, "started", f->started_us);
	health_time(p, "last reported", s->reported_us);
	health_end(p);
}

/* --- the other routers, in the view of all -------------------------------------------------------------- */

static void health_peer(struct page *p, size_t i)
{
	const struct page_router *r = &p->routers->list[i];
	enum page_level level = r->missing ? PAGE_STOP : PAGE_OK;
	const char *says = r->url[0] ? "answered" : "here";
	if (r->twice) {
		level = PAGE_EMPTY;
		says = "is counted already: it is this router, or one that is listed twice";
	} else if (r->missing) {
		says = strcmp(r->state, "not_understood") == 0 ? "not understood" : r->state;
	}
	html(p->out, "<details class=\"state %s\" id=\"health-peer-%zu\" data-state=\"%s\"><summary>",
	     page_level_class(level), i, r->state);
	page_icon(p->out, level);
	html(p->out, "<span class=\"kind\">router</span> <b>%s</b> <span class=\"says\">%s", r->name, says);
	if (r->missing)
		health_since(p, r->since_us);
	if (r->why[0])
		html(p->out, ": %s", r->why);
	health_detail(p);
	health_text(p, "address", r->url);
	health_text(p, "state", r->state);
	if (r->url[0])
		html(p->out, "<div><dt>asked for</dt><dd>%lld ms</dd></div>", (long long)r->took_ms);
	health_end(p);
}

static void health_peers(struct page *p)
{
	if (!p->routers)
		return;
	html(p->out, "<div class=\"states\">\n");
	for (size_t i = 0; i < p->routers->n; i++)
		health_peer(p, i);
	html(p->out, "</div>\n");
}

void page_health(struct page *p)
{
	const struct standing *s = p->source->standing;
	page_section_of_all(p, "health", "Health");
	health_peers(p);
	page_own(p);
	if (!s || !s->facts) {
		page_note(p, "No router has reported what it knows.");
		page_section_end(p);
		return;
	}
	const struct standing_facts *f = s->facts;
	html(p->out, "<div class=\"states\">\n");
	health_flags(p, &f->flags);
	for (size_t i = 0; i < f->n_backends; i++)
		health_backend(p, &f->backends[i]);
	for (size_t i = 0; i < f->n_legacy; i++)
		health_legacy(p, &f->legacy[i]);
	health_store(p, "outcomes", &f->recorder, "written", "cannot be written: figures stand still",
		     f->dropped);
	health_store(p, "state", &f->state, "kept", "cannot be used: follow-up calls get 503", 0);
	health_store(p, "keys", &f->keys, "kept", "cannot be used: requests with a key get 503", 0);
	health_router(p, s);
	html(p->out, "</div>\n");
	page_section_end(p);
}
