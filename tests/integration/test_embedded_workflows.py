"""Workflows of any shape that embedded workers run from tasks.db, through a router; workers and routers are killed in the middle.

Every execution is counted where it happens: a line in the file `runs` of the workers' folder.
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

HERE = os.path.dirname(os.path.abspath(__file__))
CORE_TASKS = os.path.join(HERE, "..", "support", "core_tasks.py")


def handler(name, **more):
    return {"name": name, "exec": {"argv": [sys.executable, "-S", "-E", CORE_TASKS, name], "env": {"RUNS_FOLDER": "${RUNS_FOLDER}"}}, **more}


TASKS = [handler(name) for name in ("count", "hold", "fail", "give_back")] + [{"name": "echo", "builtin": "echo"}]


def key(text):
    return {"input": "none", "kwargs": {"key": text}}


def held(name, **more):
    return {"task": "hold", "name": name, **key(name), **more}


WORKFLOWS = [
    {"name": "shape", "timeout_minutes": 1, "steps": [
        {"task": "give_back", "name": "first", "input": {"n": {"$ref": "input:/n"}}},
        {"parallel": [{"task": "give_back", "name": "left"}, {"steps": [{"task": "give_back", "name": "right", "args": [{"$ref": "step:first/n"}]}]}]},
        {"task": "give_back", "name": "each", "for_each": {"over": {"$ref": "input:/list"}, "max": 3, "key": {"$ref": "item:/name"}},
         "args": [{"of": {"$ref": "item:/v"}, "n": {"$ref": "step:right"}}]},
        {"task": "give_back", "name": "join", "parents": ["each", "left"]}]},
    {"name": "pair", "steps": [{"task": "count", "name": "first", **key("first")}, {"parallel": [held("a", idempotent=True), held("b", idempotent=True)]},
                               {"task": "count", "name": "last", **key("last")}]},
    {"name": "once", "steps": [{"parallel": [held("c"), held("d", idempotent=True)]}, {"task": "count", "name": "never", **key("never")}]},
    {"name": "breaks", "steps": [{"parallel": [{"task": "fail", "name": "wrong", "input": "none", "kwargs": {"message": "the model is away"}}, held("a")]},
                                 {"task": "count", "name": "last", **key("last")}]},
    {"name": "late", "steps": [{"parallel": [held("a", timeout="500ms"), held("b")]}, {"task": "count", "name": "last", **key("last")}]},
]


class World:
    def __init__(self, start, folder):
        self.start, self.folder, self.runs = start, start.folder(), folder
        self.write(WORKFLOWS)
        operations = {w["name"]: c.operation("POST /" + w["name"], {"workflow": w["name"], "args": [{"$ref": "body:"}], "respond_async": True,
                                                                   "timeout": "50s"}) for w in WORKFLOWS}
        self.config = c.router({"s": c.service("http://127.0.0.1:9", operations)}, backends=c.embedded())
        self.env = {"TASK_ABSTRACTION_ENABLED": "true", "RUNS_FOLDER": str(folder)}
        self.serve()
        self.work()

    def write(self, workflows):
        (self.folder / "tasks.yml").write_text(json.dumps({"tasks": TASKS, "workflows": workflows}))

    def serve(self):
        self.router = self.start.router(self.config, folder=self.folder, env=self.env)

    def work(self):
        self.worker = self.start.worker(self.router, "--lease", "1s", "--concurrency", "4", env=self.env)

    def post(self, name, body=None, **headers):
        return requests.post("http://127.0.0.1:%d/%s" % (self.router.port, name), json=body or {}, headers=headers, timeout=PATIENCE)

    def begin(self, name):
        answer = self.post(name, Prefer="respond-async")
        assert answer.status_code == 202, answer.text
        return answer.headers["Location"]

    def at(self, location, method="GET"):
        return requests.request(method, "http://127.0.0.1:%d%s" % (self.router.port, location), timeout=PATIENCE)

    def wait_end(self, location):
        wait_until(lambda: self.at(location).json()["status"] in ("completed", "failed"), "the workflow's end")
        return self.at(location).json()

    def executed(self):
        with contextlib.suppress(FileNotFoundError), open(os.path.join(self.runs, "runs"), encoding="utf-8") as file:
            return sorted(line.strip() for line in file)
        return []

    def wait_executed(self, *lines):
        wait_until(lambda: set(lines) <= set(self.executed()), "%s to be executed" % (lines,))

    def wait_idle(self):
        """What was held has been stopped, and nothing waits."""
        def is_open():
            with contextlib.closing(sqlite3.connect(os.path.join(self.folder, "data", "tasks.db"), timeout=10)) as db:
                return db.execute("SELECT count(*) FROM task WHERE state < 2").fetchone()[0]
        wait_until(lambda: not is_open(), "everything to have ended")

    def hold(self, what):
        with open(os.path.join(self.runs, "held.new"), "w", encoding="utf-8") as file:
            file.write(what)
        os.replace(os.path.join(self.runs, "held.new"), os.path.join(self.runs, "held"))

    def clear(self):
        self.hold("held")
        with contextlib.suppress(FileNotFoundError):
            os.remove(os.path.join(self.runs, "runs"))


@pytest.fixture(scope="module")
def module_world(tmp_path_factory):
    from conftest import Started
    started = Started(tmp_path_factory)
    yield World(started, tmp_path_factory.mktemp("runs"))
    started.end()


@pytest.fixture
def world(module_world):
    module_world.clear()
    yield module_world
    module_world.hold("")


def test_a_graph_answers_with_the_results_by_step(world):
    answer = world.post("shape", {"n": 9007199254740993, "list": [{"name": "x", "v": 1}, {"name": "y", "v": None}]})
    assert answer.status_code == 200, answer.text
    first = {"n": 9007199254740993}
    each = {"x": {"of": 1, "n": first["n"]}, "y": {"of": None, "n": first["n"]}}
    assert answer.json() == {"first": first, "left": first, "right": first["n"], "each": each, "join": [first, each]}
    assert list(answer.json()) == ["first", "left", "right", "each", "join"]


def test_more_elements_than_its_bound_fail_it_before_one_begins(world):
    answer = world.post("shape", {"n": 1, "list": [{"name": str(i), "v": 1} for i in range(4)]})
    assert answer.status_code == 500 and 'step \\"each\\": for_each has 4 items, the limit is 3' in answer.text


def test_a_killed_worker_in_the_middle_of_parallel_workflows_loses_and_doubles_nothing(world):
    """What may run again does, each once; what may not is said to be lost, and nothing that follows it begins."""
    again, once = world.begin("pair"), world.begin("once")
    world.wait_executed("first", "begin a", "begin b", "begin c", "begin d")
    world.worker.kill()
    world.work()
    told = world.wait_end(once)
    assert (told["status"], told["error"]) == ("failed", 'step "c": worker lost, outcome unknown')
    wait_until(lambda: world.executed().count("begin a") == 2 and world.executed().count("begin b") == 2, "both to be begun again")
    world.hold("")
    told = world.wait_end(again)
    assert (told["status"], told["result"]) == ("completed", {"first": "first", "a": "a", "b": "b", "last": "last"})
    executed = [line for line in world.executed() if not line.endswith(" d")]  # stopped with the first of its workflow, in whatever state
    assert executed == sorted(["first", "begin a", "begin a", "begin b", "begin b", "begin c", "end a", "end b", "last"])


def test_a_killed_router_finds_its_workflow_as_far_as_it_has_come(world):
    location = world.begin("pair")
    world.wait_executed("begin a", "begin b")
    world.router.kill()
    world.hold("")
    world.wait_executed("last")  # the worker needs no router for it
    world.serve()
    assert world.wait_end(location)["result"] == {"first": "first", "a": "a", "b": "b", "last": "last"}
    assert world.executed() == sorted(["first", "begin a", "begin b", "end a", "end b", "last"])


def test_a_reload_changes_no_workflow_that_runs(world):
    location = world.begin("pair")
    world.wait_executed("begin a", "begin b")
    reloads = len(world.worker.find("reloaded"))
    world.write([w if w["name"] != "pair" else {"name": "pair", "steps": [{"task": "count", "name": "other", **key("other")}]} for w in WORKFLOWS])
    world.worker.signal(signal.SIGHUP)
    world.worker.wait_event("reloaded", reloads + 1)
    world.hold("")
    assert world.wait_end(location)["result"] == {"first": "first", "a": "a", "b": "b", "last": "last"}
    assert world.wait_end(world.begin("pair"))["result"] == {"other": "other"}
    world.write(WORKFLOWS)
    world.worker.signal(signal.SIGHUP)
    world.worker.wait_event("reloaded", reloads + 2)


def test_a_failed_step_ends_the_whole_and_what_runs_is_stopped(world):
    told = world.wait_end(world.begin("breaks"))
    assert (told["status"], told["error"]) == ("failed", 'step "wrong": the model is away')
    world.wait_idle()
    assert "last" not in world.executed() and "end a" not in world.executed()


def test_a_steps_own_time_limit_ends_the_whole(world):
    told = world.wait_end(world.begin("late"))
    assert (told["status"], told["error"]) == ("failed", 'step "a": timed out after 500 ms')
    world.wait_idle()
    assert "last" not in world.executed() and "end a" not in world.executed()


def test_cancelled_nothing_new_begins_and_what_runs_is_stopped(world):
    location = world.begin("pair")
    world.wait_executed("begin a", "begin b")
    steps = world.at(location).json()["steps"]
    assert [(s["name"], s["status"]) for s in steps] == [("first", "completed"), ("a", "running"), ("b", "running")]
    assert all(s["started_at"] for s in steps) and steps[0]["completed_at"]
    assert world.at(location, "DELETE").status_code in (202, 204)
    told = world.wait_end(location)
    assert told["status"] == "failed" and told["error"] in ('step "a": cancelled while it ran', 'step "b": cancelled while it ran')
    world.wait_idle()
    assert "last" not in world.executed() and "end a" not in world.executed() and "end b" not in world.executed()


# --- what the programs say of a file -------------------------------------------------------------------------------------

def test_a_workflow_is_drawn(start, world):
    drawn = start.run("migration-router", "graph", "shape", "--tasks", world.folder / "tasks.yml")
    assert drawn.returncode == 0 and drawn.stdout.startswith("flowchart TD\n"), drawn.stderr
    assert '    s3[["each<br/>task give_back<br/>for each of input:/list, at most 3"]]\n' in drawn.stdout and "    s1 --> s4\n" in drawn.stdout
    for arguments in (["shap", "--tasks", world.folder / "tasks.yml"], ["shape", "--tasks", world.folder / "none.yml"], [], ["a", "b"]):
        wrong = start.run("migration-router", "graph", *arguments)
        assert wrong.returncode == 2 and wrong.stderr and not wrong.stdout


def test_check_and_dry_run_tell_every_mistake_of_a_workflow_with_its_line(start):
    folder = start.folder()
    (folder / "tasks.yml").write_text("tasks: [{name: a, builtin: echo}]\n"
                                      "workflows:\n"
                                      "  - name: w\n"
                                      "    steps:\n"
                                      "      - {task: a, name: one, parents: [two]}\n"
                                      "      - {task: a, name: two, parents: [one]}\n"
                                      "      - b\n"
                                      "      - {task: a, name: three, parents: [], input: {$ref: 'step:one'}}\n")
    (folder / "router.yml").write_text(json.dumps(c.router({"s": c.service("http://127.0.0.1:9")}, backends=c.embedded())))
    (folder / "flags.yml").write_text(json.dumps(c.features()))
    told = ["tasks.yml:5: workflows[0].steps[0].parents: the steps go in a circle: one → two → one",
            'tasks.yml:7: workflows[0].steps[2]: unknown task "b"; did you mean "a"?',
            'tasks.yml:7: workflows[0].steps[2]: the step "b" is never reached: it comes after a circle',
            'tasks.yml:8: workflows[0].steps[3].input.$ref: the step "one" is not one that this step follows']
    checked = start.run("migration-router", "check", folder / "router.yml")
    dry = start.run("task-backend-worker", "--tasks", folder / "tasks.yml", "--dry-run")
    for run in (checked, dry):
        assert run.returncode != 0
        for line in told:
            assert line in run.stdout + run.stderr, (line, run.stdout, run.stderr)
