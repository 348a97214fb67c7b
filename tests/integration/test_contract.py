"""One contract over every backend: the same YAML but one variable, real routers, workers of the existing convention.

A caller must not be able to tell which backend has run its task. Where the engines differ nevertheless, the expectation is a table with
one row per backend here, and a sentence in docs/task-states.md.
"""
import collections
import concurrent.futures
import contextlib
import json
import os
import sqlite3
import statistics
import threading
import time

import pytest

import configuration as c
from engines import ENGINES, PLACES
from hatchet import token
from http_text import PATIENCE, wait_until
from lossy import BlackHole
from programs import backends_built
from raw import Client, Cut, ask, request

LEGACY = b'"legacy"'
CROWD = 1000
NAMES = ["add_numbers", "concat_with_number", "format_result_message", "process_data", "health_check", "echo", "simulate_work",
         "give_back", "give_size", "describe", "fail"]


def task(name, **more):
    return {"name": name, "args": {"$ref": "body:/args"}, "kwargs": {"$ref": "body:/kwargs", "default": {}}, "timeout": "40s", **more}


def others_built():
    return [name for name in backends_built() if name in ("celery", "temporal", "hatchet")]


def operations():
    found = {name: c.operation("POST /" + name, task(name)) for name in NAMES}
    found.update({
        "count": c.operation("POST /count", task("count", timeout="10m", respond_async=True)),
        "hold": c.operation("POST /hold", task("hold", timeout="10m", respond_async=True)),
        "keyed": c.operation("POST /keyed", task("hold", timeout="100s"), idempotency={"key": "accept"}),
        "impatient": c.operation("POST /impatient", task("hold", timeout="2s")),
        "unattended": c.operation("POST /unattended", task("count", timeout="2s")),
        "later": c.operation("POST /later", task("give_back", respond_async=True)),
        "long": c.operation("POST /long-name", task(LONG, timeout="10m", respond_async=True)),
        "expiring": c.operation("POST /expiring", task("count", respond_async=True, expires="1s")),
        "limited": c.operation("POST /limited", task("hold", timeout="8s", task_timeout="1s")),
        "fragile": c.operation("POST /fragile", task("hold", timeout="8s")),
        "nobody": c.operation("POST /nobody", task("unheard_of", timeout="15s", task_timeout="2s")),
        "follow": c.operation("POST /follow", task("count"), pin={"group": "things", "key": "body:/thing", "role": "follow"}),
        "begin": c.operation("POST /begin", task("count"), pin={"group": "things", "key": "body:/thing", "role": "start"}),
        # As it is deployed: one positional argument, the old body inside, the old answer out.
        "answer_prompt": c.operation("POST /answer-prompt", {
            "name": "execute_extraction", "timeout": "40s",
            "args": [{"executor_name": "legacy", "operation": "answer_prompt", "run_id": {"$ref": "body:/run_id"},
                      "organization_id": {"$ref": "identity:organization"}, "executor_params": {"$ref": "body:"},
                      "request_id": {"$ref": "request:id"}}],
            "response": [{"when": {"ref": "result:/success", "equals": True}, "body": {"$ref": "result:/data"}},
                         {"status": 500, "body": {"error": {"$ref": "result:/error"}, "code": 500}}]}),
    })
    for name in others_built():
        found["dead_" + name] = c.operation("POST /dead/" + name, task("count", timeout="2s", backend=name))
    return found


