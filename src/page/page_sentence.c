/* Section 1: how things stand, in one sentence, and what to do. */
#include <string.h>
#include <strings.h>

#include "page/html.h"
#include "page/page.h"
#include "page/page_layout.h"
#include "standing/standing.h"

#define LONG_SENTENCE 120 /* bytes; it is set smaller */

/* The level as a word, unless the sentence begins with it. */
static const char *sentence_word(enum page_level level, const char *sentence)
{
	static const char *const words[] = {[PAGE_EMPTY] = "No data",
					    [PAGE_OK] = "All well",
					    [PAGE_WATCH] = "Watch",
					    [PAGE_STOP] = "Stop"};
	return strncasecmp(sentence, words[level], strlen(words[level])) == 0 ? "" : words[level];
}

static void sentence_command(struct page *p, const char *command)
{
	if (command[0])
		html(p->out,
		     "<div class=\"command\"><code id=\"command\" tabindex=\"0\">%s</code><button "
		     "type=\"button\" "
		     "data-copy=\"command\" hidden>Copy</button></div>\n",
		     command);
}

/* The share as a bar over the whole width: what is measured, with a tick at what is set. */
static void sentence_measure(struct page *p, const struct standing *s)
{
	if (s->measured < 0)
		return;
	html(p->out,
	     "<figure class=\"measure\"><svg class=\"bar\" viewBox=\"0 0 1000 10\" "
	     "preserveAspectRatio=\"none\" aria-hidden=\"true\">"
	     "<rect class=\"track\" width=\"1000\" height=\"10\"/><rect class=\"task\" width=\"%.1f\" "
	     "height=\"10\"/>",
	     s->measured * 10);
	if (s->set >= 0)
		html(p->out, "<path class=\"tick\" d=\"M%.1f 0V10\"/>", s->set * 10);
	html(p->out, "</svg><figcaption><b class=\"task\">");
	html_percent(p->out, s->measured / 100);
	html(p->out, "</b> of ");
	html_count(p->out, s->executions);
	html(p->out, " executions in 15 minutes ran as tasks");
	if (s->set >= 0)
		html(p->out, "; <b>%.3g&nbsp;%%</b> is set", s->set);
	html(p->out, "</figcaption></figure>\n");
}

static void sentence_ago(struct page *p, int64_t us)
{
	if (us < 5000000) {
		html(p->out, "just now.");
		return;
	}
	html_duration(p->out, us);
	html(p->out, " ago.");
}

static void sentence_sources(struct page *p, const struct standing *s)
{
	html(p->out, "<p class=\"from\">%sf the last 15 minutes and what is known now. ",
	     p->view.routers[0] ? "Of this router only: o" : "O");
	if (s->reported_us) {
		html(p->out, "Reported ");
		sentence_ago(p, p->source->now_us - s->reported_us);
	}
	html(p->out, "</p>\n");
}

/* What to do first, where there is nothing to see yet. */
static void sentence_first_steps(struct page *p, const struct standing *s)
{
	const struct standing_operation *first = s->n_operations ? &s->operations[0] : NULL;
	html(p->out, "<ol class=\"steps\">\n");
	if (first)
		html(p->out, "<li><b>Send a request</b> to the router instead of the legacy service: callers "
			     "change only "
			     "host and port. It is answered as before, and shows up here.</li>\n");
	else
		html(p->out,
		     "<li><b>Name an operation</b> with a task in <code>router.yml</code>, and reload: "
		     "<code>services: … operations: … task: …</code>. Then send a request to the router "
		     "instead "
		     "of the legacy service.</li>\n");
	html(p->out,
	     "<li><b>See where a user would go</b>: <code>migration-router explain --service %s --operation "
	     "%s "
	     "--user alice</code></li>\n",
	     first ? first->service : "SERVICE", first ? first->operation : "OPERATION");
	html(p->out,
	     "<li><b>Move the first percent</b> when both sides work: <code>migration-rollout set "
	     "1%s%s</code>. "
	     "The guard watches from then on.</li>\n",
	     first && first->facts.flag[0] ? " --flag " : "", first ? first->facts.flag : "");
	html(p->out, "</ol>\n");
}

void page_sentence(struct page *p)
{
	const struct standing *s = p->source->standing;
	enum page_level level = page_level_of(p);
	const char *sentence =
		s ? s->sentence : "How things stand is not known: the router is out of memory.";
	html(p->out,
	     "<section id=\"sentence\" class=\"hero %s\" data-live aria-labelledby=\"sentence-h\">\n<h1 "
	     "id=\"sentence-h\">",
	     page_level_class(level));
	page_icon(p->out, level);
	html(p->out, "<span class=\"word\">%s</span> <span class=\"says%s\">%s</span></h1>\n",
	     sentence_word(level, sentence), strlen(sentence) > LONG_SENTENCE ? " long" : "", sentence);
	if (s && s->next[0] && level != PAGE_EMPTY && !strstr(sentence, "next: "))
		html(p->out, "<p class=\"next\">Next: %s</p>\n", s->next);
	if (s && level != PAGE_EMPTY)
		sentence_command(p, s->command);
	if (s && level == PAGE_EMPTY)
		sentence_first_steps(p, s);
	if (s)
		sentence_measure(p, s);
	if (s)
		sentence_sources(p, s);
	html(p->out, "</section>\n");
}
