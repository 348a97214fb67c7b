/* A folder of a test's own. It stands in $TMPDIR, else where the test runs: in the build folder, so that a
 * run of the tests leaves nothing anywhere else. */
#ifndef TESTS_SCRATCH_H
#define TESTS_SCRATCH_H

#define SCRATCH_MAX 512 /* bytes of a path in it, with NUL */

/* Makes it and returns its absolute path, to be given to scratch_remove. Aborts when it cannot. */
void scratch_make(char folder[static SCRATCH_MAX]);
/* Removes it with everything in it. */
void scratch_remove(const char *folder);
/* "<folder>/<name>". Aborts when that does not fit. */
void scratch_path(const char *folder, const char *name, char path[static SCRATCH_MAX]);

#endif
