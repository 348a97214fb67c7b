/* A workflow that is declared in a file: a worker that knows it, and a call. ./workflow workflow.yml */
#include <pthread.h>
#include <stdio.h>

#include <taskq.h>

static void *work(void *arg)
{
	struct taskq_error error;
	if (taskq_run_worker((struct taskq *)arg, NULL, &error) < 0)
		fprintf(stderr, "worker: %s\n", error.text);
	return NULL;
}

static int call(struct taskq *q)
{
	struct taskq_call c = {0};
	struct taskq_error error;
	struct taskq_result *result = NULL;
	char id[TASKQ_ID_MAX];
	c.task = "greeting-words";
	c.workflow = 1;
	c.args = "[\"how many words\"]";
	int r = taskq_submit(q, &c, id, &error);
	if (r == 0)
		r = taskq_get_result(q, id, 30000, &result, &error);
	if (r < 0)
		fprintf(stderr, "%s\n", error.text);
	else
		printf("%s\n", result->status == TASKQ_COMPLETED ? result->result : result->error);
	int good = r == 0 && result->status == TASKQ_COMPLETED;
	taskq_result_free(result);
	return good ? 0 : 1;
}

int main(int argc, char **argv)
{
	struct taskq *q;
	struct taskq_error error;
	pthread_t thread;
	if (taskq_open(NULL, NULL, 0, &q, &error) < 0 ||
	    taskq_register_file(q, argc > 1 ? argv[1] : "workflow.yml", &error) < 0) {
		fprintf(stderr, "%s\n", error.text);
		return 1;
	}
	if (pthread_create(&thread, NULL, work, q))
		return 1;
	int code = call(q);
	taskq_stop_worker(q);
	pthread_join(thread, NULL);
	taskq_close(q);
	return code;
}
