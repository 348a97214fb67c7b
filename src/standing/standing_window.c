#include "standing/standing_window.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/db.h"
#include "outcomes/outcome_store.h"
#include "standing/standing_internal.h"
#include "standing/standing_row.h"

#define MINUTE_US 60000000LL
#define BUSY_MS 2000
#define EXACT_US (3 * MINUTE_US) /* a longer time is added up from minutes: rows would take too long */

/* What is measured from a moment of its own: one report for all operations that were set then, as one change
 * of the flags may set thousands. */
struct own_window {
	int64_t set_us;
	const struct standing_operation_facts *only; /* NULL: several */
	struct report *report;
};

/* Beyond the time that rows are read for, from the next whole minute on: less, but nothing of before. */
static int read_own_window(const char *path, struct own_window *w, int64_t now_us, struct err *e)
{
	bool exact = now_us - w->set_us < EXACT_US;
	struct report_options o = {.path = path,
				   .service = w->only ? w->only->service : NULL,
				   .operation = w->only ? w->only->operation : NULL,
				   .exact = exact,
				   .no_points = true,
				   .since_us = w->set_us};
	if (!exact)
		o.since_us = (w->set_us + MINUTE_US - 1) / MINUTE_US * MINUTE_US;
	return report_make(&o, &w->report, e);
}

static struct own_window *own_window_of(struct own_window *all, size_t n, int64_t set_us)
{
	for (size_t i = 0; i < n; i++)
		if (all[i].set_us == set_us)
			return &all[i];
	return NULL;
}

static const struct report_operation *find_in_report(const struct report *r, const char *service,
						     const char *operation)
{
	size_t low = 0, high = r->operation_count; /* by service and operation */
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		const struct report_operation *o = &r->operations[middle];
		int c = strcmp(service, o->service);
		c = c ? c : strcmp(operation, o->operation);
		if (c == 0)
			return o;
		if (c > 0)
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}

/* Returns how many there are of different moments. */
static size_t group_windows(const struct standing_facts *f, const struct report *r, int64_t since_us,
			    int64_t now_us, struct own_window *all)
{
	size_t n = 0;
	for (size_t i = 0; i < f->n_operations; i++) {
		const struct standing_operation_facts *x = &f->operations[i];
		if (!standing_is_set_within(x, since_us, now_us) ||
		    !find_in_report(r, x->service, x->operation))
			continue;
		struct own_window *w = own_window_of(all, n, x->set_since_us);
		if (w)
			w->only = NULL;
		else
			all[n++] = (struct own_window){.set_us = x->set_since_us, .only = x};
	}
	return n;
}

static void take_own_windows(const struct standing_facts *f, struct report *r, int64_t since_us,
			     int64_t now_us, struct own_window *all, size_t n)
{
	for (size_t i = 0; i < f->n_operations; i++) {
		const struct standing_operation_facts *x = &f->operations[i];
		const struct report_operation *there = find_in_report(r, x->service, x->operation);
		if (!there || !standing_is_set_within(x, since_us, now_us))
			continue;
		const struct own_window *w = own_window_of(all, n, x->set_since_us);
		const struct report_operation *own = find_in_report(w->report, x->service, x->operation);
		struct report_operation *into = &r->operations[there - r->operations];
		struct report_operation none = {.can_move = into->can_move};
		memcpy(none.service, into->service, sizeof(none.service));
		memcpy(none.operation, into->operation, sizeof(none.operation));
		*into = own ? *own : none;
	}
}

static int measure_own_windows(const char *path, const struct standing_facts *f, struct report *r,
			       int64_t since_us, int64_t now_us, struct err *e)
{
	struct own_window *all = calloc(f->n_operations + 1, sizeof(*all));
	if (!all)
		return err_set(e, -ENOMEM, "out of memory");
	size_t n = group_windows(f, r, since_us, now_us, all);
	int code = 0;
	for (size_t i = 0; i < n && code == 0; i++)
		code = read_own_window(path, &all[i], now_us, e);
	if (code == 0)
		take_own_windows(f, r, since_us, now_us, all, n);
	for (size_t i = 0; i < n; i++)
		report_free(all[i].report);
	free(all);
	return code;
}

