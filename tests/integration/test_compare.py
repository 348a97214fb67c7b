"""Comparing: what both sides answer to one request, told by place; seen by nobody but the report, and costing no caller anything."""
import contextlib
import gzip
import json
import os
import sqlite3
import sys
import threading

import pytest

import configuration as c
from http_text import wait_until
from origin import hold
from raw import Client, ask, request

JSON = [("Content-Type", "application/json")]
# Says what it was given, and whether it was told that it is a shadow.
TELL = """import json, sys
given = json.load(sys.stdin)
open(sys.argv[1], 'a').write(str(given.get('shadow')) + '\\n')
print(json.dumps(given['kwargs']['say']))"""


def side(share=None, legacy_serves=True):
    """The flag: legacy serves and the task runs beside it, or the task serves."""
    flag = c.variants("task_abstraction_enabled", **({"shadow": 100} if legacy_serves else {"on": 100}))
    if share is not None:
        flag["variants"][0]["attachment"] = {"shadow": share}
    return c.features(flag, segments=[c.everybody()])


class World:
    """POST /op: the task answers with what the body says under `task`; legacy with what the test has set."""

    def __init__(self, start, legacy_serves=True, worker=True, compare=None, limits=None, operation=None, legacy=None, response=None):
        self.start, self.origin, self.folder = start, start.origin(), str(start.folder())
        self.told = os.path.join(self.folder, "told")
        with open(os.path.join(self.folder, "tasks.yml"), "w", encoding="utf-8") as file:
            json.dump({"tasks": [{"name": "tell", "exec": {"argv": [sys.executable, "-c", TELL, self.told]}},
                                 {"name": "simulate_work", "builtin": "simulate_work"},
                                 {"name": "add_numbers", "builtin": "add_numbers"}]}, file)
        task = {"name": "tell", "kwargs": {"say": {"$ref": "body:/task"}}, "timeout": "20s", **({"response": response} if response else {})}
        self.operations = {
            "op": c.operation("POST /op", task, safe_to_shadow=True, compare=compare or {},
                              **({} if legacy_serves else {"shadow": "legacy", "shadow_share": 1}), **(operation or {})),
            "sleep": c.operation("POST /sleep", {"name": "simulate_work", "kwargs": {"duration": 20}, "timeout": "3s"},
                                 safe_to_shadow=True, compare={})}
        self.config = c.router({"app": c.service(self.origin, self.operations, legacy)}, backends=c.embedded(),
                               identity={"user": ["header:X-User-Id"]}, **({"compare": limits} if limits else {}))
        self.flags = side(legacy_serves=legacy_serves)
        self.begin()
        self.worker = start.worker(self.router) if worker else None

    def begin(self):
        self.router = self.start.router(self.config, self.flags, folder=self.folder)

    def legacy(self, body, fields=JSON, status=200):
        self.origin.answers(status, fields, body if isinstance(body, bytes) else json.dumps(body).encode())

    def post(self, task=None, path="/op", body=None, **more):
        body = json.dumps({"task": task}).encode() if body is None else body
        fields = [("X-User-Id", "u")] + [(name.replace("_", "-"), value) for name, value in more.items()]
        return ask(self.router.port, request("POST", path, fields, body))

    def pair(self, legacy, task):
        self.legacy(legacy)
        return self.post(task)

    def status(self, *arguments):
        return self.start.run("migration-status", "--db", self.router.outcomes_path, *arguments)

    def report(self, *arguments):
        done = self.status("--differences", "--json", *arguments)
        assert done.returncode == 0, done.stderr
        found = [o for o in json.loads(done.stdout)["operations"] if o["operation"] == "op"]
        return found[0] if found else None

    def compared(self, n, missed=0):
        """Once so many pairs were compared and so many were not."""
        def look():
            op = self.report()
            whole = op and (op["compared"], sum(op["not_compared"].values()))
            return op if whole == (n, missed) else None
        return wait_until(look, "%d pairs compared and %d not, not %s" % (n, missed, self.report()))

    def marks(self):
        with open(self.told, encoding="utf-8") as file:
            return file.read().splitlines()

    def metric(self, name):
        text = ask(self.router.admin_port, request("GET", "/metrics")).body.decode()
        return [line for line in text.splitlines() if line.startswith(name + "{")]


