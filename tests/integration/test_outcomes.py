"""Outcomes: one row per attempt, kept over every end of the process, and never in a request's way."""
import contextlib
import os
import signal
import sqlite3
import stat
import threading

import configuration as c
from http_text import wait_until
from origin import hold
from raw import Client, ask, request


def check_integrity(path):
    with contextlib.closing(sqlite3.connect(path, timeout=10)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_one_row_per_attempt_with_what_was_answered(start):
    origin = start.origin()
    config = c.passing(origin)
    config["services"]["echo"]["operations"] = {"item": {"match": "GET /item/{id}", "identity": c.IDENTITY}}
    config["threads"] = 1
    router = start.router(config)
    for status in (200, 404, 500, 429, 301):
        origin.answers(status)
        ask(router.port, request("GET", "/item/%d" % status, [("X-User-Id", "u%d" % status), ("X-Organization-Id", "o"),
                                                             ("X-Request-ID", "r%d" % status)]))
    rows = router.wait_outcomes(5)
    assert [(r["http_status"], r["result"]) for r in rows] == [
        (200, "success"), (404, "rejected"), (500, "failure"), (429, "failure"), (301, "success")]
    assert all(r["service"] == "echo" and r["operation"] == "item" and r["side"] == "legacy" and r["role"] == "primary" for r in rows)
    assert [(r["user"], r["organisation"], r["request_id"]) for r in rows] == [
        ("u%d" % s, "o", "r%d" % s) for s in (200, 404, 500, 429, 301)]
    assert all(0 < r["latency_us"] < 30_000_000 for r in rows)


def test_a_caller_that_has_read_its_answer_may_close_at_once(start):
    """What was answered is a success, also when the connection's end is seen before the answer's."""
    router = start.router({**c.passing(start.origin()), "threads": 1})
    for n in range(200):
        assert ask(router.port, request("POST", "/%d" % n, body=b"{}")).status == 200
    assert {row["result"] for row in router.wait_outcomes(200)} == {"success"}


def test_the_file_is_private(start):
    router = start.router(c.passing(start.origin()))
    ask(router.port, request())
    router.wait_outcomes(1)
    assert stat.S_IMODE(os.stat(router.outcomes_path).st_mode) == 0o600


def test_sigterm_loses_nothing(start):
    router = start.router(c.passing(start.origin()))
    with Client(router.port) as client:
        for n in range(500):
            assert client.ask(request("GET", "/%d" % n)).status == 200
    assert router.stop() == 0
    check_integrity(router.outcomes_path)
    assert len(router.query("SELECT * FROM attempts")) == 500


def test_kill_loses_no_more_than_the_flush_interval(start):
    router = start.router(c.passing(start.origin()))
    with Client(router.port) as client:
        for n in range(300):
            assert client.ask(request("GET", "/%d" % n)).status == 200
        # what was answered before the last commit that can be seen is kept
        kept = len(router.wait_outcomes(300))
        for n in range(50):
            client.ask(request("GET", "/more-%d" % n))
    router.kill()
    check_integrity(router.outcomes_path)
    assert kept <= len(router.query("SELECT * FROM attempts")) <= 350
    again = start.router(c.passing(start.origin()), folder=router.folder)
    assert ask(again.port, request()).status == 200
    assert len(again.wait_outcomes(kept + 1)) >= kept + 1


def test_a_locked_file_never_stops_routing(start):
    router = start.router(c.passing(start.origin()))
    ask(router.port, request())
    router.wait_outcomes(1)
    with contextlib.closing(sqlite3.connect(router.outcomes_path, timeout=10, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        for n in range(50):
            assert ask(router.port, request("GET", "/%d" % n)).status == 200
        db.execute("ROLLBACK")
    assert len(router.wait_outcomes(51)) == 51


def test_a_file_that_cannot_be_opened_never_stops_routing_and_shows_in_health(start):
    folder = start.folder()
    os.makedirs(os.path.join(folder, "data", "outcomes.db"))  # a folder stands where the file should be
    router = start.router(c.passing(start.origin()), folder=folder)
    for n in range(20):
        assert ask(router.port, request("GET", "/%d" % n)).status == 200
    wait_until(lambda: b"outcomes" in ask(router.admin_port, request("GET", "/readyz")).body, "health to name the outcomes")
    os.rmdir(os.path.join(folder, "data", "outcomes.db"))
    wait_until(lambda: (ask(router.port, request()), router.query("SELECT * FROM attempts"))[1], "recording to begin again")


def test_user_ids_are_hashed_where_configured(start):
    config = c.passing(start.origin())
    config["services"]["echo"]["operations"] = {"item": {"match": "GET /item", "identity": c.IDENTITY}}
    config.update(outcomes={"hash_users": True}, threads=1)
    router = start.router(config)
    for user in ("alice@example.com", "bob", "alice@example.com"):
        ask(router.port, request("GET", "/item", [("X-User-Id", user)]))
    users = [r["user"] for r in router.wait_outcomes(3)]
    assert users[0] == users[2] != users[1]
    router.stop()
    for name in os.listdir(os.path.dirname(router.outcomes_path)):
        with open(os.path.join(os.path.dirname(router.outcomes_path), name), "rb") as file:
            assert b"alice@example.com" not in file.read(), name


# --- drain -------------------------------------------------------------------------------------------------------------

def test_sigterm_lets_running_requests_finish(start):
    origin, go = start.origin(), threading.Event()
    origin.always(hold(go, lambda x: x.answer(200, [], b"finished")))
    router = start.router(c.passing(origin))
    with Client(router.port) as client:
        client.send(request())
        origin.wait_requests(1)
        router.signal(signal.SIGTERM)
        router.wait_event("draining")
        go.set()
        assert client.read().body == b"finished"
    assert router.wait() == 0
    assert router.wait_event("stopped")["cut"] in (0, "0")
    assert router.query("SELECT * FROM attempts")[0]["result"] == "success"


def test_the_deadline_cuts_what_still_runs_and_says_so(start):
    origin, never = start.origin(), threading.Event()
    origin.always(hold(never))
    router = start.router({**c.passing(origin), "drain_timeout": "200ms"})
    with Client(router.port) as client:
        client.send(request())
        origin.wait_requests(1)
        router.signal(signal.SIGTERM)
        assert router.wait() == 0
        assert client.closed() == b""
    never.set()
    assert router.wait_event("stopped")["cut"] in (1, "1")
    assert len(router.query("SELECT * FROM attempts")) == 1
