/*
 * `migration-router explain`: what one identity would get, and how it comes about. See migration-router(1).
 */
#ifndef PROGRAMS_ROUTER_EXPLAIN_EXPLAIN_H
#define PROGRAMS_ROUTER_EXPLAIN_EXPLAIN_H

int explain_command(int argc, char **argv); /* argv[0] is "explain"; returns the exit code */

#endif
