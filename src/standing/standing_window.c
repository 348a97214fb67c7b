#include "standing/standing_window.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/db.h"
#include "outcomes/outcome_store.h"
#include "standing/standing_row.h"

#define MINUTE_US 60000000LL
#define BUSY_MS 2000
#define EXACT_US (3 * MINUTE_US) /* a longer time is added up from minutes: rows would take too long */

/* An operation that is measured from a moment of its own. Beyond the time that rows are read for, from the
 * next whole minute on: less, but nothing of before. */
static int measure_since(const char *path, const struct standing_operation_facts *f, int64_t now_us,
			 struct report_operation *into, struct err *e)
{
	CLEANUP(report_freep) struct report *r = NULL;
	bool exact = now_us - f->set_since_us < EXACT_US;
	struct report_options o = {.path = path,
				   .service = f->service,
				   .operation = f->operation,
				   .exact = exact,
				   .since_us = f->set_since_us};
	if (!exact)
		o.since_us = (f->set_since_us + MINUTE_US - 1) / MINUTE_US * MINUTE_US;
	int code = report_make(&o, &r, e);
	if (code < 0)
		return code;
	bool can_move = into->can_move;
	struct report_operation none = {.can_move = can_move};
	memcpy(none.service, into->service, sizeof(none.service));
	memcpy(none.operation, into->operation, sizeof(none.operation));
	*into = r->operation_count ? r->operations[0] : none;
	return 0;
}

int standing_window(const char *path, const struct standing_facts *f, int64_t now_us, struct report **ret,
		    struct err *e)
{
	CLEANUP(report_freep) struct report *r = NULL;
	int64_t since_us = now_us - STANDING_WINDOW_US;
	int code = report_make(&(struct report_options){.path = path, .since_us = since_us}, &r, e);
	for (size_t i = 0; code == 0 && f && i < f->n_operations; i++) {
		const struct standing_operation_facts *x = &f->operations[i];
		for (size_t j = 0; x->set_since_us > since_us && j < r->operation_count; j++)
			if (strcmp(r->operations[j].operation, x->operation) == 0 &&
			    strcmp(r->operations[j].service, x->service) == 0 && code == 0)
				code = measure_since(path, x, now_us, &r->operations[j], e);
	}
	if (code == 0)
		*ret = steal(r);
	return code;
}

/* --- the last hour, for sparklines ---------------------------------------------------------------------- */

static struct standing_operation *operation_of(struct standing *s, struct span service, struct span operation)
{
	for (size_t i = 0; i < s->n_operations; i++)
		if (span_is(operation, s->operations[i].operation) &&
		    span_is(service, s->operations[i].service))
			return &s->operations[i];
	return NULL;
}

static int read_hour(struct db *db, struct standing *s, int64_t first_minute, struct err *e)
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
		struct standing_operation *o = operation_of(s, db_column_text(q, 1), db_column_text(q, 2));
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
	if (db_open(&o, &db, &ignored) == 0 && read_hour(db, s, first, &ignored) == 0)
		s->hour_us = first * MINUTE_US;
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
