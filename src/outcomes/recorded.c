#include "outcomes/recorded.h"

#include "base/crypto.h"
#include "base/db.h"
#include "outcomes/outcome.h"
#include "outcomes/outcome_store.h"

#define BUSY_MS 5000
#define UTF8_MAX 4 /* outcome_id cuts in front of a character */

/* Longer than any id that is recorded as it is. */
bool recorded_user_is_pseudonym(struct span user)
{
	return user.len == CRYPTO_SHA256_HEX - 1;
}

bool recorded_may_be_cut(struct span id)
{
	return id.len + UTF8_MAX > sizeof(((struct outcome *)NULL)->user) - 1;
}

static int recorded_open(const char *path, struct db **ret, struct err *e)
{
	struct db_options o = {.path = path,
			       .read_only = true,
			       .busy_timeout_ms = BUSY_MS,
			       .application_id = OUTCOME_STORE_APPLICATION};
	return db_open(&o, ret, e);
}

int recorded_each(const char *path, int64_t newest, int (*fn)(void *arg, const struct recorded *r), void *arg,
		  struct err *e)
{
	CLEANUP(db_closep) struct db *db = NULL;
	CLEANUP(db_stmt_freep) struct db_stmt *rows = NULL;
	int64_t n = 0;
	int r = recorded_open(path, &db, e);
	if (r == 0)
		r = db_prepare(
			db,
			"SELECT s.service, s.operation, o.organisation, o.user, count(*) FROM outcomes o"
			" JOIN series s ON s.id = o.series WHERE s.role = 'primary'"
			" AND o.id > CASE ?1 WHEN 0 THEN 0 ELSE (SELECT max(id) FROM outcomes) - ?1 END"
			" GROUP BY o.organisation, o.user, s.service, s.operation",
			&rows, e);
	if (r == 0)
		db_bind_int64(rows, 1, newest);
	while (r == 0 && (r = db_step(rows, e)) == 1) {
		struct recorded one = {.service = db_column_text(rows, 0),
				       .operation = db_column_text(rows, 1),
				       .organization = db_column_text(rows, 2),
				       .user = db_column_text(rows, 3),
				       .requests = db_column_int64(rows, 4)};
		if (n++ == RECORDED_MAX)
			return 1;
		r = fn(arg, &one);
	}
	return r;
}

static void recorded_read_decision(struct db_stmt *rows, struct recorded_decision *ret)
{
	*ret = (struct recorded_decision){.who = {.service = db_column_text(rows, 0),
						  .operation = db_column_text(rows, 1),
						  .organization = db_column_text(rows, 2),
						  .user = db_column_text(rows, 3),
						  .requests = db_column_int64(rows, 7)},
					  .side = outcome_side_parse(db_column_text(rows, 4)),
					  .reason = outcome_reason_parse(db_column_text(rows, 5)),
					  .backend = db_column_text(rows, 6)};
	if (ret->side < 0)
		ret->side = OUTCOME_LEGACY;
	if (ret->reason < 0)
		ret->reason = REASON_OTHER;
}

int recorded_each_decision(const char *path, int64_t since_us, int64_t until_us, int64_t *ret_first_us,
			   int (*fn)(void *arg, const struct recorded_decision *d), void *arg, struct err *e)
{
	CLEANUP(db_closep) struct db *db = NULL;
	CLEANUP(db_stmt_freep) struct db_stmt *rows = NULL;
	int64_t n = 0;
	int r = recorded_open(path, &db, e);
	if (r == 0)
		r = db_query_int64(db,
				   "SELECT coalesce((SELECT time_us FROM outcomes ORDER BY id LIMIT 1), 0)",
				   ret_first_us, e);
	/* Rows are in the order of writing: of a minute and later from its mark on. */
	if (r == 0)
		r = db_prepare(
			db,
			"SELECT s.service, s.operation, o.organisation, o.user, s.side, s.reason, s.backend, "
			"count(*) FROM outcomes o JOIN series s ON s.id = o.series WHERE s.role = 'primary' "
			"AND o.id >= coalesce((SELECT min(row) FROM row_marks WHERE minute >= ?1 / "
			"60000000), "
			"0) AND o.time_us >= ?1 AND (?2 = 0 OR o.time_us < ?2) "
			"GROUP BY o.organisation, o.user, s.service, s.operation, s.side, s.reason, "
			"s.backend",
			&rows, e);
	if (r == 0) {
		db_bind_int64(rows, 1, since_us);
		db_bind_int64(rows, 2, until_us);
	}
	while (r == 0 && (r = db_step(rows, e)) == 1) {
		struct recorded_decision one;
		recorded_read_decision(rows, &one);
		if (n++ == RECORDED_MAX)
			return 1;
		r = fn(arg, &one);
	}
	return r;
}
