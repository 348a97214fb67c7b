"""Idempotency-Key: one execution and one answer for each key of a caller, over restarts, flag flips and two processes."""
import collections
import concurrent.futures
import contextlib
import json
import os
import sqlite3
import sys

import pytest

import configuration as c
from http_text import wait_until

from raw import Client, ask, request
from test_takeover import Place, at_fixed_ports

FLAG = "task_abstraction_enabled"
# Notes each run, and ends when its file of the name that it was given is there (or at once).
TASK = """
import json, os, sys, time
folder = sys.argv[1]
call = json.load(sys.stdin)["kwargs"]
with open(os.path.join(folder, "runs"), "a") as file:
    file.write(call["name"] + "\\n")
while call["name"].startswith("slow") and not os.path.exists(os.path.join(folder, "release")):
    time.sleep(0.02)
if call["name"].startswith("failing"):
    sys.exit("it fails")
print(json.dumps({"name": call["name"], "run": sum(1 for _ in open(os.path.join(folder, "runs"))), "fill": "x" * call.get("size", 0)}))
"""


def percent(n):
    return c.features(c.boolean(FLAG, False, percentage=n))


class World:
    def __init__(self, start, idempotency, **task):
        self.start, self.origin, self.folder = start, start.origin(), str(start.folder())
        self.origin.answers(200, [("Content-Type", "application/json")], b'"legacy"')
        with open(os.path.join(self.folder, "tasks.yml"), "w", encoding="utf-8") as file:
            json.dump({"tasks": [{"name": "work", "exec": {"argv": [sys.executable, "-c", TASK, self.folder]}}]}, file)
        kwargs = {"name": {"$ref": "body:/name"}, "size": {"$ref": "body:/size", "default": 0}}
        self.operation = c.operation("POST /work", {"name": "work", "kwargs": kwargs, "timeout": "30s", "respond_async": True, **task},
                                     idempotency=idempotency)
        self.config = c.router({"echo": c.service(self.origin, {"work": self.operation}, entity=["organization"])},
                               backends=c.embedded(), identity={"organization": ["header:X-Organization-Id"]})
        self.router = self.worker = None

    def serve(self, percentage=100, worker=True):
        self.router = self.start.router(self.config, percent(percentage), folder=self.folder)
        self.worker = self.start.worker(self.router) if worker else None
        return self

    def killed_and_served(self, percentage=100, worker=True):
        self.router.kill()
        if self.worker:
            self.worker.kill()
        return self.serve(percentage, worker)

    @staticmethod
    def call(key=None, name="a", organization="org-1", fields=(), target="/work", **body):
        fields = [("X-Organization-Id", organization), *([("Idempotency-Key", key)] if key is not None else []), *fields]
        return request("POST", target, fields, json.dumps({"name": name, **body}).encode())

    def post(self, *arguments, **how):
        return ask(self.router.port, self.call(*arguments, **how))

    def begin(self, *arguments, **how):
        client = Client(self.router.port)
        client.send(self.call(*arguments, **how))
        return client

    def runs(self):
        try:
            with open(os.path.join(self.folder, "runs"), encoding="utf-8") as file:
                return file.read().split()
        except FileNotFoundError:
            return []

    def wait_run(self, name):
        wait_until(lambda: name in self.runs(), "the run of " + name)

    def release(self):
        open(os.path.join(self.folder, "release"), "x", encoding="utf-8").close()

    @property
    def ledger(self):
        return os.path.join(self.folder, "data", "ledger.db")

    def claims(self):
        with contextlib.closing(sqlite3.connect(self.ledger, timeout=30)) as db:
            db.row_factory = sqlite3.Row
            return [dict(row) for row in db.execute("SELECT * FROM claims")]

    def wait_answered(self, n=1):
        wait_until(lambda: sum(row["phase"] == 2 for row in self.claims()) >= n, "the answer to be in the ledger")

    def reasons(self, n):
        return [(r["side"], r["reason"], r["http_status"]) for r in self.router.wait_outcomes(n)]


@pytest.fixture
def world(start):
    return World(start, {"key": "accept"})


