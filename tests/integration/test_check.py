"""check --backends and --test, fail_fast, and registration in /readyz: what is missing is said before anybody depends on it."""
import json
import os
import subprocess

import pytest

import configuration as c
from http_text import wait_until
from programs import environment, need_backend, program
from raw import ask, request

TASKS = {"tasks": [{"name": n, "builtin": n} for n in ("add_numbers", "echo")] +
         [{"name": "elsewhere", "builtin": "echo", "queue": "other"}],
         "workflows": [{"name": "both", "steps": [{"task": "echo"}, {"task": "elsewhere"}]}]}


def operations():
    return {
        "add": c.operation("POST /add", {"name": "add_numbers", "args": [{"$ref": "body:/a"}, {"$ref": "body:/b"}]}),
        "hello": c.operation("POST /hello", {"name": "echo", "kwargs": {"message": {"$ref": "identity:user"}},
                                             "response": [{"when": {"ref": "task:status", "equals": "completed"}, "status": 201,
                                                           "body": {"said": {"$ref": "result:"}}}]}),
    }


class World:
    def __init__(self, start, more=None, **sections):
        self.start, self.folder = start, str(start.folder())
        with open(os.path.join(self.folder, "tasks.yml"), "w", encoding="utf-8") as file:
            json.dump(TASKS, file)
        self.config = c.router({"app": c.service(start.origin(), {**operations(), **(more or {})})},
                               **{"backends": c.embedded(), "identity": c.IDENTITY, **sections})
        self.path = os.path.join(self.folder, "router.yml")
        with open(self.path, "w", encoding="utf-8") as file:
            json.dump(self.config, file)

    def router(self):
        flags = c.features(c.boolean("task_abstraction_enabled", True))
        self.running = self.start.router(self.config, flags, folder=self.folder)
        return self.running

    def worker(self, router):
        """Ready, and seen: it says that it is ready before its first sign of life is in the queue's file."""
        self.start.worker(router)
        wait_until(lambda: self.start.run("task-backend-worker", "--health-check", "--config", self.path).returncode == 0,
                   "the worker to be seen")

    def check(self, *arguments, **how):
        return self.start.run("migration-router", "check", self.path, *arguments, **how)

    def rows(self, ended):
        """Operation: the columns of its line, the sentence last."""
        return {line.split()[0]: line.split(None, 6) for line in ended.stdout.splitlines() if line.startswith("app.")}


@pytest.fixture
def world(start):
    return lambda **how: World(start, **how)


def test_everything_is_there(world):
    w = world()
    w.worker(w.router())
    ended = w.check("--backends")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert w.rows(ended) == {n: [n, "embedded", "default", "yes", "yes", "yes", "-"] for n in ("app.add", "app.hello")}


def test_what_is_missing_is_named(world):
    w = world(more={"nobody": c.operation("POST /n", {"name": "add_number"}),
                    "apart": c.operation("POST /e", {"name": "elsewhere"}),
                    "asked": c.operation("POST /q", {"name": "echo", "queue": "third"}),
                    "flow": c.operation("POST /f", {"workflow": "both", "args": ["x"]}),
                    "plain": {"match": "GET /plain"}})
    w.worker(w.router())
    ended = w.check("--backends")
    rows = w.rows(ended)
    assert ended.returncode == 1 and "4 missing" in ended.stdout
    assert rows["app.add"][-1] == "-" and "app.plain" not in rows
    assert rows["app.nobody"][4] == "no" and "add_numbers" in rows["app.nobody"][-1], "the nearest name is told"
    assert rows["app.apart"][5] == "no" and '"other"' in rows["app.apart"][-1]
    assert rows["app.asked"][5] == "no" and '"third"' in rows["app.asked"][-1]
    assert rows["app.flow"][4:6] == ["yes", "no"] and '"other"' in rows["app.flow"][-1], "a step's queue counts"


def test_one_service_and_one_backend_can_be_asked_about(world):
    w = world(more={"nobody": c.operation("POST /n", {"name": "add_number"})})
    w.worker(w.router())
    assert set(w.rows(w.check("--service", "app", "--backend", "embedded"))) == {"app.add", "app.hello", "app.nobody"}
    for arguments, wrong in ((("--service", "ap"), 'no service "ap" is declared'), (("--backend", "temporal"), "temporal")):
        ended = w.check(*arguments)
        assert ended.returncode == 2 and arguments[0] + ": " in ended.stderr and wrong in ended.stderr, ended.stderr
    assert w.check("--validate", "--backends").returncode == 2
    validated = w.check("--validate")
    assert validated.returncode == 0 and ": ok: 1 services, 3 operations" in validated.stdout


