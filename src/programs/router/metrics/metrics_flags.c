/* Of the flag snapshot in use. */
#include "base/clock.h"
#include "programs/router/app_internal.h"
#include "programs/router/metrics/metrics.h"

/* Without any, the time since the start: what was never there is no younger than what grows old. */
static double snapshot_age(const struct app *a, const struct flag_source_status *s)
{
	int64_t since_us = a->flags && s->good_us ? s->good_us : a->started_us;
	int64_t age_us = clock_wall_us() - since_us;
	return age_us > 0 ? (double)age_us / 1e6 : 0;
}

void metrics_put_flags(const struct app *a, struct metric_text *out)
{
	struct flag_source_status f;
	struct app_broken_flags broken;
	app_flags_status(a, &f);
	app_broken_flags(a, &broken);
	metric_begin(out, "migration_flags_loaded", METRIC_GAUGE, "1 once there is a flag snapshot.");
	metric_count(out, a->flags != NULL, METRIC_NO_LABELS);
	metric_begin(out, "migration_flags_in_use", METRIC_GAUGE, "Flags that the configuration asks.");
	metric_count(out, app_flags_in_use(a->config).n, METRIC_NO_LABELS);
	metric_begin(out, "migration_flags_failing", METRIC_GAUGE,
		     "1 while the flag source cannot be read; the last good snapshot serves.");
	metric_count(out, f.failing, METRIC_NO_LABELS);
	metric_begin(out, "migration_flags_failures_total", METRIC_COUNTER,
		     "Times the newest flags could not be read or used, each failure once while it lasts.");
	metric_count(out, a->flag_failures, METRIC_NO_LABELS);
	metric_begin(out, "migration_flags_published_total", METRIC_COUNTER,
		     "Flag snapshots that came into use.");
	metric_count(out, a->flag_snapshots, METRIC_NO_LABELS);
	metric_begin(out, "migration_flags_vanished", METRIC_GAUGE,
		     "Flags in use that their source no longer has; their last good definitions serve.");
	metric_count(out, f.carried.n, METRIC_NO_LABELS);
	metric_begin(out, "migration_flags_broken", METRIC_GAUGE,
		     "Flags in use that cannot be understood and are set aside; legacy serves.");
	metric_count(out, broken.n, METRIC_NO_LABELS);
	metric_begin(out, "migration_flags_unsaved", METRIC_GAUGE,
		     "1 while the flags in use cannot be saved; a restart would start with older ones.");
	metric_count(out, f.unsaved, METRIC_NO_LABELS);
	metric_begin(out, "migration_flags_confirmed_timestamp_seconds", METRIC_GAUGE,
		     "When the flag snapshot was last confirmed. 0: never.");
	metric_value(out, (double)f.good_us / 1e6, METRIC_NO_LABELS);
	metric_begin(out, "migration_flags_snapshot_age_seconds", METRIC_GAUGE,
		     "Time since the flag snapshot was last confirmed; since the start if it never was.");
	metric_value(out, snapshot_age(a, &f), METRIC_NO_LABELS);
}
