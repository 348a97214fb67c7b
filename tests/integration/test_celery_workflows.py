"""Workflows that a file declares, as chains of real Celery workers."""
import json

import pytest
import requests

import configuration
from celery_router import call
from http_text import PATIENCE, wait_until

WORKFLOWS = {"workflows": [
    {"name": "tell-sum", "steps": [{"task": "add_numbers"}, {"task": "echo"}]},
    {"name": "inputs", "steps": [{"task": "everything", "kwargs": {"first": True}},
                                 {"name": "again", "task": "everything", "input": "workflow", "kwargs": {"second": 2.0}},
                                 {"name": "none", "task": "everything", "input": "none"},
                                 {"name": "last", "task": "everything", "kwargs": {"fourth": "4"}}]},
    {"name": "breaks", "steps": [{"task": "give_back"}, {"task": "fail"}, {"task": "count_up"}]},
    {"name": "slow-step", "steps": [{"task": "give_back"}, {"task": "simulate_work", "timeout": "1s"}, {"task": "count_up"}]},
    {"name": "gap", "steps": [{"task": "add_numbers"}, {"task": "nobody_knows"}, {"task": "echo"}]},
    {"name": "beside", "steps": [{"task": "add_numbers"}, {"parallel": ["give_back", {"name": "again", "task": "echo"}]},
                                 {"name": "together", "task": "everything", "kwargs": {"last": True}}]},
    {"name": "beside-breaks", "steps": [{"task": "give_back"}, {"parallel": ["fail", "echo"]}, {"name": "last", "task": "count_up"}]},
    {"name": "before-breaks", "steps": [{"task": "fail"}, {"parallel": ["give_back", "echo"]}, {"name": "last", "task": "count_up"}]},
    {"name": "alone", "steps": [{"task": "add_numbers"}]}]}


def start_router(start, broker, *names, workflows=None, **more):
    folder = start.folder()
    (folder / "workflows.yml").write_text(json.dumps(workflows or WORKFLOWS))
    operations = {name: configuration.operation("POST /" + name, {"workflow": name, "args": {"$ref": "body:/args"}, "timeout": "20s", **more})
                  for name in names}
    config = configuration.router({"s": configuration.service("http://127.0.0.1:9", operations)}, backend="celery", backends={
        "celery": {"when_not_ready": "submit", "broker_url": broker, "workflows": "workflows.yml"}})
    return start.router(config, folder=folder, env={"TASK_ABSTRACTION_ENABLED": "true"})


def test_the_result_has_every_steps_as_on_other_backends(start, own_redis, workers):
    workers(own_redis.url())
    router = start_router(start, own_redis.url(), "tell-sum", "alone")
    assert call(router, "tell-sum", 2, 3).json() == {"add_numbers": 5, "echo": "Echo: 5"}
    assert call(router, "alone", 2, 3).json() == 5
    rows = router.wait_outcomes(2)
    assert {(row["backend"], row["result"]) for row in rows} == {("celery", "success")}


def test_steps_beside_each_other_are_a_chord(start, own_redis, workers):
    workers(own_redis.url())
    router = start_router(start, own_redis.url(), "beside")
    assert call(router, "beside", 2, 3).json() == {
        "add_numbers": 5, "give_back": 5, "again": "Echo: 5", "together": {"args": [[5, "Echo: 5"]], "kwargs": {"last": True}}}


@pytest.mark.parametrize("name", ["beside-breaks", "before-breaks"])
def test_a_failure_at_a_chord_is_the_workflows(start, own_redis, workers, name):
    workers(own_redis.url())
    answer = call(start_router(start, own_redis.url(), name), name, "the model is away")
    assert answer.status_code == 500 and "the model is away" in answer.json()["detail"], answer.text
    assert own_redis.client().get("the model is away") is None, "the step behind it was not run"


@pytest.mark.parametrize("steps", [
    [{"parallel": ["echo", "give_back"]}, "count_up"],  # nobody sends the first ones
    ["count_up", {"parallel": ["echo", "give_back"]}],  # there is no single end
    ["echo", {"parallel": [{"name": "a", "task": "echo"}, "give_back"]}, "describe", "count_up"],  # nobody is told of its failure
    ["echo", {"task": "give_back", "args": [{"$ref": "input:/x"}]}],
])
def test_what_celery_cannot_run_is_told_by_the_check(start, tmp_path, steps):
    (tmp_path / "workflows.yml").write_text(json.dumps({"workflows": [{"name": "w", "steps": steps}]}))
    (tmp_path / "router.yml").write_text(json.dumps(configuration.router({"s": configuration.service("http://127.0.0.1:9", {
        "w": configuration.operation("POST /w", {"workflow": "w"})})}, backends={
            "celery": {"broker_url": "redis://127.0.0.1:1/0", "workflows": "workflows.yml"}})))
    ended = start.run("migration-router", "check", tmp_path / "router.yml")
    assert ended.returncode == 2 and 'declare it with "execution: router"' in ended.stderr and "router.yml:" in ended.stderr, ended.stderr