def test_a_backend_that_only_a_flag_leads_to_counts_when_it_is_asked_about(world):
    need_backend("celery")
    w = world(backends={**c.embedded(), "celery": {"broker_url": "redis://127.0.0.1:1/0", "connect_timeout": "1s"}})
    w.worker(w.router())
    assert w.check("--backends").returncode == 0
    ended = w.check("--backend", "celery")
    assert ended.returncode == 1 and "embedded" not in ended.stdout and "2 missing" in ended.stdout


def test_a_check_makes_nothing(world):
    w = world()
    ended = w.check("--backends")
    assert ended.returncode == 1 and w.rows(ended)["app.add"][3] == "no"
    assert "tasks.db" in ended.stdout
    assert sorted(os.listdir(w.folder)) == ["router.yml", "tasks.yml"]


def test_every_configured_backend_is_told_and_only_the_named_ones_count(world):
    need_backend("celery")
    w = world(backends={**c.embedded(), "celery": {"broker_url": "redis://127.0.0.1:1/0", "connect_timeout": "1s"}})
    w.worker(w.router())
    ended = w.check("--backends")
    lines = [line.split(None, 6) for line in ended.stdout.splitlines() if line.startswith("app.add")]
    assert [line[1:4] for line in lines] == [["embedded", "default", "yes"], ["celery", "flag", "no"]]
    assert ended.returncode == 0
    w = world(backends={**c.embedded(), "celery": {"broker_url": "redis://127.0.0.1:1/0", "connect_timeout": "1s"}},
              more={"mapped": c.operation("POST /m", {"name": "echo"}, variants={"new": "celery"})})
    w.worker(w.router())
    ended = w.check("--backends")
    lines = [line.split(None, 6) for line in ended.stdout.splitlines() if line.startswith("app.mapped")]
    assert ["celery", "variant", "no"] in [line[1:4] for line in lines] and ended.returncode == 1


# --- running one ---------------------------------------------------------------------------------------------------------

def test_a_task_is_run_through(world):
    w = world()
    w.worker(w.router())
    ended = w.check("--test", "app.add", "--body", '{"a": 9007199254740993, "b": 1}')
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "input      [9007199254740993,1] {}" in ended.stdout
    assert "answer     200 application/json\n9007199254740994\n" in ended.stdout
    assert w.running.query("SELECT * FROM attempts") == [], "a test is no outcome"


def test_the_answer_is_the_callers(world):
    w = world()
    w.worker(w.router())
    ended = w.check("--test", "app.hello", "--user", "alice", "--org", "o")
    assert ended.returncode == 0 and 'answer     201 application/json\n{"said":"Echo: alice"}' in ended.stdout, ended.stdout
    body = os.path.join(w.folder, "body.json")
    with open(body, "w", encoding="utf-8") as file:
        file.write('{"a": 1, "b": "x"}')
    ended = w.check("--test", "app.add", "--body", "@" + body)
    assert ended.returncode == 1 and "status     failed" in ended.stdout
    assert "answer     500 application/problem+json" in ended.stdout


@pytest.mark.parametrize("arguments,said", [
    (["--test", "app.nothing"], "app.add app.hello"),
    (["--test", "nothing"], "app.add app.hello"),
    (["--test", "app.add", "--body", "{"], "not valid JSON"),
    (["--test", "app.add", "--body", "@/nowhere"], "/nowhere"),
    (["--body", "{}"], "usage"),
    (["--nonsense"], "nonsense"),
])
def test_wrong_arguments(world, arguments, said):
    ended = world().check(*arguments)
    assert ended.returncode == 2 and said in ended.stderr, ended.stderr


@pytest.mark.parametrize("backend", ["embedded", "celery", "temporal", "hatchet"])
def test_a_setting_that_nobody_reads_is_refused_with_its_line(world, backend):
    need_backend(backend)
    w = world(backends={backend: {"nonsense": "1"}}, backend=backend)
    ended = w.check()
    with open(w.path, encoding="utf-8") as file:
        line = 1 + file.read().split('"nonsense"')[0].count("\n")
    assert ended.returncode == 2, ended.stderr
    assert "router.yml:%d: backends.%s.nonsense: unknown key; known here: " % (line, backend) in ended.stderr


