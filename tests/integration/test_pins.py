"""Rule 4: follow-up calls go where the first call went, over flag flips and kill -9."""
import json
import os
import sys

import pytest

import configuration as c
from raw import ask, request

# A container is a file in the folder of the task side.
CONTAINER = """
import json, os, sys
verb, folder = sys.argv[1:]
name = json.load(sys.stdin)["kwargs"]["container_name"]
path = os.path.join(folder, name)
if verb == "run":
    open(path, "x").close()
    print(json.dumps({"type": "RESULT", "result": None, "status": "RUNNING"}))
elif verb == "status":
    if name.startswith("broken"):
        sys.exit("the status is not known")
    print(json.dumps({"status": "RUNNING" if os.path.exists(path) else "NOT_FOUND"}))
else:
    os.unlink(path)
    print(json.dumps({"status": "SUCCESS"}))
"""
FLAGS = ("task_abstraction_enabled", "runner_replacement_enabled")
RUNNING, SUCCESS, LEGACY = {"status": "RUNNING"}, {"status": "SUCCESS"}, {"status": "LEGACY"}


def percent(n):
    return c.features(c.boolean(FLAGS[0], True), c.boolean(FLAGS[1], False, percentage=n))


class World:
    def __init__(self, start):
        self.start, self.origin, self.folder = start, start.origin(), str(start.folder())
        self.origin.answers(200, [("Content-Type", "application/json")], json.dumps(LEGACY).encode())
        containers = os.path.join(self.folder, "containers")
        os.mkdir(containers)
        with open(os.path.join(self.folder, "tasks.yml"), "w", encoding="utf-8") as file:
            json.dump({"tasks": [{"name": name, "exec": {"argv": [sys.executable, "-c", CONTAINER, verb, containers]}} for name, verb in
                                 (("run_container", "run"), ("get_container_status", "status"), ("remove_container", "remove"))]}, file)

        def operation(match, task, key, role, **sections):
            name = {"container_name": {"$ref": key}}
            return c.operation(match, {"name": task, "kwargs": name, "timeout": "30s", **sections}, flags=FLAGS,
                               pin={"group": "container", "key": key, "role": role})
        operations = {
            "run": operation("POST /v1/api/container/run", "run_container", "body:/container_name", "start"),
            "run_status": operation("GET /v1/api/container/run-status", "get_container_status", "query:container_name", "follow",
                                    idempotent=True),
            "remove": operation("DELETE /v1/api/container/remove", "remove_container", "body:/container_name", "end"),
        }
        self.config = c.router({"runner": c.service(self.origin, operations, entity=["organization"])}, backends=c.embedded(),
                               identity={"organization": ["header:X-Organization-Id"]})

    def serve(self, percentage):
        self.router = self.start.router(self.config, percent(percentage), folder=self.folder)
        self.worker = self.start.worker(self.router)
        return self

    def killed_and_served(self, percentage):
        self.router.kill()
        self.worker.kill()
        return self.serve(percentage)

    def call(self, method, path, body=None):
        whole = request(method, "/v1/api/container/" + path, [("X-Organization-Id", "org-1")], body and json.dumps(body).encode())
        return ask(self.router.port, whole)

    def told(self, *call):
        answer = self.call(*call)
        assert answer.status == 200, answer.body
        return {"status": json.loads(answer.body)["status"]}

    def run(self, name):
        return self.told("POST", "run", {"container_name": name})

    def status(self, name):
        return self.told("GET", "run-status?container_name=" + name)

    def remove(self, name):
        return self.told("DELETE", "remove", {"container_name": name})

    def reasons(self, n):
        return [(r["operation"], r["side"], r["reason"]) for r in self.router.wait_outcomes(n)]


@pytest.fixture
def world(start):
    return World(start)


def test_what_was_started_by_a_task_stays_there_when_the_flag_goes_to_zero(world):
    world.serve(100)
    assert world.run("x") == RUNNING
    world.killed_and_served(0)
    assert world.status("x") == RUNNING
    assert world.remove("x") == SUCCESS
    assert world.origin.requests == []
    assert world.reasons(2)[-2:] == [("run_status", "task", "pinned"), ("remove", "task", "pinned")]
    # Removed, it is nobody's any more: like any name that the task side never had, it is legacy's.
    assert world.status("x") == LEGACY
    world.killed_and_served(0)
    assert world.status("x") == LEGACY
    assert world.run("y") == LEGACY


def test_what_was_started_on_legacy_stays_there_when_the_flag_goes_to_a_hundred(world):
    world.serve(0)
    assert world.run("x") == LEGACY
    world.killed_and_served(100)
    assert world.status("x") == LEGACY and world.remove("x") == LEGACY
    assert world.run("y") == RUNNING and world.status("y") == RUNNING
    assert [r.target.split("?")[0].rsplit("/", 1)[1] for r in world.origin.requests] == ["run", "run-status", "remove"]
    assert ("run_status", "legacy", "pinned") in world.reasons(4)


def test_a_name_started_anew_on_legacy_is_legacys(world):
    world.serve(100)
    assert world.run("x") == RUNNING
    world.killed_and_served(0)
    assert world.run("x") == LEGACY
    assert world.status("x") == LEGACY
    world.killed_and_served(0)
    assert world.status("x") == LEGACY


def test_a_pinned_call_that_fails_is_not_served_by_legacy(world):
    """Legacy would say that there is no such container, although it runs."""
    world.serve(100)
    assert world.run("broken") == RUNNING
    answer = world.call("GET", "run-status?container_name=broken")  # idempotent: without the pin legacy would be asked
    assert answer.status >= 500 and world.origin.requests == []
    assert world.router.wait_outcomes(1, "operation = 'run_status'")[0]["role"] == "primary"


def test_a_failed_start_still_belongs_to_the_task_side(world):
    world.serve(100)
    assert world.run("x") == RUNNING
    assert world.call("POST", "run", {"container_name": "x"}).status >= 500  # exists: the task fails
    assert world.status("x") == RUNNING and world.origin.requests == []
