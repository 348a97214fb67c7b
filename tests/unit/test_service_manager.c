/* The watchdog is fed while what it asks says so, and no longer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/service_manager.h"

struct scene {
	struct loop *loop;
	int manager;
	unsigned asked, lives; /* so many times it is alive */
};

static bool scene_alive(void *arg)
{
	struct scene *s = arg;
	if (++s->asked >= 2 * s->lives)
		loop_stop(s->loop);
	return s->asked <= s->lives;
}

static void manager_listens(struct scene *s)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	char name[64];
	snprintf(name, sizeof(name), "@migration-router-unit-%ld", (long)getpid());
	setenv("NOTIFY_SOCKET", name, 1);
	memcpy(a.sun_path + 1, name + 1, strlen(name) - 1);
	s->manager = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	assert_true(s->manager >= 0);
	assert_int_equal(bind(s->manager, (const struct sockaddr *)&a,
			      (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name))),
			 0);
}

static void who_hangs_does_not_feed_it(void **state)
{
	(void)state;
	struct scene s = {.lives = 3};
	struct watchdog *w;
	char got[64];
	unsigned fed = 0;
	manager_listens(&s);
	setenv("WATCHDOG_USEC", "30000", 1);
	unsetenv("WATCHDOG_PID");
	assert_int_equal(loop_new(&s.loop), 0);
	assert_int_equal(watchdog_new(s.loop, scene_alive, &s, &w), 0);
	assert_non_null(w);
	loop_run(s.loop);
	ssize_t n;
	while ((n = recv(s.manager, got, sizeof(got), 0)) > 0) {
		assert_int_equal(n, strlen("WATCHDOG=1"));
		assert_memory_equal(got, "WATCHDOG=1", (size_t)n);
		fed++;
	}
	assert_int_equal(s.asked, 2 * s.lives);
	assert_int_equal(fed, s.lives);
	assert_null(watchdog_free(w));
	loop_free(s.loop);
	close(s.manager);
}

static void nobody_wants_one(void **state)
{
	(void)state;
	static const struct {
		const char *usec, *pid;
	} rows[] = {{NULL, NULL}, {"0", NULL}, {"", NULL}, {"soon", NULL}, {"30000", "1"}, {"30000x", NULL}};
	struct loop *loop;
	assert_int_equal(loop_new(&loop), 0);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct watchdog *w;
		unsetenv("WATCHDOG_USEC");
		unsetenv("WATCHDOG_PID");
		if (rows[i].usec)
			setenv("WATCHDOG_USEC", rows[i].usec, 1);
		if (rows[i].pid)
			setenv("WATCHDOG_PID", rows[i].pid, 1);
		assert_int_equal(watchdog_new(loop, NULL, NULL, &w), 0);
		assert_null(w);
	}
	loop_free(loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(who_hangs_does_not_feed_it),
					   cmocka_unit_test(nobody_wants_one)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