def same(a, b):
    """The same answer; X-Request-ID, Date and Connection are each request's own."""
    def fields(answer):
        return sorted((n.lower(), v) for n, v in answer.head.fields if n.lower() not in ("x-request-id", "date", "connection"))
    return (a.status, a.body, fields(a)) == (b.status, b.body, fields(b))


# --- the same key -----------------------------------------------------------------------------------------------------------

def test_the_same_key_gets_the_same_answer_and_runs_once(world):
    world.serve()
    first = world.post('"k1"')
    again = world.post('"k1"')
    assert first.status == 200 and json.loads(first.body)["run"] == 1
    assert same(first, again)
    assert world.runs() == ["a"]
    assert world.post('"k2"', name="b").status == 200 and world.post(None, name="c").status == 200
    assert world.runs() == ["a", "b", "c"] and world.origin.requests == []
    assert ("task", "pinned", 200) in world.reasons(4)


def test_an_answer_is_the_same_after_kill_9(world):
    world.serve()
    first = world.post('"k"')
    world.wait_answered()
    world.killed_and_served(worker=False)
    assert same(first, world.post('"k"')) and world.runs() == ["a"]


def test_a_task_that_failed_is_not_run_again(world):
    world.serve()
    first = world.post('"k"', name="failing")
    assert first.status == 500
    again = world.post('"k"', name="failing")
    assert (again.status, json.loads(again.body)["detail"]) == (500, json.loads(first.body)["detail"])
    assert world.runs() == ["failing"] and world.origin.requests == []


def test_an_answer_whose_router_was_killed_comes_from_the_backend(world):
    """Submitted, then killed: what the task answers is asked of the backend that has it."""
    world.serve()
    client = world.begin('"k"', name="slow")
    world.wait_run("slow")
    world.router.kill()
    client.close()
    world.serve(worker=False)
    running = world.post('"k"', name="slow")
    assert (running.status, running.get("Retry-After")) == (409, "1")
    world.release()
    answer = wait_until(lambda: (lambda a: a if a.status == 200 else None)(world.post('"k"', name="slow")), "the answer")
    assert json.loads(answer.body)["name"] == "slow" and world.runs() == ["slow"]
    world.wait_answered()
    assert same(answer, world.post('"k"', name="slow")) and world.origin.requests == []


def test_a_caller_who_left_gets_the_answer_when_it_comes_again(world):
    world.serve()
    client = world.begin('"k"', name="slow")
    world.wait_run("slow")
    client.close()
    assert world.post('"k"', name="slow").status == 409
    world.release()
    assert wait_until(lambda: world.post('"k"', name="slow").status == 200, "the answer")
    assert world.runs() == ["slow"]


def test_concurrent_duplicates_run_once(world):
    world.serve()
    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(lambda n: world.post('"k%d"' % (n % 4), name="n%d" % (n % 4)), range(96)))
    assert collections.Counter(world.runs()) == {"n%d" % n: 1 for n in range(4)}
    assert {a.status for a in answers} <= {200, 409} and sum(a.status == 200 for a in answers) >= 4
    for a in answers:
        assert a.status == 409 or json.loads(a.body)["name"][0] == "n"
    for n in range(4):
        assert world.post('"k%d"' % n, name="n%d" % n).status == 200
    assert len(world.runs()) == 4 and world.origin.requests == []


def test_a_202_is_the_same_202(world):
    world.serve()
    first = world.post('"k"', fields=[("Prefer", "respond-async")])
    assert first.status == 202
    again = world.post('"k"', fields=[("Prefer", "respond-async")])
    assert same(first, again) and again.get("Location") == first.get("Location")
    assert len(world.runs()) <= 1


# --- what is not the same ---------------------------------------------------------------------------------------------------

def test_another_body_or_target_is_422(world):
    world.serve()
    assert world.post('"k"').status == 200
    for answer in (world.post('"k"', name="b"), world.post('"k"', target="/work?x=1")):
        assert (answer.status, answer.get("Content-Type")) == (422, "application/problem+json")
    assert world.post('"k"').status == 200 and world.runs() == ["a"] and world.origin.requests == []


