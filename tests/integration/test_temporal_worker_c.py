"""Our worker on a real Temporal server: Python clients, Python workers beside it, kills, restarts, cancellation."""
import asyncio
import json
import os
import signal
import threading
from datetime import timedelta

import pytest
from temporalio.client import Client, WorkflowFailureError
from temporalio.exceptions import ActivityError, ApplicationError, CancelledError, TimeoutError as TimedOut

import configuration
import temporal_server
from http_text import PATIENCE, wait_until
from programs import need_backend

need_backend("temporal")
LIMIT = timedelta(seconds=PATIENCE)


class Place:
    """A server, a Python client on a loop of its own, and workers of ours."""

    def __init__(self, folder):
        program, why = temporal_server.find()
        if not program:
            pytest.skip(why)
        self.folder, self.start, self.workers = str(folder), None, []
        self.server = temporal_server.Server(folder, file="temporal.db")
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.client = self.wait(Client.connect(self.server.address))
        self.n = 0

    def wait(self, coroutine, limit=2 * PATIENCE):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(limit)

    def write(self, workflows=None, **changed):
        runs, go = os.path.join(self.folder, "runs"), os.path.join(self.folder, "go")
        note = 'read -r key; echo "begin $key" >>%s; ' % runs
        one = {"stdin": {"text": "args:/0"}, "stdout": "text"}
        hold = {"argv": ["sh", "-c", note + 'trap "echo stopped $key >>%s; exit 1" TERM; until test -e %s; do sleep 0.02; done; printf %%s "$key"'
                         % (runs, go)], **one}
        again = {"argv": ["sh", "-c", note + 'test $(grep -c "begin $key" %s) -ge 2 || exit 75; printf %%s "$key"' % runs], **one}
        tasks = [{"name": "hold", "exec": hold, **changed.get("hold", {})},
                 {"name": "hold_again", "exec": hold, "idempotent": True, **changed.get("hold_again", {})},
                 {"name": "second_time", "exec": again, "idempotent": True}]
        path = os.path.join(self.folder, "tasks.yml")
        with open(path + ".new", "w", encoding="utf-8") as file:
            json.dump({"tasks": tasks, "workflows": workflows or []}, file)
        os.replace(path + ".new", path)

    def worker(self, *arguments, queue="tests", **settings):
        config = configuration.router({"app": configuration.service("http://127.0.0.1:9")}, backend="temporal", backends={"temporal": {
            "http_url": self.server.url, "address": self.server.address, "poll_timeout": "3s", **settings}})
        path = os.path.join(self.folder, "worker.yml")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(config, file)
        process = self.start.process("task-backend-worker", "--config", path, "--tasks", os.path.join(self.folder, "tasks.yml"),
                                     "--queues", queue, "--log-format", "json", *arguments, cwd=self.folder)
        process.wait_event("worker_ready")
        self.workers.append(process)
        return process

    def begin(self, name, *args, queue="tests", **how):
        self.n += 1
        return self.wait(self.client.start_workflow(name, args=list(args), id="%s-%d" % (name, self.n), task_queue=queue,
                                                    execution_timeout=LIMIT, **how))

    def ask(self, name, *args, **how):
        return self.wait(self.begin(name, *args, **how).result())

    def failure(self, name, *args, **how):
        return self.failure_of(self.begin(name, *args, **how))

    def failure_of(self, handle):
        with pytest.raises(WorkflowFailureError) as why:
            self.wait(handle.result())
        return why.value.cause

    def events(self, handle):
        return self.wait(handle.fetch_history()).events

    def runs(self):
        try:
            with open(os.path.join(self.folder, "runs"), encoding="utf-8") as file:
                return file.read().split("\n")[:-1]
        except FileNotFoundError:
            return []

    def wait_run(self, line, count=1):
        wait_until(lambda: self.runs().count(line) >= count, "a task to say: " + line)

    def go(self):
        with open(os.path.join(self.folder, "go"), "w", encoding="utf-8"):
            pass

    def end(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(PATIENCE)
        self.server.kill()


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    one = Place(tmp_path_factory.mktemp("temporal"))
    yield one
    one.end()


@pytest.fixture
def place(shared, start):  # pylint: disable=redefined-outer-name
    shared.start, shared.workers = start, []
    for name in ("runs", "go"):
        if os.path.exists(os.path.join(shared.folder, name)):
            os.unlink(os.path.join(shared.folder, name))
    shared.write()
    yield shared
    for process in shared.workers:
        process.kill()  # an end in order waits for open polls; test_sigterm_lets_what_runs_end has one


def test_a_python_client_sees_ordinary_workflows(place):
    place.worker()
    handle = place.begin("add_numbers_workflow", [1], {"b": 2})
    assert place.wait(handle.result()) == 3
    kinds = [event.WhichOneof("attributes") for event in place.events(handle)]
    assert "activity_task_completed_event_attributes" in kinds and "marker_recorded_event_attributes" not in kinds
    why = place.failure("add_numbers_workflow", ["x"], {"b": 2})
    assert isinstance(why, ActivityError) and why.activity_type == "add_numbers"
    assert isinstance(why.cause, ApplicationError) and "must be a number" in why.cause.message
    why = place.failure("add_numbers_workflow", {"a": 1}, [])
    assert isinstance(why, ApplicationError) and (why.type, why.non_retryable) == ("InvalidInput", True)
    assert place.ask("second_time_workflow", ["again"], {}) == "again"
    assert place.runs().count("begin again") == 2


def test_a_workflow_that_is_not_known_waits_for_a_worker_that_knows_it(place):
    worker = place.worker()
    handle = place.begin("nobody_workflow", [], {})
    worker.wait_event("workflow_task_failed", workflow="nobody_workflow")
    place.wait(handle.terminate())


def test_both_kinds_of_workers_share_a_queue(place):
    place.worker()
    python = temporal_server.Worker(place.folder, place.server, "tests", places=2)
    handles = [place.begin("add_numbers_workflow", [n, 1], {}) for n in range(20)]
    assert [place.wait(h.result()) for h in handles] == list(range(1, 21))
    python.kill()  # what its sticky queue holds comes back to ours
    handles = [place.begin("add_numbers_workflow", [n, 1], {}) for n in range(5)]
    assert [place.wait(h.result()) for h in handles] == list(range(1, 6))


FLOW = {"name": "flow", "steps": [{"parallel": [{"task": "add_numbers", "name": "left"}, {"task": "hold", "name": "right", "args": ["held"]}]},
                                  {"task": "add_numbers", "name": "both", "args": [{"$ref": "step:left"}, 5]}]}


def test_a_declared_workflow_goes_on_by_its_own_definition_in_another_worker(place):
    place.write([FLOW])
    first = place.worker()
    handle = place.begin("flow", [1, 2], {})
    place.wait_run("begin held")
    place.write([{"name": "flow", "steps": ["add_numbers"]}])
    first.signal(signal.SIGHUP)
    first.wait_event("reloaded")
    assert place.ask("flow", [2, 2], {}) == {"add_numbers": 4}
    place.worker()
    first.signal(signal.SIGTERM)
    place.go()
    assert place.wait(handle.result()) == {"left": 3, "right": "held", "both": 8}


def test_a_history_that_does_not_fit_is_named(place):
    place.write([FLOW])
    first = place.worker(queue="misfit")
    handle = place.begin("hold_workflow", ["misfit"], {}, queue="misfit")
    place.wait_run("begin misfit")
    place.write([{"name": "hold_workflow", "steps": ["add_numbers"]}])
    first.signal(signal.SIGHUP)
    first.wait_event("reloaded")
    place.go()
    first.wait_event("workflow_task_failed", workflow="hold_workflow")
    assert "event 5: " in first.log()
    failed = wait_until(lambda: [e for e in place.events(handle) if e.HasField("workflow_task_failed_event_attributes")], "the failure")
    assert failed[0].workflow_task_failed_event_attributes.cause == 24
    place.wait(handle.terminate())


def test_a_killed_worker_is_a_timeout_and_another_attempt_where_that_is_allowed(place):
    place.write(hold={"timeout": "2s"}, hold_again={"timeout": "2s"})
    first = place.worker(heartbeat_timeout="1s")
    once, again = place.begin("hold_workflow", ["once"], {}), place.begin("hold_again_workflow", ["again"], {})
    place.wait_run("begin once")
    place.wait_run("begin again")
    first.kill()
    place.go()
    place.worker(heartbeat_timeout="1s")
    assert place.wait(again.result()) == "again"
    why = place.failure_of(once)
    assert isinstance(why, ActivityError) and isinstance(why.cause, TimedOut)
    assert (place.runs().count("begin once"), place.runs().count("begin again")) == (1, 2)


def test_a_cancelled_workflow_stops_what_runs(place):
    place.worker(heartbeat_timeout="1s")
    handle = place.begin("hold_workflow", ["unwanted"], {})
    place.wait_run("begin unwanted")
    place.wait(handle.cancel())
    assert isinstance(place.failure_of(handle), CancelledError)
    place.wait_run("stopped unwanted")


def test_a_server_that_was_away_is_worked_for_again(place):
    worker = place.worker()
    handle = place.begin("hold_workflow", ["meanwhile"], {})
    place.wait_run("begin meanwhile")
    place.server.kill()
    worker.wait_event("temporal_failed")
    place.go()
    place.server.start()
    assert place.wait(handle.result()) == "meanwhile"
    assert place.runs().count("begin meanwhile") == 1


def test_sigterm_lets_what_runs_end(place):
    worker = place.worker()
    handle = place.begin("hold_workflow", ["last"], {})
    place.wait_run("begin last")
    worker.signal(signal.SIGTERM)
    worker.wait_event("worker_drains")
    place.go()
    place.worker()  # the workflow's own end is for whoever is there
    assert place.wait(handle.result()) == "last"
    assert worker.wait() == 0


def test_an_address_that_is_missing_is_said(place):
    path = os.path.join(place.folder, "bad.yml")
    config = configuration.router({"app": configuration.service("http://127.0.0.1:9")}, backend="temporal",
                                  backends={"temporal": {"http_url": place.server.url}})
    with open(path, "w", encoding="utf-8") as file:
        json.dump(config, file)
    worker = place.start.process("task-backend-worker", "--config", path, cwd=place.folder)
    assert worker.wait() == 2
    assert "TEMPORAL_ADDRESS" in worker.log()
