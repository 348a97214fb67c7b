#include "flags/source/features_source.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "flags/print.h"
#include "flags/source/features_folder.h"
#include "flags/source/last_good.h"

/* IN_CLOSE_WRITE and not IN_MODIFY: a file is read when its writer is done. One that is never closed is
 * for the poll. */
#define WATCHED \
	(IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_CREATE | IN_DELETE | IN_ATTRIB | IN_MOVE_SELF | \
	 IN_DELETE_SELF)

/* Tells one state of the file from another without reading it; follows symbolic links. */
struct signature {
	int error; /* of stat, or 0 */
	dev_t device;
	ino_t inode;
	off_t size;
	struct timespec modified, changed;
	uint64_t files; /* of a folder */
};

struct features_source {
	struct loop *loop;
	char path[PATH_MAX], folder[PATH_MAX];
	const char *name; /* the last part of path */
	char *namespace_key;
	enum flag_rules rules;
	struct flag_source_events events;
	int inotify, wd; /* -1: none */
	struct loop_watch *watch;
	struct loop_timer *timer, *quiet;
	struct signature seen;	 /* taken before the newest read */
	struct signature looked; /* when the quiet began */
	int64_t unrest_ms;	 /* monotonic: when the first change came that was not read yet; 0: none */
	bool patient;		 /* it looked unfinished and has been waited for */
	bool ended_in_newline;	 /* the last good text */
	struct last_good good;
	struct flag_source_status status;
};

