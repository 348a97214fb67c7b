#include "metrics/ledger.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/aging.h"
#include "base/clock.h"
#include "base/crypto.h"
#include "base/db.h"
#include "base/file.h"
#include "base/log.h"

#define APPLICATION_ID 0x4d52474c /* "MRGL" */
#define BATCH_MAX 512
#define SWEEP_SECONDS 600
#define BUCKETS (1u << 16)

/* --- in memory
 * ----------------------------------------------------------------------------------------------------- */

struct slot {
	struct slot *next;
	uint32_t hash;
	uint16_t group_length, key_length;
	int64_t created_us;
	char backend[16];
	char task_id[64];
	char text[]; /* group, then key */
};

/* --- changes on their way to the file
 * ------------------------------------------------------------------------------ */

struct change {
	struct loop_work work; /* first */
	struct change *next;
	bool remove;
	struct ledger_entry entry;
	struct loop *loop;
	ledger_done_fn fn;
	void *arg;
	int error;
};

struct ledger {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	/* under lock */
	struct slot *buckets[BUCKETS];
	uint64_t n_entries;
	struct change *first, **last;
	unsigned n_queued;
	bool stopping, failing;
	char last_error[ERR_TEXT_MAX];
	/* constant */
	char *path;
	uint32_t seed; /* of the hash: keys are chosen by callers */
	/* the thread's */
	struct db *db; /* NULL after an error that asks for opening it anew */
	struct db_stmt *put, *remove, *expire;
	int64_t swept_ms;
	struct aging aging;
};

static int64_t oldest_us(struct ledger *l)
{
	return aging_now(&l->aging) - (int64_t)LEDGER_TTL_DAYS * 86400 * 1000000;
}

static uint32_t hash_of(const struct ledger *l, struct span group, struct span key)
{
	uint32_t h = 2166136261u ^ l->seed; /* FNV-1a */
	const struct span parts[] = {group, {"\0", 1}, key};
	for (size_t p = 0; p < 3; p++)
		for (size_t i = 0; i < parts[p].len; i++)
			h = (h ^ (unsigned char)parts[p].ptr[i]) * 16777619u;
	return h;
}

static struct slot **find(struct ledger *l, struct span group, struct span key, uint32_t hash)
{
	struct slot **at = &l->buckets[hash % BUCKETS];
	for (; *at; at = &(*at)->next) {
		struct slot *s = *at;
		if (s->hash == hash && span_eq((struct span){s->text, s->group_length}, group) &&
		    span_eq((struct span){s->text + s->group_length, s->key_length}, key))
			break;
	}
	return at;
}

static void forget(struct ledger *l, struct span group, struct span key)
{
	struct slot **at = find(l, group, key, hash_of(l, group, key));
	struct slot *s = *at;
	if (!s)
		return;
	*at = s->next;
	free(s);
	l->n_entries--;
}

static int remember(struct ledger *l, const struct ledger_entry *e)
{
	struct span group = span_of(e->group), key = span_of(e->key);
	struct slot *s = malloc(sizeof(*s) + group.len + key.len);
	if (!s)
		return -ENOMEM;
	forget(l, group, key);
	*s = (struct slot){.hash = hash_of(l, group, key),
			   .group_length = (uint16_t)group.len,
			   .key_length = (uint16_t)key.len,
			   .created_us = e->created_us};
	memcpy(s->backend, e->backend, sizeof(s->backend));
	memcpy(s->task_id, e->task_id, sizeof(s->task_id));
	memcpy(s->text, group.ptr, group.len);
	memcpy(s->text + group.len, key.ptr, key.len);
	s->next = l->buckets[s->hash % BUCKETS];
	l->buckets[s->hash % BUCKETS] = s;
	l->n_entries++;
	return 0;
}

int ledger_entry_set(struct ledger_entry *entry, struct span group, struct span key)
{
	if (group.len >= LEDGER_GROUP_MAX || key.len >= LEDGER_KEY_MAX ||
	    memchr(key.ptr ? key.ptr : "", '\0', key.len))
		return -ENAMETOOLONG;
	span_copy(group, entry->group, sizeof(entry->group));
	span_copy(key, entry->key, sizeof(entry->key));
	return 0;
}

