/*
 * What remote control has changed of single tasks: how often they may begin, and how long they may take.
 * Kept by name until the worker ends, as Celery does it.
 *
 * Limits:  CELERY_LIMITS_MAX tasks.
 * Source:  kombu.utils.limits.TokenBucket (capacity 1), celery/utils/time.py, rate.
 */
#ifndef TASKS_CELERY_WORKER_LIMITS_H
#define TASKS_CELERY_WORKER_LIMITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/span.h"

#define CELERY_LIMITS_MAX 10000

struct celery_limit {
	char *task;
	double per_second; /* 0: no limit */
	double tokens;
	int64_t counted_ms;
	bool has_times; /* and then, 0: none */
	int64_t hard_ms, soft_ms;
};

struct celery_limits {
	struct celery_limit *list;
	size_t n;
};

void celery_limits_release(struct celery_limits *l);
/* NULL: nothing was changed. */
const struct celery_limit *celery_limits_find(const struct celery_limits *l, const char *task);
/* -ENOMEM, -ENOSPC */
int celery_limits_set_rate(struct celery_limits *l, const char *task, double per_second, int64_t now_ms);
int celery_limits_set_times(struct celery_limits *l, const char *task, int64_t hard_ms, int64_t soft_ms);
/* Takes a turn; or says in how many ms there is one, and takes none. */
int64_t celery_limits_turn(struct celery_limits *l, const char *task, int64_t now_ms);
/* "10/m", "2/h", "0.5/s", "3", or a JSON number; null and "" are 0. False: it is none of them. */
bool celery_rate_read(struct span json, double *ret_per_second);

#endif
