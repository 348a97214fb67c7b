#include "ledger/ledger_file.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/aging.h"
#include "base/backoff.h"
#include "base/clock.h"
#include "base/crypto.h"
#include "base/db.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "ledger/ledger_share.h"
#include "ledger/ledger_store.h"

#define BATCH_MAX 512
#define SWEEP_SECONDS 600
#define SEGMENT ((size_t)1 << 16) /* buckets, as many as at first */
#define SEGMENTS 1024
#define RETRY_FIRST_MS 500
#define RETRY_MAX_MS 15000
#define UNSHARE_MS 200			/* between looks whether the other processes have ended */
#define READ_PATIENCE_MS 50		/* of a lookup in the file, which someone waits for */
#define REMOVALS_MAX (2 * LEDGER_QUEUE) /* that wait for the file; more are refused */

/* --- in memory ------------------------------------------------------------------------------------------ */

struct group {
	struct group *next;
	uint64_t n_entries;
	char name[LEDGER_GROUP_MAX];
};

/* An entry; or, while the file has not been read or is shared, a key of which it is known that it has
 * none. */
struct slot {
	struct slot *next;
	struct group *in; /* NULL: removed */
	uint32_t hash;
	uint16_t group_length, key_length;
	int64_t created_us;
	char backend[16];
	char task_id[64];
	char text[]; /* group, then key */
};

/* --- changes on their way to the file ------------------------------------------------------------------- */

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

struct ledger_file {
	struct ledger base; /* first */
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	/* under lock */
	struct slot **segments[SEGMENTS];
	size_t n_buckets, round; /* round: the largest power of two up to n_buckets */
	bool keep_buckets;	 /* someone goes through them */
	struct group *groups;
	uint64_t n_entries; /* slots */
	bool whole;	    /* memory has all that the file has: what is not there is not there */
	struct change *first, **last;
	unsigned n_queued;
	unsigned n_removals; /* queued, or kept for another try */
	bool stopping, failing;
	bool shared; /* other processes write the file, too: it is asked, not the memory */
	bool held;   /* so it stays, whether others are seen or not */
	bool let_go; /* it was held until now */
	/* shared, and another file came in its place: what is not there may be in someone's memory */
	bool torn;
	struct ledger_share *share; /* its marks. NULL: there is none, and no sharing */
	char last_error[ERR_TEXT_MAX];
	/* under reader_lock, which is taken before the other one */
	pthread_mutex_t reader_lock;
	struct db *reader;
	struct db_stmt *select, *select_group;
	/* constant */
	char *path;
	uint32_t seed; /* of the hash: keys are chosen by callers */
	/* the thread's */
	struct db *db; /* NULL after an error that asks for opening it anew */
	struct db_stmt *put, *remove, *expire;
	int64_t swept_ms;
	struct aging aging;
	/* removals that the file does not have yet, in their order */
	struct change *unwritten, **unwritten_last;
	unsigned failures; /* in a row */
	/* the file that is opened next does not have what memory has */
	bool replaced;
};

static int64_t oldest_us(struct ledger_file *l)
{
	return aging_now(&l->aging) - (int64_t)LEDGER_TTL_DAYS * 86400 * 1000000;
}

static uint32_t ledger_hash_of(const struct ledger_file *l, struct span group, struct span key)
{
	uint32_t h = hash32(HASH32_START ^ l->seed, group);
	h = hash32(hash32(h, (struct span){"\0", 1}), key);
	return h;
}

/* --- buckets: one more for each entry more (linear hashing), so that no request waits for all of them to be
 * made anew --- */

static struct slot **bucket_at(const struct ledger_file *l, size_t n)
{
	return &l->segments[n / SEGMENT][n % SEGMENT];
}

static size_t bucket_of(const struct ledger_file *l, uint32_t hash)
{
	size_t n = hash & (2 * l->round - 1);
	return n < l->n_buckets ? n : n - l->round;
}

static bool bucket_make_room(struct ledger_file *l)
{
	struct slot ***segment = &l->segments[l->n_buckets / SEGMENT];
	if (l->n_buckets % SEGMENT == 0)
		*segment = calloc(SEGMENT, sizeof(**segment));
	return *segment != NULL;
}

/* The new bucket gets what belongs into it of the one that had it until now. */
static void bucket_add(struct ledger_file *l)
{
	size_t n = l->n_buckets;
	if (l->keep_buckets || l->n_entries <= n || n == SEGMENTS * SEGMENT || !bucket_make_room(l))
		return; /* then chains are longer */
	struct slot **at = bucket_at(l, n - l->round), **to = bucket_at(l, n);
	l->n_buckets++;
	if (l->n_buckets == 2 * l->round)
		l->round *= 2;
	while (*at) {
		struct slot *slot = *at;
		if (bucket_of(l, slot->hash) != n) {
			at = &slot->next;
			continue;
		}
		*at = slot->next;
		slot->next = *to;
		*to = slot;
	}
}

