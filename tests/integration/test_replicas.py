"""Replicas (design): three routers share their state in one Redis; what one of them began, all of them find."""
import datetime
import json
import os
import random
import re
import signal
import sys
import threading
import time

import pytest

import configuration as c
from balancer import Balancer
from celery_redis import Redis
from http_text import wait_until
from raw import ask, request
from test_pins import CONTAINER, FLAGS, LEGACY, RUNNING, SUCCESS, percent

REPLICAS = 3
# Of some names the start takes longer than another replica waits for its turn.
SLOW_CONTAINER = CONTAINER.replace('"x").close()', '"x").close(); name.startswith("slow") and __import__("time").sleep(2)')
PLAIN = "import json, sys; k = json.load(sys.stdin)['kwargs']; print(json.dumps({'status': 'PLAIN', 'n': k['n']}))"
COUNTED = "import json, os, sys, time; k = json.load(sys.stdin)['kwargs']; " \
    "os.write(os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT), (k['n'] + '\\n').encode()); time.sleep(0.3); " \
    "print(json.dumps({'n': k['n'], 'by': os.getpid()}))"
SLOW = "import json, sys, time; time.sleep(0.3); print(json.dumps({'status': 'LATER'}))"


class Replica:
    def __init__(self, world, name):
        self.world, self.folder = world, os.path.join(world.folder, name)
        os.mkdir(self.folder)
        self.config = world.config()
        self.router = self.worker = None

    def start(self):
        start = self.world.start
        self.router = start.router(self.config, self.world.flags, folder=self.folder)
        if not self.worker:
            self.worker = start.worker(self.router)

    def kill(self):
        self.router.kill()


class World:
    def __init__(self, start, *redis_arguments):
        self.start, self.origin, self.folder = start, start.origin(), str(start.folder())
        self.origin.answers(200, [("Content-Type", "application/json")], json.dumps(LEGACY).encode())
        self.redis = Redis(self.folder, *redis_arguments)
        self.containers = os.path.join(self.folder, "containers")
        os.mkdir(self.containers)
        programs = [(name, [SLOW_CONTAINER, verb, self.containers]) for name, verb in
                    (("run_container", "run"), ("get_container_status", "status"), ("remove_container", "remove"))]
        self.counted = os.path.join(self.folder, "counted")
        self.tasks = os.path.join(self.folder, "tasks.yml")
        with open(self.tasks, "w", encoding="utf-8") as file:
            json.dump({"tasks": [{"name": name, "exec": {"argv": [sys.executable, "-S", "-E", "-c", *argv]}}
                                 for name, argv in [*programs, ("plain", [PLAIN]), ("slow", [SLOW]), ("counted", [COUNTED, self.counted])]]}, file)
        self.flags = percent(100)
        self.balancer = Balancer()
        self.replicas = [Replica(self, "r%d" % i) for i in range(REPLICAS)]
        for replica in self.replicas:
            replica.start()
        self.balance()

    def balance(self):
        self.balancer.set(*(r.router.port for r in self.replicas))

    def config(self):
        def operation(match, task, key, role, **sections):
            name = {"container_name": {"$ref": key}}
            return c.operation(match, {"name": task, "kwargs": name, "timeout": "30s", **sections}, flags=FLAGS,
                               pin={"group": "container", "key": key, "role": role})
        operations = {
            "run": operation("POST /v1/api/container/run", "run_container", "body:/container_name", "start"),
            "run_status": operation("GET /v1/api/container/run-status", "get_container_status", "query:container_name", "follow",
                                    idempotent=True),
            "remove": operation("DELETE /v1/api/container/remove", "remove_container", "body:/container_name", "end"),
            "plain": c.operation("GET /plain", {"name": "plain", "kwargs": {"n": 1}, "timeout": "30s"}, flags=FLAGS),
            "counted": c.operation("POST /counted", {"name": "counted", "kwargs": {"n": {"$ref": "body:/n"}}, "timeout": "30s"}, flags=FLAGS,
                                   idempotency={"key": "accept"}),
            "slow": c.operation("POST /slow", {"name": "slow", "kwargs": {}, "timeout": "30s", "respond_async": True}, flags=FLAGS),
        }
        backends = c.embedded(self.tasks)
        backends["embedded"]["database"] = os.path.join(self.folder, "tasks.db")
        return c.router({"runner": c.service(self.origin, operations, entity=["organization"])}, backends=backends,
                        identity={"organization": ["header:X-Organization-Id"]}, state={"url": self.redis.url(3), "timeout": "1s"})

    def flip(self, percentage):
        """At all replicas, and in force when it returns."""
        self.flags = percent(percentage)
        for replica in self.replicas:
            before = len(replica.router.find("flags_published"))
            replica.router.write_flags(self.flags)
            replica.router.wait_event("flags_published", before + 1)

    def call(self, method, path, body=None, at=None, fields=()):
        port = self.balancer.port if at is None else self.replicas[at].router.port
        return ask(port, request(method, path, [("X-Organization-Id", "org-1"), *fields], body and json.dumps(body).encode()))

    def told(self, answer):
        assert answer.status == 200, answer
        return {"status": json.loads(answer.body)["status"]}

    def run(self, name, at=None):
        return self.told(self.call("POST", "/v1/api/container/run", {"container_name": name}, at))

    def status(self, name, at=None):
        return self.call("GET", "/v1/api/container/run-status?container_name=" + name, at=at)

    def remove(self, name, at=None):
        return self.told(self.call("DELETE", "/v1/api/container/remove", {"container_name": name}, at))

    def metric(self, at, name):
        text = ask(self.replicas[at].router.admin_port, request("GET", "/metrics")).body.decode()
        return next(float(line.split()[1]) for line in text.split("\n") if line.startswith(name + " "))

    def ready(self, at):
        return json.loads(ask(self.replicas[at].router.admin_port, request("GET", "/readyz")).body)

    def stop(self):
        self.balancer.stop()
        self.redis.go_on()
        self.redis.stop()


