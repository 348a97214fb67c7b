"""The worker's tasks from files, lists and folders: found, told with their places, reloaded, and what becomes of broken ones."""
import json
import os
import signal

import pytest
import requests

import configuration as c
from http_text import wait_until
from programs import write_atomically
from raw import ask, request

PATIENCE = 60
FLAGS = c.features(c.boolean("task_abstraction_enabled", True))


def declare(folder, file, *names, **more):
    os.makedirs(os.path.dirname(os.path.join(folder, file)), exist_ok=True)
    tasks = [{"name": name, "exec": {"argv": ["echo", json.dumps(name)]}, "idempotent": True} for name in names]
    write_atomically(os.path.join(folder, file), json.dumps({"tasks": tasks, **more}))


@pytest.fixture
def place(start):
    """A router whose embedded backend has tasks.yml and the folder tasks.d."""
    folder = str(start.folder())
    declare(folder, "tasks.yml", "one")
    declare(folder, "tasks.d/20-two.yml", "two")
    operations = {name: c.operation("POST /" + name, {"name": name, "args": []}) for name in ("one", "two", "three")}
    backend = {"database": "data/tasks.db", "tasks": ["tasks.yml", "tasks.d"]}
    config = c.router({"app": c.service(start.origin(), operations)}, backends={"embedded": backend})
    return start.router(config, FLAGS, folder=folder)


def listed(start, *arguments):
    return start.run("task-backend-worker", "--list-tasks", *arguments)


def expect_task(place, name):
    """The task side's answer; legacy's is another, while the router has not heard of the worker yet."""
    wait_until(lambda: ask(place.port, request("POST", "/" + name)).body == json.dumps(name).encode(), "the task %s to answer" % name, PATIENCE)


def health(port):
    return requests.get("http://127.0.0.1:%d/health" % port, timeout=PATIENCE).json()


def metric(port, name):
    lines = requests.get("http://127.0.0.1:%d/metrics" % port, timeout=PATIENCE).text.splitlines()
    return [float(line.split()[1]) for line in lines if line.split(" ")[0] == name][0]


def test_a_folder_is_found_and_what_is_dropped_into_it_runs_after_a_reload(start, place):
    worker = start.worker(place, "--health-port", "0")
    port = int(worker.wait_event("health_listening")["port"])
    for name in ("one", "two"):
        expect_task(place, name)
    declare(place.folder, "tasks.d/30-three.yml", "three")
    worker.signal(signal.SIGHUP)
    worker.wait_event("reloaded", tasks=3)
    expect_task(place, "three")
    assert health(port)["tasks"] == {"known": 10, "workflows": 0, "left_out": 0, "refused_since": None}


def test_a_broken_new_set_leaves_the_old_one_in_force_and_health_says_so_until_it_is_mended(start, place):
    worker = start.worker(place, "--health-port", "0")
    port = int(worker.wait_event("health_listening")["port"])
    declare(place.folder, "tasks.d/30-three.yml", "three", "one")
    worker.signal(signal.SIGHUP)
    problem = worker.wait_event("reload_refused")["problem"]
    assert "tasks.d/30-three.yml:1: tasks[1].name: \"one\" is declared twice; first at " in problem and "tasks.yml:1" in problem
    expect_task(place, "two")
    told = health(port)
    assert told["status"] == "healthy" and told["tasks"]["known"] == 9 and told["tasks"]["refused_since"]
    assert metric(port, "task_worker_tasks_refused") == 1
    declare(place.folder, "tasks.d/30-three.yml", "three")
    worker.signal(signal.SIGHUP)
    worker.wait_event("reloaded", tasks=3)
    assert health(port)["tasks"]["refused_since"] is None and metric(port, "task_worker_tasks_refused") == 0


def test_an_emptied_folder_does_not_end_its_tasks(start, place):
    worker = start.worker(place)
    os.unlink(os.path.join(place.folder, "tasks.d/20-two.yml"))
    worker.signal(signal.SIGHUP)
    assert "has no *.yml" in worker.wait_event("reload_refused")["problem"]
    expect_task(place, "two")


def test_without_fail_fast_the_rest_is_served_and_what_is_left_out_is_told_everywhere(start, place):
    declare(place.folder, "tasks.d/30-three.yml", "three", "one")
    refused = start.run("task-backend-worker", "--config", place.config_path, "--dry-run")
    assert refused.returncode == 2 and "is declared twice; first at" in refused.stderr
    told = listed(start, "--config", place.config_path, "--fail-fast", "false")
    assert told.returncode == 0 and "LEFT OUT 1:\n" in told.stdout and "is declared twice; first at" in told.stdout
    assert "1 left out" in told.stderr
    worker = start.worker(place, "--health-port", "0", "--fail-fast", "false")
    port = int(worker.wait_event("health_listening")["port"])
    assert health(port)["tasks"]["left_out"] == 1 and metric(port, "task_worker_left_out") == 1
    assert worker.wait_event("tasks_left_out")["n"] == 1
    expect_task(place, "one")
    declare(place.folder, "tasks.d/30-three.yml", "three")
    worker.signal(signal.SIGHUP)
    worker.wait_event("reloaded", tasks=3, left_out=0)
    assert health(port)["tasks"]["left_out"] == 0


def test_each_task_is_listed_with_its_place(start, place):
    told = listed(start, "--tasks", os.path.join(place.folder, "tasks.d"), "--tasks", os.path.join(place.folder, "tasks.yml")).stdout
    assert "task two queue=default handler=exec" in told and "from=%s/tasks.d/20-two.yml:1\n" % place.folder in told
    assert "task add_numbers queue=default handler=builtin timeout=300000ms max_attempts=1 from=core\n" in told
    assert "add_numbers" not in listed(start, "--tasks", os.path.join(place.folder, "tasks.yml"), "--core-tasks", "false").stdout


@pytest.mark.parametrize("key, value, wrong", [("tasks", {"a": 1}, "single value or a list"), ("database", ["a", "b"], "a single path"),
                                               ("tasks_fail_fast", "maybe", "true or false"), ("core_tasks", "x", "true or false")])
def test_mistakes_in_where_tasks_come_from(start, key, value, wrong):
    folder = str(start.folder())
    backend = {"embedded": {"database": "tasks.db", key: value}}
    path = os.path.join(folder, "router.yml")
    write_atomically(path, json.dumps(c.router({"app": c.service("http://127.0.0.1:9")}, backends=backend)))
    done = start.run("migration-router", "check", path)
    assert done.returncode == 2 and "router.yml:1: backends.embedded.%s: " % key in done.stderr and wrong in done.stderr, done.stderr
