#include "legacy/connection.h"

#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/curl_loop.h"
#include "legacy/addresses.h"

#define SPARE_HANDLES 8
/* Connection Attempt Delay (RFC 8305 §5) */
#define NEXT_ADDRESS_MS 250
/* One TLS record: SSL_write takes it whole or not at all, and wants the same bytes at the same place when
 * tried again. */
#define STAGE_SIZE 16384

/* A libcurl handle with its room for an error sentence: reused, since making one costs more than a plain
 * connect. */
struct handle {
	CURL *easy;
	struct handle *next;
	char error[CURL_ERROR_SIZE];
};

/* One address being tried, by a handle of its own. */
struct attempt {
	struct connection *connection;
	struct handle *handle;
	struct curl_slist *connect_to; /* NULL: where the URL says */
	char address[LOOKUP_TEXT];     /* "": the URL's, which is one */
	struct attempt *next;
};

/* What a connection needs while it is being made. */
struct search {
	struct connection *connection;
	struct addresses_waiter waiter;
	struct attempt *attempts; /* in progress */
	char tried[LOOKUP_MAX][LOOKUP_TEXT];
	size_t n_tried;
	bool looked_up; /* for this connection: another lookup would say the same */
	struct loop_timer *timer;
	uint64_t deadline;	       /* loop time in ms */
	enum connection_result result; /* of the last attempt that failed */
	char detail[CURL_ERROR_SIZE + 64];
};

struct connector {
	struct loop *loop;
	const struct origin *origin;
	char *ca_file;
	struct addresses *addresses; /* NULL: the host is an address */
	unsigned connect_timeout_ms;
	struct curl_loop *curl;
	struct handle *spare;
	unsigned n_spare;
};

struct connection {
	struct connector *connector;
	const struct connection_events *events;
	void *arg;
	struct search *search; /* while connecting */
	struct handle *handle; /* over TLS, once connected */
	struct loop_watch *watch;
	int fd; /* -1 while connecting */
	bool tls;
	char *stage; /* TLS: bytes taken but not written yet, in [0, staged) */
	size_t staged;
};

int connection_setup(void)
{
	return curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK ? 0 : -EIO;
}

/* --- handles -------------------------------------------------------------------------------------------- */

static struct handle *handle_free(struct handle *h)
{
	if (h) {
		curl_easy_cleanup(h->easy);
		free(h);
	}
	return NULL;
}

static CURLcode connection_set_tls(const struct connector *c, CURL *easy)
{
	CURLcode e = curl_easy_setopt(easy, CURLOPT_SSL_ENABLE_ALPN, 0L); /* or someone might agree on h2 */
	if (!e && c->ca_file)
		e = curl_easy_setopt(easy, CURLOPT_CAINFO, c->ca_file);
	if (!e)
		e = curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1L);
	if (!e)
		e = curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 2L);
	return e;
}

static CURLcode set_options(const struct connector *c, struct handle *h)
{
	const struct {
		CURLoption option;
		long value;
	} numbers[] = {
		{CURLOPT_CONNECT_ONLY, 1},
		{CURLOPT_NOSIGNAL, 1},
		{CURLOPT_TCP_NODELAY, 1},
		{CURLOPT_TCP_KEEPALIVE, 1},
		{CURLOPT_TCP_KEEPIDLE, 60},
		{CURLOPT_TCP_KEEPINTVL, 30},
		/* Else libcurl closes connections of 118 s when it makes a new one, also those in use here.
		 */
		{CURLOPT_MAXAGE_CONN, INT_MAX}};
	CURLcode e = CURLE_OK;
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]) && !e; i++)
		e = curl_easy_setopt(h->easy, numbers[i].option, numbers[i].value);
	if (!e)
		e = curl_easy_setopt(h->easy, CURLOPT_NOPROXY, "*");
	if (!e)
		e = curl_easy_setopt(h->easy, CURLOPT_URL, c->origin->url);
	if (!e)
		e = curl_easy_setopt(h->easy, CURLOPT_ERRORBUFFER, h->error);
	if (!e && c->origin->tls)
		e = connection_set_tls(c, h->easy);
	return e;
}

static struct handle *handle_take(struct connector *c)
{
	struct handle *h = c->spare;
	if (h) {
		c->spare = h->next;
		c->n_spare--;
		return h;
	}
	h = calloc(1, sizeof(*h));
	if (!h)
		return NULL;
	h->easy = curl_easy_init();
	if (!h->easy || set_options(c, h) != CURLE_OK)
		return handle_free(h);
	return h;
}

