/*
 * `migration-router graph WORKFLOW [--tasks FILE]…`: a declared workflow as a Mermaid flowchart.
 */
#ifndef PROGRAMS_ROUTER_GRAPH_H
#define PROGRAMS_ROUTER_GRAPH_H

/* The sub-command, argv[0] being its name. Without --tasks, tasks.yml or config/tasks.yml. Exit codes: 0
 * printed, 1 the output could not be written, 2 usage, a mistake in the file, or no such workflow. */
int graph_command(int argc, char **argv);

#endif
