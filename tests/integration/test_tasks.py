"""The task side end to end: old answers and old errors from tasks, time limits, async answers, ends of router and worker."""
import concurrent.futures
import contextlib
import json
import os
import signal
import sqlite3
import sys

import pytest
import requests

import configuration as c
from http_text import wait_until
from raw import Client, ask, request

TOKEN, OTHER_TOKEN = "platform-key-1", "platform-key-2"
LEGACY_ERROR = {"status": {"$ref": "error:status"},
                "body": {"error": {"$ref": "error:detail"}, "name": {"$ref": "error:title"}, "code": {"$ref": "error:status"},
                         "payload": None}}
EXTRACTION = [
    {"when": {"ref": "result:/success", "equals": True}, "body": {"$ref": "result:/data"}},
    {"status": 500, "body": {"error": {"$ref": "result:/error", "default": {"$ref": "task:error"}}, "name": "APIError",
                             "code": 500, "payload": None}},
]
# A task in the shape of execute_extraction, run by a program: "fail" in the body makes it answer success: false.
EXECUTOR = """
import json, sys
call = json.load(sys.stdin)["args"][0]
body = call["executor_params"]
if body.get("fail"):
    print(json.dumps({"success": False, "data": {}, "metadata": {}, "error": body["fail"]}))
else:
    print(json.dumps({"success": True, "data": {"output": {"total": "12"}, "call": call}, "metadata": {}, "error": None}))
"""
TASKS = {
    "tasks": [{"name": n, "builtin": n} for n in ("add_numbers", "echo", "simulate_work", "process_data")] + [
        {"name": "execute_extraction", "exec": {"argv": [sys.executable, "-c", EXECUTOR]}},
        {"name": "touch", "exec": {"argv": [sys.executable, "-c", "import sys; open(sys.argv[1], 'a').write('x'); print(1)",
                                            "${TOUCHED:-/dev/null}"]}},
        {"name": "upper", "exec": {"argv": [sys.executable, "-c", "import sys; print(sys.stdin.read().upper(), end='')"],
                                   "stdin": {"text": "args:/0"}, "stdout": "text"}},
    ],
    "workflows": [{"name": "loud-echo", "steps": [{"task": "upper"}, {"task": "echo"}]}],
}


def operations():
    def body(**names):
        return {name: {"$ref": "body:" + pointer} for name, pointer in names.items()}
    return {
        "add": c.operation("POST /add", {"name": "add_numbers", "args": [{"$ref": "body:/a"}, {"$ref": "body:/b"}]}),
        "echo": c.operation("POST /echo", {"name": "echo", "kwargs": body(message="/message"), "respond_async": True},
                            auth="bearer"),
        "slow": c.operation("POST /slow", {"name": "simulate_work", "kwargs": body(duration="/duration"), "timeout": "1500ms",
                                           "respond_async": True}),
        "patient": c.operation("POST /patient", {"name": "simulate_work", "kwargs": body(duration="/duration"),
                                                 "timeout": "60s"}),
        "touch": c.operation("POST /touch", {"name": "touch", "timeout": "20s"}),
        "answer": c.operation("POST /answer-prompt", {
            "name": "execute_extraction", "timeout": "30s", "response": EXTRACTION,
            "args": [{"executor_name": "legacy", "operation": "answer_prompt", "run_id": {"$ref": "body:/run_id"},
                      "organization_id": {"$ref": "identity:organization"}, "executor_params": {"$ref": "body:"},
                      "request_id": {"$ref": "request:id"}, "execution_id": {"$ref": "body:/execution_id"}}]}),
        "unknown": c.operation("POST /unknown", {"name": "no_such_task", "timeout": "1s"}),
        "loud": c.operation("POST /loud", {"workflow": "loud-echo", "args": [{"$ref": "body:/text"}], "timeout": "30s"}),
    }


def config(origin, **sections):
    return c.router({"app": c.service(origin, operations())}, backends=c.embedded(), identity=c.IDENTITY, error=LEGACY_ERROR,
                    tokens="tokens.txt", **sections)


PENDING, RUNNING, COMPLETED, FAILED = range(4)  # task.state in tasks.db