enum ledger_answer ledger_lookup(struct ledger *l, struct span group, struct span key, struct ledger_entry *ret)
{
	uint32_t hash = hash_of(l, group, key);
	pthread_mutex_lock(&l->lock);
	const struct slot *s = *find(l, group, key, hash);
	if (s) {
		ret->created_us = s->created_us;
		memcpy(ret->backend, s->backend, sizeof(ret->backend));
		memcpy(ret->task_id, s->task_id, sizeof(ret->task_id));
	}
	pthread_mutex_unlock(&l->lock);
	return s && ledger_entry_set(ret, group, key) == 0 ? LEDGER_FOUND : LEDGER_NONE;
}

/* --- the file
 * ------------------------------------------------------------------------------------------------------ */

static const char *const schema[] = {
	"CREATE TABLE entries (\"group\" TEXT NOT NULL, key TEXT NOT NULL, backend TEXT NOT NULL, task_id "
	"TEXT NOT NULL,"
	" created_us INTEGER NOT NULL, PRIMARY KEY (\"group\", key)) WITHOUT ROWID;"
	"CREATE INDEX entries_created ON entries (created_us);",
};

static void set_failing(struct ledger *l, const struct err *e)
{
	pthread_mutex_lock(&l->lock);
	bool news = !l->failing && e;
	l->failing = e != NULL;
	snprintf(l->last_error, sizeof(l->last_error), "%s", e ? e->text : "");
	pthread_mutex_unlock(&l->lock);
	if (news)
		log_error("ledger_failing", LOG_STR("error", e->text));
}

static int load(struct ledger *l, struct err *e)
{
	CLEANUP(db_stmt_freep) struct db_stmt *s = NULL;
	int r = db_prepare(
		l->db,
		"SELECT \"group\", key, backend, task_id, created_us FROM entries", &s, e);
	if (r < 0)
		return r;
	int64_t newest_us = 0;
	/* Whatever their age by this clock: they count until the sweep, which knows what to think of the clock. */
	while ((r = db_step(s, e)) == 1) {
		struct ledger_entry entry = {.created_us = db_column_int64(s, 4)};
		if (ledger_entry_set(&entry, db_column_text(s, 0), db_column_text(s, 1)) != 0)
			continue;
		span_copy(db_column_text(s, 2), entry.backend, sizeof(entry.backend));
		span_copy(db_column_text(s, 3), entry.task_id, sizeof(entry.task_id));
		if (remember(l, &entry) < 0)
			return err_set(e, -ENOMEM, "out of memory");
		newest_us = entry.created_us > newest_us ? entry.created_us : newest_us;
	}
	aging_begin(&l->aging, "ledger", newest_us);
	return r;
}

static void close_file(struct ledger *l)
{
	l->put = db_stmt_free(l->put);
	l->remove = db_stmt_free(l->remove);
	l->expire = db_stmt_free(l->expire);
	l->db = db_close(l->db);
}

static int open_file(struct ledger *l, struct err *e)
{
	struct db_options o = {.path = l->path,
			       .sync_full = true,
			       .busy_timeout_ms = 2000,
			       .application_id = APPLICATION_ID};
	int r = file_make_parent(l->path, 0700, e);
	if (r == 0)
		r = db_open(&o, &l->db, e);
	if (r == 0)
		r = db_migrate(l->db, schema, sizeof(schema) / sizeof(schema[0]), e);
	if (r == 0)
		r = db_prepare(l->db, "INSERT OR REPLACE INTO entries VALUES (?1, ?2, ?3, ?4, ?5)", &l->put,
			       e);
	if (r == 0)
		r = db_prepare(l->db, "DELETE FROM entries WHERE \"group\" = ?1 AND key = ?2", &l->remove, e);
	if (r == 0)
		r = db_prepare(l->db, "DELETE FROM entries WHERE created_us < ?1", &l->expire, e);
	if (r < 0)
		close_file(l);
	return r;
}

