#include "flags/source/flag_source.h"

/* Every field: tests/unit/test_flags_source.c changes one after the other, and knows the struct's size. */
bool flag_source_same(const struct flag_source_options *a, const struct flag_source_options *b)
{
	return a->kind == b->kind && text_eq(a->file, b->file) && text_eq(a->url, b->url) &&
	       text_eq(a->namespace_key, b->namespace_key) && text_eq(a->environment, b->environment) &&
	       text_eq(a->ca_file, b->ca_file) && text_eq(a->snapshot_file, b->snapshot_file) &&
	       a->rules == b->rules && a->rules_given == b->rules_given && a->auth == b->auth &&
	       text_eq(a->token_file, b->token_file) && (a->token_file || text_eq(a->token, b->token)) &&
	       a->poll_ms == b->poll_ms && a->timeout_ms == b->timeout_ms &&
	       a->stream_idle_ms == b->stream_idle_ms && a->stream == b->stream;
}
