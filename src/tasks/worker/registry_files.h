/*
 * The files of a registry: what `tasks:` and --tasks name, found and in order.
 *
 * Why:       a set of tasks is dropped into a folder, beside those of others; which files are read is decided
 *            in one place, and told.
 * Folder:    its *.yml that are not hidden, in the order of their names (bytes).
 * Ownership: everything is in the arena that was given.
 * Errors:    -ENOMEM; all else is a line in `problems` ("path: what is wrong"), counted.
 */
#ifndef TASKS_WORKER_REGISTRY_FILES_H
#define TASKS_WORKER_REGISTRY_FILES_H

#include <sys/types.h>

#include "base/arena.h"
#include "base/buf.h"

#define REGISTRY_MAX_FILES 256 /* of a set, and paths that are named */

struct registry_file {
	const char *name;   /* as messages say it */
	const char *folder; /* "…/", of the file itself behind links: relative paths in it begin there */
	dev_t device;
	ino_t inode;
	struct yaml_doc *doc; /* whoever reads it */
	unsigned mistakes;
};

struct registry_files {
	struct registry_file all[REGISTRY_MAX_FILES];
	size_t n;
	unsigned wrong; /* paths that give no file, or one that is there already */
	int code;	/* of the last of them: -errno */
};

/* `paths`: files and folders (also as folder/ *.yml, without the blank), one a line. Each *.yaml in a folder,
 * which is not read, gets a line that is a warning. */
int registry_files_find(const char *paths, struct arena *memory, struct buf *problems,
			struct registry_files *ret);

#endif
