/*
 * `db+postgresql://`: the table celery_taskmeta that Celery's database backend writes. Nobody tells when a
 * row changes, so that it is asked: one query for all results that are awaited, every result_poll_interval,
 * on a thread of its own (libpq waits for names), as long as anything is.
 *
 * Rows:      Celery 5.7 and newer store the result as result_serializer has it; older ones as a pickle,
 *            whatever that says, of which plain values are read (celery_pickle.h).
 * Table:     the workers' to make. While it is not there, nothing is stored yet.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/backoff.h"
#include "base/json.h"
#include "base/postgres.h"
#include "tasks/celery/celery_heard.h"
#include "tasks/celery/celery_internal.h"
#include "tasks/celery/celery_pickle.h"

#define IDS_MAX 1000 /* of one query */
#define RESULT_MAX "67108864"
#define BACKOFF_MIN_MS 50
#define BACKOFF_MAX_MS 5000

struct celery_postgres {
	const struct celery_options *o;
	struct celery_heard *heard;
	pthread_t thread;
	bool has_thread;
	int wake;
	pthread_mutex_t lock;
	bool stop; /* under the lock */
	char where[256], select[700], poll[800];
	/* the thread's */
	struct postgres *connection;
	bool told; /* results are heard */
	unsigned failures;
	uint64_t again_ms, polled_ms;
};

static uint64_t poller_now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* --- rows ----------------------------------------------------------------------------------------------- */

enum { TASK_ID, STATUS, RESULT, TRACEBACK, DATE_DONE };

static void put_member(struct buf *out, const char *name, struct span text)
{
	buf_printf(out, ", \"%s\": ", name);
	if (text.ptr)
		json_quote(out, text);
	else
		buf_puts(out, "null");
}

/* What cannot be read becomes no JSON, which celery_meta.h then says of a result that is there. */
static void put_result(struct span bytes, struct span status, struct buf *out)
{
	size_t at = out->len;
	if (!bytes.ptr)
		/* NULL is None; and of SUCCESS what is above RESULT_MAX */
		buf_puts(out, span_is(status, "SUCCESS") ? "too large" : "null");
	else if (!celery_is_pickle(bytes))
		buf_append_span(out, bytes);
	else if (celery_pickle_to_json(bytes, out) < 0) {
		out->len = at;
		out->error = 0;
		buf_puts(out, "unreadable");
	}
}

/* As the key-value stores have it; the date is UTC. */
static void put_meta(const struct postgres_rows *rows, size_t row, struct buf *out)
{
	struct span status = postgres_value(rows, row, STATUS), date = postgres_value(rows, row, DATE_DONE);
	char text[40];
	span_copy(date, text, sizeof(text));
	if (date.ptr && strlen(text) > 10)
		text[10] = 'T';
	buf_puts(out, "{\"status\": ");
	json_quote(out, status);
	put_member(out, "traceback", postgres_value(rows, row, TRACEBACK));
	put_member(out, "date_done", date.ptr ? span_of(text) : SPAN_NONE);
	buf_puts(out, ", \"result\": ");
	put_result(postgres_value(rows, row, RESULT), status, out);
	buf_putc(out, '}');
}

/* --- the connection ------------------------------------------------------------------------------------- */

static void poller_lose(struct celery_postgres *p, const struct err *why)
{
	postgres_close(p->connection);
	p->connection = NULL;
	p->told = false;
	p->failures++;
	p->again_ms = poller_now_ms() + backoff_ms(BACKOFF_MIN_MS, BACKOFF_MAX_MS, p->failures);
	celery_heard_state(p->heard, why->text);
}

static void poller_well(struct celery_postgres *p)
{
	p->failures = 0;
	if (!p->told)
		celery_heard_state(p->heard, "");
	p->told = true;
}

static bool connected(struct celery_postgres *p)
{
	struct err why;
	if (p->connection)
		return true;
	if (poller_now_ms() < p->again_ms)
		return false;
	if (postgres_open(p->o->postgres, p->o->connect_timeout_ms, &p->connection, &why) == 0)
		return true;
	p->connection = NULL;
	poller_lose(p, &why);
	return false;
}

/* 0 with rows (NULL: there is no table yet), > 0: refused, < 0: lost. */
static int run(struct celery_postgres *p, const char *sql, struct span ids, struct postgres_rows **ret)
{
	struct err why;
	*ret = NULL;
	int r = postgres_query_texts(p->connection, sql, ids, p->o->command_timeout_ms, ret, &why);
	if (r == POSTGRES_NO_TABLE)
		r = 0;
	if (r == 0) {
		poller_well(p);
	} else if (r > 0) { /* such as a user who may not read the table */
		p->told = false;
		celery_heard_state(p->heard, why.text);
	} else {
		poller_lose(p, &why);
	}
	return r;
}