@pytest.fixture
def world(start):
    return lambda **how: World(start, **how)


def paths(op):
    return {p["path"]: (p["kind"], p["differing"], p["of"]) for p in op["paths"]}


# --- what differs ------------------------------------------------------------------------------------------------------

def test_the_task_beside_legacy(world):
    w = world()
    answer = w.pair({"n": 9007199254740993, "items": [{"p": 1}, {"p": 2}]}, {"n": 9007199254740992, "items": [{"p": 1}, {"p": 3}]})
    assert json.loads(answer.body)["n"] == 9007199254740993, "legacy serves"
    w.pair({"n": 1}, {"n": 1.0})
    op = w.compared(2)
    assert op["differing"] == 1 and op["beyond_noise"] is None
    assert paths(op) == {"body:/n": ("value", 1, 2), "body:/items/*/p": ("value", 1, 2)}
    assert op["samples"][0]["differences"] == [
        {"path": "body:/items/*/p", "kind": "value", "count": 1, "legacy": "2", "task": "3"},
        {"path": "body:/n", "kind": "value", "count": 1, "legacy": "9007199254740993", "task": "9007199254740992"}]
    text = w.status("--differences", "--operation", "op").stdout
    assert "app.op: differs in 1 of 2, noise not measured\n" in text and "body:/n value, legacy: 9007199254740993" in text
    assert "app.op: differs in 1 of 2, noise not measured\n" in w.status().stdout
    assert json.loads(w.status("--json").stdout)["differences"]["operations"][0]["differing"] == 1
    assert any('operation="op",pair="sides"} 2' in line for line in w.metric("migration_shadow_compared_total"))
    assert any('operation="op",pair="sides"} 1' in line for line in w.metric("migration_shadow_differing_total"))


def test_legacy_beside_the_task(world):
    w = world(legacy_serves=False)
    answer = w.pair({"v": "legacy"}, {"v": "task"})
    assert (answer.status, json.loads(answer.body)) == (200, {"v": "task"})
    op = w.compared(1)
    assert paths(op) == {"body:/v": ("value", 1, 1)}
    assert op["samples"][0]["differences"][0] == {"path": "body:/v", "kind": "value", "count": 1, "legacy": '"legacy"', "task": '"task"'}
    shadow = w.router.wait_outcomes(1, "role = 'shadow'")[0]
    assert (shadow["side"], shadow["result"], shadow["answered"], shadow["task_id"]) == ("legacy", "success", 0, None)
    got = w.origin.request
    assert got.head.get("X-Migration-Shadow") == "1" and json.loads(got.body) == {"task": {"v": "task"}}
    assert len(w.origin.requests) == 1, "legacy has it once, as a shadow"


def test_what_is_ignored_and_forgiven(world):
    w = world(compare={"fields": ["X-Version"], "ignore": ["body:/id", "body:/**/at"], "rules": [
        {"path": "body:/score", "tolerance": 0.01}, {"path": "body:/items", "unordered": "/k"},
        {"path": "body:/text", "similarity": 0.8}, {"path": "body:/name", "fold": ["case", "space"]}]})
    said = "The amount is 300 euros and it is due on the first of May."
    w.legacy({"id": 1, "score": 0.5, "items": [{"k": 1, "at": 5}, {"k": 2}], "text": said, "name": "Ann  B"},
             JSON + [("X-Version", "7")])
    w.post({"id": 2, "score": 0.505, "items": [{"k": 2, "at": 6}, {"k": 1}], "text": said + " ", "name": "ANN B"})
    assert paths(w.compared(1)) == {"header:x-version": ("missing", 1, 1)}
    w.pair({"score": 0.5}, {"score": 0.6})
    assert paths(w.compared(2))["body:/score"] == ("value", 1, 2)


