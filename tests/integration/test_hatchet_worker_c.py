"""Our worker in front of a Hatchet engine: against the stand-in's gRPC side, and the same against a real engine where
HATCHET_CLIENT_TOKEN is set. Runs are triggered and looked at over REST, as by any other client."""
import base64
import json
import os
import signal
import sys
import urllib.error
import urllib.request

import pytest

import configuration
import core_tasks
import hatchet_real
from hatchet_dispatcher import CANCELLED, COMPLETED, FAILED, STARTED, WorkerEngine
from http_text import PATIENCE, wait_until
from programs import need_backend

need_backend("hatchet")

LONG = 3 * PATIENCE  # the real engine takes 30 s to see that a worker is lost


def tasks_of(folder):
    """Tasks as programs: `count` notes its key and gives it back; `hold` goes on until the file `go` is there."""
    runs, go = os.path.join(folder, "runs"), os.path.join(folder, "go")
    note = 'read -r key; echo "begin $key" >>%s; ' % runs
    one = {"stdin": {"text": "args:/0"}, "stdout": "text"}
    hold = {"exec": {"argv": ["sh", "-c", note + 'until test -e %s; do sleep 0.02; done; echo "end $key" >>%s; printf %%s "$key"'
                              % (go, runs)], **one}}
    third = {"exec": {"argv": ["sh", "-c", note + 'test $(grep -c "begin $key" %s) -ge 3 || exit 75; printf %%s "$key"' % runs], **one}}
    program = [sys.executable, "-E", "-S", core_tasks.__file__]
    own = {"env": {"RUNS_FOLDER": folder}}
    definitions = {
        "hc_count": {"exec": {"argv": ["sh", "-c", note + 'printf %s "$key"'], **one}},
        "hc_hold": hold, "hc_hold_again": {**hold, "idempotent": True},
        "hc_third": third, "hc_third_time": {**third, "idempotent": True, "max_attempts": 4},
        "give_back": {"exec": {"argv": program + ["give_back"], **own}}, "fail": {"exec": {"argv": program + ["fail"], **own}},
        "hc_long": {"exec": {"argv": ["sh", "-c", "sleep 100"]}, "timeout": "300ms"},
        "hc number": {"exec": {"argv": ["true"]}},
        "hc_number": {"exec": {"argv": ["echo", "12345678901234567890"]}},
        "hc_Case": {"exec": {"argv": ["echo", '{"hc_Case": 1}']}}, "HC_case": {"exec": {"argv": ["true"]}}}
    return [{"name": name, "builtin": name} for name in ("add_numbers", "echo")] + [{"name": n, **how} for n, how in definitions.items()]


