"""Celery as it is mostly installed: RabbitMQ as broker, results by reply queue (rpc://) or in PostgreSQL. All parts are real."""
import concurrent.futures
import json
import time

import pytest
import requests

import configuration as c
from celery_rabbitmq import RabbitMQ
from celery_router import call, celery_config, readyz, start_router
from celery_worker import Worker
from http_text import PATIENCE, wait_until
from lossy import Lossy
from programs import need_backend

need_backend("celery")
@pytest.fixture(scope="module")
def rabbit(tmp_path_factory):
    server = RabbitMQ(tmp_path_factory.mktemp("rabbit"))
    yield server
    server.end()


@pytest.fixture(scope="module")
def worker(rabbit, tmp_path_factory):
    one = Worker(tmp_path_factory.mktemp("worker"), rabbit.url(), "rpc://")
    yield one
    one.stop()


@pytest.fixture
def router(start, rabbit, worker):
    return start_router(start, start.origin(), rabbit.url(), "rpc://")


def test_a_task_over_rabbitmq_answers_its_caller(router):
    answer = call(router, "add_numbers", 2, 3)
    assert (answer.status_code, answer.text) == (200, "5")
    row = router.wait_outcomes()[0]
    assert (row["side"], row["backend"], row["result"]) == ("task", "celery", "success")
    body = call(router, "everything", 9007199254740993, 1.0, None, "\xe4\U0001f600", {"a": [True]}).json()
    assert body == {"args": [9007199254740993, 1.0, None, "\xe4\U0001f600", {"a": [True]}], "kwargs": {}}


def test_failures_over_rabbitmq_say_why(router):
    answer = call(router, "fail", "bad input")
    assert (answer.status_code, answer.json()["detail"]) == (500, "bad input")
    assert "not registered" in call(router, "unheard_of").json()["detail"]
    assert call(router, "not_json_number").status_code == 502
    assert call(router, "progress", 0.2).json() == "done"