class World:
    """A router, the engine that its one variable names, a worker of that engine, and the legacy service behind. The configuration names
    the other engines, too, at addresses where nobody ever answers."""

    def __init__(self, start, kind, engine_folder, hole):
        self.start, self.name, self.hole = start, kind.name, hole
        self.engine = kind(engine_folder)
        self.origin = start.origin()
        self.origin.answers(200, [("Content-Type", "application/json")], LEGACY)
        files = str(start.folder())
        with open(os.path.join(files, "tasks.yml"), "w", encoding="utf-8") as file:
            json.dump(getattr(self.engine, "tasks", {"tasks": []}), file)
        nowhere = "127.0.0.1:%d" % hole.port
        others = {"celery": {"broker_url": "redis://%s/0" % nowhere, "max_input": 3 << 20},
                  "temporal": {"http_url": "http://" + nowhere}, "hatchet": {"token": token("http://" + nowhere)}}
        self.backends = {"embedded": {"database": os.path.join(files, "tasks.db"), "tasks": os.path.join(files, "tasks.yml")},
                         **{name: others[name] for name in others_built()}}
        self.router = self.start_router(start.folder())
        self.engine.attach(start, self.router)
        self.engine.start_worker()

    def start_router(self, folder, env=None, **changed):
        # The same for every backend.
        config = c.router({"app": c.service(self.origin, operations(), limits={"max_body": "80MiB"})}, identity=c.IDENTITY,
                          limits={"max_inspect_body": "80MiB"},
                          backends={name: {"when_not_ready": "submit", **settings, **changed.get(name, {})}
                                    for name, settings in self.backends.items()})
        return self.start.router(config, c.features(c.boolean("task_abstraction_enabled", True)), folder=folder,
                                 env={"TASK_QUEUE_BACKEND": self.name, **(env or self.engine.env)})

    def another_router(self, env=None, **changed):
        """Beside the first, with the same engine."""
        return self.start_router(self.start.folder(), env, **changed)

    @staticmethod
    def call(path, *args, body=None, **fields):
        body = json.dumps({"args": args}, ensure_ascii=False).encode() if body is None else body
        named = [("Content-Type", "application/json"), ("X-User-Id", "u"), ("X-Organization-Id", "org-1")]
        named += [(n.replace("_", "-"), v) for n, v in fields.items()]
        return request("POST", path, named, body)

    def post(self, path, *args, router=None, **how):
        try:
            return ask((router or self.router).port, self.call(path, *args, **how))
        except (OSError, Cut) as why:
            raise AssertionError("no answer, %r; %s" % (why, self.engine.story())) from why

    def begin(self, path, *args, **how):
        """The request is sent; `.read("POST")` waits for its answer."""
        client = Client(self.router.port, patience=600)
        client.send(self.call(path, *args, **how))
        return client

    def submit(self, path, *args, **how):
        """Accepted, not waited for: where its state is told."""
        answer = self.post(path, *args, Prefer="respond-async", **how)
        assert answer.status == 202, answer.body
        return answer.get("Location")

    def ask_state(self, location, method="GET", router=None):
        return ask((router or self.router).port,
                   request(method, location, [("X-User-Id", "u"), ("X-Organization-Id", "org-1")]))

    def state(self, location, router=None):
        answer = self.ask_state(location, router=router)
        assert answer.status == 200, answer.body
        return json.loads(answer.body)

    def ended(self, location, router=None, was_away=False):
        def told():
            answer = self.ask_state(location, router=router)
            if was_away and answer.status == 503:
                return None
            assert answer.status == 200, answer.body
            state = json.loads(answer.body)
            return state if state["status"] in ("completed", "failed") else None
        return wait_until(told, "the task's end", PATIENCE * 2)

    def is_reachable(self):
        backends = json.loads(ask(self.router.admin_port, request("GET", "/readyz")).body)["backends"]
        return next(b["reachable"] for b in backends if b["name"] == self.name)

    def outcome(self, request_id):
        return self.router.wait_outcomes(1, "request_id = '%s'" % request_id)[0]

    @contextlib.contextmanager
    def every_place_taken(self, name):
        """What is submitted within it waits until it calls what it was given."""
        with self.engine.holding() as release:
            holders = [self.begin("/hold", "%s holder %d" % (name, n)) for n in range(PLACES)]
            for n in range(PLACES):
                self.engine.wait_run("begin %s holder %d" % (name, n))
            yield release
        for n, holder in enumerate(holders):
            assert holder.read("POST").body == b'"%s holder %d"' % (name.encode(), n)
            holder.close()


@pytest.fixture(scope="module", params=ENGINES, ids=lambda kind: kind.label or kind.name)
def shared(request, tmp_path_factory):  # pylint: disable=redefined-outer-name
    from conftest import Started
    hole, started = BlackHole(), Started(tmp_path_factory)
    one = World(started, request.param, tmp_path_factory.mktemp("engine"), hole)
    yield one
    started.end()
    one.engine.stop()
    hole.close()


@pytest.fixture
def world(shared):
    shared.origin.clear()
    shared.origin.answers(200, [("Content-Type", "application/json")], LEGACY)
    if not shared.engine.worker:  # a test before failed half-way
        shared.engine.start_worker()
    return shared


def detail(answer):
    return json.loads(answer.body)["detail"]


# --- idempotency keys -------------------------------------------------------------------------------------------------------

def forgets(world):
    """With rpc:// results come to the router's own queue: it knows those that have come, and a later one knows of none."""
    return world.engine.label == "celery-amqp-rpc"


def test_an_idempotency_key_is_one_task_over_kill_9_and_a_flag_flip(world):
    if forgets(world):
        pytest.skip("a result by rpc:// ends with its router")
    folder, key = world.start.folder(), {"Idempotency_Key": '"contract"'}

    def phases():
        with contextlib.closing(sqlite3.connect(os.path.join(str(folder), "data", "ledger.db"), timeout=30)) as db:
            return [row[0] for row in db.execute("SELECT phase FROM claims")]
    first = world.start_router(folder)
    with world.engine.holding():
        client = Client(first.port)
        client.send(world.call("/keyed", "under a key", **key))
        world.engine.wait_run("begin under a key")
        wait_until(lambda: phases() == [1], "the acceptance to be in the ledger")
        first.kill()
        client.close()
        second = world.start_router(folder)
        second.write_flags(c.features(c.boolean("task_abstraction_enabled", False)))
        wait_until(lambda: world.post("/echo", "x", router=second).body == LEGACY, "the flag")
        answer = world.post("/keyed", "under a key", router=second, **key)
        assert (answer.status, answer.get("Retry-After")) == (409, "1")
        assert world.post("/keyed", "another body", router=second, **key).status == 422
    answer = wait_until(lambda: (lambda a: a if a.status != 409 else None)(world.post("/keyed", "under a key", router=second, **key)),
                        "the answer")
    assert (answer.status, answer.body) == (200, b'"under a key"')
    assert world.engine.runs("begin under a key") == 1
    wait_until(lambda: phases() == [2], "the answer to be in the ledger")
    assert world.post("/keyed", "under a key", router=second, **key).body == answer.body
    second.stop()