class Place:
    """An engine, and workers of ours in front of it."""
    real = False

    def __init__(self, start, folder):
        self.start, self.folder, self.workers = start, str(folder), []
        self.write_tasks(tasks_of(self.folder))

    def write_tasks(self, tasks):
        path = os.path.join(self.folder, "tasks.yml")
        with open(path + ".new", "w", encoding="utf-8") as file:
            json.dump({"tasks": tasks}, file)
        os.replace(path + ".new", path)

    def worker(self, *arguments, ready=True):
        path = os.path.join(self.folder, "worker.yml")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(configuration.router({"app": configuration.service("http://127.0.0.1:9")}, backend="hatchet",
                                           backends={"hatchet": {}}), file)
        process = self.start.process("task-backend-worker", "--config", path, "--tasks", os.path.join(self.folder, "tasks.yml"),
                                     "--log-format", "json", "--log-level", "debug", *arguments,
                                     cwd=self.folder, env=self.env)
        self.workers.append(process)
        if ready:
            process.wait_event("engine_works")
        return process

    def stop(self):
        """Workers first: one that has something to tell waits for an engine that is gone."""
        for process in self.workers:
            process.stop()

    def rest(self, method, path, body=None):
        question = urllib.request.Request(self.url + path, json.dumps(body).encode() if body is not None else None,
                                          {"Authorization": "Bearer " + self.token, "Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(question, timeout=PATIENCE) as answer:
            return json.loads(answer.read() or b"null")

    def trigger(self, task, *args, workflow=None, **kwargs):
        tenant = json.loads(base64.urlsafe_b64decode(self.token.split(".")[1] + "=="))["sub"]
        self.tenant = tenant
        return self.rest("POST", "/api/v1/stable/tenants/%s/workflow-runs/trigger" % tenant, {
            "workflowName": workflow or task + "_workflow", "input": {"args": list(args), "kwargs": kwargs}, "additionalMetadata": {},
            "priority": 1, "return_only_id": True})["run"]["metadata"]["id"]

    def cancel(self, run):
        self.rest("POST", "/api/v1/stable/tenants/%s/tasks/cancel" % self.tenant, {"externalIds": [run]})

    def look(self, run):
        try:
            return self.rest("GET", "/api/v1/stable/workflow-runs/" + run)
        except urllib.error.HTTPError as why:
            assert why.code == 404, why
            return None

    def end(self, run, patience=PATIENCE):
        """status, output and error of its task, once it has ended."""
        def ended():
            found = self.look(run)
            if not found or found["run"]["status"] in ("QUEUED", "RUNNING"):
                return None
            task = found["tasks"][0]
            return found["run"]["status"], task["output"], task["errorMessage"]
        try:
            return wait_until(ended, "run %s to end" % run, patience)
        except AssertionError as why:
            raise AssertionError("%s; the last worker said:\n%s" % (why, self.workers[-1].log()[-6000:])) from None

    def runs(self):
        try:
            with open(os.path.join(self.folder, "runs"), encoding="utf-8") as file:
                return file.read().split("\n")[:-1]
        except FileNotFoundError:
            return []

    def wait_runs(self, *lines, patience=PATIENCE):
        wait_until(lambda: self.runs() == list(lines), "runs %s" % (lines,), patience)

    def go(self):
        with open(os.path.join(self.folder, "go"), "w", encoding="utf-8"):
            pass


class StandInPlace(Place):
    def __init__(self, start, folder):
        super().__init__(start, folder)
        self.engine = WorkerEngine()
        self.token, self.url = self.engine.token(), self.engine.url
        self.env = {"HATCHET_CLIENT_TOKEN": self.token, "HATCHET_SERVER_URL": self.url, "HATCHET_CLIENT_TLS_STRATEGY": "none"}

    def worker(self, *arguments, ready=True):
        there = len(self.engine.registered)
        process = super().worker(*arguments, ready=ready)
        if ready:
            wait_until(lambda: len(self.engine.registered) > there, "the worker to be registered")
        return process

    def lost(self):
        """The engine has not heard of its workers for 30 s."""
        with self.engine.changed:
            gone = [w for w in self.engine.registered.values() if w.held and not w.active]
            assert self.engine.changed.wait_for(lambda: [w for w in self.engine.registered.values() if w.held and not w.active], PATIENCE)
            gone = [w for w in self.engine.registered.values() if w.held and not w.active]
        for worker in gone:
            self.engine.reassign(worker)

    def stop(self):
        super().stop()
        self.engine.stop()


class RealPlace(Place):
    real = True

    def __init__(self, start, folder):
        super().__init__(start, folder)
        server = hatchet_real.Server()
        self.token, self.url = hatchet_real.TOKEN, server.url
        self.env = {**server.environment, "HATCHET_CLIENT_TOKEN": self.token}

    def lost(self):
        """It sees so itself."""


# One engine for all: what one test leaves, or runs, is given to another's worker.
@pytest.fixture(params=["stand-in", pytest.param("real", marks=[pytest.mark.heavy, pytest.mark.xdist_group("real-hatchet")])])
def place(request, start, tmp_path):
    if request.param == "real" and not hatchet_real.TOKEN:
        pytest.skip("HATCHET_CLIENT_TOKEN is not set: no real Hatchet engine to run against")
    one = (RealPlace if request.param == "real" else StandInPlace)(start, tmp_path)
    yield one
    one.stop()


@pytest.fixture
def stand_in(start, tmp_path):
    one = StandInPlace(start, tmp_path)
    yield one
    one.stop()


def test_tasks_run_and_their_ends_are_what_they_said(place):
    worker = place.worker()
    runs = [place.trigger("add_numbers", 2, 3), place.trigger("echo", "ü"), place.trigger("give_back", {"a": [1, None, "ü"]}),
            place.trigger("hc_count", "one"), place.trigger("fail", "it broke"), place.trigger("hc_long")]
    status, output, _ = place.end(runs[0])
    assert (status, output) == ("COMPLETED", {"add_numbers": 5})
    assert place.end(runs[1])[:2] == ("COMPLETED", {"echo": "Echo: ü"})
    assert place.end(runs[2])[:2] == ("COMPLETED", {"a": [1, None, "ü"]})
    assert place.end(runs[3])[:2] == ("COMPLETED", {"hc_count": "one"})
    status, _, error = place.end(runs[4])
    assert status == "FAILED" and "it broke" in error
    status, _, error = place.end(runs[5])
    assert (status, error) == ("FAILED", "timed out after 300 ms")
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0


def test_what_hatchet_would_change_or_not_tell_apart_is_said_or_fails(place):
    worker = place.worker()
    status, _, error = place.end(place.trigger("hc_number"))
    assert status == "FAILED" and "12345678901234567890" in error
    # who reads {"<task>": …} takes what is in it for the result
    assert place.end(place.trigger("hc_Case"))[:2] == ("COMPLETED", {"hc_Case": {"hc_Case": 1}})
    said = [e["task"] for e in worker.find("task_not_declared")]
    assert said == ["hc number", "HC_case"]


def test_a_task_that_asks_for_it_is_run_again_if_it_is_idempotent(place):
    place.worker()
    run, other = place.trigger("hc_third_time", "a"), place.trigger("hc_third", "b")
    assert place.end(other)[0] == "FAILED"
    wait_until(lambda: place.end(run, LONG)[0] == "COMPLETED", "the third time", LONG)
    assert sorted(place.runs()) == ["begin a"] * 3 + ["begin b"]


def test_a_cancelled_task_is_ended(place):
    worker = place.worker()
    run = place.trigger("hc_hold", "a")
    place.wait_runs("begin a")
    wait_until(lambda: (place.look(run) or {"run": {"status": ""}})["run"]["status"] == "RUNNING", "the run to be seen")
    place.cancel(run)
    worker.wait_event("task_cancelled")
    worker.wait_event("task_ended", status="cancelled")
    assert place.end(run)[0] == "CANCELLED"
    assert place.runs() == ["begin a"]


def test_a_drain_ends_what_runs_and_takes_nothing_more(place):
    worker = place.worker("--shutdown-timeout", "60s")
    run = place.trigger("hc_hold", "a")
    place.wait_runs("begin a")
    worker.signal(signal.SIGTERM)
    worker.wait_event("worker_drains")
    if not place.real:
        wait_until(lambda: all(w.paused for w in place.engine.registered.values()), "the worker to be paused")
        late = place.trigger("hc_count", "late")
    place.go()
    assert place.end(run)[:2] == ("COMPLETED", {"hc_hold": "a"})
    assert worker.wait() == 0
    if not place.real:
        assert not place.engine.told(late)
        place.worker()
        assert place.end(late)[:2] == ("COMPLETED", {"hc_count": "late"})


def test_a_task_whose_worker_died_is_not_begun_twice_unless_it_is_idempotent(place):
    first = place.worker()
    once, again = place.trigger("hc_hold", "once"), place.trigger("hc_hold_again", "again")
    wait_until(lambda: sorted(place.runs()) == ["begin again", "begin once"], "both to begin")
    first.kill()
    second = place.worker()
    place.lost()
    place.go()
    status, _, error = place.end(once, LONG)
    assert (status, error) == ("FAILED", "the worker that ran the task was lost")
    assert place.end(again, LONG)[:2] == ("COMPLETED", {"hc_hold_again": "again"})
    second.wait_event("task_not_repeated")
    assert sorted(r for r in place.runs() if r.startswith("begin")) == ["begin again", "begin again", "begin once"]


def test_a_reload_is_declared_and_what_runs_goes_on(place):
    worker = place.worker()
    run = place.trigger("hc_hold", "a")
    place.wait_runs("begin a")
    place.write_tasks(tasks_of(place.folder) + [{"name": "hc_new", "exec": {"argv": ["echo", "7"]}}])
    worker.signal(signal.SIGHUP)
    wait_until(lambda: len(worker.find("worker_registered")) == 2, "the second registration")
    assert place.end(place.trigger("hc_new"), LONG)[:2] == ("COMPLETED", {"hc_new": 7})
    place.go()
    assert place.end(run)[:2] == ("COMPLETED", {"hc_hold": "a"})
    assert place.runs() == ["begin a", "end a"]


# --- what only the stand-in can be made to do --------------------------------------------------------------------------------

def test_an_outcome_is_told_when_the_engine_is_back(stand_in):
    worker = stand_in.worker()
    run = stand_in.trigger("hc_hold", "a")
    stand_in.wait_runs("begin a")
    stand_in.engine.close()
    stand_in.go()
    worker.wait_event("outcomes_wait")
    worker.wait_event("engine_failed")
    stand_in.engine.open()
    assert stand_in.end(run)[:2] == ("COMPLETED", {"hc_hold": "a"})
    worker.wait_event("outcomes_told")
    assert stand_in.end(stand_in.trigger("add_numbers", 1, 1))[1] == {"add_numbers": 2}
    assert stand_in.runs() == ["begin a", "end a"]


def test_an_outcome_that_is_not_taken_is_told_again(stand_in):
    worker = stand_in.worker()
    run = stand_in.trigger("hc_hold", "a")
    stand_in.engine.wait_told(run, STARTED)
    for status in ("UNAVAILABLE", "INTERNAL", "RESOURCE_EXHAUSTED", "INVALID_ARGUMENT"):
        stand_in.engine.refuse("SendStepActionEvent", status)
    stand_in.go()
    assert stand_in.end(run)[:2] == ("COMPLETED", {"hc_hold": "a"})
    assert not worker.find("task_result_refused")
    large = stand_in.trigger("hc_count", "large")
    stand_in.engine.wait_told(large, COMPLETED)
    assert stand_in.runs() == ["begin a", "end a", "begin large"]


def test_a_result_that_the_engine_finds_too_large_is_a_failure(stand_in):
    worker = stand_in.worker()
    run = stand_in.trigger("hc_hold", "a")
    stand_in.engine.wait_told(run, STARTED)
    stand_in.engine.refuse("SendStepActionEvent", "RESOURCE_EXHAUSTED", "grpc: received message larger than max (9 vs. 8)")
    stand_in.go()
    status, _, error = stand_in.end(run)
    assert (status, error) == ("FAILED", "the result is larger than this Hatchet takes")
    worker.wait_event("task_result_refused")


def test_what_the_engine_gives_again_while_it_runs_here_is_run_once(stand_in):
    """It has not heard of the worker for 30 s: the same worker is given the next attempt."""
    worker = stand_in.worker()
    run = stand_in.trigger("hc_hold", "a")
    stand_in.engine.wait_told(run, STARTED)
    stand_in.engine.reassign(stand_in.engine.wait_workers()[0])
    worker.wait_event("task_given_again")
    stand_in.go()
    assert stand_in.end(run)[:2] == ("COMPLETED", {"hc_hold": "a"})
    assert stand_in.engine.told(run, COMPLETED)[-1]["retry"] == 1
    assert stand_in.runs() == ["begin a", "end a"]


def test_what_never_reached_a_worker_is_run_and_so_is_a_replay(stand_in):
    """A later attempt, whose history says that no earlier one has begun, or that its end is known."""
    stand_in.worker()
    engine = stand_in.engine
    engine.wait_workers()[0].subscribed = False
    run = stand_in.trigger("hc_count", "a")
    engine.wait_workers()[0].subscribed = True
    with engine.changed:
        engine.assign()
    assert stand_in.end(run)[:2] == ("COMPLETED", {"hc_count": "a"})
    assert engine.told(run, COMPLETED)[-1]["retry"] >= 1
    engine.replay(engine.runs[run])
    wait_until(lambda: stand_in.runs() == ["begin a"] * 2, "the replay")


def test_a_history_that_cannot_be_had_is_no_leave_to_begin(stand_in):
    stand_in.worker()
    engine = stand_in.engine
    engine.wait_workers()[0].subscribed = False
    run = stand_in.trigger("hc_count", "a")
    engine.fault("GET", "task-events", (500, None), times=2)
    engine.fault("GET", "task-events", (403, None))
    engine.wait_workers()[0].subscribed = True
    with engine.changed:
        engine.assign()
    assert stand_in.end(run)[:1] == ("FAILED",)
    assert stand_in.runs() == []


def test_a_worker_that_the_engine_forgot_registers_anew(stand_in):
    worker = stand_in.worker()
    with stand_in.engine.changed:
        stand_in.engine.registered.clear()
    worker.wait_event("worker_forgotten")
    stand_in.engine.wait_workers()
    assert stand_in.end(stand_in.trigger("add_numbers", 1, 1))[1] == {"add_numbers": 2}


def test_one_task_that_the_engine_refuses_keeps_no_other_out(stand_in):
    stand_in.engine.refuse("PutWorkflow", "INVALID_ARGUMENT")
    stand_in.engine.refuse("PutWorkflow", "INTERNAL")
    worker = stand_in.worker()
    assert [e.get("workflow") for e in worker.find("task_not_declared")][-1] == "add_numbers_workflow"
    assert stand_in.end(stand_in.trigger("echo", "x"))[1] == {"echo": "Echo: x"}  # the second: tried again


def test_a_bad_token_is_told_and_tried_again(stand_in):
    stand_in.engine.refuse("PutWorkflow", "UNAUTHENTICATED", "invalid auth token")
    worker = stand_in.worker()
    assert "invalid auth token" in worker.find("engine_failed")[0]["error"]


@pytest.mark.parametrize("environment, said", [
    ({"HATCHET_CLIENT_TLS_STRATEGY": "mtls"}, "mtls"), ({"HATCHET_CLIENT_TLS_STRATEGY": "maybe"}, "grpc_tls"),
    ({"HATCHET_CLIENT_HOST_PORT": "http://x/y"}, "host:port")])
def test_wrong_settings_are_named(stand_in, environment, said):
    stand_in.env.update(environment)
    worker = stand_in.worker(ready=False)
    assert worker.wait() != 0
    assert said in worker.log()