def test_a_key_is_its_callers_own(world):
    world.serve()
    assert world.post('"k"').status == 200
    assert world.post('"k"', organization="org-2").status == 200
    assert world.post('"k"', fields=[("Authorization", "Bearer one")]).status == 200
    assert world.post('"k"', fields=[("Authorization", "Bearer two")]).status == 200
    assert world.runs() == ["a"] * 4


@pytest.mark.parametrize("key", ["", "bare", '"', '""', '"open', '"a"b', '"caf\xe9"', '"%s"' % ("x" * 256), '"a", "b"', '"a\\q"'])
def test_a_malformed_key_is_400(world, key):
    world.serve(worker=False)
    answer = world.post(key)
    assert (answer.status, answer.get("Content-Type")) == (400, "application/problem+json")
    assert world.runs() == [] and world.origin.requests == []


def test_two_keys_are_none(world):
    world.serve(worker=False)
    assert world.post('"a"', fields=[("Idempotency-Key", '"a"')]).status == 400


def test_a_key_may_have_escapes_parameters_and_255_characters(world):
    world.serve()
    for key in ('"a\\"\\\\b"', '"p";q=1', '"%s"' % ("x" * 255)):
        assert world.post(key, name="n%d" % len(key)).status == 200
        assert world.post(key, name="n%d" % len(key)).status == 200
    assert len(world.runs()) == 3


def test_where_a_key_is_required_its_absence_is_400_on_the_task_side_only(start):
    world = World(start, {"key": "require"}).serve()
    assert world.post(None).status == 400 and world.runs() == [] and world.origin.requests == []
    assert world.post('"k"').status == 200
    world.killed_and_served(0, worker=False)
    assert world.post(None).body == b'"legacy"'
    assert world.post("malformed").body == b'"legacy"', "what legacy sees it judges itself"


def test_without_a_word_in_the_configuration_the_field_is_legacys(start):
    world = World(start, {"key": "ignore"}).serve()
    assert world.post("malformed").status == 200 and world.post("malformed").status == 200
    assert len(world.runs()) == 2 and world.claims() == []


# --- both sides -------------------------------------------------------------------------------------------------------------

def test_a_key_that_began_as_a_task_stays_there_when_the_flag_goes_to_zero(world):
    world.serve()
    first = world.post('"k"')
    client = world.begin('"s"', name="slow")
    world.wait_run("slow")
    world.killed_and_served(0, worker=False)
    client.close()
    assert same(first, world.post('"k"'))
    assert world.post('"k"', name="b").status == 422
    assert world.post('"s"', name="slow").status == 409
    assert world.origin.requests == [] and world.runs() == ["a", "slow"]
    assert world.post('"new"').body == b'"legacy"'


def test_a_key_that_began_on_legacy_stays_there_when_the_flag_goes_to_a_hundred(world):
    world.serve(0)
    key = '"k" ;p=1'
    assert world.post(key).body == b'"legacy"'
    world.killed_and_served(100)
    assert world.post(key).body == b'"legacy"'
    assert world.post(key, name="b").body == b'"legacy"', "legacy judges its own keys"
    assert [r.head.get("Idempotency-Key") for r in world.origin.requests] == [key] * 3
    assert world.runs() == [] and ("legacy", "pinned", 200) in world.reasons(2)


def test_what_legacy_forgets_may_run_again_but_a_tasks_key_stays(start):
    world = World(start, {"key": "accept", "legacy": "forget"}).serve()
    assert world.post('"t"').status == 200
    world.killed_and_served(0)
    assert world.post('"k"').body == b'"legacy"' and json.loads(world.post('"t"').body)["run"] == 1
    assert len(world.claims()) == 1
    world.killed_and_served(100)
    assert json.loads(world.post('"k"').body)["run"] == 2


