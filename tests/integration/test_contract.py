"""One contract over every backend: the same YAML but one variable, real routers, workers of the existing convention.

A caller must not be able to tell which backend has run its task. Hatchet is the stand-in made of recordings; the others are real.
"""
import concurrent.futures
import json
import os
import sys
import threading
import time

import pytest

import configuration as c
import temporal_server
from hatchet import Engine, Failed
from http_text import PATIENCE, wait_until
from programs import need_backend
from raw import ask, request

GIVE_BACK = "import json, sys; print(json.dumps(json.load(sys.stdin)['args'][0]))"
FAIL = "import json, sys; sys.exit(json.load(sys.stdin)['args'][0])"
SIZE = "import json, sys; print(len(json.load(sys.stdin)['args'][0]))"
EMBEDDED_TASKS = {"tasks": [{"name": n, "builtin": n} for n in ("add_numbers", "simulate_work")] +
                  [{"name": n, "exec": {"argv": [sys.executable, "-c", code]}}
                   for n, code in (("give_back", GIVE_BACK), ("fail", FAIL), ("give_size", SIZE))]}


def task(name, **more):
    return {"name": name, "args": {"$ref": "body:/args"}, "timeout": "40s", **more}


OPERATIONS = {
    "add": c.operation("POST /add", task("add_numbers")),
    "back": c.operation("POST /back", task("give_back")),
    "size": c.operation("POST /size", task("give_size")),
    "fail": c.operation("POST /fail", task("fail")),
    "later": c.operation("POST /later", task("simulate_work", respond_async=True)),
    "short": c.operation("POST /short", task("simulate_work", timeout="500ms")),
    "nobody": c.operation("POST /nobody", task("unheard_of", timeout="5s", task_timeout="2s")),
}


# --- engines: how each is started, and the variables that lead to it ----------------------------------------------------

class Embedded:
    name = "embedded"

    def __init__(self, start, _tmp, worker):
        self.start, self.wanted, self.env = start, worker, {}

    def begin(self, router):
        self.router = router
        if self.wanted:
            self.start.worker(router)

    def stop(self):
        pass


class Celery:
    name = "celery"

    def __init__(self, _start, tmp, worker):
        need_backend(self.name)
        pytest.importorskip("celery")
        from celery_redis import Redis
        from celery_worker import Worker
        self.redis = Redis(tmp)
        self.worker = Worker(tmp, self.redis.url(0), self.redis.url(1)) if worker else None
        self.env = {"CELERY_BROKER_URL": self.redis.url(0), "CELERY_RESULT_BACKEND": self.redis.url(1)}

    def begin(self, router):
        pass

    def gone(self):
        self.redis.stop()

    def stop(self):
        if self.worker:
            self.worker.kill()
        self.redis.stop()


class Temporal:
    name = "temporal"

    def __init__(self, _start, tmp, worker):
        need_backend(self.name)
        program, why = temporal_server.find()
        if not program:
            pytest.skip(why)
        self.server = temporal_server.Server(tmp)
        self.worker = temporal_server.Worker(tmp, self.server, "contract") if worker else None
        self.env = {"TEMPORAL_HTTP_URL": self.server.url, "TEMPORAL_TASK_QUEUE": "contract"}

    def begin(self, router):
        pass

    def gone(self):
        self.server.kill()

    def stop(self):
        if self.worker:
            self.worker.stop()
        self.server.stop()


class Hatchet:
    name = "hatchet"

    def __init__(self, _start, _tmp, worker):
        need_backend(self.name)
        def of(name, function):
            return name + "_workflow", lambda run: {name: function(*run.input["args"])}
        self.ending, self.away = threading.Event(), False
        self.engine = Engine(dict([of("add_numbers", lambda a, b: a + b), of("give_back", lambda v: v), of("give_size", len),
                                   of("fail", self.fail), of("simulate_work", self.work)]) if worker else {})
        self.env = {"HATCHET_CLIENT_TOKEN": self.engine.token()}

    @staticmethod
    def fail(message):
        raise Failed(message)

    def work(self, seconds):
        self.ending.wait(seconds)
        return {"status": "completed"}

    def begin(self, router):
        pass

    def gone(self):
        self.engine.stop()
        self.away = True

    def stop(self):
        self.ending.set()
        if not self.away:
            self.engine.stop()


