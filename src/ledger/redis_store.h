/*
 * A Redis that replicas share, as the ledger and the claims need it (design, "Replicas"): one connection on a
 * thread of its own, known to work or not, with the server's clock.
 *
 * Threads:   everything on the store's own, but redis_store_start, _stop and _status. Nothing blocks but the
 *            start, which waits for the first connection (timeout_ms).
 * Beat:      each second something is written and read. So an outage and its end are seen without a caller,
 *            and redis_store_now() keeps close to the server's clock, never ahead of it.
 */
#ifndef LEDGER_REDIS_STORE_H
#define LEDGER_REDIS_STORE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/loop.h"
#include "base/redis.h"
#include "base/span.h"

struct redis_store_options {
	const char *url, *prefix;
	unsigned timeout_ms;
	bool quiet;   /* another store at the same server logs its outages */
	bool unasked; /* the start does not wait for the server */
	void *arg;
	void (*works)(void *arg);    /* after each beat that was answered */
	void (*stopping)(void *arg); /* the last things may be sent */
	bool (*busy)(void *arg);     /* while stopping: something is under way that must end first */
};

struct redis_store_status {
	char where[ERR_TEXT_MAX];
	bool failing;
	uint64_t errors, losses;
	int64_t since_us;    /* wall clock: since when it is failing, or is not */
	const char *warning; /* NULL: nothing known */
	char last_error[ERR_TEXT_MAX];
};

struct redis_store {
	struct redis_store_options o;
	pthread_t thread;
	struct loop *loop;
	char *prefix;
	unsigned timeout_ms;
	struct loop_work stop;
	/* the thread's */
	struct redis *redis;
	struct loop_timer *beat, *patience;
	bool stopping, beating;
	int64_t beat_us;  /* monotonic: of the beat under way */
	bool clock_known; /* and then: */
	int64_t clock_us; /* the server's clock less our monotonic one; never too large */
	char since[24];	  /* of the server's memory; "" before it was asked */
	char run_id[48];  /* of the server's process; "" before it was asked */
	bool sentinels;	  /* it may be replaced by its replica */
	/* under lock */
	pthread_mutex_t lock;
	pthread_cond_t met;
	bool has_met; /* the server has answered, or could not */
	struct redis_store_status status;
	uint64_t errors_before; /* of them before this outage */
	int64_t failing_ms;	/* monotonic: since when */
	int64_t key_said_ms;	/* monotonic: a key of another type was logged last; 0: never */
};

/* `s` is the caller's, zeroed. An address that cannot be read is an error; a server that is away is none. */
int redis_store_start(struct redis_store *s, const struct redis_store_options *o, struct err *e);
/* Ends the thread, once o->busy says no more, or after timeout_ms and a second. The loop is still there. */
void redis_store_stop(struct redis_store *s);
void redis_store_release(struct redis_store *s);
void redis_store_settle(struct redis_store *s); /* something has ended: it may stop now */
void redis_store_status(struct redis_store *s, struct redis_store_status *ret);

/* What went wrong, by redis_store_complaint. It is an outage, unless it is about one key: one of another type
 * (somebody else's?) says nothing of the others. True for that; whatever it was, it is counted. */
bool redis_store_failed(struct redis_store *s, const char *why);
void redis_store_count_error(struct redis_store *s);
/* By the server's clock, µs; by ours before s->clock_known. */
int64_t redis_store_now(const struct redis_store *s);
/* After this time, by the server's clock, nobody here waits for what is sent now. */
int64_t redis_store_end(const struct redis_store *s);
/* What an outcome says against the server; NULL: it did as it was told. "LATE" is said by scripts. */
const char *redis_store_complaint(enum redis_outcome outcome, const struct redis_reply *reply,
				  const struct err *why, char room[ERR_TEXT_MAX]);

/* --- scripts -------------------------------------------------------------------------------------------- */
/* A server that has become a replica refuses it, whatever it would do: reading there could miss what the
 * primary has. Nothing is ever at that key. */
#define REDIS_REFUSE_REPLICA(key) \
	"local p=redis.pcall('DEL'," key ") " \
	"if type(p)=='table' and p.err and p.err:find('READONLY') then return p end "
#define REDIS_SERVER_NOW "local t=redis.call('TIME') local now=t[1]*1000000+t[2] "
/* Behind that: what comes after its end is not done. */
#define REDIS_REFUSE_LATE(end) "if now>tonumber(" end ") then return 'LATE' end "

/* The words of an EVAL. */
struct redis_words {
	struct buf text; /* of words that are made */
	size_t ends[16];
	size_t n_made;
	struct span words[32];
	size_t n;
};

void redis_words_begin(struct redis_words *w, const char *script, const char *n_keys);
void redis_words_add(struct redis_words *w, struct span word); /* borrowed until it is sent */
void redis_words_text(struct redis_words *w, const char *text);
void redis_words_number(struct redis_words *w, int64_t n);
/* The prefix and this. */
void redis_words_key(struct redis_words *w, const struct redis_store *s, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* Frees the words. */
void redis_words_send(struct redis_words *w, struct redis_store *s, redis_reply_fn fn, void *arg);

#endif
