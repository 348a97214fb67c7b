#include "guard/guard_verdict.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/db.h"
#include "base/json.h"
#include "guard/guard_store.h"
#include "guard/guard_waiting.h"
#include "outcomes/outcome_store.h"

#define READ_BUSY_MS 2000
#define GUARD_OPERATIONS_READ 100000

/* --- reading -------------------------------------------------------------------------------------------- */

void guard_verdict_of_epoch(const struct guard_epoch *epoch, int64_t now_us,
			    struct guard_operation_verdict *v)
{
	if (!epoch->row)
		return;
	v->split = epoch->split;
	v->epoch = epoch->number;
	v->began_us = epoch->began_us;
	guard_evidence_verdict(&epoch->evidence, &epoch->rule, epoch->limit_us > 0, now_us, v);
	v->kinds[GUARD_SLOW].limit_us = epoch->limit_us;
	v->changed_us = epoch->changed_us;
	v->held = epoch->held_us != 0;
	v->held_us = epoch->held_us;
	v->keeps = v->held ? epoch->keeps : 0;
	/* Also where the evidence was another version's and cannot be read, or another replica found it. */
	if (v->held || epoch->verdict == GUARD_BREACH)
		v->verdict = GUARD_BREACH;
	memcpy(v->began_because, epoch->because, sizeof(v->began_because));
}

static int guard_add_row(struct db *db, struct db_stmt *q, int64_t now_us, struct guard_verdicts **list)
{
	struct guard_verdicts *more =
		realloc(*list, sizeof(**list) + ((*list)->n + 1) * sizeof((*list)->operations[0]));
	if (!more)
		return -ENOMEM;
	*list = more;
	struct guard_operation_verdict *v = &more->operations[more->n++];
	struct guard_epoch epoch;
	memset(v, 0, sizeof(*v));
	span_copy(db_column_text(q, 0), v->service, sizeof(v->service));
	span_copy(db_column_text(q, 1), v->operation, sizeof(v->operation));
	guard_store_read_epoch(q, 2, &epoch);
	v->mode = epoch.mode;
	guard_verdict_of_epoch(&epoch, now_us, v);
	return guard_waiting_finder(db, epoch.row, v->found_by, NULL);
}

static int guard_read_rows(struct db *db, const char *service, const char *operation,
			   struct guard_verdicts **list, struct err *e)
{
	CLEANUP(db_stmt_freep) struct db_stmt *q = NULL;
	int64_t now_us = clock_wall_us();
	int r = db_prepare(
		db,
		"SELECT service, operation, " GUARD_EPOCH_COLUMNS " FROM guard_epochs g WHERE epoch = "
		"(SELECT max(epoch) FROM guard_epochs h WHERE h.service = g.service AND h.operation = "
		"g.operation) AND (?1 = '' OR service = ?1) AND (?2 = '' OR operation = ?2) ORDER BY "
		"service, operation",
		&q, e);
	if (r < 0)
		return r;
	db_bind_text(q, 1, span_of(service));
	db_bind_text(q, 2, span_of(operation));
	while ((r = db_step(q, e)) == 1) {
		r = (*list)->n < GUARD_OPERATIONS_READ ? guard_add_row(db, q, now_us, list) : -E2BIG;
		if (r < 0)
			return err_set(e, r, "%s: out of memory, or too many operations", db_path(db));
	}
	return r;
}

int guard_verdicts_read(const char *path, const char *service, const char *operation,
			struct guard_verdicts **ret, struct err *e)
{
	CLEANUP(guard_verdicts_freep) struct guard_verdicts *list = calloc(1, sizeof(*list));
	CLEANUP(db_closep) struct db *db = NULL;
	struct db_options o = {.path = path,
			       .read_only = true,
			       .busy_timeout_ms = READ_BUSY_MS,
			       .application_id = OUTCOME_STORE_APPLICATION};
	int64_t there = 0;
	if (!list)
		return err_set(e, -ENOMEM, "%s: out of memory", path);
	int r = db_open(&o, &db, e);
	if (r == 0)
		r = db_query_int64(db, "SELECT count(*) FROM sqlite_master WHERE name = 'guard_epochs'",
				   &there, e);
	if (r == 0 && there)
		r = guard_read_rows(db, service, operation, &list, e);
	if (r < 0)
		return r;
	*ret = steal(list);
	return 0;
}

