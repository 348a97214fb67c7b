"""auth: {check: URL}: an endpoint of the operator's says who may use the task side; and credentials that are forwarded to the worker."""
import concurrent.futures
import contextlib
import json
import os
import sqlite3
import sys
import threading
import time

import pytest

import configuration as c
from http_text import wait_until
from raw import Client, ask, request

FLAG = "task_abstraction_enabled"
TASK = """
import json, os, sys
call = json.load(sys.stdin)["kwargs"]
with open(os.path.join(sys.argv[1], "runs"), "a") as file:
    file.write(json.dumps(call) + "\\n")
print(json.dumps({"ran": True}))
"""
TOKEN = "top-secret-token-41"


def percent(n):
    return c.features(c.boolean(FLAG, False, percentage=n))


def by_token(x):
    """As an authentication service does it: the good token is let in, another is challenged, or forbidden."""
    value = x.request.head.get("Authorization") or x.request.head.get("Cookie") or ""
    if "good" in value or TOKEN in value:
        x.answer(200, [("X-User", "u")], b"fine")
    elif "forbidden" in value:
        x.answer(403, [], b"no")
    else:
        x.answer(401, [("WWW-Authenticate", 'Bearer realm="shop"'), ("WWW-Authenticate", 'Basic realm="old"')], b"no")


class World:
    def __init__(self, start, kwargs=None, **auth):
        self.start, self.origin, self.endpoint, self.folder = start, start.origin(), start.origin(), str(start.folder())
        self.origin.answers(200, [("Content-Type", "application/json")], b'"legacy"')
        self.endpoint.always(by_token)
        with open(os.path.join(self.folder, "tasks.yml"), "w", encoding="utf-8") as file:
            json.dump({"tasks": [{"name": "work", "exec": {"argv": [sys.executable, "-c", TASK, self.folder]}}]}, file)
        kwargs = kwargs or {"n": {"$ref": "body:/n", "default": 0}}
        operation = c.operation("POST /work/{id}", {"name": "work", "kwargs": kwargs, "timeout": "30s", "respond_async": True},
                                auth={"check": self.endpoint.url + "/auth", **auth})
        follow = c.operation("GET /state", {"name": "work", "kwargs": {"n": 1}, "timeout": "30s"}, auth={"check": self.endpoint.url + "/auth"},
                             pin={"group": "g", "key": "query:name", "role": "follow"})
        begin = c.operation("POST /begin", {"name": "work", "kwargs": {"n": 2}, "timeout": "30s"}, auth={"check": self.endpoint.url + "/auth"},
                            pin={"group": "g", "key": "query:name", "role": "start"})
        self.config = c.router({"echo": c.service(self.origin, {"work": operation, "follow": follow, "begin": begin}, entity=["organization"])},
                               backends=c.embedded(), identity={"organization": ["header:X-Organization-Id"]})

    def serve(self, percentage=100):
        self.router = self.start.router(self.config, percent(percentage), folder=self.folder)
        self.worker = self.start.worker(self.router)
        return self

    def post(self, credential="Bearer good", target="/work/1", method="POST", body=b'{"n": 1}', fields=()):
        fields = [("X-Organization-Id", "org-1"), *fields, *([("Authorization", credential)] if credential else [])]
        return ask(self.router.port, request(method, target, fields, body))

    def runs(self):
        try:
            with open(os.path.join(self.folder, "runs"), encoding="utf-8") as file:
                return [json.loads(line) for line in file]
        except FileNotFoundError:
            return []

    def asked(self):
        return len(self.endpoint.requests)

    def counted(self, result):
        text = ask(self.router.admin_port, request("GET", "/metrics")).body.decode()
        return int(text.split('migration_auth_checks_total{result="%s"} ' % result)[1].split("\n")[0])


def test_an_endpoint_decides_with_the_callers_credentials(start):
    world = World(start).serve()
    answer = world.post(fields=[("Cookie", "session=1")], target="/work/1?x=%20y")
    assert answer.status == 200 and json.loads(answer.body) == {"ran": True}
    asked = world.endpoint.requests[0]
    assert (asked.method, asked.target, asked.body) == ("GET", "/auth", b"")
    assert asked.head.get("Authorization") == "Bearer good" and asked.head.get("Cookie") == "session=1"
    assert asked.head.get("X-Original-URI") == "/work/1?x=%20y" and asked.head.get("X-Original-Method") == "POST"
    assert world.origin.requests == []


@pytest.mark.parametrize("credential, status", [(None, 401), ("Bearer bad", 401), ("Bearer forbidden", 403)])
def test_a_refusal_is_passed_on_with_its_challenge(start, credential, status):
    world = World(start).serve()
    answer = world.post(credential)
    assert (answer.status, answer.get("Content-Type")) == (status, "application/problem+json")
    assert answer.all("WWW-Authenticate") == (['Bearer realm="shop"', 'Basic realm="old"'] if status == 401 else [])
    assert world.runs() == [] and world.origin.requests == []
    assert [r["result"] for r in world.router.wait_outcomes(1)] == ["rejected"]


