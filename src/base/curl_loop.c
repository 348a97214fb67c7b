#include "base/curl_loop.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/queue.h>

/* Found by its descriptor: what libcurl would keep for us does not outlive a connection that is handed on
 * (CURLOPT_CONNECT_ONLY). There are few. */
struct curl_socket {
	struct curl_loop *owner;
	curl_socket_t fd;
	struct loop_watch *watch;
	LIST_ENTRY(curl_socket) place;
};

struct curl_loop {
	struct loop *loop;
	CURLM *multi;
	struct loop_timer *timer;
	LIST_HEAD(, curl_socket) sockets;
	void (*turned)(void *arg);
	void *arg;
};

static void curl_loop_on_socket(void *arg, unsigned events)
{
	struct curl_socket *s = arg;
	struct curl_loop *c = s->owner;
	int running, what = 0;
	if (events & (LOOP_READ | LOOP_RDHUP))
		what |= CURL_CSELECT_IN;
	if (events & LOOP_WRITE)
		what |= CURL_CSELECT_OUT;
	if (events & LOOP_ERROR)
		what |= CURL_CSELECT_ERR;
	curl_multi_socket_action(c->multi, s->fd, what, &running); /* may free s */
	c->turned(c->arg);
}

static void curl_loop_on_timer(void *arg)
{
	struct curl_loop *c = arg;
	int running;
	curl_multi_socket_action(c->multi, CURL_SOCKET_TIMEOUT, 0, &running);
	c->turned(c->arg);
}

static int want_timer(CURLM *multi, long ms, void *arg)
{
	struct curl_loop *c = arg;
	(void)multi;
	if (ms < 0)
		loop_timer_stop(c->timer);
	else
		loop_timer_start(c->timer, (uint64_t)ms);
	return 0;
}

static void forget_socket(struct curl_socket *s)
{
	LIST_REMOVE(s, place);
	loop_watch_free(s->watch);
	free(s);
}

static int watch_socket(struct curl_loop *c, curl_socket_t fd, unsigned events)
{
	struct curl_socket *s = calloc(1, sizeof(*s));
	if (!s)
		return -1;
	s->owner = c;
	s->fd = fd;
	if (loop_watch_new(c->loop, fd, events, curl_loop_on_socket, s, &s->watch) < 0) {
		free(s);
		return -1;
	}
	LIST_INSERT_HEAD(&c->sockets, s, place);
	return 0;
}

static int want_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *unused)
{
	struct curl_loop *c = arg;
	struct curl_socket *s;
	unsigned events = ((what & CURL_POLL_IN) ? LOOP_READ : 0) | ((what & CURL_POLL_OUT) ? LOOP_WRITE : 0);
	(void)easy;
	(void)unused;
	LIST_FOREACH (s, &c->sockets, place)
		if (s->fd == fd)
			break;
	if (what == CURL_POLL_REMOVE) {
		if (s)
			forget_socket(s);
		return 0;
	}
	if (s)
		return loop_watch_set(s->watch, events) < 0 ? -1 : 0;
	return watch_socket(c, fd, events);
}

int curl_loop_new(struct loop *loop, void (*turned)(void *arg), void *arg, struct curl_loop **ret)
{
	struct curl_loop *c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	c->loop = loop;
	c->turned = turned;
	c->arg = arg;
	LIST_INIT(&c->sockets);
	c->multi = curl_multi_init();
	if (!c->multi || loop_timer_new(loop, curl_loop_on_timer, c, &c->timer) < 0) {
		curl_loop_free(c);
		return -ENOMEM;
	}
	curl_multi_setopt(c->multi, CURLMOPT_SOCKETFUNCTION, want_socket);
	curl_multi_setopt(c->multi, CURLMOPT_SOCKETDATA, c);
	curl_multi_setopt(c->multi, CURLMOPT_TIMERFUNCTION, want_timer);
	curl_multi_setopt(c->multi, CURLMOPT_TIMERDATA, c);
	*ret = c;
	return 0;
}

struct curl_loop *curl_loop_free(struct curl_loop *c)
{
	if (!c)
		return NULL;
	if (c->multi)
		curl_multi_cleanup(c->multi); /* takes back the sockets of kept connections */
	while (!LIST_EMPTY(&c->sockets))
		forget_socket(LIST_FIRST(&c->sockets));
	loop_timer_free(c->timer);
	free(c);
	return NULL;
}

void *curl_loop_multi(const struct curl_loop *c)
{
	return c->multi;
}
