"""Embedded workers say which tasks they know: what no live worker knows is served by legacy at once, and never waits."""
import contextlib
import json
import os
import signal
import sqlite3
import sys
import time

import pytest

import configuration as c
from http_text import PATIENCE, wait_until
from programs import write_atomically
from raw import ask, request

ECHO = "import json, sys; print(json.load(sys.stdin)['kwargs']['n'])"
FLAGS = c.features(c.boolean("task_abstraction_enabled", True))
LONG = 3 * PATIENCE  # a worker that was killed counts for 20 s, and the router asks every few seconds


def task(name, **more):
    return {"name": name, "exec": {"argv": [sys.executable, "-S", "-E", "-c", ECHO]}, **more}


FLOW = {"name": "flow", "steps": [{"task": "one", "input": "workflow"}, {"task": "two", "kwargs": {"n": 7}}]}


class World:
    """A router that may call `one`, `two` and the workflow `flow`; which of them is known is up to the workers."""

    def __init__(self, start, **backend):
        self.start, self.folder, self.origin = start, str(start.folder()), start.origin()
        self.origin.answers(200, [], b"legacy")
        calls = {name: c.operation("POST /" + name, {kind: name, "kwargs": {"n": {"$ref": "body:/n"}}, "timeout": "120s"})
                 for name, kind in (("one", "name"), ("two", "name"), ("flow", "workflow"))}
        backends = {"embedded": {"database": "data/tasks.db", **backend}}
        self.router = start.router(c.router({"app": c.service(self.origin, calls)}, backends=backends), FLAGS, folder=self.folder)

    def tasks(self, name, *tasks, workflows=()):
        path = os.path.join(self.folder, name)
        write_atomically(path, json.dumps({"tasks": list(tasks), "workflows": list(workflows)}))
        return path

    def worker(self, name, *tasks, workflows=(), arguments=()):
        return self.start.worker(self.router, "--tasks", self.tasks(name, *tasks, workflows=workflows), *arguments)

    def post(self, name, n=1):
        answer = ask(self.router.port, request("POST", "/" + name, body=b'{"n": %d}' % n))
        assert answer.status == 200, answer.body
        return answer.body.strip()

    def missing(self):
        """The operations that are known not to be run, and why."""
        told = json.loads(ask(self.router.admin_port, request("GET", "/readyz")).body)["not_ready"]
        return {entry["operation"].partition(".")[2]: entry["why"] for entry in told}

    def wait_missing(self, *names):
        return wait_until(lambda: (lambda m: m if sorted(m) == sorted(names) else None)(self.missing() or {"": ""})
                          if names else self.missing() == {}, "just %s to be missing" % (names,), LONG)

    def rows(self, sql):
        with contextlib.closing(sqlite3.connect(os.path.join(self.folder, "data", "tasks.db"), timeout=10)) as db:
            with db:
                return db.execute(sql).fetchall()


@pytest.fixture
def world(start):
    return World(start)


def test_what_no_live_worker_knows_is_served_by_legacy_and_what_comes_is_run(world):
    first = world.worker("first.yml", task("one"))
    why = world.wait_missing("two", "flow")
    assert "knows the task \"two\"" in why["two"] and "knows the workflow \"flow\"" in why["flow"]
    assert (world.post("one"), world.post("two"), world.post("flow")) == (b"1", b"legacy", b"legacy")
    reasons = {r["operation"]: (r["side"], r["reason"]) for r in world.router.wait_outcomes(3)}
    assert reasons["two"] == reasons["flow"] == ("legacy", "backend_not_ready")
    assert world.rows("SELECT count(*) FROM task WHERE name <> 'one'") == [(0,)], "nothing was submitted"

    # `check --backends` says the same.
    told = world.start.run("migration-router", "check", world.router.config_path, "--backends")
    assert told.returncode != 0 and "knows the task \"two\"" in told.stdout + told.stderr

    # The workflow's second step is somebody else's: it needs both.
    second = world.worker("second.yml", task("one"), task("two"), workflows=[FLOW])
    world.wait_missing()
    assert (world.post("two", 2), json.loads(world.post("flow", 3))) == (b"2", {"one": 3, "two": 7})

    # Killed, it counts for a while; then what only it knew is legacy's again.
    second.kill()
    world.wait_missing("two", "flow")
    assert (world.post("one"), world.post("two")) == (b"1", b"legacy")
    assert first.stop() == 0


