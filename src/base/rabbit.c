#include "base/rabbit.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/queue.h>
#include <time.h>
#include <unistd.h>

#include "base/backoff.h"
#include "base/buf.h"
#include "base/mailbox.h"

#define HEARTBEAT_S 15
#define POLL_MS 1000 /* at most, for heartbeats */
#define BACKOFF_MIN_MS 50
#define BACKOFF_MAX_MS 5000
#define ALONE_BYTES (1u << 20) /* above it a message travels alone */
#define REPLY_EXPIRES_MS 300000
#define REPLIES_MAX 1000 /* that wait for one loop */

/* What a loop has asked for, or is told. */
struct rabbit_op {
	struct mail mail; /* first: on its way to the loop */
	enum { OP_PUBLISH, OP_LOOK, OP_REPLY } kind;
	TAILQ_ENTRY(rabbit_op) place;  /* of the thread's lists */
	LIST_ENTRY(rabbit_op) of_port; /* under the lock, until it is mailed */
	struct rabbit_port *port;      /* under the lock; NULL: nobody waits any more */
	enum rabbit_lane lane;
	struct rabbit_message message; /* into `text` */
	struct buf text;
	char queue[256];
	uint64_t deadline_ms, tag;
	rabbit_fn fn;
	void *arg;
	struct rabbit_answer answer;
	struct span ticket, body; /* of a reply, into `text` */
};
TAILQ_HEAD(op_list, rabbit_op);

struct rabbit_port {
	struct rabbit *r;
	LIST_ENTRY(rabbit_port) place;
	struct mailbox *mailbox;
	struct rabbit_port_options o;
	LIST_HEAD(, rabbit_op) ops; /* under the lock */
	size_t replies;		    /* in the mailbox; under the lock */
};

struct rabbit {
	struct rabbit_url url;
	char reply_queue[128];
	struct rabbit_options o;
	pthread_t thread;
	bool has_thread;
	int wake;
	pthread_mutex_t lock;
	/* under the lock */
	bool stop, wanted, blocked;
	enum rabbit_state state;
	struct err why; /* of DOWN */
	char blocked_by[128];
	struct op_list asked;
	size_t pending;
	LIST_HEAD(, rabbit_port) ports;
	size_t server; /* of the URL */
	/* the thread's */
	struct rabbit_link *link;
	struct op_list waiting, written[RABBIT_LANES];
	bool alone[RABBIT_LANES]; /* each, until one has arrived */
	unsigned failures;
	uint64_t again_ms;
};

static uint64_t rabbit_now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void op_free(struct rabbit_op *op)
{
	buf_release(&op->text);
	free(op);
}

/* --- answers, from the thread --------------------------------------------------------------------------- */

static void settle(struct rabbit *r, struct rabbit_op *op, enum rabbit_outcome outcome)
{
	op->answer.outcome = outcome;
	pthread_mutex_lock(&r->lock);
	r->pending--;
	struct rabbit_port *port = op->port;
	if (port) {
		LIST_REMOVE(op, of_port);
		mailbox_put(port->mailbox, &op->mail);
	}
	pthread_mutex_unlock(&r->lock);
	if (!port)
		op_free(op);
}

/* One that was returned is in no queue, whatever else is not known. */
static void give_up(struct rabbit *r, struct rabbit_op *op, enum rabbit_outcome outcome, const char *why)
{
	if (!op->answer.returned)
		err_set(&op->answer.why, 0, "%s", why);
	settle(r, op, op->answer.returned ? RABBIT_REFUSED : outcome);
}

static void settle_all(struct rabbit *r, struct op_list *list, enum rabbit_outcome outcome,
		       const struct err *why)
{
	struct rabbit_op *op;
	while ((op = TAILQ_FIRST(list))) {
		TAILQ_REMOVE(list, op, place);
		give_up(r, op, outcome, why->text);
	}
}

static void tell_state(struct rabbit *r, enum rabbit_state state, const struct err *why)
{
	pthread_mutex_lock(&r->lock);
	r->state = state;
	r->blocked = false;
	if (why)
		r->why = *why;
	pthread_mutex_unlock(&r->lock);
}

static void tell_hearing(struct rabbit *r, const char *why)
{
	if (r->o.hearing)
		r->o.hearing(r->o.arg, why);
}