class World:
    """A router whose flags say task for everybody, its worker, and the legacy service behind it."""

    def __init__(self, start, folder, worker=True, **sections):
        self.start, self.origin, self.folder = start, start.origin(), folder
        with open(os.path.join(folder, "tasks.yml"), "w", encoding="utf-8") as file:
            json.dump(TASKS, file)
        with open(os.path.join(folder, "tokens.txt"), "w", encoding="utf-8") as file:
            file.write("%s  # one\n%s\n" % (c.sha256(TOKEN), c.sha256(OTHER_TOKEN)))
        self.touched = os.path.join(folder, "touched")
        self.config = config(self.origin, **sections)
        self.router = self.start_router()
        self.worker = self.start_worker() if worker else None

    def start_router(self):
        self.router = self.start.router(self.config, c.features(c.boolean("task_abstraction_enabled", True)), folder=self.folder)
        return self.router

    def start_worker(self, *arguments):
        self.worker = self.start.worker(self.router, *arguments, env={"TOUCHED": self.touched})
        return self.worker

    def post(self, path, body, token=TOKEN, organization="org-1", **fields):
        named = [("Content-Type", "application/json"), ("X-User-Id", "u1"), ("X-Organization-Id", organization)]
        named += [("Authorization", "Bearer " + token)] if token else []
        named += [(n.replace("_", "-"), v) for n, v in fields.items()]
        return ask(self.router.port, request("POST", path, named, json.dumps(body).encode() if not isinstance(body, bytes) else body))

    def task(self, location, method="GET", token=TOKEN, organization="org-1"):
        fields = [("X-User-Id", "u1"), ("X-Organization-Id", organization)]
        fields += [("Authorization", "Bearer " + token)] if token else []
        return ask(self.router.port, request(method, location, fields))

    def tasks(self):
        """Rows of the queue's own file: for waiting, and for what must be true on disk."""
        with contextlib.closing(sqlite3.connect(os.path.join(self.folder, "data", "tasks.db"), timeout=10)) as db:
            db.row_factory = sqlite3.Row
            return [dict(row) for row in db.execute("SELECT * FROM task")]


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    from conftest import Started
    started = Started(tmp_path_factory)
    yield World(started, str(started.folder()))
    started.end()


@pytest.fixture
def world(shared):
    shared.origin.clear()
    return shared


@pytest.fixture
def own_world(start):
    return lambda **how: World(start, str(start.folder()), **how)


def error_of(answer):
    told = json.loads(answer.body)
    assert set(told) == {"error", "name", "code", "payload"} and told["code"] == answer.status
    return told


# --- answers -----------------------------------------------------------------------------------------------------------

def test_the_result_is_the_answer(world):
    answer = world.post("/add", {"a": 2, "b": 3})
    assert (answer.status, answer.body, answer.get("Content-Type")) == (200, b"5", "application/json")
    assert world.origin.requests == []


def test_values_arrive_as_they_were_sent(world):
    answer = world.post("/answer-prompt", b'{"run_id":"r","big":9007199254740993,"one":1.0,"u":"\\u00e9\\ud83d\\ude00 \xc3\xa9"}')
    assert answer.status == 200
    for text in (b"9007199254740993", b"1.0"):
        assert text in answer.body


def test_the_old_answer_in_the_old_shape(world):
    answer = world.post("/answer-prompt", {"run_id": "r1", "execution_id": "e1", "outputs": []}, X_Request_ID="request-77")
    told = json.loads(answer.body)
    assert answer.status == 200 and told["output"] == {"total": "12"}
    assert told["call"] == {"executor_name": "legacy", "operation": "answer_prompt", "run_id": "r1", "organization_id": "org-1",
                            "executor_params": {"run_id": "r1", "execution_id": "e1", "outputs": []}, "request_id": "request-77",
                            "execution_id": "e1"}
    row = world.router.wait_outcomes(1, "request_id = 'request-77'")[0]
    assert (row["side"], row["result"], row["http_status"], row["backend"]) == ("task", "success", 200, "embedded")
    assert row["task_id"]


def test_the_old_error_in_the_old_shape(world):
    answer = world.post("/answer-prompt", {"run_id": "r1", "fail": "the model is away"}, X_Request_ID="request-78")
    assert answer.status == 500 and error_of(answer)["error"] == "the model is away"
    assert world.router.wait_outcomes(1, "request_id = 'request-78'")[0]["result"] == "failure"
    assert world.origin.requests == [], "a task that ran and failed is never run again on legacy"


def test_a_failed_task_is_an_error_in_the_old_shape_that_names_the_cause(world):
    answer = world.post("/add", {"a": 2, "b": "three"})
    assert answer.status == 500
    assert "b" in error_of(answer)["error"]


