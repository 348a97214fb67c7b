/*
 * Raw client.
 */
#include "support/raw_client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

int raw_connect(unsigned port)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct timeval patience = {.tv_sec = RAW_PATIENCE_S};
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0) {
		close(fd);
		return -1;
	}
	/* After it: a connect with a time limit ends at any interruption, one without goes on. */
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	return fd;
}

bool raw_send(int fd, const char *bytes, size_t n)
{
	while (n) {
		ssize_t r = TEMP_FAILURE_RETRY(send(fd, bytes, n, MSG_NOSIGNAL));
		if (r <= 0)
			return false;
		bytes += r;
		n -= (size_t)r;
	}
	return true;
}

bool raw_say(int fd, const char *text)
{
	return raw_send(fd, text, strlen(text));
}

static enum raw_end end_of(ssize_t r)
{
	if (r == 0)
		return RAW_EOF;
	return errno == EAGAIN || errno == EWOULDBLOCK ? RAW_TIMEOUT : RAW_RESET;
}

size_t raw_read_all(int fd, char *out, size_t size, enum raw_end *ret_end)
{
	size_t n = 0;
	enum raw_end end = RAW_OPEN;
	while (n + 1 < size) {
		ssize_t r = TEMP_FAILURE_RETRY(recv(fd, out + n, size - 1 - n, 0));
		if (r <= 0) {
			end = end_of(r);
			break;
		}
		n += (size_t)r;
	}
	out[n] = 0;
	if (ret_end)
		*ret_end = end;
	return n;
}

static bool read_byte(int fd, char *out, size_t size, size_t *n)
{
	if (*n + 1 >= size || TEMP_FAILURE_RETRY(recv(fd, out + *n, 1, 0)) != 1)
		return false;
	out[++*n] = 0;
	return true;
}

/* Up to and with `end`; false when the connection ends before. */
static bool read_to(int fd, const char *end, char *out, size_t size, size_t *n)
{
	size_t from = *n, k = strlen(end);
	while (read_byte(fd, out, size, n))
		if (*n - from >= k && memcmp(out + *n - k, end, k) == 0)
			return true;
	return false;
}

static bool read_n(int fd, size_t want, char *out, size_t size, size_t *n)
{
	while (want && *n + 1 < size) {
		size_t room = size - 1 - *n;
		ssize_t r = TEMP_FAILURE_RETRY(recv(fd, out + *n, want < room ? want : room, 0));
		if (r <= 0)
			return false;
		*n += (size_t)r;
		want -= (size_t)r;
	}
	out[*n] = 0;
	return want == 0;
}

static bool read_chunks(int fd, char *out, size_t size, size_t *n)
{
	for (;;) {
		size_t line = *n;
		if (!read_to(fd, "\r\n", out, size, n))
			return false;
		size_t chunk = strtoul(out + line, NULL, 16);
		if (!read_n(fd, chunk + 2, out, size, n))
			return false;
		if (chunk == 0)
			return true;
	}
}

int raw_read_answer(int fd, bool bodyless, char *out, size_t size)
{
	size_t n = 0, head = 0;
	int status;
	do {
		head = n;
		if (!read_to(fd, "\r\n\r\n", out, size, &n) || strncmp(out + head, "HTTP/1.1 ", 9) != 0)
			return -1;
		status = atoi(out + head + 9);
	} while (status < 200);
	if (bodyless || status == 204 || status == 304)
		return status;
	const char *length = strcasestr(out + head, "\r\nContent-Length: ");
	if (length)
		return read_n(fd, strtoul(length + 18, NULL, 10), out, size, &n) ? status : -1;
	if (strcasestr(out + head, "\r\nTransfer-Encoding: chunked\r\n"))
		return read_chunks(fd, out, size, &n) ? status : -1;
	return status;
}

enum raw_end raw_wait_end(int fd)
{
	char c;
	ssize_t r = TEMP_FAILURE_RETRY(recv(fd, &c, 1, 0));
	return r > 0 ? RAW_OPEN : end_of(r);
}