static bool buckets_new(struct ledger_file *l)
{
	l->segments[0] = calloc(SEGMENT, sizeof(*l->segments[0]));
	l->n_buckets = l->segments[0] ? SEGMENT : 0;
	l->round = SEGMENT;
	return l->n_buckets > 0;
}

static void buckets_free(struct ledger_file *l)
{
	for (size_t n = 0; n < l->n_buckets; n++)
		for (struct slot *slot = *bucket_at(l, n), *next; slot; slot = next) {
			next = slot->next;
			free(slot);
		}
	for (size_t i = 0; i < SEGMENTS; i++)
		free(l->segments[i]);
}

static struct slot **ledger_find(struct ledger_file *l, struct span group, struct span key, uint32_t hash)
{
	struct slot **at = bucket_at(l, bucket_of(l, hash));
	for (; *at; at = &(*at)->next) {
		struct slot *s = *at;
		if (s->hash == hash && span_eq((struct span){s->text, s->group_length}, group) &&
		    span_eq((struct span){s->text + s->group_length, s->key_length}, key))
			break;
	}
	return at;
}

static void drop_slot(struct ledger_file *l, struct slot **at)
{
	struct slot *s = *at;
	if (!s)
		return;
	*at = s->next;
	if (s->in)
		s->in->n_entries--;
	free(s);
	l->n_entries--;
}

static void ledger_forget(struct ledger_file *l, struct span group, struct span key)
{
	drop_slot(l, ledger_find(l, group, key, ledger_hash_of(l, group, key)));
}

static struct group *group_of(struct ledger_file *l, struct span name)
{
	struct group *g = l->groups;
	while (g && !span_is(name, g->name))
		g = g->next;
	return g;
}

static struct group *group_made(struct ledger_file *l, struct span name)
{
	struct group *g = group_of(l, name);
	if (g || !(g = calloc(1, sizeof(*g))))
		return g;
	span_copy(name, g->name, sizeof(g->name));
	g->next = l->groups;
	l->groups = g;
	return g;
}

/* Replaces what is there of this key, by an entry or by the knowledge that there is none. */
static int ledger_remember(struct ledger_file *l, const struct ledger_entry *e, bool removed)
{
	struct span group = span_of(e->group), key = span_of(e->key);
	struct group *in = removed ? NULL : group_made(l, group);
	struct slot *s = removed || in ? malloc(sizeof(*s) + group.len + key.len) : NULL;
	if (!s)
		return -ENOMEM;
	ledger_forget(l, group, key);
	if (in)
		in->n_entries++;
	*s = (struct slot){.hash = ledger_hash_of(l, group, key),
			   .in = in,
			   .group_length = (uint16_t)group.len,
			   .key_length = (uint16_t)key.len,
			   .created_us = e->created_us};
	memcpy(s->backend, e->backend, sizeof(s->backend));
	memcpy(s->task_id, e->task_id, sizeof(s->task_id));
	memcpy(s->text, group.ptr, group.len);
	memcpy(s->text + group.len, key.ptr, key.len);
	struct slot **bucket = bucket_at(l, bucket_of(l, s->hash));
	s->next = *bucket;
	*bucket = s;
	l->n_entries++;
	bucket_add(l);
	return 0;
}

/* --- look-ups in the file, while other processes write it, too ------------------------------------------ */

static void close_reader(struct ledger_file *l)
{
	l->select = db_stmt_free(l->select);
	l->select_group = db_stmt_free(l->select_group);
	l->reader = db_close(l->reader);
}

static int open_reader(struct ledger_file *l, struct err *e)
{
	struct db_options o = {.path = l->path,
			       .read_only = true,
			       .busy_timeout_ms = READ_PATIENCE_MS,
			       .application_id = LEDGER_APPLICATION};
	int r = l->reader ? 0 : db_open(&o, &l->reader, e);
	if (r == 0 && !l->select)
		r = db_prepare(
			l->reader,
			"SELECT backend, task_id, created_us FROM entries WHERE \"group\" = ?1 AND key = ?2",
			&l->select, e);
	if (r == 0 && !l->select_group)
		r = db_prepare(l->reader, "SELECT 1 FROM entries WHERE \"group\" = ?1 LIMIT 1",
			       &l->select_group, e);
	return r;
}

