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
    assert [(r["user"], r["organization"], r["request_id"]) for r in rows] == [
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
        ask(router.port, request("GET", "/item", [("X-User-Id", user), ("X-Forwarded-For", "198.51.100.7")]))
    users = [r["user"] for r in router.wait_outcomes(3)]
    clients = {r["client"] for r in router.wait_outcomes(3)}
    assert len(clients) == 1 and len(clients.pop()) == 64
    assert users[0] == users[2] != users[1]
    router.stop()
    for name in os.listdir(os.path.dirname(router.outcomes_path)):
        with open(os.path.join(os.path.dirname(router.outcomes_path), name), "rb") as file:
            content = file.read()
            assert b"alice@example.com" not in content and b"198.51.100.7" not in content, name


# --- where callers came from -------------------------------------------------------------------------------------------

def test_each_attempt_tells_its_client(start):
    """The nearest address that is no trusted proxy's, as in the access log."""
    config = {**c.passing(start.origin()), "threads": 1, "trusted_proxies": ["127.0.0.0/8", "10.0.0.0/8"]}
    router = start.router(config)
    for told in ("198.51.100.7", "203.0.113.9, 198.51.100.8, 10.1.2.3", "2001:db8::1", "no address"):
        ask(router.port, request("GET", "/", [("X-Forwarded-For", told)]))
    ask(router.port, request("GET", "/"))
    assert [r["client"] for r in router.wait_outcomes(5)] == ["198.51.100.7", "198.51.100.8", "2001:db8::1", "127.0.0.1", "127.0.0.1"]
    distrustful = start.router({**c.passing(start.origin()), "trusted_proxies": ["192.0.2.0/24"]})
    ask(distrustful.port, request("GET", "/", [("X-Forwarded-For", "198.51.100.7")]))
    assert distrustful.wait_outcomes(1)[0]["client"] == "127.0.0.1"


OLDER_VIEW = """CREATE VIEW attempts AS SELECT o.id, strftime('%Y-%m-%dT%H:%M:%fZ', o.time_us / 1000000.0, 'unixepoch') AS time,
    s.service, s.operation, o.organisation, o.user, s.side, s.backend, s.role, s.reason, o.variant, s.result, s.answered, o.http_status,
    o.latency_us, o.task_id, o.request_id FROM outcomes o JOIN series s ON s.id = o.series"""


def test_a_file_of_an_older_router_gets_clients_and_stays_one_that_it_can_write(start):
    folder = start.folder()
    config = {**c.passing(start.origin()), "threads": 1}
    router = start.router(config, folder=folder)
    ask(router.port, request())
    router.wait_outcomes(1)
    router.stop()
    with contextlib.closing(sqlite3.connect(router.outcomes_path)) as db, db:
        db.execute("DROP VIEW attempts")
        db.execute("DROP TABLE clients")
        db.execute(OLDER_VIEW)
    router = start.router(config, folder=folder)
    ask(router.port, request())

    def clients():
        rows = router.query("SELECT * FROM attempts ORDER BY time, id")  # through the older view until the recorder has begun
        return [row["client"] for row in rows] if len(rows) == 2 and "client" in rows[0] else None
    assert wait_until(clients, "two attempts with their clients") == [None, "127.0.0.1"]
    router.stop()
    with contextlib.closing(sqlite3.connect(router.outcomes_path)) as db, db:
        assert db.execute("PRAGMA user_version").fetchone() == (2,)
        db.execute("INSERT INTO outcomes (id, time_us, series, latency_us, http_status, organisation, user, variant, task_id, request_id)"
                   " VALUES ((SELECT max(id) + 1 FROM outcomes),1,1,1,200,NULL,NULL,NULL,NULL,NULL)")
        assert db.execute("SELECT count(*), count(client) FROM attempts").fetchone() == (3, 1)
    check_integrity(router.outcomes_path)


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