static int write_change(struct ledger *l, const struct change *c, struct err *e)
{
	struct db_stmt *s = c->remove ? l->remove : l->put;
	db_bind_text(s, 1, span_of(c->entry.group));
	db_bind_text(s, 2, span_of(c->entry.key));
	if (!c->remove) {
		db_bind_text(s, 3, span_of(c->entry.backend));
		db_bind_text(s, 4, span_of(c->entry.task_id));
		db_bind_int64(s, 5, c->entry.created_us);
	}
	return db_run(s, e);
}

/* A file that was deleted or replaced takes with it what it held (memory still has it until the next start);
 * what comes from now on is durable again. */
static int reopen_if_needed(struct ledger *l, struct err *e)
{
	if (l->db && db_moved(l->db)) {
		log_error("ledger_replaced", LOG_STR("path", l->path));
		close_file(l);
	}
	return l->db ? 0 : open_file(l, e);
}

/* All or nothing: one transaction, one sync for many callers. */
static int write_batch(struct ledger *l, const struct change *first)
{
	struct err e;
	int r = reopen_if_needed(l, &e);
	if (r == 0)
		r = db_begin(l->db, &e);
	for (const struct change *c = first; r == 0 && c; c = c->next)
		r = write_change(l, c, &e);
	if (r == 0)
		r = db_commit(l->db, &e);
	if (r < 0 && l->db)
		db_rollback(l->db);
	if (r < 0 && r != -EBUSY && r != -ENOSPC) /* those two pass by themselves */
		close_file(l);
	set_failing(l, r < 0 ? &e : NULL);
	return r;
}

static void run_done(struct loop_work *w)
{
	struct change *c = (struct change *)w;
	c->fn(c->arg, c->error);
	free(c);
}

static void finish(struct ledger *l, struct change *c, int error)
{
	pthread_mutex_lock(&l->lock);
	c->error = error;
	if (c->remove) /* once more in the queue's order: the put it follows has only now come into memory */
		forget(l, span_of(c->entry.group), span_of(c->entry.key));
	else if (error == 0)
		c->error = remember(l, &c->entry);
	pthread_mutex_unlock(&l->lock);
	if (c->fn)
		loop_post(c->loop, &c->work);
	else
		free(c);
}

static void sweep(struct ledger *l)
{
	int64_t now = clock_mono_ms(), oldest = oldest_us(l);
	if (now - l->swept_ms < SWEEP_SECONDS * 1000)
		return;
	l->swept_ms = now;
	if (!l->db)
		return;
	db_bind_int64(l->expire, 1, oldest);
	struct err e;
	if (db_run(l->expire, &e) < 0)
		return; /* the next one will */
	pthread_mutex_lock(&l->lock);
	for (size_t i = 0; i < BUCKETS; i++)
		for (struct slot **at = &l->buckets[i]; *at;) {
			struct slot *s = *at;
			if (s->created_us >= oldest) {
				at = &s->next;
				continue;
			}
			*at = s->next;
			free(s);
			l->n_entries--;
		}
	pthread_mutex_unlock(&l->lock);
}

/* Up to BATCH_MAX changes, or NULL at the end; waits for the first, at most until the next sweep. */
static struct change *take(struct ledger *l, bool *end)
{
	struct timespec until;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += SWEEP_SECONDS;
	pthread_mutex_lock(&l->lock);
	while (!l->first && !l->stopping)
		if (pthread_cond_timedwait(&l->wake, &l->lock, &until) == ETIMEDOUT)
			break;
	struct change *batch = l->first, **at = &l->first;
	for (unsigned n = 0; *at && n < BATCH_MAX; n++) {
		at = &(*at)->next;
		l->n_queued--;
	}
	l->first = *at;
	*at = NULL;
	if (!l->first)
		l->last = &l->first;
	if (batch == l->first)
		batch = NULL;
	*end = l->stopping && !batch;
	pthread_mutex_unlock(&l->lock);
	return batch;
}

static void *run(void *arg)
{
	struct ledger *l = arg;
	for (bool end = false; !end;) {
		struct change *batch = take(l, &end);
		int r = batch ? write_batch(l, batch) : 0;
		while (batch) {
			struct change *next = batch->next;
			finish(l, batch, r);
			batch = next;
		}
		sweep(l);
	}
	return NULL;
}

