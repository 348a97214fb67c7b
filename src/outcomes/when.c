#include "outcomes/when.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"

/* "Z" or an offset, to the end of the text → minutes east of UTC. */
static bool parse_zone(const char *text, int *ret_minutes)
{
	int hours, minutes, used = 0;
	char sign;
	*ret_minutes = 0;
	if (strcmp(text, "Z") == 0 || strcmp(text, "z") == 0)
		return true;
	if (sscanf(text, "%c%2d:%2d%n", &sign, &hours, &minutes, &used) != 3 ||
	    (sign != '+' && sign != '-') || text[used] || hours < 0 || hours > 23 || minutes < 0 ||
	    minutes > 59)
		return false;
	*ret_minutes = (sign == '-' ? -1 : 1) * (hours * 60 + minutes);
	return true;
}

/* The digits behind the point of seconds; beyond microseconds they are cut off. */
static int64_t parse_fraction(const char **text)
{
	int64_t us = 0;
	int64_t unit = 100000;
	for (; **text >= '0' && **text <= '9'; (*text)++, unit /= 10)
		us += (**text - '0') * unit;
	return us;
}

static bool parse_time(const char *text, int64_t *ret_us)
{
	struct tm tm = {.tm_isdst = 0};
	int minutes = 0;
	int64_t fraction_us = 0;
	const char *rest = strptime(text, "%Y-%m-%d", &tm);
	if (!rest)
		return false;
	if (*rest == 'T' || *rest == 't' || *rest == ' ') {
		rest = strptime(rest + 1, "%H:%M:%S", &tm);
		if (!rest)
			return false;
		if (*rest == '.' && rest++)
			fraction_us = parse_fraction(&rest);
		if (!parse_zone(rest, &minutes))
			return false;
	} else if (*rest) {
		return false;
	}
	*ret_us = ((int64_t)timegm(&tm) - minutes * 60) * 1000000 + fraction_us;
	return true;
}

bool when_parse(const char *text, int64_t now_us, int64_t *ret_us)
{
	int64_t ms;
	if (clock_parse_duration(text, &ms) < 0)
		return parse_time(text, ret_us);
	if (ms < 0 || ms >= now_us / 1000)
		return false;
	*ret_us = now_us - ms * 1000;
	return true;
}
