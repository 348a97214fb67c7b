#include "programs/status/headline.h"

#include <errno.h>
#include <langinfo.h>
#include <locale.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/text.h"
#include "standing/standing_window.h"

#define JSON_MAX (64u << 20)
#define SHOWN_MAX 20 /* operations */
#define NAME_MIN 12
#define WIDE 100 /* columns: from here on the sparkline has all its points */

/* --- reading -------------------------------------------------------------------------------------------- */

static int headline_read_file(const char *path, struct buf *json, struct err *e)
{
	CLEANUP(standing_freep) struct standing *s = NULL;
	int r = standing_read(path, clock_wall_us(), &s);
	*json = BUF_INIT(JSON_MAX);
	if (r == 0)
		r = standing_to_json(s, json);
	return r < 0 ? err_set(e, r, "%s: out of memory", path) : 0;
}

static const char *text_of(const struct headline_source *s, const char *name)
{
	const char *text = s->doc ? json_string(json_get(json_root(s->doc), name)) : NULL;
	return text ? text : "";
}

static void take_level(struct headline_source *s)
{
	const char *level = text_of(s, "level");
	s->level = STANDING_STOP; /* a word that is not known is no reason to be calm */
	for (int l = 0; l < STANDING_LEVELS; l++)
		if (strcmp(level, standing_level_text((enum standing_level)l)) == 0)
			s->level = (enum standing_level)l;
	text_copy(span_of(text_of(s, "sentence")), s->sentence, sizeof(s->sentence));
}

static void headline_read_source(const struct status_sources *from, const struct status_source *of,
				 struct headline_source *s)
{
	struct err e = {""};
	s->name = of->name;
	int r = of->router ? status_sources_get(from, of->name, "/_admin/standing.json", &s->json, &e)
			   : headline_read_file(of->name, &s->json, &e);
	if (r == 0)
		r = json_doc_parse(buf_span(&s->json), &s->doc, &e);
	if (r == 0) {
		take_level(s);
		return;
	}
	s->level = STANDING_STOP;
	snprintf(s->sentence, sizeof(s->sentence), "STOP: where the migration stands cannot be asked: %.400s",
		 e.text);
}

void headlines_read(const struct status_sources *s, struct headlines *ret)
{
	*ret = (struct headlines){.n = s->n};
	for (size_t i = 0; i < s->n; i++) {
		headline_read_source(s, &s->all[i], &ret->all[i]);
		if (ret->all[i].level > ret->all[ret->worst].level)
			ret->worst = i;
	}
}

void headlines_release(struct headlines *h)
{
	for (size_t i = 0; i < h->n; i++) {
		json_doc_free(h->all[i].doc);
		buf_release(&h->all[i].json);
	}
}

/* --- text ----------------------------------------------------------------------------------------------- */

enum standing_level headlines_level(const struct headlines *h)
{
	return h->all[h->worst].level;
}

static bool is_named(const struct json_node *operation, const char *member, const char *name)
{
	const char *text = json_string(json_get(operation, member));
	return !name || (text && strcmp(text, name) == 0);
}

static const char *stop_of_operation(const struct headline_source *s, const char *service,
				     const char *operation)
{
	const struct json_node *list = s->doc ? json_get(json_root(s->doc), "operations") : NULL;
	for (const struct json_node *o = json_first(list); o; o = json_next(o)) {
		const char *level = json_string(json_get(o, "level")), *why = json_string(json_get(o, "why"));
		if (is_named(o, "service", service) && is_named(o, "operation", operation) && level && why &&
		    strcmp(level, standing_level_text(STANDING_STOP)) == 0)
			return why;
	}
	return NULL;
}

const char *headlines_stop(const struct headlines *h, const char *service, const char *operation,
			   char why[STANDING_TEXT_MAX])
{
	for (size_t i = 0; i < h->n; i++) {
		const struct headline_source *s = &h->all[i];
		const char *stop = s->level == STANDING_STOP ? s->sentence : NULL;
		if (service || operation)
			stop = stop_of_operation(s, service, operation);
		if (!stop)
			continue;
		text_copy(span_of(stop), why, STANDING_TEXT_MAX);
		return why;
	}
	return NULL;
}

int headlines_put_sentence(const struct headlines *h, struct buf *out)
{
	const struct headline_source *worst = &h->all[h->worst];
	buf_puts(out, worst->sentence);
	if (h->n > 1)
		buf_printf(out, " [%s%s]", worst->name,
			   worst->level > STANDING_OK ? "" : ", the others are no worse");
	return out->error;
}

