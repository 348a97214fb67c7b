#include "flags/source/features_folder.h"

#include <dirent.h>
#include <errno.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/yaml.h"

#define INDEX_NAME ".flipt.yml"
#define INDEX_MAX 65536

/* The paths of a folder's files below it. */
struct folder_walk {
	const char *top;
	size_t top_len;
	bool v1;
	struct yaml_doc *index; /* v1: .flipt.yml, or NULL */
	char *paths[FEATURES_FILES_MAX];
	size_t n, folders;
	bool too_many;
	void (*entered)(void *arg, const char *folder);
	void *arg;
};

/* --- which files count ---------------------------------------------------------------------------------- */

static bool ends_with(const char *text, const char *end)
{
	size_t n = strlen(text), m = strlen(end);
	return n >= m && strcmp(text + n - m, end) == 0;
}

/* Flipt's globs have no separators: * takes a slash, too, and ** is no more than *. */
static bool folder_lists(const struct yaml_node *globs, const char *path)
{
	for (const struct yaml_node *n = globs ? globs->first : NULL; n; n = n->next)
		if (n->text.ptr && fnmatch(n->text.ptr, path, 0) == 0)
			return true;
	return false;
}

static bool counts_by_v1(const struct folder_walk *w, const char *path)
{
	if (w->index && yaml_root(w->index)) {
		const struct yaml_node *root = yaml_root(w->index);
		return folder_lists(yaml_get(root, "include"), path) &&
		       !folder_lists(yaml_get(root, "exclude"), path);
	}
	return ends_with(path, "features.yml") || ends_with(path, "features.yaml");
}

static bool counts_by_v2(const char *path)
{
	static const char *const names[] = {"features.yaml", "features.yml", "features.json"};
	const char *slash = strrchr(path, '/');
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strcmp(slash ? slash + 1 : path, names[i]) == 0)
			return true;
	return false;
}

/* --- walking -------------------------------------------------------------------------------------------- */

static void walk_keep(struct folder_walk *w, const char *path)
{
	if (w->n == FEATURES_FILES_MAX) {
		w->too_many = true;
		return;
	}
	w->paths[w->n] = strdup(path);
	w->n += w->paths[w->n] != NULL;
}

static void walk_file(struct folder_walk *w, const char *path)
{
	const char *below = path + w->top_len + 1;
	if (w->v1 ? counts_by_v1(w, below) : counts_by_v2(below))
		walk_keep(w, path);
}

static void walk_folder(struct folder_walk *w, const char *folder, unsigned depth);

static void walk_entry(struct folder_walk *w, const char *path, const char *name, unsigned depth)
{
	struct stat st;
	bool link = lstat(path, &st) == 0 && S_ISLNK(st.st_mode);
	if (stat(path, &st) < 0) {
		walk_file(w, path); /* a link to nothing is reported when it is read */
		return;
	}
	if (S_ISREG(st.st_mode))
		walk_file(w, path);
	else if (S_ISDIR(st.st_mode) && !link && name[0] != '.' && depth < FEATURES_DEPTH_MAX)
		walk_folder(w, path, depth + 1);
}

static void walk_folder(struct folder_walk *w, const char *folder, unsigned depth)
{
	if (++w->folders > FEATURES_FOLDERS_MAX) {
		w->too_many = true;
		return;
	}
	if (w->entered)
		w->entered(w->arg, folder);
	DIR *d = opendir(folder);
	for (struct dirent *entry = d ? readdir(d) : NULL; entry; entry = readdir(d)) {
		char path[PATH_MAX];
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		int n = snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
		if (n > 0 && (size_t)n < sizeof(path))
			walk_entry(w, path, entry->d_name, depth);
	}
	if (d)
		closedir(d);
	else
		walk_keep(w, folder); /* told, with its reason, when it is read */
}