def test_values_of_settings_are_checked_without_asking_anybody(world):
    need_backend("celery", "temporal", "hatchet")
    w = world(backends={"embedded": {"tasks": "nowhere.yml"}, "celery": {"broker_url": "redis://127.0.0.1:1", "queue": "a b"},
                        "temporal": {"host": "127.0.0.1", "port": 0}, "hatchet": {"token": "secret"}}, backend="embedded")
    w.config["backends"]["celery"]["command_timeout"] = "never"
    with open(w.path, "w", encoding="utf-8") as file:
        json.dump(w.config, file, indent=1)
    with open(w.path, encoding="utf-8") as file:
        lines = file.read().split("\n")

    def said(where, key, sentence):
        number = 1 + next(i for i, text in enumerate(lines) if '"%s":' % key in text)
        return "%s:%d: backends.%s: %s" % (w.path, number, where, sentence)
    ended = w.check()
    told = [line for line in ended.stderr.splitlines() if not line.startswith("warning: ")]
    assert ended.returncode == 2 and len(told) == 5, ended.stderr
    expected = [said("embedded", "embedded", w.folder + "/nowhere.yml"), said("celery.queue", "queue", "expected a name"),
                said("celery.command_timeout", "command_timeout", "expected a duration"),
                said("temporal.port", "port", "expected a port"), said("hatchet", "hatchet", "the token is not a JWT")]
    assert all(line.startswith(sentence) for line, sentence in zip(told, expected)), (told, expected)
    assert "secret" not in ended.stderr
    ended = w.check(env={"CELERY_BROKER_URL": "sqs://h"})
    assert "environment: CELERY_BROKER_URL: the URL must begin with redis://" in ended.stderr, ended.stderr
    started = start_alone(w)
    assert started.returncode == 2 and told[1] in started.stderr, "a start says the same"


def test_a_backend_that_is_nowhere_is_told_with_those_there_are(world):
    w = world(more={"x": c.operation("POST /x", {"name": "echo", "backend": "ingest"})}, backend="ingest")
    ended = w.check()
    assert ended.returncode == 2
    assert ".yml:1: backend: there is no backend \"ingest\"; available: embedded, " in ended.stderr
    assert "services.app.operations.x.task.backend: there is no backend \"ingest\"; available: embedded, " in ended.stderr
    for variable in ("TASK_QUEUE_BACKEND", "TASK_BACKEND_TYPE"):
        ended = world().check(env={variable: "ingest"})
        assert ended.returncode == 2
        assert "environment: %s: there is no backend \"ingest\"; available: embedded, " % variable in ended.stderr


# --- fail_fast and readiness ---------------------------------------------------------------------------------------------

def start_alone(w):
    return subprocess.run([program("migration-router"), "--config", w.path, "--log-format", "json"], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=60, cwd=w.folder,
                          env=environment())


@pytest.mark.parametrize("sections", [
    {"fail_fast": True},
    {"backends": {"embedded": {**c.embedded()["embedded"], "fail_fast": True}}},
])
def test_fail_fast_stops_the_start(world, sections):
    ended = start_alone(world(**sections))
    assert ended.returncode == 1
    assert "fail_fast: app.add on embedded: no worker serves the queue" in ended.stderr


def test_fail_fast_of_one_backend_is_not_that_of_others(world):
    w = world(fail_fast=True, backends={"embedded": {**c.embedded()["embedded"], "fail_fast": False}})
    assert w.router().popen.poll() is None


def test_fail_fast_lets_a_good_start_be(world):
    w = world()
    first = w.router()
    w.worker(first)
    first.stop()
    w.config["fail_fast"] = True
    assert w.router().popen.poll() is None


def test_readiness_tells_the_registration(world):
    w = world(more={"nobody": c.operation("POST /n", {"name": "no_such_task"})})
    router = w.router()
    w.worker(router)

    def readyz():
        return json.loads(ask(router.admin_port, request("GET", "/readyz")).body)
    told = wait_until(lambda: (lambda r: r if [e["operation"] for e in r["registration"]] == ["app.nobody"] else None)(readyz()),
                      "readiness to name the operation alone", 30)
    assert told["status"] == "degraded" and told["ready"] is True
    assert told["registration"][0]["backend"] == "embedded" and "no_such_task" in told["registration"][0]["missing"]
    assert router.wait_event("registration_missing", operation="nobody")
    # a reload that takes the operation away
    del w.config["services"]["app"]["operations"]["nobody"]
    router.write_config(w.config)
    router.signal(1)
    wait_until(lambda: readyz()["registration"] == [], "readiness to follow the reload", 30)
