#include "outcomes/events.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/db.h"
#include "base/json.h"
#include "base/text.h"
#include "outcomes/outcome_store.h"

#define BUSY_MS 2000
#define MASKED_MAX 4096

static const char events_schema[] =
	"CREATE TABLE IF NOT EXISTS events (id INTEGER PRIMARY KEY, time_us INTEGER NOT NULL, kind TEXT NOT "
	"NULL, service TEXT NOT NULL, operation TEXT NOT NULL, backend TEXT NOT NULL, who TEXT NOT NULL, "
	"what TEXT NOT NULL, why TEXT NOT NULL, before_permyriad INTEGER, after_permyriad INTEGER);"
	"CREATE INDEX IF NOT EXISTS events_time ON events (time_us);";

static const char *const words[EVENT_KINDS] = {
	[EVENT_START] = "start",
	[EVENT_STOP] = "stop",
	[EVENT_RELOAD] = "reload",
	[EVENT_PERCENT] = "percent",
	[EVENT_FLAGS_FAILING] = "flags_failing",
	[EVENT_FLAGS_BACK] = "flags_back",
	[EVENT_BACKEND_GONE] = "backend_gone",
	[EVENT_BACKEND_BACK] = "backend_back",
	[EVENT_BREAKER_OPEN] = "breaker_open",
	[EVENT_BREAKER_CLOSED] = "breaker_closed",
	[EVENT_LEGACY_GONE] = "legacy_gone",
	[EVENT_LEGACY_BACK] = "legacy_back",
	[EVENT_GUARD_BREACH] = "guard_breach",
	[EVENT_GUARD_MISMATCH] = "guard_share_mismatch",
	[EVENT_GUARD_HELD] = "guard_held",
	[EVENT_GUARD_RELEASED] = "guard_released",
	[EVENT_GUARD_SAFE] = "guard_safe",
	[EVENT_STORE_FAILING] = "store_failing",
	[EVENT_STORE_BACK] = "store_back",
	[EVENT_MOVE] = "move",
	[EVENT_OTHER] = "other",
};

struct events {
	pthread_mutex_t lock; /* over the queue */
	struct event queue[EVENTS_QUEUED];
	size_t n;
	uint64_t dropped;
	/* the recorder's thread */
	struct db *db;
	struct db_stmt *add, *old;
	size_t written; /* of the queue, in the transaction that is open */
};

const char *event_kind_text(enum event_kind k)
{
	return (unsigned)k < EVENT_KINDS ? words[k] : words[EVENT_OTHER];
}

enum event_kind event_kind_parse(struct span text)
{
	for (int k = 0; k < EVENT_KINDS; k++)
		if (span_is(text, words[k]))
			return (enum event_kind)k;
	return EVENT_OTHER;
}

/* --- the queue ------------------------------------------------------------------------------------------ */

int events_new(struct events **ret)
{
	struct events *e = calloc(1, sizeof(*e));
	if (!e)
		return -ENOMEM;
	pthread_mutex_init(&e->lock, NULL);
	*ret = e;
	return 0;
}

static void events_close(struct events *e)
{
	e->add = db_stmt_free(e->add);
	e->old = db_stmt_free(e->old);
	e->db = NULL;
	e->written = 0;
}

struct events *events_free(struct events *e)
{
	if (!e)
		return NULL;
	events_close(e);
	pthread_mutex_destroy(&e->lock);
	free(e);
	return NULL;
}

/* Others' sentences may repeat what a backend or a server said. */
static void events_mask(char *text, size_t size)
{
	CLEANUP(buf_releasep) struct buf masked = BUF_INIT(MASKED_MAX);
	if (text_put_masked(&masked, span_of(text)) < 0)
		text[0] = '\0';
	else
		text_copy(buf_span(&masked), text, size);
}

void events_add(struct events *e, const struct event *of)
{
	struct event one = *of;
	if (!one.time_us)
		one.time_us = clock_wall_us();
	events_mask(one.who, sizeof(one.who));
	events_mask(one.what, sizeof(one.what));
	events_mask(one.why, sizeof(one.why));
	pthread_mutex_lock(&e->lock);
	if (e->n < EVENTS_QUEUED)
		e->queue[e->n++] = one;
	else
		e->dropped++;
	pthread_mutex_unlock(&e->lock);
}