ENGINES = [Embedded, Celery, Temporal, Hatchet]


class World:
    def __init__(self, start, tmp, kind, worker=True):
        self.engine = kind(start, tmp, worker)
        self.origin = start.origin()
        self.origin.answers(200, [("Content-Type", "application/json")], b'"legacy"')
        folder = str(start.folder())
        with open(os.path.join(folder, "tasks.yml"), "w", encoding="utf-8") as file:
            json.dump(EMBEDDED_TASKS, file)
        # The same for every backend.
        config = c.router({"app": c.service(self.origin, OPERATIONS, limits={"max_body": "16MiB"})}, backends=c.embedded(),
                          identity=c.IDENTITY)
        flags = c.features(c.boolean("task_abstraction_enabled", True))
        self.router = start.router(config, flags, folder=folder, env={"TASK_QUEUE_BACKEND": kind.name, **self.engine.env})
        self.engine.begin(self.router)

    def post(self, path, args, **fields):
        body = args if isinstance(args, bytes) else json.dumps({"args": args}, ensure_ascii=False).encode()
        named = [("Content-Type", "application/json"), ("X-User-Id", "u")] + [(n.replace("_", "-"), v) for n, v in fields.items()]
        return ask(self.router.port, request("POST", path, named, body))

    def state(self, location, method="GET"):
        return ask(self.router.port, request(method, location, [("X-User-Id", "u")]))

    def ended(self, location):
        def told():
            state = json.loads(self.state(location).body)
            return state if state["status"] in ("completed", "failed") else None
        return wait_until(told, "the task's end", PATIENCE * 2)


@pytest.fixture(scope="module", params=ENGINES, ids=lambda kind: kind.name)
def world(request, tmp_path_factory):  # pylint: disable=redefined-outer-name
    from conftest import Started
    started = Started(tmp_path_factory)
    one = World(started, tmp_path_factory.mktemp("engine"), request.param)
    yield one
    started.end()
    one.engine.stop()


@pytest.fixture
def make(start, tmp_path):
    made = []

    def make_one(kind, **how):
        made.append(World(start, tmp_path, kind, **how))
        return made[-1]
    yield make_one
    for one in made:
        one.engine.stop()


def test_result(world):
    answer = world.post("/add", [2, 3], X_Request_ID="contract-result")
    assert (answer.status, answer.body, answer.get("Content-Type")) == (200, b"5", "application/json")
    row = world.router.wait_outcomes(1, "request_id = 'contract-result'")[0]
    assert (row["side"], row["result"], row["backend"]) == ("task", "success", world.engine.name)


def test_failure_tells_the_real_message(world):
    answer = world.post("/fail", ["the model is away"])
    assert answer.status == 500 and "the model is away" in json.loads(answer.body)["detail"]


def test_time_limit(world):
    answer = world.post("/short", [3], X_Request_ID="contract-short")
    assert answer.status == 504
    row = world.router.wait_outcomes(1, "request_id = 'contract-short'")[0]
    assert row["result"] == "timeout" and row["task_id"]


def test_asynchronous_and_its_states(world):
    answer = world.post("/later", [0.2], Prefer="respond-async")
    assert answer.status == 202
    assert world.ended(answer.get("Location"))["status"] == "completed"


def test_a_task_that_nobody_knows_is_no_success(world):
    answer = world.post("/nobody", ["x"])
    assert answer.status in (500, 504) or answer.body == b'"legacy"', "an error, or provably not accepted: legacy"


def test_large_input(world):
    assert world.post("/size", ["x" * (1 << 20)]).body.strip() == b"1048576"


@pytest.mark.parametrize("value", ["é😀 ”quoted”\\ \n", "", {"ключ": ["値", None, True]}, "\x7f\u2028"])
def test_unicode(world, value):
    assert json.loads(world.post("/back", [value]).body) == value


