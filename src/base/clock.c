#include "base/clock.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static int64_t read_ns(clockid_t id)
{
	struct timespec ts;
	clock_gettime(id, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

int64_t clock_mono_ns(void)
{
	return read_ns(CLOCK_MONOTONIC);
}

int64_t clock_mono_us(void)
{
	return clock_mono_ns() / 1000;
}

int64_t clock_mono_ms(void)
{
	return clock_mono_ns() / 1000000;
}

struct timespec clock_deadline(clockid_t clock, unsigned ms)
{
	struct timespec until;
	clock_gettime(clock, &until);
	until.tv_sec += ms / 1000;
	until.tv_nsec += (long)(ms % 1000) * 1000000;
	if (until.tv_nsec >= 1000000000) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000;
	}
	return until;
}

int64_t clock_wall_us(void)
{
	return read_ns(CLOCK_REALTIME) / 1000;
}

void clock_format(int64_t wall_us, char out[CLOCK_TEXT_MAX])
{
	/* Floor, so that times before 1970 do not print negative fractions. */
	int64_t s = wall_us / 1000000, us = wall_us % 1000000;
	if (us < 0) {
		us += 1000000;
		s--;
	}
	time_t t = (time_t)s;
	struct tm tm;
	if (!gmtime_r(&t, &tm) || tm.tm_year > 8099 || tm.tm_year < -1900) {
		snprintf(out, CLOCK_TEXT_MAX, "-");
		return;
	}
	size_t n = strftime(out, CLOCK_TEXT_MAX, "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(out + n, CLOCK_TEXT_MAX - n, ".%03dZ", (int)(us / 1000));
}

void clock_format_duration(int64_t ms, char out[CLOCK_TEXT_MAX])
{
	static const struct {
		int64_t ms;
		const char *unit;
	} units[] = {{86400000, "d"}, {3600000, "h"}, {60000, "m"}, {1000, "s"}, {1, "ms"}};
	size_t u = 0;
	while (u < 4 && (ms == 0 ? units[u].ms != 1000 : ms % units[u].ms != 0))
		u++;
	snprintf(out, CLOCK_TEXT_MAX, "%lld%s", (long long)(ms / units[u].ms), units[u].unit);
}

int clock_parse_duration(const char *text, int64_t *ret_ms)
{
	static const struct {
		const char *unit;
		int64_t ms;
	} units[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}, {"", 1000}};

	if (text[0] < '0' || text[0] > '9')
		return -EINVAL;
	char *end;
	errno = 0;
	long long n = strtoll(text, &end, 10);
	if (errno)
		return -EINVAL;
	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
		if (strcmp(end, units[i].unit) != 0)
			continue;
		int64_t ms;
		if (__builtin_mul_overflow((int64_t)n, units[i].ms, &ms))
			return -EINVAL;
		*ret_ms = ms;
		return 0;
	}
	return -EINVAL;
}

bool clock_duration_within(struct span text, uint64_t min_ms, uint64_t max_ms, uint64_t *ret_ms)
{
	char copy[64];
	int64_t v;
	if (text.len == 0 || text.len >= sizeof(copy) || memchr(text.ptr, '\0', text.len))
		return false;
	memcpy(copy, text.ptr, text.len);
	copy[text.len] = '\0';
	if (clock_parse_duration(copy, &v) < 0 || (uint64_t)v < min_ms || (uint64_t)v > max_ms)
		return false;
	*ret_ms = (uint64_t)v;
	return true;
}

void clock_duration_range(uint64_t min_ms, uint64_t max_ms, char out[CLOCK_RANGE_MAX])
{
	char low[CLOCK_TEXT_MAX], high[CLOCK_TEXT_MAX];
	clock_format_duration((int64_t)min_ms, low);
	clock_format_duration((int64_t)max_ms, high);
	snprintf(out, CLOCK_RANGE_MAX, "a duration from %s to %s (500ms, 5s, 2m, 1h, 7d)", low, high);
}
