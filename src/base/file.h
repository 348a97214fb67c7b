/*
 * Whole files: read with a limit, replace atomically.
 */
#ifndef BASE_FILE_H
#define BASE_FILE_H

#include <stddef.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/err.h"

/* Appends the file's content; -EFBIG above `max` bytes (the sentence says so), -errno otherwise;
 * -EINVAL for a named pipe, which might never be written to. */
int file_read(const char *path, size_t max, struct buf *out, struct err *e);

/* Writes a neighbor, fsyncs it, renames it over `path`, fsyncs the folder: a reader sees the old or the new,
 * never a half. `mode` as in open(2). */
int file_replace(const char *path, struct span content, mode_t mode, struct err *e);

/* The same, keeping mode, owner and group of `as`; -EPERM when this user may not give the file to that
 * owner or group. */
int file_replace_as(const char *path, struct span content, const struct stat *as, struct err *e);

/* Removes neighbors that file_replace left when it was killed; for files that only the caller writes. */
void file_remove_leftovers(const char *path);

/* mkdir -p of the folder that `path` (a file) lies in. */
int file_make_parent(const char *path, mode_t mode, struct err *e);

#endif
