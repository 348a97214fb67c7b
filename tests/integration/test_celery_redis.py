"""What befalls Redis, and the results in it, while real Celery workers run the tasks of an operation."""
import concurrent.futures
import contextlib
import json
import socket
import time

import pytest

import configuration
from celery_redis import Redis
from celery_router import TASKS, call, readyz, start_router
from http_text import wait_until
from raw import ask, request
from test_celery_limits import asynchronous, ended, later, state


@pytest.fixture
def legacy(start):
    origin = start.origin()
    origin.always(lambda x: (x.read_body(), x.answer(body=b'"legacy"')))
    return origin


# --- other places in Redis ---------------------------------------------------------------------------------------------

def test_prefixes_of_keys(start, own_redis, workers):
    """global_keyprefix of broker and result backend, as several applications share one Redis by it."""
    workers(own_redis.url(), conf={"broker_transport_options": {"global_keyprefix": "shop:"},
                                   "result_backend_transport_options": {"global_keyprefix": "shop"}})
    router = start_router(start, start.origin(), own_redis.url(), broker_key_prefix="shop:", result_key_prefix="shop",
                          tasks={"add_numbers": {**TASKS["add_numbers"], "priority": 3}})
    assert call(router, "add_numbers", 1, 2).json() == 3
    wait_until(lambda: readyz(router)["worker"], "the worker to be seen")
    task_id = router.wait_outcomes()[0]["task_id"]
    assert own_redis.client().exists("shop_celery-task-meta-" + task_id)
    assert {key.decode().split(":")[0].split("_")[0] for key in own_redis.client().keys()} == {"shop"}


# --- a dead one beside a live backend ------------------------------------------------------------------------------------

@contextlib.contextmanager
def black_hole():
    """Connections are taken and nothing is ever said."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(64)
        yield sock.getsockname()[1]


@contextlib.contextmanager
def refusing():
    yield 1


@pytest.mark.parametrize("kind", [refusing, black_hole])
def test_a_dead_redis_does_not_slow_the_backend_beside_it(start, legacy, kind):
    with kind() as port:
        folder = start.folder()
        (folder / "tasks.yml").write_text(json.dumps({"tasks": [{"name": "add_numbers", "builtin": "add_numbers"}]}))
        mapped = {"name": "add_numbers", "args": {"$ref": "body:/args"}, "timeout": "20s"}
        config = configuration.router(
            {"s": configuration.service(legacy, {"live": configuration.operation("POST /live", {**mapped, "backend": "embedded"}),
                                                 "dead": configuration.operation("POST /dead", {**mapped, "backend": "celery"})})},
            backend="embedded", backends={**configuration.embedded(), "celery": {
                "when_not_ready": "submit", "broker_url": "redis://127.0.0.1:%d/0" % port, "connect_timeout": "2s", "command_timeout": "2s"}})
        router = start.router(config, configuration.features(configuration.boolean("task_abstraction_enabled", True)), folder=folder)
        start.worker(router)
        assert call(router, "live", 1, 2).json() == 3
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            dead = [pool.submit(call, router, "dead", 1, 2) for _ in range(8)]
            began = time.monotonic()
            assert [call(router, "live", n, 0).json() for n in range(20)] == list(range(20))
            assert time.monotonic() - began < 30, "20 waits of 2 s would be more"
            assert {d.result().text for d in dead} == {'"legacy"'}
        rows = router.wait_outcomes(8, "operation = 'dead' AND side = 'legacy'")
        assert {(row["role"], row["reason"], row["result"]) for row in rows} == {
            ("fallback", "flag", "success"), ("primary", "breaker_open", "success")}, "the first five were tried"
        health = json.loads(ask(router.admin_port, request("GET", "/readyz")).body)["backends"]
        assert {b["name"]: b["reachable"] for b in health} == {"embedded": True, "celery": False}


# --- between submission and result ---------------------------------------------------------------------------------------

@pytest.fixture
def durable(tmp_path):
    """A Redis that keeps what it has over a restart."""
    server = Redis(tmp_path, "--appendonly", "yes", "--appendfsync", "always")
    yield server
    server.stop()


def finish(server, task_id, result):
    """What a worker's result backend does: the key, and the word to who listens."""
    text = json.dumps({"status": "SUCCESS", "result": result, "traceback": None, "children": [], "task_id": task_id,
                       "date_done": "2026-01-31T08:15:00.123456+00:00"})
    server.client().set("celery-task-meta-" + task_id, text, ex=86400)
    return server.client().publish("celery-task-meta-" + task_id, text)


def queued_id(server):
    return json.loads(server.client().lrange("celery", 0, 0)[0])["headers"]["id"]