def test_credentials_given_twice_are_400_and_not_asked_about(start):
    world = World(start).serve()
    assert world.post("Bearer good", fields=[("Authorization", "Bearer bad")]).status == 400
    assert world.asked() == 0 and world.runs() == []


def test_an_answer_is_cached_by_credential_target_and_time(start):
    world = World(start, cache="1h", cache_denied="1h")
    world.config["threads"] = 1
    world.serve()
    for _ in range(3):
        assert world.post().status == 200 and world.post("Bearer bad").status == 401
    assert world.asked() == 2 and world.counted("cached") == 4
    assert world.post(target="/work/2").status == 200, "what it may do there, only the endpoint knows"
    assert world.asked() == 3


def test_a_cached_answer_is_asked_about_again_after_its_time(start):
    world = World(start, cache="2s", cache_denied="1s").serve()
    assert world.post().status == 200 and world.post("Bearer bad").status == 401
    assert world.asked() == 2
    assert wait_until(lambda: world.post("Bearer bad").status == 401 and world.asked() >= 3, "a denial to be asked about again")
    world.endpoint.always(lambda x: x.answer(401))
    wait_until(lambda: world.post().status == 401, "an acceptance to be asked about again")


def test_without_a_cache_each_request_is_asked_about(start):
    world = World(start, cache="0s").serve()
    for n in range(3):
        assert world.post().status == 200 and world.asked() == n + 1


def test_an_endpoint_that_is_away_or_says_something_else_lets_nobody_in(start):
    world = World(start, cache="0s").serve()
    for script in (lambda x: x.answer(500), lambda x: x.answer(302, [("Location", "/good")]), lambda x: x.answer(404), lambda x: x.reset()):
        world.endpoint.always(script)
        answer = world.post()
        assert (answer.status, answer.get("Retry-After"), answer.get("Content-Type")) == (503, "1", "application/problem+json")
    world.endpoint.stop()
    assert world.post().status == 503
    assert world.runs() == [] and world.origin.requests == []
    assert world.counted("failed") == 5
    world.router.wait_event("auth_check_failing")


def test_a_slow_endpoint_is_waited_for_no_longer_than_said(start):
    world = World(start, timeout="300ms").serve()
    ended = threading.Event()
    world.endpoint.always(lambda x: ended.wait(20))
    before = time.monotonic()
    assert world.post().status == 503
    assert time.monotonic() - before < 10 and world.runs() == []
    ended.set()
    world.endpoint.always(by_token)
    assert wait_until(lambda: world.post().status == 200, "the endpoint to be asked again")


def test_those_who_ask_the_same_share_one_question(start):
    world = World(start)
    world.config["threads"] = 1
    world.serve()
    go = threading.Event()

    def held(x):
        go.wait(20)
        by_token(x)
    world.endpoint.always(held)
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        waiting = [pool.submit(world.post) for _ in range(12)]
        wait_until(lambda: world.asked() == 1, "the question")
        wait_until(lambda: 'migration_in_flight{service="echo"} 12' in ask(world.router.admin_port, request("GET", "/metrics")).body.decode(),
                   "all of them to wait")
        go.set()
        assert {f.result().status for f in waiting} == {200}
    assert world.asked() == 1 and len(world.runs()) == 12


def test_a_caller_who_leaves_while_it_is_asked_runs_nothing(start):
    world = World(start).serve()
    go = threading.Event()

    def held(x):
        go.wait(20)
        by_token(x)
    world.endpoint.always(held)
    client = Client(world.router.port)
    client.send(request("POST", "/work/1", [("X-Organization-Id", "org-1"), ("Authorization", "Bearer good")], b'{"n": 1}'))
    wait_until(lambda: world.asked() == 1, "the question")
    client.close()
    assert world.router.wait_outcomes(1)[0]["result"] == "cancelled"
    go.set()
    assert world.post().status == 200 and len(world.runs()) == 1


def test_legacy_is_not_asked_about(start):
    world = World(start).serve(0)
    assert world.post("Bearer bad").body == b'"legacy"' and world.asked() == 0
    assert world.origin.requests[0].head.get("Authorization") == "Bearer bad"


def test_only_what_is_named_is_sent_and_counts(start):
    world = World(start, credentials=["cookie:session", "header:X-Api-Key"]).serve()
    fields = [("Cookie", "theme=dark; session=good; track=7"), ("X-Api-Key", "k")]
    assert world.post("Bearer whatever", fields=fields).status == 200
    asked = world.endpoint.requests[0].head
    assert (asked.get("Cookie"), asked.get("X-Api-Key"), asked.get("Authorization")) == ("session=good", "k", None)
    assert world.post(None, fields=[("Cookie", "session=good; session=bad")]).status == 400


