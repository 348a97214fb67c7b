#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

/* A named pipe would keep whoever reads it waiting for a writer, forever, and with it the thread that serves
 * everybody. Pipes without a name (<(...) of a shell) have theirs. */
static bool is_named_pipe(int fd)
{
	struct stat st;
	struct statfs fs;
	return fstat(fd, &st) == 0 && S_ISFIFO(st.st_mode) &&
	       (fstatfs(fd, &fs) < 0 || fs.f_type != PIPEFS_MAGIC);
}

static int open_to_read(const char *path, struct err *e)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return err_set(e, -errno, "%s: %s", path, strerror(errno));
	if (is_named_pipe(fd) || fcntl(fd, F_SETFL, 0) < 0) {
		close(fd);
		return err_set(e, -EINVAL, "%s: is a named pipe, not a file", path);
	}
	return fd;
}

int file_read(const char *path, size_t max, struct buf *out, struct err *e)
{
	CLEANUP(closep) int fd = open_to_read(path, e);
	if (fd < 0)
		return fd;
	size_t got = 0;
	for (;;) {
		int r = buf_reserve(out, 65536);
		if (r < 0)
			return err_set(e, r, "%s: larger than the limit of %zu bytes", path, max);
		ssize_t n = read(fd, out->ptr + out->len, 65536);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_set(e, -errno, "%s: %s", path, strerror(errno));
		out->len += (size_t)n;
		got += (size_t)n;
		buf_terminate(out);
		if (got > max)
			return err_set(e, -EFBIG, "%s: larger than the limit of %zu bytes", path, max);
		if (n == 0)
			return 0;
	}
}

static int file_write_all(int fd, struct span content)
{
	while (content.len) {
		ssize_t n = write(fd, content.ptr, content.len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		content.ptr += n;
		content.len -= (size_t)n;
	}
	return 0;
}

static int sync_parent(const char *path)
{
	CLEANUP(freep) char *copy = strdup(path);
	if (!copy)
		return -ENOMEM;
	CLEANUP(closep) int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fsync(fd) < 0)
		return -errno;
	return 0;
}

#define SUFFIX ".XXXXXX" /* of a file that is being written */

/* Who owns nothing else is not asked for it: an own file needs no chown. */
static int own(int fd, const struct stat *as)
{
	struct stat now;
	if (!as || (fstat(fd, &now) == 0 && now.st_uid == as->st_uid && now.st_gid == as->st_gid))
		return 0;
	return fchown(fd, as->st_uid, as->st_gid);
}

static int replace(const char *path, struct span content, mode_t mode, const struct stat *as, struct err *e)
{
	CLEANUP(freep) char *temporary = NULL;
	if (asprintf(&temporary, "%s" SUFFIX, path) < 0) {
		temporary = NULL;
		return err_set(e, -ENOMEM, "out of memory");
	}
	CLEANUP(closep) int fd = mkostemp(temporary, O_CLOEXEC);
	if (fd < 0)
		return err_set(e, -errno, "%s: %s", temporary, strerror(errno));
	int r = file_write_all(fd, content);
	if (r == 0 &&
	    (own(fd, as) < 0 || fchmod(fd, mode) < 0 || fsync(fd) < 0 || rename(temporary, path) < 0))
		r = -errno;
	if (r < 0) {
		unlink(temporary);
		return err_set(e, r, "%s: %s", path, strerror(-r));
	}
	r = sync_parent(path);
	return r < 0 ? err_set(e, r, "%s: %s", path, strerror(-r)) : 0;
}

int file_replace(const char *path, struct span content, mode_t mode, struct err *e)
{
	return replace(path, content, mode, NULL, e);
}

int file_replace_as(const char *path, struct span content, const struct stat *as, struct err *e)
{
	return replace(path, content, as->st_mode & 07777, as, e);
}

void file_remove_leftovers(const char *path)
{
	CLEANUP(freep) char *copy = strdup(path);
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
	size_t length = strlen(name);
	DIR *folder = copy ? opendir(dirname(copy)) : NULL;
	for (struct dirent *d; folder && (d = readdir(folder));)
		if (strncmp(d->d_name, name, length) == 0 && d->d_name[length] == '.' &&
		    strlen(d->d_name) == length + sizeof(SUFFIX) - 1)
			unlinkat(dirfd(folder), d->d_name, 0);
	if (folder)
		closedir(folder);
}

int file_make_parent(const char *path, mode_t mode, struct err *e)
{
	CLEANUP(freep) char *copy = strdup(path);
	if (!copy)
		return err_set(e, -ENOMEM, "out of memory");
	for (char *slash = strchr(copy + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		if (mkdir(copy, mode) < 0 && errno != EEXIST)
			return err_set(e, -errno, "%s: %s", copy, strerror(errno));
		*slash = '/';
	}
	return 0;
}