/* The row of that key, or with SPAN_NONE any row of the group. 1 = there is one, 0 = none, <0 = unknown. */
static int read_row(struct ledger_file *l, struct span group, struct span key, struct ledger_entry *ret,
		    struct err *e)
{
	int r = open_reader(l, e);
	if (r < 0)
		return r;
	struct db_stmt *s = key.ptr ? l->select : l->select_group;
	db_bind_text(s, 1, group);
	if (key.ptr)
		db_bind_text(s, 2, key);
	r = db_step(s, e);
	if (r == 1 && key.ptr) {
		span_copy(db_column_text(s, 0), ret->backend, sizeof(ret->backend));
		span_copy(db_column_text(s, 1), ret->task_id, sizeof(ret->task_id));
		ret->created_us = db_column_int64(s, 2);
	}
	db_reset(s);
	return r == 0 && db_moved(l->reader) ? err_set(e, -ESTALE, "%s: was deleted or replaced", l->path)
					     : r;
}

static int ask_file(struct ledger_file *l, struct span group, struct span key, struct ledger_entry *ret)
{
	struct err e;
	pthread_mutex_lock(&l->reader_lock);
	int r = read_row(l, group, key, ret, &e);
	if (r < 0)
		close_reader(l);
	pthread_mutex_unlock(&l->reader_lock);
	if (r == -ESTALE) {
		pthread_mutex_lock(&l->lock);
		l->torn = true;
		pthread_mutex_unlock(&l->lock);
	}
	if (r < 0)
		log_warn("ledger_unreadable", LOG_STR("error", e.text));
	return r;
}

/* Under lock. What memory knows, sure or not. */
static enum ledger_answer recall(struct ledger_file *l, struct span group, struct span key,
				 struct ledger_entry *ret)
{
	const struct slot *s = *ledger_find(l, group, key, ledger_hash_of(l, group, key));
	if (!s)
		return l->whole ? LEDGER_NONE : LEDGER_UNKNOWN;
	if (!s->in)
		return LEDGER_NONE;
	ret->created_us = s->created_us;
	memcpy(ret->backend, s->backend, sizeof(ret->backend));
	memcpy(ret->task_id, s->task_id, sizeof(ret->task_id));
	return LEDGER_FOUND;
}

/* Under lock. Of what this process has taken out, and of what another one is taking out, the file may
 * still know. */
static bool is_being_removed(struct ledger_file *l, struct span group, struct span key,
			     enum ledger_answer *ret)
{
	const struct slot *s = *ledger_find(l, group, key, ledger_hash_of(l, group, key));
	bool others = ledger_share_others(l->share, group, key);
	*ret = s && !s->in && !others ? LEDGER_NONE : LEDGER_UNKNOWN;
	return others || ledger_share_own(l->share, group, key);
}

static enum ledger_answer look_into_file(struct ledger_file *l, struct span group, struct span key,
					 struct ledger_entry *ret)
{
	int r = ask_file(l, group, key, ret);
	if (r != 0)
		return r == 1 ? LEDGER_FOUND : LEDGER_UNKNOWN;
	pthread_mutex_lock(&l->lock);
	enum ledger_answer answer = LEDGER_NONE;
	if (l->torn) /* memory knows of what there was; what it does not know, another process may */
		answer = recall(l, group, key, ret) == LEDGER_FOUND ? LEDGER_FOUND : LEDGER_UNKNOWN;
	pthread_mutex_unlock(&l->lock);
	return answer;
}

static struct ledger_file *file_of(struct ledger *l)
{
	return (struct ledger_file *)l;
}

enum ledger_answer ledger_lookup(struct ledger *of, struct span group, struct span key,
				 struct ledger_entry *ret)
{
	struct ledger_file *l = file_of(of);
	enum ledger_answer answer;
	pthread_mutex_lock(&l->lock);
	bool shared = l->shared, told = !shared || is_being_removed(l, group, key, &answer);
	if (!shared)
		answer = recall(l, group, key, ret);
	pthread_mutex_unlock(&l->lock);
	if (!told)
		answer = look_into_file(l, group, key, ret);
	return answer == LEDGER_FOUND && ledger_entry_set(ret, group, key) != 0 ? LEDGER_NONE : answer;
}

bool ledger_may_have(struct ledger *of, struct span group)
{
	struct ledger_file *l = file_of(of);
	pthread_mutex_lock(&l->lock);
	const struct group *g = group_of(l, group);
	bool shared = l->shared, may = !l->whole || l->torn || (g && g->n_entries > 0);
	pthread_mutex_unlock(&l->lock);
	return shared && !may ? ask_file(l, group, SPAN_NONE, NULL) != 0 : may;
}

