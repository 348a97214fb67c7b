#include "ledger/ledger_share.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/hash.h"

#define MARKS 4096

struct ledger_share {
	int fd;
	char *path;
	atomic_uint *all;    /* mapped: of all processes */
	unsigned own[MARKS]; /* of this one, among them */
};

/* The same in every process. Who finds keys that collide wins a few more answers of 503 while processes
 * change over. */
static unsigned place_of(struct span group, struct span key)
{
	uint32_t h = hash32(HASH32_START, group);
	h = hash32(hash32(h, (struct span){"\0", 1}), key);
	return (h ^ h >> 16) % MARKS;
}

static int map(struct ledger_share *s)
{
	size_t size = MARKS * sizeof(s->all[0]);
	struct stat st;
	if (fstat(s->fd, &st) < 0 || ((size_t)st.st_size < size && ftruncate(s->fd, (off_t)size) < 0))
		return -errno;
	void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, s->fd, 0);
	if (at == MAP_FAILED)
		return -errno;
	s->all = at;
	return 0;
}

static int be_present(const struct ledger_share *s)
{
	struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_len = 1};
	return fcntl(s->fd, F_OFD_SETLK, &lock) < 0 ? -errno : 0;
}

int ledger_share_open(const char *ledger, struct ledger_share **ret, struct err *e)
{
	struct ledger_share *s = calloc(1, sizeof(*s));
	if (!s)
		return err_set(e, -ENOMEM, "out of memory");
	s->fd = -1;
	if (asprintf(&s->path, "%s-pending", ledger) < 0) {
		free(s);
		return err_set(e, -ENOMEM, "out of memory");
	}
	s->fd = open(s->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NOFOLLOW, 0600);
	int r = s->fd < 0 ? -errno : map(s);
	if (r == 0)
		r = be_present(s);
	if (r < 0) {
		err_set(e, r, "%s: %s", s->path, strerror(-r));
		ledger_share_close(s);
		return r;
	}
	*ret = s;
	return 0;
}

struct ledger_share *ledger_share_close(struct ledger_share *s)
{
	if (!s)
		return NULL;
	if (s->all)
		munmap(s->all, MARKS * sizeof(s->all[0]));
	if (s->fd >= 0)
		close(s->fd);
	free(s->path);
	free(s);
	return NULL;
}

bool ledger_share_alone(const struct ledger_share *s)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1};
	return fcntl(s->fd, F_OFD_GETLK, &lock) == 0 && lock.l_type == F_UNLCK;
}

bool ledger_share_in_use(const char *ledger)
{
	CLEANUP(freep) char *path = NULL;
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1};
	if (asprintf(&path, "%s-pending", ledger) < 0)
		path = NULL;
	CLEANUP(closep) int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	return fd >= 0 && fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

bool ledger_share_moved(const struct ledger_share *s)
{
	struct stat ours, there;
	return fstat(s->fd, &ours) < 0 || stat(s->path, &there) < 0 || ours.st_dev != there.st_dev ||
	       ours.st_ino != there.st_ino;
}

void ledger_share_mark(struct ledger_share *s, struct span group, struct span key)
{
	unsigned at = place_of(group, key);
	s->own[at]++;
	atomic_fetch_add(&s->all[at], 1);
}

void ledger_share_unmark(struct ledger_share *s, struct span group, struct span key)
{
	unsigned at = place_of(group, key);
	s->own[at]--;
	atomic_fetch_sub(&s->all[at], 1);
}

bool ledger_share_own(const struct ledger_share *s, struct span group, struct span key)
{
	return s->own[place_of(group, key)] > 0;
}

bool ledger_share_others(const struct ledger_share *s, struct span group, struct span key)
{
	unsigned at = place_of(group, key);
	return atomic_load(&s->all[at]) != s->own[at];
}

void ledger_share_reset(struct ledger_share *s)
{
	for (size_t i = 0; i < MARKS; i++)
		atomic_store(&s->all[i], s->own[i]);
}
