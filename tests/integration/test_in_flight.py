"""A second backend where the first has provably not accepted; and limits of requests in flight, by backend and organization."""
import concurrent.futures
import json
import re
import threading

import pytest

import configuration as c
from http_text import wait_until
from origin import hold
from raw import ask, request

FLAGS = c.features(c.boolean("task_abstraction_enabled", True))
TASKS = {"tasks": [{"name": "echo", "builtin": "add_numbers"}]}


def post(router, path, body=None, organization=None):
    fields = [("X-Organization-Id", organization)] if organization else []
    return ask(router.port, request("POST", path, fields, json.dumps(body if body is not None else {"args": [1, 2]}).encode()))


def metrics(router, name):
    text = ask(router.admin_port, request("GET", "/metrics")).body.decode()
    return {labels: float(value) for labels, value in re.findall(r"^%s\{([^}]*)\} (\S+)$" % name, text, re.MULTILINE)}


@pytest.fixture
def pool():
    with concurrent.futures.ThreadPoolExecutor(40) as executor:
        yield executor


@pytest.fixture
def legacy(start):
    origin = start.origin()
    origin.always(lambda x: (x.read_body(), x.answer(body=b'"legacy"')))
    return origin


# --- a second backend -----------------------------------------------------------------------------------------------------

def two_backends(start, legacy, redis, operations=None, worker=True, **celery):
    folder = start.folder()
    (folder / "tasks.yml").write_text(json.dumps({"tasks": [{"name": "add_numbers", "builtin": "add_numbers"}]}))
    task = {"name": "add_numbers", "args": {"$ref": "body:/args"}, "timeout": "20s", "backends": ["celery", "embedded"]}
    operations = operations(task) if operations else {"add": c.operation("POST /add", task)}
    backends = {**c.embedded(), "celery": {"when_not_ready": "submit", "broker_url": redis.url(), "command_timeout": "2s", "breaker": {
        "failures": 3, "silence": "300ms", "open_for": "1h"}, **celery}}
    router = start.router(c.router({"app": c.service(legacy, operations)}, backend="embedded", backends=backends, threads=1), FLAGS,
                          folder=folder)
    if worker:
        start.worker(router)
    return router


def attempts(router, n):
    return [(r["side"], r["backend"], r["role"], r["reason"], r["result"]) for r in router.wait_outcomes(n)]


def test_the_second_backend_serves_where_the_first_refused(start, legacy, own_redis):
    router = two_backends(start, legacy, own_redis)
    own_redis.stop()
    assert [post(router, "/add").body for _ in range(4)] == [b"3"] * 4
    refused = [("task", "celery", "primary", "flag", "failure"), ("task", "embedded", "fallback", "flag", "success")]
    assert attempts(router, 7) == refused * 3 + [("task", "embedded", "primary", "flag", "success")], "then the breaker is open"
    assert not legacy.requests and len(router.find("task_to_next_backend")) == 3
    told = start.run("migration-router", "explain", "--config", router.config_path, "--service", "app", "--operation", "add").stdout
    assert "backend    celery\n" in told and "else       embedded, if it has provably not accepted the task\n" in told


def test_what_may_have_been_accepted_goes_nowhere_else(start, legacy, own_redis, workers, pool):
    workers(own_redis.url())
    router = two_backends(start, legacy, own_redis)
    wait_until(lambda: post(router, "/add").body == b"3", "celery to serve")
    own_redis.pause()
    answers = [pool.submit(post, router, "/add") for _ in range(20)]
    statuses = [a.result().status for a in answers]
    assert (statuses.count(504), statuses.count(200)) == (3, 17)
    own_redis.go_on()
    assert not legacy.requests
    rows = router.wait_outcomes(statuses.count(504), "result = 'unknown'")
    assert {(r["backend"], r["http_status"]) for r in rows} == {("celery", 504)}
    ids = [r["request_id"] for r in rows]
    assert not [r for r in router.wait_outcomes(20) if r["request_id"] in ids and r["backend"] != "celery"]


