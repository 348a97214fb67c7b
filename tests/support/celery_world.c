#include "support/celery_world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <signal.h>

#include "base/crypto.h"

static void on_guard(void *arg)
{
	(void)arg;
	fail_msg("nothing happened for 20 s");
}

void celery_world_set(struct celery_world *w, const char *key, const char *value)
{
	struct err e = {""};
	task_options_set(w->options, span_of(key), span_of(value), &e);
	assert_string_equal(e.text, "");
}

void celery_world_start(struct celery_world *w)
{
	struct redis_url url;
	const struct task_backend_setup setup = {.data_dir = "."};
	struct err e;
	assert_true(redis_server_start(&w->server, NULL));
	assert_int_equal(loop_new(&w->loop), 0);
	assert_int_equal(loop_timer_new(w->loop, on_guard, w, &w->guard), 0);
	assert_int_equal(task_options_new(&celery_backend, &w->options, &e), 0);
	celery_world_set(w, "broker_url", w->server.url);
	celery_world_set(w, "command_timeout", "2s");
	assert_int_equal(task_options_check(w->options, &setup, &e), 0);
	assert_int_equal(task_client_new(w->options, w->loop, &w->client, &e), 0);
	assert_int_equal(redis_url_parse(span_of(w->server.url), &url, &e), 0);
	const struct redis_options o = {.url = &url};
	assert_int_equal(redis_new(w->loop, &o, &w->worker, &e), 0);
	redis_url_release(&url);
}

void celery_world_stop(struct celery_world *w)
{
	task_client_free(w->client);
	redis_free(w->worker);
	loop_timer_free(w->guard);
	loop_free(w->loop);
	task_options_free(w->options);
	redis_server_stop(&w->server);
}

void celery_world_happened(struct celery_world *w)
{
	if (w->frees)
		w->client = task_client_free(w->client);
	w->frees = false;
	if (w->waiting && --w->waiting == 0)
		loop_stop(w->loop);
}

void celery_world_wait(struct celery_world *w, unsigned events)
{
	w->waiting = events;
	loop_timer_start(w->guard, 20000);
	loop_run(w->loop);
	assert_int_equal(w->waiting, 0);
}

static void on_passed(void *arg)
{
	celery_world_happened(arg);
}

void celery_world_pass(struct celery_world *w, unsigned ms)
{
	struct loop_timer *timer;
	assert_int_equal(loop_timer_new(w->loop, on_passed, w, &timer), 0);
	loop_timer_start(timer, ms);
	celery_world_wait(w, 1);
	loop_timer_free(timer);
}

bool celery_world_possible(void)
{
	struct redis_server probe;
	signal(SIGPIPE, SIG_IGN);
	crypto_setup();
	if (!redis_server_start(&probe, NULL)) {
		print_message("there is no redis-server\n");
		return false;
	}
	redis_server_stop(&probe);
	return true;
}
