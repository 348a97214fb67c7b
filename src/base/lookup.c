#include "base/lookup.h"

#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* Shared by the loop's thread and the one that asks; whoever comes last frees it. */
struct lookup {
	pthread_mutex_t lock;
	struct loop *loop; /* under lock: NULL once nobody wants to know */
	struct loop_work work;
	lookup_fn told;
	void *arg;
	char *name, why[160];
	char addresses[LOOKUP_MAX][LOOKUP_TEXT];
	size_t n;
};

static void lookup_free(struct lookup *l)
{
	pthread_mutex_destroy(&l->lock);
	free(l->name);
	free(l);
}

static void lookup_arrived(struct loop_work *work)
{
	struct lookup *l = (struct lookup *)((char *)work - offsetof(struct lookup, work));
	pthread_mutex_lock(&l->lock);
	bool wanted = l->loop;
	pthread_mutex_unlock(&l->lock);
	if (wanted)
		l->told(l->arg, (const char(*)[LOOKUP_TEXT])l->addresses, l->n, l->why);
	lookup_free(l);
}

static bool lookup_has(const struct lookup *l, const char *text)
{
	for (size_t i = 0; i < l->n; i++)
		if (strcmp(l->addresses[i], text) == 0)
			return true;
	return false;
}

static void lookup_add(struct lookup *l, const struct addrinfo *a)
{
	char *text = l->addresses[l->n];
	if (getnameinfo(a->ai_addr, a->ai_addrlen, text, LOOKUP_TEXT, NULL, 0, NI_NUMERICHOST) == 0 &&
	    !lookup_has(l, text))
		l->n++;
}

static const struct addrinfo *lookup_of_family(const struct addrinfo *a, int family, bool same)
{
	while (a && (a->ai_family == family) != same)
		a = a->ai_next;
	return a;
}

/* The first address's family and the other one in turns, so that a family that leads nowhere costs one
 * attempt. */
static void lookup_take(struct lookup *l, const struct addrinfo *list)
{
	int first = list ? list->ai_family : AF_UNSPEC;
	const struct addrinfo *turn[2] = {list, lookup_of_family(list, first, false)};
	for (size_t i = 0; (turn[0] || turn[1]) && l->n < LOOKUP_MAX; i ^= 1)
		if (turn[i]) {
			lookup_add(l, turn[i]);
			turn[i] = lookup_of_family(turn[i]->ai_next, first, i == 0);
		}
}

static void *lookup_run(void *arg)
{
	struct lookup *l = arg;
	const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
	struct addrinfo *list = NULL;
	int e = getaddrinfo(l->name, NULL, &hints, &list);
	if (e == 0)
		lookup_take(l, list);
	if (l->n == 0)
		snprintf(l->why, sizeof(l->why), "%.80s: %s", l->name, e ? gai_strerror(e) : "no address");
	if (list)
		freeaddrinfo(list);
	pthread_mutex_lock(&l->lock);
	bool abandoned = !l->loop;
	if (!abandoned)
		loop_post(l->loop, &l->work);
	pthread_mutex_unlock(&l->lock);
	if (abandoned)
		lookup_free(l);
	return NULL;
}

/* Signals are the control thread's. */
static int lookup_thread(struct lookup *l)
{
	sigset_t all, before;
	pthread_t thread;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	int e = pthread_create(&thread, NULL, lookup_run, l);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (e == 0)
		pthread_detach(thread);
	return -e;
}

int lookup_start(struct loop *loop, const char *name, lookup_fn told, void *arg, struct lookup **ret)
{
	struct lookup *l = calloc(1, sizeof(*l));
	if (!l)
		return -ENOMEM;
	pthread_mutex_init(&l->lock, NULL);
	l->loop = loop;
	l->work.fn = lookup_arrived;
	l->told = told;
	l->arg = arg;
	l->name = strdup(name);
	int r = l->name ? lookup_thread(l) : -ENOMEM;
	if (r < 0) {
		lookup_free(l);
		return r;
	}
	*ret = l;
	return 0;
}

struct lookup *lookup_cancel(struct lookup *l)
{
	if (!l)
		return NULL;
	pthread_mutex_lock(&l->lock);
	l->loop = NULL; /* when it was posted, it is freed as it arrives */
	pthread_mutex_unlock(&l->lock);
	return NULL;
}