def test_a_reload_that_adds_or_removes_a_task_shows_at_once(world):
    worker = world.worker("tasks.yml", task("one"), arguments=("--lease", "24h"))  # it beats every 8 hours
    world.wait_missing("two", "flow")
    world.tasks("tasks.yml", task("one"), task("two"), workflows=[FLOW])
    worker.signal(signal.SIGHUP)
    world.wait_missing()
    assert world.post("two", 2) == b"2"
    world.tasks("tasks.yml", task("two"))
    worker.signal(signal.SIGHUP)
    world.wait_missing("one", "flow")
    assert (world.post("one"), world.post("two", 3)) == (b"legacy", b"3")


def test_a_step_that_nobody_knows_keeps_the_workflow_on_legacy(world):
    """A workflow's steps may have queues of their own, and workers of their own."""
    flow = {"name": "flow", "steps": [{"task": "one", "input": "workflow"}, {"task": "two", "kwargs": {"n": 7}}]}
    world.worker("flow.yml", task("one"), task("two", queue="other"), workflows=[flow])
    why = world.wait_missing("flow")  # `two` itself is on this worker's own queue, for the router
    assert why["flow"] == "no worker serves the queue \"other\""
    other = world.worker("other.yml", task("one"), arguments=("--queues", "other"))
    wait_until(lambda: "knows the task \"two\"" in world.missing().get("flow", ""), "the other to be asked", LONG)
    assert world.post("flow") == b"legacy"
    world.tasks("other.yml", task("two"))
    other.signal(signal.SIGHUP)
    world.wait_missing()
    assert json.loads(world.post("flow", 3)) == {"one": 3, "two": 7}


def test_a_worker_of_an_older_version_may_know_anything(world):
    """It beats without saying what it knows: nothing is held back, as before there was such a table."""
    world.worker("first.yml", task("one"))
    world.wait_missing("two", "flow")
    seen = int(time.monotonic() * 1000) + 3600 * 1000
    world.rows("INSERT INTO worker (id, name, host, queues, pid, concurrency, seen_at) VALUES ('old', 'old', 'h', 'default', 1, 4, %d)" % seen)
    world.wait_missing()
    world.rows("DELETE FROM worker WHERE id = 'old'")  # as an older worker does when it ends
    world.wait_missing("two", "flow")


def test_a_worker_whose_row_was_taken_away_says_again_what_it_knows(world):
    world.worker("first.yml", task("one"), arguments=("--lease", "1s"))
    world.wait_missing("two", "flow")
    world.rows("DELETE FROM worker")
    wait_until(lambda: ("one",) in world.rows("SELECT task FROM worker_knows WHERE step = 0"), "it to say so again")
    world.wait_missing("two", "flow")


def test_what_workers_say_counts_for_more_than_the_routers_own_file(start):
    folder_tasks = {"tasks": "tasks.yml"}

    class Own(World):
        def __init__(self):
            path = str(start.folder())
            self_folder = start.folder
            start.folder = lambda: path
            write_atomically(os.path.join(path, "tasks.yml"), json.dumps({"tasks": [task("one"), task("two")]}))
            try:
                super().__init__(start, **folder_tasks)
            finally:
                start.folder = self_folder
    world = Own()
    # Not known here, but there; known here, but not there.
    world.worker("new.yml", task("one"), task("two"), workflows=[FLOW])
    world.wait_missing()
    assert json.loads(world.post("flow", 3)) == {"one": 3, "two": 7}
