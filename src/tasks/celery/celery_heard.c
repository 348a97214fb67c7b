#include "tasks/celery/celery_heard.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/hash.h"
#include "base/mailbox.h"
#include "tasks/celery/celery_internal.h"

#define BUCKETS 4096

/* One result, told to any number of loops. */
struct heard_text {
	unsigned refs; /* under the lock */
	size_t len;
	char bytes[];
};

struct heard_entry {
	LIST_ENTRY(heard_entry) in_bucket;
	TAILQ_ENTRY(heard_entry) by_age;
	LIST_HEAD(, celery_watch) watches;
	struct heard_text *text;
	char id[TASK_ID_MAX];
};

struct heard_mail {
	struct mail mail;
	enum { MAIL_WATCH, MAIL_STATE, MAIL_READING } kind;
	bool posted; /* under the lock */
};

struct celery_watch {
	struct heard_mail mail; /* first */
	struct celery_ear *ear;
	struct heard_entry *entry;
	LIST_ENTRY(celery_watch) of_entry;
	LIST_ENTRY(celery_watch) of_ear;
	const struct celery_watcher *watcher;
	void *arg;
	bool ready_due, text_due; /* under the lock */
	bool gone;		  /* unwatched, with its mail under way */
};

struct celery_reading {
	struct heard_mail mail; /* first */
	struct celery_ear *ear;
	TAILQ_ENTRY(celery_reading) place;
	LIST_ENTRY(celery_reading) of_ear;
	bool queued;	   /* in `asked`, or the one that the thread has: under the lock */
	celery_read_fn fn; /* NULL: dropped */
	void *arg;
	enum celery_read_outcome outcome;
	size_t n;
	struct heard_text **texts;
	char (*ids)[TASK_ID_MAX];
};

struct celery_ear {
	struct heard_mail mail; /* first: of the state */
	struct celery_heard *h;
	struct celery_client *client;
	struct mailbox *mailbox;
	LIST_ENTRY(celery_ear) place;
	LIST_HEAD(, celery_watch) watches;
	LIST_HEAD(, celery_reading) readings;
};

struct celery_heard {
	bool keeps;
	void (*wake)(void *arg);
	void *arg;
	pthread_mutex_t lock;
	LIST_HEAD(, heard_entry) buckets[BUCKETS];
	TAILQ_HEAD(, heard_entry) ages; /* oldest first */
	size_t n, n_watched, bytes;
	struct heard_entry *turn; /* where celery_heard_watched goes on */
	LIST_HEAD(, celery_ear) ears;
	TAILQ_HEAD(, celery_reading) asked;
	struct celery_reading *taken;
	bool ready;
	char why[ERR_TEXT_MAX];
};

/* --- texts and entries: under the lock ------------------------------------------------------------------ */

static struct heard_text *text_new(struct span s)
{
	struct heard_text *t = malloc(sizeof(*t) + s.len);
	if (!t)
		return NULL;
	t->refs = 1;
	t->len = s.len;
	memcpy(t->bytes, s.len ? s.ptr : "", s.len);
	return t;
}

static struct heard_text *text_keep(struct heard_text *t)
{
	if (t)
		t->refs++;
	return t;
}

static void text_drop(struct heard_text *t)
{
	if (t && --t->refs == 0)
		free(t);
}

static unsigned bucket_of(struct span id)
{
	return hash32(HASH32_START, id) % BUCKETS;
}

static struct heard_entry *entry_find(const struct celery_heard *h, struct span id)
{
	struct heard_entry *entry;
	LIST_FOREACH (entry, &h->buckets[bucket_of(id)], in_bucket)
		if (span_is(id, entry->id))
			return entry;
	return NULL;
}

static void entry_free(struct celery_heard *h, struct heard_entry *entry)
{
	if (h->turn == entry)
		h->turn = TAILQ_NEXT(entry, by_age);
	LIST_REMOVE(entry, in_bucket);
	TAILQ_REMOVE(&h->ages, entry, by_age);
	h->n--;
	h->bytes -= entry->text ? entry->text->len : 0;
	text_drop(entry->text);
	free(entry);
}

/* The oldest that nobody watches go. */
static void make_room(struct celery_heard *h)
{
	struct heard_entry *entry = TAILQ_FIRST(&h->ages), *next;
	for (; entry && (h->n - h->n_watched > CELERY_KEPT_IDS || h->bytes > CELERY_KEPT_BYTES);
	     entry = next) {
		next = TAILQ_NEXT(entry, by_age);
		if (LIST_EMPTY(&entry->watches))
			entry_free(h, entry);
	}
}

