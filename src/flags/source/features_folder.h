/*
 * What flags.file names: a features file, or a folder of them, read as Flipt reads a folder.
 *
 * Source:    docs/protocols/flipt.md, "Folders of features files".
 * Which:     by v2's rules features.yml, .yaml and .json, by v1's whatever ends in features.yml or .yaml, or
 *            what a .flipt.yml at the top says; at any depth, in the order of their paths below the folder.
 *            Folders whose name begins with a dot are not entered (.git, ..data of a ConfigMap), links to
 *            files are followed, links to folders are not.
 * Ownership: a features_text owns its texts.
 * Limits:    FEATURES_FILES_MAX files, FEATURES_FOLDERS_MAX folders, FLAG_MAX_DOCUMENT bytes together.
 * Threads:   none of its own.
 */
#ifndef FLAGS_SOURCE_FEATURES_FOLDER_H
#define FLAGS_SOURCE_FEATURES_FOLDER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "flags/flags.h"

#define FEATURES_FILES_MAX 1000
#define FEATURES_FOLDERS_MAX 1000
#define FEATURES_DEPTH_MAX 32

struct features_text {
	bool folder;
	/* the file's text; of a folder: of each file its path below it, NUL, its text, NUL */
	struct buf whole;
	struct flag_text *files; /* their texts are in `whole` */
	size_t n;
};

/* A file of a folder that cannot be read has its error in its row. -ENOENT: no such file, or a folder
 * without any; -EFBIG; -errno. */
int features_read(const char *path, enum flag_rules rules, struct features_text *ret, struct err *e);
void features_release(struct features_text *t);

/* As flag_snapshot_parse_namespace and flag_snapshot_parse_files; the digest is that of `whole`. */
int features_parse(const char *path, const struct features_text *t, const char *namespace_key,
		   enum flag_rules rules, struct flag_snapshot **ret, struct err *e);

bool features_is_folder(const char *path);
/* Differs if a file of the folder was added, removed or changed, as far as stat can tell. */
uint64_t features_folder_signature(const char *path, enum flag_rules rules);
/* Calls `fn` for the folder and each one below it that is entered. */
void features_each_folder(const char *path, void (*fn)(void *arg, const char *folder), void *arg);

#endif
