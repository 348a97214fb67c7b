"""Callers' bytes are valid UTF-8 without control characters wherever they are recorded, logged or printed."""
import contextlib
import json
import os
import sqlite3
import subprocess
import sys

import pytest

import configuration as c
from programs import environment, program
from raw import ask, request

CSI, UTF8_CSI = b"\x9b31m\xff", b"\xc2\x9b31m"
ESCAPE = "\x1b]0;owned\x07"
# What shows that it was made plain: the bytes, visibly.
SHOWN = {CSI: "\\x9b31m\\xff", UTF8_CSI: "\\u009b31m"}


def plain(data):
    text = data.decode("utf-8") if isinstance(data, bytes) else data
    bad = {ch for ch in text.replace("\r\n", "\n") if (ord(ch) < 0x20 and ch not in "\n\t") or 0x7F <= ord(ch) <= 0x9F}
    assert not bad, (bad, text[:500])
    return text


def parsed(line):
    """A JSON text whose strings are plain too, once they have been read."""
    def look(value):
        for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            look(item)
        if isinstance(value, str):
            plain(value)
        return value
    return look(json.loads(plain(line)))


def texts(path):
    """Every text of a database, as another program reads it: an error where it is not UTF-8."""
    with contextlib.closing(sqlite3.connect("file:%s?mode=ro" % path, uri=True)) as db:
        for (table,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            for row in db.execute('SELECT * FROM "%s"' % table):
                yield from (plain(value) for value in row if isinstance(value, str))


def raw(target=b"/echo", fields=(), body=b'{"message": "hi"}'):
    head = b"POST " + target + b" HTTP/1.1\r\nHost: s\r\nConnection: close\r\nContent-Length: %d\r\n" % len(body)
    return head + b"".join(b"%s: %s\r\n" % field for field in fields) + b"\r\n" + body


@pytest.fixture
def world(start):
    folder = str(start.folder())
    fail = "import sys, os; sys.stderr.buffer.write(b'\\x9b31m\\xff \\xc2\\x9b \\x1b[2J no disk'); sys.exit(1)"
    with open(os.path.join(folder, "tasks.yml"), "w", encoding="utf-8") as file:
        json.dump({"tasks": [{"name": "fails", "exec": {"argv": [sys.executable, "-c", fail]}}, {"name": "echo", "exec": {"argv": ["cat"]}}]}, file)
    operations = {"echo": c.operation("POST /echo", {"name": "echo", "kwargs": {"message": {"$ref": "body:/message"}}}, identity=c.IDENTITY),
                  "fails": c.operation("POST /fails", {"name": "fails"}, identity=c.IDENTITY)}
    config = c.router({"app": c.service(start.origin(), operations)}, backends=c.embedded(), access_log="all")
    router = start.router(config, c.features(c.boolean("task_abstraction_enabled", True)), folder=folder)
    router.worker = start.worker(router)
    return router


@pytest.mark.parametrize("bytes_", SHOWN, ids=("latin", "utf8"))
def test_logs_and_databases(start, world, bytes_):
    for target in (b"/echo", b"/fails", b"/nowhere/" + bytes_.replace(b"\xff", b"%ff")):
        ask(world.port, raw(target, [(b"X-Request-ID", bytes_)]))
    rows = world.wait_outcomes(3)
    assert {row["request_id"] for row in rows} == {SHOWN[bytes_]}
    world.kill()
    world.worker.stop()
    assert len(world.find("access", request_id=SHOWN[bytes_])) == 3
    for process in (world, world.worker):
        for line in process.lines:
            parsed(line)
    data = os.path.join(world.folder, "data")
    found = [text for name in os.listdir(data) if name.endswith(".db") for text in texts(os.path.join(data, name))]
    assert SHOWN[bytes_] in found
    assert any("\\x9b31m\\xff \\u009b \\u001b[2J no disk" in text for text in found)


@pytest.mark.parametrize("bytes_", SHOWN, ids=("latin", "utf8"))
def test_an_identity_that_is_no_plain_text_is_none(world, bytes_):
    ask(world.port, raw(fields=[(b"X-User-Id", bytes_), (b"X-Organization-Id", bytes_)]))
    ask(world.port, raw(fields=[(b"X-User-Id", "J\u00fcrgen".encode())]))
    rows = world.wait_outcomes(2)
    assert [row["user"] or "" for row in rows] == ["", "J\u00fcrgen"]


def run(name, *arguments, cwd=None):
    """As a person at a terminal would, with standard output and standard error together."""
    done = subprocess.run([program(name), *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          cwd=cwd, env=environment(), timeout=60)
    return plain(done.stdout)


def test_reports_of_what_an_older_router_recorded(world):
    ask(world.port, raw(fields=[(b"X-Organization-Id", b"org-1")]))
    world.wait_outcomes(1)
    world.stop()
    path = world.outcomes_path
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE series SET operation = CAST(X'9b33316dff1b5b324a' AS TEXT)")
        db.execute("UPDATE outcomes SET organisation = ?", (ESCAPE,))
    assert "\\x9b31m\\xff\\u001b[2J" in run("migration-status", "--db", path)
    assert "\\x9b31m" in run("migration-status", "--db", path, "--csv")
    report = run("migration-status", "--db", path, "--json")
    assert "\\x9b31m\\xff\\u001b[2J" in json.dumps(parsed(report)).replace("\\\\", "\\")
    run("migration-status", "--db", path, "--org", ESCAPE)


@pytest.mark.parametrize("name, arguments", [
    ("migration-status", ["--since", ESCAPE]), ("migration-status", ["--db", ESCAPE]), ("migration-status", [ESCAPE]),
    ("migration-rollout", ["--config", "router.yml", "get", ESCAPE]), ("migration-rollout", ["--config", ESCAPE, "get"]),
    ("migration-rollout", [ESCAPE]), ("migration-router", [ESCAPE]), ("migration-router", ["check", ESCAPE]),
    ("migration-router", ["explain", "--config", "router.yml", "--service", ESCAPE, "--operation", "x"]),
    ("migration-router", ["explain", "--config", "router.yml", "--service", "app", "--operation", "echo", "--user", UTF8_CSI.decode()]),
    ("task-backend-worker", ["--config", ESCAPE]), ("task-backend-worker", ["--config", "router.yml", "--queues", ESCAPE, "--dry-run"]),
    ("task-backend-worker", ["--backend", ESCAPE])])
def test_programs_do_not_repeat_commands_to_the_terminal(world, name, arguments):
    run(name, *arguments, cwd=world.folder)


def test_the_history_of_rollouts(start, world):
    person = {"SUDO_USER": ESCAPE + "\x9b"}
    done = start.run("migration-rollout", "--config", world.config_path, "set", "task_abstraction_enabled", "0", "--yes", env=person)
    plain(done.stdout + done.stderr)
    told = start.run("migration-rollout", "--config", world.config_path, "history", env=person)
    assert "owned" in plain(told.stdout + told.stderr), done.stdout + done.stderr + told.stdout + told.stderr
    for folder, _, names in os.walk(world.folder):
        for name in names:
            if name.endswith(".jsonl"):
                with open(os.path.join(folder, name), "rb") as file:
                    plain(file.read())


def test_the_dashboards_json(world):
    ask(world.port, raw(fields=[(b"X-Organization-Id", b"org-1"), (b"X-Request-ID", CSI)]))
    world.wait_outcomes(1)
    with contextlib.closing(sqlite3.connect(world.outcomes_path)) as db, db:
        db.execute("UPDATE series SET operation = CAST(X'9b33316dff1b5b324a' AS TEXT)")
    answer = ask(world.admin_port, request("GET", "/_admin/report.json"))
    assert answer.status == 200 and parsed(answer.body)
