#include "tasks/worker/document.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"

#define DOCUMENT_MAX_DEPTH 64

/* The next name of the path; SPAN_NONE at its end. */
static struct span document_next_name(struct span *path)
{
	while (path->len && path->ptr[0] == '/')
		path->ptr++, path->len--;
	struct span name = {path->ptr, 0};
	while (name.len < path->len && path->ptr[name.len] != '/')
		name.len++;
	path->ptr += name.len;
	path->len -= name.len;
	return name.len ? name : SPAN_NONE;
}

/* What follows the folder in an absolute path. False: it is not below it. */
static bool document_below(const char *folder, struct span *path)
{
	size_t n = strlen(folder);
	if (!path->len || memchr(path->ptr, '\0', path->len))
		return false;
	if (path->ptr[0] != '/')
		return true;
	while (n && folder[n - 1] == '/')
		n--;
	if (!span_starts(*path, (struct span){folder, n}) || path->len == n || path->ptr[n] != '/')
		return false;
	*path = (struct span){path->ptr + n, path->len - n};
	return true;
}

static int document_check(int fd)
{
	struct stat st;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	if (st.st_size > (off_t)DOCUMENT_MAX_BYTES)
		return -EFBIG;
	return fcntl(fd, F_SETFL, 0) < 0 ? -errno : 0;
}

static int document_step(int *at, struct span name, bool last)
{
	char text[NAME_MAX + 1];
	/* O_NONBLOCK: a named pipe must not hold the worker up */
	int flags = last ? O_RDONLY | O_NONBLOCK : O_PATH | O_DIRECTORY;
	if (name.len > NAME_MAX)
		return -ENAMETOOLONG;
	if (span_is(name, "..") || span_is(name, "."))
		return -EINVAL;
	span_copy(name, text, sizeof(text));
	if (strlen(text) != name.len)
		return -EINVAL; /* cut where it is no UTF-8 */
	int fd = openat(*at, text, flags | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY);
	if (fd < 0)
		return -errno;
	close(*at);
	*at = fd;
	return 0;
}

int document_open(const char *folder, struct span path, int *ret, struct err *e)
{
	if (!document_below(folder, &path))
		return err_set(e, -EINVAL, "it is not below the folder");
	CLEANUP(closep) int at = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (at < 0)
		return err_set(e, -EIO, "the folder of documents %s: %s", folder, strerror(errno));
	struct span name = document_next_name(&path);
	int r = name.ptr ? 0 : -EINVAL;
	for (unsigned depth = 0; r == 0 && name.ptr; depth++) {
		struct span next = document_next_name(&path);
		r = depth < DOCUMENT_MAX_DEPTH ? document_step(&at, name, !next.ptr) : -EINVAL;
		name = next;
	}
	if (r == 0)
		r = document_check(at);
	if (r < 0)
		return err_set(e, r, "%s", strerror(-r));
	*ret = steal_fd(&at);
	return 0;
}