static struct heard_entry *entry_of(struct celery_heard *h, struct span id)
{
	struct heard_entry *entry = id.len < TASK_ID_MAX ? entry_find(h, id) : NULL;
	if (entry || id.len >= TASK_ID_MAX)
		return entry;
	make_room(h);
	entry = calloc(1, sizeof(*entry));
	if (!entry)
		return NULL;
	span_copy(id, entry->id, sizeof(entry->id));
	LIST_INSERT_HEAD(&h->buckets[bucket_of(id)], entry, in_bucket);
	TAILQ_INSERT_TAIL(&h->ages, entry, by_age);
	h->n++;
	return entry;
}

static void post(struct celery_ear *ear, struct heard_mail *m)
{
	if (m->posted)
		return;
	m->posted = true;
	mailbox_put(ear->mailbox, &m->mail);
}

/* --- life ----------------------------------------------------------------------------------------------- */

int celery_heard_new(bool keeps, void (*wake)(void *arg), void *arg, struct celery_heard **ret)
{
	struct celery_heard *h = calloc(1, sizeof(*h));
	if (!h)
		return -ENOMEM;
	h->keeps = keeps;
	h->wake = wake;
	h->arg = arg;
	pthread_mutex_init(&h->lock, NULL);
	TAILQ_INIT(&h->ages);
	TAILQ_INIT(&h->asked);
	*ret = h;
	return 0;
}

struct celery_heard *celery_heard_free(struct celery_heard *h)
{
	if (!h)
		return NULL;
	while (!TAILQ_EMPTY(&h->ages))
		entry_free(h, TAILQ_FIRST(&h->ages));
	pthread_mutex_destroy(&h->lock);
	free(h);
	return NULL;
}

static void wake(const struct celery_heard *h)
{
	if (h->wake)
		h->wake(h->arg);
}

/* --- the thread's half ---------------------------------------------------------------------------------- */

void celery_heard_state(struct celery_heard *h, const char *why)
{
	struct celery_ear *ear;
	struct celery_watch *w;
	pthread_mutex_lock(&h->lock);
	h->ready = why && !*why;
	span_copy(span_of(why ? why : ""), h->why, sizeof(h->why));
	LIST_FOREACH (ear, &h->ears, place) {
		if (why)
			post(ear, &ear->mail);
		LIST_FOREACH (w, &ear->watches, of_ear) {
			w->ready_due |= h->ready;
			if (h->ready)
				post(ear, &w->mail);
		}
	}
	pthread_mutex_unlock(&h->lock);
}

void celery_heard_text(struct celery_heard *h, struct span id, struct span text)
{
	struct celery_watch *w;
	pthread_mutex_lock(&h->lock);
	struct heard_entry *entry = h->keeps ? entry_of(h, id) : entry_find(h, id);
	struct heard_text *t = entry ? text_new(text) : NULL;
	if (t) {
		h->bytes += t->len - (entry->text ? entry->text->len : 0);
		text_drop(entry->text);
		entry->text = t;
		LIST_FOREACH (w, &entry->watches, of_entry) {
			w->text_due = true;
			post(w->ear, &w->mail);
		}
	}
	pthread_mutex_unlock(&h->lock);
}

size_t celery_heard_watched(struct celery_heard *h, size_t max, struct buf *out)
{
	size_t found = 0;
	pthread_mutex_lock(&h->lock);
	for (size_t seen = 0; seen < h->n && found < max; seen++) {
		struct heard_entry *entry = h->turn ? h->turn : TAILQ_FIRST(&h->ages);
		h->turn = TAILQ_NEXT(entry, by_age);
		if (!entry->text && !LIST_EMPTY(&entry->watches) &&
		    buf_append(out, entry->id, strlen(entry->id) + 1) == 0)
			found++;
	}
	pthread_mutex_unlock(&h->lock);
	return found;
}

bool celery_heard_take(struct celery_heard *h, struct buf *ids, size_t *n)
{
	pthread_mutex_lock(&h->lock);
	struct celery_reading *r = TAILQ_FIRST(&h->asked);
	if (r) {
		TAILQ_REMOVE(&h->asked, r, place);
		*n = r->n;
		for (size_t i = 0; i < r->n; i++)
			buf_append(ids, r->ids[i], strlen(r->ids[i]) + 1);
	}
	h->taken = r;
	pthread_mutex_unlock(&h->lock);
	return r != NULL;
}

static void reading_free(struct celery_reading *r)
{
	for (size_t i = 0; r->texts && i < r->n; i++)
		text_drop(r->texts[i]);
	free(r->texts);
	free(r->ids);
	free(r);
}