@pytest.mark.parametrize("text", [b"9007199254740993", b"1.0", b"-0.5", b"[1.0,1]"])
def test_numbers(world, text):
    answer = world.post("/back", b'{"args": [' + text + b"]}")
    if world.engine.name == "hatchet":  # it reads them into doubles: 1.0 is 1 behind it, and what it would round goes to legacy
        assert answer.body == b'"legacy"' if text == b"9007199254740993" else json.loads(answer.body) == json.loads(text)
    else:
        assert answer.status == 200 and answer.body.replace(b" ", b"").strip() == text


def test_the_same_request_id_twice_is_two_requests(world):
    answers = [world.post("/add", [n, n], X_Request_ID="contract-twice") for n in (1, 2)]
    assert [a.body for a in answers] == [b"2", b"4"], "a caller's id never gives another call's result"


def test_two_hundred_at_once(world):
    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda n: world.post("/add", [n, 1]), range(200)))
    assert [a.status for a in answers] == [200] * 200
    assert [a.body for a in answers] == [b"%d" % (n + 1) for n in range(200)]
    assert not any(r.head.first.split()[1] == "/add" for r in world.origin.requests)


@pytest.mark.parametrize("kind", ENGINES, ids=lambda kind: kind.name)
def test_cancel_before_anybody_runs_it(make, kind):
    world = make(kind, worker=False)
    answer = world.post("/later", [1], Prefer="respond-async")
    if answer.status != 202:  # Hatchet knows no workflow without a worker that registered it
        assert kind is Hatchet and answer.body == b'"legacy"'
        return
    location = answer.get("Location")
    assert json.loads(world.state(location).body)["status"] == "pending" or kind is Temporal
    cancelled = world.state(location, "DELETE").status
    if kind is Celery:  # a revoke is heard by workers only, and without one that is said
        assert cancelled == 503
        return
    assert cancelled in (200, 202, 204) and world.ended(location)["status"] == "failed"


@pytest.mark.parametrize("kind", [Celery, Temporal, Hatchet], ids=lambda kind: kind.name)
def test_engine_gone(make, kind):
    world = make(kind)
    assert world.post("/add", [1, 1]).body == b"2"
    world.engine.gone()
    began = time.monotonic()
    answer = world.post("/add", [1, 2])
    assert (answer.status, answer.body) == (200, b'"legacy"') or answer.status == 504
    for _ in range(3):  # by now it is known to be away
        assert world.post("/add", [1, 2]).body == b'"legacy"'
    assert time.monotonic() - began < 30


def test_embedded_is_not_slowed_by_a_backend_that_is_away(start):
    need_backend("celery")
    folder = str(start.folder())
    with open(os.path.join(folder, "tasks.yml"), "w", encoding="utf-8") as file:
        json.dump(EMBEDDED_TASKS, file)
    config = c.router({"app": c.service(start.origin(), OPERATIONS)}, identity=c.IDENTITY, backend="embedded",
                      backends={**c.embedded(), "celery": {"broker_url": "redis://127.0.0.1:1/0"}})
    router = start.router(config, c.features(c.boolean("task_abstraction_enabled", True)), folder=folder)
    start.worker(router)
    for n in range(20):
        began = time.monotonic()
        assert ask(router.port, request("POST", "/add", [("X-User-Id", "u")], b'{"args":[%d,1]}' % n)).body == b"%d" % (n + 1)
        assert time.monotonic() - began < 2


@pytest.mark.parametrize("kind", ENGINES, ids=lambda kind: kind.name)
def test_unknown_backend_lists_what_exists(start, kind, tmp_path):
    need_backend(kind.name)
    config = c.router({"app": c.service("http://127.0.0.1:1", OPERATIONS)}, backends=c.embedded())
    path = tmp_path / "router.yml"
    path.write_text(json.dumps(config))
    ended = start.run("migration-router", "check", path, env={"TASK_QUEUE_BACKEND": "ingest"})
    assert ended.returncode == 2 and "ingest" in ended.stderr and kind.name in ended.stderr
