#include "outcomes/recorder.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "base/aging.h"
#include "base/buf.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/crypto.h"
#include "base/file.h"
#include "base/log.h"
#include "base/ring.h"
#include "outcomes/outcome_store.h"
#include "outcomes/series.h"

#define BATCH 8192	      /* outcomes of one transaction at most */
#define DROP_MINUTES 64	      /* minutes whose drops wait to be written; later ones are added to the last */
#define RETRY_MS 250	      /* between attempts at a file that fails */
#define RETAIN_MS 1000	      /* between looks at age and size */
#define STOP_PATIENCE_MS 5000 /* for a file that fails while stopping */
#define KEY_BYTES_MAX 256
#define DAY_US 86400000000LL

struct recorder_producer {
	struct ring *ring;
	struct recorder *recorder;
	uint64_t drops_seen; /* the recorder's thread */
	struct recorder_producer *next;
};

struct recorder {
	struct recorder_options options;
	char *path, *key_path;
	pthread_t thread;
	int wake_fd;
	atomic_bool wake_pending; /* a producer has asked for a flush that has not begun */
	atomic_bool stopping;

	pthread_mutex_t lock; /* over what follows, up to the blank line */
	struct recorder_producer *producers;
	struct series_table *series;
	struct recorder_status status;

	/* the thread's own */
	struct outcome_store *store; /* NULL while the file cannot be opened */
	struct buf user_key;
	struct outcome *batch; /* taken from the queues and not yet written */
	struct series **batch_series;
	size_t batch_count;
	struct outcome_drops drops[DROP_MINUTES];
	size_t drop_count;
	bool failing;
	uint64_t dropped_before;	/* when it began to fail */
	bool dropped_told;		/* that some are dropped since */
	bool tapped[RECORDER_TAPS_MAX]; /* the tap has this file */
	int64_t retain_at_ms;
	struct aging aging;
	bool aging_begun; /* with the first file that could be read */
};

/* --- producers ------------------------------------------------------------------------------------------ */

