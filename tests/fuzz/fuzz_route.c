/* Routes: a target from outside is matched and decoded without a step beyond it. First line: template;
 * then target. */
#include <assert.h>
#include <stdint.h>

#include "config/config.h"
#include "operation/route.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size == 0)
		return 0;
	struct span all = {(const char *)data, size};
	const char *end = memchr(data, '\n', size);
	struct span path = {all.ptr, end ? (size_t)(end - all.ptr) : 0};
	struct span target = {all.ptr + path.len + (end != NULL), size - path.len - (end != NULL)};
	struct operation op = {.name = SPAN_LIT("o"), .method = SPAN_LIT("GET"), .path = path};
	struct route_table *table = NULL;
	struct route_match m;
	CLEANUP(buf_releasep) struct buf out = BUF_INIT(64);
	if (route_table_new(&op, 1, &table, NULL) == 0 && route_match(table, SPAN_LIT("GET"), target, &m))
		for (size_t i = 0; i < m.n_parameters; i++) {
			struct span value = m.parameters[i].value;
			assert(value.len && value.ptr >= target.ptr &&
			       value.ptr + value.len <= target.ptr + target.len);
			assert(!memchr(value.ptr, '/', value.len));
			buf_clear(&out);
			route_parameter(&m, m.parameters[i].name, &out);
		}
	for (size_t at = 0; route_query_next(target, SPAN_LIT("a"), &at, &out);)
		assert(at > 0);
	route_table_free(table);
	return 0;
}