def test_an_unknown_task_waits_for_a_worker_that_knows_it(world):
    """The worker leaves it to others, and says so; its caller is told at its time limit."""
    answer = world.post("/unknown", {})
    assert answer.status == 504
    error_of(answer)
    assert world.worker.wait_event("task_not_known", task="no_such_task")


def test_a_body_that_is_no_json_is_the_callers_fault(world):
    answer = world.post("/add", b'{"a": ')
    assert answer.status == 400
    error_of(answer)
    assert world.origin.requests == []


def test_a_workflow_hands_each_result_on(world):
    answer = world.post("/loud", {"text": "quiet"})
    assert answer.status == 200, answer.body
    told = json.loads(answer.body)
    assert told["upper"] == "QUIET" and told["echo"] == "Echo: QUIET"


def test_head_of_large_input_and_output(world):
    text = "x" * (1 << 20)
    answer = world.post("/echo", {"message": text})
    assert answer.status == 200 and json.loads(answer.body) == "Echo: " + text


# --- authentication ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("token", [None, "wrong", TOKEN + "x", TOKEN.upper()])
def test_only_callers_with_a_known_token_have_tasks_run(world, token):
    answer = world.post("/echo", {"message": "hi"}, token=token)
    assert answer.status == 401 and answer.get("WWW-Authenticate", "").startswith("Bearer")
    error_of(answer)
    assert world.origin.requests == []


# --- time --------------------------------------------------------------------------------------------------------------

def test_a_slow_task_is_504_with_its_id_and_goes_on(world):
    answer = world.post("/slow", {"duration": 4}, X_Request_ID="request-80")
    assert answer.status == 504
    error_of(answer)
    row = world.router.wait_outcomes(1, "request_id = 'request-80'")[0]
    assert row["result"] == "timeout" and row["task_id"]
    wait_until(lambda: any(e.get("task_id") == row["task_id"] for e in world.worker.find("task_ended")), "the task to go on to its end")
    assert world.origin.requests == []


def test_a_caller_that_goes_away_leaves_a_task_that_goes_on(world):
    client = Client(world.router.port)
    client.send(request("POST", "/patient", [("X-User-Id", "u"), ("X-Request-ID", "request-81")], b'{"duration": 1}'))
    before = len(world.worker.find("task_ended"))
    wait_until(lambda: any(t["request_id"] == "request-81" for t in world.tasks()), "the task to be accepted")
    client.reset()
    row = world.router.wait_outcomes(1, "request_id = 'request-81'")[0]
    assert (row["side"], row["result"]) == ("task", "cancelled")
    wait_until(lambda: len(world.worker.find("task_ended")) > before, "the task to go on to its end")


# --- asynchronous answers ----------------------------------------------------------------------------------------------

def test_respond_async(world):
    answer = world.post("/echo", {"message": "later"}, Prefer="respond-async")
    assert answer.status == 202
    location = answer.get("Location")
    assert location.startswith("/_migration/tasks/")
    assert json.loads(answer.body)["task_id"] == location.rsplit("/", 1)[1]
    done = wait_until(lambda: (lambda t: t if t["status"] == "completed" else None)(json.loads(world.task(location).body)), "the result")
    assert set(done) >= {"task_id", "task_name", "status", "result", "error", "started_at", "completed_at"}
    assert (done["task_name"], done["result"], done["error"]) == ("echo", "Echo: later", None)


def test_the_result_is_nobody_elses(world):
    location = world.post("/echo", {"message": "mine"}, Prefer="respond-async").get("Location")
    assert world.task(location).status == 200
    assert world.task(location, token=None).status == 404
    assert world.task(location, token="wrong").status == 404
    assert world.task(location, token=OTHER_TOKEN).status == 404
    assert world.task(location, organization="org-2").status == 404
    assert world.task("/_migration/tasks/" + "0" * 32).status == 404
    assert world.task(location, method="DELETE", token=OTHER_TOKEN).status == 404


def test_delete_cancels(own_world):
    world = own_world(worker=False)
    location = world.post("/echo", {"message": "never"}, Prefer="respond-async").get("Location")
    assert json.loads(world.task(location).body)["status"] == "pending"
    assert world.task(location, method="DELETE").status in (200, 202, 204)
    ended = wait_until(lambda: (lambda t: t if t["status"] == "failed" else None)(json.loads(world.task(location).body)), "the end")
    assert ended["error"]
    world.start_worker()
    assert world.post("/add", {"a": 1, "b": 1}).body == b"2"
    assert json.loads(world.task(location).body)["status"] == "failed", "a cancelled task must not run"


