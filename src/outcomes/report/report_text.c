/*
 * The report for people at a terminal. Its first eight lines are parsed by scripts (design, "Programs"): they
 * never change their shape.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "outcomes/report.h"

#define WIDTH_MIN 60
#define WIDE 112 /* from here on a side's figures are on one line with its operation's name */

static void report_text_put_head(const struct report *r, struct buf *b)
{
	char demo[DEMO_HISTORY_TEXT];
	if (r->demo.until_us) {
		demo_history_text(&r->demo, demo);
		buf_printf(b, "*** %s ***\n\n", demo);
	}
	buf_puts(b, "=== Migration Dashboard ===\n");
	buf_printf(b, "Total Executions: %" PRIu64 "\n", r->total.executions);
	for (int i = 0; i < OUTCOME_SIDE_COUNT; i++)
		buf_printf(b, "%s: %.1f%%\n", report_side_name((enum outcome_side)i),
			   report_percent(r->total.sides[i].share));
	buf_puts(b, "\nSuccess Rates:\n");
	for (int i = 0; i < OUTCOME_SIDE_COUNT; i++) {
		const struct report_rate *a = &r->total.sides[i].attempts;
		if (a->known)
			buf_printf(b, "%s: %.1f%%\n", report_side_name((enum outcome_side)i),
				   report_percent(a->rate));
		else
			buf_printf(b, "%s: not enough data\n", report_side_name((enum outcome_side)i));
	}
}

static void put_span(const struct report *r, struct buf *b)
{
	char since[CLOCK_TEXT_MAX] = "the first outcome", until[CLOCK_TEXT_MAX] = "now";
	if (r->since_us)
		clock_format(r->since_us, since);
	if (r->until_us)
		clock_format(r->until_us, until);
	buf_printf(b, "\nFrom %s to %s", since, until);
	const char *const names[] = {"service", "operation", "organization"};
	const char *const values[] = {r->service, r->operation, r->organization};
	for (int i = 0; i < 3; i++)
		if (*values[i])
			buf_printf(b, ", %s %s", names[i], values[i]);
	buf_puts(b, r->from_rows ? " (from the rows kept)\n" : "\n");
}

/* What the person who relies on the figures must know about them. */
static void put_notes(const struct report *r, struct buf *b)
{
	for (int i = 0; i < OUTCOME_SIDE_COUNT; i++) {
		const struct report_rate *a = &r->total.sides[i].attempts;
		if (a->known && a->few)
			buf_printf(b,
				   "Note: the rate of %s is based on %" PRIu64
				   " attempt%s only; the true rate may be %.1f%% to %.1f%%.\n",
				   report_side_name((enum outcome_side)i), a->counted,
				   a->counted == 1 ? "" : "s", a->low * 100, a->high * 100);
	}
	if (r->dropped)
		buf_printf(b, "Note: %" PRIu64 " outcomes were dropped in this span and are not counted.\n",
			   r->dropped);
}

/* Health polls and paths that nobody mapped would otherwise make 100 % look like 34 %. */
static void report_text_put_left_out(const struct report *r, struct buf *b)
{
	uint64_t unmapped = 0, operations = 0;
	for (size_t i = 0; i < r->operation_count; i++) {
		const struct report_operation *op = &r->operations[i];
		bool none = strcmp(op->operation, OUTCOME_UNMAPPED) == 0;
		unmapped += none ? op->executions : 0;
		operations += !op->can_move && !none;
	}
	if (r->total.left_out == 0)
		return;
	buf_printf(b, "Left out, as they cannot move: %" PRIu64 " answer%s", r->total.left_out,
		   r->total.left_out == 1 ? "" : "s");
	if (operations)
		buf_printf(b, "; %" PRIu64 " operation%s without a task", operations,
			   operations == 1 ? "" : "s");
	if (unmapped)
		buf_printf(b, "; %" PRIu64 " of unknown paths", unmapped);
	buf_puts(b, ".\n");
}

/* --- cells of the table --------------------------------------------------------------------------------- */

#define CELL_MAX 32

