"""kill -9 and SIGTERM under traffic: what was accepted comes to an end, and nothing is done twice."""
import contextlib
import json
import os
import signal
import sqlite3
import sys
import threading

import pytest

import configuration as c
from http_text import Cut, wait_until
from raw import ask, request

COMPLETED, FAILED = 2, 3  # task.state in tasks.db
# Writes its number, takes a moment, ends: executions can be counted.
STEP = "import json, os, sys, time; n = json.load(sys.stdin)['kwargs']['n']; " \
       "f = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT); os.write(f, b'%d\\n' % n); time.sleep(0.02); print(n)"
CALLERS = 6


class World:
    def __init__(self, start):
        self.start, self.origin, self.folder = start, start.origin(), str(start.folder())
        self.done = os.path.join(self.folder, "done")
        with open(os.path.join(self.folder, "tasks.yml"), "w", encoding="utf-8") as file:
            json.dump({"tasks": [{"name": "step", "exec": {"argv": [sys.executable, "-S", "-E", "-c", STEP, self.done]}}]}, file)
        step = {"name": "step", "kwargs": {"n": {"$ref": "body:/n"}}, "timeout": "30s"}
        operations = {"step": c.operation("POST /step", step),
                      "start": c.operation("POST /start", step, pin={"group": "g", "key": "body:/name", "role": "start"})}
        self.config = c.router({"app": c.service(self.origin, operations)}, backends=c.embedded(), drain_timeout="20s")
        self.serve()

    def serve(self):
        self.router = self.start.router(self.config, c.features(c.boolean("task_abstraction_enabled", True)), folder=self.folder)
        self.hire()

    def hire(self):
        self.worker = self.start.worker(self.router, "--lease", "3s")

    def tasks(self):
        with contextlib.closing(sqlite3.connect(os.path.join(self.folder, "data", "tasks.db"), timeout=10)) as db:
            db.row_factory = sqlite3.Row
            return [dict(row) for row in db.execute("SELECT * FROM task LEFT JOIN output USING (seq)")]

    def wait_all_ended(self):
        wait_until(lambda: all(t["state"] in (COMPLETED, FAILED) for t in self.tasks()), "every accepted task to end")

    def executions(self):
        with contextlib.suppress(FileNotFoundError), open(self.done, encoding="ascii") as file:
            return [int(line) for line in file]
        return []

    def check_files(self):
        for name in ("outcomes.db", "tasks.db", "ledger.db"):
            with contextlib.closing(sqlite3.connect(os.path.join(self.folder, "data", name), timeout=10)) as db:
                assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)], name


class Traffic:
    """Callers one after the other on each thread: each number is sent once, to legacy, as a task, or as a pinned task."""
    PATHS = ("/legacy", "/step", "/start")

    def __init__(self, port):
        self.port, self.lock, self.next = port, threading.Lock(), 0
        self.answered, self.cut, self.too_early = {}, [], []
        self.killed = False
        self.ending = threading.Event()
        self.threads = [threading.Thread(target=self.run, daemon=True) for _ in range(CALLERS)]
        for thread in self.threads:
            thread.start()

    def run(self):
        while not self.ending.is_set():
            with self.lock:
                n, self.next = self.next, self.next + 1
            body = json.dumps({"n": n, "name": "name-%d" % n}).encode()
            try:
                answer = ask(self.port, request("POST", self.PATHS[n % 3], [("X-N", str(n))], body))
                with self.lock:
                    self.answered[n] = answer
            except (Cut, OSError) as why:
                (self.cut if self.killed else self.too_early).append((n, why))
                return

    def wait_answers(self, n):
        wait_until(lambda: sum(a.status == 200 for a in list(self.answered.values())) >= n, "%d answers" % n)

    def kill(self, *processes):
        """From now on, and no sooner, a call may end without an answer: the one that each caller has in flight."""
        self.killed = True
        for process in processes:
            process.kill()

    def end(self):
        self.ending.set()
        for thread in self.threads:
            thread.join(60)
            assert not thread.is_alive(), "a caller was never answered"
        assert self.too_early == []
        return self


@pytest.fixture
def world(start):
    return World(start)


def check_nothing_twice(world):
    numbers = [r.head.get("X-N") for r in world.origin.requests]
    assert len(numbers) == len(set(numbers)), "a POST reached legacy twice"
    executions = world.executions()
    assert len(executions) == len(set(executions)), "a task was executed twice"
    assert not {int(n) for n in numbers} & set(executions), "both sides executed the same request"


@pytest.mark.parametrize("after", [1, 4, 25])
def test_the_router_is_killed_under_traffic(world, after):
    traffic = Traffic(world.router.port)
    traffic.wait_answers(after)
    traffic.kill(world.router)
    traffic.end()
    assert {a.status for a in traffic.answered.values()} == {200}
    world.serve()
    world.wait_all_ended()
    assert all(t["state"] == COMPLETED for t in world.tasks())
    done = set(world.executions())
    assert {n for n in traffic.answered if n % 3} <= done, "an answered task was lost"
    assert len(world.tasks()) == len(done)
    check_nothing_twice(world)
    world.check_files()
    assert ask(world.router.port, request("POST", "/step", body=b'{"n": 1000000}')).body.strip() == b"1000000"


def test_a_worker_is_killed_under_traffic(world):
    traffic = Traffic(world.router.port)
    for _ in (1, 2):
        traffic.wait_answers(len(traffic.answered) + 6)
        world.worker.kill()
        world.hire()
    traffic.wait_answers(len(traffic.answered) + 6)
    traffic.end()
    world.wait_all_ended()
    failed = [t for t in world.tasks() if t["state"] == FAILED]
    assert all("worker lost" in t["error"] for t in failed)
    bad = {n: a for n, a in traffic.answered.items() if a.status != 200}
    assert traffic.cut == [] and len(bad) == len(failed)
    assert all(a.status >= 500 for a in bad.values())
    check_nothing_twice(world)
    world.check_files()
    rows = world.router.wait_outcomes(len(traffic.answered))
    assert len(rows) == len(traffic.answered)


def test_router_and_worker_are_killed_together(world):
    traffic = Traffic(world.router.port)
    traffic.wait_answers(5)
    traffic.kill(world.worker, world.router)
    traffic.end()
    world.serve()
    world.wait_all_ended()
    assert all(t["state"] == COMPLETED or "worker lost" in t["error"] for t in world.tasks())
    check_nothing_twice(world)
    world.check_files()


def test_sigterm_under_traffic_answers_all_and_loses_no_outcome(world):
    traffic = Traffic(world.router.port)
    traffic.wait_answers(10)
    traffic.killed = True  # what comes to a closed listener is refused
    world.router.signal(signal.SIGTERM)
    assert world.router.wait() == 0
    traffic.end()
    # A connection that was being opened when the listener closed was never taken; whatever was read is answered.
    assert {a.status for a in traffic.answered.values()} == {200}
    assert world.router.wait_event("stopped")["cut"] in (0, "0")
    rows = world.router.query("SELECT * FROM attempts")
    assert len(rows) == len(traffic.answered) and all(r["result"] == "success" and r["answered"] for r in rows)
    seen = set(world.executions()) | {int(r.head.get("X-N")) for r in world.origin.requests}
    assert seen == set(traffic.answered), "a request was executed whose caller was not answered"
    check_nothing_twice(world)
    world.check_files()
