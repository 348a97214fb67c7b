"""Moving an operation from one backend to another is a change of a flag, with the percentages, the stickiness and the report that moving it
from legacy to tasks has. Redis, Celery and its worker are real; Hatchet is the stand-in, or real where its token is set."""
import collections
import concurrent.futures
import contextlib
import json
import os
import statistics
import threading
import time
import uuid

import pytest

import configuration as c
import core_tasks
from celery_redis import Redis
from celery_worker import Worker
from hatchet import Engine
from hatchet_real import TOKEN, Server
from hatchet_real import Worker as HatchetWorker
from http_text import PATIENCE, wait_until
from raw import ask, request

USERS = ["user-%d" % n for n in range(40)]


class Celery:
    name = "celery"

    def __init__(self, folder):
        self.folder, self.redis = str(folder), Redis(folder)
        self.worker = Worker(folder, self.redis.url(0), self.redis.url(1))
        self.env = {"CELERY_BROKER_URL": self.redis.url(0), "CELERY_RESULT_BACKEND": self.redis.url(1)}

    def close(self):
        self.worker.kill()
        self.redis.stop()


class StandIn:
    name = "hatchet"

    def __init__(self, folder):
        self.folder = core_tasks.RUNS = str(folder)  # its worker is in this process
        self.engine = Engine({"count_workflow": lambda run: {"count": core_tasks.count(*run.input["args"])}})
        self.env = {"HATCHET_CLIENT_TOKEN": self.engine.token()}

    def close(self):
        self.engine.stop()


class Real:
    name = "hatchet"

    def __init__(self, folder):
        self.folder, server = str(folder), Server()
        self.env = server.environment
        self.worker = HatchetWorker(folder, server)

    def close(self):
        self.worker.stop()


@pytest.fixture(scope="module")
def celery(tmp_path_factory):
    engine = Celery(tmp_path_factory.mktemp("celery"))
    yield engine
    engine.close()


@pytest.fixture(scope="module", params=[StandIn, Real], ids=["stand-in", "real"])
def hatchet(request, tmp_path_factory):
    if request.param is Real and not TOKEN:
        pytest.skip("HATCHET_CLIENT_TOKEN is not set: no real Hatchet engine to run against")
    engine = request.param(tmp_path_factory.mktemp("hatchet"))
    yield engine
    engine.close()


def lines(engine):
    """What its worker has run, a key each time."""
    path = os.path.join(engine.folder, "runs")
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as file:
        return file.read().split("\n")[:-1]


def count(**more):
    return {"name": "count", "args": [{"$ref": "body:/key"}], "timeout": "30s", **more}


def ask_for(router, target, user, key):
    return ask(router.port, request("POST", target, [("Content-Type", "application/json"), ("X-User-Id", user)],
                                    b'{"key": "%s"}' % key.encode()))


# --- three ways to say it ---------------------------------------------------------------------------------------------------

class Way:
    """flag(percentage): the flag that sends so many to Hatchet. `flags` of the operation that moves; `lift` is an operation that the same
    flag moves from legacy to tasks."""

    def __init__(self, key, flag, variants=None):
        self.key, self.flag = key, flag
        self.flags = ["task_abstraction_enabled"] + ([key] if variants else [])
        self.lift = c.operation("POST /lift", count(), flags=[key], identity=c.IDENTITY, **({"variants": variants} if variants else {}))

    def features(self, percentage, probe=False):
        return c.features(c.boolean("task_abstraction_enabled", True), c.boolean("probe", probe), self.flag(percentage),
                          segments=[c.everybody()])


def by_attachment(percentage):
    flag = c.variants("engine", old=100 - percentage, new=percentage)
    for variant, backend in zip(flag["variants"], ("celery", "hatchet")):
        variant["attachment"] = {"backend": backend}
    return flag


WAYS = {
    "flag": Way("hatchet_backend_enabled", lambda p: c.boolean("hatchet_backend_enabled", False, p)),
    "variant": Way("engine", lambda p: c.variants("engine", celery=100 - p, hatchet=p), {"celery": "legacy", "hatchet": "task"}),
    "attachment": Way("engine", by_attachment, {"old": "legacy", "new": "task"}),
}


