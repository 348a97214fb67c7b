#include "flags/source/saved_snapshot.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/checksum.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "flags/instant.h"

#define CRC_TEXT 9

#define FILE_MAX (FLAG_MAX_DOCUMENT + 4096) /* a snapshot and its metadata */

static void member(struct buf *b, const char *name, const char *value)
{
	buf_printf(b, "\"%s\":", name);
	json_quote(b, span_of(value));
	buf_putc(b, ',');
}

/* Against damage, not against people: who may write the file may also write its checksum. */
static void crc_text(struct span text, char out[CRC_TEXT])
{
	snprintf(out, CRC_TEXT, "%08" PRIx32, checksum_crc32(CHECKSUM_CRC32_START, text));
}

int saved_snapshot_write(const char *path, const struct saved_snapshot *s, struct err *e)
{
	CLEANUP(buf_releasep) struct buf b = BUF_INIT(FILE_MAX);
	char when[CLOCK_TEXT_MAX], crc[CRC_TEXT];
	clock_format(clock_wall_us(), when);
	crc_text(s->text, crc);
	buf_puts(&b, "{\"format\":2,");
	member(&b, "source", s->kind == SAVED_FILE ? "file" : "flipt");
	member(&b, "rules", flag_rules_text(s->rules));
	member(&b, "namespace", s->namespace_key ? s->namespace_key : "");
	member(&b, "environment", s->environment ? s->environment : "");
	member(&b, "digest", s->digest);
	member(&b, "saved_at", when);
	member(&b, "crc32", crc);
	buf_puts(&b, "\"snapshot\":");
	buf_append_span(&b, s->text);
	buf_puts(&b, "}\n");
	if (b.error)
		return err_set(e, b.error, "%s: the snapshot is too large to be saved", path);
	int r = file_make_parent(path, 0700, e);
	return r < 0 ? r : file_replace(path, buf_span(&b), 0600, e);
}

enum { FORMAT, SOURCE, RULES, NAMESPACE, ENVIRONMENT, DIGEST, SAVED_AT, CRC, SNAPSHOT, MEMBERS };

static bool is_string(struct span value, const char *text)
{
	CLEANUP(buf_releasep) struct buf content = BUF_INIT(4096);
	return value.ptr && json_type_of(value) == JSON_STRING && json_unescape(value, &content) == 0 &&
	       span_is(buf_span(&content), text);
}

static int saved_check_origin(const char *path, const struct saved_from *from, const struct span *v,
			      struct err *e)
{
	bool file = v[SOURCE].ptr && is_string(v[SOURCE], "file");
	if (file != (from->kind == SAVED_FILE))
		return err_set(e, -EBADMSG, "%s: saved from another kind of source", path);
	if ((from->namespace_key && !is_string(v[NAMESPACE], from->namespace_key)) ||
	    (from->environment && !is_string(v[ENVIRONMENT], from->environment)))
		return err_set(e, -EBADMSG, "%s: saved from another namespace or environment", path);
	return 0;
}

int saved_snapshot_read(const char *path, const struct saved_from *from, struct buf *text,
			struct span *ret_text, struct flag_snapshot **ret, int64_t *ret_saved_us,
			struct err *e)
{
	static const struct span names[MEMBERS] = {
		[FORMAT] = SPAN_INIT("/format"),
		[SOURCE] = SPAN_INIT("/source"),
		[RULES] = SPAN_INIT("/rules"),
		[NAMESPACE] = SPAN_INIT("/namespace"),
		[ENVIRONMENT] = SPAN_INIT("/environment"),
		[DIGEST] = SPAN_INIT("/digest"),
		[CRC] = SPAN_INIT("/crc32"),
		[SNAPSHOT] = SPAN_INIT("/snapshot"),
		[SAVED_AT] = SPAN_INIT("/saved_at"),
	};
	struct span v[MEMBERS];
	int r = file_read(path, FILE_MAX, text, e);
	if (r < 0)
		return r;
	if (json_pointers(buf_span(text), names, MEMBERS, v, e) != 0)
		return err_prefix(e, -EBADMSG, "%s", path);
	if (!v[FORMAT].ptr || !span_is(v[FORMAT], "2") || !v[SNAPSHOT].ptr || !v[DIGEST].ptr)
		return err_set(e, -EBADMSG, "%s: not a saved snapshot of this version", path);
	if ((r = saved_check_origin(path, from, v, e)) < 0)
		return r;
	char crc[CRC_TEXT];
	crc_text(v[SNAPSHOT], crc);
	if (!is_string(v[CRC], crc))
		return err_set(e, -EBADMSG, "%s: damaged (checksum)", path);
	enum flag_rules rules = FLAG_RULES_V2;
	if (v[RULES].ptr && v[RULES].len > 2)
		flag_rules_parse((struct span){v[RULES].ptr + 1, v[RULES].len - 2}, &rules);
	r = flag_snapshot_parse_json(path, v[SNAPSHOT], rules, ret, e);
	if (r < 0)
		return r;
	CLEANUP(buf_releasep) struct buf digest = BUF_INIT(128);
	if (json_unescape(v[DIGEST], &digest) == 0)
		flag_snapshot_set_digest(*ret, buf_span(&digest).ptr);
	*ret_text = v[SNAPSHOT];
	if (ret_saved_us) {
		CLEANUP(buf_releasep) struct buf when = BUF_INIT(128);
		struct instant at;
		*ret_saved_us = 0;
		if (v[SAVED_AT].ptr && json_unescape(v[SAVED_AT], &when) == 0 &&
		    instant_parse(buf_span(&when), &at))
			*ret_saved_us = at.seconds * 1000000 + at.nanos / 1000;
	}
	return 0;
}
