/*
 * Documents: files that callers name, below a folder that the operator declares.
 *
 * Why:       who may call a task must not be able to read what else the worker's user can.
 * Rules:     a path is walked name by name from the folder: no "..", no symbolic link, nothing but a
 * regular file
 *            at its end. An absolute path must begin with the folder as it is declared.
 * Threads:   any; no state.
 */
#ifndef TASKS_WORKER_DOCUMENT_H
#define TASKS_WORKER_DOCUMENT_H

#include "base/err.h"
#include "base/span.h"

#define DOCUMENT_MAX_BYTES (1u << 30)

/* Opens it for reading. -EIO with a sentence: the folder itself cannot be opened. Any other error is the
 * caller's path: -ENOENT, -ELOOP, -ENOTDIR, -EACCES, -EFBIG, …, or -EINVAL for what is no path below the
 * folder. */
int document_open(const char *folder, struct span path, int *ret, struct err *e);

#endif
