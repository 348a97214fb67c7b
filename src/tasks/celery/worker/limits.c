#include "tasks/celery/worker/limits.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/json.h"

#define RATE_TEXT_MAX 64

void celery_limits_release(struct celery_limits *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->list[i].task);
	free(l->list);
	*l = (struct celery_limits){0};
}

static struct celery_limit *limits_find(const struct celery_limits *l, const char *task)
{
	for (size_t i = 0; i < l->n; i++)
		if (strcmp(l->list[i].task, task) == 0)
			return &l->list[i];
	return NULL;
}

const struct celery_limit *celery_limits_find(const struct celery_limits *l, const char *task)
{
	return limits_find(l, task);
}

static int limits_add(struct celery_limits *l, const char *task, struct celery_limit **ret)
{
	*ret = limits_find(l, task);
	if (*ret)
		return 0;
	if (l->n == CELERY_LIMITS_MAX)
		return -ENOSPC;
	struct celery_limit *more = realloc(l->list, (l->n + 1) * sizeof(*more));
	if (!more)
		return -ENOMEM;
	l->list = more;
	more += l->n;
	*more = (struct celery_limit){.task = strdup(task)};
	if (!more->task)
		return -ENOMEM;
	l->n++;
	*ret = more;
	return 0;
}

int celery_limits_set_rate(struct celery_limits *l, const char *task, double per_second, int64_t now_ms)
{
	struct celery_limit *one;
	int r = limits_add(l, task, &one);
	if (r < 0)
		return r;
	one->per_second = per_second;
	one->tokens = 1;
	one->counted_ms = now_ms;
	return 0;
}

int celery_limits_set_times(struct celery_limits *l, const char *task, int64_t hard_ms, int64_t soft_ms)
{
	struct celery_limit *one;
	int r = limits_add(l, task, &one);
	if (r < 0)
		return r;
	one->has_times = true;
	one->hard_ms = hard_ms;
	one->soft_ms = soft_ms;
	return 0;
}

int64_t celery_limits_turn(struct celery_limits *l, const char *task, int64_t now_ms)
{
	struct celery_limit *one = l->n ? limits_find(l, task) : NULL;
	if (!one || one->per_second <= 0)
		return 0;
	one->tokens = fmin(1, one->tokens + one->per_second * (double)(now_ms - one->counted_ms) / 1000);
	one->counted_ms = now_ms;
	if (one->tokens >= 1) {
		one->tokens -= 1;
		return 0;
	}
	return (int64_t)fmin(86400000, ceil((1 - one->tokens) / one->per_second * 1000)) + 1;
}

/* Per second; a negative one, or nothing, is not a number. */
static bool rate_number(const char *text, const char *unit, double *ret)
{
	static const struct {
		const char *name;
		double seconds;
	} units[] = {{"s", 1}, {"m", 60}, {"h", 3600}};
	char *end;
	double value = strtod(text, &end);
	if (end == text || *end || !isfinite(value) || value < 0)
		return false;
	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
		if (strcmp(unit, units[i].name) == 0) {
			*ret = value / units[i].seconds;
			return true;
		}
	return false;
}

bool celery_rate_read(struct span json, double *ret_per_second)
{
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(RATE_TEXT_MAX);
	char number[RATE_TEXT_MAX];
	*ret_per_second = 0;
	if (!json.ptr || json_type_of(json) == JSON_NULL)
		return true;
	if (json_type_of(json) == JSON_NUMBER && json.len < sizeof(number)) {
		span_copy(json, number, sizeof(number));
		return rate_number(number, "s", ret_per_second);
	}
	if (json_type_of(json) != JSON_STRING || json_unescape(json, &text) < 0)
		return false;
	if (!text.len)
		return true;
	char *slash = strchr(text.ptr, '/');
	if (slash)
		*slash = '\0';
	return rate_number(text.ptr, slash && slash[1] ? slash + 1 : "s", ret_per_second);
}