/* Ends whatever the handle is doing (its connection is closed at once) and keeps it for the next one. */
static void handle_give_back(struct connector *c, struct handle *h)
{
	curl_multi_remove_handle(curl_loop_multi(c->curl), h->easy);
	if (c->n_spare == SPARE_HANDLES) {
		handle_free(h);
		return;
	}
	h->next = c->spare;
	c->spare = h;
	c->n_spare++;
}

/* --- ready ---------------------------------------------------------------------------------------------- */

static void connection_on_ready(void *arg, unsigned events)
{
	struct connection *n = arg;
	n->events->ready(n->arg, events);
}

/* Plain: the socket is duplicated and libcurl lets go of its own. TLS: one read makes libcurl hold on to the
 * connection, which otherwise counts as idle and may be cleaned up. */
static int take_over(struct connection *n, struct handle *h)
{
	curl_socket_t fd = CURL_SOCKET_BAD;
	if (curl_easy_getinfo(h->easy, CURLINFO_ACTIVESOCKET, &fd) != CURLE_OK || fd == CURL_SOCKET_BAD) {
		handle_give_back(n->connector, h);
		return -ENOTCONN;
	}
	if (n->tls) {
		n->handle = h;
		n->fd = fd;
		if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 || !connection_quiet(n))
			return -ECONNRESET;
	} else {
		n->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
		int r = n->fd < 0 ? -errno : 0;
		handle_give_back(n->connector, h);
		if (r < 0)
			return r;
	}
	return loop_watch_new(n->connector->loop, n->fd, LOOP_READ, connection_on_ready, n, &n->watch);
}

/* --- addresses, one after the other --------------------------------------------------------------------- */

/* Unlinks it; its handle is given back unless it is kept. */
static struct handle *attempt_end(struct attempt *a, bool keep_handle)
{
	struct connection *n = a->connection;
	struct handle *h = a->handle;
	for (struct attempt **at = &n->search->attempts; *at; at = &(*at)->next)
		if (*at == a) {
			*at = a->next;
			break;
		}
	curl_easy_setopt(h->easy, CURLOPT_CONNECT_TO, NULL);
	if (!keep_handle)
		handle_give_back(n->connector, h);
	curl_slist_free_all(a->connect_to);
	free(a);
	return keep_handle ? h : NULL;
}

static struct search *search_free(struct search *s)
{
	if (!s)
		return NULL;
	while (s->attempts)
		attempt_end(s->attempts, false);
	link_remove(&s->waiter.link);
	loop_timer_free(s->timer);
	free(s);
	return NULL;
}

static void search_failed(struct connection *n, enum connection_result result, const char *detail)
{
	char kept[sizeof(n->search->detail)];
	span_copy(span_of(detail), kept, sizeof(kept));
	n->search = search_free(n->search);
	n->events->made(n->arg, result, kept);
}

/* "::port:address:port": wherever the URL leads, with the URL's name for TLS. */
static struct curl_slist *connect_to(const char *address, unsigned port)
{
	char text[LOOKUP_TEXT + 32];
	const char *scope = strchr(address, '%');
	if (strchr(address, ':'))
		snprintf(text, sizeof(text), "::[%.*s%s%s]:%u",
			 (int)(scope ? scope - address : (int)strlen(address)), address, scope ? "%25" : "",
			 scope ? scope + 1 : "", port);
	else
		snprintf(text, sizeof(text), "::%s:%u", address, port);
	return curl_slist_append(NULL, text);
}

static CURLcode attempt_options(struct attempt *a, uint64_t left_ms)
{
	CURL *easy = a->handle->easy;
	a->handle->error[0] = '\0';
	CURLcode e = curl_easy_setopt(easy, CURLOPT_PRIVATE, a);
	if (!e)
		e = curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)left_ms);
	if (!e)
		e = curl_easy_setopt(easy, CURLOPT_CONNECT_TO, a->connect_to);
	return e;
}

