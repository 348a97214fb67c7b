#include "flags/source/flag_source.h"

#include <string.h>

static bool same_text(const char *a, const char *b)
{
	return (!a && !b) || (a && b && strcmp(a, b) == 0);
}

/* Every field: tests/unit/test_flags_source.c changes one after the other, and knows the struct's size. */
bool flag_source_same(const struct flag_source_options *a, const struct flag_source_options *b)
{
	return a->kind == b->kind && same_text(a->file, b->file) && same_text(a->url, b->url) &&
	       same_text(a->namespace_key, b->namespace_key) && same_text(a->environment, b->environment) &&
	       same_text(a->ca_file, b->ca_file) && same_text(a->snapshot_file, b->snapshot_file) &&
	       a->rules == b->rules && a->rules_given == b->rules_given && a->auth == b->auth &&
	       same_text(a->token_file, b->token_file) && (a->token_file || same_text(a->token, b->token)) &&
	       a->poll_ms == b->poll_ms && a->timeout_ms == b->timeout_ms &&
	       a->stream_idle_ms == b->stream_idle_ms && a->stream == b->stream;
}
