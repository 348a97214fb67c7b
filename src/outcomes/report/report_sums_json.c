/* Report sums on the wire. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/json.h"
#include "base/text.h"
#include "outcomes/report_sums.h"
#include "outcomes/series.h"

/* Some thousands of years, so that none of the reckoning can overflow. */
#define MINUTE_LIMIT INT64_C(10000000000)
#define SERIES_WIRE_MAX (4 * SERIES_MAX) /* the recorder keeps to a bit more than 2 × SERIES_MAX */

static void put_text(struct buf *b, const char *text)
{
	json_quote(b, span_of(text));
	buf_putc(b, ',');
}

static void sums_put_series(struct buf *b, const struct report_series *s)
{
	buf_putc(b, '[');
	put_text(b, s->service);
	put_text(b, s->operation);
	put_text(b, s->backend);
	put_text(b, outcome_side_text((enum outcome_side)s->side));
	put_text(b, outcome_role_text((enum outcome_role)s->role));
	put_text(b, outcome_reason_text((enum outcome_reason)s->reason));
	put_text(b, outcome_result_text((enum outcome_result)s->result));
	buf_printf(b, "%s,%" PRIu64 ",[", s->answered ? "true" : "false", s->count);
	for (unsigned i = 0, n = 0; s->latencies && i < HISTOGRAM_BUCKETS; i++)
		if (s->latencies->counts[i])
			buf_printf(b, "%s%u,%" PRIu64, n++ ? "," : "", i, s->latencies->counts[i]);
	buf_puts(b, "]]");
}

static void sums_put_minute(struct buf *b, const struct report_minute *m)
{
	buf_printf(b, "[%" PRId64, m->minute);
	for (int i = 0; i < OUTCOME_SIDE_COUNT; i++)
		buf_printf(b, ",%" PRIu64 ",%" PRIu64 ",%" PRIu64, m->executions[i], m->success[i],
			   m->counted[i]);
	buf_putc(b, ']');
}

int report_sums_to_json(const struct report_sums *s, struct buf *out)
{
	buf_printf(out,
		   "{\"sums\":%d,\"store\":\"%s\",\"since_us\":%" PRId64 ",\"until_us\":%" PRId64
		   ",\"from_rows\":%s,\"dropped\":%" PRIu64 ",\"folded\":",
		   REPORT_SUMS_VERSION, s->store, s->since_us, s->until_us, s->from_rows ? "true" : "false",
		   s->dropped);
	if (s->folded <= -MINUTE_LIMIT)
		buf_puts(out, "null");
	else
		buf_printf(out, "%" PRId64, s->folded);
	if (s->demo.until_us)
		buf_printf(out, ",\"demo_since_us\":%" PRId64 ",\"demo_until_us\":%" PRId64, s->demo.since_us,
			   s->demo.until_us);
	if (s->any)
		buf_printf(out, ",\"first_minute\":%" PRId64 ",\"last_minute\":%" PRId64, s->first_minute,
			   s->last_minute);
	buf_puts(out, ",\"series\":[");
	for (size_t i = 0, n = 0; i < s->series_count; i++)
		if (s->series[i].count) {
			buf_puts(out, n++ ? "," : "");
			sums_put_series(out, &s->series[i]);
		}
	buf_puts(out, "],\"minutes\":[");
	for (size_t i = 0; i < s->minute_count; i++) {
		buf_puts(out, i ? "," : "");
		sums_put_minute(out, &s->minutes[i]);
	}
	buf_puts(out, "]}\n");
	return out->error;
}

/* --- reading: nothing of it is believed ----------------------------------------------------------------- */

static bool take_whole(const struct json_node *n, double least, double *ret)
{
	const double most = 9007199254740992.0; /* beyond, a double has no whole numbers */
	return json_number(n, ret) && *ret >= least && *ret <= most && *ret == (double)(int64_t)*ret;
}

static bool take_count(const struct json_node *n, uint64_t *ret)
{
	double d;
	bool good = take_whole(n, 0, &d);
	*ret = good ? (uint64_t)d : 0;
	return good;
}

static bool take_time(const struct json_node *n, int64_t *ret)
{
	double d;
	bool good = take_whole(n, -9007199254740992.0, &d);
	*ret = good ? (int64_t)d : 0;
	return good;
}

static bool take_minute_number(const struct json_node *n, int64_t *ret)
{
	return take_time(n, ret) && *ret > -MINUTE_LIMIT && *ret < MINUTE_LIMIT;
}

static struct span take_text(const struct json_node **n)
{
	struct span text = span_of(json_string(*n));
	*n = json_next(*n);
	return text;
}

static bool take_latencies(const struct json_node *list, struct report_series *s)
{
	if (!json_first(list))
		return true;
	s->latencies = calloc(1, sizeof(*s->latencies));
	for (const struct json_node *n = json_first(list); s->latencies && n; n = json_next(n)) {
		uint64_t bucket, count;
		if (!take_count(n, &bucket) || bucket >= HISTOGRAM_BUCKETS ||
		    !take_count(n = json_next(n), &count))
			return false;
		s->latencies->counts[bucket] += count;
		s->latencies->total += count;
	}
	return s->latencies != NULL;
}

