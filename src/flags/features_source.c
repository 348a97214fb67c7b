#include "flags/features_source.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/file.h"

/* IN_CLOSE_WRITE and not IN_MODIFY: a file is read when its writer is done. One that is never closed is for the poll. */
#define WATCHED                                                                                              \
	(IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_CREATE | IN_DELETE | IN_ATTRIB | IN_MOVE_SELF |   \
	 IN_DELETE_SELF)

/* Tells one state of the file from another without reading it; follows symbolic links. */
struct signature {
	int error; /* of stat, or 0 */
	dev_t device;
	ino_t inode;
	off_t size;
	struct timespec modified, changed;
};

struct features_source {
	struct loop *loop;
	char path[PATH_MAX], folder[PATH_MAX];
	const char *name; /* the last part of path */
	enum flag_rules rules;
	struct flag_source_events events;
	int inotify, wd; /* -1: none */
	struct loop_watch *watch;
	struct loop_timer *timer;
	struct signature seen; /* taken before the newest read */
	struct flag_source_status status;
};

/* --- reading ------------------------------------------------------------------------------------------------------- */
static struct signature look(const char *path)
{
	struct stat st;
	struct signature g = {.error = 0};
	if (stat(path, &st) < 0) {
		g.error = errno;
		return g;
	}
	g.device = st.st_dev;
	g.inode = st.st_ino;
	g.size = st.st_size;
	g.modified = st.st_mtim;
	g.changed = st.st_ctim;
	return g;
}