/* To every loop: whose it is, the ticket says. */
static void tell_reply(struct rabbit *r, struct span ticket, struct span body)
{
	struct rabbit_port *port;
	pthread_mutex_lock(&r->lock);
	LIST_FOREACH (port, &r->ports, place) {
		struct rabbit_op *op =
			port->o.reply && port->replies < REPLIES_MAX ? calloc(1, sizeof(*op)) : NULL;
		if (!op)
			continue;
		op->kind = OP_REPLY;
		op->text = BUF_INIT(ticket.len + body.len);
		if (buf_append_span(&op->text, ticket) < 0 || buf_append_span(&op->text, body) < 0) {
			op_free(op);
			continue;
		}
		op->ticket = (struct span){op->text.ptr, ticket.len};
		op->body = (struct span){op->text.ptr + ticket.len, body.len};
		port->replies++;
		mailbox_put(port->mailbox, &op->mail);
	}
	pthread_mutex_unlock(&r->lock);
}

/* --- the connection, on the thread ---------------------------------------------------------------------- */

static void lose(struct rabbit *r, const struct err *why)
{
	rabbit_link_close(r->link);
	r->link = NULL;
	tell_state(r, RABBIT_CONNECTING, why);
	tell_hearing(r, NULL);
	for (size_t i = 0; i < RABBIT_LANES; i++)
		settle_all(r, &r->written[i], RABBIT_UNKNOWN, why);
}

static void connect_now(struct rabbit *r)
{
	struct err why, deaf;
	const struct rabbit_link_options o = {.server = &r->url.servers[r->server],
					      .connect_timeout_ms = r->o.connect_timeout_ms,
					      .command_timeout_ms = r->o.command_timeout_ms,
					      .heartbeat_s = HEARTBEAT_S,
					      .reply_queue = r->reply_queue,
					      .reply_expires_ms = REPLY_EXPIRES_MS,
					      .max_body = r->o.max_body};
	int code = rabbit_link_open(&o, &r->link, &deaf, &why);
	if (code == 0) {
		r->failures = 0;
		r->alone[RABBIT_TASKS] = r->alone[RABBIT_CONTROL] = false;
		tell_state(r, RABBIT_READY, NULL);
		tell_hearing(r, deaf.text);
		return;
	}
	r->link = NULL;
	pthread_mutex_lock(&r->lock);
	r->server = (r->server + 1) % r->url.n;
	pthread_mutex_unlock(&r->lock);
	r->failures++;
	/* The other servers of the URL at once. */
	bool round = r->failures % r->url.n == 0;
	r->again_ms = rabbit_now_ms() + (round ? backoff_ms(BACKOFF_MIN_MS, BACKOFF_MAX_MS, r->failures) : 0);
	if (!round)
		return;
	tell_state(r, RABBIT_DOWN, &why);
	tell_hearing(r, why.text);
	settle_all(r, &r->waiting, RABBIT_REFUSED, &why);
}

/* --- confirms, on the thread ---------------------------------------------------------------------------- */

static void confirm(struct rabbit *r, struct rabbit_op *op, bool nack)
{
	TAILQ_REMOVE(&r->written[op->lane], op, place);
	r->alone[op->lane] = false;
	if (nack)
		err_set(&op->answer.why, 0, "RabbitMQ did not take the message (nack)");
	settle(r, op, nack || op->answer.returned ? RABBIT_REFUSED : RABBIT_DONE);
}

static void on_confirm(struct rabbit *r, const struct rabbit_event *ev)
{
	struct rabbit_op *op, *next;
	for (op = TAILQ_FIRST(&r->written[ev->lane]); op && op->tag <= ev->tag; op = next) {
		next = TAILQ_NEXT(op, place);
		if (ev->multiple || op->tag == ev->tag)
			confirm(r, op, ev->kind == RABBIT_NACKED);
	}
}

/* Before the confirm of the same message. One that was told apart by its id as well as its queue is returned
 * as often as it was written. */
static void on_returned(struct rabbit *r, const struct rabbit_event *ev)
{
	struct rabbit_op *op;
	TAILQ_FOREACH (op, &r->written[ev->lane], place)
		if (!op->answer.returned && span_eq(op->message.correlation_id, ev->correlation_id) &&
		    span_eq(op->message.routing_key, ev->routing_key))
			break;
	if (!op)
		return;
	op->answer.returned = true;
	err_set(&op->answer.why, 0, "RabbitMQ has no queue \"%.*s\": no worker has declared it (%.*s)",
		(int)(ev->routing_key.len < 200 ? ev->routing_key.len : 200), ev->routing_key.ptr,
		SPAN_ARG(ev->text));
}

