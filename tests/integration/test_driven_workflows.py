"""Workflows that the router drives itself: steps as single tasks on any backend, here the embedded one and Celery's Python workers.

Every execution is counted where it happens: a line per execution in the file `runs` of the workers' folder.
"""
import contextlib
import json
import os
import signal
import sqlite3
import sys

import pytest
import requests

import configuration as c
from http_text import PATIENCE, wait_until
from programs import need_backend

need_backend("router", "celery")
pytest.importorskip("celery")

HERE = os.path.dirname(os.path.abspath(__file__))
CORE_TASKS = os.path.join(HERE, "..", "support", "core_tasks.py")


def handler(name, **more):
    return {"name": name, "exec": {"argv": [sys.executable, "-S", "-E", CORE_TASKS, name], "env": {"RUNS_FOLDER": "${RUNS_FOLDER}"}}, **more}


TASKS = [handler(name) for name in ("count", "hold", "fail", "give_back")]


def step(name, task, backend=None, after=(), **more):
    return {"name": name, "task": task, **({"backend": backend} if backend else {}), "parents": list(after), **more}


def keyed(text):
    return {"input": "none", "kwargs": {"key": text}}


# The old Celery tasks go on as they are; what is new beside them runs on embedded workers.
WORKFLOWS = [
    {"name": "both", "execution": "router", "steps": [
        step("first", "count", **keyed("first")),
        step("old", "hold", "celery", ["first"], **keyed("old")),
        step("new", "hold", "embedded", ["first"], **keyed("new")),
        step("last", "count", "celery", ["old", "new"], **keyed("last"))]},
    {"name": "breaks", "execution": "router", "steps": [
        step("first", "count", **keyed("first")),
        step("wrong", "fail", "celery", ["first"], input="none", kwargs={"message": "the model is away"}),
        step("last", "count", None, ["wrong"], **keyed("last"))]},
    {"name": "ours", "execution": "router", "steps": [
        step("held", "hold", **keyed("held")), step("last", "count", None, ["held"], **keyed("last"))]},
]


class World:
    def __init__(self, start, folder, broker):
        self.start, self.folder, self.runs, self.broker = start, start.folder(), folder, broker
        (self.folder / "tasks.yml").write_text(json.dumps({"tasks": TASKS, "workflows": WORKFLOWS}))
        operations = {w["name"]: c.operation("POST /" + w["name"], {"workflow": w["name"], "backend": "router", "respond_async": True,
                                                                   "timeout": "50s"}) for w in WORKFLOWS}
        self.config = c.router({"s": c.service("http://127.0.0.1:9", operations)}, backends={
            **c.embedded(), "celery": {"broker_url": broker, "when_not_ready": "submit"},
            "router": {"workflows": "tasks.yml", "when_not_ready": "submit"}})
        self.env = {"TASK_ABSTRACTION_ENABLED": "true", "RUNS_FOLDER": str(folder)}
        self.serve()
        self.worker = start.worker(self.router, env=self.env)

    def serve(self):
        self.router = self.start.router(self.config, folder=self.folder, env=self.env)

    def url(self, path):
        return "http://127.0.0.1:%d%s" % (self.router.port, path)

    def call(self, name, **headers):
        return requests.post(self.url("/" + name), json={}, headers=headers, timeout=PATIENCE)

    def begin(self, name):
        answer = self.call(name, Prefer="respond-async")
        assert answer.status_code == 202, answer.text
        return answer.headers["Location"]

    def state(self, location):
        return requests.get(self.url(location), timeout=PATIENCE).json()

    def wait_end(self, location):
        wait_until(lambda: self.state(location)["status"] in ("completed", "failed"), "the workflow's end")
        return self.state(location)

    def executed(self):
        with contextlib.suppress(FileNotFoundError), open(os.path.join(self.runs, "runs"), encoding="utf-8") as file:
            return sorted(line.strip() for line in file)
        return []

    def hold(self, what):
        with open(os.path.join(self.runs, "held.new"), "w", encoding="utf-8") as file:
            file.write(what)
        os.replace(os.path.join(self.runs, "held.new"), os.path.join(self.runs, "held"))

    def clear(self):
        self.hold("")
        with contextlib.suppress(FileNotFoundError):
            os.remove(os.path.join(self.runs, "runs"))

    def file(self, query):
        with contextlib.closing(sqlite3.connect(os.path.join(self.folder, "data", "workflows.db"), timeout=10)) as db:
            return db.execute(query).fetchall()


