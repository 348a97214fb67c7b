/*
 * The round trip of a Celery task without any client: the least that a caller can do. SUBSCRIBE to the
 * result, LPUSH the message, wait; blocking, on two sockets, with a message made like the router's.
 *
 *   bench-celery-raw PORT TASK COUNT     Redis on 127.0.0.1; prints the same line of JSON as bench-tasks
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "measure.h"

#include "base/clock.h"
#include "base/crypto.h"
#include "tasks/celery/celery_message.h"

#define WARM_UP 50

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static int connect_to(unsigned port)
{
	struct sockaddr_in to = {.sin_family = AF_INET,
				 .sin_port = htons((uint16_t)port),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
	if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0)
		die("Redis");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
	return fd;
}

static void say(int fd, const struct buf *text)
{
	if (text->error || write(fd, text->ptr, text->len) != (ssize_t)text->len)
		die("write");
}

static void read_until(int fd, const char *mark)
{
	char text[16384];
	size_t n = 0;
	do {
		ssize_t got = read(fd, text + n, sizeof(text) - 1 - n);
		if (got <= 0)
			die("read");
		n += (size_t)got;
		text[n] = '\0';
	} while (!strstr(text, mark));
}

static int64_t round_trip(int commands, int subscriber, const char *task)
{
	static char last[CRYPTO_UUID];
	CLEANUP(buf_releasep) struct buf subscribe = BUF_INIT(1024);
	CLEANUP(buf_releasep) struct buf push = BUF_INIT(1u << 16);
	CLEANUP(buf_releasep) struct buf message = BUF_INIT(1u << 16);
	struct celery_sender sender = {"gen1@bench", "bench"};
	char id[CRYPTO_UUID], channel[128];
	int64_t begin_us = clock_mono_us();
	crypto_uuid4(id);
	const struct task_call call = {
		.task = span_of(task), .task_id = span_of(id), .args = SPAN_LIT("[1, 2]")};
	celery_task_message(&sender, &call, SPAN_LIT("celery"), clock_wall_us(), NULL, &message);
	buf_printf(&subscribe, "SUBSCRIBE celery-task-meta-%s\r\n", id);
	if (last[0])
		buf_printf(&subscribe, "UNSUBSCRIBE celery-task-meta-%s\r\n", last);
	buf_printf(&push, "*3\r\n$5\r\nLPUSH\r\n$6\r\ncelery\r\n$%zu\r\n%.*s\r\n", message.len,
		   SPAN_ARG(buf_span(&message)));
	say(subscriber, &subscribe);
	say(commands, &push);
	read_until(commands, ":");
	snprintf(channel, sizeof(channel), "$7\r\nmessage\r\n$53\r\ncelery-task-meta-%s", id);
	read_until(subscriber, channel);
	memcpy(last, id, sizeof(last));
	return clock_mono_us() - begin_us;
}

int main(int argc, char **argv)
{
	int count = argc == 4 ? atoi(argv[3]) : 0;
	struct measure m;
	if (count < 1 || crypto_setup() < 0) {
		fprintf(stderr, "usage: bench-celery-raw PORT TASK COUNT\n");
		return 2;
	}
	int commands = connect_to((unsigned)atoi(argv[1])), subscriber = connect_to((unsigned)atoi(argv[1]));
	for (int i = 0; i < WARM_UP; i++)
		round_trip(commands, subscriber, argv[2]);
	measure_begin(&m, (size_t)count);
	for (int i = 0; i < count; i++)
		measure_add(&m, round_trip(commands, subscriber, argv[2]));
	measure_end(&m, 1);
	close(commands);
	close(subscriber);
	return 0;
}
