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

int recorded_each(const char *path, int64_t newest, int (*fn)(void *arg, const struct recorded *r), void *arg,
		  struct err *e)
{
	CLEANUP(db_closep) struct db *db = NULL;
	CLEANUP(db_stmt_freep) struct db_stmt *rows = NULL;
	struct db_options o = {.path = path,
			       .read_only = true,
			       .busy_timeout_ms = BUSY_MS,
			       .application_id = OUTCOME_STORE_APPLICATION};
	int64_t n = 0;
	int r = db_open(&o, &db, e);
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