/* --- the file ------------------------------------------------------------------------------------------- */

static const char *const schema[] = {
	"CREATE TABLE entries (\"group\" TEXT NOT NULL, key TEXT NOT NULL, backend TEXT NOT NULL, task_id "
	"TEXT NOT NULL,"
	" created_us INTEGER NOT NULL, PRIMARY KEY (\"group\", key)) WITHOUT ROWID;"
	"CREATE INDEX entries_created ON entries (created_us);"};

static void set_failing(struct ledger_file *l, const struct err *e)
{
	pthread_mutex_lock(&l->lock);
	bool news = !l->failing && e;
	l->failing = e != NULL;
	snprintf(l->last_error, sizeof(l->last_error), "%s", e ? e->text : "");
	pthread_mutex_unlock(&l->lock);
	if (news)
		log_error("ledger_failing", LOG_STR("error", e->text));
}

/* What is in memory already is newer than the file. */
static int load_entry(struct ledger_file *l, const struct ledger_entry *entry)
{
	struct span group = span_of(entry->group), key = span_of(entry->key);
	pthread_mutex_lock(&l->lock);
	bool there = *ledger_find(l, group, key, ledger_hash_of(l, group, key));
	int r = there ? 0 : ledger_remember(l, entry, false);
	pthread_mutex_unlock(&l->lock);
	return r;
}

static int ledger_load(struct ledger_file *l, struct err *e)
{
	CLEANUP(db_stmt_freep) struct db_stmt *s = NULL;
	int r = db_prepare(l->db, "SELECT \"group\", key, backend, task_id, created_us FROM entries", &s, e);
	if (r < 0)
		return r;
	int64_t newest_us = 0;
	/* Whatever their age by this clock: they count until the sweep, which knows what to think of the
	 * clock. */
	while ((r = db_step(s, e)) == 1) {
		struct ledger_entry entry = {.created_us = db_column_int64(s, 4)};
		if (ledger_entry_set(&entry, db_column_text(s, 0), db_column_text(s, 1)) != 0)
			continue; /* no request has such a key */
		span_copy(db_column_text(s, 2), entry.backend, sizeof(entry.backend));
		span_copy(db_column_text(s, 3), entry.task_id, sizeof(entry.task_id));
		if (load_entry(l, &entry) < 0)
			return err_set(e, -ENOMEM, "out of memory");
		newest_us = entry.created_us > newest_us ? entry.created_us : newest_us;
	}
	if (r == 0 && !l->aging.what)
		aging_begin(&l->aging, "ledger", newest_us);
	return r;
}

static void ledger_close_file(struct ledger_file *l)
{
	l->put = db_stmt_free(l->put);
	l->remove = db_stmt_free(l->remove);
	l->expire = db_stmt_free(l->expire);
	l->db = db_close(l->db);
}

static int ledger_open_file(struct ledger_file *l, struct err *e)
{
	struct db_options o = {.path = l->path,
			       .sync_full = true,
			       .busy_timeout_ms = 2000,
			       .application_id = LEDGER_APPLICATION};
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
		ledger_close_file(l);
	return r;
}

static int ledger_write_change(struct ledger_file *l, const struct change *c, struct err *e)
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

/* One of a bucket's entries, by its place in it; false beyond the last. */
static bool entry_at(struct ledger_file *l, size_t bucket, size_t place, struct change *ret)
{
	pthread_mutex_lock(&l->lock);
	const struct slot *s = *bucket_at(l, bucket);
	while (s && place-- > 0)
		s = s->next;
	if (s) {
		ret->remove = !s->in;
		span_copy((struct span){s->text, s->group_length}, ret->entry.group,
			  sizeof(ret->entry.group));
		span_copy((struct span){s->text + s->group_length, s->key_length}, ret->entry.key,
			  sizeof(ret->entry.key));
		memcpy(ret->entry.backend, s->backend, sizeof(s->backend));
		memcpy(ret->entry.task_id, s->task_id, sizeof(s->task_id));
		ret->entry.created_us = s->created_us;
	}
	pthread_mutex_unlock(&l->lock);
	return s != NULL;
}

/* The buckets, which stay as they are until this is called with false. */
static size_t keep_buckets(struct ledger_file *l, bool keep)
{
	pthread_mutex_lock(&l->lock);
	size_t n = l->n_buckets;
	l->keep_buckets = keep;
	pthread_mutex_unlock(&l->lock);
	return n;
}

/* Another file is in the old one's place: it gets what memory has, or a restart would know nothing of
 * it. */
