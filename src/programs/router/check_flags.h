/*
 * check: the configuration against its features file; check --flags: against the live source of its flags.
 */
#ifndef PROGRAMS_ROUTER_CHECK_FLAGS_H
#define PROGRAMS_ROUTER_CHECK_FLAGS_H

/* Prints what it finds. 0 fine, 1 a flag in use is not there or broken, or the source cannot be read, 2
 * configuration. */
int check_flags(const char *config_path);
/* The same, of a features file and without a connection: its mistakes, and flags in use that it does not
 * have, on standard error. */
int check_flags_file(const char *config_path);

#endif
