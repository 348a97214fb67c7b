"""All mistakes of a configuration are told at once, each with its file, line and key; sizes and durations are written one way."""
import json
import os

import pytest

import configuration as c
from programs import backends_built

TASKS = """tasks:
  - name: a
    exec: {argv: [true]}
    timeout: 3x
  - name: b
    exec: {argv: ["true"], max_output: 9TiB}
    retries: 2
"""
MISTAKES = ["tasks.yml:4: tasks[0].timeout: expected a duration from 1ms to 7d", "tasks.yml:6: tasks[1].exec.max_output: expected a size from 1 to 64MiB",
            "tasks.yml:7: tasks[1].retries: unknown key"]


def check(start, config):
    folder = str(start.folder())
    with open(os.path.join(folder, "tasks.yml"), "w", encoding="utf-8") as file:
        file.write(TASKS)
    path = os.path.join(folder, "router.yml")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(config, file, indent=1)
    return start.run("migration-router", "check", path), start.run("task-backend-worker", "--config", path, "--dry-run")


def lines_with(text, part):
    return [line for line in text.splitlines() if part in line]


@pytest.mark.parametrize("clean", [True, False], ids=["the rest is clean", "the rest is not clean"])
def test_every_mistake_of_the_tasks_file_is_told(start, clean):
    config = c.router({"app": c.service("http://127.0.0.1:9")}, backends=c.embedded(), **({} if clean else {"thread": 3}))
    for done in check(start, config):
        assert done.returncode == 2
        for mistake in MISTAKES:
            assert len(lines_with(done.stderr, mistake)) == 1, (mistake, done.stderr)
        assert len(lines_with(done.stderr, ": thread: ")) == (not clean)


def test_values_of_backends_are_judged_also_when_the_rest_is_not_clean(start):
    if "celery" not in backends_built():
        pytest.skip("left out of this build: celery")
    backends = {"celery": {"broker_url": "redis://127.0.0.1:9/0", "max_input": "64m", "connect_timeout": "3 years"}}
    for more in ({}, {"thread": 3}):
        done, _ = check(start, c.router({"app": c.service("http://127.0.0.1:9")}, backends=backends, **more))
        assert done.returncode == 2
        assert len(lines_with(done.stderr, "backends.celery.max_input: expected a size")) == 1, done.stderr
        assert len(lines_with(done.stderr, "backends.celery.connect_timeout: expected a duration")) == 1, done.stderr


@pytest.mark.parametrize("text, good", [("262144", True), (262144, True), ("256KiB", True), ("1 MiB", True), ("2MB", True), ("1m", False),
                                        ("256K", False), ("1Mb", False), ("1e6", False), ("-1", False), ("1 MiB!", False)])
def test_a_size_is_written_one_way_everywhere(start, text, good):
    backends = c.embedded()
    if "celery" in backends_built():
        backends["celery"] = {"broker_url": "redis://127.0.0.1:9/0", "max_input": text}
    config = c.router({"app": c.service("http://127.0.0.1:9")}, backends=backends, backend="embedded", limits={"max_inspect_body": text})
    folder = str(start.folder())
    with open(os.path.join(folder, "tasks.yml"), "w", encoding="utf-8") as file:
        json.dump({"tasks": [{"name": "a", "exec": {"argv": ["true"], "max_output": text}},
                             {"name": "b", "http": {"url": "http://127.0.0.1:9", "max_output": text}}]}, file)
    path = os.path.join(folder, "router.yml")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(config, file)
    done = start.run("migration-router", "check", path)
    assert done.returncode == (0 if good else 2), done.stderr
    said = [line for line in done.stderr.splitlines() if "a size from" in line]
    assert len(said) == (0 if good else 3 + ("celery" in backends)), done.stderr