# --- results ----------------------------------------------------------------------------------------------------------------

def test_result(world):
    answer = world.post("/add_numbers", 2, 3, X_Request_ID="contract-result")
    assert (answer.status, answer.body, answer.get("Content-Type")) == (200, b"5", "application/json")
    row = world.outcome("contract-result")
    assert (row["side"], row["role"], row["result"], row["backend"]) == ("task", "primary", "success", world.name)


@pytest.mark.parametrize("body, result", [
    ('"args": [40, 2]', 42), ('"args": [], "kwargs": {"a": 1, "b": 2.5}', 3.5)])
def test_core_add_numbers(world, body, result):
    assert json.loads(world.post("/add_numbers", body=b"{%s}" % body.encode()).body) == result


@pytest.mark.parametrize("name, args, result", [
    ("concat_with_number", ["n", 7], "n7"), ("format_result_message", [1.5], "Result is 1.5"), ("echo", ["hé"], "Echo: hé")])
def test_core_texts(world, name, args, result):
    assert json.loads(world.post("/" + name, *args).body) == result


@pytest.mark.parametrize("name, args, members", [
    ("process_data", [{"a": "x"}], {"original": {"a": "x"}, "operation": "validate", "status": "completed", "valid": True}),
    ("process_data", [{"a": "x"}, "transform"], {"transformed": {"a": "X"}}), ("process_data", [{"a": 1}, "count"], {"count": 1}),
    ("health_check", [], {"status": "healthy", "worker": "task-abstraction", "message": "Worker is operational"}),
    ("simulate_work", [0.01], {"requested_duration": 0.01, "status": "completed"})])
def test_core_objects(world, name, args, members):
    told = json.loads(world.post("/" + name, *args).body)
    assert {key: told[key] for key in members} == members


def test_an_existing_task_answers_in_the_old_shape(world):
    body = {"run_id": "r-1", "outputs": [{"name": "total"}], "n": 1.5}
    answer = world.post("/answer-prompt", body=json.dumps(body).encode(), X_Request_ID="contract-old-shape")
    assert (answer.status, answer.get("Content-Type")) == (200, "application/json")
    assert json.loads(answer.body) == {"operation": "answer_prompt", "echo": body, "run_id": "r-1", "organization": "org-1",
                                       "request": "contract-old-shape"}
    failed = world.post("/answer-prompt", body=json.dumps({**body, "explode": True}).encode())
    assert (failed.status, json.loads(failed.body)) == (500, {"error": "the model refused", "code": 500})


# --- values -----------------------------------------------------------------------------------------------------------------

CONTROL = "".join(map(chr, range(1, 32)))


@pytest.mark.parametrize("value", ["é😀 ”quoted”\\ /", CONTROL, "\x7f\x80\x9f\u2028\u2029\ufeff\ufffd", "e\u0301 ‮عربى‬ 👩\u200d👩\u200d👧",
                                   "\U0010ffff\U00010000", "", {"ключ": ["値", None, True], "": {"a b": []}}])
def test_unicode(world, value):
    answer = world.post("/give_back", value)
    assert (answer.status, json.loads(answer.body)) == (200, value)
    escaped = world.post("/give_back", body=json.dumps({"args": [value]}).encode())
    assert json.loads(escaped.body) == value


# What the task sees (Python's words for it) and what comes back. Hatchet reads all numbers into doubles, and what would be rounded is not
# given to it: legacy.
NUMBERS = [
    # text, seen, back, seen behind Hatchet
    ("9007199254740993", "9007199254740993", "9007199254740993", None),
    ("-9223372036854775809", "-9223372036854775809", "-9223372036854775809", None),
    ("1" + "0" * 40, "1" + "0" * 40, "1" + "0" * 40, None),
    ("9007199254740991", "9007199254740991", "9007199254740991", "9007199254740991"),
    ("1.0", "1.0", "1.0", "1"), ("-0.0", "-0.0", "-0.0", "0"), ("0.1", "0.1", "0.1", "0.1"), ("1E2", "100.0", "100.0", "100"),
    ("5e-324", "5e-324", "5e-324", "5e-324"), ("-1.5", "-1.5", "-1.5", "-1.5"),
    ("3.14159265358979323846264338327950288", "3.141592653589793", "3.141592653589793", "3.141592653589793"),
]


@pytest.mark.parametrize("text, seen, back, doubled", NUMBERS, ids=[row[0] for row in NUMBERS])
def test_numbers(world, text, seen, back, doubled):
    answers = [world.post(path, body=b'{"args": [%s]}' % text.encode()) for path in ("/describe", "/give_back")]
    if world.name == "hatchet":
        seen = back = doubled
    if seen is None:
        assert [a.body for a in answers] == [LEGACY, LEGACY]
    else:
        assert [json.loads(answers[0].body), answers[1].body.decode()] == [seen, back]


def writes_infinity(world):
    """Its workers are Python's: they write Infinity, and say that the task has succeeded."""
    return world.name in ("celery", "temporal") and world.engine.label not in ("celery-c", "temporal-c")