static int compare_paths(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static int read_index(struct folder_walk *w, struct err *e)
{
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(2 * INDEX_MAX);
	char path[PATH_MAX];
	struct stat st;
	snprintf(path, sizeof(path), "%s/" INDEX_NAME, w->top);
	if (!w->v1 || stat(path, &st) < 0)
		return 0;
	int r = file_read(path, INDEX_MAX, &text, e);
	return r < 0 ? r : yaml_parse(path, buf_span(&text), &w->index, e);
}

static int folder_walk_all(struct folder_walk *w, const char *top, enum flag_rules rules, struct err *e)
{
	w->top = top;
	w->top_len = strlen(top);
	w->v1 = rules == FLAG_RULES_V1;
	int r = read_index(w, e);
	if (r < 0)
		return r;
	walk_folder(w, top, 0);
	qsort(w->paths, w->n, sizeof(w->paths[0]), compare_paths);
	if (w->too_many)
		return err_set(e, -EFBIG, "%s: more than %d features files or %d folders", top,
			       FEATURES_FILES_MAX, FEATURES_FOLDERS_MAX);
	return 0;
}

static void walk_release(struct folder_walk *w)
{
	for (size_t i = 0; i < w->n; i++)
		free(w->paths[i]);
	yaml_free(w->index);
}

/* --- reading -------------------------------------------------------------------------------------------- */

/* Offsets while `whole` grows and moves; pointers once it is complete. */
static int folder_read_row(struct features_text *t, struct flag_text *row, const char *below, size_t *at)
{
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(FLAG_MAX_DOCUMENT);
	struct err e = {""};
	if (file_read(row->name, FLAG_MAX_DOCUMENT, &text, &e) < 0) {
		row->error = strdup(e.text);
		return row->error ? 0 : -ENOMEM;
	}
	buf_puts(&t->whole, below);
	buf_putc(&t->whole, '\0');
	*at = t->whole.len;
	row->text.len = text.len;
	buf_append(&t->whole, text.ptr, text.len);
	buf_putc(&t->whole, '\0');
	return t->whole.error;
}

static int folder_read_rows(struct features_text *t, struct folder_walk *w, struct err *e)
{
	CLEANUP(freep) size_t *at = calloc(w->n + 1, sizeof(*at));
	t->files = calloc(w->n + 1, sizeof(*t->files));
	if (!at || !t->files)
		return err_set(e, -ENOMEM, "out of memory");
	for (; t->n < w->n; t->n++) {
		t->files[t->n].name = w->paths[t->n];
		w->paths[t->n] = NULL;
		if (folder_read_row(t, &t->files[t->n], t->files[t->n].name + w->top_len + 1, &at[t->n]) <
		    0) {
			t->n++;
			return err_set(e, -EFBIG, "%s: larger than the limit of %u bytes together", w->top,
				       FLAG_MAX_DOCUMENT);
		}
	}
	for (size_t i = 0; i < t->n; i++)
		if (!t->files[i].error)
			t->files[i].text.ptr = t->whole.ptr + at[i];
	return 0;
}

static int read_folder(const char *path, enum flag_rules rules, struct features_text *ret, struct err *e)
{
	struct folder_walk *w = calloc(1, sizeof(*w));
	if (!w)
		return err_set(e, -ENOMEM, "out of memory");
	int r = folder_walk_all(w, path, rules, e);
	if (r == 0 && w->n == 0)
		r = err_set(e, -ENOENT, "%s: no features files in this folder", path);
	if (r == 0)
		r = folder_read_rows(ret, w, e);
	walk_release(w);
	free(w);
	return r;
}

int features_read(const char *path, enum flag_rules rules, struct features_text *ret, struct err *e)
{
	*ret = (struct features_text){.folder = features_is_folder(path),
				      .whole = BUF_INIT(FLAG_MAX_DOCUMENT)};
	int r = ret->folder ? read_folder(path, rules, ret, e)
			    : file_read(path, FLAG_MAX_DOCUMENT, &ret->whole, e);
	if (r < 0)
		features_release(ret);
	return r;
}

void features_release(struct features_text *t)
{
	for (size_t i = 0; i < t->n; i++) {
		free((char *)t->files[i].name);
		free((char *)t->files[i].error);
	}
	free(t->files);
	buf_release(&t->whole);
	t->files = NULL;
	t->n = 0;
}

int features_parse(const char *path, const struct features_text *t, const char *namespace_key,
		   enum flag_rules rules, struct flag_snapshot **ret, struct err *e)
{
	if (!t->folder)
		return flag_snapshot_parse_namespace(path, buf_span(&t->whole), namespace_key, rules, ret, e);
	return flag_snapshot_parse_files(path, t->files, t->n, buf_span(&t->whole), namespace_key, rules, ret,
					 e);
}

/* --- changes -------------------------------------------------------------------------------------------- */

bool features_is_folder(const char *path)
{
	struct stat st;
	return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

uint64_t features_folder_signature(const char *path, enum flag_rules rules)
{
	struct folder_walk *w = calloc(1, sizeof(*w));
	uint64_t h = HASH64_START;
	if (!w)
		return 0;
	if (folder_walk_all(w, path, rules, NULL) < 0)
		h = hash64(h, "?", 1);
	for (size_t i = 0; i < w->n; i++) {
		struct stat st = {0};
		h = hash64(h, w->paths[i], strlen(w->paths[i]) + 1);
		if (stat(w->paths[i], &st) < 0)
			continue;
		h = hash64(h, &st.st_dev, sizeof(st.st_dev));
		h = hash64(h, &st.st_ino, sizeof(st.st_ino));
		h = hash64(h, &st.st_size, sizeof(st.st_size));
		h = hash64(h, &st.st_mtim, sizeof(st.st_mtim));
		h = hash64(h, &st.st_ctim, sizeof(st.st_ctim));
	}
	walk_release(w);
	free(w);
	return h;
}

void features_each_folder(const char *path, void (*fn)(void *arg, const char *folder), void *arg)
{
	struct folder_walk *w = calloc(1, sizeof(*w));
	if (!w)
		return;
	w->entered = fn;
	w->arg = arg;
	folder_walk_all(w, path, FLAG_RULES_V2, NULL);
	walk_release(w);
	free(w);
}
