/*
 * Legacy state: how the calls to one legacy service end, kept by its planes together.
 *
 * Why:       an upstream that fails must be reported once when it begins and once when it ends, not once per
 *            request, and not never.
 * Begins:    with the first failure of a kind. Ends: when it has answered since, and no failure of the kind
 *            came for QUIET.
 * Threads:   failed and answered from any; look, write_json and write_metrics from the control thread.
 */
#ifndef ROUTER_REQUEST_LEGACY_STATE_H
#define ROUTER_REQUEST_LEGACY_STATE_H

#include <stdatomic.h>
#include <stdbool.h>

#include "base/buf.h"
#include "legacy/legacy.h"

#define LEGACY_STATE_QUIET_MS 2000

struct legacy_state {
	struct {
		atomic_uint_fast64_t count;	       /* since the start */
		atomic_uint_fast64_t before;	       /* of them before the present outage */
		atomic_int_fast64_t began_ms, last_ms; /* monotonic */
	} kinds[LEGACY_FAILURES];
	atomic_bool tried;		 /* it has answered, or failed to, since the start */
	atomic_uint failing;		 /* one bit per kind */
	atomic_int_fast64_t answered_ms; /* kept only while something is failing */
};

/* "refused", "dns", … as in logs and metrics. */
const char *legacy_state_kind(enum legacy_failure f);
/* Logs the first one. `detail` is for operators. */
void legacy_state_failed(struct legacy_state *s, const char *service, enum legacy_failure f,
			 const char *detail);
void legacy_state_answered(struct legacy_state *s);
/* Logs what has ended; to be called every few seconds. */
void legacy_state_look(struct legacy_state *s, const char *service);
/* Somebody has been sent there since the start. */
bool legacy_state_tried(const struct legacy_state *s);
/* False while connections to it fail, as far as callers have tried. */
bool legacy_state_reachable(const struct legacy_state *s);
/* The same as values: the kinds that fail now, and the errors since the start. Any thread. */
void legacy_state_read(const struct legacy_state *s, bool *ret_reachable, char *kinds, size_t size,
		       uint64_t *ret_errors);
/* {"service":…,"reachable":…,"failing":["refused"],"errors":7}; without addresses. */
void legacy_state_write_json(const struct legacy_state *s, const char *service, struct buf *out);

#endif