@pytest.fixture(scope="module")
def module_world(tmp_path_factory):
    from celery_redis import Redis
    from celery_worker import Worker
    from conftest import Started
    folder = tmp_path_factory.mktemp("runs")
    server, started = Redis(folder), Started(tmp_path_factory)
    worker = Worker(folder, server.url(), pool="threads", concurrency=4)
    world = World(started, folder, server.url())
    world.redis = server
    yield world
    server.go_on()
    started.end()
    worker.stop()
    server.stop()


@pytest.fixture
def world(module_world):
    module_world.clear()
    yield module_world
    module_world.hold("")


ONCE = sorted(["first", "begin old", "end old", "begin new", "end new", "last"])
RESULT = {"first": "first", "old": "old", "new": "new", "last": "last"}


def statuses(state):
    return {s["name"]: s["status"] for s in state["steps"]}


def test_steps_run_on_the_backends_that_they_name(world):
    answer = world.call("both")
    assert answer.status_code == 200 and answer.json() == RESULT, answer.text
    assert world.executed() == ONCE


def test_the_state_shows_the_steps(world):
    world.hold("1")
    location = world.begin("both")
    wait_until(lambda: statuses(world.state(location)) == {"first": "completed", "old": "running", "new": "running"}, "two steps to run")
    wait_until(lambda: {"begin old", "begin new"} <= set(world.executed()), "the two to have begun")
    world.hold("")
    end = world.wait_end(location)
    assert end["status"] == "completed" and end["result"] == RESULT
    assert statuses(end) == dict.fromkeys(RESULT, "completed")
    assert all(s["submitted_at"] and s["completed_at"] for s in end["steps"])
    assert "celery" not in json.dumps(end["steps"]), "where a step ran is the operator's"
    assert world.executed() == ONCE


@pytest.mark.parametrize("down", [0, 2])
def test_a_killed_router_goes_on_and_no_step_runs_twice(world, down):
    """`down`: the steps end while no router is there, or only afterwards."""
    world.hold("1")
    location = world.begin("both")
    wait_until(lambda: {"begin old", "begin new"} <= set(world.executed()), "the two steps to run")
    world.router.kill()
    if down:
        world.hold("")
        wait_until(lambda: {"end old", "end new"} <= set(world.executed()), "the two steps to end")
    world.serve()
    world.hold("")
    end = world.wait_end(location)
    assert end["status"] == "completed" and end["result"] == RESULT, end
    assert world.executed() == ONCE


def test_a_submission_without_an_answer_is_decided_by_its_result(world):
    """Celery cannot say whether it has a task: what was being submitted when the router was killed is waited for, not sent again."""
    world.redis.pause()
    location = world.begin("both")
    wait_until(lambda: world.file("SELECT count(*) FROM run_step WHERE state = 0 AND name = 'old'") == [(1,)], "the step to be submitted")
    wait_until(lambda: world.executed().count("end new") == 1, "the step beside it")
    world.router.kill()
    world.redis.go_on()
    world.serve()
    assert world.wait_end(location)["result"] == RESULT
    assert world.executed() == ONCE


class Alone:
    """A router whose only step goes to a Celery that nobody serves: what is in its queue is what was submitted."""

    def __init__(self, start, redis, **more):
        folder = start.folder()
        (folder / "tasks.yml").write_text(json.dumps({"workflows": [
            {"name": "w", "execution": "router", "steps": [step("only", "count", "celery", **keyed("only"), **more)]}]}))
        self.start, self.folder, self.redis = start, folder, redis
        self.config = c.router({"s": c.service("http://127.0.0.1:9", {"w": c.operation("POST /w", {
            "workflow": "w", "backend": "router", "respond_async": True})})}, backends={
                "celery": {"broker_url": redis.url(), "when_not_ready": "submit"},
                "router": {"workflows": "tasks.yml", "when_not_ready": "submit", "unknown_after": "1s"}})
        self.serve()

    def serve(self):
        self.router = self.start.router(self.config, folder=self.folder, env={"TASK_ABSTRACTION_ENABLED": "true"})

    def begin(self):
        answer = requests.post("http://127.0.0.1:%d/w" % self.router.port, json={}, headers={"Prefer": "respond-async"}, timeout=PATIENCE)
        assert answer.status_code == 202, answer.text
        return answer.headers["Location"]

    def state(self, location):
        return requests.get("http://127.0.0.1:%d%s" % (self.router.port, location), timeout=PATIENCE).json()

    def waiting(self):
        return self.redis.client().llen("celery")