def test_a_number_that_is_no_double(world):
    """JSON has it, and it arrives; what a worker makes of it is not JSON and comes to a visible end. Hatchet refuses it."""
    answers = [world.post(path, body=b'{"args": [1e400]}') for path in ("/describe", "/give_back")]
    if world.name == "hatchet":
        assert [a.body for a in answers] == [LEGACY, LEGACY]
        return
    assert json.loads(answers[0].body) == "inf"
    unreadable = writes_infinity(world)
    assert answers[1].status == (502 if unreadable else 500), answers[1].body
    assert ("cannot be read" if unreadable else "JSON") in detail(answers[1])


def test_a_look_at_an_end_that_cannot_be_read(world):
    """It is not said to be out of reach: who asks again and again would never learn that it has ended."""
    if not writes_infinity(world):
        pytest.skip("its workers write no such result")
    location = world.post("/later", body=b'{"args": [1e400]}', Prefer="respond-async").get("Location")
    answer = wait_until(lambda: (lambda a: a if a.status != 200 else None)(world.ask_state(location)), "the task's end", PATIENCE * 2)
    told = json.loads(answer.body)
    assert (answer.status, told["title"], answer.get("Retry-After")) == (502, "Result unreadable", None)
    assert "has ended" in told["detail"]


def deep(levels):
    return "[" * levels + "]" * levels


# Where the workers are Python's, which reads less than JSON has; Hatchet has doubles only.
@pytest.mark.parametrize("text", ["7" * 4301, deep(480), deep(1000), deep(2000), '{"a": [%s]}' % ("-" + "7" * 5000)],
                         ids=["4301 digits", "480 levels", "1000 levels", "2000 levels", "5000 digits"])
def test_what_workers_cannot_read_is_legacys(world, text):
    if world.name == "embedded":
        pytest.skip("hands over text; what reads it is the task's own")
    if text == deep(480) and world.name != "celery":
        pytest.skip("read there")
    answer = world.post("/give_back", body=b'{"args": [%s]}' % text.encode(), X_Request_ID="contract-unreadable")
    assert (answer.status, answer.body) == (200, LEGACY)
    row = world.router.wait_outcomes(1, "request_id = 'contract-unreadable'")[-1]
    assert (row["side"], row["role"], row["reason"]) == ("legacy", "primary", "input_not_representable")


@pytest.mark.parametrize("text", ["7" * 4300, deep(399), deep(790)], ids=["4300 digits", "399 levels", "790 levels"])
def test_what_workers_can_read_is_read(world, text):
    if world.name == "hatchet" and text.isdigit():
        pytest.skip("it has doubles only")
    if world.name == "celery" and text == deep(790):
        pytest.skip("a pool of processes takes no more than about 470, at which its worker ends")
    answer = world.post("/give_back", body=b'{"args": [%s]}' % text.encode())
    assert (answer.status, answer.body.decode()) == (200, text)


def test_a_megabyte_both_ways(world):
    text = "x€" * (1 << 18)  # 4 bytes each
    assert world.post("/give_size", text).body.strip() == b"524288"
    assert json.loads(world.post("/give_back", text).body) == text


# Bytes of args and kwargs. Embedded and Celery take more than a caller of these services ever sends; Celery's is a setting.
LIMITS = {"embedded": 64 << 20, "celery": 3 << 20, "temporal": (2 << 20) - 1024, "hatchet": 4000000}


def test_the_largest_input_and_one_more(world):
    limit = LIMITS[world.name]
    text = "x" * (limit - len('[""]{}'))
    if limit <= 4 << 20:
        assert world.post("/give_size", text).body.strip() == b"%d" % len(text)
    answer = world.post("/give_size", text + "x", X_Request_ID="contract-too-large")
    assert (answer.status, answer.body) == (200, LEGACY)
    row = world.outcome("contract-too-large")
    assert (row["side"], row["role"], row["reason"]) == ("legacy", "primary", "input_too_large")


# --- ends -------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("message", ["the model is away", "Überlauf: 😀 nichts geht mehr", "ValueError: not the class", "two\nlines"])
def test_failure_tells_the_real_message(world, message):
    answer = world.post("/fail", message, X_Request_ID="contract-fail")
    assert (answer.status, detail(answer)) == (500, message)
    assert world.outcome("contract-fail")["result"] == "failure"
    assert world.origin.requests == [], "a task that ran and failed is never run again on legacy"


def test_failure_keeps_where_it_happened_for_people(world):
    told = world.start.run("migration-router", "check", world.router.config_path, "--test", "app.fail", "--body",
                           '{"args": ["the model is away"]}', env={"TASK_QUEUE_BACKEND": world.name, **world.engine.env})
    message, _, where = told.stdout.partition("\nerror      ")[2].partition("\n")
    where = where.partition("\nanswer ")[0]
    assert message == "the model is away", told.stdout + told.stderr
    assert "ValueError: the model is away" in where and "core_tasks.py" in where and "in fail" in where
    assert world.name == "hatchet" or "KeyError: 'inner'" in where


