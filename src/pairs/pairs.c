#include "pairs/pairs.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/aging.h"
#include "base/clock.h"
#include "base/gzip.h"
#include "base/log.h"
#include "compare/compare_value.h"
#include "pairs/pairs_internal.h"
#include "pairs/pairs_memory.h"

#define RETAIN_LEAST_MS 1000 /* between looks at age */
#define RETAIN_MOST_MS 60000
#define PAIRS_DAY_US 86400000000LL
#define HALT_PATIENCE_MS 2000 /* for what waits to be compared */
#define SAMPLES_WAITING 8     /* of an operation, until the recorder takes them */
#define SAMPLES_EACH 3	      /* of a path in an hour: rare paths must not drown in frequent ones */
#define SAMPLED_PATHS 256     /* paths of which that is known */

struct pairs_operation {
	char service[32], operation[64];
	struct pairs_counts total;
	struct pairs_delta pending, writing;
	int64_t sampled_hour;
	uint64_t sampled[SAMPLED_PATHS]; /* hashes of paths, in this hour */
	uint8_t sampled_n[SAMPLED_PATHS];
	struct pairs_operation *next;
};

struct pairs {
	struct pairs_memory memory; /* first */
	struct pairs_options options;
	pthread_t thread;
	bool running;
	pthread_mutex_t lock; /* over what follows, up to the blank line */
	pthread_cond_t wake;
	struct pairs_trial *first, *last;
	unsigned waiting;
	bool halting;
	int64_t halt_by_ms;
	struct pairs_operation *operations;
	unsigned n_operations;
	bool any_pending;

	/* the recorder's thread */
	struct pairs_store *store;
	bool writing; /* some delta is */
	struct aging aging;
	bool aging_begun, samples_left, failing;
	int64_t retain_at_us; /* monotonic */
};

/* --- counting: under the lock --------------------------------------------------------------------------- */

static struct pairs_operation *pairs_operation_of(struct pairs *p, const struct pairs_trial *t)
{
	struct pairs_operation *o = p->operations;
	while (o && (strcmp(o->operation, t->operation) != 0 || strcmp(o->service, t->service) != 0))
		o = o->next;
	if (o || p->n_operations == PAIRS_OPERATIONS_MAX)
		return o;
	o = calloc(1, sizeof(*o));
	if (!o)
		return NULL;
	memcpy(o->service, t->service, sizeof(o->service));
	memcpy(o->operation, t->operation, sizeof(o->operation));
	o->next = p->operations;
	p->operations = o;
	p->n_operations++;
	return o;
}

static void pairs_count_missed(struct pairs *p, const struct pairs_trial *t, enum pairs_kind kind,
			       enum pairs_why why)
{
	struct pairs_operation *o = pairs_operation_of(p, t);
	if (!o)
		return;
	if (why == PAIRS_OPEN)
		why = PAIRS_NO_ANSWER;
	o->total.not_compared[kind][why]++;
	o->pending.counts.not_compared[kind][why]++;
	o->pending.any = p->any_pending = true;
}

static struct pairs_path *pairs_path_of(struct pairs_delta *d, const char *path, enum compare_kind kind)
{
	for (size_t i = 0; i < d->n_paths; i++)
		if (strcmp(d->paths[i].path, path) == 0)
			return &d->paths[i];
	if (d->n_paths >= PAIRS_PATHS_MAX)
		return strcmp(path, PAIRS_OTHER) == 0 ? NULL : pairs_path_of(d, PAIRS_OTHER, kind);
	if (d->n_paths == d->paths_capacity) {
		size_t capacity = d->paths_capacity ? d->paths_capacity * 2 : 8;
		struct pairs_path *paths = realloc(d->paths, capacity * sizeof(*paths));
		if (!paths)
			return NULL;
		d->paths = paths;
		d->paths_capacity = capacity;
	}
	struct pairs_path *new = &d->paths[d->n_paths++];
	*new = (struct pairs_path){.kind = kind};
	span_copy(span_of(path), new->path, sizeof(new->path));
	return new;
}

static void pairs_count(struct pairs *p, const struct pairs_trial *t, enum pairs_kind kind,
			const struct compare_result *result, struct pairs_sample *sample)
{
	struct pairs_operation *o = pairs_operation_of(p, t);
	bool differs = result->verdict == COMPARE_DIFFERING;
	if (!o) {
		pairs_sample_free(sample);
		return;
	}
	o->total.compared[kind]++;
	o->total.differing[kind] += differs;
	struct pairs_delta *d = &o->pending;
	d->counts.compared[kind]++;
	d->counts.differing[kind] += differs;
	for (uint32_t i = 0; i < result->n; i++) {
		struct pairs_path *path =
			pairs_path_of(d, result->differences[i].path, result->differences[i].kind);
		if (path)
			path->differing[kind]++;
	}
	if (sample) {
		struct pairs_sample **end = &d->samples; /* of few */
		while (*end)
			end = &(*end)->next;
		*end = sample;
		d->n_samples++;
	}
	d->any = p->any_pending = true;
}

