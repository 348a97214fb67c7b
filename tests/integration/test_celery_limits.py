"""Celery's own limits, met by real workers: expiry, time limits, revocation of what runs, priorities."""
import time

import requests

from celery_router import TASKS, call, start_router
from http_text import PATIENCE, wait_until

ASYNC = {"Prefer": "respond-async"}


def later(router, task, *args):
    """The address of the state of a task that was answered with 202."""
    answer = call(router, task, *args, headers=ASYNC)
    assert answer.status_code == 202, answer.text
    return "http://127.0.0.1:%d%s" % (router.port, answer.headers["Location"])


def state(url):
    return requests.get(url, timeout=PATIENCE).json()


def ended(url):
    return wait_until(lambda: (lambda s: s if s["status"] in ("completed", "failed") else None)(state(url)), "the task's end")


def running(url):
    return wait_until(lambda: (lambda s: s if s["status"] == "running" else None)(state(url)), "the task to run")


def asynchronous(name, **more):
    return {name: {**TASKS[name], "respond_async": True, **more}}


def test_a_task_that_is_not_begun_in_time_expires(start, own_redis, workers):
    router = start_router(start, start.origin(), own_redis.url(), tasks=asynchronous("count_up", expires="200ms"))
    sent = time.monotonic()
    url = later(router, "count_up", "counter")
    assert state(url)["status"] == "pending"
    wait_until(lambda: time.monotonic() - sent > 0.2, "the task's time to be over")
    workers(own_redis.url())
    end = ended(url)
    assert (end["status"], end["error"]) == ("failed", "expired")
    assert own_redis.client().get("counter") is None, "it was not run"


def test_the_hard_limit_ends_a_task(start, own_redis, workers):
    """`task_timeout` is Celery's time_limit: the pool's process is killed, and the caller hears why."""
    workers(own_redis.url(), pool="prefork", concurrency=1)
    router = start_router(start, start.origin(), own_redis.url(), tasks={"simulate_work": {**TASKS["simulate_work"], "task_timeout": "1s"},
                                                                        "add_numbers": TASKS["add_numbers"]})
    answer = call(router, "simulate_work", 60)
    assert answer.status_code == 500 and answer.json()["detail"] == "timed out after 1 s", answer.text
    assert router.wait_outcomes()[0]["result"] == "failure"
    assert call(router, "add_numbers", 1, 2).json() == 3, "another process of the pool takes its place"


def test_the_soft_limit_of_a_worker_is_a_failure_that_says_so(start, own_redis, workers):
    workers(own_redis.url(), pool="prefork", concurrency=1, conf={"task_soft_time_limit": 1})
    router = start_router(start, start.origin(), own_redis.url())
    answer = call(router, "simulate_work", 60)
    assert answer.status_code == 500 and answer.json()["detail"] == "timed out", answer.text


def test_terminate_ends_what_runs(start, own_redis, workers):
    router = start_router(start, start.origin(), own_redis.url(), tasks=asynchronous("simulate_work"), terminate="true")
    workers(own_redis.url(), pool="prefork", concurrency=1)
    url = later(router, "simulate_work", 60)
    running(url)
    assert requests.delete(url, timeout=PATIENCE).status_code == 202
    end = ended(url)
    assert (end["status"], end["error"]) == ("failed", "terminated")


def test_without_terminate_what_runs_comes_to_its_end(start, own_redis, workers):
    """A revocation is a request: a worker that has begun the task goes on."""
    router = start_router(start, start.origin(), own_redis.url(), tasks=asynchronous("simulate_work"))
    worker = workers(own_redis.url(), pool="prefork", concurrency=1)
    url = later(router, "simulate_work", 5)  # long enough to be seen while it runs
    running(url)
    assert requests.delete(url, timeout=PATIENCE).status_code == 202
    wait_until(lambda: "revoked" in worker.log(), "the worker to have heard of it")
    assert ended(url)["status"] == "completed"


def test_priorities_are_those_of_celery_over_redis(start, own_redis, workers):
    """Its lists are taken in the order of their steps, and 0 is the first: a larger number waits longer."""
    tasks = {**asynchronous("count_up"), **{"p%d" % p: {**asynchronous("count_up")["count_up"], "priority": p} for p in (9, 6, 3)}}
    router = start_router(start, start.origin(), own_redis.url(), tasks=tasks)
    urls = {p: later(router, "p%d" % p if p else "count_up", "order") for p in (9, 6, 3, 0)}
    workers(own_redis.url(), pool="solo", conf={"worker_prefetch_multiplier": 1})
    assert {p: ended(url)["result"] for p, url in urls.items()} == {0: 1, 3: 2, 6: 3, 9: 4}