def test_without_any_backend_legacy_serves(start, legacy, own_redis):
    router = two_backends(start, legacy, own_redis, worker=False)
    config = json.loads(open(router.config_path, encoding="utf-8").read())
    config["backends"]["embedded"]["when_not_ready"] = "legacy"
    router.write_config(config)
    router.signal(1)
    router.wait_event("reloaded")
    router.wait_event("backend_not_ready", backend="embedded")
    own_redis.stop()
    assert post(router, "/add").body == b'"legacy"'
    assert attempts(router, 2) == [("task", "celery", "primary", "flag", "failure"), ("legacy", "", "fallback", "flag", "success")]


def pinned(task):
    return {"start": c.operation("POST /start", task, pin={"group": "g", "role": "start", "key": "query:name"}),
            "more": c.operation("POST /more", task, pin={"group": "g", "role": "follow", "key": "query:name"})}


def test_a_follow_up_stays_where_its_start_went(start, legacy, own_redis):
    router = two_backends(start, legacy, own_redis, pinned)
    port = own_redis.port
    own_redis.stop()
    assert post(router, "/start?name=a").body == b"3", "the second backend has it, and the ledger says so"
    own_redis.port = port
    own_redis.start()
    assert post(router, "/more?name=a").body == b"3"
    rows = router.wait_outcomes(3)
    assert [(r["backend"], r["reason"]) for r in rows] == [("celery", "flag"), ("embedded", "flag"), ("embedded", "pinned")]


# --- limits of a backend ---------------------------------------------------------------------------------------------------

def test_beyond_a_backends_limit_legacy_serves_and_pinned_calls_are_shed(start, legacy, own_redis, pool, workers):
    router = two_backends(start, legacy, own_redis, lambda task: pinned({**task, "backends": ["celery"]}), worker=False,
                          max_in_flight=2, breaker="off")
    zero = {'backend="celery"': 0, 'backend="embedded"': 0}
    assert metrics(router, "migration_backend_in_flight") == metrics(router, "migration_backend_full_total") == zero
    assert set(metrics(router, "migration_shed_total").values()) == {0}
    waiting = [pool.submit(post, router, "/start?name=n%d" % n) for n in range(2)]
    wait_until(lambda: metrics(router, "migration_backend_in_flight")['backend="celery"'] == 2, "two to be in flight")
    assert post(router, "/start?name=n3").body == b'"legacy"'
    row = router.wait_outcomes(1)[0]
    assert (row["side"], row["role"], row["reason"], row["result"]) == ("legacy", "primary", "backend_busy", "success")
    wait_until(lambda: own_redis.client().llen("celery") == 2, "both to be submitted")
    shed = post(router, "/more?name=n0")
    assert (shed.status, shed.head.all("Retry-After")) == (503, ["1"])
    assert metrics(router, "migration_shed_total")['service="app",limit="backend"'] == 1
    assert metrics(router, "migration_backend_full_total")['backend="celery"'] == 2
    workers(own_redis.url())
    assert {w.result().body for w in waiting} == {b"3"}
    wait_until(lambda: metrics(router, "migration_backend_in_flight") == zero, "nothing to be in flight")
    assert post(router, "/more?name=n0").body == b"3"


# --- limits of an organization ---------------------------------------------------------------------------------------------

def test_an_organization_has_its_own_places(start, pool):
    origin, gate = start.origin(), threading.Event()
    origin.always(hold(gate, lambda x: (x.read_body(), x.answer(body=b"legacy"))))
    operations = {"x": {"match": "POST /x", "flags": ["off"], "identity": c.IDENTITY}}
    router = start.router(c.router({"app": c.service(origin, operations, limits={"max_in_flight_per_organization": 2})}), c.features(
        c.boolean("off", False)))
    waiting = [pool.submit(post, router, "/x", {}, "acme") for _ in range(2)]
    origin.wait_requests(2)
    shed = post(router, "/x", {}, "acme")
    assert (shed.status, shed.head.all("Retry-After")) == (503, ["1"]), shed.body
    assert metrics(router, "migration_shed_total")['service="app",limit="organization"'] == 1
    row = router.wait_outcomes(1)[0]
    assert (row["result"], row["reason"], row["http_status"]) == ("rejected", "refused", 503), "its own doing, in no success rate"
    waiting += [pool.submit(post, router, "/x", {}, "other"), pool.submit(post, router, "/x", {}), pool.submit(post, router, "/y", {}, "acme")]
    origin.wait_requests(5)
    gate.set()
    assert {w.result().body for w in waiting} == {b"legacy"}
    assert post(router, "/x", {}, "acme").body == b"legacy"