uint64_t events_dropped(struct events *e)
{
	pthread_mutex_lock(&e->lock);
	uint64_t n = e->dropped;
	pthread_mutex_unlock(&e->lock);
	return n;
}

/* --- the recorder's tap --------------------------------------------------------------------------------- */

static int events_opened(void *arg, struct db *db, struct err *err)
{
	struct events *e = arg;
	e->db = db;
	int r = db_exec(db, events_schema, err);
	if (r == 0)
		r = db_prepare(db,
			       "INSERT INTO events (time_us, kind, service, operation, backend, who, what, "
			       "why, before_permyriad, after_permyriad) VALUES (?,?,?,?,?,?,?,?,?,?)",
			       &e->add, err);
	if (r == 0)
		r = db_prepare(db, "DELETE FROM events WHERE id <= (SELECT max(id) FROM events) - ?", &e->old,
			       err);
	return r;
}

static void events_closed(void *arg)
{
	events_close(arg);
}

static bool events_due(void *arg)
{
	struct events *e = arg;
	pthread_mutex_lock(&e->lock);
	bool due = e->n > 0;
	pthread_mutex_unlock(&e->lock);
	return due;
}

static void bind_percent(struct db_stmt *q, int i, double percent)
{
	if (percent < 0)
		db_bind_null(q, i);
	else
		db_bind_int64(q, i, llround(percent * 100));
}

static int write_event(struct events *e, const struct event *of, struct err *err)
{
	const char *const texts[] = {event_kind_text(of->kind),
				     of->service,
				     of->operation,
				     of->backend,
				     of->who,
				     of->what,
				     of->why};
	db_bind_int64(e->add, 1, of->time_us);
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		db_bind_text(e->add, (int)i + 2, span_of(texts[i]));
	bind_percent(e->add, 9, of->before);
	bind_percent(e->add, 10, of->after);
	return db_run(e->add, err);
}

static int events_write(void *arg, const struct recorder_batch *b, struct err *err)
{
	struct events *e = arg;
	int r = 0;
	(void)b;
	pthread_mutex_lock(&e->lock); /* events are few, and nobody who adds one is a request */
	e->written = 0;
	for (size_t i = 0; i < e->n && r == 0; i++) {
		r = write_event(e, &e->queue[i], err);
		e->written += r == 0;
	}
	bool any = e->n > 0;
	pthread_mutex_unlock(&e->lock);
	if (r < 0 || !any)
		return r;
	db_bind_int64(e->old, 1, EVENTS_KEPT);
	return db_run(e->old, err);
}

static void events_ended(void *arg, bool committed, const char *error)
{
	struct events *e = arg;
	pthread_mutex_lock(&e->lock);
	if (committed && !error && e->written) {
		memmove(e->queue, e->queue + e->written, (e->n - e->written) * sizeof(e->queue[0]));
		e->n -= e->written;
	}
	e->written = 0;
	pthread_mutex_unlock(&e->lock);
}

void events_tap(struct events *e, struct recorder_tap *ret)
{
	*ret = (struct recorder_tap){.arg = e,
				     .opened = events_opened,
				     .closed = events_closed,
				     .due = events_due,
				     .write = events_write,
				     .ended = events_ended};
}

/* --- reading -------------------------------------------------------------------------------------------- */

struct event_list *event_list_free(struct event_list *l)
{
	free(l);
	return NULL;
}

static double column_percent(struct db_stmt *q, int i)
{
	return db_column_is_null(q, i) ? EVENT_NO_PERCENT : (double)db_column_int64(q, i) / 100;
}

