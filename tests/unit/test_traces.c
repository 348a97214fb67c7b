/* traces: W3C trace context as its standard has it, and OTLP's JSON. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>

#include "base/crypto.h"
#include "base/json.h"
#include "traces/otlp.h"

#define TRACE "4bf92f3577b34da6a3ce929d0e0e4736"
#define PARENT "00f067aa0ba902b7"

static void a_traceparent_is_read_as_the_standard_says(void **state)
{
	(void)state;
	static const struct {
		const char *text, *written; /* NULL: it is none */
	} rows[] = {
		{"00-" TRACE "-" PARENT "-01", "00-" TRACE "-" PARENT "-01"},
		{" 00-" TRACE "-" PARENT "-00\t", "00-" TRACE "-" PARENT "-00"},
		/* flags that are not known yet are not passed on */
		{"00-" TRACE "-" PARENT "-ff", "00-" TRACE "-" PARENT "-01"},
		/* of a version to come: as far as it goes */
		{"01-" TRACE "-" PARENT "-01-more", "00-" TRACE "-" PARENT "-01"},
		{"cc-" TRACE "-" PARENT "-00", "00-" TRACE "-" PARENT "-00"},
		{"01-" TRACE "-" PARENT "-01more", NULL},
		{"00-" TRACE "-" PARENT "-01-more", NULL},
		{"ff-" TRACE "-" PARENT "-01", NULL},
		{"00-" TRACE "-" PARENT "-1", NULL},
		{"00-" TRACE "-" PARENT, NULL},
		{"00-4BF92F3577B34DA6A3CE929D0E0E4736-" PARENT "-01", NULL},
		{"00-00000000000000000000000000000000-" PARENT "-01", NULL},
		{"00-" TRACE "-0000000000000000-01", NULL},
		{"00_" TRACE "-" PARENT "-01", NULL},
		{"0g-" TRACE "-" PARENT "-01", NULL},
		{"", NULL},
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct trace_context c;
		char written[TRACE_PARENT] = "";
		bool read = trace_parent_read(span_of(rows[i].text), &c);
		if (read)
			trace_parent_write(&c, written);
		if (read != (rows[i].written != NULL) || (read && strcmp(written, rows[i].written) != 0))
			fail_msg("%s: %d %s", rows[i].text, read, written);
	}
}

static void tracestate_is_joined_and_bounded(void **state)
{
	(void)state;
	char text[TRACE_STATE_MAX + 1], large[TRACE_STATE_MAX + 2];
	struct http_field fields[] = {{SPAN_LIT("TraceState"), SPAN_LIT(" a=1 ")},
				      {SPAN_LIT("x"), SPAN_LIT("y")},
				      {SPAN_LIT("tracestate"), SPAN_LIT("")},
				      {SPAN_LIT("tracestate"), SPAN_LIT("b=2,c=3")}};
	trace_state_find(fields, 4, text);
	assert_string_equal(text, "a=1,b=2,c=3");
	trace_state_find(fields + 1, 1, text);
	assert_string_equal(text, "");
	memset(large, 'a', sizeof(large));
	fields[3].value = (struct span){large, TRACE_STATE_MAX};
	trace_state_find(fields + 3, 1, text);
	assert_int_equal(strlen(text), TRACE_STATE_MAX);
	fields[3].value.len++;
	trace_state_find(fields + 3, 1, text);
	assert_string_equal(text, "");
	trace_state_find(fields, 4, text); /* nothing of it: half of a list is another list */
	assert_string_equal(text, "");
	fields[3].value = SPAN_LIT("a=\n1");
	trace_state_find(fields + 3, 1, text);
	assert_string_equal(text, "");
}

static void a_share_of_traces_is_that_share(void **state)
{
	(void)state;
	unsigned among = 0;
	for (unsigned i = 0; i < 20000; i++) {
		char trace[TRACE_ID_HEX];
		trace_new_id(trace);
		among += trace_is_among(trace, 0.25);
		assert_false(trace_is_among(trace, 0));
		assert_true(trace_is_among(trace, 1));
		assert_int_equal(trace_is_among(trace, 0.25), trace_is_among(trace, 0.25));
	}
	assert_in_range(among, 4700, 5300); /* 5 sigma */
	assert_true(trace_is_among("ffffffffffffffffff00000000000001", 0.01));
	assert_false(trace_is_among("000000000000000000ffffffffffffff", 0.99));
	assert_true(trace_is_among("000000000000000000ffffffffffffff", 1));
}

