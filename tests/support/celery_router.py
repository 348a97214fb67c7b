"""Routers whose operations are the tasks of celery_app.py, each at the path of its name."""
import requests

import configuration
from http_text import PATIENCE

TASKS = {name: {"name": name, "args": {"$ref": "body:/args"}, "kwargs": {"$ref": "body:/kwargs", "default": {}}, "timeout": "30s"}
         for name in ("add_numbers", "echo", "give_back", "everything", "simulate_work", "fail", "give_size", "not_json_number",
                      "count_up", "progress", "unheard_of")}


def celery_config(origin, broker, results=None, tasks=None, **settings):
    operations = {name: configuration.operation("POST /" + name, {**task, "backend": "celery"})
                  for name, task in (tasks or TASKS).items()}
    backends = {"celery": {"when_not_ready": "submit", "broker_url": broker, **({"result_backend": results} if results else {}), **settings}}
    return configuration.router({"s": configuration.service(origin, operations)}, backend="celery", backends=backends)


def start_router(start, origin, broker, results=None, tasks=None, env=None, **settings):
    config = celery_config(origin, broker, results, tasks, **settings)
    return start.router(config, env={"TASK_ABSTRACTION_ENABLED": "true", **(env or {})})


def call(router, task, *args, kwargs=None, **how):
    body = {"args": list(args), **({"kwargs": kwargs} if kwargs is not None else {})}
    return requests.post("http://127.0.0.1:%d/%s" % (router.port, task), json=body, timeout=PATIENCE, **how)


def readyz(router):
    return requests.get("http://127.0.0.1:%d/readyz" % router.admin_port, timeout=PATIENCE).json()["backends"][0]
