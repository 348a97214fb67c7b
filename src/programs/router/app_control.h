/*
 * Control socket: <data_dir>/router.sock, by which a new router process takes over from the one that runs
 * (app_takeover.h).
 *
 * Why:       whoever may connect gets the listening sockets. So it is mode 0600, and the kernel's word on the
 *            peer (SO_PEERCRED) must be this user, or root.
 * Shape:     messages of SOCK_SEQPACKET: a kind, then ids, descriptors or a text. Paths go through the
 *            folder's descriptor, since a socket's path must not be longer than 107 bytes.
 * Errors:    -errno with a sentence.
 */
#ifndef PROGRAMS_ROUTER_APP_CONTROL_H
#define PROGRAMS_ROUTER_APP_CONTROL_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/span.h"
#include "operation/listen_address.h"

/* Binds <data_dir>/router.sock.new; control_publish gives it its name, over what a killed process left
 * there. */
int control_listen(const char *data_dir, int *ret_fd, struct err *e);
int control_publish(const char *data_dir, struct err *e);
void control_unpublish(const char *data_dir);
/* -EAGAIN: nobody listens there. Blocking, with a time limit. */
int control_connect(const char *data_dir, int *ret_fd, struct err *e);
/* -EPERM: neither this user nor root. */
int control_peer(int fd, pid_t *ret_pid, struct err *e);

#define CONTROL_SOCKETS_MAX 2048
#define CONTROL_AT_ONCE 200 /* descriptors in a message; the kernel takes 253 */

enum control_kind {
	CONTROL_ASK = 1, /* new: may I? text: version */
	CONTROL_OFFER,	/* old: some of the sockets, and with the first message the lock, when there is one */
	CONTROL_REFUSE, /* old: text: why */
	CONTROL_SERVING, /* new: accepts; ids: what it has taken */
	CONTROL_FAILED,	 /* new: gives up; text: why */
};

struct control_message {
	enum control_kind kind;
	bool last; /* of an offer */
	char text[ERR_TEXT_MAX];
	struct listen_handed sockets[CONTROL_AT_ONCE];
	size_t n_sockets;
	int lock; /* -1: none */
	uint64_t ids[CONTROL_SOCKETS_MAX];
	size_t n_ids;
};

/* The descriptors stay the caller's. */
int control_send(int fd, const struct control_message *m, struct err *e);
/* The descriptors are the caller's. -EPIPE: the other process has ended, or closed. -EAGAIN: nothing
 * (yet). -EPROTO: not understood. */
int control_receive(int fd, struct control_message *ret, struct err *e);
void control_close_sockets(struct control_message *m);

#endif