def test_inputs_of_steps_and_a_queue_of_its_own(start, own_redis, workers):
    """Every step runs on the operation's queue; nobody consumes the default one."""
    workers(own_redis.url(), queues="apart")
    router = start_router(start, own_redis.url(), "inputs", queue="apart")
    assert call(router, "inputs", 1.0, 9007199254740993).json() == {
        "everything": {"args": [1.0, 9007199254740993], "kwargs": {"first": True}},
        "again": {"args": [1.0, 9007199254740993], "kwargs": {"second": 2.0}}, "none": {"args": [], "kwargs": {}},
        "last": {"args": [{"args": [], "kwargs": {}}], "kwargs": {"fourth": "4"}}}
    ids = [key.decode().removeprefix("celery-task-meta-") for key in own_redis.client().keys("celery-task-meta-*")]
    results = [json.loads(own_redis.client().get("celery-task-meta-" + task_id))["result"] for task_id in ids]
    assert len(ids) == 4 and router.wait_outcomes()[0]["task_id"] in ids
    assert {"args": [1.0, 9007199254740993], "kwargs": {"first": True}} in results
    assert {"args": [1.0, 9007199254740993], "kwargs": {"second": 2.0}} in results


def test_a_failure_in_the_middle_is_the_workflows(start, own_redis, workers):
    workers(own_redis.url())
    router = start_router(start, own_redis.url(), "breaks")
    answer = call(router, "breaks", "the model is away")
    assert answer.status_code == 500 and answer.json()["detail"] == "the model is away", answer.text
    assert own_redis.client().get("the model is away") is None, "the step behind it was not run"


def test_a_steps_time_limit(start, own_redis, workers):
    workers(own_redis.url(), pool="prefork", concurrency=1)
    answer = call(start_router(start, own_redis.url(), "slow-step"), "slow-step", 60)
    assert answer.status_code == 500 and answer.json()["detail"] == "timed out after 1 s", answer.text


def test_the_check_names_the_step_that_nobody_knows(start, own_redis, workers):
    """Worth knowing before: Celery tells a chain nothing of a step in its middle that is not registered."""
    workers(own_redis.url())
    router = start_router(start, own_redis.url(), "gap", "tell-sum")
    ended = start.run("migration-router", "check", router.config_path, "--backends", timeout=PATIENCE)
    rows = {line.split()[0]: line.split(None, 6) for line in ended.stdout.splitlines() if line.startswith("s.")}
    assert ended.returncode == 1 and rows["s.tell-sum"][6] == "-"
    assert rows["s.gap"][4] == "no" and rows["s.gap"][6].startswith('no live worker has registered task "nobody_knows"')


def test_a_workflow_that_is_not_declared_is_a_task_of_its_name(start, own_redis, workers):
    workers(own_redis.url())
    router = start_router(start, own_redis.url(), "add_numbers", "tell-sum")
    assert call(router, "add_numbers", 2, 3).json() == 5


def test_a_mistake_in_the_file_is_named_with_its_line(start, tmp_path):
    path = tmp_path / "router.yml"
    (tmp_path / "workflows.yml").write_text("workflows:\n  - name: w\n    steps: []\n")
    path.write_text(json.dumps(configuration.router({"s": configuration.service("http://127.0.0.1:9")}, backend="celery", backends={
        "celery": {"broker_url": "redis://127.0.0.1:1/0", "workflows": "workflows.yml"}})))
    ended = start.run("migration-router", "check", path)
    assert ended.returncode == 2 and "workflows.yml:3: workflows[0].steps: must be a list of 1 to" in ended.stderr, ended.stderr


def test_messages_of_a_chain_wait_in_the_queue_as_one(start, own_redis):
    """What follows a step is sent by its worker: without one there is a single message."""
    router = start_router(start, own_redis.url(), "inputs", respond_async=True)
    assert call(router, "inputs", 1, headers={"Prefer": "respond-async"}).status_code == 202
    wait_until(lambda: own_redis.client().llen("celery") == 1, "the first step's message")
    assert own_redis.client().dbsize() == 1, "the queue, and nothing beside it"


def test_another_router_tells_the_steps_too(start, own_redis, workers):
    """Who looks later, and elsewhere, has nothing but the id."""
    workers(own_redis.url())
    router = start_router(start, own_redis.url(), "tell-sum", respond_async=True)
    location = call(router, "tell-sum", 2, 3, headers={"Prefer": "respond-async"}).headers["Location"]

    def state():
        return requests.get("http://127.0.0.1:%d%s" % (router.port, location), timeout=PATIENCE).json()
    wait_until(lambda: state()["status"] == "completed", "the chain's end")
    assert state()["result"] == {"add_numbers": 5, "echo": "Echo: 5"}
    key = next(k for k in own_redis.client().keys("celery-task-meta-*") if json.loads(own_redis.client().get(k))["result"] == 5)
    own_redis.client().delete(key)
    assert state()["result"] == "Echo: 5", "where no step's result is kept any more, the last one is all there is"


def test_steps_that_may_not_be_read_are_no_other_shape(start, own_redis, workers):
    """A chain whose steps Redis refuses to tell has ended and cannot be read; a plain task's result needs no more than its own."""
    workers(own_redis.url())
    router = start_router(start, own_redis.url(), "tell-sum", "add_numbers")
    client = own_redis.client()
    client.execute_command("ACL", "SETUSER", "default", "-mget")
    try:
        assert call(router, "add_numbers", 2, 3).json() == 5
        answer = call(router, "tell-sum", 2, 3)
        assert answer.status_code == 502 and "cannot be read" in answer.json()["detail"], answer.text
    finally:
        client.execute_command("ACL", "SETUSER", "default", "+mget")
