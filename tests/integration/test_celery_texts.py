"""What goes into Celery tasks and comes out of them, beyond plain JSON: with real workers of what is installed."""
import json

import pytest
import requests

from celery_redis import Redis
from celery_router import TASKS, call, start_router
from celery_worker import Worker
from http_text import PATIENCE
from programs import need_backend

need_backend("celery")

NAMES = ("give_back", "python_types", "raise_it", "progress_that_is_no_json", "not_json_number", "add_numbers")


def tasks():
    return {name: {**TASKS["echo"], "name": name} for name in NAMES}


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    server = Redis(tmp_path_factory.mktemp("redis"))
    worker = Worker(tmp_path_factory.mktemp("worker"), server.url(0))
    yield server
    worker.stop()
    server.stop()


@pytest.fixture
def router(start, engine):
    origin = start.origin()
    origin.always(lambda x: (x.read_body(), x.answer(body=b'"legacy"')))
    return start_router(start, origin, engine.url(0), tasks=tasks())


def post(router, task, body):
    return requests.post("http://127.0.0.1:%d/%s" % (router.port, task), data=body, timeout=PATIENCE,
                         headers={"Content-Type": "application/json"})


@pytest.mark.parametrize("body", [
    b'{"args": [{"__type__": "decimal", "__value__": "1.5"}]}', b'{"args": [{"__type__": "nobodys", "__value__": 1}]}',
    b'{"args": [1], "kwargs": {"x": [{"__value__": 1, "__type__": "x"}]}}', b'{"args": [' + b"7" * 4301 + b"]}",
    b'{"args": [NaN]}', b'\xef\xbb\xbf{"args": [1]}', b'{"args": [' + b"[" * 1000 + b"]" * 1000 + b"]}",
    '{"args": [1]}'.encode("utf-16"),
], ids=["decimal", "nobodys", "kwargs", "digits", "nan", "bom", "deep", "utf16"])
def test_what_workers_would_drop_or_change_is_legacys(router, engine, body):
    answer = post(router, "give_back", body)
    assert (answer.status_code, answer.text) == (200, '"legacy"')
    row = router.wait_outcomes()[0]
    assert (row["side"], row["role"], row["reason"]) == ("legacy", "primary", "input_not_representable")
    assert engine.client().llen("celery") == 0


def test_four_hundred_levels_go_through_a_worker(router):
    deep = "[" * 399 + "]" * 399
    assert post(router, "give_back", ('{"args": [%s]}' % deep).encode()).text == deep


def test_types_of_python_are_what_older_workers_wrote(router):
    assert call(router, "python_types").json() == {
        "utc": "2024-01-02T03:04:05Z", "naive": "2024-01-02T03:04:05", "date": "2024-01-02T00:00:00", "time": "03:04:05",
        "decimal": "1.50", "uuid": "01234567-89ab-cdef-0123-456789abcdef", "text": "te\0xt", "bytes": "/w==",
        "list": [{"in": "2"}]}


def test_a_state_that_is_no_json_does_not_end_the_wait(router):
    assert call(router, "progress_that_is_no_json", 0.3).json() == "done"


def test_an_end_that_cannot_be_read_is_unknown(router):
    answer = call(router, "not_json_number")
    assert answer.status_code == 502 and "cannot be read" in answer.json()["detail"]
    assert router.wait_outcomes()[0]["result"] == "unknown"


@pytest.mark.parametrize("kind,text", [
    ("os", "[Errno 2] No such file or directory"), ("file", "[Errno 2] No such file or directory: '/nowhere'"),
    ("command", "Command '['false']' returned non-zero exit status 1."), ("two", "('a', 'b')"),
    ("custom", "told: 5"), ("unpickleable", "Custom('custom message')"), ("number", "5"), ("plain", "plain: text"),
    ("cause", "second"),
])
def test_exceptions_read_as_python_prints_them(router, kind, text):
    answer = call(router, "raise_it", kind)
    assert (answer.status_code, answer.json()["detail"]) == (500, text)


def test_pickled_states_do_not_end_the_wait(start, own_redis, workers):
    workers(own_redis.url(), conf={"result_serializer": "pickle", "accept_content": ["json", "pickle"]})
    router = start_router(start, start.origin(), own_redis.url(), tasks={"simulate_work": TASKS["simulate_work"], **tasks()})
    answer = call(router, "simulate_work", 1)
    assert answer.status_code == 502, answer.text
    assert json.loads(answer.text)["title"] == "Result unreadable"
    row = router.wait_outcomes()[0]
    assert row["result"] == "unknown" and row["latency_us"] > 900000, "STARTED came first, and was no end"