/* --- which samples are kept ----------------------------------------------------------------------------- */

static uint8_t *pairs_sampled(struct pairs_operation *o, const char *path)
{
	uint64_t hash = compare_hash(1, path, strlen(path)) | 1;
	for (size_t i = 0; i < SAMPLED_PATHS; i++) {
		if (o->sampled[i] == 0)
			o->sampled[i] = hash;
		if (o->sampled[i] == hash)
			return &o->sampled_n[i];
	}
	return NULL;
}

/* One of a path that has not had enough of them in this hour. */
static bool pairs_wants_sample(struct pairs *p, const struct pairs_trial *t,
			       const struct compare_result *result)
{
	bool wanted = false;
	pthread_mutex_lock(&p->lock);
	struct pairs_operation *o = pairs_operation_of(p, t);
	int64_t hour = t->time_us / PAIRS_HOUR_US;
	if (o && o->sampled_hour != hour) {
		o->sampled_hour = hour;
		memset(o->sampled, 0, sizeof(o->sampled));
		memset(o->sampled_n, 0, sizeof(o->sampled_n));
	}
	bool room = o && p->options.samples && o->pending.n_samples < SAMPLES_WAITING;
	for (uint32_t i = 0; room && i < result->n; i++) {
		uint8_t *n = pairs_sampled(o, result->differences[i].path);
		if (n && *n < SAMPLES_EACH) {
			wanted = true;
			(*n)++;
		}
	}
	pthread_mutex_unlock(&p->lock);
	return wanted;
}

/* --- comparing: on its thread --------------------------------------------------------------------------- */

static enum pairs_why pairs_why_of(enum compare_why w)
{
	switch (w) {
	case COMPARE_WHY_NONE:
		return PAIRS_WHOLE;
	case COMPARE_WHY_SIZE:
		return PAIRS_SIZE;
	case COMPARE_WHY_DEPTH:
		return PAIRS_DEPTH;
	case COMPARE_WHY_VALUES:
		return PAIRS_VALUES;
	case COMPARE_WHY_WORK:
		return PAIRS_WORK;
	case COMPARE_WHY_MEMORY:
		break;
	}
	return PAIRS_MEMORY;
}

/* What the body is without its content coding. */
static enum pairs_why pairs_decode(const struct pairs_answer *a, struct buf *room, struct compare_answer *ret)
{
	*ret = (struct compare_answer){.status = a->status,
				       .fields = a->fields,
				       .n_fields = a->n_fields,
				       .content_type = a->type,
				       .body = buf_span(&a->body)};
	if (!a->coding.len || span_is_nocase(a->coding, "identity") || !a->body.len)
		return PAIRS_WHOLE;
	if (!span_is_nocase(a->coding, "gzip") && !span_is_nocase(a->coding, "x-gzip") &&
	    !span_is_nocase(a->coding, "deflate"))
		return PAIRS_CODING;
	switch (gzip_decode(buf_span(&a->body), room)) {
	case 0:
		ret->body = buf_span(room);
		return PAIRS_WHOLE;
	case -EFBIG:
		return PAIRS_SIZE;
	case -ENOMEM:
		return PAIRS_MEMORY;
	default:
		return PAIRS_CODING;
	}
}

static enum pairs_why pairs_missing(const struct pairs_answer *left, const struct pairs_answer *right)
{
	enum pairs_why why = left->why != PAIRS_WHOLE ? left->why : right->why;
	return why == PAIRS_OPEN ? PAIRS_NO_ANSWER : why;
}

static enum pairs_why pairs_compare(struct pairs *p, const struct pairs_trial *t, enum pairs_kind kind)
{
	static struct compare_result result; /* one thread */
	const struct pairs_answer *left = &t->answers[PAIRS_LEGACY];
	const struct pairs_answer *right = &t->answers[kind == PAIRS_SIDES ? PAIRS_TASK : PAIRS_AGAIN];
	CLEANUP(buf_releasep) struct buf left_room = BUF_INIT(COMPARE_BODY_MAX);
	CLEANUP(buf_releasep) struct buf right_room = BUF_INIT(COMPARE_BODY_MAX);
	struct compare_answer answers[2];
	enum pairs_why why = pairs_missing(left, right);
	if (why == PAIRS_WHOLE)
		why = pairs_decode(left, &left_room, &answers[0]);
	if (why == PAIRS_WHOLE)
		why = pairs_decode(right, &right_room, &answers[1]);
	if (why != PAIRS_WHOLE)
		return why;
	compare_answers(&answers[0], &answers[1], &t->policy->options, &result);
	if (result.verdict == COMPARE_NOT_COMPARED)
		return pairs_why_of(result.why);
	struct pairs_sample *sample = NULL;
	if (kind == PAIRS_SIDES && result.n && pairs_wants_sample(p, t, &result))
		sample = pairs_sample_make(t, answers, &result, p->options.max_sample);
	pthread_mutex_lock(&p->lock);
	pairs_count(p, t, kind, &result, sample);
	pthread_mutex_unlock(&p->lock);
	return PAIRS_WHOLE;
}

