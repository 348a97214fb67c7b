#include "programs/router/graph.h"

#include <getopt.h>
#include <stdio.h>
#include <unistd.h>

#include "base/buf.h"
#include "tasks/worker/registry.h"

#define GRAPH_MAX (4u << 20)

static const char *graph_default_file(void)
{
	return access("tasks.yml", F_OK) == 0 ? "tasks.yml" : "config/tasks.yml";
}

static int graph_print(const struct registry *r, const char *name)
{
	CLEANUP(buf_releasep) struct buf out = BUF_INIT(GRAPH_MAX);
	const struct workflow_definition *w = registry_workflow(r, span_of(name));
	if (!w) {
		registry_describe_unknown(r, span_of(name), true, &out);
		fprintf(stderr, "%.*s\n", SPAN_ARG(buf_span(&out)));
		return 2;
	}
	if (workflow_put_mermaid(w, &out) < 0) {
		fprintf(stderr, "out of memory\n");
		return 1;
	}
	return fwrite(out.ptr, 1, out.len, stdout) == out.len && fflush(stdout) == 0 ? 0 : 1;
}

int graph_command(int argc, char **argv)
{
	static const struct option options[] = {{"tasks", required_argument, NULL, 't'}, {0}};
	CLEANUP(buf_releasep) struct buf problems = BUF_INIT(1u << 20), paths = BUF_INIT(1u << 16);
	struct registry *r = NULL;
	int o;
	while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (o != 't')
			return 2;
		buf_printf(&paths, "%s%s", paths.len ? "\n" : "", optarg);
	}
	if (optind != argc - 1) {
		fprintf(stderr, "usage: migration-router graph WORKFLOW [--tasks FILE]…\n");
		return 2;
	}
	if (!paths.len)
		buf_puts(&paths, graph_default_file());
	if (paths.error) {
		fprintf(stderr, "--tasks: too many files\n");
		return 2;
	}
	const struct registry_source source = {.paths = paths.ptr};
	if (registry_load_workflows(&source, &problems, &r) < 0) {
		fprintf(stderr, "%.*s", SPAN_ARG(buf_span(&problems)));
		return 2;
	}
	int code = graph_print(r, argv[optind]);
	registry_free(r);
	return code;
}