static const char *latency(int64_t us, char out[CELL_MAX])
{
	if (us < 0)
		snprintf(out, CELL_MAX, "-");
	else if (us < 1000)
		snprintf(out, CELL_MAX, "%dus", (int)us);
	else if (us < 10000)
		snprintf(out, CELL_MAX, "%.1fms", (double)us / 1e3);
	else if (us < 1000000)
		snprintf(out, CELL_MAX, "%.0fms", (double)us / 1e3);
	else if (us < 100000000)
		snprintf(out, CELL_MAX, "%.1fs", (double)us / 1e6);
	else
		snprintf(out, CELL_MAX, "%.0fs", (double)us / 1e6);
	return out;
}

/* "~" marks a rate that rests on few attempts. */
static const char *rate(const struct report_rate *a, char out[CELL_MAX])
{
	if (!a->known)
		snprintf(out, CELL_MAX, "no data");
	else
		snprintf(out, CELL_MAX, "%s%.1f%%", a->few ? "~" : "", report_percent(a->rate));
	return out;
}

static const char *share(const struct report_operation *op, const struct report_side *s, char out[CELL_MAX])
{
	if (op->executions)
		snprintf(out, CELL_MAX, "%.1f%%", report_percent(s->share));
	else
		snprintf(out, CELL_MAX, "-");
	return out;
}

static void report_text_put_figures(struct buf *b, const char *label, const char *executions,
				    const char *share_text, const struct report_rate *a)
{
	char r[CELL_MAX], p50[CELL_MAX], p95[CELL_MAX], p99[CELL_MAX];
	buf_printf(b, "%-8s %8s %6s  %8s %9" PRIu64 " %7" PRIu64 "  %7s %7s %7s\n", label, executions,
		   share_text, rate(a, r), a->counted, a->results[OUTCOME_UNKNOWN], latency(a->p50_us, p50),
		   latency(a->p95_us, p95), latency(a->p99_us, p99));
}

static bool any(const struct report_rate *a)
{
	for (int i = 0; i < OUTCOME_RESULT_COUNT; i++)
		if (a->results[i])
			return true;
	return false;
}

static void report_text_put_side(struct buf *b, const struct report_operation *op,
				 const struct report_side *s, const char *label)
{
	char executions[CELL_MAX], part[CELL_MAX];
	snprintf(executions, sizeof(executions), "%" PRIu64, s->executions);
	report_text_put_figures(b, label, executions, share(op, s, part), &s->attempts);
}

/* Who ran what the task side ran; a single one has the figures of its side. */
static void report_text_put_backends(struct buf *b, const struct report_operation *op, unsigned indent)
{
	for (size_t i = 0; op->n_backends > 1 && i < op->n_backends; i++) {
		buf_printf(b, "%*s", (int)indent, "");
		report_text_put_side(b, op, &op->backends[i].side, op->backends[i].name);
	}
}

static void put_shadows(struct buf *b, const struct report_operation *op, unsigned indent)
{
	for (int i = 0; i < OUTCOME_SIDE_COUNT; i++)
		if (any(&op->sides[i].shadows)) {
			buf_printf(b, "%*s", (int)indent, "");
			report_text_put_figures(b, i == OUTCOME_TASK ? "~task" : "~legacy", "shadow", "",
						&op->sides[i].shadows);
		}
}

/* "label a 12, b 3", wrapped at the width. */
struct list {
	struct buf *b;
	unsigned width, indent, at;
	bool begun;
	const char *label;
};

static void put_item(struct list *l, const char *name, uint64_t n)
{
	char text[96];
	unsigned len = (unsigned)snprintf(text, sizeof(text), "%s %" PRIu64, name, n);
	if (n == 0)
		return;
	if (!l->begun) {
		l->at = l->indent + (unsigned)strlen(l->label);
		buf_printf(l->b, "%*s%s", (int)l->indent, "", l->label);
	} else if (l->at + 2 + len > l->width) {
		l->at = l->indent + 2;
		buf_printf(l->b, ",\n%*s", (int)l->at - 1, "");
		l->at--;
	} else {
		buf_putc(l->b, ',');
		l->at++;
	}
	buf_printf(l->b, " %s", text);
	l->at += 1 + len;
	l->begun = true;
}

