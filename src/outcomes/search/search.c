#include "outcomes/search/search.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/crypto.h"
#include "base/file.h"
#include "base/text.h"
#include "outcomes/outcome_store.h"
#include "outcomes/search/error_pattern.h"
#include "outcomes/search/row_filter.h"

#define SEARCH_BUSY_MS 2000
#define SEARCH_KEY_MAX 4096
#define SEARCH_SQL_MAX (256u << 10)

/* --- opening -------------------------------------------------------------------------------------------- */

static bool search_passes(const char *wanted, const char *value)
{
	return !wanted || strcmp(wanted, value) == 0;
}

static bool search_is_failure(const struct search_series *s)
{
	return s->result != OUTCOME_SUCCESS && s->result != OUTCOME_REJECTED;
}

static bool search_wants(const struct search_filter *f, const struct search_series *s)
{
	return search_passes(f->service, s->service) && search_passes(f->operation, s->operation) &&
	       search_passes(f->backend, s->backend) && (f->side < 0 || f->side == s->side) &&
	       (f->role < 0 || f->role == s->role) && (f->result < 0 || f->result == s->result);
}

/* The words of a newer version are taken as the report takes them. */
static void search_read_one(struct search *s, struct db_stmt *q, struct search_series *x)
{
	int side = outcome_side_parse(db_column_text(q, 3)), role = outcome_role_parse(db_column_text(q, 4)),
	    reason = outcome_reason_parse(db_column_text(q, 5)),
	    result = outcome_result_parse(db_column_text(q, 6));
	*x = (struct search_series){.id = db_column_int64(q, 0),
				    .side = (uint8_t)(side < 0 ? OUTCOME_LEGACY : side),
				    .role = (uint8_t)(role < 0 ? OUTCOME_PRIMARY : role),
				    .reason = (uint8_t)(reason < 0 ? REASON_OTHER : reason),
				    .result = (uint8_t)(result < 0 ? OUTCOME_UNKNOWN : result),
				    .answered = db_column_int64(q, 7) != 0};
	text_copy(db_column_text(q, 1), x->service, sizeof(x->service));
	text_copy(db_column_text(q, 2), x->operation, sizeof(x->operation));
	text_copy(db_column_text(q, 8), x->backend, sizeof(x->backend));
	x->wanted = search_wants(s->filter, x);
	s->n_wanted += x->wanted;
}

static int search_read_series(struct search *s, struct err *e)
{
	CLEANUP(db_stmt_freep) struct db_stmt *q = NULL;
	int64_t n = 0;
	int r = db_query_int64(s->db, "SELECT count(*) FROM series", &n, e);
	if (r == 0 && !(s->series = calloc((size_t)n + 1, sizeof(*s->series))))
		return err_set(e, -ENOMEM, "out of memory");
	if (r == 0)
		r = db_prepare(s->db,
			       "SELECT id, service, operation, side, role, reason, result, answered, backend"
			       " FROM series ORDER BY id",
			       &q, e);
	while (r == 0 && (r = db_step(q, e)) > 0 && s->n_series < (size_t)n) {
		search_read_one(s, q, &s->series[s->n_series++]);
		r = 0;
	}
	return r < 0 ? r : 0;
}

static void search_add_key(struct rows_reader *r, uint64_t either, uint64_t or)
{
	if (r->n_keys < ROWS_KEYS_MAX) {
		r->keys[r->n_keys].either = either;
		r->keys[r->n_keys++].or = or ;
	}
}

static void search_add_text_key(struct rows_reader *r, enum row_filter_kind kind, const char *text)
{
	uint64_t key = row_filter_key(kind, span_of(text));
	if (text)
		search_add_key(r, key, key);
}

static void search_read_pseudonym(struct search *s, const char *path)
{
	CLEANUP(buf_releasep) struct buf key = BUF_INIT(SEARCH_KEY_MAX + 65536);
	char name[4096];
	struct err ignored;
	if (snprintf(name, sizeof(name), "%s-userkey", path) >= (int)sizeof(name) ||
	    file_read(name, SEARCH_KEY_MAX, &key, &ignored) < 0 || key.len == 0)
		return;
	while (key.len && key.ptr[key.len - 1] == '\n')
		key.len--;
	char hex[CRYPTO_SHA256_HEX];
	crypto_hmac_sha256_hex(buf_span(&key), span_of(s->user), hex);
	span_copy(span_of(hex), s->pseudonym, sizeof(s->pseudonym));
}

static bool search_asks_for_failures(const struct search_filter *f)
{
	return f->failed || (f->result >= 0 && f->result != OUTCOME_SUCCESS && f->result != OUTCOME_REJECTED);
}

static void search_take_filter(struct search *s, const char *path)
{
	const struct search_filter *f = s->filter;
	if (f->organization) {
		outcome_id(span_of(f->organization), s->organization, sizeof(s->organization));
		search_add_text_key(&s->rows, search_asks_for_failures(f) ? ROW_FAILED : ROW_ORGANIZATION,
				    s->organization);
	}
	if (f->user) {
		outcome_id(span_of(f->user), s->user, sizeof(s->user));
		search_read_pseudonym(s, path);
		search_add_key(&s->rows, row_filter_key(ROW_USER, span_of(s->user)),
			       row_filter_key(ROW_USER, span_of(s->pseudonym)));
	}
	search_add_text_key(&s->rows, ROW_REQUEST, f->request_id);
	search_add_text_key(&s->rows, ROW_TASK, f->task_id);
	search_add_text_key(&s->rows, ROW_ERROR, f->error);
	if (s->n_wanted == 1)
		for (size_t i = 0; i < s->n_series; i++) {
			char id[24];
			snprintf(id, sizeof(id), "%lld", (long long)s->series[i].id);
			if (s->series[i].wanted)
				search_add_text_key(&s->rows, ROW_SERIES, id);
		}
}

