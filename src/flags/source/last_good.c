#include "flags/source/last_good.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "flags/source/carry.h"

#define SAVE_AGAIN_MS 2000

/* --- life ----------------------------------------------------------------------------------------------- */

static int last_good_copy(const char *from, char **ret)
{
	*ret = from ? strdup(from) : NULL;
	return from && !*ret ? -ENOMEM : 0;
}

int last_good_init(struct last_good *g, enum saved_kind kind, const char *file, const char *namespace_key,
		   const char *environment)
{
	*g = (struct last_good){.kind = kind, .source = "", .text = BUF_INIT(FLAG_MAX_DOCUMENT)};
	if (last_good_copy(file, &g->file) < 0 || last_good_copy(namespace_key, &g->namespace_key) < 0 ||
	    last_good_copy(environment, &g->environment) < 0)
		return -ENOMEM;
	return 0;
}

static void last_good_forget_used(struct last_good *g)
{
	for (size_t i = 0; i < g->n_used; i++)
		free(g->used[i]);
	free(g->used);
	g->used = NULL;
	g->n_used = 0;
}

void last_good_release(struct last_good *g)
{
	loop_timer_free(g->again);
	flag_snapshot_unref(g->snapshot);
	buf_release(&g->text);
	last_good_forget_used(g);
	free(g->file);
	free(g->namespace_key);
	free(g->environment);
	*g = (struct last_good){.source = ""};
}

int last_good_use(struct last_good *g, const struct span *keys, size_t n)
{
	char **copies = calloc(n ? n : 1, sizeof(*copies));
	if (!copies)
		return -ENOMEM;
	last_good_forget_used(g);
	g->used = copies;
	for (size_t i = 0; i < n; i++) {
		copies[i] = span_dup(keys[i]);
		if (!copies[i])
			return -ENOMEM;
		g->n_used++;
	}
	return 0;
}

/* --- carrying over -------------------------------------------------------------------------------------- */

bool last_good_lacks(const struct last_good *g, const struct flag_snapshot *new)
{
	for (size_t i = 0; i < g->n_used && g->snapshot; i++)
		if (flag_find(g->snapshot, span_of(g->used[i])) && !flag_find(new, span_of(g->used[i])))
			return true;
	return false;
}

bool last_good_breaks(const struct last_good *g, const struct flag_snapshot *new)
{
	for (size_t i = 0; i < g->n_used && g->snapshot; i++) {
		const struct flag *was = flag_find(g->snapshot, span_of(g->used[i])),
				  *is = flag_find(new, span_of(g->used[i]));
		if (was && is && !flag_broken(was) && flag_broken(is))
			return true;
	}
	return false;
}

/* Reads a large text several times: only where something was lost. */
static int last_good_carry(struct last_good *g, const struct flag_snapshot *new, struct span text,
			   struct buf *whole, struct flag_snapshot **ret, struct err *e)
{
	int r = carry_flags(text, g->snapshot ? buf_span(&g->text) : SPAN_NONE, (const char *const *)g->used,
			    g->n_used, whole, &g->next);
	if (r < 0)
		return err_set(e, r, "the snapshot is not valid JSON, or is too large");
	r = flag_snapshot_parse_json("snapshot", buf_span(whole), flag_snapshot_rules(new), ret, e);
	if (r == 0)
		flag_snapshot_set_digest(*ret, flag_snapshot_digest(new));
	return r;
}

int last_good_complete(struct last_good *g, struct flag_snapshot *new, struct span text, struct buf *whole,
		       struct flag_snapshot **ret, struct err *e)
{
	if (last_good_lacks(g, new)) {
		int r = last_good_carry(g, new, text, whole, ret, e);
		flag_snapshot_unref(new);
		return r;
	}
	g->next = (struct flag_carried){.n = 0};
	if (buf_append_span(whole, text) < 0) {
		flag_snapshot_unref(new);
		return err_set(e, whole->error, "the snapshot is too large");
	}
	*ret = new;
	return 0;
}