static bool same_time(struct timespec a, struct timespec b)
{
	return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

static bool same_signature(const struct signature *a, const struct signature *b)
{
	return a->error == b->error && a->device == b->device && a->inode == b->inode && a->size == b->size &&
	       same_time(a->modified, b->modified) && same_time(a->changed, b->changed);
}

static void note_failure(struct features_source *s, const char *why)
{
	bool known = s->status.failing && strcmp(s->status.last_error, why) == 0;
	s->status.failing = true;
	span_copy(span_of(why), s->status.last_error, sizeof(s->status.last_error));
	if (!known && s->events.failed)
		s->events.failed(s->events.arg, why);
}

static void note_success(struct features_source *s, const struct flag_snapshot *snapshot)
{
	s->status.failing = false;
	s->status.last_error[0] = '\0';
	s->status.good_us = flag_snapshot_loaded_us(snapshot);
	bool is_new = strcmp(s->status.digest, flag_snapshot_digest(snapshot)) != 0;
	span_copy(span_of(flag_snapshot_digest(snapshot)), s->status.digest, sizeof(s->status.digest));
	if (is_new)
		s->events.publish(s->events.arg, snapshot);
}

static void read_now(struct features_source *s)
{
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(FLAG_MAX_DOCUMENT);
	struct flag_snapshot *snapshot = NULL;
	struct err e;
	s->seen = look(s->path);
	int r = file_read(s->path, FLAG_MAX_DOCUMENT, &text, &e);
	if (r == 0)
		r = flag_snapshot_parse_features(s->path, buf_span(&text), s->rules, &snapshot, &e);
	if (r < 0)
		note_failure(s, e.text);
	else
		note_success(s, snapshot);
	flag_snapshot_unref(snapshot);
}

static void read_if_changed(struct features_source *s)
{
	struct signature now = look(s->path);
	if (!same_signature(&now, &s->seen))
		read_now(s);
}

/* --- watching ------------------------------------------------------------------------------------------------------ */
/* A new regular file is empty until its writer is done, of which another event tells; a link is complete at once. */
static bool is_unfinished(const struct features_source *s)
{
	struct stat st;
	return lstat(s->path, &st) == 0 && S_ISREG(st.st_mode) && st.st_size == 0;
}

/* Our own name: the content may have changed even where the signature has not (two writes within a clock tick). Any
 * other name: what the path leads through may have changed (`..data` of a ConfigMap), which the signature shows. */
static bool concerns_us(const struct features_source *s, const struct inotify_event *event)
{
	if (event->len == 0 || strcmp(event->name, s->name) != 0)
		return false;
	return !(event->mask & IN_CREATE) || !is_unfinished(s);
}

static void on_inotify(void *arg, unsigned events)
{
	struct features_source *s = arg;
	_Alignas(struct inotify_event) char bytes[16384];
	bool ours = false, any = false;
	ssize_t n;
	(void)events;
	while ((n = read(s->inotify, bytes, sizeof(bytes))) > 0) {
		for (ssize_t at = 0; at < n;) {
			const struct inotify_event *event = (const struct inotify_event *)(bytes + at);
			ours |= concerns_us(s, event);
			any = true;
			if ((event->mask & IN_IGNORED) && event->wd == s->wd)
				s->wd = -1; /* the folder is gone; the poll looks for it again */
			at += (ssize_t)(sizeof(*event) + event->len);
		}
	}
	if (ours)
		read_now(s);
	else if (any)
		read_if_changed(s);
}

/* Watches the folder that the path names now; it may be another than before, or none. */
static void watch_folder(struct features_source *s)
{
	if (s->inotify < 0)
		return;
	int wd = inotify_add_watch(s->inotify, s->folder, WATCHED | IN_ONLYDIR);
	if (wd == s->wd)
		return;
	if (s->wd >= 0)
		inotify_rm_watch(s->inotify, s->wd);
	s->wd = wd;
}

static void on_poll(void *arg)
{
	struct features_source *s = arg;
	watch_folder(s);
	read_if_changed(s);
	loop_timer_start(s->timer, FEATURES_POLL_MS);
}

/* --- life ---------------------------------------------------------------------------------------------------------- */
static int set_paths(struct features_source *s, const char *path)
{
	size_t n = strlen(path);
	if (n == 0)
		return -EINVAL;
	if (n >= sizeof(s->path))
		return -ENAMETOOLONG;
	memcpy(s->path, path, n + 1);
	const char *slash = strrchr(s->path, '/');
	s->name = slash ? slash + 1 : s->path;
	if (!slash)
		strcpy(s->folder, ".");
	else if (slash == s->path)
		strcpy(s->folder, "/");
	else
		span_copy((struct span){s->path, (size_t)(slash - s->path)}, s->folder, sizeof(s->folder));
	s->status.kind = "file";
	span_copy(span_of(path), s->status.where, sizeof(s->status.where));
	return 0;
}

static int start_watching(struct features_source *s)
{
	s->inotify = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	if (s->inotify >= 0) {
		int r = loop_watch_new(s->loop, s->inotify, LOOP_READ, on_inotify, s, &s->watch);
		if (r < 0)
			return r;
		watch_folder(s); /* before the first read, so that no change falls between */
	}
	return loop_timer_new(s->loop, on_poll, s, &s->timer);
}

int features_source_start(struct loop *loop, const char *path, enum flag_rules rules,
			  const struct flag_source_events *events, struct features_source **ret,
			  struct err *e)
{
	struct features_source *s = calloc(1, sizeof(*s));
	if (!s)
		return err_set(e, -ENOMEM, "out of memory");
	s->loop = loop;
	s->rules = rules;
	s->events = *events;
	s->inotify = s->wd = -1;
	int r = set_paths(s, path);
	if (r == 0)
		r = start_watching(s);
	if (r < 0) {
		features_source_stop(s);
		return err_set(e, r, "%s: cannot be watched: %s", path, strerror(-r));
	}
	read_now(s);
	loop_timer_start(s->timer, FEATURES_POLL_MS);
	*ret = s;
	return 0;
}

struct features_source *features_source_stop(struct features_source *s)
{
	if (!s)
		return NULL;
	loop_watch_free(s->watch);
	loop_timer_free(s->timer);
	if (s->inotify >= 0)
		close(s->inotify);
	free(s);
	return NULL;
}

void features_source_reload(struct features_source *s)
{
	watch_folder(s);
	read_now(s);
}

void features_source_status(const struct features_source *s, struct flag_source_status *ret)
{
	*ret = s->status;
}
