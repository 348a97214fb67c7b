#include "tasks/worker/registry_files.h"

#include <dirent.h>
#include <errno.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/span.h"

struct files_finder {
	struct registry_files *found;
	struct arena *memory;
	struct buf *problems;
	bool out_of_memory;
};

static char *files_text(struct files_finder *f, struct span s)
{
	struct span copy;
	if (arena_copy(f->memory, s, &copy) == 0)
		return (char *)copy.ptr;
	f->out_of_memory = true;
	return NULL;
}

static void files_wrong(struct files_finder *f, int code, const char *path, const char *what)
{
	buf_printf(f->problems, "%s: %s\n", path, what);
	f->found->wrong++;
	f->found->code = code;
}

static const char *files_folder_of(struct files_finder *f, const char *path)
{
	CLEANUP(freep) char *real = realpath(path, NULL);
	CLEANUP(buf_releasep) struct buf folder = BUF_INIT(1u << 16);
	buf_printf(&folder, "%s/", real ? dirname(real) : ".");
	return files_text(f, buf_span(&folder));
}

/* The same file by another way: everything in it would be declared twice. */
static bool files_has(struct files_finder *f, const char *path, const struct stat *st)
{
	CLEANUP(buf_releasep) struct buf what = BUF_INIT(1u << 16);
	const struct registry_files *found = f->found;
	for (size_t i = 0; i < found->n; i++) {
		if (found->all[i].device != st->st_dev || found->all[i].inode != st->st_ino)
			continue;
		buf_printf(&what, "is listed twice; it is %s", found->all[i].name);
		files_wrong(f, -EBADMSG, path, what.ptr ? what.ptr : "is listed twice");
		return true;
	}
	return false;
}

static void files_add(struct files_finder *f, const char *path, const struct stat *st)
{
	struct registry_files *found = f->found;
	if (files_has(f, path, st))
		return;
	if (found->n == REGISTRY_MAX_FILES) {
		files_wrong(f, -EBADMSG, path, "is one file too many (at most 256)");
		return;
	}
	struct registry_file *file = &found->all[found->n++];
	*file = (struct registry_file){.device = st->st_dev, .inode = st->st_ino};
	file->name = files_text(f, span_of(path));
	file->folder = files_folder_of(f, path);
}

/* --- folders -------------------------------------------------------------------------------------------- */

static int files_of_tasks(const struct dirent *d)
{
	size_t n = strlen(d->d_name);
	return d->d_name[0] != '.' && n > 4 && strcmp(d->d_name + n - 4, ".yml") == 0;
}

static int files_nearly(const struct dirent *d)
{
	size_t n = strlen(d->d_name);
	return d->d_name[0] != '.' && n > 5 && strcmp(d->d_name + n - 5, ".yaml") == 0;
}

/* Whatever the locale says. */
static int files_in_order(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static void files_free_names(struct dirent **names, int n)
{
	for (int i = 0; i < n; i++)
		free(names[i]);
	free(names);
}

/* Someone put them there to be read. */
static void files_warn(struct files_finder *f, const char *folder)
{
	struct dirent **names = NULL;
	int n = scandir(folder, &names, files_nearly, files_in_order);
	for (int i = 0; i < n; i++)
		buf_printf(f->problems, "warning: %s/%s: is not read; names end in .yml\n", folder,
			   names[i]->d_name);
	if (n >= 0)
		files_free_names(names, n);
}

/* An empty one is a mistake: what is not mounted, or not yet, would be the end of every task in it. */
static void files_add_folder(struct files_finder *f, const char *folder)
{
	struct dirent **names = NULL;
	struct stat st;
	files_warn(f, folder);
	int n = scandir(folder, &names, files_of_tasks, files_in_order);
	if (n < 0) {
		files_wrong(f, -errno, folder, strerror(errno));
		return;
	}
	if (n == 0)
		files_wrong(f, -EBADMSG, folder, "has no *.yml");
	for (int i = 0; i < n; i++) {
		CLEANUP(buf_releasep) struct buf path = BUF_INIT(1u << 16);
		buf_printf(&path, "%s/%s", folder, names[i]->d_name);
		if (path.error)
			f->out_of_memory = true;
		else if (stat(path.ptr, &st) < 0)
			files_wrong(f, -errno, path.ptr, strerror(errno));
		else
			files_add(f, path.ptr, &st);
	}
	files_free_names(names, n);
}

static void files_add_path(struct files_finder *f, struct span line)
{
	static const char all[] = "/*.yml";
	struct stat st;
	bool folder =
		line.len > strlen(all) && memcmp(line.ptr + line.len - strlen(all), all, strlen(all)) == 0;
	line.len -= folder ? strlen(all) : 0;
	while (line.len > 1 && line.ptr[line.len - 1] == '/')
		line.len--;
	const char *path = files_text(f, line);
	if (!path)
		return;
	if (stat(path, &st) < 0)
		files_wrong(f, -errno, path, strerror(errno));
	else if (S_ISDIR(st.st_mode))
		files_add_folder(f, path);
	else if (folder)
		files_wrong(f, -ENOTDIR, path, "is no folder");
	else
		files_add(f, path, &st);
}

int registry_files_find(const char *paths, struct arena *memory, struct buf *problems,
			struct registry_files *ret)
{
	struct files_finder f = {.found = ret, .memory = memory, .problems = problems};
	size_t n = 0;
	while (paths && *paths && n++ < REGISTRY_MAX_FILES && !f.out_of_memory) {
		size_t len = strcspn(paths, "\n");
		if (len)
			files_add_path(&f, (struct span){paths, len});
		paths += len + (paths[len] == '\n');
	}
	if (paths && *paths && !f.out_of_memory)
		files_wrong(&f, -EBADMSG, "tasks", "more than 256 paths");
	return f.out_of_memory ? -ENOMEM : 0;
}