static int attempt_start(struct search *s, const char *address)
{
	struct connection *n = s->connection;
	struct connector *c = n->connector;
	struct attempt *a = calloc(1, sizeof(*a));
	if (!a)
		return -ENOMEM;
	a->connection = n;
	a->handle = handle_take(c);
	span_copy(span_of(address), a->address, sizeof(a->address));
	a->connect_to = *address ? connect_to(address, c->origin->port) : NULL;
	uint64_t now = loop_now_ms(c->loop);
	/* libcurl asks for a timer of 0 ms: everything happens in the next round of the loop. */
	if (!a->handle || (*address && !a->connect_to) ||
	    attempt_options(a, s->deadline > now ? s->deadline - now : 1) != CURLE_OK ||
	    curl_multi_add_handle(curl_loop_multi(c->curl), a->handle->easy) != CURLM_OK) {
		handle_free(a->handle);
		curl_slist_free_all(a->connect_to);
		free(a);
		return -ENOMEM;
	}
	a->next = s->attempts;
	s->attempts = a;
	return 0;
}

static bool search_has_tried(const struct search *s, const char *address)
{
	for (size_t i = 0; i < s->n_tried; i++)
		if (strcmp(s->tried[i], address) == 0)
			return true;
	return false;
}

static const char *search_next(const struct search *s)
{
	const struct addresses *all = s->connection->connector->addresses;
	for (size_t i = 0; s->n_tried < LOOKUP_MAX && i < addresses_count(all); i++)
		if (!search_has_tried(s, addresses_at(all, i)))
			return addresses_at(all, i);
	return NULL;
}

/* The next address; when there is none, the name is looked up again, once: it may have moved. false:
 * neither. */
static bool search_go_on(struct search *s)
{
	struct connector *c = s->connection->connector;
	const char *next = search_next(s);
	uint64_t now = loop_now_ms(c->loop), after = s->deadline > now ? s->deadline - now : 0;
	bool started = false;
	if (next) {
		span_copy(span_of(next), s->tried[s->n_tried++], LOOKUP_TEXT);
		started = attempt_start(s, next) == 0;
		after = after < NEXT_ADDRESS_MS ? after : NEXT_ADDRESS_MS;
	} else if (!s->looked_up) {
		s->looked_up = true;
		started = addresses_ask(c->addresses, &s->waiter) == 0;
	}
	loop_timer_start(s->timer, after);
	return started;
}

static bool search_is_over(const struct search *s)
{
	return !s->attempts && link_alone(&s->waiter.link);
}

/* An address, or all that are known, came to nothing. */
static void search_try_more(struct search *s)
{
	if (search_go_on(s) || !search_is_over(s))
		return;
	if (search_next(s)) /* memory is out */
		search_failed(s->connection, CONNECTION_REFUSED, "out of memory");
	else
		search_failed(s->connection, s->result, s->detail);
}

static void on_search_timer(void *arg)
{
	struct search *s = arg;
	char detail[96];
	if (loop_now_ms(s->connection->connector->loop) < s->deadline) {
		search_try_more(s);
		return;
	}
	bool nameless = !s->n_tried;
	snprintf(detail, sizeof(detail),
		 nameless ? "the name was not resolved in %u ms" : "no connection in %u ms",
		 s->connection->connector->connect_timeout_ms);
	search_failed(s->connection, CONNECTION_TIMED_OUT, detail);
}

static void on_addresses(struct addresses_waiter *w, const char *why)
{
	struct search *s = (struct search *)((char *)w - offsetof(struct search, waiter));
	s->looked_up = true;
	if (why && s->n_tried == 0) {
		s->result = CONNECTION_NO_NAME;
		span_copy(span_of(why), s->detail, sizeof(s->detail));
	}
	search_try_more(s);
}

static int search_begin(struct search *s)
{
	struct connector *c = s->connection->connector;
	if (!c->addresses)
		return attempt_start(s, c->origin->reroute ? c->origin->host : "");
	if (loop_timer_new(c->loop, on_search_timer, s, &s->timer) < 0)
		return -ENOMEM;
	if (addresses_ready(c->addresses))
		return search_go_on(s) ? 0 : -ENOMEM;
	s->looked_up = true;
	loop_timer_start(s->timer, c->connect_timeout_ms);
	return addresses_ask(c->addresses, &s->waiter);
}

static enum connection_result result_of(CURLcode code)
{
	switch (code) {
	case CURLE_OPERATION_TIMEDOUT:
		return CONNECTION_TIMED_OUT;
	case CURLE_COULDNT_RESOLVE_HOST:
		return CONNECTION_NO_NAME;
	case CURLE_SSL_CONNECT_ERROR:
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CERTPROBLEM:
	case CURLE_SSL_CIPHER:
	case CURLE_SSL_CACERT_BADFILE:
	case CURLE_SSL_ISSUER_ERROR:
	case CURLE_SSL_INVALIDCERTSTATUS:
		return CONNECTION_NO_TLS;
	default:
		return CONNECTION_REFUSED;
	}
}

