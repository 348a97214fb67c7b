#include "tasks/driver/driver_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "base/crypto.h"
#include "base/file.h"

#define TRIES 16

static struct flock byte_of(int64_t number)
{
	return (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = number, .l_len = 1};
}

/* Of the open file description, not of the process: another thread that opens and closes the file drops
 * nothing. */
static int lock_some(int fd, int64_t *ret)
{
	for (int i = 0; i < TRIES; i++) {
		int64_t number = (int64_t)crypto_random_below(INT32_MAX) + 1;
		struct flock one = byte_of(number);
		if (fcntl(fd, F_OFD_SETLK, &one) == 0) {
			*ret = number;
			return 0;
		}
		if (errno != EAGAIN && errno != EACCES)
			return -errno;
	}
	return -EAGAIN;
}

int driver_lock_take(const char *path, struct driver_lock *ret, struct err *e)
{
	*ret = (struct driver_lock){.fd = -1};
	int r = file_make_parent(path, 0700, e);
	if (r < 0)
		return r;
	ret->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	r = ret->fd < 0 ? -errno : lock_some(ret->fd, &ret->number);
	if (r < 0) {
		driver_lock_drop(ret);
		return err_set(e, r, "%s: %s", path, strerror(-r));
	}
	return 0;
}

void driver_lock_drop(struct driver_lock *l)
{
	if (l->fd >= 0)
		close(l->fd);
	l->fd = -1;
	l->number = 0;
}

bool driver_lock_lives(const struct driver_lock *l, int64_t number)
{
	struct flock one = byte_of(number);
	if (number == l->number)
		return true;
	if (number <= 0) /* nobody's */
		return false;
	return fcntl(l->fd, F_OFD_GETLK, &one) < 0 || one.l_type != F_UNLCK;
}
