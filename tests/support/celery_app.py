"""Celery tasks as existing workers have them: the core tasks by name, `execute_extraction` of the extraction workers, and troublemakers."""
import os
import time

from celery import Celery

app = Celery("workers", broker=os.environ["CELERY_BROKER_URL"], backend=os.environ["CELERY_RESULT_BACKEND"])
app.conf.task_track_started = True
app.conf.broker_connection_retry_on_startup = True
app.conf.worker_hijack_root_logger = False


@app.task(name="add_numbers")
def add_numbers(a, b):
    return a + b


@app.task(name="echo")
def echo(message):
    return message


@app.task(name="everything")
def everything(*args, **kwargs):
    return {"args": args, "kwargs": kwargs}


@app.task(name="simulate_work")
def simulate_work(duration=1):
    time.sleep(duration)
    return {"status": "completed"}


@app.task(name="fail")
def fail(message):
    try:
        raise KeyError("inner")
    except KeyError as inner:
        raise ValueError(message) from inner


@app.task(name="give_back")
def give_back(value):
    return value


@app.task(name="give_size")
def give_size(value):
    return len(value)


@app.task(name="length")
def length(text):
    return len(text)


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


@app.task(name="execute_extraction")
def execute_extraction(context):
    if context["executor_params"].get("explode"):
        return {"success": False, "data": {}, "metadata": {}, "error": "the model refused"}
    return {"success": True, "error": None, "metadata": {"executor": context["executor_name"]},
            "data": {"operation": context["operation"], "echo": context["executor_params"], "run_id": context.get("run_id"),
                     "organization": context.get("organization_id"), "request": context.get("request_id")}}