static int save_all(struct ledger_file *l, struct err *e)
{
	struct change c = {0};
	int r = db_begin(l->db, e);
	size_t n = keep_buckets(l, true);
	for (size_t bucket = 0; r == 0 && bucket < n; bucket++)
		for (size_t place = 0; r == 0 && entry_at(l, bucket, place, &c); place++)
			r = ledger_write_change(l, &c, e);
	keep_buckets(l, false);
	if (r == 0)
		r = db_commit(l->db, e);
	if (r < 0)
		db_rollback(l->db);
	return r;
}

static void set_whole(struct ledger_file *l, bool whole)
{
	pthread_mutex_lock(&l->lock);
	l->whole = whole;
	pthread_mutex_unlock(&l->lock);
}

static void set_torn(struct ledger_file *l)
{
	pthread_mutex_lock(&l->lock);
	l->torn |= l->shared;
	pthread_mutex_unlock(&l->lock);
}

static bool ledger_is_whole(struct ledger_file *l)
{
	pthread_mutex_lock(&l->lock);
	bool whole = l->whole;
	pthread_mutex_unlock(&l->lock);
	return whole;
}

/* Until the file has been read to its end nobody can say what it does not have. */
static int ledger_read_file(struct ledger_file *l, struct err *e)
{
	int r = ledger_load(l, e);
	if (r == 0)
		set_whole(l, true);
	return r;
}

static int reopen_if_needed(struct ledger_file *l, struct err *e)
{
	if (l->db && db_moved(l->db)) {
		log_error("ledger_replaced", LOG_STR("path", l->path));
		ledger_close_file(l);
		l->replaced = true;
		set_whole(l, false);
		set_torn(l);
	}
	int r = l->db ? 0 : ledger_open_file(l, e);
	if (r == 0 && l->replaced && (r = save_all(l, e)) == 0)
		l->replaced = false;
	return r == 0 && !ledger_is_whole(l) ? ledger_read_file(l, e) : r;
}

/* The removals that are left come first: they are older. */
static int ledger_write_all(struct ledger_file *l, const struct change *first, struct err *e)
{
	int r = db_begin(l->db, e);
	for (const struct change *c = l->unwritten; r == 0 && c; c = c->next)
		r = ledger_write_change(l, c, e);
	for (const struct change *c = first; r == 0 && c; c = c->next)
		r = ledger_write_change(l, c, e);
	return r == 0 ? db_commit(l->db, e) : r;
}

/* All or nothing: one transaction, one sync for many callers. `first` may be NULL. */
static int ledger_write_batch(struct ledger_file *l, const struct change *first)
{
	struct err e;
	int r = reopen_if_needed(l, &e);
	if (r == 0 && (first || l->unwritten))
		r = ledger_write_all(l, first, &e);
	else if (r == 0)
		r = db_probe_write(l->db, &e); /* it failed: whether that is over only writing tells */
	if (r < 0 && l->db)
		db_rollback(l->db);
	if (r < 0 && r != -EBUSY && r != -ENOSPC) /* those two pass by themselves */
		ledger_close_file(l);
	l->failures = r < 0 ? l->failures + 1 : 0;
	set_failing(l, r < 0 ? &e : NULL);
	return r;
}

static void run_done(struct loop_work *w)
{
	struct change *c = (struct change *)w;
	c->fn(c->arg, c->error);
	free(c);
}

/* A removal that cannot be written now is kept for later: who waits for it is told so, once. Without memory
 * for that, when it has been written. */
static void tell_early(struct change *c)
{
	struct change *told = c->fn ? calloc(1, sizeof(*told)) : NULL;
	if (!told)
		return;
	*told = (struct change){.work = {.fn = run_done}, .loop = c->loop, .fn = c->fn, .arg = c->arg};
	c->fn = NULL;
	loop_post(told->loop, &told->work);
}

/* Until the file has been read, and while it is the file that is asked, memory says that it is gone;
 * otherwise by having nothing. */
static void note_removed(struct ledger_file *l, const struct ledger_entry *e)
{
	ledger_forget(l, span_of(e->group), span_of(e->key));
	if (!l->whole || l->shared)
		ledger_remember(l, e, true); /* without memory for it: unknown */
}

static void ledger_finish(struct ledger_file *l, struct change *c, int error)
{
	pthread_mutex_lock(&l->lock);
	bool again = c->remove && error != 0 && !l->stopping;
	c->error = error;
	if (c->remove && error != 0)
		/* once more in the queue's order: the put it follows has only now come into memory */
		note_removed(l, &c->entry);
	else if (c->remove)
		ledger_forget(l, span_of(c->entry.group), span_of(c->entry.key));
	else if (error == 0)
		c->error = ledger_remember(l, &c->entry, false);
	l->n_removals -= c->remove && !again;
	if (c->remove && !again && l->share)
		ledger_share_unmark(l->share, span_of(c->entry.group), span_of(c->entry.key));
	pthread_mutex_unlock(&l->lock);
	if (again) {
		tell_early(c);
		c->next = NULL;
		*l->unwritten_last = c;
		l->unwritten_last = &c->next;
	} else if (c->fn) {
		loop_post(c->loop, &c->work);
	} else {
		free(c);
	}
}