void guard_verdicts_keep_telling(struct guard_verdicts *v)
{
	size_t kept = 0;
	for (size_t i = 0; i < v->n; i++) {
		const struct guard_operation_verdict *of = &v->operations[i];
		uint64_t entities = of->entities[OUTCOME_LEGACY] + of->entities[OUTCOME_TASK];
		if (of->held || (of->mode != GUARD_OFF && entities > 0))
			v->operations[kept++] = *of;
	}
	v->n = kept;
}

struct guard_verdicts *guard_verdicts_free(struct guard_verdicts *v)
{
	free(v);
	return NULL;
}

/* --- for programs and people ---------------------------------------------------------------------------- */

static void guard_put_time(struct buf *b, const char *name, int64_t us)
{
	char text[CLOCK_TEXT_MAX];
	if (us == 0) {
		buf_printf(b, ",\"%s\":null", name);
		return;
	}
	clock_format(us, text);
	buf_printf(b, ",\"%s\":\"%s\"", name, text);
}

static void guard_put_count(struct buf *b, const char *name, uint64_t n)
{
	if (n == GUARD_UNKNOWN)
		buf_printf(b, ",\"%s\":null", name);
	else
		buf_printf(b, ",\"%s\":%" PRIu64, name, n);
}

static void guard_put_kind(struct buf *b, enum guard_kind kind, const struct guard_kind_verdict *k)
{
	buf_printf(b, "\"%s\":{\"judged\":%s,\"verdict\":\"%s\"", guard_kind_text(kind),
		   k->judged ? "true" : "false", guard_verdict_text(k->verdict));
	buf_printf(b, ",\"bad_entities\":{\"legacy\":%" PRIu64 ",\"task\":%" PRIu64 "}",
		   k->bad[OUTCOME_LEGACY], k->bad[OUTCOME_TASK]);
	buf_printf(b, ",\"evidence_worse\":%.4f,\"needed_worse\":%.4f", k->worse, k->worse_needed);
	buf_printf(b, ",\"evidence_safe\":%.4f,\"needed_safe\":%.4f", k->harmless, k->harmless_needed);
	guard_put_time(b, "breached", k->breached_us);
	guard_put_time(b, "safe_since", k->safe_us);
	if (k->limit_us)
		buf_printf(b, ",\"limit_us\":%" PRId64, k->limit_us);
	buf_putc(b, '}');
}

int guard_verdict_to_json(const struct guard_operation_verdict *v, struct buf *out)
{
	buf_puts(out, "{\"service\":");
	json_quote(out, span_of(v->service));
	buf_puts(out, ",\"operation\":");
	json_quote(out, span_of(v->operation));
	buf_printf(out, ",\"verdict\":\"%s\",\"mode\":\"%s\",\"held\":%s,\"epoch\":%" PRId64,
		   guard_verdict_text(v->verdict), guard_mode_text(v->mode), v->held ? "true" : "false",
		   v->epoch);
	guard_put_time(out, "began", v->began_us);
	guard_put_time(out, "changed", v->changed_us);
	guard_put_time(out, "held_since", v->held_us);
	buf_printf(out, ",\"keeps_share\":%.6f", v->keeps);
	buf_puts(out, ",\"began_because\":");
	json_quote(out, span_of(v->began_because));
	buf_puts(out, ",\"found_by\":");
	if (v->found_by[0])
		json_quote(out, span_of(v->found_by));
	else
		buf_puts(out, "null");
	buf_printf(out, ",\"entities\":{\"legacy\":%" PRIu64 ",\"task\":%" PRIu64 "}",
		   v->entities[OUTCOME_LEGACY], v->entities[OUTCOME_TASK]);
	guard_put_count(out, "missing_entities", v->missing_entities);
	guard_put_count(out, "missing_seconds", v->missing_seconds);
	buf_printf(out, ",\"share\":{\"expected\":%.6f,\"seen\":%.6f,\"mismatch\":%s,\"reason\":", v->share,
		   v->share_seen, v->share_mismatch ? "true" : "false");
	json_quote(out, span_of(v->share_reason));
	buf_puts(out, "},\"kinds\":{");
	for (int k = 0; k < GUARD_KIND_COUNT; k++) {
		buf_puts(out, k ? "," : "");
		guard_put_kind(out, k, &v->kinds[k]);
	}
	return buf_puts(out, "}}");
}