def test_missing_argument_is_named(world):
    answer = world.post("/add_numbers", 1)
    assert answer.status == 500 and "'b'" in detail(answer)


def test_the_callers_time_limit(world):
    with world.engine.holding():
        answer = world.post("/impatient", "impatient", X_Request_ID="contract-short")
        assert answer.status == 504
        row = world.outcome("contract-short")
        assert row["result"] == "timeout" and row["task_id"] in detail(answer)
        world.engine.wait_run("begin impatient")
    world.engine.wait_run("end impatient")  # it goes on to its end
    assert world.engine.runs("begin impatient") == 1 and world.origin.requests == []


# The time limit of the task itself. Hatchet's is declared with the workflow, in its worker.
LIMITED = {"embedded": (500, "timed out after 1000 ms"), "celery": (500, "timed out after 1 s"), "temporal": (500, "timed out"),
           "hatchet": (504, None)}


def test_the_tasks_time_limit(world):
    with world.engine.holding():
        answer = world.post("/limited", "limited")
        assert answer.status == LIMITED[world.name][0]
        assert LIMITED[world.name][1] in (None, detail(answer))
    # on a busy machine a program may have been ended before it came to say that it had begun
    assert world.engine.runs("begin limited") <= 1 and world.origin.requests == []


# Hatchet is asked whether there is such a workflow: provably not accepted. Temporal takes it, and no worker knows it.
# An embedded worker leaves it to those who know it.
UNKNOWN = {"embedded": (504, ...), "temporal": (500, "timed out"),
           "celery": (500, "the task unheard_of is not registered with the worker that received it"), "hatchet": (200, None)}


def test_unknown_task(world):
    answer = world.post("/nobody", "x", X_Request_ID="contract-unknown")
    status, said = UNKNOWN[world.name]
    assert answer.status == status
    if said is None:
        assert answer.body == LEGACY and len(world.origin.requests) == 1
    else:
        assert said in (..., detail(answer).split(";")[0]) and world.origin.requests == []
    assert world.outcome("contract-unknown")["result"] == ("timeout" if status == 504 else "failure")


# --- cancelling ---------------------------------------------------------------------------------------------------------------

# What it is called while it waits for a place: Temporal has begun the workflow by then, its activity waits.
WAITS = {"embedded": "pending", "celery": "pending", "temporal": "running", "hatchet": "pending"}
CANCELLED = {"embedded": "cancelled before it was started", "celery": "revoked", "temporal": "cancelled", "hatchet": "cancelled"}


def test_cancel_of_a_waiting_task(world):
    with world.every_place_taken("cancel"):
        location = world.submit("/count", "cancelled in time")
        wait_until(lambda: world.state(location)["status"] == WAITS[world.name], "the task to wait")
        assert world.ask_state(location, "DELETE").status == 202
        world.engine.wait_revoked(location.rsplit("/", 1)[1])
        if world.name != "celery":  # which tells when its turn comes
            world.ended(location)
    state = world.ended(location)
    assert (state["status"], state["error"]) == ("failed", CANCELLED[world.name])
    assert world.post("/count", "after the cancelled one").status == 200
    assert world.engine.runs("cancelled in time") == 0


# Celery is told to let it go on (setting `terminate`); an activity of Temporal and a thread of Hatchet's worker go on unheard.
CANCELLED_RUNNING = {"embedded": ("failed", "cancelled while it ran", 0), "celery": ("completed", None, 1),
                     "temporal": ("failed", "cancelled", 1), "hatchet": ("failed", "cancelled", 1)}


def test_cancel_of_a_running_task(world):
    status, error, ends = CANCELLED_RUNNING[world.name]
    with world.engine.holding() as release:
        location = world.submit("/hold", "cancelled late")
        world.engine.wait_run("begin cancelled late")
        wait_until(lambda: world.state(location)["status"] == "running", "the task to run")
        assert world.ask_state(location, "DELETE").status == 202
        if status == "completed":
            release()
        state = world.ended(location)
        assert (state["status"], state["error"]) == (status, error)
    assert world.post("/count", "after the one cancelled late").status == 200
    if ends:
        world.engine.wait_run("end cancelled late")
    assert (world.engine.runs("begin cancelled late"), world.engine.runs("end cancelled late")) == (1, ends)
    assert world.ask_state(location, "DELETE").status == 202  # it has ended: nothing to do
    assert world.state(location)["status"] == status


# Longer than what the ledger keeps of a name.
LONG = "test_a_name_that_is_longer_than_what_the_ledger_keeps_of_it_" + "and_more_" * 5
STATE = ["task_id", "task_name", "status", "result", "error", "started_at", "completed_at"]


