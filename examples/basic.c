/* A task of this program, a worker for it, a call, its result: all on one handle. The backend is the environment's
 * (TASK_BACKEND_TYPE, with CELERY_BROKER_URL and so on), else the embedded one: tasks.db in the working folder.
 *
 *   cc basic.c $(pkg-config --cflags --libs libtaskq) -pthread -o basic && ./basic */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include <taskq.h>

static void greet(struct taskq_task *task, const char *args, const char *kwargs, void *arg)
{
	char answer[256];
	(void)kwargs;
	/* `args` is a JSON array: a real task reads it with a JSON library */
	if (snprintf(answer, sizeof(answer), "{\"%s\": %s}", (const char *)arg, args) < (int)sizeof(answer))
		taskq_return(task, answer);
	else
		taskq_fail(task, "too long");
}

struct work {
	struct taskq *q;
	struct taskq_error error;
	int code;
};

static void *work(void *arg)
{
	struct work *w = (struct work *)arg;
	const struct taskq_worker_options options = {"greetings", NULL, 2, 0};
	w->code = taskq_run_worker(w->q, &options, &w->error);
	if (w->code < 0)
		fprintf(stderr, "worker: %s\n", w->error.text);
	return NULL;
}

static int call(struct taskq *q)
{
	struct taskq_call c = {0};
	struct taskq_error error;
	struct taskq_result *result = NULL;
	char id[TASKQ_ID_MAX];
	c.task = "greet";
	c.args = "[\"world\"]";
	c.queue = "greetings";
	int r = taskq_submit(q, &c, id, &error);
	if (r == 0)
		r = taskq_get_result(q, id, 30000, &result, &error);
	if (r < 0)
		fprintf(stderr, "%s\n", error.text);
	else if (result->status == TASKQ_COMPLETED)
		printf("%s: %s\n", taskq_backend(q), result->result);
	else
		fprintf(stderr, "it failed: %s\n", result->error);
	int good = r == 0 && result->status == TASKQ_COMPLETED;
	taskq_result_free(result);
	return good ? 0 : 1;
}

int main(void)
{
	struct taskq *q;
	struct taskq_error error;
	struct taskq_task_options options = {"greetings", 1, 0, 0};
	struct work w = {0};
	pthread_t thread;
	static char hello[] = "hello";
	if (taskq_open(NULL, NULL, 0, &q, &error) < 0 ||
	    taskq_register_task(q, "greet", greet, hello, &options, &error) < 0) {
		fprintf(stderr, "%s\n", error.text);
		return 1;
	}
	w.q = q;
	if (pthread_create(&thread, NULL, work, &w))
		return 1;
	int code = call(q);
	taskq_stop_worker(q);
	pthread_join(thread, NULL);
	taskq_close(q);
	return code || w.code < 0;
}