/* What libcurl says, and the system's word where libcurl keeps it to itself ("Couldn't connect to
 * server"). */
static void say_why(const struct handle *h, CURLcode code, char *out, size_t size)
{
	long number = 0;
	const char *why = h->error[0] ? h->error : curl_easy_strerror(code);
	curl_easy_getinfo(h->easy, CURLINFO_OS_ERRNO, &number);
	bool more = number && code == CURLE_COULDNT_CONNECT;
	snprintf(out, size, "%s%s%s", why, more ? ": " : "", more ? strerror((int)number) : "");
}

static void on_attempted(struct attempt *a, CURLcode code)
{
	struct connection *n = a->connection;
	struct search *s = n->search;
	if (code != CURLE_OK) {
		s->result = result_of(code);
		say_why(a->handle, code, s->detail, sizeof(s->detail));
		attempt_end(a, false);
		if (n->connector->addresses)
			search_try_more(s);
		else
			search_failed(n, s->result, s->detail);
		return;
	}
	if (n->connector->addresses)
		addresses_prefer(n->connector->addresses, a->address);
	struct handle *h = attempt_end(a, true);
	n->search = search_free(s);
	int r = take_over(n, h);
	n->events->made(n->arg, r < 0 ? CONNECTION_REFUSED : CONNECTION_MADE, r < 0 ? strerror(-r) : "");
}

static void connection_collect(void *arg)
{
	struct connector *c = arg;
	CURLMsg *m;
	int left;
	while ((m = curl_multi_info_read(curl_loop_multi(c->curl), &left))) {
		if (m->msg != CURLMSG_DONE)
			continue;
		struct attempt *a = NULL;
		CURLcode code = m->data.result; /* m dies with the handle */
		curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &a);
		on_attempted(a, code);
	}
}

/* --- a connector ---------------------------------------------------------------------------------------- */

int connector_new(struct loop *loop, const struct origin *origin, const char *ca_file,
		  unsigned connect_timeout_ms, struct connector **ret, struct err *e)
{
	struct connector *c = calloc(1, sizeof(*c));
	if (!c)
		return err_set(e, -ENOMEM, "out of memory");
	c->loop = loop;
	c->origin = origin;
	c->connect_timeout_ms = connect_timeout_ms;
	c->ca_file = ca_file ? strdup(ca_file) : NULL;
	if (!origin->is_address)
		c->addresses = addresses_new(loop, origin->host);
	if ((ca_file && !c->ca_file) || (!origin->is_address && !c->addresses) ||
	    curl_loop_new(loop, connection_collect, c, &c->curl) < 0) {
		connector_free(c);
		return err_set(e, -ENOMEM, "out of memory");
	}
	*ret = c;
	return 0;
}

struct connector *connector_free(struct connector *c)
{
	if (!c)
		return NULL;
	while (c->spare) {
		struct handle *h = c->spare;
		c->spare = h->next;
		handle_free(h);
	}
	addresses_free(c->addresses);
	curl_loop_free(c->curl);
	free(c->ca_file);
	free(c);
	return NULL;
}

/* --- a connection --------------------------------------------------------------------------------------- */

int connection_new(struct connector *c, const struct connection_events *events, void *arg,
		   struct connection **ret)
{
	struct connection *n = calloc(1, sizeof(*n));
	if (!n)
		return -ENOMEM;
	*n = (struct connection){
		.connector = c, .events = events, .arg = arg, .fd = -1, .tls = c->origin->tls};
	struct search *s = n->search = calloc(1, sizeof(*s));
	if (!s) {
		free(n);
		return -ENOMEM;
	}
	s->connection = n;
	s->waiter.told = on_addresses;
	link_init(&s->waiter.link);
	s->deadline = loop_now_ms(c->loop) + c->connect_timeout_ms;
	int r = search_begin(s);
	if (r < 0) {
		search_free(s);
		free(n);
		return r;
	}
	*ret = n;
	return 0;
}

struct connection *connection_free(struct connection *n)
{
	if (!n)
		return NULL;
	loop_watch_free(n->watch);
	search_free(n->search);
	if (n->handle)
		handle_give_back(n->connector, n->handle);
	if (!n->tls && n->fd >= 0)
		close(n->fd);
	free(n->stage);
	free(n);
	return NULL;
}