static void a_request_of_otlp_is_json_whatever_is_in_it(void **state)
{
	(void)state;
	struct trace_span s = {.trace = TRACE,
			       .span = PARENT,
			       .kind = TRACE_PRODUCER,
			       .error = true,
			       .start_us = 1795248104123456,
			       .end_us = 1795248104123455,
			       .name = "a \"b\"\n\xff",
			       .message = "\\"};
	char large[2 * TRACE_TEXT];
	memset(large, 'a', sizeof(large));
	trace_span_text(&s, "none", SPAN_NONE);
	trace_span_text(&s, "odd", SPAN_LIT("\xff\x01\"ü"));
	trace_span_number(&s, "number", -9007199254740993);
	for (int i = 0; i < 2 * TRACE_ATTRIBUTES; i++)
		trace_span_text(&s, "large", (struct span){large, sizeof(large)});
	CLEANUP(buf_releasep) struct buf out = BUF_INIT(1 << 20);
	otlp_begin(&out, "svc \"1\"", "host:1");
	otlp_put_span(&out, &s, true);
	memcpy(s.parent, PARENT, sizeof(s.parent));
	otlp_put_span(&out, &s, false);
	assert_int_equal(otlp_end(&out), 0);
	assert_int_equal(json_validate(buf_span(&out), NULL), 0);
	struct span v;
#define SPANS "/resourceSpans/0/scopeSpans/0/spans"
	static const struct {
		const char *at, *value;
	} rows[] = {
		{SPANS "/0/traceId", "\"" TRACE "\""},
		{SPANS "/1/parentSpanId", "\"" PARENT "\""},
		{SPANS "/0/startTimeUnixNano", "\"1795248104123456000\""},
		{SPANS "/0/endTimeUnixNano", "\"1795248104123456000\""}, /* a clock that stepped back */
		{SPANS "/0/kind", "4"},
		{SPANS "/0/attributes/1/value/intValue", "\"-9007199254740993\""},
		{SPANS "/0/status/code", "2"},
		{"/resourceSpans/0/resource/attributes/0/value/stringValue", "\"svc \\\"1\\\"\""},
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		if (!json_pointer(buf_span(&out), span_of(rows[i].at), &v) || !span_is(v, rows[i].value))
			fail_msg("%s: %.*s", rows[i].at, SPAN_ARG(v));
	assert_false(json_pointer(buf_span(&out), SPAN_LIT(SPANS "/0/parentSpanId"), &v));
}

static void what_was_rejected_is_read_from_the_answer(void **state)
{
	(void)state;
	static const struct {
		const char *body;
		uint64_t rejected;
	} rows[] = {
		{"", 0},
		{"{}", 0},
		{"{\"partialSuccess\":{}}", 0},
		{"{\"partialSuccess\":{\"rejectedSpans\":\"3\",\"errorMessage\":\"no\"}}", 3},
		{"{\"partialSuccess\":{\"rejectedSpans\":2}}", 2},
		{"{\"partialSuccess\":{\"rejectedSpans\":\"99\"}}", 10},
		{"{\"partialSuccess\":{\"rejectedSpans\":\"x\"}}", 0},
		{"<html>", 0},
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct err why = {""};
		assert_int_equal(otlp_rejected(span_of(rows[i].body), 10, &why), rows[i].rejected);
		assert_int_equal(why.text[0] != '\0', rows[i].rejected > 0);
	}
}

#define FEEDERS 3
#define FED 5000

static void *feed(void *arg)
{
	struct traces_producer *p;
	if (traces_producer_new(arg, &p) < 0)
		return NULL;
	for (int i = 0; i < FED; i++) {
		struct trace_span *s = traces_reserve(p);
		if (!s)
			continue;
		memcpy(s->trace, TRACE, sizeof(s->trace));
		memcpy(s->span, PARENT, sizeof(s->span));
		trace_span_number(s, "n", i);
		traces_commit(p);
	}
	return p;
}

/* Nobody is at the other end. */
static void producers_never_wait_and_every_span_is_counted(void **state)
{
	(void)state;
	struct traces *t;
	struct err e = {""};
	struct traces_status s;
	pthread_t threads[FEEDERS];
	void *producer;
	const struct traces_options o = {
		.endpoint = "http://127.0.0.1:9/v1/traces", .sample = 0.5, .queue_slots = 64, .flush_ms = 1};
	assert_int_equal(traces_start(&o, &t, &e), 0);
	assert_true(traces_sample(t) > 0.4 && traces_sample(t) < 0.6);
	for (int i = 0; i < FEEDERS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, feed, t), 0);
	for (int i = 0; i < FEEDERS; i++) {
		pthread_join(threads[i], &producer);
		assert_non_null(producer);
	}
	for (traces_status(t, &s); !s.failing; traces_status(t, &s))
		poll(NULL, 0, 2);
	assert_int_equal(s.exported, 0);
	assert_true(s.dropped > 0 && s.last_error[0]);
	assert_true(s.dropped + s.failed + s.queued <= FEEDERS * FED);
	assert_true(s.dropped + s.failed + s.queued + TRACES_BATCH >= FEEDERS * FED);
	assert_null(traces_stop(t));
	traces_status(NULL, &s);
	assert_int_equal(s.dropped, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_traceparent_is_read_as_the_standard_says),
		cmocka_unit_test(tracestate_is_joined_and_bounded),
		cmocka_unit_test(a_share_of_traces_is_that_share),
		cmocka_unit_test(a_request_of_otlp_is_json_whatever_is_in_it),
		cmocka_unit_test(what_was_rejected_is_read_from_the_answer),
		cmocka_unit_test(producers_never_wait_and_every_span_is_counted),
	};
	if (crypto_setup() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