static bool take_series(const struct json_node *list, struct report_series *s)
{
	const struct json_node *n = json_first(list);
	struct span service = take_text(&n), operation = take_text(&n), backend = take_text(&n);
	s->side = outcome_side_parse(take_text(&n));
	s->role = outcome_role_parse(take_text(&n));
	s->reason = outcome_reason_parse(take_text(&n));
	s->result = outcome_result_parse(take_text(&n));
	/* As in a file of a newer version. */
	if (s->reason < 0)
		s->reason = REASON_OTHER;
	if (s->result < 0)
		s->result = OUTCOME_UNKNOWN;
	if (!service.ptr || !operation.ptr || !backend.ptr || s->side < 0 || s->role < 0 ||
	    !json_bool(n, &s->answered))
		return false;
	text_copy(service, s->service, sizeof(s->service));
	text_copy(operation, s->operation, sizeof(s->operation));
	text_copy(backend, s->backend, sizeof(s->backend));
	n = json_next(n);
	return take_count(n, &s->count) && take_latencies(json_next(n), s);
}

static bool take_minute(const struct json_node *list, struct report_minute *m)
{
	const struct json_node *n = json_first(list);
	bool good = take_minute_number(n, &m->minute);
	for (int i = 0; i < OUTCOME_SIDE_COUNT; i++) {
		good = good && take_count(n = json_next(n), &m->executions[i]);
		good = good && take_count(n = json_next(n), &m->success[i]);
		good = good && take_count(n = json_next(n), &m->counted[i]);
	}
	return good;
}

static bool take_lists(const struct json_node *root, struct report_sums *s)
{
	const struct json_node *series = json_get(root, "series"), *minutes = json_get(root, "minutes");
	size_t n_series = json_count(series), n_minutes = json_count(minutes);
	if (n_series > SERIES_WIRE_MAX || n_minutes > REPORT_MINUTES_MAX)
		return false;
	s->series = calloc(n_series + 1, sizeof(*s->series));
	s->minutes = calloc(n_minutes + 1, sizeof(*s->minutes));
	if (!s->series || !s->minutes)
		return false;
	bool good = json_node_type(series) == JSON_ARRAY && json_node_type(minutes) == JSON_ARRAY;
	for (const struct json_node *n = json_first(series); good && n; n = json_next(n))
		good = take_series(n, &s->series[s->series_count++]);
	for (const struct json_node *n = json_first(minutes); good && n; n = json_next(n))
		good = take_minute(n, &s->minutes[s->minute_count++]);
	return good;
}

static bool take_all(const struct json_node *root, struct report_sums *s)
{
	text_copy(span_of(json_string(json_get(root, "store"))), s->store, sizeof(s->store));
	s->folded = INT64_MIN;
	const struct json_node *folded = json_get(root, "folded");
	if (json_node_type(folded) == JSON_NUMBER && !take_minute_number(folded, &s->folded))
		return false;
	s->any = json_get(root, "first_minute") != NULL;
	if (s->any && (!take_minute_number(json_get(root, "first_minute"), &s->first_minute) ||
		       !take_minute_number(json_get(root, "last_minute"), &s->last_minute) ||
		       s->last_minute < s->first_minute))
		return false;
	if (json_get(root, "demo_until_us") &&
	    !(take_time(json_get(root, "demo_since_us"), &s->demo.since_us) &&
	      take_time(json_get(root, "demo_until_us"), &s->demo.until_us)))
		return false;
	return take_time(json_get(root, "since_us"), &s->since_us) &&
	       take_time(json_get(root, "until_us"), &s->until_us) &&
	       json_bool(json_get(root, "from_rows"), &s->from_rows) &&
	       take_count(json_get(root, "dropped"), &s->dropped) && take_lists(root, s);
}

int report_sums_parse(const char *name, struct span json, struct report_sums **ret, struct err *e)
{
	struct json_doc *doc = NULL;
	int r = json_doc_parse(json, &doc, e);
	if (r < 0)
		return err_prefix(e, r, "%s", name);
	CLEANUP(report_sums_freep) struct report_sums *s = calloc(1, sizeof(*s));
	double version = 0;
	if (!s)
		r = err_set(e, -ENOMEM, "out of memory");
	else if (!json_number(json_get(json_root(doc), "sums"), &version) || version != REPORT_SUMS_VERSION)
		r = err_set(e, -EPROTO, "%s: its version does not report sums that this program can add up",
			    name);
	else if (!take_all(json_root(doc), s))
		r = err_set(e, -EPROTO, "%s: sums that cannot be decoded", name);
	if (r == 0) {
		report_sums_mark_left_out(s);
		*ret = steal(s);
	}
	json_doc_free(doc);
	return r;
}