class World:
    def __init__(self, start, way, celery, hatchet, threads):
        self.start, self.way, self.engines = start, way, (celery, hatchet)
        self.origin = start.origin()
        self.origin.answers(200, [("Content-Type", "application/json")], b'"legacy"')
        operations = {"move": c.operation("POST /move", count(), flags=way.flags, identity=c.IDENTITY), "lift": way.lift,
                      "probe": c.operation("POST /probe", count(), flags=["probe"])}
        config = c.router({"app": c.service(self.origin, operations)}, backends={"celery": {}, "hatchet": {}}, threads=threads)
        self.router = start.router(config, way.features(0), env={"TASK_QUEUE_BACKEND": "celery", **celery.env, **hatchet.env})
        self.name, self.probe = uuid.uuid4().hex[:8], False

    def ran(self, engine):
        """Keys of this world that the engine's worker has run."""
        return [line for line in lines(engine) if line.startswith(self.name)]

    def set(self, percentage):
        """Until a thread that serves goes by it: another flag of the same file says so."""
        self.probe = not self.probe
        self.router.write_flags(self.way.features(percentage, self.probe))
        expected = b'"probe"' if self.probe else b'"legacy"'
        wait_until(lambda: ask_for(self.router, "/probe", "u", "probe").body == expected, "the flags to be in effect")

    def outcomes(self, n, where="1"):
        return self.router.wait_outcomes(n, "operation <> 'probe' AND " + where)

    def everybody(self, target, stage):
        """Asks once for each user: user → who ran it."""
        keys = ["%s-%s-%s" % (self.name, stage, user) for user in USERS]
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda user, key: ask_for(self.router, target, user, key), USERS, keys))
        runs, ran = [(e.name, collections.Counter(self.ran(e))) for e in self.engines], {}
        for user, key, answer in zip(USERS, keys, answers):
            names = [name for name, counted in runs for _ in range(counted[key])]
            assert answer.body == (b'"%s"' % key.encode() if names else b'"legacy"') and len(names) <= 1, (user, names, answer.body)
            ran[user] = names[0] if names else "legacy"
        return ran

    def report(self):
        told = self.start.run("migration-status", "--db", self.router.outcomes_path, "--json")
        assert told.returncode == 0, told.stderr
        return {o["operation"]: o for o in json.loads(told.stdout)["operations"]}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_moving_by_percentage_as_from_legacy(start, celery, hatchet, way):
    world = World(start, way, celery, hatchet, threads=1)

    def on(backend, ran):
        return {user for user, name in ran.items() if name == backend}
    stages = {}
    for n, percentage in enumerate((0, 50, 100, 0)):
        if n:
            world.set(percentage)
        moved = on("hatchet", world.everybody("/move", "move-%d" % n))
        lifted = world.everybody("/lift", "lift-%d" % n)
        assert set(USERS) - on("legacy", lifted) == moved, "the same users as from legacy"
        assert on("hatchet", world.everybody("/move", "again-%d" % n)) == moved, "and again the same"
        stages[n] = moved
    assert not stages[0] and not stages[3] and stages[2] == set(USERS)
    assert 0.25 < len(stages[1]) / len(USERS) < 0.75
    rows = world.outcomes(4 * 3 * len(USERS), "answered = 1")
    assert len(rows) == 4 * 3 * len(USERS) and {r["result"] for r in rows} == {"success"}
    moves = collections.Counter((r["side"], r["backend"]) for r in rows if r["operation"] == "move")
    assert moves == {("task", "celery"): 4 * len(USERS) + 2 * (len(USERS) - len(stages[1])),
                     ("task", "hatchet"): 2 * len(USERS) + 2 * len(stages[1])}
    wait_until(lambda: world.report().get("move", {}).get("executions") == 8 * len(USERS), "the report to have all")
    told = world.report()["move"]
    for backend in ("celery", "hatchet"):
        side = told["backends"][backend]
        assert side["executions"] == moves["task", backend] and side["success_rate"] == 1
        assert abs(side["share"] - moves["task", backend] / (8 * len(USERS))) < 1e-5
    text = start.run("migration-status", "--db", world.router.outcomes_path).stdout
    assert "\n  celery " in text and "\n  hatchet " in text


