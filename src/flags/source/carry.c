#include "flags/source/carry.h"

#include <errno.h>

#include "base/json.h"

/* The flag of that key in a snapshot's "flags", SPAN_NONE when it has none. */
static struct span find_flag(struct span flags, const char *key)
{
	struct json_iter it;
	struct span ignored, flag, value;
	if (!flags.ptr || json_type_of(flags) != JSON_ARRAY)
		return SPAN_NONE;
	json_iter_init(&it, flags);
	while (json_iter_next(&it, &ignored, &flag)) {
		CLEANUP(buf_releasep) struct buf name = BUF_INIT(4096);
		if (json_pointer(flag, SPAN_LIT("/key"), &value) && json_type_of(value) == JSON_STRING &&
		    json_unescape(value, &name) == 0 && span_is(buf_span(&name), key))
			return flag;
	}
	return SPAN_NONE;
}

static int flags_of(struct span text, struct span *ret)
{
	return json_pointers(text, &SPAN_LIT("/flags"), 1, ret, NULL) == 0 ? 0 : -EBADMSG;
}

int carry_flags(struct span text, struct span old, const char *const *used, size_t n_used, struct buf *out,
		struct flag_carried *ret)
{
	struct span flags, old_flags = SPAN_NONE;
	*ret = (struct flag_carried){.n = 0};
	if (flags_of(text, &flags) < 0 || (old.ptr && old.len && flags_of(old, &old_flags) < 0))
		return -EBADMSG;
	CLEANUP(buf_releasep) struct buf lost = BUF_INIT(out->max);
	for (size_t i = 0; i < n_used; i++) {
		struct span flag = find_flag(old_flags, used[i]);
		if (!flag.ptr || find_flag(flags, used[i]).ptr)
			continue;
		if (ret->n++ < FLAG_CARRIED_NAMED)
			span_copy(span_of(used[i]), ret->names[ret->n - 1], sizeof(ret->names[0]));
		buf_puts(&lost, ",");
		buf_append_span(&lost, flag);
	}
	if (lost.error)
		return lost.error;
	if (ret->n == 0 || !flags.ptr || json_type_of(flags) != JSON_ARRAY) {
		if (ret->n == 0)
			return buf_append_span(out, text);
		/* A snapshot without the member at all: make one of what is carried. */
		int r = buf_puts(out, "{\"flags\":[");
		buf_append(out, lost.ptr + 1, lost.len - 1);
		return r < 0 || buf_puts(out, "]}") < 0 ? out->error : 0;
	}
	/* In front of the array's closing bracket; without the comma when it was empty. */
	const char *end = flags.ptr + flags.len - 1;
	struct json_iter it;
	struct span ignored, any;
	json_iter_init(&it, flags);
	bool empty = !json_iter_next(&it, &ignored, &any);
	buf_append(out, text.ptr, (size_t)(end - text.ptr));
	buf_append(out, lost.ptr + empty, lost.len - empty);
	buf_append(out, end, (size_t)(text.ptr + text.len - end));
	return out->error;
}