/* Once for each set of them, not with each change of another flag. */
static void last_good_tell(struct last_good *g)
{
	CLEANUP(buf_releasep) struct buf names = BUF_INIT(4096);
	char now[sizeof(g->told)] = "";
	for (size_t i = 0; i < g->carried.n && i < FLAG_CARRIED_NAMED; i++)
		buf_printf(&names, "%s%s", i ? ", " : "", g->carried.names[i]);
	span_copy(buf_span(&names), now, sizeof(now));
	if (strcmp(now, g->told) == 0)
		return;
	memcpy(g->told, now, sizeof(now));
	if (g->carried.n)
		log_warn("flags_vanished", LOG_STR("source", g->source), LOG_INT("count", g->carried.n),
			 LOG_STR("first", g->carried.names[0]), LOG_STR("flags", now),
			 LOG_STR("kept", "their last good definition stays in use"));
	else
		log_info("flags_back", LOG_STR("source", g->source));
}

void last_good_take(struct last_good *g, struct flag_snapshot *snapshot, struct buf *text)
{
	flag_snapshot_unref(g->snapshot);
	g->snapshot = snapshot;
	buf_release(&g->text);
	g->text = *text;
	*text = BUF_INIT(text->max);
	g->carried = g->next;
	last_good_tell(g);
}

void last_good_carried(const struct last_good *g, struct flag_carried *ret)
{
	*ret = (struct flag_carried){.n = 0};
	for (size_t i = 0; i < g->carried.n && i < FLAG_CARRIED_NAMED; i++)
		for (size_t j = 0; j < g->n_used; j++)
			if (strncmp(g->used[j], g->carried.names[i], sizeof(g->carried.names[i]) - 1) == 0) {
				memcpy(ret->names[ret->n++], g->carried.names[i],
				       sizeof(g->carried.names[i]));
				break;
			}
	if (g->carried.n > FLAG_CARRIED_NAMED)
		ret->n = g->carried.n;
}

/* --- disk ----------------------------------------------------------------------------------------------- */

static void last_good_write(struct last_good *g)
{
	struct saved_snapshot saved = {.kind = g->kind,
				       .rules = flag_snapshot_rules(g->snapshot),
				       .namespace_key = g->namespace_key,
				       .environment = g->environment,
				       .digest = g->digest,
				       .text = buf_span(&g->text)};
	struct err e;
	if (g->file && saved_snapshot_write(g->file, &saved, &e) < 0) {
		if (!g->unsaved)
			log_warn("flags_not_saved", LOG_STR("error", e.text),
				 LOG_STR("effect", "a restart would start with older flags"));
		g->unsaved = true;
		if (g->again)
			loop_timer_start(g->again, SAVE_AGAIN_MS);
		return;
	}
	if (g->unsaved)
		log_info("flags_saved", LOG_STR("file", g->file));
	g->unsaved = false;
}

/* A disk that was full for a minute must not cost a rollback at the next restart, however long nothing else
 * changes. */
static void last_good_on_again(void *arg)
{
	struct last_good *g = arg;
	if (g->unsaved && g->snapshot)
		last_good_write(g);
}

void last_good_save(struct last_good *g, const char *digest)
{
	span_copy(span_of(digest), g->digest, sizeof(g->digest));
	if (!g->again && g->loop)
		loop_timer_new(g->loop, last_good_on_again, g, &g->again); /* without memory for it: once */
	last_good_write(g);
}

int last_good_load(struct last_good *g, int64_t *ret_saved_us, struct err *e)
{
	CLEANUP(buf_releasep) struct buf file = BUF_INIT(FLAG_MAX_DOCUMENT + 65536);
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(FLAG_MAX_DOCUMENT);
	struct flag_snapshot *snapshot = NULL;
	struct saved_from from = {
		.kind = g->kind, .namespace_key = g->namespace_key, .environment = g->environment};
	struct span inner;
	if (!g->file)
		return err_set(e, -ENOENT, "no file holds the last good flags");
	int r = saved_snapshot_read(g->file, &from, &file, &inner, &snapshot, ret_saved_us, e);
	if (r == 0 && buf_append_span(&text, inner) < 0)
		r = err_set(e, -ENOMEM, "out of memory");
	if (r == 0)
		last_good_take(g, snapshot, &text);
	else
		flag_snapshot_unref(snapshot);
	return r;
}

int last_good_begin(struct last_good *g, int64_t *ret_saved_us)
{
	struct err e;
	if (g->file)
		file_remove_leftovers(g->file);
	int r = last_good_load(g, ret_saved_us, &e);
	if (r == 0)
		log_info("flags_from_disk", LOG_STR("file", g->file),
			 LOG_STR("digest", flag_snapshot_digest(g->snapshot)));
	else if (r != -ENOENT)
		log_warn("flags_saved_snapshot_unusable", LOG_STR("error", e.text));
	return r;
}