def test_status_and_the_shape_of_failures(world):
    w = world(response=[{"when": {"ref": "result:/no", "equals": True}, "status": 404, "body": {"error": "no"}}, {"body": {"$ref": "result:"}}])
    w.legacy({"error": "no"}, status=404)
    w.post({"no": True})
    op = w.compared(1)
    assert op["differing"] == 0
    w.pair({"a": 1}, {"no": True})
    assert paths(w.compared(2)) == {"status": ("value", 1, 2), "body:/a": ("missing", 1, 2), "body:/error": ("extra", 1, 2)}


def test_an_answer_that_repeats_the_request(world):
    """The template asks the request, which has ended by then."""
    w = world(response={"body": {"id": {"$ref": "header:X-Request-ID"}, "q": {"$ref": "query:q"}, "who": {"$ref": "identity:user"},
                                 "sent": {"$ref": "body:/task"}, "got": {"$ref": "result:"}}})
    w.legacy({"id": "r-7", "q": "a b", "who": "u", "sent": [1], "got": [1]})
    assert w.post([1], path="/op?q=a+b", X_Request_ID="r-7").status == 200
    assert paths(w.compared(1)) == {}


def test_a_coded_answer_is_decoded(world):
    w = world()
    w.legacy(gzip.compress(b'{"a": 1}'), JSON + [("Content-Encoding", "gzip")])
    w.post({"a": 1})
    assert w.compared(1)["differing"] == 0
    w.legacy(b"no gzip", JSON + [("Content-Encoding", "gzip")])
    w.post({"a": 1})
    assert w.compared(1, missed=1)["not_compared"] == {"coding": 1}


# --- noise -------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("legacy_serves", [True, False])
def test_where_legacy_differs_from_itself_is_noise(world, legacy_serves):
    w = world(legacy_serves=legacy_serves, compare={"noise_sample": 1}, operation={"repeatable": True})
    count, lock = [0], threading.Lock()

    def tick(x):
        with lock:
            count[0] += 1
            n = count[0]
        x.answer(200, JSON, json.dumps({"tick": n, "v": 1}).encode())
    w.origin.always(tick)
    for _ in range(20):
        assert w.post({"tick": 0, "v": 2}).status == 200
    op = wait_until(lambda: (lambda o: o if o and (o["compared"], o["noise"]["compared"]) == (20, 20) else None)(w.report()), "20 pairs of each kind")
    found = {p["path"]: (p["differing"], p["noisy"], p["beyond_noise"]) for p in op["paths"]}
    assert found == {"body:/tick": (20, 20, False), "body:/v": (20, 0, True)}
    assert op["beyond_noise"] is True
    assert "app.op: differs in 20 of 20, beyond noise" in w.status().stdout
    marks = [r.head.get("X-Migration-Shadow") for r in w.origin.requests]
    assert marks.count("1") == (20 if legacy_serves else 40) and len(marks) == 40


def test_legacy_is_not_asked_twice_unless_that_is_allowed(world):
    w = world()  # not repeatable
    for _ in range(10):
        w.pair({}, {})
    assert w.compared(10)["noise"]["compared"] == 0
    assert len(w.origin.requests) == 10


# --- never -------------------------------------------------------------------------------------------------------------

