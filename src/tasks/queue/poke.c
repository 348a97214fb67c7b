#include "tasks/queue/poke.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/crypto.h"

struct poke {
	int folder, fd;
	char name[64];
};

/* Through the folder's descriptor, since a socket's path must not be longer than 107 bytes. */
static struct sockaddr_un address(const struct poke *p, const char *name)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	snprintf(a.sun_path, sizeof(a.sun_path), "/proc/self/fd/%d/%.70s", p->folder, name);
	return a;
}

static int poke_open_folder(const char *database)
{
	CLEANUP(freep) char *path = NULL;
	if (asprintf(&path, "%s.poke", database) < 0) {
		path = NULL;
		return -ENOMEM;
	}
	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		return -errno;
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	return fd < 0 ? -errno : fd;
}

static int open_socket(struct poke *p)
{
	p->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (p->fd < 0)
		return -errno;
	struct sockaddr_un a = address(p, p->name);
	if (bind(p->fd, (struct sockaddr *)&a, sizeof(a)) < 0) {
		p->name[0] = '\0';
		return -errno;
	}
	return fchmodat(p->folder, p->name, 0600, 0) < 0 ? -errno : 0;
}

int poke_open(const char *database, enum poke_role role, struct poke **ret, struct err *e)
{
	char chance[CRYPTO_ID_HEX];
	struct poke *p = calloc(1, sizeof(*p));
	if (!p)
		return err_set(e, -ENOMEM, "out of memory");
	p->fd = -1;
	crypto_random_id(chance);
	snprintf(p->name, sizeof(p->name), "%c-%d-%.12s", role, (int)getpid(), chance);
	p->folder = poke_open_folder(database);
	int r = p->folder < 0 ? p->folder : open_socket(p);
	if (r < 0) {
		poke_close(p);
		return err_set(e, r, "%s.poke: %s", database, strerror(-r));
	}
	*ret = p;
	return 0;
}

struct poke *poke_close(struct poke *p)
{
	if (!p)
		return NULL;
	if (p->fd >= 0)
		close(p->fd);
	if (p->folder >= 0) {
		if (p->name[0])
			unlinkat(p->folder, p->name, 0);
		close(p->folder);
	}
	free(p);
	return NULL;
}

int poke_fd(const struct poke *p)
{
	return p->fd;
}

void poke_drain(struct poke *p)
{
	char bytes[8];
	while (recv(p->fd, bytes, sizeof(bytes), 0) >= 0)
		;
}

static void poke_one(struct poke *p, const char *name)
{
	struct sockaddr_un a = address(p, name);
	if (sendto(p->fd, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL, (struct sockaddr *)&a, sizeof(a)) < 0 &&
	    errno == ECONNREFUSED)
		unlinkat(p->folder, name, 0); /* its process is gone */
}

void poke_all(struct poke *p, enum poke_role role)
{
	int again = openat(p->folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *folder = again < 0 ? NULL : fdopendir(again);
	if (!folder) {
		if (again >= 0)
			close(again);
		return;
	}
	struct dirent *d;
	while ((d = readdir(folder)))
		if (d->d_name[0] == (char)role && strcmp(d->d_name, p->name) != 0)
			poke_one(p, d->d_name);
	closedir(folder);
}
