#include "ledger/ledger_read.h"

#include <errno.h>

#include "base/db.h"
#include "base/text.h"
#include "ledger/claims.h"
#include "ledger/ledger_file.h"

#define BUSY_MS 2000
#define LEDGER_READ_ENTRIES \
	"SELECT \"group\", backend, count(*), min(created_us), max(created_us) FROM entries GROUP BY 1, 2"
#define LEDGER_READ_CLAIMS \
	"SELECT '" LEDGER_GROUP_CLAIMS "', backend, count(*), min(created_us), max(created_us) FROM claims" \
	" WHERE side = ?1 AND phase <> ?2 GROUP BY 2"

int ledger_read_groups(const char *path, struct ledger_group *ret, size_t max, size_t *ret_n, struct err *e)
{
	CLEANUP(db_closep) struct db *db = NULL;
	CLEANUP(db_stmt_freep) struct db_stmt *q = NULL;
	struct db_options o = {.path = path,
			       .read_only = true,
			       .busy_timeout_ms = BUSY_MS,
			       .application_id = LEDGER_APPLICATION};
	int64_t version = 0, claims = 0;
	*ret_n = 0;
	int r = db_open(&o, &db, e);
	if (r == 0)
		r = db_user_version(db, &version, e);
	if (r < 0 || version == 0) /* made, and nothing was ever written to it */
		return r;
	r = db_query_int64(db, "SELECT count(*) FROM sqlite_master WHERE name = 'claims'", &claims, e);
	if (r == 0)
		r = db_prepare(db,
			       claims ? LEDGER_READ_ENTRIES " UNION ALL " LEDGER_READ_CLAIMS
				      : LEDGER_READ_ENTRIES,
			       &q, e);
	if (r == 0 && claims) {
		db_bind_int64(q, 1, CLAIM_TASK);
		db_bind_int64(q, 2, CLAIM_ENDED);
	}
	while (r == 0 && (r = db_step(q, e)) == 1) {
		if (*ret_n == max)
			return err_set(e, -E2BIG, "%s: more than %zu groups", path, max);
		struct ledger_group *g = &ret[(*ret_n)++];
		text_copy(db_column_text(q, 0), g->group, sizeof(g->group));
		text_copy(db_column_text(q, 1), g->backend, sizeof(g->backend));
		g->entries = (uint64_t)db_column_int64(q, 2);
		g->oldest_us = db_column_int64(q, 3);
		g->newest_us = db_column_int64(q, 4);
		r = 0;
	}
	return r;
}
