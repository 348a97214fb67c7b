#include "move/place.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/crypto.h"
#include "base/file.h"
#include "base/http_client.h"
#include "flags/print.h"
#include "move/flipt.h"

#define TICK_MS 100
#define LOCK_MS 60000

/* --- the features file ---------------------------------------------------------------------------------- */

static int read_file(struct rollout_place *p, struct err *e)
{
	char digest[CRYPTO_SHA256_HEX];
	features_release(&p->files);
	int r = features_read(p->config->flags.file, place_rules(p), &p->files, e);
	if (r == 0)
		r = buf_append_span(&p->flags, buf_span(&p->files.whole));
	if (r < 0)
		return r;
	crypto_sha256_hex(buf_span(&p->flags), digest); /* as flags.h gives it to a snapshot of this text */
	span_copy(span_of(digest), p->digest, sizeof(p->digest));
	memcpy(p->content, p->digest, sizeof(p->content));
	return 0;
}

/* Of a folder: the one file that contains the flag. */
static int find_file(const struct rollout_place *p, const char *flag, size_t *ret, struct err *e)
{
	size_t found = 0;
	for (size_t i = 0; i < p->files.n; i++) {
		const struct flag_text *file = &p->files.files[i];
		struct flag_snapshot *s = NULL;
		if (file->error ||
		    flag_snapshot_parse_namespace(file->name, file->text, p->config->flags.namespace_key,
						  place_rules(p), &s, NULL) < 0)
			continue;
		bool here = flag_find(s, span_of(flag)) != NULL;
		flag_snapshot_unref(s);
		if (here && found++)
			return err_set(e, -EINVAL, "flag \"%.80s\" is in both %s and %s: remove one of them",
				       flag, p->files.files[*ret].name, file->name);
		if (here)
			*ret = i;
	}
	return found ? 0
		     : err_set(e, -ENOENT, "no file in %s has the flag \"%.80s\"", p->config->flags.file,
			       flag);
}

static const char *file_name(const struct rollout_place *p)
{
	return p->files.folder ? p->files.files[p->file].name : p->config->flags.file;
}

/* A folder as read, or with `text` in place of the chosen file's. */
static int parse_folder(const struct rollout_place *p, struct span text, struct flag_snapshot **ret,
			struct err *e)
{
	bool as_read = text.ptr == p->flags.ptr;
	struct features_text with = p->files;
	with.files = calloc(p->files.n + 1, sizeof(*with.files));
	if (!with.files)
		return err_set(e, -ENOMEM, "out of memory");
	memcpy(with.files, p->files.files, p->files.n * sizeof(*with.files));
	if (!as_read)
		with.files[p->file].text = text;
	int r = features_parse(p->config->flags.file, &with, p->config->flags.namespace_key, place_rules(p),
			       ret, e);
	free(with.files);
	return r;
}

/* Whether the file still holds what was read. Between this and the rename an editor could slip in; another
 * migration-rollout cannot, since it waits for the lock. */
static int unchanged(const struct rollout_place *p, const char *target, struct err *e)
{
	CLEANUP(buf_releasep) struct buf now = BUF_INIT(FLAG_MAX_DOCUMENT + 65536);
	int r = file_read(target, FLAG_MAX_DOCUMENT, &now, e);
	return r < 0 ? r : span_eq(buf_span(&now), buf_span(&p->document));
}

/* Someone else's lock is waited for as long as for an answer of Flipt, and not by a program that ends. */
static int lock_file(const struct rollout_place *p, int fd)
{
	const unsigned whole_ms = p->timeout_ms ? p->timeout_ms : LOCK_MS;
	unsigned left_ms = whole_ms;
	while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			return -errno;
		if (left_ms == whole_ms)
			place_say(p, MOVE_WARNS, "%s is locked by another program (flock): waiting.\n",
				  p->name);
		if (left_ms < TICK_MS)
			return -EBUSY;
		if (!place_pause(p, TICK_MS))
			return -ECANCELED;
		left_ms -= TICK_MS;
	}
	return 0;
}

static const char *lock_trouble(int r)
{
	if (r == -EBUSY)
		return "another program has locked it (flock)";
	return r == -ECANCELED ? "locked by another program; gave up, since this one is ending"
			       : strerror(-r);
}

static enum place_written write_file(struct rollout_place *p, struct span text, struct err *e)
{
	CLEANUP(freep) char *target = realpath(file_name(p), NULL); /* a symbolic link stays one */
	CLEANUP(closep) int fd = target ? open(target, O_RDWR | O_CLOEXEC) : -1;
	struct stat st;
	int r = fd < 0 || fstat(fd, &st) < 0 ? -errno : lock_file(p, fd);
	if (r < 0) {
		err_set(e, r, "%s: %s", target ? target : file_name(p), lock_trouble(r));
		return PLACE_NOT_WRITTEN;
	}
	r = unchanged(p, target, e);
	if (r == 0)
		return PLACE_CHANGED_MEANWHILE;
	if (r == 1)
		r = file_replace_as(target, text, &st, e);
	if (r == -EPERM)
		err_set(e, r,
			"%s: belongs to user %u and group %u, which this user cannot preserve: run this as "
			"that "
			"user or as root",
			target, st.st_uid, st.st_gid);
	return r < 0 ? PLACE_NOT_WRITTEN : PLACE_WRITTEN;
}

/* --- either --------------------------------------------------------------------------------------------- */