static int search_check(const char *path, struct db *db, struct err *e)
{
	int64_t version;
	int r = db_user_version(db, &version, e);
	if (r < 0)
		return r;
	if (version > OUTCOME_STORE_VERSION)
		return err_set(e, -EPROTO, "%s: schema version %lld, this program knows up to %d", path,
			       (long long)version, OUTCOME_STORE_VERSION);
	return version == 0 ? err_set(e, -ENODATA, "%s: nothing recorded yet", path) : 0;
}

int search_open(const char *path, const struct search_filter *f, struct search *s, struct err *e)
{
	*s = (struct search){.filter = f};
	struct db_options o = {
		.path = path,
		.read_only = true,
		.busy_timeout_ms = SEARCH_BUSY_MS,
		.cache_kib = 16384,
		.application_id = OUTCOME_STORE_APPLICATION,
	};
	int r = db_open(&o, &s->db, e);
	if (r == 0) /* one snapshot for all that is read; it does not hold up the writer */
		r = db_exec(s->db, "BEGIN", e);
	if (r == 0)
		r = search_check(path, s->db, e);
	if (r == 0)
		r = search_read_series(s, e);
	if (r == 0)
		r = rows_open(s->db, &s->rows, e);
	if (r == 0)
		search_take_filter(s, path);
	return r;
}

void search_close(struct search *s)
{
	if (s->db)
		db_rollback(s->db);
	s->db = db_close(s->db);
	free(s->series);
	s->series = NULL;
}

const struct search_series *search_series_of(const struct search *s, int64_t id)
{
	size_t low = 0, high = s->n_series;
	while (low < high) {
		size_t middle = (low + high) / 2;
		if (s->series[middle].id < id)
			low = middle + 1;
		else
			high = middle;
	}
	return low < s->n_series && s->series[low].id == id && s->series[low].wanted ? &s->series[low] : NULL;
}

/* --- statements ----------------------------------------------------------------------------------------- */

/* Of which series, unless it is all of them. */
static void search_put_series(const struct search *s, struct buf *sql)
{
	if (s->n_wanted == s->n_series && !s->filter->failed)
		return;
	const char *before = "";
	buf_puts(sql, " AND series IN (");
	for (size_t i = 0; i < s->n_series; i++) {
		if (!s->series[i].wanted)
			continue;
		buf_printf(sql, "%s%lld", before, (long long)s->series[i].id);
		before = ",";
	}
	buf_puts(sql, ")");
}

/* What failed before there were error texts has none. */
static void search_put_failed(const struct search *s, struct buf *sql)
{
	if (!s->filter->failed)
		return;
	buf_puts(sql, s->rows.has_errors ? " AND (error IS NOT NULL OR series IN (" : " AND (series IN (");
	const char *before = "";
	for (size_t i = 0; i < s->n_series; i++) {
		if (!s->series[i].wanted || !search_is_failure(&s->series[i]))
			continue;
		buf_printf(sql, "%s%lld", before, (long long)s->series[i].id);
		before = ",";
	}
	buf_puts(sql, "))");
}

int search_prepare_rows(struct search *s, const char *columns, const char *tail, struct db_stmt **ret,
			struct err *e)
{
	CLEANUP(buf_releasep) struct buf sql = BUF_INIT(SEARCH_SQL_MAX);
	const struct search_filter *f = s->filter;
	buf_printf(&sql, "SELECT %s FROM %s WHERE id BETWEEN ?1 AND ?2 AND time_us >= ?3 AND time_us < ?4",
		   columns, s->rows.has_errors ? "outcomes" : "(SELECT *, NULL AS error FROM outcomes)");
	search_put_series(s, &sql);
	search_put_failed(s, &sql);
	if (f->organization)
		buf_puts(&sql, " AND organisation = ?5");
	if (f->user)
		buf_puts(&sql, " AND user IN (?6, ?7)");
	if (f->request_id)
		buf_puts(&sql, " AND request_id = ?8");
	if (f->task_id)
		buf_puts(&sql, " AND task_id = ?9");
	if (f->status)
		buf_puts(&sql, " AND http_status = ?10");
	if (f->error)
		buf_puts(&sql, " AND error IS NOT NULL");
	buf_puts(&sql, tail);
	buf_terminate(&sql);
	if (sql.error)
		return err_set(e, sql.error, "too many series to ask for");
	int r = db_prepare(s->db, sql.ptr, ret, e);
	if (r < 0)
		return r;
	if (f->organization)
		db_bind_text(*ret, 5, span_of(s->organization));
	if (f->user) {
		db_bind_text(*ret, 6, span_of(s->user));
		db_bind_text(*ret, 7, span_of(s->pseudonym));
	}
	if (f->request_id)
		db_bind_text(*ret, 8, span_of(f->request_id));
	if (f->task_id)
		db_bind_text(*ret, 9, span_of(f->task_id));
	if (f->status)
		db_bind_int64(*ret, 10, f->status);
	return 0;
}

bool search_error_matches(const struct search *s, struct span error)
{
	char pattern[OUTCOME_ERROR_MAX];
	if (!s->filter->error)
		return true;
	error_pattern(error, pattern);
	return strcmp(pattern, s->filter->error) == 0;
}