void connection_give(struct connection *n, const struct connection_events *events, void *arg)
{
	n->events = events;
	n->arg = arg;
}

void connection_watch(struct connection *n, unsigned events)
{
	/* Fails only where the descriptor is not valid, which is a bug. */
	loop_watch_set(n->watch, events);
}

/* --- bytes ---------------------------------------------------------------------------------------------- */

static ssize_t plain_send(struct connection *n, const struct iovec *parts, int count)
{
	struct msghdr m = {.msg_iov = (struct iovec *)parts, .msg_iovlen = (size_t)count};
	ssize_t sent;
	do
		sent = sendmsg(n->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (sent < 0 && errno == EINTR);
	return sent < 0 ? -errno : sent;
}

static ssize_t plain_recv(struct connection *n, char *out, size_t size, int flags)
{
	ssize_t got;
	do
		got = recv(n->fd, out, size, MSG_DONTWAIT | flags);
	while (got < 0 && errno == EINTR);
	return got < 0 ? -errno : got;
}

int connection_flush(struct connection *n)
{
	if (n->staged == 0)
		return 0;
	size_t sent = 0;
	CURLcode e = curl_easy_send(n->handle->easy, n->stage, n->staged, &sent);
	if (e == CURLE_AGAIN)
		return -EAGAIN;
	if (e != CURLE_OK)
		return -ECONNRESET;
	/* Other TLS libraries may take a part. */
	n->staged -= sent;
	memmove(n->stage, n->stage + sent, n->staged);
	return n->staged ? -EAGAIN : 0;
}

static ssize_t tls_send(struct connection *n, const struct iovec *parts, int count)
{
	if (!n->stage && !(n->stage = malloc(STAGE_SIZE)))
		return -ENOMEM;
	ssize_t taken = 0;
	for (int i = 0; i < count; i++) {
		const char *from = parts[i].iov_base;
		for (size_t left = parts[i].iov_len; left;) {
			int r = n->staged == STAGE_SIZE ? connection_flush(n) : 0;
			if (r < 0)
				return r == -EAGAIN ? taken : r;
			size_t room = STAGE_SIZE - n->staged, piece = left < room ? left : room;
			memcpy(n->stage + n->staged, from, piece);
			n->staged += piece;
			taken += (ssize_t)piece;
			from += piece;
			left -= piece;
		}
	}
	int r = connection_flush(n);
	return r < 0 && r != -EAGAIN ? r : taken;
}

ssize_t connection_send(struct connection *n, const struct iovec *parts, int count)
{
	if (!n->tls)
		return plain_send(n, parts, count);
	/* What waits must go out as it is before anything is added to it. */
	int r = connection_flush(n);
	return r < 0 ? r : tls_send(n, parts, count);
}

/* A whole TLS record lies in the socket (RFC 8446 §5.1: type, version, length). */
static bool record_waits(struct connection *n)
{
	unsigned char header[5];
	int available = 0;
	if (plain_recv(n, (char *)header, sizeof(header), MSG_PEEK) != sizeof(header) ||
	    ioctl(n->fd, FIONREAD, &available) < 0)
		return false;
	return available >= 5 + (header[3] << 8 | header[4]);
}

/* libcurl 7.88 reports the peer's FIN like its close_notify. The first comes with no record, the second is
 * one. */
static ssize_t tls_recv(struct connection *n, char *out, size_t size)
{
	size_t got = 0;
	bool record = record_waits(n);
	CURLcode e = curl_easy_recv(n->handle->easy, out, size, &got);
	if (e == CURLE_AGAIN)
		return -EAGAIN;
	return e == CURLE_OK && (got || record) ? (ssize_t)got : -ECONNRESET;
}

ssize_t connection_recv(struct connection *n, char *out, size_t size)
{
	return n->tls ? tls_recv(n, out, size) : plain_recv(n, out, size, 0);
}

void connection_rest(struct connection *n)
{
	if (n->staged == 0) {
		free(n->stage);
		n->stage = NULL;
	}
}

bool connection_quiet(struct connection *n)
{
	char byte;
	if (n->staged)
		return false;
	return n->tls ? connection_recv(n, &byte, 1) == -EAGAIN
		      : plain_recv(n, &byte, 1, MSG_PEEK) == -EAGAIN;
}

bool connection_buffers(const struct connection *n)
{
	return n->tls;
}

bool connection_send_is_atomic(const struct connection *n)
{
	return !n->tls;
}