/* In the order in which they came: what was left from before, then this batch. */
static void finish_all(struct ledger_file *l, struct change *batch, int error)
{
	struct change *lists[] = {l->unwritten, batch};
	l->unwritten = NULL;
	l->unwritten_last = &l->unwritten;
	for (size_t i = 0; i < 2; i++)
		for (struct change *c = lists[i], *next; c; c = next) {
			next = c->next;
			ledger_finish(l, c, error);
		}
}

static void sweep(struct ledger_file *l)
{
	int64_t now = clock_mono_ms();
	if (now - l->swept_ms < SWEEP_SECONDS * 1000)
		return;
	if (!l->db || !ledger_is_whole(l))
		return;
	l->swept_ms = now;
	int64_t oldest = oldest_us(l);
	db_bind_int64(l->expire, 1, oldest);
	struct err e;
	if (db_run(l->expire, &e) < 0)
		return; /* the next one will */
	pthread_mutex_lock(&l->lock);
	for (size_t i = 0; i < l->n_buckets; i++)
		for (struct slot **at = bucket_at(l, i); *at;) {
			struct slot *s = *at;
			if (s->created_us >= oldest || !s->in)
				at = &s->next;
			else
				drop_slot(l, at);
		}
	pthread_mutex_unlock(&l->lock);
}

/* --- the end of sharing --------------------------------------------------------------------------------- */

/* Under lock. What is being removed stays known as such. */
static void forget_entries(struct ledger_file *l)
{
	for (size_t i = 0; i < l->n_buckets; i++)
		for (struct slot **at = bucket_at(l, i); *at;)
			if ((*at)->in)
				drop_slot(l, at);
			else
				at = &(*at)->next;
}

static bool may_unshare(struct ledger_file *l)
{
	pthread_mutex_lock(&l->lock);
	bool may = l->shared && !l->held && !l->stopping && !l->unwritten;
	pthread_mutex_unlock(&l->lock);
	return may && l->db && !db_moved(l->db) && ledger_share_alone(l->share);
}

/* The other processes have ended: what they wrote comes into memory, which answers from then on. Meanwhile
 * the file is asked, and nobody writes it: that is done by this thread. */
static void end_sharing(struct ledger_file *l)
{
	struct err e;
	if (!may_unshare(l))
		return;
	pthread_mutex_lock(&l->lock);
	l->whole = false;
	forget_entries(l);
	pthread_mutex_unlock(&l->lock);
	if (ledger_load(l, &e) < 0) {
		log_warn("ledger_unreadable", LOG_STR("error", e.text));
		return; /* the file continues answering */
	}
	pthread_mutex_lock(&l->lock);
	bool ended = !l->held;
	l->whole = true;
	if (ended) {
		l->shared = l->torn = false;
		ledger_share_reset(l->share);
	}
	pthread_mutex_unlock(&l->lock);
	if (ended)
		log_info("ledger_alone", LOG_STR("path", l->path));
}

static unsigned patience_ms(struct ledger_file *l)
{
	if (l->failures)
		return backoff_ms(RETRY_FIRST_MS, RETRY_MAX_MS, l->failures);
	pthread_mutex_lock(&l->lock);
	bool looks = l->shared && !l->held;
	pthread_mutex_unlock(&l->lock);
	return looks ? UNSHARE_MS : SWEEP_SECONDS * 1000;
}

static struct timespec wait_until(struct ledger_file *l)
{
	return clock_deadline(CLOCK_MONOTONIC, patience_ms(l));
}

