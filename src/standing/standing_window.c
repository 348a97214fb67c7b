#include "standing/standing_window.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "standing/standing_row.h"

#define MINUTE_US 60000000LL
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

int standing_of(const char *path, struct standing_facts *f, int64_t now_us, struct standing **ret)
{
	CLEANUP(report_freep) struct report *window = NULL;
	struct err e = {""};
	int r = standing_window(path, f, now_us, &window, &e);
	bool nothing = r == -ENOENT || r == -ENODATA; /* nothing recorded yet */
	return standing_make(f, window, r < 0 && !nothing ? e.text : NULL, now_us, ret);
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