/* The server has closed the channel, for one message: what it had confirmed is settled already, what came
 * after that message is not in a queue, and where several are in flight nobody knows which it was. */
static void on_closed(struct rabbit *r, const struct rabbit_event *ev)
{
	struct op_list *list = &r->written[ev->lane];
	struct rabbit_op *first = TAILQ_FIRST(list);
	struct err why;
	bool sole = first && !TAILQ_NEXT(first, place);
	err_set(&why, 0, "RabbitMQ refused %s: %.*s",
		sole ? "the message" : "one of several messages in flight", SPAN_ARG(ev->text));
	r->alone[ev->lane] = true;
	settle_all(r, list, sole ? RABBIT_REFUSED : RABBIT_UNKNOWN, &why);
}

static void on_blocked(struct rabbit *r, const struct rabbit_event *ev)
{
	pthread_mutex_lock(&r->lock);
	r->blocked = ev->kind == RABBIT_BLOCKED;
	span_copy(ev->text, r->blocked_by, sizeof(r->blocked_by));
	pthread_mutex_unlock(&r->lock);
}

static int on_event(struct rabbit *r, const struct rabbit_event *ev, struct err *e)
{
	struct err deaf;
	int code = 0;
	if (ev->kind == RABBIT_ACKED || ev->kind == RABBIT_NACKED) {
		on_confirm(r, ev);
	} else if (ev->kind == RABBIT_RETURNED) {
		on_returned(r, ev);
	} else if (ev->kind == RABBIT_CLOSED) {
		on_closed(r, ev);
	} else if (ev->kind == RABBIT_BLOCKED || ev->kind == RABBIT_UNBLOCKED) {
		on_blocked(r, ev);
	} else if (ev->kind == RABBIT_ARRIVED && ev->ticket.len) {
		tell_reply(r, ev->ticket, ev->body);
	} else if (ev->kind == RABBIT_ARRIVED && r->o.arrived) {
		r->o.arrived(r->o.arg, ev->correlation_id, ev->body, ev->too_large);
	} else if (ev->kind == RABBIT_DEAF) {
		code = rabbit_link_hear(r->link, &deaf, e);
		if (code == 0)
			tell_hearing(r, deaf.text);
	}
	return code;
}

/* --- sending, on the thread ----------------------------------------------------------------------------- */

static bool must_wait(const struct rabbit *r, const struct rabbit_op *op)
{
	const struct rabbit_op *first = TAILQ_FIRST(&r->written[op->lane]);
	if (op->kind != OP_PUBLISH || !first)
		return false;
	return r->alone[op->lane] || op->message.body.len > ALONE_BYTES ||
	       first->message.body.len > ALONE_BYTES;
}

static int publish_now(struct rabbit *r, struct rabbit_op *op, struct err *e)
{
	bool there = true;
	int code = 0;
	/* An exchange that is not there would cost the channel. */
	if (op->message.exchange.len) {
		code = rabbit_link_has_exchange(r->link, op->queue, &there, e);
		if (code == 0 && !there) {
			op->answer.returned = true;
			err_set(&op->answer.why, 0, "RabbitMQ has no exchange \"%s\"", op->queue);
			settle(r, op, RABBIT_REFUSED);
			return 0;
		}
	}
	if (code == 0)
		code = rabbit_link_publish(r->link, op->lane, &op->message, &op->tag, e);
	if (code > 0) {
		op->answer.why = *e;
		settle(r, op, RABBIT_REFUSED);
		return 0;
	}
	/* Of one that was cut off in the middle `lose` tells. */
	TAILQ_INSERT_TAIL(&r->written[op->lane], op, place);
	return code;
}

static int look_now(struct rabbit *r, struct rabbit_op *op, struct err *e)
{
	int code = rabbit_link_look(r->link, op->queue, &op->answer.queue, e);
	op->answer.why = code < 0 ? *e : op->answer.queue.why;
	settle(r, op, code < 0 ? RABBIT_REFUSED : RABBIT_DONE);
	return code;
}

/* A server that reads nothing from us is asked for nothing. */
static bool refuse_blocked(struct rabbit *r, struct rabbit_op *op)
{
	char where[RABBIT_WHERE_MAX];
	pthread_mutex_lock(&r->lock);
	bool blocked = r->blocked;
	if (blocked)
		rabbit_where(&r->url.servers[r->server], where);
	if (blocked)
		err_set(&op->answer.why, 0, "RabbitMQ at %s takes no messages now: %s", where, r->blocked_by);
	pthread_mutex_unlock(&r->lock);
	if (blocked)
		settle(r, op, RABBIT_REFUSED);
	return blocked;
}