void celery_heard_answer(struct celery_heard *h, enum celery_read_outcome outcome, const struct span *texts,
			 size_t n)
{
	pthread_mutex_lock(&h->lock);
	struct celery_reading *r = h->taken;
	h->taken = NULL;
	if (r) {
		r->queued = false;
		r->outcome = outcome;
		for (size_t i = 0; i < n && i < r->n; i++)
			r->texts[i] = texts[i].ptr ? text_new(texts[i]) : NULL;
		post(r->ear, &r->mail);
	}
	pthread_mutex_unlock(&h->lock);
}

/* --- mails, on their loop ------------------------------------------------------------------------------- */

static void watch_free(struct celery_watch *w)
{
	free(w);
}

static void on_watch_mail(struct celery_heard *h, struct celery_watch *w)
{
	const struct celery_watcher *watcher = w->watcher;
	void *arg = w->arg;
	pthread_mutex_lock(&h->lock);
	w->mail.posted = false;
	bool gone = w->gone, ready = w->ready_due, due = w->text_due;
	struct heard_text *t = due && !gone ? text_keep(w->entry->text) : NULL;
	w->ready_due = false;
	w->text_due = due && ready && !gone;
	if (w->text_due)
		post(w->ear, &w->mail); /* one call at a time: each may end the watch */
	pthread_mutex_unlock(&h->lock);
	if (gone)
		watch_free(w);
	else if (ready)
		watcher->ready(arg);
	else if (t)
		watcher->message(arg, (struct span){t->bytes, t->len});
	pthread_mutex_lock(&h->lock);
	text_drop(t);
	pthread_mutex_unlock(&h->lock);
}

static void on_reading_mail(struct celery_heard *h, struct celery_reading *r)
{
	CLEANUP(freep) struct span *texts = calloc(r->n, sizeof(*texts));
	for (size_t i = 0; texts && i < r->n; i++)
		if (r->texts[i])
			texts[i] = (struct span){r->texts[i]->bytes, r->texts[i]->len};
	if (r->fn) {
		LIST_REMOVE(r, of_ear);
		r->fn(r->arg, texts ? r->outcome : CELERY_UNREAD, texts, texts ? r->n : 0);
	}
	pthread_mutex_lock(&h->lock);
	reading_free(r);
	pthread_mutex_unlock(&h->lock);
}

static void on_state_mail(struct celery_ear *ear)
{
	struct celery_heard *h = ear->h;
	char why[ERR_TEXT_MAX];
	pthread_mutex_lock(&h->lock);
	ear->mail.posted = false;
	span_copy(span_of(h->why), why, sizeof(why));
	pthread_mutex_unlock(&h->lock);
	if (*why)
		celery_hearing_down(ear->client, why);
}

static void on_mail(void *arg, struct mail *m)
{
	struct celery_ear *ear = arg;
	struct celery_heard *h = ear->h;
	struct heard_mail *hm = (struct heard_mail *)m;
	if (hm->kind == MAIL_WATCH)
		on_watch_mail(h, (struct celery_watch *)hm);
	else if (hm->kind == MAIL_READING)
		on_reading_mail(h, (struct celery_reading *)hm);
	else
		on_state_mail(ear);
}

/* --- ears ----------------------------------------------------------------------------------------------- */

int celery_ear_new(struct celery_heard *h, struct loop *loop, struct celery_client *c,
		   struct celery_ear **ret)
{
	struct celery_ear *ear = calloc(1, sizeof(*ear));
	if (!ear)
		return -ENOMEM;
	ear->mail.kind = MAIL_STATE;
	ear->h = h;
	ear->client = c;
	int r = mailbox_new(loop, on_mail, ear, &ear->mailbox);
	if (r < 0) {
		free(ear);
		return r;
	}
	pthread_mutex_lock(&h->lock);
	LIST_INSERT_HEAD(&h->ears, ear, place);
	if (h->why[0])
		post(ear, &ear->mail);
	pthread_mutex_unlock(&h->lock);
	*ret = ear;
	return 0;
}

/* What the thread has in its hands is answered before it is let go. */
static void drop_readings(struct celery_ear *ear)
{
	struct celery_reading *r;
	while ((r = LIST_FIRST(&ear->readings)))
		celery_ear_read_drop(r);
}

void celery_ear_free(struct celery_ear *ear)
{
	if (!ear)
		return;
	struct celery_heard *h = ear->h;
	drop_readings(ear);
	pthread_mutex_lock(&h->lock);
	LIST_REMOVE(ear, place);
	for (struct mail *m = mailbox_free(ear->mailbox), *next; m; m = next) {
		struct heard_mail *hm = (struct heard_mail *)m;
		next = m->next;
		if (hm->kind == MAIL_WATCH)
			watch_free((struct celery_watch *)hm);
		else if (hm->kind == MAIL_READING)
			reading_free((struct celery_reading *)hm);
	}
	pthread_mutex_unlock(&h->lock);
	free(ear);
}