def test_an_operation_that_does_not_allow_it_answers_as_ever(world):
    answer = world.post("/add", {"a": 1, "b": 2}, Prefer="respond-async")
    assert (answer.status, answer.body) == (200, b"3")


# --- refusal and fallback ----------------------------------------------------------------------------------------------

def test_a_refused_submission_is_served_by_legacy(own_world):
    world = own_world(worker=False)
    world.router.stop()
    for ending in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(world.folder, "data", "tasks.db" + ending))
    os.mkdir(os.path.join(world.folder, "data", "tasks.db"))  # a folder stands where the file should be
    world.start_router()
    answer = world.post("/add", {"a": 1, "b": 2}, X_Request_ID="request-90")
    assert (answer.status, answer.body) == (200, b"ok")
    assert json.loads(world.origin.wait_requests(1, complete=True)[0].body) == {"a": 1, "b": 2}
    task, legacy = world.router.wait_outcomes(2, "request_id = 'request-90'")
    assert (task["side"], task["role"], task["result"], task["answered"]) == ("task", "primary", "failure", 0)
    assert (legacy["side"], legacy["role"], legacy["result"], legacy["answered"]) == ("legacy", "fallback", "success", 1)


# --- ends --------------------------------------------------------------------------------------------------------------

def test_an_accepted_task_survives_the_router(own_world):
    world = own_world(worker=False)
    location = world.post("/echo", {"message": "kept"}, Prefer="respond-async").get("Location")
    world.router.kill()
    world.start_router()
    assert json.loads(world.task(location).body)["status"] == "pending"
    world.start_worker()
    wait_until(lambda: json.loads(world.task(location).body)["status"] == "completed", "the task to be run after all")


def test_a_task_that_a_router_of_before_accepted_is_told_with_the_name_that_its_backend_has(own_world):
    """It kept the id where the name is now; during a takeover both kinds of entries are read by both."""
    world = own_world()
    location = world.post("/echo", {"message": "of before"}, Prefer="respond-async").get("Location")
    world.router.kill()
    with contextlib.closing(sqlite3.connect(os.path.join(world.folder, "data", "ledger.db"), timeout=10)) as db, db:
        assert db.execute("SELECT task_id FROM entries").fetchall() == [("echo",)]
        assert db.execute("UPDATE entries SET task_id = ?", [location.rsplit("/", 1)[1]]).rowcount == 1
    world.start_router()
    assert json.loads(world.task(location).body)["task_name"] == "echo"


def test_a_killed_worker_leaves_a_visible_end_and_nothing_is_run_twice(own_world):
    world = own_world(worker=False)
    worker = world.start_worker("--lease", "1s")
    with Client(world.router.port) as client:
        client.send(request("POST", "/patient", [("X-User-Id", "u")], b'{"duration": 600}'))
        wait_until(lambda: [t["state"] for t in world.tasks()] == [RUNNING], "the task to run")
        worker.kill()
        world.start_worker("--lease", "1s")
        answer = client.read("POST")
    assert answer.status == 500 and "worker lost, outcome unknown" in error_of(answer)["error"]
    assert [(t["state"], t["attempts"]) for t in world.tasks()] == [(FAILED, 1)]
    assert world.origin.requests == []


def test_a_worker_that_is_asked_to_end_finishes_what_it_runs(own_world):
    world = own_world()
    with Client(world.router.port) as client:
        client.send(request("POST", "/patient", [("X-User-Id", "u")], b'{"duration": 1}'))
        wait_until(lambda: [t["state"] for t in world.tasks()] == [RUNNING], "the task to run")
        world.worker.signal(signal.SIGTERM)
        assert client.read("POST").status == 200
    assert world.worker.wait() == 0


def test_without_a_worker_readiness_names_it(own_world):
    world = own_world(worker=False)
    wait_until(lambda: b"worker" in ask(world.router.admin_port, request("GET", "/readyz")).body, "readiness to name the worker")


def test_a_hundred_callers_at_once(world):
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda n: world.post("/add", {"a": n, "b": 1}).body, range(100)))
    assert answers == [b"%d" % (n + 1) for n in range(100)]


def test_python_requests_with_a_session(world):
    with requests.Session() as session:
        session.headers.update({"Authorization": "Bearer " + TOKEN, "X-User-Id": "u", "X-Organization-Id": "o"})
        for n in range(5):
            answer = session.post("http://127.0.0.1:%d/echo" % world.router.port, json={"message": "n%d" % n}, timeout=30)
            assert answer.json() == "Echo: n%d" % n
