#include "base/aging.h"

#include "base/clock.h"
#include "base/log.h"

void aging_begin_at(struct aging *a, const char *what, int64_t newest_us, int64_t wall_us, int64_t mono_us)
{
	*a = (struct aging){.what = what, .now_us = wall_us, .mono_us = mono_us, .stepped_us = mono_us};
	if (newest_us && newest_us < wall_us) {
		a->now_us = newest_us;
		a->ahead_us = wall_us - newest_us;
	}
}

static void aging_step(struct aging *a, int64_t ahead_us, int64_t mono_us)
{
	int64_t by_us = ahead_us - a->ahead_us;
	log_warn("clock_stepped", LOG_STR("data", a->what), LOG_INT("seconds", by_us / 1000000),
		 LOG_STR("effect",
			 ahead_us > AGING_SLACK_US
				 ? "ages advance as before until the clock has stayed there for a day"
				 : "what looks recent is kept"));
	a->ahead_us = ahead_us;
	a->stepped_us = mono_us;
}

int64_t aging_now_at(struct aging *a, int64_t wall_us, int64_t mono_us)
{
	a->now_us += mono_us - a->mono_us;
	a->mono_us = mono_us;
	int64_t ahead_us = wall_us - a->now_us, change_us = ahead_us - a->ahead_us;
	if (change_us > AGING_SLACK_US || change_us < -AGING_SLACK_US)
		aging_step(a, ahead_us, mono_us);
	if (ahead_us <= AGING_SLACK_US || mono_us - a->stepped_us >= AGING_CONFIRM_US) {
		a->now_us = wall_us;
		a->ahead_us = 0;
	}
	return a->now_us;
}

void aging_begin(struct aging *a, const char *what, int64_t newest_us)
{
	aging_begin_at(a, what, newest_us, clock_wall_us(), clock_mono_us());
}

int64_t aging_now(struct aging *a)
{
	return aging_now_at(a, clock_wall_us(), clock_mono_us());
}

bool aging_settled(const struct aging *a)
{
	return a->ahead_us == 0 && a->mono_us - a->stepped_us >= AGING_CONFIRM_US;
}
