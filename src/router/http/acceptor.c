#include "router/http/acceptor.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "operation/listen_address.h"

#define ACCEPTS_AT_ONCE 10 /* then the loop's others have their turn */
#define RESERVE_MAX 8
#define OUTAGE_QUIET_MS 1000 /* without failure: it has ended */
#define CLOSING_MS 100	     /* for handshakes in progress */

struct acceptor {
	struct loop *loop;
	struct loop_watch *watch;
	struct loop_timer *timer;
	acceptor_take_fn take;
	void *arg;
	int fd, reserved[RESERVE_MAX];
	unsigned reserve, n_reserved;
	uint64_t failed_ms, close_ms;
	uint64_t failing_since_ms;
	bool failing, paused, closing;
};

/* Descriptors are the process's: an outage is reported once, whoever meets it. */
static atomic_uint acceptors_failing;

bool acceptor_outage(void)
{
	return atomic_load(&acceptors_failing) > 0;
}

static void begin_outage(struct acceptor *a, int error)
{
	a->failed_ms = loop_now_ms(a->loop);
	if (a->failing)
		return;
	a->failing = true;
	a->failing_since_ms = a->failed_ms;
	if (atomic_fetch_add(&acceptors_failing, 1) == 0)
		log_error("accept_failing", LOG_STR("error", strerror(error)));
}

static void end_outage(struct acceptor *a)
{
	if (a->failing && atomic_fetch_sub(&acceptors_failing, 1) == 1)
		log_info("accept_resumed", LOG_INT("after_ms", loop_now_ms(a->loop) - a->failing_since_ms));
	a->failing = false;
}

static void fill_reserve(struct acceptor *a)
{
	while (a->n_reserved < a->reserve) {
		int fd = fcntl(a->fd, F_DUPFD_CLOEXEC, 0);
		if (fd < 0)
			return;
		a->reserved[a->n_reserved++] = fd;
	}
}

/* Room for a connection and for its request's way to the legacy service: or what is taken first would be
 * answered with a 502. */
static bool has_room_again(const struct acceptor *a)
{
	int one = fcntl(a->fd, F_DUPFD_CLOEXEC, 0), other = one < 0 ? -1 : fcntl(a->fd, F_DUPFD_CLOEXEC, 0);
	bool room = other >= 0;
	if (one >= 0)
		close(one);
	if (other >= 0)
		close(other);
	return room;
}

static int accept_one(struct acceptor *a)
{
	struct sockaddr_storage peer;
	socklen_t n = sizeof(peer);
	if (a->failing && a->reserve == 0 && !has_room_again(a))
		return -EMFILE;
	int fd = accept4(a->fd, (struct sockaddr *)&peer, &n, SOCK_NONBLOCK | SOCK_CLOEXEC);
	while (fd < 0 && (errno == EMFILE || errno == ENFILE) && a->n_reserved > 0) {
		close(a->reserved[--a->n_reserved]);
		n = sizeof(peer);
		fd = accept4(a->fd, (struct sockaddr *)&peer, &n, SOCK_NONBLOCK | SOCK_CLOEXEC);
	}
	if (fd < 0)
		return -errno;
	a->take(a->arg, fd, (struct sockaddr *)&peer, n);
	return 0;
}

static bool passes_by_itself(int r)
{
	return r == -EINTR || r == -ECONNABORTED || r == -EPROTO || r == -ENETDOWN || r == -ENETUNREACH ||
	       r == -EHOSTUNREACH || r == -EHOSTDOWN || r == -ENONET || r == -EPERM || r == -ENOPROTOOPT ||
	       r == -EOPNOTSUPP;
}

static void end_closing(struct acceptor *a)
{
	a->watch = loop_watch_free(a->watch);
	close(a->fd);
	a->fd = -1;
	end_outage(a);
	loop_timer_stop(a->timer);
}