/* --- reading -------------------------------------------------------------------------------------------- */

static void answer(struct celery_postgres *p, struct span ids, size_t n, const struct postgres_rows *rows)
{
	CLEANUP(freep) struct span *texts = calloc(n ? n : 1, sizeof(*texts));
	CLEANUP(freep) struct buf *bufs = calloc(n ? n : 1, sizeof(*bufs));
	size_t found = rows ? postgres_row_count(rows) : 0, i = 0;
	for (size_t at = 0; texts && bufs && i < n && at < ids.len; i++) {
		const char *id = ids.ptr + at;
		bufs[i] = BUF_INIT(512u << 20);
		for (size_t row = 0; row < found && !texts[i].ptr; row++) {
			if (!span_is(postgres_value(rows, row, TASK_ID), id))
				continue;
			put_meta(rows, row, &bufs[i]);
			texts[i] = buf_span(&bufs[i]);
		}
		at += strlen(id) + 1;
	}
	celery_heard_answer(p->heard, texts && bufs ? CELERY_READ : CELERY_UNREAD, texts,
			    texts && bufs ? n : 0);
	while (bufs && i-- > 0)
		buf_release(&bufs[i]);
}

static void read_one(struct celery_postgres *p, struct span ids, size_t n)
{
	struct postgres_rows *rows = NULL;
	int r = connected(p) ? run(p, p->select, ids, &rows) : -EIO;
	/* A connection that had been idle may have been lost long ago. */
	if (r < 0 && p->failures == 1) {
		p->again_ms = 0;
		r = connected(p) ? run(p, p->select, ids, &rows) : -EIO;
	}
	if (r == 0)
		answer(p, ids, n, rows);
	else
		celery_heard_answer(p->heard, r > 0 ? CELERY_READ_REFUSED : CELERY_UNREAD, NULL, 0);
	postgres_rows_free(rows);
}

static void read_asked(struct celery_postgres *p)
{
	CLEANUP(buf_releasep) struct buf ids = BUF_INIT(16u << 20);
	size_t n;
	while (celery_heard_take(p->heard, &ids, &n)) {
		if (ids.error)
			celery_heard_answer(p->heard, CELERY_UNREAD, NULL, 0);
		else
			read_one(p, buf_span(&ids), n);
		buf_clear(&ids);
	}
}

/* --- polling -------------------------------------------------------------------------------------------- */

/* Whether anything is awaited. */
static bool poll_watched(struct celery_postgres *p)
{
	CLEANUP(buf_releasep) struct buf ids = BUF_INIT(1u << 20), text = BUF_INIT(512u << 20);
	struct postgres_rows *rows = NULL;
	size_t n = celery_heard_watched(p->heard, IDS_MAX, &ids);
	p->polled_ms = poller_now_ms();
	if (n == 0)
		return false;
	if (!connected(p) || run(p, p->poll, buf_span(&ids), &rows) != 0)
		return true;
	for (size_t row = 0; rows && row < postgres_row_count(rows); row++) {
		buf_clear(&text);
		put_meta(rows, row, &text);
		if (!text.error)
			celery_heard_text(p->heard, postgres_value(rows, row, TASK_ID), buf_span(&text));
	}
	postgres_rows_free(rows);
	return true;
}

static bool poller_goes_on(struct celery_postgres *p)
{
	pthread_mutex_lock(&p->lock);
	bool stop = p->stop;
	pthread_mutex_unlock(&p->lock);
	return !stop;
}

static void *poller_run(void *arg)
{
	struct celery_postgres *p = arg;
	uint64_t n;
	while (poller_goes_on(p)) {
		struct pollfd fd = {.fd = p->wake, .events = POLLIN};
		uint64_t due = p->polled_ms + p->o->result_poll_ms, now;
		read_asked(p);
		bool awaited = true;
		if (poller_now_ms() >= due)
			awaited = poll_watched(p);
		now = poller_now_ms();
		due = p->polled_ms + p->o->result_poll_ms;
		int left = due > now ? (int)(due - now) : 0;
		poll(&fd, 1, awaited ? left : -1);
		if (fd.revents && read(p->wake, &n, sizeof(n)) < 0)
			continue;
	}
	return NULL;
}

