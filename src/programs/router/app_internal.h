/*
 * The running application as its own parts see it: what app.c composes, app_backends.c starts and
 * app_status.c shows on the admin listener. Private to app*.c.
 */
#ifndef PROGRAMS_ROUTER_APP_INTERNAL_H
#define PROGRAMS_ROUTER_APP_INTERNAL_H

#include <stdbool.h>
#include <stdlib.h>

#include "base/crypto.h"
#include "base/loop.h"
#include "base/service_manager.h"
#include "flags/source/features_source.h"
#include "flags/source/flipt_source.h"
#include "flags/source/retired.h"
#include "ledger/ledger.h"
#include "outcomes/recorder.h"
#include "router/admin.h"
#include "router/plane.h"
#include "standing/backlog_floor.h"

/* What a backend last said of itself. */
struct app;
struct guard_verdicts;
struct app_health {
	struct app *app;
	struct span name;
	struct task_client *client; /* of the control loop */
	bool asking, known;
	struct task_health now;
	struct backlog_floor floor;
};

struct app {
	const struct config *config;
	const struct config *started; /* what the parts were made from that a reload does not change */
	struct loop *loop;	      /* the control thread's: signals, flags, admin */
	int signals;
	int lock; /* of the data folder; -1: none */
	struct loop_watch *signal_watch;
	struct loop_timer *drain;
	bool draining, patient; /* patient: idle connections are not closed yet */
	struct takeover *takeover;
	int64_t drain_until_ms, admin_until_ms;
	struct watchdog *watchdog; /* of the service manager; NULL: none */
	unsigned cut;		   /* requests still running when the deadline came */

	const struct flag_snapshot *flags; /* the newest good one, or NULL */
	struct retired *retired;	   /* those before it */
	char warned[CRYPTO_SHA256_HEX];	   /* of the warnings that were logged last */
	struct features_source *features;  /* one of the two */
	struct flipt_source *flipt;

	int64_t started_us;
	uint64_t flag_snapshots, flag_failures; /* that came into use, that could not */
	struct metrics *metrics;
	struct app_guard *guard;       /* app_guard.h; NULL before the stores */
	struct app_standing *standing; /* app_standing.h; likewise */
	struct pairs *pairs;
	struct recorder *recorder;
	struct ledger *ledger;
	struct plane_env env;
	struct plane *planes[PLANE_MAX];
	size_t n_planes;

	bool only_looking; /* a command that checks: nothing is made that is not there */
	struct registration *registration;
	const struct readiness *readiness; /* what the planes have, or NULL */
	struct admin *admin;
	/* what the guard says has changed; NULL: nobody asks (app_setback.h) */
	void (*on_verdicts)(struct app *a, const struct guard_verdicts *now);
	struct app_setback *setback; /* app_setback.h */
	struct mover *mover;	     /* app_move.h; NULL before the listener, and when this ends */
	struct app_health health[CONFIG_MAX_BACKENDS]; /* as in env.backends */
	struct loop_timer *health_timer;
	unsigned health_rounds;
	char *outcomes_path; /* of the running recorder; a reload does not change it */
};

/* getenv as config_load wants it. */
static inline const char *app_getenv(const char *name)
{
	return getenv(name);
}

/* app_flags.c */
void app_flags_status(const struct app *a, struct flag_source_status *ret);

#define APP_USED_FLAGS_MAX 256
struct app_used_flags {
	struct span keys[APP_USED_FLAGS_MAX];
	size_t n;
};
struct app_used_flags app_flags_in_use(const struct config *c);
/* Flags in use that are set aside; the keys are the configuration's. */
struct app_broken_flags {
	struct span keys[APP_USED_FLAGS_MAX];
	size_t n;
};
void app_broken_flags(const struct app *a, struct app_broken_flags *ret);
bool app_has_flags(const struct app *a); /* or none is in use */

/* app_backends.c: the options of each configured backend. */
/* Makes them from the settings; connects to nothing. -EBADMSG with one line per mistake in `problems`. */
int app_backends_make(struct app *a, struct buf *problems);
/* Whether a new configuration has other backends, or other settings of them, than the present one. */
bool app_backends_changed(const struct app *a, const struct config *new);
/* As app_backends_make, of what is new alone: the present is not judged again (a token may have expired
 * meanwhile). */
int app_backends_check(const struct app *a, const struct config *new, struct buf *problems);
int app_backends_start(struct app *a, struct err *e);
/* What a reload changes in them: breakers and limits. At the start, too. */
void app_backends_configure(struct app *a);
void app_backends_free(struct app *a); /* after their clients */

/* app.c */
void app_log_problems(const char *event, const struct buf *problems); /* one log line per line */

/* app_status.c: the admin listener. */
int app_status_start(struct app *a, struct err *e);
void app_status_stop(struct app *a);

#endif
