"""The three databases: another program may open and close them, the disk may fail, the clock may step; nothing is lost."""
import contextlib
import glob
import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
import time

import pytest

import configuration as c
from http_text import Cut, wait_until
from programs import BUILD, write_atomically
from raw import ask, request

FOREIGN = "import sqlite3, sys; db = sqlite3.connect(sys.argv[1], timeout=10); db.execute('SELECT count(*) FROM sqlite_master').fetchall(); db.close()"
STEP = "import json, sys; print(json.load(sys.stdin)['kwargs']['n'])"
FLAGS = c.features(c.boolean("task_abstraction_enabled", True))


def write_tasks(folder, *tasks):
    with open(os.path.join(folder, "tasks.yml"), "w", encoding="utf-8") as file:
        json.dump({"tasks": list(tasks)}, file)


def python_task(name, text, *arguments, **more):
    return {"name": name, "exec": {"argv": [sys.executable, "-S", "-E", "-c", text, *arguments]}, **more}


def database(router, name):
    return os.path.join(router.folder, "data", name)


def rows(router, name, sql):
    with contextlib.closing(sqlite3.connect(database(router, name), timeout=10)) as db:
        db.row_factory = sqlite3.Row
        return [dict(row) for row in db.execute(sql)]


def open_and_close_elsewhere(path):
    subprocess.run([sys.executable, "-S", "-E", "-c", FOREIGN, path], check=True, timeout=30)


def serve(start, env=None, **sections):
    folder = str(start.folder())
    write_tasks(folder, python_task("step", STEP))
    step = {"name": "step", "kwargs": {"n": {"$ref": "body:/n"}}, "timeout": "30s"}
    operations = {"start": c.operation("POST /start", step, pin={"group": "g", "key": "body:/name", "role": "start"})}
    config = c.router({"app": c.service(start.origin(), operations)}, backends=c.embedded(), **sections)
    return start.router(config, FLAGS, folder=folder, env=env)


def begin(router, n):
    body = json.dumps({"n": n, "name": "name-%d" % n}).encode()
    answer = ask(router.port, request("POST", "/start", body=body))
    assert (answer.status, answer.body.strip()) == (200, b"%d" % n)


@pytest.mark.parametrize("name, table", [("outcomes.db", "outcomes"), ("tasks.db", "task"), ("ledger.db", "entries")])
def test_another_program_that_opens_and_closes_a_database_takes_nothing_with_it(start, name, table):
    """Reports and reloads look at the files from within the process that writes them; its locks must outlast that."""
    router = serve(start)
    worker = start.worker(router)
    for n in range(5):
        begin(router, n)
    router.wait_outcomes(5)
    assert ask(router.admin_port, request("GET", "/_admin/report.json")).status == 200
    router.signal(signal.SIGHUP)
    router.wait_event("reloaded")
    assert start.run("task-backend-worker", "--config", router.config_path, "--health-check").returncode == 0
    open_and_close_elsewhere(database(router, name))
    assert os.path.exists(database(router, name) + "-wal"), "the WAL was removed under those who write"
    for n in range(5, 20):
        begin(router, n)
    router.wait_outcomes(20)
    worker.kill()
    router.kill()
    assert rows(router, name, "SELECT count(*) AS n FROM %s" % table) == [{"n": 20}]


# --- an outage of the store is not the death of a worker ------------------------------------------------------------------

HELD = """
import json, os, sys, time
n, folder = json.load(sys.stdin)["kwargs"]["n"], sys.argv[1]
os.write(os.open(os.path.join(folder, "done"), os.O_WRONLY | os.O_APPEND | os.O_CREAT), b"%d\\n" % n)
while not os.path.exists(os.path.join(folder, "go-%d" % n)):
    time.sleep(0.01)
print(n)
"""


