"""A disk that is full: nothing runs twice or on the wrong side, no result is thrown away, and all is well once there is room again."""
import contextlib
import json
import os
import subprocess
import sys
import threading
import time

import pytest

import configuration as c
from disk import Disk
from http_text import PATIENCE, Cut, wait_until
from raw import ask, request

LONG = 2 * PATIENCE
FLAGS = c.features(c.boolean("task_abstraction_enabled", True))
QUERY = """
import json, sqlite3, sys
db = sqlite3.connect("file:%s?mode=ro" % sys.argv[1], uri=True, timeout=10)
print(json.dumps(db.execute(sys.argv[2]).fetchall()))
"""
HELD = """
import json, os, sys, time
n, folder = json.load(sys.stdin)["kwargs"]["n"], sys.argv[1]
os.write(os.open(os.path.join(folder, "done"), os.O_WRONLY | os.O_APPEND | os.O_CREAT), b"%s\\n" % n.encode())
while not os.path.exists(os.path.join(folder, "go-" + n)):
    time.sleep(0.01)
print(json.dumps(n))
"""


class World:
    """A router and a worker whose data folder is a small disk of its own. Keys that begin with `n` are held until let go."""

    def __init__(self, start, idempotent=False):
        self.start, self.origin, self.folder = start, start.origin(), str(start.folder())
        self.origin.answers(200, [], b"legacy")
        self.disk = Disk(os.path.join(self.folder, "data"))
        self.within = self.disk.within(self.folder)
        held = {"name": "held", "idempotent": idempotent,
                "exec": {"argv": [sys.executable, "-S", "-E", "-c", HELD, self.folder]}}
        with open(os.path.join(self.folder, "tasks.yml"), "w", encoding="utf-8") as file:
            json.dump({"tasks": [held]}, file)

        def operation(match, key, role):
            return c.operation(match, {"name": "held", "kwargs": {"n": {"$ref": key}}, "timeout": "120s"},
                               pin={"group": "g", "key": key, "role": role})
        self.config = c.router({"app": c.service(self.origin, {
            "start": operation("POST /start", "body:/n", "start"), "look": operation("GET /look", "query:n", "follow"),
            "end": operation("POST /end", "body:/n", "end"),
            "plain": c.operation("POST /held", {"name": "held", "kwargs": {"n": {"$ref": "body:/n"}}, "timeout": "120s"})})},
            backends={"embedded": {"database": "data/tasks.db", "tasks": "tasks.yml"}})
        self.flags = FLAGS
        self.serve()
        self.worker = start.worker(self.router, "--lease", "2s", within=self.within)
        self.wait_ready()

    def serve(self):
        self.router = self.start.router(self.config, self.flags, folder=self.folder, within=self.within)

    def wait_ready(self):
        """A worker is there, and the router knows it."""
        wait_until(lambda: self.ready()["backends"][0]["worker"] and not self.ready()["not_ready"], "the task side to be ready", LONG)

    def ready(self):
        return json.loads(ask(self.router.admin_port, request("GET", "/readyz")).body)

    def let_go(self, n):
        with open(os.path.join(self.folder, "go-" + n), "wb"):
            pass

    def begun(self):
        with contextlib.suppress(FileNotFoundError), open(os.path.join(self.folder, "done"), encoding="ascii") as file:
            return file.read().split()
        return []

    def post(self, path, n):
        answer = ask(self.router.port, request("POST", path, body=json.dumps({"n": n}).encode()))
        return answer.status, answer.body.strip()

    def look(self, n):
        answer = ask(self.router.port, request("GET", "/look?n=" + n))
        return answer.status, answer.body.strip()

    def rows(self, name, sql):
        told = subprocess.run([*self.within, sys.executable, "-S", "-E", "-c", QUERY, "data/" + name, sql], check=True, timeout=60,
                              stdout=subprocess.PIPE)
        return [tuple(row) for row in json.loads(told.stdout)]


class Held:
    """A call that goes on in a thread; its task runs."""

    def __init__(self, world, n):
        self.world, self.n, self.answer = world, n, None
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()
        wait_until(lambda: n in world.begun(), "%s to begin" % n)

    def run(self):
        with contextlib.suppress(Cut, OSError):
            self.answer = self.world.post("/held", self.n)

    def end(self):
        self.thread.join(LONG)
        assert not self.thread.is_alive(), "%s was never answered" % self.n
        return self.answer


@pytest.fixture
def make(start):
    worlds = []

    def one(**how):
        worlds.append(World(start, **how))
        return worlds[-1]
    yield one
    start.end()
    start.processes.clear()
    start.origins.clear()
    for world in worlds:
        world.disk.end()


@pytest.mark.parametrize("idempotent", [False, True])
def test_tasks_that_run_while_the_disk_is_full_are_not_lost_and_run_once(make, idempotent):
    world = make(idempotent=idempotent)
    ends, goes_on = Held(world, "n1"), Held(world, "n2")
    world.disk.fill()
    world.let_go("n1")
    world.worker.wait_event("task_store_failed")
    # Longer than leases and their grace, by the clock that they go by.
    lapsed = "SELECT max(lease_until) FROM task WHERE state = 1"
    wait_until(lambda: world.rows("tasks.db", lapsed)[0][0] < time.monotonic() * 1000 - 6000, "the leases to have run out for long", LONG)
    assert world.post("/held", "meanwhile") == (200, b"legacy"), "what cannot be accepted is legacy's"
    world.disk.free()
    assert ends.end() == (200, b'"n1"')
    world.let_go("n2")
    assert goes_on.end() == (200, b'"n2"')
    assert sorted(world.begun()) == ["n1", "n2"], "each ran once"
    assert world.worker.find("task_result_refused") == [] and world.worker.find("task_lease_lost") == []
    # The task side is back by itself: nobody has to submit something first.
    world.wait_ready()
    world.let_go("n3")
    wait_until(lambda: world.post("/held", "n3") == (200, b'"n3"'), "the task side to take tasks again", LONG)
    assert world.rows("tasks.db", "SELECT count(*) FROM task WHERE state = 2")[0][0] == 3
    assert world.rows("tasks.db", "PRAGMA integrity_check") == [("ok",)]