int recorder_producer_new(struct recorder *r, struct recorder_producer **ret)
{
	struct recorder_producer *p = calloc(1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	int code = ring_new(r->options.queue_slots, sizeof(struct outcome), &p->ring);
	if (code < 0) {
		free(p);
		return code;
	}
	p->recorder = r;
	pthread_mutex_lock(&r->lock);
	p->next = r->producers;
	r->producers = p;
	pthread_mutex_unlock(&r->lock);
	*ret = p;
	return 0;
}

struct outcome *recorder_reserve(struct recorder_producer *p)
{
	struct outcome *o = ring_reserve(p->ring);
	if (o)
		memset(o, 0, sizeof(*o));
	return o;
}

static void recorder_wake(struct recorder *r)
{
	uint64_t one = 1;
	ssize_t ignored = write(r->wake_fd, &one, sizeof(one)); /* fails only when it is awake already */
	(void)ignored;
}

void recorder_commit(struct recorder_producer *p)
{
	struct recorder *r = p->recorder;
	ring_commit(p->ring);
	if (ring_length(p->ring) >= ring_slots(p->ring) / 2 &&
	    !atomic_load_explicit(&r->wake_pending, memory_order_relaxed) &&
	    !atomic_exchange(&r->wake_pending, true))
		recorder_wake(r);
}

/* --- status --------------------------------------------------------------------------------------------- */

static uint64_t dropped_now(struct recorder *r)
{
	struct recorder_status now;
	recorder_status(r, &now);
	return now.dropped;
}

static void recorder_note_failure(struct recorder *r, const struct err *e)
{
	if (!r->failing) {
		log_error("recorder_failing", LOG_STR("error", e->text));
		r->dropped_before = dropped_now(r);
		r->dropped_told = false;
	}
	r->failing = true;
	pthread_mutex_lock(&r->lock);
	r->status.failing = true;
	span_copy(span_of(e->text), r->status.last_error, sizeof(r->status.last_error));
	pthread_mutex_unlock(&r->lock);
}

static void recorder_note_success(struct recorder *r, size_t written)
{
	bool recovered = r->failing;
	r->failing = false;
	pthread_mutex_lock(&r->lock);
	r->status.failing = false;
	r->status.written += written;
	pthread_mutex_unlock(&r->lock);
	if (!recovered)
		return;
	uint64_t dropped = dropped_now(r);
	log_info("recorder_recovered", LOG_STR("path", r->path),
		 LOG_INT("dropped", (int64_t)(dropped - r->dropped_before)));
}

void recorder_status(struct recorder *r, struct recorder_status *ret)
{
	pthread_mutex_lock(&r->lock);
	*ret = r->status;
	for (struct recorder_producer *p = r->producers; p; p = p->next) {
		ret->dropped += ring_dropped(p->ring);
		ret->queued += ring_length(p->ring);
		ret->slots += ring_slots(p->ring);
	}
	pthread_mutex_unlock(&r->lock);
}

void recorder_each_series(struct recorder *r, void (*fn)(const struct series *series, void *arg), void *arg)
{
	pthread_mutex_lock(&r->lock);
	for (const struct series *s = series_first(r->series); s; s = s->next)
		fn(s, arg);
	pthread_mutex_unlock(&r->lock);
}

/* --- taking from the queues ----------------------------------------------------------------------------- */

/* What a mistaken producer might hand over must not become an index. */
static void keep_in_range(struct outcome *o)
{
	if (o->side >= OUTCOME_SIDE_COUNT)
		o->side = OUTCOME_LEGACY;
	if (o->role >= OUTCOME_ROLE_COUNT)
		o->role = OUTCOME_PRIMARY;
	if (o->result >= OUTCOME_RESULT_COUNT)
		o->result = OUTCOME_UNKNOWN;
	if (o->reason >= REASON_COUNT)
		o->reason = REASON_UNMAPPED;
}

static void take_from(struct recorder *r, struct recorder_producer *p)
{
	const struct outcome *o;
	while (r->batch_count < BATCH && (o = ring_peek(p->ring))) {
		struct outcome *kept = &r->batch[r->batch_count];
		*kept = *o;
		ring_release(p->ring);
		keep_in_range(kept);
		struct series *s = series_of(r->series, kept);
		if (!s) { /* out of memory: the one outcome is lost and counted */
			r->status.dropped++;
			continue;
		}
		series_count(s, kept);
		r->batch_series[r->batch_count++] = s;
	}
}

static void note_drops(struct recorder *r, uint64_t count)
{
	int64_t minute = clock_wall_us() / 60000000;
	struct outcome_drops *last = r->drop_count ? &r->drops[r->drop_count - 1] : NULL;
	if (count == 0)
		return;
	if (last && (last->minute == minute || r->drop_count == DROP_MINUTES))
		last->count += count;
	else
		r->drops[r->drop_count++] = (struct outcome_drops){minute, count};
}

static void recorder_take(struct recorder *r)
{
	uint64_t dropped = 0;
	pthread_mutex_lock(&r->lock);
	uint64_t lost = r->status.dropped;
	for (struct recorder_producer *p = r->producers; p; p = p->next) {
		take_from(r, p);
		uint64_t now = ring_dropped(p->ring);
		dropped += now - p->drops_seen;
		p->drops_seen = now;
	}
	dropped += r->status.dropped - lost;
	pthread_mutex_unlock(&r->lock);
	note_drops(r, dropped);
	if (dropped && r->failing && !r->dropped_told) {
		r->dropped_told = true;
		log_error("recorder_dropping",
			  LOG_STR("effect", "outcomes are lost until the file can be written"));
	}
}

/* --- writing -------------------------------------------------------------------------------------------- */

static int make_user_key(struct recorder *r, struct err *e)
{
	char halves[2][CRYPTO_ID_HEX], line[2 * CRYPTO_ID_HEX];
	crypto_random_id(halves[0]);
	crypto_random_id(halves[1]);
	int n = snprintf(line, sizeof(line), "%s%s\n", halves[0], halves[1]);
	return file_replace(r->key_path, (struct span){line, (size_t)n}, 0600, e);
}

static int read_user_key(struct recorder *r, struct err *e)
{
	if (!r->options.hash_users || r->user_key.len)
		return 0;
	int code = access(r->key_path, F_OK) < 0 && errno == ENOENT ? make_user_key(r, e) : 0;
	if (code == 0)
		code = file_read(r->key_path, KEY_BYTES_MAX, &r->user_key, e);
	if (code < 0) {
		buf_clear(&r->user_key);
		return code;
	}
	while (r->user_key.len && r->user_key.ptr[r->user_key.len - 1] == '\n')
		r->user_key.len--;
	if (r->user_key.len >= 32)
		return 0;
	buf_clear(&r->user_key);
	return err_set(e, -EINVAL, "%s: shorter than 32 characters", r->key_path);
}

static void close_store(struct recorder *r)
{
	for (int i = 0; i < RECORDER_TAPS_MAX; i++) {
		if (r->tapped[i])
			r->options.taps[i].closed(r->options.taps[i].arg);
		r->tapped[i] = false;
	}
	r->store = outcome_store_close(r->store);
}

/* With each file anew; where its tables cannot be made outcomes are recorded without it. */
static void open_tap(struct recorder *r, int i)
{
	const struct recorder_tap *tap = &r->options.taps[i];
	struct err e = {""};
	if (!tap->write || r->tapped[i])
		return;
	r->tapped[i] = true;
	if (tap->opened(tap->arg, outcome_store_db(r->store), &e) < 0) {
		tap->closed(tap->arg);
		r->tapped[i] = false;
		tap->ended(tap->arg, false, e.text);
	}
}

static bool tap_is_due(struct recorder *r)
{
	for (int i = 0; i < RECORDER_TAPS_MAX; i++)
		if (r->tapped[i] && r->options.taps[i].due(r->options.taps[i].arg))
			return true;
	return false;
}

static int open_store(struct recorder *r, struct err *e)
{
	if (r->store && outcome_store_moved(r->store)) {
		close_store(r);
		err_set(e, 0, "%s: was deleted or replaced while in use; reopened", r->path);
		recorder_note_failure(r, e);
	}
	if (r->store)
		return 0;
	int code = file_make_parent(r->path, 0700, e);
	if (code == 0)
		code = read_user_key(r, e);
	if (code == 0)
		code = outcome_store_open(r->path, r->series, &r->store, e);
	int64_t newest_us;
	if (code < 0 || r->aging_begun)
		return code;
	code = outcome_store_newest(r->store, &newest_us, e);
	r->aging_begun = code == 0;
	if (code == 0)
		aging_begin(&r->aging, "outcomes", newest_us);
	return code;
}

/* Locked and full pass by themselves; with anything else the file is checked again. */
static void after_error(struct recorder *r, int code, const struct err *e)
{
	recorder_note_failure(r, e);
	if (code != -EBUSY && code != -ENOSPC)
		close_store(r);
}

static int recorder_write_batch(struct recorder *r)
{
	struct err e = {""};
	struct outcome_batch b = {
		.outcomes = r->batch,
		.series = r->batch_series,
		.count = r->batch_count,
		.drops = r->drops,
		.drop_count = r->drop_count,
		.now_us = clock_wall_us(),
	};
	int code = open_store(r, &e);
	if (code == 0) {
		b.user_key = r->options.hash_users ? buf_span(&r->user_key) : SPAN_NONE;
		for (int i = 0; i < RECORDER_TAPS_MAX; i++) {
			open_tap(r, i);
			b.taps[i] = r->tapped[i] ? &r->options.taps[i] : NULL;
		}
		code = outcome_store_write(r->store, &b, &e);
	}
	if (code < 0) {
		after_error(r, code, &e);
		return code;
	}
	recorder_note_success(r, r->batch_count);
	r->batch_count = r->drop_count = 0;
	return 0;
}

static int64_t days_before(int64_t now_us, unsigned days)
{
	return days ? now_us - (int64_t)days * DAY_US : INT64_MIN;
}

static void retain(struct recorder *r)
{
	int64_t now_ms = clock_mono_ms();
	if (!r->store || !r->aging_begun || r->failing || now_ms < r->retain_at_ms)
		return;
	int64_t now_us = aging_now(&r->aging);
	struct outcome_limits limits = {
		.rows_before_us = days_before(now_us, r->options.retention_days),
		.rollups_before_us = days_before(now_us, r->options.retention_rollup_days),
		.max_bytes = r->options.max_bytes,
		.now_us = now_us,
		.keep_marks = !aging_settled(&r->aging),
	};
	struct err e = {""};
	int code = outcome_store_retain(r->store, &limits, &e);
	if (code < 0)
		after_error(r, code, &e);
	/* More to delete: again after the next batch, so that writing continues. */
	r->retain_at_ms = code > 0 ? now_ms : now_ms + RETAIN_MS;
}

static void recorder_flush(struct recorder *r)
{
	bool full;
	atomic_store(&r->wake_pending, false);
	do {
		recorder_take(r);
		full = r->batch_count == BATCH;
		/* A file that fails is tried even with nothing to write, so that the status tells when it
		 * has recovered. */
		if ((r->batch_count || r->drop_count || r->failing || !r->store ||
		     outcome_store_is_due(r->store, clock_wall_us()) || tap_is_due(r)) &&
		    recorder_write_batch(r) < 0)
			break;
		retain(r);
	} while (full);
}

/* --- the thread ----------------------------------------------------------------------------------------- */

static void wait_for_work(struct recorder *r)
{
	/* While the file fails, full queues are not a reason to hurry: wake_pending stays set, so that
	 * producers do not call. */
	int64_t until = clock_mono_ms() + (r->failing ? RETRY_MS : (int64_t)r->options.flush_ms);
	if (r->failing)
		atomic_store(&r->wake_pending, true);
	while (!atomic_load(&r->stopping)) {
		int64_t left = until - clock_mono_ms();
		struct pollfd p = {.fd = r->wake_fd, .events = POLLIN};
		if (left <= 0 || poll(&p, 1, (int)left) <= 0)
			return;
		uint64_t count;
		ssize_t ignored = read(r->wake_fd, &count, sizeof(count));
		(void)ignored;
		if (!r->failing)
			return;
	}
}

static void give_up(struct recorder *r)
{
	size_t lost = r->batch_count;
	pthread_mutex_lock(&r->lock);
	for (struct recorder_producer *p = r->producers; p; p = p->next)
		for (; ring_peek(p->ring); lost++)
			ring_release(p->ring);
	r->status.dropped += lost;
	pthread_mutex_unlock(&r->lock);
	if (lost)
		log_error("recorder_lost", LOG_INT("outcomes", (int64_t)lost),
			  LOG_STR("error", r->status.last_error));
}

static void *recorder_run(void *arg)
{
	struct recorder *r = arg;
	while (!atomic_load(&r->stopping)) {
		recorder_flush(r);
		wait_for_work(r);
	}
	int64_t patience = clock_mono_ms() + STOP_PATIENCE_MS;
	recorder_flush(r);
	while (r->failing && clock_mono_ms() < patience) {
		poll(NULL, 0, RETRY_MS / 5);
		recorder_flush(r);
	}
	give_up(r);
	close_store(r);
	return NULL;
}

/* --- life ----------------------------------------------------------------------------------------------- */

static void free_recorder(struct recorder *r)
{
	while (r->producers) {
		struct recorder_producer *p = r->producers;
		r->producers = p->next;
		ring_free(p->ring);
		free(p);
	}
	series_table_free(r->series);
	if (r->wake_fd >= 0)
		close(r->wake_fd);
	pthread_mutex_destroy(&r->lock);
	buf_release(&r->user_key);
	free(r->batch);
	free(r->batch_series);
	free(r->path);
	free(r->key_path);
	free(r);
}

static int allocate(struct recorder *r, const struct recorder_options *o)
{
	r->options = *o;
	if (!r->options.flush_ms)
		r->options.flush_ms = 50;
	if (!r->options.queue_slots)
		r->options.queue_slots = 16384;
	r->user_key = BUF_INIT(KEY_BYTES_MAX + 65536);
	r->path = strdup(o->path);
	if (asprintf(&r->key_path, "%s-userkey", o->path) < 0)
		r->key_path = NULL;
	r->options.path = r->path;
	r->batch = malloc(BATCH * sizeof(*r->batch));
	r->batch_series = malloc(BATCH * sizeof(struct series *));
	r->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (r->wake_fd < 0)
		return -errno;
	if (!r->path || !r->key_path || !r->batch || !r->batch_series)
		return -ENOMEM;
	return series_table_new(&r->series);
}

/* Every field: tests/unit/test_metrics_recorder.c changes one after the other, and knows the struct's
 * size. */
bool recorder_options_same(const struct recorder_options *a, const struct recorder_options *b)
{
	return strcmp(a->path, b->path) == 0 && a->flush_ms == b->flush_ms &&
	       a->queue_slots == b->queue_slots && a->retention_days == b->retention_days &&
	       a->retention_rollup_days == b->retention_rollup_days && a->max_bytes == b->max_bytes &&
	       a->hash_users == b->hash_users;
}

int recorder_start(const struct recorder_options *o, struct recorder **ret, struct err *e)
{
	struct recorder *r = calloc(1, sizeof(*r));
	if (!r)
		return err_set(e, -ENOMEM, "out of memory");
	pthread_mutex_init(&r->lock, NULL);
	int code = allocate(r, o);
	if (code == 0)
		code = -pthread_create(&r->thread, NULL, recorder_run, r);
	if (code < 0) {
		free_recorder(r);
		return err_set(e, code, "recorder: %s", strerror(-code));
	}
	*ret = r;
	return 0;
}

struct recorder *recorder_stop(struct recorder *r)
{
	if (!r)
		return NULL;
	atomic_store(&r->stopping, true);
	recorder_wake(r);
	pthread_join(r->thread, NULL);
	free_recorder(r);
	return NULL;
}