def serve_held(start, **task):
    """A task that goes on until its file is there, and writes down that it has begun."""
    folder = str(start.folder())
    write_tasks(folder, python_task("held", HELD, folder, **task))
    held = {"name": "held", "kwargs": {"n": {"$ref": "body:/n"}}, "timeout": "60s"}
    config = c.router({"app": c.service(start.origin(), {"held": c.operation("POST /held", held)})}, backends=c.embedded(), drain_timeout="2s")
    return start.router(config, FLAGS, folder=folder)


class Call:
    """A call of `held` that goes on in a thread."""

    def __init__(self, router, n, wait=True):
        self.router, self.n, self.answer = router, n, None
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()
        if wait:
            wait_until(lambda: n in begun(router), "task %d to begin" % n)

    def run(self):
        with contextlib.suppress(Cut, OSError):  # the test may end before
            self.answer = ask(self.router.port, request("POST", "/held", body=b'{"n": %d}' % self.n))

    def let_go(self):
        with open(os.path.join(self.router.folder, "go-%d" % self.n), "wb"):
            pass

    def end(self):
        self.thread.join(60)
        assert not self.thread.is_alive()
        return self.answer.status, self.answer.body.strip()


def begun(router):
    with contextlib.suppress(FileNotFoundError), open(os.path.join(router.folder, "done"), encoding="ascii") as file:
        return [int(line) for line in file]
    return []


@pytest.mark.parametrize("idempotent", [False, True])
def test_a_store_that_is_locked_longer_than_a_lease_makes_no_live_worker_lost(start, idempotent):
    router = serve_held(start, idempotent=idempotent)
    worker = start.worker(router, "--lease", "3s")
    call = Call(router, 1)
    goes_on = Call(router, 2)
    with contextlib.closing(sqlite3.connect(database(router, "tasks.db"), timeout=10, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        call.let_go()
        worker.wait_event("task_store_failed")
        wait_until(lambda: db.execute("SELECT max(lease_until) FROM task").fetchone()[0] < time.monotonic() * 1000 - 2000,
                   "the leases to have run out for long")
        db.execute("ROLLBACK")
    assert call.end() == (200, b"1")
    goes_on.let_go()
    assert goes_on.end() == (200, b"2")
    assert sorted(begun(router)) == [1, 2]
    assert worker.find("task_result_refused") == []


def test_a_worker_whose_database_was_removed_opens_it_anew(start):
    router = serve_held(start)
    worker = start.worker(router)
    call = Call(router, 1)
    for end in ("", "-wal", "-shm"):
        os.unlink(database(router, "tasks.db") + end)
    worker.wait_event("task_store_moved")
    call.let_go()
    worker.wait_event("task_result_refused")
    router.wait_event("task_store_moved")
    again = Call(router, 2)
    again.let_go()
    assert again.end() == (200, b"2")


# --- workers of several versions, and reloads -------------------------------------------------------------------------------

def test_a_worker_takes_only_tasks_that_it_knows(start):
    """While workers are replaced, one knows the task or the workflow's step and one does not."""
    folder = str(start.folder())
    write_tasks(folder, python_task("step", STEP))
    new = {"tasks": [python_task("step", STEP), python_task("added", STEP)],
           "workflows": [{"name": "flow", "steps": [{"task": "step", "input": "workflow"}, {"task": "added", "kwargs": {"n": 7}}]}]}
    calls = {name: c.operation("POST /" + name, {kind: name, "kwargs": {"n": {"$ref": "body:/n"}}, "timeout": "30s"})
             for name, kind in (("step", "name"), ("added", "name"), ("flow", "workflow"))}
    config = c.router({"app": c.service(start.origin(), calls)}, backends=c.embedded())
    router = start.router(config, FLAGS, folder=folder)
    old = start.worker(router)
    write_atomically(os.path.join(folder, "new.yml"), json.dumps(new))
    newer = start.worker(router, "--tasks", os.path.join(folder, "new.yml"), "--concurrency", "1")
    for n in range(20):
        name = ("step", "added", "flow")[n % 3]
        answer = ask(router.port, request("POST", "/" + name, body=b'{"n": %d}' % n))
        assert answer.status == 200, (name, answer.body)
    assert old.find("task_ended", status="failed") == [] and newer.find("task_ended", task="added")
    # The old one reads the new file, and then does without the other.
    assert newer.stop() == 0
    write_atomically(os.path.join(folder, "tasks.yml"), json.dumps(new))
    old.signal(signal.SIGHUP)
    old.wait_event("reloaded", tasks=2, workflows=1)
    assert ask(router.port, request("POST", "/flow", body=b'{"n": 1}')).status == 200


def test_a_reload_with_mistakes_keeps_the_tasks_and_what_runs(start):
    router = serve_held(start)
    worker = start.worker(router)
    call = Call(router, 1)
    write_atomically(os.path.join(router.folder, "tasks.yml"), "tasks: [{name: held}]\n")
    worker.signal(signal.SIGHUP)
    assert "tasks[0]: needs exactly one of" in worker.wait_event("reload_refused")["problem"]
    write_tasks(router.folder, python_task("other", STEP))
    worker.signal(signal.SIGHUP)
    worker.wait_event("reloaded", tasks=1)
    call.let_go()
    assert call.end() == (200, b"1")


def test_a_task_that_could_not_be_started_is_given_back(start):
    """A worker without descriptors runs nothing; the task waits for one that can, and is not called failed."""
    router = serve_held(start)
    worker = start.worker(router)
    soft, hard = resource.prlimit(worker.pid, resource.RLIMIT_NOFILE)
    assert soft == hard, "the limit was not raised"
    resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (worker.descriptors() + 2, hard))
    call = Call(router, 1, wait=False)
    worker.wait_event("task_given_back")
    resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (soft, hard))
    wait_until(lambda: 1 in begun(router), "the task to begin")
    call.let_go()
    assert call.end() == (200, b"1")


