"""Shadows: legacy serves as ever, and the task side runs beside it, seen by nobody but the outcomes."""
import contextlib
import json
import os
import sqlite3
import sys
import threading

import pytest

import configuration as c
from http_text import wait_until
from origin import hold
from programs import backends_built, free_port
from raw import Client, ask, request

ODD_ANSWER = b'{"legacy": 9007199254740993, "twice":1, "twice":2}\n'
ODD_FIELDS = [("Content-Type", "application/json"), ("X-Odd", "a"), ("x-odd", "b")]
# Tells what it was called with, so that a test can compare it with what the caller sent.
NOTE = "import json, sys; open(sys.argv[1], 'a').write(json.dumps(json.load(sys.stdin)['kwargs']) + '\\n'); print(1)"


def shadow_flag(share=None, key="task_abstraction_enabled"):
    flag = c.variants(key, shadow=100)
    if share is not None:
        flag["variants"][0]["attachment"] = {"shadow": share}
    return c.features(flag, segments=[c.everybody()])


class World:
    def __init__(self, start, flags=None, worker=True, backends=None, limits=None, **env):
        self.origin, self.folder = start.origin(), str(start.folder())
        self.noted = os.path.join(self.folder, "noted")
        with open(os.path.join(self.folder, "tasks.yml"), "w", encoding="utf-8") as file:
            json.dump({"tasks": [{"name": n, "builtin": n} for n in ("echo", "simulate_work", "add_numbers")] + [
                {"name": "note", "exec": {"argv": [sys.executable, "-c", NOTE, self.noted]}}]}, file)
        body = {"$ref": "body:"}
        operations = {
            "note": c.operation("POST /note", {"name": "note", "kwargs": {"all": body, "who": {"$ref": "identity:user"}}}),
            "sleep": c.operation("POST /sleep", {"name": "simulate_work", "kwargs": {"duration": 20}, "timeout": "3s"}),
            "fail": c.operation("POST /fail", {"name": "add_numbers", "args": ["a", {}], "timeout": "20s", "idempotent": True}),
            "judged": c.operation("POST /judged", {"name": "echo", "kwargs": {"message": "no"}, "timeout": "20s", "response": [
                {"when": {"ref": "result:", "equals": "Echo: no"}, "status": 500, "body": {}}, {"body": {}}]}),
            "locked": c.operation("POST /locked", {"name": "note"}, auth="bearer"),
            "start": c.operation("POST /start", {"name": "note", "kwargs": body},
                                 pin={"group": "g", "key": "body:/name", "role": "start"}),
        }
        with open(os.path.join(self.folder, "tokens.txt"), "w", encoding="utf-8") as file:
            file.write(c.sha256("known") + "\n")
        for operation in operations.values():
            operation.setdefault("safe_to_shadow", True)
        config = c.router({"app": c.service(self.origin, operations)}, backends=backends or c.embedded(),
                          identity={"user": ["header:X-User-Id"]}, tokens="tokens.txt",
                          **({"limits": limits} if limits else {}))
        self.router = start.router(config, flags or shadow_flag(), folder=self.folder, env=env)
        self.worker = start.worker(self.router) if worker else None
        self.origin.answers(200, ODD_FIELDS, ODD_ANSWER)

    def post(self, path, body=b'{"n": 9007199254740993}', user="u1", **fields):
        named = [("X-User-Id", user)] + [(n.replace("_", "-"), v) for n, v in fields.items()]
        return ask(self.router.port, request("POST", path, named, body))

    def shadows(self, n=1):
        return self.router.wait_outcomes(n, "role = 'shadow'")

    def notes(self):
        with open(self.noted, encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    def dropped(self):
        text = ask(self.router.admin_port, request("GET", "/metrics")).body.decode()
        return next(int(line.split()[-1]) for line in text.splitlines() if line.startswith("migration_shadow_dropped_total{"))

    def tasks(self):
        with contextlib.closing(sqlite3.connect(os.path.join(self.folder, "data", "tasks.db"), timeout=10)) as db:
            return db.execute("SELECT count(*) FROM task").fetchone()[0]


@pytest.fixture
def world(start):
    return lambda **how: World(start, **how)


def is_legacys(answer):
    """What the origin sent, byte for byte."""
    assert (answer.status, answer.body) == (200, ODD_ANSWER)
    assert [f for f in answer.fields if f in ODD_FIELDS] == ODD_FIELDS
    return True


# --- beside legacy -----------------------------------------------------------------------------------------------------

def test_legacy_answers_and_the_task_runs_beside_it(world):
    w = world()
    sent = b'{"n": 9007199254740993, "text": "\\u00e9"}'
    assert is_legacys(w.post("/note", sent, X_Request_ID="r1"))
    assert w.origin.request.body == sent
    shadow = w.shadows()[0]
    assert (shadow["side"], shadow["role"], shadow["result"], shadow["answered"]) == ("task", "shadow", "success", 0)
    assert (shadow["backend"], shadow["variant"], shadow["user"], shadow["request_id"], shadow["http_status"]) == \
        ("embedded", "shadow", "u1", "r1", 0)
    assert shadow["task_id"] and shadow["operation"] == "note" and shadow["reason"] == "flag"
    assert w.notes() == [{"all": json.loads(sent), "who": "u1"}]
    primary = w.router.wait_outcomes(1, "role = 'primary'")
    assert [(p["side"], p["answered"], p["backend"]) for p in primary] == [("legacy", 1, "")]
    assert len(w.router.query("SELECT * FROM attempts")) == 2


def test_a_streamed_body_is_copied_while_it_passes(world):
    w = world()
    pieces = [b'{"long": "', b"x" * 300_000, b'", "end"', b": true}"]
    with Client(w.router.port) as client:
        client.send(b"POST /note HTTP/1.1\r\nHost: a\r\nX-User-Id: u\r\nTransfer-Encoding: chunked\r\n\r\n")
        for piece in pieces:
            client.send(b"%x\r\n%s\r\n" % (len(piece), piece))
        client.send(b"0\r\n\r\n")
        assert is_legacys(client.read("POST"))
    assert w.shadows()[0]["result"] == "success"
    assert w.notes()[0]["all"] == json.loads(b"".join(pieces))
    assert w.dropped() == 0


def test_a_shadow_never_pins(world):
    w = world()
    assert is_legacys(w.post("/start", b'{"name": "x"}'))
    assert w.shadows()[0]["result"] == "success"
    w.router.stop()
    with contextlib.closing(sqlite3.connect(os.path.join(w.folder, "data", "ledger.db"))) as db:
        table = db.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'").fetchone()[0]
        assert db.execute("SELECT count(*) FROM %s" % table).fetchone()[0] == 0


def test_success_rates_and_shares_do_not_see_it(world):
    w = world()
    for n in range(3):
        w.post("/fail", user="u%d" % n)
    assert [s["result"] for s in w.shadows(3)] == ["failure"] * 3
    w.router.wait_outcomes(3, "role = 'primary'")
    told = json.loads(ask(w.router.admin_port, request("GET", "/_admin/report.json")).body)
    legacy, task = told["sides"]["legacy_services"], told["sides"]["task_abstraction"]
    assert (legacy["executions"], legacy["n"]) == (3, 3)
    assert (task["executions"], task["n"], task["fallbacks"], task["success_rate"]) == (0, 0, 0, None)
    assert (task["shadow"]["n"], task["shadow"]["results"]["failure"]) == (3, 3)


# --- what goes wrong there stays there ---------------------------------------------------------------------------------

def test_a_task_that_sleeps_slows_nobody(world):
    w = world()
    for n in range(8):  # more than the worker runs at once
        assert is_legacys(w.post("/sleep"))
    assert {s["result"] for s in w.shadows(8)} == {"timeout"}
    slowest = max(p["latency_us"] for p in w.router.wait_outcomes(8, "role = 'primary'"))
    fastest = min(s["latency_us"] for s in w.shadows(8))
    assert fastest >= 2_500_000 > slowest, "legacy waited for its shadow"


def test_a_failure_of_the_task_is_a_failure_of_the_shadow_only(world):
    w = world()
    assert is_legacys(w.post("/fail"))
    assert w.shadows()[0]["result"] == "failure"
    assert is_legacys(w.post("/judged"))  # the task completes, but its answer would be a 500
    assert [s["result"] for s in w.shadows(2)] == ["failure", "failure"]
    assert len(w.origin.requests) == 2 and not w.router.query("SELECT * FROM attempts WHERE role = 'fallback'")


def test_a_backend_that_is_gone_harms_nobody(world):
    gone = {"celery": {"when_not_ready": "submit", "broker_url": "redis://127.0.0.1:%d/0" % free_port(), "result_backend": "redis://127.0.0.1:%d/1" % free_port()}}
    if "celery" in backends_built():
        w = world(backends=gone, worker=False, TASK_QUEUE_BACKEND="celery")
    else:  # the embedded queue's file cannot be written any more
        w = world(worker=False)
        w.lock = sqlite3.connect(os.path.join(w.folder, "data", "tasks.db"), timeout=10, isolation_level=None)
        w.lock.execute("BEGIN EXCLUSIVE")
    for _ in range(3):
        assert is_legacys(w.post("/sleep"))
    assert {s["result"] for s in w.shadows(3)} <= {"failure", "unknown"}
    if hasattr(w, "lock"):
        w.lock.close()


def test_a_caller_that_leaves_after_the_request_leaves_the_shadow(world):
    w, go = world(), threading.Event()
    w.origin.always(hold(go))
    with Client(w.router.port) as client:
        client.send(request("POST", "/note", [("X-User-Id", "u")], b"{}"))
        w.origin.wait_requests(1, complete=True)
        assert w.shadows()[0]["result"] == "success"  # while legacy still works on it
    assert w.router.wait_outcomes(1, "role = 'primary'")[0]["result"] == "cancelled"
    go.set()


# --- bounds ------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_above_the_limit_passes_and_drops_its_shadow(world, chunked):
    w = world(limits={"max_inspect_body": "64KiB"})
    body = b'"' + b"y" * 200_000 + b'"'
    head = b"POST /note HTTP/1.1\r\nHost: a\r\nX-User-Id: u\r\n"
    with Client(w.router.port) as client:
        if chunked:
            client.send(head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
        else:
            client.send(head + b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        assert is_legacys(client.read("POST"))
    assert w.origin.request.body == body
    assert w.dropped() == 1 and w.tasks() == 0


def test_what_cannot_become_a_task_is_counted(world):
    w = world()
    assert is_legacys(w.post("/note", b"no json"))
    assert is_legacys(w.post("/locked"))  # without a token the task side would refuse it
    assert w.dropped() == 2 and w.tasks() == 0
    assert is_legacys(w.post("/locked", Authorization="Bearer known"))
    assert w.shadows()[0]["result"] == "success"
    assert w.dropped() == 2


def test_a_caller_that_leaves_within_its_body_takes_its_shadow_along(world):
    w = world()
    with Client(w.router.port) as client:
        client.send(b"POST /note HTTP/1.1\r\nHost: a\r\nX-User-Id: u\r\nContent-Length: 100\r\n\r\n{")
        w.origin.wait_requests(1)
    wait_until(lambda: w.dropped() == 1, "the shadow to be dropped")
    assert w.tasks() == 0


def test_so_many_in_flight_and_no_more(world):
    """256 per thread; nobody runs them, so that they wait for their time limit."""
    w = world(worker=False)
    with Client(w.router.port) as client:
        for _ in range(260):  # one connection: one thread
            assert client.ask(request("POST", "/note", [("X-User-Id", "u")], b"{}")).status == 200
    assert w.dropped() == 4
    assert len(w.router.wait_outcomes(260, "role = 'primary'")) == 260
    # The end of the router ends them, too: nothing is lost of what was begun.
    assert w.router.stop() == 0
    shadows = w.router.query("SELECT * FROM attempts WHERE role = 'shadow'")
    assert [s["result"] for s in shadows] == ["cancelled"] * 256
    assert w.tasks() == 256


# --- the share ---------------------------------------------------------------------------------------------------------

def test_the_share_is_of_identities(world):
    w = world(flags=shadow_flag(0.3))
    for _ in range(2):
        for n in range(100):
            assert w.post("/note", b"{}", user="user-%d" % n).status == 200
    w.router.wait_outcomes(200, "role = 'primary'")
    wait_until(lambda: w.tasks() > 0 and w.tasks() == len(w.router.query("SELECT * FROM attempts WHERE role = 'shadow'")),
               "every shadow to end")
    counts = w.router.query("SELECT user, count(*) AS n FROM attempts WHERE role = 'shadow' GROUP BY user")
    assert all(row["n"] == 2 for row in counts), "an identity was shadowed once and once not"
    assert 15 <= len(counts) <= 45
    assert w.dropped() == 0


def test_no_share_no_shadow(world):
    w = world(flags=c.features(c.variants("task_abstraction_enabled", legacy=100), segments=[c.everybody()]))
    assert is_legacys(w.post("/note"))
    w.router.stop()
    assert [r["role"] for r in w.router.query("SELECT * FROM attempts")] == ["primary"]