int guard_verdicts_into_json(const struct guard_verdicts *v, struct buf *object)
{
	while (object->len && object->ptr[object->len - 1] != '}')
		object->len--;
	if (object->error || !object->len)
		return object->error;
	object->len--; /* opens the object again */
	buf_puts(object, ",\"guard\":[");
	for (size_t i = 0; i < v->n; i++) {
		buf_puts(object, i ? "," : "");
		guard_verdict_to_json(&v->operations[i], object);
	}
	return buf_puts(object, "]}\n");
}

static void guard_say_breach(const struct guard_operation_verdict *v, struct buf *out)
{
	bool first = true;
	buf_puts(out, v->found_by[0] ? "breach: the task side is worse, as router "
				     : "breach: the task side is worse:");
	if (v->found_by[0])
		buf_printf(out, "%s found;", v->found_by);
	for (int k = 0; k < GUARD_KIND_COUNT; k++) {
		const struct guard_kind_verdict *of = &v->kinds[k];
		if (!of->judged || of->verdict != GUARD_BREACH)
			continue;
		buf_printf(out, "%s %s (entities: %" PRIu64 " on task, %" PRIu64 " on legacy, at %.3g %%)",
			   first ? "" : ",", guard_kind_text(k), of->bad[OUTCOME_TASK],
			   of->bad[OUTCOME_LEGACY], v->share * 100);
		first = false;
	}
	buf_puts(out, v->held ? "; held at legacy" : "; not held");
	if (v->keeps > 0)
		buf_printf(out, " except for the %.3g %% that were safe", v->keeps * 100);
}

static void guard_say_time(uint64_t seconds, struct buf *out)
{
	if (seconds < 5400)
		buf_printf(out, ", %" PRIu64 " min at this traffic", (seconds + 59) / 60);
	else if (seconds < 2 * 86400)
		buf_printf(out, ", %.1f h at this traffic", (double)seconds / 3600);
	else
		buf_printf(out, ", %.1f days at this traffic", (double)seconds / 86400);
}

static void guard_say_missing(const struct guard_operation_verdict *v, struct buf *out)
{
	buf_puts(out, "not enough data");
	if (v->epoch == 0)
		buf_puts(out, ": no percentage has decided yet");
	else if (v->missing_entities == GUARD_UNKNOWN)
		buf_puts(out, ": no entities that a percentage decided");
	else
		buf_printf(out, ": about %" PRIu64 " entities missing", v->missing_entities);
	if (v->epoch && v->missing_seconds != GUARD_UNKNOWN && v->missing_entities != GUARD_UNKNOWN)
		guard_say_time(v->missing_seconds, out);
}

int guard_verdict_to_text(const struct guard_operation_verdict *v, struct buf *out)
{
	buf_printf(out, "%s.%s: ", v->service, v->operation);
	switch (v->verdict) {
	case GUARD_BREACH:
		guard_say_breach(v, out);
		break;
	case GUARD_SHARE_MISMATCH:
		buf_printf(
			out,
			"share mismatch: %.3g %% of the entities should be on the task side, %.3g %% are; %s",
			v->share * 100, v->share_seen * 100, v->share_reason);
		break;
	case GUARD_SAFE:
		buf_puts(out, "safe");
		break;
	default:
		guard_say_missing(v, out);
	}
	buf_printf(out, " (entities: %" PRIu64 " on task, %" PRIu64 " on legacy)", v->entities[OUTCOME_TASK],
		   v->entities[OUTCOME_LEGACY]);
	return out->error;
}