# --- clocks ---------------------------------------------------------------------------------------------------------------

FAKETIME = next(iter(glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")), None)


@pytest.fixture
def clock(tmp_path):
    if not FAKETIME or "asan" in BUILD or "tsan" in BUILD:
        pytest.skip("needs libfaketime, and no sanitizer")
    path = tmp_path / "clock"

    def step(to):
        write_atomically(str(path), to + "\n")
    step("+0")
    step.env = {"LD_PRELOAD": FAKETIME, "FAKETIME_TIMESTAMP_FILE": str(path), "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                "FAKETIME_CACHE_DURATION": "1", "FAKETIME_NO_CACHE": "1"}
    return step


def counts(router):
    return [rows(router, name, "SELECT count(*) AS n FROM %s" % table)[0]["n"]
            for name, table in (("outcomes.db", "outcomes"), ("outcomes.db", "rollups"), ("tasks.db", "task"), ("ledger.db", "entries"))]


@pytest.mark.parametrize("step", ["+60d", "-400d"])
def test_a_clock_that_steps_deletes_nothing(start, clock, step):
    router = serve(start, env=clock.env)
    start.worker(router, env=clock.env)
    for n in range(3):
        begin(router, n)
    router.wait_outcomes(3)
    before = counts(router)
    for to in (step, "+0"):
        clock(to)
        for data in ("outcomes", "tasks"):
            router.wait_event("clock_stepped", data=data, count=1 if to == step else 2)
        after = counts(router)
        assert all(a >= b for a, b in zip(after, before)), (before, after)


def test_a_start_under_a_wrong_clock_deletes_nothing(start, clock):
    router = serve(start, env=clock.env)
    worker = start.worker(router, env=clock.env)
    for n in range(3):
        begin(router, n)
    router.wait_outcomes(3)
    before = counts(router)
    for process in (worker, router):
        assert process.stop() == 0
    clock("+60d")
    router = start.router(router.config, FLAGS, folder=router.folder, env=clock.env)
    start.worker(router, env=clock.env)
    begin(router, 3)  # ledger and queue sweep when they write
    router.wait_outcomes(4)
    after = counts(router)
    assert all(a > b for a, b in zip(after, before)), (before, after)
