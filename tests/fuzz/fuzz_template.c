/* Templates: whatever compiles renders valid JSON within the limit, on any valid or missing body. The input
 *            is YAML, and, behind
 * a line "---8<---", JSON that serves as body and as result. */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "operation/template.h"

#define ALL (TEMPLATE_REQUEST | TEMPLATE_RESULT | TEMPLATE_ERROR)
#define OUT_MAX 100000

static void check(bool holds)
{
	if (!holds)
		abort();
}

static struct span get_header(void *arg, struct span name)
{
	return name.len % 2 ? *(struct span *)arg : SPAN_NONE;
}

static bool get_decoded(void *arg, struct span name, struct buf *decoded)
{
	(void)arg;
	return name.len % 2 && buf_append_span(decoded, name) == 0;
}

static void render_template(const struct yaml_node *root, const struct template_source *s)
{
	struct template *t = NULL;
	struct err e = {""};
	int r = template_compile(root, ALL, &t, &e);
	check((r == 0) == (t != NULL) && (r == 0 || strlen(e.text) > 0));
	if (r < 0)
		return;
	CLEANUP(buf_releasep) struct buf out = BUF_INIT(OUT_MAX);
	r = template_render(t, s, &out);
	check(r == 0 || r == -EFBIG);
	/* A literal of the template may nest deeper than the body did: the depth limit of JSON is no
	 * mistake here. */
	struct err why = {""};
	check(r < 0 || json_validate(buf_span(&out), &why) == 0 || strstr(why.text, "nested too deeply"));
	template_free(t);
}

static void render_response(const struct yaml_node *root, const struct template_source *s)
{
	struct response_template *t = NULL;
	if (response_template_compile(root, ALL, &t, NULL) < 0)
		return;
	CLEANUP(buf_releasep) struct buf body = BUF_INIT(OUT_MAX);
	struct rendered_response rendered;
	int r = response_template_render(t, s, &rendered, &body);
	check(r == 0 || r == -EFBIG || r == TEMPLATE_E_NO_CHOICE);
	check(r != 0 || (rendered.status >= 200 && rendered.status <= 599));
	check(r != 0 || (rendered.status != 204 && rendered.status != 304) || body.len == 0);
	response_template_free(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char cut[] = "\n---8<---\n";
	struct span yaml = {(const char *)data, size}, json = SPAN_NONE;
	const char *found = memmem(data, size, cut, sizeof(cut) - 1);
	if (found) {
		yaml.len = (size_t)(found - yaml.ptr);
		json = (struct span){found + sizeof(cut) - 1, size - yaml.len - (sizeof(cut) - 1)};
	}
	if (json_validate(json, NULL) < 0)
		json = SPAN_NONE;
	struct template_source s = {
		.arg = &yaml, .header = get_header, .query = get_decoded, .path = get_decoded};
	s.body = s.result = json;
	s.user = s.task_error = s.error_detail = json;
	s.error_status = 502;
	struct yaml_doc *doc = NULL;
	if (yaml_parse("fuzz", yaml, &doc, NULL) < 0)
		return 0;
	render_template(yaml_root(doc), &s);
	render_response(yaml_root(doc), &s);
	yaml_free(doc);
	return 0;
}
