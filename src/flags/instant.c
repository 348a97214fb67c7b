#include "flags/instant.h"

/* Takes exactly n digits off the front. */
static bool take_number(struct span *s, size_t n, int *ret)
{
	if (s->len < n)
		return false;
	int v = 0;
	for (size_t i = 0; i < n; i++) {
		if (s->ptr[i] < '0' || s->ptr[i] > '9')
			return false;
		v = v * 10 + (s->ptr[i] - '0');
	}
	s->ptr += n, s->len -= n;
	*ret = v;
	return true;
}

static bool take_char(struct span *s, char c)
{
	if (s->len == 0 || s->ptr[0] != c)
		return false;
	s->ptr++, s->len--;
	return true;
}

static int days_in(int year, int month)
{
	static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
	return days[month - 1] + (month == 2 && leap);
}

/* Days since 1970-01-01 in the proleptic Gregorian calendar; the year begins in March, so that leap days
 * come last. */
static int64_t days_since_epoch(int year, int month, int day)
{
	int64_t y = month <= 2 ? year - 1 : year;
	int64_t shifted = (month + 9) % 12;
	int64_t leaps = (y + 400) / 4 - (y + 400) / 100 + (y + 400) / 400; /* y may be -1 */
	int64_t days = (y + 400) * 365 + leaps + (153 * shifted + 2) / 5 + day - 1;
	return days - 719468 - 146097;
}

static bool take_date(struct span *s, int64_t *ret_days)
{
	int year, month, day;
	if (!take_number(s, 4, &year) || !take_char(s, '-') || !take_number(s, 2, &month) ||
	    !take_char(s, '-') || !take_number(s, 2, &day))
		return false;
	if (month < 1 || month > 12 || day < 1 || day > days_in(year, month))
		return false;
	*ret_days = days_since_epoch(year, month, day);
	return true;
}

static bool take_clock(struct span *s, int64_t *ret_seconds)
{
	int hour, minute, second;
	if (!take_number(s, 2, &hour) && !take_number(s, 1, &hour))
		return false;
	if (!take_char(s, ':') || !take_number(s, 2, &minute) || !take_char(s, ':') ||
	    !take_number(s, 2, &second))
		return false;
	*ret_seconds = hour * 3600 + minute * 60 + second;
	return hour < 24 && minute < 60 && second < 60;
}

/* Digits after the ninth are cut off, not rounded. */
static int32_t take_fraction(struct span *s)
{
	if (s->len < 2 || (s->ptr[0] != '.' && s->ptr[0] != ',') || s->ptr[1] < '0' || s->ptr[1] > '9')
		return 0;
	int32_t nanos = 0, unit = 100000000;
	for (s->ptr++, s->len--; s->len && s->ptr[0] >= '0' && s->ptr[0] <= '9'; s->ptr++, s->len--) {
		nanos += (s->ptr[0] - '0') * unit;
		unit /= 10;
	}
	return nanos;
}

static bool take_zone(struct span *s, int64_t *ret_offset)
{
	int hour, minute;
	*ret_offset = 0;
	if (take_char(s, 'Z'))
		return true;
	bool west = s->len && s->ptr[0] == '-';
	if (!take_char(s, '+') && !take_char(s, '-'))
		return false;
	if (!take_number(s, 2, &hour) || !take_char(s, ':') || !take_number(s, 2, &minute))
		return false;
	*ret_offset = (hour * 3600 + minute * 60) * (west ? -1 : 1);
	return hour <= 24 && minute <= 60;
}

bool instant_parse(struct span text, struct instant *ret)
{
	int64_t days, clock, offset;
	if (!take_date(&text, &days))
		return false;
	*ret = (struct instant){days * 86400, 0};
	if (text.len == 0)
		return true;
	if (!take_char(&text, 'T') || !take_clock(&text, &clock))
		return false;
	int32_t nanos = take_fraction(&text);
	if (!take_zone(&text, &offset) || text.len)
		return false;
	*ret = (struct instant){days * 86400 + clock - offset, nanos};
	return true;
}

int instant_compare(struct instant a, struct instant b)
{
	if (a.seconds != b.seconds)
		return a.seconds < b.seconds ? -1 : 1;
	return a.nanos < b.nanos ? -1 : a.nanos > b.nanos;
}