def test_never_for_operations_that_are_not_safe_to_shadow(start, tmp_path):
    origin = start.origin()
    task = {"name": "simulate_work", "kwargs": {"duration": 0}}
    unsafe = c.operation("POST /op", task)
    config = c.router({"app": c.service(origin, {"op": unsafe})}, backends=c.embedded(tasks=None), identity={"user": ["header:X-User-Id"]})
    router = start.router(config, side())
    for _ in range(3):
        assert ask(router.port, request("POST", "/op", [("X-User-Id", "u")], b"{}")).body == b"ok"
    router.wait_outcomes(3, "role = 'primary'")
    router.wait_event("shadow_not_safe", operation="op")
    assert len(router.find("shadow_not_safe")) == 1, "once, not for each request"
    router.stop()
    assert not router.query("SELECT * FROM attempts WHERE role = 'shadow'")
    for wrong, says in (({"compare": {}}, "compare: needs safe_to_shadow: true"), ({"shadow": "legacy"}, "shadow: needs safe_to_shadow: true"),
                        ({"safe_to_shadow": True, "compare": {"noise_sample": 0.1}}, "noise_sample: needs repeatable: true")):
        config["services"]["app"]["operations"]["op"] = {**unsafe, **wrong}
        path = tmp_path / "router.yml"
        path.write_text(json.dumps(config))
        done = start.run("migration-router", "check", path)
        assert done.returncode != 0 and says in done.stderr + done.stdout, done.stderr + done.stdout


def test_nobody_may_say_that_his_request_is_a_shadow(world):
    w = world()
    w.config["trusted_proxies"] = ["192.0.2.0/24"]
    w.router.stop()
    w.begin()
    w.legacy({})
    assert w.post({}, X_Migration_Shadow="1").status == 200
    assert w.origin.request.head.get("X-Migration-Shadow") is None


# --- bounds ------------------------------------------------------------------------------------------------------------

def test_beyond_a_limit_is_not_compared_and_counted(world):
    w = world(limits={"max_answer": "1KiB"})
    w.pair({"a": "x" * 2000}, {"a": 1})
    w.pair({"a": 1}, {"a": "x" * 2000})
    w.pair({"a": 1}, {"a": 2})
    op = w.compared(1, missed=2)
    assert op["not_compared"] == {"size": 2} and op["differing"] == 1
    assert any('why="size"} 2' in line for line in w.metric("migration_shadow_not_compared_total"))
    answer = w.pair({"a": "y" * 300_000}, {"a": 1})
    assert len(answer.body) > 300_000, "the caller's answer is whole"


def test_a_side_without_an_answer_is_not_compared(world):
    w = world()
    w.origin.next(lambda x: x.reset())
    assert w.post({}).status == 502
    assert w.compared(0, missed=1)["not_compared"] == {"no_answer": 1}
    go = threading.Event()
    w.origin.next(hold(go))
    with Client(w.router.port) as client:
        client.send(request("POST", "/op", [("X-User-Id", "u")], b'{"task": 1}'))
        w.origin.wait_requests(2, complete=True)
    assert w.compared(0, missed=2)["not_compared"] == {"no_answer": 1, "cancelled": 1}
    go.set()


def test_a_slow_shadow_slows_nobody(world):
    w = world()
    w.legacy({})
    for _ in range(6):
        assert w.post(path="/sleep", body=b"{}").status == 200
    slowest = max(p["latency_us"] for p in w.router.wait_outcomes(6, "role = 'primary'"))
    fastest = min(s["latency_us"] for s in w.router.wait_outcomes(6, "role = 'shadow'"))
    assert fastest >= 2_500_000 > slowest


def test_a_slow_legacy_slows_nobody_beside_the_task(world):
    w, go = world(legacy_serves=False), threading.Event()
    w.origin.always(hold(go))
    for n in range(5):
        assert json.loads(w.post(n).body) == n  # answered while every shadow still waits
    w.origin.wait_requests(1)
    assert not w.router.query("SELECT * FROM attempts WHERE role = 'shadow'")
    go.set()


def test_a_caller_does_not_wait_for_a_shadows_connection(world):
    """One connection to legacy for each thread, and shadows hold it: they give way."""
    w, go = world(legacy_serves=False, legacy={"max_connections": 1}), threading.Event()
    held = hold(go)
    w.origin.always(lambda x: held(x) if x.request.head.get("X-Migration-Shadow") else x.answer(200, [], b"passed"))
    with Client(w.router.port) as client:
        assert client.ask(request("POST", "/op", [("X-User-Id", "u")], b'{"task": 1}')).status == 200
        w.origin.wait_requests(1)
        assert client.ask(request("GET", "/unmapped", [])).body == b"passed"
    assert w.compared(0, missed=1)["not_compared"] == {"busy": 1}
    go.set()


