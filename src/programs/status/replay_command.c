#include "programs/status/replay_command.h"

#include <stdio.h>
#include <stdlib.h>

#include "move/replay/replay.h"

#define REPLAY_CONFIG "config/router.yml"

static const char *replay_environment(const char *name)
{
	return getenv(name);
}

static int replay_all(const struct replay_arguments *a, const struct status_sources *sources,
		      const struct config *config, const struct flag_snapshot *flags, struct buf *out,
		      struct err *e)
{
	CLEANUP(replay_freep) struct replay *r = NULL;
	const struct replay_options o = {.config = config,
					 .flags = flags,
					 .flags_name = a->flags,
					 .since_us = a->since_us,
					 .until_us = a->until_us,
					 .service = a->service,
					 .operation = a->operation,
					 .organization = a->organization};
	int n = replay_new(&o, &r, e);
	for (size_t i = 0; n == 0 && i < sources->n; i++)
		n = replay_add(r, sources->all[i].name, e);
	if (n == 0 && sources->n == 0)
		n = replay_add(r, config->outcomes.path, e);
	if (n == 0)
		n = replay_finish(r, e);
	if (n == 0)
		n = a->json ? replay_to_json(r, out) : replay_to_text(r, out);
	return n;
}

int replay_command(const struct replay_arguments *a, const struct status_sources *sources, struct buf *out)
{
	CLEANUP(buf_releasep) struct buf problems = BUF_INIT(1u << 20);
	struct config *config = NULL;
	struct flag_snapshot *flags = NULL;
	struct err e = {"out of memory"};
	if (config_load(a->config ? a->config : REPLAY_CONFIG, replay_environment, &problems, &config) < 0) {
		fputs(problems.len ? problems.ptr : "the configuration could not be read\n", stderr);
		return EXIT_FAILURE;
	}
	int r = replay_flags(config, a->flags, &flags, &e);
	if (r == 0)
		r = replay_all(a, sources, config, flags, out, &e);
	if (r < 0)
		fprintf(stderr, "migration-status: %s\n", e.text);
	flag_snapshot_unref(flags);
	config_unref(config);
	return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