def test_a_large_streamed_body_with_a_key_reaches_legacy_whole(world):
    world.config["limits"] = {"max_inspect_body": "64KiB"}
    world.serve(100)
    big = json.dumps({"name": "a", "fill": "x" * 500000}).encode()
    fields = [("X-Organization-Id", "org-1"), ("Idempotency-Key", '"big"')]
    for _ in range(2):
        assert ask(world.router.port, request("POST", "/work", fields, big)).body == b'"legacy"'
    assert [r.body for r in world.origin.requests] == [big, big] and world.claims()[0]["side"] == 1
    chunked = request("POST", "/work", [*fields[:1], ("Idempotency-Key", '"chunks"'), ("Transfer-Encoding", "chunked")])
    chunked += b"".join(b"%x\r\n%s\r\n" % (len(big[i:i + 9000]), big[i:i + 9000]) for i in range(0, len(big), 9000)) + b"0\r\n\r\n"
    assert ask(world.router.port, chunked).body == b'"legacy"'
    assert world.origin.requests[-1].body == big


def test_a_submission_that_was_refused_makes_the_key_legacys(world):
    world.serve(worker=False)
    with contextlib.closing(sqlite3.connect(os.path.join(world.folder, "data", "tasks.db"), timeout=30, isolation_level=None)) as db:
        db.execute("BEGIN EXCLUSIVE")
        assert world.post('"k"').body == b'"legacy"'
        db.execute("ROLLBACK")
    world.killed_and_served(100)
    assert world.post('"k"').body == b'"legacy"' and world.runs() == []


# --- a ledger that cannot tell ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("percentage", [100, 0])
def test_a_ledger_that_cannot_tell_is_503_for_requests_with_a_key(world, percentage):
    world.serve(percentage)
    assert world.post('"before"').status == 200
    with contextlib.closing(sqlite3.connect(world.ledger, timeout=30, isolation_level=None)) as db:
        db.execute("BEGIN EXCLUSIVE")
        answer = world.post('"k"')
        assert (answer.status, answer.get("Retry-After")) == (503, "1")
        assert world.post(None, name="keyless").status == 200, "those without a key go on"
        db.execute("ROLLBACK")
    runs, seen = len(world.runs()), len(world.origin.requests)
    assert world.post('"k"', name="after").status == 200
    assert len(world.runs()) + len(world.origin.requests) == runs + seen + 1
    assert ("pin_unknown", 503) in [r[1:] for r in world.reasons(3)]


def test_a_ledger_that_was_replaced_gets_what_the_old_one_had(world):
    world.serve()
    first = world.post('"k"')
    world.wait_answered()
    for end in ("", "-wal", "-shm"):
        os.unlink(world.ledger + end)
    assert same(first, world.post('"k"')) and world.runs() == ["a"]
    world.killed_and_served(worker=False)
    assert same(first, world.post('"k"'))


def test_a_key_that_was_begun_and_never_submitted_runs_once_later(world):
    """Killed between the claim and the submission, which the embedded store takes once for each id."""
    world.serve()
    assert world.post('"k"').status == 200
    world.wait_answered()
    with contextlib.closing(sqlite3.connect(world.ledger, timeout=30)) as db:
        db.execute("UPDATE claims SET phase = 0, bytes = 0, status = 0, body = NULL, fields = NULL")
        db.commit()
    with contextlib.closing(sqlite3.connect(os.path.join(world.folder, "data", "tasks.db"), timeout=30)) as db:
        db.execute("DELETE FROM task")
        db.commit()
    answer = world.post('"k"')
    assert answer.status == 409, "its attempt may be about to submit"
    with contextlib.closing(sqlite3.connect(world.ledger, timeout=30)) as db:
        db.execute("UPDATE claims SET created_us = created_us - 60000000")
        db.commit()
    assert world.post('"k"').status == 200 and world.post('"k"').status == 200
    assert world.runs() == ["a", "a"]
    with contextlib.closing(sqlite3.connect(world.ledger, timeout=30)) as db:
        db.execute("UPDATE claims SET phase = 1, bytes = 0, status = 0, body = NULL, fields = NULL")
        db.commit()
    with contextlib.closing(sqlite3.connect(os.path.join(world.folder, "data", "tasks.db"), timeout=30)) as db:
        db.execute("DELETE FROM task")
        db.commit()
    assert world.post('"k"').status == 409 and len(world.runs()) == 2, "what was accepted is never run again"