/* At the end, whatever still waits is reported as not compared. */
static bool pairs_is_late(struct pairs *p)
{
	pthread_mutex_lock(&p->lock);
	bool late = p->halting && clock_mono_ms() >= p->halt_by_ms;
	pthread_mutex_unlock(&p->lock);
	return late;
}

static void pairs_compare_kind(struct pairs *p, const struct pairs_trial *t, enum pairs_kind kind)
{
	enum pairs_why why = pairs_is_late(p) ? PAIRS_QUEUE : pairs_compare(p, t, kind);
	if (why == PAIRS_WHOLE)
		return;
	pthread_mutex_lock(&p->lock);
	pairs_count_missed(p, t, kind, why);
	pthread_mutex_unlock(&p->lock);
}

static struct pairs_trial *pairs_next(struct pairs *p)
{
	pthread_mutex_lock(&p->lock);
	while (!p->first && !p->halting)
		pthread_cond_wait(&p->wake, &p->lock);
	struct pairs_trial *t = p->first;
	if (t) {
		p->first = t->next;
		p->waiting--;
	}
	pthread_mutex_unlock(&p->lock);
	return t;
}

static void *pairs_run(void *arg)
{
	struct pairs *p = arg;
	for (struct pairs_trial *t; (t = pairs_next(p));) {
		pairs_compare_kind(p, t, PAIRS_SIDES);
		if (t->noise)
			pairs_compare_kind(p, t, PAIRS_NOISE);
		pairs_trial_free(t);
	}
	return NULL;
}

/* --- from the planes ------------------------------------------------------------------------------------ */

void pairs_submit(struct pairs_trial *t)
{
	struct pairs *p = t->owner;
	pthread_mutex_lock(&p->lock);
	bool full = p->waiting == PAIRS_QUEUE_MAX || p->halting;
	if (full) {
		pairs_count_missed(p, t, PAIRS_SIDES, PAIRS_QUEUE);
		if (t->noise)
			pairs_count_missed(p, t, PAIRS_NOISE, PAIRS_QUEUE);
	} else {
		t->next = NULL;
		if (p->first)
			p->last->next = t;
		else
			p->first = t;
		p->last = t;
		p->waiting++;
		pthread_cond_signal(&p->wake);
	}
	pthread_mutex_unlock(&p->lock);
	if (full)
		pairs_trial_free(t);
}

void pairs_each(struct pairs *p,
		void (*fn)(void *arg, const char *service, const char *operation,
			   const struct pairs_counts *c),
		void *arg)
{
	pthread_mutex_lock(&p->lock);
	for (const struct pairs_operation *o = p->operations; o; o = o->next)
		fn(arg, o->service, o->operation, &o->total);
	pthread_mutex_unlock(&p->lock);
}

/* --- the recorder's thread ------------------------------------------------------------------------------ */

static void pairs_delta_release(struct pairs_delta *d)
{
	while (d->samples) {
		struct pairs_sample *next = d->samples->next;
		pairs_sample_free(d->samples);
		d->samples = next;
	}
	free(d->paths);
	*d = (struct pairs_delta){0};
}

static int pairs_opened(void *arg, struct db *db, struct err *e)
{
	struct pairs *p = arg;
	int r = pairs_store_new(db, &p->store, e);
	int64_t newest;
	if (r < 0 || p->aging_begun)
		return r;
	r = pairs_store_newest(p->store, &newest, e);
	p->aging_begun = r == 0;
	p->samples_left = true; /* until the first look */
	if (r == 0)
		aging_begin(&p->aging, "pairs", newest);
	return r;
}

static void pairs_closed(void *arg)
{
	struct pairs *p = arg;
	p->store = pairs_store_free(p->store);
}

static bool pairs_retain_is_due(const struct pairs *p)
{
	return p->aging_begun && p->samples_left && clock_mono_us() >= p->retain_at_us;
}

static bool pairs_due(void *arg)
{
	struct pairs *p = arg;
	pthread_mutex_lock(&p->lock);
	bool any = p->any_pending || p->writing;
	pthread_mutex_unlock(&p->lock);
	return any || pairs_retain_is_due(p);
}