@pytest.fixture
def world(start):
    world = World(start)
    yield world
    world.stop()


def test_every_follow_up_is_where_it_began_while_routers_are_killed_in_turn_and_flags_flip(world):
    began, chance = {}, random.Random(11)
    for turn in range(12):
        world.flip((0, 100)[turn % 2])
        for i in range(4):
            name = "c%d-%d" % (turn, i)
            began[name] = world.run(name)
            assert world.told(world.status(name)) == began[name], "at the next replica, at once"
        victim = world.replicas[turn % REPLICAS]
        victim.kill()
        for name in chance.sample(sorted(began), min(len(began), 10)):
            assert world.told(world.status(name)) == began[name]
        victim.start()
        world.balance()
    assert {"RUNNING", "LEGACY"} == {told["status"] for told in began.values()}
    for name, told in began.items():
        assert world.remove(name) == (SUCCESS if told == RUNNING else LEGACY)
        assert world.told(world.status(name)) == LEGACY, "removed, it is nobody's"
    runs = [json.loads(r.body)["container_name"] for r in world.origin.requests if r.target.endswith("/run")]
    assert sorted(runs) == sorted(n for n, told in began.items() if told == LEGACY), "once each, and only what began there"


def test_an_entry_is_seen_by_the_other_replicas_with_their_next_question(world):
    for i in range(30):
        assert world.run("x%d" % i, at=i % 3) == RUNNING
        assert world.told(world.status("x%d" % i, at=(i + 1) % 3)) == RUNNING
        assert world.remove("x%d" % i, at=(i + 2) % 3) == SUCCESS
        assert world.told(world.status("x%d" % i, at=i % 3)) == LEGACY
    assert world.redis.client(3).keys("migration-router:entry:*") == []


def test_a_name_that_legacy_starts_anew_at_another_replica_is_legacys(world):
    assert world.run("x", at=0) == RUNNING
    world.flip(0)
    assert world.run("x", at=1) == LEGACY
    assert world.told(world.status("x", at=2)) == LEGACY
    assert world.told(world.status("x", at=0)) == LEGACY