static int receive(struct rabbit *r, struct err *e)
{
	struct rabbit_event ev;
	int code;
	while ((code = rabbit_link_next(r->link, &ev, e)) == 0 && ev.kind != RABBIT_NOTHING)
		if ((code = on_event(r, &ev, e)) < 0)
			break;
	return code;
}

static int send_waiting(struct rabbit *r, struct err *e)
{
	struct rabbit_op *op, *next;
	bool stuck[RABBIT_LANES] = {false};
	int code = 0;
	for (op = TAILQ_FIRST(&r->waiting); op && code == 0; op = next) {
		next = TAILQ_NEXT(op, place);
		if (op->kind == OP_PUBLISH && (stuck[op->lane] || must_wait(r, op))) {
			stuck[op->lane] = true;
			continue;
		}
		TAILQ_REMOVE(&r->waiting, op, place);
		if (refuse_blocked(r, op))
			continue;
		code = op->kind == OP_PUBLISH ? publish_now(r, op, e) : look_now(r, op, e);
	}
	return code;
}

/* --- time ----------------------------------------------------------------------------------------------- */

static void expire(struct rabbit *r, struct op_list *list, enum rabbit_outcome outcome, const char *what,
		   uint64_t now)
{
	struct rabbit_op *op;
	while ((op = TAILQ_FIRST(list)) && op->deadline_ms <= now) {
		TAILQ_REMOVE(list, op, place);
		give_up(r, op, outcome, what);
	}
}

static void expire_all(struct rabbit *r)
{
	uint64_t now = rabbit_now_ms();
	expire(r, &r->waiting, RABBIT_REFUSED, "RabbitMQ was not reached within the time limit", now);
	for (size_t i = 0; i < RABBIT_LANES; i++)
		expire(r, &r->written[i], RABBIT_UNKNOWN,
		       "RabbitMQ did not confirm the message within the time limit", now);
}

static void sooner(const struct rabbit_op *op, uint64_t *at)
{
	if (op && op->deadline_ms < *at)
		*at = op->deadline_ms;
}

static int until_next(const struct rabbit *r)
{
	uint64_t now = rabbit_now_ms(), at = now + POLL_MS;
	sooner(TAILQ_FIRST(&r->waiting), &at);
	for (size_t i = 0; i < RABBIT_LANES; i++)
		sooner(TAILQ_FIRST(&r->written[i]), &at);
	if (!r->link && r->again_ms < at)
		at = r->again_ms;
	return at > now ? (int)(at - now) : 0;
}

/* --- the thread ----------------------------------------------------------------------------------------- */

/* What was asked since; while the server is away that is refused at once. */
static bool take_asked(struct rabbit *r, bool *wanted)
{
	struct op_list away = TAILQ_HEAD_INITIALIZER(away);
	pthread_mutex_lock(&r->lock);
	bool stop = r->stop;
	const struct err why = r->why;
	*wanted = r->wanted;
	TAILQ_CONCAT(r->state == RABBIT_DOWN ? &away : &r->waiting, &r->asked, place);
	pthread_mutex_unlock(&r->lock);
	settle_all(r, &away, RABBIT_REFUSED, &why);
	return !stop;
}

static void wait_for_more(const struct rabbit *r, bool wanted)
{
	uint64_t n;
	struct pollfd fds[2] = {{.fd = r->wake, .events = POLLIN},
				{.fd = r->link ? rabbit_link_fd(r->link) : -1, .events = POLLIN}};
	poll(fds, 2, wanted ? until_next(r) : -1);
	if (fds[0].revents && read(r->wake, &n, sizeof(n)) < 0)
		return;
}

/* Something can be done at once: the next attempt, or what a confirm has let go. */
static bool goes_on(const struct rabbit *r, bool wanted)
{
	const struct rabbit_op *op = TAILQ_FIRST(&r->waiting);
	if (!r->link)
		return wanted && rabbit_now_ms() >= r->again_ms;
	return op && !must_wait(r, op);
}

