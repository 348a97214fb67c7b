/* Of what is kept: the ledger, idempotency keys, the access log. */
#include <math.h>

#include "programs/router/app_internal.h"
#include "programs/router/metrics/metrics.h"

static void put_ledger(const struct app *a, struct metric_text *out)
{
	struct ledger_status l;
	ledger_status(a->ledger, &l);
	metric_begin(out, "migration_state_up", METRIC_GAUGE,
		     "0 while the ledger's store (the file, or the shared Redis) cannot be read or written.");
	metric_count(out, !l.failing, METRIC_NO_LABELS);
	metric_begin(out, "migration_ledger_entries", METRIC_GAUGE,
		     "Pins and tasks that the ledger's file remembers. NaN: they are in the shared Redis.");
	metric_value(out, l.remote ? NAN : (double)l.entries, METRIC_NO_LABELS);
	metric_begin(out, "migration_ledger_queued", METRIC_GAUGE,
		     "Changes on their way to the ledger's file.");
	metric_count(out, l.queued, METRIC_NO_LABELS);
	metric_begin(out, "migration_state_errors_total", METRIC_COUNTER,
		     "Requests to the shared Redis that failed or had no answer in time.");
	metric_count(out, l.errors, METRIC_NO_LABELS);
	metric_begin(out, "migration_state_unwritten_removals", METRIC_GAUGE,
		     "Entry removals waiting until the shared Redis can be written.");
	metric_count(out, l.unwritten, METRIC_NO_LABELS);
	metric_begin(out, "migration_state_losses_total", METRIC_COUNTER,
		     "Times the shared Redis was found to have lost its data.");
	metric_count(out, l.losses, METRIC_NO_LABELS);
	metric_begin(out, "migration_state_at_risk", METRIC_GAUGE,
		     "1 while the shared Redis is set up so that entries may be lost; see /readyz.");
	metric_count(out, l.warning != NULL, METRIC_NO_LABELS);
}

static void put_keys(const struct app *a, struct metric_text *out)
{
	static const char *const results[] = {
		[KEY_BEGUN] = "begun",	   [KEY_ANSWERED] = "answered",
		[KEY_RUNNING] = "running", [KEY_OTHER_REQUEST] = "other_request",
		[KEY_REFUSED] = "refused", [KEY_UNKNOWN] = "unknown",
	};
	struct claims_status s;
	claims_status(a->env.claims, &s);
	metric_begin(out, "migration_idempotency_keys_total", METRIC_COUNTER,
		     "Requests with an idempotency key, by result.");
	for (size_t i = 0; i < KEY_RESULTS; i++)
		metric_count(out, atomic_load(&a->env.keys[i]),
			     METRIC_LABELS({"result", span_of(results[i])}));
	metric_begin(out, "migration_idempotency_keys_stored", METRIC_GAUGE,
		     "Remembered keys, of both sides.");
	metric_count(out, s.claims, METRIC_NO_LABELS);
	metric_begin(out, "migration_idempotency_answer_bytes", METRIC_GAUGE,
		     "Bytes of answers kept for them.");
	metric_count(out, s.bytes, METRIC_NO_LABELS);
	metric_begin(out, "migration_idempotency_answers_unkept_total", METRIC_COUNTER,
		     "Answers not kept for lack of room, or because the file could not be written.");
	metric_count(out, s.unkept + s.lost, METRIC_NO_LABELS);
	metric_begin(out, "migration_idempotency_failing", METRIC_GAUGE,
		     "1 while remembered keys cannot be read or written.");
	metric_count(out, s.failing, METRIC_NO_LABELS);
}

static void put_traces(const struct app *a, struct metric_text *out)
{
	struct traces_status s;
	traces_status(a->env.traces, &s);
	metric_begin(out, "migration_trace_spans_total", METRIC_COUNTER,
		     "Spans for the collector: exported, dropped (their queue was full), or failed (refused, "
		     "or it "
		     "could not be reached).");
	const struct {
		const char *result;
		uint64_t n;
	} results[] = {{"exported", s.exported}, {"dropped", s.dropped}, {"failed", s.failed}};
	for (size_t i = 0; i < sizeof(results) / sizeof(results[0]); i++)
		metric_count(out, results[i].n, METRIC_LABELS({"result", span_of(results[i].result)}));
	metric_begin(out, "migration_trace_spans_queued", METRIC_GAUGE, "Spans waiting to be exported.");
	metric_count(out, s.queued, METRIC_NO_LABELS);
	metric_begin(out, "migration_traces_failing", METRIC_GAUGE,
		     "1 while the collector cannot be reached, or refuses spans.");
	metric_count(out, s.failing, METRIC_NO_LABELS);
}

void metrics_put_stores(const struct app *a, struct metric_text *out)
{
	put_ledger(a, out);
	put_keys(a, out);
	put_traces(a, out);
	metric_begin(out, "migration_access_log_dropped_total", METRIC_COUNTER,
		     "Lines of the access log that could not be written.");
	metric_count(out, a->env.access_log ? access_log_dropped(a->env.access_log) : 0, METRIC_NO_LABELS);
}
