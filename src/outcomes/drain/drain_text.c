/* Drain for people at a terminal: the verdict first, then what it rests on. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "outcomes/drain/drain.h"

#define WIDTH_MIN 60
#define PATTERNS_SHOWN 20 /* of a service; --json has all */

struct drain_page {
	struct buf *b;
	unsigned width;
};

/* Words of a sentence, wrapped; what follows the first line is indented by `indent`. */
static void drain_put_wrapped(const struct drain_page *p, const char *text, unsigned first, unsigned indent)
{
	unsigned at = first;
	buf_printf(p->b, "%*s", (int)first, "");
	for (bool begun = false; *text; begun = true) {
		size_t n = strcspn(text, " ");
		if (begun && at + 1 + n > p->width) {
			buf_printf(p->b, "\n%*s", (int)indent, "");
			at = indent;
		} else if (begun) {
			buf_putc(p->b, ' ');
			at++;
		}
		buf_append(p->b, text, n);
		at += (unsigned)n;
		text += n + (text[n] == ' ');
	}
	buf_putc(p->b, '\n');
}

/* "label: a 12, b 3", wrapped; nothing when there is nothing. */
struct drain_list {
	const struct drain_page *page;
	char text[1024];
	size_t len;
};

static void drain_list_add(struct drain_list *l, const char *name, uint64_t n)
{
	if (n && l->len < sizeof(l->text) - 64)
		l->len += (size_t)snprintf(l->text + l->len, 64, "%s%.40s %" PRIu64, l->len ? ", " : "", name,
					   n);
}

static void drain_list_end(const struct drain_list *l, const char *label)
{
	char line[sizeof(l->text) + 64];
	if (!l->len)
		return;
	snprintf(line, sizeof(line), "%s %s", label, l->text);
	drain_put_wrapped(l->page, line, 2, 4);
}

static void drain_put_reasons(const struct drain_page *p, const char *label,
			      const uint64_t counts[REASON_COUNT])
{
	struct drain_list l = {.page = p};
	for (int i = 0; i < REASON_COUNT; i++)
		drain_list_add(&l, outcome_reason_text((enum outcome_reason)i), counts[i]);
	drain_list_end(&l, label);
}

static void drain_put_last(const struct drain_page *p, const struct drain *d, const struct drain_last *l)
{
	char time[CLOCK_TEXT_MAX], ago[32], line[512];
	if (!l->time_us) {
		drain_put_wrapped(p, "last use: none known", 2, 4);
		return;
	}
	clock_format(l->time_us, time);
	drain_span_text(d->options.now_us - l->time_us, ago, sizeof(ago));
	snprintf(line, sizeof(line),
		 "last use: %s%s, %s ago; organization %s, reason %s, role %s%s%s, result %s",
		 l->exact ? "" : "at the latest ", time, ago,
		 *l->organization ? l->organization : "not known", outcome_reason_text(l->reason),
		 outcome_role_text(l->role), *l->backend ? ", backend " : "", l->backend,
		 outcome_result_text(l->result));
	drain_put_wrapped(p, line, 2, 4);
}

static void drain_put_fallbacks(const struct drain_page *p, const struct drain_operation *op)
{
	char line[128];
	struct drain_list l = {.page = p};
	if (!op->fallbacks)
		return;
	snprintf(line, sizeof(line), "falls back to legacy: %" PRIu64 " of them; decided by", op->fallbacks);
	drain_put_reasons(p, line, op->fallback_reasons);
	for (int i = 0; i < OUTCOME_RESULT_COUNT; i++)
		drain_list_add(&l, outcome_result_text((enum outcome_result)i), op->gave_up[i]);
	drain_list_end(&l, "  why the task side gave up:");
}

static void drain_put_operation(const struct drain_page *p, const struct drain *d,
				const struct drain_operation *op)
{
	char line[160];
	size_t n = strlen(op->service);
	if (strncmp(op->operation, op->service, n) == 0 && op->operation[n] == '.')
		snprintf(line, sizeof(line), "%s", op->operation);
	else
		snprintf(line, sizeof(line), "%s %s", op->service, op->operation);
	buf_putc(p->b, '\n');
	drain_put_wrapped(p, line, 0, 2);
	drain_put_last(p, d, &op->last);
	snprintf(line, sizeof(line), "in this span: %" PRIu64 " use%s%s", op->uses, op->uses == 1 ? "" : "s",
		 op->uses ? ":" : "");
	if (op->uses)
		drain_put_reasons(p, line, op->reasons);
	else
		drain_put_wrapped(p, line, 2, 4);
	if (d->options.side == OUTCOME_LEGACY && op->reasons[REASON_PINNED])
		drain_put_wrapped(p, "pinned: follow-up calls to what started on legacy and lives there", 2,
				  4);
	drain_put_fallbacks(p, op);
	if (op->shadows) {
		snprintf(line, sizeof(line), "shadows: %" PRIu64 " (no caller waits for them)", op->shadows);
		drain_put_wrapped(p, line, 2, 4);
	}
}

