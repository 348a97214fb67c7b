"""Celery tasks as existing workers have them: those of core_tasks by name, and troublemakers."""
import datetime
import decimal
import json
import os
import subprocess
import time
import uuid

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


@app.task(name="marks", bind=True)
def marks(self, key):
    self.app.backend.client.rpush(key, str(getattr(self.request, "x_migration_shadow", None)))
    return {}


@app.task(name="trace", bind=True)
def trace(self, *_):
    """What OpenTelemetry's CeleryGetter reads: attributes of the request."""
    return [getattr(self.request, "traceparent", None), getattr(self.request, "tracestate", None)]


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


@app.task(name="python_types")
def python_types():
    at = datetime.datetime(2024, 1, 2, 3, 4, 5)
    return {"utc": at.replace(tzinfo=datetime.timezone.utc), "naive": at, "date": at.date(), "time": at.time(),
            "decimal": decimal.Decimal("1.50"), "uuid": uuid.UUID("0123456789abcdef0123456789abcdef"), "text": b"te\0xt",
            "bytes": b"\xff", "list": [{"in": decimal.Decimal(2)}]}


@app.task(name="progress_that_is_no_json", bind=True)
def progress_that_is_no_json(self, duration):
    self.update_state(state="PROGRESS", meta={"percent": float("nan")})
    time.sleep(duration)
    return "done"


class Custom(Exception):
    """Celery cannot make it anew from its arguments, and wraps it."""

    def __init__(self, text, code):
        super().__init__(text)
        self.code = code


class Told(Exception):
    def __str__(self):
        return "told: %d" % self.args[0]


@app.task(name="raise_it")
def raise_it(kind):
    if kind == "os":
        raise FileNotFoundError(2, "No such file or directory")
    if kind == "file":
        open("/nowhere", encoding="utf-8")
    if kind == "command":
        subprocess.run(["false"], check=True)
    if kind == "unpickleable":
        raise Custom("custom message", 5)
    if kind == "cause":
        try:
            raise ValueError("first")
        except ValueError as error:
            raise RuntimeError("second") from error
    raise {"two": ValueError("a", "b"), "custom": Told(5), "number": ValueError(5), "plain": ValueError("plain: text")}[kind]


for name in os.environ.get("CELERY_APP_WITHOUT", "").split():
    app.tasks.pop(name)