static void poller_wake(void *arg)
{
	const struct celery_postgres *p = arg;
	const uint64_t one = 1;
	if (write(p->wake, &one, sizeof(one)) < 0)
		return; /* it is awake */
}

/* --- what all clients share ----------------------------------------------------------------------------- */

/* "schema"."table": the setting has neither quotes nor blanks. */
static void put_queries(struct celery_postgres *p)
{
	char schema[64], name[200];
	const char *table = p->o->result_table ? p->o->result_table : "celery_taskmeta";
	const char *dot = strchr(table, '.');
	span_copy((struct span){table, dot ? (size_t)(dot - table) : 0}, schema, sizeof(schema));
	snprintf(name, sizeof(name), "%s%s%s\"%.63s\"", dot ? "\"" : "", schema, dot ? "\"." : "",
		 dot ? dot + 1 : table);
	snprintf(p->select, sizeof(p->select),
		 "SELECT task_id, status, CASE WHEN octet_length(result) <= " RESULT_MAX
		 " THEN result END, traceback, to_char(date_done, 'YYYY-MM-DD HH24:MI:SS.US') "
		 "FROM %s WHERE task_id = ANY($1::text[])",
		 name);
	snprintf(p->poll, sizeof(p->poll), "%s AND status IN ('SUCCESS', 'FAILURE', 'REVOKED')", p->select);
}

static int start_thread(struct celery_postgres *p, struct err *e)
{
	sigset_t all, old;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	int code = pthread_create(&p->thread, NULL, poller_run, p);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	p->has_thread = code == 0;
	return code ? err_set(e, -code, "no thread for PostgreSQL: %s", strerror(code)) : 0;
}

static int postgres_start(struct celery_options *o, struct err *e)
{
	struct celery_postgres *p = calloc(1, sizeof(*p));
	if (!p)
		return err_set(e, -ENOMEM, "out of memory");
	o->poller = p;
	p->o = o;
	pthread_mutex_init(&p->lock, NULL);
	p->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	int r = postgres_check_url(o->postgres, e);
	if (r == 0 && (p->wake < 0 || celery_heard_new(false, poller_wake, p, &o->heard) < 0))
		r = err_set(e, -ENOMEM, "out of memory or descriptors");
	if (r < 0)
		return r;
	p->heard = o->heard;
	postgres_where(o->postgres, p->where, sizeof(p->where));
	put_queries(p);
	return start_thread(p, e);
}

static void postgres_stop(struct celery_options *o)
{
	struct celery_postgres *p = o->poller;
	if (!p)
		return;
	pthread_mutex_lock(&p->lock);
	p->stop = true;
	pthread_mutex_unlock(&p->lock);
	poller_wake(p);
	if (p->has_thread)
		pthread_join(p->thread, NULL);
	postgres_close(p->connection);
	celery_heard_free(p->heard);
	if (p->wake >= 0)
		close(p->wake);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

/* --- the row -------------------------------------------------------------------------------------------- */

static int postgres_results_open(struct celery_client *c, struct err *e)
{
	int r = celery_ear_new(c->o->heard, c->base.loop, c, &c->ear);
	return r < 0 ? err_set(e, r, "out of memory or descriptors") : 0;
}

static void postgres_results_close(struct celery_client *c)
{
	celery_ear_free(c->ear);
}

static const char *postgres_results_where(const struct celery_client *c)
{
	return c->o->poller->where;
}

static bool postgres_results_ready(const struct celery_client *c)
{
	return celery_ear_ready(c->ear);
}

static struct celery_watch *postgres_results_watch(struct celery_client *c, struct span id,
						   const struct celery_watcher *watcher, void *arg)
{
	return celery_ear_watch(c->ear, id, watcher, arg);
}

static struct celery_reading *postgres_results_read(struct celery_client *c, const struct span *ids, size_t n,
						    celery_read_fn fn, void *arg)
{
	return celery_ear_read(c->ear, ids, n, fn, arg);
}

const struct celery_results celery_results_postgres = {
	.name = "PostgreSQL",
	.start = postgres_start,
	.stop = postgres_stop,
	.open = postgres_results_open,
	.close = postgres_results_close,
	.where = postgres_results_where,
	.ready = postgres_results_ready,
	.watch_tells_stored = true,
	.watch = postgres_results_watch,
	.unwatch = celery_ear_unwatch,
	.read = postgres_results_read,
	.read_drop = celery_ear_read_drop,
};
