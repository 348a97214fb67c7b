"""task-backend-worker's command line and environment, as the programs it stands in for took them."""
import socket

import pytest

HOST = socket.gethostname()
PRODUCTION = ("prod", "PROD", "production", "Production")


def dry_run(start, *arguments, env=None):
    return start.run("task-backend-worker", "--dry-run", *arguments, env={"ENVIRONMENT": "", **(env or {})})


@pytest.mark.parametrize("stage", PRODUCTION)
def test_production_says_its_queues_on_the_command_line(start, stage):
    refused = dry_run(start, env={"ENVIRONMENT": stage})
    assert refused.returncode == 2 and "--queues: is required in production" in refused.stderr
    refused = dry_run(start, env={"ENVIRONMENT": stage, "TASK_QUEUES": "a"})
    assert refused.returncode == 2 and "TASK_QUEUES: is ignored in production" in refused.stderr
    taken = dry_run(start, "--queues", "b", env={"ENVIRONMENT": stage, "TASK_QUEUES": "a"})
    assert taken.returncode == 0 and "queues=b\n" in taken.stdout and "TASK_QUEUES is ignored" in taken.stderr
    # What serves no queue needs none.
    assert start.run("task-backend-worker", "--list-tasks", env={"ENVIRONMENT": stage, "TASK_QUEUES": "a"}).returncode == 0


def test_elsewhere_the_environment_names_queues(start):
    assert "queues=a,b\n" in dry_run(start, env={"ENVIRONMENT": "dev", "TASK_QUEUES": "a,b"}).stdout
    assert "queues=c\n" in dry_run(start, "--queues", "c", env={"ENVIRONMENT": "dev", "TASK_QUEUES": "a,b"}).stdout
    assert "queues=default\n" in dry_run(start).stdout
    refused = dry_run(start, env={"TASK_QUEUES": "a"})
    assert refused.returncode == 2 and "TASK_QUEUES: is only used if ENVIRONMENT is set" in refused.stderr


@pytest.mark.parametrize("queues, mistake", [
    ("", "without a name"), (" ", "without a name"), ("a,", "without a name"), (",a", "without a name"), ("a b", "a blank"),
    ("a\tb", "a blank"), ("a,b,a", "listed twice"), ("x" * 256, "too long"), (",".join(map(str, range(65))), "more than 64")])
def test_mistakes_in_queues(start, queues, mistake):
    refused = dry_run(start, "--queues", queues)
    assert refused.returncode == 2 and mistake in refused.stderr.splitlines()[0], refused.stderr
    if queues.strip():
        refused = dry_run(start, env={"ENVIRONMENT": "dev", "TASK_QUEUES": queues})
        assert refused.returncode == 2 and refused.stderr.startswith("task-backend-worker: TASK_QUEUES: ")


def test_the_name_holds_all_queues(start):
    assert dry_run(start, "--queues", "a, b,c").stdout.startswith("worker-%s-a-b-c: " % HOST)
    assert dry_run(start, "--worker-name", "w1").stdout.startswith("w1: ")


def test_words_of_the_original_command_line(start):
    for level in ("INFO", "DEBUG", "Warning", "CRITICAL"):
        assert dry_run(start, "--log-level", level).returncode == 0
    for wrong in (("--log-level", "loud"), ("--log-format", "xml")):
        assert dry_run(start, *wrong).returncode == 2
    folder = start.folder()
    worker = start.process("task-backend-worker", "--database", folder / "t.db", "--log-format", "structured", "--log-level", "INFO")
    worker.wait_event("worker_ready")
    plain = start.process("task-backend-worker", "--database", folder / "t.db", "--log-format", "console")
    with plain.changed:
        assert plain.changed.wait_for(lambda: any("event=worker_ready" in line for line in plain.lines), 30)