/* --- reading -------------------------------------------------------------------------------------------- */
static struct signature look(const struct features_source *s)
{
	const char *path = s->path;
	struct stat st;
	struct signature g = {.error = 0};
	if (stat(path, &st) < 0) {
		g.error = errno;
		return g;
	}
	if (S_ISDIR(st.st_mode)) {
		g.files = features_folder_signature(path, s->rules);
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
	return a->error == b->error && a->files == b->files && a->device == b->device &&
	       a->inode == b->inode && a->size == b->size && same_time(a->modified, b->modified) &&
	       same_time(a->changed, b->changed);
}

static void note_failure(struct features_source *s, const char *why)
{
	bool known = s->status.failing && strcmp(s->status.last_error, why) == 0;
	s->status.failing = true;
	span_copy(span_of(why), s->status.last_error, sizeof(s->status.last_error));
	if (!known && s->events.failed)
		s->events.failed(s->events.arg, why);
}

static void publish_good(struct features_source *s, struct flag_snapshot *snapshot, struct buf *text)
{
	last_good_take(&s->good, snapshot, text);
	span_copy(span_of(flag_snapshot_digest(snapshot)), s->status.digest, sizeof(s->status.digest));
	s->events.publish(s->events.arg, snapshot);
	last_good_save(&s->good, s->status.digest);
}

static void note_success(struct features_source *s, struct flag_snapshot *snapshot, struct buf *text)
{
	/* With the same digest others may be carried over, since others are used. */
	bool is_new = !s->good.snapshot || strcmp(s->status.digest, flag_snapshot_digest(snapshot)) != 0 ||
		      flag_snapshot_count(snapshot) != flag_snapshot_count(s->good.snapshot);
	s->status.failing = false;
	s->status.last_error[0] = '\0';
	s->status.good_us = clock_wall_us();
	if (is_new)
		publish_good(s, snapshot, text);
	else
		flag_snapshot_unref(snapshot);
}

/* What the file says, with the used flags that it lost carried over. `whole` gets its JSON. */
static int complete_good(struct features_source *s, struct flag_snapshot *read, struct buf *whole,
			 struct flag_snapshot **ret, struct err *e)
{
	CLEANUP(buf_releasep) struct buf printed = BUF_INIT(FLAG_MAX_DOCUMENT);
	int r = flag_snapshot_print(read, &printed);
	if (r < 0) {
		flag_snapshot_unref(read);
		return err_set(e, r, "%s: too large", s->path);
	}
	return last_good_complete(&s->good, read, buf_span(&printed), whole, ret, e);
}

/* A file that is cut while it is written can be valid, up to an earlier flag: what was there and is not
 * any more tells. */
static bool looks_unfinished(const struct features_source *s, struct span text,
			     const struct flag_snapshot *read)
{
	if (!read || last_good_lacks(&s->good, read) || last_good_breaks(&s->good, read))
		return true;
	return s->ended_in_newline && (!text.len || text.ptr[text.len - 1] != '\n');
}

/* Takes what is there; `patient`: however unfinished it looks. */
static void read_now(struct features_source *s, bool patient)
{
	CLEANUP(features_release) struct features_text text = {.whole = BUF_INIT(0)};
	CLEANUP(buf_releasep) struct buf whole = BUF_INIT(FLAG_MAX_DOCUMENT);
	struct flag_snapshot *read = NULL, *snapshot = NULL;
	struct err e;
	s->seen = look(s);
	int r = features_read(s->path, s->rules, &text, &e);
	if (r == 0)
		r = features_parse(s->path, &text, s->namespace_key, s->rules, &read, &e);
	if (!patient && looks_unfinished(s, buf_span(&text.whole), r == 0 ? read : NULL)) {
		flag_snapshot_unref(read);
		s->patient = true;
		loop_timer_start(s->quiet, FEATURES_PATIENCE_MS);
		return;
	}
	s->patient = false;
	s->unrest_ms = 0;
	if (r == 0)
		r = complete_good(s, read, &whole, &snapshot, &e);
	if (r < 0) {
		note_failure(s, e.text);
		return;
	}
	s->ended_in_newline = text.whole.len && text.whole.ptr[text.whole.len - 1] == '\n';
	note_success(s, snapshot, &whole);
}

/* To be read once it has been as it is for `ms`. */
static void read_when_quiet(struct features_source *s, unsigned ms)
{
	s->looked = look(s);
	s->patient = false;
	if (!s->unrest_ms)
		s->unrest_ms = clock_mono_ms();
	loop_timer_start(s->quiet, ms);
}

static void on_quiet(void *arg)
{
	struct features_source *s = arg;
	struct signature now = look(s);
	char why[PATH_MAX + 128];
	if (same_signature(&now, &s->looked)) {
		read_now(s, s->patient);
		return;
	}
	if (clock_mono_ms() - s->unrest_ms > FEATURES_UNREST_MS) {
		snprintf(why, sizeof(why), "%s: keeps changing; it is read once it has settled", s->path);
		note_failure(s, why);
	}
	read_when_quiet(s, FEATURES_QUIET_MS);
}

static void read_if_changed(struct features_source *s, unsigned ms)
{
	struct signature now = look(s);
	if (same_signature(&now, &s->seen)) {
		if (!s->status.failing) /* what is in use is what the file says */
			s->status.good_us = clock_wall_us();
	} else if (!loop_timer_active(s->quiet)) {
		read_when_quiet(s, ms);
	}
}

/* --- watching ------------------------------------------------------------------------------------------- */
/* A new regular file is empty until its writer is done, of which another event tells; a link is complete
 * at once. */
static bool is_unfinished(const struct features_source *s)
{
	struct stat st;
	return lstat(s->path, &st) == 0 && S_ISREG(st.st_mode) && st.st_size == 0;
}

/* Our own name: the content may have changed even where the signature has not (two writes within a clock
 * tick). Any other name: what the path leads through may have changed (`..data` of a ConfigMap), which the
 * signature shows. */
static bool concerns_us(const struct features_source *s, const struct inotify_event *event)
{
	if (event->len == 0 || strcmp(event->name, s->name) != 0)
		return false;
	return !(event->mask & IN_CREATE) || !is_unfinished(s);
}

static void add_watch(void *arg, const char *folder)
{
	struct features_source *s = arg;
	inotify_add_watch(s->inotify, folder, WATCHED | IN_ONLYDIR);
}

/* Watches the folder that the path names now; it may be another than before, or none. */
static void watch_folder(struct features_source *s)
{
	if (s->inotify < 0)
		return;
	if (features_is_folder(s->path))
		features_each_folder(s->path, add_watch, s); /* what is gone takes its watch with it */
	int wd = inotify_add_watch(s->inotify, s->folder, WATCHED | IN_ONLYDIR);
	if (wd == s->wd)
		return;
	if (s->wd >= 0)
		inotify_rm_watch(s->inotify, s->wd);
	s->wd = wd;
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
	if (any && features_is_folder(s->path)) {
		watch_folder(s); /* it may have a new one below it */
		ours = true;
	}
	if (ours)
		read_when_quiet(s, FEATURES_QUIET_MS);
	else if (any)
		read_if_changed(s, FEATURES_QUIET_MS);
}

static void on_poll(void *arg)
{
	struct features_source *s = arg;
	watch_folder(s);
	/* No event of its being closed has come: its writer may still be at it. */
	read_if_changed(s, s->wd >= 0 ? FEATURES_PATIENCE_MS : FEATURES_QUIET_MS);
	loop_timer_start(s->timer, FEATURES_POLL_MS);
}

/* --- life ----------------------------------------------------------------------------------------------- */
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
	int r = loop_timer_new(s->loop, on_quiet, s, &s->quiet);
	if (r < 0)
		return r;
	s->inotify = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	if (s->inotify >= 0) {
		r = loop_watch_new(s->loop, s->inotify, LOOP_READ, on_inotify, s, &s->watch);
		if (r < 0)
			return r;
		watch_folder(s); /* before the first read, so that no change falls between */
	}
	return loop_timer_new(s->loop, on_poll, s, &s->timer);
}