@pytest.mark.parametrize("idempotent", [False, True])
def test_what_may_have_run_runs_again_only_if_it_is_idempotent(start, own_redis, idempotent):
    alone = Alone(start, own_redis, **({"idempotent": True} if idempotent else {}))
    own_redis.pause()
    location = alone.begin()
    wait_until(lambda: [s["status"] for s in alone.state(location)["steps"]] == ["pending"], "the step to be submitted")
    alone.router.kill()
    own_redis.process.kill()  # with whatever it had
    own_redis.stop()
    own_redis.start()
    alone.serve()
    if idempotent:
        wait_until(lambda: alone.waiting() == 1, "the step to be submitted again")
    else:
        wait_until(lambda: alone.state(location)["status"] == "failed", "the workflow to be given up")
        state = alone.state(location)
        assert "unknown whether it ran" in state["error"] and state["steps"][0]["status"] == "unknown" and alone.waiting() == 0


def test_what_was_refused_is_offered_again(start, own_redis):
    """Nobody listened: nothing was begun, so the step waits for its backend."""
    alone = Alone(start, own_redis)
    own_redis.stop()
    location = alone.begin()
    wait_until(lambda: alone.state(location).get("steps"), "the step to be submitted")
    own_redis.start()
    wait_until(lambda: alone.waiting() == 1, "the step to be accepted")
    assert alone.state(location)["status"] == "running"


def test_what_fails_ends_the_workflow(world):
    answer = world.call("breaks")
    assert answer.status_code == 500 and answer.json()["detail"] == 'step "wrong": the model is away', answer.text
    assert world.executed() == ["first"]


def test_the_page_of_the_request_shows_the_steps(world):
    answer = world.call("both", **{"X-Request-ID": "request-of-both"})
    assert answer.status_code == 200

    def page():
        return requests.get("http://127.0.0.1:%d/requests?id=request-of-both" % world.router.admin_port, timeout=PATIENCE).text
    text = wait_until(lambda: (t := page()) and 'class="steps"' in t and t, "the request to be recorded")
    assert [part.split("</b>")[0] for part in text.split('<ol class="steps">')[1].split("</ol>")[0].split("<b>")[1:]] == list(RESULT)
    assert text.count('<span class="result success">completed</span>') == 4


def check(start, tmp_path, operation, workflows, more=None, router=None, **others):
    (tmp_path / "tasks.yml").write_text(json.dumps({"tasks": [{"name": "echo", "builtin": "echo"}], "workflows": workflows}))
    backends = {**c.embedded(tasks=None), "router": {"workflows": "tasks.yml", **(router or {})}, **others}
    (tmp_path / "router.yml").write_text(json.dumps({**c.router({"s": c.service("http://127.0.0.1:9", {
        "o": c.operation("POST /o", {"backend": "router", **operation})})}, backends=backends), **(more or {})}))
    return start.run("migration-router", "check", tmp_path / "router.yml")


DRIVEN = {"name": "w", "execution": "router", "steps": [{"task": "echo"}]}


@pytest.mark.parametrize("operation,workflows,more,settings,told", [
    ({"workflow": "w"}, [DRIVEN], None, {}, None),
    ({"workflow": "x"}, [DRIVEN], None, {}, 'the workflow "x" is not declared in'),
    ({"name": "echo"}, [DRIVEN], None, {}, 'the task "echo" is to run on it, but the router drives workflows only'),
    ({"workflow": "w"}, [{"name": "w", "steps": [{"task": "echo"}]}], None, {}, 'is not declared with "execution: router" in'),
    ({"workflow": "w"}, [{**DRIVEN, "steps": [{"task": "echo", "backend": "celery"}]}], None, {},
     'workflow w: no backend "celery" is declared under backends'),
    ({"workflow": "w"}, [DRIVEN], None, {"backend": "router"}, "its steps cannot run on the router itself"),
    ({"workflow": "w"}, [DRIVEN], {"state": "redis://127.0.0.1:1/0"}, {}, "state: is shared by replicas"),
    ({"workflow": "w"}, [DRIVEN], None, {"max_running": 0}, "expected a number from 1 to 100000"),
    ({"workflow": "w"}, [DRIVEN], None, {"workflows": "nowhere.yml"}, "nowhere.yml"),
])
def test_wrong_configurations_are_named(start, tmp_path, operation, workflows, more, settings, told):
    ended = check(start, tmp_path, operation, workflows, more, settings)
    assert ended.returncode == (2 if told else 0), ended.stderr
    assert told is None or told in ended.stderr and "router.yml:" in ended.stderr, ended.stderr