static void *rabbit_run(void *arg)
{
	struct rabbit *r = arg;
	struct err why;
	bool wanted;
	while (take_asked(r, &wanted)) {
		if (wanted && !r->link && rabbit_now_ms() >= r->again_ms)
			connect_now(r);
		if (r->link && (receive(r, &why) < 0 || send_waiting(r, &why) < 0 || receive(r, &why) < 0))
			lose(r, &why);
		expire_all(r);
		if (!goes_on(r, wanted))
			wait_for_more(r, wanted);
	}
	return NULL;
}

static void rabbit_ring(struct rabbit *r)
{
	const uint64_t one = 1;
	if (write(r->wake, &one, sizeof(one)) < 0)
		return; /* it is rung already */
}

/* --- life ----------------------------------------------------------------------------------------------- */

static int start_thread(struct rabbit *r, struct err *e)
{
	sigset_t all, old;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	int code = pthread_create(&r->thread, NULL, rabbit_run, r);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	r->has_thread = code == 0;
	return code ? err_set(e, -code, "no thread for RabbitMQ: %s", strerror(code)) : 0;
}

int rabbit_new(const struct rabbit_options *options, struct rabbit **ret, struct err *e)
{
	struct rabbit *r = calloc(1, sizeof(*r));
	if (!r)
		return err_set(e, -ENOMEM, "out of memory");
	r->o = *options;
	r->o.url = NULL;
	r->o.max_pending = options->max_pending ? options->max_pending : 100000;
	span_copy(span_of(options->reply_queue), r->reply_queue, sizeof(r->reply_queue));
	pthread_mutex_init(&r->lock, NULL);
	TAILQ_INIT(&r->asked);
	TAILQ_INIT(&r->waiting);
	for (size_t i = 0; i < RABBIT_LANES; i++)
		TAILQ_INIT(&r->written[i]);
	r->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	int code = r->wake < 0 ? -errno : rabbit_url_copy(options->url, &r->url);
	code = code < 0 ? err_set(e, code, "out of memory or descriptors") : start_thread(r, e);
	if (code < 0) {
		rabbit_free(r);
		return code;
	}
	*ret = r;
	return 0;
}

struct rabbit *rabbit_free(struct rabbit *r)
{
	struct err ended = {"ended"};
	if (!r)
		return NULL;
	pthread_mutex_lock(&r->lock);
	r->stop = true;
	pthread_mutex_unlock(&r->lock);
	rabbit_ring(r);
	if (r->has_thread)
		pthread_join(r->thread, NULL);
	settle_all(r, &r->asked, RABBIT_REFUSED, &ended);
	settle_all(r, &r->waiting, RABBIT_REFUSED, &ended);
	for (size_t i = 0; i < RABBIT_LANES; i++)
		settle_all(r, &r->written[i], RABBIT_UNKNOWN, &ended);
	rabbit_link_close(r->link);
	if (r->wake >= 0)
		close(r->wake);
	pthread_mutex_destroy(&r->lock);
	rabbit_url_release(&r->url);
	free(r);
	return NULL;
}

void rabbit_begin(struct rabbit *r)
{
	pthread_mutex_lock(&r->lock);
	bool first = !r->wanted;
	r->wanted = true;
	if (first)
		r->state = RABBIT_CONNECTING;
	pthread_mutex_unlock(&r->lock);
	if (first)
		rabbit_ring(r);
}

void rabbit_where_now(struct rabbit *r, char out[RABBIT_WHERE_MAX])
{
	pthread_mutex_lock(&r->lock);
	rabbit_where(&r->url.servers[r->server], out);
	pthread_mutex_unlock(&r->lock);
}

/* --- ports: on their loops ------------------------------------------------------------------------------ */

static void on_mail(void *arg, struct mail *m)
{
	struct rabbit_port *p = arg;
	struct rabbit_op *op = (struct rabbit_op *)m;
	if (op->kind == OP_REPLY) {
		pthread_mutex_lock(&p->r->lock);
		p->replies--;
		pthread_mutex_unlock(&p->r->lock);
		p->o.reply(p->o.arg, op->ticket, op->body);
	} else {
		op->fn(op->arg, &op->answer);
	}
	op_free(op);
}

