/*
 * Admin listener: health, metrics, report and the pages. On the control thread's loop, loopback by default.
 *
 * Why:       whoever composes the program supplies what is shown (callbacks), so that this file knows HTTP
 *            and nothing else.
 * Ownership: holds its own reference to the configuration, whose `admin` says who is let in; admin_set_config
 *            replaces it.
 * Host:      all but /healthz asks for a Host that is a loopback name, the listener's own address or one of
 *            admin.hosts, so no page of another site can reach it through a name of its own that resolves
 *            here (DNS rebinding); others get 421.
 * Places:    beyond 64 connections the newest replaces the one that has been idle for longest, so
 *            that strangers cannot keep out those who ask whether the process lives.
 *
 *   GET /healthz              200 while the control loop runs
 *   GET /readyz               200 or 503 and JSON: what is needed and what is missing; without credentials
 *                             if required, only whether it is ready
 *   GET /metrics              Prometheus text 0.0.4, or OpenMetrics 1.0 if Accept prefers it
 *   GET /_admin/report.json   migration-status --json; ?since=…&service=…&operation=…&org=…; with
 *                             ?all also what the peers of `routers:` recorded, and who of them is missing
 *   GET /_admin/drain.json    migration-status --drain --json; ?side=…&since=…&service=…&operation=…
 *   GET /_admin/requests.json, errors.json, organizations.json
 *                             migration-status --requests --json and so on, with its filters as parameters
 *   GET /_admin/standing.json where the migration stands now (docs/migration-status.schema.json)
 *   GET /_admin/flags         source, digest and age of the snapshot in use
 *   GET /_admin/gate          the guard's verdict: 200 safe, 503 breach, 425 neither; ?operation=…&service=…
 *   POST /_admin/guard/release, /_admin/move/plan, /_admin/move/apply
 *                             ends a hold; shows and makes a change of a percentage (docs/design.md,
 *                             "Moving"). Never by GET, and not from a page of another site
 *   /sign-in, /sign-out       for browsers (router/admin_door.h)
 *   GET /_admin/live          server-sent events: there is something new to fetch (router/admin_live.h)
 *   GET /_page/…              what pages load (page/page_assets.h); without credentials: nothing in them is
 *                             this router's own
 *   GET /, …                  the pages, HTML (page/page.h)
 */
#ifndef ROUTER_ADMIN_H
#define ROUTER_ADMIN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/loop.h"
#include "base/crypto.h"
#include "config/config.h"
#include "router/admin_door.h"

struct admin;

/* Who looks at a page, and what may stand in it for them. */
struct admin_reader {
	bool may_write;					  /* may change percentages and release holds */
	bool session;					  /* has signed in */
	bool may_sign_in;				  /* there is a reason to */
	char who[ADMIN_WRITER_NAME], form[CRYPTO_ID_HEX]; /* as in door_caller */
};

/* A change that someone may make asks for it; it belongs to the listener, and is good until it is answered.
 * */
struct admin_change {
	struct span path, target; /* of the request */
	struct span body;	  /* a form, as a query is written with its "?"; or JSON */
	bool json;
	bool page; /* the answer is to be a page */
	struct door_caller caller;
};
/* A value of the body. False: it is not there. Beyond the buffer's limit: ret->error. */
bool admin_change_value(const struct admin_change *c, const char *name, struct buf *ret);
/* 0, or -EINVAL with a sentence about the first value that is none of these (at most 16) or is there
 * twice. */
int admin_change_check(const struct admin_change *c, const char *const *names, size_t n, struct err *e);
/* One of the two, once, on the loop's thread, also after whoever asked has gone. */
void admin_change_answer(struct admin_change *c, int status, const char *type, const struct buf *body);
void admin_change_fail(struct admin_change *c, int status, const char *title, const char *detail);

struct admin_content {
	void *arg;
	/* false: 503. `whole`: the caller may see addresses, paths and errors. */
	bool (*ready)(void *arg, bool whole, struct buf *json);
	void (*metrics)(void *arg, bool open_metrics, struct buf *text);
	void (*flags)(void *arg, struct buf *json);
	/* Runs on another thread, since it reads a database. `target` is the raw request target. 0, or an
	 * HTTP status with the sentence in e. */
	int (*report)(void *arg, struct span target, struct buf *json, struct err *e);
	int (*drain)(void *arg, struct span target, struct buf *json, struct err *e);	 /* likewise */
	int (*search)(void *arg, struct span target, struct buf *json, struct err *e);	 /* likewise */
	int (*standing)(void *arg, struct span target, struct buf *json, struct err *e); /* likewise */
	/* An HTTP status with its JSON; with none, the sentence in e. */
	int (*gate)(void *arg, struct span target, struct buf *json, struct err *e);
	/* /_admin/move/plan, /_admin/move/apply, /_admin/guard/release: whoever asks may. Answered by
	 * admin_change_answer or admin_change_fail, now or later. */
	void (*change)(void *arg, struct admin_change *c);
	/* Whether there is a page of that path; what only this thread knows for it (NULL: no memory); the
	 * page, on another thread, with its HTTP status: it frees the facts. */
	bool (*is_page)(struct span path);
	void *(*page_facts)(void *arg, const struct admin_reader *reader);
	int (*page)(void *arg, void *facts, struct span target, struct buf *out);
	uint64_t (*version)(void *arg); /* of what the pages show: it changes whenever that may have */
};

struct guesses;

/* Listens on config->admin.listen; `held`: accepts nothing until admin_open. `guesses` outlives it. */
int admin_start(struct loop *loop, const struct config *config, struct guesses *guesses,
		const struct admin_content *content, bool held, struct admin **ret, struct err *e);
void admin_open(struct admin *a);
/* Who is let in from now on. The address stays. "none" for an address other than the one in use takes effect
 * only after a restart: it was meant for another door. */
void admin_set_config(struct admin *a, const struct config *config);
unsigned admin_port(const struct admin *a);
/* No new connections from now on; what was accepted is answered. Whether someone may still ask, or is being
 * answered; to be called until nobody is, or time is over. `patient`: as listener_quiesce. */
bool admin_drain(struct admin *a, bool patient);
struct admin *admin_stop(struct admin *a);

#endif
