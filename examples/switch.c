/* One program, any backend: which one runs its calls is said by one variable. Calls on the caller's own loop: the
 * library's descriptor is polled with whatever else the program waits for.
 *
 *   ./switch                                                    embedded: tasks.db, with task-backend-worker beside it
 *   TASK_BACKEND_TYPE=celery CELERY_BROKER_URL=redis://… ./switch      the workers of that Celery application */
#include <poll.h>
#include <stdio.h>

#include <taskq.h>

#define CALLS 5

struct calls {
	struct taskq *q;
	int left, failed;
};

static void on_result(void *arg, int code, const struct taskq_result *result, const char *error)
{
	struct calls *c = (struct calls *)arg;
	c->left--;
	if (code == 0 && result->status == TASKQ_COMPLETED) {
		printf("%s: %s\n", taskq_backend(c->q), result->result);
		return;
	}
	c->failed = 1;
	fprintf(stderr, "%s\n", code == 0 ? result->error : error);
}

static void on_submitted(void *arg, int code, const char *id, const char *error)
{
	struct calls *c = (struct calls *)arg;
	struct taskq_error why;
	if (code == 0 && taskq_get_result_async(c->q, id, 30000, on_result, c, &why) == 0)
		return;
	c->left--;
	c->failed = 1;
	fprintf(stderr, "%s\n", code == 0 ? why.text : error);
}

int main(void)
{
	struct calls c = {NULL, 0, 0};
	struct taskq_error error;
	if (taskq_open(NULL, NULL, 0, &c.q, &error) < 0) {
		fprintf(stderr, "%s\n", error.text);
		return 1;
	}
	for (int i = 0; i < CALLS; i++) {
		char args[32];
		struct taskq_call call = {0};
		snprintf(args, sizeof(args), "[%d, 1]", i);
		call.task = "add_numbers";
		call.args = args;
		if (taskq_submit_async(c.q, &call, on_submitted, &c, &error) == 0) {
			c.left++;
		} else {
			fprintf(stderr, "%s\n", error.text);
			c.failed = 1;
		}
	}
	struct pollfd own = {taskq_fd(c.q), POLLIN, 0};
	while (c.left > 0 && poll(&own, 1, -1) >= 0)
		taskq_dispatch(c.q);
	taskq_close(c.q);
	return c.failed;
}