def test_nobody_is_answered_twice_while_the_flag_moves(start, celery, hatchet):
    """Requests run all the time while the percentage goes up and down."""
    world = World(start, WAYS["variant"], celery, hatchet, threads=2)
    ending, answers, lock = threading.Event(), {}, threading.Lock()

    def caller(number):
        n = 0
        while not ending.is_set():
            key = "%s-%d-%d" % (world.name, number, n)
            answer = ask_for(world.router, "/move", USERS[(number + 7 * n) % len(USERS)], key)
            with lock:
                answers[key] = answer.body
            n += 1

    def wait_more():
        with lock:
            goal = len(answers) + 40
        wait_until(lambda: len(answers) >= goal, "forty more answers")
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        callers = [pool.submit(caller, n) for n in range(8)]
        try:
            for percentage in (50, 100, 0, 100, 50, 0):
                world.set(percentage)
                wait_more()
        finally:
            ending.set()
        for one in callers:
            one.result(PATIENCE)
    rows = {r["task_id"]: r for r in world.outcomes(len(answers))}
    wrong = {key: answer for key, answer in answers.items() if answer != b'"%s"' % key.encode()}
    assert not wrong, (wrong, [r for r in rows.values() if r["result"] != "success"], world.router.log()[-2000:])
    ran = collections.Counter(line for e in world.engines for line in world.ran(e))
    assert not {key: n for key, n in ran.items() if n != 1} and set(ran) == set(answers)
    assert not any(r.head.first.split()[1] == "/move" for r in world.origin.requests)
    assert all(world.ran(e) for e in world.engines)
    assert len(rows) == len(answers)


# --- one that is away ---------------------------------------------------------------------------------------------------------

def durations(router, target, n, name):
    took = []
    for i in range(n):
        begin = time.monotonic()
        answer = ask_for(router, target, "u", "%s-%d" % (name, i))
        took.append(time.monotonic() - begin)
        assert answer.status == 200 and answer.body in (b'"%s-%d"' % (name.encode(), i), b'"Echo: %s-%d"' % (name.encode(), i))
    return took


def check_not_slowed(router, kill):
    """The requests of /alive take as long beside a dead backend as beside a live one, while others ask for the dead one all the time."""
    before = durations(router, "/alive", 40, "before")
    kill()
    ending = threading.Event()

    def knock():
        n = 0
        while not ending.is_set() or n == 0:
            assert ask_for(router, "/dead", "u", "dead").body == b'"legacy"'
            n += 1
        return n
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        knocking = [pool.submit(knock) for _ in range(2)]
        try:
            after = durations(router, "/alive", 40, "after")
        finally:
            ending.set()
        assert all(one.result(PATIENCE) > 0 for one in knocking)
    assert statistics.median(after) < 3 * statistics.median(before) + 0.3, (before, after)
    assert sorted(after)[35] < 3 * sorted(before)[35] + 0.5, (before, after)  # what waits for the dead one waits for seconds


def front(start, alive, dead, env, **backends):
    origin = start.origin()
    origin.answers(200, [("Content-Type", "application/json")], b'"legacy"')
    config = c.router({"app": c.service(origin, {"alive": c.operation("POST /alive", alive), "dead": c.operation("POST /dead", dead)})},
                      backends=backends)
    return start.router(config, c.features(c.boolean("task_abstraction_enabled", True)), env=env)


def test_dead_redis_does_not_slow_hatchet(start, hatchet, tmp_path):
    with contextlib.closing(Celery(tmp_path)) as celery:
        router = front(start, count(backend="hatchet"), count(backend="celery"), {**celery.env, **hatchet.env}, celery={}, hatchet={})
        assert ask_for(router, "/dead", "u", "first").body == b'"first"', "alive at first"
        check_not_slowed(router, celery.close)


def test_dead_hatchet_does_not_slow_embedded(start, tmp_path):
    with contextlib.closing(StandIn(tmp_path)) as hatchet:
        router = front(start, {"name": "echo", "args": [{"$ref": "body:/key"}]}, count(backend="hatchet"), hatchet.env, hatchet={},
                       **c.embedded(tasks=None))
        start.worker(router)
        assert ask_for(router, "/dead", "u", "first").body == b'"first"', "alive at first"
        check_not_slowed(router, hatchet.close)
