/*
 * One call to an upstream as tests see it: everything it was told is noted, and the loop runs until a wish is
 * fulfilled.
 */
#ifndef TESTS_LEGACY_CLIENT_H
#define TESTS_LEGACY_CLIENT_H

#include "base/buf.h"
#include "base/loop.h"
#include "legacy/legacy.h"

struct client {
	struct loop *loop;
	struct legacy_upstream *upstream;
	struct loop_timer *alarm;
	bool overdue;
};

struct seen {
	struct client *client;
	struct legacy_call *call;
	int heads, continues, readables, writables, failures; /* how often told */
	int status;
	int64_t length, content_length;
	size_t n_fields;
	struct buf head; /* "Name: value\n" for each field */
	struct buf body;
	bool ended, written;
	enum legacy_failure failure;
	char detail[200];
	/* Body to send as long as `to_send` > 0: `piece`, over and over. */
	const char *piece;
	size_t piece_length;
	uint64_t to_send;
	uint64_t received; /* counted, also when the body is not kept */
	bool drop_body;	   /* count only */
	bool hold;	   /* do not read */
	bool end_after;
	bool free_in_head;
};

struct legacy_options client_options(const char *base_url);
void client_open(struct client *c, const struct legacy_options *o);
void client_close(struct client *c);
/* Runs the loop until *flag, at most 20 s; false when it took longer. */
bool client_run_until(struct client *c, const bool *flag);
/* Runs until `ms` have passed. */
void client_run_ms(struct client *c, unsigned ms);

void seen_start(struct seen *s, struct client *c, const struct legacy_request *r);
void seen_send(struct seen *s);	    /* as much of the body as it takes; ends when all is sent and end_after */
bool seen_run(struct seen *s);	    /* until ended or failed */
bool seen_run_head(struct seen *s); /* until the head was told */
void seen_free(struct seen *s);

/* Method and target, no body, retried for GET and HEAD. */
struct legacy_request simple_request(const char *method, const char *target);

/* How many descriptors this process has open. */
int open_descriptors(void);

#endif
