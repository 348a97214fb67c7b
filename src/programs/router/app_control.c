#include "programs/router/app_control.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"

#define NAME "router.sock"
#define NEW_NAME NAME ".new"
#define PATIENCE_S 30
static const char magic[8] = "MRTAKE1"; /* the protocol's version is in it */

/* --- places --------------------------------------------------------------------------------------------- */

static int open_folder(const char *data_dir, struct err *e)
{
	int fd = open(data_dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? err_set(e, -errno, "%s: %s", data_dir, strerror(errno)) : fd;
}

static int fail(const char *data_dir, const char *what, struct err *e)
{
	int error = errno;
	return err_set(e, -error, "%s/" NAME ": cannot %s: %s", data_dir, what, strerror(error));
}

static struct sockaddr_un address_of(int folder, const char *name)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	snprintf(a.sun_path, sizeof(a.sun_path), "/proc/self/fd/%d/%s", folder, name);
	return a;
}

int control_listen(const char *data_dir, int *ret_fd, struct err *e)
{
	CLEANUP(closep) int folder = open_folder(data_dir, e);
	if (folder < 0)
		return folder;
	CLEANUP(closep) int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return fail(data_dir, "make a socket", e);
	struct sockaddr_un a = address_of(folder, NEW_NAME);
	unlinkat(folder, NEW_NAME, 0);
	fchmod(fd, 0600); /* before it is there, so that there is no moment without it */
	if (bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || fchmodat(folder, NEW_NAME, 0600, 0) < 0 ||
	    listen(fd, 4) < 0)
		return fail(data_dir, "listen", e);
	*ret_fd = steal_fd(&fd);
	return 0;
}

int control_publish(const char *data_dir, struct err *e)
{
	CLEANUP(closep) int folder = open_folder(data_dir, e);
	if (folder < 0)
		return folder;
	return renameat(folder, NEW_NAME, folder, NAME) < 0 ? fail(data_dir, "rename", e) : 0;
}

void control_unpublish(const char *data_dir)
{
	CLEANUP(closep) int folder = open_folder(data_dir, NULL);
	if (folder >= 0)
		unlinkat(folder, NAME, 0);
}

int control_connect(const char *data_dir, int *ret_fd, struct err *e)
{
	CLEANUP(closep) int folder = open_folder(data_dir, e);
	if (folder < 0)
		return folder;
	CLEANUP(closep) int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return fail(data_dir, "make a socket", e);
	struct sockaddr_un a = address_of(folder, NAME);
	struct timeval patience = {.tv_sec = PATIENCE_S};
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	if (connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0) {
		int r = fail(data_dir, "connect", e);
		return r == -ENOENT || r == -ECONNREFUSED ? -EAGAIN : r;
	}
	*ret_fd = steal_fd(&fd);
	return 0;
}

int control_peer(int fd, pid_t *ret_pid, struct err *e)
{
	struct ucred peer;
	socklen_t n = sizeof(peer);
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &n) < 0)
		return err_set(e, -errno, "the peer cannot be identified: %s", strerror(errno));
	*ret_pid = peer.pid;
	if (peer.uid != geteuid() && peer.uid != 0)
		return err_set(e, -EPERM, "process %ld belongs to user %ld", (long)peer.pid, (long)peer.uid);
	return 0;
}

/* --- messages ------------------------------------------------------------------------------------------- */

struct packet {
	char magic[sizeof(magic)];
	uint32_t kind, last, with_lock, n_sockets, n_ids;
	uint64_t ids[CONTROL_SOCKETS_MAX]; /* of sockets, or taken */
	uint8_t outlives[CONTROL_AT_ONCE];
	char text[ERR_TEXT_MAX];
};

static void pack(const struct control_message *m, struct packet *p)
{
	memset(p, 0, sizeof(*p));
	memcpy(p->magic, magic, sizeof(magic));
	p->kind = m->kind;
	p->last = m->last;
	p->with_lock = m->lock >= 0 && m->kind == CONTROL_OFFER;
	p->n_sockets = (uint32_t)m->n_sockets;
	p->n_ids = (uint32_t)m->n_ids;
	memcpy(p->ids, m->ids, m->n_ids * sizeof(m->ids[0]));
	for (size_t i = 0; i < m->n_sockets; i++) {
		p->ids[i] = m->sockets[i].id;
		p->outlives[i] = m->sockets[i].outlives;
	}
	memcpy(p->text, m->text, sizeof(p->text));
}

union descriptors {
	struct cmsghdr align;
	char room[CMSG_SPACE((CONTROL_AT_ONCE + 1) * sizeof(int))];
};