def test_a_backend_that_knows_the_task_keeps_the_promise_where_the_ledger_was_lost(world):
    """The id of the task follows from key and request."""
    world.serve()
    first = world.post('"k"')
    world.router.kill()
    for end in ("", "-wal", "-shm", "-pending"):
        os.unlink(world.ledger + end)
    world.serve(worker=False)
    assert same(first, world.post('"k"')) and world.runs() == ["a"]


# --- limits -------------------------------------------------------------------------------------------------------------------

def test_an_answer_above_the_limit_comes_from_the_backend(start):
    world = World(start, {"key": "accept", "max_answer": 1000}).serve()
    first = world.post('"k"', size=5000)
    assert first.status == 200 and len(first.body) > 5000
    world.wait_answered()
    assert world.claims()[0]["body"] is None
    assert same(first, world.post('"k"', size=5000)) and world.runs() == ["a"]
    with contextlib.closing(sqlite3.connect(os.path.join(world.folder, "data", "tasks.db"), timeout=30)) as db:
        db.execute("DELETE FROM task")
        db.commit()
    answer = world.post('"k"', size=5000)
    assert (answer.status, json.loads(answer.body)["title"]) == (409, "Answer not kept") and world.runs() == ["a"]


def test_what_one_organization_may_keep_is_not_charged_to_others(start):
    world = World(start, {"key": "accept", "max_keys": 3}).serve()
    for n in range(3):
        assert world.post('"%d"' % n).status == 200
    answer = world.post('"3"')
    assert (answer.status, answer.get("Retry-After")) == (429, "1")
    assert world.post('"0"').status == 200, "those that are there are answered"
    assert world.post('"3"', organization="org-2").status == 200
    assert len(world.runs()) == 4 and world.origin.requests == []


def test_keys_are_kept_as_digests_only(world):
    world.serve()
    assert world.post('"very-own-key"', fields=[("Authorization", "Bearer very-own-token")]).status == 200
    world.wait_answered()
    world.router.stop()
    for name in os.listdir(os.path.join(world.folder, "data")):
        path = os.path.join(world.folder, "data", name)
        if os.path.isfile(path):
            with open(path, "rb") as file:
                text = file.read()
            assert b"very-own-key" not in text and b"very-own-token" not in text, name
    assert "very-own" not in world.router.log()


def test_metrics_tell_what_became_of_keys(world):
    world.serve()
    for name in ("a", "a", "b"):
        world.post('"k"', name=name)
    text = ask(world.router.admin_port, request("GET", "/metrics")).body.decode()
    for result in ("begun", "answered", "other_request"):
        assert 'migration_idempotency_keys_total{result="%s"} 1' % result in text
    assert "migration_idempotency_keys_stored 1" in text


# --- two processes ------------------------------------------------------------------------------------------------------------

def test_two_processes_during_a_takeover_run_a_key_once(start):
    world = World(start, {"key": "accept"})
    config = at_fixed_ports(world.config)
    config["flags"] = {"file": "flags.yml"}
    place = Place(start, config)
    world.folder = place.folder
    with open(os.path.join(place.folder, "tasks.yml"), "w", encoding="utf-8") as file:
        json.dump({"tasks": [{"name": "work", "exec": {"argv": [sys.executable, "-c", TASK, place.folder]}}]}, file)
    with open(os.path.join(place.folder, "flags.yml"), "w", encoding="utf-8") as file:
        json.dump(percent(100), file)
    old = place.serve()
    old.folder, old.config_path, old.port = place.folder, place.path, place.port
    world.router = old
    world.start.worker(old)
    first = world.post('"k"')
    assert first.status == 200
    client = world.begin('"s"', name="slow")
    world.wait_run("slow")
    new = place.take_over()
    assert same(first, world.post('"k"')), "answered by the new process"
    assert world.post('"s"', name="slow").status == 409
    world.release()
    own = client.read("POST")
    assert own.status == 200
    again = wait_until(lambda: (lambda a: a if a.status == 200 else None)(world.post('"s"', name="slow")), "the answer")
    assert same(own, again)
    client.close()
    assert old.wait() == 0 and new.popen.poll() is None
    assert same(first, world.post('"k"')) and sorted(world.runs()) == ["a", "slow"] and world.origin.requests == []
