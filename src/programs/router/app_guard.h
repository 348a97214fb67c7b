/*
 * The guard in the application: what it is to watch, what it holds, and who is notified.
 *
 * Threads:   the control thread's; the guard itself collects on the recorder's (guard/guard.h).
 */
#ifndef PROGRAMS_ROUTER_APP_GUARD_H
#define PROGRAMS_ROUTER_APP_GUARD_H

#include "base/buf.h"
#include "base/err.h"
#include "base/metric_text.h"
#include "config/config.h"
#include "flags/flags.h"
#include "guard/guard_verdict.h"
#include "outcomes/recorder.h"
#include "router/admin.h"

struct app;
struct app_guard;
struct guard_verdicts;

/* Before the recorder starts, which gets the tap, and before the planes, which begin with what is held
 * (plane_env.holds). */
int app_guard_start(struct app *a, struct recorder_tap *ret_tap, struct err *e);
void app_guard_stop(struct app *a); /* after the recorder */
/* What comes into force now; before the planes get it. */
void app_guard_expect(struct app *a, const struct config *config, const struct flag_snapshot *flags);

/* "guard":[…], the operations that are not well; false when one is held or breached. */
bool app_guard_put(struct app *a, struct buf *json);
/* Of the guarded operations, by service and operation; none while outcomes.db has not been read. -ENOMEM. */
int app_guard_verdicts(struct app *a, struct guard_verdicts **ret);
/* The same; whether it has been read. */
int app_guard_verdicts_known(struct app *a, bool *ret_known, struct guard_verdicts **ret);
void app_guard_trouble(struct app *a, char ret[256]); /* as guard_trouble */
void app_guard_metrics(struct app *a, struct metric_text *out);
/* HTTP status and body of the doors of the admin listener, by the target's `operation` and `service` (of a
 * release also the body's); without a body `e` says what is wrong. A release is by whoever has signed in,
 * else by `by`, a word on who asks; `message` says why. */
int app_guard_gate(void *arg, struct span target, struct buf *json, struct err *e);
int app_guard_release(struct app *a, const struct admin_change *c, struct buf *json, struct err *e);

#endif
