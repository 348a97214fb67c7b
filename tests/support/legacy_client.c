#include "support/legacy_client.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

static const struct http_field host_field[] = {{{"Host", 4}, {"legacy.test", 11}}};

struct legacy_request simple_request(const char *method, const char *target)
{
	struct span m = span_of(method);
	return (struct legacy_request){
		.method = m,
		.target = span_of(target),
		.fields = host_field,
		.n_fields = 1,
		.content_length = -1,
		.retry_if_kept_died = span_is(m, "GET") || span_is(m, "HEAD"),
	};
}

struct legacy_options client_options(const char *base_url)
{
	return (struct legacy_options){
		.base_url = base_url,
		.max_connections = 64,
		.max_queued = 64,
		.max_kept = 16,
		.keep_ms = 10000,
		.connect_timeout_ms = 5000,
		.response_timeout_ms = 5000,
		.idle_timeout_ms = 5000,
		.max_head = 16384,
	};
}

static void die(const char *what)
{
	fprintf(stderr, "%s\n", what);
	abort();
}

static void on_alarm(void *arg)
{
	struct client *c = arg;
	c->overdue = true;
	loop_stop(c->loop);
}

void client_open(struct client *c, const struct legacy_options *o)
{
	struct err e = {""};
	*c = (struct client){0};
	if (legacy_setup() < 0 || loop_new(&c->loop) < 0 ||
	    loop_timer_new(c->loop, on_alarm, c, &c->alarm) < 0)
		die("client_open");
	if (legacy_upstream_new(c->loop, o, &c->upstream, &e) < 0)
		die(e.text);
}

void client_close(struct client *c)
{
	legacy_upstream_free(c->upstream);
	loop_timer_free(c->alarm);
	loop_free(c->loop);
}

bool client_run_until(struct client *c, const bool *flag)
{
	c->overdue = false;
	loop_timer_start(c->alarm, 20000);
	while (!*flag && !c->overdue)
		loop_run(c->loop);
	loop_timer_stop(c->alarm);
	return *flag;
}

void client_run_ms(struct client *c, unsigned ms)
{
	c->overdue = false;
	loop_timer_start(c->alarm, ms);
	while (!c->overdue)
		loop_run(c->loop);
}

static void on_continue(void *arg)
{
	struct seen *s = arg;
	s->continues++;
	loop_stop(s->client->loop);
}

static void on_head(void *arg, const struct legacy_answer *a)
{
	struct seen *s = arg;
	s->heads++;
	s->status = a->status;
	s->length = a->length;
	s->content_length = a->content_length;
	s->n_fields = a->n_fields;
	for (size_t i = 0; i < a->n_fields; i++)
		buf_printf(&s->head, "%.*s: %.*s\n", SPAN_ARG(a->fields[i].name),
			   SPAN_ARG(a->fields[i].value));
	if (s->free_in_head)
		s->call = legacy_call_free(s->call);
	loop_stop(s->client->loop);
}

static void on_readable(void *arg)
{
	struct seen *s = arg;
	s->readables++;
	if (s->hold) {
		loop_stop(s->client->loop);
		return;
	}
	static char piece[20000];
	long n;
	while ((n = legacy_call_read(s->call, piece, sizeof(piece))) > 0) {
		s->received += (uint64_t)n;
		if (!s->drop_body && buf_append(&s->body, piece, (size_t)n) < 0)
			die("body");
	}
	s->ended |= n == LEGACY_READ_END;
	if (n < 0)
		loop_stop(s->client->loop);
}

static void on_writable(void *arg)
{
	struct seen *s = arg;
	s->writables++;
	seen_send(s);
}

static void on_failed(void *arg, enum legacy_failure f, bool request_written, const char *detail)
{
	struct seen *s = arg;
	s->failures++;
	s->failure = f;
	s->written = request_written;
	span_copy(span_of(detail), s->detail, sizeof(s->detail));
	loop_stop(s->client->loop);
}

void seen_start(struct seen *s, struct client *c, const struct legacy_request *r)
{
	s->client = c;
	buf_init(&s->head, 1 << 20);
	buf_init(&s->body, 16 << 20);
	const struct legacy_events events = {s, on_continue, on_head, on_readable, on_writable, on_failed};
	if (legacy_call_start(c->upstream, r, &events, &s->call) < 0)
		die("legacy_call_start");
	if (s->heads || s->failures || s->readables || s->writables)
		die("called back from within start");
}

void seen_send(struct seen *s)
{
	while (s->to_send) {
		size_t n = s->to_send < s->piece_length ? (size_t)s->to_send : s->piece_length;
		size_t took = legacy_call_write(s->call, s->piece, n);
		s->to_send -= took;
		if (took < n)
			return;
	}
	if (s->end_after)
		legacy_call_end(s->call);
}

static bool run(struct seen *s, const int *count)
{
	struct client *c = s->client;
	c->overdue = false;
	loop_timer_start(c->alarm, 20000);
	while (!s->ended && !s->failures && !(count && *count) && !c->overdue)
		loop_run(c->loop);
	loop_timer_stop(c->alarm);
	return !c->overdue;
}

bool seen_run(struct seen *s)
{
	return run(s, NULL);
}

bool seen_run_head(struct seen *s)
{
	return run(s, &s->heads);
}

void seen_free(struct seen *s)
{
	s->call = legacy_call_free(s->call);
	buf_release(&s->head);
	buf_release(&s->body);
}

int open_descriptors(void)
{
	int n = 0;
	DIR *d = opendir("/proc/self/fd");
	if (!d)
		abort();
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}