def test_a_state_has_the_same_members_and_the_operations_name(world):
    """Queued, running and ended; as the 202 has it. Celery's metas tell no start (docs/task-states.md)."""
    with world.every_place_taken("names") as release:
        accepted = world.post("/count", "named and waiting", Prefer="respond-async")
        waiting = accepted.get("Location")
        queued = wait_until(lambda: (lambda s: s if s["status"] == WAITS[world.name] else None)(world.state(waiting)), "the task to wait")
        release()
    assert list(json.loads(accepted.body)) == list(queued) == STATE
    ended = world.ended(waiting)
    with world.engine.holding() as release:
        running_at = world.submit("/hold", "named and running")
        world.engine.wait_run("begin named and running")
        running = wait_until(lambda: (lambda s: s if s["status"] == "running" else None)(world.state(running_at)), "the task to run")
        release()
        world.ended(running_at)
    assert list(ended) == list(running) == STATE
    assert [json.loads(accepted.body)["task_name"], queued["task_name"], ended["task_name"], running["task_name"]] == [
        "count", "count", "count", "hold"]
    for state in (running, ended):
        assert state["started_at"] is None if world.name == "celery" else state["started_at"].startswith("20"), state
    assert ended["completed_at"].startswith("20") and (running["completed_at"], queued["completed_at"]) == (None, None)


def test_a_long_name_is_told_whole(world):
    if world.name not in ("embedded", "celery"):
        pytest.skip("the same code; these two take a task that no worker knows")
    accepted = world.post("/long-name", Prefer="respond-async")
    assert (accepted.status, json.loads(accepted.body)["task_name"]) == (202, LONG)
    assert world.state(accepted.get("Location"))["task_name"] == LONG


def test_celery_ends_a_running_task_when_told_to(world):
    if world.name != "celery":
        pytest.skip("a setting of celery")
    router = world.another_router(celery={"terminate": "true"})
    with world.engine.holding():
        location = world.post("/hold", "terminated", router=router, Prefer="respond-async").get("Location")
        world.engine.wait_run("begin terminated")
        assert world.ask_state(location, "DELETE", router).status == 202
        state = world.ended(location, router)
        assert (state["status"], state["error"]) == ("failed", "terminated")
    assert world.engine.runs("end terminated") == 0


# --- many ---------------------------------------------------------------------------------------------------------------------

def test_a_thousand_at_once(world):
    """All are sent before the first can run; each caller gets its own answer, and the workers ran each once."""
    keys = ["crowd-%d" % n for n in range(CROWD)]
    with world.every_place_taken("crowd"):
        callers = [world.begin("/count", key) for key in keys]
    answers = []
    for caller in callers:
        answers.append(caller.read("POST"))
        caller.close()
    assert collections.Counter(a.status for a in answers) == {200: CROWD}
    assert [a.body for a in answers] == [b'"%s"' % key.encode() for key in keys]
    ran = collections.Counter(line for line in world.engine.lines() if line.startswith("crowd-"))
    assert ran == collections.Counter(keys) and world.origin.requests == []


# --- the same twice -----------------------------------------------------------------------------------------------------------

def test_the_same_request_twice_is_two_requests(world):
    """The caller's affair: who sends again wants it again; and never gets another call's result."""
    for _ in range(2):
        assert world.post("/count", "sent twice", X_Request_ID="contract-twice").body == b'"sent twice"'
    assert world.engine.runs("sent twice") == 2
    answers = [world.post("/add_numbers", n, n, X_Request_ID="contract-two") for n in (1, 2)]
    assert [a.body for a in answers] == [b"2", b"4"]
    ids = {r["task_id"] for r in world.router.wait_outcomes(4, "request_id IN ('contract-twice', 'contract-two')")}
    assert len(ids) == 4


# Temporal knows the first by its request id, Hatchet is asked for it; Celery cannot be asked before there is a result,
# and a fast worker's may be heard before the lost reply is noticed.
LOST_REPLY = {"celery": [(504, "unknown"), (200, "success")], "temporal": [(200, "success")], "hatchet": [(200, "success")]}


def test_a_lost_reply_to_a_submission(world):
    if world.name == "embedded":
        pytest.skip("nothing lies between router and file; test_router_killed has what comes nearest")
    lossy, env = world.engine.through()
    router = world.another_router(env)
    assert world.post("/count", "before the lost one", router=router).status == 200
    lossy.lose_reply_to(world.engine.submission)
    answer = world.post("/count", "lost reply", router=router, X_Request_ID="contract-lost")
    row = router.wait_outcomes(1, "request_id = 'contract-lost'")[0]
    assert (answer.status, row["result"]) in LOST_REPLY[world.name] and row["side"] == "task" and lossy.lost == 1
    world.engine.wait_run("lost reply")
    # What met the closed connection was not sent, and went to legacy.
    wait_until(lambda: world.post("/count", "after the lost one", router=router).body != LEGACY, "a new connection")
    assert world.engine.runs("lost reply") == 1
    assert not any(r.head.get("X-Request-ID") == "contract-lost" for r in world.origin.requests)
    router.stop()
    lossy.close()


# --- parts that go away ---------------------------------------------------------------------------------------------------------

# Celery's workers are the only ones to hear of a revocation; without one that is said.
CANCEL_UNHEARD = {"embedded": 202, "celery": 503, "temporal": 202, "hatchet": 202}
CANCELLED_UNHEARD = {"embedded": "cancelled before it was started", "temporal": "terminated: cancelled before a worker took it",
                     "hatchet": "cancelled"}