def test_a_workflow_for_the_router_runs_nowhere_else(start, tmp_path):
    """Also where all of its steps are for one backend: its operation says who drives it."""
    ended = check(start, tmp_path, {"workflow": "w", "backend": "embedded"}, [DRIVEN], embedded={"tasks": "tasks.yml"})
    assert ended.returncode == 2 and 'its operation needs "backend: router"' in ended.stderr, ended.stderr


def test_cancel_stops_what_has_not_begun(world):
    world.hold("1")
    location = world.begin("both")
    wait_until(lambda: {"begin old", "begin new"} <= set(world.executed()), "the two steps to run")
    assert requests.delete(world.url(location), timeout=PATIENCE).status_code == 202
    end = world.wait_end(location)
    assert end["status"] == "failed" and "cancel" in end["error"], end
    assert statuses(end) == {"first": "completed", "old": "cancelled", "new": "cancelled"}
    world.hold("")
    answer = world.call("both")
    assert answer.status_code == 200 and world.executed().count("last") == 1, "only that of the second workflow"


@pytest.mark.parametrize("meanwhile", [False, True])
def test_another_router_takes_over_what_is_under_way(world, meanwhile):
    """`meanwhile`: steps end while the first one ends, which begins nothing more."""
    world.hold("1")
    location = world.begin("both")
    wait_until(lambda: {"begin old", "begin new"} <= set(world.executed()), "the two steps to run")
    if meanwhile:
        world.hold("")
    world.router.signal(signal.SIGTERM)
    assert world.router.wait() == 0
    world.serve()
    world.hold("")
    assert world.wait_end(location)["result"] == RESULT
    assert world.executed() == ONCE
    assert world.file("SELECT count(DISTINCT driver) FROM run WHERE state = 1") == [(0,)]


def test_a_replaced_file_mixes_no_workflows(start, own_redis):
    """In the new one the old one's numbers are those of others: it ends none of them, and begins nothing more."""
    world = World(start, start.folder(), own_redis.url())
    world.hold("1")
    old = world.begin("ours")
    wait_until(lambda: world.executed() == ["begin held"], "the first workflow's step to run")
    for name in os.listdir(os.path.join(world.folder, "data")):
        if name.startswith("workflows.db"):
            os.remove(os.path.join(world.folder, "data", name))
    world.router.wait_event("workflow_store_moved")
    world.router.wait_event("workflow_lost", id=old.rsplit("/", 1)[1])
    new = world.begin("ours")
    assert world.file("SELECT seq, id FROM run") == [(1, new.rsplit("/", 1)[1])]
    wait_until(lambda: world.executed().count("begin held") == 2, "the second workflow's step to run")
    world.hold("")
    assert world.wait_end(new)["result"] == {"held": "held", "last": "last"}
    wait_until(lambda: world.executed().count("end held") == 2, "both steps to end")
    assert world.executed().count("last") == 1 and "steps" not in world.state(old)


def test_expires_is_that_of_the_first_steps(start):
    folder = start.folder()
    (folder / "tasks.yml").write_text(json.dumps({"tasks": [{"name": "echo", "builtin": "echo"}], "workflows": [DRIVEN]}))
    config = c.router({"s": c.service("http://127.0.0.1:9", {"w": c.operation("POST /w", {
        "workflow": "w", "backend": "router", "respond_async": True, "expires": "100ms"})})}, backends={
            **c.embedded(tasks=None), "router": {"workflows": "tasks.yml", "when_not_ready": "submit"}})
    router = start.router(config, folder=folder, env={"TASK_ABSTRACTION_ENABLED": "true"})  # and no worker
    url = "http://127.0.0.1:%d" % router.port
    answer = requests.post(url + "/w", json={}, headers={"Prefer": "respond-async"}, timeout=PATIENCE)
    assert answer.status_code == 202, answer.text
    state = wait_until(lambda: (s := requests.get(url + answer.headers["Location"], timeout=PATIENCE).json())["status"] == "failed" and s, "the end")
    assert "expired before a worker started it" in state["error"]