static void read_event(struct db_stmt *q, struct event *ret)
{
	*ret = (struct event){.id = db_column_int64(q, 0),
			      .time_us = db_column_int64(q, 1),
			      .kind = event_kind_parse(db_column_text(q, 2)),
			      .before = column_percent(q, 9),
			      .after = column_percent(q, 10)};
	text_copy(db_column_text(q, 3), ret->service, sizeof(ret->service));
	text_copy(db_column_text(q, 4), ret->operation, sizeof(ret->operation));
	text_copy(db_column_text(q, 5), ret->backend, sizeof(ret->backend));
	text_copy(db_column_text(q, 6), ret->who, sizeof(ret->who));
	text_copy(db_column_text(q, 7), ret->what, sizeof(ret->what));
	text_copy(db_column_text(q, 8), ret->why, sizeof(ret->why));
}

/* The newest first, as they are asked for; then turned around. */
static int read_list(struct db *db, const struct event_filter *f, size_t max, struct event_list *l,
		     struct err *e)
{
	CLEANUP(db_stmt_freep) struct db_stmt *q = NULL;
	int r = db_prepare(db,
			   "SELECT id, time_us, kind, service, operation, backend, who, what, why, "
			   "before_permyriad, after_permyriad FROM events WHERE time_us >= ?1 AND time_us < "
			   "?2 AND (?3 IS NULL OR service IN ('', ?3)) AND (?4 IS NULL OR operation IN ('', "
			   "?4)) ORDER BY time_us DESC, id DESC LIMIT ?5",
			   &q, e);
	if (r < 0)
		return r;
	db_bind_int64(q, 1, f->since_us);
	db_bind_int64(q, 2, f->until_us ? f->until_us : INT64_MAX);
	db_bind_text(q, 3, f->service ? span_of(f->service) : SPAN_NONE);
	db_bind_text(q, 4, f->operation ? span_of(f->operation) : SPAN_NONE);
	db_bind_int64(q, 5, (int64_t)max + 1);
	while ((r = db_step(q, e)) > 0) {
		l->more = l->n == max;
		if (!l->more)
			read_event(q, &l->events[l->n++]);
	}
	for (size_t i = 0; r == 0 && i < l->n / 2; i++) {
		struct event swapped = l->events[i];
		l->events[i] = l->events[l->n - 1 - i];
		l->events[l->n - 1 - i] = swapped;
	}
	return r;
}

int events_read(const char *path, const struct event_filter *f, struct event_list **ret, struct err *e)
{
	size_t max = f->max && f->max < EVENTS_READ_MAX ? f->max : EVENTS_READ_MAX;
	struct db_options o = {.path = path,
			       .read_only = true,
			       .busy_timeout_ms = BUSY_MS,
			       .application_id = OUTCOME_STORE_APPLICATION};
	CLEANUP(event_list_freep) struct event_list *l = calloc(1, sizeof(*l) + max * sizeof(l->events[0]));
	CLEANUP(db_closep) struct db *db = NULL;
	int64_t there = 0;
	if (!l)
		return err_set(e, -ENOMEM, "out of memory");
	int r = db_open(&o, &db, e);
	if (r == 0)
		r = db_query_int64(db, "SELECT count(*) FROM sqlite_master WHERE name = 'events'", &there, e);
	if (r == 0 && there)
		r = read_list(db, f, max, l, e);
	if (r < 0)
		return r;
	*ret = steal(l);
	return 0;
}

/* --- words ---------------------------------------------------------------------------------------------- */

static void put_event_percent(struct buf *out, const char *name, double percent)
{
	if (percent < 0)
		buf_printf(out, ",\"%s\":null", name);
	else
		buf_printf(out, ",\"%s\":%g", name, percent);
}

int event_to_json(const struct event *of, struct buf *out)
{
	char time[CLOCK_TEXT_MAX];
	const struct {
		const char *name, *text;
	} all[] = {{"kind", event_kind_text(of->kind)},
		   {"service", of->service},
		   {"operation", of->operation},
		   {"backend", of->backend},
		   {"who", of->who},
		   {"what", of->what},
		   {"why", of->why}};
	clock_format(of->time_us, time);
	buf_printf(out, "{\"id\":%lld,\"time\":\"%s\"", (long long)of->id, time);
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		buf_printf(out, ",\"%s\":", all[i].name);
		json_quote(out, span_of(all[i].text));
	}
	put_event_percent(out, "before", of->before);
	put_event_percent(out, "after", of->after);
	buf_putc(out, '}');
	return out->error;
}