def test_no_worker(world):
    world.engine.stop_worker()
    answer = world.post("/unattended", "waits for a worker", X_Request_ID="contract-no-worker")
    assert answer.status == 504 and world.outcome("contract-no-worker")["result"] == "timeout"
    kept, dropped = world.submit("/count", "kept"), world.submit("/count", "dropped")
    assert [world.state(location)["status"] for location in (kept, dropped)] == ["pending", "pending"]
    assert world.ask_state(dropped, "DELETE").status == CANCEL_UNHEARD[world.name]
    world.engine.start_worker()
    assert world.ended(kept)["result"] == "kept"
    world.engine.wait_run("waits for a worker")
    state = world.ended(dropped)
    assert state["error"] == CANCELLED_UNHEARD.get(world.name)
    assert [world.engine.runs(key) for key in ("kept", "waits for a worker", "dropped")] == [1, 1, int(world.name == "celery")]
    assert world.origin.requests == []


def not_ready(router, backend):
    told = json.loads(ask(router.admin_port, request("GET", "/readyz")).body)["not_ready"]
    return [entry["operation"] for entry in told if entry["backend"] == backend]


@pytest.mark.parametrize("cause", ["worker", "engine"])
def test_what_is_known_not_to_be_run_is_served_by_legacy(world, cause):
    """Nothing is submitted, so that nothing runs late; and the task side is back by itself."""
    if (world.name, cause) in [("temporal", "worker"), ("embedded", "engine")]:
        pytest.skip("a gone worker is told after 75 s" if cause == "worker" else "who holds its file is seen by writing only")
    router = world.another_router(**{world.name: {"when_not_ready": "legacy"}})
    wait_until(lambda: "app.count" not in not_ready(router, world.name), "a worker, if a test before had it gone", 2 * PATIENCE)
    assert world.post("/count", "before", router=router).body == b'"before"'
    (world.engine.stop_worker if cause == "worker" else world.engine.lose)()
    wait_until(lambda: "app.count" in not_ready(router, world.name), "the router to know", 2 * PATIENCE)
    answer = world.post("/count", "%s is away" % cause, router=router, X_Request_ID="not-ready")
    assert answer.body == LEGACY
    rows = router.wait_outcomes(1, "request_id = 'not-ready'")  # one, so that nobody waited for a try
    assert [(r["side"], r["role"], r["reason"], r["result"]) for r in rows] == [("legacy", "primary", "backend_not_ready", "success")]
    (world.engine.start_worker if cause == "worker" else world.engine.find)()
    if cause == "engine":
        world.engine.mend_worker()
    wait_until(lambda: "app.count" not in not_ready(router, world.name), "the router to know", 2 * PATIENCE)
    assert world.post("/count", "after", router=router).body == b'"after"'
    assert world.engine.runs("%s is away" % cause) == 0


# Temporal and Hatchet have no such limit for one call.
EXPIRED = {"embedded": ("failed", "expired before a worker started it", 0), "celery": ("failed", "expired", 0),
           "temporal": ("completed", None, 1), "hatchet": ("completed", None, 1)}


def test_a_task_that_expires(world):
    world.engine.stop_worker()
    location, sent = world.submit("/expiring", "expires"), time.time()
    if world.name == "embedded":
        world.ended(location)
    wait_until(lambda: time.time() > sent + 1.1, "the second to pass")
    world.engine.start_worker()
    state = world.ended(location)
    assert (state["status"], state["error"], world.engine.runs("expires")) == EXPIRED[world.name]
    assert world.origin.requests == []


def test_engine_restarted_in_the_middle(world):
    """Tasks run and wait while it is away: callers and pollers get their results, each ran once. Where the engine lost a result,
    the caller is told that the task was accepted, and nothing else."""
    callers = {"caller %d" % n for n in range(PLACES)}
    with world.engine.holding() as release:
        waiting = {key: world.begin("/hold", key) for key in callers}
        for key in callers:
            world.engine.wait_run("begin " + key)
        queued = {"queued %d" % n: world.submit("/hold", "queued %d" % n) for n in range(PLACES)}
        world.engine.restart()
        release()
        answers = {key: client.read("POST") for key, client in waiting.items()}
        world.engine.mend_worker()
        ends = {key: world.ended(location, was_away=True) for key, location in queued.items()}
    for key, answer in answers.items():
        if answer.status == 504 and world.engine.never_wrote_result(json.loads(answer.body)["task_id"]):
            continue
        assert (answer.status, json.loads(answer.body)) == (200, key)
    assert {key: (end["status"], end["result"]) for key, end in ends.items()} == {key: ("completed", key) for key in queued}
    assert [world.engine.runs("begin " + key) for key in [*callers, *queued]] == [1] * (2 * PLACES)


# Embedded's file can be read while another process holds it for writing.
STATE_WHEN_GONE = {"embedded": 200, "celery": 503, "temporal": 503, "hatchet": 503}