def test_of_two_starts_at_the_same_moment_on_two_sides_only_one_is_executed(world):
    """The flags of one replica have not changed yet."""
    replica = world.replicas[1]
    replica.router.write_flags(percent(0))
    replica.router.wait_event("flags_published", 2)
    both, release = threading.Barrier(2), threading.Event()
    world.origin.always(lambda x: (release.wait(20), x.answer(200, [("Content-Type", "application/json")], json.dumps(LEGACY).encode())))
    for i in range(6):
        name, told = "slow-%d" % i, {}

        def begin(at, name=name, told=told):
            both.wait()
            told[at] = world.call("POST", "/v1/api/container/run", {"container_name": name}, at=at)
            if told[at].status == 409:
                release.set()  # the other one may end
        release.clear()
        callers = [threading.Thread(target=begin, args=(at,)) for at in (0, 1)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join(30)
        assert sorted(a.status for a in told.values()) == [200, 409], told
        winner = next(at for at, a in told.items() if a.status == 200)
        assert told[1 - winner].get("Retry-After")
        on_task, on_legacy = name in os.listdir(world.containers), any(name.encode() in r.body for r in world.origin.requests)
        assert (on_task, on_legacy) == ((True, False) if winner == 0 else (False, True)), "once"
        for at in range(REPLICAS):
            release.set()
            assert world.told(world.status(name, at=at)) == (RUNNING if winner == 0 else LEGACY)


def test_an_idempotency_key_is_one_execution_and_one_answer_at_all_replicas(world):
    def call(key, n, at):
        return world.call("POST", "/counted", {"n": n}, at=at, fields=[("Idempotency-Key", '"%s"' % key)])

    first = call("k", "a", 0)
    assert first.status == 200, first.body
    for at in (1, 2, 0):
        again = call("k", "a", at)
        assert (again.status, again.body) == (200, first.body)
    assert call("k", "another body", 1).status == 422
    told, together = {}, threading.Barrier(REPLICAS)

    def race(at):
        together.wait()
        told[at] = call("race", "b", at)
    callers = [threading.Thread(target=race, args=(at,)) for at in range(REPLICAS)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(30)
    assert sorted(a.status for a in told.values())[0] == 200 and {a.status for a in told.values()} <= {200, 409}, told
    winner = next(a for a in told.values() if a.status == 200)
    world.replicas[0].kill()
    for at in (1, 2):
        assert (call("race", "b", at).status, call("race", "b", at).body) == (200, winner.body)
        assert call("k", "a", at).body == first.body
    with open(world.counted, encoding="utf-8") as file:
        assert file.read() == "a\nb\n", "each once"
    world.redis.stop()
    world.replicas[1].router.wait_event("state_unavailable")
    assert refused(call("k", "a", 1)) and refused(call("new", "c", 1)), "whether it ran cannot be told"
    assert world.told(world.call("GET", "/plain", at=1)) == {"status": "PLAIN"}


@pytest.mark.parametrize("field, value", [("status", "99999"), ("status", "-1"), ("status", "100"), ("fields", "junk"),
                                          ("fields", "X-A\0without an end"), ("fields", "A\0b\0" * 1000)])
def test_a_damaged_answer_of_a_key_ends_no_router_and_its_backend_tells_it(world, field, value):
    call = {"at": 0, "body": {"n": "1"}, "fields": [("Idempotency-Key", '"damaged"')]}
    first = world.call("POST", "/counted", **call)
    store = world.redis.client(3)
    [claim] = [key for key in store.keys("*") if key.startswith(b"migration-router:claim:")]
    wait_until(lambda: store.hget(claim, "phase") == b"2", "the answer is kept")
    store.hset(claim, field, value)
    again = world.call("POST", "/counted", **{**call, "at": 2})
    assert (again.status, again.body) == (first.status, first.body) == (200, first.body)
    with open(world.counted, encoding="ascii") as file:
        assert file.read() == "1\n", "once"
    assert world.call("GET", "/plain", at=2).status == 200, "the router is there"


def test_half_an_entry_is_not_none(world):
    assert world.run("x", at=0) == RUNNING
    world.redis.client(3).hdel("migration-router:entry:9:container:x", "version")
    assert world.status("x", at=1).status == 503
    assert world.origin.requests == [], "legacy never hears of it"


def test_the_status_of_a_202_is_told_by_another_replica_and_only_to_its_owner(world):
    answer = world.call("POST", "/slow", {}, at=0, fields=[("Prefer", "respond-async")])
    assert answer.status == 202
    where = answer.get("Location")
    told = wait_until(lambda: (lambda a: a if b'"status":"completed"' in a.body else None)(world.call("GET", where, at=1)), "the result")
    assert told.status == 200 and b"LATER" in told.body
    stranger = ask(world.replicas[1].router.port, request("GET", where, [("X-Organization-Id", "org-2")]))
    assert stranger.status == 404
    world.replicas[0].kill()
    assert world.call("GET", where, at=2).status == 200


def refused(answer):
    assert answer.status == 503 and answer.get("Retry-After"), answer
    return True


@pytest.mark.parametrize("how", ["stopped", "frozen"])
def test_while_redis_cannot_be_asked_follow_ups_are_refused_starts_go_to_legacy_and_the_rest_goes_on(start, how):
    world = World(start, "--appendonly", "yes", "--appendfsync", "always")
    try:
        assert world.run("t", at=0) == RUNNING
        answer = world.call("POST", "/slow", {}, at=0, fields=[("Prefer", "respond-async")])
        where = answer.get("Location")
        (world.redis.pause if how == "frozen" else world.redis.stop)()
        began = time.monotonic()
        assert refused(world.status("t", at=1)), "within the timeout, also before anybody knew"
        assert time.monotonic() - began < 5
        for replica in world.replicas:
            replica.router.wait_event("state_unavailable")
        assert refused(world.status("t", at=0)) and refused(world.status("never-begun", at=1)) and refused(world.call("GET", where, at=2))
        assert world.run("u", at=1) == LEGACY
        row = world.replicas[1].router.wait_outcomes(1, "reason = 'state_unavailable'")[0]
        assert (row["side"], row["role"], row["result"]) == ("legacy", "primary", "success")
        assert world.told(world.call("GET", "/plain", at=2)) == {"status": "PLAIN"}
        assert world.metric(0, "migration_state_up") == 0 and world.metric(1, "migration_state_errors_total") > 0
        ready = world.ready(0)
        assert ready["ready"] and ready["status"] == "degraded" and ready["ledger"]["failing"]
        (world.redis.go_on if how == "frozen" else world.redis.start)()
        for replica in world.replicas:
            replica.router.wait_event("state_available")
        wait_until(lambda: world.metric(1, "migration_state_unwritten_removals") == 0, "what could not be removed to be removed")
        for at in range(REPLICAS):
            assert world.told(world.status("t", at=at)) == RUNNING
            assert world.told(world.status("u", at=at)) == LEGACY, "legacy has it, whatever was lying in the socket"
            assert world.metric(at, "migration_state_up") == 1
            assert len(world.replicas[at].router.find("state_unavailable")) == 1
            assert len(world.replicas[at].router.find("state_available")) == 1
        assert world.call("GET", where, at=2).status == 200
        assert world.run("v", at=1) == RUNNING and world.told(world.status("v", at=2)) == RUNNING
        runs = [json.loads(r.body)["container_name"] for r in world.origin.requests if r.target.endswith("/run")]
        assert runs == ["u"], "once"
        assert sorted(os.listdir(world.containers)) == ["t", "v"]
    finally:
        world.stop()


class GuardWorld(World):
    """Half of the entities go to tasks, and those with BAD numbers fail there; legacy answers all."""
    BAD, GOOD = b'{"a": "x", "b": {}}', b'{"a": 1, "b": 2}'

    def __init__(self, start):
        self.start, self.origin, self.folder = start, start.origin(), str(start.folder())
        self.redis = Redis(self.folder, "--appendonly", "yes", "--appendfsync", "always")
        self.tasks = os.path.join(self.folder, "tasks.yml")
        with open(self.tasks, "w", encoding="utf-8") as file:
            json.dump({"tasks": [{"name": "add_numbers", "builtin": "add_numbers"}]}, file)
        self.flags, self.users, self.failed = percent(50), 0, set()
        self.balancer = Balancer()
        self.replicas = [Replica(self, "r%d" % i) for i in range(REPLICAS)]
        for replica in self.replicas:
            replica.start()
        self.wait_known(*range(REPLICAS))

    def config(self):
        numbers = {"name": "add_numbers", "args": [{"$ref": "body:/a"}, {"$ref": "body:/b"}], "timeout": "20s"}
        backends = c.embedded(self.tasks)
        backends["embedded"]["database"] = os.path.join(self.folder, "tasks.db")
        return c.router({"app": c.service(self.origin, {"add": c.operation("POST /add", numbers, flags=FLAGS)})}, backends=backends,
                        identity={"user": ["header:X-User-Id"]}, guard="hold", state={"url": self.redis.url(3), "timeout": "1s"})

    def wait_known(self, *which):
        for at in which:
            wait_until(lambda at=at: self.ready(at)["guard"]["known"], "replica %d to know what holds" % at)

    def post(self, at, body=BAD, user=None):
        self.users += user is None
        user = user or "user-%d" % self.users
        answer = ask(self.replicas[at].router.port, request("POST", "/add", [("X-User-Id", user)], body))
        if answer.status != 200:
            self.failed.add(user)
        return answer

    def verdict(self, at):
        answer = ask(self.replicas[at].router.admin_port, request("GET", "/_admin/gate"))
        return json.loads(answer.body)["operations"][0]

    def held(self, at):
        return self.verdict(at)["held"]

    def break_at(self, *where):
        for i in range(90):
            if any(self.held(at) for at in where):
                return
            self.post(where[i % len(where)])
        wait_until(lambda: any(self.held(at) for at in where), "a breach")

    def all_wait(self, held):
        for at in range(REPLICAS):
            wait_until(lambda at=at: self.held(at) == held, "replica %d, held: %s" % (at, held))


@pytest.fixture
def guarded(start):
    world = GuardWorld(start)
    yield world
    world.stop()


def seconds(event):
    return datetime.datetime.fromisoformat(event["ts"].replace("Z", "+00:00")).timestamp()


def test_a_breach_found_by_one_holds_on_all_within_a_second_and_one_release_releases_all(guarded):
    guarded.post(0, user="twice"), guarded.post(1, user="twice"), guarded.post(2, user="twice")
    guarded.break_at(0, 1, 2)
    guarded.all_wait(True)
    when = [seconds(r.router.wait_event("guard_breach")) for r in guarded.replicas]
    assert max(when) - min(when) < 1, when
    for at in range(REPLICAS):
        for _ in range(10):
            assert guarded.post(at).status == 200, "everybody is legacy's"
    def bad(at):
        return guarded.verdict(at)["kinds"]["failure"]["bad_entities"]["task"]
    wait_until(lambda: 3 < bad(0) == bad(1) == bad(2) <= len(guarded.failed), "all of them to have each user who failed before the hold, once")
    guarded.replicas[0].kill()
    guarded.replicas[0].start()
    guarded.wait_known(0)
    assert guarded.held(0)
    released = ask(guarded.replicas[1].router.admin_port, request("POST", "/_admin/guard/release?operation=add&by=ann", (), b""))
    assert released.status == 202, released
    guarded.all_wait(False)
    assert {guarded.verdict(at)["began_because"] for at in range(REPLICAS)} == {"released manually: ann"}
    assert any(guarded.post(2).status != 200 for _ in range(40)), "tasks are asked again"


def test_without_redis_each_guard_goes_on_alone_and_what_it_found_is_everybodys_afterwards(guarded):
    guarded.redis.process.kill()
    guarded.redis.process.wait()
    for at in range(REPLICAS):
        wait_until(lambda at=at: not guarded.ready(at)["guard"]["shared"]["works"], "replica %d to notice" % at)
    guarded.break_at(1)
    assert not guarded.held(0) and not guarded.held(2)
    assert all(guarded.post(1).status == 200 for _ in range(10))
    guarded.replicas[1].kill()  # what it found is in its file
    guarded.replicas[1].start()
    assert all(guarded.post(1).status == 200 for _ in range(10)), "what it held it holds, and the rest is not known"
    assert not guarded.ready(1)["guard"]["known"]
    guarded.redis.start()
    guarded.all_wait(True)
    told = status(guarded.start, "--db", guarded.replicas[2].router.outcomes_path, "--gate")
    assert told.returncode == 1 and "as router " in told.stdout, told.stdout


def status(start, *arguments, env=None):
    return start.run("migration-status", *arguments, env=env)


def test_reports_of_several_routers_add_up_to_what_sqlite_counts(world):
    for turn in range(2):
        world.flip((0, 100)[turn])
        for i in range(10):
            world.run("s%d-%d" % (turn, i), at=i % 3 if i % 5 else 0)
            world.told(world.status("s%d-%d" % (turn, i), at=(i + turn) % 3))
    sql = "SELECT count(*) FROM attempts WHERE role != 'shadow' AND answered"
    wait_until(lambda: sum(r.router.query(sql.replace("count(*)", "count(*) AS n"))[0]["n"] for r in world.replicas) == 40, "40 outcomes")
    paths, urls = [], []
    for r in world.replicas:
        paths += ["--db", r.router.outcomes_path]
        urls += ["--router", "http://127.0.0.1:%d" % r.router.admin_port]
    report = None
    for sources in (paths, urls, paths[:2] + urls[2:]):
        told = status(world.start, *sources, "--json")
        assert told.returncode == 0, told.stderr
        one = json.loads(told.stdout)
        for now in ("generated_at", "level", "sentence", "command", "next", "standings"):  # of now, and of what is running
            one.pop(now, None)
        assert report in (None, one), "however they are asked"
        report = one
    assert report["total_executions"] == 40
    for side in ("legacy", "task"):
        n = sum(r.router.query("SELECT count(*) AS n FROM attempts WHERE answered AND side = ?", side)[0]["n"] for r in world.replicas)
        assert report["sides"][{"legacy": "legacy_services", "task": "task_abstraction"}[side]]["executions"] == n > 0
    for replica in world.replicas:
        replica.router.wait_worker()
    gate = status(world.start, *urls, "--gate", "--min-executions", "5", "--no-guard")
    assert gate.returncode == 0 and "Gate: healthy" in gate.stdout, gate.stdout + gate.stderr
    assert status(world.start, *urls[:2], "--gate", "--min-executions", "30", "--no-guard").returncode == 3, "one of them alone has too few"
    for twice in (paths[:2] + paths[:2], paths[:2] + ["--db", os.path.join(world.replicas[0].folder, "data", "..", "data", "outcomes.db")],
                  paths[:2] + urls[:2]):
        told = status(world.start, *twice)
        assert told.returncode == 1 and "is listed twice" in told.stderr
    world.replicas[1].kill()
    told = status(world.start, *urls, "--gate")
    assert told.returncode == 3 and "127.0.0.1:%d" % world.replicas[1].router.admin_port in told.stderr, "never the sum of those that are left"
    told = status(world.start, *urls, "--drain")
    assert told.returncode == 3 and "127.0.0.1:%d" % world.replicas[1].router.admin_port in told.stderr and not told.stdout
    assert status(world.start, *paths, "--drain").returncode == 1, "legacy was used"


def left_on_the_task_side(world):
    """What --drain task says of it, asked of all routers."""
    urls = [word for r in world.replicas for word in ("--router", "http://127.0.0.1:%d" % r.router.admin_port)]
    told = status(world.start, *urls, "--drain", "task", "--json")
    assert told.stdout, told.stderr
    ledger = json.loads(told.stdout)["ledger"]
    return {(e["what"], e["backend"]): e["count"] for e in ledger["entries"]}, ledger["error"], told.returncode


def test_what_a_rollback_would_leave_in_the_shared_redis_is_told_once(world):
    redis = world.redis.client(3)
    for i in range(7):
        assert world.run("left-%d" % i, at=i % 3) == RUNNING
    assert world.remove("left-3", at=1) == SUCCESS
    assert world.call("POST", "/slow", fields=[("Prefer", "respond-async")], at=2).status == 202
    for name in ("migration-router?:entry:9:container:x", "other:entry:9:container:x"):  # of other prefixes
        redis.hset(name, mapping={"backend": "embedded", "task": "x", "version": "v", "at": "1"})
    redis.hset("migration-router:claim:abc", mapping={"side": "0", "phase": "1", "backend": "embedded", "created": "1"})
    redis.hset("migration-router:claim:def", mapping={"side": "0", "phase": "2", "backend": "embedded", "created": "1"})
    redis.mset({"key-%d" % i: "x" for i in range(5000)})  # more than one look at the server's keys
    held, error, code = left_on_the_task_side(world)
    assert error is None
    assert held == {("pins of group container", "embedded"): 6, ("tasks answered with 202, running or to be asked for", "embedded"): 1,
                    ("calls with an Idempotency-Key whose task has not ended", "embedded"): 1}
    assert error is None and code == 1
    redis.set("migration-router:entry:9:container:odd", "of another type")
    held, error, code = left_on_the_task_side(world)
    assert held[("entries of (unusable keys)", None)] == 1 and held[("pins of group container", "embedded")] == 6 and code == 1
    world.redis.stop()
    for replica in world.replicas:
        replica.router.wait_event("state_unavailable")
    held, error, code = left_on_the_task_side(world)
    assert not held and "cannot be read" in error and "127.0.0.1:%d" % world.redis.port in error, error


def test_a_router_is_asked_with_the_token_that_it_wants(start):
    token = "a-token-of-the-admin-listener"
    config = c.passing(start.origin())
    config["admin"].update(auth="bearer", tokens="admin-tokens.txt")
    folder = start.folder()
    (folder / "admin-tokens.txt").write_text(c.sha256(token) + "\n")
    (folder / "token").write_text(token + "\n")
    router = start.router(config, folder=folder)
    assert ask(router.port, request()).status == 200
    router.wait_outcomes(1)
    url = ["--router", "http://127.0.0.1:%d/" % router.admin_port]
    refused = status(start, *url)
    assert refused.returncode == 1 and "401" in refused.stderr and "MIGRATION_ROUTER_TOKEN" in refused.stderr
    for how, env in (((), {"MIGRATION_ROUTER_TOKEN": token}), (("--router-token-file", str(folder / "token")), None)):
        told = status(start, *url, *how, env=env)
        assert told.returncode == 0 and "Left out, as they cannot move: 1 answer;" in told.stdout, told.stderr
    assert status(start, "--router-token-file", str(folder / "token")).returncode == 2, "without a router it would be ignored"


def peers_of(start, n, wants_token=None):
    """Routers whose `routers:` list is the same at all of them: each is in its own, too."""
    origin, configs = start.origin(), []
    token = "a-token-of-the-peers-admin-listener"
    folders = [start.folder() for _ in range(n)]
    for folder in folders:
        configs.append(c.passing(origin))
        (folder / "token").write_text(token + "\n")
        (folder / "admin-tokens.txt").write_text(c.sha256(token) + "\n")
    if wants_token is not None:
        configs[wants_token]["admin"].update(auth="bearer", tokens="admin-tokens.txt")
    for config in configs:
        config["routers"] = [{"url": "http://" + one["admin"]["listen"], "name": "r%d" % i, "token_file": "token"} for i, one in enumerate(configs)]
    return [start.router(config, folder=folder) for config, folder in zip(configs, folders)]


def report_of_all(router, target="/_admin/report.json?all"):
    answer = ask(router.admin_port, request("GET", target))
    assert answer.status == 200, answer
    report = json.loads(answer.body)
    return report, {r["name"]: r["state"] for r in report["routers"]}


def counted(report):
    return report["total_executions"] + report["left_out"]


def test_one_router_tells_the_report_of_all_and_who_is_missing(start):
    routers = peers_of(start, 3, wants_token=2)
    for n, router in enumerate(routers):
        for _ in range(3 + n):
            assert ask(router.port, request()).status == 200
        router.wait_outcomes(3 + n)
    report, states = report_of_all(routers[0])
    assert states == {"this router": "here", "r0": "itself", "r1": "ok", "r2": "ok"} and report["whole"]
    assert counted(report) == 12, "each once"
    assert counted(json.loads(ask(routers[0].admin_port, request("GET", "/_admin/report.json")).body)) == 3, "its own, as before"
    assert counted(report_of_all(routers[1], "/_admin/report.json?all=1&operation=(unmapped)")[0]) == 12
    write(routers[0].folder, "token", "another token that is not known\n")
    report, states = report_of_all(routers[0])
    assert states["r2"] == "refused" and not report["whole"] and counted(report) == 7
    assert "another token" not in json.dumps(report)
    write(routers[0].folder, "token", "a-token-of-the-peers-admin-listener\n")
    routers[2].signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        report, states = report_of_all(routers[0])
        assert time.monotonic() - began < 6, "a peer that hangs costs its time and no more"
        assert states["r2"] == "unreachable" and states["r1"] == "ok" and not report["whole"] and counted(report) == 7
        assert next(r["why"] for r in report["routers"] if r["name"] == "r2")
    finally:
        routers[2].signal(signal.SIGCONT)
    routers[1].kill()
    report, states = report_of_all(routers[0])
    assert states["r1"] == "unreachable" and states["r2"] == "ok" and counted(report) == 8
    for target in ("/_admin/report.json?all&form=sums", "/_admin/report.json?all=2"):
        assert ask(routers[0].admin_port, request("GET", target)).status == 400


def page_of(router, target="/?routers=all"):
    answer = ask(router.admin_port, request("GET", target))
    assert answer.status == 200, answer
    return answer.body.decode()


def section(page, name):
    return re.search(r'<section id="%s".*?</section>' % name, page, re.S).group(0)


def answered(page, operation):
    """On a card: (legacy, task)."""
    card = re.search(r'<article [^>]*data-operation="%s">.*?</article>' % operation, page, re.S).group(0)
    return tuple(int(n) for n in re.search(r">answered</th><td[^>]*>([\d,]+)</td><td[^>]*>([\d,]+)</td>", card).groups())


def told_on(page):
    return {name: state for state, name in re.findall(r'id="health-peer-\d+" data-state="(\w+)"><summary>.*?<b>(.*?)</b>', page)}


def test_the_page_of_all_routers_shows_what_their_files_hold_and_who_is_missing(world):
    urls = ["http://" + r.config["admin"]["listen"] for r in world.replicas]
    for replica in world.replicas:
        replica.kill()
        replica.config["routers"] = [{"url": url, "name": "router-%d" % i} for i, url in enumerate(urls)]
        replica.start()
    for turn in range(2):
        world.flip((0, 100)[turn])
        for i in range(10 + turn):
            world.run("p%d-%d" % (turn, i), at=i % 3)
    sql = "SELECT count(*) AS n FROM attempts WHERE answered AND operation = 'run' AND side = ?"

    def in_files(replicas):
        return tuple(sum(r.router.query(sql, side)[0]["n"] for r in replicas) for side in ("legacy", "task"))
    wait_until(lambda: in_files(world.replicas) == (10, 11), "21 outcomes")
    here = world.replicas[0]
    alone = page_of(here.router, "/")
    assert answered(alone, "run") == in_files([here]) == (4, 4)
    assert 'id="routers"' not in alone and "health-peer" not in alone and "Of this router only" not in alone
    switch = re.search(r'<ul class="spans" aria-label="Routers">.*?</ul>', alone).group(0)
    assert 'aria-current="true">This router<' in switch and '/?routers=all"' in switch, "it says whose it is"
    page = page_of(here.router)
    assert answered(page, "run") == (10, 11)
    assert "All 3 routers are in the figures" in section(page, "routers") and 'data-executions="21"' in section(page, "routers")
    assert "52.4" in re.search(r"data-measured>(.*?)</b>", page).group(1)
    assert told_on(page) == {"this router": "here", "router-0": "itself", "router-1": "ok", "router-2": "ok"}
    assert ' data-pace="5000">' in page and ' data-pace="0">' in alone, "it is fetched more rarely, and also without news from here"
    for own in ("timeline", "errors"):
        assert "Of this router only." in section(page, own)
    assert "Of this router only." not in section(page, "operations")
    assert "Of this router only." in section(page_of(here.router, "/requests?routers=all"), "requests")
    assert re.search(r'href="(/_admin/report.json\?all=1)"', page), "the same as JSON"
    assert "/_admin/report.json?service=runner&amp;all=1" in page_of(here.router, "/?service=runner&routers=all")
    world.replicas[1].kill()
    page = page_of(here.router)
    assert re.search(r'<p class="alert" role="alert">.*2 of 3 routers; the figures lack router-1: ', section(page, "routers"))
    assert 'data-level="ok"' not in page and answered(page, "run") == in_files([here, world.replicas[2]])
    assert told_on(page) == {"this router": "here", "router-0": "itself", "router-1": "unreachable", "router-2": "ok"}
    since = re.search(r'unreachable since <time[^>]*datetime="([^"]+)"', section(page, "health")).group(1)
    world.replicas[2].router.signal(signal.SIGSTOP)
    try:
        pages, seen = [threading.Thread(target=lambda: seen.append(ask(here.router.admin_port, request("GET", "/?routers=all")))) for _ in range(6)], []
        for one in pages:
            one.start()
        began = time.monotonic()
        assert here.router.admin_port and answered(page_of(here.router, "/"), "run") == (4, 4)
        assert world.told(world.call("GET", "/plain", at=0)) == {"status": "PLAIN"}
        assert time.monotonic() - began < 2.5, "this router's own page does not wait for those that wait for others"
        for one in pages:
            one.join(20)
        told = sorted((a.status, b"1 of 3 routers; the figures lack router-1: " in a.body) for a in seen)
        assert told == [(200, True)] * 2 + [(503, False)] * 4, "few at a time; the others say so"
    finally:
        world.replicas[2].router.signal(signal.SIGCONT)
    assert since in section(page_of(here.router), "health"), "since when it was first seen missing"
    world.replicas[1].start()
    assert "All 3 routers" in wait_until(lambda: (lambda p: p if "All 3 routers" in p else None)(page_of(here.router)), "it is back")


def test_a_view_of_all_routers_where_none_are_listed_is_refused(start):
    router = start.router(c.passing(start.origin()))
    for target in ("/?routers=all", "/?routers=some", "/?routers=all&routers=all"):
        answer = ask(router.admin_port, request("GET", target))
        assert answer.status == 400 and b"routers" in answer.body, target
    assert "All routers" not in page_of(router, "/")


@pytest.mark.parametrize("routers, sentence", [
    (["http://a:1", "http://a:1"], "is listed twice"), ([{"name": "x"}], "url"), (["ftp://a"], "routers"), ([{"url": "http://a:1", "tokenfile": "x"}], "token_file"),
    (["http://a:%d" % i for i in range(1, 19)], "routers")])
def test_mistakes_of_routers_are_named(start, routers, sentence):
    config = c.passing(start.origin())
    config["routers"] = routers
    path = os.path.join(str(start.folder()), "router.yml")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(config, file)
    told = start.run("migration-router", "check", path)
    assert told.returncode != 0 and sentence in told.stdout + told.stderr and "routers" in told.stdout + told.stderr, told


def write(folder, name, text):
    with open(os.path.join(str(folder), name), "w", encoding="utf-8") as file:
        file.write(text)