static void end_list(struct list *l)
{
	if (l->begun)
		buf_putc(l->b, '\n');
}

static void put_reasons(struct buf *b, const struct report_operation *op, unsigned width, unsigned indent)
{
	struct list l = {.b = b, .width = width, .indent = indent, .label = "reasons:"};
	for (int i = 0; i < REASON_COUNT; i++)
		put_item(&l, outcome_reason_text((enum outcome_reason)i), op->reasons[i]);
	end_list(&l);
}

/* What went wrong, and what is in no denominator. */
static void report_text_put_results(struct buf *b, const struct report_operation *op, unsigned width,
				    unsigned indent)
{
	static const char *const labels[] = {"legacy:", "task:"};
	for (int side = 0; side < OUTCOME_SIDE_COUNT; side++) {
		const struct report_side *s = &op->sides[side];
		struct list l = {.b = b, .width = width, .indent = indent, .label = labels[side]};
		for (int i = OUTCOME_REJECTED; i < OUTCOME_RESULT_COUNT; i++)
			put_item(&l, outcome_result_text((enum outcome_result)i), s->attempts.results[i]);
		put_item(&l, "fallbacks", s->fallbacks);
		end_list(&l);
	}
}

static void report_text_put_operation(struct buf *b, const struct report_operation *op, unsigned width)
{
	const unsigned indent = width >= WIDE ? 32 : 2;
	char name[100];
	/* Operations are usually named after their service already. */
	size_t n = strlen(op->service);
	if (strncmp(op->operation, op->service, n) == 0 && op->operation[n] == '.')
		snprintf(name, sizeof(name), "%s", op->operation);
	else
		snprintf(name, sizeof(name), "%s %s", op->service, op->operation);
	if (width >= WIDE && strlen(name) < indent)
		buf_printf(b, "%-*s", (int)indent, name);
	else
		buf_printf(b, "%s\n%*s", name, (int)indent, "");
	report_text_put_side(b, op, &op->sides[OUTCOME_LEGACY], outcome_side_text(OUTCOME_LEGACY));
	buf_printf(b, "%*s", (int)indent, "");
	report_text_put_side(b, op, &op->sides[OUTCOME_TASK], outcome_side_text(OUTCOME_TASK));
	report_text_put_backends(b, op, indent);
	put_shadows(b, op, indent);
	report_text_put_results(b, op, width, indent);
	put_reasons(b, op, width, indent);
}

static void put_table_head(struct buf *b, unsigned width)
{
	const unsigned indent = width >= WIDE ? 32 : 2;
	buf_printf(b, "\n%-*s%-8s %8s %6s  %8s %9s %7s  %7s %7s %7s\n", (int)indent,
		   width >= WIDE ? "operation" : "", "side", "answered", "share", "success", "counted",
		   "unknown", "p50", "p95", "p99");
}

static bool report_text_any(const struct report *r)
{
	for (size_t i = 0; i < r->operation_count; i++)
		if (r->operations[i].can_move)
			return true;
	return false;
}

int report_head_to_text(const struct report *r, struct buf *out)
{
	report_text_put_head(r, out);
	return out->error;
}

int report_to_text(const struct report *r, unsigned columns, struct buf *out)
{
	report_text_put_head(r, out);
	return report_rest_to_text(r, columns, out);
}

int report_rest_to_text(const struct report *r, unsigned columns, struct buf *out)
{
	unsigned width = columns;
	if (columns == 0)
		width = 80;
	else if (columns < WIDTH_MIN)
		width = WIDTH_MIN;
	put_span(r, out);
	put_notes(r, out);
	report_text_put_left_out(r, out);
	if (!report_text_any(r))
		return buf_puts(out, "No attempts in this span.\n");
	put_table_head(out, width);
	for (size_t i = 0; i < r->operation_count; i++)
		if (r->operations[i].can_move)
			report_text_put_operation(out, &r->operations[i], width);
	return out->error;
}