def test_engine_gone_and_back(world):
    before = world.submit("/count", "before it went")
    world.ended(before)
    assert world.post("/begin", body=b'{"args": ["pinned"], "thing": "t"}').status == 200
    wait_until(world.is_reachable, "the engine to be there, if a test before had it gone", PATIENCE * 2)
    said = len(world.router.find("backend_health", backend=world.name, reachable="False"))
    world.engine.lose()
    if world.name != "embedded":  # who holds its file is seen by writing
        world.router.wait_event("backend_health", said + 1, backend=world.name, reachable="False")
    callers = [world.begin("/count", "gone %d" % n, X_Request_ID="contract-gone-%d" % n) for n in range(3)]
    for caller in callers:
        answer = caller.read("POST")
        assert (answer.status, answer.body) == (200, LEGACY)
    assert len(world.origin.requests) == 3
    rows = world.router.wait_outcomes(2, "request_id = 'contract-gone-0'")
    assert [(r["side"], r["role"], r["result"]) for r in rows] == [("task", "primary", "failure"), ("legacy", "fallback", "success")]
    follow = world.post("/follow", body=b'{"args": ["follows"], "thing": "t"}')
    assert follow.status == 503 and len(world.origin.requests) == 3, "legacy knows nothing of what it is about"
    assert world.ask_state(before).status == (200 if (world.engine.label or "").startswith("celery-amqp") else
                                              STATE_WHEN_GONE[world.name]), "results of those are not where the tasks are"
    world.engine.find()
    # Each of the router's threads has connections of its own.
    wait_until(lambda: all(world.post("/count", "back").body != LEGACY for _ in range(10)), "the engine to be used again")
    assert world.ended(before, was_away=True)["result"] == "before it went"
    follow = b'{"args": ["follows"], "thing": "t"}'
    wait_until(lambda: world.post("/follow", body=follow).body == b'"follows"', "the pinned call to be served")
    assert [world.engine.runs("gone %d" % n) for n in range(3)] == [0, 0, 0]


def test_router_killed(world):
    """What was accepted goes on, and its owner still finds it."""
    if forgets(world):
        pytest.skip("a result by rpc:// ends with its router")
    router = world.another_router()
    with world.every_place_taken("router"):
        location = world.post("/count", "outlives", router=router, Prefer="respond-async").get("Location")
        client = Client(router.port)
        client.send(world.call("/count", "unanswered", X_Request_ID="contract-unanswered"))
        router.kill()
        router = world.start_router(router.folder)
        wait_until(lambda: world.state(location, router)["status"] == WAITS[world.name], "the task to be found again")
    assert world.ended(location, router)["result"] == "outlives"
    assert world.engine.runs("outlives") == 1 and world.engine.runs("unanswered") <= 1
    router.stop()


# --- several backends at once ----------------------------------------------------------------------------------------------------

def milliseconds(world, calls=12):
    times = []
    for n in range(calls):
        began = time.monotonic()
        assert world.post("/add_numbers", n, 1).body == b"%d" % (n + 1)
        times.append((time.monotonic() - began) * 1000)
    return times


def test_dead_backends_do_not_slow_this_one(world):
    """Turn by turn without and with callers that hang on the others all the time: the median of ours stays. What else the machine does
    may weigh on some turns; who waited behind the dead would wait in every one."""
    dead = ["/dead/" + name for name in others_built() if name != world.name]
    if not dead:
        pytest.skip("no other backend is in this build")
    alone, beside = [], []
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        for turn in range(12):
            if turn >= 3 and statistics.median(beside) < 2 * statistics.median(alone) + 20:
                return
            alone += milliseconds(world)
            over = threading.Event()

            def hang(n, over=over):
                statuses = set()
                while not over.is_set():
                    statuses.add(world.post(dead[n % len(dead)], "x").status)
                    over.wait(0.2)  # some are refused at once
                return statuses
            hanging = [pool.submit(hang, n) for n in range(16)]
            beside += milliseconds(world)
            over.set()
            assert set.union(*(h.result() for h in hanging)) <= {200, 504}
    pytest.fail("%r without, %r with them" % (sorted(alone), sorted(beside)))


# --- and last, since an engine takes a killed worker for alive for a while -----------------------------------------------

# Celery (acknowledged when it began), Temporal and Hatchet (before its own time limit) do not tell of the loss in time.
KILLED = {"embedded": (500, "worker lost, outcome unknown"), "celery": (504, None), "temporal": (504, None), "hatchet": (504, None)}


def test_worker_killed(world):
    with world.engine.holding():
        caller = world.begin("/fragile", "fragile", X_Request_ID="contract-killed")
        world.engine.wait_run("begin fragile")
        world.engine.kill_worker()
        world.engine.start_worker()
        assert world.post("/count", "by the next worker").body == b'"by the next worker"'
        answer = caller.read("POST")
        caller.close()
    assert answer.status == KILLED[world.name][0] and KILLED[world.name][1] in (None, detail(answer))
    assert world.outcome("contract-killed")["result"] == ("failure" if answer.status == 500 else "timeout")
    assert world.engine.runs("begin fragile") == 1 and world.origin.requests == []


def test_unknown_backend_lists_what_exists(start, tmp_path):
    config = c.router({"app": c.service("http://127.0.0.1:1", {"x": c.operation("POST /x", task("x"))})}, backends=c.embedded())
    path = tmp_path / "router.yml"
    path.write_text(json.dumps(config))
    ended = start.run("migration-router", "check", path, env={"TASK_QUEUE_BACKEND": "ingest"})
    assert ended.returncode == 2 and "ingest" in ended.stderr
    assert all(name in ended.stderr for name in backends_built())
