"""Celery tasks as existing workers have them: those of core_tasks by name, and troublemakers."""
import json
import os
import time

from celery import Celery

import core_tasks

app = Celery("workers", broker=os.environ["CELERY_BROKER_URL"], backend=os.environ["CELERY_RESULT_BACKEND"])
app.conf.task_track_started = True
app.conf.broker_connection_retry_on_startup = True
app.conf.worker_hijack_root_logger = False
app.conf.update(json.loads(os.environ.get("CELERY_APP_CONF", "{}")))
for function in core_tasks.TASKS:
    app.task(name=function.__name__)(function)


@app.task(name="everything")
def everything(*args, **kwargs):
    return {"args": args, "kwargs": kwargs}


@app.task(name="not_json_number")
def not_json_number():
    return float("nan")


@app.task(name="count_up", bind=True)
def count_up(self, key):
    return int(self.app.backend.client.incr(key))


@app.task(name="progress", bind=True)
def progress(self, duration):
    self.update_state(state="PROGRESS", meta={"percent": 50})
    time.sleep(duration)
    return "done"


@app.task(name="try_twice", bind=True, max_retries=1)
def try_twice(self):
    if self.request.retries == 0:
        raise self.retry(exc=ValueError("not yet"), countdown=1)
    return "at the second try"


for name in os.environ.get("CELERY_APP_WITHOUT", "").split():
    app.tasks.pop(name)