# --- samples -----------------------------------------------------------------------------------------------------------

def stored(w):
    whole = b""
    for suffix in ("", "-wal"):
        with contextlib.suppress(FileNotFoundError), open(w.router.outcomes_path + suffix, "rb") as file:
            whole += file.read()
    return whole


def test_secrets_are_in_no_sample(world):
    w = world(limits={"redact": ["body:/**/iban"]}, compare={"redact": ["body:/note"], "fields": ["Set-Cookie"]})
    w.legacy({"api_token": "sesame-1", "deep": [{"iban": "sesame-2"}], "note": "sesame-3", "url": "https://u:sesame-4@h/", "n": 1},
             JSON + [("Set-Cookie", "s=sesame-5")])
    w.post({"api_token": "sesame-6", "deep": [{"iban": "sesame-7"}], "note": "sesame-8", "url": "https://u:sesame-9@h/", "n": 2})
    w.legacy(b"plain sesame-10", [])
    w.post({"password": "sesame-11"})
    op = w.compared(2)
    assert set(paths(op)) == {"body:/api_token", "body:/deep/*/iban", "body:/note", "body:/url", "body:/n", "header:set-cookie", "body:"}
    shown = w.status("--differences", "--path", "body:/n").stdout
    assert '"n":1' in shown and "***" in shown and "sesame" not in shown
    w.router.stop()
    assert b"sesame" not in stored(w) and b"body:/deep/*/iban" in stored(w)


def test_samples_go_by_age(world):
    w = world(limits={"keep_samples": "1s"})
    w.pair({"v": "old sample"}, {"v": 1})
    w.compared(1)
    wait_until(lambda: w.report()["samples"] == [], "the sample to go")
    assert w.report()["differing"] == 1, "what was counted stays"


def test_a_killed_router_leaves_a_whole_file(world):
    w = world()
    for n in range(12):
        w.pair({"a": n}, {"a": -n - 1})
    wait_until(lambda: w.report(), "the first comparison")
    w.router.kill()
    before = w.report()["compared"]
    with contextlib.closing(sqlite3.connect(w.router.outcomes_path, timeout=10)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        assert db.execute("SELECT sum(differing) FROM compare_counts").fetchone()[0] == before
        assert db.execute("SELECT sum(differing) FROM compare_paths").fetchone()[0] == before
    w.begin()
    w.pair({"a": 1}, {"a": 1})
    w.compared(before + 1)


def test_the_rules_change_with_a_reload(world):
    w = world()
    w.pair({"a": 1}, {"a": 2})
    assert w.compared(1)["differing"] == 1
    w.operations["op"]["compare"] = {"ignore": ["body:/a"]}
    w.router.write_config(w.config)
    w.router.signal(1)
    w.router.wait_event("reloaded")
    w.pair({"a": 1}, {"a": 2})
    assert w.compared(2)["differing"] == 1


# --- marks -------------------------------------------------------------------------------------------------------------

def test_workers_are_told_that_a_task_is_a_shadow(world):
    w = world()
    w.pair({}, {})
    w.compared(1)
    assert w.marks() == ["True"]
    w.router.write_flags(side(legacy_serves=False))
    wait_until(lambda: json.loads(w.post({"now": "task"}).body or b"{}") == {"now": "task"}, "the task to serve")
    assert "None" in w.marks(), "the task that serves is no shadow"


def test_usage_is_told(start):
    for wrong in (["--differences", "--csv"], ["--differences", "--gate"], ["--path", "nonsense"], ["--differences", "--drain"]):
        done = start.run("migration-status", *wrong)
        assert done.returncode == 2 and "migration-status: " in done.stderr