static void drain_put_pattern(const struct drain_page *p, const struct unmapped_pattern *u)
{
	char line[320], time[CLOCK_TEXT_MAX];
	clock_format(u->last_us, time);
	time[16] = '\0'; /* to the minute */
	snprintf(line, sizeof(line), "%-7s %s: %" PRIu64 ", last %sZ%s", u->method, u->pattern, u->count,
		 time, u->not_found == u->count ? ", always 404" : "");
	drain_put_wrapped(p, line, 4, 14);
}

static void drain_put_patterns(const struct drain_page *p, const struct drain *d,
			       const struct drain_service *s)
{
	char line[96];
	for (size_t i = 0; i < s->n_patterns && i < PATTERNS_SHOWN; i++)
		drain_put_pattern(p, &d->unmapped[s->first_pattern + i]);
	if (s->n_patterns > PATTERNS_SHOWN) {
		snprintf(line, sizeof(line), "and %zu more (--json has all)", s->n_patterns - PATTERNS_SHOWN);
		drain_put_wrapped(p, line, 4, 6);
	}
	if (!s->n_patterns && !d->knows_patterns)
		drain_put_wrapped(p, "which calls they were is not known: an older router recorded them", 4,
				  6);
}

static void drain_put_service(const struct drain_page *p, const struct drain *d,
			      const struct drain_service *s)
{
	for (size_t i = s->first; i < s->first + s->n; i++) {
		const struct drain_operation *op = &d->operations[i];
		drain_put_operation(p, d, op);
		if (d->options.side == OUTCOME_LEGACY && strcmp(op->operation, DRAIN_UNMAPPED) == 0)
			drain_put_patterns(p, d, s);
	}
}

static void drain_put_records(const struct drain_page *p, const struct drain *d)
{
	char since[CLOCK_TEXT_MAX], until[CLOCK_TEXT_MAX], records[CLOCK_TEXT_MAX] = "nowhere", line[320],
							   a[32];
	clock_format(d->since_us, since);
	clock_format(d->options.now_us, until);
	if (d->records_us)
		clock_format(d->records_us, records);
	snprintf(line, sizeof(line), "From %s to %s; records reach back to %s.", since, until, records);
	buf_putc(p->b, '\n');
	drain_put_wrapped(p, line, 0, 2);
	if (d->dropped) {
		snprintf(line, sizeof(line), "Note: %" PRIu64 " outcomes were dropped in this span.",
			 d->dropped);
		drain_put_wrapped(p, line, 0, 2);
	}
	if (!d->gap_us)
		return;
	drain_span_text(d->gap_us, a, sizeof(a));
	clock_format(d->gaps[0].began_us, since);
	clock_format(d->gaps[0].ended_us, until);
	snprintf(line, sizeof(line), "Note: for %s no router recorded; the longest time from %s to %s.", a,
		 since, until);
	drain_put_wrapped(p, line, 0, 2);
}

static void drain_put_held(const struct drain_page *p, const struct drain *d)
{
	const struct drain_options *o = &d->options;
	char line[320], oldest[CLOCK_TEXT_MAX], newest[CLOCK_TEXT_MAX];
	if (!o->n_held && !o->held_error)
		return;
	buf_puts(p->b, "\nleft on the task side (ledger)\n");
	for (size_t i = 0; i < o->n_held; i++) {
		const struct drain_held *h = &o->held[i];
		clock_format(h->oldest_us, oldest);
		clock_format(h->newest_us, newest);
		snprintf(line, sizeof(line), "%s: %" PRIu64 ", backend %s, made from %s to %s", h->what,
			 h->count, h->backend, oldest, newest);
		drain_put_wrapped(p, line, 2, 4);
	}
	if (o->held_error)
		drain_put_wrapped(p, o->held_error, 2, 4);
}

int drain_to_text(const struct drain *d, unsigned columns, struct buf *out)
{
	struct drain_page p = {out, columns ? columns : 80};
	if (p.width < WIDTH_MIN)
		p.width = WIDTH_MIN;
	drain_put_wrapped(&p, d->sentence, 0, 2);
	for (size_t i = 0; d->n_services > 1 && i < d->n_services; i++)
		drain_put_wrapped(&p, d->services[i].sentence, 2, 4);
	drain_put_records(&p, d);
	for (size_t i = 0; i < d->n_services; i++)
		drain_put_service(&p, d, &d->services[i]);
	drain_put_held(&p, d);
	return out->error;
}