/* Up to BATCH_MAX changes, or NULL at the end; waits for the first, at most until the next sweep or try. */
static struct change *ledger_take_batch(struct ledger_file *l, bool *end)
{
	struct timespec until = wait_until(l);
	pthread_mutex_lock(&l->lock);
	while (!l->first && !l->stopping && !l->let_go)
		if (pthread_cond_timedwait(&l->wake, &l->lock, &until) == ETIMEDOUT)
			break;
	l->let_go = false;
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

static void *ledger_run(void *arg)
{
	struct ledger_file *l = arg;
	for (bool end = false; !end;) {
		struct change *batch = ledger_take_batch(l, &end);
		if (batch || l->failures)
			finish_all(l, batch, ledger_write_batch(l, batch));
		end_sharing(l);
		sweep(l);
	}
	return NULL;
}

/* --- face ----------------------------------------------------------------------------------------------- */

static void enqueue(struct ledger_file *l, struct change *c)
{
	pthread_mutex_lock(&l->lock);
	int full = 0;
	if (!c->remove && l->n_queued >= LEDGER_QUEUE)
		full = -EAGAIN;
	else if (!c->remove &&
		 l->n_entries + l->n_queued >= LEDGER_MAX_ENTRIES) /* before it is in the file */
		full = -ENOSPC;
	if (!full) {
		l->n_removals += c->remove;
		if (c->remove && l->share)
			ledger_share_mark(l->share, span_of(c->entry.group), span_of(c->entry.key));
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

static void file_ask(struct ledger *l, struct loop *loop, struct span group, struct span key,
		     ledger_told_fn fn, void *arg)
{
	struct ledger_entry entry;
	(void)loop;
	if (!key.ptr) {
		fn(arg, ledger_may_have(l, group) ? LEDGER_FOUND : LEDGER_NONE, NULL);
		return;
	}
	enum ledger_answer answer = ledger_lookup(l, group, key, &entry);
	fn(arg, answer, answer == LEDGER_FOUND ? &entry : NULL);
}

static void file_put(struct ledger *l, struct loop *loop, const struct ledger_entry *entry, const char *turn,
		     ledger_done_fn fn, void *arg)
{
	(void)turn;
	struct change *c = calloc(1, sizeof(*c));
	if (!c) {
		fn(arg, -ENOMEM);
		return;
	}
	*c = (struct change){.work = {.fn = run_done}, .entry = *entry, .loop = loop, .fn = fn, .arg = arg};
	if (!c->entry.created_us)
		c->entry.created_us = clock_wall_us();
	enqueue(file_of(l), c);
}

/* Under lock. Another version is in place of the one meant. */
static bool ledger_was_replaced(struct ledger_file *l, const struct ledger_entry *e)
{
	struct span group = span_of(e->group), key = span_of(e->key);
	const struct slot *s = *ledger_find(l, group, key, ledger_hash_of(l, group, key));
	return e->created_us && !l->shared && s && s->in && s->created_us != e->created_us;
}

/* Gone from lookups at once, from the file soon after; then fn is called, which may be NULL. 1: it will be;
 * 0: there is nothing to remove, or nobody to call. */
static int ledger_take_out(struct ledger_file *l, struct loop *loop, const struct ledger_entry *entry,
			   ledger_done_fn fn, void *arg)
{
	struct change *c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	*c = (struct change){.work = {.fn = run_done},
			     .remove = true,
			     .entry = *entry,
			     .loop = loop,
			     .fn = fn,
			     .arg = arg};
	pthread_mutex_lock(&l->lock);
	bool over = ledger_was_replaced(l, entry), full = !over && l->n_removals >= REMOVALS_MAX;
	if (!full && !over)
		note_removed(l, &c->entry);
	pthread_mutex_unlock(&l->lock);
	if (full || over)
		free(c);
	else
		enqueue(l, c);
	if (full)
		return -EAGAIN;
	return !over && fn;
}

static void file_remove(struct ledger *l, struct loop *loop, const struct ledger_entry *entry,
			ledger_done_fn fn, void *arg)
{
	int r = ledger_take_out(file_of(l), loop, entry, fn, arg);
	if (fn && r <= 0)
		fn(arg, r);
}

static void file_take(struct ledger *l, struct loop *loop, const struct ledger_entry *key, const char *turn,
		      ledger_done_fn fn, void *arg)
{
	struct ledger_entry there;
	struct ledger_file *f = file_of(l);
	(void)turn;
	pthread_mutex_lock(&f->lock);
	/* perhaps of this key: what is gone from memory may be in the file */
	bool removing = f->n_removals > 0;
	pthread_mutex_unlock(&f->lock);
	if (!removing && ledger_lookup(l, span_of(key->group), span_of(key->key), &there) == LEDGER_NONE)
		fn(arg, 0);
	else
		file_remove(l, loop, key, fn, arg);
}

static void file_leave(struct ledger *l, const struct ledger_entry *key, const char *turn)
{
	(void)l;
	(void)key;
	(void)turn;
}

static void ledger_release(struct ledger_file *l)
{
	ledger_close_file(l);
	close_reader(l);
	ledger_share_close(l->share);
	free(l->path);
	buckets_free(l);
	while (l->groups) {
		struct group *g = l->groups;
		l->groups = g->next;
		free(g);
	}
	while (l->unwritten) {
		struct change *c = l->unwritten;
		l->unwritten = c->next;
		free(c);
	}
	pthread_cond_destroy(&l->wake);
	pthread_mutex_destroy(&l->lock);
	pthread_mutex_destroy(&l->reader_lock);
	free(l);
}

/* What will not pass by itself, and what nobody but who sets it up can mend. */
static bool is_mistake(int error)
{
	return error == -EISDIR || error == -EPROTO || error == -EACCES || error == -ENOMEM;
}

/* A router that still drains may be there, or one that is being taken over. Its presence counts from
 * before the file is read. */
static void begin_share(struct ledger_file *l)
{
	struct err e;
	if (ledger_share_open(l->path, &l->share, &e) < 0) {
		log_warn("ledger_unshareable", LOG_STR("error", e.text),
			 LOG_STR("effect", "no takeover is possible without a gap"));
		return;
	}
	l->shared = !ledger_share_alone(l->share);
	if (!l->shared)
		ledger_share_reset(l->share);
	else if (open_reader(l, &e) < 0)
		close_reader(l); /* it is tried again when it is needed */
}

/* A file that cannot be read (locked, damaged, an I/O error) keeps nobody from being served but those who
 * ask for what it has. */
static int ledger_begin(struct ledger_file *l, struct err *e)
{
	int r = ledger_open_file(l, e);
	if (r < 0 && is_mistake(r))
		return r;
	begin_share(l);
	if (r == 0)
		r = ledger_read_file(l, e);
	if (r == 0 || is_mistake(r))
		return r;
	ledger_close_file(l);
	l->failures = 1;
	set_failing(l, e);
	return 0;
}

static struct ledger *file_stop(struct ledger *of)
{
	struct ledger_file *l = file_of(of);
	pthread_mutex_lock(&l->lock);
	l->stopping = true;
	pthread_cond_signal(&l->wake);
	pthread_mutex_unlock(&l->lock);
	pthread_join(l->thread, NULL);
	ledger_release(l);
	return NULL;
}

static void file_status(struct ledger *of, struct ledger_status *ret)
{
	struct ledger_file *l = file_of(of);
	pthread_mutex_lock(&l->lock);
	*ret = (struct ledger_status){
		.entries = l->n_entries, .queued = l->n_queued, .failing = l->failing, .shared = l->shared};
	memcpy(ret->last_error, l->last_error, sizeof(ret->last_error));
	pthread_mutex_unlock(&l->lock);
}

static int file_share(struct ledger *of, struct err *e)
{
	struct ledger_file *l = file_of(of);
	if (!l->share || ledger_share_moved(l->share))
		return err_set(e, -ESTALE, "%s-pending: could not be created, or was deleted or replaced",
			       l->path);
	pthread_mutex_lock(&l->reader_lock);
	int r = open_reader(l, e);
	if (r < 0)
		close_reader(l);
	pthread_mutex_unlock(&l->reader_lock);
	if (r < 0)
		return r;
	pthread_mutex_lock(&l->lock);
	l->shared = l->held = true;
	pthread_mutex_unlock(&l->lock);
	return 0;
}

static void file_unshare(struct ledger *of)
{
	struct ledger_file *l = file_of(of);
	pthread_mutex_lock(&l->lock);
	l->held = false;
	l->let_go = true;
	pthread_cond_signal(&l->wake);
	pthread_mutex_unlock(&l->lock);
}

static const struct ledger_verbs verbs = {.stop = file_stop,
					  .ask = file_ask,
					  .put = file_put,
					  .remove = file_remove,
					  .take = file_take,
					  .leave = file_leave,
					  .share = file_share,
					  .unshare = file_unshare,
					  .status = file_status};

int ledger_file_start(const char *path, struct ledger **ret, struct err *e)
{
	struct ledger_file *l = calloc(1, sizeof(*l));
	if (!l)
		return err_set(e, -ENOMEM, "out of memory");
	l->base.verbs = &verbs;
	l->last = &l->first;
	l->unwritten_last = &l->unwritten;
	l->swept_ms = clock_mono_ms() - SWEEP_SECONDS * 1000;
	pthread_mutex_init(&l->lock, NULL);
	pthread_mutex_init(&l->reader_lock, NULL);
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
	int r = buckets_new(l) && l->path ? ledger_begin(l, e) : err_set(e, -ENOMEM, "out of memory");
	if (r == 0 && (r = -pthread_create(&l->thread, NULL, ledger_run, l)) < 0)
		err_set(e, r, "thread: %s", strerror(-r));
	if (r < 0) {
		ledger_release(l);
		return r;
	}
	*ret = &l->base;
	return 0;
}