/* What was not committed stays in `writing`, and nothing new comes to it. */
static void pairs_take(struct pairs *p)
{
	if (p->writing)
		return;
	pthread_mutex_lock(&p->lock);
	for (struct pairs_operation *o = p->operations; o; o = o->next)
		if (o->pending.any) {
			o->writing = o->pending;
			o->pending = (struct pairs_delta){0};
			p->writing = true;
		}
	p->any_pending = false;
	pthread_mutex_unlock(&p->lock);
}

static int64_t pairs_before(int64_t now_us, int64_t keep_us)
{
	return keep_us ? now_us - keep_us : INT64_MIN;
}

static int pairs_retain(struct pairs *p, struct err *e)
{
	if (!pairs_retain_is_due(p))
		return 0;
	int64_t now_us = aging_now(&p->aging);
	uint64_t wait_ms = p->options.keep_samples_ms / 60;
	if (wait_ms < RETAIN_LEAST_MS)
		wait_ms = RETAIN_LEAST_MS;
	else if (wait_ms > RETAIN_MOST_MS)
		wait_ms = RETAIN_MOST_MS;
	p->retain_at_us = clock_mono_us() + (int64_t)wait_ms * 1000;
	return pairs_store_retain(p->store, pairs_before(now_us, p->options.keep_samples_ms * 1000LL),
				  pairs_before(now_us, p->options.keep_counts_days * PAIRS_DAY_US) /
					  PAIRS_HOUR_US,
				  &p->samples_left, e);
}

static int pairs_write(void *arg, const struct recorder_batch *b, struct err *e)
{
	struct pairs *p = arg;
	int r = 0;
	pairs_take(p);
	for (struct pairs_operation *o = p->operations; o && r == 0; o = o->next)
		if (o->writing.any)
			r = pairs_store_write(p->store, o->service, o->operation, b->now_us / PAIRS_HOUR_US,
					      &o->writing, p->options.samples, e);
	p->samples_left |= p->writing;
	return r == 0 ? pairs_retain(p, e) : r;
}

static void pairs_ended(void *arg, bool committed, const char *error)
{
	struct pairs *p = arg;
	if (error && !p->failing)
		log_error("pairs_failing", LOG_STR("error", error));
	p->failing = error != NULL;
	if (!committed || error)
		return;
	for (struct pairs_operation *o = p->operations; o; o = o->next)
		pairs_delta_release(&o->writing);
	p->writing = false;
}

void pairs_tap(struct pairs *p, struct recorder_tap *ret)
{
	*ret = (struct recorder_tap){.arg = p,
				     .opened = pairs_opened,
				     .closed = pairs_closed,
				     .due = pairs_due,
				     .write = pairs_write,
				     .ended = pairs_ended};
}

/* --- life ----------------------------------------------------------------------------------------------- */

bool pairs_options_same(const struct pairs_options *a, const struct pairs_options *b)
{
	return a->max_answer == b->max_answer && a->max_memory == b->max_memory && a->samples == b->samples &&
	       a->max_sample == b->max_sample && a->keep_samples_ms == b->keep_samples_ms &&
	       a->keep_counts_days == b->keep_counts_days;
}

int pairs_start(const struct pairs_options *o, struct pairs **ret, struct err *e)
{
	struct pairs *p = calloc(1, sizeof(*p));
	if (!p)
		return err_set(e, -ENOMEM, "out of memory");
	p->options = *o;
	p->memory.max_answer = o->max_answer < COMPARE_BODY_MAX ? o->max_answer : COMPARE_BODY_MAX;
	p->memory.max_memory = o->max_memory;
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->wake, NULL);
	int r = -pthread_create(&p->thread, NULL, pairs_run, p);
	p->running = r == 0;
	if (r < 0) {
		pairs_free(p);
		return err_set(e, r, "comparing: %s", strerror(-r));
	}
	*ret = p;
	return 0;
}

void pairs_halt(struct pairs *p)
{
	if (!p || !p->running)
		return;
	pthread_mutex_lock(&p->lock);
	p->halting = true;
	p->halt_by_ms = clock_mono_ms() + HALT_PATIENCE_MS;
	pthread_cond_signal(&p->wake);
	pthread_mutex_unlock(&p->lock);
	pthread_join(p->thread, NULL);
	p->running = false;
}

struct pairs *pairs_free(struct pairs *p)
{
	if (!p)
		return NULL;
	pairs_halt(p);
	while (p->operations) {
		struct pairs_operation *o = p->operations;
		p->operations = o->next;
		pairs_delta_release(&o->pending);
		pairs_delta_release(&o->writing);
		free(o);
	}
	pthread_mutex_destroy(&p->lock);
	pthread_cond_destroy(&p->wake);
	free(p);
	return NULL;
}