bool celery_ear_ready(const struct celery_ear *ear)
{
	pthread_mutex_lock(&ear->h->lock);
	bool ready = ear->h->ready;
	pthread_mutex_unlock(&ear->h->lock);
	return ready;
}

bool celery_ear_knows(const struct celery_ear *ear, struct span id)
{
	pthread_mutex_lock(&ear->h->lock);
	const struct heard_entry *entry = entry_find(ear->h, id);
	bool there = entry && (entry->text || ear->h->ready);
	pthread_mutex_unlock(&ear->h->lock);
	return there;
}

void celery_ear_sent(struct celery_ear *ear, struct span id)
{
	pthread_mutex_lock(&ear->h->lock);
	entry_of(ear->h, id);
	pthread_mutex_unlock(&ear->h->lock);
}

struct celery_watch *celery_ear_watch(struct celery_ear *ear, struct span id,
				      const struct celery_watcher *watcher, void *arg)
{
	struct celery_heard *h = ear->h;
	struct celery_watch *w = calloc(1, sizeof(*w));
	if (!w)
		return NULL;
	w->mail.kind = MAIL_WATCH;
	w->ear = ear;
	w->watcher = watcher;
	w->arg = arg;
	pthread_mutex_lock(&h->lock);
	w->entry = entry_of(h, id);
	if (w->entry) {
		h->n_watched += LIST_EMPTY(&w->entry->watches);
		LIST_INSERT_HEAD(&w->entry->watches, w, of_entry);
		LIST_INSERT_HEAD(&ear->watches, w, of_ear);
		w->ready_due = h->ready;
		w->text_due = w->entry->text != NULL;
		if (w->ready_due || w->text_due)
			post(ear, &w->mail);
	}
	pthread_mutex_unlock(&h->lock);
	if (!w->entry) {
		free(w);
		return NULL;
	}
	wake(h);
	return w;
}

void celery_ear_unwatch(struct celery_watch *w)
{
	if (!w)
		return;
	struct celery_heard *h = w->ear->h;
	pthread_mutex_lock(&h->lock);
	LIST_REMOVE(w, of_entry);
	LIST_REMOVE(w, of_ear);
	if (LIST_EMPTY(&w->entry->watches)) {
		h->n_watched--;
		if (!h->keeps)
			entry_free(h, w->entry);
	}
	w->entry = NULL;
	w->gone = true;
	bool posted = w->mail.posted;
	pthread_mutex_unlock(&h->lock);
	if (!posted)
		watch_free(w);
}

static bool reading_rooms(struct celery_reading *r)
{
	r->ids = calloc(r->n ? r->n : 1, sizeof(*r->ids));
	r->texts = calloc(r->n ? r->n : 1, sizeof(struct heard_text *));
	return r->ids && r->texts;
}

struct celery_reading *celery_ear_read(struct celery_ear *ear, const struct span *ids, size_t n,
				       celery_read_fn fn, void *arg)
{
	struct celery_heard *h = ear->h;
	struct celery_reading *r = calloc(1, sizeof(*r));
	if (r)
		*r = (struct celery_reading){.ear = ear, .n = n, .fn = fn, .arg = arg};
	if (!r || !reading_rooms(r)) {
		if (r)
			reading_free(r);
		fn(arg, CELERY_UNREAD, NULL, 0);
		return NULL;
	}
	r->mail.kind = MAIL_READING;
	pthread_mutex_lock(&h->lock);
	LIST_INSERT_HEAD(&ear->readings, r, of_ear);
	for (size_t i = 0; i < n; i++) {
		struct heard_entry *entry = h->keeps ? entry_find(h, ids[i]) : NULL;
		span_copy(ids[i], r->ids[i], TASK_ID_MAX);
		r->texts[i] = text_keep(entry ? entry->text : NULL);
	}
	r->outcome = CELERY_READ;
	r->queued = !h->keeps;
	if (h->keeps)
		post(ear, &r->mail);
	else
		TAILQ_INSERT_TAIL(&h->asked, r, place);
	pthread_mutex_unlock(&h->lock);
	wake(h);
	return r;
}

void celery_ear_read_drop(struct celery_reading *r)
{
	if (!r)
		return;
	struct celery_heard *h = r->ear->h;
	LIST_REMOVE(r, of_ear);
	r->fn = NULL;
	pthread_mutex_lock(&h->lock);
	if (h->taken == r)
		h->taken = NULL;
	else if (r->queued)
		TAILQ_REMOVE(&h->asked, r, place);
	if (!r->mail.posted)
		reading_free(r);
	pthread_mutex_unlock(&h->lock);
}