def test_outcomes_wait_for_room_and_what_is_dropped_is_told(make):
    world = make()
    for n in range(5):
        assert world.post("/nothing", "a%d" % n) == (200, b"legacy")
    wait_until(lambda: world.rows("outcomes.db", "SELECT count(*) FROM attempts")[0][0] == 5, "outcomes")
    world.disk.fill()
    for n in range(300):
        assert world.post("/nothing", "b%d" % n) == (200, b"legacy"), "recording is in nobody's way"
    world.router.wait_event("recorder_failing")
    told = world.ready()
    assert told["outcomes"]["failing"] and "full" in told["outcomes"]["last_error"] and told["ready"]
    assert "outcomes or ledger cannot be written" in told["missing"]
    world.disk.free()
    recovered = world.router.wait_event("recorder_recovered")
    assert recovered["dropped"] == world.ready()["outcomes"]["dropped"] == 0
    wait_until(lambda: world.rows("outcomes.db", "SELECT count(*) FROM attempts")[0][0] == 305, "all outcomes", LONG)
    assert world.rows("outcomes.db", "PRAGMA integrity_check") == [("ok",)]


def test_outcomes_that_could_never_be_written_are_counted_when_it_ends(make):
    world = make()
    world.disk.fill()
    for n in range(300):
        assert world.post("/nothing", "b%d" % n) == (200, b"legacy")
    world.router.wait_event("recorder_failing")
    assert world.router.stop() == 0
    lost = world.router.wait_event("recorder_lost")["outcomes"]
    assert 0 < lost <= 300
    world.disk.free()
    assert lost + world.rows("outcomes.db", "SELECT count(*) FROM attempts")[0][0] == 300


def test_pins_are_on_no_wrong_side(make):
    """What is pinned stays so. What cannot be written down begins on legacy, and its follow-ups go there."""
    world = make()
    for n in ("n1", "n2", "n3"):
        world.let_go(n)
    assert world.post("/start", "n1") == (200, b'"n1"')
    world.disk.fill()
    # The last bytes of the files' pages are taken up: from then on nothing more is pinned.
    n = wait_until(lambda: next(("x%d" % i for i in range(len(world.begun()), 100)
                                 if (world.let_go("x%d" % i), world.post("/start", "x%d" % i))[1] == (200, b"legacy")), None), "a start on legacy")
    assert world.look(n) == (200, b"legacy") and n not in world.begun()
    assert world.look("n1")[1] != b"legacy", "its container is on the task side"
    # A restart in the midst of it: who cannot know does not guess.
    world.router.kill()
    world.serve()
    for _ in range(3):
        assert world.look("n1")[1] != b"legacy"
    assert world.post("/nothing", "legacy's") == (200, b"legacy")
    world.disk.free()
    wait_until(lambda: world.look("n1") == (200, b'"n1"'), "follow-ups to be served where it began", LONG)
    assert world.look(n) == (200, b"legacy")
    wait_until(lambda: world.post("/start", "n2") == (200, b'"n2"'), "new pins", LONG)
    wait_until(lambda: world.look("n2") == (200, b'"n2"'), "its follow-up", LONG)
    assert world.rows("ledger.db", "PRAGMA integrity_check") == [("ok",)]


def test_the_last_good_flags_are_whole_and_saved_as_soon_as_there_is_room(make):
    """A rollback that could not be saved must not be undone by the next restart."""
    world = make()
    saved = next(name for name in os.listdir(world.disk.path("")) if "flag" in name and name.endswith(".json"))

    def content():
        with open(world.disk.path(saved), encoding="utf-8") as file:
            return json.load(file)  # whole at every moment
    wait_until(lambda: "task_abstraction_enabled" in json.dumps(content()), "flags to be saved")
    before = content()["crc32"]
    world.disk.fill()
    world.router.write_flags(c.features(c.boolean("task_abstraction_enabled", False), c.boolean("other" * 1000, True)))
    world.router.wait_event("flags_not_saved")
    assert content()["crc32"] == before, "the old file stays"
    assert [name for name in os.listdir(world.disk.path("")) if name.startswith(saved)] == [saved], "nothing half written is left"
    assert world.post("/held", "new flags") == (200, b"legacy"), "what cannot be saved counts nevertheless"
    told = world.ready()
    assert told["flags"]["saved"] is False and any("not saved" in why or "be saved" in why for why in told["missing"])
    world.disk.free()
    world.router.wait_event("flags_saved")
    assert content()["crc32"] != before and world.ready()["flags"]["saved"] is True
    world.router.kill()
    os.unlink(world.router.flags_path)
    world.flags = None
    world.serve()
    assert world.post("/held", "after a restart") == (200, b"legacy")
    assert world.begun() == []