def test_a_result_written_while_the_router_could_not_hear(start, durable):
    """Redis restarts; the worker is back before the router, so that the word is lost and only the key tells."""
    router = start_router(start, start.origin(), durable.url(), tasks={"echo": TASKS["echo"]})
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(call, router, "echo", "x")
        wait_until(lambda: durable.client().llen("celery") == 1, "the task to be queued")
        task_id, port = queued_id(durable), durable.port
        durable.stop()
        durable.port = configuration.free_port()  # where the router does not look
        durable.start()
        assert finish(durable, task_id, "before") == 0, "nobody listens"
        durable.stop()
        durable.port = port
        durable.start()
        assert waiting.result().json() == "before"


def test_a_result_written_after_the_restart(start, durable):
    router = start_router(start, start.origin(), durable.url(), tasks={"echo": TASKS["echo"]})
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(call, router, "echo", "x")
        wait_until(lambda: durable.client().llen("celery") == 1, "the task to be queued")
        task_id = queued_id(durable)
        durable.stop()
        durable.start()
        channel = b"celery-task-meta-" + task_id.encode()
        wait_until(lambda: durable.client().pubsub_numsub(channel)[0][1] == 1, "the router to listen again")
        assert finish(durable, task_id, "after") == 1
        assert waiting.result().json() == "after"


# --- full, forgetful, elsewhere -------------------------------------------------------------------------------------------

def test_a_full_redis_is_legacys_turn(start, legacy, own_redis):
    """maxmemory with noeviction: the message is refused, which is provably not accepted."""
    router = start_router(start, legacy, own_redis.url())
    own_redis.client().config_set("maxmemory", "1")
    assert call(router, "add_numbers", 1, 2).text == '"legacy"'
    rows = router.wait_outcomes(2)
    assert [(r["side"], r["role"], r["result"]) for r in rows] == [("task", "primary", "failure"), ("legacy", "fallback", "success")]
    told = wait_until(lambda: (lambda b: b if not b["reachable"] else None)(readyz(router)), "health to see it")
    assert "OOM" in told["detail"]
    own_redis.client().config_set("maxmemory", "0")
    wait_until(lambda: readyz(router)["reachable"], "health to see that there is room again")
    assert own_redis.client().llen("celery") == 0


def test_a_result_that_has_expired_is_pending_again(start, own_redis, workers):
    """Celery cannot tell what is queued from what it has forgotten."""
    workers(own_redis.url(), conf={"result_expires": 1})
    router = start_router(start, start.origin(), own_redis.url(), tasks=asynchronous("add_numbers"))
    url = later(router, "add_numbers", 1, 2)
    wait_until(lambda: own_redis.client().llen("celery") == 0 and not own_redis.client().keys("celery-task-meta-*") and
               state(url)["status"] == "pending", "the result to expire")


def test_results_on_a_redis_that_goes_and_comes_back(start, legacy, own_redis, workers, tmp_path):
    """While results cannot be heard nothing is submitted whose end nobody would learn."""
    results = Redis(tmp_path)
    try:
        workers(own_redis.url(), results.url())
        router = start_router(start, legacy, own_redis.url(), results.url())
        assert call(router, "add_numbers", 1, 2).json() == 3
        results.stop()

        def told():
            return readyz(router)
        wait_until(lambda: not told()["reachable"] and "results cannot be received" in told()["detail"], "health to see it")
        wait_until(lambda: call(router, "add_numbers", 1, 2).text == '"legacy"', "a thread to know it")
        results.start()
        wait_until(lambda: call(router, "add_numbers", 1, 2).text == "3", "tasks to be submitted again")
        wait_until(lambda: told()["reachable"], "health to see that it is back")
    finally:
        results.stop()


# --- results that are no JSON ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize("conf,status,result", [({"result_serializer": "pickle", "accept_content": ["json", "pickle"]}, 502, "unknown"),
                                                ({"result_compression": "zlib"}, 504, "timeout")], ids=["pickle", "zlib"])
def test_a_result_in_another_form_says_so(start, own_redis, workers, conf, status, result):
    """Pickle still tells that it has ended; what is compressed does not."""
    workers(own_redis.url(), conf=conf)
    router = start_router(start, start.origin(), own_redis.url(), tasks={"add_numbers": {**TASKS["add_numbers"], "timeout": "2s" if status == 504 else "30s"}})
    assert call(router, "add_numbers", 1, 2).status_code == status
    assert router.wait_outcomes()[0]["result"] == result
    wait_until(lambda: any("only plain JSON can be read" in entry["missing"] for entry in json.loads(
        ask(router.admin_port, request("GET", "/readyz")).body)["registration"]), "the workers to have told it")