/* Sets what is waited for: the socket, or time. */
static void await(struct acceptor *a)
{
	if (a->fd < 0)
		return;
	bool full = a->failing && a->failed_ms == loop_now_ms(a->loop);
	loop_watch_set(a->watch, a->paused || full ? 0 : LOOP_READ);
	if ((a->failing || a->closing) && !loop_timer_active(a->timer))
		loop_timer_start(a->timer, ACCEPTOR_RETRY_MS);
}

static void accept_some(struct acceptor *a)
{
	int r = 0;
	for (unsigned i = 0; i < ACCEPTS_AT_ONCE && !a->paused && (r == 0 || passes_by_itself(r)); i++)
		r = accept_one(a);
	if (r < 0 && r != -EAGAIN && !passes_by_itself(r))
		begin_outage(a, -r);
	else if (r == -EAGAIN && a->failing && loop_now_ms(a->loop) - a->failed_ms >= OUTAGE_QUIET_MS)
		end_outage(a);
	if (!a->failing)
		fill_reserve(a);
	if (r == -EAGAIN && a->closing && loop_now_ms(a->loop) >= a->close_ms)
		end_closing(a);
	await(a);
}

static void on_acceptable(void *arg, unsigned events)
{
	(void)events;
	accept_some(arg);
}

static void acceptor_on_retry(void *arg)
{
	accept_some(arg);
}

int acceptor_new(struct loop *loop, int fd, bool outlives, unsigned reserve, acceptor_take_fn take, void *arg,
		 struct acceptor **ret)
{
	struct acceptor *a = calloc(1, sizeof(*a));
	if (!a) {
		close(fd);
		return -ENOMEM;
	}
	a->loop = loop;
	a->fd = fd;
	a->reserve = reserve < RESERVE_MAX ? reserve : RESERVE_MAX;
	a->take = take;
	a->arg = arg;
	fill_reserve(a);
	listen_address_register(fd, outlives);
	int r = loop_timer_new(loop, acceptor_on_retry, a, &a->timer);
	if (r == 0)
		r = loop_watch_new(loop, fd, LOOP_READ, on_acceptable, a, &a->watch);
	if (r < 0) {
		acceptor_free(a);
		return r;
	}
	*ret = a;
	return 0;
}

struct acceptor *acceptor_free(struct acceptor *a)
{
	if (!a)
		return NULL;
	end_outage(a);
	loop_watch_free(a->watch);
	loop_timer_free(a->timer);
	while (a->n_reserved > 0)
		close(a->reserved[--a->n_reserved]);
	if (a->fd >= 0 && !a->closing)
		listen_address_unregister(a->fd);
	if (a->fd >= 0)
		close(a->fd);
	free(a);
	return NULL;
}

void acceptor_pause(struct acceptor *a, bool pause)
{
	a->paused = pause;
	await(a);
}

/* Drops segments with SYN and without ACK. The filter sees them from the TCP header on; octet 13 has the
 * flags. */
static void drop_new_attempts(int fd)
{
	struct sock_filter code[] = {BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 13),
				     BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0x12),
				     BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0x02, 0, 1),
				     BPF_STMT(BPF_RET | BPF_K, 0), BPF_STMT(BPF_RET | BPF_K, 0xffffffffu)};
	struct sock_fprog program = {.len = sizeof(code) / sizeof(code[0]), .filter = code};
	/* without it the queue may have no end for a while */
	setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program));
}

void acceptor_close(struct acceptor *a)
{
	if (a->closing)
		return;
	a->closing = true;
	a->close_ms = loop_now_ms(a->loop) + CLOSING_MS;
	while (a->n_reserved > 0) /* they would keep the socket open */
		close(a->reserved[--a->n_reserved]);
	a->reserve = 0;
	if (listen_address_unregister(a->fd)) {
		end_closing(a);
		return;
	}
	drop_new_attempts(a->fd);
	await(a);
}

bool acceptor_closed(const struct acceptor *a)
{
	return a->fd < 0;
}