/* --- face
 * ----------------------------------------------------------------------------------------------------------
 */

static void enqueue(struct ledger *l, struct change *c)
{
	pthread_mutex_lock(&l->lock);
	int full = 0;
	if (!c->remove && l->n_queued >= LEDGER_QUEUE)
		full = -EAGAIN;
	else if (!c->remove &&
		 l->n_entries + l->n_queued >= LEDGER_MAX_ENTRIES) /* before it is in the file */
		full = -ENOSPC;
	if (!full) {
		c->next = NULL;
		*l->last = c;
		l->last = &c->next;
		l->n_queued++;
		pthread_cond_signal(&l->wake);
	}
	pthread_mutex_unlock(&l->lock);
	if (full) {
		c->error = full;
		loop_post(c->loop, &c->work);
	}
}

void ledger_put(struct ledger *l, struct loop *loop, const struct ledger_entry *entry, ledger_done_fn fn,
		void *arg)
{
	struct change *c = calloc(1, sizeof(*c));
	if (!c) {
		fn(arg, -ENOMEM);
		return;
	}
	*c = (struct change){.work = {.fn = run_done}, .entry = *entry, .loop = loop, .fn = fn, .arg = arg};
	if (!c->entry.created_us)
		c->entry.created_us = clock_wall_us();
	enqueue(l, c);
}

void ledger_remove(struct ledger *l, struct span group, struct span key)
{
	pthread_mutex_lock(&l->lock);
	forget(l, group, key);
	pthread_mutex_unlock(&l->lock);
	struct change *c = calloc(1, sizeof(*c));
	if (!c)
		return; /* it stays in the file until it is too old */
	c->remove = true;
	if (ledger_entry_set(&c->entry, group, key) == 0)
		enqueue(l, c);
	else
		free(c);
}

static void release(struct ledger *l)
{
	close_file(l);
	free(l->path);
	for (size_t i = 0; i < BUCKETS; i++)
		while (l->buckets[i]) {
			struct slot *s = l->buckets[i];
			l->buckets[i] = s->next;
			free(s);
		}
	pthread_cond_destroy(&l->wake);
	pthread_mutex_destroy(&l->lock);
	free(l);
}

int ledger_start(const char *path, struct ledger **ret, struct err *e)
{
	struct ledger *l = calloc(1, sizeof(*l));
	if (!l)
		return err_set(e, -ENOMEM, "out of memory");
	l->last = &l->first;
	l->swept_ms = clock_mono_ms() - SWEEP_SECONDS * 1000;
	pthread_mutex_init(&l->lock, NULL);
	pthread_condattr_t attributes;
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&l->wake, &attributes);
	pthread_condattr_destroy(&attributes);
	char random[CRYPTO_ID_HEX];
	crypto_random_id(random);
	random[8] = '\0';
	l->seed = (uint32_t)strtoul(random, NULL, 16);
	l->path = strdup(path);
	int r = l->path ? open_file(l, e) : err_set(e, -ENOMEM, "out of memory");
	if (r == 0)
		r = load(l, e);
	if (r == 0 && (r = -pthread_create(&l->thread, NULL, run, l)) < 0)
		err_set(e, r, "thread: %s", strerror(-r));
	if (r < 0) {
		release(l);
		return r;
	}
	return (*ret = l, 0);
}

struct ledger *ledger_stop(struct ledger *l)
{
	if (!l)
		return NULL;
	pthread_mutex_lock(&l->lock);
	l->stopping = true;
	pthread_cond_signal(&l->wake);
	pthread_mutex_unlock(&l->lock);
	pthread_join(l->thread, NULL);
	release(l);
	return NULL;
}

void ledger_status(struct ledger *l, struct ledger_status *ret)
{
	pthread_mutex_lock(&l->lock);
	*ret = (struct ledger_status){.entries = l->n_entries, .failing = l->failing};
	memcpy(ret->last_error, l->last_error, sizeof(ret->last_error));
	pthread_mutex_unlock(&l->lock);
}
