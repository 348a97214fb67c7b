#include "programs/router/app_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"

/* The file stays when the lock is gone: to remove it would let a third lock a file that nobody can find. */
static int app_lock_refuse(const char *data_dir, int fd, struct err *e)
{
	char text[32] = "";
	ssize_t n = pread(fd, text, sizeof(text) - 1, 0);
	if (n > 0)
		text[strcspn(text, "\n")] = '\0';
	return err_set(
		e, -EBUSY,
		"%s: another router is using this data folder, process %s; --takeover takes over from it",
		data_dir, text[0] ? text : "unknown");
}

/* A folder that cannot be written is for those to complain of that need it. */
static int go_without(const char *path, int error)
{
	log_warn("data_folder_unlocked", LOG_STR("path", path), LOG_STR("error", strerror(error)));
	return 0;
}

static void write_owner(const char *path, int fd)
{
	char text[32];
	int n = snprintf(text, sizeof(text), "%ld\n", (long)getpid());
	if (ftruncate(fd, 0) < 0 || pwrite(fd, text, (size_t)n, 0) != n)
		log_warn("data_folder_owner_untold", LOG_STR("path", path),
			 LOG_STR("error", strerror(errno)));
}

void app_lock_own(const char *data_dir, int fd)
{
	if (fd >= 0)
		write_owner(data_dir, fd);
}

int app_lock(const char *data_dir, int *ret_fd, struct err *e)
{
	CLEANUP(freep) char *path = NULL;
	*ret_fd = -1;
	if (asprintf(&path, "%s/router.lock", data_dir) < 0)
		return err_set(e, -ENOMEM, "out of memory");
	int r = file_make_parent(path, 0700, NULL);
	if (r < 0)
		return go_without(path, -r);
	CLEANUP(closep) int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NOFOLLOW, 0600);
	if (fd < 0)
		return go_without(path, errno);
	if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		return errno == EWOULDBLOCK ? app_lock_refuse(data_dir, fd, e) : go_without(path, errno);
	write_owner(path, fd);
	*ret_fd = steal_fd(&fd);
	return 0;
}