/* The file, and where it cannot be used what it last said. */
static void first_read(struct features_source *s)
{
	int64_t saved_us = 0;
	bool saved = last_good_begin(&s->good, &saved_us) == 0;
	read_now(s, true);
	if (!saved || !s->status.failing)
		return;
	s->status.good_us = saved_us;
	span_copy(span_of(flag_snapshot_digest(s->good.snapshot)), s->status.digest,
		  sizeof(s->status.digest));
	s->events.publish(s->events.arg, s->good.snapshot);
}

int features_source_start(struct loop *loop, const struct flag_source_options *o, const struct span *used,
			  size_t n_used, const struct flag_source_events *events,
			  struct features_source **ret, struct err *e)
{
	struct features_source *s = calloc(1, sizeof(*s));
	if (!s)
		return err_set(e, -ENOMEM, "out of memory");
	s->loop = loop;
	s->rules = o->rules;
	s->namespace_key = o->namespace_key ? span_dup(span_of(o->namespace_key)) : NULL;
	s->events = *events;
	s->inotify = s->wd = -1;
	int r = set_paths(s, o->file);
	if (r == 0)
		r = last_good_init(&s->good, SAVED_FILE, o->snapshot_file, NULL, NULL);
	s->good.source = s->path;
	s->good.loop = loop;
	if (r == 0)
		r = last_good_use(&s->good, used, n_used);
	if (r == 0)
		r = start_watching(s);
	if (r < 0) {
		features_source_stop(s);
		return err_set(e, r, "%s: cannot be watched: %s", o->file, strerror(-r));
	}
	first_read(s);
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
	loop_timer_free(s->quiet);
	if (s->inotify >= 0)
		close(s->inotify);
	last_good_release(&s->good);
	free(s->namespace_key);
	free(s);
	return NULL;
}

void features_source_reload(struct features_source *s)
{
	watch_folder(s);
	read_when_quiet(s, FEATURES_QUIET_MS);
}

int features_source_use(struct features_source *s, const struct span *keys, size_t n)
{
	return last_good_use(&s->good, keys, n);
}

void features_source_status(const struct features_source *s, struct flag_source_status *ret)
{
	*ret = s->status;
	last_good_carried(&s->good, &ret->carried);
	ret->unsaved = s->good.unsaved;
}
