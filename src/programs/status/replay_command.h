/*
 * migration-status --replay: the report that move/replay/replay.h makes, over the databases that were named.
 */
#ifndef PROGRAMS_STATUS_REPLAY_COMMAND_H
#define PROGRAMS_STATUS_REPLAY_COMMAND_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "programs/status/status_sources.h"

struct replay_arguments {
	const char *flags;  /* features file or folder, or snapshot */
	const char *config; /* NULL: config/router.yml */
	int64_t since_us, until_us;
	const char *service, *operation, *organization; /* NULL: all */
	bool json;
};

/* `sources`: databases; none: the configuration's. Appends the report to `out`. The exit code: 0, or 1 when
 * something could not be read, which is reported on standard error. */
int replay_command(const struct replay_arguments *a, const struct status_sources *sources, struct buf *out);

#endif