static void name_place(struct rollout_place *p)
{
	const struct config *c = p->config;
	if (!p->flipt) {
		CLEANUP(freep) char *whole = realpath(c->flags.file, NULL);
		snprintf(p->name, sizeof(p->name), "%s", whole ? whole : c->flags.file);
		return;
	}
	/* Without user info: text before an '@' may be a password. */
	const char *at = strrchr(c->flags.url, '@'), *slashes = strstr(c->flags.url, "://");
	snprintf(p->name, sizeof(p->name), "%.*s%s, environment %s, namespace %s",
		 at && slashes ? (int)(slashes + 3 - c->flags.url) : 0, c->flags.url,
		 at && slashes ? at + 1 : c->flags.url, c->flags.environment, c->flags.namespace_key);
}

static void on_tick(void *arg)
{
	struct rollout_place *p = arg;
	p->gave_up = place_stopped(p);
	if (p->gave_up)
		loop_stop(p->loop);
	else
		loop_timer_start(p->tick, TICK_MS);
}

static void say_slow(void *arg)
{
	const struct rollout_place *p = arg;
	place_say(p, MOVE_WARNS, "still waiting for an answer from %s\n", p->name);
}

int place_open(const struct config *c, const struct place_options *options, struct rollout_place **ret,
	       struct err *e)
{
	struct http_client_options o = {.ca_file = c->flags.ca_file};
	CLEANUP(place_closep) struct rollout_place *p = calloc(1, sizeof(*p));
	if (!p)
		return err_set(e, -ENOMEM, "out of memory");
	p->config = c;
	if (options) {
		p->voice = options->voice;
		p->timeout_ms = options->timeout_ms;
	}
	p->flipt = c->flags.kind == FLAG_SOURCE_FLIPT;
	p->document = BUF_INIT(FLAG_MAX_DOCUMENT + 65536);
	p->flags = BUF_INIT(FLAG_MAX_DOCUMENT + 65536);
	p->revision = BUF_INIT(4096);
	p->segments = BUF_INIT(FLAG_MAX_DOCUMENT);
	name_place(p);
	if (flipt_credential_init(&p->credential, c->flags.auth, c->flags.token, c->flags.token_file) < 0)
		return err_set(e, -ENOMEM, "out of memory");
	int r = loop_new(&p->loop);
	if (r == 0)
		r = loop_timer_new(p->loop, say_slow, p, &p->slow);
	if (r == 0)
		r = loop_timer_new(p->loop, on_tick, p, &p->tick);
	if (r < 0)
		return err_set(e, r, "event loop: %s", strerror(-r));
	r = http_client_new(p->loop, &o, &p->http, e);
	if (r == 0)
		*ret = steal(p);
	return r;
}

struct rollout_place *place_close(struct rollout_place *p)
{
	if (!p)
		return NULL;
	http_client_free(p->http);
	loop_timer_free(p->slow);
	loop_timer_free(p->tick);
	loop_free(p->loop);
	features_release(&p->files);
	buf_release(&p->document);
	buf_release(&p->revision);
	buf_release(&p->segments);
	buf_release(&p->flags);
	flipt_credential_release(&p->credential);
	free(p);
	return NULL;
}

/* A digest of Flipt's may stand for several states. */
static void take_content(struct rollout_place *p)
{
	struct flag_snapshot *s = NULL;
	char content[CRYPTO_SHA256_HEX] = "";
	if (place_parse(p, buf_span(&p->flags), &s, NULL) == 0)
		flag_snapshot_content(s, content);
	flag_snapshot_unref(s);
	span_copy(span_of(content), p->content, sizeof(p->content));
}

int place_read(struct rollout_place *p, struct err *e)
{
	buf_clear(&p->flags);
	int r = p->flipt ? flipt_read_snapshot(p, e) : read_file(p, e);
	if (r == 0 && p->flipt)
		take_content(p);
	return r == -ENOENT ? -EIO : r; /* the place is gone: that says nothing of a flag */
}

int place_open_flag(const struct rollout_place *p, const char *flag, const struct rollout_sides *sides,
		    struct rollout_document **ret, struct err *e)
{
	size_t at = 0;
	if (p->flipt || !p->files.folder)
		return rollout_open(place_document_name(p), buf_span(&p->flags), flag, sides, ret, e);
	int r = find_file(p, flag, &at, e);
	return r < 0 ? r
		     : rollout_open(p->files.files[at].name, p->files.files[at].text, flag, sides, ret, e);
}

int place_read_document(struct rollout_place *p, const char *flag, struct err *e)
{
	buf_clear(&p->document);
	if (!p->flipt && p->files.folder) {
		int r = find_file(p, flag, &p->file, e);
		return r < 0 ? r : buf_append_span(&p->document, p->files.files[p->file].text);
	}
	if (!p->flipt)
		return buf_append_span(&p->document, buf_span(&p->flags));
	return p->version == 2 ? flipt_read_v2(p, flag, e) : flipt_read_v1(p, flag, e);
}

int place_parse(const struct rollout_place *p, struct span text, struct flag_snapshot **ret, struct err *e)
{
	enum flag_rules rules = place_rules(p);
	if (!p->flipt && p->files.folder)
		return parse_folder(p, text, ret, e);
	return p->flipt ? flag_snapshot_parse_json("snapshot", text, rules, ret, e)
			: flag_snapshot_parse_namespace(p->config->flags.file, text,
							p->config->flags.namespace_key, rules, ret, e);
}

const char *place_document_name(const struct rollout_place *p)
{
	return p->flipt ? "Flipt" : file_name(p);
}

enum place_written place_write(struct rollout_place *p, const char *flag, const struct rollout_plan *plan,
			       struct span text, size_t *ret_done, struct err *e)
{
	*ret_done = 0;
	if (!p->flipt)
		return write_file(p, text, e);
	return p->version == 2 ? flipt_write_v2(p, flag, text, e)
			       : flipt_write_v1(p, flag, plan, ret_done, e);
}