int standing_window(const char *path, const struct standing_facts *f, int64_t now_us, struct report **ret,
		    struct err *e)
{
	CLEANUP(report_freep) struct report *r = NULL;
	int64_t since_us = now_us - STANDING_WINDOW_US;
	int code = report_make(&(struct report_options){.path = path, .since_us = since_us}, &r, e);
	if (code == 0 && f)
		code = measure_own_windows(path, f, r, since_us, now_us, e);
	if (code == 0)
		*ret = steal(r);
	return code;
}

/* --- the last hour, for sparklines ---------------------------------------------------------------------- */

static int read_hour(struct db *db, struct standing *s, const struct standing_name *names,
		     int64_t first_minute, struct err *e)
{
	CLEANUP(db_stmt_freep) struct db_stmt *q = NULL;
	int r = db_prepare(
		db,
		"SELECT r.minute, s.service, s.operation, s.side, sum(r.count) FROM rollups r JOIN "
		"series s ON s.id = r.series WHERE r.minute >= ? AND s.answered AND s.role <> 'shadow' "
		"AND s.reason <> 'no_task' GROUP BY s.service, s.operation, s.side, r.minute",
		&q, e);
	if (r < 0)
		return r;
	db_bind_int64(q, 1, first_minute);
	while ((r = db_step(q, e)) > 0) {
		const struct standing_name *x = standing_names_find(
			names, s->n_operations, db_column_text(q, 1), db_column_text(q, 2));
		struct standing_operation *o = x ? &s->operations[x->at] : NULL;
		int64_t at = (db_column_int64(q, 0) - first_minute) / STANDING_POINT_MINUTES;
		int side = outcome_side_parse(db_column_text(q, 3));
		if (o && side >= 0 && at < STANDING_HOUR_POINTS)
			o->hour[at][side] += (uint32_t)db_column_int64(q, 4);
	}
	return r;
}

static void fill_hour(const char *path, struct standing *s)
{
	struct db_options o = {.path = path,
			       .read_only = true,
			       .busy_timeout_ms = BUSY_MS,
			       .application_id = OUTCOME_STORE_APPLICATION};
	CLEANUP(db_closep) struct db *db = NULL;
	int64_t first = s->made_us / MINUTE_US - STANDING_HOUR_POINTS * STANDING_POINT_MINUTES + 1;
	struct err ignored;
	struct standing_name *names = calloc(s->n_operations + 1, sizeof(*names));
	for (size_t i = 0; names && i < s->n_operations; i++)
		names[i] = (struct standing_name){s->operations[i].service, s->operations[i].operation, i};
	if (names)
		standing_names_sort(names, s->n_operations);
	if (names && db_open(&o, &db, &ignored) == 0 && read_hour(db, s, names, first, &ignored) == 0)
		s->hour_us = first * MINUTE_US;
	free(names);
}

/* --- all ------------------------------------------------------------------------------------------------ */

int standing_of(const char *path, struct standing_facts *f, int64_t now_us, struct standing **ret)
{
	CLEANUP(report_freep) struct report *window = NULL;
	struct err e = {""};
	int r = standing_window(path, f, now_us, &window, &e);
	bool nothing = r == -ENOENT || r == -ENODATA; /* nothing recorded yet */
	int code = standing_make(f, window, r < 0 && !nothing ? e.text : NULL, now_us, ret);
	if (code == 0 && r == 0)
		fill_hour(path, *ret);
	return code;
}

int standing_read(const char *path, int64_t now_us, struct standing **ret)
{
	struct standing_facts *f = NULL;
	struct err e = {""};
	int r = standing_row_read(path, &f, &e);
	if (r < 0)
		return standing_make(NULL, NULL, e.text, now_us, ret);
	return standing_of(path, f, now_us, ret);
}
