"""The three databases: another program may open and close them, the disk may fail, the clock may step; nothing is lost."""
import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys

import pytest

import configuration as c
from http_text import wait_until
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


def serve(start, **sections):
    folder = str(start.folder())
    write_tasks(folder, python_task("step", STEP))
    step = {"name": "step", "kwargs": {"n": {"$ref": "body:/n"}}, "timeout": "30s"}
    operations = {"start": c.operation("POST /start", step, pin={"group": "g", "key": "body:/name", "role": "start"})}
    config = c.router({"app": c.service(start.origin(), operations)}, backends=c.embedded(), **sections)
    return start.router(config, FLAGS, folder=folder)


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