static void put_descriptors(const struct control_message *m, bool with_lock, union descriptors *d,
			    struct msghdr *h)
{
	int fds[CONTROL_AT_ONCE + 1];
	size_t n = 0;
	if (with_lock)
		fds[n++] = m->lock;
	for (size_t i = 0; i < m->n_sockets; i++)
		fds[n++] = m->sockets[i].fd;
	if (n == 0)
		return;
	memset(d, 0, sizeof(*d));
	h->msg_control = d->room;
	h->msg_controllen = CMSG_SPACE(n * sizeof(int));
	struct cmsghdr *c = CMSG_FIRSTHDR(h);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(n * sizeof(int));
	memcpy(CMSG_DATA(c), fds, n * sizeof(int));
}

int control_send(int fd, const struct control_message *m, struct err *e)
{
	CLEANUP(freep) struct packet *p = malloc(sizeof(*p));
	if (!p)
		return err_set(e, -ENOMEM, "out of memory");
	pack(m, p);
	union descriptors d;
	struct iovec v = {.iov_base = p, .iov_len = sizeof(*p)};
	struct msghdr h = {.msg_iov = &v, .msg_iovlen = 1};
	put_descriptors(m, p->with_lock, &d, &h);
	if (sendmsg(fd, &h, MSG_NOSIGNAL) < 0)
		return err_set(e, -errno, "cannot be told: %s", strerror(errno));
	return 0;
}

/* The room is rounded up to the control message's alignment, and the kernel fills it. */
#define DESCRIPTORS_MAX (sizeof(union descriptors) / sizeof(int))

static size_t take_descriptors(struct msghdr *h, int fds[DESCRIPTORS_MAX])
{
	size_t n = 0;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(h); c; c = CMSG_NXTHDR(h, c))
		if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
			size_t more = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
			memcpy(fds + n, CMSG_DATA(c), more * sizeof(int));
			n += more;
		}
	return n;
}

/* Whether what came is whole, and as many descriptors as it says. */
static bool is_whole(const struct packet *p, ssize_t length, size_t n_fds)
{
	if (length != (ssize_t)sizeof(*p) || memcmp(p->magic, magic, sizeof(magic)) != 0)
		return false;
	return p->kind >= CONTROL_ASK && p->kind <= CONTROL_FAILED && p->n_sockets <= CONTROL_AT_ONCE &&
	       p->n_ids <= CONTROL_SOCKETS_MAX && n_fds == p->n_sockets + (p->with_lock != 0) &&
	       !p->text[sizeof(p->text) - 1];
}

static void unpack(const struct packet *p, const int *fds, struct control_message *m)
{
	memset(m, 0, sizeof(*m));
	m->kind = (enum control_kind)p->kind;
	m->last = p->last != 0;
	m->lock = p->with_lock ? *fds++ : -1;
	m->n_sockets = p->n_sockets;
	m->n_ids = p->n_ids;
	memcpy(m->text, p->text, sizeof(m->text));
	memcpy(m->ids, p->ids, m->n_ids * sizeof(m->ids[0]));
	for (size_t i = 0; i < m->n_sockets; i++)
		m->sockets[i] = (struct listen_handed){
			.fd = fds[i], .id = p->ids[i], .outlives = p->outlives[i] != 0};
}

int control_receive(int fd, struct control_message *ret, struct err *e)
{
	CLEANUP(freep) struct packet *p = malloc(sizeof(*p));
	if (!p)
		return err_set(e, -ENOMEM, "out of memory");
	int fds[DESCRIPTORS_MAX];
	union descriptors d;
	struct iovec v = {.iov_base = p, .iov_len = sizeof(*p)};
	struct msghdr h = {
		.msg_iov = &v, .msg_iovlen = 1, .msg_control = d.room, .msg_controllen = sizeof(d.room)};
	ssize_t n = recvmsg(fd, &h, MSG_CMSG_CLOEXEC);
	if (n < 0 && errno == ECONNRESET) /* told before what was sent ahead of it, once */
		n = recvmsg(fd, &h, MSG_CMSG_CLOEXEC);
	if (n < 0 && errno != ECONNRESET)
		return err_set(e, errno == EINTR ? -EAGAIN : -errno, "%s", strerror(errno));
	size_t n_fds = n < 0 ? 0 : take_descriptors(&h, fds);
	if (n <= 0 && n_fds == 0)
		return err_set(e, -EPIPE, "it has ended");
	if (!(h.msg_flags & MSG_CTRUNC) && is_whole(p, n, n_fds)) {
		unpack(p, fds, ret);
		return 0;
	}
	while (n_fds > 0)
		close(fds[--n_fds]);
	return err_set(e, -EPROTO, "it speaks another protocol, or descriptors have run out");
}

void control_close_sockets(struct control_message *m)
{
	while (m->n_sockets > 0)
		close(m->sockets[--m->n_sockets].fd);
	if (m->lock >= 0)
		close(m->lock);
	m->lock = -1;
}
