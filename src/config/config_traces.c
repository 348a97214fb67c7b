/* `traces:` where spans are exported to (design, "Traces"). */
#include "config/config_reader.h"

#include <string.h>
#include <sys/stat.h>

#include "base/file.h"

#define AUTHORIZATION_MAX 4096

/* The field's value, as it was when the configuration was read. */
static void read_authorization(const struct place *p, const char **ret)
{
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(AUTHORIZATION_MAX + (128u << 10));
	const char *path = NULL;
	struct err e = {""};
	struct stat st;
	if (!p->node || !value_file(p, &path))
		return;
	if (stat(path, &st) != 0 || !S_ISREG(st.st_mode)) {
		place_mistake(p, "%s: not a regular file", path);
		return;
	}
	if (file_read(path, AUTHORIZATION_MAX, &text, &e) < 0) {
		place_mistake(p, "%s", e.text);
		return;
	}
	struct span value = span_strip(buf_span(&text));
	bool plain = value.len > 0;
	for (size_t i = 0; i < value.len; i++)
		plain = plain && value.ptr[i] >= ' ' && value.ptr[i] < 0x7f;
	if (plain)
		*ret = place_text(p->reader, value);
	else
		place_mistake(p, "%s: expected one line, the value of the Authorization field", path);
}

void read_traces(const struct place *p)
{
	static const struct field fields[] = {
		{"endpoint", FIELD_URL, offsetof(struct config, traces.endpoint), 0, 0},
		{"ca_file", FIELD_FILE, offsetof(struct config, traces.ca_file), 0, 0},
		{"authorization_file", FIELD_OTHER, 0, 0, 0},
		{"service_name", FIELD_TEXT, offsetof(struct config, traces.service_name), 0, 0},
		{"sample", FIELD_OTHER, 0, 0, 0},
		{"queue", FIELD_UNSIGNED, offsetof(struct config, traces.queue_slots), 16, 65536},
		{"flush", FIELD_DURATION, offsetof(struct config, traces.flush_ms), 10, 60000},
	};
	struct config *c = config_of(p);
	if (!p->node)
		return;
	READ_FIELDS(p, fields, c);
	struct place endpoint = place_member(p, "endpoint"), sample = place_member(p, "sample");
	struct place authorization = place_member(p, "authorization_file");
	if (!endpoint.node)
		place_mistake(&endpoint,
			      "missing: the URL to POST spans to, such as http://127.0.0.1:4318/v1/traces");
	if (sample.node &&
	    (!yaml_double(sample.node, &c->traces.sample) || c->traces.sample < 0 || c->traces.sample > 1))
		place_mistake(&sample, "expected a share from 0 to 1, not %s", place_shown(sample.node).text);
	read_authorization(&authorization, &c->traces.authorization);
}