/* Of the share of the task side, `each` points in one column; a blank where nobody asked. */
static void put_sparkline(const struct json_node *hour, unsigned each, struct buf *out)
{
	static const char *const blocks[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
	static const char *const plain[] = {"_", ".", "-", "=", "+", "*", "#", "@"};
	bool utf8 = strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
	const struct json_node *n = json_first(hour);
	while (n) {
		double legacy = 0, task = 0;
		for (unsigned i = 0; i < each && n; i++, n = json_next(n)) {
			double d;
			legacy += json_number(json_at(n, 0), &d) ? d : 0;
			task += json_number(json_at(n, 1), &d) ? d : 0;
		}
		if (legacy + task <= 0)
			buf_putc(out, ' ');
		else
			buf_puts(out, (utf8 ? blocks : plain)[(int)(7.999 * task / (legacy + task))]);
	}
}

static const char *percent_of(const struct json_node *operation, const char *name, char out[16])
{
	double d;
	if (json_number(json_get(operation, name), &d))
		snprintf(out, 16, "%.1f%%", report_percent(d / 100));
	else
		snprintf(out, 16, "-");
	return out;
}

static void put_name(const struct json_node *operation, unsigned width, struct buf *out)
{
	const char *service = json_string(json_get(operation, "service")),
		   *name = json_string(json_get(operation, "operation"));
	char whole[STANDING_NAME_MAX];
	snprintf(whole, sizeof(whole), "%s.%s", service ? service : "", name ? name : "");
	size_t n = strlen(whole);
	if (n > width)
		buf_printf(out, "…%s", whole + n - width + 1);
	else
		buf_printf(out, "%-*s", (int)width, whole);
}

static void headline_put_operations(const struct headline_source *s, unsigned width, struct buf *out)
{
	const struct json_node *list = s->doc ? json_get(json_root(s->doc), "operations") : NULL;
	size_t n = json_count(list), shown = 0;
	unsigned each = width < WIDE ? 2 : 1, spark = STANDING_HOUR_POINTS / each;
	unsigned rest = 2 + 7 + 2 + 8 + 2 + 16 + 2;
	if (n == 0)
		return;
	unsigned name = width > rest + spark + NAME_MIN ? width - rest - spark : NAME_MIN;
	name = name > 40 ? 40 : name;
	buf_printf(out, "\n%-*s  %7s  %8s  %-16s  %s\n", (int)name, "now", "set", "measured", "verdict",
		   "last hour");
	for (const struct json_node *o = json_first(list); o && shown < SHOWN_MAX;
	     o = json_next(o), shown++) {
		char set[16], measured[16];
		const char *verdict = json_string(json_get(o, "verdict"));
		put_name(o, name, out);
		buf_printf(out, "  %7s  %8s  %-16.16s  ", percent_of(o, "set", set),
			   percent_of(o, "measured", measured), verdict ? verdict : "");
		put_sparkline(json_get(o, "hour"), each, out);
		while (out->len && out->ptr[out->len - 1] == ' ')
			out->len--;
		buf_putc(out, '\n');
	}
	if (n > shown)
		buf_printf(out, "… and %zu more, none worse\n", n - shown);
}

static void put_member(const struct headline_source *s, const char *label, const char *name, struct buf *out)
{
	const char *text = text_of(s, name);
	if (*text)
		buf_printf(out, "%s%s\n", label, text);
}

int headlines_put_rest(const struct headlines *h, unsigned columns, struct buf *out)
{
	const struct headline_source *worst = &h->all[h->worst];
	bool urgent = worst->level > STANDING_OK;
	buf_putc(out, '\n');
	put_member(worst, urgent ? "Do:   " : "With: ", "command", out);
	put_member(worst, "Next: ", "next", out);
	for (size_t i = 0; i < h->n; i++) {
		if (h->n > 1)
			buf_printf(out, "\n%s:\n", h->all[i].name);
		headline_put_operations(&h->all[i], columns ? columns : 80, out);
	}
	return out->error;
}

/* --- JSON ----------------------------------------------------------------------------------------------- */

static void put_json_member(struct buf *out, const char *name, const char *text)
{
	buf_printf(out, ",\"%s\":", name);
	json_quote(out, span_of(text));
}

int headlines_into_json(const struct headlines *h, struct buf *object)
{
	const struct headline_source *worst = &h->all[h->worst];
	while (object->len && object->ptr[object->len - 1] != '}')
		object->len--;
	if (object->len == 0)
		return -EINVAL;
	object->len--;
	put_json_member(object, "level", standing_level_text(worst->level));
	put_json_member(object, "sentence", worst->sentence);
	put_json_member(object, "command", text_of(worst, "command"));
	put_json_member(object, "next", text_of(worst, "next"));
	buf_puts(object, ",\"standings\":[");
	for (size_t i = 0; i < h->n; i++) {
		const struct headline_source *s = &h->all[i];
		buf_puts(object, i ? ",{\"source\":" : "{\"source\":");
		json_quote(object, span_of(s->name));
		buf_puts(object, ",\"standing\":");
		if (s->doc)
			json_print(json_root(s->doc), object);
		else
			buf_puts(object, "null");
		buf_puts(object, "}");
	}
	buf_puts(object, "]}\n");
	return object->error;
}