int rabbit_port_new(struct rabbit *r, struct loop *loop, const struct rabbit_port_options *o,
		    struct rabbit_port **ret)
{
	struct rabbit_port *p = calloc(1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	p->r = r;
	p->o = *o;
	int code = mailbox_new(loop, on_mail, p, &p->mailbox);
	if (code < 0) {
		free(p);
		return code;
	}
	pthread_mutex_lock(&r->lock);
	LIST_INSERT_HEAD(&r->ports, p, place);
	pthread_mutex_unlock(&r->lock);
	*ret = p;
	return 0;
}

struct rabbit_port *rabbit_port_free(struct rabbit_port *p)
{
	struct rabbit_op *op;
	if (!p)
		return NULL;
	pthread_mutex_lock(&p->r->lock);
	LIST_REMOVE(p, place);
	while ((op = LIST_FIRST(&p->ops))) {
		LIST_REMOVE(op, of_port);
		op->port = NULL;
	}
	pthread_mutex_unlock(&p->r->lock);
	for (struct mail *m = mailbox_free(p->mailbox), *next; m; m = next) {
		next = m->next;
		op_free((struct rabbit_op *)m);
	}
	free(p);
	return NULL;
}

bool rabbit_port_away(struct rabbit_port *p, struct err *why)
{
	struct rabbit *r = p->r;
	char where[RABBIT_WHERE_MAX];
	pthread_mutex_lock(&r->lock);
	bool down = r->state == RABBIT_DOWN, blocked = r->blocked;
	rabbit_where(&r->url.servers[r->server], where);
	if (down)
		*why = r->why;
	else if (blocked)
		err_set(why, 0, "RabbitMQ at %s takes no messages now: %s", where, r->blocked_by);
	pthread_mutex_unlock(&r->lock);
	return down || blocked;
}

/* Into the text, whose room was made before: nothing moves. */
static struct span put_copy(struct rabbit_op *op, struct span s)
{
	size_t at = op->text.len;
	if (!s.ptr)
		return SPAN_NONE;
	buf_append_span(&op->text, s);
	return (struct span){op->text.ptr + at, s.len};
}

static void tell_at_once(rabbit_fn fn, void *arg, const char *text)
{
	struct rabbit_answer a = {.outcome = RABBIT_REFUSED};
	err_set(&a.why, 0, "%s", text);
	fn(arg, &a);
}

static void ask(struct rabbit_port *p, struct rabbit_op *op)
{
	struct rabbit *r = p->r;
	op->deadline_ms = rabbit_now_ms() + r->o.command_timeout_ms;
	rabbit_begin(r);
	pthread_mutex_lock(&r->lock);
	bool room = r->pending < r->o.max_pending, first = TAILQ_EMPTY(&r->asked);
	if (room) {
		op->port = p;
		r->pending++;
		LIST_INSERT_HEAD(&p->ops, op, of_port);
		TAILQ_INSERT_TAIL(&r->asked, op, place);
	}
	pthread_mutex_unlock(&r->lock);
	if (room && first) {
		rabbit_ring(r);
	} else if (!room) {
		tell_at_once(op->fn, op->arg, "too many messages wait for RabbitMQ");
		op_free(op);
	}
}

void rabbit_publish(struct rabbit_port *p, enum rabbit_lane lane, const struct rabbit_message *m,
		    rabbit_fn fn, void *arg)
{
	struct rabbit_op *op = calloc(1, sizeof(*op));
	size_t size = m->exchange.len + m->routing_key.len + m->headers.len + m->correlation_id.len +
		      m->reply_to.len + m->body.len;
	if (op)
		op->text = BUF_INIT(size);
	if (!op || buf_reserve(&op->text, size) < 0) {
		free(op);
		tell_at_once(fn, arg, "out of memory");
		return;
	}
	op->kind = OP_PUBLISH;
	op->lane = lane;
	op->fn = fn;
	op->arg = arg;
	op->message = (struct rabbit_message){.exchange = put_copy(op, m->exchange),
					      .routing_key = put_copy(op, m->routing_key),
					      .headers = put_copy(op, m->headers),
					      .correlation_id = put_copy(op, m->correlation_id),
					      .reply_to = put_copy(op, m->reply_to),
					      .body = put_copy(op, m->body),
					      .priority = m->priority,
					      .persistent = m->persistent};
	span_copy(m->exchange, op->queue, sizeof(op->queue));
	ask(p, op);
}

void rabbit_look(struct rabbit_port *p, struct span queue, rabbit_fn fn, void *arg)
{
	struct rabbit_op *op = calloc(1, sizeof(*op));
	if (!op) {
		tell_at_once(fn, arg, "out of memory");
		return;
	}
	op->kind = OP_LOOK;
	op->fn = fn;
	op->arg = arg;
	span_copy(queue, op->queue, sizeof(op->queue));
	ask(p, op);
}