def test_pins_hold_and_their_calls_are_asked_about(start):
    world = World(start).serve()
    assert world.post(target="/begin?name=x").status == 200
    world.router.write_flags(percent(0))
    wait_until(lambda: world.post(target="/work/9").body == b'"legacy"', "the flag")
    seen = len(world.origin.requests)
    assert world.post(target="/state?name=x", method="GET", body=None).body == b'{"ran": true}'
    assert world.post("Bearer bad", target="/state?name=x", method="GET", body=None).status == 401
    world.endpoint.stop()
    answer = world.post("Bearer new", target="/state?name=x", method="GET", body=None)
    assert answer.status == 503 and len(world.origin.requests) == seen, "never legacy's"


def test_a_tasks_state_is_told_to_who_is_still_accepted(start):
    world = World(start, cache="0s").serve()
    answer = world.post(fields=[("Prefer", "respond-async")])
    assert answer.status == 202
    location = answer.get("Location")
    assert world.post(target=location, method="GET", body=None).status == 200
    assert world.post("Bearer good-other", target=location, method="GET", body=None).status == 404
    world.endpoint.always(lambda x: x.answer(401))
    assert world.post(target=location, method="GET", body=None).status == 401
    world.endpoint.stop()
    assert world.post(target=location, method="GET", body=None).status == 503


def test_a_reload_asks_the_new_endpoint(start):
    world = World(start).serve()
    assert world.post().status == 200
    other = start.origin()
    other.always(lambda x: x.answer(403))
    world.config["services"]["echo"]["operations"]["work"]["auth"]["check"] = other.url + "/auth"
    world.router.write_config(world.config)
    world.router.signal(1)
    world.router.wait_event("reloaded")
    assert world.post().status == 403 and len(other.requests) == 1


# --- forward ----------------------------------------------------------------------------------------------------------------

def test_a_credential_is_forwarded_where_it_is_declared_and_nowhere_else(start):
    world = World(start, kwargs={"token": {"$ref": "credential"}, "n": {"$ref": "body:/n"}}, forward="header:Authorization")
    world.config["services"]["echo"]["operations"]["work"]["idempotency"] = {"key": "accept"}
    world.config["access_log"] = "all"
    world.serve()
    assert world.post("Bearer " + TOKEN, fields=[("Idempotency-Key", '"k"')]).status == 200
    assert world.runs() == [{"token": "Bearer " + TOKEN, "n": 1}]
    world.router.signal(10)  # debug lines
    assert world.post("Bearer bad" + TOKEN[::-1]).status == 401
    assert world.post("Bearer " + TOKEN, target="/work/3").status == 200
    world.router.wait_outcomes(3)
    assert world.router.stop() == 0
    assert TOKEN not in world.router.log() and TOKEN[::-1] not in world.router.log()
    for name in os.listdir(os.path.join(world.folder, "data")):
        path = os.path.join(world.folder, "data", name)
        if os.path.isfile(path) and not name.startswith("tasks.db"):
            with open(path, "rb") as file:
                text = file.read()
            assert TOKEN.encode() not in text and TOKEN[::-1].encode() not in text, name


def test_check_warns_that_a_queue_holds_what_is_forwarded(start):
    def said(**changed):
        folder = str(start.folder())
        config = World(start, **changed).config
        config["backends"]["embedded"].pop("tasks")
        config["flags"] = {"file": "none.yml"}
        path = os.path.join(folder, "router.yml")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(config, file)
        run = start.run("migration-router", "check", path)
        return run.returncode, run.stdout + run.stderr
    kwargs = {"token": {"$ref": "credential"}}
    code, text = said(kwargs=kwargs, forward="header:Authorization")
    assert "auth.forward" in text and "will hold this credential" in text, text
    code, text = said(kwargs=kwargs)
    assert code != 0 and "needs \"auth: {forward: " in text, text
    code, text = said(forward="header:Authorization")
    assert code != 0 and "has no effect" in text, text
    code, text = said(credentials=["Authorization"])
    assert code != 0 and "expected header:NAME or cookie:NAME" in text, text


def test_idempotency_keys_and_credentials_go_together(start):
    world = World(start)
    world.config["services"]["echo"]["operations"]["work"]["idempotency"] = {"key": "accept"}
    world.serve()
    key = [("Idempotency-Key", '"k"')]
    assert world.post(fields=key).status == 200 and world.post(fields=key).status == 200
    assert len(world.runs()) == 1
    assert world.post("Bearer good-too", fields=key).status == 200 and len(world.runs()) == 2, "another caller's"
    assert world.post("Bearer bad", fields=key).status == 401
    with contextlib.closing(sqlite3.connect(os.path.join(world.folder, "data", "ledger.db"), timeout=30)) as db:
        assert db.execute("SELECT count(*) FROM claims").fetchone()[0] == 2
