"""The Celery app of compose.yaml. It knows nothing about the router: a task as an existing application has it."""
import os

from celery import Celery

import executor

app = Celery("samples", broker=os.environ["CELERY_BROKER_URL"], backend=os.environ["CELERY_RESULT_BACKEND"])
app.conf.broker_connection_retry_on_startup = True


@app.task(name="execute_extraction")
def execute_extraction(call):
    return executor.run(call)
